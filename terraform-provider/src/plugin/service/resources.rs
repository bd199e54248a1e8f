//! The RPCs about resources.

use super::kinds::ResourceKind;
use super::{State, kinds, reply};
use crate::plugin::any::Change;
use crate::plugin::diagnostic::{Diagnostic, Diagnostics};
use crate::plugin::json::{self, Attributes};
use crate::plugin::path::Path;
use crate::plugin::proto::tfplugin6::{
    apply_resource_change, import_resource_state, plan_resource_change, read_resource,
    upgrade_resource_state, validate_resource_config,
};
use crate::plugin::provider::{Call, Provider};
use crate::plugin::value::Value;
use crate::plugin::wire;

impl<P: Provider> State<P> {
    pub(super) fn validate_resource_config(
        &self,
        request: validate_resource_config::Request,
    ) -> Result<validate_resource_config::Response, Diagnostics> {
        let kind = self.resource(&request.type_name)?;
        let form = kind.form()?;
        let config = wire::value(request.config, &form.ty)?;
        let knows = request.client_capabilities.is_some_and(|it| it.write_only_attributes_allowed);
        let mut diagnostics =
            if knows { Diagnostics::new() } else { reply::write_only_refused(form, &config) };
        diagnostics.append(kind.resource.check(&config));
        Ok(validate_resource_config::Response { diagnostics: wire::diagnostics(diagnostics) })
    }

    pub(super) fn upgrade_resource_state(
        &self,
        request: upgrade_resource_state::Request,
    ) -> Result<upgrade_resource_state::Response, Diagnostics> {
        let kind = self.resource(&request.type_name)?;
        let form = kind.form()?;
        let raw = request.raw_state.unwrap_or_default().json;
        let stored = json::parse(&raw).map_err(|mismatch| wire::unreadable(&mismatch))?;
        let present = upgraded(kind, request.version, form.schema.version(), stored)?;
        let state = json::typed(&present, &form.ty, Attributes::Lenient);
        let state = state.map_err(|mismatch| wire::unreadable(&mismatch))?;
        let upgraded_state = Some(wire::dynamic(&form.schema.without_write_only(state), &form.ty)?);
        Ok(upgrade_resource_state::Response { upgraded_state, diagnostics: Vec::new() })
    }

    pub(super) async fn read_resource(
        &self,
        request: read_resource::Request,
    ) -> Result<read_resource::Response, Diagnostics> {
        let kind = self.resource(&request.type_name)?;
        let form = kind.form()?;
        let (client, cancel) = (self.client()?, self.stop.token());
        let call = Call { client: &*client, cancel: &cancel, private: &request.private };
        let before = wire::value(request.current_state, &form.ty)?;
        let outcome = kind.resource.refresh(call, before.clone()).await;
        let settled = reply::refreshed(form, before, request.private.clone(), outcome);
        Ok(read_resource::Response {
            new_state: Some(wire::dynamic(&settled.state, &form.ty)?),
            diagnostics: wire::diagnostics(settled.diagnostics),
            private: settled.private,
        })
    }

    pub(super) fn plan_resource_change(
        &self,
        request: plan_resource_change::Request,
    ) -> Result<plan_resource_change::Response, Diagnostics> {
        let kind = self.resource(&request.type_name)?;
        let form = kind.form()?;
        let client = self.client()?;
        let prior = wire::value(request.prior_state, &form.ty)?;
        let config = wire::value(request.config, &form.ty)?;
        // Beyond telling a destroy it is of no use: it merges the elements of lists by position.
        let proposed = wire::value(request.proposed_new_state, &form.ty)?;
        let planned = if proposed.is_null() {
            reply::planned_end(kind.resource.plan_end(&client, &prior))
        } else {
            reply::planned(form, &prior, &config, kind.resource.plan_change(&client, &prior, &config)?)
        };
        Ok(plan_resource_change::Response {
            planned_state: Some(wire::dynamic(&planned.planned, &form.ty)?),
            requires_replace: planned.replace.iter().map(wire::attribute_path).collect(),
            planned_private: request.prior_private,
            diagnostics: wire::diagnostics(planned.diagnostics),
        })
    }

    pub(super) async fn apply_resource_change(
        &self,
        request: apply_resource_change::Request,
    ) -> Result<apply_resource_change::Response, Diagnostics> {
        let kind = self.resource(&request.type_name)?;
        let form = kind.form()?;
        let (client, cancel) = (self.client()?, self.stop.token());
        let call = Call { client: &*client, cancel: &cancel, private: &request.planned_private };
        let prior = wire::value(request.prior_state, &form.ty)?;
        let planned = wire::value(request.planned_state, &form.ty)?;
        let config = wire::value(request.config, &form.ty)?;
        let outcome = kind.resource.apply(call, Change::of(prior.clone(), config, planned.clone())).await;
        let settled = reply::applied(form, prior, &planned, request.planned_private.clone(), outcome);
        Ok(apply_resource_change::Response {
            new_state: Some(wire::dynamic(&settled.state, &form.ty)?),
            private: settled.private,
            diagnostics: wire::diagnostics(settled.diagnostics),
        })
    }

    pub(super) fn import_resource_state(
        &self,
        request: import_resource_state::Request,
    ) -> Result<import_resource_state::Response, Diagnostics> {
        let kind = self.resource(&request.type_name)?;
        let form = kind.form()?;
        let stub: Value = kind.resource.stub(&request.id)?;
        let imported = import_resource_state::ImportedResource {
            type_name: request.type_name,
            state: Some(wire::dynamic(&form.schema.without_write_only(stub), &form.ty)?),
            private: Vec::new(),
        };
        Ok(import_resource_state::Response { imported_resources: vec![imported], diagnostics: Vec::new() })
    }

    fn resource(&self, name: &str) -> Result<&ResourceKind<P::Client>, Diagnostics> {
        kinds::find(&self.resources, name)
    }
}

/// The host calls at equal versions too, and once per object at every plan.
fn upgraded<C: 'static>(
    kind: &ResourceKind<C>,
    from: i64,
    to: i64,
    stored: serde_json::Value,
) -> Result<serde_json::Value, Diagnostics> {
    match from.cmp(&to) {
        std::cmp::Ordering::Equal => Ok(stored),
        std::cmp::Ordering::Less => kind.resource.upgraded(from, stored),
        std::cmp::Ordering::Greater => {
            let detail = format!(
                "The state has schema version {from}, this provider knows up to {to}. Use the provider version that \
                 wrote the state, or a later one."
            );
            Err(Diagnostic::error(Path::root(), "State is from a later provider version", detail).into())
        }
    }
}
