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
use stockline_core::catalogue::Principal;
use stockline_core::feed;
use stockline_core::id::ChannelId;
use stockline_core::limit;
use stockline_core::outcome::Code;
use stockline_core::wire::{Changes, Follow};

use super::answer::described;
use super::call::{Asked, Caller};
use super::cloud_event::Enveloped;
use super::happened::{Envelope, Happened, Offered, TOPICS, happened, offered, usual};
use super::problem::Problem;
use crate::access::{self, Present, Turned};
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
    /// Begins with what the channel is offered of every sku it knows, then `snapshot`, then changes. Whoever comes back with
    /// `Last-Event-ID` is spared that.
    #[serde(default)]
    snapshot: bool,
    /// Each event's data in an envelope of CloudEvents 1.0, or as it is.
    #[serde(default)]
    envelope: Envelope,
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
        let text = "Events: reservation, change, redefined, snapshot, problem";
        vec![(Some(200), described::<String>(ctx, text, "text/event-stream"))]
    }
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
    /// The next sku of what is offered, while that is told; and how many were.
    snapshot: Option<(u32, u64)>,
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
    if asked.gather_ms > QUIET_MS {
        return Err(Problem::invalid(format!("gather_ms is at most {QUIET_MS}")));
    }
    let begins = options.snapshot && last.is_none();
    if begins && (!feed::tells_offers(asked.what) || asked.from_lsn != 0) {
        let text = "snapshot=true begins with now, for one channel and its numbers or statuses";
        return Err(Problem::invalid(text));
    }
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
        snapshot: begins.then_some((0, 0)),
        waiting: Vec::new().into_iter(),
        ended: false,
    };
    following.take(&changes);
    if following.waiting.len() == 0 && !begins {
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
    let Some(text) = text else { return Ok(usual(channel != ChannelId::SHARED)) };
    text.split(',').map(str::trim).try_fold(0, |what, word| {
        let topic = TOPICS.into_iter().find(|topic| topic.name() == word);
        let wrong = || Problem::invalid(format!("what: {word:?} is none of reservations, statuses, numbers"));
        topic.map(|topic| what | topic.bit()).ok_or_else(wrong)
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
            if let Some(snapshot) = self.snapshot {
                match self.offered(snapshot).await {
                    Ok(()) => continue,
                    Err(turned) if turned.code == Code::Overloaded => {
                        tokio::time::sleep(Duration::from_millis(limit::OVERLOADED_PAUSE_MS)).await;
                        continue;
                    }
                    Err(turned) => return Some(self.end(&turned)),
                }
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

    /// Tells the next few skus of what is offered, or that these were all.
    async fn offered(&mut self, snapshot: (u32, u64)) -> Result<(), Turned> {
        let (channel, next_lsn) = (ChannelId(self.asked.channel), self.asked.from_lsn);
        let read = offered(&self.engine, channel, snapshot, next_lsn, &mut self.told);
        let Offered { all, next } = read.await?;
        self.snapshot = next;
        self.send(all, next.is_none());
        Ok(())
    }

    /// Says why nothing more comes.
    fn end(&mut self, turned: &Turned) -> Event {
        self.ended = true;
        self.waiting = Vec::new().into_iter();
        let body = Ended { code: turned.code.name(), detail: turned.text.clone() };
        let text = match self.envelope {
            Envelope::None => serde_json::to_string(&body),
            Envelope::CloudEvents => {
                let id = format!("{}/problem", self.asked.from_lsn);
                serde_json::to_string(&Enveloped::new(id, "problem", None, body))
            }
        };
        Event::default().event("problem").data(text.unwrap_or_default())
    }

    /// Tells where it is, and that the stream goes on.
    fn cursor(&self) -> Event {
        Event::default().id(self.asked.from_lsn.to_string()).comment("nothing new")
    }

    fn take(&mut self, changes: &Changes) {
        self.asked.from_lsn = changes.next_lsn;
        self.send(happened(&self.engine, self.asked.channel, changes), true);
    }

    /// Makes events. The last one carries the cursor, unless one must not come back to there: whoever does misses
    /// nothing.
    fn send(&mut self, all: Vec<Happened>, cursor: bool) {
        let last = all.len().checked_sub(1).filter(|_| cursor);
        let envelope = self.envelope;
        let lsn = self.asked.from_lsn;
        let event = |(at, happened): (usize, Happened)| {
            let kind = happened.kind();
            let text = match envelope {
                Envelope::None => serde_json::to_string(&happened),
                Envelope::CloudEvents => serde_json::to_string(&happened.enveloped()),
            };
            let event = Event::default().event(kind).data(text.unwrap_or_default());
            if Some(at) == last { event.id(lsn.to_string()) } else { event }
        };
        self.waiting = all.into_iter().enumerate().map(event).collect::<Vec<_>>().into_iter();
    }
}
