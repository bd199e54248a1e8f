//! The names of what we make on a host, all derived, so that a restarted daemon finds its own again.
//!
//! Device names have at most 15 characters (Linux `IFNAMSIZ`): a prefix of ours and twelve hexadecimal digits.

use uuid::Uuid;

use super::values::{Device, Vlan};

/// What the alias of each device of ours begins with; the kernel keeps it, and `ip link` shows it to people.
const ALIAS: &str = "holdfast: ";

/// Name of the libvirt network of a `VirtualMachineNetwork`.
pub(crate) fn network(uid: Uuid) -> String {
    format!("hf-{uid}")
}

/// Bridge of that libvirt network.
pub(crate) fn bridge(uid: Uuid) -> String {
    format!("hf{}", twelve(uid))
}

/// One VLAN of one bridge of the host. Several networks, even of several namespaces, may share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tagged {
    /// The host's bridge.
    pub(crate) trunk: Device,
    /// The VLAN on it.
    pub(crate) vlan: Vlan,
}

impl Tagged {
    /// Bridge of ours that guests of this VLAN are connected to.
    pub(crate) fn bridge(&self) -> String {
        format!("hfv{}", self.digits())
    }

    /// VLAN device that joins it to the host's bridge.
    pub(crate) fn port(&self) -> String {
        format!("hfp{}", self.digits())
    }

    /// What `ip link` says about both.
    pub(crate) fn alias(&self) -> String {
        format!("{ALIAS}VLAN {} of {}", self.vlan.id(), self.trunk)
    }

    fn digits(&self) -> String {
        let name = format!("{}.{}", self.trunk, self.vlan.id());
        twelve(Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()))
    }
}

/// Whether a device carries our alias, which is what makes it ours.
pub(crate) fn is_ours(alias: &str) -> bool {
    alias.starts_with(ALIAS)
}

/// Whether a device has a name of the kind we give. Whoever could name such a bridge as the host's would be in the
/// private network of somebody else.
pub(crate) fn is_reserved(device: &str) -> bool {
    let Some(rest) = device.strip_prefix("hf") else { return false };
    let digits = rest.strip_prefix(['v', 'p', 't']).unwrap_or(rest);
    digits.len() >= 10 && digits.chars().all(|c| c.is_ascii_hexdigit())
}

fn twelve(uuid: Uuid) -> String {
    let mut digits = uuid.simple().to_string();
    digits.truncate(12);
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagged(trunk: &str, vlan: i32) -> Tagged {
        Tagged { trunk: trunk.to_owned().try_into().unwrap(), vlan: vlan.try_into().unwrap() }
    }

    #[test]
    fn every_device_name_fits_the_kernel() {
        let longest = tagged("a-bridge-name-x", 4094);
        for name in [bridge(Uuid::max()), longest.bridge(), longest.port()] {
            assert!(name.len() <= 15, "{name}");
        }
    }

    #[test]
    fn names_are_stable_and_differ_by_bridge_and_vlan() {
        assert_eq!(tagged("br0", 120).bridge(), "hfvc7c64a34a93f");
        assert_ne!(tagged("br0", 120).bridge(), tagged("br0", 12).bridge());
        assert_ne!(tagged("br0", 120).bridge(), tagged("br1", 120).bridge());
    }

    #[test]
    fn names_that_we_give_are_reserved_and_a_hosts_are_not() {
        let ours =
            [bridge(Uuid::max()), tagged("br0", 1).bridge(), tagged("br0", 1).port(), "hft0102030405".into()];
        for name in ours {
            assert!(is_reserved(&name), "{name}");
        }
        for name in ["br0", "hf-lan", "hfv", "hfacade", "virbr0", "hfvlan120"] {
            assert!(!is_reserved(name), "{name}");
        }
    }

    #[test]
    fn only_our_alias_is_ours() {
        assert!(is_ours(&tagged("br0", 120).alias()));
        assert!(!is_ours("uplink to holdfast: VLAN 120"));
    }
}
