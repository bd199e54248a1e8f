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
const NAMES: &str = "127.0.0.1 localhost\n127.0.0.1 inward.example\n169.254.169.254 metadata.example\n10.11.12.13 good.example\n";

#[test]
fn a_redirect_is_not_followed_to_a_refused_place_by_address_or_by_name() {
    let test = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("peer missing: root rights");
        ip("link set lo up");
        ip(&format!("address add {ORDINARY}/32 dev lo"));
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
    let (site, bench) = (site.await, Bench::with(|rules| rules.allow_loopback = false));
    // The same server on loopback: a redirect there would find the image.
    let port = site.port();
    for (host, why) in [
        ("127.0.0.1", "127.0.0.1 is a loopback address"),
        ("[::1]", "::1 is a loopback address"),
        ("localhost", "is a loopback address"),
        ("inward.example", "127.0.0.1 is a loopback address"),
        ("metadata.example", "169.254.169.254 is a link-local address"),
        ("169.254.169.254", "169.254.169.254 is a link-local address"),
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
