//! Says to the networks which guests there are, so that each is kept in its bounds.

use std::net::IpAddr;
use std::time::Duration;

use futures::future::join_all;
use holdfast_api::virtual_machine::Interface;
use uuid::Uuid;

use super::context::Context;
use super::desired::Desired;
use super::execute::{libvirt_obstacle, network_obstacle};
use super::mac::Mac;
use super::observed::{Domain, Obstacle, State};
use super::record::Record;
use super::{mac, observe};
use crate::libvirt;
use crate::network::{NetworkRecord, Port};

/// What libvirt may take to tell the leases of all guests: they are read while starts wait.
const LEASES: Duration = Duration::from_secs(5);

/// Filters what every guest of this host sends: those that run, and those that are defined and may start any time. A
/// start waits for it.
pub(crate) async fn guard(context: &Context) -> Result<(), Obstacle> {
    let Some(turn) = context.networks.turn().await else { return Ok(()) };
    // After the turn has come, or a guest that was defined meanwhile would be left out.
    let ports = match ports(&context.libvirt).await {
        Ok(ports) => ports,
        Err(error) => {
            // Guests run on without libvirt, and the rules are anybody's to remove who has root.
            context.networks.filter_again(turn).await.map_err(|error| network_obstacle(&error))?;
            return Err(libvirt_obstacle(&error));
        }
    };
    context.networks.filter(turn, &ports).await.map_err(|error| network_obstacle(&error))
}

async fn ports(libvirt: &libvirt::Libvirt) -> Result<Vec<Port>, libvirt::Error> {
    let domains = libvirt.domains().await?;
    let ours = domains.iter().filter_map(|domain| match observe::read(domain) {
        Domain::Ours { state, record } => Some((domain.uuid, state, of(domain.uuid, &record))),
        Domain::Absent | Domain::Foreign => None,
    });
    let each = ours.map(|(uid, state, mut ports)| async move {
        if !matches!(state, State::Off(_)) && ports.iter().any(|port| port.network.is_served()) {
            // What the kernel has read from DHCP answers holds without them.
            let leases = tokio::time::timeout(LEASES, libvirt.leases(uid)).await;
            add_leases(&mut ports, &leases.ok().and_then(Result::ok).unwrap_or_default());
        }
        ports
    });
    Ok(join_all(each).await.into_iter().flatten().collect())
}

/// The interfaces of all guests of this host but one.
pub(super) async fn others(libvirt: &libvirt::Libvirt, uid: Uuid) -> Result<Vec<Port>, libvirt::Error> {
    let domains = libvirt.domains().await?.into_iter().filter(|domain| domain.uuid != uid);
    let ports = domains.map(|domain| {
        let found = observe::read(&domain);
        found.record().map(|record| of(domain.uuid, record)).unwrap_or_default()
    });
    Ok(ports.flatten().collect())
}

/// The other interfaces of a guest that shall be on the same network as this one.
pub(super) fn beside(desired: &Desired, interface: &str, network: &NetworkRecord) -> Vec<Port> {
    let all = desired.interfaces();
    let place = all.iter().find(|one| one.name == interface).map(|one| &one.network);
    let near = all.iter().filter(|one| one.name != interface && Some(&one.network) == place);
    let port = |one: &super::desired::Interface| Port {
        device: mac::device_name(desired.identity().uid, &one.name),
        mac: one.mac.bytes(),
        network: network.clone(),
        listed: Vec::new(),
        leased: Vec::new(),
    };
    near.map(port).collect()
}

/// The interfaces a guest was last started with, or is about to be. A guest runs on whose record another version would
/// refuse, so nothing but these is asked for.
fn of(uid: Uuid, record: &Record) -> Vec<Port> {
    let spec = record.applied.as_ref().map_or(&record.spec, |applied| &applied.spec);
    let port = |interface: &Interface| {
        let named = interface.mac_address.parse().ok();
        let listed = interface.addresses.iter().filter_map(|address| address.parse().ok());
        Some(Port {
            device: mac::device_name(uid, &interface.name),
            mac: named.unwrap_or_else(|| Mac::derived(uid, &interface.name)).bytes(),
            network: record.networks.get(&interface.name)?.clone(),
            listed: listed.collect(),
            leased: Vec::new(),
        })
    };
    spec.interfaces.iter().filter_map(port).collect()
}

fn add_leases(ports: &mut [Port], leases: &[libvirt::Lease]) {
    for port in ports.iter_mut().filter(|port| port.network.is_served()) {
        let own =
            leases.iter().filter(|lease| lease.mac.parse().is_ok_and(|mac: Mac| mac.bytes() == port.mac));
        port.leased.extend(own.filter_map(|lease| match lease.ip {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        }));
    }
}

#[cfg(test)]
mod tests {
    use holdfast_api::virtual_machine::RunStrategy;

    use super::super::plan::model::{World, spec};
    use super::*;

    #[test]
    fn a_running_guest_keeps_its_ports_though_its_record_would_be_refused_today() {
        let mut world = World::new(spec());
        world.spec.run_strategy = RunStrategy::Always;
        world.settle();
        let mut record = world.domain.record().unwrap().clone();
        let uid = Uuid::from_u128(7);
        let before = of(uid, &record);
        assert!(!before.is_empty());
        let applied = &mut record.applied.as_mut().unwrap().spec;
        (applied.cpu, applied.memory) = (0, "much".into());
        applied.interfaces[0].addresses = vec!["10.88.0.9".to_owned(), "nowhere".to_owned()];
        let after = of(uid, &record);
        assert_eq!(after[0].listed, ["10.88.0.9".parse::<IpAddr>().unwrap()]);
        assert_eq!((after.len(), after[0].mac), (before.len(), before[0].mac));
    }
}
