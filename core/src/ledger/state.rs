//! The state as rows: what the snapshot stores, one row per sku and one per reservation.

use crate::bucket::{Bucket, ON_HAND};
use crate::id::{ChannelId, Millis, NodeId, ReservationId, SkuId, SupplyId};
use crate::label::Labels;
use crate::ledger::{Change, Claim, Ledger, Position, Reservation, Share};
use crate::outcome::State;

/// Stock on its way to a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SupplyState {
    pub node: NodeId,
    pub supply: SupplyId,
    /// The pool of the claims on it, its own among the sku's supplies.
    pub pool: ChannelId,
    pub quantity: u32,
    /// Of these, claimed; more than there are where it shrank.
    pub claimed: u32,
    /// Units that came for those who claim, and that nobody was given yet.
    pub arrived: u32,
    pub eta: Millis,
    /// The date that those who claim were told.
    pub told: Millis,
}

/// A position's part of a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PositionState {
    pub node: NodeId,
    /// By bucket number; what is allocated, [`SkuState::shares`] tells.
    pub units: [i64; 8],
    pub picked_claimed: u32,
    pub latest: Millis,
    pub last_at: Millis,
    pub last_units: i32,
}

/// Everything known of a sku.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SkuState {
    pub positions: Vec<PositionState>,
    pub supplies: Vec<SupplyState>,
    /// Channel allocations.
    pub shares: Vec<Share>,
    /// Reservations that claim what is to come, the oldest first.
    pub waiting: Vec<(NodeId, ReservationId)>,
    pub counted: Vec<(NodeId, Millis)>,
    /// Node, when, units.
    pub recent: Vec<(NodeId, Millis, i64)>,
    pub horizon: Millis,
}

impl Ledger {
    /// The row of a sku.
    pub fn sku_state(&self, sku: SkuId) -> SkuState {
        let mut state = SkuState::default();
        for at in self.positions.range(self.shard.row(sku)) {
            let position = self.positions.at(at);
            state.positions.push(PositionState {
                node: position.node(),
                units: std::array::from_fn(|index| position.units(ON_HAND[index])),
                picked_claimed: position.picked_claimed,
                latest: position.latest(),
                last_at: position.last_at(),
                last_units: position.last_units,
            });
        }
        if let Some(extra) = self.extras.get(&sku) {
            state.supplies.clone_from(&extra.supplies);
            state.shares = extra.shares.iter().collect();
            state.waiting.clone_from(&extra.waiting);
            state.counted.clone_from(&extra.counted);
            state.recent =
                extra.recent.iter().map(|change| (change.node, change.occurred_at, change.units)).collect();
            state.horizon = extra.horizon;
        }
        state
    }

    /// Takes over a row; rows of foreign skus are passed over.
    pub fn load_sku(&mut self, sku: SkuId, state: &SkuState) {
        if !self.shard.owns(sku) {
            return;
        }
        let row = self.shard.row(sku);
        for loaded in &state.positions {
            let position: &mut Position = self.positions.get_or_insert(row, loaded.node);
            for (bucket, units) in ON_HAND.into_iter().zip(loaded.units) {
                position.add(bucket, units - position.units(bucket));
            }
            position.picked_claimed = loaded.picked_claimed;
            position.set_moments(loaded.latest, loaded.last_at);
            position.last_units = loaded.last_units;
        }
        for share in &state.shares {
            let units = i64::from(share.units);
            self.positions.get_or_insert(row, share.node).add(Bucket::Allocated, units);
            self.extras.entry(sku).or_default().shares.add(share.channel, share.node, units);
        }
        for open in state.supplies.iter().filter(|open| open.claimed > 0) {
            self.positions.get_or_insert(row, open.node).set_waits(true);
        }
        if !state.supplies.is_empty() || !state.counted.is_empty() || !state.recent.is_empty() {
            let extra = self.extras.entry(sku).or_default();
            extra.supplies.clone_from(&state.supplies);
            extra.supplies.sort_unstable_by_key(|open| (open.node, open.pool));
            extra.waiting.clone_from(&state.waiting);
            extra.counted.clone_from(&state.counted);
            extra.recent = state
                .recent
                .iter()
                .map(|(node, occurred_at, units)| Change {
                    node: *node,
                    occurred_at: *occurred_at,
                    units: *units,
                })
                .collect();
            extra.horizon = state.horizon;
        }
    }

    /// Takes over a reservation: this shard's claims of it, or nothing unless its expiry is reported here.
    /// `customer` is that of a hold that counts.
    pub fn load_reservation(
        &mut self,
        id: ReservationId,
        reservation: &Reservation,
        customer: Option<u64>,
        labels: &Labels,
    ) {
        let shard = self.shard;
        let mut part = reservation.clone();
        part.claims.retain(|claim: &mut Claim| shard.owns(claim.sku));
        let counts_here = customer.is_some() && shard.counts(part.channel);
        if (counts_here || !part.claims.is_empty() || shard.owns(part.anchor)) && part.state != State::None {
            let channel = part.channel;
            if part.state.is_active() {
                let mut last = None;
                for claim in part.claims.iter().filter(|claim| claim.pool.is_supply()) {
                    // Its claims at a node wait once, and stand side by side.
                    let is_new = last.replace((claim.sku, claim.node)) != Some((claim.sku, claim.node));
                    self.count_backorder(claim.sku, channel, i64::from(claim.quantity), i64::from(is_new));
                }
                for claim in part.claims.iter().filter(|claim| claim.node.is_group()) {
                    self.count_of_group(channel, claim.sku, claim.node, i64::from(claim.quantity));
                }
            }
            self.reservations.insert(id, part, labels);
            if let Some(customer) = customer.filter(|_| counts_here) {
                self.reservations.count(id, channel, customer);
            }
        }
    }

    /// The outside accounts: supplier, customer, loss, transit.
    pub fn outside(&self) -> [i64; 4] {
        self.outside
    }

    /// Adds to the outside accounts; one ledger of a recovered set takes them over.
    pub fn load_outside(&mut self, outside: [i64; 4]) {
        for (account, loaded) in self.outside.iter_mut().zip(outside) {
            *account += loaded;
        }
    }

    /// Units of a position in a bucket, inbound included, for checks from outside.
    pub fn units(&self, sku: SkuId, node: NodeId, bucket: Bucket) -> i64 {
        let answer = self.position_answer(sku, node).units;
        match bucket {
            Bucket::Allocated => answer[9],
            other => answer.get(other as usize).copied().filter(|_| (other as usize) < 9).unwrap_or(0),
        }
    }
}
