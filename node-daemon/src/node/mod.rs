//! The node itself in the API: its Lease (liveness) and the node's half of its `HypervisorNode`.

use std::collections::BTreeSet;

use holdfast_api::node::{CachedImage, Orphan};

/// What the node holds, handed in by the vm driver after each pass that changed something.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Holdings {
    /// UIDs of the virtual machines this node holds, running or not, orphans aside.
    pub(crate) virtual_machines: BTreeSet<String>,
    /// Virtual machines no object asks for, in the order of their UIDs.
    pub(crate) orphans: Vec<Orphan>,
    /// Images in the cache or on their way into it, in the order of their digests.
    pub(crate) images: Vec<CachedImage>,
    /// What libvirt says of itself; `None` until it answered once.
    pub(crate) hypervisor: Option<HypervisorVersions>,
}

/// Versions that only libvirt knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HypervisorVersions {
    /// Of libvirt, such as 11.3.0.
    pub(crate) libvirt: String,
    /// Of the hypervisor, such as QEMU 10.0.2.
    pub(crate) hypervisor: String,
}
