//! What a user's shell needs of a running site: its environment, a way into a guest, how it is doing.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use holdfast_api::VirtualMachine;
use kube::Api;

use super::Folder;
use crate::guest::{Guest, init_pid};
use crate::kubectl::Kubectl;
use crate::{kubeconfig, site};

/// Several times what an emulated guest needs from its address to its SSH server.
const SSH_LIMIT: Duration = Duration::from_secs(600);
/// The user of the Debian image's cloud-init.
const GUEST_USER: &str = "debian";

/// Prints shell lines that make `kubectl`, `terraform` and `tofu` speak to the site.
pub fn environment(folder: &Folder) -> Result<()> {
    let kubeconfig = folder.kubeconfig()?;
    let settings = folder.terraform_settings();
    let variables = [
        ("KUBECONFIG", kubeconfig.as_path()),
        // The provider looks here first: one that the user's shell has would lead it to another cluster.
        ("KUBE_CONFIG_PATH", kubeconfig.as_path()),
        ("TF_CLI_CONFIG_FILE", settings.as_path()),
        ("HOLDFAST_SITE_DIR", folder.path()),
    ];
    let line = |(name, path): (&str, &Path)| format!("export {name}={}\n", quoted(path));
    print(&variables.map(line).concat())
}

/// One word of a shell, whatever the path holds.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// Becomes an SSH session into a virtual machine, or runs words in it. A guest has an address before it answers to SSH.
pub async fn ssh(folder: &Folder, namespace: &str, machine: &str, words: &[String]) -> Result<()> {
    let guest = find_guest(folder, namespace, machine).await?;
    if guest.run(&["true"]).is_err() {
        writeln!(io::stderr(), "{machine} still boots; waiting until it answers to SSH").ok();
        guest.wait_ssh(SSH_LIMIT).await?;
    }
    let mut command = guest.ssh(&[])?;
    command.args(words);
    // Only returns when it could not.
    Err(command.exec()).context("could not run ssh")
}

async fn find_guest(folder: &Folder, namespace: &str, machine: &str) -> Result<Guest> {
    let client = kubeconfig::client(&folder.kubeconfig()?).await?;
    let machines: Api<VirtualMachine> = Api::namespaced(client, namespace);
    let found =
        machines.get_opt(machine).await.with_context(|| format!("could not read {namespace}/{machine}"))?;
    let found = found.with_context(|| {
        format!("there is no virtual machine {machine} in namespace {namespace}: kubectl get hvm lists them")
    })?;
    let status =
        found.status.ok_or_else(|| anyhow!("{machine} has no status yet: wait for its condition Ready"))?;
    let address = status.addresses.first().map(|address| address.ip.clone());
    let address = address
        .ok_or_else(|| anyhow!("{machine} has no address yet: wait for its condition AddressKnown"))?;
    Ok(Guest {
        init_pid: init_pid(&folder.path().join("hosts").join(&status.node_name))?,
        address,
        user: GUEST_USER.to_owned(),
        key: site::ssh_key(folder.path())?,
    })
}

/// Prints whether the site is up and what is in it.
pub fn status(folder: &Folder) -> Result<()> {
    if !folder.is_held()? {
        return print("no site is up; start one with make demo\n");
    }
    if !folder.ready().exists() {
        return print("the site is coming up\n");
    }
    let kubectl = Kubectl::new(&folder.kubeconfig()?, folder.path());
    let objects = kubectl.run(&["get", "holdfast", "--all-namespaces"])?;
    print(&format!("the site in {} is up\n\n{objects}", folder.path().display()))
}

fn print(text: &str) -> Result<()> {
    io::stdout().write_all(text.as_bytes()).context("could not print")
}
