//! The parts of a virtual machine's spec.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Quantity;
use crate::bounds::{ADDRESS, LISTED_ADDRESSES};
use crate::reference::{ObjectRef, SecretKeyRef};

/// When the guest runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RunStrategy {
    /// Restarted whatever ends it.
    #[default]
    Always,
    /// Restarted after a failure, left off after it powered itself off.
    RerunOnFailure,
    /// Started once and never again.
    Once,
    /// Powered off.
    Halted,
}

/// Firmware the guest boots with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Firmware {
    /// UEFI with its variables kept per virtual machine.
    #[default]
    #[serde(rename = "UEFI")]
    Uefi,
    /// Legacy BIOS.
    #[serde(rename = "BIOS")]
    Bios,
}

/// A disk of the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("has(self.image) != has(self.blank)").message("a disk must have exactly one source: image or blank"))]
pub struct Disk {
    /// Name of the disk, at most 20 characters; in the guest it is the disk's serial (/dev/disk/by-id/virtio-<name>).
    #[schemars(length(min = 1, max = 20))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("the name of a disk must be lower-case letters, digits and '-', at most 20 characters, such as root"))]
    pub name: String,
    /// Size in whole Mi, Gi or Ti, 1Mi to 64Ti, such as 10Gi; at least the size of its image. It can grow, at the next start, and never shrink.
    #[x_kube(validation = Rule::new("self.matches('^[1-9][0-9]{0,8}(Mi|Gi|Ti)$') && quantity(self).compareTo(quantity('64Ti')) <= 0").message("the size of a disk must be a whole number of Mi, Gi or Ti, at most 64Ti, such as 10Gi"))]
    pub size: Quantity,
    /// Starts as this image; the guest's changes are kept apart from it.
    #[schemars(with = "ObjectRef")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ObjectRef>,
    /// Starts empty.
    #[schemars(with = "Blank")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blank: Option<Blank>,
}

/// An empty disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Blank {}

/// A network interface of the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Interface {
    /// Name of the interface within this virtual machine, at most 20 characters, such as lan.
    #[schemars(length(min = 1, max = 20))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("the name of an interface must be lower-case letters, digits and '-', at most 20 characters, such as lan"))]
    pub name: String,
    /// The VirtualMachineNetwork it is connected to.
    pub network: ObjectRef,
    /// Hardware address such as 52:54:00:12:34:56; when empty, a stable one is derived from the UID and the name and shown in the status.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 17))]
    #[x_kube(validation = Rule::new("self == '' || self.matches('^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$')").message("macAddress must be six lower-case hexadecimal pairs joined by ':', the first of them even, such as 52:54:00:12:34:56"))]
    pub mac_address: String,
    /// IPv4 and IPv6 addresses the guest uses besides those it is leased, at most 16, such as 10.20.0.5. On a bridge, where nothing is leased by the node, the guest is held to these once any is listed. A change takes effect at the next start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = LISTED_ADDRESSES), inner(length(min = 2, max = ADDRESS)))]
    #[x_kube(
        merge_strategy = ListMerge::Atomic,
        validation = Rule::new("self.all(a, isIP(a) && ip.isCanonical(a) && ip(a).isGlobalUnicast())").message("addresses must be single unicast addresses in their shortest form, none of them loopback or link-local, such as 10.20.0.5 or 2001:db8::5")
    )]
    pub addresses: Vec<String>,
}

/// What cloud-init is told through the NoCloud seed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.userData) && has(self.userDataSecret))").message("cloudInit must not have both userData and userDataSecret"),
    validation = Rule::new("!(has(self.networkData) && has(self.networkDataSecret))").message("cloudInit must not have both networkData and networkDataSecret")
)]
pub struct CloudInit {
    /// Hostname of the guest; the name of the virtual machine when empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new("self == '' || self.matches('^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?$')").message("hostname must be letters, digits and '-', at most 63 characters, such as web"))]
    pub hostname: String,
    /// SSHKey objects whose keys the default user of the image gets, at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub ssh_keys: Vec<ObjectRef>,
    /// User-data in plain text, at most 32 KiB; whoever may read the virtual machine reads it. What is secret belongs into a Secret.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 32768))]
    #[x_kube(
        validation = Rule::new(r"!self.matches('[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f\\x{fffe}\\x{ffff}]')").message("userData must be text without control characters; put binary user-data into a Secret and name it in userDataSecret"),
        validation = Rule::new("bytes(self).size() <= 32768").message("userData must be at most 32 KiB, where most characters beyond ASCII take two to four bytes: put it into a Secret and name it in userDataSecret")
    )]
    pub user_data: String,
    /// Key of a Secret that holds the user-data. The node of this virtual machine may read that Secret, and no other.
    #[schemars(with = "SecretKeyRef")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data_secret: Option<SecretKeyRef>,
    /// Network configuration for cloud-init (version 1 or 2) in plain text, at most 32 KiB; DHCP on every interface when absent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 32768))]
    #[x_kube(
        validation = Rule::new(r"!self.matches('[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f\\x{fffe}\\x{ffff}]')").message("networkData must be text without control characters"),
        validation = Rule::new("bytes(self).size() <= 32768").message("networkData must be at most 32 KiB, where most characters beyond ASCII take two to four bytes: put it into a Secret and name it in networkDataSecret")
    )]
    pub network_data: String,
    /// Key of a Secret that holds the network configuration.
    #[schemars(with = "SecretKeyRef")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_data_secret: Option<SecretKeyRef>,
    /// Any new value makes cloud-init run again at the next start, with all of the above as it is then. What it holds at creation does nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new(r"!self.matches('[\\x00-\\x1f\\x7f-\\x9f\\x{fffe}\\x{ffff}]')").message("reseed must not contain control characters"))]
    pub reseed: String,
}

/// Which node may run the virtual machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// Name of the only node that may; any when empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 40))]
    #[x_kube(validation = Rule::new("self == '' || self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("placement.nodeName must be the name of a HypervisorNode: lower-case letters, digits and '-', such as edge-1"))]
    pub node_name: String,
    /// Labels the HypervisorNode must carry, all of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::reference::selector")]
    pub node_selector: BTreeMap<String, String>,
}
