//! A kind as a data source.

use super::cluster::Patience;
use super::field::Field;
use super::kind::{Kind, Site, Whole, set};
use super::managed::Managed;
use crate::plugin::diagnostic::Diagnostic;
use crate::plugin::path::Path;
use crate::plugin::provider::{Call, DataSource, Outcome, async_trait};
use crate::plugin::schema::{Attribute, Owner, Problem, Schema};
use crate::plugin::ty::Type;
use crate::plugin::value::Value;

/// A kind as a data source.
pub(crate) struct Looked<K>(Managed<K>);

impl<K: Kind> Looked<K> {
    pub(crate) fn new() -> Self {
        Self(Managed::plain())
    }
}

#[async_trait]
impl<K: Kind> DataSource for Looked<K> {
    type Client = Site;
    type Model = Whole;

    fn name(&self) -> &'static str {
        K::NAME
    }

    fn schema(&self) -> Result<Schema, Problem> {
        let texts = || Type::map(Type::String);
        let namespace = "Namespace; default that of the provider, else `default`.";
        let mut attributes = vec![
            Attribute::computed("id", Type::String, "`namespace/name`."),
            Attribute::required("name", Type::String, "Name of the object."),
            Attribute::optional_computed("namespace", Type::String, namespace),
            Attribute::computed("labels", texts(), "Its labels."),
            Attribute::computed("annotations", texts(), "Its annotations."),
        ];
        let spec = self.0.fields.spec.iter().filter(|field| !field.is_own());
        attributes.extend(spec.map(Field::computed));
        attributes.push(Attribute::computed("uid", Type::String, "UID of the object."));
        attributes
            .extend(K::lifted().iter().map(|(name, text)| Attribute::computed(*name, Type::String, *text)));
        attributes.push(Attribute::computed("status", self.0.status(), "What became of it."));
        Schema::new(Owner::DataSource, K::about(), attributes)
    }

    async fn read(&self, call: Call<'_, Site>, config: Whole) -> Outcome<Whole> {
        let mut config = config.0;
        if config.attribute("namespace").is_null() {
            set(&mut config, &["namespace"], call.client.namespace().without_unknown());
        }
        let target = Managed::<K>::target(&config);
        let found = Patience::to_read(call.cancel).with(call.client.cluster.get(&target)).await;
        match found.flatten() {
            Ok(Some(object)) => {
                let mut state = self.0.state(&object, &Value::Null);
                retain(&mut state, &config);
                Outcome::exists(Whole(state)).with(K::unread(&object))
            }
            Ok(None) => {
                let detail = format!("There is no {} {}. Create it first.", target.kind.kind, target.id());
                Outcome::failed(Diagnostic::error(Path::of("name"), "Object not found", detail).into())
            }
            Err(error) => Outcome::failed(self.0.attempt("read", &target, K::NAME).failed(&error)),
        }
    }
}

/// Leaves the attributes that the other has.
fn retain(value: &mut Value, like: &Value) {
    if let (Value::Object(attributes), Value::Object(like)) = (value, like) {
        attributes.retain(|name, _| like.contains_key(name));
    }
}
