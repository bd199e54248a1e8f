//! What libvirt tells us unasked, as a bounded stream.
//!
//! An event only brings the next look forward; no decision reads its payload. A reader too slow for the stream loses
//! events and is told so once, by [`Event::Resync`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;
use uuid::Uuid;

/// A start or stop makes about five events, so this holds the burst of fifty guests; a full stream costs one resync.
const CAPACITY: usize = 256;

/// News from libvirt or about the connection to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// Something happened to this domain, ours or foreign.
    Lifecycle { uuid: Uuid, change: Lifecycle },
    /// A connection stands and its callbacks are registered; what happened before it is unknown: look at everything.
    Reconnected,
    /// The connection is gone; guests run on.
    Disconnected,
    /// Events were lost because the stream was full: look at everything.
    Resync,
}

/// `virDomainEventType`, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lifecycle {
    Defined,
    Undefined,
    Started,
    Suspended,
    Resumed,
    Stopped,
    ShutDown,
    PmSuspended,
    Crashed,
    /// A type newer than this code.
    Other(i32),
}

impl Lifecycle {
    /// From the number in the C callback.
    pub(super) fn from_raw(event: i32) -> Self {
        match event {
            0 => Self::Defined,
            1 => Self::Undefined,
            2 => Self::Started,
            3 => Self::Suspended,
            4 => Self::Resumed,
            5 => Self::Stopped,
            6 => Self::ShutDown,
            7 => Self::PmSuspended,
            8 => Self::Crashed,
            other => Self::Other(other),
        }
    }
}

/// The reading end; one per [`super::Libvirt`].
#[derive(Debug)]
pub(crate) struct Events {
    stream: mpsc::Receiver<Event>,
    lost: Arc<AtomicBool>,
}

impl Events {
    /// The next event, or `None` once the last handle is gone. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        if self.lost.swap(false, Ordering::AcqRel) {
            return Some(Event::Resync);
        }
        self.stream.recv().await
    }
}

/// The writing end: never blocks, never fails.
#[derive(Debug, Clone)]
pub(super) struct Sink {
    stream: mpsc::Sender<Event>,
    lost: Arc<AtomicBool>,
}

impl Sink {
    pub(super) fn send(&self, event: Event) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.stream.try_send(event) {
            self.lost.store(true, Ordering::Release);
        }
    }
}

/// Both ends of a new stream.
pub(super) fn channel() -> (Sink, Events) {
    let (sender, stream) = mpsc::channel(CAPACITY);
    let lost = Arc::new(AtomicBool::new(false));
    (Sink { stream: sender, lost: lost.clone() }, Events { stream, lost })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reader_that_is_too_slow_is_told_to_look_at_everything() {
        let (sink, mut events) = channel();
        for _ in 0..=CAPACITY {
            sink.send(Event::Reconnected);
        }
        assert_eq!(events.next().await, Some(Event::Resync));
        assert_eq!(events.next().await, Some(Event::Reconnected));
    }

    #[tokio::test]
    async fn the_stream_ends_with_its_last_writer() {
        let (sink, mut events) = channel();
        drop(sink);
        assert_eq!(events.next().await, None);
    }
}
