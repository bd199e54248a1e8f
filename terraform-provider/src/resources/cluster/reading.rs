//! Reading: a plan reads each kind and namespace once, however many of its objects are in the state.
//!
//! The host asks for ten objects side by side if not told otherwise, and each answer brings the next question.
//!
//! ```text
//! read ─▶ others too? ─ no, for a moment ─▶ GET
//!              └ yes ─▶ LIST, one for all who wait and all who come while it is fresh
//!                         └ refused ─▶ GET
//! ```
//!
//! - **Who is alone lists nothing**: one machine of a namespace of thousands costs one small answer.
//! - **No list outlives a write** of this process: what is read after a write was asked of the API after it.
//! - **No list outlives a command**: the host configures the provider for each, which makes another `Cluster`.
//! - A list is as current as a GET: it names no version, so the server asks its store. What is not in it is gone.
//! - Who waits for an object, or reads it as a data source, asks for that object alone.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::ResourceExt;
use kube::api::{DynamicObject, ListParams};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::{Cluster, Error, Target};

/// Objects per page of a list.
const PAGE: u32 = 500;
/// From this many readers on a list is taken. Two GETs cost less than a list of a namespace that others fill.
const COMPANY: usize = 3;
/// How long a reader looks out for others. They come within a millisecond, on a busy machine within a few; one who is
/// alone waits this long for nothing.
const MOMENT: Duration = Duration::from_millis(10);
/// How old an answer may be. The questions of a plan come within seconds, unless it waits for something slow in between;
/// what others changed meanwhile shall be seen then.
const FRESH: Duration = Duration::from_secs(30);

/// The lists of a process.
#[derive(Default)]
pub(super) struct Lists(Mutex<HashMap<Place, Arc<Readers>>>);

/// A kind, by its plural, and a namespace.
type Place = (String, String);

/// Who asks for objects of one place, and what they share.
#[derive(Default)]
struct Readers {
    count: AtomicUsize,
    company: CancellationToken,
    listing: OnceCell<Listing>,
}

/// All objects of a place, or none where the list is refused and each must be asked for.
enum Listing {
    Whole { objects: HashMap<String, DynamicObject>, since: Instant },
    Refused,
}

/// A write under way; lists from before its end are forgotten then, however it ends.
pub(super) struct Write<'a>(&'a Lists);

impl Lists {
    /// One more reader of the target's place.
    fn join(&self, target: &Target, now: Instant) -> Arc<Readers> {
        let place = (target.kind.plural.clone(), target.namespace.clone());
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let readers = places.entry(place).or_default();
        if readers.listing.get().is_some_and(|listing| !listing.is_fresh(now)) {
            *readers = Arc::default();
        }
        if readers.count.fetch_add(1, Ordering::Relaxed) + 1 >= COMPANY {
            readers.company.cancel();
        }
        Arc::clone(readers)
    }

    /// To be held as long as a write may take effect. Reads beside it may see either; all later ones see it.
    pub(super) fn write(&self) -> Write<'_> {
        Write(self)
    }
}

impl Drop for Write<'_> {
    fn drop(&mut self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Readers {
    /// Whether a list is worth it, after a moment at most.
    async fn are_many(&self) -> bool {
        tokio::time::timeout(MOMENT, self.company.cancelled()).await.is_ok()
    }
}

impl Listing {
    fn is_fresh(&self, now: Instant) -> bool {
        match self {
            // By its arrival: a slow line must not make each answer too old for the next reader.
            Self::Whole { since, .. } => now.saturating_duration_since(*since) <= FRESH,
            Self::Refused => true,
        }
    }
}

impl Cluster {
    /// The object, by itself or from the list that all readers share.
    pub(crate) async fn find(&self, target: &Target) -> Result<Option<DynamicObject>, Error> {
        let readers = self.lists.join(target, Instant::now());
        if !readers.are_many().await {
            return self.get(target).await;
        }
        match readers.listing.get_or_try_init(|| self.listing(target)).await? {
            Listing::Whole { objects, .. } => Ok(objects.get(&target.name).cloned()),
            Listing::Refused => self.get(target).await,
        }
    }

    async fn listing(&self, target: &Target) -> Result<Listing, Error> {
        match self.list(target).await {
            Ok(objects) => {
                let objects = objects.into_iter().map(|object| (object.name_any(), object)).collect();
                Ok(Listing::Whole { objects, since: Instant::now() })
            }
            Err(Error::Api(kube::Error::Api(status))) if status.is_forbidden() => Ok(Listing::Refused),
            Err(error) => Err(error),
        }
    }

    /// All objects of the target's kind and namespace.
    pub(crate) async fn list(&self, target: &Target) -> Result<Vec<DynamicObject>, Error> {
        let api = self.api(target).await?;
        let mut params = ListParams::default().limit(PAGE);
        let mut all = Vec::new();
        loop {
            let page = self.heard(api.list(&params).await)?;
            all.extend(page.items.into_iter().map(DynamicObject::from));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(all),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::api::ApiResource;

    use super::*;

    fn target(namespace: &str) -> Target {
        let kind = ApiResource::erase::<holdfast_api::VirtualMachine>(&());
        Target { kind, namespace: namespace.to_owned(), name: "web".to_owned() }
    }

    fn whole(since: Instant) -> Listing {
        Listing::Whole { objects: HashMap::new(), since }
    }

    #[tokio::test]
    async fn the_first_readers_are_alone_and_the_third_brings_company_to_all() {
        let (lists, now) = (Lists::default(), Instant::now());
        let first = lists.join(&target("a"), now);
        assert!(!first.are_many().await);
        let (second, elsewhere) = (lists.join(&target("a"), now), lists.join(&target("b"), now));
        assert!(!second.are_many().await && !elsewhere.are_many().await);
        let waiting = tokio::spawn(async move { second.are_many().await });
        tokio::task::yield_now().await;
        let third = lists.join(&target("a"), now);
        assert!(third.are_many().await && waiting.await.unwrap());
        assert!(lists.join(&target("a"), now).are_many().await, "who comes later waits no moment");
    }

    #[tokio::test]
    async fn a_list_is_shared_while_it_is_fresh() {
        let (lists, now) = (Lists::default(), Instant::now());
        let readers = lists.join(&target("a"), now);
        readers.listing.get_or_init(|| std::future::ready(whole(now))).await;
        let shared = lists.join(&target("a"), now + FRESH);
        assert!(shared.listing.initialized());
        let late = lists.join(&target("a"), now + FRESH + Duration::from_millis(1));
        assert!(!late.listing.initialized());
    }

    #[tokio::test]
    async fn a_refusal_is_remembered() {
        let (lists, now) = (Lists::default(), Instant::now());
        let readers = lists.join(&target("a"), now);
        readers.listing.get_or_init(|| std::future::ready(Listing::Refused)).await;
        assert!(lists.join(&target("a"), now + FRESH * 2).listing.initialized());
    }

    #[tokio::test]
    async fn what_is_read_after_a_write_is_listed_after_it_also_where_a_list_came_meanwhile() {
        let (lists, now) = (Lists::default(), Instant::now());
        let write = lists.write();
        let beside = lists.join(&target("a"), now);
        beside.listing.get_or_init(|| std::future::ready(whole(now))).await;
        assert!(lists.join(&target("a"), now).listing.initialized());
        drop(write);
        assert!(!lists.join(&target("a"), now).listing.initialized());
    }
}
