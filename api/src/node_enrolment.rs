//! `NodeEnrolment` (henrol): one request of a node to be let in.
//!
//! The node writes `spec` with the install credential, the controller writes `status`; people add `Approved` or
//! `Rejected` where no policy decides. The Kubernetes API is the mailbox: there is no side channel.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bounds::CERTIFICATE;

/// What the node asks for; immutable but for one response.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "holdfast.dev",
    version = "v1alpha1",
    kind = "NodeEnrolment",
    plural = "nodeenrolments",
    shortname = "henrol",
    category = "holdfast",
    status = "NodeEnrolmentStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "One request of a node to be let in, or to have its certificate renewed. Same identity as the enrolled node: granted by itself; anything else waits for the condition Approved or Rejected.",
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.nodeName"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(
        name = "Approved",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Approved\")].status"
    ),
    printcolumn(
        name = "Issued",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Issued\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Issued\")].message",
        priority = "1"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("self.nodeName == oldSelf.nodeName && self.mode == oldSelf.mode && self.csr == oldSelf.csr").message("an enrolment cannot change: the node makes a new NodeEnrolment instead"))]
#[x_kube(validation = Rule::new("!has(oldSelf.response) || (has(self.response) && self.response == oldSelf.response)").message("the response to a challenge is given once: the node makes a new NodeEnrolment instead"))]
#[serde(rename_all = "camelCase")]
pub struct NodeEnrolmentSpec {
    /// Name the node asks for, at most 40 characters.
    #[schemars(length(min = 1, max = 40))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("nodeName must be lower-case letters, digits and '-', at most 40 characters, such as edge-1"))]
    pub node_name: String,
    /// How the identity key is protected: InsecureDev (a file, accepted only where the controller is told to).
    pub mode: EnrolmentMode,
    /// Certificate signing request (PKCS #10) in DER, base64; of at most 1024 bytes.
    #[schemars(length(min = 1, max = 1368))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9+/]+={0,2}$')").message("csr must be a certificate signing request in DER, written in base64"))]
    pub csr: String,
    /// Answer to the challenge in the status; unused in mode InsecureDev.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub response: String,
}

/// How a node's identity key is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EnrolmentMode {
    /// The key lies in a file, for development only.
    #[default]
    InsecureDev,
}

/// What became of the request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeEnrolmentStatus {
    /// What the node must answer in spec.response; empty in mode InsecureDev.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4096))]
    pub challenge: String,
    /// The certificate, PEM; with it the node is holdfast:node:<name>.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = CERTIFICATE))]
    pub certificate: String,
    /// Approved and Rejected by people or policy; Issued by the controller, with the reason while it is False.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::condition::schema")]
    pub conditions: Vec<Condition>,
}
