//! A copy of a data directory, made by the thread that alone moves the snapshot, or by a command where no server
//! runs.

use std::path::Path;

use stockline_core::audit_trail::AuditTrail;
use stockline_core::chain::Anchor;
use stockline_core::journal::JournalReader;
use stockline_core::letters::Letters;
use stockline_core::snapshot::Snapshot;

use super::{AUDIT_FILE, JOURNAL_FILE, LETTERS_FILE, SNAPSHOT_FILE};
use crate::data;

/// Copies ledger, dead letters, audit trail and identity into a directory that is made for it.
pub fn backup_files(
    snapshot: &Snapshot,
    reader: &dyn JournalReader,
    (letters, trail): (&Letters, &AuditTrail),
    from: &Path,
    to: &Path,
) -> Result<Anchor, String> {
    data::make_whole(to, |to| {
        // First: what is settled meanwhile is there twice rather than nowhere, and a second try is a repeat.
        letters.copy_to(&to.join(LETTERS_FILE)).map_err(|error| error.to_string())?;
        let (snapshot_to, journal_to) = (to.join(SNAPSHOT_FILE), to.join(JOURNAL_FILE));
        let anchor = stockline_core::backup::copy(snapshot, reader, &snapshot_to, &journal_to)
            .map_err(|error| error.to_string())?;
        trail.copy_to(&to.join(AUDIT_FILE)).map_err(|error| error.to_string())?;
        data::copy_identity(from, to, true).map_err(|error| error.to_string())?;
        let origin = data::Origin::of(from, anchor.to_string()).map_err(|error| error.to_string())?;
        origin.write(to).map_err(|error| error.to_string())?;
        Ok(anchor)
    })
}
