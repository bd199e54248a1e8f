//! What a guest's interface is connected to, judged once and remembered, so that a start needs no API.

use holdfast_api::VirtualMachineNetwork;
use holdfast_api::offer::{Lack, NetworkOffer};
use kube::ResourceExt;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::error::Error;
use super::names::{self, Tagged};
use super::values::{Bad, Device, Subnet, Vlan};

/// What a guest's interface was connected to; kept in the domain's metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetworkRecord {
    /// UID of the `VirtualMachineNetwork`, and UUID of the libvirt network made for it.
    pub(crate) uid: Uuid,
    /// Namespace and name of the object, for people.
    pub(crate) name: String,
    /// How it connects.
    pub(crate) kind: Kind,
}

/// The ways of connecting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Kind {
    /// A subnet of this node alone that reaches out through the node's address; from the pool when none is given.
    Nat { subnet: Option<Subnet> },
    /// A subnet of this node alone with no way out.
    Isolated { subnet: Option<Subnet> },
    /// An existing bridge of the host, untagged or in one VLAN.
    Bridge { name: Device, vlan: Option<Vlan> },
}

impl NetworkRecord {
    /// Whether the node offers this to guests; asked before each start, also for what is only remembered.
    pub(crate) fn check_offer(&self, offer: &NetworkOffer) -> Result<(), Error> {
        let lack = match &self.kind {
            Kind::Nat { subnet } | Kind::Isolated { subnet } => {
                subnet.and_then(|subnet| offer.lacks_subnet(subnet.net()))
            }
            Kind::Bridge { name, vlan } => {
                offer.lacks_bridge(name.as_str(), vlan.map(|vlan| vlan.id().into()))
            }
        };
        let refused = |Lack { what, remedy }| Error::NotOffered { network: self.name.clone(), what, remedy };
        lack.map_or(Ok(()), |lack| Err(refused(lack)))
    }

    /// Whether what guests send there is not filtered.
    pub(crate) fn is_trusted(&self, offer: &NetworkOffer) -> bool {
        let Kind::Bridge { name, .. } = &self.kind else { return false };
        offer.bridges.iter().any(|bridge| bridge.trusted && bridge.name == name.as_str())
    }

    /// The bridge on the host that an interface of it is a port of.
    pub(crate) fn bridge(&self) -> String {
        match &self.kind {
            Kind::Nat { .. } | Kind::Isolated { .. } => names::bridge(self.uid),
            Kind::Bridge { name, vlan: None } => name.to_string(),
            Kind::Bridge { name, vlan: Some(vlan) } => Tagged { trunk: name.clone(), vlan: *vlan }.bridge(),
        }
    }

    /// Whether the host's own DHCP server gives its guests their addresses.
    pub(crate) fn is_served(&self) -> bool {
        !matches!(self.kind, Kind::Bridge { .. })
    }
}

impl TryFrom<&VirtualMachineNetwork> for NetworkRecord {
    type Error = Error;

    fn try_from(network: &VirtualMachineNetwork) -> Result<Self, Error> {
        let name = format!("{}/{}", network.namespace().unwrap_or_default(), network.name_any());
        let refused = |problem: String| Error::Refused { network: name.clone(), problem };
        let uid = network.uid().and_then(|uid| uid.parse().ok());
        let uid = uid.ok_or_else(|| refused("metadata.uid is not a UUID".to_owned()))?;
        let kind = kind(network).map_err(refused)?;
        Ok(Self { uid, name, kind })
    }
}

fn kind(network: &VirtualMachineNetwork) -> Result<Kind, String> {
    let spec = &network.spec;
    match (&spec.nat, &spec.isolated, &spec.bridge) {
        (Some(nat), None, None) => {
            Ok(Kind::Nat { subnet: subnet(&nat.subnet).map_err(at("spec.nat.subnet"))? })
        }
        (None, Some(isolated), None) => {
            Ok(Kind::Isolated { subnet: subnet(&isolated.subnet).map_err(at("spec.isolated.subnet"))? })
        }
        (None, None, Some(bridge)) => {
            let name: Device = bridge.name.clone().try_into().map_err(at("spec.bridge.name"))?;
            if names::is_reserved(name.as_str()) {
                return Err(format!(
                    "spec.bridge.name {name} is kept for the networks Holdfast makes: name a bridge of the host"
                ));
            }
            let vlan = bridge.vlan.map(Vlan::try_from).transpose().map_err(at("spec.bridge.vlan"))?;
            Ok(Kind::Bridge { name, vlan })
        }
        _ => Err("spec must have exactly one of nat, isolated and bridge".to_owned()),
    }
}

/// Absent and empty mean the same: the node chooses.
fn subnet(text: &str) -> Result<Option<Subnet>, Bad> {
    if text.is_empty() { Ok(None) } else { text.to_owned().try_into().map(Some) }
}

fn at(field: &'static str) -> impl Fn(Bad) -> String {
    move |bad| format!("{field} {bad}")
}

#[cfg(test)]
mod tests {
    use holdfast_api::network::{Bridge, Subnet as SubnetSpec, VirtualMachineNetworkSpec};
    use holdfast_api::offer::OfferedBridge;
    use proptest::prelude::*;

    use super::*;

    fn network(spec: VirtualMachineNetworkSpec) -> VirtualMachineNetwork {
        let mut network = VirtualMachineNetwork::new("lan", spec);
        network.metadata.namespace = Some("shop".to_owned());
        network.metadata.uid = Some(Uuid::from_u128(7).to_string());
        network
    }

    fn nat(subnet: &str) -> VirtualMachineNetwork {
        let nat = Some(SubnetSpec { subnet: subnet.to_owned() });
        network(VirtualMachineNetworkSpec { nat, ..Default::default() })
    }

    fn bridge(name: &str, vlan: Option<i32>) -> VirtualMachineNetwork {
        let bridge = Some(Bridge { name: name.to_owned(), vlan });
        network(VirtualMachineNetworkSpec { bridge, ..Default::default() })
    }

    #[track_caller]
    fn refusal(network: &VirtualMachineNetwork) -> String {
        NetworkRecord::try_from(network).unwrap_err().to_string()
    }

    #[test]
    fn a_network_is_remembered_by_uid_and_read_back_the_same() {
        for network in [nat(""), nat("10.20.0.0/24"), bridge("br0", None), bridge("br0", Some(120))] {
            let record = NetworkRecord::try_from(&network).unwrap();
            assert_eq!((record.uid, record.name.as_str()), (Uuid::from_u128(7), "shop/lan"));
            let text = serde_json::to_string(&record).unwrap();
            assert_eq!(serde_json::from_str::<NetworkRecord>(&text).unwrap(), record);
        }
    }

    #[test]
    fn a_subnet_with_host_bits_or_of_the_wrong_size_is_refused_by_name() {
        for subnet in ["10.20.0.1/24", "10.0.0.0/8", "10.20.0.0/29", "10.20.0.0", "fd00::/64", "banana", "\0"]
        {
            let sentence = refusal(&nat(subnet));
            assert!(sentence.contains("spec.nat.subnet must be an IPv4 network of /16 to /28"), "{sentence}");
        }
    }

    #[test]
    fn a_bridge_name_that_is_no_device_is_refused() {
        for name in ["", "..", ".br0", "br0/../x", "a-name-too-long0", "br 0", "br\0", "brücke"] {
            let sentence = refusal(&bridge(name, None));
            assert!(sentence.contains("spec.bridge.name must be"), "{sentence}");
        }
    }

    #[test]
    fn a_bridge_of_somebody_elses_network_is_refused() {
        let sentence = refusal(&bridge(&names::bridge(Uuid::from_u128(8)), None));
        assert!(sentence.contains("kept for the networks Holdfast makes"), "{sentence}");
    }

    #[test]
    fn a_vlan_out_of_range_is_refused() {
        for vlan in [i32::MIN, -1, 0, 4095, 65_537, i32::MAX] {
            let sentence = refusal(&bridge("br0", Some(vlan)));
            assert!(sentence.contains("spec.bridge.vlan must be a VLAN of 1 to 4094"), "{sentence}");
        }
    }

    #[test]
    fn what_the_node_does_not_offer_is_refused_with_where_to_write_it_also_when_it_is_remembered() {
        let bridges = vec![OfferedBridge { name: "br0".into(), vlans: vec!["120".into()], trusted: false }];
        let offer = NetworkOffer { subnet_pools: vec!["10.88.0.0/16".into()], bridges };
        for good in [nat(""), nat("10.88.3.0/24"), bridge("br0", Some(120))] {
            assert!(NetworkRecord::try_from(&good).unwrap().check_offer(&offer).is_ok());
        }
        for (bad, what, remedy) in [
            (nat("8.8.0.0/16"), "subnet 8.8.0.0/16", "list it under subnetPools in its node.yaml"),
            (
                nat("10.88.0.0/16"),
                "subnet 10.88.0.0/16",
                "choose a /24 or smaller within its networkPool 10.88.0.0/16",
            ),
            (bridge("cni0", None), "bridge cni0", "list it under bridges in its node.yaml"),
            (bridge("br0", None), "untagged traffic on bridge br0", "list it under bridges in its node.yaml"),
            (bridge("br0", Some(121)), "VLAN 121 of bridge br0", "list it under bridges in its node.yaml"),
        ] {
            let record = NetworkRecord::try_from(&bad).unwrap();
            let remembered =
                serde_json::from_value::<NetworkRecord>(serde_json::to_value(record).unwrap()).unwrap();
            let error = remembered.check_offer(&offer).unwrap_err();
            let sentence = format!(
                "network shop/lan: this node does not offer {what} to guests; {remedy}, or \
                 use another network"
            );
            assert_eq!((error.to_string(), error.reason()), (sentence, "NetworkNotOffered"));
        }
    }

    #[test]
    fn none_or_two_ways_of_connecting_are_refused() {
        let mut two = nat("");
        two.spec.bridge = bridge("br0", None).spec.bridge;
        for network in [network(VirtualMachineNetworkSpec::default()), two] {
            let sentence = refusal(&network);
            assert!(sentence.contains("exactly one of nat, isolated and bridge"), "{sentence}");
        }
    }

    #[test]
    fn an_object_without_uid_is_refused() {
        let mut network = nat("");
        network.metadata.uid = Some("banana".to_owned());
        assert!(refusal(&network).contains("metadata.uid"));
    }

    #[test]
    fn a_record_that_was_tampered_with_is_not_read() {
        let record = serde_json::to_value(NetworkRecord::try_from(&bridge("br0", Some(7))).unwrap()).unwrap();
        let with = |field: &str, value: serde_json::Value| {
            let mut record = record.clone();
            record["kind"]["bridge"][field] = value;
            serde_json::from_value::<NetworkRecord>(record)
        };
        assert!(with("name", "br1".into()).is_ok());
        assert!(with("name", "../../etc".into()).is_err());
        assert!(with("vlan", 4095.into()).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_judgement_panic(subnet: String, name: String, vlan: Option<i32>) {
            let _ = NetworkRecord::try_from(&nat(&subnet));
            let _ = NetworkRecord::try_from(&bridge(&name, vlan));
        }
    }
}
