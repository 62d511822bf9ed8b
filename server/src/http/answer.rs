//! What calls answer: JSON of a type that stands in `/v1/openapi.json`, behind its status.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use aide::OperationOutput;
use aide::generate::GenContext;
use aide::openapi::{Operation, Response as Described};
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};
use schemars::JsonSchema;
use serde::Serialize;
use stockline_core::id::{Millis, PrincipalId};
use stockline_core::limit;
use stockline_core::outcome::Code;

use super::openapi::media;
use super::problem::Problem;
use crate::budget::{Budget, Charge};

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
        // No moment is made from a zero: it stands for none.
        let ms = i64::try_from(at.0).ok().filter(|ms| *ms > 0)?;
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

/// A large answer, charged to its caller until it is taken; where too many wait already, a refusal in its place.
pub(super) fn charged(response: Response, budget: &Arc<Budget>, owner: PrincipalId) -> Response {
    let size = response.body().size_hint().exact().unwrap_or(0) as usize;
    if size <= limit::HTTP_SMALL_ANSWER_BYTES {
        return response;
    }
    match budget.charge(owner, size) {
        Some(charge) => response.map(|body| Body::new(Charged { body, rest: Bytes::new(), _charge: charge })),
        None => {
            let text = "too many answers of this token wait to be taken: take them, or ask for less at once";
            Problem::of(Code::Overloaded, text).into_response()
        }
    }
}

/// Bytes of an answer that the connection is given at once: what it has been given is not charged any more.
const PIECE: usize = 64 << 10;

/// An answer that goes out piece by piece.
struct Charged {
    body: Body,
    rest: Bytes,
    _charge: Charge,
}

impl HttpBody for Charged {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                other => return other,
            }
        }
        let piece = self.rest.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        if let Some(left) = hint.exact() {
            hint.set_exact(left + self.rest.len() as u64);
        }
        hint
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
