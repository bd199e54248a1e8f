//! Networks for guests: NAT and isolated ones through libvirt, bridges of the host as they are, VLANs of them on
//! bridges of ours.
//!
//! Everything here is made again whenever it is missing, from what the domain's metadata remembers
//! ([`NetworkRecord`]), so a start needs no API. Names derive from UIDs; libvirt's network definitions and the kernel's
//! devices are the only state. Called by the virtual machine driver: [`Networks::ensure`] before each start,
//! [`Networks::collect`] now and then.

mod error;
mod filter;
mod names;
mod netlink;
mod observe;
mod plan;
mod record;
mod values;
mod vlan;

#[cfg(test)]
mod netlink_tests;
#[cfg(test)]
mod reserved_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vlan_kernel_tests;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_api::offer::NetworkOffer;
use ipnet::Ipv4Net;
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::host_addresses::HostAddresses;
use crate::libvirt::domain_xml::Source;
use crate::libvirt::network_xml::{self, NetworkKind, NetworkSpec};
use crate::libvirt::{Libvirt, Network};

pub(crate) use error::Error;
pub(crate) use filter::{Port, Turn};
pub(crate) use record::{Kind, NetworkRecord};
pub(crate) use values::{Device, Subnet};

use filter::Filter;
use names::Tagged;
use netlink::{Link, LinkKind, Neighbour, Netlink, Station};
use observe::{claims, has_guests, is_ours, needed, present};
use plan::{Conflict, Plan, Present};

/// How long an ensured network waits for its virtual machine to be defined: far longer than that takes. One removed too
/// early is made again by the next start, one kept too long keeps its subnet from others.
const GRACE: Duration = Duration::from_secs(60);
/// Stands for a network's name in the errors of a look at all of them.
const OF_NODE: &str = "list of this node";

/// Makes and removes the networks of this node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Networks {
    libvirt: Libvirt,
    /// Where subnets come from that no object names.
    pool: Ipv4Net,
    offer: Arc<NetworkOffer>,
    host: HostAddresses,
    filter: Filter,
    /// What was ensured for which virtual machine and is in use or was so lately. One change at a time, or two networks
    /// could be given the same subnet.
    ensured: Arc<Mutex<HashMap<(Machine, Uuid), Ensured>>>,
}

/// UID of a virtual machine.
type Machine = Uuid;

struct Ensured {
    record: NetworkRecord,
    at: Instant,
}

impl Networks {
    /// `pool` is /24 or wider.
    pub(crate) fn new(libvirt: Libvirt, pool: Ipv4Net, offer: NetworkOffer, host: HostAddresses) -> Self {
        Self {
            libvirt,
            pool,
            offer: Arc::new(offer),
            host,
            filter: Filter::default(),
            ensured: Arc::default(),
        }
    }

    /// What guests may be connected to.
    pub(crate) fn offer(&self) -> Arc<NetworkOffer> {
        self.offer.clone()
    }

    /// Brings a network up for a virtual machine, or finds it up, and says what to connect an interface to. `addresses` are
    /// those listed for the interface. Idempotent; short of a clash, a missing bridge or a fault of libvirt or the kernel
    /// it always succeeds. Whether the network is offered was asked before.
    pub(crate) async fn ensure(
        &self,
        machine: Machine,
        record: &NetworkRecord,
        addresses: &[IpAddr],
    ) -> Result<Source, Error> {
        let mut ensured = self.ensured.lock().await;
        let others = ensured.iter().filter(|((by, _), it)| *by != machine && it.at.elapsed() < GRACE);
        let awaited: HashSet<Uuid> = others.map(|((_, uid), _)| *uid).collect();
        let source = match &record.kind {
            Kind::Nat { subnet } => self.ensure_libvirt(record, *subnet, NetworkKind::Nat, &awaited).await,
            Kind::Isolated { subnet } => {
                self.ensure_libvirt(record, *subnet, NetworkKind::Isolated, &awaited).await
            }
            Kind::Bridge { name, vlan: None } => host_bridge(record, name).await,
            Kind::Bridge { name, vlan: Some(vlan) } => {
                vlan_bridge(record, &Tagged { trunk: name.clone(), vlan: *vlan }).await
            }
        }?;
        ensured.insert((machine, record.uid), Ensured { record: record.clone(), at: Instant::now() });
        // The network has an address of the host by now.
        self.check_addresses(record, addresses).await?;
        Ok(source)
    }

    /// Refuses addresses that are the host's or that it depends on: whoever has them speaks for them. Where guests are
    /// trusted to be routers, one of them may be the gateway.
    async fn check_addresses(&self, record: &NetworkRecord, addresses: &[IpAddr]) -> Result<(), Error> {
        if addresses.is_empty() || record.is_trusted(&self.offer) {
            return Ok(());
        }
        let kernel = Netlink::open().map_err(kernel_failed(&record.name))?;
        let needed = needed(&kernel, &self.host).await.map_err(kernel_failed(&record.name))?;
        match needed.into_iter().find(|(address, _)| addresses.contains(address)) {
            Some((address, role)) => Err(Error::AddressTaken { network: record.name.clone(), address, role }),
            None => Ok(()),
        }
    }

    /// Refuses a hardware address that its bridge has, or hears from elsewhere than `device`, the guest's own port, or that one
    /// of `guests`, the other ports of this node, has there: frames for the other machine, the gateway say, would come to
    /// the guest. Where guests are trusted they may do that.
    pub(crate) async fn check_station(
        &self,
        record: &NetworkRecord,
        mac: [u8; 6],
        device: &str,
        guests: &[Port],
    ) -> Result<(), Error> {
        if record.is_trusted(&self.offer) {
            return Ok(());
        }
        let kernel = Netlink::open().map_err(kernel_failed(&record.name))?;
        let stations = kernel.stations().await.map_err(kernel_failed(&record.name))?;
        let bridge = record.bridge();
        // They count before they speak, and while they are off.
        let station =
            |it: &Port| Station { mac: it.mac, bridge: it.network.bridge(), port: it.device.clone() };
        let same = |it: &Station| it.mac == mac && it.bridge == bridge && it.port != device;
        match guests.iter().map(station).chain(stations).find(same) {
            Some(Station { bridge, port, .. }) => {
                let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
                Err(Error::MacTaken { network: record.name.clone(), mac, bridge, port })
            }
            None => Ok(()),
        }
    }

    /// A virtual machine is gone, so nothing waits for it any more: the next [`Networks::collect`] may free its subnets.
    pub(crate) async fn release(&self, machine: Machine) {
        self.ensured.lock().await.retain(|(held_by, _), _| *held_by != machine);
    }

    /// Waits for the turn to look at all guests and [`filter`](Self::filter) what they send; none is needed when somebody
    /// else did both since this was called.
    pub(crate) async fn turn(&self) -> Option<Turn> {
        self.filter.turn().await
    }

    /// Keeps these guests, and no others, able to speak within their bounds. To be done before a guest starts, and again
    /// at times, since the rules are anybody's to remove who has root on the node.
    pub(crate) async fn filter(&self, turn: Turn, ports: &[Port]) -> Result<(), Error> {
        turn.load(ports, |network| network.is_trusted(&self.offer)).await?;
        self.screen().await;
        Ok(())
    }

    /// Keeps those guests within their bounds that were so last: what to do where nobody knows which guests there are now.
    pub(crate) async fn filter_again(&self, turn: Turn) -> Result<(), Error> {
        Ok(turn.repeat().await?)
    }

    /// Puts what running guests say to bridges under the filter, too: to be done when a guest has started, since it is a
    /// setting of a device that is there only then. A failure is tried again by the next one.
    pub(crate) async fn screen(&self) {
        if let Err(error) = self.filter.screen().await {
            tracing::warn!(%error, "ports of guests are not screened yet");
        }
    }

    /// Everybody this node has heard from on its networks: how the address of a guest on a host's bridge is known.
    pub(crate) async fn neighbours(&self) -> Result<Vec<Neighbour>, Error> {
        let kernel = Netlink::open().map_err(kernel_failed(OF_NODE))?;
        kernel.neighbours().await.map_err(kernel_failed(OF_NODE))
    }

    /// Removes our networks and VLAN bridges that nobody uses; whether a network was among them, which frees a subnet.
    ///
    /// `in_use` are the networks of every virtual machine on the node, halted ones and orphans too. One that was
    /// ensured within the last minute is kept as well, for the virtual machine that is about to be defined; so is one
    /// with a guest still connected, whatever `in_use` says. Foreign networks and devices are never touched. One that
    /// cannot be removed keeps none of the others; the first failure is returned when all were tried.
    pub(crate) async fn collect(&self, in_use: &HashSet<Uuid>) -> Result<bool, Error> {
        self.collect_older(in_use, GRACE).await
    }

    async fn collect_older(&self, in_use: &HashSet<Uuid>, grace: Duration) -> Result<bool, Error> {
        let mut ensured = self.ensured.lock().await;
        ensured.retain(|(_, uid), ensured| in_use.contains(uid) || ensured.at.elapsed() < grace);
        let kernel = Netlink::open().map_err(kernel_failed(OF_NODE))?;
        let links = kernel.links().await.map_err(kernel_failed(OF_NODE))?;
        let mut removals = Vec::new();
        for network in self.networks(OF_NODE).await? {
            let awaited = || ensured.keys().any(|(_, uid)| *uid == network.uuid);
            let used = in_use.contains(&network.uuid) || awaited();
            if is_ours(&network) && !used && !has_guests(&network, &links) {
                tracing::info!(network = network.name, "removing a network nobody uses");
                let removed = self.libvirt.remove_network(network.uuid).await;
                removals.push(removed.map_err(libvirt_failed(&network.name)));
            }
        }
        let freed = !removals.is_empty();
        let kept: Vec<Tagged> = ensured.values().filter_map(|ensured| tagged(&ensured.record)).collect();
        removals.push(vlan::collect(&kernel, &kept).await.map_err(kernel_failed(OF_NODE)));
        removals.into_iter().collect::<Result<(), Error>>().map(|()| freed)
    }

    async fn ensure_libvirt(
        &self,
        record: &NetworkRecord,
        wanted: Option<Subnet>,
        kind: NetworkKind,
        awaited: &HashSet<Uuid>,
    ) -> Result<Source, Error> {
        let failed = || kernel_failed(&record.name);
        let kernel = Netlink::open().map_err(failed())?;
        let links = kernel.links().await.map_err(failed())?;
        let mut networks = self.networks(&record.name).await?;
        let present = present(record, &networks, &links)?;
        let runs = matches!(present, Present::Active { .. });
        if !runs {
            self.remove_earlier(record, awaited, &links, &mut networks).await?;
        }
        let needed = needed(&kernel, &self.host).await.map_err(failed())?;
        let claims = claims(record, &networks, &kernel, &needed).await.map_err(failed())?;
        let pools: Vec<Ipv4Net> =
            self.offer.subnet_pools.iter().filter_map(|pool| pool.parse().ok()).collect();
        let claims = plan::into_pools(claims, &pools);
        let plan = plan::plan(record.uid, wanted, present, self.pool, &claims);
        match plan.map_err(|conflict| self.conflict(record, conflict))? {
            Plan::Ready => {}
            Plan::Start => self.start(record).await?,
            Plan::Create(subnet) => {
                if runs {
                    tracing::info!(
                        network = record.name,
                        "its subnet is the host's now: it moves to another"
                    );
                    self.libvirt.remove_network(record.uid).await.map_err(libvirt_failed(&record.name))?;
                }
                self.define(record, subnet, kind).await?;
                self.start(record).await?;
            }
        }
        Ok(Source::Network(names::network(record.uid)))
    }

    /// Takes networks out of the way that had this name before: deleted and made again, a network has another UID and
    /// mostly the same subnet. One with a guest on it stays, and one that another virtual machine is about to start on.
    async fn remove_earlier(
        &self,
        record: &NetworkRecord,
        awaited: &HashSet<Uuid>,
        links: &[Link],
        networks: &mut Vec<Network>,
    ) -> Result<(), Error> {
        let is_earlier = |it: &Network| it.record.as_ref() == Some(&record.name) && it.uuid != record.uid;
        let goes = |it: &Network| is_earlier(it) && !awaited.contains(&it.uuid) && !has_guests(it, links);
        let (earlier, others): (Vec<_>, Vec<_>) = networks.drain(..).partition(goes);
        *networks = others;
        for network in earlier {
            tracing::info!(network = record.name, "removing the earlier network of this name");
            self.libvirt.remove_network(network.uuid).await.map_err(libvirt_failed(&record.name))?;
        }
        Ok(())
    }

    async fn define(&self, record: &NetworkRecord, subnet: Ipv4Net, kind: NetworkKind) -> Result<(), Error> {
        let refused = |problem: String| Error::Refused { network: record.name.clone(), problem };
        let spec = NetworkSpec {
            uuid: record.uid,
            name: names::network(record.uid),
            record: record.name.clone(),
            bridge: names::bridge(record.uid),
            kind,
            subnet: network_xml::Subnet { address: subnet.network(), prefix: subnet.prefix_len() },
        };
        let xml = network_xml::to_xml(&spec).map_err(|error| refused(error.to_string()))?;
        tracing::info!(network = record.name, %subnet, "defining a network");
        self.libvirt.define_network(record.uid, xml).await.map_err(libvirt_failed(&record.name))
    }

    async fn start(&self, record: &NetworkRecord) -> Result<(), Error> {
        self.libvirt.start_network(record.uid).await.map_err(libvirt_failed(&record.name))
    }

    async fn networks(&self, asker: &str) -> Result<Vec<Network>, Error> {
        self.libvirt.networks().await.map_err(libvirt_failed(asker))
    }

    fn conflict(&self, record: &NetworkRecord, conflict: Conflict) -> Error {
        let network = record.name.clone();
        match conflict {
            Conflict::Clash { subnet, with } => Error::SubnetClash { network, subnet, with },
            Conflict::OutsidePool { subnet } => {
                let remedy = "list it under networkPool in its node.yaml".to_owned();
                Error::NotOffered { network, what: format!("subnet {subnet}"), remedy }
            }
            Conflict::PoolFull => Error::PoolFull { network, pool: self.pool },
            Conflict::ShareFull { share, all } => Error::ShareFull { network, pool: self.pool, share, all },
        }
    }
}

async fn host_bridge(record: &NetworkRecord, bridge: &Device) -> Result<Source, Error> {
    let kernel = Netlink::open().map_err(kernel_failed(&record.name))?;
    let links = kernel.links().await.map_err(kernel_failed(&record.name))?;
    let is_bridge =
        |link: &Link| link.name == bridge.as_str() && matches!(link.kind, LinkKind::Bridge { .. });
    if links.iter().any(is_bridge) {
        return Ok(Source::Bridge(bridge.to_string()));
    }
    Err(Error::BridgeMissing { network: record.name.clone(), bridge: bridge.to_string() })
}

async fn vlan_bridge(record: &NetworkRecord, tagged: &Tagged) -> Result<Source, Error> {
    let kernel = Netlink::open().map_err(kernel_failed(&record.name))?;
    vlan::ensure(&kernel, &record.name, tagged).await?;
    Ok(Source::Bridge(tagged.bridge()))
}

/// The VLAN a record needs, if any.
fn tagged(record: &NetworkRecord) -> Option<Tagged> {
    match &record.kind {
        Kind::Bridge { name, vlan: Some(vlan) } => Some(Tagged { trunk: name.clone(), vlan: *vlan }),
        Kind::Bridge { vlan: None, .. } | Kind::Nat { .. } | Kind::Isolated { .. } => None,
    }
}

fn libvirt_failed(network: &str) -> impl FnOnce(crate::libvirt::Error) -> Error {
    let network = network.to_owned();
    |source| Error::Libvirt { network, source }
}

fn kernel_failed(network: &str) -> impl FnOnce(netlink::Error) -> Error {
    let network = network.to_owned();
    |source| Error::Kernel { network, source }
}
