//! The image read back by the tools an operator would use, and by `PyYAML` as cloud-init does.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;

fn seed(user_data: Option<&[u8]>) -> Seed {
    Seed {
        meta_data: MetaData {
            instance_id: "6b1c5a0e-0001".to_owned(),
            hostname: "web".to_owned(),
            public_keys: vec!["ssh-ed25519 AAAA alice@example: no".to_owned(), "ssh-rsa BBBB böb".to_owned()],
        },
        user_data: user_data.map(|bytes| Secret::new(bytes.to_vec())),
        network: Network::Dhcp(vec![nic("lan", "52:54:00:00:00:01")]),
    }
}

fn nic(name: &str, mac: &str) -> Nic {
    Nic { name: name.to_owned(), mac: mac.to_owned() }
}

fn tool(program: &str, package: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|_| panic!("peer missing: {package}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// What `PyYAML`, the reader inside cloud-init, makes of a document, as JSON.
fn py_yaml(text: &str) -> serde_json::Value {
    let program = "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin.read()), sys.stdout)";
    let mut child = Command::new("python3")
        .args(["-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("peer missing: python3-yaml");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "peer missing: python3-yaml, or unreadable: {text}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_image_is_sound_labelled_and_holds_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seed.img");
    seed(Some(b"#cloud-config\n")).write(&path).unwrap();
    let image = path.to_str().unwrap();
    tool("fsck.vfat", "dosfstools", &["-n", image]);
    let found = String::from_utf8(tool("blkid", "util-linux", &["-p", "-o", "export", image])).unwrap();
    assert!(found.contains("LABEL=CIDATA") && found.contains("TYPE=vfat"), "{found}");
    assert_eq!(tool("mtype", "mtools", &["-i", image, "::user-data"]), b"#cloud-config\n");
    let meta_data = String::from_utf8(tool("mtype", "mtools", &["-i", image, "::meta-data"])).unwrap();
    assert!(meta_data.contains("6b1c5a0e-0001"));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 1 << 20);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let bytes = || seed(Some(b"x")).render().unwrap().expose_to_seed().clone();
    assert_eq!(bytes(), bytes());
}

#[test]
fn user_data_is_stored_byte_for_byte_whatever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seed.img");
    for user_data in [Vec::new(), vec![0, 255, 13, 10], vec![b'x'; 1 << 20], vec![b'y'; 3 << 20]] {
        seed(Some(&user_data)).write(&path).unwrap();
        let image = path.to_str().unwrap();
        tool("fsck.vfat", "dosfstools", &["-n", image]);
        assert_eq!(tool("mtype", "mtools", &["-i", image, "::user-data"]), user_data);
    }
    assert!(matches!(seed(Some(&vec![0; 4 << 20])).write(&path), Err(Error::TooLarge)));
}

#[test]
fn without_user_data_the_file_is_there_and_empty() {
    let files = seed(None).files();
    assert!(files.iter().any(|(name, bytes)| *name == "user-data" && bytes.expose_to_seed().is_empty()));
}

#[test]
fn meta_data_reads_back_in_yaml_1_1() {
    let read = py_yaml(&text::meta_data(&seed(None).meta_data));
    assert_eq!(read["local-hostname"], "web");
    assert_eq!(
        read["public-keys"],
        serde_json::json!(["ssh-ed25519 AAAA alice@example: no", "ssh-rsa BBBB böb"])
    );
}

#[test]
fn one_interface_is_left_to_cloud_init_and_several_all_ask_by_dhcp() {
    assert_eq!(text::network_config(&[nic("lan", "52:54:00:00:00:01")]), None);
    let nics = [nic("lan", "52:54:00:AA:00:01"), nic("a-very-long-network", "52:54:00:aa:00:02")];
    let read = py_yaml(&text::network_config(&nics).unwrap());
    let lan = &read["ethernets"]["lan"];
    assert_eq!(lan["match"]["macaddress"], "52:54:00:aa:00:01");
    assert_eq!(
        (&lan["dhcp4"], &lan["set-name"], &lan["optional"]),
        (&true.into(), &"lan".into(), &false.into())
    );
    assert_eq!(read["ethernets"]["nic1"]["optional"], true);
}

#[test]
fn no_two_interfaces_get_the_same_name() {
    let nics = [
        nic("nic1", "52:54:00:00:00:01"),
        nic("a-very-long-network", "52:54:00:00:00:02"),
        nic("lo", "52:54:00:00:00:03"),
        nic("another-long-network", "52:54:00:00:00:04"),
    ];
    let read = py_yaml(&text::network_config(&nics).unwrap());
    let macs: std::collections::BTreeMap<_, _> = read["ethernets"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, one)| (name.as_str(), one["match"]["macaddress"].as_str().unwrap()))
        .collect();
    let expected = ["nic1", "nic2", "nic3", "nic4"].into_iter().zip(nics.iter().map(|nic| nic.mac.as_str()));
    assert_eq!(macs, expected.collect());
}

#[test]
fn network_data_of_the_user_is_stored_as_given() {
    let given = Seed { network: Network::Given(Secret::new(b"version: 1".to_vec())), ..seed(None) };
    assert!(
        given
            .files()
            .iter()
            .any(|(name, bytes)| *name == "network-config" && bytes.expose_to_seed() == b"version: 1")
    );
}

#[test]
fn words_that_yaml_1_1_would_turn_into_something_else_stay_text() {
    let words = [
        "no",
        "on",
        "~",
        "1e3",
        "0x10",
        "12:30:45",
        "2001-01-01",
        "",
        "- a",
        "a: b",
        "# c",
        "\u{1f600}\n\u{7f}\u{85}",
    ];
    let keys: Vec<String> = words.iter().map(|word| format!("k {word} k")).collect();
    let meta_data = MetaData { instance_id: "no".into(), hostname: "1e3".into(), public_keys: keys.clone() };
    let read = py_yaml(&text::meta_data(&meta_data));
    assert_eq!((&read["instance-id"], &read["local-hostname"]), (&"no".into(), &"1e3".into()));
    assert_eq!(read["public-keys"], serde_json::json!(keys));
}

proptest! {
    #[test]
    fn any_text_survives_a_yaml_reader(hostname in ".{0,40}", key in "\\PC{1,40}") {
        let meta_data = MetaData { instance_id: "i".into(), hostname, public_keys: vec![key] };
        let text = text::meta_data(&meta_data);
        let read: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        prop_assert_eq!(read["local-hostname"].as_str(), Some(meta_data.hostname.as_str()));
        prop_assert_eq!(read["public-keys"][0].as_str(), Some(meta_data.public_keys[0].trim()));
    }
}
