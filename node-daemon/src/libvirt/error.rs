//! What can go wrong between us and libvirt, sorted by what the caller does next.

use std::time::Duration;

use virt::error::{Error as VirtError, ErrorNumber};

use super::text::Invalid;
use crate::retry::Retry;

/// What to say of a libvirt that does not answer, to whoever can see to it.
pub(crate) const REMEDY: &str = "what runs on the node goes on as far as is known, and the node goes on by itself once \
    libvirt answers; if it does not, see systemctl status libvirtd there";

/// A call to libvirt that did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No connection, or it broke during the call: the call may or may not have taken effect.
    #[error("libvirt is not reachable at {uri}")]
    Unreachable { uri: String },
    /// The caller stopped waiting; a call that had begun still runs to its end, a queued one is dropped.
    #[error("libvirt did not {verb} {subject} within {} s", limit.as_secs())]
    Timeout { verb: &'static str, subject: String, limit: Duration },
    /// Too many calls are waiting, or the actor has ended.
    #[error("no room to {verb} {subject}: too many calls to libvirt are waiting")]
    Busy { verb: &'static str, subject: String },
    /// The domain or network itself is not there.
    #[error("libvirt knows no {subject}")]
    Absent { subject: String },
    /// It is running where it should be off, or the other way round, or another job holds it.
    #[error("libvirt cannot {verb} {subject} in its present state")]
    WrongState { verb: &'static str, subject: String, source: Fault },
    /// The XML or the configuration is not acceptable to this libvirt.
    #[error("libvirt refuses to {verb} {subject}")]
    Refused { verb: &'static str, subject: String, source: Fault },
    /// Anything else, e.g. QEMU ended at once or a file is missing.
    #[error("libvirt could not {verb} {subject}")]
    Failed { verb: &'static str, subject: String, source: Fault },
    /// A value that must not be handed to libvirt at all.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

impl Error {
    /// The one place that says how each error is answered.
    pub(crate) fn retry(&self) -> Retry {
        match self {
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Busy { .. }
            | Self::Absent { .. }
            | Self::WrongState { .. } => Retry::Soon,
            Self::Failed { .. } => Retry::Later,
            Self::Refused { .. } | Self::Invalid(_) => Retry::OnChange,
        }
    }

    /// Whether libvirt gave no answer, so that nothing is known of what was asked about.
    pub(crate) fn is_no_answer(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Timeout { .. } | Self::Busy { .. })
    }

    /// Sorts an error of libvirt by its code; `verb` and `subject` are what we tried.
    pub(super) fn of(verb: &'static str, subject: String, error: &VirtError) -> Self {
        let source = Fault::from(error);
        match Class::of(error) {
            Class::Absent => Self::Absent { subject },
            Class::WrongState => Self::WrongState { verb, subject, source },
            Class::Refused => Self::Refused { verb, subject, source },
            Class::Other => Self::Failed { verb, subject, source },
        }
    }
}

/// libvirt's own words and number for an error (`virErrorNumber`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (libvirt error {code})")]
pub(crate) struct Fault {
    pub(crate) code: u32,
    pub(crate) message: String,
}

impl From<&VirtError> for Fault {
    fn from(error: &VirtError) -> Self {
        Self { code: error.code().to_raw(), message: error.message().to_owned() }
    }
}

/// A failure of the host itself, before libvirt had a say.
impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Self { code: 0, message: error.to_string() }
    }
}

enum Class {
    Absent,
    WrongState,
    Refused,
    Other,
}

impl Class {
    fn of(error: &VirtError) -> Self {
        let Some(number) = error.code().known() else {
            return Self::Other;
        };
        match number {
            ErrorNumber::NoDomain => Self::Absent,
            // Another job holds the domain (`OperationTimeout`) or its state has moved: look again.
            ErrorNumber::OperationInvalid | ErrorNumber::OperationTimeout | ErrorNumber::ResourceBusy => {
                Self::WrongState
            }
            ErrorNumber::XmlError
            | ErrorNumber::XmlDetail
            | ErrorNumber::XmlInvalidSchema
            | ErrorNumber::ConfigUnsupported
            | ErrorNumber::CpuIncompatible
            | ErrorNumber::InvalidArg
            | ErrorNumber::NoSupport
            | ErrorNumber::OperationUnsupported => Self::Refused,
            // `NoNetwork` too: it is what starting a domain says when *its network* is missing.
            _ => Self::Other,
        }
    }
}

/// True for the two answers that only say "not there (any more)".
pub(super) fn is_absent(error: &VirtError) -> bool {
    matches!(error.code().known(), Some(ErrorNumber::NoDomain | ErrorNumber::NoNetwork))
}
