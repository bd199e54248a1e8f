//! Who may what, over every verb, kind and subresource that the API server knows: exactly what is written here.

mod matrix;

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use holdfast_api::VirtualMachine;
use holdfast_tests::kubeconfig::{self, Login};
use holdfast_tests::machine::tiny;
use holdfast_tests::office::Office;
use holdfast_tests::scene::{ONE_AT_A_TIME, Scene, wait};
use holdfast_tests::{install, peer};
use k8s_openapi::api::core::v1::{Namespace, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::PostParams;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::MutexGuard;

use matrix::{Matrix, Try};

const KINDS: [&str; 4] = ["sshkeys", "virtualmachineimages", "virtualmachinenetworks", "virtualmachines"];
const READ: [&str; 3] = ["get", "list", "watch"];
const RBAC: [&str; 4] = ["roles", "rolebindings", "clusterroles", "clusterrolebindings"];

/// Node a serves `shop`, node b serves `shop` and `farm`; every kind has an object in both.
struct Town {
    office: Office,
    scene: Scene,
    admin: Client,
    matrix: Matrix,
    _alone: MutexGuard<'static, ()>,
}

impl Town {
    async fn build(name: &str) -> Result<Self> {
        let alone = ONE_AT_A_TIME.lock().await;
        let (mut office, scene) = Scene::set(name, &["a", "b"]).await?;
        let admin = office.admin().await?;
        for namespace in ["shop", "farm"] {
            make::<Namespace>(&Api::all(admin.clone()), json!({"metadata": {"name": namespace}})).await?;
            furnish(&admin, namespace).await?;
        }
        for (namespace, name, node) in [("shop", "on-a", "a"), ("shop", "on-b", "b"), ("farm", "far", "b")] {
            settle(&office, &scene, &admin, namespace, name, node).await?;
        }
        // What is tried must not change while it is tried.
        office.kill_controller();
        scene.stops("a");
        scene.stops("b");
        let matrix =
            Matrix::discover(&admin, &["shop", "farm", "default", "holdfast-system", "kube-system"]).await?;
        assert!(matrix.len() > 1000, "only {} tries", matrix.len());
        Ok(Self { office, scene, admin, matrix, _alone: alone })
    }

    /// Compares what an identity may with what is written.
    async fn expect(
        &self,
        client: &Client,
        scope: impl Fn(&Try) -> bool,
        may: impl Fn(&Try) -> bool,
    ) -> Result<()> {
        let in_scope = |attempt: &Try| scope(attempt) && !aside(attempt);
        let allowed = self.matrix.allowed(client, in_scope).await?;
        let wanted: BTreeSet<Try> =
            self.matrix.tries().filter(|it| in_scope(it) && may(it)).cloned().collect();
        let too_much: Vec<_> = allowed.difference(&wanted).collect();
        let too_little: Vec<_> = wanted.difference(&allowed).collect();
        assert!(too_much.is_empty(), "may more than it should: {too_much:#?}");
        assert!(too_little.is_empty(), "may less than it should: {too_little:#?}");
        Ok(())
    }

    async fn login(&self, name: &str, token: &str) -> Result<Client> {
        let file = self.office.folder().join(format!("{name}.kubeconfig"));
        kubeconfig::write(&file, self.office.server(), &Login::Token(token))?;
        kubeconfig::client(&file).await
    }
}

/// Events are told apart by their author, and everybody may ask what they themselves may.
fn aside(attempt: &Try) -> bool {
    attempt.kind.ends_with("/events")
        || attempt.kind.starts_with("authorization.k8s.io/self")
        || attempt.kind.starts_with("authentication.k8s.io/self")
}

async fn make<K>(api: &Api<K>, object: Value) -> Result<()>
where
    K: Resource + DeserializeOwned + serde::Serialize + Clone + std::fmt::Debug,
{
    let object = serde_json::from_value(object).context("no such object")?;
    api.create(&PostParams::default(), &object).await.map(drop).context("could not create it")
}

/// One object of each kind that a machine may name, and Secrets that none names.
async fn furnish(admin: &Client, namespace: &str) -> Result<()> {
    let root = peer::repository().join("target/sites");
    let digest = format!("sha256:{}", "0".repeat(64));
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
    let spec = json!({"source": {"file": {"path": root.join("none")}}, "digest": digest, "format": "raw"});
    make::<holdfast_api::VirtualMachineImage>(
        &Api::namespaced(admin.clone(), namespace),
        json!({"metadata": {"name": "image"}, "spec": spec}),
    )
    .await?;
    make::<holdfast_api::VirtualMachineNetwork>(
        &Api::namespaced(admin.clone(), namespace),
        json!({"metadata": {"name": "network"}, "spec": {"nat": {}}}),
    )
    .await?;
    make::<holdfast_api::SSHKey>(
        &Api::namespaced(admin.clone(), namespace),
        json!({"metadata": {"name": "key"}, "spec": {"publicKey": key}}),
    )
    .await?;
    for secret in ["on-a-seed", "on-b-seed", "far-seed", "other"] {
        make::<Secret>(&Api::namespaced(admin.clone(), namespace), json!({"metadata": {"name": secret}}))
            .await?;
    }
    Ok(())
}

async fn settle(
    office: &Office,
    scene: &Scene,
    admin: &Client,
    namespace: &str,
    name: &str,
    node: &str,
) -> Result<()> {
    let object = tiny(name)
        .on(node)
        .with("disks", json!([{"name": "root", "size": "1Gi", "blank": {}}]))
        .with("interfaces", json!([]))
        .with("cloudInit", json!({"userDataSecret": {"name": format!("{name}-seed"), "key": "user-data"}}));
    make::<VirtualMachine>(&Api::namespaced(admin.clone(), namespace), object.object()).await?;
    wait(office, name, async || Ok(scene.is_ready(namespace, name).await?.then_some(()))).await
}

fn ours(attempt: &Try, kinds: &[&str]) -> bool {
    attempt.kind.strip_prefix("holdfast.dev/").is_some_and(|kind| kinds.contains(&kind))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_identity_may_exactly_what_its_work_needs() -> Result<()> {
    let town = Town::build("rights").await?;
    a_node(&town, "a", &[("shop", "on-a")]).await.context("node a")?;
    a_node(&town, "b", &[("shop", "on-b"), ("farm", "far")]).await.context("node b")?;
    the_install_credential(&town).await.context("the install credential")?;
    the_controller(&town).await.context("the controller")?;
    an_editor(&town).await.context("an editor of shop")
}

/// What node `node` may, which serves these machines, each with its Secret.
async fn a_node(town: &Town, node: &str, machines: &[(&str, &str)]) -> Result<()> {
    let serves = |namespace: &str| machines.iter().any(|(place, _)| *place == namespace);
    let has = |it: &Try, suffix: &str| {
        machines.iter().any(|(place, name)| it.namespace == *place && it.name == format!("{name}{suffix}"))
    };
    let may = |it: &Try| match (it.kind.as_str(), it.verb) {
        ("holdfast.dev/virtualmachines/status", "patch") => has(it, ""),
        ("holdfast.dev/hypervisornodes", "get") | ("holdfast.dev/hypervisornodes/status", "patch") => {
            it.name == node
        }
        ("coordination.k8s.io/leases", "get" | "patch" | "update") => {
            it.name == format!("holdfast-node-{node}")
        }
        ("/secrets", "get") => has(it, "-seed"),
        (_, verb) => ours(it, &KINDS) && READ.contains(&verb) && serves(&it.namespace),
    };
    town.expect(&town.scene.node(node)?.client(), |_| true, may).await
}

async fn the_install_credential(town: &Town) -> Result<()> {
    let client = town.login("install", &town.office.credential().await?).await?;
    let may = |it: &Try| ours(it, &["nodeenrolments"]) && ["create", "get", "patch"].contains(&it.verb);
    town.expect(&client, |_| true, may).await
}

async fn the_controller(town: &Town) -> Result<()> {
    let client = town.login("controller", &install::controller_token(&town.admin).await?).await?;
    town.expect(&client, |_| true, controller_may).await
}

fn controller_may(it: &Try) -> bool {
    let (group, kind) = it.kind.split_once('/').unwrap_or_default();
    let read = READ.contains(&it.verb);
    let ours_by_name = it.name.starts_with("holdfast-node-");
    match (group, kind, it.verb) {
        ("holdfast.dev", "virtualmachines", "patch")
        | ("holdfast.dev", "hypervisornodes", "patch" | "create")
        | ("holdfast.dev", "nodeenrolments", "delete") => true,
        ("holdfast.dev", "virtualmachines/status", verb) => ["patch", "update"].contains(&verb),
        ("holdfast.dev", kind, "patch") => kind.ends_with("/status"),
        ("holdfast.dev", kind, _) => read && !kind.contains('/'),
        ("certificates.k8s.io", "certificatesigningrequests", verb) => read || verb == "create",
        ("certificates.k8s.io", "certificatesigningrequests/approval", verb) => verb == "update",
        ("coordination.k8s.io", "leases", verb) => leases(it, verb),
        ("rbac.authorization.k8s.io", kind, verb) if RBAC.contains(&kind) => match verb {
            "patch" | "delete" => ours_by_name,
            // The copy of a node's Role for events is one for another node.
            "create" => kind == "roles" && it.namespace == "default",
            _ => read,
        },
        _ => false,
    }
}

/// Those of nodes and its own. What is tried to be created is a copy of its own under another name, which it may not.
fn leases(it: &Try, verb: &str) -> bool {
    let known = it.name.starts_with("holdfast-node-") || it.name == "holdfast-controller";
    let here = it.namespace == "holdfast-system";
    here && (READ.contains(&verb) || known && ["patch", "update", "delete"].contains(&verb))
}

async fn an_editor(town: &Town) -> Result<()> {
    let accounts: Api<ServiceAccount> = Api::namespaced(town.admin.clone(), "shop");
    make(&accounts, json!({"metadata": {"name": "editor"}})).await?;
    let bindings: Api<RoleBinding> = Api::namespaced(town.admin.clone(), "shop");
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"});
    let subject = json!({"kind": "ServiceAccount", "name": "editor", "namespace": "shop"});
    make(&bindings, json!({"metadata": {"name": "editor"}, "roleRef": role, "subjects": [subject]})).await?;
    let client = town.login("editor", &install::account_token(&town.admin, "shop", "editor").await?).await?;
    // What edit gives beyond our kinds is Kubernetes' own affair; that it gives no rights, no way in and nothing of
    // other namespaces is ours.
    let scope = |it: &Try| {
        let (group, _) = it.kind.split_once('/').unwrap_or_default();
        let abroad =
            it.namespace != "shop" && ["/secrets", "coordination.k8s.io/leases"].contains(&it.kind.as_str());
        abroad
            || [
                "holdfast.dev",
                "rbac.authorization.k8s.io",
                "certificates.k8s.io",
                "admissionregistration.k8s.io",
                "apiextensions.k8s.io",
            ]
            .contains(&group)
    };
    town.expect(&client, scope, |it| ours(it, &KINDS) && it.namespace == "shop").await
}
