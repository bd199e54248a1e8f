//! The XML of a virtual machine's domain. Pure and golden-tested; libvirt validates every byte of it at each define.
//!
//! What stands in it, and why:
//! - **UEFI by autoselection** (`firmware='efi'`) without Secure Boot, so that any cloud image boots; the NVRAM file lies
//!   in the VM's folder and goes with it.
//! - **Nothing is probed**: each disk names its format and its whole backing chain down to an empty `<backingStore/>`.
//! - **`cache='none' io='threads'`**: guest flushes reach the disk, no page is cached twice, and a sparse file never
//!   blocks the guest's CPU as `io='native'` would. The file system has to know `O_DIRECT` (ext4, xfs and btrfs do).
//! - **Seed**: the read-only virtio disk after all others, named to cloud-init by the SMBIOS serial `ds=nocloud`.
//! - **Balloon with free page reporting**: memory that a guest frees goes back to the host by itself.
//! - **A user of its own** for the guest's QEMU, by number, and nothing but a number: what is in `/etc/passwd` or `/etc/group`
//!   does not matter. libvirt gives it the guest's files; those it shares with others (images) say that they stay root's.
//! - **Left out**: graphics, sound, USB, and an agent channel; each costs memory or widens what a guest can attack.
//! - **No autostart**: after a reboot the daemon decides what starts.

use std::path::PathBuf;

use uuid::Uuid;

use super::text::{self, Invalid};
use super::xml;

mod elements;
#[cfg(test)]
mod tests;

/// What runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accelerator {
    Kvm,
    /// QEMU's emulation: slow, needs nothing of the host.
    Tcg,
}

/// The guest's architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arch {
    X86_64,
    Aarch64,
}

/// How the guest boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Firmware {
    /// `nvram` is created from the firmware's template at the first start.
    Uefi { nvram: PathBuf },
    /// `SeaBIOS`; x86 only.
    Bios,
}

/// How a disk's bytes are to be read; always known, never guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Qcow2,
    Raw,
}

/// One disk file; the first of a VM is the one it boots from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Disk {
    /// The serial the guest sees, at most 20 characters.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) format: Format,
    /// The file below an overlay; it has none below itself.
    pub(crate) backing: Option<(PathBuf, Format)>,
}

/// What an interface is plugged into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A libvirt network, by name.
    Network(String),
    /// A bridge of the host, by name.
    Bridge(String),
}

/// One network card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interface {
    /// The interface's name in the spec; libvirt shows it as the alias `ua-<name>`.
    pub(crate) name: String,
    pub(crate) mac: String,
    /// The device on the host, at most 15 characters. libvirt replaces names that begin with `vnet`.
    pub(crate) target_dev: String,
    pub(crate) source: Source,
}

/// Whom QEMU runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Everything a domain's XML is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DomainSpec {
    pub(crate) uuid: Uuid,
    pub(crate) name: String,
    /// For people who look with virsh, e.g. `namespace/name`.
    pub(crate) title: String,
    /// Opaque text for our metadata element.
    pub(crate) record: String,
    pub(crate) accelerator: Accelerator,
    pub(crate) arch: Arch,
    pub(crate) cpu: u32,
    pub(crate) memory_mib: u64,
    pub(crate) firmware: Firmware,
    pub(crate) disks: Vec<Disk>,
    pub(crate) seed: PathBuf,
    pub(crate) interfaces: Vec<Interface>,
    /// Everything the guest says on its first serial port; written and rotated by virtlogd.
    pub(crate) serial_log: PathBuf,
    /// Nobody else's, or a guest that broke out of its QEMU could reach into another.
    pub(crate) user: User,
}

/// Writes the XML, or says which field it cannot write.
pub(crate) fn to_xml(spec: &DomainSpec) -> Result<String, xml::Error> {
    check(spec)?;
    xml::write("domain", &elements::domain(spec)?)
}

fn check(spec: &DomainSpec) -> Result<(), Invalid> {
    text::name("name", &spec.name)?;
    text::printable("title", &spec.title)?;
    text::record("record", &spec.record)?;
    at_least_one("cpu", u64::from(spec.cpu))?;
    at_least_one("memory", spec.memory_mib)?;
    if spec.user.uid == 0 {
        return Err(Invalid::new("user", "is root; give the guest a user id of its own"));
    }
    if spec.firmware == Firmware::Bios && spec.arch == Arch::Aarch64 {
        return Err(Invalid::new("firmware", "is BIOS, which arm64 does not have; use UEFI"));
    }
    if spec.disks.is_empty() {
        return Err(Invalid::new("disks", "is empty; name at least the disk to boot from"));
    }
    for (index, disk) in spec.disks.iter().enumerate() {
        text::serial(&format!("disks[{index}].name"), &disk.name)?;
    }
    spec.interfaces.iter().enumerate().try_for_each(|(index, interface)| check_interface(index, interface))
}

fn check_interface(index: usize, interface: &Interface) -> Result<(), Invalid> {
    let field = |name: &str| format!("interfaces[{index}].{name}");
    text::label(&field("name"), &interface.name)?;
    text::mac(&field("macAddress"), &interface.mac)?;
    text::device(&field("device"), &interface.target_dev)?;
    match &interface.source {
        Source::Network(name) => text::name(&field("network"), name),
        Source::Bridge(name) => text::device(&field("bridge"), name),
    }
}

fn at_least_one(field: &str, value: u64) -> Result<(), Invalid> {
    if value == 0 {
        return Err(Invalid::new(field, "is 0; give the guest at least 1"));
    }
    Ok(())
}
