//! The real kernel in network namespaces of our own; needs root.

use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use super::netlink::{Error, Link, LinkKind, Neighbour, Netlink};

/// Runs `story` on a thread that has a network namespace of its own, which ends with it.
pub(super) fn in_namespace<F: Future<Output = ()>>(story: impl FnOnce(Netlink) -> F + Send + 'static) {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("peer missing: a network namespace, which needs root");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { story(Netlink::open().unwrap()).await });
    });
    thread.join().unwrap();
}

pub(super) fn ip(words: &str) {
    drop(ip_says(words));
}

pub(super) fn ip_says(words: &str) -> String {
    let output = Command::new("ip").args(words.split(' ')).output().expect("peer missing: iproute2");
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(super) async fn link(kernel: &Netlink, name: &str) -> Option<Link> {
    kernel.links().await.unwrap().into_iter().find(|link| link.name == name)
}

#[test]
fn a_bridge_and_its_port_are_made_named_switched_on_and_removed() {
    in_namespace(|kernel| async move {
        ip("link add uplink type veth peer name far");
        kernel.create_bridge("hfvtest").await.unwrap();
        let bridge = link(&kernel, "hfvtest").await.unwrap();
        assert_eq!((bridge.kind, bridge.up), (LinkKind::Bridge { filters_vlans: false }, false));
        let port = link(&kernel, "uplink").await.unwrap();

        kernel.keep_host_off(bridge.index).await.unwrap();
        kernel.set_alias(bridge.index, "holdfast: test").await.unwrap();
        kernel.attach(port.index, bridge.index).await.unwrap();
        kernel.raise(bridge.index).await.unwrap();

        let after = link(&kernel, "hfvtest").await.unwrap();
        assert_eq!((after.alias.as_str(), after.up), ("holdfast: test", true));
        assert_eq!(link(&kernel, "uplink").await.unwrap().master, Some(bridge.index));
        kernel.remove(bridge.index).await.unwrap();
        assert_eq!(link(&kernel, "hfvtest").await, None);
    });
}

#[test]
fn a_bridge_kept_off_the_host_gets_no_address_by_itself() {
    in_namespace(|kernel| async move {
        for name in ["silent", "talking"] {
            kernel.create_bridge(name).await.unwrap();
        }
        let silent = link(&kernel, "silent").await.unwrap();
        let talking = link(&kernel, "talking").await.unwrap();
        kernel.keep_host_off(silent.index).await.unwrap();
        for index in [silent.index, talking.index] {
            kernel.raise(index).await.unwrap();
        }
        let addresses = Command::new("ip").args(["-6", "-brief", "address"]).output().unwrap();
        let addresses = String::from_utf8(addresses.stdout).unwrap();
        assert!(addresses.contains("talking") && !addresses.contains("silent"), "{addresses}");
    });
}

#[test]
fn addresses_and_routes_of_the_host_are_read_with_their_devices() {
    in_namespace(|kernel| async move {
        ip("link add lan0 type bridge");
        ip("address add 10.20.0.1/24 dev lan0");
        ip("link set lan0 up");
        ip("route add 10.30.0.0/16 via 10.20.0.7 dev lan0");
        ip("route add blackhole 10.40.0.0/24");
        ip("route add default via 10.20.0.9");
        let used = |list: Vec<super::netlink::Used>| -> Vec<String> {
            list.iter().map(|used| format!("{} {}", used.subnet, used.device)).collect()
        };
        assert_eq!(used(kernel.addresses().await.unwrap()), ["10.20.0.0/24 lan0"]);
        ip("route add 10.50.0.0/24 table 52 nexthop via 10.20.0.11 nexthop via 10.20.0.12");
        let mut routes = used(kernel.routes().await.unwrap());
        routes.sort();
        // What the kernel makes for its own addresses.
        routes.retain(|route| !route.contains("/32"));
        assert_eq!(
            routes,
            ["0.0.0.0/0 lan0", "10.20.0.0/24 lan0", "10.30.0.0/16 lan0", "10.40.0.0/24 ", "10.50.0.0/24 "]
        );
    });
}

#[test]
fn gateways_are_read_of_every_table_and_both_families() {
    in_namespace(|kernel| async move {
        ip("link add lan0 type bridge");
        ip("address add 10.20.0.1/24 dev lan0");
        ip("address add fd00::1/64 dev lan0 nodad");
        ip("link set lan0 up");
        ip("route add default via 10.20.0.9");
        ip("route add 10.50.0.0/24 table 52 nexthop via 10.20.0.11 nexthop via 10.20.0.12");
        ip("-6 route add default via fd00::9");
        let mut gateways: Vec<_> = kernel.gateways().await.unwrap().iter().map(ToString::to_string).collect();
        gateways.sort();
        assert_eq!(gateways, ["10.20.0.11", "10.20.0.12", "10.20.0.9", "fd00::9"]);
    });
}

#[test]
fn neighbours_are_those_whose_hardware_address_is_known() {
    in_namespace(|kernel| async move {
        ip("link add lan0 address 52:54:00:00:00:01 type bridge");
        ip("address add 10.20.0.1/24 dev lan0");
        ip("link set lan0 up");
        ip("neighbour add 10.20.0.7 lladdr 52:54:00:AB:00:07 nud stale dev lan0");
        ip("neighbour add 10.20.0.8 nud failed dev lan0");
        ip("neighbour add fd00::7 lladdr 52:54:00:ab:00:07 nud reachable dev lan0");
        ip("neighbour add fe80::7 lladdr 52:54:00:ab:00:07 nud reachable dev lan0");
        let mut seen: Vec<_> = kernel.neighbours().await.unwrap().into_iter().collect();
        seen.sort_by_key(|one| one.ip);
        let expected = ["10.20.0.7", "fd00::7"].map(|ip| Neighbour {
            mac: "52:54:00:ab:00:07".to_owned(),
            ip: ip.parse().unwrap(),
            device: "lan0".to_owned(),
        });
        assert_eq!(seen, expected);
    });
}

#[test]
fn a_change_of_a_device_that_is_gone_is_refused() {
    in_namespace(|kernel| async move {
        assert!(matches!(kernel.raise(4711).await, Err(Error::Refused { .. })));
    });
}
