//! What the world looks like to the planner: each absence has a name.

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast_api::offer::NetworkOffer;
use holdfast_api::virtual_machine::SeedStatus;
use serde::{Deserialize, Serialize};

use super::record::Record;
use crate::image::{Digest, Format};
use crate::network::NetworkRecord;
use crate::retry::Retry;

/// One look at one virtual machine.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Observed {
    /// The libvirt domain.
    pub(crate) domain: Domain,
    /// Whether the folder is there.
    pub(crate) folder: Folder,
    /// Image under each disk that has one, by name of the disk.
    pub(crate) images: BTreeMap<String, Image>,
    /// Size in bytes of each disk file that is there, by name of the disk.
    pub(crate) disks: BTreeMap<String, u64>,
    /// Network of each interface, by name of the interface.
    pub(crate) networks: BTreeMap<String, Network>,
    /// What this host offers guests to be connected to.
    pub(crate) offer: Arc<NetworkOffer>,
    /// Whether the seed is there and what a new one would be made from.
    pub(crate) seed: Seed,
    /// Whether this host was seen to run guest code.
    pub(crate) accelerator: Accelerator,
    /// Why nothing may be started or imported on this host now.
    pub(crate) bar: Option<Obstacle>,
    /// What this virtual machine may take at its next start.
    pub(crate) room: Room,
}

/// What the other virtual machines of a node leave for this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// Bytes of memory; what the hypervisor needs beside this guest's comes out of it, too.
    pub(crate) memory: u64,
    /// Virtual processors.
    pub(crate) cpu: u64,
    /// Bytes of disk.
    pub(crate) storage: u64,
}

impl Room {
    /// Where nobody looked.
    pub(crate) const ENDLESS: Self = Self { memory: u64::MAX, cpu: u64::MAX, storage: u64::MAX };
}

/// The libvirt domain of a virtual machine.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Domain {
    /// None has this UUID.
    Absent,
    /// One has this UUID but no metadata of ours: never touched.
    Foreign,
    /// Ours.
    Ours {
        /// What it does.
        state: State,
        /// What its metadata remembers.
        record: Box<Record>,
    },
}

/// What a domain of ours does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Off, and how that came about.
    Off(Ended),
    /// The guest runs.
    Running,
    /// Its processors are frozen.
    Paused(PausedBy),
}

/// How a run ended, as far as libvirt knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ended {
    /// libvirt does not know: it was not started since it was defined, or the host went down.
    Unknown,
    /// The guest powered itself off, or obeyed our request.
    PoweredOff,
    /// It crashed or was killed.
    Failed,
    /// It was started and never came up.
    NeverStarted,
}

/// Who froze the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PausedBy {
    /// We did, or a person on the host.
    Request,
    /// QEMU did, because a disk could not be written.
    IoError,
}

/// The folder of a virtual machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Folder {
    /// Not there.
    Absent,
    /// There, with whatever in it.
    Present,
}

/// The image under a disk.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Image {
    /// In the cache.
    Held(HeldImage),
    /// Not in the cache, and it is known where to get it.
    Fetchable(Digest),
    /// On its way.
    Fetching(Digest),
    /// Cannot be had now, and why.
    Unavailable(Obstacle),
}

/// An image in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeldImage {
    /// Which bytes.
    pub(crate) digest: Digest,
    /// Their format.
    pub(crate) format: Format,
    /// Size of the disk they describe, in bytes.
    pub(crate) virtual_bytes: u64,
}

/// The network of an interface.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Network {
    /// Known.
    Known(NetworkRecord),
    /// Not known now, and why.
    Unavailable(Obstacle),
}

/// The seed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seed {
    /// Whether the file is there.
    pub(crate) written: bool,
    /// What a new one would be made from.
    pub(crate) inputs: Inputs,
}

/// What a seed is made from, apart from the spec.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Inputs {
    /// All there.
    Ready {
        /// Public keys, in the order of the spec.
        ssh_keys: Vec<String>,
        /// Which Secrets; their bytes stay with the driver.
        secrets: SeedStatus,
    },
    /// Something is missing, and what.
    Unavailable(Obstacle),
}

/// Whether this host was seen to run guest code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Accelerator {
    /// It was.
    Proved,
    /// The daemon has just started and is still trying.
    Trying,
    /// It was not, and why.
    Unproved(String),
}

/// Why something cannot be had now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Obstacle {
    /// Reason of the condition.
    pub(crate) reason: &'static str,
    /// Sentence with the remedy.
    pub(crate) message: String,
    /// When to look again; `OnChange` makes the object `Stalled`.
    pub(crate) retry: Retry,
}

impl Obstacle {
    /// An obstacle that ends by itself or by somebody's work on another object.
    pub(crate) fn later(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), retry: Retry::Later }
    }

    /// An obstacle that passes within seconds, as a rule.
    pub(crate) fn soon(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), retry: Retry::Soon }
    }

    /// An obstacle that only a change of this object removes.
    pub(crate) fn stalled(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), retry: Retry::OnChange }
    }
}

impl Domain {
    /// The record, where the domain is ours.
    pub(crate) fn record(&self) -> Option<&Record> {
        match self {
            Self::Absent | Self::Foreign => None,
            Self::Ours { record, .. } => Some(record),
        }
    }
}
