//! Whose turn it is, and when a failed download is tried again. Pure.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::wrong::Wrong;
use super::{Wanted, Wish};
use crate::image::{self, Digest, Progress, Seen};
use crate::retry::Retry;
use crate::vm::observed::Obstacle;
use crate::vm::sentence;

/// Downloads at a time. Each holds two blocking threads and a connection for as long as its server likes, so without a
/// bound slow servers would take the threads that everybody's steps need; and four fill whatever link a site has.
pub(super) const AT_ONCE: usize = 4;

/// Before a download that broke off goes on: as long as a proxy or a link takes to come back.
const SHORTEST_PAUSE: Duration = Duration::from_secs(2);
/// Before one is tried again that needs somebody's work elsewhere.
const LATER: Duration = Duration::from_secs(20);
/// Before one that gets no further is tried again: longer would hide that the server was mended.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Every download that waits, runs or has failed.
#[derive(Default)]
pub(super) struct Tasks(HashMap<Wanted, Task>);

struct Task {
    state: State,
    past: Past,
    /// UIDs of the image objects that asked for it.
    objects: HashSet<String>,
}

/// Where a download stands.
pub(super) enum State {
    Waiting { since: Instant },
    Running(watch::Receiver<Progress>),
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
        let Wish { wanted, object } = wish;
        self.0.retain(|other, task| other == wanted || task.lasts(now));
        if self.current(wish, now).is_none() {
            let (past, objects) =
                self.0.remove(wanted).map(|task| (task.past, task.objects)).unwrap_or_default();
            let state = State::Waiting { since: now };
            self.0.insert(wanted.clone(), Task { state, past, objects });
        }
        if let Some(task) = self.0.get_mut(wanted) {
            task.objects.extend(object.clone());
        }
    }

    /// How this wish stands; `None` where a new attempt is due. Who hears of one under way has asked for it.
    pub(super) fn current(&mut self, wish: &Wish, now: Instant) -> Option<&State> {
        let task = self.0.get_mut(&wish.wanted)?;
        match &task.state {
            State::Failed { again, .. } if now >= *again || task.is_new(wish) => return None,
            State::Failed { .. } => {}
            State::Waiting { .. } | State::Running(_) => task.objects.extend(wish.object.clone()),
        }
        Some(&task.state)
    }

    /// Whether the source is to be looked at now, because it had a wrong file and may have another.
    pub(super) fn looks_again(&mut self, wanted: &Wanted, now: Instant) -> bool {
        self.0.get_mut(wanted).is_some_and(|task| {
            matches!(task.state, State::Failed { .. }) && task.past.wrong.looks_again(now)
        })
    }

    /// What the source shows now: another file is queued at once.
    pub(super) fn show(&mut self, wanted: &Wanted, seen: &Seen, now: Instant) {
        if let Some(task) = self.0.get_mut(wanted)
            && matches!(task.state, State::Failed { .. })
            && task.past.wrong.is_new(seen)
        {
            task.state = State::Waiting { since: now };
        }
    }

    /// Why the last attempt failed.
    pub(super) fn trouble(&self, wanted: &Wanted) -> Option<&Obstacle> {
        self.0.get(wanted)?.past.last.as_ref()
    }

    /// Those under way.
    pub(super) fn running(&self) -> impl Iterator<Item = (&Wanted, &watch::Receiver<Progress>)> {
        self.0.iter().filter_map(|(wanted, task)| match &task.state {
            State::Running(progress) => Some((wanted, progress)),
            State::Waiting { .. } | State::Failed { .. } => None,
        })
    }

    fn waiting(&self) -> impl Iterator<Item = (&Wanted, &Past, Instant)> {
        self.0.iter().filter_map(|(wanted, task)| match task.state {
            State::Waiting { since } => Some((wanted, &task.past, since)),
            State::Running(_) | State::Failed { .. } => None,
        })
    }

    /// Whose turn it is, if anybody's: who has waited longest, while there is a place and nobody else fetches the same
    /// bytes.
    pub(super) fn next(&self) -> Option<Wanted> {
        if self.running().count() >= AT_ONCE {
            return None;
        }
        let busy = self.busy();
        let free = self.waiting().filter(|(wanted, _, _)| !busy.contains(&wanted.digest));
        free.min_by_key(|(_, _, since)| *since).map(|(wanted, _, _)| wanted.clone())
    }

    /// Whether somebody could run in the place of this one.
    ///
    /// For the same bytes only a source counts that was not overtaken itself: two slow ones would take turns for ever,
    /// each from its start. For other bytes every one counts: taking turns, each goes on where it stopped.
    pub(super) fn somebody_waits_for(&self, place: &Wanted) -> bool {
        let (full, busy) = (self.running().count() >= AT_ONCE, self.busy());
        self.waiting().any(|(wanted, past, _)| {
            if wanted.digest == place.digest {
                !past.overtaken
            } else {
                full && !busy.contains(&wanted.digest)
            }
        })
    }

    fn busy(&self) -> HashSet<Digest> {
        self.running().map(|(wanted, _)| wanted.digest).collect()
    }

    /// An attempt begins.
    pub(super) fn start(&mut self, wanted: &Wanted, progress: watch::Receiver<Progress>) {
        if let Some(task) = self.0.get_mut(wanted) {
            task.state = State::Running(progress);
        }
    }

    /// The image is in the cache.
    pub(super) fn forget(&mut self, wanted: &Wanted) {
        self.0.remove(wanted);
    }

    /// An attempt ended without an image.
    pub(super) fn fail(&mut self, wanted: &Wanted, failure: Failure, now: Instant) {
        let Some(task) = self.0.get_mut(wanted) else { return };
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

    /// Whether it still says anything: it waits, it runs, or its failure is recent. The past of an attempt is kept for a
    /// while after the next one is due, since whoever wants it looks in only now and then.
    fn lasts(&self, now: Instant) -> bool {
        match &self.state {
            State::Waiting { .. } | State::Running(_) => true,
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
mod tests {
    use super::*;
    use crate::image::{Format, Source};

    /// Image `digest` from source `from`.
    fn wanted(digest: u8, from: u8) -> Wanted {
        Wanted {
            source: Source::File(format!("/images/{from}").into()),
            digest: format!("sha256:{}", format!("{digest:02x}").repeat(32)).parse().unwrap(),
            format: Format::Raw,
        }
    }

    fn wish(wanted: &Wanted) -> Wish {
        Wish { wanted: wanted.clone(), object: None }
    }

    fn broke_off(bytes: u64) -> Failure {
        Failure::Fetch(image::Error::Interrupted { at: "http://a.example/disk".to_owned(), bytes })
    }

    /// A queue and a clock that moves only by hand.
    struct Queue {
        tasks: Tasks,
        now: Instant,
    }

    impl Queue {
        fn new() -> Self {
            Self { tasks: Tasks::default(), now: Instant::now() }
        }

        /// Asks for all in this order and starts those whose turn it is.
        fn ask<const N: usize>(&mut self, all: [&Wanted; N]) {
            for wanted in all {
                self.now += Duration::from_secs(1);
                self.tasks.ask(&wish(wanted), self.now);
            }
            while let Some(wanted) = self.tasks.next() {
                self.tasks.start(&wanted, watch::channel(Progress::default()).1);
            }
        }

        fn fail(&mut self, wanted: &Wanted, failure: Failure) {
            self.tasks.fail(wanted, failure, self.now);
            self.ask([]);
        }

        fn runs(&mut self, wanted: &Wanted) -> bool {
            matches!(self.tasks.current(&wish(wanted), self.now), Some(State::Running(_)))
        }
    }

    #[test]
    fn who_waited_longest_comes_next_and_one_source_of_the_same_bytes_at_a_time() {
        let mut queue = Queue::new();
        let (a, other, b, c) = (wanted(1, 1), wanted(1, 2), wanted(2, 1), wanted(3, 1));
        queue.ask([&a, &other, &b, &c]);
        assert_eq!([&a, &other, &b, &c].map(|wanted| queue.runs(wanted)), [true, false, true, true]);
        queue.fail(&a, broke_off(0));
        assert!(queue.runs(&other));
    }

    #[test]
    fn a_slow_source_keeps_its_place_from_nobody_who_could_be_faster() {
        let mut queue = Queue::new();
        let (slow, good) = (wanted(1, 1), wanted(1, 2));
        queue.ask([&slow]);
        assert!(!queue.tasks.somebody_waits_for(&slow), "alone, it may take as long as it likes");
        queue.ask([&good]);
        assert!(queue.tasks.somebody_waits_for(&slow));
        queue.fail(&slow, Failure::Overtaken);
        assert!(queue.runs(&good));
        queue.now += LATER;
        queue.ask([&slow]);
        assert!(
            !queue.tasks.somebody_waits_for(&good),
            "two slow ones do not take turns from the start for ever"
        );
    }

    #[test]
    fn slow_sources_in_all_places_make_room_for_other_images() {
        let mut queue = Queue::new();
        let slow = [1, 2, 3, 4].map(|digest| wanted(digest, 1));
        queue.ask([&slow[0], &slow[1], &slow[2], &slow[3]]);
        let good = wanted(5, 1);
        queue.ask([&good, &wanted(1, 2)]);
        assert!(slow.iter().all(|slow| queue.tasks.somebody_waits_for(slow)));
        queue.fail(&slow[2], Failure::Overtaken);
        assert!(queue.runs(&good));
        assert!(!queue.tasks.somebody_waits_for(&slow[3]), "the other source waits for image 1 alone");
    }

    #[test]
    fn a_download_that_panicked_frees_its_place_and_is_tried_again() {
        let (mut queue, wanted) = (Queue::new(), wanted(1, 1));
        queue.ask([&wanted]);
        queue.fail(&wanted, Failure::Panicked("at once".to_owned()));
        assert_eq!(queue.tasks.running().count(), 0);
        queue.now += LATER;
        queue.ask([&wanted]);
        assert!(queue.runs(&wanted));
    }

    #[test]
    fn a_download_that_gets_no_further_is_tried_ever_more_seldom() {
        let mut past = Past::default();
        let pauses = [100, 100, 100, 100, 200, 200].map(|bytes| {
            past.learn(&broke_off(bytes));
            pause(Retry::Soon, past.idle).as_secs()
        });
        assert_eq!(pauses, [2, 4, 8, 16, 2, 4]);
        assert_eq!(pause(Retry::Soon, 60), LONGEST_PAUSE);
    }

    #[test]
    fn a_new_attempt_remembers_the_ones_before_it() {
        let (mut queue, wanted) = (Queue::new(), wanted(1, 1));
        queue.ask([&wanted]);
        for (attempt, retry) in
            [Retry::Soon, Retry::Soon, Retry::Soon, Retry::Soon, Retry::Later].iter().enumerate()
        {
            queue.fail(&wanted, broke_off(100));
            assert_eq!(queue.tasks.trouble(&wanted).unwrap().retry, *retry, "after attempt {attempt}");
            queue.now += LONGEST_PAUSE;
            queue.ask([&wanted]);
            assert!(queue.runs(&wanted));
        }
    }

    fn wrong_digest(etag: &str) -> image::Error {
        image::Error::DigestMismatch {
            at: "http://a.example/disk".to_owned(),
            expected: Digest::new([1; 32]),
            found: None,
            seen: Box::new(Seen::etag(etag)),
        }
    }

    #[test]
    fn a_wrong_file_is_fetched_again_when_the_source_shows_another_or_the_image_object_is_new() {
        let (mut queue, wanted) = (Queue::new(), wanted(1, 1));
        let said_by = |object: &str| Wish { object: Some(object.to_owned()), ..wish(&wanted) };
        queue.tasks.ask(&said_by("first"), queue.now);
        queue.ask([]);
        queue.fail(&wanted, Failure::Fetch(wrong_digest("\"a\"")));
        let trouble = queue.tasks.trouble(&wanted).unwrap();
        assert_eq!((trouble.reason, trouble.retry), ("DigestMismatch", Retry::Later));
        queue.now += Duration::from_secs(15);
        queue.ask([&wanted]);
        assert!(!queue.runs(&wanted) && queue.tasks.current(&said_by("first"), queue.now).is_some());

        assert!(queue.tasks.looks_again(&wanted, queue.now));
        queue.tasks.show(&wanted, &Seen::etag("\"a\""), queue.now);
        queue.ask([]);
        assert!(!queue.runs(&wanted), "the same file");
        queue.tasks.show(&wanted, &Seen::etag("\"b\""), queue.now);
        queue.ask([]);
        assert!(queue.runs(&wanted));

        queue.fail(&wanted, Failure::Fetch(wrong_digest("\"b\"")));
        assert!(queue.tasks.current(&said_by("made again"), queue.now).is_none());
        queue.tasks.ask(&said_by("made again"), queue.now);
        queue.ask([]);
        assert!(queue.runs(&wanted));
        queue.fail(&wanted, Failure::Fetch(wrong_digest("\"b\"")));
        assert!(queue.tasks.current(&said_by("made again"), queue.now).is_some(), "one word, one try");
    }

    #[test]
    fn a_server_without_lengths_is_asked_again_until_it_brings_the_same_bytes_twice() {
        let (mut queue, wanted) = (Queue::new(), wanted(1, 1));
        let ended = |bytes: u64, byte: u8| {
            Failure::Fetch(image::Error::Unfinished {
                at: "http://a.example/disk".to_owned(),
                bytes,
                found: Digest::new([byte; 32]),
                if_whole: Box::new(wrong_digest("")),
            })
        };
        let mut reasons = Vec::new();
        for (bytes, byte) in [(100, 2), (200, 3), (200, 3), (200, 3)] {
            queue.now += LONGEST_PAUSE;
            queue.ask([&wanted]);
            queue.fail(&wanted, ended(bytes, byte));
            reasons.push(queue.tasks.trouble(&wanted).unwrap().reason);
        }
        let wrong = "DigestMismatch";
        assert_eq!(reasons, ["DownloadInterrupted", "DownloadInterrupted", wrong, wrong]);
    }
}
