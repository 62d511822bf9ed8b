//! How many units nodes were given to pick, by quarter of an hour, for a day: what a node's daily capacity is held against.
//!
//! A unit counts when it becomes confirmed at a node. It is a preference that rests on it and no promise, so what is
//! released again stays counted, and it is no part of the state hash.

use crate::id::{Millis, NodeId};
use crate::limit::{QUARTER_MS, QUARTERS_PER_DAY};

const QUARTERS: usize = QUARTERS_PER_DAY as usize;

#[derive(Clone, Copy, Debug, Default)]
struct Quarter {
    /// Since 1970.
    number: u32,
    units: u32,
}

#[derive(Debug, Default)]
pub struct Pace {
    /// By node, then by quarter of the day.
    nodes: Vec<Option<Box<[Quarter; QUARTERS]>>>,
}

/// Units that a node was given in one quarter of an hour since 1970.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Given {
    pub node: NodeId,
    pub quarter: u32,
    pub units: u32,
}

impl Pace {
    #[inline(never)]
    pub fn give(&mut self, now: Millis, node: NodeId, units: u32) {
        self.add(Given { node, quarter: (now.0 / QUARTER_MS) as u32, units });
    }

    /// Adds to a quarter, which takes the place of the one a day before.
    pub fn add(&mut self, Given { node, quarter, units }: Given) {
        let at = usize::from(node.0);
        if self.nodes.len() <= at {
            self.nodes.resize(at + 1, None);
        }
        let quarters = self.nodes[at].get_or_insert_with(|| Box::new([Quarter::default(); QUARTERS]));
        let slot = &mut quarters[quarter as usize % QUARTERS];
        if slot.number < quarter {
            *slot = Quarter { number: quarter, units: 0 };
        }
        if slot.number == quarter {
            slot.units = slot.units.saturating_add(units);
        }
    }

    /// Units since a quarter, at most a day ago.
    pub fn since(&self, node: NodeId, first: u32) -> u64 {
        let quarters = self.nodes.get(usize::from(node.0)).into_iter().flatten().flat_map(|node| node.iter());
        quarters.filter(|quarter| quarter.number >= first).map(|quarter| u64::from(quarter.units)).sum()
    }

    pub fn iter(&self) -> impl Iterator<Item = Given> {
        self.nodes.iter().enumerate().flat_map(|(node, quarters)| {
            let some =
                quarters.iter().flat_map(|quarters| quarters.iter()).filter(|quarter| quarter.units > 0);
            some.map(move |quarter| Given {
                node: NodeId(node as u16),
                quarter: quarter.number,
                units: quarter.units,
            })
        })
    }
}
