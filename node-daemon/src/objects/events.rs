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

/// Gives the note back while the API is away or too busy. What it refused is dropped, and so is what it took with an
/// answer that cannot be read: a note that waits would hold up those of every other namespace.
async fn send(recorder: &Recorder, note: Note) -> Option<Note> {
    match tokio::time::timeout(TIMEOUT, recorder.publish(&note.event, &note.regarding)).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) if !passes(&error) => {
            debug!(%error, reason = note.event.reason, "event refused, or its answer cannot be read");
            None
        }
        Ok(Err(_)) | Err(_) => Some(note),
    }
}

/// Whether the same write may succeed later.
fn passes(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code >= 500 || status.code == 429,
        kube::Error::HyperError(_) | kube::Error::Service(_) => true,
        _ => false,
    }
}

pub(super) fn shortened(note: &str) -> String {
    note.char_indices().take_while(|(at, c)| at + c.len_utf8() <= LONGEST_NOTE).map(|(_, c)| c).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use kube::client::Body;

    use super::*;

    const MENDED: &str = r#"{"metadata":{},"involvedObject":{}}"#;
    const BENT: &str = r#"{"metadata":{"managedFields":[{"manager":"edit","time":"9999-12-31T00:00:00Z"}]},"involvedObject":{}}"#;

    /// A recorder at an API that gives these answers, one to each write; none is a connection that breaks.
    fn recorder(answers: impl IntoIterator<Item = Option<(u16, &'static str)>>) -> Recorder {
        let answers: Mutex<VecDeque<_>> = Mutex::new(answers.into_iter().collect());
        let api = tower::service_fn(move |_: http::Request<Body>| {
            let answer = answers.lock().unwrap().pop_front().flatten();
            std::future::ready(match answer {
                Some((code, body)) => Ok(http::Response::builder()
                    .status(code)
                    .body(Body::from(body.as_bytes().to_vec()))
                    .unwrap()),
                None => Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset)),
            })
        });
        let reporter = Reporter { controller: names::NODE_DAEMON.to_owned(), instance: None };
        Recorder::new(Client::new(api, "shop"), reporter)
    }

    fn note(name: &str) -> Note {
        let regarding = ObjectReference {
            name: Some(name.to_owned()),
            namespace: Some("shop".to_owned()),
            ..ObjectReference::default()
        };
        let reason = "Started".to_owned();
        let event =
            Event { type_: EventType::Normal, action: reason.clone(), reason, note: None, secondary: None };
        Note { regarding, event }
    }

    #[tokio::test]
    async fn an_event_whose_answer_cannot_be_read_holds_up_no_other() {
        let recorder = recorder([Some((201, MENDED)), Some((200, BENT)), Some((201, MENDED))]);
        for vm in ["bent", "bent", "other"] {
            assert!(send(&recorder, note(vm)).await.is_none(), "the note about {vm} was taken");
        }
    }

    #[tokio::test]
    async fn an_event_is_kept_as_long_as_the_api_does_not_take_it() {
        let kept = [None, Some((500, "broken")), Some((503, "no backend")), Some((429, "slower"))];
        let dropped = [Some((403, "no")), Some((404, "no such page"))];
        let recorder = recorder(kept.into_iter().chain(dropped));
        for answer in kept {
            assert!(send(&recorder, note("web")).await.is_some(), "{answer:?}");
        }
        for answer in dropped {
            assert!(send(&recorder, note("web")).await.is_none(), "{answer:?}");
        }
    }
}
