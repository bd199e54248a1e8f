//! A model of the world for the planner's tests: one virtual machine, its files, a guest that obeys or does not.
//!
//! It refuses (by panic, in tests) what must never happen: touching a foreign domain, removing files of a running guest,
//! starting without its files, defining without a network.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use holdfast_api::VirtualMachine;
use holdfast_api::offer::NetworkOffer;
use holdfast_api::reference::ObjectRef;
use holdfast_api::virtual_machine::{Blank, Disk, Interface, RunStrategy, SeedStatus, VirtualMachineSpec};
use uuid::Uuid;

use super::super::desired::Desired;
use super::super::observed::*;
use super::{Goal, Moment, Plan, Removal, Step, plan};
use crate::image::{Digest, Format};

pub(in crate::vm) const UID: Uuid = Uuid::from_u128(0x0123);
/// Virtual seconds that pass between two looks.
const LOOK: u64 = 5;

pub(in crate::vm) fn spec() -> VirtualMachineSpec {
    VirtualMachineSpec {
        cpu: 1,
        memory: "256Mi".into(),
        termination_grace_period_seconds: 60,
        disks: vec![
            Disk {
                name: "root".into(),
                size: "1Gi".into(),
                image: Some(ObjectRef { name: "tiny".into() }),
                blank: None,
            },
            Disk { name: "data".into(), size: "1Gi".into(), image: None, blank: Some(Blank {}) },
        ],
        interfaces: vec![Interface {
            name: "lan".into(),
            network: ObjectRef { name: "default".into() },
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// A disk over an image that is not cached.
pub(super) fn extra_disk() -> Disk {
    Disk {
        name: "extra".into(),
        size: "1Gi".into(),
        image: Some(ObjectRef { name: "late".into() }),
        blank: None,
    }
}

/// An interface in another network.
pub(super) fn wan() -> Interface {
    Interface { name: "wan".into(), network: ObjectRef { name: "uplink".into() }, ..Default::default() }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vm) enum Guest {
    Obeys,
    Deaf,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a fact of the world, and any mix of them occurs")]
pub(in crate::vm) struct World {
    pub(in crate::vm) spec: VirtualMachineSpec,
    pub(in crate::vm) generation: i64,
    pub(in crate::vm) deleted: bool,
    /// Whether the API answers: without it the object and all it refers to are unknown.
    pub(in crate::vm) known: bool,
    pub(in crate::vm) domain: Domain,
    pub(in crate::vm) folder: Folder,
    /// Names of images in the cache.
    pub(in crate::vm) images: BTreeSet<String>,
    /// Names of images, networks and Secrets that nobody has made yet.
    pub(in crate::vm) missing: BTreeSet<String>,
    /// Whether this host was seen to run guest code.
    pub(in crate::vm) proved: bool,
    pub(in crate::vm) disks: BTreeMap<String, u64>,
    seed: bool,
    /// What the host offers guests; a network without a subnet is always had.
    pub(in crate::vm) offer: Arc<NetworkOffer>,
    /// Kind of every network, as a record has it.
    pub(in crate::vm) network_kind: serde_json::Value,
    /// Names of networks that work on the host.
    networks: BTreeSet<String>,
    /// The definition that the host's rules were last made for.
    guarded: Option<super::super::record::Record>,
    pub(in crate::vm) guest: Guest,
    pub(in crate::vm) starts: u32,
    /// Starts after which the guest did anything.
    pub(in crate::vm) runs: u32,
    /// Started frozen, and not let run since.
    fresh: bool,
    pub(in crate::vm) forced: u32,
    pub(in crate::vm) room_mib: u64,
    /// Bytes of disk.
    pub(in crate::vm) room_disk: u64,
    clock: u64,
    stop_begun: Option<u64>,
    asked: Option<u64>,
    resumed: Option<u64>,
    /// Steps carried out and not taken up yet by whoever repeats them elsewhere.
    pub(super) done: Vec<Step>,
}

impl World {
    pub(in crate::vm) fn new(spec: VirtualMachineSpec) -> Self {
        Self {
            spec,
            generation: 1,
            deleted: false,
            known: true,
            domain: Domain::Absent,
            folder: Folder::Absent,
            images: BTreeSet::new(),
            missing: BTreeSet::new(),
            proved: true,
            disks: BTreeMap::new(),
            seed: false,
            offer: Arc::default(),
            network_kind: serde_json::json!({"nat": {"subnet": null}}),
            networks: BTreeSet::new(),
            guarded: None,
            guest: Guest::Obeys,
            starts: 0,
            runs: 0,
            fresh: false,
            forced: 0,
            room_mib: 4096,
            room_disk: u64::MAX,
            clock: 1_000_000,
            stop_begun: None,
            asked: None,
            resumed: None,
            done: Vec::new(),
        }
    }

    pub(in crate::vm) fn edit(&mut self, edit: impl FnOnce(&mut VirtualMachineSpec)) {
        edit(&mut self.spec);
        self.generation += 1;
    }

    pub(in crate::vm) fn running(&self) -> bool {
        matches!(self.domain, Domain::Ours { state: State::Running | State::Paused(_), .. })
    }

    /// The guest ends, whoever caused it; a frozen one does nothing by itself.
    pub(in crate::vm) fn end(&mut self, ended: Ended) {
        if let Domain::Ours { state, .. } = &mut self.domain {
            match state {
                State::Off(_) => {}
                State::Paused(_) if ended == Ended::PoweredOff => {}
                State::Running | State::Paused(_) => *state = State::Off(ended),
            }
        }
    }

    /// The host's disk is full: QEMU freezes the guest that writes.
    pub(super) fn fill_disk(&mut self) {
        if let Domain::Ours { state: state @ State::Running, .. } = &mut self.domain {
            *state = State::Paused(PausedBy::IoError);
        }
    }

    /// Everything that is named is there again.
    pub(super) fn mend(&mut self) {
        self.missing.clear();
        (self.known, self.proved) = (true, true);
    }

    /// The file of a disk is gone.
    pub(in crate::vm) fn lose_disk(&mut self, name: &str) {
        self.disks.remove(name);
    }

    /// Every process of the host dies; libvirt forgets how things ended.
    pub(in crate::vm) fn reboot(&mut self) {
        if let Domain::Ours { state, .. } = &mut self.domain {
            *state = State::Off(Ended::Unknown);
        }
        self.networks.clear();
        self.crash();
    }

    /// The daemon dies: it forgets what it did not write down.
    pub(in crate::vm) fn crash(&mut self) {
        (self.stop_begun, self.asked, self.resumed) = (None, None, None);
    }

    pub(in crate::vm) fn goal(&self) -> Option<Goal> {
        let object = self.known.then(|| self.object());
        let desired = match &object {
            Some(_) if self.deleted => {
                return Some(Goal::Delete(Removal { uid: UID, grace: Duration::from_secs(60) }));
            }
            Some(vm) => Desired::try_from(vm).unwrap(),
            None => Desired::from_record(UID, self.domain.record()?).unwrap(),
        };
        Some(if desired.run_strategy() == RunStrategy::Halted {
            Goal::Halt(desired)
        } else {
            Goal::Run(desired)
        })
    }

    pub(in crate::vm) fn object(&self) -> VirtualMachine {
        let mut vm = VirtualMachine::new("web", self.spec.clone());
        vm.metadata.namespace = Some("shop".into());
        vm.metadata.uid = Some(UID.to_string());
        vm.metadata.generation = Some(self.generation);
        vm
    }

    /// Why this cannot be had, where it cannot.
    fn lacks(&self, name: &str) -> Option<Obstacle> {
        let missing = self.missing.contains(name) || !self.known;
        missing.then(|| Obstacle::later("NotFound", format!("there is no {name}: create it")))
    }

    /// Of everything that is named anywhere, as the planner must not mind what more it is told.
    pub(super) fn observed(&self) -> Observed {
        let named = self.spec.disks.iter().chain(self.old_disks());
        let images = named.filter_map(|disk| {
            let name = &disk.image.as_ref()?.name;
            Some((disk.name.clone(), self.image(name)))
        });
        let old = self.applied().map(|spec| spec.interfaces.as_slice()).unwrap_or_default();
        // What is wanted now counts where a name stands for both.
        let named = old.iter().chain(&self.spec.interfaces);
        let networks = named.map(|one| (one.name.clone(), self.network(&one.network.name)));
        Observed {
            domain: self.domain.clone(),
            folder: self.folder,
            images: images.collect(),
            disks: self.disks.clone(),
            networks: networks.collect(),
            offer: self.offer.clone(),
            seed: Seed { written: self.seed, inputs: self.inputs() },
            accelerator: if self.proved {
                Accelerator::Proved
            } else {
                Accelerator::Unproved("no guest code runs".into())
            },
            bar: None,
            room: Room { memory: self.room_mib << 20, cpu: 64, storage: self.room_disk },
        }
    }

    fn applied(&self) -> Option<&VirtualMachineSpec> {
        Some(&self.domain.record()?.applied.as_ref()?.spec)
    }

    fn old_disks(&self) -> &[Disk] {
        self.applied().map(|spec| spec.disks.as_slice()).unwrap_or_default()
    }

    fn image(&self, name: &str) -> Image {
        let digest = Digest::new([name.as_bytes()[0]; 32]);
        if self.images.contains(name) {
            return Image::Held(HeldImage { digest, format: Format::Qcow2, virtual_bytes: 1 << 29 });
        }
        self.lacks(name).map_or(Image::Fetchable(digest), Image::Unavailable)
    }

    fn network(&self, name: &str) -> Network {
        let record = serde_json::json!({"uid": Uuid::from_u128(9), "name": format!("shop/{name}"), "kind": self.network_kind});
        self.lacks(name)
            .map_or_else(|| Network::Known(serde_json::from_value(record).unwrap()), Network::Unavailable)
    }

    fn inputs(&self) -> Inputs {
        self.lacks("secret")
            .map_or(Inputs::Ready { ssh_keys: vec![], secrets: SeedStatus::default() }, Inputs::Unavailable)
    }

    pub(super) fn moment(&self) -> Moment {
        let since = |at: Option<u64>| at.map(|at| Duration::from_secs(self.clock - at));
        Moment {
            now: i64::try_from(self.clock).unwrap(),
            stopping_for: since(self.stop_begun),
            asked_ago: since(self.asked),
            resumed_ago: since(self.resumed),
        }
    }

    /// One look; carries out at most `limit` steps, as if the daemon died after them.
    pub(in crate::vm) fn look(&mut self, limit: usize) -> Option<Plan> {
        self.clock += LOOK;
        let plan = plan(&self.goal()?, &self.observed(), &self.moment());
        if let Plan::Do(steps) = &plan {
            assert!(!steps.is_empty(), "a plan to do nothing");
            assert!(self.domain != Domain::Foreign, "{steps:?} would touch a foreign domain");
            for step in steps.iter().take(limit) {
                self.apply(step);
            }
        }
        Some(plan)
    }

    /// Looks until the plan is to do nothing; panics when that never comes.
    pub(in crate::vm) fn settle(&mut self) -> Option<Plan> {
        for _ in 0..200 {
            match self.look(usize::MAX) {
                Some(Plan::Do(_) | Plan::Wait { .. }) => {}
                settled => return settled,
            }
        }
        panic!("never settles: {:?} {:?}", self.spec, self.domain);
    }

    fn apply(&mut self, step: &Step) {
        self.done.push(step.clone());
        match step {
            Step::FetchImage { image } => {
                assert!(self.lacks(image).is_none(), "an image comes from nowhere");
                self.images.insert(image.clone());
            }
            Step::MakeFolder => self.folder = Folder::Present,
            Step::CreateOverlay { disk, image, bytes } => {
                let held = |name: &String| Digest::new([name.as_bytes()[0]; 32]) == *image;
                assert!(self.images.iter().any(held), "an overlay over nothing");
                self.create(disk, *bytes);
            }
            Step::CreateBlank { disk, bytes } => self.create(disk, *bytes),
            Step::Grow { disk, bytes, .. } => {
                assert!(!self.running(), "a disk of a running guest grows");
                let old = self.disks.insert(disk.clone(), *bytes).expect("it exists");
                assert!(old < *bytes, "it grows");
            }
            Step::WriteSeed(_) => {
                assert!(!self.running(), "the seed changes under a running guest");
                assert!(self.lacks("secret").is_none(), "a seed is made from nothing");
                self.seed = true;
            }
            Step::EnsureNetwork { network, .. } => {
                let name = network.name.rsplit('/').next().unwrap_or_default();
                self.networks.insert(name.to_owned());
            }
            Step::Define(record) => {
                let state = match self.domain {
                    Domain::Ours { state, .. } => state,
                    _ => State::Off(Ended::Unknown),
                };
                self.domain = Domain::Ours { state, record: record.clone() };
            }
            Step::Guard => self.guarded = self.domain.record().cloned(),
            Step::Remember(record) => self.ours(|_, old| *old = record.clone()),
            Step::Start { paused } => self.start(*paused),
            Step::RequestShutdown => self.request(),
            Step::Destroy => {
                self.forced += 1;
                self.ours(|state, _| *state = State::Off(Ended::Failed));
            }
            Step::Suspend => self.ours(|state, _| *state = State::Paused(PausedBy::Request)),
            Step::Resume => {
                self.runs += u32::from(std::mem::take(&mut self.fresh));
                self.resumed = Some(self.clock);
                self.ours(|state, _| *state = State::Running);
            }
            Step::Undefine => {
                assert!(!self.running(), "a running guest is undefined");
                self.domain = Domain::Absent;
            }
            Step::RemoveFiles => {
                assert!(!self.running(), "files of a running guest are removed");
                self.disks.clear();
                (self.folder, self.seed) = (Folder::Absent, false);
            }
        }
    }

    fn create(&mut self, disk: &str, bytes: u64) {
        assert_eq!(self.folder, Folder::Present);
        assert!(self.disks.insert(disk.to_owned(), bytes).is_none(), "a disk is made twice");
    }

    fn start(&mut self, paused: bool) {
        assert!(!self.running(), "a guest is started twice");
        assert!(self.proved, "a guest is started where none can run");
        assert_eq!(
            self.guarded.as_ref(),
            self.domain.record(),
            "a guest is started before it is kept in its bounds"
        );
        let defined = Desired::applied(UID, self.domain.record().unwrap()).unwrap();
        let disks = defined.disks().iter().all(|disk| self.disks.contains_key(&disk.name));
        let networks = defined.interfaces().iter().all(|one| self.networks.contains(&one.network));
        assert!(self.seed && disks && networks, "started before all is there");
        self.starts += 1;
        self.runs += u32::from(!paused);
        self.fresh = paused;
        (self.stop_begun, self.asked) = (None, None);
        self.ours(|state, _| *state = if paused { State::Paused(PausedBy::Request) } else { State::Running });
    }

    fn request(&mut self) {
        self.stop_begun.get_or_insert(self.clock);
        self.asked = Some(self.clock);
        if self.guest == Guest::Obeys {
            self.end(Ended::PoweredOff);
        }
    }

    fn ours(&mut self, change: impl FnOnce(&mut State, &mut Box<super::super::record::Record>)) {
        match &mut self.domain {
            Domain::Ours { state, record } => change(state, record),
            other => panic!("a step for a domain that is {other:?}"),
        }
    }
}
