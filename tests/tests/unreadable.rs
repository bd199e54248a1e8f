//! What cannot be read stops nothing else, whoever wrote it and whatever it is. Hosts speak to libvirt's test driver.

#[path = "unreadable/bends.rs"]
mod bends;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bends::{Bend, Kinds, raw};
use holdfast_api::{HypervisorNode, VirtualMachine};
use holdfast_client::Raw;
use holdfast_tests::machine::{Blueprint, tiny};
use holdfast_tests::story::{self, Story};
use holdfast_tests::wait::{Look, wait_for};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::rbac::v1::Role;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

/// What the others may take for each step of their lives.
const SOON: Duration = Duration::from_secs(5);
/// What node a says that it cannot read.
const OF_A: &str = "holdfast_controller_node_unreadable_objects{node=\"a\"}";
/// For what comes before: programs that start, a queue of writes that empties.
const LIMIT: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_cannot_be_read_stops_nothing_else() -> Result<()> {
    story::tell_alone("unreadable", async |story| {
        for name in ["a", "b"] {
            story.site.member(name).await?.use_test_driver()?;
        }
        let bystander = Bystander { story };
        bystander.lives("first").await.context("before anything is bent")?;
        bystander.create(&machine("old").on("a")).await?;
        bystander.is_ready("old", LIMIT).await?;
        let kinds = Kinds::relax(&story.admin).await?;
        let (bent, refused) = bends::bend_all(&story.admin, &story.namespace).await?;
        kinds.restore(&story.admin).await?;
        tracing::info!(bent = bent.len(), refused = refused.len(), "objects are bent");
        for word in &refused {
            tracing::info!("the API server refuses {word}");
        }
        told(story, &bent).await?;
        both_wrote_an_event(story).await?;
        bystander.lives("beside").await.context("beside what is bent")?;
        let mut controller = story.site.controller().await;
        controller.stop();
        controller.launch()?;
        drop(controller);
        for name in ["a", "b"] {
            let mut member = story.site.member(name).await?;
            member.kill_daemon();
            member.start_daemon()?;
        }
        told(story, &bent).await.context("after a restart")?;
        bystander.lives("after").await.context("after restarts of both programs")?;
        nothing_was_lost(story, &bent).await
    })
    .await
}

fn machine(name: &str) -> Blueprint {
    tiny(name)
        .with("disks", json!([{"name": "root", "size": "1Mi", "blank": {}}]))
        .with("interfaces", json!([]))
        .with("terminationGracePeriodSeconds", 1)
}

/// Virtual machines that name nothing that is bent.
struct Bystander<'a> {
    story: &'a Story<'a>,
}

impl Bystander<'_> {
    async fn create(&self, blueprint: &Blueprint) -> Result<()> {
        let created = self.api().create(&PostParams::default(), &Raw::new(blueprint.object())).await;
        created.map(drop).context("could not create it")
    }

    fn api(&self) -> Api<Raw> {
        raw::<VirtualMachine>(&self.story.client, Some(&self.story.namespace))
    }

    async fn is_ready(&self, name: &str, limit: Duration) -> Result<()> {
        wait_for(&format!("{name} to run"), limit, async || {
            let vm = self.api().get(name).await.context("could not read it")?;
            let conditions = vm.value()["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let runs = conditions.iter().any(|it| it["type"] == "Ready" && it["status"] == "True");
            Ok(if runs { Look::Done(()) } else { Look::NotYet(json!(conditions).to_string()) })
        })
        .await
    }

    /// One is placed, started and removed, each soon.
    async fn lives(&self, name: &str) -> Result<()> {
        // The first one after a start waits until the programs are back.
        let warm = format!("{name}-warm");
        self.create(&machine(&warm).on("b")).await?;
        self.is_ready(&warm, LIMIT).await?;
        self.create(&machine(name).on("b")).await?;
        self.is_ready(name, SOON).await?;
        for name in [name, &warm] {
            let start = Instant::now();
            self.api().delete(name, &DeleteParams::default()).await.context("could not delete it")?;
            let what = format!("{name} to go");
            let gone = wait_for(&what, SOON, async || {
                let found = self.api().get_opt(name).await.context("could not read it")?;
                Ok(found.map_or(Look::Done(()), |vm| Look::NotYet(vm.value()["status"].to_string())))
            });
            gone.await?;
            tracing::info!(name, seconds = start.elapsed().as_secs_f32(), "placed, started and removed");
        }
        Ok(())
    }
}

/// The controller is ready, and counts what it and the nodes cannot read; it has work to do for the rest first.
async fn told(story: &Story<'_>, bent: &[Bend]) -> Result<()> {
    let port = story.site.controller().await.port();
    let get = async |path: &str| -> Result<String> {
        let answer = reqwest::get(format!("http://127.0.0.1:{port}/{path}")).await.context("no answer")?;
        ensure!(answer.status().is_success(), "{path} says {}", answer.status());
        answer.text().await.context("no text")
    };
    wait_for("the controller to tell what it cannot read", LIMIT, async || {
        get("readyz").await?;
        let metrics = get("metrics").await?;
        let missing = bent.iter().filter(|bend| bend.shows).map(|bend| bend.kind.as_str());
        let missing: Vec<_> = missing
            .filter(|kind| !metrics.contains(&format!("unreadable_objects{{kind=\"{kind}\"}}")))
            .collect();
        // Node a serves the namespace that they lie in.
        let of_a = metrics.lines().find_map(|line| line.strip_prefix(OF_A)?.trim().parse::<u32>().ok());
        if of_a.unwrap_or_default() == 0 {
            return Ok(Look::NotYet(format!("node a cannot read {of_a:?} objects")));
        }
        Ok(if missing.is_empty() { Look::Done(()) } else { Look::NotYet(format!("{missing:?}")) })
    })
    .await
}

/// Both programs name the machine that they cannot read, where its owner looks.
async fn both_wrote_an_event(story: &Story<'_>) -> Result<()> {
    let events: Api<Raw> = raw::<Event>(&story.client, Some(&story.namespace));
    wait_for("events on old by both programs", LIMIT, async || {
        let list = events.list(&ListParams::default()).await.context("no events")?;
        let on_old = |event: &Value| event["regarding"]["name"] == "old" && event["reason"] == "Unreadable";
        let told = list.items.iter().map(Raw::value).filter(|event| on_old(event));
        let writers: BTreeSet<String> =
            told.filter_map(|event| event["reportingController"].as_str().map(str::to_owned)).collect();
        let both = writers.iter().eq(["holdfast-controller", "holdfast-node"]);
        Ok(if both { Look::Done(()) } else { Look::NotYet(json!(writers).to_string()) })
    })
    .await
}

/// What is bent has its node, its rights, and what it says.
async fn nothing_was_lost(story: &Story<'_>, bent: &[Bend]) -> Result<()> {
    for bend in bent {
        bend.stands(&story.admin).await?;
    }
    let old = raw::<VirtualMachine>(&story.admin, Some(&story.namespace)).get("old").await;
    let old = old.context("could not read old")?;
    ensure!(old.value()["status"]["nodeName"] == "a", "old is on no node: {}", old.value()["status"]);
    let roles = raw::<Role>(&story.admin, Some(&story.namespace));
    roles.get("holdfast-node-a-vms").await.context("a has no right to old")?;
    let node = raw::<HypervisorNode>(&story.admin, None).get("a").await.context("could not read a")?;
    let holds = node.value()["status"]["virtualMachines"].as_array().map_or(0, Vec::len);
    ensure!(holds >= 1, "a holds nothing any more");
    let log = story.site.folder().join("logs/holdfast-controller.log");
    let log = std::fs::read_to_string(&log).context("no log")?;
    let named =
        log.lines().filter(|line| line.contains("cannot be read whole") && line.contains("/old ")).count();
    // Once for each version that it had, and it is told anew after the restart.
    ensure!((1..20).contains(&named), "old is named {named} times in the log");
    let patch = Patch::Merge(json!({"spec": {"runStrategy": "Always"}}));
    let vm = raw::<VirtualMachine>(&story.admin, Some(&story.namespace));
    vm.patch("old", &PatchParams::default(), &patch).await.map(drop).context("it can be corrected")
}

/// A pointer into an object.
fn at<'a>(value: &'a Value, way: &[String]) -> &'a Value {
    way.iter().fold(value, |value, step| match step.parse::<usize>() {
        Ok(index) => &value[index],
        Err(_) => &value[step],
    })
}
