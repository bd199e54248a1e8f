//! The log: events with fields on standard error, as text for people or JSON for programs. journald keeps it.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{Log, LogFormat, LogLevel};

/// Starts the log; once per process. `RUST_LOG` overrides the level.
pub(crate) fn start(log: &Log) -> Result<(), TryInitError> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(directives(log.level)));
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match log.format {
        LogFormat::Text => {
            let terminal = std::io::stderr().is_terminal();
            registry.with(lines.with_ansi(terminal).with_target(false)).try_init()
        }
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    }
}

/// Our own level, and the libraries one step quieter: their info is our debug. The API client calls every failed attempt
/// an error; that the API is away is our news to tell, once.
fn directives(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error,kube_client=off,kube_runtime=off",
        LogLevel::Warn => "warn,kube_client=off,kube_runtime=off",
        LogLevel::Info => "warn,kube_client=off,kube_runtime=off,holdfast_node=info",
        LogLevel::Debug => "info,holdfast_node=debug",
    }
}
