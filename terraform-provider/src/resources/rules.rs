//! What is refused before the API is asked, each beside its attribute.

use super::field::{Field, Form};
use crate::plugin::diagnostic::Diagnostics;
use crate::plugin::path::Path;
use crate::plugin::value::Value;

/// Names as the API wants them, known before it is asked.
pub(super) fn name_rules(config: &Value, is_host: bool, diagnostics: &mut Diagnostics) {
    let limit = if is_host { 63 } else { 253 };
    for (attribute, limit, dots) in [("name", limit, !is_host), ("namespace", 63, false)] {
        let Value::String(name) = config.attribute(attribute) else { continue };
        let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let fine = !name.is_empty()
            && name.len() <= limit
            && name.bytes().all(|byte| letter(byte) || byte == b'-' || (dots && byte == b'.'))
            && name.bytes().next().is_some_and(letter)
            && name.bytes().last().is_some_and(letter);
        if !fine {
            let signs = if dots { "digits, '-' and '.'" } else { "digits and '-'" };
            let detail = format!(
                "{attribute} must be lower-case letters, {signs}, at most {limit} characters, with a letter or digit at \
                 both ends, such as web-1."
            );
            diagnostics.error(Path::of(attribute), "Value of the wrong form", detail);
        }
    }
}

/// Labels and annotations as the API wants them. A map's element is named by its key.
pub(super) fn label_rules(config: &Value, diagnostics: &mut Diagnostics) {
    for (attribute, is_label) in [("labels", true), ("annotations", false)] {
        let Value::Map(entries) = config.attribute(attribute) else { continue };
        for (key, value) in entries {
            let at = Path::of(attribute).key(key);
            if !is_qualified(key) {
                let detail = format!(
                    "{at} must have a key of letters, digits, '-', '_' and '.', at most 63 characters, with a letter or \
                     digit at both ends, and perhaps a domain and '/' before it, such as team or example.org/team."
                );
                diagnostics.error(at, "Value of the wrong form", detail);
            } else if let Value::String(text) = value
                && is_label
                && !(text.is_empty() || is_word(text))
            {
                let detail = format!(
                    "{at} must be letters, digits, '-', '_' and '.', at most 63 characters, with a letter or digit at \
                     both ends, such as edge-1. Put other text into annotations."
                );
                diagnostics.error(at, "Value of the wrong form", detail);
            }
        }
    }
}

fn is_qualified(key: &str) -> bool {
    let domain = |text: &str| {
        let part = |part: &str| {
            let byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            is_word(part) && part.bytes().all(byte)
        };
        text.len() <= 253 && text.split('.').all(part)
    };
    match key.split_once('/') {
        Some((before, name)) => domain(before) && is_word(name),
        None => is_word(key),
    }
}

fn is_word(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric();
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|byte| plain(*byte) || b"-_.".contains(byte))
        && [bytes.first(), bytes.last()].into_iter().flatten().all(|byte| plain(*byte))
}

/// Words and whole numbers, wherever they stand.
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

/// Addresses that are listed for an interface of a guest.
pub(super) fn address_rules(config: &Value, diagnostics: &mut Diagnostics) {
    let Value::List(interfaces) = config.attribute("interfaces") else { return };
    for (index, interface) in interfaces.iter().enumerate() {
        let Value::List(addresses) = interface.attribute("addresses") else { continue };
        let at = Path::of("interfaces").index(index).attribute("addresses");
        for (index, address) in addresses.iter().enumerate() {
            let Value::String(text) = address else { continue };
            if let Err(bad) = holdfast_api::address::parse(text) {
                let at = at.index(index);
                diagnostics.error(at.clone(), "Value of the wrong form", format!("{at} {bad}."));
            }
        }
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
