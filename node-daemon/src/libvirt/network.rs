//! A libvirt network as reported, and the calls that read or change one.

use uuid::Uuid;
use virt::connect::Connect;
use virt::error::{Error as VirtError, ErrorNumber};
use virt::network::Network as Handle;

use super::error::is_absent;
use super::network_xml::Subnet;
use super::{ffi, read};

/// One network, ours or foreign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Network {
    pub(crate) uuid: Uuid,
    pub(crate) name: String,
    pub(crate) active: bool,
    /// The bridge device on the host, where the network has one.
    pub(crate) bridge: Option<String>,
    /// `nat`, `route`, `bridge`, …; `None` is isolated.
    pub(crate) forward: Option<String>,
    /// The host's own addresses on the network, with their prefix lengths.
    pub(crate) subnets: Vec<Subnet>,
    /// The text of our metadata element; `None` is foreign.
    pub(crate) record: Option<String>,
}

/// Every network; one that vanishes between two calls is left out.
pub(super) fn all(connect: &Connect) -> Result<Vec<Network>, VirtError> {
    let handles = connect.list_all_networks(0)?;
    handles.iter().filter_map(|handle| read(handle).transpose()).collect()
}

fn read(handle: &Handle) -> Result<Option<Network>, VirtError> {
    match describe(handle) {
        Ok(network) => Ok(Some(network)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn describe(handle: &Handle) -> Result<Network, VirtError> {
    let read::NetworkFields { bridge, forward, subnets, record } = read::network(&handle.xml_desc(0)?);
    let (uuid, name, active) = (handle.uuid()?, handle.name()?, handle.is_active()?);
    Ok(Network { uuid, name, active, bridge, forward, subnets, record })
}

pub(super) fn define(connect: &Connect, xml: &str) -> Result<(), VirtError> {
    ffi::define_network(connect, xml)
}

/// Starts it; one that runs already is left as it is.
pub(super) fn start(connect: &Connect, uuid: Uuid) -> Result<(), VirtError> {
    let network = connect.lookup_network_by_uuid(uuid)?;
    if network.is_active()? {
        return Ok(());
    }
    network.create()
}

/// Stops and forgets it; one that is not there is a success, and one left half removed is finished.
pub(super) fn remove(connect: &Connect, uuid: Uuid) -> Result<(), VirtError> {
    let network = match connect.lookup_network_by_uuid(uuid) {
        Err(error) if error.code().is(ErrorNumber::NoNetwork) => return Ok(()),
        found => found?,
    };
    if network.is_active()? {
        network.destroy()?;
    }
    network.undefine()
}
