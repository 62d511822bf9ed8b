//! The vote: how the parts of one reservation in several shards agree.
//!
//! This file names its atomics through `super`: tests/src/loom.rs compiles it with loom's.

use super::drill::{Bug, planted};
use super::sync::{AtomicU32, Ordering};

const VETO: u32 = 1 << 31;

/// Where the parts of one command agree: how many have yet to vote, and whether one said no.
#[derive(Debug)]
pub struct Vote(AtomicU32);

impl Vote {
    pub fn new(parts: u32) -> Vote {
        Vote(AtomicU32::new(parts))
    }

    /// Says whether one part can be done. Each part votes once.
    pub fn cast(&self, yes: bool) {
        if !yes {
            self.0.fetch_or(VETO, Ordering::AcqRel);
        }
        self.0.fetch_sub(1, Ordering::AcqRel);
    }

    /// `None` while it is open.
    pub fn verdict(&self) -> Option<bool> {
        match self.0.load(Ordering::Acquire) {
            0 => Some(true),
            votes if votes & VETO != 0 => Some(false),
            _ if planted(Bug::EarlyVerdict) => Some(true),
            _ => None,
        }
    }
}
