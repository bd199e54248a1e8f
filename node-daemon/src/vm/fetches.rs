//! Downloads under way: one task per image, whoever waits for it, and a few at a time.
//!
//! ```text
//! begin ─▶ Waiting ──turn──▶ Running ──▶ in the cache, and forgotten here
//!             ▲                 └──────▶ Failed ──pause over, begin──▶ Waiting
//!             └─────────────────────────────────────────────────────────┘
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use super::observed::Obstacle;
use crate::image::{self, Cache, Digest, Format, Progress, Source};
use crate::retry::Retry;

/// Downloads at a time. Each holds two blocking threads and a connection for as long as its server likes, so without a
/// bound slow servers would take the threads that everybody's steps need; and four fill whatever link a site has.
const AT_ONCE: usize = 4;

/// Before a download that broke off goes on: as long as a proxy or a link takes to come back.
const SHORTEST_PAUSE: Duration = Duration::from_secs(2);
/// Before one is tried again that needs somebody's work elsewhere.
const LATER: Duration = Duration::from_secs(20);
/// Before one that gets no further is tried again: longer would hide that the server was mended.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// What shall be fetched.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// From where.
    pub(crate) source: Source,
    /// Which bytes.
    pub(crate) digest: Digest,
    /// In which format.
    pub(crate) format: Format,
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

struct Inner {
    cache: Arc<Cache>,
    tasks: Mutex<HashMap<Digest, Task>>,
    ended: Notify,
}

struct Task {
    wanted: Wanted,
    state: State,
    past: Past,
}

/// The attempts before the present one.
#[derive(Clone, Default)]
struct Past {
    /// Why the last one failed.
    last: Option<Obstacle>,
    /// The most bytes one of them had when it broke off.
    best: u64,
    /// How many in a row broke off without getting further than that.
    idle: u32,
}

enum State {
    Waiting { since: Instant },
    Running(watch::Receiver<Progress>),
    Failed { obstacle: Obstacle, again: Instant },
}

impl Fetches {
    /// Downloads into this cache.
    pub(crate) fn new(cache: Arc<Cache>) -> Self {
        Self(Arc::new(Inner { cache, tasks: Mutex::default(), ended: Notify::new() }))
    }

    /// The cache they go into.
    pub(crate) fn cache(&self) -> &Cache {
        &self.0.cache
    }

    /// Asks for a download, unless it runs, waits or failed for good. It starts when it has its turn.
    pub(crate) fn begin(&self, wanted: Wanted) {
        let mut tasks = self.lock();
        tasks.retain(|digest, task| *digest == wanted.digest || task.lasts());
        if tasks.get(&wanted.digest).is_some_and(|task| task.holds(&wanted)) {
            return;
        }
        let before = tasks.remove(&wanted.digest).filter(|task| task.wanted == wanted);
        let past = before.map(|task| task.past).unwrap_or_default();
        let state = State::Waiting { since: Instant::now() };
        tasks.insert(wanted.digest, Task { wanted, state, past });
        self.admit(&mut tasks);
    }

    /// Starts those whose turn it is.
    fn admit(&self, tasks: &mut HashMap<Digest, Task>) {
        while let Some(task) = next(tasks) {
            let (sender, progress) = watch::channel(Progress::default());
            task.state = State::Running(progress);
            let (fetches, wanted) = (self.clone(), task.wanted.clone());
            tokio::spawn(async move { fetches.run(wanted, sender).await });
        }
    }

    /// How the download of exactly this stands; `None` where a new attempt is due.
    pub(crate) fn state(&self, wanted: &Wanted) -> Option<Fetch> {
        let tasks = self.lock();
        let task = tasks.get(&wanted.digest).filter(|task| task.holds(wanted))?;
        Some(match &task.state {
            State::Waiting { .. } => Fetch::Waiting,
            State::Running(progress) => Fetch::Running(*progress.borrow()),
            State::Failed { obstacle, .. } => Fetch::Failed(obstacle.clone()),
        })
    }

    /// Why the last attempt at exactly this failed, until one succeeds: also while the next one is under way.
    pub(crate) fn trouble(&self, wanted: &Wanted) -> Option<String> {
        let tasks = self.lock();
        Some(tasks.get(&wanted.digest)?.trouble(wanted)?.message.clone())
    }

    /// Digest and progress of every download under way.
    pub(crate) fn running(&self) -> Vec<(Digest, Progress)> {
        let progress = |(digest, task): (&Digest, &Task)| match &task.state {
            State::Running(progress) => Some((*digest, *progress.borrow())),
            State::Waiting { .. } | State::Failed { .. } => None,
        };
        self.lock().iter().filter_map(progress).collect()
    }

    /// Waits until a download has ended, one way or the other.
    pub(crate) async fn ended(&self) {
        self.0.ended.notified().await;
    }

    async fn run(&self, wanted: Wanted, progress: watch::Sender<Progress>) {
        let Wanted { source, digest, format } = &wanted;
        let begun = Instant::now();
        let outcome = self.0.cache.fetch(source, digest, *format, &progress).await;
        let mut tasks = self.lock();
        match outcome {
            Ok(image) => {
                let took_us = begun.elapsed().as_micros();
                tracing::info!(digest = %digest, bytes = image.bytes, took_us, "image verified");
                tasks.remove(digest);
            }
            Err(error) => {
                if let Some(task) = tasks.get_mut(digest) {
                    task.fail(&error);
                }
            }
        }
        self.admit(&mut tasks);
        drop(tasks);
        // One supervisor waits, and it may be busy at this moment: this is kept for it.
        self.0.ended.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Task>> {
        self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Task {
    fn fail(&mut self, error: &image::Error) {
        let mut obstacle =
            Obstacle { reason: error.reason(), message: super::sentence(error), retry: error.retry() };
        tracing::warn!(digest = %self.wanted.digest, reason = obstacle.reason, error = obstacle.message, "image not fetched");
        if let image::Error::Interrupted { bytes, .. } = error {
            self.past.broke_off(*bytes);
        }
        let pause = pause(obstacle.retry, self.past.idle);
        if obstacle.retry == Retry::Soon && pause >= LATER {
            // It does not pass within seconds any more: worth an event, and no look every few seconds.
            obstacle.retry = Retry::Later;
        }
        let again = Instant::now() + pause;
        self.past.last = Some(obstacle.clone());
        self.state = State::Failed { obstacle, again };
    }

    /// Whether it still says anything: it waits, it runs, or its failure is recent. The past of an attempt is kept for a
    /// while after the next one is due, since whoever wants it looks in only now and then.
    fn lasts(&self) -> bool {
        match &self.state {
            State::Waiting { .. } | State::Running(_) => true,
            State::Failed { again, .. } => Instant::now() < *again + LONGEST_PAUSE,
        }
    }

    /// Whether this task stands for that wish: a running one for every source of the same bytes, a failed one only
    /// for the same source and format, and only until its time is up.
    fn holds(&self, wanted: &Wanted) -> bool {
        match &self.state {
            State::Waiting { .. } | State::Running(_) => true,
            State::Failed { again, .. } => self.wanted == *wanted && Instant::now() < *again,
        }
    }

    fn trouble(&self, wanted: &Wanted) -> Option<&Obstacle> {
        self.past.last.as_ref().filter(|_| self.wanted == *wanted)
    }
}

impl Past {
    /// An attempt broke off with so many bytes.
    fn broke_off(&mut self, bytes: u64) {
        self.idle = if bytes > self.best { 0 } else { self.idle.saturating_add(1) };
        self.best = self.best.max(bytes);
    }
}

/// Whose turn it is: whoever has waited longest, while fewer than allowed run.
fn next(tasks: &mut HashMap<Digest, Task>) -> Option<&mut Task> {
    if tasks.values().filter(|task| matches!(task.state, State::Running(_))).count() >= AT_ONCE {
        return None;
    }
    let waiting = tasks.values_mut().filter_map(|task| match task.state {
        State::Waiting { since } => Some((since, task)),
        State::Running(_) | State::Failed { .. } => None,
    });
    waiting.min_by_key(|(since, _)| *since).map(|(_, task)| task)
}

/// How long until the next attempt.
///
/// A full disk or a silent server is asked again soon enough to notice its recovery, seldom enough not to harm it. A
/// download that broke off goes on at once, unless it gets no further: a server that always cuts at the same byte would
/// be read from its start for ever. What only another object can mend is forgotten after an hour, so that the failures
/// of a month do not pile up.
fn pause(retry: Retry, idle: u32) -> Duration {
    match retry {
        Retry::Soon => (SHORTEST_PAUSE * 2_u32.saturating_pow(idle)).min(LONGEST_PAUSE),
        Retry::Later => LATER,
        Retry::OnChange => Duration::from_secs(3600),
    }
}

#[cfg(test)]
#[path = "fetches_tests.rs"]
mod tests;
