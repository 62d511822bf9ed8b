//! Log lines: what is written, where and how. They go to standard error, one event a line.

use std::num::NonZeroU32;
use std::sync::LazyLock;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
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

/// Lines a second about calls of nobody that is known.
const STRANGERS_PER_S: NonZeroU32 = NonZeroU32::new(50).unwrap();

/// Whether there is room for one more line about somebody who is not known: strangers do not fill the disk.
pub fn may_tell_of_strangers() -> bool {
    static ROOM: LazyLock<DefaultDirectRateLimiter> =
        LazyLock::new(|| RateLimiter::direct(Quota::per_second(STRANGERS_PER_S)));
    ROOM.check().is_ok()
}
