//! Which virtual machines deserve a look: a set that folds repetitions together, so no storm of events can fill memory.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// What changed since the last look. A hint only: the driver reads everything again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    /// These UIDs.
    Only(BTreeSet<String>),
    /// Something several virtual machines may refer to (an image, a network, a key), or the API came back.
    All,
}

/// One writer per watch, one reader.
#[derive(Default)]
pub(super) struct Changes {
    pending: Mutex<Option<Changed>>,
    bell: Notify,
}

impl Changes {
    /// One virtual machine changed.
    pub(super) fn one(&self, uid: &str) {
        self.add(Changed::Only(BTreeSet::from([uid.to_owned()])));
    }

    /// Something many may refer to changed.
    pub(super) fn all(&self) {
        self.add(Changed::All);
    }

    /// Waits until something changed and takes it.
    pub(super) async fn take(&self) -> Changed {
        loop {
            if let Some(changed) = self.lock().take() {
                return changed;
            }
            self.bell.notified().await;
        }
    }

    fn add(&self, new: Changed) {
        let mut pending = self.lock();
        *pending = Some(match pending.take() {
            Some(old) => merge(old, new),
            None => new,
        });
        self.bell.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Changed>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn merge(old: Changed, new: Changed) -> Changed {
    match (old, new) {
        (Changed::Only(mut old), Changed::Only(new)) => {
            old.extend(new);
            Changed::Only(old)
        }
        (Changed::All, _) | (_, Changed::All) => Changed::All,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changes_are_folded_until_somebody_looks() {
        let changes = Changes::default();
        changes.one("a");
        changes.one("b");
        changes.one("a");
        let both = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
        assert_eq!(changes.take().await, Changed::Only(both));
        changes.one("a");
        changes.all();
        assert_eq!(changes.take().await, Changed::All);
    }

    #[tokio::test]
    async fn a_change_wakes_the_one_who_waits() {
        let changes = std::sync::Arc::new(Changes::default());
        let waiting = tokio::spawn({
            let changes = changes.clone();
            async move { changes.take().await }
        });
        tokio::task::yield_now().await;
        changes.all();
        assert_eq!(waiting.await.unwrap(), Changed::All);
    }
}
