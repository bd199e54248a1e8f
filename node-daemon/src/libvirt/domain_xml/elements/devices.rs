//! The devices of a domain.

use std::path::Path;

use serde::Serialize;

use crate::libvirt::domain_xml::{self as spec, Arch, DomainSpec, Format, Source};
use crate::libvirt::text::{self, Invalid};
use crate::libvirt::xml::Empty;

/// A list in document order, which is the order in which guests find disks and interfaces.
#[derive(Serialize)]
pub(super) struct Devices<'a> {
    #[serde(rename = "$value")]
    list: Vec<Device<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Device<'a> {
    Disk(Disk<'a>),
    Controller(Controller),
    Interface(Interface<'a>),
    Serial(Serial<'a>),
    MemBalloon(MemBalloon),
    Rng(Rng),
    Panic(Panic),
}

#[derive(Serialize)]
struct Disk<'a> {
    #[serde(rename = "@type")]
    kind: &'static str,
    #[serde(rename = "@device")]
    device: &'static str,
    driver: Driver,
    source: File<'a>,
    #[serde(rename = "backingStore")]
    backing: BackingStore<'a>,
    target: Target,
    #[serde(skip_serializing_if = "Option::is_none")]
    readonly: Option<Empty>,
    serial: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    boot: Option<Boot>,
}

#[derive(Serialize)]
struct Driver {
    #[serde(rename = "@name")]
    name: &'static str,
    #[serde(rename = "@type")]
    format: &'static str,
    #[serde(rename = "@cache")]
    cache: &'static str,
    #[serde(rename = "@io")]
    io: &'static str,
    #[serde(rename = "@discard", skip_serializing_if = "Option::is_none")]
    discard: Option<&'static str>,
}

#[derive(Serialize)]
struct File<'a> {
    #[serde(rename = "@file")]
    path: &'a str,
}

/// An image many guests stand on. It stays root's: without the label libvirt would give it to QEMU's user for good, and a
/// guest that broke out of its QEMU could write into all the others.
#[derive(Serialize)]
struct Base<'a> {
    #[serde(rename = "@file")]
    path: &'a str,
    seclabel: SecLabel,
}

#[derive(Serialize)]
struct SecLabel {
    #[serde(rename = "@model")]
    model: &'static str,
    #[serde(rename = "@relabel")]
    relabel: &'static str,
}

/// The file below, or, empty, the end of the chain.
#[derive(Serialize, Default)]
struct BackingStore<'a> {
    #[serde(rename = "@type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<FormatName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Base<'a>>,
    #[serde(rename = "backingStore", skip_serializing_if = "Option::is_none")]
    end: Option<Empty>,
}

#[derive(Serialize)]
struct FormatName {
    #[serde(rename = "@type")]
    name: &'static str,
}

#[derive(Serialize)]
struct Target {
    #[serde(rename = "@dev")]
    dev: String,
    #[serde(rename = "@bus")]
    bus: &'static str,
}

#[derive(Serialize)]
struct Boot {
    #[serde(rename = "@order")]
    order: u8,
}

#[derive(Serialize)]
struct Controller {
    #[serde(rename = "@type")]
    kind: &'static str,
    #[serde(rename = "@model")]
    model: &'static str,
}

#[derive(Serialize)]
struct Interface<'a> {
    #[serde(rename = "@type")]
    kind: &'static str,
    mac: Mac<'a>,
    source: Plug<'a>,
    target: TargetDevice<'a>,
    model: Model,
    alias: Alias,
}

#[derive(Serialize)]
struct Mac<'a> {
    #[serde(rename = "@address")]
    address: &'a str,
}

#[derive(Serialize)]
struct Plug<'a> {
    #[serde(rename = "@network", skip_serializing_if = "Option::is_none")]
    network: Option<&'a str>,
    #[serde(rename = "@bridge", skip_serializing_if = "Option::is_none")]
    bridge: Option<&'a str>,
}

#[derive(Serialize)]
struct TargetDevice<'a> {
    #[serde(rename = "@dev")]
    dev: &'a str,
}

#[derive(Serialize)]
struct Model {
    #[serde(rename = "@type")]
    name: &'static str,
}

#[derive(Serialize)]
struct Alias {
    #[serde(rename = "@name")]
    name: String,
}

#[derive(Serialize)]
struct Serial<'a> {
    #[serde(rename = "@type")]
    kind: &'static str,
    log: Log<'a>,
}

#[derive(Serialize)]
struct Log<'a> {
    #[serde(rename = "@file")]
    path: &'a str,
    #[serde(rename = "@append")]
    append: &'static str,
}

#[derive(Serialize)]
struct MemBalloon {
    #[serde(rename = "@model")]
    model: &'static str,
    #[serde(rename = "@freePageReporting")]
    free_page_reporting: &'static str,
}

#[derive(Serialize)]
struct Rng {
    #[serde(rename = "@model")]
    model: &'static str,
    backend: RngBackend,
}

#[derive(Serialize)]
struct RngBackend {
    #[serde(rename = "@model")]
    model: &'static str,
    #[serde(rename = "$text")]
    source: &'static str,
}

#[derive(Serialize)]
struct Panic {
    #[serde(rename = "@model")]
    model: &'static str,
}

/// All devices of the VM.
pub(super) fn devices(spec: &DomainSpec) -> Result<Devices<'_>, Invalid> {
    let mut list = Vec::new();
    for (index, disk) in spec.disks.iter().enumerate() {
        list.push(Device::Disk(self::disk(index, disk)?));
    }
    list.push(Device::Disk(seed(spec.disks.len(), &spec.seed)?));
    list.push(Device::Controller(Controller { kind: "usb", model: "none" }));
    list.extend(spec.interfaces.iter().map(interface).map(Device::Interface));
    list.push(Device::Serial(serial(&spec.serial_log)?));
    list.push(Device::MemBalloon(MemBalloon { model: "virtio", free_page_reporting: "on" }));
    list.push(Device::Rng(rng()));
    list.extend(panic_device(spec.arch).map(Device::Panic));
    Ok(Devices { list })
}

fn disk(index: usize, disk: &spec::Disk) -> Result<Disk<'_>, Invalid> {
    let backing = match &disk.backing {
        None => BackingStore::default(),
        Some((path, format)) => BackingStore {
            kind: Some("file"),
            format: Some(FormatName { name: name_of(*format) }),
            source: Some(Base {
                path: text::path(&format!("disks[{index}].backing"), path)?,
                seclabel: SecLabel { model: "dac", relabel: "no" },
            }),
            end: Some(Empty {}),
        },
    };
    Ok(Disk {
        kind: "file",
        device: "disk",
        driver: driver(disk.format, Some("unmap")),
        source: File { path: text::path(&format!("disks[{index}].path"), &disk.path)? },
        backing,
        target: Target { dev: device_name(index), bus: "virtio" },
        readonly: None,
        serial: &disk.name,
        boot: (index == 0).then_some(Boot { order: 1 }),
    })
}

fn seed(index: usize, path: &Path) -> Result<Disk<'_>, Invalid> {
    Ok(Disk {
        kind: "file",
        device: "disk",
        driver: driver(Format::Raw, None),
        source: File { path: text::path("seed", path)? },
        backing: BackingStore::default(),
        target: Target { dev: device_name(index), bus: "virtio" },
        readonly: Some(Empty {}),
        serial: "cidata",
        boot: None,
    })
}

fn driver(format: Format, discard: Option<&'static str>) -> Driver {
    Driver { name: "qemu", format: name_of(format), cache: "none", io: "threads", discard }
}

fn name_of(format: Format) -> &'static str {
    match format {
        Format::Qcow2 => "qcow2",
        Format::Raw => "raw",
    }
}

/// `vda` … `vdz`, `vdaa` …, as the kernel counts.
fn device_name(index: usize) -> String {
    let mut letters = Vec::new();
    let mut rest = index + 1;
    while rest > 0 {
        rest -= 1;
        letters.push(b'a' + u8::try_from(rest % 26).unwrap_or(0));
        rest /= 26;
    }
    "vd".chars().chain(letters.iter().rev().map(|&letter| char::from(letter))).collect()
}

fn interface(interface: &spec::Interface) -> Interface<'_> {
    let (kind, source) = match &interface.source {
        Source::Network(name) => ("network", Plug { network: Some(name), bridge: None }),
        Source::Bridge(name) => ("bridge", Plug { network: None, bridge: Some(name) }),
    };
    Interface {
        kind,
        mac: Mac { address: &interface.mac },
        source,
        target: TargetDevice { dev: &interface.target_dev },
        model: Model { name: "virtio" },
        alias: Alias { name: format!("ua-{}", interface.name) },
    }
}

/// A terminal for `virsh console` and a log that outlives restarts of the guest.
fn serial(log: &Path) -> Result<Serial<'_>, Invalid> {
    Ok(Serial { kind: "pty", log: Log { path: text::path("serialLog", log)?, append: "on" } })
}

fn rng() -> Rng {
    Rng { model: "virtio", backend: RngBackend { model: "random", source: "/dev/urandom" } }
}

/// Lets the guest's kernel say that it panicked. arm64 has no ISA bus, and libvirt 9.0 no other model for it.
fn panic_device(arch: Arch) -> Option<Panic> {
    match arch {
        Arch::X86_64 => Some(Panic { model: "isa" }),
        Arch::Aarch64 => None,
    }
}

#[cfg(test)]
mod tests {
    use super::device_name;

    #[test]
    fn disks_are_lettered_as_the_kernel_does() {
        let names: Vec<String> = [0, 1, 25, 26, 27, 701, 702].map(device_name).to_vec();
        assert_eq!(names, ["vda", "vdb", "vdz", "vdaa", "vdab", "vdzz", "vdaaa"]);
    }
}
