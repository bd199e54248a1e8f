//! The connection to libvirt: opened by a thread of its own, watched, and opened again when it breaks.
//!
//! ```text
//! apart ── open + register callbacks ──► linked ── close callback, failed call or probe ──► apart
//!   └── wait 50 ms, then up to 250 ms ─┘   (says Reconnected)                (says Disconnected)
//! ```
//! A restart of libvirtd is ordinary: calls that arrive meanwhile wait up to [`PATIENCE`], then say `Unreachable`.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;
use virt::connect::Connect;
use virt::error::Error as VirtError;

use super::events::{Event, Lifecycle, Sink};
use super::ffi::{Listener, Watched};

/// First and longest pause between attempts: a local socket costs nothing to try, libvirtd needs 0.5 to 1 s to come back,
/// and the way back shall take less than 2 s.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// How long after a break a call still waits instead of failing; covers a restart of libvirtd.
const PATIENCE: Duration = Duration::from_secs(2);
/// The close callback tells at once; this only guards against one that never came.
const PROBE_EVERY: Duration = Duration::from_secs(30);
/// A libvirtd that hangs is noticed after 5 s x 6; shorter would cut a merely overloaded one.
const KEEPALIVE_SECONDS: i32 = 5;
const KEEPALIVE_COUNT: u32 = 6;

/// One place that holds the present connection, if any.
pub(super) struct Link {
    uri: String,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    session: Option<Arc<Watched>>,
    apart_since: Instant,
    suspect: bool,
    stopped: bool,
}

impl Link {
    pub(super) fn new(uri: &str) -> Arc<Self> {
        let state = State { session: None, apart_since: Instant::now(), suspect: false, stopped: false };
        Arc::new(Self { uri: uri.to_owned(), state: Mutex::new(state), changed: Condvar::new() })
    }

    pub(super) fn uri(&self) -> &str {
        &self.uri
    }

    /// The connection; waits for one while the break is younger than [`PATIENCE`] and `wanted` still holds.
    pub(super) fn session(&self, wanted: impl Fn() -> bool) -> Option<Arc<Watched>> {
        let mut state = self.lock();
        loop {
            if let Some(session) = &state.session {
                return Some(session.clone());
            }
            let left = PATIENCE.checked_sub(state.apart_since.elapsed())?;
            if state.stopped || !wanted() {
                return None;
            }
            state = self.wait(state, left);
        }
    }

    /// Asks for a look at the connection now, after a call on it failed in a way that smells of a break.
    pub(super) fn suspect(&self) {
        self.lock().suspect = true;
        self.changed.notify_all();
    }

    /// Ends the supervisor and closes the connection once calls in flight are through.
    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    /// The supervisor's life; runs on a thread of its own until [`Link::stop`].
    pub(super) fn supervise(self: &Arc<Self>, sink: &Sink) {
        let mut pause = FIRST_PAUSE;
        while !self.lock().stopped {
            match self.open(sink) {
                Ok(session) => {
                    pause = FIRST_PAUSE;
                    self.hold(session, sink);
                }
                Err(error) => {
                    self.say_once(pause, &error);
                    self.rest(pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    fn open(self: &Arc<Self>, sink: &Sink) -> Result<Watched, VirtError> {
        let connect = Connect::open(Some(&self.uri))?;
        if let Err(error) = connect.set_keep_alive(KEEPALIVE_SECONDS, KEEPALIVE_COUNT) {
            tracing::debug!(%error, "this libvirt driver has no keepalive");
        }
        Watched::new(connect, &Ears { link: self.clone(), sink: sink.clone() })
    }

    /// Publishes the connection until it breaks or we stop.
    fn hold(&self, session: Watched, sink: &Sink) {
        let session = Arc::new(session);
        self.publish(Some(session.clone()));
        tracing::info!(uri = self.uri, "connected to libvirt");
        sink.send(Event::Reconnected);
        while self.still_good(&session) {}
        self.publish(None);
        tracing::warn!(uri = self.uri, "connection to libvirt lost; guests run on");
        sink.send(Event::Disconnected);
    }

    fn still_good(&self, session: &Watched) -> bool {
        let mut state = self.lock();
        if !state.suspect && !state.stopped {
            state = self.wait(state, PROBE_EVERY);
        }
        state.suspect = false;
        let stopped = state.stopped;
        drop(state);
        !stopped && session.connect().is_alive().unwrap_or(false)
    }

    fn publish(&self, session: Option<Arc<Watched>>) {
        let mut state = self.lock();
        state.session = session;
        state.apart_since = Instant::now();
        drop(state);
        self.changed.notify_all();
    }

    /// One line per outage, not per attempt.
    fn say_once(&self, pause: Duration, error: &VirtError) {
        if pause == FIRST_PAUSE {
            tracing::warn!(uri = self.uri, %error, "libvirt is not reachable; trying again");
        }
    }

    fn rest(&self, pause: Duration) {
        let until = Instant::now() + pause;
        let mut state = self.lock();
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|_| !state.stopped) {
            state = self.wait(state, left);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock, and the state stays whole even then.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, limit: Duration) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, limit).unwrap_or_else(PoisonError::into_inner).0
    }
}

/// What the C callbacks hold: enough to pass news on, nothing that blocks.
#[derive(Clone)]
struct Ears {
    link: Arc<Link>,
    sink: Sink,
}

impl Listener for Ears {
    fn lifecycle(&self, uuid: Uuid, change: Lifecycle) {
        self.sink.send(Event::Lifecycle { uuid, change });
    }

    fn closed(&self) {
        self.link.suspect();
    }
}
