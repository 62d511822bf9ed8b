//! The part of the catalogue that decisions and queries read: made anew at each change, and immutable.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::catalogue::{
    Catalogue, Channel, Day, LateConfirm, Node, NodeSet, Policy, SkuRules, Strategy, ZoneRule,
};
use crate::command::Reserve;
use crate::id::{ChannelId, GroupId, NodeId, SkuId, ZoneId};
use crate::limit;

/// What a channel may be promised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelRule {
    pub nodes: NodeSet,
    /// The group of them, if they are one.
    pub group: GroupId,
    /// Whose allocations it draws from, in this order: its own, then those of the channels above it.
    pub pools: Box<[ChannelId]>,
    pub buffer: u32,
    pub policy: Policy,
    /// Reservations of so many lines and more are [planned](crate::plan) as a whole.
    pub planned_from: u32,
    /// Which of its nodes is best depends on more than their rank.
    pub prefers: bool,
    /// The first by priority, where lines are to come from few nodes.
    pub first_nodes: Box<[NodeId]>,
}

impl ChannelRule {
    /// Whose rule it is.
    pub fn id(&self) -> ChannelId {
        self.pools[0]
    }
}

/// The part of the catalogue that decisions and queries read; immutable.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Rules {
    /// By channel id.
    pub channels: Vec<ChannelRule>,
    /// By group id.
    pub groups: Vec<NodeSet>,
    /// By node id: its place when nodes are tried one after the other.
    pub ranks: Vec<u16>,
    /// Which nodes serve a line in place of the one it names; the first that can goes first.
    pub substitutes: HashMap<NodeId, Box<[NodeId]>>,
    /// Which skus may serve a line in place of its own.
    pub sku_substitutes: Arc<HashMap<SkuId, Box<[SkuId]>>>,
    /// Nodes that have a cut-off or a capacity; by node.
    pub days: Vec<(NodeId, Day)>,
    /// Some channel's late confirmations claim again what expired.
    pub reacquires: bool,
    pub skus: SkuRules,
    /// By zone id.
    pub zones: Vec<Arc<ZoneRule>>,
}

impl Rules {
    pub fn channel(&self, channel: ChannelId) -> Option<&ChannelRule> {
        self.channels.get(channel.0 as usize)
    }

    /// Whether a reservation is [planned](crate::plan) as a whole.
    #[inline]
    pub fn plans(&self, reserve: &Reserve) -> bool {
        self.channel(reserve.channel).is_some_and(|channel| reserve.line_count >= channel.planned_from)
    }

    /// Whether a channel is offered a node.
    pub fn offers(&self, channel: ChannelId, node: NodeId) -> bool {
        self.channel(channel).is_some_and(|rule| rule.nodes.contains(node))
    }

    /// Units of a sku that rules withhold from a channel at a node.
    pub fn withheld(&self, sku: SkuId, node: NodeId, channel: ChannelId) -> i64 {
        let profile = self.skus.profile(sku);
        profile.map_or(0, |profile| i64::from(self.skus.withheld(profile, node, channel)))
    }

    pub fn zone(&self, zone: ZoneId) -> Option<&ZoneRule> {
        self.zones.get(zone.0 as usize).map(|zone| &**zone)
    }

    pub fn group(&self, group: GroupId) -> Option<&NodeSet> {
        self.groups.get(group.0 as usize)
    }

    pub fn knows_node(&self, node: NodeId) -> bool {
        (node.0 as usize) < self.ranks.len()
    }

    /// Whether units can be claimed there: at a node, or at any of a group.
    pub fn knows_place(&self, node: NodeId) -> bool {
        let group = |group| group == GroupId::ANY || self.group(group).is_some();
        node.group().map_or_else(|| self.knows_node(node), group)
    }

    /// Whether a channel is offered a node, or all nodes of the group that it stands for.
    pub fn offers_place(&self, channel: &ChannelRule, node: NodeId) -> bool {
        match node.group() {
            None => channel.nodes.contains(node),
            Some(group) => self.group(group).unwrap_or(&NodeSet::All).is_within(&channel.nodes),
        }
    }

    pub fn rank(&self, node: NodeId) -> u16 {
        self.ranks[node.0 as usize]
    }
}

impl Catalogue {
    pub(super) fn derive(&self) -> Rules {
        let groups = self.group_sets();
        let mut order: Vec<usize> = (0..self.nodes.len()).collect();
        order.sort_by_key(|at| (self.nodes[*at].priority, *at));
        let mut ranks = vec![0; order.len()];
        for (rank, node) in order.iter().enumerate() {
            ranks[*node] = rank as u16;
        }
        let days = self.nodes.iter().zip(0..).map(|(node, at)| (NodeId(at), node.day));
        let has_one = |(_, day): &(NodeId, Day)| day.cut_off > 0 || day.capacity > 0;
        let days: Vec<(NodeId, Day)> = days.filter(has_one).collect();
        let rule = |(at, channel): (usize, &Channel)| {
            let nodes = channel.group.map_or(NodeSet::All, |group| groups[group.0 as usize].clone());
            let policy = channel.policy;
            let has_days = days.iter().any(|(node, _)| nodes.contains(*node));
            let gathers = policy.strategy == Strategy::FewestSplits;
            let first =
                order.iter().map(|at| NodeId(*at as u16)).filter(|node| gathers && nodes.contains(*node));
            ChannelRule {
                pools: self.line_of(at, &channel.name, channel.parent).into(),
                group: channel.group.unwrap_or(GroupId::ANY),
                buffer: channel.buffer,
                planned_from: match policy {
                    _ if has_days => 1,
                    Policy { substitutes: true, .. } if !self.sku_substitutes.is_empty() => 1,
                    Policy { strategy: Strategy::FewestSplits, .. } => 2,
                    _ => u32::MAX,
                },
                prefers: has_days || policy.strategy != Strategy::Priority,
                first_nodes: first.take(limit::PLANNED_NODES_MAX).collect(),
                nodes,
                policy,
            }
        };
        let channels: Vec<ChannelRule> = self.channels.iter().enumerate().map(rule).collect();
        let late = |rule: &ChannelRule| rule.policy.late_confirm == LateConfirm::Reacquire;
        let reacquires = channels.iter().any(late);
        let (skus, zones) = (self.book.compiled().clone(), self.zone_rules.clone());
        let some = |(at, node): (usize, &Node)| {
            (!node.substitutes.is_empty()).then(|| (NodeId(at as u16), node.substitutes.clone().into()))
        };
        let substitutes = self.nodes.iter().enumerate().filter_map(some).collect();
        let sku_substitutes = Arc::clone(&self.sku_substitutes);
        Rules { channels, groups, ranks, substitutes, sku_substitutes, days, reacquires, skus, zones }
    }
}
