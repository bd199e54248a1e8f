//! What is there and could not be read whole: *unknown*, which is not *missing*.
//!
//! Planners see such an object as far as it was read, so it keeps what it has: its node, its room, its rights. Nothing is
//! decided about it but what its metadata alone allows, and no positive decision about others rests on it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use holdfast_client::Faults;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Resource, ResourceExt};

use crate::write::{Kind, Target, Tell, Verb, Weight, Write};

/// One such object.
#[derive(Clone, Debug)]
struct Partly {
    faults: Arc<Faults>,
    /// Whether something is unknown that decisions rest on.
    hidden: bool,
    regarding: ObjectReference,
    version: String,
}

/// All such objects of a snapshot.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unread(BTreeMap<Target, Partly>);

impl Unread {
    /// Takes note of an object.
    pub(crate) fn note<K>(&mut self, kind: Kind, object: &K, faults: &Arc<Faults>)
    where
        K: Resource<DynamicType = ()>,
    {
        let partly = Partly {
            faults: Arc::clone(faults),
            hidden: hides(kind, faults),
            regarding: object.object_ref(&()),
            version: object.resource_version().unwrap_or_default(),
        };
        self.0.insert(Target::of(kind, object), partly);
    }

    /// What could not be read of this object; `None` when all was read that decisions rest on.
    pub(crate) fn of<K: Resource>(&self, kind: Kind, object: &K) -> Option<&Faults> {
        let partly = self.get(kind, object)?;
        partly.hidden.then_some(&*partly.faults)
    }

    /// Whether anything of this object could not be read.
    pub(crate) fn any(&self, kind: Kind, object: &impl Resource) -> bool {
        self.get(kind, object).is_some()
    }

    fn get(&self, kind: Kind, object: &impl Resource) -> Option<&Partly> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&Target::of(kind, object))
    }

    /// How many there are of each kind.
    pub(crate) fn counted(&self) -> BTreeMap<&'static str, i64> {
        let mut counted = BTreeMap::new();
        for target in self.0.keys() {
            *counted.entry(target.kind.word()).or_default() += 1;
        }
        counted
    }

    /// Whether a write is safe: the object was read whole, or the write touches only what it is known to be.
    ///
    /// An apply would make up what was not read. Metadata is read apart and first; and a status is replaced only where its
    /// planner looked at what was read.
    pub(crate) fn allow(&self, write: &Write) -> bool {
        let metadata_only =
            matches!(write.verb, Verb::Merge(_) | Verb::Delete { .. } | Verb::ReplaceStatus(_));
        metadata_only || !self.0.get(&write.target).is_some_and(|partly| partly.hidden)
    }
}

/// Conditions say what somebody saw and are said anew; whoever wrote nonsense into one hides nothing else. Only a request
/// is decided by its conditions, those of people.
fn hides(kind: Kind, faults: &Faults) -> bool {
    let said_anew = !matches!(kind, Kind::NodeEnrolment | Kind::SigningRequest);
    !said_anew || faults.beyond("status.conditions")
}

/// Which versions were told of already.
#[derive(Default)]
pub(crate) struct Told(HashMap<Target, String>);

impl Told {
    /// Names what is new in the log, once for each version of an object, and returns the events that tell of it.
    pub(crate) fn news(&mut self, unread: &Unread) -> Vec<Tell> {
        self.0.retain(|target, _| unread.0.contains_key(target));
        let mut news = Vec::new();
        for (target, partly) in &unread.0 {
            if self.0.insert(target.clone(), partly.version.clone()).as_ref() == Some(&partly.version) {
                continue;
            }
            tracing::warn!(%target, version = partly.version, faults = %partly.faults, "an object cannot be read whole");
            let note = format!(
                "holdfast-controller cannot read this object and leaves it as it is ({}): correct it, or update \
                 holdfast-controller if a newer one wrote it",
                partly.faults
            );
            news.push(Tell {
                regarding: partly.regarding.clone(),
                related: None,
                weight: Weight::Warning,
                reason: "Unreadable",
                note,
            });
        }
        news
    }
}

#[cfg(test)]
mod tests;
