//! A node whose daemon is the test itself: it enrols by the real path, then beats, takes up what it is shown, removes
//! what it reads as deleted and reports what it holds. For stories about the controller, which need no guests.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use holdfast_api::names::{NODE_DAEMON, NODES_GROUP, SYSTEM_NAMESPACE, node_lease, node_user};
use holdfast_api::{HypervisorNode, NodeEnrolment, VirtualMachine};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::kubeconfig::{self, Login, Server};
use crate::pki::Identity;
use crate::wait::{Look, wait_for};

/// Enrolment takes a second; a controller that was killed meanwhile must come back first.
const ENROL_LIMIT: Duration = Duration::from_secs(90);
/// Quick, so that stories are.
const LOOK_EVERY: Duration = Duration::from_millis(150);

/// One such node.
pub struct ActingNode {
    name: String,
    kubeconfig: PathBuf,
    client: Client,
    held: Mutex<BTreeSet<String>>,
}

impl ActingNode {
    /// Enrols with the install credential and waits for the certificate.
    pub async fn enrol(folder: &Path, server: &Server, credential: &str, name: &str) -> Result<Self> {
        let key = KeyPair::generate().context("could not make a key")?;
        let file = folder.join(format!("{name}.install.kubeconfig"));
        kubeconfig::write(&file, server, &Login::Token(credential))?;
        let requests: Api<NodeEnrolment> = Api::all(kubeconfig::client(&file).await?);
        let request = request(name, &key)?;
        requests.create(&PostParams::default(), &request).await.context("could not ask to be let in")?;
        let certificate = certificate(&requests, &request.name_any()).await?;
        let kubeconfig = folder.join(format!("{name}.kubeconfig"));
        let identity = Identity { certificate, key: key.serialize_pem() };
        kubeconfig::write(&kubeconfig, server, &Login::Certificate(&identity))?;
        let client = kubeconfig::client(&kubeconfig).await?;
        Ok(Self { name: name.to_owned(), kubeconfig, client, held: Mutex::default() })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its own kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A client with its own identity.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// UIDs of the machines it holds.
    pub fn held(&self) -> BTreeSet<String> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Acts until the handle is aborted; errors come and go with the API server.
    pub fn live(self: &Arc<Self>) -> JoinHandle<()> {
        let node = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                if let Err(error) = node.act().await {
                    tracing::debug!(node = node.name, "{error:#}");
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
    }

    /// One look: heartbeat, machines, report.
    pub async fn act(&self) -> Result<()> {
        self.beat().await?;
        let nodes: Api<HypervisorNode> = Api::all(self.client.clone());
        let node = nodes.get(&self.name).await.context("could not read the own node")?;
        let status = node.status.unwrap_or_default();
        for namespace in &status.namespaces {
            self.tend(namespace).await?;
        }
        if status.capacity.is_none() || status.virtual_machines.iter().ne(self.held().iter()) {
            self.report().await?;
        }
        Ok(())
    }

    /// Renews the Lease.
    pub async fn beat(&self) -> Result<()> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        let spec = json!({"holderIdentity": self.name, "leaseDurationSeconds": 20, "renewTime": now()});
        let patch = Patch::Merge(json!({ "spec": spec }));
        let renewed = leases.patch(&node_lease(&self.name), &PatchParams::default(), &patch).await;
        renewed.map(drop).context("could not renew the Lease")
    }

    async fn tend(&self, namespace: &str) -> Result<()> {
        let machines: Api<VirtualMachine> = Api::namespaced(self.client.clone(), namespace);
        let mine = ListParams::default().fields(&format!("status.nodeName={}", self.name));
        for vm in machines.list(&mine).await.context("could not list virtual machines")? {
            let uid = vm.uid().unwrap_or_default();
            let (kind, known) = if vm.metadata.deletion_timestamp.is_some() {
                ("Removed", !self.keep(&uid, false))
            } else {
                ("Ready", self.keep(&uid, true))
            };
            let said = vm.status.iter().flat_map(|status| &status.conditions);
            let generation = vm.metadata.generation;
            let says = said
                .into_iter()
                .any(|it| it.type_ == kind && it.status == "True" && it.observed_generation == generation);
            if !known || !says {
                self.say(&machines, &vm.name_any(), generation, kind).await?;
            }
        }
        Ok(())
    }

    /// Takes up or lets go; returns whether it was held before.
    fn keep(&self, uid: &str, keep: bool) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let was = held.contains(uid);
        if keep {
            held.insert(uid.to_owned())
        } else {
            held.remove(uid)
        };
        was
    }

    async fn say(
        &self,
        machines: &Api<VirtualMachine>,
        name: &str,
        generation: Option<i64>,
        kind: &str,
    ) -> Result<()> {
        let condition = |type_: &str, status: &str| json!({"type": type_, "status": status, "reason": "Acting", "message": "", "lastTransitionTime": now(), "observedGeneration": generation});
        // Ready is always there: the controller wrote it first, and half of a condition is refused.
        let conditions = match kind {
            "Ready" => vec![condition("Ready", "True")],
            kind => vec![condition("Ready", "False"), condition(kind, "True")],
        };
        let status = json!({"printableStatus": "Running", "conditions": conditions});
        let body = object("VirtualMachine", &json!({ "status": status }));
        let said = machines.patch_status(name, &apply(), &Patch::Apply(&body)).await;
        said.map(drop).with_context(|| format!("could not write the status of {name}"))
    }

    async fn report(&self) -> Result<()> {
        let nodes: Api<HypervisorNode> = Api::all(self.client.clone());
        let status = json!({
            "capacity": {"cpu": 8, "memory": "16Gi", "storage": "200Gi"},
            "accelerator": {"name": "tcg", "proved": true},
            "insecureDev": true,
            "virtualMachines": self.held(),
        });
        let body = object("HypervisorNode", &json!({ "status": status }));
        let reported = nodes.patch_status(&self.name, &apply(), &Patch::Apply(&body)).await;
        reported.map(drop).context("could not report")
    }
}

/// A request as a node with a key in a file makes it.
pub fn request(name: &str, key: &KeyPair) -> Result<NodeEnrolment> {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, NODES_GROUP);
    subject.push(DnType::CommonName, node_user(name));
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    let csr = params.serialize_request(key).context("could not make a request")?;
    let unique = uuid::Uuid::new_v4().simple().to_string();
    let spec = json!({"nodeName": name, "mode": "InsecureDev", "csr": STANDARD.encode(csr.der())});
    let body = object(
        "NodeEnrolment",
        &json!({"metadata": {"name": format!("{name}-{}", &unique[..6])}, "spec": spec}),
    );
    serde_json::from_value(body).context("could not make a NodeEnrolment")
}

async fn certificate(requests: &Api<NodeEnrolment>, name: &str) -> Result<String> {
    wait_for("the certificate", ENROL_LIMIT, async || {
        let request = requests.get(name).await.context("could not read the request")?;
        let status = request.status.unwrap_or_default();
        Ok(match status.certificate.as_str() {
            "" => Look::NotYet(format!("{:?}", status.conditions)),
            _ => Look::Done(status.certificate),
        })
    })
    .await
}

fn object(kind: &str, part: &Value) -> Value {
    let mut object = json!({"apiVersion": "holdfast.dev/v1alpha1", "kind": kind});
    for (key, value) in part.as_object().into_iter().flatten() {
        object[key] = value.clone();
    }
    object
}

fn apply() -> PatchParams {
    PatchParams::apply(NODE_DAEMON).force()
}

/// With the microseconds that a Lease asks for.
fn now() -> String {
    format!("{:.6}", Timestamp::now())
}
