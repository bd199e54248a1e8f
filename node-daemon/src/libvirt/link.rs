//! The connection to libvirt: opened by a thread of its own, watched, and opened again when it breaks.
//!
//! ```text
//! apart ── open + register callbacks ──► linked ── close callback, failed call or probe ──► apart
//!   └── wait 50 ms, then up to 250 ms ─┘   (says Reconnected)                (says Disconnected)
//! ```
//! A restart of libvirtd is ordinary: calls that arrive meanwhile wait up to [`PATIENCE`], then say `Unreachable`.
//!
//! A libvirtd that hangs breaks nothing: it takes connections and never answers. So a thread of its own asks for a
//! trifle every few seconds, and who has to know looks at how old the last answer is ([`Link::reach`]).

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
/// A libvirtd that hangs is cut off after 5 s x 6, which frees the calls in flight; shorter would cut a merely overloaded
/// one.
const KEEPALIVE_SECONDS: i32 = 5;
const KEEPALIVE_COUNT: u32 = 6;
/// How often libvirt is asked whether it is there: one small message.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// Without an answer for this long libvirt is silent: two questions more than one that got lost in a busy moment, and half
/// of the 30 s within which everybody shall know.
const SILENT: Duration = Duration::from_secs(15);

/// Whether libvirt answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The daemon has just started, and neither is known yet.
    Untold,
    /// It did so lately.
    Answers,
    /// It has not answered for a while: it hangs, or is not there.
    Silent,
}

impl Reach {
    /// From how long ago libvirt answered, or since when it was waited for while it never did.
    fn after(silence: Duration, ever: bool) -> Self {
        match (silence > SILENT, ever) {
            (true, _) => Self::Silent,
            (false, true) => Self::Answers,
            (false, false) => Self::Untold,
        }
    }
}

/// One place that holds the present connection, if any.
pub(super) struct Link {
    uri: String,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    session: Option<Arc<Watched>>,
    apart_since: Instant,
    /// When libvirt last answered anything; the start of the daemon where it never did.
    answered: Instant,
    answered_ever: bool,
    suspect: bool,
    stopped: bool,
}

impl Link {
    pub(super) fn new(uri: &str) -> Arc<Self> {
        let now = Instant::now();
        let state = State {
            session: None,
            apart_since: now,
            answered: now,
            answered_ever: false,
            suspect: false,
            stopped: false,
        };
        Arc::new(Self { uri: uri.to_owned(), state: Mutex::new(state), changed: Condvar::new() })
    }

    pub(super) fn uri(&self) -> &str {
        &self.uri
    }

    /// Whether libvirt answers, as far as its last answer tells.
    pub(super) fn reach(&self) -> Reach {
        let state = self.lock();
        Reach::after(state.answered.elapsed(), state.answered_ever)
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

    /// Asks libvirt again and again whether it is there; runs on a thread of its own until [`Link::stop`], since a question
    /// to one that hangs does not come back.
    pub(super) fn ask(&self) {
        while !self.lock().stopped {
            let session = self.lock().session.clone();
            if session.is_some_and(|session| session.connect().lib_version().is_ok()) {
                self.answered();
            }
            self.rest(ASK_EVERY);
        }
    }

    fn answered(&self) {
        let mut state = self.lock();
        (state.answered, state.answered_ever) = (Instant::now(), true);
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
        self.answered();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_question_that_got_lost_is_no_silence() {
        assert_eq!(Reach::after(ASK_EVERY * 2, true), Reach::Answers);
        assert_eq!(Reach::after(ASK_EVERY * 2, false), Reach::Untold);
        assert_eq!(Reach::after(SILENT + Duration::from_secs(1), false), Reach::Silent);
    }
}
