//! Real images made by `qemu-img`, the same images bent by hand, and arbitrary bytes.

use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::*;

/// Runs the real tool in `dir`; it is a peer of these tests.
fn qemu_img(dir: &Path, arguments: &[&str]) {
    let output = Command::new("qemu-img").args(arguments).current_dir(dir).output();
    let output = output.expect("peer missing: qemu-utils");
    assert!(output.status.success(), "qemu-img {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The bytes of an image that `qemu-img create` makes with these options.
fn image(arguments: &[&str]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    qemu_img(dir.path(), &[&["create", "-q", "-f", "qcow2"], arguments].concat());
    std::fs::read(dir.path().join("disk")).unwrap()
}

fn judge(bytes: &[u8]) -> Result<u64, Error> {
    check(&bytes[..bytes.len().min(WINDOW)], bytes.len() as u64, Backing::Refused)
}

fn with(mut bytes: Vec<u8>, at: usize, new: &[u8]) -> Vec<u8> {
    bytes[at..at + new.len()].copy_from_slice(new);
    bytes
}

#[test]
fn images_as_qemu_img_makes_them_are_accepted_with_their_virtual_size() {
    for options in [
        "compat=1.1",
        "compat=0.10",
        "cluster_size=512",
        "cluster_size=2M",
        "compression_type=zstd",
        "extended_l2=on,cluster_size=128k",
        "refcount_bits=1",
        "preallocation=metadata",
        "lazy_refcounts=on",
    ] {
        let bytes = image(&["-o", options, "disk", "64M"]);
        assert_eq!(judge(&bytes), Ok(64 << 20), "{options}");
    }
}

#[test]
fn a_resized_and_a_converted_image_are_accepted() {
    let dir = tempfile::tempdir().unwrap();
    qemu_img(dir.path(), &["create", "-q", "-f", "qcow2", "first", "1G"]);
    qemu_img(dir.path(), &["resize", "-q", "-f", "qcow2", "first", "3T"]);
    qemu_img(dir.path(), &["convert", "-c", "-f", "qcow2", "-O", "qcow2", "first", "disk"]);
    for name in ["first", "disk"] {
        assert_eq!(judge(&std::fs::read(dir.path().join(name)).unwrap()), Ok(3 << 40));
    }
}

#[test]
fn an_image_with_a_backing_file_is_refused() {
    let bytes = image(&["-u", "-b", "/etc/passwd", "-F", "raw", "disk", "1M"]);
    assert_eq!(judge(&bytes), Err(Error::Refused("stands on a backing file")));
    assert_eq!(
        check(&bytes, bytes.len() as u64, Backing::Expected),
        Ok(1 << 20),
        "an overlay is one of those"
    );
}

#[test]
fn an_image_with_an_external_data_file_is_refused() {
    let bytes = image(&["-o", "data_file=other,data_file_raw=on", "disk", "1M"]);
    assert_eq!(judge(&bytes), Err(Error::Refused("keeps its data in another file")));
    // Without the feature bit QEMU ignores the name; we do not rely on that.
    let hidden = with(bytes, 72, &0_u64.to_be_bytes());
    assert_eq!(judge(&hidden), Err(Error::Refused("names a file that keeps its data")));
}

#[test]
fn an_encrypted_image_is_refused() {
    // Bent by hand: qemu-img times its key derivation while it makes one, and gives up where the clock of a processor is coarse.
    let good = image(&["disk", "1M"]);
    for method in 1_u32..=2 {
        assert_eq!(
            judge(&with(good.clone(), 32, &method.to_be_bytes())),
            Err(Error::Refused("is encrypted")),
            "{method}"
        );
    }
}

#[test]
fn an_image_with_internal_snapshots_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    qemu_img(dir.path(), &["create", "-q", "-f", "qcow2", "disk", "1M"]);
    qemu_img(dir.path(), &["snapshot", "-c", "first", "disk"]);
    let bytes = std::fs::read(dir.path().join("disk")).unwrap();
    assert_eq!(judge(&bytes), Err(Error::Refused("contains internal snapshots")));
}

#[test]
fn dirty_corrupt_and_unknown_incompatible_bits_are_refused() {
    let good = image(&["disk", "1M"]);
    for bit in (0..64).filter(|bit| *bit != 3 && *bit != 4) {
        let bent = with(good.clone(), 72, &(1_u64 << bit).to_be_bytes());
        assert!(matches!(judge(&bent), Err(Error::Refused(_))), "bit {bit}");
    }
}

#[test]
fn huge_tables_are_refused_whatever_they_claim_to_serve() {
    let good = image(&["disk", "1M"]);
    let huge_l1 = with(good.clone(), 36, &u32::MAX.to_be_bytes());
    let l1_beyond_need = with(good.clone(), 36, &(1_u32 << 20).to_be_bytes());
    let huge_refcounts = with(good.clone(), 56, &u32::MAX.to_be_bytes());
    for bent in [huge_l1, l1_beyond_need, huge_refcounts] {
        assert!(matches!(judge(&bent), Err(Error::Refused(_))));
    }
    for size in [0, u64::MAX, 1 << 62] {
        assert!(judge(&with(good.clone(), 24, &size.to_be_bytes())).is_err(), "virtual size {size}");
    }
}

#[test]
fn tables_beyond_the_end_or_off_their_cluster_are_refused() {
    let good = image(&["disk", "1M"]);
    for at in [40, 48] {
        for offset in [0, 8, 65_537, 1 << 40, u64::MAX - 65_535] {
            let bent = with(good.clone(), at, &u64::to_be_bytes(offset));
            assert!(matches!(judge(&bent), Err(Error::Malformed(_))), "offset {offset} at {at}");
        }
    }
    assert!(matches!(judge(&good[..100]), Err(Error::Malformed(_))), "truncated");
}

#[test]
fn extensions_cannot_hide_a_data_file_behind_the_window() {
    let mut bytes = image(&["-o", "cluster_size=2M", "disk", "1M"]);
    let filler = u32::try_from(WINDOW - 112 - 8).unwrap();
    bytes[112..116].copy_from_slice(&0x1234_u32.to_be_bytes());
    bytes[116..120].copy_from_slice(&filler.to_be_bytes());
    bytes[WINDOW..WINDOW + 4].copy_from_slice(&EXTENSION_DATA_FILE.to_be_bytes());
    assert!(judge(&bytes).is_err());
}

#[test]
fn any_single_byte_of_a_good_header_may_be_wrong_without_a_panic() {
    let good = image(&["disk", "1M"]);
    for at in 0..600 {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let _ = judge(&with(good.clone(), at, &[value]));
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_check_panic(
        tail in proptest::collection::vec(any::<u8>(), 0..400),
        file_bytes in any::<u64>(),
        version in 0_u32..5,
        cluster_bits in 0_u32..70,
    ) {
        let mut bytes = [&MAGIC[..], &version.to_be_bytes(), &tail].concat();
        if let Some(field) = bytes.get_mut(20..24) {
            field.copy_from_slice(&cluster_bits.to_be_bytes());
        }
        let _ = check(&bytes, file_bytes, Backing::Refused);
        let _ = check(&bytes, file_bytes, Backing::Expected);
        let _ = check(&tail, file_bytes, Backing::Refused);
    }
}
