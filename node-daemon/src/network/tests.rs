//! Networks end to end over libvirt's own test driver and the real kernel, each test on a host of its own: a node file
//! and a network namespace.

use std::fs;

use holdfast_api::offer::OfferedBridge;
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

use super::observe::subnets;
use super::*;
use crate::retry::Retry;

const EMPTY_HOST: &str = "<node><cpu><mhz>2000</mhz><model>x86_64</model><active>8</active><nodes>1</nodes>\
    <sockets>1</sockets><cores>8</cores><threads>1</threads></cpu><memory>16777216</memory></node>";

pub(super) struct Host {
    pub(super) networks: Networks,
    pub(super) libvirt: Libvirt,
    _events: crate::libvirt::Events,
    _folder: TempDir,
}

/// Runs a story on a host that has no network yet.
pub(super) fn on_a_host<F: Future<Output = ()>>(story: impl FnOnce(Host) -> F + Send + 'static) {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("peer missing: a network namespace, which needs root");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { story(host()).await });
    });
    thread.join().unwrap();
}

/// The virtual machine that all is for, where it makes no difference.
const MACHINE: Uuid = Uuid::from_u128(1);

pub(super) fn networks(libvirt: &Libvirt, host: HostAddresses) -> Networks {
    Networks::new(libvirt.clone(), "10.88.0.0/16".parse().unwrap(), NetworkOffer::default(), host)
}

fn host() -> Host {
    let folder = TempDir::new().unwrap();
    let node = folder.path().join("node.xml");
    fs::write(&node, EMPTY_HOST).unwrap();
    let (libvirt, events) = Libvirt::open(&format!("test://{}", node.display())).unwrap();
    let networks = networks(&libvirt, HostAddresses::default());
    Host { networks, libvirt, _events: events, _folder: folder }
}

impl Host {
    pub(super) async fn ensure(&self, record: &NetworkRecord) -> Result<Source, Error> {
        self.networks.ensure(MACHINE, record, &[]).await
    }

    /// Collects as if the last start were long ago.
    async fn collect(&self, in_use: &[&NetworkRecord]) {
        let in_use = in_use.iter().map(|record| record.uid).collect();
        self.networks.collect_older(&in_use, Duration::ZERO).await.unwrap();
    }

    pub(super) async fn find(&self, record: &NetworkRecord) -> Option<Network> {
        let all = self.libvirt.networks().await.unwrap();
        all.into_iter().find(|network| network.uuid == record.uid)
    }

    pub(super) async fn subnet(&self, record: &NetworkRecord) -> String {
        subnets(&self.find(record).await.unwrap()).next().unwrap().to_string()
    }

    /// A network of somebody else.
    async fn define_foreign(&self, uuid: Uuid, name: &str, address: &str) {
        let xml = format!(
            "<network><name>{name}</name><uuid>{uuid}</uuid><bridge name='virbr7'/>\
            <ip address='{address}' netmask='255.255.255.0'/></network>"
        );
        self.libvirt.define_network(uuid, xml).await.unwrap();
    }
}

fn subnet(text: &str) -> Option<Subnet> {
    text.to_owned().try_into().ok()
}

pub(super) fn nat(uid: u128, name: &str, text: &str) -> NetworkRecord {
    let kind = Kind::Nat { subnet: subnet(text) };
    NetworkRecord { uid: Uuid::from_u128(uid), name: name.to_owned(), kind }
}

fn isolated(uid: u128, name: &str) -> NetworkRecord {
    NetworkRecord { kind: Kind::Isolated { subnet: None }, ..nat(uid, name, "") }
}

pub(super) fn bridged(uid: u128, bridge: &str) -> NetworkRecord {
    let kind = Kind::Bridge { name: bridge.to_owned().try_into().unwrap(), vlan: None };
    NetworkRecord { kind, ..nat(uid, "shop/plant", "") }
}

pub(super) fn ip(words: &str) {
    let output = std::process::Command::new("ip").args(words.split(' ')).output();
    assert!(output.expect("peer missing: iproute2").status.success(), "ip {words}");
}

#[test]
fn a_guest_is_not_started_under_a_hardware_address_that_its_bridge_hears_elsewhere() {
    on_a_host(|host| async move {
        for words in [
            "link add br0 address 52:54:00:00:00:01 type bridge",
            "link add up0 type veth peer name far",
            "link set up0 master br0",
            "link set br0 up",
        ] {
            ip(words);
        }
        let fdb = std::process::Command::new("bridge")
            .args(["fdb", "add", "52:54:00:00:00:fe", "dev", "up0", "master", "static"])
            .output();
        assert!(fdb.expect("peer missing: iproute2").status.success());
        let br0 = bridged(1, "br0");
        let guest = Port {
            device: "hft0000000009".to_owned(),
            mac: [0x52, 0x54, 0, 0, 0, 0x09],
            network: bridged(9, "br0"),
            listed: Vec::new(),
            leased: Vec::new(),
        };
        let check = async |last, device| {
            let guests = std::slice::from_ref(&guest);
            host.networks.check_station(&br0, [0x52, 0x54, 0, 0, 0, last], device, guests).await
        };
        for (taken, by) in
            [(0x01, "br0 of bridge br0"), (0xfe, "up0 of bridge br0"), (0x09, "hft0000000009 of bridge br0")]
        {
            let refused = check(taken, "hft0000000001").await.unwrap_err();
            assert_eq!((refused.reason(), refused.retry()), ("MacTaken", Retry::Later));
            assert!(refused.to_string().contains(by), "{refused}");
        }
        check(0xfe, "up0").await.expect("its own port");
        check(0x07, "hft0000000001").await.expect("nobody's");
        let elsewhere =
            host.networks.check_station(&bridged(2, "br1"), [0x52, 0x54, 0, 0, 0, 0xfe], "x", &[]).await;
        elsewhere.expect("another bridge's");
        let bridges = vec![OfferedBridge { name: "br0".to_owned(), vlans: Vec::new(), trusted: true }];
        let offer = NetworkOffer { bridges, ..NetworkOffer::default() };
        let pool = "10.88.0.0/16".parse().unwrap();
        let trusting = Networks::new(host.libvirt.clone(), pool, offer, HostAddresses::default());
        trusting.check_station(&br0, [0x52, 0x54, 0, 0, 0, 0xfe], "x", &[]).await.expect("a router may");
    });
}

#[test]
fn a_network_comes_up_under_its_uid_and_a_second_time_changes_nothing() {
    on_a_host(|host| async move {
        let lan = nat(7, "shop/lan", "10.20.0.0/24");
        let source = host.ensure(&lan).await.unwrap();
        assert_eq!(source, Source::Network(format!("hf-{}", lan.uid)));
        let made = host.find(&lan).await.unwrap();
        assert!(made.active && is_ours(&made));
        assert_eq!(
            (made.forward.as_deref(), host.subnet(&lan).await.as_str()),
            (Some("nat"), "10.20.0.0/24")
        );
        assert_eq!(host.ensure(&lan).await.unwrap(), source);
        assert_eq!(host.find(&lan).await.unwrap(), made);
    });
}

#[test]
fn networks_without_a_subnet_get_different_ones_of_the_pool() {
    on_a_host(|host| async move {
        // The same place in the pool follows from both UIDs.
        let (lan, db) = (nat(7, "shop/lan", ""), isolated(7 + 256, "shop/db"));
        host.ensure(&lan).await.unwrap();
        host.ensure(&db).await.unwrap();
        assert_eq!(
            (host.subnet(&lan).await, host.subnet(&db).await),
            ("10.88.7.0/24".into(), "10.88.8.0/24".into())
        );
        assert_eq!(host.find(&db).await.unwrap().forward, None);
    });
}

#[test]
fn networks_ensured_at_once_do_not_meet_in_one_subnet() {
    on_a_host(|host| async move {
        let records: Vec<_> = (0..8).map(|n| nat(7 + 256 * n, &format!("shop/lan-{n}"), "")).collect();
        for result in futures::future::join_all(records.iter().map(|record| host.ensure(record))).await {
            result.unwrap();
        }
        let mut found = HashSet::new();
        for record in &records {
            assert!(found.insert(host.subnet(record).await));
        }
    });
}

#[test]
fn a_namespace_fills_its_share_of_the_pool_and_another_still_gets_a_subnet() {
    on_a_host(|mut host| async move {
        host.networks.pool = "10.88.0.0/22".parse().unwrap();
        host.ensure(&nat(0, "shop/lan", "")).await.unwrap();
        let error = host.ensure(&nat(1, "shop/more", "10.88.1.0/28")).await.unwrap_err();
        let sentence = "network shop/more: its namespace has its share, 1 of the 4 /24s of the node's pool 10.88.0.0/22; \
            delete virtual machines on other networks of the namespace, or widen networkPool on the node";
        assert_eq!(
            (error.to_string().as_str(), error.reason(), error.retry()),
            (sentence, "NetworkShareFull", Retry::Later)
        );
        host.ensure(&nat(2, "lab/lan", "")).await.unwrap();
        host.ensure(&nat(0, "shop/lan", "")).await.unwrap();
    });
}

#[test]
fn a_clash_names_the_other_network_and_a_way_out_and_ends_with_it() {
    on_a_host(|host| async move {
        let (lan, late) = (nat(7, "shop/lan", "10.20.0.0/16"), nat(8, "lab/lan", "10.20.5.0/24"));
        host.ensure(&lan).await.unwrap();
        let error = host.ensure(&late).await.unwrap_err();
        let sentence = "network lab/lan: subnet 10.20.5.0/24 overlaps network shop/lan (10.20.0.0/16) on this node; \
            use a network with another subnet";
        assert_eq!(
            (error.to_string().as_str(), error.reason(), error.retry()),
            (sentence, "SubnetClash", Retry::Later)
        );
        host.collect(&[]).await;
        host.ensure(&late).await.unwrap();
    });
}

#[test]
fn a_clash_with_the_host_itself_is_found() {
    on_a_host(|host| async move {
        ip("link add lan0 type bridge");
        ip("address add 10.20.0.9/24 dev lan0");
        ip("link set lan0 up");
        let error = host.ensure(&nat(7, "shop/lan", "10.20.0.0/28")).await.unwrap_err();
        assert!(error.to_string().contains("overlaps the subnet 10.20.0.0/24 of device lan0"), "{error}");
    });
}

#[test]
fn a_foreign_network_is_avoided_and_never_touched() {
    on_a_host(|host| async move {
        let lan = nat(7, "shop/lan", "");
        host.define_foreign(Uuid::from_u128(99), "default", "10.88.7.1").await;
        host.ensure(&lan).await.unwrap();
        assert_eq!(host.subnet(&lan).await, "10.88.8.0/24");
        host.collect(&[]).await;
        assert!(host.find(&lan).await.is_none());
        assert!(host.find(&nat(99, "", "")).await.is_some());
    });
}

#[test]
fn a_foreign_network_under_our_name_is_in_the_way() {
    on_a_host(|host| async move {
        let lan = nat(7, "shop/lan", "");
        host.define_foreign(Uuid::from_u128(99), &names::network(lan.uid), "10.1.0.1").await;
        let error = host.ensure(&lan).await.unwrap_err();
        assert_eq!((error.reason(), error.retry()), ("NetworkForeign", Retry::Later));
        assert!(error.to_string().contains("remove or rename it on the node"), "{error}");
    });
}

#[test]
fn a_network_in_use_or_about_to_be_used_is_not_collected() {
    on_a_host(|host| async move {
        let (used, starting) = (nat(7, "shop/lan", ""), isolated(8, "shop/db"));
        host.ensure(&used).await.unwrap();
        host.ensure(&starting).await.unwrap();
        host.networks.collect(&HashSet::from([used.uid])).await.unwrap();
        assert!(host.find(&starting).await.is_some(), "its virtual machine may be about to start");
        host.collect(&[&used]).await;
        assert!(host.find(&used).await.is_some() && host.find(&starting).await.is_none());
    });
}

#[test]
fn what_was_ensured_for_a_machine_that_is_gone_frees_its_subnet_at_once() {
    on_a_host(|host| async move {
        let (before, again) = (nat(7, "shop/lan", "10.20.0.0/24"), nat(8, "shop/lan", "10.20.0.0/24"));
        host.ensure(&before).await.unwrap();
        host.networks.ensure(Uuid::from_u128(2), &before, &[]).await.unwrap();
        let error = host.ensure(&again).await.unwrap_err().to_string();
        assert!(
            error.contains("overlaps the earlier network shop/lan (10.20.0.0/24), still in use on this node"),
            "{error}"
        );
        let collect = async || host.networks.collect(&HashSet::new()).await.unwrap();
        host.networks.release(MACHINE).await;
        assert!(!collect().await, "another machine is about to start");
        host.networks.release(Uuid::from_u128(2)).await;
        assert!(collect().await);
        host.ensure(&again).await.unwrap();
    });
}

#[test]
fn a_network_made_again_takes_the_place_of_the_earlier_one() {
    on_a_host(|host| async move {
        let (before, again) = (nat(7, "shop/lan", "10.20.0.0/24"), nat(8, "shop/lan", "10.20.0.0/24"));
        host.ensure(&before).await.unwrap();
        host.ensure(&again).await.unwrap();
        assert!(host.find(&before).await.is_none() && host.find(&again).await.unwrap().active);
    });
}

#[test]
fn a_stopped_network_is_started_with_the_subnet_it_had() {
    on_a_host(|host| async move {
        let lan = nat(7, "shop/lan", "");
        host.networks.define(&lan, "10.88.200.0/24".parse().unwrap(), NetworkKind::Nat).await.unwrap();
        host.ensure(&lan).await.unwrap();
        assert!(host.find(&lan).await.unwrap().active);
        assert_eq!(host.subnet(&lan).await, "10.88.200.0/24");
    });
}

#[test]
fn a_bridge_of_the_host_is_used_as_it_is_and_missed_when_it_is_not_there() {
    on_a_host(|host| async move {
        ip("link add br0 type bridge");
        ip("link add eth7 type veth peer name far7");
        assert_eq!(host.ensure(&bridged(7, "br0")).await.unwrap(), Source::Bridge("br0".to_owned()));
        for name in ["br1", "eth7"] {
            let error = host.ensure(&bridged(7, name)).await.unwrap_err();
            assert_eq!((error.reason(), error.retry()), ("BridgeMissing", Retry::Later));
            assert!(
                error.to_string().contains(&format!("no bridge {name}; create it on the node")),
                "{error}"
            );
        }
    });
}

#[test]
fn without_libvirt_the_error_says_so_and_is_tried_again() {
    on_a_host(|_| async move {
        let (libvirt, _events) = Libvirt::open("test:///nowhere/node.xml").unwrap();
        let networks = networks(&libvirt, HostAddresses::default());
        let error = networks.ensure(MACHINE, &nat(7, "shop/lan", ""), &[]).await.unwrap_err();
        assert_eq!((error.reason(), error.retry()), ("NetworkFailed", Retry::Soon));
    });
}
