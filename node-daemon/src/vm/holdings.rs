//! What this node holds, for its report: virtual machines, orphans, images.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use holdfast_api::Quantity;
use holdfast_api::node::{CachedImage, Orphan};
use uuid::Uuid;

use super::context::Context;
use super::dir;
use super::observe;
use super::observed::Domain;
use super::record::Record;
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
}

impl Held {
    /// UIDs of all of them.
    pub(crate) fn uids(&self) -> BTreeSet<Uuid> {
        self.domains.keys().chain(&self.folders).copied().collect()
    }

    /// UUIDs of the networks they are connected to.
    pub(crate) fn networks(&self) -> HashSet<Uuid> {
        self.domains.values().flat_map(|record| record.networks.values()).map(|network| network.uid).collect()
    }

    /// Digests of the images they stand on.
    pub(crate) fn images(&self) -> HashSet<Digest> {
        self.domains.values().flat_map(|record| record.images.values()).map(|image| image.digest).collect()
    }
}

/// Looks at libvirt and the state folder.
pub(crate) async fn look(context: &Context) -> Result<Held, libvirt::Error> {
    let record = |domain: &libvirt::Domain| match observe::read(domain) {
        Domain::Ours { record, .. } => Some((domain.uuid, *record)),
        Domain::Absent | Domain::Foreign => None,
    };
    let domains = context.libvirt.domains().await?.iter().filter_map(record).collect();
    let folders = dir::uids(&context.state_dir).unwrap_or_else(|error| {
        tracing::error!(%error, "could not list the folders of virtual machines");
        Vec::new()
    });
    Ok(Held { domains, folders: folders.into_iter().collect() })
}

/// What the node reports of it.
pub(crate) fn holdings(context: &Context, held: &Held, versions: Option<HypervisorVersions>) -> Holdings {
    let orphans: Vec<_> =
        held.domains.iter().filter(|(uid, record)| is_orphan(context, **uid, record)).collect();
    let is_orphan = |uid: &Uuid| orphans.iter().any(|(orphan, _)| *orphan == uid);
    Holdings {
        virtual_machines: held
            .uids()
            .into_iter()
            .filter(|uid| !is_orphan(uid))
            .map(|uid| uid.to_string())
            .collect(),
        orphans: orphans.iter().map(|(uid, record)| orphan(**uid, record)).collect(),
        images: images(context),
        hypervisor: versions,
    }
}

/// Ours, and no object asks for it, as far as the API can tell now: its namespace is listed whole, or not served at all.
fn is_orphan(context: &Context, uid: Uuid, record: &Record) -> bool {
    let objects = &context.objects;
    if objects.virtual_machine(&uid.to_string()).is_some() || !objects.reachable() {
        return false;
    }
    let own = objects.own();
    let own = own.borrow();
    let Some(status) = own.as_ref().and_then(|node| node.status.as_ref()) else { return false };
    !status.namespaces.contains(&record.namespace) || objects.synced(&record.namespace)
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
            image.message = message;
        }
    }
    images.into_values().collect()
}

/// What keeps images from being fetched ahead. What keeps them from a virtual machine stands in that one's status.
fn troubles(context: &Context) -> Vec<(Digest, String)> {
    let wishes = context.wishes.borrow();
    let wanted = wishes
        .prefetch
        .iter()
        .filter_map(|image| observe::fetchable(&image.source, &image.digest, image.format).ok());
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
