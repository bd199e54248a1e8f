use uuid::Uuid;

use super::*;

pub(super) fn port(digit: u8, kind: Kind) -> Port {
    let network =
        NetworkRecord { uid: Uuid::from_u128(u128::from(digit) << 96), name: "shop/lan".into(), kind };
    Port {
        device: format!("hft000000000{digit}"),
        mac: [0x52, 0x54, 0, 0, 0xab, digit],
        network,
        listed: Vec::new(),
        leased: Vec::new(),
    }
}

pub(super) fn bridge(name: &str, vlan: Option<i32>) -> Kind {
    Kind::Bridge {
        name: name.to_owned().try_into().unwrap(),
        vlan: vlan.map(|vlan| vlan.try_into().unwrap()),
    }
}

/// Where guests may send what they like.
pub(super) fn trusts(network: &NetworkRecord) -> bool {
    matches!(&network.kind, Kind::Bridge { name, .. } if name.as_str() == "br-lab")
}

/// One guest of each kind.
fn guests() -> Vec<Port> {
    let listed = vec!["192.168.120.10".parse().unwrap(), "fd00::10".parse().unwrap()];
    let leased = vec![[10, 88, 5, 7].into()];
    vec![
        Port { leased: leased.clone(), ..port(1, Kind::Nat { subnet: None }) },
        port(2, Kind::Isolated { subnet: None }),
        port(3, bridge("br0", None)),
        Port { listed, leased, ..port(4, bridge("br0", Some(120))) },
        port(5, bridge("br-lab", Some(7))),
    ]
}

/// What fills the sets; the rules themselves stand in `rules.nft` for people to read.
fn elements(ports: &[Port]) -> String {
    let text = text(ports, trusts);
    text.strip_prefix(RULES).unwrap().to_owned()
}

#[test]
fn each_guest_is_let_speak_as_itself_and_reach_what_its_network_allows() {
    insta::assert_snapshot!("elements", elements(&guests()));
}

#[test]
fn the_order_of_the_guests_changes_nothing() {
    let mut reversed = guests();
    reversed.reverse();
    assert_eq!(elements(&reversed), elements(&guests()));
}

#[test]
fn without_guests_the_sets_are_empty() {
    assert_eq!(elements(&[]), "");
}

#[test]
fn every_set_that_is_filled_anew_is_emptied_first() {
    for set in RULES.lines().filter_map(|line| line.trim().strip_prefix("set ")) {
        let name = set.split(' ').next().unwrap();
        let kept = ["leased", "metadata"].contains(&name);
        let flushed = RULES.contains(&format!(" holdfast {name}\n"));
        assert_eq!(flushed, !kept, "{name}");
    }
}

#[test]
fn a_device_that_two_guests_have_is_closed_to_both() {
    let (mut one, other) = (port(7, bridge("br0", None)), port(8, bridge("br1", None)));
    one.device.clone_from(&other.device);
    let text = text(&[one, other.clone(), port(9, bridge("br1", None))], |network| network.bridge() == "br0");
    assert!(!text[RULES.len()..].contains(&other.device), "neither trusted nor anybody's address");
    assert!(text[RULES.len()..].contains("hft0000000009"), "the others go on");
}
