//! The time of day, for decisions: it follows the host's clock, but not where that jumps by weeks or years.
//!
//! A clock that jumps must restart and expire nothing. So nobody here asks the host for the time of day, but this clock,
//! which knows how much time has really passed. Where both differ by more than [`JUMP`], the host's clock is wrong, unless
//! the node's certificate, which another clock has dated, says that it is right now and was wrong before.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::identity::Validity;

/// A clock is set by hours after a flat battery, and by days after a host was asleep; nobody sets it by more than this.
const JUMP: Duration = Duration::from_secs(30 * 24 * 3600);

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Clock(Arc<Mutex<State>>);

struct State {
    /// The time of day, and when it was that.
    anchor: (SystemTime, Instant),
    /// From when to when the node's certificate is good.
    certificate: Option<Validity>,
}

/// What the host's clock says, beside what it should say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// It goes as it should.
    Right,
    /// It jumped.
    Jumped,
}

impl Clock {
    /// Believes what the host says now.
    pub(crate) fn start() -> Self {
        let state = State { anchor: (SystemTime::now(), Instant::now()), certificate: None };
        Self(Arc::new(Mutex::new(state)))
    }

    /// The time of day.
    pub(crate) fn now(&self) -> SystemTime {
        self.with(|state| state.steady())
    }

    /// Takes the dates of the node's certificate as a witness.
    pub(crate) fn certify(&self, certificate: Validity) {
        self.with(|state| state.certificate = Some(certificate));
    }

    /// Compares with the host's clock, and follows it unless it jumped.
    pub(crate) fn look(&self) -> Pace {
        self.with(|state| {
            let wall = SystemTime::now();
            let pace = judge(state.steady(), wall, state.certificate);
            if pace == Pace::Right {
                state.anchor = (wall, Instant::now());
            }
            pace
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        // No code panics while it holds the lock.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn steady(&self) -> SystemTime {
        let (wall, at) = self.anchor;
        wall.checked_add(at.elapsed()).unwrap_or(wall)
    }
}

/// Whether the host's clock, which says `wall`, is right where it should say `steady`.
fn judge(steady: SystemTime, wall: SystemTime, certificate: Option<Validity>) -> Pace {
    let apart = wall.duration_since(steady).unwrap_or_else(|back| back.duration());
    // Nothing is older than the certificate the node already has, a day of differing clocks aside.
    let before_its_time = |it: Validity| wall + Duration::from_secs(24 * 3600) < it.not_before;
    let within = |it: Validity, time| it.not_before <= time && time <= it.not_after;
    let set_right = |it: Validity| within(it, wall) && !within(it, steady);
    let right = if apart > JUMP {
        certificate.is_some_and(set_right)
    } else {
        !certificate.is_some_and(before_its_time)
    };
    if right { Pace::Right } else { Pace::Jumped }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn on_day(day: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + DAY * day
    }

    #[test]
    fn a_clock_that_jumps_by_years_is_wrong_until_it_is_set_back() {
        for wall in [on_day(20_000 - 3650), on_day(20_000 + 3650)] {
            assert_eq!(judge(on_day(20_000), wall, None), Pace::Jumped);
        }
        assert_eq!(judge(on_day(20_000), on_day(20_001), None), Pace::Right);
    }

    #[test]
    fn a_clock_that_was_wrong_at_the_start_and_is_set_right_has_not_jumped() {
        let certificate = Some(Validity { not_before: on_day(20_000), not_after: on_day(20_090) });
        assert_eq!(judge(on_day(1), on_day(1), certificate), Pace::Jumped, "1970 at boot");
        assert_eq!(judge(on_day(1), on_day(20_030), certificate), Pace::Right);
        assert_eq!(judge(on_day(20_030), on_day(23_650), certificate), Pace::Jumped);
        assert_eq!(
            judge(on_day(20_100), on_day(20_100), certificate),
            Pace::Right,
            "it has expired, no more"
        );
    }

    #[test]
    fn what_is_asked_for_the_time_does_not_jump_with_the_host() {
        let clock = Clock::start();
        let right = clock.now();
        // As if the host's clock had been where it is not.
        clock.with(|state| state.anchor.0 = right - DAY * 3650);
        assert_eq!(clock.look(), Pace::Jumped);
        assert!(clock.now() < right - DAY * 3649, "it goes on at its own pace");
    }
}
