//! What a shard lays open for the [plan](crate::plan) of an order.

use crate::catalogue::{ChannelRule, Rules, Strategy};
use crate::command::{Fill, Line, Reserve};
use crate::id::{NodeId, SkuId, ZoneId};
use crate::ledger::reserve::{Asking, specificity};
use crate::ledger::{Decision, Effects, Full, Ledger, Moment, Trace};
use crate::plan::{self, Offer, Plan};

/// Classes of lines, by how much they say of where they go.
pub(super) const CLASSES: std::ops::Range<u8> = 0..4;

impl Ledger {
    /// Tells cells of the table. A line is tried as if it were decided, from what is there, whole or not at all, behind the
    /// lines before it; a substitute behind all lines but no other substitute, because which of them is needed is not
    /// known here. Nothing stays taken.
    pub fn lay_open(
        &mut self,
        moment: Moment,
        rules: &Rules,
        (reserve, lines): (&Reserve, &[Line]),
        mut tell: impl FnMut(usize, u64),
    ) {
        let channel = rules.channel(reserve.channel).expect("the channel was checked before");
        let places = plan::places(rules, channel, lines);
        let asking = Asking { now: moment.now, fill: Fill::All, zone: reserve.zone, later: false };
        let gathers = channel.policy.strategy == Strategy::FewestSplits && lines.len() > 1;
        let mut open: Vec<bool> = lines.iter().map(|line| self.shard.owns(line.sku)).collect();
        for class in CLASSES {
            for ((line, place), open) in lines.iter().zip(&places).zip(&mut open) {
                if specificity(line) == class && *open {
                    let offer = self.try_line(rules, channel, (asking, gathers), line);
                    tell(*place, offer.number());
                    *open = !offer.served;
                }
            }
        }
        // What those get in part that are not there whole, no substitute is offered.
        if reserve.fill == Fill::Partial {
            let part = Asking { fill: Fill::Partial, ..asking };
            for (line, _) in lines.iter().zip(&open).filter(|(_, open)| **open) {
                self.try_line(rules, channel, (part, false), line);
            }
        }
        let (shard, takes, of_groups) = (self.shard, self.takes.len(), self.taken_of_groups.len());
        for ((line, place), open) in lines.iter().zip(&places).zip(&open) {
            if shard.owns(line.sku) && !open {
                continue;
            }
            let others = plan::alternatives(rules, channel, line).zip(*place..).skip(1);
            for (sku, place) in others.filter(|(sku, _)| shard.owns(*sku)) {
                let other = Line { sku, ..*line };
                tell(place, self.try_line(rules, channel, (asking, gathers), &other).number());
                self.give_back_from(takes, of_groups);
            }
        }
        self.give_back_from(0, 0);
        let behind_lines = places.last().copied().unwrap_or(0);
        for ((node, day), place) in plan::days(rules, channel).zip(behind_lines..) {
            if day.capacity > 0 {
                let (first, last) = (day.begins(moment.now), moment.now.quarter());
                tell(place, self.pace.between(node, first, last));
            }
        }
    }

    /// Whether this shard has something to say of a planned reservation.
    pub fn has_part(&self, rules: &Rules, (reserve, lines): (&Reserve, &[Line])) -> bool {
        plan::shards(rules, reserve, lines, self.shard.count) >> self.shard.index & 1 == 1
    }

    /// Decides a planned reservation of which all parts are here; `None`: they are all elsewhere.
    #[cold]
    pub(super) fn decide_alone(
        &mut self,
        moment: Moment,
        rules: &Rules,
        asked: (&Reserve, &[Line]),
        effects: &mut Effects,
        traces: Option<&mut Vec<Trace>>,
    ) -> Option<Decision> {
        if !self.has_part(rules, asked) {
            return None;
        }
        let (reserve, lines) = asked;
        let channel = rules.channel(reserve.channel).expect("the channel was checked before");
        let mut cells = vec![0; plan::cells(rules, channel, lines)];
        self.lay_open(moment, rules, asked, |at, number| cells[at] += number);
        let plan = Plan::make(moment.now, rules, channel, lines, |at| cells[at]);
        self.decide_planned(moment, rules, asked, effects, &plan, traces)
    }

    /// Decides a reservation by a plan that all its parts made. Lines of a sku that are short by its preferences are
    /// decided without: a plan refuses nothing that would be granted else. Skus do not know of one another, so it is the
    /// same for any number of shards.
    pub fn decide_planned(
        &mut self,
        moment: Moment,
        rules: &Rules,
        (reserve, lines): (&Reserve, &[Line]),
        effects: &mut Effects,
        plan: &Plan,
        mut traces: Option<&mut Vec<Trace>>,
    ) -> Option<Decision> {
        let planned = lines.iter().zip(&plan.lines);
        let lines: Vec<Line> = planned.map(|(line, planned)| Line { sku: planned.sku, ..*line }).collect();
        let (mark, traced) = (effects.mark(), traces.as_ref().map_or(0, |traces| traces.len()));
        self.late.clone_from(&plan.late);
        let seen = traces.as_deref_mut();
        let mut decision = self.decide_reserve(moment, rules, (reserve, &lines), effects, Some(plan), seen);
        let short: Vec<SkuId> = effects.shorts[mark.shorts..].iter().map(|short| short.sku).collect();
        if let Some(plan) = plan.without_preferences(&short) {
            effects.undo(mark);
            effects.shorts.truncate(mark.shorts);
            if let Some(traces) = traces.as_deref_mut() {
                traces.truncate(traced);
            }
            decision = self.decide_reserve(moment, rules, (reserve, &lines), effects, Some(&plan), traces);
        }
        self.late.clear();
        decision
    }

    /// Takes a line if it is there whole; says so, and which nodes alone would have it.
    fn try_line(
        &mut self,
        rules: &Rules,
        channel: &ChannelRule,
        (asking, gathers): (Asking, bool),
        line: &Line,
    ) -> Offer {
        let mut offer = Offer::default();
        if gathers && line.node == NodeId::ANY {
            offer.nodes = self.nodes_with_all(rules, channel, asking.zone, line);
        }
        let mut tried = std::mem::take(&mut self.tried);
        tried.clear();
        self.serve_line(rules, channel, asking, (0, line), &mut tried);
        self.full = Full::default();
        offer.served = tried.shorts.is_empty();
        self.tried = tried;
        offer
    }

    /// Which of the channel's first nodes have all of a line.
    fn nodes_with_all(&mut self, rules: &Rules, channel: &ChannelRule, zone: ZoneId, line: &Line) -> u64 {
        let wanted = i64::from(line.quantity);
        let looked = self.look(rules, channel, zone, line);
        if looked.available < wanted {
            return 0;
        }
        let last = channel.pools.len();
        let have = self.candidates.iter().filter(|one| self.reach(one, last, last, looked.shared) >= wanted);
        let nodes = have.map(|candidate| self.positions.at(candidate.at as usize).node());
        let bits = nodes.filter_map(|node| channel.first_nodes.iter().position(|first| *first == node));
        bits.fold(0, |bits, at| bits | 1 << at)
    }
}
