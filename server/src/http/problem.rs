//! Problems: what went wrong, as RFC 9457 has it, with the stable code that QUIC has too.

use aide::OperationOutput;
use aide::generate::GenContext;
use aide::openapi::{Operation, Response as Described};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde_json::{Map, Value, json};
use stockline_core::outcome::Code;

use super::answer::described;
use super::reservation::Short;
use crate::access::Turned;

/// The code of a problem, for whoever sees the answer pass.
#[derive(Clone)]
pub(super) struct ProblemCode {
    pub(super) name: String,
    pub(super) counts: Counts,
}

/// Who counts a refusal.
#[derive(Clone, Copy, Debug)]
pub(super) enum Counts {
    /// It was refused before it got to the journal.
    AtTheDoor(Code),
    /// It was refused for a reason that HTTP alone has.
    AsProblem,
    /// The journal's thread has counted it.
    Already,
}

#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    code: String,
    detail: String,
    more: Map<String, Value>,
    counts: Counts,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Problem {
        Problem {
            status,
            code: code.into(),
            detail: detail.into(),
            more: Map::new(),
            counts: Counts::AsProblem,
        }
    }

    /// A refusal with its code.
    pub(super) fn of(code: Code, detail: impl Into<String>) -> Problem {
        Problem { counts: Counts::AtTheDoor(code), ..Problem::new(status(code), code.name(), detail) }
    }

    /// A refusal, with what its code means to whoever hears it.
    pub(super) fn refused(code: Code) -> Problem {
        // What the ledger says, the journal's thread counts.
        Problem { counts: Counts::Already, ..Problem::of(code, meaning(code)) }
    }

    /// With another text.
    pub(super) fn saying(mut self, detail: String) -> Problem {
        self.detail = detail;
        self
    }

    /// A request that makes no sense as it stands.
    pub(super) fn invalid(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "INVALID", detail)
    }

    /// Besides, a member of its own.
    pub(super) fn with(mut self, name: &str, value: Value) -> Problem {
        self.more.insert(name.into(), value);
        self
    }
}

/// What a refusal means, and what to do.
pub(super) fn meaning(code: Code) -> &'static str {
    match code {
        Code::InsufficientStock => "too little is free for it, and nothing was taken",
        Code::KeyConflict => {
            "the key, or the id, came before with another body: another request needs another key"
        }
        Code::KeyTooOld => "it was issued before what repeats are known of: ask what became of it first",
        Code::Overloaded => "too much is waiting; send it again a little later with the same key",
        Code::Expired => "the hold's time is over",
        Code::WrongState => "the reservation's state does not allow that step",
        Code::InsufficientClaim => "the reservation claims less of that sku there",
        Code::HoldLimit => "as many holds are open as this channel, or its customer, may have",
        Code::ReservationExists => "the id belongs to another reservation",
        Code::UnknownReservation => "no such reservation",
        Code::Backordered => "some of it has not come yet; take what is there line by line",
        Code::NodeNotChosen => "for some of it the node is not chosen yet; a move chooses it",
        Code::NodeNotOffered => "the channel is not offered that node",
        Code::TooManyGroups => {
            "units of the sku are claimed of as many groups as can be, of this channel or in all; choose nodes for some"
        }
        Code::TooManyWaiting => {
            "as many reservations wait for the sku as may, of this channel or in all; fill it partly, or ask again when some are served"
        }
        Code::InsufficientAllocation => "the channel's allocation has fewer units there",
        Code::InvalidQuantity => "a quantity must be 1 to 1,000,000,000",
        Code::InvalidTtl => "ttl_ms must be 1 to 2,592,000,000 (30 days)",
        Code::NoLines => "a reservation needs lines",
        Code::TooManyLines => "a reservation may have 4,096 lines",
        Code::InvalidRule => "it contradicts itself, or is out of bounds",
        Code::InvalidParent => "the parent is part of this channel, or levels would be more than 8",
        Code::VersionConflict => {
            "it is not what you saw any more: read it again, and put it with the new ETag"
        }
        Code::CatalogueFull => "there are as many of these as can be",
        Code::UnknownSupply => "no such supply is open there: announce it first, or leave supply out",
        Code::AmbiguousSupply => {
            "several sources announced a supply of that name: say which with supply_source"
        }
        Code::TooManySupplies => "the sku has as many open supplies as it may have (1,024)",
        Code::CountTooLate => {
            "a later count of that node is known, or stock moved since and the count is too old: count again"
        }
        Code::ExpectedMismatch => "on hand is not what was expected: read the position, then decide again",
        Code::InsufficientOnHand => "fewer units are on hand than would leave: count what is there",
        Code::PositionLimit => "the position would hold more than 4,000,000,000 units in a bucket",
        Code::InvalidEvent => "a field that its type needs is missing, or does not fit",
        Code::EventInFuture => "occurred_at lies more than 300 s ahead of the server's clock",
        Code::UnknownNode => "no such node, or none of this token's",
        Code::UnknownSku => "no such sku",
        Code::PartlyPicked => {
            "some of it was picked or shipped and some was not: fulfil what was, line by line, or all of it with all"
        }
        Code::TooManySkus => {
            "this token has made as many skus as it may; an administrator's token may make more"
        }
        _ => "it was refused",
    }
}

/// What a code is in HTTP.
fn status(code: Code) -> StatusCode {
    use Code::{
        ClockAhead, CursorUnknown, Forbidden, InvalidEvent, InvalidName, InvalidQuantity, InvalidRule,
        InvalidTtl, Malformed, NoLines, Ok, Overloaded, ShuttingDown, TooManyLines, Unauthenticated,
        UnknownChannel, UnknownGroup, UnknownNode, UnknownReservation, UnknownSku, UnknownSupply,
        UnknownToken, UnknownZone, VersionConflict,
    };
    match code {
        Ok => StatusCode::OK,
        Malformed => StatusCode::BAD_REQUEST,
        Unauthenticated => StatusCode::UNAUTHORIZED,
        Forbidden => StatusCode::FORBIDDEN,
        Overloaded | ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
        CursorUnknown => StatusCode::GONE,
        VersionConflict => StatusCode::PRECONDITION_FAILED,
        InvalidQuantity | NoLines | TooManyLines | InvalidTtl | InvalidEvent | InvalidName | InvalidRule
        | ClockAhead => StatusCode::UNPROCESSABLE_ENTITY,
        UnknownSku | UnknownNode | UnknownChannel | UnknownGroup | UnknownZone | UnknownReservation
        | UnknownSupply | UnknownToken => StatusCode::NOT_FOUND,
        _ => StatusCode::CONFLICT,
    }
}

impl From<Turned> for Problem {
    fn from(turned: Turned) -> Problem {
        Problem::of(turned.code, turned.text)
    }
}

/// A problem as it is sent (RFC 9457), besides what is particular to its code.
#[derive(JsonSchema)]
#[schemars(rename = "Problem")]
#[expect(dead_code, reason = "it stands for problems in the document")]
pub(super) struct ProblemBody {
    r#type: String,
    title: String,
    status: u16,
    /// Stable, for programs.
    code: String,
    /// What went wrong and what to do, for people.
    detail: String,
    /// Where the refusal stands in the order, if it does.
    #[schemars(default, with = "u64")]
    lsn: Option<u64>,
    /// The state of the reservation that it is about.
    #[schemars(default, with = "String")]
    state: Option<String>,
    /// Lines for which there was too little.
    #[schemars(default)]
    short: Vec<Short>,
}

/// What extractors and routes say of it.
impl OperationOutput for Problem {
    type Inner = ProblemBody;

    fn operation_response(ctx: &mut GenContext, _: &mut Operation) -> Option<Described> {
        Some(described::<ProblemBody>(ctx, "Refused", "application/problem+json"))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or_default(),
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.detail,
        });
        if let Value::Object(members) = &mut body {
            members.extend(self.more);
        }
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (self.status, kind, body.to_string()).into_response();
        response.extensions_mut().insert(ProblemCode { name: self.code, counts: self.counts });
        let headers = response.headers_mut();
        match self.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}
