//! Random configurations against the real API server, the real controller and real daemons over libvirt's test driver:
//! apply, empty plan; the same in another spelling, empty plan; changed in place, empty plan; imported, empty plan.
//!
//! `HOLDFAST_LONG=1` runs 5,000 instead of a sample, `HOLDFAST_SEED` repeats a run, and `HOLDFAST_FIRST` goes on with it
//! from that number.

use std::env;
use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_api::HypervisorNode;
use holdfast_tests::guest_image;
use holdfast_tests::image_server::Behaviour;
use holdfast_tests::story::{self, Story};
use holdfast_tests::terraform::samples::{Edition, Sample, Site, Spelling};
use holdfast_tests::terraform::{Cli, Planned, Workspace};
use holdfast_tests::wait::{Look, wait_for};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

const SAMPLE: usize = 80;
const LONG: usize = 5000;
/// To a workspace.
const BATCH: usize = 40;
/// Of the first batch, with the program that is not for the mass.
const SECOND_PROGRAM: usize = 10;
const BRIDGE: &str = "hf-prop";
/// What only the provider knows, beside `timeouts`.
const OWN: [&str; 2] = ["on_user_data_change", "interfaces[].wait_for_address"];

#[tokio::test(flavor = "multi_thread")]
async fn any_configuration_plans_empty_once_it_is_applied_and_once_it_is_imported() -> Result<()> {
    story::tell_alone("tf-any", async |story| {
        let site = prepare(story).await?;
        let seed = match env::var("HOLDFAST_SEED") {
            Ok(text) => text.parse().with_context(|| format!("HOLDFAST_SEED is {text:?}, not a number"))?,
            Err(_) => u64::from(std::process::id()),
        };
        tracing::info!(seed, "HOLDFAST_SEED");
        let count = if env::var_os("HOLDFAST_LONG").is_some() { LONG } else { SAMPLE };
        let numbers: Vec<_> = (first()?..count).collect();
        for (index, batch) in numbers.chunks(BATCH).enumerate() {
            let samples: Vec<_> = batch.iter().map(|number| Sample { seed, number: *number }).collect();
            // One program for the mass, each for a sample.
            let programs = if index == 0 { Cli::here() } else { vec![Cli::OpenTofu] };
            for cli in programs {
                let folder = story.site.folder().join(format!("{}-{index}", cli.word()));
                let mut workspace = Workspace::open(cli, folder, story.site.kubeconfig())?;
                // The CLI collects its garbage rarely: most of the time of so many plans is its own.
                workspace.set("GOGC", "400");
                let most = if cli == Cli::OpenTofu { BATCH } else { SECOND_PROGRAM };
                let outcome = live(&workspace, &site, &samples[..samples.len().min(most)]);
                outcome.with_context(|| format!("HOLDFAST_SEED={seed} HOLDFAST_FIRST={}", batch[0]))?;
                tracing::info!(first = batch[0], cli = cli.word(), "a batch is through");
            }
        }
        Ok(())
    })
    .await
}

/// Where to begin, for a run that goes on where one ended.
fn first() -> Result<usize> {
    match env::var("HOLDFAST_FIRST") {
        Ok(text) => text.parse().with_context(|| format!("HOLDFAST_FIRST is {text:?}, not a number")),
        Err(_) => Ok(0),
    }
}

/// The whole life of a batch.
fn live(workspace: &Workspace, site: &Site, samples: &[Sample]) -> Result<()> {
    let text = |edition, spelling| -> String {
        samples.iter().map(|sample| sample.text(site, edition, spelling)).collect()
    };
    for edition in [Edition::First, Edition::Second] {
        workspace.apply(&text(edition, Spelling::Usual)).with_context(|| format!("{edition:?}"))?;
        workspace.configure(&text(edition, Spelling::Other))?;
        workspace.must_be_settled().with_context(|| format!("{edition:?} in another spelling"))?;
    }
    let addresses: Vec<_> = samples.iter().flat_map(|sample| sample.addresses()).collect();
    let words: Vec<_> = addresses.iter().map(String::as_str).collect();
    workspace.succeed(&[&["state", "rm"], &words[..]].concat())?;
    let mut imports = String::new();
    for sample in samples {
        for address in sample.addresses() {
            let _ =
                writeln!(imports, "import {{\n  to = {address}\n  id = \"default/{}\"\n}}", sample.name());
        }
    }
    let with_imports = text(Edition::Second, Spelling::Usual) + &imports;
    for planned in workspace.foreseen(&with_imports)? {
        imports_nothing_but_its_own(&planned)?;
    }
    workspace.apply_as_foreseen().context("an import")?;
    workspace.succeed(&["destroy", "-auto-approve", "-parallelism=40"]).map(drop)
}

/// An import must find everything but what is only in the configuration: that is written into the state, in place.
fn imports_nothing_but_its_own(planned: &Planned) -> Result<()> {
    let Planned { address, actions, changes } = planned;
    let mild = actions == &["no-op"] || actions == &["update"];
    ensure!(mild, "an import plans {actions:?} for {address}: {changes:?}");
    let own = |change: &String| OWN.iter().any(|own| change == own) || change.starts_with("timeouts.");
    let others: Vec<_> = changes.iter().filter(|change| !own(change)).collect();
    ensure!(others.is_empty(), "an import of {address} would change {others:?}");
    Ok(())
}

/// Hosts over the test driver with room for a batch, and what the configurations name.
async fn prepare(story: &Story<'_>) -> Result<Site> {
    let nodes: Api<HypervisorNode> = Api::all(story.admin.clone());
    let change = json!({"metadata": {"labels": {"zone": "x"}}, "spec": {"cpuOvercommit": 32}});
    for name in ["a", "b"] {
        let mut member = story.site.member(name).await?;
        member.host().add_bridge(BRIDGE)?;
        member.use_test_driver()?;
        nodes
            .patch(name, &PatchParams::default(), &Patch::Merge(&change))
            .await
            .context("could not change the node")?;
    }
    wait_for("the nodes to be ready again", Duration::from_secs(90), async || {
        let all = nodes.list(&kube::api::ListParams::default()).await.context("could not list nodes")?;
        let ready = |node: &HypervisorNode| {
            node.status
                .as_ref()
                .is_some_and(|it| it.conditions.iter().any(|it| it.type_ == "Ready" && it.status == "True"))
        };
        let waiting: Vec<_> = all.iter().filter(|node| !ready(node)).map(ResourceExt::name_any).collect();
        Ok(if waiting.is_empty() { Look::Done(()) } else { Look::NotYet(waiting.join(", ")) })
    })
    .await?;
    let secret: Secret = serde_json::from_value(json!({
        "metadata": {"name": "data"},
        "stringData": {"user-data": "#cloud-config\n", "network-data": "version: 2\nethernets: {}\n"},
    }))
    .context("the Secret does not parse")?;
    let secrets: Api<Secret> = Api::namespaced(story.admin.clone(), "default");
    secrets.create(&PostParams::default(), &secret).await.context("could not create the Secret")?;
    let image = guest_image::find("tiny")?;
    Ok(Site {
        image_url: story.site.images().serve("property/tiny.qcow2", &image.file, Behaviour::Good),
        image_digest: image.digest,
        secret: "data".into(),
        node_label: ("zone".into(), "x".into()),
        bridge: BRIDGE.into(),
    })
}
