//! One watch of one kind in one namespace: what the server says goes onto the shelf.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, TryStreamExt};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tracing::debug;

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
    api: Api<K>,
    asked: watcher::Config,
) -> impl Stream<Item = Result<Event<K>, watcher::Error>> + Send
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    watch(api, asked)
        .try_filter(|event| std::future::ready(!matches!(event, Event::Init)))
        .default_backoff()
        .modify(strip)
}

/// Follows until dropped. `announce` is told each object before and after; at least one of them is there.
pub(super) async fn follow<K>(
    api: Api<K>,
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
    async fn watch_once(&self, api: Api<K>, asked: watcher::Config) {
        let mut listed = HashMap::new();
        let mut events = std::pin::pin!(events(api, asked));
        loop {
            match events.try_next().await {
                Ok(Some(event)) => self.take(event, &mut listed),
                Ok(None) => return,
                Err(error) => {
                    // A list that broke off begins anew.
                    listed.clear();
                    self.fail(&error);
                }
            }
        }
    }

    fn take(&self, event: Event<K>, listed: &mut HashMap<String, Arc<K>>) {
        match event {
            Event::Init => {}
            Event::InitApply(item) => {
                listed.insert(item.name_any(), Arc::new(item));
            }
            Event::InitDone => self.replace(&std::mem::take(listed)),
            Event::Apply(item) => {
                let item = Arc::new(item);
                let before = self.shelf.put(self.namespace, item.clone());
                (self.announce)(before.as_deref(), Some(&item));
            }
            Event::Delete(item) => {
                let before = self.shelf.take(self.namespace, &item.name_any());
                (self.announce)(before.as_deref(), None);
            }
        }
    }

    fn replace(&self, listed: &HashMap<String, Arc<K>>) {
        let before = self.shelf.replace(self.namespace, listed.clone());
        for (name, item) in listed {
            (self.announce)(before.get(name).map(Arc::as_ref), Some(item));
        }
        for (_, item) in before.iter().filter(|(name, _)| !listed.contains_key(*name)) {
            (self.announce)(Some(item), None);
        }
    }

    fn fail(&self, error: &watcher::Error) {
        debug!(namespace = self.namespace, kind = %K::kind(&()), %error, "watch failed; it is tried again");
        self.shelf.doubt(self.namespace);
    }
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
        let place = Place { shelf, namespace: "shop", announce };
        let mut listed = HashMap::new();
        for event in events {
            place.take(event, &mut listed);
        }
        heard.into_inner()
    }

    #[test]
    fn a_list_counts_only_when_it_is_whole() {
        let shelf = Shelf::default();
        assert!(announced(&shelf, vec![Event::InitApply(key("alice"))]).is_empty());
        assert_eq!(shelf.lookup("shop", "alice", true), Lookup::Unknown);
        assert_eq!(announced(&shelf, vec![Event::InitApply(key("alice")), Event::InitDone]), ["alice"]);
        assert!(matches!(shelf.lookup("shop", "alice", true), Lookup::Found(_)));
    }

    #[test]
    fn what_a_new_list_no_longer_holds_is_announced_as_gone() {
        let shelf = Shelf::default();
        announced(&shelf, vec![Event::Apply(key("alice")), Event::Apply(key("bob"))]);
        assert_eq!(announced(&shelf, vec![Event::InitApply(key("bob")), Event::InitDone]), ["bob", "-alice"]);
        assert_eq!(announced(&shelf, vec![Event::Delete(key("bob"))]), ["-bob"]);
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
