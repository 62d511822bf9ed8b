//! Log lines: what is written, where and how. They go to standard error, one event a line.
//!
//! Logging never ends or blocks the server: lines wait in a bounded queue for a thread of their own. What finds no room, and
//! what cannot be written because standard error is closed or its disk full, is counted.

use std::io::{self, Write};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{LazyLock, OnceLock};
use std::time::{Duration, Instant};

use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use stockline_core::id::PrincipalId;
use stockline_core::limit;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::LogFormat;

/// What `--log` says, or why it says nothing.
pub fn filter(text: &str) -> Result<EnvFilter, String> {
    EnvFilter::builder().parse(text).map_err(|error| error.to_string())
}

static LINES: OnceLock<SyncSender<Vec<u8>>> = OnceLock::new();
static WAITING: AtomicU64 = AtomicU64::new(0);
static LOST: AtomicU64 = AtomicU64::new(0);

/// Log lines that were not written.
pub fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// One line on its way.
pub struct Line(Vec<u8>);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let line = std::mem::take(&mut self.0);
        let Some(lines) = LINES.get().filter(|_| !line.is_empty()) else { return };
        WAITING.fetch_add(1, Ordering::SeqCst);
        if lines.try_send(line).is_err() {
            WAITING.fetch_sub(1, Ordering::SeqCst);
            LOST.fetch_add(1, Ordering::Relaxed);
        }
    }
}

struct Lines;

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(Vec::new())
    }
}

fn write(lines: &Receiver<Vec<u8>>) {
    for line in lines {
        if io::stderr().lock().write_all(&line).is_err() {
            LOST.fetch_add(1, Ordering::Relaxed);
        }
        WAITING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Starts logging, for as long as the process lives.
pub fn start(format: LogFormat, filter: EnvFilter) {
    let (send, receive) = sync_channel(limit::LOG_LINES_WAITING_MAX);
    if LINES.set(send).is_ok() {
        let named = std::thread::Builder::new().name("log".into());
        if named.spawn(move || write(&receive)).is_err() {
            crate::err!("stockline: no thread for log lines: nothing is logged");
        }
    }
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(Lines).log_internal_errors(false);
    // A second start in one process (tests) keeps the first.
    let _ = match format {
        LogFormat::Text => lines.with_ansi(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).try_init(),
    };
}

/// Waits a moment for lines that are on their way, before the process ends.
pub fn flush() {
    let begun = Instant::now();
    while WAITING.load(Ordering::SeqCst) > 0 && begun.elapsed() < Duration::from_secs(1) {
        std::thread::yield_now();
    }
}

/// Lines a second about calls of nobody that is known, and about refused calls of one token.
const STRANGERS_PER_S: NonZeroU32 = NonZeroU32::new(50).unwrap();
const TOKEN_PER_S: NonZeroU32 = NonZeroU32::new(20).unwrap();

/// Whether there is room for one more line about somebody who is not known: strangers do not fill the disk.
pub fn may_tell_of_strangers() -> bool {
    static ROOM: LazyLock<DefaultDirectRateLimiter> =
        LazyLock::new(|| RateLimiter::direct(Quota::per_second(STRANGERS_PER_S)));
    ROOM.check().is_ok()
}

/// The same for what one token was refused.
pub fn may_tell_of(principal: PrincipalId) -> bool {
    static ROOM: LazyLock<DefaultKeyedRateLimiter<PrincipalId>> =
        LazyLock::new(|| RateLimiter::keyed(Quota::per_second(TOKEN_PER_S)));
    ROOM.check_key(&principal).is_ok()
}
