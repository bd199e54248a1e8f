//! The threads that talk to libvirt, and how an async caller waits for them.
//!
//! libvirt blocks, sometimes for minutes, so its calls run on threads of our own and never on tokio's pool. The caller
//! waits with a limit, and not at all once libvirt is silent; a call that is still queued when its caller has gone is
//! dropped, one that has begun runs on and keeps its place in the order of its domain. Its thread is then replaced, so that
//! calls that never return do not take all of them.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use uuid::Uuid;
use virt::connect::Connect;
use virt::error::Error as VirtError;

use super::error::{Error, Fault};
use super::events::Sink;
use super::link::{Link, Reach};
use super::queue::{Queue, Ticket, WORKERS};

/// How often a caller that waits looks whether libvirt is still there.
const LOOK: Duration = Duration::from_secs(1);

/// What a call is called in errors, and how long its caller waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) verb: &'static str,
    pub(super) limit: Duration,
}

/// Whom a call is about: the order it keeps and the words for its errors.
#[derive(Debug, Clone)]
pub(super) enum Subject {
    Domain(Uuid),
    Network(Uuid),
    Host,
}

impl Subject {
    fn order(&self) -> Option<Uuid> {
        match self {
            Self::Domain(uuid) | Self::Network(uuid) => Some(*uuid),
            Self::Host => None,
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Domain(uuid) => format!("domain {uuid}"),
            Self::Network(uuid) => format!("network {uuid}"),
            Self::Host => "this host".to_owned(),
        }
    }
}

/// Owns the threads; they end when it is dropped.
pub(super) struct Actor {
    queue: Arc<Queue>,
    link: Arc<Link>,
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.queue.close();
        self.link.stop();
    }
}

impl Actor {
    /// Starts the supervisor of the connection, whoever asks whether libvirt is there, and the workers.
    pub(super) fn start(uri: &str, sink: Sink) -> Result<Self, io::Error> {
        let actor = Self { queue: Arc::default(), link: Link::new(uri) };
        let link = actor.link.clone();
        spawn("libvirt-link", move || link.supervise(&sink))?;
        let link = actor.link.clone();
        spawn("libvirt-ask", move || link.ask())?;
        for _ in 0..WORKERS {
            actor.queue.enlist();
            actor.worker()?;
        }
        Ok(actor)
    }

    fn worker(&self) -> Result<(), io::Error> {
        let queue = self.queue.clone();
        spawn("libvirt-call", move || queue.work())
    }

    /// Whether libvirt answers.
    pub(super) fn reach(&self) -> Reach {
        self.link.reach()
    }

    /// Runs `work` on a worker, in the order of its subject, and waits for its answer.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        call: Call,
        subject: Subject,
        work: impl FnOnce(&Connect) -> Result<T, VirtError> + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let job = job(self.link.clone(), call, subject.clone(), reply, work);
        let (verb, words) = (call.verb, subject.words());
        let Some(ticket) = self.queue.push(subject.order(), Box::new(job)) else {
            return Err(Error::Busy { verb, subject: words });
        };
        let error = match self.wait(call.limit, answer).await {
            Waited::Answered(result) => return result,
            Waited::Lost => return Err(lost(verb, words)),
            Waited::Late => Error::Timeout { verb, subject: words, limit: call.limit },
            Waited::Silent => Error::Unreachable { uri: self.link.uri().to_owned() },
        };
        self.replace(&ticket);
        Err(error)
    }

    /// Waits for the answer, for as long as the call may take and libvirt is there.
    async fn wait<T>(&self, limit: Duration, mut answer: oneshot::Receiver<Result<T, Error>>) -> Waited<T> {
        let end = Instant::now() + limit;
        loop {
            if self.link.reach() == Reach::Silent {
                return Waited::Silent;
            }
            let left = end.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left.min(LOOK), &mut answer).await {
                Ok(Ok(result)) => return Waited::Answered(result),
                Ok(Err(_)) => return Waited::Lost,
                Err(_) if left <= LOOK => return Waited::Late,
                Err(_) => {}
            }
        }
    }

    /// Whoever runs a call that nobody waits for any more is replaced, until it comes back.
    fn replace(&self, ticket: &Ticket) {
        if self.queue.give_up(ticket)
            && let Err(error) = self.worker()
        {
            self.queue.dismiss();
            tracing::warn!(%error, "no thread for further calls to libvirt");
        }
    }
}

/// What became of waiting for a call.
enum Waited<T> {
    Answered(Result<T, Error>),
    /// Its worker dropped it.
    Lost,
    /// It took longer than it may.
    Late,
    /// Libvirt is not there.
    Silent,
}

fn spawn(name: &str, life: impl FnOnce() + Send + 'static) -> Result<(), io::Error> {
    thread::Builder::new().name(name.to_owned()).spawn(life).map(drop)
}

fn job<T: Send + 'static>(
    link: Arc<Link>,
    call: Call,
    subject: Subject,
    reply: oneshot::Sender<Result<T, Error>>,
    work: impl FnOnce(&Connect) -> Result<T, VirtError> + Send + 'static,
) -> impl FnOnce() + Send + 'static {
    move || {
        let session = link.session(|| !reply.is_closed());
        if reply.is_closed() {
            return;
        }
        let result = match &session {
            Some(session) => work(session.connect())
                .map_err(|error| judge(&link, session.connect(), call, &subject, &error)),
            None => Err(Error::Unreachable { uri: link.uri().to_owned() }),
        };
        // The connection is let go first: the last holder closes it, and that must not happen under the caller's feet.
        drop(session);
        drop(reply.send(result));
    }
}

/// A failure on a dead connection is about the connection, whatever the words.
fn judge(link: &Link, connect: &Connect, call: Call, subject: &Subject, error: &VirtError) -> Error {
    if connect.is_alive().unwrap_or(false) {
        return Error::of(call.verb, subject.words(), error);
    }
    link.suspect();
    Error::Unreachable { uri: link.uri().to_owned() }
}

/// The worker dropped our job: it panicked, or the actor ended.
fn lost(verb: &'static str, subject: String) -> Error {
    let source = Fault { code: 0, message: "the call ended without an answer".to_owned() };
    Error::Failed { verb, subject, source }
}
