use super::*;
use crate::image::{Format, Privacy, Source, Tenant};

/// Image `digest` from source `from`.
fn wanted(digest: u8, from: u8) -> Wanted {
    Wanted {
        source: Source::File(format!("/images/{from}").into()),
        digest: format!("sha256:{}", format!("{digest:02x}").repeat(32)).parse().unwrap(),
        format: Format::Raw,
        tenant: Tenant { namespace: "shop".to_owned(), privacy: Privacy::Shared },
    }
}

fn wish(wanted: &Wanted) -> Wish {
    Wish { wanted: wanted.clone(), object: None, purpose: Purpose::Ahead }
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
            self.tasks.start(&wanted, watch::channel(Progress::default()).1, self.now);
        }
    }

    fn fail(&mut self, wanted: &Wanted, failure: Failure) {
        self.tasks.fail(wanted, failure, self.now);
        self.ask([]);
    }

    fn runs(&mut self, wanted: &Wanted) -> bool {
        matches!(self.tasks.current(&wish(wanted), self.now), Some(State::Running { .. }))
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
fn what_nobody_waits_for_any_more_is_forgotten() {
    let mut queue = Queue::new();
    let slow = [1, 2, 3, 4].map(|digest| wanted(digest, 1));
    queue.ask([&slow[0], &slow[1], &slow[2], &slow[3]]);
    let (left, kept) = (wanted(5, 1), wanted(6, 1));
    queue.ask([&left, &kept]);
    queue.now += FORGOTTEN;
    queue.tasks.current(&wish(&kept), queue.now);
    queue.ask([&slow[0]]);
    assert!(queue.tasks.current(&wish(&left), queue.now).is_none());
    assert!(queue.tasks.current(&wish(&kept), queue.now).is_some());
}

#[test]
fn who_gave_way_waits_again_behind_the_others() {
    let mut queue = Queue::new();
    let long = [1, 2, 3, 4].map(|digest| wanted(digest, 1));
    queue.ask([&long[0], &long[1], &long[2], &long[3]]);
    let other = wanted(5, 1);
    queue.ask([&other]);
    assert!(!queue.tasks.gives_way(&long[0], queue.now));
    queue.now += Duration::from_secs(300);
    assert!(queue.tasks.gives_way(&long[0], queue.now));
    queue.tasks.current(&wish(&other), queue.now);
    queue.tasks.give_way(&long[0], queue.now);
    queue.ask([]);
    assert!(queue.runs(&other) && !queue.runs(&long[0]));
    assert!(queue.tasks.trouble(&long[0]).is_none(), "nothing is wrong with it");
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
fn a_namespace_has_a_few_looks_at_a_time_and_each_that_ends_makes_room_for_another() {
    let mut queue = Queue::new();
    let all: Vec<Wanted> = (0..6).map(|digest| wanted(digest, 1)).collect();
    for wanted in &all {
        queue.ask([wanted]);
        queue.fail(wanted, Failure::Fetch(wrong_digest("\"a\"")));
    }
    queue.now += Duration::from_secs(15);
    let looks = |queue: &mut Queue, wanted: &Wanted| queue.tasks.looks_again(wanted, queue.now);
    assert_eq!(all.iter().filter(|wanted| looks(&mut queue, wanted)).count(), LOOKS_EACH);
    queue.tasks.looked(&all[0]);
    assert!(looks(&mut queue, &all[4]) && !looks(&mut queue, &all[5]));
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
