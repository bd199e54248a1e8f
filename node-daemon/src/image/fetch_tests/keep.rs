//! What the cache holds over time: crashes, damage, full disks, cleaning up.

use std::os::unix::fs::FileExt;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::server::Site;
use super::*;

/// A cached raw image and the server it came from.
async fn cached(bench: &Bench) -> (Image, Site) {
    let body = raw_image(300_000);
    let site = Site::serving(body.clone()).await;
    let image = bench.fetch_raw(site.url("/disk"), &digest_of(&body)).await.unwrap();
    (image, site)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_lost_its_seal_is_hashed_and_not_fetched() {
    let bench = Bench::new();
    let (image, site) = cached(&bench).await;
    fs::remove_file(image.path.with_extension("json")).unwrap();
    assert_eq!(bench.cache.lookup(&image.digest), None);
    assert_eq!(bench.fetch_raw(site.url("/disk"), &image.digest).await.unwrap(), image);
    assert_eq!(site.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_image_is_found_and_fetched_again() {
    let bench = Bench::new();
    let (image, site) = cached(&bench).await;
    let flip = |path: &Path| {
        fs::OpenOptions::new().write(true).open(path).unwrap().write_at(b"flip", 1000).map(drop)
    };
    let truncate = |path: &Path| fs::OpenOptions::new().write(true).open(path).unwrap().set_len(10);
    for (n, damage) in [&flip as &dyn Fn(&Path) -> io::Result<()>, &truncate].into_iter().enumerate() {
        std::thread::sleep(Duration::from_millis(20));
        damage(&image.path).unwrap();
        assert_eq!(bench.cache.lookup(&image.digest), None, "never used as it is");
        bench.fetch_raw(site.url("/disk"), &image.digest).await.unwrap();
        assert_eq!(site.requests().len(), n + 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_digest_has_one_format() {
    let bench = Bench::new();
    let (image, site) = cached(&bench).await;
    let refused =
        bench.fetch(Source::Http(site.url("/disk")), &image.digest, Format::Qcow2).await.unwrap_err();
    assert_eq!(refused.reason(), "WrongFormat");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_fit_is_refused_before_the_first_byte() {
    let bench = Bench::with(|rules| rules.reserve_bytes = u64::MAX / 2);
    let body = raw_image(300_000);
    let site = Site::serving(body.clone()).await;
    let full = bench.fetch_raw(site.url("/disk"), &digest_of(&body)).await.unwrap_err();
    assert_eq!((full.reason(), full.retry()), ("DiskFull", Retry::Later));
}

#[test]
fn a_disk_that_fills_during_import_is_reported_and_left_usable() {
    let body = raw_image(8 << 20);
    on_a_small_disk("size=4m", 0, async move |cache, images| fills_and_recovers(cache, &images, body).await);
}

#[test]
fn an_import_of_unknown_length_stops_at_the_reserve() {
    let body = raw_image(12 << 20);
    on_a_small_disk("size=24m", 16 << 20, async move |cache, images| {
        let digest = digest_of(&body);
        let site = Site::start(move |_| super::server::say("200 OK", &body)).await;
        let source = Source::Http(site.url("/disk"));
        let full = fetch(&cache, &source, &digest, Format::Raw, &watch::Sender::default()).await.unwrap_err();
        assert_eq!((full.reason(), full.retry()), ("DiskFull", Retry::Later), "{full}");
        mount_tmpfs(&images, "size=64m", MsFlags::MS_REMOUNT);
        fetch(&cache, &source, &digest, Format::Raw, &watch::Sender::default()).await.unwrap();
    });
}

/// A cache on a real filesystem, in a mount namespace of the test's own thread, which its blocking threads share.
pub(super) fn on_a_small_disk(
    options: &'static str,
    reserve_bytes: u64,
    body: impl AsyncFnOnce(Cache, PathBuf) + Send + 'static,
) {
    let test = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS).expect("peer missing: root rights");
        let bench = Bench::with(|rules| rules.reserve_bytes = reserve_bytes);
        let images = bench.dir.path().join("images");
        mount_tmpfs(&images, options, MsFlags::empty());
        let cache = Cache::open(&images, bench.cache.rules.clone()).unwrap();
        cache.learn(Needs::Unknown, 0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(body(cache, images));
    });
    test.join().unwrap();
}

async fn fills_and_recovers(cache: Cache, images: &Path, body: Vec<u8>) {
    let digest = digest_of(&body);
    // Without a length nobody can know before that it will not fit.
    let site = Site::start(move |_| super::server::say("200 OK", &body)).await;
    let source = Source::Http(site.url("/disk"));
    let full = fetch(&cache, &source, &digest, Format::Raw, &watch::Sender::default()).await.unwrap_err();
    assert_eq!((full.reason(), full.retry()), ("DiskFull", Retry::Later), "{full}");
    fs::write(images.join("guest"), vec![0; 3 << 20]).expect("the failed import must not keep the disk full");
    mount_tmpfs(images, "size=32m", MsFlags::MS_REMOUNT);
    fetch(&cache, &source, &digest, Format::Raw, &watch::Sender::default()).await.unwrap();
}

fn mount_tmpfs(at: &Path, options: &str, flags: MsFlags) {
    let nowhere = None::<&str>;
    mount(nowhere, "/", nowhere, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nowhere).unwrap();
    mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some(options)).unwrap();
}
