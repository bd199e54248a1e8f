use std::collections::BTreeMap;

use super::provider_server::Provider as _;
use super::*;
use crate::plugin::any::{AnyDataSource, AnyResource};
use crate::plugin::diagnostic::Diagnostics;
use crate::plugin::fields::Fields;
use crate::plugin::known::Known;
use crate::plugin::provider::{Call, FromFields, Host, Model, Outcome, Plan, Resource};
use crate::plugin::schema::{Attribute, Owner, Problem, Schema};
use crate::plugin::ty::Type;
use crate::plugin::value::Value;
use crate::plugin::wire as convert;

/// Does what its name says.
#[derive(Clone)]
struct Thing {
    name: Known<String>,
    id: Known<String>,
    secret: Known<String>,
}

struct Things;

struct Nothing;

impl FromFields for Nothing {
    fn read(_: &mut Fields<'_>) -> Self {
        Self
    }
}

impl FromFields for Thing {
    fn read(fields: &mut Fields<'_>) -> Self {
        Self { name: fields.string("name"), id: fields.string("id"), secret: fields.string("secret") }
    }
}

impl Model for Thing {
    fn into_value(self) -> Value {
        if says(&self, "has another type") {
            return Value::object([("name", Value::from(7))]);
        }
        thing(self.name.into(), self.id.into(), self.secret.into())
    }
}

impl Provider for Things {
    type Client = Nothing;
    type Config = Nothing;

    fn name(&self) -> &'static str {
        "test"
    }

    fn schema(&self) -> Result<Schema, Problem> {
        Schema::new(Owner::Provider, "", Vec::new())
    }

    fn resources(&self) -> Vec<Box<dyn AnyResource<Nothing>>> {
        vec![Box::new(Self)]
    }

    fn data_sources(&self) -> Vec<Box<dyn AnyDataSource<Nothing>>> {
        Vec::new()
    }

    fn validate(&self, _: &Nothing, _: &mut Diagnostics) {}

    fn configure(&self, config: Nothing, _: &Host) -> Result<Nothing, Diagnostics> {
        Ok(config)
    }
}

#[async_trait]
impl Resource for Things {
    type Client = Nothing;
    type Model = Thing;

    fn name(&self) -> &'static str {
        "thing"
    }

    fn schema(&self) -> Result<Schema, Problem> {
        let name = Attribute::required("name", Type::String, "Name.");
        let id = Attribute::computed("id", Type::String, "Identifier.");
        let secret = Attribute::optional("secret", Type::String, "Secret.").write_only();
        Ok(Schema::new(Owner::Resource, "", vec![name, id, secret])?.with_version(2))
    }

    fn plan(&self, _: &Nothing, prior: Option<&Thing>, config: &Thing) -> Plan<Thing> {
        let name =
            if says(config, "bends its plan") { Known::Value("x".into()) } else { config.name.clone() };
        let id = prior.map_or(Known::Unknown, |prior| prior.id.clone());
        Plan::of(Thing { name, id, secret: config.secret.clone() })
    }

    fn plan_destroy(&self, _: &Nothing, prior: &Thing, diagnostics: &mut Diagnostics) {
        if says(prior, "is protected") {
            diagnostics.error(Path::of("name"), "Protected", "Take the protection away first.");
        }
    }

    fn import(&self, id: &str) -> Result<Thing, Diagnostics> {
        Ok(Thing { name: Known::Null, id: Known::Value(id.into()), secret: Known::Null })
    }

    fn upgrade(&self, version: i64, mut state: serde_json::Value) -> Result<serde_json::Value, Diagnostics> {
        state["name"] = format!("from version {version}").into();
        Ok(state)
    }

    async fn create(&self, call: Call<'_, Nothing>, config: Thing, planned: Thing) -> Outcome<Thing> {
        let broken = || Diagnostics::from(Diagnostic::error(Path::root(), "Broken", ""));
        assert!(!says(&config, "panics"), "as it was told");
        if says(&config, "fails") {
            return Outcome::failed(broken());
        }
        if says(&config, "stays half-made") {
            return Outcome::exists(planned).with(broken());
        }
        if says(&config, "waits for a stop") {
            call.cancel.cancelled().await;
        }
        let id = if says(&config, "forgets its id") { Known::Unknown } else { config.secret };
        Outcome::exists(Thing { id, ..planned }).with_private(b"new".to_vec())
    }

    async fn read(&self, _: Call<'_, Nothing>, state: Thing) -> Outcome<Thing> {
        if says(&state, "is gone") { Outcome::gone() } else { Outcome::exists(state) }
    }

    async fn update(
        &self,
        call: Call<'_, Nothing>,
        _: Thing,
        config: Thing,
        planned: Thing,
    ) -> Outcome<Thing> {
        self.create(call, config, planned).await
    }

    async fn delete(&self, _: Call<'_, Nothing>, prior: Thing) -> Outcome<Thing> {
        if says(&prior, "fails") {
            return Outcome::failed(Diagnostic::error(Path::root(), "Broken", "").into());
        }
        Outcome::gone()
    }
}

fn says(thing: &Thing, what: &str) -> bool {
    thing.name.as_value().is_some_and(|name| name == what)
}

fn thing(name: Value, id: Value, secret: Value) -> Value {
    Value::object([("name", name), ("id", id), ("secret", secret)])
}

fn ty() -> Type {
    Type::Object(BTreeMap::from(["name", "id", "secret"].map(|name| (name.to_owned(), Type::String))))
}

fn sent(value: &Value) -> Option<wire::DynamicValue> {
    convert::dynamic(value, &ty()).ok()
}

fn came(value: Option<wire::DynamicValue>) -> Value {
    convert::value(value, &ty()).unwrap()
}

async fn configured() -> Service<Things> {
    let service = Service::new(Things, Stop::default());
    let request = wire::configure_provider::Request::default();
    assert!(
        service.configure_provider(Request::new(request)).await.unwrap().into_inner().diagnostics.is_empty()
    );
    service
}

async fn plan(prior: &Value, config: &Value) -> wire::plan_resource_change::Response {
    let request = wire::plan_resource_change::Request {
        type_name: "test_thing".into(),
        prior_state: sent(prior),
        proposed_new_state: sent(config),
        config: sent(config),
        prior_private: b"old".to_vec(),
        ..Default::default()
    };
    configured().await.plan_resource_change(Request::new(request)).await.unwrap().into_inner()
}

fn change(prior: &Value, planned: &Value, secret: &str) -> wire::apply_resource_change::Request {
    let config = if planned.is_null() {
        Value::Null
    } else {
        thing(planned.attribute("name").clone(), Value::Null, secret.into())
    };
    wire::apply_resource_change::Request {
        type_name: "test_thing".into(),
        prior_state: sent(prior),
        planned_state: sent(planned),
        config: sent(&config),
        planned_private: b"old".to_vec(),
    }
}

async fn apply(prior: &Value, planned: &Value) -> wire::apply_resource_change::Response {
    let request = Request::new(change(prior, planned, "s"));
    configured().await.apply_resource_change(request).await.unwrap().into_inner()
}

fn new(name: &str) -> Value {
    thing(name.into(), Value::UNKNOWN, Value::Null)
}

fn old(name: &str) -> Value {
    thing(name.into(), "7".into(), Value::Null)
}

#[tokio::test]
async fn host_rule_6_a_plan_never_holds_what_is_write_only() {
    let response = plan(&Value::Null, &thing("web".into(), Value::Null, "s".into())).await;
    assert_eq!(came(response.planned_state), new("web"));
    assert!(response.diagnostics.is_empty());
}

#[tokio::test]
async fn rule_7_a_plan_echoes_the_private_bytes() {
    let config = thing("web".into(), Value::Null, Value::Null);
    for prior in [Value::Null, old("web")] {
        assert_eq!(plan(&prior, &config).await.planned_private, b"old");
    }
}

#[tokio::test]
async fn rule_1_of_the_proposed_state_only_its_end_counts() {
    let request = |proposed: &Value| wire::plan_resource_change::Request {
        type_name: "test_thing".into(),
        prior_state: sent(&old("web")),
        proposed_new_state: sent(proposed),
        config: sent(&thing("db".into(), Value::Null, Value::Null)),
        ..Default::default()
    };
    let service = configured().await;
    for proposed in [old("db"), old("what the host merged"), new("db")] {
        let response = service.plan_resource_change(Request::new(request(&proposed))).await.unwrap();
        assert_eq!(came(response.into_inner().planned_state), old("db"));
    }
}

#[tokio::test]
async fn host_rule_1_a_debug_build_finds_a_plan_the_host_would_refuse() {
    let response = plan(&Value::Null, &thing("bends its plan".into(), Value::Null, Value::Null)).await;
    assert_eq!(response.diagnostics[0].summary, "Reply breaks a rule of the plugin protocol");
}

#[tokio::test]
async fn host_rule_1_a_destroy_is_planned_null_unless_it_is_refused() {
    let response = plan(&old("web"), &Value::Null).await;
    assert_eq!((came(response.planned_state), response.diagnostics.len()), (Value::Null, 0));
    assert_eq!(plan(&old("is protected"), &Value::Null).await.diagnostics[0].summary, "Protected");
}

#[tokio::test]
async fn host_rule_6_an_apply_sees_the_secret_and_never_stores_it() {
    let response = apply(&Value::Null, &new("web")).await;
    assert_eq!(came(response.new_state), thing("web".into(), "s".into(), Value::Null));
    assert_eq!(response.private, b"new");
}

#[tokio::test]
async fn host_rule_7_a_half_made_create_is_stored_without_unknowns_and_a_failed_one_is_not() {
    let response = apply(&Value::Null, &new("stays half-made")).await;
    assert_eq!(came(response.new_state), thing("stays half-made".into(), Value::Null, Value::Null));
    assert_eq!(response.diagnostics.len(), 1);
    assert_eq!(came(apply(&Value::Null, &new("fails")).await.new_state), Value::Null);
}

#[tokio::test]
async fn host_rule_7_a_failed_update_or_delete_keeps_what_was_there() {
    for planned in [old("fails"), Value::Null] {
        let response = apply(&old("fails"), &planned).await;
        assert_eq!(came(response.new_state), old("fails"));
        assert_eq!((response.private.as_slice(), response.diagnostics.len()), (b"old".as_slice(), 1));
    }
    assert_eq!(came(apply(&old("web"), &Value::Null).await.new_state), Value::Null);
}

#[tokio::test]
async fn host_rule_4_a_state_with_something_unknown_is_found_before_the_host_finds_it() {
    let response = apply(&Value::Null, &new("forgets its id")).await;
    assert!(response.diagnostics[0].detail.contains("still unknown"));
}

#[tokio::test]
async fn host_rule_5_a_value_of_another_type_is_an_error_and_never_sent() {
    let config = thing("has another type".into(), Value::Null, Value::Null);
    let planned = plan(&Value::Null, &config).await;
    assert!(planned.planned_state.is_none() && !planned.diagnostics.is_empty());
    let applied = apply(&Value::Null, &new("has another type")).await;
    assert!(applied.new_state.is_none() && !applied.diagnostics.is_empty());
    let request = wire::read_resource::Request {
        type_name: "test_thing".into(),
        current_state: sent(&old("has another type")),
        ..Default::default()
    };
    let read = configured().await.read_resource(Request::new(request)).await.unwrap().into_inner();
    assert!(read.new_state.is_none() && !read.diagnostics.is_empty());
}

#[tokio::test]
async fn a_panic_is_a_message_and_the_next_call_is_answered() {
    let service = configured().await;
    let request = |name| Request::new(change(&Value::Null, &new(name), "s"));
    let response = service.apply_resource_change(request("panics")).await.unwrap().into_inner();
    assert_eq!(response.diagnostics[0].summary, "Provider crashed");
    assert!(service.apply_resource_change(request("web")).await.unwrap().into_inner().diagnostics.is_empty());
}

#[tokio::test]
async fn a_stop_reaches_what_is_under_way() {
    let service = configured().await;
    let request = Request::new(change(&Value::Null, &new("waits for a stop"), "s"));
    let apply = service.apply_resource_change(request);
    let stop = service.stop_provider(Request::new(wire::stop_provider::Request {}));
    let (applied, stopped) = tokio::join!(apply, stop);
    assert!(applied.unwrap().into_inner().new_state.is_some());
    assert_eq!(stopped.unwrap().into_inner().error, "");
}

#[tokio::test]
async fn a_process_that_was_not_configured_validates_and_does_nothing_else() {
    let service = Service::new(Things, Stop::default());
    let config = thing("web".into(), Value::Null, Value::Null);
    let validate = wire::validate_resource_config::Request {
        type_name: "test_thing".into(),
        config: sent(&config),
        client_capabilities: None,
    };
    let response = service.validate_resource_config(Request::new(validate)).await.unwrap().into_inner();
    assert!(response.diagnostics.is_empty());
    let request = Request::new(change(&Value::Null, &new("web"), "s"));
    let response = service.apply_resource_change(request).await.unwrap().into_inner();
    assert_eq!(response.diagnostics[0].summary, "Provider is not configured");
}

#[tokio::test]
async fn a_host_that_would_store_a_secret_is_not_given_one() {
    let validate = |knows| wire::validate_resource_config::Request {
        type_name: "test_thing".into(),
        config: sent(&thing("web".into(), Value::Null, "s".into())),
        client_capabilities: Some(wire::ClientCapabilities {
            write_only_attributes_allowed: knows,
            ..Default::default()
        }),
    };
    let service = configured().await;
    let refusal = service.validate_resource_config(Request::new(validate(false))).await.unwrap().into_inner();
    assert!(refusal.diagnostics[0].detail.contains("1.11") && refusal.diagnostics[0].attribute.is_some());
    let response = service.validate_resource_config(Request::new(validate(true))).await.unwrap().into_inner();
    assert!(response.diagnostics.is_empty());
}

#[tokio::test]
async fn a_state_is_upgraded_step_by_step_and_never_downgraded() {
    let upgrade = |version| wire::upgrade_resource_state::Request {
        type_name: "test_thing".into(),
        version,
        raw_state: Some(wire::RawState { json: br#"{"name":"web","size":4}"#.to_vec() }),
    };
    let service = configured().await;
    for (version, name) in [(2, "web"), (1, "from version 1")] {
        let response =
            service.upgrade_resource_state(Request::new(upgrade(version))).await.unwrap().into_inner();
        assert_eq!(came(response.upgraded_state), thing(name.into(), Value::Null, Value::Null));
    }
    let refusal = service.upgrade_resource_state(Request::new(upgrade(3))).await.unwrap().into_inner();
    assert_eq!(refusal.diagnostics[0].summary, "State is from a later provider version");
}

#[tokio::test]
async fn rule_7_a_read_says_gone_with_null_and_echoes_the_private_bytes() {
    let read = |name| wire::read_resource::Request {
        type_name: "test_thing".into(),
        current_state: sent(&old(name)),
        private: b"old".to_vec(),
        client_capabilities: None,
    };
    let service = configured().await;
    let response = service.read_resource(Request::new(read("is gone"))).await.unwrap().into_inner();
    assert_eq!(came(response.new_state), Value::Null);
    let response = service.read_resource(Request::new(read("web"))).await.unwrap().into_inner();
    assert_eq!((came(response.new_state), response.private), (old("web"), b"old".to_vec()));
}

#[tokio::test]
async fn an_import_needs_no_network_and_names_its_kind() {
    let request = wire::import_resource_state::Request {
        type_name: "test_thing".into(),
        id: "7".into(),
        client_capabilities: None,
    };
    let service = Service::new(Things, Stop::default());
    let response = service.import_resource_state(Request::new(request)).await.unwrap().into_inner();
    let imported = response.imported_resources.into_iter().next().unwrap();
    assert_eq!(imported.type_name, "test_thing");
    assert_eq!(came(imported.state), thing(Value::Null, "7".into(), Value::Null));
}
