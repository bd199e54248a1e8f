//! What the domain's metadata remembers: all that is needed to run a virtual machine with no API.
//!
//! The record is the only state of ours that no one else holds. It says what was judged last (`spec`), what the guest was
//! started with (`applied`), what its disks and interfaces are made of, and how its runs went. A domain without a
//! readable record is foreign.

use std::collections::BTreeMap;

use holdfast_api::virtual_machine::{CloudInit, SeedStatus, VirtualMachineSpec};
use serde::{Deserialize, Serialize};

use super::observed::Ended;
use crate::image::{Digest, Format};
use crate::network::NetworkRecord;

/// Served one-shots kept: enough that a restored store, which is at most a few edits old, restarts nobody.
const SERVED: usize = 8;

/// All we remember of one virtual machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Namespace of the object.
    pub(crate) namespace: String,
    /// Name of the object.
    pub(crate) name: String,
    /// Generation of `spec`.
    pub(crate) generation: i64,
    /// The last spec that was judged good.
    pub(crate) spec: VirtualMachineSpec,
    /// What the guest was last started with; absent until its first start was defined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) applied: Option<Applied>,
    /// Image under each disk that has one, by name of the disk.
    #[serde(default)]
    pub(crate) images: BTreeMap<String, PinnedImage>,
    /// Network of each interface, by name of the interface.
    #[serde(default)]
    pub(crate) networks: BTreeMap<String, NetworkRecord>,
    /// What the seed was made from.
    pub(crate) seed: SeedRecord,
    /// How the run stands.
    pub(crate) run: Run,
    /// How libvirt said the run before the last definition had ended: it goes on saying so until the next one ends.
    #[serde(default)]
    pub(crate) ended: Option<Ended>,
    /// A stop we asked for, so that it is told apart from the guest's own; written before the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stop: Option<Stop>,
    /// Times the guest was started again after it ended by itself.
    #[serde(default)]
    pub(crate) restarts: i32,
    /// Failures in a row, and when the last one was seen (seconds since 1970).
    #[serde(default)]
    pub(crate) failures: Failures,
    /// Values of `restartRequest` that were served, the last one last.
    #[serde(default)]
    pub(crate) served_restarts: Vec<String>,
    /// Values of `cloudInit.reseed` that were served, the last one last.
    #[serde(default)]
    pub(crate) served_reseeds: Vec<String>,
    /// User id of its QEMU, chosen when it was defined; absent where an earlier release did that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) guest_uid: Option<u32>,
}

/// What the guest was started with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Applied {
    /// Generation it was started with.
    pub(crate) generation: i64,
    /// That generation's spec, without what went into the seed.
    pub(crate) spec: VirtualMachineSpec,
}

/// The exact bytes under a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PinnedImage {
    /// SHA-256 of the file.
    pub(crate) digest: Digest,
    /// Its format, recorded so that nobody probes.
    pub(crate) format: Format,
}

/// What the seed was made from; of Secrets only who they were.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SeedRecord {
    /// cloud-init runs once per instance-id.
    pub(crate) instance_id: String,
    /// Hostname given.
    pub(crate) hostname: String,
    /// Public keys given.
    #[serde(default)]
    pub(crate) ssh_keys: Vec<String>,
    /// Plain user-data and network data as given, and which Secrets were named.
    #[serde(default)]
    pub(crate) cloud_init: CloudInit,
    /// UID and version of those Secrets.
    #[serde(default)]
    pub(crate) secrets: SeedStatus,
}

/// How the run stands. Written after the fact it states, so a crash in between reads as the state before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Run {
    /// Defined, and not known to have run since.
    Ready,
    /// Started by us; if the domain is off, the guest ended since.
    Started,
    /// Ended and not to be started again under its run strategy.
    Done,
    /// Stopped because we were asked to.
    Stopped,
}

/// A stop we asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stop {
    /// The virtual machine shall be halted or removed.
    Halt,
    /// It shall start again.
    Restart,
}

/// Failures in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failures {
    /// How many.
    pub(crate) count: u32,
    /// When the last one was seen, in seconds since 1970.
    pub(crate) last: i64,
}

impl Applied {
    /// The seed record holds what went into the seed; twice it would double the largest part of a record.
    pub(crate) fn new(generation: i64, spec: &VirtualMachineSpec) -> Self {
        let spec = VirtualMachineSpec { cloud_init: CloudInit::default(), ..spec.clone() };
        Self { generation, spec }
    }
}

impl Record {
    /// Whether this value of `restartRequest` asks for a restart now.
    pub(crate) fn wants_restart(&self, request: &str) -> bool {
        !request.is_empty() && !self.served_restarts.iter().any(|served| served == request)
    }

    /// Whether the guest was last started with this disk.
    pub(crate) fn had(&self, disk: &str) -> bool {
        let applied = self.applied.as_ref();
        applied.is_some_and(|applied| applied.spec.disks.iter().any(|old| old.name == disk))
    }

    /// Whether the next start would give the guest other disks or interfaces than it has.
    pub(crate) fn rebuilds(&self, wanted: &VirtualMachineSpec) -> bool {
        let applied = self.applied.as_ref().map(|applied| &applied.spec);
        applied.is_some_and(|old| old.disks != wanted.disks || old.interfaces != wanted.interfaces)
    }

    /// Whether this value of `cloudInit.reseed` asks for a new seed at the next start.
    pub(crate) fn wants_reseed(&self, request: &str) -> bool {
        !request.is_empty() && !self.served_reseeds.iter().any(|served| served == request)
    }
}

/// Remembers a one-shot as served.
pub(crate) fn serve(served: &mut Vec<String>, request: &str) {
    if request.is_empty() || served.iter().any(|old| old == request) {
        return;
    }
    served.push(request.to_owned());
    let surplus = served.len().saturating_sub(SERVED);
    served.drain(..surplus);
}

#[cfg(test)]
mod tests {
    use holdfast_api::reference::ObjectRef;
    use holdfast_api::virtual_machine::{Disk, Interface, Placement};

    use super::super::plan::model::{World, spec};
    use super::*;
    use crate::libvirt::domain_xml::{DomainSpec, to_xml};
    use crate::libvirt::samples::web;

    /// All at its limit, and in characters that take the most room as JSON and as XML.
    fn worst() -> VirtualMachineSpec {
        let long = || ObjectRef { name: "t".repeat(253) };
        let disk =
            |n| Disk { name: format!("{n:020}"), size: "1Gi".into(), image: Some(long()), blank: None };
        let interface = |n| Interface { name: format!("{n:020}"), network: long(), ..Interface::default() };
        VirtualMachineSpec {
            restart_request: "\"".repeat(64),
            disks: (0..16).map(disk).collect(),
            interfaces: (0..8).map(interface).collect(),
            placement: Some(Placement {
                node_selector: BTreeMap::from([("k".into(), "v".repeat(2 << 20))]),
                ..Placement::default()
            }),
            cloud_init: CloudInit {
                hostname: "h".repeat(63),
                ssh_keys: vec![long(); 32],
                user_data: "\"".repeat(32 * 1024),
                network_data: "\"".repeat(32 * 1024),
                reseed: "\"".repeat(64),
                ..CloudInit::default()
            },
            ..spec()
        }
    }

    #[test]
    fn the_largest_valid_record_fits_into_one_message_of_libvirt() {
        let mut world = World::new(worst());
        world.settle();
        let mut record = world.domain.record().unwrap().clone();
        record.seed.ssh_keys = vec!["\"".repeat(holdfast_api::ssh_key::MAX_LINE); 32];
        record.served_restarts = vec!["\"".repeat(64); SERVED];
        record.served_reseeds = vec!["\"".repeat(64); SERVED];
        let text = serde_json::to_string(&record).unwrap();
        assert!(text.len() > 700 << 10, "{} bytes are not the worst", text.len());
        // It refuses a record beyond the limit.
        let xml = to_xml(&DomainSpec { record: text, ..web() }).unwrap();
        assert!(xml.len() < 3 << 20, "{} bytes of XML", xml.len());
    }

    #[test]
    fn the_last_eight_requests_are_remembered() {
        let mut served = Vec::new();
        for n in 0..10 {
            serve(&mut served, &n.to_string());
        }
        serve(&mut served, "9");
        serve(&mut served, "");
        assert_eq!(served, ["2", "3", "4", "5", "6", "7", "8", "9"]);
    }
}
