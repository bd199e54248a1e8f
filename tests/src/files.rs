//! File calls whose errors name the path.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

/// Creates a folder and its parents.
pub fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("could not create {}", path.display()))
}

/// Writes a whole file.
pub fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    fs::write(path, content).with_context(|| format!("could not write {}", path.display()))
}

/// Writes a whole file that only its owner may read.
pub fn write_private(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    write(path, content)?;
    let only_owner = fs::Permissions::from_mode(0o600);
    fs::set_permissions(path, only_owner).with_context(|| format!("could not protect {}", path.display()))
}

/// Reads a whole text file.
pub fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))
}

/// Removes a folder with everything in it; an absent one is done already.
pub fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        outcome => outcome.with_context(|| format!("could not remove {}", path.display())),
    }
}

/// Removes what a folder holds and keeps the folder, which may be a mount point or bound elsewhere.
pub fn empty_folder(path: &Path) -> Result<()> {
    empty_folder_but(path, "")
}

/// Removes what a folder holds, but for the entry `kept`.
pub fn empty_folder_but(path: &Path, kept: &str) -> Result<()> {
    let entries = fs::read_dir(path).with_context(|| format!("could not list {}", path.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("could not list {}", path.display()))?.path();
        if entry.file_name().is_some_and(|name| name == kept) {
            continue;
        }
        let outcome = if entry.is_dir() && !entry.is_symlink() {
            fs::remove_dir_all(&entry)
        } else {
            fs::remove_file(&entry)
        };
        outcome.with_context(|| format!("could not remove {}", entry.display()))?;
    }
    Ok(())
}

/// Removes a file that is there.
pub fn remove_file(path: &Path) -> Result<()> {
    fs::remove_file(path).with_context(|| format!("could not remove {}", path.display()))
}
