//! How a node gets in, comes back and starts: real daemons against the real API server and controller. No guest runs
//! here, so libvirt is its own test driver.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use holdfast_api::{HypervisorNode, NodeEnrolment};
use holdfast_tests::control_plane::ControlPlane;
use holdfast_tests::kubeconfig::{self, Login, Server};
use holdfast_tests::pki::Pki;
use holdfast_tests::process::{Process, tail};
use holdfast_tests::spawner::Spawner;
use holdfast_tests::wait::{Look, wait_for};
use holdfast_tests::{files, install, peer, ports, site_folder};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

/// Enrolment takes seconds; a refusal must last a minute before it counts.
const LIMIT: Duration = Duration::from_secs(180);
/// The exit code of a wrong configuration.
const EX_CONFIG: i32 = 78;

/// The control plane and the controller all stories of this file share.
struct Gate {
    plane: ControlPlane,
    server: Server,
    credential: String,
    folder: PathBuf,
    _controller: Process,
}

async fn gate() -> Result<&'static Gate> {
    static GATE: OnceCell<Gate> = OnceCell::const_new();
    let open = async || -> Result<Gate> {
        let folder = site_folder::fresh("enrolment")?;
        let plane = ControlPlane::start(&folder.join("plane")).await?;
        Gate::open(folder, plane, &["--accept-insecure-dev"]).await
    };
    GATE.get_or_try_init(open).await
}

impl Gate {
    async fn open(folder: PathBuf, plane: ControlPlane, flags: &[&str]) -> Result<Self> {
        let (file, client) = (plane.kubeconfig(), plane.client().await?);
        install::install(&file, &client, &folder).await?;
        let server = Server::of(&file).await?;
        let credential = install::install_credential(&client).await?;
        let own = folder.join("controller.kubeconfig");
        let token = install::controller_token(&client).await?;
        kubeconfig::write(&own, &server, &Login::Token(&token))?;
        let mut command = peer::mortal(peer::ours("holdfast-controller")?);
        command.arg("run").args(flags).arg("--listen");
        command.arg(format!("127.0.0.1:{}", ports::free()?)).env("KUBECONFIG", &own);
        let log = folder.join("controller.log");
        let controller = Process::start(Spawner::machine()?, "holdfast-controller", command, &log)?;
        Ok(Self { plane, server, credential, folder, _controller: controller })
    }

    async fn client(&self) -> Result<Client> {
        self.plane.client().await
    }

    /// A host's folder with configuration and kubeconfig; the daemon is not started yet.
    fn node(&self, name: &str, host: &str) -> Result<Node> {
        let folder = self.folder.join(host);
        files::create_folder(&folder)?;
        files::write(&folder.join("libvirt.xml"), TEST_HOST)?;
        let node = Node { name: name.to_owned(), folder, process: None };
        node.configure(&json!({}))?;
        node.point_at(&self.server, &self.credential)?;
        Ok(node)
    }

    async fn requests_of(&self, name: &str) -> Result<Vec<NodeEnrolment>> {
        let all = Api::<NodeEnrolment>::all(self.client().await?).list(&ListParams::default()).await;
        let all = all.context("could not list enrolments")?;
        Ok(all.items.into_iter().filter(|request| request.spec.node_name == name).collect())
    }

    /// The one request of this name that nobody has decided yet.
    async fn open_request(&self, name: &str) -> Result<String> {
        wait_for(&format!("a request of {name} to wait for a person"), LIMIT, async || {
            let requests = self.requests_of(name).await?;
            let open = requests.iter().find(|request| has(request, "Issued", "False") && !decided(request));
            Ok(open.map_or_else(
                || Look::NotYet(format!("{} requests", requests.len())),
                |request| Look::Done(request.name_any()),
            ))
        })
        .await
    }

    /// What a person does: says yes or no.
    async fn decide(&self, request: &str, word: &str) -> Result<()> {
        let now = k8s_openapi::jiff::Timestamp::now();
        let decision = json!({"apiVersion": "holdfast.dev/v1alpha1", "kind": "NodeEnrolment",
            "metadata": {"name": request},
            "status": {"conditions": [{"type": word, "status": "True", "reason": "Person",
                "message": "seen by the keeper", "lastTransitionTime": now.to_string()}]}});
        let requests = Api::<NodeEnrolment>::all(self.client().await?);
        let as_a_person = PatchParams::apply("a-person").force();
        requests.patch_status(request, &as_a_person, &Patch::Apply(decision)).await?;
        Ok(())
    }

    async fn ready(&self, name: &str) -> Result<HypervisorNode> {
        let nodes = Api::<HypervisorNode>::all(self.client().await?);
        wait_for(&format!("node {name} to be ready"), LIMIT, async || {
            let node = nodes.get_opt(name).await?.filter(|node| node.metadata.deletion_timestamp.is_none());
            let ready = node.filter(|node| {
                let status = node.status.clone().unwrap_or_default();
                status.capacity.is_some() && is(&status.conditions, "Ready", "True")
            });
            Ok(ready.map_or_else(|| Look::NotYet("not ready".to_owned()), Look::Done))
        })
        .await
    }
}

/// A host of libvirt's test driver.
const TEST_HOST: &str = "<node><cpu><mhz>2000</mhz><model>x86_64</model><active>4</active><nodes>1</nodes>\
    <sockets>1</sockets><cores>4</cores><threads>1</threads></cpu><memory>8388608</memory></node>";

struct Node {
    name: String,
    folder: PathBuf,
    process: Option<Process>,
}

impl Node {
    fn configure(&self, more: &Value) -> Result<()> {
        let path = |name: &str| self.folder.join(name);
        let mut configuration = json!({
            "nodeName": self.name,
            "insecureDev": {"keyDir": path("keys")},
            "kubeconfig": path("kubeconfig"),
            "stateDir": path("state"),
            "libvirtUri": format!("test://{}", path("libvirt.xml").display()),
            "accelerator": "tcg",
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            configuration[key] = value.clone();
        }
        files::write(&path("node.yaml"), configuration.to_string())
    }

    fn point_at(&self, server: &Server, credential: &str) -> Result<()> {
        kubeconfig::write(&self.folder.join("kubeconfig"), server, &Login::Token(credential))
    }

    fn start(&mut self) -> Result<&mut Process> {
        let mut command = peer::mortal(peer::ours("holdfast-node")?);
        command.arg("--config").arg(self.folder.join("node.yaml"));
        let process = Process::start(Spawner::machine()?, "holdfast-node", command, &self.log())?;
        Ok(self.process.insert(process))
    }

    fn restart(&mut self) -> Result<()> {
        // Killed, not asked: nothing may depend on a last word.
        self.process = None;
        self.start().map(|_| ())
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    async fn says(&self, words: &str) -> Result<()> {
        wait_for(&format!("{} to say {words:?}", self.name), LIMIT, async || {
            let log = files::read(&self.log())?;
            Ok(if log.contains(words) { Look::Done(()) } else { Look::NotYet(tail(&self.log())) })
        })
        .await
    }

    async fn another_certificate(&self, than: &str) -> Result<String> {
        wait_for(&format!("{} to have another certificate", self.name), LIMIT, async || {
            let now = self.certificate()?;
            Ok(if now == than { Look::NotYet(tail(&self.log())) } else { Look::Done(now) })
        })
        .await
    }

    fn certificate(&self) -> Result<String> {
        files::read(&self.folder.join("keys/identity.crt"))
    }
}

fn is(conditions: &[Condition], type_: &str, status: &str) -> bool {
    conditions.iter().any(|condition| condition.type_ == type_ && condition.status == status)
}

fn has(request: &NodeEnrolment, type_: &str, status: &str) -> bool {
    request.status.as_ref().is_some_and(|found| is(&found.conditions, type_, status))
}

fn decided(request: &NodeEnrolment) -> bool {
    has(request, "Approved", "True") || has(request, "Rejected", "True")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_enters_with_the_install_credential_and_shows_that_its_key_lies_in_a_file() -> Result<()> {
    let gate = gate().await?;
    let mut node = gate.node("enters", "enters")?;
    node.start()?;
    let seen = gate.ready("enters").await?.status.unwrap_or_default();
    assert!(seen.insecure_dev, "the status does not say that the key lies in a file");
    let accelerator = seen.accelerator.context("no accelerator is reported")?;
    assert_eq!((accelerator.name.as_str(), accelerator.proved), ("tcg", true), "{}", accelerator.message);
    assert!(files::read(&node.log())?.contains("insecureDev"), "the log does not say it");
    // A second start finds the certificate and asks for nothing.
    node.restart()?;
    node.says("guest code was seen to run").await?;
    assert_eq!(gate.requests_of("enters").await?.len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_removed_waits_for_a_person_and_comes_back_with_the_same_key() -> Result<()> {
    let gate = gate().await?;
    let mut node = gate.node("returns", "returns")?;
    node.start()?;
    let first = gate.ready("returns").await?;
    let nodes = Api::<HypervisorNode>::all(gate.client().await?);
    nodes.delete("returns", &DeleteParams::default()).await?;
    // A daemon that has just got its certificate waits ten minutes before it doubts it; one that starts does not.
    node.restart()?;
    let request = gate.open_request("returns").await?;
    assert!(nodes.get_opt("returns").await?.is_none(), "the removed node is still there");
    gate.decide(&request, "Approved").await?;
    let second = gate.ready("returns").await?;
    assert_ne!(first.metadata.uid, second.metadata.uid);
    assert_eq!(first.spec.identity, second.spec.identity);
    Ok(())
}

/// Past two thirds of its life when it is signed, as that begins 5 minutes back; long enough for two starts of a daemon.
const SHORT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn an_enrolled_key_is_renewed_and_returns_after_expiry_without_a_person() -> Result<()> {
    let folder = site_folder::fresh("enrolment-short")?;
    let plane = ControlPlane::signing_for(&folder.join("plane"), SHORT).await?;
    let gate = Gate::open(folder, plane, &[]).await?;
    let mut node = gate.node("renews", "renews")?;
    node.start()?;
    let request = gate.open_request("renews").await?;
    gate.decide(&request, "Approved").await?;
    gate.ready("renews").await?;

    let first = node.certificate()?;
    node.restart()?;
    let second = node.another_certificate(&first).await?;
    node.says("two thirds of the certificate's life are over").await?;

    node.process = None;
    tokio::time::sleep(SHORT + Duration::from_secs(1)).await;
    node.start()?;
    let third = node.another_certificate(&second).await?;
    node.says("the certificate has expired").await?;
    gate.ready("renews").await?;

    // Somebody who rejects the key ends that.
    let requests = gate.requests_of("renews").await?;
    let newest = requests.iter().max_by_key(|request| request.creation_timestamp()).context("no request")?;
    assert!(has(newest, "Issued", "True") && newest.name_any() != request);
    gate.decide(&newest.name_any(), "Rejected").await?;
    node.restart()?;
    gate.open_request("renews").await?;
    assert_eq!(node.certificate()?, third, "a rejected key was renewed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_under_a_name_that_is_taken_waits_and_its_request_survives_a_restart() -> Result<()> {
    let gate = gate().await?;
    let mut owner = gate.node("taken", "taken")?;
    owner.start()?;
    gate.ready("taken").await?;
    let mut stranger = gate.node("taken", "stranger")?;
    stranger.start()?;
    let request = gate.open_request("taken").await?;
    stranger.restart()?;
    stranger.says("an earlier request is still open").await?;
    assert_eq!(gate.requests_of("taken").await?.len(), 2, "the restart made another request");

    // Turned away it asks again only when somebody takes the request out of the way.
    gate.decide(&request, "Rejected").await?;
    stranger.says("this node was turned away").await?;
    assert_eq!(gate.requests_of("taken").await?.len(), 2, "a rejected node asked again");
    let requests = Api::<NodeEnrolment>::all(gate.client().await?);
    requests.delete(&request, &DeleteParams::default()).await?;
    assert_ne!(gate.open_request("taken").await?, request);
    assert!(stranger.certificate().is_err(), "the stranger got a certificate");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_starts_without_an_api_and_enrols_when_there_is_one() -> Result<()> {
    let gate = gate().await?;
    let mut node = gate.node("waits", "waits")?;
    let nowhere = Server { port: ports::free()?, ..gate.server.clone() };
    node.point_at(&nowhere, &gate.credential)?;
    node.start()?.must_run()?;
    node.says("not enrolled yet").await?;
    node.says("guest code was seen to run").await?;
    node.point_at(&gate.server, &gate.credential)?;
    gate.ready("waits").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_another_authority_vouches_for_learns_nothing_from_a_node() -> Result<()> {
    let gate = gate().await?;
    let mut node = gate.node("trusts", "trusts")?;
    let another = Pki::open(&node.folder.join("another-authority"))?.authority()?;
    node.point_at(&Server { authority: another, ..gate.server.clone() }, &gate.credential)?;
    node.start()?;
    node.says("invalid peer certificate").await?;
    assert!(gate.requests_of("trusts").await?.is_empty(), "it asked an API that it does not trust");
    node.point_at(&gate.server, &gate.credential)?;
    gate.ready("trusts").await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_ends_the_daemon_with_its_own_exit_code_and_names_the_key() -> Result<()> {
    let gate = gate().await?;
    let mut node = gate.node("wrong", "wrong")?;
    node.configure(&json!({"acelerator": "kvm"}))?;
    let status = node.start()?.wait(Duration::from_secs(20)).context("the daemon runs on")?;
    assert_eq!(status.code(), Some(EX_CONFIG));
    let said = files::read(&node.log())?;
    assert!(said.contains("acelerator") && said.contains("node.yaml"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_ends_when_it_is_asked_to() -> Result<()> {
    let gate = gate().await?;
    let mut node = gate.node("ends", "ends")?;
    node.start()?;
    gate.ready("ends").await?;
    let process = node.process.as_mut().context("no daemon")?;
    let status = process.stop(Duration::from_secs(10)).context("it had to be killed")?;
    assert!(status.success(), "{status}");
    Ok(())
}
