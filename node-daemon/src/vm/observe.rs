//! Looks at the world: libvirt, the files, the objects a virtual machine refers to. Reads only.

use std::collections::BTreeMap;

use holdfast_api::image::ImageFormat;
use holdfast_api::node::PrefetchImage;
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
use crate::image::{self, Digest, Format, Privacy, Progress, Purpose, Tenant};
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
    /// Which bytes each disk that has an image stands on or shall be made from, by name of the disk.
    pub(crate) pins: Pins,
}

/// Digests by the names of disks.
pub(crate) type Pins = BTreeMap<String, Digest>;

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
    let disks = Disks { context, dir: &dir, record };
    let (images, progress, pins) = disks.images(&built);
    let room = match desired {
        Some(desired) if starting.is_some() || grows(desired, record) => context.room(uid).await,
        _ => Room::ENDLESS,
    };
    let observed = Observed {
        folder: if dir.path().exists() { Folder::Present } else { Folder::Absent },
        images,
        disks: disks.sizes(&built),
        networks: built.first().map(|desired| networks(context, desired)).unwrap_or_default(),
        offer: context.networks.offer(),
        seed: Seed { written, inputs },
        accelerator: context.accelerator(),
        bar: context.bar(),
        room,
        domain,
    };
    Look { observed, material, progress, pins }
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

/// What is needed to look at the disks of one virtual machine.
#[derive(Clone, Copy)]
struct Disks<'a> {
    context: &'a Context,
    dir: &'a VmDir,
    record: Option<&'a Record>,
}

impl Disks<'_> {
    fn sizes(self, built: &[&Desired]) -> BTreeMap<String, u64> {
        let size = |disk: &super::desired::Disk| {
            let kind = match disk.source {
                Source::Blank => DiskKind::Blank,
                Source::Image { .. } => DiskKind::Overlay,
            };
            // A disk that cannot be read is left in place and shows when the next step meets it.
            let bytes = disk::size(&self.dir.disk(&disk.name, kind), kind.format()).ok()??;
            Some((disk.name.clone(), bytes))
        };
        every_disk(built).into_values().filter_map(size).collect()
    }

    fn images(self, built: &[&Desired]) -> (BTreeMap<String, Image>, Option<Progress>, Pins) {
        let (mut images, mut pins) = (BTreeMap::new(), Pins::new());
        let mut slowest: Option<Progress> = None;
        let Some(desired) = built.first() else { return (images, slowest, pins) };
        for disk in every_disk(built).into_values() {
            let Source::Image { name, digest } = &disk.source else { continue };
            let namespace = &desired.identity().namespace;
            let wish = wish(self.context, namespace, name);
            let says = wish.as_ref().ok().map(|wish| wish.wanted.digest);
            let (pinned, made) = match self.made(&disk.name) {
                Made::Not => (says.or(*digest), false),
                Made::From(recorded) => (Some(recorded), true),
                Made::Unreadable => (*digest, true),
                Made::Removed => (None, true),
            };
            let under = Under { namespace, name, pinned, made };
            let (image, progress) = image(self.context, under, wish);
            images.insert(disk.name.clone(), image);
            pins.extend(pinned.or(says).map(|digest| (disk.name.clone(), digest)));
            slowest = match (slowest, progress) {
                (Some(a), Some(b)) => Some(if a.bytes <= b.bytes { a } else { b }),
                (a, b) => a.or(b),
            };
        }
        (images, slowest, pins)
    }

    fn made(self, disk: &str) -> Made {
        made(disk, self.record, || disk::base(&self.dir.disk(disk, DiskKind::Overlay)))
    }
}

/// Whether a disk was made, and from which bytes. Until then nothing ties it to any: what its image object says counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    /// Nothing of it is there.
    Not,
    /// From these.
    From(Digest),
    /// Its file is there and does not tell.
    Unreadable,
    /// One of that name was, and was removed. The new one is looked up anew, and is the one that was only where it is made
    /// from the same bytes.
    Removed,
}

/// The record says it once there is one; before that the file does, should a crash have come between the two.
fn made(
    disk: &str,
    record: Option<&Record>,
    base: impl FnOnce() -> Result<Option<Digest>, disk::Error>,
) -> Made {
    match record.and_then(|record| Some((record.had(disk), record.images.get(disk)?.digest))) {
        Some((true, recorded)) => Made::From(recorded),
        Some((false, _)) => Made::Removed,
        None => match base() {
            Ok(Some(digest)) => Made::From(digest),
            Ok(None) => Made::Not,
            Err(_) => Made::Unreadable,
        },
    }
}

/// What lies under a disk.
#[derive(Clone, Copy)]
struct Under<'a> {
    namespace: &'a str,
    name: &'a str,
    pinned: Option<Digest>,
    /// Whether the disk was made.
    made: bool,
}

/// A pinned digest in the cache needs no object; only a fetch does. Before the disk is made, an object that is there must
/// name the format that the cache holds, and the bytes must be there for this namespace.
fn image(context: &Context, under: Under<'_>, wish: Result<Wish, Obstacle>) -> (Image, Option<Progress>) {
    let Under { namespace, name, pinned, made } = under;
    let cache = context.fetches.cache();
    let find = |digest: &Digest| match &wish {
        _ if made => cache.lookup(digest),
        Ok(wish) => held_for(cache, digest, &wish.wanted),
        Err(_) => cache.lookup_for(digest, &shared(namespace)),
    };
    if let Some(held) = pinned.and_then(|digest| find(&digest)) {
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
    if let Some(held) = held_for(cache, &wanted.digest, wanted) {
        return (Image::Held(held_image(&held)), None);
    }
    match context.fetches.state(&wish) {
        None => (Image::Fetchable(wanted.digest), None),
        Some(Fetch::Waiting) => (Image::Fetching(wanted.digest), None),
        Some(Fetch::Running(progress)) => (Image::Fetching(wanted.digest), Some(progress)),
        Some(Fetch::Failed(obstacle)) => (Image::Unavailable(obstacle), None),
    }
}

fn held_for(cache: &image::Cache, digest: &Digest, wanted: &Wanted) -> Option<image::Image> {
    cache.lookup_for(digest, &wanted.tenant).filter(|held| held.format == wanted.format)
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
    let namespace = image.metadata.namespace.clone().unwrap_or_default();
    let tenant = Tenant { namespace, privacy: privacy(spec.private) };
    let wanted = fetchable(&spec.source, &spec.digest, spec.format, tenant);
    let wanted = wanted.map_err(|sentence| Obstacle::later("ImageRefused", sentence))?;
    Ok(Wish { wanted, object: image.metadata.uid.clone(), purpose: Purpose::Machine })
}

/// What shall be fetched ahead.
pub(crate) fn prefetchable(image: &PrefetchImage) -> Result<Wanted, String> {
    let tenant = Tenant { namespace: image.namespace.clone(), privacy: privacy(image.private) };
    fetchable(&image.source, &image.digest, image.format, tenant)
}

fn privacy(private: bool) -> Privacy {
    if private { Privacy::Private } else { Privacy::Shared }
}

/// A tenant whose image object cannot be read: it says nothing of privacy.
fn shared(namespace: &str) -> Tenant {
    Tenant { namespace: namespace.to_owned(), privacy: Privacy::Shared }
}

/// A source, digest and format as they can be fetched; trusts nothing.
fn fetchable(
    source: &holdfast_api::image::ImageSource,
    digest: &str,
    format: ImageFormat,
    tenant: Tenant,
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
    Ok(Wanted { source, digest, format, tenant })
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
    fn a_disk_keeps_its_bytes_and_nothing_ties_one_that_was_never_made() {
        let mut world = World::new(spec());
        world.settle();
        let mut record = world.domain.record().unwrap().clone();
        let (file, recorded) = (Digest::new([1; 32]), record.images["root"].digest);
        let unsound = || Err(disk::Error::DiskFull { path: "disk".into() });
        assert_eq!(made("root", None, || Ok(None)), Made::Not);
        assert_eq!(made("root", None, || Ok(Some(file))), Made::From(file), "a crash came after the disk");
        assert_eq!(made("root", None, unsound), Made::Unreadable);
        assert_eq!(made("root", Some(&record), || Ok(None)), Made::From(recorded));
        assert_eq!(made("other", Some(&record), || Ok(None)), Made::Not);
        record.images.insert("removed".into(), record.images["root"].clone());
        assert_eq!(made("removed", Some(&record), || Ok(Some(file))), Made::Removed);
    }
}
