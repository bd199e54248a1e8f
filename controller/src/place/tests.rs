use proptest::prelude::*;

use super::*;
use holdfast_api::network::{Bridge, VirtualMachineNetworkSpec};
use holdfast_api::offer::OfferedBridge;

const GIB: u64 = 1 << 30;

fn room(cpu: u64, gib: u64) -> Room {
    Room { cpu, memory: gib * GIB, storage: gib * 10 * GIB }
}

fn node(name: &str, total: Room, promised: Room) -> Candidate {
    Candidate { name: name.to_owned(), total, promised, ..Candidate::default() }
}

fn wish(room: Room) -> Wish {
    Wish { room, ..Wish::default() }
}

#[test]
fn the_emptier_node_is_chosen() {
    let nodes = [node("edge-1", room(8, 16), room(4, 8)), node("edge-2", room(8, 16), room(1, 2))];
    assert_eq!(place(&wish(room(1, 1)), &nodes), Ok("edge-2".to_owned()));
}

#[test]
fn equal_nodes_are_taken_by_name_whatever_their_order() {
    let mut nodes = vec![node("edge-2", room(8, 16), room(0, 0)), node("edge-1", room(8, 16), room(0, 0))];
    assert_eq!(place(&wish(room(1, 1)), &nodes), Ok("edge-1".to_owned()));
    nodes.reverse();
    assert_eq!(place(&wish(room(1, 1)), &nodes), Ok("edge-1".to_owned()));
}

#[test]
fn each_node_says_why_it_cannot() {
    let mut cordoned = node("edge-1", room(8, 16), room(0, 0));
    cordoned.closed = Some("is cordoned".to_owned());
    let mut full = node("edge-2", room(8, 2), room(0, 0));
    full.promised.memory = 2 * GIB - (512 << 20);
    let mut asked = wish(room(1, 2));
    asked.overhead = 76 << 20;
    let busy = node("edge-3", room(2, 16), room(2, 0));
    assert_eq!(
        place(&asked, &[cordoned, full, busy]).unwrap_err(),
        "no node can take it: edge-1 is cordoned; edge-2 has 512Mi of memory left, 2Gi are needed (76Mi of them for \
         the hypervisor); edge-3 has 0 of 2 virtual processors left, 1 are needed"
    );
}

fn on_bridge(name: &str, vlan: Option<i32>) -> Arc<VirtualMachineNetwork> {
    let bridge = Some(Bridge { name: name.to_owned(), vlan });
    let spec = VirtualMachineNetworkSpec { bridge, ..VirtualMachineNetworkSpec::default() };
    Arc::new(VirtualMachineNetwork::new("plant", spec))
}

fn offering(name: &str, vlans: &[&str]) -> Candidate {
    let vlans = vlans.iter().map(ToString::to_string).collect();
    let bridge = OfferedBridge { name: "br0".to_owned(), vlans, trusted: false };
    let offer = NetworkOffer { subnet_pools: vec!["10.88.0.0/16".to_owned()], bridges: vec![bridge] };
    Candidate { offer: Some(offer), ..node(name, room(8, 16), room(0, 0)) }
}

#[test]
fn a_node_that_offers_the_networks_is_chosen_and_where_none_does_each_says_so() {
    let mut older = node("edge-0", room(8, 16), room(7, 14));
    let nodes = [older.clone(), offering("edge-1", &["untagged"]), offering("edge-2", &["100-199"])];
    let mut asked = wish(room(1, 1));
    asked.networks = vec![on_bridge("br0", Some(120))];
    assert_eq!(place(&asked, &nodes), Ok("edge-2".to_owned()));
    asked.networks = vec![on_bridge("br0", None)];
    assert_eq!(place(&asked, &nodes), Ok("edge-1".to_owned()));
    asked.networks.push(on_bridge("cni0", None));
    assert_eq!(
        place(&asked, &nodes),
        Ok("edge-0".to_owned()),
        "an older daemon does not tell what it offers"
    );
    older.closed = Some("is cordoned".to_owned());
    let nodes = [older, nodes[1].clone(), nodes[2].clone()];
    assert_eq!(
        place(&asked, &nodes).unwrap_err(),
        "no node can take it: edge-0 is cordoned; edge-1 does not offer guests bridge cni0, which network plant names \
         (list it under bridges in its node.yaml); edge-2 does not offer guests untagged traffic on bridge br0, which \
         network plant names (list it under bridges in its node.yaml)"
    );
    // Whoever holds it already keeps it, and says itself what is in the way of a start.
    asked.held_by = Some("edge-1".to_owned());
    assert_eq!(place(&asked, &nodes), Ok("edge-1".to_owned()));
}

#[test]
fn the_hints_are_obeyed_or_named() {
    let mut here = node("edge-1", room(8, 16), room(0, 0));
    here.labels.insert("zone".to_owned(), "a".to_owned());
    let there = node("edge-2", room(8, 16), room(0, 0));
    let nodes = [here, there];
    let mut asked = wish(room(1, 1));
    asked.placement.node_name = "edge-2".to_owned();
    assert_eq!(place(&asked, &nodes), Ok("edge-2".to_owned()));
    asked.placement.node_selector.insert("zone".to_owned(), "a".to_owned());
    assert_eq!(
        place(&asked, &nodes).unwrap_err(),
        "no node can take it: edge-2 does not have the label zone=a, which spec.placement.nodeSelector asks for"
    );
    asked.placement.node_name.clear();
    assert_eq!(place(&asked, &nodes), Ok("edge-1".to_owned()));
    asked.placement.node_name = "edge-9".to_owned();
    assert!(place(&asked, &nodes).unwrap_err().contains("no node named edge-9 has enrolled"));
}

#[test]
fn a_node_that_holds_it_is_the_only_one_even_when_full() {
    let full = node("edge-1", room(1, 1), room(1, 1));
    let empty = node("edge-2", room(8, 16), room(0, 0));
    let asked = Wish { held_by: Some("edge-1".to_owned()), ..wish(room(1, 1)) };
    assert_eq!(place(&asked, &[full, empty]), Ok("edge-1".to_owned()));
}

#[test]
fn without_nodes_the_sentence_says_where_to_look() {
    assert!(place(&wish(room(1, 1)), &[]).unwrap_err().contains("kubectl get henrol"));
}

fn any_room() -> impl Strategy<Value = Room> {
    (0..64_u64, 0..64_u64, 0..64_u64).prop_map(|(cpu, memory, storage)| Room {
        cpu,
        memory: memory * GIB,
        storage: storage * GIB,
    })
}

/// Every machine needs some of everything.
fn any_need() -> impl Strategy<Value = Room> {
    any_room().prop_map(|room| room.plus(Room { cpu: 1, memory: GIB, storage: GIB }))
}

fn any_node() -> impl Strategy<Value = Candidate> {
    (0..6_u8, any_room(), any_room(), any::<bool>()).prop_map(|(name, total, promised, closed)| Candidate {
        name: format!("edge-{name}"),
        total,
        promised,
        closed: closed.then(|| "is cordoned".to_owned()),
        ..Candidate::default()
    })
}

proptest! {
    #[test]
    fn a_chosen_node_is_open_and_has_room(need in any_need(), nodes in prop::collection::vec(any_node(), 0..8)) {
        if let Ok(name) = place(&wish(need), &nodes) {
            prop_assert!(nodes.iter().any(|node| node.name == name
                && node.closed.is_none()
                && need.cpu + node.promised.cpu <= node.total.cpu
                && need.memory + node.promised.memory <= node.total.memory
                && need.storage + node.promised.storage <= node.total.storage));
        }
    }

    #[test]
    fn nothing_waits_while_an_open_node_has_room(need in any_need(), nodes in prop::collection::vec(any_node(), 0..8)) {
        let fits = nodes.iter().any(|node| node.closed.is_none()
            && need.plus(node.promised).minus(node.total) == Room::default());
        prop_assert!(!fits || place(&wish(need), &nodes).is_ok());
    }

    #[test]
    fn the_order_of_the_nodes_does_not_matter(need in any_need(), nodes in prop::collection::vec(any_node(), 0..8)) {
        let unique: std::collections::BTreeMap<_, _> = nodes.into_iter().map(|node| (node.name.clone(), node)).collect();
        let forward: Vec<_> = unique.into_values().collect();
        let backward: Vec<_> = forward.iter().rev().cloned().collect();
        prop_assert_eq!(place(&wish(need), &forward).ok(), place(&wish(need), &backward).ok());
    }

    #[test]
    fn every_refusal_starts_with_the_same_words(need in any_need(), nodes in prop::collection::vec(any_node(), 0..20)) {
        if let Err(sentence) = place(&wish(need), &nodes) {
            prop_assert!(sentence.starts_with("no node can take it: "));
            prop_assert!(sentence.len() < 1024);
        }
    }
}
