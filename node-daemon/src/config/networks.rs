//! Which networks of the host guests may be connected to.
//!
//! Nothing that is not written here is offered: whoever edits a namespace chooses among these, and the host's network
//! stays its operator's.

use std::fmt;
use std::net::Ipv4Addr;

use holdfast_api::bounds::{BRIDGES, POOLS, VLANS};
use holdfast_api::offer::{NetworkOffer, OfferedBridge, Vlans};
use ipnet::Ipv4Net;
use serde::Deserialize;

use super::values::shortened;
use crate::network::Device;

/// An IPv4 network that subnets lie in: /8 to /24, so that at least one /24 fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Pool(Ipv4Net);

impl Pool {
    /// The network.
    pub(crate) fn net(self) -> Ipv4Net {
        self.0
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self(Ipv4Net::new_assert(Ipv4Addr::new(10, 88, 0, 0), 16))
    }
}

impl TryFrom<String> for Pool {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        pool(&text).ok_or_else(|| {
            let text = shortened(&text);
            format!(
                "{text:?} is no network for subnets: write an IPv4 network of /8 to /24 with no host bits set, such as 10.88.0.0/16"
            )
        })
    }
}

fn pool(text: &str) -> Option<Pool> {
    let net: Ipv4Net = text.parse().ok()?;
    ((8..=24).contains(&net.prefix_len()) && net.trunc() == net).then_some(Pool(net))
}

/// A bridge of the host that guests may be ports of.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Bridge {
    /// Name of the device.
    pub(crate) name: Device,
    /// The VLANs of it that guests may be in; untagged alone by default.
    #[serde(default)]
    pub(crate) vlans: VlanList,
    /// Whether guests there may do what a router or a DHCP server does: nothing of what they send is filtered.
    #[serde(default)]
    pub(crate) trusted: bool,
}

/// VLANs as they are written: `untagged`, a number, or a range such as `100-199`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<Word>")]
pub(crate) struct VlanList(Vec<Vlans>);

/// YAML reads `120` as a number and `100-199` as a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Word {
    Number(u16),
    Text(String),
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

impl Default for VlanList {
    fn default() -> Self {
        Self(vec![Vlans::Untagged])
    }
}

impl TryFrom<Vec<Word>> for VlanList {
    type Error = String;

    fn try_from(words: Vec<Word>) -> Result<Self, String> {
        if words.is_empty() || words.len() > VLANS {
            return Err(format!("vlans has {} entries: write 1 to {VLANS} of them", words.len()));
        }
        let vlans = |word: &Word| {
            let text = word.to_string();
            text.parse().map_err(|_| {
                let text = shortened(&text);
                format!(
                    "{text:?} is no VLAN: write untagged, a number of 1 to 4094, or a range such as 100-199"
                )
            })
        };
        words.iter().map(vlans).collect::<Result<_, _>>().map(Self)
    }
}

/// All of it, as the node's status lists it.
pub(super) fn offer(first: Pool, pools: &[Pool], bridges: &[Bridge]) -> NetworkOffer {
    let bridge = |bridge: &Bridge| OfferedBridge {
        name: bridge.name.to_string(),
        vlans: bridge.vlans.0.iter().map(Vlans::to_string).collect(),
        trusted: bridge.trusted,
    };
    let pools = std::iter::once(&first).chain(pools);
    NetworkOffer {
        subnet_pools: pools.map(|pool| pool.net().to_string()).collect(),
        bridges: bridges.iter().map(bridge).collect(),
    }
}

/// What the lists together cannot be.
pub(super) fn check(pools: &[Pool], bridges: &[Bridge]) -> Result<(), String> {
    if pools.len() >= POOLS {
        return Err(format!("subnetPools has {} entries: write at most {}", pools.len(), POOLS - 1));
    }
    if bridges.len() > BRIDGES {
        return Err(format!("bridges has {} entries: write at most {BRIDGES}", bridges.len()));
    }
    let twice =
        bridges.iter().enumerate().find(|(n, it)| bridges[..*n].iter().any(|other| other.name == it.name));
    match twice {
        Some((_, bridge)) => Err(format!("bridges names {} twice: write it once", bridge.name)),
        None => Ok(()),
    }
}
