//! What ails a host shows in its node while it lasts: a disk without writes, a full one, a clock that jumped. The host speaks
//! to libvirt's test driver; its disk is a small filesystem of its own, and its clock Debian's `faketime`.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use holdfast_api::{HypervisorNode, NodeEnrolment};
use holdfast_tests::files;
use holdfast_tests::machine::{Blueprint, Machine, SOON, tiny};
use holdfast_tests::story::{self, Story};
use holdfast_tests::wait::{Look, wait_for};
use kube::Api;
use kube::api::ListParams;
use serde_json::json;

/// What fails is to show within this, and its end too; a busy machine gets five times that.
const SHOWN: Duration = Duration::from_secs(30);
const STATE: &str = "/var/lib/holdfast";
const CLOCK: &str = "/run/clock";
const CLOCK_LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
/// Puts the state folder onto a disk of half a GiB.
const MOVE: &str = "cp -a /var/lib/holdfast /run/kept && mount -t tmpfs -o size=512m disk /var/lib/holdfast && \
    cp -a /run/kept/. /var/lib/holdfast/";

#[tokio::test(flavor = "multi_thread")]
async fn what_ails_a_host_shows_in_its_node_and_ends_when_its_cause_does() -> Result<()> {
    story::tell_alone("ill", async |story| {
        start(story).await?;
        story.offer_image("tiny").await?;
        let well = story.machine(&machine("well")).await?;
        well.wait_condition("Ready", "True", SOON).await?;
        read_only(story).await.context("a disk without writes")?;
        full_and_out_of_time(story, &well).await.context("a full disk and a clock that jumped")
    })
    .await
}

/// The daemon has a disk and a clock of its own from here on.
async fn start(story: &Story<'_>) -> Result<()> {
    ensure!(Path::new(CLOCK_LIBRARY).exists(), "peer missing: faketime");
    let mut member = story.site.member("a").await?;
    // The disk is small, and not for images alone.
    let configuration = member.configuration();
    let text = files::read(&configuration)?.replace("\"budget\": \"4Gi\"", "\"budget\": \"256Mi\"");
    files::write(&configuration, text)?;
    member.use_test_driver()?;
    member.stop_daemon()?;
    member.host().run(&["bash", "-c", MOVE])?;
    files::write(&member.host().outside(CLOCK), "+0")?;
    member.start_daemon_with(&[
        ("LD_PRELOAD", CLOCK_LIBRARY),
        ("FAKETIME_TIMESTAMP_FILE", CLOCK),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("NO_FAKE_STAT", "1"),
    ])
}

fn machine(name: &str) -> Blueprint {
    let disks = json!([{"name": "root", "size": "1Mi", "blank": {}}]);
    tiny(name).with("disks", disks).with("interfaces", json!([])).on("a")
}

/// Nothing is started and nothing imported.
async fn read_only(story: &Story<'_>) -> Result<()> {
    let disks = json!([{"name": "root", "size": "64Mi", "image": {"name": "tiny"}}]);
    let late = story.machine(&machine("late").with("disks", disks).with("runStrategy", "Halted")).await?;
    late.wait_condition("Scheduled", "True", SOON).await?;
    let image = format!("{}/tiny.qcow2", story.namespace);
    let requests = story.site.images().seen(&image).len();

    on_a(story, &["mount", "-o", "remount,ro", STATE]).await?;
    says(story, "False", "StateReadOnly").await?;
    late.change(json!({"runStrategy": "Always"})).await?;
    late.wait_unready("StateReadOnly", SOON).await?;
    ensure!(story.site.images().seen(&image).len() == requests, "it imports onto a disk without writes");

    on_a(story, &["mount", "-o", "remount,rw", STATE]).await?;
    says(story, "True", "NodeReady").await?;
    late.wait_condition("Ready", "True", SOON).await.map(drop)
}

/// Both at once: the node lists both, and neither ends the other.
async fn full_and_out_of_time(story: &Story<'_>, well: &Machine<'_>) -> Result<()> {
    let enrolments: Api<NodeEnrolment> = Api::all(story.admin.clone());
    let count = async || {
        let found = enrolments.list_metadata(&ListParams::default()).await;
        found.map(|list| list.items.len()).context("could not count the enrolments")
    };
    let before = (well.status().await?, count().await?);
    let clock = story.site.member("a").await?.host().outside(CLOCK);
    let filler = format!("{STATE}/filler");
    on_a(story, &["bash", "-c", &format!("dd if=/dev/zero of={filler} bs=1M status=none; test -s {filler}")])
        .await?;
    files::write(&clock, "+10y")?;
    let frees = says(story, "False", "DiskFull").await?;
    ensure!(frees.contains("delete images that no virtual machine uses"), "{frees}");
    on_a(story, &["rm", &filler]).await?;
    says(story, "False", "ClockJumped").await?;
    // Longer than the daemon takes to look at everything anew.
    tokio::time::sleep(Duration::from_secs(10)).await;
    ensure!((well.status().await?, count().await?) == before, "something was restarted or expired");
    files::write(&clock, "+0")?;
    says(story, "True", "NodeReady").await?;
    ensure!((well.status().await?, count().await?) == before, "the clock's return changed something");
    ensure!(story.site.member("a").await?.daemon()?.ended().is_none(), "the daemon ended for it");
    Ok(())
}

async fn on_a(story: &Story<'_>, words: &[&str]) -> Result<()> {
    story.site.member("a").await?.host().run(words).map(drop)
}

/// Node a says so; returns its sentence.
async fn says(story: &Story<'_>, status: &str, reason: &str) -> Result<String> {
    let nodes: Api<HypervisorNode> = Api::all(story.admin.clone());
    let began = Instant::now();
    let said = wait_for(&format!("node a to say {reason}"), 5 * SHOWN, async || {
        let conditions =
            nodes.get("a").await.context("could not read it")?.status.unwrap_or_default().conditions;
        let ready = conditions.into_iter().find(|it| it.type_ == "Ready").context("it says nothing")?;
        let done = ready.status == status && ready.reason == reason;
        Ok(if done {
            Look::Done(ready.message)
        } else {
            Look::NotYet(format!("{}: {}", ready.reason, ready.message))
        })
    })
    .await?;
    tracing::info!(reason, took = ?began.elapsed(), promised = ?SHOWN, "it showed");
    Ok(said)
}
