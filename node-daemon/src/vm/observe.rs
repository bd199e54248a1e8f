//! Looks at the world: libvirt, the files, the objects a virtual machine refers to. Reads only.

use std::collections::BTreeMap;

use holdfast_api::image::ImageFormat;
use holdfast_api::{VirtualMachineImage, VirtualMachineNetwork};
use uuid::Uuid;

use super::context::Context;
use super::desired::{Desired, Source};
use super::dir::{DiskKind, VmDir};
use super::fetches::{Fetch, Wanted, Wish};
use super::inputs;
use super::observed::{
    Domain, Ended, Folder, HeldImage, Image, Inputs, Network, Observed, Obstacle, PausedBy, Room, Seed, State,
};
use super::record::Record;
use super::room;
use crate::disk;
use crate::image::{self, Digest, Format, Progress};
use crate::libvirt::{self, DomainState, PausedReason, ShutOffReason};
use crate::network::NetworkRecord;
use crate::objects::Lookup;

/// What one look brought: the picture for the planner, and what only the executor may hold.
pub(crate) struct Look {
    /// The picture.
    pub(crate) observed: Observed,
    /// Bytes for a seed, where one may have to be written.
    pub(crate) material: inputs::Material,
    /// The slowest download under way.
    pub(crate) progress: Option<Progress>,
}

/// The domain alone: enough for a halted or removed virtual machine, and to know what is remembered.
pub(crate) async fn domain(libvirt: &libvirt::Libvirt, uid: Uuid) -> Result<Domain, libvirt::Error> {
    Ok(libvirt.domain(uid).await?.map_or(Domain::Absent, |domain| read(&domain)))
}

/// A domain whose record cannot be read is foreign: we do not know what it needs, so we keep our hands off.
pub(crate) fn read(domain: &libvirt::Domain) -> Domain {
    let record = domain.record.as_deref().and_then(|text| serde_json::from_str::<Record>(text).ok());
    match record {
        Some(record) => Domain::Ours { state: state(domain.state), record: Box::new(record) },
        None => Domain::Foreign,
    }
}

fn state(state: DomainState) -> State {
    match state {
        DomainState::Running | DomainState::ShuttingDown | DomainState::Unknown => State::Running,
        DomainState::Paused { reason: PausedReason::IoError } => State::Paused(PausedBy::IoError),
        DomainState::Paused { .. } | DomainState::PmSuspended => State::Paused(PausedBy::Request),
        DomainState::Crashed { .. } => State::Off(Ended::Failed),
        DomainState::ShutOff { reason } => State::Off(match reason {
            ShutOffReason::Shutdown => Ended::PoweredOff,
            ShutOffReason::Failed => Ended::NeverStarted,
            ShutOffReason::Destroyed
            | ShutOffReason::Crashed
            | ShutOffReason::Saved
            | ShutOffReason::FromSnapshot => Ended::Failed,
            ShutOffReason::Daemon | ShutOffReason::Unknown => Ended::Unknown,
        }),
    }
}

/// Everything a plan for this virtual machine may need. What needs the API is looked up only before a start, and the
/// disks and interfaces of an edit that waits for one: memory holds those.
pub(crate) async fn observe(context: &Context, uid: Uuid, desired: Option<&Desired>, domain: Domain) -> Look {
    let dir = VmDir::new(&context.state_dir, uid);
    let record = domain.record();
    let written = dir.seed().exists();
    let starting = desired.filter(|desired| starts(desired, &domain));
    let (inputs, material) = match starting {
        Some(desired) if needs_seed(desired, record, written) => {
            inputs::gather(&context.objects, desired).await
        }
        _ => (not_needed(), inputs::Material::default()),
    };
    let built = starting.or(desired.filter(|desired| rebuilds(desired, record)));
    let applied = built.and(record).and_then(|record| Desired::applied(uid, record).ok());
    let built: Vec<&Desired> = built.into_iter().chain(&applied).collect();
    let (images, progress) = images(context, &built, record);
    let room = match desired {
        Some(desired) if starting.is_some() || grows(desired, record) => context.room(uid).await,
        _ => Room::ENDLESS,
    };
    let observed = Observed {
        folder: if dir.path().exists() { Folder::Present } else { Folder::Absent },
        images,
        disks: disks(&dir, &built),
        networks: built.first().map(|desired| networks(context, desired)).unwrap_or_default(),
        seed: Seed { written, inputs },
        accelerator: context.accelerator(),
        room,
        domain,
    };
    Look { observed, material, progress }
}

/// Whether a start may be next: the guest is off, or a restart was asked for and must not stop it in vain.
fn starts(desired: &Desired, domain: &Domain) -> bool {
    match domain {
        Domain::Absent | Domain::Ours { state: State::Off(_), .. } => true,
        Domain::Ours { record, .. } => record.wants_restart(&desired.spec().restart_request),
        Domain::Foreign => false,
    }
}

fn rebuilds(desired: &Desired, record: Option<&Record>) -> bool {
    record.is_some_and(|record| record.rebuilds(desired.spec()))
}

fn needs_seed(desired: &Desired, record: Option<&Record>, written: bool) -> bool {
    !written || record.is_none_or(|record| record.wants_reseed(&desired.cloud_init().reseed))
}

/// Whether more is asked for than the guest was started with: then the room counts while it runs, too.
fn grows(desired: &Desired, record: Option<&Record>) -> bool {
    let applied = record.and_then(|record| record.applied.as_ref());
    applied.is_some_and(|applied| {
        desired.spec().cpu > applied.spec.cpu
            || desired.spec().memory.bytes().ok() > applied.spec.memory.bytes().ok()
            || room::storage(desired.spec()) > room::storage(&applied.spec)
    })
}

fn not_needed() -> Inputs {
    Inputs::Unavailable(Obstacle::later("Observing", "the seed is being looked at; this passes by itself"))
}

/// The disks of what is wanted now, and of what the guest had: it may have to start with those.
fn every_disk<'a>(built: &[&'a Desired]) -> BTreeMap<&'a str, &'a super::desired::Disk> {
    let disks = built.iter().rev().flat_map(|desired| desired.disks());
    disks.map(|disk| (disk.name.as_str(), disk)).collect()
}

fn disks(dir: &VmDir, built: &[&Desired]) -> BTreeMap<String, u64> {
    let size = |disk: &super::desired::Disk| {
        let kind = match disk.source {
            Source::Blank => DiskKind::Blank,
            Source::Image { .. } => DiskKind::Overlay,
        };
        // A disk that cannot be read is left in place and shows when the next step meets it.
        let bytes = disk::size(&dir.disk(&disk.name, kind), kind.format()).ok()??;
        Some((disk.name.clone(), bytes))
    };
    every_disk(built).into_values().filter_map(size).collect()
}

fn images(
    context: &Context,
    built: &[&Desired],
    record: Option<&Record>,
) -> (BTreeMap<String, Image>, Option<Progress>) {
    let mut images = BTreeMap::new();
    let mut slowest: Option<Progress> = None;
    let Some(desired) = built.first() else { return (images, slowest) };
    for disk in every_disk(built).into_values() {
        let Source::Image { name, digest } = &disk.source else { continue };
        let pinned = pinned(&disk.name, *digest, record);
        let (image, progress) = image(context, &desired.identity().namespace, name, pinned, record.is_some());
        images.insert(disk.name.clone(), image);
        slowest = match (slowest, progress) {
            (Some(a), Some(b)) => Some(if a.bytes <= b.bytes { a } else { b }),
            (a, b) => a.or(b),
        };
    }
    (images, slowest)
}

/// The bytes this disk must have. A disk that comes back after it was removed is taken for a new one, and for the one it
/// was only where it is made from the same bytes.
fn pinned(disk: &str, given: Option<Digest>, record: Option<&Record>) -> Option<Digest> {
    match record.and_then(|record| Some((record.had(disk), record.images.get(disk)?.digest))) {
        Some((true, recorded)) => Some(recorded),
        Some((false, _)) => None,
        None => given,
    }
}

/// A pinned digest in the cache needs no object; only a fetch does. Before the disk is made, an object that is there must
/// name the format that the cache holds.
fn image(
    context: &Context,
    namespace: &str,
    name: &str,
    pinned: Option<Digest>,
    made: bool,
) -> (Image, Option<Progress>) {
    let wish = wish(context, namespace, name);
    let fits =
        |held: &image::Image| made || wish.as_ref().map_or(true, |wish| wish.wanted.format == held.format);
    if let Some(held) = pinned.and_then(|digest| context.fetches.cache().lookup(&digest)).filter(fits) {
        return (Image::Held(held_image(&held)), None);
    }
    let wish = match wish {
        Ok(wish) => wish,
        Err(obstacle) => return (Image::Unavailable(obstacle), None),
    };
    let wanted = &wish.wanted;
    if pinned.is_some_and(|pinned| pinned != wanted.digest) {
        return (Image::Unavailable(replaced(name)), None);
    }
    if let Some(held) =
        context.fetches.cache().lookup(&wanted.digest).filter(|held| held.format == wanted.format)
    {
        return (Image::Held(held_image(&held)), None);
    }
    match context.fetches.state(&wish) {
        None => (Image::Fetchable(wanted.digest), None),
        Some(Fetch::Waiting) => (Image::Fetching(wanted.digest), None),
        Some(Fetch::Running(progress)) => (Image::Fetching(wanted.digest), Some(progress)),
        Some(Fetch::Failed(obstacle)) => (Image::Unavailable(obstacle), None),
    }
}

fn held_image(image: &image::Image) -> HeldImage {
    HeldImage { digest: image.digest, format: image.format, virtual_bytes: image.virtual_size }
}

/// What the image object says to fetch.
pub(crate) fn wish(context: &Context, namespace: &str, name: &str) -> Result<Wish, Obstacle> {
    match context.objects.image(namespace, name) {
        Lookup::Found(image) => parse(&image),
        Lookup::Missing => Err(Obstacle::later(
            "ImageNotFound",
            format!(
                "there is no VirtualMachineImage {name} in namespace {namespace}: create it, the node then continues by itself"
            ),
        )),
        Lookup::Unknown => Err(Obstacle::soon(
            "ImageUnknown",
            format!(
                "VirtualMachineImage {name} could not be read yet, because the API does not answer: the node continues by itself"
            ),
        )),
    }
}

fn parse(image: &VirtualMachineImage) -> Result<Wish, Obstacle> {
    let spec = &image.spec;
    let wanted = fetchable(&spec.source, &spec.digest, spec.format);
    let wanted = wanted.map_err(|sentence| Obstacle::later("ImageRefused", sentence))?;
    Ok(Wish { wanted, object: image.metadata.uid.clone() })
}

/// A source, digest and format as they can be fetched; trusts nothing.
pub(crate) fn fetchable(
    source: &holdfast_api::image::ImageSource,
    digest: &str,
    format: ImageFormat,
) -> Result<Wanted, String> {
    let digest = digest.parse().map_err(|error| format!("spec.digest of the image: {error}"))?;
    let source = match (&source.http, &source.file) {
        (Some(http), None) => {
            let url =
                http.url.parse().map_err(|_| "spec.source.http.url of the image is no URL".to_owned())?;
            image::Source::Http(url)
        }
        (None, Some(file)) => image::Source::File(file.path.clone().into()),
        _ => return Err("spec.source of the image must have exactly one of http and file".to_owned()),
    };
    let format = match format {
        ImageFormat::Qcow2 => Format::Qcow2,
        ImageFormat::Raw => Format::Raw,
    };
    Ok(Wanted { source, digest, format })
}

fn replaced(name: &str) -> Obstacle {
    Obstacle::later(
        "ImageReplaced",
        format!(
            "image {name} was made again with another digest, and the bytes this virtual machine stands on are not in the node's cache: bring an image with the old digest back"
        ),
    )
}

fn networks(context: &Context, desired: &Desired) -> BTreeMap<String, Network> {
    let namespace = &desired.identity().namespace;
    let one = |interface: &super::desired::Interface| {
        (interface.name.clone(), network(context, namespace, &interface.network))
    };
    desired.interfaces().iter().map(one).collect()
}

fn network(context: &Context, namespace: &str, name: &str) -> Network {
    let parse = |network: &VirtualMachineNetwork| match NetworkRecord::try_from(network) {
        Ok(record) => Network::Known(record),
        Err(error) => Network::Unavailable(Obstacle::later(error.reason(), super::sentence(&error))),
    };
    match context.objects.network(namespace, name) {
        Lookup::Found(network) => parse(&network),
        Lookup::Missing => Network::Unavailable(Obstacle::later(
            "NetworkNotFound",
            format!(
                "there is no VirtualMachineNetwork {name} in namespace {namespace}: create it, the node then continues by itself"
            ),
        )),
        Lookup::Unknown => Network::Unavailable(Obstacle::soon(
            "NetworkUnknown",
            format!(
                "VirtualMachineNetwork {name} could not be read yet, because the API does not answer: the node continues by itself"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::model::{World, spec};
    use super::*;

    #[test]
    fn a_disk_keeps_its_bytes_and_one_that_comes_back_is_looked_up_anew() {
        let mut world = World::new(spec());
        world.settle();
        let mut record = world.domain.record().unwrap().clone();
        let (given, recorded) = (Digest::new([1; 32]), record.images["root"].digest);
        assert_eq!(pinned("root", Some(given), None), Some(given));
        assert_eq!(pinned("root", Some(given), Some(&record)), Some(recorded));
        assert_eq!(pinned("other", Some(given), Some(&record)), Some(given));
        record.images.insert("removed".into(), record.images["root"].clone());
        assert_eq!(pinned("removed", Some(given), Some(&record)), None);
    }
}
