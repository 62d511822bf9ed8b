//! Reserving: which node serves which line, and what is short.
//!
//! Lines that name a node choose first, then those that name a group, then those that take any node of the
//! channel; within that, in the order given. A line goes to the node of best priority that has it all, and is
//! split over nodes in order of priority when none has. Units taken by one line are gone for the next, so
//! the same sku on two lines is summed. With [`Fill::Partial`] a line takes what there is of it.

use crate::bucket::{Bucket, Movement};
use crate::catalogue::{ChannelRule, Rules};
use crate::command::{Fill, Line, Reserve};
use crate::drill::{Bug, planted};
use crate::id::{GroupId, NodeId};
use crate::ledger::{Ballot, Decision, Effects, Ledger, Moment, Outcome, Short};
use crate::limit;
use crate::outcome::{Code, State};

/// A position that could serve a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    rank: u16,
    at: usize,
    free: i64,
}

/// Units set aside while deciding, given back when the decision is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Take {
    at: usize,
    quantity: i64,
}

/// Lines choose in this order.
fn specificity(line: &Line) -> u8 {
    match (line.node == NodeId::ANY, line.group == GroupId::ANY) {
        (false, _) => 0,
        (true, false) => 1,
        (true, true) => 2,
    }
}

impl Ledger {
    pub(super) fn decide_reserve(
        &mut self,
        moment: Moment,
        rules: &Rules,
        reserve: &Reserve,
        all_lines: &[Line],
        effects: &mut Effects,
    ) -> Option<Decision> {
        let lines = reserve.lines(all_lines);
        let channel = rules.channel(reserve.channel).expect("the channel was checked before");
        let counted = channel.policy.counts_holds();
        let counts_here = counted && self.shard.counts(reserve.channel);
        if !counts_here && !lines.iter().any(|line| self.shard.owns(line.sku)) {
            return None;
        }
        if counts_here && self.has_enough_holds(channel, reserve) {
            return Some(Decision::refused(Outcome::of(Code::HoldLimit)));
        }
        if self.reservations.find(reserve.id, moment.lsn).is_some() {
            return Some(Decision::refused(Outcome::of(Code::ReservationExists)));
        }
        let (movements_before, shorts_before) = (effects.movements.len(), effects.shorts.len());
        for class in 0..3 {
            for (index, line) in lines.iter().enumerate() {
                if specificity(line) == class && self.shard.owns(line.sku) {
                    self.take_line(rules, channel, reserve.fill, (index, line), effects);
                }
            }
        }
        self.give_back();
        effects.shorts[shorts_before..].sort_unstable();
        let short = effects.shorts.len() > shorts_before;
        let ballot = match reserve.fill {
            Fill::All => Ballot::NO.when(short),
            Fill::Partial => Ballot::SOME.when(effects.movements.len() > movements_before),
        };
        merge_movements(&mut effects.movements, movements_before);
        // What it is if all agree.
        let outcome = Outcome {
            state: State::Held,
            expires_at: moment.now.plus(u64::from(reserve.ttl_ms)),
            counted,
            ..Outcome::of(Code::Ok)
        };
        Some(Decision { outcome, ballot, waits: true })
    }

    /// Granted where no part says no and, filled partly, one has something.
    pub(super) fn conclude_reserve(reserve: &Reserve, outcome: Outcome, said: Ballot) -> Outcome {
        let granted = !said.says(Ballot::NO) && (reserve.fill == Fill::All || said.says(Ballot::SOME));
        if granted || outcome.code != Code::Ok {
            return outcome;
        }
        Outcome::of(Code::InsufficientStock)
    }

    /// Gives back what was set aside while deciding.
    pub(super) fn give_back(&mut self) {
        for take in self.takes.drain(..) {
            self.positions.at_mut(take.at).free += take.quantity;
        }
    }

    /// Whether the channel or the customer has as many open holds as it may.
    fn has_enough_holds(&self, channel: &ChannelRule, reserve: &Reserve) -> bool {
        let reached = |max: u32, customer: u64| {
            max > 0 && self.reservations.open_holds(reserve.channel, customer) >= max
        };
        let policy = &channel.policy;
        reached(policy.holds_max, 0)
            || (reserve.customer != 0 && reached(policy.customer_holds_max, reserve.customer))
    }

    /// Sets units aside for one line, or says how many there would be.
    pub(super) fn take_line(
        &mut self,
        rules: &Rules,
        channel: &ChannelRule,
        fill: Fill,
        (index, line): (usize, &Line),
        effects: &mut Effects,
    ) {
        let group = rules.group(line.group);
        let mut wanted = i64::from(line.quantity);
        self.candidates.clear();
        let mut offered = 0;
        let mut total = 0;
        for at in self.positions.range(self.shard.row(line.sku)) {
            let position = self.positions.at(at);
            let (node, free) = (position.node, position.free);
            if (free <= 0 && !planted(Bug::SpreadDeficit)) || !channel.nodes.contains(node) {
                continue;
            }
            offered += free;
            let named = line.node == NodeId::ANY || line.node == node;
            if named && group.is_none_or(|nodes| nodes.contains(node)) {
                total += free;
                self.candidates.push(Candidate { rank: rules.rank(node), at, free });
            }
        }
        if self.candidates.len() > limit::LINE_SPLITS_MAX {
            // One node that has it all may be any of them; else the best so many count.
            self.candidates.sort_unstable();
            let most = self.candidates.iter().map(|candidate| candidate.free).max().unwrap_or(0);
            let best = self.candidates[..limit::LINE_SPLITS_MAX].iter();
            total = best.map(|candidate| candidate.free).sum::<i64>().max(most);
        }
        // The buffer is withheld from the channel as a whole, so it bounds each of its lines too.
        let available = total.min(offered - i64::from(channel.buffer)).max(0);
        if available < wanted {
            effects.shorts.push(Short {
                line: index as u16,
                sku: line.sku,
                quantity: line.quantity,
                available: available as u32,
            });
            if fill == Fill::All || available == 0 {
                return;
            }
            wanted = available;
        }
        let whole = self.candidates.iter().filter(|candidate| candidate.free >= wanted).min().copied();
        if let Some(candidate) = whole {
            self.take(line, candidate.at, wanted, effects);
            return;
        }
        self.candidates.sort_unstable();
        let mut open = wanted;
        let mut next = 0;
        while open > 0 {
            let candidate = self.candidates[next];
            let quantity = open.min(candidate.free);
            self.take(line, candidate.at, quantity, effects);
            open -= quantity;
            next += 1;
        }
    }

    fn take(&mut self, line: &Line, at: usize, quantity: i64, effects: &mut Effects) {
        let position = self.positions.at_mut(at);
        // What a later line may no longer take.
        let set_aside = if planted(Bug::OversellLines) { 0 } else { quantity };
        position.free -= set_aside;
        self.takes.push(Take { at, quantity: set_aside });
        effects.movements.push(Movement {
            sku: line.sku,
            node: position.node,
            from: Bucket::Free,
            to: Bucket::Held,
            quantity: quantity as u32,
        });
    }
}

/// Brings movements from `start` on into their one order and makes one of those alike but for the quantity.
pub(crate) fn merge_movements(movements: &mut Vec<Movement>, start: usize) {
    if movements.len() < start + 2 {
        return;
    }
    movements[start..].sort_unstable();
    let mut last = start;
    for at in start + 1..movements.len() {
        let next = movements[at];
        let place = |movement: Movement| Movement { quantity: 0, ..movement };
        if place(movements[last]) == place(next) {
            movements[last].quantity += next.quantity;
        } else {
            last += 1;
            movements[last] = next;
        }
    }
    movements.truncate(last + 1);
}
