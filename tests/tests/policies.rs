//! What the rights allow and the admission policies refuse, each in its sentence.

use anyhow::{Context, Result};
use holdfast_api::{HypervisorNode, NodeEnrolment, SSHKey, VirtualMachine};
use holdfast_tests::acting_node::request;
use holdfast_tests::install;
use holdfast_tests::kubeconfig::{self, Login};
use holdfast_tests::machine::tiny;
use holdfast_tests::office::Office;
use holdfast_tests::scene::{Scene, wait};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, Role, RoleBinding};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

const RBAC: &str = "rbac.authorization.k8s.io";

/// The sentence with which something was refused.
fn refusal<T: std::fmt::Debug>(outcome: kube::Result<T>) -> String {
    outcome.map_or_else(|error| error.to_string(), |done| format!("not refused: {done:?}"))
}

fn says<T: std::fmt::Debug>(outcome: kube::Result<T>, sentence: &str) {
    let refusal = refusal(outcome);
    assert!(refusal.contains(sentence), "expected {sentence:?}, got: {refusal}");
}

fn merge(change: Value) -> Patch<Value> {
    Patch::Merge(change)
}

async fn login(office: &Office, name: &str, token: &str) -> Result<Client> {
    let file = office.folder().join(format!("{name}.kubeconfig"));
    kubeconfig::write(&file, office.server(), &Login::Token(token))?;
    kubeconfig::client(&file).await
}

async fn placed(office: &Office, scene: &Scene, name: &str, node: &str) -> Result<()> {
    let object = tiny(name)
        .on(node)
        .with("disks", json!([{"name": "root", "size": "1Gi", "blank": {}}]))
        .with("interfaces", json!([]))
        .with("cloudInit", json!({}))
        .with("deletionProtection", true);
    let vm: VirtualMachine = serde_json::from_value(object.object()).context("no machine")?;
    scene.machines("default").create(&PostParams::default(), &vm).await.context("not created")?;
    wait(office, name, async || Ok(scene.is_ready("default", name).await?.then_some(()))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_refuse_in_a_sentence_what_rights_cannot_tell_apart() -> Result<()> {
    let (office, scene) = Scene::set("policies", &["a", "b"]).await?;
    placed(&office, &scene, "on-a", "a").await?;
    placed(&office, &scene, "on-b", "b").await?;
    let node = scene.node("a")?.client();
    a_node_and_machines(&node).await;
    a_node_and_itself(&node).await?;
    people(&office.admin().await?).await;
    the_install_credential(&login(&office, "install", &office.credential().await?).await?).await?;
    let token = install::controller_token(&office.admin().await?).await?;
    let controller = login(&office, "controller", &token).await?;
    an_editor(&office).await?;
    the_controller(&controller).await?;
    the_controller_and_objects_of_people(&controller).await;
    the_controller_and_certificates(&controller, &office.admin().await?).await?;
    a_node_that_is_heard_from(&office, &scene).await?;
    metadata_from_before(&office).await
}

/// What is from before the policy on metadata came: however much it is, nobody is kept from his work on the object.
async fn metadata_from_before(office: &Office) -> Result<()> {
    let admin = office.admin().await?;
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(admin.clone());
    let mut binding = bindings.get("holdfast-metadata").await.context("no binding")?;
    bindings.delete("holdfast-metadata", &DeleteParams::default()).await.context("the binding stays")?;
    let keys: Api<SSHKey> = Api::namespaced(admin, "default");
    let many =
        |most: usize| (0..most).map(|n| (format!("a{n:05}"), json!(""))).collect::<serde_json::Map<_, _>>();
    let mut old: SSHKey = serde_json::from_value(json!({
        "metadata": {"name": "old", "finalizers": ["example.org/held"]},
        "spec": {"publicKey": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"},
    }))?;
    let mut made = many(40_000);
    old.metadata.annotations = serde_json::from_value(json!(made))?;
    let create = async || Ok(keys.create(&PostParams::default(), &old).await.ok().map(drop));
    wait(office, "the policy to be gone", create).await?;
    binding.metadata.resource_version = None;
    binding.metadata.uid = None;
    bindings.create(&PostParams::default(), &binding).await.context("no binding again")?;
    let usual = PatchParams::default();
    // Another one each time: the policy is in force some time after its binding stands.
    let count = std::cell::Cell::new(0);
    let refused = async || {
        let name = format!("more-{}", count.replace(count.get() + 1));
        let more = merge(json!({"metadata": {"annotations": {name: ""}}}));
        Ok(keys.patch("old", &usual, &more).await.err().map(|error| error.to_string()))
    };
    let refused = wait(office, "the policy to be back", refused).await?;
    assert!(refused.contains("an object has at most 512 annotations"), "{refused}");
    for harmless in [
        json!({"metadata": {"labels": {"a": "b"}}}),
        json!({"metadata": {"annotations": {"a00000": null}}}),
        json!({"metadata": {"finalizers": null}}),
    ] {
        keys.patch("old", &usual, &merge(harmless.clone())).await.with_context(|| harmless.to_string())?;
    }
    let status = merge(json!({"status": {"fingerprint": "SHA256:none"}}));
    keys.patch_status("old", &usual, &status).await.context("its status cannot be written")?;
    made.iter_mut().for_each(|(_, value)| *value = json!(null));
    keys.patch("old", &usual, &merge(json!({"metadata": {"annotations": made}})))
        .await
        .context("it cannot shrink")?;
    keys.delete("old", &DeleteParams::default()).await.map(drop).context("it cannot be deleted")
}

/// A deletion says that the host is gone for good. One that is heard from is not, be it ill; and a machine that was just
/// placed there is not reported yet.
async fn a_node_that_is_heard_from(office: &Office, scene: &Scene) -> Result<()> {
    scene.stops("a");
    let problem = json!([{"reason": "HypervisorUnreachable", "message": "libvirt does not answer"}]);
    let ill = merge(json!({"status": {"virtualMachines": [], "problems": problem}}));
    let own: Api<HypervisorNode> = Api::all(scene.node("a")?.client());
    own.patch_status("a", &PatchParams::default(), &ill).await.context("could not say that it is ill")?;
    let nodes: Api<HypervisorNode> = Api::all(office.admin().await?);
    let told = async || {
        let status = nodes.get("a").await?.status.unwrap_or_default();
        let told =
            status.conditions.iter().any(|it| it.status == "False" && it.reason == "HypervisorUnreachable");
        Ok((told && status.virtual_machines.is_empty() && !status.namespaces.is_empty()).then_some(()))
    };
    wait(office, "the controller to say so", told).await?;
    let refused = async || nodes.delete("a", &DeleteParams::default()).await;
    says(refused().await, "is heard from and has virtual machines");
    let gone = |uid: &str| merge(json!({"metadata": {"annotations": {"holdfast.dev/host-is-gone": uid}}}));
    let usual = PatchParams::default();
    nodes.patch("a", &usual, &gone("another")).await.context("not annotated")?;
    says(refused().await, "is heard from and has virtual machines");
    // A node cannot say it of itself, for its own or for another's object: it would have its guests started twice.
    let uid = nodes.get("a").await?.metadata.uid.context("no uid")?;
    assert!(own.patch("a", &usual, &gone(&uid)).await.is_err(), "a node annotates itself");
    own.patch_status("a", &usual, &gone(&uid)).await.context("could not write its status")?;
    says(refused().await, "is heard from and has virtual machines");
    // Whoever may change HypervisorNodes can, for a host that was stolen and still answers.
    nodes.patch("a", &usual, &gone(&uid)).await.context("not annotated")?;
    nodes.delete("a", &DeleteParams::default()).await.map(drop).context("the stolen node stays")
}

async fn a_node_and_machines(node: &Client) {
    let machines: Api<VirtualMachine> = Api::namespaced(node.clone(), "default");
    let usual = PatchParams::default();
    let running = merge(json!({"status": {"printableStatus": "Running"}}));
    says(
        machines.patch_status("on-b", &usual, &running).await,
        "is not on the node that wants to write its status",
    );
    let moved = merge(json!({"status": {"nodeName": ""}}));
    says(
        machines.patch_status("on-a", &usual, &moved).await,
        "status.nodeName is written by the controller only",
    );
    let unscheduled = merge(json!({"status": {"conditions": []}}));
    says(
        machines.patch_status("on-a", &usual, &unscheduled).await,
        "the condition Scheduled is written by the controller only",
    );
}

async fn a_node_and_itself(node: &Client) -> Result<()> {
    let usual = PatchParams::default();
    let nodes: Api<HypervisorNode> = Api::all(node.clone());
    for half in
        [json!({"namespaces": ["kube-system"]}), json!({"conditions": []}), json!({"allocated": null})]
    {
        let outcome = nodes.patch_status("a", &usual, &merge(json!({ "status": half }))).await;
        says(outcome, "are written by the controller only");
    }
    let leases: Api<Lease> = Api::namespaced(node.clone(), "holdfast-system");
    let hidden = merge(json!({"metadata": {"labels": {"holdfast.dev/node": null}}}));
    says(leases.patch("holdfast-node-a", &usual, &hidden).await, "a node changes the spec of its Lease only");
    let events: Api<Event> = Api::namespaced(node.clone(), "default");
    for (controller, instance) in [("holdfast-controller", "a"), ("holdfast-node", "b")] {
        let outcome = events.create(&PostParams::default(), &event(controller, instance)?).await;
        says(outcome, "an event of a node must have reportingController holdfast-node");
    }
    let own = events.create(&PostParams::default(), &event("holdfast-node", "a")?).await;
    assert!(own.is_ok(), "its own event: {own:?}");
    Ok(())
}

fn event(controller: &str, instance: &str) -> Result<Event> {
    let event = json!({
        "metadata": {"generateName": "probe-"}, "action": "Probe", "reason": "Probe", "type": "Normal",
        "reportingController": controller, "reportingInstance": instance, "eventTime": "2026-01-01T00:00:00.000000Z",
        "regarding": {"kind": "VirtualMachine", "name": "on-a", "namespace": "default"},
    });
    serde_json::from_value(event).context("no event")
}

async fn people(admin: &Client) {
    let machines: Api<VirtualMachine> = Api::namespaced(admin.clone(), "default");
    let elsewhere = merge(json!({"metadata": {"annotations": {"holdfast.dev/placed-on": "b"}}}));
    says(
        machines.patch("on-a", &PatchParams::default(), &elsewhere).await,
        "placed-on is written by the controller only",
    );
    says(
        machines.delete("on-a", &DeleteParams::default()).await,
        "set spec.deletionProtection to false first",
    );
}

/// An editor may write all metadata of a virtual machine, yet not let go what a node still holds.
async fn an_editor(office: &Office) -> Result<()> {
    let admin = office.admin().await?;
    let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), "default");
    let editor = json!({"metadata": {"name": "editor"}});
    accounts.create(&PostParams::default(), &serde_json::from_value(editor)?).await.context("no account")?;
    let bindings: Api<RoleBinding> = Api::namespaced(admin.clone(), "default");
    let edit = json!({
        "metadata": {"name": "editor"},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"kind": "ServiceAccount", "name": "editor", "namespace": "default"}],
    });
    bindings.create(&PostParams::default(), &serde_json::from_value(edit)?).await.context("no right")?;
    let client = login(office, "editor", &install::account_token(&admin, "default", "editor").await?).await?;
    let machines: Api<VirtualMachine> = Api::namespaced(client, "default");
    let stripped = merge(json!({"metadata": {"finalizers": null}}));
    wait(office, "the right of the editor", async || {
        let outcome = machines.patch("on-a", &PatchParams::default(), &merge(json!({}))).await;
        Ok(outcome.is_ok().then_some(()))
    })
    .await?;
    says(
        machines.patch("on-a", &PatchParams::default(), &stripped).await,
        "takes the finalizer holdfast.dev/controller off",
    );
    Ok(())
}

async fn the_install_credential(client: &Client) -> Result<()> {
    let requests: Api<NodeEnrolment> = Api::all(client.clone());
    let key = rcgen::KeyPair::generate().context("no key")?;
    let usual = PostParams::default();
    let mut misnamed = request("c", &key)?;
    misnamed.metadata.name = Some("d-1".to_owned());
    says(requests.create(&usual, &misnamed).await, "must be named after its node");
    let mut labelled = request("c", &key)?;
    labelled.metadata.finalizers = Some(vec!["example.org/stay".to_owned()]);
    says(requests.create(&usual, &labelled).await, "without labels, annotations, finalizers and owners");
    let good = requests.create(&usual, &request("c", &key)?).await.context("a good request")?;
    let stay = merge(json!({"metadata": {"finalizers": ["example.org/stay"]}}));
    let name = good.metadata.name.unwrap_or_default();
    says(requests.patch(&name, &PatchParams::default(), &stay).await, "changes spec.response");
    Ok(())
}

async fn the_controller(client: &Client) -> Result<()> {
    let usual = PostParams::default();
    let roles: Api<Role> = Api::namespaced(client.clone(), "default");
    let secrets = |names: Value| json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": names}]);
    for (name, rules, sentence) in [
        ("reader", secrets(json!(["a"])), "only grants named holdfast-node-*"),
        ("holdfast-node-a-secrets", secrets(json!([])), "get on named Secrets and nothing else"),
        ("holdfast-node-a-vms", secrets(json!(["a"])), "exactly the rules of a served namespace"),
        ("holdfast-node-a", secrets(json!(["a"])), "a node's right on its Lease"),
    ] {
        let role = serde_json::from_value(json!({"metadata": {"name": name}, "rules": rules}))
            .context("not such an object")?;
        says(roles.create(&PostParams { dry_run: true, ..usual.clone() }, &role).await, sentence);
    }
    let bindings: Api<RoleBinding> = Api::namespaced(client.clone(), "default");
    let alice = binding("Role", "holdfast-node-c-vms", "alice");
    says(
        bindings.create(&usual, &serde_json::from_value(alice).context("not such an object")?).await,
        "to the node it is named after",
    );
    let everywhere: Api<ClusterRoleBinding> = Api::all(client.clone());
    let admin = binding("ClusterRole", "cluster-admin", "holdfast:node:a");
    says(
        everywhere.create(&usual, &serde_json::from_value(admin).context("not such an object")?).await,
        "not currently held",
    );
    Ok(())
}

async fn the_controller_and_objects_of_people(client: &Client) {
    let usual = PatchParams::default();
    let machines: Api<VirtualMachine> = Api::namespaced(client.clone(), "default");
    let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "none", "uid": "none"}]);
    for (change, sentence) in [
        (json!({"spec": {"runStrategy": "Halted"}}), "does not change the spec of a virtual machine"),
        (json!({"metadata": {"ownerReferences": owner}}), "gives no owner"),
    ] {
        says(machines.patch("on-a", &usual, &merge(change)).await, sentence);
    }
    let nodes: Api<HypervisorNode> = Api::all(client.clone());
    for (change, sentence) in [
        (json!({"discard": ["one"]}), "spec.discard of a HypervisorNode is written by people only"),
        (json!({"unschedulable": true}), "are written by people only"),
        (json!({"cpuOvercommit": 32}), "are written by people only"),
    ] {
        says(nodes.patch("a", &usual, &merge(json!({ "spec": change }))).await, sentence);
    }
}

async fn the_controller_and_certificates(client: &Client, admin: &Client) -> Result<()> {
    let usual = PostParams::default();
    let requests: Api<CertificateSigningRequest> = Api::all(client.clone());
    let too_much = "valid for at most 90 days";
    let days = |days: i32| days * 24 * 3600;
    let client_signer = "kubernetes.io/kube-apiserver-client";
    for (signer, usage, seconds) in [
        ("kubernetes.io/kubelet-serving", "server auth", Some(days(1))),
        (client_signer, "client auth", Some(days(91))),
        (client_signer, "client auth", None),
    ] {
        says(requests.create(&usual, &signing("probe", signer, usage, seconds)?).await, too_much);
    }
    let foreign = signing("foreign", client_signer, "client auth", Some(days(1)))?;
    let theirs: Api<CertificateSigningRequest> = Api::all(admin.clone());
    let mut foreign = theirs.create(&usual, &foreign).await.context("a request of somebody else")?;
    let approved = json!([{"type": "Approved", "status": "True", "reason": "Probe", "message": "probe"}]);
    foreign.status.get_or_insert_default().conditions = Some(serde_json::from_value(approved)?);
    let approval = requests.replace_subresource("approval", "foreign", &usual, &foreign).await;
    says(approval, "approves only requests that it made itself");
    Ok(())
}

/// A request that the API server would take.
fn signing(name: &str, signer: &str, usage: &str, seconds: Option<i32>) -> Result<CertificateSigningRequest> {
    let key = rcgen::KeyPair::generate().context("no key")?;
    let csr = rcgen::CertificateParams::default().serialize_request(&key).context("no request")?;
    let mut request = CertificateSigningRequest::default();
    request.metadata.name = Some(name.to_owned());
    request.spec.request = ByteString(csr.pem().context("no request")?.into_bytes());
    signer.clone_into(&mut request.spec.signer_name);
    request.spec.usages = Some(vec![usage.to_owned()]);
    request.spec.expiration_seconds = seconds;
    Ok(request)
}

fn binding(kind: &str, role: &str, user: &str) -> Value {
    json!({
        "metadata": {"name": if kind == "Role" { role } else { "holdfast-node-a-x" }},
        "roleRef": {"apiGroup": RBAC, "kind": kind, "name": role},
        "subjects": [{"apiGroup": RBAC, "kind": "User", "name": user}],
    })
}
