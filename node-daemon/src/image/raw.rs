//! A raw image has no header, so the danger is the opposite one: bytes that some tool would take for a header.
//!
//! A file declared `raw` that is in truth a qcow2 would be harmless only as long as nobody ever probes it; and a
//! compressed download declared `raw` boots nothing. Both are refused at import, by name. What a guest writes
//! to its own raw disk later is its business: disks are always opened in their recorded format.

/// What a file declared as raw is instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is declared as raw but is in truth {0}")]
pub(crate) struct Disguised(pub(crate) &'static str);

/// Formats told by bytes at a fixed place near the beginning: offset, bytes, what to say.
const SIGNATURES: &[(usize, &[u8], &str)] = &[
    (0, b"QFI\xfb", "a qcow2 image; set spec.format to qcow2"),
    (0, b"QED\0", "a QED image; convert it to qcow2"),
    (0, b"KDMV", "a VMDK image; convert it to qcow2"),
    (0, b"COWD", "a VMDK image; convert it to qcow2"),
    (0, b"# Disk DescriptorFile", "a VMDK descriptor; convert the disk to qcow2"),
    (0, b"vhdxfile", "a VHDX image; convert it to qcow2"),
    (0, b"conectix", "a VHD image; convert it to qcow2"),
    (0x40, b"\x7f\x10\xda\xbe", "a VDI image; convert it to qcow2"),
    (0, b"WithoutFreeSpace", "a Parallels image; convert it to qcow2"),
    (0, b"WithouFreSpacExt", "a Parallels image; convert it to qcow2"),
    (0, b"Bochs Virtual HD Image", "a Bochs image; convert it to qcow2"),
    (0, b"\x1f\x8b\x08", "compressed with gzip; unpack it and use the digest of the result"),
    (0, b"\xfd7zXZ\0", "compressed with xz; unpack it and use the digest of the result"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it and use the digest of the result"),
    (0, b"BZh", "compressed with bzip2; unpack it and use the digest of the result"),
    (0, b"PK\x03\x04", "a zip archive; unpack it and use the digest of the disk image in it"),
    (0, b"<!DOCTYPE", "a web page; check the URL"),
    (0, b"<!doctype", "a web page; check the URL"),
    (0, b"<html", "a web page; check the URL"),
];

/// VDI stores its magic little-endian.
const VDI_LITTLE_ENDIAN: (usize, &[u8], &str) =
    (0x40, b"\xbe\xda\x10\x7f", "a VDI image; convert it to qcow2");

/// Names what the file is when its beginning belongs to another format.
pub(crate) fn recognise(start: &[u8]) -> Option<Disguised> {
    let matches = |(offset, bytes, _): &&(usize, &[u8], &str)| {
        start.get(*offset..).is_some_and(|rest| rest.starts_with(bytes))
    };
    SIGNATURES.iter().chain([&VDI_LITTLE_ENDIAN]).find(matches).map(|(_, _, what)| Disguised(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qcow2_declared_as_raw_is_recognised() {
        assert!(recognise(b"QFI\xfb\0\0\0\x03").is_some_and(|found| found.0.contains("qcow2")));
    }

    #[test]
    fn a_boot_sector_and_short_files_are_plain_raw() {
        let mut disk = vec![0_u8; 512];
        disk[510..].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(recognise(&disk), None);
        assert_eq!(recognise(b""), None);
        assert_eq!(recognise(b"QFI"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = recognise(&bytes);
        }
    }
}
