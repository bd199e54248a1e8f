//! Starts the supervisor in the background and shows what it does.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Folder, Shape};
use crate::files;
use crate::process::tail;

const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Brings up the site, unless it is up, and returns when it is ready.
pub async fn up(folder: &Folder, shape: Shape) -> Result<()> {
    let shape = folder.claim(shape).await?.shape;
    start(folder, &shape)
}

/// The same for a folder that is the demo's already.
pub(super) fn start(folder: &Folder, shape: &Shape) -> Result<()> {
    if folder.is_held()? {
        return wait_ready(folder, None);
    }
    files::create_folder(&folder.path().join("logs"))?;
    for stale in [folder.ready(), folder.progress()] {
        if stale.exists() {
            files::remove_file(&stale)?;
        }
    }
    let supervisor = start_supervisor(folder, shape)?;
    wait_ready(folder, Some(supervisor))
}

fn start_supervisor(folder: &Folder, shape: &Shape) -> Result<Child> {
    let log = folder.supervisor_log();
    let opened = OpenOptions::new().create(true).append(true).open(&log);
    let opened = opened.with_context(|| format!("could not open {}", log.display()))?;
    let second = opened.try_clone().context("could not share the log")?;
    let own = std::env::current_exe().context("could not tell where this program lies")?;
    // A session of its own: closing the terminal does not end the site.
    let mut command = Command::new("setsid");
    command.arg(own).args(["--dir"]).arg(folder.path()).args(["run", "--hosts", &shape.hosts.to_string()]);
    // What the environment says now is not what the site was made with.
    command.env_remove("HOLDFAST_KUBECONFIG");
    if let Some(given) = &shape.kubeconfig {
        command.arg("--kubeconfig").arg(given);
    }
    command.stdin(Stdio::null()).stdout(opened).stderr(second);
    command.spawn().context("could not start the supervisor")
}

fn wait_ready(folder: &Folder, mut supervisor: Option<Child>) -> Result<()> {
    let mut shown = 0;
    loop {
        shown = show_progress(folder, shown)?;
        if folder.ready().exists() {
            show_progress(folder, shown)?;
            return Ok(());
        }
        let ended = match &mut supervisor {
            Some(child) => child.try_wait().context("could not watch the supervisor")?.is_some(),
            None => !folder.is_held()?,
        };
        if ended {
            bail!(
                "the site did not come up; the end of {}:\n{}",
                folder.supervisor_log().display(),
                tail(&folder.supervisor_log())
            );
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Prints the progress lines from byte `shown` on; returns how far they go.
fn show_progress(folder: &Folder, shown: u64) -> Result<u64> {
    let Ok(mut file) = std::fs::File::open(folder.progress()) else {
        return Ok(shown);
    };
    let mut text = String::new();
    file.seek(SeekFrom::Start(shown)).context("could not follow the progress")?;
    file.read_to_string(&mut text).context("could not follow the progress")?;
    std::io::stderr().write_all(text.as_bytes()).context("could not show the progress")?;
    Ok(shown + text.len() as u64)
}
