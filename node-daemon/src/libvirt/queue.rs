//! Work in order per subject: jobs of one key run one after the other, jobs of different keys side by side.
//!
//! A stuck domain therefore holds up one worker and its own queue, nobody else; a worker whose job was given up is replaced,
//! and leaves when the job ends after all. A job that panics is lost, its worker lives on.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

/// A few hundred guests with a handful of calls each; beyond it a caller is told to come back.
const CAPACITY: usize = 2048;
/// Enough that a slow start and a slow stop leave room for reads; each idle thread costs a few kB.
pub(super) const WORKERS: usize = 4;
/// With this many calls that never return it is libvirt that is ill, and no thread more would help.
const MOST_WORKERS: usize = 16;

/// Whose order a job keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// A domain or a network.
    Subject(Uuid),
    /// Nobody's; the number is the queue's own and makes it unique.
    Free(u64),
}

pub(super) type Job = Box<dyn FnOnce() + Send>;

/// How a job stands, for whoever waits for it.
#[derive(Default)]
pub(super) struct Ticket(AtomicU8);

const RUNS: u8 = 1;
const GIVEN_UP: u8 = 2;
const ENDED: u8 = 3;

impl Ticket {
    fn begin(&self) {
        self.0.store(RUNS, Ordering::Release);
    }

    /// Whether it was given up meanwhile.
    fn end(&self) -> bool {
        self.0.swap(ENDED, Ordering::AcqRel) == GIVEN_UP
    }

    /// Gives it up; false unless it runs.
    fn give_up(&self) -> bool {
        self.0.compare_exchange(RUNS, GIVEN_UP, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// The waiting jobs; a key is listed in `waiting` from its first job until its last one has run.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: HashMap<Key, VecDeque<(Job, Arc<Ticket>)>>,
    ready: VecDeque<Key>,
    length: usize,
    free_keys: u64,
    workers: usize,
    /// Workers whose job was given up and has not ended.
    stuck: usize,
    closed: bool,
}

impl Queue {
    /// Adds a job behind those of the same subject; `None` when the queue is full or closed.
    pub(super) fn push(&self, subject: Option<Uuid>, job: Job) -> Option<Arc<Ticket>> {
        let mut state = self.lock();
        if state.closed || state.length >= CAPACITY {
            return None;
        }
        let ticket = Arc::<Ticket>::default();
        state.add(subject, (job, ticket.clone()));
        drop(state);
        self.changed.notify_one();
        Some(ticket)
    }

    /// Counts a worker that is about to begin.
    pub(super) fn enlist(&self) {
        self.lock().workers += 1;
    }

    /// Counts one that did not begin.
    pub(super) fn dismiss(&self) {
        let mut state = self.lock();
        state.workers = state.workers.saturating_sub(1);
    }

    /// Nobody waits for this job any more. Where it runs, its worker counts no longer; true when another one, which is
    /// then enlisted, has to take its place.
    pub(super) fn give_up(&self, ticket: &Ticket) -> bool {
        let mut state = self.lock();
        if !ticket.give_up() {
            return false;
        }
        state.stuck += 1;
        let short = state.workers < MOST_WORKERS && state.at_work() < WORKERS;
        if short {
            state.workers += 1;
        }
        short
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
        while let Some((key, job, ticket)) = self.next() {
            ticket.begin();
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                tracing::error!("a call to libvirt panicked; please report it with the log");
            }
            self.done(key, &ticket);
        }
    }

    fn next(&self) -> Option<(Key, Job, Arc<Ticket>)> {
        let mut state = self.lock();
        loop {
            if state.closed || state.at_work() > WORKERS {
                state.workers = state.workers.saturating_sub(1);
                return None;
            }
            if let Some(found) = state.take() {
                return Some(found);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn done(&self, key: Key, ticket: &Ticket) {
        let mut state = self.lock();
        if ticket.end() {
            state.stuck = state.stuck.saturating_sub(1);
        }
        let more = state.release(key);
        drop(state);
        if more {
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Jobs run outside the lock, so a poisoned state is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Workers whose job somebody waits for, or that have none.
    fn at_work(&self) -> usize {
        self.workers.saturating_sub(self.stuck)
    }

    fn add(&mut self, subject: Option<Uuid>, job: (Job, Arc<Ticket>)) {
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

    fn take(&mut self) -> Option<(Key, Job, Arc<Ticket>)> {
        let key = self.ready.pop_front()?;
        let (job, ticket) = self.waiting.get_mut(&key)?.pop_front()?;
        self.length -= 1;
        Some((key, job, ticket))
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
            queue.enlist();
            hire(&queue);
        }
        queue
    }

    fn hire(queue: &Arc<Queue>) {
        let queue = queue.clone();
        thread::spawn(move || queue.work());
    }

    #[test]
    fn jobs_of_one_subject_keep_their_order() {
        let (queue, (sender, results)) = (running(4), mpsc::channel());
        for number in 0..200 {
            let sender = sender.clone();
            let subject = Uuid::from_u128(number % 3);
            let job = Box::new(move || sender.send((number % 3, number)).unwrap());
            assert!(queue.push(Some(subject), job).is_some());
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
    fn calls_that_never_return_do_not_take_all_workers() {
        let (queue, (sender, results)) = (running(WORKERS), mpsc::channel());
        let mut releases = Vec::new();
        for number in 0..WORKERS {
            let (release, held) = mpsc::channel::<()>();
            let sender = sender.clone();
            let stuck = move || {
                sender.send("begun").unwrap();
                held.recv().unwrap();
            };
            let subject = Uuid::from_u128(u128::try_from(number).unwrap());
            releases.push((release, queue.push(Some(subject), Box::new(stuck)).unwrap()));
            assert_eq!(results.recv_timeout(Duration::from_secs(5)), Ok("begun"));
        }
        for (_, ticket) in &releases {
            assert!(queue.give_up(ticket), "its worker is to be replaced");
            assert!(!queue.give_up(ticket), "once");
            hire(&queue);
        }
        queue.push(None, Box::new(move || sender.send("free").unwrap()));
        assert_eq!(results.recv_timeout(Duration::from_secs(5)), Ok("free"));
        for (release, _) in &releases {
            release.send(()).unwrap();
        }
        while queue.lock().workers > WORKERS {
            thread::yield_now();
        }
        assert_eq!(queue.lock().workers, WORKERS, "as many as at first are left");
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
            assert!(queue.push(None, Box::new(|| ())).is_some());
        }
        assert!(queue.push(None, Box::new(|| ())).is_none());
        queue.close();
        assert!(queue.push(None, Box::new(|| ())).is_none());
    }
}
