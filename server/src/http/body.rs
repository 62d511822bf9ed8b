//! Bodies of calls: read within bounds, decompressed, and read as JSON. Bytes are charged to the caller as they arrive.

use std::io::Read;
use std::time::Duration;

use aide::OperationInput;
use aide::generate::GenContext;
use aide::openapi::{Operation, Response as Described};
use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use stockline_core::id::PrincipalId;
use stockline_core::limit;
use stockline_core::outcome::Code;
use tokio::time::timeout;

use super::accept::Peer;
use super::call::refusals;
use super::openapi::{media, takes};
use super::problem::Problem;
use crate::budget::Charge;
use crate::engine::Engine;

/// A body of JSON.
pub(super) struct Sent<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Engine> for Sent<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, engine: &Engine) -> Result<Sent<T>, Problem> {
        let (parts, body) = request.into_parts();
        // Who calls is known before: a stranger's body is never read.
        let known = parts.extensions.get::<Peer>().and_then(|peer| peer.known.principal());
        let owner = known.unwrap_or(PrincipalId::SYSTEM);
        let charge = engine.budgets().bodies.charge(owner, 0).ok_or_else(too_much)?;
        let (bytes, _charge) = read(&parts.headers, body, charge).await?;
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        let text = if text.is_empty() { b"{}" } else { text };
        let read = serde_json::from_slice(text);
        read.map(Sent).map_err(|error| Problem::of(Code::Malformed, format!("the body: {error}")))
    }
}

fn too_much() -> Problem {
    let text = "too many bytes of bodies of this token are on their way; send it again a little later";
    Problem::of(Code::Overloaded, text)
}

fn too_long() -> Problem {
    let text = format!("the body is longer than {} bytes; send it in parts", limit::HTTP_BODY_BYTES_MAX);
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "BODY_TOO_LARGE", text)
}

/// How a body is compressed.
#[derive(Clone, Copy)]
enum Coding {
    Plain,
    Gzip,
    Zstd,
}

fn coding(headers: &HeaderMap) -> Result<Coding, Problem> {
    let given = headers
        .get(header::CONTENT_ENCODING)
        .map(|value| value.to_str().unwrap_or_default().to_ascii_lowercase());
    match given.as_deref().map(str::trim) {
        None | Some("" | "identity") => Ok(Coding::Plain),
        Some("gzip" | "x-gzip") => Ok(Coding::Gzip),
        Some("zstd") => Ok(Coding::Zstd),
        Some(other) => {
            let text = format!(
                "Content-Encoding {other:?} is not known here; send gzip, zstd, or nothing compressed"
            );
            Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE", text))
        }
    }
}

/// All bytes of a body, and what they are charged to.
async fn read(headers: &HeaderMap, body: Body, charge: Charge) -> Result<(Vec<u8>, Charge), Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if kind.is_some_and(|kind| !kind.to_ascii_lowercase().contains("json")) {
        let text = "send JSON, with Content-Type: application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE", text));
    }
    let coding = coding(headers)?;
    let declared =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|declared| declared > limit::HTTP_BODY_BYTES_MAX as u64) {
        // Who waits to be told whether to go on hears that at once; who has begun is let finish.
        if !headers.contains_key(header::EXPECT) {
            drop_rest(body).await;
        }
        return Err(too_long());
    }
    let patience = Duration::from_millis(limit::HTTP_BODY_MS_MAX);
    let read = timeout(patience, collect(body, charge)).await.map_err(|_| {
        let text = format!("the body did not come within {} s", limit::HTTP_BODY_MS_MAX / 1_000);
        Problem::new(StatusCode::REQUEST_TIMEOUT, "BODY_TOO_SLOW", text)
    })?;
    let (bytes, charge) = read?;
    match coding {
        Coding::Plain => Ok((bytes, charge)),
        Coding::Gzip => decompressed(flate2::read::MultiGzDecoder::new(&*bytes), charge),
        Coding::Zstd => {
            let stream = ruzstd::decoding::StreamingDecoder::new(&*bytes).map_err(|error| broken(&error))?;
            decompressed(stream, charge)
        }
    }
}

fn broken(error: &dyn std::fmt::Display) -> Problem {
    Problem::of(Code::Malformed, format!("the body cannot be decompressed: {error}"))
}

fn decompressed(stream: impl Read, mut charge: Charge) -> Result<(Vec<u8>, Charge), Problem> {
    let mut bytes = Vec::new();
    let mut stream = stream.take(limit::HTTP_BODY_BYTES_MAX as u64 + 1);
    loop {
        let before = bytes.len();
        let read = stream.by_ref().take(PIECE).read_to_end(&mut bytes).map_err(|error| broken(&error))?;
        if read == 0 {
            return Ok((bytes, charge));
        }
        if bytes.len() > limit::HTTP_BODY_BYTES_MAX {
            return Err(too_long());
        }
        if !charge.grow(bytes.len() - before) {
            return Err(too_much());
        }
    }
}

/// Bytes that are decompressed before they are charged.
const PIECE: u64 = 64 << 10;

async fn collect(mut body: Body, mut charge: Charge) -> Result<(Vec<u8>, Charge), Problem> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let ended = |_| Problem::of(Code::Malformed, "the body ended early");
        let Ok(data) = frame.map_err(ended)?.into_data() else { continue };
        if bytes.len() + data.len() > limit::HTTP_BODY_BYTES_MAX {
            drop_rest(body).await;
            return Err(too_long());
        }
        if !charge.grow(data.len()) {
            drop_rest(body).await;
            return Err(too_much());
        }
        bytes.extend_from_slice(&data);
    }
    Ok((bytes, charge))
}

/// Reads what is left of a body and keeps nothing of it: many clients read no answer before they have sent all.
async fn drop_rest(mut body: Body) {
    let reading = async {
        let mut left = limit::HTTP_DROPPED_BYTES_MAX;
        while let Some(Ok(frame)) = body.frame().await {
            let read = frame.data_ref().map_or(0, |data| data.len());
            if body.is_end_stream() || read > left {
                return;
            }
            left -= read;
        }
    };
    // Who is slower is cut off.
    let _ = timeout(Duration::from_millis(limit::HTTP_DROPPED_MS_MAX), reading).await;
}

impl<T: JsonSchema> OperationInput for Sent<T> {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        let json = media::<T>(ctx);
        takes(ctx, operation, [("application/json", json)]);
    }

    fn inferred_early_responses(ctx: &mut GenContext, _: &mut Operation) -> Vec<(Option<u16>, Described)> {
        let statuses = [
            (400, "It cannot be read"),
            (408, "The body took too long to come"),
            (413, "The body is too long"),
            (415, "The body is not JSON"),
        ];
        refusals(ctx, &statuses)
    }
}
