//! A batch: frames that have their place in the order, on their way through all shards to the journal.
//!
//! It is immutable but for the votes: every shard reads the same batch, in the same order.

use std::sync::Arc;

use crate::catalogue::{Principal, Rules};
use crate::command::Frame;
use crate::id::{Lsn, Millis};
use crate::outcome::Code;
pub use crate::vote::Vote;

/// What the sequencer decided for one command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    /// The shards execute it; `vote` points to where the parts agree, [`NO_VOTE`] if there is one part only.
    Execute { lsn: Lsn, vote: u32 },
    /// Refused by the catalogue: has its LSN, is journaled, touches no shard.
    Refused { lsn: Lsn, code: Code },
    /// A definition that took effect.
    Defined { lsn: Lsn, id: u32 },
    /// A look-up, or a definition that changed nothing.
    Known { id: u32 },
    /// A repeat of an earlier command.
    Repeat { lsn: Lsn },
    /// Turned away: no LSN, no trace.
    Door { code: Code },
    /// A read; the shards answer. One that is planned as a whole has a vote for its table.
    Read { vote: u32 },
}

/// Index of the vote of a command that needs none.
pub const NO_VOTE: u32 = u32::MAX;

/// A frame with the sequencer's decisions, one a command.
#[derive(Debug)]
pub struct StampedFrame<T> {
    pub frame: Frame<T>,
    pub slots: Vec<Slot>,
}

#[derive(Debug)]
pub struct Batch<T> {
    pub now: Millis,
    /// The wall clock: what is later lies in the future.
    pub wall: Millis,
    pub rules: Arc<Rules>,
    /// LSN of the last command before this batch.
    pub before: Lsn,
    /// LSN of the last command in or before this batch.
    pub last: Lsn,
    pub frames: Vec<StampedFrame<T>>,
    pub votes: Vec<Vote>,
    /// The oldest LSN whose repeats were known when the batch began: the journal must keep it, because a command
    /// of this batch may be a repeat of what a later one of it pushed out of the window.
    pub keep_from: Lsn,
    /// What the catalogue is after this batch, where it is not what it was.
    pub change: Option<Box<CatalogueChange>>,
    pub commands: usize,
    pub lines: usize,
    /// Something of it was defined.
    pub defines: bool,
}

/// The catalogue's new face, to be published with the batch that changed it.
#[derive(Debug)]
pub struct CatalogueChange {
    pub rules: Arc<Rules>,
    pub principals: Vec<Principal>,
    /// Rules may now want other allocations, of any sku.
    pub unbalances: bool,
}
