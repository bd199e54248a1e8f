//! The rules of a resource, and the fields of the kinds against those of the CRDs. The tests of a rule begin with its
//! number, here, in `random_tests.rs`, beside the code and in stories; what the host enforces stands in
//! `plugin/consistency.rs`.
//!
//! 1. A plan is a pure function of configuration, prior state and static defaults. Elements are matched by name.
//! 2. A static default is planned wherever nothing is configured, whatever was there.
//! 3. An allocated value is unknown at first and copied from then on, unless this change alters it.
//! 4. What means the same keeps the spelling it had: in plan, apply and read.
//! 5. Nothing on the server rewrites what a user sets.
//! 6. Only what cannot change in place replaces; it is planned unknown only where it is configured unknown.
//! 7. Private bytes are small and versioned; read and plan echo them.
//! 8. User data is opaque: it goes through byte for byte.

use std::collections::BTreeSet;

use kube::api::DynamicObject;
use serde_json::{Value as Json, json};
use tokio_util::sync::CancellationToken;

use super::access::Access;
use super::cluster::Cluster;
use super::effect::{self, Effect};
use super::image::Image;
use super::kind::{Kind, Site, Whole, set};
use super::looked::Looked;
use super::managed::Managed;
use super::network::Network;
use super::ssh_key::SshKey;
use super::virtual_machine::VirtualMachine;
use crate::plugin::consistency;
use crate::plugin::diagnostic::Diagnostics;
use crate::plugin::document;
use crate::plugin::json::{Attributes, typed};
use crate::plugin::known::Known;
use crate::plugin::path::Path;
use crate::plugin::provider::{Call, DataSource, Model, Plan, Provider, Resource};
use crate::plugin::schema::{Attribute, Shape};
use crate::plugin::value::Value;
use crate::resources::Holdfast;

fn site() -> Site {
    Site { cluster: Cluster::new(Err(vec!["host"]), String::new(), false), namespace: Known::Null }
}

pub(super) fn config<K: Kind>(json: &Json) -> Whole {
    let schema = Managed::<K>::new().schema().unwrap();
    Whole(typed(json, &schema.ty(), Attributes::Lenient).unwrap())
}

pub(super) fn plan<K: Kind>(prior: Option<&Whole>, config: &Whole) -> Plan<Whole> {
    let kind = Managed::<K>::new();
    let plan = kind.plan(&site(), prior, config);
    let schema = kind.schema().unwrap();
    let planned = schema.without_write_only(plan.planned.0.clone());
    let prior = prior.map_or(Value::Null, |it| it.0.clone());
    let findings = consistency::planned(&schema, &prior, &config.0, &planned);
    assert!(findings.is_empty(), "{findings:?}");
    let findings = consistency::replaced(&prior, &planned, &plan.replace);
    assert!(findings.is_empty(), "{findings:?}");
    Plan { planned: Whole(planned), ..plan }
}

/// What an apply of this plan leaves: the object as a server stores it, read back.
pub(super) fn applied<K: Kind>(config: &Whole, prior: Option<&Whole>, plan: &Plan<Whole>) -> Whole {
    let (kind, nothing) = (Managed::<K>::new(), Value::Null);
    let planned = &plan.planned.0;
    let target = Managed::<K>::target(planned);
    let mut body = kind.body(&target, prior.map_or(&nothing, |it| &it.0), &config.0, planned);
    body["metadata"]["uid"] = "u".into();
    let object: DynamicObject = serde_json::from_value(body).unwrap();
    let state = kind.settled(&object, planned);
    let findings = consistency::applied(&kind.schema().unwrap(), planned, &state.0);
    assert!(findings.is_empty(), "{findings:?}");
    state
}

pub(super) fn machine() -> Json {
    json!({
        "name": "web", "cpu": 1, "memory": "2Gi",
        "disks": [{"name": "root", "size": "10Gi", "image": "debian"}, {"name": "data", "size": "1Gi", "blank": true}],
        "interfaces": [{"name": "lan", "network": "lan"}],
        "cloud_init": {"ssh_keys": ["alice"], "user_data": "#cloud-config\n"},
    })
}

fn with(mut object: Json, name: &str, value: Json) -> Json {
    object[name] = value;
    object
}

fn settled(json: &Json) -> Whole {
    let config = config::<VirtualMachine>(json);
    applied::<VirtualMachine>(&config, None, &plan::<VirtualMachine>(None, &config))
}

fn change(before: &Json, after: &Json) -> Plan<Whole> {
    plan::<VirtualMachine>(Some(&settled(before)), &config::<VirtualMachine>(after))
}

#[test]
fn every_schema_can_be_served_and_each_kind_has_a_data_source() {
    for resource in Holdfast.resources() {
        resource.attributes().unwrap();
        assert!(Holdfast.data_sources().iter().any(|it| it.kind() == resource.kind()), "{}", resource.kind());
    }
    for source in Holdfast.data_sources() {
        source.attributes().unwrap();
    }
}

fn described(attributes: &[Attribute]) -> bool {
    attributes.iter().all(|it| {
        let inner = match &it.shape {
            Shape::Nested(_, inner) => described(inner),
            Shape::Plain(_) => true,
        };
        inner && !it.description.trim().is_empty()
    })
}

#[test]
fn every_attribute_is_described_and_every_page_is_one_a_registry_takes() {
    const LARGEST: usize = 500 * 1024;
    let (resources, sources) = (Holdfast.resources(), Holdfast.data_sources());
    assert!(described(Holdfast.schema().unwrap().attributes()));
    assert!(resources.iter().all(|it| described(it.attributes().unwrap().attributes())));
    assert!(sources.iter().all(|it| described(it.attributes().unwrap().attributes())));

    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let pages = document::pages(&Holdfast, &examples).unwrap();
    assert_eq!(pages.len(), 1 + resources.len() + sources.len());
    for (path, text) in pages {
        let path = path.display();
        assert!(text.len() <= LARGEST, "{path}");
        assert!(text.starts_with("---\npage_title: "), "{path}");
        // The front matter is YAML, where a second line would end the description.
        assert_eq!(text.split("---\n").nth(1).unwrap().lines().count(), 4, "{path}");
    }
}

#[test]
fn the_table_of_changes_names_each_field_once() {
    let notes = Managed::<VirtualMachine>::new().notes();
    for words in ["`cpu`", "`firmware`", "`cloud_init`", "`run_strategy`", "`on_user_data_change`", "`name`"]
    {
        let rows = notes.lines().filter(|row| row.split([',', '|']).any(|cell| cell.trim() == words));
        assert_eq!(rows.count(), 1, "{words}");
    }
}

/// The leaves of a CRD, as configurations name them.
fn crd_leaves(schema: &Json, at: &str, leaves: &mut BTreeSet<String>) {
    let properties = schema["properties"].as_object().cloned().unwrap_or_default();
    let is_reference = properties.len() == 1 && properties.contains_key("name");
    match schema["type"].as_str() {
        Some("array") => crd_leaves(&schema["items"], at, leaves),
        Some("object") if !properties.is_empty() && !is_reference => {
            for (key, schema) in &properties {
                crd_leaves(schema, &format!("{at}.{}", super::field::snake(key)), leaves);
            }
        }
        _ => {
            leaves.insert(at.to_owned());
        }
    }
}

fn attribute_leaves(attributes: &[Attribute], at: &str, leaves: &mut BTreeSet<String>) {
    for attribute in attributes {
        let at = format!("{at}.{}", attribute.name);
        match &attribute.shape {
            Shape::Nested(_, inner) => attribute_leaves(inner, &at, leaves),
            Shape::Plain(_) => {
                leaves.insert(at);
            }
        }
    }
}

/// What only the provider knows.
const OWN: [&str; 19] = [
    ".id",
    ".name",
    ".namespace",
    ".labels",
    ".annotations",
    ".uid",
    ".fingerprint",
    ".address",
    ".node_name",
    ".on_user_data_change",
    ".interfaces.wait_for_address",
    ".cloud_init.user_data_wo",
    ".cloud_init.user_data_wo_version",
    ".cloud_init.network_data_wo",
    ".cloud_init.network_data_wo_version",
    ".timeouts.create",
    ".timeouts.read",
    ".timeouts.update",
    ".timeouts.delete",
];

fn compare<K: Kind>() {
    let crd = serde_json::to_value(K::crd()).unwrap();
    let properties = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    let mut expected = BTreeSet::new();
    crd_leaves(&properties["spec"], "", &mut expected);
    crd_leaves(&properties["status"], ".status", &mut expected);
    for schema in [Managed::<K>::new().schema().unwrap(), Looked::<K>::new().schema().unwrap()] {
        let mut found = BTreeSet::new();
        attribute_leaves(schema.attributes(), "", &mut found);
        found.retain(|leaf| !OWN.contains(&leaf.as_str()));
        assert_eq!(found, expected, "{}", K::NAME);
    }
}

#[test]
fn no_field_is_in_the_provider_or_in_the_crd_only() {
    compare::<Image>();
    compare::<Network>();
    compare::<SshKey>();
    compare::<VirtualMachine>();
}

#[test]
fn rule_1_a_plan_is_a_pure_function() {
    let config = config::<VirtualMachine>(&machine());
    assert_eq!(plan::<VirtualMachine>(None, &config), plan::<VirtualMachine>(None, &config));
}

#[test]
fn the_plan_after_an_apply_is_empty_and_so_it_is_after_an_import() {
    let config = config::<VirtualMachine>(&machine());
    let state = settled(&machine());
    let again = plan::<VirtualMachine>(Some(&state), &config);
    assert_eq!((again.planned, again.replace.len()), (state.clone(), 0));

    let kind = Managed::<VirtualMachine>::new();
    let target = Managed::<VirtualMachine>::target(&state.0);
    let mut body = kind.body(&target, &Value::Null, &config.0, &state.0);
    body["metadata"]["uid"] = "u".into();
    let object: DynamicObject = serde_json::from_value(body).unwrap();
    let imported = kind.state(&object, &kind.import("default/web").unwrap().into_value());
    let planned = plan::<VirtualMachine>(Some(&Whole(imported.clone())), &config);
    assert_eq!((planned.planned.0, planned.replace.len()), (imported, 0));
}

#[test]
fn rule_2_a_static_default_is_planned_back_after_an_edit_from_outside() {
    let mut edited = settled(&machine());
    set(&mut edited.0, &["run_strategy"], "Halted".into());
    let config = config::<VirtualMachine>(&machine());
    let plan = plan::<VirtualMachine>(Some(&edited), &config);
    assert_eq!(plan.planned.0.attribute("run_strategy"), &Value::from("Always"));
    let kind = Managed::<VirtualMachine>::new();
    let target = Managed::<VirtualMachine>::target(&edited.0);
    let body = kind.body(&target, &edited.0, &config.0, &plan.planned.0);
    assert_eq!(body["spec"]["runStrategy"], "Always");
    assert_eq!(body["spec"]["paused"], Json::Null, "an unset default that stands is not written");
}

#[test]
fn rule_3_an_allocated_value_is_unknown_at_first_and_copied_from_then_on() {
    let config = config::<VirtualMachine>(&machine());
    let first = plan::<VirtualMachine>(None, &config).planned.0;
    assert_eq!(first.attribute("uid"), &Value::UNKNOWN_NOT_NULL);
    let second = plan::<VirtualMachine>(Some(&settled(&machine())), &config).planned.0;
    assert_eq!(second.attribute("uid"), &Value::from("u"));
}

#[test]
fn rule_3_a_change_that_starts_nothing_anew_keeps_the_address_and_any_change_the_node() {
    let mut prior = settled(&machine());
    for (name, value) in [("address", "10.0.0.2"), ("node_name", "edge-1")] {
        set(&mut prior.0, &[name], value.into());
    }
    let planned = |name: &str, value: Json| {
        let config = config::<VirtualMachine>(&with(machine(), name, value));
        let plan = plan::<VirtualMachine>(Some(&prior), &config);
        // The object of this test has no status: nothing that was planned is lost with it.
        let after = applied::<VirtualMachine>(&config, Some(&prior), &plan);
        assert_eq!(after.0.attribute("node_name"), &Value::from("edge-1"));
        assert_eq!(plan.planned.0.attribute("status"), &Value::UNKNOWN, "{name}");
        plan.planned.0.attribute("address").clone()
    };
    for (name, value) in
        [("labels", json!({"a": "b"})), ("cpu", json!(2)), ("deletion_protection", json!(true))]
    {
        assert_eq!(planned(name, value), Value::from("10.0.0.2"), "{name}");
    }
    for (name, value) in
        [("run_strategy", json!("Halted")), ("interfaces", json!([])), ("restart_request", json!("a"))]
    {
        assert_eq!(planned(name, value), Value::UNKNOWN, "{name}");
    }
}

#[test]
fn rule_4_another_spelling_of_the_same_size_changes_nothing() {
    let plan = change(&machine(), &with(machine(), "memory", "2048Mi".into()));
    assert_eq!(plan.planned, settled(&machine()));
}

#[test]
fn rule_4_a_read_keeps_the_spelling_unless_the_size_is_another() {
    let (kind, known) = (Managed::<VirtualMachine>::new(), settled(&machine()));
    let (target, config) =
        (Managed::<VirtualMachine>::target(&known.0), config::<VirtualMachine>(&machine()));
    let mut body = kind.body(&target, &Value::Null, &config.0, &known.0);
    body["metadata"]["uid"] = "u".into();
    for (live, kept) in [("2048Mi", "2Gi"), ("2Gi", "2Gi"), ("3Gi", "3Gi")] {
        body["spec"]["memory"] = live.into();
        body["spec"]["disks"][1]["size"] = "1024Mi".into();
        let object: DynamicObject = serde_json::from_value(body.clone()).unwrap();
        let mut expected = known.clone();
        set(&mut expected.0, &["memory"], kept.into());
        assert_eq!(kind.state(&object, &known.0), expected.0);
    }
}

#[test]
fn an_import_finds_a_disk_that_is_not_blank_however_that_is_said() {
    let disks = |blank: Json| json!([{"name": "root", "size": "10Gi", "image": "debian", "blank": blank}]);
    let [said, unsaid] =
        [json!(false), Json::Null].map(|blank| settled(&with(machine(), "disks", disks(blank))));
    assert_eq!(said, unsaid);
}

#[test]
fn what_is_empty_instead_of_null_is_not_written_for_that_alone() {
    let before = with(machine(), "cloud_init", Json::Null);
    for name in ["labels", "cloud_init"] {
        let plan = change(&before, &with(before.clone(), name, json!({})));
        assert!(plan.planned.0.attribute("status").is_known(), "{name}");
        assert!(!plan.planned.0.attribute(name).is_null(), "{name}");
    }
}

#[test]
fn rule_1_a_reordered_list_is_a_valid_plan() {
    let disks = json!([
        {"name": "root", "size": "10240Mi", "image": "debian"},
        {"name": "more", "size": "1024Mi", "blank": true},
        {"name": "data", "size": "1Gi", "blank": true},
    ]);
    let plan = change(&machine(), &with(machine(), "disks", disks));
    assert!(plan.replace.is_empty());
}

#[test]
fn rule_6_only_immutable_fields_replace() {
    let image = json!([{"name": "root", "size": "10Gi", "image": "other"}, {"name": "data", "size": "1Gi", "blank": true}]);
    let cases = [
        ("firmware", json!("BIOS"), vec![Path::of("firmware")]),
        ("name", json!("other"), vec![Path::of("name")]),
        ("disks", image, vec![Path::of("disks").index(0).attribute("image")]),
        ("cpu", json!(2), vec![]),
        ("labels", json!({"a": "b"}), vec![]),
        ("paused", json!(true), vec![]),
    ];
    let fields = Managed::<VirtualMachine>::new().fields.spec;
    for (name, value, expected) in cases {
        assert_eq!(change(&machine(), &with(machine(), name, value)).replace, expected, "{name}");
        // What the documentation says of it.
        let said = fields.iter().find(|it| it.attribute == name).map(effect::of);
        let replaces = expected == [Path::of(name)];
        assert!(said.is_none_or(|said| (said == Effect::Replace) == replaces), "{name}");
    }
}

#[test]
fn rule_6_an_unknown_value_replaces_only_if_it_is_configured() {
    let mut unknown = config::<VirtualMachine>(&machine());
    set(&mut unknown.0, &["firmware"], Value::UNKNOWN);
    let changed = plan::<VirtualMachine>(Some(&settled(&machine())), &unknown);
    assert_eq!(changed.replace, [Path::of("firmware")]);
}

#[test]
fn rule_8_user_data_is_opaque_and_what_its_change_does_is_configured() {
    let text = "#cloud-config\n  runcmd:   [ a ]\n\n";
    let changed = |mode: &str| {
        let after = with(machine(), "on_user_data_change", mode.into());
        change(&machine(), &with(after, "cloud_init", json!({"ssh_keys": ["alice"], "user_data": text})))
    };
    let ignored = changed("ignore");
    assert_eq!(ignored.planned.0.attribute("cloud_init").attribute("user_data"), &Value::from(text));
    assert!(!ignored.diagnostics.is_empty() && ignored.replace.is_empty());
    let Value::String(reseed) =
        changed("reboot").planned.0.attribute("cloud_init").attribute("reseed").clone()
    else {
        panic!("no reseed");
    };
    assert!(reseed.starts_with("tf-") && reseed.len() == 15, "{reseed}");
    assert_eq!(changed("replace").replace, [Path::of("cloud_init").attribute("user_data")]);
}

#[test]
fn a_disk_cannot_shrink_and_a_protected_machine_cannot_go() {
    let smaller = json!([{"name": "root", "size": "9Gi", "image": "debian"}, {"name": "data", "size": "1Gi", "blank": true}]);
    assert!(change(&machine(), &with(machine(), "disks", smaller)).diagnostics.has_errors());
    let protected = with(machine(), "deletion_protection", true.into());
    assert!(change(&protected, &with(protected.clone(), "firmware", "BIOS".into())).diagnostics.has_errors());
    let mut diagnostics = Diagnostics::new();
    Managed::<VirtualMachine>::new().plan_destroy(&site(), &settled(&protected), &mut diagnostics);
    assert!(diagnostics.has_errors());
}

#[tokio::test]
async fn a_change_of_timeouts_alone_asks_nothing_of_the_api() {
    let after = with(machine(), "timeouts", json!({"update": "5m"}));
    let (prior, config) = (settled(&machine()), config::<VirtualMachine>(&after));
    let planned = plan::<VirtualMachine>(Some(&prior), &config).planned;
    let (site, cancel) = (site(), CancellationToken::new());
    let call = Call { client: &site, cancel: &cancel, private: &[] };
    let outcome = Managed::<VirtualMachine>::new().update(call, prior, config, planned.clone()).await;
    assert_eq!((outcome.state, outcome.diagnostics.is_empty()), (Some(planned), true));
}

#[tokio::test]
async fn a_read_that_is_not_answered_ends_in_its_time() {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    // Takes connections and never answers.
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = Some(format!("http://{}", mute.local_addr().unwrap()));
    let cluster = Cluster::new(Ok(Access { host, ..Access::default() }), "test".to_owned(), false);
    let (site, cancel) = (Site { cluster, namespace: Known::Null }, CancellationToken::new());
    let call = Call { client: &site, cancel: &cancel, private: &[] };
    let state = settled(&with(machine(), "timeouts", json!({"read": "1s"})));
    let outcome = Managed::<VirtualMachine>::new().read(call, state).await;
    let said: Vec<_> = outcome.diagnostics.iter().map(|it| it.summary.as_str()).collect();
    assert_eq!(said, ["Time is over"]);
}
