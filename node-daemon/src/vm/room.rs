//! What virtual machines take of a node, and what is left for one of them. Pure.
//!
//! The controller counts in the same way before it places one; here it is for edits, which nobody
//! places, and for what the node holds and the controller does not see.

use holdfast_api::capacity::overhead;
use holdfast_api::virtual_machine::VirtualMachineSpec;

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

    /// What a domain of ours has or may be started with: the larger of what it is defined with and what its record says.
    pub(crate) fn held(domain: &libvirt::Domain, record: Option<&Record>) -> Self {
        let defined =
            Self { cpu: domain.cpu.into(), memory: domain.memory_mib.saturating_mul(1 << 20), storage: 0 };
        let applied = record.and_then(|record| record.applied.as_ref()).map(|applied| &applied.spec);
        let specs = record.map(|record| &record.spec).into_iter().chain(applied);
        specs.map(Self::asked).fold(defined, Self::larger)
    }

    /// The larger of both, each by itself.
    pub(crate) fn larger(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.max(other.cpu),
            memory: self.memory.max(other.memory),
            storage: self.storage.max(other.storage),
        }
    }

    /// What the others leave of this.
    pub(crate) fn left(self, others: impl IntoIterator<Item = Self>) -> Room {
        let whole = Room { memory: self.memory, cpu: self.cpu, storage: self.storage };
        others.into_iter().fold(whole, |left, other| Room {
            memory: left
                .memory
                .saturating_sub(other.memory)
                .saturating_sub(overhead(other.cpu, other.memory)),
            cpu: left.cpu.saturating_sub(other.cpu),
            storage: left.storage.saturating_sub(other.storage),
        })
    }
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
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn others_take_their_memory_and_what_the_hypervisor_needs_beside_it() {
        let node = Share { cpu: 8, memory: 4 * GIB, storage: 100 * GIB };
        let other = Share { cpu: 2, memory: GIB, storage: 10 * GIB };
        let left = node.left([other, other]);
        assert_eq!(left, Room { memory: 2 * GIB - 2 * overhead(2, GIB), cpu: 4, storage: 80 * GIB });
        assert_eq!(other.left([node]), Room { memory: 0, cpu: 0, storage: 0 });
    }

    #[test]
    fn what_a_guest_has_not_written_yet_stays_its_own() {
        let half = Disks { promised: 10 * GIB, written: 4 * GIB };
        // The tables of a qcow2 file come on top of its content.
        let full = Disks { promised: 10 * GIB, written: 11 * GIB };
        let not_made = Disks { promised: 5 * GIB, written: 0 };
        assert_eq!(unwritten([half, full, not_made], 1.0), 11 * GIB);
        assert_eq!(unwritten([half, full, not_made], 2.0), 3 * GIB + GIB / 2);
    }

    #[test]
    fn the_larger_of_what_is_asked_for_and_what_is_held_counts() {
        let asked = Share { cpu: 1, memory: 2 * GIB, storage: GIB };
        let held = Share { cpu: 2, memory: GIB, storage: 0 };
        assert_eq!(asked.larger(held), Share { cpu: 2, memory: 2 * GIB, storage: GIB });
    }
}
