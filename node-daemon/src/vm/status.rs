//! What a virtual machine's status says: pure, from what was judged, seen and done.

use holdfast_api::Quantity;
use holdfast_api::condition::{self as c, Finding, Is};
use holdfast_api::virtual_machine::{
    Address, Applied, DiskStatus, InterfaceStatus, PrintableStatus, Progress, RunStrategy, SeedStatus,
    VirtualMachineStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use uuid::Uuid;

use super::desired::Desired;
use super::observe::Pins;
use super::observed::{Domain, Obstacle, PausedBy, State};
use super::pending;
use super::plan::{Goal, On, Plan};
use super::record::{Record, Run};
use crate::retry::Retry;

/// All a status is made from.
pub(crate) struct Report<'a> {
    /// Who it is about.
    pub(crate) uid: Uuid,
    /// Generation of the object that was judged.
    pub(crate) generation: i64,
    /// What it shall come to: of the last good spec, where the present one was refused.
    pub(crate) goal: Option<&'a Goal>,
    /// Why the present spec was refused.
    pub(crate) refused: Option<&'a Obstacle>,
    /// The domain as it is now.
    pub(crate) domain: &'a Domain,
    /// What is to be done next, or what failed.
    pub(crate) outcome: Outcome<'a>,
    /// Addresses of the guest.
    pub(crate) addresses: Vec<Address>,
    /// Which bytes disks stand on that no record speaks of, by name of the disk.
    pub(crate) pins: &'a Pins,
    /// A download under way; none while it waits for its turn.
    pub(crate) progress: Option<Progress>,
    /// What a seed would be made from now, where it is known.
    pub(crate) inputs: pending::Inputs<'a>,
    /// What a change lacks that waits for the next start.
    pub(crate) hindrance: Option<&'a Obstacle>,
    /// Conditions as they were last reported.
    pub(crate) before: &'a [Condition],
    /// Now.
    pub(crate) now: Time,
}

/// How the last pass ended.
#[derive(Clone, Copy)]
pub(crate) enum Outcome<'a> {
    /// With this plan.
    Plan(&'a Plan),
    /// With a step that failed.
    Failed(&'a Obstacle),
}

/// The node's half of the status.
pub(crate) fn status(report: &Report) -> VirtualMachineStatus {
    let record = report.domain.record();
    let desired = desired(report);
    VirtualMachineStatus {
        observed_generation: Some(report.generation),
        applied_generation: record
            .and_then(|record| record.applied.as_ref())
            .map(|applied| applied.generation),
        applied: record.and_then(applied),
        printable_status: Some(printable(report)),
        addresses: report.addresses.clone(),
        interfaces: desired.map(interfaces).unwrap_or_default(),
        disks: desired.map(|desired| disks(report, desired)).unwrap_or_default(),
        progress: report.progress.clone(),
        pending_changes: pending::changes(desired, report.domain, &report.inputs),
        restart_count: record.map(|record| record.restarts),
        last_restart_request: record
            .and_then(|record| record.served_restarts.last().cloned())
            .unwrap_or_default(),
        seed: record.map(|record| record.seed.secrets.clone()).filter(|seed| *seed != SeedStatus::default()),
        uuid: report.uid.to_string(),
        conditions: c::conditions(report.before, &findings(report), Some(report.generation), &report.now),
        node_name: String::new(),
    }
}

fn desired<'a>(report: &Report<'a>) -> Option<&'a Desired> {
    report.goal.and_then(Goal::desired)
}

fn applied(record: &Record) -> Option<Applied> {
    let spec = &record.applied.as_ref()?.spec;
    Some(Applied { cpu: spec.cpu, memory: spec.memory.clone() })
}

fn interfaces(desired: &Desired) -> Vec<InterfaceStatus> {
    let one =
        |i: &super::desired::Interface| InterfaceStatus { name: i.name.clone(), mac: i.mac.to_string() };
    desired.interfaces().iter().map(one).collect()
}

/// The record's digest is the truth once there is one. Before that it is the one that the disk is made from, or shall be;
/// one that nobody looked up is repeated, so that it is not lost.
fn disks(report: &Report, desired: &Desired) -> Vec<DiskStatus> {
    let record = report.domain.record();
    let digest = |disk: &super::desired::Disk| {
        let recorded = record.and_then(|record| record.images.get(&disk.name)).map(|image| image.digest);
        let given = match &disk.source {
            super::desired::Source::Image { digest, .. } => *digest,
            super::desired::Source::Blank => None,
        };
        let pinned = report.pins.get(&disk.name).copied();
        recorded.or(pinned).or(given).map(|digest| digest.to_string()).unwrap_or_default()
    };
    let applied = record.and_then(|record| record.applied.as_ref()).map(|applied| &applied.spec.disks);
    let size = |disk: &super::desired::Disk| match applied {
        // An edit that waits for the next start has given the guest nothing yet.
        Some(had) => {
            had.iter().find(|had| had.name == disk.name).map(|had| had.size.clone()).unwrap_or_default()
        }
        None => Quantity::from_bytes(disk.bytes),
    };
    let one = |disk: &super::desired::Disk| DiskStatus {
        name: disk.name.clone(),
        image_digest: digest(disk),
        size: size(disk),
    };
    desired.disks().iter().map(one).collect()
}

fn printable(report: &Report) -> PrintableStatus {
    use PrintableStatus as P;
    let deleting = matches!(report.goal, Some(Goal::Delete(_)));
    match (report.domain, report.outcome) {
        _ if deleting => P::Terminating,
        (Domain::Foreign, _) => P::Error,
        (Domain::Ours { state: State::Paused(_), .. }, _) => P::Paused,
        (Domain::Ours { state: State::Running, record }, _) if record.stop.is_some() => P::Stopping,
        (Domain::Ours { state: State::Running, .. }, _) => P::Running,
        (_, Outcome::Plan(Plan::Converged)) => P::Stopped,
        (_, Outcome::Plan(Plan::Wait { on: On::BackOff, .. })) => P::CrashLoopBackOff,
        (_, Outcome::Plan(Plan::Wait { on: On::Image, .. })) => P::Provisioning,
        (_, Outcome::Plan(Plan::Wait { on: On::PowerOff, .. })) => P::Stopping,
        (_, Outcome::Plan(Plan::Wait { on: On::Disk, .. })) => P::Paused,
        (_, Outcome::Plan(Plan::Do(_) | Plan::Wait { on: On::Proof, .. })) => P::Starting,
        (_, Outcome::Plan(Plan::Blocked(obstacle)) | Outcome::Failed(obstacle)) => blocked(obstacle),
    }
}

fn blocked(obstacle: &Obstacle) -> PrintableStatus {
    match obstacle.retry {
        Retry::OnChange => PrintableStatus::Error,
        Retry::Soon | Retry::Later => PrintableStatus::Pending,
    }
}

fn findings(report: &Report) -> Vec<Finding> {
    let obstacle = obstacle(report);
    let ready = ready(report, obstacle);
    let settled = ready.is == Is::True || obstacle.is_some();
    let mut findings = vec![running(report.domain), address_known(&report.addresses, report.domain)];
    findings.push(image_ready(report, obstacle));
    findings.push(reconciling(settled, &ready));
    findings.push(stalled(obstacle));
    findings.push(restart_required(report));
    findings.extend(removed(report));
    findings.push(ready);
    findings
}

/// What is in the way: a refused spec, a blocked plan or a failed step.
fn obstacle<'a>(report: &Report<'a>) -> Option<&'a Obstacle> {
    match (report.refused, report.outcome) {
        (Some(refused), _) => Some(refused),
        (None, Outcome::Plan(Plan::Blocked(obstacle)) | Outcome::Failed(obstacle)) => Some(obstacle),
        (None, Outcome::Plan(Plan::Converged | Plan::Do(_) | Plan::Wait { .. })) => None,
    }
}

fn ready(report: &Report, obstacle: Option<&Obstacle>) -> Finding {
    if let Some(obstacle) = obstacle {
        // Whether the step that got no answer took effect is not known either.
        let is = if obstacle.reason == c::HYPERVISOR_UNREACHABLE { Is::Unknown } else { Is::False };
        return Finding::new(c::READY, is, obstacle.reason, obstacle.message.clone());
    }
    match (report.domain, report.outcome) {
        _ if matches!(report.goal, Some(Goal::Delete(_))) => {
            Finding::new(c::READY, false, "Terminating", "the virtual machine is being removed")
        }
        (Domain::Ours { state: State::Paused(PausedBy::IoError), .. }, _) => Finding::new(
            c::READY,
            false,
            "DiskError",
            "the guest is frozen because a disk could not be written: free space on the node; it continues by itself",
        ),
        (domain, Outcome::Plan(Plan::Converged)) => converged(domain),
        (_, Outcome::Plan(Plan::Wait { on: On::Image, .. })) if report.progress.is_none() => Finding::new(
            c::READY,
            false,
            "DownloadQueued",
            "the image waits for its turn, because the node fetches a few at a time, and from one source at a time; it begins by itself",
        ),
        (_, Outcome::Plan(Plan::Wait { on, .. })) => waiting(*on),
        _ => Finding::new(c::READY, false, "Progressing", "the node is at work on it"),
    }
}

fn converged(domain: &Domain) -> Finding {
    match domain {
        Domain::Ours { state: State::Running, .. } => {
            Finding::new(c::READY, true, "Running", "the guest runs as specified")
        }
        Domain::Ours { state: State::Paused(_), .. } => {
            Finding::new(c::READY, true, "Paused", "the guest is paused as specified")
        }
        Domain::Ours { state: State::Off(_), record } if record.run == Run::Done => {
            let why = match record.spec.run_strategy {
                RunStrategy::Once => "the guest ran once and ended",
                _ => "the guest powered itself off",
            };
            Finding::new(c::READY, true, "Completed", why)
        }
        Domain::Ours { .. } | Domain::Absent | Domain::Foreign => {
            Finding::new(c::READY, true, "Halted", "the guest is off as specified")
        }
    }
}

fn waiting(on: On) -> Finding {
    let (reason, message) = match on {
        On::Image => ("FetchingImage", "the image is being fetched; status.progress counts the bytes"),
        On::PowerOff => (
            "Stopping",
            "the guest was asked to power off; after terminationGracePeriodSeconds it is stopped by force",
        ),
        On::Disk => (
            "DiskError",
            "the guest is frozen because a disk could not be written: free space on the node; it continues by itself",
        ),
        On::Proof => (
            "ProvingAccelerator",
            "the node daemon has just started and tries whether this host can run guests",
        ),
        On::BackOff => (
            "CrashLoopBackOff",
            "the guest ended several times in a row and starts again after a pause: look into its serial log on the node",
        ),
    };
    Finding::new(c::READY, false, reason, message)
}

fn running(domain: &Domain) -> Finding {
    match domain {
        Domain::Ours { state: State::Running, .. } => Finding::new(c::RUNNING, true, "Running", ""),
        Domain::Ours { state: State::Paused(_), .. } => Finding::new(c::RUNNING, false, "Paused", ""),
        Domain::Ours { state: State::Off(_), .. } | Domain::Absent => {
            Finding::new(c::RUNNING, false, "Off", "")
        }
        Domain::Foreign => Finding::new(c::RUNNING, Is::Unknown, "ForeignDomain", ""),
    }
}

fn address_known(addresses: &[Address], domain: &Domain) -> Finding {
    let on = matches!(domain, Domain::Ours { state: State::Running | State::Paused(_), .. });
    match (addresses.first(), on) {
        (Some(address), _) => {
            Finding::new(c::ADDRESS_KNOWN, true, "Seen", format!("{} has {}", address.interface, address.ip))
        }
        (None, true) => Finding::new(
            c::ADDRESS_KNOWN,
            false,
            "NotSeenYet",
            "the guest has not asked for an address or used one yet",
        ),
        (None, false) => Finding::new(c::ADDRESS_KNOWN, false, "Off", "the guest is off"),
    }
}

fn image_ready(report: &Report, obstacle: Option<&Obstacle>) -> Finding {
    if report.domain.record().is_some() {
        return Finding::new(c::IMAGE_READY, true, "Verified", "");
    }
    match (report.outcome, obstacle) {
        (Outcome::Plan(Plan::Wait { on: On::Image, .. }), _) => {
            Finding::new(c::IMAGE_READY, false, "Fetching", "")
        }
        (_, Some(obstacle)) => {
            Finding::new(c::IMAGE_READY, Is::Unknown, obstacle.reason, obstacle.message.clone())
        }
        _ => Finding::new(c::IMAGE_READY, Is::Unknown, "NotNeededYet", ""),
    }
}

fn reconciling(settled: bool, ready: &Finding) -> Finding {
    if settled {
        Finding::new(c::RECONCILING, false, "Settled", "")
    } else {
        Finding::new(c::RECONCILING, true, ready.reason, ready.message.clone())
    }
}

fn stalled(obstacle: Option<&Obstacle>) -> Finding {
    match obstacle.filter(|obstacle| obstacle.retry == Retry::OnChange) {
        Some(obstacle) => Finding::new(c::STALLED, true, obstacle.reason, obstacle.message.clone()),
        None => Finding::new(c::STALLED, false, "NotStalled", ""),
    }
}

fn restart_required(report: &Report) -> Finding {
    let pending = pending::changes(desired(report), report.domain, &report.inputs);
    let waits = |change: &&holdfast_api::virtual_machine::PendingChange| {
        change.waits_for == holdfast_api::virtual_machine::WaitsFor::Restart
    };
    let fields: Vec<_> = pending.iter().filter(waits).map(|change| change.field.as_str()).collect();
    if fields.is_empty() {
        return Finding::new(c::RESTART_REQUIRED, false, "NothingPending", "");
    }
    let fields = fields.join(", ");
    let message = match report.hindrance {
        Some(obstacle) => format!("{fields} take effect at a later start; {}", obstacle.message),
        None => format!("{fields} take effect at the next start: set spec.restartRequest to a new value"),
    };
    Finding::new(c::RESTART_REQUIRED, true, "ChangesPending", message)
}

fn removed(report: &Report) -> Option<Finding> {
    let gone = matches!(
        (report.goal, report.domain, report.outcome),
        (Some(Goal::Delete(_)), Domain::Absent, Outcome::Plan(Plan::Converged))
    );
    gone.then(|| {
        Finding::new(c::REMOVED, true, "Removed", "nothing of the virtual machine is left on the node")
    })
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
