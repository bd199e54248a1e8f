//! One fetch per digest at a time: the second VM with the same image waits and then finds it in the cache.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::Digest;

type Turn = tokio::sync::Mutex<()>;

/// The digests somebody is fetching right now.
#[derive(Default)]
pub(super) struct Flights(Mutex<HashMap<Digest, Weak<Turn>>>);

impl Flights {
    /// The lock for this digest. It lives as long as somebody holds it, so the map stays small.
    pub(super) fn turn(&self, digest: &Digest) -> Arc<Turn> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = turns.get(digest).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::new(Turn::default());
        turns.insert(*digest, Arc::downgrade(&turn));
        turn
    }

    /// The digests with a fetch under way or waiting.
    pub(super) fn in_the_air(&self) -> HashSet<Digest> {
        let turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.iter().filter(|(_, turn)| turn.strong_count() > 0).map(|(digest, _)| *digest).collect()
    }
}
