//! `VirtualMachine` (hvm): the wanted state of one guest and what became of it.
//!
//! One kind, no split into machine and instance. Who writes which half of the status stands in `api/README.md`.

mod parts;
mod status;

pub use parts::{Blank, CloudInit, Disk, Firmware, Interface, Placement, RunStrategy};
pub use status::{
    Address, AddressSource, Applied, DiskStatus, InterfaceStatus, PendingChange, PrintableStatus, Progress,
    SeedStatus, VirtualMachineStatus, WaitsFor,
};

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::Quantity;

/// What the virtual machine shall be.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "holdfast.dev",
    version = "v1alpha1",
    kind = "VirtualMachine",
    plural = "virtualmachines",
    shortname = "hvm",
    category = "all",
    category = "holdfast",
    namespaced,
    status = "VirtualMachineStatus",
    derive = "Default",
    derive = "PartialEq",
    selectable = ".status.nodeName",
    doc = "A virtual machine: made from a cloud image, configured by cloud-init, run under KVM on one node. Ready means that it runs, or is halted, as its spec says.",
    validation = Rule::new("self.metadata.name.size() <= 63").message("the name of a virtual machine is its default hostname: use at most 63 characters"),
    validation = Rule::new("!self.metadata.name.contains('.')").message("the name of a virtual machine is its default hostname: use letters, digits and '-', no '.'"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.nodeName) || oldSelf.status.nodeName == '' || (has(self.spec.placement) == has(oldSelf.spec.placement) && (!has(self.spec.placement) || self.spec.placement == oldSelf.spec.placement))").message("placement cannot change once the virtual machine is on a node: delete it and create it again to move it"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.printableStatus"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Node", type_ = "string", json_path = ".status.nodeName"),
    printcolumn(name = "IP", type_ = "string", json_path = ".status.addresses[0].ip"),
    printcolumn(name = "CPU", type_ = "integer", json_path = ".spec.cpu", priority = "1"),
    printcolumn(name = "Memory", type_ = "string", json_path = ".spec.memory", priority = "1"),
    printcolumn(name = "Restarts", type_ = "integer", json_path = ".status.restartCount", priority = "1"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineSpec {
    /// When the guest runs: Always (default; restarted whatever ends it), RerunOnFailure (restarted after a failure, not after it powered itself off), Once (started once), Halted (powered off). Takes effect at once.
    #[serde(default)]
    pub run_strategy: RunStrategy,
    /// Freezes the guest's processors while true; its memory stays. Default false. Takes effect at once.
    #[serde(default)]
    pub paused: bool,
    /// Any new value restarts the guest once, gracefully; it is compared, never read as a time. What it holds at creation, and values served before, do nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new(r"!self.matches('[\\x00-\\x1f\\x7f-\\x9f\\x{fffe}\\x{ffff}]')").message("restartRequest must not contain control characters"))]
    pub restart_request: String,
    /// Virtual processors, 1 to 255. A change takes effect at the next start.
    #[x_kube(validation = Rule::new("self >= 1 && self <= 255").message("cpu must be between 1 and 255 virtual processors"))]
    pub cpu: i32,
    /// Memory of the guest in whole Mi, Gi or Ti, 64Mi to 4Ti, such as 2Gi. A change takes effect at the next start.
    #[x_kube(validation = Rule::new("self.matches('^[1-9][0-9]{0,8}(Mi|Gi|Ti)$') && quantity(self).compareTo(quantity('64Mi')) >= 0 && quantity(self).compareTo(quantity('4Ti')) <= 0").message("memory must be a whole number of Mi, Gi or Ti between 64Mi and 4Ti, such as 2Gi"))]
    pub memory: Quantity,
    /// Firmware the guest boots with: UEFI (default) or BIOS. It cannot change.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message("firmware cannot change, because the installed system boots by it: delete the virtual machine and create it again"))]
    pub firmware: Firmware,
    /// Disks in device order; the first is the boot disk. At least one, at most 16. Blank disks added or removed take effect at the next start; a removed disk's file stays until the virtual machine goes.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(
        merge_strategy = ListMerge::Atomic,
        validation = Rule::new("self.all(d, self.exists_one(o, o.name == d.name))").message("each disk needs a name of its own"),
        validation = Rule::new("self[0].name == oldSelf[0].name").message("the first disk is the boot disk and must stay first: delete the virtual machine and create it again to boot from another disk"),
        validation = Rule::new("self.all(d, oldSelf.all(o, o.name != d.name || (has(o.image) == has(d.image) && (!has(d.image) || o.image.name == d.image.name))))").message("the source of a disk cannot change, because the guest has written to it: create a virtual machine from the other image, or add a disk with another name"),
        validation = Rule::new("self.all(d, oldSelf.all(o, o.name != d.name || !isQuantity(d.size) || !isQuantity(o.size) || quantity(d.size).compareTo(quantity(o.size)) >= 0))").message("a disk cannot shrink, because that would cut off what the guest has stored: keep its size, or add a smaller disk with another name")
    )]
    pub disks: Vec<Disk>,
    /// Network interfaces in device order, at most 8. Interfaces added or removed take effect at the next start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(
        merge_strategy = ListMerge::Atomic,
        validation = Rule::new("self.all(i, self.exists_one(o, o.name == i.name))").message("each interface needs a name of its own")
    )]
    pub interfaces: Vec<Interface>,
    /// What cloud-init is told. A change reaches the guest at the next start after a new value of reseed.
    #[serde(default)]
    pub cloud_init: CloudInit,
    /// Which node may run the virtual machine; any when absent. It cannot change once the virtual machine is on a node.
    #[schemars(with = "Placement")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// Seconds the guest gets to power off before it is stopped by force, 0 to 3600. Default 60.
    #[serde(default = "default_grace")]
    #[x_kube(validation = Rule::new("self >= 0 && self <= 3600").message("terminationGracePeriodSeconds must be between 0 and 3600 seconds"))]
    pub termination_grace_period_seconds: i32,
    /// Refuses deletion while true, also when its namespace is deleted. Default false.
    #[serde(default)]
    pub deletion_protection: bool,
}

fn default_grace() -> i32 {
    60
}
