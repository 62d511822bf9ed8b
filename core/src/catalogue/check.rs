//! Checks that need the catalogue and the time but no stock: the first refusals in precedence.

use crate::bucket::Bucket;
use crate::catalogue::{ChannelRule, Rules};
use crate::command::{Action, Allocate, Body, Line, Reserve, Transition, Verb};
use crate::event::{EventKind, StockEvent};
use crate::id::{GroupId, Millis, NodeId, ZoneId};
use crate::limit;
use crate::outcome::Code;

/// `Ok`, or the refusal that stands first among those deserved.
pub fn check(rules: &Rules, sku_count: usize, body: &Body, lines: &[Line], now: Millis) -> Code {
    match body {
        Body::Reserve(reserve) => check_reserve(rules, sku_count, reserve, reserve.lines(lines)),
        Body::Transition(transition) => check_transition(rules, sku_count, transition),
        // How far its sender's clock may be ahead, was looked at.
        Body::Event(event) => check_event(rules, sku_count, event, (now, limit::CLOCK_AHEAD_MS_MAX)),
        Body::Allocate(allocate) => check_allocate(rules, sku_count, allocate),
        Body::Expire(_) | Body::Balance(_) | Body::Define(_) | Body::Read(_) => Code::Ok,
    }
}

/// Keeps the refusal of higher precedence, which has the lower number.
fn first(found: &mut Code, refused: bool, code: Code) {
    if refused && (*found == Code::Ok || code < *found) {
        *found = code;
    }
}

fn is_ttl(ttl_ms: u32) -> bool {
    ttl_ms > 0 && u64::from(ttl_ms) <= limit::TTL_MS_MAX
}

/// Where a line claims units whose node is chosen later: at its group, or at the channel's.
pub fn place(channel: &ChannelRule, line: &Line) -> NodeId {
    NodeId::of_group(if line.group == GroupId::ANY { channel.group } else { line.group })
}

/// The same for a reservation.
pub fn check_reserve(rules: &Rules, sku_count: usize, reserve: &Reserve, lines: &[Line]) -> Code {
    let mut code = Code::Ok;
    first(&mut code, lines.is_empty(), Code::NoLines);
    first(&mut code, lines.len() > limit::RESERVATION_LINES_MAX, Code::TooManyLines);
    first(&mut code, !is_ttl(reserve.ttl_ms), Code::InvalidTtl);
    let channel = rules.channel(reserve.channel);
    first(&mut code, channel.is_none(), Code::UnknownChannel);
    let zone = reserve.zone;
    first(&mut code, zone != ZoneId::NONE && rules.zone(zone).is_none(), Code::UnknownZone);
    for line in lines {
        first(&mut code, line.quantity == 0 || line.quantity > limit::QUANTITY_MAX, Code::InvalidQuantity);
        first(&mut code, line.sku.0 as usize >= sku_count, Code::UnknownSku);
        if line.node == NodeId::ANY && line.group == GroupId::ANY {
            continue;
        }
        let group = rules.group(line.group);
        first(&mut code, line.group != GroupId::ANY && group.is_none(), Code::UnknownGroup);
        if line.node == NodeId::LATER {
            let offered = |channel| rules.offers_place(channel, place(channel, line));
            first(&mut code, !channel.is_none_or(offered), Code::NodeNotOffered);
        } else if line.node != NodeId::ANY {
            first(&mut code, !rules.knows_node(line.node), Code::UnknownNode);
            let offered = channel.is_none_or(|channel| channel.nodes.contains(line.node))
                && group.is_none_or(|nodes| nodes.contains(line.node));
            first(&mut code, !offered, Code::NodeNotOffered);
        }
    }
    code
}

fn check_transition(rules: &Rules, sku_count: usize, transition: &Transition) -> Code {
    let mut code = Code::Ok;
    first(&mut code, transition.verb == Verb::Extend && !is_ttl(transition.ttl_ms), Code::InvalidTtl);
    first(&mut code, transition.lines.len() > limit::RESERVATION_LINES_MAX, Code::TooManyLines);
    for line in &transition.lines {
        first(&mut code, line.quantity == 0 || line.quantity > limit::QUANTITY_MAX, Code::InvalidQuantity);
        first(&mut code, line.sku.0 as usize >= sku_count, Code::UnknownSku);
        let known =
            rules.knows_place(line.node) && (line.to_node == NodeId::ANY || rules.knows_node(line.to_node));
        first(&mut code, !known, Code::UnknownNode);
    }
    code
}

fn check_allocate(rules: &Rules, sku_count: usize, allocate: &Allocate) -> Code {
    let mut code = Code::Ok;
    let quantity = allocate.quantity;
    first(&mut code, quantity == 0 || quantity > limit::QUANTITY_MAX, Code::InvalidQuantity);
    first(&mut code, allocate.sku.0 as usize >= sku_count, Code::UnknownSku);
    first(&mut code, !rules.knows_node(allocate.node), Code::UnknownNode);
    let other = (allocate.action == Action::Reallocate).then_some(allocate.to_channel);
    for channel in [Some(allocate.channel), other].into_iter().flatten() {
        first(&mut code, rules.channel(channel).is_none(), Code::UnknownChannel);
    }
    // Units may always be taken from a channel; given to one only where it can use them.
    let to = if allocate.action == Action::Allocate { Some(allocate.channel) } else { other };
    let rule = to.and_then(|channel| rules.channel(channel));
    first(&mut code, rule.is_some_and(|rule| !rule.nodes.contains(allocate.node)), Code::NodeNotOffered);
    code
}

/// The same for an event; the sku is looked at last, so that one that is to come into being may be assumed.
pub fn check_event(
    rules: &Rules,
    sku_count: usize,
    event: &StockEvent,
    (now, ahead_ms): (Millis, u64),
) -> Code {
    let max = i64::from(limit::QUANTITY_MAX);
    let quantity_ok = match event.kind {
        EventKind::Adjustment => event.quantity != 0 && event.quantity.unsigned_abs() <= max as u64,
        EventKind::Count | EventKind::Supply => (0..=max).contains(&event.quantity),
        _ => (1..=max).contains(&event.quantity),
    };
    let movable = |bucket| {
        matches!(bucket, Bucket::Free | Bucket::Safety | Bucket::Damaged | Bucket::Quality | Bucket::Blocked)
    };
    let arrives = |bucket| matches!(bucket, Bucket::Free | Bucket::Quality | Bucket::Damaged);
    let fields_ok = match event.kind {
        EventKind::TransferDispatched => event.to_node != event.node,
        EventKind::Receipt | EventKind::TransferReceived => {
            i64::from(event.damaged) <= event.quantity && arrives(event.to)
        }
        EventKind::Return => arrives(event.to),
        EventKind::StatusChange => movable(event.from) && movable(event.to) && event.from != event.to,
        EventKind::Pick | EventKind::Ship | EventKind::Adjustment | EventKind::Count | EventKind::Supply => {
            true
        }
    };
    let fields_ok = fields_ok && event.misfit().is_none() && event.eta <= limit::ETA_MAX;
    let mut code = Code::Ok;
    first(&mut code, !quantity_ok, Code::InvalidQuantity);
    first(&mut code, !fields_ok, Code::InvalidEvent);
    first(&mut code, event.occurred_at > now.plus(ahead_ms), Code::EventInFuture);
    first(&mut code, event.sku.0 as usize >= sku_count, Code::UnknownSku);
    first(&mut code, !rules.knows_node(event.node), Code::UnknownNode);
    if event.kind == EventKind::TransferDispatched {
        first(&mut code, !rules.knows_node(event.to_node), Code::UnknownNode);
    }
    code
}
