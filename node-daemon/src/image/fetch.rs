//! One transfer: from the source through hash and disk to the final name.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::sync::watch;

use super::intake::Intake;
use super::ledger::Applicant;
use super::partial::{Partial, Resume};
use super::{Cache, Digest, Error, Format, Image, Order, Progress, Seen, Source, Url};
use super::{delivered, http, inspect, local, seal};

/// Progress moves in steps of this size, so that watching it costs nothing.
const REPORT_BYTES: u64 = 1 << 20;
/// After so many bytes the free space is looked at again: seldom enough to cost nothing, often enough that a reserve of
/// any useful size is not used up between two looks, however many transfers and guests write at the same time.
const LOOK_BYTES: u64 = 4 << 20;

/// Below this an answer may be a secret of some service, a token or a key; a disk image is larger.
const GUESSABLE_BYTES: u64 = 1 << 20;

/// What a transfer ended with: a complete, synced partial file.
struct Received {
    found: Digest,
    /// Some of the bytes came from an earlier transfer.
    resumed: bool,
    /// A page for people came in the place of an image.
    page: bool,
    /// How many bytes, where the source did not announce it.
    unannounced: Option<u64>,
    /// By what the source shows that it has another file later.
    seen: Seen,
}

/// Transfers the image and publishes it. Called with the digest's turn held.
pub(super) async fn run(
    cache: &Cache,
    order: Order<'_>,
    progress: &watch::Sender<Progress>,
) -> Result<Image, Error> {
    let transfer = Transfer::claim(cache, order, progress)?;
    let outcome = transfer.receive(order.source).await;
    if matches!(
        outcome,
        Err(Error::DiskFull { .. }
            | Error::CacheFull { .. }
            | Error::ShareFull { .. }
            | Error::TooLarge { .. })
    ) {
        // What we hold keeps the disk full for the guests too.
        transfer.discard()?;
    }
    transfer.admit(order.source, &outcome?, order.format)
}

/// A claimed partial file and where the transfer reports to.
struct Transfer<'a> {
    cache: &'a Cache,
    order: Order<'a>,
    digest: &'a Digest,
    partial: Partial,
    progress: &'a watch::Sender<Progress>,
}

impl Drop for Transfer<'_> {
    fn drop(&mut self) {
        self.cache.ledger.release(self.digest);
    }
}

impl<'a> Transfer<'a> {
    fn claim(
        cache: &'a Cache,
        order: Order<'a>,
        progress: &'a watch::Sender<Progress>,
    ) -> Result<Self, Error> {
        let claimed = Partial::claim(&cache.dir, order.digest);
        let partial = claimed.map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => Error::Busy(*order.digest),
            _ => Error::storage(&cache.dir, source),
        })?;
        Ok(Self { cache, order, digest: order.digest, partial, progress })
    }

    async fn receive(&self, source: &Source) -> Result<Received, Error> {
        match source {
            Source::Http(url) => self.receive_http(url).await,
            Source::File(path) => self.receive_file(path).await,
        }
    }

    /// Continues an earlier transfer. When the result is wrong, that may be the fault of what a crash left behind
    /// and not of the source, so everything is fetched once more before the source is blamed.
    async fn receive_http(&self, url: &Url) -> Result<Received, Error> {
        let resume = self.partial.resume(url.as_str());
        let received = self.transfer_http(url, resume.as_ref()).await?;
        if received.resumed && received.found != *self.digest {
            return self.transfer_http(url, None).await;
        }
        Ok(received)
    }

    async fn transfer_http(&self, url: &Url, resume: Option<&Resume>) -> Result<Received, Error> {
        let mut opened = http::open(&self.cache.rules, url, resume).await?;
        let page = opened.is_page().await?;
        if page && resume.is_some() {
            // A captive portal must not cost us the gigabytes we hold.
            return Err(Error::WebPage { at: http::shown(url) });
        }
        self.check_room(http::shown(url), opened.start, opened.total)?;
        if opened.start == 0 {
            self.partial.begin(url.as_str(), opened.etag.as_deref()).map_err(|error| self.storage(error))?;
        }
        let mut intake = self.intake(opened.start)?;
        let pumped = self.pump_http(&mut opened, &mut intake, url).await;
        // Finished even after an error: what was received is then on disk for the next attempt.
        let found = intake.finish().await.map_err(|error| self.storage(error))?;
        let bytes = pumped?;
        let unannounced = opened.total.is_none().then_some(bytes);
        Ok(Received { found, resumed: opened.start > 0, page, unannounced, seen: opened.seen })
    }

    /// Returns how many bytes of the image there are then.
    async fn pump_http(
        &self,
        opened: &mut http::Opened,
        intake: &mut Intake,
        url: &Url,
    ) -> Result<u64, Error> {
        let mut received = opened.start;
        while let Some(bytes) = opened.next(received).await? {
            let before = received;
            received += bytes.len() as u64;
            self.check_size(received, || http::shown(url))?;
            self.check_reserve(before, received, opened.total)?;
            if intake.push(bytes).await.is_err() {
                // The disk failed; finishing the intake says how.
                return Ok(received);
            }
            self.report(received, opened.total);
        }
        match opened.total {
            Some(total) if total != received => {
                Err(Error::Interrupted { at: http::shown(url), bytes: received })
            }
            _ => Ok(received),
        }
    }

    async fn receive_file(&self, path: &Path) -> Result<Received, Error> {
        let (file, seen) = local::open(path, &self.cache.rules)?;
        let (seen, total) = (Seen::on_disk(&seen), seen.len());
        self.make_room(total, total)?;
        self.partial.begin("", None).map_err(|error| self.storage(error))?;
        let mut intake = self.intake(0)?;
        let pumped = self.pump_file(file, &mut intake, path, total).await;
        let found = intake.finish().await.map_err(|error| self.storage(error))?;
        pumped?;
        Ok(Received { found, resumed: false, page: false, unannounced: None, seen })
    }

    async fn pump_file(
        &self,
        mut file: File,
        intake: &mut Intake,
        path: &Path,
        total: u64,
    ) -> Result<(), Error> {
        let mut passed = 0;
        loop {
            let (rest, bytes) = local::next(file, path).await?;
            file = rest;
            let before = passed;
            passed += bytes.len() as u64;
            self.check_size(passed, || path.display().to_string())?;
            self.check_reserve(before, passed, Some(total))?;
            if bytes.is_empty() || intake.push(bytes).await.is_err() {
                return Ok(());
            }
            self.report(passed, Some(total));
        }
    }

    fn intake(&self, start: u64) -> Result<Intake, Error> {
        self.partial.handle().and_then(|file| Intake::start(file, start)).map_err(|error| self.storage(error))
    }

    /// Compares, checks, publishes. Nothing is kept of bytes that are not the image.
    fn admit(&self, source: &Source, received: &Received, format: Format) -> Result<Image, Error> {
        if received.found != *self.digest {
            let bytes = self.partial.file().metadata().map_or(0, |found| found.len());
            self.discard()?;
            return Err(mismatch(source, received, self.digest, bytes));
        }
        let facts = match inspect::inspect(self.partial.file(), format) {
            Ok(facts) => facts,
            Err(unfit) => {
                self.discard()?;
                return Err(Error::Unfit { at: at(source), source: unfit });
            }
        };
        self.publish(self.partial.file(), format, facts.virtual_size).map_err(|error| self.storage(error))
    }

    /// Who brought it, then the seal: without the image they mean nothing, and the image never lies there without them.
    /// What is there already is not replaced by the same bytes: disks stand on it.
    fn publish(&self, file: &File, format: Format, virtual_size: u64) -> io::Result<Image> {
        delivered::note(&self.cache.dir, self.digest, self.order.tenant)?;
        if let Some(image) = self.cache.lookup(self.digest) {
            self.partial.discard()?;
            return Ok(image);
        }
        // Readable by QEMU's own user, writable by nobody.
        file.set_permissions(Permissions::from_mode(0o444))?;
        let image = seal::write(&self.cache.dir, self.digest, file, format, virtual_size)?;
        self.partial.publish(&image.path)?;
        tracing::debug!(image = %self.digest, bytes = image.bytes, "image published");
        Ok(image)
    }

    fn check_room(&self, at: String, start: u64, total: Option<u64>) -> Result<(), Error> {
        let Some(total) = total else { return self.make_room(start, LOOK_BYTES) };
        self.check_size(total, || at)?;
        self.make_room(total, total.saturating_sub(start))
    }

    fn check_size(&self, bytes: u64, at: impl FnOnce() -> String) -> Result<(), Error> {
        let limit = self.cache.rules.max_bytes;
        if bytes > limit { Err(Error::TooLarge { at: at(), limit }) } else { Ok(()) }
    }

    /// What the source did not announce, and what others write meanwhile, must not reach the reserve either: at a full
    /// disk the guests freeze. Of what was announced the rest still has to fit.
    fn check_reserve(&self, before: u64, now: u64, total: Option<u64>) -> Result<(), Error> {
        if before / LOOK_BYTES == now / LOOK_BYTES {
            return Ok(());
        }
        match total {
            Some(total) => self.make_room(total, total.saturating_sub(now)),
            None => self.make_room(now, LOOK_BYTES),
        }
    }

    fn make_room(&self, bytes: u64, more: u64) -> Result<(), Error> {
        let Order { digest, tenant, purpose, .. } = self.order;
        self.cache.make_room(Applicant { digest, namespace: &tenant.namespace, purpose }, bytes, more)
    }

    fn report(&self, bytes: u64, total: Option<u64>) {
        self.progress.send_if_modified(|seen| {
            let moved =
                bytes.abs_diff(seen.bytes) >= REPORT_BYTES || Some(bytes) == total || seen.total != total;
            if moved {
                *seen = Progress { bytes, total };
            }
            moved
        });
    }

    fn discard(&self) -> Result<(), Error> {
        self.partial.discard().map_err(|error| self.storage(error))
    }

    fn storage(&self, source: io::Error) -> Error {
        Error::storage(self.partial.path(), source)
    }
}

fn mismatch(source: &Source, received: &Received, expected: &Digest, bytes: u64) -> Error {
    if received.page {
        return Error::WebPage { at: at(source) };
    }
    let if_whole = wrong(source, received, expected, bytes);
    match received.unannounced {
        None => if_whole,
        Some(bytes) => {
            Error::Unfinished { at: at(source), bytes, found: received.found, if_whole: Box::new(if_whole) }
        }
    }
}

/// The digest of a file of the host, or of a short answer, tells whoever guesses at its words that the guess is right.
fn wrong(source: &Source, received: &Received, expected: &Digest, bytes: u64) -> Error {
    let found = match source {
        Source::Http(_) if bytes >= GUESSABLE_BYTES => Some(received.found),
        Source::Http(_) | Source::File(_) => None,
    };
    let seen = Box::new(received.seen.clone());
    Error::DigestMismatch { at: at(source), expected: *expected, found, seen }
}

fn at(source: &Source) -> String {
    match source {
        Source::Http(url) => http::shown(url),
        Source::File(path) => path.display().to_string(),
    }
}
