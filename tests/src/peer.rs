//! Where the programs behind the tests lie; a program that is not there is named with what provides it.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow};

/// Folders searched beyond `PATH`: daemons lie in `sbin`, which an ordinary shell does not search.
const SYSTEM_FOLDERS: [&str; 4] = ["/usr/local/sbin", "/usr/sbin", "/usr/bin", "/usr/libexec"];

/// The folder with what is built or fetched once and kept: `HOLDFAST_CACHE`, else `~/.cache/holdfast`.
pub fn cache() -> PathBuf {
    env::var_os("HOLDFAST_CACHE").map_or_else(
        || PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache/holdfast"),
        PathBuf::from,
    )
}

/// The root of the repository this harness was built in.
pub fn repository() -> &'static Path {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_folder.parent().unwrap_or(crate_folder)
}

/// A program that `tests/peers/build.sh <recipe>` builds; its file name carries the version, the youngest wins.
pub fn built(program: &str, recipe: &str) -> Result<PathBuf> {
    let folder = cache().join("peers");
    let prefix = format!("{program}-v");
    let versions = fs::read_dir(&folder).into_iter().flatten().filter_map(Result::ok);
    versions
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .max_by_key(|entry| entry.metadata().and_then(|it| it.modified()).unwrap_or(SystemTime::UNIX_EPOCH))
        .map(|entry| entry.path())
        .ok_or_else(|| anyhow!("peer missing: {program} (run tests/peers/build.sh {recipe})"))
}

/// A program from a Debian package.
pub fn packaged(program: &str, package: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(SYSTEM_FOLDERS.iter().map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
        .ok_or_else(|| anyhow!("peer missing: {package}"))
}

/// A binary of this workspace: from `HOLDFAST_BIN_DIR`, else beside the running program (tests lie one folder deeper).
pub fn ours(binary: &str) -> Result<PathBuf> {
    let own = env::current_exe().context("could not tell where this program lies")?;
    let beside = own.parent().into_iter().chain(own.parent().and_then(Path::parent)).map(Path::to_path_buf);
    env::var_os("HOLDFAST_BIN_DIR")
        .map(PathBuf::from)
        .into_iter()
        .chain(beside)
        .map(|folder| folder.join(binary))
        .find(|file| file.is_file())
        .ok_or_else(|| anyhow!("peer missing: {binary} (run cargo build -p {binary})"))
}

/// A command that is killed when the thread that starts it ends, so nothing outlives a killed test.
///
/// The signal is set by `setpriv` (util-linux, on every Debian) before it becomes the program, so the PID is the
/// program's own. Start such commands through a [`Spawner`](crate::spawner::Spawner): its thread lives long enough.
pub fn mortal(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}
