//! Dead letters: what was told and could not be applied, kept in a redb file of its own until somebody applies it or
//! lets it go. What a letter says is its keeper's business; here it is bytes behind a key.
//!
//! One that is settled leaves a mark, so that a repeat of what it was about does not bring it back. What says something
//! else than before is no repeat: it takes the place of what is there.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{
    Database, DatabaseError, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition, Value, WriteTransaction,
};

use hashbrown::HashMap;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::id::{Key, Millis, PrincipalId};
use crate::journal::file::open_or_create;
use crate::limit;
use crate::outbox::Outbox;

/// By key: when it came, in milliseconds since 1970, who owns it, and what it says.
const OPEN: TableDefinition<u128, (u64, u32, &[u8])> = TableDefinition::new("letters");
/// By owner: how many there are.
const OWNED: TableDefinition<u32, u64> = TableDefinition::new("owned");
/// By key: the hash of what was told, as long as a letter of it is there or its mark.
const SAID: TableDefinition<u128, u64> = TableDefinition::new("said");
/// By key: when it was settled.
const SETTLED: TableDefinition<u128, u64> = TableDefinition::new("settled");
const CACHE_BYTES: usize = 8 << 20;

#[derive(Debug, thiserror::Error)]
pub enum LettersError {
    #[error("dead letters: {0}")]
    Storage(String),
    #[error(
        "dead letters are damaged: row {0} is not what was written; put the letters.redb of a backup in its place"
    )]
    Damaged(String),
    #[error("{0} is in use by another process")]
    InUse(String),
}

/// Bytes with their checksum before them, so that damage is found where they are read.
pub(crate) fn sealed(key: u128, bytes: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(bytes.len() + 8);
    row.extend_from_slice(&checksum(key, bytes).to_le_bytes());
    row.extend_from_slice(bytes);
    row
}

fn checksum(key: u128, bytes: &[u8]) -> u64 {
    xxh3_64_with_seed(bytes, key as u64 ^ (key >> 64) as u64)
}

/// The bytes of such a row.
pub(crate) fn unsealed(key: u128, row: &[u8]) -> Result<&[u8], LettersError> {
    let damaged = || LettersError::Damaged(format!("{key:032x}"));
    let (sum, bytes) = row.split_at_checked(8).ok_or_else(damaged)?;
    if sum == checksum(key, bytes).to_le_bytes() { Ok(bytes) } else { Err(damaged()) }
}

pub(crate) fn storage(error: impl std::fmt::Display) -> LettersError {
    LettersError::Storage(error.to_string())
}

/// Copies a table from one file to another.
pub(crate) fn copy_table<K: redb::Key + 'static, V: Value + 'static>(
    read: &ReadTransaction,
    write: &WriteTransaction,
    table: TableDefinition<K, V>,
) -> Result<(), redb::Error> {
    let mut copy = write.open_table(table)?;
    for row in read.open_table(table)?.iter()? {
        let (key, value) = row?;
        copy.insert(key.value(), value.value())?;
    }
    Ok(())
}

/// A letter as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Letter {
    pub key: Key,
    pub at: Millis,
    /// Whose it is: the sender of an event, the system for messages of webhooks.
    pub owner: PrincipalId,
    /// Of what was told, whatever became of it since; of no meaning in a letter that was read.
    pub hash: u64,
    pub says: Vec<u8>,
}

/// What becomes of a letter that came.
enum Arrival {
    /// It said so before.
    Known,
    /// It is there, and said something else.
    Says,
    /// It is new; its owner has so many.
    New {
        own: u64,
    },
    NoRoom,
}

/// All of them.
pub struct Letters {
    db: Arc<Database>,
    /// Letters in the file, so that asking for their number reads no disk.
    count: AtomicU64,
}

impl Letters {
    /// Opens or makes the file.
    pub fn open(path: &Path) -> Result<Letters, LettersError> {
        let db = open_or_create(path, CACHE_BYTES).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => LettersError::InUse(path.display().to_string()),
            other => storage(other),
        })?;
        let write = db.begin_write().map_err(storage)?;
        let count = write.open_table(OPEN).map_err(storage)?.len().map_err(storage)?;
        write.open_table(SETTLED).map_err(storage)?;
        write.open_table(OWNED).map_err(storage)?;
        write.open_table(SAID).map_err(storage)?;
        Outbox::make_tables(&write)?;
        write.commit().map_err(storage)?;
        let letters = Letters { db: Arc::new(db), count: AtomicU64::new(count) };
        letters.check()?;
        Ok(letters)
    }

    /// Reads everything: letters, marks, owners, and the messages beside them.
    fn check(&self) -> Result<(), LettersError> {
        let read = self.db.begin_read().map_err(storage)?;
        let mut owned: HashMap<u32, u64> = HashMap::new();
        for pair in read.open_table(OPEN).map_err(storage)?.iter().map_err(storage)? {
            let (key, row) = pair.map_err(storage)?;
            unsealed(key.value(), row.value().2)?;
            *owned.entry(row.value().1).or_default() += 1;
        }
        for pair in read.open_table(OWNED).map_err(storage)?.iter().map_err(storage)? {
            let (owner, count) = pair.map_err(storage)?;
            if owned.remove(&owner.value()).unwrap_or(0) != count.value() {
                return Err(LettersError::Damaged(format!("owner {}", owner.value())));
            }
        }
        if let Some(owner) = owned.keys().next() {
            return Err(LettersError::Damaged(format!("owner {owner}")));
        }
        for table in [SETTLED, SAID] {
            for pair in read.open_table(table).map_err(storage)?.iter().map_err(storage)? {
                pair.map_err(storage)?;
            }
        }
        Outbox::check(&read)
    }

    /// The messages beside them that are still tried.
    pub fn outbox(&self) -> Outbox {
        Outbox::new(Arc::clone(&self.db))
    }

    /// What is to be done with a letter that came.
    fn fate(
        letter: &Letter,
        open: &impl ReadableTable<u128, (u64, u32, &'static [u8])>,
        owned: &impl ReadableTable<u32, u64>,
        said: &impl ReadableTable<u128, u64>,
    ) -> Result<Arrival, LettersError> {
        let before = said.get(letter.key.0).map_err(storage)?.map(|hash| hash.value());
        if before == Some(letter.hash) {
            return Ok(Arrival::Known);
        }
        if open.get(letter.key.0).map_err(storage)?.is_some() {
            return Ok(Arrival::Says);
        }
        let own = owned.get(letter.owner.0).map_err(storage)?.map_or(0, |count| count.value());
        let is_full =
            open.len().map_err(storage)? >= limit::LETTERS_MAX || own >= limit::LETTERS_PER_OWNER_MAX;
        Ok(if is_full { Arrival::NoRoom } else { Arrival::New { own } })
    }

    /// How many of these find no room, where there is nothing to write.
    fn refused(&self, letters: &[Letter]) -> Result<Option<usize>, LettersError> {
        let read = self.db.begin_read().map_err(storage)?;
        let open = read.open_table(OPEN).map_err(storage)?;
        let owned = read.open_table(OWNED).map_err(storage)?;
        let said = read.open_table(SAID).map_err(storage)?;
        let mut dropped = 0;
        for letter in letters {
            match Self::fate(letter, &open, &owned, &said)? {
                Arrival::Known => {}
                Arrival::NoRoom => dropped += 1,
                Arrival::Says | Arrival::New { .. } => return Ok(None),
            }
        }
        Ok(Some(dropped))
    }

    /// Keeps letters, in one durable step. One that is there is replaced where it says something else now; one that was
    /// settled comes back only then. Answers how many found no room. Where nothing changes nothing is written.
    pub fn keep(&self, letters: &[Letter]) -> Result<usize, LettersError> {
        if let Some(dropped) = self.refused(letters)? {
            return Ok(dropped);
        }
        let write = self.db.begin_write().map_err(storage)?;
        let (mut dropped, mut kept) = (0, 0);
        {
            let mut open = write.open_table(OPEN).map_err(storage)?;
            let mut settled = write.open_table(SETTLED).map_err(storage)?;
            let mut said = write.open_table(SAID).map_err(storage)?;
            let mut owned = write.open_table(OWNED).map_err(storage)?;
            for letter in letters {
                match Self::fate(letter, &open, &owned, &said)? {
                    Arrival::Known => continue,
                    Arrival::NoRoom => {
                        dropped += 1;
                        continue;
                    }
                    Arrival::Says => {}
                    Arrival::New { own } => {
                        settled.remove(letter.key.0).map_err(storage)?;
                        owned.insert(letter.owner.0, own + 1).map_err(storage)?;
                        kept += 1;
                    }
                }
                said.insert(letter.key.0, letter.hash).map_err(storage)?;
                open.insert(
                    letter.key.0,
                    (letter.at.0, letter.owner.0, &*sealed(letter.key.0, &letter.says)),
                )
                .map_err(storage)?;
            }
        }
        write.commit().map_err(storage)?;
        self.count.fetch_add(kept, Ordering::Relaxed);
        Ok(dropped)
    }

    /// Puts a letter in place of what it said before.
    pub fn replace(&self, letter: &Letter) -> Result<(), LettersError> {
        let write = self.db.begin_write().map_err(storage)?;
        {
            let mut open = write.open_table(OPEN).map_err(storage)?;
            if open.get(letter.key.0).map_err(storage)?.is_some() {
                open.insert(
                    letter.key.0,
                    (letter.at.0, letter.owner.0, &*sealed(letter.key.0, &letter.says)),
                )
                .map_err(storage)?;
            }
        }
        write.commit().map_err(storage)
    }

    /// Lets letters go, in one durable step. Keys without a letter cost a look each, and no write.
    pub fn settle(&self, keys: &[Key], now: Millis) -> Result<(), LettersError> {
        if self.count() == 0 || !self.has_any(keys)? {
            return Ok(());
        }
        let write = self.db.begin_write().map_err(storage)?;
        let mut gone = 0;
        {
            let mut open = write.open_table(OPEN).map_err(storage)?;
            let mut settled = write.open_table(SETTLED).map_err(storage)?;
            let mut owned = write.open_table(OWNED).map_err(storage)?;
            for key in keys {
                let owner = open.remove(key.0).map_err(storage)?.map(|row| row.value().1);
                if let Some(owner) = owner {
                    let own = owned.get(owner).map_err(storage)?.map_or(0, |count| count.value());
                    owned.insert(owner, own.saturating_sub(1)).map_err(storage)?;
                    settled.insert(key.0, now.0).map_err(storage)?;
                    gone += 1;
                }
            }
            // Marks older than what repeats are known of say nothing.
            if settled.len().map_err(storage)? > limit::LETTERS_MAX {
                let since = now.0.saturating_sub(limit::IDEMPOTENCY_MS);
                settled.retain(|_, at| at >= since).map_err(storage)?;
                let mut said = write.open_table(SAID).map_err(storage)?;
                let mut gone = Vec::new();
                for pair in said.iter().map_err(storage)? {
                    let key = pair.map_err(storage)?.0.value();
                    let stays = open.get(key).map_err(storage)?.is_some()
                        || settled.get(key).map_err(storage)?.is_some();
                    gone.extend((!stays).then_some(key));
                }
                for key in gone {
                    said.remove(key).map_err(storage)?;
                }
            }
        }
        write.commit().map_err(storage)?;
        self.count.fetch_sub(gone, Ordering::Relaxed);
        Ok(())
    }

    fn has_any(&self, keys: &[Key]) -> Result<bool, LettersError> {
        let read = self.db.begin_read().map_err(storage)?;
        let open = read.open_table(OPEN).map_err(storage)?;
        for key in keys {
            if open.get(key.0).map_err(storage)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes a copy in a file that is not there yet.
    pub fn copy_to(&self, path: &Path) -> Result<(), LettersError> {
        let copy = Letters::open(path)?;
        let read = self.db.begin_read().map_err(storage)?;
        let write = copy.db.begin_write().map_err(storage)?;
        copy_table(&read, &write, OPEN).map_err(storage)?;
        copy_table(&read, &write, OWNED).map_err(storage)?;
        copy_table(&read, &write, SETTLED).map_err(storage)?;
        copy_table(&read, &write, SAID).map_err(storage)?;
        Outbox::copy(&read, &write).map_err(storage)?;
        write.commit().map_err(storage)
    }

    pub fn find(&self, key: Key) -> Result<Option<Letter>, LettersError> {
        let read = self.db.begin_read().map_err(storage)?;
        let open = read.open_table(OPEN).map_err(storage)?;
        let found = open.get(key.0).map_err(storage)?;
        let letter = |row: redb::AccessGuard<'_, (u64, u32, &'static [u8])>| {
            let (at, owner, says) = row.value();
            let says = unsealed(key.0, says)?.to_vec();
            Ok(Letter { key, at: Millis(at), owner: PrincipalId(owner), hash: 0, says })
        };
        found.map(letter).transpose()
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The newest letters, as far as they are few bytes together.
    pub fn newest(&self, most: usize) -> Result<Vec<Letter>, LettersError> {
        let read = self.db.begin_read().map_err(storage)?;
        let open = read.open_table(OPEN).map_err(storage)?;
        let mut order = Vec::new();
        for row in open.iter().map_err(storage)? {
            let (key, row) = row.map_err(storage)?;
            order.push((row.value().0, key.value()));
        }
        order.sort_unstable_by(|one, other| other.cmp(one));
        order.truncate(most);
        let (mut letters, mut bytes) = (Vec::with_capacity(order.len()), 0);
        for (at, key) in order {
            if let Some(row) = open.get(key).map_err(storage)? {
                let (_, owner, says) = row.value();
                let (owner, says) = (PrincipalId(owner), unsealed(key, says)?.to_vec());
                bytes += says.len();
                if bytes > limit::LETTERS_TOLD_BYTES_MAX && !letters.is_empty() {
                    break;
                }
                letters.push(Letter { key: Key(key), at: Millis(at), owner, hash: 0, says });
            }
        }
        Ok(letters)
    }
}
