//! What both encodings share: why a value does not fit its type.

use super::path::{Path, Step};
use super::ty::Type;
use super::value::Value;

/// A value that does not fit the type of its schema. The text says where and what kind of thing was expected, never
/// what was found: that may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}", place(.at))]
pub struct Mismatch {
    at: Path,
    problem: String,
}

impl Mismatch {
    pub(super) fn new(problem: impl Into<String>) -> Self {
        Self { at: Path::root(), problem: problem.into() }
    }

    pub(super) fn expected(ty: &Type) -> Self {
        Self::new(format!("expected {}", ty.noun()))
    }

    /// The same, seen from one step further out. Built on the way back, so that a good value pays for no path.
    pub(super) fn inside(self, outer: Step) -> Self {
        Self { at: self.at.inside(outer), ..self }
    }

    /// Where in the value.
    pub const fn path(&self) -> &Path {
        &self.at
    }

    /// What was expected there.
    pub fn problem(&self) -> &str {
        &self.problem
    }
}

fn place(at: &Path) -> String {
    if at.is_root() { String::new() } else { format!("{at}: ") }
}

/// The elements of a set in their one order. Two unknown elements may turn out different, so both stay.
pub(super) fn in_set_order(mut elements: Vec<Value>) -> Vec<Value> {
    elements.sort();
    elements.dedup_by(|one, other| one == other && one.is_wholly_known());
    elements
}
