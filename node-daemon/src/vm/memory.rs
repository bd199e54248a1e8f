//! What the driver knows of one virtual machine between two looks. All of it may be lost at any time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use holdfast_api::virtual_machine::SeedStatus;

use super::observe::Pins;
use super::observed::Obstacle;
use super::plan::{Moment, Step};
use crate::clock::Clock;
use crate::image::Progress;

/// Lost with the daemon: then a grace period begins anew, and an event may be told twice.
#[derive(Default)]
pub(crate) struct Memory {
    /// When the guest was first asked to power off.
    stop_begun: Option<Instant>,
    /// When it was last asked.
    asked: Option<Instant>,
    /// When its processors were last let run again.
    resumed: Option<Instant>,
    /// The slowest download it waits for.
    pub(crate) progress: Option<Progress>,
    /// Which bytes its disks stand on or shall be made from, as last looked at.
    pub(crate) pins: Pins,
    /// What an edit lacks that waits for the next start.
    pub(crate) hindrance: Option<Obstacle>,
    /// Reason of the obstacle that was told last, so that an event marks a transition.
    pub(crate) told: Option<&'static str>,
    /// Whether it was told that an image is fetched, since the guest last started: further attempts are no story.
    pub(crate) told_fetch: bool,
    /// Which Secrets its seed would be made from now, and when and for which generation that was looked up.
    pub(crate) secrets: Option<(Instant, i64, SeedStatus)>,
    /// When the guest was first seen running without an address.
    pub(crate) nameless_since: Option<Instant>,
}

impl Memory {
    /// The moment of a plan.
    pub(crate) fn moment(&self, clock: &Clock) -> Moment {
        Moment {
            now: seconds(clock.now()),
            stopping_for: self.stop_begun.map(|begun| begun.elapsed()),
            asked_ago: self.asked.map(|asked| asked.elapsed()),
            resumed_ago: self.resumed.map(|resumed| resumed.elapsed()),
        }
    }

    /// Notes that the guest is off: a later stop begins anew.
    pub(crate) fn at_rest(&mut self) {
        (self.stop_begun, self.asked) = (None, None);
    }

    /// Notes what is about to be done.
    pub(crate) fn before(&mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::RequestShutdown => {
                    self.stop_begun.get_or_insert_with(Instant::now);
                    self.asked = Some(Instant::now());
                }
                Step::Resume => self.resumed = Some(Instant::now()),
                Step::Start { .. } => {
                    (self.stop_begun, self.asked, self.nameless_since) = (None, None, None);
                    self.told_fetch = false;
                    // A new seed may be younger than what was looked up.
                    self.secrets = None;
                }
                _ => {}
            }
        }
    }

    /// How long the guest has been running without an address.
    pub(crate) fn nameless_for(&mut self) -> Duration {
        self.nameless_since.get_or_insert_with(Instant::now).elapsed()
    }
}

/// Seconds since 1970; a clock before that counts as 1970.
fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
