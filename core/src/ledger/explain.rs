//! Explaining: what a reservation would be told now, and why each line would go where it goes. Nothing is taken.

use crate::catalogue::{ChannelRule, Rules, Strategy};
use crate::command::{Line, Reserve};
use crate::id::{NodeId, ZoneId};
use crate::ledger::allocation::drawable;
use crate::ledger::{Answer, Effects, Ledger, Moment};
use crate::plan::Plan;

/// Why a node gave what it gave for a line. Numbers are stable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Why {
    /// It serves the line, or a part of it.
    Taken = 0,
    /// The channel is not offered it.
    NotOffered = 1,
    /// It is not in the group that the line names.
    NotInGroup = 2,
    /// The line names another node.
    OtherNode = 3,
    /// It has nothing for the channel.
    Nothing = 4,
    /// Others go before it, or the line is refused.
    NotChosen = 5,
}

impl Why {
    /// As HTTP says it.
    pub fn name(self) -> &'static str {
        ["taken", "not_offered", "not_in_group", "other_node", "nothing", "not_chosen"][self as usize]
    }
}

/// What was seen of one node for one line, when it was the line's turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trace {
    /// Index of the line within its reservation.
    pub line: u16,
    pub node: NodeId,
    pub why: Why,
    /// Units free; negative: a shortage.
    pub free: i64,
    /// Of these, withheld by a rule.
    pub withheld: i64,
    /// Units of the channel's own allocation and of those above it.
    pub own: i64,
    /// What the strategy goes by, less is better: metres, cost; 0 by priority.
    pub order: u64,
    /// The node's place by priority.
    pub rank: u16,
    pub taken: u32,
    /// Days by which it ships later than today: it goes behind those that ship sooner.
    pub late: u8,
}

impl Ledger {
    /// Answers what a reservation would be told; `None`: this shard has no part in it.
    pub fn explain(
        &mut self,
        moment: Moment,
        rules: &Rules,
        (reserve, lines): (&Reserve, &[Line]),
        plan: Option<&Plan>,
    ) -> Option<Answer> {
        let (mut effects, mut traces) = (Effects::default(), Vec::new());
        let asked = (reserve, reserve.lines(lines));
        let decision = match plan {
            Some(plan) => self.decide_planned(moment, rules, asked, &mut effects, plan, Some(&mut traces))?,
            None => self.decide_reserve(moment, rules, asked, &mut effects, None, Some(&mut traces))?,
        };
        Some(Answer::Explanation { decision, effects, traces })
    }

    /// What there is for a line at each node that has the sku.
    pub(super) fn trace_line(
        &self,
        rules: &Rules,
        channel: &ChannelRule,
        zone: ZoneId,
        (index, line): (usize, &Line),
        traces: &mut Vec<Trace>,
    ) {
        let group = rules.group(line.group);
        for at in self.positions.range(self.shard.row(line.sku)) {
            let position = self.positions.at(at);
            let node = position.node();
            if node.is_group() {
                break;
            }
            let withheld = rules.withheld(line.sku, node, channel.id());
            let share = |pool| self.share(line.sku, pool, node);
            let drawable = drawable(
                &channel.pools,
                (self.free(line.sku, position), withheld),
                position.allocated(),
                share,
            );
            let units: i64 = drawable.iter().map(|(_, units)| units).sum();
            let own = units - drawable.last().map_or(0, |(_, shared)| *shared);
            let why = if !channel.nodes.contains(node) {
                Why::NotOffered
            } else if group.is_some_and(|group| !group.contains(node)) {
                Why::NotInGroup
            } else if line.node != NodeId::ANY && line.node != node {
                Why::OtherNode
            } else if units == 0 {
                Why::Nothing
            } else {
                Why::NotChosen
            };
            let order = match channel.policy.strategy {
                Strategy::Priority | Strategy::FewestSplits | Strategy::HighestStock => 0,
                Strategy::Nearest | Strategy::LowestCost => self.by_strategy(rules, channel, zone, node, 0),
            };
            traces.push(Trace {
                line: index as u16,
                node,
                why,
                free: self.free(line.sku, position),
                withheld,
                own,
                order,
                rank: rules.rank(node),
                taken: 0,
                late: self.late_by(node),
            });
        }
    }
}
