//! Settling: making a decided command so. The only code that changes the state.
//!
//! It takes what the journal records (outcome and movements) and trusts it; recovery and the checkpoint
//! call it with entries of all shards, so movements of foreign skus are passed over.

use crate::bucket::{Bucket, Movement};
use crate::command::{Body, Line};
use crate::drill::{Bug, planted};
use crate::event::{EventKind, StockEvent};
use crate::id::{ChannelId, Lsn, Millis, NodeId, ReservationId, SkuId, SupplyId};
use crate::ledger::{Change, Claim, Ledger, Moment, Outcome, Position, Promise, Reservation, SupplyState};
use crate::limit;
use crate::outcome::{Code, State};

impl Ledger {
    /// Applies an outcome with code [`Code::Ok`]; any other changes nothing.
    pub fn settle(
        &mut self,
        moment: Moment,
        body: &Body,
        lines: &[Line],
        outcome: Outcome,
        movements: &[Movement],
        promises: &[Promise],
    ) {
        self.reservations.forget(moment.lsn);
        if let Body::Balance(sku) = body {
            self.unbalanced.remove(sku);
            self.forget_unannounced(*sku);
        }
        if outcome.code != Code::Ok {
            return;
        }
        match body {
            Body::Reserve(reserve) => {
                self.shift_all(movements);
                let shard = self.shard;
                let claims =
                    movements.iter().filter(|movement| shard.owns(movement.sku)).map(|movement| Claim {
                        sku: movement.sku,
                        node: movement.node,
                        pool: movement.pool,
                        quantity: movement.quantity,
                        held: movement.quantity,
                        picked: 0,
                        shipped: 0,
                    });
                let reservation = Reservation::new(
                    reserve.channel,
                    State::Held,
                    reserve.lines(lines)[0].sku,
                    (outcome.expires_at, Lsn::NONE),
                    claims.collect(),
                );
                let counts_here = outcome.counted && shard.counts(reserve.channel);
                if counts_here || !reservation.claims.is_empty() || shard.owns(reservation.anchor) {
                    self.reservations.insert(reserve.id, reservation, &reserve.labels);
                }
                if counts_here {
                    self.reservations.count(reserve.id, reserve.channel, reserve.customer);
                }
                self.count_of_groups(reserve.channel, movements);
                if !promises.is_empty() {
                    self.settle_waiting(reserve.id, reserve.channel, movements);
                }
            }
            Body::Transition(transition) => {
                self.settle_step(moment, transition.reservation, outcome, movements);
            }
            Body::Expire(id) => self.settle_step(moment, *id, outcome, movements),
            Body::Event(event) if self.shard.owns(event.sku) => self.settle_event(moment, event, movements),
            Body::Allocate(_) => self.shift_all(movements),
            Body::Balance(_) => self.settle_balance(moment.now, movements, promises),
            Body::Event(_) | Body::Define(_) | Body::Read(_) => {}
        }
    }

    /// A step of a reservation: its units move, its claims follow, and it has its new state.
    #[inline(never)]
    fn settle_step(&mut self, moment: Moment, id: ReservationId, outcome: Outcome, movements: &[Movement]) {
        let shard = self.shard;
        let own = || movements.iter().filter(|movement| shard.owns(movement.sku));
        for movement in own() {
            let position = self.shift(movement);
            if movement.from == Bucket::Picked {
                position.picked_claimed -= movement.quantity;
            }
            let units = movement.on_hand_change();
            if units != 0 {
                let change = Change { node: movement.node, occurred_at: moment.now, units };
                self.remember(moment.now, movement.sku, change);
            }
        }
        self.note_given(moment.now, movements);
        let Some(part) = self.reservations.part_mut(id) else { return };
        part.book(outcome, own().copied());
        let (partly, channel) = (outcome.partly, part.channel);
        self.reservations.step(id, outcome.state, outcome.expires_at, moment, partly);
        self.count_of_groups(channel, movements);
        if own().any(|movement| movement.pool.is_supply()) {
            self.settle_waiting(id, channel, movements);
        }
    }

    #[inline(never)]
    fn settle_balance(&mut self, now: Millis, movements: &[Movement], promises: &[Promise]) {
        self.shift_all(movements);
        self.note_given(now, movements);
        self.settle_promises(promises);
        if let Some(promise) = promises.first() {
            self.touch(promise.sku, promise.node);
        }
    }

    /// Notes what nodes are given to pick.
    fn note_given(&mut self, now: Millis, movements: &[Movement]) {
        for movement in movements.iter().filter(|movement| movement.to == Bucket::Confirmed) {
            let is_there = !movement.node.is_group() && !movement.pool.is_supply();
            if is_there && self.shard.owns(movement.sku) {
                self.pace.give(now, movement.node, movement.quantity);
            }
        }
    }

    fn shift_all(&mut self, movements: &[Movement]) {
        for movement in movements {
            if self.shard.owns(movement.sku) {
                self.shift(movement);
            }
        }
    }

    /// Moves units between the buckets of a position and the outside accounts. Inbound is the event's.
    fn shift(&mut self, movement: &Movement) -> &mut Position {
        if movement.pool.is_supply() {
            return self.shift_supply(movement);
        }
        let units = i64::from(movement.quantity);
        for (bucket, change) in [(movement.from, -units), (movement.to, units)] {
            if bucket.is_outside() && !(planted(Bug::LoseOutside) && bucket == Bucket::Customer) {
                self.outside[bucket as usize - Bucket::Supplier as usize] += change;
            }
        }
        if movement.pool != ChannelId::SHARED {
            self.shift_share(movement);
        }
        let position = self.touch(movement.sku, movement.node);
        for (bucket, change) in [(movement.from, -units), (movement.to, units)] {
            if bucket.is_on_hand() {
                position.add(bucket, change);
            }
        }
        position
    }

    /// A position, made if it is not there, of which readers are told anew.
    #[inline]
    pub(super) fn touch(&mut self, sku: SkuId, node: NodeId) -> &mut Position {
        if node.is_group() {
            self.touch_waiting(sku);
        }
        let position = self.positions.get_or_insert(self.shard.row(sku), node);
        if !position.set_dirty(true) {
            self.dirty.push((sku, node));
        }
        position
    }

    /// What is owed to those who wait goes by what is claimed of groups: readers are told anew of nodes where they do.
    #[cold]
    fn touch_waiting(&mut self, sku: SkuId) {
        for at in self.positions.range(self.shard.row(sku)) {
            let position = self.positions.at_mut(at);
            if position.waits() && !position.set_dirty(true) {
                self.dirty.push((sku, position.node()));
            }
        }
    }

    /// Moves units into or out of a channel's allocation.
    #[cold]
    fn shift_share(&mut self, movement: &Movement) {
        let units = i64::from(movement.quantity);
        for (bucket, change) in [(movement.from, -units), (movement.to, units)] {
            if bucket == Bucket::Allocated {
                let shares = &mut self.extras.entry(movement.sku).or_default().shares;
                shares.add(movement.pool, movement.node, change);
                self.dirty_rows.push(movement.place());
            }
        }
    }

    #[inline(never)]
    fn settle_event(&mut self, moment: Moment, event: &StockEvent, movements: &[Movement]) {
        let supply = self.meant_supply(event, event.node).ok().flatten();
        let (mut change, mut freed) = (0, 0);
        let issued = event.reservation.filter(|_| matches!(event.kind, EventKind::Pick | EventKind::Ship));
        for movement in movements {
            let position = self.shift(movement);
            if issued.is_some() {
                position.picked_claimed += if movement.to == Bucket::Picked { movement.quantity } else { 0 };
                position.picked_claimed -=
                    if movement.from == Bucket::Picked { movement.quantity } else { 0 };
            }
            if movement.node == event.node {
                change += movement.on_hand_change();
                freed += movement.change_of(Bucket::Free);
            }
            freed -= self.settle_inbound(event, supply, movement);
        }
        if let Some(id) = issued {
            self.settle_issue(id, movements);
        }
        let waits = self.position(event.sku, event.node).is_some_and(Position::waits);
        if freed > 0 && waits && !planted(Bug::PassWaiting) {
            self.note_unannounced(event.sku, event.node, freed);
        }
        if event.kind == EventKind::Supply && event.quantity > 0 {
            self.set_eta(event);
        }
        if event.kind == EventKind::Count {
            let at = event.happened_at(moment.now);
            let counted = &mut self.extras.entry(event.sku).or_default().counted;
            match counted.iter_mut().find(|(node, _)| *node == event.node) {
                Some(entry) => entry.1 = at,
                None => counted.push((event.node, at)),
            }
        } else if change != 0 {
            let change =
                Change { node: event.node, occurred_at: event.happened_at(moment.now), units: change };
            self.remember(moment.now, event.sku, change);
        }
    }

    /// What was picked or shipped for a reservation, its claims follow. What a count had already seen also moves
    /// between free and loss, which is no business of theirs.
    fn settle_issue(&mut self, id: ReservationId, movements: &[Movement]) {
        let Some(part) = self.reservations.part_mut(id) else { return };
        let of_claims = movements.iter().filter(|movement| !movement.touches(Bucket::Loss));
        part.book_issue(of_claims.copied());
        let channel = part.channel;
        if movements.iter().any(|movement| movement.pool.is_supply()) {
            self.note_taken(movements);
            self.settle_waiting(id, channel, movements);
        }
    }

    /// What an event brings or takes of a supply: answers the units that came for those who claim it.
    fn settle_inbound(&mut self, event: &StockEvent, supply: Option<SupplyId>, movement: &Movement) -> i64 {
        let change = match (movement.from, movement.to) {
            (Bucket::Inbound, _) => -i64::from(movement.quantity),
            (_, Bucket::Inbound) => i64::from(movement.quantity),
            _ => return 0,
        };
        let Some(supply) = supply else { return 0 };
        let supplies = &mut self.extras.entry(event.sku).or_default().supplies;
        let found = supplies.iter().position(|open| open.is(supply, movement.node));
        let at = found.unwrap_or_else(|| {
            let used = |pool| supplies.iter().any(|open| open.pool == pool);
            let mut pools = (ChannelId::SUPPLIES.0..ChannelId::NO_SUPPLY.0).map(ChannelId);
            let pool = pools.find(|pool| !used(*pool)).expect("there are more pools than supplies");
            let (node, eta) = (movement.node, event.eta);
            let new = SupplyState { node, supply, pool, quantity: 0, claimed: 0, arrived: 0, eta, told: eta };
            let at = SupplyState::find(supplies, node, pool).expect_err("its pool is a new one");
            supplies.insert(at, new);
            at
        });
        let units = i64::from(supplies[at].quantity) + change;
        assert!((0..=limit::BUCKET_UNITS_MAX).contains(&units), "{units} units inbound after {event:?}");
        supplies[at].quantity = units as u32;
        let arrived = if movement.to == Bucket::Free { supplies[at].arrive(-change) } else { 0 };
        self.dirty_rows.extend(supplies[at].items().map(|item| item.place(event.sku)));
        if supplies[at].is_over() {
            supplies.remove(at);
        }
        arrived
    }

    fn set_eta(&mut self, event: &StockEvent) {
        let (Some(extra), Some(supply)) = (self.extras.get_mut(&event.sku), event.supply) else { return };
        let Some(open) = extra.supplies.iter_mut().find(|open| open.is(supply, event.node)) else { return };
        open.eta = event.eta;
        let open = *open;
        self.dirty_rows.extend(open.items().map(|item| item.place(event.sku)));
        // Those who wait for it are told.
        if self.position(event.sku, event.node).is_some_and(Position::waits) {
            self.touch(event.sku, event.node);
        }
    }

    /// Keeps a physical change for counts that come late.
    fn remember(&mut self, now: Millis, sku: SkuId, change: Change) {
        let row = self.shard.row(sku);
        let position = self.positions.get_mut(row, change.node).expect("units were moved here");
        let old = Change { occurred_at: position.last_at(), units: i64::from(position.last_units), ..change };
        position.set_moments(position.latest().max(change.occurred_at), change.occurred_at);
        // What the position has no room for is remembered with the earlier ones at once.
        let fits = i32::try_from(change.units);
        position.last_units = fits.unwrap_or(0);
        for change in [Some(old), fits.is_err().then_some(change)].into_iter().flatten() {
            if change.units == 0 || now.since(change.occurred_at) > limit::COUNT_LATE_MS_MAX {
                continue;
            }
            let extra = self.extras.entry(sku).or_default();
            extra.recent.retain(|change| now.since(change.occurred_at) <= limit::COUNT_LATE_MS_MAX);
            if extra.recent.len() >= limit::RECENT_MOVEMENTS_PER_SKU {
                let forgotten = extra.recent.remove(0);
                extra.horizon = extra.horizon.max(forgotten.occurred_at);
            }
            extra.recent.push(change);
        }
    }
}
