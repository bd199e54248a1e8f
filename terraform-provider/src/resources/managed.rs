//! A kind as a resource.
//!
//! ```text
//! configuration ─ planned_all ─▶ plan ─ body ─▶ apply ─▶ wait for Ready ─▶ object ─ state ─▶ state
//! ```

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::Value as Json;
use tokio_util::sync::CancellationToken;

use super::cluster::{self, Cluster, Create, Error, Patience, Target};
use super::demand::Demand;
use super::effect;
use super::failure::Attempt;
use super::field::{self, Absent, Field, Fields, Form, is_empty};
use super::kind::{Decision, Kind, Site, Whole, Writing, set, text, without_empty};
use super::rules::{label_rules, name_rules, words};
use super::timeouts;
use super::verdict::{Verdict, late, verdict};
use crate::plugin::diagnostic::{Diagnostic, Diagnostics};
use crate::plugin::path::Path;
use crate::plugin::provider::{Call, Outcome, Plan, Resource, async_trait};
use crate::plugin::schema::{Attribute, Owner, Problem, Schema, Shape};
use crate::plugin::ty::Type;
use crate::plugin::value::Value;

/// A kind as a resource.
pub(crate) struct Managed<K> {
    kind: PhantomData<fn() -> K>,
    pub(super) fields: Fields,
    /// Read when something is validated first, which not every process does.
    demand: OnceLock<Demand>,
}

impl<K: Kind> Managed<K> {
    pub(crate) fn new() -> Self {
        let mut fields = Fields::of(&K::crd());
        K::adjust(&mut fields);
        Self { kind: PhantomData, fields, demand: OnceLock::new() }
    }

    /// The kind as its CRD has it: the provider's own attributes are not in an object.
    pub(super) fn plain() -> Self {
        Self { kind: PhantomData, fields: Fields::of(&K::crd()), demand: OnceLock::new() }
    }

    /// What the object is called.
    pub(crate) fn target(model: &Value) -> Target {
        Target {
            kind: K::resource(),
            namespace: text(model.attribute("namespace")),
            name: text(model.attribute("name")),
        }
    }

    pub(super) fn attempt<'a>(
        &'a self,
        verb: &'static str,
        target: &'a Target,
        resource: &'a str,
    ) -> Attempt<'a> {
        Attempt { verb, target, resource, fields: &self.fields.spec }
    }

    /// The object as it is to be applied: what is configured, what is kept, and a default where something else stands.
    pub(crate) fn body(&self, target: &Target, prior: &Value, config: &Value, planned: &Value) -> Json {
        let sent = |field: &&Field| {
            let of = |value: &Value| value.attribute(&field.attribute).clone();
            let defaulted = matches!(field.absent, Absent::Default(_)) && of(config).is_null();
            !field.is_own() && (!defaulted || (!prior.is_null() && of(prior) != of(planned)))
        };
        let fields: Vec<Field> = self.fields.spec.iter().filter(sent).cloned().collect();
        let [labels, annotations] = ["labels", "annotations"].map(|it| strings(planned.attribute(it)));
        let mut body = cluster::body(target, &labels, &annotations);
        body["spec"] = field::json_all(&fields, planned).into();
        K::dress(planned, &mut body);
        body
    }

    /// Whether the plan changes anything that is written. An import cannot tell null from empty; both are written alike.
    fn writes(&self, prior: &Value, planned: &Value) -> bool {
        let target = Self::target(planned);
        let hollow = |name: &str| self.fields.spec.iter().any(|it| it.hollow && it.attribute == name);
        let [before, after] = [prior, planned].map(|value| {
            let mut value = without_empty(value);
            if let Value::Object(attributes) = &mut value {
                attributes.retain(|name, value| !hollow(name) || !is_empty(value));
            }
            self.body(&target, &Value::Null, &value, &value)
        });
        !planned.is_wholly_known() || before != after
    }

    /// The state of an object, in the spelling of what was known of it.
    pub(crate) fn state(&self, object: &DynamicObject, known: &Value) -> Value {
        let nothing = Json::Null;
        let part = |name| object.data.get(name).unwrap_or(&nothing);
        let mut live = field::value_all(&self.fields.spec, part("spec"));
        if !known.is_null() {
            K::undress(object, &mut live);
        }
        let mut state = field::spelled_all(&self.fields.spec, known, &live);
        let status = field::value_all(&self.fields.status, part("status"));
        for (name, _) in K::lifted() {
            set(&mut state, &[name], K::lift(name, &status));
        }
        let namespace = object.namespace().unwrap_or_default();
        let id = format!("{namespace}/{}", object.name_any());
        let imported = known.attribute("uid").is_null();
        let entries = |name, all: &BTreeMap<String, String>| {
            let mine = known.attribute(name);
            let foreign = |key: &String| key.contains("holdfast.dev/") || key.contains("kubernetes.io/");
            let kept = all.iter().filter(|(key, _)| match mine {
                Value::Map(mine) => mine.contains_key(*key),
                _ => imported && !foreign(key),
            });
            let kept: BTreeMap<String, Value> =
                kept.map(|(key, value)| (key.clone(), field::normal(value))).collect();
            if kept.is_empty() && mine.is_null() { Value::Null } else { Value::Map(kept) }
        };
        let whole = [
            ("id", Value::from(id)),
            ("name", object.name_any().into()),
            ("namespace", namespace.into()),
            ("labels", entries("labels", object.labels())),
            ("annotations", entries("annotations", object.annotations())),
            ("uid", object.uid().into()),
            ("status", status),
            ("timeouts", known.attribute("timeouts").clone()),
        ];
        for (name, value) in whole {
            set(&mut state, &[name], value);
        }
        state
    }

    /// The state after a write. What was planned comes back; should it be another nevertheless, the next refresh says so.
    pub(crate) fn settled(&self, object: &DynamicObject, planned: &Value) -> Whole {
        let mut state = self.state(object, planned);
        for (name, _) in K::lifted() {
            let planned = planned.attribute(name);
            if planned.is_known() {
                set(&mut state, &[name], planned.clone());
            }
        }
        Whole(state)
    }

    /// Waits until the object is as it was asked to be.
    async fn ready(
        &self,
        site: &Site,
        target: &Target,
        written: DynamicObject,
        planned: &Value,
        patience: Patience<'_>,
    ) -> (DynamicObject, Diagnostics) {
        let generation = written.metadata.generation;
        let uid = written.uid();
        let mut last = written.clone();
        let looked = site.cluster.until(target, Some(written), patience, |object| {
            let Some(object) = object.filter(|object| object.uid() == uid) else {
                return Some(Err(Error::Deleted));
            };
            last = object.clone();
            match verdict(object, generation) {
                Verdict::Ready if K::missing(planned, object).is_none() => Some(Ok(None)),
                Verdict::Ready | Verdict::Waits => None,
                Verdict::Stalled(why) => Some(Ok(Some(why))),
            }
        });
        let attempt = self.attempt("wait for", target, K::NAME);
        let diagnostics = match looked.await {
            Ok(Ok(None)) => Diagnostics::new(),
            Ok(Ok(Some(why))) => {
                let detail = format!("{} {} cannot become ready: {why}", target.kind.kind, target.id());
                Diagnostic::error(Path::root(), "Object is stalled", detail).into()
            }
            Ok(Err(Error::Late)) | Err(Error::Late) => {
                let never = CancellationToken::new();
                let events =
                    Patience::to_tidy(&never).with(site.cluster.events(&last)).await.unwrap_or_default();
                late(target, &last, K::missing(planned, &last), &events).into()
            }
            Ok(Err(error)) | Err(error) => attempt.failed(&error),
        };
        (last, diagnostics)
    }

    fn patience<'a>(
        call: &Call<'a, Site>,
        model: &Value,
        operation: &str,
        default: Duration,
    ) -> Patience<'a> {
        Patience { until: Instant::now() + timeouts::of(model, operation, default), cancel: call.cancel }
    }
}

#[async_trait]
impl<K: Kind> Resource for Managed<K> {
    type Client = Site;
    type Model = Whole;

    fn name(&self) -> &'static str {
        K::NAME
    }

    fn schema(&self) -> Result<Schema, Problem> {
        let texts = || Type::map(Type::String);
        let namespace =
            "Namespace; default that of the provider, else `default`. A change replaces the resource.";
        let mut attributes = vec![
            Attribute::computed("id", Type::String, "`namespace/name`, by which it is imported."),
            Attribute::required("name", Type::String, "Name of the object. A change replaces the resource."),
            Attribute::optional_computed("namespace", Type::String, namespace),
            Attribute::optional("labels", texts(), "Labels; those that others set are left alone."),
            Attribute::optional("annotations", texts(), "Annotations; those that others set are left alone."),
        ];
        attributes.extend(self.fields.spec.iter().map(Field::configured));
        attributes.push(Attribute::computed("uid", Type::String, "UID of the object."));
        attributes
            .extend(K::lifted().iter().map(|(name, text)| Attribute::computed(*name, Type::String, *text)));
        attributes.push(Attribute::computed("status", self.status(), "What became of it, as last seen."));
        attributes.push(timeouts::attribute(K::TIMES));
        Schema::new(Owner::Resource, K::about(), attributes)
    }

    fn notes(&self) -> String {
        effect::table(&self.fields.spec, K::effects())
    }

    fn validate(&self, config: &Whole, diagnostics: &mut Diagnostics) {
        name_rules(&config.0, K::NAMES_A_HOST, diagnostics);
        label_rules(&config.0, diagnostics);
        words(&self.fields.spec, &config.0, &Path::root(), diagnostics);
        timeouts::check(&config.0, diagnostics);
        K::validate(&config.0, diagnostics);
        // Last: what is said by hand knows the remedy better.
        let demand = self.demand.get_or_init(|| Demand::of(&K::crd()));
        demand.check(&self.fields.spec, &config.0, &Path::root(), diagnostics);
    }

    fn plan(&self, site: &Site, prior: Option<&Whole>, config: &Whole) -> Plan<Whole> {
        let (config, nothing) = (&config.0, Value::Null);
        let prior = prior.map_or(&nothing, |prior| &prior.0);
        let mut planned = field::planned_all(&self.fields.spec, prior, config);
        for name in ["name", "labels", "annotations", "timeouts"] {
            set(&mut planned, &[name], config.attribute(name).clone());
        }
        let namespace = match config.attribute("namespace") {
            Value::Null => site.namespace(),
            configured => configured.clone(),
        };
        let id = match (&namespace, config.attribute("name")) {
            (Value::String(namespace), Value::String(name)) => format!("{namespace}/{name}").into(),
            _ => Value::UNKNOWN_NOT_NULL,
        };
        let uid = if prior.is_null() { Value::UNKNOWN_NOT_NULL } else { prior.attribute("uid").clone() };
        for (name, value) in [("namespace", namespace), ("id", id), ("uid", uid)] {
            set(&mut planned, &[name], value);
        }
        let mut decision = Decision { planned, replace: Vec::new(), diagnostics: Diagnostics::new() };
        K::decide(prior, config, &mut decision);
        let Decision { mut planned, replace, diagnostics } = decision;
        let writes = prior.is_null() || self.writes(prior, &planned);
        for (name, _) in K::lifted() {
            let before = prior.attribute(name);
            let kept = !writes || (!before.is_null() && K::is_kept(name, prior, &planned));
            set(&mut planned, &[name], if kept { before.clone() } else { Value::UNKNOWN });
        }
        let status = if writes { Value::UNKNOWN } else { prior.attribute("status").clone() };
        set(&mut planned, &["status"], status);
        let mut plan = Plan::of(Whole(planned)).with(diagnostics);
        if !prior.is_null() {
            let changed = self.immutable_changes(prior, &plan.planned.0);
            plan = plan.replacing(changed).replacing(replace);
            if let Some(warning) = self.needless_loss(prior, config, &plan) {
                plan = plan.with(warning.into());
            }
            if K::is_protected(prior) && !plan.replace.is_empty() {
                plan = plan.with(protected::<K>(prior).into());
            }
        }
        plan
    }

    fn plan_destroy(&self, _: &Site, prior: &Whole, diagnostics: &mut Diagnostics) {
        if K::is_protected(&prior.0) {
            diagnostics.push(protected::<K>(&prior.0));
        }
    }

    fn import(&self, id: &str) -> Result<Whole, Diagnostics> {
        let parts: Vec<_> = id.split('/').collect();
        let [namespace, name] = parts[..] else {
            let detail =
                format!("{id:?} does not name an object. Write namespace/name, such as default/web.");
            return Err(Diagnostic::error(Path::root(), "Import identifier of the wrong form", detail).into());
        };
        let mut stub = field::value_all(&self.fields.spec, &Json::Null);
        let rest = ["labels", "annotations", "uid", "status", "timeouts"];
        for name in K::lifted().iter().map(|(name, _)| *name).chain(rest) {
            set(&mut stub, &[name], Value::Null);
        }
        for (attribute, value) in [("id", id), ("namespace", namespace), ("name", name)] {
            set(&mut stub, &[attribute], value.into());
        }
        Ok(Whole(stub))
    }

    async fn create(&self, call: Call<'_, Site>, config: Whole, planned: Whole) -> Outcome<Whole> {
        let (site, target) = (call.client, Self::target(&planned.0));
        let name = format!("holdfast_{}", K::NAME);
        let attempt = self.attempt("create", &target, &name);
        let patience = Self::patience(&call, &planned.0, "create", K::TIMES.create);
        let nothing = Value::Null;
        let (planned, config) = (planned.0, config.0);
        let body = self.body(&target, &nothing, &config, &planned);
        // Asked before anything beside it is made: what is there already must stay as it is.
        match patience.with(site.cluster.get(&target)).await.flatten() {
            Ok(Some(object)) if object.metadata.deletion_timestamp.is_none() => {
                return Outcome::failed(attempt.failed(&Error::Exists));
            }
            Ok(_) => {}
            Err(error) => return Outcome::failed(attempt.failed(&error)),
        }
        let writing =
            Writing { target: &target, prior: &nothing, config: &config, planned: &planned, patience };
        if let Err(error) = K::prepare(&site.cluster, writing).await {
            return Outcome::failed(attempt.failed(&error));
        }
        let create = Create::fresh();
        let written = match site.cluster.create(&target, body, &create, patience).await {
            Ok(written) => written,
            Err(error @ Error::Unanswered(_)) => {
                let outcome = Outcome::exists(Whole(planned)).with_private(create.private());
                return outcome.with(attempt.failed(&error));
            }
            Err(error) => {
                let mut diagnostics = attempt.failed(&error);
                // What exists beside an object that another made meanwhile may be that one's.
                if !matches!(error, Error::Exists)
                    && let Err(error) = tidy::<K>(&site.cluster, &target, &planned).await
                {
                    diagnostics.append(attempt.failed(&error));
                }
                return Outcome::failed(diagnostics);
            }
        };
        let (object, diagnostics) = self.ready(site, &target, written, &planned, patience).await;
        Outcome::exists(self.settled(&object, &planned)).with(diagnostics)
    }

    async fn read(&self, call: Call<'_, Site>, state: Whole) -> Outcome<Whole> {
        let target = Self::target(&state.0);
        let patience = Self::patience(&call, &state.0, "read", timeouts::READ);
        let found = patience.with(call.client.cluster.find(&target)).await;
        let object = match found.flatten() {
            Ok(Some(object)) if is_there(&object, &state.0, call.private) => object,
            Ok(_) => return Outcome::gone(),
            Err(error) => return Outcome::failed(self.attempt("read", &target, K::NAME).failed(&error)),
        };
        let mut outcome = Outcome::exists(Whole(self.state(&object, &state.0))).with(K::unread(&object));
        if let (Value::String(known), Some(uid)) = (state.0.attribute("uid"), object.uid())
            && *known != uid
        {
            let detail = format!(
                "{} {} was made again outside of this configuration: it had the UID {known} and has {uid} now.",
                target.kind.kind,
                target.id()
            );
            outcome.diagnostics.warning(Path::root(), "Object was replaced", detail);
        }
        outcome
    }

    async fn update(
        &self,
        call: Call<'_, Site>,
        prior: Whole,
        config: Whole,
        planned: Whole,
    ) -> Outcome<Whole> {
        let (prior, config, planned) = (prior.0, config.0, planned.0);
        if planned.attribute("status").is_known() {
            return Outcome::exists(Whole(planned));
        }
        let (site, target) = (call.client, Self::target(&planned));
        let attempt = self.attempt("update", &target, K::NAME);
        let patience = Self::patience(&call, &planned, "update", K::TIMES.update);
        let body = self.body(&target, &prior, &config, &planned);
        let writing =
            Writing { target: &target, prior: &prior, config: &config, planned: &planned, patience };
        if let Err(error) = K::prepare(&site.cluster, writing).await {
            return Outcome::failed(attempt.failed(&error));
        }
        let Value::String(uid) = prior.attribute("uid").clone() else {
            // An attempt that nobody answered, and that was not read since.
            return Outcome::failed(attempt.failed(&Error::Deleted));
        };
        let written = match site.cluster.update(&target, &uid, body, patience).await {
            Ok(written) => written,
            Err(error) => return Outcome::failed(attempt.failed(&error)),
        };
        let (object, mut diagnostics) = self.ready(site, &target, written, &planned, patience).await;
        if K::is_left(&prior, &planned)
            && let Err(error) = tidy::<K>(&site.cluster, &target, &prior).await
        {
            diagnostics.append(attempt.failed(&error));
        }
        Outcome::exists(self.settled(&object, &planned)).with(diagnostics)
    }

    async fn delete(&self, call: Call<'_, Site>, prior: Whole) -> Outcome<Whole> {
        let prior = prior.0;
        if K::is_protected(&prior) {
            return Outcome::failed(protected::<K>(&prior).into());
        }
        let target = Self::target(&prior);
        let patience = Self::patience(&call, &prior, "delete", K::TIMES.delete);
        let cluster = &call.client.cluster;
        let deleted = async {
            let uid = match prior.attribute("uid") {
                Value::String(uid) => Some(uid.clone()),
                // An attempt that nobody answered, and that was not read since.
                _ => match patience.with(cluster.get(&target)).await?? {
                    Some(object) if is_there(&object, &prior, call.private) => object.uid(),
                    Some(_) => return Ok(()),
                    None => None,
                },
            };
            if let Some(uid) = uid.as_deref() {
                cluster.delete(&target, Some(uid), patience).await?;
            }
            // Before the wait: if that is cut short, the next plan finds nothing that would bring us here again.
            K::clear(cluster, &target, &prior, patience).await?;
            if uid.is_some() { cluster.until_gone(&target, uid.as_deref(), patience).await } else { Ok(()) }
        };
        match deleted.await {
            Ok(()) => Outcome::gone(),
            Err(error) => Outcome::failed(self.attempt("delete", &target, K::NAME).failed(&error)),
        }
    }
}

impl<K: Kind> Managed<K> {
    /// The changes that no object of this kind can make.
    pub(super) fn immutable_changes(&self, prior: &Value, planned: &Value) -> Vec<Path> {
        let immutable = self.fields.spec.iter().filter(|field| field.immutable);
        let names = immutable.map(|field| field.attribute.as_str()).chain(["name", "namespace"]);
        let same = |name: &str| {
            let form = self.fields.spec.iter().find(|it| it.attribute == name).map(|it| &it.form);
            let (one, other) = (prior.attribute(name), planned.attribute(name));
            form.map_or(one == other, |form| form.same(one, other))
        };
        names.filter(|name| !same(name)).map(Path::of).collect()
    }
}

impl<K> Managed<K> {
    pub(super) fn status(&self) -> Shape {
        Form::Object(self.fields.status.clone()).shape(Field::computed)
    }
}

/// Removes what was made beside an object. An interrupt must not leave it behind.
async fn tidy<K: Kind>(cluster: &Cluster, target: &Target, state: &Value) -> Result<(), Error> {
    let never = CancellationToken::new();
    K::clear(cluster, target, state, Patience::to_tidy(&never)).await
}

/// Whether this object is the one of the state.
fn is_there(object: &DynamicObject, state: &Value, private: &[u8]) -> bool {
    let unanswered = state.attribute("uid").is_null();
    object.metadata.deletion_timestamp.is_none() && Create::may_have_made(object, unanswered, private)
}

fn protected<K: Kind>(state: &Value) -> Diagnostic {
    let id = text(state.attribute("id"));
    let detail = format!(
        "{} {id} must not be deleted while deletion_protection is true. Set it to false and apply, then try again.",
        K::resource().kind
    );
    Diagnostic::error(Path::of("deletion_protection"), "Object is protected", detail)
}

fn strings(value: &Value) -> BTreeMap<String, String> {
    match value {
        Value::Map(entries) => entries.iter().map(|(key, value)| (key.clone(), text(value))).collect(),
        _ => BTreeMap::new(),
    }
}
