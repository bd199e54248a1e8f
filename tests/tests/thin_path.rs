//! From an applied object to a running guest and back to nothing.

use anyhow::Result;
use holdfast_api::HypervisorNode;
use holdfast_tests::machine::{LATER, SOON, debian, tiny};
use holdfast_tests::{files, install, story};
use kube::Api;

#[tokio::test(flavor = "multi_thread")]
async fn an_applied_virtual_machine_runs_has_an_address_and_leaves_nothing_behind() -> Result<()> {
    story::tell("thin-path", async |story| {
        story.offer_image("tiny").await?;
        story.offer_network().await?;
        let machine = story.machine(&tiny("web").cloud_init("hostname", "shop")).await?;
        machine.wait_condition("Ready", "True", SOON).await?;
        machine.wait_condition("AddressKnown", "True", SOON).await?;
        machine.wait_serial("hostname=shop", 1, SOON).await?;
        assert_eq!(machine.domain_state().await?, "running");
        let (uid, _) = machine.user().await?;
        assert!((2_100_000_000..2_100_065_536).contains(&uid), "{uid}");

        let node = machine.node().await?;
        let nodes: Api<HypervisorNode> = Api::all(story.admin.clone());
        let confinement = nodes.get(&node).await?.status.and_then(|status| status.confinement);
        let confinement = confinement.unwrap_or_default();
        assert_eq!(confinement.drivers, ["dac"], "the hosts of the tests have no other");
        assert!(confinement.message.contains("neither AppArmor nor SELinux"), "{}", confinement.message);
        let log =
            files::read(&story.site.member(&node).await?.host().folder().join("logs/holdfast-node.log"))?;
        assert!(log.contains("neither AppArmor nor SELinux"), "nothing of it in the log");

        machine.delete().await?;
        machine.wait_gone(SOON).await?;
        let mut member = story.site.member(&node).await?;
        assert!(!member.host().virsh(&["list", "--all", "--uuid"])?.contains(machine.uid()));
        assert!(!member.host().outside(&format!("/var/lib/holdfast/vms/{}", machine.uid())).exists());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_shows_a_machine_waits_for_it_tells_its_story_and_explains_its_kind() -> Result<()> {
    story::tell("kubectl", async |story| {
        let editor = story.editor();
        let kubectl =
            |words: &[&str]| install::kubectl(&editor, &[&["--namespace", "kubectl"], words].concat());
        story.offer_image("tiny").await?;
        story.offer_network().await?;
        story.machine(&tiny("web")).await?;
        kubectl(&["wait", "--for=condition=Ready", "--timeout=120s", "hvm/web"])?;
        kubectl(&["wait", "--for=condition=AddressKnown", "--timeout=120s", "hvm/web"])?;

        let table = kubectl(&["get", "hvm"])?;
        let cells = |line: usize| table.lines().nth(line).unwrap_or_default().split_whitespace();
        assert!(cells(0).eq(["NAME", "STATUS", "READY", "NODE", "IP", "AGE"]), "{table}");
        assert!(cells(1).take(3).eq(["web", "Running", "True"]), "{table}");
        assert!(cells(1).nth(4).is_some_and(|ip| ip.parse::<std::net::Ipv4Addr>().is_ok()), "{table}");

        let described = kubectl(&["describe", "hvm", "web"])?;
        let events = described.split_once("Events:").map(|(_, events)| events).unwrap_or_default();
        for told in ["Scheduled", "placed on", "Started", "the guest was started"] {
            assert!(events.contains(told), "no {told:?} in the events of: {described}");
        }

        let manual = install::kubectl(&editor, &["explain", "hvm.spec"])?;
        for sentence in
            ["Memory of the guest in whole Mi, Gi or Ti", "Takes effect at once", "It cannot change"]
        {
            assert!(
                manual.split_whitespace().collect::<Vec<_>>().join(" ").contains(sentence),
                "no {sentence:?} in: {manual}"
            );
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn cloud_init_of_debian_makes_the_guest_answer_ssh() -> Result<()> {
    story::tell("cloud-init", async |story| {
        story.offer_image("debian").await?;
        story.offer_network().await?;
        story.offer_key().await?;
        let keys = serde_json::json!([{"name": "site"}]);
        let machine = story.machine(&debian("deb").cloud_init("sshKeys", keys)).await?;
        machine.wait_condition("AddressKnown", "True", LATER).await?;
        // With UEFI variables, which libvirt made.
        machine.user().await?;
        let guest = machine.guest("debian").await?;
        guest.wait_ssh(LATER).await?;
        assert_eq!(guest.run(&["cloud-init", "status", "--wait"])?.trim(), "status: done");
        assert_eq!(guest.run(&["hostname"])?.trim(), "deb");
        Ok(())
    })
    .await
}
