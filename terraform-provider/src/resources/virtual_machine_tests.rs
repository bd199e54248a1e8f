//! What only virtual machines have: addresses that are waited for, and data that no state holds.

use serde_json::{Value as Json, json};

use super::super::kind::Whole;
use super::super::managed::Managed;
use super::super::tests::{applied, config, machine, plan};
use super::super::verdict::{Verdict, verdict};
use super::*;
use crate::plugin::provider::{Model, Resource};

/// A machine that waits for an address at its only interface.
fn waiting(more: &Json) -> Value {
    let mut machine = machine();
    machine["interfaces"][0]["wait_for_address"] = true.into();
    for (name, value) in more.as_object().unwrap() {
        machine[name] = value.clone();
    }
    config::<VirtualMachine>(&machine).0
}

fn seen(addresses: &Json) -> DynamicObject {
    let ready = json!({
        "type": "Ready", "status": "True", "observedGeneration": 1, "reason": "Running", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let status = json!({"addresses": addresses, "conditions": [ready]});
    let meta = json!({"name": "web", "uid": "u", "generation": 1});
    serde_json::from_value(json!({"metadata": meta, "status": status})).unwrap()
}

#[test]
fn an_address_is_waited_for_although_the_machine_is_ready() {
    let object = seen(&json!([]));
    assert!(matches!(verdict(&object, Some(1)), Verdict::Ready));
    let missing = VirtualMachine::missing(&waiting(&json!({})), &object);
    assert_eq!(missing.as_deref(), Some("No address was seen at interface lan."));
}

#[test]
fn a_link_local_address_is_none() {
    let at = |ip: &str| seen(&json!([{"interface": "lan", "ip": ip}]));
    let missing = |ip: &str| VirtualMachine::missing(&waiting(&json!({})), &at(ip)).is_some();
    assert!(missing("169.254.3.4") && missing("fe80::1"));
    assert!(!missing("10.20.0.7") && !missing("fd00::7"));
    let first = |addresses: &Json| VirtualMachine::lift("address", &status(&seen(addresses)));
    let both = json!([{"interface": "lan", "ip": "fe80::1"}, {"interface": "lan", "ip": "10.20.0.7"}]);
    assert_eq!(first(&both), Value::from("10.20.0.7"));
    assert_eq!(first(&json!([{"interface": "lan", "ip": "fe80::1"}])), Value::Null);
}

/// The status as the provider holds it.
fn status(object: &DynamicObject) -> Value {
    let fields = &Managed::<VirtualMachine>::new().fields.status;
    super::super::field::value_all(fields, &object.data["status"])
}

#[test]
fn an_address_at_another_interface_does_not_count() {
    let object = seen(&json!([{"interface": "wan", "ip": "10.20.0.7"}]));
    assert!(VirtualMachine::missing(&waiting(&json!({})), &object).is_some());
}

#[test]
fn a_machine_that_shall_not_run_is_not_waited_for() {
    let object = seen(&json!([]));
    for more in [json!({"run_strategy": "Halted"}), json!({"paused": true})] {
        assert_eq!(VirtualMachine::missing(&waiting(&more), &object), None, "{more}");
    }
    assert_eq!(VirtualMachine::missing(&config::<VirtualMachine>(&machine()).0, &object), None);
}

/// Both texts, by their attributes and by their fields in the object.
const BOTH: [(&str, &str, &str); 2] =
    [("user_data", "userData", "user-data"), ("network_data", "networkData", "network-data")];

fn secretly(attribute: &str, version: i64) -> Json {
    let mut machine = machine();
    machine["cloud_init"] = json!({});
    machine["cloud_init"][format!("{attribute}_wo")] = "canary-4711".into();
    machine["cloud_init"][format!("{attribute}_wo_version")] = version.into();
    machine
}

#[test]
fn write_only_data_is_in_no_plan_no_state_and_no_object() {
    for (attribute, field, key) in BOTH {
        let config = config::<VirtualMachine>(&secretly(attribute, 1));
        let plan = plan::<VirtualMachine>(None, &config);
        let state = applied::<VirtualMachine>(&config, None, &plan);
        let kind = Managed::<VirtualMachine>::new();
        let target = Managed::<VirtualMachine>::target(&plan.planned.0);
        let body = kind.body(&target, &Value::Null, &config.0, &plan.planned.0);
        for text in [format!("{plan:?}"), format!("{state:?}"), body.to_string()] {
            assert!(!text.contains("canary"), "{text}");
        }
        assert_eq!(
            body["spec"]["cloudInit"][format!("{field}Secret")],
            json!({"name": "web-cloud-init", "key": key})
        );
        let cloud_init = state.0.attribute("cloud_init");
        assert_eq!(cloud_init.attribute(&format!("{attribute}_wo_version")), &Value::from(1));
        assert_eq!(cloud_init.attribute(&format!("{attribute}_secret")), &Value::Null);
    }
}

#[test]
fn host_rule_2_a_secret_that_is_not_known_yet_leaves_room_for_another_first_boot() {
    let with = |secret: Value| {
        let mut config = config::<VirtualMachine>(&machine());
        set(&mut config.0, &["on_user_data_change"], "reboot".into());
        set(&mut config.0, &["cloud_init", "user_data"], Value::Null);
        set(&mut config.0, &["cloud_init", "user_data_secret"], secret);
        config
    };
    let secret = |name: Value| Value::object([("name", name), ("key", "user-data".into())]);
    let first = with(secret("one".into()));
    let state = applied::<VirtualMachine>(&first, None, &plan::<VirtualMachine>(None, &first));
    let reseed = |secret: Value| {
        let planned = plan::<VirtualMachine>(Some(&state), &with(secret)).planned.0;
        planned.attribute("cloud_init").attribute("reseed").clone()
    };
    assert_eq!(reseed(secret("one".into())), Value::Null);
    assert!(matches!(reseed(secret("two".into())), Value::String(_)));
    assert_eq!(reseed(secret(Value::UNKNOWN)), Value::UNKNOWN);
    assert_eq!(reseed(Value::UNKNOWN_NOT_NULL), Value::UNKNOWN);
}

#[test]
fn host_rule_2_whether_new_user_data_replaces_must_be_known_in_the_plan() {
    let mut change = config::<VirtualMachine>(&machine());
    set(&mut change.0, &["on_user_data_change"], Value::UNKNOWN);
    let prior = config::<VirtualMachine>(&machine());
    let prior = applied::<VirtualMachine>(&prior, None, &plan::<VirtualMachine>(None, &prior));
    assert!(!plan::<VirtualMachine>(Some(&prior), &change).diagnostics.has_errors(), "nothing changes");
    set(&mut change.0, &["cloud_init", "user_data"], "#cloud-config\nhostname: x\n".into());
    let refused = plan::<VirtualMachine>(Some(&prior), &change).diagnostics;
    let refused: Vec<_> = refused.into_iter().map(|it| it.path).collect();
    assert_eq!(refused, [Path::of("on_user_data_change")]);
}

#[test]
fn host_rule_2_what_may_come_to_replace_is_planned_as_a_replacement() {
    let prior = config::<VirtualMachine>(&machine());
    let mut prior = applied::<VirtualMachine>(&prior, None, &plan::<VirtualMachine>(None, &prior));
    set(&mut prior.0, &["node_name"], "edge-1".into());
    for name in ["disks", "placement", "firmware"] {
        let mut change = config::<VirtualMachine>(&machine());
        set(&mut change.0, &[name], Value::UNKNOWN);
        assert!(!plan::<VirtualMachine>(Some(&prior), &change).replace.is_empty(), "{name}");
    }
    let mut change = config::<VirtualMachine>(&machine());
    set(&mut change.0, &["on_user_data_change"], "replace".into());
    set(&mut change.0, &["cloud_init"], Value::UNKNOWN);
    assert!(!plan::<VirtualMachine>(Some(&prior), &change).replace.is_empty());
    // One more disk, whose name is not known: it can be neither of those that are named.
    let mut change = config::<VirtualMachine>(&machine());
    let Value::List(mut disks) = change.0.attribute("disks").clone() else { panic!("no disks") };
    let mut more = disks[1].clone();
    set(&mut more, &["name"], Value::UNKNOWN);
    disks.push(more);
    set(&mut change.0, &["disks"], Value::List(disks.clone()));
    assert!(plan::<VirtualMachine>(Some(&prior), &change).replace.is_empty());
    // It may be the blank one, but then with an image.
    set(&mut disks[2], &["image"], "debian".into());
    set(&mut change.0, &["disks"], Value::List(vec![disks[0].clone(), disks[2].clone()]));
    assert_eq!(
        plan::<VirtualMachine>(Some(&prior), &change).replace,
        [Path::of("disks").index(1).attribute("image")]
    );
}

#[test]
fn a_replacement_that_only_an_unknown_value_causes_is_explained_as_the_loss_of_the_disks() {
    let mut prior = machine();
    prior["placement"] = json!({"node_name": "edge-1"});
    let first = config::<VirtualMachine>(&prior);
    let mut prior = applied::<VirtualMachine>(&first, None, &plan::<VirtualMachine>(None, &first));
    set(&mut prior.0, &["node_name"], "edge-1".into());
    let told = |path: &[&str], to: Value| {
        let mut change = first.clone();
        set(&mut change.0, path, to);
        let plan = plan::<VirtualMachine>(Some(&prior), &change);
        assert!(!plan.replace.is_empty() && !plan.diagnostics.has_errors(), "{path:?}");
        plan.diagnostics.into_iter().map(|it| (it.path, it.detail)).collect::<Vec<_>>()
    };
    for path in [&["placement", "node_name"][..], &["placement", "node_selector"], &["disks"], &["firmware"]]
    {
        let told = told(path, Value::UNKNOWN);
        let [(at, detail)] = &told[..] else { panic!("{path:?}: {told:?}") };
        assert_eq!(*at, Path::of(path[0]), "{detail}");
        assert!(detail.contains("its disks are deleted with all that the guest has written"), "{detail}");
    }
    assert_eq!(told(&["placement", "node_name"], "edge-2".into()), [], "asked for");
    assert_eq!(told(&["firmware"], "BIOS".into()), [], "asked for");
}

#[test]
fn only_another_version_is_a_change_of_write_only_data() {
    for (attribute, _, _) in BOTH {
        let first = config::<VirtualMachine>(&secretly(attribute, 1));
        let state = applied::<VirtualMachine>(&first, None, &plan::<VirtualMachine>(None, &first));
        let mut rewritten = first.clone();
        set(&mut rewritten.0, &["cloud_init", &format!("{attribute}_wo")], "canary-4712".into());
        let again = plan::<VirtualMachine>(Some(&state), &rewritten);
        assert_eq!((again.planned, again.diagnostics.is_empty()), (state.clone(), true), "{attribute}");
        let mut second = secretly(attribute, 2);
        second["on_user_data_change"] = "reboot".into();
        let second = plan::<VirtualMachine>(Some(&state), &config::<VirtualMachine>(&second)).planned.0;
        assert_eq!(second.attribute("cloud_init").attribute("reseed"), &Value::from("tf-v2"), "{attribute}");
        assert_eq!(second.attribute("restart_request"), &Value::from("tf-v2"), "{attribute}");
        let mut second = secretly(attribute, 2);
        second["on_user_data_change"] = "replace".into();
        let replaced = plan::<VirtualMachine>(Some(&state), &config::<VirtualMachine>(&second)).replace;
        let at = Path::of("cloud_init").attribute(format!("{attribute}_wo_version"));
        assert_eq!(replaced, [at]);
    }
}

#[test]
fn an_import_finds_the_version_of_write_only_data() {
    for (attribute, _, _) in BOTH {
        let config = config::<VirtualMachine>(&secretly(attribute, 3));
        let planned = plan::<VirtualMachine>(None, &config).planned.0;
        let kind = Managed::<VirtualMachine>::new();
        let body = kind.body(&Managed::<VirtualMachine>::target(&planned), &Value::Null, &config.0, &planned);
        let object: DynamicObject = serde_json::from_value(body).unwrap();
        let Whole(imported) = Whole(kind.state(&object, &kind.import("default/web").unwrap().into_value()));
        let found = imported.attribute("cloud_init").attribute(&format!("{attribute}_wo_version"));
        assert_eq!(found, &Value::from(3), "{attribute}");
    }
}
