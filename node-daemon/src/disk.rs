//! The disks of virtual machines: overlays over images and blank disks. Each function is one effect, done whole or
//! not at all, and does nothing when it was done before.
//!
//! All calls block for a few fsyncs and a run of `qemu-img`; the driver makes them off its async threads. A disk
//! that is in use must not be passed in: the planner grows disks only of machines that are off.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::confined::{self, Confined, DISK};
use crate::durable;
use crate::image::{Digest, Format, Image, InspectError, inspect_overlay, overlay_base};
use crate::retry::Retry;

const QEMU_IMG: &str = "/usr/bin/qemu-img";
/// Tables of a new or grown qcow2 file: 64 TiB need 8 MiB of L1 table and a few clusters more.
const TABLE_BYTES: u64 = 1 << 30;

/// Makes and grows disks.
pub(crate) struct Disks {
    tool: Confined,
}

/// Why a disk is not as wanted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A disk cannot be smaller than what is on it.
    #[error("{} would have {wanted} bytes but needs at least {least}; raise spec.disks[].size", .path.display())]
    TooSmall { path: PathBuf, wanted: u64, least: u64 },
    /// No room on the node.
    #[error("the disk of {} is full; free space on the node, then the node continues by itself", .path.display())]
    DiskFull { path: PathBuf },
    /// The file at the disk's place is not what we made.
    #[error("{} is not the disk that was made there; restore it, or delete the virtual machine", .path.display())]
    Unsound { path: PathBuf, source: InspectError },
    /// The tool failed or could not be confined.
    #[error("could not prepare {}", .path.display())]
    Tool { path: PathBuf, source: confined::Error },
    /// The filesystem failed.
    #[error("could not write {}", .path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl Error {
    /// When trying again can help.
    pub(crate) fn retry(&self) -> Retry {
        match self {
            Self::TooSmall { .. } => Retry::OnChange,
            Self::DiskFull { .. } | Self::Unsound { .. } | Self::Tool { .. } | Self::Io { .. } => {
                Retry::Later
            }
        }
    }

    /// The condition's reason.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::TooSmall { .. } => "DiskTooSmall",
            Self::DiskFull { .. } => "DiskFull",
            Self::Unsound { .. } => "DiskDamaged",
            Self::Tool { .. } => "DiskToolFailed",
            Self::Io { .. } => "StorageFailed",
        }
    }

    fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            _ => Self::Io { path, source },
        }
    }

    fn tool(path: &Path, source: confined::Error) -> Self {
        let path = path.to_owned();
        if source.is_disk_full() { Self::DiskFull { path } } else { Self::Tool { path, source } }
    }
}

impl Disks {
    /// Finds and confines `qemu-img`.
    pub(crate) fn open() -> Result<Self, confined::Error> {
        Ok(Self { tool: Confined::open(Path::new(QEMU_IMG), "qemu-utils")? })
    }

    /// Makes a qcow2 disk of `bytes` over `base` at `path`, root's and unreadable to others until libvirt hands it
    /// to QEMU. A disk that is there already is left as it is, whatever a guest has written to it.
    ///
    /// The tool is told to believe us about the base (`-u`): we have checked it, so nobody opens it here.
    pub(crate) fn create_overlay(&self, path: &Path, base: &Image, bytes: u64) -> Result<(), Error> {
        check_size(path, bytes, base.virtual_size)?;
        let arguments = overlay_arguments(base, bytes);
        let mut outcome = Ok(());
        let created = durable::create(path, 0o600, |file| {
            outcome = self.tool.run(&arguments, file, TABLE_BYTES);
            if outcome.is_ok() { Ok(()) } else { Err(io::Error::other("qemu-img failed")) }
        });
        outcome.map_err(|source| Error::tool(path, source))?;
        already_done(created).map_err(|source| Error::io(path, source))
    }

    /// Makes an empty raw disk of `bytes` at `path`; it takes room as the guest writes. One that is there is left.
    #[expect(
        clippy::unused_self,
        reason = "callers see one door to all disks; which of them need a tool is ours"
    )]
    pub(crate) fn create_blank(&self, path: &Path, bytes: u64) -> Result<(), Error> {
        let created = durable::create(path, 0o600, |file| file.set_len(bytes));
        already_done(created).map_err(|source| Error::io(path, source))
    }

    /// Grows the disk at `path` to `bytes`. It never shrinks: a larger disk is refused with its size.
    pub(crate) fn grow(&self, path: &Path, format: Format, bytes: u64) -> Result<(), Error> {
        let file = open(path).map_err(|source| Error::io(path, source))?;
        let present = virtual_size(&file, format).map_err(|source| Error::unsound(path, source))?;
        check_size(path, bytes, present)?;
        if bytes == present {
            return Ok(());
        }
        match format {
            Format::Raw => file.set_len(bytes).map_err(|source| Error::io(path, source))?,
            Format::Qcow2 => self.grow_overlay(path, &file, bytes)?,
        }
        file.sync_all().map_err(|source| Error::io(path, source))
    }

    /// The tool sees the overlay alone: growing needs no byte of the base, and what a hostile header names stays shut.
    fn grow_overlay(&self, path: &Path, file: &File, bytes: u64) -> Result<(), Error> {
        let options = format!(
            r#"json:{{"driver":"qcow2","backing":null,"file":{{"driver":"file","filename":"{DISK}"}}}}"#
        );
        let arguments = ["resize".to_owned(), "-q".to_owned(), options, bytes.to_string()];
        let held = file.metadata().map_err(|source| Error::io(path, source))?.len();
        self.tool
            .run(&arguments, file, held.saturating_add(TABLE_BYTES))
            .map_err(|source| Error::tool(path, source))
    }
}

/// The size the guest sees of the disk at `path`, or `None` when there is none. Reads the header only, never probes.
pub(crate) fn size(path: &Path, format: Format) -> Result<Option<u64>, Error> {
    match open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::io(path, source)),
        Ok(file) => virtual_size(&file, format).map(Some).map_err(|source| Error::unsound(path, source)),
    }
}

/// The digest of the image that the overlay at `path` stands on, or `None` when there is no overlay. Only the header is
/// read, which no guest can write.
pub(crate) fn base(path: &Path) -> Result<Option<Digest>, Error> {
    match open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::io(path, source)),
        Ok(file) => overlay_base(&file).map(Some).map_err(|source| Error::unsound(path, source)),
    }
}

impl Error {
    fn unsound(path: &Path, source: InspectError) -> Self {
        match source {
            InspectError::Io(source) => Self::io(path, source),
            source => Self::Unsound { path: path.to_owned(), source },
        }
    }
}

fn overlay_arguments(base: &Image, bytes: u64) -> Vec<OsString> {
    let mut arguments: Vec<OsString> =
        ["create", "-q", "-u", "-f", "qcow2", "-F", base.format.name(), "-b"].map(Into::into).into();
    arguments.extend([base.path.clone().into_os_string(), DISK.into(), bytes.to_string().into()]);
    arguments
}

fn virtual_size(file: &File, format: Format) -> Result<u64, InspectError> {
    match format {
        Format::Raw => Ok(file.metadata().map_err(InspectError::Io)?.len()),
        Format::Qcow2 => inspect_overlay(file),
    }
}

/// A disk is a file of its own in the machine's folder; a link at its place is not followed.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(nix::libc::O_NOFOLLOW).open(path)
}

fn check_size(path: &Path, wanted: u64, least: u64) -> Result<(), Error> {
    if wanted < least {
        return Err(Error::TooSmall { path: path.to_owned(), wanted, least });
    }
    Ok(())
}

/// Somebody was here before us, perhaps ourselves before a crash: that is success.
fn already_done(created: io::Result<()>) -> io::Result<()> {
    match created {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
