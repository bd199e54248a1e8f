//! Hardware addresses and the names of a guest's devices on the host.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// A unicast hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mac([u8; 6]);

/// Why a text is no hardware address.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "write six lower-case hexadecimal pairs joined by ':', the first of them even, such as 52:54:00:12:34:56"
)]
pub(crate) struct BadMac;

impl Mac {
    /// A stable address for an interface that names none: locally administered, so it meets no vendor's, and derived
    /// from the UID, so that it survives everything but the virtual machine.
    pub(crate) fn derived(uid: Uuid, interface: &str) -> Self {
        let h = hash(uid, interface);
        Self([0x52, 0x54, h[0], h[1], h[2], h[3]])
    }

    /// Its six bytes, as they stand in a frame.
    pub(crate) fn bytes(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for Mac {
    type Err = BadMac;

    fn from_str(text: &str) -> Result<Self, BadMac> {
        let pair = |text: &str| {
            let digits = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            if text.len() == 2 && digits { u8::from_str_radix(text, 16).ok() } else { None }
        };
        let bytes: Vec<u8> = text.split(':').map(pair).collect::<Option<_>>().ok_or(BadMac)?;
        let bytes: [u8; 6] = bytes.try_into().map_err(|_| BadMac)?;
        if bytes[0] & 1 == 1 { Err(BadMac) } else { Ok(Self(bytes)) }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = self.0.map(|byte| format!("{byte:02x}"));
        f.write_str(&pairs.join(":"))
    }
}

/// Name of the interface's device on the host: at most 15 characters (Linux `IFNAMSIZ`), stable, ours by its prefix.
pub(crate) fn device_name(uid: Uuid, interface: &str) -> String {
    let h = hash(uid, interface);
    format!("hft{:02x}{:02x}{:02x}{:02x}{:02x}", h[0], h[1], h[2], h[3], h[4])
}

fn hash(uid: Uuid, interface: &str) -> [u8; 16] {
    *Uuid::new_v5(&uid, interface.as_bytes()).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_prints() {
        assert_eq!("52:54:00:12:34:5f".parse::<Mac>().unwrap().to_string(), "52:54:00:12:34:5f");
    }

    #[test]
    fn group_addresses_and_nonsense_are_refused() {
        for text in [
            "",
            "53:54:00:12:34:56",
            "52:54:00:12:34",
            "52:54:00:12:34:5F",
            "52:54:00:12:34:+1",
            "ff:ff:ff:ff:ff:ff",
        ] {
            assert_eq!(text.parse::<Mac>(), Err(BadMac), "{text}");
        }
    }

    #[test]
    fn derived_names_are_stable_and_short() {
        let uid = Uuid::from_u128(7);
        assert_eq!(Mac::derived(uid, "lan"), Mac::derived(uid, "lan"));
        assert_ne!(Mac::derived(uid, "lan"), Mac::derived(uid, "wan"));
        assert!(device_name(uid, "lan").len() <= 15);
    }
}
