//! Demands: what a CRD asks of a value, told before the API is asked, in the CRD's own words.
//!
//! Lengths, ranges and words are in its schema; the rest are rules in CEL, of which a few forms say all that concerns one
//! value by itself:
//!
//! ```text
//! rule = all of { || all of }        all of = atom { && atom }
//! atom = [!]self.matches('…')   self == ''   self >= 1   bytes(self).size() <= 32768
//!        quantity(self).compareTo(quantity('64Mi')) >= 0   self.all(key, key.size() <= 317)
//! ```
//!
//! A rule with anything else in it is left to the API and to what the kinds check by hand; a test names them all.

use std::collections::BTreeMap;

use holdfast_api::Quantity;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use regex::Regex;

use super::field::{Field, Form};
use crate::plugin::diagnostic::Diagnostics;
use crate::plugin::path::Path;
use crate::plugin::value::Value;

/// What is asked of a value, and of those within it.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    rules: Vec<Rule>,
    limits: Limits,
    fields: BTreeMap<String, Demand>,
    element: Option<Box<Demand>>,
}

/// A rule in CEL, and the sentence for whoever breaks it.
#[derive(Debug)]
struct Rule {
    any: Vec<Vec<Atom>>,
    message: String,
}

/// A statement about a value by itself.
#[derive(Debug)]
enum Atom {
    Empty,
    Matches(Regex),
    Unlike(Regex),
    Bytes(Side),
    Keys(Side),
    Size(Side),
    Number(Side),
}

/// One side of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    AtLeast(i128),
    AtMost(i128),
}

/// What a schema says beside its rules. Texts count characters, lists and maps elements.
#[derive(Debug, Default)]
struct Limits {
    least: Option<i64>,
    most: Option<i64>,
}

impl Demand {
    /// Those of the spec of a kind.
    pub(crate) fn of(crd: &CustomResourceDefinition) -> Self {
        let version = crd.spec.versions.first();
        let schema = version.and_then(|it| it.schema.as_ref()).and_then(|it| it.open_api_v3_schema.as_ref());
        let spec = schema.and_then(|it| it.properties.as_ref()).and_then(|it| it.get("spec"));
        spec.map(Self::read).unwrap_or_default()
    }

    fn read(schema: &JSONSchemaProps) -> Self {
        let rules = schema.x_kubernetes_validations.iter().flatten();
        let rules = rules.filter_map(|rule| Rule::read(&rule.rule, rule.message.as_deref()?));
        let whole = |bound: Option<f64>| bound.and_then(|bound| format!("{bound:.0}").parse().ok());
        let either = |one: Option<i64>, other: Option<i64>| one.or(other);
        let element = match (&schema.items, &schema.additional_properties) {
            (Some(JSONSchemaPropsOrArray::Schema(element)), _)
            | (_, Some(JSONSchemaPropsOrBool::Schema(element))) => Some(Box::new(Self::read(element))),
            _ => None,
        };
        let fields = schema.properties.iter().flatten();
        Self {
            rules: rules.collect(),
            limits: Limits {
                least: either(either(schema.min_length, schema.min_items), whole(schema.minimum)),
                most: either(
                    either(schema.max_length, schema.max_items),
                    either(schema.max_properties, whole(schema.maximum)),
                ),
            },
            fields: fields.map(|(key, schema)| (key.clone(), Self::read(schema))).collect(),
            element,
        }
    }

    /// Says what these fields of a configuration break, each at its attribute. Where something was said already, nothing
    /// is added: one sentence for one value.
    pub(crate) fn check(&self, fields: &[Field], config: &Value, at: &Path, diagnostics: &mut Diagnostics) {
        for field in fields {
            if let Some(demand) = self.fields.get(&field.key) {
                let at = at.attribute(&field.attribute);
                demand.value(&field.form, config.attribute(&field.attribute), &at, diagnostics);
            }
        }
    }

    fn value(&self, form: &Form, value: &Value, at: &Path, diagnostics: &mut Diagnostics) {
        match (form, value) {
            (Form::Reference, Value::String(_)) => {
                if let Some(name) = self.fields.get("name") {
                    name.value(&Form::Text(Vec::new()), value, at, diagnostics);
                }
                return;
            }
            (Form::Object(fields), Value::Object(_)) => self.check(fields, value, at, diagnostics),
            (Form::List(form), Value::List(elements)) => {
                for (index, value) in elements.iter().enumerate() {
                    if let Some(element) = &self.element {
                        element.value(form, value, &at.index(index), diagnostics);
                    }
                }
            }
            (Form::Texts, Value::Map(elements)) => {
                for (key, value) in elements {
                    if let Some(element) = &self.element {
                        element.value(&Form::Text(Vec::new()), value, &at.key(key), diagnostics);
                    }
                }
            }
            _ => {}
        }
        if let Some(broken) = self.broken(value)
            && !diagnostics.iter().any(|said| said.path == *at)
        {
            diagnostics.error(at.clone(), "Value of the wrong form", format!("{at} must {broken}."));
        }
    }

    /// What the value must be and is not.
    fn broken(&self, value: &Value) -> Option<String> {
        let rule = self.rules.iter().find(|rule| !rule.holds(value));
        let by_rule = rule.map(|rule| {
            let (_, must) = rule.message.split_once(" must ").unwrap_or_default();
            must.to_owned()
        });
        by_rule.or_else(|| self.limits.broken(value))
    }
}

impl Limits {
    fn broken(&self, value: &Value) -> Option<String> {
        let (count, what) = match value {
            Value::String(text) => (i64::try_from(text.chars().count()).ok()?, "have {} characters"),
            Value::List(elements) => (i64::try_from(elements.len()).ok()?, "have {} elements"),
            Value::Map(elements) => (i64::try_from(elements.len()).ok()?, "have {} elements"),
            Value::Number(number) => (number.as_i64()?, "be a whole number of {}"),
            _ => return None,
        };
        let range = match (self.least, self.most) {
            (Some(least), Some(most)) => format!("{least} to {most}"),
            (Some(least), None) => format!("at least {least}"),
            (None, Some(most)) => format!("at most {most}"),
            (None, None) => return None,
        };
        let fits =
            self.least.is_none_or(|least| count >= least) && self.most.is_none_or(|most| count <= most);
        (!fits).then(|| what.replace("{}", &range))
    }
}

impl Rule {
    /// `None` for one that says more than our forms can.
    fn read(rule: &str, message: &str) -> Option<Self> {
        message.contains(" must ").then_some(())?;
        let all_of = |part: &str| part.split(" && ").map(Atom::read).collect::<Option<Vec<_>>>();
        let any = rule.split(" || ").map(all_of).collect::<Option<Vec<_>>>()?;
        Some(Self { any, message: message.to_owned() })
    }

    fn holds(&self, value: &Value) -> bool {
        self.any.iter().any(|all| all.iter().all(|atom| atom.holds(value)))
    }
}

impl Atom {
    fn read(text: &str) -> Option<Self> {
        let matches = |text: &str| {
            let pattern = text.strip_prefix("self.matches('")?.strip_suffix("')")?;
            // In CEL a backslash in a text is written twice.
            Regex::new(&pattern.replace(r"\\", r"\")).ok()
        };
        if text == "self == ''" {
            return Some(Self::Empty);
        }
        if let Some(text) = text.strip_prefix('!') {
            return matches(text).map(Self::Unlike);
        }
        if let Some(side) = text.strip_prefix("self.all(key, key.size() ").and_then(|it| it.strip_suffix(')'))
        {
            return Side::read(side, |number| number.parse().ok()).map(Self::Keys);
        }
        if let Some(side) = text.strip_prefix("bytes(self).size() ") {
            return Side::read(side, |number| number.parse().ok()).map(Self::Bytes);
        }
        if let Some(comparison) = text.strip_prefix("quantity(self).compareTo(quantity('") {
            let (limit, side) = comparison.split_once("')) ")?;
            let bytes = i128::from(Quantity::from(limit).bytes().ok()?);
            return Side::read(side, |zero| (zero == "0").then_some(bytes)).map(Self::Size);
        }
        if let Some(side) = text.strip_prefix("self ") {
            return Side::read(side, |number| number.parse().ok()).map(Self::Number);
        }
        matches(text).map(Self::Matches)
    }

    /// Values of another type, and unknown ones, break nothing.
    fn holds(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Empty, Value::String(text)) => text.is_empty(),
            (Self::Matches(pattern), Value::String(text)) => pattern.is_match(text),
            (Self::Unlike(pattern), Value::String(text)) => !pattern.is_match(text),
            (Self::Bytes(side), Value::String(text)) => {
                i128::try_from(text.len()).is_ok_and(|it| side.has(it))
            }
            (Self::Keys(side), Value::Map(elements)) => {
                elements.keys().all(|key| i128::try_from(key.chars().count()).is_ok_and(|it| side.has(it)))
            }
            (Self::Size(side), Value::String(text)) => {
                Quantity::from(text.as_str()).bytes().is_ok_and(|it| side.has(i128::from(it)))
            }
            (Self::Number(side), Value::Number(number)) => {
                number.as_i64().is_none_or(|it| side.has(i128::from(it)))
            }
            _ => true,
        }
    }
}

impl Side {
    fn read(text: &str, number: impl Fn(&str) -> Option<i128>) -> Option<Self> {
        let least = text.strip_prefix(">= ").and_then(&number).map(Self::AtLeast);
        least.or_else(|| text.strip_prefix("<= ").and_then(&number).map(Self::AtMost))
    }

    const fn has(self, number: i128) -> bool {
        match self {
            Self::AtLeast(least) => number >= least,
            Self::AtMost(most) => number <= most,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(rule: &str, value: impl Into<Value>) -> bool {
        Rule::read(rule, "it must be so").unwrap().holds(&value.into())
    }

    #[test]
    fn each_form_of_a_rule_is_read_and_kept() {
        assert!(
            holds("self == '' || self.matches('^[a-z|]+$')", "") && holds("self.matches('^[a-z]+$')", "a")
        );
        assert!(!holds("self == '' || self.matches('^[a-z]+$')", "A"));
        assert!(
            !holds(r"!self.matches('[\\x00-\\x1f]')", "a\n") && holds(r"!self.matches('[\\x00-\\x1f]')", "a")
        );
        assert!(holds("self >= 1 && self <= 255", 255) && !holds("self >= 1 && self <= 255", 0));
        assert!(!holds("bytes(self).size() <= 3", "ää") && holds("bytes(self).size() <= 4", "ää"));
        assert!(!holds("quantity(self).compareTo(quantity('64Mi')) >= 0", "63Mi"));
        assert!(holds("quantity(self).compareTo(quantity('4Ti')) <= 0", "4096Gi"));
        let keys = |key: &str| Value::Map([(key.to_owned(), Value::from("x"))].into());
        assert!(!holds("self.all(key, key.size() <= 3)", keys("äöüa")));
        assert!(holds("self.all(key, key.size() <= 3)", keys("äöü")));
        assert!(holds("self >= 1", Value::UNKNOWN) && holds("self.matches('a')", Value::Null));
    }

    #[test]
    fn a_rule_about_more_than_one_value_is_left_alone() {
        for rule in ["self == oldSelf", "has(self.http) != has(self.file)", "isCIDR(self) && self <= 3"] {
            assert!(Rule::read(rule, "it must be so").is_none(), "{rule}");
        }
    }
}
