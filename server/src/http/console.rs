//! The console and the page of all calls: files that are part of the program. They ask the same calls as everybody else.

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::IntoResponse;
use axum::routing::get;

use crate::engine::Engine;

const PAGE: &str = include_str!("../console/index.html");
const REFERENCE: &str = include_str!("../console/reference.html");
const REFERENCE_SCRIPT: &str = include_str!("../console/reference.js");
const STYLE: &str = include_str!("../console/console.css");
const SCRIPT: &str = include_str!("../console/console.js");
/// Nothing from elsewhere, nothing inline, in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

fn file(kind: &'static str, text: &'static str) -> impl IntoResponse {
    let headers: [(HeaderName, HeaderValue); 5] = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, text)
}

pub(super) fn routes() -> Router<Engine> {
    Router::new()
        .route("/console", get(|| async { file("text/html; charset=utf-8", PAGE) }))
        .route("/v1/reference", get(|| async { file("text/html; charset=utf-8", REFERENCE) }))
        .route(
            "/console/reference.js",
            get(|| async { file("text/javascript; charset=utf-8", REFERENCE_SCRIPT) }),
        )
        .route("/console/console.css", get(|| async { file("text/css; charset=utf-8", STYLE) }))
        .route("/console/console.js", get(|| async { file("text/javascript; charset=utf-8", SCRIPT) }))
}
