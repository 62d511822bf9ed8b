//! What readers are told of what is to come: a row of numbers a sku, each under an index.
//!
//! The ledger writes the row, the view keeps it as it keeps every other, and readers find in it what supplies have
//! left, what is claimed that no supply serves, and what channels wait for.

use crate::bucket::Place;
use crate::id::{ChannelId, NodeId, SkuId};
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
    /// Units that a channel waits for.
    Waiting(ChannelId),
    /// How many reservations wait.
    Waiters,
}

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
