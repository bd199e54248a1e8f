//! Images: what the nodes report of their caches, folded into the image; and what each node shall fetch ahead.

use std::collections::BTreeMap;

use holdfast_api::condition::{self, Finding, READY};
use holdfast_api::image::VirtualMachineImageStatus;
use holdfast_api::node::{CachedImage, PrefetchImage};
use holdfast_api::{Quantity, VirtualMachineImage};
use kube::ResourceExt;

use crate::world::{Node, World};
use crate::write::{Kind, Meta, Status, Target, Verb, Write, body, stand};

/// As many as the schema of `HypervisorNode.spec.prefetch` takes.
const MOST_PREFETCHED: usize = 64;

/// Writes that bring every image's status up to date.
pub(crate) fn plan(world: &World) -> Vec<Write> {
    world.images.values().filter_map(|image| update(world, image)).collect()
}

/// What this node shall fetch before anybody needs it, in the order of digests.
pub(crate) fn prefetch(world: &World, node: &Node) -> Vec<PrefetchImage> {
    let wanted = world
        .images
        .values()
        .filter(|image| image.metadata.deletion_timestamp.is_none() && selects(image, node));
    let by_digest: BTreeMap<&str, PrefetchImage> =
        wanted.map(|image| (image.spec.digest.as_str(), order(image))).collect();
    by_digest.into_values().take(MOST_PREFETCHED).collect()
}

fn order(image: &VirtualMachineImage) -> PrefetchImage {
    PrefetchImage {
        source: image.spec.source.clone(),
        digest: image.spec.digest.clone(),
        format: image.spec.format,
    }
}

fn selects(image: &VirtualMachineImage, node: &Node) -> bool {
    let labels = node.object.labels();
    let matches = |selector: &BTreeMap<String, String>| {
        selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    };
    image.spec.prefetch.as_ref().is_some_and(|prefetch| matches(&prefetch.node_selector))
}

fn update(world: &World, image: &VirtualMachineImage) -> Option<Write> {
    if image.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let found = image.status.clone().unwrap_or_default();
    let held: BTreeMap<&str, &CachedImage> = holders(world, &image.spec.digest).collect();
    let any = held.values().next();
    let virtual_size = any.and_then(|cached| cached.virtual_size).and_then(|size| u64::try_from(size).ok());
    let wanted = VirtualMachineImageStatus {
        observed_generation: image.metadata.generation,
        nodes: held.keys().map(|name| (*name).to_owned()).collect(),
        size: any.map(|cached| cached.total),
        virtual_size: virtual_size.map(|size| Quantity::from_bytes(size).0).unwrap_or_default(),
        conditions: condition::conditions(
            &found.conditions,
            &[ready(world, image, &held)],
            image.metadata.generation,
            &world.now,
        ),
    };
    if same(&found, &wanted) {
        return None;
    }
    let target = Target::of(Kind::VirtualMachineImage, image);
    let body = body::<VirtualMachineImage>(&Meta::same(image), Status { status: wanted });
    Some(Write::new(target, Verb::ApplyStatus(body)))
}

fn same(found: &VirtualMachineImageStatus, wanted: &VirtualMachineImageStatus) -> bool {
    let VirtualMachineImageStatus { observed_generation, nodes, size, virtual_size, conditions } = wanted;
    found.observed_generation == *observed_generation
        && found.nodes == *nodes
        && found.size == *size
        && found.virtual_size == *virtual_size
        && stand(&found.conditions, conditions)
}

/// Nodes that hold these bytes, complete and verified.
fn holders<'a>(world: &'a World, digest: &'a str) -> impl Iterator<Item = (&'a str, &'a CachedImage)> {
    world.nodes.iter().filter(|(_, node)| !node.removing()).filter_map(move |(name, node)| {
        let cached = cached(node, digest)?;
        (cached.total > 0 && cached.bytes == cached.total).then_some((name.as_str(), cached))
    })
}

fn cached<'a>(node: &'a Node, digest: &str) -> Option<&'a CachedImage> {
    let images = node.object.status.as_ref().map_or(&[][..], |status| &status.images);
    images.iter().find(|cached| cached.digest == digest)
}

fn ready(world: &World, image: &VirtualMachineImage, held: &BTreeMap<&str, &CachedImage>) -> Finding {
    let selected = world.nodes.iter().filter(|(_, node)| !node.removing() && selects(image, node));
    let waiting = selected.filter(|(name, _)| !held.contains_key(name.as_str()));
    let sentences: Vec<String> =
        waiting.map(|(name, node)| waits_for(name, node, &image.spec.digest)).collect();
    if sentences.is_empty() {
        return Finding::new(READY, true, "Accepted", "");
    }
    Finding::new(
        READY,
        false,
        "Prefetching",
        format!("not held by all selected nodes yet: {}", sentences.join("; ")),
    )
}

fn waits_for(name: &str, node: &Node, digest: &str) -> String {
    match cached(node, digest).map(|cached| cached.message.as_str()) {
        None | Some("") => format!("{name} is to fetch it"),
        Some(message) => format!("{name} says: {message}"),
    }
}
