//! The HTTP face: liveness and readiness for those who operate the server. Everything else answers 404 as a
//! problem document; the API grows here.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::engine::Engine;

fn problem(status: StatusCode, code: &str, detail: String) -> Response {
    let body = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or_default(),
        "status": status.as_u16(),
        "code": code,
        "detail": detail,
    });
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}

async fn ready(State(engine): State<Engine>) -> Response {
    if engine.is_draining() {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "SHUTTING_DOWN", "the server is draining".into());
    }
    let (slices, wrong) = engine.self_audit();
    let body = serde_json::json!({
        "status": "ready",
        "durable_lsn": engine.view().durable().0,
        "self_audit": { "slices": slices, "wrong": wrong },
    });
    ([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

async fn unknown(uri: Uri) -> Response {
    problem(StatusCode::NOT_FOUND, "NOT_FOUND", format!("there is nothing at {}", uri.path()))
}

/// Serves until the listener's task is dropped.
pub async fn serve(listener: TcpListener, engine: Engine) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .fallback(unknown)
        .with_state(engine);
    axum::serve(listener, routes).await
}
