//! B1 and B5: a start, and the overlay disk within it, against what the tools below us need for the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::bare_qemu;
use super::daemon_log::{NODE, took};
use super::{Row, Value};
use crate::machine::{Machine, SOON, tiny};
use crate::story::Story;
use crate::{files, guest_image};

/// Of the domain that plain `virsh create` starts; nothing of ours, so the daemon leaves it alone.
const LIMIT_UUID: &str = "00000000-0000-4000-8000-00000000b001";
const LIMIT_FOLDER: &str = "/var/lib/holdfast-files/limit";
const LOGGED: Duration = Duration::from_secs(60);

pub(super) async fn measure(story: &Story<'_>, pairs: usize) -> Result<Vec<Row>> {
    let limit = Limit::prepare(story).await?;
    let (mut starts, mut overlays, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    // The caches of all three are warmed outside the pairs, so that no pair has to be dropped.
    limit.sample(story).await?;
    ours(story, "warm").await?;
    for pair in 0..pairs {
        let before = limit.sample(story).await?;
        let ours = ours(story, &format!("m{pair}")).await?;
        let after = limit.sample(story).await?;
        starts.push([ours.0, before.start, after.start]);
        overlays.push([ours.1, before.overlay, after.overlay]);
        bare.push([ours.0, before.bare, after.bare]);
    }
    let accelerator = story.site.accelerator().word();
    let row = |id, what, limit, pairs, must, moon| {
        let value = Value::Ratio(pairs);
        Row { id, what, accelerator, limit, value, must, moon }
    };
    Ok(vec![
        row("B1", "object seen -> RUNNING", "virsh create", starts, 1.10, None),
        row("B1*", "the same, for the moon", "bare QEMU", bare, f64::INFINITY, Some(1.3)),
        row("B5", "overlay disk, confined", "qemu-img create", overlays, 1.5, None),
    ])
}

/// Milliseconds from the first look at the object to the running guest, and of the overlay alone.
async fn ours(story: &Story<'_>, name: &str) -> Result<(f64, f64)> {
    let blueprint = tiny(name).on(NODE).with("terminationGracePeriodSeconds", 0);
    let machine = story.machine(&blueprint).await?;
    machine.wait_condition("Ready", "True", SOON).await?;
    let start = took(story, &[("vm", machine.uid()), ("reason", "Started")], LOGGED).await?;
    let overlay = took(story, &[("vm", machine.uid()), ("step", "create-overlay")], LOGGED).await?;
    machine.delete().await?;
    machine.wait_gone(SOON).await?;
    Ok((start, overlay))
}

/// The same domain and the same disk, without us.
struct Limit {
    xml: String,
    base: PathBuf,
    folder: PathBuf,
    disk: PathBuf,
}

/// Milliseconds that each limit needed.
struct Sample {
    start: f64,
    overlay: f64,
    bare: f64,
}

impl Limit {
    async fn prepare(story: &Story<'_>) -> Result<Self> {
        let machine = story.machine(&tiny("pattern").on(NODE)).await?;
        machine.wait_condition("Ready", "True", SOON).await?;
        let limit = Self::from(story, &machine).await?;
        machine.delete().await?;
        machine.wait_gone(SOON).await?;
        Ok(limit)
    }

    async fn from(story: &Story<'_>, machine: &Machine<'_>) -> Result<Self> {
        let mut member = story.site.member(NODE).await?;
        let host = member.host();
        let xml = host.virsh(&["dumpxml", "--inactive", machine.uid()])?;
        let folder = host.outside(LIMIT_FOLDER);
        files::create_folder(&folder)?;
        let state = host.outside(&format!("/var/lib/holdfast/vms/{}", machine.uid()));
        for file in ["disk-root.qcow2", "seed.img"] {
            fs::copy(state.join(file), folder.join(file))
                .with_context(|| format!("could not copy {file}"))?;
        }
        let base = guest_image::find("tiny")?.file;
        let disk = folder.join("bare.qcow2");
        overlay(&base, &disk)?;
        Ok(Self { xml: foreign(&xml, machine.uid()), base, folder, disk })
    }

    async fn sample(&self, story: &Story<'_>) -> Result<Sample> {
        Ok(Sample {
            start: self.start(story).await?,
            overlay: self.overlay()?,
            bare: bare_qemu::start(&self.disk, story.site.accelerator())?,
        })
    }

    async fn start(&self, story: &Story<'_>) -> Result<f64> {
        files::write(&self.folder.join("domain.xml"), &self.xml)?;
        let mut member = story.site.member(NODE).await?;
        let begun = Instant::now();
        member.host().virsh(&["create", &format!("{LIMIT_FOLDER}/domain.xml")])?;
        let took = begun.elapsed().as_secs_f64() * 1000.0;
        member.host().virsh(&["destroy", LIMIT_UUID])?;
        Ok(took)
    }

    fn overlay(&self) -> Result<f64> {
        let target = self.folder.join("overlay.qcow2");
        let begun = Instant::now();
        overlay(&self.base, &target)?;
        let took = begun.elapsed().as_secs_f64() * 1000.0;
        files::remove_file(&target)?;
        Ok(took)
    }
}

fn overlay(base: &Path, target: &Path) -> Result<()> {
    let mut command = Command::new("qemu-img");
    command.args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"]).arg(base).arg(target).arg("64M");
    let status = command.stdin(Stdio::null()).status().context("peer missing: qemu-utils")?;
    ensure!(status.success(), "qemu-img create failed");
    Ok(())
}

/// The XML as a stranger's: another name, UUID, address and files, and no metadata of ours.
fn foreign(xml: &str, uid: &str) -> String {
    let without = match (xml.find("<metadata>"), xml.find("</metadata>")) {
        (Some(from), Some(to)) => format!("{}{}", &xml[..from], &xml[to + "</metadata>".len()..]),
        _ => xml.to_owned(),
    };
    let state = format!("/var/lib/holdfast/vms/{uid}");
    without
        .replace(&state, LIMIT_FOLDER)
        .replace(&format!("hf-{uid}"), "limit")
        .replace(uid, LIMIT_UUID)
        .lines()
        .filter(|line| !line.contains("<mac address") && !line.contains("<target dev='hft"))
        .collect::<Vec<_>>()
        .join("\n")
}
