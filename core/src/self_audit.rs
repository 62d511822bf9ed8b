//! The self-audit: while everything goes on, a slice of the snapshot at a time is checked against its own
//! invariants and against what readers are told. It reads what is durable and published, waits for nobody and
//! nobody waits for it.

use crate::bucket::Place;
use crate::id::{ChannelId, Lsn, Millis, ShardOf};
use crate::ledger::{Ledger, audit_claims};
use crate::limit;
use crate::outcome::State;
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
    /// Positions with less stock than claims.
    pub shortages: u64,
    /// Reservations confirmed and not fulfilled, as far as these skus are part of them.
    pub confirmed: u64,
    /// How many of them are older than each of [`limit::AGES_MS`], and since when the oldest is confirmed; 0 for none. Those
    /// whose age is not known count as young.
    pub older: [u64; limit::AGES_MS.len()],
    pub oldest: Millis,
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
    let (mut confirmed, mut older, mut oldest) = (0, [0; limit::AGES_MS.len()], Millis(0));
    for (_, part) in ledger.reservations().iter() {
        if part.state != State::Confirmed || !shard.owns(part.anchor) {
            continue;
        }
        confirmed += 1;
        let since = part.confirmed_at();
        if since == Millis(0) {
            continue;
        }
        let age = covered.now.since(since);
        older.iter_mut().zip(limit::AGES_MS).for_each(|(count, least)| *count += u64::from(age > least));
        if oldest == Millis(0) || since < oldest {
            oldest = since;
        }
    }
    let mut finding = Finding {
        as_of: covered.lsn,
        positions: 0,
        compared: 0,
        shortages: ledger.shortages() as u64,
        confirmed,
        older,
        oldest,
        wrong: Vec::new(),
    };
    if balance != 0 {
        finding.wrong.push(format!("{balance} units came from nowhere"));
    }
    finding.wrong.extend(audit_claims(ledger));
    ledger.all_offers(|place, offer| {
        finding.positions += 1;
        let Ok(Some(told)) = view.offer_as_of(covered.lsn, place) else { return };
        finding.compared += 1;
        if told != offer {
            let Place { sku, node, pool } = place;
            let of = match pool {
                ChannelId::SHARED => String::new(),
                ChannelId::SUPPLIES => " (a number of what is to come)".to_owned(),
                channel => format!(" channel {channel}"),
            };
            finding.wrong.push(format!("sku {sku} node {node}{of}: {offer} free, readers are told {told}"));
        }
    });
    finding.wrong.truncate(FINDINGS_MAX);
    Ok(finding)
}
