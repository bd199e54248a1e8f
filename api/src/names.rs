//! Names several programs must agree on: who writes, what marks an object as ours, who a node is.

/// API group of all kinds.
pub const GROUP: &str = "holdfast.dev";
/// Namespace of the controller, the node Leases and the install credential.
pub const SYSTEM_NAMESPACE: &str = "holdfast-system";

/// Field manager of the controller; also the name its events carry.
pub const CONTROLLER: &str = "holdfast-controller";
/// User name of the controller's account; the admission policies name it too.
pub const CONTROLLER_USER: &str = "system:serviceaccount:holdfast-system:holdfast-controller";
/// Field manager of the node daemon; also the name its events carry.
pub const NODE_DAEMON: &str = "holdfast-node";

/// Source address of the Terraform provider. The host is reserved, so no registry can be meant: it is installed from a
/// mirror until it is published, and this is the line to change then.
pub const PROVIDER_SOURCE: &str = "mirror.example.org/holdfast/holdfast";

/// Finalizer the controller puts on virtual machines, nodes and grants.
pub const FINALIZER: &str = "holdfast.dev/controller";
/// Annotation that says on which node a virtual machine is being placed; only the controller writes it.
pub const PLACED_ON: &str = "holdfast.dev/placed-on";
/// Label on the grants of a node: its name.
pub const NODE_LABEL: &str = "holdfast.dev/node";

/// Group of every node identity.
pub const NODES_GROUP: &str = "holdfast:nodes";
/// A node's user name is this prefix and the node's name.
pub const NODE_USER_PREFIX: &str = "holdfast:node:";
/// Every grant of a node starts with this prefix and the node's name.
pub const GRANT_PREFIX: &str = "holdfast-node-";

/// The user name in a node's certificate.
pub fn node_user(node: &str) -> String {
    format!("{NODE_USER_PREFIX}{node}")
}

/// Role and `RoleBinding` that let a node read the kinds of a namespace and write status.
pub fn vms_grant(node: &str) -> String {
    format!("{GRANT_PREFIX}{node}-vms")
}

/// Role and `RoleBinding` that let a node read the Secrets its virtual machines name.
///
/// Apart from [`vms_grant`], so that loss of trust withdraws Secrets and nothing else.
pub fn secrets_grant(node: &str) -> String {
    format!("{GRANT_PREFIX}{node}-secrets")
}

/// `ClusterRole` for a node's own `HypervisorNode`, and Role for its Lease and its events in [`SYSTEM_NAMESPACE`].
pub fn own_grant(node: &str) -> String {
    format!("{GRANT_PREFIX}{node}")
}

/// Lease of a node in [`SYSTEM_NAMESPACE`]; the controller creates it, the node renews it.
pub fn node_lease(node: &str) -> String {
    format!("{GRANT_PREFIX}{node}")
}
