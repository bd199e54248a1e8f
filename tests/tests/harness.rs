//! The harness itself: its peers are real, come up, and survive what stories do to them.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use holdfast_tests::control_plane::ControlPlane;
use holdfast_tests::host::Host;
use holdfast_tests::link::Mode;
use holdfast_tests::wait::{Look, wait_for};
use holdfast_tests::{files, guest_image, install, kubeconfig, ports, site_folder};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::PostParams;

fn fresh_folder(name: &str) -> Result<PathBuf> {
    site_folder::fresh(&format!("harness/{name}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_plane_keeps_its_state_when_the_api_server_is_killed() -> Result<()> {
    let mut plane = ControlPlane::start(&fresh_folder("plane")?).await?;
    let namespaces: Api<Namespace> = Api::all(plane.client().await?);
    let mut kept = Namespace::default();
    kept.metadata.name = Some("kept".to_owned());
    namespaces.create(&PostParams::default(), &kept).await?;

    plane.kill_apiserver();
    assert!(namespaces.get("kept").await.is_err(), "a killed API server answers nothing");

    plane.start_apiserver().await?;
    namespaces.get("kept").await?;
    Ok(())
}

#[test]
fn two_hosts_run_side_by_side_with_a_network_of_the_same_name() -> Result<()> {
    let folder = fresh_folder("two")?;
    let hosts = [Host::start(&folder.join("a"), "a")?, Host::start(&folder.join("b"), "b")?];
    for host in &hosts {
        host.virsh(&["net-start", "default"])?;
        let addresses = host.run(&["ip", "-brief", "address", "show", "virbr0"])?;
        assert!(addresses.contains("192.168.122.1/24"), "{addresses}");
        assert_eq!(host.run(&["hostname"])?.trim(), host.name());
    }
    Ok(())
}

#[test]
fn a_killed_libvirtd_comes_back_and_finds_its_network() -> Result<()> {
    let mut host = Host::start(&fresh_folder("killed")?, "killed")?;
    host.virsh(&["net-start", "default"])?;
    host.libvirtd()?.kill_9();
    assert!(host.virsh(&["list"]).is_err(), "a killed libvirtd answers nothing");
    host.start_libvirtd()?;
    assert!(host.virsh(&["net-list"])?.contains("default"));
    Ok(())
}

#[test]
fn a_reboot_ends_every_process_and_empties_run() -> Result<()> {
    let mut host = Host::start(&fresh_folder("reboot")?, "reboot")?;
    host.virsh(&["net-start", "default"])?;
    host.run(&["touch", "/run/before", "/var/lib/holdfast/kept"])?;
    let dnsmasq = host.run(&["pgrep", "dnsmasq"])?;
    assert!(!dnsmasq.is_empty());
    host.reboot()?;
    assert!(!host.outside("/run/before").exists());
    assert!(host.outside("/var/lib/holdfast/kept").exists());
    assert!(host.run(&["pgrep", "dnsmasq"]).is_err(), "no process of the earlier boot is left");
    Ok(())
}

#[test]
fn a_link_is_the_only_way_out_of_a_host() -> Result<()> {
    let server = std::net::TcpListener::bind("127.0.0.1:0")?;
    let outside = server.local_addr()?;
    std::thread::spawn(move || {
        for mut stream in server.incoming().flatten() {
            let _ = std::io::Write::write_all(&mut stream, b"hello");
        }
    });
    let mut host = Host::start(&fresh_folder("link")?, "link")?;
    let inside = ports::free()?;
    let link = host.add_link(inside, &outside.to_string())?;
    let read = |port: u16| format!("exec 3<>/dev/tcp/127.0.0.1/{port} && timeout 5 cat <&3");
    assert_eq!(host.run(&["bash", "-c", &read(inside)])?, "hello");
    assert_eq!(link.bytes(), 5);
    assert!(
        host.run(&["bash", "-c", &read(outside.port())]).is_err(),
        "the machine's loopback is not the host's"
    );
    link.set(Mode::Down);
    assert_eq!(host.run(&["bash", "-c", &read(inside)])?, "");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_and_policies_are_in_force_after_an_installation() -> Result<()> {
    let folder = fresh_folder("install")?;
    let plane = ControlPlane::start(&folder).await?;
    let client = plane.client().await?;
    install::install(&plane.kubeconfig(), &client, &folder).await?;
    install::install(&plane.kubeconfig(), &client, &folder).await?;
    let explained = install::kubectl(&plane.kubeconfig(), &["explain", "hvm.spec"])?;
    assert!(explained.contains("runStrategy"), "{explained}");
    Ok(())
}

const GUEST: &str = "<domain type='qemu'><name>guest</name><memory unit='MiB'>256</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features>
  <devices>
    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/var/lib/holdfast/guest.qcow2'/>
      <target dev='vda' bus='virtio'/></disk>
    <interface type='network'><source network='default'/><model type='virtio'/></interface>
    <serial type='pty'><log file='/var/lib/holdfast/serial.log' append='on'/></serial>
  </devices></domain>";

fn start_guest(host: &Host) -> Result<()> {
    let image = guest_image::find("tiny")?;
    std::fs::copy(&image.file, host.outside("/var/lib/holdfast/guest.qcow2"))?;
    files::write(&host.outside("/var/lib/holdfast/guest.xml"), GUEST)?;
    host.virsh(&["net-start", "default"])?;
    host.virsh(&["define", "--validate", "/var/lib/holdfast/guest.xml"])?;
    host.virsh(&["start", "guest"]).map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_boots_gets_an_address_and_outlives_its_libvirtd() -> Result<()> {
    let mut host = Host::start(&fresh_folder("guest")?, "guest")?;
    start_guest(&host)?;
    let serial = host.outside("/var/lib/holdfast/serial.log");
    wait_for("the guest's serial line", Duration::from_secs(120), async || {
        let text = files::read(&serial)?;
        Ok(if text.contains("holdfast-tiny ready") { Look::Done(()) } else { Look::NotYet(text) })
    })
    .await?;
    wait_for("the guest's address", Duration::from_secs(60), async || {
        let leases = host.virsh(&["domifaddr", "guest"])?;
        Ok(if leases.contains("192.168.122.") { Look::Done(()) } else { Look::NotYet(leases) })
    })
    .await?;
    let before = host.run(&["pgrep", "qemu-system"])?;
    host.libvirtd()?.kill_9();
    host.start_libvirtd()?;
    assert_eq!(host.virsh(&["domstate", "guest"])?.trim(), "running");
    assert_eq!(host.run(&["pgrep", "qemu-system"])?, before);

    host.power_off();
    host.boot()?;
    assert_eq!(host.virsh(&["domstate", "guest"])?.trim(), "shut off");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_our_programs_are_counted_at_the_api_server() -> Result<()> {
    let folder = fresh_folder("audit")?;
    let plane = ControlPlane::start(&folder).await?;
    let mark = plane.audit().mark();
    let node = kubeconfig::client(&plane.write_kubeconfig("holdfast:node:n1", &["holdfast:nodes"])?).await?;
    let namespaces: Api<Namespace> = Api::all(node);
    assert!(namespaces.get("default").await.is_err(), "a node has no rights of its own");
    Api::<Namespace>::all(plane.client().await?).get("default").await?;
    let seen = plane.audit().since(mark)?;
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(
        (seen[0].user(), seen[0].what().as_str(), seen[0].code()),
        ("holdfast:node:n1", "get namespaces", 403)
    );
    Ok(())
}
