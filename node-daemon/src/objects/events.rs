//! Kubernetes Events: the story `kubectl describe` tells. Queued, so that no driver waits for the API.

use std::sync::Arc;
use std::time::Duration;

use holdfast_api::{VirtualMachine, names};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use tokio::sync::mpsc;
use tracing::debug;

use super::Objects;

/// Events that wait while the API is away. Beyond that new ones are dropped: conditions carry the truth.
pub(super) const QUEUE: usize = 128;
/// Bound of one attempt.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Pause before the next attempt; together with [`QUEUE`] it bounds what a dead link costs.
const PAUSE: Duration = Duration::from_secs(5);
/// The API refuses notes above 1 kB.
const LONGEST_NOTE: usize = 1000;

/// How an event shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    /// The story.
    Normal,
    /// Somebody should look.
    Warning,
}

/// An event about to be published.
pub(super) struct Note {
    pub(super) regarding: ObjectReference,
    pub(super) event: Event,
}

impl Objects {
    /// Tells one transition of a virtual machine; never blocks. `reason` is a `PascalCase` word, `note` a sentence.
    pub(crate) fn event(&self, vm: &Arc<VirtualMachine>, severity: Severity, reason: &str, note: &str) {
        let type_ = match severity {
            Severity::Normal => EventType::Normal,
            Severity::Warning => EventType::Warning,
        };
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(shortened(note)),
            action: reason.to_owned(),
            secondary: None,
        };
        if self.0.notes.try_send(Note { regarding: vm.object_ref(&()), event }).is_err() {
            debug!(reason, "event dropped: too many wait for the API");
        }
    }
}

/// Publishes queued events, in order, each until it was accepted or refused.
pub(super) async fn publish(objects: &Objects, mut queue: mpsc::Receiver<Note>) {
    let mut session = objects.0.session.clone();
    let mut note = None;
    loop {
        let Ok(client) = session.wait_for(Option::is_some).await.map(|client| client.clone()) else {
            return;
        };
        let Some(client) = client else { continue };
        let recorder = recorder(client, objects);
        while !session.has_changed().unwrap_or(true) {
            let Some(next) = take(&mut note, &mut queue).await else {
                return;
            };
            if let Some(unsent) = send(&recorder, next).await {
                note = Some(unsent);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn take(kept: &mut Option<Note>, queue: &mut mpsc::Receiver<Note>) -> Option<Note> {
    match kept.take() {
        Some(note) => Some(note),
        None => queue.recv().await,
    }
}

fn recorder(client: Client, objects: &Objects) -> Recorder {
    let instance = Some(objects.0.node.to_string());
    Recorder::new(client, Reporter { controller: names::NODE_DAEMON.to_owned(), instance })
}

/// Gives the note back when the API did not answer; what it refuses is dropped.
async fn send(recorder: &Recorder, note: Note) -> Option<Note> {
    match tokio::time::timeout(TIMEOUT, recorder.publish(&note.event, &note.regarding)).await {
        Ok(Ok(())) => None,
        Ok(Err(kube::Error::Api(status))) if status.code < 500 && status.code != 429 => {
            debug!(error = %status.message, reason = note.event.reason, "event refused");
            None
        }
        Ok(Err(_)) | Err(_) => Some(note),
    }
}

pub(super) fn shortened(note: &str) -> String {
    note.char_indices().take_while(|(at, c)| at + c.len_utf8() <= LONGEST_NOTE).map(|(_, c)| c).collect()
}
