//! What a virtual machine's status says while nobody can see how it is: pure.
//!
//! All stands as it was last known, its addresses and what it prints too; `Ready` alone turns `Unknown` and says why. So
//! `kubectl wait` and Terraform go on waiting, and nobody takes a guest for dead that runs.

use holdfast_api::VirtualMachine;
use holdfast_api::condition::{self as c, Finding, Is};
use holdfast_api::virtual_machine::VirtualMachineStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::observed::Obstacle;

/// The status as it was last known, and why it may be old.
pub(crate) fn status(vm: &VirtualMachine, obstacle: &Obstacle, now: &Time) -> VirtualMachineStatus {
    let last = vm.status.clone().unwrap_or_default();
    let unknown = |type_| Finding::new(type_, Is::Unknown, obstacle.reason, obstacle.message.clone());
    let findings = [Some(unknown(c::READY)), was_lost(&last.conditions).then(|| unknown(c::RUNNING))];
    let findings: Vec<Finding> = findings.into_iter().flatten().collect();
    let told = c::conditions(&last.conditions, &findings, vm.metadata.generation, now);
    let stands = |old: &&Condition| findings.iter().all(|finding| finding.type_ != old.type_);
    let conditions = last.conditions.iter().filter(stands).cloned().chain(told).collect();
    VirtualMachineStatus { conditions, ..last }
}

/// The controller spoke for this node while it was silent; it is not any more.
fn was_lost(conditions: &[Condition]) -> bool {
    c::find(conditions, c::RUNNING).is_some_and(|running| running.reason == "NodeLost")
}

#[cfg(test)]
mod tests {
    use holdfast_api::virtual_machine::{Address, AddressSource, PrintableStatus, VirtualMachineSpec};
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    fn reported(findings: &[Finding]) -> VirtualMachine {
        let mut vm = VirtualMachine::new("web", VirtualMachineSpec::default());
        vm.metadata.generation = Some(3);
        vm.status = Some(VirtualMachineStatus {
            observed_generation: Some(2),
            printable_status: Some(PrintableStatus::Running),
            addresses: vec![Address {
                interface: "lan".to_owned(),
                ip: "10.0.0.2".to_owned(),
                source: AddressSource::Lease,
            }],
            conditions: c::conditions(&[], findings, Some(2), &at(1)),
            ..VirtualMachineStatus::default()
        });
        vm
    }

    fn stand(status: &VirtualMachineStatus) -> Vec<(&str, &str, &str, Option<i64>)> {
        let word = |it: &'_ Condition| {
            let generation = it.observed_generation;
            (
                it.type_.clone().leak() as &str,
                it.status.clone().leak() as &str,
                it.reason.clone().leak() as &str,
                generation,
            )
        };
        status.conditions.iter().map(word).collect()
    }

    #[test]
    fn a_machine_nobody_can_see_keeps_its_last_state_with_a_condition_that_says_so() {
        let running =
            [Finding::new(c::RUNNING, true, "Running", ""), Finding::new(c::READY, true, "Running", "")];
        let vm = reported(&running);
        let said = status(&vm, &Obstacle::soon(c::HYPERVISOR_UNREACHABLE, "libvirt hangs"), &at(9));
        let expected = [
            ("Running", "True", "Running", Some(2)),
            // It counts for whoever waits for the newest spec, and tells why that is not judged.
            ("Ready", "Unknown", "HypervisorUnreachable", Some(3)),
        ];
        assert_eq!(stand(&said), expected);
        let before = vm.status.unwrap();
        assert_eq!(VirtualMachineStatus { conditions: before.conditions.clone(), ..said }, before);
    }

    #[test]
    fn what_the_controller_said_of_a_silent_node_does_not_stand() {
        let lost = [c::RUNNING, c::READY].map(|type_| Finding::new(type_, Is::Unknown, "NodeLost", "silent"));
        let said = status(&reported(&lost), &Obstacle::soon(c::HYPERVISOR_UNREACHABLE, ""), &at(9));
        assert!(said.conditions.iter().all(|it| it.reason == c::HYPERVISOR_UNREACHABLE), "{said:?}");
    }

    #[test]
    fn a_machine_that_was_never_looked_at_says_so_too() {
        let mut vm = reported(&[]);
        vm.status = None;
        let said = status(&vm, &Obstacle::soon(c::HYPERVISOR_UNREACHABLE, ""), &at(9));
        assert_eq!(stand(&said), [("Ready", "Unknown", "HypervisorUnreachable", Some(3))]);
    }
}
