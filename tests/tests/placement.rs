//! Where virtual machines go, and what they say while they can go nowhere. The nodes are played by the test.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use holdfast_api::{HypervisorNode, VirtualMachine};
use holdfast_tests::machine::{Blueprint, tiny};
use holdfast_tests::office::Office;
use holdfast_tests::scene::{Scene, wait};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

fn plain(name: &str) -> Blueprint {
    tiny(name)
        .with("disks", json!([{"name": "root", "size": "1Gi", "blank": {}}]))
        .with("interfaces", json!([]))
        .with("cloudInit", json!({}))
}

struct Site {
    office: Office,
    scene: Scene,
}

impl Site {
    async fn apply(&self, blueprint: &Blueprint) -> Result<()> {
        let vm: VirtualMachine = serde_json::from_value(blueprint.object()).context("no machine")?;
        self.scene
            .machines("default")
            .create(&PostParams::default(), &vm)
            .await
            .map(drop)
            .context("not created")
    }

    async fn node_of(&self, name: &str) -> Result<String> {
        let bound = async || {
            let node = self.scene.node_of("default", name).await?;
            Ok((!node.is_empty()).then_some(node))
        };
        wait(&self.office, &format!("{name} to be placed"), bound).await
    }

    /// Waits until its condition Ready has this reason; returns the message and the printable status.
    async fn says(&self, name: &str, reason: &str) -> Result<(String, String)> {
        wait(&self.office, &format!("{name} to say {reason}"), async || {
            let vm = self.scene.machines("default").get(name).await.context("not read")?;
            let status = vm.status.unwrap_or_default();
            let ready = status.conditions.iter().find(|it| it.type_ == "Ready" && it.reason == reason);
            Ok(ready.map(|ready| (ready.message.clone(), format!("{:?}", status.printable_status))))
        })
        .await
    }

    async fn cordon(&self, node: &str, cordoned: bool) -> Result<()> {
        let nodes: Api<HypervisorNode> = Api::all(self.office.admin().await?);
        let cordon = Patch::Merge(json!({"spec": {"unschedulable": cordoned}}));
        nodes.patch(node, &PatchParams::default(), &cordon).await.map(drop).context("not cordoned")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_spread_and_a_cordoned_full_or_dead_node_receives_nothing() -> Result<()> {
    let (office, scene) = Scene::set("placement", &["a", "b"]).await?;
    let site = Site { office, scene };
    spread(&site).await.context("spread")?;
    cordoned(&site).await.context("cordoned")?;
    full(&site).await.context("full")?;
    dead(&site).await.context("dead")
}

async fn spread(site: &Site) -> Result<()> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for number in 0..4 {
        let name = format!("spread-{number}");
        site.apply(&plain(&name)).await?;
        *counts.entry(site.node_of(&name).await?).or_default() += 1;
    }
    ensure!(counts.values().all(|count| *count == 2), "{counts:?}");
    Ok(())
}

async fn cordoned(site: &Site) -> Result<()> {
    site.cordon("a", true).await?;
    for number in 0..2 {
        let name = format!("cordoned-{number}");
        site.apply(&plain(&name)).await?;
        ensure!(site.node_of(&name).await? == "b", "the cordoned node received {name}");
    }
    Ok(())
}

async fn full(site: &Site) -> Result<()> {
    site.apply(&plain("huge").with("memory", "20Gi")).await?;
    let (message, printable) = site.says("huge", "NoNodeFits").await?;
    ensure!(message.contains("a is cordoned; b has ") && message.contains(" of memory left, "), "{message}");
    ensure!(printable.contains("ErrorUnschedulable"), "{printable}");
    Ok(())
}

/// A dead node keeps what it holds; what is new waits and says why, and goes on by itself.
async fn dead(site: &Site) -> Result<()> {
    site.scene.stops("b");
    let (message, _) = site.says("cordoned-0", "NodeLost").await?;
    ensure!(message.contains("not started elsewhere"), "{message}");
    site.apply(&plain("late")).await?;
    let (message, _) = site.says("late", "NoNodeFits").await?;
    ensure!(message.contains("a is cordoned; b is silent"), "{message}");
    site.cordon("a", false).await?;
    ensure!(site.node_of("late").await? == "a", "placed elsewhere");
    ensure!(site.node_of("cordoned-0").await? == "b", "moved from a node that is only silent");
    site.scene.node("b")?.act().await?;
    site.says("cordoned-0", "Acting").await.map(drop)
}
