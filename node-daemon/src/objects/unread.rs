//! Objects that are there and could not be read whole, by this version of the daemon.
//!
//! Each version of such an object is named once, in the log and by an event; how many there are stands in the log line.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use holdfast_client::{Faults, Read};
use kube::runtime::events::{Event, EventType};
use kube::{Resource, ResourceExt};
use tokio::sync::mpsc;
use tracing::warn;

use super::events::{Note, shortened};

/// What a virtual machine, and what it refers to, must say for this daemon to act on it. The rest of a status is what this
/// daemon writes itself, and writes anew.
const NEEDED: [&str; 4] = ["metadata", "spec", "status.nodeName", "status.disks"];

/// Kind, namespace and name.
type Key = (String, String, String);

/// Those that are there now, with the version that was named.
pub(super) struct Unread {
    named: Mutex<BTreeMap<Key, String>>,
    notes: mpsc::Sender<Note>,
}

impl Unread {
    /// None yet; events go into the queue of all others.
    pub(super) fn new(notes: mpsc::Sender<Note>) -> Self {
        Self { named: Mutex::default(), notes }
    }

    /// The object where it can be acted on; what of it could not be read is named.
    pub(super) fn usable<K: Resource<DynamicType = ()>>(&self, read: Read<K>) -> Option<K> {
        let Read { object, faults } = read;
        self.name(&object, &faults);
        is_usable(&faults).then_some(object)
    }

    /// Names what of the object could not be read, once for each version.
    pub(super) fn name<K: Resource<DynamicType = ()>>(&self, object: &K, faults: &Faults) {
        if faults.is_empty() {
            return self.forget(object);
        }
        let version = object.resource_version().unwrap_or_default();
        let unreadable = self.with(|named| {
            let news = named.insert(key(object), version.clone()).as_ref() != Some(&version);
            news.then_some(named.len())
        });
        let Some(unreadable) = unreadable else { return };
        let (kind, namespace, name) = key(object);
        warn!(kind, namespace, name, version, %faults, unreadable, "an object cannot be read whole");
        let sentence = format!(
            "holdfast-node cannot read this object and goes on with what it read before ({faults}): correct it, or update \
             holdfast-node if a newer version wrote it"
        );
        let event = Event {
            type_: EventType::Warning,
            reason: "Unreadable".to_owned(),
            note: Some(shortened(&sentence)),
            action: "Unreadable".to_owned(),
            secondary: None,
        };
        // The log has it; an event is a courtesy.
        self.notes.try_send(Note { regarding: object.object_ref(&()), event }).ok();
    }

    /// The object is gone, or can be read again.
    pub(super) fn forget<K: Resource<DynamicType = ()>>(&self, object: &K) {
        self.with(|named| named.remove(&key(object)));
    }

    /// After a list: those that are no longer in it are gone. Of every kind when none is given.
    pub(super) fn keep(&self, kind: Option<&str>, namespace: &str, stays: impl Fn(&str) -> bool) {
        let elsewhere = |key: &Key| kind.is_some_and(|kind| key.0 != kind) || key.1 != namespace;
        self.with(|named| named.retain(|key, _| elsewhere(key) || stays(&key.2)));
    }

    /// How many there are now.
    pub(super) fn count(&self) -> usize {
        self.with(|named| named.len())
    }

    fn with<T>(&self, look: impl FnOnce(&mut BTreeMap<Key, String>) -> T) -> T {
        look(&mut self.named.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether all that this daemon acts on was read.
pub(super) fn is_usable(faults: &Faults) -> bool {
    !NEEDED.iter().any(|field| faults.touch(field))
}

fn key<K: Resource<DynamicType = ()>>(object: &K) -> Key {
    (K::kind(&()).into_owned(), object.namespace().unwrap_or_default(), object.name_any())
}

#[cfg(test)]
mod tests {
    use holdfast_api::VirtualMachine;
    use holdfast_client::Raw;
    use serde_json::{Value, json};

    use super::*;

    fn read(version: &str, spec: &Value, conditions: &Value) -> Read<VirtualMachine> {
        let metadata = json!({"name": "web", "namespace": "shop", "uid": "u", "resourceVersion": version});
        let status = json!({"nodeName": "edge-1", "conditions": conditions});
        Raw::new(json!({"metadata": metadata, "spec": spec, "status": status})).into()
    }

    #[test]
    fn each_version_of_an_object_is_named_once() {
        let (notes, mut queue) = mpsc::channel(8);
        let unread = Unread::new(notes);
        let bent = json!({"cpu": "many", "memory": "1Gi"});
        assert!(unread.usable(read("7", &bent, &json!([]))).is_none());
        assert!(unread.usable(read("7", &bent, &json!([]))).is_none());
        let note = queue.try_recv().unwrap();
        assert_eq!(note.regarding.name.as_deref(), Some("web"));
        assert!(note.event.note.unwrap().contains("spec.cpu"));
        assert!(queue.try_recv().is_err());
        assert!(unread.usable(read("8", &bent, &json!([]))).is_none());
        assert!(queue.try_recv().is_ok());
    }

    #[test]
    fn a_status_that_cannot_be_read_holds_no_guest_up() {
        let (notes, _queue) = mpsc::channel(8);
        let bent = json!([{"type": "bent", "lastTransitionTime": "2024-01-01T00:00:00+99:99"}]);
        let vm =
            Unread::new(notes).usable(read("7", &json!({"cpu": 1, "memory": "1Gi", "disks": []}), &bent));
        assert_eq!(vm.unwrap().status.unwrap().node_name, "edge-1");
    }
}
