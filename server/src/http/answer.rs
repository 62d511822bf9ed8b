//! What calls answer: JSON of a type that stands in `/v1/openapi.json`, behind its status.

use aide::OperationOutput;
use aide::generate::GenContext;
use aide::openapi::{Operation, Response as Described};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use stockline_core::id::Millis;

use super::openapi::media;

/// A name, shared with the catalogue.
pub(super) type Name = std::sync::Arc<str>;

/// A moment as RFC 3339.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(transparent)]
pub(super) struct Moment(#[schemars(extend("format" = "date-time"))] String);

impl Moment {
    /// A moment as text for people.
    pub(super) fn text(at: Millis) -> String {
        Moment::of(at).map_or_else(|| format!("{at} ms"), |Moment(text)| text)
    }

    /// None for what no calendar has.
    pub(super) fn of(at: Millis) -> Option<Moment> {
        let ms = i64::try_from(at.0).ok()?;
        jiff::Timestamp::from_millisecond(ms).ok().map(|moment| Moment(moment.to_string()))
    }
}

/// 200 with a body.
pub(super) struct Told<T>(pub(super) T);

/// 201 with a body, and where it is found.
pub(super) struct Made<T> {
    pub(super) body: T,
    pub(super) location: String,
}

pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_string(body) {
        Ok(text) => (status, [(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

impl<T: Serialize> IntoResponse for Told<T> {
    fn into_response(self) -> Response {
        json(StatusCode::OK, &self.0)
    }
}

impl<T: Serialize> IntoResponse for Made<T> {
    fn into_response(self) -> Response {
        let mut response = json(StatusCode::CREATED, &self.body);
        if let Ok(location) = HeaderValue::from_str(&self.location) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        response
    }
}

/// An answer of a type, as the document has it.
pub(super) fn described<T: JsonSchema>(ctx: &mut GenContext, description: &str, kind: &str) -> Described {
    Described {
        description: description.into(),
        content: [(kind.to_owned(), media::<T>(ctx))].into_iter().collect(),
        ..Described::default()
    }
}

impl<T: JsonSchema> OperationOutput for Told<T> {
    type Inner = T;

    fn inferred_responses(ctx: &mut GenContext, _: &mut Operation) -> Vec<(Option<u16>, Described)> {
        vec![(Some(200), described::<T>(ctx, "Done", "application/json"))]
    }
}

impl<T: JsonSchema> OperationOutput for Made<T> {
    type Inner = T;

    fn inferred_responses(ctx: &mut GenContext, _: &mut Operation) -> Vec<(Option<u16>, Described)> {
        vec![(Some(201), described::<T>(ctx, "Made", "application/json"))]
    }
}
