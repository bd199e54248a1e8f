//! Guests on NAT, isolated and bridged networks, and what a node says when it cannot offer one.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_api::virtual_machine::AddressSource;
use holdfast_api::{VirtualMachine, VirtualMachineNetwork};
use holdfast_tests::host::Host;
use holdfast_tests::machine::{Blueprint, Machine, SOON, tiny};
use holdfast_tests::peer;
use holdfast_tests::story::{self, Story};
use holdfast_tests::wait::Look;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::json;

/// An address beyond the host that knows the way back to the host alone, not to its guests.
const OUTSIDE: &str = "198.51.100.2";
/// Addresses of the host that are none of its guests' business.
const HOSTS_OWN: [&str; 2] = ["198.51.100.1", "169.254.169.254"];

/// A tiny guest on host `a`, connected to this network.
fn on(network: &str, name: &str) -> Blueprint {
    let interfaces = json!([{"name": "lan", "network": {"name": network}}]);
    tiny(name).with("interfaces", interfaces).on("a")
}

async fn offer(story: &Story<'_>, name: &str, spec: &str) -> Result<VirtualMachineNetwork> {
    story.create(&format!("{{metadata: {{name: {name}}}, spec: {spec}}}")).await
}

/// The first address that the status shows.
async fn address(machine: &Machine<'_>) -> Result<(String, AddressSource)> {
    machine
        .wait("shown with an address", SOON, |object: &VirtualMachine| {
            let mut shown = object.status.iter().flat_map(|status| &status.addresses);
            shown.next().map_or_else(
                || Look::NotYet("no address".to_owned()),
                |shown| Look::Done((shown.ip.clone(), shown.source)),
            )
        })
        .await
}

/// The sentence under `Ready=False` once it has this reason.
async fn wait_reason(machine: &Machine<'_>, reason: &str) -> Result<String> {
    machine
        .wait(&format!("not ready for {reason}"), SOON, |object: &VirtualMachine| {
            let mut conditions = object.status.iter().flat_map(|status| &status.conditions);
            match conditions.find(|condition| condition.type_ == "Ready") {
                Some(ready) if ready.reason == reason && ready.status == "False" => {
                    Look::Done(ready.message.clone())
                }
                ready => Look::NotYet(format!("{ready:?}")),
            }
        })
        .await
}

/// ```text
/// host: 169.254.169.254, up0 198.51.100.1 ── beyond: up1 198.51.100.2
/// ```
fn build_outside(host: &Host) -> Result<()> {
    if host.run(&["ip", "netns", "list"])?.contains("beyond") {
        return Ok(());
    }
    for step in [
        "ip netns add beyond",
        "ip link add up0 type veth peer name up1 netns beyond",
        "ip address add 198.51.100.1/24 dev up0",
        "ip link set up0 up",
        "ip address add 169.254.169.254/32 dev lo",
        "ip -n beyond address add 198.51.100.2/24 dev up1",
        "ip -n beyond link set up1 up",
    ] {
        host.run(&step.split(' ').collect::<Vec<_>>())?;
    }
    Ok(())
}

/// ```text
/// host: br-plant 10.66.0.2 ── plant0 ── plant: plant1 10.66.0.1, serving DHCP
/// ```
fn build_plant(host: &mut Host) -> Result<()> {
    host.add_bridge("br-plant")?;
    for step in [
        "ip address add 10.66.0.2/24 dev br-plant",
        "ip netns add plant",
        "ip link add plant0 type veth peer name plant1 netns plant",
        "ip link set plant0 master br-plant up",
        "ip -n plant address add 10.66.0.1/24 dev plant1",
        "ip -n plant link set plant1 up",
    ] {
        host.run(&step.split(' ').collect::<Vec<_>>())?;
    }
    let mut dhcp = peer::mortal("ip");
    dhcp.args(["netns", "exec", "plant"]).arg(peer::packaged("dnsmasq", "dnsmasq-base")?);
    dhcp.args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--port=0",
        "--bind-interfaces",
        "--interface=plant1",
    ]);
    dhcp.args([
        "--dhcp-range=10.66.0.10,10.66.0.50,1h",
        "--dhcp-leasefile=/run/plant.leases",
        "--pid-file=",
        "--user=root",
    ]);
    host.start_process("plant-dhcp", dhcp)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_on_a_nat_network_gets_an_address_and_reaches_the_world_beyond() -> Result<()> {
    story::tell("nat", async |story| {
        build_outside(story.site.member("a").await?.host())?;
        story.offer_image("tiny").await?;
        offer(story, "lan", "{nat: {subnet: 10.77.5.0/24}}").await?;
        let machine =
            story.machine(&on("lan", "m").that(&format!("reach={OUTSIDE} reach=10.77.5.1"))).await?;
        machine.wait_condition("AddressKnown", "True", SOON).await?;
        let (ip, source) = address(&machine).await?;
        assert!(ip.starts_with("10.77.5.") && source == AddressSource::Lease, "{ip} {source:?}");
        machine.wait_serial(&format!("address eth0 {ip}/24"), 1, SOON).await?;
        for reached in [OUTSIDE, "10.77.5.1"] {
            machine.wait_serial(&format!("reached {reached}"), 1, SOON).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_on_an_isolated_network_reach_each_other_and_nothing_beyond() -> Result<()> {
    story::tell("isolated", async |story| {
        build_outside(story.site.member("a").await?.host())?;
        story.offer_image("tiny").await?;
        offer(story, "lan", "{isolated: {}}").await?;
        let [host, metadata] = HOSTS_OWN;
        let outward = format!("reach={OUTSIDE} reach={host} reach={metadata}");
        let first = story.machine(&on("lan", "first").that(&outward)).await?;
        let (ip, _) = address(&first).await?;
        let second = story.machine(&on("lan", "second").that(&format!("reach={ip}"))).await?;
        second.wait_serial(&format!("reached {ip}"), 1, SOON).await?;
        for never in [OUTSIDE, host, metadata] {
            first.wait_serial(&format!("never reached {never}"), 1, SOON).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_of_one_network_reach_neither_those_of_another_nor_other_addresses_of_their_host() -> Result<()>
{
    story::tell("apart", async |story| {
        build_outside(story.site.member("a").await?.host())?;
        story.offer_image("tiny").await?;
        offer(story, "nat", "{nat: {}}").await?;
        offer(story, "other", "{nat: {}}").await?;
        offer(story, "isolated", "{isolated: {}}").await?;
        let (one, two) =
            (story.machine(&on("nat", "one")).await?, story.machine(&on("isolated", "two")).await?);
        let (one, two) = (address(&one).await?.0, address(&two).await?.0);
        let targets = [&one, &two, HOSTS_OWN[0], HOSTS_OWN[1]];
        let verbs = targets.map(|ip| format!("reach={ip}")).join(" ");
        let intruder = story.machine(&on("other", "intruder").that(&verbs)).await?;
        for ip in targets {
            intruder.wait_serial(&format!("never reached {ip}"), 1, SOON).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_on_a_bridge_of_the_host_is_served_by_that_network_and_its_address_is_shown() -> Result<()> {
    story::tell("bridge", async |story| {
        build_plant(story.site.member("a").await?.host())?;
        story.offer_image("tiny").await?;
        offer(story, "plant", "{bridge: {name: br-plant}}").await?;
        // The host learns an address when the guest speaks to it.
        let machine = story.machine(&on("plant", "m").that("reach=10.66.0.1 reach=10.66.0.2")).await?;
        for reached in ["10.66.0.1", "10.66.0.2"] {
            machine.wait_serial(&format!("reached {reached}"), 1, SOON).await?;
        }
        let (ip, source) = address(&machine).await?;
        assert!(ip.starts_with("10.66.0.") && source == AddressSource::Arp, "{ip} {source:?}");
        machine.wait_serial(&format!("address eth0 {ip}/24"), 1, SOON).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_whose_bridge_is_missing_says_so_and_starts_when_it_is_there() -> Result<()> {
    story::tell("no-bridge", async |story| {
        story.offer_image("tiny").await?;
        offer(story, "late", "{bridge: {name: br-late}}").await?;
        let machine = story.machine(&on("late", "m")).await?;
        let sentence = wait_reason(&machine, "BridgeMissing").await?;
        assert!(sentence.contains("no bridge br-late; create it on the node"), "{sentence}");
        story.site.member("a").await?.host().add_bridge("br-late")?;
        machine.wait_condition("Ready", "True", SOON).await.map(drop)
    })
    .await
}

/// Told of a halted machine, so that nothing has to start.
#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_no_node_offers_is_said_node_by_node_and_nothing_is_placed() -> Result<()> {
    story::tell("not-offered", async |story| {
        story.offer_image("tiny").await?;
        for (name, spec, lacks) in [
            (
                "stolen",
                "{nat: {subnet: 8.8.0.0/16}}",
                "subnet 8.8.0.0/16, which network stolen names (list it under subnetPools",
            ),
            ("cni", "{bridge: {name: cni0}}", "bridge cni0, which network cni names (list it under bridges"),
            (
                "tag",
                "{bridge: {name: br-trunk, vlan: 121}}",
                "VLAN 121 of bridge br-trunk, which network tag names",
            ),
        ] {
            offer(story, name, spec).await?;
            let anywhere = tiny(name).with("interfaces", json!([{"name": "lan", "network": {"name": name}}]));
            let machine = story.machine(&anywhere.with("runStrategy", "Halted")).await?;
            let sentence = wait_reason(&machine, "NoNodeFits").await?;
            for node in ["a", "b"] {
                ensure!(sentence.contains(&format!("{node} does not offer guests {lacks}")), "{sentence}");
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_later_of_two_overlapping_networks_names_the_other_and_gets_its_turn() -> Result<()> {
    story::tell("clash", async |story| {
        story.offer_image("tiny").await?;
        offer(story, "wide", "{nat: {subnet: 10.78.0.0/16}}").await?;
        offer(story, "narrow", "{isolated: {subnet: 10.78.3.0/24}}").await?;
        let first = story.machine(&on("wide", "first")).await?;
        first.wait_condition("Ready", "True", SOON).await?;
        let second = story.machine(&on("narrow", "second")).await?;
        let sentence = wait_reason(&second, "SubnetClash").await?;
        let other = format!("overlaps network {}/wide (10.78.0.0/16) on this node", story.namespace);
        ensure!(sentence.contains(&other), "{sentence}");
        assert_eq!(first.domain_state().await?, "running");

        first.delete().await?;
        first.wait_gone(SOON).await?;
        second.wait_condition("Ready", "True", 2 * SOON).await.map(drop)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vlan_of_a_bridge_carries_guests_or_the_kernel_is_said_to_lack_vlans() -> Result<()> {
    story::tell("vlan", async |story| {
        let has_vlans = {
            let mut member = story.site.member("a").await?;
            member.host().add_bridge("br-trunk")?;
            let probe = "ip link add link br-trunk name br-trunk.7 type vlan id 7";
            member.host().output(&probe.split(' ').collect::<Vec<_>>())?.status.success()
        };
        story.offer_image("tiny").await?;
        offer(story, "tagged", "{bridge: {name: br-trunk, vlan: 120}}").await?;
        let machine = story.machine(&on("tagged", "m")).await?;
        if has_vlans {
            machine.wait_condition("Ready", "True", SOON).await.map(drop)
        } else {
            let sentence = wait_reason(&machine, "VlanUnsupported").await?;
            ensure!(sentence.contains("load the module 8021q on the node"), "{sentence}");
            Ok(())
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_starts_again_without_its_network_object_and_follows_one_made_again() -> Result<()> {
    story::tell("remembered", async |story| {
        story.offer_image("tiny").await?;
        offer(story, "lan", "{nat: {}}").await?;
        let machine = story.machine(&on("lan", "m")).await?;
        let before = address(&machine).await?;
        let networks: Api<VirtualMachineNetwork> = story.api();
        networks.delete("lan", &DeleteParams::default()).await?;
        story.wait_gone::<VirtualMachineNetwork>("lan", SOON).await?;

        machine.change(json!({"restartRequest": "now"})).await?;
        machine.wait_serial(&format!("address eth0 {}/24", before.0), 2, SOON).await?;
        machine.wait_condition("Ready", "True", SOON).await?;

        offer(story, "lan", "{nat: {subnet: 10.79.0.0/24}}").await?;
        machine.change(json!({"restartRequest": "again"})).await?;
        machine.wait_serial("address eth0 10.79.0.", 1, SOON).await?;

        // Its subnet is that of the network it takes the place of.
        networks.delete("lan", &DeleteParams::default()).await?;
        story.wait_gone::<VirtualMachineNetwork>("lan", SOON).await?;
        offer(story, "lan", "{nat: {subnet: 10.79.0.0/24}}").await?;
        machine.change(json!({"restartRequest": "once more"})).await?;
        machine.wait_serial("address eth0 10.79.0.", 2, SOON).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn networks_of_the_same_name_in_two_namespaces_are_two_networks() -> Result<()> {
    let subnet = async |name: &'static str| {
        let mut subnet = String::new();
        story::tell(name, async |story| {
            story.offer_image("tiny").await?;
            offer(story, "lan", "{nat: {}}").await?;
            let machine = story.machine(&on("lan", "m")).await?;
            let (ip, _) = address(&machine).await?;
            subnet = ip.rsplit_once('.').context("the address is no IPv4 address")?.0.to_owned();
            // The other story begins meanwhile, on the same host.
            tokio::time::sleep(Duration::from_secs(20)).await;
            Ok(())
        })
        .await?;
        Ok::<_, anyhow::Error>(subnet)
    };
    let (one, other) = Box::pin(futures::future::try_join(subnet("same-one"), subnet("same-other"))).await?;
    assert_ne!(one, other);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn networks_of_deleted_machines_leave_the_node_and_foreign_ones_stay() -> Result<()> {
    story::tell("collected", async |story| {
        story.offer_image("tiny").await?;
        let network = offer(story, "lan", "{nat: {}}").await?;
        let machine = story.machine(&on("lan", "m").with("runStrategy", "Halted")).await?;
        machine.wait_condition("Ready", "True", SOON).await?;
        machine.change(json!({"runStrategy": "Always"})).await?;
        machine.wait_condition("Running", "True", SOON).await?;
        machine.delete().await?;
        machine.wait_gone(SOON).await?;

        let uid = network.metadata.uid.context("the network has no UID")?;
        holdfast_tests::wait::wait_for("the network to leave the host", 2 * SOON, async || {
            let networks = story.site.member("a").await?.host().virsh(&["net-list", "--all", "--name"])?;
            ensure!(networks.lines().any(|name| name.trim() == "default"), "the host's own network is gone");
            let left = networks.contains(&uid);
            Ok(if left { Look::NotYet("still there".to_owned()) } else { Look::Done(()) })
        })
        .await
    })
    .await
}
