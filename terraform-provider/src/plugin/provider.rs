//! The traits a provider is made of: one `Provider`, and a `Resource` or `DataSource` per kind.
//!
//! ```text
//! validate ─▶ plan ─▶ (create | update | delete) ─▶ read        import ─▶ read
//! pure, no client     async, may be cancelled                   pure
//! ```
//!
//! A kind has one `Model`, a struct of `Known` fields that serves as configuration, plan and state alike. The kit turns
//! values into models and back, so an implementor never touches a value. What the kit sees to for everyone:
//!
//! - write-only attributes are null in every plan and state, and refused where the host does not know them;
//! - after an error all that is still unknown becomes null, and a failed update or delete without a state keeps the old;
//! - private bytes stay as they are unless an outcome brings others;
//! - debug builds check every reply against the host's rules (`consistency`).

use tokio_util::sync::CancellationToken;

use super::diagnostic::Diagnostics;
use super::fields::Fields;
use super::path::Path;
use super::schema::{Problem, Schema};
use super::value::Value;

pub use super::any::{AnyDataSource, AnyResource};
pub use tonic::async_trait;

/// A typed view of an object.
pub trait FromFields: Sized + Send + Sync + 'static {
    /// Reads the fields. What is wrong with them goes to `fields.diagnostics()`: then the result is thrown away.
    fn read(fields: &mut Fields<'_>) -> Self;
}

/// A typed view of a whole value, and the way back.
pub trait Model: FromFields {
    /// The model as a value: an object with every attribute of the schema.
    fn into_value(self) -> Value;
}

/// A provider.
pub trait Provider: Send + Sync + 'static {
    /// What its resources work with once it is configured.
    type Client: Send + Sync + 'static;
    /// Its configuration.
    type Config: FromFields;

    /// The name before the underscore of every kind, such as `holdfast`.
    fn name(&self) -> &'static str;

    /// The attributes of its configuration.
    fn schema(&self) -> Result<Schema, Problem>;

    /// Its resources.
    fn resources(&self) -> Vec<Box<dyn AnyResource<Self::Client>>>;

    /// Its data sources.
    fn data_sources(&self) -> Vec<Box<dyn AnyDataSource<Self::Client>>>;

    /// Looks for what is wrong with a configuration, in which anything may be unknown. No network.
    fn validate(&self, config: &Self::Config, diagnostics: &mut Diagnostics);

    /// Makes the client. Contacts nothing, and an unknown value is no error here: it fails on use, with its name.
    fn configure(&self, config: Self::Config, host: &Host) -> Result<Self::Client, Diagnostics>;
}

/// Something that is created, changed and deleted.
#[async_trait]
pub trait Resource: Send + Sync + 'static {
    /// What the provider was configured to.
    type Client: Send + Sync + 'static;
    /// Configuration, plan and state.
    type Model: Model;

    /// Its name after the provider's, such as `virtual_machine`.
    fn name(&self) -> &'static str;

    /// Its attributes.
    fn schema(&self) -> Result<Schema, Problem>;

    /// What its page of documentation says beyond the schema: Markdown, with headings of the second level.
    fn notes(&self) -> String {
        String::new()
    }

    /// Looks for what is wrong with a configuration, in which anything may be unknown. No network, no client.
    fn validate(&self, _config: &Self::Model, _diagnostics: &mut Diagnostics) {}

    /// What the state will be: a pure function of what was configured, of the prior state (`None` for a create) and of
    /// static defaults. It is called twice for one change and must answer the same. The client is here for defaults
    /// that stand in the provider's configuration.
    fn plan(
        &self,
        client: &Self::Client,
        prior: Option<&Self::Model>,
        config: &Self::Model,
    ) -> Plan<Self::Model>;

    /// Looks whether it may be destroyed. A replace does not come through here: `plan` sees to that.
    fn plan_destroy(&self, _client: &Self::Client, _prior: &Self::Model, _diagnostics: &mut Diagnostics) {}

    /// A stub for that id: what names the object, all else null. The kit's caller reads it next.
    fn import(&self, id: &str) -> Result<Self::Model, Diagnostics>;

    /// Changes a state of an earlier schema version to the present form. Attributes the schema does not have may stay.
    fn upgrade(&self, _version: i64, state: serde_json::Value) -> Result<serde_json::Value, Diagnostics> {
        Ok(state)
    }

    /// Creates it. Only `config` holds the write-only attributes.
    async fn create(
        &self,
        call: Call<'_, Self::Client>,
        config: Self::Model,
        planned: Self::Model,
    ) -> Outcome<Self::Model>;

    /// Reads it again; `Outcome::gone` when it is not there any more. Never waits.
    async fn read(&self, call: Call<'_, Self::Client>, state: Self::Model) -> Outcome<Self::Model>;

    /// Changes it in place. Only `config` holds the write-only attributes.
    async fn update(
        &self,
        call: Call<'_, Self::Client>,
        prior: Self::Model,
        config: Self::Model,
        planned: Self::Model,
    ) -> Outcome<Self::Model>;

    /// Deletes it: `Outcome::gone`, or an error.
    async fn delete(&self, call: Call<'_, Self::Client>, prior: Self::Model) -> Outcome<Self::Model>;
}

/// Something that is only read.
#[async_trait]
pub trait DataSource: Send + Sync + 'static {
    /// What the provider was configured to.
    type Client: Send + Sync + 'static;
    /// Configuration and result.
    type Model: Model;

    /// Its name after the provider's.
    fn name(&self) -> &'static str;

    /// Its attributes.
    fn schema(&self) -> Result<Schema, Problem>;

    /// Looks for what is wrong with a configuration, in which anything may be unknown. No network, no client.
    fn validate(&self, _config: &Self::Model, _diagnostics: &mut Diagnostics) {}

    /// Reads it; the configuration is wholly known. One that is not there is an error.
    async fn read(&self, call: Call<'_, Self::Client>, config: Self::Model) -> Outcome<Self::Model>;
}

/// Who calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// The version of Terraform or OpenTofu, such as `1.11.4`.
    pub version: String,
}

/// What every effect is given.
#[derive(Debug)]
pub struct Call<'a, C> {
    /// What the provider was configured to.
    pub client: &'a C,
    /// Cancelled when the user interrupts: return what exists, with an error.
    pub cancel: &'a CancellationToken,
    /// The private bytes stored with the state; empty on create.
    pub private: &'a [u8],
}

impl<C> Clone for Call<'_, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for Call<'_, C> {}

/// What a change would lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan<M> {
    /// The state after it, unknown where only the apply decides.
    pub planned: M,
    /// The attributes that cannot change in place. The host leaves out those that do not differ.
    pub replace: Vec<Path>,
    /// What the user should know, or why it cannot be done.
    pub diagnostics: Diagnostics,
}

impl<M> Plan<M> {
    /// A change in place, or none.
    pub const fn of(planned: M) -> Self {
        Self { planned, replace: Vec::new(), diagnostics: Diagnostics::new() }
    }

    /// The same, replacing the object if one of these attributes differs.
    #[must_use]
    pub fn replacing(mut self, paths: impl IntoIterator<Item = Path>) -> Self {
        self.replace.extend(paths);
        self
    }

    /// The same with more to say.
    #[must_use]
    pub fn with(mut self, diagnostics: Diagnostics) -> Self {
        self.diagnostics.append(diagnostics);
        self
    }
}

/// What an effect came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome<M> {
    /// What exists now. Beside an error it is what exists half-made: the host keeps it, tainted if it was a create.
    pub state: Option<M>,
    /// Bytes to store with the state; `None` leaves those that are there.
    pub private: Option<Vec<u8>>,
    /// What went wrong, or what the user should know.
    pub diagnostics: Diagnostics,
}

impl<M> Outcome<M> {
    /// This exists.
    pub const fn exists(state: M) -> Self {
        Self { state: Some(state), private: None, diagnostics: Diagnostics::new() }
    }

    /// Nothing exists.
    pub const fn gone() -> Self {
        Self { state: None, private: None, diagnostics: Diagnostics::new() }
    }

    /// It failed and changed nothing.
    pub const fn failed(diagnostics: Diagnostics) -> Self {
        Self { state: None, private: None, diagnostics }
    }

    /// The same with bytes to store.
    #[must_use]
    pub fn with_private(self, private: Vec<u8>) -> Self {
        Self { private: Some(private), ..self }
    }

    /// The same with more to say.
    #[must_use]
    pub fn with(mut self, diagnostics: Diagnostics) -> Self {
        self.diagnostics.append(diagnostics);
        self
    }
}
