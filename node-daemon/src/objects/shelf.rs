//! The objects of one kind, by namespace and name, each namespace with the state of its watch.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::Lookup;

/// A watch that failed is doubted for this long: a little more than the longest pause (30 s) before kube tries again,
/// since a watch that resumes quietly reports nothing.
const DOUBT: Duration = Duration::from_secs(45);

/// The objects of one namespace.
struct Section<K> {
    items: HashMap<String, Arc<K>>,
    /// Names of those whose present version this daemon cannot read.
    unreadable: HashSet<String>,
    /// Whether `items` was a whole list once.
    listed: bool,
    failed: Option<Instant>,
}

impl<K> Default for Section<K> {
    fn default() -> Self {
        Self { items: HashMap::new(), unreadable: HashSet::new(), listed: false, failed: None }
    }
}

/// The objects of one kind. Written by its watches, read by everyone; a lock is held for a look-up, never across a wait.
pub(super) struct Shelf<K>(RwLock<HashMap<String, Section<K>>>);

impl<K> Default for Shelf<K> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<K: ResourceExt> Shelf<K> {
    /// The first object that satisfies the predicate.
    pub(super) fn find(&self, wanted: impl Fn(&K) -> bool) -> Option<Arc<K>> {
        self.read(|sections| {
            sections.values().flat_map(|s| s.items.values()).find(|item| wanted(item)).cloned()
        })
    }

    /// Every object.
    pub(super) fn all(&self) -> Vec<Arc<K>> {
        self.read(|sections| sections.values().flat_map(|s| s.items.values()).cloned().collect())
    }

    /// What is known of one name; `current` says whether the API answers.
    pub(super) fn lookup(&self, namespace: &str, name: &str, current: bool) -> Lookup<Arc<K>> {
        self.read(|sections| {
            let Some(section) = sections.get(namespace) else {
                return Lookup::Unknown;
            };
            match section.items.get(name) {
                Some(item) => Lookup::Found(item.clone()),
                None if current && section.trusted() && !section.unreadable.contains(name) => Lookup::Missing,
                None => Lookup::Unknown,
            }
        })
    }

    /// Whether the namespace was listed whole, everything in it could be read, and its watch is not in doubt.
    pub(super) fn synced(&self, namespace: &str) -> bool {
        self.read(|sections| {
            sections.get(namespace).is_some_and(|section| section.trusted() && section.unreadable.is_empty())
        })
    }

    /// An object was seen; returns what was there before.
    pub(super) fn put(&self, namespace: &str, item: Arc<K>) -> Option<Arc<K>> {
        self.write(namespace, |section| {
            section.failed = None;
            section.unreadable.remove(&item.name_any());
            section.items.insert(item.name_any(), item)
        })
    }

    /// The answer to a write of ours. An object that has left in the meantime stays away, and one that somebody else has
    /// changed since stays as the watch told it: or what they wrote would never be seen.
    pub(super) fn refresh(&self, item: Arc<K>) {
        self.write(&item.namespace().unwrap_or_default(), |section| {
            let held = section.items.get_mut(&item.name_any()).filter(|held| held.uid() == item.uid());
            if let Some(held) = held.filter(|held| !is_newer(held.as_ref(), item.as_ref())) {
                *held = item;
            }
        });
    }

    /// An object vanished; returns what was there before.
    pub(super) fn take(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.write(namespace, |section| {
            section.unreadable.remove(name);
            section.items.remove(name)
        })
    }

    /// An object has a version that cannot be read; the one before stays.
    pub(super) fn blur(&self, namespace: &str, name: &str) {
        self.write(namespace, |section| section.unreadable.insert(name.to_owned()));
    }

    /// The present version cannot be read, but its metadata says that it is being deleted. Returns what is held before
    /// and after, unless that was known.
    pub(super) fn leave(&self, namespace: &str, name: &str, present: &ObjectMeta) -> Option<(Arc<K>, Arc<K>)>
    where
        K: Clone,
    {
        let since = present.deletion_timestamp.as_ref()?;
        self.write(namespace, |section| {
            let held = section.items.get_mut(name).filter(|held| held.meta().uid == present.uid)?;
            let known = held.meta().deletion_timestamp.is_some();
            if known && held.meta().resource_version == present.resource_version {
                return None;
            }
            let before = held.clone();
            let meta = Arc::make_mut(held).meta_mut();
            meta.deletion_timestamp = Some(since.clone());
            meta.resource_version.clone_from(&present.resource_version);
            Some((before, held.clone()))
        })
    }

    /// A whole list was read; returns what was there before. The unreadable ones stay as they were.
    pub(super) fn replace(
        &self,
        namespace: &str,
        items: HashMap<String, Arc<K>>,
        unreadable: HashSet<String>,
    ) -> HashMap<String, Arc<K>> {
        self.write(namespace, |section| {
            section.listed = true;
            section.failed = None;
            let before = std::mem::replace(&mut section.items, items);
            let kept = |name: &String| Some((name.clone(), before.get(name)?.clone()));
            section.items.extend(unreadable.iter().filter_map(kept));
            section.unreadable = unreadable;
            before
        })
    }

    /// The watch failed: what is here stays, what is not here is in doubt.
    pub(super) fn doubt(&self, namespace: &str) {
        self.write(namespace, |section| section.failed = Some(Instant::now()));
    }

    /// The node no longer serves the namespace.
    pub(super) fn drop_namespace(&self, namespace: &str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(namespace);
    }

    fn read<T>(&self, look: impl FnOnce(&HashMap<String, Section<K>>) -> T) -> T {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, namespace: &str, change: impl FnOnce(&mut Section<K>) -> T) -> T {
        let mut sections = self.0.write().unwrap_or_else(PoisonError::into_inner);
        change(sections.entry(namespace.to_owned()).or_default())
    }
}

impl<K> Section<K> {
    fn trusted(&self) -> bool {
        self.listed && self.failed.is_none_or(|at| at.elapsed() > DOUBT)
    }
}

/// Whether `left` is a later version than `right` of one object; the API server counts versions up.
fn is_newer<K: ResourceExt>(left: &K, right: &K) -> bool {
    let version = |item: &K| item.resource_version().and_then(|version| version.parse::<u64>().ok());
    version(left) > version(right)
}

#[cfg(test)]
mod tests {
    use holdfast_api::SSHKey;

    use super::*;

    fn key(name: &str) -> Arc<SSHKey> {
        Arc::new(SSHKey::new(name, holdfast_api::ssh_key::SSHKeySpec::default()))
    }

    #[test]
    fn an_absent_object_is_missing_only_in_a_whole_and_current_list() {
        let shelf = Shelf::<SSHKey>::default();
        assert_eq!(shelf.lookup("shop", "alice", true), Lookup::Unknown);
        shelf.replace("shop", HashMap::new(), HashSet::new());
        assert_eq!(shelf.lookup("shop", "alice", true), Lookup::Missing);
        assert_eq!(shelf.lookup("shop", "alice", false), Lookup::Unknown);
        shelf.doubt("shop");
        assert_eq!(shelf.lookup("shop", "alice", true), Lookup::Unknown);
    }

    #[test]
    fn what_was_seen_stays_readable_while_the_api_is_away() {
        let shelf = Shelf::<SSHKey>::default();
        shelf.put("shop", key("alice"));
        shelf.doubt("shop");
        assert!(matches!(shelf.lookup("shop", "alice", false), Lookup::Found(_)));
    }

    #[test]
    fn the_late_answer_to_our_write_does_not_hide_what_somebody_wrote_after_it() {
        let version = |version: &str| {
            let mut key = SSHKey::clone(&key("alice"));
            key.metadata.namespace = Some("shop".to_owned());
            key.metadata.resource_version = Some(version.to_owned());
            Arc::new(key)
        };
        let shelf = Shelf::<SSHKey>::default();
        shelf.put("shop", version("10"));
        shelf.refresh(version("9"));
        assert_eq!(shelf.lookup("shop", "alice", true), Lookup::Found(version("10")));
        shelf.refresh(version("11"));
        assert_eq!(shelf.lookup("shop", "alice", true), Lookup::Found(version("11")));
    }

    #[test]
    fn a_namespace_the_node_no_longer_serves_is_unknown() {
        let shelf = Shelf::<SSHKey>::default();
        shelf.replace("shop", HashMap::from([("alice".to_owned(), key("alice"))]), HashSet::new());
        shelf.drop_namespace("shop");
        assert_eq!(shelf.lookup("shop", "alice", true), Lookup::Unknown);
    }
}
