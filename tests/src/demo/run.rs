//! The supervisor: holds the site in the foreground until it is asked to end.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use super::{Folder, Shape, objects, provider, sign};
use crate::files;
use crate::progress::Progress;
use crate::site::{Layout, Site};

/// How often a process that ended is started again, as systemd would.
const MEND_EVERY: Duration = Duration::from_secs(2);

/// Brings up the site and holds it until SIGTERM or SIGINT.
pub async fn run(folder: &Folder, shape: Shape) -> Result<()> {
    let shape = folder.claim(shape).await?.shape;
    let Some(mut lock) = folder.lock()? else {
        bail!("a site runs already in {}: take it down first", folder.path().display());
    };
    sign(&mut lock)?;
    let progress = Progress::to(&folder.progress());
    let hosts = (1..=shape.hosts).map(|number| format!("node-{number}")).collect();
    let layout = Layout { folder: folder.path().to_owned(), hosts, kubeconfig: shape.kubeconfig };
    let mut terminate = signal(SignalKind::terminate()).context("could not wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("could not wait for SIGINT")?;
    tokio::select! {
        outcome = hold(folder, &layout, &progress) => outcome,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

async fn hold(folder: &Folder, layout: &Layout, progress: &Progress) -> Result<()> {
    let site = Site::start(layout, progress).await?;
    objects::offer(&site, progress).await?;
    provider::offer(folder)?;
    files::write(&folder.kubeconfig_record(), site.kubeconfig().display().to_string())?;
    files::write(&folder.ready(), "")?;
    progress.say("the site is ready");
    loop {
        tokio::time::sleep(MEND_EVERY).await;
        site.mend().await?;
    }
}
