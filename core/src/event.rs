//! Stock events: what happened at a node, as a warehouse tells it.

use crate::bucket::Bucket;
use crate::id::{Millis, NodeId, PrincipalId, ReservationId, SkuId, SourceId, SupplyId};

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

/// A field that some kinds of event have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Field {
    Reservation,
    Supply,
    SupplySource,
    ToNode,
    Eta,
    Damaged,
    Expected,
    From,
    To,
}

impl Field {
    pub fn name(self) -> &'static str {
        match self {
            Field::Reservation => "reservation",
            Field::Supply => "supply",
            Field::SupplySource => "supply_source",
            Field::ToNode => "to_node",
            Field::Eta => "eta",
            Field::Damaged => "damaged",
            Field::Expected => "expected",
            Field::From => "from",
            Field::To => "to",
        }
    }
}

impl EventKind {
    /// The fields of a kind beyond those of every event: needed ones, then others.
    fn fields(self) -> (&'static [Field], &'static [Field]) {
        use Field::*;
        match self {
            EventKind::Receipt => (&[], &[Supply, SupplySource, Damaged, To]),
            EventKind::Pick | EventKind::Ship => (&[], &[Reservation]),
            EventKind::Adjustment | EventKind::Count => (&[], &[Expected]),
            EventKind::TransferDispatched => (&[Supply, ToNode], &[Eta]),
            EventKind::TransferReceived => (&[Supply], &[SupplySource, Damaged, To]),
            EventKind::Return => (&[], &[To]),
            EventKind::Supply => (&[Supply], &[Eta]),
            EventKind::StatusChange => (&[], &[From, To]),
        }
    }

    pub fn needs(self, field: Field) -> bool {
        self.fields().0.contains(&field)
    }

    pub fn takes(self, field: Field) -> bool {
        self.needs(field) || self.fields().1.contains(&field)
    }
}

/// One event. Fields that a kind does not take are `None`, 0, `NodeId::ANY` or `Bucket::Free`.
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
    /// Who announces the event.
    pub source: SourceId,
    /// Receipt, transfers, supply: as this source would call it.
    pub supply: Option<SupplyId>,
    /// Receipt, transfer received: the name of the source that announced the supply, where several call one so; 0 for
    /// this source, or else the only one.
    pub supply_source: u32,
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
    /// The sender's own words, kept with the event.
    pub reason: Box<str>,
    /// How it came out of the dead letters, if it did.
    pub redrive: Redrive,
}

/// How an event came out of the dead letters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Redrive {
    /// It did not: its sender sent it.
    #[default]
    No,
    /// That principal drove it again, with the rights of its sender.
    By(PrincipalId),
    /// That principal made it its own, with its own rights; who had sent it remains the one whose key it has.
    Adopted(PrincipalId),
}

impl StockEvent {
    /// A field that is given and that its kind does not take, or that it needs and is not given.
    pub fn misfit(&self) -> Option<Field> {
        let all = [
            (Field::Reservation, self.reservation.is_some()),
            (Field::Supply, self.supply.is_some()),
            (Field::SupplySource, self.supply_source != 0),
            (Field::ToNode, self.to_node != NodeId::ANY),
            (Field::Eta, self.eta != Millis(0)),
            (Field::Damaged, self.damaged != 0),
            (Field::Expected, self.expected.is_some()),
            (Field::From, self.from != Bucket::Free),
            (Field::To, self.to != Bucket::Free),
        ];
        let wrong = |(field, given): &(Field, bool)| {
            if *given { !self.kind.takes(*field) } else { self.kind.needs(*field) }
        };
        all.iter().find(|field| wrong(field)).map(|(field, _)| *field)
    }

    /// The same event as told by a principal: whatever source it names is its own.
    pub fn told_by(mut self, principal: PrincipalId) -> StockEvent {
        self.redrive = Redrive::No;
        self.source = SourceId::new(principal, self.source.name_number());
        self.supply = self.supply.map(|supply| SupplyId::new(self.source, supply.name()));
        self
    }

    /// When it happened, for comparing counts with movements: a clock that is ahead of the server's is not believed, so
    /// nothing happened after it was applied. Events of the same millisecond happened in the order of their LSNs, which
    /// is the order in which each source sent them.
    pub fn happened_at(&self, now: Millis) -> Millis {
        self.occurred_at.min(now)
    }

    /// An event with nothing but what every event has.
    pub fn new(kind: EventKind, sku: SkuId, node: NodeId, quantity: i64, occurred_at: Millis) -> StockEvent {
        StockEvent {
            kind,
            sku,
            node,
            quantity,
            occurred_at,
            reservation: None,
            source: SourceId::default(),
            supply: None,
            supply_source: 0,
            to_node: NodeId::ANY,
            eta: Millis(0),
            damaged: 0,
            expected: None,
            from: Bucket::Free,
            to: Bucket::Free,
            reason: Box::default(),
            redrive: Redrive::No,
        }
    }
}
