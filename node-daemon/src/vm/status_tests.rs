use holdfast_api::virtual_machine::AddressSource;
use k8s_openapi::jiff::Timestamp;

use super::super::observed::Ended;
use super::super::plan::model::World;
use super::*;
use crate::image::Digest;

static NO_PINS: Pins = Pins::new();

fn world(strategy: RunStrategy) -> World {
    let mut spec = super::super::plan::model::spec();
    spec.run_strategy = strategy;
    World::new(spec)
}

fn report<'a>(world: &'a World, goal: Option<&'a Goal>, plan: &'a Plan) -> Report<'a> {
    Report {
        uid: Uuid::from_u128(1),
        generation: world.generation,
        goal,
        refused: None,
        domain: &world.domain,
        outcome: Outcome::Plan(plan),
        addresses: Vec::new(),
        pins: &NO_PINS,
        progress: None,
        inputs: pending::Inputs::default(),
        hindrance: None,
        before: &[],
        now: Time(Timestamp::UNIX_EPOCH),
    }
}

fn told(world: &World, plan: &Plan, addresses: Vec<Address>) -> VirtualMachineStatus {
    let goal = world.goal();
    status(&Report { addresses, ..report(world, goal.as_ref(), plan) })
}

#[test]
fn an_image_that_waits_for_its_turn_says_so() {
    let wait = Plan::Wait { on: On::Image, until: std::time::Duration::ZERO };
    let status = told(&world(RunStrategy::Always), &wait, Vec::new());
    assert_eq!(is(&status, c::READY), pair("False", "DownloadQueued"));
    assert_eq!(is(&status, c::RECONCILING), pair("True", "DownloadQueued"));
}

#[test]
fn a_machine_whose_disk_was_never_made_names_the_digest_that_its_image_has_now() {
    let (mut world, now) = (world(RunStrategy::Always), Digest::new([9; 32]));
    let pins = Pins::from([("root".to_owned(), now)]);
    let digest = |world: &World| {
        let goal = world.goal();
        let report = Report { pins: &pins, ..report(world, goal.as_ref(), &Plan::Converged) };
        status(&report).disks[0].image_digest.clone()
    };
    assert_eq!(digest(&world), now.to_string());
    world.settle();
    let made = world.domain.record().unwrap().images["root"].digest;
    assert_ne!(made, now);
    assert_eq!(digest(&world), made.to_string(), "what the disk stands on");
}

fn is(status: &VirtualMachineStatus, type_: &str) -> (String, String) {
    let found = c::find(&status.conditions, type_).unwrap();
    (found.status.clone(), found.reason.clone())
}

fn pair(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

#[test]
fn a_running_guest_is_ready_before_its_address_is_known() {
    let mut world = world(RunStrategy::Always);
    world.settle();
    let status = told(&world, &Plan::Converged, Vec::new());
    assert_eq!(status.printable_status, Some(PrintableStatus::Running));
    assert_eq!(is(&status, c::READY), pair("True", "Running"));
    assert_eq!(is(&status, c::ADDRESS_KNOWN), pair("False", "NotSeenYet"));
    let address = Address { interface: "lan".into(), ip: "10.0.0.2".into(), source: AddressSource::Lease };
    assert_eq!(is(&told(&world, &Plan::Converged, vec![address]), c::ADDRESS_KNOWN), pair("True", "Seen"));
}

#[test]
fn a_halted_machine_is_ready() {
    let mut world = world(RunStrategy::Halted);
    world.settle();
    let status = told(&world, &Plan::Converged, Vec::new());
    assert_eq!(status.printable_status, Some(PrintableStatus::Stopped));
    assert_eq!(is(&status, c::READY), pair("True", "Halted"));
    assert_eq!(is(&status, c::RUNNING), pair("False", "Off"));
}

#[test]
fn a_change_that_waits_is_listed_and_leaves_it_ready() {
    let mut world = world(RunStrategy::Always);
    world.settle();
    world.edit(|spec| spec.cpu = 4);
    world.settle();
    let status = told(&world, &Plan::Converged, Vec::new());
    assert_eq!(
        status.pending_changes.iter().map(|change| change.field.as_str()).collect::<Vec<_>>(),
        ["spec.cpu"]
    );
    assert_eq!(is(&status, c::READY).0, "True");
    assert_eq!(is(&status, c::RESTART_REQUIRED), pair("True", "ChangesPending"));
    assert_eq!((status.applied_generation, status.observed_generation), (Some(1), Some(2)));
}

#[test]
fn a_change_that_waits_says_what_it_lacks() {
    let mut world = world(RunStrategy::Always);
    world.settle();
    world.edit(|spec| spec.cpu = 4);
    let (goal, lacks) = (world.goal(), Obstacle::later("NetworkNotFound", "there is no uplink: create it"));
    let report = Report { hindrance: Some(&lacks), ..report(&world, goal.as_ref(), &Plan::Converged) };
    let status = status(&report);
    let found = c::find(&status.conditions, c::RESTART_REQUIRED).unwrap();
    assert!(
        found.message.starts_with("spec.cpu") && found.message.ends_with("create it"),
        "{}",
        found.message
    );
}

#[test]
fn what_only_an_edit_removes_is_stalled_and_what_passes_is_not() {
    let world = world(RunStrategy::Always);
    let stalled = told(&world, &Plan::Blocked(Obstacle::stalled("DigestMismatch", "…")), Vec::new());
    assert_eq!(
        (is(&stalled, c::STALLED).0, is(&stalled, c::READY).0),
        ("True".to_owned(), "False".to_owned())
    );
    assert_eq!(stalled.printable_status, Some(PrintableStatus::Error));
    let waiting = told(&world, &Plan::Blocked(Obstacle::later("SecretNotFound", "…")), Vec::new());
    assert_eq!(
        (is(&waiting, c::STALLED).0, is(&waiting, c::READY)),
        ("False".to_owned(), pair("False", "SecretNotFound"))
    );
    assert_eq!(waiting.printable_status, Some(PrintableStatus::Pending));
}

#[test]
fn a_refused_spec_says_so_while_the_last_good_one_runs_on() {
    let mut world = world(RunStrategy::Always);
    world.settle();
    let goal = world.goal();
    let refused = Obstacle::stalled("InvalidSpec", "spec.cpu must be between 1 and 255 virtual processors");
    let report = report(&world, goal.as_ref(), &Plan::Converged);
    let status = status(&Report { generation: 2, refused: Some(&refused), ..report });
    assert_eq!(
        (is(&status, c::READY), is(&status, c::RUNNING).0),
        (pair("False", "InvalidSpec"), "True".to_owned())
    );
    assert_eq!((status.observed_generation, status.applied_generation), (Some(2), Some(1)));
}

#[test]
fn a_guest_that_ended_for_good_is_ready_and_says_why() {
    let mut world = world(RunStrategy::RerunOnFailure);
    world.settle();
    world.end(Ended::PoweredOff);
    world.settle();
    assert_eq!(is(&told(&world, &Plan::Converged, Vec::new()), c::READY), pair("True", "Completed"));
}

#[test]
fn removal_is_reported_once_nothing_is_left() {
    let mut world = world(RunStrategy::Always);
    world.settle();
    world.deleted = true;
    assert_eq!(
        told(&world, &Plan::Converged, Vec::new()).printable_status,
        Some(PrintableStatus::Terminating)
    );
    world.settle();
    assert_eq!(is(&told(&world, &Plan::Converged, Vec::new()), c::REMOVED), pair("True", "Removed"));
}

/// The controller writes both before the node does; the API server refuses to take over half of a condition list.
#[test]
fn ready_and_running_are_always_reported() {
    let mut world = world(RunStrategy::Always);
    for plan in [Plan::Converged, Plan::Blocked(Obstacle::later("SecretNotFound", "…")), Plan::Do(Vec::new())]
    {
        for _ in 0..4 {
            let status = told(&world, &plan, Vec::new());
            assert!(
                c::find(&status.conditions, c::READY).is_some()
                    && c::find(&status.conditions, c::RUNNING).is_some()
            );
            world.look(1);
        }
    }
}
