//! What a plan would do to one resource, and which of its attributes would differ afterwards.

use std::collections::BTreeSet;

use serde_json::Value;

/// One resource in a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Such as `holdfast_image.debian`.
    pub address: String,
    /// Such as `no-op`, `update`, or `delete` and `create`.
    pub actions: Vec<String>,
    /// Attributes that would differ, such as `disks[].size`. What is not known before the apply differs; null and empty
    /// are the same here, since no object tells them apart.
    pub changes: BTreeSet<String>,
}

impl Planned {
    pub(super) fn of(change: &Value) -> Self {
        let actions = change["change"]["actions"].as_array().into_iter().flatten();
        let [before, after, unknown] = ["before", "after", "after_unknown"].map(|it| &change["change"][it]);
        let mut changes = BTreeSet::new();
        differences(before, after, "", &mut changes);
        unknowns(unknown, "", &mut changes);
        Self {
            address: change["address"].as_str().unwrap_or_default().to_owned(),
            actions: actions.filter_map(Value::as_str).map(str::to_owned).collect(),
            changes,
        }
    }
}

fn differences(before: &Value, after: &Value, at: &str, found: &mut BTreeSet<String>) {
    match (before, after) {
        (before, after) if before == after || (is_empty(before) && is_empty(after)) => {}
        (Value::Object(one), Value::Object(other)) => {
            for name in one.keys().chain(other.keys()) {
                let inner = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                differences(&before[name], &after[name], &inner, found);
            }
        }
        // A whole object that comes or goes is its attributes that do.
        (Value::Null, Value::Object(other)) => {
            let nothing = other.keys().map(|name| (name.clone(), Value::Null)).collect();
            differences(&Value::Object(nothing), after, at, found);
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            for (one, other) in one.iter().zip(other) {
                differences(one, other, &format!("{at}[]"), found);
            }
        }
        _ => {
            found.insert(at.to_owned());
        }
    }
}

/// Where the answer to "is it unknown?" is yes.
fn unknowns(answer: &Value, at: &str, found: &mut BTreeSet<String>) {
    match answer {
        Value::Bool(true) => {
            found.insert(at.to_owned());
        }
        Value::Object(parts) => {
            for (name, part) in parts {
                unknowns(part, &if at.is_empty() { name.clone() } else { format!("{at}.{name}") }, found);
            }
        }
        Value::Array(parts) => parts.iter().for_each(|part| unknowns(part, &format!("{at}[]"), found)),
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(parts) => parts.is_empty(),
        Value::Object(parts) => parts.values().all(is_empty),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_differs_is_named_and_null_is_no_other_than_empty() {
        let planned = Planned::of(&json!({"address": "a.b", "change": {
            "actions": ["update"],
            "before": {"cpu": 1, "labels": null, "disks": [{"size": "1Gi"}], "times": null, "same": "x"},
            "after": {"cpu": 2, "labels": {}, "disks": [{"size": "2Gi"}], "times": {"read": "1m"}, "same": "x"},
            "after_unknown": {"status": true, "disks": [{"size": false}]},
        }}));
        let names: Vec<_> = planned.changes.iter().map(String::as_str).collect();
        assert_eq!(names, ["cpu", "disks[].size", "status", "times.read"]);
        assert_eq!((planned.address.as_str(), &planned.actions[..]), ("a.b", &["update".to_owned()][..]));
    }
}
