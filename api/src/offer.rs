//! Which networks a node offers guests, and whether a `VirtualMachineNetwork` is among them. Pure.
//!
//! The node reports the offer in its status and judges each start by it; placement reads the same. What a node cannot
//! foresee (an address of the host in the way, a bridge that is not there) shows when a virtual machine starts.

use ipnet::Ipv4Net;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::bounds::{BRIDGES, POOLS, VLANS};
use crate::network::VirtualMachineNetworkSpec;

/// What a node offers guests to be connected to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkOffer {
    /// IPv4 networks that the subnets of NAT and isolated networks lie in. Networks that name no subnet get one of the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = POOLS), inner(length(max = 18)))]
    pub subnet_pools: Vec<String>,
    /// Bridges of the host that guests may be connected to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = BRIDGES))]
    pub bridges: Vec<OfferedBridge>,
}

/// A bridge that guests may be connected to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct OfferedBridge {
    /// Name of the bridge on the node.
    #[schemars(length(max = 15))]
    pub name: String,
    /// What of it is offered: untagged, single VLANs such as 120, and ranges such as 200-299.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = VLANS), inner(length(max = 9)))]
    pub vlans: Vec<String>,
    /// True where what guests send is not filtered, so that a guest may be a router or a DHCP server there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub trusted: bool,
}

/// Some of a bridge's VLANs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vlans {
    /// Frames without a tag.
    Untagged,
    /// Those from the first to the last, both of them too.
    Tagged {
        /// The first.
        first: u16,
        /// The last.
        last: u16,
    },
}

/// A text that names no VLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be untagged, a VLAN of 1 to 4094, or a range such as 200-299")]
pub struct BadVlans;

impl std::str::FromStr for Vlans {
    type Err = BadVlans;

    fn from_str(text: &str) -> Result<Self, BadVlans> {
        if text == "untagged" {
            return Ok(Self::Untagged);
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let id = |text: &str| text.parse::<u16>().ok().filter(|id| (1..=4094).contains(id));
        match (id(first), id(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self::Tagged { first, last }),
            _ => Err(BadVlans),
        }
    }
}

impl std::fmt::Display for Vlans {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Untagged => f.write_str("untagged"),
            Self::Tagged { first, last } if first == last => first.fmt(f),
            Self::Tagged { first, last } => write!(f, "{first}-{last}"),
        }
    }
}

impl Vlans {
    fn contains(self, vlan: Option<i32>) -> bool {
        match (self, vlan) {
            (Self::Untagged, None) => true,
            (Self::Tagged { first, last }, Some(vlan)) => (first.into()..=last.into()).contains(&vlan),
            (Self::Untagged, Some(_)) | (Self::Tagged { .. }, None) => false,
        }
    }
}

/// Longest subnet's length that one network may take of the first pool, which is everybody's: 253 guests.
const WIDEST: u8 = 24;

/// What a node does not offer, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// The end of a sentence that begins with who does not offer it.
    pub what: String,
    /// What would change it, as a demand.
    pub remedy: String,
}

impl NetworkOffer {
    /// What this network names and the node does not offer. A spec that says nothing readable lacks nothing: the node
    /// itself tells what is wrong with it.
    pub fn lacks(&self, network: &VirtualMachineNetworkSpec) -> Option<Lack> {
        match (&network.nat, &network.isolated, &network.bridge) {
            (Some(subnet), None, None) | (None, Some(subnet), None) => {
                self.lacks_subnet(subnet.subnet.parse().ok()?)
            }
            (None, None, Some(bridge)) => self.lacks_bridge(&bridge.name, bridge.vlan),
            _ => None,
        }
    }

    /// Whether a subnet lies in none of the pools, or takes more than a /24 of the first, also where another pool holds
    /// both: networks that name no subnet need that one.
    pub fn lacks_subnet(&self, subnet: Ipv4Net) -> Option<Lack> {
        let pools = || self.subnet_pools.iter().filter_map(|pool| pool.parse::<Ipv4Net>().ok());
        let meets = |pool: &Ipv4Net| pool.contains(&subnet) || subnet.contains(pool);
        let remedy = if !pools().any(|pool| pool.contains(&subnet)) {
            listed_under("subnetPools")
        } else if let Some(first) = pools().next().filter(meets).filter(|_| subnet.prefix_len() < WIDEST) {
            format!("choose a /{WIDEST} or smaller within its networkPool {first}")
        } else {
            return None;
        };
        Some(Lack { what: format!("subnet {subnet}"), remedy })
    }

    /// Whether a bridge, or this VLAN of it, is not offered.
    pub fn lacks_bridge(&self, name: &str, vlan: Option<i32>) -> Option<Lack> {
        let offered = self.bridges.iter().find(|bridge| bridge.name == name);
        let what = match (offered, vlan) {
            (None, _) => format!("bridge {name}"),
            (Some(bridge), vlan) if bridge.offers(vlan) => return None,
            (Some(_), None) => format!("untagged traffic on bridge {name}"),
            (Some(_), Some(vlan)) => format!("VLAN {vlan} of bridge {name}"),
        };
        Some(Lack { what, remedy: listed_under("bridges") })
    }
}

fn listed_under(key: &str) -> String {
    format!("list it under {key} in its node.yaml")
}

impl OfferedBridge {
    fn offers(&self, vlan: Option<i32>) -> bool {
        let mut ranges = self.vlans.iter().filter_map(|text| text.parse::<Vlans>().ok());
        ranges.any(|range| range.contains(vlan))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Bridge, Subnet};

    fn offer() -> NetworkOffer {
        let vlans = ["120", "200-299"].map(str::to_owned).to_vec();
        let bridge = |name: &str, vlans| OfferedBridge { name: name.to_owned(), vlans, trusted: false };
        NetworkOffer {
            subnet_pools: vec!["10.88.0.0/16".to_owned(), "192.168.96.0/20".to_owned()],
            bridges: vec![bridge("br0", vec!["untagged".to_owned()]), bridge("trunk", vlans)],
        }
    }

    fn lack(spec: &VirtualMachineNetworkSpec) -> Option<String> {
        offer().lacks(spec).map(|lack| format!("{}: {}", lack.what, lack.remedy))
    }

    fn nat(subnet: &str) -> VirtualMachineNetworkSpec {
        let subnet = Some(Subnet { subnet: subnet.to_owned() });
        VirtualMachineNetworkSpec { nat: subnet, ..VirtualMachineNetworkSpec::default() }
    }

    fn bridge(name: &str, vlan: Option<i32>) -> VirtualMachineNetworkSpec {
        let bridge = Some(Bridge { name: name.to_owned(), vlan });
        VirtualMachineNetworkSpec { bridge, ..VirtualMachineNetworkSpec::default() }
    }

    #[test]
    fn a_subnet_is_offered_within_a_pool_and_nowhere_else() {
        for within in ["", "10.88.7.0/24", "192.168.96.0/20", "192.168.96.16/28"] {
            assert_eq!(lack(&nat(within)), None, "{within}");
        }
        for beyond in ["8.8.0.0/16", "10.89.0.0/24", "192.168.112.0/24", "10.0.0.0/8"] {
            let says = format!("subnet {beyond}: list it under subnetPools in its node.yaml");
            assert_eq!(lack(&nat(beyond)), Some(says));
        }
    }

    #[test]
    fn no_network_takes_more_than_a_24_of_the_first_pool_also_where_another_pool_holds_it() {
        let mut offer = offer();
        offer.subnet_pools.push("10.64.0.0/10".to_owned());
        for wide in ["10.88.0.0/16", "10.88.4.0/23", "10.88.0.0/14"] {
            let lack = offer.lacks(&nat(wide)).map(|lack| format!("{}: {}", lack.what, lack.remedy));
            let says = format!("subnet {wide}: choose a /24 or smaller within its networkPool 10.88.0.0/16");
            assert_eq!(lack, Some(says));
        }
        assert_eq!(offer.lacks(&nat("10.89.0.0/16")), None, "the operator gave that to single networks");
    }

    #[test]
    fn a_bridge_is_offered_in_the_vlans_that_are_listed_and_no_others() {
        for good in [
            bridge("br0", None),
            bridge("trunk", Some(120)),
            bridge("trunk", Some(200)),
            bridge("trunk", Some(299)),
        ] {
            assert_eq!(lack(&good), None, "{good:?}");
        }
        for (bad, what) in [
            (bridge("cni0", None), "bridge cni0"),
            (bridge("br0", Some(120)), "VLAN 120 of bridge br0"),
            (bridge("trunk", None), "untagged traffic on bridge trunk"),
            (bridge("trunk", Some(300)), "VLAN 300 of bridge trunk"),
        ] {
            assert_eq!(lack(&bad), Some(format!("{what}: list it under bridges in its node.yaml")));
        }
    }

    #[test]
    fn vlans_are_written_as_they_are_read() {
        for text in ["untagged", "1", "4094", "100-199"] {
            assert_eq!(text.parse::<Vlans>().map(|vlans| vlans.to_string()).as_deref(), Ok(text));
        }
        for text in ["", "0", "4095", "200-100", "1-", "-1", "1-4095", "all", "1-2-3"] {
            assert_eq!(text.parse::<Vlans>(), Err(BadVlans), "{text}");
        }
    }
}
