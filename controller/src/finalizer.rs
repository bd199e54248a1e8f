//! Our finalizer: kube's own helper drops it as soon as a clean-up returns `Ok` (kube#1994), so it is a write like any
//! other here, planned when nothing is left to wait for.

use holdfast_api::names::FINALIZER;
use kube::{Resource, ResourceExt};
use serde::Serialize;

use crate::write::{Exactly, Kind, Target, Verb, Write, json};

#[derive(Serialize)]
struct Patch {
    metadata: Metadata,
}

#[derive(Serialize)]
struct Metadata {
    #[serde(flatten)]
    exactly: Exactly,
    finalizers: Vec<String>,
}

/// Whether the object carries it.
pub(crate) fn is_ours(object: &impl Resource) -> bool {
    object.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

/// Takes it off exactly the object that was read; other finalizers stay.
pub(crate) fn drop_ours<K: Resource>(kind: Kind, object: &K) -> Write {
    let others = object.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER);
    let metadata = Metadata { exactly: Exactly::of(object), finalizers: others.cloned().collect() };
    Write::new(Target::of(kind, object), Verb::Merge(json(&Patch { metadata })))
}
