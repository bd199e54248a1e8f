//! How each response says that a call could not be answered.

use crate::plugin::proto::tfplugin6 as wire;

/// A response that can hold messages and nothing else.
pub(super) trait Refuse {
    /// The response with these messages.
    fn refuse(diagnostics: Vec<wire::Diagnostic>) -> Self;
}

macro_rules! refuse {
    ($($module:ident),+ $(,)?) => {
        $(impl Refuse for wire::$module::Response {
            fn refuse(diagnostics: Vec<wire::Diagnostic>) -> Self {
                Self { diagnostics, ..Self::default() }
            }
        })+
    };
}

refuse! {
    get_provider_schema,
    upgrade_resource_state,
    read_resource,
    plan_resource_change,
    apply_resource_change,
    import_resource_state,
    read_data_source,
}

/// Responses with nothing but messages: leaving out other fields would be a needless update.
macro_rules! refuse_only {
    ($($module:ident),+ $(,)?) => {
        $(impl Refuse for wire::$module::Response {
            fn refuse(diagnostics: Vec<wire::Diagnostic>) -> Self {
                Self { diagnostics }
            }
        })+
    };
}

refuse_only! { validate_provider_config, validate_resource_config, validate_data_resource_config, configure_provider }
