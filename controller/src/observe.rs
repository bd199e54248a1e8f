//! Reads: one watch per kind, and the snapshot of all of them that a pass looks at.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{StreamExt, stream};
use holdfast_api::names::{NODE_LABEL, PLACED_ON, SYSTEM_NAMESPACE, node_lease};
use holdfast_api::{
    HypervisorNode, NodeEnrolment, SSHKey, VirtualMachine, VirtualMachineImage, VirtualMachineNetwork,
};
use holdfast_client::{Read, all, namespaced, paged};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::{Client, Resource, ResourceExt};
use tokio::sync::Notify;

use crate::cache::{Cache, Name, Outage, Wake, name};
use crate::heartbeat::Heartbeats;
use crate::unread::Unread;
use crate::world::{Grants, Node, Settings, World};
use crate::write::{Exactly, Kind};

/// The looks at Leases before their nodes are declared silent may take this long in a pass; those without an answer by
/// then are not declared, and the pass goes on.
const LOOK_LIMIT: Duration = Duration::from_secs(5);
/// Such looks under way at once: when a whole site loses its link, all nodes are overdue together.
const LOOKS_AT_ONCE: usize = 8;

/// What is known of every kind.
pub(crate) struct Caches {
    pub(crate) machines: Cache<VirtualMachine>,
    pub(crate) images: Cache<VirtualMachineImage>,
    pub(crate) networks: Cache<VirtualMachineNetwork>,
    pub(crate) keys: Cache<SSHKey>,
    pub(crate) nodes: Cache<HypervisorNode>,
    pub(crate) enrolments: Cache<NodeEnrolment>,
    pub(crate) leases: Cache<Lease>,
    pub(crate) requests: Cache<CertificateSigningRequest>,
    pub(crate) roles: Cache<Role>,
    pub(crate) role_bindings: Cache<RoleBinding>,
    pub(crate) cluster_roles: Cache<ClusterRole>,
    pub(crate) cluster_role_bindings: Cache<ClusterRoleBinding>,
}

impl Caches {
    /// The caches, and the one future that fills them for as long as it is polled.
    pub(crate) fn new(client: &Client, wake: &Arc<Notify>) -> (Self, BoxFuture<'static, ()>) {
        let mut follow: Vec<BoxFuture<'static, ()>> = Vec::new();
        let yes = || Wake::Yes(Arc::clone(wake));
        let outage = Outage::default();
        macro_rules! watched {
            ($kind:ident, $api:expr, $labels:expr, $wake:expr) => {
                watched!($kind, $api, $labels, $wake, |_| ())
            };
            ($kind:ident, $api:expr, $labels:expr, $wake:expr, $leave_out:expr) => {{
                let how = ($wake, outage.clone());
                let (cache, task) = Cache::new((Kind::$kind, $api), $labels, how, $leave_out);
                follow.push(Box::pin(task));
                cache
            }};
        }
        let pages = paged(client.clone());
        let client = || pages.clone();
        let ours = Some(NODE_LABEL);
        let leases = namespaced::<Lease>(client(), SYSTEM_NAMESPACE);
        let requests = all::<CertificateSigningRequest>(client());
        let caches = Self {
            machines: watched!(VirtualMachine, all::<VirtualMachine>(client()), None, yes(), lean_machine),
            images: watched!(VirtualMachineImage, all::<VirtualMachineImage>(client()), None, yes(), lean),
            networks: watched!(
                VirtualMachineNetwork,
                all::<VirtualMachineNetwork>(client()),
                None,
                yes(),
                lean
            ),
            keys: watched!(SshKey, all::<SSHKey>(client()), None, yes(), lean),
            nodes: watched!(HypervisorNode, all::<HypervisorNode>(client()), None, yes(), lean_node),
            enrolments: watched!(NodeEnrolment, all::<NodeEnrolment>(client()), None, yes()),
            leases: watched!(Lease, leases, ours, Wake::No),
            requests: watched!(SigningRequest, requests, ours, yes()),
            roles: watched!(Role, all::<Role>(client()), ours, yes()),
            role_bindings: watched!(RoleBinding, all::<RoleBinding>(client()), ours, yes()),
            cluster_roles: watched!(ClusterRole, all::<ClusterRole>(client()), ours, yes()),
            cluster_role_bindings: watched!(
                ClusterRoleBinding,
                all::<ClusterRoleBinding>(client()),
                ours,
                yes()
            ),
        };
        let filled = async move {
            let mut follow: FuturesUnordered<_> = follow.into_iter().collect();
            while follow.next().await.is_some() {}
        };
        (caches, Box::pin(filled))
    }

    /// Waits until every kind was listed once: before that, absence means nothing.
    pub(crate) async fn ready(&self) {
        self.machines.ready().await;
        self.images.ready().await;
        self.networks.ready().await;
        self.keys.ready().await;
        self.nodes.ready().await;
        self.enrolments.ready().await;
        self.leases.ready().await;
        self.requests.ready().await;
        self.roles.ready().await;
        self.role_bindings.ready().await;
        self.cluster_roles.ready().await;
        self.cluster_role_bindings.ready().await;
    }

    /// The snapshot of this moment.
    pub(crate) fn world(
        &self,
        settings: Settings,
        beats: &Heartbeats,
        now: Instant,
        unhurried: bool,
    ) -> World {
        let mut unread = Unread::default();
        let mut machines = self.machines.all(now, &mut unread);
        machines.sort_by_cached_key(|vm| (vm.creation_timestamp().map(|time| time.0), name(&**vm)));
        let nodes = self.nodes.all(now, &mut unread);
        let node = |object: Arc<HypervisorNode>| {
            let life = beats.life(&node_lease(&object.name_any()));
            let hidden = unread.of(Kind::HypervisorNode, &*object).is_some();
            let unread = unread.any(Kind::HypervisorNode, &*object);
            (object.name_any(), Node { object, life, unread, hidden })
        };
        let nodes = nodes.into_iter().map(node).collect();
        let requests = self.requests.all(now, &mut unread);
        let leases = self.leases.all(now, &mut unread);
        World {
            settings,
            now: Time(Timestamp::now()),
            unhurried,
            machines,
            nodes,
            images: by_name(self.images.all(now, &mut unread)),
            networks: self.networks.all(now, &mut unread),
            keys: self.keys.all(now, &mut unread),
            enrolments: self.enrolments.all(now, &mut unread),
            requests: requests.into_iter().map(|request| (request.name_any(), request)).collect(),
            leases: leases.into_iter().map(|lease| (lease.name_any(), Exactly::of(&*lease))).collect(),
            grants: Grants {
                roles: by_name(self.roles.all(now, &mut unread)),
                role_bindings: by_name(self.role_bindings.all(now, &mut unread)),
                cluster_roles: by_name(self.cluster_roles.all(now, &mut unread)),
                cluster_role_bindings: by_name(self.cluster_role_bindings.all(now, &mut unread)),
            },
            unread,
        }
    }

    /// Notes every heartbeat; a node whose time is over is declared silent only after a look at its Lease itself.
    pub(crate) async fn listen(&self, client: &Client, beats: &mut Heartbeats, now: Instant) {
        let mut unread = Unread::default();
        let leases = self.leases.all(now, &mut unread);
        for lease in &leases {
            beats.note(lease, unread.any(Kind::Lease, &**lease), now);
        }
        beats.keep(|name| leases.iter().any(|lease| lease.name_any() == name));
        let api = namespaced::<Lease>(client.clone(), SYSTEM_NAMESPACE);
        let looks = stream::iter(beats.overdue(now)).map(async |name| api.get(&name).await);
        let answers = looks.buffer_unordered(LOOKS_AT_ONCE).take_until(tokio::time::sleep(LOOK_LIMIT));
        let answers: Vec<_> = answers.collect().await;
        for answer in answers.into_iter().flatten() {
            let Read { object: lease, faults } = Read::<Lease>::from(answer);
            beats.note(&lease, !faults.is_empty(), Instant::now());
            if beats.overdue(Instant::now()).contains(&lease.name_any()) {
                beats.declare_silent(&lease.name_any());
            }
        }
    }
}

/// What no planner reads is not kept: others may make it large, and it is most of an object.
fn lean_machine(vm: &mut VirtualMachine) {
    lean(vm);
    vm.spec.cloud_init.user_data = String::new();
    vm.spec.cloud_init.network_data = String::new();
    for interface in &mut vm.spec.interfaces {
        interface.addresses = Vec::new();
    }
    if let Some(status) = &mut vm.status {
        (status.addresses, status.interfaces, status.pending_changes) = (Vec::new(), Vec::new(), Vec::new());
        (status.progress, status.seed) = (None, None);
    }
}

/// Of a node people read more than the controller.
fn lean_node(node: &mut HypervisorNode) {
    node.metadata.annotations = None;
}

/// Of the metadata of what people write, what no planner reads.
fn lean<K: Resource>(object: &mut K) {
    let metadata = object.meta_mut();
    (metadata.labels, metadata.owner_references) = (None, None);
    if let Some(annotations) = &mut metadata.annotations {
        annotations.retain(|key, _| key == PLACED_ON);
    }
}

fn by_name<K: Resource>(objects: Vec<Arc<K>>) -> BTreeMap<Name, Arc<K>> {
    objects.into_iter().map(|object| (name(&*object), object)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_api::virtual_machine::VirtualMachineSpec;
    use holdfast_client::Raw;

    fn client(server: &str) -> Client {
        // Another test may have been first; which of them does not matter.
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        Client::try_from(kube::Config::new(server.parse().unwrap())).unwrap()
    }

    #[tokio::test]
    async fn a_pass_does_not_wait_for_each_silent_node_in_turn() {
        // Takes connections and never answers.
        let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = client(&format!("http://{}", mute.local_addr().unwrap()));
        let (caches, _follow) = Caches::new(&client, &Arc::new(Notify::new()));
        let mut beats = Heartbeats::default();
        let (now, long_ago) = (Instant::now(), Instant::now().checked_sub(Duration::from_secs(60)).unwrap());
        for number in 0..30 {
            let mut lease = Lease::default();
            lease.metadata.name = Some(format!("holdfast-node-edge-{number}"));
            beats.note(&lease, false, long_ago);
            caches.leases.learn(Raw::new(serde_json::to_value(lease).unwrap()));
        }
        let pass = caches.listen(&client, &mut beats, now);
        tokio::time::timeout(LOOK_LIMIT * 2, pass).await.unwrap();
        assert_eq!(beats.overdue(now).len(), 30, "without an answer nobody is declared silent");
    }

    #[tokio::test]
    async fn what_no_planner_reads_is_not_kept() {
        let api = all::<VirtualMachine>(client("http://127.0.0.1:1"));
        let how = (Wake::No, Outage::default());
        let (machines, _follow) = Cache::new((Kind::VirtualMachine, api), None, how, lean_machine);
        let mut vm = VirtualMachine::new("web", VirtualMachineSpec::default());
        vm.spec.cloud_init.user_data = "#cloud-config".to_owned();
        vm.spec.cloud_init.network_data = "version: 2".to_owned();
        vm.spec.cloud_init.hostname = "web".to_owned();
        let annotations = [(PLACED_ON, "edge-1"), ("example.org/large", "x")];
        vm.metadata.annotations =
            Some(annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        vm.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
        machines.learn(Raw::new(serde_json::to_value(vm).unwrap()));
        let kept = &machines.all(Instant::now(), &mut Unread::default())[0];
        let data = &kept.spec.cloud_init;
        assert_eq!(
            (data.user_data.as_str(), data.network_data.as_str(), data.hostname.as_str()),
            ("", "", "web")
        );
        assert_eq!((kept.annotations().len(), kept.annotations()[PLACED_ON].as_str()), (1, "edge-1"));
        assert!(kept.labels().is_empty());
    }
}
