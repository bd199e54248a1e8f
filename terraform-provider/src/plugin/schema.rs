//! Schemas as data: what attributes there are. Nested attributes only, no blocks: a block cannot be null and the number
//! of blocks cannot be planned.
//!
//! What the host would refuse while loading the provider is refused here, when a schema is built, and so in a unit test.

use std::collections::BTreeMap;

use super::path::Path;
use super::ty::Type;
use super::value::Value;

mod rules;

pub use rules::{Owner, Problem};

/// The attributes of a provider, a resource or a data source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    version: i64,
    description: String,
    attributes: Vec<Attribute>,
}

/// One attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// What it may hold.
    pub shape: Shape,
    /// Who decides it.
    pub presence: Presence,
    /// Whether it is stored, and shown.
    pub exposure: Exposure,
    /// Markdown: meaning, unit, default, allowed values, effect of a change.
    pub description: String,
    /// What to use instead, if it should not be used any more.
    pub deprecation: Option<String>,
}

/// What an attribute may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// A value of that type.
    Plain(Type),
    /// Objects with attributes of their own.
    Nested(Nesting, Vec<Attribute>),
}

/// How many nested objects there are and what tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nesting {
    /// One.
    Single,
    /// Many, by position.
    List,
    /// Many, by key.
    Map,
}

/// Who decides the value of an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// The configuration, always.
    Required,
    /// The configuration; null if it says nothing.
    Optional,
    /// The provider alone.
    Computed,
    /// The configuration, and the provider where it says nothing.
    OptionalComputed,
}

/// Where the value of an attribute may be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposure {
    /// Everywhere.
    Open,
    /// In the state file, not on the screen.
    Sensitive,
    /// In the configuration alone: no plan and no state holds it.
    WriteOnly,
}

impl Schema {
    /// A schema of version 0, if the host would take it.
    pub fn new(
        owner: Owner,
        description: impl Into<String>,
        attributes: Vec<Attribute>,
    ) -> Result<Self, Problem> {
        rules::check(owner, &attributes)?;
        Ok(Self { version: 0, description: description.into(), attributes })
    }

    /// The same with a later version: states of earlier ones are upgraded.
    #[must_use]
    pub fn with_version(self, version: i64) -> Self {
        Self { version, ..self }
    }

    /// The version a state of this form is stored with.
    pub const fn version(&self) -> i64 {
        self.version
    }

    /// What it describes, in Markdown.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// The attributes.
    pub fn attributes(&self) -> &[Attribute] {
        &self.attributes
    }

    /// The type of a whole value.
    pub fn ty(&self) -> Type {
        object_type(&self.attributes)
    }

    /// The value with null for every write-only attribute, as plans and states must have it.
    #[must_use]
    pub fn without_write_only(&self, mut value: Value) -> Value {
        each_attribute(&self.attributes, &mut value, &Path::root(), &mut |attribute, _, value| {
            if attribute.exposure == Exposure::WriteOnly {
                *value = Value::Null;
            }
        });
        value
    }

    /// The paths of the write-only attributes that are set.
    pub fn write_only_set(&self, value: &Value) -> Vec<Path> {
        let mut found = Vec::new();
        each_attribute(&self.attributes, &mut value.clone(), &Path::root(), &mut |attribute, at, value| {
            if attribute.exposure == Exposure::WriteOnly && !value.is_null() {
                found.push(at.clone());
            }
        });
        found
    }
}

impl Attribute {
    /// An attribute the configuration must set.
    pub fn required(
        name: impl Into<String>,
        shape: impl Into<Shape>,
        description: impl Into<String>,
    ) -> Self {
        Self::new(name.into(), shape.into(), Presence::Required, description.into())
    }

    /// An attribute the configuration may set.
    pub fn optional(
        name: impl Into<String>,
        shape: impl Into<Shape>,
        description: impl Into<String>,
    ) -> Self {
        Self::new(name.into(), shape.into(), Presence::Optional, description.into())
    }

    /// An attribute the provider sets.
    pub fn computed(
        name: impl Into<String>,
        shape: impl Into<Shape>,
        description: impl Into<String>,
    ) -> Self {
        Self::new(name.into(), shape.into(), Presence::Computed, description.into())
    }

    /// An attribute the configuration may set, and the provider otherwise: defaults and allocated values.
    pub fn optional_computed(
        name: impl Into<String>,
        shape: impl Into<Shape>,
        description: impl Into<String>,
    ) -> Self {
        Self::new(name.into(), shape.into(), Presence::OptionalComputed, description.into())
    }

    /// The same, hidden on the screen.
    #[must_use]
    pub fn sensitive(self) -> Self {
        Self { exposure: Exposure::Sensitive, ..self }
    }

    /// The same, in no plan and no state.
    #[must_use]
    pub fn write_only(self) -> Self {
        Self { exposure: Exposure::WriteOnly, ..self }
    }

    /// The same, with a warning that says what to use instead.
    #[must_use]
    pub fn deprecated(self, instead: impl Into<String>) -> Self {
        Self { deprecation: Some(instead.into()), ..self }
    }

    /// The type of its value.
    pub fn ty(&self) -> Type {
        match &self.shape {
            Shape::Plain(ty) => ty.clone(),
            Shape::Nested(Nesting::Single, attributes) => object_type(attributes),
            Shape::Nested(Nesting::List, attributes) => Type::list(object_type(attributes)),
            Shape::Nested(Nesting::Map, attributes) => Type::map(object_type(attributes)),
        }
    }

    /// Whether the provider may decide it where the configuration says nothing.
    pub const fn is_computed(&self) -> bool {
        matches!(self.presence, Presence::Computed | Presence::OptionalComputed)
    }

    const fn new(name: String, shape: Shape, presence: Presence, description: String) -> Self {
        Self { name, shape, presence, exposure: Exposure::Open, description, deprecation: None }
    }
}

impl Shape {
    /// One nested object.
    pub const fn single(attributes: Vec<Attribute>) -> Self {
        Self::Nested(Nesting::Single, attributes)
    }

    /// A list of nested objects.
    pub const fn list(attributes: Vec<Attribute>) -> Self {
        Self::Nested(Nesting::List, attributes)
    }

    /// A map of nested objects.
    pub const fn map(attributes: Vec<Attribute>) -> Self {
        Self::Nested(Nesting::Map, attributes)
    }
}

impl From<Type> for Shape {
    fn from(ty: Type) -> Self {
        Self::Plain(ty)
    }
}

fn object_type(attributes: &[Attribute]) -> Type {
    Type::Object(attributes.iter().map(|it| (it.name.clone(), it.ty())).collect::<BTreeMap<_, _>>())
}

/// Visits the value of every attribute, the outer before the inner.
fn each_attribute(
    attributes: &[Attribute],
    value: &mut Value,
    at: &Path,
    visit: &mut dyn FnMut(&Attribute, &Path, &mut Value),
) {
    let Value::Object(values) = value else { return };
    for attribute in attributes {
        let Some(value) = values.get_mut(&attribute.name) else { continue };
        let at = at.attribute(&attribute.name);
        visit(attribute, &at, value);
        let Shape::Nested(_, inner) = &attribute.shape else { continue };
        match value {
            Value::List(elements) => {
                for (index, element) in elements.iter_mut().enumerate() {
                    each_attribute(inner, element, &at.index(index), visit);
                }
            }
            Value::Map(elements) => {
                for (key, element) in elements {
                    each_attribute(inner, element, &at.key(key), visit);
                }
            }
            object => each_attribute(inner, object, &at, visit),
        }
    }
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
