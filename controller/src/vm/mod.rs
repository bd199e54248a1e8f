//! The life of a binding: the next write of each virtual machine, from what stands in the API alone.
//!
//! ```text
//! Free ──mark (finalizer, placed-on)──► Marked ──rights, namespaces──► bind (nodeName, digests) ──► Bound
//!  ▲                                                                                                  │
//!  └────── release (annotation first, then the status) ◄── its node was declared gone ────────────────┘
//! ```
//!
//! Marked binds to that node or to none: the store may have lost a `nodeName` that the node has seen. While its node
//! lives the node writes the status; here only what [`status`] says for a machine that waits or whose node is silent.

mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use holdfast_api::condition::{self, REMOVED};
use holdfast_api::names::{FINALIZER, PLACED_ON};
use holdfast_api::virtual_machine::{DiskStatus, VirtualMachineStatus};
use holdfast_api::{VirtualMachine, VirtualMachineNetwork};
use holdfast_client::Faults;
use k8s_openapi::jiff::SignedDuration;
use kube::ResourceExt;
use serde::Serialize;

use crate::access;
use crate::cache::{Name, name};
use crate::capacity::{self, Room};
use crate::finalizer;
use crate::node;
use crate::place::{self, Candidate, Wish};
use crate::world::{self, Binding, Node, World, mark};
use crate::write::{Exactly, Kind, Meta, Status, Target, Verb, Write, body, json};

/// Longer than a binding takes; a status in between would be one more write for each virtual machine.
const MOMENTS: SignedDuration = SignedDuration::from_secs(10);

/// The writes of all virtual machines; what one is given, the next one does not find.
pub(crate) fn plan(world: &World, access: &access::Plan) -> Vec<Write> {
    let mut round = Round { world, access, promised: world.promised(), networks: networks(world) };
    world.machines.iter().filter_map(|vm| round.next(vm)).collect()
}

struct Round<'a> {
    world: &'a World,
    access: &'a access::Plan,
    promised: BTreeMap<String, Room>,
    /// By namespace and name.
    networks: BTreeMap<Name, &'a Arc<VirtualMachineNetwork>>,
}

impl Round<'_> {
    fn next(&mut self, vm: &VirtualMachine) -> Option<Write> {
        if let Some(faults) = self.world.faults(vm) {
            return self.let_go(vm, faults);
        }
        if vm.metadata.deletion_timestamp.is_some() {
            return self.leave(vm);
        }
        match Binding::of(vm) {
            Binding::Free => self.choose(vm),
            Binding::Marked(node) => self.complete(vm, node),
            Binding::Bound(node) => self.keep(vm, node),
        }
    }

    /// One that cannot be read whole stays where it is, until its host is gone or has removed it: that is known without
    /// the rest, unless the binding itself was not read.
    fn let_go(&self, vm: &VirtualMachine, faults: &Faults) -> Option<Write> {
        if world::binding_unread(faults) || faults.touch("metadata.finalizers") {
            return None;
        }
        let write = match Binding::of(vm) {
            _ if vm.metadata.deletion_timestamp.is_some() => self.leave(vm),
            Binding::Free => None,
            Binding::Marked(node) => self.complete(vm, node),
            Binding::Bound(node) => self.keep(vm, node),
        };
        write.filter(|write| self.world.unread.allow(write))
    }

    /// Chooses a node and writes it down where only the controller reads it.
    fn choose(&mut self, vm: &VirtualMachine) -> Option<Write> {
        let wish = match self.disks(vm).and_then(|_| self.wish(vm)) {
            Ok(wish) => wish,
            Err(wait) => return status::waits(self.world, vm, &wait),
        };
        match place::place(&wish, &self.candidates()) {
            Ok(node) => {
                let sum = self.promised.entry(node.clone()).or_default();
                *sum = sum.plus(wish.room);
                Some(marked(vm, &node))
            }
            Err(sentence) => status::waits(self.world, vm, &status::Wait::no_node(sentence)),
        }
    }

    /// Goes on with a binding: binds once the node has its rights and serves the namespace.
    fn complete(&self, vm: &VirtualMachine, name: &str) -> Option<Write> {
        let Some(node) = self.world.nodes.get(name) else {
            return status::waits(self.world, vm, &status::Wait::node_missing(name));
        };
        if node.removing() {
            return Some(unmarked(vm));
        }
        if !finalizer::is_ours(vm) {
            return Some(marked(vm, name));
        }
        match self.disks(vm) {
            Err(wait) => status::waits(self.world, vm, &wait),
            Ok(disks) if self.prepared(vm, name, node) => Some(status::bind(self.world, vm, name, disks)),
            Ok(_) if self.lasts(vm) => status::waits(self.world, vm, &status::Wait::no_grants(name)),
            Ok(_) => None,
        }
    }

    /// The disks with the digests to bind with. A machine that a node holds already has its disks there, so it does not
    /// wait for an image.
    fn disks(&self, vm: &VirtualMachine) -> Result<Vec<DiskStatus>, status::Wait> {
        match self.holder(vm) {
            Some(_) => Ok(pinned(self.world, vm)),
            None => digests(self.world, vm),
        }
    }

    /// Whether a step that takes moments is worth a word.
    fn lasts(&self, vm: &VirtualMachine) -> bool {
        let since = vm.metadata.creation_timestamp.as_ref();
        self.world.unhurried && since.is_some_and(|since| self.world.now.0.duration_since(since.0) > MOMENTS)
    }

    fn prepared(&self, vm: &VirtualMachine, name: &str, node: &Node) -> bool {
        let namespace = vm.namespace().unwrap_or_default();
        let served = node.object.status.as_ref().is_some_and(|status| status.namespaces.contains(&namespace));
        served && self.access.granted(&namespace, name)
    }

    /// Looks after a bound machine: repairs the annotation, speaks for a silent node, releases it from one that is gone.
    fn keep(&self, vm: &VirtualMachine, name: &str) -> Option<Write> {
        let Some(node) = self.world.nodes.get(name) else {
            return status::lost(self.world, vm, name, status::Loss::Missing);
        };
        if node.removing() {
            return Some(if mark(vm).is_some() {
                unmarked(vm)
            } else {
                status::release(self.world, vm, name)
            });
        }
        if mark(vm) != Some(name) || !finalizer::is_ours(vm) {
            return Some(marked(vm, name));
        }
        if node.silent() { status::lost(self.world, vm, name, status::Loss::Silent) } else { None }
    }

    /// Deletion: the finalizer goes when nothing of the machine is left on a node.
    fn leave(&self, vm: &VirtualMachine) -> Option<Write> {
        if !finalizer::is_ours(vm) {
            return None;
        }
        let gone = || Some(finalizer::drop_ours(Kind::VirtualMachine, vm));
        let Some(name) = Binding::of(vm).node() else { return gone() };
        let node = self.world.nodes.get(name);
        if node.is_some_and(Node::removing) || condition::is_true(&world::status(vm).conditions, REMOVED) {
            return gone();
        }
        match Binding::of(vm) {
            Binding::Marked(_) if !self.was_shown(vm, name) => gone(),
            Binding::Marked(_) => {
                let disks = pinned(self.world, vm);
                node.filter(|node| self.prepared(vm, name, node))
                    .map(|_| status::bind(self.world, vm, name, disks))
            }
            Binding::Bound(_) if node.is_none() => status::lost(self.world, vm, name, status::Loss::Missing),
            Binding::Bound(_) if node.is_some_and(Node::silent) => {
                status::lost(self.world, vm, name, status::Loss::Silent)
            }
            Binding::Bound(_) | Binding::Free => None,
        }
    }

    /// Whether the node may have seen a marked machine: rights come before the name, so without them it has not.
    fn was_shown(&self, vm: &VirtualMachine, name: &str) -> bool {
        let holds = self.world.nodes.get(name).is_some_and(|node| node.holds(&vm.uid().unwrap_or_default()));
        holds || self.world.grants.show(&vm.namespace().unwrap_or_default(), name)
    }

    fn wish(&self, vm: &VirtualMachine) -> Result<Wish, status::Wait> {
        let held_by = self.holder(vm).cloned();
        let networks = match held_by {
            Some(_) => Vec::new(),
            None => self.networks(vm)?,
        };
        let room = capacity::of_machine(vm);
        let guest = vm.spec.memory.bytes().unwrap_or(0);
        Ok(Wish {
            room,
            overhead: room.memory.saturating_sub(guest),
            placement: vm.spec.placement.clone().unwrap_or_default(),
            networks,
            held_by,
        })
    }

    /// The networks it names. Until all are there nobody knows which node offers them.
    fn networks(&self, vm: &VirtualMachine) -> Result<Vec<Arc<VirtualMachineNetwork>>, status::Wait> {
        let namespace = vm.namespace().unwrap_or_default();
        let find = |name: &str| match self.networks.get(&(namespace.clone(), name.to_owned())) {
            None => Err(status::Wait::no_network(name)),
            Some(found) if self.world.unread.of(Kind::VirtualMachineNetwork, &***found).is_some() => {
                Err(status::Wait::network_unread(name))
            }
            Some(found) => Ok(Arc::clone(found)),
        };
        vm.spec.interfaces.iter().map(|interface| find(&interface.network.name)).collect()
    }

    /// The node that reports to hold it, be it as an orphan.
    fn holder(&self, vm: &VirtualMachine) -> Option<&String> {
        let uid = vm.uid().unwrap_or_default();
        let mut nodes = self.world.nodes.iter();
        nodes.find(|(_, node)| !node.removing() && node.holds(&uid)).map(|(name, _)| name)
    }

    fn unsized_on(&self, node: &str) -> Option<String> {
        let name = self.world.unsized_on(node)?;
        Some(format!("holds {name}, whose size cannot be read"))
    }

    fn candidates(&self) -> Vec<Candidate> {
        let candidate = |(name, node): (&String, &Node)| Candidate {
            name: name.clone(),
            labels: node.object.labels().clone(),
            closed: node::closed(name, node).or_else(|| self.unsized_on(name)),
            total: capacity::of_node(&node.object),
            promised: self.promised.get(name).copied().unwrap_or_default(),
            offer: node.object.status.as_ref().and_then(|status| status.networks.clone()),
        };
        self.world.nodes.iter().map(candidate).collect()
    }
}

fn networks(world: &World) -> BTreeMap<Name, &Arc<VirtualMachineNetwork>> {
    world.networks.iter().map(|network| (name(&**network), network)).collect()
}

/// The disks with the digests of their images; waits for an image that is not there.
fn digests(world: &World, vm: &VirtualMachine) -> Result<Vec<DiskStatus>, status::Wait> {
    let namespace = vm.namespace().unwrap_or_default();
    let absent = |name: &str| {
        let image = world.images.get(&(namespace.clone(), name.to_owned()));
        image.is_none_or(|image| image.metadata.deletion_timestamp.is_some())
    };
    let unread = |name: &str| {
        let image = world.images.get(&(namespace.clone(), name.to_owned()));
        image.is_some_and(|image| world.unread.of(Kind::VirtualMachineImage, &**image).is_some())
    };
    let images = vm.spec.disks.iter().filter_map(|disk| disk.image.as_ref());
    let names: BTreeSet<&str> = images.map(|image| image.name.as_str()).collect();
    if let Some(name) = names.iter().find(|name| absent(name)) {
        return Err(status::Wait::no_image(name));
    }
    match names.iter().find(|name| unread(name)) {
        Some(name) => Err(status::Wait::image_unread(name)),
        None => Ok(pinned(world, vm)),
    }
}

/// The disks with such digests as are known.
fn pinned(world: &World, vm: &VirtualMachine) -> Vec<DiskStatus> {
    let namespace = vm.namespace().unwrap_or_default();
    let digest = |name: &str| {
        world.images.get(&(namespace.clone(), name.to_owned())).map(|image| image.spec.digest.clone())
    };
    let pin = |disk: &holdfast_api::virtual_machine::Disk| DiskStatus {
        name: disk.name.clone(),
        image_digest: disk.image.as_ref().and_then(|image| digest(&image.name)).unwrap_or_default(),
        ..DiskStatus::default()
    };
    vm.spec.disks.iter().map(pin).collect()
}

/// Finalizer and annotation in one patch.
fn marked(vm: &VirtualMachine, node: &str) -> Write {
    let metadata = Meta {
        finalizers: vec![FINALIZER.to_owned()],
        annotations: BTreeMap::from([(PLACED_ON.to_owned(), node.to_owned())]),
        ..Meta::exactly(vm)
    };
    Write::new(
        Target::of(Kind::VirtualMachine, vm),
        Verb::Apply(body::<VirtualMachine>(&metadata, Nothing {})),
    )
}

/// Takes the annotation off, whichever manager is recorded as its owner: hence a merge patch and no apply.
fn unmarked(vm: &VirtualMachine) -> Write {
    #[derive(Serialize)]
    struct Patch {
        metadata: Unmark,
    }
    #[derive(Serialize)]
    struct Unmark {
        #[serde(flatten)]
        exactly: Exactly,
        annotations: BTreeMap<&'static str, Option<()>>,
    }
    let metadata = Unmark { exactly: Exactly::of(vm), annotations: BTreeMap::from([(PLACED_ON, None)]) };
    Write::new(Target::of(Kind::VirtualMachine, vm), Verb::Merge(json(&Patch { metadata })))
}

/// Neither spec nor status.
#[derive(Serialize)]
struct Nothing {}

/// A status as server-side apply, refused if the object changed since it was read.
fn apply(vm: &VirtualMachine, status: VirtualMachineStatus) -> Write {
    let body = body::<VirtualMachine>(&Meta::exactly(vm), Status { status });
    Write::new(Target::of(Kind::VirtualMachine, vm), Verb::ApplyStatus(body))
}

#[cfg(test)]
mod tests;
