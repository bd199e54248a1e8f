//! The image cache: one directory of verified, read-only disk images named by their digest.
//!
//! ```text
//! <stateDir>/images/sha256-<hex>.img     a complete image, 0444, never written again
//!                   sha256-<hex>.json    its seal: what the import found, so that a look costs one stat
//!                   sha256-<hex>.from    the namespaces whose own source delivered it
//!                   .partial/<hex>...    a download on its way, with the ETag that lets it resume
//! ```
//!
//! Invariants: a file has its final name only after its bytes were hashed, found right, checked as an image and
//! written to disk; a crash at any moment leaves a `.partial` or the whole. An image whose seal is missing or
//! does not fit the file is hashed again before anybody uses it. The vm driver calls [`Cache::lookup`] on every
//! pass and runs [`Cache::fetch`] as a task. What goes, and whether there is room for more, is decided in `stock`.

mod address;
mod delivered;
mod digest;
mod error;
mod fetch;
mod flight;
mod http;
mod inspect;
mod intake;
mod ledger;
mod local;
mod page;
mod partial;
mod patience;
mod qcow2;
mod raw;
mod seal;
mod seen;
mod stock;

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use ipnet::IpNet;
use tokio::sync::watch;

use crate::host_addresses::HostAddresses;

pub(crate) use self::delivered::{Privacy, Tenant};
pub(crate) use self::digest::Digest;
pub(crate) use self::error::Error;
pub(crate) use self::inspect::{Error as InspectError, inspect_overlay, overlay_base};
pub(crate) use self::seen::Seen;
pub(crate) use self::stock::{Need, Needs};
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

/// What an image is fetched for. What comes first here comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Purpose {
    /// A virtual machine that wants to start.
    Machine,
    /// To have it before it is needed.
    Ahead,
}

/// Which bytes shall come into the cache, from where and for whom.
#[derive(Clone, Copy)]
pub(crate) struct Order<'a> {
    /// From where.
    pub(crate) source: &'a Source,
    /// Which bytes.
    pub(crate) digest: &'a Digest,
    /// In which format.
    pub(crate) format: Format,
    /// For whom.
    pub(crate) tenant: &'a Tenant,
    /// What for.
    pub(crate) purpose: Purpose,
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
    /// Whether http(s) may reach link-local addresses; metadata services of clouds not even then.
    pub(crate) allow_link_local: bool,
    /// Networks that http(s) may reach though they are refused by themselves or lie in one that is denied.
    pub(crate) allow: Vec<IpNet>,
    /// Networks that http(s) may not reach.
    pub(crate) deny: Vec<IpNet>,
    /// What addresses are to the host.
    pub(crate) host: HostAddresses,
    /// Absolute folders below which `file` sources may lie; none means no `file` source at all.
    pub(crate) file_roots: Vec<PathBuf>,
    /// Largest image file accepted, in bytes.
    pub(crate) max_bytes: u64,
    /// How long a server may send next to nothing before the transfer is given up.
    pub(crate) stall_timeout: Duration,
    /// How long connecting (name lookup, TCP, TLS) may take.
    pub(crate) connect_timeout: Duration,
    /// Bytes that stay free on the cache's filesystem beside what guests were promised: `reserved.storage`.
    pub(crate) reserve_bytes: u64,
    /// What all images together may take.
    pub(crate) budget: Budget,
}

/// What images may take: `imageCache`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    /// All together, in bytes.
    pub(crate) bytes: u64,
    /// Of that those which one namespace needs, in percent.
    pub(crate) namespace_percent: u8,
}

impl Budget {
    /// What one namespace may take, in bytes.
    fn share(self) -> u64 {
        let part = u128::from(self.bytes) * u128::from(self.namespace_percent) / 100;
        u64::try_from(part).unwrap_or(u64::MAX)
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            allow_loopback: false,
            allow_link_local: false,
            allow: Vec::new(),
            deny: Vec::new(),
            host: HostAddresses::default(),
            file_roots: Vec::new(),
            // Cloud images have 0.3 to 3 GiB; appliance images rarely pass 50 GiB.
            max_bytes: 64 << 30,
            // Longer than a WAN hiccup or a mirror's disk spinning up, short enough to show up as a condition.
            stall_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            reserve_bytes: 256 << 20,
            budget: Budget { bytes: u64::MAX, namespace_percent: 100 },
        }
    }
}

/// The cache. Cheap to share behind an `Arc`; fetches of the same digest wait for each other.
pub(crate) struct Cache {
    dir: PathBuf,
    rules: Rules,
    flights: flight::Flights,
    ledger: ledger::Ledger,
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
        Ok(Self { dir, rules, flights: flight::Flights::default(), ledger: ledger::Ledger::default() })
    }

    /// The image, if it is complete and still the file that was sealed. Costs one small read and one stat; the image
    /// then stays for a while, because a disk may just be made on it.
    pub(crate) fn lookup(&self, digest: &Digest) -> Option<Image> {
        self.ledger.touch(digest);
        seal::read(&self.dir, digest).ok()
    }

    /// The image, where its bytes may be used for this tenant.
    pub(crate) fn lookup_for(&self, digest: &Digest, tenant: &Tenant) -> Option<Image> {
        let image = self.lookup(digest).filter(|_| delivered::read(&self.dir, digest).serves(tenant))?;
        self.ledger.count(digest, &tenant.namespace);
        Some(image)
    }

    /// Whether the image is here for this tenant, asked by somebody who will not use it now.
    pub(crate) fn has_for(&self, digest: &Digest, tenant: &Tenant) -> bool {
        seal::read(&self.dir, digest).is_ok() && delivered::read(&self.dir, digest).serves(tenant)
    }

    /// Brings the image into the cache, or returns it when it is there already.
    ///
    /// *Flow*: look, wait for another fetch of the same digest, look again, transfer with hashing, compare the
    /// digest, check the header, publish. Bytes that are there and may not serve this tenant are transferred again:
    /// only its own source can show that it may have them. *Guarantees*: on `Ok` the image is durable, verified and
    /// serves the tenant. On `Err` nothing has the final name; a download that can resume does so in the next call.
    /// *Caveats*: dropping the future stops the transfer; what was received stays for the next call.
    pub(crate) async fn fetch(
        &self,
        order: Order<'_>,
        progress: &watch::Sender<Progress>,
    ) -> Result<Image, Error> {
        let turn = self.flights.turn(order.digest);
        let _landed = turn.lock().await;
        let mut held = self.lookup(order.digest);
        if held.is_none() {
            held = self.reseal(order.digest, order.format).await?;
        }
        match held {
            Some(image) if self.may_serve(order)? => image.declared_as(order.format),
            _ => fetch::run(self, order, progress).await?.declared_as(order.format),
        }
    }

    /// Whether the bytes that are here may be used for this order. A tenant whose source delivered them and who calls
    /// them private only now is taken at its word.
    fn may_serve(&self, order: Order<'_>) -> Result<bool, Error> {
        let known = delivered::read(&self.dir, order.digest);
        if known.came_from(&order.tenant.namespace) {
            let noted = delivered::note(&self.dir, order.digest, order.tenant);
            noted.map_err(|source| Error::storage(&self.dir, source))?;
            return Ok(true);
        }
        Ok(known.serves(order.tenant))
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
        let sizes = seal::sizes_in(&self.dir).map_err(|source| Error::storage(&self.dir, source))?;
        Ok(sizes.iter().filter_map(|(digest, _)| seal::read(&self.dir, digest).ok()).collect())
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
