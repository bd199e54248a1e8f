//! How much room a virtual machine takes on a node and how much a node has.
//!
//! Every bound virtual machine counts, halted ones and orphans too, with the larger of what it asks for and what it was
//! started with, so that a start does not fail for lack of room; but nobody fills a node by asking for what it has not.

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

    /// The larger of both, each by itself.
    fn larger(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.max(other.cpu),
            memory: self.memory.max(other.memory),
            storage: self.storage.max(other.storage),
        }
    }

    fn within(self, total: Self) -> bool {
        self.cpu <= total.cpu && self.memory <= total.memory && self.storage <= total.storage
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

/// Room of a virtual machine: the larger of what it asks for and what it has.
pub(crate) fn of_machine(vm: &VirtualMachine) -> Room {
    let asked = Room {
        cpu: count(vm.spec.cpu),
        memory: bytes(&vm.spec.memory),
        storage: vm.spec.disks.iter().map(|disk| bytes(&disk.size)).fold(0, u64::saturating_add),
    };
    with_overhead(asked).larger(made(vm).unwrap_or_default())
}

/// Room of what a virtual machine was last started with; `None` before its first start.
fn made(vm: &VirtualMachine) -> Option<Room> {
    let status = vm.status.as_ref()?;
    let applied = status.applied.as_ref()?;
    Some(with_overhead(Room {
        cpu: count(applied.cpu),
        memory: bytes(&applied.memory),
        storage: status.disks.iter().map(|disk| bytes(&disk.size)).fold(0, u64::saturating_add),
    }))
}

/// What is promised on a node of this size, beside what it holds without an object: what its virtual machines have; then
/// what those ask for that were not started yet, and what the others ask for beyond, the smallest first, as long as the node
/// has that. Whoever asks for more than is left cannot start so, and takes nothing from the others.
pub(crate) fn promised<'a>(
    total: Room,
    held: Room,
    machines: impl Iterator<Item = &'a VirtualMachine>,
) -> Room {
    let mut promised = held;
    let mut asked = Vec::new();
    for vm in machines {
        let made = made(vm);
        let has = made.unwrap_or_default();
        promised = promised.plus(has);
        asked.push((made.is_some(), of_machine(vm).minus(has)));
    }
    asked.sort_by_key(|(made, more)| (*made, more.storage, more.memory, more.cpu));
    for (_, more) in asked {
        let with = promised.plus(more);
        if with.within(total) {
            promised = with;
        }
    }
    promised
}

/// Room of a virtual machine without an object.
pub(crate) fn of_orphan(orphan: &Orphan) -> Room {
    with_overhead(Room {
        cpu: count(orphan.cpu),
        memory: bytes(&orphan.memory),
        storage: bytes(&orphan.storage),
    })
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

fn with_overhead(guest: Room) -> Room {
    Room { memory: guest.memory.saturating_add(overhead(guest.cpu, guest.memory)), ..guest }
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
    use holdfast_api::virtual_machine::{
        Applied, Disk, DiskStatus, VirtualMachineSpec, VirtualMachineStatus,
    };

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
        let room = of_machine(&vm);
        assert_eq!(room.cpu, 2);
        assert_eq!(room.memory, (1 << 30) + overhead(1, 1 << 30));
        assert_eq!(room.storage, 10 << 30);
    }

    fn machine(asks: &str, has: Option<&str>) -> VirtualMachine {
        let mut vm = VirtualMachine::new("web", VirtualMachineSpec::default());
        (vm.spec.cpu, vm.spec.memory) = (1, "1Gi".into());
        vm.spec.disks = vec![Disk { size: asks.into(), ..Disk::default() }];
        vm.status = has.map(|has| VirtualMachineStatus {
            applied: Some(Applied { cpu: 1, memory: "1Gi".into() }),
            disks: vec![DiskStatus { size: has.into(), ..DiskStatus::default() }],
            ..VirtualMachineStatus::default()
        });
        vm
    }

    #[test]
    fn nobody_fills_a_node_by_asking_for_what_it_has_not() {
        let total = Room { cpu: 8, memory: 8 << 30, storage: 100 << 30 };
        let storage =
            |machines: &[VirtualMachine]| promised(total, Room::default(), machines.iter()).storage >> 30;
        let small = machine("10Gi", None);
        assert_eq!(storage(&[machine("64Ti", Some("10Gi")), small.clone()]), 20, "an edit of what runs");
        assert_eq!(storage(&[machine("64Ti", None), small.clone()]), 10, "an edit before the first start");
        assert_eq!(storage(&[machine("30Gi", Some("10Gi")), small.clone()]), 40, "what fits is kept free");
        assert_eq!(
            storage(&[machine("100Gi", Some("10Gi")), small]),
            20,
            "it takes no place of one that waits"
        );
    }
}
