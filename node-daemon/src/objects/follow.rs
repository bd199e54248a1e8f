//! One watch of one kind in one namespace: what the server says goes onto the shelf.
//!
//! An object this version of the daemon cannot read is logged and costs no other its place: it stays as it was last read,
//! and one that never was is unknown, which is not the same as missing.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, TryStreamExt};
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::shelf::Shelf;
use crate::jitter;

/// A silent link is noticed after this many seconds (kube#1791: the default is nearly five minutes).
const WATCH_SECONDS: u32 = 60;
/// Objects per answer: small answers keep the memory peak of a list small.
const PAGE: u32 = 100;
/// Everything is listed again this often, spread, since a watch may have missed something (kube#1844).
pub(super) const RESYNC: Duration = Duration::from_secs(600);
/// kubectl's own copy of the object, which we never read.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// How every watch of the daemon asks.
pub(super) fn config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE)
}

/// The events of a watch that pauses longer after each failure, up to 30 s.
///
/// `Init` is left out: it comes before each attempt to list, successful or not, and any event takes the pause back to its
/// beginning, so that an API which refuses or is away would be asked every second for ever.
pub(super) fn events<K>(
    api: Api<DeserializeGuard<K>>,
    asked: watcher::Config,
) -> impl Stream<Item = Result<Event<DeserializeGuard<K>>, watcher::Error>> + Send
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    watch(api, asked)
        .try_filter(|event| std::future::ready(!matches!(event, Event::Init)))
        .default_backoff()
        .modify(strip)
}

/// Follows until dropped. `announce` is told each object before and after; at least one of them is there.
pub(super) async fn follow<K>(
    api: Api<DeserializeGuard<K>>,
    asked: watcher::Config,
    (shelf, namespace): (&Shelf<K>, &str),
    announce: impl Fn(Option<&K>, Option<&K>),
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let place = Place { shelf, namespace, announce };
    loop {
        // The time-out is the resync: the stream itself never ends.
        let watched = place.watch_once(api.clone(), asked.clone());
        if timeout(jitter::spread(RESYNC), watched).await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// A list as far as it has come.
struct Listed<K> {
    items: HashMap<String, Arc<K>>,
    unreadable: HashSet<String>,
}

impl<K> Default for Listed<K> {
    fn default() -> Self {
        Self { items: HashMap::new(), unreadable: HashSet::new() }
    }
}

struct Place<'a, K, F> {
    shelf: &'a Shelf<K>,
    namespace: &'a str,
    announce: F,
}

impl<K, F> Place<'_, K, F>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    F: Fn(Option<&K>, Option<&K>),
{
    async fn watch_once(&self, api: Api<DeserializeGuard<K>>, asked: watcher::Config) {
        let mut listed = Listed::default();
        let mut events = std::pin::pin!(events(api, asked));
        loop {
            match events.try_next().await {
                Ok(Some(event)) => self.take(event, &mut listed),
                Ok(None) => return,
                Err(error) => {
                    // A list that broke off begins anew.
                    listed = Listed::default();
                    self.fail(&error);
                }
            }
        }
    }

    fn take(&self, event: Event<DeserializeGuard<K>>, listed: &mut Listed<K>) {
        match event {
            Event::Init => {}
            Event::InitApply(item) => {
                let name = item.name_any();
                match readable(item) {
                    Some(item) => drop(listed.items.insert(name, Arc::new(item))),
                    None => drop(listed.unreadable.insert(name)),
                }
            }
            Event::InitDone => self.replace(std::mem::take(listed)),
            Event::Apply(item) => self.apply(item),
            Event::Delete(item) => {
                let before = self.shelf.take(self.namespace, &item.name_any());
                if before.is_some() {
                    (self.announce)(before.as_deref(), None);
                }
            }
        }
    }

    fn apply(&self, item: DeserializeGuard<K>) {
        let name = item.name_any();
        let Some(item) = readable(item) else {
            self.shelf.blur(self.namespace, &name);
            return;
        };
        let item = Arc::new(item);
        let before = self.shelf.put(self.namespace, item.clone());
        (self.announce)(before.as_deref(), Some(&item));
    }

    fn replace(&self, listed: Listed<K>) {
        let Listed { items, unreadable } = listed;
        let before = self.shelf.replace(self.namespace, items.clone(), unreadable.clone());
        for (name, item) in &items {
            (self.announce)(before.get(name).map(Arc::as_ref), Some(item));
        }
        let kept = |name: &String| items.contains_key(name) || unreadable.contains(name);
        for (_, item) in before.iter().filter(|(name, _)| !kept(name)) {
            (self.announce)(Some(item), None);
        }
    }

    fn fail(&self, error: &watcher::Error) {
        debug!(namespace = self.namespace, kind = %K::kind(&()), %error, "watch failed; it is tried again");
        self.shelf.doubt(self.namespace);
    }
}

/// The object, or a line in the log on why it is none to us: a kind from another version, as a rule.
pub(super) fn readable<K: Resource<DynamicType = ()>>(item: DeserializeGuard<K>) -> Option<K> {
    let refused = match item.0 {
        Ok(item) => return Some(item),
        Err(refused) => refused,
    };
    let (namespace, name) = (refused.metadata.namespace, refused.metadata.name);
    let kind = K::kind(&());
    warn!(%kind, namespace, name, error = refused.error, "an object cannot be read and stays as it was; update the node daemon");
    None
}

/// Drops what only other programs read, which is often most of the object.
pub(super) fn strip<K: Resource>(item: &mut K) {
    item.managed_fields_mut().clear();
    item.annotations_mut().remove(LAST_APPLIED);
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use holdfast_api::SSHKey;
    use holdfast_api::ssh_key::SSHKeySpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;

    use super::super::Lookup;
    use super::*;

    fn guarded(name: &str) -> DeserializeGuard<SSHKey> {
        DeserializeGuard(Ok(key(name)))
    }

    /// An object as the API server may send it after an update of the kinds.
    fn unreadable(name: &str) -> DeserializeGuard<SSHKey> {
        let metadata = serde_json::json!({"name": name, "namespace": "shop"});
        let object = serde_json::json!({"metadata": metadata, "spec": {"publicKey": {"later": "an object"}}});
        let guarded: DeserializeGuard<SSHKey> = serde_json::from_value(object).unwrap();
        assert!(guarded.0.is_err());
        guarded
    }

    #[test]
    fn an_object_that_cannot_be_read_costs_no_other_its_place() {
        let shelf = Shelf::default();
        let list =
            vec![Event::InitApply(guarded("alice")), Event::InitApply(unreadable("bob")), Event::InitDone];
        assert_eq!(announced(&shelf, list), ["alice"]);
        assert!(matches!(shelf.lookup("shop", "alice", true), Lookup::Found(_)));
        assert_eq!(shelf.lookup("shop", "bob", true), Lookup::Unknown, "it is there, whatever it says");
        assert_eq!(shelf.lookup("shop", "carol", true), Lookup::Missing);
        assert!(!shelf.synced("shop"), "nothing counts as gone while something is unread");
    }

    #[test]
    fn an_object_that_can_no_longer_be_read_stays_as_it_was() {
        let shelf = Shelf::default();
        announced(&shelf, vec![Event::InitApply(guarded("alice")), Event::InitDone]);
        assert!(announced(&shelf, vec![Event::Apply(unreadable("alice"))]).is_empty());
        assert!(matches!(shelf.lookup("shop", "alice", true), Lookup::Found(_)));
        assert!(announced(&shelf, vec![Event::InitApply(unreadable("alice")), Event::InitDone]).is_empty());
        assert!(matches!(shelf.lookup("shop", "alice", true), Lookup::Found(_)));
        announced(&shelf, vec![Event::Apply(guarded("alice"))]);
        assert!(shelf.synced("shop"));
        assert_eq!(announced(&shelf, vec![Event::Delete(guarded("alice"))]), ["-alice"]);
    }

    fn key(name: &str) -> SSHKey {
        let mut key = SSHKey::new(name, SSHKeySpec::default());
        key.metadata.namespace = Some("shop".to_owned());
        key
    }

    /// Hands the events to a shelf and tells which names were announced, with `-` before those that vanished.
    fn announced(shelf: &Shelf<SSHKey>, events: Vec<Event<DeserializeGuard<SSHKey>>>) -> Vec<String> {
        let heard = RefCell::new(Vec::new());
        let announce = |before: Option<&SSHKey>, after: Option<&SSHKey>| {
            let gone = before.filter(|_| after.is_none()).map(|key| format!("-{}", key.name_any()));
            heard.borrow_mut().extend(gone.or_else(|| after.map(ResourceExt::name_any)));
        };
        let place = Place { shelf, namespace: "shop", announce };
        let mut listed = Listed::default();
        for event in events {
            place.take(event, &mut listed);
        }
        heard.into_inner()
    }

    #[test]
    fn a_list_counts_only_when_it_is_whole() {
        let shelf = Shelf::default();
        assert!(announced(&shelf, vec![Event::InitApply(guarded("alice"))]).is_empty());
        assert_eq!(shelf.lookup("shop", "alice", true), Lookup::Unknown);
        assert_eq!(announced(&shelf, vec![Event::InitApply(guarded("alice")), Event::InitDone]), ["alice"]);
        assert!(matches!(shelf.lookup("shop", "alice", true), Lookup::Found(_)));
    }

    #[test]
    fn what_a_new_list_no_longer_holds_is_announced_as_gone() {
        let shelf = Shelf::default();
        announced(&shelf, vec![Event::Apply(guarded("alice")), Event::Apply(guarded("bob"))]);
        assert_eq!(
            announced(&shelf, vec![Event::InitApply(guarded("bob")), Event::InitDone]),
            ["bob", "-alice"]
        );
        assert_eq!(announced(&shelf, vec![Event::Delete(guarded("bob"))]), ["-bob"]);
        assert_eq!(shelf.lookup("shop", "bob", true), Lookup::Missing);
    }

    #[test]
    fn what_only_other_programs_read_is_not_kept() {
        let mut key = key("alice");
        key.managed_fields_mut().push(ManagedFieldsEntry::default());
        key.annotations_mut().insert(LAST_APPLIED.to_owned(), "{}".to_owned());
        strip(&mut key);
        assert!(key.managed_fields().is_empty() && key.annotations().is_empty());
    }
}
