//! Whether a node lives: the age of its Lease, measured by when *we* saw it change, not by the clock inside it.
//!
//! ```text
//! first sight ──► Unproven ──changed──► Alive ◄──changed── Silent
//!                     │                   │                   ▲
//!                     └───── no change for the limit ─────────┘   after a look at the Lease itself
//! ```
//!
//! A watch of ours that stalls must not declare nodes lost, so [`Heartbeats::overdue`] names them first and the caller
//! reads those Leases once more before [`Heartbeats::declare_silent`].

use std::collections::HashMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::ResourceExt;

/// For a Lease that does not say: four heartbeats of 10 s. Fewer would call a lossy link dead.
const LIMIT_SECONDS: i32 = 40;
/// A node chooses its own limit between these: under two heartbeats it would flap, and after 5 min the news is old.
const LIMITS_SECONDS: (i32, i32) = (20, 300);

/// What is known of a node's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// Its Lease changed lately.
    Alive,
    /// Its Lease has not changed for longer than it promises.
    Silent,
    /// Not watched long enough to say: what was known before holds.
    Unproven,
}

struct Beat {
    pulse: Pulse,
    seen: Instant,
    limit: Duration,
    life: Life,
}

/// What a heartbeat changes.
#[derive(PartialEq)]
enum Pulse {
    Renewed(Option<MicroTime>),
    /// Of a Lease that cannot be read: its version, which every renewal changes too.
    Version(Option<String>),
}

/// The last heartbeat of each node, by the name of its Lease.
#[derive(Default)]
pub(crate) struct Heartbeats {
    beats: HashMap<String, Beat>,
}

impl Heartbeats {
    /// Takes note of a Lease as it is now; `unread` says that some of it could not be read.
    pub(crate) fn note(&mut self, lease: &Lease, unread: bool, now: Instant) {
        let spec = lease.spec.clone().unwrap_or_default();
        let limit = limit(spec.lease_duration_seconds);
        let pulse =
            if unread { Pulse::Version(lease.resource_version()) } else { Pulse::Renewed(spec.renew_time) };
        if let Some(beat) = self.beats.get_mut(&lease.name_any()) {
            beat.limit = limit;
            if beat.pulse != pulse {
                (beat.pulse, beat.seen, beat.life) = (pulse, now, Life::Alive);
            }
        } else {
            let beat = Beat { pulse, seen: now, limit, life: Life::Unproven };
            self.beats.insert(lease.name_any(), beat);
        }
    }

    /// Forgets Leases that are gone.
    pub(crate) fn keep(&mut self, exists: impl Fn(&str) -> bool) {
        self.beats.retain(|lease, _| exists(lease));
    }

    /// Leases whose time is over, and which nobody has declared silent yet.
    pub(crate) fn overdue(&self, now: Instant) -> Vec<String> {
        let late =
            |beat: &Beat| beat.life != Life::Silent && now.saturating_duration_since(beat.seen) > beat.limit;
        let late = self.beats.iter().filter(|(_, beat)| late(beat));
        late.map(|(lease, _)| lease.clone()).collect()
    }

    /// Declares a node silent, after a last look.
    pub(crate) fn declare_silent(&mut self, lease: &str) {
        if let Some(beat) = self.beats.get_mut(lease) {
            beat.life = Life::Silent;
        }
    }

    /// What is known of the node with this Lease.
    pub(crate) fn life(&self, lease: &str) -> Life {
        self.beats.get(lease).map_or(Life::Unproven, |beat| beat.life)
    }
}

fn limit(asked: Option<i32>) -> Duration {
    let (least, most) = LIMITS_SECONDS;
    let seconds = asked.unwrap_or(LIMIT_SECONDS).clamp(least, most);
    Duration::from_secs(u64::from(seconds.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::coordination::v1::LeaseSpec;
    use k8s_openapi::jiff::Timestamp;

    fn lease(renewed: i64) -> Lease {
        let mut lease = Lease::default();
        lease.metadata.name = Some("holdfast-node-edge-1".to_owned());
        lease.spec = Some(LeaseSpec {
            renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
            ..LeaseSpec::default()
        });
        lease
    }

    const NAME: &str = "holdfast-node-edge-1";

    #[test]
    fn a_lease_that_never_changes_is_overdue_and_one_that_changes_is_alive() {
        let (mut beats, start) = (Heartbeats::default(), Instant::now());
        beats.note(&lease(5), false, start);
        assert_eq!(beats.life(NAME), Life::Unproven);
        assert!(beats.overdue(start + Duration::from_secs(40)).is_empty());
        assert_eq!(beats.overdue(start + Duration::from_secs(41)), [NAME]);
        beats.note(&lease(6), false, start + Duration::from_secs(41));
        assert_eq!(beats.life(NAME), Life::Alive);
        assert!(beats.overdue(start + Duration::from_secs(42)).is_empty());
    }

    #[test]
    fn the_clock_inside_the_lease_does_not_matter() {
        let (mut beats, start) = (Heartbeats::default(), Instant::now());
        beats.note(&lease(4_000_000_000), false, start);
        beats.note(&lease(1), false, start + Duration::from_secs(10));
        assert_eq!(beats.life(NAME), Life::Alive);
    }

    #[test]
    fn a_silent_node_comes_back_with_its_next_heartbeat() {
        let (mut beats, start) = (Heartbeats::default(), Instant::now());
        beats.note(&lease(1), false, start);
        beats.declare_silent(NAME);
        assert_eq!(beats.life(NAME), Life::Silent);
        assert!(beats.overdue(start + Duration::from_secs(999)).is_empty());
        beats.note(&lease(2), false, start + Duration::from_secs(1000));
        assert_eq!(beats.life(NAME), Life::Alive);
    }
    #[test]
    fn a_lease_that_cannot_be_read_does_not_make_a_node_silent() {
        let (mut beats, start) = (Heartbeats::default(), Instant::now());
        let unread = |version: &str| {
            let mut lease = Lease::default();
            lease.metadata.name = Some(NAME.to_owned());
            lease.metadata.resource_version = Some(version.to_owned());
            lease
        };
        beats.note(&lease(1), false, start);
        for beat in 1..20_u32 {
            beats.note(&unread(&beat.to_string()), true, start + Duration::from_secs(10) * beat);
            assert!(beats.overdue(start + Duration::from_secs(10) * beat).is_empty());
        }
        assert_eq!(beats.life(NAME), Life::Alive);
        assert_eq!(beats.overdue(start + Duration::from_secs(300)), [NAME], "nobody renews it any more");
    }
}
