//! Histories: passes cut off at any write, nodes that act, fall silent or go, a store that loses a write.

use std::collections::BTreeSet;

use holdfast_api::condition::{self, READY, SCHEDULED};
use proptest::prelude::*;
use serde_json::json;

use crate::model::{Model, histories};
use crate::reconcile;
use crate::world::{Binding, mark, status};
use crate::write::{Kind, Target, Verb, Write};

const NODES: [&str; 3] = ["edge-1", "edge-2", "edge-3"];
/// Far more passes than any history here needs to settle.
const MANY_PASSES: usize = 60;

#[derive(Clone, Debug)]
enum Turn {
    Create(u8),
    Delete(u8),
    /// A pass of which only so many writes happen before the controller dies; they are under way at once, so also the
    /// last ones of a plan may be the first.
    Pass(usize, bool),
    NodeActs(usize),
    Silence(usize),
    Wake(usize),
    RemoveNode(usize),
    DeleteNamespace,
    /// The store forgets that a machine was bound.
    LoseBinding(u8),
    /// Somebody writes into any object what cannot be read.
    Bend(usize, usize),
    Mend,
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        2 => (0..4_u8).prop_map(Turn::Create),
        1 => (0..4_u8).prop_map(Turn::Delete),
        6 => (0..6_usize, any::<bool>()).prop_map(|(writes, backwards)| Turn::Pass(writes, backwards)),
        4 => (0..3_usize).prop_map(Turn::NodeActs),
        1 => (0..3_usize).prop_map(Turn::Silence),
        1 => (0..3_usize).prop_map(Turn::Wake),
        1 => (0..2_usize).prop_map(Turn::RemoveNode),
        1 => (0..4_u8).prop_map(Turn::LoseBinding),
        1 => Just(Turn::DeleteNamespace),
        2 => (any::<usize>(), any::<usize>()).prop_map(|(object, how)| Turn::Bend(object, how)),
        1 => Just(Turn::Mend),
    ]
}

fn machine(number: u8) -> Target {
    Target::in_namespace(Kind::VirtualMachine, "shop", format!("vm-{number}"))
}

fn site() -> Model {
    NODES.iter().fold(Model::default(), |model, name| model.with_node(name))
}

fn take(model: &mut Model, turn: &Turn) {
    match turn {
        Turn::Create(number) => model.create(&machine(*number).name, None),
        Turn::Delete(number) => model.delete(&machine(*number)),
        Turn::Pass(writes, false) => pass(model, *writes),
        Turn::Pass(writes, true) => {
            let plan = reconcile::plan(&model.world());
            carry_out(model, plan.iter().rev().take(*writes));
        }
        Turn::NodeActs(node) => model.node_acts(NODES[*node]),
        Turn::Silence(node) => drop(model.silent.insert(NODES[*node].to_owned())),
        Turn::Wake(node) => drop(model.silent.remove(NODES[*node])),
        Turn::RemoveNode(node) => model.delete(&Target::cluster(Kind::HypervisorNode, NODES[*node])),
        Turn::DeleteNamespace => model.delete_namespace("shop"),
        Turn::Bend(object, how) => model.bend(*object, *how),
        Turn::Mend => model.mend(),
        Turn::LoseBinding(number) => {
            if let Some(vm) = model.objects.get_mut(&machine(*number)) {
                vm["status"]["nodeName"] = json!("");
            }
        }
    }
}

fn pass(model: &mut Model, writes: usize) {
    let plan = reconcile::plan(&model.world());
    carry_out(model, plan.iter().take(writes));
}

fn carry_out<'a>(model: &mut Model, writes: impl Iterator<Item = &'a Write>) {
    for write in writes {
        obeys(model, write);
        model.write(write);
    }
}

/// What must be true of every single write.
fn obeys(model: &Model, write: &Write) {
    match (write.target.kind, &write.verb) {
        (Kind::VirtualMachine, _) => {}
        (Kind::HypervisorNode, Verb::ApplyStatus(body)) => {
            return only_granted(model, &write.target.name, body);
        }
        (Kind::Role | Kind::RoleBinding, Verb::Delete { .. }) => return only_unneeded(model, &write.target),
        _ => return,
    }
    let vm = model.vm(&write.target.name).expect("a write is for an object that stands");
    let uid = vm.metadata.uid.clone().unwrap_or_default();
    let world = model.world();
    let lives = |name: &str| world.nodes.get(name).is_some_and(|node| !node.removing());
    match &write.verb {
        Verb::ApplyStatus(body) => {
            let node = body["status"]["nodeName"].as_str().unwrap_or_default();
            if node.is_empty() {
                return;
            }
            assert_eq!(mark(&vm), Some(node), "bound without the annotation");
            let others = NODES.iter().filter(|other| **other != node && lives(other));
            let elsewhere: Vec<_> = others
                .filter(|other| model.held.get(**other).is_some_and(|held| held.contains(&uid)))
                .collect();
            assert!(elsewhere.is_empty(), "bound to {node}, though {elsewhere:?} holds it");
        }
        Verb::Merge(body) if body["metadata"]["finalizers"].is_array() => {
            let holders = NODES.iter().filter(|name| lives(name));
            let holder =
                holders.clone().find(|name| model.held.get(**name).is_some_and(|held| held.contains(&uid)));
            assert_eq!(holder, None, "let go while a node holds it");
        }
        Verb::ReplaceStatus(_) => {
            let Binding::Bound(node) = Binding::of(&vm) else { panic!("released without a node") };
            assert!(!lives(node), "released from a node that nobody removed");
            assert_eq!(mark(&vm), None, "the annotation goes first");
        }
        _ => {}
    }
}

/// No node loses the right to what is bound to it, whether that can be read or not.
fn only_unneeded(model: &Model, grant: &Target) {
    let node = grant.name.strip_prefix("holdfast-node-").and_then(|rest| rest.strip_suffix("-vms"));
    let Some(node) = node.filter(|node| model.world().nodes.get(*node).is_some_and(|node| !node.removing()))
    else {
        return;
    };
    let bound = model.objects.iter().find(|(target, object)| {
        target.kind == Kind::VirtualMachine
            && target.namespace == grant.namespace
            && object["status"]["nodeName"] == json!(node)
    });
    assert!(bound.is_none(), "{node} loses {grant} with {bound:?} on it");
}

fn only_granted(model: &Model, node: &str, body: &serde_json::Value) {
    let grants = model.world().grants;
    for namespace in body["status"]["namespaces"].as_array().into_iter().flatten() {
        assert!(
            grants.show(namespace.as_str().unwrap(), node),
            "{node} is sent to {namespace} without a right"
        );
    }
}

/// Everybody lives and acts until nothing is left to write.
fn settle(model: &mut Model) {
    model.silent.clear();
    model.mend();
    for _ in 0..MANY_PASSES {
        if reconcile::plan(&model.world()).is_empty() && quiet(model) {
            return;
        }
        pass(model, usize::MAX);
        all_act(model);
    }
    panic!("still writing: {:?}", reconcile::plan(&model.world()));
}

fn all_act(model: &mut Model) {
    for node in NODES {
        model.node_acts(node);
    }
}

fn quiet(model: &mut Model) -> bool {
    let before = model.clone();
    all_act(model);
    before.held == model.held && reconcile::plan(&model.world()).is_empty()
}

/// What must be true once it is quiet.
fn settled(model: &Model) {
    let world = model.world();
    for vm in &world.machines {
        assert!(vm.metadata.deletion_timestamp.is_none(), "a deleted machine stays: {vm:?}");
        let Binding::Bound(node) = Binding::of(vm) else { panic!("{:?} is on no node", vm.metadata.name) };
        assert!(world.nodes.contains_key(node), "bound to a node that is gone");
    }
    let pairs: BTreeSet<_> = world.machines.iter().filter_map(|vm| Binding::of(vm).node()).collect();
    let grants: BTreeSet<_> = world
        .grants
        .roles
        .keys()
        .filter_map(|(_, name)| name.strip_prefix("holdfast-node-")?.strip_suffix("-vms"))
        .collect();
    assert_eq!(grants, pairs, "rights follow placement");
    assert!(world.nodes.values().all(|node| !node.removing()), "a removed node stays");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(histories(128)))]

    #[test]
    fn whatever_happens_nothing_runs_twice_and_all_settles(turns in prop::collection::vec(turn(), 1..40)) {
        let mut model = site();
        for turn in &turns {
            take(&mut model, turn);
        }
        settle(&mut model);
        settled(&model);
    }
}

fn run(model: &mut Model) {
    for _ in 0..MANY_PASSES {
        pass(model, usize::MAX);
    }
}

fn ready(model: &Model, name: &str) -> (String, String) {
    let vm = model.vm(name).unwrap();
    let ready = condition::find(&status(&vm).conditions, READY).unwrap().clone();
    (ready.reason, ready.message)
}

#[test]
fn a_machine_waits_for_its_image_and_then_goes_on() {
    let mut model = site();
    model.create("web", Some("debian-13"));
    run(&mut model);
    assert_eq!(ready(&model, "web").0, "ImageNotFound");
    let digest = format!("sha256:{}", "0".repeat(64));
    let spec = json!({"source": {"file": {"path": "/d"}}, "digest": digest, "format": "qcow2"});
    model.put(
        Target::in_namespace(Kind::VirtualMachineImage, "shop", "debian-13"),
        json!({"metadata": {}, "spec": spec}),
    );
    run(&mut model);
    let vm = model.vm("web").unwrap();
    assert_eq!(status(&vm).node_name, "edge-1");
    assert_eq!(status(&vm).disks[0].image_digest, digest);
    assert!(condition::is_true(&status(&vm).conditions, SCHEDULED));
}

#[test]
fn a_machine_waits_for_its_network_and_goes_to_the_node_that_offers_it() {
    let mut model = site();
    model.create("web", None);
    let web = Target::in_namespace(Kind::VirtualMachine, "shop", "web");
    model.objects.get_mut(&web).unwrap()["spec"]["interfaces"] =
        json!([{"name": "lan", "network": {"name": "plant"}}]);
    for (node, bridges) in
        [("edge-1", json!([])), ("edge-2", json!([])), ("edge-3", json!([{"name": "br0", "vlans": ["120"]}]))]
    {
        let node = model.objects.get_mut(&Target::cluster(Kind::HypervisorNode, node)).unwrap();
        node["status"]["networks"] = json!({"subnetPools": ["10.88.0.0/16"], "bridges": bridges});
    }
    run(&mut model);
    assert_eq!(ready(&model, "web").0, "NetworkNotFound");
    let plant = Target::in_namespace(Kind::VirtualMachineNetwork, "shop", "plant");
    model.put(plant, json!({"metadata": {}, "spec": {"bridge": {"name": "br0", "vlan": 120}}}));
    run(&mut model);
    assert_eq!(status(&model.vm("web").unwrap()).node_name, "edge-3");
}

#[test]
fn machines_created_together_spread() {
    let mut model = site();
    (0..3).for_each(|number| model.create(&machine(number).name, None));
    run(&mut model);
    let nodes: BTreeSet<_> =
        model.world().machines.iter().filter_map(|vm| Some(Binding::of(vm).node()?.to_owned())).collect();
    assert_eq!(nodes.len(), 3);
}

#[test]
fn a_silent_node_keeps_its_machines_and_they_say_so() {
    let mut model = Model::default().with_node("edge-1");
    model.create("web", None);
    settle(&mut model);
    model.silent.insert("edge-1".to_owned());
    run(&mut model);
    let (reason, message) = ready(&model, "web");
    assert_eq!(reason, "NodeLost");
    assert!(message.contains("not started elsewhere"));
    assert_eq!(status(&model.vm("web").unwrap()).node_name, "edge-1");
}

#[test]
fn a_node_that_has_a_problem_receives_nothing_and_goes_on_when_it_ends() {
    let mut model = Model::default().with_node("edge-1");
    model.create("web", None);
    settle(&mut model);
    let node = Target::cluster(Kind::HypervisorNode, "edge-1");
    for (said, known) in [("HypervisorUnreachable", "HypervisorUnreachable"), ("OfTomorrow", "NodeProblem")] {
        let problem = json!([{"reason": said, "message": "libvirt does not answer"}]);
        model.objects.get_mut(&node).unwrap()["status"]["problems"] = problem;
        model.create("db", None);
        run(&mut model);
        assert!(ready(&model, "db").1.contains("edge-1 cannot run guests (libvirt does not answer)"));
        assert_eq!(ready(&model, "web").0, "Node", "what is there already stays as it was");
        let conditions = &model.objects[&node]["status"]["conditions"];
        let is = |it: &&serde_json::Value| it["type"] == "Ready";
        let told = conditions.as_array().unwrap().iter().find(is).unwrap();
        assert_eq!((told["status"].as_str(), told["reason"].as_str()), (Some("False"), Some(known)));
    }
    model.objects.get_mut(&node).unwrap()["status"]["problems"] = json!([]);
    run(&mut model);
    assert_eq!(status(&model.vm("db").unwrap()).node_name, "edge-1");
}

#[test]
fn after_a_restart_of_the_controller_only_a_node_that_is_heard_from_is_given_machines() {
    let mut model = Model::default().with_node("edge-1");
    model.create("web", None);
    settle(&mut model);
    model.unproven.insert("edge-1".to_owned());
    model.create("db", None);
    run(&mut model);
    assert!(ready(&model, "db").1.contains("edge-1 has not been heard from"));
    assert_eq!(ready(&model, "web").0, "Node", "what is there already stays as it was");
    model.unproven.clear();
    run(&mut model);
    assert_eq!(status(&model.vm("db").unwrap()).node_name, "edge-1");
}

#[test]
fn a_node_object_that_vanished_releases_nothing() {
    let mut model = site();
    model.create("web", None);
    settle(&mut model);
    model.objects.remove(&Target::cluster(Kind::HypervisorNode, "edge-1"));
    run(&mut model);
    assert_eq!(status(&model.vm("web").unwrap()).node_name, "edge-1");
    assert!(ready(&model, "web").1.contains("no HypervisorNode edge-1 any more"));
    let gone = Target::cluster(Kind::HypervisorNode, "edge-1");
    model.put(gone.clone(), json!({"metadata": {"finalizers": ["holdfast.dev/controller"]}, "spec": {}}));
    model.delete(&gone);
    run(&mut model);
    assert_eq!(status(&model.vm("web").unwrap()).node_name, "edge-2", "the sentence says how to release it");
    assert!(!model.objects.contains_key(&gone));
}

#[test]
fn a_machine_whose_binding_was_lost_goes_back_to_its_node_without_its_image() {
    let mut model = site();
    model.create("web", Some("debian-13"));
    let image = Target::in_namespace(Kind::VirtualMachineImage, "shop", "debian-13");
    let digest = format!("sha256:{}", "0".repeat(64));
    let spec = json!({"source": {"file": {"path": "/d"}}, "digest": digest, "format": "qcow2"});
    model.put(image.clone(), json!({"metadata": {}, "spec": spec}));
    settle(&mut model);
    model.objects.remove(&image);
    let vm = Target::in_namespace(Kind::VirtualMachine, "shop", "web");
    for annotation_too in [false, true] {
        let object = model.objects.get_mut(&vm).unwrap();
        object["status"]["nodeName"] = json!("");
        if annotation_too {
            object["metadata"]["annotations"] = json!({});
        }
        settle(&mut model);
        assert_eq!(status(&model.vm("web").unwrap()).node_name, "edge-1");
    }
}

#[test]
fn a_machine_whose_node_gets_no_rights_says_so() {
    let mut model = site();
    model.create("web", None);
    pass(&mut model, 1);
    model.terminating.insert("shop".to_owned());
    run(&mut model);
    assert_eq!(model.vm("web").unwrap().status, None, "not within moments");
    model.second += 60;
    run(&mut model);
    assert_eq!(ready(&model, "web").0, "GrantsMissing");
}

#[test]
fn a_machine_that_was_never_shown_to_its_node_is_deleted_at_once() {
    let mut model = site();
    model.create("web", None);
    pass(&mut model, 1);
    assert_eq!(mark(&model.vm("web").unwrap()), Some("edge-1"));
    model.delete(&Target::in_namespace(Kind::VirtualMachine, "shop", "web"));
    pass(&mut model, 1);
    assert!(model.vm("web").is_none());
}

#[test]
fn half_a_grant_does_not_keep_a_namespace() {
    let mut model = site();
    model.create("web", None);
    pass(&mut model, 1);
    let plan = reconcile::plan(&model.world());
    let binds = |write: &&Write| write.target.kind == Kind::RoleBinding && write.target.namespace == "shop";
    carry_out(&mut model, plan.iter().filter(binds));
    model.delete_namespace("shop");
    run(&mut model);
    let left: Vec<_> = model.objects.keys().filter(|target| target.namespace == "shop").collect();
    assert_eq!(left, Vec::<&Target>::new());
}

#[test]
fn a_settled_site_writes_nothing() {
    let mut model = site();
    (0..4).for_each(|number| model.create(&machine(number).name, None));
    settle(&mut model);
    model.second += 3600;
    assert_eq!(reconcile::plan(&model.world()), Vec::new());
}
