//! When a failed step is worth another look: the one vocabulary every error of the daemon answers in.

/// How long the driver waits before it tries again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// Seconds: the fault usually ends by itself and the work resumes where it stopped.
    Soon,
    /// A minute or so: somebody else has to act, but not on this object.
    Later,
    /// Only when the object changes: trying again would fail in the same way.
    OnChange,
}
