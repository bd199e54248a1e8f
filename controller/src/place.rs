//! Chooses a node for a virtual machine, or says of each node why it cannot be that one. Pure and deterministic.
//!
//! A node is a candidate when it is ready, not cordoned, matches the placement hints, offers the networks and has room. Of several, the one
//! that keeps the largest free share of its scarcest resource wins, so that virtual machines spread; equal nodes by name.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use holdfast_api::offer::{Lack, NetworkOffer};
use holdfast_api::virtual_machine::Placement;
use holdfast_api::{Quantity, VirtualMachineNetwork};
use kube::ResourceExt;

use crate::capacity::Room;

/// More reasons than this help nobody, and a message has an end.
const REASONS_SHOWN: usize = 8;

/// What is asked of a node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    pub(crate) room: Room,
    /// Of `room.memory`, what the hypervisor itself takes.
    pub(crate) overhead: u64,
    pub(crate) placement: Placement,
    /// The networks its interfaces are connected to.
    pub(crate) networks: Vec<Arc<VirtualMachineNetwork>>,
    /// The only node that may take it, whatever its room, because it holds it already.
    pub(crate) held_by: Option<String>,
}

/// A node as placement sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Candidate {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// Why nothing can be placed there, such as `is cordoned`; `None` for a node that is ready and schedulable.
    pub(crate) closed: Option<String>,
    pub(crate) total: Room,
    pub(crate) promised: Room,
    /// What guests may be connected to there; a daemon that does not tell takes everything.
    pub(crate) offer: Option<NetworkOffer>,
}

impl Candidate {
    fn left(&self) -> Room {
        self.total.minus(self.promised)
    }
}

/// The name of the node to place on, or a sentence that says why there is none and what would help.
pub(crate) fn place(wish: &Wish, nodes: &[Candidate]) -> Result<String, String> {
    let mut refusals = Vec::new();
    let mut fitting = Vec::new();
    for node in nodes {
        match refusal(wish, node) {
            Some(reason) => refusals.push(format!("{} {reason}", node.name)),
            None => fitting.push(node),
        }
    }
    fitting.sort_by(|a, b| keeps(wish, b).cmp(&keeps(wish, a)).then_with(|| a.name.cmp(&b.name)));
    match fitting.first() {
        Some(node) => Ok(node.name.clone()),
        None => Err(sentence(wish, &refusals, nodes)),
    }
}

/// Why this node cannot take it; `None` if it can.
fn refusal(wish: &Wish, node: &Candidate) -> Option<String> {
    if let Some(holder) = &wish.held_by {
        return (*holder != node.name).then(|| format!("does not hold it, {holder} does"));
    }
    let named = wish.placement.node_name.as_str();
    if !named.is_empty() && named != node.name {
        return Some(format!("is not {named}, which spec.placement.nodeName asks for"));
    }
    missing_label(wish, node)
        .or_else(|| missing_network(wish, node))
        .or_else(|| node.closed.clone())
        .or_else(|| shortage(wish, node))
}

fn missing_network(wish: &Wish, node: &Candidate) -> Option<String> {
    let offer = node.offer.as_ref()?;
    let mut lacks = wish.networks.iter().filter_map(|it| Some((it.name_any(), offer.lacks(&it.spec)?)));
    lacks.next().map(|(network, Lack { what, remedy })| {
        format!("does not offer guests {what}, which network {network} names ({remedy})")
    })
}

fn missing_label(wish: &Wish, node: &Candidate) -> Option<String> {
    let selector = &wish.placement.node_selector;
    let missing = selector.iter().find(|(key, value)| node.labels.get(*key) != Some(*value));
    missing.map(|(key, value)| {
        format!("does not have the label {key}={value}, which spec.placement.nodeSelector asks for")
    })
}

fn shortage(wish: &Wish, node: &Candidate) -> Option<String> {
    let (left, need) = (node.left(), wish.room);
    if need.memory > left.memory {
        return Some(format!(
            "has {} of memory left, {} are needed ({} of them for the hypervisor)",
            floor(left.memory),
            Quantity::from_bytes(need.memory),
            Quantity::from_bytes(wish.overhead),
        ));
    }
    if need.cpu > left.cpu {
        return Some(format!(
            "has {} of {} virtual processors left, {} are needed",
            left.cpu, node.total.cpu, need.cpu
        ));
    }
    (need.storage > left.storage).then(|| {
        format!(
            "has {} of disk space left, {} are needed",
            floor(left.storage),
            Quantity::from_bytes(need.storage)
        )
    })
}

/// What is left, rounded down: a message must not promise a byte too much.
fn floor(bytes: u64) -> Quantity {
    Quantity::from_bytes(bytes >> 20 << 20)
}

/// Share of the scarcest resource that stays free on the node, in parts of 1024.
fn keeps(wish: &Wish, node: &Candidate) -> u128 {
    let (after, total) = (node.left().minus(wish.room), node.total);
    [(after.cpu, total.cpu), (after.memory, total.memory), (after.storage, total.storage)]
        .into_iter()
        .filter(|(_, total)| *total > 0)
        .map(|(after, total)| u128::from(after) * 1024 / u128::from(total))
        .min()
        .unwrap_or(0)
}

fn sentence(wish: &Wish, refusals: &[String], nodes: &[Candidate]) -> String {
    let named = wish.placement.node_name.as_str();
    if nodes.is_empty() {
        return "no node can take it: none has enrolled yet (kubectl get henrol shows who asked)".to_owned();
    }
    if !named.is_empty() {
        let theirs = refusals
            .iter()
            .find(|refusal| refusal.strip_prefix(named).is_some_and(|rest| rest.starts_with(' ')));
        return match theirs.filter(|_| nodes.iter().any(|node| node.name == named)) {
            Some(reason) => format!("no node can take it: {reason}"),
            None => format!(
                "no node can take it: no node named {named} has enrolled, and spec.placement.nodeName asks for it"
            ),
        };
    }
    format!("no node can take it: {}", first_few(refusals))
}

/// What nodes say, as far as it helps.
pub(crate) fn first_few(reasons: &[String]) -> String {
    let mut text = reasons[..reasons.len().min(REASONS_SHOWN)].join("; ");
    if reasons.len() > REASONS_SHOWN {
        // Writing to a String cannot fail.
        write!(text, "; and {} more", reasons.len() - REASONS_SHOWN).ok();
    }
    text
}

#[cfg(test)]
mod tests;
