//! What virtual machines take of a node, and what is left for one of them. Pure.
//!
//! The controller counts in the same way before it places one; here it is for edits, which nobody
//! places, and for what the node holds and the controller does not see.
//!
//! What a virtual machine was started with is its own. What it asks for beyond that, all of it before its first start, is
//! room only where it fits, the smallest asks first: so an edit to more than there is takes nothing from anybody, and one
//! that waits for its start takes nothing from who asks for less.

use std::collections::BTreeMap;

use holdfast_api::capacity::overhead;
use holdfast_api::virtual_machine::VirtualMachineSpec;
use uuid::Uuid;

use super::observed::Room;
use super::record::Record;
use crate::libvirt;

/// What one virtual machine takes, or what a whole node has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share {
    /// Virtual processors.
    pub(crate) cpu: u64,
    /// Bytes of memory, without what the hypervisor needs beside it.
    pub(crate) memory: u64,
    /// Bytes of disk, as the guest sees them.
    pub(crate) storage: u64,
}

impl Share {
    /// What a spec asks for; what is no size counts as nothing here and is refused by name elsewhere.
    pub(crate) fn asked(spec: &VirtualMachineSpec) -> Self {
        Self {
            cpu: u64::try_from(spec.cpu).unwrap_or(0),
            memory: spec.memory.bytes().unwrap_or(0),
            storage: storage(spec),
        }
    }

    /// What a domain of ours has: the larger of what it is defined with and what its guest was started with.
    pub(crate) fn held(domain: &libvirt::Domain, record: Option<&Record>) -> Self {
        let defined =
            Self { cpu: domain.cpu.into(), memory: domain.memory_mib.saturating_mul(1 << 20), storage: 0 };
        record.map_or(defined, |record| defined.larger(Self::applied(record)))
    }

    /// What the guest was started with. An edit since then is the next start's affair.
    pub(crate) fn applied(record: &Record) -> Self {
        Self::asked(record.applied.as_ref().map_or(&record.spec, |applied| &applied.spec))
    }

    /// The larger of both, each by itself.
    pub(crate) fn larger(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.max(other.cpu),
            memory: self.memory.max(other.memory),
            storage: self.storage.max(other.storage),
        }
    }

    /// What it takes, with what the hypervisor needs beside it.
    fn cost(self) -> Room {
        let memory = self.memory.saturating_add(overhead(self.cpu, self.memory));
        Room { memory, cpu: self.cpu, storage: self.storage }
    }

    /// The largest part it is of anything that a node has, as a number to compare.
    fn part_of(self, whole: Self) -> u128 {
        let pairs = [(self.cpu, whole.cpu), (self.memory, whole.memory), (self.storage, whole.storage)];
        let part = |(one, all): (u64, u64)| (u128::from(one) << 32) / u128::from(all.max(1));
        pairs.into_iter().map(part).max().unwrap_or_default()
    }
}

impl Room {
    fn less(self, other: Self) -> Self {
        Self {
            memory: self.memory.saturating_sub(other.memory),
            cpu: self.cpu.saturating_sub(other.cpu),
            storage: self.storage.saturating_sub(other.storage),
        }
    }

    fn holds(self, other: Self) -> bool {
        other.memory <= self.memory && other.cpu <= self.cpu && other.storage <= self.storage
    }
}

/// What one virtual machine has, and what its object asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claim {
    /// Nothing before its first start.
    pub(crate) has: Share,
    /// Nothing where no object is known.
    pub(crate) asks: Share,
}

impl Claim {
    fn most(self) -> Share {
        self.has.larger(self.asks)
    }

    fn more(self) -> Room {
        self.most().cost().less(self.has.cost())
    }
}

/// What each virtual machine may count on: what it has, and what it asks for where that fits.
pub(crate) fn granted(whole: Share, claims: &BTreeMap<Uuid, Claim>) -> BTreeMap<Uuid, Share> {
    let mut left = left_by(whole, claims.values());
    let mut grant = |claim: Claim| {
        if !left.holds(claim.more()) {
            return claim.has;
        }
        left = left.less(claim.more());
        claim.most()
    };
    in_turn(whole, claims).into_iter().map(|(uid, claim)| (uid, grant(claim))).collect()
}

/// What the others leave for one of them, what it has itself included.
pub(crate) fn left_for(uid: Uuid, whole: Share, claims: &BTreeMap<Uuid, Claim>) -> Room {
    let others = claims.iter().filter(|(other, _)| **other != uid).map(|(_, claim)| claim);
    let (mut left, mut free) = (left_by(whole, others), left_by(whole, claims.values()));
    for (_, claim) in in_turn(whole, claims).into_iter().take_while(|(other, _)| *other != uid) {
        if free.holds(claim.more()) {
            (left, free) = (left.less(claim.more()), free.less(claim.more()));
        }
    }
    left
}

fn left_by<'a>(whole: Share, claims: impl Iterator<Item = &'a Claim>) -> Room {
    let whole = Room { memory: whole.memory, cpu: whole.cpu, storage: whole.storage };
    claims.fold(whole, |left, claim| left.less(claim.has.cost()))
}

/// The smallest ask first.
fn in_turn(whole: Share, claims: &BTreeMap<Uuid, Claim>) -> Vec<(Uuid, Claim)> {
    let mut turns: Vec<(Uuid, Claim)> = claims.iter().map(|(uid, claim)| (*uid, *claim)).collect();
    turns.sort_by_key(|(uid, claim)| (claim.most().part_of(whole), *uid));
    turns
}

/// Disk bytes that guests were promised and have not written yet: they are theirs, though the filesystem calls them free.
/// With a disk factor only so much of a promise is kept free as the operator has said.
pub(crate) fn unwritten(machines: impl IntoIterator<Item = Disks>, disk_factor: f64) -> u64 {
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let one = |disks: Disks| ((disks.promised as f64 / disk_factor) as u64).saturating_sub(disks.written);
    machines.into_iter().map(one).fold(0, u64::saturating_add)
}

/// The disks of one virtual machine, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Disks {
    /// As the guest sees them.
    pub(crate) promised: u64,
    /// Taken of the filesystem by now.
    pub(crate) written: u64,
}

/// Bytes of all disks of a spec.
pub(crate) fn storage(spec: &VirtualMachineSpec) -> u64 {
    spec.disks.iter().filter_map(|disk| disk.size.bytes().ok()).fold(0, u64::saturating_add)
}

#[cfg(test)]
#[path = "room_tests.rs"]
mod tests;
