//! Plans for a start: gather what it needs, then make, define and start in one go.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_api::capacity::overhead;

use super::super::desired::{Desired, Disk, Interface, Source};
use super::super::dir::DiskKind;
use super::super::observed::{
    Accelerator, Domain, Ended, HeldImage, Image, Inputs, Network, Observed, Obstacle, Room, State,
};
use super::super::record::{Applied, Failures, PinnedImage, Record, Run, SeedRecord, serve};
use super::super::room::{Share, storage};
use super::{On, Plan, Step};
use crate::network::NetworkRecord;
use crate::retry::Retry;

/// A fetch reports its progress itself; this only bounds how late its end is seen should that be missed.
const FETCH_LOOK: Duration = Duration::from_secs(5);

/// The end of the proof wakes every virtual machine; this bounds how late that is seen should it be missed.
const PROOF_LOOK: Duration = Duration::from_secs(5);

/// The first start: nothing is defined yet.
pub(super) fn first(desired: &Desired, observed: &Observed) -> Plan {
    gather(desired, None, observed).unwrap_or_else(|plan| plan)
}

/// A further start, from what the record remembers.
///
/// A guest that ran before does not stay off because an edit since then names something that cannot be had: it starts
/// as it was, and the edit goes on waiting. Only one that ended for good, and is asked to run once more, waits for it.
pub(super) fn again(desired: &Desired, record: &Record, observed: &Observed) -> Plan {
    match gather(desired, Some(record), observed) {
        // Beginning to fetch delays nothing.
        Ok(plan) | Err(plan @ Plan::Do(_)) => plan,
        Err(hindered) if record.run == Run::Done => hindered,
        Err(hindered) => match as_before(desired, record, observed) {
            None | Some(Err(Plan::Blocked(_))) => hindered,
            Some(Ok(plan) | Err(plan)) => plan,
        },
    }
}

/// What keeps the guest from starting again as it is wanted now; asked while it still runs.
pub(super) fn hindrance(desired: &Desired, record: &Record, observed: &Observed) -> Option<Plan> {
    gather(desired, Some(record), observed).err()
}

/// What disks or interfaces lack for the next start.
pub(super) fn obstacle(desired: &Desired, record: &Record, observed: &Observed) -> Option<Obstacle> {
    match parts(desired, Some(record), observed) {
        Err(Plan::Blocked(obstacle)) => Some(obstacle),
        Ok(_) | Err(Plan::Converged | Plan::Do(_) | Plan::Wait { .. }) => None,
    }
}

fn gather(desired: &Desired, record: Option<&Record>, observed: &Observed) -> Result<Plan, Plan> {
    open(observed)?;
    let applied = size(desired, record, observed.room)?;
    let parts = parts(desired, record, observed)?;
    let (seed, write_seed) = seed(desired, record, observed)?;
    let mut next = next_record(desired, applied, &observed.domain, record, &parts, seed);
    serve(&mut next.served_restarts, &desired.spec().restart_request);
    serve(&mut next.served_reseeds, &desired.spec().cloud_init.reseed);
    Ok(parts.start(next, write_seed, frozen(desired, observed)))
}

/// The last start once more, with the seed it had. What was asked for since is remembered and not served.
fn as_before(desired: &Desired, record: &Record, observed: &Observed) -> Option<Result<Plan, Plan>> {
    let applied = record.applied.clone().filter(|_| observed.seed.written)?;
    let old = Desired::applied(desired.identity().uid, record).ok()?;
    let start = || {
        open(observed)?;
        let parts = parts(&old, Some(record), observed)?;
        let seed = record.seed.clone();
        let next = next_record(desired, applied, &observed.domain, Some(record), &parts, seed);
        Ok(parts.start(next, false, frozen(desired, observed)))
    };
    Some(start())
}

/// Whether this host may start guests at all.
fn open(observed: &Observed) -> Result<(), Plan> {
    if let Some(bar) = &observed.bar {
        return Err(Plan::Blocked(bar.clone()));
    }
    match &observed.accelerator {
        Accelerator::Proved => Ok(()),
        Accelerator::Trying => Err(Plan::Wait { on: On::Proof, until: PROOF_LOOK }),
        Accelerator::Unproved(message) => {
            Err(Plan::Blocked(Obstacle::later("AcceleratorUnproved", message.clone())))
        }
    }
}

/// What a guest is put together from.
struct Parts {
    images: BTreeMap<String, HeldImage>,
    networks: BTreeMap<String, NetworkRecord>,
    /// Brings them up.
    ensures: Vec<Step>,
    /// Makes the folder and the disks that are not there.
    disks: Vec<Step>,
}

fn parts(desired: &Desired, record: Option<&Record>, observed: &Observed) -> Result<Parts, Plan> {
    if let Some(obstacle) = cramped(desired, record, observed.room) {
        return Err(Plan::Blocked(obstacle));
    }
    let images = images(desired, observed)?;
    let networks = networks(desired, record, observed)?;
    let mut disks = vec![Step::MakeFolder];
    for disk in desired.disks() {
        let present = observed.disks.get(&disk.name).copied();
        let image = images.get(&disk.name);
        if present.is_none() && record.is_some_and(|record| record.had(&disk.name)) {
            return Err(Plan::Blocked(missing(&disk.name)));
        }
        if reuses(disk, image, record) {
            return Err(Plan::Blocked(taken(&disk.name)));
        }
        disks.extend(disk_step(disk, image, present)?);
    }
    let ensures = desired.interfaces().iter().filter_map(|one| ensure(one, &networks)).collect();
    Ok(Parts { images, networks, ensures, disks })
}

fn ensure(interface: &Interface, networks: &BTreeMap<String, NetworkRecord>) -> Option<Step> {
    let network = networks.get(&interface.name)?.clone();
    let (mac, addresses, interface) = (interface.mac, interface.addresses.clone(), interface.name.clone());
    Some(Step::EnsureNetwork { interface, mac, network, addresses })
}

impl Parts {
    fn start(self, next: Record, write_seed: bool, paused: bool) -> Plan {
        let mut steps = self.disks;
        if write_seed {
            steps.push(Step::WriteSeed(Box::new(next.clone())));
        }
        steps.extend(self.ensures);
        steps.push(Step::Define(Box::new(next)));
        // After the definition, which says whose ports there will be; before the first frame.
        steps.push(Step::Guard);
        steps.push(Step::Start { paused });
        Plan::Do(steps)
    }
}

/// The images under all disks; begins to fetch all that are missing before it waits for any.
fn images(desired: &Desired, observed: &Observed) -> Result<BTreeMap<String, HeldImage>, Plan> {
    let mut held = BTreeMap::new();
    let (mut fetch, mut wait) = (Vec::new(), false);
    for disk in desired.disks() {
        let Source::Image { name, .. } = &disk.source else { continue };
        match observed.images.get(&disk.name) {
            Some(Image::Held(image)) => {
                held.insert(disk.name.clone(), image.clone());
            }
            Some(Image::Fetchable(_)) => fetch.push(Step::FetchImage { image: name.clone() }),
            Some(Image::Fetching(_)) => wait = true,
            Some(Image::Unavailable(obstacle)) => return Err(Plan::Blocked(obstacle.clone())),
            None => return Err(Plan::Blocked(unseen("image", &disk.name))),
        }
    }
    if !fetch.is_empty() {
        return Err(Plan::Do(fetch));
    }
    if wait {
        return Err(Plan::Wait { on: On::Image, until: FETCH_LOOK });
    }
    Ok(held)
}

/// The network of every interface: as the API has it, so that one made again under its name is found; else as the
/// record has it, so that a start needs no API. What the host does not offer is refused even where a guest was on it.
fn networks(
    desired: &Desired,
    record: Option<&Record>,
    observed: &Observed,
) -> Result<BTreeMap<String, NetworkRecord>, Plan> {
    let mut known = BTreeMap::new();
    for interface in desired.interfaces() {
        let name = format!("{}/{}", desired.identity().namespace, interface.network);
        let remembered =
            record.and_then(|record| record.networks.get(&interface.name)).filter(|old| old.name == name);
        let network = match (remembered, observed.networks.get(&interface.name)) {
            (_, Some(Network::Known(network))) if network.name == name => network.clone(),
            (Some(network), _) => network.clone(),
            (None, Some(Network::Unavailable(obstacle))) => return Err(Plan::Blocked(obstacle.clone())),
            (None, _) => return Err(Plan::Blocked(unseen("network", &interface.name))),
        };
        if let Err(error) = network.check_offer(&observed.offer) {
            return Err(Plan::Blocked(Obstacle::later(error.reason(), error.to_string())));
        }
        known.insert(interface.name.clone(), network);
    }
    Ok(known)
}

/// What the seed is made from, and whether it must be written.
///
/// cloud-init runs once per instance-id, so the seed is written at the first start and after a new `reseed`, and put
/// back under its old instance-id should the file be gone.
fn seed(desired: &Desired, record: Option<&Record>, observed: &Observed) -> Result<(SeedRecord, bool), Plan> {
    let reseed = record.is_some_and(|record| record.wants_reseed(&desired.cloud_init().reseed));
    if let Some(record) = record
        && observed.seed.written
        && !reseed
    {
        return Ok((record.seed.clone(), false));
    }
    match &observed.seed.inputs {
        Inputs::Unavailable(obstacle) => Err(Plan::Blocked(obstacle.clone())),
        Inputs::Ready { ssh_keys, secrets } => {
            let seed = SeedRecord {
                instance_id: instance_id(desired, record, reseed),
                hostname: desired.hostname().to_owned(),
                ssh_keys: ssh_keys.clone(),
                cloud_init: desired.cloud_init().clone(),
                secrets: secrets.clone(),
            };
            Ok((seed, true))
        }
    }
}

fn instance_id(desired: &Desired, record: Option<&Record>, reseed: bool) -> String {
    match record {
        Some(record) if reseed => next_instance_id(&record.seed.instance_id),
        Some(record) => record.seed.instance_id.clone(),
        None => format!("{}-1", desired.identity().uid),
    }
}

fn next_instance_id(old: &str) -> String {
    let (uid, number) = old.rsplit_once('-').unwrap_or((old, "1"));
    format!("{uid}-{}", number.parse::<u64>().unwrap_or(1).saturating_add(1))
}

/// The size to start with: the wanted one, or, where an edit went beyond the room of the node, the one it had. A guest
/// that had its size before is never refused it: the room may have shrunk under all of them.
fn size(desired: &Desired, record: Option<&Record>, room: Room) -> Result<Applied, Plan> {
    let now = |generation| Applied::new(generation, desired.spec());
    let Some(obstacle) = full(desired, room) else { return Ok(now(desired.generation())) };
    let old = record.and_then(|record| record.applied.as_ref());
    match old.and_then(|old| Some((old, desired.sized(old.spec.cpu, &old.spec.memory).ok()?))) {
        Some((old, had)) if had.spec() == desired.spec() => Ok(now(old.generation.max(desired.generation()))),
        Some((old, had)) => Ok(Applied::new(old.generation, had.spec())),
        // No room for a first start passes when others go.
        None => Err(Plan::Blocked(Obstacle { retry: Retry::Later, ..obstacle })),
    }
}

fn next_record(
    desired: &Desired,
    applied: Applied,
    domain: &Domain,
    record: Option<&Record>,
    parts: &Parts,
    seed: SeedRecord,
) -> Record {
    let pin = |(disk, image): (&String, &HeldImage)| {
        (disk.clone(), PinnedImage { digest: image.digest, format: image.format })
    };
    Record {
        namespace: desired.identity().namespace.clone(),
        name: desired.identity().name.clone(),
        generation: desired.generation(),
        spec: desired.spec().clone(),
        applied: Some(applied),
        // Of disks that were removed too: their files stay, and so must what those stand on.
        images: record
            .map(|record| record.images.clone())
            .unwrap_or_default()
            .into_iter()
            .chain(parts.images.iter().map(pin))
            .collect(),
        networks: parts.networks.clone(),
        seed,
        run: Run::Ready,
        ended: ended(domain),
        stop: None,
        restarts: record.map_or(0, |record| record.restarts),
        failures: record.map_or_else(Failures::default, |record| record.failures),
        served_restarts: record.map(|record| record.served_restarts.clone()).unwrap_or_default(),
        served_reseeds: record.map(|record| record.served_reseeds.clone()).unwrap_or_default(),
        guest_uid: record.and_then(|record| record.guest_uid),
    }
}

fn disk_step(disk: &Disk, image: Option<&HeldImage>, present: Option<u64>) -> Result<Option<Step>, Plan> {
    let name = disk.name.clone();
    if let (Source::Image { .. }, Some(image)) = (&disk.source, image)
        && disk.bytes < image.virtual_bytes
    {
        return Err(Plan::Blocked(too_small(disk, image.virtual_bytes)));
    }
    Ok(match (&disk.source, image, present) {
        (_, _, Some(bytes)) if bytes >= disk.bytes => None,
        (Source::Blank, _, Some(_)) => {
            Some(Step::Grow { disk: name, kind: DiskKind::Blank, bytes: disk.bytes })
        }
        (Source::Image { .. }, _, Some(_)) => {
            Some(Step::Grow { disk: name, kind: DiskKind::Overlay, bytes: disk.bytes })
        }
        (Source::Blank, _, None) => Some(Step::CreateBlank { disk: name, bytes: disk.bytes }),
        (Source::Image { .. }, Some(image), None) => {
            Some(Step::CreateOverlay { disk: name, image: image.digest, bytes: disk.bytes })
        }
        (Source::Image { .. }, None, None) => return Err(Plan::Blocked(unseen("image", &disk.name))),
    })
}

/// Whether this disk would stand on the file of another one: that of a removed disk stays, under its name.
fn reuses(disk: &Disk, image: Option<&HeldImage>, record: Option<&Record>) -> bool {
    let Some(record) = record.filter(|record| !record.had(&disk.name)) else { return false };
    match (record.images.get(&disk.name), image) {
        (Some(old), Some(new)) => old.digest != new.digest,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

/// Whether it starts with its processors frozen: wanted so, or because libvirt tells how the last run ended until the
/// next one ends. Where those two could not be told apart, the guest runs only once its start is written down.
fn frozen(desired: &Desired, observed: &Observed) -> bool {
    desired.paused() || matches!(ended(&observed.domain), Some(Ended::PoweredOff | Ended::Failed))
}

/// How the domain ended last, as libvirt says before it is defined anew.
fn ended(domain: &Domain) -> Option<Ended> {
    match domain {
        Domain::Ours { state: State::Off(ended), .. } => Some(*ended),
        Domain::Ours { .. } | Domain::Absent | Domain::Foreign => None,
    }
}

/// An empty disk in the place of one that is gone would look like success.
fn missing(disk: &str) -> Obstacle {
    Obstacle::later(
        "DiskMissing",
        format!(
            "the file of disk {disk} is gone or unreadable on the node, and the guest had written to it: mount or restore the node's state folder, or delete the virtual machine"
        ),
    )
}

fn taken(disk: &str) -> Obstacle {
    Obstacle::stalled(
        "DiskNameTaken",
        format!(
            "a disk {disk} was removed before, and its file, made from another image, stays until the virtual machine is deleted: give the new disk another name"
        ),
    )
}

fn too_small(disk: &Disk, virtual_bytes: u64) -> Obstacle {
    Obstacle::stalled(
        "DiskTooSmall",
        format!(
            "disk {} is smaller than its image: set its size to at least {}",
            disk.name,
            holdfast_api::Quantity::from_bytes(virtual_bytes)
        ),
    )
}

/// What is in the way of this size, if anything.
pub(super) fn full(desired: &Desired, room: Room) -> Option<Obstacle> {
    let Share { cpu, memory, .. } = Share::asked(desired.spec());
    let beside = overhead(cpu, memory);
    if memory.saturating_add(beside) > room.memory {
        let asked = format!("{} of memory and {} beside it for the hypervisor", mib(memory), mib(beside));
        return Some(node_full(&asked, &mib(room.memory)));
    }
    (cpu > room.cpu).then(|| node_full(&format!("{cpu} virtual processors"), &room.cpu.to_string()))
}

/// What is in the way of larger disks, if anything; before the first start, of any.
pub(super) fn cramped(desired: &Desired, record: Option<&Record>, room: Room) -> Option<Obstacle> {
    let asked = storage(desired.spec());
    let had = record.map_or(0, |record| Share::applied(record).storage);
    let obstacle = (asked > had && asked > room.storage)
        .then(|| node_full(&format!("{} of disk space", mib(asked)), &mib(room.storage)))?;
    // No room for a first start passes when others go.
    let retry = if record.is_none() { Retry::Later } else { obstacle.retry };
    Some(Obstacle { retry, ..obstacle })
}

fn mib(bytes: u64) -> String {
    format!("{}Mi", bytes >> 20)
}

fn node_full(asked: &str, left: &str) -> Obstacle {
    Obstacle::stalled(
        "NodeFull",
        format!(
            "{asked} are asked for and the node has {left} left for this virtual machine: ask for less, or delete it and create it again to let another node take it"
        ),
    )
}

fn unseen(what: &str, name: &str) -> Obstacle {
    Obstacle::later("Observing", format!("the {what} of {name} was not looked at yet; this passes by itself"))
}

#[cfg(test)]
mod tests {
    use super::super::model::{World, spec};
    use super::super::plan;
    use super::*;

    #[test]
    fn on_a_disk_that_takes_no_writes_nothing_is_started_or_fetched_and_what_runs_goes_on() {
        let mut world = World::new(spec());
        let next = |world: &World| {
            let bar = Some(Obstacle::later("StateReadOnly", "mount it writable"));
            plan(&world.goal().unwrap(), &Observed { bar, ..world.observed() }, &world.moment())
        };
        assert!(matches!(next(&world), Plan::Blocked(obstacle) if obstacle.reason == "StateReadOnly"));
        world.settle();
        assert_eq!(next(&world), Plan::Converged);
    }
}
