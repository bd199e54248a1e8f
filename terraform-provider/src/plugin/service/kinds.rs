//! The kinds a provider has, by their full names, each with its schema built once and only when it is needed.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use crate::plugin::diagnostic::{Diagnostic, Diagnostics};
use crate::plugin::path::Path;
use crate::plugin::provider::{AnyDataSource, AnyResource, Provider};
use crate::plugin::schema::{Problem, Schema};
use crate::plugin::ty::Type;

/// Kinds by their full names.
pub(super) type Kinds<K> = BTreeMap<String, K>;

/// A schema and the type of its values.
#[derive(Debug)]
pub(super) struct Form {
    pub(super) schema: Schema,
    pub(super) ty: Type,
}

/// A resource with its schema.
pub(super) struct ResourceKind<C> {
    pub(super) resource: Box<dyn AnyResource<C>>,
    form: OnceLock<Result<Form, Problem>>,
}

/// A data source with its schema.
pub(super) struct DataSourceKind<C> {
    pub(super) source: Box<dyn AnyDataSource<C>>,
    form: OnceLock<Result<Form, Problem>>,
}

/// The provider with the schema of its configuration.
pub(super) struct ProviderKind<P> {
    pub(super) provider: P,
    form: OnceLock<Result<Form, Problem>>,
}

impl<C: 'static> ResourceKind<C> {
    pub(super) fn form(&self) -> Result<&Form, Diagnostics> {
        built(&self.form, || self.resource.attributes())
    }
}

impl<C: 'static> DataSourceKind<C> {
    pub(super) fn form(&self) -> Result<&Form, Diagnostics> {
        built(&self.form, || self.source.attributes())
    }
}

impl<P: Provider> ProviderKind<P> {
    pub(super) const fn new(provider: P) -> Self {
        Self { provider, form: OnceLock::new() }
    }

    pub(super) fn form(&self) -> Result<&Form, Diagnostics> {
        built(&self.form, || self.provider.schema())
    }
}

/// The resources of a provider.
pub(super) fn resources<C: 'static>(
    provider: &str,
    all: Vec<Box<dyn AnyResource<C>>>,
) -> Kinds<ResourceKind<C>> {
    let named = |resource: Box<dyn AnyResource<C>>| {
        (full_name(provider, resource.kind()), ResourceKind { resource, form: OnceLock::new() })
    };
    all.into_iter().map(named).collect()
}

/// The data sources of a provider.
pub(super) fn data_sources<C: 'static>(
    provider: &str,
    all: Vec<Box<dyn AnyDataSource<C>>>,
) -> Kinds<DataSourceKind<C>> {
    let named = |source: Box<dyn AnyDataSource<C>>| {
        (full_name(provider, source.kind()), DataSourceKind { source, form: OnceLock::new() })
    };
    all.into_iter().map(named).collect()
}

/// The kind of that name.
pub(super) fn find<'a, K>(kinds: &'a Kinds<K>, name: &str) -> Result<&'a K, Diagnostics> {
    kinds.get(name).ok_or_else(|| {
        let detail = format!("This version of the provider has no {name}.");
        Diagnostic::error(Path::root(), "Unknown kind", detail).into()
    })
}

fn full_name(provider: &str, kind: &str) -> String {
    format!("{provider}_{kind}")
}

fn built(
    form: &OnceLock<Result<Form, Problem>>,
    schema: impl FnOnce() -> Result<Schema, Problem>,
) -> Result<&Form, Diagnostics> {
    let form = form.get_or_init(|| schema().map(|schema| Form { ty: schema.ty(), schema }));
    form.as_ref().map_err(|problem| {
        let detail = format!("{problem}. This is a bug in the provider: please report it.");
        Diagnostic::error(Path::root(), "Schema cannot be served", detail).into()
    })
}
