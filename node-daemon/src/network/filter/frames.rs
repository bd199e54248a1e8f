//! Frames as a hostile guest would make them, and the wires they go over. For tests on the real kernel.

use std::ffi::CString;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

pub(super) type Mac = [u8; 6];

pub(super) const EVERYBODY: Mac = [0xff; 6];
/// Where bridges speak to each other (IEEE 802.1D clause 7.12.3).
pub(super) const BRIDGES: Mac = [0x01, 0x80, 0xc2, 0, 0, 0];
/// All nodes of a link (RFC 4291 section 2.7.1).
pub(super) const NODES: Mac = [0x33, 0x33, 0, 0, 0, 1];

const UDP: u8 = 17;
const IP: u16 = 0x0800;
const IP6: u16 = 0x86dd;
pub(super) const ARP: u16 = 0x0806;
pub(super) const VLAN: u16 = 0x8100;

/// One end of a cable, with all that arrives there.
pub(super) struct Wire(OwnedFd);

impl Wire {
    pub(super) fn tap(device: &str) -> Self {
        let all = SockProtocol::EthAll;
        let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, all).unwrap();
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(3, 0)).unwrap();
        bind(&fd, device);
        Self(fd)
    }

    pub(super) fn send(&self, frame: &[u8]) {
        send(self.0.as_raw_fd(), frame, MsgFlags::empty()).unwrap();
    }

    /// Which of the tagged frames arrived before the one with the tag `last`, which must.
    pub(super) fn arrived_before(&self, last: &str) -> Vec<String> {
        let mut tags = Vec::new();
        loop {
            let mut frame = [0; 2048];
            let length = recv(self.0.as_raw_fd(), &mut frame, MsgFlags::empty());
            let length = length.unwrap_or_else(|error| panic!("{last} never arrived: {error}; {tags:?} did"));
            match tag_of(&frame[..length]) {
                Some(tag) if tag == last => return tags,
                tag => tags.extend(tag),
            }
        }
    }
}

#[expect(unsafe_code, reason = "no safe library makes the address of a network card")]
fn bind(fd: &OwnedFd, device: &str) {
    let name = CString::new(device).unwrap();
    // SAFETY: `name` ends with NUL; all of `address` is plain numbers, and the kernel reads its length of bytes.
    let bound = unsafe {
        let card = libc::if_nametoindex(name.as_ptr());
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        address.sll_family = u16::try_from(libc::AF_PACKET).unwrap();
        address.sll_protocol = 0x0003_u16.to_be();
        address.sll_ifindex = card.try_into().unwrap();
        let length = u32::try_from(size_of::<libc::sockaddr_ll>()).unwrap();
        libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length)
    };
    assert_eq!(bound, 0, "could not listen on {device}");
}

/// A word that is found again in whatever carries it.
pub(super) fn tag(word: &str) -> Vec<u8> {
    format!("<<{word}>>").into_bytes()
}

fn tag_of(frame: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(frame);
    Some(text.split_once("<<")?.1.split_once(">>")?.0.to_owned())
}

pub(super) fn ethernet(to: Mac, from: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), payload].concat()
}

/// `operation`: 1 asks, 2 answers (RFC 826).
pub(super) fn arp(operation: u8, mac: Mac, ip: &str, word: &str) -> Vec<u8> {
    let ip: Ipv4Addr = ip.parse().unwrap();
    let head = [0, 1, 8, 0, 6, 4, 0, operation];
    [&head[..], &mac, &ip.octets(), &[0; 10], &tag(word)].concat()
}

/// A datagram of UDP.
pub(super) fn ipv4(to: Mac, from: Mac, source: &str, target: &str, payload: &[u8]) -> Vec<u8> {
    packet(to, from, source, target, UDP, payload)
}

/// Asks for an echo (RFC 792).
pub(super) fn echo(to: Mac, from: Mac, source: &str, target: &str, word: &str) -> Vec<u8> {
    let mut message = [&[8, 0, 0, 0, 0, 1, 0, 1][..], &tag(word)].concat();
    let sum = checksum(&message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    packet(to, from, source, target, 1, &message)
}

fn packet(to: Mac, from: Mac, source: &str, target: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let (source, target): (Ipv4Addr, Ipv4Addr) = (source.parse().unwrap(), target.parse().unwrap());
    let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut head = [0x45, 0, length[0], length[1], 0, 1, 0, 0, 64, protocol, 0, 0].to_vec();
    head.extend(source.octets().iter().chain(&target.octets()));
    let sum = checksum(&head).to_be_bytes();
    head[10..12].copy_from_slice(&sum);
    ethernet(to, from, IP, &[&head, payload].concat())
}

pub(super) fn ipv6(to: Mac, from: Mac, source: &str, target: &str, next: u8, payload: &[u8]) -> Vec<u8> {
    let (source, target): (Ipv6Addr, Ipv6Addr) = (source.parse().unwrap(), target.parse().unwrap());
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [0x60, 0, 0, 0, length[0], length[1], next, 255];
    ethernet(to, from, IP6, &[&head[..], &source.octets(), &target.octets(), payload].concat())
}

pub(super) fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    // Without a checksum, which IPv4 allows.
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &length.to_be_bytes(), &[0; 2], payload].concat()
}

/// The same for IPv6, which wants a checksum (RFC 8200 section 8.1).
pub(super) fn udp6(to: Mac, from: Mac, source: &str, target: &str, port: u16, word: &str) -> Vec<u8> {
    let ends: [Ipv6Addr; 2] = [source.parse().unwrap(), target.parse().unwrap()];
    let mut datagram = udp(9, port, &tag(word));
    let length = u8::try_from(datagram.len()).unwrap();
    let pseudo =
        [&ends[0].octets()[..], &ends[1].octets(), &[0, 0, 0, length, 0, 0, 0, UDP], &datagram].concat();
    let sum = checksum(&pseudo).to_be_bytes();
    datagram[6..8].copy_from_slice(&sum);
    ipv6(to, from, source, target, UDP, &datagram)
}

/// A neighbour discovery message about `target` (RFC 4861): 134 a router, 135 a question, 136 an answer, 137 a redirect.
pub(super) fn discovery(kind: u8, target: &str, word: &str) -> Vec<u8> {
    let target: Ipv6Addr = target.parse().unwrap();
    [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), &tag(word)].concat()
}

/// A message of DHCP: 1 asks, 2 offers, 5 gives (RFC 2132, section 9.6).
pub(super) fn dhcp(message: u8, client: Mac, given: &str, word: &str) -> Vec<u8> {
    let given: Ipv4Addr = given.parse().unwrap();
    let operation = if matches!(message, 2 | 5 | 6) { 2 } else { 1 };
    let head = [operation, 1, 6, 0, 0, 0, 0, 7, 0, 0, 0x80, 0, 0, 0, 0, 0];
    [
        &head[..],
        &given.octets(),
        &[0; 8],
        &client,
        &[0; 202],
        &[0x63, 0x82, 0x53, 0x63, 53, 1, message],
        &tag(word),
    ]
    .concat()
}

fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| match *pair {
        [high, low] => u32::from(high) << 8 | u32::from(low),
        _ => u32::from(pair[0]) << 8,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}
