//! Folders of sites that tests bring up: one per test binary below `target/sites`, kept after a run for its logs.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};

use crate::{files, peer};

/// Locks of this process; each is held until it ends.
static HELD: Mutex<Vec<(String, Flock<File>)>> = Mutex::new(Vec::new());

/// An empty folder `target/sites/<name>`. Another run of the same tests at the same time waits until this process ends,
/// so that neither removes what the other works in. In `binary/part`, the binary is what is waited for.
pub fn fresh(name: &str) -> Result<PathBuf> {
    let sites = peer::repository().join("target/sites");
    files::create_folder(&sites)?;
    hold(name.split('/').next().unwrap_or(name))?;
    let folder = sites.join(name);
    files::remove_folder(&folder)?;
    files::create_folder(&folder)?;
    Ok(folder)
}

fn hold(binary: &str) -> Result<()> {
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    if held.iter().any(|(name, _)| name == binary) {
        return Ok(());
    }
    let path = peer::repository().join(format!("target/sites/{binary}.lock"));
    let file = File::create(&path).with_context(|| format!("could not open {}", path.display()))?;
    let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error);
    held.push((binary.to_owned(), lock.with_context(|| format!("could not lock {}", path.display()))?));
    Ok(())
}
