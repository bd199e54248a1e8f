//! Lets nodes in: each pass plans the next write of each `NodeEnrolment`.
//!
//! ```text
//! judge ─► HypervisorNode ─► its identity ─► Lease ─► rights ─► signing request ─► approval ─► certificate in status
//! ```
//!
//! The order makes each write a harmless place to die: a certificate exists only when all that confines it does. A request
//! with a certificate is finished; it is kept until that certificate ends, because it reserves the name.

use std::collections::BTreeMap;

use holdfast_api::condition::{self, Finding};
use holdfast_api::names::node_lease;
use holdfast_api::node::NodeIdentity;
use holdfast_api::node_enrolment::{EnrolmentMode, NodeEnrolmentStatus};
use holdfast_api::{HypervisorNode, NodeEnrolment};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::SignedDuration;
use kube::ResourceExt;

use crate::access;
use crate::certificate;
use crate::csr::{self, Checked};
use crate::node;
use crate::signing::{self, Signing};
use crate::world::{Node, World};
use crate::write::{Exactly, Kind, Meta, Status, Target, Tell, Verb, Weight, Write, body, stand, turns};

/// Undecided requests are deleted after a week, because the install credential can create any number of them.
const KEPT_UNFINISHED: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Judging a request costs a signature check in every pass, and a write of its own; whoever steals the install credential
/// must not be able to keep the controller from its other work. Half of what a pass writes.
const MOST_OPEN: usize = 64;
/// Of these, as many for one name: a node has one request under way, and another after it was reinstalled.
const MOST_OF_A_NAME: usize = 4;
/// Grants end in these words, so a node of that name would share the name of another node's grant.
const RESERVED_ENDINGS: [&str; 2] = ["-vms", "-secrets"];

/// What shall become of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Decision {
    /// Let in, and why.
    Grant(&'static str),
    /// A person must decide; the sentence says why.
    Ask(String),
    /// Turned away.
    Refuse { reason: &'static str, message: String },
}

/// Who is looked at first. What a person or an enrolled key stands behind never queues behind what anybody can send;
/// neither does a new request behind those that wait.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    /// A person approved it.
    Approved,
    /// It claims the key of the enrolled node.
    Renews,
    /// Nothing was said to it yet.
    New,
    /// It waits for a person, or for the cluster to sign.
    Waits,
}

/// The next write of each request, of so many.
pub(crate) fn plan(world: &World, access: &access::Plan) -> Vec<Write> {
    let all = world.enrolments.iter().map(|request| &**request);
    let whole = |request: &&NodeEnrolment| world.unread.of(Kind::NodeEnrolment, *request).is_none();
    let over = all.filter(whole).filter(|request| !leaves(request) && is_over(world, request)).map(delete);
    let steps = looked_at(world).into_iter().filter_map(|request| next(world, access, request));
    steps.chain(over).take(MOST_OPEN).collect()
}

/// The open requests that have their turn.
fn looked_at(world: &World) -> Vec<&NodeEnrolment> {
    let all = world.enrolments.iter().map(|request| &**request);
    let mut open: Vec<_> = all.filter_map(|request| Some((turn(world, request)?, request))).collect();
    open.sort_by_cached_key(|(turn, request)| (*turn, request.creation_timestamp(), request.name_any()));
    let mut of_name: BTreeMap<&str, usize> = BTreeMap::new();
    open.retain(|(turn, request)| {
        let count = of_name.entry(&request.spec.node_name).or_default();
        *count += 1;
        *turn == Turn::Approved || *count <= MOST_OF_A_NAME
    });
    open.into_iter().take(MOST_OPEN).map(|(_, request)| request).collect()
}

/// `None` for one with which nothing is left to do.
fn turn(world: &World, request: &NodeEnrolment) -> Option<Turn> {
    let unread = world.unread.of(Kind::NodeEnrolment, request).is_some();
    let done = leaves(request) || !certificate_of(request).is_empty() || refused(request);
    if unread || done || is_over(world, request) {
        return None;
    }
    if says(request, condition::APPROVED) {
        return Some(Turn::Approved);
    }
    let enrolled = world.nodes.get(&request.spec.node_name).map(|node| &node.object.spec.identity.key_sha256);
    if enrolled.is_some_and(|key| csr::claimed_key(&request.spec.csr).as_ref() == Some(key)) {
        return Some(Turn::Renews);
    }
    Some(if issued(request).is_some() { Turn::Waits } else { Turn::New })
}

/// Whether it was told that it is turned away; as its request cannot change, an invalid one stays so.
fn refused(request: &NodeEnrolment) -> bool {
    let reason = issued(request).map(|issued| issued.reason.as_str());
    reason == Some("InvalidRequest") || (reason == Some("Rejected") && says(request, condition::REJECTED))
}

fn issued(request: &NodeEnrolment) -> Option<&Condition> {
    condition::find(&request.status.as_ref()?.conditions, condition::ISSUED)
}

fn leaves(request: &NodeEnrolment) -> bool {
    request.metadata.deletion_timestamp.is_some()
}

fn delete(request: &NodeEnrolment) -> Write {
    Write::new(Target::of(Kind::NodeEnrolment, request), Verb::Delete(Exactly::of(request)))
}

fn next(world: &World, access: &access::Plan, request: &NodeEnrolment) -> Option<Write> {
    let checked = match judge(request) {
        Ok(checked) => checked,
        Err(message) => return report(world, request, "InvalidRequest", message),
    };
    match decide(world, request, &checked) {
        Decision::Refuse { reason, message } => report(world, request, reason, message),
        Decision::Ask(message) => report(world, request, "WaitsForApproval", message),
        Decision::Grant(why) => admit(world, access, request, &checked, why),
    }
}

/// Whether nobody needs the request any more.
fn is_over(world: &World, request: &NodeEnrolment) -> bool {
    // It is the only record that somebody turned this key away, so it stays until a person deletes it.
    if says(request, condition::REJECTED) {
        return false;
    }
    let certificate = certificate_of(request);
    if !certificate.is_empty() {
        return certificate::end(certificate).is_none_or(|end| end.0 < world.now.0);
    }
    let made = request.metadata.creation_timestamp.as_ref();
    made.is_some_and(|made| world.now.0.duration_since(made.0) > KEPT_UNFINISHED)
}

fn judge(request: &NodeEnrolment) -> Result<Checked, String> {
    let name = &request.spec.node_name;
    if let Some(ending) = RESERVED_ENDINGS.iter().find(|ending| name.ends_with(*ending)) {
        return Err(format!(
            "spec.nodeName must not end in {ending}: the rights of other nodes are named so; choose another name"
        ));
    }
    csr::check(&request.spec.csr, name).map_err(|refused| refused.to_string())
}

/// Whether it could not be read whose name this is. Nothing else that a node says of itself keeps its key from renewal.
fn identity_unread(world: &World, node: &Node) -> bool {
    let faults = world.unread.of(Kind::HypervisorNode, &*node.object);
    faults.is_some_and(|faults| {
        ["spec.identity", "metadata.deletionTimestamp"].iter().any(|field| faults.touch(field))
    })
}

fn decide(world: &World, request: &NodeEnrolment, checked: &Checked) -> Decision {
    let name = &request.spec.node_name;
    if says(request, condition::REJECTED) {
        return Decision::Refuse {
            reason: "Rejected",
            message: format!("the request of {name} was rejected"),
        };
    }
    let node = world.nodes.get(name);
    if node.is_some_and(Node::removing) {
        return Decision::Ask(format!("{name} is being removed; the request is judged when that is done"));
    }
    if node.is_some_and(|node| identity_unread(world, node)) {
        return Decision::Ask(format!("{name} cannot be read; the request is judged once it is corrected"));
    }
    if says(request, condition::APPROVED) {
        return approved(world, request, checked);
    }
    let known = node.map(|node| &node.object.spec.identity.key_sha256).filter(|key| !key.is_empty());
    if rejected_before(world, request, checked) {
        return ask(request, "a request with the same key was rejected; it counts until somebody deletes it");
    }
    // Somebody let this key in before, so it is renewed however it is kept; or a fleet would be lost in one day.
    if known == Some(&checked.key_sha256) {
        return Decision::Grant("SameIdentity");
    }
    let EnrolmentMode::InsecureDev = request.spec.mode;
    if !world.settings.accept_insecure_dev {
        return ask(
            request,
            "its key lies in a file, and this controller accepts no new one of that kind by itself \
             (--accept-insecure-dev)",
        );
    }
    match known {
        Some(_) => ask(request, "a node of that name is enrolled with another key"),
        None if reserved(world, request) => {
            ask(request, "a node of that name was removed, and its certificate is still valid")
        }
        None => Decision::Grant("FreeName"),
    }
}

/// Of two that were approved under one name with different keys the newer one counts: both in turn would each take the
/// name from the other.
fn approved(world: &World, request: &NodeEnrolment, checked: &Checked) -> Decision {
    let age = |request: &NodeEnrolment| (request.creation_timestamp(), request.name_any());
    let newer = others(world, request)
        .filter(|other| says(other, condition::APPROVED) && !says(other, condition::REJECTED))
        .filter(|other| age(other) > age(request))
        .find(|other| judge(other).is_ok_and(|theirs| theirs.key_sha256 != checked.key_sha256));
    match newer {
        None => Decision::Grant("Approved"),
        Some(newer) => Decision::Refuse {
            reason: "Superseded",
            message: format!(
                "{}, a newer request for {} with another key, was approved as well: delete that one to let this one in \
                 instead",
                newer.name_any(),
                request.spec.node_name
            ),
        },
    }
}

fn ask(request: &NodeEnrolment, why: &str) -> Decision {
    let name = request.name_any();
    Decision::Ask(format!(
        "{} waits for a person: {why}; decide with kubectl patch henrol {name} --subresource=status, by a condition \
         Approved or Rejected that is True",
        request.spec.node_name
    ))
}

/// Whether a certificate for this name, of another request, is still valid.
fn reserved(world: &World, request: &NodeEnrolment) -> bool {
    others(world, request)
        .any(|other| certificate::end(certificate_of(other)).is_some_and(|end| end.0 > world.now.0))
}

/// Whether somebody turned this key away, under whatever name. Whoever read a request can send it again, so a person who
/// rejects the copy turns the honest node away, too; deleting the rejected request undoes that.
fn rejected_before(world: &World, request: &NodeEnrolment, checked: &Checked) -> bool {
    let all = world.enrolments.iter().map(|other| &**other);
    all.filter(|other| other.metadata.name != request.metadata.name && says(other, condition::REJECTED))
        .filter(|other| csr::claimed_key(&other.spec.csr).as_ref() == Some(&checked.key_sha256))
        .any(|other| csr::check(&other.spec.csr, &other.spec.node_name).is_ok())
}

fn others<'a>(world: &'a World, request: &'a NodeEnrolment) -> impl Iterator<Item = &'a NodeEnrolment> {
    let same_name = |other: &&NodeEnrolment| other.spec.node_name == request.spec.node_name;
    let others = world.enrolments.iter().map(|other| &**other);
    others.filter(same_name).filter(|other| other.metadata.name != request.metadata.name)
}

/// The next write of letting a node in.
fn admit(
    world: &World,
    access: &access::Plan,
    request: &NodeEnrolment,
    checked: &Checked,
    why: &'static str,
) -> Option<Write> {
    let name = request.spec.node_name.as_str();
    let Some(node) = world.nodes.get(name) else { return Some(node::create(name)) };
    if node.object.spec.identity.key_sha256 != checked.key_sha256 {
        let identity = NodeIdentity { key_sha256: checked.key_sha256.clone(), ek_sha256: String::new() };
        return Some(node::update(&node.object, &identity, &node.object.spec.prefetch));
    }
    // Both are made for every enrolled node.
    if !world.leases.contains_key(&node_lease(name)) || !access.granted_own(name) {
        return None;
    }
    match signing::next(world, request, checked) {
        Signing::Do(write) => Some(write),
        Signing::Wait => None,
        Signing::Late(message) => report(world, request, "WaitsForSignature", message),
        Signing::Failed(message) => report(world, request, "SigningFailed", message),
        Signing::Signed(certificate) => Some(issue(world, request, &node.object, certificate, why)),
    }
}

/// The last write: the certificate, and what let the node in.
fn issue(
    world: &World,
    request: &NodeEnrolment,
    node: &HypervisorNode,
    certificate: String,
    why: &'static str,
) -> Write {
    let name = &request.spec.node_name;
    let mut findings = vec![Finding::new(condition::ISSUED, true, "CertificateIssued", "")];
    if !says(request, condition::APPROVED) {
        findings.push(Finding::new(condition::APPROVED, true, why, "approved by policy"));
    }
    let write = status(world, request, &findings, certificate);
    let story = format!("{name} was let in ({why}) by {}", request.name_any());
    write.telling(Tell::new(node, Weight::Normal, "NodeEnrolled", story))
}

/// Says why there is no certificate, once.
fn report(world: &World, request: &NodeEnrolment, reason: &'static str, message: String) -> Option<Write> {
    let finding = Finding::new(condition::ISSUED, false, reason, message);
    let found = request.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let wanted =
        condition::conditions(found, std::slice::from_ref(&finding), request.metadata.generation, &world.now);
    if stand(found, &wanted) {
        return None;
    }
    let turns = turns(found, &finding);
    let write = status(world, request, std::slice::from_ref(&finding), String::new());
    Some(if turns {
        write.telling(Tell::new(request, Weight::Warning, reason, finding.message))
    } else {
        write
    })
}

fn status(world: &World, request: &NodeEnrolment, findings: &[Finding], certificate: String) -> Write {
    let found = request.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let status = NodeEnrolmentStatus {
        challenge: String::new(),
        certificate,
        conditions: condition::conditions(found, findings, request.metadata.generation, &world.now),
    };
    let target = Target::of(Kind::NodeEnrolment, request);
    Write::new(target, Verb::ApplyStatus(body::<NodeEnrolment>(&Meta::exactly(request), Status { status })))
}

fn certificate_of(request: &NodeEnrolment) -> &str {
    request.status.as_ref().map_or("", |status| &status.certificate)
}

fn says(request: &NodeEnrolment, type_: &str) -> bool {
    request.status.as_ref().is_some_and(|status| condition::is_true(&status.conditions, type_))
}

#[cfg(test)]
pub(crate) mod tests;
