//! What the filesystem of the state folder has for us: what is free, and what our own files take. Reads only.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;

use crate::vm::dir;

/// Bytes of the state folder's filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Free for everybody.
    pub(crate) free: u64,
    /// Taken by disks of virtual machines and by images. What the host keeps beside them is neither ours nor free.
    pub(crate) ours: u64,
    /// Where the images lie.
    pub(crate) images: Place,
}

/// Where the images lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Beside the disks.
    Together,
    /// On a filesystem of their own, of which so many bytes are free or ours.
    Apart(u64),
}

impl Usage {
    /// Bytes that are free or ours where the images lie.
    pub(crate) fn for_images(self) -> u64 {
        match self.images {
            Place::Together => self.free.saturating_add(self.ours),
            Place::Apart(bytes) => bytes,
        }
    }
}

/// The folder of the image cache.
pub(crate) fn images_in(state: &Path) -> PathBuf {
    state.join("images")
}

/// Looks at the state folder, which exists.
pub(crate) fn usage(state: &Path) -> io::Result<Usage> {
    let device = fs::metadata(state)?.dev();
    let images = images_in(state);
    let apart = apart(state);
    Ok(Usage {
        free: free(state)?,
        ours: allocated(&dir::all(state), device).saturating_add(allocated(&images, device)),
        images: match apart {
            Some(other) => Place::Apart(free(&images)?.saturating_add(allocated(&images, other))),
            None => Place::Together,
        },
    })
}

/// The device the images lie on, where that is not the one of the state folder.
fn apart(state: &Path) -> Option<u64> {
    let device = fs::metadata(state).ok()?.dev();
    fs::metadata(images_in(state)).map(|found| found.dev()).ok().filter(|other| *other != device)
}

/// How much of what guests were promised images could take from them: nothing, where they lie apart.
pub(crate) fn kept_from_images(state: &Path, promised: u64) -> u64 {
    if apart(state).is_some() { 0 } else { promised }
}

/// Bytes that anybody may still write there.
pub(crate) fn free(folder: &Path) -> io::Result<u64> {
    let stat = statvfs(folder)?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

/// Bytes that the files below a folder take on this device: holes take none. What cannot be read counts as nothing.
pub(crate) fn allocated(folder: &Path, device: u64) -> u64 {
    const BLOCK: u64 = 512;
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let one = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.dev() != device => 0,
        Ok(found) if found.is_dir() => allocated(&entry.path(), device),
        Ok(found) => found.blocks().saturating_mul(BLOCK),
        Err(_) => 0,
    };
    entries.map(one).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_files_count_with_what_they_take_and_holes_with_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let machine = dir.path().join("vms/one");
        fs::create_dir_all(&machine).unwrap();
        fs::write(machine.join("disk-root.qcow2"), vec![1; 1 << 20]).unwrap();
        fs::File::create(machine.join("disk-data.raw")).unwrap().set_len(1 << 40).unwrap();
        fs::write(dir.path().join("backup.tar"), vec![1; 4 << 20]).unwrap();
        let found = usage(dir.path()).unwrap();
        assert!((1 << 20..2 << 20).contains(&found.ours), "{found:?}");
        assert_eq!((found.images, found.for_images()), (Place::Together, found.free + found.ours));
        assert_eq!(kept_from_images(dir.path(), 7), 7);
    }

    #[test]
    fn images_on_a_filesystem_of_their_own_take_nothing_from_guests() {
        let dir = tempfile::tempdir().unwrap();
        // Any filesystem that is another one will do.
        std::os::unix::fs::symlink("/proc/sys/kernel", images_in(dir.path())).unwrap();
        assert_eq!(kept_from_images(dir.path(), 7), 0);
        assert!(matches!(usage(dir.path()).unwrap().images, Place::Apart(_)));
    }
}
