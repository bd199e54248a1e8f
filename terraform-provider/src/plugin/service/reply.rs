//! What holds for the replies of all kinds, as pure functions: nothing write-only is stored, nothing is unknown after an
//! error, a failed change keeps what was there, and a debug build asks the host's rules before the host does.

use super::kinds::Form;
use crate::plugin::consistency::{self, Finding};
use crate::plugin::diagnostic::{Diagnostic, Diagnostics};
use crate::plugin::path::Path;
use crate::plugin::provider::{Outcome, Plan};
use crate::plugin::value::Value;

/// A state to store.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Settled {
    pub(super) state: Value,
    pub(super) private: Vec<u8>,
    pub(super) diagnostics: Diagnostics,
}

/// Write-only attributes under a host that would store them.
pub(super) fn write_only_refused(form: &Form, config: &Value) -> Diagnostics {
    let mut diagnostics = Diagnostics::new();
    for path in form.schema.write_only_set(config) {
        let detail = format!(
            "{path} is never stored, which this version of the host cannot promise. It needs Terraform or OpenTofu \
             1.11 or later."
        );
        diagnostics.error(path, "Write-only attributes are not supported by the host", detail);
    }
    diagnostics
}

/// The plan of a create or an update.
pub(super) fn planned(form: &Form, prior: &Value, config: &Value, plan: Plan<Value>) -> Plan<Value> {
    let Plan { planned, replace, mut diagnostics } = plan;
    let planned = form.schema.without_write_only(planned);
    if !diagnostics.has_errors() {
        diagnostics.append(broken(|| {
            let mut findings = consistency::planned(&form.schema, prior, config, &planned);
            findings.extend(consistency::replaced(prior, &planned, &replace));
            findings
        }));
    }
    Plan { planned, replace, diagnostics }
}

/// The plan of a destroy.
pub(super) const fn planned_end(diagnostics: Diagnostics) -> Plan<Value> {
    Plan { planned: Value::Null, replace: Vec::new(), diagnostics }
}

/// What to store after an apply. Without a state a failed update or delete leaves what was there.
pub(super) fn applied(
    form: &Form,
    prior: Value,
    planned: &Value,
    private: Vec<u8>,
    outcome: Outcome<Value>,
) -> Settled {
    let failed = outcome.diagnostics.has_errors();
    let mut settled = settle(form, private, outcome);
    if failed {
        settled.state = if settled.state.is_null() { prior } else { settled.state.without_unknown() };
    } else {
        let findings = || consistency::applied(&form.schema, planned, &settled.state);
        let broken = broken(findings);
        settled.diagnostics.append(broken);
    }
    settled
}

/// What to store after a read. A failed one leaves what was there.
pub(super) fn refreshed(form: &Form, before: Value, private: Vec<u8>, outcome: Outcome<Value>) -> Settled {
    let failed = outcome.diagnostics.has_errors();
    let mut settled = settle(form, private, outcome);
    if failed && settled.state.is_null() {
        settled.state = before;
    }
    let broken = broken(|| consistency::settled(&form.schema, &settled.state));
    settled.diagnostics.append(broken);
    settled
}

/// What a data source found; null is no answer for one.
pub(super) fn found(form: &Form, outcome: Outcome<Value>) -> Result<Settled, Diagnostics> {
    let mut settled = settle(form, Vec::new(), outcome);
    if settled.state.is_null() && !settled.diagnostics.has_errors() {
        let detail = "The data source returned nothing and said nothing. This is a bug in the provider: please report it.";
        return Err(Diagnostic::error(Path::root(), "Data source is empty", detail).into());
    }
    let broken = broken(|| consistency::settled(&form.schema, &settled.state));
    settled.diagnostics.append(broken);
    Ok(settled)
}

fn settle(form: &Form, kept: Vec<u8>, outcome: Outcome<Value>) -> Settled {
    let Outcome { state, private, diagnostics } = outcome;
    let state = form.schema.without_write_only(state.unwrap_or(Value::Null));
    Settled { state, private: private.unwrap_or(kept), diagnostics }
}

/// In a release the host is left to find it: a user is better served by its message than by two.
fn broken(findings: impl FnOnce() -> Vec<Finding>) -> Diagnostics {
    if cfg!(debug_assertions) { consistency::report(findings()) } else { Diagnostics::new() }
}
