use holdfast_api::condition::{Finding, READY, RUNNING, SCHEDULED, conditions};
use holdfast_api::virtual_machine::VirtualMachineSpec;

use super::*;

fn at(second: i64) -> Time {
    Time(k8s_openapi::jiff::Timestamp::from_second(second).unwrap())
}

fn status(types: &[&'static str], second: i64) -> VirtualMachineStatus {
    let findings: Vec<_> = types.iter().map(|type_| Finding::new(type_, true, "Because", "")).collect();
    VirtualMachineStatus {
        conditions: conditions(&[], &findings, Some(1), &at(second)),
        ..Default::default()
    }
}

fn vm(status: VirtualMachineStatus, resource_version: &str) -> VirtualMachine {
    let mut vm = VirtualMachine::new("web", VirtualMachineSpec::default());
    vm.metadata.uid = Some("uid-1".to_owned());
    vm.metadata.resource_version = Some(resource_version.to_owned());
    vm.status = Some(status);
    vm
}

fn record(status: VirtualMachineStatus, resource_version: &str) -> Record {
    Record { status, resource_version: Some(resource_version.to_owned()) }
}

#[test]
fn a_status_that_differs_only_in_times_and_order_is_not_written() {
    let observed = vm(status(&[READY, RUNNING], 1), "5");
    assert_eq!(decide(None, &observed, &status(&[RUNNING, READY], 2)), Decision::Nothing);
}

#[test]
fn the_controllers_fields_are_neither_compared_nor_written() {
    let mut observed = status(&[READY, SCHEDULED], 1);
    observed.node_name = "edge-1".to_owned();
    assert_eq!(decide(None, &vm(observed.clone(), "5"), &status(&[READY], 1)), Decision::Nothing);
    assert_eq!(node_half(&observed), status(&[READY], 1));
}

#[test]
fn what_we_wrote_last_is_applied_over() {
    let written = record(status(&[READY], 1), "5");
    let observed = vm(status(&[READY], 1), "6");
    assert_eq!(decide(Some(&written), &observed, &status(&[READY, RUNNING], 2)), Decision::Apply);
}

#[test]
fn what_another_wrote_is_taken_over_at_the_version_that_was_read() {
    let written = record(status(&[READY], 1), "5");
    let observed = vm(status(&[], 1), "7");
    assert_eq!(decide(Some(&written), &observed, &status(&[READY], 2)), Decision::TakeOver);
    assert_eq!(decide(None, &observed, &status(&[READY], 2)), Decision::TakeOver);
}

#[test]
fn a_field_another_manager_left_behind_is_not_fought_over() {
    let mut observed = status(&[READY], 1);
    observed.restart_count = Some(3);
    let written = record(status(&[READY], 1), "8");
    assert_eq!(decide(Some(&written), &vm(observed, "8"), &status(&[READY], 2)), Decision::Nothing);
}

#[test]
fn the_request_names_the_very_object() {
    let (_, patch) =
        request(&vm(VirtualMachineStatus::default(), "5"), &status(&[READY], 1), Some("5".to_owned()));
    let Patch::Apply(body) = patch else { panic!("not an apply patch") };
    assert_eq!(body["metadata"]["uid"], "uid-1");
    assert_eq!(body["metadata"]["resourceVersion"], "5");
    assert!(body["status"].get("nodeName").is_none());
}
