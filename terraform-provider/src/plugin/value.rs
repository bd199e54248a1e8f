//! Values: what the host and we exchange. Every part of one may be null, or unknown until something is applied.

use std::collections::BTreeMap;

use super::number::Number;

/// One value, with whatever is in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// Absent: not configured, or not there.
    Null,
    /// Decided only by the apply.
    Unknown(Refinement),
    /// True or false.
    Bool(bool),
    /// A number.
    Number(Number),
    /// Text.
    String(String),
    /// The elements of a list; those of a set are in order and without repetition, so that equal sets are equal.
    List(Vec<Value>),
    /// Elements by their keys, all of one type.
    Map(BTreeMap<String, Value>),
    /// Attributes by their names; every one is there, if only as null.
    Object(BTreeMap<String, Value>),
}

/// What is known about an unknown value. More can be said on the wire; ignoring it is always safe.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refinement {
    /// Nothing.
    #[default]
    None,
    /// It will not be null, so that `== null` in a condition is decided at plan. The apply must keep the promise.
    NotNull,
}

impl Value {
    /// An unknown value of which nothing is known.
    pub const UNKNOWN: Self = Self::Unknown(Refinement::None);

    /// An unknown value that will be there.
    pub const UNKNOWN_NOT_NULL: Self = Self::Unknown(Refinement::NotNull);

    /// An object of these attributes.
    pub fn object<N: Into<String>>(attributes: impl IntoIterator<Item = (N, Self)>) -> Self {
        Self::Object(attributes.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }

    /// Whether it is absent.
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Whether it is decided, at its root.
    pub const fn is_known(&self) -> bool {
        !matches!(self, Self::Unknown(_))
    }

    /// Whether nothing in it is unknown.
    pub fn is_wholly_known(&self) -> bool {
        match self {
            Self::Unknown(_) => false,
            Self::List(elements) => elements.iter().all(Self::is_wholly_known),
            Self::Map(elements) | Self::Object(elements) => elements.values().all(Self::is_wholly_known),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::String(_) => true,
        }
    }

    /// The attribute of an object; null where there is none.
    pub fn attribute(&self, name: &str) -> &Self {
        match self {
            Self::Object(attributes) => attributes.get(name).unwrap_or(&Self::Null),
            Self::Unknown(_) => &Self::UNKNOWN,
            _ => &Self::Null,
        }
    }

    /// The same with null for all that is unknown: what is left after an apply that failed half-way.
    #[must_use]
    pub fn without_unknown(self) -> Self {
        let all = |parts: BTreeMap<String, Self>| {
            parts.into_iter().map(|(key, part)| (key, part.without_unknown())).collect()
        };
        match self {
            Self::Unknown(_) => Self::Null,
            Self::List(elements) => Self::List(elements.into_iter().map(Self::without_unknown).collect()),
            Self::Map(elements) => Self::Map(all(elements)),
            Self::Object(attributes) => Self::Object(all(attributes)),
            known => known,
        }
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Number(value.into())
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        i64::from(value).into()
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        i64::from(value).into()
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Number(value.into())
    }
}

impl From<Number> for Value {
    fn from(value: Number) -> Self {
        Self::Number(value)
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::String(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::String(value.to_owned())
    }
}

/// Null for `None`.
impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A list, or a set: the codec puts the elements of a set in order.
impl<T: Into<Self>> From<Vec<T>> for Value {
    fn from(elements: Vec<T>) -> Self {
        Self::List(elements.into_iter().map(Into::into).collect())
    }
}

/// A map.
impl<T: Into<Self>> From<BTreeMap<String, T>> for Value {
    fn from(elements: BTreeMap<String, T>) -> Self {
        Self::Map(elements.into_iter().map(|(key, element)| (key, element.into())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_unknown_part_makes_the_whole_not_wholly_known() {
        let value = Value::object([("disks", Value::List(vec![Value::UNKNOWN]))]);
        assert!(value.is_known());
        assert!(!value.is_wholly_known());
        assert_eq!(value.without_unknown(), Value::object([("disks", Value::List(vec![Value::Null]))]));
    }

    #[test]
    fn an_attribute_of_an_unknown_object_is_unknown_and_of_a_null_one_null() {
        assert_eq!(Value::UNKNOWN.attribute("name"), &Value::UNKNOWN);
        assert_eq!(Value::Null.attribute("name"), &Value::Null);
        assert_eq!(Value::object([("name", "web".into())]).attribute("name"), &Value::from("web"));
    }
}
