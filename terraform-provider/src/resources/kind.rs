//! What a kind is: the rules that its CRD cannot say, and what the parts around it hand each other.
//!
//! A kind says what only the provider knows, what is refused before the API is asked, what else must exist.
//! `ssh_key.rs` is the smallest; `managed.rs` and `looked.rs` do the rest.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject};
use serde_json::Value as Json;

use super::cluster::{Cluster, Error, Patience, Target};
use super::effect::Effect;
use super::field::Fields;
use super::timeouts::Times;
use crate::plugin::diagnostic::Diagnostics;
use crate::plugin::fields::Fields as Read;
use crate::plugin::known::Known;
use crate::plugin::path::Path;
use crate::plugin::provider::{FromFields, Model, async_trait};
use crate::plugin::value::Value;

/// What the provider was configured to.
pub struct Site {
    pub(crate) cluster: Cluster,
    /// Namespace of what names none.
    pub(crate) namespace: Known<String>,
}

/// The rules of one kind.
#[async_trait]
pub(crate) trait Kind: Send + Sync + 'static {
    /// Its name after the provider's, such as `ssh_key`.
    const NAME: &'static str;
    /// How long its operations may take.
    const TIMES: Times;
    /// Whether a name is a hostname too, which is shorter and has no dots.
    const NAMES_A_HOST: bool = false;
    /// What a replacement loses for good, as a clause.
    const LOSES: Option<&'static str> = None;

    /// Its definition.
    fn crd() -> CustomResourceDefinition;

    /// What the API calls it.
    fn resource() -> ApiResource;

    /// Warns of what in an object the kind does not know.
    fn unread(object: &DynamicObject) -> Diagnostics;

    /// What it is, in Markdown.
    fn about() -> &'static str;

    /// Adds what only the provider knows.
    fn adjust(_fields: &mut Fields) {}

    /// Values of the status that stand beside it too: their names and descriptions.
    fn lifted() -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// The value of one of them.
    fn lift(_name: &str, _status: &Value) -> Value {
        Value::Null
    }

    /// Whether a change leaves one of them as it was, so that a plan can say it and nothing that follows from it waits.
    fn is_kept(_name: &str, _prior: &Value, _planned: &Value) -> bool {
        false
    }

    /// Changes that do something else than the fields say by themselves: what `decide` and the API's rules add.
    fn effects() -> &'static [(&'static str, Effect)] {
        &[]
    }

    /// What is wrong with a configuration, as far as it is known.
    fn validate(_config: &Value, _diagnostics: &mut Diagnostics) {}

    /// Decides in the plan what the fields do not decide by themselves.
    fn decide(_prior: &Value, _config: &Value, _decision: &mut Decision) {}

    /// Adds to the object what no field of its spec says.
    fn dress(_planned: &Value, _body: &mut Json) {}

    /// Takes from an object what `dress` added.
    fn undress(_object: &DynamicObject, _live: &mut Value) {}

    /// Whether it must not be deleted.
    fn is_protected(_state: &Value) -> bool {
        false
    }

    /// What is still missing once it is Ready; `None` when nothing is.
    fn missing(_planned: &Value, _object: &DynamicObject) -> Option<String> {
        None
    }

    /// Makes what must be there before the object is written.
    async fn prepare(_: &Cluster, _: Writing<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Whether a change leaves behind what `prepare` once made.
    fn is_left(_prior: &Value, _planned: &Value) -> bool {
        false
    }

    /// Removes what `prepare` made.
    async fn clear(_: &Cluster, _target: &Target, _state: &Value, _: Patience<'_>) -> Result<(), Error> {
        Ok(())
    }
}

/// What is about to be written.
pub(crate) struct Writing<'a> {
    pub(crate) target: &'a Target,
    /// Null for a create.
    pub(crate) prior: &'a Value,
    /// With the write-only attributes.
    pub(crate) config: &'a Value,
    pub(crate) planned: &'a Value,
    pub(crate) patience: Patience<'a>,
}

/// A plan in the making.
pub(crate) struct Decision {
    pub(crate) planned: Value,
    pub(crate) replace: Vec<Path>,
    pub(crate) diagnostics: Diagnostics,
}

/// Configuration, plan and state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Whole(pub(crate) Value);

impl FromFields for Whole {
    fn read(fields: &mut Read<'_>) -> Self {
        Self(fields.object().clone())
    }
}

impl Model for Whole {
    fn into_value(self) -> Value {
        self.0
    }
}

impl Decision {
    /// Sets an attribute of the plan.
    pub(crate) fn set(&mut self, path: &[&str], value: Value) {
        set(&mut self.planned, path, value);
    }
}

impl Site {
    /// The namespace of what names none, as far as it is known.
    pub(super) fn namespace(&self) -> Value {
        self.namespace.clone().or_value("default".to_owned()).into()
    }
}

/// Sets an attribute, however deep; objects on the way must be there.
pub(crate) fn set(value: &mut Value, path: &[&str], to: Value) {
    if let (Value::Object(attributes), [first, rest @ ..]) = (value, path) {
        if rest.is_empty() {
            attributes.insert((*first).to_owned(), to);
        } else if let Some(inner) = attributes.get_mut(*first) {
            set(inner, rest, to);
        }
    }
}

/// The same with null for texts, lists and maps that are empty. An object says something by being there.
pub(crate) fn without_empty(value: &Value) -> Value {
    match value {
        Value::Object(attributes) => {
            let part = |(name, value): (&String, &Value)| (name.clone(), without_empty(value));
            Value::Object(attributes.iter().map(part).collect())
        }
        Value::List(elements) if !elements.is_empty() => {
            Value::List(elements.iter().map(without_empty).collect())
        }
        empty if super::field::is_empty(empty) => Value::Null,
        said => said.clone(),
    }
}

/// The text, if there is one.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        _ => String::new(),
    }
}
