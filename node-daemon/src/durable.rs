//! Files that are there whole or not at all, also after a power cut (F7).
//!
//! The order is always: temporary name in the same directory, write, fsync, rename, fsync of the directory. The
//! temporary name begins with a dot and ends in `.new`; one left by a crash is overwritten by the next attempt.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

/// Writes `path` with this mode, in place of whatever lies there.
pub(crate) fn replace(
    path: &Path,
    mode: u32,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = draft(path, mode, write)?;
    fs::rename(&temporary, path)?;
    sync_parent(path)
}

/// Writes `path` with this mode; refuses with `AlreadyExists` when something lies there, and leaves that alone.
pub(crate) fn create(
    path: &Path,
    mode: u32,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = draft(path, mode, write)?;
    let renamed = renameat2(AT_FDCWD, &temporary, AT_FDCWD, path, RenameFlags::RENAME_NOREPLACE);
    if let Err(errno) = renamed {
        remove(&temporary)?;
        return Err(errno.into());
    }
    sync_parent(path)
}

/// Removes a file; one that is not there is fine.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Makes renames and new names in the directory of `path` survive a power cut.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// A failed draft is removed at once: on a full disk it would keep the disk full.
fn draft(path: &Path, mode: u32, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<PathBuf> {
    let temporary = temporary_name(path)?;
    remove(&temporary)?;
    // New and without following links: whoever could plant something here must not choose where we write.
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(&temporary)?;
    if let Err(error) = write(&mut file).and_then(|()| file.sync_all()) {
        remove(&temporary)?;
        return Err(error);
    }
    Ok(temporary)
}

fn temporary_name(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(".new");
    Ok(path.with_file_name(hidden))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn replace_writes_the_whole_file_with_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seed.img");
        for text in ["first", "second"] {
            replace(&path, 0o600, |file| file.write_all(text.as_bytes())).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn create_never_overwrites() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root.qcow2");
        create(&path, 0o600, |file| file.write_all(b"first")).unwrap();
        let again = create(&path, 0o600, |file| file.write_all(b"second")).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "first");
    }

    #[test]
    fn a_failed_write_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let failing = |_: &mut File| Err(io::Error::from(io::ErrorKind::StorageFull));
        assert!(replace(&dir.path().join("seed.img"), 0o600, failing).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_link_planted_at_the_temporary_name_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, victim) = (dir.path().join("seed.img"), dir.path().join("victim"));
        fs::write(&victim, "safe").unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join(".seed.img.new")).unwrap();
        replace(&path, 0o600, |file| file.write_all(b"bytes")).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "safe");
    }
}
