//! What systemd is told: ready, alive, and how things stand in one sentence.

use std::time::{Duration, Instant};

use holdfast_api::node::NodeProblem;
use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, error};

use crate::accelerator::Proof;
use crate::contact::Contact;
use crate::health::Health;
use crate::node::{Holdings, problems};

/// Between two looks when no watchdog asks for more.
const LOOK: Duration = Duration::from_secs(10);
/// Looks until the daemon is ready are closer, since others wait for it.
const START_LOOK: Duration = Duration::from_millis(100);

/// Everything the sentence is made of.
pub(crate) struct Supervisor {
    pub(crate) health: Health,
    pub(crate) contact: watch::Receiver<Contact>,
    pub(crate) proof: watch::Receiver<Proof>,
    pub(crate) holdings: watch::Receiver<Option<Holdings>>,
    pub(crate) problems: watch::Receiver<Option<Vec<NodeProblem>>>,
}

impl Supervisor {
    /// Tells for ever. Outside systemd every message goes nowhere.
    pub(crate) async fn run(self) {
        while !self.health.began() {
            sleep(START_LOOK).await;
        }
        tell(&[NotifyState::Ready]);
        // Three looks within each period: one may come late.
        let period = sd_notify::watchdog_enabled().map_or(LOOK, |watchdog| watchdog / 3).min(LOOK);
        let mut said = String::new();
        loop {
            self.look(&mut said);
            sleep(period).await;
        }
    }

    fn look(&self, said: &mut String) {
        let status = self.sentence();
        if *said != status {
            tell(&[NotifyState::Status(&status)]);
            *said = status;
        }
        let stopped = self.health.stopped(Instant::now());
        if stopped.is_empty() || self.disk_hangs() {
            tell(&[NotifyState::Watchdog]);
        } else {
            error!(?stopped, "a loop of the daemon stopped; systemd restarts it, which touches no guest");
        }
    }

    /// A loop may wait for a disk that hangs. A new daemon would wait as well, and nobody would report.
    fn disk_hangs(&self) -> bool {
        self.problems.borrow().as_deref().is_some_and(problems::hanging)
    }

    fn sentence(&self) -> String {
        let mut parts = vec![held(self.holdings.borrow().as_ref())];
        parts.push(link(*self.contact.borrow()).to_owned());
        if let Proof::Missing(why) = &*self.proof.borrow() {
            parts.push(why.clone());
        }
        parts.extend(self.health.troubles());
        parts.join("; ")
    }
}

fn held(holdings: Option<&Holdings>) -> String {
    match holdings {
        None => "virtual machines not counted yet".to_owned(),
        Some(held) => {
            let (vms, orphans) = (held.virtual_machines.len(), held.orphans.len());
            format!("virtual machines: {vms}, orphans: {orphans}")
        }
    }
}

fn link(contact: Contact) -> &'static str {
    match contact {
        Contact::Never => "not enrolled yet",
        Contact::Reachable => "the API answers",
        Contact::Away { .. } => "the API does not answer",
        Contact::Refused { .. } => "the API refuses this node",
    }
}

/// The end was asked for.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        debug!(%error, "systemd was not told");
    }
}
