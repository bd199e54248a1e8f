use super::*;

const LEAST: &str = "nodeName: edge-1\ninsecureDev: {keyDir: /var/lib/holdfast/keys}\n";
const EXAMPLE: &str = include_str!("../../node.yaml");

fn refusal(lines: &str) -> String {
    parse(&format!("{LEAST}{lines}")).unwrap_err()
}

#[test]
fn the_example_says_what_the_defaults_are() {
    assert_eq!(parse(EXAMPLE).unwrap(), parse(LEAST).unwrap());
}

#[test]
fn the_example_documents_every_key() {
    // Each commented key of the example, taken out of its comment, still parses.
    let all: String =
        EXAMPLE.lines().map(|line| line.strip_prefix("#: ").unwrap_or(line)).collect::<Vec<_>>().join("\n");
    assert_eq!(parse(&all).unwrap(), parse(LEAST).unwrap());
}

#[test]
fn an_unknown_key_is_named() {
    for (lines, key) in [
        ("acelerator: tcg", "acelerator"),
        ("imageSources: {allowLopback: true}", "allowLopback"),
        ("reserved: {cpu: 1}", "cpu"),
        ("log: {colour: true}", "colour"),
        ("bridges: [{name: br0, vlan: 7}]", "vlan"),
    ] {
        let refused = refusal(lines);
        assert!(refused.contains("unknown field") && refused.contains(key), "{refused}");
        assert!(!refused.contains('\n'), "one sentence: {refused}");
    }
}

#[test]
fn a_wrong_value_is_refused_with_what_to_write() {
    for (lines, says) in [
        ("accelerator: xen", "expected"),
        ("networkPool: 10.88.0.1/16", "such as 10.88.0.0/16"),
        ("networkPool: banana", "such as 10.88.0.0/16"),
        ("subnetPools: [10.0.0.0/7]", "such as 10.88.0.0/16"),
        ("subnetPools: [0.0.0.0/0]", "such as 10.88.0.0/16"),
        ("bridges: [{name: br0, vlans: [4095]}]", "untagged, a number of 1 to 4094"),
        ("bridges: [{name: br0, vlans: [300-200]}]", "or a range such as 100-199"),
        ("bridges: [{name: br0, vlans: []}]", "write 1 to 64"),
        ("bridges: [{name: ../br0}]", "the name of a network interface"),
        ("bridges: [{name: br0}, {name: br0, vlans: [7]}]", "names br0 twice"),
        ("reserved: {memory: banana}", "such as 2Gi"),
        ("imageSources: {stallTimeoutSeconds: 0}", "whole seconds"),
        ("imageSources: {fileRoots: [images]}", "imageSources.fileRoots"),
        ("imageSources: {allow: [10.0.0.1/8]}", "no host bits set"),
        ("imageSources: {deny: [internet]}", "such as 10.0.0.0/8, or an address"),
        ("stateDir: state", "stateDir"),
        ("diskFactor: 0", "diskFactor"),
        ("imageCache: {namespacePercent: 0}", "imageCache.namespacePercent is 0"),
        ("imageCache: {budget: much}", "such as 2Gi"),
        ("guestUids: {first: 1000}", "guestUids"),
        ("guestUids: {count: 0}", "guestUids"),
        ("guestUids: {first: 2147483647, count: 2}", "guestUids"),
        ("guestUids: {first: 4294967295, count: 65536}", "guestUids"),
        ("libvirtUri: \"a\\u0000b\"", "libvirtUri"),
    ] {
        let refused = refusal(lines);
        assert!(refused.contains(says), "{refused}");
        assert!(!refused.contains('\n'), "one sentence: {refused}");
    }
}

#[test]
fn an_image_cache_without_a_budget_takes_a_quarter_of_the_disk_and_64_gib_at_most() {
    let default = parse(LEAST).unwrap().image_cache;
    assert_eq!([40 << 30, 4 << 40].map(|disk| default.budget(disk) >> 30), [10, 64]);
    let given = parse(&format!("{LEAST}imageCache: {{budget: 1Gi}}")).unwrap().image_cache;
    assert_eq!(given.budget(4 << 40), 1 << 30);
}

#[test]
fn guests_get_no_user_id_that_somebody_else_has() {
    let Config { guest_uids, .. } =
        parse(&format!("{LEAST}guestUids: {{first: 100000, count: 65536}}")).unwrap();
    let clash = |passwd: &str, subuid: &str| guest_uids.clash(passwd, subuid);
    assert_eq!(clash("root:x:0:0:root:/root:/bin/sh\na:x:99999:1::/:\nb:x:165536:1::/:\n", ""), None);
    assert!(clash("web:x:100000:1::/:\n", "").unwrap().contains("web"));
    assert!(clash("web:x:165535:1::/:\n", "").is_some());
    assert_eq!(clash("", "a:34464:65536\nb:165536:65536\n"), None);
    assert!(clash("", "a:34465:65536\n").unwrap().contains("/etc/subuid"));
    assert!(clash("", "a:165535:1\n").is_some() && clash("", "a:0:4294967295\n").is_some());
}

#[test]
fn a_node_name_the_api_would_refuse_is_refused_here() {
    for name in ["", "Edge", "edge_1", "-edge", "edge-", &"e".repeat(41)] {
        assert!(NodeName::try_from(name.to_owned()).is_err(), "{name}");
    }
    assert_eq!(NodeName::try_from("edge-1".to_owned()).unwrap().as_str(), "edge-1");
}

#[test]
fn without_insecure_dev_the_daemon_does_not_start() {
    let refused = parse("nodeName: edge-1").unwrap_err();
    assert!(refused.contains("insecureDev"), "{refused}");
}

#[test]
fn a_file_without_keys_names_the_first_that_is_missing() {
    for text in ["", "# nodeName: edge-1\n\n  # nothing\n"] {
        let refused = parse(text).unwrap_err();
        assert!(refused.contains("nodeName"), "{refused}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let refused = load(Path::new("/nonexistent/node.yaml")).unwrap_err();
    assert!(refused.to_string().contains("/nonexistent/node.yaml"));
}

#[test]
fn the_offer_is_the_pool_alone_until_more_is_written() {
    let offer = parse(LEAST).unwrap().networks();
    assert_eq!((offer.subnet_pools, offer.bridges.len()), (vec!["10.88.0.0/16".to_owned()], 0));
    let more = "subnetPools: [10.20.0.0/16]\nbridges: [{name: br0}, {name: trunk, vlans: [untagged, 120, 200-299], trusted: true}]";
    let offer = parse(&format!("{LEAST}{more}")).unwrap().networks();
    assert_eq!(offer.subnet_pools, ["10.88.0.0/16", "10.20.0.0/16"]);
    let shown: Vec<_> =
        offer.bridges.iter().map(|it| format!("{} {:?} {}", it.name, it.vlans, it.trusted)).collect();
    assert_eq!(shown, [r#"br0 ["untagged"] false"#, r#"trunk ["untagged", "120", "200-299"] true"#]);
}
