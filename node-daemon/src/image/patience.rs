//! How long a server may dawdle. Pure.
//!
//! A limit per read alone would let a server send one byte now and then and hold a transfer, and everybody who
//! waits for the same digest, for ever. So the waiting time adds up until a reasonable amount has arrived. Time in
//! which the server waits for our disk does not count.

use std::time::Duration;

/// What has to arrive within one window: at 30 s this is half a kilobyte per second, slower than any link that
/// could finish an image at all.
const WINDOW_BYTES: usize = 16 << 10;

/// The patience left with one transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience {
    window: Duration,
    left: Duration,
    lately: usize,
}

impl Patience {
    /// A full window.
    pub(super) const fn new(window: Duration) -> Self {
        Self { window, left: window, lately: 0 }
    }

    /// How long the next read may wait.
    pub(super) const fn left(&self) -> Duration {
        self.left
    }

    /// The whole window, for the message.
    pub(super) const fn window(&self) -> Duration {
        self.window
    }

    /// Counts one read.
    pub(super) fn spend(&mut self, waited: Duration, bytes: usize) {
        self.left = self.left.saturating_sub(waited);
        self.lately = self.lately.saturating_add(bytes);
        if self.lately >= WINDOW_BYTES {
            *self = Self::new(self.window);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_trickle_uses_the_patience_up() {
        let mut patience = Patience::new(30 * SECOND);
        (0..30).for_each(|_| patience.spend(SECOND, 1));
        assert_eq!(patience.left(), Duration::ZERO);
    }

    #[test]
    fn a_slow_but_steady_link_renews_it() {
        let mut patience = Patience::new(30 * SECOND);
        (0..10_000).for_each(|_| patience.spend(SECOND, 1024));
        assert!(patience.left() > 10 * SECOND);
    }
}
