//! Whether the API answers this node, as its Lease renewals see it: the one place everybody asks.

use std::time::Instant;

/// The state of the link to the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contact {
    /// Not tried yet, or not enrolled yet.
    Never,
    /// The last renewal was accepted.
    Reachable,
    /// No answer since then; guests run on.
    Away {
        /// First failure.
        since: Instant,
    },
    /// The API answers and refuses this identity (401, 403, 404); lasting refusal means to enrol anew.
    Refused {
        /// First refusal.
        since: Instant,
    },
}

/// What one attempt to reach the API came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// Accepted.
    Accepted,
    /// No answer, or a server error.
    NoAnswer,
    /// Refused for who we are.
    Refused,
}

impl Contact {
    /// The state after one more attempt; a state that lasts keeps its beginning.
    pub(crate) fn after(self, attempt: Attempt, now: Instant) -> Self {
        match (attempt, self) {
            (Attempt::Accepted, _) => Self::Reachable,
            (Attempt::NoAnswer, Self::Away { since }) => Self::Away { since },
            (Attempt::NoAnswer, _) => Self::Away { since: now },
            (Attempt::Refused, Self::Refused { since }) => Self::Refused { since },
            (Attempt::Refused, _) => Self::Refused { since: now },
        }
    }
}

impl Attempt {
    /// Judges the answer to a request about an object of our own.
    pub(crate) fn of<T>(answer: &Result<T, kube::Error>) -> Self {
        match answer {
            Ok(_) => Self::Accepted,
            Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403 | 404) => Self::Refused,
            Err(_) => Self::NoAnswer,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_state_that_lasts_keeps_its_beginning() {
        let start = Instant::now();
        let later = start + Duration::from_secs(10);
        let away = Contact::Reachable.after(Attempt::NoAnswer, start);
        assert_eq!(away.after(Attempt::NoAnswer, later), Contact::Away { since: start });
        assert_eq!(away.after(Attempt::Refused, later), Contact::Refused { since: later });
        assert_eq!(away.after(Attempt::Accepted, later), Contact::Reachable);
    }
}
