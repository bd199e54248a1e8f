//! One pass over the bytes: whoever receives them pushes, one thread hashes, one thread writes (B7).
//!
//! Bytes travel in batches without being copied; the queues are short, so a slow disk slows the sender down and
//! memory stays at a few batches however large the image is.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Digest, seal};

/// Large enough that waking two threads per batch costs nothing, small enough that a few fit in any budget.
const BATCH_BYTES: usize = 256 << 10;
/// Batches waiting per thread: enough to bridge one disk hiccup.
const QUEUE: usize = 4;
/// After so many written bytes the kernel is asked to start flushing, so that the final fsync finds little left.
const FLUSH_BYTES: u64 = 8 << 20;

type Batch = Arc<Vec<Bytes>>;

/// The receiving end of a transfer into one file.
pub(super) struct Intake {
    batch: Vec<Bytes>,
    batch_bytes: usize,
    to_hash: mpsc::Sender<Batch>,
    to_write: mpsc::Sender<Batch>,
    hasher: JoinHandle<io::Result<Digest>>,
    writer: JoinHandle<io::Result<()>>,
}

/// One of the threads has stopped; [`Intake::finish`] says why.
pub(super) struct Broken;

impl Intake {
    /// Starts both threads. The first `start` bytes of the file are there already and are hashed first.
    pub(super) fn start(file: File, start: u64) -> io::Result<Self> {
        let (to_hash, hash_queue) = mpsc::channel(QUEUE);
        let (to_write, write_queue) = mpsc::channel(QUEUE);
        let earlier = file.try_clone()?;
        let hasher = tokio::task::spawn_blocking(move || hash_all(&earlier, start, hash_queue));
        let writer = tokio::task::spawn_blocking(move || write_all(file, start, write_queue));
        Ok(Self { batch: Vec::new(), batch_bytes: 0, to_hash, to_write, hasher, writer })
    }

    /// Takes the next bytes; waits while the disk or the hash is behind.
    pub(super) async fn push(&mut self, bytes: Bytes) -> Result<(), Broken> {
        self.batch_bytes += bytes.len();
        self.batch.push(bytes);
        if self.batch_bytes < BATCH_BYTES {
            return Ok(());
        }
        self.pass_on().await
    }

    /// Waits until everything pushed is hashed, written and synced; returns the digest of the whole file.
    pub(super) async fn finish(mut self) -> io::Result<Digest> {
        let passed = self.pass_on().await;
        let Self { to_hash, to_write, hasher, writer, .. } = self;
        drop((to_hash, to_write));
        writer.await.map_err(io::Error::other)??;
        let digest = hasher.await.map_err(io::Error::other)??;
        passed.map_err(|Broken| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(digest)
    }

    async fn pass_on(&mut self) -> Result<(), Broken> {
        let batch = Arc::new(std::mem::take(&mut self.batch));
        self.batch_bytes = 0;
        self.to_write.send(Arc::clone(&batch)).await.map_err(|_| Broken)?;
        self.to_hash.send(batch).await.map_err(|_| Broken)
    }
}

fn hash_all(file: &File, start: u64, mut queue: mpsc::Receiver<Batch>) -> io::Result<Digest> {
    let mut context = Context::new(&SHA256);
    hash_earlier(file, start, &mut context)?;
    while let Some(batch) = queue.blocking_recv() {
        batch.iter().for_each(|bytes| context.update(bytes));
    }
    Ok(seal::finish(context))
}

/// Reads by position: the writing thread moves the cursor of the same open file.
fn hash_earlier(file: &File, start: u64, context: &mut Context) -> io::Result<()> {
    let mut buffer = vec![0; BATCH_BYTES];
    let mut at = 0;
    while at < start {
        let wanted = usize::try_from(start - at).unwrap_or(usize::MAX).min(buffer.len());
        file.read_exact_at(&mut buffer[..wanted], at)?;
        context.update(&buffer[..wanted]);
        at += wanted as u64;
    }
    Ok(())
}

fn write_all(mut file: File, start: u64, mut queue: mpsc::Receiver<Batch>) -> io::Result<()> {
    file.seek(SeekFrom::Start(start))?;
    let (mut written, mut flushed) = (start, start);
    while let Some(batch) = queue.blocking_recv() {
        for bytes in batch.iter() {
            file.write_all(bytes)?;
            written += bytes.len() as u64;
        }
        if written - flushed >= FLUSH_BYTES {
            start_flush(&file, flushed, written);
            flushed = written;
        }
    }
    file.sync_all()
}

/// `POSIX_FADV_DONTNEED` on dirty pages starts their writeback and waits for nothing. Advice may be ignored.
fn start_flush(file: &File, from: u64, to: u64) {
    let (Ok(offset), Ok(length)) = (i64::try_from(from), i64::try_from(to - from)) else {
        return;
    };
    let _ = posix_fadvise(file, offset, length, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
}
