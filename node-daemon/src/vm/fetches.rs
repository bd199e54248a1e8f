//! Downloads under way: one task per image and source, whoever waits for it, and a few at a time.
//!
//! ```text
//! begin ─▶ Waiting ──turn──▶ Running ──▶ in the cache, and forgotten here
//!             ▲                 └──────▶ Failed ──pause over, begin──▶ Waiting
//!             └─────────────────────────────────────────────────────────┘
//! ```
//!
//! A source that brings next to nothing keeps its place only while nobody waits for it, and any other for a while.
//! `turns` decides whose turn it is; here is what that does.

mod tasks;
mod turns;
mod wrong;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use holdfast_api::node::NodeProblem;
use tokio::sync::{Notify, watch};

use self::tasks::{Failure, State, Tasks};
use super::observed::Obstacle;
use super::panics::caught;
use crate::image::{Cache, Digest, Format, Image, Needs, Order, Progress, Purpose, Source, Tenant};
use crate::node::problems;

/// What shall be fetched.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Wanted {
    /// From where.
    pub(crate) source: Source,
    /// Which bytes.
    pub(crate) digest: Digest,
    /// In which format.
    pub(crate) format: Format,
    /// For whom.
    pub(crate) tenant: Tenant,
}

/// A wish, and who says it.
#[derive(Clone)]
pub(crate) struct Wish {
    /// What shall be fetched.
    pub(crate) wanted: Wanted,
    /// UID of the image object that says so, where it is known. Another object than those before is a person's word that
    /// it is worth another try.
    pub(crate) object: Option<String>,
    /// What it is for.
    pub(crate) purpose: Purpose,
}

/// How a download stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fetch {
    /// Others have their turn first.
    Waiting,
    /// On its way.
    Running(Progress),
    /// It failed, and is not to be tried again yet.
    Failed(Obstacle),
}

/// All downloads of this node. A download that succeeded is found in the cache, not here.
#[derive(Clone)]
pub(crate) struct Fetches(Arc<Inner>);

/// What keeps the node from its work, as far as that is known.
type Problems = watch::Receiver<Option<Vec<NodeProblem>>>;

struct Inner {
    cache: Arc<Cache>,
    pace: Pace,
    problems: Problems,
    tasks: Mutex<Tasks>,
    ended: Notify,
}

/// How long a look at a source may take: one that is silent then says nothing new.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a download looks whether somebody comes first.
const GLANCE: Duration = Duration::from_secs(2);

/// How an attempt ended without an image.
enum Ending {
    /// By itself, or because it brought too little.
    Failed(Failure),
    /// Others come first for a while.
    GaveWay,
}

/// What a download has to bring so that it keeps its place while others wait for it.
#[derive(Clone, Copy)]
struct Pace {
    /// How long one look at it takes.
    window: Duration,
    /// Bytes that have to come meanwhile.
    bytes: u64,
}

impl Default for Pace {
    /// 34 KiB a second: less would take a day for an image of 3 GiB. Two minutes bridge a hiccup of the link, and the
    /// hashing of what an earlier attempt brought, in which nothing comes either.
    fn default() -> Self {
        Self { window: Duration::from_secs(120), bytes: 4 << 20 }
    }
}

impl Fetches {
    /// Downloads into this cache, except while a problem of the node bars them.
    pub(crate) fn new(cache: Arc<Cache>, problems: Problems) -> Self {
        Self::at_pace(cache, problems, Pace::default())
    }

    fn at_pace(cache: Arc<Cache>, problems: Problems, pace: Pace) -> Self {
        Self(Arc::new(Inner { cache, pace, problems, tasks: Mutex::default(), ended: Notify::new() }))
    }

    /// The cache they go into.
    pub(crate) fn cache(&self) -> &Cache {
        &self.0.cache
    }

    /// Takes note of who needs which image and what guests were promised; from then on downloads begin.
    pub(crate) fn learn(&self, needs: Needs, promised: u64) {
        self.0.cache.learn(needs, promised);
        self.admit(&mut self.lock());
    }

    /// Asks for a download, unless it runs, waits or failed for good. It starts when it has its turn.
    pub(crate) fn begin(&self, wish: &Wish) {
        let (mut tasks, now) = (self.lock(), Instant::now());
        self.look_again(&mut tasks, &wish.wanted, now);
        tasks.ask(wish, now);
        self.admit(&mut tasks);
    }

    /// Whether downloads may begin: it is known what is promised to guests, and the state folder takes writes. When it
    /// does again, the supervisor looks around at once, and [`Self::learn`] goes on.
    fn is_open(&self) -> bool {
        let problems = self.0.problems.borrow();
        self.0.cache.is_informed() && problems::bar(problems.as_deref().unwrap_or_default()).is_none()
    }

    /// Starts those whose turn it is.
    fn admit(&self, tasks: &mut Tasks) {
        while self.is_open()
            && let Some(wanted) = tasks.next()
        {
            let (sender, progress) = watch::channel(Progress::default());
            tasks.start(&wanted, progress, Instant::now());
            let purpose = tasks.purpose(&wanted);
            let fetches = self.clone();
            tokio::spawn(async move { fetches.run(wanted, purpose, sender).await });
        }
    }

    /// How the download of exactly this stands; `None` where a new attempt is due.
    pub(crate) fn state(&self, wish: &Wish) -> Option<Fetch> {
        let (mut tasks, now) = (self.lock(), Instant::now());
        self.look_again(&mut tasks, &wish.wanted, now);
        Some(match tasks.current(wish, now)? {
            State::Waiting { .. } => Fetch::Waiting,
            State::Running { progress, .. } => Fetch::Running(*progress.borrow()),
            State::Failed { obstacle, .. } => Fetch::Failed(obstacle.clone()),
        })
    }

    /// Looks at a source that had a wrong file, while somebody waits for it. Where it has another one now, that is fetched.
    fn look_again(&self, tasks: &mut Tasks, wanted: &Wanted, now: Instant) {
        if !tasks.looks_again(wanted, now) {
            return;
        }
        let (fetches, wanted) = (self.clone(), wanted.clone());
        tokio::spawn(async move {
            let look = caught(fetches.0.cache.look(&wanted.source));
            let shown = tokio::time::timeout(LOOK_TIMEOUT, look).await;
            let mut tasks = fetches.lock();
            tasks.looked(&wanted);
            if let Ok(Ok(Ok(seen))) = shown {
                tasks.show(&wanted, &seen, Instant::now());
                fetches.admit(&mut tasks);
            }
        });
    }

    /// Why the last attempt at exactly this failed, until one succeeds: also while the next one is under way.
    pub(crate) fn trouble(&self, wanted: &Wanted) -> Option<String> {
        self.lock().trouble(wanted).map(|obstacle| obstacle.message.clone())
    }

    /// Digest and progress of every download under way.
    pub(crate) fn running(&self) -> Vec<(Digest, Progress)> {
        self.lock().running().map(|(wanted, progress)| (wanted.digest, *progress.borrow())).collect()
    }

    /// Waits until a download has ended, one way or the other.
    pub(crate) async fn ended(&self) {
        self.0.ended.notified().await;
    }

    async fn run(&self, wanted: Wanted, purpose: Purpose, progress: watch::Sender<Progress>) {
        let begun = Instant::now();
        let outcome = self.attempt(&wanted, purpose, &progress).await;
        let mut tasks = self.lock();
        match outcome {
            Ok(image) => {
                let took_us = begun.elapsed().as_micros();
                tracing::info!(digest = %image.digest, bytes = image.bytes, took_us, "image verified");
                tasks.forget(&wanted);
            }
            Err(Ending::GaveWay) => {
                tracing::info!(digest = %wanted.digest, "others wait: this download goes on after them");
                tasks.give_way(&wanted, Instant::now());
            }
            Err(Ending::Failed(failure)) => tasks.fail(&wanted, failure, Instant::now()),
        }
        self.admit(&mut tasks);
        drop(tasks);
        // One supervisor waits, and it may be busy at this moment: this is kept for it.
        self.0.ended.notify_one();
    }

    async fn attempt(
        &self,
        wanted: &Wanted,
        purpose: Purpose,
        progress: &watch::Sender<Progress>,
    ) -> Result<Image, Ending> {
        let Wanted { source, digest, format, tenant } = wanted;
        let order = Order { source, digest, format: *format, tenant, purpose };
        tokio::select! {
            fetched = caught(self.0.cache.fetch(order, progress)) => match fetched {
                Ok(outcome) => outcome.map_err(|error| Ending::Failed(Failure::Fetch(error))),
                Err(panic) => Err(Ending::Failed(Failure::Panicked(panic))),
            },
            ending = self.superseded(wanted, progress.subscribe()) => Err(ending),
        }
    }

    /// Returns when this download has to leave its place to somebody who waits for it.
    async fn superseded(&self, wanted: &Wanted, progress: watch::Receiver<Progress>) -> Ending {
        let Pace { window, bytes } = self.0.pace;
        let (mut begun, mut before) = (Instant::now(), progress.borrow().bytes);
        loop {
            tokio::time::sleep(window.min(GLANCE)).await;
            let gained = progress.borrow().bytes.saturating_sub(before);
            let over = begun.elapsed() >= window;
            let tasks = self.lock();
            if over && gained < bytes && tasks.somebody_waits_for(wanted) {
                return Ending::Failed(Failure::Overtaken);
            }
            if tasks.gives_way(wanted, Instant::now()) {
                return Ending::GaveWay;
            }
            drop(tasks);
            if over {
                (begun, before) = (Instant::now(), progress.borrow().bytes);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Tasks> {
        self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "fetches_tests.rs"]
mod tests;
