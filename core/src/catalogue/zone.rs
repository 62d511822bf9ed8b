//! Zones: where orders go, and how far and how dear the way from each node is.

use crate::id::NodeId;

/// Which node serves a line, of those that have it whole; and in which order they are tried where none has. Numbers
/// are stable. Equal ones go by priority.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Strategy {
    /// The node of best priority.
    #[default]
    Priority = 0,
    /// The nearest to the zone of the reservation.
    Nearest = 1,
    /// As priority; where none has the line whole, those that have most, so that few nodes share it.
    FewestSplits = 2,
    /// The node that has most.
    HighestStock = 3,
    /// The one from which the zone is served for the least.
    LowestCost = 4,
}

impl Strategy {
    pub fn from_number(number: u8) -> Option<Strategy> {
        [
            Strategy::Priority,
            Strategy::Nearest,
            Strategy::FewestSplits,
            Strategy::HighestStock,
            Strategy::LowestCost,
        ]
        .get(number as usize)
        .copied()
    }

    pub fn name(self) -> &'static str {
        ["priority", "nearest", "fewest_splits", "highest_stock", "lowest_cost"][self as usize]
    }
}

/// A point on the earth, in millionths of a degree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Point {
    pub latitude: i32,
    pub longitude: i32,
}

impl Point {
    pub fn is_on_earth(self) -> bool {
        self.latitude.unsigned_abs() <= 90_000_000 && self.longitude.unsigned_abs() <= 180_000_000
    }

    /// Metres to another point, within half a percent up to some thousand kilometres: enough to say which is nearer.
    /// Whole numbers only, so that every machine decides alike.
    pub fn metres_to(self, other: Point) -> u32 {
        let north = i64::from(self.latitude) - i64::from(other.latitude);
        let mut east = (i64::from(self.longitude) - i64::from(other.longitude)).abs();
        if east > 180_000_000 {
            east = 360_000_000 - east;
        }
        // Bhaskara's approximation of the cosine, in millionths; thousandths of a degree are fine enough for it.
        let middle = (i64::from(self.latitude) + i64::from(other.latitude)) / 2_000;
        let square = middle * middle / 1_000_000;
        let cosine = 1_000_000 * (32_400 - 4 * square) / (32_400 + square);
        let east = east * cosine.max(0) / 1_000_000;
        let degrees = ((north * north + east * east) as u64).isqrt();
        // A degree of latitude has 111,195 m.
        (degrees * 111_195 / 1_000_000) as u32
    }
}

/// Nothing is known of the way.
pub const UNKNOWN: u32 = u32::MAX;

/// The way from a node to a zone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lane<N> {
    pub node: N,
    /// [`UNKNOWN`]: as the coordinates say.
    pub metres: u32,
    /// Of one line, in any unit that is the same for all.
    pub cost: u32,
}

/// A zone as decisions look at it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ZoneRule {
    /// By node id.
    metres: Vec<u32>,
    costs: Vec<u32>,
}

impl ZoneRule {
    pub(super) fn new(at: Option<Point>, lanes: &[Lane<NodeId>], nodes: &[Option<Point>]) -> ZoneRule {
        let far = |node: &Option<Point>| match (at, node) {
            (Some(at), Some(node)) => at.metres_to(*node),
            _ => UNKNOWN,
        };
        let mut rule =
            ZoneRule { metres: nodes.iter().map(far).collect(), costs: vec![UNKNOWN; nodes.len()] };
        for lane in lanes {
            let node = lane.node.0 as usize;
            rule.costs[node] = lane.cost;
            if lane.metres != UNKNOWN {
                rule.metres[node] = lane.metres;
            }
        }
        rule
    }

    pub fn metres(&self, node: NodeId) -> u32 {
        self.metres.get(node.0 as usize).copied().unwrap_or(UNKNOWN)
    }

    pub fn cost(&self, node: NodeId) -> u32 {
        self.costs.get(node.0 as usize).copied().unwrap_or(UNKNOWN)
    }
}
