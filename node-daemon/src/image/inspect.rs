//! What a file in the cache is: format and virtual size, from its own bytes and never by asking a tool.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{Digest, Format, qcow2, raw};
use crate::retry::Retry;

/// What the check of an image found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Length of the file in bytes.
    pub(crate) bytes: u64,
    /// Size of the disk the guest would see, in bytes.
    pub(crate) virtual_size: u64,
}

/// Why a file is not the image it was declared to be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The qcow2 header is unsound or reaches outside.
    #[error(transparent)]
    Qcow2(qcow2::Error),
    /// Declared raw, but the bytes belong to another format.
    #[error(transparent)]
    Disguised(raw::Disguised),
    /// Declared qcow2, but it is something else.
    #[error("it is declared as qcow2 but is {0}")]
    NotQcow2(&'static str),
    /// Nothing in it.
    #[error("it is empty")]
    Empty,
    /// The file could not be read.
    #[error("it could not be read")]
    Io(#[source] io::Error),
}

impl Error {
    /// When trying again can help: the same bytes stay the same.
    pub(crate) fn retry(&self) -> Retry {
        match self {
            Self::Io(_) => Retry::Later,
            Self::Qcow2(_) | Self::Disguised(_) | Self::NotQcow2(_) | Self::Empty => Retry::OnChange,
        }
    }

    /// The condition's reason.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Qcow2(qcow2::Error::Refused(_)) => "HostileImage",
            Self::Disguised(_) => "WrongFormat",
            Self::Qcow2(qcow2::Error::Malformed(_)) | Self::NotQcow2(_) | Self::Empty => "NotAnImage",
            Self::Io(_) => "StorageFailed",
        }
    }
}

/// Checks that `file` is a sound image of the declared format that stands alone.
pub(crate) fn inspect(file: &File, format: Format) -> Result<Facts, Error> {
    let bytes = file.metadata().map_err(Error::Io)?.len();
    let start = read_start(file).map_err(Error::Io)?;
    let virtual_size = judge(&start, bytes, format)?;
    Ok(Facts { bytes, virtual_size })
}

/// The virtual size of one of our own overlays, after the same checks; a backing file is expected there.
pub(crate) fn inspect_overlay(file: &File) -> Result<u64, Error> {
    let bytes = file.metadata().map_err(Error::Io)?.len();
    let start = read_start(file).map_err(Error::Io)?;
    qcow2::check(&start, bytes, qcow2::Backing::Expected).map_err(Error::Qcow2)
}

/// The image that one of our own overlays stands on, by the name of the file that its header gives.
pub(crate) fn overlay_base(file: &File) -> Result<Digest, Error> {
    let start = read_start(file).map_err(Error::Io)?;
    let path = qcow2::backing_file(&start).map(|name| Path::new(OsStr::from_bytes(name)));
    let digest = path.and_then(Path::file_stem).and_then(OsStr::to_str).and_then(Digest::from_file_stem);
    digest.ok_or(Error::Qcow2(qcow2::Error::Malformed("it does not stand on an image of the cache")))
}

fn judge(start: &[u8], bytes: u64, format: Format) -> Result<u64, Error> {
    if bytes == 0 {
        return Err(Error::Empty);
    }
    match format {
        Format::Raw => raw::recognise(start).map_or(Ok(bytes), |other| Err(Error::Disguised(other))),
        Format::Qcow2 if start.starts_with(&qcow2::MAGIC) => {
            qcow2::check(start, bytes, qcow2::Backing::Refused).map_err(Error::Qcow2)
        }
        Format::Qcow2 => {
            let what = raw::recognise(start)
                .map_or("no qcow2 image; check spec.format and the URL", |other| other.0);
            Err(Error::NotQcow2(what))
        }
    }
}

/// Reads the beginning by position, so that it does not disturb whoever streams the file.
fn read_start(file: &File) -> io::Result<Vec<u8>> {
    let mut start = vec![0; qcow2::WINDOW];
    let mut filled = 0;
    while filled < start.len() {
        match file.read_at(&mut start[filled..], filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    start.truncate(filled);
    Ok(start)
}
