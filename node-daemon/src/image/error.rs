//! Why an image did not come into the cache, what the user should do, and when to try again.

use std::io;
use std::path::{Path, PathBuf};

use super::{Digest, Format, Seen, inspect};
use crate::retry::Retry;

/// A failed fetch. Each text is a sentence for the user's condition: what is wrong, at which field, what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The source itself breaks the node's rules: only another source (or another configuration) helps.
    #[error("spec.source is refused: {0}")]
    Refused(String),
    /// A name or a redirect led to a refused address. Names and redirects change without the object changing.
    #[error("spec.source.http.url {url} leads to a refused place: {why}; use a server this node may reach")]
    Misled { url: String, why: String },
    /// The source does not have the image.
    #[error("there is no image at {at}; check spec.source, or put the image there")]
    NotFound { at: String },
    /// The source could not be asked, or answered with an error of its own.
    #[error("{at} could not be read: {why}; the node tries again by itself")]
    Unavailable { at: String, why: String },
    /// The server went silent.
    #[error(
        "{at} sent next to nothing for {seconds} s; the node tries again by itself and continues where it stopped"
    )]
    Stalled { at: String, seconds: u64 },
    /// The connection broke in the middle; the next call continues.
    #[error("the download of {at} broke off after {bytes} bytes; the node continues by itself")]
    Interrupted { at: String, bytes: u64 },
    /// The blocks of a transfer that was given up are still on their way to the disk.
    #[error("an earlier transfer of {0} is still being written; the node continues by itself")]
    Busy(Digest),
    /// A captive portal, a login page or an error page with status 200.
    #[error("{at} answered with a web page instead of an image; check spec.source.http.url and the network")]
    WebPage { at: String },
    /// The bytes are not those of `spec.digest`. `found` stays empty for `file` and for what is small, where printing it
    /// would help a tenant to guess what a host file or a service holds. `seen` tells whether the source has another
    /// file later.
    #[error(
        "{at} does not have the digest {expected}{}; correct spec.digest or spec.source in an image made again under its name, or put the right file there: the node notices either by itself",
        and_found(.found.as_ref())
    )]
    DigestMismatch { at: String, expected: Digest, found: Option<Digest>, seen: Box<Seen> },
    /// The bytes are not those of `spec.digest`, and nobody said how many they should be: a server without lengths ends
    /// a download in the same way whether it is complete or broke off. The same bytes twice are what it has.
    #[error(
        "the download of {at} ended after {bytes} bytes that do not have the digest, and the server does not tell how many there are; the node tries again by itself"
    )]
    Unfinished { at: String, bytes: u64, found: Digest, if_whole: Box<Self> },
    /// The bytes are right, but they are no image, or a hostile one.
    #[error("{at} cannot be used as an image")]
    Unfit { at: String, source: inspect::Error },
    /// The cache holds this digest in the other format.
    #[error("{digest} is a {} image, but spec.format says {}; correct spec.format", .known.name(), .declared.name())]
    FormatDiffers { digest: Digest, known: Format, declared: Format },
    /// Larger than this node's configuration allows.
    #[error(
        "{at} is larger than the {limit} bytes this node accepts; use a smaller image or raise imageSources.maxSize"
    )]
    TooLarge { at: String, limit: u64 },
    /// No room for the image.
    #[error("the disk of {} is full; free space on the node, then the node continues by itself", .path.display())]
    DiskFull { path: PathBuf },
    /// All that the cache may hold is needed.
    #[error(
        "the images that this node needs fill the {budget} bytes of its cache; remove virtual machines or prefetch, or raise imageCache.budget on the node"
    )]
    CacheFull { budget: u64 },
    /// All that this namespace may have in the cache is needed by it.
    #[error(
        "the images that namespace {namespace} needs on this node fill the {share} bytes it may take of the cache; remove virtual machines or prefetch of the namespace, or raise imageCache on the node"
    )]
    ShareFull { namespace: String, share: u64 },
    /// The cache's own files failed.
    #[error("could not use {} in the image cache", .path.display())]
    Storage { path: PathBuf, source: io::Error },
}

impl Error {
    /// When trying again can help.
    pub(crate) fn retry(&self) -> Retry {
        match self {
            Self::Unfit { source, .. } => source.retry(),
            Self::Refused(_) | Self::FormatDiffers { .. } | Self::TooLarge { .. } => Retry::OnChange,
            Self::Interrupted { .. } | Self::Unfinished { .. } | Self::Busy(_) => Retry::Soon,
            // The server may be mended.
            Self::DigestMismatch { .. }
            | Self::Misled { .. }
            | Self::NotFound { .. }
            | Self::Unavailable { .. }
            | Self::Stalled { .. }
            | Self::WebPage { .. }
            | Self::DiskFull { .. }
            | Self::CacheFull { .. }
            | Self::ShareFull { .. }
            | Self::Storage { .. } => Retry::Later,
        }
    }

    /// The condition's reason.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Refused(_) | Self::Misled { .. } => "SourceRefused",
            Self::NotFound { .. } => "ImageNotFound",
            Self::Unavailable { .. } => "SourceUnavailable",
            Self::Stalled { .. } => "DownloadStalled",
            Self::Interrupted { .. } | Self::Unfinished { .. } | Self::Busy(_) => "DownloadInterrupted",
            Self::WebPage { .. } => "NotAnImage",
            Self::DigestMismatch { .. } => "DigestMismatch",
            Self::Unfit { source, .. } => source.reason(),
            Self::FormatDiffers { .. } => "WrongFormat",
            Self::TooLarge { .. } => "ImageTooLarge",
            Self::DiskFull { .. } => "DiskFull",
            Self::CacheFull { .. } | Self::ShareFull { .. } => "ImageCacheFull",
            Self::Storage { .. } => "StorageFailed",
        }
    }

    /// A failure of our own files; a full disk is told apart because it has another remedy.
    pub(super) fn storage(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            _ => Self::Storage { path, source },
        }
    }
}

fn and_found(found: Option<&Digest>) -> String {
    found.map(|found| format!(" but {found}")).unwrap_or_default()
}
