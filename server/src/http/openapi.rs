//! The document of all calls (OpenAPI 3.1), made from the types that handlers take and answer.

use aide::axum::ApiRouter;
use aide::generate::GenContext;
use aide::openapi::{
    Info, MediaType, OpenApi, Operation, ReferenceOr, RequestBody, SchemaObject, SecurityScheme, StatusCode,
    Tag,
};
use aide::operation::{ParamLocation, add_parameters, parameters_from_schema, set_body};
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

/// A body of a type, as the document has it.
pub(super) fn media<T: JsonSchema>(ctx: &mut GenContext) -> MediaType {
    let json_schema = ctx.schema.subschema_for::<T>();
    let schema = Some(SchemaObject { json_schema, example: None, external_docs: None });
    MediaType { schema, ..MediaType::default() }
}

/// Says that an operation takes a body of one of these kinds.
pub(super) fn takes<const N: usize>(
    ctx: &mut GenContext,
    operation: &mut Operation,
    kinds: [(&str, MediaType); N],
) {
    let content = kinds.into_iter().map(|(kind, media)| (kind.to_owned(), media)).collect();
    set_body(ctx, operation, RequestBody { content, required: true, ..RequestBody::default() });
}

/// Says that an operation has the fields of a type as parameters.
pub(super) fn parameters<T: JsonSchema>(
    ctx: &mut GenContext,
    operation: &mut Operation,
    place: ParamLocation,
) {
    let schema = ctx.schema.subschema_for::<T>();
    let parameters = parameters_from_schema(ctx, schema, place);
    add_parameters(ctx, operation, parameters);
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
            parameters::<KeyHeader>(ctx, operation.inner_mut(), ParamLocation::Header);
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
