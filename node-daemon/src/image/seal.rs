//! The seal of a complete image: what its import found, kept beside it.
//!
//! Hashing gigabytes at every VM start would be slow (B8), so a look compares length, modification time and inode
//! with those at the time of the check. Anything else than equal means: hash again. The seal is not a secret and
//! not a proof against root; it finds truncation, replacement, restored backups and crashes.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use super::{Digest, Error, Format, Image, delivered, inspect, partial};
use crate::durable;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Seal {
    format: Format,
    bytes: u64,
    virtual_size: u64,
    modified_seconds: i64,
    modified_nanoseconds: i64,
    inode: u64,
}

/// Where a complete image lies.
pub(super) fn image_path(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join(format!("{}.img", digest.file_stem()))
}

fn seal_path(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join(format!("{}.json", digest.file_stem()))
}

/// The image, if it is there and its seal fits.
pub(super) fn read(dir: &Path, digest: &Digest) -> io::Result<Image> {
    let path = image_path(dir, digest);
    let seal: Seal = serde_json::from_slice(&fs::read(seal_path(dir, digest))?)?;
    if !seal.fits(&fs::symlink_metadata(&path)?) {
        return Err(io::Error::other("the file is not the one that was sealed"));
    }
    Ok(Image {
        digest: *digest,
        path,
        format: seal.format,
        bytes: seal.bytes,
        virtual_size: seal.virtual_size,
    })
}

/// Writes the seal of `file`, which has been verified and will not be written again, and describes the image.
pub(super) fn write(
    dir: &Path,
    digest: &Digest,
    file: &File,
    format: Format,
    virtual_size: u64,
) -> io::Result<Image> {
    let seal = Seal::of(&file.metadata()?, format, virtual_size);
    let text = serde_json::to_vec(&seal)?;
    durable::replace(&seal_path(dir, digest), 0o600, |file| io::Write::write_all(file, &text))?;
    Ok(Image { digest: *digest, path: image_path(dir, digest), format, bytes: seal.bytes, virtual_size })
}

/// Hashes a file that lost its seal. `None` means there is no such file, or it was not what its name says and has
/// been moved out of the way, so that a fetch can replace it.
pub(super) fn renew(dir: &Path, digest: &Digest, format: Format) -> Result<Option<Image>, Error> {
    let path = image_path(dir, digest);
    let failed = |source| Error::storage(&path, source);
    let mut file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    if hash(&mut file).map_err(failed)? != *digest {
        tracing::error!(image = %digest, "the cached image has changed on disk; it is fetched again");
        fs::rename(&path, partial::corrupt_path(dir, digest)).map_err(failed)?;
        return Ok(None);
    }
    let facts = inspect::inspect(&file, format)
        .map_err(|source| Error::Unfit { at: path.display().to_string(), source })?;
    write(dir, digest, &file, format, facts.virtual_size).map(Some).map_err(failed)
}

/// The digests that have a file with a final name in `dir`, and its length. One that vanishes meanwhile is left out.
pub(super) fn sizes_in(dir: &Path) -> io::Result<Vec<(Digest, u64)>> {
    let mut sizes = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let stem = name.to_str().and_then(|name| name.strip_suffix(".img"));
        let digest = stem.and_then(Digest::from_file_stem);
        sizes.extend(digest.and_then(|digest| Some((digest, entry.metadata().ok()?.len()))));
    }
    Ok(sizes)
}

/// Removes image, seal and who brought it; the image first, so that a crash between leaves notes without a file, which
/// say nothing.
pub(super) fn remove(dir: &Path, digest: &Digest) -> io::Result<()> {
    durable::remove(&image_path(dir, digest))?;
    durable::remove(&seal_path(dir, digest))?;
    delivered::remove(dir, digest)
}

impl Seal {
    fn of(metadata: &fs::Metadata, format: Format, virtual_size: u64) -> Self {
        Self {
            format,
            bytes: metadata.len(),
            virtual_size,
            modified_seconds: metadata.mtime(),
            modified_nanoseconds: metadata.mtime_nsec(),
            inode: metadata.ino(),
        }
    }

    fn fits(&self, metadata: &fs::Metadata) -> bool {
        metadata.is_file() && *self == Self::of(metadata, self.format, self.virtual_size)
    }
}

fn hash(file: &mut File) -> io::Result<Digest> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(finish(context)),
            count => context.update(&buffer[..count]),
        }
    }
}

/// Ends a SHA-256 computation.
pub(super) fn finish(context: Context) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    Digest::new(bytes)
}
