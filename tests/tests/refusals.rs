//! Bad input that the schema and its rules can know is answered at once, by the API server, in a sentence.

use std::path::{Path, PathBuf};

use anyhow::Result;
use holdfast_tests::control_plane::ControlPlane;
use holdfast_tests::machine::tiny;
use holdfast_tests::{files, install, site_folder};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

struct Counter {
    _plane: ControlPlane,
    folder: PathBuf,
    kubeconfig: PathBuf,
}

async fn counter() -> Result<&'static Counter> {
    static COUNTER: OnceCell<Counter> = OnceCell::const_new();
    let open = async || -> Result<Counter> {
        let folder = site_folder::fresh("refusals")?;
        let plane = ControlPlane::start(&folder).await?;
        install::install(&plane.kubeconfig(), &plane.client().await?, &folder).await?;
        Ok(Counter { kubeconfig: plane.kubeconfig(), _plane: plane, folder })
    };
    COUNTER.get_or_try_init(open).await
}

impl Counter {
    /// What a person reads who hands in this object; `None` when it is accepted.
    fn hand_in(&self, object: &Value) -> Result<Option<String>> {
        let file = self.folder.join(format!("{:?}.json", std::thread::current().id()));
        files::write(&file, object.to_string())?;
        let words = ["create", "--dry-run=server", "--filename", &file.display().to_string()];
        Ok(install::kubectl(&self.kubeconfig, &words).err().map(|error| format!("{error:#}")))
    }

    /// What a person reads who changes this object so; `None` when the change is accepted.
    fn change(&self, subresource: &str, object: &str, change: &Value) -> Option<String> {
        let file = self.folder.join(format!("{:?}.patch", std::thread::current().id())).display().to_string();
        if let Err(error) = files::write(Path::new(&file), change.to_string()) {
            return Some(format!("{error:#}"));
        }
        let mut words = vec!["patch", object, "--type=merge", "--dry-run=server", "--patch-file", &file];
        if !subresource.is_empty() {
            words.extend(["--subresource", subresource]);
        }
        install::kubectl(&self.kubeconfig, &words).err().map(|error| format!("{error:#}"))
    }

    fn check(&self, cases: &[(&str, Value, &str)]) -> Result<()> {
        for (what, object, sentence) in cases {
            let refusal = self.hand_in(object)?;
            let refusal = refusal.unwrap_or_else(|| "accepted".to_owned());
            assert!(refusal.contains(sentence), "{what}: expected {sentence:?}, got: {refusal}");
        }
        Ok(())
    }
}

fn machine(field: &str, value: Value) -> Value {
    tiny("web").with(field, value).object()
}

fn disk(disk: &Value) -> Value {
    machine("disks", json!([disk]))
}

fn addressed(address: &str) -> Value {
    machine("interfaces", json!([{"name": "lan", "network": {"name": "n"}, "addresses": [address]}]))
}

fn named(name: &str) -> Value {
    tiny(name).object()
}

fn image(spec: &Value) -> Value {
    json!({"apiVersion": "holdfast.dev/v1alpha1", "kind": "VirtualMachineImage", "metadata": {"name": "i"}, "spec": spec})
}

fn network(spec: &Value) -> Value {
    json!({"apiVersion": "holdfast.dev/v1alpha1", "kind": "VirtualMachineNetwork", "metadata": {"name": "n"}, "spec": spec})
}

fn ssh_key(public_key: &str) -> Value {
    let spec = json!({ "publicKey": public_key });
    json!({"apiVersion": "holdfast.dev/v1alpha1", "kind": "SSHKey", "metadata": {"name": "k"}, "spec": spec})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_virtual_machine_is_accepted() -> Result<()> {
    assert_eq!(counter().await?.hand_in(&tiny("web").object())?, None);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_virtual_machine_is_refused_in_a_sentence() -> Result<()> {
    let cloud_init = |field: &str, value: Value| tiny("web").cloud_init(field, value).object();
    counter().await?.check(&[
        ("unknown field", machine("cpus", json!(2)), "unknown field \"spec.cpus\""),
        ("no processor", machine("cpu", json!(0)), "cpu must be between 1 and 255 virtual processors"),
        (
            "fruit for memory",
            machine("memory", json!("banana")),
            "memory must be a whole number of Mi, Gi or Ti",
        ),
        (
            "a processor too many",
            machine("cpu", json!(256)),
            "cpu must be between 1 and 255 virtual processors",
        ),
        (
            "10 TiB",
            machine("memory", json!("10Ti")),
            "memory must be a whole number of Mi, Gi or Ti between 64Mi and 4Ti",
        ),
        ("no disk", machine("disks", json!([])), "spec.disks"),
        ("no source", disk(&json!({"name": "root", "size": "1Gi"})), "exactly one source: image or blank"),
        (
            "a control character",
            cloud_init("userData", json!("a\u{1}b")),
            "userData must be text without control characters",
        ),
        (
            "a control character beyond ASCII",
            cloud_init("networkData", json!("a\u{85}b")),
            "networkData must be text",
        ),
        ("what XML cannot hold", cloud_init("userData", json!("a\u{ffff}b")), "userData must be text"),
        (
            "DEL and its like",
            cloud_init("reseed", json!("a\u{9f}b")),
            "reseed must not contain control characters",
        ),
        (
            "fewer characters than bytes",
            cloud_init("userData", json!("\u{e9}".repeat(16 * 1024 + 1))),
            "userData must be at most 32 KiB",
        ),
        ("NUL", cloud_init("hostname", json!("a\u{0}b")), "hostname must be letters, digits and '-'"),
        (
            "too much user-data",
            cloud_init("userData", json!("x".repeat(32 * 1024 + 1))),
            "spec.cloudInit.userData",
        ),
        (
            "an address in other clothes",
            addressed("::ffff:10.0.0.1"),
            "addresses must be single unicast addresses",
        ),
        (
            "the address of a cloud's metadata",
            addressed("169.254.169.254"),
            "none of them loopback or link-local",
        ),
        ("an address written another way", addressed("2001:DB8::5"), "in their shortest form"),
        ("name of 64", named(&"n".repeat(64)), "use at most 63 characters"),
        ("a dot in the name", named("a.b"), "use letters, digits and '-', no '.'"),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_user_data_at_the_length_limit_are_accepted() -> Result<()> {
    let counter = counter().await?;
    let fullest = tiny("web").cloud_init("userData", json!("\u{e9}".repeat(16 * 1024))).object();
    assert_eq!(counter.hand_in(&fullest)?, None);
    assert_eq!(counter.hand_in(&named(&"n".repeat(63)))?, None);
    let longest = json!({"name": "d".repeat(20), "size": "1Gi", "image": {"name": "i"}});
    assert_eq!(counter.hand_in(&disk(&longest))?, None);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_image_network_or_key_is_refused_in_a_sentence() -> Result<()> {
    let digest = format!("sha256:{}", "0".repeat(64));
    let http =
        |url: &str| image(&json!({"source": {"http": {"url": url}}, "digest": digest, "format": "qcow2"}));
    let undigested = image(&json!({"source": {"http": {"url": "http://h/i"}}, "format": "qcow2"}));
    let file = json!({"source": {"file": {"path": "/srv/../etc/passwd"}}, "digest": digest, "format": "raw"});
    counter().await?.check(&[
        ("no digest", undigested, "spec.digest"),
        ("no host", http("http:///i"), "url must start with http:// or https://, name a host"),
        ("credentials", http("http://u:p@h/i"), "or credentials"),
        ("a way out", image(&file), "path must be absolute, without '..'"),
        (
            "two kinds of network",
            network(&json!({"nat": {}, "isolated": {}})),
            "exactly one of nat, isolated and bridge",
        ),
        ("host bits", network(&json!({"nat": {"subnet": "10.0.0.1/24"}})), "subnet must be an IPv4 network"),
        ("a bridge too long", network(&json!({"bridge": {"name": "b".repeat(16)}})), "spec.bridge.name"),
        ("no key", ssh_key("hello"), "publicKey must be one line in OpenSSH form"),
    ])
}

/// An object of each kind that the schema accepts.
fn one_of_each_kind() -> Vec<Value> {
    let cluster = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "holdfast.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    let digest = format!("sha256:{}", "0".repeat(64));
    vec![
        tiny("web").object(),
        image(&json!({"source": {"http": {"url": "http://h/i"}}, "digest": digest, "format": "raw"})),
        network(&json!({"nat": {}})),
        ssh_key("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"),
        cluster("HypervisorNode", "edge-1", json!({})),
        cluster(
            "NodeEnrolment",
            "edge-1-a",
            json!({"nodeName": "edge-1", "mode": "InsecureDev", "csr": "AAAA"}),
        ),
    ]
}

/// The metadata that is just allowed, and what is one too many of each with its sentence.
fn metadata() -> (Value, Vec<(Value, &'static str)>) {
    let many = |count: usize, text: fn(usize) -> String| (0..count).map(text).collect::<Vec<_>>();
    let labels =
        |count| many(count, |n| format!("l{n}")).into_iter().map(|key| (key, json!("v"))).collect::<Value>();
    let finalizers = |count| json!(many(count, |n| format!("example.org/f{n}")));
    let owner = |n| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": format!("u{n}")});
    let owners = |count: usize| (0..count).map(owner).collect::<Value>();
    let annotations = |bytes: usize| {
        let kubectls = "k".repeat(100 << 10);
        json!({"a": "\u{e9}".repeat((bytes - 1) / 2), "kubectl.kubernetes.io/last-applied-configuration": kubectls})
    };
    let most = json!({"labels": labels(64), "finalizers": finalizers(16), "ownerReferences": owners(16),
        "annotations": annotations((64 << 10) - 1)});
    let beyond = vec![
        (json!({ "labels": labels(65) }), "an object has at most 64 labels"),
        (json!({ "finalizers": finalizers(17) }), "an object has at most 16 finalizers"),
        (json!({ "ownerReferences": owners(17) }), "an object has at most 16 owner references"),
        (
            json!({ "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "n".repeat(17 << 10), "uid": "u"}] }),
            "the owner references of an object have at most 16 KiB together",
        ),
        (
            json!({ "annotations": annotations((64 << 10) + 1) }),
            "an object has at most 64 KiB of annotations",
        ),
    ];
    (most, beyond)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_bounds_the_metadata_of_every_kind_of_ours() -> Result<()> {
    let counter = counter().await?;
    let (most, beyond) = metadata();
    let with = |mut object: Value, more: &Value| {
        for (key, value) in more.as_object().into_iter().flatten() {
            object["metadata"][key] = value.clone();
        }
        object
    };
    for object in one_of_each_kind() {
        let kind = object["kind"].clone();
        assert_eq!(counter.hand_in(&with(object.clone(), &most))?, None, "{kind} with all that is allowed");
        for (more, sentence) in &beyond {
            let refusal =
                counter.hand_in(&with(object.clone(), more))?.unwrap_or_else(|| "accepted".to_owned());
            assert!(refusal.contains(sentence), "{kind}: expected {sentence:?}, got: {refusal}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_may_not_take_metadata_beyond_its_bounds() -> Result<()> {
    let counter = counter().await?;
    let mut key = ssh_key("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl");
    key["metadata"]["name"] = json!("grows");
    let file = counter.folder.join("grows.json");
    files::write(&file, key.to_string())?;
    install::kubectl(&counter.kubeconfig, &["create", "--filename", &file.display().to_string()])?;
    for (more, sentence) in metadata().1 {
        let refusal = counter.change("", "hkey/grows", &json!({ "metadata": more }));
        let refusal = refusal.unwrap_or_else(|| "accepted".to_owned());
        assert!(refusal.contains(sentence), "expected {sentence:?}, got: {refusal}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selector_beyond_what_a_label_can_be_is_refused() -> Result<()> {
    let selector = |selector: Value| machine("placement", json!({ "nodeSelector": selector }));
    let many: Value = (0..17).map(|n| (format!("l{n}"), json!("v"))).collect();
    counter().await?.check(&[
        ("too many labels", selector(many), "spec.placement.nodeSelector"),
        ("a long value", selector(json!({"zone": "v".repeat(64)})), "spec.placement.nodeSelector.zone"),
        ("a long key", selector(json!({("k".repeat(318)): "v"})), "nodeSelector must have keys of labels"),
    ])
}

/// Every field that holds text, in objects of every kind that people write; bar the node selector, which is only compared.
fn all_texts() -> Vec<Value> {
    let digest = format!("sha256:{}", "0".repeat(64));
    let reference = json!({"name": "seed", "key": "data"});
    let vm = |user: &str, network: &str, user_data: Value, network_data: Value| {
        tiny("web")
            .with("restartRequest", "one")
            .with("disks", json!([{"name": "root", "size": "1Gi", "image": {"name": "tiny"}}]))
            .with(
                "interfaces",
                json!([{"name": "lan", "network": {"name": "n"}, "macAddress": "52:54:00:12:34:56", "addresses": ["10.9.0.5"]}]),
            )
            .with("placement", json!({"nodeName": "a"}))
            .cloud_init("hostname", "web")
            .cloud_init("sshKeys", json!([{"name": "k"}]))
            .cloud_init("reseed", "one")
            .cloud_init(user, user_data)
            .cloud_init(network, network_data)
            .object()
    };
    let image_from = |source: Value| image(&json!({"source": source, "digest": digest, "format": "raw"}));
    vec![
        vm("userData", "networkData", json!("#cloud-config"), json!("version: 2")),
        vm("userDataSecret", "networkDataSecret", reference.clone(), reference),
        image_from(json!({"http": {"url": "http://h/i"}})),
        image_from(json!({"file": {"path": "/srv/i"}})),
        network(&json!({"nat": {"subnet": "10.9.0.0/24"}})),
        network(&json!({"bridge": {"name": "br0"}})),
        ssh_key("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"),
    ]
}

/// Where the texts below this value are, as JSON pointers.
fn texts(value: &Value, at: &str, onto: &mut Vec<String>) {
    match value {
        Value::String(_) => onto.push(at.to_owned()),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(n, item)| texts(item, &format!("{at}/{n}"), onto));
        }
        Value::Object(fields) => {
            fields.iter().for_each(|(name, item)| texts(item, &format!("{at}/{name}"), onto));
        }
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn control_characters_are_refused_in_every_text_of_every_kind() -> Result<()> {
    let counter = counter().await?;
    let mut tried = 0;
    for object in all_texts() {
        assert_eq!(counter.hand_in(&object)?, None, "as it is: {object}");
        let mut places = Vec::new();
        texts(&object["spec"], "/spec", &mut places);
        for (place, character) in places.iter().flat_map(|place| ["\u{0}", "\u{1b}"].map(|it| (place, it))) {
            let mut bent = object.clone();
            let text = bent.pointer_mut(place).expect("it was found there");
            *text = json!(format!("{}{character}", text.as_str().unwrap_or_default()));
            let refusal =
                counter.hand_in(&bent)?.unwrap_or_else(|| panic!("accepted with {character:?}: {place}"));
            let field = place.trim_start_matches("/spec/").split('/').next().unwrap_or_default();
            assert!(refusal.contains(field) || refusal.contains("must"), "{place}: {refusal}");
            tried += 1;
        }
    }
    assert!(tried > 60, "only {tried} tries");
    Ok(())
}

/// An object of each kind, the virtual machine on node a.
fn furnish(counter: &Counter) -> Result<()> {
    let digest = format!("sha256:{}", "0".repeat(64));
    let spec = json!({"source": {"http": {"url": "http://h/i"}}, "digest": digest, "format": "qcow2"});
    let vm = tiny("fixed").with("placement", json!({"nodeName": "a"})).object();
    let mut items = [vm, image(&spec), network(&json!({"nat": {}}))];
    // Others try names of their own.
    for item in &mut items {
        item["metadata"]["name"] = json!("fixed");
    }
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": items});
    let file = counter.folder.join("furniture.json");
    files::write(&file, objects.to_string())?;
    install::kubectl(&counter.kubeconfig, &["create", "--filename", &file.display().to_string()])?;
    let placed = json!({"status": {"nodeName": "a"}}).to_string();
    let words = ["patch", "hvm/fixed", "--subresource=status", "--type=merge", "--patch", &placed];
    install::kubectl(&counter.kubeconfig, &words).map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_cannot_be_made_is_refused_with_what_to_do_instead() -> Result<()> {
    let counter = counter().await?;
    furnish(counter)?;
    let disks = |disks: Value| json!({"spec": {"disks": disks}});
    let root = |size: &str, image: &str| json!({"name": "root", "size": size, "image": {"name": image}});
    let data = json!({"name": "data", "size": "1Gi", "blank": {}});
    for (object, change, sentence) in [
        ("hvm/fixed", json!({"spec": {"firmware": "UEFI"}}), "firmware cannot change"),
        (
            "hvm/fixed",
            json!({"spec": {"placement": {"nodeName": "b"}}}),
            "delete it and create it again to move it",
        ),
        ("hvm/fixed", json!({"spec": {"placement": null}}), "delete it and create it again to move it"),
        ("hvm/fixed", disks(json!([root("64Mi", "other")])), "create a virtual machine from the other image"),
        ("hvm/fixed", disks(json!([root("32Mi", "tiny")])), "a disk cannot shrink"),
        ("hvm/fixed", disks(json!([data, root("64Mi", "tiny")])), "the boot disk and must stay first"),
        ("hvmi/fixed", json!({"spec": {"format": "raw"}}), "create a VirtualMachineImage with another name"),
        (
            "hvmn/fixed",
            json!({"spec": {"nat": {"subnet": "10.9.0.0/24"}}}),
            "create a VirtualMachineNetwork with another name",
        ),
    ] {
        let refusal = counter.change("", object, &change).unwrap_or_else(|| "accepted".to_owned());
        assert!(refusal.contains(sentence), "{object} {change}: expected {sentence:?}, got: {refusal}");
    }
    let grown = disks(json!([root("128Mi", "tiny"), data]));
    assert_eq!(counter.change("", "hvm/fixed", &grown), None, "growth and a further disk");
    let moved = json!({"status": {"nodeName": "b"}});
    let refusal = counter.change("status", "hvm/fixed", &moved).unwrap_or_else(|| "accepted".to_owned());
    assert!(refusal.contains("does not move from one node to another"), "{refusal}");
    assert_eq!(counter.change("status", "hvm/fixed", &json!({"status": {"nodeName": ""}})), None, "released");
    Ok(())
}
