//! What goes around every call: its id and trace, its time, its limits, and what is counted and logged of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use stockline_core::catalogue::{Principal, Role};
use stockline_core::id::PrincipalId;
use stockline_core::limit;
use tokio::time::timeout;

use super::accept::Peer;
use super::answer;
use super::problem::{Counts, Problem, ProblemCode};
use super::stall::Calls;
use crate::access;
use crate::engine::{AuditEntry, Engine};
use crate::log;
use crate::metrics::Operation;
use crate::principal::Rate;
use crate::trace::{self, Parent, Span};

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static RATE: HeaderName = HeaderName::from_static("ratelimit");
static RATE_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// What turns out about a call while it is answered.
#[derive(Clone, Default)]
pub(super) struct Known(Arc<OnceLock<(Arc<Principal>, Option<Rate>)>>);

impl Known {
    /// Who calls.
    pub(super) fn principal(&self) -> Option<PrincipalId> {
        self.get().map(|(principal, _)| principal.id)
    }

    fn get(&self) -> Option<&(Arc<Principal>, Option<Rate>)> {
        self.0.get()
    }

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

/// Says of an answer that its version will be given up.
fn retire(headers: &mut HeaderMap, path: &str, all: &[Retired]) {
    for retired in all.iter().filter(|retired| path.starts_with(retired.prefix)) {
        headers.insert("deprecation", HeaderValue::from_static(retired.deprecation));
        headers.insert("sunset", HeaderValue::from_static(retired.sunset));
    }
}

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

/// A method as traces have it: strangers do not make up names.
fn method_told(method: &Method) -> &str {
    match *method {
        Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::DELETE => method.as_str(),
        Method::PATCH | Method::OPTIONS | Method::TRACE | Method::CONNECT => method.as_str(),
        _ => "_OTHER",
    }
}

/// A call under way. However it ends, by an answer or because its caller went away, that is logged, and what is for the
/// audit trail told there.
struct Call {
    engine: Engine,
    begun: Instant,
    operation: Operation,
    peer: Option<Peer>,
    method: Method,
    uri: Uri,
    request: HeaderValue,
    parent: Option<Parent>,
    span: Span,
    is_over: bool,
}

/// A call is answered within so long.
const PATIENCE: Duration = Duration::from_millis(limit::HTTP_CALL_MS_MAX);
/// What stands in place of a status where nobody waited for one.
const LEFT: (u16, &str) = (0, "LEFT");

impl Call {
    /// Says how it ended; answers what to wait for before the caller is told.
    fn over(&mut self, (status, code): (u16, &str)) -> Option<u64> {
        self.is_over = true;
        let known = self.peer.as_ref().and_then(|peer| peer.known.get());
        let principal = known.map(|(principal, _)| principal);
        let name = principal.map_or("", |principal| &*principal.name);
        let administers =
            self.operation.administers() && principal.is_some_and(|principal| principal.role == Role::Admin);
        let turned_away = matches!(status, 401 | 403 | 429);
        let (method, request) = (&self.method, self.request.to_str().unwrap_or_default());
        let trace = self.parent.map(|parent| parent.trace_id()).or_else(|| self.span.trace_id());
        let trace = trace.as_deref().unwrap_or_default();
        let path = self.uri.path();
        let path = &path[..path.floor_char_boundary(limit::AUDIT_TEXT_BYTES_MAX)];
        if trace::is_on() {
            let span = &mut self.span;
            span.set("http.request.method", method_told(method).to_owned());
            span.set("url.path", path.to_owned());
            span.set("http.response.status_code", i64::from(status));
            span.set("stockline.request_id", request.to_owned());
            span.set("stockline.principal", name.to_owned());
            if !code.is_empty() {
                span.set("stockline.code", code.to_owned());
            }
            if status >= 500 || status == LEFT.0 {
                span.fail(code);
            }
        }
        // What is not one's own looks as if it were not there; that it was asked for is written down.
        let is_probe = status == 404
            && principal.is_some_and(|principal| principal.role != Role::Admin)
            && access::hides(code);
        if !(administers || turned_away || is_probe) {
            let us = self.begun.elapsed().as_micros() as u64;
            tracing::debug!(target: "http", principal = name, %method, path, status, code, us, request, trace);
            return None;
        }
        let may_tell = match principal {
            Some(principal) => (administers && !turned_away) || log::may_tell_of(principal.id),
            None => log::may_tell_of_strangers(),
        };
        if !is_probe && may_tell {
            tracing::info!(target: "audit", face = "http", principal = name, %method, path, status, code, request, trace);
        }
        let entry = AuditEntry {
            face: "http".into(),
            principal: name.to_owned(),
            from: self.peer.as_ref().map(|peer| peer.from),
            status,
            code: code.to_owned(),
            request: request.to_owned(),
            trace: trace.to_owned(),
            ..AuditEntry::of(&format!("{method} {path}"))
        };
        let (trail, now) = (self.engine.trail(), self.engine.clock().now());
        if administers {
            return Some(trail.tell(now, entry));
        }
        trail.tell_refusal(now, entry);
        None
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.is_over {
            self.over(LEFT);
        }
    }
}

pub(super) async fn wrap(State(engine): State<Engine>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let peer = request.extensions().get::<Peer>().cloned();
    let open = peer.as_ref().and_then(|peer| peer.calls.clone()).map(Calls::begin);
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let parent = Parent::of(request.headers());
    let method = request.method();
    let name = || format!("{} {}", method_told(method), route.unwrap_or_default()).trim_end().to_owned();
    let mut span = Span::request(name, parent, Duration::ZERO);
    if let Some(route) = route.filter(|_| trace::is_on()) {
        span.set("http.route", route.to_owned());
    }
    let mut call = Call {
        engine,
        begun,
        operation: Operation::of_call(request.method(), route),
        peer,
        method: request.method().clone(),
        uri: request.uri().clone(),
        request: request_id(request.headers()),
        parent,
        span,
        is_over: false,
    };
    let slow = || {
        let text = "it took too long; what became of it, the same call with the same key will say";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "TIMED_OUT", text).into_response()
    };
    let mut response = timeout(PATIENCE, next.run(request)).await.unwrap_or_else(|_| slow());
    if let Some(owner) = call.peer.as_ref().and_then(|peer| peer.known.principal()) {
        response = answer::charged(response, &call.engine.budgets().answers, owner);
    }
    let problem = response.extensions_mut().remove::<ProblemCode>();
    match problem.as_ref().map(|problem| (problem.counts, &problem.name)) {
        Some((Counts::AtTheDoor(code), _)) => call.engine.metrics().refused(code),
        Some((Counts::AsProblem, name)) => call.engine.metrics().problem(name),
        Some((Counts::Already, _)) | None => {}
    }
    let code = problem.as_ref().map_or("", |problem| &*problem.name);
    // Whoever changed what others are bound by hears so when that is written down.
    if let Some(place) = call.over((response.status().as_u16(), code)) {
        let written = call.engine.trail().written(place);
        if timeout(PATIENCE.saturating_sub(begun.elapsed()), written).await.is_err() {
            response = slow();
        }
    }
    call.engine.metrics().called(call.operation, response.status().as_u16(), begun.elapsed());
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    retire(headers, call.uri.path(), &RETIRED);
    let known = call.peer.as_ref().and_then(|peer| peer.known.get());
    if let Some(rate) = known.and_then(|(_, rate)| *rate) {
        let value = |text: String| HeaderValue::from_str(&text).expect("digits");
        headers.insert(&RATE_POLICY, value(format!("\"token\";q={};w=1", rate.quota)));
        headers.insert(&RATE, value(format!("\"token\";r={};t=1", rate.left)));
    }
    headers.insert(&REQUEST_ID, call.request.clone());
    match open {
        Some(open) => open.watch(response),
        None => response,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_will_be_given_up_says_when() {
        let retired =
            Retired { prefix: "/v1/", deprecation: "@1798761600", sunset: "Fri, 31 Dec 2027 23:59:59 GMT" };
        let told = |path: &str| {
            let mut headers = HeaderMap::new();
            retire(&mut headers, path, std::slice::from_ref(&retired));
            (headers.contains_key("deprecation"), headers.get("sunset").cloned())
        };
        assert_eq!(told("/v1/nodes"), (true, Some(HeaderValue::from_static(retired.sunset))));
        assert_eq!(told("/v2/nodes"), (false, None));
    }
}
