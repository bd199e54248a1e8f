//! One object as the API sent it: any JSON at all, so that no item makes its list unreadable.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use kube::api::{ApiResource, DynamicObject, TypeMeta};
use kube::core::DynamicResourceScope;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Number, Value};

/// The book-keeping of server-side apply. Nobody here reads it; whoever may write an object may write nonsense into it,
/// and it is often most of the object.
const BOOK_KEEPING: &str = "managedFields";
/// kubectl's own copy of the object, which nobody here reads either.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Our kinds nest a dozen levels; the decoder of a whole list gives up at 128.
const DEEPEST: u8 = 64;

/// One object, not decoded yet, without what only other programs read.
#[derive(Clone, Debug)]
pub struct Raw {
    pub(crate) metadata: ObjectMeta,
    pub(crate) value: Value,
}

impl Raw {
    /// An object that we made.
    pub fn new(value: Value) -> Self {
        Self { metadata: metadata(&value["metadata"]), value }
    }

    /// All that was sent.
    pub fn value(&self) -> &Value {
        &self.value
    }
}

impl<T: Serialize> From<&T> for Raw {
    /// An object of ours. None of our kinds fails (no map has keys other than strings); an empty one would be refused.
    fn from(object: &T) -> Self {
        Self::new(serde_json::to_value(object).unwrap_or_default())
    }
}

impl From<Raw> for DynamicObject {
    fn from(Raw { metadata, value: mut data }: Raw) -> Self {
        let text = |key: &str| Some(data[key].as_str()?.to_owned());
        let types = text("apiVersion").zip(text("kind"));
        let types = types.map(|(api_version, kind)| TypeMeta { api_version, kind });
        if let Some(map) = data.as_object_mut() {
            map.retain(|key, _| !["apiVersion", "kind", "metadata"].contains(&key.as_str()));
        }
        Self { types, metadata, data }
    }
}

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Part::Object.deserialize(deserializer).map(Self::new)
    }
}

impl Resource for Raw {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(kind: &ApiResource) -> Cow<'_, str> {
        kind.kind.as_str().into()
    }

    fn group(kind: &ApiResource) -> Cow<'_, str> {
        kind.group.as_str().into()
    }

    fn version(kind: &ApiResource) -> Cow<'_, str> {
        kind.version.as_str().into()
    }

    fn plural(kind: &ApiResource) -> Cow<'_, str> {
        kind.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// What of the metadata can be read, each field alone.
fn metadata(value: &Value) -> ObjectMeta {
    let text = |key: &str| value[key].as_str().map(str::to_owned);
    let time = |key: &str| value[key].as_str()?.parse::<Timestamp>().ok().map(Time);
    let texts = |key: &str| {
        let pair = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
        value[key].as_object().map(|map| map.iter().filter_map(pair).collect::<BTreeMap<_, _>>())
    };
    let finalizers = value["finalizers"].as_array();
    ObjectMeta {
        name: text("name"),
        namespace: text("namespace"),
        uid: text("uid"),
        resource_version: text("resourceVersion"),
        generation: value["generation"].as_i64(),
        creation_timestamp: time("creationTimestamp"),
        deletion_timestamp: time("deletionTimestamp"),
        finalizers: finalizers.map(|list| list.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
        labels: texts("labels"),
        annotations: texts("annotations"),
        owner_references: serde_json::from_value(value["ownerReferences"].clone()).ok(),
        ..ObjectMeta::default()
    }
}

/// Where in an object we are; builds the JSON of it.
#[derive(Clone, Copy)]
enum Part {
    Object,
    Metadata,
    Annotations,
    /// Anywhere else, this deep.
    Other(u8),
}

impl Part {
    fn within(self, key: &str) -> Self {
        match (self, key) {
            (Self::Object, "metadata") => Self::Metadata,
            (Self::Metadata, "annotations") => Self::Annotations,
            (Self::Other(depth), _) => Self::Other(depth + 1),
            _ => Self::Other(0),
        }
    }

    fn leaves_out(self, key: &str) -> bool {
        match self {
            Self::Metadata => key == BOOK_KEEPING,
            Self::Annotations => key == LAST_APPLIED,
            Self::Object | Self::Other(_) => false,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Part {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self {
            Self::Other(DEEPEST) => IgnoredAny::deserialize(deserializer).map(|_| Value::Null),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Part {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(self.within(""))? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if self.leaves_out(&key) {
                entries.next_value::<IgnoredAny>()?;
            } else {
                let value = entries.next_value_seed(self.within(&key))?;
                map.insert(key, value);
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use kube::core::ObjectList;
    use kube::{ResourceExt, api::WatchEvent};

    use super::*;

    #[test]
    fn no_item_makes_its_list_or_its_watch_unreadable() {
        let deep = format!("{}1{}", r#"{"a":"#.repeat(5_000), "}".repeat(5_000));
        let bent = format!(
            r#"{{"metadata": {{"name": "bent", "uid": 7, "managedFields": [{{"fieldsV1": {deep}, "time": "9999-12-31T00:00:00Z"}}],
                "annotations": {{"{LAST_APPLIED}": "{{}}", "kept": "yes"}}, "deletionTimestamp": "+99:99"}}, "spec": {deep}}}"#
        );
        let list = format!(
            r#"{{"kind": "List", "apiVersion": "v1", "metadata": {{}}, "items": [5, {bent}, {{"metadata": {{"name": "good"}}}}]}}"#
        );
        let list: ObjectList<Raw> = serde_json::from_str(&list).unwrap();
        assert_eq!(list.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["", "bent", "good"]);
        let bent_metadata = list.items[1].value()["metadata"].to_string();
        assert!(!bent_metadata.contains(BOOK_KEEPING) && !bent_metadata.contains(LAST_APPLIED));
        assert!(bent_metadata.contains("kept"));
        let event = format!(r#"{{"type": "ADDED", "object": {bent}}}"#);
        let WatchEvent::Added(raw) = serde_json::from_str(&event).unwrap() else { panic!("not added") };
        let raw: Raw = raw;
        assert_eq!((raw.name_any(), raw.uid()), ("bent".to_owned(), None));
    }
}
