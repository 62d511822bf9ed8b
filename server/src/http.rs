//! The HTTP face: JSON over the same engine as QUIC, with no rules of its own. docs/http.md shows every call.
//!
//! A handler turns names and text into commands, hands them to `call`, and tells in names and text what came of them.

mod accept;
mod availability;
mod call;
mod catalogue;
mod changes;
mod envelope;
mod problem;
mod reservation;
mod stock;

use axum::extract::State;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Router, middleware};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::engine::Engine;
use crate::metrics;
pub(crate) use accept::open as connections;
pub use accept::tls;
use problem::Problem;

async fn ready(State(engine): State<Engine>) -> Result<Response, Problem> {
    if engine.is_draining() {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "SHUTTING_DOWN", "the server is draining"));
    }
    let (slices, wrong) = engine.self_audit();
    let body = serde_json::json!({
        "status": "ready",
        "durable_lsn": engine.view().durable().0,
        "self_audit": { "slices": slices, "wrong": wrong },
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response())
}

async fn metrics(State(engine): State<Engine>) -> Result<Response, Problem> {
    let text = metrics::exposition(&engine).map_err(|_| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "UNWRITABLE", "no metrics can be written")
    })?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

async fn unknown(uri: Uri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "NOT_FOUND", format!("there is nothing at {}", uri.path()))
}

async fn not_allowed(method: Method, uri: Uri) -> Problem {
    let detail = format!("{method} is not for {}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", detail)
}

/// Every call, and what answers it.
fn routes(engine: Engine) -> Router {
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/v1/events", post(stock::tell))
        .route("/v1/availability", post(availability::ask))
        .route("/v1/availability/{sku}", get(availability::ask_one))
        .route("/v1/reservations", post(reservation::reserve))
        .route("/v1/reservations/{id}", get(reservation::read))
        .route("/v1/reservations/{id}/{verb}", post(reservation::step))
        .route("/v1/positions/{sku}/{node}", get(stock::position))
        .route("/v1/allocations", post(stock::allocate).get(stock::allocations))
        .route("/v1/nodes/{name}", put(catalogue::node))
        .route("/v1/groups/{name}", put(catalogue::group))
        .route("/v1/channels/{name}", put(catalogue::channel))
        .route("/v1/skus/{name}", put(catalogue::sku))
        .route("/v1/zones/{name}", put(catalogue::zone))
        .route("/v1/rules/{name}", put(catalogue::rule))
        .route("/v1/changes", get(changes::stream))
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
        .layer(middleware::from_fn_with_state(engine.clone(), envelope::wrap))
        .with_state(engine)
}

/// Serves until it is told to stop, and then until open calls have ended.
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    engine: Engine,
    stop: watch::Receiver<bool>,
) {
    accept::serve(listener, tls, routes(engine), stop).await;
}
