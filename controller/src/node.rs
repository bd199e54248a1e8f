//! The controller's half of a `HypervisorNode`: is it ready, what is promised on it, which namespaces it serves, what it
//! shall fetch ahead; its Lease; and its end.
//!
//! A deletion that a person asked for says that the host is gone for good: its virtual machines are released first
//! ([`crate::vm`]), then its rights and its Lease go, then the finalizer.

use std::collections::BTreeSet;

use holdfast_api::condition::{self, Finding, Is};
use holdfast_api::names::{FINALIZER, SYSTEM_NAMESPACE, node_lease};
use holdfast_api::node::{HypervisorNodeStatus, NodeIdentity, NodeProblem, PrefetchImage};
use holdfast_api::{HypervisorNode, NodeEnrolment};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::{Resource, ResourceExt};
use serde::Serialize;

use crate::capacity::Room;
use crate::heartbeat::Life;
use crate::world::{Node, World, node_label};
use crate::write::{Kind, Meta, Status, Target, Tell, Verb, Weight, Write, body, json, stand, turns};
use crate::{certificate, finalizer, image};

/// Writes that bring every node's half up to date.
pub(crate) fn plan(world: &World) -> Vec<Write> {
    let promised = world.promised();
    let each = |(name, node): (&String, &Node)| {
        if node.removing() {
            return farewell(world, name, node).into_iter().collect::<Vec<_>>();
        }
        let room = promised.get(name).copied().unwrap_or_default();
        let lease = lease(world, name, node);
        // One of them at a time: each is refused if the object changed since it was read. What the node is comes first: the
        // images to fetch ahead change as often as people like.
        let own = half(world, name, node, room).or_else(|| main_part(world, node));
        [lease, own].into_iter().flatten().collect()
    };
    world.nodes.iter().flat_map(each).collect()
}

#[derive(Serialize)]
struct MainPart<'a> {
    spec: OurSpec<'a>,
}

#[derive(Serialize)]
struct OurSpec<'a> {
    #[serde(skip_serializing_if = "NodeIdentity::is_empty")]
    identity: &'a NodeIdentity,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    prefetch: &'a [PrefetchImage],
}

/// Makes the object of a node. It has no identity yet, so that one made too late gives nobody a right.
pub(crate) fn create(name: &str) -> Write {
    let metadata = Meta { name: name.to_owned(), finalizers: vec![FINALIZER.to_owned()], ..Meta::default() };
    let empty = MainPart { spec: OurSpec { identity: &NodeIdentity::default(), prefetch: &[] } };
    Write::new(
        Target::cluster(Kind::HypervisorNode, name),
        Verb::Create(body::<HypervisorNode>(&metadata, empty)),
    )
}

/// Writes our part of a node's metadata and spec, whole: apply removes what is left out.
pub(crate) fn update(node: &HypervisorNode, identity: &NodeIdentity, prefetch: &[PrefetchImage]) -> Write {
    let metadata = Meta { finalizers: vec![FINALIZER.to_owned()], ..Meta::exactly(node) };
    let body = body::<HypervisorNode>(&metadata, MainPart { spec: OurSpec { identity, prefetch } });
    Write::new(Target::of(Kind::HypervisorNode, node), Verb::Apply(body))
}

fn main_part(world: &World, node: &Node) -> Option<Write> {
    let spec = &node.object.spec;
    let wanted = image::prefetch(world, node);
    let ours = node.object.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
    if ours && spec.prefetch == wanted {
        return None;
    }
    Some(update(&node.object, &spec.identity, &wanted))
}

/// The Lease of an enrolled node, which may renew it and not create it. The node owns it, so that the cluster removes one
/// that was made too late.
fn lease(world: &World, node: &str, of: &Node) -> Option<Write> {
    let name = node_lease(node);
    if !of.enrolled() || world.leases.contains_key(&name) {
        return None;
    }
    let owner = OwnerReference { block_owner_deletion: None, controller: None, ..of.object.owner_ref(&())? };
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(SYSTEM_NAMESPACE.to_owned()),
            labels: Some(node_label(node)),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: None,
    };
    let target = Target::in_namespace(Kind::Lease, SYSTEM_NAMESPACE, name);
    Some(Write::new(target, Verb::Create(json(&lease))))
}

fn half(world: &World, name: &str, node: &Node, room: Room) -> Option<Write> {
    let findings = [ready(name, node), enrolled(world, name)];
    let status = HypervisorNodeStatus {
        namespaces: namespaces(world, name),
        allocated: Some(room.shown()),
        conditions: condition::conditions(
            node.conditions(),
            &findings,
            node.object.metadata.generation,
            &world.now,
        ),
        ..HypervisorNodeStatus::default()
    };
    let written = node.object.status.clone().unwrap_or_default();
    let urgent = written.namespaces != status.namespaces || !stand(&written.conditions, &status.conditions);
    let informs = world.unhurried && written.allocated != status.allocated;
    if !urgent && !informs {
        return None;
    }
    let target = Target::cluster(Kind::HypervisorNode, name);
    let write = Write::new(
        target,
        Verb::ApplyStatus(body::<HypervisorNode>(&Meta::exactly(&*node.object), Status { status })),
    );
    Some(with_news(write, node, &findings[0]))
}

fn with_news(write: Write, node: &Node, ready: &Finding) -> Write {
    let first = condition::find(node.conditions(), condition::READY).is_none();
    if first || !turns(node.conditions(), ready) {
        return write;
    }
    let weight = if ready.is == Is::True { Weight::Normal } else { Weight::Warning };
    let story = if ready.message.is_empty() { "the node is ready".to_owned() } else { ready.message.clone() };
    write.telling(Tell::new(&*node.object, weight, ready.reason, story))
}

/// Namespaces with a virtual machine on this node or on its way there. Before its right stands, the API would refuse the
/// node there, and it would ask again only after a pause.
fn namespaces(world: &World, name: &str) -> Vec<String> {
    let names: BTreeSet<String> = world.machines_of(name).filter_map(|vm| vm.namespace()).collect();
    names.into_iter().filter(|namespace| world.grants.show(namespace, name)).collect()
}

/// What a node may say of itself as the reason of its condition; whatever else it says has one name.
const PROBLEMS: [&str; 5] = [
    condition::HYPERVISOR_UNREACHABLE,
    condition::STATE_UNREACHABLE,
    condition::STATE_READ_ONLY,
    condition::DISK_FULL,
    condition::CLOCK_JUMPED,
];

fn problem(problem: &NodeProblem) -> Finding {
    let known = PROBLEMS.into_iter().find(|reason| *reason == problem.reason);
    Finding::new(condition::READY, false, known.unwrap_or("NodeProblem"), problem.message.clone())
}

/// Whether the node can run guests.
pub(crate) fn ready(name: &str, node: &Node) -> Finding {
    let status = node.object.status.as_ref();
    let reported = status.is_some_and(|status| status.capacity.is_some() && status.accelerator.is_some());
    let accelerator = status.and_then(|status| status.accelerator.as_ref());
    let unproved = accelerator.filter(|accelerator| !accelerator.proved);
    let gravest = status.and_then(|status| status.problems.first());
    match (node.silent(), reported, gravest, unproved) {
        (true, false, ..) => Finding::new(
            condition::READY,
            Is::Unknown,
            "NotYetSeen",
            format!("{name} has not reported yet: see that holdfast-node runs there and reaches the API"),
        ),
        (true, true, ..) => Finding::new(
            condition::READY,
            Is::Unknown,
            "NodeLost",
            format!(
                "{name} is silent: its guests run on there and are not started elsewhere; see that holdfast-node runs \
                 and reaches the API, or delete this HypervisorNode if the host is gone for good"
            ),
        ),
        (false, false, ..) => Finding::new(
            condition::READY,
            false,
            "NotReported",
            format!("{name} has not reported its capacity yet"),
        ),
        (false, true, Some(gravest), _) => problem(gravest),
        (false, true, None, Some(accelerator)) => {
            Finding::new(condition::READY, false, "AcceleratorNotProved", accelerator.message.clone())
        }
        (false, true, None, None) => Finding::new(condition::READY, true, "NodeReady", ""),
    }
}

/// Why nothing can be placed on the node; `None` when it is open.
pub(crate) fn closed(name: &str, node: &Node) -> Option<String> {
    if node.removing() {
        return Some("is being removed".to_owned());
    }
    if node.hidden {
        return Some("cannot be read whole (its events say what of it)".to_owned());
    }
    if node.object.spec.unschedulable {
        return Some("is cordoned".to_owned());
    }
    let ready = ready(name, node);
    match ready.reason {
        // It was ready when the last controller ended, and may have died since.
        "NodeReady" if node.life == Life::Unproven => {
            Some("has not been heard from since this controller started".to_owned())
        }
        "NodeReady" => None,
        "NodeLost" => Some("is silent".to_owned()),
        "NotYetSeen" | "NotReported" => Some("has not reported yet".to_owned()),
        _ => Some(format!("cannot run guests ({})", ready.message)),
    }
}

fn enrolled(world: &World, name: &str) -> Finding {
    let theirs = world.enrolments.iter().filter(|request| request.spec.node_name == name);
    let end = theirs.filter_map(|request| end_of_certificate(request)).max_by_key(|end| end.0);
    match end {
        Some(end) if end.0 > world.now.0 => Finding::new(condition::ENROLLED, true, "CertificateCurrent", ""),
        Some(_) => Finding::new(
            condition::ENROLLED,
            false,
            "CertificateExpired",
            format!(
                "the certificate of {name} has expired: the node asks for another one by itself once it reaches the API"
            ),
        ),
        None => Finding::new(
            condition::ENROLLED,
            Is::Unknown,
            "NoCertificateKnown",
            format!(
                "no NodeEnrolment with a certificate for {name} is left, so nobody knows until when it is valid"
            ),
        ),
    }
}

fn end_of_certificate(request: &NodeEnrolment) -> Option<Time> {
    certificate::end(&request.status.as_ref()?.certificate)
}

/// The next step of removing a node whose virtual machines are all released.
fn farewell(world: &World, name: &str, node: &Node) -> Option<Write> {
    let ours = node.object.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
    if !ours || world.machines_of(name).next().is_some() || world.grants.any_of(name) {
        return None;
    }
    let lease = node_lease(name);
    if let Some(exactly) = world.leases.get(&lease) {
        let target = Target::in_namespace(Kind::Lease, SYSTEM_NAMESPACE, lease);
        return Some(Write::new(target, Verb::Delete(exactly.clone())));
    }
    let write = finalizer::drop_ours(Kind::HypervisorNode, &*node.object);
    Some(write.telling(Tell::new(
        &*node.object,
        Weight::Normal,
        "NodeRemoved",
        format!("{name} was removed with all its rights"),
    )))
}
