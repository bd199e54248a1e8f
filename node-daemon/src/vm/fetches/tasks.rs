//! Every download that is asked for, and when a failed one is tried again. Pure; `turns` decides who comes next.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::turns::{AT_ONCE, Standing, Turns};
use super::wrong::Wrong;
use super::{Wanted, Wish};
use crate::image::{self, Digest, Progress, Purpose, Seen};
use crate::retry::Retry;
use crate::vm::observed::Obstacle;
use crate::vm::sentence;

/// Before a download that broke off goes on: as long as a proxy or a link takes to come back.
const SHORTEST_PAUSE: Duration = Duration::from_secs(2);
/// Before one is tried again that needs somebody's work elsewhere.
const LATER: Duration = Duration::from_secs(20);
/// Before one that gets no further is tried again: longer would hide that the server was mended.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// A wish that waits and that nobody has looked at for so long is nobody's any more. Whoever waits looks every 30 s.
const FORGOTTEN: Duration = Duration::from_secs(180);

/// Sources of one namespace that are looked at at a time, and those of all. A namespace without a look has one in any
/// case: the silent servers of others keep nobody from seeing that its own file was exchanged.
const LOOKS_EACH: usize = 4;
const LOOKS: usize = 16;

/// Every download that waits, runs or has failed.
#[derive(Default)]
pub(super) struct Tasks {
    all: HashMap<Wanted, Task>,
    /// When a namespace was last given a place.
    served: HashMap<String, Instant>,
    /// The namespace of each source that is just being looked at.
    looking: Vec<String>,
}

struct Task {
    state: State,
    past: Past,
    /// UIDs of the image objects that asked for it.
    objects: HashSet<String>,
    purpose: Purpose,
    /// When somebody last asked for it or how it stands.
    looked: Instant,
}

/// Where a download stands.
pub(super) enum State {
    Waiting { since: Instant },
    Running { since: Instant, progress: watch::Receiver<Progress> },
    Failed { obstacle: Obstacle, again: Instant },
}

/// The attempts before the present one.
#[derive(Default)]
struct Past {
    /// Why the last one failed.
    last: Option<Obstacle>,
    /// The most bytes one of them had when it broke off.
    best: u64,
    /// How many in a row broke off without getting further than that.
    idle: u32,
    /// The last one gave up its place, because it brought too little.
    overtaken: bool,
    /// How many gave up their place, because others had waited for long.
    yielded: u32,
    /// What the last one brought from a server that does not tell how much there is.
    ended: Option<Digest>,
    /// What the source had in the place of the image.
    wrong: Wrong,
}

/// How an attempt ended without an image.
pub(super) enum Failure {
    /// By itself.
    Fetch(image::Error),
    /// It brought too little while somebody waited for its place.
    Overtaken,
    /// With a panic of ours, and its text.
    Panicked(String),
}

impl Tasks {
    /// Queues a wish, unless it stands in the queue, runs, or failed and is not due again.
    pub(super) fn ask(&mut self, wish: &Wish, now: Instant) {
        let Wish { wanted, object, purpose } = wish;
        self.all.retain(|other, task| other == wanted || task.lasts(now));
        let all = &self.all;
        self.served.retain(|namespace, _| all.keys().any(|one| one.tenant.namespace == *namespace));
        if self.current(wish, now).is_none() {
            let (past, objects) =
                self.all.remove(wanted).map(|task| (task.past, task.objects)).unwrap_or_default();
            let state = State::Waiting { since: now };
            let task = Task { state, past, objects, purpose: *purpose, looked: now };
            self.all.insert(wanted.clone(), task);
        }
        if let Some(task) = self.all.get_mut(wanted) {
            task.objects.extend(object.clone());
        }
    }

    /// How this wish stands; `None` where a new attempt is due. Who hears of one under way has asked for it.
    pub(super) fn current(&mut self, wish: &Wish, now: Instant) -> Option<&State> {
        let task = self.all.get_mut(&wish.wanted)?;
        match &task.state {
            State::Failed { again, .. } if now >= *again || task.is_new(wish) => return None,
            State::Failed { .. } => {}
            State::Waiting { .. } | State::Running { .. } => {
                task.objects.extend(wish.object.clone());
                (task.purpose, task.looked) = (task.purpose.min(wish.purpose), now);
            }
        }
        Some(&task.state)
    }

    /// What the present attempt is made for.
    pub(super) fn purpose(&self, wanted: &Wanted) -> Purpose {
        self.all.get(wanted).map_or(Purpose::Ahead, |task| task.purpose)
    }

    /// Whether the source is to be looked at now, because it had a wrong file and may have another. Who does tells
    /// [`Self::looked`].
    pub(super) fn looks_again(&mut self, wanted: &Wanted, now: Instant) -> bool {
        let namespace = &wanted.tenant.namespace;
        let own = self.looking.iter().filter(|other| *other == namespace).count();
        let may = own == 0 || (own < LOOKS_EACH && self.looking.len() < LOOKS);
        let looks = may
            && self.all.get_mut(wanted).is_some_and(|task| {
                matches!(task.state, State::Failed { .. }) && task.past.wrong.looks_again(now)
            });
        if looks {
            self.looking.push(namespace.clone());
        }
        looks
    }

    /// A look has ended.
    pub(super) fn looked(&mut self, wanted: &Wanted) {
        if let Some(at) = self.looking.iter().position(|other| *other == wanted.tenant.namespace) {
            self.looking.swap_remove(at);
        }
    }

    /// What the source shows now: another file is queued at once.
    pub(super) fn show(&mut self, wanted: &Wanted, seen: &Seen, now: Instant) {
        if let Some(task) = self.all.get_mut(wanted)
            && matches!(task.state, State::Failed { .. })
            && task.past.wrong.is_new(seen)
        {
            task.state = State::Waiting { since: now };
        }
    }

    /// Why the last attempt failed.
    pub(super) fn trouble(&self, wanted: &Wanted) -> Option<&Obstacle> {
        self.all.get(wanted)?.past.last.as_ref()
    }

    /// Those under way.
    pub(super) fn running(&self) -> impl Iterator<Item = (&Wanted, &watch::Receiver<Progress>)> {
        self.all.iter().filter_map(|(wanted, task)| match &task.state {
            State::Running { progress, .. } => Some((wanted, progress)),
            State::Waiting { .. } | State::Failed { .. } => None,
        })
    }

    fn waiting(&self) -> impl Iterator<Item = (&Wanted, &Past)> {
        self.all.iter().filter_map(|(wanted, task)| match task.state {
            State::Waiting { .. } => Some((wanted, &task.past)),
            State::Running { .. } | State::Failed { .. } => None,
        })
    }

    fn turns(&self) -> Turns<'_> {
        let (mut running, mut waiting) = (Vec::new(), Vec::new());
        for (wanted, task) in &self.all {
            let standing =
                |since| Standing { wanted, purpose: task.purpose, since, yielded: task.past.yielded };
            match task.state {
                State::Running { since, .. } => running.push(standing(since)),
                State::Waiting { since } => waiting.push(standing(since)),
                State::Failed { .. } => {}
            }
        }
        Turns { running, waiting, served: &self.served }
    }

    /// Whose turn it is, if anybody's.
    pub(super) fn next(&self) -> Option<Wanted> {
        self.turns().next().cloned()
    }

    /// Whether this one, under way, gives its place to somebody who has waited for long or comes first.
    pub(super) fn gives_way(&self, place: &Wanted, now: Instant) -> bool {
        self.turns().gives_way(place, now)
    }

    /// Whether somebody could run in the place of this one, which brings too little.
    ///
    /// For the same bytes only a source counts that was not overtaken itself: two slow ones would take turns for ever,
    /// each from its start. For other bytes every one counts: taking turns, each goes on where it stopped.
    pub(super) fn somebody_waits_for(&self, place: &Wanted) -> bool {
        let full = self.running().count() >= AT_ONCE;
        let is_busy = |wanted: &Wanted| self.running().any(|(other, _)| other.digest == wanted.digest);
        self.waiting().any(|(wanted, past)| {
            if wanted.digest == place.digest { !past.overtaken } else { full && !is_busy(wanted) }
        })
    }

    /// An attempt begins.
    pub(super) fn start(&mut self, wanted: &Wanted, progress: watch::Receiver<Progress>, now: Instant) {
        if let Some(task) = self.all.get_mut(wanted) {
            task.state = State::Running { since: now, progress };
            self.served.insert(wanted.tenant.namespace.clone(), now);
        }
    }

    /// An attempt ended because others come first for a while. It waits again, behind them.
    pub(super) fn give_way(&mut self, wanted: &Wanted, now: Instant) {
        if let Some(task) = self.all.get_mut(wanted) {
            task.past.yielded = task.past.yielded.saturating_add(1);
            task.state = State::Waiting { since: now };
            self.served.insert(wanted.tenant.namespace.clone(), now);
        }
    }

    /// The image is in the cache.
    pub(super) fn forget(&mut self, wanted: &Wanted) {
        self.all.remove(wanted);
    }

    /// An attempt ended without an image.
    pub(super) fn fail(&mut self, wanted: &Wanted, failure: Failure, now: Instant) {
        let Some(task) = self.all.get_mut(wanted) else { return };
        let failure = task.past.judge(failure);
        task.past.learn(&failure);
        let mut obstacle = failure.obstacle(wanted);
        tracing::warn!(digest = %wanted.digest, reason = obstacle.reason, error = obstacle.message, "image not fetched");
        let pause = match &failure {
            Failure::Fetch(image::Error::DigestMismatch { seen, .. }) => task.past.wrong.refute(seen, now),
            _ => pause(obstacle.retry, task.past.idle),
        };
        if obstacle.retry == Retry::Soon && pause >= LATER {
            // It does not pass within seconds any more: worth an event, and no look every few seconds.
            obstacle.retry = Retry::Later;
        }
        task.past.last = Some(obstacle.clone());
        task.state = State::Failed { obstacle, again: now + pause };
    }
}

impl Task {
    /// Whether an image object says it that did not before: a person made one again.
    fn is_new(&self, wish: &Wish) -> bool {
        wish.object.as_ref().is_some_and(|object| !self.objects.contains(object))
    }

    /// Whether it still says anything: somebody waits for it, it runs, or its failure is recent. The past of an attempt is kept for a
    /// while after the next one is due, since whoever wants it looks in only now and then.
    fn lasts(&self, now: Instant) -> bool {
        match &self.state {
            State::Waiting { .. } => now < self.looked + FORGOTTEN,
            State::Running { .. } => true,
            State::Failed { again, .. } => now < *again + LONGEST_PAUSE,
        }
    }
}

impl Past {
    /// A server that brings the same bytes twice, and does not tell how many there are, has no others.
    fn judge(&self, failure: Failure) -> Failure {
        match failure {
            Failure::Fetch(image::Error::Unfinished { found, if_whole, .. }) if self.ended == Some(found) => {
                Failure::Fetch(*if_whole)
            }
            other => other,
        }
    }

    fn learn(&mut self, failure: &Failure) {
        self.overtaken = matches!(failure, Failure::Overtaken);
        if let Failure::Fetch(image::Error::Unfinished { found, .. }) = failure {
            self.ended = Some(*found);
        }
        if let Failure::Fetch(
            image::Error::Interrupted { bytes, .. } | image::Error::Unfinished { bytes, .. },
        ) = failure
        {
            self.idle = if *bytes > self.best { 0 } else { self.idle.saturating_add(1) };
            self.best = self.best.max(*bytes);
        }
    }
}

impl Failure {
    fn obstacle(&self, wanted: &Wanted) -> Obstacle {
        match self {
            Self::Fetch(error) => {
                Obstacle { reason: error.reason(), message: sentence(error), retry: error.retry() }
            }
            Self::Overtaken => Obstacle::later(
                "DownloadStalled",
                format!(
                    "the source of image {} is very slow, so others had their turn first; the node tries again by itself",
                    wanted.digest
                ),
            ),
            Self::Panicked(panic) => {
                tracing::error!(digest = %wanted.digest, panic, "a download panicked; please report it");
                Obstacle::later(
                    "Internal",
                    format!(
                        "the node daemon failed while it fetched image {}: please report what its log says; it tries again by itself",
                        wanted.digest
                    ),
                )
            }
        }
    }
}

/// How long until the next attempt.
///
/// A full disk or a silent server is asked again soon enough to notice its recovery, seldom enough not to harm it. A
/// download that broke off goes on at once, unless it gets no further: a server that always cuts at the same byte would
/// be read from its start for ever. A wrong file has pauses of its own (`wrong.rs`). What only another object can mend is forgotten after an hour, so that the failures
/// of a month do not pile up.
fn pause(retry: Retry, idle: u32) -> Duration {
    match retry {
        Retry::Soon => (SHORTEST_PAUSE * 2_u32.saturating_pow(idle)).min(LONGEST_PAUSE),
        Retry::Later => LATER,
        Retry::OnChange => Duration::from_secs(3600),
    }
}

#[cfg(test)]
#[path = "tasks_tests.rs"]
mod tests;
