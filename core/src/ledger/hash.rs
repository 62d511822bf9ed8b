//! The state hash and the invariants that can be recomputed.
//!
//! The hash is a sum over hashes of single facts, so it is the same for any number of shards and any order
//! in memory. Memory that only shortens answers (ended reservations, recent changes) is not part of it.

use std::fmt;

use hashbrown::{HashMap, HashSet};
use xxhash_rust::xxh3::xxh3_128;

use crate::bucket::{Bucket, ON_HAND};
use crate::id::{ChannelId, NodeId, ReservationId, SkuId};
use crate::ledger::{Backordered, Ledger};
use crate::outcome::State;

/// Sum of 128-bit hashes of every position, allocation, supply, count and active claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StateHash(pub u128);

impl fmt::Display for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl std::ops::AddAssign for StateHash {
    fn add_assign(&mut self, other: StateHash) {
        self.0 = self.0.wrapping_add(other.0);
    }
}

/// A fact as bytes: its kind, then its fields, little-endian.
struct Fact(Vec<u8>);

impl Fact {
    fn of(&mut self, kind: u8, fields: &[u128]) -> StateHash {
        self.0.clear();
        self.0.push(kind);
        for field in fields {
            self.0.extend_from_slice(&field.to_le_bytes());
        }
        StateHash(xxh3_128(&self.0))
    }
}

impl Ledger {
    pub fn state_hash(&self) -> StateHash {
        let mut sum = StateHash::default();
        let mut fact = Fact(Vec::new());
        for (row, positions) in self.positions.rows() {
            let sku = u128::from(self.shard.sku(row).0);
            for position in positions.iter().filter(|position| !position.is_empty()) {
                let mut fields = [0u128; 11];
                fields[0] = sku;
                fields[1] = u128::from(position.node().0);
                // What is allocated is hashed channel by channel.
                for bucket in ON_HAND.into_iter().filter(|bucket| *bucket != Bucket::Allocated) {
                    fields[2 + bucket.index()] = position.units(bucket) as u128;
                }
                fields[10] = u128::from(position.picked_claimed);
                sum += fact.of(1, &fields);
            }
        }
        for (sku, extra) in &self.extras {
            let sku = u128::from(sku.0);
            for open in extra.supplies.iter().filter(|open| open.quantity > 0) {
                let fields = [
                    sku,
                    u128::from(open.node.0),
                    open.supply.0,
                    u128::from(open.quantity),
                    u128::from(open.eta.0),
                ];
                sum += fact.of(2, &fields);
            }
            for open in extra.supplies.iter().filter(|open| open.claimed > 0 || open.unannounced() > 0) {
                let fields = [
                    sku,
                    u128::from(open.node.0),
                    u128::from(open.pool.0),
                    u128::from(open.claimed) << 64 | u128::from(open.arrived),
                    u128::from(open.told.0),
                ];
                sum += fact.of(9, &fields);
            }
            for (age, (node, id)) in extra.waiting.iter().enumerate() {
                sum += fact.of(10, &[sku, age as u128, u128::from(node.0), id.0]);
            }
            for share in extra.shares.iter() {
                let (channel, node) = (u128::from(share.channel.0), u128::from(share.node.0));
                sum += fact.of(7, &[sku, channel, node, u128::from(share.units)]);
            }
            for (node, at) in &extra.counted {
                sum += fact.of(3, &[sku, u128::from(node.0), u128::from(at.0)]);
            }
        }
        for (id, part) in self.reservations.iter().filter(|(_, part)| part.state.is_active()) {
            for claim in &part.claims {
                let fields = [
                    id.0,
                    u128::from(part.channel.0),
                    part.state as u128,
                    u128::from(part.expires_at().0),
                    u128::from(claim.sku.0),
                    u128::from(claim.node.0),
                    u128::from(claim.quantity),
                    u128::from(claim.picked),
                    u128::from(claim.shipped),
                ];
                sum += fact.of(4, &fields);
                if claim.pool != ChannelId::SHARED {
                    let pool = u128::from(claim.pool.0);
                    sum += fact.of(8, &[id.0, fields[4], fields[5], pool, u128::from(claim.quantity)]);
                }
                if part.partly {
                    let fields = [id.0, fields[4], fields[5], u128::from(claim.held)];
                    sum += fact.of(5, &fields);
                }
            }
        }
        for (id, labels) in self.reservations.all_labels() {
            let part = self.reservations.part(id).filter(|part| part.state.is_active());
            // Several parts have the same: the one that reports the expiry speaks.
            if part.is_some_and(|part| self.shard().owns(part.anchor)) {
                for label in labels.iter() {
                    sum += fact.of(11, &[id.0, label.kind as u128, xxh3_128(label.text.as_bytes())]);
                }
            }
        }
        for (id, customer) in self.reservations.all_counted() {
            sum += fact.of(6, &[id.0, u128::from(customer)]);
        }
        sum
    }

    /// Checks claims against counters; adds what does not hold to `wrong` and answers the units inside.
    fn audit_claims(&self, wrong: &mut Vec<String>) -> i64 {
        let mut claimed: HashMap<(SkuId, NodeId, Bucket), i64> = HashMap::new();
        let mut waiting: HashMap<(SkuId, NodeId, ChannelId), i64> = HashMap::new();
        let mut backordered: HashMap<(SkuId, ChannelId), (i64, i64)> = HashMap::new();
        let mut of_groups: HashMap<(SkuId, ChannelId, NodeId), i64> = HashMap::new();
        let who_wait = self
            .extras
            .iter()
            .flat_map(|(sku, extra)| extra.waiting.iter().map(move |(node, id)| (*sku, *node, *id)));
        let listed: HashSet<(SkuId, NodeId, ReservationId)> = who_wait.collect();
        for (id, part) in self.reservations.iter().filter(|(_, part)| part.state.is_active()) {
            let held = part.claims.iter().any(|claim| claim.held > 0);
            if held && part.state != State::Held {
                wrong.push(format!("reservation {id} is {}, but has units held", part.state.name()));
            }
            for claim in &part.claims {
                if claim.pool.is_supply() {
                    *waiting.entry((claim.sku, claim.node, claim.pool)).or_default() +=
                        i64::from(claim.quantity);
                    if claim.picked + claim.shipped > 0 {
                        wrong.push(format!("reservation {id} has taken what is to come"));
                    }
                    if !listed.contains(&(claim.sku, claim.node, id)) {
                        wrong.push(format!("reservation {id} waits and is not among those who do"));
                    }
                    backordered.entry((claim.sku, part.channel)).or_default().0 += i64::from(claim.quantity);
                    continue;
                }
                if claim.node.is_group() {
                    *of_groups.entry((claim.sku, part.channel, claim.node)).or_default() +=
                        i64::from(claim.quantity);
                }
                for bucket in [Bucket::Held, Bucket::Confirmed, Bucket::Picked] {
                    *claimed.entry((claim.sku, claim.node, bucket)).or_default() +=
                        i64::from(claim.units(bucket));
                }
            }
        }
        for (sku, extra) in &self.extras {
            for open in extra.supplies.iter().filter(|open| open.claimed > 0) {
                let claims = waiting.remove(&(*sku, open.node, open.pool)).unwrap_or(0);
                if claims != i64::from(open.claimed) {
                    let (node, units) = (open.node, open.claimed);
                    wrong.push(format!("sku {sku} node {node}: {units} units promised, claims for {claims}"));
                }
            }
            for (_, id) in &extra.waiting {
                let part = self.reservations.part(*id);
                let count = part.and_then(|part| backordered.get_mut(&(*sku, part.channel)));
                if let Some(count) = count {
                    count.1 += 1;
                }
            }
            for Backordered { channel, units, waiters } in &extra.backordered {
                let claims = backordered.remove(&(*sku, *channel)).unwrap_or_default();
                if claims != (*units, *waiters) {
                    wrong.push(format!(
                        "sku {sku} channel {channel}: {waiters} wait for {units}, claims for {claims:?}"
                    ));
                }
            }
            for (channel, node, units) in &extra.of_groups {
                let claims = of_groups.remove(&(*sku, *channel, *node)).unwrap_or(0);
                if claims != *units {
                    wrong.push(format!(
                        "sku {sku} channel {channel} group at {node}: {units}, claims for {claims}"
                    ));
                }
            }
            for (node, id) in &extra.waiting {
                let part = self.reservations.part(*id).filter(|part| part.state.is_active());
                let claims = part.map_or(&[][..], |part| part.claims_at(*sku, *node));
                if !claims.iter().any(|claim| claim.pool.is_supply()) {
                    wrong.push(format!("sku {sku} node {node}: reservation {id} waits for nothing"));
                }
            }
        }
        for ((sku, node, _), claims) in waiting {
            wrong.push(format!("sku {sku} node {node}: claims for {claims} of no supply"));
        }
        for ((sku, channel, node), claims) in of_groups {
            wrong.push(format!(
                "sku {sku} channel {channel} group at {node}: claims for {claims} that are not counted"
            ));
        }
        for ((sku, channel), claims) in backordered {
            wrong.push(format!("sku {sku} channel {channel}: claims for {claims:?} that are not counted"));
        }
        let mut shares: HashMap<(SkuId, NodeId), i64> = HashMap::new();
        for (sku, extra) in &self.extras {
            for share in extra.shares.iter() {
                *shares.entry((*sku, share.node)).or_default() += i64::from(share.units);
            }
        }
        let mut total = 0;
        for (row, positions) in self.positions.rows() {
            let sku = self.shard.sku(row);
            for position in positions {
                total += position.on_hand();
                let shares = shares.remove(&(sku, position.node())).unwrap_or(0);
                if shares != position.allocated() {
                    let (node, units) = (position.node(), position.allocated());
                    wrong
                        .push(format!("sku {sku} node {node}: {units} units allocated, {shares} by channel"));
                }
                for bucket in [Bucket::Held, Bucket::Confirmed, Bucket::Picked] {
                    let claims = claimed.remove(&(sku, position.node(), bucket)).unwrap_or(0);
                    let units = match bucket {
                        Bucket::Picked => i64::from(position.picked_claimed),
                        _ => position.units(bucket),
                    };
                    if claims != units {
                        let (node, name) = (position.node(), bucket.name());
                        wrong.push(format!(
                            "sku {sku} node {node}: {units} units {name}, claims for {claims}"
                        ));
                    }
                }
                if i64::from(position.picked_claimed) > position.units(Bucket::Picked) {
                    wrong.push(format!("sku {sku} node {}: claims picked exceed picked", position.node()));
                }
            }
        }
        for ((sku, node, bucket), claims) in claimed.into_iter().filter(|(_, claims)| *claims != 0) {
            wrong.push(format!("sku {sku} node {node}: {claims} {} without a position", bucket.name()));
        }
        let supplies = self.extras.values().flat_map(|extra| &extra.supplies);
        total + supplies.map(|open| i64::from(open.quantity)).sum::<i64>()
    }
}

/// Compares what a ledger's reservations claim with what its positions hold, and cached counters with what they
/// count.
pub fn audit_claims(ledger: &Ledger) -> Vec<String> {
    let mut wrong = Vec::new();
    ledger.audit_claims(&mut wrong);
    wrong
}

/// Recomputes what the ledgers of all shards keep as counters: claims by position and bucket, and the
/// conservation of units. The answer lists what does not hold; empty is good.
pub fn audit<'a>(ledgers: impl IntoIterator<Item = &'a Ledger>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut inside = 0;
    let mut outside = [0; 4];
    for ledger in ledgers {
        inside += ledger.audit_claims(&mut wrong);
        for (sum, account) in outside.iter_mut().zip(ledger.outside) {
            *sum += account;
        }
    }
    if inside + outside.iter().sum::<i64>() != 0 {
        wrong.push(format!("units are not conserved: {inside} inside, {outside:?} outside"));
    }
    if outside[Bucket::Transit as usize - Bucket::Supplier as usize] != 0 {
        wrong.push("units are lost between nodes".into());
    }
    wrong
}
