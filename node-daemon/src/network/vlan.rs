//! One VLAN of a host's bridge as a bridge of ours, for guests to be ports of.
//!
//! ```text
//! guests ── hfv… (bridge of ours) ── hfp… (VLAN device) ── br0 (the host's bridge) ── uplink, tagged
//! ```
//! libvirt's own `<vlan>` needs Open vSwitch before 11.0, and a bridge that filters VLANs ever since; this works on every
//! Linux bridge. Both devices carry our alias; nothing without it is changed or removed. Made before each start, since a
//! reboot forgets them, one step at a time: read, decide on the next step, do it, read again.

use super::error::Error;
use super::names::{self, Tagged};
use super::netlink::{self, Link, LinkKind, Netlink};

/// More steps than any state of the host needs; beyond it somebody undoes them as fast as we work.
const MOST_STEPS: usize = 12;

/// One change of the host's devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    CreateBridge,
    CreatePort { trunk: u32, filters_vlans: bool },
    Adopt { index: u32 },
    Attach { port: u32, bridge: u32 },
    Raise { index: u32 },
}

/// Why there is no next step.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Obstacle {
    BridgeMissing,
    Foreign { what: String, remedy: &'static str },
}

const RENAME: &str = "rename that device on the node";
const USE_IT: &str = "connect the network to the bridge that device belongs to, without vlan, or remove the device on the node";

/// Makes the bridge for a VLAN, or finds it; `network` is for the error's sentence.
pub(crate) async fn ensure(kernel: &Netlink, network: &str, tagged: &Tagged) -> Result<(), Error> {
    let failed = |source| failed(network, source);
    for _ in 0..MOST_STEPS {
        let links = kernel.links().await.map_err(failed)?;
        let step = next(tagged, &links).map_err(|obstacle| obstacle.into_error(network, tagged))?;
        let Some(step) = step else { return Ok(()) };
        execute(kernel, tagged, step).await.map_err(failed)?;
    }
    let what = format!("a program that changes {}", tagged.bridge());
    Err(Error::Foreign { network: network.to_owned(), what, remedy: "stop it on the node" })
}

/// Removes our VLAN bridges that no guest is a port of, except those `kept`. All are tried; the first failure is returned.
pub(crate) async fn collect(kernel: &Netlink, kept: &[Tagged]) -> Result<(), netlink::Error> {
    let links = kernel.links().await?;
    let mut removals = Vec::new();
    for index in unused(&links, kept) {
        removals.push(kernel.remove(index).await);
    }
    removals.into_iter().collect()
}

async fn execute(kernel: &Netlink, tagged: &Tagged, step: Step) -> Result<(), netlink::Error> {
    tracing::debug!(?step, bridge = tagged.bridge(), "changing the host's devices");
    match step {
        Step::CreateBridge => kernel.create_bridge(&tagged.bridge()).await,
        Step::CreatePort { trunk, filters_vlans } => {
            if filters_vlans {
                kernel.admit_vlan(trunk, tagged.vlan.id()).await?;
            }
            kernel.create_vlan(&tagged.port(), trunk, tagged.vlan.id()).await
        }
        Step::Adopt { index } => {
            // A host without IPv6 has nothing to keep off.
            if let Err(error) = kernel.keep_host_off(index).await {
                tracing::debug!(%error, index, "device keeps its IPv6");
            }
            kernel.set_alias(index, &tagged.alias()).await
        }
        Step::Attach { port, bridge } => kernel.attach(port, bridge).await,
        Step::Raise { index } => kernel.raise(index).await,
    }
}

/// The next step towards the VLAN's bridge; none when it is as it should be.
fn next(tagged: &Tagged, links: &[Link]) -> Result<Option<Step>, Obstacle> {
    let trunk = trunk(tagged, links)?;
    let Some(bridge) = find(links, &tagged.bridge()) else { return Ok(Some(Step::CreateBridge)) };
    if !matches!(bridge.kind, LinkKind::Bridge { .. }) {
        return Err(in_the_way(bridge, RENAME));
    }
    let Some(port) = port(tagged, trunk.index, links)? else {
        let filters_vlans = trunk.kind == LinkKind::Bridge { filters_vlans: true };
        return Ok(Some(Step::CreatePort { trunk: trunk.index, filters_vlans }));
    };
    let adoption = [adoption(bridge)?, adoption(port)?].into_iter().flatten().next();
    Ok(adoption.or_else(|| joining(trunk, bridge, port)))
}

/// Between its making and its adoption a device has no alias; one with another's alias is another's.
fn adoption(link: &Link) -> Result<Option<Step>, Obstacle> {
    match link.alias.as_str() {
        "" => Ok(Some(Step::Adopt { index: link.index })),
        alias if names::is_ours(alias) => Ok(None),
        _ => Err(in_the_way(link, RENAME)),
    }
}

fn joining(trunk: &Link, bridge: &Link, port: &Link) -> Option<Step> {
    if port.master != Some(bridge.index) {
        return Some(Step::Attach { port: port.index, bridge: bridge.index });
    }
    // While the host's bridge is off, the kernel refuses to switch the port on, and does so by itself later.
    let down = [port, bridge].into_iter().find(|link| !link.up && (link.index == bridge.index || trunk.up));
    down.map(|link| Step::Raise { index: link.index })
}

fn trunk<'a>(tagged: &Tagged, links: &'a [Link]) -> Result<&'a Link, Obstacle> {
    let found = find(links, tagged.trunk.as_str());
    found.filter(|link| matches!(link.kind, LinkKind::Bridge { .. })).ok_or(Obstacle::BridgeMissing)
}

/// The kernel has at most one device per VLAN of a bridge: it is our port, or somebody else's.
fn port<'a>(tagged: &Tagged, trunk: u32, links: &'a [Link]) -> Result<Option<&'a Link>, Obstacle> {
    let wanted = LinkKind::Vlan { id: tagged.vlan.id(), parent: trunk };
    let named = find(links, &tagged.port());
    match (links.iter().find(|link| link.kind == wanted), named) {
        (Some(found), _) if found.name == tagged.port() => Ok(Some(found)),
        (Some(found), _) => Err(in_the_way(found, USE_IT)),
        (None, Some(other)) => Err(in_the_way(other, RENAME)),
        (None, None) => Ok(None),
    }
}

/// Our VLAN bridges without guests and their ports, ports first.
fn unused(links: &[Link], kept: &[Tagged]) -> Vec<u32> {
    let ours = |link: &&Link| names::is_ours(&link.alias);
    let is_kept =
        |link: &Link| kept.iter().any(|tagged| [tagged.bridge(), tagged.port()].contains(&link.name));
    let has_guest = |bridge: u32| links.iter().any(|link| link.master == Some(bridge) && !ours(&link));
    let mut gone: Vec<&Link> = links
        .iter()
        .filter(ours)
        .filter(|link| !is_kept(link))
        .filter(|link| !has_guest(link.index) && !link.master.is_some_and(has_guest))
        .collect();
    gone.sort_by_key(|link| matches!(link.kind, LinkKind::Bridge { .. }));
    gone.iter().map(|link| link.index).collect()
}

fn find<'a>(links: &'a [Link], name: &str) -> Option<&'a Link> {
    links.iter().find(|link| link.name == name)
}

fn in_the_way(link: &Link, remedy: &'static str) -> Obstacle {
    Obstacle::Foreign { what: format!("device {}", link.name), remedy }
}

fn failed(network: &str, source: netlink::Error) -> Error {
    let network = network.to_owned();
    match source {
        netlink::Error::Unsupported { .. } => Error::VlanUnsupported { network },
        source => Error::Kernel { network, source },
    }
}

impl Obstacle {
    fn into_error(self, network: &str, tagged: &Tagged) -> Error {
        let network = network.to_owned();
        match self {
            Self::BridgeMissing => Error::BridgeMissing { network, bridge: tagged.trunk.to_string() },
            Self::Foreign { what, remedy } => Error::Foreign { network, what, remedy },
        }
    }
}

#[cfg(test)]
#[path = "vlan_tests.rs"]
mod tests;
