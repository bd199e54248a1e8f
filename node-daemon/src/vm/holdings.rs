//! What this node holds, for its report: virtual machines, orphans, images.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::Ordering;

use holdfast_api::node::{CachedImage, Orphan};
use holdfast_api::{Quantity, VirtualMachine, bounds};
use uuid::Uuid;

use super::context::Context;
use super::dir;
use super::needs::{Asked, Census};
use super::observe;
use super::observed::Domain;
use super::orphan::is_orphan;
use super::record::Record;
use super::room::{self, Disks, Share};
use crate::image::{Digest, Image, Progress};
use crate::libvirt;
use crate::node::{Holdings, HypervisorVersions};

/// Everything of ours on this host.
#[derive(Default)]
pub(crate) struct Held {
    /// Domains of ours with what they remember.
    pub(crate) domains: BTreeMap<Uuid, Record>,
    /// Folders of virtual machines, with or without a domain.
    pub(crate) folders: BTreeSet<Uuid>,
    /// Domains that are not ours, or no longer say so.
    pub(crate) foreign: BTreeSet<Uuid>,
    /// Whether the folders could be listed.
    pub(crate) listed: bool,
}

impl Held {
    /// UIDs of all of them.
    pub(crate) fn uids(&self) -> BTreeSet<Uuid> {
        self.domains.keys().chain(&self.folders).copied().collect()
    }

    /// Folders that no domain belongs to, whosever it is, and no object: what a crash in the middle of a removal leaves.
    pub(crate) fn unclaimed(&self, has_object: impl Fn(&Uuid) -> bool) -> BTreeSet<Uuid> {
        let domain = |uid: &Uuid| self.domains.contains_key(uid) || self.foreign.contains(uid);
        self.folders.iter().filter(|uid| !domain(uid) && !has_object(uid)).copied().collect()
    }

    /// UUIDs of the networks they are connected to.
    pub(crate) fn networks(&self) -> HashSet<Uuid> {
        self.domains.values().flat_map(|record| record.networks.values()).map(|network| network.uid).collect()
    }
}

/// Looks at libvirt and the state folder.
pub(crate) async fn look(context: &Context) -> Result<Held, libvirt::Error> {
    let (mut domains, mut foreign) = (BTreeMap::new(), BTreeSet::new());
    for domain in context.libvirt.domains().await? {
        match observe::read(&domain) {
            Domain::Ours { record, .. } => drop(domains.insert(domain.uuid, *record)),
            Domain::Absent | Domain::Foreign => drop(foreign.insert(domain.uuid)),
        }
    }
    let folders = dir::uids(&context.state_dir);
    if let Err(error) = &folders {
        tracing::error!(%error, "could not list the folders of virtual machines");
    }
    let listed = folders.is_ok();
    Ok(Held { domains, folders: folders.unwrap_or_default().into_iter().collect(), foreign, listed })
}

/// What decides which images are needed.
pub(crate) fn census<'a>(context: &Context, held: &'a Held) -> Census<'a> {
    let objects = context.objects.virtual_machines();
    let wishes = context.wishes.borrow();
    let ahead = wishes.prefetch.iter();
    Census {
        held,
        reachable: context.objects.reachable(),
        objects: objects.iter().filter_map(|vm| asked(vm)).collect(),
        ahead: ahead.filter_map(|one| Some((one.namespace.clone(), one.digest.parse().ok()?))).collect(),
    }
}

fn asked(vm: &VirtualMachine) -> Option<Asked> {
    let pinned = vm.status.iter().flat_map(|status| &status.disks);
    Some(Asked {
        uid: vm.metadata.uid.as_deref()?.parse().ok()?,
        namespace: vm.metadata.namespace.clone()?,
        images: pinned.filter_map(|disk| disk.image_digest.parse().ok()).collect(),
    })
}

/// The disks of every virtual machine here: those it was started with, and those it asks for where there is room.
pub(crate) fn disks(context: &Context, held: &Held) -> Vec<Disks> {
    let claims = context.claims(held.domains.iter().map(|(uid, record)| (*uid, Share::applied(record))));
    let granted = room::granted(context.whole(), &claims);
    let one = |(uid, share): (Uuid, Share)| Disks {
        promised: share.storage,
        written: dir::allocated(&context.state_dir, uid),
    };
    granted.into_iter().map(one).collect()
}

/// What the node reports of it.
pub(crate) fn holdings(context: &Context, held: &Held, versions: Option<HypervisorVersions>) -> Holdings {
    let orphans = orphans(context, held);
    let others = held.uids().into_iter().filter(|uid| !orphans.contains_key(uid));
    Holdings {
        virtual_machines: others.map(|uid| uid.to_string()).collect(),
        orphans: orphans.values().cloned().collect(),
        images: images(context),
        hypervisor: versions,
        panics: context.panics.load(Ordering::Relaxed),
        unreadable: context.objects.unreadable(),
    }
}

fn orphans(context: &Context, held: &Held) -> BTreeMap<Uuid, Orphan> {
    let domains = held.domains.iter().filter(|(uid, record)| is_orphan(context, **uid, Some(record)));
    let folders = held.unclaimed(|uid| !is_orphan(context, *uid, None));
    let left = folders.into_iter().map(|uid| (uid, leftover(uid, dir::bytes(&context.state_dir, uid))));
    domains.map(|(uid, record)| (*uid, orphan(*uid, record))).chain(left).collect()
}

/// An orphan of which nothing but the folder is left: it runs no more, and only its disks take room.
fn leftover(uid: Uuid, bytes: u64) -> Orphan {
    Orphan {
        uid: uid.to_string(),
        name: "unknown, only its folder is left".to_owned(),
        storage: Quantity::from_bytes(bytes),
        ..Orphan::default()
    }
}

fn orphan(uid: Uuid, record: &Record) -> Orphan {
    let spec = record.applied.as_ref().map_or(&record.spec, |applied| &applied.spec);
    let storage =
        record.spec.disks.iter().filter_map(|disk| disk.size.bytes().ok()).fold(0, u64::saturating_add);
    Orphan {
        uid: uid.to_string(),
        name: format!("{}/{}", record.namespace, record.name),
        cpu: spec.cpu,
        memory: spec.memory.clone(),
        storage: Quantity::from_bytes(storage),
    }
}

/// In the order of their digests. Progress of a download is rounded, so that it does not move the status all the time.
fn images(context: &Context) -> Vec<CachedImage> {
    let held = context.fetches.cache().list().unwrap_or_default();
    let mut images: BTreeMap<Digest, CachedImage> =
        held.iter().map(|image| (image.digest, complete(image))).collect();
    for (digest, progress) in context.fetches.running() {
        images.entry(digest).or_insert_with(|| under_way(digest, progress));
    }
    for (digest, message) in troubles(context) {
        let image = images.entry(digest).or_insert_with(|| under_way(digest, Progress::default()));
        // Complete is complete, wherever it came from.
        if image.virtual_size.is_none() {
            image.message = bounds::cut(message, bounds::SENTENCE);
        }
    }
    images.into_values().take(bounds::IMAGES).collect()
}

/// What keeps images from being fetched ahead. What keeps them from a virtual machine stands in that one's status.
fn troubles(context: &Context) -> Vec<(Digest, String)> {
    let wishes = context.wishes.borrow();
    let wanted = wishes.prefetch.iter().filter_map(|image| observe::prefetchable(image).ok());
    wanted.filter_map(|wanted| Some((wanted.digest, context.fetches.trouble(&wanted)?))).collect()
}

fn complete(image: &Image) -> CachedImage {
    let bytes = count(image.bytes);
    CachedImage {
        digest: image.digest.to_string(),
        bytes,
        total: bytes,
        virtual_size: Some(count(image.virtual_size)),
        message: String::new(),
    }
}

fn under_way(digest: Digest, progress: Progress) -> CachedImage {
    const ROUND: u64 = 64 << 20;
    CachedImage {
        digest: digest.to_string(),
        bytes: count(progress.bytes / ROUND * ROUND),
        total: progress.total.map_or(0, count),
        virtual_size: None,
        message: String::new(),
    }
}

fn count(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_unclaimed_without_a_domain_of_anybody_and_without_an_object() {
        let uids = [1, 2, 3].map(Uuid::from_u128);
        let [left, made, foreign] = uids;
        let held = Held { folders: uids.into(), foreign: BTreeSet::from([foreign]), ..Held::default() };
        assert_eq!(held.unclaimed(|uid| *uid == made), BTreeSet::from([left]));
    }
}
