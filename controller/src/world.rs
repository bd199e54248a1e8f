//! Everything one pass looks at: a snapshot, so that planners are pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use holdfast_api::names::{FINALIZER, NODE_LABEL, PLACED_ON, own_grant, secrets_grant, vms_grant};
use holdfast_api::virtual_machine::VirtualMachineStatus;
use holdfast_api::{
    HypervisorNode, NodeEnrolment, SSHKey, VirtualMachine, VirtualMachineImage, VirtualMachineNetwork,
    condition,
};
use holdfast_client::Faults;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use kube::ResourceExt;

use crate::cache::Name;
use crate::capacity::{self, Room};
use crate::heartbeat::Life;
use crate::unread::Unread;
use crate::write::{Exactly, Kind};

/// What the administrator decided at start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Lets nodes in whose key lies in a file, without asking a person.
    pub(crate) accept_insecure_dev: bool,
    /// How long a node's certificate is valid, in seconds.
    pub(crate) certificate_seconds: i32,
}

/// 90 days. A node renews at two thirds; longer would keep a stolen certificate alive for longer, and the admission
/// policy on the controller's account allows no more.
pub(crate) const MOST_CERTIFICATE_SECONDS: i32 = 90 * 24 * 3600;

impl Default for Settings {
    fn default() -> Self {
        Self { accept_insecure_dev: false, certificate_seconds: MOST_CERTIFICATE_SECONDS }
    }
}

/// The fields that say how much room a virtual machine takes.
const SIZES: [&str; 5] = ["spec.cpu", "spec.memory", "spec.disks", "status.applied", "status.disks"];

/// The snapshot.
pub(crate) struct World {
    pub(crate) settings: Settings,
    pub(crate) now: Time,
    /// Whether this pass writes what is for information only too; such writes are merged over a few seconds.
    pub(crate) unhurried: bool,
    /// Oldest first: who came first is placed first.
    pub(crate) machines: Vec<Arc<VirtualMachine>>,
    pub(crate) nodes: BTreeMap<String, Node>,
    pub(crate) images: BTreeMap<Name, Arc<VirtualMachineImage>>,
    pub(crate) networks: Vec<Arc<VirtualMachineNetwork>>,
    pub(crate) keys: Vec<Arc<SSHKey>>,
    pub(crate) enrolments: Vec<Arc<NodeEnrolment>>,
    pub(crate) requests: BTreeMap<String, Arc<CertificateSigningRequest>>,
    /// UIDs of the nodes' Leases, by name.
    pub(crate) leases: BTreeMap<String, Exactly>,
    pub(crate) grants: Grants,
    /// Which of all these could not be read whole.
    pub(crate) unread: Unread,
}

/// The rights of nodes as they stand.
#[derive(Default)]
pub(crate) struct Grants {
    pub(crate) roles: BTreeMap<Name, Arc<Role>>,
    pub(crate) role_bindings: BTreeMap<Name, Arc<RoleBinding>>,
    pub(crate) cluster_roles: BTreeMap<Name, Arc<ClusterRole>>,
    pub(crate) cluster_role_bindings: BTreeMap<Name, Arc<ClusterRoleBinding>>,
}

impl Grants {
    /// Whether both halves of the node's right to this namespace stand, be they on their way out. Half of it grants
    /// nothing, and where the namespace is on its way out the other half cannot be made any more.
    pub(crate) fn show(&self, namespace: &str, node: &str) -> bool {
        let grant = (namespace.to_owned(), vms_grant(node));
        self.roles.contains_key(&grant) && self.role_bindings.contains_key(&grant)
    }

    /// Whether any right of this node stands, be it on its way out as long as we hold it. Whoever may make Roles in a
    /// namespace can write our label on one, or a finalizer of their own: neither keeps a node.
    pub(crate) fn any_of(&self, node: &str) -> bool {
        let held =
            |meta: &ObjectMeta| meta.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
        let stands = |meta: &ObjectMeta| meta.deletion_timestamp.is_none() || held(meta);
        let theirs = |meta: &ObjectMeta| labelled(meta) == Some(node) && is_grant(meta) && stands(meta);
        self.roles.values().any(|grant| theirs(&grant.metadata))
            || self.role_bindings.values().any(|grant| theirs(&grant.metadata))
            || self.cluster_roles.values().any(|grant| theirs(&grant.metadata))
            || self.cluster_role_bindings.values().any(|grant| theirs(&grant.metadata))
    }
}

/// Whether it is called as a grant of the node that it is labelled with. Nothing else is ours to withdraw.
pub(crate) fn is_grant(meta: &ObjectMeta) -> bool {
    let Some(node) = labelled(meta) else { return false };
    let names = [own_grant(node), vms_grant(node), secrets_grant(node)];
    meta.name.as_ref().is_some_and(|name| names.contains(name))
}

/// The node an object is labelled with.
pub(crate) fn labelled(meta: &ObjectMeta) -> Option<&str> {
    meta.labels.as_ref()?.get(NODE_LABEL).map(String::as_str)
}

/// A node and whether it lives.
pub(crate) struct Node {
    pub(crate) object: Arc<HypervisorNode>,
    pub(crate) life: Life,
    /// Whether some of the object could not be read.
    pub(crate) unread: bool,
    /// Whether that is something placement rests on.
    pub(crate) hidden: bool,
}

impl Node {
    /// Whether a person has declared the host gone for good.
    pub(crate) fn removing(&self) -> bool {
        self.object.metadata.deletion_timestamp.is_some()
    }

    /// Whether it has an identity and is to stay. One that was made and has no identity yet gives nobody any right; one
    /// whose identity cannot be read keeps what it has.
    pub(crate) fn enrolled(&self) -> bool {
        !self.removing() && (self.unread || !self.object.spec.identity.is_empty())
    }

    /// Whether nothing is heard from it. While that is not known anew, what was said last holds.
    pub(crate) fn silent(&self) -> bool {
        match self.life {
            Life::Alive => false,
            Life::Silent => true,
            Life::Unproven if self.unread => false,
            Life::Unproven => condition::find(self.conditions(), condition::READY)
                .is_none_or(|ready| ready.status == condition::Is::Unknown.word()),
        }
    }

    fn promised(&self, machines: &[&VirtualMachine]) -> Room {
        let known: BTreeSet<String> = machines.iter().filter_map(|vm| vm.uid()).collect();
        let orphans = self.object.status.iter().flat_map(|status| &status.orphans);
        let held = orphans.filter(|orphan| !known.contains(&orphan.uid)).map(capacity::of_orphan);
        let held = held.fold(Room::default(), Room::plus);
        capacity::promised(capacity::of_node(&self.object), held, machines.iter().copied())
    }

    /// Its conditions as they stand.
    pub(crate) fn conditions(&self) -> &[Condition] {
        self.object.status.as_ref().map_or(&[], |status| &status.conditions)
    }

    /// Whether it reports to hold this virtual machine.
    pub(crate) fn holds(&self, uid: &str) -> bool {
        self.object.status.as_ref().is_some_and(|status| {
            status.virtual_machines.iter().any(|held| held == uid)
                || status.orphans.iter().any(|orphan| orphan.uid == uid)
        })
    }
}

/// Where a virtual machine belongs, as its object says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binding<'a> {
    /// To no node.
    Free,
    /// A node was chosen and is being prepared, or the store lost the name: that node or none.
    Marked(&'a str),
    /// To this node.
    Bound(&'a str),
}

impl<'a> Binding<'a> {
    /// Of this virtual machine.
    pub(crate) fn of(vm: &'a VirtualMachine) -> Self {
        let name = vm.status.as_ref().map_or("", |status| status.node_name.as_str());
        match (name, mark(vm)) {
            ("", None) => Self::Free,
            ("", Some(node)) => Self::Marked(node),
            (node, _) => Self::Bound(node),
        }
    }

    /// The node, chosen or holding.
    pub(crate) fn node(self) -> Option<&'a str> {
        match self {
            Self::Free => None,
            Self::Marked(node) | Self::Bound(node) => Some(node),
        }
    }
}

/// The node in the annotation of a virtual machine.
pub(crate) fn mark(vm: &VirtualMachine) -> Option<&str> {
    let mark = vm.metadata.annotations.as_ref()?.get(PLACED_ON)?;
    (!mark.is_empty()).then_some(mark.as_str())
}

/// The status of a virtual machine; an empty one when it has none yet.
pub(crate) fn status(vm: &VirtualMachine) -> &VirtualMachineStatus {
    static NONE: std::sync::LazyLock<VirtualMachineStatus> =
        std::sync::LazyLock::new(VirtualMachineStatus::default);
    vm.status.as_ref().unwrap_or(&NONE)
}

/// The label that ties an object to a node.
pub(crate) fn node_label(node: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(NODE_LABEL.to_owned(), node.to_owned())])
}

impl World {
    /// The machines that are on a node or on their way to it.
    pub(crate) fn machines_of<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Arc<VirtualMachine>> {
        self.machines.iter().filter(move |vm| Binding::of(vm).node() == Some(node))
    }

    /// What is promised on each node: its machines, and what it holds without an object.
    pub(crate) fn promised(&self) -> BTreeMap<String, Room> {
        let mut machines: BTreeMap<&str, Vec<&VirtualMachine>> = BTreeMap::new();
        for vm in &self.machines {
            if let Some(node) = Binding::of(vm).node() {
                machines.entry(node).or_default().push(vm);
            }
        }
        let of = |name: &str| machines.get(name).map_or(&[][..], Vec::as_slice);
        self.nodes.iter().map(|(name, node)| (name.clone(), node.promised(of(name)))).collect()
    }

    /// What of this virtual machine could not be read; `None` when it was read whole.
    pub(crate) fn faults(&self, vm: &VirtualMachine) -> Option<&Faults> {
        self.unread.of(Kind::VirtualMachine, vm)
    }

    /// The name of a virtual machine on this node whose size could not be read: how much room is left nobody knows.
    pub(crate) fn unsized_on(&self, node: &str) -> Option<String> {
        let mut unsized_ = self
            .machines_of(node)
            .filter(|vm| self.faults(vm).is_some_and(|faults| SIZES.iter().any(|field| faults.touch(field))));
        unsized_.next().map(|vm| format!("{}/{}", vm.namespace().unwrap_or_default(), vm.name_any()))
    }
}

/// Whether it could not be read on which node a virtual machine is.
pub(crate) fn binding_unread(faults: &Faults) -> bool {
    ["status.nodeName", "metadata.annotations", "metadata.deletionTimestamp"]
        .iter()
        .any(|field| faults.touch(field))
}
