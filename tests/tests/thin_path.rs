//! From an applied object to a running guest and back to nothing.

use anyhow::Result;
use holdfast_tests::machine::{LATER, SOON, debian, tiny};
use holdfast_tests::story;

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

        let node = machine.node().await?;
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
async fn cloud_init_of_debian_makes_the_guest_answer_ssh() -> Result<()> {
    story::tell("cloud-init", async |story| {
        story.offer_image("debian").await?;
        story.offer_network().await?;
        story.offer_key().await?;
        let keys = serde_json::json!([{"name": "site"}]);
        let machine = story.machine(&debian("deb").cloud_init("sshKeys", keys)).await?;
        machine.wait_condition("AddressKnown", "True", LATER).await?;
        let guest = machine.guest("debian").await?;
        guest.wait_ssh(LATER).await?;
        assert_eq!(guest.run(&["cloud-init", "status", "--wait"])?.trim(), "status: done");
        assert_eq!(guest.run(&["hostname"])?.trim(), "deb");
        Ok(())
    })
    .await
}
