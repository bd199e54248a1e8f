//! Where rows go: standard output, and with every raw figure `target/bench/<time>.json`. Both grow row by row, so that
//! what could be measured is kept when something else could not.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::row::{self, Row, Verdict};
use super::{Options, Outcome};
use crate::{files, peer};

/// The report of one run.
pub(super) struct Report {
    /// The only row asked for.
    id: Option<String>,
    file: PathBuf,
    environment: Value,
    rows: Vec<Value>,
    pub(super) outcome: Outcome,
}

impl Report {
    /// Prints the head of the table.
    pub(super) fn begin(options: &Options) -> Result<Self> {
        let folder = peer::repository().join("target/bench");
        files::create_folder(&folder)?;
        let now = k8s_openapi::jiff::Timestamp::now();
        let file = folder.join(format!("{}.json", now.as_second()));
        print(&format!("raw figures: {}\n{}", file.display(), row::head()))?;
        let environment = environment(&now.to_string());
        let outcome = Outcome { passed: true, failures: Vec::new() };
        Ok(Self { id: options.id.clone(), file, environment, rows: Vec::new(), outcome })
    }

    /// Prints and keeps what was asked for among these rows, or notes why they are not there.
    pub(super) fn add(&mut self, what: &str, rows: Result<Vec<Row>>) -> Result<()> {
        match rows {
            Ok(rows) => {
                let id = self.id.clone();
                let asked = rows.iter().filter(|row| id.as_deref().is_none_or(|id| row.is(id)));
                asked.into_iter().try_for_each(|row| self.add_row(row))?;
            }
            Err(error) => self.outcome.failures.push(format!("could not measure {what}: {error:#}")),
        }
        self.save()
    }

    fn add_row(&mut self, row: &Row) -> Result<()> {
        self.outcome.passed &= row.verdict() != Verdict::Fail;
        self.rows.push(row.record());
        print(&row.line())
    }

    fn save(&self) -> Result<()> {
        let text = json!({
            "environment": self.environment,
            "end": load(),
            "rows": self.rows,
            "failures": self.outcome.failures,
        });
        files::write(&self.file, serde_json::to_string_pretty(&text).context("could not write JSON")?)
    }
}

fn environment(time: &str) -> Value {
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find(|line| line.starts_with("model name")).unwrap_or_default();
    json!({
        "time": time,
        "cpu": model,
        "begin": load(),
        "kernel": read("/proc/sys/kernel/osrelease"),
        "qemu": said(Command::new("qemu-system-x86_64").arg("--version")),
        "libvirt": said(Command::new("libvirtd").arg("--version")),
        "commit": said(git().args(["rev-parse", "HEAD"])),
        // A figure of changed sources is no figure of that commit.
        "dirty": !said(git().args(["status", "--porcelain", "--untracked-files=no"])).is_empty(),
    })
}

/// How busy the machine is; between two of them lies what it took from us (clock ticks that the hypervisor stole).
fn load() -> Value {
    let stat = read("/proc/stat");
    // proc(5): user nice system idle iowait irq softirq steal, after the word cpu.
    let ticks: Vec<u64> =
        stat.lines().next().unwrap_or_default().split_whitespace().filter_map(|it| it.parse().ok()).collect();
    json!({"load": read("/proc/loadavg"), "ticks": ticks, "stolen": ticks.get(7)})
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn git() -> Command {
    let mut command = Command::new("git");
    command.current_dir(peer::repository());
    command
}

fn said(command: &mut Command) -> String {
    let output = command.output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    output.unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}

fn print(text: &str) -> Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("could not print")
}
