//! Recovery: snapshot plus the journal behind it make the state again, and the journal that is kept makes
//! the idempotency window again. No decision is taken a second time.

use crate::admission::{Window, WindowSize};
use crate::catalogue::Catalogue;
use crate::chain::Anchor;
use crate::checkpoint::CheckpointError;
use crate::command::Body;
use crate::drill::{Bug, planted};
use crate::id::{Lsn, Millis, ShardOf};
use crate::journal::{self, Decoded, Entry, JournalError, JournalReader};
use crate::ledger::Ledger;
use crate::limit;
use crate::snapshot::Snapshot;

/// Everything the engine starts from.
#[derive(Debug)]
pub struct Recovered {
    pub ledgers: Vec<Ledger>,
    pub catalogue: Catalogue,
    pub window: Window,
    pub last: Lsn,
    pub now: Millis,
    /// Up to here the snapshot knew.
    pub covered: Lsn,
    /// The chain behind the last record.
    pub anchor: Anchor,
}

/// Reads the state into `shards` ledgers.
pub fn recover(
    snapshot: &Snapshot,
    reader: &dyn JournalReader,
    shards: u32,
    size: WindowSize,
) -> Result<Recovered, CheckpointError> {
    let mut ledgers: Vec<Ledger> =
        (0..shards).map(|index| Ledger::new(ShardOf { index, count: shards })).collect();
    let (mut catalogue, covered) = snapshot.load(&mut ledgers)?;
    let bounds = reader.bounds()?;
    // The last record is never removed, so the journal always reaches at least as far as the snapshot.
    if bounds.map_or(Lsn::NONE, |(_, last)| last) < covered.lsn {
        return Err(JournalError::Behind { covered: covered.lsn }.into());
    }
    let first = bounds.map_or(covered.lsn.next(), |(first, _)| first);
    if first > covered.lsn.next() {
        return Err(JournalError::Gap { expected: covered.lsn.next(), found: first }.into());
    }
    let mut window = Window::new(size, first);
    let (mut last, mut now) = (covered.lsn, covered.now);
    let mut forgot_some = first > Lsn(1);
    let mut anchor = Anchor::default();
    // The record that ends where the snapshot does is never removed.
    let mut met = covered.chain.is_none();
    let take = |decoded: &Decoded, entry: &Entry| {
        if std::mem::take(&mut forgot_some) {
            // What is no longer in the journal was received before this, and folded.
            let ahead_ms = covered.ahead_ms.max(limit::ISSUED_AHEAD_MS_MAX);
            window.forget(entry.now.plus(ahead_ms).min(covered.issued));
        }
        window.record(entry.lsn, entry.principal, &entry.command, entry.now);
        if entry.lsn <= covered.lsn {
            return Ok(true);
        }
        if let Body::Define(definition) = &entry.command.body {
            catalogue.define(definition).map_err(|_| JournalError::Damaged {
                lsn: entry.lsn,
                reason: "its definition does not fit the catalogue",
            })?;
        }
        ledgers.iter_mut().for_each(|ledger| decoded.settle(entry, ledger));
        if decoded.last() == Some(entry.lsn) {
            // There are no readers yet.
            ledgers.iter_mut().for_each(|ledger| ledger.drain_changed(|_, _| {}));
        }
        (last, now) = (entry.lsn, entry.now);
        Ok(true)
    };
    journal::replay(reader, first, take, |behind| {
        anchor = behind;
        met |= behind.lsn == covered.lsn && covered.chain == Some(behind.chain);
        Ok(())
    })?;
    if !met {
        return Err(JournalError::Rewritten { lsn: covered.lsn }.into());
    }
    let rules = catalogue.rules();
    for ledger in &mut ledgers {
        ledger.note_unbalanced(now, &rules, true);
        ledger.drain_changed(|_, _| {});
    }
    if planted(Bug::ForgetKeys) {
        window = Window::new(size, last.next());
    }
    Ok(Recovered { ledgers, catalogue, window, last, now, covered: covered.lsn, anchor })
}
