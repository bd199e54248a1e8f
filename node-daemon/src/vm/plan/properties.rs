//! Properties of the planner over random histories, with a crash between any two steps.

use std::collections::BTreeSet;

use holdfast_api::virtual_machine::RunStrategy;
use proptest::prelude::*;

use super::super::observed::{Domain, Ended, Folder, State};
use super::super::record::Run;
use super::Plan;
use super::model::{Guest, World, extra_disk, spec, wan};

/// Something that happens.
#[derive(Clone, Debug)]
pub(super) enum Happening {
    Look,
    /// The daemon dies after this many steps of its plan.
    CrashAfter(usize),
    GuestPowersOff,
    GuestFails,
    HostReboots,
    GuestTurns(Guest),
    Strategy(RunStrategy),
    Paused(bool),
    Cpu(i32),
    Restart(u8),
    Reseed(u8),
    GrowData(u8),
    ObjectVanishes,
    ObjectReturns,
    ImageIsLost,
    DiskFills,
    Wan(bool),
    ExtraDisk(bool),
    /// Somebody has removed what has this name, or not made it yet.
    Lacks(&'static str),
    Makes(&'static str),
    Proved(bool),
    Delete,
}

/// All that an edit may name before it is there.
const NAMED: [&str; 4] = ["tiny", "late", "uplink", "secret"];

pub(super) fn strategy() -> impl Strategy<Value = RunStrategy> {
    use RunStrategy::{Always, Halted, Once, RerunOnFailure};
    prop::sample::select(vec![Always, RerunOnFailure, Once, Halted])
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => Just(Happening::Look),
        4 => (0..9_usize).prop_map(Happening::CrashAfter),
        1 => Just(Happening::GuestPowersOff),
        1 => Just(Happening::GuestFails),
        1 => Just(Happening::HostReboots),
        1 => prop::sample::select(vec![Guest::Obeys, Guest::Deaf]).prop_map(Happening::GuestTurns),
        1 => strategy().prop_map(Happening::Strategy),
        1 => any::<bool>().prop_map(Happening::Paused),
        1 => (1..5).prop_map(Happening::Cpu),
        1 => (0..4_u8).prop_map(Happening::Restart),
        1 => (0..4_u8).prop_map(Happening::Reseed),
        1 => (1..5_u8).prop_map(Happening::GrowData),
        1 => Just(Happening::ObjectVanishes),
        1 => Just(Happening::ObjectReturns),
        1 => Just(Happening::ImageIsLost),
        1 => Just(Happening::DiskFills),
        1 => any::<bool>().prop_map(Happening::Wan),
        1 => any::<bool>().prop_map(Happening::ExtraDisk),
        1 => prop::sample::select(NAMED.to_vec()).prop_map(Happening::Lacks),
        1 => prop::sample::select(NAMED.to_vec()).prop_map(Happening::Makes),
        1 => any::<bool>().prop_map(Happening::Proved),
    ]
}

pub(super) fn happen(world: &mut World, happening: &Happening) {
    match happening {
        Happening::Look => drop(world.look(usize::MAX)),
        Happening::CrashAfter(steps) => {
            world.look(*steps);
            world.crash();
        }
        Happening::GuestPowersOff => world.end(Ended::PoweredOff),
        Happening::GuestFails => world.end(Ended::Failed),
        Happening::HostReboots => world.reboot(),
        Happening::GuestTurns(guest) => world.guest = *guest,
        Happening::Strategy(strategy) => world.edit(|spec| spec.run_strategy = *strategy),
        Happening::Paused(paused) => world.edit(|spec| spec.paused = *paused),
        Happening::Cpu(cpu) => world.edit(|spec| spec.cpu = *cpu),
        Happening::Restart(n) => world.edit(|spec| spec.restart_request = format!("r{n}")),
        Happening::Reseed(n) => world.edit(|spec| spec.cloud_init.reseed = format!("s{n}")),
        Happening::GrowData(n) => world.edit(|spec| {
            let old = spec.disks[1].size.bytes().unwrap() >> 30;
            spec.disks[1].size = holdfast_api::Quantity(format!("{}Gi", old + u64::from(*n)));
        }),
        Happening::ObjectVanishes => world.known = false,
        Happening::ObjectReturns => world.known = true,
        Happening::ImageIsLost => world.images.clear(),
        Happening::DiskFills => world.fill_disk(),
        Happening::Wan(there) => world.edit(|spec| {
            spec.interfaces.truncate(1);
            spec.interfaces.extend(there.then(wan));
        }),
        Happening::ExtraDisk(there) => world.edit(|spec| {
            spec.disks.truncate(2);
            spec.disks.extend(there.then(extra_disk));
        }),
        Happening::Lacks(name) => drop(world.missing.insert((*name).to_owned())),
        Happening::Makes(name) => drop(world.missing.remove(*name)),
        Happening::Proved(proved) => world.proved = *proved,
        Happening::Delete => world.deleted = true,
    }
}

pub(super) fn history() -> impl Strategy<Value = Vec<Happening>> {
    prop::collection::vec(happening(), 0..60)
}

/// How many histories: 500, or as many as `PROPTEST_CASES` says, which proptest itself heeds only where no number is set.
pub(super) fn histories() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(500)
}

/// What decides how often a guest runs, and little else, so that its rare meetings are met.
fn eventful() -> impl Strategy<Value = Vec<Happening>> {
    let one = prop_oneof![
        2 => Just(Happening::Look),
        4 => (0..9_usize).prop_map(Happening::CrashAfter),
        3 => Just(Happening::GuestPowersOff),
        1 => Just(Happening::GuestFails),
        3 => (0..9_u8).prop_map(Happening::Restart),
        1 => any::<bool>().prop_map(Happening::Wan),
        1 => Just(Happening::Lacks("uplink")),
        1 => Just(Happening::Makes("uplink")),
    ];
    prop::collection::vec(one, 0..60)
}

/// A history that a person ends by deleting the object, and what happens meanwhile.
pub(super) fn deletion() -> impl Strategy<Value = Vec<Happening>> {
    (history(), history()).prop_map(|(before, after)| [before, vec![Happening::Delete], after].concat())
}

/// The most runs that a history may come to: the first, one for each restart asked for, one for each end after which
/// the strategy wants another. Under `Once` a power cut in the moment between a start and its record may repeat it.
fn most_runs(strategy: RunStrategy, history: &[Happening]) -> usize {
    use RunStrategy::{Always, Halted, RerunOnFailure};
    let requests = history.iter().filter_map(|one| match one {
        Happening::Restart(n) => Some(*n),
        _ => None,
    });
    let again = |one: &&Happening| match one {
        Happening::GuestPowersOff => strategy == Always,
        Happening::GuestFails => matches!(strategy, Always | RerunOnFailure),
        Happening::HostReboots => true,
        _ => false,
    };
    let first = usize::from(strategy != Halted);
    first + requests.collect::<BTreeSet<_>>().len() + history.iter().filter(again).count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(histories()))]

    /// The model panics on every forbidden step; here the goal must be reached, and stay reached.
    #[test]
    fn every_history_ends_at_the_goal_and_stays_there(first in strategy(), history in history()) {
        let mut world = World::new(spec());
        world.spec.run_strategy = first;
        for one in &history {
            happen(&mut world, one);
        }
        world.mend();
        prop_assert_eq!(world.settle(), Some(Plan::Converged));
        prop_assert_eq!(world.look(usize::MAX), Some(Plan::Converged));
        let record = world.domain.record();
        let done = record.is_some_and(|record| record.run == Run::Done);
        match world.spec.run_strategy {
            RunStrategy::Always => prop_assert!(world.running()),
            RunStrategy::RerunOnFailure | RunStrategy::Once => prop_assert!(world.running() != done),
            RunStrategy::Halted => prop_assert!(!world.running()),
        }
        if let Domain::Ours { state: State::Running, .. } = world.domain {
            prop_assert!(!world.spec.paused);
        }
        // A start takes every edit along, and all requests were served.
        if let Some(record) = record.filter(|_| world.running()) {
            prop_assert!(!record.wants_restart(&world.spec.restart_request));
        }
    }

    /// No guest runs more often than its strategy and the people say, whenever the daemon dies.
    #[test]
    fn no_history_runs_a_guest_more_often_than_asked(
        strategy in strategy(),
        history in prop_oneof![eventful(), history()],
    ) {
        let mut world = World::new(spec());
        world.spec.run_strategy = strategy;
        for one in history.iter().filter(|one| !matches!(one, Happening::Strategy(_))) {
            happen(&mut world, one);
        }
        world.mend();
        world.settle();
        prop_assert!(world.runs as usize <= most_runs(strategy, &history), "{} runs", world.runs);
    }

    /// Whatever an edit lacks, a guest that runs comes back after any end: with no API, too.
    #[test]
    fn a_guest_that_ran_comes_back_whatever_an_edit_lacks(history in history(), lacking in history()) {
        let mut world = World::new(spec());
        for one in &history {
            happen(&mut world, one);
        }
        world.mend();
        world.edit(|spec| spec.run_strategy = RunStrategy::Always);
        world.settle();
        for one in lacking.iter().filter(|one| !matches!(one, Happening::Strategy(_))) {
            happen(&mut world, one);
        }
        world.images.extend(["tiny", "late"].map(str::to_owned));
        world.missing.extend(["uplink", "secret"].map(str::to_owned));
        world.proved = true;
        world.reboot();
        world.settle();
        prop_assert!(world.running());
        world.known = false;
        world.end(Ended::Failed);
        world.settle();
        prop_assert!(world.running());
    }

    /// Whatever happened before and meanwhile, a deleted virtual machine leaves nothing, and no object that vanished
    /// does that.
    #[test]
    fn deletion_leaves_nothing_and_only_deletion_does(history in deletion()) {
        let mut world = World::new(spec());
        world.settle();
        for one in &history {
            happen(&mut world, one);
            prop_assert!(world.deleted || (world.folder == Folder::Present && world.domain != Domain::Absent));
        }
        world.mend();
        prop_assert_eq!(world.settle(), Some(Plan::Converged));
        prop_assert_eq!((&world.domain, world.folder), (&Domain::Absent, Folder::Absent));
        prop_assert_eq!(world.look(usize::MAX), Some(Plan::Converged));
    }

    /// A foreign domain of the same UUID stops everything; the model panics if a step comes.
    #[test]
    fn a_foreign_domain_is_never_touched(first in strategy(), deleted: bool) {
        let mut world = World::new(spec());
        world.spec.run_strategy = first;
        world.domain = Domain::Foreign;
        world.deleted = deleted;
        prop_assert!(matches!(world.look(usize::MAX), Some(Plan::Blocked(_))));
    }

    /// A daemon that dies again and again neither stops nor restarts a guest that is as it shall be.
    #[test]
    fn a_healthy_guest_is_left_alone_by_crashes_of_the_daemon(crashes in prop::collection::vec(0..9_usize, 0..30)) {
        let mut world = World::new(spec());
        world.settle();
        let starts = world.starts;
        for steps in crashes {
            happen(&mut world, &Happening::CrashAfter(steps));
            prop_assert!(world.running());
        }
        prop_assert_eq!((world.starts, world.forced), (starts, 0));
    }
}
