//! The cell seen from inside, with a shell in place of the tool. Run as root, as the daemon is.

use std::io::{Seek, SeekFrom};

use super::*;

/// Runs a script in the cell, with its output going to the disk; returns outcome and output.
fn inside(script: &str) -> (Result<(), Error>, String) {
    let shell = Confined::open(Path::new("/bin/sh"), "dash").unwrap();
    let mut disk = tempfile::tempfile().unwrap();
    let outcome = shell.run(&["-c", &format!("exec >{DISK}; {script}")], &disk, 1 << 20);
    let mut written = String::new();
    disk.seek(SeekFrom::Start(0)).unwrap();
    disk.read_to_string(&mut written).unwrap();
    (outcome, written)
}

#[test]
fn the_tool_is_nobody_and_can_gain_nothing() {
    let (outcome, status) = inside("cat /proc/self/status");
    outcome.unwrap();
    let line = |key: &str| status.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_owned();
    let owner = owner().unwrap().expect("peer missing: root rights").0.to_string();
    assert!(line("Uid:").split_whitespace().skip(1).all(|uid| uid == owner), "{status}");
    assert_eq!(line("Groups:").split_whitespace().count(), 1, "no supplementary groups");
    assert!(line("CapEff:").ends_with("0000000000000000"));
    assert!(line("NoNewPrivs:").ends_with('1') && line("Seccomp:").ends_with('2'), "{status}");
}

#[test]
fn the_tool_has_no_network() {
    let (outcome, interfaces) =
        inside("ls /sys/class/net /proc/self/net/dev >/dev/null; tail -n +3 /proc/self/net/dev");
    outcome.unwrap();
    assert!(interfaces.lines().all(|line| line.trim_start().starts_with("lo:")), "{interfaces}");
    let socket = "python3 -c 'import socket; socket.socket()' 2>&1 | tail -1";
    assert!(inside(socket).1.contains("Operation not permitted"), "{}", inside(socket).1);
}

#[test]
fn the_tool_is_limited() {
    let (outcome, limits) = inside("ulimit -v; ulimit -t; ulimit -n; ulimit -c");
    outcome.unwrap();
    assert_eq!(limits.lines().collect::<Vec<_>>(), ["1048576", "20", "64", "0"]);
    let (outcome, _) = inside("head -c 2000000 /dev/zero");
    assert!(matches!(outcome, Err(Error::Failed { .. })), "the file may not grow past what was allowed");
}

#[test]
fn the_tool_sees_none_of_our_environment() {
    let (_, environment) = inside("env");
    assert!(!environment.contains("CARGO") && !environment.contains("HOME"), "{environment}");
}

#[test]
fn a_complaint_comes_back_short_and_with_its_status() {
    let (outcome, _) = inside("echo No space left on device >&2; head -c 100000 /dev/zero >&2; exit 3");
    let failed = outcome.unwrap_err();
    assert!(failed.is_disk_full());
    assert!(failed.to_string().len() < 10_000);
}

#[test]
fn the_file_is_roots_again_afterwards() {
    use std::os::unix::fs::MetadataExt;
    let shell = Confined::open(Path::new("/bin/sh"), "dash").unwrap();
    let disk = tempfile::tempfile().unwrap();
    let before = disk.metadata().unwrap().uid();
    shell.run(&["-c", "exit 1"], &disk, 0).unwrap_err();
    assert_eq!(disk.metadata().unwrap().uid(), before);
}

#[test]
fn a_missing_tool_names_its_package() {
    let missing = Confined::open(Path::new("/usr/bin/no-such-tool"), "qemu-utils").err().unwrap();
    assert!(missing.to_string().contains("install qemu-utils"));
}
