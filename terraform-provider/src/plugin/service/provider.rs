//! The RPCs about the provider as a whole.

use super::State;
use super::kinds::Form;
use crate::plugin::any::parse;
use crate::plugin::diagnostic::Diagnostics;
use crate::plugin::fields::Fields;
use crate::plugin::path::Path;
use crate::plugin::proto::tfplugin6::{
    self as message, configure_provider, get_provider_schema, validate_provider_config,
};
use crate::plugin::provider::{FromFields, Host, Provider};
use crate::plugin::wire;

impl<P: Provider> State<P> {
    pub(super) fn get_provider_schema(
        &self,
        _: get_provider_schema::Request,
    ) -> Result<get_provider_schema::Response, Diagnostics> {
        let mut response = get_provider_schema::Response {
            provider: Some(schema(self.provider.form()?)),
            // The deletion of a protected object is refused at plan, and later processes of a command skip this call.
            server_capabilities: Some(message::ServerCapabilities {
                plan_destroy: true,
                get_provider_schema_optional: true,
            }),
            ..Default::default()
        };
        for (name, kind) in &self.resources {
            response.resource_schemas.insert(name.clone(), schema(kind.form()?));
        }
        for (name, kind) in &self.data_sources {
            response.data_source_schemas.insert(name.clone(), schema(kind.form()?));
        }
        Ok(response)
    }

    pub(super) fn validate_provider_config(
        &self,
        request: validate_provider_config::Request,
    ) -> Result<validate_provider_config::Response, Diagnostics> {
        let config = wire::value(request.config, &self.provider.form()?.ty)?;
        let mut diagnostics = Diagnostics::new();
        let model = P::Config::read(&mut Fields::new(&config, Path::root(), &mut diagnostics));
        if !diagnostics.has_errors() {
            self.provider.provider.validate(&model, &mut diagnostics);
        }
        Ok(validate_provider_config::Response { diagnostics: wire::diagnostics(diagnostics) })
    }

    pub(super) fn configure_provider(
        &self,
        request: configure_provider::Request,
    ) -> Result<configure_provider::Response, Diagnostics> {
        let config = wire::value(request.config, &self.provider.form()?.ty)?;
        let host = Host { version: request.terraform_version };
        let client = self.provider.provider.configure(parse(&config)?, &host)?;
        self.stop.renew();
        self.set_client(client);
        Ok(configure_provider::Response::default())
    }
}

fn schema(form: &Form) -> message::Schema {
    wire::schema(&form.schema)
}
