//! B13 and B14: what the daemon and a guest cost while nothing happens.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use super::bare_qemu::BareQemu;
use super::daemon_log::NODE;
use super::{Row, Value};
use crate::guest_image;
use crate::machine::{Machine, SOON, tiny};
use crate::site::Accelerator;
use crate::story::Story;

/// Twice the time between two looks at a guest in peace.
const WATCHED: Duration = Duration::from_secs(60);
/// Until first addresses are known and reported.
const SETTLE: Duration = Duration::from_secs(20);
/// A guest whose memory grew by less than a quarter of a MiB in this time has booted.
const STILL: Duration = Duration::from_secs(15);
/// So many times, for a machine under load.
const PATIENCE: usize = 12;
const MIB: f64 = 1024.0 * 1024.0;

/// What a process has used so far.
struct Usage {
    cpu_seconds: f64,
    wakeups: f64,
    bytes: f64,
}

pub(super) async fn measure(story: &Story<'_>) -> Result<Vec<Row>> {
    let daemon = daemon(story).await?;
    let first = running(story, "idle").await?;
    let before = usage(story, daemon).await?;
    tokio::time::sleep(WATCHED).await;
    let after = usage(story, daemon).await?;
    let rss = resident(daemon)?;
    // What one more costs the daemon; the first one also pays for code that was never needed before.
    let second = running(story, "another").await?;
    let growth = (resident(daemon)? - rss).max(0.0);
    let ours = settled_pss(qemu(first.uid())?)? + growth;
    let bare = bare(story.site.accelerator())?;
    for machine in [&first, &second] {
        machine.delete().await?;
        machine.wait_gone(SOON).await?;
    }
    let per_second = |from: f64, to: f64| (to - from) / WATCHED.as_secs_f64();
    let row = |id, what, value, unit, must, moon| Row {
        id,
        what,
        accelerator: story.site.accelerator().word(),
        limit: "-",
        value: Value::Figure(value, unit),
        must,
        moon,
    };
    Ok(vec![
        row("B13", "daemon idle: resident", rss / MIB, "MiB", 30.0, Some(12.0)),
        row(
            "B13",
            "daemon idle: processor",
            100.0 * per_second(before.cpu_seconds, after.cpu_seconds),
            "%",
            0.2,
            None,
        ),
        row(
            "B13",
            "daemon idle: wakeups",
            per_second(before.wakeups, after.wakeups),
            "/s",
            f64::INFINITY,
            Some(1.0),
        ),
        row(
            "B13",
            "daemon idle: API traffic",
            8.0 * per_second(before.bytes, after.bytes) / 1000.0,
            "kbit/s",
            f64::INFINITY,
            Some(0.25),
        ),
        row("B14", "memory per VM beyond bare QEMU", (ours - bare) / MIB, "MiB", 8.0, Some(1.0)),
    ])
}

/// A machine that has booted and been reported.
async fn running<'a>(story: &'a Story<'a>, name: &str) -> Result<Machine<'a>> {
    let machine = story.machine(&tiny(name).on(NODE)).await?;
    machine.wait_condition("AddressKnown", "True", SOON).await?;
    tokio::time::sleep(SETTLE).await;
    Ok(machine)
}

async fn daemon(story: &Story<'_>) -> Result<u32> {
    let pid = story.site.member(NODE).await?.daemon()?.pid();
    u32::try_from(pid.as_raw()).context("odd process id")
}

/// The host has process ids of its own, so the machine's is found by what it was started with.
fn qemu(uid: &str) -> Result<u32> {
    let processes = fs::read_dir("/proc").context("could not list processes")?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_it = |pid: &u32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let text = String::from_utf8_lossy(&words);
        text.contains("qemu-system") && text.contains(&format!("\0-uuid\0{uid}\0"))
    };
    pids.into_iter().find(is_it).with_context(|| format!("{uid} has no QEMU"))
}

async fn usage(story: &Story<'_>, pid: u32) -> Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the daemon ended")?;
    // After the name in parentheses: utime and stime are fields 14 and 15 of proc(5), in clock ticks of 10 ms.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 = [11, 12].iter().filter_map(|n| fields.get(*n)?.parse::<f64>().ok()).sum();
    let mut wakeups = 0.0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).context("the daemon ended")? {
        let status = fs::read_to_string(task.context("could not list threads")?.path().join("status"))
            .unwrap_or_default();
        wakeups += field(&status, "voluntary_ctxt_switches:");
    }
    #[expect(clippy::cast_precision_loss, reason = "a minute of idle traffic is far below 2^52 bytes")]
    let bytes = story.site.member(NODE).await?.api().bytes() as f64;
    Ok(Usage { cpu_seconds: ticks / 100.0, wakeups, bytes })
}

/// Bytes of a guest like ours under QEMU alone, once it has booted.
fn bare(accelerator: Accelerator) -> Result<f64> {
    let disk = tempfile::NamedTempFile::new().context("could not make a disk")?;
    fs::copy(guest_image::find("tiny")?.file, disk.path()).context("could not copy the image")?;
    let qemu = BareQemu::spawn(disk.path(), accelerator)?;
    qemu.resume()?;
    settled_pss(qemu.pid())
}

fn resident(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the process ended")?;
    Ok(field(&status, "VmRSS:") * 1024.0)
}

/// The share of memory once it stands still: a booting guest still takes more.
fn settled_pss(pid: u32) -> Result<f64> {
    let mut last = pss(pid)?;
    for _ in 0..PATIENCE {
        std::thread::sleep(STILL);
        let now = pss(pid)?;
        if now - last < MIB / 4.0 {
            return Ok(now);
        }
        last = now;
    }
    Ok(last)
}

fn pss(pid: u32) -> Result<f64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).context("the process ended")?;
    Ok(field(&rollup, "Pss:") * 1024.0)
}

fn field(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}
