//! The rules the host enforces on replies, as a checker of our own: what it finds here, a user would read as "Provider
//! produced invalid plan" or "inconsistent result after apply". Run on every reply in debug builds, and in tests
//! (opentofu:internal/plans/objchange). The tests of a rule begin with its number, such as `host_rule_1`.
//!
//! 1. Invalid plan: what is planned is what is configured, or what was there, or computed where nothing is configured;
//!    nested objects are those that are configured; a destroy is planned null; a path that replaces exists.
//! 2. Inconsistent final plan: a second plan says what the first said, and may know more.
//! 3. Inconsistent result after apply: what was planned comes back, unless an error comes with it.
//! 4. Invalid result object after apply: nothing is unknown, and null stands for what was deleted alone.
//! 5. Invalid object: a value has the type of its schema.
//! 6. Write-only attribute set: such an attribute is null in every plan and state.
//! 7. An apply that returns an error is stored with the state it returns; with none, what was there stays.
//! 8. Invalid identity: there is none, for none is offered.
//!
//! A finding says which attribute broke which rule, never a value.

use super::diagnostic::Diagnostics;
use super::path::{Path, Step};
use super::schema::{Attribute, Exposure, Nesting, Schema, Shape};
use super::ty::Type;
use super::value::{Refinement, Value};

/// A rule that a reply breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub at: Path,
    /// Which rule, as a sentence without full stop.
    pub rule: &'static str,
}

/// Whether a plan says what the configuration says.
pub fn planned(schema: &Schema, prior: &Value, config: &Value, planned: &Value) -> Vec<Finding> {
    let mut findings = write_only_is_null(schema, planned);
    let root = Path::root();
    match (config.is_null(), planned.is_null()) {
        (true, true) => {}
        (false, true) => note(&mut findings, &root, "the plan is null and the configuration is not"),
        (true, false) => note(&mut findings, &root, "the plan of a destroy must be null"),
        (false, false) => attributes(schema.attributes(), [prior, config, planned], &root, &mut findings),
    }
    findings
}

/// Whether every path that forces a replacement exists, before or after.
pub fn replaced(prior: &Value, planned: &Value, replace: &[Path]) -> Vec<Finding> {
    let missing = |path: &&Path| !exists(prior, path) && !exists(planned, path);
    let rule = "a path that forces replacement is neither in the prior state nor in the plan";
    replace.iter().filter(missing).map(|at| Finding { at: at.clone(), rule }).collect()
}

/// Whether the second plan of one change says what the first said.
pub fn replanned(schema: &Schema, first: &Value, second: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    compatible(&schema.ty(), first, second, &Path::root(), &mut findings);
    findings
}

/// Whether the state after an apply without errors is what was planned.
pub fn applied(schema: &Schema, planned: &Value, state: &Value) -> Vec<Finding> {
    let mut findings = settled(schema, state);
    compatible(&schema.ty(), planned, state, &Path::root(), &mut findings);
    findings
}

/// Whether a state may be stored: nothing is unknown, nothing write-only is there.
pub fn settled(schema: &Schema, state: &Value) -> Vec<Finding> {
    let mut findings = write_only_is_null(schema, state);
    if !state.is_wholly_known() {
        note(&mut findings, &Path::root(), "something in the state is still unknown");
    }
    findings
}

/// The findings as messages to a user, who can do nothing but report them.
pub fn report(findings: Vec<Finding>) -> Diagnostics {
    let mut diagnostics = Diagnostics::new();
    for Finding { at, rule } in findings {
        let place = if at.is_root() { "the whole object".to_owned() } else { at.to_string() };
        let detail = format!("{place}: {rule}. This is a bug in the provider: please report it.");
        diagnostics.error(at, "Reply breaks a rule of the plugin protocol", detail);
    }
    diagnostics
}

fn note(findings: &mut Vec<Finding>, at: &Path, rule: &'static str) {
    findings.push(Finding { at: at.clone(), rule });
}

fn write_only_is_null(schema: &Schema, value: &Value) -> Vec<Finding> {
    let rule = "a write-only attribute must be null in every plan and state";
    schema.write_only_set(value).into_iter().map(|at| Finding { at, rule }).collect()
}

/// The three values, in order: prior, configured, planned.
type Three<'a> = [&'a Value; 3];

fn attributes(of: &[Attribute], values: Three<'_>, at: &Path, findings: &mut Vec<Finding>) {
    for attribute in of {
        let inner = values.map(|value| value.attribute(&attribute.name));
        one_attribute(attribute, inner, &at.attribute(&attribute.name), findings);
    }
}

fn one_attribute(attribute: &Attribute, values: Three<'_>, at: &Path, findings: &mut Vec<Finding>) {
    let [prior, config, planned] = values;
    let write_only = attribute.exposure == Exposure::WriteOnly;
    let kept = !prior.is_null() && !config.is_null() && same(planned, prior);
    if same(planned, config) || kept || write_only || (config.is_null() && attribute.is_computed()) {
        return;
    }
    match &attribute.shape {
        Shape::Nested(nesting, inner) if !config.is_null() => nested(*nesting, inner, values, at, findings),
        _ if config.is_null() => {
            note(findings, at, "planned a value for what is not configured and not computed");
        }
        _ => note(findings, at, "the plan is neither what is configured nor what was there before"),
    }
}

fn nested(nesting: Nesting, of: &[Attribute], values: Three<'_>, at: &Path, findings: &mut Vec<Finding>) {
    let [prior, config, planned] = values;
    if planned.is_null() {
        return note(findings, at, "planned for absence, but it is configured");
    }
    match (nesting, config, planned) {
        (Nesting::Single, Value::Object(_), Value::Object(_)) => attributes(of, values, at, findings),
        (Nesting::List, Value::List(config), Value::List(planned)) if config.len() == planned.len() => {
            for (index, (config, planned)) in config.iter().zip(planned).enumerate() {
                let prior = element(prior, index);
                nested_element(of, [prior, config, planned], &at.index(index), findings);
            }
        }
        (Nesting::Map, Value::Map(config), Value::Map(planned)) if config.keys().eq(planned.keys()) => {
            for ((key, config), planned) in config.iter().zip(planned.values()) {
                let prior = entry(prior, key);
                nested_element(of, [prior, config, planned], &at.key(key), findings);
            }
        }
        (_, _, Value::Unknown(_)) => {
            note(findings, at, "a configured object cannot be planned wholly unknown");
        }
        _ => note(findings, at, "the plan has other elements than the configuration"),
    }
}

fn nested_element(of: &[Attribute], values: Three<'_>, at: &Path, findings: &mut Vec<Finding>) {
    let [_, config, planned] = values;
    if same(config, planned) {
        return;
    }
    match (config, planned) {
        (Value::Object(_), Value::Object(_)) => attributes(of, values, at, findings),
        _ => note(findings, at, "an element cannot be planned wholly unknown or null"),
    }
}

/// By position, as the host does, even where a provider matches by name.
fn element(list: &Value, index: usize) -> &Value {
    match list {
        Value::List(elements) => elements.get(index).unwrap_or(&Value::Null),
        _ => &Value::Null,
    }
}

fn entry<'a>(map: &'a Value, key: &str) -> &'a Value {
    match map {
        Value::Map(elements) => elements.get(key).unwrap_or(&Value::Null),
        _ => &Value::Null,
    }
}

/// Equal but for what is said about unknown values.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Unknown(_), Value::Unknown(_)) => true,
        (Value::List(one), Value::List(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Map(one), Value::Map(other)) | (Value::Object(one), Value::Object(other)) => {
            one.keys().eq(other.keys())
                && one.values().zip(other.values()).all(|(one, other)| same(one, other))
        }
        (one, other) => one == other,
    }
}

/// Whether what came fits what was promised: the known is the same, the unknown may be anything.
fn compatible(ty: &Type, promised: &Value, came: &Value, at: &Path, findings: &mut Vec<Finding>) {
    match (ty, promised, came) {
        (_, Value::Unknown(Refinement::NotNull), Value::Null) => {
            note(findings, at, "is null, but the plan said that it would not be");
        }
        (_, Value::Unknown(_), _) | (_, Value::Null, Value::Null) => {}
        (_, Value::Null, _) => note(findings, at, "was planned null, but now is there"),
        (_, _, Value::Null) => note(findings, at, "was planned, but now is null"),
        (Type::Set(_), promised, _) if !promised.is_wholly_known() => {}
        (Type::List(ty), Value::List(promised), Value::List(came)) if promised.len() == came.len() => {
            for (index, (promised, came)) in promised.iter().zip(came).enumerate() {
                compatible(ty, promised, came, &at.index(index), findings);
            }
        }
        (Type::Map(ty), Value::Map(promised), Value::Map(came)) if promised.keys().eq(came.keys()) => {
            for ((key, promised), came) in promised.iter().zip(came.values()) {
                compatible(ty, promised, came, &at.key(key), findings);
            }
        }
        (Type::Object(types), promised, came) => {
            for (name, ty) in types {
                let at = at.attribute(name);
                compatible(ty, promised.attribute(name), came.attribute(name), &at, findings);
            }
        }
        (_, promised, came) if same(promised, came) => {}
        _ => note(findings, at, "is not what was planned"),
    }
}

fn exists(value: &Value, path: &Path) -> bool {
    path.steps().iter().try_fold(value, into).is_some()
}

fn into<'a>(value: &'a Value, step: &Step) -> Option<&'a Value> {
    match (value, step) {
        // It may turn out to hold anything.
        (Value::Unknown(_), _) => Some(value),
        (Value::Object(attributes), Step::Attribute(name)) => attributes.get(name),
        (Value::Map(elements), Step::Key(key)) => elements.get(key),
        (Value::List(elements), Step::Index(index)) => elements.get(*index),
        _ => None,
    }
}

#[cfg(test)]
#[path = "consistency_tests.rs"]
mod tests;
