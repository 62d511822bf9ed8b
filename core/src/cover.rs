//! Cover: which units of a sku must stay where they are, for claims on groups whose nodes are not chosen yet.
//!
//! A claim on a group can be served by any node of it, and groups overlap. All such claims can be served as long as for
//! every set of groups the nodes of their union have as many units as is claimed of them (Hall's theorem). So units may
//! be taken from a node as long as every union that it is in keeps that many; taken one node after the other in any
//! order, that gives in the end the most there is (the sets of units that may go form a polymatroid). Where a union has
//! too few already, because units were lost, what is missing does not become more.
//!
//! The ledger decides by this, and readers are told by it.

use smallvec::SmallVec;

use crate::catalogue::Rules;
use crate::drill::{Bug, planted};
use crate::id::{GroupId, NodeId};
use crate::limit;

const UNIONS: usize = 1 << limit::CLAIMED_GROUPS_PER_SKU_MAX;

/// Units claimed of a group, none chosen.
pub type Demand = (GroupId, i64);
/// All of a sku's.
pub type Demands = SmallVec<[Demand; limit::CLAIMED_GROUPS_PER_SKU_MAX]>;

/// How many units may be taken from nodes of one sku.
#[derive(Clone, Debug)]
pub struct Cover {
    groups: SmallVec<[GroupId; limit::CLAIMED_GROUPS_PER_SKU_MAX]>,
    /// By union, a bit for each group: units that may be taken from its nodes.
    spare: [i64; UNIONS],
    /// Units that are claimed of a union and that it has not.
    missing: i64,
}

impl Cover {
    /// `nodes` are all nodes with their units that may be used, those not asked for too: they cover as well.
    ///
    /// # Panics
    /// With more than [`limit::CLAIMED_GROUPS_PER_SKU_MAX`] groups.
    pub fn new(rules: &Rules, demands: &[Demand], nodes: impl Iterator<Item = (NodeId, i64)>) -> Cover {
        let groups = demands.iter().map(|(group, _)| *group).collect();
        let mut cover = Cover { groups, spare: [0; UNIONS], missing: 0 };
        let unions = cover.unions();
        for (node, units) in nodes.filter(|(_, units)| *units > 0) {
            let of = cover.groups_of(rules, node);
            for union in (1..unions).filter(|union| union & of != 0) {
                cover.spare[union] += units;
            }
        }
        for union in 1..unions {
            let claimed = demands.iter().enumerate().filter(|(at, _)| union >> at & 1 == 1);
            cover.spare[union] -= claimed.map(|(_, (_, units))| units).sum::<i64>();
            cover.missing = cover.missing.max(-cover.spare[union]);
        }
        cover.spare[1..unions].iter_mut().for_each(|spare| *spare += cover.missing);
        cover
    }

    pub fn missing(&self) -> i64 {
        self.missing
    }

    /// So many units may be missing.
    pub fn allow(&mut self, missing: i64) {
        let (more, unions) = ((missing - self.missing).max(0), self.unions());
        self.spare[1..unions].iter_mut().for_each(|spare| *spare += more);
        self.missing += more;
    }

    fn unions(&self) -> usize {
        1 << self.groups.len()
    }

    /// A bit for each group that a node is in.
    fn groups_of(&self, rules: &Rules, node: NodeId) -> usize {
        let is_in = |group: &GroupId| rules.group(*group).is_none_or(|nodes| nodes.contains(node));
        self.groups.iter().enumerate().map(|(at, group)| usize::from(is_in(group)) << at).sum()
    }

    /// How many of a node's units may be taken.
    pub fn room(&self, rules: &Rules, node: NodeId, units: i64) -> i64 {
        let of = self.groups_of(rules, node);
        let one_alone = planted(Bug::IgnoreOverlap);
        let bound = |union: &usize| union & of != 0 && (!one_alone || union.is_power_of_two());
        let spare = (1..self.unions()).filter(bound).map(|union| self.spare[union]).min();
        units.min(spare.unwrap_or(units)).max(0)
    }

    /// Units of a node are taken.
    pub fn take(&mut self, rules: &Rules, node: NodeId, units: i64) {
        let of = self.groups_of(rules, node);
        for union in (1..self.unions()).filter(|union| union & of != 0) {
            self.spare[union] -= units;
        }
    }

    /// How many units may be taken from several nodes together; they are taken.
    pub fn take_all(&mut self, rules: &Rules, nodes: impl Iterator<Item = (NodeId, i64)>) -> i64 {
        let mut sum = 0;
        for (node, units) in nodes {
            let units = self.room(rules, node, units);
            self.take(rules, node, units);
            sum += units;
        }
        sum
    }
}
