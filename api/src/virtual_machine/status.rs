//! The status of a virtual machine.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Quantity;
use crate::bounds::{ADDRESS, ADDRESSES, DIGEST, SENTENCE, UID, WORD};

/// What became of the virtual machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineStatus {
    /// Node that holds the virtual machine; set once by the controller, and emptied only when nothing of it is left there or the node is gone for good.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new("self == oldSelf || self == '' || oldSelf == ''").message("a virtual machine does not move from one node to another: it is released first"))]
    pub node_name: String,
    /// Generation of the spec that was judged last, also when it was refused.
    #[schemars(with = "i64")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Generation the guest was last started with.
    #[schemars(with = "i64")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_generation: Option<i64>,
    /// What the guest was last started with.
    #[schemars(with = "Applied")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<Applied>,
    /// One word for people: Pending, Provisioning, Starting, Running, Paused, Stopping, Stopped, Terminating, CrashLoopBackOff, ErrorUnschedulable, Error or Unknown.
    #[schemars(with = "PrintableStatus")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub printable_status: Option<PrintableStatus>,
    /// Addresses of the guest as the node sees them, without an agent in the guest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = ADDRESSES))]
    pub addresses: Vec<Address>,
    /// Interfaces with the hardware addresses they have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub interfaces: Vec<InterfaceStatus>,
    /// Disks with the image bytes they are built on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub disks: Vec<DiskStatus>,
    /// Long work under way, in bytes.
    #[schemars(with = "Progress")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Changes of the spec that the running guest has not got yet, and what each waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub pending_changes: Vec<PendingChange>,
    /// Times the guest was started again after it ended by itself; starts anew when the run strategy changes.
    #[schemars(with = "i32")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_count: Option<i32>,
    /// The restartRequest that was served last.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub last_restart_request: String,
    /// Which Secret the seed was made from; never anything of its content.
    #[schemars(with = "SeedStatus")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<SeedStatus>,
    /// UUID the guest sees and the libvirt domain has; the UID of this object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = UID))]
    pub uuid: String,
    /// Ready, Scheduled, ImageReady, Running, AddressKnown, RestartRequired, Reconciling, Stalled and Removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::condition::schema")]
    pub conditions: Vec<Condition>,
}

/// One word for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PrintableStatus {
    /// Waits for a node or for something it refers to.
    Pending,
    /// Its images and disks are being made.
    Provisioning,
    /// About to run.
    Starting,
    /// Runs.
    Running,
    /// Its processors are frozen.
    Paused,
    /// Asked to power off.
    Stopping,
    /// Off.
    Stopped,
    /// Being removed.
    Terminating,
    /// Ended too often; waits before the next start.
    CrashLoopBackOff,
    /// No node can take it.
    ErrorUnschedulable,
    /// Something must be changed; see the conditions.
    Error,
    /// Its node is silent.
    Unknown,
}

/// What a guest was started with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Applied {
    /// Virtual processors.
    pub cpu: i32,
    /// Memory.
    pub memory: Quantity,
}

/// An address of the guest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, KubeSchema)]
pub struct Address {
    /// Name of the interface.
    #[schemars(length(max = 20))]
    pub interface: String,
    /// The address.
    #[schemars(length(max = ADDRESS))]
    pub ip: String,
    /// How it was learned: Lease (of the node's DHCP) or ARP.
    pub source: AddressSource,
}

/// How an address was learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum AddressSource {
    /// From a lease of the node's DHCP server.
    Lease,
    /// From the node's neighbour table.
    #[serde(rename = "ARP")]
    Arp,
}

/// An interface as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct InterfaceStatus {
    /// Name of the interface.
    #[schemars(length(max = 20))]
    pub name: String,
    /// Its hardware address.
    #[schemars(length(max = 17))]
    pub mac: String,
}

/// A disk as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiskStatus {
    /// Name of the disk.
    #[schemars(length(max = 20))]
    pub name: String,
    /// Digest of the image it is built on; until the disk is made, of the image it shall be built on. Empty for a blank disk.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = DIGEST))]
    pub image_digest: String,
    /// Size the guest sees; empty for a disk that waits for the next start.
    #[serde(default, skip_serializing_if = "is_unknown")]
    pub size: Quantity,
}

fn is_unknown(size: &Quantity) -> bool {
    size.0.is_empty()
}

/// Long work under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Progress {
    /// What is being done, such as Fetching image debian-13.
    #[schemars(length(max = SENTENCE))]
    pub what: String,
    /// Bytes done.
    pub bytes: i64,
    /// Bytes in all; absent while unknown.
    #[schemars(with = "i64")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<i64>,
}

/// A change the running guest has not got yet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PendingChange {
    /// Path of the field, such as spec.cpu.
    #[schemars(length(max = WORD))]
    pub field: String,
    /// What it waits for: Restart, or Reseed (a new value of cloudInit.reseed and the next start).
    pub waits_for: WaitsFor,
}

/// What a change waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum WaitsFor {
    /// The next start.
    Restart,
    /// The next start after a new value of `cloudInit.reseed`.
    Reseed,
}

impl WaitsFor {
    /// What a change of this field, such as `spec.cpu`, waits for while the guest runs; `None` where it takes effect at
    /// once or is refused. A new `spec.cloudInit.reseed` waits for a restart alone.
    pub fn of(field: &str) -> Option<Self> {
        match field {
            "spec.cpu" | "spec.memory" | "spec.disks" | "spec.interfaces" | "spec.cloudInit.reseed" => {
                Some(Self::Restart)
            }
            _ if field == "spec.cloudInit" || field.starts_with("spec.cloudInit.") => Some(Self::Reseed),
            _ => None,
        }
    }
}

/// Which Secret the seed was made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SeedStatus {
    /// UID of the Secret with the user-data; empty without one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = UID))]
    pub secret_uid: String,
    /// Its resource version.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = UID))]
    pub secret_resource_version: String,
    /// UID of the Secret with the network configuration; empty without one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = UID))]
    pub network_secret_uid: String,
    /// Its resource version.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = UID))]
    pub network_secret_resource_version: String,
}
