//! The Debian package of the node daemon: built, checked, installed and taken away on a throw-away copy of this system.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use holdfast_tests::{peer, site_folder};

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
