//! The loop: observe, plan, execute, and again until nothing is left to write.
//!
//! A pass reads everything anew, so no event's content drives anything; events only bring the next pass forward. Plans
//! are pure. A pass after one that wrote follows at once, because its plan may have a next step.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Client;
use tokio::sync::Notify;

use crate::backoff::Backoff;
use crate::execute::{Error, Executor, Known};
use crate::heartbeat::Heartbeats;
use crate::metrics::Metrics;
use crate::observe::Caches;
use crate::unread::Told;
use crate::world::{Settings, World};
use crate::write::{Target, Write};
use crate::{access, enrol, image, network, node, ssh_key, vm};

/// Heartbeats are looked at this often; half a heartbeat, so an age is known to within that.
const TICK: Duration = Duration::from_secs(5);
/// Changes that come together are looked at together.
const GATHER: Duration = Duration::from_millis(10);
/// As many writes as one pass makes before it looks again: in a storm, deletions do not wait behind creations for long.
const MOST_WRITES: usize = 128;

/// The state of the loop.
pub(crate) struct Reconciler {
    pub(crate) client: Client,
    pub(crate) caches: Caches,
    pub(crate) executor: Executor,
    pub(crate) settings: Settings,
    pub(crate) wake: Arc<Notify>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) beats: Heartbeats,
    pub(crate) backoff: Backoff,
    /// Which unreadable objects were named already.
    pub(crate) told: Told,
    /// When a pass last wrote what is for information only.
    pub(crate) unhurried: Instant,
}

impl Reconciler {
    /// Passes without end.
    pub(crate) async fn run(mut self) {
        self.caches.ready().await;
        self.metrics.set_synced();
        tracing::info!("all kinds are listed; reconciling from now on");
        loop {
            if self.pass().await == 0 {
                self.rest().await;
            }
        }
    }

    /// One pass; returns after how many writes another pass would see more at once.
    async fn pass(&mut self) -> usize {
        let start = Instant::now();
        self.caches.listen(&self.client, &mut self.beats, start).await;
        let unhurried = start.saturating_duration_since(self.unhurried) >= TICK;
        if unhurried {
            self.unhurried = start;
        }
        let world = self.caches.world(self.settings, &self.beats, start, unhurried);
        let mut writes = plan(&world);
        self.metrics.observe(&world);
        let news = self.told.news(&world.unread);
        drop(world);
        writes.retain(|write| self.backoff.allows(&write.target, start));
        writes.truncate(MOST_WRITES);
        let outcomes = self.executor.all(&self.caches, writes).await;
        let succeeded = outcomes.iter().filter(|(_, outcome)| matches!(outcome, Ok(Known::Now))).count();
        for (target, outcome) in outcomes {
            self.judge(target, outcome);
        }
        self.executor.tell_all(news).await;
        self.metrics.passed(start.elapsed());
        succeeded
    }

    fn judge(&mut self, target: Target, outcome: Result<Known, Error>) {
        self.metrics.wrote(target.kind, outcome.as_ref().err());
        match outcome {
            Ok(_) => {
                tracing::debug!(%target, "written");
                self.backoff.succeeded(target, Instant::now());
            }
            Err(error) => {
                tell(&target, &error);
                self.backoff.failed(target, Instant::now());
            }
        }
    }

    async fn rest(&mut self) {
        let now = Instant::now();
        let tick = now + TICK;
        let until = self.backoff.next(now).map_or(tick, |retry| retry.min(tick));
        tokio::select! {
            () = self.wake.notified() => tokio::time::sleep(GATHER).await,
            () = tokio::time::sleep_until(until.into()) => {}
        }
    }
}

/// Every planner, in the order in which their writes allow each other.
pub(crate) fn plan(world: &World) -> Vec<Write> {
    let access = access::plan(world);
    let mut writes = enrol::plan(world, &access);
    writes.extend(vm::plan(world, &access));
    writes.extend(access.writes);
    writes.extend(node::plan(world));
    writes.extend(image::plan(world));
    writes.extend(network::plan(world));
    writes.extend(ssh_key::plan(world));
    writes.retain(|write| world.unread.allow(write));
    writes
}

fn tell(target: &Target, error: &Error) {
    let source = error as &dyn std::error::Error;
    match error {
        Error::Changed { .. } => tracing::debug!(%target, error = source, "looking again"),
        Error::Refused { .. } | Error::Late { .. } => {
            tracing::warn!(%target, error = source, "a write failed; trying again later");
        }
    }
}
