//! The whole import against a real server on loopback and a real directory.

mod astray;
mod file;
mod http;
mod keep;
mod odd;
mod room;
mod server;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use aws_lc_rs::digest::{SHA256, digest};

use super::*;
use crate::retry::Retry;

/// A cache in a directory of its own, with loopback allowed.
struct Bench {
    dir: tempfile::TempDir,
    cache: Cache,
}

impl Bench {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Rules)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut rules = Rules {
            allow_loopback: true,
            connect_timeout: Duration::from_secs(5),
            reserve_bytes: 0,
            ..Rules::default()
        };
        change(&mut rules);
        let cache = Cache::open(&dir.path().join("images"), rules).unwrap();
        cache.learn(Needs::Unknown, 0);
        Self { dir, cache }
    }

    async fn fetch(&self, source: Source, digest: &Digest, format: Format) -> Result<Image, Error> {
        fetch(&self.cache, &source, digest, format, &watch::Sender::default()).await
    }

    async fn fetch_raw(&self, url: Url, digest: &Digest) -> Result<Image, Error> {
        self.fetch(Source::Http(url), digest, Format::Raw).await
    }

    /// Names of all files of the cache, hidden ones too.
    fn files(&self) -> Vec<String> {
        let list = |dir: PathBuf| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
        let images = self.dir.path().join("images");
        let files = list(images.clone()).chain(list(images.join(".partial")));
        let files = files.filter(|entry| entry.file_type().unwrap().is_file());
        files.map(|entry| entry.file_name().into_string().unwrap()).collect()
    }

    fn partial(&self, digest: &Digest) -> PathBuf {
        self.dir.path().join("images/.partial").join(format!("{}.part", digest.file_stem()))
    }
}

fn tenant(namespace: &str, privacy: Privacy) -> Tenant {
    Tenant { namespace: namespace.to_owned(), privacy }
}

/// Fetches for a virtual machine of namespace shop.
async fn fetch(
    cache: &Cache,
    source: &Source,
    digest: &Digest,
    format: Format,
    progress: &watch::Sender<Progress>,
) -> Result<Image, Error> {
    let tenant = tenant("shop", Privacy::Shared);
    let order = Order { source, digest, format, tenant: &tenant, purpose: Purpose::Machine };
    cache.fetch(order, progress).await
}

/// The digest of these bytes, by a way of its own.
fn digest_of(bytes: &[u8]) -> Digest {
    let hash = digest(&SHA256, bytes);
    Digest::new(hash.as_ref().try_into().unwrap())
}

/// A raw image of `size` bytes that differ from place to place and begin like nothing known.
fn raw_image(size: usize) -> Vec<u8> {
    let words = (0_u32..).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes());
    words.take(size).collect()
}

/// A qcow2 image as `qemu-img create` makes it.
fn qcow2_image(arguments: &[&str]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let create = [&["create", "-q", "-f", "qcow2"], arguments, &["disk", "64M"]].concat();
    let output = Command::new("qemu-img").args(create).current_dir(&dir).output();
    assert!(output.expect("peer missing: qemu-utils").status.success());
    fs::read(dir.path().join("disk")).unwrap()
}
