//! Records: the archived form (rkyv) of commands, outcomes and movements.
//!
//! The wire and the journal use the same command records: a command is kept in the layout it arrived in. All
//! records are of fixed size and alignment 1 with little-endian numbers, so an archive is readable by any
//! program from the tables of docs/protocol.md. Text lies in one array of bytes that records point into.
//! A change of any of these types is a new version of the protocol and of the journal.

mod definition;

use rkyv::rancor::Failure;
use rkyv::{Archive, Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::bucket::{Bucket, Movement};
use crate::command::{Action, Allocate, Body, Command, Fill, Line, Reserve, StepLine, Transition, Verb};
use crate::event::{EventKind, Redrive, StockEvent};
use crate::id::{
    ChannelId, GroupId, Key, Millis, NodeId, PrincipalId, ReservationId, SkuId, SourceId, SupplyId, ZoneId,
};
use crate::label::{self, ArchivedLabelRec};
use crate::ledger::{Promise, Reason, Short};

pub use definition::*;

/// Why an archive's content makes no command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("record {index} of {list}: {reason}")]
pub struct RecordError {
    pub list: &'static str,
    pub index: usize,
    pub reason: &'static str,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct ReserveRec {
    pub key: u128,
    pub issued_at_ms: u64,
    pub id: u128,
    pub channel: u16,
    pub ttl_ms: u32,
    /// 0: all lines or none, 1: what there is.
    pub fill: u8,
    /// 0: nobody in particular.
    pub customer: u64,
    /// Where the order goes; 65535 where that is not known.
    pub zone: u16,
    pub line_count: u16,
    /// How many of the frame's labels are its own.
    pub label_count: u8,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct LineRec {
    pub sku: u32,
    pub node: u16,
    pub group: u16,
    pub quantity: u32,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct TransitionRec {
    pub key: u128,
    pub issued_at_ms: u64,
    pub reservation: u128,
    pub verb: u8,
    pub ttl_ms: u32,
    /// How many of the frame's lines are its own; none for all of the reservation.
    pub line_count: u16,
}

/// Some of what a reservation claims.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct StepLineRec {
    pub sku: u32,
    pub node: u16,
    /// Move: to here; else 65535.
    pub to_node: u16,
    pub quantity: u32,
}

/// A change of channel allocations.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct AllocateRec {
    pub key: u128,
    pub issued_at_ms: u64,
    pub sku: u32,
    pub quantity: u32,
    pub node: u16,
    pub channel: u16,
    /// Reallocate: whose the units become; else 65535.
    pub to_channel: u16,
    /// 1 allocate, 2 deallocate, 3 reallocate.
    pub action: u8,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct EventRec {
    pub key: u128,
    pub issued_at_ms: u64,
    pub occurred_at_ms: u64,
    pub reservation: u128,
    pub quantity: i64,
    pub expected: i64,
    /// By whom it is announced: in the upper half the principal, which the server fills in; in the lower half the name of
    /// the source, as the lower 32 bits of its xxh3_64 (1 for 0), or 0 for none.
    pub source: u64,
    /// A number, or the xxh3_64 of a text.
    pub supply: u64,
    pub eta_ms: u64,
    pub sku: u32,
    pub damaged: u32,
    /// The name, as in `source`, of the source that announced the supply; 0: this one, or else the only one.
    pub supply_source: u32,
    pub node: u16,
    pub to_node: u16,
    pub kind: u8,
    /// Bit 0: reservation is given, 1: supply, 2: expected.
    pub given: u8,
    pub from: u8,
    pub to: u8,
    pub reason: TextRec,
    /// 1: it came out of the dead letters, driven by `other`; 2: adopted, and sent by `other`. On the wire 0.
    pub redrive: u8,
    pub other: u32,
}

/// Events with their text: a frame on the wire, a record of who keeps refused ones.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Events {
    pub events: Vec<EventRec>,
    pub text: Vec<u8>,
}

const GIVEN_RESERVATION: u8 = 1;
const GIVEN_SUPPLY: u8 = 2;
const GIVEN_EXPECTED: u8 = 4;

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct MovementRec {
    pub sku: u32,
    pub node: u16,
    /// The channel whose allocation the units are of or were claimed from; 32768 and above: a supply of the sku, 65534:
    /// none of them; else 65535.
    pub pool: u16,
    pub from: u8,
    pub to: u8,
    pub quantity: u32,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct ShortRec {
    pub line: u16,
    pub sku: u32,
    pub quantity: u32,
    pub available: u32,
}

/// Units of a reservation that were promised, or promised anew.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct PromiseRec {
    pub reservation: u128,
    /// 0: they are there; 18446744073709551615: no supply brings them.
    pub at_ms: u64,
    pub sku: u32,
    pub held: u32,
    pub confirmed: u32,
    pub node: u16,
    /// From which pool to which: 65535 what is there, 65534 no supply, 32768 and above a supply of the sku.
    pub from: u16,
    pub to: u16,
    /// 1 placed, 2 arrived, 3 sooner, 4 later, 5 moved, 6 lost.
    pub reason: u8,
    /// Whose reservation it is.
    pub channel: u16,
}

impl From<Promise> for PromiseRec {
    fn from(promise: Promise) -> PromiseRec {
        PromiseRec {
            reservation: promise.reservation.0,
            at_ms: promise.at.0,
            sku: promise.sku.0,
            held: promise.held,
            confirmed: promise.confirmed,
            node: promise.node.0,
            from: promise.from.0,
            to: promise.to.0,
            reason: promise.reason as u8,
            channel: promise.channel.0,
        }
    }
}

impl ArchivedPromiseRec {
    pub fn promise(&self) -> Option<Promise> {
        Some(Promise {
            reservation: ReservationId(self.reservation.to_native()),
            channel: ChannelId(self.channel.to_native()),
            sku: SkuId(self.sku.to_native()),
            node: NodeId(self.node.to_native()),
            from: ChannelId(self.from.to_native()),
            to: ChannelId(self.to.to_native()),
            held: self.held.to_native(),
            confirmed: self.confirmed.to_native(),
            at: Millis(self.at_ms.to_native()),
            reason: Reason::from_number(self.reason)?,
        })
    }
}

impl From<Movement> for MovementRec {
    fn from(movement: Movement) -> MovementRec {
        MovementRec {
            sku: movement.sku.0,
            node: movement.node.0,
            pool: movement.pool.0,
            from: movement.from as u8,
            to: movement.to as u8,
            quantity: movement.quantity,
        }
    }
}

impl ArchivedMovementRec {
    pub fn movement(&self) -> Option<Movement> {
        Some(Movement {
            sku: SkuId(self.sku.to_native()),
            node: NodeId(self.node.to_native()),
            pool: ChannelId(self.pool.to_native()),
            from: Bucket::from_number(self.from)?,
            to: Bucket::from_number(self.to)?,
            quantity: self.quantity.to_native(),
        })
    }
}

impl From<Short> for ShortRec {
    fn from(short: Short) -> ShortRec {
        ShortRec { line: short.line, sku: short.sku.0, quantity: short.quantity, available: short.available }
    }
}

impl ArchivedShortRec {
    pub fn short(&self) -> Short {
        Short {
            line: self.line.to_native(),
            sku: SkuId(self.sku.to_native()),
            quantity: self.quantity.to_native(),
            available: self.available.to_native(),
        }
    }
}

impl From<Line> for LineRec {
    fn from(line: Line) -> LineRec {
        LineRec { sku: line.sku.0, node: line.node.0, group: line.group.0, quantity: line.quantity }
    }
}

impl ArchivedLineRec {
    pub fn line(&self) -> Line {
        Line {
            sku: SkuId(self.sku.to_native()),
            node: NodeId(self.node.to_native()),
            group: GroupId(self.group.to_native()),
            quantity: self.quantity.to_native(),
        }
    }
}

impl From<StepLine> for StepLineRec {
    fn from(line: StepLine) -> StepLineRec {
        StepLineRec { sku: line.sku.0, node: line.node.0, to_node: line.to_node.0, quantity: line.quantity }
    }
}

impl ArchivedStepLineRec {
    pub fn line(&self) -> StepLine {
        StepLine {
            sku: SkuId(self.sku.to_native()),
            node: NodeId(self.node.to_native()),
            to_node: NodeId(self.to_node.to_native()),
            quantity: self.quantity.to_native(),
        }
    }
}

impl ReserveRec {
    pub fn new(command: &Command, reserve: &Reserve) -> ReserveRec {
        ReserveRec {
            key: command.key.0,
            issued_at_ms: command.issued_at.0,
            id: reserve.id.0,
            channel: reserve.channel.0,
            ttl_ms: reserve.ttl_ms,
            fill: reserve.fill as u8,
            customer: reserve.customer,
            zone: reserve.zone.0,
            line_count: reserve.line_count as u16,
            label_count: reserve.labels.len() as u8,
        }
    }
}

impl ArchivedReserveRec {
    /// The command; `first_line` is where its lines begin, and its labels are the next of all.
    pub fn command<'a>(
        &self,
        first_line: u32,
        labels: &mut impl Iterator<Item = &'a ArchivedLabelRec>,
        texts: &TextReader<'_>,
        digest: u64,
    ) -> Result<Command, &'static str> {
        let fill = Fill::from_number(self.fill)
            .ok_or("fill must be 0 (all lines or none) or 1 (what there is of each)")?;
        if self.id.to_native() == 0 {
            return Err("id must not be 0");
        }
        Ok(Command {
            key: Key(self.key.to_native()),
            issued_at: Millis(self.issued_at_ms.to_native()),
            digest,
            body: Body::Reserve(Reserve {
                id: ReservationId(self.id.to_native()),
                channel: ChannelId(self.channel.to_native()),
                ttl_ms: self.ttl_ms.to_native(),
                fill,
                customer: self.customer.to_native(),
                zone: ZoneId(self.zone.to_native()),
                labels: label::take(labels, self.label_count, texts)?,
                first_line,
                line_count: u32::from(self.line_count.to_native()),
            }),
        })
    }
}

impl TransitionRec {
    pub fn new(command: &Command, transition: &Transition) -> TransitionRec {
        TransitionRec {
            key: command.key.0,
            issued_at_ms: command.issued_at.0,
            reservation: transition.reservation.0,
            verb: transition.verb as u8,
            ttl_ms: transition.ttl_ms,
            line_count: transition.lines.len() as u16,
        }
    }
}

impl ArchivedTransitionRec {
    /// The command; its lines are the next of all.
    pub fn command<'a>(
        &self,
        lines: &mut impl Iterator<Item = &'a ArchivedStepLineRec>,
        scope: Option<ChannelId>,
        digest: u64,
    ) -> Result<Command, &'static str> {
        let verb = Verb::from_number(self.verb)
            .ok_or("verb must be 1 (confirm), 2 (release), 3 (extend), 4 (fulfil) or 5 (move)")?;
        let count = self.line_count.to_native() as usize;
        let lines: Box<[StepLine]> = lines.take(count).map(ArchivedStepLineRec::line).collect();
        if lines.len() < count {
            return Err("line_count reaches beyond the lines");
        }
        if verb == Verb::Extend && count > 0 {
            return Err("extend takes no lines: a reservation ends as a whole");
        }
        if verb == Verb::Move && count == 0 {
            return Err("move needs lines");
        }
        let to_nodes_fit = |line: &StepLine| match verb {
            Verb::Move => line.to_node != NodeId::ANY,
            _ => line.to_node == NodeId::ANY,
        };
        if !lines.iter().all(to_nodes_fit) {
            return Err("to_node must be a node for a move, and 65535 else");
        }
        Ok(Command {
            key: Key(self.key.to_native()),
            issued_at: Millis(self.issued_at_ms.to_native()),
            digest,
            body: Body::Transition(Transition {
                reservation: ReservationId(self.reservation.to_native()),
                verb,
                ttl_ms: self.ttl_ms.to_native(),
                scope,
                lines,
            }),
        })
    }
}

impl AllocateRec {
    pub fn new(command: &Command, allocate: &Allocate) -> AllocateRec {
        AllocateRec {
            key: command.key.0,
            issued_at_ms: command.issued_at.0,
            sku: allocate.sku.0,
            quantity: allocate.quantity,
            node: allocate.node.0,
            channel: allocate.channel.0,
            to_channel: allocate.to_channel.0,
            action: allocate.action as u8,
        }
    }
}

impl ArchivedAllocateRec {
    pub fn command(&self, digest: u64) -> Result<Command, &'static str> {
        let action = Action::from_number(self.action)
            .ok_or("action must be 1 (allocate), 2 (deallocate) or 3 (reallocate)")?;
        let (channel, to_channel) = (self.channel.to_native(), self.to_channel.to_native());
        let fits = match action {
            Action::Reallocate => to_channel != u16::MAX && to_channel != channel,
            _ => to_channel == u16::MAX,
        };
        if !fits {
            return Err("to_channel must be another channel to reallocate, and 65535 else");
        }
        Ok(Command {
            key: Key(self.key.to_native()),
            issued_at: Millis(self.issued_at_ms.to_native()),
            digest,
            body: Body::Allocate(Allocate {
                action,
                channel: ChannelId(channel),
                to_channel: ChannelId(to_channel),
                sku: SkuId(self.sku.to_native()),
                node: NodeId(self.node.to_native()),
                quantity: self.quantity.to_native(),
            }),
        })
    }
}

impl EventRec {
    /// Its text goes to the end of a text array.
    pub fn new(command: &Command, event: &StockEvent, texts: &mut Vec<u8>) -> EventRec {
        let mut given = 0;
        if event.reservation.is_some() {
            given |= GIVEN_RESERVATION;
        }
        if event.supply.is_some() {
            given |= GIVEN_SUPPLY;
        }
        if event.expected.is_some() {
            given |= GIVEN_EXPECTED;
        }
        EventRec {
            key: command.key.0,
            issued_at_ms: command.issued_at.0,
            occurred_at_ms: event.occurred_at.0,
            reservation: event.reservation.unwrap_or_default().0,
            quantity: event.quantity,
            expected: event.expected.unwrap_or_default(),
            source: event.source.0,
            supply: event.supply.unwrap_or_default().name(),
            eta_ms: event.eta.0,
            sku: event.sku.0,
            damaged: event.damaged,
            supply_source: event.supply_source,
            node: event.node.0,
            to_node: event.to_node.0,
            kind: event.kind as u8,
            given,
            from: event.from as u8,
            to: event.to as u8,
            reason: TextRec::put(texts, &event.reason),
            redrive: match event.redrive {
                Redrive::No => 0,
                Redrive::By(_) => 1,
                Redrive::Adopted(_) => 2,
            },
            other: match event.redrive {
                Redrive::No => 0,
                Redrive::By(other) | Redrive::Adopted(other) => other.0,
            },
        }
    }
}

impl ArchivedEventRec {
    pub fn command(&self, texts: &TextReader<'_>, digest: u64) -> Result<Command, &'static str> {
        let kind = EventKind::from_number(self.kind).ok_or("kind must be 1 to 10")?;
        let reason: Box<str> = texts.get(&self.reason)?.into();
        if self.given & !(GIVEN_RESERVATION | GIVEN_SUPPLY | GIVEN_EXPECTED) != 0 {
            return Err("given has bits that mean nothing");
        }
        let source = SourceId(self.source.to_native());
        let event = StockEvent {
            kind,
            sku: SkuId(self.sku.to_native()),
            node: NodeId(self.node.to_native()),
            quantity: self.quantity.to_native(),
            occurred_at: Millis(self.occurred_at_ms.to_native()),
            reservation: (self.given & GIVEN_RESERVATION != 0)
                .then_some(ReservationId(self.reservation.to_native())),
            source,
            supply: (self.given & GIVEN_SUPPLY != 0)
                .then_some(SupplyId::new(source, self.supply.to_native())),
            supply_source: self.supply_source.to_native(),
            to_node: NodeId(self.to_node.to_native()),
            eta: Millis(self.eta_ms.to_native()),
            damaged: self.damaged.to_native(),
            expected: (self.given & GIVEN_EXPECTED != 0).then_some(self.expected.to_native()),
            from: Bucket::from_number(self.from).ok_or("from is no bucket")?,
            to: Bucket::from_number(self.to).ok_or("to is no bucket")?,
            reason,
            redrive: match (self.redrive, PrincipalId(self.other.to_native())) {
                (0, _) => Redrive::No,
                (1, other) => Redrive::By(other),
                (2, other) => Redrive::Adopted(other),
                _ => return Err("redrive must be 0 to 2"),
            },
        };
        Ok(Command {
            key: Key(self.key.to_native()),
            issued_at: Millis(self.issued_at_ms.to_native()),
            digest,
            body: Body::Event(event),
        })
    }
}

/// An event's record by itself, for whoever keeps events that were refused; `None` for any other command.
pub fn event_bytes(command: &Command) -> Option<Vec<u8>> {
    let Body::Event(event) = &command.body else { return None };
    let mut text = Vec::new();
    let events = vec![EventRec::new(command, event, &mut text)];
    rkyv::to_bytes::<Failure>(&Events { events, text }).ok().map(|bytes| bytes.to_vec())
}

/// The command of such a record.
pub fn event_of_bytes(bytes: &[u8]) -> Option<Command> {
    let found = rkyv::access::<ArchivedEvents, Failure>(bytes).ok()?;
    found.events.first()?.command(&TextReader::new(&[], &[], &found.text), 0).ok()
}

/// Folds numbers into 64 bits, the same on every machine and in every version.
struct Digest(u64);

impl Digest {
    fn put(&mut self, number: u64) {
        let product = u128::from(self.0 ^ number) * u128::from(0x9e37_79b9_7f4a_7c15_u64);
        self.0 = (product as u64) ^ ((product >> 64) as u64) ^ number.rotate_left(32);
    }

    fn put_wide(&mut self, number: u128) {
        self.put(number as u64);
        self.put((number >> 64) as u64);
    }
}

/// The body's hash by which a repeat is known to be one: of everything but the key and the time of issue.
pub fn digest(body: &Body, lines: &[Line]) -> u64 {
    let mut digest = Digest(0x5bd1_e995_9d1b_58d3);
    match body {
        Body::Reserve(reserve) => {
            // A zone must not look like a customer, nor a text like a line.
            let zoned = if reserve.zone == ZoneId::NONE { 0 } else { 1 << 9 };
            digest.put(1 | zoned | (reserve.labels.len() as u64) << 10);
            digest.put_wide(reserve.id.0);
            let channel = (reserve.fill as u64) << 16 | u64::from(reserve.channel.0);
            digest.put(channel << 32 | u64::from(reserve.ttl_ms));
            if reserve.customer != 0 {
                digest.put(reserve.customer);
            }
            if reserve.zone != ZoneId::NONE {
                digest.put(u64::from(reserve.zone.0) + 1);
            }
            for label in reserve.labels.iter() {
                digest.put(xxh3_64(label.text.as_bytes()) ^ label.kind as u64);
            }
            for line in reserve.lines(lines) {
                digest.put(u64::from(line.sku.0) << 32 | u64::from(line.quantity));
                digest.put(u64::from(line.node.0) << 16 | u64::from(line.group.0));
            }
        }
        Body::Transition(transition) => {
            digest.put(2);
            digest.put_wide(transition.reservation.0);
            digest.put((transition.verb as u64) << 32 | u64::from(transition.ttl_ms));
            for line in &transition.lines {
                digest.put(u64::from(line.sku.0) << 32 | u64::from(line.quantity));
                digest.put(u64::from(line.node.0) << 16 | u64::from(line.to_node.0));
            }
        }
        Body::Event(event) => {
            digest.put(3);
            digest.put(event.occurred_at.0);
            digest.put(event.quantity as u64);
            digest.put(u64::from(event.sku.0) << 32 | u64::from(event.damaged));
            digest.put(u64::from(event.node.0) << 16 | u64::from(event.to_node.0));
            digest.put_wide(event.reservation.map_or(0, |id| id.0.wrapping_add(1)));
            digest.put(event.supply.map_or(0, |id| id.name().wrapping_add(1)));
            // Not the principal: a repeat has the same.
            digest.put(u64::from(event.source.name_number()) << 32 | u64::from(event.supply_source));
            digest.put(event.expected.map_or(0, |units| (units as u64).wrapping_add(1)));
            digest.put(event.eta.0);
            digest.put((event.kind as u64) << 16 | (event.from as u64) << 8 | event.to as u64);
            // As when there were 16 bytes: a repeat of then has the same.
            let (first, rest) = event.reason.as_bytes().split_at(event.reason.len().min(16));
            let mut short = [0; 16];
            short[..first.len()].copy_from_slice(first);
            digest.put_wide(u128::from_le_bytes(short));
            if !rest.is_empty() {
                digest.put(xxh3_64(rest));
            }
        }
        Body::Allocate(allocate) => {
            digest.put(4);
            digest.put(u64::from(allocate.sku.0) << 32 | u64::from(allocate.quantity));
            digest.put(u64::from(allocate.node.0) << 16 | u64::from(allocate.channel.0));
            digest.put((allocate.action as u64) << 16 | u64::from(allocate.to_channel.0));
        }
        Body::Expire(_) | Body::Balance(_) | Body::Define(_) | Body::Read(_) => {}
    }
    digest.0
}
