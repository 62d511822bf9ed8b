//! What a channel is told of a sku: the number, its status, and what could be waited for.

use schemars::JsonSchema;
use serde::Serialize;
use stockline_core::catalogue::{ChannelRule, NodeSet};
use stockline_core::id::{Millis, NodeId, SkuId};
use stockline_core::view::{Later, Reader, Stale};

use crate::engine::Clock;

/// What a number means to a channel. Numbers are stable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Status {
    /// No such sku.
    Unknown = 0,
    InStock = 1,
    /// As few as the channel calls low.
    Low = 2,
    Out = 3,
    /// Out, but it can be waited for: it is to come again, or for the first time.
    Backorder = 4,
    Preorder = 5,
}

impl Status {
    /// The name of a number.
    pub fn name(number: u8) -> Option<&'static str> {
        ["unknown", "in_stock", "low", "out", "backorder", "preorder"].get(usize::from(number)).copied()
    }
}

/// What a channel can be promised of a sku.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// Units there.
    pub units: i64,
    /// Units there by the date asked for, those that are there now with those to come.
    pub by_date: i64,
    /// Units to come, besides.
    pub later: Later,
    pub status: Status,
}

/// The time that answers go by: what is late already is promised to nobody.
pub fn now(reader: &Reader<'_>, clock: &Clock) -> Millis {
    if reader.rules.skus.waits() { clock.now() } else { Millis(0) }
}

/// Asks for one sku, as it is now and by a date (0 for none), of some nodes or of all that the channel is offered; `list` is told what each has.
pub fn offer(
    reader: &Reader<'_>,
    (now, date): (Millis, Millis),
    rule: &ChannelRule,
    nodes: Option<&NodeSet>,
    sku: SkuId,
    list: impl FnMut(NodeId, i64),
) -> Result<Offer, Stale> {
    let available = reader.available(rule, nodes, sku, list)?;
    let later = reader.later((now, date), rule, nodes, sku)?;
    let by_date = rule.policy.capped(available.units + later.by_date);
    let later = Later { units: rule.policy.capped(available.units + later.units) - available.units, ..later };
    let status = match available {
        found if !found.known => Status::Unknown,
        found if found.units > i64::from(rule.policy.low) => Status::InStock,
        found if found.units > 0 => Status::Low,
        _ if later.units > 0 && later.preorder => Status::Preorder,
        _ if later.units > 0 => Status::Backorder,
        _ => Status::Out,
    };
    Ok(Offer { units: available.units, by_date, later, status })
}
