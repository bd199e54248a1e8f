//! The generated messages and services, and nothing else.

/// Provider protocol 6.
#[allow(missing_docs, unreachable_pub, clippy::pedantic)]
pub mod tfplugin6 {
    tonic::include_proto!("tfplugin6");
}

/// What the host asks of any plugin.
#[allow(missing_docs, unreachable_pub, clippy::pedantic)]
pub mod plugin {
    tonic::include_proto!("plugin");
}
