//! Verification, offline: the recorded state against its invariants, and against doing everything again.

use crate::admission::WindowSize;
use crate::catalogue::{Catalogue, Defined, check};
use crate::chain::Anchor;
use crate::checkpoint::CheckpointError;
use crate::command::Body;
use crate::id::{ChannelId, Lsn, Millis, ShardOf};
use crate::journal::{self, Decoded, Entry, JournalReader};
use crate::ledger::{Effects, Ledger, Mark, Moment, Outcome, StateHash, audit, merge_movements};
use crate::outcome::Code;
use crate::recovery::recover;
use crate::snapshot::Snapshot;

/// What was found.
#[derive(Debug)]
pub struct Report {
    pub last: Lsn,
    pub state_hash: StateHash,
    /// The chain behind the last record.
    pub anchor: Anchor,
    /// Entries in the journal.
    pub entries: u64,
    /// Entries decided again and compared.
    pub re_executed: u64,
    /// Whether that was everything since the first LSN.
    pub from_the_start: bool,
    /// What does not hold, the first findings only; empty is good.
    pub wrong: Vec<String>,
}

const FINDINGS_MAX: usize = 20;

/// Recovers the state, checks every invariant, then decides every command behind the snapshot again, or
/// every command there ever was if the journal goes back to the first, and compares outcome by outcome,
/// movement by movement, and the state hash. With an `anchor`, written down outside earlier, the chain must go
/// through it.
pub fn verify(
    snapshot: &Snapshot,
    reader: &dyn JournalReader,
    anchor: Option<Anchor>,
) -> Result<Report, CheckpointError> {
    let size = WindowSize { commands: 0, ..WindowSize::default() };
    let recovered = recover(snapshot, reader, 1, size)?;
    let mut wrong = audit(&recovered.ledgers);
    let state_hash = recovered.ledgers[0].state_hash();
    if let Some(anchor) = anchor {
        wrong.extend(check_anchor(reader, anchor)?);
    }
    let bounds = reader.bounds()?;
    let from_the_start = bounds.is_some_and(|(first, _)| first == Lsn(1));

    let mut again = Ledger::new(ShardOf::ALL);
    let mut catalogue = Catalogue::default();
    let mut from = Lsn(1);
    if !from_the_start {
        let mut ledgers = [again];
        let (loaded, covered) = snapshot.load(&mut ledgers)?;
        [again] = ledgers;
        catalogue = loaded;
        from = covered.lsn.next();
    }
    let entries = bounds.map_or(0, |(first, last)| last.0 + 1 - first.0);
    let mut re_executed = 0;
    let mut effects = Effects::default();
    if from <= recovered.last {
        let take = |decoded: &Decoded, entry: &Entry| {
            re_executed += 1;
            effects.clear();
            let moment = Moment { lsn: entry.lsn, now: entry.now };
            let body = &entry.command.body;
            let outcome = execute(&mut again, &mut catalogue, moment, body, &decoded.lines, &mut effects);
            let recorded = decoded.told(entry);
            // The scope of a transition is checked at the door's request and not recorded: a foreign
            // channel's step is told that the reservation is unknown, and stays refused.
            let foreign =
                matches!(body, Body::Transition(_)) && entry.outcome.code == Code::UnknownReservation;
            // What lay in the future, the wall clock of then knew; it moved nothing.
            let early = entry.outcome.code == Code::EventInFuture && recorded.movements.is_empty();
            // Whose reservation it was, journals of formats 1 and 2 do not say.
            let known = entry.outcome.channel != ChannelId::SHARED;
            let channel = if known { outcome.channel } else { ChannelId::SHARED };
            let outcome = Outcome { channel, ..outcome };
            let same = foreign || early || outcome == entry.outcome && effects.told() == recorded;
            if !same && wrong.len() < FINDINGS_MAX {
                wrong.push(format!(
                    "LSN {}: recorded {:?} with {:?}, doing it again gives {outcome:?} with {:?}",
                    entry.lsn, entry.outcome, recorded.movements, effects.movements
                ));
            }
            if same {
                decoded.settle(entry, &mut again);
            }
            if decoded.last() == Some(entry.lsn) {
                again.drain_changed(|_, _| {});
            }
            Ok(same)
        };
        journal::replay(reader, from, take, |_| Ok(()))?;
    }
    let hash_again = again.state_hash();
    if wrong.is_empty() && hash_again != state_hash {
        wrong.push(format!("doing it again gives state hash {hash_again}, not {state_hash}"));
    }
    let (last, anchor) = (recovered.last, recovered.anchor);
    Ok(Report { last, state_hash, anchor, entries, re_executed, from_the_start, wrong })
}

/// The catalogue as of the last LSN of the journal, and that LSN.
pub fn recovered_catalogue(
    snapshot: &Snapshot,
    reader: &dyn JournalReader,
) -> Result<(Catalogue, Lsn), CheckpointError> {
    let recovered = recover(snapshot, reader, 1, WindowSize { commands: 0, ..WindowSize::default() })?;
    Ok((recovered.catalogue, recovered.last))
}

/// Says what is wrong where the chain does not go through an anchor.
fn check_anchor(reader: &dyn JournalReader, anchor: Anchor) -> Result<Option<String>, CheckpointError> {
    let mut wrong = Some(format!("no journal record ends at the anchor's LSN {}", anchor.lsn));
    let from = reader.bounds()?.map_or(Lsn(1), |(first, _)| first);
    journal::replay(
        reader,
        from,
        |_, entry| Ok(entry.lsn <= anchor.lsn),
        |behind| {
            if behind.lsn == anchor.lsn {
                wrong = (behind != anchor).then(|| format!("the chain is {behind}, not {anchor}"));
            }
            Ok(())
        },
    )?;
    Ok(wrong)
}

/// Decides one command as the sequencer and a single shard would.
fn execute(
    ledger: &mut Ledger,
    catalogue: &mut Catalogue,
    moment: Moment,
    body: &Body,
    lines: &[crate::command::Line],
    effects: &mut Effects,
) -> Outcome {
    if let Body::Define(definition) = body {
        return match catalogue.define(definition) {
            Ok(Defined::Changed(_) | Defined::Same(_)) => Outcome::of(Code::Ok),
            Err(code) => Outcome::of(code),
        };
    }
    let rules = catalogue.rules();
    // Which events lay in the future, the wall clock of then knew.
    match check(&rules, catalogue.sku_count(), body, lines, Millis(u64::MAX)) {
        Code::Ok => {}
        code => return Outcome::of(code),
    }
    let outcome = match ledger.decide(moment, &rules, body, lines, effects) {
        Some(decision) => Ledger::conclude(body, decision, decision.ballot, effects, Mark::default()),
        None if matches!(body, Body::Expire(_)) => Outcome::of(Code::NotDue),
        None => Outcome::of(Code::UnknownReservation),
    };
    if !matches!(outcome.code, Code::Ok | Code::InsufficientStock) {
        effects.shorts.clear();
    }
    if !matches!(body, Body::Event(_) | Body::Allocate(_) | Body::Balance(_)) {
        merge_movements(&mut effects.movements, 0);
        effects.shorts.sort_unstable();
        effects.promises.sort_unstable();
    }
    outcome
}
