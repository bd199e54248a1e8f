//! How much room a virtual machine takes on a node and how much a node has.
//!
//! Every bound virtual machine counts, halted ones and orphans too, with the larger of what it asks for and what it was
//! started with, so that a start does not fail for lack of room.

use holdfast_api::capacity::overhead;
use holdfast_api::node::{Capacity, Orphan};
use holdfast_api::{HypervisorNode, Quantity, VirtualMachine};

/// An amount of what virtual machines consume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Room {
    /// Virtual processors.
    pub(crate) cpu: u64,
    /// Bytes of memory, overhead counted.
    pub(crate) memory: u64,
    /// Bytes of disk.
    pub(crate) storage: u64,
}

impl Room {
    /// Both together.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_add(other.cpu),
            memory: self.memory.saturating_add(other.memory),
            storage: self.storage.saturating_add(other.storage),
        }
    }

    /// What is left of this after the other is taken; nothing where more is taken than there is.
    pub(crate) fn minus(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(other.cpu),
            memory: self.memory.saturating_sub(other.memory),
            storage: self.storage.saturating_sub(other.storage),
        }
    }

    /// As it is shown in the status of a node.
    pub(crate) fn shown(self) -> Capacity {
        Capacity {
            cpu: i32::try_from(self.cpu).unwrap_or(i32::MAX),
            memory: Quantity::from_bytes(self.memory),
            storage: Quantity::from_bytes(self.storage),
        }
    }
}

/// Room of a virtual machine; `disk_percent` says how much of a disk's size is counted (100: all of it).
pub(crate) fn of_machine(vm: &VirtualMachine, disk_percent: u64) -> Room {
    let status = vm.status.clone().unwrap_or_default();
    let applied = status.applied.unwrap_or_default();
    let asked: u64 = vm.spec.disks.iter().map(|disk| bytes(&disk.size)).sum();
    let made: u64 = status.disks.iter().map(|disk| bytes(&disk.size)).sum();
    let room = Room {
        cpu: count(vm.spec.cpu).max(count(applied.cpu)),
        memory: bytes(&vm.spec.memory).max(bytes(&applied.memory)),
        storage: asked.max(made),
    };
    with_costs(room, disk_percent)
}

/// Room of a virtual machine without an object.
pub(crate) fn of_orphan(orphan: &Orphan, disk_percent: u64) -> Room {
    let room =
        Room { cpu: count(orphan.cpu), memory: bytes(&orphan.memory), storage: bytes(&orphan.storage) };
    with_costs(room, disk_percent)
}

/// Room a node has, before anything is placed on it; nothing until it reported.
pub(crate) fn of_node(node: &HypervisorNode) -> Room {
    let Some(capacity) = node.status.as_ref().and_then(|status| status.capacity.as_ref()) else {
        return Room::default();
    };
    Room {
        cpu: count(capacity.cpu).saturating_mul(count(node.spec.cpu_overcommit).max(1)),
        memory: bytes(&capacity.memory),
        storage: bytes(&capacity.storage),
    }
}

fn with_costs(room: Room, disk_percent: u64) -> Room {
    Room {
        memory: room.memory.saturating_add(overhead(room.cpu, room.memory)),
        storage: room.storage.saturating_mul(disk_percent) / 100,
        ..room
    }
}

fn count(number: i32) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// What is no size counts as nothing here; the node refuses it by name.
fn bytes(size: &Quantity) -> u64 {
    size.bytes().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_api::virtual_machine::{Applied, Disk, VirtualMachineSpec, VirtualMachineStatus};

    #[test]
    fn the_larger_of_asked_and_applied_counts() {
        let mut vm = VirtualMachine::new("web", VirtualMachineSpec::default());
        vm.spec.cpu = 1;
        vm.spec.memory = "1Gi".into();
        vm.spec.disks = vec![Disk { size: "10Gi".into(), ..Disk::default() }];
        vm.status = Some(VirtualMachineStatus {
            applied: Some(Applied { cpu: 2, memory: "512Mi".into() }),
            ..VirtualMachineStatus::default()
        });
        let room = of_machine(&vm, 100);
        assert_eq!(room.cpu, 2);
        assert_eq!(room.memory, (1 << 30) + overhead(2, 1 << 30));
        assert_eq!(room.storage, 10 << 30);
        assert_eq!(of_machine(&vm, 50).storage, 5 << 30);
    }
}
