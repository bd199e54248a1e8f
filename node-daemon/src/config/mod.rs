//! The daemon's configuration: one commented YAML file (`node-daemon/node.yaml` is its manual).
//!
//! Every value is checked while it is read, so that a wrong one stops the start with its key and a sentence, and nobody
//! asks again. An unknown key stops the start as well: a misspelt safeguard must not pass for a set one.

mod guest_uids;
mod networks;
mod values;

use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_api::offer::NetworkOffer;
use serde::Deserialize;

pub(crate) use guest_uids::GuestUids;
pub(crate) use networks::{Bridge, Pool};
pub(crate) use values::{Network, NodeName, Seconds, Size};

/// Exit code of a configuration error (`EX_CONFIG` of sysexits.h): the unit does not restart on it.
pub(crate) const EXIT_CONFIG: u8 = 78;

/// Why the daemon does not start with this file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The file cannot be read at all.
    #[error("could not read the configuration file {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// A key is unknown, missing or has a value that cannot be; the sentence names it.
    #[error("configuration file {}: {reason}", path.display())]
    Refused { path: PathBuf, reason: String },
}

/// Everything a site may decide about a node. Read once, passed by value: there is no global.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Config {
    /// Name the node enrols under.
    pub(crate) node_name: NodeName,
    /// Server, CA and install credential; the node keeps it for renewals.
    #[serde(default = "default_kubeconfig")]
    pub(crate) kubeconfig: PathBuf,
    /// Everything the daemon writes lies below it.
    #[serde(default = "default_state_dir")]
    pub(crate) state_dir: PathBuf,
    /// Connection string of the hypervisor.
    #[serde(default = "default_libvirt_uri")]
    pub(crate) libvirt_uri: String,
    /// What executes guests.
    #[serde(default)]
    pub(crate) accelerator: Accelerator,
    /// QEMU program the accelerator is proved with.
    #[serde(default = "default_emulator")]
    pub(crate) emulator: PathBuf,
    /// A key in a file; without it the daemon does not start, because no other key store exists yet.
    pub(crate) insecure_dev: Option<InsecureDev>,
    /// What image sources the node accepts.
    #[serde(default)]
    pub(crate) image_sources: ImageSources,
    /// What the image cache may take.
    #[serde(default)]
    pub(crate) image_cache: ImageCache,
    /// Subnets of NAT and isolated networks that name none.
    #[serde(default)]
    pub(crate) network_pool: Pool,
    /// Further networks that subnets may lie in where an object names one.
    #[serde(default)]
    pub(crate) subnet_pools: Vec<Pool>,
    /// Bridges of the host that guests may be ports of.
    #[serde(default)]
    pub(crate) bridges: Vec<Bridge>,
    /// Whom guests' QEMU runs as.
    #[serde(default)]
    pub(crate) guest_uids: GuestUids,
    /// What the host keeps for itself.
    #[serde(default)]
    pub(crate) reserved: Reserved,
    /// Virtual disk bytes that one real byte may be promised to.
    #[serde(default = "default_disk_factor")]
    pub(crate) disk_factor: f64,
    /// The log on standard error.
    #[serde(default)]
    pub(crate) log: Log,
}

impl Config {
    /// The networks that guests may have.
    pub(crate) fn networks(&self) -> NetworkOffer {
        networks::offer(self.network_pool, &self.subnet_pools, &self.bridges)
    }
}

/// What executes guests; a matter of configuration, never of a silent fallback.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Accelerator {
    /// The processor itself, proved at start.
    #[default]
    Kvm,
    /// Emulation: slow, for development and tests.
    Tcg,
}

impl Accelerator {
    /// The word of the configuration, of `-accel` and of the node's status.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// Development only: the identity key lies in a file that can be copied.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct InsecureDev {
    /// Folder of the key and the certificate, mode 0700.
    pub(crate) key_dir: PathBuf,
}

/// What image sources the node accepts.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ImageSources {
    /// Whether http may reach loopback addresses.
    pub(crate) allow_loopback: bool,
    /// Whether http may reach link-local addresses.
    pub(crate) allow_link_local: bool,
    /// Networks that http may reach beyond what it may by itself.
    pub(crate) allow: Vec<Network>,
    /// Networks that http may not reach.
    pub(crate) deny: Vec<Network>,
    /// Folders `file` sources must lie below; none by default.
    pub(crate) file_roots: Vec<PathBuf>,
    /// Largest image file.
    pub(crate) max_size: Size,
    /// How long a download may bring no byte.
    pub(crate) stall_timeout_seconds: Seconds,
}

impl ImageSources {
    /// How long a download may bring no byte.
    pub(crate) fn stall_timeout(&self) -> Duration {
        self.stall_timeout_seconds.duration()
    }
}

impl Default for ImageSources {
    fn default() -> Self {
        Self {
            allow_loopback: false,
            allow_link_local: false,
            allow: Vec::new(),
            deny: Vec::new(),
            file_roots: Vec::new(),
            max_size: Size::gib(64),
            stall_timeout_seconds: Seconds::of(60),
        }
    }
}

/// What the image cache may take.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ImageCache {
    /// All images together.
    budget: Option<Size>,
    /// Of that the images that one namespace needs, in percent.
    pub(crate) namespace_percent: u8,
}

impl ImageCache {
    /// Bytes that all images together may take where so many are free or ours.
    pub(crate) fn budget(&self, available: u64) -> u64 {
        // More than 64 GiB of images few sites have; a quarter leaves most of a small disk to the guests.
        self.budget.map_or((available / 4).min(64 << 30), Size::bytes)
    }
}

impl Default for ImageCache {
    fn default() -> Self {
        Self { budget: None, namespace_percent: 50 }
    }
}

/// What the host keeps for itself; the rest is the node's capacity.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Reserved {
    /// Memory of the host, libvirt and this daemon.
    pub(crate) memory: Size,
    /// Disk space that stays free, for logs and the host.
    pub(crate) storage: Size,
}

impl Default for Reserved {
    fn default() -> Self {
        Self { memory: Size::mib(512), storage: Size::gib(4) }
    }
}

/// The log on standard error; journald keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Log {
    /// How a line looks.
    pub(crate) format: LogFormat,
    /// What is worth a line.
    pub(crate) level: LogLevel,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// What is worth a line of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogLevel {
    /// Somebody must act.
    Error,
    /// Degraded, recovers alone.
    Warn,
    /// What an operator wants to know in a month.
    #[default]
    Info,
    /// Our own diagnosis.
    Debug,
}

fn default_kubeconfig() -> PathBuf {
    "/etc/holdfast/kubeconfig".into()
}

fn default_state_dir() -> PathBuf {
    "/var/lib/holdfast".into()
}

fn default_libvirt_uri() -> String {
    "qemu:///system".to_owned()
}

/// QEMU as the distribution installs it for this processor.
pub(crate) fn default_emulator() -> PathBuf {
    format!("/usr/bin/qemu-system-{}", std::env::consts::ARCH).into()
}

fn default_disk_factor() -> f64 {
    1.0
}

/// Reads and checks the file.
pub(crate) fn load(path: &Path) -> Result<Config, Error> {
    let text =
        std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let refused = |reason| Error::Refused { path: path.to_owned(), reason };
    let config = parse(&text).map_err(refused)?;
    unshared(config.guest_uids).map_err(refused)?;
    Ok(config)
}

/// A host without one of the files has nobody in it.
fn unshared(uids: GuestUids) -> Result<(), String> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    match uids.clash(&read("/etc/passwd"), &read("/etc/subuid")) {
        None => Ok(()),
        Some(other) => Err(format!("guestUids overlaps {other}: write a range that nobody else uses")),
    }
}

pub(crate) fn parse(text: &str) -> Result<Config, String> {
    // A file of comments alone is a configuration without keys, and is told so.
    let empty = text.lines().all(|line| line.trim_start().is_empty() || line.trim_start().starts_with('#'));
    let text = if empty { "{}" } else { text };
    let config: Config = serde_saphyr::from_str(text).map_err(|error| error.without_snippet().to_string())?;
    check(&config)?;
    Ok(config)
}

/// What one value alone cannot show.
fn check(config: &Config) -> Result<(), String> {
    if config.insecure_dev.is_none() {
        return Err(
            "the key insecureDev is missing: this release keeps the node's key in a file, which is for \
                    development only, so say so with insecureDev: {keyDir: /var/lib/holdfast/keys}"
                .to_owned(),
        );
    }
    if !(1.0..=100.0).contains(&config.disk_factor) {
        return Err(format!("diskFactor is {}: write a number from 1 to 100", config.disk_factor));
    }
    if !(1..=100).contains(&config.image_cache.namespace_percent) {
        let percent = config.image_cache.namespace_percent;
        return Err(format!("imageCache.namespacePercent is {percent}: write a whole number from 1 to 100"));
    }
    if config.libvirt_uri.is_empty() || config.libvirt_uri.contains(char::is_control) {
        return Err("libvirtUri is not a connection string: write one such as qemu:///system".to_owned());
    }
    networks::check(&config.subnet_pools, &config.bridges)?;
    absolute_paths(config)
}

fn absolute_paths(config: &Config) -> Result<(), String> {
    let key_dir = config.insecure_dev.iter().map(|dev| ("insecureDev.keyDir", &dev.key_dir));
    let roots = config.image_sources.file_roots.iter().map(|root| ("imageSources.fileRoots", root));
    let relative =
        [("kubeconfig", &config.kubeconfig), ("stateDir", &config.state_dir), ("emulator", &config.emulator)]
            .into_iter()
            .chain(key_dir)
            .chain(roots)
            .find(|(_, path)| !path.is_absolute());
    match relative {
        Some((key, path)) => Err(format!("{key} is {}: write an absolute path", path.display())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
