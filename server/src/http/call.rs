//! What every call does: learn who asks, read the body, look names up, put commands in the order and wait.

use std::sync::Arc;
use std::time::Duration;

use aide::OperationInput;
use aide::generate::GenContext;
use aide::openapi::{Operation, Response as Described};
use aide::operation::ParamLocation;
use axum::extract::{FromRequestParts, MatchedPath, Path, Query};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use stockline_core::catalogue::{NameKind, Principal, Role};
use stockline_core::command::{Body, Command, Frame, Line, Read};
use stockline_core::id::{ChannelId, GroupId, Key, Millis, NodeId, PrincipalId, SkuId};
use stockline_core::limit;
use stockline_core::merge::FrameReply;
use stockline_core::outcome::Code;
use stockline_core::record::digest;
use stockline_core::wire::FrameType;
use tokio::sync::mpsc::unbounded_channel;
use xxhash_rust::xxh3::xxh3_128;

use super::accept::Peer;
use super::answer::{Name, Told, described};
use super::openapi::parameters;
use super::problem::{Problem, ProblemBody};
use super::token::RoleText;
use crate::access::{self, Present};
use crate::engine::{Engine, Refused, Tag};
pub(super) use crate::event_row::uuid_number;
use crate::history;
use crate::metrics;
use crate::principal::SignedIn;

/// How often a full lane is tried again before the caller hears of it.
const OFFERS: u32 = 50;

/// Who asks: `Authorization: Bearer TOKEN`.
fn signed_in(engine: &Engine, headers: &HeaderMap) -> Result<SignedIn, Problem> {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = given.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    let Some(token) = token else {
        let text = "say who asks with the header Authorization: Bearer TOKEN; see admin.token in the data \
                    directory, or `stockline token`";
        return Err(Problem::of(Code::Unauthenticated, text));
    };
    let found = engine.principals().sign_in(token.as_bytes());
    found.ok_or_else(|| Problem::of(Code::Unauthenticated, "the token is not known here"))
}

/// The name behind an id; empty where there is none.
pub(super) fn name(engine: &Engine, kind: NameKind, id: u32) -> Name {
    engine.names().name(kind, id).unwrap_or_else(|| "".into())
}

/// The number behind a key given as text: a UUID's own, else that of its hash. Keys are each principal's own.
pub(super) fn number(text: &str) -> u128 {
    uuid_number(text).unwrap_or_else(|| xxh3_128(text.as_bytes()).max(1))
}

/// The header `Idempotency-Key`, if there is one.
fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let text = value.to_str().map(|text| text.trim().trim_matches('"')).ok();
    let text = text.filter(|text| !text.is_empty() && text.len() <= 255);
    let wrong = || Problem::invalid("Idempotency-Key must be 1 to 255 printable characters");
    text.map(|text| Some(text.to_owned())).ok_or_else(wrong)
}

/// How many an answer has, if it may have so many.
pub(super) fn at_most(asked: usize, most: usize) -> Result<usize, Problem> {
    let wrong = || Problem::invalid(format!("limit must be 1 to {most}"));
    (1..=most).contains(&asked).then_some(asked).ok_or_else(wrong)
}

/// Bytes that nobody can guess.
pub(super) fn random<const N: usize>() -> Result<[u8; N], Problem> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|_| Problem::of(Code::Overloaded, "no random numbers are to be had; try again"))?;
    Ok(bytes)
}

/// A key that nobody has.
fn new_key() -> Result<Key, Problem> {
    Ok(Key(u128::from_le_bytes(random()?).max(1)))
}

/// Who asks, with the key of the request if it has one.
pub(super) struct Caller {
    pub(super) engine: Engine,
    pub(super) principal: Arc<Principal>,
    until: Option<Millis>,
    key: Option<String>,
}

impl FromRequestParts<Engine> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, engine: &Engine) -> Result<Caller, Problem> {
        let SignedIn { principal, until } = signed_in(engine, &parts.headers)?;
        let route = parts.extensions.get::<MatchedPath>().cloned();
        let rate = engine.principals().spend(principal.id);
        if let Some(peer) = parts.extensions.get::<Peer>() {
            peer.known.set(Arc::clone(&principal), rate);
            if !peer.place.take(engine, principal.id) {
                let text = "too many connections of this token are open; close some";
                return Err(Problem::of(Code::Overloaded, text));
            }
        }
        let operation = metrics::Operation::of_call(&parts.method, route.as_ref().map(MatchedPath::as_str));
        if let Some(text) = operation.denies(principal.role) {
            return Err(Problem::of(Code::Forbidden, text));
        }
        if rate.is_some_and(|rate| rate.wait_s > 0) {
            let text = "more calls a second than this token may make; wait as Retry-After says";
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED", text));
        }
        Ok(Caller { engine: engine.clone(), principal, until, key: key(&parts.headers)? })
    }
}

/// What stands behind the question mark.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Engine> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Engine) -> Result<Asked<T>, Problem> {
        let found = Query::<T>::try_from_uri(&parts.uri);
        found
            .map(|Query(asked)| Asked(asked))
            .map_err(|error| Problem::of(Code::Malformed, error.body_text()))
    }
}

/// What stands in the path.
pub(super) struct At<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Engine> for At<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, engine: &Engine) -> Result<At<T>, Problem> {
        let found = Path::<T>::from_request_parts(parts, engine).await;
        let nothing = |_| Problem::new(StatusCode::NOT_FOUND, "NOT_FOUND", "there is nothing at such a path");
        found.map(|Path(at)| At(at)).map_err(nothing)
    }
}

/// Refusals that a part of a request may meet with.
pub(super) fn refusals(ctx: &mut GenContext, statuses: &[(u16, &str)]) -> Vec<(Option<u16>, Described)> {
    let mut refusal = |text: &str| described::<ProblemBody>(ctx, text, "application/problem+json");
    statuses.iter().map(|(status, text)| (Some(*status), refusal(text))).collect()
}

impl OperationInput for Caller {
    fn inferred_early_responses(ctx: &mut GenContext, _: &mut Operation) -> Vec<(Option<u16>, Described)> {
        let statuses = [
            (401, "No token, or none that is known"),
            (403, "The token's role does not allow it"),
            (422, "It makes no sense as it stands"),
            (429, "More calls a second than the token may make"),
            (503, "Too much waits, or the server is stopping: send it again later with the same key"),
        ];
        refusals(ctx, &statuses)
    }
}

impl<T: JsonSchema> OperationInput for Asked<T> {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        parameters::<T>(ctx, operation, ParamLocation::Query);
    }

    fn inferred_early_responses(ctx: &mut GenContext, _: &mut Operation) -> Vec<(Option<u16>, Described)> {
        refusals(ctx, &[(400, "It cannot be read")])
    }
}

impl<T: JsonSchema> OperationInput for At<T> {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        parameters::<T>(ctx, operation, ParamLocation::Path);
    }

    fn inferred_early_responses(ctx: &mut GenContext, _: &mut Operation) -> Vec<(Option<u16>, Described)> {
        refusals(ctx, &[(404, "There is no such thing")])
    }
}

/// Who a token is for.
#[derive(Serialize, JsonSchema)]
pub(super) struct Me {
    name: String,
    role: RoleText,
    channel: Option<Name>,
    nodes: Vec<Name>,
}

pub(super) async fn me(caller: Caller) -> Told<Me> {
    let Principal { name, role, channel, nodes, .. } = &*caller.principal;
    Told(Me {
        name: name.clone(),
        role: RoleText::of(*role),
        channel: channel.map(|id| caller.name(NameKind::Channel, u32::from(id.0))),
        nodes: nodes.iter().map(|id| caller.name(NameKind::Node, u32::from(id.0))).collect(),
    })
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Beginning {
    #[serde(default)]
    prefix: String,
    /// 1 to 200; 50 where nothing is said.
    #[schemars(range(min = 1, max = 200))]
    limit: Option<usize>,
}

/// Names, in their order.
#[derive(Serialize, JsonSchema)]
pub(super) struct Names {
    items: Vec<Name>,
}

/// Skus whose names begin so. It looks at all of them: for people who search, not for programs that know.
pub(super) async fn sku_names(
    caller: Caller,
    Asked(Beginning { prefix, limit }): Asked<Beginning>,
) -> Result<Told<Names>, Problem> {
    let most = at_most(limit.unwrap_or(50), limit::NAMES_FOUND_MAX)?;
    let lost = |_| Problem::of(Code::Overloaded, "the search was lost; ask again");
    let place = history::turn(&caller.engine, &caller.signed_in()).await?;
    let engine = caller.engine.clone();
    let found = tokio::task::spawn_blocking(move || {
        let _place = place;
        engine.names().beginning(NameKind::Sku, &prefix, most)
    });
    Ok(Told(Names { items: found.await.map_err(lost)? }))
}

impl Caller {
    /// The key of the request, or one that nobody has.
    pub(super) fn key(&self) -> Result<Key, Problem> {
        self.given_key().map_or_else(new_key, Ok)
    }

    /// The key of the request, if it has one.
    pub(super) fn given_key(&self) -> Option<Key> {
        self.key.as_deref().map(|text| Key(number(text)))
    }

    /// The id of a reservation that the key stands for: a UUID is one; any other text is the principal's own.
    pub(super) fn id_by_key(&self) -> Option<u128> {
        let text = self.key.as_deref()?;
        Some(uuid_number(text).unwrap_or_else(|| self.id_of(self.principal.id, text)))
    }

    /// The id behind text that is a principal's own: nobody else can compute it, so nobody else can take it.
    pub(super) fn id_of(&self, whose: PrincipalId, text: &str) -> u128 {
        let tag = ring::hmac::sign(self.engine.id_key(), format!("{}\0{text}", whose.0).as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&tag.as_ref()[..16]);
        u128::from_le_bytes(bytes).max(1)
    }

    /// The key of the request, where it is a text that is kept with what is made under it.
    pub(super) fn key_text(&self) -> Option<&str> {
        self.key.as_deref().filter(|text| uuid_number(text).is_none() && text.len() <= limit::LABEL_BYTES_MAX)
    }

    /// The moment at which the request was first sent, if its key says so: one that begins with a time (UUID version 7).
    /// The clock of its sender may be ahead.
    pub(super) fn not_before(&self) -> Option<Millis> {
        let key = self.key.as_deref().filter(|text| text.len() == 36)?;
        let (seconds, nanos) = uuid::Uuid::parse_str(key)
            .ok()
            .filter(|key| key.get_version_num() == 7)?
            .get_timestamp()?
            .to_unix();
        let ms = seconds.saturating_mul(1_000).saturating_add(u64::from(nanos / 1_000_000));
        Some(Millis(ms.saturating_sub(limit::CLOCK_AHEAD_MS_MAX)))
    }

    pub(super) fn signed_in(&self) -> SignedIn {
        SignedIn { principal: Arc::clone(&self.principal), until: self.until }
    }

    /// The id behind a name.
    pub(super) fn id(&self, kind: NameKind, name: &str) -> Result<u32, Problem> {
        let text = || format!("no {} {name:?}", kind.name());
        // What is none of a channel's business looks as if it were not there.
        let mut shown: Box<str> = name.into();
        access::hide_name(&self.engine, &self.principal, kind, &mut shown);
        self.engine.names().id(kind, &shown).ok_or_else(|| Problem::of(kind.unknown(), text()))
    }

    pub(super) fn sku(&self, name: &str) -> Result<SkuId, Problem> {
        self.id(NameKind::Sku, name).map(SkuId)
    }

    pub(super) fn node(&self, name: &str) -> Result<NodeId, Problem> {
        self.id(NameKind::Node, name).map(|id| NodeId(id as u16))
    }

    pub(super) fn group(&self, name: &str) -> Result<GroupId, Problem> {
        self.id(NameKind::Group, name).map(|id| GroupId(id as u16))
    }

    pub(super) fn channel(&self, name: &str) -> Result<ChannelId, Problem> {
        self.id(NameKind::Channel, name).map(|id| ChannelId(id as u16))
    }

    /// The name behind an id.
    pub(super) fn name(&self, kind: NameKind, id: u32) -> Name {
        name(&self.engine, kind, id)
    }

    /// The channel whose reservations are all that it sees.
    pub(super) fn scope(&self) -> Option<ChannelId> {
        if self.principal.role == Role::Channel { self.principal.channel } else { None }
    }

    /// A command that is sent now.
    pub(super) fn command(&self, key: Key, body: Body, lines: &[Line]) -> Command {
        Command { key, issued_at: self.engine.clock().now(), digest: digest(&body, lines), body }
    }

    /// Asks the ledger something.
    pub(super) async fn read(&self, kind: FrameType, read: Read) -> Result<FrameReply, Problem> {
        let command = self.command(Key(0), Body::Read(read), &[]);
        self.submit(kind, vec![command], Vec::new()).await
    }

    /// Puts commands in the order for a principal and waits until what came of them is durable.
    pub(super) async fn submit(
        &self,
        kind: FrameType,
        commands: Vec<Command>,
        lines: Vec<Line>,
    ) -> Result<FrameReply, Problem> {
        let principal = &self.principal;
        access::allow(principal, kind, &commands)?;
        self.submit_as(principal.id, commands, lines).await
    }

    /// The same for somebody else, or the system, which the caller answers for.
    pub(super) async fn submit_as(
        &self,
        as_whom: PrincipalId,
        commands: Vec<Command>,
        lines: Vec<Line>,
    ) -> Result<FrameReply, Problem> {
        let (engine, principal) = (&self.engine, &self.principal);
        // The body may have taken its time: what was revoked meanwhile does nothing any more.
        let ended = self.until.is_some_and(|until| engine.clock().wall() >= until);
        if ended || !engine.principals().is_current(principal) {
            return Err(Problem::of(Code::Unauthenticated, access::REVOKED));
        }
        let (reply_to, mut answered) = unbounded_channel();
        let tag = Tag { names_sources: true, ..Tag::new(Some(reply_to)) };
        let mut frame = Frame { tag, principal: as_whom, commands, lines };
        let mut offers = 0;
        while let Err(refused) = engine.submit(frame) {
            match refused {
                Refused::LaneFull(full) if offers < OFFERS => frame = *full,
                Refused::LaneFull(_) => {
                    return Err(Problem::of(Code::Overloaded, "too much of this token waits; try again"));
                }
                Refused::Turned(code) => {
                    return Err(Problem::of(
                        code,
                        "nothing was executed; send it again later with the same key",
                    ));
                }
            }
            offers += 1;
            tokio::time::sleep(Duration::from_millis(limit::OVERLOADED_PAUSE_MS)).await;
        }
        let gone = || Problem::of(Code::ShuttingDown, "the server is stopping; ask again with the same key");
        let mut answered = answered.recv().await.ok_or_else(gone)?;
        if answered.reply.repeats().next().is_some() {
            let present = Present::enter(engine, &self.signed_in())?;
            answered = present.look_up(engine, answered, || false).await.ok_or_else(gone)?;
        }
        Ok(answered.reply)
    }
}
