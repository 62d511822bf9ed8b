//! The catalogue of the layers that compare with the reference model, and the way between its types and the
//! core's.

use std::collections::{BTreeMap, BTreeSet};

use stockline_core::bucket::Bucket;
use stockline_core::catalogue::{self, Amount, Day, Definition, When};
use stockline_core::command::{Action, Allocate, Body, Fill, Line, Reserve, StepLine, Transition, Verb};
use stockline_core::event::{EventKind, Redrive, StockEvent};
use stockline_core::id::{
    ChannelId, GroupId, Millis, NodeId, ReservationId, SkuId, SourceId, SupplyId, ZoneId,
};
use stockline_core::journal::{Decoded, Entry};
use stockline_core::ledger::Told;
use stockline_core::merge::{Part, Reply};
use stockline_core::wire::PartRec;
use stockline_loadgen::chance::Chance;
use stockline_loadgen::model::{ANY, Act, ChannelSetup, DaySetup, Due, Effect, Setup, SkuRule};
use stockline_loadgen::stage::labels;

use crate::bench::{CUSTOMER_HOLDS_MAX, HOLDS_MAX, sku_rules};

/// What [`crate::bench::definitions`] defines, as the model has it.
pub fn setup() -> Setup {
    let channel = |parent, group, buffer| ChannelSetup { parent, group, buffer, ..ChannelSetup::default() };
    let policed = ChannelSetup {
        parent: Some(1),
        reacquires: true,
        holds_max: HOLDS_MAX as usize,
        customer_holds_max: CUSTOMER_HOLDS_MAX as usize,
        ..ChannelSetup::default()
    };
    Setup {
        skus: 10,
        nodes: BTreeMap::from([(0, 10), (1, 20), (2, 30)]),
        groups: BTreeMap::from([(0, BTreeSet::from([1, 2])), (1, BTreeSet::from([0, 1]))]),
        channels: BTreeMap::from([
            (0, channel(None, None, 0)),
            (1, channel(Some(0), Some(0), 0)),
            (2, channel(None, None, 5)),
            (3, policed),
        ]),
        ..Setup::default()
    }
}

/// With what [`crate::bench::sku_rules`] defines.
pub fn setup_with_sku_rules() -> Setup {
    let names = (0..10).map(|sku| {
        let category = if matches!(sku, 4 | 5) { "garden" } else { "" };
        (sku, (format!("s{sku}"), category.to_owned()))
    });
    let rules = sku_rules();
    let rules = rules.iter().filter_map(|definition| model_rule(definition).map(|(_, rule)| rule));
    let far = i64::from(catalogue::UNKNOWN);
    let zones = BTreeMap::from([
        (0, BTreeMap::from([(0, (300, 5)), (1, (100, 9)), (2, (200, far))])),
        (1, BTreeMap::from([(2, (50, 1))])),
    ]);
    let substitutes = BTreeMap::from([(0, vec![2, 1])]);
    let mut setup = Setup { names: names.collect(), rules: rules.collect(), zones, substitutes, ..setup() };
    for (channel, strategy, splits_max) in [(1, 1, 0), (2, 3, 2), (3, 2, 2)] {
        let rule = setup.channels.get_mut(&channel).expect("it is there");
        (rule.strategy, rule.splits_max) = (strategy, splits_max);
        // As the bench has them, where definitions begin with four others.
        rule.priority = 10 - (channel + 4);
        rule.substitutes = channel != 1;
    }
    setup.sku_substitutes = BTreeMap::from([(0, vec![1]), (1, vec![3, 0])]);
    setup
}

/// A rule by sku in the model's types, and which it is.
pub fn model_rule(definition: &Definition) -> Option<(usize, SkuRule)> {
    let Definition::Rule { name, skus, category, node, group, channel, effect } = definition else {
        return None;
    };
    let id = |name: &Option<String>| name.as_ref().map(|name| u16::from(name.as_bytes()[1] - b'0'));
    let rule = SkuRule {
        skus: skus.clone(),
        category: category.clone(),
        node: id(node),
        group: id(group),
        channel: id(channel),
        effect: match *effect {
            catalogue::Effect::None => Effect::None,
            catalogue::Effect::Safety(units) => Effect::Safety(i64::from(units)),
            catalogue::Effect::Backorder(units) | catalogue::Effect::Preorder(units) => {
                Effect::Later(i64::from(units))
            }
            catalogue::Effect::Allocate { amount, when } => {
                let (amount, percent) = match amount {
                    Amount::Units(units) => (i64::from(units), false),
                    Amount::Percent(percent) => (i64::from(percent), true),
                };
                let every = match when {
                    When::Receipt => None,
                    When::Always => Some(1),
                    When::Every(minutes) => Some(u64::from(minutes)),
                };
                Effect::Allocate { amount, percent, every }
            }
        },
    };
    Some((usize::from(name.as_bytes()[1] - b'0'), rule))
}

/// A node's day in the model's types, and which node it is.
pub fn model_day(definition: &Definition) -> Option<(u16, DaySetup)> {
    let Definition::Node { name, day, .. } = definition else { return None };
    let Day { cut_off, ahead, capacity } = *day;
    let (cut_off, ahead, capacity) = (u64::from(cut_off), i64::from(ahead), i64::from(capacity));
    Some((u16::from(name.as_bytes()[1] - b'0'), DaySetup { cut_off, ahead, capacity }))
}

/// Days of nodes that begin or end a hundred seconds after a bench's start, with few units.
pub fn days() -> [Definition; 2] {
    let mut days = [Definition::node("n1", 20), Definition::node("n2", 30)];
    for (definition, of) in days
        .iter_mut()
        .zip([Day { cut_off: 0, ahead: 7, capacity: 40 }, Day { cut_off: 69, ahead: -20, capacity: 25 }])
    {
        let Definition::Node { day, .. } = definition else { unreachable!("they are nodes") };
        *day = of;
    }
    days
}

/// What the system brought into the order.
pub fn due_act(body: &Body) -> Act {
    match body {
        Body::Expire(id) => Act::Expire { id: id.0 },
        Body::Balance(sku) => Act::Balance { sku: sku.0 },
        other => panic!("the system does not send {other:?}"),
    }
}

/// Random commands about what [`setup`] tells.
pub fn chance() -> Chance {
    Chance {
        skus: (0..6).collect(),
        nodes: vec![0, 1, 2],
        group: (0, vec![1, 2]),
        claimed: vec![0, 1, ANY],
        channels: vec![0, 1, 2, 3],
        zones: vec![0, 1],
        ttl_least_ms: 0,
        ttl_ms: 2_000,
        clock_known: true,
    }
}

/// The command in the core's types; its lines are appended to `lines`.
pub fn body(act: &Act, lines: &mut Vec<Line>) -> Body {
    match act {
        Act::Reserve { id, channel, ttl_ms, partial, customer, zone, lines: asked } => {
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
                fill: if *partial { Fill::Partial } else { Fill::All },
                customer: *customer,
                zone: ZoneId(*zone),
                labels: labels(*id),
                first_line,
                line_count: asked.len() as u32,
            })
        }
        Act::Step { id, verb, ttl_ms, lines: asked } => Body::Transition(Transition {
            reservation: ReservationId(*id),
            verb: Verb::from_number(*verb).expect("verbs are 1 to 5"),
            ttl_ms: *ttl_ms,
            scope: None,
            lines: asked
                .iter()
                .map(|line| StepLine {
                    sku: SkuId(line.sku),
                    node: NodeId(line.node),
                    to_node: NodeId(line.to_node),
                    quantity: line.quantity,
                })
                .collect(),
        }),
        Act::Event(event) => Body::Event(StockEvent {
            kind: EventKind::from_number(event.kind).expect("kinds come from the list"),
            sku: SkuId(event.sku),
            node: NodeId(event.node),
            quantity: event.quantity,
            occurred_at: Millis(event.occurred_at_ms),
            reservation: (event.given & 1 != 0).then_some(ReservationId(event.reservation)),
            source: SourceId(event.source),
            supply: (event.given & 2 != 0).then_some(SupplyId::new(SourceId(event.source), event.supply)),
            supply_source: event.supply_source,
            to_node: NodeId(event.to_node),
            eta: Millis(event.eta_ms),
            damaged: event.damaged,
            expected: (event.given & 4 != 0).then_some(event.expected),
            from: Bucket::from_number(event.from).expect("a bucket"),
            to: Bucket::from_number(event.to).expect("a bucket"),
            reason: Box::default(),
            redrive: Redrive::No,
        }),
        Act::Allocate(allocate) => Body::Allocate(Allocate {
            action: Action::from_number(allocate.action).expect("actions are 1 to 3"),
            channel: ChannelId(allocate.channel),
            to_channel: ChannelId(allocate.to_channel),
            sku: SkuId(allocate.sku),
            node: NodeId(allocate.node),
            quantity: allocate.quantity,
        }),
        Act::Expire { id } => Body::Expire(ReservationId(*id)),
        Act::Balance { sku } => Body::Balance(SkuId(*sku)),
        Act::Rule { .. } | Act::SkuRule { .. } | Act::Day { .. } => unreachable!("rules are defined by name"),
    }
}

/// A reply as the model has it.
pub fn due(reply: &Reply, parts: &[Part]) -> Due {
    let parts = parts.iter().map(|part| PartRec {
        line: part.line,
        sku: part.sku.0,
        node: part.node.0,
        quantity: part.quantity,
        at_ms: part.at.0,
    });
    Due {
        code: reply.outcome.code,
        state: reply.outcome.state,
        expires_at_ms: reply.outcome.expires_at.0,
        late: reply.outcome.reacquired,
        parts: parts.collect(),
    }
}

/// What the journal says that the sender was told.
pub fn due_of_entry(decoded: &Decoded, entry: &Entry) -> Due {
    let mut parts = Vec::new();
    if matches!(entry.command.body, Body::Reserve(_)) || entry.outcome.reacquired {
        let Told { movements, shorts, promises } = decoded.told(entry);
        let mut sums: BTreeMap<(u32, u16, u64), u32> = BTreeMap::new();
        for movement in movements {
            let promise = promises
                .iter()
                .find(|told| (told.sku, told.node, told.to) == (movement.sku, movement.node, movement.pool));
            let at = promise.map_or(0, |told| told.at.0);
            *sums.entry((movement.sku.0, movement.node.0, at)).or_default() += movement.quantity;
        }
        let part = |((sku, node, at_ms), quantity)| PartRec { line: 0, sku, node, quantity, at_ms };
        parts.extend(sums.into_iter().map(part));
        parts.extend(shorts.iter().map(|short| PartRec {
            line: short.line,
            sku: short.sku.0,
            node: ANY,
            quantity: short.available,
            at_ms: 0,
        }));
    }
    Due {
        code: entry.outcome.code,
        state: entry.outcome.state,
        expires_at_ms: entry.outcome.expires_at.0,
        late: entry.outcome.reacquired,
        parts,
    }
}
