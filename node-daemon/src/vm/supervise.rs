//! One task per virtual machine, and a sweep over the whole host.
//!
//! A panic ends one pass of one task alone, which then begins again. The sweep finds what no event told: domains without an
//! object, objects without a domain, networks and images nobody uses any more.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_api::node::ConfinementStatus;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinError, JoinHandle};
use uuid::Uuid;

use super::context::Context;
use super::fetches::Wish;
use super::guard::guard;
use super::holdings::{self, Held};
use super::memory::Memory;
use super::panics::survive;
use super::{needs, observe, reconcile, report, room};
use crate::apart::apart;
use crate::health::Pulse;
use crate::image::Purpose;
use crate::jitter::spread;
use crate::libvirt::{self, Event, Reach};
use crate::node::report::confinement;
use crate::node::{Holdings, HypervisorVersions};
use crate::objects::Changed;
use crate::run::Driver;
use crate::storage;

/// Between two sweeps when nothing happens.
const SWEEP: Duration = Duration::from_secs(30);
/// After something happened: soon, but a storm of events makes one sweep.
const SWEEP_SOON: Duration = Duration::from_secs(1);
/// How often it is looked whether libvirt answers; costs nothing.
const REACH: Duration = Duration::from_secs(1);
/// How often a disk that takes no writes is tried again.
const DISK: Duration = Duration::from_secs(10);

struct Machine {
    nudge: Arc<Notify>,
    task: JoinHandle<()>,
}

/// What a sweep found.
struct Found {
    held: Held,
    /// What libvirt says of itself, if it answered.
    versions: Option<HypervisorVersions>,
    /// Whether a subnet was freed, for which a virtual machine may be waiting.
    freed: bool,
}

struct Supervisor {
    context: Arc<Context>,
    machines: HashMap<Uuid, Machine>,
    report: watch::Sender<Option<Holdings>>,
    reach: watch::Sender<Reach>,
    pulse: Pulse,
    versions: Option<HypervisorVersions>,
}

/// Runs every virtual machine of this node, for ever; ends when the host lacks what it cannot do without.
pub(crate) async fn run(driver: Driver) {
    let (context, mut events) = loop {
        match Context::open(&driver) {
            Ok((context, events)) => break (Arc::new(context), events),
            // A daemon that ended could not tell of a disk that takes no writes.
            Err(error) if is_read_only(&error) => {
                driver.pulse.beat(Some(super::sentence(&error)));
                tokio::time::sleep(DISK).await;
            }
            Err(error) => {
                let error = super::sentence(&error);
                tracing::error!(error, "virtual machines cannot be driven on this host");
                return;
            }
        }
    };
    let mut wishes = context.wishes.clone();
    let mut proof = context.proof.clone();
    let mut problems = context.problems.clone();
    let mut supervisor = Supervisor {
        context: context.clone(),
        machines: HashMap::new(),
        report: driver.holdings,
        reach: driver.reach,
        pulse: driver.pulse,
        versions: None,
    };
    let mut look = tokio::time::interval(REACH);
    let mut due = Instant::now();
    let mut sweep = None;
    loop {
        let soon = tokio::select! {
            changed = context.objects.changed() => supervisor.nudge(&changed),
            event = events.next() => match event {
                Some(event) => supervisor.hear(event),
                None => return,
            },
            () = context.fetches.ended() => supervisor.nudge(&Changed::All),
            Ok(()) = wishes.changed() => supervisor.nudge(&Changed::All),
            Ok(()) = proof.changed() => supervisor.nudge(&Changed::All),
            Ok(()) = problems.changed() => supervisor.nudge(&Changed::All),
            _ = look.tick() => supervisor.watch_libvirt(),
            swept = ended(&mut sweep) => {
                sweep = None;
                supervisor.take(swept);
                false
            }
            () = tokio::time::sleep_until(due.into()), if sweep.is_none() => {
                sweep = Some(tokio::spawn(apart(look_around(context.clone()))));
                due = Instant::now() + spread(SWEEP);
                false
            }
        };
        if soon {
            due = due.min(Instant::now() + SWEEP_SOON);
        }
    }
}

fn is_read_only(error: &(dyn std::error::Error + 'static)) -> bool {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    kind == Some(std::io::ErrorKind::ReadOnlyFilesystem) || error.source().is_some_and(is_read_only)
}

impl Supervisor {
    fn nudge(&mut self, changed: &Changed) -> bool {
        let uids: BTreeSet<Uuid> = match changed {
            Changed::All => self.wanted().into_iter().chain(self.machines.keys().copied()).collect(),
            Changed::Only(uids) => uids.iter().filter_map(|uid| uid.parse().ok()).collect(),
        };
        for uid in uids {
            self.look_at(uid);
        }
        true
    }

    fn hear(&mut self, event: Event) -> bool {
        match event {
            Event::Lifecycle { uuid, .. } => {
                if let Some(machine) = self.machines.get(&uuid) {
                    machine.nudge.notify_one();
                }
                true
            }
            Event::Disconnected => false,
            Event::Reconnected | Event::Resync => self.nudge(&Changed::All),
        }
    }

    /// Tells everybody when libvirt falls silent and when it answers again.
    fn watch_libvirt(&mut self) -> bool {
        let now = self.context.libvirt.reach();
        let turned = self.reach.send_if_modified(|reach| std::mem::replace(reach, now) != now);
        match (turned, now) {
            (false, _) => return false,
            (true, Reach::Silent) => tracing::warn!("libvirt does not answer; guests run on"),
            (true, Reach::Answers) => tracing::info!("libvirt answers"),
            (true, Reach::Untold) => {}
        }
        self.nudge(&Changed::All)
    }

    /// Wakes the task of this virtual machine, or starts one.
    fn look_at(&mut self, uid: Uuid) {
        if let Some(machine) = self.machines.get(&uid)
            && !machine.task.is_finished()
        {
            machine.nudge.notify_one();
            return;
        }
        let nudge = Arc::new(Notify::new());
        let task = tokio::spawn(apart(drive(self.context.clone(), uid, nudge.clone())));
        self.machines.insert(uid, Machine { nudge, task });
    }

    /// Acts on what a sweep found.
    fn take(&mut self, swept: Result<Result<Found, libvirt::Error>, JoinError>) {
        if !matches!(swept, Ok(Ok(_))) {
            self.context.fetches.cache().doubt();
        }
        match swept {
            Ok(Ok(found)) => self.act_on(&found),
            Ok(Err(error)) => self.pulse.beat(Some(format!("{}; guests run on", super::sentence(&error)))),
            // Without a beat systemd restarts the daemon, should every sweep end like this.
            Err(panic) => tracing::error!(%panic, "a sweep over the host panicked; please report it"),
        }
    }

    fn act_on(&mut self, found: &Found) {
        let held = &found.held;
        self.machines.retain(|_, machine| !machine.task.is_finished());
        for uid in held.uids().into_iter().chain(self.wanted()) {
            if !self.machines.contains_key(&uid) {
                self.look_at(uid);
            }
        }
        self.hear_of_libvirt(found.versions.as_ref());
        if found.freed {
            self.nudge(&Changed::All);
        }
        self.collect_images(held);
        self.prefetch();
        let holdings = holdings::holdings(&self.context, held, self.versions.clone());
        let holdings = Some(holdings);
        self.report.send_if_modified(|old| std::mem::replace(old, holdings.clone()) != holdings);
        self.pulse.beat(None);
    }

    /// Said once for each state that libvirt comes back in.
    fn hear_of_libvirt(&mut self, said: Option<&HypervisorVersions>) {
        let Some(said) = said.filter(|said| self.versions.as_ref() != Some(said)) else { return };
        let ConfinementStatus { drivers, message } =
            confinement(said.security_drivers.clone().unwrap_or_default());
        if !message.is_empty() {
            tracing::warn!(?drivers, "{message}");
        }
        self.versions = Some(said.clone());
    }

    /// UIDs of the objects placed here.
    fn wanted(&self) -> Vec<Uuid> {
        let objects = self.context.objects.virtual_machines();
        objects.iter().filter_map(|vm| vm.metadata.uid.as_deref()?.parse().ok()).collect()
    }

    fn prefetch(&self) {
        if self.context.bar().is_some() {
            return;
        }
        for image in &self.context.wishes.borrow().prefetch {
            match observe::prefetchable(image) {
                Ok(wanted) if !self.context.fetches.cache().has_for(&wanted.digest, &wanted.tenant) => {
                    let object = Some(image.uid.clone()).filter(|uid| !uid.is_empty());
                    self.context.fetches.begin(&Wish { wanted, object, purpose: Purpose::Ahead });
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(digest = image.digest, error, "prefetch refused"),
            }
        }
    }

    /// Tells the cache who needs what and what guests were promised, and removes what has to go.
    fn collect_images(&self, held: &Held) {
        let context = &self.context;
        let promised = room::unwritten(holdings::disks(context, held), context.disk_factor);
        let promised = storage::kept_from_images(&context.state_dir, promised);
        context.fetches.learn(needs::needs(&holdings::census(context, held)), promised);
        match context.fetches.cache().collect() {
            Ok(removed) if !removed.is_empty() => {
                tracing::info!(count = removed.len(), "unused images removed");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(error = super::sentence(&error), "unused images not removed"),
        }
    }
}

/// Looks at libvirt and the state folder, and removes networks nobody uses; the networks remember for a while what was
/// asked of them for a virtual machine that is being made. A task of its own: libvirt may take its time, and who is
/// nudged meanwhile must not wait for that.
async fn look_around(context: Arc<Context>) -> Result<Found, libvirt::Error> {
    let held = holdings::look(&context).await?;
    let host = context.libvirt.host().await.ok();
    let freed = context.networks.collect(&held.networks()).await.unwrap_or_else(|error| {
        tracing::warn!(error = super::sentence(&error), "unused networks not removed");
        false
    });
    // After the networks: rules of one that went go with it.
    if let Err(obstacle) = guard(&context).await {
        tracing::warn!(
            reason = obstacle.reason,
            error = obstacle.message,
            "the rules for guests were not renewed"
        );
    }
    let versions = host.map(|host| HypervisorVersions {
        libvirt: host.libvirt_version,
        hypervisor: host.hypervisor_version,
        security_drivers: Some(host.security_drivers),
    });
    Ok(Found { held, versions, freed })
}

/// Waits for a sweep that is under way.
async fn ended<T>(sweep: &mut Option<JoinHandle<T>>) -> Result<T, JoinError> {
    match sweep {
        Some(sweep) => sweep.await,
        None => std::future::pending().await,
    }
}

/// The life of one virtual machine's task.
async fn drive(context: Arc<Context>, uid: Uuid, nudge: Arc<Notify>) {
    let tell = || report::panicked(context.clone(), uid);
    survive(uid, || live(context.clone(), uid, nudge.clone()), tell).await;
}

async fn live(context: Arc<Context>, uid: Uuid, nudge: Arc<Notify>) {
    let mut memory = Memory::default();
    while let Some(next) = reconcile(&context, uid, &mut memory).await {
        let _ = tokio::time::timeout(next, nudge.notified()).await;
    }
}
