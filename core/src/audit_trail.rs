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
/// By kind: how many are kept, number and chain of the last that was let go, and number and chain of the last.
const ENDS: TableDefinition<u8, End> = TableDefinition::new("audit_ends");
type Row = (u64, &'static [u8], &'static [u8; 32]);
type End = (u64, u64, &'static [u8; 32], u64, &'static [u8; 32]);
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

/// What there is of a kind.
#[derive(Clone, Copy)]
struct Kept {
    count: u64,
    /// The last that was let go, and the last of all.
    gone: AuditAnchor,
    last: AuditAnchor,
}

/// What verification found.
#[derive(Debug, Default, PartialEq)]
pub struct Verified {
    /// What does not hold.
    pub wrong: Vec<String>,
    /// Anchors of records that were let go: nothing can be said of them.
    pub too_old: Vec<AuditAnchor>,
}

/// All records.
pub struct AuditTrail {
    db: Database,
    /// As many of each kind are kept.
    most: u64,
}

impl AuditTrail {
    /// Opens or makes the file.
    pub fn open(path: &Path) -> Result<AuditTrail, AuditTrailError> {
        AuditTrail::bounded(path, limit::AUDIT_RECORDS_MAX)
    }

    /// The same, to keep so many of each kind.
    pub fn bounded(path: &Path, most: u64) -> Result<AuditTrail, AuditTrailError> {
        let db = open_or_create(path, CACHE_BYTES).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => AuditTrailError::InUse(path.display().to_string()),
            other => storage(other),
        })?;
        let write = db.begin_write().map_err(storage)?;
        write.open_table(RECORDS).map_err(storage)?;
        write.open_table(ENDS).map_err(storage)?;
        write.commit().map_err(storage)?;
        Ok(AuditTrail { db, most })
    }

    /// Writes records down, in one durable step, and lets the oldest of a kind go where there are more than may be.
    pub fn append(&self, records: &[(AuditKind, Millis, Vec<u8>)]) -> Result<(), AuditTrailError> {
        let write = self.db.begin_write().map_err(storage)?;
        {
            let mut table = write.open_table(RECORDS).map_err(storage)?;
            let mut ends = write.open_table(ENDS).map_err(storage)?;
            let mut all = kept(&ends)?;
            let mut number = all.iter().map(|kept| kept.last.number).max().unwrap_or(0);
            for (kind, at, says) in records {
                number += 1;
                let Kept { count, last, .. } = &mut all[*kind as usize];
                *count += 1;
                (last.number, last.chain) = (number, behind(last.chain, number, at.0, says));
                table.insert((*kind as u8, number), (at.0, &**says, &last.chain.0)).map_err(storage)?;
            }
            for Kept { count, gone, last } in &mut all {
                while *count > self.most {
                    let oldest = table.range(up_to(last.kind, u64::MAX)).map_err(storage)?.next();
                    let Some((key, row)) = oldest.transpose().map_err(storage)? else { break };
                    (gone.number, gone.chain) = (key.value().1, Chain(*row.value().2));
                    drop((key, row));
                    table.remove((last.kind as u8, gone.number)).map_err(storage)?;
                    *count -= 1;
                }
                let end = (*count, gone.number, &gone.chain.0, last.number, &last.chain.0);
                ends.insert(last.kind as u8, end).map_err(storage)?;
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

    fn kept(&self, read: &ReadTransaction) -> Result<[Kept; 2], AuditTrailError> {
        kept(&read.open_table(ENDS).map_err(storage)?)
    }

    /// Where the chains end.
    pub fn ends(&self) -> Result<[AuditAnchor; 2], AuditTrailError> {
        let read = self.db.begin_read().map_err(storage)?;
        Ok(self.kept(&read)?.map(|kept| kept.last))
    }

    /// Whether all is as it was written, and the chains go through the anchors. Of records of a kind that are not what
    /// was written, or not there, it names the first only.
    pub fn verify(&self, anchors: &[AuditAnchor]) -> Result<Verified, AuditTrailError> {
        let read = self.db.begin_read().map_err(storage)?;
        let table = read.open_table(RECORDS).map_err(storage)?;
        let mut found = Verified::default();
        for Kept { count, gone, last } in self.kept(&read)? {
            let name = last.kind.name();
            let mut wrong = |what: String| found.wrong.push(format!("audit trail: {what}"));
            let mut open: Vec<AuditAnchor> = anchors
                .iter()
                .copied()
                .filter(|anchor| anchor.kind == last.kind && anchor.number > 0)
                .collect();
            let (mut at, mut seen, mut sound) = (gone, 0, true);
            open.retain(|anchor| *anchor != at);
            for row in table.range(up_to(last.kind, u64::MAX)).map_err(storage)? {
                let (key, row) = row.map_err(storage)?;
                let (moment, says, told) = row.value();
                at.number = key.value().1;
                at.chain = behind(at.chain, at.number, moment, says);
                seen += 1;
                if at.chain.0 != *told {
                    sound = false;
                    wrong(format!("{name} {} is not what was written, or one before it is gone", at.number));
                    break;
                }
                open.retain(|anchor| *anchor != at);
            }
            if sound && (at != last || seen != count) {
                wrong(format!(
                    "it ends with {name} {}, the {seen}th, and had {} as the {count}th",
                    at.number, last.number
                ));
            }
            if gone.number > 0 && count < self.most {
                wrong(format!("{name} up to {} is gone, and had not to go", gone.number));
            }
            for anchor in open {
                if anchor.number < gone.number {
                    found.too_old.push(anchor);
                } else {
                    found.wrong.push(format!("audit trail: it does not go through {anchor}"));
                }
            }
        }
        Ok(found)
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

fn kept(ends: &impl ReadableTable<u8, End>) -> Result<[Kept; 2], AuditTrailError> {
    let mut all = AuditKind::ALL.map(|kind| {
        let nothing = AuditAnchor { kind, number: 0, chain: Chain::START };
        Kept { count: 0, gone: nothing, last: nothing }
    });
    for kept in &mut all {
        if let Some(row) = ends.get(kept.last.kind as u8).map_err(storage)? {
            let (count, gone, gone_chain, last, chain) = row.value();
            kept.count = count;
            (kept.gone.number, kept.gone.chain) = (gone, Chain(*gone_chain));
            (kept.last.number, kept.last.chain) = (last, Chain(*chain));
        }
    }
    Ok(all)
}
