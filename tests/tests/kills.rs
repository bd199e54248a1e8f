//! The daemon is killed at every boundary between two steps of making and of removing a virtual machine, and some time
//! into the next step; started again it finishes the work, and nothing else on the node notices.
//!
//! `HOLDFAST_LONG=1` makes 200 kills instead of a sample; `HOLDFAST_SEED` repeats a run's moments.

use std::env;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use holdfast_tests::files;
use holdfast_tests::machine::{Machine, SOON, tiny};
use holdfast_tests::site::Member;
use holdfast_tests::story::{self, Story};
use serde_json::Value;

const NODE: &str = "a";
const STARTED: &str = "holdfast-tiny ready";
/// What the daemon does for a virtual machine whose image is cached.
const CREATE: [&str; 8] =
    ["make-folder", "create-overlay", "write-seed", "ensure-network", "define", "guard", "start", "remember"];
/// What it does for one whose guest is deaf to its power button.
const DELETE: [&str; 5] = ["remember", "request-shutdown", "destroy", "undefine", "remove-files"];
/// Rounds of one kill while making and one while removing: each boundary at least once, and 200 kills.
const SAMPLE: usize = 8;
const LONG: usize = 100;
/// A step takes a few milliseconds, a start some hundred.
const LATEST_MICROS: u64 = 20_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_at_any_step_of_create_or_delete_finishes_it_after_its_restart() -> Result<()> {
    story::tell_alone("kills", async |story| {
        let seed = seed()?;
        let mut trial = Trial::begin(story, seed).await?;
        let rounds = if env::var_os("HOLDFAST_LONG").is_some() { LONG } else { SAMPLE };
        for round in 0..rounds {
            let outcome = trial.round(round).await;
            outcome.with_context(|| format!("round {round} of HOLDFAST_SEED={seed}"))?;
        }
        Ok(())
    })
    .await
}

fn seed() -> Result<u64> {
    let seed = match env::var("HOLDFAST_SEED") {
        Ok(text) => text.parse().with_context(|| format!("HOLDFAST_SEED is {text:?}, not a number"))?,
        Err(_) => u64::from(std::process::id()),
    };
    tracing::info!(seed, "HOLDFAST_SEED");
    Ok(seed)
}

/// What a host must show of a virtual machine once the daemon has finished.
#[derive(Clone, Copy, Debug)]
enum Expected {
    RunsOnce,
    Gone,
}

struct Trial<'a> {
    story: &'a Story<'a>,
    log: PathBuf,
    /// A guest that nothing may touch.
    neighbour: Machine<'a>,
    neighbour_pids: String,
    random: u64,
}

impl<'a> Trial<'a> {
    async fn begin(story: &'a Story<'a>, seed: u64) -> Result<Self> {
        let log = log_every_step(story).await?;
        story.offer_image("tiny").await?;
        story.offer_network().await?;
        let neighbour = story.machine(&tiny("neighbour").on(NODE)).await?;
        neighbour.wait_serial(STARTED, 1, SOON).await?;
        neighbour.wait_condition("Ready", "True", SOON).await?;
        let neighbour_pids = story.site.member(NODE).await?.processes_of(neighbour.uid())?;
        Ok(Self { story, log, neighbour, neighbour_pids, random: seed })
    }

    async fn round(&mut self, round: usize) -> Result<()> {
        let blueprint = tiny(&format!("m{round}")).on(NODE).that("deaf");
        let from = length(&self.log)?;
        let machine = self.story.machine(&blueprint.with("terminationGracePeriodSeconds", 1)).await?;
        self.kill_after(machine.uid(), from, &CREATE[..round % (CREATE.len() + 1)]).await?;
        machine.wait_condition("Ready", "True", SOON).await?;
        machine.wait_serial("ready boots=1", 1, SOON).await?;
        self.check(machine.uid(), Expected::RunsOnce).await.context("after a kill while it was made")?;

        let from = length(&self.log)?;
        machine.delete().await?;
        self.kill_after(machine.uid(), from, &DELETE[..round % (DELETE.len() + 1)]).await?;
        machine.wait_gone(SOON).await?;
        self.check(machine.uid(), Expected::Gone).await.context("after a kill while it was removed")
    }

    /// Kills the daemon as soon as it has said that it finished these steps, or up to 20 ms later; starts it again.
    async fn kill_after(&mut self, uid: &str, from: u64, steps: &[&str]) -> Result<()> {
        let start = Instant::now();
        let seen = loop {
            let seen = steps_since(&self.log, from, uid)?;
            if seen.len() >= steps.len() {
                break seen;
            }
            ensure!(start.elapsed() < SOON, "waited for {steps:?} of {uid}; last seen: {seen:?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        let delay = Duration::from_micros(self.draw() % LATEST_MICROS);
        // Half of the kills come at once.
        if self.draw().is_multiple_of(2) {
            tokio::time::sleep(delay).await;
        }
        let mut member = self.story.site.member(NODE).await?;
        member.kill_daemon();
        tracing::info!(uid, after = ?seen, ?delay, "killed");
        ensure!(seen.starts_with(&owned(steps)), "expected {steps:?}, the daemon did {seen:?}");
        member.start_daemon()
    }

    /// The invariants of a node, as far as a crash of its daemon may break them: no guest stopped, restarted or
    /// duplicated, no disk in two processes, what was asked for done, nothing left of what is gone.
    async fn check(&self, uid: &str, expected: Expected) -> Result<()> {
        let mut member = self.story.site.member(NODE).await?;
        let pids = member.processes_of(self.neighbour.uid())?;
        ensure!(pids == self.neighbour_pids, "the neighbour was {}, is {pids}", self.neighbour_pids);
        match expected {
            Expected::RunsOnce => runs_once(&mut member, uid),
            Expected::Gone => {
                let remains = member.remains_of(uid)?;
                ensure!(remains.is_empty(), "this is left of it:\n{remains}");
                Ok(())
            }
        }
    }

    /// The next number of splitmix64: short, and the same on every machine.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

fn runs_once(member: &mut Member, uid: &str) -> Result<()> {
    let pids = member.processes_of(uid)?;
    ensure!(pids.lines().count() == 1, "processes of the guest: {pids:?}");
    let domains = member.domains_of(uid)?;
    ensure!(domains == 1, "{domains} domains of {uid}");
    let serial = member.host().outside(&format!("/var/lib/holdfast/vms/{uid}/serial.log"));
    let serial = files::read(&serial)?;
    ensure!(!serial.contains("ready boots=2"), "it booted twice: {serial}");
    Ok(())
}

/// Makes the daemon write a line of JSON for each step; returns where.
async fn log_every_step(story: &Story<'_>) -> Result<PathBuf> {
    let mut member = story.site.member(NODE).await?;
    member.log_every_step()?;
    Ok(member.daemon()?.log().to_owned())
}

fn length(log: &Path) -> Result<u64> {
    Ok(std::fs::metadata(log).with_context(|| format!("could not look at {}", log.display()))?.len())
}

/// The steps for one virtual machine that were finished since the log was so long.
fn steps_since(log: &Path, from: u64, uid: &str) -> Result<Vec<String>> {
    let mut text = Vec::new();
    let mut file = std::fs::File::open(log).with_context(|| format!("could not open {}", log.display()))?;
    file.seek(SeekFrom::Start(from)).context("could not seek in the log")?;
    file.read_to_end(&mut text).context("could not read the log")?;
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let ours = lines.filter(|line| line["message"] == "step" && line["vm"] == uid);
    Ok(ours.filter_map(|line| line["step"].as_str().map(str::to_owned)).collect())
}

fn owned(steps: &[&str]) -> Vec<String> {
    steps.iter().map(|&step| step.to_owned()).collect()
}
