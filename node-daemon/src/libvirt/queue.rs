//! Work in order per subject: jobs of one key run one after the other, jobs of different keys side by side.
//!
//! A stuck domain therefore holds up one worker and its own queue, nobody else. A job that panics is lost, its worker
//! lives on.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

/// A few hundred guests with a handful of calls each; beyond it a caller is told to come back.
const CAPACITY: usize = 2048;

/// Whose order a job keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// A domain or a network.
    Subject(Uuid),
    /// Nobody's; the number is the queue's own and makes it unique.
    Free(u64),
}

pub(super) type Job = Box<dyn FnOnce() + Send>;

/// The waiting jobs; a key is listed in `waiting` from its first job until its last one has run.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: HashMap<Key, VecDeque<Job>>,
    ready: VecDeque<Key>,
    length: usize,
    free_keys: u64,
    closed: bool,
}

impl Queue {
    /// Adds a job behind those of the same subject; false when the queue is full or closed.
    pub(super) fn push(&self, subject: Option<Uuid>, job: Job) -> bool {
        let mut state = self.lock();
        if state.closed || state.length >= CAPACITY {
            return false;
        }
        state.add(subject, job);
        drop(state);
        self.changed.notify_one();
        true
    }

    /// Wakes the workers to end; what still waits is dropped, and with it the callers' hope of an answer.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let abandoned = std::mem::take(&mut state.waiting);
        drop(state);
        drop(abandoned);
        self.changed.notify_all();
    }

    /// A worker's life: runs jobs until the queue is closed.
    pub(super) fn work(&self) {
        while let Some((key, job)) = self.next() {
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                tracing::error!("a call to libvirt panicked; please report it with the log");
            }
            self.done(key);
        }
    }

    fn next(&self) -> Option<(Key, Job)> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(found) = state.take() {
                return Some(found);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn done(&self, key: Key) {
        if self.lock().release(key) {
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Jobs run outside the lock, so a poisoned state is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, subject: Option<Uuid>, job: Job) {
        let key = subject.map_or_else(|| self.free_key(), Key::Subject);
        let jobs = self.waiting.entry(key).or_insert_with(|| {
            self.ready.push_back(key);
            VecDeque::new()
        });
        jobs.push_back(job);
        self.length += 1;
    }

    fn free_key(&mut self) -> Key {
        self.free_keys += 1;
        Key::Free(self.free_keys)
    }

    fn take(&mut self) -> Option<(Key, Job)> {
        let key = self.ready.pop_front()?;
        let job = self.waiting.get_mut(&key)?.pop_front()?;
        self.length -= 1;
        Some((key, job))
    }

    /// Gives the key's next job free; true if there is one.
    fn release(&mut self, key: Key) -> bool {
        let more = self.waiting.get(&key).is_some_and(|jobs| !jobs.is_empty());
        if more {
            self.ready.push_back(key);
        } else {
            self.waiting.remove(&key);
        }
        more
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};
    use std::thread;
    use std::time::Duration;

    use super::*;

    fn running(workers: usize) -> Arc<Queue> {
        let queue = Arc::new(Queue::default());
        for _ in 0..workers {
            let queue = queue.clone();
            thread::spawn(move || queue.work());
        }
        queue
    }

    #[test]
    fn jobs_of_one_subject_keep_their_order() {
        let (queue, (sender, results)) = (running(4), mpsc::channel());
        for number in 0..200 {
            let sender = sender.clone();
            let subject = Uuid::from_u128(number % 3);
            assert!(queue.push(Some(subject), Box::new(move || sender.send((number % 3, number)).unwrap())));
        }
        drop(sender);
        let mut last = [None; 3];
        for (subject, number) in results {
            let slot = &mut last[usize::try_from(subject).unwrap()];
            assert!(*slot < Some(number), "{number} came before {slot:?}");
            *slot = Some(number);
        }
        queue.close();
    }

    #[test]
    fn a_stuck_subject_holds_up_nobody_else() {
        let (queue, (sender, results)) = (running(2), mpsc::channel());
        let (release, held) = mpsc::channel::<()>();
        let stuck = Uuid::from_u128(1);
        queue.push(Some(stuck), Box::new(move || held.recv().unwrap()));
        let behind = sender.clone();
        queue.push(Some(stuck), Box::new(move || behind.send("behind").unwrap()));
        queue.push(None, Box::new(move || sender.send("free").unwrap()));
        assert_eq!(results.recv_timeout(Duration::from_secs(5)), Ok("free"));
        release.send(()).unwrap();
        assert_eq!(results.recv_timeout(Duration::from_secs(5)), Ok("behind"));
        queue.close();
    }

    #[test]
    fn a_panicking_job_costs_only_itself() {
        let (queue, (sender, results)) = (running(1), mpsc::channel());
        queue.push(None, Box::new(|| panic!("on purpose")));
        queue.push(None, Box::new(move || sender.send(()).unwrap()));
        assert_eq!(results.recv_timeout(Duration::from_secs(5)), Ok(()));
        queue.close();
    }

    #[test]
    fn a_full_or_closed_queue_refuses() {
        let queue = Queue::default();
        for _ in 0..CAPACITY {
            assert!(queue.push(None, Box::new(|| ())));
        }
        assert!(!queue.push(None, Box::new(|| ())));
        queue.close();
        assert!(!queue.push(None, Box::new(|| ())));
    }
}
