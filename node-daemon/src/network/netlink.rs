//! The kernel's network devices, addresses and routes through rtnetlink(7): reads and single changes, no decisions.
//!
//! The one module that names `rtnetlink`. A handle speaks to the network namespace of the thread that opened it.

mod parse;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use futures::{Stream, TryStreamExt};
use ipnet::Ipv4Net;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, BridgeVlanInfoFlags, In6AddrGenMode, LinkAttribute, LinkMessage,
};
use rtnetlink::{
    Handle, LinkBridge, LinkBridgePort, LinkBridgeVlan, LinkUnspec, LinkVlan, RouteMessageBuilder,
};

/// Lets frames to the bridge group address pass a port like any other (`IFLA_BRPORT_GROUP_FWD_MASK`).
const PASS_BPDUS: u16 = 1;
/// The kernel answers within a millisecond; this only keeps a broken socket from holding a start for ever.
const LIMIT: Duration = Duration::from_secs(5);
/// `EOPNOTSUPP`, asm-generic/errno.h: the answer to a kind of device the kernel does not know.
const NOT_SUPPORTED: i32 = 95;

/// An exchange with the kernel that did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No socket to the kernel.
    #[error("could not open a netlink socket")]
    Open { source: io::Error },
    /// The host's addresses are unknown.
    #[error("could not read the addresses of this host")]
    Addresses { source: io::Error },
    /// This kernel has no such kind of device.
    #[error("the kernel cannot {what}")]
    Unsupported { what: &'static str },
    /// The kernel refused.
    #[error("the kernel did not {what}")]
    Refused { what: &'static str, source: rtnetlink::Error },
    /// The kernel did not answer in time.
    #[error("the kernel did not {what} within {} s", LIMIT.as_secs())]
    Silent { what: &'static str },
}

/// A network device, as far as we care.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// The kernel's number for it, never used twice at a time.
    pub(crate) index: u32,
    /// Its name.
    pub(crate) name: String,
    /// What it is.
    pub(crate) kind: LinkKind,
    /// The bridge it is a port of.
    pub(crate) master: Option<u32>,
    /// What somebody wrote on it; empty when nobody did.
    pub(crate) alias: String,
    /// Whether it is switched on.
    pub(crate) up: bool,
}

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkKind {
    /// An Ethernet bridge, and whether it sorts its ports by VLAN itself.
    Bridge { filters_vlans: bool },
    /// One VLAN of another device.
    Vlan { id: u16, parent: u32 },
    /// Anything else.
    Other,
}

/// An address of the host or a route, with the name of its device where it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Used {
    /// The range.
    pub(crate) subnet: Ipv4Net,
    /// The device.
    pub(crate) device: String,
}

/// Somebody the host has heard from on one of its networks (ARP, RFC 826, or neighbour discovery, RFC 4861).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Neighbour {
    /// Hardware address, lower-case, with colons.
    pub(crate) mac: String,
    /// Its address, never a link-local one: that says nothing without a device.
    pub(crate) ip: IpAddr,
    /// The device it was heard on.
    pub(crate) device: String,
}

/// A hardware address that a bridge has heard, or has itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Station {
    /// The address.
    pub(crate) mac: [u8; 6],
    /// The bridge.
    pub(crate) bridge: String,
    /// The port behind which it is; the bridge itself for one of its own.
    pub(crate) port: String,
}

/// A conversation with the kernel; dropping it ends it.
pub(crate) struct Netlink {
    handle: Handle,
}

impl Netlink {
    /// Opens a socket in the network namespace of the calling thread.
    pub(crate) fn open() -> Result<Self, Error> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(|source| Error::Open { source })?;
        // It ends with the last handle.
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Every device.
    pub(crate) async fn links(&self) -> Result<Vec<Link>, Error> {
        let messages = collect("list devices", self.handle.link().get().execute()).await?;
        Ok(messages.iter().map(parse::link).collect())
    }

    /// The subnets around the host's IPv4 addresses.
    pub(crate) async fn addresses(&self) -> Result<Vec<Used>, Error> {
        let mut request = self.handle.address().get();
        request.message_mut().header.family = AddressFamily::Inet;
        let messages = collect("list addresses", request.execute()).await?;
        Ok(messages.iter().filter_map(parse::address).collect())
    }

    /// The host's IPv4 routes, of all tables: a packet for a guest could follow any of them.
    pub(crate) async fn routes(&self) -> Result<Vec<Used>, Error> {
        let links = self.links().await?;
        let request = self.handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build());
        let messages = collect("list routes", request.execute()).await?;
        Ok(messages.iter().filter_map(|message| parse::route(message, &links)).collect())
    }

    /// Where the host's routes lead, IPv4 and IPv6, of all tables.
    pub(crate) async fn gateways(&self) -> Result<Vec<IpAddr>, Error> {
        let v4 = self.handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build());
        let v6 = self.handle.route().get(RouteMessageBuilder::<Ipv6Addr>::new().build());
        let mut messages = collect("list routes", v4.execute()).await?;
        messages.extend(collect("list routes", v6.execute()).await?);
        Ok(messages.iter().flat_map(parse::gateways).collect())
    }

    /// Everybody in the neighbour tables whose hardware address is known.
    pub(crate) async fn neighbours(&self) -> Result<Vec<Neighbour>, Error> {
        let links = self.links().await?;
        let messages = collect("list neighbours", self.handle.neighbours().get().execute()).await?;
        Ok(messages.iter().filter_map(|message| parse::neighbour(message, &links)).collect())
    }

    /// The hardware addresses that bridges know (bridge(8), `bridge fdb show`).
    pub(crate) async fn stations(&self) -> Result<Vec<Station>, Error> {
        let links = self.links().await?;
        let request = self.handle.neighbours().get().set_address_family(AddressFamily::Bridge);
        let messages = collect("list the stations of bridges", request.execute()).await?;
        Ok(messages.iter().filter_map(|message| parse::station(message, &links)).collect())
    }

    /// Makes a bridge, switched off.
    pub(crate) async fn create_bridge(&self, name: &str) -> Result<(), Error> {
        let message = LinkBridge::new(name).down().build();
        bounded("create a bridge", self.handle.link().add(message).execute()).await
    }

    /// Makes the device of one VLAN of `parent`, switched off.
    pub(crate) async fn create_vlan(&self, name: &str, parent: u32, id: u16) -> Result<(), Error> {
        let message = LinkVlan::new(name, parent, id).build();
        bounded("create a VLAN device", self.handle.link().add(message).execute()).await
    }

    /// Lets a VLAN of a bridge that sorts by VLAN reach the bridge's own device
    /// (`bridge vlan add dev BRIDGE vid ID self`).
    pub(crate) async fn admit_vlan(&self, bridge: u32, id: u16) -> Result<(), Error> {
        let message =
            LinkBridgeVlan::new(bridge).bridge_self().vlan(id, BridgeVlanInfoFlags::empty()).build();
        bounded("admit a VLAN to a bridge", self.handle.link().set(message).execute()).await
    }

    /// Keeps the host itself off the device: no IPv6 address by itself, so guests of a VLAN do not meet the host there.
    pub(crate) async fn keep_host_off(&self, index: u32) -> Result<(), Error> {
        let mode = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        let message = LinkUnspec::new_with_index(index);
        let message = message.append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![mode])).build();
        bounded("keep IPv6 off a device", self.handle.link().set(message).execute()).await
    }

    /// The ports of bridges whose BPDUs the bridge takes itself, before any rule of nftables sees them.
    pub(crate) async fn unscreened(&self) -> Result<Vec<(u32, String)>, Error> {
        let messages = collect("list ports of bridges", self.handle.link().get().execute()).await?;
        let takes =
            |message: &&LinkMessage| parse::passes(message).is_some_and(|mask| mask & PASS_BPDUS == 0);
        let ports = messages.iter().filter(takes).map(parse::link);
        Ok(ports.map(|link| (link.index, link.name)).collect())
    }

    /// Puts a port's BPDUs under the rules of nftables, where its bridge speaks STP itself (`group_fwd_mask 1`).
    pub(crate) async fn screen(&self, index: u32) -> Result<(), Error> {
        let message = LinkBridgePort::new(index).group_fwd_mask(PASS_BPDUS).build();
        bounded("screen a port of a bridge", self.handle.link().set_port(message).execute()).await
    }

    /// Writes an alias on a device.
    pub(crate) async fn set_alias(&self, index: u32, alias: &str) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(index).alias(alias).build();
        bounded("set the alias of a device", self.handle.link().set(message).execute()).await
    }

    /// Makes a device a port of a bridge.
    pub(crate) async fn attach(&self, index: u32, bridge: u32) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(index).controller(bridge).build();
        bounded("add a port to a bridge", self.handle.link().set(message).execute()).await
    }

    /// Switches a device on.
    pub(crate) async fn raise(&self, index: u32) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(index).up().build();
        bounded("switch a device on", self.handle.link().set(message).execute()).await
    }

    /// Removes a device.
    pub(crate) async fn remove(&self, index: u32) -> Result<(), Error> {
        bounded("remove a device", self.handle.link().del(index).execute()).await
    }
}

async fn collect<T>(
    what: &'static str,
    messages: impl Stream<Item = Result<T, rtnetlink::Error>>,
) -> Result<Vec<T>, Error> {
    bounded(what, messages.try_collect()).await
}

async fn bounded<T>(
    what: &'static str,
    exchange: impl Future<Output = Result<T, rtnetlink::Error>>,
) -> Result<T, Error> {
    let answer = tokio::time::timeout(LIMIT, exchange).await;
    answer.map_err(|_| Error::Silent { what })?.map_err(|source| match &source {
        rtnetlink::Error::NetlinkError(message) if message.raw_code() == -NOT_SUPPORTED => {
            Error::Unsupported { what }
        }
        _ => Error::Refused { what, source },
    })
}
