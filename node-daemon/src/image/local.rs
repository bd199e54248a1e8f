//! A `file` source: a path that a tenant wrote and root opens, so the kernel itself holds it below the folder.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path};

use bytes::Bytes;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use super::{Error, Rules};

/// Read size; the intake's batches have the same.
const READ_BYTES: usize = 256 << 10;

/// Opens a regular file below one of the configured folders, following no link (S1), and tells what it is.
///
/// Whether the path lies below a folder is decided on its text first, so that nothing outside is ever touched and
/// an error cannot tell what exists there.
pub(super) fn open(path: &Path, rules: &Rules) -> Result<(File, Metadata), Error> {
    let (root, below) = split(path, rules)?;
    let opened = open_beneath(root, below);
    let file = opened.map_err(|errno| explain(path, errno))?;
    let metadata = file.metadata().map_err(|error| unavailable(path, &error))?;
    match metadata {
        kind if !kind.is_file() => Err(refused(path, "is not a regular file")),
        large if large.len() > rules.max_bytes => {
            Err(Error::TooLarge { at: path.display().to_string(), limit: rules.max_bytes })
        }
        plain => Ok((file, plain)),
    }
}

/// Reads the next block, off the async threads. An empty block is the end.
pub(super) async fn next(file: File, path: &Path) -> Result<(File, Bytes), Error> {
    let read = tokio::task::spawn_blocking(move || read_block(file)).await;
    let read = read.map_err(io::Error::other).flatten();
    read.map_err(|error| unavailable(path, &error))
}

fn read_block(mut file: File) -> io::Result<(File, Bytes)> {
    let mut block = Vec::with_capacity(READ_BYTES);
    file.by_ref().take(READ_BYTES as u64).read_to_end(&mut block)?;
    Ok((file, block.into()))
}

/// The configured folder a path lies in, and the rest of the path.
fn split<'a>(path: &'a Path, rules: &'a Rules) -> Result<(&'a Path, &'a Path), Error> {
    let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    if !path.is_absolute() || !path.components().all(plain) {
        return Err(refused(path, "is not an absolute path without `..`"));
    }
    let inside = |root: &'a std::path::PathBuf| Some((root.as_path(), path.strip_prefix(root).ok()?));
    let found = rules.file_roots.iter().find_map(inside).filter(|(_, below)| !below.as_os_str().is_empty());
    found.ok_or_else(|| refused(path, "lies in none of the folders of this node's imageSources.fileRoots"))
}

/// `O_NONBLOCK`, so that a pipe planted at the path does not block the open.
fn open_beneath(root: &Path, below: &Path) -> Result<File, Errno> {
    let directory = File::options().read(true).custom_flags(nix::libc::O_DIRECTORY).open(root);
    let directory = directory.map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(directory, below, how).map(File::from)
}

fn explain(path: &Path, errno: Errno) -> Error {
    match errno {
        Errno::ENOENT | Errno::ENOTDIR => Error::NotFound { at: path.display().to_string() },
        Errno::ELOOP | Errno::EXDEV => refused(path, "passes through a link"),
        Errno::ENXIO => refused(path, "is not a regular file"),
        other => unavailable(path, &other.into()),
    }
}

fn unavailable(path: &Path, error: &io::Error) -> Error {
    Error::Unavailable { at: path.display().to_string(), why: error.to_string() }
}

fn refused(path: &Path, why: &str) -> Error {
    Error::Refused(format!("{} {why}; name a regular file below one of the allowed folders", path.display()))
}
