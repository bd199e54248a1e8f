//! The RPCs about data sources.

use super::{State, kinds, reply};
use crate::plugin::diagnostic::Diagnostics;
use crate::plugin::proto::tfplugin6::{read_data_source, validate_data_resource_config};
use crate::plugin::provider::{Call, Provider};
use crate::plugin::wire;

impl<P: Provider> State<P> {
    pub(super) fn validate_data_resource_config(
        &self,
        request: validate_data_resource_config::Request,
    ) -> Result<validate_data_resource_config::Response, Diagnostics> {
        let kind = kinds::find(&self.data_sources, &request.type_name)?;
        let config = wire::value(request.config, &kind.form()?.ty)?;
        let diagnostics = wire::diagnostics(kind.source.check(&config));
        Ok(validate_data_resource_config::Response { diagnostics })
    }

    pub(super) async fn read_data_source(
        &self,
        request: read_data_source::Request,
    ) -> Result<read_data_source::Response, Diagnostics> {
        let kind = kinds::find(&self.data_sources, &request.type_name)?;
        let form = kind.form()?;
        let (client, cancel) = (self.client()?, self.stop.token());
        let call = Call { client: &*client, cancel: &cancel, private: &[] };
        let config = wire::value(request.config, &form.ty)?;
        let found = reply::found(form, kind.source.fetch(call, config).await)?;
        Ok(read_data_source::Response {
            state: Some(wire::dynamic(&found.state, &form.ty)?),
            diagnostics: wire::diagnostics(found.diagnostics),
        })
    }
}
