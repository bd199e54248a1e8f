use holdfast_api::{
    HypervisorNode, NodeEnrolment, SSHKey, VirtualMachine, VirtualMachineImage, VirtualMachineNetwork,
};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::rbac::v1::Role;
use kube::ResourceExt;
use proptest::prelude::*;

use super::*;

fn read<K: Resource + Default + DeserializeOwned>(value: Value) -> Read<K> {
    serde_json::from_value::<Raw>(value).unwrap().into()
}

fn machine(change: impl FnOnce(&mut Value)) -> Read<VirtualMachine> {
    let mut value = json!({
        "metadata": {"name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "7"},
        "spec": {
            "cpu": 2, "memory": "1Gi", "disks": [{"name": "root", "size": "10Gi", "blank": {}}],
            "cloudInit": {"userDataSecret": {"name": "seed", "key": "user-data"}},
        },
        "status": {"nodeName": "edge-1", "conditions": [
            {"type": "Ready", "status": "True", "reason": "Up", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"},
        ]},
    });
    change(&mut value);
    read(value)
}

#[test]
fn an_object_is_read_whole() {
    assert!(machine(|_| ()).faults.is_empty());
}

#[test]
fn the_book_keeping_of_apply_makes_nothing_unreadable() {
    let bent =
        machine(|value| value["metadata"]["managedFields"] = json!([{"time": "9999-12-31T00:00:00Z"}]));
    assert_eq!(bent, machine(|_| ()));
}

#[test]
fn what_does_not_decode_is_named_and_the_rest_is_read() {
    let Read { object: vm, faults } = machine(|value| {
        value["status"]["conditions"][0]["lastTransitionTime"] = json!("2024-01-01T00:00:00+99:99");
        value["spec"]["runStrategy"] = json!("OnFullMoon");
        value["spec"]["cpu"] = json!("many");
        value["spec"]["disks"][0]["size"] = json!(true);
    });
    let status = vm.status.unwrap();
    assert_eq!((status.node_name.as_str(), status.conditions[0].type_.as_str()), ("edge-1", "Ready"));
    assert_eq!(vm.spec.memory.0, "1Gi");
    assert_eq!(vm.spec.cloud_init.user_data_secret.unwrap().name, "seed");
    for field in ["spec.cpu", "spec.runStrategy", "spec.disks", "status.conditions[0].lastTransitionTime"] {
        assert!(faults.touch(field), "{field} is not among: {faults}");
    }
    assert!(!faults.touch("spec.memory") && !faults.touch("status.nodeName") && !faults.touch("metadata"));
}

#[test]
fn a_thousand_faults_cost_no_more_than_a_few() {
    let Read { object: vm, faults } = machine(|value| {
        value["status"]["conditions"] = (0..1000).map(|number| json!({"type": number})).collect();
    });
    assert_eq!((vm.status.unwrap().node_name.as_str(), vm.spec.cpu), ("edge-1", 2));
    assert!(faults.touch("status.conditions"));
}

#[test]
fn a_value_of_a_newer_version_hides_nothing_else() {
    let request: Read<NodeEnrolment> = read(json!({
        "metadata": {"name": "edge-1-x"},
        "spec": {"nodeName": "edge-1", "mode": "Later", "csr": "AAAA", "response": ""},
    }));
    assert_eq!(request.object.spec.node_name, "edge-1");
    assert!(request.faults.touch("spec.mode") && !request.faults.touch("spec.csr"), "{}", request.faults);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        ".{0,8}".prop_map(Value::from),
        Just(json!("2024-01-01T00:00:00+99:99")),
        Just(json!("9999-12-31T00:00:00Z")),
    ];
    let key = prop_oneof![
        "[a-z]{1,4}",
        prop::sample::select(vec![
            "metadata",
            "spec",
            "status",
            "conditions",
            "disks",
            "cloudInit",
            "cpu",
            "memory",
            "nodeName",
            "labels",
            "annotations",
            "finalizers",
            "managedFields",
            "deletionTimestamp",
            "rules",
            "renewTime",
            "size",
            "type",
        ])
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(5, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn keeps_its_name<K: Resource + Default + DeserializeOwned>(value: &Value) {
    let read: Read<K> = read(value.clone());
    assert_eq!(read.object.name_any(), "web", "{}", read.faults);
    assert_eq!(read.object.namespace().as_deref(), Some("shop"), "{}", read.faults);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn any_json_at_all_is_read_and_keeps_its_name(mut value in any_json(), metadata in any_json()) {
        if !value.is_object() {
            value = json!({"spec": value.clone(), "status": value});
        }
        value["metadata"] = if metadata.is_object() { metadata } else { json!({"labels": metadata}) };
        value["metadata"]["name"] = json!("web");
        value["metadata"]["namespace"] = json!("shop");
        keeps_its_name::<VirtualMachine>(&value);
        keeps_its_name::<VirtualMachineImage>(&value);
        keeps_its_name::<VirtualMachineNetwork>(&value);
        keeps_its_name::<SSHKey>(&value);
        keeps_its_name::<HypervisorNode>(&value);
        keeps_its_name::<NodeEnrolment>(&value);
        keeps_its_name::<Lease>(&value);
        keeps_its_name::<Role>(&value);
        keeps_its_name::<CertificateSigningRequest>(&value);
    }
}
