//! Changes as server-sent events: what happens to a channel's reservations and availability, from a cursor on.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use aide::OperationOutput;
use aide::generate::GenContext;
use aide::openapi::{Operation, Response as Described};
use axum::http::HeaderMap;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stockline_core::catalogue::{NameKind, Principal};
use stockline_core::id::{ChannelId, Millis, NodeId};
use stockline_core::limit;
use stockline_core::outcome::{Code, State as Stage};
use stockline_core::wire::{ChangeRec, Changes, Follow, NoticeRec};

use super::answer::{Moment, Name, described};
use super::call::{Asked, Caller, name};
use super::cloud_event::Enveloped;
use super::problem::Problem;
use crate::access::{self, Present, Turned};
use crate::availability::Status;
use crate::engine::Engine;
use crate::follow::{self, Followed, Told};

/// How long nothing is said before a line tells that the stream goes on.
const QUIET_MS: u32 = 15_000;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "FollowOptions")]
pub(super) struct Options {
    channel: Option<String>,
    /// Where to begin; 0, or nothing: with what comes.
    #[serde(default)]
    from_lsn: u64,
    /// Of one sku at most one number in so many milliseconds.
    #[serde(default)]
    gather_ms: u32,
    /// Some of `reservations`, `statuses` and `numbers`, with commas.
    #[serde(default)]
    what: Option<String>,
    /// Each event's data in an envelope of CloudEvents 1.0, or as it is.
    #[serde(default)]
    envelope: Envelope,
}

#[derive(Deserialize, JsonSchema, Default, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Envelope {
    #[default]
    None,
    CloudEvents,
}

/// The stream.
pub(super) struct Stream(Response);

impl IntoResponse for Stream {
    fn into_response(self) -> Response {
        self.0
    }
}

impl OperationOutput for Stream {
    type Inner = String;

    fn inferred_responses(ctx: &mut GenContext, _: &mut Operation) -> Vec<(Option<u16>, Described)> {
        let text = "Events: reservation, change, redefined, problem";
        vec![(Some(200), described::<String>(ctx, text, "text/event-stream"))]
    }
}

/// A channel is told another number, or another status, of a sku.
#[derive(Serialize, JsonSchema)]
pub(super) struct Change {
    lsn: u64,
    sku: Name,
    channel: Name,
    available: u64,
    #[schemars(extend("enum" = ["unknown", "in_stock", "low", "out", "backorder", "preorder"]))]
    status: Option<&'static str>,
    /// The status before, where it was another.
    #[serde(skip_serializing_if = "Option::is_none")]
    was: Option<&'static str>,
}

/// Something happened to a reservation.
#[derive(Serialize, JsonSchema)]
pub(super) struct Notice {
    lsn: u64,
    at: Option<Moment>,
    channel: Name,
    reservation: String,
    what: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    #[serde(flatten)]
    units: Option<Units>,
    /// Why a promise is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// Null: nobody knows any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    promised_for: Option<Option<Moment>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Moment>,
}

#[derive(Serialize, JsonSchema)]
struct Units {
    sku: Name,
    node: Name,
    quantity: u32,
}

/// Something was defined: any sku may be told another number, ask anew.
#[derive(Serialize, JsonSchema)]
pub(super) struct Redefined {
    lsn: u64,
    detail: &'static str,
}

/// An event with its name.
enum Happened {
    Reservation(Notice),
    Change(Change),
    Redefined(Redefined),
}

impl Happened {
    fn event(self, envelope: Envelope) -> Event {
        match self {
            Happened::Reservation(body) => {
                let id = format!("{}/{}/{}", body.lsn, body.reservation, body.what);
                event("reservation", envelope, id, body.at.clone(), body)
            }
            Happened::Change(body) => {
                let id = format!("{}/{}/{}", body.lsn, body.channel, body.sku);
                event("change", envelope, id, None, body)
            }
            Happened::Redefined(body) => {
                event("redefined", envelope, format!("{}/redefined", body.lsn), None, body)
            }
        }
    }
}

fn event(kind: &str, envelope: Envelope, id: String, time: Option<Moment>, body: impl Serialize) -> Event {
    let text = match envelope {
        Envelope::None => serde_json::to_string(&body),
        Envelope::CloudEvents => serde_json::to_string(&Enveloped::new(id, kind, time, body)),
    };
    Event::default().event(kind).data(text.unwrap_or_default())
}

/// Why nothing more comes.
#[derive(Serialize, JsonSchema)]
pub(super) struct Ended {
    code: &'static str,
    detail: String,
}

struct Following {
    engine: Engine,
    principal: Arc<Principal>,
    present: Present,
    asked: Follow,
    told: Told,
    envelope: Envelope,
    /// Events to be sent before more is asked for.
    waiting: std::vec::IntoIter<Event>,
    ended: bool,
}

pub(super) async fn stream(
    caller: Caller,
    Asked(options): Asked<Options>,
    headers: HeaderMap,
) -> Result<Stream, Problem> {
    let own = caller.scope().unwrap_or(ChannelId::SHARED);
    let channel = options.channel.as_ref().map_or(Ok(own), |name| caller.channel(name))?;
    let (who, envelope) = (caller.signed_in(), options.envelope);
    let Caller { engine, principal, .. } = caller;
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let last = last.map(|text| text.trim().parse::<u64>()).transpose();
    let last =
        last.map_err(|_| Problem::invalid("Last-Event-ID is the id of an event of this stream: a number"))?;
    let asked = Follow {
        from_lsn: last.unwrap_or(options.from_lsn),
        channel: channel.0,
        what: what(options.what.as_deref(), channel)?,
        wait_ms: QUIET_MS,
        gather_ms: options.gather_ms,
    };
    // What cannot be followed is said at once, as a problem.
    let present = Present::enter(&engine, &who)?;
    let first = Follow { wait_ms: 0, gather_ms: 0, ..asked };
    let first = follow::Asked::new(&principal, &engine, &first)?;
    let Followed { answer, told } = first.answer(engine.clone(), present.turn(), Told::default()).await;
    let changes = answer?;
    let mut following = Following {
        engine,
        principal,
        present,
        asked,
        told,
        envelope,
        waiting: Vec::new().into_iter(),
        ended: false,
    };
    following.take(&changes);
    if following.waiting.len() == 0 {
        // Whoever is cut off before anything happens comes back to here.
        following.waiting = vec![following.cursor()].into_iter();
    }
    let events = unfold(following, |mut following| async move {
        let event = following.next().await?;
        Some((Ok::<Event, Infallible>(event), following))
    });
    Ok(Stream(Sse::new(events).into_response()))
}

/// What is followed: `reservations`, `statuses`, `numbers`, with commas.
fn what(text: Option<&str>, channel: ChannelId) -> Result<u8, Problem> {
    let Some(text) = text else { return Ok(if channel == ChannelId::SHARED { 1 } else { 5 }) };
    text.split(',').try_fold(0, |what, word| match word.trim() {
        "reservations" => Ok(what | 1),
        "statuses" => Ok(what | 2),
        "numbers" => Ok(what | 4),
        other => Err(Problem::invalid(format!("what: {other:?} is none of reservations, statuses, numbers"))),
    })
}

impl Following {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if self.present.is_over() && !self.ended {
                return Some(self.end(&Turned::new(Code::Unauthenticated, access::REVOKED)));
            }
            if let Some(event) = self.waiting.next() {
                return Some(event);
            }
            if self.ended || self.engine.is_draining() {
                return None;
            }
            let told = std::mem::take(&mut self.told);
            let answer = match follow::Asked::new(&self.principal, &self.engine, &self.asked) {
                Ok(asked) => {
                    let turn: Arc<tokio::sync::Semaphore> = self.present.turn();
                    tokio::select! {
                        followed = asked.answer(self.engine.clone(), turn, told) => {
                            self.told = followed.told;
                            followed.answer
                        }
                        () = self.present.revoked() => {
                            Err(Turned::new(Code::Unauthenticated, access::REVOKED))
                        }
                    }
                }
                Err(turned) => Err(turned),
            };
            match answer {
                Ok(changes) => {
                    self.take(&changes);
                    if self.waiting.len() == 0 {
                        return Some(self.cursor());
                    }
                }
                Err(turned) if turned.code == Code::Overloaded => {
                    tokio::time::sleep(Duration::from_millis(limit::OVERLOADED_PAUSE_MS)).await;
                }
                Err(turned) => return Some(self.end(&turned)),
            }
        }
    }

    /// Says why nothing more comes.
    fn end(&mut self, turned: &Turned) -> Event {
        self.ended = true;
        self.waiting = Vec::new().into_iter();
        let body = Ended { code: turned.code.name(), detail: turned.text.clone() };
        event("problem", self.envelope, format!("{}/problem", self.asked.from_lsn), None, body)
    }

    /// Tells where it is, and that the stream goes on.
    fn cursor(&self) -> Event {
        Event::default().id(self.asked.from_lsn.to_string()).comment("nothing new")
    }

    /// Makes events of an answer. The last one carries the cursor: whoever comes back with it misses nothing.
    fn take(&mut self, changes: &Changes) {
        let engine = &self.engine;
        let mut events: Vec<Happened> = Vec::with_capacity(changes.notices.len() + changes.changes.len());
        events.extend(changes.notices.iter().map(|notice| Happened::Reservation(told_of(engine, notice))));
        let channel = name(engine, NameKind::Channel, u32::from(self.asked.channel));
        let changed = |change| Happened::Change(change_of(engine, &channel, changes.as_of_lsn, change));
        events.extend(changes.changes.iter().map(changed));
        if changes.redefined != 0 {
            let detail = "something was defined: any sku may be another, ask anew";
            events.push(Happened::Redefined(Redefined { lsn: changes.next_lsn - 1, detail }));
        }
        self.asked.from_lsn = changes.next_lsn;
        let last = events.len().checked_sub(1);
        let envelope = self.envelope;
        let event = |(at, happened): (usize, Happened)| {
            let event = happened.event(envelope);
            if Some(at) == last { event.id(changes.next_lsn.to_string()) } else { event }
        };
        self.waiting = events.into_iter().enumerate().map(event).collect::<Vec<_>>().into_iter();
    }
}

fn change_of(engine: &Engine, channel: &Name, lsn: u64, change: &ChangeRec) -> Change {
    Change {
        lsn,
        sku: name(engine, NameKind::Sku, change.sku),
        channel: Name::clone(channel),
        available: change.available,
        status: Status::name(change.status),
        was: Status::name(change.before).filter(|_| change.before != change.status),
    }
}

fn told_of(engine: &Engine, notice: &NoticeRec) -> Notice {
    let reason = follow::reason_name(notice.reason);
    let due = || Moment::of(Millis(notice.due_ms));
    Notice {
        lsn: notice.lsn,
        at: Moment::of(Millis(notice.at_ms)),
        channel: name(engine, NameKind::Channel, u32::from(notice.channel)),
        reservation: uuid::Uuid::from_u128(notice.reservation).to_string(),
        what: follow::what_name(notice.what),
        state: Stage::from_number(notice.state).filter(|state| *state != Stage::None).map(Stage::name),
        units: (notice.node != NodeId::ANY.0).then(|| Units {
            sku: name(engine, NameKind::Sku, notice.sku),
            node: name(engine, NameKind::Node, u32::from(notice.node)),
            quantity: notice.quantity,
        }),
        reason,
        promised_for: reason.map(|_| if notice.due_ms == u64::MAX { None } else { due() }),
        expires_at: if reason.is_none() && notice.due_ms > 0 { due() } else { None },
    }
}
