//! Images: what the nodes report of their caches, folded into the image.

mod prefetch;

use std::collections::BTreeMap;

use holdfast_api::condition::{self, Finding, READY};
use holdfast_api::image::VirtualMachineImageStatus;
use holdfast_api::node::CachedImage;
use holdfast_api::{Quantity, VirtualMachineImage, bounds};

use crate::place::first_few;
use crate::world::{Node, World};
use crate::write::{Kind, Meta, Status, Target, Verb, Write, body, stand};

pub(crate) use prefetch::prefetch;
use prefetch::{MOST_PREFETCHED, order, selects};

/// Characters of what a node says; a condition takes 32768 in all, and the API server would refuse more.
const MOST_SAID: usize = 256;

/// Writes that bring every image's status up to date.
pub(crate) fn plan(world: &World) -> Vec<Write> {
    world.images.values().filter_map(|image| update(world, image)).collect()
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
        nodes: held.keys().take(bounds::LISTED).map(|name| (*name).to_owned()).collect(),
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
    let body = body::<VirtualMachineImage>(&Meta::exactly(image), Status { status: wanted });
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
    let sentences: Vec<String> = waiting.map(|(name, node)| waits_for(name, node, image)).collect();
    if sentences.is_empty() {
        return Finding::new(READY, true, "Accepted", "");
    }
    Finding::new(
        READY,
        false,
        "Prefetching",
        format!("not held by all selected nodes yet: {}", first_few(&sentences)),
    )
}

fn waits_for(name: &str, node: &Node, image: &VirtualMachineImage) -> String {
    let ordered = &node.object.spec.prefetch;
    if ordered.len() >= MOST_PREFETCHED && !ordered.iter().any(|other| order(image).is_like(other)) {
        return format!(
            "{name} fetches {MOST_PREFETCHED} other images ahead, which is the most: take prefetch from one of them, or \
             select fewer nodes"
        );
    }
    match cached(node, &image.spec.digest).map(|cached| cached.message.as_str()) {
        None | Some("") => format!("{name} is to fetch it"),
        Some(_) if is_others_too(node, image) => {
            format!("{name} could not fetch it yet, for this or another namespace; its log says why")
        }
        Some(message) => format!("{name} says: {}", message.chars().take(MOST_SAID).collect::<String>()),
    }
}

/// Whether the node fetches these bytes for another namespace too: what it says then may name the address of a source that
/// is none of this one's affair.
fn is_others_too(node: &Node, image: &VirtualMachineImage) -> bool {
    let namespace = image.metadata.namespace.as_deref().unwrap_or_default();
    let mut orders = node.object.spec.prefetch.iter().filter(|other| other.digest == image.spec.digest);
    orders.any(|other| other.namespace != namespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;
    use crate::reconcile;
    use serde_json::json;

    fn ready_of(model: &Model, name: &str) -> String {
        let image: VirtualMachineImage =
            serde_json::from_value(model.objects[&target(name)].clone()).unwrap();
        let status = image.status.unwrap_or_default();
        condition::find(&status.conditions, READY).unwrap().message.clone()
    }

    fn target(name: &str) -> Target {
        Target::in_namespace(Kind::VirtualMachineImage, "shop", name)
    }

    fn pass(model: &mut Model) {
        for write in reconcile::plan(&model.world()) {
            model.write(&write);
        }
    }

    fn site(nodes: usize, images: usize) -> Model {
        let mut model =
            (0..nodes).fold(Model::default(), |model, node| model.with_node(&format!("edge-{node}")));
        for image in 0..images {
            let spec = json!({"source": {"file": {"path": "/d"}}, "digest": format!("sha256:{image:064}"), "format": "raw",
                "prefetch": {"nodeSelector": {}}});
            model.put(target(&format!("image-{image}")), json!({"metadata": {}, "spec": spec}));
        }
        for _ in 0..3 {
            pass(&mut model);
        }
        model
    }

    #[test]
    fn one_image_more_than_a_node_fetches_ahead_says_so() {
        let model = site(1, MOST_PREFETCHED + 1);
        assert!(ready_of(&model, "image-0").ends_with("edge-0 is to fetch it"));
        assert!(ready_of(&model, "image-64").contains("edge-0 fetches 64 other images ahead"));
    }

    #[test]
    fn many_nodes_that_wait_make_no_long_message() {
        let mut model = site(20, 1);
        let node = Target::cluster(Kind::HypervisorNode, "edge-0");
        let cached = json!([{"digest": format!("sha256:{:064}", 0), "bytes": 0, "total": 0, "message": "x".repeat(9999)}]);
        model.objects.get_mut(&node).unwrap()["status"]["images"] = cached;
        pass(&mut model);
        let message = ready_of(&model, "image-0");
        assert!(message.ends_with("and 12 more"), "{message}");
        assert!(message.len() < 1024, "{message}");
    }

    /// Two namespaces have the same digest fetched ahead; the node says what became of one of them.
    fn shared_digest(private: bool) -> Model {
        let mut model = site(1, 1);
        let spec = json!({"source": {"http": {"url": "https://bank.example/d?token=s3cret"}}, "digest": format!("sha256:{:064}", 0),
            "format": "raw", "private": private, "prefetch": {"nodeSelector": {}}});
        model.put(
            Target::in_namespace(Kind::VirtualMachineImage, "bank", "theirs"),
            json!({"metadata": {}, "spec": spec}),
        );
        // A query is sent only to nodes that serve the namespace.
        let node = Target::cluster(Kind::HypervisorNode, "edge-0");
        let order = json!({"namespace": "bank", "uid": "u", "source": spec["source"], "digest": spec["digest"], "format": "raw",
            "private": private});
        model.objects.get_mut(&node).unwrap()["spec"]["prefetch"].as_array_mut().unwrap().push(order);
        let said = json!([{"digest": spec["digest"], "bytes": 0, "total": 0,
            "message": "https://bank.example/d?token=s3cret answers 403"}]);
        model.objects.get_mut(&node).unwrap()["status"]["images"] = said;
        model
    }

    #[test]
    fn what_a_node_says_of_another_namespaces_source_is_not_told() {
        for private in [false, true] {
            let model = shared_digest(private);
            let world = model.world();
            let image: VirtualMachineImage =
                serde_json::from_value(model.objects[&target("image-0")].clone()).unwrap();
            let message = waits_for("edge-0", &world.nodes["edge-0"], &image);
            assert!(message.starts_with("edge-0 could not fetch it yet"), "{message}");
            assert!(!message.contains("bank"), "{message}");
        }
    }

    /// Known and documented: to keep it from others, nodes would have to tell namespaces apart in their report.
    #[test]
    fn a_status_goes_by_the_digest_alone() {
        let mut model = shared_digest(true);
        let node = Target::cluster(Kind::HypervisorNode, "edge-0");
        let held = json!([{"digest": format!("sha256:{:064}", 0), "bytes": 7, "total": 7, "virtualSize": 9}]);
        model.objects.get_mut(&node).unwrap()["status"]["images"] = held;
        pass(&mut model);
        let image: VirtualMachineImage =
            serde_json::from_value(model.objects[&target("image-0")].clone()).unwrap();
        let status = image.status.unwrap();
        assert_eq!((status.nodes, status.size), (vec!["edge-0".to_owned()], Some(7)));
    }
}
