//! Buckets and movements: the double entry that conserves units.

use crate::id::{ChannelId, NodeId, SkuId};

/// Where units stand. Numbers are stable: they are on the wire and in the journal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Bucket {
    /// On the shelf, promised to nobody. Negative after a count below the claims: a shortage.
    Free = 0,
    /// Promised to a reservation that can still expire.
    Held = 1,
    /// Promised to a placed order.
    Confirmed = 2,
    /// Taken off the shelf for an order, still in the building.
    Picked = 3,
    Safety = 4,
    Damaged = 5,
    Quality = 6,
    Blocked = 7,
    /// On its way to the node as part of a supply; not on hand.
    Inbound = 8,
    /// The outside world, three accounts of it.
    Supplier = 9,
    Customer = 10,
    Loss = 11,
    /// The instant between leaving one node and being inbound to another; always zero between commands.
    Transit = 12,
    /// On the shelf, kept for one channel: its allocation. Promised to nobody yet.
    Allocated = 13,
}

/// Buckets whose units are physically at the node.
pub const ON_HAND: [Bucket; 9] = [
    Bucket::Free,
    Bucket::Held,
    Bucket::Confirmed,
    Bucket::Picked,
    Bucket::Safety,
    Bucket::Damaged,
    Bucket::Quality,
    Bucket::Blocked,
    Bucket::Allocated,
];

/// Every bucket, in the order of its number.
pub const ALL: [Bucket; 14] = [
    Bucket::Free,
    Bucket::Held,
    Bucket::Confirmed,
    Bucket::Picked,
    Bucket::Safety,
    Bucket::Damaged,
    Bucket::Quality,
    Bucket::Blocked,
    Bucket::Inbound,
    Bucket::Supplier,
    Bucket::Customer,
    Bucket::Loss,
    Bucket::Transit,
    Bucket::Allocated,
];

impl Bucket {
    pub fn from_number(number: u8) -> Option<Bucket> {
        ALL.get(number as usize).copied()
    }

    pub fn is_on_hand(self) -> bool {
        (self as u8) < 8 || self == Bucket::Allocated
    }

    /// Whether units here are no longer, or not yet, ours; or between two nodes.
    pub fn is_outside(self) -> bool {
        (Bucket::Supplier..=Bucket::Transit).contains(&self)
    }

    /// Place of an on-hand bucket within [`ON_HAND`].
    pub fn index(self) -> usize {
        if self == Bucket::Allocated { 8 } else { self as usize }
    }

    /// Where units of a pool stand that nobody claims.
    pub fn unclaimed(pool: ChannelId) -> Bucket {
        match pool {
            ChannelId::SHARED => Bucket::Free,
            supply if supply.is_supply() => Bucket::Inbound,
            _ => Bucket::Allocated,
        }
    }

    pub fn name(self) -> &'static str {
        [
            "free",
            "held",
            "confirmed",
            "picked",
            "safety",
            "damaged",
            "quality",
            "blocked",
            "inbound",
            "supplier",
            "customer",
            "loss",
            "transit",
            "allocated",
        ][self as usize]
    }

    pub fn from_name(name: &str) -> Option<Bucket> {
        ALL.into_iter().find(|bucket| bucket.name() == name)
    }
}

/// Where units can be claimed: a position, and there the units shared by all, those of one channel's allocation or
/// those of a supply to come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Place {
    pub sku: SkuId,
    pub node: NodeId,
    pub pool: ChannelId,
}

/// `quantity` units of a position go from one bucket to another. Always positive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Movement {
    pub sku: SkuId,
    pub node: NodeId,
    /// Whose allocation or which supply the units are of or were claimed from, else [`ChannelId::SHARED`].
    pub pool: ChannelId,
    pub from: Bucket,
    pub to: Bucket,
    pub quantity: u32,
}

impl Movement {
    pub fn place(&self) -> Place {
        Place { sku: self.sku, node: self.node, pool: self.pool }
    }

    /// Whether units go out of a bucket or into it.
    pub fn touches(&self, bucket: Bucket) -> bool {
        self.from == bucket || self.to == bucket
    }

    /// Units by which the movement raises what stands in a bucket.
    pub fn change_of(&self, bucket: Bucket) -> i64 {
        (i64::from(self.to == bucket) - i64::from(self.from == bucket)) * i64::from(self.quantity)
    }

    /// Units by which the movement raises what is physically at the node.
    pub fn on_hand_change(&self) -> i64 {
        if self.pool.is_supply() {
            return 0;
        }
        let into = if self.to.is_on_hand() { 1 } else { 0 };
        let out = if self.from.is_on_hand() { 1 } else { 0 };
        (into - out) * i64::from(self.quantity)
    }
}
