//! The journal in a redb file: one table, a record's first LSN to its bytes.
//!
//! A commit is one write transaction with immediate durability: one fsync. Old records are removed along
//! with an append, so that their pages are used again and the file stops growing.

use std::path::Path;
use std::sync::Arc;

use redb::{
    Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, StorageBackend, StorageError,
    TableDefinition,
};

use crate::chain::Anchor;
use crate::drill::{Bug, planted};
use crate::id::Lsn;
use crate::journal::{Journal, JournalError, JournalReader, Take};
use crate::limit;

const RECORDS: TableDefinition<u64, &[u8]> = TableDefinition::new("records");
/// Bytes copied in one transaction.
const COPY_BYTES: usize = 64 << 20;
/// Memory redb may use for pages of the journal.
const CACHE_BYTES: usize = 64 << 20;

fn storage(error: impl std::fmt::Display) -> JournalError {
    JournalError::Storage(error.to_string())
}

/// A journal in a file.
pub struct FileJournal {
    db: Arc<Database>,
    last: Lsn,
    /// Drops nothing when set: everything can be replayed from the first LSN.
    retain: bool,
    /// An append failed: what is on disk is no longer known, and nothing more is written.
    failed: bool,
}

impl FileJournal {
    /// Opens or creates the file.
    pub fn open(path: &Path, retain: bool) -> Result<FileJournal, JournalError> {
        let db = open_or_create(path, CACHE_BYTES).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => JournalError::InUse(path.display().to_string()),
            other => storage(other),
        })?;
        FileJournal::over(db, retain)
    }

    /// A journal over any storage redb can use.
    pub fn with_backend(backend: impl StorageBackend, retain: bool) -> Result<FileJournal, JournalError> {
        let db = Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend);
        FileJournal::over(db.map_err(storage)?, retain)
    }

    fn over(db: Database, retain: bool) -> Result<FileJournal, JournalError> {
        let write = db.begin_write().map_err(storage)?;
        write.open_table(RECORDS).map_err(storage)?;
        write.commit().map_err(storage)?;
        let mut journal = FileJournal { db: Arc::new(db), last: Lsn::NONE, retain, failed: false };
        if let Some((_, last)) = journal.reader().bounds()? {
            journal.last = last;
        }
        Ok(journal)
    }

    /// The last LSN written.
    pub fn last(&self) -> Lsn {
        self.last
    }
}

/// Opens a database file, or creates one for its owner only and makes its name durable. It is made under another
/// name first: redb does not open a file whose making was cut short.
pub(crate) fn open_or_create(path: &Path, cache_bytes: usize) -> Result<Database, DatabaseError> {
    use std::os::unix::fs::OpenOptionsExt;
    let io = |error| DatabaseError::Storage(StorageError::Io(error));
    if !path.try_exists().map_err(io)? {
        // One name a process: of two that start at once, the first to link makes the file, and both open that one.
        let unfinished = path.with_extension(format!("new-{}", std::process::id()));
        let mut options = std::fs::OpenOptions::new();
        options.create(true).truncate(true).write(true).mode(0o600).open(&unfinished).map_err(io)?;
        drop(Database::builder().create(&unfinished)?);
        match std::fs::hard_link(&unfinished, path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(io(error)),
            _ => {}
        }
        std::fs::remove_file(&unfinished).map_err(io)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = std::fs::File::open(parent.unwrap_or(Path::new("."))).map_err(io)?;
        parent.sync_all().map_err(io)?;
    }
    Database::builder().set_cache_size(cache_bytes).open(path)
}

impl FileJournal {
    fn write(&self, first: Lsn, record: &[u8], keep_from: Lsn) -> Result<(), JournalError> {
        let mut write = self.db.begin_write().map_err(storage)?;
        if planted(Bug::AckBeforeSync) {
            write.set_durability(Durability::None).map_err(storage)?;
        }
        {
            let mut table = write.open_table(RECORDS).map_err(storage)?;
            let mut place = table.insert_reserve(first.0, record.len()).map_err(storage)?;
            place.as_mut().copy_from_slice(record);
            drop(place);
            if !self.retain {
                let mut old = Vec::new();
                for pair in
                    table.range(..keep_from.0).map_err(storage)?.take(limit::TRIM_RECORDS_PER_APPEND + 1)
                {
                    old.push(pair.map_err(storage)?.0.value());
                }
                // The last of them may reach beyond `keep_from`; the next one's first LSN tells its end.
                if !planted(Bug::TrimTooFar) {
                    old.pop();
                }
                for first in old {
                    table.remove(first).map_err(storage)?;
                }
            }
        }
        write.commit().map_err(storage)
    }
}

impl Journal for FileJournal {
    fn append(&mut self, before: Lsn, last: Lsn, record: &[u8], keep_from: Lsn) -> Result<(), JournalError> {
        if self.failed {
            return Err(JournalError::Storage("an earlier write failed; start again to go on".into()));
        }
        if before != self.last {
            return Err(JournalError::Fenced { expected: before, found: self.last });
        }
        self.write(before.next(), record, keep_from).inspect_err(|_| self.failed = true)?;
        self.last = last;
        Ok(())
    }

    fn reader(&self) -> Box<dyn JournalReader> {
        Box::new(FileJournalReader { db: Arc::clone(&self.db) })
    }
}

struct FileJournalReader {
    db: Arc<Database>,
}

impl JournalReader for FileJournalReader {
    fn bounds(&self) -> Result<Option<(Lsn, Lsn)>, JournalError> {
        let read = self.db.begin_read().map_err(storage)?;
        let table = read.open_table(RECORDS).map_err(storage)?;
        let Some((first, _)) = table.first().map_err(storage)? else { return Ok(None) };
        let first = Lsn(first.value());
        let mut last = first;
        if let Some((start, bytes)) = table.last().map_err(storage)? {
            let start = Lsn(start.value());
            let decoded = super::decode(start, bytes.value())?;
            last = decoded.entries.last().map_or(start, |entry| entry.lsn);
        }
        Ok(Some((first, last)))
    }

    fn scan(&self, from: Lsn, take: &mut Take<'_>) -> Result<(), JournalError> {
        let read = self.db.begin_read().map_err(storage)?;
        let table = read.open_table(RECORDS).map_err(storage)?;
        // The record that holds `from` begins at or before it.
        let start = match table.range(..=from.0).map_err(storage)?.next_back() {
            Some(pair) => pair.map_err(storage)?.0.value(),
            None => from.0,
        };
        for pair in table.range(start..).map_err(storage)? {
            let (first, bytes) = pair.map_err(storage)?;
            if !take(Lsn(first.value()), bytes.value())? {
                break;
            }
        }
        Ok(())
    }
}

/// Copies records into a new file, up to `until` if that is given, and answers the anchor behind the last. It reads
/// one state of the journal, whatever is appended and removed meanwhile.
pub fn copy(reader: &dyn JournalReader, path: &Path, until: Option<Lsn>) -> Result<Anchor, JournalError> {
    let db = open_or_create(path, CACHE_BYTES).map_err(storage)?;
    let mut end = Anchor::default();
    let (mut chain, mut due) = (None, None);
    let (mut step, mut copied) = (Some(db.begin_write().map_err(storage)?), 0);
    reader.scan(Lsn(1), &mut |first, bytes| {
        if until.is_some_and(|until| first > until) {
            return Ok(false);
        }
        if let Some(due) = due.filter(|due| *due != first) {
            return Err(JournalError::Gap { expected: due, found: first });
        }
        let last = super::decode(first, bytes)?.last().unwrap_or(first);
        let (behind, kept, last) = match until.filter(|until| *until < last) {
            Some(until) => {
                let (behind, cut) = super::cut(first, bytes, until, chain)?;
                (behind, std::borrow::Cow::Owned(cut), until)
            }
            None => (super::follow(chain, first, bytes)?, std::borrow::Cow::Borrowed(bytes), last),
        };
        let write = match step.take() {
            Some(write) => write,
            None => db.begin_write().map_err(storage)?,
        };
        write.open_table(RECORDS).map_err(storage)?.insert(first.0, &*kept).map_err(storage)?;
        copied += kept.len();
        if copied < COPY_BYTES {
            step = Some(write);
        } else {
            write.commit().map_err(storage)?;
            copied = 0;
        }
        (chain, due) = (Some(behind), Some(last.next()));
        end = Anchor { lsn: last, chain: behind };
        Ok(true)
    })?;
    if let Some(write) = step {
        write.open_table(RECORDS).map_err(storage)?;
        write.commit().map_err(storage)?;
    }
    Ok(end)
}
