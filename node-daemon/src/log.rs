//! The log: events with fields on standard error, as text for people or JSON for programs. journald keeps it.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{Log, LogFormat, LogLevel};

/// Starts the log; once per process. `RUST_LOG` overrides the level.
pub(crate) fn start(log: &Log) -> Result<(), TryInitError> {
    let asked = std::env::var("RUST_LOG").ok().and_then(|text| text.parse().ok());
    let filter: Targets = asked.unwrap_or_else(|| targets(log.level));
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
fn targets(level: LogLevel) -> Targets {
    let (others, clients, own) = match level {
        LogLevel::Error => (LevelFilter::ERROR, LevelFilter::OFF, LevelFilter::ERROR),
        LogLevel::Warn => (LevelFilter::WARN, LevelFilter::OFF, LevelFilter::WARN),
        LogLevel::Info => (LevelFilter::WARN, LevelFilter::OFF, LevelFilter::INFO),
        LogLevel::Debug => (LevelFilter::INFO, LevelFilter::INFO, LevelFilter::DEBUG),
    };
    Targets::new()
        .with_default(others)
        .with_target("kube_client", clients)
        .with_target("kube_runtime", clients)
        .with_target("holdfast_node", own)
}
