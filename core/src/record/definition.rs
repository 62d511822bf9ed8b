//! Records of the catalogue: definitions, with the names, numbers and text that lie beside them.

use rkyv::{Archive, Deserialize, Serialize};

use crate::catalogue::{
    Amount, Day, Definition, Effect, Lane, LateConfirm, Point, Policy, Role, Secret, Strategy, Unannounced,
    Webhook, When,
};
use crate::record::RecordError;

/// A stretch of the text array.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq)]
pub struct TextRec {
    pub start: u32,
    pub len: u16,
}

impl TextRec {
    /// Appends text to a text array.
    pub fn put(texts: &mut Vec<u8>, text: &str) -> TextRec {
        let start = texts.len() as u32;
        texts.extend_from_slice(text.as_bytes());
        TextRec { start, len: text.len() as u16 }
    }
}

/// An entry of the catalogue. `names` lists nodes (group, principal) or one group or channel it refers to.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct DefinitionRec {
    /// 1 sku, 2 node, 3 group, 4 channel, 5 principal, 6 data of a sku, 7 rule, 8 zone, 9 webhook.
    pub kind: u8,
    /// Principal: 1 admin, 2 channel, 3 warehouse. Webhook: a sum of 1 (reservations), 2 (statuses), 4 (numbers), 8
    /// (envelopes of CloudEvents) and 16 (begins with what is offered). Channel: whom unannounced units serve, 0 who
    /// waits, 1 all.
    pub role: u8,
    /// Webhook: times that a message is tried.
    pub priority: u16,
    /// Webhook: milliseconds of the first pause between two.
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
    /// Channel: units of a sku that it is shown; node: units that it ships a day; 0 for no limit.
    pub cap: u32,
    /// Data of a sku: its category. Rule: the one it holds for; empty for any.
    pub category: TextRec,
    /// Rule: a sku's name, or the beginning of names and a `*`.
    pub skus: TextRec,
    /// Rule: the node or the group where it holds; empty for everywhere.
    pub node: TextRec,
    pub group: TextRec,
    /// Rule: 0 none, 1 safety stock, 2 and 3 allocate units and percent of what a receipt brings, 4 and 5 the same
    /// always, 6 backorder, 7 preorder, 8 and 9 as 4 and 5 every so many minutes (`priority`).
    pub effect: u8,
    /// Webhook: milliseconds for which changes are gathered. Principal: seconds that its events may lie ahead, 0 for 300.
    pub amount: u32,
    /// Channel: 0 priority, 1 nearest, 2 fewest splits, 3 highest stock, 4 lowest cost.
    pub strategy: u8,
    /// Channel: nodes that one line is split over; 0 for no limit of its own.
    pub splits_max: u8,
    /// Channel: 1 where a line may be served with a substitute of its sku.
    pub substitutes: u8,
    /// Node: quarters of an hour after midnight from which an order waits for the next day, 0 for none; and those that
    /// its clock is ahead of UTC.
    pub cut_off: u8,
    pub ahead: i8,
    /// Node, zone: in millionths of a degree; -2147483648 where not known.
    pub latitude: i32,
    pub longitude: i32,
    pub name: TextRec,
    /// Node: its type. Webhook: its address.
    pub node_type: TextRec,
    /// Node: its time zone.
    pub timezone: TextRec,
    /// Channel: its group. Principal, rule, webhook: its channel. Empty for none.
    pub refers_to: TextRec,
    /// Group, principal, zone: how many of the frame's names are its nodes; node, data of a sku: its substitutes. A zone has two of the frame's numbers for
    /// each: metres (4294967295: as the coordinates say) and cost.
    pub node_count: u16,
    /// Webhook: its secret.
    pub token_sha256: [u8; 32],
}

impl Default for DefinitionRec {
    /// Of no kind, with nothing.
    fn default() -> DefinitionRec {
        let none = TextRec::default();
        DefinitionRec {
            kind: 0,
            role: 0,
            priority: 0,
            buffer: 0,
            low: 0,
            holds_max: 0,
            customer_holds_max: 0,
            late_confirm: 0,
            parent: none,
            cap: 0,
            category: none,
            skus: none,
            node: none,
            group: none,
            effect: 0,
            amount: 0,
            strategy: 0,
            splits_max: 0,
            substitutes: 0,
            cut_off: 0,
            ahead: 0,
            latitude: NOWHERE,
            longitude: NOWHERE,
            name: none,
            node_type: none,
            timezone: none,
            refers_to: none,
            node_count: 0,
            token_sha256: [0; 32],
        }
    }
}

/// Definitions with their names and text: a frame on the wire, a row of the snapshot.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct DefinitionList {
    pub definitions: Vec<DefinitionRec>,
    pub names: Vec<TextRec>,
    pub numbers: Vec<u32>,
    pub text: Vec<u8>,
}

impl DefinitionList {
    pub fn of<'a>(definitions: impl IntoIterator<Item = &'a Definition>) -> DefinitionList {
        let mut texts = Texts::default();
        let definitions =
            definitions.into_iter().map(|definition| texts.put_definition(definition)).collect();
        DefinitionList { definitions, names: texts.names, numbers: texts.numbers, text: texts.text }
    }
}

impl ArchivedDefinitionList {
    pub fn read(&self) -> Result<Vec<Definition>, RecordError> {
        let mut texts = TextReader::new(&self.names, &self.numbers, &self.text);
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
    pub numbers: Vec<u32>,
    pub text: Vec<u8>,
}

impl Texts {
    pub fn put(&mut self, text: &str) -> TextRec {
        TextRec::put(&mut self.text, text)
    }

    fn put_names<'a>(&mut self, names: impl IntoIterator<Item = &'a String>) -> u16 {
        let before = self.names.len();
        for name in names {
            let name = self.put(name);
            self.names.push(name);
        }
        (self.names.len() - before) as u16
    }

    pub fn put_definition(&mut self, definition: &Definition) -> DefinitionRec {
        let mut rec = DefinitionRec { name: self.put(definition.name()), ..DefinitionRec::default() };
        match definition {
            Definition::Sku { .. } => rec.kind = 1,
            Definition::Node { priority, kind, timezone, at, substitutes, day, .. } => {
                rec.kind = 2;
                (rec.cut_off, rec.ahead, rec.cap) = (day.cut_off, day.ahead, day.capacity);
                rec.node_count = self.put_names(substitutes);
                (rec.latitude, rec.longitude) =
                    at.map_or((NOWHERE, NOWHERE), |at| (at.latitude, at.longitude));
                rec.priority = *priority;
                rec.node_type = self.put(kind);
                rec.timezone = self.put(timezone);
            }
            Definition::Group { nodes, .. } => {
                rec.kind = 3;
                rec.node_count = self.put_names(nodes);
            }
            Definition::Channel { parent, group, buffer, policy, .. } => {
                rec.kind = 4;
                rec.cap = policy.cap;
                rec.priority = policy.priority;
                rec.role = policy.unannounced as u8;
                rec.strategy = policy.strategy as u8;
                rec.splits_max = policy.splits_max;
                rec.substitutes = u8::from(policy.substitutes);
                rec.parent = self.put(parent.as_deref().unwrap_or_default());
                rec.buffer = *buffer;
                rec.low = policy.low;
                rec.holds_max = policy.holds_max;
                rec.customer_holds_max = policy.customer_holds_max;
                rec.late_confirm = policy.late_confirm as u8;
                rec.refers_to = self.put(group.as_deref().unwrap_or_default());
            }
            Definition::Principal { role, channel, nodes, token_sha256, clock_ahead_s, .. } => {
                rec.kind = 5;
                rec.amount = *clock_ahead_s;
                rec.role = *role as u8;
                rec.node_count = self.put_names(nodes);
                rec.refers_to = self.put(channel.as_deref().unwrap_or_default());
                rec.token_sha256 = *token_sha256;
            }
            Definition::SkuData { category, substitutes, .. } => {
                rec.kind = 6;
                rec.node_count = self.put_names(substitutes);
                rec.category = self.put(category);
            }
            Definition::Rule { skus, category, node, group, channel, effect, .. } => {
                rec.kind = 7;
                rec.skus = self.put(skus);
                rec.category = self.put(category);
                rec.node = self.put(node.as_deref().unwrap_or_default());
                rec.group = self.put(group.as_deref().unwrap_or_default());
                rec.refers_to = self.put(channel.as_deref().unwrap_or_default());
                (rec.effect, rec.amount, rec.priority) = effect_numbers(*effect);
            }
            Definition::Zone { at, lanes, .. } => {
                rec.kind = 8;
                (rec.latitude, rec.longitude) =
                    at.map_or((NOWHERE, NOWHERE), |at| (at.latitude, at.longitude));
                rec.node_count = self.put_names(lanes.iter().map(|lane| &lane.node));
                self.numbers.extend(lanes.iter().flat_map(|lane| [lane.metres, lane.cost]));
            }
            Definition::Webhook { hook, .. } => {
                rec.kind = 9;
                rec.role = hook.what | u8::from(hook.cloud_events) << 3 | u8::from(hook.snapshot) << 4;
                (rec.priority, rec.buffer, rec.amount) = (hook.attempts, hook.backoff_ms, hook.gather_ms);
                rec.node_type = self.put(&hook.url);
                rec.refers_to = self.put(hook.channel.as_deref().unwrap_or_default());
                rec.token_sha256 = hook.secret.0;
            }
        }
        rec
    }
}

/// Reads text and definitions out of an archive.
pub struct TextReader<'a> {
    names: &'a [ArchivedTextRec],
    numbers: &'a [rkyv::rend::unaligned::u32_ule],
    text: &'a [u8],
}

impl<'a> TextReader<'a> {
    /// Names and numbers are used up by the definitions that are read, one after the other.
    pub fn new(
        names: &'a [ArchivedTextRec],
        numbers: &'a [rkyv::rend::unaligned::u32_ule],
        text: &'a [u8],
    ) -> TextReader<'a> {
        TextReader { names, numbers, text }
    }

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
        let nodes;
        (nodes, self.names) = self.names.split_at_checked(count).ok_or("too few names")?;
        let nodes =
            nodes.iter().map(|name| self.get(name).map(str::to_owned)).collect::<Result<Vec<_>, _>>()?;
        let (latitude, longitude) = (rec.latitude.to_native(), rec.longitude.to_native());
        let at = (latitude != NOWHERE).then_some(Point { latitude, longitude });
        match rec.kind {
            1 => Ok(Definition::Sku { name }),
            2 => Ok(Definition::Node {
                name,
                priority: rec.priority.to_native(),
                kind: self.get(&rec.node_type)?.to_owned(),
                timezone: self.get(&rec.timezone)?.to_owned(),
                at,
                substitutes: nodes,
                day: Day { cut_off: rec.cut_off, ahead: rec.ahead, capacity: rec.cap.to_native() },
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
                    strategy: Strategy::from_number(rec.strategy).ok_or("strategy must be 0 to 4")?,
                    priority: rec.priority.to_native(),
                    unannounced: Unannounced::from_number(rec.role)
                        .ok_or("a channel's role must be 0 (unannounced units serve who waits) or 1 (all)")?,
                    splits_max: rec.splits_max,
                    substitutes: match rec.substitutes {
                        0 => false,
                        1 => true,
                        _ => return Err("substitutes must be 0 (none) or 1"),
                    },
                },
            }),
            5 => Ok(Definition::Principal {
                name,
                role: Role::from_number(rec.role)
                    .ok_or("role must be 1 (admin), 2 (channel) or 3 (warehouse)")?,
                channel: refers_to,
                nodes,
                token_sha256: rec.token_sha256,
                clock_ahead_s: rec.amount.to_native(),
            }),
            6 => Ok(Definition::SkuData {
                name,
                category: self.get(&rec.category)?.to_owned(),
                substitutes: nodes,
            }),
            7 => Ok(Definition::Rule {
                name,
                skus: self.get(&rec.skus)?.to_owned(),
                category: self.get(&rec.category)?.to_owned(),
                node,
                group,
                channel: refers_to,
                effect: effect(rec.effect, rec.amount.to_native(), rec.priority.to_native())?,
            }),
            8 => {
                let numbers;
                (numbers, self.numbers) =
                    self.numbers.split_at_checked(2 * count).ok_or("too few numbers")?;
                let lanes = nodes.into_iter().zip(numbers.chunks_exact(2)).map(|(node, numbers)| Lane {
                    node,
                    metres: numbers[0].to_native(),
                    cost: numbers[1].to_native(),
                });
                Ok(Definition::Zone { name, at, lanes: lanes.collect() })
            }
            9 => Ok(Definition::Webhook {
                name,
                hook: Webhook {
                    url: self.get(&rec.node_type)?.to_owned(),
                    channel: refers_to,
                    what: rec.role & 7,
                    cloud_events: rec.role >> 3 & 1 == 1,
                    snapshot: rec.role >> 4 & 1 == 1,
                    gather_ms: rec.amount.to_native(),
                    attempts: rec.priority.to_native(),
                    backoff_ms: rec.buffer.to_native(),
                    secret: Secret(rec.token_sha256),
                },
            }),
            _ => Err("kind must be 1 (sku) to 9 (webhook)"),
        }
    }
}

/// In place of coordinates.
const NOWHERE: i32 = i32::MIN;

/// An effect as its number, its amount and, where it keeps itself at times, the minutes between them.
fn effect_numbers(effect: Effect) -> (u8, u32, u16) {
    match effect {
        Effect::None => (0, 0, 0),
        Effect::Safety(units) => (1, units, 0),
        Effect::Backorder(units) => (6, units, 0),
        Effect::Preorder(units) => (7, units, 0),
        Effect::Allocate { amount, when } => {
            let (first, minutes) = match when {
                When::Receipt => (2, 0),
                When::Always => (4, 0),
                When::Every(minutes) => (8, minutes),
            };
            match amount {
                Amount::Units(units) => (first, units, minutes),
                Amount::Percent(percent) => (first + 1, u32::from(percent), minutes),
            }
        }
    }
}

fn effect(number: u8, amount: u32, minutes: u16) -> Result<Effect, &'static str> {
    let when = match number {
        0..4 => When::Receipt,
        4..8 => When::Always,
        _ => When::Every(minutes),
    };
    match number {
        0 => Ok(Effect::None),
        1 => Ok(Effect::Safety(amount)),
        6 => Ok(Effect::Backorder(amount)),
        7 => Ok(Effect::Preorder(amount)),
        2 | 4 | 8 => Ok(Effect::Allocate { amount: Amount::Units(amount), when }),
        3 | 5 | 9 => match u8::try_from(amount) {
            Ok(percent) => Ok(Effect::Allocate { amount: Amount::Percent(percent), when }),
            Err(_) => Err("amount must be at most 100 where it is a percentage"),
        },
        _ => Err("effect must be 0 (none) to 9 (allocate percent every so many minutes)"),
    }
}
