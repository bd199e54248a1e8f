//! Fields: the schema of a kind as the provider shows it. They are read from the kind's CRD, so that a field cannot be in
//! one only; what is written by hand stands in the files of the kinds.
//!
//! | in the CRD | in a configuration |
//! |---|---|
//! | `publicKey` | `public_key` |
//! | a reference `{name: x}` | `"x"` |
//! | an object without fields, such as `blank: {}`; absent | `true`; `false` |
//! | required; with a default; else | required; optional and computed; optional |
//! | a rule `self == oldSelf` | a change replaces the resource |

use holdfast_api::Quantity;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::{Map, Value as Json};
use unicode_normalization::UnicodeNormalization;

use crate::plugin::path::Path;
use crate::plugin::schema::{Attribute, Shape};
use crate::plugin::ty::Type;
use crate::plugin::value::Value;

/// The longest text of a size in the CRDs; nothing else has this limit.
const SIZE_LENGTH: i64 = 16;

/// One field.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    /// Its name in the object, such as `publicKey`; empty for one that only the provider knows.
    pub(crate) key: String,
    /// Its name in a configuration, such as `public_key`.
    pub(crate) attribute: String,
    /// What it holds.
    pub(crate) form: Form,
    /// Who decides it where the configuration says nothing.
    pub(crate) absent: Absent,
    /// Whether a change needs another object.
    pub(crate) immutable: bool,
    /// Whether no plan and no state may hold it.
    pub(crate) write_only: bool,
    /// Whether the API writes an empty object where there is none; elsewhere `{}` says something, such as `nat = {}`.
    pub(crate) hollow: bool,
    /// For people.
    pub(crate) description: String,
}

/// What a field holds.
#[derive(Debug, Clone)]
pub(crate) enum Form {
    /// Text, perhaps one of some words.
    Text(Vec<String>),
    /// A size such as `2Gi`, which can be spelled in several ways.
    Size,
    /// A whole number.
    Whole,
    /// True or false.
    Flag,
    /// The name of another object.
    Reference,
    /// An object without fields: there or not.
    Marker,
    /// Texts by their keys.
    Texts,
    /// Fields of its own.
    Object(Vec<Field>),
    /// Many, in order.
    List(Box<Form>),
}

/// What a field is where the configuration says nothing.
#[derive(Debug, Clone)]
pub(crate) enum Absent {
    /// It must say something.
    Refused,
    /// Nothing.
    Null,
    /// This, always.
    Default(Value),
    /// What it was.
    Kept,
}

/// The fields of a kind: those of its spec and those of its status.
#[derive(Debug, Clone)]
pub(crate) struct Fields {
    pub(crate) spec: Vec<Field>,
    pub(crate) status: Vec<Field>,
}

impl Fields {
    /// Those of a CRD of ours; empty for one without a schema, which a test would find.
    pub(crate) fn of(crd: &CustomResourceDefinition) -> Self {
        let version = crd.spec.versions.first();
        let schema = version.and_then(|it| it.schema.as_ref()).and_then(|it| it.open_api_v3_schema.as_ref());
        let part = |name: &str| schema.and_then(|it| it.properties.as_ref()).and_then(|it| it.get(name));
        let fields = |name| part(name).map(fields).unwrap_or_default();
        let mut spec = fields("spec");
        if part("spec").is_some_and(is_immutable) {
            for field in &mut spec {
                field.immutable = true;
            }
        }
        Self { spec, status: fields("status") }
    }
}

impl Field {
    /// A field that only the provider knows.
    pub(crate) fn own(attribute: &str, form: Form, description: &str) -> Self {
        Self {
            key: String::new(),
            attribute: attribute.to_owned(),
            form,
            absent: Absent::Null,
            immutable: false,
            write_only: false,
            hollow: false,
            description: description.to_owned(),
        }
    }

    /// The same, in no plan and no state.
    pub(crate) fn hidden(self) -> Self {
        Self { write_only: true, ..self }
    }

    /// The same with something that always stands where the configuration says nothing.
    pub(crate) fn defaulting(self, default: impl Into<Value>) -> Self {
        Self { absent: Absent::Default(default.into()), ..self }
    }

    /// Whether only the provider knows it.
    pub(crate) fn is_own(&self) -> bool {
        self.key.is_empty()
    }

    /// The attribute a configuration sets.
    pub(crate) fn configured(&self) -> Attribute {
        let (name, shape, text) = (self.attribute.as_str(), self.form.shape(Self::configured), self.told());
        let attribute = match self.absent {
            Absent::Refused => Attribute::required(name, shape, text),
            Absent::Null => Attribute::optional(name, shape, text),
            Absent::Default(_) | Absent::Kept => Attribute::optional_computed(name, shape, text),
        };
        if self.write_only { attribute.write_only() } else { attribute }
    }

    /// The attribute the provider alone sets.
    pub(crate) fn computed(&self) -> Attribute {
        Attribute::computed(self.attribute.as_str(), self.form.shape(Self::computed), self.told())
    }

    fn told(&self) -> String {
        let replaces = if self.immutable { " A change replaces the resource." } else { "" };
        match &self.form {
            Form::Text(words) if !words.is_empty() => {
                let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
                format!("{} One of {}.{replaces}", self.description, words.join(", "))
            }
            Form::Reference => format!("{} Its name.{replaces}", self.description),
            _ => format!("{}{replaces}", self.description),
        }
    }

    /// What the plan says.
    pub(crate) fn planned(&self, prior: &Value, config: &Value) -> Value {
        match (config, &self.absent) {
            (Value::Null, Absent::Default(default)) => default.clone(),
            (Value::Null, Absent::Kept) => prior.clone(),
            (config, _) => self.form.planned(prior, config),
        }
    }
}

impl Form {
    /// The type of its values.
    pub(crate) fn shape(&self, attribute: fn(&Field) -> Attribute) -> Shape {
        match self {
            Self::Object(fields) => Shape::single(fields.iter().map(attribute).collect()),
            Self::List(element) => match &**element {
                Self::Object(fields) => Shape::list(fields.iter().map(attribute).collect()),
                element => Type::list(element.plain()).into(),
            },
            plain => plain.plain().into(),
        }
    }

    fn plain(&self) -> Type {
        match self {
            Self::Whole => Type::Number,
            Self::Flag | Self::Marker => Type::Bool,
            Self::Texts => Type::map(Type::String),
            Self::List(element) => Type::list(element.plain()),
            Self::Text(_) | Self::Size | Self::Reference | Self::Object(_) => Type::String,
        }
    }

    /// As configured, with defaults, in the spelling of before where that means the same. Elements of lists are compared
    /// by position, as the host does.
    fn planned(&self, prior: &Value, config: &Value) -> Value {
        match (self, config) {
            (Self::Object(fields), Value::Object(_)) => planned_all(fields, prior, config),
            (Self::List(form), Value::List(elements)) => {
                let before = |index| match prior {
                    Value::List(prior) => prior.get(index).unwrap_or(&Value::Null),
                    _ => &Value::Null,
                };
                let element = |(index, config)| form.planned(before(index), config);
                Value::List(elements.iter().enumerate().map(element).collect())
            }
            (Self::Size, Value::String(_)) if self.same(prior, config) => prior.clone(),
            _ => config.clone(),
        }
    }

    /// Whether both mean the same.
    pub(crate) fn same(&self, one: &Value, other: &Value) -> bool {
        match (self, one, other) {
            (Self::Size, Value::String(one), Value::String(other)) => {
                let bytes = |text: &str| Quantity::from(text).bytes().ok();
                one == other || (bytes(one).is_some() && bytes(one) == bytes(other))
            }
            (Self::Marker, one, other) => (*one == Value::Bool(true)) == (*other == Value::Bool(true)),
            (Self::Object(fields), one, other) => {
                let same =
                    |it: &Field| it.form.same(one.attribute(&it.attribute), other.attribute(&it.attribute));
                one.is_null() == other.is_null() && fields.iter().all(same)
            }
            (Self::List(form), Value::List(one), Value::List(other)) => {
                one.len() == other.len() && one.iter().zip(other).all(|(one, other)| form.same(one, other))
            }
            (_, one, other) => one == other || (is_empty(one) && is_empty(other)),
        }
    }

    /// The part of an object, or nothing where there is nothing to say.
    pub(crate) fn json(&self, value: &Value) -> Option<Json> {
        match (self, value) {
            (Self::Marker, value) => (*value == Value::Bool(true)).then(|| Map::new().into()),
            (Self::Object(fields), Value::Object(_)) => Some(json_all(fields, value).into()),
            (Self::List(form), Value::List(elements)) => {
                Some(elements.iter().filter_map(|element| form.json(element)).collect())
            }
            (Self::Reference, Value::String(name)) => Some(serde_json::json!({ "name": name })),
            (_, Value::String(text)) => Some(text.as_str().into()),
            (_, Value::Bool(flag)) => Some((*flag).into()),
            (_, Value::Number(number)) => number.as_i64().map(Json::from),
            (_, Value::Map(_)) => crate::plugin::json::encode(value).ok(),
            _ => None,
        }
    }

    /// The value of a part of an object. What the object says in another form than its kind has is left out.
    pub(crate) fn value(&self, json: &Json) -> Value {
        match (self, json) {
            (Self::Marker, Json::Object(_)) => Value::Bool(true),
            (Self::Object(fields), Json::Object(_)) => value_all(fields, json),
            (Self::List(form), Json::Array(elements)) => {
                Value::List(elements.iter().map(|element| form.value(element)).collect())
            }
            (Self::Reference, Json::Object(_)) => json["name"].as_str().map_or(Value::Null, normal),
            (Self::Text(_) | Self::Size, Json::String(text)) => normal(text),
            (Self::Flag, Json::Bool(flag)) => (*flag).into(),
            (Self::Whole, Json::Number(number)) => number.as_i64().map(Value::from).into(),
            (Self::Texts, Json::Object(_)) => {
                let ty = Type::map(Type::String);
                let lenient = crate::plugin::json::Attributes::Lenient;
                let texts = crate::plugin::json::typed(json, &ty, lenient).unwrap_or(Value::Null);
                match texts {
                    Value::Map(texts) => {
                        let texts = texts.into_iter().map(|(key, it)| (key, normal(&super::kind::text(&it))));
                        Value::Map(texts.collect())
                    }
                    other => other,
                }
            }
            _ => Value::Null,
        }
    }

    /// What is there, in the spelling of what was known where that means the same.
    pub(crate) fn spelled(&self, known: &Value, live: Value) -> Value {
        match (self, known, live) {
            (_, Value::Unknown(_), live) => live,
            (Self::Object(fields), known, live @ Value::Object(_)) => spelled_all(fields, known, &live),
            (Self::Object(_), _, live) => live,
            (Self::List(form), known, Value::List(live)) if !live.is_empty() => {
                let known: &[Value] = if let Value::List(known) = known { known } else { &[] };
                let known = |index, live: &Value| {
                    named(known, live).or_else(|| known.get(index)).unwrap_or(&Value::Null)
                };
                let element = |(index, live)| form.spelled(known(index, &live), live);
                Value::List(live.into_iter().enumerate().map(element).collect())
            }
            (_, known, live) if self.same(known, &live) => known.clone(),
            (_, _, live) if is_empty(&live) => Value::Null,
            (_, _, live) => live,
        }
    }
}

/// The values of these fields in the plan.
pub(crate) fn planned_all(fields: &[Field], prior: &Value, config: &Value) -> Value {
    let planned = |field: &Field| {
        let (prior, config) = (prior.attribute(&field.attribute), config.attribute(&field.attribute));
        (field.attribute.clone(), field.planned(prior, config))
    };
    Value::Object(fields.iter().map(planned).collect())
}

/// An object of these fields.
pub(crate) fn json_all(fields: &[Field], value: &Value) -> Map<String, Json> {
    let part = |field: &Field| {
        let json = field.form.json(value.attribute(&field.attribute))?;
        Some((field.key.clone(), json))
    };
    fields.iter().filter(|field| !field.is_own()).filter_map(part).collect()
}

/// The values of these fields in an object.
pub(crate) fn value_all(fields: &[Field], json: &Json) -> Value {
    let part = |field: &Field| {
        let json = json.get(&field.key).filter(|_| !field.is_own());
        (field.attribute.clone(), json.map_or(Value::Null, |json| field.form.value(json)))
    };
    Value::Object(fields.iter().map(part).collect())
}

/// The values of these fields, in the known spelling; the object knows nothing of the provider's own.
pub(crate) fn spelled_all(fields: &[Field], known: &Value, live: &Value) -> Value {
    let part = |field: &Field| {
        let (known, live) = (known.attribute(&field.attribute), live.attribute(&field.attribute));
        let value = match (&field.absent, known) {
            (Absent::Default(default), Value::Null) if field.is_own() => default.clone(),
            _ if field.is_own() => if known.is_null() { live } else { known }.clone(),
            _ if field.hollow && known.is_null() && is_empty(live) => Value::Null,
            // A default that the object does not repeat holds nevertheless.
            (Absent::Default(default), _) if live.is_null() => default.clone(),
            _ => field.form.spelled(known, live.clone()),
        };
        (field.attribute.clone(), value)
    };
    Value::Object(fields.iter().map(part).collect())
}

/// The attribute that a field of an object is, such as `disks[0].size` for `disks[0].size`; as far as there is one.
pub(crate) fn path_of(fields: &[Field], field: &str) -> Path {
    let mut at = Path::root();
    let mut among = Some(fields);
    for part in field.split('.') {
        let (key, index) = part.split_once('[').unwrap_or((part, ""));
        let Some(found) = among.and_then(|among| among.iter().find(|it| it.key == key)) else { break };
        at = at.attribute(&found.attribute);
        if let Ok(index) = index.trim_end_matches(']').parse() {
            at = at.index(index);
        }
        among = match &found.form {
            Form::Object(inner) => Some(inner),
            Form::List(element) => match &**element {
                Form::Object(inner) => Some(inner),
                _ => None,
            },
            _ => None,
        };
    }
    at
}

/// A text of the API in the form that the host gives to all texts: Unicode has several for the same letters.
pub(crate) fn normal(text: &str) -> Value {
    text.nfc().collect::<String>().into()
}

/// Nothing to say: null, or empty in whatever way.
pub(crate) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::List(elements) => elements.is_empty(),
        Value::Map(elements) => elements.is_empty(),
        Value::Object(attributes) => attributes.values().all(is_empty),
        Value::Bool(_) | Value::Number(_) | Value::Unknown(_) => false,
    }
}

/// The element of the same name.
pub(crate) fn named<'a>(elements: &'a [Value], like: &Value) -> Option<&'a Value> {
    let name = like.attribute("name");
    elements.iter().find(|it| !name.is_null() && it.attribute("name") == name)
}

fn fields(schema: &JSONSchemaProps) -> Vec<Field> {
    let required = schema.required.as_deref().unwrap_or_default();
    let properties = schema.properties.iter().flatten();
    properties.map(|(key, schema)| field(key, schema, required.contains(key))).collect()
}

fn field(key: &str, schema: &JSONSchemaProps, required: bool) -> Field {
    let form = form(schema);
    let default = schema.default.as_ref().map(|default| form.value(&default.0));
    let hollow = matches!(default, Some(Value::Object(_)));
    let absent = match default {
        _ if required => Absent::Refused,
        Some(default) if !is_empty(&default) => Absent::Default(default),
        // What an object does not have: null and false are the same there, so one of them must be meant.
        None if matches!(form, Form::Marker) => Absent::Default(false.into()),
        _ => Absent::Null,
    };
    let description = schema.description.clone().unwrap_or_else(|| key.to_owned());
    Field {
        key: key.to_owned(),
        attribute: snake(key),
        form,
        absent,
        immutable: is_immutable(schema),
        write_only: false,
        hollow,
        description,
    }
}

fn form(schema: &JSONSchemaProps) -> Form {
    match schema.type_.as_deref() {
        Some("boolean") => Form::Flag,
        Some("integer") => Form::Whole,
        Some("array") => {
            let element = match &schema.items {
                Some(JSONSchemaPropsOrArray::Schema(element)) => form(element),
                _ => Form::Text(Vec::new()),
            };
            Form::List(Box::new(element))
        }
        Some("object") => object(schema),
        _ if schema.max_length == Some(SIZE_LENGTH) => Form::Size,
        _ => {
            let words = schema.enum_.iter().flatten();
            Form::Text(words.filter_map(|word| word.0.as_str().map(str::to_owned)).collect())
        }
    }
}

fn object(schema: &JSONSchemaProps) -> Form {
    let inner = fields(schema);
    match inner.as_slice() {
        [] if matches!(schema.additional_properties, Some(JSONSchemaPropsOrBool::Schema(_))) => Form::Texts,
        [] => Form::Marker,
        [only] if only.key == "name" => Form::Reference,
        _ => Form::Object(inner),
    }
}

fn is_immutable(schema: &JSONSchemaProps) -> bool {
    schema.x_kubernetes_validations.iter().flatten().any(|it| it.rule == "self == oldSelf")
}

/// `publicKey` as `public_key`.
pub(crate) fn snake(key: &str) -> String {
    let mut name = String::new();
    for letter in key.chars() {
        if letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt;

    use super::*;

    #[test]
    fn an_empty_object_says_something_unless_the_api_writes_it_by_itself() {
        let network = Fields::of(&holdfast_api::VirtualMachineNetwork::crd()).spec;
        let live = value_all(&network, &serde_json::json!({"nat": {}}));
        let imported = spelled_all(&network, &Value::Null, &live);
        assert!(!imported.attribute("nat").is_null() && imported.attribute("isolated").is_null());
        let nat = &network.iter().find(|field| field.attribute == "nat").unwrap().form;
        assert!(!nat.same(imported.attribute("nat"), &Value::Null));

        let machine = Fields::of(&holdfast_api::VirtualMachine::crd()).spec;
        let live = value_all(&machine, &serde_json::json!({"cloudInit": {}}));
        assert!(spelled_all(&machine, &Value::Null, &live).attribute("cloud_init").is_null());
    }

    #[test]
    fn rule_4_a_text_is_the_same_in_every_unicode_form() {
        let (composed, taken_apart) = ("M\u{fc}ller", "Mu\u{308}ller");
        let text = Form::Text(Vec::new());
        assert_eq!(text.value(&taken_apart.into()), Value::from(composed));
        let texts = Value::Map([("a".to_owned(), Value::from(composed))].into());
        assert_eq!(Form::Texts.value(&serde_json::json!({"a": taken_apart})), texts);
        assert_eq!(text.value(&"#cloud-config\n".into()), Value::from("#cloud-config\n"));
    }
}
