//! Takes the site down and removes all it created, and only that.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::given::Given;
use super::record::{self, Record};
use super::{Folder, up};

/// Guests are cut off, not shut down, so the end is quick.
const END_LIMIT: Duration = Duration::from_secs(60);

/// Ends the supervisor and everything under it, then removes the folder; without one there is nothing to do.
pub async fn down(folder: &Folder) -> Result<()> {
    if !folder.path().exists() {
        return Ok(());
    }
    let Some(record) = Record::find(folder.path())? else {
        bail!("{} is no demo's folder: nothing is removed", folder.path().display());
    };
    if record.shape.kubeconfig.is_some() {
        let gone = format!(
            "the given cluster could not be left as it was; if it is gone for good, end the process that {} names and \
             remove {}",
            folder.lock_file().display(),
            folder.path().display()
        );
        leave_cluster(folder, &record).await.context(gone)?;
    }
    end(folder)?;
    record::remove(folder.path())
}

async fn leave_cluster(folder: &Folder, record: &Record) -> Result<()> {
    let Some(cluster) = Given::of(folder.path(), record).await? else { return Ok(()) };
    // An `up` that was refused, or killed before it marked the cluster, put nothing there.
    if !cluster.is_ours().await? {
        return Ok(());
    }
    // After a reboot of this machine nobody is there to take the virtual machines down.
    if !folder.is_held()? && cluster.needs_site().await? {
        up::start(folder, &record.shape)
            .context("the site could not be started again to take its objects away")?;
    }
    cluster.leave().await
}

fn end(folder: &Folder) -> Result<()> {
    if !folder.is_held()? {
        return Ok(());
    }
    let pid = folder.supervisor().context("a site is just being started there: try again in a moment")?;
    // The lock is held, so the id in it is its holder's and nobody else's.
    kill(pid, Signal::SIGTERM).with_context(|| format!("could not end the supervisor, process {pid}"))?;
    wait_end(folder, pid)
}

fn wait_end(folder: &Folder, pid: Pid) -> Result<()> {
    let start = Instant::now();
    while folder.is_held()? {
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
