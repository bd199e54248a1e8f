//! VLAN bridges in the real kernel: made, carrying traffic, collected; needs root.
//!
//! Kernels without 802.1Q exist, and the answer to them is tested too. `tests/debian-kernel/run.sh` runs this file under
//! Debian's kernel, which has it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};

use super::netlink::Netlink;
use super::netlink_tests::{in_namespace, ip, link};
use super::{Device, names, vlan};

fn tagged() -> names::Tagged {
    names::Tagged { trunk: Device::try_from("br0".to_owned()).unwrap(), vlan: 120.try_into().unwrap() }
}

/// Makes the VLAN's bridge; false where the kernel has no VLANs, in which case the error must say so.
async fn ensured(kernel: &Netlink) -> bool {
    let Err(error) = vlan::ensure(kernel, "shop/lan", &tagged()).await else { return true };
    assert_eq!(error.reason(), "VlanUnsupported", "{error:?}");
    assert!(error.to_string().contains("8021q"), "{error}");
    let tried = Command::new("ip").args("link add link br0 name v type vlan id 5".split(' ')).output();
    assert!(!tried.unwrap().status.success(), "ip(8) can what we cannot");
    println!("this kernel has no VLANs; what it should do with them was not seen");
    false
}

#[test]
fn a_vlan_bridge_is_made_found_again_kept_and_collected() {
    in_namespace(|kernel| async move {
        ip("link add br0 type bridge");
        if !ensured(&kernel).await {
            return;
        }
        let (bridge, port) = (tagged().bridge(), tagged().port());
        let made = link(&kernel, &bridge).await.unwrap();
        assert_eq!(link(&kernel, &port).await.unwrap().master, Some(made.index));
        ip("link set br0 up");
        assert!(link(&kernel, &port).await.unwrap().up, "it comes up with the host's bridge");
        assert!(ensured(&kernel).await);
        assert_eq!(link(&kernel, &bridge).await.unwrap(), made, "a second time changes nothing");
        vlan::collect(&kernel, &[tagged()]).await.unwrap();
        assert!(link(&kernel, &bridge).await.is_some());
        vlan::collect(&kernel, &[]).await.unwrap();
        assert_eq!((link(&kernel, &bridge).await, link(&kernel, &port).await), (None, None));
        assert!(link(&kernel, "br0").await.is_some());
    });
}

#[test]
fn somebody_elses_device_for_the_vlan_stays_theirs() {
    in_namespace(|kernel| async move {
        ip("link add br0 type bridge");
        if !ensured(&kernel).await {
            return;
        }
        vlan::collect(&kernel, &[]).await.unwrap();
        ip("link add link br0 name br0.120 type vlan id 120");
        let error = vlan::ensure(&kernel, "shop/lan", &tagged()).await.unwrap_err();
        assert!(error.to_string().contains("device br0.120"), "{error}");
        assert_eq!(link(&kernel, "br0.120").await.unwrap().master, None);
    });
}

#[test]
fn a_guest_speaks_to_its_vlan_beyond_the_uplink_and_to_no_other() {
    in_namespace(|kernel| async move {
        ip("link add br0 type bridge");
        speak(&kernel).await;
    });
}

#[test]
fn a_guest_speaks_to_its_vlan_through_a_bridge_that_filters_vlans() {
    in_namespace(|kernel| async move {
        let filtering =
            Command::new("ip").args("link add br0 type bridge vlan_filtering 1".split(' ')).output();
        if !filtering.unwrap().status.success() {
            println!("this kernel has no VLAN filtering; it was not seen");
            return;
        }
        speak(&kernel).await;
    });
}

/// ```text
/// guest (namespace of its own) ── tap ── hfv… ── hfp… ── br0 ── uplink ── far ── far.120 10.9.0.2
///                                                                             └─ far.121 10.9.1.2
/// ```
async fn speak(kernel: &Netlink) {
    ip("link add uplink type veth peer name far");
    ip("link set uplink master br0");
    if !ensured(kernel).await {
        return;
    }
    // A trunk port; needless, and without effect, on a bridge that does not filter.
    drop(Command::new("bridge").args("vlan add dev uplink vid 120-121".split(' ')).output());
    for (id, address) in [(120, "10.9.0.2/24"), (121, "10.9.1.2/24")] {
        ip(&format!("link add link far name far.{id} type vlan id {id}"));
        ip(&format!("address add {address} dev far.{id}"));
    }
    ip("link add tap type veth peer name guest");
    ip(&format!("link set tap master {}", tagged().bridge()));
    for device in ["br0", "uplink", "far", "far.120", "far.121", "tap"] {
        ip(&format!("link set {device} up"));
    }
    let servers = ["10.9.0.2:7", "10.9.1.2:7"].map(|place| TcpListener::bind(place).unwrap());
    for server in servers {
        std::thread::spawn(move || {
            for mut one in server.incoming().flatten() {
                drop(one.write_all(b"hello"));
            }
        });
    }
    assert_eq!(from_guest("10.9.0.1/24", "10.9.0.2:7"), Some("hello".to_owned()), "its own VLAN answers");
    assert_eq!(from_guest("10.9.1.1/24", "10.9.1.2:7"), None, "another VLAN hears nothing");
}

/// What a server says to the guest under an address. Each call plugs the guest into a fresh namespace.
fn from_guest(address: &'static str, server: &'static str) -> Option<String> {
    let (tell, told) = mpsc::channel();
    let (go, plugged) = mpsc::channel();
    let host = nix::unistd::gettid();
    let guest = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        tell.send(nix::unistd::gettid()).unwrap();
        plugged.recv().unwrap();
        ip(&format!("address add {address} dev guest"));
        ip("link set guest up");
        let said = listen(server);
        // Back to where it came from, before this namespace and all in it end.
        ip(&format!("link set guest netns {host}"));
        said
    });
    ip(&format!("link set guest netns {}", told.recv().unwrap()));
    go.send(()).unwrap();
    guest.join().unwrap()
}

fn listen(server: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&server.parse().unwrap(), Duration::from_secs(5)).ok()?;
    let mut said = String::new();
    stream.read_to_string(&mut said).ok()?;
    Some(said)
}
