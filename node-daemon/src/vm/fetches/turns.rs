//! Whose turn it is among downloads. Pure.
//!
//! A virtual machine that wants to start comes before what is fetched ahead. Among equals the namespace with the fewest
//! downloads under way comes first, then the one that was not served for longest, then who has waited longest. A place is
//! held for a bounded time while others wait for it.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::Wanted;
use crate::image::{Digest, Purpose};

/// Downloads at a time. Each holds two blocking threads and a connection for as long as its server likes, so without a
/// bound slow servers would take the threads that everybody's steps need; and four fill whatever link a site has.
pub(super) const AT_ONCE: usize = 4;

/// How long a download keeps its place while another waits for it: 3 GiB at 10 MiB/s.
const TERM: Duration = Duration::from_secs(300);
/// Each time a download gave its place up it may keep the next one twice as long, so often: one that no server lets
/// resume would never end otherwise.
const LONGER: u32 = 5;

/// A download that has a place or waits for one.
#[derive(Clone, Copy)]
pub(super) struct Standing<'a> {
    pub(super) wanted: &'a Wanted,
    pub(super) purpose: Purpose,
    /// When it got its place, or began to wait.
    pub(super) since: Instant,
    /// How often it gave a place up to others.
    pub(super) yielded: u32,
}

/// What there is to decide on.
pub(super) struct Turns<'a> {
    pub(super) running: Vec<Standing<'a>>,
    pub(super) waiting: Vec<Standing<'a>>,
    /// When a namespace was last given a place.
    pub(super) served: &'a HashMap<String, Instant>,
}

impl<'a> Turns<'a> {
    /// Who comes next, if anybody: there is a place, and nobody else fetches the same bytes.
    pub(super) fn next(&self) -> Option<&'a Wanted> {
        if self.running.len() >= AT_ONCE {
            return None;
        }
        let busy = self.busy();
        let free = self.waiting.iter().filter(|one| !busy.contains(&one.wanted.digest));
        let rank = |one: &&Standing<'a>| {
            let namespace = &one.wanted.tenant.namespace;
            (one.purpose, self.places_of(namespace), self.served.get(namespace).copied(), one.since)
        };
        free.min_by_key(rank).map(|one| one.wanted)
    }

    /// Whether this one, under way, gives its place to somebody else.
    ///
    /// Whoever has another source of the same bytes waits for this place and for no other, however many are free.
    pub(super) fn gives_way(&self, place: &Wanted, now: Instant) -> bool {
        let Some(place) = self.running.iter().find(|one| one.wanted == place) else { return false };
        let (busy, full) = (self.busy(), self.running.len() >= AT_ONCE);
        let mut rivals = self
            .waiting
            .iter()
            .filter(|rival| same_bytes(place, rival) || (full && !busy.contains(&rival.wanted.digest)));
        rivals.any(|rival| self.loses(place, rival, now))
    }

    fn loses(&self, place: &Standing<'a>, rival: &Standing<'a>, now: Instant) -> bool {
        if place.purpose != rival.purpose {
            let is_last = || self.is_last(place, |other| other.purpose == place.purpose);
            return rival.purpose < place.purpose && (same_bytes(place, rival) || is_last());
        }
        let contested = now.duration_since(place.since.max(rival.since));
        contested >= self.term(place, rival)
    }

    /// A namespace with several places gives the last of them up soon to one with fewer, however often it did before.
    fn term(&self, place: &Standing<'a>, rival: &Standing<'a>) -> Duration {
        let (own, other) = (&place.wanted.tenant.namespace, &rival.wanted.tenant.namespace);
        let crowds = self.places_of(own) > self.places_of(other) + 1
            && self.is_last(place, |one| one.wanted.tenant.namespace == *own);
        if crowds { TERM } else { TERM * 2_u32.pow(place.yielded.min(LONGER)) }
    }

    /// Whether this one began last among those, so that not all of them give way to the same rival.
    fn is_last(&self, place: &Standing<'a>, among: impl Fn(&Standing<'a>) -> bool) -> bool {
        self.running.iter().filter(|one| among(one)).all(|one| one.since <= place.since)
    }

    fn places_of(&self, namespace: &str) -> usize {
        self.running.iter().filter(|one| one.wanted.tenant.namespace == namespace).count()
    }

    fn busy(&self) -> HashSet<Digest> {
        self.running.iter().map(|one| one.wanted.digest).collect()
    }
}

fn same_bytes(place: &Standing<'_>, rival: &Standing<'_>) -> bool {
    place.wanted.digest == rival.wanted.digest
}

#[cfg(test)]
#[path = "turns_tests.rs"]
mod tests;
