//! `VirtualMachineNetwork` (hvmn): what an interface is connected to.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// Exactly one way of connecting.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "holdfast.dev",
    version = "v1alpha1",
    kind = "VirtualMachineNetwork",
    plural = "virtualmachinenetworks",
    shortname = "hvmn",
    category = "all",
    category = "holdfast",
    namespaced,
    status = "VirtualMachineNetworkStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "A network for virtual machines of the same namespace: nat, isolated or an existing bridge of the host. A NAT or isolated network exists on each node for itself; virtual machines on two nodes that must talk use a bridge. The spec cannot change.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Bridge", type_ = "string", json_path = ".spec.bridge.name", priority = "1"),
    printcolumn(name = "VLAN", type_ = "integer", json_path = ".spec.bridge.vlan", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("self == oldSelf").message("the spec of a network cannot change, because guests are connected to it: create a VirtualMachineNetwork with another name"))]
#[x_kube(validation = Rule::new("[has(self.nat), has(self.isolated), has(self.bridge)].filter(x, x).size() == 1").message("spec must have exactly one of nat, isolated and bridge"))]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineNetworkSpec {
    /// A private subnet on the node with DHCP, reaching out through the node's address.
    #[schemars(with = "Subnet")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat: Option<Subnet>,
    /// A private subnet on the node with DHCP and no way out.
    #[schemars(with = "Subnet")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolated: Option<Subnet>,
    /// An existing bridge of the host; addresses come from whoever serves that network.
    #[schemars(with = "Bridge")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<Bridge>,
}

/// A private subnet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Subnet {
    /// IPv4 subnet in CIDR form, /16 to /28, such as 10.20.0.0/24; taken from the node's pool when absent. It must not overlap another network of the node.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 18))]
    #[x_kube(validation = Rule::new("isCIDR(self) && cidr(self).ip().family() == 4 && cidr(self).masked() == cidr(self) && cidr(self).prefixLength() >= 16 && cidr(self).prefixLength() <= 28").message("subnet must be an IPv4 network of /16 to /28 with no host bits set, such as 10.20.0.0/24"))]
    pub subnet: String,
}

/// An existing bridge of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Bridge {
    /// Name of the bridge on the node, at most 15 characters, such as br0.
    #[schemars(length(min = 1, max = 15))]
    #[x_kube(validation = Rule::new("self.matches('^[a-zA-Z0-9][-_.a-zA-Z0-9]*$')").message("name must be the name of a network interface: letters, digits, '-', '_' and '.', at most 15 characters, such as br0"))]
    pub name: String,
    /// VLAN of the guest's traffic on that bridge, 1 to 4094; untagged when absent.
    #[schemars(with = "i32", range(min = 1, max = 4094))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<i32>,
}

/// What the controller found; whether a node can offer the network shows in each virtual machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineNetworkStatus {
    /// Generation of the spec that was judged last.
    #[schemars(with = "i64")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready is True when the network is accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::condition::schema")]
    pub conditions: Vec<Condition>,
}
