//! One watch of one kind in one namespace: what the server says goes onto the shelf.
//!
//! An object this version of the daemon cannot read is named and costs no other its place: it stays as it was last read,
//! and one that never was is unknown, which is not the same as missing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use holdfast_client::{Event, Raw, Read, watch};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::watcher;
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tracing::debug;

use super::shelf::Shelf;
use super::unread::Unread;
use crate::jitter;

/// A silent link is noticed after this many seconds (kube#1791: the default is nearly five minutes).
const WATCH_SECONDS: u32 = 60;
/// Objects per answer: small answers keep the memory peak of a list small.
const PAGE: u32 = 100;
/// Everything is listed again this often, spread, since a watch may have missed something (kube#1844).
pub(super) const RESYNC: Duration = Duration::from_secs(600);

/// How every watch of the daemon asks.
pub(super) fn config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE)
}

/// Follows until dropped. `announce` is told each object before and after; at least one of them is there.
pub(super) async fn follow<K>(
    api: Api<Raw>,
    asked: watcher::Config,
    (shelf, namespace, unread): (&Shelf<K>, &str, &Unread),
    announce: impl Fn(Option<&K>, Option<&K>),
) where
    K: Resource<DynamicType = ()> + Clone + Default + DeserializeOwned + Send + 'static,
{
    let place = Place { shelf, namespace, unread, announce };
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
    unread: &'a Unread,
    announce: F,
}

impl<K, F> Place<'_, K, F>
where
    K: Resource<DynamicType = ()> + Clone + Default + DeserializeOwned + Send + 'static,
    F: Fn(Option<&K>, Option<&K>),
{
    async fn watch_once(&self, api: Api<Raw>, asked: watcher::Config) {
        let mut listed = Listed::default();
        let mut events = std::pin::pin!(watch(api, asked));
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

    fn take(&self, event: Event<K>, listed: &mut Listed<K>) {
        match event {
            Event::Init => {}
            Event::InitApply(item) => {
                let name = item.object.name_any();
                let present = item.object.meta().clone();
                if let Some(item) = self.unread.usable(item) {
                    listed.items.insert(name, Arc::new(item));
                } else {
                    self.leave(&name, &present);
                    listed.unreadable.insert(name);
                }
            }
            Event::InitDone => self.replace(std::mem::take(listed)),
            Event::Apply(item) => self.apply(item),
            Event::Delete(item) => {
                self.unread.forget(&item.object);
                let before = self.shelf.take(self.namespace, &item.object.name_any());
                if before.is_some() {
                    (self.announce)(before.as_deref(), None);
                }
            }
        }
    }

    fn apply(&self, item: Read<K>) {
        let name = item.object.name_any();
        let present = item.object.meta().clone();
        let Some(item) = self.unread.usable(item) else {
            self.shelf.blur(self.namespace, &name);
            return self.leave(&name, &present);
        };
        let item = Arc::new(item);
        let before = self.shelf.put(self.namespace, item.clone());
        (self.announce)(before.as_deref(), Some(&item));
    }

    /// An object that cannot be read stays as it was, but one that is being deleted must go: or its namespace hangs.
    fn leave(&self, name: &str, present: &ObjectMeta) {
        if let Some((before, after)) = self.shelf.leave(self.namespace, name, present) {
            (self.announce)(Some(&before), Some(&after));
        }
    }

    fn replace(&self, listed: Listed<K>) {
        let Listed { items, unreadable } = listed;
        let before = self.shelf.replace(self.namespace, items.clone(), unreadable.clone());
        for (name, item) in &items {
            (self.announce)(before.get(name).map(Arc::as_ref), Some(item));
        }
        let kept = |name: &str| items.contains_key(name) || unreadable.contains(name);
        for (_, item) in before.iter().filter(|(name, _)| !kept(name)) {
            (self.announce)(Some(item), None);
        }
        self.unread.keep(Some(&K::kind(&())), self.namespace, kept);
    }

    fn fail(&self, error: &watcher::Error) {
        debug!(namespace = self.namespace, kind = %K::kind(&()), %error, "watch failed; it is tried again");
        self.shelf.doubt(self.namespace);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use holdfast_api::SSHKey;
    use holdfast_api::ssh_key::SSHKeySpec;
    use holdfast_client::Faults;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    use super::super::Lookup;
    use super::*;

    fn guarded(name: &str) -> Read<SSHKey> {
        Read { object: key(name), faults: Faults::default() }
    }

    /// An object as the API server may send it after an update of the kinds.
    fn unreadable(name: &str) -> Read<SSHKey> {
        let metadata = serde_json::json!({"name": name, "namespace": "shop"});
        let object = serde_json::json!({"metadata": metadata, "spec": {"publicKey": {"later": "an object"}}});
        let read = Read::from(Raw::new(object));
        assert!(!read.faults.is_empty());
        read
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

    #[test]
    fn an_object_that_can_no_longer_be_read_is_still_seen_to_be_deleted() {
        let deleted = || {
            let mut read = unreadable("alice");
            read.object.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
            read.object.metadata.resource_version = Some("7".to_owned());
            read
        };
        let seen = |shelf: &Shelf<SSHKey>| match shelf.lookup("shop", "alice", true) {
            // Under the version of our own last write it would pass for the echo of that.
            Lookup::Found(key) => {
                key.metadata.deletion_timestamp.is_some() && key.resource_version().as_deref() == Some("7")
            }
            _ => false,
        };
        for events in [vec![Event::Apply(deleted())], vec![Event::InitApply(deleted()), Event::InitDone]] {
            let shelf = Shelf::default();
            announced(&shelf, vec![Event::InitApply(guarded("alice")), Event::InitDone]);
            assert_eq!(announced(&shelf, events), ["alice"], "the driver hears of it once");
            assert!(seen(&shelf));
            assert!(announced(&shelf, vec![Event::Apply(deleted())]).is_empty());
        }
        let mut another = deleted();
        another.object.metadata.uid = Some("another".to_owned());
        let shelf = Shelf::default();
        announced(&shelf, vec![Event::Apply(guarded("alice")), Event::Apply(another)]);
        assert!(!seen(&shelf), "an object of the same name is another one");
    }

    fn key(name: &str) -> SSHKey {
        let mut key = SSHKey::new(name, SSHKeySpec::default());
        key.metadata.namespace = Some("shop".to_owned());
        key
    }

    /// Hands the events to a shelf and tells which names were announced, with `-` before those that vanished.
    fn announced(shelf: &Shelf<SSHKey>, events: Vec<Event<SSHKey>>) -> Vec<String> {
        let heard = RefCell::new(Vec::new());
        let announce = |before: Option<&SSHKey>, after: Option<&SSHKey>| {
            let gone = before.filter(|_| after.is_none()).map(|key| format!("-{}", key.name_any()));
            heard.borrow_mut().extend(gone.or_else(|| after.map(ResourceExt::name_any)));
        };
        let unread = Unread::new(tokio::sync::mpsc::channel(8).0);
        let place = Place { shelf, namespace: "shop", unread: &unread, announce };
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
}
