//! The log: one JSON object per line on standard error, in the form the host takes apart (go-plugin:log_entry.go). It
//! asserts unchecked that the fields with an `@` are strings, and drops lines of 64 KiB and more.
//!
//! Never a value of a configuration or a state, and never user data, at any level.

use std::fmt::{self, Write};
use std::io;

use jiff::Timestamp;
use serde_json::{Map, Value as Json};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

/// This crate, whose events never hold a value.
const OURS: &str = env!("CARGO_CRATE_NAME");

/// Bytes of a message, and of each field beside it. The host's limit is for the line, and quoting makes a byte six at
/// worst (`\u0000`).
const MESSAGE: usize = 4 * 1024;
const FIELD: usize = 1024;

/// Starts the log and has panics reported; once per process. The level is that of `TF_LOG_PROVIDER`, else of `TF_LOG`.
pub fn start(variable: impl Fn(&str) -> Option<String>) {
    let level = level(variable("TF_LOG_PROVIDER").or_else(|| variable("TF_LOG")).as_deref());
    // The libraries under us describe frames, certificates and requests below that, and warn with the text of answers they
    // cannot read: noise, and not ours to vouch for.
    let targets = Targets::new().with_default(level.min(LevelFilter::ERROR)).with_target(OURS, level);
    let lines = tracing_subscriber::fmt::layer().event_format(HostFormat).with_writer(io::stderr);
    let subscriber = tracing_subscriber::registry().with(lines.with_filter(targets));
    // It fails only if there is a log already, which is then good enough.
    let _ = tracing::subscriber::set_global_default(subscriber);
    std::panic::set_hook(Box::new(|panic| {
        // The host records what follows such a line and shows it to the user as a crash (terraform:internal/logging/panic.go).
        let trace = std::backtrace::Backtrace::force_capture();
        let _ = io::Write::write_all(&mut io::stderr(), format!("panic: {panic}\n\n{trace}\n").as_bytes());
    }));
}

/// Without a word from the user the host drops the log, and a person in debug mode wants to see what matters.
fn level(word: Option<&str>) -> LevelFilter {
    match word.map(str::to_ascii_uppercase).as_deref() {
        Some("TRACE" | "JSON") => LevelFilter::TRACE,
        Some("DEBUG") => LevelFilter::DEBUG,
        Some("INFO") => LevelFilter::INFO,
        Some("ERROR") => LevelFilter::ERROR,
        Some("OFF") => LevelFilter::OFF,
        _ => LevelFilter::WARN,
    }
}

struct HostFormat;

impl<S, N> FormatEvent<S, N> for HostFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let metadata = event.metadata();
        let mut fields = Fields::default();
        event.record(&mut fields);
        writeln!(out, "{}", entry(*metadata.level(), metadata.target(), Timestamp::now(), fields))
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Json>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            self.others.insert(field.name().to_owned(), cut(format!("{value:?}"), FIELD).into());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

fn entry(level: Level, module: &str, at: Timestamp, fields: Fields) -> Json {
    let Fields { message, mut others } = fields;
    others.insert("@level".to_owned(), level.as_str().to_ascii_lowercase().into());
    others.insert("@message".to_owned(), cut(message, MESSAGE).into());
    others.insert("@module".to_owned(), module.into());
    // Six digits of fraction, no more and no fewer: the host parses with a fixed pattern.
    others.insert("@timestamp".to_owned(), format!("{at:.6}").into());
    Json::Object(others)
}

fn cut(mut text: String, length: usize) -> String {
    let end = (0..=length.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_the_host_asserts_is_a_string_and_the_time_has_six_digits() {
        let at = Timestamp::from_second(1_700_000_000).unwrap();
        let fields =
            Fields { message: "answered".into(), others: Map::from_iter([("rpc".into(), "plan".into())]) };
        let entry = entry(Level::DEBUG, "plugin", at, fields).to_string();
        assert_eq!(
            entry,
            r#"{"@level":"debug","@message":"answered","@module":"plugin","@timestamp":"2023-11-14T22:13:20.000000Z","rpc":"plan"}"#
        );
    }

    #[test]
    fn a_line_stays_below_what_the_host_takes() {
        let at = Timestamp::from_second(0).unwrap();
        let fields = Fields { message: "\0".repeat(100_000), others: Map::new() };
        assert!(entry(Level::INFO, "plugin", at, fields).to_string().len() < 64 * 1024);
    }

    #[test]
    fn the_level_is_what_the_user_said() {
        assert_eq!(level(Some("trace")), LevelFilter::TRACE);
        assert_eq!(level(Some("JSON")), LevelFilter::TRACE);
        assert_eq!(level(Some("OFF")), LevelFilter::OFF);
        assert_eq!(level(None), LevelFilter::WARN);
    }
}
