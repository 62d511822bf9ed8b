//! The self-audit: while everything goes on, a slice of the snapshot at a time is checked against its own
//! invariants and against what readers are told. It reads what is durable and published, waits for nobody and
//! nobody waits for it.

use crate::id::{Lsn, ShardOf};
use crate::ledger::{Ledger, audit_claims};
use crate::limit;
use crate::snapshot::{Snapshot, SnapshotError};
use crate::view::View;

/// What one slice showed.
#[derive(Debug)]
pub struct Finding {
    /// The state that was checked.
    pub as_of: Lsn,
    pub positions: u64,
    /// Positions compared with the view; the others have changed twice since.
    pub compared: u64,
    /// What does not hold, the first findings only; empty is good.
    pub wrong: Vec<String>,
}

const FINDINGS_MAX: usize = 20;

/// Checks the skus of one slice of [`limit::AUDIT_SLICES`]: claims against counters, free units against the view;
/// and that all units of all skus, with those outside, sum to zero.
pub fn check(snapshot: &Snapshot, view: &View, slice: u32) -> Result<Finding, SnapshotError> {
    let shard = ShardOf { index: slice % limit::AUDIT_SLICES, count: limit::AUDIT_SLICES };
    let mut ledgers = [Ledger::new(shard)];
    let (covered, balance) = snapshot.load_state(&mut ledgers)?;
    let [ledger] = &ledgers;
    let mut finding = Finding { as_of: covered.lsn, positions: 0, compared: 0, wrong: Vec::new() };
    if balance != 0 {
        finding.wrong.push(format!("{balance} units came from nowhere"));
    }
    finding.wrong.extend(audit_claims(ledger));
    ledger.all_free(|sku, node, free| {
        finding.positions += 1;
        let mut told = None;
        let read = view.positions_as_of(covered.lsn, sku, |found, units| {
            if found == node {
                told = Some(units);
            }
        });
        let Some(told) = told.filter(|_| read.is_ok()) else { return };
        finding.compared += 1;
        if told != free {
            finding.wrong.push(format!("sku {sku} node {node}: {free} free, readers are told {told}"));
        }
    });
    finding.wrong.truncate(FINDINGS_MAX);
    Ok(finding)
}
