//! The RPCs of provider protocol 6: decode, dispatch, encode. What is decided is decided elsewhere.
//!
//! ```text
//! request ─▶ answer (own task, panics caught) ─▶ State::<rpc> ─▶ kind ─▶ reply (rules for everyone) ─▶ response
//! ```

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use tonic::{Request, Response, Status, async_trait};

use super::diagnostic::{Diagnostic, Diagnostics};
use super::path::Path;
use super::proto::tfplugin6 as wire;
use super::proto::tfplugin6::provider_server;
use super::provider::Provider;
use super::stop::Stop;

mod answer;
mod data_sources;
mod kinds;
mod provider;
mod reply;
mod resources;

use answer::Refuse;
use kinds::{DataSourceKind, Kinds, ProviderKind, ResourceKind};

/// Serves a provider.
pub struct Service<P: Provider> {
    state: Arc<State<P>>,
}

struct State<P: Provider> {
    provider: ProviderKind<P>,
    resources: Kinds<ResourceKind<P::Client>>,
    data_sources: Kinds<DataSourceKind<P::Client>>,
    /// Absent until the provider is configured, which a process that only validates never is.
    client: RwLock<Option<Arc<P::Client>>>,
    stop: Stop,
}

impl<P: Provider> Service<P> {
    /// Serves that provider. Nothing is built before it is asked for: one command starts several of us.
    pub fn new(provider: P, stop: Stop) -> Self {
        let state = State {
            resources: kinds::resources(provider.name(), provider.resources()),
            data_sources: kinds::data_sources(provider.name(), provider.data_sources()),
            provider: ProviderKind::new(provider),
            client: RwLock::new(None),
            stop,
        };
        Self { state: Arc::new(state) }
    }

    /// Runs one RPC in a task of its own. A panic there becomes a message instead of a broken connection.
    async fn answer<Q, R, F>(
        &self,
        rpc: &'static str,
        request: Request<Q>,
        run: impl FnOnce(Arc<State<P>>, Q) -> F,
    ) -> Result<Response<R>, Status>
    where
        R: Refuse + Send + 'static,
        F: Future<Output = Result<R, Diagnostics>> + Send + 'static,
    {
        let begun = Instant::now();
        let outcome = tokio::spawn(run(Arc::clone(&self.state), request.into_inner())).await;
        tracing::debug!(rpc, took_us = begun.elapsed().as_micros(), "answered");
        let refusal = match outcome {
            Ok(Ok(response)) => return Ok(Response::new(response)),
            Ok(Err(diagnostics)) => diagnostics,
            Err(_) => panicked(rpc),
        };
        Ok(Response::new(R::refuse(super::wire::diagnostics(refusal))))
    }
}

fn panicked(rpc: &str) -> Diagnostics {
    let detail = format!(
        "{rpc} panicked. This is a bug in the provider: please report it with the log (TF_LOG=DEBUG)."
    );
    Diagnostic::error(Path::root(), "Provider crashed", detail).into()
}

impl<P: Provider> State<P> {
    fn client(&self) -> Result<Arc<P::Client>, Diagnostics> {
        let client = self.client.read().unwrap_or_else(PoisonError::into_inner).clone();
        client.ok_or_else(|| {
            let detail = "The host asked for work before it configured the provider.";
            Diagnostic::error(Path::root(), "Provider is not configured", detail).into()
        })
    }

    fn set_client(&self, client: P::Client) {
        *self.client.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(client));
    }
}

/// Each RPC: its method has the name of the module with its request and response. Pure ones answer at once.
macro_rules! rpcs {
    (pure: $($pure:ident),+; effects: $($effect:ident),+;) => {
        #[async_trait]
        impl<P: Provider> provider_server::Provider for Service<P> {
            $(async fn $pure(
                &self,
                request: Request<wire::$pure::Request>,
            ) -> Result<Response<wire::$pure::Response>, Status> {
                let run = |state: Arc<State<P>>, request| async move { state.$pure(request) };
                self.answer(stringify!($pure), request, run).await
            })+
            $(async fn $effect(
                &self,
                request: Request<wire::$effect::Request>,
            ) -> Result<Response<wire::$effect::Response>, Status> {
                let run = |state: Arc<State<P>>, request| async move { state.$effect(request).await };
                self.answer(stringify!($effect), request, run).await
            })+

            async fn get_functions(
                &self,
                _: Request<wire::get_functions::Request>,
            ) -> Result<Response<wire::get_functions::Response>, Status> {
                Ok(Response::new(wire::get_functions::Response {}))
            }

            async fn stop_provider(
                &self,
                _: Request<wire::stop_provider::Request>,
            ) -> Result<Response<wire::stop_provider::Response>, Status> {
                self.state.stop.cancel();
                Ok(Response::new(wire::stop_provider::Response::default()))
            }
        }
    };
}

rpcs! {
    pure: get_provider_schema, validate_provider_config, validate_resource_config, validate_data_resource_config,
        upgrade_resource_state, configure_provider, plan_resource_change, import_resource_state;
    effects: read_resource, apply_resource_change, read_data_source;
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
