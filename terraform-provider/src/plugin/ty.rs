//! Types of values. On the wire a type is JSON: `"string"`, `["list","number"]`, `["object",{"name":"string"}]`.

use std::collections::BTreeMap;

use serde_json::json;

/// The type of a value. The host's "any" type is left out: no attribute of ours is untyped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    /// True or false.
    Bool,
    /// A number of any size.
    Number,
    /// Text.
    String,
    /// Ordered elements of one type.
    List(Box<Type>),
    /// Unordered elements of one type, each once.
    Set(Box<Type>),
    /// Elements of one type by their keys.
    Map(Box<Type>),
    /// Named attributes, each with its type.
    Object(BTreeMap<String, Type>),
}

impl Type {
    /// A list of elements of that type.
    pub fn list(element: Self) -> Self {
        Self::List(Box::new(element))
    }

    /// A set of elements of that type.
    pub fn set(element: Self) -> Self {
        Self::Set(Box::new(element))
    }

    /// A map to elements of that type.
    pub fn map(element: Self) -> Self {
        Self::Map(Box::new(element))
    }

    /// What a value of this type is called in a message to a user.
    pub const fn noun(&self) -> &'static str {
        match self {
            Self::Bool => "true or false",
            Self::Number => "a number",
            Self::String => "a string",
            Self::List(_) => "a list",
            Self::Set(_) => "a set",
            Self::Map(_) => "a map",
            Self::Object(_) => "an object",
        }
    }

    /// The type as the wire writes it.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Bool => json!("bool"),
            Self::Number => json!("number"),
            Self::String => json!("string"),
            Self::List(element) => json!(["list", element.to_json()]),
            Self::Set(element) => json!(["set", element.to_json()]),
            Self::Map(element) => json!(["map", element.to_json()]),
            Self::Object(attributes) => {
                let attributes: serde_json::Map<_, _> =
                    attributes.iter().map(|(name, ty)| (name.clone(), ty.to_json())).collect();
                json!(["object", attributes])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_written_as_the_host_reads_them() {
        let object = Type::Object(BTreeMap::from([("n".into(), Type::Number), ("b".into(), Type::Bool)]));
        assert_eq!(
            Type::list(object).to_json().to_string(),
            r#"["list",["object",{"b":"bool","n":"number"}]]"#
        );
        assert_eq!(Type::map(Type::set(Type::String)).to_json().to_string(), r#"["map",["set","string"]]"#);
    }
}
