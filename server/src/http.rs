//! The HTTP face: JSON over the same engine as QUIC, with no rules of its own. docs/http.md shows every call.
//!
//! A handler turns names and text into commands, hands them to `call`, and tells in names and text what came of them.

mod accept;
mod answer;
mod asyncapi;
mod audit;
mod availability;
mod body;
mod call;
mod called;
mod catalogue;
mod changes;
mod cloud_event;
mod console;
mod dead_letter;
mod envelope;
mod happened;
mod openapi;
mod problem;
mod reservation;
mod stall;
mod stock;
mod token;
mod webhook;

pub(crate) use dead_letter::keep_refused;

use aide::axum::ApiRouter;
use aide::axum::routing::{delete_with, get_with, post_with};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, middleware};
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tower_http::cors::CorsLayer;

use crate::engine::Engine;
use crate::metrics;
pub(crate) use accept::{connections_max, open as connections};
pub use accept::{raise_descriptors, tls};
use catalogue::{ChannelBody, Entry, GroupBody, NodeBody, RuleBody, SkuBody, ZoneBody};
use openapi::{call, keyed};
use problem::Problem;
use token::TokenBody;
use webhook::WebhookBody;

async fn ready(State(engine): State<Engine>) -> Result<Response, Problem> {
    if engine.is_draining() {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "SHUTTING_DOWN", "the server is draining"));
    }
    let (slices, wrong) = engine.self_audit();
    let body = serde_json::json!({
        "status": "ready",
        "durable_lsn": engine.view().durable().0,
        "self_audit": { "slices": slices, "wrong": wrong },
        "clock": { "offset_ms": engine.clock().offset_ms(), "jumps": engine.clock().jumps() },
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response())
}

async fn metrics(State(engine): State<Engine>, headers: HeaderMap) -> Result<Response, Problem> {
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let open = accepts.is_some_and(|accepts| accepts.contains("application/openmetrics-text"));
    let text = metrics::exposition(&engine, open).map_err(|_| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "UNWRITABLE", "no metrics can be written")
    })?;
    let kind = if open { metrics::OPEN } else { metrics::PLAIN };
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

async fn unknown(uri: Uri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "NOT_FOUND", format!("there is nothing at {}", uri.path()))
}

async fn not_allowed(method: Method, uri: Uri) -> Problem {
    let detail = format!("{method} is not for {}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", detail)
}

/// One kind of entry of the catalogue: read, put and listed.
fn entries<T: Entry>(router: ApiRouter<Engine>, path: &str, what: &'static str) -> ApiRouter<Engine> {
    let one = get_with(catalogue::get::<T>, call("Configuration", "One", what, &[]))
        .put_with(catalogue::put::<T>, call("Configuration", "Put one", what, &[404, 409]));
    let all = get_with(catalogue::list::<T>, call("Configuration", "All entries of the kind", what, &[]));
    router.api_route(path, all).api_route(&format!("{path}/{{name}}"), one)
}

/// Every call, and what answers it.
fn calls() -> ApiRouter<Engine> {
    let tokens = get_with(catalogue::list::<TokenBody>, call("Access", "All", "tokens", &[]));
    let token = get_with(catalogue::get::<TokenBody>, call("Access", "One", "token", &[]))
        .put_with(token::put, call("Access", "Make or replace a", "token", &[404, 409]))
        .delete_with(token::revoke, call("Access", "Revoke a", "token", &[409]));
    let webhooks = get_with(catalogue::list::<WebhookBody>, call("Changes", "All", "webhooks", &[]));
    let hook = get_with(catalogue::get::<WebhookBody>, call("Changes", "One", "webhook", &[]))
        .put_with(webhook::put, call("Changes", "Make or change a", "webhook", &[404, 409]))
        .delete_with(webhook::give_up, call("Changes", "Give up a", "webhook", &[409]));
    let allocations =
        post_with(stock::allocate, keyed(call("Stock", "Change", "an allocation", &[404, 409])))
            .get_with(stock::allocations, call("Stock", "A sku's", "allocations", &[404]));
    let router = ApiRouter::new()
        .api_route("/v1/events", post_with(stock::tell, call("Stock", "Tell", "stock events", &[404])))
        .api_route(
            "/v1/positions/{sku}",
            get_with(stock::positions, call("Stock", "All positions of a", "sku", &[])),
        )
        .api_route(
            "/v1/positions/{sku}/{node}",
            get_with(stock::position, call("Stock", "A", "position", &[410])),
        )
        .api_route(
            "/v1/positions/{sku}/{node}/history",
            get_with(stock::history, call("Stock", "What moved at a", "position", &[])),
        )
        .api_route("/v1/allocations", allocations)
        .api_route(
            "/v1/availability",
            post_with(availability::ask, call("Availability", "Of", "skus", &[404])),
        )
        .api_route(
            "/v1/availability/{sku}",
            get_with(availability::ask_one, call("Availability", "Of one", "sku", &[])),
        )
        .api_route(
            "/v1/reservations",
            post_with(
                reservation::reserve,
                keyed(call("Reservations", "Make a", "reservation", &[404, 409])),
            )
            .get_with(reservation::find, call("Reservations", "Find", "reservations by a text", &[])),
        )
        .api_route(
            "/v1/reservations/{id}",
            get_with(reservation::read, call("Reservations", "A", "reservation", &[])),
        )
        .api_route(
            "/v1/reservations/{id}/{verb}",
            post_with(reservation::step, keyed(call("Reservations", "A step of a", "reservation", &[409]))),
        )
        .api_route(
            "/v1/changes",
            get_with(
                changes::stream,
                call("Changes", "Follow", "changes, as server-sent events", &[404, 410]),
            ),
        )
        .api_route("/v1/me", get_with(call::me, call("Access", "Who the", "token is for", &[])))
        .api_route(
            "/v1/sku-names",
            get_with(
                call::sku_names,
                call("Availability", "Search", "skus by the beginning of their names", &[]),
            ),
        )
        .api_route(
            "/v1/dead-letters",
            get_with(dead_letter::list, call("Dead letters", "All", "dead letters", &[])),
        )
        .api_route(
            "/v1/dead-letters/{id}",
            delete_with(dead_letter::discard, call("Dead letters", "Discard a", "dead letter", &[])),
        )
        .api_route(
            "/v1/dead-letters/{id}/redrive",
            post_with(dead_letter::redrive, call("Dead letters", "Tell again a", "dead letter", &[409])),
        )
        .api_route("/v1/webhooks", webhooks)
        .api_route("/v1/webhooks/{name}", hook)
        .api_route(
            "/v1/webhooks/{name}/delivery",
            get_with(webhook::delivery, call("Changes", "How a", "webhook's receiver is doing", &[])),
        )
        .api_route(
            "/v1/webhooks/{name}/rotate",
            post_with(webhook::rotate, call("Changes", "Another", "secret for a webhook", &[409])),
        )
        .api_route(
            "/v1/webhooks/{name}/test",
            post_with(webhook::test, call("Changes", "Send a test message by a", "webhook", &[])),
        )
        .api_route(
            "/v1/audit",
            get_with(audit::list, call("Access", "What was done or refused: the", "audit trail", &[])),
        )
        .api_route("/v1/tokens", tokens)
        .api_route("/v1/tokens/{name}", token)
        .api_route(
            "/v1/tokens/{name}/rotate",
            post_with(token::rotate, call("Access", "Another", "token for the same name", &[409])),
        );
    let router = entries::<NodeBody>(router, "/v1/nodes", "node");
    let router = entries::<GroupBody>(router, "/v1/groups", "group");
    let router = entries::<ChannelBody>(router, "/v1/channels", "channel");
    let router = entries::<SkuBody>(router, "/v1/skus", "sku's data");
    let router = entries::<ZoneBody>(router, "/v1/zones", "zone");
    entries::<RuleBody>(router, "/v1/rules", "rule")
}

/// Lets pages of some origins call from a browser; of none, where none is configured.
fn with_cors(router: Router, origins: Vec<HeaderValue>) -> Router {
    if origins.is_empty() {
        return router;
    }
    let methods = [Method::GET, Method::POST, Method::PUT, Method::DELETE];
    let cors = CorsLayer::new()
        .allow_origin(origins)
        .allow_methods(methods)
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::IF_MATCH,
            header::IF_NONE_MATCH,
            HeaderName::from_static("idempotency-key"),
            HeaderName::from_static("last-event-id"),
        ])
        .expose_headers([header::ETAG, header::LOCATION, header::RETRY_AFTER]);
    router.layer(cors)
}

fn routes(engine: Engine) -> Router {
    let (router, document) = openapi::document(calls);
    let document = Bytes::from(document);
    let told = move || async move { ([(header::CONTENT_TYPE, "application/json")], document) };
    let unasked = Bytes::from(asyncapi::document());
    let told_unasked = move || async move { ([(header::CONTENT_TYPE, "application/json")], unasked) };
    Router::new()
        .route("/v1/openapi.json", get(told))
        .route("/v1/asyncapi.json", get(told_unasked))
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .merge(console::routes())
        .merge(router)
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
    origins: &[String],
    stop: watch::Receiver<bool>,
) {
    let webhooks = tokio::spawn(webhook::run(engine.clone(), stop.clone()));
    let origins = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect();
    accept::serve(listener, tls, with_cors(routes(engine), origins), stop).await;
    // It has been told to stop, too.
    let _ = webhooks.await;
}
