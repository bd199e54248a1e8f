//! The benchmark: our figures beside their limits, taken in the same run on the same machine.
//!
//! Each pair is one of ours between two of the limit (B A B), so that a drift of the machine meets both, and the two
//! limits of a pair tell how noisy the machine was. No pair is dropped.

mod bare_qemu;
mod daemon_log;
mod idle;
mod import;
mod provider;
mod report;
mod row;
mod server;
mod start;
mod stats;
mod terraform;
mod writes;

use anyhow::{Result, bail};

pub use row::{Row, Value};

use report::Report;

use crate::story::{self, Story};

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

/// Rows that need hosts and guests.
const WITH_HOSTS: [&str; 6] = ["B1", "B5", "B7", "B10", "B13", "B14"];
/// Rows that need neither.
const ALONE: [&str; 2] = ["B18", "B19"];

impl Options {
    fn wants(&self, ids: &[&str]) -> bool {
        self.id.as_deref().is_none_or(|id| ids.contains(&id))
    }
}

/// What a run came to.
pub struct Outcome {
    /// Whether every deciding row reached its `must`.
    pub passed: bool,
    /// What could not be measured, and why.
    pub failures: Vec<String>,
}

/// Measures everything asked for; prints and keeps each row as soon as it is there.
pub async fn run(options: &Options) -> Result<Outcome> {
    let ids = [WITH_HOSTS.as_slice(), &ALONE].concat();
    if !options.wants(&ids) {
        bail!("there is no such row: use one of {}", ids.join(", "));
    }
    let mut report = Report::begin(options)?;
    if options.wants(&["B18"]) {
        report.add("B18", provider::measure(options.pairs).await)?;
    }
    if options.wants(&["B19"]) {
        report.add("B19", terraform::measure(options.pairs).await)?;
    }
    if options.wants(&WITH_HOSTS) {
        story::tell_alone("bench", async |story| measure(story, options, &mut report).await).await?;
    }
    Ok(report.outcome)
}

async fn measure(story: &Story<'_>, options: &Options, report: &mut Report) -> Result<()> {
    story.offer_image("tiny").await?;
    story.offer_network().await?;
    story.site.member(daemon_log::NODE).await?.log_every_step()?;
    if options.wants(&["B1", "B5"]) {
        report.add("B1 and B5", start::measure(story, options.pairs).await)?;
    }
    if options.wants(&["B7"]) {
        let pairs = (options.pairs / 3).max(3);
        report.add("B7", import::measure(story, pairs, options.import_mib).await)?;
    }
    if options.wants(&["B10"]) {
        report.add("B10", writes::measure(story).await.map(|row| vec![row]))?;
    }
    if options.wants(&["B13", "B14"]) {
        report.add("B13 and B14", idle::measure(story).await)?;
    }
    Ok(())
}
