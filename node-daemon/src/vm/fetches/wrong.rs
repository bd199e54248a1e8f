//! A source that has another file than it should: when it is worth another look, and another download. Pure.
//!
//! A look costs a few hundred bytes and finds within a minute that the file was exchanged. Not every server shows that, so
//! the whole file is fetched again as well, ever more seldom.

use std::time::{Duration, Instant};

use crate::image::Seen;

/// Between two looks. Whoever waits asks every 20 to 45 s, so the next one comes within a minute.
const LOOK: Duration = Duration::from_secs(10);
/// Before the whole file is fetched again for the first time.
const SHORTEST: Duration = Duration::from_secs(30);
/// Before it is fetched again at the latest.
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// So many different files may turn out to be wrong: behind one name several mirrors can stand that show the same file
/// differently. A source with more shows something new each time, which proves nothing.
const MIRRORS: usize = 8;

/// What is known of a source whose file was wrong.
#[derive(Default)]
pub(super) struct Wrong {
    /// What it showed of each file that was wrong.
    refuted: Vec<Seen>,
    /// How often in a row.
    times: u32,
    /// When it was last looked at.
    looked: Option<Instant>,
}

impl Wrong {
    /// Another file was fetched and is wrong. Returns how long until the next download.
    pub(super) fn refute(&mut self, seen: &Seen, now: Instant) -> Duration {
        if self.is_new(seen) && self.refuted.len() < MIRRORS {
            self.refuted.push(seen.clone());
        }
        self.looked = Some(now);
        let pause = SHORTEST * 2_u32.saturating_pow(self.times.min(16));
        self.times = self.times.saturating_add(1);
        pause.min(LONGEST)
    }

    /// Whether it is time for a look, and whether one can find anything; notes it.
    pub(super) fn looks_again(&mut self, now: Instant) -> bool {
        let due = self.looked.is_some_and(|looked| now >= looked + LOOK);
        let shows = !self.refuted.is_empty() && self.refuted.len() < MIRRORS;
        if due && shows {
            self.looked = Some(now);
        }
        due && shows
    }

    /// Whether what it shows is none of the files that were wrong.
    pub(super) fn is_new(&self, seen: &Seen) -> bool {
        !seen.says_nothing() && self.refuted.iter().all(|refuted| seen.differs(refuted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unchanged_source_is_read_whole_ever_more_seldom_up_to_a_quarter_of_an_hour() {
        let (mut wrong, seen, now) = (Wrong::default(), Seen::etag("\"a\""), Instant::now());
        let pauses = [0; 7].map(|_| wrong.refute(&seen, now).as_secs());
        assert_eq!(pauses, [30, 60, 120, 240, 480, 900, 900]);
        wrong.times = u32::MAX;
        assert_eq!(wrong.refute(&seen, now), LONGEST);
    }

    #[test]
    fn a_source_is_looked_at_often_and_only_a_file_that_was_not_wrong_before_counts() {
        let (mut wrong, now) = (Wrong::default(), Instant::now());
        assert!(!wrong.looks_again(now), "nothing is known of it");
        wrong.refute(&Seen::etag("\"a\""), now);
        assert!(!wrong.looks_again(now + LOOK / 2));
        assert!(wrong.looks_again(now + LOOK) && !wrong.looks_again(now + LOOK));
        assert!(wrong.is_new(&Seen::etag("\"b\"")) && !wrong.is_new(&Seen::etag("\"a\"")));
        wrong.refute(&Seen::etag("\"b\""), now);
        assert!(!wrong.is_new(&Seen::etag("\"a\"")), "two mirrors are not two files");
    }

    #[test]
    fn a_source_that_shows_nothing_or_always_something_else_is_not_looked_at() {
        let (mut silent, mut restless, now) = (Wrong::default(), Wrong::default(), Instant::now());
        silent.refute(&Seen::default(), now);
        assert!(!silent.looks_again(now + LOOK) && !silent.is_new(&Seen::default()));
        for n in 0..MIRRORS {
            assert!(restless.refuted.is_empty() || restless.looks_again(now + LOOK * 2));
            restless.refute(&Seen::etag(&n.to_string()), now);
        }
        assert!(!restless.looks_again(now + LOOK * 2));
        restless.refute(&Seen::etag("one more"), now);
        assert_eq!(restless.refuted.len(), MIRRORS, "and fills no memory");
    }
}
