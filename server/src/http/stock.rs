//! Stock: events as warehouses tell them, positions, and allocations of channels.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use stockline_core::bucket::{Bucket, ON_HAND};
use stockline_core::catalogue::{Definition, NameKind, Role};
use stockline_core::command::{Action, Allocate, Body, Read};
use stockline_core::id::{ChannelId, Key, NodeId, SkuId};
use stockline_core::ledger::Share;
use stockline_core::limit;
use stockline_core::outcome::Code;
use stockline_core::wire::FrameType;

use super::answer::{Name, Told};
use super::call::{Asked, At, Caller, Sent};
use super::problem::Problem;
use crate::event_row::{EventRow, ParsedRow};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Events {
    events: Vec<EventRow>,
}

/// What became of each event, in the order of the request.
#[derive(Serialize, JsonSchema)]
pub(super) struct EventResults {
    results: Vec<EventResult>,
}

#[derive(Serialize, JsonSchema)]
struct EventResult {
    id: String,
    status: EventStatus,
    /// Where it stands in the order; a duplicate has that of the first. 0 where it has no place.
    lsn: u64,
    /// Why it was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum EventStatus {
    Applied,
    Duplicate,
    Rejected,
}

pub(super) async fn tell(
    caller: Caller,
    Sent(Events { events }): Sent<Events>,
) -> Result<Told<EventResults>, Problem> {
    if events.len() > limit::FRAME_COMMANDS_MAX {
        return Err(Problem::invalid(format!("at most {} events at once", limit::FRAME_COMMANDS_MAX)));
    }
    let ids: Vec<String> = events.iter().map(|event| event.id.clone()).collect();
    let (mut rows, mut wrong) = (Vec::with_capacity(events.len()), Vec::new());
    for (index, event) in events.into_iter().enumerate() {
        match event.parse() {
            Ok(row) => rows.push(row),
            Err(reason) => wrong.push(json!({ "event": index, "reason": reason })),
        }
    }
    if !wrong.is_empty() {
        let problem = Problem::of(Code::InvalidEvent, "nothing was taken in; mend these and send all again");
        return Err(problem.with("events", wrong.into()));
    }
    if rows.is_empty() {
        return Ok(Told(EventResults { results: Vec::new() }));
    }
    make_skus(&caller, &rows).await?;
    let node = |name: &str| {
        NodeId(caller.engine.names().id(NameKind::Node, name).map_or(NodeId::ANY.0, |id| id as u16))
    };
    let commands = rows.iter().map(|row| {
        let sku = SkuId(caller.engine.names().id(NameKind::Sku, &row.sku).unwrap_or(u32::MAX));
        caller.command(row.key, Body::Event(row.event(sku, node)), &[])
    });
    let reply = caller.submit(FrameType::Events, commands.collect(), vec![]).await?;
    let results = ids.into_iter().zip(&reply.replies).map(|(id, told)| EventResult {
        id,
        status: match (told.outcome.code, told.repeat) {
            (Code::Ok, true) => EventStatus::Duplicate,
            (Code::Ok, false) => EventStatus::Applied,
            _ => EventStatus::Rejected,
        },
        lsn: told.lsn.0,
        code: (told.outcome.code != Code::Ok).then(|| told.outcome.code.name()),
    });
    Ok(Told(EventResults { results: results.collect() }))
}

/// Skus come into being with their first event.
async fn make_skus(caller: &Caller, rows: &[ParsedRow]) -> Result<(), Problem> {
    if caller.principal.role == Role::Channel {
        return Err(Problem::of(Code::Forbidden, "a channel may not tell stock events"));
    }
    let mut new: Vec<&str> = rows.iter().map(|row| &*row.sku).collect();
    new.retain(|name| caller.engine.names().id(NameKind::Sku, name).is_none());
    new.sort_unstable();
    new.dedup();
    if new.is_empty() {
        return Ok(());
    }
    let define = |name: &&str| {
        let definition = Definition::Sku { name: (*name).to_owned() };
        caller.command(Key(0), Body::Define(Box::new(definition)), &[])
    };
    caller.submit(FrameType::Resolve, new.iter().map(define).collect(), vec![]).await?;
    Ok(())
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Place {
    sku: String,
    node: String,
}

/// Units of a position, by bucket.
#[derive(Serialize, JsonSchema)]
pub(super) struct Position {
    as_of_lsn: u64,
    sku: String,
    node: String,
    /// Negative: a shortage, what was claimed is not there.
    free: i64,
    held: i64,
    confirmed: i64,
    picked: i64,
    safety: i64,
    damaged: i64,
    quality: i64,
    blocked: i64,
    /// Of all channels.
    allocated: i64,
    /// All of the above.
    on_hand: i64,
    /// On its way here.
    inbound: i64,
}

pub(super) async fn position(
    caller: Caller,
    At(Place { sku, node }): At<Place>,
) -> Result<Told<Position>, Problem> {
    if caller.principal.role == Role::Channel {
        return Err(Problem::of(Code::Forbidden, "a channel may not look at positions"));
    }
    let asked = Read::Position { sku: caller.sku(&sku)?, node: caller.node(&node)? };
    let reply = caller.read(FrameType::ReadPositions, asked).await?;
    let units = reply.positions.first().map(|position| position.units).unwrap_or_default();
    let of = |bucket: Bucket| units[if bucket == Bucket::Allocated { 9 } else { bucket as usize }];
    Ok(Told(Position {
        as_of_lsn: reply.as_of.0,
        sku,
        node,
        free: of(Bucket::Free),
        held: of(Bucket::Held),
        confirmed: of(Bucket::Confirmed),
        picked: of(Bucket::Picked),
        safety: of(Bucket::Safety),
        damaged: of(Bucket::Damaged),
        quality: of(Bucket::Quality),
        blocked: of(Bucket::Blocked),
        allocated: of(Bucket::Allocated),
        on_hand: ON_HAND.into_iter().map(of).sum(),
        inbound: of(Bucket::Inbound),
    }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Allocation {
    action: ActionText,
    channel: String,
    to_channel: Option<String>,
    sku: String,
    node: String,
    quantity: u32,
}

#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
enum ActionText {
    Allocate,
    Deallocate,
    Reallocate,
}

/// Done, at its place in the order.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Allocated")]
pub(super) struct Done {
    lsn: u64,
}

/// A sku's allocations.
#[derive(Serialize, JsonSchema)]
pub(super) struct Allocations {
    as_of_lsn: u64,
    allocations: Vec<ShareOf>,
}

#[derive(Serialize, JsonSchema)]
struct ShareOf {
    channel: Name,
    node: Name,
    quantity: u32,
}

pub(super) async fn allocate(caller: Caller, Sent(asked): Sent<Allocation>) -> Result<Told<Done>, Problem> {
    if (asked.action == ActionText::Reallocate) != asked.to_channel.is_some() {
        return Err(Problem::invalid("to_channel is for reallocate, and reallocate needs it"));
    }
    if asked.to_channel.as_ref() == Some(&asked.channel) {
        return Err(Problem::invalid("to_channel is another channel than channel"));
    }
    let channel = |name: &String| caller.id(NameKind::Channel, name).map(|id| ChannelId(id as u16));
    let allocate = Allocate {
        action: match asked.action {
            ActionText::Allocate => Action::Allocate,
            ActionText::Deallocate => Action::Deallocate,
            ActionText::Reallocate => Action::Reallocate,
        },
        channel: channel(&asked.channel)?,
        to_channel: asked.to_channel.as_ref().map_or(Ok(ChannelId::SHARED), channel)?,
        sku: caller.sku(&asked.sku)?,
        node: caller.node(&asked.node)?,
        quantity: asked.quantity,
    };
    let key = caller.key()?;
    let sent = caller.command(key, Body::Allocate(allocate), &[]);
    let reply = caller.submit(FrameType::Allocate, vec![sent], vec![]).await?;
    let told = reply.replies[0];
    match told.outcome.code {
        Code::Ok => Ok(Told(Done { lsn: told.lsn.0 })),
        code => Err(Problem::refused(code).with("lsn", told.lsn.0.into())),
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Whose {
    sku: String,
    channel: Option<String>,
}

/// A sku's allocations: of one channel, or of all.
pub(super) async fn allocations(
    caller: Caller,
    Asked(asked): Asked<Whose>,
) -> Result<Told<Allocations>, Problem> {
    let channel = match &asked.channel {
        Some(name) => Some(caller.channel(name)?),
        None if caller.principal.role == Role::Channel => caller.principal.channel,
        None => None,
    };
    let sku = caller.sku(&asked.sku)?;
    let reply = caller.read(FrameType::ReadAllocations, Read::Allocations { sku, channel }).await?;
    let share = |share: &Share| ShareOf {
        channel: caller.name(NameKind::Channel, u32::from(share.channel.0)),
        node: caller.name(NameKind::Node, u32::from(share.node.0)),
        quantity: share.units,
    };
    let allocations = reply.allocations.iter().flatten().map(share).collect();
    Ok(Told(Allocations { as_of_lsn: reply.as_of.0, allocations }))
}
