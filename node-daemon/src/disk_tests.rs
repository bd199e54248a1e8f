//! Real disks by the real `qemu-img`, read back with it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::*;

struct Bench {
    dir: tempfile::TempDir,
    disks: Disks,
}

impl Bench {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), disks: Disks::open().expect("peer missing: qemu-utils") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A base image as the cache would describe it. The cache's checks are tested there.
    fn base(&self, format: Format, virtual_size: u64) -> Image {
        let path = self.path("base.img");
        qemu_img(&["create", "-q", "-f", format.name(), path.to_str().unwrap(), &virtual_size.to_string()]);
        let digest = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
        Image { digest, bytes: fs::metadata(&path).unwrap().len(), path, format, virtual_size }
    }

    fn info(&self, name: &str) -> serde_json::Value {
        let path = self.path(name);
        serde_json::from_slice(&qemu_img(&["info", "--output=json", path.to_str().unwrap()])).unwrap()
    }
}

fn qemu_img(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("qemu-img").args(arguments).output().expect("peer missing: qemu-utils");
    assert!(output.status.success(), "qemu-img {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn an_overlay_stands_on_its_image_in_the_recorded_format() {
    for format in [Format::Qcow2, Format::Raw] {
        let bench = Bench::new();
        let base = bench.base(format, 1 << 20);
        bench.disks.create_overlay(&bench.path("root.qcow2"), &base, 10 << 30).unwrap();
        let info = bench.info("root.qcow2");
        assert_eq!(info["virtual-size"], 10_u64 << 30);
        assert_eq!(info["backing-filename"], base.path.to_str().unwrap());
        assert_eq!(info["backing-filename-format"], format.name());
        assert_eq!(size(&bench.path("root.qcow2"), Format::Qcow2).unwrap(), Some(10 << 30));
        qemu_img(&["check", bench.path("root.qcow2").to_str().unwrap()]);
        let mode = fs::metadata(bench.path("root.qcow2")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn making_a_disk_twice_leaves_the_first_one_as_it_is() {
    let bench = Bench::new();
    let base = bench.base(Format::Qcow2, 1 << 20);
    let path = bench.path("root.qcow2");
    bench.disks.create_overlay(&path, &base, 1 << 30).unwrap();
    let first = fs::read(&path).unwrap();
    bench.disks.create_overlay(&path, &base, 2 << 30).unwrap();
    assert_eq!(fs::read(&path).unwrap(), first);
    bench.disks.create_blank(&bench.path("data.raw"), 1 << 20).unwrap();
    fs::write(bench.path("data.raw"), "a guest was here").unwrap();
    bench.disks.create_blank(&bench.path("data.raw"), 1 << 20).unwrap();
    assert_eq!(fs::read(bench.path("data.raw")).unwrap(), b"a guest was here");
}

#[test]
fn an_overlay_smaller_than_its_image_is_refused() {
    let bench = Bench::new();
    let base = bench.base(Format::Qcow2, 2 << 30);
    let refused = bench.disks.create_overlay(&bench.path("root.qcow2"), &base, 1 << 30).unwrap_err();
    assert_eq!((refused.reason(), refused.retry()), ("DiskTooSmall", Retry::OnChange));
    assert!(refused.to_string().contains("spec.disks[].size"));
    assert!(!bench.path("root.qcow2").exists());
}

#[test]
fn an_overlay_grows_and_keeps_what_the_guest_wrote() {
    let bench = Bench::new();
    let base = bench.base(Format::Raw, 1 << 20);
    let path = bench.path("root.qcow2");
    bench.disks.create_overlay(&path, &base, 1 << 30).unwrap();
    let write = ["-f", "qcow2", "-c", "write -P 7 4k 4k", path.to_str().unwrap()];
    assert!(Command::new("qemu-io").args(write).output().expect("peer missing: qemu-utils").status.success());
    for _ in 0..2 {
        bench.disks.grow(&path, Format::Qcow2, 5 << 30).unwrap();
        assert_eq!(bench.info("root.qcow2")["virtual-size"], 5_u64 << 30);
    }
    assert_eq!(bench.info("root.qcow2")["backing-filename"], base.path.to_str().unwrap());
    let read = ["-f", "qcow2", "-c", "read -P 7 4k 4k", path.to_str().unwrap()];
    let read = Command::new("qemu-io").args(read).output().unwrap();
    assert!(!String::from_utf8_lossy(&read.stdout).contains("failed"), "{read:?}");
}

#[test]
fn a_disk_never_shrinks() {
    let bench = Bench::new();
    let base = bench.base(Format::Raw, 1 << 20);
    bench.disks.create_overlay(&bench.path("root.qcow2"), &base, 2 << 30).unwrap();
    bench.disks.create_blank(&bench.path("data.raw"), 2 << 30).unwrap();
    for (name, format) in [("root.qcow2", Format::Qcow2), ("data.raw", Format::Raw)] {
        let refused = bench.disks.grow(&bench.path(name), format, 1 << 30).unwrap_err();
        assert!(matches!(refused, Error::TooSmall { least, .. } if least == 2 << 30));
    }
}

#[test]
fn a_blank_disk_is_sparse_and_grows() {
    let bench = Bench::new();
    let path = bench.path("data.raw");
    bench.disks.create_blank(&path, 5 << 30).unwrap();
    bench.disks.grow(&path, Format::Raw, 6 << 30).unwrap();
    assert_eq!(size(&path, Format::Raw).unwrap(), Some(6 << 30));
    assert!(bench.info("data.raw")["actual-size"].as_u64().unwrap() < 1 << 20);
}

#[test]
fn a_disk_that_is_not_there_has_no_size() {
    let bench = Bench::new();
    assert_eq!(size(&bench.path("data.raw"), Format::Raw).unwrap(), None);
}

#[test]
fn an_overlay_that_was_bent_to_name_other_files_is_not_opened() {
    let bench = Bench::new();
    let path = bench.path("root.qcow2");
    let other = bench.path("other");
    let options = format!("data_file={},data_file_raw=on", other.display());
    qemu_img(&["create", "-q", "-f", "qcow2", "-o", &options, path.to_str().unwrap(), "1M"]);
    let refused = bench.disks.grow(&path, Format::Qcow2, 1 << 30).unwrap_err();
    assert_eq!(refused.reason(), "DiskDamaged");
}

#[test]
fn a_raw_disk_on_which_the_guest_wrote_a_qcow2_header_stays_raw() {
    let bench = Bench::new();
    let path = bench.path("data.raw");
    qemu_img(&[
        "create",
        "-q",
        "-u",
        "-f",
        "qcow2",
        "-b",
        "/etc/passwd",
        "-F",
        "raw",
        path.to_str().unwrap(),
        "1T",
    ]);
    let bytes = fs::metadata(&path).unwrap().len();
    bench.disks.grow(&path, Format::Raw, bytes + 512).unwrap();
    assert_eq!(size(&path, Format::Raw).unwrap(), Some(bytes + 512));
}

#[test]
fn a_leftover_of_a_crash_does_not_stand_in_the_way() {
    let bench = Bench::new();
    let base = bench.base(Format::Raw, 1 << 20);
    fs::write(bench.path(".root.qcow2.new"), "half").unwrap();
    bench.disks.create_overlay(&bench.path("root.qcow2"), &base, 1 << 30).unwrap();
    assert!(!bench.path(".root.qcow2.new").exists());
}

#[test]
fn an_overlay_tells_which_image_it_stands_on() {
    let bench = Bench::new();
    let (path, digest) = (bench.path("root.qcow2"), Digest::new([7; 32]));
    assert_eq!(base(&path).unwrap(), None);
    let image = bench.base(Format::Raw, 1 << 20);
    let named = Image { path: image.path.with_file_name(format!("{}.img", digest.file_stem())), ..image };
    bench.disks.create_overlay(&path, &named, 1 << 30).unwrap();
    assert_eq!(base(&path).unwrap(), Some(digest));
    fs::write(&path, "not a disk of ours").unwrap();
    assert_eq!(base(&path).unwrap_err().reason(), "DiskDamaged");
}
