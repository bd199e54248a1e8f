//! Between our types and the protocol's messages, in both directions.

use super::codec::Mismatch;
use super::diagnostic::{Diagnostic, Diagnostics, Severity};
use super::path::{Path, Step};
use super::proto::tfplugin6 as wire;
use super::schema::{Attribute, Exposure, Nesting, Presence, Schema, Shape};
use super::ty::Type;
use super::value::Value;
use super::{json, msgpack};

/// Reads a value the host sent. No value at all is null.
pub fn value(sent: Option<wire::DynamicValue>, ty: &Type) -> Result<Value, Diagnostics> {
    let decoded = match sent {
        Some(sent) if !sent.msgpack.is_empty() => msgpack::decode(&sent.msgpack, ty),
        Some(sent) if !sent.json.is_empty() => json::decode(&sent.json, ty),
        Some(_) | None => Ok(Value::Null),
    };
    decoded.map_err(|mismatch| unreadable(&mismatch))
}

/// Writes a value for the host.
pub fn dynamic(value: &Value, ty: &Type) -> Result<wire::DynamicValue, Diagnostics> {
    let msgpack = msgpack::encode(value, ty).map_err(|mismatch| {
        let detail = format!("{mismatch}. This is a bug in the provider: please report it.");
        Diagnostics::from(Diagnostic::error(mismatch.path().clone(), "Value does not fit the schema", detail))
    })?;
    Ok(wire::DynamicValue { msgpack, json: Vec::new() })
}

/// The host sent what does not fit the schema it was given.
pub fn unreadable(mismatch: &Mismatch) -> Diagnostics {
    let detail =
        format!("{mismatch}. The value that the host sent does not fit the schema of this provider version.");
    Diagnostic::error(mismatch.path().clone(), "Value cannot be read", detail).into()
}

/// Messages for the host.
pub fn diagnostics(diagnostics: Diagnostics) -> Vec<wire::Diagnostic> {
    diagnostics.into_iter().map(diagnostic).collect()
}

fn diagnostic(diagnostic: Diagnostic) -> wire::Diagnostic {
    let Diagnostic { severity, summary, detail, path } = diagnostic;
    let severity = match severity {
        Severity::Error => wire::diagnostic::Severity::Error,
        Severity::Warning => wire::diagnostic::Severity::Warning,
    };
    let attribute = (!path.is_root()).then(|| attribute_path(&path));
    wire::Diagnostic { severity: severity.into(), summary, detail, attribute }
}

/// A path for the host.
pub fn attribute_path(path: &Path) -> wire::AttributePath {
    use wire::attribute_path::step::Selector;
    let step = |step: &Step| wire::attribute_path::Step {
        selector: Some(match step {
            Step::Attribute(name) => Selector::AttributeName(name.clone()),
            Step::Key(key) => Selector::ElementKeyString(key.clone()),
            Step::Index(index) => Selector::ElementKeyInt(i64::try_from(*index).unwrap_or(i64::MAX)),
        }),
    };
    wire::AttributePath { steps: path.steps().iter().map(step).collect() }
}

/// A schema for the host.
pub fn schema(schema: &Schema) -> wire::Schema {
    let block = wire::schema::Block {
        version: schema.version(),
        attributes: schema.attributes().iter().map(attribute).collect(),
        description: schema.description().to_owned(),
        description_kind: wire::StringKind::Markdown.into(),
        deprecated: false,
        deprecation_message: String::new(),
    };
    wire::Schema { version: schema.version(), block: Some(block) }
}

fn attribute(attribute: &Attribute) -> wire::schema::Attribute {
    let Attribute { name, shape, presence, exposure, description, deprecation } = attribute;
    let (ty, nested_type) = match shape {
        Shape::Plain(ty) => (ty.to_json().to_string().into_bytes(), None),
        Shape::Nested(nesting, attributes) => (Vec::new(), Some(object(*nesting, attributes))),
    };
    wire::schema::Attribute {
        name: name.clone(),
        r#type: ty,
        description: description.clone(),
        required: *presence == Presence::Required,
        optional: matches!(presence, Presence::Optional | Presence::OptionalComputed),
        computed: attribute.is_computed(),
        sensitive: *exposure == Exposure::Sensitive,
        description_kind: wire::StringKind::Markdown.into(),
        deprecated: deprecation.is_some(),
        nested_type,
        write_only: *exposure == Exposure::WriteOnly,
        deprecation_message: deprecation.clone().unwrap_or_default(),
    }
}

fn object(nesting: Nesting, attributes: &[Attribute]) -> wire::schema::Object {
    let mode = match nesting {
        Nesting::Single => wire::schema::object::NestingMode::Single,
        Nesting::List => wire::schema::object::NestingMode::List,
        Nesting::Map => wire::schema::object::NestingMode::Map,
    };
    wire::schema::Object { attributes: attributes.iter().map(attribute).collect(), nesting: mode.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn msgpack_wins_over_json_and_nothing_is_null() {
        let sent = |msgpack: &[u8], json: &[u8]| {
            Some(wire::DynamicValue { msgpack: msgpack.into(), json: json.into() })
        };
        assert_eq!(value(sent(b"\xa1m", b"\"j\""), &Type::String), Ok("m".into()));
        assert_eq!(value(sent(b"", b"\"j\""), &Type::String), Ok("j".into()));
        assert_eq!(value(sent(b"", b""), &Type::String), Ok(Value::Null));
        assert_eq!(value(None, &Type::String), Ok(Value::Null));
    }

    #[test]
    fn an_attribute_has_a_type_or_nested_attributes_and_never_both() {
        let name = Attribute::required("name", Type::String, "Name.");
        let plain = super::attribute(&name);
        assert_eq!((plain.r#type.as_slice(), plain.nested_type.is_none()), (br#""string""#.as_slice(), true));
        let nested = super::attribute(&Attribute::optional("disks", Shape::list(vec![name]), "Disks."));
        assert!(nested.r#type.is_empty());
        assert_eq!(nested.nested_type.unwrap().nesting, wire::schema::object::NestingMode::List as i32);
    }

    #[test]
    fn a_message_about_the_whole_has_no_path() {
        let at = |path| diagnostic(Diagnostic::error(path, "", "")).attribute;
        assert_eq!(at(Path::root()), None);
        assert_eq!(at(Path::of("disks").index(1)).unwrap().steps.len(), 2);
    }
}
