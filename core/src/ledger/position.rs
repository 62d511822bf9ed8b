//! Positions, laid out so that one sku's nodes lie side by side and one position fills one cache line.

use crate::bucket::Bucket;
use crate::id::{Millis, NodeId};
use crate::limit;

/// A moment in 48 bits (8,900 years of milliseconds) and something small in 16: room that a position needs.
#[derive(Clone, Copy, PartialEq)]
struct Tagged(u64);

impl Tagged {
    fn new(at: Millis, tag: u16) -> Tagged {
        Tagged(at.0 << 16 | u64::from(tag))
    }

    fn at(self) -> Millis {
        Millis(self.0 >> 16)
    }

    fn tag(self) -> u16 {
        self.0 as u16
    }
}

impl std::fmt::Debug for Tagged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.at(), self.tag())
    }
}

/// Marks beside a moment.
const DIRTY: u16 = 1;
const WAITS: u16 = 2;

/// One sku at one node.
#[derive(Clone, Debug, PartialEq)]
#[repr(align(64))]
pub struct Position {
    pub free: i64,
    /// The latest `occurred_at` of any physical change, and the node.
    latest_node: Tagged,
    /// When the physical change applied last happened, whether anything changed since the last publication, and
    /// whether anybody waits here for a supply.
    last_dirty: Tagged,
    /// The physical change applied last.
    pub(super) last_units: i32,
    /// Held, confirmed, picked, safety, damaged, quality, blocked, allocated.
    others: [u32; 8],
    /// Of the picked units, those picked for a reservation.
    pub(super) picked_claimed: u32,
}

const _: () = assert!(size_of::<Position>() == 64);

impl Position {
    pub(super) fn empty(node: NodeId) -> Position {
        Position {
            free: 0,
            latest_node: Tagged::new(Millis(0), node.0),
            last_dirty: Tagged::new(Millis(0), 0),
            last_units: 0,
            others: [0; 8],
            picked_claimed: 0,
        }
    }

    pub fn node(&self) -> NodeId {
        NodeId(self.latest_node.tag())
    }

    /// The latest `occurred_at` of any physical change.
    pub(super) fn latest(&self) -> Millis {
        self.latest_node.at()
    }

    /// When the physical change applied last happened.
    pub(super) fn last_at(&self) -> Millis {
        self.last_dirty.at()
    }

    pub(super) fn set_moments(&mut self, latest: Millis, last_at: Millis) {
        self.latest_node = Tagged::new(latest, self.latest_node.tag());
        self.last_dirty = Tagged::new(last_at, self.last_dirty.tag());
    }

    /// Marks it as changed or as published; answers whether it was marked as changed.
    pub(super) fn set_dirty(&mut self, dirty: bool) -> bool {
        let before = self.last_dirty.tag();
        self.last_dirty = Tagged::new(self.last_dirty.at(), before & !DIRTY | u16::from(dirty));
        before & DIRTY != 0
    }

    /// Whether somebody waits here for a supply: not all that is free may be everybody's.
    pub(super) fn waits(&self) -> bool {
        self.last_dirty.tag() & WAITS != 0
    }

    pub(super) fn set_waits(&mut self, waits: bool) {
        let others = self.last_dirty.tag() & !WAITS;
        self.last_dirty = Tagged::new(self.last_dirty.at(), others | if waits { WAITS } else { 0 });
    }

    /// Units in allocations, of all channels together.
    pub fn allocated(&self) -> i64 {
        self.units(Bucket::Allocated)
    }

    /// Units in one of the on-hand buckets.
    pub fn units(&self, bucket: Bucket) -> i64 {
        match bucket {
            Bucket::Free => self.free,
            other => i64::from(self.others[other.index() - 1]),
        }
    }

    /// Everything physically at the node.
    pub fn on_hand(&self) -> i64 {
        self.free + self.others.iter().map(|units| i64::from(*units)).sum::<i64>()
    }

    /// Changes a bucket.
    ///
    /// # Panics
    /// If a bucket other than free would leave 0..=4e9: decisions check first, so this is a broken invariant.
    #[inline]
    pub(super) fn add(&mut self, bucket: Bucket, units: i64) {
        match bucket {
            Bucket::Free => {
                self.free += units;
                assert!(self.free.abs() <= 2 * limit::BUCKET_UNITS_MAX, "free units out of range: {self:?}");
            }
            other => {
                let units = i64::from(self.others[other.index() - 1]) + units;
                assert!((0..=limit::BUCKET_UNITS_MAX).contains(&units), "{} units of {self:?}", other.name());
                self.others[other.index() - 1] = units as u32;
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.free == 0 && self.others == [0; 8]
    }
}

#[derive(Clone, Copy, Default, Debug)]
struct Row {
    start: u32,
    len: u16,
    capacity: u16,
}

/// The positions of all skus of a shard. Rows are found by index; within a row positions are sorted by node.
#[derive(Default, Debug)]
pub struct Positions {
    rows: Vec<Row>,
    cells: Vec<Position>,
}

impl Positions {
    /// Index of the position within [`Positions::at`].
    pub(super) fn find(&self, row: usize, node: NodeId) -> Option<usize> {
        let row = self.rows.get(row)?;
        let start = row.start as usize;
        let cells = &self.cells[start..start + row.len as usize];
        if let [only] = cells {
            return (only.node() == node).then_some(start);
        }
        cells.binary_search_by_key(&node, |position| position.node()).ok().map(|at| start + at)
    }

    pub fn get(&self, row: usize, node: NodeId) -> Option<&Position> {
        self.find(row, node).map(|at| &self.cells[at])
    }

    pub(super) fn get_mut(&mut self, row: usize, node: NodeId) -> Option<&mut Position> {
        self.find(row, node).map(|at| &mut self.cells[at])
    }

    pub(super) fn at(&self, at: usize) -> &Position {
        &self.cells[at]
    }

    pub(super) fn at_mut(&mut self, at: usize) -> &mut Position {
        &mut self.cells[at]
    }

    /// Indices of a row's positions.
    pub(super) fn range(&self, row: usize) -> std::ops::Range<usize> {
        match self.rows.get(row) {
            Some(row) => row.start as usize..row.start as usize + row.len as usize,
            None => 0..0,
        }
    }

    /// Rows up to the last that has positions.
    pub(super) fn row_count(&self) -> usize {
        self.rows.len()
    }

    /// Every row that has positions.
    pub fn rows(&self) -> impl Iterator<Item = (usize, &[Position])> {
        self.rows.iter().enumerate().filter(|(_, row)| row.len > 0).map(|(index, row)| {
            let start = row.start as usize;
            (index, &self.cells[start..start + row.len as usize])
        })
    }

    /// The position, made empty if it is not there yet. Makes indices given out before invalid.
    #[inline]
    pub(super) fn get_or_insert(&mut self, row: usize, node: NodeId) -> &mut Position {
        match self.find(row, node) {
            Some(at) => &mut self.cells[at],
            None => self.insert(row, node),
        }
    }

    #[cold]
    fn insert(&mut self, row: usize, node: NodeId) -> &mut Position {
        if row >= self.rows.len() {
            self.rows.resize(row + 1, Row::default());
        }
        let Row { start, len, capacity } = self.rows[row];
        let (mut start, len) = (start as usize, len as usize);
        if len == capacity as usize {
            // The row moves to the end with twice the room; what it leaves behind is at most as much again.
            let room = (capacity as usize * 2).clamp(1, limit::NODES_MAX + limit::GROUPS_MAX + 1);
            let moved = self.cells.len();
            self.cells.extend_from_within(start..start + len);
            self.cells.resize(moved + room, Position::empty(NodeId::ANY));
            start = moved;
            self.rows[row].start = u32::try_from(start).expect("more positions than 32 bits can count");
            self.rows[row].capacity = room as u16;
        }
        let at = start + self.cells[start..start + len].partition_point(|position| position.node() < node);
        self.cells[at..start + len + 1].rotate_right(1);
        self.cells[at] = Position::empty(node);
        self.rows[row].len += 1;
        &mut self.cells[at]
    }
}
