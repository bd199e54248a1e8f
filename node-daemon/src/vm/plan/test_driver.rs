//! The same random histories as in `properties`, where every step on a domain, and whatever befalls a guest, is done by
//! libvirt's own test driver too: after each event libvirt must say what the model says. Files and images stay modelled.

use std::fs;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use super::super::desired::Desired;
use super::super::observe;
use super::super::observed::{Domain, Folder, State};
use super::super::record::Record;
use super::model::{Guest, UID, World, spec};
use super::properties::{Happening, deletion, happen, histories, strategy};
use super::{Plan, Step};
use crate::libvirt::domain_xml::{DomainSpec, to_xml};
use crate::libvirt::samples::{EMPTY_HOST, web};
use crate::libvirt::{Event, Events, Libvirt, StartPaused};

/// A host of its own and the model beside it.
struct Twin {
    world: World,
    runtime: Runtime,
    libvirt: Libvirt,
    _events: Events,
    _folder: TempDir,
}

impl Twin {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let folder = TempDir::new().unwrap();
        let node = folder.path().join("node.xml");
        fs::write(&node, EMPTY_HOST).unwrap();
        let (libvirt, events) = runtime.block_on(async {
            let (libvirt, mut events) = Libvirt::open(&format!("test://{}", node.display())).unwrap();
            let first = tokio::time::timeout(Duration::from_secs(10), events.next()).await;
            assert_eq!(first.unwrap(), Some(Event::Reconnected));
            (libvirt, events)
        });
        Self { world: World::new(spec()), runtime, libvirt, _events: events, _folder: folder }
    }

    fn happen(&mut self, happening: &Happening) {
        if matches!(happening, Happening::DiskFills) {
            // The test driver opens no disk.
            return;
        }
        let before = self.world.domain.clone();
        happen(&mut self.world, happening);
        self.befall(happening, &before);
        self.follow();
    }

    fn settle(&mut self) -> Option<Plan> {
        let plan = self.world.settle();
        self.follow();
        plan
    }

    /// What comes from outside. Ended guests cannot end again, and frozen ones do nothing.
    fn befall(&self, happening: &Happening, before: &Domain) {
        let Domain::Ours { state, record } = before else { return };
        let (ended, runs) = (matches!(state, State::Off(_)), matches!(state, State::Running));
        let libvirt = &self.libvirt;
        self.runtime.block_on(async {
            match happening {
                Happening::GuestPowersOff if runs => libvirt.shutdown(UID).await.unwrap(),
                Happening::GuestFails | Happening::HostReboots if !ended => {
                    libvirt.destroy(UID).await.unwrap();
                }
                _ => {}
            }
            if matches!(happening, Happening::HostReboots) {
                // A host that comes up finds its definitions and no memory of how anything ended.
                libvirt.undefine(UID).await.unwrap();
                libvirt.define(UID, xml(record)).await.unwrap();
            }
        });
    }

    /// Does what the model did since the last time, and compares.
    fn follow(&mut self) {
        for step in std::mem::take(&mut self.world.done) {
            self.runtime.block_on(self.step(&step));
        }
        assert_eq!(self.domain(), self.world.domain);
    }

    async fn step(&self, step: &Step) {
        let libvirt = &self.libvirt;
        match step {
            Step::Define(record) => libvirt.define(UID, xml(record)).await,
            Step::Start { paused: true } => libvirt.start(UID, StartPaused::Yes).await,
            Step::Start { paused: false } => libvirt.start(UID, StartPaused::No).await,
            Step::Remember(record) => libvirt.set_record(UID, &text(record)).await,
            Step::RequestShutdown if self.world.guest == Guest::Obeys => libvirt.shutdown(UID).await,
            Step::Destroy => libvirt.destroy(UID).await,
            Step::Suspend => libvirt.suspend(UID).await,
            Step::Resume => libvirt.resume(UID).await,
            Step::Undefine => libvirt.undefine(UID).await,
            Step::RequestShutdown
            | Step::FetchImage { .. }
            | Step::MakeFolder
            | Step::CreateOverlay { .. }
            | Step::CreateBlank { .. }
            | Step::Grow { .. }
            | Step::WriteSeed(_)
            | Step::EnsureNetwork { .. }
            | Step::Guard
            | Step::RemoveFiles => Ok(()),
        }
        .unwrap_or_else(|error| panic!("{}: {error}", step.name()));
    }

    fn domain(&self) -> Domain {
        self.runtime.block_on(observe::domain(&self.libvirt, UID)).unwrap()
    }
}

fn text(record: &Record) -> String {
    serde_json::to_string(record).unwrap()
}

fn xml(record: &Record) -> String {
    let desired = Desired::applied(UID, record).unwrap();
    let (cpu, memory_mib) = (desired.cpu(), desired.memory_mib());
    to_xml(&DomainSpec { uuid: UID, record: text(record), cpu, memory_mib, ..web() }).unwrap()
}

proptest! {
    // Fewer than where nothing is real: each takes a quarter of a second.
    #![proptest_config(ProptestConfig::with_cases((histories() / 10).min(500)))]

    /// Each event leaves libvirt as it leaves the model, up to a deletion and what happens meanwhile.
    #[test]
    fn libvirt_goes_through_every_history_as_the_model_does(first in strategy(), history in deletion()) {
        let mut twin = Twin::new();
        twin.world.spec.run_strategy = first;
        for one in &history {
            if matches!(one, Happening::Delete) {
                twin.world.mend();
                prop_assert_eq!(twin.settle(), Some(Plan::Converged));
            }
            twin.happen(one);
        }
        twin.world.mend();
        prop_assert_eq!(twin.settle(), Some(Plan::Converged));
        prop_assert_eq!((twin.domain(), twin.world.folder), (Domain::Absent, Folder::Absent));
    }
}
