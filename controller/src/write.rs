//! One write to the API, as data: planners make them, [`crate::execute`] carries them out, and nothing else writes.
//!
//! Each write is a crash point. A planner therefore derives the next write from what stands in the API alone, so that
//! the next start goes on where the last one stopped.

use std::fmt;

use holdfast_api::HypervisorNode;
use holdfast_api::condition::Finding;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde_json::Value;

/// The kinds the controller writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    VirtualMachine,
    VirtualMachineImage,
    VirtualMachineNetwork,
    SshKey,
    HypervisorNode,
    NodeEnrolment,
    Lease,
    Role,
    RoleBinding,
    ClusterRole,
    ClusterRoleBinding,
    SigningRequest,
}

impl Kind {
    /// The name of the kind in the API.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::VirtualMachine => "VirtualMachine",
            Self::VirtualMachineImage => "VirtualMachineImage",
            Self::VirtualMachineNetwork => "VirtualMachineNetwork",
            Self::SshKey => "SSHKey",
            Self::HypervisorNode => "HypervisorNode",
            Self::NodeEnrolment => "NodeEnrolment",
            Self::Lease => "Lease",
            Self::Role => "Role",
            Self::RoleBinding => "RoleBinding",
            Self::ClusterRole => "ClusterRole",
            Self::ClusterRoleBinding => "ClusterRoleBinding",
            Self::SigningRequest => "CertificateSigningRequest",
        }
    }
}

/// The object a write is for; at most one write per object and pass, bar metadata and status of one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Target {
    pub(crate) kind: Kind,
    /// Empty for a cluster-scoped object.
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Target {
    /// The target of a write to this object.
    pub(crate) fn of<K: Resource>(kind: Kind, object: &K) -> Self {
        Self { kind, namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
    }

    /// A cluster-scoped target.
    pub(crate) fn cluster(kind: Kind, name: impl Into<String>) -> Self {
        Self { kind, namespace: String::new(), name: name.into() }
    }

    /// A target in a namespace.
    pub(crate) fn in_namespace(kind: Kind, namespace: &str, name: impl Into<String>) -> Self {
        Self { kind, namespace: namespace.to_owned(), name: name.into() }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{} {}", self.kind.word(), self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind.word(), self.name),
        }
    }
}

/// How an object is written. Bodies are whole objects of the API, but for the fields we leave alone.
///
/// # Guarantees
/// A write may reach the API long after it was planned: the leader slept, or the line did, and another leads meanwhile.
/// So what was read is written only as it was read ([`Exactly`]) and never made by that, and what was missing is made by
/// `Create` alone. Of what is made too late nothing follows: a grant that nobody needs is withdrawn by whoever leads, and a
/// `HypervisorNode` has no identity yet, so it gives no rights (`crate::enrol`).
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verb {
    /// Server-side apply of metadata and spec, by force, to an object that was read.
    Apply(Value),
    /// Server-side apply of status, by force.
    ApplyStatus(Value),
    /// Replaces the whole status; apply would leave another manager's fields behind.
    ReplaceStatus(Value),
    /// JSON merge patch of metadata.
    Merge(Value),
    /// Creates the object; refused when one of that name exists.
    Create(Value),
    /// Replaces the approval of a `CertificateSigningRequest`.
    Approve(Value),
    /// Deletes exactly this object, as it was read.
    Delete(Exactly),
}

/// An event that tells the story of a write, published once the write succeeded.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tell {
    pub(crate) regarding: ObjectReference,
    /// The node it is about, if any; events about another node are not taken for repetitions.
    pub(crate) related: Option<ObjectReference>,
    pub(crate) weight: Weight,
    pub(crate) reason: &'static str,
    pub(crate) note: String,
}

/// Whether an event is news or a worry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weight {
    Normal,
    Warning,
}

impl Tell {
    /// An event about an object.
    pub(crate) fn new<K>(about: &K, weight: Weight, reason: &'static str, note: impl Into<String>) -> Self
    where
        K: Resource<DynamicType = ()>,
    {
        Self { regarding: about.object_ref(&()), related: None, weight, reason, note: note.into() }
    }
}

impl Tell {
    /// The same event, naming the node it is about.
    pub(crate) fn of_node(mut self, node: &str) -> Self {
        self.related = Some(ObjectReference {
            api_version: Some(HypervisorNode::api_version(&()).into_owned()),
            kind: Some(HypervisorNode::kind(&()).into_owned()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        });
        self
    }
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Write {
    pub(crate) target: Target,
    pub(crate) verb: Verb,
    pub(crate) tell: Vec<Tell>,
}

impl Write {
    /// A write without an event.
    pub(crate) fn new(target: Target, verb: Verb) -> Self {
        Self { target, verb, tell: Vec::new() }
    }

    /// The same write with an event.
    pub(crate) fn telling(mut self, tell: Tell) -> Self {
        self.tell.push(tell);
        self
    }
}

/// The one object that was read, in the version that was read: the API refuses a write to any other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Exactly {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) resource_version: Option<String>,
}

impl Exactly {
    /// This object as it is here.
    pub(crate) fn of<K: Resource>(object: &K) -> Self {
        Self { uid: object.uid(), resource_version: object.resource_version() }
    }
}

/// Metadata of an applied object.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Meta {
    pub(crate) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<String>,
    #[serde(flatten)]
    pub(crate) exactly: Exactly,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) finalizers: Vec<String>,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub(crate) labels: std::collections::BTreeMap<String, String>,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub(crate) annotations: std::collections::BTreeMap<String, String>,
}

impl Meta {
    /// Of an object that was read: the write is refused if it changed since.
    pub(crate) fn exactly<K: Resource>(object: &K) -> Self {
        Self {
            name: object.name_any(),
            namespace: object.namespace(),
            exactly: Exactly::of(object),
            ..Self::default()
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Object<'a, P: Serialize> {
    api_version: &'a str,
    kind: &'a str,
    metadata: &'a Meta,
    #[serde(flatten)]
    part: P,
}

/// The body of an object: its metadata and the part that is written, such as `{status: …}`.
pub(crate) fn body<K: Resource<DynamicType = ()>>(metadata: &Meta, part: impl Serialize) -> Value {
    json(&Object { api_version: &K::api_version(&()), kind: &K::kind(&()), metadata, part })
}

/// Any of our types as JSON. None of them can fail (no map has keys other than strings); an empty body would be refused.
pub(crate) fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// The status part of a body.
#[derive(Serialize)]
pub(crate) struct Status<S: Serialize> {
    pub(crate) status: S,
}

/// Whether all of `wanted` already stand in `found`, times included.
pub(crate) fn stand(found: &[Condition], wanted: &[Condition]) -> bool {
    wanted.iter().all(|condition| found.contains(condition))
}

/// Whether the condition of this finding would change its status or its reason: worth an event.
pub(crate) fn turns(found: &[Condition], finding: &Finding) -> bool {
    holdfast_api::condition::find(found, finding.type_)
        .is_none_or(|old| old.status != finding.is.word() || old.reason != finding.reason)
}
