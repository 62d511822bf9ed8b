//! Spans by OpenTelemetry, sent in batches over OTLP/HTTP by a thread of the library's own. Its standard environment
//! variables say where to and how many.

use std::sync::OnceLock;
use std::time::Duration;

use axum::http::{Request, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
    Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span as SdkSpan};
use stockline_core::limit;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::{Parent, given};
use crate::outgoing::{self, Outgoing};

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Spans are sent for as long as it is there.
pub struct Sending(Option<SdkTracerProvider>);

impl Sending {
    /// Sends what is left.
    pub fn end(self) {
        let patience = Duration::from_millis(limit::TRACES_STOP_MS_MAX);
        if let Some(Err(error)) = self.0.map(|provider| provider.shutdown_with_timeout(patience)) {
            tracing::warn!("the last traces were not sent: {error}");
        }
    }
}

/// How batches are sent: the library's thread knows nothing of tokio, so a task does it.
#[derive(Debug)]
struct Sender {
    outgoing: Outgoing,
    tasks: Handle,
    patience: Duration,
}

#[async_trait::async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (outgoing, patience) = (self.outgoing.clone(), self.patience);
        let sent = self.tasks.spawn(async move {
            let exchange = async {
                let (parts, body) = outgoing.request(request.map(Full::new)).await?.into_parts();
                let body = Limited::new(body, limit::WEBHOOK_ANSWER_BYTES_MAX).collect().await?.to_bytes();
                Ok::<_, HttpError>(Response::from_parts(parts, body))
            };
            timeout(patience, exchange).await?
        });
        sent.await?
    }
}

/// Milliseconds that a variable of the standard says.
fn patience() -> Duration {
    let said = |name: &str| std::env::var(name).ok()?.parse().ok();
    let ms = said("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT").or_else(|| said("OTEL_EXPORTER_OTLP_TIMEOUT"));
    Duration::from_millis(ms.unwrap_or(10_000))
}

/// Whether what is wanted can be done.
pub fn check() -> Result<(), String> {
    let names = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
    let asked = names.into_iter().find_map(|name| Some((name, given(name)?)));
    match asked.filter(|(_, asked)| super::wanted() && asked != "http/protobuf") {
        None => Ok(()),
        Some((name, other)) => {
            Err(format!("{name}: {other:?} is not spoken here; use http/protobuf, mostly on port 4318"))
        }
    }
}

/// Begins to send spans, if somebody wants them.
pub fn start(tasks: &Handle) -> Result<Sending, String> {
    if !super::wanted() {
        return Ok(Sending(None));
    }
    let sender = Sender { outgoing: outgoing::new(), tasks: tasks.clone(), patience: patience() };
    let exporter = SpanExporter::builder().with_http().with_http_client(sender).build();
    let exporter = exporter.map_err(|error| format!("traces: {error}"))?;
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let mut resource = Resource::builder().with_attribute(version);
    let is_named = given("OTEL_SERVICE_NAME").is_some()
        || given("OTEL_RESOURCE_ATTRIBUTES")
            .is_some_and(|all| all.split(',').any(|one| one.trim_start().starts_with("service.name=")));
    if !is_named {
        resource = resource.with_service_name("stockline");
    }
    let builder = SdkTracerProvider::builder().with_resource(resource.build());
    let provider = builder.with_batch_exporter(exporter).build();
    // A second start in one process (tests) keeps the first.
    let _ = TRACER.set(provider.tracer("stockline"));
    Ok(Sending(Some(provider)))
}

pub fn is_on() -> bool {
    TRACER.get().is_some()
}

/// A piece of work, told when it is dropped; nothing where nobody wants to know.
pub struct Span(Option<SdkSpan>);

impl Span {
    fn begin(name: impl FnOnce() -> String, kind: SpanKind, parent: Option<Parent>, since: Duration) -> Span {
        Span(TRACER.get().map(|tracer| {
            let begun = opentelemetry::time::now().checked_sub(since);
            let builder = tracer.span_builder(name()).with_kind(kind);
            let builder = builder.with_start_time(begun.unwrap_or_else(opentelemetry::time::now));
            let context = parent.map_or_else(Context::new, |Parent { trace, span, is_sampled }| {
                let flags = TraceFlags::default().with_sampled(is_sampled);
                let (trace, span) = (TraceId::from(trace), SpanId::from(span));
                let context = SpanContext::new(trace, span, flags, true, TraceState::default());
                Context::new().with_remote_span_context(context)
            });
            tracer.build_with_context(builder, &context)
        }))
    }

    /// Something that was asked of us, a while ago.
    pub fn request(name: impl FnOnce() -> String, parent: Option<Parent>, since: Duration) -> Span {
        Span::begin(name, SpanKind::Server, parent, since)
    }

    /// Something that we send to others.
    pub fn message(name: impl FnOnce() -> String) -> Span {
        Span::begin(name, SpanKind::Client, None, Duration::ZERO)
    }

    /// The id of its trace, if it is told of.
    pub fn trace_id(&self) -> Option<String> {
        let context = self.0.as_ref()?.span_context();
        context.is_sampled().then(|| context.trace_id().to_string())
    }

    /// What tells others which span they are part of.
    pub fn traceparent(&self) -> Option<String> {
        let context = self.0.as_ref()?.span_context();
        let flags = context.trace_flags().to_u8();
        Some(format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id()))
    }

    pub fn set<T: Into<Value>>(&mut self, key: &'static str, value: T) {
        if let Some(span) = &mut self.0 {
            span.set_attribute(KeyValue::new(key, value));
        }
    }

    /// It came to nothing, through no fault of who asked.
    pub fn fail(&mut self, why: &str) {
        self.set("error.type", why.to_owned());
        if let Some(span) = &mut self.0 {
            span.set_status(Status::error(why.to_owned()));
        }
    }
}
