//! An API and its nodes in this process's memory, so that histories of planners can be run, cut off at any write, and
//! gone on with. It knows what the planners rely on: versions, finalizers, apply and merge; the stories in `tests/` show
//! that the real API server agrees.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use holdfast_api::names::{CONTROLLER_USER, NODE_LABEL, SYSTEM_NAMESPACE, node_lease, vms_grant};
use holdfast_api::{HypervisorNode, VirtualMachine};
use holdfast_client::{Raw, Read};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::cache::Name;
use crate::heartbeat::Life;
use crate::unread::Unread;
use crate::world::{Grants, Node, Settings, World};
use crate::write::{Exactly, Kind, Target, Verb, Write};

/// How many histories: so many, or what `PROPTEST_CASES` says, which proptest itself heeds only where no number is set.
pub(crate) fn histories(usual: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual)
}

/// The objects, and what the hosts hold whatever the objects say.
#[derive(Clone, Default)]
pub(crate) struct Model {
    pub(crate) objects: BTreeMap<Target, Value>,
    pub(crate) settings: Settings,
    pub(crate) silent: BTreeSet<String>,
    /// Nodes not heard from since the controller started.
    pub(crate) unproven: BTreeSet<String>,
    /// UIDs of the machines each host holds.
    pub(crate) held: BTreeMap<String, BTreeSet<String>>,
    /// Namespaces on their way out: nothing is created there any more.
    pub(crate) terminating: BTreeSet<String>,
    pub(crate) second: i64,
    version: u64,
    /// Fields of each status that the controller applied last: those it leaves out next time go.
    applied: BTreeMap<Target, BTreeSet<String>>,
}

impl Model {
    /// A node that enrolled, reported and lives.
    pub(crate) fn with_node(mut self, name: &str) -> Self {
        let spec = json!({"identity": {"keySha256": "00"}, "unschedulable": false, "cpuOvercommit": 4});
        let status = json!({
            "capacity": {"cpu": 8, "memory": "16Gi", "storage": "200Gi"},
            "accelerator": {"name": "tcg", "proved": true},
        });
        let object =
            json!({"metadata": {"finalizers": ["holdfast.dev/controller"]}, "spec": spec, "status": status});
        self.put(Target::cluster(Kind::HypervisorNode, name), object);
        let lease = Target::in_namespace(Kind::Lease, SYSTEM_NAMESPACE, node_lease(name));
        self.put(lease, json!({"metadata": {"labels": {NODE_LABEL: name}}}));
        self
    }

    /// A machine as a person creates it; in a namespace that is gone by now, with the namespace.
    pub(crate) fn create(&mut self, name: &str, image: Option<&str>) {
        let target = Target::in_namespace(Kind::VirtualMachine, "shop", name);
        if !self.objects.keys().any(|target| target.namespace == "shop") {
            self.terminating.remove("shop");
        }
        if self.objects.contains_key(&target) || self.terminating.contains("shop") {
            return;
        }
        let disk = match image {
            Some(image) => json!({"name": "root", "size": "10Gi", "image": {"name": image}}),
            None => json!({"name": "root", "size": "10Gi", "blank": {}}),
        };
        let seed = json!({"userDataSecret": {"name": format!("{name}-seed"), "key": "user-data"}});
        let spec = json!({"cpu": 1, "memory": "1Gi", "disks": [disk], "cloudInit": seed});
        self.put(target, json!({"metadata": {}, "spec": spec}));
    }

    /// Puts an object as a person would: identity and version are filled in.
    pub(crate) fn put(&mut self, target: Target, mut object: Value) {
        self.version += 1;
        let metadata = map(&mut object["metadata"]);
        metadata.insert("name".into(), json!(target.name));
        if !target.namespace.is_empty() {
            metadata.insert("namespace".into(), json!(target.namespace));
        }
        metadata.entry("uid").or_insert(json!(format!("uid-{}-{}", target.name, self.version)));
        metadata.entry("generation").or_insert(json!(1));
        metadata.entry("creationTimestamp").or_insert(json!(self.now().0.to_string()));
        metadata.insert("resourceVersion".into(), json!(self.version.to_string()));
        let status = object["status"].clone();
        object = json!({"metadata": object["metadata"], "spec": object["spec"], "status": status,
            "rules": object["rules"], "subjects": object["subjects"], "roleRef": object["roleRef"]});
        map(&mut object).retain(|_, value| !value.is_null());
        self.objects.insert(target, object);
    }

    /// Asks for a deletion; finalizers hold it back.
    pub(crate) fn delete(&mut self, target: &Target) {
        let now = json!(self.now().0.to_string());
        if let Some(object) = self.objects.get_mut(target) {
            map(&mut object["metadata"]).entry("deletionTimestamp").or_insert(now);
            self.touch(target);
        }
    }

    /// Deletes a namespace with all that is in it; finalizers hold it back.
    pub(crate) fn delete_namespace(&mut self, namespace: &str) {
        self.terminating.insert(namespace.to_owned());
        let within: Vec<_> =
            self.objects.keys().filter(|target| target.namespace == namespace).cloned().collect();
        for target in &within {
            self.delete(target);
        }
    }

    fn touch(&mut self, target: &Target) {
        self.version += 1;
        let Some(object) = self.objects.get_mut(target) else { return };
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let leaving = !object["metadata"]["deletionTimestamp"].is_null();
        if leaving && object["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty) {
            self.objects.remove(target);
        }
    }

    /// Carries a write out, as far as the API server would.
    pub(crate) fn write(&mut self, write: &Write) {
        let target = &write.target;
        let found = self.objects.get(target).map(|object| object["metadata"].clone());
        if found.is_none() && self.terminating.contains(&target.namespace) {
            return;
        }
        assert!(is_guarded(&write.verb), "it could bring something back: {write:?}");
        match &write.verb {
            Verb::Create(body) if found.is_none() => {
                let mut body = body.clone();
                if target.kind == Kind::SigningRequest {
                    body["spec"]["username"] = json!(CONTROLLER_USER);
                }
                return self.put(target.clone(), body);
            }
            Verb::Delete(exactly) if found.as_ref().is_some_and(|found| fits(found, &json!(exactly))) => {
                return self.delete(target);
            }
            Verb::Apply(body) | Verb::ApplyStatus(body) | Verb::ReplaceStatus(body) | Verb::Merge(body)
                if found.as_ref().is_some_and(|found| fits(found, &body["metadata"])) =>
            {
                if let Verb::ApplyStatus(_) = &write.verb {
                    self.give_up(target, body);
                }
                let object = self.objects.entry(target.clone()).or_default();
                change(object, &write.verb, body);
            }
            Verb::Approve(body) if found.as_ref().is_some_and(|found| fits(found, &body["metadata"])) => {
                self.sign(target, body.clone());
            }
            _ => return,
        }
        self.touch(target);
    }

    /// Apply gives up what it leaves out.
    fn give_up(&mut self, target: &Target, body: &Value) {
        let now: BTreeSet<String> =
            body["status"].as_object().into_iter().flat_map(Map::keys).cloned().collect();
        let before = self.applied.insert(target.clone(), now.clone()).unwrap_or_default();
        if let Some(object) = self.objects.get_mut(target) {
            map(&mut object["status"]).retain(|key, _| now.contains(key) || !before.contains(key));
        }
    }

    /// The cluster signs what is approved.
    fn sign(&mut self, target: &Target, mut request: Value) {
        use base64::Engine;
        let certificate = base64::engine::general_purpose::STANDARD.encode(crate::enrol::tests::CERTIFICATE);
        request["status"]["certificate"] = json!(certificate);
        self.objects.insert(target.clone(), request);
    }

    /// What a node daemon does once: takes up what it is shown, removes what it reads as deleted, reports what it holds.
    pub(crate) fn node_acts(&mut self, name: &str) {
        let node = Target::cluster(Kind::HypervisorNode, name);
        if self.silent.contains(name) || !self.objects.contains_key(&node) {
            return;
        }
        for target in self.targets(Kind::VirtualMachine) {
            let vm = &self.objects[&target];
            if vm["status"]["nodeName"] == json!(name) && self.shown(name, &target.namespace) {
                self.tend(name, &target);
            }
        }
        let held: Vec<_> = self.held.entry(name.to_owned()).or_default().iter().cloned().collect();
        let object = self.objects.entry(node.clone()).or_default();
        object["status"]["virtualMachines"] = json!(held);
        self.touch(&node);
    }

    fn shown(&self, node: &str, namespace: &str) -> bool {
        let grant = |kind| Target::in_namespace(kind, namespace, vms_grant(node));
        let served = &self.objects[&Target::cluster(Kind::HypervisorNode, node)]["status"]["namespaces"];
        served.as_array().is_some_and(|served| served.contains(&json!(namespace)))
            && self.objects.contains_key(&grant(Kind::Role))
            && self.objects.contains_key(&grant(Kind::RoleBinding))
    }

    fn tend(&mut self, node: &str, target: &Target) {
        let object = self.objects.entry(target.clone()).or_default();
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        let leaving = !object["metadata"]["deletionTimestamp"].is_null();
        let condition = json!({"type": if leaving { "Removed" } else { "Ready" }, "status": "True", "reason": "Node",
            "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        merge_conditions(&mut object["status"], &json!([condition]));
        object["status"]["printableStatus"] = json!("Running");
        for taken in ["printableStatus", "disks", "observedGeneration"] {
            self.applied.entry(target.clone()).or_default().remove(taken);
        }
        let held = self.held.entry(node.to_owned()).or_default();
        if leaving {
            held.remove(&uid)
        } else {
            held.insert(uid)
        };
        self.touch(target);
    }

    /// Writes into an object what cannot be read, beside what stands there.
    pub(crate) fn bend(&mut self, object: usize, how: usize) {
        let index = object % self.objects.len().max(1);
        let Some((target, object)) = self.objects.iter_mut().nth(index) else { return };
        let target = target.clone();
        match (how % 4, target.kind) {
            (0, _) => overlay(&mut object["metadata"]["labels"], &json!({BENT: 5})),
            (1, _) => overlay(&mut object["metadata"]["annotations"], &json!({BENT: {}})),
            (2, Kind::VirtualMachine) => overlay(&mut object["spec"], &json!({"runStrategy": BENT})),
            (2, Kind::HypervisorNode) => overlay(&mut object["spec"], &json!({"unschedulable": BENT})),
            (_, Kind::Lease) => overlay(&mut object["spec"], &json!({"renewTime": BENT})),
            (_, Kind::Role | Kind::RoleBinding | Kind::ClusterRole | Kind::ClusterRoleBinding) => {}
            _ => {
                let condition = json!({"type": BENT, "lastTransitionTime": "2024-01-01T00:00:00+99:99"});
                merge_conditions(&mut object["status"], &json!([condition]));
            }
        }
        self.touch(&target);
    }

    /// Takes out again what was bent.
    pub(crate) fn mend(&mut self) {
        let targets: Vec<_> = self.objects.keys().cloned().collect();
        for target in targets {
            if let Some(object) = self.objects.get_mut(&target) {
                straighten(object);
            }
            self.touch(&target);
        }
    }

    pub(crate) fn targets(&self, kind: Kind) -> Vec<Target> {
        self.objects.keys().filter(|target| target.kind == kind).cloned().collect()
    }

    /// The virtual machine of this name, as it stands.
    pub(crate) fn vm(&self, name: &str) -> Option<Arc<VirtualMachine>> {
        let mut machines = self.all::<VirtualMachine>(Kind::VirtualMachine, &mut Unread::default());
        machines.remove(&("shop".to_owned(), name.to_owned()))
    }

    fn now(&self) -> Time {
        Time(Timestamp::from_second(1_780_000_000 + self.second).unwrap())
    }

    fn all<K: Object>(&self, kind: Kind, unread: &mut Unread) -> BTreeMap<Name, Arc<K>> {
        let of_kind = self.objects.iter().filter(|(target, _)| target.kind == kind);
        let read = of_kind.map(|(target, object)| {
            let Read { object, faults } = Read::<K>::from(Raw::new(object.clone()));
            if !faults.is_empty() {
                unread.note(kind, &object, &Arc::new(faults));
            }
            ((target.namespace.clone(), target.name.clone()), Arc::new(object))
        });
        read.collect()
    }

    fn listed<K: Object>(&self, kind: Kind, unread: &mut Unread) -> Vec<Arc<K>> {
        self.all(kind, unread).into_values().collect()
    }

    fn by_name<K: Object>(&self, kind: Kind, unread: &mut Unread) -> BTreeMap<String, Arc<K>> {
        self.all(kind, unread).into_iter().map(|((_, name), object)| (name, object)).collect()
    }

    /// What a pass would see.
    pub(crate) fn world(&self) -> World {
        let unread = &mut Unread::default();
        let nodes = self.by_name(Kind::HypervisorNode, unread);
        let node = |(name, object): (String, Arc<HypervisorNode>)| {
            let life = match (self.silent.contains(&name), self.unproven.contains(&name)) {
                (true, _) => Life::Silent,
                (false, true) => Life::Unproven,
                (false, false) => Life::Alive,
            };
            let hidden = unread.of(Kind::HypervisorNode, &*object).is_some();
            let unread = unread.any(Kind::HypervisorNode, &*object);
            (name, Node { object, life, unread, hidden })
        };
        let nodes = nodes.into_iter().map(node).collect();
        let leases = self.by_name::<Lease>(Kind::Lease, unread).into_iter();
        World {
            settings: self.settings,
            now: self.now(),
            unhurried: true,
            machines: self.listed(Kind::VirtualMachine, unread),
            nodes,
            images: self.all(Kind::VirtualMachineImage, unread),
            networks: self.listed(Kind::VirtualMachineNetwork, unread),
            keys: self.listed(Kind::SshKey, unread),
            enrolments: self.listed(Kind::NodeEnrolment, unread),
            requests: self.by_name(Kind::SigningRequest, unread),
            leases: leases.map(|(name, lease)| (name, Exactly::of(&*lease))).collect(),
            grants: Grants {
                roles: self.all(Kind::Role, unread),
                role_bindings: self.all(Kind::RoleBinding, unread),
                cluster_roles: self.all(Kind::ClusterRole, unread),
                cluster_role_bindings: self.all(Kind::ClusterRoleBinding, unread),
            },
            unread: std::mem::take(unread),
        }
    }
}

/// What the API holds.
trait Object: Resource<DynamicType = ()> + Default + DeserializeOwned {}
impl<K: Resource<DynamicType = ()> + Default + DeserializeOwned> Object for K {}

/// What marks a bent field.
const BENT: &str = "bent";

fn straighten(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, value| key != BENT && *value != json!(BENT));
            map.values_mut().for_each(straighten);
        }
        Value::Array(items) => {
            items.retain(|item| item["type"] != json!(BENT));
            items.iter_mut().for_each(straighten);
        }
        _ => {}
    }
}

/// Whether a write that comes too late is refused, or makes something that was not there.
fn is_guarded(verb: &Verb) -> bool {
    let named = |exactly: &Value| exactly["uid"].is_string() && exactly["resourceVersion"].is_string();
    match verb {
        Verb::Create(body) => body["metadata"]["uid"].is_null(),
        Verb::Delete(exactly) => named(&json!(exactly)),
        Verb::Apply(body)
        | Verb::ApplyStatus(body)
        | Verb::ReplaceStatus(body)
        | Verb::Merge(body)
        | Verb::Approve(body) => named(&body["metadata"]),
    }
}

/// Whether the preconditions of a write hold.
fn fits(found: &Value, asked: &Value) -> bool {
    ["uid", "resourceVersion"].into_iter().all(|key| asked[key].is_null() || asked[key] == found[key])
}

fn change(object: &mut Value, verb: &Verb, body: &Value) {
    match verb {
        Verb::Apply(_) => {
            for (key, value) in body.as_object().into_iter().flatten() {
                match key.as_str() {
                    "spec" => overlay(&mut object["spec"], value),
                    "rules" | "subjects" | "roleRef" => object[key] = value.clone(),
                    _ => {}
                }
            }
            overlay(&mut object["metadata"]["annotations"], &body["metadata"]["annotations"]);
            if !body["metadata"]["finalizers"].is_null() {
                object["metadata"]["finalizers"] = body["metadata"]["finalizers"].clone();
            }
        }
        Verb::ApplyStatus(_) => {
            let mut status = body["status"].clone();
            merge_conditions(&mut object["status"], &status["conditions"]);
            map(&mut status).remove("conditions");
            overlay(&mut object["status"], &status);
        }
        Verb::ReplaceStatus(_) => object["status"] = body["status"].clone(),
        Verb::Merge(_) => {
            if !body["metadata"]["finalizers"].is_null() {
                object["metadata"]["finalizers"] = body["metadata"]["finalizers"].clone();
            }
            overlay(&mut object["metadata"]["annotations"], &body["metadata"]["annotations"]);
            map(&mut object["metadata"]["annotations"]).retain(|_, value| !value.is_null());
        }
        Verb::Create(_) | Verb::Approve(_) | Verb::Delete { .. } => {}
    }
}

fn merge_conditions(status: &mut Value, conditions: &Value) {
    let found = status["conditions"].as_array().cloned().unwrap_or_default();
    let new = conditions.as_array().cloned().unwrap_or_default();
    let kept = found.into_iter().filter(|old| new.iter().all(|new| new["type"] != old["type"]));
    status["conditions"] = kept.chain(new.iter().cloned()).collect();
}

fn overlay(onto: &mut Value, part: &Value) {
    for (key, value) in part.as_object().into_iter().flatten() {
        map(onto).insert(key.clone(), value.clone());
    }
}

fn map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().unwrap()
}
