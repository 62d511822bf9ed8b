//! The plan of an order: what has to be known of all its lines before each is decided.
//!
//! A line alone cannot know from which node the others come, nor how full a node's day is with skus of other shards, nor
//! whether a substitute in another shard is there. So where a channel asks for it ([`Rules::plans`]), each part of a
//! reservation first lays open what it has, as numbers in a table that all parts read alike, and all make the same
//! [`Plan`] of it. Which sku serves a line is settled by that; which nodes are preferences: each line is decided as ever,
//! and where those of a sku are short by a plan's preferences they are decided without.

use crate::catalogue::{ChannelRule, Rules, Strategy};
use crate::command::{Line, Reserve};
use crate::id::{Millis, NodeId, ShardOf, SkuId};
use crate::limit;

/// A cell of the table says: the line, or its substitute, is there whole. The other bits: which of the channel's
/// [first nodes](ChannelRule::first_nodes) have it whole.
const SERVED: u64 = 1 << 63;

/// What one sku has for a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offer {
    /// All of it is there, at one node or several.
    pub served: bool,
    /// A bit for each of the channel's first nodes that has all of it.
    pub nodes: u64,
}

impl Offer {
    pub fn number(self) -> u64 {
        self.nodes | if self.served { SERVED } else { 0 }
    }

    fn of(number: u64) -> Offer {
        Offer { served: number & SERVED != 0, nodes: number & !SERVED }
    }
}

/// What a line is to be decided as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Planned {
    /// Its own sku, or a substitute.
    pub sku: SkuId,
    pub is_substitute: bool,
    /// The node to be tried first, or [`NodeId::ANY`].
    pub first: NodeId,
    /// Who ships today matters.
    pub heeds_days: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// One a line.
    pub lines: Vec<Planned>,
    /// Nodes that do not ship today, with how many days they are behind; by node.
    pub late: Vec<(NodeId, u8)>,
}

/// A line's own sku, then those that may serve it instead.
pub fn alternatives<'a>(
    rules: &'a Rules,
    channel: &ChannelRule,
    line: &Line,
) -> impl Iterator<Item = SkuId> + use<'a> {
    let others = rules.sku_substitutes.get(&line.sku).filter(|_| channel.policy.substitutes);
    std::iter::once(line.sku).chain(others.into_iter().flat_map(|skus| skus.iter().copied()))
}

/// Where each line's cells begin, and behind the last line's those of nodes with days.
pub fn places(rules: &Rules, channel: &ChannelRule, lines: &[Line]) -> Vec<usize> {
    let mut places = vec![0];
    let mut end = 0;
    for line in lines {
        end += alternatives(rules, channel, line).count();
        places.push(end);
    }
    places
}

/// Nodes of the channel that have a [day](crate::catalogue::Day); each has a cell.
pub fn days<'a>(
    rules: &'a Rules,
    channel: &'a ChannelRule,
) -> impl Iterator<Item = (NodeId, crate::catalogue::Day)> + 'a {
    rules.days.iter().copied().filter(|(node, _)| channel.nodes.contains(*node))
}

/// How many cells the table has.
pub fn cells(rules: &Rules, channel: &ChannelRule, lines: &[Line]) -> usize {
    places(rules, channel, lines).last().copied().unwrap_or(0) + days(rules, channel).count()
}

/// Which shards have something to say of it, a bit for each. How full days are, all know a part of.
pub fn shards(rules: &Rules, reserve: &Reserve, lines: &[Line], count: u32) -> u64 {
    let Some(channel) = rules.channel(reserve.channel) else { return 0 };
    let of = |sku: SkuId| 1 << (sku.0 % count);
    let counts = channel.policy.counts_holds();
    let mut set = if counts { 1 << ShardOf::counting(reserve.channel, count) } else { 0u64 };
    if !rules.plans(reserve) {
        return lines.iter().fold(set, |set, line| set | of(line.sku));
    }
    if days(rules, channel).any(|(_, day)| day.capacity > 0) {
        return u64::MAX >> (64 - count);
    }
    for line in lines {
        set = alternatives(rules, channel, line).fold(set, |set, sku| set | of(sku));
    }
    set
}

/// By how many days a node is behind, among those that are.
pub fn days_late(late: &[(NodeId, u8)], node: NodeId) -> u8 {
    late.binary_search_by_key(&node, |(node, _)| *node).map_or(0, |at| late[at].1)
}

impl Plan {
    /// What follows from what all parts laid open. `cell` reads the table.
    pub fn make(
        now: Millis,
        rules: &Rules,
        channel: &ChannelRule,
        lines: &[Line],
        cell: impl Fn(usize) -> u64,
    ) -> Plan {
        let places = places(rules, channel, lines);
        let mut plan = Plan::default();
        let mut open = Vec::with_capacity(lines.len());
        let mut used = Vec::new();
        for (line, first) in lines.iter().zip(&places) {
            let mut offers = alternatives(rules, channel, line).zip(*first..);
            // Offers of substitutes do not see one another: each serves one line.
            let is_free = |sku| sku == line.sku || !used.contains(&sku);
            let (sku, offer) = offers
                .find_map(|(sku, at)| {
                    Some((sku, Offer::of(cell(at)))).filter(|(sku, offer)| offer.served && is_free(*sku))
                })
                .unwrap_or((line.sku, Offer::default()));
            let is_substitute = sku != line.sku;
            if is_substitute {
                used.push(sku);
            }
            plan.lines.push(Planned { sku, is_substitute, first: NodeId::ANY, heeds_days: true });
            open.push(offer.nodes);
        }
        let behind_lines = places.last().copied().unwrap_or(0);
        for ((node, day), at) in days(rules, channel).zip(behind_lines..) {
            let behind = u8::from(day.is_over(now)) + u8::from(day.is_full(cell(at)));
            if behind > 0 {
                plan.late.push((node, behind));
            }
        }
        if channel.policy.strategy == Strategy::FewestSplits && lines.len() > 1 {
            plan.gather(channel, lines, open);
        }
        plan
    }

    /// The same, where lines of some skus have no preferences; `None` if they had none.
    pub fn without_preferences(&self, skus: &[SkuId]) -> Option<Plan> {
        let of = |line: &Planned| skus.contains(&line.sku);
        let prefers = |line: &Planned| of(line) && (line.first != NodeId::ANY || !self.late.is_empty());
        if !self.lines.iter().any(prefers) {
            return None;
        }
        let mut plan = self.clone();
        for line in plan.lines.iter_mut().filter(|line| of(line)) {
            (line.first, line.heeds_days) = (NodeId::ANY, false);
        }
        Some(plan)
    }

    /// Sends lines to as few nodes as can be found by taking the node that has most of them whole, again and again:
    /// before others those that lines name, then who ships today, then by priority. `open`: which nodes have each line.
    fn gather(&mut self, channel: &ChannelRule, lines: &[Line], mut open: Vec<u64>) {
        let is_named = |node: NodeId| lines.iter().any(|line| line.node == node);
        let nodes: Vec<(bool, u8)> =
            channel.first_nodes.iter().map(|node| (is_named(*node), days_late(&self.late, *node))).collect();
        loop {
            let has = |at: usize| open.iter().filter(|nodes| *nodes >> at & 1 == 1).count();
            let best = (0..nodes.len()).map(|at| (nodes[at].0, has(at), 3 - nodes[at].1, at));
            let best = best
                .filter(|(_, has, ..)| *has > 0)
                .max_by_key(|(named, has, today, at)| (*named, *has, *today, std::cmp::Reverse(*at)));
            let Some((.., at)) = best else { return };
            for (nodes, planned) in open.iter_mut().zip(&mut self.lines) {
                if *nodes >> at & 1 == 1 {
                    (*nodes, planned.first) = (0, channel.first_nodes[at]);
                }
            }
        }
    }
}

const _: () = assert!(limit::PLANNED_NODES_MAX < 64);
const _: () = assert!(limit::SHARDS_MAX <= 64);
