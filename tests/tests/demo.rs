//! The demo's site, as `make demo` and `make demo-down` bring it up and take it down.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use holdfast_api::names::PROVIDER_SOURCE;
use holdfast_tests::control_plane::ControlPlane;
use holdfast_tests::install::kubectl;
use holdfast_tests::spawner::Spawner;
use holdfast_tests::wait::{Look, wait_for};
use holdfast_tests::{files, peer, site_folder};

/// All that an installation could leave behind, whatever its namespace.
const KINDS: &str = "namespaces,customresourcedefinitions,clusterroles,clusterrolebindings,roles,rolebindings,\
    validatingadmissionpolicies,validatingadmissionpolicybindings,leases,certificatesigningrequests,configmaps";
/// A second `make demo` is to take less than a minute; this machine may be as busy as it likes.
const SECOND_CALL: Duration = Duration::from_secs(5 * 60);
const INSTALLED: Duration = Duration::from_secs(120);
const HELD: &str = "\
apiVersion: holdfast.dev/v1alpha1
kind: VirtualMachine
metadata: {name: held, namespace: theirs}
spec:
  runStrategy: Halted
  cpu: 1
  memory: 128Mi
  disks: [{name: root, size: 64Mi, blank: {}}]
";

/// Takes minutes under emulation, so `tests/doors/stories.sh` leaves it to the long run.
#[test]
fn make_demo_leads_into_a_guest_can_be_repeated_and_leaves_nothing() -> Result<()> {
    // Paths of people have spaces.
    let site = Site::new(site_folder::fresh("demo/its own")?.join("site"))?;
    site.door(&["up"])?;
    let motd = site.door(&["ssh", "web", "--", "cat", "/etc/motd"])?;
    ensure!(motd.contains("made from an image by cloud-init"), "{motd}");

    let begun = Instant::now();
    site.door(&["up"])?;
    let took = begun.elapsed();
    // Past the test runner, which hides what a passing test prints.
    writeln!(std::io::stderr(), "the second make demo took {} s", took.as_secs())
        .context("could not print")?;
    ensure!(took < SECOND_CALL, "the second make demo took {took:?}");

    let shell =
        format!("{}kubectl get hvm web --output='jsonpath={{.status.nodeName}}'", site.door(&["env"])?);
    ensure!(
        run(Command::new("bash").args(["-ec", &shell]))? == "node-1",
        "kubectl does not speak to the site"
    );
    ensure!(site.door(&["status"])?.contains(" is up\n"), "it does not say that it is up");

    site.door(&["down"])?;
    ensure!(!site.folder.exists(), "{} is still there", site.folder.display());
    let left = processes_of(&site.folder)?;
    ensure!(left.is_empty(), "these run on: {left:?}");
    site.door(&["down"]).context("taking down what is down already failed")?;
    Ok(())
}

#[test]
fn a_folder_of_somebody_is_neither_used_nor_removed() -> Result<()> {
    let site = Site::new(site_folder::fresh("demo/foreign")?)?;
    files::write(&site.folder.join("letter"), "dear")?;
    // As an older `status` would have left it.
    files::write(&site.folder.join("lock"), "")?;
    site.say(&["status"])?;
    site.refuses(&["down"], "is no demo's folder")?;
    site.refuses(&["up"], "name an empty or a new one")?;
    ensure!(files::read(&site.folder.join("letter"))? == "dear");

    let absent = Site::new(site.folder.join("absent"))?;
    absent.say(&["status"])?;
    absent.say(&["down"])?;
    ensure!(!absent.folder.exists(), "looking at a site made its folder");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_given_cluster_is_used_and_left_as_it_was() -> Result<()> {
    let root = site_folder::fresh("demo/given")?;
    let plane = ControlPlane::start(&root.join("theirs")).await?;
    let kubeconfig = plane.kubeconfig();
    kubectl(&kubeconfig, &["create", "namespace", "theirs"])?;
    let before = objects(&kubeconfig)?;

    let site = Site::new(root.join("ours"))?;
    let up = ["up", "--kubeconfig", &kubeconfig.to_string_lossy()];
    site.say(&up)?;
    kubectl(&kubeconfig, &["wait", "--for=condition=Ready", "--timeout=60s", "hypervisornode/node-1"])?;
    let environment = site.say(&["env"])?;
    ensure!(environment.contains(&*kubeconfig.to_string_lossy()), "{environment}");
    let settings = site.folder.join("terraform/cli.tfrc");
    ensure!(
        environment.contains(&format!("export TF_CLI_CONFIG_FILE='{}'", settings.display())),
        "{environment}"
    );
    let mirror = site.folder.join("terraform/mirror");
    ensure!(files::read(&settings)?.contains(&*mirror.to_string_lossy()), "the settings name another mirror");
    let listing = mirror.join(PROVIDER_SOURCE).join("index.json");
    ensure!(listing.exists(), "{} is not there", listing.display());
    ensure!(!site.folder.join("plane").exists(), "it has a control plane of its own beside the given one");

    site.say(&up)?;
    site.refuses(&["up"], "take it down first")?;
    site.refuses(&[&up[..], &["--hosts", "2"]].concat(), "take it down first")?;
    let second = Site::new(root.join("second"))?;
    second.refuses(&up, "take that one down first")?;
    ensure!(!second.folder.exists(), "a refused site left its folder");
    site.say(&["down"])?;
    ensure!(!site.folder.exists(), "{} is still there", site.folder.display());
    as_it_was(&kubeconfig, &before)
}

/// As after a reboot of the machine: objects are there that somebody has to take away in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_given_cluster_is_left_as_it_was_after_the_site_was_killed() -> Result<()> {
    let root = site_folder::fresh("demo/killed")?;
    let plane = ControlPlane::start(&root.join("theirs")).await?;
    let kubeconfig = plane.kubeconfig();
    kubectl(&kubeconfig, &["create", "namespace", "theirs"])?;
    let before = objects(&kubeconfig)?;
    let site = Site::new(root.join("ours"))?;

    // While it is being installed.
    let mut command = peer::mortal(peer::ours("holdfast-site")?);
    command.arg("--dir").arg(&site.folder).args(["run", "--kubeconfig"]).arg(&kubeconfig);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut run = Spawner::machine()?.spawn(command)?;
    wait_for("the first kind", INSTALLED, async || {
        let kind = kubectl(&kubeconfig, &["get", "customresourcedefinition", "virtualmachines.holdfast.dev"]);
        kind.map(Look::Done)
    })
    .await?;
    run.kill().context("could not kill it")?;
    run.wait().context("could not wait for its end")?;
    site.say(&["down"])?;
    as_it_was(&kubeconfig, &before)?;

    // With a virtual machine in it.
    site.say(&["up", "--kubeconfig", &kubeconfig.to_string_lossy()])?;
    let held = root.join("held.yaml");
    files::write(&held, HELD)?;
    kubectl(&kubeconfig, &["apply", "--filename", &held.to_string_lossy()])?;
    let node = ["get", "--namespace=theirs", "hvm/held", "--output=jsonpath={.status.nodeName}"];
    wait_for("its node", INSTALLED, async || {
        let name = kubectl(&kubeconfig, &node)?;
        Ok(if name == "node-1" { Look::Done(()) } else { Look::NotYet(format!("it has {name:?}")) })
    })
    .await?;
    run_words(&["kill", "-KILL", &files::read(&site.folder.join("lock"))?])?;
    site.say(&["down"])?;
    as_it_was(&kubeconfig, &before)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_has_holdfast_is_refused_and_left_alone() -> Result<()> {
    let root = site_folder::fresh("demo/taken")?;
    let plane = ControlPlane::start(&root.join("theirs")).await?;
    let kubeconfig = plane.kubeconfig();
    let kinds = peer::repository().join("api/crds");
    kubectl(&kubeconfig, &["apply", "--server-side", "--filename", &kinds.to_string_lossy()])?;
    let before = objects(&kubeconfig)?;
    let site = Site::new(root.join("ours"))?;
    site.refuses(&["up", "--kubeconfig", &kubeconfig.to_string_lossy()], "has Holdfast already")?;
    ensure!(!site.folder.exists(), "a refused site left its folder");
    as_it_was(&kubeconfig, &before)
}

struct Site {
    folder: PathBuf,
    /// Takes the site down when its standard input ends, which it does even when this process is killed: the supervisor
    /// is nobody's child.
    keeper: Child,
}

impl Site {
    fn new(folder: PathBuf) -> Result<Self> {
        let mut keeper = Command::new("setsid");
        keeper.args(["bash", "-c", "read -r; exec \"$0\" down"]).arg(peer::ours("holdfast-site")?);
        // Not on its command line, where a search for what is left of the site would find it.
        keeper.env("HOLDFAST_SITE_DIR", &folder);
        keeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { folder, keeper: keeper.spawn().context("could not start the keeper")? })
    }

    /// What `make demo-<word>` calls.
    fn door(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(peer::repository().join("tests/doors/demo.sh"));
        run(command.args(words).env("HOLDFAST_SITE_DIR", &self.folder).env_remove("HOLDFAST_KUBECONFIG"))
    }

    fn say(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(peer::ours("holdfast-site")?);
        run(command.arg("--dir").arg(&self.folder).args(words).env_remove("HOLDFAST_KUBECONFIG"))
    }

    fn refuses(&self, words: &[&str], why: &str) -> Result<()> {
        let said = self.say(words).err().with_context(|| format!("{words:?} was not refused"))?;
        ensure!(format!("{said:#}").contains(why), "{words:?} was refused for another reason: {said:#}");
        Ok(())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("could not run {command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {errors}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn run_words(words: &[&str]) -> Result<String> {
    run(Command::new(words[0]).args(&words[1..]))
}

/// Command lines that name the folder.
fn processes_of(folder: &Path) -> Result<Vec<String>> {
    let all = run_words(&["ps", "-eo", "args"])?;
    Ok(all.lines().filter(|line| line.contains(&*folder.to_string_lossy())).map(str::to_owned).collect())
}

fn objects(kubeconfig: &Path) -> Result<BTreeSet<String>> {
    let listed = kubectl(kubeconfig, &["get", KINDS, "--all-namespaces", "--no-headers", "-o", "name"])?;
    Ok(listed.lines().map(str::to_owned).collect())
}

fn as_it_was(kubeconfig: &Path, before: &BTreeSet<String>) -> Result<()> {
    let after = objects(kubeconfig)?;
    let left: Vec<_> = after.difference(before).collect();
    let lost: Vec<_> = before.difference(&after).collect();
    ensure!(left.is_empty() && lost.is_empty(), "left behind: {left:?}; taken along: {lost:?}");
    Ok(())
}
