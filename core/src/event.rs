//! Stock events: what happened at a node, as a warehouse tells it.

use crate::bucket::Bucket;
use crate::id::{Millis, NodeId, ReservationId, SkuId, SupplyId};

/// Kinds of event. Numbers are stable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum EventKind {
    Receipt = 1,
    Pick = 2,
    Ship = 3,
    Adjustment = 4,
    Count = 5,
    TransferDispatched = 6,
    TransferReceived = 7,
    Return = 8,
    Supply = 9,
    StatusChange = 10,
}

/// Every kind, in the order of its number.
pub const KINDS: [EventKind; 10] = [
    EventKind::Receipt,
    EventKind::Pick,
    EventKind::Ship,
    EventKind::Adjustment,
    EventKind::Count,
    EventKind::TransferDispatched,
    EventKind::TransferReceived,
    EventKind::Return,
    EventKind::Supply,
    EventKind::StatusChange,
];

impl EventKind {
    pub fn from_number(number: u8) -> Option<EventKind> {
        KINDS.into_iter().find(|kind| *kind as u8 == number)
    }

    pub fn name(self) -> &'static str {
        match self {
            EventKind::Receipt => "receipt",
            EventKind::Pick => "pick",
            EventKind::Ship => "ship",
            EventKind::Adjustment => "adjustment",
            EventKind::Count => "count",
            EventKind::TransferDispatched => "transfer_dispatched",
            EventKind::TransferReceived => "transfer_received",
            EventKind::Return => "return",
            EventKind::Supply => "supply",
            EventKind::StatusChange => "status_change",
        }
    }

    pub fn from_name(name: &str) -> Option<EventKind> {
        KINDS.into_iter().find(|kind| kind.name() == name)
    }
}

/// One event. Fields a kind does not use are `None`, 0 or `Bucket::Free` and are not looked at.
#[derive(Clone, PartialEq, Debug)]
pub struct StockEvent {
    pub kind: EventKind,
    pub sku: SkuId,
    pub node: NodeId,
    /// Units: signed for an adjustment, absolute on-hand for a count, positive otherwise.
    pub quantity: i64,
    pub occurred_at: Millis,
    /// Pick, ship: the claim the units go to.
    pub reservation: Option<ReservationId>,
    /// Receipt, transfers, supply.
    pub supply: Option<SupplyId>,
    /// Transfer dispatched: where to.
    pub to_node: NodeId,
    /// Supply, transfer dispatched: when it is expected.
    pub eta: Millis,
    /// Transfer received: units of the quantity that arrived broken.
    pub damaged: u32,
    /// Adjustment, count: refused unless on-hand is exactly this.
    pub expected: Option<i64>,
    /// Status change: from here.
    pub from: Bucket,
    /// Status change, return: to here.
    pub to: Bucket,
    /// A short code of the sender's, kept with the event.
    pub reason: [u8; 16],
}

impl StockEvent {
    /// An event with nothing but what every event has.
    pub fn new(kind: EventKind, sku: SkuId, node: NodeId, quantity: i64, occurred_at: Millis) -> StockEvent {
        StockEvent {
            kind,
            sku,
            node,
            quantity,
            occurred_at,
            reservation: None,
            supply: None,
            to_node: NodeId::ANY,
            eta: Millis(0),
            damaged: 0,
            expected: None,
            from: Bucket::Free,
            to: Bucket::Free,
            reason: [0; 16],
        }
    }
}
