//! What an administrator installs: `deploy/install.yaml`, the controller's image, and the examples on top of them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_tests::control_plane::ControlPlane;
use holdfast_tests::install::{self, kubectl};
use holdfast_tests::kubeconfig::{self, Login, Server};
use holdfast_tests::process::{Process, heading};
use holdfast_tests::spawner::Spawner;
use holdfast_tests::wait::{Look, wait_for};
use holdfast_tests::{files, peer, ports, site_folder};
use serde_json::{Value, json};

/// The user of the image; nobody's on any Debian.
const USER: &str = "65532:65532";

fn fresh_folder(name: &str) -> Result<PathBuf> {
    site_folder::fresh(&format!("installable/{name}"))
}

fn run(program: impl AsRef<Path>, words: &[&str]) -> Result<String> {
    let output = Command::new(program.as_ref()).args(words).current_dir(peer::repository()).output();
    let Output { status, stdout, stderr } =
        output.with_context(|| format!("could not run {}", program.as_ref().display()))?;
    ensure!(status.success(), "{} failed: {}", program.as_ref().display(), String::from_utf8_lossy(&stderr));
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

fn apply(kubeconfig: &Path, file: &Path, more: &[&str]) -> Result<()> {
    let file = format!("--filename={}", file.display());
    let words = ["apply", "--server-side", "--force-conflicts", "--warnings-as-errors", &file];
    kubectl(kubeconfig, &[&words, more].concat()).map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn install_yaml_and_the_examples_are_accepted_without_a_warning() -> Result<()> {
    let plane = ControlPlane::start(&fresh_folder("plane")?).await?;
    let kubeconfig = plane.kubeconfig();
    let install = peer::repository().join("deploy/install.yaml");
    apply(&kubeconfig, &install, &[])?;
    kubectl(
        &kubeconfig,
        &["wait", "--for=condition=Established", "--timeout=60s", "crd", "-l", "!no-such-label"],
    )?;

    only_who_scrapes_reaches_the_endpoint(&kubeconfig)?;
    // Pod Security answers for the pod in the Deployment with a warning, and a warning is an error here.
    let restricted = "pod-security.kubernetes.io/warn=restricted";
    kubectl(&kubeconfig, &["label", "namespace", "holdfast-system", restricted])?;
    apply(&kubeconfig, &install, &["--dry-run=server"])?;

    let examples = peer::repository().join("examples");
    for entry in std::fs::read_dir(&examples).context("could not list the examples")? {
        let file = entry.context("could not list the examples")?.path();
        if file.extension().is_some_and(|extension| extension == "yaml") {
            apply(&kubeconfig, &file, &["--dry-run=server"])
                .with_context(|| format!("{} was refused", file.display()))?;
        }
    }
    Ok(())
}

#[test]
fn the_image_is_a_whole_oci_layout_that_runs_as_nobody() -> Result<()> {
    let folder = fresh_folder("image")?;
    let layout = build(&folder, "first")?;
    ensure!(files::read(&layout.join("oci-layout"))? == r#"{"imageLayoutVersion":"1.0.0"}"#);
    let config = files::read(&blob(&layout, &manifest(&layout)?["config"])?)?;
    let config: Value = serde_json::from_str(&config)?;
    ensure!(config["config"]["User"] == USER, "it runs as {}", config["config"]["User"]);

    let root = unpack(&layout, &folder)?;
    let said = run(
        "chroot",
        &[
            &format!("--userspec={USER}"),
            &root.to_string_lossy(),
            "/usr/bin/holdfast-controller",
            "--version",
        ],
    )?;
    ensure!(said.starts_with("holdfast-controller "), "{said}");
    Ok(())
}

/// As the Deployment runs it, but for the node: its user, its root, its address, its account's rights.
#[tokio::test(flavor = "multi_thread")]
async fn the_controller_in_the_image_answers_its_probes() -> Result<()> {
    let folder = fresh_folder("probes")?;
    let plane = ControlPlane::start(&folder.join("plane")).await?;
    let client = plane.client().await?;
    install::install(&plane.kubeconfig(), &client, &folder).await?;
    let root = unpack(&build(&folder, "layout")?, &folder)?;
    let kubeconfig = root.join("kubeconfig");
    let server = Server::of(&plane.kubeconfig()).await?;
    let token = install::controller_token(&client).await?;
    kubeconfig::write(&kubeconfig, &server, &Login::Token(&token))?;
    run("chown", &[USER, &kubeconfig.to_string_lossy()])?;

    let port = ports::free()?;
    let mut command = peer::mortal("chroot");
    command.arg(format!("--userspec={USER}")).arg(&root).arg("/usr/bin/holdfast-controller");
    command.args(["run", "--listen", &format!("0.0.0.0:{port}")]).env("KUBECONFIG", "/kubeconfig");
    let log = folder.join("controller.log");
    let _controller = Process::start(Spawner::machine()?, "controller", command, &log)?;
    for probe in ["healthz", "readyz", "metrics"] {
        let url = format!("http://127.0.0.1:{port}/{probe}");
        wait_for(&url, Duration::from_secs(60), async || {
            let answer = reqwest::get(&url).await.context("no answer")?;
            Ok(if answer.status().is_success() { Look::Done(()) } else { Look::NotYet(answer.text().await?) })
        })
        .await
        .with_context(|| heading("controller", &log))?;
    }
    Ok(())
}

/// The controller's endpoint is open to namespaces that scrape, and to no other.
fn only_who_scrapes_reaches_the_endpoint(kubeconfig: &Path) -> Result<()> {
    let get = |what: &str| -> Result<Value> {
        let words = ["get", "--namespace=holdfast-system", "--output=json", what];
        Ok(serde_json::from_str(&kubectl(kubeconfig, &words)?)?)
    };
    let policy = &get("networkpolicy/holdfast-controller")?["spec"];
    let pods = &get("deployment/holdfast-controller")?["spec"]["template"]["metadata"]["labels"];
    let selected = policy["podSelector"]["matchLabels"].as_object().context("it selects all")?;
    ensure!(
        selected.iter().all(|(key, value)| &pods[key] == value),
        "it is not about the controller: {policy}"
    );
    let scrapers = json!([{"namespaceSelector": {"matchLabels": {"holdfast.dev/scrapes": "true"}}}]);
    let ports = json!([{"protocol": "TCP", "port": "http"}]);
    ensure!(policy["ingress"] == json!([{"from": scrapers, "ports": ports}]), "{policy}");
    ensure!(policy["policyTypes"] == json!(["Ingress"]), "{policy}");
    Ok(())
}

#[test]
fn the_same_program_gives_the_same_image() -> Result<()> {
    let folder = fresh_folder("twice")?;
    let archive = |name: &str| -> Result<Vec<u8>> {
        let layout = build(&folder, name)?;
        std::fs::read(layout.with_extension("tar")).context("could not read the archive")
    };
    ensure!(archive("first")? == archive("second")?, "two builds of one program differ");
    Ok(())
}

fn build(folder: &Path, name: &str) -> Result<PathBuf> {
    let (program, out) = (peer::ours("holdfast-controller")?, folder.join(name));
    run(
        peer::repository().join("deploy/image/build.sh"),
        &[&program.to_string_lossy(), &out.to_string_lossy()],
    )?;
    Ok(out)
}

/// The root file system of the image.
fn unpack(layout: &Path, folder: &Path) -> Result<PathBuf> {
    let root = folder.join("root");
    files::create_folder(&root)?;
    let layer = blob(layout, &manifest(layout)?["layers"][0])?;
    run("tar", &["-xzf", &layer.to_string_lossy(), "-C", &root.to_string_lossy()])?;
    Ok(root)
}

fn manifest(layout: &Path) -> Result<Value> {
    let index: Value = serde_json::from_str(&files::read(&layout.join("index.json"))?)?;
    Ok(serde_json::from_str(&files::read(&blob(layout, &index["manifests"][0])?)?)?)
}

/// The file a descriptor points to, which must have the size and the digest it says.
fn blob(layout: &Path, descriptor: &Value) -> Result<PathBuf> {
    let digest = descriptor["digest"].as_str().context("a descriptor has no digest")?;
    let hex = digest.strip_prefix("sha256:").context("a digest is no sha256")?;
    let file = layout.join("blobs/sha256").join(hex);
    let size = file.metadata().with_context(|| format!("blob {hex} is missing"))?.len();
    ensure!(descriptor["size"] == size, "blob {hex} has {size} bytes");
    let said = run("sha256sum", &[&file.to_string_lossy()])?;
    ensure!(said.starts_with(hex), "blob {hex} has other bytes");
    Ok(file)
}
