//! The disk images that `images/*/build.sh` makes for guests of the tests and the demo.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

use crate::{files, peer};

/// An image as it lies in the cache.
pub struct GuestImage {
    /// The qcow2 file.
    pub file: PathBuf,
    /// Its digest, `sha256:…`.
    pub digest: String,
}

/// Finds a built image: `tiny` (seconds to boot) or `debian` (its own cloud-init).
pub fn find(name: &str) -> Result<GuestImage> {
    let link = peer::cache().join(format!("images/{name}.qcow2"));
    let file = link
        .canonicalize()
        .map_err(|_| anyhow!("peer missing: image {name} (run images/{name}/build.sh)"))?;
    let record = files::read(Path::new(&format!("{}.sha256", file.display())))?;
    let hex =
        record.split_whitespace().next().with_context(|| format!("no digest beside {}", file.display()))?;
    Ok(GuestImage { digest: format!("sha256:{hex}"), file })
}
