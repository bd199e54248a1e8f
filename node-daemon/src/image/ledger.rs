//! What the cache knows beside its files: who needs them, how long nobody has, and what downloads have announced.
//! `stock` decides with it; here it is kept, and what was decided is done.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::stock::{self, Ask, Lack, Limits, Need, Needs, Piece, SETTLED};
use super::{Cache, Digest, Error, Purpose, delivered, partial, seal};
use crate::storage;

/// All of it may be lost: a restarted daemon begins every idle time anew.
#[derive(Default)]
pub(super) struct Ledger(Mutex<Books>);

#[derive(Default)]
struct Books {
    needs: Needs,
    /// Who was last known to need an image, and who has fetched it since. While needs are unknown, this counts for the
    /// shares of namespaces; what goes is never decided by it.
    last: HashMap<Digest, Need>,
    /// Who needed an image last, until it can go.
    late: HashMap<Digest, Need>,
    /// Since when no virtual machine has needed or asked for an image.
    idle: HashMap<Digest, Instant>,
    /// What downloads under way have announced.
    holds: HashMap<Digest, Hold>,
    /// Bytes that guests were promised and have not written yet; `None` until that is known.
    promised: Option<u64>,
}

struct Hold {
    namespace: String,
    purpose: Purpose,
    bytes: u64,
}

/// For whom a download asks for room.
#[derive(Clone, Copy)]
pub(super) struct Applicant<'a> {
    pub(super) digest: &'a Digest,
    pub(super) namespace: &'a str,
    pub(super) purpose: Purpose,
}

impl Ledger {
    /// Somebody asks for this image: its idle time begins anew.
    pub(super) fn touch(&self, digest: &Digest) {
        self.lock().idle.remove(digest);
    }

    /// A virtual machine of this namespace has found the image and may use it.
    pub(super) fn count(&self, digest: &Digest, namespace: &str) {
        self.lock().late.entry(*digest).or_default().machines.insert(namespace.to_owned());
    }

    /// The download has ended, one way or the other.
    pub(super) fn release(&self, digest: &Digest) {
        let books = &mut *self.lock();
        if let Some(hold) = books.holds.remove(digest) {
            hold.count_in(books.last.entry(*digest).or_default());
            hold.count_in(books.late.entry(*digest).or_default());
        }
    }

    /// Lets the idle time of an image be longer by so much.
    #[cfg(test)]
    pub(super) fn age(&self, digest: &Digest, by: Duration) {
        let mut books = self.lock();
        let since = books.idle.entry(*digest).or_insert_with(Instant::now);
        *since -= by;
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cache {
    /// Takes note of who needs which image, and what guests were promised and have not written yet.
    pub(crate) fn learn(&self, needs: Needs, promised: u64) {
        let mut books = self.ledger.lock();
        if let Needs::Known(known) = &needs {
            books.last.clone_from(known);
        }
        (books.needs, books.promised) = (needs, Some(promised));
    }

    /// A look at the host failed: what was known of needs is old, and disks may have been made since.
    pub(crate) fn doubt(&self) {
        self.ledger.lock().needs = Needs::Unknown;
    }

    /// Whether it is known yet what guests were promised; before that no byte is fetched.
    pub(crate) fn is_informed(&self) -> bool {
        self.ledger.lock().promised.is_some()
    }

    /// Removes what has to go; returns the images among it.
    pub(crate) fn collect(&self) -> Result<Vec<Digest>, Error> {
        let mut books = self.ledger.lock();
        let failed = |source| Error::storage(&self.dir, source);
        let pieces = self.pieces(&mut books, Instant::now()).map_err(failed)?;
        let gone = stock::collect(&pieces, self.rules.budget.bytes);
        self.remove(&gone).map_err(failed)
    }

    /// Makes room so that this download can have `bytes` in all, `more` of them not on the disk yet; or says why not.
    pub(super) fn make_room(&self, applicant: Applicant<'_>, bytes: u64, more: u64) -> Result<(), Error> {
        let Applicant { digest, namespace, purpose } = applicant;
        let mut books = self.ledger.lock();
        let failed = |source| Error::storage(&self.dir, source);
        let pieces = self.pieces(&mut books, Instant::now()).map_err(failed)?;
        let limits = self.limits(books.promised.unwrap_or(u64::MAX)).map_err(failed)?;
        let busy: HashSet<Digest> = self.flights.in_the_air();
        let ask = Ask { digest: *digest, namespace, purpose, bytes, more };
        let gone = stock::admit(&pieces, &busy, limits, ask).map_err(|lack| self.refusal(lack, namespace))?;
        let removed = self.remove(&gone).map_err(failed)?;
        if !removed.is_empty() {
            tracing::info!(count = removed.len(), image = %digest, "images removed to make room for another");
        }
        books.holds.insert(*digest, Hold { namespace: namespace.to_owned(), purpose, bytes });
        Ok(())
    }

    fn limits(&self, promised: u64) -> io::Result<Limits> {
        let free = storage::free(&self.dir)?;
        let kept = self.rules.reserve_bytes.saturating_add(promised);
        let budget = self.rules.budget;
        Ok(Limits { budget: budget.bytes, share: budget.share(), spare: free.saturating_sub(kept) })
    }

    fn refusal(&self, lack: Lack, namespace: &str) -> Error {
        let budget = self.rules.budget;
        match lack {
            Lack::Disk => Error::DiskFull { path: self.dir.clone() },
            Lack::Budget => Error::CacheFull { budget: budget.bytes },
            Lack::Share => Error::ShareFull { namespace: namespace.to_owned(), share: budget.share() },
        }
    }

    /// Every image, whole or partial, with what the books say of it.
    fn pieces(&self, books: &mut Books, now: Instant) -> io::Result<Vec<Piece>> {
        let mut present: HashMap<Digest, u64> = HashMap::new();
        for (digest, bytes) in seal::sizes_in(&self.dir)?.into_iter().chain(partial::sizes_in(&self.dir)?) {
            *present.entry(digest).or_default() += bytes;
        }
        for digest in books.holds.keys() {
            present.entry(*digest).or_default();
        }
        books.idle.retain(|digest, _| present.contains_key(digest));
        books.late.retain(|digest, _| present.contains_key(digest));
        if books.needs == Needs::Unknown {
            books.last.retain(|digest, _| present.contains_key(digest));
            for digest in present.keys() {
                self.count_deliveries(books, *digest);
            }
        }
        Ok(present.into_iter().map(|(digest, bytes)| books.piece(digest, bytes, now)).collect())
    }

    /// A daemon that has just started has only the notes beside the images.
    fn count_deliveries(&self, books: &mut Books, digest: Digest) {
        let delivered = delivered::read(&self.dir, &digest);
        books.last.entry(digest).or_default().machines.extend(delivered.namespaces().cloned());
    }

    fn remove(&self, gone: &[Digest]) -> io::Result<Vec<Digest>> {
        let mut images = Vec::new();
        for digest in gone {
            images.extend(seal::image_path(&self.dir, digest).exists().then_some(*digest));
            seal::remove(&self.dir, digest)?;
        }
        partial::remove_where(&self.dir, |digest| gone.contains(digest))?;
        Ok(images)
    }
}

impl Books {
    fn piece(&mut self, digest: Digest, present: u64, now: Instant) -> Piece {
        let (needs, known) = match &self.needs {
            Needs::Unknown => (&self.last, false),
            Needs::Known(needs) => (needs, true),
        };
        let need = needs.get(&digest).cloned().unwrap_or_default();
        let idle = match self.holds.get(&digest) {
            None if known && need.machines.is_empty() => {
                Some(now.duration_since(*self.idle.entry(digest).or_insert(now)))
            }
            _ => {
                self.idle.remove(&digest);
                None
            }
        };
        let need = self.counted(digest, need, idle);
        let piece = Piece { digest, bytes: present, present, need, idle };
        self.holds.get(&digest).map_or_else(|| piece.clone(), |hold| hold.on(piece.clone()))
    }

    /// For whom an image counts: who needs it, or who did last, until it can go.
    fn counted(&mut self, digest: Digest, mut need: Need, idle: Option<Duration>) -> Need {
        if idle.is_some_and(|idle| idle >= SETTLED) {
            self.late.remove(&digest);
            return need;
        }
        let late = self.late.entry(digest).or_default();
        for (now, last) in [(&mut need.machines, &mut late.machines), (&mut need.ahead, &mut late.ahead)] {
            if now.is_empty() {
                now.clone_from(last);
            } else {
                last.clone_from(now);
            }
        }
        need
    }
}

impl Hold {
    /// The image as it will be.
    fn on(&self, mut piece: Piece) -> Piece {
        self.count_in(&mut piece.need);
        Piece { bytes: piece.bytes.max(self.bytes), ..piece }
    }

    fn count_in(&self, need: &mut Need) {
        let side = match self.purpose {
            Purpose::Machine => &mut need.machines,
            Purpose::Ahead => &mut need.ahead,
        };
        side.insert(self.namespace.clone());
    }
}
