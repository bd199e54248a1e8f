//! Proof that guests can run: a few instructions in long mode, under a deadline, seen to have had their effect.
//!
//! A `/dev/kvm` that opens proves nothing: inside some virtual machines it opens and no guest instruction is ever
//! executed, or each takes microseconds. So QEMU is started with a 64 KiB firmware of ours and nothing else, and its exit
//! code tells whether that code ran. The node starts no guest without the proof and never falls back to emulation.

mod firmware;

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{error, info};

use crate::config::Accelerator;
use crate::jitter;

/// A real processor needs 0.2 s for all of it, QEMU's start included.
const KVM_DEADLINE: Duration = Duration::from_secs(10);
/// Emulation needs a second, and many when every core emulates already; its speed is nobody's question.
const TCG_DEADLINE: Duration = Duration::from_secs(60);
/// A missing proof is sought again this often: somebody may load the module or stop what holds the processor.
const AGAIN: Duration = Duration::from_secs(300);

/// Whether guests can run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// Being sought; takes at most 10 s with KVM.
    Pending,
    /// Guest code was seen to run.
    Holds,
    /// It was not, and why, with the remedy.
    Missing(String),
}

impl Proof {
    /// Whether guests may be started.
    pub(crate) fn holds(&self) -> bool {
        *self == Self::Holds
    }

    /// The sentence for people; empty when there is nothing to say.
    pub(crate) fn message(&self) -> &str {
        match self {
            Self::Pending => "the accelerator is being proved",
            Self::Holds => "",
            Self::Missing(why) => why,
        }
    }
}

/// Why guest code was not seen to run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No firmware of ours for this processor.
    #[error("there is no proof for processors of type {}", std::env::consts::ARCH)]
    Architecture,
    /// The emulator could not be started.
    #[error("could not start {}", emulator.display())]
    Start { emulator: PathBuf, source: std::io::Error },
    /// The code did not come to its end in time.
    #[error("guest code did not come to its end within {} s", deadline.as_secs())]
    Deadline { deadline: Duration },
    /// The emulator ended before the code did.
    #[error("the emulator ended before guest code ran: {last_words}")]
    Ended { last_words: String },
}

/// Proves the accelerator at start, and again while the proof is missing.
pub(crate) async fn keep_proving(accelerator: Accelerator, emulator: PathBuf, proof: watch::Sender<Proof>) {
    loop {
        match prove(accelerator, &emulator).await {
            Ok(()) => {
                info!(accelerator = accelerator.word(), "guest code was seen to run");
                proof.send_replace(Proof::Holds);
                return;
            }
            Err(failure) => {
                let sentence = sentence(accelerator, &failure);
                let new = Proof::Missing(sentence.clone());
                if proof.send_if_modified(|old| std::mem::replace(old, new.clone()) != new) {
                    error!(accelerator = accelerator.word(), "{sentence}");
                }
            }
        }
        sleep(jitter::spread(AGAIN)).await;
    }
}

/// Runs the code once; returns within the deadline. The emulator is ended if it does not end by itself.
pub(crate) async fn prove(accelerator: Accelerator, emulator: &Path) -> Result<(), Error> {
    let code = firmware::image().ok_or(Error::Architecture)?;
    let failed = |source| Error::Start { emulator: emulator.to_owned(), source };
    // In memory, so that the proof needs no place to write.
    let file =
        memfd_create(c"holdfast-proof", MFdFlags::MFD_CLOEXEC).map_err(|errno| failed(errno.into()))?;
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    std::fs::write(&path, code).map_err(failed)?;
    let child = command(accelerator, emulator, &path).spawn().map_err(failed)?;
    let deadline = deadline(accelerator);
    match timeout(deadline, child.wait_with_output()).await {
        Ok(output) => judge(&output.map_err(failed)?),
        Err(_) => Err(Error::Deadline { deadline }),
    }
}

fn deadline(accelerator: Accelerator) -> Duration {
    match accelerator {
        Accelerator::Kvm => KVM_DEADLINE,
        Accelerator::Tcg => TCG_DEADLINE,
    }
}

/// The failure with what to do about it, in one sentence.
pub(crate) fn sentence(accelerator: Accelerator, failure: &Error) -> String {
    let cause = std::error::Error::source(failure).map(|source| format!(": {source}")).unwrap_or_default();
    let remedy = match (failure, accelerator) {
        (Error::Start { .. }, _) => {
            "install QEMU for this processor, or set emulator in the node's configuration"
        }
        (Error::Architecture, _) => "use a node with another processor",
        (_, Accelerator::Kvm) => {
            "switch on virtualisation in the firmware (in the host, if this is a virtual machine) and load the kvm \
             module, or set accelerator: tcg to emulate, slowly"
        }
        (_, Accelerator::Tcg) => "see whether the host is overloaded or its QEMU is broken",
    };
    format!("{} was not proved: {failure}{cause}; {remedy}", accelerator.word())
}

/// The least machine that runs our firmware: no devices but the one that ends it, no network, no display, confined.
fn command(accelerator: Accelerator, emulator: &Path, firmware: &str) -> Command {
    let (accel, cpu) = match accelerator {
        // As the guests get it: a host whose processor cannot be passed on is no use.
        Accelerator::Kvm => ("kvm", "host"),
        Accelerator::Tcg => ("tcg", "max"),
    };
    let mut command = Command::new(emulator);
    command
        .args([
            "-no-user-config",
            "-nodefaults",
            "-display",
            "none",
            "-no-reboot",
            "-machine",
            "q35",
            "-m",
            "16",
        ])
        .args(["-accel", accel, "-cpu", cpu, "-bios", firmware])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"])
        .args(["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

fn judge(output: &Output) -> Result<(), Error> {
    if output.status.code() == Some(firmware::EXIT_CODE) {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let last = words.lines().rev().find(|line| !line.trim().is_empty());
    let last = last.map_or_else(|| output.status.to_string(), |line| line.chars().take(200).collect());
    Err(Error::Ended { last_words: last })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn emulator() -> PathBuf {
        let path = PathBuf::from(format!("/usr/bin/qemu-system-{}", std::env::consts::ARCH));
        assert!(path.exists(), "peer missing: qemu-system-x86");
        path
    }

    #[tokio::test]
    async fn emulation_runs_the_code_to_its_end() {
        prove(Accelerator::Tcg, &emulator()).await.unwrap();
    }

    #[tokio::test]
    async fn kvm_is_proved_or_refused_within_the_deadline() {
        let start = Instant::now();
        let outcome = prove(Accelerator::Kvm, &emulator()).await;
        assert!(start.elapsed() < KVM_DEADLINE + Duration::from_secs(3));
        println!("kvm on this machine: {outcome:?} after {:?}", start.elapsed());
    }

    #[tokio::test]
    async fn an_emulator_that_ends_otherwise_proves_nothing() {
        for program in ["/bin/true", "/bin/false"] {
            let refused = prove(Accelerator::Kvm, Path::new(program)).await.unwrap_err();
            assert!(matches!(refused, Error::Ended { .. }), "{refused}");
        }
    }

    #[tokio::test]
    async fn a_missing_emulator_is_named_with_the_remedy() {
        let refused = prove(Accelerator::Kvm, Path::new("/nonexistent/qemu")).await.unwrap_err();
        let sentence = sentence(Accelerator::Kvm, &refused);
        assert!(sentence.contains("/nonexistent/qemu") && sentence.contains("install QEMU"), "{sentence}");
    }
}
