//! Rights follow placement: what each node may do, computed from what is placed on it, and the writes that make it so.
//!
//! ```text
//! per node                   ClusterRole  holdfast-node-<n>          its own HypervisorNode
//!                            Role         holdfast-node-<n>          its Lease (system namespace), its events (default)
//! per node and namespace     Role         holdfast-node-<n>-vms      read the kinds, patch status, post events
//!                            Role         holdfast-node-<n>-secrets  get exactly the Secrets its virtual machines name
//! ```
//!
//! The `-vms` grants carry our finalizer: when a namespace is deleted they keep granting until the node's last virtual
//! machine there is gone; without it the node would lose its rights first and the machine would stay for ever.

mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use holdfast_api::VirtualMachine;
use holdfast_api::names::{FINALIZER, SYSTEM_NAMESPACE, own_grant, secrets_grant, vms_grant};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};

use crate::cache::Name;
use crate::finalizer;
use crate::world::{Binding, Node, World, binding_unread, is_grant, labelled, node_label};
use crate::write::{Exactly, Kind, Target, Verb, Write, json};

/// Events about cluster-scoped objects live in this namespace.
const EVENTS_OF_NODES: &str = "default";

/// The rights as they shall be.
#[derive(Default)]
struct Wanted {
    roles: BTreeMap<Name, Role>,
    role_bindings: BTreeMap<Name, RoleBinding>,
    cluster_roles: BTreeMap<Name, ClusterRole>,
    cluster_role_bindings: BTreeMap<Name, ClusterRoleBinding>,
}

/// What to write, and what is not in force yet.
pub(crate) struct Plan {
    pub(crate) writes: Vec<Write>,
    /// Namespaces (empty for the node's own rights) and nodes whose rights are not as wanted yet.
    missing: BTreeSet<(String, String)>,
    /// Namespaces and nodes whose rights stay, needed or not.
    kept: BTreeSet<(String, String)>,
}

impl Plan {
    /// Whether the node has all rights it shall have in the namespace.
    pub(crate) fn granted(&self, namespace: &str, node: &str) -> bool {
        !self.missing.contains(&(namespace.to_owned(), node.to_owned()))
    }

    /// Whether the node has all rights on what is its own.
    pub(crate) fn granted_own(&self, node: &str) -> bool {
        [SYSTEM_NAMESPACE, EVENTS_OF_NODES, ""].into_iter().all(|namespace| self.granted(namespace, node))
    }
}

/// Compares the rights that stand with those that placement asks for.
pub(crate) fn plan(world: &World) -> Plan {
    let wanted = wanted(world);
    let grants = &world.grants;
    let mut plan = Plan { writes: Vec::new(), missing: BTreeSet::new(), kept: kept(world) };
    settle(&mut plan, Kind::Role, &wanted.roles, &grants.roles, |a, b| a.rules == b.rules);
    settle(&mut plan, Kind::RoleBinding, &wanted.role_bindings, &grants.role_bindings, |a, b| {
        a.subjects == b.subjects && a.role_ref == b.role_ref
    });
    settle(&mut plan, Kind::ClusterRole, &wanted.cluster_roles, &grants.cluster_roles, |a, b| {
        a.rules == b.rules
    });
    settle(
        &mut plan,
        Kind::ClusterRoleBinding,
        &wanted.cluster_role_bindings,
        &grants.cluster_role_bindings,
        |a, b| a.subjects == b.subjects && a.role_ref == b.role_ref,
    );
    // Unlike a Role, a ClusterRole must stand before it is bound: the API server compares its rights with ours.
    let stands = |target: &Target| grants.cluster_roles.contains_key(&(String::new(), target.name.clone()));
    let early = |write: &Write| {
        let binds = write.target.kind == Kind::ClusterRoleBinding && !matches!(write.verb, Verb::Delete(_));
        binds && !stands(&write.target)
    };
    plan.writes.retain(|write| !early(write));
    plan
}

/// Plans what is missing, what differs and what nobody needs any more, for one kind.
fn settle<K: Resource + Clone + serde::Serialize>(
    plan: &mut Plan,
    kind: Kind,
    wanted: &BTreeMap<Name, K>,
    found: &BTreeMap<Name, Arc<K>>,
    same: impl Fn(&K, &K) -> bool,
) {
    for (name, grant) in wanted {
        let found = found.get(name);
        if found.is_some_and(|found| same(found, grant) && same_meta(&**found, grant)) {
            continue;
        }
        let node = labelled(grant.meta()).unwrap_or_default().to_owned();
        plan.missing.insert((name.0.clone(), node));
        let verb = found.map_or_else(|| Verb::Create(json(grant)), |found| changed(&**found, grant));
        plan.writes.push(Write::new(Target::of(kind, grant), verb));
    }
    let kept = |grant: &K| {
        let node = labelled(grant.meta()).unwrap_or_default().to_owned();
        plan.kept.contains(&(grant.namespace().unwrap_or_default(), node))
    };
    let unneeded = found
        .iter()
        .filter(|(name, grant)| !wanted.contains_key(*name) && is_grant(grant.meta()) && !kept(grant));
    let withdrawn: Vec<_> = unneeded.filter_map(|(_, grant)| withdraw(kind, &**grant)).collect();
    plan.writes.extend(withdrawn);
}

/// Gives a grant that was read what is wanted.
fn changed<K: Resource + Clone + serde::Serialize>(found: &K, wanted: &K) -> Verb {
    let mut wanted = wanted.clone();
    wanted.meta_mut().uid = found.uid();
    wanted.meta_mut().resource_version = found.resource_version();
    Verb::Apply(json(&wanted))
}

/// A grant on its way out still grants, and cannot be given finalizers any more.
fn same_meta<K: Resource>(found: &K, wanted: &K) -> bool {
    let leaving = found.meta().deletion_timestamp.is_some();
    let held = leaving || wanted.finalizers().iter().all(|finalizer| found.finalizers().contains(finalizer));
    held && labelled(found.meta()) == labelled(wanted.meta())
}

/// Deletes first and lets go after: a grant without finalizer would vanish with its namespace.
fn withdraw<K: Resource>(kind: Kind, grant: &K) -> Option<Write> {
    if grant.meta().deletion_timestamp.is_none() {
        return Some(Write::new(Target::of(kind, grant), Verb::Delete(Exactly::of(grant))));
    }
    finalizer::is_ours(grant).then(|| finalizer::drop_ours(kind, grant))
}

/// Where it cannot be read on which node a virtual machine is, no node of its namespace loses its rights there.
fn kept(world: &World) -> BTreeSet<(String, String)> {
    let unbound = |vm: &&Arc<VirtualMachine>| world.faults(vm).is_some_and(binding_unread);
    let namespaces = world.machines.iter().filter(unbound).filter_map(|vm| vm.namespace());
    let staying: Vec<&String> =
        world.nodes.iter().filter(|(_, node)| !node.removing()).map(|(name, _)| name).collect();
    namespaces
        .flat_map(|namespace| staying.iter().map(move |node| (namespace.clone(), (*node).clone())))
        .collect()
}

fn wanted(world: &World) -> Wanted {
    let mut wanted = Wanted::default();
    for name in world.nodes.iter().filter(|(_, node)| node.enrolled()).map(|(name, _)| name) {
        wanted.own(name);
    }
    for vm in &world.machines {
        let (Some(node), Some(namespace)) = (Binding::of(vm).node(), vm.namespace()) else { continue };
        if world.nodes.get(node).is_some_and(Node::enrolled) {
            wanted.serving(world, node, &namespace, vm);
        }
    }
    wanted
}

impl Wanted {
    fn own(&mut self, node: &str) {
        let grant = own_grant(node);
        let metadata = metadata(node, None, &grant);
        let role = ClusterRole { metadata, rules: Some(rules::own_node(node)), ..ClusterRole::default() };
        self.cluster_roles.insert((String::new(), grant.clone()), role);
        let binding = rules::cluster_binding(node, &grant, self::metadata(node, None, &grant));
        self.cluster_role_bindings.insert((String::new(), grant.clone()), binding);
        self.role(node, SYSTEM_NAMESPACE, &grant, rules::own_lease(node), Vec::new());
        self.role(node, EVENTS_OF_NODES, &grant, rules::events(), Vec::new());
    }

    fn serving(&mut self, world: &World, node: &str, namespace: &str, vm: &VirtualMachine) {
        self.role(node, namespace, &vms_grant(node), rules::machines(), vec![FINALIZER.to_owned()]);
        let mut secrets = secrets(vm);
        if world.faults(vm).is_some_and(|faults| faults.touch("spec.cloudInit")) {
            // Which it names is unknown, so none is withdrawn.
            let standing = world.grants.roles.get(&(namespace.to_owned(), secrets_grant(node)));
            secrets.extend(standing.into_iter().flat_map(|role| named(role)));
        }
        // What is on its way out starts no more; and where its namespace is too, such a grant could not be made again.
        if !secrets.is_empty() && vm.metadata.deletion_timestamp.is_none() {
            self.secrets(node, namespace, secrets);
        }
    }

    fn secrets(&mut self, node: &str, namespace: &str, mut names: BTreeSet<String>) {
        let grant = secrets_grant(node);
        let others = self.roles.get(&(namespace.to_owned(), grant.clone()));
        names.extend(others.into_iter().flat_map(named));
        self.role(node, namespace, &grant, rules::secrets(names), Vec::new());
    }

    fn role(
        &mut self,
        node: &str,
        namespace: &str,
        grant: &str,
        rules: Vec<PolicyRule>,
        finalizers: Vec<String>,
    ) {
        let mut metadata = metadata(node, Some(namespace), grant);
        metadata.finalizers = (!finalizers.is_empty()).then_some(finalizers);
        let name = (namespace.to_owned(), grant.to_owned());
        let role = Role { metadata: metadata.clone(), rules: Some(rules) };
        self.role_bindings.insert(name.clone(), rules::binding(node, grant, metadata));
        self.roles.insert(name, role);
    }
}

/// Secrets a Role names.
fn named(role: &Role) -> impl Iterator<Item = String> {
    role.rules.iter().flatten().flat_map(|rule| rule.resource_names.clone().unwrap_or_default())
}

/// Secrets a virtual machine names.
pub(crate) fn secrets(vm: &VirtualMachine) -> BTreeSet<String> {
    let cloud_init = &vm.spec.cloud_init;
    let named = [&cloud_init.user_data_secret, &cloud_init.network_data_secret];
    named.into_iter().flatten().map(|secret| secret.name.clone()).collect()
}

fn metadata(node: &str, namespace: Option<&str>, grant: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(grant.to_owned()),
        namespace: namespace.map(str::to_owned),
        labels: Some(node_label(node)),
        ..ObjectMeta::default()
    }
}
