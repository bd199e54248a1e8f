//! What we know of one kind: what its watch told, and what our own writes returned before the watch did.
//!
//! Without the second half a pass would plan a write again that it has just made, because the watch is a moment late.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt};
use holdfast_client::{Event, Faults, Raw, Read, watch};
use kube::api::Api;
use kube::runtime::watcher;
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use crate::jitter;
use crate::unread::Unread;
use crate::write::Kind;

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

/// Whether an API that does not answer was warned of already; shared by all watches, which lose it together.
#[derive(Clone, Default)]
pub(crate) struct Outage(Arc<AtomicBool>);

/// The known objects of one kind.
pub(crate) struct Cache<K>(Arc<Inner<K>>);

struct Inner<K> {
    kind: Kind,
    known: Mutex<Known<K>>,
    listed: tokio::sync::watch::Sender<bool>,
    leave_out: fn(&mut K),
}

struct Known<K> {
    seen: HashMap<Name, Entry<K>>,
    ours: HashMap<Name, Ours<K>>,
}

/// An object as it is kept.
struct Entry<K> {
    object: Arc<K>,
    /// What of it could not be read, if anything.
    faults: Option<Arc<Faults>>,
}

struct Ours<K> {
    entry: Entry<K>,
    since: Instant,
}

impl<K> Clone for Entry<K> {
    fn clone(&self) -> Self {
        Self { object: Arc::clone(&self.object), faults: self.faults.clone() }
    }
}

impl<K> Cache<K>
where
    K: Resource<DynamicType = ()> + Default + DeserializeOwned + Send + Sync + 'static,
{
    /// A cache, and the task that fills it for as long as it is polled. What `leave_out` empties, no planner reads.
    pub(crate) fn new(
        (kind, api): (Kind, Api<Raw>),
        labels: Option<&str>,
        (wake, outage): (Wake, Outage),
        leave_out: fn(&mut K),
    ) -> (Self, impl Future<Output = ()> + use<K>) {
        let mut config = watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE);
        config.label_selector = labels.map(str::to_owned);
        let known = Mutex::new(Known { seen: HashMap::new(), ours: HashMap::new() });
        let inner =
            Arc::new(Inner { kind, known, listed: tokio::sync::watch::Sender::new(false), leave_out });
        let filled = Arc::clone(&inner);
        (Self(inner), async move {
            loop {
                let events = watch(api.clone(), config.clone())
                    .take_until(tokio::time::sleep(jitter::stretched(RESYNC)));
                filled.fill(events, &wake, &outage).await;
            }
        })
    }

    /// Waits for the first complete list.
    pub(crate) async fn ready(&self) {
        // The sender lives as long as this cache.
        self.0.listed.subscribe().wait_for(|listed| *listed).await.ok();
    }

    /// Every object, the newest version of each; those that could not be read whole are noted.
    pub(crate) fn all(&self, now: Instant, unread: &mut Unread) -> Vec<Arc<K>> {
        let mut known = self.0.lock();
        let Known { seen, ours } = &mut *known;
        ours.retain(|name, own| still_ahead(own, seen.get(name), now));
        let own = ours.values().map(|own| &own.entry).filter(|entry| !vanished(&*entry.object));
        let others = seen.iter().filter(|(name, _)| !ours.contains_key(*name)).map(|(_, entry)| entry);
        let all = own.chain(others).map(|entry| {
            if let Some(faults) = &entry.faults {
                unread.note(self.0.kind, &*entry.object, faults);
            }
            Arc::clone(&entry.object)
        });
        all.collect()
    }

    /// Remembers what a write of ours returned.
    pub(crate) fn learn(&self, answer: Raw) {
        let own = Ours { entry: self.0.entry(answer.into()), since: Instant::now() };
        self.0.lock().ours.insert(name(&*own.entry.object), own);
    }
}

impl<K> Inner<K>
where
    K: Resource<DynamicType = ()> + Default + DeserializeOwned + Send + Sync + 'static,
{
    fn lock(&self) -> MutexGuard<'_, Known<K>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A list that comes again finds most objects as they were: those are not kept twice meanwhile.
    fn known_as(&self, read: &Read<K>) -> Option<Entry<K>> {
        let (known, object) = (self.lock(), &read.object);
        let found = known.seen.get(&name(object))?;
        let same = object.resource_version().is_some()
            && found.object.resource_version() == object.resource_version()
            && found.object.uid() == object.uid();
        same.then(|| found.clone())
    }

    fn entry(&self, read: Read<K>) -> Entry<K> {
        let Read { mut object, faults } = read;
        (self.leave_out)(&mut object);
        Entry { object: Arc::new(object), faults: (!faults.is_empty()).then(|| Arc::new(faults)) }
    }

    async fn fill(
        &self,
        events: impl Stream<Item = watcher::Result<Event<K>>>,
        wake: &Wake,
        outage: &Outage,
    ) {
        let mut events = std::pin::pin!(events);
        let (mut listed, mut heard) = (HashMap::new(), true);
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    heard = true;
                    outage.0.store(false, Ordering::Relaxed);
                    if let (true, Wake::Yes(notify)) = (self.take(event, &mut listed), wake) {
                        notify.notify_one();
                    }
                }
                Err(error) => {
                    // A list that broke off begins anew.
                    listed.clear();
                    interrupted(self.kind, outage, heard, &error);
                    heard = false;
                }
            }
        }
    }

    /// Takes an event in; true when it is worth a look. A list under way is not; its end is.
    fn take(&self, event: Event<K>, listed: &mut HashMap<Name, Entry<K>>) -> bool {
        let named = |read| {
            let entry = self.entry(read);
            (name(&*entry.object), entry)
        };
        match event {
            Event::Init => return false,
            Event::InitApply(read) => {
                let known = self.known_as(&read).map(|known| (name(&*known.object), known));
                listed.extend([known.unwrap_or_else(|| named(read))]);
                return false;
            }
            Event::InitDone => {
                self.lock().seen = std::mem::take(listed);
                self.listed.send_replace(true);
            }
            Event::Apply(read) => self.lock().seen.extend([named(read)]),
            Event::Delete(read) => drop(self.lock().seen.remove(&name(&read.object))),
        }
        true
    }
}

/// An object whose last finalizer was removed while it was being deleted: the answer is all that is left of it.
fn vanished<K: Resource>(object: &K) -> bool {
    object.meta().deletion_timestamp.is_some() && object.finalizers().is_empty()
}

fn still_ahead<K: Resource>(own: &Ours<K>, seen: Option<&Entry<K>>, now: Instant) -> bool {
    match seen {
        Some(seen) => version(&*own.entry.object) > version(&*seen.object),
        None => now.saturating_duration_since(own.since) < PATIENCE,
    }
}

/// Versions of one kind grow; what is no number counts as oldest, so the watch is believed.
fn version<K: Resource>(object: &K) -> u64 {
    object.resource_version().and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// Worth a warning once; the same again while nothing is heard is not. An API that is away is away for all kinds; one
/// that answers with a refusal may refuse a single kind.
fn interrupted(kind: Kind, outage: &Outage, first: bool, error: &watcher::Error) {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    let refused = !matches!(error, InitialListFailed(source) | WatchStartFailed(source) | WatchFailed(source)
        if !matches!(source, kube::Error::Api(_)));
    let first = first && (refused || !outage.0.swap(true, Ordering::Relaxed));
    let (kind, error) = (kind.word(), error as &dyn std::error::Error);
    if first {
        tracing::warn!(kind, error, "watch interrupted; trying again until it is back");
    } else {
        tracing::debug!(kind, error, "watch still interrupted");
    }
}
