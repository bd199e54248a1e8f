//! What the host has and what runs on it: read once at start, since nothing of it moves while the daemon runs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use holdfast_api::Quantity;
use holdfast_api::node::Capacity;
use holdfast_api::offer::NetworkOffer;
use nix::sys::statvfs::statvfs;
use nix::sys::utsname::uname;

use crate::config::{Config, Reserved};

/// Why a fact could not be read.
#[derive(Debug, thiserror::Error)]
#[error("could not read {what} from {}", path.display())]
pub(crate) struct Error {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// What does not change while the daemon runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// What virtual machines may be given, the host's own share taken off.
    pub(crate) capacity: Capacity,
    /// Kernel release.
    pub(crate) kernel: String,
    /// What guests may be connected to.
    pub(crate) networks: NetworkOffer,
}

/// Reads the facts of this host.
pub(crate) fn read(config: &Config) -> Result<Facts, Error> {
    let memory = read_file("/proc/meminfo", "the memory", memory_bytes)?;
    let cpu = read_file("/sys/devices/system/cpu/online", "the processors", cpu_count)?;
    let storage = filesystem_bytes(&config.state_dir)?;
    Ok(Facts {
        capacity: capacity(cpu, memory, storage, &config.reserved, config.disk_factor),
        kernel: uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default(),
        networks: config.networks(),
    })
}

/// Sizes in bytes. Rounded down to whole MiB: what cannot be used is not promised.
fn capacity(cpu: i32, memory: u64, storage: u64, reserved: &Reserved, disk_factor: f64) -> Capacity {
    let memory = memory.saturating_sub(reserved.memory.bytes());
    let storage = storage.saturating_sub(reserved.storage.bytes());
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let promised = (storage as f64 * disk_factor) as u64;
    Capacity { cpu, memory: whole_mib(memory), storage: whole_mib(promised) }
}

fn whole_mib(bytes: u64) -> Quantity {
    Quantity::from_bytes(bytes >> 20 << 20)
}

fn read_file<T>(path: &str, what: &'static str, parse: fn(&str) -> Option<T>) -> Result<T, Error> {
    let failed = |source| Error { what, path: path.into(), source };
    let text = fs::read_to_string(path).map_err(failed)?;
    parse(&text).ok_or_else(|| failed(io::Error::from(io::ErrorKind::InvalidData)))
}

fn filesystem_bytes(path: &Path) -> Result<u64, Error> {
    let found = statvfs(path).map_err(|errno| Error {
        what: "the size of the filesystem",
        path: path.to_owned(),
        source: errno.into(),
    })?;
    Ok(found.blocks().saturating_mul(found.fragment_size()))
}

/// `MemTotal` of `/proc/meminfo`, which counts in KiB.
fn memory_bytes(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The length of a list of ranges such as `0-3,6`.
fn cpu_count(text: &str) -> Option<i32> {
    text.trim().split(',').map(range_length).sum()
}

fn range_length(range: &str) -> Option<i32> {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last): (i32, i32) = (first.parse().ok()?, last.parse().ok()?);
    last.checked_sub(first)?.checked_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_counted_in_ranges() {
        assert_eq!(cpu_count("0-3,6\n"), Some(5));
        assert_eq!(cpu_count("0\n"), Some(1));
        assert_eq!(cpu_count("banana"), None);
    }

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(memory_bytes("MemFree: 1 kB\n"), None);
        assert_eq!(memory_bytes("MemTotal:       8000 kB\nMemFree: 1 kB\n"), Some(8000 * 1024));
    }

    #[test]
    fn the_hosts_share_is_taken_off_and_never_more_than_there_is() {
        let reserved = Reserved::default();
        let big = capacity(4, 8 << 30, 100 << 30, &reserved, 2.0);
        assert_eq!((big.memory.0.as_str(), big.storage.0.as_str()), ("7680Mi", "192Gi"));
        let small = capacity(1, 1 << 20, 1 << 20, &reserved, 1.0);
        assert_eq!((small.memory.0.as_str(), small.storage.0.as_str()), ("0Mi", "0Mi"));
    }
}
