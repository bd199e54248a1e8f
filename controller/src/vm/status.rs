//! What the controller writes into the status of a virtual machine, and nothing else of it does.
//!
//! Two managers share the status by server-side apply, where leaving a field out gives it up. So each of these is whole:
//! it repeats what the controller may own.

use holdfast_api::VirtualMachine;
use holdfast_api::condition::{self, Finding, Is, READY, RUNNING, SCHEDULED};
use holdfast_api::names::FINALIZER;
use holdfast_api::virtual_machine::{DiskStatus, PrintableStatus, VirtualMachineStatus};

use super::apply;
use crate::world::{World, status};
use crate::write::{Kind, Meta, Status, Target, Tell, Verb, Weight, Write, body, stand, turns};

/// Why a machine is on no node yet.
pub(super) struct Wait {
    reason: &'static str,
    sentence: String,
    printable: PrintableStatus,
}

impl Wait {
    /// No node can take it; the sentence lists why.
    pub(super) fn no_node(sentence: String) -> Self {
        Self { reason: "NoNodeFits", sentence, printable: PrintableStatus::ErrorUnschedulable }
    }

    /// An image it names is not there.
    pub(super) fn no_image(name: &str) -> Self {
        Self {
            reason: "ImageNotFound",
            sentence: format!(
                "the VirtualMachineImage {name} does not exist in this namespace: create it, and the virtual machine goes on by itself"
            ),
            printable: PrintableStatus::Pending,
        }
    }

    /// An image it names is there and cannot be read.
    pub(super) fn image_unread(name: &str) -> Self {
        Self::unread("VirtualMachineImage", name, "ImageUnreadable")
    }

    /// A network it names is there and cannot be read.
    pub(super) fn network_unread(name: &str) -> Self {
        Self::unread("VirtualMachineNetwork", name, "NetworkUnreadable")
    }

    fn unread(kind: &str, name: &str, reason: &'static str) -> Self {
        Self {
            reason,
            sentence: format!(
                "the {kind} {name} exists and cannot be read: its events say what of it; correct it, or update \
                 holdfast-controller if a newer one wrote it"
            ),
            printable: PrintableStatus::Pending,
        }
    }

    /// A network it names is not there.
    pub(super) fn no_network(name: &str) -> Self {
        Self {
            reason: "NetworkNotFound",
            sentence: format!(
                "the VirtualMachineNetwork {name} does not exist in this namespace: create it, and the virtual machine goes on by itself"
            ),
            printable: PrintableStatus::Pending,
        }
    }

    /// The node it is being placed on has no rights in its namespace.
    pub(super) fn no_grants(node: &str) -> Self {
        Self {
            reason: "GrantsMissing",
            sentence: format!(
                "{node} was chosen, and the API server does not take the rights it needs in this namespace: the log of \
                 holdfast-controller says why; where the namespace is being deleted, delete this virtual machine too"
            ),
            printable: PrintableStatus::Pending,
        }
    }

    /// It is being placed on a node whose object is gone.
    pub(super) fn node_missing(node: &str) -> Self {
        Self { reason: "NodeMissing", sentence: missing(node), printable: PrintableStatus::Pending }
    }
}

fn missing(node: &str) -> String {
    format!(
        "there is no HypervisorNode {node} any more, and nobody declared the host gone: let {node} enrol again, or \
         create the HypervisorNode {node} with the finalizer {FINALIZER} and delete it to say that the host is gone for \
         good"
    )
}

/// Says why the machine waits, if that is news.
pub(super) fn waits(world: &World, vm: &VirtualMachine, wait: &Wait) -> Option<Write> {
    let found = status(vm);
    let ready = Finding::new(READY, false, wait.reason, wait.sentence.clone());
    let scheduled = Finding::new(SCHEDULED, false, wait.reason, wait.sentence.clone());
    let generation = vm.metadata.generation;
    let wanted = VirtualMachineStatus {
        observed_generation: generation,
        printable_status: Some(wait.printable),
        conditions: condition::conditions(
            &found.conditions,
            &[ready.clone(), scheduled],
            generation,
            &world.now,
        ),
        ..VirtualMachineStatus::default()
    };
    if stand(&found.conditions, &wanted.conditions)
        && found.printable_status == wanted.printable_status
        && found.observed_generation == wanted.observed_generation
    {
        return None;
    }
    let write = apply(vm, wanted);
    Some(if turns(&found.conditions, &ready) {
        write.telling(Tell::new(vm, Weight::Warning, wait.reason, wait.sentence.clone()))
    } else {
        write
    })
}

/// The binding itself: the node's name and the digest of each image in one patch.
pub(super) fn bind(world: &World, vm: &VirtualMachine, node: &str, disks: Vec<DiskStatus>) -> Write {
    let generation = vm.metadata.generation;
    let findings = [
        Finding::new(SCHEDULED, true, "Placed", ""),
        Finding::new(READY, false, "Placed", format!("placed on {node}, which has not taken it up yet")),
    ];
    let wanted = VirtualMachineStatus {
        node_name: node.to_owned(),
        observed_generation: generation,
        printable_status: Some(PrintableStatus::Pending),
        disks,
        conditions: condition::conditions(&status(vm).conditions, &findings, generation, &world.now),
        ..VirtualMachineStatus::default()
    };
    apply(vm, wanted)
        .telling(Tell::new(vm, Weight::Normal, "Scheduled", format!("placed on {node}")).of_node(node))
}

/// Why nobody speaks for a bound machine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// Its node's Lease has expired.
    Silent,
    /// Its node has no object any more.
    Missing,
}

/// Speaks for a silent node, until the node writes again.
pub(super) fn lost(world: &World, vm: &VirtualMachine, node: &str, loss: Loss) -> Option<Write> {
    let found = status(vm);
    let sentence = match loss {
        Loss::Silent => format!(
            "{node} is silent: as far as is known the guest runs on there; it is not started elsewhere unless the \
             HypervisorNode {node} is deleted, which says that the host is gone for good"
        ),
        Loss::Missing => missing(node),
    };
    let unknown = |type_| Finding::new(type_, Is::Unknown, "NodeLost", sentence.clone());
    let generation = vm.metadata.generation;
    let findings = [unknown(READY), unknown(RUNNING), Finding::new(SCHEDULED, true, "Placed", "")];
    let wanted = VirtualMachineStatus {
        node_name: node.to_owned(),
        observed_generation: found.observed_generation,
        printable_status: Some(PrintableStatus::Unknown),
        disks: found.disks.clone(),
        conditions: condition::conditions(&found.conditions, &findings, generation, &world.now),
        ..VirtualMachineStatus::default()
    };
    if stand(&found.conditions, &wanted.conditions) && found.printable_status == wanted.printable_status {
        return None;
    }
    let write = apply(vm, wanted);
    Some(if turns(&found.conditions, &findings[0]) {
        write.telling(Tell::new(vm, Weight::Warning, "NodeLost", sentence).of_node(node))
    } else {
        write
    })
}

/// A status as of a machine that was never placed. Replaced whole, because apply leaves the node's fields behind.
pub(super) fn release(world: &World, vm: &VirtualMachine, node: &str) -> Write {
    let sentence = format!("{node} was declared gone for good; another node is being chosen");
    let findings = [
        Finding::new(READY, false, "Released", sentence.clone()),
        Finding::new(SCHEDULED, false, "Released", sentence.clone()),
    ];
    let wanted = VirtualMachineStatus {
        observed_generation: vm.metadata.generation,
        printable_status: Some(PrintableStatus::Pending),
        conditions: condition::conditions(&[], &findings, vm.metadata.generation, &world.now),
        ..VirtualMachineStatus::default()
    };
    let body = body::<VirtualMachine>(
        &Meta::exactly(vm),
        Whole { spec: &vm.spec, status: Status { status: wanted } },
    );
    Write::new(Target::of(Kind::VirtualMachine, vm), Verb::ReplaceStatus(body))
        .telling(Tell::new(vm, Weight::Warning, "Released", sentence).of_node(node))
}

/// A replaced object must be valid as a whole, though only its status is taken.
#[derive(serde::Serialize)]
struct Whole<'a> {
    spec: &'a holdfast_api::virtual_machine::VirtualMachineSpec,
    #[serde(flatten)]
    status: Status<VirtualMachineStatus>,
}
