use super::*;
use crate::libvirt::golden::pretty;
use crate::libvirt::read;

fn spec(kind: NetworkKind) -> NetworkSpec {
    NetworkSpec {
        uuid: Uuid::from_u128(0x1111_2222_3333_4444_8555_6666_7777_8888),
        name: "shop.default-11112222".into(),
        record: r#"{"uid":"11112222","name":"default"}"#.into(),
        bridge: "hf1111222233".into(),
        kind,
        subnet: Subnet { address: Ipv4Addr::new(10, 20, 0, 0), prefix: 24 },
    }
}

#[test]
fn a_nat_network_is_written_as_agreed() {
    insta::assert_snapshot!("nat", pretty(&to_xml(&spec(NetworkKind::Nat)).unwrap()));
}

#[test]
fn an_isolated_network_is_written_as_agreed() {
    insta::assert_snapshot!("isolated", pretty(&to_xml(&spec(NetworkKind::Isolated)).unwrap()));
}

#[test]
fn what_is_written_is_read_back() {
    let spec = NetworkSpec { record: "<&\"'> ünïcode".into(), ..spec(NetworkKind::Nat) };
    let fields = read::network(&to_xml(&spec).unwrap());
    assert_eq!(fields.bridge.as_deref(), Some("hf1111222233"));
    assert_eq!(fields.forward.as_deref(), Some("nat"));
    assert_eq!(fields.subnets, [Subnet { address: Ipv4Addr::new(10, 20, 0, 1), prefix: 24 }]);
    assert_eq!(fields.record, Some(spec.record));
}

#[test]
fn refusals_name_the_field() {
    let cases = [
        (
            NetworkSpec { bridge: "sixteen-letters-".into(), ..spec(NetworkKind::Nat) },
            "network.bridge has 16 bytes",
        ),
        (NetworkSpec { name: "a/b".into(), ..spec(NetworkKind::Nat) }, "network.name must be"),
        (
            NetworkSpec { record: "a\u{1}".into(), ..spec(NetworkKind::Nat) },
            "network.record contains the character U+0001",
        ),
        (
            NetworkSpec {
                subnet: Subnet { address: Ipv4Addr::LOCALHOST, prefix: 30 },
                ..spec(NetworkKind::Nat)
            },
            "network.subnet has prefix length 30",
        ),
    ];
    for (spec, sentence) in cases {
        let refusal = to_xml(&spec).unwrap_err().to_string();
        assert!(refusal.starts_with(sentence), "{refusal}");
    }
}
