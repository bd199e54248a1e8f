//! The threads that talk to libvirt, and how an async caller waits for them.
//!
//! libvirt blocks, sometimes for minutes, so its calls run on threads of our own and never on tokio's pool. The caller
//! waits with a limit; a call that is still queued when its caller has gone is dropped, one that has begun runs on and
//! keeps its place in the order of its domain.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use uuid::Uuid;
use virt::connect::Connect;
use virt::error::Error as VirtError;

use super::error::{Error, Fault};
use super::events::Sink;
use super::link::Link;
use super::queue::Queue;

/// Enough that a slow start and a slow stop leave room for reads; each idle thread costs a few kB.
const WORKERS: usize = 4;

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
    /// Starts the supervisor of the connection and the workers.
    pub(super) fn start(uri: &str, sink: Sink) -> Result<Self, io::Error> {
        let actor = Self { queue: Arc::default(), link: Link::new(uri) };
        let link = actor.link.clone();
        spawn("libvirt-link", move || link.supervise(&sink))?;
        for _ in 0..WORKERS {
            let queue = actor.queue.clone();
            spawn("libvirt-call", move || queue.work())?;
        }
        Ok(actor)
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
        if !self.queue.push(subject.order(), Box::new(job)) {
            return Err(Error::Busy { verb, subject: words });
        }
        match tokio::time::timeout(call.limit, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(lost(verb, words)),
            Err(_) => Err(Error::Timeout { verb, subject: words, limit: call.limit }),
        }
    }
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
