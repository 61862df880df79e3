//! What this process tells of itself: its log, and traces where somebody
//! collects them.

mod json;
mod traces;

use std::io;

use clap::ValueEnum;
use serde::Deserialize;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

use crate::config::Settings;

pub(crate) use traces::export as export_traces;

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object per line, for programs
    Json,
}

/// Sends the log to standard error, and spans to where [`export_traces`] finds
/// them. `service` is the name under which traces are known; none for verbs
/// that end soon, whose log is for people and starts at `warn`.
///
/// # Errors
///
/// A collector's URL that is none.
pub(crate) fn init(settings: &Settings, service: Option<&'static str>) -> anyhow::Result<()> {
    // What the broker's client tells as errors we cope with, and tell ourselves.
    let default = if service.is_some() { "info,lapin=off" } else { "warn,lapin=off" };
    let filter = EnvFilter::new(settings.log.level.as_deref().unwrap_or(default));
    let lines = match settings.log.format {
        LogFormat::Text => fmt::layer()
            .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
            .with_target(false)
            .with_writer(io::stderr)
            .with_filter(filter)
            .boxed(),
        LogFormat::Json => fmt::layer()
            .event_format(json::Lines)
            .fmt_fields(JsonFields::new())
            .with_writer(io::stderr)
            .with_filter(filter)
            .boxed(),
    };
    let spans = match service {
        Some(service) => traces::layer(service, settings.traces.otlp_endpoint.as_deref())?,
        None => None,
    };
    tracing_subscriber::registry().with(lines).with(spans).init();
    Ok(())
}
