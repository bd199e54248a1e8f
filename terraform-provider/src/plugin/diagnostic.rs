//! Diagnostics: what a user reads beside a line of the configuration.
//!
//! The summary is one short clause without values ("Image digest does not match"); the detail names the object, what was
//! expected, what was found and what to do next. Neither ever holds a secret.

use super::path::Path;

/// Whether the operation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// It failed.
    Error,
    /// It did not, but there is something the user can act on.
    Warning,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether the operation failed.
    pub severity: Severity,
    /// A short clause.
    pub summary: String,
    /// Sentences, ending with the remedy.
    pub detail: String,
    /// Where in the configuration; the root where no attribute is meant.
    pub path: Path,
}

/// The messages of one call, in the order in which they arose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostic {
    /// A failure.
    pub fn error(path: Path, summary: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { severity: Severity::Error, summary: summary.into(), detail: detail.into(), path }
    }

    /// Something to act on.
    pub fn warning(path: Path, summary: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, summary: summary.into(), detail: detail.into(), path }
    }
}

impl Diagnostics {
    /// None yet.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Notes a failure.
    pub fn error(&mut self, path: Path, summary: impl Into<String>, detail: impl Into<String>) {
        self.0.push(Diagnostic::error(path, summary, detail));
    }

    /// Notes something to act on.
    pub fn warning(&mut self, path: Path, summary: impl Into<String>, detail: impl Into<String>) {
        self.0.push(Diagnostic::warning(path, summary, detail));
    }

    /// Notes one message.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }

    /// Adds the others behind these.
    pub fn append(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Whether the operation failed.
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The messages.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_fails_nothing() {
        let mut diagnostics = Diagnostics::new();
        diagnostics.warning(Path::root(), "Slow", "It takes long.");
        assert!(!diagnostics.has_errors());
        diagnostics.error(Path::of("name"), "Wrong", "It is wrong.");
        assert!(diagnostics.has_errors());
    }
}
