//! Changes the guest has not got yet: a comparison, field by field, of the wanted spec with the applied one.

use holdfast_api::virtual_machine::{PendingChange, SeedStatus, VirtualMachineSpec, WaitsFor};

use super::desired::Desired;
use super::observed::{Domain, State};
use super::record::{Record, SeedRecord};

/// What a seed would be made from now; `None` where nobody knows, which is no change.
#[derive(Clone, Copy, Default)]
pub(crate) struct Inputs<'a> {
    /// Public keys.
    pub(crate) ssh_keys: Option<&'a [String]>,
    /// Secrets.
    pub(crate) secrets: Option<&'a SeedStatus>,
}

/// All of them; none for a guest that is off, since its next start takes everything but a reseed along.
pub(crate) fn changes(desired: Option<&Desired>, domain: &Domain, inputs: &Inputs) -> Vec<PendingChange> {
    let (Some(desired), Domain::Ours { state, record }) = (desired, domain) else { return Vec::new() };
    let mut changes = seed_changes(desired, record, inputs);
    if let (State::Running | State::Paused(_), Some(applied)) = (state, &record.applied) {
        changes.extend(restart_changes(desired.spec(), &applied.spec));
    }
    changes
}

/// Destructured, so that a new field cannot be forgotten here.
fn restart_changes(wanted: &VirtualMachineSpec, applied: &VirtualMachineSpec) -> Vec<PendingChange> {
    let VirtualMachineSpec {
        cpu,
        memory,
        disks,
        interfaces,
        // At once, refused, or on their own way into the guest:
        run_strategy: _,
        paused: _,
        restart_request: _,
        firmware: _,
        cloud_init: _,
        placement: _,
        termination_grace_period_seconds: _,
        deletion_protection: _,
    } = wanted;
    let changed = [
        ("spec.cpu", *cpu != applied.cpu),
        ("spec.memory", memory.bytes() != applied.memory.bytes()),
        ("spec.disks", *disks != applied.disks),
        ("spec.interfaces", *interfaces != applied.interfaces),
    ];
    fields(&changed, WaitsFor::Restart)
}

fn seed_changes(desired: &Desired, record: &Record, inputs: &Inputs) -> Vec<PendingChange> {
    let SeedRecord { instance_id: _, hostname, ssh_keys, cloud_init: old, secrets } = &record.seed;
    let new = desired.cloud_init();
    let keys = new.ssh_keys != old.ssh_keys || inputs.ssh_keys.is_some_and(|now| now != ssh_keys.as_slice());
    let user_secret =
        |status: &SeedStatus| (status.secret_uid.clone(), status.secret_resource_version.clone());
    let network_secret = |status: &SeedStatus| {
        (status.network_secret_uid.clone(), status.network_secret_resource_version.clone())
    };
    let moved = |of: &dyn Fn(&SeedStatus) -> (String, String)| {
        inputs.secrets.is_some_and(|now| of(now) != of(secrets))
    };
    let asked = record.wants_reseed(&new.reseed);
    let changed = [
        ("spec.cloudInit.reseed", asked),
        ("spec.cloudInit.hostname", desired.hostname() != hostname),
        ("spec.cloudInit.sshKeys", keys),
        ("spec.cloudInit.userData", new.user_data != old.user_data),
        (
            "spec.cloudInit.userDataSecret",
            new.user_data_secret != old.user_data_secret || moved(&user_secret),
        ),
        ("spec.cloudInit.networkData", new.network_data != old.network_data),
        (
            "spec.cloudInit.networkDataSecret",
            new.network_data_secret != old.network_data_secret || moved(&network_secret),
        ),
    ];
    fields(&changed, if asked { WaitsFor::Restart } else { WaitsFor::Reseed })
}

fn fields(changed: &[(&str, bool)], waits_for: WaitsFor) -> Vec<PendingChange> {
    let pending = |(field, _): &(&str, bool)| PendingChange { field: (*field).to_owned(), waits_for };
    changed.iter().filter(|(_, changed)| *changed).map(pending).collect()
}

#[cfg(test)]
mod tests {
    use holdfast_api::virtual_machine::{Disk, Interface};

    use super::*;

    #[test]
    fn what_a_change_waits_for_is_what_the_vocabulary_says() {
        let wanted = VirtualMachineSpec {
            cpu: 2,
            memory: "2Gi".into(),
            disks: vec![Disk::default()],
            interfaces: vec![Interface::default()],
            ..VirtualMachineSpec::default()
        };
        let changes = restart_changes(&wanted, &VirtualMachineSpec::default());
        assert_eq!(changes.len(), 4);
        for PendingChange { field, waits_for } in changes {
            assert_eq!(WaitsFor::of(&field), Some(waits_for), "{field}");
        }
    }
}
