//! What we know of one kind: what its watch told, and what our own writes returned before the watch did.
//!
//! Without the second half a pass would plan a write again that it has just made, because the watch is a moment late.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt};
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::{self, Store, store::Writer};
use kube::runtime::watcher::{self, watcher};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use crate::jitter;

/// A dead link is seen within a minute; the default of 290 s is too long for a site behind one.
const WATCH_SECONDS: u32 = 60;
/// Small pages keep the peak of a list near the size of the set.
const PAGE: u32 = 50;
/// A new list now and then, in case a watch missed something; stretched by up to a half so that kinds do not align.
const RESYNC: Duration = Duration::from_secs(600);
/// How long an object of our own making may be missing from the watch before we believe that it is gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// Name of an object: namespace (empty for a cluster-scoped one) and name.
pub(crate) type Name = (String, String);

/// The name of an object.
pub(crate) fn name<K: Resource>(object: &K) -> Name {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// Whether a change of a kind brings the next pass forward.
#[derive(Clone)]
pub(crate) enum Wake {
    Yes(Arc<Notify>),
    /// For heartbeats, which change all the time and are looked at by the clock.
    No,
}

/// The known objects of one kind.
pub(crate) struct Cache<K: Resource<DynamicType = ()> + 'static> {
    seen: Store<K>,
    ours: Mutex<HashMap<Name, Ours<K>>>,
    leave_out: fn(&mut K),
}

struct Ours<K> {
    object: Arc<K>,
    since: Instant,
}

impl<K> Cache<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    /// A cache, and the task that fills it for as long as it is polled. What `leave_out` empties, no planner reads.
    pub(crate) fn new(
        api: Api<K>,
        labels: Option<&str>,
        wake: Wake,
        leave_out: fn(&mut K),
    ) -> (Self, impl Future<Output = ()> + use<K>) {
        let (seen, writer) = reflector::store();
        let mut config = watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE);
        config.label_selector = labels.map(str::to_owned);
        let cache = Self { seen, ours: Mutex::default(), leave_out };
        (cache, follow(api, config, writer, wake, leave_out))
    }

    /// Waits for the first complete list.
    pub(crate) async fn ready(&self) {
        // The writer lives as long as the process; without it there is nothing to wait for.
        self.seen.wait_until_ready().await.ok();
    }

    /// Every object, the newest version of each.
    pub(crate) fn all(&self, now: Instant) -> Vec<Arc<K>> {
        let mut ours = self.ours.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = self.seen.state();
        let names: HashMap<Name, Arc<K>> = seen.into_iter().map(|object| (name(&*object), object)).collect();
        ours.retain(|name, own| still_ahead(own, names.get(name), now));
        let mut all: Vec<Arc<K>> = ours.values().map(|own| Arc::clone(&own.object)).collect();
        all.retain(|object| !vanished(&**object));
        all.extend(names.into_iter().filter(|(name, _)| !ours.contains_key(name)).map(|(_, object)| object));
        all
    }

    /// Remembers what a write of ours returned.
    pub(crate) fn learn(&self, mut object: K) {
        object.managed_fields_mut().clear();
        (self.leave_out)(&mut object);
        let own = Ours { object: Arc::new(object), since: Instant::now() };
        let mut ours = self.ours.lock().unwrap_or_else(PoisonError::into_inner);
        ours.insert(name(&*own.object), own);
    }
}

/// An object whose last finalizer was removed while it was being deleted: the answer is all that is left of it.
fn vanished<K: Resource>(object: &K) -> bool {
    object.meta().deletion_timestamp.is_some() && object.finalizers().is_empty()
}

fn still_ahead<K: Resource>(own: &Ours<K>, seen: Option<&Arc<K>>, now: Instant) -> bool {
    match seen {
        Some(seen) => version(&*own.object) > version(&**seen),
        None => now.saturating_duration_since(own.since) < PATIENCE,
    }
}

/// Versions of one kind grow; what is no number counts as oldest, so the watch is believed.
fn version<K: Resource>(object: &K) -> u64 {
    object.resource_version().and_then(|version| version.parse().ok()).unwrap_or(0)
}

async fn follow<K>(
    api: Api<K>,
    config: watcher::Config,
    mut writer: Writer<K>,
    wake: Wake,
    leave_out: fn(&mut K),
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    loop {
        let events = watcher(api.clone(), config.clone())
            .default_backoff()
            .modify(move |object: &mut K| {
                object.managed_fields_mut().clear();
                leave_out(object);
            })
            .take_until(tokio::time::sleep(jitter::stretched(RESYNC)));
        fill(events, &mut writer, &wake).await;
    }
}

async fn fill<K>(
    events: impl Stream<Item = watcher::Result<watcher::Event<K>>>,
    writer: &mut Writer<K>,
    wake: &Wake,
) where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let mut events = std::pin::pin!(events);
    let mut heard = true;
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                heard = true;
                writer.apply_watcher_event(&event);
                if let (Wake::Yes(notify), true) = (wake, settles(&event)) {
                    notify.notify_one();
                }
            }
            Err(error) => {
                interrupted(&K::kind(&()), heard, &error);
                heard = false;
            }
        }
    }
}

/// Worth a warning once; the same again while nothing is heard is not.
fn interrupted(kind: &str, first: bool, error: &watcher::Error) {
    let error = error as &dyn std::error::Error;
    if first {
        tracing::warn!(kind, error, "watch interrupted; trying again until it is back");
    } else {
        tracing::debug!(kind, error, "watch still interrupted");
    }
}

/// A list under way is not worth a look; its end is.
fn settles<K>(event: &watcher::Event<K>) -> bool {
    !matches!(event, watcher::Event::Init | watcher::Event::InitApply(_))
}
