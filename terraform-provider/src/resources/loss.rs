//! A replacement that nobody asked for: the host refuses a plan that comes to be another action, so what may come to
//! replace is planned as a replacement, and what that loses is said in the plan.

use super::kind::{Decision, Kind, Whole};
use super::managed::Managed;
use crate::plugin::diagnostic::{Diagnostic, Diagnostics};
use crate::plugin::provider::Plan;
use crate::plugin::value::Value;

impl<K: Kind> Managed<K> {
    /// What to say of a plan that replaces only because something is not known yet.
    pub(super) fn needless_loss(
        &self,
        prior: &Value,
        config: &Value,
        plan: &Plan<Whole>,
    ) -> Option<Diagnostic> {
        let (at, loses) = (plan.replace.first()?, K::LOSES?);
        if !self.may_be_kept(prior, config, &plan.planned.0) {
            return None;
        }
        let detail = format!(
            "{at} is not known yet in full, so this plan makes the object anew, whatever the value comes to be: {loses}. To \
             keep it, give a value that is known when planning, or apply first what the value comes from (-target), and \
             plan again. While deletion_protection is true such a plan is refused."
        );
        let summary = "Object is replaced because of a value that is not known yet";
        Some(Diagnostic::warning(at.clone(), summary, detail))
    }

    /// Whether nothing would be replaced if all that is not known yet came to be what it was.
    fn may_be_kept(&self, prior: &Value, config: &Value, planned: &Value) -> bool {
        let planned = as_before(planned, prior);
        let mut decision = Decision { planned, replace: Vec::new(), diagnostics: Diagnostics::new() };
        K::decide(prior, config, &mut decision);
        decision.replace.is_empty() && self.immutable_changes(prior, &decision.planned).is_empty()
    }
}

/// The plan with what was in the place of all that is not known yet.
fn as_before(planned: &Value, prior: &Value) -> Value {
    match planned {
        Value::Unknown(_) => prior.clone(),
        Value::Map(_) if !planned.is_wholly_known() => prior.clone(),
        Value::Object(attributes) => {
            let part =
                |(name, value): (&String, &Value)| (name.clone(), as_before(value, prior.attribute(name)));
            Value::Object(attributes.iter().map(part).collect())
        }
        Value::List(elements) => {
            let before: &[Value] = if let Value::List(before) = prior { before } else { &[] };
            let part = |(index, value)| as_before(value, before.get(index).unwrap_or(&Value::Null));
            Value::List(elements.iter().enumerate().map(part).collect())
        }
        known => known.clone(),
    }
}
