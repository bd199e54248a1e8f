//! QEMU's disk tool in a cell of its own (S6).
//!
//! A tool that reads what a guest has written is one parser bug away from running the guest's code, so it gets
//! nothing but one open file: an unprivileged user, no new privileges, Landlock (`paths`), the system calls it needs
//! (`calls`, no socket among them), and limits on memory, processor time, file size and open files. The file is its
//! standard input, opened by us, so it needs no right to any folder.
//!
//! Landlock and the filter belong to a *thread* in Linux and are inherited by what the thread starts. So a
//! short-lived thread locks itself in and starts the tool; that needs no `unsafe` between fork and exec. The limits
//! belong to a process and are set by `prlimit` on its way to the tool.

mod calls;
mod paths;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::fchown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::{Gid, Uid, User};
use seccompiler::BpfProgram;

/// How the tool names the file we hand it.
pub(crate) const DISK: &str = "/proc/self/fd/0";

/// The user the package makes for this purpose; it owns nothing.
const OWN_USER: &str = "holdfast-image";
/// Owns nothing either, and exists everywhere.
const FALLBACK_USER: &str = "nobody";
const PRLIMIT: &str = "/usr/bin/prlimit";
/// Address space: `qemu-img` maps about 300 MiB of libraries; tables of a large disk stay below the rest.
const MEMORY_BYTES: u64 = 1 << 30;
/// Processor time; making or growing a disk takes milliseconds.
const CPU_SECONDS: u64 = 20;
/// Wall time: a slow disk may take long to sync, a tool that hangs must not hold up the virtual machine for ever.
const DEADLINE: Duration = Duration::from_secs(60);
/// How much of the tool's complaint is kept.
const SAID_BYTES: u64 = 2048;

/// A tool, and the cell it runs in.
pub(crate) struct Confined {
    program: PathBuf,
    owner: Option<(Uid, Gid)>,
    filter: BpfProgram,
}

/// Why the tool did not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The program or what confines it is not on this node.
    #[error("{} is missing on this node; install {package}", .program.display())]
    Missing { program: PathBuf, package: &'static str },
    /// The cell could not be built; the tool was not started.
    #[error("could not confine {}", .program.display())]
    Cell { program: PathBuf, source: io::Error },
    /// It was stopped at the deadline.
    #[error("{} did not finish within {} s", .program.display(), DEADLINE.as_secs())]
    TooSlow { program: PathBuf },
    /// It ended with an error.
    #[error("{} failed ({status}): {said}", .program.display())]
    Failed { program: PathBuf, status: ExitStatus, said: String },
}

impl Error {
    /// Whether the tool complained about a full disk.
    pub(crate) fn is_disk_full(&self) -> bool {
        matches!(self, Self::Failed { said, .. } if said.contains("No space left on device") || said.contains("quota"))
    }
}

impl Confined {
    /// Finds the tool and prepares its cell.
    pub(crate) fn open(program: &Path, package: &'static str) -> Result<Self, Error> {
        for (needed, package) in [(program, package), (Path::new(PRLIMIT), "util-linux")] {
            if !needed.is_file() {
                return Err(Error::Missing { program: needed.to_owned(), package });
            }
        }
        let cell = |source| Error::Cell { program: program.to_owned(), source };
        Ok(Self {
            program: program.to_owned(),
            owner: owner().map_err(cell)?,
            filter: calls::filter().map_err(cell)?,
        })
    }

    /// Runs the tool on `disk`, which may grow to `largest_bytes`. Blocks until it is done or the deadline passes.
    ///
    /// The file belongs to the tool's user meanwhile and to root again afterwards.
    pub(crate) fn run<S: AsRef<OsStr>>(
        &self,
        arguments: &[S],
        disk: &File,
        largest_bytes: u64,
    ) -> Result<(), Error> {
        let cell = |source| Error::Cell { program: self.program.clone(), source };
        let mut command = self.command(arguments, largest_bytes);
        command.stdin(disk.try_clone().map_err(cell)?);
        self.hand_over(disk).map_err(cell)?;
        let outcome = self.start(command, disk).map_err(cell).and_then(|child| self.watch(child));
        self.take_back(disk).map_err(cell)?;
        outcome
    }

    fn command<S: AsRef<OsStr>>(&self, arguments: &[S], largest_bytes: u64) -> Command {
        let mut command = Command::new(PRLIMIT);
        command.arg(format!("--as={MEMORY_BYTES}")).arg(format!("--cpu={CPU_SECONDS}"));
        command.arg(format!("--fsize={largest_bytes}")).args(["--core=0", "--nofile=64", "--"]);
        command.arg(&self.program).args(arguments);
        // English messages, so that a full disk is recognised; nothing else of our environment.
        command.env_clear().env("LC_ALL", "C").current_dir("/");
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        if let Some((user, group)) = self.owner {
            // With a user given, the standard library also drops all supplementary groups.
            command.uid(user.as_raw()).gid(group.as_raw());
        }
        command
    }

    /// Starts the command from a thread that has locked itself in.
    fn start(&self, mut command: Command, disk: &File) -> io::Result<Child> {
        thread::scope(|scope| {
            let jailer = scope.spawn(move || {
                self.lock_in(disk)?;
                command.spawn()
            });
            jailer.join().map_err(|_| io::Error::other("the confining thread died"))?
        })
    }

    fn lock_in(&self, disk: &File) -> io::Result<()> {
        paths::restrict(&[Path::new(PRLIMIT), &self.program], disk)?;
        // Sets no_new_privs as well.
        seccompiler::apply_filter(&self.filter).map_err(io::Error::other)
    }

    /// Waits for the end of the tool's complaints, which is its end, and kills it at the deadline.
    fn watch(&self, mut child: Child) -> Result<(), Error> {
        let deadline = Instant::now() + DEADLINE;
        let cell = |source| Error::Cell { program: self.program.clone(), source };
        let said = read_aside(child.stderr.take());
        let Ok(said) = said.recv_timeout(DEADLINE) else {
            return Err(self.stop(child));
        };
        loop {
            match child.try_wait().map_err(cell)? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => {
                    return Err(Error::Failed { program: self.program.clone(), status, said });
                }
                None if Instant::now() > deadline => return Err(self.stop(child)),
                None => thread::sleep(Duration::from_micros(200)),
            }
        }
    }

    fn stop(&self, mut child: Child) -> Error {
        // Both fail only for a child that has ended, which is what we want.
        let _ = child.kill();
        let _ = child.wait();
        Error::TooSlow { program: self.program.clone() }
    }

    fn hand_over(&self, disk: &File) -> io::Result<()> {
        self.owner.map_or(Ok(()), |(user, group)| fchown(disk, Some(user.as_raw()), Some(group.as_raw())))
    }

    fn take_back(&self, disk: &File) -> io::Result<()> {
        self.owner.map_or(Ok(()), |_| fchown(disk, Some(0), Some(0)))
    }
}

/// Whom the tool runs as; without root there is only ourselves.
fn owner() -> io::Result<Option<(Uid, Gid)>> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    for name in [OWN_USER, FALLBACK_USER] {
        if let Some(user) = User::from_name(name)? {
            return Ok(Some((user.uid, user.gid)));
        }
    }
    Err(io::Error::other("there is no user holdfast-image and no user nobody to run it as"))
}

/// Reads the tool's complaints on a thread of their own, so that the wait for them can have an end.
fn read_aside(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut said = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.by_ref().take(SAID_BYTES).read_to_end(&mut said);
            let _ = io::copy(&mut pipe, &mut io::sink());
        }
        // The receiver is gone only when the deadline has passed.
        let _ = sender.send(String::from_utf8_lossy(&said).trim().to_owned());
    });
    receiver
}

#[cfg(test)]
mod tests;
