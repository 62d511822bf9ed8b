//! A shard at work: one batch in, one output out, in the order that all shards share.
//!
//! No thread and no queue is known here: the caller says how to wait for a vote.

use crate::batch::{Batch, NO_VOTE, Slot};
use crate::command::Body;
use crate::id::{NodeId, SkuId};
use crate::ledger::{Answer, Effects, Ledger, Moment, Outcome};
use crate::outcome::Code;

/// What one shard did for one command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartResult {
    /// Index of the command within the batch.
    pub at: u32,
    pub outcome: Outcome,
    /// How many of the output's movements and shortages are its own; they stand in command order.
    pub movements: u32,
    pub shorts: u32,
}

/// Units free at a position after the batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Changed {
    pub sku: SkuId,
    pub node: NodeId,
    pub free: i64,
}

/// Everything a shard has to say about a batch.
#[derive(Default, Debug)]
pub struct Output {
    pub results: Vec<PartResult>,
    pub effects: Effects,
    /// Index of the command, and the answer.
    pub answers: Vec<(u32, Answer)>,
    pub changed: Vec<Changed>,
    /// Active reservations with a part in this shard.
    pub active: usize,
}

/// Executes this shard's part of a batch. `pause` is called while the other parts of a command have not
/// voted, with the number of times it was called for it.
pub fn run<T>(ledger: &mut Ledger, batch: &Batch<T>, mut pause: impl FnMut(u32)) -> Output {
    let mut output = Output::default();
    let mut at = 0;
    let mut last = batch.before;
    for stamped in &batch.frames {
        for (command, slot) in stamped.frame.commands.iter().zip(&stamped.slots) {
            match *slot {
                Slot::Execute { lsn, vote } => {
                    last = lsn;
                    let moment = Moment { lsn, now: batch.now };
                    let lines = &stamped.frame.lines;
                    execute(ledger, batch, moment, vote, at, &command.body, lines, &mut output, &mut pause);
                }
                Slot::Read => {
                    if let Body::Read(read) = &command.body
                        && let Some(answer) = ledger.read(last, read)
                    {
                        output.answers.push((at, answer));
                    }
                }
                Slot::Refused { lsn, .. } | Slot::Defined { lsn, .. } => last = lsn,
                Slot::Known { .. } | Slot::Repeat { .. } | Slot::Door { .. } => {}
            }
            at += 1;
        }
    }
    ledger.drain_changed(|sku, node, free| output.changed.push(Changed { sku, node, free }));
    output.active = ledger.reservations().active();
    output
}

#[expect(clippy::too_many_arguments, reason = "one call site; a struct would only rename them")]
fn execute<T>(
    ledger: &mut Ledger,
    batch: &Batch<T>,
    moment: Moment,
    vote: u32,
    at: u32,
    body: &Body,
    lines: &[crate::command::Line],
    output: &mut Output,
    pause: &mut impl FnMut(u32),
) {
    let (movements, shorts) = (output.effects.movements.len(), output.effects.shorts.len());
    let Some(mut outcome) = ledger.decide(moment, &batch.rules, body, lines, &mut output.effects) else {
        return;
    };
    if vote != NO_VOTE {
        let vote = &batch.votes[vote as usize];
        vote.cast(outcome.code == Code::Ok);
        let mut pauses = 0;
        let agreed = loop {
            match vote.verdict() {
                Some(agreed) => break agreed,
                None => pause(pauses),
            }
            pauses += 1;
        };
        if !agreed && outcome.code == Code::Ok {
            outcome = Outcome::of(Code::InsufficientStock);
            output.effects.movements.truncate(movements);
        }
    }
    ledger.settle(moment, body, lines, outcome, &output.effects.movements[movements..]);
    output.results.push(PartResult {
        at,
        outcome,
        movements: (output.effects.movements.len() - movements) as u32,
        shorts: (output.effects.shorts.len() - shorts) as u32,
    });
}
