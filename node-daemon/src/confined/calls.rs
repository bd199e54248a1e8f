//! The system calls a confined tool may make.
//!
//! A list of permissions: reading and writing what is open, memory, threads, time, and what `prlimit` and the start of a
//! program need. Whatever is not on it does not exist for the tool (`ENOSYS`), so a newer C library falls back to what
//! is. Calls of the x32 interface have numbers of their own and are on no list; those of 32-bit programs end the tool.

use std::collections::BTreeMap;
use std::io;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// Every flag of `clone` that makes a namespace. `clone3` hides its flags from a filter and is not allowed at all.
const NEW_NAMESPACE: libc::c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

const FILES: &[libc::c_long] = &[
    libc::SYS_openat,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_lseek,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_chdir,
    libc::SYS_umask,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_eventfd2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
];

const MEMORY: &[libc::c_long] = &[
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_get_mempolicy,
];

const PROCESS: &[libc::c_long] = &[
    libc::SYS_execve,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_wait4,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_membarrier,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    libc::SYS_signalfd4,
    libc::SYS_restart_syscall,
    libc::SYS_prlimit64,
    libc::SYS_getrusage,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getrandom,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getresuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getresgid,
    libc::SYS_getgroups,
    // On the way from root to the tool's user, which cannot go back.
    libc::SYS_setgroups,
    libc::SYS_setgid,
    libc::SYS_setuid,
];

const TIME: &[libc::c_long] = &[
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
];

/// Older names of the same things, which only x86 has.
#[cfg(target_arch = "x86_64")]
const OLD: &[libc::c_long] = &[
    libc::SYS_open,
    libc::SYS_access,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_readlink,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_wait,
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_arch_prctl,
    libc::SYS_getrlimit,
    libc::SYS_setrlimit,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[libc::c_long] = &[];

/// What threads and timers of QEMU ask `prctl` for, and whether new privileges can be had; nothing that gives any.
const PRCTL: [libc::c_int; 4] =
    [libc::PR_SET_NAME, libc::PR_SET_TIMERSLACK, libc::PR_GET_NO_NEW_PRIVS, libc::PR_GET_SECCOMP];

/// The filter, ready to apply.
pub(super) fn filter() -> io::Result<BpfProgram> {
    let absent = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(io::Error::other)?;
    let filter = rules().and_then(|rules| SeccompFilter::new(rules, absent, SeccompAction::Allow, arch));
    filter.and_then(TryInto::try_into).map_err(io::Error::other)
}

fn rules() -> Result<BTreeMap<i64, Vec<SeccompRule>>, seccompiler::BackendError> {
    let always = [FILES, MEMORY, PROCESS, TIME, OLD].concat();
    let mut rules: BTreeMap<i64, Vec<_>> = always.into_iter().map(|call| (call, Vec::new())).collect();
    let no_namespace = SeccompCmpOp::MaskedEq(u64::from(NEW_NAMESPACE.cast_unsigned()));
    rules.insert(libc::SYS_clone, vec![first_argument(no_namespace, 0)?]);
    // A pair of sockets reaches nobody; the standard library hears of its child through one.
    let pair = SeccompCmpOp::Eq;
    rules.insert(libc::SYS_socketpair, vec![first_argument(pair, libc::AF_UNIX.unsigned_abs().into())?]);
    let asked = PRCTL.map(|option| first_argument(SeccompCmpOp::Eq, option.unsigned_abs().into()));
    rules.insert(libc::SYS_prctl, asked.into_iter().collect::<Result<_, _>>()?);
    Ok(rules)
}

fn first_argument(compare: SeccompCmpOp, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(0, SeccompCmpArgLen::Dword, compare, value)?])
}
