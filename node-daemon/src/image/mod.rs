//! The image cache: one directory of verified, read-only disk images named by their digest.
//!
//! ```text
//! <stateDir>/images/sha256-<hex>.img     a complete image, 0444, never written again
//!                   sha256-<hex>.json    its seal: what the import found, so that a look costs one stat
//!                   .partial/<hex>...    a download on its way, with the ETag that lets it resume
//! ```
//!
//! Invariants: a file has its final name only after its bytes were hashed, found right, checked as an image and
//! written to disk; a crash at any moment leaves a `.partial` or the whole. An image whose seal is missing or
//! does not fit the file is hashed again before anybody uses it. The vm driver calls [`Cache::lookup`] on every
//! pass and runs [`Cache::fetch`] as a task.

mod address;
mod digest;
mod error;
mod fetch;
mod flight;
mod http;
mod inspect;
mod intake;
mod local;
mod page;
mod partial;
mod patience;
mod qcow2;
mod raw;
mod seal;
mod seen;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use tokio::sync::watch;

pub(crate) use self::digest::Digest;
pub(crate) use self::error::Error;
pub(crate) use self::inspect::{Error as InspectError, inspect_overlay, overlay_base};
pub(crate) use self::seen::Seen;
pub(crate) use reqwest::Url;

/// Where an image comes from: `spec.source`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// `http://` or `https://`.
    Http(Url),
    /// A path on the node, below one of the configured folders.
    File(PathBuf),
}

/// The recorded format of a disk file. Files are always opened in it, never probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// QEMU's copy-on-write format, versions 2 and 3.
    Qcow2,
    /// The bytes of the disk as they are.
    Raw,
}

impl Format {
    /// The name QEMU and libvirt use.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
        }
    }
}

/// A complete, verified image in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// The digest of its bytes.
    pub(crate) digest: Digest,
    /// Where it lies; absolute if the cache's directory is.
    pub(crate) path: PathBuf,
    /// The format it was checked as.
    pub(crate) format: Format,
    /// Length of the file in bytes.
    pub(crate) bytes: u64,
    /// Size of the disk a guest sees, in bytes.
    pub(crate) virtual_size: u64,
}

/// How far a fetch is. `total` is what the source announced, if it did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Bytes of the image on disk or on their way there.
    pub(crate) bytes: u64,
    /// Length of the whole image in bytes.
    pub(crate) total: Option<u64>,
}

/// What the node's configuration permits a tenant's image source to do.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// Whether http(s) may reach loopback addresses of this node.
    pub(crate) allow_loopback: bool,
    /// Whether http(s) may reach link-local addresses, where cloud metadata services live.
    pub(crate) allow_link_local: bool,
    /// Absolute folders below which `file` sources may lie; none means no `file` source at all.
    pub(crate) file_roots: Vec<PathBuf>,
    /// Largest image file accepted, in bytes.
    pub(crate) max_bytes: u64,
    /// How long a server may send next to nothing before the transfer is given up.
    pub(crate) stall_timeout: Duration,
    /// How long connecting (name lookup, TCP, TLS) may take.
    pub(crate) connect_timeout: Duration,
    /// Bytes that stay free on the cache's filesystem: guests' overlays and logs share it.
    pub(crate) reserve_bytes: u64,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            allow_loopback: false,
            allow_link_local: false,
            file_roots: Vec::new(),
            // Cloud images have 0.3 to 3 GiB; appliance images rarely pass 50 GiB.
            max_bytes: 64 << 30,
            // Longer than a WAN hiccup or a mirror's disk spinning up, short enough to show up as a condition.
            stall_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            reserve_bytes: 256 << 20,
        }
    }
}

/// The cache. Cheap to share behind an `Arc`; fetches of the same digest wait for each other.
pub(crate) struct Cache {
    dir: PathBuf,
    rules: Rules,
    flights: flight::Flights,
}

impl Cache {
    /// Opens or creates the cache in `dir`.
    ///
    /// The directory may be searched by everybody (QEMU runs as its own user and opens images by path) but listed
    /// by root alone; partial downloads are root's.
    pub(crate) fn open(dir: &Path, rules: Rules) -> Result<Self, Error> {
        let dir = std::path::absolute(dir).map_err(|source| Error::storage(dir, source))?;
        make_dir(&dir, 0o711)?;
        make_dir(&partial::folder(&dir), 0o700)?;
        Ok(Self { dir, rules, flights: flight::Flights::default() })
    }

    /// The image, if it is complete and still the file that was sealed. Costs one small read and one stat.
    pub(crate) fn lookup(&self, digest: &Digest) -> Option<Image> {
        seal::read(&self.dir, digest).ok()
    }

    /// Brings the image into the cache, or returns it when it is there already.
    ///
    /// *Flow*: look, wait for another fetch of the same digest, look again, transfer with hashing, compare the
    /// digest, check the header, publish. *Guarantees*: on `Ok` the image is durable and verified. On `Err`
    /// nothing has the final name; a download that can resume does so in the next call. *Caveats*: dropping the
    /// future stops the transfer; what was received stays for the next call.
    pub(crate) async fn fetch(
        &self,
        source: &Source,
        digest: &Digest,
        format: Format,
        progress: &watch::Sender<Progress>,
    ) -> Result<Image, Error> {
        let turn = self.flights.turn(digest);
        let _landed = turn.lock().await;
        if let Some(image) = self.lookup(digest) {
            return image.declared_as(format);
        }
        if let Some(image) = self.reseal(digest, format).await? {
            return Ok(image);
        }
        fetch::run(self, source, digest, format, progress).await
    }

    /// Asks by what the source shows which file it has, without fetching it.
    pub(crate) async fn look(&self, source: &Source) -> Result<Seen, Error> {
        match source {
            Source::Http(url) => http::look(&self.rules, url).await,
            Source::File(path) => {
                let (path, rules) = (path.clone(), self.rules.clone());
                let work = move || local::open(&path, &rules).map(|(_, file)| Seen::on_disk(&file));
                let looked = tokio::task::spawn_blocking(work).await;
                looked.map_err(|joined| Error::storage(&self.dir, io::Error::other(joined)))?
            }
        }
    }

    /// All complete images, in no particular order. Files that are not ours are left alone and not listed.
    pub(crate) fn list(&self) -> Result<Vec<Image>, Error> {
        let digests = seal::images_in(&self.dir).map_err(|source| Error::storage(&self.dir, source))?;
        Ok(digests.iter().filter_map(|digest| self.lookup(digest)).collect())
    }

    /// Removes every image and partial download whose digest is not in `keep`; returns what went.
    ///
    /// The caller keeps whatever a VM names or an overlay stands on. A fetch under way is never touched.
    pub(crate) fn remove_unused(&self, keep: &HashSet<Digest>) -> Result<Vec<Digest>, Error> {
        let failed = |source| Error::storage(&self.dir, source);
        let busy = self.flights.in_the_air();
        let unused = |digest: &Digest| !keep.contains(digest) && !busy.contains(digest);
        let mut removed = seal::images_in(&self.dir).map_err(failed)?;
        removed.retain(unused);
        for digest in &removed {
            seal::remove(&self.dir, digest).map_err(failed)?;
        }
        partial::remove_where(&self.dir, unused).map_err(failed)?;
        Ok(removed)
    }

    /// Trusts a file with the final name again by hashing it: its seal was lost in a crash, or the file changed.
    async fn reseal(&self, digest: &Digest, format: Format) -> Result<Option<Image>, Error> {
        let (dir, digest) = (self.dir.clone(), *digest);
        let path = seal::image_path(&dir, &digest);
        let work = tokio::task::spawn_blocking(move || seal::renew(&dir, &digest, format));
        work.await.map_err(|joined| Error::storage(&path, io::Error::other(joined)))?
    }
}

impl Image {
    /// One digest has one format; a second object that declares the other one is wrong.
    fn declared_as(self, format: Format) -> Result<Self, Error> {
        if self.format == format {
            return Ok(self);
        }
        Err(Error::FormatDiffers { digest: self.digest, known: self.format, declared: format })
    }
}

fn make_dir(dir: &Path, mode: u32) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    let permissions = fs::Permissions::from_mode(mode);
    let outcome = fs::create_dir_all(dir).and_then(|()| fs::set_permissions(dir, permissions));
    outcome.map_err(|source| Error::storage(dir, source))
}

#[cfg(test)]
mod fetch_tests;
