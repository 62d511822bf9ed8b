//! A shard at work: one batch in, one output out, in the order that all shards share.
//!
//! No thread and no queue is known here: the caller says how to wait for a vote.

use crate::batch::{Batch, NO_VOTE, Slot};
use crate::bucket::Place;
use crate::catalogue::Rules;
use crate::command::{Body, Line, Read, Reserve};
use crate::id::Lsn;
use crate::ledger::{Answer, Ballot, Decision, Effects, Ledger, Mark, Moment, Outcome};
use crate::plan::Plan;
use crate::vote::Table;

/// What one shard did for one command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartResult {
    /// Index of the command within the batch.
    pub at: u32,
    pub outcome: Outcome,
    /// How many of the output's movements, shortages and promises are its own; they stand in command order.
    pub movements: u32,
    pub shorts: u32,
    pub promises: u32,
}

/// What a place offers after the batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Changed {
    pub place: Place,
    pub offer: i64,
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

/// A command that is decided here and waits for the votes of the other shards.
#[derive(Debug)]
struct Waiting {
    moment: Moment,
    vote: u32,
    decision: Decision,
    /// Where its effects begin in the output.
    mark: Mark,
}

/// How far a shard is with a batch.
#[derive(Default, Debug)]
pub struct Progress {
    frame: usize,
    command: usize,
    at: u32,
    /// LSN of the last command met; 0 before the first.
    last: Lsn,
    /// What it has was laid open for the command's plan.
    is_open: bool,
    waiting: Option<Waiting>,
    output: Output,
}

/// Where the parts of a command lay open what they have, if it is planned by several.
#[inline]
fn table<T>(batch: &Batch<T>, vote: u32) -> Option<&Table> {
    if vote == NO_VOTE { None } else { batch.votes[vote as usize].table.as_deref() }
}

/// Executes this shard's part of a batch. `pause` is called while the other parts of a command have not
/// voted, with the number of times it was called for it.
pub fn run<T>(ledger: &mut Ledger, batch: &Batch<T>, mut pause: impl FnMut(u32)) -> Output {
    let mut progress = Progress::default();
    let (mut at, mut times) = (0, 0);
    loop {
        if let Some(output) = progress.advance(ledger, batch) {
            return output;
        }
        times = if progress.at == at { times + 1 } else { 0 };
        at = progress.at;
        pause(times);
    }
}

impl Progress {
    /// Goes on until the batch is done, or `None`: until a command waits for votes. Call it again, with the
    /// same ledger and batch, when they may be there.
    pub fn advance<T>(&mut self, ledger: &mut Ledger, batch: &Batch<T>) -> Option<Output> {
        while let Some(stamped) = batch.frames.get(self.frame) {
            let frame = &stamped.frame;
            while let (Some(command), Some(slot)) =
                (frame.commands.get(self.command), stamped.slots.get(self.command))
            {
                match *slot {
                    Slot::Execute { lsn, vote } => {
                        let moment = Moment { lsn, now: batch.now };
                        self.execute(ledger, batch, moment, vote, &command.body, &frame.lines)?;
                        self.last = lsn;
                    }
                    Slot::Read { vote } => {
                        let moment = Moment { lsn: self.last.max(batch.before), now: batch.now };
                        let answer = match &command.body {
                            Body::Read(Read::Explain(reserve)) => {
                                let asked = (reserve, &frame.lines[..]);
                                match table(batch, vote) {
                                    None => ledger.explain(moment, &batch.rules, asked, None),
                                    Some(table) => {
                                        let plan = self.plan(ledger, &batch.rules, moment, table, asked)?;
                                        plan.and_then(|plan| {
                                            ledger.explain(moment, &batch.rules, asked, Some(&plan))
                                        })
                                    }
                                }
                            }
                            Body::Read(read) => ledger.read(moment.lsn, read),
                            _ => None,
                        };
                        if let Some(answer) = answer {
                            self.output.answers.push((self.at, answer));
                        }
                    }
                    Slot::Refused { lsn, .. } | Slot::Defined { lsn, .. } => self.last = lsn,
                    Slot::Known { .. } | Slot::Repeat { .. } | Slot::Door { .. } => {}
                }
                self.at += 1;
                self.command += 1;
            }
            self.frame += 1;
            self.command = 0;
        }
        let mut output = std::mem::take(&mut self.output);
        let (rules, all) = match &batch.change {
            Some(change) => (&change.rules, change.unbalances),
            None => (&batch.rules, false),
        };
        ledger.note_unbalanced(batch.now, rules, all);
        ledger.drain_changed(|place, offer| output.changed.push(Changed { place, offer }));
        output.active = ledger.reservations().active();
        Some(output)
    }

    /// Comes to the plan of a reservation that several shards plan together; of which no part is here: to none. `None`
    /// while not all have laid open what they have.
    #[cold]
    fn plan(
        &mut self,
        ledger: &mut Ledger,
        rules: &Rules,
        moment: Moment,
        table: &Table,
        (reserve, lines): (&Reserve, &[Line]),
    ) -> Option<Option<Plan>> {
        let lines = reserve.lines(lines);
        if !ledger.has_part(rules, (reserve, lines)) {
            return Some(None);
        }
        if !std::mem::replace(&mut self.is_open, true) {
            ledger.lay_open(moment, rules, (reserve, lines), |cell, number| table.tell(cell, number));
            table.close();
        }
        if !table.is_closed() {
            return None;
        }
        self.is_open = false;
        let channel = rules.channel(reserve.channel).expect("the channel was checked before");
        Some(Some(Plan::make(moment.now, rules, channel, lines, |cell| table.read(cell))))
    }

    /// Decides such a reservation; as above.
    #[cold]
    fn decide_planned(
        &mut self,
        ledger: &mut Ledger,
        rules: &Rules,
        moment: Moment,
        table: &Table,
        (body, lines): (&Body, &[Line]),
    ) -> Option<Option<Decision>> {
        let Body::Reserve(reserve) = body else { unreachable!("only reservations are planned") };
        let Some(plan) = self.plan(ledger, rules, moment, table, (reserve, lines))? else {
            return Some(None);
        };
        let asked = (reserve, reserve.lines(lines));
        Some(ledger.decide_planned(moment, rules, asked, &mut self.output.effects, &plan, None))
    }

    /// Decides a command, agrees with the other parts and settles it. `None` while they have not voted.
    fn execute<T>(
        &mut self,
        ledger: &mut Ledger,
        batch: &Batch<T>,
        moment: Moment,
        vote: u32,
        body: &Body,
        lines: &[Line],
    ) -> Option<()> {
        let waiting = match self.waiting.take() {
            Some(waiting) => waiting,
            None => {
                let mark = self.output.effects.mark();
                let decided = match table(batch, vote) {
                    None => ledger.decide(moment, &batch.rules, body, lines, &mut self.output.effects),
                    Some(table) => self.decide_planned(ledger, &batch.rules, moment, table, (body, lines))?,
                };
                let cast = |ballot| {
                    if vote != NO_VOTE {
                        batch.votes[vote as usize].cast(ballot);
                    }
                };
                let Some(decision) = decided else {
                    // No part of it is here. Who has parts of a reservation nobody else knows, so all are asked.
                    if matches!(body, Body::Transition(_)) {
                        cast(Ballot::NONE);
                    }
                    return Some(());
                };
                cast(decision.ballot);
                Waiting { moment, vote, decision, mark }
            }
        };
        let Waiting { moment, vote, decision, mark } = waiting;
        let mut said = decision.ballot;
        if vote != NO_VOTE && decision.waits {
            let Some(verdict) = batch.votes[vote as usize].verdict() else {
                self.waiting = Some(waiting);
                return None;
            };
            said = verdict;
        }
        let output = &mut self.output;
        let effects = &mut output.effects;
        let outcome = Ledger::conclude(body, decision, said, effects, mark);
        let (movements, promises) =
            (&effects.movements[mark.movements..], &effects.promises[mark.promises..]);
        ledger.settle(moment, body, lines, outcome, movements, promises);
        output.results.push(PartResult {
            at: self.at,
            outcome,
            movements: movements.len() as u32,
            shorts: (effects.shorts.len() - mark.shorts) as u32,
            promises: promises.len() as u32,
        });
        Some(())
    }
}
