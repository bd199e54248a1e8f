//! Redirects from an ordinary address to a refused one, on a node with the default rules.
//!
//! The test's thread has a network of its own, so that there is an ordinary address to serve from, and names of its own.

use std::fs;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::server::{Site, say, well};
use super::*;

const ORDINARY: &str = "10.11.12.13";
/// Another address of this host, which nobody opened.
const OWN: &str = "10.11.12.14";
const NAMES: &str = "127.0.0.1 localhost\n127.0.0.1 inward.example\n169.254.169.254 metadata.example\n\
    10.11.12.13 good.example\n10.11.12.14 own.example\n192.0.2.7 api.example\n";
const KUBECONFIG: &str = "{apiVersion: v1, kind: Config, current-context: a, contexts: [{name: a, context: {cluster: a, user: a}}], \
    clusters: [{name: a, cluster: {server: 'https://api.example:6443'}}], users: [{name: a, user: {}}]}";

#[test]
fn a_redirect_is_not_followed_to_a_refused_place_by_address_or_by_name() {
    let test = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("peer missing: root rights");
        ip("link set lo up");
        ip(&format!("address add {ORDINARY}/32 dev lo"));
        ip(&format!("address add {OWN}/32 dev lo"));
        ip("address add fd00::14/128 dev lo nodad");
        know_names();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(redirects());
    });
    test.join().unwrap();
}

async fn redirects() {
    let body = raw_image(1000);
    let digest = digest_of(&body);
    let site = Site::start_at(ORDINARY, move |request| match request.split(' ').nth(1).unwrap() {
        "/disk" => well(request, &body, "\"one\""),
        path => say(&format!("302 Found\nlocation: http:/{path}/disk"), b""),
    });
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    fs::write(&kubeconfig, KUBECONFIG).unwrap();
    let bench = Bench::with(|rules| {
        rules.allow_loopback = false;
        // The server of this test is one of the host's addresses, so it is named; all around it opens nothing.
        rules.allow =
            [format!("{ORDINARY}/32"), "10.0.0.0/8".to_owned()].map(|net| net.parse().unwrap()).to_vec();
        rules.host = HostAddresses::new(&kubeconfig, &folder.path().join("addresses"));
    });
    let site = site.await;
    // The same server on loopback: a redirect there would find the image.
    let port = site.port();
    for (host, why) in [
        ("127.0.0.1", "127.0.0.1 is a loopback address"),
        ("[::1]", "::1 is a loopback address"),
        ("localhost", "is a loopback address"),
        ("inward.example", "127.0.0.1 is a loopback address"),
        ("metadata.example", "169.254.169.254 is the metadata service of a cloud"),
        ("169.254.169.254", "169.254.169.254 is the metadata service of a cloud"),
        ("[fd00:ec2::254]", "fd00:ec2::254 is the metadata service of a cloud"),
        ("10.11.12.14", "10.11.12.14 is an address of this host"),
        ("own.example", "10.11.12.14 is an address of this host"),
        ("[::ffff:10.11.12.14]", "::ffff:10.11.12.14 is an address of this host"),
        ("[64:ff9b::10.11.12.14]", "64:ff9b::a0b:c0e is an address of this host"),
        ("[fd00::14]", "fd00::14 is an address of this host"),
        ("192.0.2.7", "192.0.2.7 is the address of the API server"),
        ("api.example", "192.0.2.7 is the address of the API server"),
    ] {
        let refused = bench.fetch_raw(site.url(&format!("/{host}:{port}")), &digest).await.unwrap_err();
        assert_eq!(refused.reason(), "SourceRefused", "{host}: {refused}");
        assert!(refused.to_string().contains(why), "{host}: {refused}");
    }
    assert!(site.requests().iter().all(|request| !request.contains("/disk ")), "a refused place was asked");
    bench.fetch_raw(site.url(&format!("/good.example:{port}")), &digest).await.unwrap();
}

fn ip(words: &str) {
    assert!(Command::new("ip").args(words.split(' ')).status().expect("peer missing: iproute2").success());
}

fn know_names() {
    let nowhere = None::<&str>;
    mount(nowhere, "/", nowhere, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nowhere).unwrap();
    let names = tempfile::NamedTempFile::new().unwrap();
    fs::write(names.path(), NAMES).unwrap();
    mount(Some(names.path()), "/etc/hosts", nowhere, MsFlags::MS_BIND, nowhere).unwrap();
}
