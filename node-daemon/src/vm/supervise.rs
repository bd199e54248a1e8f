//! One task per virtual machine, and a sweep over the whole host.
//!
//! A panic ends one pass of one task alone, which then begins again. The sweep finds what no event told: domains without an
//! object, objects without a domain, networks and images nobody uses any more.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::context::Context;
use super::holdings::{self, Held};
use super::memory::Memory;
use super::panics::survive;
use super::{observe, reconcile};
use crate::health::Pulse;
use crate::image::Digest;
use crate::jitter::spread;
use crate::libvirt::Event;
use crate::node::{Holdings, HypervisorVersions};
use crate::objects::Changed;
use crate::run::Driver;

/// Between two sweeps when nothing happens.
const SWEEP: Duration = Duration::from_secs(30);
/// After something happened: soon, but a storm of events makes one sweep.
const SWEEP_SOON: Duration = Duration::from_secs(1);
/// An image nobody uses goes at the second look this far apart, so that a VM made again soon finds it still there.
const IMAGES: Duration = Duration::from_secs(3600);

struct Machine {
    nudge: Arc<Notify>,
    task: JoinHandle<()>,
}

struct Supervisor {
    context: Arc<Context>,
    machines: HashMap<Uuid, Machine>,
    report: watch::Sender<Option<Holdings>>,
    pulse: Pulse,
    versions: Option<HypervisorVersions>,
    unused: (Instant, HashSet<Digest>),
}

/// Runs every virtual machine of this node, for ever; ends when the host lacks what it cannot do without.
pub(crate) async fn run(driver: Driver) {
    let (context, mut events) = match Context::open(&driver) {
        Ok((context, events)) => (Arc::new(context), events),
        Err(error) => {
            tracing::error!(
                error = super::sentence(&error),
                "virtual machines cannot be driven on this host"
            );
            return;
        }
    };
    let mut wishes = context.wishes.clone();
    let mut proof = context.proof.clone();
    let mut supervisor = Supervisor {
        context: context.clone(),
        machines: HashMap::new(),
        report: driver.holdings,
        pulse: driver.pulse,
        versions: None,
        unused: (Instant::now(), HashSet::new()),
    };
    let mut due = Instant::now();
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
            () = tokio::time::sleep_until(due.into()) => {
                supervisor.sweep().await;
                due = Instant::now() + spread(SWEEP);
                false
            }
        };
        if soon {
            due = due.min(Instant::now() + SWEEP_SOON);
        }
    }
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

    /// Wakes the task of this virtual machine, or starts one.
    fn look_at(&mut self, uid: Uuid) {
        if let Some(machine) = self.machines.get(&uid)
            && !machine.task.is_finished()
        {
            machine.nudge.notify_one();
            return;
        }
        let nudge = Arc::new(Notify::new());
        let task = tokio::spawn(drive(self.context.clone(), uid, nudge.clone()));
        self.machines.insert(uid, Machine { nudge, task });
    }

    async fn sweep(&mut self) {
        self.machines.retain(|_, machine| !machine.task.is_finished());
        let held = match holdings::look(&self.context).await {
            Ok(held) => held,
            Err(error) => {
                self.pulse.beat(Some(format!("{}; guests run on", super::sentence(&error))));
                return;
            }
        };
        for uid in held.uids().into_iter().chain(self.wanted()) {
            if !self.machines.contains_key(&uid) {
                self.look_at(uid);
            }
        }
        self.describe_host().await;
        self.prefetch();
        self.collect(&held).await;
        let holdings = holdings::holdings(&self.context, &held, self.versions.clone());
        let holdings = Some(holdings);
        self.report.send_if_modified(|old| std::mem::replace(old, holdings.clone()) != holdings);
        self.pulse.beat(None);
    }

    /// UIDs of the objects placed here.
    fn wanted(&self) -> Vec<Uuid> {
        let objects = self.context.objects.virtual_machines();
        objects.iter().filter_map(|vm| vm.metadata.uid.as_deref()?.parse().ok()).collect()
    }

    async fn describe_host(&mut self) {
        if let Ok(host) = self.context.libvirt.host().await {
            let (libvirt, hypervisor) = (host.libvirt_version, host.hypervisor_version);
            self.versions = Some(HypervisorVersions { libvirt, hypervisor });
        }
    }

    fn prefetch(&self) {
        for image in &self.context.wishes.borrow().prefetch {
            match observe::fetchable(&image.source, &image.digest, image.format) {
                Ok(wanted) if self.context.fetches.cache().lookup(&wanted.digest).is_none() => {
                    self.context.fetches.begin(wanted);
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(digest = image.digest, error, "prefetch refused"),
            }
        }
    }

    /// Removes networks and images nobody uses. What a virtual machine that is being made will use is not known to
    /// libvirt yet: the networks remember for a while what was asked of them, and the digests are pinned in the status of
    /// its object. Where a folder has neither domain nor object nobody knows what its disks stand on, so all stay.
    async fn collect(&mut self, held: &Held) {
        if let Err(error) = self.context.networks.collect(&held.networks()).await {
            tracing::warn!(error = super::sentence(&error), "unused networks not removed");
        }
        let has_object = |uid: &Uuid| self.context.objects.virtual_machine(&uid.to_string()).is_some();
        if held.unclaimed(has_object).is_empty()
            && self.unused.0.elapsed() >= IMAGES
            && self.context.objects.reachable()
        {
            self.collect_images(held);
        }
    }

    fn collect_images(&mut self, held: &Held) {
        let cache = self.context.fetches.cache();
        let mut keep = held.images();
        let prefetched = &self.context.wishes.borrow().prefetch;
        keep.extend(prefetched.iter().filter_map(|image| image.digest.parse::<Digest>().ok()));
        let vms = self.context.objects.virtual_machines();
        let pinned = vms.iter().filter_map(|vm| vm.status.as_ref()).flat_map(|status| &status.disks);
        keep.extend(pinned.filter_map(|disk| disk.image_digest.parse::<Digest>().ok()));
        let unused: HashSet<_> = cache
            .list()
            .unwrap_or_default()
            .iter()
            .map(|image| image.digest)
            .filter(|digest| !keep.contains(digest))
            .collect();
        keep.extend(unused.difference(&self.unused.1));
        match cache.remove_unused(&keep) {
            Ok(removed) if !removed.is_empty() => {
                tracing::info!(count = removed.len(), "unused images removed");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(error = super::sentence(&error), "unused images not removed"),
        }
        self.unused = (Instant::now(), unused);
    }
}

/// The life of one virtual machine's task.
async fn drive(context: Arc<Context>, uid: Uuid, nudge: Arc<Notify>) {
    survive(uid, || live(context.clone(), uid, nudge.clone())).await;
}

async fn live(context: Arc<Context>, uid: Uuid, nudge: Arc<Notify>) {
    let mut memory = Memory::default();
    while let Some(next) = reconcile(&context, uid, &mut memory).await {
        let _ = tokio::time::timeout(next, nudge.notified()).await;
    }
}
