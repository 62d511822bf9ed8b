//! A cell: what is free at one position, in its last two versions, for one writer and any number of readers.
//!
//! This file names its atomics through `super`: tests/src/loom.rs compiles it with loom's.

use super::drill::{Bug, planted};
use super::sync::{AtomicU64, Ordering, fence, spin_loop};

/// In place of a version's LSN while it is written.
const WRITING: u64 = u64::MAX;

/// LSN and value of one version.
#[derive(Default)]
pub(super) struct Version {
    pub(super) lsn: AtomicU64,
    pub(super) value: AtomicU64,
}

/// A position: half a cache line.
#[derive(Default)]
#[repr(align(32))]
pub(super) struct Cell {
    pub(super) versions: [Version; 2],
}

/// Both versions of a cell are newer than what the reader may see; it starts again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stale;

impl Cell {
    pub(super) fn read(&self, as_of: u64) -> Result<u64, Stale> {
        loop {
            let mut found: Option<(usize, u64, u64)> = None;
            for (index, version) in self.versions.iter().enumerate() {
                let lsn = version.lsn.load(Ordering::Acquire);
                if planted(Bug::TornRead) {
                    // The moment in which it may change, made longer.
                    (0..8).for_each(|_| spin_loop());
                }
                let value = version.value.load(Ordering::Relaxed);
                let better = |best| if planted(Bug::StaleRead) { lsn < best } else { lsn > best };
                if lsn <= as_of && found.is_none_or(|(_, best, _)| better(best)) {
                    found = Some((index, lsn, value));
                }
            }
            let Some((index, lsn, value)) = found else { return Err(Stale) };
            // The other version can only have become newer after this one was overwritten, so one that is
            // still the same was the newest and was read whole.
            fence(Ordering::Acquire);
            if self.versions[index].lsn.load(Ordering::Relaxed) == lsn || planted(Bug::TornRead) {
                return Ok(value);
            }
            spin_loop();
        }
    }

    /// Overwrites what was written since `durable`, or else the older version.
    pub(super) fn write(&self, durable: u64, lsn: u64, value: u64) {
        let lsns = [0, 1].map(|index| self.versions[index].lsn.load(Ordering::Relaxed));
        let index = if lsns[0] > durable {
            0
        } else if lsns[1] > durable || lsns[1] <= lsns[0] {
            1
        } else {
            0
        };
        let version: &Version = &self.versions[index];
        version.lsn.store(WRITING, Ordering::Relaxed);
        fence(Ordering::Release);
        version.value.store(value, Ordering::Relaxed);
        version.lsn.store(lsn, Ordering::Release);
    }
}
