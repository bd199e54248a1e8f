//! The addresses of a guest, learned without an agent in it: from DHCP leases, and from whom the host has heard.

use std::net::{IpAddr, Ipv4Addr};

use holdfast_api::virtual_machine::{Address, AddressSource};

use super::context::Context;
use super::desired::{Desired, Interface};
use super::goal::Judged;
use super::observed::{Domain, State};

/// The guest chooses its addresses, and every one goes into the status: what a host has by rights is far fewer.
const MOST: usize = 16;

/// An address and the hardware address it belongs to.
struct Seen {
    mac: String,
    ip: IpAddr,
    source: AddressSource,
}

/// The addresses of a guest that runs or is paused; a source that does not answer tells of none.
pub(crate) async fn of(context: &Context, judged: &Judged) -> Vec<Address> {
    let Domain::Ours { state: State::Running | State::Paused(_), record } = &judged.domain else {
        return Vec::new();
    };
    let Ok(desired) = Desired::applied(judged.uid, record) else { return Vec::new() };
    let leases = context.libvirt.leases(judged.uid).await.unwrap_or_default();
    let neighbours = context.networks.neighbours().await.unwrap_or_default();
    let leases =
        leases.into_iter().map(|one| Seen { mac: one.mac, ip: one.ip, source: AddressSource::Lease });
    let neighbours =
        neighbours.into_iter().map(|one| Seen { mac: one.mac, ip: one.ip, source: AddressSource::Arp });
    in_order(desired.interfaces(), leases.chain(neighbours).collect())
}

/// The guest's own of all addresses seen: by interface, leases before what was only heard, IPv4 before IPv6.
fn in_order(interfaces: &[Interface], mut seen: Vec<Seen>) -> Vec<Address> {
    seen.retain(|seen| is_reachable(seen.ip));
    seen.sort_by_key(|seen| (seen.source, seen.ip));
    let mut addresses: Vec<Address> = Vec::new();
    for interface in interfaces {
        let mac = interface.mac.to_string();
        let mut own: Vec<Address> = Vec::new();
        for Seen { ip, source, .. } in seen.iter().filter(|seen| seen.mac == mac) {
            // A lease is usually heard of, too.
            if own.len() < MOST && own.iter().all(|known| known.ip != ip.to_string()) {
                own.push(Address { interface: interface.name.clone(), ip: ip.to_string(), source: *source });
            }
        }
        addresses.append(&mut own);
    }
    addresses
}

/// Whether it can be the address of one guest, whatever that one says: nobody is to follow it to the host itself.
fn is_reachable(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    !(ip.is_loopback() || ip.is_multicast() || ip.is_unspecified() || ip == Ipv4Addr::BROADCAST)
}

#[cfg(test)]
mod tests {
    use AddressSource::{Arp, Lease};

    use super::*;

    const LAN: &str = "52:54:00:00:00:01";
    const WAN: &str = "52:54:00:00:00:02";

    fn interface(name: &str, mac: &str) -> Interface {
        Interface {
            name: name.to_owned(),
            network: "default".to_owned(),
            mac: mac.parse().unwrap(),
            addresses: Vec::new(),
        }
    }

    fn seen(mac: &str, ip: &str, source: AddressSource) -> Seen {
        Seen { mac: mac.to_owned(), ip: ip.parse().unwrap(), source }
    }

    fn shown(all: Vec<Seen>) -> Vec<String> {
        let addresses = in_order(&[interface("lan", LAN), interface("wan", WAN)], all);
        addresses.iter().map(|one| format!("{} {} {:?}", one.interface, one.ip, one.source)).collect()
    }

    #[test]
    fn the_first_interface_comes_first_with_its_lease_before_what_was_heard() {
        let all = vec![
            seen(WAN, "192.0.2.7", Lease),
            seen(LAN, "10.0.0.1", Arp),
            seen(LAN, "10.0.0.9", Lease),
            seen(LAN, "fd00::9", Lease),
        ];
        let order = ["lan 10.0.0.9 Lease", "lan fd00::9 Lease", "lan 10.0.0.1 Arp", "wan 192.0.2.7 Lease"];
        assert_eq!(shown(all), order);
    }

    #[test]
    fn a_lease_that_was_heard_of_is_shown_once_and_others_guests_not_at_all() {
        let stranger = "52:54:00:00:00:03";
        let all = vec![
            seen(LAN, "10.0.0.9", Arp),
            seen(LAN, "10.0.0.9", Lease),
            seen(stranger, "10.0.0.10", Lease),
        ];
        assert_eq!(shown(all), ["lan 10.0.0.9 Lease"]);
    }

    #[test]
    fn a_guest_that_uses_a_thousand_addresses_shows_few_its_lease_first_and_keeps_none_from_others() {
        let many = (0..1000).map(|n| seen(LAN, &format!("10.0.{}.{}", n / 250, n % 250), Arp));
        let leases = [seen(LAN, "10.9.9.9", Lease), seen(WAN, "192.0.2.7", Lease)];
        let shown = shown(many.chain(leases).collect());
        assert_eq!(shown.len(), MOST + 1);
        assert_eq!((shown[0].as_str(), shown[MOST].as_str()), ("lan 10.9.9.9 Lease", "wan 192.0.2.7 Lease"));
    }

    #[test]
    fn addresses_that_are_nobodys_are_not_shown() {
        let nobodys =
            ["127.0.0.1", "224.0.0.1", "255.255.255.255", "0.0.0.0", "::1", "ff02::1", "::ffff:127.0.0.1"];
        assert!(shown(nobodys.map(|ip| seen(LAN, ip, Arp)).into()).is_empty());
    }
}
