//! Stock: events as warehouses tell them, positions, and allocations of channels.

use std::collections::HashSet;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use stockline_core::bucket::{Bucket, Movement, ON_HAND};
use stockline_core::catalogue::{Definition, NameKind, Principal, Role, Rules, check_event};
use stockline_core::command::{Action, Allocate, Body, Command, Read};
use stockline_core::event::{Redrive, StockEvent};
use stockline_core::id::{ChannelId, Key, Lsn, Millis, NodeId, PrincipalId, SkuId};
use stockline_core::ledger::Share;
use stockline_core::limit;
use stockline_core::merge::Reply;
use stockline_core::outcome::Code;
use stockline_core::record::digest;
use stockline_core::wire::FrameType;
use xxhash_rust::xxh3::xxh3_64;

use super::answer::{Moment, Name, Told};
use super::body::Sent;
use super::call::{Asked, At, Caller, at_most};
use super::problem::{Problem, meaning};
use super::{called, cloud_event, dead_letter};
use crate::engine::Engine;
use crate::event_row::{EventRow, ParsedRow, key_of, wrong};
use crate::history::{self, Moved};
use crate::zone;

/// Events as they should be; what is none is rejected by itself, and the others are taken.
fn judged_one_by_one(generator: &mut SchemaGenerator) -> Schema {
    let event = generator.subschema_for::<EventRow>();
    json_schema!({ "type": "array", "items": { "anyOf": [event, { "description": "is rejected by itself" }] } })
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Events {
    /// At most 8,192. Each is judged by itself.
    #[schemars(schema_with = "judged_one_by_one")]
    pub(super) events: Vec<Box<RawValue>>,
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
    /// The same for people: which field, which value, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum EventStatus {
    Applied,
    Duplicate,
    Rejected,
}

/// An event as it came, and what can be made of it.
pub(super) struct EventSent {
    pub(super) text: Box<RawValue>,
    /// Or why nothing can: field, value, reason.
    pub(super) row: Result<(EventRow, ParsedRow), String>,
}

impl EventSent {
    pub(super) fn read(text: Box<RawValue>) -> EventSent {
        let row = EventRow::from_json(text.get()).and_then(|row| row.parse().map(|parsed| (row, parsed)));
        EventSent { text, row }
    }

    /// The key of one that cannot be read, if it has what makes one.
    pub(super) fn key_given(&self) -> Option<Key> {
        let fields: serde_json::Value = serde_json::from_str(self.text.get()).ok()?;
        Some(key_of(fields.get("source")?.as_str()?, fields.get("id")?.as_str()?))
    }

    /// The id that it gives itself, if it has one.
    fn id(&self) -> String {
        match &self.row {
            Ok((row, _)) => row.id.clone(),
            Err(_) => {
                let fields: Result<serde_json::Value, _> = serde_json::from_str(self.text.get());
                let id = fields.ok().and_then(|fields| Some(fields.get("id")?.as_str()?.to_owned()));
                id.unwrap_or_default()
            }
        }
    }
}

/// Why an event that cannot be read is refused.
fn code_of(reason: &str) -> Code {
    if reason.starts_with("quantity:") { Code::InvalidQuantity } else { Code::InvalidEvent }
}

/// What became of an event.
pub(super) struct Fate {
    pub(super) code: Code,
    pub(super) is_repeat: bool,
    lsn: Lsn,
}

pub(super) async fn tell(
    caller: Caller,
    cloud_event::Told(Events { events }): cloud_event::Told,
) -> Result<Told<EventResults>, Problem> {
    if events.len() > limit::FRAME_COMMANDS_MAX {
        return Err(Problem::invalid(format!("at most {} events at once", limit::FRAME_COMMANDS_MAX)));
    }
    if caller.principal.role == Role::Channel {
        return Err(Problem::of(Code::Forbidden, "a channel may not tell stock events"));
    }
    caller.engine.principals().spend_more(caller.principal.id, events.len().saturating_sub(1));
    let sent: Vec<EventSent> = events.into_iter().map(EventSent::read).collect();
    // Begun, it is counted and kept, whether or not somebody waits for it.
    let done = tokio::spawn(async move { apply(&caller, sent).await });
    let lost =
        |_| Problem::of(Code::Overloaded, "what became of it is lost; send it again with the same ids");
    done.await.map_err(lost)?.map(|results| Told(EventResults { results }))
}

async fn apply(caller: &Caller, mut sent: Vec<EventSent>) -> Result<Vec<EventResult>, Problem> {
    caller.name_reservations(&caller.principal, &mut sent).await?;
    let parsed: Vec<&ParsedRow> = sent.iter().filter_map(|sent| Some(&sent.row.as_ref().ok()?.1)).collect();
    let not_made = make_skus(caller, &caller.principal, &parsed).await?;
    let events: Vec<StockEvent> =
        parsed.iter().map(|row| event_of(&caller.engine, row, caller.principal.id)).collect();
    let commands = parsed.iter().zip(&events);
    let commands = commands.map(|(row, event)| {
        let mut command = caller.command(row.key, Body::Event(event.clone()), &[]);
        command.issued_at = Command::not_before(row.not_before);
        command.digest = digest_of(row, event).unwrap_or(command.digest);
        command
    });
    let commands: Vec<_> = commands.collect();
    let replies = match commands.is_empty() {
        true => Vec::new(),
        false => caller.submit(FrameType::Events, commands, vec![]).await?.replies,
    };
    count(caller, &sent, &events, &replies);
    let mut of_parsed = replies.iter();
    let fates = sent.iter().map(|sent| match &sent.row {
        Err(reason) => Fate { code: code_of(reason), is_repeat: false, lsn: Lsn::NONE },
        Ok((_, row)) => {
            let reply = of_parsed.next().expect("each command has its reply");
            let code = match reply.outcome.code {
                Code::UnknownSku if not_made.contains(&row.sku) => Code::TooManySkus,
                code => code,
            };
            Fate { code, is_repeat: reply.repeat, lsn: reply.lsn }
        }
    });
    let fates: Vec<Fate> = fates.collect();
    dead_letter::keep(caller, &sent, &fates).await?;
    let now = caller.engine.clock().wall();
    let results = sent.iter().zip(&fates).map(|(sent, fate)| EventResult {
        id: sent.id(),
        status: match (fate.code, fate.is_repeat) {
            (Code::Ok, true) => EventStatus::Duplicate,
            (Code::Ok, false) => EventStatus::Applied,
            _ => EventStatus::Rejected,
        },
        lsn: fate.lsn.0,
        code: (fate.code != Code::Ok).then(|| fate.code.name()),
        detail: detail(sent, fate.code, now, caller.principal.clock_ahead_ms()),
    });
    Ok(results.collect())
}

/// Why an event was rejected, and what to do.
fn detail(sent: &EventSent, code: Code, now: Millis, ahead_ms: u64) -> Option<String> {
    let row = match &sent.row {
        Err(reason) => return Some(reason.clone()),
        Ok((_, parsed)) if parsed.is_ambiguous && code == Code::UnknownReservation => {
            return parsed.called_so.as_ref().map(|text| wrong("reservation", text, called::SEVERAL));
        }
        Ok((row, _)) => row,
    };
    Some(match code {
        Code::Ok => return None,
        Code::UnknownNode => {
            let text = "is unknown here, or none of this token's: create it with PUT /v1/nodes/{node}, then re-drive \
                        the dead letter or send the event again";
            wrong("node", &row.node, text)
        }
        Code::EventInFuture => {
            let ahead = ahead_ms / 1_000;
            let now = Moment::text(now);
            let text = format!(
                "is more than {ahead} s ahead of the server's clock ({now}): set the sender's clock, \
                                then send the event again"
            );
            wrong("occurred_at", &row.occurred_at, text)
        }
        Code::KeyTooOld => {
            let text = "happened before what repeats are known of, so it may be one: add sent_at, the moment at which it \
                        was first sent";
            wrong("occurred_at", &row.occurred_at, text)
        }
        code => meaning(code).to_owned(),
    })
}

/// An event with the ids behind its names; one that nobody has where there is none.
pub(super) fn event_of(engine: &Engine, row: &ParsedRow, sender: PrincipalId) -> StockEvent {
    let id = |kind, name: &str| engine.names().id(kind, name);
    let sku = SkuId(id(NameKind::Sku, &row.sku).unwrap_or(u32::MAX));
    let node = |name: &str| NodeId(id(NameKind::Node, name).map_or(NodeId::ANY.0, |id| id as u16));
    let mut event = row.event(sku, node).told_by(sender);
    zone::resolve_eta(engine, &mut event);
    event
}

/// What a repeat of an event is known by that names its reservation by a text: which one that is may change, the text
/// does not.
pub(super) fn digest_of(row: &ParsedRow, event: &StockEvent) -> Option<u64> {
    let text = row.called_so.as_ref()?;
    let body = Body::Event(StockEvent { reservation: None, ..event.clone() });
    Some(digest(&body, &[]) ^ xxh3_64(text.as_bytes()))
}

/// Counts what each source sent.
fn count(caller: &Caller, sent: &[EventSent], events: &[StockEvent], replies: &[Reply]) {
    let rows = sent.iter().filter_map(|sent| Some(&sent.row.as_ref().ok()?.0));
    let all: Vec<_> = rows.zip(events).zip(replies).collect();
    for of_one in all.chunk_by(|one, other| one.0.0.source == other.0.0.source) {
        let events = of_one.iter().map(|((row, event), reply)| (*event, row.sequence, *reply));
        let (name, now) = (of_one[0].0.0.source.as_str().into(), caller.engine.clock().now());
        caller.engine.metrics().sources.count(caller.principal.id, &name, now, events);
    }
}

/// Skus come into being with their first event, if nothing else is wrong with it. Answers those that the caller may
/// not make any more.
pub(super) async fn make_skus(
    caller: &Caller,
    of: &Principal,
    rows: &[&ParsedRow],
) -> Result<HashSet<String>, Problem> {
    let is_new = |row: &&&ParsedRow| caller.engine.names().id(NameKind::Sku, &row.sku).is_none();
    let new: Vec<&ParsedRow> = rows.iter().filter(is_new).copied().collect();
    if new.is_empty() {
        return Ok(HashSet::new());
    }
    let now = caller.engine.clock().wall();
    let busy = |_| Problem::of(Code::Overloaded, "configuration changes too fast; send it again");
    let Principal { role, nodes, id, .. } = of;
    let now = (now, of.clock_ahead_ms());
    let is_sound = |rules: &Rules, row: &ParsedRow| {
        let event = event_of(&caller.engine, row, *id);
        (*role == Role::Admin || nodes.contains(&event.node))
            && check_event(rules, 1, &StockEvent { sku: SkuId(0), ..event }, now) == Code::Ok
    };
    let sound = caller.engine.view().read(|reader| {
        let sound = new.iter().filter(|row| is_sound(reader.rules, row)).map(|row| &*row.sku);
        Ok(sound.collect::<Vec<&str>>())
    });
    let (_, mut new) = sound.map_err(busy)?;
    new.sort_unstable();
    new.dedup();
    if new.is_empty() {
        return Ok(HashSet::new());
    }
    let define = |name: &&str| {
        let definition = Definition::Sku { name: (*name).to_owned() };
        caller.command(Key(0), Body::Define(Box::new(definition)), &[])
    };
    let told = caller.submit(FrameType::Resolve, new.iter().map(define).collect(), vec![]).await?;
    let full = new.iter().zip(&told.replies).filter(|(_, reply)| reply.outcome.code == Code::TooManySkus);
    Ok(full.map(|(name, _)| (*name).to_owned()).collect())
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

impl Position {
    fn new(as_of: Lsn, sku: String, node: String, units: &[i64; 10]) -> Position {
        let of = |bucket: Bucket| place_of(bucket).map_or(0, |at| units[at]);
        Position {
            as_of_lsn: as_of.0,
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
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AsOf {
    /// The state right behind this LSN, as far back as the journal is kept.
    at_lsn: Option<u64>,
}

/// Index of a bucket's units in what is read of a position; none for the world outside.
fn place_of(bucket: Bucket) -> Option<usize> {
    match bucket {
        Bucket::Allocated => Some(9),
        Bucket::Inbound => Some(Bucket::Inbound as usize),
        bucket => bucket.is_on_hand().then_some(bucket as usize),
    }
}

/// Where a position is, if the caller may look at it, and its units now.
async fn look(caller: &Caller, sku: &str, node: &str) -> Result<((SkuId, NodeId), Lsn, [i64; 10]), Problem> {
    if caller.principal.role == Role::Channel {
        return Err(Problem::of(Code::Forbidden, "a channel may not look at positions"));
    }
    let place = (caller.sku(sku)?, caller.node(node)?);
    let asked = Read::Position { sku: place.0, node: place.1 };
    let reply = caller.read(FrameType::ReadPositions, asked).await?;
    let units = reply.positions.first().map(|position| position.units).unwrap_or_default();
    Ok((place, reply.as_of, units))
}

pub(super) async fn position(
    caller: Caller,
    At(Place { sku, node }): At<Place>,
    Asked(AsOf { at_lsn }): Asked<AsOf>,
) -> Result<Told<Position>, Problem> {
    let (place, now, mut units) = look(&caller, &sku, &node).await?;
    let as_of = at_lsn.map_or(now, Lsn);
    if as_of > now {
        let text = format!("LSN {as_of} lies ahead: this server is at {now}");
        return Err(Problem::of(Code::CursorUnknown, text));
    }
    // Backwards from now: what moved since is taken back.
    let mut next = Some(now).filter(|now| as_of < *now);
    while let Some(from) = next {
        let who = (&caller.engine, &caller.signed_in());
        let stretch = history::stretch(who, place, (from, as_of.next()), usize::MAX).await?;
        if stretch.kept_from > as_of.next() {
            let text = format!("what moved before LSN {} is not kept any more", stretch.kept_from);
            return Err(Problem::of(Code::CursorUnknown, text));
        }
        let movements = stretch.moved.iter().flat_map(|moved| &moved.movements);
        // Claims on what is to come move nothing that is there.
        for movement in movements.filter(|movement| !movement.pool.is_supply()) {
            let quantity = i64::from(movement.quantity);
            if let Some(at) = place_of(movement.from) {
                units[at] += quantity;
            }
            if let Some(at) = place_of(movement.to) {
                units[at] -= quantity;
            }
        }
        next = stretch.next;
    }
    Ok(Told(Position::new(as_of, sku, node, &units)))
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct OfSku {
    sku: String,
}

/// A sku at all the nodes where it has been.
#[derive(Serialize, JsonSchema)]
pub(super) struct Positions {
    as_of_lsn: u64,
    items: Vec<Position>,
}

/// A sku at all nodes that the caller may look at, those with nothing left out.
pub(super) async fn positions(
    caller: Caller,
    At(OfSku { sku }): At<OfSku>,
) -> Result<Told<Positions>, Problem> {
    if caller.principal.role == Role::Channel {
        return Err(Problem::of(Code::Forbidden, "a channel may not look at positions"));
    }
    let id = caller.sku(&sku)?;
    let all = caller.engine.names().count(NameKind::Node) as u16;
    let mut nodes: Vec<NodeId> = (0..all).map(NodeId).collect();
    if caller.principal.role == Role::Warehouse {
        nodes.retain(|node| caller.principal.nodes.contains(node));
    }
    let looks = nodes.iter().map(|node| {
        let look = Read::Position { sku: id, node: *node };
        caller.command(Key(0), Body::Read(look), &[])
    });
    let looks: Vec<Command> = looks.collect();
    if looks.is_empty() {
        let text = "there are no nodes yet: create one with PUT /v1/nodes/{node}";
        return Err(Problem::of(Code::UnknownNode, text));
    }
    let reply = caller.submit(FrameType::ReadPositions, looks, vec![]).await?;
    let found = nodes.iter().zip(&reply.positions).filter(|(_, position)| position.units != [0; 10]);
    let items = found.map(|(node, position)| {
        let node = caller.name(NameKind::Node, u32::from(node.0)).to_string();
        Position::new(reply.as_of, sku.clone(), node, &position.units)
    });
    Ok(Told(Positions { as_of_lsn: reply.as_of.0, items: items.collect() }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Back {
    /// Only what happened before this LSN: the `next_before_lsn` of the answer before.
    before_lsn: Option<u64>,
    /// At most so many commands, 1 to 1000; 50 where nothing is said.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<usize>,
}

/// What moved at a position, newest first.
#[derive(Serialize, JsonSchema)]
pub(super) struct History {
    as_of_lsn: u64,
    items: Vec<MovedAt>,
    /// Ask again with `before_lsn` of this; null where there is no more.
    next_before_lsn: Option<u64>,
    /// What happened before this LSN is not kept.
    kept_from_lsn: u64,
}

/// One command, and what it moved.
#[derive(Serialize, JsonSchema)]
struct MovedAt {
    lsn: u64,
    at: Option<Moment>,
    /// Whose token it came with; `system` for expiries and balances. A warehouse sees its own, and no reservations and
    /// channels.
    principal: String,
    /// An event's type, a step, an action, `reserve`, `expire` or `balance`.
    what: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reservation: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(default)]
    reason: String,
    /// A dead letter: who drove it again, with the rights of `principal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    redriven_by: Option<String>,
    /// A dead letter that `principal` adopted: who had sent it.
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_by: Option<String>,
    movements: Vec<MovementOf>,
}

#[derive(Serialize, JsonSchema)]
struct MovementOf {
    from: &'static str,
    to: &'static str,
    quantity: u32,
    /// Whose allocation the units are of.
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<Name>,
    /// The units are still to come: it is a claim on a supply.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(default)]
    to_come: bool,
}

/// Why is this number 3?
pub(super) async fn history(
    caller: Caller,
    At(Place { sku, node }): At<Place>,
    Asked(Back { before_lsn, limit }): Asked<Back>,
) -> Result<Told<History>, Problem> {
    let most = at_most(limit.unwrap_or(50), limit::HISTORY_ITEMS_MAX)?;
    let (place, now, _) = look(&caller, &sku, &node).await?;
    let from = before_lsn.map_or(now, |before| Lsn(before.saturating_sub(1)).min(now));
    let stretch =
        history::stretch((&caller.engine, &caller.signed_in()), place, (from, Lsn(1)), most).await?;
    // Whose it was is none of a warehouse's business, unless it was its own.
    let sees_all = caller.principal.role == Role::Admin;
    let names = caller.engine.principals().names();
    let principal = |id: PrincipalId| match id {
        id if !sees_all && id != caller.principal.id => "somebody else".to_owned(),
        PrincipalId::SYSTEM => "system".to_owned(),
        id => names.get(&id).cloned().unwrap_or_else(|| format!("revoked token {}", id.0)),
    };
    let movement = |movement: &Movement| MovementOf {
        from: movement.from.name(),
        to: movement.to.name(),
        quantity: movement.quantity,
        channel: (movement.pool != ChannelId::SHARED && !movement.pool.is_supply() && sees_all)
            .then(|| caller.name(NameKind::Channel, u32::from(movement.pool.0))),
        to_come: movement.pool.is_supply(),
    };
    let item = |moved: &Moved| {
        // Whose it is, and who else had a hand in it.
        let (who, redriven_by, sent_by) = match moved.redrive {
            Redrive::No => (moved.principal, None, None),
            Redrive::By(id) => (moved.principal, Some(principal(id)), None),
            Redrive::Adopted(id) => (id, None, Some(principal(moved.principal))),
        };
        MovedAt {
            lsn: moved.lsn.0,
            at: Moment::of(moved.at),
            principal: principal(who),
            what: moved.what,
            reservation: moved
                .reservation
                .filter(|_| sees_all)
                .map(|id| uuid::Uuid::from_u128(id.0).to_string()),
            reason: moved.reason.to_string(),
            redriven_by,
            sent_by,
            movements: moved.movements.iter().map(movement).collect(),
        }
    };
    Ok(Told(History {
        as_of_lsn: now.0,
        items: stretch.moved.iter().map(item).collect(),
        next_before_lsn: stretch.next.map(|next| next.0 + 1),
        kept_from_lsn: stretch.kept_from.0,
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
