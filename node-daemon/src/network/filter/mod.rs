//! What guests may send and where it may go: one nftables table of ours per family (`rules.nft`), whose sets are filled
//! from all guests at once. The text is pure and golden-tested; `nft` loads it in one transaction.
//!
//! ```text
//! guest ── hft… (port) ── bridge holdfast: own hardware address, own addresses, no server's and no bridge's words
//!                └─ hf… (bridge) ── inet holdfast: of the host DHCP, DNS and an echo; beyond it what its network allows
//! ```
//! Guarantees: a port that the sets do not know is closed; rules stay while the daemon is away; loading twice changes
//! nothing. Called before each start and by the sweep, which puts back what somebody removed.

mod load;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::record::{Kind, NetworkRecord};

pub(super) use load::Filter;
pub(crate) use load::{Error as LoadError, Turn};

/// The rules, with empty sets.
const RULES: &str = include_str!("rules.nft");

/// One interface of one guest, as the host sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    /// Its device on the host.
    pub(crate) device: String,
    /// Hardware address of the guest's side.
    pub(crate) mac: [u8; 6],
    /// What it is connected to.
    pub(crate) network: NetworkRecord,
    /// The addresses its spec lists.
    pub(crate) listed: Vec<IpAddr>,
    /// The addresses the host's DHCP server gave it.
    pub(crate) leased: Vec<Ipv4Addr>,
}

/// Elements by family and name of their set.
#[derive(Default)]
struct Sets(BTreeMap<(&'static str, &'static str), BTreeSet<String>>);

/// The text for `nft -f`: the rules, and the sets of these guests. `trusts` says where guests may send what
/// they like. A device's name is a hash, and who makes machines can look for two that share one: such a device is in no
/// set, so it is closed and none of them speaks by the rights of another.
fn text(ports: &[Port], trusts: impl Fn(&NetworkRecord) -> bool) -> String {
    let mut sets = Sets::default();
    for port in ports {
        let shared = ports.iter().filter(|other| other.device == port.device).count() > 1;
        if shared {
            tracing::warn!(device = port.device, "two interfaces have one device; its port is closed");
        } else if trusts(&port.network) {
            sets.port("trusted", port);
        } else {
            sets.guarded(port);
        }
        sets.network(&port.network);
    }
    let mut text = RULES.to_owned();
    for ((family, set), elements) in sets.0 {
        let elements: Vec<String> = elements.into_iter().collect();
        let _ = writeln!(text, "add element {family} holdfast {set} {{ {} }}", elements.join(", "));
    }
    text
}

impl Port {
    /// The address the kernel of a guest makes from its hardware address (RFC 4291, appendix A).
    fn link_local(&self) -> Ipv6Addr {
        let (vendor, card) = self.mac.split_at(3);
        let mut address = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x00ff, 0xfe00, 0).octets();
        address[8..11].copy_from_slice(vendor);
        address[8] ^= 2;
        address[13..].copy_from_slice(card);
        address.into()
    }
}

impl Sets {
    fn add(&mut self, family: &'static str, set: &'static str, element: String) {
        self.0.entry((family, set)).or_default().insert(element);
    }

    fn port(&mut self, set: &'static str, port: &Port) {
        self.add("bridge", set, format!("\"{}\"", port.device));
    }

    fn pair(&mut self, set: &'static str, port: &Port, value: &str) {
        self.add("bridge", set, format!("\"{}\" . {value}", port.device));
    }

    fn guarded(&mut self, port: &Port) {
        let pairs = port.mac.map(|byte| format!("{byte:02x}"));
        self.pair("macs", port, &pairs.join(":"));
        self.pair("clients", port, &format!("0x{}", pairs.concat()));
        if port.network.is_served() {
            self.port("served", port);
        }
        if port.network.is_served() || !port.listed.is_empty() {
            self.port("pinned", port);
            self.address(port, port.link_local().into());
        }
        for ip in &port.listed {
            self.address(port, *ip);
        }
        for ip in port.leased.iter().filter(|_| port.network.is_served()) {
            self.pair("leased", port, &format!("{:#010x}", ip.to_bits()));
        }
    }

    fn address(&mut self, port: &Port, ip: IpAddr) {
        match ip {
            IpAddr::V4(ip) => self.pair("listed4", port, &format!("{:#010x}", ip.to_bits())),
            IpAddr::V6(ip) => self.pair("listed6", port, &format!("{:#034x}", ip.to_bits())),
        }
    }

    fn network(&mut self, network: &NetworkRecord) {
        let of_host: &[&'static str] = match network.kind {
            Kind::Nat { .. } => &["bridges", "served", "nat"],
            Kind::Isolated { .. } => &["bridges", "served"],
            Kind::Bridge { vlan: Some(_), .. } => &["bridges"],
            // The host's own bridge: what the host lets in there is for its operator to say.
            Kind::Bridge { vlan: None, .. } => return,
        };
        let bridge = network.bridge();
        for set in of_host {
            self.add("inet", set, format!("\"{bridge}\""));
        }
        self.add("inet", "within", format!("\"{bridge}\" . \"{bridge}\""));
    }
}

#[cfg(test)]
mod frames;
#[cfg(test)]
mod host_tests;
#[cfg(test)]
mod kernel_tests;
#[cfg(test)]
mod tests;
