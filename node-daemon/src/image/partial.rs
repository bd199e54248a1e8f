//! A download on its way: `.partial/sha256-<hex>.part`, and beside it a note of what is needed to resume.
//!
//! The file is locked while somebody writes it. A transfer that was dropped may still have blocks on their way to
//! the disk; its lock goes when they are written, and only then the next attempt begins.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Digest;
use crate::durable;

/// Bytes on disk that a server may complete: `If-Range` makes it send everything when its file has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resume {
    pub(super) offset: u64,
    pub(super) etag: String,
}

/// An `ETag` belongs to the URL it came from; another source starts anew.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    url: String,
    etag: String,
}

/// The claimed partial file of one digest.
pub(super) struct Partial {
    file: File,
    path: PathBuf,
    note: PathBuf,
}

/// Where partial downloads lie.
pub(super) fn folder(dir: &Path) -> PathBuf {
    dir.join(".partial")
}

/// Where a cached image goes whose bytes are no longer those of its name.
pub(super) fn corrupt_path(dir: &Path, digest: &Digest) -> PathBuf {
    folder(dir).join(format!("{}.corrupt", digest.file_stem()))
}

impl Partial {
    /// Opens or creates the file and locks it. `WouldBlock` means another transfer still holds it.
    pub(super) fn claim(dir: &Path, digest: &Digest) -> io::Result<Self> {
        let base = folder(dir).join(digest.file_stem());
        let path = base.with_extension("part");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(&path)?;
        file.try_lock()?;
        // The holder before us may have renamed or removed the name between our open and our lock.
        if fs::symlink_metadata(&path)?.ino() != file.metadata()?.ino() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Self { file, path, note: base.with_extension("note") })
    }

    /// A second handle on the same open file, for the writing thread; the lock lasts until the last one closes.
    pub(super) fn handle(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What can be continued from this URL, if anything.
    pub(super) fn resume(&self, url: &str) -> Option<Resume> {
        let offset = self.file.metadata().ok()?.len();
        let note: Note = serde_json::from_slice(&fs::read(&self.note).ok()?).ok()?;
        (offset > 0 && note.url == url).then_some(Resume { offset, etag: note.etag })
    }

    /// Empties the file for a transfer from the first byte, and notes how to resume it. Without a strong `ETag`
    /// (RFC 9110 section 13.1.5) there is no safe way to.
    pub(super) fn begin(&self, url: &str, etag: Option<&str>) -> io::Result<()> {
        self.file.set_len(0)?;
        let Some(etag) = etag.filter(|etag| etag.starts_with('"')) else {
            return durable::remove(&self.note);
        };
        let note = serde_json::to_vec(&Note { url: url.to_owned(), etag: etag.to_owned() })?;
        durable::replace(&self.note, 0o600, |file| io::Write::write_all(file, &note))
    }

    /// Throws away what was received.
    pub(super) fn discard(&self) -> io::Result<()> {
        self.file.set_len(0)?;
        durable::remove(&self.note)?;
        durable::remove(&self.path)
    }

    /// Gives the complete file its final name, for good. The caller has synced the bytes.
    pub(super) fn publish(&self, path: &Path) -> io::Result<()> {
        fs::rename(&self.path, path)?;
        durable::sync_parent(path)?;
        durable::remove(&self.note)
    }
}

/// The digests with a partial or quarantined file, and the bytes these hold.
pub(super) fn sizes_in(dir: &Path) -> io::Result<Vec<(Digest, u64)>> {
    let mut sizes = Vec::new();
    for entry in fs::read_dir(folder(dir))? {
        let entry = entry?;
        sizes
            .extend(digest_of(&entry.path()).and_then(|digest| Some((digest, entry.metadata().ok()?.len()))));
    }
    Ok(sizes)
}

fn digest_of(path: &Path) -> Option<Digest> {
    Digest::from_file_stem(path.file_stem()?.to_str()?)
}

/// Removes partial, note and quarantined files of the digests that `unused` names.
pub(super) fn remove_where(dir: &Path, unused: impl Fn(&Digest) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(folder(dir))? {
        let path = entry?.path();
        if digest_of(&path).is_some_and(|digest| unused(&digest)) {
            durable::remove(&path)?;
        }
    }
    Ok(())
}
