//! A domain as libvirt reports it, and the calls that read or change one. Each call does one thing and decides nothing.

use std::net::IpAddr;

use quick_xml::escape::partial_escape;
use uuid::Uuid;
use virt::connect::Connect;
use virt::domain::Domain as Handle;
use virt::error::{Error as VirtError, ErrorNumber};
use virt::sys;

use super::error::is_absent;
use super::state::{self, DomainState};
use super::{ffi, read};

/// The namespace of our metadata element in a domain; its presence is what makes a domain ours.
pub(crate) const NAMESPACE: &str = "https://holdfast.dev/domain/v1";
/// The prefix and the local name of that element: `<holdfast:vm>`.
pub(super) const PREFIX: &str = "holdfast";

/// One domain, ours or foreign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Domain {
    pub(crate) uuid: Uuid,
    pub(crate) name: String,
    pub(crate) state: DomainState,
    /// The text of our metadata element: of the running domain while it runs, else of the stored one. `None` is foreign.
    pub(crate) record: Option<String>,
    /// Virtual CPUs: of the running domain while it runs, else of the stored one.
    pub(crate) cpu: u32,
    /// The most memory the guest may use, in MiB; running or stored as above.
    pub(crate) memory_mib: u64,
}

/// Whether a started guest waits for [`super::Libvirt::resume`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StartPaused {
    Yes,
    No,
}

/// An address that the DHCP server of a libvirt network gave a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    /// Lower-case, with colons.
    pub(crate) mac: String,
    pub(crate) ip: IpAddr,
}

/// Every domain; one that vanishes between two calls is left out.
pub(super) fn all(connect: &Connect) -> Result<Vec<Domain>, VirtError> {
    let handles = connect.list_all_domains(0)?;
    handles.iter().filter_map(|handle| read(handle).transpose()).collect()
}

pub(super) fn one(connect: &Connect, uuid: Uuid) -> Result<Option<Domain>, VirtError> {
    match connect.lookup_domain_by_uuid(uuid) {
        Ok(handle) => read(&handle),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn read(handle: &Handle) -> Result<Option<Domain>, VirtError> {
    match describe(handle) {
        Ok(domain) => Ok(Some(domain)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn describe(handle: &Handle) -> Result<Domain, VirtError> {
    const KIB_PER_MIB: u64 = 1024;
    let info = handle.info()?;
    Ok(Domain {
        uuid: handle.uuid()?,
        name: handle.name()?,
        state: state::read(handle)?,
        record: record(handle)?,
        cpu: info.nr_virt_cpu,
        memory_mib: info.max_mem / KIB_PER_MIB,
    })
}

fn record(handle: &Handle) -> Result<Option<String>, VirtError> {
    let kind = sys::VIR_DOMAIN_METADATA_ELEMENT.cast_signed();
    match handle.metadata(kind, Some(NAMESPACE), sys::VIR_DOMAIN_AFFECT_CURRENT) {
        Ok(element) => Ok(read::first_text(&element)),
        Err(error) if error.code().is(ErrorNumber::NoDomainMetadata) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Defines or redefines; a running domain keeps running as it was and has the new definition at its next start.
pub(super) fn define(connect: &Connect, xml: &str) -> Result<(), VirtError> {
    connect.define_domain_xml_flags(xml, sys::VIR_DOMAIN_DEFINE_VALIDATE).map(drop)
}

pub(super) fn start(connect: &Connect, uuid: Uuid, paused: StartPaused) -> Result<(), VirtError> {
    let domain = connect.lookup_domain_by_uuid(uuid)?;
    match paused {
        StartPaused::No => domain.create(),
        StartPaused::Yes => match domain.create_with_flags(sys::VIR_DOMAIN_START_PAUSED) {
            Err(error) if knows_no_flag(&error) => domain.create().and_then(|()| domain.suspend()),
            done => done,
        },
    }
}

/// The test driver of libvirt 9.0 lacks some flags of the QEMU driver; it has no guest, so the plain call serves there.
/// QEMU's driver knows them all and refuses what it cannot do by other codes.
fn knows_no_flag(error: &VirtError) -> bool {
    error.code().is(ErrorNumber::InvalidArg)
}

/// Presses the power button. Without flags, because the test driver knows none; our domains have no agent channel, so
/// the QEMU driver uses ACPI.
pub(super) fn shutdown(connect: &Connect, uuid: Uuid) -> Result<(), VirtError> {
    connect.lookup_domain_by_uuid(uuid)?.shutdown()
}

pub(super) fn destroy(connect: &Connect, uuid: Uuid) -> Result<(), VirtError> {
    connect.lookup_domain_by_uuid(uuid)?.destroy()
}

pub(super) fn suspend(connect: &Connect, uuid: Uuid) -> Result<(), VirtError> {
    connect.lookup_domain_by_uuid(uuid)?.suspend()
}

pub(super) fn resume(connect: &Connect, uuid: Uuid) -> Result<(), VirtError> {
    connect.lookup_domain_by_uuid(uuid)?.resume()
}

/// Forgets the definition together with what libvirt keeps beside it; the NVRAM file stays, it goes with the VM's folder.
pub(super) fn undefine(connect: &Connect, uuid: Uuid) -> Result<(), VirtError> {
    const LEFTOVERS: u32 =
        sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA;
    const FULL: u32 =
        LEFTOVERS | sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA | sys::VIR_DOMAIN_UNDEFINE_KEEP_NVRAM;
    let domain = connect.lookup_domain_by_uuid(uuid)?;
    match domain.undefine_flags(FULL) {
        Err(error) if knows_no_flag(&error) => domain.undefine_flags(LEFTOVERS),
        done => done,
    }
}

/// Writes the record into the stored definition and, while it runs, into the running one.
pub(super) fn set_record(connect: &Connect, uuid: Uuid, record: &str) -> Result<(), VirtError> {
    let domain = connect.lookup_domain_by_uuid(uuid)?;
    let live = if domain.is_active()? { sys::VIR_DOMAIN_AFFECT_LIVE } else { 0 };
    let stored = if domain.is_persistent()? { sys::VIR_DOMAIN_AFFECT_CONFIG } else { 0 };
    let element = format!("<vm>{}</vm>", partial_escape(record));
    let kind = sys::VIR_DOMAIN_METADATA_ELEMENT.cast_signed();
    domain.set_metadata(kind, Some(&element), Some(PREFIX), Some(NAMESPACE), live | stored)
}

/// The leases of a guest; one that is off has none.
///
/// libvirt can read the neighbour table too, but before 10.8 it cannot read that of kernels from 6.9 on, and logs an
/// error each time; `network::Networks::neighbours` does it for us.
pub(super) fn leases(connect: &Connect, uuid: Uuid) -> Result<Vec<Lease>, VirtError> {
    let domain = connect.lookup_domain_by_uuid(uuid)?;
    if !domain.is_active()? {
        return Ok(Vec::new());
    }
    let raw = match ffi::interface_addresses(&domain, sys::VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE) {
        Err(error) if says_nothing(&error) => return Ok(Vec::new()),
        answer => answer?,
    };
    let lease =
        |(mac, ip): ffi::RawAddress| Some(Lease { mac: mac?.to_ascii_lowercase(), ip: ip.parse().ok()? });
    Ok(raw.into_iter().filter_map(lease).collect())
}

fn says_nothing(error: &VirtError) -> bool {
    use ErrorNumber::{ArgumentUnsupported, NoNetwork, NoSupport, OperationInvalid, OperationUnsupported};
    let silent = [ArgumentUnsupported, NoNetwork, NoSupport, OperationInvalid, OperationUnsupported];
    error.code().known().is_some_and(|number| silent.contains(&number))
}
