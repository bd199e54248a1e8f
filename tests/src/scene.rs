//! A control plane, the controller, and nodes played by the test.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use holdfast_api::{HypervisorNode, VirtualMachine};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::acting_node::ActingNode;
use crate::machine::tiny;
use crate::office::Office;
use crate::wait::{Look, wait_for};

/// A killed controller comes back, lists everything and works off what is left, on two busy cores.
const LIMIT: Duration = Duration::from_secs(90);
/// Control planes side by side would only slow each other down.
pub static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// The nodes and what an administrator sees.
pub struct Scene {
    admin: Client,
    nodes: Vec<Arc<ActingNode>>,
    acting: Vec<JoinHandle<()>>,
}

/// Waits; a failure comes with the logs.
pub async fn wait<T>(
    office: &Office,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let found = wait_for(what, LIMIT, async || {
        Ok(look().await?.map_or_else(|| Look::NotYet("not yet".to_owned()), Look::Done))
    });
    found.await.with_context(|| office.logs())
}

fn says_ready(conditions: &[Condition]) -> bool {
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

impl Scene {
    /// An office with its controller, and these nodes enrolled, alive and ready.
    pub async fn set(name: &str, nodes: &[&str]) -> Result<(Office, Self)> {
        let mut office = Office::open(name).await?;
        office.start_controller()?;
        let mut scene = Self { admin: office.admin().await?, nodes: Vec::new(), acting: Vec::new() };
        for node in nodes {
            scene.enter(&office, node).await?;
        }
        let ready = async || Ok((scene.ready().await? == nodes.len()).then_some(()));
        wait(&office, "all nodes to be ready", ready).await?;
        Ok((office, scene))
    }

    /// One more node enrols and acts.
    pub async fn enter(&mut self, office: &Office, name: &str) -> Result<()> {
        let credential = office.credential().await?;
        let node = ActingNode::enrol(office.folder(), office.server(), &credential, name).await;
        let node = Arc::new(node.with_context(|| office.logs())?);
        self.acting.push(node.live());
        self.nodes.push(node);
        Ok(())
    }

    /// The host of this node is gone, and with it all that it held.
    pub fn loses(&mut self, name: &str) {
        self.stops(name);
        if let Some(place) = self.nodes.iter().position(|node| node.name() == name) {
            self.nodes.remove(place);
            self.acting.remove(place);
        }
    }

    async fn ready(&self) -> Result<usize> {
        let nodes: Api<HypervisorNode> = Api::all(self.admin.clone());
        let all = nodes.list(&ListParams::default()).await.context("could not list nodes")?;
        Ok(all
            .iter()
            .filter(|node| node.status.as_ref().is_some_and(|it| says_ready(&it.conditions)))
            .count())
    }

    /// The nodes.
    pub fn nodes(&self) -> &[Arc<ActingNode>] {
        &self.nodes
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Result<&ActingNode> {
        let node = self.nodes.iter().find(|node| node.name() == name);
        node.map(|node| &**node).with_context(|| format!("no node {name} in this scene"))
    }

    /// The node acts no more, as if its host were gone.
    pub fn stops(&self, name: &str) {
        let pairs = self.nodes.iter().zip(&self.acting);
        pairs.filter(|(node, _)| node.name() == name).for_each(|(_, acting)| acting.abort());
    }

    /// The virtual machines of a namespace.
    pub fn machines(&self, namespace: &str) -> Api<VirtualMachine> {
        Api::namespaced(self.admin.clone(), namespace)
    }

    /// Creates a virtual machine that refers to nothing but a Secret.
    pub async fn create(&self, namespace: &str, name: &str) -> Result<()> {
        let object = tiny(name)
            .with("disks", json!([{"name": "root", "size": "1Gi", "blank": {}}]))
            .with("interfaces", json!([]))
            .with(
                "cloudInit",
                json!({"userDataSecret": {"name": format!("{name}-seed"), "key": "user-data"}}),
            );
        let vm: VirtualMachine = serde_json::from_value(object.object()).context("no virtual machine")?;
        let created = self.machines(namespace).create(&PostParams::default(), &vm).await;
        created.map(drop).context("could not create it")
    }

    /// Deletes it.
    pub async fn delete(&self, namespace: &str, name: &str) -> Result<()> {
        let deleted = self.machines(namespace).delete(name, &DeleteParams::default()).await;
        deleted.map(drop).context("could not delete it")
    }

    /// Whether its node said so. Nothing is held by two nodes, whenever one looks.
    pub async fn is_ready(&self, namespace: &str, name: &str) -> Result<bool> {
        self.held_once();
        let vm = self.machines(namespace).get(name).await.context("could not read it")?;
        Ok(vm.status.is_some_and(|status| says_ready(&status.conditions)))
    }

    /// The node it is bound to; empty for none.
    pub async fn node_of(&self, namespace: &str, name: &str) -> Result<String> {
        let vm = self.machines(namespace).get(name).await.context("could not read it")?;
        Ok(vm.status.map(|status| status.node_name).unwrap_or_default())
    }

    /// Whether nothing is left in the namespace: no machine, no right of a node, nothing held.
    pub async fn is_clear(&self, namespace: &str) -> Result<bool> {
        self.held_once();
        let machines = self.machines(namespace).list(&ListParams::default()).await.context("not listed")?;
        let serving = |name: &str| name.ends_with("-vms") || name.ends_with("-secrets");
        let labelled = ListParams::default().labels("holdfast.dev/node");
        let roles: Api<Role> = Api::namespaced(self.admin.clone(), namespace);
        let roles = roles.list(&labelled).await.context("not listed")?;
        let bindings: Api<RoleBinding> = Api::namespaced(self.admin.clone(), namespace);
        let bindings = bindings.list(&labelled).await.context("not listed")?;
        let mut grants = roles.iter().map(Role::name_any).chain(bindings.iter().map(RoleBinding::name_any));
        let granted = grants.any(|name| serving(&name));
        let held = self.nodes.iter().any(|node| !node.held().is_empty());
        Ok(machines.items.is_empty() && !granted && !held)
    }

    fn held_once(&self) {
        let mut seen = BTreeSet::new();
        for uid in self.nodes.iter().flat_map(|node| node.held()) {
            assert!(seen.insert(uid.clone()), "{uid} is held by two nodes");
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.acting.iter().for_each(JoinHandle::abort);
    }
}
