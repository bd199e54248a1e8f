//! The module against libvirt's own test driver: real define, start, stop, metadata, state, reasons and events.
//!
//! Each test has a host of its own, described by a node file, since `test:///default` is one object per process.

use std::fs;
use std::time::Duration;

use tempfile::TempDir;

use super::domain_xml::{Accelerator, Arch, DomainSpec, Firmware, to_xml};
use super::events::Lifecycle;
use super::network_xml::{self, NetworkKind, NetworkSpec, Subnet};
use super::samples::{EMPTY_HOST, web};
use super::*;
use crate::retry::Retry;

const FOREIGN: &str = "<domain type='test'><name>foreign</name><uuid>00000000-0000-4000-8000-000000000001</uuid>\
    <memory>65536</memory><os><type>hvm</type></os></domain>";

struct Host {
    libvirt: Libvirt,
    events: Events,
    _folder: TempDir,
}

async fn host() -> Host {
    let folder = TempDir::new().unwrap();
    let node = folder.path().join("node.xml");
    fs::write(&node, EMPTY_HOST).unwrap();
    let (libvirt, mut events) = Libvirt::open(&format!("test://{}", node.display())).unwrap();
    assert_eq!(next(&mut events).await, Event::Reconnected);
    Host { libvirt, events, _folder: folder }
}

async fn next(events: &mut Events) -> Event {
    tokio::time::timeout(Duration::from_secs(10), events.next()).await.unwrap().unwrap()
}

impl Host {
    /// A host with this VM defined on it.
    async fn with(spec: &DomainSpec) -> Self {
        let host = host().await;
        host.libvirt.define(spec.uuid, to_xml(spec).unwrap()).await.unwrap();
        host
    }

    async fn domain(&self, spec: &DomainSpec) -> Domain {
        self.libvirt.domain(spec.uuid).await.unwrap().unwrap()
    }

    async fn state(&self, spec: &DomainSpec) -> DomainState {
        self.domain(spec).await.state
    }
}

#[tokio::test]
async fn every_flavour_of_our_xml_is_accepted_with_validation() {
    let flavours = [
        web(),
        DomainSpec { accelerator: Accelerator::Tcg, ..web() },
        DomainSpec { firmware: Firmware::Bios, ..web() },
        DomainSpec { arch: Arch::Aarch64, ..web() },
    ];
    for spec in flavours {
        Host::with(&spec).await;
    }
}

#[tokio::test]
async fn a_defined_domain_reads_back_as_it_was_meant() {
    let spec = web();
    let host = Host::with(&spec).await;
    let expected = Domain {
        uuid: spec.uuid,
        name: spec.name.clone(),
        state: DomainState::ShutOff { reason: ShutOffReason::Unknown },
        record: Some(spec.record.clone()),
        cpu: 2,
        memory_mib: 2048,
    };
    assert_eq!(host.domain(&spec).await, expected);
    assert_eq!(host.libvirt.domains().await.unwrap(), [expected]);
}

#[tokio::test]
async fn each_way_to_end_leaves_its_reason() {
    let spec = web();
    let (host, uuid) = (Host::with(&spec).await, spec.uuid);
    host.libvirt.start(uuid, StartPaused::No).await.unwrap();
    assert_eq!(host.state(&spec).await, DomainState::Running);
    host.libvirt.shutdown(uuid).await.unwrap();
    assert_eq!(host.state(&spec).await, DomainState::ShutOff { reason: ShutOffReason::Shutdown });
    host.libvirt.start(uuid, StartPaused::No).await.unwrap();
    host.libvirt.destroy(uuid).await.unwrap();
    assert_eq!(host.state(&spec).await, DomainState::ShutOff { reason: ShutOffReason::Destroyed });
}

#[tokio::test]
async fn a_guest_started_paused_waits_for_resume() {
    let spec = web();
    let (host, uuid) = (Host::with(&spec).await, spec.uuid);
    host.libvirt.start(uuid, StartPaused::Yes).await.unwrap();
    assert_eq!(host.state(&spec).await, DomainState::Paused { reason: PausedReason::User });
    host.libvirt.resume(uuid).await.unwrap();
    assert_eq!(host.state(&spec).await, DomainState::Running);
    host.libvirt.suspend(uuid).await.unwrap();
    assert_eq!(host.state(&spec).await, DomainState::Paused { reason: PausedReason::User });
}

#[tokio::test]
async fn an_undefined_domain_is_gone() {
    let spec = web();
    let (host, uuid) = (Host::with(&spec).await, spec.uuid);
    host.libvirt.undefine(uuid).await.unwrap();
    assert_eq!(host.libvirt.domain(uuid).await.unwrap(), None);
    let error = host.libvirt.start(uuid, StartPaused::No).await.unwrap_err();
    assert!(matches!(error, Error::Absent { .. }), "{error}");
    assert_eq!(error.retry(), Retry::Soon);
}

#[tokio::test]
async fn a_record_is_replaced_whether_the_guest_runs_or_not() {
    let spec = web();
    let (host, uuid) = (Host::with(&spec).await, spec.uuid);
    host.libvirt.set_record(uuid, r#"{"x":"<&>\"' ü"}"#).await.unwrap();
    assert_eq!(host.domain(&spec).await.record.as_deref(), Some(r#"{"x":"<&>\"' ü"}"#));
    host.libvirt.start(uuid, StartPaused::No).await.unwrap();
    host.libvirt.set_record(uuid, "running").await.unwrap();
    assert_eq!(host.domain(&spec).await.record.as_deref(), Some("running"));
    host.libvirt.destroy(uuid).await.unwrap();
    assert_eq!(host.domain(&spec).await.record.as_deref(), Some("running"));
}

#[tokio::test]
async fn a_record_of_100_kib_survives_and_one_beyond_the_limit_is_refused() {
    let spec = DomainSpec { record: "é<&\"".repeat(20 * 1024), ..web() };
    let host = Host::with(&spec).await;
    assert_eq!(host.domain(&spec).await.record.as_ref(), Some(&spec.record));
    let error = host.libvirt.set_record(spec.uuid, &"x".repeat(text::RECORD_LIMIT + 1)).await.unwrap_err();
    assert_eq!(error.to_string(), "record has 1048577 bytes; at most 1048576 are allowed");
    assert_eq!(error.retry(), Retry::OnChange);
}

#[tokio::test]
async fn a_running_guest_keeps_its_record_until_the_next_start() {
    let spec = web();
    let (host, uuid) = (Host::with(&spec).await, spec.uuid);
    host.libvirt.start(uuid, StartPaused::No).await.unwrap();
    let next = DomainSpec { record: "next".into(), cpu: 4, ..web() };
    host.libvirt.define(uuid, to_xml(&next).unwrap()).await.unwrap();
    let running = host.domain(&spec).await;
    assert_eq!((running.record.as_ref(), running.cpu), (Some(&spec.record), 2));
    host.libvirt.destroy(uuid).await.unwrap();
    let stored = host.domain(&spec).await;
    assert_eq!((stored.record.as_deref(), stored.cpu), (Some("next"), 4));
}

#[tokio::test]
async fn a_domain_without_our_element_is_foreign() {
    let host = host().await;
    host.libvirt.define(Uuid::from_u128(1), FOREIGN.into()).await.unwrap();
    let domains = host.libvirt.domains().await.unwrap();
    assert_eq!(domains.len(), 1);
    assert_eq!((domains[0].name.as_str(), &domains[0].record), ("foreign", &None));
}

#[tokio::test]
async fn xml_with_an_unknown_element_is_refused_until_it_changes() {
    let host = host().await;
    let xml = FOREIGN.replace("<memory>", "<surprise/><memory>");
    let error = host.libvirt.define(Uuid::from_u128(1), xml).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    assert_eq!(error.retry(), Retry::OnChange);
}

#[tokio::test]
async fn a_nul_never_reaches_libvirt() {
    let host = host().await;
    for error in [
        host.libvirt.define(Uuid::nil(), "<domain>\0".into()).await.unwrap_err(),
        host.libvirt.set_record(Uuid::nil(), "\0").await.unwrap_err(),
        host.libvirt.define_network(Uuid::nil(), "\0".into()).await.unwrap_err(),
        Libvirt::open("test:///\0").err().unwrap(),
    ] {
        assert!(matches!(error, Error::Invalid(_)), "{error}");
    }
}

#[tokio::test]
async fn destroying_a_guest_that_is_off_says_that_the_state_forbids_it() {
    let spec = web();
    let host = Host::with(&spec).await;
    let error = host.libvirt.destroy(spec.uuid).await.unwrap_err();
    assert!(matches!(error, Error::WrongState { .. }), "{error}");
    assert_eq!(error.retry(), Retry::Soon);
}

#[tokio::test]
async fn the_life_of_a_domain_is_told() {
    let spec = web();
    let mut host = Host::with(&spec).await;
    host.libvirt.start(spec.uuid, StartPaused::No).await.unwrap();
    host.libvirt.shutdown(spec.uuid).await.unwrap();
    host.libvirt.undefine(spec.uuid).await.unwrap();
    let mut told = Vec::new();
    while told.last() != Some(&Lifecycle::Undefined) {
        let Event::Lifecycle { uuid, change } = next(&mut host.events).await else { panic!("another event") };
        assert_eq!(uuid, spec.uuid);
        told.push(change);
    }
    assert_eq!(told, [Lifecycle::Defined, Lifecycle::Started, Lifecycle::Stopped, Lifecycle::Undefined]);
}

#[tokio::test]
async fn the_stream_ends_with_the_last_handle() {
    let Host { libvirt, mut events, .. } = host().await;
    let clone = libvirt.clone();
    drop(libvirt);
    clone.host().await.unwrap();
    drop(clone);
    assert_eq!(next(&mut events).await, Event::Disconnected);
    assert_eq!(tokio::time::timeout(Duration::from_secs(10), events.next()).await.unwrap(), None);
}

#[tokio::test]
async fn without_libvirt_a_call_fails_soon_and_says_where() {
    let (libvirt, _events) = Libvirt::open("test:///nowhere/node.xml").unwrap();
    let error = libvirt.domains().await.unwrap_err();
    assert_eq!(error.to_string(), "libvirt is not reachable at test:///nowhere/node.xml");
    assert_eq!(error.retry(), Retry::Soon);
}

#[tokio::test]
async fn a_libvirt_that_takes_connections_and_never_answers_is_silent_and_holds_nobody_up() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("mute");
    let _mute = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let uri = format!("qemu+unix:///system?socket={}", path.display());
    let (libvirt, _events) = Libvirt::open(&uri).unwrap();
    let asked = std::time::Instant::now();
    assert!(matches!(libvirt.domains().await, Err(Error::Unreachable { .. })));
    while libvirt.reach() != Reach::Silent {
        assert_eq!(libvirt.reach(), Reach::Untold, "nobody has seen it answer");
        assert!(asked.elapsed() < Duration::from_secs(30), "that is when everybody shall know");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let refused =
        tokio::time::timeout(Duration::from_secs(1), libvirt.define(Uuid::nil(), "<domain/>".into()));
    assert!(matches!(refused.await.unwrap(), Err(Error::Unreachable { .. })), "at once, not after its limit");
}

#[tokio::test]
async fn a_call_whose_caller_has_gone_is_not_made() {
    let (host, spec) = (host().await, web());
    let (release, held) = std::sync::mpsc::channel::<()>();
    let actor = host.libvirt.actor.clone();
    let stuck_call = tokio::spawn(async move {
        let stuck = move |_: &virt::connect::Connect| {
            held.recv().unwrap();
            Ok(())
        };
        actor.run(call("hold", READ), Subject::Domain(Uuid::nil()), stuck).await
    });
    tokio::task::yield_now().await;
    let behind = Call { verb: "define", limit: Duration::from_millis(50) };
    let xml = to_xml(&spec).unwrap();
    let define = move |connect: &virt::connect::Connect| domain::define(connect, &xml);
    let error = host.libvirt.actor.run(behind, Subject::Domain(Uuid::nil()), define).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    release.send(()).unwrap();
    stuck_call.await.unwrap().unwrap();
    host.libvirt.domain(Uuid::nil()).await.unwrap();
    assert_eq!(host.libvirt.domain(spec.uuid).await.unwrap(), None);
}

#[tokio::test]
async fn the_host_is_described() {
    let host = host().await.libvirt.host().await.unwrap();
    assert_eq!((host.cpus, host.memory, host.arch.as_str()), (8, 16 << 30, "x86_64"));
    assert_eq!(host.libvirt_version.split('.').count(), 3);
}

#[tokio::test]
async fn a_network_lives_and_goes() {
    let (host, spec) = (host().await, network());
    let xml = network_xml::to_xml(&spec).unwrap();
    host.libvirt.define_network(spec.uuid, xml).await.unwrap();
    host.libvirt.start_network(spec.uuid).await.unwrap();
    host.libvirt.start_network(spec.uuid).await.unwrap();
    let networks = host.libvirt.networks().await.unwrap();
    let found = networks.iter().find(|network| network.uuid == spec.uuid).unwrap();
    assert!(found.active);
    assert_eq!((found.name.as_str(), found.bridge.as_deref()), ("shop.default", Some("hf1111222233")));
    assert_eq!(found.record.as_deref(), Some("{}"));
    host.libvirt.remove_network(spec.uuid).await.unwrap();
    host.libvirt.remove_network(spec.uuid).await.unwrap();
    assert!(!host.libvirt.networks().await.unwrap().iter().any(|network| network.uuid == spec.uuid));
}

#[tokio::test]
async fn a_running_guest_on_our_network_has_a_lease_and_one_that_is_off_has_none() {
    let (host, spec) = (host().await, network());
    host.libvirt.define_network(spec.uuid, network_xml::to_xml(&spec).unwrap()).await.unwrap();
    host.libvirt.start_network(spec.uuid).await.unwrap();
    let vm = DomainSpec { interfaces: web().interfaces[..1].to_vec(), ..web() };
    host.libvirt.define(vm.uuid, to_xml(&vm).unwrap()).await.unwrap();
    assert_eq!(host.libvirt.leases(vm.uuid).await.unwrap(), []);
    host.libvirt.start(vm.uuid, StartPaused::No).await.unwrap();
    let leases = host.libvirt.leases(vm.uuid).await.unwrap();
    assert!(leases.iter().any(|lease| lease.mac == vm.interfaces[0].mac), "{leases:?}");
}

fn network() -> NetworkSpec {
    NetworkSpec {
        uuid: Uuid::from_u128(0x1111_2222_3333_4444_8555_6666_7777_8888),
        name: "shop.default".into(),
        record: "{}".into(),
        bridge: "hf1111222233".into(),
        kind: NetworkKind::Nat,
        subnet: Subnet { address: "10.20.0.0".parse().unwrap(), prefix: 24 },
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_guests_at_once_keep_their_order() {
    let host = host().await;
    let lives = (0..40_u128).map(|number| {
        let libvirt = host.libvirt.clone();
        tokio::spawn(async move {
            let mut spec =
                DomainSpec { uuid: Uuid::from_u128(number + 1), name: format!("vm-{number}"), ..web() };
            spec.interfaces.clear();
            libvirt.define(spec.uuid, to_xml(&spec).unwrap()).await?;
            for _ in 0..5 {
                libvirt.start(spec.uuid, StartPaused::No).await?;
                libvirt.destroy(spec.uuid).await?;
            }
            libvirt.undefine(spec.uuid).await
        })
    });
    for life in lives.collect::<Vec<_>>() {
        life.await.unwrap().unwrap();
    }
    assert_eq!(host.libvirt.domains().await.unwrap(), []);
}
