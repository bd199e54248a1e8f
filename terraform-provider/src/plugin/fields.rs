//! Fields: how a typed model is read from an object. What does not fit is noted with its path, and reading goes on, so
//! that a user sees all that is wrong at once.

use std::collections::BTreeMap;

use super::diagnostic::Diagnostics;
use super::known::Known;
use super::path::Path;
use super::value::Value;

/// The attributes of one object, to be read by name.
#[derive(Debug)]
pub struct Fields<'a> {
    object: &'a Value,
    at: Path,
    diagnostics: &'a mut Diagnostics,
}

impl<'a> Fields<'a> {
    /// The attributes of that object, which lies at that path.
    pub const fn new(object: &'a Value, at: Path, diagnostics: &'a mut Diagnostics) -> Self {
        Self { object, at, diagnostics }
    }

    /// The object itself.
    pub const fn object(&self) -> &'a Value {
        self.object
    }

    /// The path of an attribute.
    pub fn path(&self, name: &str) -> Path {
        self.at.attribute(name)
    }

    /// Where to note what is wrong beyond the types.
    pub const fn diagnostics(&mut self) -> &mut Diagnostics {
        self.diagnostics
    }

    /// A string.
    pub fn string(&mut self, name: &str) -> Known<String> {
        self.read(name, as_string)
    }

    /// True or false.
    pub fn boolean(&mut self, name: &str) -> Known<bool> {
        self.read(name, |value| match value {
            Value::Bool(value) => Ok(*value),
            _ => Err("true or false".to_owned()),
        })
    }

    /// A whole number that fits the type.
    pub fn integer<T: TryFrom<i64>>(&mut self, name: &str) -> Known<T> {
        self.read(name, |value| match value {
            Value::Number(number) => number
                .as_i64()
                .and_then(|integer| T::try_from(integer).ok())
                .ok_or_else(|| format!("a whole number in the range of the field, and {number} is none")),
            _ => Err("a whole number".to_owned()),
        })
    }

    /// A string with a form of its own. The parser's error is the rule a user reads: "a quantity such as 4Gi".
    pub fn parsed<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Known<T> {
        self.read(name, |value| parse(&as_string(value)?))
    }

    /// A list or set of strings.
    pub fn strings(&mut self, name: &str) -> Known<Vec<Known<String>>> {
        let at = self.path(name);
        let Known::Value(elements) = self.list(name) else { return self.absence(name) };
        let mut read = |(index, value)| part(value, &at.index(index), self.diagnostics, as_string);
        Known::Value(elements.iter().enumerate().map(&mut read).collect())
    }

    /// A map of strings.
    pub fn string_map(&mut self, name: &str) -> Known<BTreeMap<String, Known<String>>> {
        let at = self.path(name);
        let Known::Value(elements) = self.map(name) else { return self.absence(name) };
        let mut read = |(key, value): (&String, &Value)| {
            (key.clone(), part(value, &at.key(key), self.diagnostics, as_string))
        };
        Known::Value(elements.iter().map(&mut read).collect())
    }

    /// A nested object.
    pub fn nested<T>(&mut self, name: &str, read: impl FnOnce(&mut Fields<'_>) -> T) -> Known<T> {
        let at = self.path(name);
        nested(self.object.attribute(name), at, self.diagnostics, read)
    }

    /// A list of nested objects.
    pub fn nested_list<T>(
        &mut self,
        name: &str,
        mut read: impl FnMut(&mut Fields<'_>) -> T,
    ) -> Known<Vec<Known<T>>> {
        let at = self.path(name);
        let Known::Value(elements) = self.list(name) else { return self.absence(name) };
        let mut element = |(index, value)| nested(value, at.index(index), self.diagnostics, &mut read);
        Known::Value(elements.iter().enumerate().map(&mut element).collect())
    }

    /// A map of nested objects.
    pub fn nested_map<T>(
        &mut self,
        name: &str,
        mut read: impl FnMut(&mut Fields<'_>) -> T,
    ) -> Known<BTreeMap<String, Known<T>>> {
        let at = self.path(name);
        let Known::Value(elements) = self.map(name) else { return self.absence(name) };
        let mut element = |(key, value): (&String, &Value)| {
            (key.clone(), nested(value, at.key(key), self.diagnostics, &mut read))
        };
        Known::Value(elements.iter().map(&mut element).collect())
    }

    fn read<T>(&mut self, name: &str, read: impl FnOnce(&Value) -> Result<T, String>) -> Known<T> {
        part(self.object.attribute(name), &self.path(name), self.diagnostics, read)
    }

    fn list(&mut self, name: &str) -> Known<&'a Vec<Value>> {
        let object = self.object;
        part(object.attribute(name), &self.path(name), self.diagnostics, |value| match value {
            Value::List(elements) => Ok(elements),
            _ => Err("a list".to_owned()),
        })
    }

    fn map(&mut self, name: &str) -> Known<&'a BTreeMap<String, Value>> {
        let object = self.object;
        part(object.attribute(name), &self.path(name), self.diagnostics, |value| match value {
            Value::Map(elements) => Ok(elements),
            _ => Err("a map".to_owned()),
        })
    }

    /// How a collection is absent.
    fn absence<T>(&self, name: &str) -> Known<T> {
        if self.object.attribute(name).is_known() { Known::Null } else { Known::Unknown }
    }
}

/// The codec has checked the types, so a value of another kind is our own mistake: it is still a message, never a panic.
fn part<'v, T>(
    value: &'v Value,
    at: &Path,
    diagnostics: &mut Diagnostics,
    read: impl FnOnce(&'v Value) -> Result<T, String>,
) -> Known<T> {
    match value {
        Value::Null => Known::Null,
        Value::Unknown(_) => Known::Unknown,
        known => read(known).map_or_else(
            |rule| {
                diagnostics.error(at.clone(), "Value of the wrong form", format!("{at} must be {rule}."));
                Known::Null
            },
            Known::Value,
        ),
    }
}

fn nested<T>(
    value: &Value,
    at: Path,
    diagnostics: &mut Diagnostics,
    read: impl FnOnce(&mut Fields<'_>) -> T,
) -> Known<T> {
    match value {
        Value::Null => Known::Null,
        Value::Unknown(_) => Known::Unknown,
        object => Known::Value(read(&mut Fields::new(object, at, diagnostics))),
    }
}

fn as_string(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        _ => Err("a string".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T>(object: &Value, read: impl FnOnce(&mut Fields<'_>) -> T) -> (T, Vec<String>) {
        let mut diagnostics = Diagnostics::new();
        let model = read(&mut Fields::new(object, Path::root(), &mut diagnostics));
        (model, diagnostics.iter().map(|it| it.detail.clone()).collect())
    }

    #[test]
    fn null_and_unknown_are_told_apart_in_every_kind_of_field() {
        for (value, expected) in [(Value::Null, Known::Null), (Value::UNKNOWN, Known::Unknown)] {
            let object = Value::object([("a", value)]);
            assert_eq!(read(&object, |it| it.string("a")).0, expected);
            assert_eq!(read(&object, |it| it.boolean("a").map(|_| String::new())).0, expected);
            assert_eq!(read(&object, |it| it.strings("a").map(|_| String::new())).0, expected);
            assert_eq!(read(&object, |it| it.string_map("a").map(|_| String::new())).0, expected);
            assert_eq!(read(&object, |it| it.nested("a", |_| String::new())).0, expected);
            assert_eq!(read(&object, |it| it.nested_list("a", |_| ()).map(|_| String::new())).0, expected);
        }
    }

    #[test]
    fn a_fraction_where_a_whole_number_belongs_is_named_with_its_path() {
        let half = Value::Number("2.5".parse().unwrap());
        let object = Value::object([("disks", Value::List(vec![Value::object([("size", half)])]))]);
        let (_, messages) = read(&object, |it| it.nested_list("disks", |disk| disk.integer::<u32>("size")));
        assert_eq!(
            messages,
            ["disks[0].size must be a whole number in the range of the field, and 2.5 is none."]
        );
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let object = Value::object([("a", Value::from(-1)), ("b", "x".into())]);
        let (_, messages) =
            read(&object, |it| (it.integer::<u32>("a"), it.parsed::<()>("b", |_| Err("a duration".into()))));
        assert_eq!(messages.len(), 2);
        assert_eq!(messages[1], "b must be a duration.");
    }
}
