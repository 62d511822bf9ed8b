//! The vote: how the parts of one command in several shards come to one decision.
//!
//! This file names its atomics through `super`: tests/src/loom.rs compiles it with loom's.

use super::drill::{Bug, planted};
use super::sync::{AtomicU32, AtomicU64, Ordering};

/// What a part says, as bits; what all say is all their bits together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ballot(u32);

impl Ballot {
    /// Nothing to say.
    pub const NONE: Ballot = Ballot(0);
    /// It cannot be done.
    pub const NO: Ballot = Ballot(1 << 27);
    /// There is something of it.
    pub const SOME: Ballot = Ballot(1 << 28);
    /// Units would stay held.
    pub const HELD: Ballot = Ballot(1 << 29);
    /// Units would stay confirmed or picked.
    pub const CONFIRMED: Ballot = Ballot(1 << 30);
    /// Units have been shipped.
    pub const SHIPPED: Ballot = Ballot(1 << 31);

    const ALL: u32 = 0x1f << 27;

    pub fn and(self, other: Ballot) -> Ballot {
        Ballot(self.0 | other.0)
    }

    /// Itself if so, else nothing.
    pub fn when(self, so: bool) -> Ballot {
        if so { self } else { Ballot::NONE }
    }

    pub fn says(self, what: Ballot) -> bool {
        self.0 & what.0 != 0
    }
}

/// Where the parts of one command meet: how many have yet to vote, and what was said.
#[derive(Debug)]
pub struct Vote {
    open: AtomicU32,
    /// Where they lay open what they have before they decide.
    pub table: Option<Box<Table>>,
}

/// Numbers that all parts of a command read once each has told its own.
#[derive(Debug)]
pub struct Table {
    told: Vote,
    cells: Box<[AtomicU64]>,
}

impl Table {
    /// Adds to a cell.
    pub fn tell(&self, cell: usize, number: u64) {
        self.cells[cell].fetch_add(number, Ordering::Relaxed);
    }

    /// Says that a part has told all it has. Each part does so once.
    pub fn close(&self) {
        self.told.cast(Ballot::NONE);
    }

    /// Whether all parts have.
    pub fn is_closed(&self) -> bool {
        self.told.verdict().is_some() || planted(Bug::PlanEarly)
    }

    pub fn read(&self, cell: usize) -> u64 {
        self.cells[cell].load(Ordering::Relaxed)
    }
}

impl Vote {
    pub fn new(parts: u32) -> Vote {
        Vote { open: AtomicU32::new(parts), table: None }
    }

    /// With a table of so many cells.
    pub fn with_table(parts: u32, cells: usize) -> Vote {
        let cells = (0..cells).map(|_| AtomicU64::new(0)).collect();
        let table = Table { told: Vote::new(parts), cells };
        Vote { table: Some(Box::new(table)), ..Vote::new(parts) }
    }

    /// Says what one part has to say. Each part votes once.
    pub fn cast(&self, ballot: Ballot) {
        self.open.fetch_or(ballot.0, Ordering::AcqRel);
        self.open.fetch_sub(1, Ordering::AcqRel);
    }

    /// What all said together; `None` while it is open. One that says no decides at once.
    pub fn verdict(&self) -> Option<Ballot> {
        let votes = self.open.load(Ordering::Acquire);
        let (open, said) = (votes & !Ballot::ALL, Ballot(votes & Ballot::ALL));
        let decided = open == 0 || said.says(Ballot::NO) || planted(Bug::EarlyVerdict);
        decided.then_some(said)
    }
}
