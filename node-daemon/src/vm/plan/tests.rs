//! What the planner does, told one rule at a time.

use holdfast_api::virtual_machine::{RunStrategy, VirtualMachineSpec};

use super::super::observed::{Domain, Ended, State};
use super::super::record::Run;
use super::model::{Guest, World, extra_disk, spec, wan};
use super::{On, Plan, Step};

fn started(strategy: RunStrategy) -> World {
    let mut world = World::new(spec());
    world.spec.run_strategy = strategy;
    world.settle();
    world
}

fn run(world: &World) -> Run {
    world.domain.record().unwrap().run
}

fn names(plan: Option<Plan>) -> Vec<&'static str> {
    match plan {
        Some(Plan::Do(steps)) => steps.iter().map(Step::name).collect(),
        other => panic!("{other:?} is no work"),
    }
}

#[test]
fn a_first_start_fetches_then_makes_everything_in_one_go() {
    let mut world = World::new(spec());
    assert_eq!(names(world.look(9)), ["fetch-image"]);
    let made = ["make-folder", "create-overlay", "create-blank", "write-seed", "ensure-network"];
    assert_eq!(names(world.look(9)), [&made[..], &["define", "guard", "start"]].concat());
    assert_eq!(names(world.look(9)), ["remember"]);
    assert_eq!(world.look(9), Some(Plan::Converged));
}

#[test]
fn always_restarts_whatever_ended_it() {
    for ended in [Ended::PoweredOff, Ended::Failed, Ended::Unknown] {
        let mut world = started(RunStrategy::Always);
        world.end(ended);
        world.settle();
        assert!(world.running(), "{ended:?}");
        assert_eq!(world.starts, 2);
    }
}

#[test]
fn rerun_on_failure_restarts_after_a_failure_and_a_power_cut_but_not_after_a_power_off() {
    for (ended, runs) in [(Ended::PoweredOff, false), (Ended::Failed, true), (Ended::Unknown, true)] {
        let mut world = started(RunStrategy::RerunOnFailure);
        world.end(ended);
        world.settle();
        assert_eq!(world.running(), runs, "{ended:?}");
    }
}

#[test]
fn once_is_started_once() {
    for ended in [Ended::PoweredOff, Ended::Failed, Ended::Unknown] {
        let mut world = started(RunStrategy::Once);
        world.end(ended);
        world.settle();
        assert_eq!((world.starts, run(&world)), (1, Run::Done), "{ended:?}");
    }
}

#[test]
fn a_guest_that_ended_for_good_starts_again_when_the_strategy_becomes_always() {
    let mut world = started(RunStrategy::Once);
    world.end(Ended::PoweredOff);
    world.settle();
    world.edit(|spec| spec.run_strategy = RunStrategy::Always);
    world.settle();
    assert!(world.running());
}

#[test]
fn only_what_the_guest_did_itself_is_counted() {
    let mut world = started(RunStrategy::Always);
    world.end(Ended::Unknown);
    world.settle();
    assert_eq!(world.domain.record().unwrap().restarts, 0);
    world.end(Ended::Failed);
    world.settle();
    assert_eq!(world.domain.record().unwrap().restarts, 1);
}

#[test]
fn a_guest_that_keeps_failing_waits_longer_each_time() {
    let mut world = started(RunStrategy::Always);
    let mut waits = Vec::new();
    for _ in 0..7 {
        world.end(Ended::Failed);
        let mut looks = 0;
        while !world.running() {
            looks += usize::from(matches!(world.look(9), Some(Plan::Wait { on: On::BackOff, .. })));
        }
        world.settle();
        waits.push(looks);
    }
    assert_eq!(waits[0], 0, "the first restart comes at once");
    assert!(waits.is_sorted() && waits[6] > waits[2], "{waits:?}");
}

#[test]
fn a_deaf_guest_is_stopped_by_force_after_its_grace_period() {
    let mut world = started(RunStrategy::Always);
    world.guest = Guest::Deaf;
    world.edit(|spec| spec.run_strategy = RunStrategy::Halted);
    world.settle();
    assert_eq!((world.running(), world.forced, run(&world)), (false, 1, Run::Stopped));
}

#[test]
fn an_obedient_guest_is_never_stopped_by_force() {
    let mut world = started(RunStrategy::Always);
    world.edit(|spec| spec.run_strategy = RunStrategy::Halted);
    world.settle();
    assert_eq!((world.running(), world.forced), (false, 0));
}

#[test]
fn a_restart_request_restarts_once_and_an_old_one_never() {
    let mut world = started(RunStrategy::Once);
    for (request, starts) in [("a", 2), ("a", 2), ("b", 3), ("a", 3), ("", 3), ("b", 3)] {
        world.edit(|spec| spec.restart_request = request.into());
        world.settle();
        assert_eq!((world.starts, world.running()), (starts, true), "{request:?}");
    }
}

#[test]
fn a_restart_request_at_creation_does_nothing() {
    let mut world = World::new(spec());
    world.spec.restart_request = "now".into();
    world.settle();
    assert_eq!(world.starts, 1);
}

#[test]
fn a_frozen_guest_is_thawed_before_it_is_asked_to_power_off() {
    let mut world = started(RunStrategy::Always);
    world.edit(|spec| spec.paused = true);
    world.settle();
    world.edit(|spec| spec.run_strategy = RunStrategy::Halted);
    assert_eq!(names(world.look(9)), ["remember"]);
    assert_eq!(names(world.look(9)), ["resume", "request-shutdown"]);
}

#[test]
fn a_guest_may_start_frozen() {
    let mut world = World::new(spec());
    world.spec.paused = true;
    world.settle();
    assert!(matches!(world.domain, Domain::Ours { state: State::Paused(_), .. }));
}

#[test]
fn the_instance_id_moves_with_a_new_reseed_only() {
    let id = |world: &World| world.domain.record().unwrap().seed.instance_id.clone();
    let mut world = started(RunStrategy::Always);
    let first = id(&world);
    world.edit(|spec| spec.cloud_init.user_data = "#cloud-config\n".into());
    world.end(Ended::PoweredOff);
    world.settle();
    assert_eq!(id(&world), first);
    world.edit(|spec| spec.cloud_init.reseed = "again".into());
    world.settle();
    assert_eq!(id(&world), first, "it waits for the next start");
    world.end(Ended::PoweredOff);
    world.settle();
    assert_ne!(id(&world), first);
}

#[test]
fn a_guest_runs_on_when_its_object_vanishes_and_restarts_without_it() {
    let mut world = started(RunStrategy::Always);
    world.known = false;
    assert_eq!(world.settle(), Some(Plan::Converged));
    world.end(Ended::Failed);
    world.settle();
    assert!(world.running());
}

#[test]
fn an_edit_beyond_the_room_of_the_node_leaves_the_old_size_running() {
    let mut world = started(RunStrategy::Always);
    world.edit(|spec| spec.memory = "8Gi".into());
    let Some(Plan::Blocked(obstacle)) = world.settle() else { panic!("it is refused") };
    assert_eq!((obstacle.reason, world.running()), ("NodeFull", true));
    world.end(Ended::Failed);
    world.settle();
    let applied = world.domain.record().unwrap().applied.clone().unwrap();
    assert_eq!((world.running(), applied.generation, applied.spec.memory.0.as_str()), (true, 1, "256Mi"));
}

#[test]
fn a_first_start_without_room_waits() {
    let mut world = World::new(spec());
    (world.room_mib, world.room_disk) = (128, 2 << 30);
    assert!(matches!(world.settle(), Some(Plan::Blocked(obstacle)) if obstacle.reason == "NodeFull"));
    (world.room_mib, world.room_disk) = (4096, (2 << 30) - 1);
    assert!(matches!(world.settle(), Some(Plan::Blocked(obstacle)) if obstacle.reason == "NodeFull"));
}

#[test]
fn room_for_the_guest_alone_is_not_enough() {
    let mut world = World::new(spec());
    world.room_mib = 256;
    let Some(Plan::Blocked(obstacle)) = world.settle() else { panic!("there is none for the hypervisor") };
    assert!(obstacle.message.starts_with("256Mi of memory and 72Mi beside it"), "{}", obstacle.message);
    world.room_mib = 400;
    world.settle();
    assert!(world.running());
}

#[test]
fn disks_grown_beyond_the_room_of_the_node_leave_the_old_ones_running() {
    let mut world = started(RunStrategy::Always);
    let old = world.disks.clone();
    world.room_disk = 0;
    assert_eq!(world.settle(), Some(Plan::Converged), "what it has was counted when it was placed");
    world.edit(|spec| spec.disks[0].size = "100Gi".into());
    let Some(Plan::Blocked(obstacle)) = world.settle() else { panic!("it is refused") };
    assert_eq!((obstacle.reason, world.running()), ("NodeFull", true));
    world.end(Ended::Failed);
    world.settle();
    assert_eq!((world.running(), &world.disks), (true, &old));
    world.room_disk = u64::MAX;
    world.end(Ended::Failed);
    world.settle();
    assert!(world.running());
    assert_ne!(world.disks, old);
}

#[test]
fn a_guest_that_never_came_up_is_no_completed_run() {
    let mut world = World::new(spec());
    world.spec.run_strategy = RunStrategy::Once;
    world.look(9);
    world.look(usize::MAX);
    world.end(Ended::NeverStarted);
    world.settle();
    assert!(world.running());
}

#[test]
fn a_guest_keeps_its_size_when_the_room_shrinks_under_it() {
    let mut world = started(RunStrategy::Always);
    world.room_mib = 128;
    world.end(Ended::Unknown);
    world.settle();
    assert!(world.running());
}

#[test]
fn a_disk_that_is_gone_is_not_replaced_by_an_empty_one() {
    let mut world = started(RunStrategy::Always);
    world.lose_disk("data");
    world.end(Ended::PoweredOff);
    assert!(matches!(world.settle(), Some(Plan::Blocked(obstacle)) if obstacle.reason == "DiskMissing"));
}

type Edit = fn(&mut VirtualMachineSpec);

/// Edits that need something nobody has made yet, with its name.
fn edits() -> [(&'static str, Edit); 3] {
    [
        ("secret", |spec| spec.cloud_init.reseed = "again".into()),
        ("uplink", |spec| spec.interfaces.push(wan())),
        ("late", |spec| spec.disks.push(extra_disk())),
    ]
}

fn applied(world: &World) -> &VirtualMachineSpec {
    &world.domain.record().unwrap().applied.as_ref().unwrap().spec
}

#[test]
fn a_guest_that_ended_starts_as_it_was_while_an_edit_lacks_something() {
    for (missing, edit) in edits() {
        for ended in [Ended::Failed, Ended::Unknown] {
            let mut world = started(RunStrategy::Always);
            let before = applied(&world).clone();
            world.missing.insert(missing.into());
            world.edit(edit);
            assert_eq!(world.settle(), Some(Plan::Converged), "{missing}");
            world.end(ended);
            assert_eq!(world.settle(), Some(Plan::Converged), "{missing}");
            assert_eq!((world.running(), applied(&world)), (true, &before), "{missing}");
            // With no API, too, and when all is there the next start takes the edit along.
            world.known = false;
            world.reboot();
            world.settle();
            assert!(world.running(), "{missing}");
            world.mend();
            world.end(Ended::PoweredOff);
            world.settle();
            let record = world.domain.record().unwrap();
            assert!(!record.rebuilds(&world.spec) && !record.wants_reseed(&world.spec.cloud_init.reseed));
        }
    }
}

#[test]
fn a_restart_that_lacks_something_waits_and_the_guest_runs_on() {
    for (missing, edit) in edits() {
        let mut world = started(RunStrategy::Always);
        world.missing.insert(missing.into());
        world.edit(edit);
        world.edit(|spec| spec.restart_request = "now".into());
        let Some(Plan::Blocked(obstacle)) = world.settle() else { panic!("{missing} is not there") };
        assert!(obstacle.message.contains("runs on"), "{}", obstacle.message);
        assert_eq!((world.running(), world.starts), (true, 1), "{missing}");
        world.missing.clear();
        world.settle();
        assert_eq!((world.running(), world.starts), (true, 2), "{missing}");
        assert!(!world.domain.record().unwrap().rebuilds(&world.spec), "{missing}");
    }
}

#[test]
fn no_guest_is_stopped_for_a_restart_on_a_host_that_runs_none() {
    let mut world = started(RunStrategy::Always);
    world.proved = false;
    world.edit(|spec| spec.restart_request = "now".into());
    assert!(
        matches!(world.settle(), Some(Plan::Blocked(obstacle)) if obstacle.reason == "AcceleratorUnproved")
    );
    assert_eq!((world.running(), world.starts), (true, 1));
}

#[test]
fn a_restart_fetches_a_new_image_before_it_stops_the_guest() {
    let mut world = started(RunStrategy::Always);
    world.edit(|spec| spec.disks.push(extra_disk()));
    world.settle();
    world.edit(|spec| spec.restart_request = "now".into());
    assert_eq!(names(world.look(9)), ["remember"]);
    assert_eq!(names(world.look(9)), ["fetch-image"]);
    assert!(world.running());
    world.settle();
    assert_eq!((world.starts, applied(&world).disks.len()), (2, 3));
}

#[test]
fn a_guest_that_ended_for_good_waits_for_what_its_restart_lacks() {
    let mut world = started(RunStrategy::Once);
    world.end(Ended::PoweredOff);
    world.settle();
    world.missing.insert("uplink".into());
    world.edit(|spec| spec.interfaces.push(wan()));
    world.edit(|spec| spec.restart_request = "now".into());
    assert!(matches!(world.settle(), Some(Plan::Blocked(_))));
    world.missing.clear();
    world.settle();
    assert_eq!((world.running(), world.starts), (true, 2));
}

#[test]
fn a_start_as_before_keeps_the_disks_and_networks_an_edit_took_away() {
    let mut world = started(RunStrategy::Always);
    world.missing.insert("secret".into());
    world.edit(|spec| {
        spec.cloud_init.reseed = "again".into();
        spec.disks.pop();
        spec.interfaces[0].network.name = "uplink".into();
    });
    world.settle();
    world.end(Ended::Failed);
    world.settle();
    let record = world.domain.record().unwrap();
    assert_eq!((applied(&world).disks.len(), record.networks["lan"].name.as_str()), (2, "shop/default"));
}

#[test]
fn what_keeps_a_waiting_edit_from_the_next_start_is_told() {
    let told = |world: &World| {
        let observed = world.observed();
        super::hindrance(&world.goal().unwrap(), &observed).map(|obstacle| obstacle.message)
    };
    let mut world = started(RunStrategy::Always);
    world.missing.insert("uplink".into());
    assert_eq!(told(&world), None);
    world.edit(|spec| spec.interfaces.push(wan()));
    assert!(told(&world).unwrap().contains("uplink"));
    world.missing.clear();
    assert_eq!(told(&world), None);
}

/// A guest under `Once` whose restart was asked for and carried out, up to the moment it runs again.
fn rerun() -> World {
    let mut world = started(RunStrategy::Once);
    world.end(Ended::PoweredOff);
    world.settle();
    world.edit(|spec| spec.restart_request = "now".into());
    while world.runs < 2 {
        world.look(usize::MAX);
    }
    world
}

#[test]
fn a_second_run_that_ends_like_the_first_while_the_daemon_is_dead_is_not_repeated() {
    let mut world = rerun();
    world.crash();
    world.end(Ended::PoweredOff);
    world.settle();
    assert_eq!((world.runs, run(&world)), (2, Run::Done));
}

#[test]
fn a_restart_is_not_lost_when_the_daemon_dies_between_definition_and_start() {
    let mut world = started(RunStrategy::Once);
    world.end(Ended::PoweredOff);
    world.settle();
    world.edit(|spec| spec.restart_request = "now".into());
    let steps = names(world.look(0));
    world.look(steps.len() - 1);
    assert_eq!((steps.last(), run(&world), world.running()), (Some(&"start"), Run::Ready, false));
    world.crash();
    world.settle();
    assert_eq!((world.runs, world.running()), (2, true));
}

#[test]
fn a_guest_that_dies_as_soon_as_it_is_started_is_backed_off() {
    let mut world = started(RunStrategy::Always);
    world.end(Ended::Failed);
    let (before, mut looks) = (world.starts, 0);
    while world.starts < before + 6 {
        looks += 1;
        world.look(usize::MAX);
        world.end(Ended::Failed);
    }
    let failures = world.domain.record().unwrap().failures;
    assert!(failures.count >= 5 && looks > 60, "{failures:?} after {looks} looks");
}

#[test]
fn a_restarted_guest_is_let_run_once_its_start_is_written_down() {
    let mut world = started(RunStrategy::Always);
    world.end(Ended::Failed);
    while !world.running() {
        world.look(usize::MAX);
    }
    assert_eq!(names(world.look(9)), ["remember", "resume"]);
    assert_eq!(world.look(9), Some(Plan::Converged));
}

#[test]
fn a_request_stops_its_guest_once_also_when_what_it_needs_or_the_api_vanishes_meanwhile() {
    for answers in [true, false] {
        let mut world = started(RunStrategy::Always);
        world.edit(|spec| spec.interfaces.push(wan()));
        world.edit(|spec| spec.restart_request = "now".into());
        while world.running() {
            world.look(usize::MAX);
            world.known = answers;
        }
        world.missing.insert("uplink".into());
        world.settle();
        assert_eq!((world.running(), world.starts), (true, 2));
        world.mend();
        assert_eq!(world.settle(), Some(Plan::Converged));
        assert_eq!(world.starts, 2, "the edit waits for a request of its own");
    }
}

#[test]
fn a_removed_disk_comes_back_from_the_image_it_was_made_from_and_from_no_other() {
    use holdfast_api::virtual_machine::{Blank, Disk};
    let with = |disk: Option<Disk>, world: &mut World| {
        world.edit(|spec| {
            spec.disks.truncate(2);
            spec.disks.extend(disk);
        });
        world.spec.restart_request = format!("r{}", world.generation);
        world.settle()
    };
    let mut world = started(RunStrategy::Always);
    assert_eq!(with(Some(extra_disk()), &mut world), Some(Plan::Converged));
    assert_eq!(with(None, &mut world), Some(Plan::Converged));
    let starts = world.starts;
    let other = Some(holdfast_api::reference::ObjectRef { name: "other".into() });
    for wrong in
        [Disk { image: other, ..extra_disk() }, Disk { image: None, blank: Some(Blank {}), ..extra_disk() }]
    {
        let Some(Plan::Blocked(obstacle)) = with(Some(wrong), &mut world) else { panic!("it is refused") };
        assert_eq!((obstacle.reason, world.starts), ("DiskNameTaken", starts));
        assert!(obstacle.message.contains("another name"), "{}", obstacle.message);
    }
    assert_eq!(with(Some(extra_disk()), &mut world), Some(Plan::Converged));
    assert_eq!(applied(&world).disks.len(), 3);
}
