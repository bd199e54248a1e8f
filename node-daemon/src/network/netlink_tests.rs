//! The real kernel in network namespaces of our own; needs root.

use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use super::netlink::{Error, Link, LinkKind, Netlink};
use super::{Device, names, vlan};

/// Runs `story` on a thread that has a network namespace of its own, which ends with it.
fn in_namespace<F: Future<Output = ()>>(story: impl FnOnce(Netlink) -> F + Send + 'static) {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("peer missing: a network namespace, which needs root");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { story(Netlink::open().unwrap()).await });
    });
    thread.join().unwrap();
}

fn ip(words: &str) {
    let output = Command::new("ip").args(words.split(' ')).output().expect("peer missing: iproute2");
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}

async fn link(kernel: &Netlink, name: &str) -> Option<Link> {
    kernel.links().await.unwrap().into_iter().find(|link| link.name == name)
}

fn tagged() -> names::Tagged {
    names::Tagged { trunk: Device::try_from("br0".to_owned()).unwrap(), vlan: 120.try_into().unwrap() }
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
        let mut routes = used(kernel.routes().await.unwrap());
        routes.sort();
        assert_eq!(routes, ["0.0.0.0/0 lan0", "10.20.0.0/24 lan0", "10.30.0.0/16 lan0", "10.40.0.0/24 "]);
    });
}

#[test]
fn a_change_of_a_device_that_is_gone_is_refused() {
    in_namespace(|kernel| async move {
        assert!(matches!(kernel.raise(4711).await, Err(Error::Refused { .. })));
    });
}

/// Kernels without 802.1Q exist (small virtual machines often have one), so both answers are held to their promise.
#[test]
fn a_vlan_bridge_is_made_and_collected_or_the_kernel_is_said_to_lack_vlans() {
    in_namespace(|kernel| async move {
        ip("link add br0 type bridge");
        match vlan::ensure(&kernel, "shop/lan", &tagged()).await {
            Ok(()) => made_and_collected(&kernel).await,
            Err(error) => {
                assert_eq!(error.reason(), "VlanUnsupported", "{error:?}");
                assert!(error.to_string().contains("8021q"), "{error}");
                let tried =
                    Command::new("ip").args("link add link br0 name v type vlan id 5".split(' ')).output();
                assert!(!tried.unwrap().status.success(), "ip(8) can what we cannot");
            }
        }
        assert!(link(&kernel, "br0").await.is_some());
    });
}

async fn made_and_collected(kernel: &Netlink) {
    let (bridge, port) = (tagged().bridge(), tagged().port());
    let made = link(kernel, &bridge).await.unwrap();
    assert_eq!(link(kernel, &port).await.unwrap().master, Some(made.index));
    vlan::ensure(kernel, "shop/lan", &tagged()).await.unwrap();
    assert_eq!(link(kernel, &bridge).await.unwrap(), made, "a second time changes nothing");
    vlan::collect(kernel, &[tagged()]).await.unwrap();
    assert!(link(kernel, &bridge).await.is_some());
    vlan::collect(kernel, &[]).await.unwrap();
    assert_eq!((link(kernel, &bridge).await, link(kernel, &port).await), (None, None));
}
