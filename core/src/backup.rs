//! Copies of journal and snapshot: a backup of what is in use, and a restore, perhaps to an earlier LSN.
//!
//! A backup has the form of what it is a copy of. It is consistent because the snapshot is read first and the
//! journal behind it, and because the checkpoint, which alone moves the snapshot and lets old records go, makes
//! it.

use std::path::Path;

use crate::chain::Anchor;
use crate::checkpoint::CheckpointError;
use crate::id::Lsn;
use crate::journal::{self, JournalError, JournalReader, file};
use crate::snapshot::Snapshot;

/// Copies everything into two new files.
pub fn copy(
    snapshot: &Snapshot,
    reader: &dyn JournalReader,
    snapshot_to: &Path,
    journal_to: &Path,
) -> Result<Anchor, CheckpointError> {
    snapshot.copy(snapshot_to)?;
    Ok(file::copy(reader, journal_to, None)?)
}

/// Copies what makes the state as of `at` into two new files. Where the snapshot is of a later LSN, the journal
/// must go back to the first.
pub fn restore(
    snapshot: &Snapshot,
    reader: &dyn JournalReader,
    snapshot_to: &Path,
    journal_to: &Path,
    at: Lsn,
) -> Result<Anchor, CheckpointError> {
    let bounds = reader.bounds()?;
    let (first, last) = bounds.ok_or(JournalError::Unreachable { at, first: Lsn(1), last: Lsn::NONE })?;
    let covered = snapshot.covered()?.lsn;
    let from = if first == Lsn(1) { Lsn(1) } else { covered.max(first) };
    if at < from || at > last {
        return Err(JournalError::Unreachable { at, first: from, last }.into());
    }
    // The chain up to there is followed before anything is written.
    journal::replay(reader, first, |_, entry| Ok(entry.lsn <= at), |_| Ok(()))?;
    if covered <= at {
        snapshot.copy(snapshot_to)?;
    }
    Ok(file::copy(reader, journal_to, Some(at))?)
}
