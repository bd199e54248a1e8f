//! Downloads under way: one task per image, whoever waits for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use super::observed::Obstacle;
use crate::image::{Cache, Digest, Format, Progress, Source};
use crate::retry::Retry;

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
    /// Why the attempt before this one failed.
    last: Option<Obstacle>,
}

enum State {
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

    /// Starts a download, unless it runs or failed for good. Repeats nothing that is under way.
    pub(crate) fn begin(&self, wanted: Wanted) {
        let mut tasks = self.lock();
        tasks.retain(|digest, task| *digest == wanted.digest || task.lasts());
        if tasks.get(&wanted.digest).is_some_and(|task| task.holds(&wanted)) {
            return;
        }
        let (sender, progress) = watch::channel(Progress::default());
        let last = tasks.remove(&wanted.digest).and_then(|task| task.trouble(&wanted).cloned());
        tasks.insert(wanted.digest, Task { wanted: wanted.clone(), state: State::Running(progress), last });
        let fetches = self.clone();
        tokio::spawn(async move { fetches.run(wanted, sender).await });
    }

    /// How the download of exactly this stands; `None` where a new attempt is due.
    pub(crate) fn state(&self, wanted: &Wanted) -> Option<Fetch> {
        let tasks = self.lock();
        let task = tasks.get(&wanted.digest).filter(|task| task.holds(wanted))?;
        Some(match &task.state {
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
            State::Failed { .. } => None,
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
        match self.0.cache.fetch(source, digest, *format, &progress).await {
            Ok(image) => {
                let took_us = begun.elapsed().as_micros();
                tracing::info!(digest = %digest, bytes = image.bytes, took_us, "image verified");
                self.lock().remove(digest);
            }
            Err(error) => {
                let obstacle = obstacle(&error);
                tracing::warn!(digest = %digest, reason = obstacle.reason, error = obstacle.message, "image not fetched");
                let state = State::Failed { again: again(obstacle.retry), obstacle };
                self.lock().insert(*digest, Task { wanted: wanted.clone(), state, last: None });
            }
        }
        // One supervisor waits, and it may be busy at this moment: this is kept for it.
        self.0.ended.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Task>> {
        self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Task {
    /// Whether it still says anything: it runs, or its failure is recent.
    fn lasts(&self) -> bool {
        match &self.state {
            State::Running(_) => true,
            State::Failed { again, .. } => Instant::now() < *again,
        }
    }

    /// Whether this task stands for that wish: a running one for every source of the same bytes, a failed one only
    /// for the same source and format, and only until its time is up.
    fn holds(&self, wanted: &Wanted) -> bool {
        match &self.state {
            State::Running(_) => true,
            State::Failed { again, .. } => self.wanted == *wanted && Instant::now() < *again,
        }
    }

    fn trouble(&self, wanted: &Wanted) -> Option<&Obstacle> {
        match &self.state {
            _ if self.wanted != *wanted => None,
            State::Running(_) => self.last.as_ref(),
            State::Failed { obstacle, .. } => Some(obstacle),
        }
    }
}

fn obstacle(error: &crate::image::Error) -> Obstacle {
    Obstacle { reason: error.reason(), message: super::sentence(error), retry: error.retry() }
}

/// A full disk or a silent server is asked again soon enough to notice its recovery, seldom enough not to harm it; what
/// only another object can mend is forgotten after an hour, so that the failures of a month do not pile up.
fn again(retry: Retry) -> Instant {
    let pause = match retry {
        Retry::Soon => Duration::from_secs(2),
        Retry::Later => Duration::from_secs(20),
        Retry::OnChange => Duration::from_secs(3600),
    };
    Instant::now() + pause
}
