//! Files that are damaged: what is said of them, and what to do.
//!
//! A page that was overwritten may end the storage library in the middle of reading it. Whoever reads a file says so
//! first: then the process ends with the file's name and the code for a data directory that cannot be used.

use std::cell::Cell;
use std::path::Path;

use stockline_core::id::Lsn;
use stockline_core::journal::JournalReader;
use stockline_core::snapshot::SnapshotError;

thread_local! {
    static READING: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Reads a file of the data directory.
pub fn reading<T>(file: &'static str, read: impl FnOnce() -> T) -> T {
    let before = READING.replace(Some(file));
    let found = read();
    READING.set(before);
    found
}

/// The file that this thread is reading.
pub fn file() -> Option<&'static str> {
    READING.get()
}

/// What is wrong with the snapshot, and how to come back where the journal is whole.
pub fn way_back(data: &Path, journal: &dyn JournalReader, error: &SnapshotError) -> String {
    if matches!(error, SnapshotError::InUse(_) | SnapshotError::Format { .. }) {
        return error.to_string();
    }
    let file = data.join(crate::engine::SNAPSHOT_FILE);
    let file = file.display();
    match journal.bounds() {
        Ok(Some((Lsn(1), _))) => {
            format!(
                "{error}; the journal goes back to the first command: move {file} away, and it is made again from it"
            )
        }
        Ok(Some((first, last))) => format!(
            "{error}; put a backup's snapshot.redb of LSN {} to {last} in place of {file}: the journal goes on from there",
            first.0 - 1
        ),
        _ => error.to_string(),
    }
}
