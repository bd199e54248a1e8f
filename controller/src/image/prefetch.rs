//! What each node shall fetch ahead. Pure.
//!
//! A node takes a bounded list, so it goes round by namespace: each gets its oldest image in before any gets its second,
//! and so on. Whatever a namespace adds, it moves only its own later images, and those that are later in their namespace
//! than its own. Images of two namespaces with one digest stand in it twice: one of the sources may be broken.

use std::collections::BTreeMap;

use holdfast_api::VirtualMachineImage;
use holdfast_api::node::PrefetchImage;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use crate::world::{Node, World};
use crate::write::Kind;

/// As many as the schema of `HypervisorNode.spec.prefetch` takes.
pub(super) const MOST_PREFETCHED: usize = 64;

/// When an image was made; a tie is decided by its digest and name, so that the list does not move by itself.
type Age<'a> = (Option<&'a Time>, &'a str, &'a str);

/// What this node shall fetch before anybody needs it, in the order of turns.
pub(crate) fn prefetch(world: &World, node: &Node) -> Vec<PrefetchImage> {
    let mut wanted: Vec<(Age<'_>, PrefetchImage)> = world
        .images
        .values()
        .filter(|image| image.metadata.deletion_timestamp.is_none() && selects(image, node))
        .filter(|image| is_read(world, image) || was_ordered(image, node))
        .map(|image| (age(image), order(image)))
        .collect();
    wanted.sort_by_key(|(age, _)| *age);
    in_turn(wanted).into_iter().take(MOST_PREFETCHED).collect()
}

/// One that cannot be read is ordered nowhere: a selector that was read in part selects more than it says.
fn is_read(world: &World, image: &VirtualMachineImage) -> bool {
    world.unread.of(Kind::VirtualMachineImage, image).is_none()
}

fn was_ordered(image: &VirtualMachineImage, node: &Node) -> bool {
    let namespace = image.namespace().unwrap_or_default();
    let orders = &node.object.spec.prefetch;
    orders.iter().any(|order| order.digest == image.spec.digest && order.namespace == namespace)
}

/// The first of each namespace, then the second of each, each time the oldest first. Takes them oldest first.
fn in_turn(wanted: Vec<(Age<'_>, PrefetchImage)>) -> Vec<PrefetchImage> {
    let mut turns: BTreeMap<String, Vec<PrefetchImage>> = BTreeMap::new();
    let mut ranked = Vec::new();
    for (age, order) in wanted {
        let earlier = turns.entry(order.namespace.clone()).or_default();
        if !earlier.iter().any(|other| order.is_like(other)) {
            ranked.push((earlier.len(), age, order.clone()));
            earlier.push(order);
        }
    }
    ranked.sort_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
    ranked.into_iter().map(|(_, _, order)| order).collect()
}

fn age(image: &VirtualMachineImage) -> Age<'_> {
    let name = image.metadata.name.as_deref().unwrap_or_default();
    (image.metadata.creation_timestamp.as_ref(), &image.spec.digest, name)
}

/// An image as a node is told of it.
pub(super) fn order(image: &VirtualMachineImage) -> PrefetchImage {
    PrefetchImage {
        uid: image.uid().unwrap_or_default(),
        namespace: image.namespace().unwrap_or_default(),
        source: image.spec.source.clone(),
        digest: image.spec.digest.clone(),
        format: image.spec.format,
        private: image.spec.private,
    }
}

/// Whether the node is to hold it: its labels say so, and it may be told where the bytes are.
pub(super) fn selects(image: &VirtualMachineImage, node: &Node) -> bool {
    let labels = node.object.labels();
    let matches = |selector: &BTreeMap<String, String>| {
        selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    };
    image.spec.prefetch.as_ref().is_some_and(|prefetch| matches(&prefetch.node_selector))
        && (!has_query(image) || serves(node, &image.namespace().unwrap_or_default()))
}

/// What follows a question mark is often a signature that opens the object to whoever has it.
fn has_query(image: &VirtualMachineImage) -> bool {
    image.spec.source.http.as_ref().is_some_and(|http| http.url.contains('?'))
}

fn serves(node: &Node, namespace: &str) -> bool {
    let status = node.object.status.as_ref();
    status.is_some_and(|status| status.namespaces.iter().any(|served| served == namespace))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::model::{Model, histories};
    use crate::write::Target;

    /// Namespace, digest, address and age in seconds.
    type Made = (&'static str, u8, String, i64);

    fn made(namespace: &'static str, digest: u8, age: i64) -> Made {
        (namespace, digest, format!("https://{namespace}.example/{digest}"), age)
    }

    fn digest(number: u8) -> String {
        format!("sha256:{}", format!("{number:02x}").repeat(32))
    }

    fn ordered(images: &[Made], serves: &[&str]) -> Vec<PrefetchImage> {
        let mut model = Model::default();
        for (number, (namespace, digits, url, age)) in images.iter().enumerate() {
            let created = format!("2026-01-01T{:02}:{:02}:00Z", age / 60, age % 60);
            model.put(
                Target::in_namespace(Kind::VirtualMachineImage, namespace, format!("image-{number}")),
                json!({
                    "metadata": {"creationTimestamp": created},
                    "spec": {"source": {"http": {"url": url}}, "digest": digest(*digits), "format": "raw",
                             "prefetch": {"nodeSelector": {}}},
                }),
            );
        }
        let node = json!({"metadata": {}, "spec": {}, "status": {"namespaces": serves}});
        model.put(Target::cluster(Kind::HypervisorNode, "edge-1"), node);
        let world = model.world();
        prefetch(&world, &world.nodes["edge-1"])
    }

    fn told(orders: &[PrefetchImage]) -> Vec<(&str, &str)> {
        orders.iter().map(|order| (order.namespace.as_str(), &order.digest[7..9])).collect()
    }

    #[test]
    fn prefetch_goes_by_namespace_and_age_in_turn() {
        let images = [made("bank", 3, 9), made("bank", 1, 1), made("bank", 2, 2), made("shop", 4, 5)];
        assert_eq!(
            told(&ordered(&images, &[])),
            [("bank", "01"), ("shop", "04"), ("bank", "02"), ("bank", "03")]
        );
    }

    #[test]
    fn an_image_that_was_made_again_is_the_same_work_and_said_by_another_object() {
        let made = |uid: &str| -> VirtualMachineImage {
            serde_json::from_value(json!({
                "apiVersion": "holdfast.dev/v1alpha1", "kind": "VirtualMachineImage", "metadata": {"name": "a", "uid": uid},
                "spec": {"source": {"http": {"url": "https://a.example/1"}}, "digest": digest(1), "format": "raw"},
            }))
            .unwrap()
        };
        let (first, again) = (order(&made("one")), order(&made("two")));
        assert!(first.is_like(&again) && first != again);
    }

    #[test]
    fn all_sources_of_a_digest_are_kept_and_no_namespace_replaces_anothers() {
        let images = [made("bank", 1, 1), made("shop", 1, 2), made("shop", 1, 3)];
        assert_eq!(told(&ordered(&images, &[])), [("bank", "01"), ("shop", "01")]);
    }

    #[test]
    fn a_url_with_a_query_goes_only_to_nodes_that_already_serve_the_namespace() {
        let signed = ("bank", 1, "https://store.example/disk?signature=abc".to_owned(), 1);
        assert_eq!(ordered(std::slice::from_ref(&signed), &["shop"]), []);
        assert_eq!(told(&ordered(&[signed], &["shop", "bank"])), [("bank", "01")]);
    }

    fn any_images() -> impl Strategy<Value = Vec<Made>> {
        let one = (prop::sample::select(vec!["bank", "desk", "shop"]), 0..40_u8, 0..600_i64)
            .prop_map(|(namespace, digest, age)| made(namespace, digest, age));
        prop::collection::vec(one, 0..90)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(histories(48)))]

        #[test]
        fn no_namespace_pushes_out_anothers_fair_part(images in any_images(), flood in 0..200_u8) {
            let mine: Vec<Made> = images.into_iter().filter(|one| one.0 != "flood").collect();
            let (before, mut all) = (ordered(&mine, &[]), mine);
            all.extend((0..flood).map(|digest| made("flood", digest, 0)));
            let after = ordered(&all, &[]);
            prop_assert!(after.len() <= MOST_PREFETCHED);
            let namespaces: BTreeSet<_> = all.iter().map(|one| one.0).collect();
            for namespace in namespaces.iter().filter(|one| **one != "flood") {
                let of = |orders: &[PrefetchImage]| {
                    orders.iter().filter(|one| one.namespace == *namespace).cloned().collect::<Vec<_>>()
                };
                let (was, is) = (of(&before), of(&after));
                prop_assert!(is.len() >= was.len().min(MOST_PREFETCHED / namespaces.len()));
                prop_assert_eq!(&is[..], &was[..is.len()], "its oldest stay, in their order");
            }
        }
    }
}
