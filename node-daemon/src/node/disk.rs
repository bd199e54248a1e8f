//! Whether the disk that the state folder lies on takes what is written: looked at again and again, by a thread of its own,
//! since a disk that is ill may not answer.

use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::statvfs::{FsFlags, statvfs};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::durable;

/// Between two looks. One without a write costs no more than a system call.
const LOOK: Duration = Duration::from_secs(10);
/// Between two writes while all is well: each waits for the disk.
const WRITE: Duration = Duration::from_secs(30);
/// A disk that leaves the thread without an answer for longer hangs.
const PATIENCE: Duration = Duration::from_secs(30);
/// Folders that may lie on disks of their own.
const PARTS: [&str; 3] = ["", "vms", "images"];

/// What was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Disk {
    /// Mounted read-only.
    pub(crate) read_only: bool,
    /// Bytes that are free for root.
    pub(crate) free: u64,
    /// No file can be made any more.
    pub(crate) out_of_files: bool,
    /// Why the last write failed, if it did.
    pub(crate) refused: Option<ErrorKind>,
}

impl Disk {
    /// All is well, as far as anybody has looked.
    pub(crate) const WELL: Self =
        Self { read_only: false, free: u64::MAX, out_of_files: false, refused: None };

    fn worse(self, other: Self) -> Self {
        Self {
            read_only: self.read_only || other.read_only,
            free: self.free.min(other.free),
            out_of_files: self.out_of_files || other.out_of_files,
            refused: self.refused.or(other.refused),
        }
    }
}

/// When the disk was heard of last.
pub(super) struct Heard(Instant);

impl Heard {
    /// A look has just come back, or the first has begun.
    pub(super) fn now() -> Self {
        Self(Instant::now())
    }

    /// Whether the disk hangs: the thread that looks at it waits for it too long.
    pub(super) fn hangs(&self) -> bool {
        self.0.elapsed() > PATIENCE
    }
}

/// Looks until nobody listens any more.
pub(crate) fn watch(state_dir: PathBuf) -> Result<watch::Receiver<Disk>, io::Error> {
    let (sender, receiver) = watch::channel(Disk::WELL);
    let look = move || {
        let mut written = None::<Instant>;
        while !sender.is_closed() {
            let before = *sender.borrow();
            let due = before.refused.is_some() || written.is_none_or(|at| at.elapsed() >= WRITE);
            let refused = if due { probe(&state_dir) } else { None };
            written = if due { Some(Instant::now()) } else { written };
            sender.send_replace(Disk { refused, ..look(&state_dir) });
            thread::sleep(LOOK);
        }
    };
    thread::Builder::new().name("state-disk".to_owned()).spawn(look)?;
    Ok(receiver)
}

/// One look, of what costs nothing.
fn look(state_dir: &Path) -> Disk {
    PARTS.iter().filter_map(|part| seen(&state_dir.join(part))).fold(Disk::WELL, Disk::worse)
}

fn seen(folder: &Path) -> Option<Disk> {
    let found = statvfs(folder).ok()?;
    Some(Disk {
        read_only: found.flags().contains(FsFlags::ST_RDONLY),
        free: found.blocks_free().saturating_mul(found.fragment_size()),
        // Some filesystems count no files at all.
        out_of_files: found.files() > 0 && found.files_free() == 0,
        refused: None,
    })
}

/// Writes a small file for good.
fn probe(state_dir: &Path) -> Option<ErrorKind> {
    let path = state_dir.join("probe");
    let written = durable::replace(&path, 0o600, |file| file.write_all(b"the disk takes writes\n"));
    written.err().filter(|error| !is_our_own(error)).map(|error| error.kind())
}

/// A want of open files, memory or time says nothing of the disk.
fn is_our_own(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::EINTR | Errno::EAGAIN))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;
    use std::sync::mpsc;

    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};

    use super::*;
    use crate::node::problems;

    /// Runs the test where a small filesystem of its own lies on the folder, on a thread whose mounts nobody else sees.
    fn on_a_small_disk(test: impl FnOnce(&Path) + Send + 'static) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let (sender, done) = mpsc::channel();
        let alone = thread::spawn(move || {
            unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).expect("peer missing: root, for mounts");
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
            mount(Some("small"), &path, Some("tmpfs"), MsFlags::empty(), Some("size=256m")).unwrap();
            test(&path);
            sender.send(()).unwrap();
        });
        alone.join().unwrap();
        done.recv().unwrap();
    }

    fn now(folder: &Path) -> Disk {
        Disk { refused: probe(folder), ..look(folder) }
    }

    #[test]
    fn a_state_disk_that_turns_read_only_is_seen_and_so_is_its_return() {
        on_a_small_disk(|folder| {
            assert!(problems::disk(&now(folder), false).is_none());
            let remount = |flags| {
                mount(None::<&str>, folder, None::<&str>, MsFlags::MS_REMOUNT | flags, None::<&str>).unwrap();
            };
            remount(MsFlags::MS_RDONLY);
            let seen = now(folder);
            assert_eq!((seen.read_only, seen.refused), (true, Some(ErrorKind::ReadOnlyFilesystem)));
            assert_eq!(problems::disk(&seen, false).unwrap().reason, "StateReadOnly");
            remount(MsFlags::empty());
            assert!(problems::disk(&now(folder), false).is_none());
        });
    }

    #[test]
    fn a_daemon_without_open_files_left_does_not_call_its_disk_read_only() {
        let own = |errno: Errno| is_our_own(&io::Error::from(errno));
        assert!([Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM].into_iter().all(own));
        assert!(![Errno::EROFS, Errno::EIO, Errno::ENOSPC, Errno::EDQUOT].into_iter().any(own));
    }

    /// A peer that every Debian has.
    fn tool(name: &str, arguments: &[&str]) {
        let ended = Command::new(name).args(arguments).status();
        assert!(ended.expect("peer missing: e2fsprogs or util-linux").success(), "{name} {arguments:?}");
    }

    #[test]
    fn a_state_disk_that_hangs_is_seen_and_so_is_its_return() {
        on_a_small_disk(|folder| {
            // Not on the small disk: the image would keep it mounted, and it the image.
            let elsewhere = tempfile::tempdir().unwrap();
            let (image, state) = (elsewhere.path().join("image"), folder.join("state"));
            fs::File::create(&image).unwrap().set_len(32 << 20).unwrap();
            fs::create_dir(&state).unwrap();
            let (image, place) = (image.to_str().unwrap(), state.to_str().unwrap());
            tool("mkfs.ext4", &["-q", image]);
            tool("mount", &["-o", "loop", image, place]);
            tool("fsfreeze", &["--freeze", place]);
            let disk = watch(state.clone()).unwrap();
            thread::sleep(Duration::from_secs(1));
            let hung = !disk.has_changed().unwrap();
            tool("fsfreeze", &["--unfreeze", place]);
            let began = Instant::now();
            while !disk.has_changed().unwrap() && began.elapsed() < LOOK {
                thread::sleep(Duration::from_millis(50));
            }
            let goes_on = disk.has_changed().unwrap();
            tool("umount", &[place]);
            assert!(hung, "a write waits");
            assert!(goes_on, "the write went through");
        });
    }

    #[test]
    fn a_full_disk_is_seen_and_so_is_what_was_freed() {
        on_a_small_disk(|folder| {
            let (filler, block) = (folder.join("filler"), vec![0_u8; 1 << 20]);
            let mut file = fs::File::create(&filler).unwrap();
            while file.write_all(&block).is_ok() {}
            let seen = now(folder);
            assert_eq!(seen.refused, Some(ErrorKind::StorageFull));
            assert_eq!(problems::disk(&seen, false).unwrap().reason, "DiskFull");
            file.set_len(120 << 20).unwrap();
            assert!(problems::disk(&now(folder), true).is_none());
        });
    }
}
