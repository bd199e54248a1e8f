//! What guests reach of their host and beyond it, on the real kernel, tried one-way; needs root.
//!
//! ```text
//! g1 ── hft0000000001 ── hf… 10.88.5.1 ── the host ── up0 198.51.100.1 ── up1 198.51.100.2, which knows the way back
//! ```

use std::fs;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::Duration;

use super::frames::*;
use super::kernel_tests::{NAT, build, listed, load, mac, plug};
use super::tests::bridge;
use super::*;
use crate::network::netlink_tests::{in_namespace, ip};

const ISOLATED: Kind = Kind::Isolated { subnet: None };
/// Of each bridge, and of the host's end of the cable to the peer.
const HOST: Mac = [0x52, 0x54, 0, 0, 0xcd, 1];
const PEER: Mac = [0x52, 0x54, 0, 0, 0xcd, 2];

/// The bridge that the guest of this number is on.
fn lan(digit: u8) -> String {
    super::tests::port(digit, NAT).network.bridge()
}

fn set(path: &str, value: &str) {
    fs::write(format!("/proc/sys/net/{path}"), value).unwrap();
}

/// A host that forwards whatever its rules let it, even to its loopback addresses, as kube-proxy sets it up; and a peer
/// that sends and answers without asking who has which address.
fn build_host() -> Wire {
    ip("link set lo up");
    ip("address add 169.254.169.254/32 dev lo");
    ip("link add up0 address 52:54:00:00:cd:01 type veth peer name up1 address 52:54:00:00:cd:02");
    ip("address add 198.51.100.1/24 dev up0");
    ip("address add fd00:9::1/64 dev up0 nodad");
    for end in ["up0", "up1"] {
        ip(&format!("link set {end} arp off up"));
    }
    for address in ["198.51.100.2", "100.100.100.200", "fd00:9::2"] {
        ip(&format!("neighbour add {address} lladdr 52:54:00:00:cd:02 dev up0"));
    }
    ip("route add 100.100.100.200 dev up0");
    for (path, value) in [
        ("ipv4/ip_forward", "1"),
        ("ipv6/conf/all/forwarding", "1"),
        ("ipv4/conf/all/route_localnet", "1"),
        ("ipv4/conf/up1/forwarding", "0"),
        ("ipv6/conf/up1/forwarding", "0"),
    ] {
        set(path, value);
    }
    Wire::tap("up1")
}

/// A guest of the network of this number, whose addresses end with 9.
fn settle(digit: u8, net: u8) -> Wire {
    let lan = lan(digit);
    build(&lan, &[&format!("10.88.{net}.1/24"), &format!("fd00:{net}::1/64")]);
    let wire = plug(digit, &lan);
    for address in [format!("10.88.{net}.9"), format!("fd00:{net}::9")] {
        ip(&format!("neighbour add {address} lladdr 52:54:00:00:ab:0{digit} dev {lan}"));
    }
    set(&format!("ipv4/conf/g{digit}/forwarding"), "0");
    set(&format!("ipv6/conf/g{digit}/forwarding"), "0");
    wire
}

fn guest(digit: u8, net: u8, kind: Kind) -> Port {
    listed(digit, kind, &[&format!("10.88.{net}.9"), &format!("fd00:{net}::9")])
}

fn service(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    socket
}

/// The words that a service has heard; called when all that was sent has arrived.
fn heard(service: &UdpSocket) -> Vec<String> {
    service.set_nonblocking(true).unwrap();
    let mut words = Vec::new();
    let mut buffer = [0; 512];
    loop {
        match service.recv(&mut buffer) {
            Ok(length) => words.push(String::from_utf8_lossy(&buffer[..length]).into_owned()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return words,
            Err(error) => panic!("{error}"),
        }
    }
}

fn word(socket: &UdpSocket) -> String {
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer).expect("the service hears it");
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

fn datagram(target: &str, port: u16, word: &str) -> Vec<u8> {
    ipv4(HOST, mac(1), "10.88.5.9", target, &udp(5555, port, &tag(word)))
}

/// Every door of the host that is not the network's own DHCP, DNS and echo.
fn knock(guest: &Wire) {
    for (target, port) in [
        ("10.88.5.1", 7777),
        ("198.51.100.1", 7777),
        ("127.0.0.1", 7777),
        ("169.254.169.254", 7777),
        ("198.51.100.1", 53),
        ("127.0.0.1", 53),
    ] {
        guest.send(&datagram(target, port, &format!("{target} {port}")));
    }
    for target in ["fd00:5::1", "fd00:9::1"] {
        guest.send(&udp6(HOST, mac(1), "fd00:5::9", target, 7777, target));
    }
    guest.send(&echo(HOST, mac(1), "10.88.5.9", "198.51.100.1", "another address"));
}

#[test]
fn guests_reach_of_their_host_dhcp_and_dns_of_their_network_and_nothing_else() {
    for kind in [NAT, ISOLATED] {
        in_namespace(|_| async {
            let _peer = build_host();
            let wire = settle(1, 5);
            load(&[guest(1, 5, kind)]).await;
            let closed = ["[::]:7777", "198.51.100.1:53", "127.0.0.1:53"].map(service);
            let (dns, dhcp) = (service("10.88.5.1:53"), service("0.0.0.0:67"));

            knock(&wire);
            wire.send(&ipv4(
                EVERYBODY,
                mac(1),
                "0.0.0.0",
                "255.255.255.255",
                &udp(68, 67, &super::frames::dhcp(1, mac(1), "0.0.0.0", "DHCP")),
            ));
            wire.send(&datagram("10.88.5.1", 53, "DNS"));
            assert_eq!(word(&dns), "<<DNS>>");
            assert!(word(&dhcp).contains("<<DHCP>>"));
            for socket in closed {
                assert_eq!(heard(&socket), [""; 0], "{socket:?}");
            }
            wire.send(&echo(HOST, mac(1), "10.88.5.9", "10.88.5.1", "echo"));
            assert_eq!(wire.arrived_before("echo"), [""; 0]);

            // Such as ssh from the host.
            let host = service("10.88.5.1:40000");
            host.send_to(&tag("from the host"), "10.88.5.9:5555").unwrap();
            assert_eq!(wire.arrived_before("from the host"), [""; 0]);
            wire.send(&datagram("10.88.5.1", 40000, "answer"));
            assert_eq!(word(&host), "<<answer>>");
        });
    }
}

#[test]
fn a_guest_on_a_vlan_reaches_nothing_of_the_host_and_nothing_through_it() {
    in_namespace(|_| async {
        let peer = build_host();
        let kind = bridge("br0", Some(120));
        let vlan = "hfvc7c64a34a93f";
        build(vlan, &[]);
        let (wire, other) = (plug(1, vlan), plug(2, vlan));
        load(&[super::tests::port(1, kind.clone()), super::tests::port(2, kind)]).await;
        let doors = ["[::]:7777", "[::]:53"].map(service);
        knock(&wire);
        wire.send(&datagram("198.51.100.2", 9, "through the host"));
        wire.send(&ipv4(EVERYBODY, mac(1), "10.88.5.9", "10.88.5.255", &udp(9, 9, &tag("honest"))));
        other.arrived_before("honest");
        for socket in doors {
            assert_eq!(heard(&socket), [""; 0], "{socket:?}");
        }
        service("198.51.100.1:4000").send_to(&tag("last"), "198.51.100.2:9").unwrap();
        assert_eq!(peer.arrived_before("last"), [""; 0]);
    });
}

#[test]
fn isolated_means_isolated_in_both_directions() {
    in_namespace(|_| async {
        let peer = build_host();
        let (wire, other) = (settle(1, 5), settle(2, 6));
        let near = plug(3, &lan(1));
        let neighbour = Port { network: guest(1, 5, ISOLATED).network, ..guest(3, 5, ISOLATED) };
        load(&[guest(1, 5, ISOLATED), guest(2, 6, NAT), neighbour]).await;

        // Out: to the peer, to a guest of another network.
        let dns = service("10.88.5.1:53");
        for target in ["198.51.100.2", "10.88.6.9", "100.100.100.200"] {
            wire.send(&datagram(target, 9, "out"));
        }
        for target in ["fd00:9::2", "fd00:6::9"] {
            wire.send(&udp6(HOST, mac(1), "fd00:5::9", target, 9, "out"));
        }
        wire.send(&datagram("10.88.5.1", 53, "last"));
        assert_eq!(word(&dns), "<<last>>");

        // In: from the peer, from a guest of another network.
        let from_peer = service("198.51.100.1:4000");
        peer.send(&ipv4(HOST, PEER, "198.51.100.2", "10.88.5.9", &udp(9, 9, &tag("in"))));
        peer.send(&udp6(HOST, PEER, "fd00:9::2", "fd00:5::9", 9, "in"));
        peer.send(&ipv4(HOST, PEER, "198.51.100.2", "198.51.100.1", &udp(9, 4000, &tag("last"))));
        assert_eq!(word(&from_peer), "<<last>>");
        let from_other = service("10.88.6.1:53");
        other.send(&ipv4(HOST, mac(2), "10.88.6.9", "10.88.5.9", &udp(9, 9, &tag("in"))));
        other.send(&ipv4(HOST, mac(2), "10.88.6.9", "10.88.6.1", &udp(9, 53, &tag("last"))));
        assert_eq!(word(&from_other), "<<last>>");

        from_peer.send_to(&tag("last"), "198.51.100.2:9").unwrap();
        assert_eq!(peer.arrived_before("last"), [""; 0]);
        from_other.send_to(&tag("last"), "10.88.6.9:9").unwrap();
        assert_eq!(other.arrived_before("last"), [""; 0]);
        dns.send_to(&tag("last"), "10.88.5.9:9").unwrap();
        assert_eq!(wire.arrived_before("last"), [""; 0]);
        // Its own network is whole, where bridged frames come by the host's rules (br_netfilter), too.
        wire.send(&ipv4(mac(3), mac(1), "10.88.5.9", "10.88.5.10", &udp(9, 9, &tag("neighbour"))));
        near.arrived_before("neighbour");
    });
}

#[test]
fn a_guest_on_a_nat_network_reaches_the_world_but_no_metadata_service_and_nobody_reaches_it() {
    in_namespace(|_| async {
        let peer = build_host();
        let (wire, other) = (settle(1, 5), settle(2, 6));
        load(&[guest(1, 5, NAT), guest(2, 6, NAT)]).await;
        ip("address delete 169.254.169.254/32 dev lo");
        ip("route add 169.254.0.0/16 dev up0");
        ip("neighbour add 169.254.169.254 lladdr 52:54:00:00:cd:02 dev up0");
        for target in ["169.254.169.254", "100.100.100.200", "10.88.6.9"] {
            wire.send(&datagram(target, 9, target));
        }
        wire.send(&udp6(HOST, mac(1), "fd00:5::9", "fd00:9::2", 9, "IPv6, which has no NAT"));
        wire.send(&datagram("198.51.100.2", 9, "world"));
        assert_eq!(peer.arrived_before("world"), [""; 0]);

        peer.send(&ipv4(HOST, PEER, "198.51.100.2", "10.88.5.9", &udp(4711, 5555, &tag("unasked"))));
        peer.send(&udp6(HOST, PEER, "fd00:9::2", "fd00:5::9", 9, "unasked"));
        peer.send(&ipv4(HOST, PEER, "198.51.100.2", "10.88.5.9", &udp(9, 5555, &tag("answer"))));
        assert_eq!(wire.arrived_before("answer"), [""; 0]);
        service("10.88.6.1:4000").send_to(&tag("last"), "10.88.6.9:9").unwrap();
        assert_eq!(other.arrived_before("last"), [""; 0]);
    });
}
