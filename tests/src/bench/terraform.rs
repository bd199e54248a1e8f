//! B19: plan and apply of a hundred virtual machines, against the real API server, the real controller and a played node.
//!
//! Beside them the same CLI with a hundred of its own `terraform_data`, which ask nobody. A plan of the CLI costs by the
//! value: it takes each apart at every step, whoever the provider is. So the limit of a plan is `terraform_data` that holds
//! what the state of a machine does but its status; it keeps all twice, as input and as output, which makes up for that. The ratio to `terraform_data` with three values stands beside it and decides nothing: a provider that cost
//! nothing could not reach its limit with a schema like ours.
//! An apply returns when each machine is ready, so its limit does that work too: a bare client makes the same objects, as
//! many at a time, and waits for each. The ratio to `terraform_data` alone stands beside it for the same reason: it counts
//! what the store, the controller and the node do.

use std::time::Instant;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt};
use holdfast_api::VirtualMachine;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::runtime::wait::{Condition, await_condition};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::{Row, Value};
use crate::desk::{Desk, machines};
use crate::files;
use crate::machine::SOON;
use crate::scene::ONE_AT_A_TIME;
use crate::terraform::{Cli, Workspace};
use crate::wait::{Look, wait_for};

const MANY: usize = 100;
/// Of a resource that is not ours.
const FEW: &str = "{ name = \"m-${count.index}\", cpu = 1, memory = \"64Mi\" }";
/// As many as the CLI works on at a time.
const PARALLEL: usize = 10;
const APPLY: &[&str] = &["apply", "-auto-approve"];
const PLAN: &[&str] = &["plan", "-detailed-exitcode"];
const DESTROY: &[&str] = &["destroy", "-auto-approve", "-parallelism=40"];

pub(super) async fn measure(pairs: usize) -> Result<Vec<Row>> {
    let _alone = ONE_AT_A_TIME.lock().await;
    let desk = Desk::furnish("bench-terraform").await?;
    desk.make_room().await?;
    let ours = &desk.terraform;
    ours.configure(&machines(MANY))?;
    let builtin = builtin(&desk, "builtin", FEW)?;
    let measured = applied(&desk, ours, &builtin, (pairs / 3).max(3)).await;
    let (whole, alone) = measured.with_context(|| desk.office.logs())?;

    ours.succeed(APPLY)?;
    let same = self::builtin(&desk, "same", &configured(ours)?)?;
    for workspace in [&same, &builtin] {
        workspace.succeed(APPLY)?;
    }
    let (mut plans, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..pairs {
        let [one, few] = [timed(&same, PLAN)?, timed(&builtin, PLAN)?];
        let took = timed(ours, PLAN)?;
        plans.push([took, one, timed(&same, PLAN)?]);
        bare.push([took, few, timed(&builtin, PLAN)?]);
    }
    ours.succeed(DESTROY)?;

    let row = |what, limit, pairs, must, moon| Row {
        id: "B19",
        what,
        accelerator: "none",
        limit,
        value: Value::Ratio(pairs),
        must,
        moon,
    };
    Ok(vec![
        row("no-op plan of 100 VMs", "terraform_data, same values", plans, 2.0, Some(1.2)),
        row("no-op plan of 100 VMs", "terraform_data, 3 values", bare, f64::INFINITY, None),
        row("apply of 100 VMs", "terraform_data + bare client", whole, 2.0, Some(1.2)),
        row("apply of 100 VMs", "terraform_data", alone, f64::INFINITY, None),
    ])
}

/// Ours beside the limit with the bare client, and beside the limit without it.
async fn applied(
    desk: &Desk,
    ours: &Workspace,
    builtin: &Workspace,
    pairs: usize,
) -> Result<(Vec<[f64; 3]>, Vec<[f64; 3]>)> {
    let (mut whole, mut alone) = (Vec::new(), Vec::new());
    let limit = async || {
        let cli = timed(builtin, APPLY)?;
        builtin.succeed(DESTROY)?;
        Ok::<_, anyhow::Error>((cli, cli + made(desk).await?))
    };
    for _ in 0..pairs {
        let before = limit().await?;
        let took = timed(ours, APPLY)?;
        ours.succeed(DESTROY)?;
        let after = limit().await?;
        whole.push([took, before.1, after.1]);
        alone.push([took, before.0, after.0]);
    }
    Ok((whole, alone))
}

/// A workspace with as many resources that ask nobody, each with these values.
fn builtin(desk: &Desk, name: &str, values: &str) -> Result<Workspace> {
    let folder = desk.office.folder().join(name);
    let workspace = Workspace::open(Cli::OpenTofu, folder, &desk.office.plane().kubeconfig())?;
    let configuration =
        format!("resource \"terraform_data\" \"m\" {{\n  count = {MANY}\n  input = {values}\n}}\n");
    // Without the block that would start our provider.
    files::write(&workspace.work().join("main.tf"), configuration)?;
    workspace.succeed(&["init"])?;
    Ok(workspace)
}

/// The state of the first machine but its status, as the CLI can read it: what is configured, defaults, and four names.
fn configured(ours: &Workspace) -> Result<String> {
    let mut values = ours.values("holdfast_virtual_machine.m[0]")?;
    let attributes = values.as_object_mut().context("a machine is no object")?;
    attributes.remove("status").context("a machine has no status")?;
    attributes.insert("name".into(), "m-${count.index}".into());
    Ok(values.to_string())
}

fn timed(workspace: &Workspace, words: &[&str]) -> Result<f64> {
    let begun = Instant::now();
    workspace.succeed(words)?;
    Ok(begun.elapsed().as_secs_f64() * 1000.0)
}

/// Milliseconds until the same machines, made by a bare client, are ready.
async fn made(desk: &Desk) -> Result<f64> {
    let api = desk.machines();
    let begun = Instant::now();
    let made = futures::stream::iter(0..MANY).map(|number| make(&api, number)).buffer_unordered(PARALLEL);
    made.try_collect::<Vec<()>>().await?;
    let took = begun.elapsed().as_secs_f64() * 1000.0;
    api.delete_collection(&DeleteParams::default(), &ListParams::default())
        .await
        .context("could not delete the machines")?;
    wait_for("the machines to be gone", SOON, async || {
        let left = api.list(&ListParams::default()).await.context("could not list machines")?.items.len();
        Ok(if left == 0 { Look::Done(()) } else { Look::NotYet(format!("{left} are left")) })
    })
    .await?;
    Ok(took)
}

async fn make(api: &Api<VirtualMachine>, number: usize) -> Result<()> {
    let object = json!({
        "apiVersion": "holdfast.dev/v1alpha1",
        "kind": "VirtualMachine",
        "metadata": {"name": format!("bare-{number}")},
        "spec": {"cpu": 1, "memory": "64Mi", "disks": [{"name": "root", "size": "1Gi", "blank": {}}]},
    });
    let object: VirtualMachine = serde_json::from_value(object).context("no virtual machine")?;
    let made = api.create(&PostParams::default(), &object).await.context("could not make a machine")?;
    await_condition(api.clone(), &made.name_any(), is_ready()).await.context("a machine is not ready")?;
    Ok(())
}

fn is_ready() -> impl Condition<VirtualMachine> {
    |object: Option<&VirtualMachine>| {
        let conditions = object.and_then(|it| it.status.as_ref()).into_iter().flat_map(|it| &it.conditions);
        conditions.into_iter().any(|it| it.type_ == "Ready" && it.status == "True")
    }
}
