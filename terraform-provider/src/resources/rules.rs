//! What is refused before the API is asked, each beside its attribute.

use super::field::{Field, Form};
use crate::plugin::diagnostic::Diagnostics;
use crate::plugin::path::Path;
use crate::plugin::value::Value;

/// Names as the API wants them, known before it is asked.
pub(super) fn name_rules(config: &Value, diagnostics: &mut Diagnostics) {
    for (attribute, limit, dots) in [("name", 253, true), ("namespace", 63, false)] {
        let Value::String(name) = config.attribute(attribute) else { continue };
        let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let fine = !name.is_empty()
            && name.len() <= limit
            && name.bytes().all(|byte| letter(byte) || byte == b'-' || (dots && byte == b'.'))
            && name.bytes().next().is_some_and(letter)
            && name.bytes().last().is_some_and(letter);
        if !fine {
            let detail = format!(
                "{attribute} must be lower-case letters, digits and '-', at most {limit} characters, with a letter or \
                 digit at both ends, such as web-1."
            );
            diagnostics.error(Path::of(attribute), "Value of the wrong form", detail);
        }
    }
}

/// Words and sizes, wherever they stand.
pub(super) fn words(fields: &[Field], config: &Value, at: &Path, diagnostics: &mut Diagnostics) {
    for field in fields {
        let at = at.attribute(&field.attribute);
        word(&field.form, config.attribute(&field.attribute), &at, diagnostics);
    }
}

fn word(form: &Form, value: &Value, at: &Path, diagnostics: &mut Diagnostics) {
    let mut refuse = |rule: String| {
        diagnostics.error(at.clone(), "Value of the wrong form", format!("{at} must be {rule}."));
    };
    match (form, value) {
        (Form::Text(words), Value::String(word)) if !words.is_empty() && !words.contains(word) => {
            refuse(format!("one of {}", words.join(", ")));
        }
        (Form::Size, Value::String(size)) if holdfast_api::Quantity(size.clone()).bytes().is_err() => {
            refuse("a whole number of Mi, Gi or Ti, such as 2Gi".to_owned());
        }
        (Form::Whole, Value::Number(number)) if number.as_i64().is_none() => {
            refuse("a whole number".to_owned());
        }
        (Form::Object(fields), value @ Value::Object(_)) => words(fields, value, at, diagnostics),
        (Form::List(form), Value::List(elements)) => {
            for (index, element) in elements.iter().enumerate() {
                word(form, element, &at.index(index), diagnostics);
            }
        }
        _ => {}
    }
}

/// Exactly one of these attributes must be set; one that is not known yet may be it.
pub(crate) fn exactly_one(value: &Value, at: &Path, names: &[&str], diagnostics: &mut Diagnostics) {
    let Value::Object(_) = value else { return };
    let set: Vec<_> = names.iter().filter(|name| !value.attribute(name).is_null()).collect();
    let perhaps = set.iter().any(|name| !value.attribute(name).is_known());
    if set.len() != 1 && !(perhaps && set.len() > 1) {
        let names = names.join(", ");
        let detail = format!("Exactly one of {names} must be set, and {} are. Keep one of them.", set.len());
        diagnostics.error(at.clone(), "Not exactly one of several", detail);
    }
}

/// A known text must keep a rule; an empty one says nothing.
pub(crate) fn text_rule(
    value: &Value,
    at: &Path,
    rule: &str,
    keeps: impl Fn(&str) -> bool,
    diagnostics: &mut Diagnostics,
) {
    if let Value::String(text) = value
        && !keeps(text)
    {
        diagnostics.error(at.clone(), "Value of the wrong form", format!("{at} must be {rule}."));
    }
}

/// A known number must lie between two.
pub(crate) fn range_rule(value: &Value, at: &Path, least: i64, most: i64, diagnostics: &mut Diagnostics) {
    if let Value::Number(number) = value
        && !number.as_i64().is_some_and(|number| (least..=most).contains(&number))
    {
        let detail = format!("{at} must be a whole number between {least} and {most}.");
        diagnostics.error(at.clone(), "Value out of range", detail);
    }
}
