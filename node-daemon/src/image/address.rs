//! Which addresses a tenant's URL may reach, judged on the address that is really dialled. Pure.
//!
//! The daemon runs as root on the node, so loopback services (libvirt, Parsec, a local API server) and link-local
//! ones (cloud metadata at 169.254.169.254) would take its request for a trusted one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What the configuration opens beyond ordinary addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reach {
    pub(super) loopback: bool,
    pub(super) link_local: bool,
}

/// An address the rules refuse, and what kind it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{address} is {kind}")]
pub(super) struct Refused {
    pub(super) address: IpAddr,
    pub(super) kind: &'static str,
}

impl Reach {
    /// Accepts or refuses one address. An IPv6 address that embeds an IPv4 one is judged as both.
    pub(super) fn check(self, address: IpAddr) -> Result<(), Refused> {
        let refusal = match address {
            IpAddr::V4(v4) => self.refuse_v4(v4),
            IpAddr::V6(v6) => {
                self.refuse_v6(v6).or_else(|| embedded_v4(v6).and_then(|v4| self.refuse_v4(v4)))
            }
        };
        refusal.map_or(Ok(()), |kind| Err(Refused { address, kind }))
    }

    fn refuse_v4(self, address: Ipv4Addr) -> Option<&'static str> {
        match address {
            a if a.octets()[0] == 0 => Some("an unspecified address"),
            a if a.is_loopback() && !self.loopback => Some("a loopback address"),
            a if a.is_link_local() && !self.link_local => Some("a link-local address"),
            a if a.is_multicast() || a.is_broadcast() => Some("a multicast or broadcast address"),
            _ => None,
        }
    }

    fn refuse_v6(self, address: Ipv6Addr) -> Option<&'static str> {
        match address {
            a if a.is_unspecified() => Some("an unspecified address"),
            a if a.is_loopback() && !self.loopback => Some("a loopback address"),
            a if a.is_unicast_link_local() && !self.link_local => Some("a link-local address"),
            a if a.is_multicast() => Some("a multicast or broadcast address"),
            _ => None,
        }
    }
}

/// The IPv4 address inside mapped (`::ffff:0:0/96`), compatible (`::/96`), NAT64 (`64:ff9b::/96`) and 6to4
/// (`2002::/16`) addresses: a translator on the way would dial it.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let join = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            Some(join(high, low))
        }
        [0x2002, high, low, ..] => Some(join(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Reach = Reach { loopback: false, link_local: false };
    const BOTH: Reach = Reach { loopback: true, link_local: true };

    #[test]
    fn loopback_and_link_local_are_refused_in_every_spelling() {
        for text in [
            "127.0.0.1",
            "127.255.0.3",
            "::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "169.254.169.254",
            "fe80::1",
            "febf::1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
        ] {
            assert!(NOTHING.check(text.parse().unwrap()).is_err(), "{text}");
            assert!(BOTH.check(text.parse().unwrap()).is_ok(), "{text} once configured");
        }
    }

    #[test]
    fn addresses_that_name_no_host_are_refused_even_when_all_is_configured() {
        for text in ["0.0.0.0", "0.1.2.3", "::", "::ffff:0.0.0.0", "255.255.255.255", "224.0.0.1", "ff02::1"]
        {
            assert!(BOTH.check(text.parse().unwrap()).is_err(), "{text}");
        }
    }

    #[test]
    fn site_addresses_are_reachable() {
        for text in [
            "10.1.2.3",
            "192.168.0.9",
            "172.16.0.1",
            "203.0.113.9",
            "fd00::1",
            "2001:db8::1",
            "64:ff9b::a01:203",
        ] {
            assert!(NOTHING.check(text.parse().unwrap()).is_ok(), "{text}");
        }
    }
}
