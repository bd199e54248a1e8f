//! The daemon's own log as a clock: it writes how long each step took.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use crate::files;
use crate::story::Story;
use crate::wait::{Look, wait_for};

/// The host that is measured.
pub(super) const NODE: &str = "a";

async fn path(story: &Story<'_>) -> Result<PathBuf> {
    Ok(story.site.member(NODE).await?.daemon()?.log().to_owned())
}

/// Milliseconds of the first line with these fields.
pub(super) async fn took(story: &Story<'_>, fields: &[(&str, &str)], limit: Duration) -> Result<f64> {
    let path = path(story).await?;
    wait_for(&format!("the daemon to log {fields:?}"), limit, async || {
        let text = files::read(&path)?;
        let found = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .find(|line: &Value| fields.iter().all(|(field, value)| line[*field].as_str() == Some(value)));
        Ok(match found.as_ref().and_then(micros) {
            Some(micros) => Look::Done(micros / 1000.0),
            None => Look::NotYet("not yet".to_owned()),
        })
    })
    .await
}

fn micros(line: &Value) -> Option<f64> {
    let took = &line["took_us"];
    took.as_f64().or_else(|| took.as_str()?.parse().ok())
}
