//! B10: what one virtual machine costs the store until it runs, counted where it arrives.

use std::time::Duration;

use anyhow::{Result, anyhow};

use super::daemon_log::NODE;
use super::{Row, Value};
use crate::control_plane::audit::{self, Request};
use crate::machine::{SOON, tiny};
use crate::story::Story;

/// Events are published behind the work; they shall be in the count.
const STRAGGLERS: Duration = Duration::from_secs(3);

pub(super) async fn measure(story: &Story<'_>) -> Result<Row> {
    // The first one of a namespace on a node brings grants along and fetches the image.
    let first = story.machine(&tiny("first").on(NODE)).await?;
    first.wait_condition("Ready", "True", SOON).await?;
    tokio::time::sleep(STRAGGLERS).await;
    let mark = story.site.cluster().await.own()?.audit().mark();
    let second = story.machine(&tiny("second").on(NODE)).await?;
    second.wait_condition("Ready", "True", SOON).await?;
    tokio::time::sleep(STRAGGLERS).await;
    let requests = story.site.cluster().await.own()?.audit().since(mark)?;
    let ours: Vec<_> = requests.into_iter().filter(|request| counts(request, &story.namespace)).collect();
    tracing::info!(counted = ?audit::count(&ours), "writes for one virtual machine");
    for machine in [&first, &second] {
        machine.delete().await?;
        machine.wait_gone(SOON).await?;
    }
    let writes = u32::try_from(ours.len()).map_err(|_| anyhow!("too many writes to count"))?;
    let value = Value::Figure(f64::from(writes), "writes");
    Ok(Row {
        id: "B10",
        what: "API writes per VM up to RUNNING",
        accelerator: story.site.accelerator().word(),
        limit: "-",
        value,
        must: 6.0,
        moon: Some(3.0),
    })
}

/// Writes of our programs about the virtual machine: its object, its status, its events. What a node says of itself
/// counts per node.
fn counts(request: &Request, namespace: &str) -> bool {
    let by_us =
        request.user().starts_with("holdfast:node:") || request.user().ends_with(":holdfast-controller");
    by_us && request.is_write() && request.code() < 400 && request.object().namespace == namespace
}
