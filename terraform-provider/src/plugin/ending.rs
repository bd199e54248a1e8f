//! When the process ends, and how long it still has then.
//!
//! | who says so | time left |
//! |---|---|
//! | `GRPCController.Shutdown`, at the end of each phase | enough to answer; the host kills us after 2 s |
//! | SIGTERM | enough for what is under way to return what it made |
//! | the host is gone | none: nobody is there to take a state |
//! | SIGINT, from the terminal to the whole group | ignored: the host sends `StopProvider` and waits for the state |

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tonic::{Request, Response, Status, async_trait};

use super::proto::plugin::Empty;
use super::proto::plugin::grpc_controller_server::GrpcController;
use super::stop::Stop;

const TO_ANSWER: Duration = Duration::from_millis(250);
const TO_RETURN: Duration = Duration::from_secs(5);

/// How often to look whether the host is still there.
const LOOK: Duration = Duration::from_secs(2);

/// Says that the process ends.
#[derive(Debug, Clone)]
pub struct Ending(watch::Sender<Option<Duration>>);

/// What SIGINT means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupt {
    /// Nothing: the host says what is to be done.
    Ignored,
    /// The end: a person started us.
    Ends,
}

impl Default for Ending {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Ending {
    /// Waits for the end to begin, and says how long there is until it is over.
    pub async fn begun(&self) -> Duration {
        let mut receiver = self.0.subscribe();
        // The sender lives as long as `self`, so there is no other way out than a value.
        receiver.wait_for(Option::is_some).await.ok().and_then(|grace| *grace).unwrap_or_default()
    }

    fn begin(&self, grace: Duration) {
        self.0.send_replace(Some(grace));
    }
}

/// The host's end of a phase.
#[async_trait]
impl GrpcController for Ending {
    async fn shutdown(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        self.begin(TO_ANSWER);
        Ok(Response::new(Empty {}))
    }
}

/// Listens to signals from now on.
pub fn on_signals(ending: Ending, stop: Stop, interrupt: Interrupt) -> std::io::Result<()> {
    let terminate = signal(SignalKind::terminate())?;
    let interrupted = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        first(terminate, interrupted, interrupt).await;
        stop.cancel();
        ending.begin(TO_RETURN);
    });
    Ok(())
}

async fn first(mut terminate: Signal, mut interrupted: Signal, interrupt: Interrupt) {
    loop {
        tokio::select! {
            _ = terminate.recv() => return,
            _ = interrupted.recv() => match interrupt {
                Interrupt::Ends => return,
                Interrupt::Ignored => tracing::debug!("ignored an interrupt: the host decides"),
            },
        }
    }
}

/// Ends with the host: one that was killed says nothing, and go-plugin leaves its plugins behind.
pub fn with_parent(ending: Ending) {
    let parent = std::os::unix::process::parent_id();
    tokio::spawn(async move {
        while std::os::unix::process::parent_id() == parent {
            tokio::time::sleep(LOOK).await;
        }
        ending.begin(Duration::ZERO);
    });
}
