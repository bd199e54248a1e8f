//! Values as JSON: the form of the state file, and the host's second encoding. JSON has no unknown values.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::codec::{Mismatch, in_set_order};
use super::number::Number;
use super::path::Step;
use super::ty::Type;
use super::value::Value;

/// How well an object must match its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attributes {
    /// Every attribute is there, and no other.
    Exact,
    /// Others are dropped and missing ones are null: a state written by another version of the provider.
    Lenient,
}

/// Reads a value of that type from JSON text.
pub fn decode(text: &[u8], ty: &Type) -> Result<Value, Mismatch> {
    typed(&parse(text)?, ty, Attributes::Exact)
}

/// Reads JSON text. Its parser bounds the depth of nesting to 128.
pub fn parse(text: &[u8]) -> Result<Json, Mismatch> {
    serde_json::from_slice(text).map_err(|_| Mismatch::new("the text is not JSON, or nested too deep"))
}

/// Reads a value of that type from parsed JSON.
pub fn typed(json: &Json, ty: &Type, attributes: Attributes) -> Result<Value, Mismatch> {
    match (json, ty) {
        (Json::Null, _) => Ok(Value::Null),
        (Json::Bool(value), Type::Bool) => Ok(Value::Bool(*value)),
        // By way of its digits: 0.1 is meant, not the binary fraction nearest to it.
        (Json::Number(number), Type::Number) => decimal(&number.to_string()),
        (Json::String(digits), Type::Number) => decimal(digits),
        (Json::String(text), Type::String) => Ok(Value::String(text.clone())),
        (Json::Array(elements), Type::List(ty)) => list(elements, ty, attributes).map(Value::List),
        (Json::Array(elements), Type::Set(ty)) => {
            Ok(Value::List(in_set_order(list(elements, ty, attributes)?)))
        }
        (Json::Object(elements), Type::Map(ty)) => map(elements, ty, attributes),
        (Json::Object(found), Type::Object(types)) => object(found, types, attributes),
        (_, ty) => Err(Mismatch::expected(ty)),
    }
}

/// Writes a value. What is unknown cannot be written.
pub fn encode(value: &Value) -> Result<Json, Mismatch> {
    match value {
        Value::Null => Ok(Json::Null),
        Value::Unknown(_) => Err(Mismatch::new("an unknown value has no form in JSON")),
        Value::Bool(value) => Ok(Json::Bool(*value)),
        Value::Number(number) => Ok(json_number(number)),
        Value::String(text) => Ok(text.as_str().into()),
        Value::List(elements) => {
            let element = |(index, value)| encode(value).map_err(|error| error.inside(Step::Index(index)));
            elements.iter().enumerate().map(element).collect::<Result<_, _>>().map(Json::Array)
        }
        Value::Map(parts) => encode_all(parts, Step::Key),
        Value::Object(parts) => encode_all(parts, Step::Attribute),
    }
}

/// As a number where its digits are exact, else as text, which the host takes too.
fn json_number(number: &Number) -> Json {
    let short = |float| {
        serde_json::Number::from_f64(float).filter(|it| it.to_string().parse().as_ref() == Ok(number))
    };
    match (number.as_i64(), number.as_exact_f64().and_then(short)) {
        (Some(integer), _) => integer.into(),
        (None, Some(float)) => Json::Number(float),
        (None, None) => number.to_string().into(),
    }
}

fn encode_all(parts: &BTreeMap<String, Value>, step: fn(String) -> Step) -> Result<Json, Mismatch> {
    let part = |(name, value): (&String, &Value)| {
        let json = encode(value).map_err(|error| error.inside(step(name.clone())))?;
        Ok((name.clone(), json))
    };
    parts.iter().map(part).collect::<Result<_, _>>().map(Json::Object)
}

fn decimal(digits: &str) -> Result<Value, Mismatch> {
    digits
        .parse()
        .map(Value::Number)
        .map_err(|error: super::number::Invalid| Mismatch::new(error.to_string()))
}

fn list(elements: &[Json], ty: &Type, attributes: Attributes) -> Result<Vec<Value>, Mismatch> {
    let element =
        |(index, json)| typed(json, ty, attributes).map_err(|error| error.inside(Step::Index(index)));
    elements.iter().enumerate().map(element).collect()
}

fn map(
    elements: &serde_json::Map<String, Json>,
    ty: &Type,
    attributes: Attributes,
) -> Result<Value, Mismatch> {
    let element = |(key, json): (&String, &Json)| {
        let value = typed(json, ty, attributes).map_err(|error| error.inside(Step::Key(key.clone())))?;
        Ok((key.clone(), value))
    };
    elements.iter().map(element).collect::<Result<_, _>>().map(Value::Map)
}

fn object(
    found: &serde_json::Map<String, Json>,
    types: &BTreeMap<String, Type>,
    attributes: Attributes,
) -> Result<Value, Mismatch> {
    let inside = |name: &str, error: Mismatch| error.inside(Step::Attribute(name.to_owned()));
    let extra = found.keys().find(|name| !types.contains_key(*name));
    if let (Attributes::Exact, Some(extra)) = (attributes, extra) {
        return Err(inside(extra, Mismatch::new("the schema has no such attribute")));
    }
    let attribute = |(name, ty): (&String, &Type)| match (found.get(name), attributes) {
        (Some(json), _) => {
            let value = typed(json, ty, attributes).map_err(|error| inside(name, error))?;
            Ok((name.clone(), value))
        }
        (None, Attributes::Lenient) => Ok((name.clone(), Value::Null)),
        (None, Attributes::Exact) => Err(inside(name, Mismatch::new("the attribute is missing"))),
    };
    types.iter().map(attribute).collect::<Result<_, _>>().map(Value::Object)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plugin::samples;

    fn machine() -> Type {
        Type::Object(BTreeMap::from([("cpu".into(), Type::Number), ("name".into(), Type::String)]))
    }

    #[test]
    fn a_state_of_another_version_loses_what_is_unknown_and_gains_nulls() {
        let state = parse(br#"{"name":"web","memory":"4Gi"}"#).unwrap();
        let value = typed(&state, &machine(), Attributes::Lenient).unwrap();
        assert_eq!(value, Value::object([("cpu", Value::Null), ("name", "web".into())]));
        let refusal = typed(&state, &machine(), Attributes::Exact).unwrap_err();
        assert_eq!(refusal.to_string(), "memory: the schema has no such attribute");
    }

    #[test]
    fn a_fraction_keeps_its_decimal_digits() {
        let value = decode(b"0.1", &Type::Number).unwrap();
        assert_eq!(value, Value::Number("0.1".parse().unwrap()));
    }

    #[test]
    fn a_mismatch_names_its_place_and_never_the_value() {
        let refusal = decode(br#"{"name":"web","cpu":"hunter2"}"#, &machine()).unwrap_err();
        assert_eq!(refusal.to_string(), "cpu: the text is not a decimal number");
        assert!(decode("[".repeat(1000).as_bytes(), &machine()).is_err());
    }

    proptest! {
        #[test]
        fn every_known_value_survives_the_round_trip((ty, value) in samples::known_value()) {
            let json = encode(&value).unwrap();
            prop_assert_eq!(typed(&json, &ty, Attributes::Exact).unwrap(), value);
        }
    }
}
