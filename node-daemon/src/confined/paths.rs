//! The files a confined tool may open: itself, its libraries, and the one disk it works on.
//!
//! Landlock judges the file that is opened, not the name it is opened by, so the disk may be reached through
//! `/proc/self/fd` and nothing else of `/proc` can be read. What newer kernels know besides (truncation since 6.2, TCP
//! since 6.7, ioctls on devices since 6.10, signals and abstract sockets since 6.12) is taken where it is there; the
//! rights to open files are in every Landlock, and without them the tool is not started.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, Scope, path_beneath_rules,
};

/// The newest rights this release knows.
const NEWEST: ABI = ABI::V6;
/// Where the distribution keeps libraries, and the modules of QEMU, which are libraries too.
const LIBRARIES: [&str; 5] = ["/usr/lib", "/usr/lib64", "/lib", "/lib64", "/etc/ld.so.cache"];
/// Libraries are mapped; only what loads them is executed.
const LOADERS: [&str; 2] = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];
/// QEMU does not start without random bytes.
const RANDOM: &str = "/dev/urandom";
/// What a tool says to nobody.
const NULL: &str = "/dev/null";

/// Leaves the calling thread, and what it starts, the right to run `programs` and to work on `disk`, and to open nothing
/// else.
pub(super) fn restrict(programs: &[&Path], disk: &File) -> io::Result<()> {
    let rules = handled().map_err(|error| absent(&error))?;
    allow(rules, programs, disk).and_then(RulesetCreated::restrict_self).map(drop).map_err(io::Error::other)
}

fn handled() -> Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()
}

fn allow(rules: RulesetCreated, programs: &[&Path], disk: &File) -> Result<RulesetCreated, RulesetError> {
    let read = BitFlags::from(AccessFs::ReadFile);
    let run = read | AccessFs::Execute;
    let write = read | AccessFs::WriteFile | AccessFs::Truncate;
    rules
        .add_rules(path_beneath_rules(programs, run))?
        .add_rules(path_beneath_rules(LOADERS, run))?
        .add_rules(path_beneath_rules(LIBRARIES, read))?
        .add_rules(path_beneath_rules([RANDOM], read))?
        .add_rules(path_beneath_rules([NULL], read | AccessFs::WriteFile))?
        .add_rule(PathBeneath::new(disk.as_fd(), write))
}

fn absent(error: &RulesetError) -> io::Error {
    io::Error::other(format!(
        "this kernel enforces no Landlock ({error}): use Linux 5.13 or newer, and name landlock in its parameter lsm="
    ))
}
