//! Records: the archived form (rkyv) of commands, outcomes and movements.
//!
//! The wire and the journal use the same command records: a command is kept in the layout it arrived in. All
//! records are of fixed size and alignment 1 with little-endian numbers, so an archive is readable by any
//! program from the tables of docs/protocol.md. Text lies in one array of bytes that records point into.
//! A change of any of these types is a new version of the protocol and of the journal.

use rkyv::{Archive, Deserialize, Serialize};

use crate::bucket::{Bucket, Movement};
use crate::catalogue::{Amount, Definition, Effect, LateConfirm, Policy, Role, When};
use crate::command::{Action, Allocate, Body, Command, Fill, Line, Reserve, StepLine, Transition, Verb};
use crate::event::{EventKind, StockEvent};
use crate::id::{ChannelId, GroupId, Key, Millis, NodeId, ReservationId, SkuId, SupplyId};
use crate::ledger::Short;

/// Why an archive's content makes no command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("record {index} of {list}: {reason}")]
pub struct RecordError {
    pub list: &'static str,
    pub index: usize,
    pub reason: &'static str,
}

/// A stretch of the text array.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq)]
pub struct TextRec {
    pub start: u32,
    pub len: u16,
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
    pub line_count: u16,
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
    pub supply: u64,
    pub eta_ms: u64,
    pub sku: u32,
    pub damaged: u32,
    pub node: u16,
    pub to_node: u16,
    pub kind: u8,
    /// Bit 0: reservation is given, 1: supply, 2: expected.
    pub given: u8,
    pub from: u8,
    pub to: u8,
    pub reason: [u8; 16],
}

const GIVEN_RESERVATION: u8 = 1;
const GIVEN_SUPPLY: u8 = 2;
const GIVEN_EXPECTED: u8 = 4;

/// An entry of the catalogue. `names` lists nodes (group, principal) or one group or channel it refers to.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct DefinitionRec {
    /// 1 sku, 2 node, 3 group, 4 channel, 5 principal, 6 data of a sku, 7 rule.
    pub kind: u8,
    pub role: u8,
    pub priority: u16,
    pub buffer: u32,
    /// Channel: what is left at which it counts as low.
    pub low: u32,
    /// Channel: open holds at once, and of one customer; 0 for no limit.
    pub holds_max: u32,
    pub customer_holds_max: u32,
    /// Channel: 0 refuse, 1 acquire again.
    pub late_confirm: u8,
    /// Channel: the one it is part of; empty for none.
    pub parent: TextRec,
    /// Channel: units of a sku that it is shown; 0 for no limit.
    pub cap: u32,
    /// Data of a sku: its category. Rule: the one it holds for; empty for any.
    pub category: TextRec,
    /// Rule: a sku's name, or the beginning of names and a `*`.
    pub skus: TextRec,
    /// Rule: the node or the group where it holds; empty for everywhere.
    pub node: TextRec,
    pub group: TextRec,
    /// Rule: 0 none, 1 safety stock, 2 and 3 allocate units and percent of what a receipt brings, 4 and 5 the same
    /// always.
    pub effect: u8,
    pub amount: u32,
    pub name: TextRec,
    /// Node: its type.
    pub node_type: TextRec,
    /// Node: its time zone.
    pub timezone: TextRec,
    /// Channel: its group. Principal, rule: its channel. Empty for none.
    pub refers_to: TextRec,
    /// Group, principal: how many of the frame's names are its nodes.
    pub node_count: u16,
    pub token_sha256: [u8; 32],
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct MovementRec {
    pub sku: u32,
    pub node: u16,
    /// The channel whose allocation the units are of or were claimed from; else 65535.
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
            line_count: reserve.line_count as u16,
        }
    }
}

impl ArchivedReserveRec {
    /// The command; `first_line` is where its lines begin.
    pub fn command(&self, first_line: u32, digest: u64) -> Result<Command, &'static str> {
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
            Verb::Move => line.to_node != NodeId::ANY && line.to_node != line.node,
            _ => line.to_node == NodeId::ANY,
        };
        if !lines.iter().all(to_nodes_fit) {
            return Err("to_node must be another node for a move, and 65535 else");
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
    pub fn new(command: &Command, event: &StockEvent) -> EventRec {
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
            supply: event.supply.unwrap_or_default().0,
            eta_ms: event.eta.0,
            sku: event.sku.0,
            damaged: event.damaged,
            node: event.node.0,
            to_node: event.to_node.0,
            kind: event.kind as u8,
            given,
            from: event.from as u8,
            to: event.to as u8,
            reason: event.reason,
        }
    }
}

impl ArchivedEventRec {
    pub fn command(&self, digest: u64) -> Result<Command, &'static str> {
        let kind = EventKind::from_number(self.kind).ok_or("kind must be 1 to 10")?;
        if self.given & !(GIVEN_RESERVATION | GIVEN_SUPPLY | GIVEN_EXPECTED) != 0 {
            return Err("given has bits that mean nothing");
        }
        let event = StockEvent {
            kind,
            sku: SkuId(self.sku.to_native()),
            node: NodeId(self.node.to_native()),
            quantity: self.quantity.to_native(),
            occurred_at: Millis(self.occurred_at_ms.to_native()),
            reservation: (self.given & GIVEN_RESERVATION != 0)
                .then_some(ReservationId(self.reservation.to_native())),
            supply: (self.given & GIVEN_SUPPLY != 0).then_some(SupplyId(self.supply.to_native())),
            to_node: NodeId(self.to_node.to_native()),
            eta: Millis(self.eta_ms.to_native()),
            damaged: self.damaged.to_native(),
            expected: (self.given & GIVEN_EXPECTED != 0).then_some(self.expected.to_native()),
            from: Bucket::from_number(self.from).ok_or("from is no bucket")?,
            to: Bucket::from_number(self.to).ok_or("to is no bucket")?,
            reason: self.reason,
        };
        Ok(Command {
            key: Key(self.key.to_native()),
            issued_at: Millis(self.issued_at_ms.to_native()),
            digest,
            body: Body::Event(event),
        })
    }
}

/// Definitions with their names and text: a frame on the wire, a row of the snapshot.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct DefinitionList {
    pub definitions: Vec<DefinitionRec>,
    pub names: Vec<TextRec>,
    pub text: Vec<u8>,
}

impl DefinitionList {
    pub fn of<'a>(definitions: impl IntoIterator<Item = &'a Definition>) -> DefinitionList {
        let mut texts = Texts::default();
        let definitions =
            definitions.into_iter().map(|definition| texts.put_definition(definition)).collect();
        DefinitionList { definitions, names: texts.names, text: texts.text }
    }
}

impl ArchivedDefinitionList {
    pub fn read(&self) -> Result<Vec<Definition>, RecordError> {
        let mut texts = TextReader { names: &self.names, text: &self.text, next_name: 0 };
        let read = self.definitions.iter().enumerate().map(|(index, rec)| {
            texts.definition(rec).map_err(|reason| RecordError { list: "definitions", index, reason })
        });
        read.collect()
    }
}

/// Definitions on their way into an archive.
#[derive(Default, Debug)]
pub struct Texts {
    pub names: Vec<TextRec>,
    pub text: Vec<u8>,
}

impl Texts {
    pub fn put(&mut self, text: &str) -> TextRec {
        let start = self.text.len() as u32;
        self.text.extend_from_slice(text.as_bytes());
        TextRec { start, len: text.len() as u16 }
    }

    pub fn put_definition(&mut self, definition: &Definition) -> DefinitionRec {
        let mut rec = DefinitionRec {
            kind: 0,
            role: 0,
            priority: 0,
            buffer: 0,
            low: 0,
            holds_max: 0,
            customer_holds_max: 0,
            late_confirm: 0,
            parent: TextRec::default(),
            cap: 0,
            category: TextRec::default(),
            skus: TextRec::default(),
            node: TextRec::default(),
            group: TextRec::default(),
            effect: 0,
            amount: 0,
            name: self.put(definition.name()),
            node_type: TextRec::default(),
            timezone: TextRec::default(),
            refers_to: TextRec::default(),
            node_count: 0,
            token_sha256: [0; 32],
        };
        let mut put_nodes = |rec: &mut DefinitionRec, nodes: &[String]| {
            for node in nodes {
                let name = self.put(node);
                self.names.push(name);
            }
            rec.node_count = nodes.len() as u16;
        };
        match definition {
            Definition::Sku { .. } => rec.kind = 1,
            Definition::Node { priority, kind, timezone, .. } => {
                rec.kind = 2;
                rec.priority = *priority;
                rec.node_type = self.put(kind);
                rec.timezone = self.put(timezone);
            }
            Definition::Group { nodes, .. } => {
                rec.kind = 3;
                put_nodes(&mut rec, nodes);
            }
            Definition::Channel { parent, group, buffer, policy, .. } => {
                rec.kind = 4;
                rec.cap = policy.cap;
                rec.parent = self.put(parent.as_deref().unwrap_or_default());
                rec.buffer = *buffer;
                rec.low = policy.low;
                rec.holds_max = policy.holds_max;
                rec.customer_holds_max = policy.customer_holds_max;
                rec.late_confirm = policy.late_confirm as u8;
                rec.refers_to = self.put(group.as_deref().unwrap_or_default());
            }
            Definition::Principal { role, channel, nodes, token_sha256, .. } => {
                rec.kind = 5;
                rec.role = *role as u8;
                put_nodes(&mut rec, nodes);
                rec.refers_to = self.put(channel.as_deref().unwrap_or_default());
                rec.token_sha256 = *token_sha256;
            }
            Definition::SkuData { category, .. } => {
                rec.kind = 6;
                rec.category = self.put(category);
            }
            Definition::Rule { skus, category, node, group, channel, effect, .. } => {
                rec.kind = 7;
                rec.skus = self.put(skus);
                rec.category = self.put(category);
                rec.node = self.put(node.as_deref().unwrap_or_default());
                rec.group = self.put(group.as_deref().unwrap_or_default());
                rec.refers_to = self.put(channel.as_deref().unwrap_or_default());
                (rec.effect, rec.amount) = effect_numbers(*effect);
            }
        }
        rec
    }
}

/// Reads text and definitions out of an archive.
pub struct TextReader<'a> {
    pub names: &'a [ArchivedTextRec],
    pub text: &'a [u8],
    /// Names already used by definitions read before.
    pub next_name: usize,
}

impl<'a> TextReader<'a> {
    pub fn get(&self, rec: &ArchivedTextRec) -> Result<&'a str, &'static str> {
        let start = rec.start.to_native() as usize;
        let end = start + rec.len.to_native() as usize;
        let bytes = self.text.get(start..end).ok_or("text lies outside the text array")?;
        std::str::from_utf8(bytes).map_err(|_| "text is not UTF-8")
    }

    pub fn definition(&mut self, rec: &ArchivedDefinitionRec) -> Result<Definition, &'static str> {
        let name = self.get(&rec.name)?.to_owned();
        let optional = |rec| self.get(rec).map(|name| Some(name.to_owned()).filter(|name| !name.is_empty()));
        let (refers_to, parent) = (optional(&rec.refers_to)?, optional(&rec.parent)?);
        let (node, group) = (optional(&rec.node)?, optional(&rec.group)?);
        let count = rec.node_count.to_native() as usize;
        let nodes = self.names.get(self.next_name..self.next_name + count).ok_or("too few names")?;
        self.next_name += count;
        let nodes = nodes.iter().map(|name| self.get(name).map(str::to_owned)).collect::<Result<_, _>>()?;
        match rec.kind {
            1 => Ok(Definition::Sku { name }),
            2 => Ok(Definition::Node {
                name,
                priority: rec.priority.to_native(),
                kind: self.get(&rec.node_type)?.to_owned(),
                timezone: self.get(&rec.timezone)?.to_owned(),
            }),
            3 => Ok(Definition::Group { name, nodes }),
            4 => Ok(Definition::Channel {
                name,
                parent,
                group: refers_to,
                buffer: rec.buffer.to_native(),
                policy: Policy {
                    low: rec.low.to_native(),
                    late_confirm: LateConfirm::from_number(rec.late_confirm)
                        .ok_or("late_confirm must be 0 (refuse) or 1 (acquire again)")?,
                    holds_max: rec.holds_max.to_native(),
                    customer_holds_max: rec.customer_holds_max.to_native(),
                    cap: rec.cap.to_native(),
                },
            }),
            5 => Ok(Definition::Principal {
                name,
                role: Role::from_number(rec.role)
                    .ok_or("role must be 1 (admin), 2 (channel) or 3 (warehouse)")?,
                channel: refers_to,
                nodes,
                token_sha256: rec.token_sha256,
            }),
            6 => Ok(Definition::SkuData { name, category: self.get(&rec.category)?.to_owned() }),
            7 => Ok(Definition::Rule {
                name,
                skus: self.get(&rec.skus)?.to_owned(),
                category: self.get(&rec.category)?.to_owned(),
                node,
                group,
                channel: refers_to,
                effect: effect(rec.effect, rec.amount.to_native())?,
            }),
            _ => Err("kind must be 1 (sku) to 7 (rule)"),
        }
    }
}

/// An effect as two numbers.
fn effect_numbers(effect: Effect) -> (u8, u32) {
    match effect {
        Effect::None => (0, 0),
        Effect::Safety(units) => (1, units),
        Effect::Allocate { amount, when } => {
            let later = if when == When::Always { 2 } else { 0 };
            match amount {
                Amount::Units(units) => (2 + later, units),
                Amount::Percent(percent) => (3 + later, u32::from(percent)),
            }
        }
    }
}

fn effect(number: u8, amount: u32) -> Result<Effect, &'static str> {
    let when = if number < 4 { When::Receipt } else { When::Always };
    match number {
        0 => Ok(Effect::None),
        1 => Ok(Effect::Safety(amount)),
        2 | 4 => Ok(Effect::Allocate { amount: Amount::Units(amount), when }),
        3 | 5 => match u8::try_from(amount) {
            Ok(percent) => Ok(Effect::Allocate { amount: Amount::Percent(percent), when }),
            Err(_) => Err("amount must be at most 100 where it is a percentage"),
        },
        _ => Err("effect must be 0 (none) to 5 (allocate percent, always)"),
    }
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
            digest.put(1);
            digest.put_wide(reserve.id.0);
            let channel = (reserve.fill as u64) << 16 | u64::from(reserve.channel.0);
            digest.put(channel << 32 | u64::from(reserve.ttl_ms));
            if reserve.customer != 0 {
                digest.put(reserve.customer);
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
            digest.put(event.supply.map_or(0, |id| id.0.wrapping_add(1)));
            digest.put(event.expected.map_or(0, |units| (units as u64).wrapping_add(1)));
            digest.put(event.eta.0);
            digest.put((event.kind as u64) << 16 | (event.from as u64) << 8 | event.to as u64);
            digest.put_wide(u128::from_le_bytes(event.reason));
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
