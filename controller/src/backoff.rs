//! Which objects are left alone for a while: those whose last write failed, so that one bad object never delays another,
//! and those written again and again, because then somebody else writes the opposite.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::jitter;
use crate::write::Target;

/// The first wait: the watch has caught up by then.
const FIRST: Duration = Duration::from_millis(200);
/// The longest: an administrator who repaired something should not wait longer to see it.
const LONGEST: Duration = Duration::from_secs(60);

/// More writes than this to one object within [`WINDOW`] are a quarrel, not progress. A node's status may change with
/// every virtual machine that is placed; it is merged into fewer writes this way.
const MOST_WRITES: u32 = 20;
/// The time over which writes are counted.
const WINDOW: Duration = Duration::from_secs(10);
/// How long an object in a quarrel is left alone.
const PAUSE: Duration = Duration::from_secs(1);

struct Failed {
    times: u32,
    until: Instant,
}

struct Written {
    times: u32,
    since: Instant,
}

/// The objects that are left alone, and how often each was written lately.
#[derive(Default)]
pub(crate) struct Backoff {
    failed: HashMap<Target, Failed>,
    written: HashMap<Target, Written>,
}

impl Backoff {
    /// Whether the object may be written now.
    pub(crate) fn allows(&self, target: &Target, now: Instant) -> bool {
        self.failed.get(target).is_none_or(|failed| failed.until <= now)
    }

    /// Takes note of a success, and makes the object wait when there were too many.
    pub(crate) fn succeeded(&mut self, target: Target, now: Instant) {
        self.failed.remove(&target);
        let fresh = Written { times: 0, since: now };
        let written = self.written.entry(target.clone()).or_insert(fresh);
        if now.saturating_duration_since(written.since) > WINDOW {
            *written = Written { times: 0, since: now };
        }
        written.times += 1;
        if written.times > MOST_WRITES {
            tracing::warn!(%target, "written too often; does somebody else write the opposite?");
            let until = now + jitter::stretched(PAUSE);
            self.failed.insert(target, Failed { times: 0, until });
        }
    }

    /// Takes note of a failure: each doubles the wait, up to a minute and a half with jitter.
    pub(crate) fn failed(&mut self, target: Target, now: Instant) {
        let failed = self.failed.entry(target).or_insert(Failed { times: 0, until: now });
        let wait = FIRST.saturating_mul(1 << failed.times.min(16)).min(LONGEST);
        failed.times += 1;
        failed.until = now + jitter::stretched(wait);
    }

    /// When the next object may be tried again. Objects long past their time are forgotten: they may be gone.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Instant> {
        self.failed.retain(|_, failed| failed.until + 2 * LONGEST > now);
        self.written.retain(|_, written| written.since + WINDOW > now);
        self.failed.values().map(|failed| failed.until).filter(|until| *until > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write::Kind;

    #[test]
    fn a_failing_object_waits_longer_each_time_and_others_do_not() {
        let (mut backoff, start) = (Backoff::default(), Instant::now());
        let bad = Target::cluster(Kind::HypervisorNode, "edge-1");
        for _ in 0..3 {
            backoff.failed(bad.clone(), start);
        }
        assert!(!backoff.allows(&bad, start + Duration::from_millis(700)));
        assert!(backoff.allows(&bad, start + Duration::from_millis(1300)));
        assert!(backoff.allows(&Target::cluster(Kind::HypervisorNode, "edge-2"), start));
        backoff.succeeded(bad.clone(), start);
        assert!(backoff.allows(&bad, start));
    }

    #[test]
    fn the_wait_has_an_end() {
        let (mut backoff, start) = (Backoff::default(), Instant::now());
        let bad = Target::cluster(Kind::HypervisorNode, "edge-1");
        for _ in 0..1000 {
            backoff.failed(bad.clone(), start);
        }
        assert!(backoff.allows(&bad, start + Duration::from_secs(91)));
    }

    #[test]
    fn an_object_that_is_written_again_and_again_must_wait() {
        let (mut backoff, start) = (Backoff::default(), Instant::now());
        let torn = Target::cluster(Kind::HypervisorNode, "edge-1");
        for _ in 0..MOST_WRITES {
            backoff.succeeded(torn.clone(), start);
            assert!(backoff.allows(&torn, start));
        }
        backoff.succeeded(torn.clone(), start);
        assert!(!backoff.allows(&torn, start));
        assert!(backoff.allows(&torn, start + Duration::from_secs(2)));
    }
}
