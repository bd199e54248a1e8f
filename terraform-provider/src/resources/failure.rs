//! Failures as users read them: which object, what was refused and why, what to do next, and beside which attribute.

use std::error::Error as _;

use kube::core::Status;
use kube::core::response::StatusDetails;

use super::cluster::{Error, Target};
use super::field::{Field, path_of};
use super::verdict;
use crate::plugin::diagnostic::{Diagnostic, Diagnostics};
use crate::plugin::path::Path;

/// What was attempted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt<'a> {
    /// Such as `create`.
    pub(crate) verb: &'static str,
    /// The object.
    pub(crate) target: &'a Target,
    /// The resource type, such as `holdfast_ssh_key`.
    pub(crate) resource: &'a str,
    /// The fields of its spec.
    pub(crate) fields: &'a [Field],
}

impl Attempt<'_> {
    /// The failure in words.
    pub(crate) fn failed(&self, error: &Error) -> Diagnostics {
        let target = self.target;
        let whole = |summary: &str, detail: String| Diagnostic::error(Path::root(), summary, detail).into();
        match error {
            Error::Exists => {
                let detail = format!(
                    "{target} exists already and is not taken over. Choose another name, or bring it under this \
                     resource: terraform import {}.<name> {}",
                    self.resource,
                    target.id()
                );
                Diagnostic::error(Path::of("name"), "Object exists already", detail).into()
            }
            Error::Beside(other) => {
                let id = self.target.id();
                let detail = format!(
                    "{other} exists already and is of another maker, and {target} needs that name for \
                     its write-only data. Choose another name for {id}, or delete {other}."
                );
                whole("Object beside it exists already", detail)
            }
            Error::Unanswered(cause) => {
                let detail = format!(
                    "{target} may have been made, but nobody said so: {}. The state remembers the attempt. Apply again \
                     once the API answers: what this attempt made is recognised, and nothing else is taken over.",
                    chain(cause)
                );
                whole("API did not answer", detail)
            }
            Error::Deleted => {
                let detail = format!("{target} is not there any more. Plan again to create it.");
                whole("Object was deleted meanwhile", detail)
            }
            Error::Replaced => {
                let detail = format!(
                    "Another object has the name of {target} now; it was left alone. Plan again to see what is there."
                );
                whole("Object was replaced meanwhile", detail)
            }
            Error::Cancelled => {
                let detail = format!("{target} was left as it is. {}", verdict::KEPT);
                whole("Interrupted", detail)
            }
            Error::Late => whole(
                "Time is over",
                format!("{target} took longer than allowed. Look at it, or set a longer time in timeouts."),
            ),
            Error::Api(kube::Error::Api(status)) => self.refused(status),
            Error::Away { .. } => {
                let detail = format!(
                    "Could not {} {target}: {}. See that the address is right and the API runs.",
                    self.verb,
                    chain(error)
                );
                whole("API does not answer", detail)
            }
            error => {
                let detail = format!("Could not {} {target}: {}.", self.verb, chain(error));
                whole("API cannot be used", detail)
            }
        }
    }

    fn refused(&self, status: &Status) -> Diagnostics {
        let target = self.target;
        let details = status.details.as_ref();
        if status.is_conflict() {
            return self.conflict(status, details);
        }
        let (summary, detail) = match status.code {
            401 => (
                "API does not accept the credentials",
                format!(
                    "Could not {} {target}: {}. A token or certificate may have expired: renew it in the provider \
                     block, its environment or its kubeconfig.",
                    self.verb, status.message
                ),
            ),
            403 => (
                "Not allowed",
                format!(
                    "Could not {} {target}: {}. Ask for that right in a {}, or use other credentials.",
                    self.verb,
                    status.message,
                    if target.namespace.is_empty() { "ClusterRole" } else { "Role" }
                ),
            ),
            404 if details.is_none_or(|it| it.name.is_empty()) => (
                "Holdfast is not installed on this cluster",
                format!(
                    "The cluster does not know the kind {} of {}. Install Holdfast, or choose another cluster.",
                    target.kind.kind, target.kind.api_version
                ),
            ),
            _ => return self.invalid(status, details),
        };
        Diagnostic::error(Path::root(), summary, detail).into()
    }

    /// One message for each cause, beside its attribute.
    fn invalid(&self, status: &Status, details: Option<&StatusDetails>) -> Diagnostics {
        let target = self.target;
        let causes = details.map(|it| it.causes.as_slice()).unwrap_or_default();
        let mut diagnostics = Diagnostics::new();
        for cause in causes {
            let at = self.at(&cause.field);
            diagnostics.error(at, "Refused by the API", format!("{target}: {}.", cause.message));
        }
        if diagnostics.is_empty() {
            let detail = format!("Could not {} {target}: {}.", self.verb, status.message);
            diagnostics.error(Path::root(), "Refused by the API", detail);
        }
        diagnostics
    }

    fn conflict(&self, status: &Status, details: Option<&StatusDetails>) -> Diagnostics {
        let target = self.target;
        let causes = details.map(|it| it.causes.as_slice()).unwrap_or_default();
        let mut diagnostics = Diagnostics::new();
        for cause in causes.iter().filter(|cause| cause.reason == "FieldManagerConflict") {
            let detail = format!(
                "{target}: {} at {}. Let the other manager give the field up, leave it out here, or set \
                 force_conflicts in the provider to take it over.",
                cause.message, cause.field
            );
            diagnostics.error(
                self.at(cause.field.trim_start_matches('.')),
                "Another manager owns a field",
                detail,
            );
        }
        if diagnostics.is_empty() {
            let detail = format!("Could not {} {target}: {}. Plan again.", self.verb, status.message);
            diagnostics.error(Path::root(), "Object changed meanwhile", detail);
        }
        diagnostics
    }

    fn at(&self, field: &str) -> Path {
        match field.strip_prefix("spec.") {
            Some(field) => path_of(self.fields, field),
            None if field == "metadata.name" => Path::of("name"),
            None => Path::root(),
        }
    }
}

/// All causes of an error, each once.
pub(super) fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
