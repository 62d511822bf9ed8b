//! The outbox: messages of webhooks that wait for their receivers, and how far each receiver is. It lies in the file of
//! the [letters](crate::letters), because a message that cannot be delivered becomes one. What a message or a state says
//! is its keeper's business.

use std::sync::Arc;

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use xxhash_rust::xxh3::xxh3_128;

use crate::letters::{LettersError, copy_table, sealed, storage, unsealed};

/// By webhook: how far its receiver is.
const STATES: TableDefinition<&str, &[u8]> = TableDefinition::new("webhook_states");
/// By webhook and in the order in which they go out: messages.
const WAITING: TableDefinition<(&str, u64), &[u8]> = TableDefinition::new("webhook_messages");

/// What a row's checksum depends on besides its bytes.
fn seed(webhook: &str, number: u64) -> u128 {
    xxh3_128(webhook.as_bytes()) ^ u128::from(number)
}

#[derive(Clone)]
pub struct Outbox {
    db: Arc<Database>,
}

/// What is there of a webhook.
#[derive(Debug, Default, PartialEq)]
pub struct Kept {
    /// None: nothing was kept of it yet.
    pub state: Option<Vec<u8>>,
    /// Numbers and bytes of the messages that wait.
    pub waiting: Vec<(u64, usize)>,
}

impl Outbox {
    pub(crate) fn new(db: Arc<Database>) -> Outbox {
        Outbox { db }
    }

    pub(crate) fn make_tables(write: &WriteTransaction) -> Result<(), LettersError> {
        write.open_table(STATES).map_err(storage)?;
        write.open_table(WAITING).map_err(storage)?;
        Ok(())
    }

    /// In one durable step: a webhook's state, messages that wait from now on, and that those below a number do no more.
    pub fn keep<'a>(
        &self,
        webhook: &str,
        state: &[u8],
        messages: impl IntoIterator<Item = (u64, &'a [u8])>,
        settled_below: u64,
    ) -> Result<(), LettersError> {
        let write = self.db.begin_write().map_err(storage)?;
        {
            let mut waiting = write.open_table(WAITING).map_err(storage)?;
            for (number, message) in messages {
                let row = sealed(seed(webhook, number), message);
                waiting.insert((webhook, number), &*row).map_err(storage)?;
            }
            waiting.retain_in((webhook, 0)..(webhook, settled_below), |_, _| false).map_err(storage)?;
            write
                .open_table(STATES)
                .map_err(storage)?
                .insert(webhook, &*sealed(seed(webhook, 0), state))
                .map_err(storage)?;
        }
        write.commit().map_err(storage)
    }

    /// A webhook was given up.
    pub fn forget(&self, webhook: &str) -> Result<(), LettersError> {
        let write = self.db.begin_write().map_err(storage)?;
        {
            let mut waiting = write.open_table(WAITING).map_err(storage)?;
            waiting.retain_in((webhook, 0)..=(webhook, u64::MAX), |_, _| false).map_err(storage)?;
            write.open_table(STATES).map_err(storage)?.remove(webhook).map_err(storage)?;
        }
        write.commit().map_err(storage)
    }

    /// Webhooks of which something is kept.
    pub fn webhooks(&self) -> Result<Vec<String>, LettersError> {
        let read = self.db.begin_read().map_err(storage)?;
        let states = read.open_table(STATES).map_err(storage)?;
        let mut all = Vec::new();
        for row in states.iter().map_err(storage)? {
            all.push(row.map_err(storage)?.0.value().to_owned());
        }
        Ok(all)
    }

    /// How far a webhook's receiver is.
    pub fn state(&self, webhook: &str) -> Result<Option<Vec<u8>>, LettersError> {
        let read = self.db.begin_read().map_err(storage)?;
        let states = read.open_table(STATES).map_err(storage)?;
        let state = states.get(webhook).map_err(storage)?;
        state.map(|row| unsealed(seed(webhook, 0), row.value()).map(<[u8]>::to_vec)).transpose()
    }

    pub fn find(&self, webhook: &str) -> Result<Kept, LettersError> {
        let read = self.db.begin_read().map_err(storage)?;
        let states = read.open_table(STATES).map_err(storage)?;
        let state = states.get(webhook).map_err(storage)?;
        let state =
            state.map(|row| unsealed(seed(webhook, 0), row.value()).map(<[u8]>::to_vec)).transpose()?;
        let waiting = read.open_table(WAITING).map_err(storage)?;
        let mut kept = Kept { state, waiting: Vec::new() };
        for row in waiting.range((webhook, 0)..=(webhook, u64::MAX)).map_err(storage)? {
            let (key, message) = row.map_err(storage)?;
            let (_, number) = key.value();
            kept.waiting.push((number, unsealed(seed(webhook, number), message.value())?.len()));
        }
        Ok(kept)
    }

    /// A message that waits.
    pub fn message(&self, webhook: &str, number: u64) -> Result<Option<Vec<u8>>, LettersError> {
        let read = self.db.begin_read().map_err(storage)?;
        let waiting = read.open_table(WAITING).map_err(storage)?;
        let found = waiting.get((webhook, number)).map_err(storage)?;
        found.map(|row| unsealed(seed(webhook, number), row.value()).map(<[u8]>::to_vec)).transpose()
    }

    /// Reads everything.
    pub(crate) fn check(read: &ReadTransaction) -> Result<(), LettersError> {
        for row in read.open_table(STATES).map_err(storage)?.iter().map_err(storage)? {
            let (webhook, state) = row.map_err(storage)?;
            unsealed(seed(webhook.value(), 0), state.value())?;
        }
        for row in read.open_table(WAITING).map_err(storage)?.iter().map_err(storage)? {
            let (key, message) = row.map_err(storage)?;
            let (webhook, number) = key.value();
            unsealed(seed(webhook, number), message.value())?;
        }
        Ok(())
    }

    /// Copies all of it, as it was when `read` began.
    pub(crate) fn copy(read: &ReadTransaction, write: &WriteTransaction) -> Result<(), redb::Error> {
        copy_table(read, write, STATES)?;
        copy_table(read, write, WAITING)
    }
}
