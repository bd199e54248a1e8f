use holdfast_api::reference::{ObjectRef, SecretKeyRef};
use proptest::prelude::*;

use super::*;

fn vm(change: impl FnOnce(&mut VirtualMachineSpec)) -> VirtualMachine {
    let mut spec = super::super::plan::model::spec();
    change(&mut spec);
    let mut vm = VirtualMachine::new("web", spec);
    vm.metadata.namespace = Some("shop".into());
    vm.metadata.uid = Some("0f0e0d0c-0b0a-4908-8706-050403020100".into());
    vm.metadata.generation = Some(3);
    vm
}

#[track_caller]
fn refusal(change: impl FnOnce(&mut VirtualMachineSpec)) -> String {
    Desired::try_from(&vm(change)).unwrap_err().to_string()
}

#[test]
fn a_good_spec_is_taken_over_whole() {
    let desired = Desired::try_from(&vm(|_| {})).unwrap();
    assert_eq!((desired.cpu(), desired.memory_mib(), desired.generation()), (1, 256, 3));
    assert_eq!((desired.hostname(), desired.disks().len(), desired.interfaces().len()), ("web", 2, 1));
}

#[test]
fn a_refusal_names_the_field_the_rule_and_nothing_else() {
    let cases: [(&str, String); 22] = [
        ("spec.cpu", refusal(|spec| spec.cpu = 0)),
        ("spec.cpu", refusal(|spec| spec.cpu = i32::MIN)),
        ("spec.cpu", refusal(|spec| spec.cpu = 256)),
        ("spec.memory", refusal(|spec| spec.memory = "banana".into())),
        ("spec.memory", refusal(|spec| spec.memory = "10Ti".into())),
        ("spec.terminationGracePeriodSeconds", refusal(|spec| spec.termination_grace_period_seconds = -1)),
        ("spec.disks must", refusal(|spec| spec.disks.clear())),
        ("spec.disks: each disk", refusal(|spec| spec.disks[1].name = "root".into())),
        ("spec.disks[0].name", refusal(|spec| spec.disks[0].name = "../../etc".into())),
        ("spec.disks[1] must have exactly one source", refusal(|spec| spec.disks[1].blank = None)),
        ("spec.disks[0].size", refusal(|spec| spec.disks[0].size = "65Ti".into())),
        (
            "spec.interfaces[0].macAddress",
            refusal(|spec| spec.interfaces[0].mac_address = "01:00:00:00:00:00".into()),
        ),
        (
            "spec.interfaces[0].addresses[1]",
            refusal(|spec| spec.interfaces[0].addresses = vec!["10.20.0.5".into(), "169.254.169.254".into()]),
        ),
        (
            "spec.interfaces[0].addresses must",
            refusal(|spec| spec.interfaces[0].addresses = vec!["10.20.0.5".into(); 17]),
        ),
        ("spec.interfaces[0].network.name", refusal(|spec| spec.interfaces[0].network.name = "a/b".into())),
        ("spec.cloudInit.hostname", refusal(|spec| spec.cloud_init.hostname = "a b".into())),
        ("spec.restartRequest", refusal(|spec| spec.restart_request = "a\0b".into())),
        ("spec.restartRequest", refusal(|spec| spec.restart_request = "a\u{fffe}b".into())),
        ("spec.cloudInit.reseed", refusal(|spec| spec.cloud_init.reseed = "\u{ffff}".into())),
        ("spec.cloudInit.userData", refusal(|spec| spec.cloud_init.user_data = "#\u{fffe}".into())),
        ("spec.cloudInit.userData", refusal(|spec| spec.cloud_init.user_data = "#\u{85}".into())),
        ("spec.cloudInit.networkData", refusal(|spec| spec.cloud_init.network_data = "#\u{ffff}".into())),
    ];
    for (field, sentence) in cases {
        assert!(sentence.starts_with(field), "{field}: {sentence}");
        assert!(sentence.len() > field.len() + 10, "{field}: {sentence}");
    }
}

#[test]
fn user_data_is_bounded_and_named_once() {
    let long = refusal(|spec| spec.cloud_init.user_data = "x".repeat(32 * 1024 + 1));
    assert!(long.contains("put it into a Secret"), "{long}");
    let both = refusal(|spec| {
        spec.cloud_init.user_data = "#cloud-config".into();
        spec.cloud_init.user_data_secret = Some(SecretKeyRef { name: "s".into(), key: "k".into() });
    });
    assert!(both.contains("both userData and userDataSecret"), "{both}");
    let traversal = refusal(|spec| {
        spec.cloud_init.user_data_secret = Some(SecretKeyRef { name: "s".into(), key: "a/b".into() });
    });
    assert!(traversal.contains("userDataSecret.key"), "{traversal}");
}

#[test]
fn what_must_not_change_is_refused_against_the_last_good_spec() {
    let old = vm(|_| {}).spec;
    let follows = |change: fn(&mut VirtualMachineSpec)| Desired::try_from(&vm(change)).unwrap().follows(&old);
    assert_eq!(follows(|spec| spec.cpu = 4), Ok(()));
    assert_eq!(follows(|spec| spec.disks[1].size = "2Gi".into()), Ok(()));
    assert!(
        follows(|spec| spec.disks[1].size = "512Mi".into())
            .unwrap_err()
            .to_string()
            .contains("cannot shrink")
    );
    assert!(
        follows(|spec| spec.firmware = Firmware::Bios).unwrap_err().to_string().contains("spec.firmware")
    );
    let other = follows(|spec| spec.disks[0].image = Some(ObjectRef { name: "other".into() }));
    assert!(other.unwrap_err().to_string().contains("source of a disk"));
}

proptest! {
    #[test]
    fn no_text_makes_the_constructor_panic(a in ".{0,40}", b in ".{0,40}", n: i32) {
        let _ = Desired::try_from(&vm(|spec| {
            spec.cpu = n;
            spec.memory = holdfast_api::Quantity(a.clone());
            spec.disks[0].name = b.clone();
            spec.disks[1].size = holdfast_api::Quantity(b.clone());
            spec.interfaces[0].mac_address = a.clone();
            spec.interfaces[0].addresses = vec![b.clone()];
            spec.interfaces[0].name = b.clone();
            spec.cloud_init.hostname = a.clone();
            spec.cloud_init.reseed = b;
            spec.cloud_init.network_data = a;
        }));
    }
}
