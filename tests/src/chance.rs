//! Random commands for the layers that compare with the reference model, and their way into the core's types.

use std::collections::{BTreeMap, BTreeSet};

use stockline_core::bucket::Bucket;
use stockline_core::command::{Body, Line, Reserve, Transition, Verb};
use stockline_core::event::{EventKind, KINDS, StockEvent};
use stockline_core::id::{ChannelId, GroupId, Millis, NodeId, ReservationId, SkuId, SupplyId};
use stockline_core::journal::{Decoded, Entry};
use stockline_core::merge::{Part, Reply};
use stockline_core::record::{EventRec, LineRec};
use stockline_core::wire::PartRec;
use stockline_loadgen::dice::Dice;
use stockline_loadgen::model::{ANY, Act, ChannelSetup, Due, Setup};

const SKUS: u64 = 6;
const NODES: u64 = 3;

pub(crate) fn pick(dice: &mut Dice, below: u64) -> u64 {
    dice.roll() % below
}

/// What [`crate::bench::definitions`] defines, as the model has it.
pub(crate) fn setup() -> Setup {
    let channel = |group, buffer| ChannelSetup { group, buffer };
    Setup {
        skus: 10,
        nodes: BTreeMap::from([(0, 10), (1, 20), (2, 30)]),
        groups: BTreeMap::from([(0, BTreeSet::from([1, 2]))]),
        channels: BTreeMap::from([(0, channel(None, 0)), (1, channel(Some(0), 0)), (2, channel(None, 5))]),
    }
}

/// A random command. Ids of reservations are 1 to `last_id`; a new one is the next.
pub(crate) fn act(dice: &mut Dice, last_id: &mut u128, now_ms: u64) -> Act {
    let old_id = |dice: &mut Dice, last_id: u128| 1 + u128::from(pick(dice, last_id as u64 + 1));
    match pick(dice, 20) {
        0..7 => {
            *last_id += 1;
            let lines = (0..=pick(dice, 4)).map(|_| line(dice)).collect();
            let ttl_ms = if pick(dice, 60) == 0 { 0 } else { pick(dice, 2_000) as u32 + 1 };
            Act::Reserve { id: *last_id, channel: pick(dice, 3) as u16, ttl_ms, lines }
        }
        7..13 => {
            // Mostly young ones: the others have ended.
            let id = if pick(dice, 4) == 0 {
                old_id(dice, *last_id)
            } else {
                last_id.saturating_sub(u128::from(pick(dice, 12))).max(1)
            };
            let verb = pick(dice, 4) as u8 + 1;
            Act::Step { id, verb, ttl_ms: pick(dice, 3_000) as u32 + 1 }
        }
        _ => Act::Event(Box::new(event(dice, *last_id, now_ms))),
    }
}

fn line(dice: &mut Dice) -> LineRec {
    let sku = if pick(dice, 200) == 0 { 77 } else { pick(dice, SKUS) as u32 };
    let quantity = if pick(dice, 200) == 0 { 0 } else { pick(dice, 6) as u32 + 1 };
    let (node, group) = match pick(dice, 8) {
        0 => (pick(dice, NODES + 1) as u16, ANY),
        1 => (ANY, 0),
        2 => (1 + pick(dice, 2) as u16, 0),
        _ => (ANY, ANY),
    };
    LineRec { sku, node, group, quantity }
}

fn event(dice: &mut Dice, last_id: u128, now_ms: u64) -> EventRec {
    let kind = match pick(dice, 20) {
        0..7 => EventKind::Receipt,
        7 => EventKind::Count,
        other => KINDS[other as usize % KINDS.len()],
    };
    // Now and then hours late, days late, or from a clock that goes wrong.
    let occurred_at_ms = match pick(dice, 40) {
        0 => now_ms - pick(dice, 3_600_000),
        1 => now_ms - pick(dice, 100_000_000),
        2 => now_ms + pick(dice, 600_000),
        _ => now_ms - pick(dice, 40),
    };
    let units = pick(dice, 12) as i64 + 1;
    let quantity = match kind {
        EventKind::Adjustment => units - 8,
        EventKind::Count => units * 3 - 3,
        EventKind::Supply => units * 2 - 2,
        _ if pick(dice, 300) == 0 => 1_000_000_000 + pick(dice, 2) as i64,
        _ => units,
    };
    let to_node = pick(dice, NODES) as u16;
    let wants_claim = matches!(kind, EventKind::Pick | EventKind::Ship) && pick(dice, 3) > 0;
    let wants_supply = matches!(
        kind,
        EventKind::TransferDispatched | EventKind::TransferReceived | EventKind::Supply
    ) || (kind == EventKind::Receipt && pick(dice, 8) == 0);
    let expects = matches!(kind, EventKind::Adjustment | EventKind::Count) && pick(dice, 10) == 0;
    EventRec {
        key: 0,
        issued_at_ms: 0,
        occurred_at_ms,
        reservation: last_id.saturating_sub(u128::from(pick(dice, 12))).max(1),
        quantity,
        expected: pick(dice, 30) as i64,
        supply: pick(dice, 4) + 1,
        eta_ms: now_ms + 1_000,
        sku: pick(dice, SKUS) as u32,
        damaged: pick(dice, 3) as u32,
        node: if pick(dice, 100) == 0 { 9 } else { pick(dice, NODES) as u16 },
        to_node,
        kind: kind as u8,
        given: u8::from(wants_claim) | u8::from(wants_supply) << 1 | u8::from(expects) << 2,
        from: [0, 0, 4, 5, 6, 7][pick(dice, 6) as usize],
        to: [0, 4, 5, 6, 7][pick(dice, 5) as usize],
        reason: [0; 16],
    }
}

/// The command in the core's types; its lines are appended to `lines`.
pub(crate) fn body(act: &Act, lines: &mut Vec<Line>) -> Body {
    match act {
        Act::Reserve { id, channel, ttl_ms, lines: asked } => {
            let first_line = lines.len() as u32;
            lines.extend(asked.iter().map(|line| Line {
                sku: SkuId(line.sku),
                node: NodeId(line.node),
                group: GroupId(line.group),
                quantity: line.quantity,
            }));
            Body::Reserve(Reserve {
                id: ReservationId(*id),
                channel: ChannelId(*channel),
                ttl_ms: *ttl_ms,
                first_line,
                line_count: asked.len() as u32,
            })
        }
        Act::Step { id, verb, ttl_ms } => Body::Transition(Transition {
            reservation: ReservationId(*id),
            verb: Verb::from_number(*verb).expect("verbs are 1 to 4"),
            ttl_ms: *ttl_ms,
            scope: None,
        }),
        Act::Event(event) => Body::Event(StockEvent {
            kind: EventKind::from_number(event.kind).expect("kinds come from the list"),
            sku: SkuId(event.sku),
            node: NodeId(event.node),
            quantity: event.quantity,
            occurred_at: Millis(event.occurred_at_ms),
            reservation: (event.given & 1 != 0).then_some(ReservationId(event.reservation)),
            supply: (event.given & 2 != 0).then_some(SupplyId(event.supply)),
            to_node: NodeId(event.to_node),
            eta: Millis(event.eta_ms),
            damaged: event.damaged,
            expected: (event.given & 4 != 0).then_some(event.expected),
            from: Bucket::from_number(event.from).expect("a bucket"),
            to: Bucket::from_number(event.to).expect("a bucket"),
            reason: event.reason,
        }),
        Act::Expire { id } => Body::Expire(ReservationId(*id)),
        Act::Rule { .. } => unreachable!("rules are defined by name"),
    }
}

/// A reply as the model has it.
pub(crate) fn due(reply: &Reply, parts: &[Part]) -> Due {
    let parts = parts.iter().map(|part| PartRec {
        line: part.line,
        sku: part.sku.0,
        node: part.node.0,
        quantity: part.quantity,
    });
    Due {
        code: reply.outcome.code,
        state: reply.outcome.state,
        expires_at_ms: reply.outcome.expires_at.0,
        parts: parts.collect(),
    }
}

/// What the journal says that the sender was told.
pub(crate) fn due_of_entry(decoded: &Decoded, entry: &Entry) -> Due {
    let mut parts = Vec::new();
    if matches!(entry.command.body, Body::Reserve(_)) {
        parts.extend(decoded.movements[entry.movements.clone()].iter().map(|movement| PartRec {
            line: 0,
            sku: movement.sku.0,
            node: movement.node.0,
            quantity: movement.quantity,
        }));
        parts.extend(decoded.shorts[entry.shorts.clone()].iter().map(|short| PartRec {
            line: short.line,
            sku: short.sku.0,
            node: ANY,
            quantity: short.available,
        }));
    }
    Due {
        code: entry.outcome.code,
        state: entry.outcome.state,
        expires_at_ms: entry.outcome.expires_at.0,
        parts,
    }
}
