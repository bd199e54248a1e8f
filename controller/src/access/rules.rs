//! What each grant says, to the letter. `policies/controller.yaml` allows the controller exactly these.

use std::collections::BTreeSet;

use holdfast_api::names::{GROUP, node_lease, node_user};
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, PolicyRule, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

const RBAC: &str = "rbac.authorization.k8s.io";

/// On a namespace's objects: read the kinds, write status, post events.
pub(super) fn machines() -> Vec<PolicyRule> {
    let kinds = ["sshkeys", "virtualmachineimages", "virtualmachinenetworks", "virtualmachines"];
    let mut rules = vec![
        rule(GROUP, &kinds, &[], &["get", "list", "watch"]),
        rule(GROUP, &["virtualmachines/status"], &[], &["patch"]),
    ];
    rules.extend(events());
    rules
}

/// On exactly these Secrets: get.
pub(super) fn secrets(names: BTreeSet<String>) -> Vec<PolicyRule> {
    vec![PolicyRule {
        resource_names: Some(names.into_iter().collect()),
        ..rule("", &["secrets"], &[], &["get"])
    }]
}

/// On its own `HypervisorNode`: read it, write its status. A Role cannot grant a cluster-scoped kind.
pub(super) fn own_node(node: &str) -> Vec<PolicyRule> {
    vec![
        rule(GROUP, &["hypervisornodes"], &[node], &["get", "list", "watch"]),
        rule(GROUP, &["hypervisornodes/status"], &[node], &["patch"]),
    ]
}

/// On its own Lease: renew it. It cannot create it, because `resourceNames` cannot limit that.
pub(super) fn own_lease(node: &str) -> Vec<PolicyRule> {
    vec![rule("coordination.k8s.io", &["leases"], &[&node_lease(node)], &["get", "patch", "update"])]
}

/// Post events; which ones is confined by an admission policy.
pub(super) fn events() -> Vec<PolicyRule> {
    vec![rule("events.k8s.io", &["events"], &[], &["create", "patch"])]
}

/// Gives a node the Role of the same name.
pub(super) fn binding(node: &str, grant: &str, metadata: ObjectMeta) -> RoleBinding {
    RoleBinding { metadata, role_ref: role_ref("Role", grant), subjects: Some(vec![subject(node)]) }
}

/// Gives a node the `ClusterRole` of the same name.
pub(super) fn cluster_binding(node: &str, grant: &str, metadata: ObjectMeta) -> ClusterRoleBinding {
    ClusterRoleBinding {
        metadata,
        role_ref: role_ref("ClusterRole", grant),
        subjects: Some(vec![subject(node)]),
    }
}

fn role_ref(kind: &str, name: &str) -> RoleRef {
    RoleRef { api_group: RBAC.to_owned(), kind: kind.to_owned(), name: name.to_owned() }
}

fn subject(node: &str) -> Subject {
    Subject {
        api_group: Some(RBAC.to_owned()),
        kind: "User".to_owned(),
        name: node_user(node),
        namespace: None,
    }
}

fn rule(group: &str, resources: &[&str], names: &[&str], verbs: &[&str]) -> PolicyRule {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    PolicyRule {
        api_groups: Some(words(&[group])),
        resources: Some(words(resources)),
        resource_names: (!names.is_empty()).then(|| words(names)),
        verbs: words(verbs),
        non_resource_urls: None,
    }
}
