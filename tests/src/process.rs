//! One running peer: its log file, its end by request or by force, and nothing left when it is dropped.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::spawner::Spawner;

/// How often a process that is asked to end is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// What the end of a log may cost in memory and on a terminal.
const TAIL_BYTES: u64 = 6_000;

/// A child whose output goes to a file. Dropping it kills it.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` through `spawner`; output is appended to `log`.
    pub fn start(spawner: &Spawner, name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(log);
        let file = file.with_context(|| format!("could not open {}", log.display()))?;
        let second = file.try_clone().with_context(|| format!("could not share {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file).stderr(second);
        let child = spawner.spawn(command).with_context(|| format!("could not start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// The name it was started under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id, as seen in this process's own PID namespace.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// How it ended, or `None` while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Fails, with the end of the log, when the process has ended.
    pub fn must_run(&mut self) -> Result<()> {
        match self.ended() {
            None => Ok(()),
            Some(status) => Err(anyhow!("{} ended: {status}\n{}", self.name, tail(&self.log))),
        }
    }

    /// Sends a signal; one that has ended by itself is no error.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            // Not yet reaped, so the id is still its own; ESRCH cannot hit a stranger.
            let _ = kill(self.pid(), signal);
        }
    }

    /// Waits until it has ended, at most `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        loop {
            match self.ended() {
                None if start.elapsed() < limit => std::thread::sleep(LOOK_EVERY),
                outcome => return outcome,
            }
        }
    }

    /// Asks it to end (SIGTERM) and kills it after `grace`. Returns how it ended.
    pub fn stop(&mut self, grace: Duration) -> Option<ExitStatus> {
        self.signal(Signal::SIGTERM);
        self.wait(grace).or_else(|| self.kill_9())
    }

    /// Kills it as a crash would, and reaps it.
    pub fn kill_9(&mut self) -> Option<ExitStatus> {
        self.signal(Signal::SIGKILL);
        self.child.wait().ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill_9();
    }
}

/// The last lines of a log file, for a message; empty when there is none.
pub fn tail(log: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = std::fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        // The first line is cut somewhere, unless the log is short.
        let from = if length > TAIL_BYTES { text.find('\n').map_or(0, |end| end + 1) } else { 0 };
        Ok(text[from..].to_owned())
    };
    read().unwrap_or_default()
}

/// The last lines of a log under a heading; empty when the log is.
pub fn heading(title: &str, log: &Path) -> String {
    let lines = tail(log);
    if lines.is_empty() { lines } else { format!("--- {title}\n{lines}\n") }
}
