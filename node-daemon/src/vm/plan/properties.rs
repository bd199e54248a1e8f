//! Properties of the planner over random histories, with a crash between any two steps.

use holdfast_api::virtual_machine::RunStrategy;
use proptest::prelude::*;

use super::super::observed::{Domain, Ended, Folder, State};
use super::super::record::Run;
use super::Plan;
use super::model::{Guest, World, spec};

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
}

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
    }
}

pub(super) fn history() -> impl Strategy<Value = Vec<Happening>> {
    prop::collection::vec(happening(), 0..60)
}

/// How many histories: 500, or as many as `PROPTEST_CASES` says, which proptest itself heeds only where no number is set.
pub(super) fn histories() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(500)
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
        world.known = true;
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
    }

    /// Whatever happened before, a deleted virtual machine leaves nothing, and no object that vanished does that.
    #[test]
    fn deletion_leaves_nothing_and_only_deletion_does(history in history()) {
        let mut world = World::new(spec());
        world.settle();
        for one in &history {
            happen(&mut world, one);
            prop_assert_eq!(world.folder, Folder::Present);
            prop_assert!(world.domain != Domain::Absent);
        }
        (world.known, world.deleted) = (true, true);
        prop_assert_eq!(world.settle(), Some(Plan::Converged));
        prop_assert_eq!((&world.domain, world.folder), (&Domain::Absent, Folder::Absent));
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
