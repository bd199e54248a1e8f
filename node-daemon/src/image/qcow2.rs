//! The qcow2 header, read by us before any QEMU tool sees the file (F14, S6).
//!
//! A qcow2 file can name other files (backing file, external data file), and QEMU would open them with its own
//! rights. So this check accepts only images that stand alone, in versions and with features we know. It reads
//! the first [`WINDOW`] bytes, allocates nothing whose size the file chooses, and never follows a table.
//!
//! The layout is that of QEMU's `docs/interop/qcow2.txt`; all integers are big-endian.

/// How much of a file's beginning the checks look at. QEMU wants header and extensions within one cluster; real
/// headers need under 1 KiB.
pub(crate) const WINDOW: usize = 64 * 1024;

/// First bytes of every qcow2 file.
pub(crate) const MAGIC: [u8; 4] = *b"QFI\xfb";

/// QEMU's own bound for the L1 table (`QCOW_MAX_L1_SIZE`); it holds 2 PiB at the usual cluster size.
const MAX_L1_BYTES: u64 = 32 << 20;
/// QEMU's own bound for the refcount table (`QCOW_MAX_REFTABLE_SIZE`).
const MAX_REFCOUNT_TABLE_BYTES: u64 = 8 << 20;
/// An L1 table may be a little larger than the disk needs (growth, shrinking); this many entries are 64 KiB.
const L1_SLACK_ENTRIES: u64 = 8192;

const DIRTY: u64 = 1 << 0;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;
const COMPRESSION_TYPE: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;

const EXTENSION_END: u32 = 0;
const EXTENSION_DATA_FILE: u32 = 0x4441_5441;
const EXTENSION_ENCRYPTION: u32 = 0x0537_be77;

/// Whether a file may stand on another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backing {
    /// An image from outside: it has to stand alone.
    Refused,
    /// One of our overlays: it stands on its image by design.
    Expected,
}

/// Why a file is not a qcow2 image we accept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// Not qcow2 at all, cut off, or with fields that contradict each other.
    #[error("it is not a sound qcow2 image: {0}")]
    Malformed(&'static str),
    /// Well-formed, but made to reach other files or to exhaust whoever opens it.
    #[error(
        "it is a qcow2 image that {0}; convert it with `qemu-img convert -O qcow2` and publish the result"
    )]
    Refused(&'static str),
}

/// Checks the header of a qcow2 file and returns its virtual size in bytes.
///
/// `start` is the beginning of the file (up to [`WINDOW`] bytes), `file_bytes` its full length. Pure.
pub(crate) fn check(start: &[u8], file_bytes: u64, backing: Backing) -> Result<u64, Error> {
    let header = Header::read(start).ok_or(Error::Malformed("its header is cut off"))?;
    header.check_identity()?;
    header.check_features()?;
    if backing == Backing::Refused {
        header.check_alone()?;
    }
    header.check_sizes(file_bytes)?;
    check_extensions(start, &header)?;
    Ok(header.virtual_size)
}

/// The name of the file that a qcow2 file stands on, as its header gives it.
pub(crate) fn backing_file(start: &[u8]) -> Option<&[u8]> {
    let header = Header::read(start).filter(|header| header.magic == MAGIC && header.backing_offset > 0)?;
    let from = usize::try_from(header.backing_offset).ok()?;
    start.get(from..from.checked_add(header.backing_bytes as usize)?)
}

/// The fields of the header that a decision needs.
struct Header {
    magic: [u8; 4],
    version: u32,
    backing_offset: u64,
    backing_bytes: u32,
    cluster_bits: u32,
    virtual_size: u64,
    encryption: u32,
    l1_entries: u32,
    l1_offset: u64,
    refcount_offset: u64,
    refcount_clusters: u32,
    snapshots: u32,
    incompatible: u64,
    refcount_order: u32,
    length: u32,
}

impl Header {
    /// Version 2 ends after 72 bytes; what version 3 added has fixed meanings there.
    fn read(start: &[u8]) -> Option<Self> {
        let version = u32_at(start, 4)?;
        let newer = version >= 3;
        Some(Self {
            magic: start.get(..4)?.try_into().ok()?,
            version,
            backing_offset: u64_at(start, 8)?,
            backing_bytes: u32_at(start, 16)?,
            cluster_bits: u32_at(start, 20)?,
            virtual_size: u64_at(start, 24)?,
            encryption: u32_at(start, 32)?,
            l1_entries: u32_at(start, 36)?,
            l1_offset: u64_at(start, 40)?,
            refcount_offset: u64_at(start, 48)?,
            refcount_clusters: u32_at(start, 56)?,
            snapshots: u32_at(start, 60)?,
            incompatible: if newer { u64_at(start, 72)? } else { 0 },
            refcount_order: if newer { u32_at(start, 96)? } else { 4 },
            length: if newer { u32_at(start, 100)? } else { 72 },
        })
    }

    fn check_identity(&self) -> Result<(), Error> {
        if self.magic != MAGIC {
            return Err(Error::Malformed("it does not begin with the qcow2 magic"));
        }
        if !(2..=3).contains(&self.version) {
            return Err(Error::Malformed("its version is neither 2 nor 3"));
        }
        if !(9..=21).contains(&self.cluster_bits) {
            return Err(Error::Malformed("its cluster size is outside 512 bytes to 2 MiB"));
        }
        let least = if self.version == 2 { 72 } else { 104 };
        let header_bytes = u64::from(self.length);
        if !(least..=self.cluster_bytes()).contains(&header_bytes) || !header_bytes.is_multiple_of(8) {
            return Err(Error::Malformed("its header length is impossible"));
        }
        Ok(())
    }

    fn check_features(&self) -> Result<(), Error> {
        let refusal = match self.incompatible {
            bits if bits & EXTERNAL_DATA != 0 => "keeps its data in another file",
            bits if bits & CORRUPT != 0 => "is marked as corrupt",
            bits if bits & DIRTY != 0 => "was not closed cleanly",
            bits if bits & !(COMPRESSION_TYPE | EXTENDED_L2) != 0 => "needs features this node does not know",
            _ if self.encryption != 0 => "is encrypted",
            _ if self.snapshots != 0 => "contains internal snapshots",
            _ => return Ok(()),
        };
        Err(Error::Refused(refusal))
    }

    fn check_alone(&self) -> Result<(), Error> {
        if self.backing_offset != 0 || self.backing_bytes != 0 {
            return Err(Error::Refused("stands on a backing file"));
        }
        Ok(())
    }

    fn check_sizes(&self, file_bytes: u64) -> Result<(), Error> {
        if self.virtual_size == 0 || self.virtual_size > i64::MAX as u64 {
            return Err(Error::Malformed("its virtual size is impossible"));
        }
        if self.refcount_order > 6 {
            return Err(Error::Malformed("its refcount width is impossible"));
        }
        let needed = self.virtual_size.div_ceil(self.bytes_per_l1_entry());
        let entries = u64::from(self.l1_entries);
        if entries < needed {
            return Err(Error::Malformed("its L1 table is too small for its virtual size"));
        }
        if entries * 8 > MAX_L1_BYTES || entries > needed.saturating_mul(2) + L1_SLACK_ENTRIES {
            return Err(Error::Refused("has an L1 table far larger than its virtual size needs"));
        }
        let refcounts = u64::from(self.refcount_clusters) * self.cluster_bytes();
        if refcounts > MAX_REFCOUNT_TABLE_BYTES.max(self.cluster_bytes()) {
            return Err(Error::Refused("has a refcount table larger than QEMU accepts"));
        }
        self.check_table(self.l1_offset, entries * 8, file_bytes)?;
        self.check_table(self.refcount_offset, refcounts.max(1), file_bytes)
    }

    /// A table starts on a cluster after the header and ends within the file.
    fn check_table(&self, offset: u64, bytes: u64, file_bytes: u64) -> Result<(), Error> {
        let end = offset.checked_add(bytes);
        if offset < self.cluster_bytes() || !offset.is_multiple_of(self.cluster_bytes()) {
            return Err(Error::Malformed("one of its tables does not lie on a cluster"));
        }
        if end.is_none_or(|end| end > file_bytes) {
            return Err(Error::Malformed("one of its tables lies beyond the end of the file"));
        }
        Ok(())
    }

    fn cluster_bytes(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Guest bytes behind one L1 entry: one L2 table of one cluster, whose entries have 8 bytes, or 16 with
    /// subclusters.
    fn bytes_per_l1_entry(&self) -> u64 {
        let entry_bytes = if self.incompatible & EXTENDED_L2 != 0 { 16 } else { 8 };
        self.cluster_bytes() / entry_bytes * self.cluster_bytes()
    }
}

/// Walks the header extensions: type and length, then that many bytes, padded to 8; type 0 ends the list.
fn check_extensions(start: &[u8], header: &Header) -> Result<(), Error> {
    let area_end = extension_area_end(header);
    let end = area_end.min(start.len());
    let mut at = header.length as usize;
    // A version 2 file may stop without an end marker, as may a file whose backing name follows at once.
    while at + 8 <= end {
        let (Some(kind), Some(bytes)) = (u32_at(start, at), u32_at(start, at + 4)) else {
            break;
        };
        match kind {
            EXTENSION_END => return Ok(()),
            EXTENSION_DATA_FILE => return Err(Error::Refused("names a file that keeps its data")),
            EXTENSION_ENCRYPTION => return Err(Error::Refused("is encrypted")),
            _ => at = at.saturating_add(8 + (bytes as usize).next_multiple_of(8)),
        }
        if at > end {
            return Err(Error::Malformed("a header extension is longer than the header"));
        }
    }
    if end < area_end && at + 8 > WINDOW {
        return Err(Error::Refused("has more header extensions than any tool writes"));
    }
    Ok(())
}

/// QEMU reads extensions up to the backing file's name, else up to the end of the first cluster.
fn extension_area_end(header: &Header) -> usize {
    let end = match header.backing_offset {
        0 => header.cluster_bytes(),
        offset => offset.min(header.cluster_bytes()),
    };
    usize::try_from(end).unwrap_or(usize::MAX)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
#[path = "qcow2_tests.rs"]
mod tests;
