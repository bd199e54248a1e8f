//! What libvirt says of the host.

use virt::connect::Connect;
use virt::error::Error as VirtError;

use super::read::security_drivers;

/// The host's size and the versions a node reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostInfo {
    pub(crate) cpus: u32,
    /// In bytes.
    pub(crate) memory: u64,
    /// Of the daemon behind the connection, e.g. `9.0.0`.
    pub(crate) libvirt_version: String,
    /// Of QEMU, e.g. `7.2.22`.
    pub(crate) hypervisor_version: String,
    /// As the kernel names it, e.g. `x86_64`, `aarch64`.
    pub(crate) arch: String,
    /// What it confines QEMU with, e.g. `apparmor`, `dac`.
    pub(crate) security_drivers: Vec<String>,
}

pub(super) fn read(connect: &Connect) -> Result<HostInfo, VirtError> {
    const BYTES_PER_KIB: u64 = 1024;
    let info = connect.node_info()?;
    Ok(HostInfo {
        cpus: info.cpus,
        memory: info.memory.saturating_mul(BYTES_PER_KIB),
        libvirt_version: dotted(connect.lib_version()?),
        hypervisor_version: dotted(connect.hyp_version()?),
        arch: info.model,
        security_drivers: security_drivers(&connect.capabilities()?),
    })
}

/// libvirt's numbering: major * 1,000,000 + minor * 1,000 + release.
fn dotted(version: u32) -> String {
    format!("{}.{}.{}", version / 1_000_000, version / 1_000 % 1_000, version % 1_000)
}
