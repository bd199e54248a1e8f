//! The parts of a network's spec, each checked where it is made: from the object, and again when read from metadata.

use std::fmt;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// A private IPv4 subnet of /16 to /28 with no host bits set.
///
/// Smaller than /28 leaves no room for a gateway and a handful of guests; larger than /16 swallows the ranges others use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Subnet(Ipv4Net);

/// Name of a network device of the host: at most 15 characters (Linux `IFNAMSIZ`), none that a path or a log would trip over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Device(String);

/// A VLAN identifier, 1 to 4094 (IEEE 802.1Q clause 9.6: 0 is priority only, 4095 is reserved).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "i32", into = "i32")]
pub(crate) struct Vlan(u16);

/// What a part must be, as the rest of a sentence that begins with its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be {0}")]
pub(crate) struct Bad(&'static str);

impl Subnet {
    /// The network itself.
    pub(crate) fn net(self) -> Ipv4Net {
        self.0
    }
}

impl TryFrom<String> for Subnet {
    type Error = Bad;

    fn try_from(text: String) -> Result<Self, Bad> {
        let bad = Bad("an IPv4 network of /16 to /28 with no host bits set, such as 10.20.0.0/24");
        let net: Ipv4Net = text.parse().map_err(|_| bad)?;
        let good = (16..=28).contains(&net.prefix_len()) && net.trunc() == net;
        if good { Ok(Self(net)) } else { Err(bad) }
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.0.to_string()
    }
}

impl Device {
    /// The name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Device {
    type Error = Bad;

    fn try_from(name: String) -> Result<Self, Bad> {
        let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let first = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
        if first && name.len() <= 15 && name.chars().all(inner) {
            return Ok(Self(name));
        }
        Err(Bad(
            "the name of a network interface: letters, digits, '-', '_' and '.', at most 15 characters, such as br0",
        ))
    }
}

impl From<Device> for String {
    fn from(device: Device) -> Self {
        device.0
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Vlan {
    /// The identifier.
    pub(crate) fn id(self) -> u16 {
        self.0
    }
}

impl TryFrom<i32> for Vlan {
    type Error = Bad;

    fn try_from(id: i32) -> Result<Self, Bad> {
        let id = u16::try_from(id).ok().filter(|id| (1..=4094).contains(id));
        id.map(Self).ok_or(Bad("a VLAN of 1 to 4094"))
    }
}

impl From<Vlan> for i32 {
    fn from(vlan: Vlan) -> Self {
        vlan.0.into()
    }
}
