//! Values of the configuration that say no while they are read.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use holdfast_api::Quantity;
use ipnet::IpNet;
use serde::Deserialize;

/// Name of a node: lower-case letters, digits and '-', at most 40 characters, as `NodeEnrolment` asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct NodeName(String);

impl NodeName {
    /// The name as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for NodeName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let fits = (1..=40).contains(&name.len()) && name.bytes().all(inner);
        if fits && !name.starts_with('-') && !name.ends_with('-') {
            return Ok(Self(name));
        }
        Err(format!(
            "nodeName is {:?}: write lower-case letters, digits and '-', at most 40 characters, such as edge-1",
            shortened(&name)
        ))
    }
}

/// A size in bytes, written in whole Mi, Gi or Ti.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Size(u64);

impl Size {
    /// So many MiB.
    pub(crate) const fn mib(count: u32) -> Self {
        Self((count as u64) << 20)
    }

    /// So many GiB.
    pub(crate) const fn gib(count: u32) -> Self {
        Self((count as u64) << 30)
    }

    /// The size in bytes.
    pub(crate) fn bytes(self) -> u64 {
        self.0
    }
}

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Quantity(text).bytes().map(Self).map_err(|refused| refused.to_string())
    }
}

/// A time-out in whole seconds, 1 to 86400: zero would fail always, more than a day is no time-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u32")]
pub(crate) struct Seconds(u32);

impl Seconds {
    /// So many seconds.
    pub(crate) const fn of(count: u32) -> Self {
        Self(count)
    }

    /// The same as a duration.
    pub(crate) fn duration(self) -> Duration {
        Duration::from_secs(self.0.into())
    }
}

impl TryFrom<u32> for Seconds {
    type Error = String;

    fn try_from(count: u32) -> Result<Self, String> {
        match count {
            1..=86_400 => Ok(Self(count)),
            _ => Err(format!("{count} is no time-out: write whole seconds from 1 to 86400")),
        }
    }
}

/// A network of IPv4 or IPv6, or a single address as the network that holds it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Network(IpNet);

impl Network {
    /// The network.
    pub(crate) fn net(self) -> IpNet {
        self.0
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
        let net = text.parse::<IpNet>().ok().filter(|net| net.trunc() == *net).or_else(address);
        net.map(Self).ok_or_else(|| {
            let text = shortened(&text);
            format!(
                "{text:?} is no network: write one with no host bits set, such as 10.0.0.0/8, or an address"
            )
        })
    }
}

/// Enough of a wrong value to recognise it.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}
