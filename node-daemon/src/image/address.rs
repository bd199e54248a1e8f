//! Which addresses a tenant's URL may reach, judged on the address that is really dialled.
//!
//! The daemon runs as root on the node, so services of the host, the API server and clouds' metadata services would take
//! its request for a trusted one. What the operator lists opens exactly what it names: an entry that is wider than what is
//! refused opens nothing of it, so that a list of the site's networks does not open the host in their midst.
//!
//! ```text
//! names no host ─► refused    listed, the longest entry decides (deny wins a tie)    else what it is to the host
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::host_addresses::{HostAddresses, METADATA, Role};

/// What the configuration opens and closes beyond ordinary addresses.
#[derive(Debug, Clone, Default)]
pub(super) struct Reach {
    pub(super) loopback: bool,
    pub(super) link_local: bool,
    pub(super) allow: Vec<IpNet>,
    pub(super) deny: Vec<IpNet>,
    pub(super) host: HostAddresses,
}

/// An address the rules refuse, and what kind it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{address} is {kind}")]
pub(super) struct Refused {
    pub(super) address: IpAddr,
    pub(super) kind: &'static str,
}

/// What the lists say of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listed {
    Not,
    Denied,
    /// By an entry of this length.
    Allowed {
        prefix: u8,
    },
}

impl Reach {
    /// Accepts or refuses one address. An IPv6 address that embeds IPv4 ones is judged as all of them.
    pub(super) fn check(&self, address: IpAddr) -> Result<(), Refused> {
        let mut views = std::iter::once(address).chain(embedded(address).into_iter().map(IpAddr::V4));
        views.find_map(|view| self.refuse(view)).map_or(Ok(()), |kind| Err(Refused { address, kind }))
    }

    fn refuse(&self, address: IpAddr) -> Option<&'static str> {
        if let Some(kind) = no_host(address) {
            return Some(kind);
        }
        let prefix = match self.listed(address) {
            Listed::Denied => return Some("in a network that imageSources.deny lists"),
            Listed::Allowed { prefix } => prefix,
            Listed::Not => 0,
        };
        let (exact, loopback, link_local) = match address {
            IpAddr::V4(_) => (prefix == 32, prefix >= 8, prefix >= 16),
            IpAddr::V6(_) => (prefix == 128, prefix == 128, prefix >= 10),
        };
        match address {
            _ if exact => None,
            a if METADATA.contains(&a) => Some(Role::Metadata.noun()),
            a if a.is_loopback() => (!self.loopback && !loopback).then_some("a loopback address"),
            a if is_link_local(a) && !self.link_local && !link_local => Some("a link-local address"),
            a => self.role(a),
        }
    }

    /// What the host says of it; where it says nothing, nobody knows what would be opened.
    fn role(&self, address: IpAddr) -> Option<&'static str> {
        match self.host.role(address) {
            Ok(role) => role.map(Role::noun),
            Err(error) => {
                tracing::warn!(%error, "the addresses of this host could not be read");
                Some("perhaps an address of this host")
            }
        }
    }

    fn listed(&self, address: IpAddr) -> Listed {
        let longest = |nets: &[IpNet]| {
            let containing = nets.iter().filter(|net| net.contains(&address));
            containing.map(IpNet::prefix_len).max()
        };
        match (longest(&self.deny), longest(&self.allow)) {
            (Some(deny), allow) if allow.is_none_or(|allow| deny >= allow) => Listed::Denied,
            (_, Some(prefix)) => Listed::Allowed { prefix },
            (_, None) => Listed::Not,
        }
    }
}

/// Addresses that no entry of a list can open, because nobody is reached by them.
fn no_host(address: IpAddr) -> Option<&'static str> {
    let (unspecified, many) = match address {
        IpAddr::V4(a) => (a.octets()[0] == 0, a.is_multicast() || a.is_broadcast()),
        IpAddr::V6(a) => (a.is_unspecified(), a.is_multicast()),
    };
    match (unspecified, many) {
        (true, _) => Some("an unspecified address"),
        (_, true) => Some("a multicast or broadcast address"),
        (false, false) => None,
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => a.is_link_local(),
        IpAddr::V6(a) => a.is_unicast_link_local(),
    }
}

/// The IPv4 addresses inside an IPv6 one: a translator or a tunnel on the way would dial them. Mapped (`::ffff:0:0/96`),
/// compatible (`::/96`), NAT64 (RFC 6052, RFC 8215), 6to4 (RFC 3056) and Teredo (RFC 4380, both its server and its client).
fn embedded(address: IpAddr) -> Vec<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return Vec::new() };
    let join = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => Vec::new(),
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            vec![join(high, low)]
        }
        [0x64, 0xff9b, 1, ..] => local_nat64(address),
        [0x2002, high, low, ..] => vec![join(high, low)],
        [0x2001, 0, high, low, _, _, client_high, client_low] => {
            vec![join(high, low), join(!client_high, !client_low)]
        }
        _ => Vec::new(),
    }
}

/// Within `64:ff9b:1::/48` a site chooses the length of its prefix, so the address may stand at four places (RFC 6052
/// section 2.2; octet 8 is skipped). Zeros at the others are no address.
fn local_nat64(address: Ipv6Addr) -> Vec<Ipv4Addr> {
    let o = address.octets();
    let places = [[6, 7, 9, 10], [7, 9, 10, 11], [9, 10, 11, 12], [12, 13, 14, 15]];
    let found = places.map(|place| Ipv4Addr::from(place.map(|at| o[at])));
    found.into_iter().filter(|found| found.octets()[0] != 0).collect()
}

#[cfg(test)]
#[path = "address_tests.rs"]
mod tests;
