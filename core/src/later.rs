//! What readers are told of what is to come: a row of numbers a sku, each under an index.
//!
//! The ledger writes the row, the view keeps it as it keeps every other, and readers find in it what supplies have
//! left, what is claimed that no supply serves, and what channels wait for. What a channel can claim of it, reservations
//! and readers are told by one function, [`Asked::claimable`].

use smallvec::SmallVec;

use crate::bucket::Place;
use crate::catalogue::{ChannelRule, NodeSet, Profile, Rules};
use crate::id::{ChannelId, Millis, NodeId, SkuId};
use crate::limit;

/// What a number of the row is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Item {
    /// Node of a supply, by the supply's number.
    Node(u16),
    /// Units of a supply that nobody claims; negative where it shrank.
    Open(u16),
    /// Date of a supply, in milliseconds; 0 where there is none.
    Date(u16),
    /// Units claimed at a node that no supply serves.
    Unserved(NodeId),
    /// What a channel waits for, as [`waiting`] says.
    Waiting(ChannelId),
    /// How many reservations wait.
    Waiters,
}

/// Units that a channel waits for, and how many of its reservations do, as one number, of which the view keeps 48 bits. A
/// channel waits for no more units than a rule can say.
pub fn waiting(units: i64, waiters: i64) -> i64 {
    waiters << 32 | units
}

/// The two that such a number stands for.
pub fn units_and_waiters(number: i64) -> (i64, i64) {
    (number & i64::from(u32::MAX), number >> 32)
}

const _: () = assert!(limit::WAITING_PER_SKU_MAX < 1 << 15);

/// Supplies have three numbers each.
const UNSERVED: u16 = 3 * limit::SUPPLIES_PER_SKU_MAX as u16;
const WAITING: u16 = UNSERVED + limit::NODES_MAX as u16;
const WAITERS: u16 = WAITING + limit::CHANNELS_MAX as u16;
/// Numbers of a row.
pub const ITEMS_MAX: usize = WAITERS as usize + 1;

impl Item {
    pub fn at(index: u16) -> Item {
        match index {
            0..UNSERVED => [Item::Node, Item::Open, Item::Date][usize::from(index % 3)](index / 3),
            UNSERVED..WAITING => Item::Unserved(NodeId(index - UNSERVED)),
            WAITING..WAITERS => Item::Waiting(ChannelId(index - WAITING)),
            _ => Item::Waiters,
        }
    }

    /// Where it stands, as a place of the view.
    pub fn place(self, sku: SkuId) -> Place {
        let index = match self {
            Item::Node(supply) => 3 * supply,
            Item::Open(supply) => 3 * supply + 1,
            Item::Date(supply) => 3 * supply + 2,
            Item::Unserved(node) => UNSERVED + node.0,
            Item::Waiting(channel) => WAITING + channel.0,
            Item::Waiters => WAITERS,
        };
        Place { sku, node: NodeId(index), pool: ChannelId::SUPPLIES }
    }
}

/// A supply, or claims that none serves, as whoever claims more must know it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Supply {
    pub node: NodeId,
    /// Units that nobody claims; negative where more are claimed than come.
    pub open: i64,
    /// 0 for none.
    pub eta: Millis,
    /// Which goes first of those of one date and node.
    pub order: u128,
    /// Its pool.
    pub pool: ChannelId,
}

/// All of a sku's.
pub type Supplies = SmallVec<[Supply; 8]>;

/// Who would claim what is to come of a sku, and where.
pub struct Asked<'a> {
    pub now: Millis,
    pub rules: &'a Rules,
    pub profile: &'a Profile,
    pub channel: &'a ChannelRule,
    /// The only nodes, and the only one; or any.
    pub group: Option<&'a NodeSet>,
    pub node: NodeId,
    /// Units that the channel waits for already.
    pub waiting: i64,
}

impl Asked<'_> {
    fn may_use(&self, node: NodeId) -> bool {
        (self.node == NodeId::ANY || self.node == node)
            && self.channel.nodes.contains(node)
            && self.group.is_none_or(|nodes| nodes.contains(node))
    }

    /// Calls `each` with the supplies that can be claimed of, the earliest first, then the best node, with how many
    /// units and whether they are not out yet. `room` says how many more may be claimed at a node at all.
    pub fn claimable(
        &self,
        mut supplies: Supplies,
        room: impl Fn(NodeId) -> i64,
        mut each: impl FnMut(&Supply, i64, bool),
    ) {
        // What is left at a node as a whole, where another supply of it shrank.
        let mut left: SmallVec<[(NodeId, i64); 8]> =
            supplies.iter().map(|supply| (supply.node, supply.open)).collect();
        left.sort_unstable_by_key(|(node, _)| *node);
        left.dedup_by(|next, last| {
            let same = next.0 == last.0;
            last.1 += if same { next.1 } else { 0 };
            same
        });
        left.iter_mut().for_each(|(node, left)| *left = (*left).min(room(*node)));
        // One without a date, or whose date has passed, is promised to nobody new.
        supplies.retain(|supply| supply.open > 0 && supply.eta > self.now && self.may_use(supply.node));
        supplies.sort_unstable_by_key(|supply| (supply.eta, self.rules.rank(supply.node), supply.order));
        let (mut sum, mut used) = (0, 0);
        let most = self.channel.policy.splits().min(limit::LINE_SUPPLIES_MAX);
        for supply in &supplies {
            let rule = self.rules.skus.later(self.profile, supply.node, self.channel.id());
            let Some((units, preorder)) = rule else { continue };
            let at = left.binary_search_by_key(&supply.node, |(node, _)| *node).expect("it was noted");
            let left = &mut left[at].1;
            let within = i64::from(units) - self.waiting - sum;
            let units = supply.open.min(*left).min(within);
            if units > 0 && used < most {
                *left -= units;
                sum += units;
                used += 1;
                each(supply, units, preorder);
            }
        }
    }
}
