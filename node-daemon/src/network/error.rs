//! Why an interface has no network, what somebody should do about it, and when to look again.

use std::net::IpAddr;

use ipnet::Ipv4Net;

use super::filter;
use super::netlink;
use crate::host_addresses::Role;
use crate::libvirt;
use crate::retry::Retry;

/// A network that is not ready. Each text is a sentence for the virtual machine's condition: what is wrong, what to do.
///
/// None of them stalls a virtual machine: each ends with a change somewhere else.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The network object is nothing this node can offer; its spec cannot change.
    #[error("network {network}: {problem}; create another VirtualMachineNetwork and use that")]
    Refused { network: String, problem: String },
    /// The node's configuration does not give guests this.
    #[error("network {network}: this node does not offer {what} to guests; {remedy}, or use another network")]
    NotOffered { network: String, what: String, remedy: String },
    /// An address listed for the guest is another's.
    #[error(
        "network {network}: {address} in spec.interfaces[].addresses is {role}, which no guest is given; take it off the list"
    )]
    AddressTaken { network: String, address: IpAddr, role: Role },
    /// Somebody on the bridge has the guest's hardware address.
    #[error(
        "network {network}: {port} of bridge {bridge} on this node has hardware address {mac} already, or a machine behind it has; give the interface another macAddress, or wait where that was this virtual machine on another node"
    )]
    MacTaken { network: String, mac: String, bridge: String, port: String },
    /// Two subnets overlap, and the other one was here first.
    #[error(
        "network {network}: subnet {subnet} overlaps {with} on this node; use a network with another subnet"
    )]
    SubnetClash { network: String, subnet: Ipv4Net, with: String },
    /// Every /24 of the pool is taken.
    #[error(
        "network {network}: no /24 of the node's pool {pool} is free; give the network a subnet or widen networkPool on the node"
    )]
    PoolFull { network: String, pool: Ipv4Net },
    /// The namespace has as much of the pool as one may have.
    #[error(
        "network {network}: its namespace has its share, {share} of the {all} /24s of the node's pool {pool}; delete virtual machines on other networks of the namespace, or widen networkPool on the node"
    )]
    ShareFull { network: String, pool: Ipv4Net, share: usize, all: usize },
    /// The host has no such bridge.
    #[error(
        "network {network}: this node has no bridge {bridge}; create it on the node or use another network"
    )]
    BridgeMissing { network: String, bridge: String },
    /// A device or libvirt network that is not ours stands where ours should be.
    #[error("network {network}: {what} on this node is in the way and not Holdfast's; {remedy}")]
    Foreign { network: String, what: String, remedy: &'static str },
    /// The kernel cannot do 802.1Q.
    #[error(
        "network {network}: the kernel of this node has no VLAN devices; load the module 8021q on the node"
    )]
    VlanUnsupported { network: String },
    /// What keeps guests in their bounds is not there, so none starts.
    #[error(
        "the rules that keep guests in their bounds cannot be loaded: install the package nftables on the node"
    )]
    FilterMissing { source: filter::LoadError },
    /// It is there and did not do its part.
    #[error(
        "the rules that keep guests in their bounds could not be loaded; see that the node's kernel has nf_tables with its bridge and inet families"
    )]
    FilterFailed { source: filter::LoadError },
    /// libvirt failed.
    #[error("network {network}: libvirt did not do its part; the node tries again by itself")]
    Libvirt { network: String, source: libvirt::Error },
    /// The kernel failed.
    #[error("network {network}: the kernel did not do its part; the node tries again by itself")]
    Kernel { network: String, source: netlink::Error },
}

impl Error {
    /// When trying again can help.
    pub(crate) fn retry(&self) -> Retry {
        match self {
            Self::Refused { .. }
            | Self::NotOffered { .. }
            | Self::AddressTaken { .. }
            | Self::MacTaken { .. }
            | Self::SubnetClash { .. }
            | Self::PoolFull { .. }
            | Self::ShareFull { .. }
            | Self::BridgeMissing { .. }
            | Self::Foreign { .. }
            | Self::VlanUnsupported { .. }
            | Self::FilterMissing { .. }
            | Self::FilterFailed { .. } => Retry::Later,
            Self::Libvirt { source, .. } => match source.retry() {
                Retry::Soon => Retry::Soon,
                // Even what libvirt refuses for good is no fault of the virtual machine's spec.
                Retry::Later | Retry::OnChange => Retry::Later,
            },
            Self::Kernel { .. } => Retry::Soon,
        }
    }

    /// The condition's reason.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "NetworkRefused",
            Self::NotOffered { .. } => "NetworkNotOffered",
            Self::AddressTaken { .. } => "AddressTaken",
            Self::MacTaken { .. } => "MacTaken",
            Self::SubnetClash { .. } => "SubnetClash",
            Self::PoolFull { .. } => "NetworkPoolFull",
            Self::ShareFull { .. } => "NetworkShareFull",
            Self::BridgeMissing { .. } => "BridgeMissing",
            Self::Foreign { .. } => "NetworkForeign",
            Self::VlanUnsupported { .. } => "VlanUnsupported",
            Self::FilterMissing { .. } => "FilterMissing",
            Self::FilterFailed { .. } => "FilterFailed",
            Self::Libvirt { .. } | Self::Kernel { .. } => "NetworkFailed",
        }
    }
}

impl From<filter::LoadError> for Error {
    fn from(source: filter::LoadError) -> Self {
        match source {
            filter::LoadError::Missing => Self::FilterMissing { source },
            filter::LoadError::Run { .. }
            | filter::LoadError::TooSlow
            | filter::LoadError::Refused { .. } => Self::FilterFailed { source },
        }
    }
}
