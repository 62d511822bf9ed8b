//! The audit trail: what was done that binds others, and what was refused to whom, in a redb file of its own. What a
//! record says is its keeper's business; here it is bytes behind a number.
//!
//! The records of each kind form a chain of hashes, as those of the [journal](crate::chain) do: none can be edited,
//! removed or put elsewhere without notice. Where the chains end stands beside them, so that a trail that was cut off is
//! noticed, too. Whoever rewrites even that does not meet an end that was written down outside.

use std::path::Path;

use redb::{Database, DatabaseError, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition};

use crate::chain::Chain;
use crate::id::Millis;
use crate::journal::file::open_or_create;
use crate::letters::copy_table;
use crate::limit;

/// By kind and number: when it was, what it says, and the chain behind it.
const RECORDS: TableDefinition<(u8, u64), Row> = TableDefinition::new("audit");
/// By kind: how many are kept, the chain before the first of them, the number of the last, and the chain behind it.
const ENDS: TableDefinition<u8, End> = TableDefinition::new("audit_ends");
type Row = (u64, &'static [u8], &'static [u8; 32]);
type End = (u64, &'static [u8; 32], u64, &'static [u8; 32]);
const CACHE_BYTES: usize = 4 << 20;

#[derive(Debug, thiserror::Error)]
pub enum AuditTrailError {
    #[error("audit trail: {0}")]
    Storage(String),
    #[error("{0} is in use by another process")]
    InUse(String),
}

fn storage(error: impl std::fmt::Display) -> AuditTrailError {
    AuditTrailError::Storage(error.to_string())
}

/// What records are about. Each kind has a chain and a bound of its own: whoever is refused a million times does not
/// push out what administrators did.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AuditKind {
    /// Something was done that binds others.
    Administration,
    /// Somebody was refused.
    Refusal,
}

impl AuditKind {
    pub const ALL: [AuditKind; 2] = [AuditKind::Administration, AuditKind::Refusal];

    pub fn name(self) -> &'static str {
        ["administration", "refusal"][self as usize]
    }

    pub fn from_name(name: &str) -> Option<AuditKind> {
        AuditKind::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A record as it is kept. Numbers ascend over both kinds.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditRecord {
    pub kind: AuditKind,
    pub number: u64,
    pub at: Millis,
    pub says: Vec<u8>,
}

/// The chain of a kind behind a record, as printed and written down: `KIND:NUMBER:HEX`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AuditAnchor {
    pub kind: AuditKind,
    pub number: u64,
    pub chain: Chain,
}

impl std::fmt::Display for AuditAnchor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.kind.name(), self.number, self.chain)
    }
}

impl std::str::FromStr for AuditAnchor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<AuditAnchor, &'static str> {
        let read = || {
            let (kind, rest) = text.split_once(':')?;
            let (number, chain) = rest.split_once(':')?;
            let kind = AuditKind::from_name(kind)?;
            Some(AuditAnchor { kind, number: number.parse().ok()?, chain: chain.parse().ok()? })
        };
        read().ok_or(
            "an audit anchor is KIND:NUMBER:HEX with 64 hexadecimal digits, as `stockline verify` prints it",
        )
    }
}

/// The chain behind one more record.
fn behind(chain: Chain, number: u64, at: u64, says: &[u8]) -> Chain {
    let mut record = Vec::with_capacity(16 + says.len());
    record.extend_from_slice(&number.to_le_bytes());
    record.extend_from_slice(&at.to_le_bytes());
    record.extend_from_slice(says);
    chain.next(&record)
}

/// Records of a kind up to a number.
fn up_to(kind: AuditKind, number: u64) -> std::ops::RangeInclusive<(u8, u64)> {
    (kind as u8, 0)..=(kind as u8, number)
}

/// All records.
pub struct AuditTrail {
    db: Database,
}

impl AuditTrail {
    /// Opens or makes the file.
    pub fn open(path: &Path) -> Result<AuditTrail, AuditTrailError> {
        let db = open_or_create(path, CACHE_BYTES).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => AuditTrailError::InUse(path.display().to_string()),
            other => storage(other),
        })?;
        let write = db.begin_write().map_err(storage)?;
        write.open_table(RECORDS).map_err(storage)?;
        write.open_table(ENDS).map_err(storage)?;
        write.commit().map_err(storage)?;
        Ok(AuditTrail { db })
    }

    /// Writes records down, in one durable step, and lets the oldest of a kind go where there are more than may be.
    pub fn append(&self, records: &[(AuditKind, Millis, Vec<u8>)]) -> Result<(), AuditTrailError> {
        let write = self.db.begin_write().map_err(storage)?;
        {
            let mut table = write.open_table(RECORDS).map_err(storage)?;
            let mut ends = write.open_table(ENDS).map_err(storage)?;
            let mut state = [(0, Chain::START, 0, Chain::START); AuditKind::ALL.len()];
            for (state, kind) in state.iter_mut().zip(AuditKind::ALL) {
                if let Some(end) = ends.get(kind as u8).map_err(storage)? {
                    let (kept, before, last, chain) = end.value();
                    *state = (kept, Chain(*before), last, Chain(*chain));
                }
            }
            let mut last_of_all = state.iter().map(|(_, _, last, _)| *last).max().unwrap_or(0);
            for (kind, at, says) in records {
                let (kept, _, last, chain) = &mut state[*kind as usize];
                last_of_all += 1;
                *last = last_of_all;
                *chain = behind(*chain, *last, at.0, says);
                *kept += 1;
                table.insert((*kind as u8, *last), (at.0, &**says, &chain.0)).map_err(storage)?;
            }
            for ((kept, before, last, chain), kind) in state.iter_mut().zip(AuditKind::ALL) {
                while *kept > limit::AUDIT_RECORDS_MAX {
                    let oldest = table.range(up_to(kind, u64::MAX)).map_err(storage)?.next();
                    let Some(oldest) = oldest.transpose().map_err(storage)? else { break };
                    let key = oldest.0.value();
                    *before = Chain(*oldest.1.value().2);
                    drop(oldest);
                    table.remove(key).map_err(storage)?;
                    *kept -= 1;
                }
                ends.insert(kind as u8, (*kept, &before.0, *last, &chain.0)).map_err(storage)?;
            }
        }
        write.commit().map_err(storage)
    }

    /// The newest records of some kinds before a number, the newest first.
    pub fn newest(
        &self,
        kinds: &[AuditKind],
        before: u64,
        most: usize,
    ) -> Result<Vec<AuditRecord>, AuditTrailError> {
        let read = self.db.begin_read().map_err(storage)?;
        let table = read.open_table(RECORDS).map_err(storage)?;
        let mut found = Vec::new();
        for &kind in kinds {
            let range = table.range(up_to(kind, before.saturating_sub(1))).map_err(storage)?;
            for row in range.rev().take(most) {
                let (key, row) = row.map_err(storage)?;
                let (at, says, _) = row.value();
                let (number, at, says) = (key.value().1, Millis(at), says.to_vec());
                found.push(AuditRecord { kind, number, at, says });
            }
        }
        found.sort_unstable_by_key(|record| std::cmp::Reverse(record.number));
        found.truncate(most);
        Ok(found)
    }

    /// Where the chains end.
    pub fn ends(&self) -> Result<[AuditAnchor; 2], AuditTrailError> {
        let read = self.db.begin_read().map_err(storage)?;
        Ok(ends(&read)?.map(|(_, _, end)| end))
    }

    /// What does not hold: records that are not what was written, or not there, and anchors that the chains do not go
    /// through. Of each kind it names the first only.
    pub fn verify(&self, anchors: &[AuditAnchor]) -> Result<Vec<String>, AuditTrailError> {
        let read = self.db.begin_read().map_err(storage)?;
        let table = read.open_table(RECORDS).map_err(storage)?;
        let mut wrong = Vec::new();
        for (kept, before, end) in ends(&read)? {
            let (kind, name) = (end.kind, end.kind.name());
            let mut anchors: Vec<&AuditAnchor> =
                anchors.iter().filter(|anchor| anchor.kind == kind).collect();
            let (mut chain, mut count, mut last) = (before, 0, 0);
            let mut sound = true;
            for row in table.range(up_to(kind, u64::MAX)).map_err(storage)? {
                let (key, row) = row.map_err(storage)?;
                let (at, says, told) = row.value();
                last = key.value().1;
                chain = behind(chain, last, at, says);
                count += 1;
                if chain.0 != *told {
                    wrong.push(format!(
                        "audit trail: {name} {last} is not what was written, or one before it is gone"
                    ));
                    sound = false;
                    break;
                }
                anchors.retain(|anchor| anchor.number != last || anchor.chain != chain);
            }
            if sound && (count, last, chain) != (kept, if kept > 0 { end.number } else { 0 }, end.chain) {
                wrong.push(format!("audit trail: it ends with {name} {last} and had one {}", end.number));
            }
            let nothing = AuditAnchor { kind, number: 0, chain: Chain::START };
            for anchor in anchors.into_iter().filter(|anchor| **anchor != nothing) {
                wrong.push(format!("audit trail: it does not go through {anchor}"));
            }
        }
        Ok(wrong)
    }

    /// Makes a copy in a file that is not there yet.
    pub fn copy_to(&self, path: &Path) -> Result<(), AuditTrailError> {
        let copy = AuditTrail::open(path)?;
        let read = self.db.begin_read().map_err(storage)?;
        let write = copy.db.begin_write().map_err(storage)?;
        copy_table(&read, &write, RECORDS).map_err(storage)?;
        copy_table(&read, &write, ENDS).map_err(storage)?;
        write.commit().map_err(storage)
    }
}

/// Of each kind: how many are kept, the chain before the first, and where it ends.
fn ends(read: &ReadTransaction) -> Result<[(u64, Chain, AuditAnchor); 2], AuditTrailError> {
    let table = read.open_table(ENDS).map_err(storage)?;
    let mut all =
        AuditKind::ALL.map(|kind| (0, Chain::START, AuditAnchor { kind, number: 0, chain: Chain::START }));
    for (kept, before, end) in &mut all {
        if let Some(row) = table.get(end.kind as u8).map_err(storage)? {
            let (count, first, number, chain) = row.value();
            (*kept, *before) = (count, Chain(*first));
            (end.number, end.chain) = (number, Chain(*chain));
        }
    }
    Ok(all)
}
