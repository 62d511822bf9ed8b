//! CloudEvents 1.0: stock events that come in such envelopes, and changes that go out in them, where that is asked for.

use aide::OperationInput;
use aide::generate::GenContext;
use aide::openapi::{Operation, Response as Described};
use axum::extract::{FromRequest, Request};
use axum::http::header;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use stockline_core::outcome::Code;

use super::answer::Moment;
use super::body::Sent;
use super::openapi::{media, takes};
use super::problem::Problem;
use super::stock::Events;
use crate::engine::Engine;

const ONE: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";

/// An envelope that came: its `data` has the rest of a stock event, `sku`, `node`, `quantity` and so on.
#[derive(Deserialize, JsonSchema)]
pub(super) struct CloudEvent {
    #[schemars(extend("enum" = ["1.0"]))]
    specversion: String,
    id: String,
    source: String,
    /// The event's type, perhaps behind `stockline.`.
    r#type: String,
    /// When it happened (RFC 3339); an event that says it otherwise is rejected by itself.
    time: String,
    data: Map<String, Value>,
}

impl CloudEvent {
    fn row(self, index: usize) -> Result<Box<RawValue>, Problem> {
        let wrong = |reason: String| Problem::of(Code::Malformed, format!("event {index}: {reason}"));
        if self.specversion != "1.0" {
            return Err(wrong(format!("specversion {:?} is not 1.0", self.specversion)));
        }
        let kind = self.r#type.strip_prefix("stockline.").unwrap_or(&self.r#type).to_owned();
        let mut row = self.data;
        for (name, value) in
            [("id", self.id), ("source", self.source), ("type", kind), ("occurred_at", self.time)]
        {
            if row.insert(name.into(), value.into()).is_some() {
                return Err(wrong(format!("data has {name}, which stands in the envelope")));
            }
        }
        serde_json::value::to_raw_value(&row).map_err(|error| wrong(format!("data: {error}")))
    }
}

/// Stock events, with or without envelopes.
pub(super) struct Told(pub(super) Events);

impl FromRequest<Engine> for Told {
    type Rejection = Problem;

    async fn from_request(request: Request, engine: &Engine) -> Result<Told, Problem> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let kind = kind.map(|kind| kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
        let envelopes = match kind.as_deref() {
            Some(ONE) => vec![Sent::<CloudEvent>::from_request(request, engine).await?.0],
            Some(BATCH) => Sent::<Vec<CloudEvent>>::from_request(request, engine).await?.0,
            _ => return Ok(Told(Sent::<Events>::from_request(request, engine).await?.0)),
        };
        let rows = envelopes.into_iter().enumerate().map(|(index, envelope)| envelope.row(index));
        Ok(Told(Events { events: rows.collect::<Result<_, _>>()? }))
    }
}

impl OperationInput for Told {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        let kinds = [
            ("application/json", media::<Events>(ctx)),
            (ONE, media::<CloudEvent>(ctx)),
            (BATCH, media::<Vec<CloudEvent>>(ctx)),
        ];
        takes(ctx, operation, kinds);
    }

    fn inferred_early_responses(
        ctx: &mut GenContext,
        operation: &mut Operation,
    ) -> Vec<(Option<u16>, Described)> {
        Sent::<Events>::inferred_early_responses(ctx, operation)
    }
}

/// An envelope that goes out.
#[derive(Serialize, JsonSchema)]
pub(super) struct Enveloped<T> {
    specversion: &'static str,
    /// Once in the world, together with `source`.
    id: String,
    source: &'static str,
    r#type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<Moment>,
    datacontenttype: &'static str,
    data: T,
}

impl<T> Enveloped<T> {
    pub(super) fn new(id: String, kind: &str, time: Option<Moment>, data: T) -> Enveloped<T> {
        Enveloped {
            specversion: "1.0",
            id,
            source: "/stockline",
            r#type: format!("stockline.{kind}"),
            time,
            datacontenttype: "application/json",
            data,
        }
    }
}
