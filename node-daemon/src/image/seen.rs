//! By what a source shows that it has another file now, without sending it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use reqwest::header::{ETAG, HeaderMap, LAST_MODIFIED};

/// A longer `ETag` is no name of a version, and none may fill the memory of the node.
const LONGEST: usize = 256;

/// What a source said of the file it has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    etag: Option<String>,
    modified: Option<String>,
    bytes: Option<u64>,
}

impl Seen {
    /// What a server said; `bytes` is the length of the whole file.
    pub(super) fn on_the_web(headers: &HeaderMap, bytes: Option<u64>) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let short = |name| text(name).filter(|text| text.len() <= LONGEST).map(str::to_owned);
        Self { etag: short(ETAG), modified: short(LAST_MODIFIED), bytes }
    }

    /// What the filesystem says. A copy may take the time of the last change from its original, so the inode and the
    /// time at which the kernel saw it change count.
    pub(super) fn on_disk(file: &Metadata) -> Self {
        let changed = format!("{}.{}", file.ctime(), file.ctime_nsec());
        Self { etag: Some(file.ino().to_string()), modified: Some(changed), bytes: Some(file.len()) }
    }

    /// Whether it said anything.
    pub(crate) fn says_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Whether these two are surely not the same file: what only one of them says proves nothing.
    pub(crate) fn differs(&self, other: &Self) -> bool {
        fn apart<T: PartialEq>(one: Option<&T>, other: Option<&T>) -> bool {
            one.zip(other).is_some_and(|(one, other)| one != other)
        }
        apart(self.etag.as_ref(), other.etag.as_ref())
            || apart(self.modified.as_ref(), other.modified.as_ref())
            || apart(self.bytes.as_ref(), other.bytes.as_ref())
    }
}

#[cfg(test)]
impl Seen {
    /// A server that shows an `ETag` and nothing else.
    pub(crate) fn etag(etag: &str) -> Self {
        Self { etag: Some(etag.to_owned()), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(etag: &str, modified: &str, bytes: u64) -> Seen {
        let said = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Seen { etag: said(etag), modified: said(modified), bytes: Some(bytes).filter(|bytes| *bytes > 0) }
    }

    #[test]
    fn one_thing_that_both_say_differently_tells_two_files_apart() {
        let one = said("\"a\"", "mon", 7);
        for other in
            [said("\"b\"", "mon", 7), said("\"a\"", "tue", 7), said("\"a\"", "mon", 8), said("", "", 8)]
        {
            assert!(one.differs(&other) && other.differs(&one), "{other:?}");
        }
        for other in [one.clone(), said("", "mon", 0), said("", "", 0)] {
            assert!(!one.differs(&other) && !other.differs(&one), "{other:?}");
        }
    }
}
