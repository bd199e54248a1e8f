//! The controller lives within the memory that `deploy/` gives it, whatever people write. `HOLDFAST_LONG=1` tells it in
//! full: 300 objects that are as large as they may be, and 10,000 usual ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use holdfast_api::VirtualMachine;
use holdfast_client::{Raw, namespaced};
use holdfast_tests::machine::tiny;
use holdfast_tests::scene::Scene;
use holdfast_tests::wait::{Look, wait_for};
use holdfast_tests::{files, peer};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use nix::unistd::Pid;
use serde_json::{Map, Value, json};

const FULL: (usize, usize) = (300, 10_000);
const SAMPLE: (usize, usize) = (60, 1_000);
/// Each of the others is told first why it waits, which is one write each.
const LIMIT: Duration = Duration::from_secs(900);
/// Requests at once.
const WRITERS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn the_controller_survives_the_largest_objects_beside_usual_ones_within_its_limit() -> Result<()> {
    let (mut office, scene) = Scene::set("memory", &["a"]).await?;
    office.kill_controller();
    let (large, usual) = if std::env::var_os("HOLDFAST_LONG").is_some() { FULL } else { SAMPLE };
    let machines = namespaced::<VirtualMachine>(office.admin().await?, "default");
    let all = (0..usual).map(|n| (format!("usual-{n}"), false));
    let all = all.chain((0..large).map(|n| (format!("large-{n}"), true)));
    let created = stream::iter(all).map(Ok).try_for_each_concurrent(WRITERS, async |(name, large)| {
        write(&machines, &name, large).await.with_context(|| name)
    });
    created.await?;
    office.start_controller()?;
    let peak = Peak::of(office.controller_pid().context("no controller")?);
    scene.create("default", "web").await?;
    let ready = async || {
        let ready = scene.is_ready("default", "web").await?;
        Ok(if ready { Look::Done(()) } else { Look::NotYet("it waits for its turn".to_owned()) })
    };
    let placed = wait_for("a virtual machine to be placed beside them", LIMIT, ready);
    placed.await.with_context(|| office.logs())?;
    // A list that comes again, and what the first pass has left to write.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (peak, limit) = (peak.mebibytes(), limit()?);
    println!(
        "{large} large and {usual} usual objects: {peak} MiB of the controller's own, {limit} MiB allowed"
    );
    ensure!(peak < limit, "{peak} MiB at most, {limit} are allowed");
    Ok(())
}

/// A virtual machine that waits for a node which does not exist.
async fn write(machines: &Api<Raw>, name: &str, large: bool) -> Result<()> {
    let mut object = tiny(name)
        .on("nowhere")
        .with("disks", json!([{"name": "root", "size": "1Gi", "blank": {}}]))
        .with("interfaces", json!([]))
        .object();
    if large {
        grow(&mut object);
    }
    create(machines, &Raw::new(object)).await?;
    if !large {
        return Ok(());
    }
    let condition = |n| {
        json!({"type": format!("Large{n}"), "status": "True", "reason": "Large", "message": "x".repeat(2048),
            "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let status = json!({"status": {"conditions": (0..12).map(condition).collect::<Vec<_>>()}});
    let patched = machines.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await;
    patched.map(drop).context("its status was not written")
}

/// An API server under such a load breaks a connection off now and then.
async fn create(machines: &Api<Raw>, object: &Raw) -> Result<()> {
    for _ in 0..10 {
        match machines.create(&PostParams::default(), object).await {
            Err(kube::Error::Api(status)) if status.code == 409 => return Ok(()),
            Err(kube::Error::Service(_)) => tokio::time::sleep(Duration::from_millis(500)).await,
            created => return created.map(drop).context("not created"),
        }
    }
    bail!("not created: the API server does not answer")
}

/// As large as schema, policy and API server let it be.
fn grow(object: &mut Value) {
    let prefix = |n: usize| format!("{n:03}.{}", "p".repeat(240));
    let labels: Map<_, _> =
        (0..64).map(|n| (format!("{}/{}", prefix(n), "k".repeat(60)), json!("v".repeat(63)))).collect();
    object["metadata"]["labels"] = json!(labels);
    object["metadata"]["finalizers"] = (0..16).map(|n| format!("{}/{}", prefix(n), "f".repeat(60))).collect();
    object["metadata"]["annotations"] = json!({
        "large": "a".repeat(60 << 10),
        "kubectl.kubernetes.io/last-applied-configuration": "k".repeat(180 << 10),
    });
    let spec = &mut object["spec"];
    spec["cloudInit"] = json!({"userData": "u".repeat(32 << 10), "networkData": "n".repeat(32 << 10),
        "sshKeys": (0..32).map(|_| json!({"name": "s".repeat(250)})).collect::<Vec<_>>()});
    let disk =
        |n: usize| json!({"name": format!("d{n:018}"), "size": "1Gi", "image": {"name": "i".repeat(250)}});
    spec["disks"] = (0..16).map(disk).collect();
    let address = |n: usize| format!("2001:db8:1234:1234:1234:1234:1234:{n:x}");
    let interface = |n: usize| {
        json!({"name": format!("n{n:018}"), "network": {"name": "n".repeat(250)},
            "addresses": (1..17).map(address).collect::<Vec<_>>()})
    };
    spec["interfaces"] = (0..8).map(interface).collect();
}

/// What `deploy/` gives the controller, in MiB.
fn limit() -> Result<u64> {
    let text = files::read(&peer::repository().join("deploy/controller.yaml"))?;
    let limit = text.split("limits: {memory: ").nth(1).and_then(|rest| rest.split("Mi").next());
    limit.context("no limit")?.parse().context("no number")
}

/// Looks again and again at what a program has of its own (`RssAnon`, `proc_pid_status(5)`): pages of its file, which
/// development makes large, can be read again.
struct Peak {
    kibibytes: Arc<AtomicU64>,
    ends: Arc<AtomicBool>,
}

impl Peak {
    fn of(pid: Pid) -> Self {
        let (kibibytes, ends) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (seen, end) = (Arc::clone(&kibibytes), Arc::clone(&ends));
        std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
                let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
                let now = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
                seen.fetch_max(now.unwrap_or(0), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self { kibibytes, ends }
    }

    fn mebibytes(&self) -> u64 {
        self.kibibytes.load(Ordering::Relaxed) >> 10
    }
}

impl Drop for Peak {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}
