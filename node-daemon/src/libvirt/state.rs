//! What a domain is doing and why, with every reason of libvirt mapped to what it means for a VM.

use virt::domain::{
    Domain as Handle, DomainCrashedReason, DomainPausedReason, DomainShutoffReason, DomainState as Raw,
    DomainStateReason as RawReason,
};
use virt::enumutil::Enum;
use virt::error::Error as VirtError;

/// The state of a domain (`virDomainState`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DomainState {
    /// The guest's CPUs run (or wait on a resource of the host).
    Running,
    /// The guest exists and its CPUs stand still.
    Paused { reason: PausedReason },
    /// The guest is on its way down.
    ShuttingDown,
    /// No guest.
    ShutOff { reason: ShutOffReason },
    /// The guest crashed and its process still stands.
    Crashed { reason: CrashedReason },
    /// The guest has put itself to sleep.
    PmSuspended,
    /// libvirt does not say, or says something newer than this code.
    Unknown,
}

/// Why a domain is paused (`virDomainPausedReason`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PausedReason {
    /// Somebody asked for it, or it was started paused.
    User,
    /// A disk failed or the host's disk is full.
    IoError,
    /// QEMU is being set up.
    Starting,
    /// The guest panicked.
    Crashed,
    /// The guest's watchdog fired.
    Watchdog,
    /// Migration, save, dump or snapshot under way.
    Busy,
    /// Anything libvirt does not explain.
    Unknown,
}

/// Why there is no guest (`virDomainShutoffReason`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShutOffReason {
    /// The guest powered itself off, by its own will or on request.
    Shutdown,
    /// It was destroyed by a call.
    Destroyed,
    /// QEMU or the guest crashed; a killed QEMU is reported so too.
    Crashed,
    /// It never came up.
    Failed,
    /// It was saved to a file or migrated away, by somebody else.
    Saved,
    /// It was reverted to a snapshot of a domain that was off, by somebody else.
    FromSnapshot,
    /// libvirtd decided so when it reconnected to QEMU.
    Daemon,
    /// Not known: defined and never started since libvirtd or the host did.
    Unknown,
}

/// Why a domain is crashed (`virDomainCrashedReason`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CrashedReason {
    Panicked,
    Unknown,
}

/// Asks libvirt for the state. `virt` 0.5 swallows a failing call and answers with the number -1; that is turned back
/// into the error it was.
pub(super) fn read(handle: &Handle) -> Result<DomainState, VirtError> {
    match handle.state()? {
        (Enum::Unknown(u32::MAX), _) => Err(VirtError::last_error()),
        (Enum::Unknown(_), _) => Ok(DomainState::Unknown),
        (Enum::Known(state), Enum::Known(reason)) => Ok(map(state, Some(reason))),
        (Enum::Known(state), Enum::Unknown(_)) => Ok(map(state, None)),
    }
}

fn map(state: Raw, reason: Option<RawReason>) -> DomainState {
    match state {
        Raw::NoState => DomainState::Unknown,
        Raw::Running | Raw::Blocked => DomainState::Running,
        Raw::Paused => paused(reason),
        Raw::Shutdown => DomainState::ShuttingDown,
        Raw::Shutoff => DomainState::ShutOff { reason: shut_off(reason) },
        Raw::Crashed => DomainState::Crashed { reason: crashed(reason) },
        Raw::PMSuspended => DomainState::PmSuspended,
    }
}

fn paused(reason: Option<RawReason>) -> DomainState {
    use DomainPausedReason as R;
    let Some(RawReason::Paused(Enum::Known(reason))) = reason else {
        return DomainState::Paused { reason: PausedReason::Unknown };
    };
    let reason = match reason {
        // The guest has powered off and QEMU waits for libvirt to end it.
        R::ShuttingDown => return DomainState::ShuttingDown,
        R::User => PausedReason::User,
        R::IOError => PausedReason::IoError,
        R::StartingUp => PausedReason::Starting,
        R::Crashed => PausedReason::Crashed,
        R::Watchdog => PausedReason::Watchdog,
        R::Migration
        | R::PostCopy
        | R::PostCopyFailed
        | R::Save
        | R::Dump
        | R::Snapshot
        | R::FromSnapshot => PausedReason::Busy,
        R::Unknown | R::APIError => PausedReason::Unknown,
    };
    DomainState::Paused { reason }
}

fn shut_off(reason: Option<RawReason>) -> ShutOffReason {
    use DomainShutoffReason as R;
    let Some(RawReason::Shutoff(Enum::Known(reason))) = reason else {
        return ShutOffReason::Unknown;
    };
    match reason {
        R::Unknown => ShutOffReason::Unknown,
        R::Shutdown => ShutOffReason::Shutdown,
        R::Destroyed => ShutOffReason::Destroyed,
        R::Crashed => ShutOffReason::Crashed,
        R::Failed => ShutOffReason::Failed,
        R::Migrated | R::Saved => ShutOffReason::Saved,
        R::FromSnapshot => ShutOffReason::FromSnapshot,
        R::Daemon => ShutOffReason::Daemon,
    }
}

fn crashed(reason: Option<RawReason>) -> CrashedReason {
    match reason {
        Some(RawReason::Crashed(Enum::Known(DomainCrashedReason::Panicked))) => CrashedReason::Panicked,
        _ => CrashedReason::Unknown,
    }
}
