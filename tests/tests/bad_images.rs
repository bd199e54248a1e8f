//! Images that are wrong, broken or hostile: each is named in one sentence, and nobody else on the node notices.

#[path = "bad_images/cases.rs"]
mod cases;
#[path = "bad_images/disk_full.rs"]
mod disk_full;
#[path = "bad_images/image_files.rs"]
mod image_files;

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use holdfast_api::{HypervisorNode, VirtualMachineImage};
use holdfast_tests::files;
use holdfast_tests::image_server::Behaviour;
use holdfast_tests::machine::{Machine, SOON, tiny};
use holdfast_tests::story::{self, Story};
use holdfast_tests::wait::Look;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use cases::{ALLOWED, Case, Help};
use image_files::{ImageFiles, image, no_digest};

const STARTED: &str = "holdfast-tiny ready";

/// Room for many machines that never start.
async fn widen(story: &Story<'_>, node: &str) -> Result<()> {
    let nodes: Api<HypervisorNode> = Api::all(story.admin.clone());
    let patch = Patch::Merge(json!({"spec": {"cpuOvercommit": 32}}));
    nodes.patch(node, &PatchParams::default(), &patch).await.context("could not widen the node").map(drop)
}

async fn try_machine<'a>(story: &'a Story<'a>, node: &str, name: &str, image: &Value) -> Result<Machine<'a>> {
    let object = json!({"metadata": {"name": name}, "spec": image});
    story.create::<VirtualMachineImage>(&object.to_string()).await?;
    let disks = json!([{"name": "root", "size": "64Mi", "image": {"name": name}}]);
    story.machine(&tiny(name).with("memory", "64Mi").with("disks", disks).on(node)).await
}

async fn check(story: &Story<'_>, case: &Case) -> Result<()> {
    let machine = try_machine(story, "a", case.name, &case.image).await?;
    let sentence = machine.wait_unready(case.reason, SOON).await?;
    ensure!(sentence.contains(&case.sentence), "{}: {sentence}", case.name);
    let stalled = if case.help == Help::Edit { "True" } else { "False" };
    machine.wait_condition("Stalled", stalled, SOON).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_image_is_named_in_a_sentence_and_a_running_guest_on_the_node_is_undisturbed() -> Result<()> {
    story::tell("bad", async |story| {
        story.offer_image("tiny").await?;
        story.offer_network().await?;
        widen(story, "a").await?;
        let running = story.machine(&tiny("running").on("a")).await?;
        running.wait_serial(STARTED, 1, SOON).await?;
        let before = running.qemu().await?;

        let offered = ImageFiles::open(story)?;
        let allowed = story.site.member("a").await?.host().outside(ALLOWED);
        let mut cases = cases::broken_sources(&offered)?;
        cases.extend(cases::hostile_files(&offered)?);
        cases.extend(cases::refused_places(&offered, &allowed)?);
        cases.push(cases::held_in_another_format(story)?);
        try_join_all(cases.iter().map(|case| check(story, case))).await?;

        assert_eq!(running.qemu().await?, before);
        assert_eq!(running.serial().await?.matches(STARTED).count(), 1);
        running.wait_condition("Ready", "True", SOON).await.map(drop)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_comes_late_or_in_pieces_or_is_mended_starts_the_guest_by_itself() -> Result<()> {
    story::tell("late", async |story| {
        story.offer_network().await?;
        let offered = ImageFiles::open(story)?;
        let absent = offered.bootable("absent")?;
        let late = offered.serve(&absent, "qcow2", Behaviour::NotFound)?;
        let late = try_machine(story, "b", "late", &late).await?;
        late.wait_unready("ImageNotFound", SOON).await?;
        offered.address(&absent, Behaviour::Good);

        let typo = offered.bootable("typo")?;
        let typo = Corrected::try_wrong(story, offered.serve(&typo, "qcow2", Behaviour::Good)?).await?;
        let exchanged = offered.bootable("exchanged")?;
        prefetch(story, "exchanged", offered.serve(&exchanged, "qcow2", Behaviour::WrongBytes)?).await?;
        wait_prefetched(story, "exchanged", "does not have the digest").await?;
        offered.address(&offered.bootable("exchanged")?, Behaviour::Good);
        let mended = Instant::now();

        let pieces = offered.bootable("pieces")?;
        let pieces = offered.serve(&pieces, "qcow2", Behaviour::Truncated(6 << 20))?;
        let pieces = try_machine(story, "b", "pieces", &pieces).await?;
        pieces.wait_condition("Ready", "True", 2 * SOON).await?;
        let ranges = story.site.images().seen("late/pieces");
        ensure!(ranges.iter().filter(|seen| seen.range.is_some()).count() >= 2, "{ranges:?}");
        wait_prefetched(story, "exchanged", "").await?;
        tracing::info!(took = ?mended.elapsed(), "a file that was exchanged on its server was fetched by both nodes");
        typo.is_ready_from_the_right_bytes().await?;
        late.wait_condition("Ready", "True", SOON).await.map(drop)
    })
    .await
}

/// A machine that was bound to an image with a wrong digest, after the object was made again with the right one.
struct Corrected<'a> {
    machine: Machine<'a>,
    digest: String,
}

impl<'a> Corrected<'a> {
    async fn try_wrong(story: &'a Story<'a>, right: Value) -> Result<Self> {
        let mut wrong = right.clone();
        wrong["digest"] = no_digest(7).into();
        let machine = try_machine(story, "b", "typo", &wrong).await?;
        machine.wait_unready("DigestMismatch", SOON).await?;
        machine.wait_condition("Stalled", "False", SOON).await?;
        let images: Api<VirtualMachineImage> = story.api();
        images.delete("typo", &DeleteParams::default()).await.context("the image stays")?;
        story.wait_gone::<VirtualMachineImage>("typo", SOON).await?;
        let object = json!({"metadata": {"name": "typo"}, "spec": right});
        story.create::<VirtualMachineImage>(&object.to_string()).await?;
        Ok(Self { machine, digest: right["digest"].as_str().unwrap_or_default().to_owned() })
    }

    async fn is_ready_from_the_right_bytes(&self) -> Result<()> {
        self.machine.wait_condition("Ready", "True", SOON).await?;
        let pinned = self.machine.status().await?.disks.first().map(|disk| disk.image_digest.clone());
        ensure!(pinned.as_ref() == Some(&self.digest), "{pinned:?}");
        Ok(())
    }
}

async fn prefetch(story: &Story<'_>, name: &str, mut spec: Value) -> Result<()> {
    spec["prefetch"] = json!({"nodeSelector": {}});
    let object = json!({"metadata": {"name": name}, "spec": spec});
    story.create::<VirtualMachineImage>(&object.to_string()).await.map(drop)
}

/// Waits until the image says this of its nodes, or, where there is nothing to say, is Ready.
async fn wait_prefetched(story: &Story<'_>, name: &str, said: &str) -> Result<()> {
    story
        .wait::<VirtualMachineImage, _>("fetched ahead", name, SOON, |image| {
            let mut conditions = image.status.iter().flat_map(|status| &status.conditions);
            let ready = conditions.find(|condition| condition.type_ == "Ready");
            let is = |ready: &Condition| match said {
                "" => ready.status == "True",
                said => ready.message.contains(said),
            };
            if ready.is_some_and(is) { Look::Done(()) } else { Look::NotYet(format!("{ready:?}")) }
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_may_not_fetch_from_loopback_does_not() -> Result<()> {
    story::tell_alone("loopback", async |story| {
        let offered = ImageFiles::open(story)?;
        let here = offered.serve(&offered.plain("here")?, "raw", Behaviour::Good)?;
        story.offer_network().await?;
        let mut member = story.site.member("b").await?;
        let configuration = member.configuration();
        let before = files::read(&configuration)?;
        let forbidden = before.replace("\"allowLoopback\": true", "\"allowLoopback\": false");
        ensure!(forbidden != before, "the configuration says nothing of loopback: {before}");
        files::write(&configuration, forbidden)?;
        member.stop_daemon()?;
        member.start_daemon()?;
        drop(member);
        let outcome = refused_on_loopback(story, &here).await;

        let mut member = story.site.member("b").await?;
        files::write(&configuration, before)?;
        member.stop_daemon()?;
        member.start_daemon()?;
        outcome
    })
    .await
}

async fn refused_on_loopback(story: &Story<'_>, image: &Value) -> Result<()> {
    let machine = try_machine(story, "b", "here", image).await?;
    let sentence = machine.wait_unready("SourceRefused", SOON).await?;
    ensure!(sentence.contains("127.0.0.1 is a loopback address, which this node does not"), "{sentence}");
    ensure!(story.site.images().seen("loopback/here").is_empty(), "the node asked all the same");
    machine.wait_condition("Stalled", "True", SOON).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_during_an_import_is_named_within_seconds_and_the_import_goes_on_by_itself()
-> Result<()> {
    story::tell_alone("full", async |story| {
        disk_full::cover_image_cache(story).await?;
        let outcome = disk_full::fills_and_is_freed(story).await;
        disk_full::uncover_image_cache(story).await?;
        outcome
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_smaller_than_its_image_is_refused_until_it_grows() -> Result<()> {
    story::tell("small", async |story| {
        story.offer_image("tiny").await?;
        story.offer_network().await?;
        let disks = |size: &str| json!([{"name": "root", "size": size, "image": {"name": "tiny"}}]);
        let machine = story.machine(&tiny("m").with("disks", disks("32Mi"))).await?;
        let sentence = machine.wait_unready("DiskTooSmall", SOON).await?;
        ensure!(
            sentence == "disk root is smaller than its image: set its size to at least 48Mi",
            "{sentence}"
        );
        machine.wait_condition("Stalled", "True", SOON).await?;
        machine.change(json!({"disks": disks("48Mi")})).await?;
        machine.wait_serial(STARTED, 1, SOON).await?;
        machine.wait_condition("Ready", "True", SOON).await?;
        machine.wait_condition("Stalled", "False", SOON).await.map(drop)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_image_that_is_fetched_ahead_is_named_in_its_own_status() -> Result<()> {
    story::tell("ahead", async |story| {
        let offered = ImageFiles::open(story)?;
        let url = offered.address(&offered.plain("ahead")?, Behaviour::Good);
        prefetch(story, "ahead", image(&json!({"http": {"url": url}}), &no_digest(6), "raw")).await?;
        story
            .wait::<VirtualMachineImage, _>("refused by both nodes", "ahead", SOON, |image| {
                let mut conditions = image.status.iter().flat_map(|status| &status.conditions);
                let ready = conditions.find(|condition| condition.type_ == "Ready");
                let said = ready.map(|ready| ready.message.as_str()).unwrap_or_default();
                let named =
                    |node: &str| said.contains(&format!("{node} says: {url} does not have the digest"));
                if named("a") && named("b") { Look::Done(()) } else { Look::NotYet(format!("{ready:?}")) }
            })
            .await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_writes_a_qcow2_header_to_its_raw_disk_changes_nothing() -> Result<()> {
    story::tell("header", async |story| {
        story.offer_image("tiny").await?;
        story.offer_network().await?;
        let disks = json!([
            {"name": "root", "size": "64Mi", "image": {"name": "tiny"}},
            {"name": "data", "size": "16Mi", "blank": {}},
        ]);
        let blueprint = tiny("m").with("disks", disks).that("write-qcow2-header=data").on("a");
        let machine = story.machine(&blueprint).await?;
        machine.wait_serial("wrote qcow2-header", 1, SOON).await?;
        machine.wait_serial(STARTED, 1, SOON).await?;
        machine.change(json!({"restartRequest": "now"})).await?;
        machine.wait_serial(STARTED, 2, SOON).await?;
        machine.wait_condition("Ready", "True", SOON).await?;
        let size = "bytes=16777216 serial=data readonly=0";
        assert_eq!(machine.serial().await?.matches(size).count(), 2, "{}", machine.serial().await?);

        let pid = machine.qemu().await?.context("the guest is off")?;
        let mut member = story.site.member("a").await?;
        let disk = member.host().outside(&format!("/var/lib/holdfast/vms/{}/disk-data.raw", machine.uid()));
        let written = fs::read(disk).context("could not read the data disk")?;
        ensure!(written.starts_with(b"QFI\xfb"), "the guest's header is not on the disk");
        assert_eq!(written.len(), 16 << 20);
        let open = member.host().run(&["ls", "-l", &format!("/proc/{pid}/fd")])?;
        ensure!(open.contains("disk-data.raw") && !open.contains("/etc/passwd"), "{open}");
        Ok(())
    })
    .await
}
