//! Says to the networks which guests there are, so that each is kept in its bounds.

use std::net::IpAddr;

use uuid::Uuid;

use super::context::Context;
use super::desired::Desired;
use super::execute::{libvirt_obstacle, network_obstacle};
use super::mac::Mac;
use super::observed::{Domain, Obstacle, State};
use super::record::Record;
use super::{mac, observe};
use crate::libvirt;
use crate::network::Port;

/// Filters what every guest of this host sends: those that run, and those that are defined and may start any time. A
/// start waits for it.
pub(crate) async fn guard(context: &Context) -> Result<(), Obstacle> {
    let Some(turn) = context.networks.turn().await else { return Ok(()) };
    // After the turn has come, or a guest that was defined meanwhile would be left out.
    let ports = ports(&context.libvirt).await.map_err(|error| libvirt_obstacle(&error))?;
    context.networks.filter(turn, &ports).await.map_err(|error| network_obstacle(&error))
}

async fn ports(libvirt: &libvirt::Libvirt) -> Result<Vec<Port>, libvirt::Error> {
    let mut ports = Vec::new();
    for domain in libvirt.domains().await? {
        let Domain::Ours { state, record } = observe::read(&domain) else { continue };
        let mut own = of(domain.uuid, &record);
        if !matches!(state, State::Off(_)) && own.iter().any(|port| port.network.is_served()) {
            // What the kernel has read from DHCP answers holds without them.
            add_leases(&mut own, &libvirt.leases(domain.uuid).await.unwrap_or_default());
        }
        ports.append(&mut own);
    }
    Ok(ports)
}

/// The interfaces a guest was last started with, or is about to be.
fn of(uid: Uuid, record: &Record) -> Vec<Port> {
    let Ok(desired) = Desired::applied(uid, record) else { return Vec::new() };
    let port = |interface: &super::desired::Interface| {
        Some(Port {
            device: mac::device_name(uid, &interface.name),
            mac: interface.mac.bytes(),
            network: record.networks.get(&interface.name)?.clone(),
            listed: interface.addresses.clone(),
            leased: Vec::new(),
        })
    };
    desired.interfaces().iter().filter_map(port).collect()
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
