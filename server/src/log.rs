//! Log lines: what is written, where and how. They go to standard error, one event a line.

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// What `--log` says, or why it says nothing.
pub fn filter(text: &str) -> Result<EnvFilter, String> {
    EnvFilter::builder().parse(text).map_err(|error| error.to_string())
}

/// Starts logging, for as long as the process lives.
pub fn start(format: LogFormat, filter: EnvFilter) {
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start in one process (tests) keeps the first.
    let _ = match format {
        LogFormat::Text => lines.with_ansi(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).try_init(),
    };
}
