use std::collections::BTreeSet;

use holdfast_api::names::{SYSTEM_NAMESPACE, node_lease, own_grant, secrets_grant, vms_grant};
use serde_json::{Value, json};

use crate::model::Model;
use crate::reconcile;
use crate::unread::Told;
use crate::world::{Binding, status};
use crate::write::{Kind, Target};

const NODE: &str = "edge-1";

fn machine(name: &str) -> Target {
    Target::in_namespace(Kind::VirtualMachine, "shop", name)
}

fn image() -> Target {
    Target::in_namespace(Kind::VirtualMachineImage, "shop", "debian")
}

/// A site where `old` runs and everything else stands that is watched.
fn site() -> Model {
    let mut model = Model::default().with_node(NODE).with_node("edge-2");
    let spec =
        json!({"source": {"file": {"path": "/d"}}, "digest": format!("sha256:{:064}", 1), "format": "raw"});
    model.put(image(), json!({"metadata": {}, "spec": spec}));
    let key = json!({"publicKey": "ssh-ed25519 AAAA"});
    model.put(Target::in_namespace(Kind::SshKey, "shop", "ada"), json!({"metadata": {}, "spec": key}));
    let network = Target::in_namespace(Kind::VirtualMachineNetwork, "shop", "inner");
    model.put(network, json!({"metadata": {}, "spec": {"isolated": {}}}));
    let request = json!({"nodeName": "edge-3", "mode": "InsecureDev", "csr": "AAAA", "response": ""});
    model.put(Target::cluster(Kind::NodeEnrolment, "edge-3-x"), json!({"metadata": {}, "spec": request}));
    model.create("old", Some("debian"));
    model.objects.get_mut(&machine("old")).unwrap()["spec"]["placement"] = json!({"nodeName": NODE});
    act(&mut model);
    assert_eq!(node_of(&model, "old").as_deref(), Some(NODE));
    model
}

fn act(model: &mut Model) {
    for _ in 0..20 {
        for write in reconcile::plan(&model.world()) {
            model.write(&write);
        }
        model.node_acts(NODE);
        model.node_acts("edge-2");
    }
}

fn node_of(model: &Model, name: &str) -> Option<String> {
    Binding::of(&*model.vm(name)?).node().map(str::to_owned)
}

/// What can be wrong with a field of each kind, and where.
fn bends() -> Vec<(Target, &'static str, Value)> {
    let system = |kind, name: String| Target::in_namespace(kind, SYSTEM_NAMESPACE, name);
    let shop = |kind, name: String| Target::in_namespace(kind, "shop", name);
    let condition = json!([{"type": "Bent", "status": "True", "reason": "Bent", "message": "",
        "lastTransitionTime": "2024-01-01T00:00:00+99:99"}]);
    let node = || Target::cluster(Kind::HypervisorNode, NODE);
    let request = || Target::cluster(Kind::NodeEnrolment, "edge-3-x");
    vec![
        (machine("old"), "/metadata/managedFields", json!([{"time": "9999-12-31T00:00:00Z"}])),
        (machine("old"), "/status/conditions", condition.clone()),
        (machine("old"), "/spec/runStrategy", json!("OnFullMoon")),
        (machine("old"), "/spec/cpu", json!(1e300)),
        (machine("old"), "/spec/memory", json!({})),
        (machine("old"), "/spec/disks", json!("none")),
        (machine("old"), "/spec/cloudInit", json!([1, 2])),
        (machine("old"), "/spec", Value::Null),
        (machine("old"), "/status/disks", json!(7)),
        (machine("old"), "/metadata/annotations/bent", json!(7)),
        (node(), "/status/conditions", condition.clone()),
        (node(), "/status/orphans", json!({"uid": 1})),
        (node(), "/spec/identity", json!("nobody")),
        (image(), "/spec/format", json!("tape")),
        (image(), "/status/conditions", condition.clone()),
        (request(), "/spec/mode", json!("Later")),
        (request(), "/status/conditions", condition),
        (shop(Kind::SshKey, "ada".into()), "/spec/publicKey", json!(1)),
        (shop(Kind::VirtualMachineNetwork, "inner".into()), "/spec/isolated", json!(1)),
        (shop(Kind::Role, vms_grant(NODE)), "/rules", json!("all")),
        (shop(Kind::Role, secrets_grant(NODE)), "/rules/0/resourceNames", json!(7)),
        (shop(Kind::RoleBinding, vms_grant(NODE)), "/subjects", json!({"kind": 1})),
        (Target::cluster(Kind::ClusterRole, own_grant(NODE)), "/rules", json!(0)),
        (Target::cluster(Kind::ClusterRoleBinding, own_grant(NODE)), "/roleRef", json!([])),
        (system(Kind::Lease, node_lease(NODE)), "/spec", json!({"renewTime": "+99:99"})),
    ]
}

fn set(object: &mut Value, pointer: &str, value: Value) {
    let (way, last) = pointer.rsplit_once('/').unwrap();
    let mut place = object;
    for step in way.split('/').skip(1) {
        place = match step.parse::<usize>() {
            Ok(index) => &mut place[index],
            Err(_) => &mut place[step],
        };
    }
    place[last] = value;
}

#[test]
fn an_object_that_cannot_be_read_stops_nothing_else() {
    for (target, pointer, value) in bends() {
        let mut model = site();
        let grants = |model: &Model| -> BTreeSet<Target> {
            let kinds = [Kind::Role, Kind::RoleBinding, Kind::ClusterRole, Kind::ClusterRoleBinding];
            kinds.into_iter().flat_map(|kind| model.targets(kind)).collect()
        };
        let before = grants(&model);
        let what = format!("{target}{pointer}");
        set(model.objects.get_mut(&target).expect(&what), pointer, value);
        let bent = model.objects[&target].clone();
        model.create("new", None);
        model.create("gone", None);
        act(&mut model);
        assert!(node_of(&model, "new").is_some(), "{what}: not placed");
        assert_eq!(node_of(&model, "old").as_deref(), Some(NODE), "{what}: released");
        model.delete(&machine("gone"));
        act(&mut model);
        assert_eq!(model.vm("gone"), None, "{what}: not removed");
        assert!(grants(&model).is_superset(&before), "{what}: withdrawn");
        if model.world().unread.counted().is_empty() {
            assert!(pointer.contains("managedFields"), "{what}: read after all");
        } else {
            let after = &model.objects[&target];
            assert_eq!(
                (&after["spec"], &after["rules"]),
                (&bent["spec"], &bent["rules"]),
                "{what}: written over"
            );
        }
    }
}

#[test]
fn a_node_takes_nothing_while_the_size_of_what_it_holds_cannot_be_read() {
    let mut model = site();
    model.delete(&Target::cluster(Kind::HypervisorNode, "edge-2"));
    act(&mut model);
    set(model.objects.get_mut(&machine("old")).unwrap(), "/spec/memory", json!(0));
    model.create("new", None);
    act(&mut model);
    let waiting = model.vm("new").unwrap();
    assert_eq!(Binding::of(&waiting), Binding::Free);
    let ready = holdfast_api::condition::find(&status(&waiting).conditions, "Ready").unwrap();
    assert!(ready.message.contains("holds shop/old, whose size cannot be read"), "{}", ready.message);
}

#[test]
fn what_cannot_be_read_still_counts_with_the_size_it_says() {
    let mut model = site();
    let promised = model.world().promised();
    set(model.objects.get_mut(&machine("old")).unwrap(), "/spec/runStrategy", json!("OnFullMoon"));
    assert_eq!(model.world().promised(), promised);
    assert_eq!(model.world().unsized_on(NODE), None);
}

#[test]
fn an_image_that_cannot_be_read_is_waited_for_and_not_called_missing() {
    let mut model = site();
    set(model.objects.get_mut(&image()).unwrap(), "/spec/format", json!("tape"));
    model.create("new", Some("debian"));
    act(&mut model);
    let waiting = model.vm("new").unwrap();
    let ready = holdfast_api::condition::find(&status(&waiting).conditions, "Ready").unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "ImageUnreadable"));
    set(model.objects.get_mut(&image()).unwrap(), "/spec/format", json!("raw"));
    act(&mut model);
    assert!(node_of(&model, "new").is_some());
}

#[test]
fn an_image_that_cannot_be_read_is_ordered_from_no_node_and_stays_where_it_was_ordered() {
    let mut model = site();
    let orders = |model: &Model| {
        let node = &model.objects[&Target::cluster(Kind::HypervisorNode, NODE)];
        node["spec"]["prefetch"].as_array().map_or(0, Vec::len)
    };
    let nowhere = json!({"nodeSelector": {"no": 7}});
    set(model.objects.get_mut(&image()).unwrap(), "/spec/prefetch", nowhere.clone());
    act(&mut model);
    assert_eq!(orders(&model), 0, "what could not be read selects nobody");
    set(model.objects.get_mut(&image()).unwrap(), "/spec/prefetch", json!({"nodeSelector": {}}));
    act(&mut model);
    assert_eq!(orders(&model), 1);
    set(model.objects.get_mut(&image()).unwrap(), "/spec/prefetch", nowhere);
    act(&mut model);
    assert_eq!(orders(&model), 1, "withdrawn");
}

#[test]
fn a_stolen_node_cannot_hold_its_machines_by_what_it_writes() {
    let mut model = site();
    let nonsense = json!([{"type": "Bent", "lastTransitionTime": "+99:99"}]);
    set(model.objects.get_mut(&machine("old")).unwrap(), "/status/conditions", nonsense.clone());
    let node = Target::cluster(Kind::HypervisorNode, NODE);
    set(model.objects.get_mut(&node).unwrap(), "/status/conditions", nonsense);
    model.objects.get_mut(&machine("old")).unwrap()["spec"]["placement"] = Value::Null;
    model.silent.insert(NODE.to_owned());
    model.delete(&node);
    act(&mut model);
    assert_eq!(node_of(&model, "old").as_deref(), Some("edge-2"));
    assert!(!model.objects.contains_key(&node), "the node is gone, with its rights");
}

#[test]
fn each_version_of_an_object_is_told_once() {
    let mut model = site();
    let mut told = Told::default();
    assert!(told.news(&model.world().unread).is_empty());
    set(model.objects.get_mut(&machine("old")).unwrap(), "/spec/runStrategy", json!("OnFullMoon"));
    let news = told.news(&model.world().unread);
    assert_eq!(
        (news.len(), news[0].regarding.name.as_deref(), news[0].reason),
        (1, Some("old"), "Unreadable")
    );
    assert!(news[0].note.contains("spec.runStrategy"), "{}", news[0].note);
    assert!(told.news(&model.world().unread).is_empty());
    set(model.objects.get_mut(&machine("old")).unwrap(), "/metadata/resourceVersion", json!("9999"));
    assert_eq!(told.news(&model.world().unread).len(), 1);
}
