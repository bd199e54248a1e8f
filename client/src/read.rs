//! One object decoded alone, as far as that goes.
//!
//! Where a field does not decode it is left out, or, where the kind needs it, a stand-in takes its place; then the rest is
//! tried again. The field is named in [`Faults`], so nobody takes a stand-in for what the object says.

use std::collections::HashMap;
use std::fmt::Write as _;

use kube::Resource;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use serde_path_to_error::{Error, Segment};

use crate::{Faults, Raw};

/// Attempts at one object. Each decodes it anew, so one object costs the others a moment and no more.
const MOST: usize = 64;
/// After these attempts whole parts of the object go instead of single fields.
const FINE: usize = 48;

/// An object as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Read<K> {
    /// The object; where `faults` names a field, that field says nothing.
    pub object: K,
    /// What could not be read.
    pub faults: Faults,
}

impl<K: Resource + Default + DeserializeOwned> From<Raw> for Read<K> {
    fn from(Raw { metadata, value }: Raw) -> Self {
        let (object, mut faults) = part(value);
        if let Some(object) = object {
            return Self { object, faults };
        }
        faults.note("", "nothing but its metadata can be read");
        let mut object = K::default();
        *object.meta_mut() = metadata;
        Self { object, faults }
    }
}

/// A part of an object, read like a whole one; none where nothing can be made of it.
pub fn part<T: DeserializeOwned>(mut value: Value) -> (Option<T>, Faults) {
    let mut faults = Faults::default();
    // The usual case, without a record of where the decoder stands.
    if let Ok(part) = T::deserialize(&value) {
        return (Some(part), faults);
    }
    let mut tried = HashMap::new();
    for attempt in 0..MOST {
        let error = match serde_path_to_error::deserialize(&value) {
            Ok(part) => return (Some(part), faults),
            Err(error) => error,
        };
        if !mend(&mut value, &error, attempt >= FINE, &mut tried, &mut faults) {
            break;
        }
    }
    (None, faults)
}

/// One step from an object to a part of it.
#[derive(Clone, Debug)]
enum Step {
    Key(String),
    Index(usize),
}

/// Takes out what the decoder stumbled over, or what is around it where nothing can stand in; false when nothing is left.
fn mend(
    value: &mut Value,
    error: &Error<serde_json::Error>,
    coarse: bool,
    tried: &mut HashMap<String, usize>,
    faults: &mut Faults,
) -> bool {
    let reason = error.inner().to_string();
    let mut path = steps(error, &reason);
    faults.note(&dotted(&path), &reason);
    if coarse {
        path.truncate(2);
        faults.note(&dotted(&path), &reason);
    }
    while let Some(last) = path.last() {
        let turn = tried.entry(dotted(&path)).or_default();
        let stand_in = stand_in(*turn, &reason);
        // An item of a list is taken out, and the next one has its number then.
        *turn += usize::from(matches!(last, Step::Key(_)));
        if stand_in.is_some_and(|stand_in| put(value, &path, stand_in)) {
            return true;
        }
        path.pop();
        faults.note(&dotted(&path), &reason);
    }
    false
}

/// Where the decoder stood; a field that is missing is named by the message alone.
fn steps(error: &Error<serde_json::Error>, reason: &str) -> Vec<Step> {
    let step = |segment: &Segment| match segment {
        Segment::Map { key } => Some(Step::Key(key.clone())),
        Segment::Seq { index } => Some(Step::Index(*index)),
        Segment::Enum { .. } | Segment::Unknown => None,
    };
    let mut steps: Vec<Step> = error.path().iter().map_while(step).collect();
    let missing = reason.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
    steps.extend(missing.map(|field| Step::Key(field.to_owned())));
    steps
}

fn dotted(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        // Writing to a String cannot fail.
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => write!(text, ".{key}").unwrap_or_default(),
            Step::Index(index) => write!(text, "[{index}]").unwrap_or_default(),
        }
    }
    text
}

/// What is tried in this turn: to leave the field out (`null`), then values of every type.
fn stand_in(turn: usize, reason: &str) -> Option<Value> {
    let Some(turn) = turn.checked_sub(1) else { return Some(Value::Null) };
    let values = [json!({}), json!([]), json!(""), json!(0), json!(false), json!("1970-01-01T00:00:00Z")];
    let value = values.into_iter().nth(turn)?;
    // This message ends with a variant that would do.
    let variant = reason.strip_prefix("unknown variant").and_then(|rest| rest.rsplit('`').nth(1));
    Some(variant.map_or(value, Value::from))
}

/// Puts a value in a place, or with `null` takes the place away; false where there is no such place.
fn put(value: &mut Value, path: &[Step], new: Value) -> bool {
    let Some((last, way)) = path.split_last() else { return false };
    let place = way.iter().try_fold(value, |value, step| match step {
        Step::Key(key) => value.get_mut(key),
        Step::Index(index) => value.get_mut(index),
    });
    match (place, last, new) {
        (Some(Value::Object(map)), Step::Key(key), Value::Null) => drop(map.remove(key)),
        (Some(Value::Object(map)), Step::Key(key), new) => drop(map.insert(key.clone(), new)),
        (Some(Value::Array(items)), Step::Index(index), _) if *index < items.len() => {
            drop(items.remove(*index));
        }
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests;
