//! `HypervisorNode` (hnode): a host that runs virtual machines. The controller makes it; the node fills in the left half
//! of its status, the controller the right half.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::Quantity;
use crate::bounds::{DIGEST, FULL_NAME, IMAGES, LISTED, MACHINES, NAME, ORPHANS, SENTENCE, UID, WORD};
use crate::image::{ImageFormat, ImageSource};
use crate::offer::NetworkOffer;

/// What people and the controller want of a node.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "holdfast.dev",
    version = "v1alpha1",
    kind = "HypervisorNode",
    plural = "hypervisornodes",
    shortname = "hnode",
    category = "holdfast",
    status = "HypervisorNodeStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "A host that runs virtual machines. The controller creates it when a node enrols. Deleting it says the host is gone for good: its virtual machines are released, and should the host return, its guests are left alone and reported as orphans.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Accelerator", type_ = "string", json_path = ".status.accelerator.name"),
    printcolumn(name = "CPU", type_ = "integer", json_path = ".status.capacity.cpu"),
    printcolumn(name = "Memory", type_ = "string", json_path = ".status.capacity.memory"),
    printcolumn(name = "Cordoned", type_ = "boolean", json_path = ".spec.unschedulable"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.versions.daemon", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct HypervisorNodeSpec {
    /// Cordon: no further virtual machine is placed here; those that run stay. Default false.
    #[serde(default)]
    pub unschedulable: bool,
    /// Virtual processors that may be promised for each real one, 1 to 32. Default 4.
    #[serde(default = "default_overcommit")]
    #[schemars(range(min = 1, max = 32))]
    pub cpu_overcommit: i32,
    /// The identity that enrolled under this name; written by the controller.
    #[serde(default, skip_serializing_if = "NodeIdentity::is_empty")]
    pub identity: NodeIdentity,
    /// Images the node fetches before they are needed; written by the controller from the prefetch selectors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub prefetch: Vec<PrefetchImage>,
    /// UIDs of orphans the node shall destroy with all their disks; a person writes them here, nothing else removes an orphan.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = UID)))]
    pub discard: Vec<String>,
}

fn default_overcommit() -> i32 {
    4
}

/// Digests of the keys a node is known by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeIdentity {
    /// SHA-256 of the public identity key (SubjectPublicKeyInfo, DER), hexadecimal.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = WORD))]
    pub key_sha256: String,
    /// SHA-256 of the TPM's endorsement key; empty for a key that lies in a file.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = WORD))]
    pub ek_sha256: String,
}

impl NodeIdentity {
    /// Whether no key is known.
    pub fn is_empty(&self) -> bool {
        self.key_sha256.is_empty() && self.ek_sha256.is_empty()
    }
}

/// An image to fetch ahead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct PrefetchImage {
    /// UID of the image object; what another one asks for is tried at once.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 36))]
    pub uid: String,
    /// Namespace of the image object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// Where it comes from.
    pub source: ImageSource,
    /// Its SHA-256 digest.
    #[schemars(length(max = DIGEST))]
    pub digest: String,
    /// Its format: qcow2 or raw.
    pub format: ImageFormat,
    /// Whether the bytes serve only namespaces whose own source delivered them. Default false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub private: bool,
}

impl PrefetchImage {
    /// Whether both are the same work, whichever object asks for it.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let Self { uid: _, namespace, source, digest, format, private } = self;
        (namespace, source, digest, format, private)
            == (&other.namespace, &other.source, &other.digest, &other.format, &other.private)
    }
}

/// What the node is and holds, and what the controller says of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HypervisorNodeStatus {
    /// What the host has (node).
    #[schemars(with = "Capacity")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
    /// Versions of what runs there (node).
    #[schemars(with = "Versions")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub versions: Option<Versions>,
    /// What executes guests, and whether that was proved (node).
    #[schemars(with = "AcceleratorStatus")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accelerator: Option<AcceleratorStatus>,
    /// Networks the node offers guests, as its configuration says; absent until a version that tells has reported (node).
    #[schemars(with = "NetworkOffer")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networks: Option<NetworkOffer>,
    /// What libvirt holds the QEMU of each guest with (node).
    #[schemars(with = "ConfinementStatus")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confinement: Option<ConfinementStatus>,
    /// What keeps the node from its work, the gravest first; nothing is placed on it meanwhile. Empty when all is well (node).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub problems: Vec<NodeProblem>,
    /// True while the node's key lies in a file, which is for development only (node).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure_dev: bool,
    /// Images in the cache of the node or on their way into it, the first 1024 in the order of their digests (node).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = IMAGES))]
    pub images: Vec<CachedImage>,
    /// UIDs of the virtual machines the node holds, running or not, at most 8192 (node).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MACHINES), inner(length(max = UID)))]
    pub virtual_machines: Vec<String>,
    /// Virtual machines the node holds and no object asks for; they run on until spec.discard names them; at most 2048 (node).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = ORPHANS))]
    pub orphans: Vec<Orphan>,
    /// How often the daemon's work on a virtual machine failed by a fault of its own since it started; more than 0 is worth a
    /// report with its log (node).
    #[serde(default, skip_serializing_if = "is_none_at_all")]
    #[schemars(range(min = 0))]
    pub panics: i32,
    /// How many objects the daemon cannot read whole; it goes on with what it read before, and names each by an event and in
    /// its log (node).
    #[serde(default, skip_serializing_if = "is_none_at_all")]
    #[schemars(range(min = 0))]
    pub unreadable_objects: i32,
    /// Namespaces the node serves and may watch (controller).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = LISTED), inner(length(max = NAME)))]
    pub namespaces: Vec<String>,
    /// What is promised to virtual machines and orphans, per-machine overhead counted (controller).
    #[schemars(with = "Capacity")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocated: Option<Capacity>,
    /// Ready, Enrolled (controller).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::condition::schema")]
    pub conditions: Vec<Condition>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_none_at_all(count: &i32) -> bool {
    *count == 0
}

/// An amount of what virtual machines consume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Capacity {
    /// Processors: real ones in a capacity, virtual ones in an allocation.
    pub cpu: i32,
    /// Memory.
    pub memory: Quantity,
    /// Disk space of the node's state folder.
    pub storage: Quantity,
}

/// Versions of the programs on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Versions {
    /// holdfast-node.
    #[schemars(length(max = WORD))]
    pub daemon: String,
    /// libvirt.
    #[schemars(length(max = WORD))]
    pub libvirt: String,
    /// The hypervisor, such as QEMU.
    #[schemars(length(max = WORD))]
    pub hypervisor: String,
    /// Kernel release.
    #[schemars(length(max = WORD))]
    pub kernel: String,
    /// Processor architecture, such as x86_64.
    #[schemars(length(max = WORD))]
    pub architecture: String,
}

/// What executes guests on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct AcceleratorStatus {
    /// kvm, or tcg (emulation) where the node is configured so.
    #[schemars(length(max = WORD))]
    pub name: String,
    /// Whether guest code was seen to run with it; without that the node starts nothing.
    pub proved: bool,
    /// Why it was not proved, and what to do; empty otherwise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = SENTENCE))]
    pub message: String,
}

/// How libvirt confines guests' QEMU on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct ConfinementStatus {
    /// Security drivers in use, such as apparmor, selinux, and dac, which gives each guest's QEMU a user id of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = WORD)))]
    pub drivers: Vec<String>,
    /// What is missing, and what to do; empty where apparmor or selinux is in use.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = SENTENCE))]
    pub message: String,
}

/// What keeps a node from its work.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct NodeProblem {
    /// One word for programs; the reason of the node's Ready condition.
    #[schemars(length(max = WORD))]
    pub reason: String,
    /// A sentence for people, with the remedy.
    #[schemars(length(max = SENTENCE))]
    pub message: String,
}

/// An image in a node's cache.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CachedImage {
    /// Its SHA-256 digest.
    #[schemars(length(max = DIGEST))]
    pub digest: String,
    /// Bytes on disk so far.
    pub bytes: i64,
    /// Bytes in all; equal to bytes once complete and verified, 0 while unknown.
    pub total: i64,
    /// Size of the disk it describes, in bytes; absent until complete.
    #[schemars(with = "i64")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_size: Option<i64>,
    /// Why a prefetch does not advance; empty otherwise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = SENTENCE))]
    pub message: String,
}

/// A virtual machine without an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Orphan {
    /// UID of the object it was made for; also its libvirt domain UUID.
    #[schemars(length(max = UID))]
    pub uid: String,
    /// Namespace and name it had, such as shop/web.
    #[schemars(length(max = FULL_NAME))]
    pub name: String,
    /// Virtual processors it occupies.
    pub cpu: i32,
    /// Memory it occupies.
    pub memory: Quantity,
    /// Disk space it occupies.
    pub storage: Quantity,
}
