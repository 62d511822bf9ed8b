//! Channel allocations: units of a position kept for one channel, before any order.
//!
//! | action | movements | refused when |
//! |---|---|---|
//! | allocate | free to allocated | too little free |
//! | deallocate | allocated to free | the channel's allocation has less there |
//! | reallocate | allocated to free, free to allocated of the other channel | the same |
//!
//! All are refused where a sku would have more allocations than it may.
//!
//! A reservation consumes allocations: its channel's own first, then those of the channels above it, then what all
//! share; what it gives back goes where it came from. Units that are not there (a count found fewer) cannot be
//! claimed: a deficit of what is free takes from all allocations of the position, until stock comes.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::bucket::{Bucket, Movement};
use crate::catalogue::{Amount, Profile, Rules, When};
use crate::command::{Action, Allocate};
use crate::drill::{Bug, planted};
use crate::event::{EventKind, StockEvent};
use crate::id::{ChannelId, Millis, NodeId, SkuId};
use crate::ledger::{Effects, Ledger, Outcome, Position};
use crate::limit;
use crate::outcome::Code;

/// A channel's allocation at one position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    pub channel: ChannelId,
    pub node: NodeId,
    pub units: u32,
}

/// Where the look at all skus is that is taken when allocations keep themselves at times.
#[derive(Default, Debug)]
pub(super) struct Sweep {
    /// The rules, where any of them does so.
    pub(super) rules: Option<Arc<Rules>>,
    /// The minute met last.
    pub(super) minute: u64,
    /// The next row to be looked at; none when all were.
    pub(super) next: Option<usize>,
}

/// The allocations of a sku, sorted by channel and node. One that was used up keeps its place.
#[derive(Default, Debug, Clone, PartialEq)]
pub(super) struct Shares(Vec<Share>);

impl Shares {
    fn find(&self, channel: ChannelId, node: NodeId) -> Result<usize, usize> {
        self.0.binary_search_by_key(&(channel, node), |share| (share.channel, share.node))
    }

    pub(super) fn units(&self, channel: ChannelId, node: NodeId) -> i64 {
        self.find(channel, node).map_or(0, |at| i64::from(self.0[at].units))
    }

    /// Whether one more would be too many. What was used up keeps its place, but does not count.
    fn are_full(&self, channel: ChannelId, node: NodeId) -> bool {
        self.0.len() >= limit::ALLOCATIONS_PER_SKU_MAX
            && self.units(channel, node) == 0
            && self.iter().count() >= limit::ALLOCATIONS_PER_SKU_MAX
    }

    /// Allocations that have units.
    pub(super) fn iter(&self) -> impl Iterator<Item = Share> {
        self.0.iter().copied().filter(|share| share.units > 0)
    }

    /// # Panics
    /// If it would leave 0..=4e9: decisions check first.
    pub(super) fn add(&mut self, channel: ChannelId, node: NodeId, units: i64) {
        if self.find(channel, node).is_err() {
            if self.0.len() >= limit::ALLOCATIONS_PER_SKU_MAX {
                self.0.retain(|share| share.units > 0);
            }
            let at = self.0.partition_point(|share| (share.channel, share.node) < (channel, node));
            self.0.insert(at, Share { channel, node, units: 0 });
        }
        let at = self.find(channel, node).expect("it is there now");
        let sum = i64::from(self.0[at].units) + units;
        self.0[at].units = u32::try_from(sum).expect("an allocation has what is taken from it");
    }
}

/// How many more allocations a sku may have.
struct Room {
    sku: SkuId,
    left: usize,
}

impl Room {
    /// Whether a channel may have an allocation at a node: it has one, or there is room for one more.
    fn take(&mut self, ledger: &Ledger, channel: ChannelId, node: NodeId) -> bool {
        if ledger.share(self.sku, channel, node) > 0 {
            return true;
        }
        let room = self.left > 0;
        self.left -= usize::from(room);
        room
    }
}

/// Units by pool, in the order in which a channel draws them.
pub(super) type Drawable = SmallVec<[(ChannelId, i64); 4]>;

/// What a channel can draw at a position: of its pools each in turn, then of what is free and not withheld.
pub(super) fn drawable(
    pools: &[ChannelId],
    (free, withheld): (i64, i64),
    allocated: i64,
    share: impl Fn(ChannelId) -> i64,
) -> Drawable {
    let mut there = if planted(Bug::IgnoreDeficit) { i64::MAX } else { (free + allocated).max(0) };
    let units =
        pools.iter().map(|pool| (*pool, share(*pool))).chain([(ChannelId::SHARED, (free - withheld).max(0))]);
    units
        .map(|(pool, units)| {
            let units = units.min(there);
            there -= units;
            (pool, units)
        })
        .collect()
}

impl Ledger {
    /// Units of a channel's allocation at a position.
    pub fn share(&self, sku: SkuId, channel: ChannelId, node: NodeId) -> i64 {
        self.extras.get(&sku).map_or(0, |extra| extra.shares.units(channel, node))
    }

    fn room_for_shares(&self, sku: SkuId) -> Room {
        let used = self.extras.get(&sku).map_or(0, |extra| extra.shares.iter().count());
        Room { sku, left: limit::ALLOCATIONS_PER_SKU_MAX.saturating_sub(used) }
    }

    /// Of what an event brought, from movement `first` on, channels get what rules by sku say.
    pub(super) fn allocate_receipt(
        &self,
        rules: &Rules,
        event: &StockEvent,
        first: usize,
        movements: &mut Vec<Movement>,
    ) {
        if !matches!(event.kind, EventKind::Receipt | EventKind::TransferReceived) {
            return;
        }
        let Some(profile) = rules.skus.profile(event.sku) else { return };
        if !profile.allocates_receipts() {
            return;
        }
        let (sku, node) = (event.sku, event.node);
        let change: i64 = movements[first..]
            .iter()
            .filter(|movement| movement.node == node)
            .map(|movement| {
                let quantity = i64::from(movement.quantity);
                let into = if movement.to == Bucket::Free { quantity } else { 0 };
                into - if movement.from == Bucket::Free { quantity } else { 0 }
            })
            .sum();
        // What fills a shortage, or what somebody waits for, is not there to be shared out.
        let position = self.position(sku, node);
        let mut free = position.map_or(0, |position| position.free) + change;
        if position.is_some_and(Position::waits) {
            let came = |into: fn(Bucket) -> bool| -> i64 {
                let inbound = movements[first..].iter().filter(|movement| movement.from == Bucket::Inbound);
                inbound
                    .filter(|movement| into(movement.to))
                    .map(|movement| i64::from(movement.quantity))
                    .sum()
            };
            let (all, there) = (came(|_| true), came(|to| to == Bucket::Free));
            let supply = self.meant_supply(event, node).ok().flatten();
            let came = supply.map(|supply| (supply, all, there));
            free -= self.due_behind(rules, (sku, node), came, (change, free));
        }
        // Nor what claims on groups need.
        let before = position.map_or(0, |position| self.free(sku, position));
        let mut open = change.min(self.uncovered(rules, (sku, node, free - before), |_| 0, |_| 0));
        open = open.max(0);
        let mut room = self.room_for_shares(sku);
        for (channel, amount) in rules.skus.keeps(profile, node, |when| when == When::Receipt) {
            let wanted = match amount {
                _ if !rules.offers(channel, node) || !room.take(self, channel, node) => 0,
                Amount::Units(units) => (i64::from(units) - self.share(sku, channel, node)).max(0),
                Amount::Percent(percent) => change.max(0) * i64::from(percent) / 100,
            };
            let quantity = wanted.min(open).min(i64::from(limit::QUANTITY_MAX));
            open -= quantity;
            if quantity > 0 {
                let (pool, quantity) = (channel, quantity as u32);
                let (from, to) = (Bucket::Free, Bucket::Allocated);
                movements.push(Movement { sku, node, pool, from, to, quantity });
            }
        }
    }

    /// Promises anew who waits for a sku, then brings about allocations that keep themselves: what is too much is
    /// given back, what is missing is taken from what is free. Other claims are not touched.
    pub(super) fn decide_balance(
        &self,
        now: Millis,
        rules: &Rules,
        sku: SkuId,
        effects: &mut Effects,
    ) -> Outcome {
        let before = effects.mark();
        self.promise_again(now, rules, sku, effects);
        if effects.promises.len() > before.promises {
            // Allocations go by what is owed behind that; settling it has the sku looked at again.
            return Outcome::of(Code::Ok);
        }
        if let Some(profile) = rules.skus.profile(sku).filter(|profile| profile.balances(now)) {
            self.balance_allocations(now, rules, profile, sku, effects);
        }
        let changed = effects.movements.len() > before.movements || self.has_unannounced(sku);
        Outcome::of(if changed { Code::Ok } else { Code::NotDue })
    }

    fn balance_allocations(
        &self,
        now: Millis,
        rules: &Rules,
        profile: &Profile,
        sku: SkuId,
        effects: &mut Effects,
    ) {
        let mut room = self.room_for_shares(sku);
        // What nodes keep, as far as they were looked at, is no longer free there.
        let mut kept_more: SmallVec<[(NodeId, i64); 8]> = SmallVec::new();
        for at in self.positions.range(self.shard.row(sku)) {
            let position = self.positions.at(at);
            let node = position.node();
            if node.is_group() {
                break;
            }
            let keeps = rules.skus.keeps(profile, node, |when| when.is_due(now));
            let has = |channel| self.share(sku, channel, node);
            let kept: i64 = keeps.iter().map(|(channel, _)| has(*channel)).sum();
            let unclaimed = (self.free(sku, position) + kept).max(0);
            let change = |other| {
                let known = kept_more.binary_search_by_key(&other, |(known, _)| *known);
                known.map_or(0, |at| -kept_more[at].1)
            };
            let mut open = self.uncovered(rules, (sku, node, kept), |_| 0, change).min(unclaimed);
            let mut changes: SmallVec<[(ChannelId, i64); 4]> = SmallVec::new();
            for (channel, amount) in keeps {
                // What a channel is not offered would be nobody's.
                let wanted = match amount {
                    _ if !rules.offers(channel, node) || !room.take(self, channel, node) => 0,
                    Amount::Units(units) => i64::from(units),
                    Amount::Percent(percent) => unclaimed * i64::from(percent) / 100,
                };
                let wanted = wanted.min(open);
                open -= wanted;
                changes.push((channel, wanted - has(channel)));
            }
            kept_more.push((node, changes.iter().map(|(_, change)| change).sum()));
            changes.sort_by_key(|(_, change)| *change);
            for (pool, change) in changes.into_iter().filter(|(_, change)| *change != 0) {
                let keep = (Bucket::Free, Bucket::Allocated);
                let (from, to) = if change > 0 { keep } else { (keep.1, keep.0) };
                // Whole, so that what is given back pays for what is taken; a bucket's units fit.
                let quantity = change.unsigned_abs() as u32;
                effects.movements.push(Movement { sku, node, pool, from, to, quantity });
            }
        }
    }

    /// Notes which of the skus that changed, or of all, are to be balanced.
    pub fn note_unbalanced(&mut self, now: Millis, rules: &Arc<Rules>, all: bool) {
        if rules.skus.has_schedule() || self.sweep.rules.is_some() {
            self.sweep.rules = rules.skus.has_schedule().then(|| Arc::clone(rules));
        }
        let balances = rules.skus.balances(now);
        if !balances && self.waiting == 0 {
            return;
        }
        let mut skus: Vec<SkuId> = if all {
            self.positions.rows().map(|(row, _)| self.shard.sku(row)).collect()
        } else {
            self.dirty.iter().map(|(sku, _)| *sku).collect()
        };
        skus.sort_unstable();
        skus.dedup();
        if !balances {
            skus.retain(|sku| self.extras.get(sku).is_some_and(|extra| !extra.waiting.is_empty()));
        }
        let mut effects = Effects::default();
        skus.into_iter().for_each(|sku| self.note_if_unbalanced(now, rules, sku, &mut effects));
    }

    fn note_if_unbalanced(&mut self, now: Millis, rules: &Rules, sku: SkuId, effects: &mut Effects) {
        if !self.unbalanced.contains(&sku) && self.decide_balance(now, rules, sku, effects).code == Code::Ok {
            self.unbalanced.insert(sku);
            self.to_balance.push(sku);
        }
        effects.clear();
    }

    /// Looks at some of the skus, if a minute has begun in which allocations keep themselves that do so at times.
    #[cold]
    pub(super) fn sweep(&mut self, now: Millis, rules: &Rules) {
        let minute = now.0 / limit::MINUTE_MS;
        if self.sweep.minute != minute {
            (self.sweep.minute, self.sweep.next) = (minute, rules.skus.is_scheduled(now).then_some(0));
        }
        let Some(first) = self.sweep.next else { return };
        let rows = self.positions.row_count();
        let end = rows.min(first + limit::SWEEP_SKUS_PER_TURN);
        let mut effects = Effects::default();
        for row in first..end {
            let sku = self.shard.sku(row);
            if rules.skus.profile(sku).is_some_and(|profile| profile.balances(now)) {
                self.note_if_unbalanced(now, rules, sku, &mut effects);
            }
        }
        self.sweep.next = (end < rows).then_some(end);
    }

    pub(super) fn decide_allocate(
        &self,
        rules: &Rules,
        allocate: &Allocate,
        effects: &mut Effects,
    ) -> Outcome {
        let Allocate { action, channel, to_channel, sku, node, quantity } = *allocate;
        let units = |pool| match pool {
            ChannelId::SHARED => self.uncovered(rules, (sku, node, 0), |_| 0, |_| 0),
            channel => self.share(sku, channel, node),
        };
        let there = |pool| units(pool) >= i64::from(quantity);
        let shares = self.extras.get(&sku).map(|extra| &extra.shares);
        let full = |channel| shares.is_some_and(|shares| shares.are_full(channel, node));
        let code = match action {
            Action::Allocate if !there(ChannelId::SHARED) => Code::InsufficientStock,
            Action::Deallocate | Action::Reallocate if !there(channel) => Code::InsufficientAllocation,
            Action::Allocate if full(channel) => Code::TooManyAllocations,
            Action::Reallocate if full(to_channel) => Code::TooManyAllocations,
            _ => Code::Ok,
        };
        if code != Code::Ok {
            return Outcome::of(code);
        }
        let (keep, give) = ((Bucket::Free, Bucket::Allocated), (Bucket::Allocated, Bucket::Free));
        let steps: SmallVec<[_; 2]> = match action {
            Action::Allocate => [(channel, keep)].into_iter().collect(),
            Action::Deallocate => [(channel, give)].into_iter().collect(),
            Action::Reallocate => [(channel, give), (to_channel, keep)].into_iter().collect(),
        };
        for (pool, (from, to)) in steps {
            effects.movements.push(Movement { sku, node, pool, from, to, quantity });
        }
        Outcome::of(Code::Ok)
    }
}
