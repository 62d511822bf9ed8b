//! What each stock event does, as a table of movements.
//!
//! Physical facts (counts, losses, what goes to an order that waits there) are accepted even when they leave less than
//! is promised: free goes negative, which is a shortage everybody can see. Everything else must find its units.
//!
//! An event that happened before the last count of its node was already seen by that count: its movements
//! are recorded, and the units go to or come from `loss`, so that on-hand stays what was counted.

use smallvec::SmallVec;

use crate::bucket::{Bucket, Movement, ON_HAND};
use crate::catalogue::Rules;
use crate::event::{EventKind, StockEvent};
use crate::id::{ChannelId, Millis, NodeId, SupplyId};
use crate::ledger::{Claim, Effects, Extra, Ledger, Moment, Outcome, Position, SupplyState};
use crate::limit;
use crate::outcome::Code;

/// Collects the movements of one event.
struct Draft<'a> {
    event: &'a StockEvent,
    movements: &'a mut Vec<Movement>,
}

impl Draft<'_> {
    fn push(&mut self, node: NodeId, from: Bucket, to: Bucket, quantity: i64) {
        self.push_of(ChannelId::SHARED, node, (from, to), quantity);
    }

    fn push_of(&mut self, pool: ChannelId, node: NodeId, (from, to): (Bucket, Bucket), quantity: i64) {
        let mut open = quantity;
        while open > 0 {
            let quantity = open.min(i64::from(limit::QUANTITY_MAX));
            open -= quantity;
            let quantity = quantity as u32;
            self.movements.push(Movement { sku: self.event.sku, node, pool, from, to, quantity });
        }
    }

    fn here(&mut self, from: Bucket, to: Bucket, quantity: i64) {
        self.push(self.event.node, from, to, quantity);
    }

    /// Found or lost: a signed change of free.
    fn correct(&mut self, change: i64) {
        self.here(Bucket::Loss, Bucket::Free, change);
        self.here(Bucket::Free, Bucket::Loss, -change);
    }
}

impl Ledger {
    pub(super) fn decide_event(
        &self,
        moment: Moment,
        rules: &Rules,
        event: &StockEvent,
        effects: &mut Effects,
    ) -> Outcome {
        let before = effects.movements.len();
        let mut draft = Draft { event, movements: &mut effects.movements };
        match self.draft_event(moment, event, &mut draft) {
            Ok(outcome) => {
                self.allocate_receipt(rules, event, before, &mut effects.movements);
                outcome
            }
            Err(code) => {
                effects.movements.truncate(before);
                Outcome::of(code)
            }
        }
    }

    fn draft_event(
        &self,
        moment: Moment,
        event: &StockEvent,
        draft: &mut Draft<'_>,
    ) -> Result<Outcome, Code> {
        let empty = Position::empty(event.node);
        let position = self.position(event.sku, event.node).unwrap_or(&empty);
        let extra = self.extras.get(&event.sku);
        let quantity = event.quantity;
        let mut outcome = Outcome::of(Code::Ok);
        if event.expected.is_some_and(|expected| expected != position.on_hand())
            && matches!(event.kind, EventKind::Adjustment | EventKind::Count)
        {
            return Err(Code::ExpectedMismatch);
        }
        let start = draft.movements.len();
        match event.kind {
            EventKind::Receipt | EventKind::TransferReceived => self.draft_arrival(event, draft)?,
            EventKind::Pick | EventKind::Ship => {
                outcome = self.draft_issue(moment, event, position, draft)?
            }
            EventKind::Adjustment => {
                if position.on_hand() + quantity < 0 {
                    return Err(Code::InsufficientOnHand);
                }
                draft.correct(quantity);
            }
            EventKind::Count => {
                let at = event.happened_at(moment.now);
                let then = on_hand_at(position, extra, at, moment.now)?;
                if position.on_hand() + quantity - then < 0 {
                    return Err(Code::InsufficientOnHand);
                }
                draft.correct(quantity - then);
            }
            EventKind::TransferDispatched => {
                if position.free < quantity {
                    return Err(Code::InsufficientStock);
                }
                let open = self.inbound(event, event.to_node);
                if open.is_none() {
                    self.check_supply_room(event, event.to_node)?;
                } else if open.is_some_and(|open| open + quantity > limit::BUCKET_UNITS_MAX) {
                    return Err(Code::PositionLimit);
                }
                draft.here(Bucket::Free, Bucket::Transit, quantity);
                draft.push(event.to_node, Bucket::Transit, Bucket::Inbound, quantity);
            }
            EventKind::Return => draft.here(Bucket::Customer, event.to, quantity),
            EventKind::Supply => {
                let open = self.inbound(event, event.node);
                if open.is_none() && quantity > 0 {
                    self.check_supply_room(event, event.node)?;
                }
                let open = open.unwrap_or(0);
                draft.here(Bucket::Supplier, Bucket::Inbound, quantity - open);
                draft.here(Bucket::Inbound, Bucket::Supplier, open - quantity);
            }
            EventKind::StatusChange => {
                if position.units(event.from) < quantity {
                    return Err(Code::InsufficientStock);
                }
                draft.here(event.from, event.to, quantity);
            }
        }
        let change: i64 = draft.movements[start..]
            .iter()
            .filter(|movement| movement.node == event.node)
            .map(Movement::on_hand_change)
            .sum();
        if event.kind != EventKind::Count && change != 0 && was_counted_after(extra, event, moment.now) {
            draft.correct(-change);
        }
        if fits(position, &draft.movements[start..]) { Ok(outcome) } else { Err(Code::PositionLimit) }
    }

    /// Receipts and transfers: what the supply has open comes from there, what exceeds it from outside.
    fn draft_arrival(&self, event: &StockEvent, draft: &mut Draft<'_>) -> Result<(), Code> {
        let damaged = i64::from(event.damaged);
        let mut inbound = match self.meant_supply(event, event.node)? {
            Some(_) => self.inbound(event, event.node).ok_or(Code::UnknownSupply)?,
            None => 0,
        };
        for (to, quantity) in [(event.to, event.quantity - damaged), (Bucket::Damaged, damaged)] {
            let expected = quantity.min(inbound);
            draft.here(Bucket::Inbound, to, expected);
            draft.here(Bucket::Supplier, to, quantity - expected);
            inbound -= expected;
        }
        Ok(())
    }

    /// Picks and shipments, for a reservation or without.
    fn draft_issue(
        &self,
        moment: Moment,
        event: &StockEvent,
        position: &Position,
        draft: &mut Draft<'_>,
    ) -> Result<Outcome, Code> {
        let quantity = event.quantity;
        let ship = event.kind == EventKind::Ship;
        let Some(id) = event.reservation else {
            let picked = position.units(Bucket::Picked) - i64::from(position.picked_claimed);
            let from_picked = if ship { quantity.min(picked) } else { 0 };
            if position.free < quantity - from_picked {
                return Err(Code::InsufficientStock);
            }
            let to = if ship { Bucket::Customer } else { Bucket::Picked };
            draft.here(Bucket::Picked, to, from_picked);
            draft.here(Bucket::Free, to, quantity - from_picked);
            return Ok(Outcome::of(Code::Ok));
        };
        let part = self.reservations.find(id, moment.lsn).ok_or(Code::UnknownReservation)?;
        // Whoever else has parts of it is not known here, so a reservation without this sku is none here.
        if part.claims.iter().all(|claim| claim.sku != event.sku) {
            return Err(Code::UnknownReservation);
        }
        if !part.is_confirmed() {
            return Ok(Outcome { code: Code::WrongState, ..part.outcome() });
        }
        let there = |claim: &&Claim| !claim.pool.is_supply();
        let claims = part.claims_at(event.sku, event.node).iter().filter(there);
        let units = |claim: &Claim, bucket| i64::from(claim.units(bucket));
        let to = if ship { Bucket::Customer } else { Bucket::Picked };
        let sources = if ship { &[Bucket::Picked, Bucket::Confirmed][..] } else { &[Bucket::Confirmed] };
        let mut open = quantity;
        let mut picked = 0;
        for from in sources.iter().copied() {
            for claim in claims.clone() {
                let quantity = units(claim, from).min(open);
                open -= quantity;
                picked += if from == Bucket::Picked { quantity } else { 0 };
                draft.push_of(claim.pool, event.node, (from, to), quantity);
            }
        }
        // A node gives out what it has, also to who waits for what is to come.
        let waits = part.claims_at(event.sku, event.node).iter().filter(|claim| claim.pool.is_supply());
        let mut waits: SmallVec<[&Claim; 2]> = waits.collect();
        waits.sort_by_key(|claim| self.supply_order(claim));
        draft.here(Bucket::Free, to, open);
        let waited = open > 0;
        for claim in waits {
            let quantity = units(claim, Bucket::Confirmed).min(open);
            open -= quantity;
            draft.push_of(claim.pool, event.node, (Bucket::Confirmed, Bucket::Inbound), quantity);
        }
        if open > 0 {
            return Err(Code::InsufficientClaim);
        }
        if waited && quantity - picked > position.on_hand() - position.units(Bucket::Picked) {
            return Err(Code::InsufficientOnHand);
        }
        Ok(part.outcome())
    }

    /// Units of the event's supply still on their way to a node; `None` if there is no such supply.
    fn inbound(&self, event: &StockEvent, node: NodeId) -> Option<i64> {
        let supplies = &self.extras.get(&event.sku)?.supplies;
        let supply = meant_supply(supplies, event, node).ok()??;
        let found = supplies.iter().find(|open| open.quantity > 0 && open.is(supply, node))?;
        Some(i64::from(found.quantity))
    }

    /// The supply that an event means at a node, if it names one.
    pub(super) fn meant_supply(&self, event: &StockEvent, node: NodeId) -> Result<Option<SupplyId>, Code> {
        match self.extras.get(&event.sku) {
            Some(extra) => meant_supply(&extra.supplies, event, node),
            None => meant_supply(&[], event, node),
        }
    }

    /// Whether the event's supply to a node may be kept: it is known, or there is room for one more.
    fn check_supply_room(&self, event: &StockEvent, node: NodeId) -> Result<(), Code> {
        let Some(extra) = self.extras.get(&event.sku) else { return Ok(()) };
        let supplies = || extra.supplies.iter().filter(|open| open.pool != ChannelId::NO_SUPPLY);
        let known = event.supply.is_some_and(|supply| supplies().any(|open| open.is(supply, node)));
        let room = known || supplies().count() < limit::SUPPLIES_PER_SKU_MAX;
        if room { Ok(()) } else { Err(Code::TooManySupplies) }
    }
}

/// The supply that an event means at a node, if it names one. Who announces it means its own. Who receives it may be
/// somebody else: then it is the receiver's own, else that of the source it names, else the only open one called so.
fn meant_supply(
    supplies: &[SupplyState],
    event: &StockEvent,
    node: NodeId,
) -> Result<Option<SupplyId>, Code> {
    let Some(own) = event.supply else { return Ok(None) };
    if !matches!(event.kind, EventKind::Receipt | EventKind::TransferReceived) {
        return Ok(Some(own));
    }
    let here = supplies.iter().filter(|open| open.quantity > 0 && open.node == node);
    let here = here.filter(|open| open.pool != ChannelId::NO_SUPPLY).map(|open| open.supply);
    let wanted = event.supply_source;
    let mut called =
        here.filter(|id| id.name() == own.name() && (wanted == 0 || id.source().name_number() == wanted));
    if wanted == 0 && called.clone().any(|id| id == own) {
        return Ok(Some(own));
    }
    let only = called.next().ok_or(Code::UnknownSupply)?;
    if called.next().is_some() { Err(Code::AmbiguousSupply) } else { Ok(Some(only)) }
}

/// Whether every bucket of the position could take the movements, and the position as a whole.
fn fits(position: &Position, movements: &[Movement]) -> bool {
    let mut units = ON_HAND.map(|bucket| position.units(bucket));
    let here = |movement: &&Movement| movement.node == position.node() && !movement.pool.is_supply();
    for movement in movements.iter().filter(here) {
        for (bucket, sign) in [(movement.from, -1), (movement.to, 1)] {
            if bucket.is_on_hand() {
                units[bucket.index()] += sign * i64::from(movement.quantity);
            }
        }
    }
    let max = limit::BUCKET_UNITS_MAX;
    let [free, others @ ..] = units;
    free.abs() <= max
        && others.iter().all(|units| (0..=max).contains(units))
        && units.iter().sum::<i64>() <= max
}

fn counted_at(extra: Option<&Extra>, node: NodeId) -> Option<Millis> {
    extra?.counted.iter().find(|(counted, _)| *counted == node).map(|(_, at)| *at)
}

fn was_counted_after(extra: Option<&Extra>, event: &StockEvent, now: Millis) -> bool {
    counted_at(extra, event.node).is_some_and(|at| event.happened_at(now) < at)
}

/// What was on hand at an earlier moment, as far as known today.
fn on_hand_at(position: &Position, extra: Option<&Extra>, at: Millis, now: Millis) -> Result<i64, Code> {
    if counted_at(extra, position.node()).is_some_and(|counted| counted > at) {
        return Err(Code::CountTooLate);
    }
    if position.latest() <= at {
        return Ok(position.on_hand());
    }
    let horizon = extra.map_or(Millis(0), |extra| extra.horizon);
    if now.since(at) > limit::COUNT_LATE_MS_MAX || at < horizon {
        return Err(Code::CountTooLate);
    }
    let mut units = position.on_hand();
    if position.last_at() > at {
        units -= i64::from(position.last_units);
    }
    for change in extra.iter().flat_map(|extra| &extra.recent) {
        if change.node == position.node() && change.occurred_at > at {
            units -= change.units;
        }
    }
    Ok(units)
}
