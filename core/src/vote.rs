//! The vote: how the parts of one command in several shards come to one decision.
//!
//! This file names its atomics through `super`: tests/src/loom.rs compiles it with loom's.

use super::drill::{Bug, planted};
use super::sync::{AtomicU32, Ordering};

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
pub struct Vote(AtomicU32);

impl Vote {
    pub fn new(parts: u32) -> Vote {
        Vote(AtomicU32::new(parts))
    }

    /// Says what one part has to say. Each part votes once.
    pub fn cast(&self, ballot: Ballot) {
        self.0.fetch_or(ballot.0, Ordering::AcqRel);
        self.0.fetch_sub(1, Ordering::AcqRel);
    }

    /// What all said together; `None` while it is open. One that says no decides at once.
    pub fn verdict(&self) -> Option<Ballot> {
        let votes = self.0.load(Ordering::Acquire);
        let (open, said) = (votes & !Ballot::ALL, Ballot(votes & Ballot::ALL));
        let decided = open == 0 || said.says(Ballot::NO) || planted(Bug::EarlyVerdict);
        decided.then_some(said)
    }
}
