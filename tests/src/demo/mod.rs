//! The demo: a site that runs in the background until it is taken down.
//!
//! `up` starts `run` detached and follows its progress; `run` holds the site and is its only process that matters: when
//! it ends, for whatever reason, every other one does. All it keeps lies in one folder, which `down` removes; a record in
//! it, written first, says that the folder is the demo's and what the site is made of.

mod down;
mod given;
mod objects;
mod provider;
mod record;
mod run;
mod shell;
mod up;

use std::env;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::Pid;

pub use down::down;
pub use record::Shape;
pub use run::run;
pub use shell::{environment, ssh, status};
pub use up::up;

use given::Given;
use record::Record;

use crate::{files, peer};

/// Unix sockets of a host lie this much deeper than the folder, and their paths may have 107 bytes.
const LONGEST_FOLDER: usize = 75;

/// The folder of a demo and the names of what lies in it.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder given, else `HOLDFAST_SITE_DIR`, else `.demo` in the repository.
    pub fn new(given: Option<PathBuf>) -> Result<Self> {
        let chosen = given.or_else(|| env::var_os("HOLDFAST_SITE_DIR").map(PathBuf::from));
        let path = std::path::absolute(chosen.unwrap_or_else(|| peer::repository().join(".demo")));
        let path = path.context("could not tell the demo's folder")?;
        if path.as_os_str().len() > LONGEST_FOLDER {
            bail!(
                "the demo's folder {} is too long for Unix sockets: name one of at most {LONGEST_FOLDER} characters \
                 with --dir or HOLDFAST_SITE_DIR",
                path.display()
            );
        }
        Ok(Self(path))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    fn progress(&self) -> PathBuf {
        self.0.join("progress")
    }

    fn ready(&self) -> PathBuf {
        self.0.join("ready")
    }

    fn supervisor_log(&self) -> PathBuf {
        self.0.join("logs/site.log")
    }

    fn lock_file(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// Where the path of the administrator's kubeconfig is written once the site is ready.
    fn kubeconfig_record(&self) -> PathBuf {
        self.0.join("kubeconfig-path")
    }

    /// The administrator's kubeconfig of a site that is or was up.
    pub fn kubeconfig(&self) -> Result<PathBuf> {
        let record =
            files::read(&self.kubeconfig_record()).context("no site is up: start one with make demo")?;
        Ok(PathBuf::from(record.trim()))
    }

    /// Makes the folder, and a given cluster, the demo's, or says why they cannot be. Repeating it changes nothing.
    async fn claim(&self, shape: Shape) -> Result<Record> {
        let record = Record::of(self, shape)?;
        let cluster = Given::of(&self.0, &record).await?;
        // Asked before the record is kept: after a refusal nothing is there, and another cluster may be named.
        if let Some(cluster) = &cluster {
            cluster.admit().await?;
        }
        record.keep(&self.0)?;
        if let Some(cluster) = &cluster {
            cluster.mark().await?;
        }
        Ok(record)
    }

    /// Takes the lock that the supervisor holds while it runs; `None` while one does.
    fn lock(&self) -> Result<Option<Flock<File>>> {
        let file = self.lock_file();
        let opened = File::options().create(true).truncate(false).read(true).write(true).open(&file);
        try_lock(opened.with_context(|| format!("could not open {}", file.display()))?)
    }

    /// Whether a supervisor runs. Creates nothing.
    fn is_held(&self) -> Result<bool> {
        let Ok(opened) = File::open(self.lock_file()) else { return Ok(false) };
        Ok(try_lock(opened)?.is_none())
    }

    /// The process id of the supervisor that runs; none if it has only begun.
    fn supervisor(&self) -> Option<Pid> {
        let text = files::read(&self.lock_file()).ok()?;
        text.trim().parse().ok().map(Pid::from_raw)
    }
}

fn try_lock(file: File) -> Result<Option<Flock<File>>> {
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(held) => Ok(Some(held)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(error).context("could not lock the demo's folder"),
    }
}

/// Writes the holder's process id into the lock.
fn sign(held: &mut Flock<File>) -> Result<()> {
    held.set_len(0).context("could not clear the lock")?;
    write!(&mut **held, "{}", std::process::id()).context("could not sign the lock")
}
