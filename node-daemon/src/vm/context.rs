//! What every virtual machine of this node shares.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;
use uuid::Uuid;

use super::fetches::Fetches;
use super::observed::Accelerator;
use crate::disk::Disks;
use crate::libvirt::{Libvirt, domain_xml};
use crate::network::Networks;
use crate::objects::Objects;

/// Handles to the world. Passed by reference; there is no global.
pub(crate) struct Context {
    /// Everything the daemon writes lies below it.
    pub(crate) state_dir: PathBuf,
    /// The hypervisor.
    pub(crate) libvirt: Libvirt,
    /// The image cache and what is on its way into it.
    pub(crate) fetches: Fetches,
    /// Makes and grows disks.
    pub(crate) disks: Arc<Disks>,
    /// Networks of this host.
    pub(crate) networks: Networks,
    /// What the API says.
    pub(crate) objects: Objects,
    /// What the configuration says shall execute guests.
    pub(crate) configured: domain_xml::Accelerator,
    /// Whether that was seen to run guest code; `None` until the proof has ended.
    pub(crate) proof: watch::Receiver<Option<Accelerator>>,
    /// MiB of memory this host has for virtual machines; 0 until libvirt has said it.
    pub(crate) capacity_mib: AtomicU64,
}

impl Context {
    /// What is known of the accelerator now.
    pub(crate) fn accelerator(&self) -> Accelerator {
        let unknown = || Accelerator::Unproved("the node is still trying whether it can run guests".to_owned());
        self.proof.borrow().clone().unwrap_or_else(unknown)
    }

    /// MiB of memory that the other virtual machines here leave, halted ones and orphans counted, so that a start does
    /// not fail for lack of room. Without an answer of libvirt the start itself will say what is wrong.
    pub(crate) async fn room_mib(&self, uid: Uuid) -> u64 {
        let capacity = self.capacity_mib.load(Ordering::Relaxed);
        let Ok(domains) = self.libvirt.domains().await else { return u64::MAX };
        if capacity == 0 {
            return u64::MAX;
        }
        let others = domains.iter().filter(|domain| domain.uuid != uid && domain.record.is_some());
        capacity.saturating_sub(others.map(|domain| domain.memory_mib).sum())
    }
}
