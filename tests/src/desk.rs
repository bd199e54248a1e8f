//! A site whose nodes are played, and somebody with Terraform before it.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use holdfast_api::{HypervisorNode, SSHKey, VirtualMachine};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::json;

use crate::office::Office;
use crate::scene::{ONE_AT_A_TIME, Scene};
use crate::terraform::{Cli, Workspace};
use crate::wait::{Look, wait_for};
use crate::{files, install};

/// A public key.
pub const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0VQmXWqCwdWxYF3ygdMzyLUOxJ7HpPlHqYUzrDvC4n alice";
const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
/// A machine's own attributes, as few as can be.
pub const PLAIN: &str =
    "  cpu = 1\n  memory = \"1Gi\"\n  cloud_init = { ssh_keys = [holdfast_ssh_key.alice.name] }";
/// Name of the account that Terraform may use instead of the administrator's certificate.
const ACCOUNT: &str = "terraform";
/// What one process needs to get somewhere, on two busy cores.
const LIMIT: Duration = Duration::from_secs(60);

/// A site and somebody with Terraform.
pub struct Desk {
    /// The site.
    pub office: Office,
    /// Who looks what became of it.
    pub admin: Client,
    /// The one with Terraform.
    pub terraform: Workspace,
    // After what it plays for.
    _scene: Scene,
}

impl Desk {
    /// A fresh one, with one node.
    pub async fn furnish(name: &str) -> Result<Self> {
        let (office, scene) = Scene::set(name, &["a"]).await?;
        let terraform =
            Workspace::open(Cli::OpenTofu, office.folder().join("terraform"), &office.plane().kubeconfig())?;
        Ok(Self { admin: office.admin().await?, office, terraform, _scene: scene })
    }

    /// Tells a story, which leaves nothing behind, once with each program.
    pub async fn tell(name: &str, story: impl AsyncFn(&Self, &mut Workspace) -> Result<()>) -> Result<()> {
        let _alone = ONE_AT_A_TIME.lock().await;
        let desk = Self::furnish(name).await?;
        for cli in Cli::here() {
            let folder = desk.office.folder().join(cli.word());
            let mut workspace = Workspace::open(cli, folder, &desk.office.plane().kubeconfig())?;
            let told = story(&desk, &mut workspace).await;
            told.with_context(|| format!("with {}: {}", cli.word(), desk.office.logs()))?;
        }
        Ok(())
    }

    /// The keys of the namespace `default`.
    pub fn keys(&self) -> Api<SSHKey> {
        Api::namespaced(self.admin.clone(), "default")
    }

    /// Its machines.
    pub fn machines(&self) -> Api<VirtualMachine> {
        Api::namespaced(self.admin.clone(), "default")
    }

    /// Lets the node take a hundred machines of one processor each.
    pub async fn make_room(&self) -> Result<()> {
        let nodes: Api<HypervisorNode> = Api::all(self.admin.clone());
        let spec = json!({"spec": {"cpuOvercommit": 16}});
        let patched = nodes.patch("a", &PatchParams::default(), &Patch::Merge(spec)).await;
        patched.map(drop).context("could not make room on the node")
    }

    /// A token that may do all an administrator may.
    pub async fn token(&self) -> Result<String> {
        let kubeconfig = self.office.plane().kubeconfig();
        let account = format!("--serviceaccount=default:{ACCOUNT}");
        install::kubectl(&kubeconfig, &["create", "serviceaccount", ACCOUNT])?;
        let binding = ["create", "clusterrolebinding", ACCOUNT, "--clusterrole=cluster-admin", &account];
        install::kubectl(&kubeconfig, &binding)?;
        install::account_token(&self.admin, "default", ACCOUNT).await
    }

    /// Waits until a machine of that name is there.
    pub async fn wait_for_machine(&self, name: &str) -> Result<VirtualMachine> {
        wait_for(name, LIMIT, async || {
            let found = self.machines().get_opt(name).await.context("could not read it")?;
            Ok(found.map_or_else(|| Look::NotYet("nothing".to_owned()), Look::Done))
        })
        .await
    }
}

/// All that a machine needs, and a machine `web` with these words in it.
pub fn machine(more: &str) -> String {
    format!(
        r#"
resource "holdfast_ssh_key" "alice" {{
  name       = "alice"
  public_key = "{KEY}"
}}
resource "holdfast_network" "lan" {{
  name = "lan"
  nat  = {{ subnet = "10.77.0.0/24" }}
}}
resource "holdfast_image" "debian" {{
  name   = "debian"
  source = {{ http = {{ url = "https://images.example.org/debian.qcow2" }} }}
  digest = "{DIGEST}"
  format = "qcow2"
}}
resource "holdfast_virtual_machine" "web" {{
  name   = "web"
  disks  = [
    {{ name = "root", size = "10Gi", image = holdfast_image.debian.name }},
    {{ name = "data", size = "1Gi", blank = true }},
  ]
  interfaces = [{{ name = "lan", network = holdfast_network.lan.name }}]
{more}
}}
"#
    )
}

/// So many machines `m-0`, `m-1`, …, each of which needs nothing but its node.
pub fn machines(count: usize) -> String {
    format!(
        r#"
resource "holdfast_virtual_machine" "m" {{
  count  = {count}
  name   = "m-${{count.index}}"
  cpu    = 1
  memory = "64Mi"
  disks  = [{{ name = "root", size = "1Gi", blank = true }}]
}}
"#
    )
}

/// A machine that no node will ever hold.
pub fn lost_machine(more: &str) -> String {
    machine(&format!("{PLAIN}\n  placement = {{ node_name = \"nowhere\" }}\n{more}"))
}

/// A command under way, in a process group of its own, as a terminal would have it.
pub struct Running {
    child: Option<Child>,
    group: Pid,
}

impl Running {
    /// Starts it.
    pub fn start(mut command: Command) -> Result<Self> {
        command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().context("could not start terraform")?;
        let group = Pid::from_raw(i32::try_from(child.id()).context("no such process")?);
        Ok(Self { child: Some(child), group })
    }

    /// What a terminal does when its user presses Ctrl-C.
    pub fn interrupt(&self) -> Result<()> {
        killpg(self.group, Signal::SIGINT).context("could not interrupt terraform")
    }

    /// Kills the provider that it started, as the kernel does when memory is short.
    pub fn kill_provider(&self) -> Result<()> {
        let mut killed = 0;
        // Any of its threads may have started it.
        let tasks = format!("/proc/{}/task", self.group);
        for task in std::fs::read_dir(&tasks).with_context(|| format!("could not list {tasks}"))? {
            let path = task.with_context(|| format!("could not list {tasks}"))?.path().join("children");
            for pid in files::read(&path).unwrap_or_default().split_whitespace() {
                let pid = Pid::from_raw(pid.parse().context("no numbers of processes")?);
                kill(pid, Signal::SIGKILL).context("could not kill the provider")?;
                killed += 1;
            }
        }
        anyhow::ensure!(killed > 0, "terraform has no provider now");
        Ok(())
    }

    /// Waits for its end.
    pub fn output(mut self) -> Result<Output> {
        let child = self.child.take().context("it ended before")?;
        child.wait_with_output().context("could not wait for terraform")
    }
}

/// A story that fails must leave nothing behind.
impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = killpg(self.group, Signal::SIGKILL);
            let _ = child.wait();
        }
    }
}
