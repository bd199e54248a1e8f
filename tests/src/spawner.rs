//! A thread that starts processes and does other work where it matters *which* thread does it.
//!
//! A parent-death signal fires when the parent *thread* ends, and namespaces belong to threads: so one thread per
//! place (this machine, or a simulated host) starts everything there, and its end is the end of all of it.

use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow};

type Work = Box<dyn FnOnce() + Send>;

/// Handle of one such thread. Dropping it ends the thread, and with it every mortal child it started.
pub struct Spawner {
    work: Option<Sender<Work>>,
    thread: Option<JoinHandle<()>>,
}

impl Spawner {
    /// Starts the thread, which first runs `prepare` (say, enters namespaces); its failure is ours.
    pub fn start(name: &str, prepare: impl FnOnce() -> Result<()> + Send + 'static) -> Result<Self> {
        let (work, queue) = channel::<Work>();
        let (ready, prepared) = channel();
        let body = move || {
            let outcome = prepare();
            let failed = outcome.is_err();
            if ready.send(outcome).is_err() || failed {
                return;
            }
            for work in queue {
                work();
            }
        };
        let thread =
            thread::Builder::new().name(name.to_owned()).spawn(body).context("could not start a thread")?;
        prepared.recv().map_err(|_| anyhow!("thread {name} ended while preparing"))??;
        Ok(Self { work: Some(work), thread: Some(thread) })
    }

    /// The spawner of this machine's own namespaces; it lives as long as the process.
    pub fn machine() -> Result<&'static Self> {
        static MACHINE: OnceLock<Spawner> = OnceLock::new();
        if let Some(spawner) = MACHINE.get() {
            return Ok(spawner);
        }
        let fresh = Self::start("machine", || Ok(()))?;
        Ok(MACHINE.get_or_init(|| fresh))
    }

    /// Runs `work` on the thread and waits for its result. Work must be short: the thread does one thing at a time.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let (reply, result) = channel();
        let job: Work = Box::new(move || drop(reply.send(work())));
        let queue = self.work.as_ref().ok_or_else(|| anyhow!("this spawner has ended"))?;
        queue.send(job).map_err(|_| anyhow!("the spawner's thread has ended"))?;
        result.recv().map_err(|_| anyhow!("the spawner's thread ended during the work"))
    }

    /// Starts `command` there.
    pub fn spawn(&self, mut command: Command) -> Result<Child> {
        let what = format!("could not start {}", command.get_program().to_string_lossy());
        self.run(move || command.spawn())?.context(what)
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        drop(self.work.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported where its work was awaited.
            drop(thread.join());
        }
    }
}
