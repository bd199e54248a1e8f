//! The benchmark: our figures beside their limits, taken in the same run on the same machine.
//!
//! Each pair is one of ours between two of the limit (B A B), so that a drift of the machine meets both, and the two
//! limits of a pair tell how noisy the machine was. No pair is dropped. The table goes to standard output, every raw
//! figure into `target/bench/<time>.json`.

mod bare_qemu;
mod daemon_log;
mod idle;
mod import;
mod row;
mod start;
mod stats;
mod writes;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::json;

pub use row::{Row, Value};

use crate::story::{self, Story};
use crate::{files, peer};

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Measure this row alone, such as B5.
    #[arg(long, value_name = "ID", env = "ID")]
    pub id: Option<String>,
    /// Pairs per row; rows whose one pass takes over a second take a third of it.
    #[arg(long, default_value_t = 30)]
    pub pairs: usize,
    /// MiB of the image that is imported.
    #[arg(long, default_value_t = 1024)]
    pub import_mib: u64,
}

const IDS: [&str; 6] = ["B1", "B5", "B7", "B10", "B13", "B14"];

impl Options {
    fn wants(&self, ids: &[&str]) -> bool {
        self.id.as_deref().is_none_or(|id| ids.contains(&id))
    }
}

/// What a run came to.
pub struct Outcome {
    /// The table, to be printed.
    pub text: String,
    /// Whether every deciding row reached its `must`.
    pub passed: bool,
}

/// Measures everything asked for.
pub async fn run(options: &Options) -> Result<Outcome> {
    if let Some(id) = &options.id
        && !IDS.contains(&id.as_str())
    {
        bail!("there is no row {id}: use one of {}", IDS.join(", "));
    }
    let mut rows = Vec::new();
    story::tell_alone("bench", async |story| {
        rows = measure(story, options).await?;
        Ok(())
    })
    .await?;
    let file = save(&rows)?;
    let outcome = Outcome {
        passed: rows.iter().all(|row| row.verdict() != row::Verdict::Fail),
        text: format!("{}raw figures: {}\n", row::table(&rows), file.display()),
    };
    Ok(outcome)
}

async fn measure(story: &Story<'_>, options: &Options) -> Result<Vec<Row>> {
    story.offer_image("tiny").await?;
    story.offer_network().await?;
    story.site.member(daemon_log::NODE).await?.log_every_step()?;
    let mut rows = Vec::new();
    if options.wants(&["B1", "B5"]) {
        rows.extend(start::measure(story, options.pairs).await?);
    }
    if options.wants(&["B7"]) {
        rows.extend(import::measure(story, (options.pairs / 3).max(3), options.import_mib).await?);
    }
    if options.wants(&["B10"]) {
        rows.push(writes::measure(story).await?);
    }
    if options.wants(&["B13", "B14"]) {
        rows.extend(idle::measure(story).await?);
    }
    Ok(rows)
}

fn save(rows: &[Row]) -> Result<PathBuf> {
    let folder = peer::repository().join("target/bench");
    files::create_folder(&folder)?;
    let now = k8s_openapi::jiff::Timestamp::now();
    let file = folder.join(format!("{}.json", now.as_second()));
    let text = json!({ "time": now.to_string(), "environment": environment(), "rows": rows });
    files::write(&file, serde_json::to_string_pretty(&text).context("could not write JSON")?)?;
    Ok(file)
}

fn environment() -> serde_json::Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find(|line| line.starts_with("model name")).unwrap_or_default().to_owned();
    let steal = read("/proc/stat").lines().next().unwrap_or_default().to_owned();
    json!({
        "cpu": model,
        "load": read("/proc/loadavg"),
        "stat": steal,
        "kernel": read("/proc/sys/kernel/osrelease"),
        "qemu": said("qemu-system-x86_64", "--version"),
        "libvirt": said("libvirtd", "--version"),
        "commit": said_by(Command::new("git").args(["rev-parse", "HEAD"]).current_dir(peer::repository())),
    })
}

fn said(program: &str, argument: &str) -> String {
    said_by(Command::new(program).arg(argument))
}

fn said_by(command: &mut Command) -> String {
    let output = command.output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    output.unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}
