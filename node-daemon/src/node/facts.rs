//! What the host has and what runs on it. Its size is measured again and again: memory and processors are added to a running
//! host, a filesystem grows, and others fill it.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use holdfast_api::Quantity;
use holdfast_api::node::Capacity;
use holdfast_api::offer::NetworkOffer;
use nix::sys::utsname::uname;
use tokio::sync::watch;
use tracing::{debug, info};

use crate::config::Config;
use crate::storage::{self, Place, Usage};

/// Between two measurements; each reads two small files and what is said of the files of the state folder.
const MEASURE: Duration = Duration::from_secs(60);
/// A change of the disk by less than this part of it is not told: logs and downloads move it all the time.
const TELLING: u64 = 32;

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
    /// Kernel release.
    pub(crate) kernel: String,
    /// What guests may be connected to.
    pub(crate) networks: NetworkOffer,
}

/// Reads the facts of this host.
pub(crate) fn read(config: &Config) -> Facts {
    Facts {
        kernel: uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default(),
        networks: config.networks(),
    }
}

/// What virtual machines may be given now, the host's own share taken off.
pub(crate) fn measure(config: &Config) -> Result<Capacity, Error> {
    let memory = read_file("/proc/meminfo", "the memory", memory_bytes)?;
    let cpu = read_file("/sys/devices/system/cpu/online", "the processors", cpu_count)?;
    let usage = storage::usage(&config.state_dir).map_err(|source| Error {
        what: "the free space",
        path: config.state_dir.clone(),
        source,
    })?;
    let memory = memory.saturating_sub(config.reserved.memory.bytes());
    Ok(Capacity { cpu, memory: whole_mib(memory), storage: whole_mib(promisable(usage, config)) })
}

/// Measures until nobody listens any more, and tells what is news. On threads for what blocks: a disk may not answer.
pub(crate) async fn keep_measuring(config: Config, capacity: watch::Sender<Capacity>) {
    loop {
        tokio::time::sleep(MEASURE).await;
        let config = config.clone();
        match tokio::task::spawn_blocking(move || measure(&config)).await {
            Ok(Ok(found)) => tell(&capacity, found),
            Ok(Err(error)) => debug!(%error, "the host was not measured; what was seen last stands"),
            Err(error) => debug!(%error, "the host was not measured; what was seen last stands"),
        }
    }
}

fn tell(capacity: &watch::Sender<Capacity>, found: Capacity) {
    capacity.send_if_modified(|told| {
        let news = is_news(told, &found);
        if news {
            info!(cpu = found.cpu, memory = %found.memory.0, storage = %found.storage.0, "the host has another size");
            *told = found;
        }
        news
    });
}

fn is_news(told: &Capacity, found: &Capacity) -> bool {
    let (before, now) = (told.storage.bytes().unwrap_or(0), found.storage.bytes().unwrap_or(0));
    told.cpu != found.cpu || told.memory != found.memory || before.abs_diff(now) > before / TELLING
}

/// Disk bytes that may be promised to virtual machines: what is free or theirs already, less what the host keeps and the
/// images may take. What others have put onto the filesystem is nobody's to promise.
fn promisable(usage: Usage, config: &Config) -> u64 {
    let images = match usage.images {
        Place::Together => config.image_cache.budget(usage.for_images()),
        Place::Apart(_) => 0,
    };
    let kept = config.reserved.storage.bytes().saturating_add(images);
    let left = usage.free.saturating_add(usage.ours).saturating_sub(kept);
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let promised = (left as f64 * config.disk_factor) as u64;
    promised
}

/// Rounded down to whole MiB: what cannot be used is not promised.
fn whole_mib(bytes: u64) -> Quantity {
    Quantity::from_bytes(bytes >> 20 << 20)
}

fn read_file<T>(path: &str, what: &'static str, parse: fn(&str) -> Option<T>) -> Result<T, Error> {
    let failed = |source| Error { what, path: path.into(), source };
    let text = fs::read_to_string(path).map_err(failed)?;
    parse(&text).ok_or_else(|| failed(io::Error::from(io::ErrorKind::InvalidData)))
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
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};

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

    fn configured(lines: &str) -> Config {
        crate::config::parse(&format!("nodeName: edge-1\ninsecureDev: {{keyDir: /keys}}\n{lines}")).unwrap()
    }

    #[test]
    fn capacity_counts_what_is_free_plus_what_is_ours_and_not_the_whole_filesystem() {
        let config = configured("imageCache: {budget: 10Gi}");
        // 30 of the 100 GiB are neither free nor ours.
        let usage = Usage { free: 50 << 30, ours: 20 << 30, images: Place::Together };
        assert_eq!(promisable(usage, &config) >> 30, 70 - 4 - 10);
        let apart = Usage { images: Place::Apart(100 << 30), ..usage };
        assert_eq!(promisable(apart, &config) >> 30, 70 - 4);
        let twice = configured("imageCache: {budget: 10Gi}\ndiskFactor: 2");
        assert_eq!(promisable(usage, &twice) >> 30, 2 * (70 - 4 - 10));
    }

    #[test]
    fn the_hosts_share_is_taken_off_and_never_more_than_there_is() {
        let usage = Usage { free: 1 << 20, ours: 1 << 20, images: Place::Together };
        assert_eq!(promisable(usage, &configured("")), 0);
    }

    /// On a filesystem of the test's own, in a mount namespace that nobody else sees.
    #[test]
    fn capacity_is_measured_again_when_others_fill_the_disk_and_when_it_grows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let alone = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).expect("peer missing: root, for mounts");
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
            let sized = |flags, size| mount(Some("small"), &path, Some("tmpfs"), flags, Some(size)).unwrap();
            sized(MsFlags::empty(), "size=64m");
            let lines = "reserved: {storage: 1Mi}\nimageCache: {budget: 1Mi}";
            let config = Config { state_dir: path.clone(), ..configured(lines) };
            let storage = || measure(&config).unwrap().storage.bytes().unwrap() >> 20;
            assert_eq!(storage(), 62);
            fs::create_dir_all(path.join("vms/one")).unwrap();
            fs::write(path.join("vms/one/disk-root.raw"), vec![1; 8 << 20]).unwrap();
            assert!((61..=62).contains(&storage()), "what is ours is not taken off");
            fs::write(path.join("backup.tar"), vec![1; 16 << 20]).unwrap();
            assert!((45..=46).contains(&storage()));
            sized(MsFlags::MS_REMOUNT, "size=128m");
            assert!((109..=110).contains(&storage()));
        });
        alone.join().unwrap();
    }

    #[test]
    fn what_moves_all_the_time_is_no_news() {
        let size = |cpu, memory: u64, storage: u64| Capacity {
            cpu,
            memory: Quantity::from_bytes(memory << 30),
            storage: Quantity::from_bytes(storage << 30),
        };
        let told = watch::Sender::new(size(4, 8, 320));
        let mut heard = told.subscribe();
        tell(&told, size(4, 8, 310));
        assert!(!heard.has_changed().unwrap());
        for news in [size(4, 8, 309), size(4, 16, 309), size(8, 16, 309), size(8, 16, 0), size(8, 16, 1)] {
            tell(&told, news.clone());
            assert!(heard.has_changed().unwrap());
            assert_eq!(*heard.borrow_and_update(), news);
        }
    }
}
