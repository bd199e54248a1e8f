//! The rules on the real kernel, each test in a network namespace of its own; needs root.
//!
//! ```text
//! g1 ── hft0000000001 ─┐
//! g2 ── hft0000000002 ─┴ bridge ── the host ── up0 ── up1, a peer that knows the way back
//! ```
//! Forged frames go first and an honest one last, so what did not arrive before that one was dropped.

use std::net::UdpSocket;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::frames::*;
use super::tests::{bridge, port, trusts};
use super::*;
use crate::network::netlink_tests::{in_namespace, ip, ip_says};

pub(super) const NAT: Kind = Kind::Nat { subnet: None };

pub(super) fn mac(digit: u8) -> Mac {
    port(digit, NAT).mac
}

/// Connects a guest of the host to a bridge of the host.
pub(super) fn plug(digit: u8, bridge: &str) -> Wire {
    let (near, far) = (port(digit, NAT).device, format!("g{digit}"));
    ip(&format!("link add {near} type veth peer name {far} address 52:54:00:00:ab:0{digit}"));
    for end in [&near, &far] {
        ip(&format!("link set {end} addrgenmode none"));
    }
    ip(&format!("link set {near} master {bridge} up"));
    ip(&format!("link set {far} arp off up"));
    // The kernel tells a bridge of a new carrier when it has the time; before, the port forwards nothing.
    let forwards = || ip_says(&format!("-d link show {near}")).contains("state forwarding");
    let mut looks = (0..500).map(|_| std::thread::sleep(std::time::Duration::from_millis(10)));
    assert!(forwards() || looks.any(|()| forwards()), "the port of {near} does not forward");
    Wire::tap(&far)
}

/// A bridge that is up, without STP.
pub(super) fn build(bridge: &str, addresses: &[&str]) {
    ip(&format!("link add {bridge} address 52:54:00:00:cd:01 type bridge"));
    for address in addresses {
        ip(&format!("address add {address} dev {bridge} nodad"));
    }
    ip(&format!("link set {bridge} up"));
}

pub(super) async fn load(ports: &[Port]) {
    let turn = Filter::default().turn().await.unwrap();
    turn.load(ports, trusts).await.unwrap();
}

pub(super) fn listed(digit: u8, kind: Kind, addresses: &[&str]) -> Port {
    let listed = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
    Port { listed, ..port(digit, kind) }
}

fn datagram(source: &str, word: &str) -> Vec<u8> {
    ipv4(EVERYBODY, mac(1), source, "10.88.5.255", &udp(9, 9, &tag(word)))
}

/// What of these frames from the first guest arrives at the second.
fn pass(from: &Wire, to: &Wire, frames: &[Vec<u8>], honest: &[u8]) -> Vec<String> {
    for frame in frames {
        from.send(frame);
    }
    from.send(honest);
    to.arrived_before("honest")
}

/// The local part of `mac` and a message of neighbour discovery from there.
fn neighbourly(source: &str, kind: u8, target: &str, word: &str) -> Vec<u8> {
    ipv6(NODES, mac(1), source, "ff02::1", 58, &discovery(kind, target, word))
}

const OWN: &str = "fe80::5054:ff:fe00:ab01";
const NONE: [String; 0] = [];

#[test]
fn a_guest_on_a_nat_or_isolated_network_speaks_only_under_its_own_addresses() {
    in_namespace(|_| async {
        build("lan0", &["10.88.5.1/24"]);
        let (guest, other) = (plug(1, "lan0"), plug(2, "lan0"));
        load(&[listed(1, NAT, &["10.88.5.9", "fd00::9"]), port(2, NAT)]).await;
        let from =
            |mac, source, word: &str| ipv4(EVERYBODY, mac, source, "10.88.5.255", &udp(9, 9, &tag(word)));
        let forged = [
            from(mac(2), "10.88.5.9", "another's hardware address"),
            from(mac(1), "10.88.5.1", "the host's address"),
            from(mac(1), "0.0.0.0", "no address"),
            ethernet(EVERYBODY, mac(1), ARP, &arp(2, mac(1), "10.88.5.1", "ARP for the host's address")),
            ethernet(EVERYBODY, mac(1), ARP, &arp(2, mac(2), "10.88.5.9", "ARP for another's hardware")),
            ethernet(EVERYBODY, mac(2), ARP, &arp(2, mac(2), "10.88.5.9", "ARP from another's hardware")),
            ethernet(
                EVERYBODY,
                mac(1),
                ARP,
                &[&[0, 1, 8, 0, 8, 4, 0, 2], &tag("ARP of another shape")[..]].concat(),
            ),
            neighbourly("fd00::8", 135, "fd00::8", "another IPv6 address"),
            neighbourly("fe80::1", 135, "fe80::1", "another link-local address"),
            neighbourly(OWN, 136, "fe80::1", "answering for another"),
            neighbourly("::", 134, "::", "a router without an address"),
        ];
        assert_eq!(pass(&guest, &other, &forged, &datagram("10.88.5.9", "honest")), NONE);
        let own = [
            ethernet(EVERYBODY, mac(1), ARP, &arp(1, mac(1), "10.88.5.9", "ARP")),
            ethernet(EVERYBODY, mac(1), ARP, &arp(1, mac(1), "0.0.0.0", "ARP probe")),
            neighbourly("fd00::9", 135, "fd00::1", "listed IPv6"),
            neighbourly("::", 135, OWN, "IPv6 probe"),
            neighbourly(OWN, 136, OWN, "IPv6 answer"),
        ];
        let heard = pass(&guest, &other, &own, &datagram("10.88.5.9", "honest"));
        assert_eq!(heard, ["ARP", "ARP probe", "listed IPv6", "IPv6 probe", "IPv6 answer"]);
    });
}

/// The first part of a datagram between ordinary ports (RFC 8200 section 4.5).
fn fragment(word: &str) -> Vec<u8> {
    [&[17, 0, 0, 1, 0, 0, 0, 5][..], &udp(4711, 4712, &tag(word))].concat()
}

/// What only a server, a router or a bridge says, each also in disguise.
fn usurping() -> Vec<Vec<u8>> {
    let offer = |from, to, word| {
        ipv4(
            EVERYBODY,
            mac(1),
            "10.66.0.7",
            "255.255.255.255",
            &udp(from, to, &dhcp(2, mac(2), "10.66.0.9", word)),
        )
    };
    let six = |from, to, word: &str| ipv6(NODES, mac(1), OWN, "ff02::1", 17, &udp(from, to, &tag(word)));
    let router = |word| discovery(134, "::", word);
    let options = [&[58, 0, 1, 4, 0, 0, 0, 0][..], &router("router behind options")].concat();
    let fragment =
        [&[60, 0, 0, 1, 0, 0, 0, 1, 58, 0, 1, 4, 0, 0, 0, 0][..], &tag("router in fragments")].concat();
    // An option that fills the first fragment keeps the ports, or what kind of message it is, for the second one.
    let begin = |next: u8, rest: &[u8]| {
        let head = [next, 0, 0, 1, 0, 0, 0, 9];
        ipv6(NODES, mac(1), "fd00::7", "ff02::1", 44, &[&head[..], rest].concat())
    };
    let hidden = [&[17, 7, 1, 4, 0, 0, 0, 0][..], &tag("the begin of a DHCPv6 answer in fragments")].concat();
    let short = [&[60, 7, 1, 4, 0, 0, 0, 0][..], &tag("options that never end")].concat();
    vec![
        begin(60, &hidden),
        begin(58, &router("router in a fragment of a global address")),
        ipv6(NODES, mac(1), "fd00::7", "ff02::1", 60, &short),
        offer(67, 68, "DHCP offer"),
        offer(4711, 68, "DHCP offer from another port"),
        six(547, 546, "DHCPv6 answer"),
        six(4711, 546, "DHCPv6 answer from another port"),
        neighbourly(OWN, 134, "::", "router"),
        neighbourly(OWN, 137, "fd00::1", "redirect"),
        ipv6(NODES, mac(1), OWN, "ff02::1", 60, &options),
        ipv6(NODES, mac(1), OWN, "ff02::1", 44, &fragment),
        ethernet(BRIDGES, mac(1), 38, &[&[0x42, 0x42, 3, 0, 0, 0, 0, 0][..], &tag("BPDU")].concat()),
        ethernet([0x01, 0x00, 0x0c, 0xcc, 0xcc, 0xcd], mac(1), 50, &tag("BPDU of Cisco's")),
        ethernet(EVERYBODY, mac(1), VLAN, &[&[0, 5, 8, 0][..], &tag("VLAN 5")].concat()),
        ethernet(EVERYBODY, mac(1), VLAN, &[&[0, 0, 0x86, 0xdd][..], &tag("priority tag")].concat()),
        ethernet(EVERYBODY, mac(1), 0x88a8, &[&[0, 5, 8, 0][..], &tag("QinQ")].concat()),
        ethernet(EVERYBODY, mac(1), 60, &[&[0xaa, 0xaa, 3, 0, 0, 0, 0x86, 0xdd][..], &tag("SNAP")].concat()),
        ipv4(EVERYBODY, mac(2), "10.66.0.7", "10.66.0.255", &udp(9, 9, &tag("another's hardware address"))),
        ethernet(EVERYBODY, mac(1), ARP, &arp(2, mac(2), "10.66.0.7", "ARP for another's hardware")),
    ]
}

#[test]
fn a_guest_on_a_bridge_is_no_dhcp_server_no_router_and_no_bridge() {
    in_namespace(|_| async {
        build("br0", &[]);
        let (guest, other) = (plug(1, "br0"), plug(2, "br0"));
        load(&[port(1, bridge("br0", None)), port(2, bridge("br0", None))]).await;
        let heard = pass(&guest, &other, &usurping(), &datagram("10.66.0.7", "honest"));
        assert_eq!(heard, NONE);

        let free = [
            datagram("10.66.0.8", "any address"),
            ethernet(EVERYBODY, mac(1), ARP, &arp(2, mac(1), "10.66.0.8", "ARP for it")),
            neighbourly("fd00::8", 136, "fd00::8", "any IPv6 address"),
            ipv6(NODES, mac(1), "fd00::8", "ff02::1", 44, &fragment("a large datagram")),
            ethernet(EVERYBODY, mac(1), 0x8892, &tag("PROFINET")),
            ipv4(
                EVERYBODY,
                mac(1),
                "0.0.0.0",
                "255.255.255.255",
                &udp(68, 67, &dhcp(1, mac(1), "0.0.0.0", "asking for an address")),
            ),
        ];
        let heard = pass(&guest, &other, &free, &datagram("10.66.0.7", "honest"));
        assert_eq!(
            heard,
            [
                "any address",
                "ARP for it",
                "any IPv6 address",
                "a large datagram",
                "PROFINET",
                "asking for an address"
            ]
        );
    });
}

#[test]
fn addresses_on_a_bridge_are_pinned_only_where_they_are_listed() {
    in_namespace(|_| async {
        build("br0", &[]);
        let (guest, other) = (plug(1, "br0"), plug(2, "br0"));
        load(&[listed(1, bridge("br0", None), &["192.168.120.10", "fd00::10"])]).await;
        let forged = [
            datagram("192.168.120.1", "the gateway's address"),
            ethernet(
                EVERYBODY,
                mac(1),
                ARP,
                &arp(2, mac(1), "192.168.120.1", "ARP for the gateway's address"),
            ),
            neighbourly("fd00::1", 136, "fd00::1", "the gateway's IPv6 address"),
        ];
        assert_eq!(pass(&guest, &other, &forged, &datagram("192.168.120.10", "honest")), NONE);
    });
}

#[test]
fn a_guest_on_a_trusted_bridge_may_be_a_router() {
    in_namespace(|_| async {
        build("br-lab", &[]);
        let (guest, other) = (plug(1, "br-lab"), plug(2, "br-lab"));
        let trusted = [port(1, bridge("br-lab", None)), port(2, bridge("br-lab", None))];
        load(&trusted).await;
        let heard = pass(&guest, &other, &usurping(), &datagram("10.66.0.7", "honest"));
        assert_eq!(heard.len(), usurping().len(), "{heard:?}");
    });
}

#[test]
fn a_bridge_that_speaks_stp_hears_nothing_of_it_from_a_guest() {
    in_namespace(|kernel| async move {
        build("br0", &[]);
        ip("link set br0 type bridge stp_state 1 forward_delay 200");
        let (guest, host) = (plug(1, "br0"), Wire::tap(&port(1, NAT).device));
        let filter = Filter::default();
        let ports = [port(1, bridge("br0", None)), port(2, bridge("br0", None))];
        filter.turn().await.unwrap().load(&ports, |_| false).await.unwrap();
        filter.screen().await.unwrap();
        assert_eq!(kernel.unscreened().await.unwrap(), []);

        while ip_says("-d link show hft0000000001").contains("state disabled") {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }

        // Who has the highest priority there is wants to be the root of all (IEEE 802.1D clause 9.3.1).
        let root = [&[0, 0][..], &mac(1)].concat();
        let ages = [0x80, 1, 0, 0, 20, 0, 2, 0, 15, 0];
        let claim = [&[0x42, 0x42, 3, 0, 0, 0, 0, 0][..], &root, &[0; 4], &root, &ages].concat();
        guest.send(&ethernet(BRIDGES, mac(1), 38, &claim));
        // The bridge has heard it once a later one of the same card is under way.
        guest.send(&datagram("10.66.0.7", "honest"));
        host.arrived_before("honest");
        let bridge = ip_says("-d link show br0");
        assert!(bridge.contains("root_port 0 "), "the guest became the root: {bridge}");
    });
}

#[test]
fn an_address_counts_from_the_moment_the_hosts_dhcp_server_gives_it_and_for_that_guest_alone() {
    in_namespace(|_| async {
        build("lan0", &["10.88.5.1/24"]);
        let (guest, other) = (plug(1, "lan0"), plug(2, "lan0"));
        let ports = [port(1, NAT), port(2, NAT)];
        load(&ports).await;
        let ask = |client, word| {
            ipv4(
                EVERYBODY,
                mac(1),
                "0.0.0.0",
                "255.255.255.255",
                &udp(68, 67, &dhcp(1, client, "0.0.0.0", word)),
            )
        };
        let early = [ask(mac(2), "asking for another"), datagram("10.88.5.7", "too early")];
        assert_eq!(pass(&guest, &other, &early, &ask(mac(1), "honest")), NONE);

        let server = UdpSocket::bind("10.88.5.1:67").unwrap();
        server.set_broadcast(true).unwrap();
        // Everybody hears who gets what. What was only offered counts for nobody.
        for (message, client, given) in
            [(2, mac(1), "10.88.5.6"), (5, mac(1), "10.88.5.7"), (5, mac(2), "10.88.5.8")]
        {
            server.send_to(&dhcp(message, client, given, "answer"), "10.88.5.255:68").unwrap();
        }
        let forged =
            [datagram("10.88.5.8", "the address of the other"), datagram("10.88.5.6", "what was offered")];
        assert_eq!(pass(&guest, &other, &forged, &datagram("10.88.5.7", "honest")), ["answer"; 3]);
        load(&ports).await;
        assert_eq!(pass(&guest, &other, &forged, &datagram("10.88.5.7", "honest")), NONE);
    });
}

#[test]
fn a_guest_nobody_knows_is_closed_until_its_rules_come_and_rules_that_were_removed_come_back() {
    in_namespace(|_| async {
        build("br0", &[]);
        let (guest, other) = (plug(1, "br0"), plug(2, "br0"));
        let (first, second) = (port(1, bridge("br0", None)), port(2, bridge("br0", None)));
        load(std::slice::from_ref(&second)).await;
        guest.send(&datagram("10.66.0.7", "unknown"));
        load(&[first.clone(), second.clone()]).await;
        assert_eq!(pass(&guest, &other, &[], &datagram("10.66.0.7", "honest")), NONE);

        nft("flush ruleset");
        load(&[first, second]).await;
        let heard = pass(&guest, &other, &usurping(), &datagram("10.66.0.7", "honest"));
        assert_eq!(heard, NONE);
    });
}

#[test]
fn without_nft_nothing_is_loaded_and_the_remedy_is_named() {
    in_namespace(|_| async {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("empty"), "/usr/sbin", Some("tmpfs"), MsFlags::empty(), none).unwrap();
        let turn = Filter::default().turn().await.unwrap();
        let error = crate::network::Error::from(turn.load(&[port(1, NAT)], |_| false).await.unwrap_err());
        assert_eq!(error.reason(), "FilterMissing");
        assert!(error.to_string().contains("install the package nftables on the node"), "{error}");
    });
}

#[test]
fn whoever_asked_before_the_last_look_needs_no_load_of_their_own() {
    in_namespace(|_| async {
        let filter = Filter::default();
        let first = filter.turn().await.unwrap();
        let (mut early, mut late) = (Box::pin(filter.turn()), Box::pin(filter.turn()));
        assert!(futures::poll!(&mut early).is_pending() && futures::poll!(&mut late).is_pending());
        first.load(&[port(1, NAT)], |_| false).await.unwrap();
        // They asked after the first had looked, so one of them looks for both.
        early.await.unwrap().load(&[port(1, NAT)], |_| false).await.unwrap();
        assert!(late.await.is_none());
    });
}

#[test]
fn rules_that_were_removed_come_back_though_nobody_can_say_which_guests_there_are() {
    in_namespace(|_| async {
        build("lan0", &["10.88.5.1/24"]);
        let (guest, other) = (plug(1, "lan0"), plug(2, "lan0"));
        let filter = Filter::default();
        filter.turn().await.unwrap().repeat().await.unwrap();
        let ports = [listed(1, NAT, &["10.88.5.9"]), port(2, NAT)];
        filter.turn().await.unwrap().load(&ports, trusts).await.unwrap();
        nft("flush ruleset");
        filter.turn().await.unwrap().repeat().await.unwrap();
        let forged = [datagram("10.88.5.8", "forged")];
        assert_eq!(pass(&guest, &other, &forged, &datagram("10.88.5.9", "honest")), NONE);
    });
}

#[test]
fn rules_of_another_version_make_room() {
    in_namespace(|_| async {
        nft(
            "table bridge holdfast { set macs { type ipv4_addr; }; chain prerouting { type filter hook prerouting priority 7; }; }",
        );
        load(&[port(1, NAT)]).await;
    });
}

fn nft(words: &str) {
    let done = std::process::Command::new("nft").arg(words).output().expect("peer missing: nftables");
    assert!(done.status.success(), "nft {words}: {}", String::from_utf8_lossy(&done.stderr));
}
