//! Claims on groups whose nodes are not chosen yet.
//!
//! They stand at a position of their own, which is the group's and not a node's: what is held or confirmed there is
//! missing in its free, so that it has nothing on hand. Which node serves them, a move says; until then [`Cover`]
//! keeps as many units free at nodes of the group as are claimed of it.

use smallvec::SmallVec;

use crate::bucket::{Bucket, Movement};
use crate::catalogue::{ChannelRule, Rules};
use crate::command::{Fill, Line};
use crate::cover::{Cover, Demands};
use crate::id::{ChannelId, NodeId, SkuId, ZoneId};
use crate::ledger::{Effects, Ledger, Short};
use crate::limit;

impl Ledger {
    /// Whether units of a sku are claimed of groups.
    #[inline]
    pub(super) fn is_claimed_of_groups(&self, sku: SkuId) -> bool {
        // Groups stand behind nodes.
        let last = self.positions.range(self.shard.row(sku)).next_back();
        last.is_some_and(|at| self.positions.at(at).node().is_group())
    }

    /// Notes what a channel's reservation claims of groups, or claims no longer.
    pub(super) fn count_of_groups(&mut self, channel: ChannelId, movements: &[Movement]) {
        for movement in movements.iter().filter(|movement| movement.node.is_group()) {
            let units = -movement.change_of(Bucket::Free);
            if units != 0 && self.shard.owns(movement.sku) {
                self.count_of_group(channel, movement.sku, movement.node, units);
            }
        }
    }

    #[cold]
    pub(super) fn count_of_group(&mut self, channel: ChannelId, sku: SkuId, node: NodeId, units: i64) {
        let counts = &mut self.extras.entry(sku).or_default().of_groups;
        match counts.iter().position(|count| (count.0, count.1) == (channel, node)) {
            Some(at) => {
                counts[at].2 += units;
                if counts[at].2 == 0 {
                    counts.swap_remove(at);
                }
            }
            None => counts.push((channel, node, units)),
        }
    }

    /// Whether a channel claims units of a sku of other groups than this one, and of so many as it may.
    fn has_too_many_groups(&self, channel: ChannelId, sku: SkuId, node: NodeId) -> bool {
        let counts = self.extras.get(&sku).map_or(&[][..], |extra| &extra.of_groups);
        let own = counts.iter().filter(|count| count.0 == channel).map(|count| count.1);
        // What this command claims already.
        let taken = self.taken_of_groups.iter().filter(|taken| taken.0 == sku).map(|taken| taken.1);
        let mut groups: SmallVec<[NodeId; 4]> = own.chain(taken).collect();
        groups.sort_unstable();
        groups.dedup();
        groups.len() >= limit::CLAIMED_GROUPS_PER_CHANNEL_MAX && !groups.contains(&node)
    }

    /// Units claimed of all groups together.
    pub(super) fn claimed_of_groups(&self, sku: SkuId) -> i64 {
        let positions = self.positions.range(self.shard.row(sku)).rev().map(|at| self.positions.at(at));
        let groups = positions.take_while(|position| position.node().is_group());
        groups.map(|position| (-position.free).max(0)).sum()
    }

    /// Units claimed of groups, `change` more or fewer of them free at each.
    pub(super) fn demands(&self, sku: SkuId, change: impl Fn(NodeId) -> i64) -> Demands {
        let positions = self.positions.range(self.shard.row(sku)).rev().map(|at| self.positions.at(at));
        let there = positions.take_while(|position| position.node().is_group());
        let there = there.map(|position| (position.node(), -(position.free + change(position.node()))));
        // What this command claims already.
        let takes = self.taken_of_groups.iter().filter(|(other, ..)| *other == sku);
        let takes = takes.map(|(_, node, units)| (*node, *units));
        let mut demands = Demands::new();
        for (node, units) in there.chain(takes) {
            let group = node.group().expect("it stands for a group");
            match demands.iter_mut().find(|(other, _)| *other == group) {
                Some((_, sum)) => *sum += units,
                None => demands.push((group, units)),
            }
        }
        demands.retain(|(_, units)| *units > 0);
        demands
    }

    /// Units free at each node, `change` more or fewer of them, less what is withheld.
    pub(super) fn usable(
        &self,
        sku: SkuId,
        withheld: impl Fn(NodeId) -> i64,
        change: impl Fn(NodeId) -> i64,
    ) -> impl Iterator<Item = (NodeId, i64)> {
        let positions = self.positions.range(self.shard.row(sku)).map(|at| self.positions.at(at));
        positions.filter(|position| !position.node().is_group()).map(move |position| {
            let node = position.node();
            (node, (self.free_with(sku, position, change(node)) - withheld(node)).max(0))
        })
    }

    /// How many of the units free at a node may be taken, where `change` more or fewer are free at each node and group,
    /// and `more` at the node that are owed to nobody.
    pub(super) fn uncovered(
        &self,
        rules: &Rules,
        (sku, node, more): (SkuId, NodeId, i64),
        withheld: impl Fn(NodeId) -> i64,
        change: impl Fn(NodeId) -> i64,
    ) -> i64 {
        let position = self.position(sku, node);
        let free = position.map_or(0, |position| self.free_with(sku, position, change(node)));
        let units = (free + more - withheld(node)).max(0);
        let demands =
            if self.is_claimed_of_groups(sku) { self.demands(sku, &change) } else { Demands::new() };
        if demands.is_empty() {
            return units;
        }
        let others = self.usable(sku, withheld, &change).filter(|(other, _)| *other != node);
        let usable = others.chain([(node, units)]);
        Cover::new(rules, &demands, usable).room(rules, node, units)
    }

    /// What a move may take at a node, behind what it gives back: what claims on groups lack does not become more.
    #[cold]
    pub(super) fn uncovered_by_move(
        &self,
        rules: &Rules,
        (sku, node): (SkuId, NodeId),
        withheld: impl Fn(NodeId) -> i64,
        (before, behind): (impl Fn(NodeId) -> i64, impl Fn(NodeId) -> i64),
    ) -> i64 {
        let (demands_before, demands) = (self.demands(sku, &before), self.demands(sku, &behind));
        if demands_before.is_empty() && demands.is_empty() {
            return i64::MAX;
        }
        let missing = Cover::new(rules, &demands_before, self.usable(sku, &withheld, &before)).missing();
        let mut cover = Cover::new(rules, &demands, self.usable(sku, &withheld, &behind));
        cover.allow(missing);
        let units = self.usable(sku, &withheld, &behind).find(|(other, _)| *other == node);
        units.map_or(0, |(_, units)| cover.room(rules, node, units))
    }

    /// Lets a line take of each candidate only what claims on groups leave; answers the units of the pool that all share
    /// that the channel is offered, and those of the candidates together; `None` where nothing is claimed.
    #[cold]
    pub(super) fn keep_cover(
        &mut self,
        rules: &Rules,
        channel: &ChannelRule,
        zone: ZoneId,
        sku: SkuId,
    ) -> Option<(i64, i64)> {
        let demands = self.demands(sku, |_| 0);
        if demands.is_empty() {
            self.cover = None;
            return None;
        }
        let withheld = |node| rules.withheld(sku, node, channel.id());
        let mut cover = Cover::new(rules, &demands, self.usable(sku, withheld, |_| 0));
        let offered = self.usable(sku, withheld, |_| 0).filter(|(node, _)| channel.nodes.contains(*node));
        let offered = cover.clone().take_all(rules, offered);
        let mut candidates = std::mem::take(&mut self.candidates);
        let node = |at: u32| self.positions.at(at as usize).node();
        let of_all = candidates.iter().map(|candidate| (node(candidate.at), candidate.shared));
        let total = cover.clone().take_all(rules, of_all);
        candidates.retain_mut(|candidate| {
            let node = node(candidate.at);
            candidate.shared = cover.room(rules, node, candidate.shared);
            let units = self.units_of(candidate, channel);
            if channel.prefers {
                let rank = u64::from(rules.rank(node));
                candidate.key = self.preference(rules, channel, zone, node, units) << 16 | rank;
            }
            units > 0
        });
        self.candidates = candidates;
        self.cover = Some(cover);
        Some((offered, total))
    }

    /// Claims a line of a group, for which node to serve it is chosen later.
    #[cold]
    pub(super) fn take_of_group(
        &mut self,
        rules: &Rules,
        channel: &ChannelRule,
        fill: Fill,
        (index, line): (usize, &Line),
        effects: &mut Effects,
    ) {
        let (sku, node) = (line.sku, line.node);
        let group = node.group().expect("it stands for a group");
        let nodes = rules.group(group);
        let demands = self.demands(sku, |_| 0);
        let known = demands.iter().any(|(other, _)| *other == group);
        let full = !known && demands.len() >= limit::CLAIMED_GROUPS_PER_SKU_MAX;
        if full || self.has_too_many_groups(channel.id(), sku, node) {
            self.full.groups = true;
            effects.shorts.push(Short { line: index as u16, sku, quantity: line.quantity, available: 0 });
            return;
        }
        let withheld = |node| rules.withheld(sku, node, channel.id());
        let usable = || self.usable(sku, withheld, |_| 0);
        let cover = Cover::new(rules, &demands, usable());
        let offered = usable().filter(|(node, _)| channel.nodes.contains(*node));
        let offered = cover.clone().take_all(rules, offered);
        let of_group = usable().filter(|(node, _)| nodes.is_none_or(|nodes| nodes.contains(*node)));
        let total = cover.clone().take_all(rules, of_group);
        let mut available = total.min((offered - i64::from(channel.buffer)).max(0));
        // As far as claims of a group can be counted: they may be of many nodes.
        let claimed = demands.iter().find(|(other, _)| *other == group).map_or(0, |(_, units)| *units);
        available = available.min(limit::BUCKET_UNITS_MAX - claimed);
        if channel.policy.cap > 0 {
            available = self.capped(channel, sku, available);
        }
        let wanted = i64::from(line.quantity).min(available);
        if wanted < i64::from(line.quantity) {
            let (line, quantity, available) = (index as u16, line.quantity, available as u32);
            effects.shorts.push(Short { line, sku, quantity, available });
            if fill == Fill::All || wanted == 0 {
                return;
            }
        }
        let (pool, quantity) = (ChannelId::SHARED, wanted);
        self.taken_of_groups.push((sku, node, quantity));
        let (from, to, quantity) = (Bucket::Free, Bucket::Held, wanted as u32);
        effects.movements.push(Movement { sku, node, pool, from, to, quantity });
    }
}
