//! What an object says of itself, and what to tell whoever waited for it in vain.

use holdfast_api::condition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::DynamicObject;

use super::cluster::Target;
use crate::plugin::diagnostic::Diagnostic;
use crate::plugin::path::Path;

/// What an object says of itself.
pub(super) enum Verdict {
    Ready,
    Waits,
    Stalled(String),
}

/// A condition counts at the generation that was written, or a later one.
pub(super) fn verdict(object: &DynamicObject, generation: Option<i64>) -> Verdict {
    let conditions = conditions(object);
    let holds = |type_| {
        condition::find(&conditions, type_)
            .filter(|it| it.status == "True" && it.observed_generation >= generation)
    };
    match (holds(condition::STALLED), holds(condition::READY)) {
        (Some(stalled), _) => Verdict::Stalled(format!("{}: {}", stalled.reason, stalled.message)),
        (None, Some(_)) => Verdict::Ready,
        (None, None) => Verdict::Waits,
    }
}

fn conditions(object: &DynamicObject) -> Vec<Condition> {
    let conditions = object.data.get("status").and_then(|status| status.get("conditions"));
    conditions.and_then(|it| holdfast_client::part(it.clone()).0).unwrap_or_default()
}

/// Abnormal when True; all others are when they are not.
const ABNORMAL: [&str; 3] = [condition::RECONCILING, condition::STALLED, condition::RESTART_REQUIRED];

/// What becomes of an object whose create did not end well: the CLI calls it tainted.
pub(super) const KEPT: &str = "What exists is in the state. If it was just created, the next apply replaces it; to keep it and go on, \
                               run terraform untaint with its address first.";

/// Why the wait was in vain: the conditions that are not as one wishes, and the last events. Ready sums the others up, so it
/// stands first, and what only says the same again is left out.
pub(super) fn late(
    target: &Target,
    object: &DynamicObject,
    missing: Option<String>,
    events: &[String],
) -> Diagnostic {
    let mut lines = vec![format!("{} {} is not ready in time.", target.kind.kind, target.id())];
    let mut conditions = conditions(object);
    if conditions.is_empty() {
        lines.push("Nobody has looked at it: is the controller running?".to_owned());
    }
    conditions.sort_by_key(|it| it.type_ != condition::READY);
    let bad = |it: &&Condition| (it.status == "True") == ABNORMAL.contains(&it.type_.as_str());
    for Condition { type_, status, reason, message, .. } in conditions.iter().filter(bad) {
        if type_ == condition::READY || is_news(&lines, message) {
            lines.push(format!("{type_} is {status}, {reason}: {message}"));
        }
    }
    lines.extend(missing);
    for event in events {
        let message = event.split_once(": ").map_or(event.as_str(), |(_, message)| message);
        if is_news(&lines, message) {
            lines.push(format!("Event: {event}"));
        }
    }
    lines.push(format!("{KEPT} A longer time can be set in timeouts."));
    Diagnostic::error(Path::root(), "Object is not ready", lines.join("\n"))
}

fn is_news(said: &[String], message: &str) -> bool {
    !message.is_empty() && !said.iter().any(|line| line.ends_with(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_cannot_be_read_hides_no_other() {
        let object: DynamicObject = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "web"},
            "status": {"conditions": [
                {"type": "Bent", "status": "True", "reason": "", "message": "", "lastTransitionTime": "+99:99"},
                {"type": "Ready", "status": "True", "reason": "Up", "message": "", "observedGeneration": 3,
                    "lastTransitionTime": "2024-01-01T00:00:00+99:99"},
            ]},
        }))
        .unwrap();
        assert!(matches!(verdict(&object, Some(3)), Verdict::Ready));
    }

    #[test]
    fn a_cause_is_told_once() {
        let condition = |type_: &str, status: &str, reason: &str, message: &str| {
            serde_json::json!({"type": type_, "status": status, "reason": reason, "message": message,
                "lastTransitionTime": "2026-01-01T00:00:00Z"})
        };
        let why = "image debian is not there: create it, or name another in disks[0].image";
        let object: DynamicObject = serde_json::from_value(serde_json::json!({
            "apiVersion": "holdfast.dev/v1alpha1", "kind": "VirtualMachine", "metadata": {"name": "web", "namespace": "default"},
            "status": {"conditions": [
                condition("Reconciling", "True", "ImageNotFound", why),
                condition("Running", "False", "Off", ""),
                condition("Scheduled", "False", "Waits", "for its image"),
                condition("Ready", "False", "ImageNotFound", why),
            ]},
        }))
        .unwrap();
        let target = Target {
            kind: kube::api::ApiResource::erase::<holdfast_api::VirtualMachine>(&()),
            namespace: "default".into(),
            name: "web".into(),
        };
        let events = [format!("Warning ImageNotFound: {why}"), "Normal Seen: once".to_owned()];
        let detail = late(&target, &object, None, &events).detail;
        let lines: Vec<_> = detail.lines().collect();
        assert_eq!(detail.matches(why).count(), 1, "{detail}");
        assert_eq!(lines[1], format!("Ready is False, ImageNotFound: {why}"));
        assert_eq!(lines[2..4], ["Scheduled is False, Waits: for its image", "Event: Normal Seen: once"]);
    }
}
