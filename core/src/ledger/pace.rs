//! How many units nodes were given to pick, by quarter of an hour, for a day: what a node's daily capacity is held against.
//!
//! A unit counts when it becomes confirmed at a node. It is a preference that rests on it and no promise, so what is
//! released again stays counted, and it is no part of the state hash.

use crate::id::{Millis, NodeId};
use crate::limit::QUARTERS_PER_DAY;

const QUARTERS: usize = QUARTERS_PER_DAY as usize;

/// Which quarters since 1970 a day's quarters are, and their units.
#[derive(Clone, Debug)]
struct Quarters {
    numbers: [u32; QUARTERS],
    units: [u32; QUARTERS],
}

#[derive(Debug, Default)]
pub struct Pace {
    /// By node.
    nodes: Vec<Option<Box<Quarters>>>,
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
        self.add(Given { node, quarter: now.quarter(), units });
    }

    /// Adds to a quarter, which takes the place of the one a day before.
    pub fn add(&mut self, Given { node, quarter, units }: Given) {
        let at = usize::from(node.0);
        if self.nodes.len() <= at {
            self.nodes.resize(at + 1, None);
        }
        let empty = || Box::new(Quarters { numbers: [0; QUARTERS], units: [0; QUARTERS] });
        let quarters = self.nodes[at].get_or_insert_with(empty);
        let slot = quarter as usize % QUARTERS;
        let (number, sum) = (&mut quarters.numbers[slot], &mut quarters.units[slot]);
        if *number < quarter {
            (*number, *sum) = (quarter, 0);
        }
        if *number == quarter {
            *sum = sum.saturating_add(units);
        }
    }

    /// Units from one quarter to another, at most a day later.
    pub fn between(&self, node: NodeId, first: u32, last: u32) -> u64 {
        let Some(Some(quarters)) = self.nodes.get(usize::from(node.0)) else { return 0 };
        let slots = (first..=last).map(|quarter| (quarter, quarter as usize % QUARTERS));
        let there = slots.filter(|(quarter, slot)| quarters.numbers[*slot] == *quarter);
        there.map(|(_, slot)| u64::from(quarters.units[slot])).sum()
    }

    pub fn iter(&self) -> impl Iterator<Item = Given> {
        self.nodes.iter().enumerate().flat_map(|(node, quarters)| {
            let pairs = quarters.iter().flat_map(|quarters| quarters.numbers.iter().zip(&quarters.units));
            let given = move |(quarter, units): (&u32, &u32)| Given {
                node: NodeId(node as u16),
                quarter: *quarter,
                units: *units,
            };
            pairs.map(given).filter(|given| given.units > 0)
        })
    }
}
