//! The document of all calls (OpenAPI 3.1), made from the types that handlers take and answer.

use aide::axum::ApiRouter;
use aide::openapi::{Info, OpenApi, ReferenceOr, SecurityScheme, StatusCode, Tag};
use aide::operation::{ParamLocation, add_parameters, parameters_from_schema};
use aide::transform::TransformOperation;
use axum::Router;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::answer::described;
use super::problem::ProblemBody;
use crate::engine::Engine;

/// What an operation is called, and with what it may be refused besides what its types say.
pub(super) fn call(
    tag: &'static str,
    does: &'static str,
    what: &'static str,
    refused: &'static [u16],
) -> impl FnOnce(TransformOperation<'_>) -> TransformOperation<'_> {
    move |mut operation| {
        let responses = operation.inner_mut().responses.get_or_insert_default();
        for status in refused {
            let text = match status {
                404 => "A name is not known",
                409 => "It cannot be done as things are; `code` says why",
                410 => "What happened from there on is not kept any more",
                _ => "Refused",
            };
            let problem = aide::generate::in_context(|ctx| {
                described::<ProblemBody>(ctx, text, "application/problem+json")
            });
            responses.responses.insert(StatusCode::Code(*status), ReferenceOr::Item(problem));
        }
        operation.tag(tag).summary(&format!("{does} {what}"))
    }
}

#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it stands for a header in the document")]
struct KeyHeader {
    /// A repeat with the same key is told what the first was told. A UUID, or any other text.
    #[serde(rename = "Idempotency-Key")]
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[!-~]([ -~]*[!-~])?$"))]
    idempotency_key: Option<String>,
}

/// One that has an `Idempotency-Key`.
pub(super) fn keyed(
    call: impl FnOnce(TransformOperation<'_>) -> TransformOperation<'_>,
) -> impl FnOnce(TransformOperation<'_>) -> TransformOperation<'_> {
    move |mut operation| {
        aide::generate::in_context(|ctx| {
            let schema = ctx.schema.subschema_for::<KeyHeader>();
            let parameters = parameters_from_schema(ctx, schema, ParamLocation::Header);
            add_parameters(ctx, operation.inner_mut(), parameters);
        });
        call(operation)
    }
}

/// The calls as a router, and the document of them.
pub(super) fn document(calls: fn() -> ApiRouter<Engine>) -> (Router<Engine>, String) {
    aide::generate::infer_responses(true);
    aide::generate::extract_schemas(true);
    let calls = calls();
    let mut document = OpenApi {
        info: Info {
            title: "Stockline".into(),
            summary: Some("How many of this can I promise, here, to this channel, now?".into()),
            description: Some(
                "Every answer is durable. Refusals are problem documents (RFC 9457) with a stable `code`. \
                 Every answer has an `x-request-id`."
                    .into(),
            ),
            version: "1".into(),
            ..Info::default()
        },
        ..OpenApi::default()
    };
    let tags =
        ["Availability", "Reservations", "Stock", "Changes", "Dead letters", "Configuration", "Access"];
    document.tags = tags.iter().map(|name| Tag { name: (*name).into(), ..Tag::default() }).collect();
    let router = calls.finish_api_with(&mut document, |api| {
        let token = SecurityScheme::Http {
            scheme: "bearer".into(),
            bearer_format: None,
            description: Some("A token of `stockline token` or `/v1/tokens`".into()),
            extensions: Default::default(),
        };
        api.security_scheme("token", token).security_requirement("token")
    });
    let mut document = serde_json::to_value(&document).expect("a document is JSON");
    bound(&mut document);
    (router, document.to_string())
}

/// Numbers of a certain size have that size's bounds.
fn bound(part: &mut Value) {
    match part {
        Value::Object(members) => {
            let bounds = match members.get("format").and_then(Value::as_str) {
                Some("uint32") => Some((0, u64::from(u32::MAX))),
                Some("uint64") => Some((0, u64::MAX)),
                Some("int64") => Some((i64::MIN, i64::MAX as u64)),
                _ => None,
            };
            if let Some((least, most)) = bounds {
                members.insert("minimum".into(), least.into());
                members.insert("maximum".into(), most.into());
            }
            members.values_mut().for_each(bound);
        }
        Value::Array(items) => items.iter_mut().for_each(bound),
        _ => {}
    }
}
