//! Calls of one HTTP/2 connection that get nowhere: a call holds its answer for as long as its caller takes nothing of it,
//! and the connection's own signs of life say nothing of that. Connections without calls are not kept either.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Error;
use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use stockline_core::limit;
use tokio::time::{Instant, sleep};

const STALLED: Duration = Duration::from_millis(limit::STALLED_READER_MS_MAX);
const SILENCE: Duration = Duration::from_millis(limit::HTTP_IDLE_MS_MAX);
/// The answer waits for something to tell, and not for its caller.
const WAITING: u64 = u64::MAX;

/// The calls of a connection.
pub(super) struct Calls {
    began: Instant,
    open: AtomicUsize,
    /// Milliseconds since the connection began when its last call ended.
    quiet_since: AtomicU64,
    /// For each answer: when its caller was given a part of it and has not asked for more since.
    given: Mutex<Vec<Weak<AtomicU64>>>,
}

/// Counted for as long as it is there.
pub(super) struct Open(Arc<Calls>);

impl Open {
    /// The answer, which tells whether its caller takes it.
    pub(super) fn watch(self, answer: Response) -> Response {
        let given = Arc::new(AtomicU64::new(WAITING));
        let mut all = self.0.given.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= 2 * limit::HTTP_STREAMS_MAX as usize {
            all.retain(|answer| answer.strong_count() > 0);
        }
        all.push(Arc::downgrade(&given));
        drop(all);
        answer.map(|body| Body::new(Watched { body, given, calls: self }))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.quiet_since.store(self.0.now(), Ordering::Relaxed);
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Calls {
    pub(super) fn new() -> Arc<Calls> {
        Arc::new(Calls {
            began: Instant::now(),
            open: AtomicUsize::new(0),
            quiet_since: AtomicU64::new(0),
            given: Mutex::default(),
        })
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// A call begins; its answer is [watched](Open::watch).
    pub(super) fn begin(self: Arc<Calls>) -> Open {
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(self)
    }

    /// Is over when a call is stalled, or none has been there for long.
    pub(super) async fn stalled(&self) {
        loop {
            sleep(STALLED / 6).await;
            let now = self.now();
            let longer_than =
                |since: u64, limit: Duration| now.saturating_sub(since) > limit.as_millis() as u64;
            let quiet = self.open.load(Ordering::Relaxed) == 0
                && longer_than(self.quiet_since.load(Ordering::Relaxed), SILENCE);
            let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
            let stalled = given.iter().filter_map(Weak::upgrade).any(|answer| {
                let since = answer.load(Ordering::Relaxed);
                since != WAITING && longer_than(since, STALLED)
            });
            if quiet || stalled {
                return;
            }
        }
    }
}

/// An answer that knows whether its caller takes it.
struct Watched {
    body: Body,
    given: Arc<AtomicU64>,
    calls: Open,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let since = if polled.is_ready() { self.calls.0.now() } else { WAITING };
        self.given.store(since, Ordering::Relaxed);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
