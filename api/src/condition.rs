//! Conditions: their types and reasons in one place, and a setter that moves the time only with the status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::{Schema, SchemaGenerator, json_schema};

use crate::bounds::{self, CONDITIONS, NAME, SENTENCE, WORD};

/// The object is as its spec asks: for a virtual machine, it runs or is halted as specified.
pub const READY: &str = "Ready";
/// The guest's processor runs.
pub const RUNNING: &str = "Running";
/// A node was chosen, or why none could be.
pub const SCHEDULED: &str = "Scheduled";
/// The images of all disks are on the node and verified.
pub const IMAGE_READY: &str = "ImageReady";
/// At least one address of the guest is known.
pub const ADDRESS_KNOWN: &str = "AddressKnown";
/// A change waits for the next start.
pub const RESTART_REQUIRED: &str = "RestartRequired";
/// Nothing of the virtual machine is left on its node.
pub const REMOVED: &str = "Removed";
/// Work is under way (abnormal when True, as kstatus reads it).
pub const RECONCILING: &str = "Reconciling";
/// Only a change of this object helps (abnormal when True).
pub const STALLED: &str = "Stalled";
/// The node's identity was accepted and its certificate is current.
pub const ENROLLED: &str = "Enrolled";
/// A person or a policy let the node in.
pub const APPROVED: &str = "Approved";
/// A person or a policy turned the node away.
pub const REJECTED: &str = "Rejected";
/// The certificate stands in the status.
pub const ISSUED: &str = "Issued";

/// Reason: libvirt does not answer its node, so nobody knows how the guests there are.
pub const HYPERVISOR_UNREACHABLE: &str = "HypervisorUnreachable";

/// Reason: the disk of a node's state folder takes no writes.
pub const STATE_READ_ONLY: &str = "StateReadOnly";
/// Reason: the disk of a node's state folder does not answer.
pub const STATE_UNREACHABLE: &str = "StateUnreachable";
/// Reason: a disk of the node is full.
pub const DISK_FULL: &str = "DiskFull";
/// Reason: the clock of the node jumped.
pub const CLOCK_JUMPED: &str = "ClockJumped";

/// Status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Is {
    /// The condition holds.
    True,
    /// It does not hold.
    False,
    /// Nobody can say now.
    Unknown,
}

impl Is {
    /// The word the API uses.
    pub fn word(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Is {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// A condition about to be reported: everything but the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// One of the constants of this module.
    pub type_: &'static str,
    /// Whether it holds.
    pub is: Is,
    /// Why, in one `PascalCase` word for programs.
    pub reason: &'static str,
    /// Why, in one sentence for people, with the remedy; empty where the reason says it all. It is cut where it is longer
    /// than the schema allows.
    pub message: String,
}

impl Finding {
    /// A condition with a sentence.
    pub fn new(
        type_: &'static str,
        is: impl Into<Is>,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { type_, is: is.into(), reason, message: message.into() }
    }
}

/// The findings as conditions at `generation`. A condition that was in `before` with the same status keeps its time.
pub fn conditions(
    before: &[Condition],
    findings: &[Finding],
    generation: Option<i64>,
    now: &Time,
) -> Vec<Condition> {
    findings.iter().map(|finding| condition(before, finding, generation, now)).collect()
}

fn condition(before: &[Condition], finding: &Finding, generation: Option<i64>, now: &Time) -> Condition {
    let same = find(before, finding.type_).filter(|old| old.status == finding.is.word());
    Condition {
        type_: finding.type_.to_owned(),
        status: finding.is.word().to_owned(),
        reason: finding.reason.to_owned(),
        message: bounds::cut(finding.message.clone(), SENTENCE),
        observed_generation: generation,
        last_transition_time: same.map_or_else(|| now.clone(), |old| old.last_transition_time.clone()),
    }
}

/// The condition of this type, if the object has it.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Whether the condition of this type is `True`, at whatever generation.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|condition| condition.status == Is::True.word())
}

/// The schema of a list of conditions: that of Kubernetes with bounds, which its own type does not have.
pub(crate) fn schema(_: &mut SchemaGenerator) -> Schema {
    let text = |most: usize, description: &str| json_schema!({ "type": "string", "maxLength": most, "description": description });
    json_schema!({
        "type": "array",
        "maxItems": CONDITIONS,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "description": "What is so, since when and why.",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "type": text(NAME, "What it is about, such as Ready."),
                "status": {
                    "type": "string",
                    "enum": ["True", "False", "Unknown"],
                    "description": "Whether it is so: True, False or Unknown.",
                },
                "reason": text(WORD, "Why, in one word for programs."),
                "message": text(SENTENCE, "Why, in a sentence for people, with what to do; it may be empty."),
                "observedGeneration": {
                    "type": "integer",
                    "format": "int64",
                    "description": "Generation of the object that it speaks of; one of an earlier generation is out of date.",
                },
                "lastTransitionTime": {
                    "type": "string",
                    "format": "date-time",
                    "maxLength": WORD,
                    "description": "When status changed last.",
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Time {
        Time(k8s_openapi::jiff::Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn the_time_moves_only_with_the_status() {
        let halted = [Finding::new(READY, true, "Halted", "")];
        let runs = [Finding::new(READY, true, "Running", "")];
        let lost = [Finding::new(READY, Is::Unknown, "NodeLost", "")];
        let first = conditions(&[], &halted, Some(1), &at(1));
        let second = conditions(&first, &runs, Some(2), &at(2));
        assert_eq!((second[0].last_transition_time.clone(), second[0].reason.as_str()), (at(1), "Running"));
        assert_eq!(conditions(&second, &lost, Some(2), &at(3))[0].last_transition_time, at(3));
    }
}
