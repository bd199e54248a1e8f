//! What the kernel's messages say, as far as we care. Pure.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoVlan, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteVia};

use super::{Link, LinkKind, Neighbour, Station, Used};

pub(super) fn link(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        kind: LinkKind::Other,
        master: None,
        alias: String::new(),
        up: message.header.flags.contains(LinkFlags::Up),
    };
    let (mut infos, mut parent) = (&[][..], 0);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::IfAlias(alias) => link.alias.clone_from(alias),
            LinkAttribute::Controller(master) => link.master = Some(*master),
            LinkAttribute::Link(index) => parent = *index,
            LinkAttribute::LinkInfo(found) => infos = found,
            _ => {}
        }
    }
    link.kind = kind(infos, parent);
    link
}

/// Which frames to group addresses a port of a bridge passes on; none where it is no such port.
pub(super) fn passes(message: &LinkMessage) -> Option<u16> {
    let infos = message.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    let parts = infos.flatten().filter_map(|info| match info {
        LinkInfo::PortData(InfoPortData::BridgePort(parts)) => Some(parts),
        _ => None,
    });
    let mut masks = parts.flatten().filter_map(|part| match part {
        InfoBridgePort::GroupFwdMask(mask) => Some(*mask),
        _ => None,
    });
    masks.next()
}

fn kind(infos: &[LinkInfo], parent: u32) -> LinkKind {
    let data = infos.iter().find_map(|info| match info {
        LinkInfo::Data(data) => Some(data),
        _ => None,
    });
    if infos.contains(&LinkInfo::Kind(InfoKind::Bridge)) {
        let on = InfoBridge::VlanFiltering(true);
        let filters_vlans =
            data.is_some_and(|data| matches!(data, InfoData::Bridge(parts) if parts.contains(&on)));
        return LinkKind::Bridge { filters_vlans };
    }
    let Some(InfoData::Vlan(parts)) = data else {
        return LinkKind::Other;
    };
    let id = parts.iter().find_map(|part| match part {
        InfoVlan::Id(id) => Some(*id),
        _ => None,
    });
    id.map_or(LinkKind::Other, |id| LinkKind::Vlan { id, parent })
}

pub(super) fn address(message: &AddressMessage) -> Option<Used> {
    let (mut subnet, mut device) = (None, String::new());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(IpAddr::V4(ip)) => {
                subnet = Ipv4Net::new(*ip, message.header.prefix_len).ok();
            }
            AddressAttribute::Label(label) => device.clone_from(label),
            _ => {}
        }
    }
    subnet.map(|subnet| Used { subnet: subnet.trunc(), device })
}

pub(super) fn route(message: &RouteMessage, links: &[Link]) -> Option<Used> {
    let (mut network, mut device) = (Ipv4Addr::UNSPECIFIED, String::new());
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => network = *ip,
            RouteAttribute::Oif(index) => {
                device = links.iter().find(|link| link.index == *index).map(|link| link.name.clone())?;
            }
            _ => {}
        }
    }
    let subnet = Ipv4Net::new(network, message.header.destination_prefix_length).ok()?;
    Some(Used { subnet: subnet.trunc(), device })
}

/// The next hops of a route, be they several.
pub(super) fn gateways(message: &RouteMessage) -> Vec<IpAddr> {
    message.attributes.iter().flat_map(hops).collect()
}

fn hops(attribute: &RouteAttribute) -> Vec<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(ip)) | RouteAttribute::Via(RouteVia::Inet(ip)) => {
            vec![(*ip).into()]
        }
        RouteAttribute::Gateway(RouteAddress::Inet6(ip)) | RouteAttribute::Via(RouteVia::Inet6(ip)) => {
            vec![(*ip).into()]
        }
        RouteAttribute::MultiPath(paths) => {
            paths.iter().flat_map(|path| path.attributes.iter().flat_map(hops)).collect()
        }
        _ => Vec::new(),
    }
}

pub(super) fn neighbour(message: &NeighbourMessage, links: &[Link]) -> Option<Neighbour> {
    let known = !matches!(message.header.state, NeighbourState::Incomplete | NeighbourState::Failed);
    let (mut mac, mut found) = (None, None);
    for attribute in message.attributes.iter().filter(|_| known) {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) if bytes.len() == 6 => mac = Some(text(bytes)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => found = Some(IpAddr::V4(*ip)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => found = Some(IpAddr::V6(*ip)),
            _ => {}
        }
    }
    let ip = found.filter(|ip| !is_local(ip))?;
    let device = links.iter().find(|link| link.index == message.header.ifindex)?.name.clone();
    Some(Neighbour { mac: mac?, ip, device })
}

pub(super) fn station(message: &NeighbourMessage, links: &[Link]) -> Option<Station> {
    let (mut mac, mut master) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            NeighbourAttribute::Controller(index) => master = Some(*index),
            _ => {}
        }
    }
    let name = |index| links.iter().find(|link| link.index == index).map(|link| link.name.clone());
    let port = message.header.ifindex;
    Some(Station { mac: mac?, bridge: name(master.unwrap_or(port))?, port: name(port)? })
}

fn is_local(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_multicast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_multicast(),
    }
}

fn text(mac: &[u8]) -> String {
    let pairs: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    pairs.join(":")
}
