//! The user ids that guests' QEMU runs as.
//!
//! The default lies above all that Debian, systemd's containers (to 1879048191), subordinate ids of people and Kubernetes
//! and the mapping of SSSD (to 2000200000) hand out, and below 2^31, from where on programs get confused.

use serde::Deserialize;

/// A range of user ids that nobody else on this host uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub(crate) struct GuestUids {
    first: u32,
    count: u32,
}

/// The range as it is written.
#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    first: u32,
    count: u32,
}

impl Default for Written {
    fn default() -> Self {
        Self { first: 2_100_000_000, count: 65_536 }
    }
}

impl Default for GuestUids {
    fn default() -> Self {
        let Written { first, count } = Written::default();
        Self { first, count }
    }
}

impl TryFrom<Written> for GuestUids {
    type Error = String;

    fn try_from(Written { first, count }: Written) -> Result<Self, String> {
        const LEAST: u32 = 65_536;
        const LAST: u32 = i32::MAX.unsigned_abs();
        let ends = first.checked_add(count).is_some_and(|end| end - 1 <= LAST);
        if first >= LEAST && count >= 1 && ends {
            return Ok(Self { first, count });
        }
        Err(format!(
            "guestUids is {count} from {first}: write a range within {LEAST} and {LAST}, such as {{first: 2100000000, count: 65536}}"
        ))
    }
}

impl GuestUids {
    /// How many there are.
    pub(crate) fn count(self) -> u32 {
        self.count
    }

    /// Whether this is one of them.
    pub(crate) fn contains(self, uid: u32) -> bool {
        uid.checked_sub(self.first).is_some_and(|place| place < self.count)
    }

    /// All of them, beginning at a place of the caller's choice.
    pub(crate) fn beginning_at(self, seed: u128) -> impl Iterator<Item = u32> {
        let count = u64::from(self.count);
        let start = u64::try_from(seed % u128::from(self.count)).unwrap_or(0);
        // Below `count`, so it fits and the sum does as well.
        (0..count).map(move |step| self.first + u32::try_from((start + step) % count).unwrap_or(0))
    }

    /// Who else uses some of them: the text of `/etc/passwd` or of `/etc/subuid`, whose columns differ.
    pub(super) fn clash(self, passwd: &str, subuid: &str) -> Option<String> {
        let users = passwd.lines().filter_map(|line| {
            let uid = line.split(':').nth(2)?.parse().ok()?;
            self.contains(uid).then(|| format!("the user of /etc/passwd in {line:?}"))
        });
        let ranges = subuid.lines().filter_map(|line| {
            let (first, count) = line.split_once(':')?.1.split_once(':')?;
            let (first, count): (u64, u64) = (first.trim().parse().ok()?, count.trim().parse().ok()?);
            let end = u64::from(self.first) + u64::from(self.count);
            let meets = first < end && first.saturating_add(count) > u64::from(self.first);
            meets.then(|| format!("the range of /etc/subuid in {line:?}"))
        });
        users.chain(ranges).next()
    }
}
