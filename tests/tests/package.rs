//! The Debian package of the node daemon: built, checked, installed and taken away on a throw-away copy of this system.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use holdfast_tests::{files, peer, site_folder};

fn build(program: &Path, folder: &str) -> Result<PathBuf> {
    let folder = site_folder::fresh(folder)?;
    let mut command = Command::new(peer::repository().join("deploy/deb/build.sh"));
    // A commit that lands between two builds is not what is asked about here.
    let said = run(command.arg(program).arg(&folder).env("SOURCE_DATE_EPOCH", "1700000000"))?;
    Ok(PathBuf::from(said.trim()))
}

fn run(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("could not run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{command:?} failed: {said}{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(said)
}

fn script(name: &str, package: &Path) -> Result<()> {
    run(Command::new(peer::repository().join("deploy/deb").join(name)).arg(package)).map(|_| ())
}

#[test]
fn the_same_program_gives_the_same_package() -> Result<()> {
    let program = Path::new("/bin/true");
    let (first, second) = (build(program, "package/first")?, build(program, "package/second")?);
    assert!(std::fs::read(first)? == std::fs::read(second)?, "two builds differ");
    Ok(())
}

#[test]
fn the_package_is_confined_decides_nothing_for_the_operator_and_leaves_the_state() -> Result<()> {
    let package = build(&peer::ours("holdfast-node")?, "package/whole")?;
    script("check.sh", &package)?;
    script("try.sh", &package)
}

/// A line of `systemd-analyze security`.
#[derive(serde::Deserialize)]
struct Line {
    name: String,
    exposure: Option<String>,
}

#[test]
fn the_unit_scores_at_most_2_9_and_each_remaining_line_has_its_reason() -> Result<()> {
    let unit = peer::repository().join("deploy/holdfast-node.service");
    let analyze = || {
        let mut command = Command::new("systemd-analyze");
        command.args(["security", "--offline=yes"]);
        command
    };
    // Fails above the threshold, which is in tenths.
    run(analyze().args(["--threshold=29", "--no-pager"]).arg(&unit)).context("peer missing: systemd, or")?;
    let lines: Vec<Line> = serde_json::from_str(&run(analyze().arg("--json=short").arg(&unit))?)?;
    let left: Vec<String> =
        lines.into_iter().filter(|line| line.exposure.is_some()).map(|line| line.name).collect();

    let page = files::read(&peer::repository().join("docs/hardening.md"))?;
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let explained: Vec<String> = rows.map(|(line, _)| line.replace("\\|", "|")).collect();
    for line in &left {
        assert!(explained.contains(line), "docs/hardening.md gives no reason for {line}");
    }
    for line in &explained {
        assert!(left.contains(line), "docs/hardening.md explains {line}, which the unit does not need");
    }
    Ok(())
}
