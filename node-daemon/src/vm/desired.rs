//! What a virtual machine shall be: the only way from an object's spec to a plan.
//!
//! `Desired::new` trusts neither the schema nor the admission policies (an older CRD, another API server, a spec read
//! back from a domain's metadata). After it nobody reads the object's spec again.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use holdfast_api::VirtualMachine;
use holdfast_api::address;
use holdfast_api::bounds::LISTED_ADDRESSES;
use holdfast_api::virtual_machine::{self as api, Firmware, RunStrategy, VirtualMachineSpec};
use kube::ResourceExt;
use uuid::Uuid;

use super::mac::Mac;
use super::record::Record;
use crate::image::Digest;

/// Who a virtual machine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// UID of the object and UUID of the domain.
    pub(crate) uid: Uuid,
    /// Namespace of the object.
    pub(crate) namespace: String,
    /// Name of the object.
    pub(crate) name: String,
}

/// A spec that was judged good.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Desired {
    identity: Identity,
    generation: i64,
    spec: VirtualMachineSpec,
    memory_mib: u64,
    disks: Vec<Disk>,
    interfaces: Vec<Interface>,
}

/// A disk with its size in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disk {
    /// Name and serial.
    pub(crate) name: String,
    /// Size the guest shall see, in bytes.
    pub(crate) bytes: u64,
    /// What it starts as.
    pub(crate) source: Source,
}

/// What a disk starts as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// An image of the namespace; the digest is pinned once a node was chosen.
    Image {
        /// Name of the image object.
        name: String,
        /// Digest pinned by the controller or an earlier start.
        digest: Option<Digest>,
    },
    /// Empty.
    Blank,
}

/// An interface with its hardware address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    /// Name within the virtual machine.
    pub(crate) name: String,
    /// Name of the network object.
    pub(crate) network: String,
    /// Given, or derived from UID and name.
    pub(crate) mac: Mac,
    /// What the guest uses besides what it is leased; the only ones it may use on a bridge, once there is any.
    pub(crate) addresses: Vec<IpAddr>,
}

/// Why a spec was refused: one sentence that names the field, what is wrong and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(pub(crate) String);

const MAX_TEXT: usize = 32 * 1024;

impl TryFrom<&VirtualMachine> for Desired {
    type Error = Refused;

    fn try_from(vm: &VirtualMachine) -> Result<Self, Refused> {
        let pinned = vm.status.iter().flat_map(|status| &status.disks);
        let pinned =
            pinned.filter_map(|disk| Some((disk.name.clone(), disk.image_digest.parse().ok()?))).collect();
        Self::new(identity(vm)?, vm.metadata.generation.unwrap_or(0), &vm.spec, &pinned)
    }
}

/// The identity of an object; only an object without a UID has none.
pub(crate) fn identity(vm: &VirtualMachine) -> Result<Identity, Refused> {
    let uid =
        vm.uid().and_then(|uid| uid.parse().ok()).ok_or_else(|| refused("metadata.uid is not a UUID"))?;
    Ok(Identity { uid, namespace: vm.namespace().unwrap_or_default(), name: vm.name_any() })
}

impl Desired {
    /// The wanted state that a domain's metadata remembers.
    pub(crate) fn from_record(uid: Uuid, record: &Record) -> Result<Self, Refused> {
        Self::new(recorded(uid, record), record.generation, &record.spec, &pinned(record))
    }

    /// What the guest was last started with, or is about to be; of cloud-init nothing.
    pub(crate) fn applied(uid: Uuid, record: &Record) -> Result<Self, Refused> {
        let Some(applied) = &record.applied else { return Self::from_record(uid, record) };
        Self::new(recorded(uid, record), applied.generation, &applied.spec, &pinned(record))
    }

    /// The same with another size.
    pub(crate) fn sized(&self, cpu: i32, memory: &holdfast_api::Quantity) -> Result<Self, Refused> {
        let spec = VirtualMachineSpec { cpu, memory: memory.clone(), ..self.spec.clone() };
        let bytes = memory.bytes().map_err(|error| refused(format!("spec.memory: {error}")))?;
        check(&spec, bytes)?;
        Ok(Self { spec, memory_mib: bytes >> 20, ..self.clone() })
    }

    fn new(
        identity: Identity,
        generation: i64,
        spec: &VirtualMachineSpec,
        pinned: &BTreeMap<String, Digest>,
    ) -> Result<Self, Refused> {
        let memory = spec.memory.bytes().map_err(|error| refused(format!("spec.memory: {error}")))?;
        check(spec, memory)?;
        let disks = spec
            .disks
            .iter()
            .enumerate()
            .map(|(n, disk)| Disk::new(n, disk, pinned))
            .collect::<Result<_, _>>()?;
        let interfaces = spec.interfaces.iter().enumerate();
        let interfaces =
            interfaces.map(|(n, one)| Interface::new(n, one, identity.uid)).collect::<Result<_, _>>()?;
        // Placement was the controller's affair, and its selector has no bound.
        let spec = VirtualMachineSpec { placement: None, ..spec.clone() };
        Ok(Self { identity, generation, spec, memory_mib: memory >> 20, disks, interfaces })
    }

    /// Refuses what may not change under a virtual machine that exists, whatever admission let pass.
    pub(crate) fn follows(&self, old: &VirtualMachineSpec) -> Result<(), Refused> {
        if self.spec.firmware != old.firmware {
            return Err(refused(
                "spec.firmware cannot change: delete the virtual machine and create it again",
            ));
        }
        for (n, (new, disk)) in self.spec.disks.iter().zip(&self.disks).enumerate() {
            let Some(old) = old.disks.iter().find(|old| old.name == new.name) else { continue };
            if new.image != old.image || new.blank != old.blank {
                return Err(refused(format!(
                    "spec.disks[{n}]: the source of a disk cannot change: add a disk with another name"
                )));
            }
            if old.size.bytes().is_ok_and(|bytes| disk.bytes < bytes) {
                return Err(refused(format!(
                    "spec.disks[{n}].size cannot shrink: keep its size, or add a smaller disk with another name"
                )));
            }
        }
        Ok(())
    }

    /// Who it is.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Generation of the spec.
    pub(crate) fn generation(&self) -> i64 {
        self.generation
    }

    /// The judged spec, to be remembered; without the placement.
    pub(crate) fn spec(&self) -> &VirtualMachineSpec {
        &self.spec
    }

    /// Memory of the guest in MiB.
    pub(crate) fn memory_mib(&self) -> u64 {
        self.memory_mib
    }

    /// Virtual processors.
    pub(crate) fn cpu(&self) -> u32 {
        self.spec.cpu.unsigned_abs()
    }

    /// Firmware it boots with.
    pub(crate) fn firmware(&self) -> Firmware {
        self.spec.firmware
    }

    /// Disks in device order.
    pub(crate) fn disks(&self) -> &[Disk] {
        &self.disks
    }

    /// Interfaces in device order.
    pub(crate) fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// When it runs.
    pub(crate) fn run_strategy(&self) -> RunStrategy {
        self.spec.run_strategy
    }

    /// Whether its processors shall be frozen.
    pub(crate) fn paused(&self) -> bool {
        self.spec.paused
    }

    /// Time to power off before it is stopped by force.
    pub(crate) fn grace(&self) -> Duration {
        Duration::from_secs(self.spec.termination_grace_period_seconds.unsigned_abs().into())
    }

    /// What cloud-init is told.
    pub(crate) fn cloud_init(&self) -> &api::CloudInit {
        &self.spec.cloud_init
    }

    /// Hostname the guest is given.
    pub(crate) fn hostname(&self) -> &str {
        let given = &self.spec.cloud_init.hostname;
        if given.is_empty() { &self.identity.name } else { given }
    }
}

fn recorded(uid: Uuid, record: &Record) -> Identity {
    Identity { uid, namespace: record.namespace.clone(), name: record.name.clone() }
}

fn pinned(record: &Record) -> BTreeMap<String, Digest> {
    record.images.iter().map(|(disk, image)| (disk.clone(), image.digest)).collect()
}

impl Disk {
    fn new(n: usize, disk: &api::Disk, pinned: &BTreeMap<String, Digest>) -> Result<Self, Refused> {
        let field = format!("spec.disks[{n}]");
        check_name(&format!("{field}.name"), &disk.name)?;
        let bytes = disk.size.bytes().map_err(|error| refused(format!("{field}.size: {error}")))?;
        if bytes == 0 || bytes > 64 << 40 {
            return Err(refused(format!("{field}.size must be between 1Mi and 64Ti")));
        }
        let source = match (&disk.image, &disk.blank) {
            (Some(image), None) => {
                check_reference(&format!("{field}.image.name"), &image.name)?;
                Source::Image { name: image.name.clone(), digest: pinned.get(&disk.name).copied() }
            }
            (None, Some(api::Blank {})) => Source::Blank,
            _ => return Err(refused(format!("{field} must have exactly one source: image or blank"))),
        };
        Ok(Self { name: disk.name.clone(), bytes, source })
    }
}

impl Interface {
    fn new(n: usize, interface: &api::Interface, uid: Uuid) -> Result<Self, Refused> {
        let field = format!("spec.interfaces[{n}]");
        check_name(&format!("{field}.name"), &interface.name)?;
        check_reference(&format!("{field}.network.name"), &interface.network.name)?;
        let mac = match interface.mac_address.as_str() {
            "" => Mac::derived(uid, &interface.name),
            given => given.parse().map_err(|error| refused(format!("{field}.macAddress: {error}")))?,
        };
        let addresses = addresses(&field, &interface.addresses)?;
        Ok(Self { name: interface.name.clone(), network: interface.network.name.clone(), mac, addresses })
    }
}

/// A filter of the host is made from them.
fn addresses(field: &str, addresses: &[String]) -> Result<Vec<IpAddr>, Refused> {
    if addresses.len() > LISTED_ADDRESSES {
        return Err(refused(format!("{field}.addresses must have at most {LISTED_ADDRESSES} addresses")));
    }
    let one = |(n, text): (usize, &String)| {
        address::parse(text).map_err(|bad| refused(format!("{field}.addresses[{n}] {bad}")))
    };
    addresses.iter().enumerate().map(one).collect()
}

fn check(spec: &VirtualMachineSpec, memory: u64) -> Result<(), Refused> {
    // Above 255 an x86 guest would need an IOMMU, and libvirt refuses it.
    if !(1..=255).contains(&spec.cpu) {
        return Err(refused("spec.cpu must be between 1 and 255 virtual processors"));
    }
    if !(64 << 20..=4 << 40).contains(&memory) {
        return Err(refused("spec.memory must be between 64Mi and 4Ti"));
    }
    if !(0..=3600).contains(&spec.termination_grace_period_seconds) {
        return Err(refused("spec.terminationGracePeriodSeconds must be between 0 and 3600 seconds"));
    }
    if !(1..=16).contains(&spec.disks.len()) {
        return Err(refused("spec.disks must have 1 to 16 disks, the first to boot from"));
    }
    if spec.interfaces.len() > 8 {
        return Err(refused("spec.interfaces must have at most 8 interfaces"));
    }
    check_unique("spec.disks", "disk", spec.disks.iter().map(|disk| disk.name.as_str()))?;
    check_unique("spec.interfaces", "interface", spec.interfaces.iter().map(|one| one.name.as_str()))?;
    check_line("spec.restartRequest", &spec.restart_request)?;
    check_cloud_init(&spec.cloud_init)
}

fn check_cloud_init(cloud_init: &api::CloudInit) -> Result<(), Refused> {
    let api::CloudInit {
        hostname,
        ssh_keys,
        user_data,
        user_data_secret,
        network_data,
        network_data_secret,
        reseed,
    } = cloud_init;
    let is_host = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if hostname.len() > 63
        || !hostname.chars().all(is_host)
        || hostname.starts_with('-')
        || hostname.ends_with('-')
    {
        return Err(refused(
            "spec.cloudInit.hostname must be letters, digits and '-', at most 63 characters",
        ));
    }
    if ssh_keys.len() > 32 {
        return Err(refused("spec.cloudInit.sshKeys must name at most 32 keys"));
    }
    for (n, key) in ssh_keys.iter().enumerate() {
        check_reference(&format!("spec.cloudInit.sshKeys[{n}].name"), &key.name)?;
    }
    check_data("userData", user_data, user_data_secret.as_ref())?;
    check_data("networkData", network_data, network_data_secret.as_ref())?;
    check_line("spec.cloudInit.reseed", reseed)
}

fn check_data(
    field: &str,
    text: &str,
    secret: Option<&holdfast_api::reference::SecretKeyRef>,
) -> Result<(), Refused> {
    if text.len() > MAX_TEXT {
        return Err(refused(format!(
            "spec.cloudInit.{field} must be at most 32 KiB: put it into a Secret instead"
        )));
    }
    if text.chars().any(|c| is_unprintable(c) && !matches!(c, '\t' | '\n' | '\r')) {
        return Err(refused(format!("spec.cloudInit.{field} must be text without control characters")));
    }
    let Some(secret) = secret else { return Ok(()) };
    if !text.is_empty() {
        return Err(refused(format!("spec.cloudInit must not have both {field} and {field}Secret")));
    }
    check_reference(&format!("spec.cloudInit.{field}Secret.name"), &secret.name)?;
    let is_key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if secret.key.is_empty() || secret.key.len() > 253 || !secret.key.chars().all(is_key) {
        return Err(refused(format!("spec.cloudInit.{field}Secret.key must be a key of the Secret")));
    }
    Ok(())
}

/// Names of disks and interfaces become serials, file names and XML attributes.
fn check_name(field: &str, name: &str) -> Result<(), Refused> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty()
        || name.len() > 20
        || !name.chars().all(inner)
        || name.starts_with('-')
        || name.ends_with('-')
    {
        return Err(refused(format!(
            "{field} must be lower-case letters, digits and '-', at most 20 characters"
        )));
    }
    Ok(())
}

/// Names of objects become parts of request paths.
fn check_reference(field: &str, name: &str) -> Result<(), Refused> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    if name.is_empty() || name.len() > 253 || !name.chars().all(inner) || name.starts_with(['-', '.']) {
        return Err(refused(format!(
            "{field} must be the name of an object: lower-case letters, digits, '-' and '.'"
        )));
    }
    Ok(())
}

fn check_line(field: &str, text: &str) -> Result<(), Refused> {
    if text.chars().count() > 64 || text.chars().any(is_unprintable) {
        return Err(refused(format!(
            "{field} must be at most 64 characters and contain no control characters"
        )));
    }
    Ok(())
}

/// Control characters, and the two that no XML document can hold, in which all of this is remembered.
fn is_unprintable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}')
}

fn check_unique<'a>(field: &str, what: &str, names: impl Iterator<Item = &'a str>) -> Result<(), Refused> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(refused(format!("{field}: each {what} needs a name of its own")));
        }
    }
    Ok(())
}

fn refused(sentence: impl Into<String>) -> Refused {
    Refused(sentence.into())
}

#[cfg(test)]
#[path = "desired_tests.rs"]
mod tests;
