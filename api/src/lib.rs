//! The kinds of `holdfast.dev/v1alpha1`: the only vocabulary the programs share.
//!
//! One kind per file. A field's doc comment is the text of `kubectl explain`, so it is one plain sentence or two with
//! the unit, the default and what a change does. What the schema and its CEL rules can refuse, the API server refuses;
//! the rest is judged on the node, which trusts neither (`Desired::try_from` in the node daemon).
//!
//! The YAML in `api/crds/` is generated from these types by `holdfast-controller crds`.

#![expect(
    clippy::doc_markdown,
    reason = "doc comments are the text of kubectl explain, which shows no backticks"
)]
#![expect(clippy::duplicated_attributes, reason = "kube allows several categories, columns and rules")]
#![expect(
    unreachable_pub,
    reason = "KubeSchema repeats each struct inside a function, where nobody can reach it"
)]

pub mod address;
pub mod bounds;
pub mod capacity;
pub mod condition;
pub mod image;
pub mod names;
pub mod network;
pub mod node;
pub mod node_enrolment;
pub mod offer;
pub mod quantity;
pub mod reference;
pub mod ssh_key;
pub mod virtual_machine;

pub use image::VirtualMachineImage;
pub use network::VirtualMachineNetwork;
pub use node::HypervisorNode;
pub use node_enrolment::NodeEnrolment;
pub use quantity::Quantity;
pub use ssh_key::SSHKey;
pub use virtual_machine::VirtualMachine;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// Every kind of the group, in the order of `api/crds/`.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![
        HypervisorNode::crd(),
        NodeEnrolment::crd(),
        SSHKey::crd(),
        VirtualMachine::crd(),
        VirtualMachineImage::crd(),
        VirtualMachineNetwork::crd(),
    ]
}
