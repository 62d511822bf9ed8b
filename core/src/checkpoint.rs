//! The checkpoint: folds journal entries into the snapshot, so that the journal can be cut and a restart is
//! short. It works on the journal alone and never stops the shards.
//!
//! The rows that a stretch of entries touches are loaded into a small ledger, the entries are settled in it
//! exactly as at recovery, and the rows are written back together with the LSN they cover.

use hashbrown::HashSet;

use crate::command::Body;
use crate::drill::{Bug, planted};
use crate::id::{Key, Lsn, ReservationId, ShardOf, SkuId};
use crate::journal::{self, Decoded, JournalError, JournalReader};
use crate::ledger::Ledger;
use crate::limit;
use crate::snapshot::{Covered, Snapshot, SnapshotError};

/// Why folding stopped.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

/// Folds up to [`limit::FOLD_CHUNK_COMMANDS`] entries; answers what is covered now and whether entries were
/// left.
pub fn fold(snapshot: &Snapshot, reader: &dyn JournalReader) -> Result<(Covered, bool), CheckpointError> {
    let covered = snapshot.covered()?;
    let from = covered.lsn.next();
    let mut chunk: Vec<Decoded> = Vec::new();
    let mut commands = 0;
    let mut more = false;
    let mut due = from;
    let mut chain = covered.chain;
    reader.scan(from, &mut |first, bytes| {
        if commands >= limit::FOLD_CHUNK_COMMANDS {
            more = true;
            return Ok(false);
        }
        let mut decoded = journal::decode(first, bytes)?;
        decoded.entries.retain(|entry| entry.lsn >= from);
        let Some(entry) = decoded.entries.first() else { return Ok(true) };
        if entry.lsn != due {
            return Err(JournalError::Gap { expected: due, found: entry.lsn });
        }
        chain = Some(journal::follow(chain, first, bytes)?);
        due = Lsn(due.0 + decoded.entries.len() as u64);
        commands += decoded.entries.len() as u64;
        chunk.push(decoded);
        Ok(true)
    })?;
    let Some(last) = chunk.last().and_then(|decoded| decoded.entries.last()) else {
        return Ok((covered, false));
    };
    let (mut issued, mut ahead_ms) = (covered.issued, covered.ahead_ms);
    let keyed = chunk.iter().flat_map(|decoded| &decoded.entries).filter(|entry| entry.command.key != Key(0));
    for entry in keyed {
        issued = issued.max(entry.command.issued());
        ahead_ms = ahead_ms.max(entry.command.issued().since(entry.now));
    }
    let reached = Covered { lsn: last.lsn, now: last.now, issued, ahead_ms, chain };

    let (skus, reservations) = touched(&chunk);
    let step = snapshot.step()?;
    let mut ledger = Ledger::new(ShardOf::ALL);
    step.load(&mut ledger, &skus, &reservations)?;
    let twice = planted(Bug::FoldTwice).then_some(&chunk[0]);
    for decoded in twice.into_iter().chain(&chunk) {
        for entry in &decoded.entries {
            decoded.settle(entry, &mut ledger);
            if let Body::Define(definition) = &entry.command.body {
                step.define(definition)?;
            }
        }
    }
    step.store(&ledger, &skus, &reservations, reached.lsn)?;
    step.commit(reached)?;
    Ok((reached, more))
}

/// Rows that entries may change, sorted.
fn touched(chunk: &[Decoded]) -> (Vec<SkuId>, Vec<ReservationId>) {
    let mut skus = HashSet::new();
    let mut reservations = HashSet::new();
    for decoded in chunk {
        skus.extend(decoded.movements.iter().map(|movement| movement.sku));
        skus.extend(decoded.promises.iter().map(|promise| promise.sku));
        reservations.extend(decoded.promises.iter().map(|promise| promise.reservation));
        for entry in &decoded.entries {
            match &entry.command.body {
                Body::Reserve(reserve) => {
                    reservations.insert(reserve.id);
                }
                Body::Transition(transition) => {
                    reservations.insert(transition.reservation);
                }
                Body::Expire(id) => {
                    reservations.insert(*id);
                }
                Body::Event(event) => {
                    skus.insert(event.sku);
                    reservations.extend(event.reservation);
                }
                // Also one that moves nothing: what came unannounced is everybody's behind it.
                Body::Balance(sku) => {
                    skus.insert(*sku);
                }
                Body::Allocate(_) | Body::Define(_) | Body::Read(_) => {}
            }
        }
    }
    let (mut skus, mut reservations): (Vec<_>, Vec<_>) =
        (skus.into_iter().collect(), reservations.into_iter().collect());
    skus.sort_unstable();
    reservations.sort_unstable();
    (skus, reservations)
}
