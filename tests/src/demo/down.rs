//! Takes the site down and removes all it created, and only that.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use holdfast_api::names::NODE_LABEL;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Folder, Lock};
use crate::{files, install};

/// Guests are cut off, not shut down, so the end is quick.
const END_LIMIT: Duration = Duration::from_secs(60);

/// Ends the supervisor and everything under it, then removes the folder; without one there is nothing to do.
pub fn down(folder: &Folder) -> Result<()> {
    if !folder.path().exists() {
        return Ok(());
    }
    if !folder.lock_file().exists() {
        bail!("{} is no demo's folder: nothing is removed", folder.path().display());
    }
    if let Ok(kubeconfig) = folder.kubeconfig()
        && !kubeconfig.starts_with(folder.path())
    {
        leave_cluster(&kubeconfig, folder)?;
    }
    if let Lock::Held(Some(pid)) = folder.lock()? {
        end(folder, pid)?;
    }
    files::remove_folder(folder.path())
}

fn end(folder: &Folder, pid: Pid) -> Result<()> {
    // The lock is held, so the id in it is its holder's and nobody else's.
    kill(pid, Signal::SIGTERM).with_context(|| format!("could not end the supervisor, process {pid}"))?;
    let start = Instant::now();
    while let Lock::Held(_) = folder.lock()? {
        if start.elapsed() > END_LIMIT {
            bail!(
                "the supervisor, process {pid}, does not end; its log is {}",
                folder.supervisor_log().display()
            );
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// A cluster that is not ours is left as it was found: virtual machines first, while somebody can take them down.
fn leave_cluster(kubeconfig: &Path, folder: &Folder) -> Result<()> {
    let kinds = "virtualmachines,virtualmachineimages,virtualmachinenetworks,sshkeys";
    let wait = "--timeout=120s";
    install::kubectl(kubeconfig, &["delete", kinds, "--all", "--all-namespaces", wait])?;
    install::kubectl(kubeconfig, &["delete", "hypervisornodes,nodeenrolments", "--all", wait])?;
    // Made by the controller for its nodes; the cluster would keep them for an hour.
    let ours = format!("--selector={NODE_LABEL}");
    install::kubectl(kubeconfig, &["delete", "certificatesigningrequests", &ours, wait])?;
    install::uninstall(kubeconfig, folder.path())
}
