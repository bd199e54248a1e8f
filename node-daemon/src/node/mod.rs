//! The node itself in the API: its Lease (liveness) and the node's half of its `HypervisorNode`.
//!
//! ```text
//! Holdings (vm driver) ─┐
//! Proof (accelerator)  ─┼─► report: pure status ─► applied when it differs, at most every 2 s
//! Facts (host)         ─┘
//! HypervisorNode.spec  ───► Wishes (discard, prefetch) ─► vm driver
//! ```

mod bounded;
pub(crate) mod disk;
pub(crate) mod facts;
pub(crate) mod lease;
pub(crate) mod problems;
pub(crate) mod report;

use std::collections::BTreeSet;
use std::sync::Arc;

use holdfast_api::HypervisorNode;
use holdfast_api::node::{CachedImage, Orphan, PrefetchImage};
use tokio::sync::watch;

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
    /// How often the work on a virtual machine panicked since the daemon started.
    pub(crate) panics: u32,
    /// How many objects cannot be read whole.
    pub(crate) unreadable: usize,
}

/// What only libvirt knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HypervisorVersions {
    /// Of libvirt, such as 11.3.0.
    pub(crate) libvirt: String,
    /// Of the hypervisor, such as QEMU 10.0.2.
    pub(crate) hypervisor: String,
    /// Security drivers in use, such as apparmor and dac; `None` where an earlier release reported.
    pub(crate) security_drivers: Option<Vec<String>>,
}

/// What people and the controller ask of this node.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Wishes {
    /// UIDs of orphans to destroy; a person wrote them.
    pub(crate) discard: BTreeSet<String>,
    /// Images to fetch ahead.
    pub(crate) prefetch: Vec<PrefetchImage>,
}

/// Offers the wishes of the own object; those seen last stay while the object cannot be read.
pub(crate) async fn follow_wishes(
    mut own: watch::Receiver<Option<Arc<HypervisorNode>>>,
    wishes: watch::Sender<Wishes>,
) {
    loop {
        if let Some(node) = own.borrow_and_update().as_deref() {
            let new = wished(node);
            wishes.send_if_modified(|old| {
                let changed = *old != new;
                *old = new;
                changed
            });
        }
        if own.changed().await.is_err() {
            return;
        }
    }
}

fn wished(node: &HypervisorNode) -> Wishes {
    Wishes { discard: node.spec.discard.iter().cloned().collect(), prefetch: node.spec.prefetch.clone() }
}
