//! The XML of a network of ours: NAT or isolated, with DHCP from dnsmasq. Pure.

use std::net::Ipv4Addr;

use serde::Serialize;
use uuid::Uuid;

use super::text::{self, Invalid};
use super::xml;

/// The namespace of our metadata element in a network; its presence is what makes a network ours.
pub(crate) const NAMESPACE: &str = "https://holdfast.dev/network/v1";
/// The prefix of that element: `<holdfast:network>`.
pub(super) const PREFIX: &str = "holdfast";

/// An IPv4 address of the host and the length of its network's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subnet {
    pub(crate) address: Ipv4Addr,
    pub(crate) prefix: u8,
}

/// What guests of a network can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NetworkKind {
    /// Each other, the host, and the world behind the host's address.
    Nat,
    /// Each other and the host.
    Isolated,
}

/// A network to define.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NetworkSpec {
    pub(crate) uuid: Uuid,
    pub(crate) name: String,
    /// Opaque text for our metadata element.
    pub(crate) record: String,
    /// The bridge to create on the host, at most 15 characters.
    pub(crate) bridge: String,
    pub(crate) kind: NetworkKind,
    /// Any address of the subnet; the host takes the first one, guests get the others by DHCP.
    pub(crate) subnet: Subnet,
}

impl Subnet {
    /// Shorter would span a whole site, longer leaves no room for host, guest and broadcast.
    const PREFIXES: std::ops::RangeInclusive<u8> = 8..=29;

    /// First and last number of the network; a prefix beyond 32 counts as 32.
    fn bounds(self) -> (u32, u32) {
        let host_bits = u32::MAX.checked_shr(u32::from(self.prefix)).unwrap_or(0);
        let first = self.address.to_bits() & !host_bits;
        (first, first | host_bits)
    }

    /// The address the host takes: the first after the network's own.
    pub(crate) fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.bounds().0.saturating_add(1))
    }

    /// What DHCP hands out: all after the gateway, before the broadcast address.
    fn dhcp_range(self) -> (Ipv4Addr, Ipv4Addr) {
        let (first, last) = self.bounds();
        (Ipv4Addr::from_bits(first.saturating_add(2)), Ipv4Addr::from_bits(last.saturating_sub(1)))
    }
}

/// Writes the XML, or says which field it cannot write.
pub(crate) fn to_xml(spec: &NetworkSpec) -> Result<String, xml::Error> {
    check(spec)?;
    let (start, end) = spec.subnet.dhcp_range();
    let network = Network {
        name: &spec.name,
        uuid: spec.uuid,
        metadata: Metadata { element: Record { namespace: NAMESPACE, text: &spec.record } },
        forward: match spec.kind {
            NetworkKind::Nat => Some(Forward { mode: "nat" }),
            NetworkKind::Isolated => None,
        },
        bridge: Bridge { name: &spec.bridge, stp: "on", delay: 0 },
        ip: Ip {
            address: spec.subnet.gateway(),
            prefix: spec.subnet.prefix,
            dhcp: Dhcp { range: Range { start, end } },
        },
    };
    xml::write("network", &network)
}

fn check(spec: &NetworkSpec) -> Result<(), Invalid> {
    text::name("network.name", &spec.name)?;
    text::device("network.bridge", &spec.bridge)?;
    text::record("network.record", &spec.record)?;
    if !Subnet::PREFIXES.contains(&spec.subnet.prefix) {
        let problem = format!("has prefix length {}; use 8 to 29", spec.subnet.prefix);
        return Err(Invalid::new("network.subnet", problem));
    }
    Ok(())
}

#[derive(Serialize)]
struct Network<'a> {
    name: &'a str,
    uuid: Uuid,
    metadata: Metadata<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    forward: Option<Forward>,
    bridge: Bridge<'a>,
    ip: Ip,
}

#[derive(Serialize)]
struct Metadata<'a> {
    #[serde(rename = "holdfast:network")]
    element: Record<'a>,
}

#[derive(Serialize)]
struct Record<'a> {
    #[serde(rename = "@xmlns:holdfast")]
    namespace: &'a str,
    #[serde(rename = "$text")]
    text: &'a str,
}

#[derive(Serialize)]
struct Forward {
    #[serde(rename = "@mode")]
    mode: &'static str,
}

#[derive(Serialize)]
struct Bridge<'a> {
    #[serde(rename = "@name")]
    name: &'a str,
    #[serde(rename = "@stp")]
    stp: &'static str,
    /// Seconds a new port listens before it forwards; 0, or a guest's first DHCP request is lost.
    #[serde(rename = "@delay")]
    delay: u8,
}

#[derive(Serialize)]
struct Ip {
    #[serde(rename = "@address")]
    address: Ipv4Addr,
    #[serde(rename = "@prefix")]
    prefix: u8,
    dhcp: Dhcp,
}

#[derive(Serialize)]
struct Dhcp {
    range: Range,
}

#[derive(Serialize)]
struct Range {
    #[serde(rename = "@start")]
    start: Ipv4Addr,
    #[serde(rename = "@end")]
    end: Ipv4Addr,
}

#[cfg(test)]
#[path = "network_xml_tests.rs"]
mod tests;
