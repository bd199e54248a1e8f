//! Bad input: every attribute with a rule has a row here, and each row gives one sentence at the attribute it is about,
//! before anything is asked of the API.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use super::field::snake;
use super::image::Image;
use super::kind::Kind;
use super::managed::Managed;
use super::network::Network;
use super::ssh_key::SshKey;
use super::tests::{config, machine};
use super::virtual_machine::VirtualMachine;
use crate::plugin::diagnostic::Diagnostics;
use crate::plugin::provider::Resource;

/// What is put where, what it is about, and what is said of it.
struct Row {
    pointer: &'static str,
    bad: Json,
    at: &'static str,
    says: &'static str,
}

const fn row(pointer: &'static str, bad: Json, at: &'static str, says: &'static str) -> Row {
    Row { pointer, bad, at, says }
}

fn put(mut object: Json, pointer: &str, value: Json) -> Json {
    let mut place = &mut object;
    for part in pointer.split('/').skip(1) {
        place = match part.parse::<usize>() {
            Ok(index) => &mut place[index],
            Err(_) => &mut place[part],
        };
    }
    *place = value;
    object
}

fn said<K: Kind>(kind: &Managed<K>, object: &Json) -> Vec<(String, String)> {
    let mut diagnostics = Diagnostics::new();
    kind.validate(&config::<K>(object), &mut diagnostics);
    diagnostics.iter().map(|it| (it.path.to_string(), it.detail.clone())).collect()
}

fn check<K: Kind>(base: &Json, rows: &[Row]) {
    let kind = Managed::<K>::new();
    assert_eq!(said(&kind, base), [], "{} as it should be", K::NAME);
    for Row { pointer, bad, at, says } in rows {
        let said = said(&kind, &put(base.clone(), pointer, bad.clone()));
        let [(path, detail)] = said.as_slice() else { panic!("{pointer} = {bad}: {said:#?}") };
        assert_eq!(path, at, "{pointer} = {bad}: {detail}");
        assert!(detail.contains(says), "{pointer} = {bad}: {detail}");
    }
}

/// The attributes that a CRD has a rule for, beside those about changes.
fn ruled(schema: &Json, at: &str, found: &mut BTreeSet<String>) {
    let words = ["enum", "minLength", "maxLength", "minItems", "maxItems", "minimum", "maximum"];
    let rules = schema["x-kubernetes-validations"].as_array().cloned().unwrap_or_default();
    let by_rule = rules.iter().any(|rule| !rule["rule"].as_str().unwrap().contains("oldSelf"));
    if by_rule || words.iter().any(|word| !schema[word].is_null()) {
        found.insert(at.to_owned());
    }
    if let Some(properties) = schema["properties"].as_object() {
        let is_reference = properties.len() == 1 && properties.contains_key("name");
        for (key, schema) in properties {
            let inner = if is_reference { at.to_owned() } else { format!("{at}/{}", snake(key)) };
            ruled(schema, &inner, found);
        }
    }
    if schema["items"].is_object() {
        ruled(&schema["items"], at, found);
    }
}

fn covers<K: Kind>(rows: &[Row]) {
    let crd = serde_json::to_value(K::crd()).unwrap();
    let mut expected = BTreeSet::new();
    let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    ruled(spec, "", &mut expected);
    let plain = |pointer: &str| {
        let parts = pointer.split('/').skip(1).filter(|part| part.parse::<usize>().is_err());
        parts.fold(String::new(), |path, part| path + "/" + part)
    };
    let found: BTreeSet<_> = rows.iter().map(|row| plain(row.pointer)).collect();
    let missing: Vec<_> = expected.difference(&found).collect();
    assert!(missing.is_empty(), "{}: no row for {missing:?}", K::NAME);
}

fn for_all() -> Vec<Row> {
    let long = "a".repeat(64);
    vec![
        row("/name", json!("Web"), "name", "lower-case letters"),
        row("/name", json!(""), "name", "such as web-1"),
        row("/namespace", json!("a.b"), "namespace", "at most 63 characters"),
        row("/labels", json!({"a b": "c"}), "labels[\"a b\"]", "such as team or example.org/team"),
        row("/labels", json!({"a": "b c"}), "labels[\"a\"]", "Put other text into annotations"),
        row("/labels", json!({"a": long}), "labels[\"a\"]", "at most 63 characters"),
        row("/annotations", json!({"Up.org/a": "any text"}), "annotations[\"Up.org/a\"]", "a domain"),
        row("/timeouts", json!({"create": "soon"}), "timeouts.create", "90s, 20m or 1h30m"),
        row("/timeouts", json!({"read": "5"}), "timeouts.read", "90s, 20m or 1h30m"),
        row("/timeouts", json!({"update": "-1s"}), "timeouts.update", "90s, 20m or 1h30m"),
        row("/timeouts", json!({"delete": "0s"}), "timeouts.delete", "90s, 20m or 1h30m"),
    ]
}

fn full_machine() -> Json {
    let mut machine = machine();
    machine["interfaces"][0]["mac_address"] = "52:54:00:12:34:56".into();
    machine["placement"] = json!({"node_name": "edge-1", "node_selector": {"a": "b"}});
    machine["cloud_init"]["hostname"] = "web".into();
    machine
}

fn for_machines() -> Vec<Row> {
    let disk = json!({"name": "a", "size": "1Gi", "blank": true});
    let disks = |count: usize| {
        let one = |index| put(disk.clone(), "/name", format!("d{index}").into());
        Json::Array((0..count).map(one).collect())
    };
    let lan = |index| json!({"name": format!("n{index}"), "network": "lan"});
    let many: Vec<_> = (0..33).map(|index| format!("k{index}")).collect();
    let long = "x".repeat(32 * 1024 + 1);
    let secret =
        |name: &str, key: &str| json!({"user_data": null, "user_data_secret": {"name": name, "key": key}});
    let network = |name: &str, key: &str| json!({"network_data_secret": {"name": name, "key": key}});
    vec![
        row("/name", json!("web.example"), "name", "at most 63 characters"),
        row("/cpu", json!(0), "cpu", "between 1 and 255"),
        row("/cpu", json!(256), "cpu", "between 1 and 255"),
        row("/cpu", json!(1.5), "cpu", "a whole number"),
        row("/memory", json!("2GB"), "memory", "such as 2Gi"),
        row("/memory", json!("63Mi"), "memory", "between 64Mi and 4Ti"),
        row("/memory", json!("5Ti"), "memory", "between 64Mi and 4Ti"),
        row("/firmware", json!("uefi"), "firmware", "UEFI, BIOS"),
        row("/run_strategy", json!("Sometimes"), "run_strategy", "Always, RerunOnFailure, Once, Halted"),
        row("/on_user_data_change", json!("never"), "on_user_data_change", "ignore, reboot, replace"),
        row(
            "/termination_grace_period_seconds",
            json!(-1),
            "termination_grace_period_seconds",
            "between 0 and 3600",
        ),
        row("/restart_request", json!("a\u{7}"), "restart_request", "not contain control characters"),
        row("/restart_request", json!("a".repeat(65)), "restart_request", "at most 64 characters"),
        row("/placement/node_name", json!("Edge"), "placement.node_name", "such as edge-1"),
        row("/placement/node_name", json!("e".repeat(41)), "placement.node_name", "at most 40 characters"),
        row("/disks", json!([]), "disks", "1 to 16 elements"),
        row("/disks", disks(17), "disks", "1 to 16 elements"),
        row("/disks", json!([disk, disk]), "disks[1].name", "a name of its own"),
        row("/disks/0/name", json!("Root"), "disks[0].name", "such as root"),
        row("/disks/0/name", json!(""), "disks[0].name", "such as root"),
        row("/disks/0/size", json!("10GB"), "disks[0].size", "such as 10Gi"),
        row("/disks/1/size", json!("65Ti"), "disks[1].size", "at most 64Ti"),
        row("/disks/0/image", json!("Debian"), "disks[0].image", "such as debian-13"),
        row("/disks/0/blank", json!(true), "disks[0]", "Set image, or blank = true"),
        row("/disks/0/image", Json::Null, "disks[0]", "Set image, or blank = true"),
        row("/interfaces", (0..9).map(lan).collect(), "interfaces", "at most 8 elements"),
        row("/interfaces", json!([lan(0), lan(0)]), "interfaces[1].name", "a name of its own"),
        row("/interfaces/0/name", json!("-lan"), "interfaces[0].name", "such as lan"),
        row("/interfaces/0/network", json!("LAN"), "interfaces[0].network", "must be the name of an object"),
        row("/interfaces/0/mac_address", json!("52:54"), "interfaces[0].mac_address", "such as 52:54:00"),
        row("/interfaces/0/mac_address", json!("53:54:00:12:34:56"), "interfaces[0].mac_address", "even"),
        row(
            "/interfaces/0/addresses",
            json!(["::ffff:10.0.0.1"]),
            "interfaces[0].addresses[0]",
            "shortest form",
        ),
        row(
            "/interfaces/0/addresses",
            json!(vec!["10.20.0.5"; 17]),
            "interfaces[0].addresses",
            "16 elements",
        ),
        row("/cloud_init/hostname", json!("-web"), "cloud_init.hostname", "such as web"),
        row("/cloud_init/hostname", json!("w".repeat(64)), "cloud_init.hostname", "at most 63"),
        row("/cloud_init/reseed", json!("a\n"), "cloud_init.reseed", "not contain control characters"),
        row("/cloud_init/ssh_keys", json!(["Alice"]), "cloud_init.ssh_keys[0]", "the name of an object"),
        row("/cloud_init/ssh_keys", json!(many), "cloud_init.ssh_keys", "at most 32 elements"),
        row("/cloud_init/user_data", json!("a\u{1}"), "cloud_init.user_data", "without control characters"),
        row("/cloud_init/user_data", json!(long), "cloud_init.user_data", "at most 32 KiB"),
        row("/cloud_init/network_data", json!("a\u{1}"), "cloud_init.network_data", "without control"),
        row("/cloud_init/network_data", json!(long), "cloud_init.network_data", "at most 32 KiB"),
        row("/cloud_init", secret("Web", "k"), "cloud_init.user_data_secret.name", "the name of a Secret"),
        row("/cloud_init", secret("web", "a/b"), "cloud_init.user_data_secret.key", "a key of the Secret"),
        row("/cloud_init", network("Web", "k"), "cloud_init.network_data_secret.name", "name of a Secret"),
        row("/cloud_init", network("web", ""), "cloud_init.network_data_secret.key", "a key of the Secret"),
        row(
            "/cloud_init/user_data_secret",
            json!({"name": "web", "key": "k"}),
            "cloud_init.user_data",
            "Keep one",
        ),
        row(
            "/cloud_init",
            json!({"user_data": "x", "user_data_wo": "y", "user_data_wo_version": 1}),
            "cloud_init.user_data",
            "Keep one of them",
        ),
        row(
            "/cloud_init/network_data_wo",
            json!("x"),
            "cloud_init.network_data_wo_version",
            "belong together",
        ),
        row(
            "/cloud_init/user_data_wo_version",
            json!(1),
            "cloud_init.user_data_wo_version",
            "belong together",
        ),
        row("/cloud_init/network_data_wo_version", json!(1), "cloud_init.network_data_wo_version", "belong"),
    ]
}

fn for_selectors() -> Vec<Row> {
    let labels =
        |count: usize| Json::Object((0..count).map(|index| (format!("l{index}"), json!("v"))).collect());
    vec![
        row("/placement/node_selector", labels(17), "placement.node_selector", "at most 16 elements"),
        row(
            "/placement/node_selector",
            json!({("k".repeat(318)): "v"}),
            "placement.node_selector",
            "keys of labels, of at most 317 characters",
        ),
        row(
            "/placement/node_selector",
            json!({"zone": "v".repeat(64)}),
            "placement.node_selector[\"zone\"]",
            "at most 63 characters",
        ),
    ]
}

fn for_images() -> Vec<Row> {
    let http = |url: &str| json!({"http": {"url": url}});
    let file = |path: &str| json!({"http": null, "file": {"path": path}});
    vec![
        row("/digest", json!("sha256:AA"), "digest", "64 lower-case hexadecimal digits"),
        row("/format", json!("vmdk"), "format", "qcow2, raw"),
        row(
            "/prefetch",
            json!({"node_selector": {"zone": "v".repeat(64)}}),
            "prefetch.node_selector[\"zone\"]",
            "at most 63 characters",
        ),
        row("/source", json!({}), "source", "Exactly one of http, file"),
        row("/source/http/url", json!("ftp://example.org/a"), "source.http.url", "http:// or https://"),
        row("/source", http("https://me@example.org/a"), "source.http.url", "credentials"),
        row("/source", http(&format!("https://a/{}", "b".repeat(2048))), "source.http.url", "at most 2048"),
        row("/source", file("images/a.qcow2"), "source.file.path", "absolute"),
        row("/source", file("/srv/../etc"), "source.file.path", "without '..'"),
    ]
}

fn for_networks() -> Vec<Row> {
    let rule = "no host bits set";
    vec![
        row("", json!({"name": "lan"}), "", "Exactly one of nat, isolated, bridge"),
        row("/isolated", json!({"subnet": "10.9.0.0/24"}), "", "Exactly one of nat, isolated, bridge"),
        row("/nat/subnet", json!("10.20.0.1/24"), "nat.subnet", rule),
        row("/nat/subnet", json!("fd00::/64"), "nat.subnet", rule),
        row("", json!({"name": "lan", "isolated": {"subnet": "10.0.0.0/8"}}), "isolated.subnet", rule),
    ]
}

fn for_bridges() -> Vec<Row> {
    vec![
        row("/bridge/name", json!("br 0"), "bridge.name", "such as br0"),
        row("/bridge/name", json!("b".repeat(16)), "bridge.name", "1 to 15 characters"),
        row("/bridge/vlan", json!(0), "bridge.vlan", "1 to 4094"),
        row("/bridge/vlan", json!(4095), "bridge.vlan", "1 to 4094"),
    ]
}

fn for_keys() -> Vec<Row> {
    vec![
        row("/public_key", json!("-----BEGIN OPENSSH PRIVATE KEY-----"), "public_key", "the .pub file"),
        row("/public_key", json!(format!("{KEY}\n")), "public_key", "trimspace"),
        row("/public_key", json!("ssh-dss AAAA"), "public_key", "one line in OpenSSH form"),
        row("/public_key", json!(""), "public_key", "one line in OpenSSH form"),
    ]
}

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0VQmXWqCwdWxYF3ygdMzyLUOxJ7HpPlHqYUzrDvC4n alice";

fn image() -> Json {
    let digest = format!("sha256:{}", "a".repeat(64));
    json!({"name": "debian", "source": {"http": {"url": "https://example.org/a.qcow2"}}, "digest": digest, "format": "qcow2"})
}

#[test]
fn each_invalid_value_is_told_at_its_attribute_with_the_rule() {
    check::<VirtualMachine>(&full_machine(), &for_all());
    check::<VirtualMachine>(&full_machine(), &for_machines());
    check::<VirtualMachine>(&full_machine(), &for_selectors());
    check::<Image>(&image(), &for_images());
    check::<Network>(&json!({"name": "lan", "nat": {"subnet": "10.20.0.0/24"}}), &for_networks());
    check::<Network>(&json!({"name": "lan", "bridge": {"name": "br0", "vlan": 7}}), &for_bridges());
    check::<SshKey>(&json!({"name": "alice", "public_key": KEY}), &for_keys());
}

#[test]
fn every_attribute_that_the_crd_has_a_rule_for_has_a_row() {
    let mut machines = for_machines();
    machines.extend(for_selectors());
    machines
        .extend(["", "/cloud_init/user_data_secret/name", "/cloud_init/user_data_secret/key"].map(wholly));
    machines
        .extend(["/cloud_init/network_data_secret/name", "/cloud_init/network_data_secret/key"].map(wholly));
    covers::<VirtualMachine>(&machines);
    let mut images = for_images();
    images.push(wholly("/source/file/path"));
    images.push(wholly("/prefetch/node_selector"));
    covers::<Image>(&images);
    let mut networks = for_networks();
    networks.extend(for_bridges());
    networks.push(wholly("/isolated/subnet"));
    covers::<Network>(&networks);
    covers::<SshKey>(&for_keys());
}

/// Of an attribute whose row sets what is around it.
fn wholly(pointer: &'static str) -> Row {
    row(pointer, Json::Null, "", "")
}

#[test]
fn a_name_of_other_kinds_may_have_dots() {
    assert_eq!(said(&Managed::<Image>::new(), &put(image(), "/name", "debian.13".into())), []);
}
