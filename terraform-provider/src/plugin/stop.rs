//! Stop: one token for all that is under way, cancelled by the host's `StopProvider` or by SIGTERM.

use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// Cancels what is under way.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<Mutex<CancellationToken>>);

impl Stop {
    /// Cancels what is under way, and what starts later until the provider is configured anew.
    pub fn cancel(&self) {
        self.token().cancel();
    }

    /// The token for a call.
    pub fn token(&self) -> CancellationToken {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A new run begins: in debug mode one process serves many, and an interrupt ends only one.
    pub fn renew(&self) {
        let mut token = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if token.is_cancelled() {
            *token = CancellationToken::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_holds_until_the_next_run() {
        let stop = Stop::default();
        let call = stop.token();
        stop.cancel();
        assert!(call.is_cancelled() && stop.token().is_cancelled());
        stop.renew();
        assert!(call.is_cancelled() && !stop.token().is_cancelled());
    }
}
