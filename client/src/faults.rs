//! What of an object could not be read, and why.

use std::fmt;

/// More than these help nobody in a log line or an event.
const SHOWN: usize = 3;
/// Bytes of one reason that are kept: a decoder repeats the value it found, which may be long.
const LONGEST: usize = 200;

/// The fields of one object that could not be read; none for an object that was read whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Fault {
    /// Such as `status.conditions[0].lastTransitionTime`; empty for the whole object.
    field: String,
    reason: String,
}

impl Faults {
    /// Whether everything was read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this field, a part of it or something around it could not be read.
    pub fn touch(&self, field: &str) -> bool {
        self.0.iter().any(|fault| within(&fault.field, field) || within(field, &fault.field))
    }

    /// Whether anything could not be read that lies outside this field.
    pub fn beyond(&self, field: &str) -> bool {
        self.0.iter().any(|fault| !within(&fault.field, field))
    }

    /// Notes a field once.
    pub(crate) fn note(&mut self, field: &str, reason: &str) {
        if !self.0.iter().any(|fault| fault.field == field) {
            self.0.push(Fault { field: field.to_owned(), reason: shortened(reason) });
        }
    }
}

/// Whether a field lies in another one, or is the same.
fn within(field: &str, other: &str) -> bool {
    other.is_empty()
        || field.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn shortened(reason: &str) -> String {
    let Some(end) = (0..=LONGEST).rev().find(|at| reason.is_char_boundary(*at)) else { return String::new() };
    if reason.len() <= LONGEST { reason.to_owned() } else { format!("{} ...", &reason[..end]) }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, fault) in self.0.iter().take(SHOWN).enumerate() {
            let (between, field) = (if number == 0 { "" } else { "; " }, fault.field.as_str());
            let field = if field.is_empty() { "the object" } else { field };
            write!(f, "{between}{field}: {}", fault.reason)?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_touches_its_field_what_is_in_it_and_what_is_around_it() {
        let mut faults = Faults::default();
        faults.note("spec.disks[0].size", "is no size");
        assert!(
            faults.touch("spec.disks") && faults.touch("spec.disks[0].size.unit") && faults.touch("spec")
        );
        assert!(faults.beyond("status") && !faults.beyond("spec.disks"));
        assert!(!faults.touch("spec.disk") && !faults.touch("spec.disks[1]") && !faults.touch("status"));
        faults.note("", "is a number");
        assert!(faults.touch("status.nodeName"));
    }

    #[test]
    fn a_long_value_does_not_fill_the_log() {
        let mut faults = Faults::default();
        faults.note("spec.cpu", &"ä".repeat(300_000));
        for field in ["a", "b", "c"] {
            faults.note(field, "is missing");
        }
        let text = faults.to_string();
        assert!(text.len() < 300 && text.ends_with("; and 1 more"), "{text}");
    }
}
