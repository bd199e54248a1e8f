//! What is there already: our network as libvirt has it, who else claims which addresses, who is connected.

use std::net::IpAddr;

use ipnet::Ipv4Net;

use super::error::Error;
use super::names;
use super::netlink::{self, Link, Netlink, Used};
use super::plan::{Claim, ClaimKind, Guests, Present};
use super::record::NetworkRecord;
use crate::host_addresses::{HostAddresses, Role};
use crate::libvirt::{Network, network_xml};

/// Ranges that no network of guests can have: they mean something else on every host.
const RESERVED: [(&str, &str); 4] = [
    ("0.0.0.0/8", "the unspecified addresses 0.0.0.0/8"),
    ("127.0.0.0/8", "the loopback addresses 127.0.0.0/8"),
    ("169.254.0.0/16", "the link-local addresses 169.254.0.0/16"),
    ("224.0.0.0/3", "the multicast and reserved addresses 224.0.0.0/3"),
];

/// The libvirt network of a record; one that has its name or UUID without our metadata is in the way.
pub(super) fn present(
    record: &NetworkRecord,
    networks: &[Network],
    links: &[Link],
) -> Result<Present, Error> {
    let name = names::network(record.uid);
    let Some(found) = networks.iter().find(|found| found.uuid == record.uid || found.name == name) else {
        return Ok(Present::Absent);
    };
    if !is_ours(found) || found.uuid != record.uid {
        let what = format!("libvirt network {}", found.name);
        let remedy = "remove or rename it on the node";
        return Err(Error::Foreign { network: record.name.clone(), what, remedy });
    }
    let subnet = subnets(found).next();
    if !found.active {
        return Ok(Present::Stopped(subnet));
    }
    let guests = if has_guests(found, links) { Guests::Connected } else { Guests::None };
    Ok(Present::Active { subnet, guests })
}

/// Who else uses which addresses, libvirt's networks first: their names say more than an address of a bridge. What the
/// host has for the network itself, while it runs, is no claim of another.
pub(super) async fn claims(
    own: &NetworkRecord,
    networks: &[Network],
    kernel: &Netlink,
    needed: &[(IpAddr, Role)],
) -> Result<Vec<Claim>, netlink::Error> {
    let bridge = names::bridge(own.uid);
    let is_other = |used: &Used| used.device != bridge;
    let (addresses, routes) = (kernel.addresses().await?, kernel.routes().await?);
    let others = networks.iter().filter(|network| network.uuid != own.uid);
    let networks =
        others.flat_map(|network| subnets(network).map(|subnet| network_claim(&own.name, network, subnet)));
    let addresses = addresses.into_iter().filter(is_other);
    let addresses = addresses.map(|used| host_claim(ClaimKind::Address, "subnet", &used));
    let needed = needed.iter().filter_map(needed_claim);
    let routes = routes.into_iter().filter(is_other).map(|used| host_claim(ClaimKind::Route, "route", &used));
    Ok(networks.chain(reserved()).chain(addresses).chain(needed).chain(routes).collect())
}

/// Every address that the host has or depends on.
pub(super) async fn needed(
    kernel: &Netlink,
    host: &HostAddresses,
) -> Result<Vec<(IpAddr, Role)>, netlink::Error> {
    host.refresh().await;
    let mut needed = host.needed().map_err(|source| netlink::Error::Addresses { source })?;
    needed.extend(kernel.gateways().await?.into_iter().map(|address| (address, Role::Gateway)));
    Ok(needed)
}

/// The host's own addresses are claimed with the subnets around them.
fn needed_claim((address, role): &(IpAddr, Role)) -> Option<Claim> {
    let IpAddr::V4(v4) = address else { return None };
    let by = format!("{address}, {role},");
    (*role != Role::Own).then(|| Claim {
        subnet: Ipv4Net::from(*v4),
        kind: ClaimKind::Address,
        by,
        same_namespace: false,
    })
}

fn reserved() -> impl Iterator<Item = Claim> {
    let claim = |(net, by): &(&str, &str)| {
        let (subnet, by) = (net.parse().ok()?, (*by).to_owned());
        Some(Claim { subnet, kind: ClaimKind::Address, by, same_namespace: false })
    };
    RESERVED.iter().filter_map(claim)
}

fn host_claim(kind: ClaimKind, what: &str, used: &Used) -> Claim {
    let Used { subnet, device } = used;
    let by = match device.as_str() {
        // A route that leads nowhere (blackhole) has none.
        "" => format!("the {what} {subnet}"),
        device => format!("the {what} {subnet} of device {device}"),
    };
    Claim { subnet: *subnet, kind, by, same_namespace: false }
}

/// A claim that names a network as its owner knows it: ours by namespace and name, a foreign one as libvirt does.
fn network_claim(own: &str, network: &Network, subnet: Ipv4Net) -> Claim {
    let kind = if network.active { ClaimKind::ActiveNetwork } else { ClaimKind::StoppedNetwork };
    let by = match &network.record {
        // Deleted and made again, while virtual machines of before are there.
        Some(name) if name == own => format!("the earlier network {name} ({subnet}), still in use"),
        Some(name) => format!("network {name} ({subnet})"),
        None => format!("libvirt network {} ({subnet})", network.name),
    };
    let namespace = |name: &str| name.split_once('/').map(|(namespace, _)| namespace.to_owned());
    let owner = network.record.as_deref().and_then(namespace);
    Claim { subnet, kind, by, same_namespace: owner.is_some() && owner == namespace(own) }
}

pub(super) fn subnets(network: &Network) -> impl Iterator<Item = Ipv4Net> {
    let net = |subnet: &network_xml::Subnet| Ipv4Net::new(subnet.address, subnet.prefix).ok();
    network.subnets.iter().filter_map(net).map(|net| net.trunc())
}

pub(super) fn is_ours(network: &Network) -> bool {
    network.record.is_some()
}

/// Whether a port other than libvirt's own dummy is on the network's bridge.
pub(super) fn has_guests(network: &Network, links: &[Link]) -> bool {
    let bridge = links.iter().find(|link| Some(&link.name) == network.bridge.as_ref());
    let is_guest =
        |link: &Link| link.master == bridge.map(|bridge| bridge.index) && !link.name.ends_with("-nic");
    bridge.is_some() && links.iter().any(is_guest)
}
