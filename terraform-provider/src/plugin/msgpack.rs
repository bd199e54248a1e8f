//! Values as msgpack: the encoding the host sends and the only one we send
//! (opentofu:docs/plugin-protocol/object-wire-format.md, terraform-plugin-go:tftypes/value_msgpack.go).

use std::collections::BTreeMap;

use rmpv::Value as Wire;

use super::codec::{Mismatch, in_set_order};
use super::number::Number;
use super::path::Step;
use super::ty::Type;
use super::value::{Refinement, Value};

/// The parser counts two for each level of nesting and reserves memory for a level before it has read it. No schema of
/// ours comes near.
const DEPTH: usize = 64;

/// The extension type of an unknown value about which something is known; any other code is a plain unknown.
const REFINED: i8 = 12;

/// The key, in the map beside a refined unknown, of whether it will be null.
const NULLNESS: u64 = 1;

/// Reads a value of that type.
pub fn decode(mut bytes: &[u8], ty: &Type) -> Result<Value, Mismatch> {
    let wire = rmpv::decode::read_value_with_max_depth(&mut bytes, DEPTH)
        .map_err(|_| Mismatch::new("the bytes are not msgpack, or nested too deep"))?;
    if !bytes.is_empty() {
        return Err(Mismatch::new("bytes are left after the value"));
    }
    typed(wire, ty)
}

/// Writes a value of that type.
pub fn encode(value: &Value, ty: &Type) -> Result<Vec<u8>, Mismatch> {
    let wire = untyped(value, ty)?;
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, &wire)
        .map_err(|_| Mismatch::new("could not write the value as msgpack"))?;
    Ok(bytes)
}

fn typed(wire: Wire, ty: &Type) -> Result<Value, Mismatch> {
    match (wire, ty) {
        (Wire::Nil, _) => Ok(Value::Null),
        (Wire::Ext(code, payload), _) => Ok(Value::Unknown(refinement(code, &payload))),
        (Wire::Boolean(value), Type::Bool) => Ok(Value::Bool(value)),
        (Wire::String(text), Type::String) => {
            text.into_str().map(Value::String).ok_or_else(|| Mismatch::new("the text is not UTF-8"))
        }
        (wire, Type::Number) => number(&wire),
        (Wire::Array(elements), Type::List(ty)) => list(elements, ty).map(Value::List),
        (Wire::Array(elements), Type::Set(ty)) => Ok(Value::List(in_set_order(list(elements, ty)?))),
        (Wire::Map(elements), Type::Map(ty)) => map(elements, ty).map(Value::Map),
        (Wire::Map(attributes), Type::Object(types)) => object(attributes, types).map(Value::Object),
        (_, ty) => Err(Mismatch::expected(ty)),
    }
}

fn refinement(code: i8, mut payload: &[u8]) -> Refinement {
    let Ok(Wire::Map(known)) = rmpv::decode::read_value_with_max_depth(&mut payload, 8) else {
        return Refinement::None;
    };
    let not_null =
        |(key, value): &(Wire, Wire)| key.as_u64() == Some(NULLNESS) && value.as_bool() == Some(false);
    if code == REFINED && known.iter().any(not_null) { Refinement::NotNull } else { Refinement::None }
}

/// A number comes as integer, as float, or as decimal text where neither is exact.
fn number(wire: &Wire) -> Result<Value, Mismatch> {
    let invalid = |error: super::number::Invalid| Mismatch::new(error.to_string());
    let number = match wire {
        Wire::Integer(integer) => match (integer.as_i64(), integer.as_u64()) {
            (Some(signed), _) => signed.into(),
            (None, Some(unsigned)) => unsigned.into(),
            (None, None) => return Err(Mismatch::expected(&Type::Number)),
        },
        Wire::F32(float) => Number::try_from(f64::from(*float)).map_err(invalid)?,
        Wire::F64(float) => Number::try_from(*float).map_err(invalid)?,
        Wire::String(text) => {
            let text = text.as_str().ok_or_else(|| Mismatch::expected(&Type::Number))?;
            text.parse().map_err(invalid)?
        }
        _ => return Err(Mismatch::expected(&Type::Number)),
    };
    Ok(Value::Number(number))
}

fn list(elements: Vec<Wire>, ty: &Type) -> Result<Vec<Value>, Mismatch> {
    let element = |(index, wire)| typed(wire, ty).map_err(|error| error.inside(Step::Index(index)));
    elements.into_iter().enumerate().map(element).collect()
}

fn map(elements: Vec<(Wire, Wire)>, ty: &Type) -> Result<BTreeMap<String, Value>, Mismatch> {
    let mut found = BTreeMap::new();
    for (key, wire) in elements {
        let key = name(key)?;
        let value = typed(wire, ty).map_err(|error| error.inside(Step::Key(key.clone())))?;
        found.insert(key, value);
    }
    Ok(found)
}

/// Every attribute must be there, and no other.
fn object(
    attributes: Vec<(Wire, Wire)>,
    types: &BTreeMap<String, Type>,
) -> Result<BTreeMap<String, Value>, Mismatch> {
    let mut found = BTreeMap::new();
    for (key, wire) in attributes {
        let key = name(key)?;
        let inside = |error: Mismatch| error.inside(Step::Attribute(key.clone()));
        let ty = types.get(&key).ok_or_else(|| inside(Mismatch::new("the schema has no such attribute")))?;
        let value = typed(wire, ty).map_err(inside)?;
        found.insert(key, value);
    }
    match types.keys().find(|name| !found.contains_key(*name)) {
        Some(missing) => {
            Err(Mismatch::new("the attribute is missing").inside(Step::Attribute(missing.clone())))
        }
        None => Ok(found),
    }
}

fn name(key: Wire) -> Result<String, Mismatch> {
    match key {
        Wire::String(text) => text.into_str(),
        _ => None,
    }
    .ok_or_else(|| Mismatch::new("a key is not text"))
}

fn untyped(value: &Value, ty: &Type) -> Result<Wire, Mismatch> {
    match (value, ty) {
        (Value::Null, _) => Ok(Wire::Nil),
        (Value::Unknown(Refinement::None), _) => Ok(Wire::Ext(0, vec![0])),
        // A map of one entry: 1, whether it is null, is false.
        (Value::Unknown(Refinement::NotNull), _) => Ok(Wire::Ext(REFINED, vec![0x81, 0x01, 0xc2])),
        (Value::Bool(value), Type::Bool) => Ok(Wire::Boolean(*value)),
        (Value::Number(number), Type::Number) => Ok(wire_number(number)),
        (Value::String(text), Type::String) => Ok(Wire::from(text.as_str())),
        (Value::List(elements), Type::List(ty)) => wire_list(elements, ty),
        (Value::List(elements), Type::Set(ty)) => wire_list(&in_set_order(elements.clone()), ty),
        (Value::Map(elements), Type::Map(ty)) => wire_map(elements, ty),
        (Value::Object(attributes), Type::Object(types)) => wire_object(attributes, types),
        (_, ty) => Err(Mismatch::expected(ty)),
    }
}

fn wire_number(number: &Number) -> Wire {
    match (number.as_i64(), number.as_exact_f64()) {
        (Some(integer), _) => Wire::from(integer),
        (None, Some(float)) => Wire::F64(float),
        (None, None) => Wire::from(number.to_string()),
    }
}

fn wire_list(elements: &[Value], ty: &Type) -> Result<Wire, Mismatch> {
    let element = |(index, value)| untyped(value, ty).map_err(|error| error.inside(Step::Index(index)));
    elements.iter().enumerate().map(element).collect::<Result<_, _>>().map(Wire::Array)
}

fn wire_map(elements: &BTreeMap<String, Value>, ty: &Type) -> Result<Wire, Mismatch> {
    let element = |(key, value): (&String, &Value)| {
        let wire = untyped(value, ty).map_err(|error| error.inside(Step::Key(key.clone())))?;
        Ok((Wire::from(key.as_str()), wire))
    };
    elements.iter().map(element).collect::<Result<_, _>>().map(Wire::Map)
}

fn wire_object(
    attributes: &BTreeMap<String, Value>,
    types: &BTreeMap<String, Type>,
) -> Result<Wire, Mismatch> {
    let inside = |name: &str, error: Mismatch| error.inside(Step::Attribute(name.to_owned()));
    if let Some(extra) = attributes.keys().find(|name| !types.contains_key(*name)) {
        return Err(inside(extra, Mismatch::new("the schema has no such attribute")));
    }
    let attribute = |(name, ty): (&String, &Type)| {
        let value = attributes.get(name);
        let value = value.ok_or_else(|| inside(name, Mismatch::new("the attribute is missing")))?;
        Ok((Wire::from(name.as_str()), untyped(value, ty).map_err(|error| inside(name, error))?))
    };
    types.iter().map(attribute).collect::<Result<_, _>>().map(Wire::Map)
}
