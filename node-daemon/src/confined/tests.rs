//! The cell seen from inside, with Perl in place of the tool, since every Debian has it and it can make any system call.
//! Run as root, as the daemon is.

use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;

use nix::libc;
use seccompiler::{SeccompAction, SeccompFilter};

use super::*;

/// Runs a script in the cell, with its output going to the disk; returns outcome and output.
fn inside(script: &str) -> (Result<(), Error>, String) {
    let perl = Confined::open(Path::new("/usr/bin/perl"), "perl-base").unwrap();
    let mut disk = tempfile::tempfile().unwrap();
    let outcome = perl.run(&["-e", &format!("open STDOUT, '>&', 0; $| = 1; {script}")], &disk, 1 << 20);
    let mut written = String::new();
    disk.seek(SeekFrom::Start(0)).unwrap();
    disk.read_to_string(&mut written).unwrap();
    (outcome, written)
}

/// What the script printed, once it has come to its end.
fn said(script: &str) -> String {
    let (outcome, said) = inside(script);
    outcome.unwrap();
    said
}

/// The error number of a system call made in the cell; 0 where it succeeded.
fn error_of(call: libc::c_long, arguments: &str) -> i32 {
    // A child of a clone that succeeded must not go on with the script.
    let script = format!(
        "my $me = $$; my $made = syscall({call}, {arguments}); syscall({}, 0) if syscall({}) != $me; \
         print $made == -1 ? $! + 0 : 0",
        libc::SYS_exit_group,
        libc::SYS_getpid,
    );
    said(&script).parse().unwrap()
}

#[test]
fn the_tool_is_nobody_and_can_gain_nothing() {
    let (uid, gid) = owner().unwrap().expect("peer missing: root rights");
    let ids = said("print \"$<,$>,$(,$)\"");
    assert_eq!(ids, format!("{uid},{uid},{gid},{gid}"), "and no supplementary group");
    assert_eq!(said("$> = 0; $< = 0; print \"$<,$>\""), format!("{uid},{uid}"));
    let asked =
        |option: libc::c_int| said(&format!("print syscall({}, {option}, 0, 0, 0, 0)", libc::SYS_prctl));
    assert_eq!((asked(libc::PR_GET_NO_NEW_PRIVS), asked(libc::PR_GET_SECCOMP)), ("1".into(), "2".into()));
}

#[test]
fn the_tool_can_open_the_disk_and_not_even_a_world_readable_file_besides() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let open_to_all = folder.path().join("open-to-all");
    std::fs::write(&open_to_all, "secret").unwrap();
    std::fs::set_permissions(&open_to_all, PermissionsExt::from_mode(0o666)).unwrap();
    let asked = |script: &str| said(&format!("{script}; print $! + 0"));
    for file in [open_to_all.to_str().unwrap(), "/etc/passwd", "/proc/self/status", "/proc/cpuinfo"] {
        assert_eq!(asked(&format!("open my $f, '<', '{file}'")), libc::EACCES.to_string(), "{file}");
    }
    let new = folder.path().join("new");
    assert_eq!(asked(&format!("open my $f, '>', '{}'", new.display())), libc::EACCES.to_string());
    assert_eq!(asked("opendir my $d, '/usr/lib'"), libc::EACCES.to_string());
    assert_eq!(asked("exec '/bin/true'"), libc::EACCES.to_string());
    assert_eq!(said(&format!("open my $f, '+<', '{DISK}' or die; print $f 'ours'")), "ours");
}

#[test]
fn the_tool_has_no_network() {
    for family in [libc::AF_INET, libc::AF_INET6, libc::AF_UNIX, libc::AF_NETLINK] {
        assert_eq!(error_of(libc::SYS_socket, &format!("{family}, {}, 0", libc::SOCK_STREAM)), libc::ENOSYS);
    }
}

#[test]
fn x32_calls_and_namespace_flags_are_refused_and_a_plain_child_is_not() {
    const X32: libc::c_long = 0x4000_0000;
    assert_eq!(error_of(X32 | libc::SYS_getpid, ""), libc::ENOSYS);
    let namespaces = [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
    ];
    for flag in namespaces {
        let arguments = format!("{}, 0, 0, 0, 0", flag | libc::SIGCHLD);
        assert_eq!(error_of(libc::SYS_clone, &arguments), libc::ENOSYS, "{flag:x}");
        assert_eq!(error_of(libc::SYS_unshare, &flag.to_string()), libc::ENOSYS, "{flag:x}");
    }
    assert_eq!(error_of(libc::SYS_clone3, "0, 0"), libc::ENOSYS);
    assert_eq!(error_of(libc::SYS_clone, &format!("{}, 0, 0, 0, 0", libc::SIGCHLD)), 0);
}

#[test]
fn only_what_is_listed_can_be_called() {
    for call in [
        libc::SYS_ptrace,
        libc::SYS_io_uring_setup,
        libc::SYS_bpf,
        libc::SYS_mount,
        libc::SYS_keyctl,
        libc::SYS_kill,
        libc::SYS_memfd_create,
        libc::SYS_open_by_handle_at,
    ] {
        assert_eq!(error_of(call, "0, 0, 0, 0, 0"), libc::ENOSYS, "{call}");
    }
    assert_eq!(error_of(libc::SYS_prctl, &format!("{}, 1, 0, 0, 0", libc::PR_SET_DUMPABLE)), libc::ENOSYS);
}

#[test]
fn the_tool_is_limited() {
    let limits = [libc::RLIMIT_AS, libc::RLIMIT_CPU, libc::RLIMIT_NOFILE, libc::RLIMIT_CORE].map(|limit| {
        let read = format!("my $l = ' ' x 16; syscall({}, {limit}, $l)", libc::SYS_getrlimit);
        said(&format!("{read}; print join ',', unpack 'QQ', $l"))
    });
    assert_eq!(limits, ["1073741824,1073741824", "20,20", "64,64", "0,0"]);
    let (outcome, _) = inside("print 'x' x 2000000");
    assert!(matches!(outcome, Err(Error::Failed { .. })), "the file may not grow past what was allowed");
}

#[test]
fn the_tool_sees_none_of_our_environment() {
    assert_eq!(said("print join ',', keys %ENV"), "LC_ALL");
}

#[test]
fn a_complaint_comes_back_short_and_with_its_status() {
    let (outcome, _) = inside("print STDERR 'No space left on device', 'x' x 100000; exit 3");
    let failed = outcome.unwrap_err();
    assert!(failed.is_disk_full());
    assert!(failed.to_string().len() < 10_000);
}

#[test]
fn the_file_is_roots_again_afterwards() {
    use std::os::unix::fs::MetadataExt;
    let perl = Confined::open(Path::new("/usr/bin/perl"), "perl-base").unwrap();
    let mut disk = tempfile::tempfile().unwrap();
    disk.write_all(b"x").unwrap();
    let before = disk.metadata().unwrap().uid();
    perl.run(&["-e", "exit 1"], &disk, 0).unwrap_err();
    assert_eq!(disk.metadata().unwrap().uid(), before);
}

#[test]
fn a_missing_tool_names_its_package() {
    let missing = Confined::open(Path::new("/usr/bin/no-such-tool"), "qemu-utils").err().unwrap();
    assert!(missing.to_string().contains("install qemu-utils"));
}

#[test]
fn where_the_kernel_has_no_landlock_the_tool_is_not_started_and_the_remedy_is_named() {
    // A thread for which the kernel has none; those it starts inherit that.
    let outcome = thread::spawn(|| {
        let absent = SeccompAction::Errno(libc::EOPNOTSUPP.unsigned_abs());
        let calls = [(libc::SYS_landlock_create_ruleset, Vec::new())].into();
        let arch = std::env::consts::ARCH.try_into().unwrap();
        let filter = SeccompFilter::new(calls, SeccompAction::Allow, absent, arch).unwrap();
        let program: BpfProgram = filter.try_into().unwrap();
        seccompiler::apply_filter(&program).unwrap();
        inside("print 'ran'")
    });
    let (outcome, said) = outcome.join().unwrap();
    let Error::Cell { source, .. } = outcome.unwrap_err() else { panic!("another failure") };
    assert!(source.to_string().contains("lsm=") && said.is_empty(), "{source}");
}
