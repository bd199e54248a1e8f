//! Sources on the node itself: a path that a tenant wrote and root opens.

use std::collections::HashSet;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::*;

/// A bench with one allowed folder, which holds `disk`.
fn bench() -> (Bench, PathBuf, Digest) {
    let root = tempfile::tempdir().unwrap().keep();
    let body = raw_image(2_000_000);
    fs::write(root.join("disk"), &body).unwrap();
    let roots = vec![root.clone()];
    (Bench::with(|rules| rules.file_roots = roots), root, digest_of(&body))
}

async fn fetch(bench: &Bench, path: impl AsRef<Path>, digest: &Digest) -> Result<Image, Error> {
    bench.fetch(Source::File(path.as_ref().to_owned()), digest, Format::Raw).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_below_an_allowed_folder_is_copied_into_the_cache() {
    let (bench, root, digest) = bench();
    let image = fetch(&bench, root.join("disk"), &digest).await.unwrap();
    assert_eq!(fs::read(image.path).unwrap(), fs::read(root.join("disk")).unwrap());
    fs::remove_dir_all(root).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_digest_does_not_tell_the_digest_of_a_host_file() {
    let (bench, root, digest) = bench();
    let refused = fetch(&bench, root.join("disk"), &digest_of(b"other")).await.unwrap_err();
    assert_eq!(refused.reason(), "DigestMismatch");
    assert!(!format!("{refused} {refused:?}").contains(&digest.to_string()));
    fs::remove_dir_all(root).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_outside_or_behind_a_link_is_refused() {
    let (bench, root, digest) = bench();
    symlink("/etc/passwd", root.join("link")).unwrap();
    symlink("disk", root.join("inner")).unwrap();
    symlink("/etc", root.join("folder")).unwrap();
    nix::unistd::mkfifo(&root.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let inside = ["link", "inner", "folder/passwd", "pipe", ".", "../etc/passwd", "x/../disk"]
        .map(|name| root.join(name));
    for path in inside.iter().chain(&["/etc/passwd".into(), "/dev/zero".into(), "disk".into(), root.clone()])
    {
        let refused = fetch(&bench, path, &digest).await.unwrap_err();
        assert_eq!(
            (refused.reason(), refused.retry()),
            ("SourceRefused", Retry::OnChange),
            "{path:?}: {refused}"
        );
    }
    fs::remove_dir_all(root).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_file_is_waited_for_and_a_large_one_refused() {
    let (mut bench, root, digest) = bench();
    let missing = fetch(&bench, root.join("other"), &digest).await.unwrap_err();
    assert_eq!((missing.reason(), missing.retry()), ("ImageNotFound", Retry::Later));
    bench.cache.rules.max_bytes = 1000;
    let large = fetch(&bench, root.join("disk"), &digest).await.unwrap_err();
    assert_eq!(large.reason(), "ImageTooLarge");
    fs::remove_dir_all(root).unwrap();
}

/// S1: while one thread exchanges a file and a link as fast as it can, no open ever reaches the link's target.
#[test]
fn a_racing_link_never_lets_an_open_out() {
    let (bench, root, _) = bench();
    let (path, link) = (root.join("disk"), root.join("link"));
    symlink("/etc/passwd", &link).unwrap();
    let stop = AtomicBool::new(false);
    let opened = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                renameat2(AT_FDCWD, &path, AT_FDCWD, &link, RenameFlags::RENAME_EXCHANGE).unwrap();
            }
        });
        let opens = (0..100_000).filter_map(|_| local::open(&path, &bench.cache.rules).ok());
        let lengths: HashSet<u64> = opens.map(|(_, file)| file.len()).collect();
        stop.store(true, Relaxed);
        lengths
    });
    assert_eq!(opened, HashSet::from([2_000_000]), "some opens meet the file, none the target of the link");
    fs::remove_dir_all(root).unwrap();
}
