//! The addresses of a guest, learned without an agent in it: from DHCP leases, and from whom the host has heard.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use holdfast_api::virtual_machine::{Address, AddressSource};

use super::context::Context;
use super::desired::{Desired, Interface};
use super::goal::Judged;
use super::observed::{Domain, State};
use crate::network::NetworkRecord;

/// The guest chooses its addresses, and every one goes into the status: what a host has by rights is far fewer.
const MOST: usize = 16;

/// Where an interface is plugged in.
struct Plug<'a> {
    interface: &'a Interface,
    network: &'a NetworkRecord,
}

/// An address and the hardware address it belongs to.
struct Seen {
    mac: String,
    ip: IpAddr,
    by: Told,
}

/// Who told of it.
enum Told {
    /// The DHCP server of a network of ours.
    Lease,
    /// The guest itself, on this device.
    Heard(String),
}

/// The addresses of a guest that runs or is paused; while libvirt does not answer, those that were known last.
pub(crate) async fn of(context: &Context, judged: &Judged) -> Vec<Address> {
    let Domain::Ours { state: State::Running | State::Paused(_), record } = &judged.domain else {
        return Vec::new();
    };
    let Ok(desired) = Desired::applied(judged.uid, record) else { return Vec::new() };
    let plug = |interface| Some(Plug { interface, network: record.networks.get(&interface.name)? });
    let plugs: Vec<Plug> = desired.interfaces().iter().filter_map(plug).collect();
    let leases = match context.libvirt.leases(judged.uid).await {
        Ok(leases) => leases,
        Err(error) if error.is_no_answer() => return known(judged),
        Err(_) => Vec::new(),
    };
    let neighbours = context.networks.neighbours().await.unwrap_or_default();
    let leases = leases.into_iter().map(|one| Seen { mac: one.mac, ip: one.ip, by: Told::Lease });
    let neighbours =
        neighbours.into_iter().map(|one| Seen { mac: one.mac, ip: one.ip, by: Told::Heard(one.device) });
    in_order(&plugs, &leases.chain(neighbours).collect::<Vec<_>>())
}

fn known(judged: &Judged) -> Vec<Address> {
    let status = judged.object.as_ref().and_then(|vm| vm.status.as_ref());
    status.map(|status| status.addresses.clone()).unwrap_or_default()
}

/// The guest's own of all addresses seen: by interface, leases before what was only heard, IPv4 before IPv6.
fn in_order(plugs: &[Plug], seen: &[Seen]) -> Vec<Address> {
    let mut addresses: Vec<Address> = Vec::new();
    for plug in plugs {
        let mut own: Vec<(AddressSource, IpAddr)> = seen.iter().filter_map(|seen| plug.own(seen)).collect();
        own.sort_unstable();
        let mut known = BTreeSet::new();
        // A lease is usually heard of, too.
        own.retain(|(_, ip)| known.insert(*ip));
        own.truncate(MOST);
        let name = &plug.interface.name;
        addresses.extend(own.into_iter().map(|(source, ip)| Address {
            interface: name.clone(),
            ip: ip.to_string(),
            source,
        }));
    }
    addresses
}

impl Plug<'_> {
    /// The address and its source, where it is this interface's. Elsewhere than on its own bridge anybody can claim to be
    /// it, and where the host gives addresses only those count, and those of the spec.
    fn own(&self, seen: &Seen) -> Option<(AddressSource, IpAddr)> {
        let source = match &seen.by {
            Told::Lease if self.network.is_served() => AddressSource::Lease,
            Told::Heard(device) if *device == self.network.bridge() && self.may_use(seen.ip) => {
                AddressSource::Arp
            }
            Told::Lease | Told::Heard(_) => return None,
        };
        (seen.mac == self.interface.mac.to_string() && is_reachable(seen.ip)).then_some((source, seen.ip))
    }

    fn may_use(&self, ip: IpAddr) -> bool {
        !self.network.is_served() || self.interface.addresses.contains(&ip)
    }
}

/// Whether it can be the address of one guest, whatever that one says: nobody is to follow it to the host itself.
fn is_reachable(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    !(ip.is_loopback() || ip.is_multicast() || ip.is_unspecified() || ip == Ipv4Addr::BROADCAST)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LAN: &str = "52:54:00:00:00:01";
    const WAN: &str = "52:54:00:00:00:02";
    const LISTED: &str = "10.0.0.77";

    fn interface(name: &str, mac: &str) -> Interface {
        Interface {
            name: name.to_owned(),
            network: "default".to_owned(),
            mac: mac.parse().unwrap(),
            addresses: vec![LISTED.parse().unwrap()],
        }
    }

    fn network(kind: &serde_json::Value) -> NetworkRecord {
        let uid = uuid::Uuid::from_u128(7);
        serde_json::from_value(json!({"uid": uid, "name": "shop/lan", "kind": kind})).unwrap()
    }

    fn leased(mac: &str, ip: &str) -> Seen {
        Seen { mac: mac.to_owned(), ip: ip.parse().unwrap(), by: Told::Lease }
    }

    fn heard(mac: &str, ip: &str, device: &str) -> Seen {
        Seen { by: Told::Heard(device.to_owned()), ..leased(mac, ip) }
    }

    /// Of a guest with one interface on a NAT network and one on the bridge br0.
    fn shown(seen: &[Seen]) -> Vec<String> {
        let interfaces = [interface("lan", LAN), interface("wan", WAN)];
        let networks = [
            network(&json!({"nat": {"subnet": null}})),
            network(&json!({"bridge": {"name": "br0", "vlan": null}})),
        ];
        let plug = |(interface, network)| Plug { interface, network };
        let plugs: Vec<Plug> = interfaces.iter().zip(&networks).map(plug).collect();
        let addresses = in_order(&plugs, seen);
        addresses.iter().map(|one| format!("{} {} {:?}", one.interface, one.ip, one.source)).collect()
    }

    #[test]
    fn the_first_interface_comes_first_and_ipv4_before_ipv6() {
        let all = [heard(WAN, "fd00::7", "br0"), heard(WAN, "192.0.2.7", "br0"), leased(LAN, "10.0.0.9")];
        assert_eq!(shown(&all), ["lan 10.0.0.9 Lease", "wan 192.0.2.7 Arp", "wan fd00::7 Arp"]);
    }

    #[test]
    fn addresses_come_from_the_interfaces_own_bridge() {
        let elsewhere = [
            heard(WAN, "192.0.2.8", "br1"),
            heard(WAN, "192.0.2.9", "eth0"),
            heard(LAN, "192.0.2.10", "br0"),
            leased(WAN, "10.0.0.9"),
        ];
        assert!(shown(&elsewhere).is_empty());
    }

    #[test]
    fn where_the_host_gives_addresses_none_is_believed_that_was_only_heard_unless_the_spec_lists_it() {
        let bridge = network(&json!({"nat": {"subnet": null}})).bridge();
        let all = [
            heard(LAN, "10.0.0.1", &bridge),
            heard(LAN, LISTED, &bridge),
            heard(LAN, "10.0.0.9", &bridge),
            leased(LAN, "10.0.0.9"),
        ];
        assert_eq!(shown(&all), ["lan 10.0.0.9 Lease", "lan 10.0.0.77 Arp"]);
    }

    #[test]
    fn addresses_of_other_guests_are_not_shown() {
        let stranger = "52:54:00:00:00:03";
        assert!(shown(&[heard(stranger, "192.0.2.7", "br0"), leased(stranger, "10.0.0.10")]).is_empty());
    }

    #[test]
    fn a_guest_that_uses_a_thousand_addresses_shows_few_and_keeps_none_from_others() {
        let mut all: Vec<Seen> =
            (0..1000).map(|n| heard(WAN, &format!("10.0.{}.{}", n / 250, n % 250), "br0")).collect();
        all.extend([leased(LAN, "10.9.9.9"), heard(WAN, "10.0.0.1", "br0")]);
        let shown = shown(&all);
        assert_eq!((shown.len(), shown[0].as_str()), (MOST + 1, "lan 10.9.9.9 Lease"));
    }

    #[test]
    fn addresses_that_are_nobodys_are_not_shown() {
        let nobodys =
            ["127.0.0.1", "224.0.0.1", "255.255.255.255", "0.0.0.0", "::1", "ff02::1", "::ffff:127.0.0.1"];
        assert!(shown(&nobodys.map(|ip| heard(WAN, ip, "br0"))).is_empty());
    }
}
