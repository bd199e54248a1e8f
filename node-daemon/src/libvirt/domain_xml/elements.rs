//! The elements of a domain as libvirt's schema has them (<https://libvirt.org/formatdomain.html>), in the order of that
//! page, and how a [`DomainSpec`] becomes them.

use serde::Serialize;
use uuid::Uuid;

use super::{Accelerator, Arch, DomainSpec, Firmware, User};
use crate::libvirt::domain::NAMESPACE;
use crate::libvirt::text::{self, Invalid};
use crate::libvirt::xml::Empty;

mod devices;

#[derive(Serialize)]
pub(super) struct Domain<'a> {
    #[serde(rename = "@type")]
    kind: &'static str,
    name: &'a str,
    uuid: Uuid,
    title: &'a str,
    metadata: Metadata<'a>,
    memory: Memory,
    vcpu: Vcpu,
    sysinfo: Sysinfo,
    os: Os<'a>,
    features: Features,
    cpu: Cpu,
    clock: Clock,
    on_poweroff: &'static str,
    on_reboot: &'static str,
    on_crash: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pm: Option<Pm>,
    devices: devices::Devices<'a>,
    seclabel: SecLabel,
}

#[derive(Serialize)]
struct Metadata<'a> {
    #[serde(rename = "holdfast:vm")]
    record: Record<'a>,
}

#[derive(Serialize)]
struct Record<'a> {
    #[serde(rename = "@xmlns:holdfast")]
    namespace: &'static str,
    #[serde(rename = "$text")]
    text: &'a str,
}

#[derive(Serialize)]
struct Memory {
    #[serde(rename = "@unit")]
    unit: &'static str,
    #[serde(rename = "$text")]
    size: u64,
}

#[derive(Serialize)]
struct Vcpu {
    #[serde(rename = "@placement")]
    placement: &'static str,
    #[serde(rename = "$text")]
    count: u32,
}

#[derive(Serialize)]
struct Sysinfo {
    #[serde(rename = "@type")]
    kind: &'static str,
    system: System,
}

#[derive(Serialize)]
struct System {
    entry: Entry,
}

#[derive(Serialize)]
struct Entry {
    #[serde(rename = "@name")]
    name: &'static str,
    #[serde(rename = "$text")]
    value: &'static str,
}

#[derive(Serialize)]
struct Os<'a> {
    #[serde(rename = "@firmware", skip_serializing_if = "Option::is_none")]
    autoselect: Option<&'static str>,
    r#type: OsType,
    #[serde(skip_serializing_if = "Option::is_none")]
    firmware: Option<FirmwareFeatures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nvram: Option<&'a str>,
    smbios: Mode,
}

#[derive(Serialize)]
struct OsType {
    #[serde(rename = "@arch")]
    arch: &'static str,
    #[serde(rename = "@machine")]
    machine: &'static str,
    #[serde(rename = "$text")]
    kind: &'static str,
}

#[derive(Serialize)]
struct FirmwareFeatures {
    feature: FirmwareFeature,
}

#[derive(Serialize)]
struct FirmwareFeature {
    #[serde(rename = "@enabled")]
    enabled: &'static str,
    #[serde(rename = "@name")]
    name: &'static str,
}

#[derive(Serialize)]
struct Mode {
    #[serde(rename = "@mode")]
    mode: &'static str,
}

#[derive(Serialize)]
struct Features {
    acpi: Empty,
    #[serde(skip_serializing_if = "Option::is_none")]
    apic: Option<Empty>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gic: Option<Gic>,
}

#[derive(Serialize)]
struct Gic {
    #[serde(rename = "@version")]
    version: u8,
}

#[derive(Serialize)]
struct Cpu {
    #[serde(rename = "@mode")]
    mode: &'static str,
    #[serde(rename = "@check")]
    check: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    feature: Option<CpuFeature>,
}

#[derive(Serialize)]
struct CpuFeature {
    #[serde(rename = "@policy")]
    policy: &'static str,
    #[serde(rename = "@name")]
    name: &'static str,
}

#[derive(Serialize)]
struct Clock {
    #[serde(rename = "@offset")]
    offset: &'static str,
    timer: Vec<Timer>,
}

#[derive(Serialize)]
struct Timer {
    #[serde(rename = "@name")]
    name: &'static str,
    #[serde(rename = "@tickpolicy", skip_serializing_if = "Option::is_none")]
    tickpolicy: Option<&'static str>,
    #[serde(rename = "@present", skip_serializing_if = "Option::is_none")]
    present: Option<&'static str>,
}

#[derive(Serialize)]
struct Pm {
    #[serde(rename = "suspend-to-mem")]
    to_memory: Enabled,
    #[serde(rename = "suspend-to-disk")]
    to_disk: Enabled,
}

#[derive(Serialize)]
struct Enabled {
    #[serde(rename = "@enabled")]
    enabled: &'static str,
}

/// The label by which libvirt sets the user of QEMU and of its files.
#[derive(Serialize)]
struct SecLabel {
    #[serde(rename = "@type")]
    kind: &'static str,
    #[serde(rename = "@model")]
    model: &'static str,
    #[serde(rename = "@relabel")]
    relabel: &'static str,
    label: String,
}

/// The whole document; only paths can still be refused.
pub(super) fn domain(spec: &DomainSpec) -> Result<Domain<'_>, Invalid> {
    Ok(Domain {
        kind: match spec.accelerator {
            Accelerator::Kvm => "kvm",
            Accelerator::Tcg => "qemu",
        },
        name: &spec.name,
        uuid: spec.uuid,
        title: &spec.title,
        metadata: Metadata { record: Record { namespace: NAMESPACE, text: &spec.record } },
        memory: Memory { unit: "MiB", size: spec.memory_mib },
        vcpu: Vcpu { placement: "static", count: spec.cpu },
        sysinfo: seed_hint(),
        os: os(spec)?,
        features: features(spec.arch),
        cpu: cpu(spec.accelerator, spec.arch),
        clock: clock(spec.arch),
        on_poweroff: "destroy",
        on_reboot: "restart",
        on_crash: "destroy",
        pm: pm(spec.arch),
        devices: devices::devices(spec)?,
        seclabel: label(spec.user),
    })
}

/// cloud-init looks for a `NoCloud` disk at once instead of asking the network first.
fn seed_hint() -> Sysinfo {
    Sysinfo { kind: "smbios", system: System { entry: Entry { name: "serial", value: "ds=nocloud" } } }
}

fn os(spec: &DomainSpec) -> Result<Os<'_>, Invalid> {
    let (arch, machine) = match spec.arch {
        Arch::X86_64 => ("x86_64", "q35"),
        Arch::Aarch64 => ("aarch64", "virt"),
    };
    let nvram = match &spec.firmware {
        Firmware::Uefi { nvram } => Some(text::path("nvram", nvram)?),
        Firmware::Bios => None,
    };
    let insecure = FirmwareFeatures { feature: FirmwareFeature { enabled: "no", name: "secure-boot" } };
    Ok(Os {
        autoselect: nvram.map(|_| "efi"),
        r#type: OsType { arch, machine, kind: "hvm" },
        firmware: nvram.map(|_| insecure),
        nvram,
        smbios: Mode { mode: "sysinfo" },
    })
}

fn features(arch: Arch) -> Features {
    match arch {
        Arch::X86_64 => Features { acpi: Empty {}, apic: Some(Empty {}), gic: None },
        // SystemReady machines have GICv3; v2 would limit a guest to 8 CPUs.
        Arch::Aarch64 => Features { acpi: Empty {}, apic: None, gic: Some(Gic { version: 3 }) },
    }
}

/// The host's own CPU under KVM. Under TCG the plain model that QEMU's own tests boot, without `cmpxchg16b`: QEMU 7.2
/// hands on wrong flags when an interrupt follows that instruction, of which Debian 13's kernel dies now and then.
fn cpu(accelerator: Accelerator, arch: Arch) -> Cpu {
    let (mode, model, feature) = match (accelerator, arch) {
        (Accelerator::Kvm, _) => ("host-passthrough", None, None),
        (Accelerator::Tcg, Arch::X86_64) => {
            ("custom", Some("qemu64"), Some(CpuFeature { policy: "disable", name: "cx16" }))
        }
        (Accelerator::Tcg, Arch::Aarch64) => ("maximum", None, None),
    };
    Cpu { mode, check: "none", model, feature }
}

/// The timers libvirt's documentation advises for x86 guests: catch up lost ticks, no HPET, which wakes the host often.
fn clock(arch: Arch) -> Clock {
    let timer = match arch {
        Arch::X86_64 => vec![
            Timer { name: "rtc", tickpolicy: Some("catchup"), present: None },
            Timer { name: "pit", tickpolicy: Some("delay"), present: None },
            Timer { name: "hpet", tickpolicy: None, present: Some("no") },
        ],
        Arch::Aarch64 => Vec::new(),
    };
    Clock { offset: "utc", timer }
}

/// A guest that sleeps looks dead to everybody who waits for it. libvirt refuses the element on arm64, where QEMU offers
/// guests no sleep state anyway.
fn pm(arch: Arch) -> Option<Pm> {
    match arch {
        Arch::X86_64 => Some(Pm { to_memory: Enabled { enabled: "no" }, to_disk: Enabled { enabled: "no" } }),
        Arch::Aarch64 => None,
    }
}

/// Static, because we choose it; relabelled all the same, because the UEFI variables are libvirt's to make. The plus signs
/// say that these are numbers, never names.
fn label(user: User) -> SecLabel {
    let label = format!("+{}:+{}", user.uid, user.gid);
    SecLabel { kind: "static", model: "dac", relabel: "yes", label }
}
