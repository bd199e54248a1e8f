//! Histories of enrolments, write by write.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use holdfast_api::NodeEnrolment;
use holdfast_api::condition::{self, APPROVED, ISSUED};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::json;

use super::MOST_OF_A_NAME;
use crate::model::Model;
use crate::reconcile;
use crate::write::{Kind, Target, Write};

/// What the cluster answers here: valid for a hundred years, for any request.
pub(crate) const CERTIFICATE: &str = include_str!("edge-1.pem");

fn csr(node: &str, key: &KeyPair) -> String {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, "holdfast:nodes");
    subject.push(DnType::CommonName, format!("holdfast:node:{node}"));
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    STANDARD.encode(params.serialize_request(key).unwrap().der())
}

fn target(name: &str) -> Target {
    Target::cluster(Kind::NodeEnrolment, name)
}

fn asks(model: &mut Model, name: &str, node: &str, key: &KeyPair) {
    let spec = json!({"nodeName": node, "mode": "InsecureDev", "csr": csr(node, key)});
    model.put(target(name), json!({"metadata": {}, "spec": spec}));
}

fn decides(model: &mut Model, name: &str, type_: &str) {
    let condition = json!({"type": type_, "status": "True", "reason": "Person", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    model.objects.get_mut(&target(name)).unwrap()["status"] = json!({"conditions": [condition]});
}

/// A decision on a request that has a status already.
fn decides_as_well(model: &mut Model, name: &str, type_: &str) {
    let before = model.objects[&target(name)]["status"].clone();
    decides(model, name, type_);
    let status = &mut model.objects.get_mut(&target(name)).unwrap()["status"];
    let decision = status["conditions"][0].clone();
    *status = before;
    status["conditions"].as_array_mut().unwrap().push(decision);
}

fn request(model: &Model, name: &str) -> NodeEnrolment {
    serde_json::from_value(model.objects[&target(name)].clone()).unwrap()
}

fn issued(model: &Model, name: &str) -> (bool, String) {
    let status = request(model, name).status.unwrap_or_default();
    let issued = condition::find(&status.conditions, ISSUED).cloned();
    (!status.certificate.is_empty(), issued.map_or(String::new(), |issued| issued.reason))
}

fn run(model: &mut Model) -> Vec<Write> {
    let mut done = Vec::new();
    for _ in 0..30 {
        for write in reconcile::plan(&model.world()) {
            model.write(&write);
            done.push(write);
        }
    }
    done
}

fn open() -> Model {
    let mut model = Model::default();
    model.settings.accept_insecure_dev = true;
    model
}

fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

#[test]
fn a_free_name_is_let_in_and_the_certificate_comes_last() {
    let mut model = open();
    asks(&mut model, "edge-1-a", "edge-1", &key());
    let order: Vec<Kind> = run(&mut model).into_iter().map(|write| write.target.kind).collect();
    assert_eq!(issued(&model, "edge-1-a"), (true, "CertificateIssued".to_owned()));
    let first = |kind| order.iter().position(|found| *found == kind).unwrap();
    let steps = [
        Kind::HypervisorNode,
        Kind::Lease,
        Kind::ClusterRoleBinding,
        Kind::SigningRequest,
        Kind::NodeEnrolment,
    ];
    assert!(steps.windows(2).all(|pair| first(pair[0]) < first(pair[1])), "{order:?}");
}

#[test]
fn a_node_that_says_nonsense_of_itself_is_renewed_all_the_same() {
    for (field, nonsense, reason) in [
        ("status", json!({"orphans": {"uid": 1}}), "CertificateIssued"),
        ("spec", json!({"identity": "nobody"}), "WaitsForApproval"),
    ] {
        let (mut model, key) = (open(), key());
        asks(&mut model, "edge-1-a", "edge-1", &key);
        run(&mut model);
        let node = Target::cluster(Kind::HypervisorNode, "edge-1");
        model.objects.get_mut(&node).unwrap()[field] = nonsense;
        asks(&mut model, "edge-1-b", "edge-1", &key);
        run(&mut model);
        assert_eq!(issued(&model, "edge-1-b").1, reason, "{field}");
    }
}

#[test]
fn a_controller_that_dies_after_any_write_is_finished_by_the_next() {
    let key = key();
    for writes in 0..20 {
        let mut model = open();
        asks(&mut model, "edge-1-a", "edge-1", &key);
        let mut left = writes;
        while left > 0 {
            let plan = reconcile::plan(&model.world());
            if plan.is_empty() {
                break;
            }
            for write in plan.iter().take(left) {
                model.write(write);
                left -= 1;
            }
        }
        run(&mut model);
        assert_eq!(issued(&model, "edge-1-a").1, "CertificateIssued", "after {writes} writes");
        assert_eq!(model.targets(Kind::SigningRequest).len(), 1);
    }
}

#[test]
fn a_cluster_that_does_not_sign_is_named_to_who_waits() {
    let mut model = open();
    asks(&mut model, "edge-1-a", "edge-1", &key());
    run(&mut model);
    let signed = model.targets(Kind::SigningRequest).remove(0);
    let certificate = model.objects.get_mut(&signed).unwrap()["status"]["certificate"].take();
    model.objects.get_mut(&target("edge-1-a")).unwrap()["status"] = json!({});
    run(&mut model);
    assert_eq!(issued(&model, "edge-1-a"), (false, String::new()), "it has just begun to wait");

    model.second += 11;
    run(&mut model);
    assert_eq!(issued(&model, "edge-1-a"), (false, "WaitsForSignature".to_owned()));

    model.objects.get_mut(&signed).unwrap()["status"]["certificate"] = certificate;
    run(&mut model);
    assert_eq!(issued(&model, "edge-1-a"), (true, "CertificateIssued".to_owned()));
}

#[test]
fn a_lease_that_was_deleted_is_made_again() {
    let mut model = open();
    asks(&mut model, "edge-1-a", "edge-1", &key());
    run(&mut model);
    let lease = model.targets(Kind::Lease).remove(0);
    model.delete(&lease);
    assert!(model.targets(Kind::Lease).is_empty());
    run(&mut model);
    assert_eq!(model.targets(Kind::Lease), [lease]);
}

#[test]
fn without_the_flag_a_person_decides() {
    let mut model = Model::default();
    asks(&mut model, "edge-1-a", "edge-1", &key());
    run(&mut model);
    assert_eq!(issued(&model, "edge-1-a"), (false, "WaitsForApproval".to_owned()));
    assert!(model.targets(Kind::HypervisorNode).is_empty());
    decides(&mut model, "edge-1-a", APPROVED);
    run(&mut model);
    assert!(issued(&model, "edge-1-a").0);
}

#[test]
fn the_same_key_is_renewed_and_another_key_waits() {
    let (mut model, first) = (open(), key());
    asks(&mut model, "edge-1-a", "edge-1", &first);
    run(&mut model);
    asks(&mut model, "edge-1-b", "edge-1", &first);
    asks(&mut model, "edge-1-c", "edge-1", &key());
    run(&mut model);
    assert!(issued(&model, "edge-1-b").0);
    assert_eq!(issued(&model, "edge-1-c"), (false, "WaitsForApproval".to_owned()));
    decides(&mut model, "edge-1-c", APPROVED);
    run(&mut model);
    assert!(issued(&model, "edge-1-c").0);
}

#[test]
fn of_two_keys_approved_for_one_name_the_newer_request_counts() {
    let mut model = Model::default();
    for name in ["edge-1-b", "edge-1-a"] {
        asks(&mut model, name, "edge-1", &key());
        decides(&mut model, name, APPROVED);
        model.second += 60;
    }
    let identities = |writes: Vec<Write>| {
        let node = |write: &&Write| {
            write.target.kind == Kind::HypervisorNode && matches!(write.verb, crate::write::Verb::Apply(_))
        };
        writes.iter().filter(node).count()
    };
    assert_eq!(identities(run(&mut model)), 1, "the identity is written once");
    assert!(issued(&model, "edge-1-a").0);
    assert_eq!(issued(&model, "edge-1-b"), (false, "Superseded".to_owned()));
    model.delete(&target("edge-1-a"));
    run(&mut model);
    assert!(issued(&model, "edge-1-b").0);
}

#[test]
fn a_signing_request_that_somebody_else_made_is_named() {
    let mut model = open();
    asks(&mut model, "edge-1-a", "edge-1", &key());
    while model.targets(Kind::SigningRequest).is_empty() {
        for write in reconcile::plan(&model.world()) {
            model.write(&write);
        }
    }
    let made = model.targets(Kind::SigningRequest).remove(0);
    model.objects.get_mut(&made).unwrap()["spec"]["username"] = json!("mallory");
    run(&mut model);
    assert_eq!(issued(&model, "edge-1-a"), (false, "SigningFailed".to_owned()));
    model.objects.remove(&made);
    run(&mut model);
    assert!(issued(&model, "edge-1-a").0, "as the sentence says");
}

#[test]
fn a_rejected_key_is_not_let_in_by_asking_again() {
    let (mut model, first) = (open(), key());
    asks(&mut model, "edge-1-a", "edge-1", &first);
    decides(&mut model, "edge-1-a", condition::REJECTED);
    asks(&mut model, "edge-1-b", "edge-1", &first);
    run(&mut model);
    assert_eq!(issued(&model, "edge-1-a"), (false, "Rejected".to_owned()));
    assert_eq!(issued(&model, "edge-1-b"), (false, "WaitsForApproval".to_owned()));
}

#[test]
fn an_enrolled_key_that_a_person_approved_is_renewed_without_a_person() {
    let (mut model, first) = (Model::default(), key());
    asks(&mut model, "edge-1-a", "edge-1", &first);
    decides(&mut model, "edge-1-a", APPROVED);
    run(&mut model);
    assert!(issued(&model, "edge-1-a").0);
    asks(&mut model, "edge-1-b", "edge-1", &first);
    asks(&mut model, "edge-2-a", "edge-2", &first);
    run(&mut model);
    assert!(issued(&model, "edge-1-b").0, "in every mode");
    assert_eq!(issued(&model, "edge-2-a").1, "WaitsForApproval", "another name is another node");
    // The same after all its requests are gone with their certificates.
    for name in ["edge-1-a", "edge-1-b"] {
        model.delete(&target(name));
    }
    asks(&mut model, "edge-1-c", "edge-1", &first);
    run(&mut model);
    assert!(issued(&model, "edge-1-c").0, "after expiry");
    decides_as_well(&mut model, "edge-1-c", condition::REJECTED);
    asks(&mut model, "edge-1-d", "edge-1", &first);
    run(&mut model);
    assert_eq!(issued(&model, "edge-1-d").1, "WaitsForApproval", "somebody rejected it");
}

#[test]
fn a_rejected_key_stays_rejected_under_every_name_while_the_rejected_request_is_kept() {
    let (mut model, first) = (open(), key());
    asks(&mut model, "edge-1-a", "edge-1", &first);
    decides(&mut model, "edge-1-a", condition::REJECTED);
    asks(&mut model, "edge-2-a", "edge-2", &first);
    run(&mut model);
    assert_eq!(issued(&model, "edge-2-a"), (false, "WaitsForApproval".to_owned()));
    model.delete(&target("edge-1-a"));
    run(&mut model);
    assert!(issued(&model, "edge-2-a").0, "nobody remembers");
}

#[test]
fn a_rejected_request_with_the_key_of_somebody_else_turns_nobody_away() {
    let (mut model, first) = (open(), key());
    asks(&mut model, "edge-1-a", "edge-1", &first);
    run(&mut model);
    // Copied from the request of edge-1, so it is signed for another name.
    let spec = json!({"nodeName": "edge-2", "mode": "InsecureDev", "csr": csr("edge-1", &first)});
    model.put(target("edge-2-a"), json!({"metadata": {}, "spec": spec}));
    decides(&mut model, "edge-2-a", condition::REJECTED);
    asks(&mut model, "edge-1-b", "edge-1", &first);
    run(&mut model);
    assert!(issued(&model, "edge-1-b").0);
}

#[test]
fn a_rejected_key_stays_out_when_the_requests_of_its_time_are_gone() {
    let (mut model, first) = (open(), key());
    asks(&mut model, "edge-1-a", "edge-1", &first);
    decides(&mut model, "edge-1-a", condition::REJECTED);
    asks(&mut model, "edge-2-a", "edge-2", &key());
    run(&mut model);
    decides_as_well(&mut model, "edge-2-a", condition::REJECTED);
    model.second = 110 * 365 * 24 * 3600;
    run(&mut model);
    asks(&mut model, "edge-1-b", "edge-1", &first);
    run(&mut model);
    assert_eq!(issued(&model, "edge-1-b"), (false, "WaitsForApproval".to_owned()));
    assert!(model.objects.contains_key(&target("edge-2-a")), "rejected after it was let in");
}

#[test]
fn a_removed_node_must_be_let_in_anew() {
    let (mut model, first) = (open(), key());
    asks(&mut model, "edge-1-a", "edge-1", &first);
    run(&mut model);
    model.delete(&Target::cluster(Kind::HypervisorNode, "edge-1"));
    run(&mut model);
    assert!(model.targets(Kind::HypervisorNode).is_empty());
    assert!(model.targets(Kind::Role).is_empty() && model.targets(Kind::Lease).is_empty());
    asks(&mut model, "edge-1-b", "edge-1", &first);
    run(&mut model);
    assert_eq!(issued(&model, "edge-1-b"), (false, "WaitsForApproval".to_owned()));
    assert!(model.targets(Kind::HypervisorNode).is_empty());
}

#[test]
fn a_finished_request_is_never_acted_on_again_and_goes_with_its_certificate() {
    let mut model = open();
    asks(&mut model, "edge-1-a", "edge-1", &key());
    run(&mut model);
    model.targets(Kind::SigningRequest).iter().for_each(|request| drop(model.objects.remove(request)));
    assert_eq!(reconcile::plan(&model.world()), Vec::new());
    model.second = 110 * 365 * 24 * 3600;
    run(&mut model);
    assert!(model.targets(Kind::NodeEnrolment).is_empty());
}

#[test]
fn a_name_that_would_share_another_nodes_grants_is_refused() {
    let mut model = open();
    asks(&mut model, "edge-vms-a", "edge-vms", &key());
    run(&mut model);
    assert_eq!(issued(&model, "edge-vms-a"), (false, "InvalidRequest".to_owned()));
}

#[test]
fn a_request_nobody_decides_goes_after_a_week() {
    let mut model = Model::default();
    asks(&mut model, "edge-1-a", "edge-1", &key());
    run(&mut model);
    model.second = 8 * 24 * 3600;
    run(&mut model);
    assert!(model.targets(Kind::NodeEnrolment).is_empty());
}

#[test]
fn a_clock_that_is_behind_deletes_no_request() {
    let mut model = Model::default();
    asks(&mut model, "edge-1-a", "edge-1", &key());
    model.second = -8 * 24 * 3600;
    run(&mut model);
    assert_eq!(issued(&model, "edge-1-a"), (false, "WaitsForApproval".to_owned()));
}

/// More than are looked at in one pass.
const FLOOD: usize = 100;

#[test]
fn whoever_floods_with_requests_keeps_no_node_out() {
    let (mut model, first, other) = (open(), key(), key());
    asks(&mut model, "edge-1-a", "edge-1", &first);
    run(&mut model);
    let (waits, late) = (csr("edge-1", &other), csr("edge-2", &other));
    for number in 0..FLOOD {
        let mut flood = |node: &str, csr: &str| {
            let spec = json!({"nodeName": node, "mode": "InsecureDev", "csr": csr});
            model.put(target(&format!("{node}-0{number}")), json!({"metadata": {}, "spec": spec}));
        };
        flood("edge-1", &waits);
        flood(&format!("edge-{number}x"), &late);
    }
    model.second += 60;
    asks(&mut model, "edge-1-b", "edge-1", &first);
    asks(&mut model, "edge-9-a", "edge-9", &key());
    run(&mut model);
    assert!(issued(&model, "edge-1-b").0, "a renewal");
    assert!(issued(&model, "edge-9-a").0, "a free name");
    assert_eq!(issued(&model, "edge-7x-07").1, "InvalidRequest");
}

#[test]
fn one_name_takes_no_more_than_its_share_of_a_pass() {
    let mut model = Model::default();
    let csr = csr("edge-1", &key());
    for number in 0..FLOOD {
        let spec = json!({"nodeName": "edge-1", "mode": "InsecureDev", "csr": csr});
        model.put(target(&format!("edge-1-{number}")), json!({"metadata": {}, "spec": spec}));
    }
    assert_eq!(reconcile::plan(&model.world()).len(), MOST_OF_A_NAME);
    decides(&mut model, "edge-1-99", APPROVED);
    run(&mut model);
    assert!(issued(&model, "edge-1-99").0);
}

#[test]
fn a_node_that_was_made_and_has_no_identity_gets_no_right() {
    let mut model = open();
    let made = Target::cluster(Kind::HypervisorNode, "edge-1");
    model.put(made, json!({"metadata": {"finalizers": ["holdfast.dev/controller"]}, "spec": {}}));
    run(&mut model);
    for kind in [Kind::Role, Kind::ClusterRole, Kind::RoleBinding, Kind::ClusterRoleBinding, Kind::Lease] {
        assert_eq!(model.targets(kind), [], "{kind:?}");
    }
    asks(&mut model, "edge-1-a", "edge-1", &key());
    run(&mut model);
    assert!(issued(&model, "edge-1-a").0);
}

#[test]
fn a_rejected_name_of_a_grant_rejects_the_key_too() {
    let (mut model, key) = (open(), key());
    asks(&mut model, "edge-vms-a", "edge-vms", &key);
    decides(&mut model, "edge-vms-a", condition::REJECTED);
    asks(&mut model, "edge-1-a", "edge-1", &key);
    run(&mut model);
    assert_eq!(issued(&model, "edge-1-a"), (false, "WaitsForApproval".to_owned()));
}

#[test]
fn what_somebody_labels_as_a_grant_keeps_no_node_from_its_removal() {
    let mut model = open();
    asks(&mut model, "edge-1-a", "edge-1", &key());
    run(&mut model);
    let node = Target::cluster(Kind::HypervisorNode, "edge-1");
    let labels = json!({"holdfast.dev/node": "edge-1"});
    let evil = Target::in_namespace(Kind::Role, "shop", "evil");
    model.put(evil.clone(), json!({"metadata": {"labels": labels}, "rules": []}));
    let held = Target::in_namespace(Kind::Role, "shop", "holdfast-node-edge-1-vms");
    let metadata = json!({"labels": labels, "finalizers": ["example.org/mine"],
        "deletionTimestamp": "2026-01-01T00:00:00Z"});
    model.put(held, json!({"metadata": metadata, "rules": []}));
    model.objects.get_mut(&node).unwrap()["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let writes = run(&mut model);
    assert!(writes.iter().all(|write| write.target != evil), "it is not ours to withdraw");
    let finalizers =
        &model.objects.get(&node).map_or(json!([]), |node| node["metadata"]["finalizers"].clone());
    assert_eq!(finalizers, &json!([]), "the node stays for ever");
}
