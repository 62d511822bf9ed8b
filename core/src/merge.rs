//! Merging: the outputs of all shards for one batch become journal entries and the replies to each frame.
//!
//! A reply and the answer to its repeat are made from the same things, outcome, movements and shortages, by
//! the same function: a repeat is told exactly what the first one was told.

use crate::batch::{Batch, Slot};
use crate::bucket::Movement;
use crate::command::{Body, Command, Read, Reserve};
use crate::id::{Lsn, Millis, NodeId, ReservationId, SkuId};
use crate::journal::{Decoded, Entry, JournalRecord};
use crate::label::Labels;
use crate::ledger::{
    Answer, Ballot, Claim, Effects, Ledger, Mark, NEVER, Outcome, PositionAnswer, Promise, Share, THERE,
    Told, Trace, merge_movements,
};
use crate::limit;
use crate::outcome::Code;
use crate::record::{MovementRec, PromiseRec, ShortRec};
use crate::shard::Output;

/// The answer to one command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reply {
    pub lsn: Lsn,
    pub outcome: Outcome,
    /// The command came before; this is what it was told then.
    pub repeat: bool,
    /// Definitions and look-ups: the id.
    pub id: u32,
    /// How many of the frame's parts belong to it.
    pub parts: u32,
}

/// A claim (where `node` is one) or a shortage (where it is none, and `quantity` is what there would be).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// Shortage: index of the line within its reservation.
    pub line: u16,
    pub sku: SkuId,
    pub node: NodeId,
    pub quantity: u32,
    /// When it is there, as promised.
    pub at: Millis,
}

/// A reservation as it stands.
#[derive(Clone, PartialEq, Debug)]
pub struct Seen {
    pub outcome: Outcome,
    /// Each with when it is there.
    pub claims: Vec<(Claim, Millis)>,
    pub labels: Labels,
}

/// Answers to a frame's commands, in their order.
#[derive(Default, Debug)]
pub struct FrameReply {
    pub replies: Vec<Reply>,
    pub parts: Vec<Part>,
    pub positions: Vec<PositionAnswer>,
    pub reservations: Vec<Seen>,
    /// Reservations that have a text, by their ids.
    pub found: Vec<Vec<ReservationId>>,
    pub allocations: Vec<Vec<Share>>,
    /// What was seen for explanations, with the index of the reservation.
    pub traces: Vec<(u32, Trace)>,
    /// Events that were refused, for whoever keeps them, with why.
    pub refused: Vec<(Code, Command)>,
    /// The state the reads saw.
    pub as_of: Lsn,
    settled: bool,
}

fn bare(code: Code, lsn: Lsn, repeat: bool, id: u32) -> Reply {
    Reply { lsn, outcome: Outcome::of(code), repeat, id, parts: 0 }
}

/// Appends the answer to a command with an LSN.
fn push_reply(
    reply: &mut FrameReply,
    lsn: Lsn,
    body: &Body,
    outcome: Outcome,
    repeat: bool,
    Told { movements, shorts, promises }: Told<'_>,
) {
    let before = reply.parts.len();
    if matches!(body, Body::Reserve(_)) || outcome.reacquired {
        // Movements are sorted, and from which pool units come is told with the reservation.
        for movement in movements {
            let Movement { sku, node, pool, quantity, .. } = *movement;
            let mut at = THERE;
            if pool.is_supply() {
                // Of one reservation, and in their order.
                let key = |told: &Promise| (told.sku, told.node, told.from);
                let found = promises.binary_search_by_key(&(sku, node, pool), key);
                at = found.map_or(NEVER, |found| promises[found].at);
            }
            match reply.parts[before..].last_mut() {
                Some(last) if (last.sku, last.node, last.at) == (sku, node, at) => last.quantity += quantity,
                _ => reply.parts.push(Part { line: 0, sku, node, quantity, at }),
            }
        }
        if !promises.is_empty() {
            let mut parts = reply.parts.split_off(before);
            parts.sort_unstable_by_key(|part| (part.sku, part.node, part.at));
            parts.dedup_by(|next, last| {
                let place = |part: &Part| (part.sku, part.node, part.at);
                let same = place(next) == place(last);
                last.quantity += if same { next.quantity } else { 0 };
                same
            });
            reply.parts.extend(parts);
        }
        reply.parts.extend(shorts.iter().map(|short| Part {
            line: short.line,
            sku: short.sku,
            node: NodeId::ANY,
            quantity: short.available,
            at: THERE,
        }));
    }
    let parts = (reply.parts.len() - before) as u32;
    reply.replies.push(Reply { lsn, outcome, repeat, id: 0, parts });
}

impl FrameReply {
    /// Appends the answers to the rest of a frame of commands that entered the order in pieces.
    pub fn append(&mut self, rest: FrameReply) {
        self.replies.extend(rest.replies);
        self.parts.extend(rest.parts);
        self.refused.extend(rest.refused);
    }

    /// Puts what the journal says in place of the answer at `at`, which said only that it is a repeat.
    pub fn fill_repeat(&mut self, at: usize, decoded: &Decoded, entry: &Entry) {
        let mut found = FrameReply::default();
        let told = decoded.told(entry);
        push_reply(&mut found, entry.lsn, &entry.command.body, entry.outcome, true, told);
        let place: usize = self.replies[..at].iter().map(|reply| reply.parts as usize).sum();
        self.parts.splice(place..place, found.parts);
        self.replies[at] = found.replies[0];
    }

    /// Indices and LSNs of the answers that wait for [`FrameReply::fill_repeat`].
    pub fn repeats(&self) -> impl Iterator<Item = (usize, Lsn)> {
        let open = if self.settled { &[][..] } else { &self.replies[..] };
        open.iter().enumerate().filter(|(_, reply)| reply.repeat).map(|(at, reply)| (at, reply.lsn))
    }

    /// Says that no answer waits any more.
    pub fn settle_repeats(&mut self) {
        self.settled = true;
    }
}

/// What is left of each shard's output while its batch is merged.
struct Cursor<'a> {
    output: &'a Output,
    result: usize,
    done: Mark,
    answer: usize,
}

/// Merges one batch: appends its entries to `record` and one reply a frame to `replies`.
pub fn merge<T>(
    batch: &Batch<T>,
    outputs: &[Output],
    record: &mut JournalRecord,
    replies: &mut Vec<FrameReply>,
) {
    let cursor = |output| Cursor { output, result: 0, done: Mark::default(), answer: 0 };
    let mut cursors: Vec<Cursor<'_>> = outputs.iter().map(cursor).collect();
    let mut effects = Effects::default();
    let mut at = 0;
    let mut as_of = batch.before;
    for stamped in &batch.frames {
        let frame = &stamped.frame;
        let mut reply =
            FrameReply { replies: Vec::with_capacity(frame.commands.len()), ..FrameReply::default() };
        for (command, slot) in frame.commands.iter().zip(&stamped.slots) {
            effects.clear();
            let (lsn, outcome, id) = match *slot {
                Slot::Execute { lsn, .. } => {
                    let outcome = gather(&mut cursors, at, command, &mut effects);
                    (lsn, outcome, 0)
                }
                Slot::Refused { lsn, code } => (lsn, Outcome::of(code), 0),
                Slot::Defined { lsn, id } => (lsn, Outcome::of(Code::Ok), id),
                Slot::Known { id } => {
                    reply.replies.push(bare(Code::Ok, Lsn::NONE, false, id));
                    at += 1;
                    continue;
                }
                Slot::Repeat { lsn } => {
                    reply.replies.push(bare(Code::Ok, lsn, true, 0));
                    at += 1;
                    continue;
                }
                Slot::Door { code } => {
                    keep_refused(&mut reply, code, command);
                    reply.replies.push(bare(code, Lsn::NONE, false, 0));
                    at += 1;
                    continue;
                }
                Slot::Read { .. } => {
                    read_answer(&mut cursors, at, command, &mut reply);
                    reply.as_of = as_of;
                    at += 1;
                    continue;
                }
            };
            as_of = lsn;
            keep_refused(&mut reply, outcome.code, command);
            let Effects { movements, shorts, promises } = &effects;
            record.movements.extend(movements.iter().map(|movement| MovementRec::from(*movement)));
            record.shorts.extend(shorts.iter().map(|short| ShortRec::from(*short)));
            record.promises.extend(promises.iter().map(|promise| PromiseRec::from(*promise)));
            record.push(batch.now, frame.principal, command, &frame.lines, outcome, effects.mark());
            push_reply(&mut reply, lsn, &command.body, outcome, false, effects.told());
            if let Some(last) = reply.replies.last_mut() {
                last.id = id;
            }
            at += 1;
        }
        replies.push(reply);
    }
}

/// Keeps an event that was refused for something that may pass or be mended.
fn keep_refused(reply: &mut FrameReply, code: Code, command: &Command) {
    if matches!(command.body, Body::Event(_)) && code.may_pass() {
        reply.refused.push((code, command.clone()));
    }
}

/// Collects what the shards did for one command.
fn gather(
    cursors: &mut [Cursor<'_>],
    at: u32,
    command: &Command,
    Effects { movements, shorts, promises }: &mut Effects,
) -> Outcome {
    let mut found: Option<Outcome> = None;
    let mut unknown = false;
    for cursor in cursors.iter_mut() {
        let Some(result) = cursor.output.results.get(cursor.result).filter(|result| result.at == at) else {
            continue;
        };
        cursor.result += 1;
        let effects = &cursor.output.effects;
        let done = &mut cursor.done;
        movements.extend_from_slice(&effects.movements[done.movements..][..result.movements as usize]);
        shorts.extend_from_slice(&effects.shorts[done.shorts..][..result.shorts as usize]);
        promises.extend_from_slice(&effects.promises[done.promises..][..result.promises as usize]);
        done.movements += result.movements as usize;
        done.shorts += result.shorts as usize;
        done.promises += result.promises as usize;
        if result.outcome.code == Code::UnknownReservation {
            unknown = true;
            continue;
        }
        // Parts agree, except where one refuses what another could do: the refusal of higher precedence
        // (the lower number) speaks for all.
        found = Some(match found {
            Some(other)
                if other.code != Code::Ok
                    && (result.outcome.code == Code::Ok || other.code < result.outcome.code) =>
            {
                other
            }
            _ => result.outcome,
        });
    }
    match command.body {
        Body::Event(_) | Body::Allocate(_) | Body::Balance(_) => {}
        _ => {
            merge_movements(movements, 0);
            shorts.sort_unstable();
            promises.sort_unstable();
        }
    }
    let outcome = match (found, &command.body) {
        // A shard was asked for a line of a reservation that others know: it claims nothing there.
        (Some(outcome), _) if unknown => {
            Outcome { code: outcome.code.min(Code::InsufficientClaim), ..outcome }
        }
        (Some(outcome), _) => outcome,
        (None, Body::Expire(_)) => Outcome::of(Code::NotDue),
        (None, _) => Outcome::of(Code::UnknownReservation),
    };
    // Granted: what some lines got less of.
    if !matches!(outcome.code, Code::Ok | Code::InsufficientStock) {
        shorts.clear();
    }
    outcome
}

/// What all shards together would decide: said at once, because nothing follows from it.
fn explanation(cursors: &mut [Cursor<'_>], at: u32, reserve: &Reserve, reply: &mut FrameReply) {
    let mut said = Ballot::NONE;
    let mut found: Option<Outcome> = None;
    let (mut all, mut traces) = (Effects::default(), Vec::new());
    for cursor in cursors {
        let answer = cursor.output.answers.get(cursor.answer).filter(|(index, _)| *index == at);
        let Some((_, Answer::Explanation { decision, effects, traces: seen })) = answer else { continue };
        cursor.answer += 1;
        said = said.and(decision.ballot);
        all.movements.extend_from_slice(&effects.movements);
        all.shorts.extend_from_slice(&effects.shorts);
        all.promises.extend_from_slice(&effects.promises);
        traces.extend_from_slice(seen);
        let refused = |outcome: &Outcome| (outcome.code == Code::Ok, outcome.code);
        found = Some(found.map_or(decision.outcome, |other| {
            if refused(&other) <= refused(&decision.outcome) { other } else { decision.outcome }
        }));
    }
    let outcome = found.unwrap_or(Outcome::of(Code::NoLines));
    let outcome = Ledger::conclude_reserve(reserve, outcome, said);
    if outcome.code != Code::Ok {
        all.undo(Mark::default());
    }
    if !matches!(outcome.code, Code::Ok | Code::InsufficientStock) {
        all.shorts.clear();
    }
    merge_movements(&mut all.movements, 0);
    all.shorts.sort_unstable();
    all.promises.sort_unstable();
    traces.sort_unstable_by_key(|trace: &Trace| (trace.line, trace.node));
    let index = reply.replies.len() as u32;
    push_reply(reply, Lsn::NONE, &Body::Reserve(reserve.clone()), outcome, false, all.told());
    reply.traces.extend(traces.into_iter().map(|trace| (index, trace)));
}

fn read_answer(cursors: &mut [Cursor<'_>], at: u32, command: &Command, reply: &mut FrameReply) {
    let mut position = PositionAnswer::default();
    let mut reservation: Option<Seen> = None;
    let (mut shares, mut found) = (Vec::new(), Vec::new());
    if let Body::Read(Read::Explain(reserve)) = &command.body {
        return explanation(cursors, at, reserve, reply);
    }
    for cursor in cursors {
        let Some((_, answer)) = cursor.output.answers.get(cursor.answer).filter(|(index, _)| *index == at)
        else {
            continue;
        };
        cursor.answer += 1;
        match answer {
            Answer::Position(found) => position = *found,
            Answer::Allocations(found) => shares.clone_from(found),
            Answer::Explanation { .. } => unreachable!("that was not asked"),
            // Every part has all labels.
            Answer::Reservation { outcome, claims, labels } => {
                let empty = || Seen { outcome: *outcome, claims: Vec::new(), labels: labels.clone() };
                reservation.get_or_insert_with(empty).claims.extend_from_slice(claims);
            }
            Answer::Found(ids) => found.extend_from_slice(ids),
        }
    }
    match command.body {
        Body::Read(Read::Position { .. }) => reply.positions.push(position),
        Body::Read(Read::Allocations { .. }) => reply.allocations.push(shares),
        Body::Read(Read::Find { kind, .. }) => {
            found.sort_unstable();
            found.dedup();
            found.truncate(limit::FOUND_MAX);
            // Where one is meant, it is none that has ended if there is another.
            if kind.is_none() && found.first().is_some_and(|(ended, _)| !ended) {
                found.retain(|(ended, _)| !ended);
            }
            reply.found.push(found.into_iter().map(|(_, id)| id).collect());
        }
        _ => {
            let outcome = Outcome::of(Code::UnknownReservation);
            let unknown = || Seen { outcome, claims: Vec::new(), labels: Labels::default() };
            let mut found = reservation.unwrap_or_else(unknown);
            found.claims.sort_unstable_by_key(|(claim, _)| claim.place());
            reply.reservations.push(found);
        }
    }
}
