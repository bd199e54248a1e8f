//! What a change of an attribute does: the table on the page of each resource. It is read from what the plan reads: which
//! fields cannot change, from the CRD; which changes a running guest waits for, from `api/`; the rest from the kind.

use std::fmt::Write as _;

use holdfast_api::virtual_machine::WaitsFor;

use super::field::Field;

/// What a change does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Carried out at once.
    Live,
    /// Waits for the guest's next start.
    Start,
    /// Waits for the guest's next start after a reseed.
    Reseed,
    /// Needs another object.
    Replace,
    /// Cannot be planned.
    Refused,
    /// Concerns the provider alone.
    Local,
}

/// In the order of the table.
const ALL: [(Effect, &str); 6] = [
    (Effect::Live, "live: at once"),
    (
        Effect::Start,
        "at next restart; until then in `status.pending_changes`. A new `restart_request` restarts",
    ),
    (
        Effect::Reseed,
        "at next restart after a new `cloud_init.reseed`; until then in `status.pending_changes`",
    ),
    (Effect::Replace, "replace: the object is deleted and made again"),
    (Effect::Refused, "refused in the plan, with what to do instead"),
    (Effect::Local, "nothing but what the provider itself does"),
];

/// What all resources have beside the fields of their kind.
const COMMON: [(&str, Effect); 5] = [
    ("`name`", Effect::Replace),
    ("`namespace`", Effect::Replace),
    ("`labels`", Effect::Live),
    ("`annotations`", Effect::Live),
    ("`timeouts`", Effect::Local),
];

/// What a change of a field does where the kind says nothing else.
pub(super) fn of(field: &Field) -> Effect {
    if field.immutable {
        return Effect::Replace;
    }
    if field.is_own() {
        return Effect::Local;
    }
    match WaitsFor::of(&format!("spec.{}", field.key)) {
        Some(WaitsFor::Restart) => Effect::Start,
        Some(WaitsFor::Reseed) => Effect::Reseed,
        None => Effect::Live,
    }
}

/// The table of a kind with these fields, and what it says beyond them.
pub(super) fn table(fields: &[Field], more: &[(&'static str, Effect)]) -> String {
    let told = |pairs: &[(&'static str, Effect)]| {
        pairs.iter().map(|(what, effect)| ((*what).to_owned(), *effect)).collect::<Vec<_>>()
    };
    let fields = fields.iter().map(|field| (format!("`{}`", field.attribute), of(field)));
    // The kind says it all where its words begin with the attribute.
    let fields = fields.filter(|(name, _)| !more.iter().any(|(what, _)| what.starts_with(name)));
    let changes: Vec<_> = told(&COMMON).into_iter().chain(fields).chain(told(more)).collect();
    let mut text = "## What a change does\n\n| a change of | takes effect |\n|---|---|\n".to_owned();
    for (effect, said) in ALL {
        let of = changes.iter().filter(|(_, it)| *it == effect).map(|(what, _)| what.as_str());
        let of = of.collect::<Vec<_>>().join(", ");
        if !of.is_empty() {
            let _ = writeln!(text, "| {of} | {said} |");
        }
    }
    text
}
