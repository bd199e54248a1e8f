//! VLANs of a host's bridge, under a kernel that has them: this machine's may not, Debian's does.

use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use holdfast_tests::peer;

/// The daemon's own tests of VLANs in the kernel.
const TESTS: &str = "network::vlan_kernel_tests";
/// What those tests print where the kernel lacks what they are about.
const UNSEEN: &str = "was not seen";

#[test]
fn guests_reach_their_vlan_and_no_other_under_debians_kernel() -> Result<()> {
    let run = peer::repository().join("tests/debian-kernel/run.sh");
    let mut command = Command::new(run);
    command.arg(daemon_tests()?).args(["--nocapture", TESTS]);
    let said = succeed(&command.output().context("could not run tests/debian-kernel/run.sh")?)?;
    ensure!(said.contains("test result: ok. 4 passed"), "not all of {TESTS} ran:\n{said}");
    ensure!(!said.contains(UNSEEN), "this kernel lacks something too:\n{said}");
    Ok(())
}

/// The program with the daemon's unit tests, built if need be.
fn daemon_tests() -> Result<PathBuf> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // The whole workspace, as everywhere: a part of it would be built anew, with the features of that part.
    cargo.args(["test", "--no-run", "--workspace", "--bins", "--message-format=json-render-diagnostics"]);
    cargo.current_dir(peer::repository());
    let said = succeed(&cargo.output().context("could not run cargo")?)?;
    let messages = said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let is_daemon = |message: &serde_json::Value| message["target"]["name"] == "holdfast-node";
    let built = messages.filter(|message| message["profile"]["test"] == true && is_daemon(message));
    let mut programs = built.filter_map(|message| message["executable"].as_str().map(PathBuf::from));
    programs.next_back().context("cargo built no tests of the daemon")
}

fn succeed(output: &Output) -> Result<String> {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "it failed ({}):\n{said}\n{errors}", output.status);
    Ok(said)
}
