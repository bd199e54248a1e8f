//! Which objects are left alone for a while because their last write failed: one bad object never delays another.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::jitter;
use crate::write::Target;

/// The first wait: the watch has caught up by then.
const FIRST: Duration = Duration::from_millis(200);
/// The longest: an administrator who repaired something should not wait longer to see it.
const LONGEST: Duration = Duration::from_secs(60);

struct Failed {
    times: u32,
    until: Instant,
}

/// The objects whose writes fail.
#[derive(Default)]
pub(crate) struct Backoff {
    failed: HashMap<Target, Failed>,
}

impl Backoff {
    /// Whether the object may be written now.
    pub(crate) fn allows(&self, target: &Target, now: Instant) -> bool {
        self.failed.get(target).is_none_or(|failed| failed.until <= now)
    }

    /// Forgets the failures of an object that was written.
    pub(crate) fn succeeded(&mut self, target: &Target) {
        self.failed.remove(target);
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
        backoff.succeeded(&bad);
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
}
