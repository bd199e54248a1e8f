//! Whether the daemon's loops turn: what the systemd watchdog is fed from, and one sentence for `systemctl status`.
//!
//! A loop that hangs (a call into libvirt that never returns, a lost wake-up) shows as a pulse that stopped. The daemon
//! is then restarted, which touches no guest.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The pulses of all loops. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Health(Arc<Mutex<BTreeMap<&'static str, Part>>>);

struct Part {
    allowance: Duration,
    last: Instant,
    began: bool,
    trouble: Option<String>,
}

/// One loop's pulse.
pub(crate) struct Pulse {
    health: Health,
    name: &'static str,
}

impl Health {
    /// A pulse that must beat at least once per `allowance`, counted from now.
    pub(crate) fn pulse(&self, name: &'static str, allowance: Duration) -> Pulse {
        let part = Part { allowance, last: Instant::now(), began: false, trouble: None };
        self.with(|parts| parts.insert(name, part));
        Pulse { health: self.clone(), name }
    }

    /// Whether every loop has come round once: the daemon is ready.
    pub(crate) fn began(&self) -> bool {
        self.with(|parts| parts.values().all(|part| part.began))
    }

    /// The loops that stopped.
    pub(crate) fn stopped(&self, now: Instant) -> Vec<&'static str> {
        let late = |part: &Part| now.saturating_duration_since(part.last) > part.allowance;
        self.with(|parts| parts.iter().filter(|(_, part)| late(part)).map(|(name, _)| *name).collect())
    }

    /// What is wrong though the loops turn, such as libvirt being away.
    pub(crate) fn troubles(&self) -> Vec<String> {
        self.with(|parts| parts.values().filter_map(|part| part.trouble.clone()).collect())
    }

    fn with<T>(&self, look: impl FnOnce(&mut BTreeMap<&'static str, Part>) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Pulse {
    /// The loop came round. `trouble` is a sentence on what it cannot reach, `None` when all is well.
    pub(crate) fn beat(&self, trouble: Option<String>) {
        self.health.with(|parts| {
            if let Some(part) = parts.get_mut(self.name) {
                part.last = Instant::now();
                part.began = true;
                part.trouble = trouble;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemon_is_ready_when_every_loop_came_round() {
        let health = Health::default();
        let (first, second) = (health.pulse("first", Duration::MAX), health.pulse("second", Duration::MAX));
        first.beat(None);
        assert!(!health.began());
        second.beat(Some("libvirt does not answer".to_owned()));
        assert!(health.began());
        assert_eq!(health.troubles(), ["libvirt does not answer"]);
    }

    #[test]
    fn a_loop_that_stopped_is_named() {
        let health = Health::default();
        let pulse = health.pulse("virtual machines", Duration::from_secs(60));
        pulse.beat(None);
        let now = Instant::now();
        assert!(health.stopped(now).is_empty());
        assert_eq!(health.stopped(now + Duration::from_secs(61)), ["virtual machines"]);
    }
}
