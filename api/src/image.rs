//! `VirtualMachineImage` (hvmi): where a disk image comes from and which bytes it must be.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bounds::{LISTED, NAME, WORD};

/// What is fetched and what it must turn out to be.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "holdfast.dev",
    version = "v1alpha1",
    kind = "VirtualMachineImage",
    plural = "virtualmachineimages",
    shortname = "hvmi",
    category = "all",
    category = "holdfast",
    namespaced,
    status = "VirtualMachineImageStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "A disk image for virtual machines of the same namespace. Its SHA-256 digest is mandatory: a node uses exactly these bytes or none. The spec cannot change; make another image instead.",
    printcolumn(name = "Format", type_ = "string", json_path = ".spec.format"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Virtual-Size", type_ = "string", json_path = ".status.virtualSize", priority = "1"),
    printcolumn(name = "Digest", type_ = "string", json_path = ".spec.digest", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("self == oldSelf").message("the spec of an image cannot change, because disks are built on its bytes: create a VirtualMachineImage with another name and point new virtual machines to it"))]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineImageSpec {
    /// Where the bytes come from: exactly one of http and file.
    pub source: ImageSource,
    /// SHA-256 of the file as it is fetched, written sha256: and 64 lower-case hexadecimal digits. Mandatory; anything else that is fetched is refused.
    #[schemars(length(max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^sha256:[0-9a-f]{64}$')").message("digest must be sha256: followed by 64 lower-case hexadecimal digits, as sha256sum prints them"))]
    pub digest: String,
    /// Format of the file: qcow2 or raw. A file of another format is refused.
    pub format: ImageFormat,
    /// True keeps the bytes to namespaces whose own source delivered them to the node; otherwise whoever knows the digest may use what a node holds. Default false.
    #[serde(default)]
    pub private: bool,
    /// Nodes that fetch the image before a virtual machine needs it; none when absent. An address with a query goes only to nodes that serve the namespace already.
    #[schemars(with = "Prefetch")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefetch: Option<Prefetch>,
}

/// Where an image comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("has(self.http) != has(self.file)").message("source must have exactly one of http and file"))]
pub struct ImageSource {
    /// Fetched over HTTP or HTTPS by the node.
    #[schemars(with = "HttpSource")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpSource>,
    /// Read from a folder of the node that its configuration names.
    #[schemars(with = "FileSource")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileSource>,
}

/// An image on a web server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct HttpSource {
    /// Address of the file, http:// or https://. Loopback and link-local addresses are refused, after a redirect too, unless the node is configured otherwise.
    #[schemars(length(max = 2048))]
    #[x_kube(validation = Rule::new(r"self.matches('^https?://[^/\\s\\x00-\\x1f\\x7f@]+(/[^\\s\\x00-\\x1f\\x7f]*)?$')").message("url must start with http:// or https://, name a host, and contain no spaces, control characters or credentials"))]
    pub url: String,
}

/// An image in a folder of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct FileSource {
    /// Absolute path on the node, below one of the folders its configuration allows; links are not followed.
    #[schemars(length(max = 1024))]
    #[x_kube(validation = Rule::new(r"self.matches('^/[^\\x00-\\x1f\\x7f]+$') && !self.matches('(^|/)[.][.](/|$)')").message("path must be absolute, without '..' and control characters, such as /srv/images/debian-13.qcow2"))]
    pub path: String,
}

/// Format of an image file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    /// QEMU's copy-on-write format.
    #[default]
    Qcow2,
    /// The bytes of the disk as they are.
    Raw,
}

/// Which nodes fetch ahead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Prefetch {
    /// Labels a HypervisorNode must carry, all of them; an empty selector means every node.
    #[serde(default)]
    #[schemars(schema_with = "crate::reference::selector")]
    pub node_selector: BTreeMap<String, String>,
}

/// What is known of the image; written by the controller alone, from what the nodes report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineImageStatus {
    /// Generation of the spec that was judged last.
    #[schemars(with = "i64")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Names of the nodes that hold the image in their cache, at most 4096.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = LISTED), inner(length(max = NAME)))]
    pub nodes: Vec<String>,
    /// Size of the file as fetched, in bytes; absent until a node holds it.
    #[schemars(with = "i64")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
    /// Size of the disk the image describes; absent until a node holds it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = WORD))]
    pub virtual_size: String,
    /// Ready is True when the image is accepted, and held by all selected nodes where prefetch is set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::condition::schema")]
    pub conditions: Vec<Condition>,
}
