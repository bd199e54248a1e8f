//! Addresses of guests as people write them: one spelling each, and only such as name one host of a network.

use std::net::{IpAddr, Ipv6Addr};

/// A text that is no address for a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be a single unicast address in its shortest form, neither loopback nor link-local, such as 10.20.0.5 or 2001:db8::5"
)]
pub struct BadAddress;

/// Reads one entry of `spec.interfaces[].addresses`; the same rule as that of the schema.
pub fn parse(text: &str) -> Result<IpAddr, BadAddress> {
    let ip: IpAddr = text.parse().map_err(|_| BadAddress)?;
    let is_host = match ip {
        IpAddr::V4(ip) => {
            let bad = ip.is_loopback() || ip.is_link_local() || ip.is_multicast() || ip.is_broadcast();
            !bad && !ip.is_unspecified()
        }
        IpAddr::V6(ip) => is_host_v6(ip),
    };
    if is_host && ip.to_string() == text { Ok(ip) } else { Err(BadAddress) }
}

/// An IPv4 address in the clothes of an IPv6 one is written as what it is.
fn is_host_v6(ip: Ipv6Addr) -> bool {
    let bad = ip.is_loopback() || ip.is_unicast_link_local() || ip.is_multicast() || ip.is_unspecified();
    !bad && ip.to_ipv4_mapped().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_host_are_read_and_all_others_are_refused() {
        for good in ["10.20.0.5", "192.0.2.1", "8.8.8.8", "2001:db8::5", "fd00::1"] {
            assert_eq!(parse(good).map(|ip| ip.to_string()).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "banana",
            "10.20.0.0/24",
            "010.0.0.1",
            "10.20.0",
            "0.0.0.0",
            "127.0.0.1",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fe80::1%eth0",
            "ff02::1",
            "::ffff:10.0.0.1",
            "2001:DB8::5",
            "2001:db8:0::5",
        ] {
            assert_eq!(parse(bad), Err(BadAddress), "{bad}");
        }
    }
}
