//! What goes around every call: its id and trace, its time, its limits, and what is counted and logged of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use stockline_core::catalogue::{Principal, Role};
use stockline_core::limit;
use tokio::time::timeout;

use super::problem::{Problem, ProblemCode};
use super::stall::Calls;
use crate::engine::Engine;
use crate::log;
use crate::metrics::Operation;
use crate::principal::Rate;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static RATE: HeaderName = HeaderName::from_static("ratelimit");
static RATE_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Of a path so much is logged.
const PATH_BYTES_TOLD: usize = 256;

/// What turns out about a call while it is answered.
#[derive(Clone, Default)]
pub(super) struct Known(Arc<OnceLock<(Arc<Principal>, Option<Rate>)>>);

impl Known {
    /// Says who calls, and what the token may still do.
    pub(super) fn set(&self, principal: Arc<Principal>, rate: Option<Rate>) {
        // Who calls is found out once.
        let _ = self.0.set((principal, rate));
    }
}

/// A version of the calls that will be given up: when that was said, and when it will be, as HTTP dates.
struct Retired {
    prefix: &'static str,
    deprecation: &'static str,
    sunset: &'static str,
}

/// None yet. RFC 9745 (`Deprecation`) and RFC 8594 (`Sunset`).
const RETIRED: [Retired; 0] = [];

/// Ids are for finding a call again: they differ by their last digits, and from those of other processes by the rest.
static START: LazyLock<u128> = LazyLock::new(|| {
    let mut bytes = [0; 16];
    // Without random numbers only ids of one process differ.
    let _ = getrandom::fill(&mut bytes);
    u128::from_be_bytes(bytes)
});
static NEXT: AtomicU64 = AtomicU64::new(0);

/// The id that the caller gave the call, if it is fit to be written anywhere, or a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let fit = |value: &&HeaderValue| {
        (1..=128).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    headers.get(&REQUEST_ID).filter(fit).cloned().unwrap_or_else(|| {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let bytes = (*START ^ u128::from(number)).to_be_bytes();
        let id = uuid::Builder::from_random_bytes(bytes).into_uuid();
        let mut text = uuid::Uuid::encode_buffer();
        HeaderValue::from_str(id.hyphenated().encode_lower(&mut text)).expect("hex digits")
    })
}

/// The trace that the call is part of: the id in a sound `traceparent` of W3C Trace Context.
fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let mut parts = text.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, len: usize| {
        text.len() == len && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let some = |text: &str| text.bytes().any(|byte| byte != b'0');
    let sound = hex(version, 2) && version != "ff" && hex(trace, 32) && hex(parent, 16) && hex(flags, 2);
    (sound && some(trace) && some(parent) && (version != "00" || parts.next().is_none())).then_some(trace)
}

pub(super) async fn wrap(State(engine): State<Engine>, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let id = request_id(request.headers());
    let trace = trace_id(request.headers()).map(str::to_owned);
    let open = request.extensions_mut().remove::<Arc<Calls>>().map(Calls::begin);
    let known = Known::default();
    request.extensions_mut().insert(known.clone());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let operation =
        Operation::of_call(&method, request.extensions().get::<MatchedPath>().map(MatchedPath::as_str));
    let answered = timeout(Duration::from_millis(limit::HTTP_CALL_MS_MAX), next.run(request)).await;
    let mut response = answered.unwrap_or_else(|_| {
        let text = "it took too long; what became of it, the same call with the same key will say";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "TIMED_OUT", text).into_response()
    });
    let took = begun.elapsed();
    let status = response.status();
    engine.metrics().called(operation, status.as_u16(), took);
    let problem = response.extensions_mut().remove::<ProblemCode>();
    if let Some(code) = problem.as_ref().and_then(|problem| problem.at_the_door) {
        engine.metrics().refused(code);
    }
    let code = problem.map(|problem| problem.name);
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    for retired in RETIRED.iter().filter(|retired| path.starts_with(retired.prefix)) {
        headers.insert("deprecation", HeaderValue::from_static(retired.deprecation));
        headers.insert("sunset", HeaderValue::from_static(retired.sunset));
    }
    let (principal, rate) = known.0.get().map_or((None, None), |(principal, rate)| (Some(principal), *rate));
    if let Some(rate) = rate {
        let value = |text: String| HeaderValue::from_str(&text).expect("digits");
        headers.insert(&RATE_POLICY, value(format!("\"token\";q={};w=1", rate.quota)));
        headers.insert(&RATE, value(format!("\"token\";r={};t=1", rate.left)));
    }
    let name = principal.map_or("", |principal| &*principal.name);
    let administers =
        operation.administers() && principal.is_some_and(|principal| principal.role == Role::Admin);
    let turned_away = matches!(status.as_u16(), 401 | 403 | 429);
    let (request, trace) = (id.to_str().unwrap_or_default(), trace.as_deref().unwrap_or_default());
    let (status, us) = (status.as_u16(), took.as_micros() as u64);
    let code = code.as_deref().unwrap_or_default();
    let path = &path[..path.floor_char_boundary(PATH_BYTES_TOLD)];
    if administers || (turned_away && (principal.is_some() || log::may_tell_of_strangers())) {
        tracing::info!(target: "audit", face = "http", principal = name, %method, path, status, code, request, trace);
    } else {
        tracing::debug!(target: "http", principal = name, %method, path, status, code, us, request, trace);
    }
    headers.insert(&REQUEST_ID, id);
    match open {
        Some(open) => open.watch(response),
        None => response,
    }
}
