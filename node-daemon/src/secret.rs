//! Bytes that must appear in no log, event, status or domain XML (I5, S10).

/// A value without `Debug`, `Display` and `Serialize`: it cannot be printed by accident. Its one reader is named
/// after the one place it may go, so that review finds every use by searching for that name.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps a value as soon as it was read.
    pub(crate) const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value, for the seed image of its virtual machine and nothing else.
    pub(crate) const fn expose_to_seed(&self) -> &T {
        &self.0
    }
}
