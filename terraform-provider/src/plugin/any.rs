//! Resources and data sources without their model types, so that one table can hold them all. Every `Resource` and
//! `DataSource` is one by itself; the service is the only caller.

use tonic::async_trait;

use super::diagnostic::Diagnostics;
use super::fields::Fields;
use super::path::Path;
use super::provider::{Call, DataSource, FromFields, Model, Outcome, Plan, Resource};
use super::schema::{Problem, Schema};
use super::value::Value;

/// A resource that takes and gives values.
#[async_trait]
pub trait AnyResource<C>: Send + Sync + 'static {
    /// Its name after the provider's.
    fn kind(&self) -> &'static str;
    /// Its attributes.
    fn attributes(&self) -> Result<Schema, Problem>;
    /// What its page of documentation says beyond the schema.
    fn remarks(&self) -> String;
    /// What is wrong with a configuration.
    fn check(&self, config: &Value) -> Diagnostics;
    /// What a create or an update would lead to; the prior state is null for a create.
    fn plan_change(&self, client: &C, prior: &Value, config: &Value) -> Result<Plan<Value>, Diagnostics>;
    /// Whether it may be destroyed.
    fn plan_end(&self, client: &C, prior: &Value) -> Diagnostics;
    /// A stub for an identifier.
    fn stub(&self, id: &str) -> Result<Value, Diagnostics>;
    /// A state of an earlier version in the present form.
    fn upgraded(&self, version: i64, state: serde_json::Value) -> Result<serde_json::Value, Diagnostics>;
    /// Carries out what was planned.
    async fn apply(&self, call: Call<'_, C>, change: Change) -> Outcome<Value>;
    /// Reads it again.
    async fn refresh(&self, call: Call<'_, C>, state: Value) -> Outcome<Value>;
}

/// A data source that takes and gives values.
#[async_trait]
pub trait AnyDataSource<C>: Send + Sync + 'static {
    /// Its name after the provider's.
    fn kind(&self) -> &'static str;
    /// Its attributes.
    fn attributes(&self) -> Result<Schema, Problem>;
    /// What is wrong with a configuration.
    fn check(&self, config: &Value) -> Diagnostics;
    /// Reads it.
    async fn fetch(&self, call: Call<'_, C>, config: Value) -> Outcome<Value>;
}

/// What to carry out. The host says it by which values are null.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Make a new one.
    Create {
        /// As configured, with the write-only attributes.
        config: Value,
        /// As planned.
        planned: Value,
    },
    /// Change the one that is there.
    Update {
        /// As it was.
        prior: Value,
        /// As configured, with the write-only attributes.
        config: Value,
        /// As planned.
        planned: Value,
    },
    /// Delete it.
    Delete {
        /// As it was.
        prior: Value,
    },
}

impl Change {
    /// Sorts a change by what is null.
    pub fn of(prior: Value, config: Value, planned: Value) -> Self {
        match (prior, planned) {
            (prior, Value::Null) => Self::Delete { prior },
            (Value::Null, planned) => Self::Create { config, planned },
            (prior, planned) => Self::Update { prior, config, planned },
        }
    }
}

#[async_trait]
impl<R: Resource> AnyResource<R::Client> for R {
    fn kind(&self) -> &'static str {
        self.name()
    }

    fn attributes(&self) -> Result<Schema, Problem> {
        self.schema()
    }

    fn remarks(&self) -> String {
        self.notes()
    }

    fn check(&self, config: &Value) -> Diagnostics {
        checked(config, |model, diagnostics| self.validate(model, diagnostics))
    }

    fn plan_change(
        &self,
        client: &R::Client,
        prior: &Value,
        config: &Value,
    ) -> Result<Plan<Value>, Diagnostics> {
        let prior = if prior.is_null() { None } else { Some(parse::<R::Model>(prior)?) };
        let Plan { planned, replace, diagnostics } = self.plan(client, prior.as_ref(), &parse(config)?);
        Ok(Plan { planned: planned.into_value(), replace, diagnostics })
    }

    fn plan_end(&self, client: &R::Client, prior: &Value) -> Diagnostics {
        checked(prior, |model, diagnostics| self.plan_destroy(client, model, diagnostics))
    }

    fn stub(&self, id: &str) -> Result<Value, Diagnostics> {
        self.import(id).map(Model::into_value)
    }

    fn upgraded(&self, version: i64, state: serde_json::Value) -> Result<serde_json::Value, Diagnostics> {
        self.upgrade(version, state)
    }

    async fn apply(&self, call: Call<'_, R::Client>, change: Change) -> Outcome<Value> {
        let outcome = match change {
            Change::Create { config, planned } => match (parse(&config), parse(&planned)) {
                (Ok(config), Ok(planned)) => self.create(call, config, planned).await,
                (config, planned) => return refused([config.err(), planned.err()]),
            },
            Change::Update { prior, config, planned } => {
                match (parse(&prior), parse(&config), parse(&planned)) {
                    (Ok(prior), Ok(config), Ok(planned)) => self.update(call, prior, config, planned).await,
                    (prior, config, planned) => return refused([prior.err(), config.err(), planned.err()]),
                }
            }
            Change::Delete { prior } => match parse(&prior) {
                Ok(prior) => self.delete(call, prior).await,
                Err(diagnostics) => return Outcome::failed(diagnostics),
            },
        };
        untyped(outcome)
    }

    async fn refresh(&self, call: Call<'_, R::Client>, state: Value) -> Outcome<Value> {
        match parse(&state) {
            Ok(state) => untyped(self.read(call, state).await),
            Err(diagnostics) => Outcome::failed(diagnostics),
        }
    }
}

#[async_trait]
impl<D: DataSource> AnyDataSource<D::Client> for D {
    fn kind(&self) -> &'static str {
        self.name()
    }

    fn attributes(&self) -> Result<Schema, Problem> {
        self.schema()
    }

    fn check(&self, config: &Value) -> Diagnostics {
        checked(config, |model, diagnostics| self.validate(model, diagnostics))
    }

    async fn fetch(&self, call: Call<'_, D::Client>, config: Value) -> Outcome<Value> {
        match parse(&config) {
            Ok(config) => untyped(self.read(call, config).await),
            Err(diagnostics) => Outcome::failed(diagnostics),
        }
    }
}

/// The typed view of a value, or all that is wrong with it.
pub fn parse<M: FromFields>(value: &Value) -> Result<M, Diagnostics> {
    let mut diagnostics = Diagnostics::new();
    let model = M::read(&mut Fields::new(value, Path::root(), &mut diagnostics));
    if diagnostics.has_errors() { Err(diagnostics) } else { Ok(model) }
}

fn checked<M: FromFields>(value: &Value, check: impl FnOnce(&M, &mut Diagnostics)) -> Diagnostics {
    let mut diagnostics = Diagnostics::new();
    let model = M::read(&mut Fields::new(value, Path::root(), &mut diagnostics));
    if !diagnostics.has_errors() {
        check(&model, &mut diagnostics);
    }
    diagnostics
}

fn refused<const N: usize>(reasons: [Option<Diagnostics>; N]) -> Outcome<Value> {
    reasons.into_iter().flatten().fold(Outcome::gone(), Outcome::with)
}

fn untyped<M: Model>(outcome: Outcome<M>) -> Outcome<Value> {
    let Outcome { state, private, diagnostics } = outcome;
    Outcome { state: state.map(Model::into_value), private, diagnostics }
}
