//! Cover: which units of a sku must stay where they are, for claims on groups whose nodes are not chosen yet.
//!
//! A claim on a group can be served by any node of it, and groups overlap. So the claims are served here by units of
//! nodes, as a flow: a unit may be taken from a node as long as what it serves can be served by others, those moved on
//! where need be. Nodes that are in the same of the claimed groups are one class, because any of them does as well. Taken
//! one node after the other in any order, that gives in the end the most there is (the sets of units that may go form a
//! polymatroid).
//!
//! Where units were lost, some claims cannot be served: what is missing is served by nobody, and does not become more.
//!
//! The ledger decides by this, and readers are told by it.

use smallvec::{SmallVec, smallvec};

use crate::catalogue::Rules;
use crate::drill::{Bug, planted};
use crate::id::{GroupId, NodeId};
use crate::limit;

/// Units claimed of a group, none chosen.
pub type Demand = (GroupId, i64);
/// All of a sku's.
pub type Demands = SmallVec<[Demand; 4]>;

/// A bit for each claimed group.
type Groups = u64;

const _: () = assert!(limit::CLAIMED_GROUPS_PER_SKU_MAX <= Groups::BITS as usize);

/// Nodes that are in the same claimed groups.
#[derive(Clone, Debug)]
struct Class {
    of: Groups,
    /// Units that serve nobody; negative where more were taken than may be.
    left: i64,
    /// Units that serve each group.
    serves: SmallVec<[i64; 4]>,
    /// No more than so many can be left.
    most: i64,
}

impl Class {
    fn new(of: Groups, left: i64, groups: usize) -> Class {
        Class { of, left, serves: smallvec![0; groups], most: i64::MAX }
    }

    /// The groups that units of it serve.
    fn served(&self) -> Groups {
        let serves = self.serves.iter().enumerate();
        serves.fold(0, |all, (at, units)| all | Groups::from(*units > 0) << at)
    }
}

/// Who is served from where; the first class are units that nobody has.
#[derive(Clone, Debug)]
struct Flow(SmallVec<[Class; 5]>);

/// The class of units that nobody has.
const NOBODY: usize = 0;

impl Flow {
    fn class(&self, of: Groups) -> Option<usize> {
        self.0.iter().skip(1).position(|class| class.of == of).map(|at| at + 1)
    }

    /// The shortest way from one of `first` to a class that has units left, each step with the group that is served by
    /// the next instead: classes and groups, the end first.
    fn way(&self, first: impl Fn(usize) -> bool) -> Option<SmallVec<[(usize, usize); 8]>> {
        let count = self.0.len();
        let mut from: SmallVec<[Option<usize>; 8]> = smallvec![None; count];
        let mut seen: SmallVec<[bool; 8]> = (0..count).map(&first).collect();
        let mut open: SmallVec<[usize; 8]> = (0..count).filter(|at| seen[*at]).collect();
        if let Some(at) = open.iter().find(|at| self.0[**at].left > 0) {
            return Some(smallvec![(*at, 0)]);
        }
        let mut next = 0;
        let end = loop {
            let at = *open.get(next)?;
            next += 1;
            if self.0[at].left > 0 {
                break at;
            }
            let served = self.0[at].served();
            for other in 0..count {
                if !seen[other] && self.0[other].of & served != 0 {
                    (seen[other], from[other]) = (true, Some(at));
                    open.push(other);
                }
            }
        };
        let mut way = SmallVec::new();
        let mut at = end;
        while let Some(before) = from[at] {
            let both = self.0[at].of & self.0[before].served();
            way.push((at, both.trailing_zeros() as usize));
            at = before;
        }
        way.push((at, 0));
        Some(way)
    }

    /// Moves at most so many units along a way: as many are left at its beginning; answers how many.
    fn push(&mut self, way: &[(usize, usize)], most: i64) -> i64 {
        let mut units = most.min(self.0[way[0].0].left);
        for step in way.windows(2) {
            let ((_, group), (before, _)) = (step[0], step[1]);
            units = units.min(self.0[before].serves[group]);
        }
        for step in way.windows(2) {
            let ((at, group), (before, _)) = (step[0], step[1]);
            self.0[at].left -= units;
            self.0[at].serves[group] += units;
            self.0[before].left += units;
            self.0[before].serves[group] -= units;
        }
        units
    }

    /// Serves a group as far as can be; answers what is missing.
    fn serve(&mut self, group: usize, mut wanted: i64) -> i64 {
        while wanted > 0 {
            let in_group = |at: usize| self.0[at].of >> group & 1 == 1;
            let Some(way) = self.way(in_group) else { break };
            let at = way.last().expect("a way has a beginning").0;
            let units = self.push(&way, wanted);
            self.0[at].left -= units;
            self.0[at].serves[group] += units;
            wanted -= units;
        }
        wanted
    }

    /// Has as many as `wanted` units of a class serve nobody, if so many need not; answers how many do.
    fn free(&mut self, class: usize, wanted: i64) -> i64 {
        while self.0[class].left < wanted.min(self.0[class].most) {
            // A way from the class itself, which has too few left, to another.
            let left = std::mem::take(&mut self.0[class].left);
            let way = self.way(|at| at == class);
            let moved = way.map_or(0, |way| self.push(&way, wanted - left));
            self.0[class].left += left;
            // That becomes only less, as long as no more may be missing.
            if moved == 0 {
                self.0[class].most = left;
            }
        }
        self.0[class].left.clamp(0, wanted.max(0))
    }
}

/// How many units may be taken from nodes of one sku.
#[derive(Clone, Debug)]
pub struct Cover {
    demands: Demands,
    flow: Flow,
    /// Units that are claimed and that no node can serve.
    missing: i64,
}

impl Cover {
    /// `nodes` are all nodes with their units that may be used, those not asked for too: they cover as well.
    ///
    /// # Panics
    /// With more than [`limit::CLAIMED_GROUPS_PER_SKU_MAX`] groups.
    pub fn new(rules: &Rules, demands: &[Demand], nodes: impl Iterator<Item = (NodeId, i64)>) -> Cover {
        assert!(demands.len() <= limit::CLAIMED_GROUPS_PER_SKU_MAX, "{} groups", demands.len());
        let demands = Demands::from_slice(demands);
        let mut flow = Flow(smallvec![Class::new(Groups::MAX, 0, demands.len())]);
        for (node, units) in nodes.filter(|(_, units)| *units > 0) {
            let of = groups_of(rules, &demands, node);
            match flow.class(of) {
                Some(at) => flow.0[at].left += units,
                None => flow.0.push(Class::new(of, units, demands.len())),
            }
        }
        let mut missing = 0;
        for (group, (_, units)) in demands.iter().enumerate() {
            let unserved = flow.serve(group, *units);
            flow.0[NOBODY].serves[group] = unserved;
            missing += unserved;
        }
        Cover { demands, flow, missing }
    }

    pub fn missing(&self) -> i64 {
        self.missing
    }

    /// So many units may be missing.
    pub fn allow(&mut self, missing: i64) {
        let more = (missing - self.missing).max(0);
        self.flow.0[NOBODY].left += more;
        self.flow.0.iter_mut().for_each(|class| class.most = i64::MAX);
        self.missing += more;
    }

    /// How many of a node's units may be taken. To know it, who is served from where may change.
    pub fn room(&mut self, rules: &Rules, node: NodeId, units: i64) -> i64 {
        let of = groups_of(rules, &self.demands, node);
        if planted(Bug::IgnoreOverlap) {
            return one_by_one(&self.flow, &self.demands, of, units);
        }
        match self.flow.class(of) {
            _ if of == 0 => units.max(0),
            Some(class) => self.flow.free(class, units),
            None => 0,
        }
    }

    /// Units of a node are taken.
    pub fn take(&mut self, rules: &Rules, node: NodeId, units: i64) {
        let of = groups_of(rules, &self.demands, node);
        if let Some(class) = self.flow.class(of).filter(|_| of != 0) {
            self.flow.free(class, units);
            let class = &mut self.flow.0[class];
            (class.left, class.most) = (class.left - units, class.most.saturating_sub(units));
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

/// A bit for each claimed group that a node is in.
fn groups_of(rules: &Rules, demands: &[Demand], node: NodeId) -> Groups {
    let is_in = |group: GroupId| rules.group(group).is_none_or(|nodes| nodes.contains(node));
    demands.iter().enumerate().fold(0, |all, (at, (group, _))| all | Groups::from(is_in(*group)) << at)
}

/// The bug: each group looked at alone.
fn one_by_one(flow: &Flow, demands: &[Demand], of: Groups, units: i64) -> i64 {
    let own = demands.iter().enumerate().filter(|(at, _)| of >> at & 1 == 1);
    let spare = own.map(|(at, (_, claimed))| {
        let has = flow.0.iter().skip(1).filter(|class| class.of >> at & 1 == 1);
        has.map(|class| class.left + class.serves.iter().sum::<i64>()).sum::<i64>() - claimed
    });
    units.min(spare.min().unwrap_or(units)).max(0)
}
