//! The model's claims on groups whose nodes are chosen later: what can be taken so that all of them can still be
//! served, found by serving them.

use std::collections::{BTreeMap, BTreeSet};

use stockline_client::limit;
use stockline_client::outcome::Code;
use stockline_client::record::LineRec;

use super::{ANY, FREE, Model, Taken};

/// In place of a node in a line: it is chosen later.
pub const LATER: u16 = ANY - 1;
/// In place of a node: the first group, and all nodes.
const GROUPS: u16 = 1 << 15;
const ALL: u16 = LATER - 1;

/// Where units of a group are claimed.
pub fn place_of(group: u16) -> u16 {
    if group == ANY { ALL } else { GROUPS + group }
}

pub(super) fn is_group(node: u16) -> bool {
    (GROUPS..LATER).contains(&node)
}

/// Who wants units of which nodes, and has them from where.
struct Served {
    wants: Vec<BTreeSet<u16>>,
    left: BTreeMap<u16, i64>,
    has: BTreeMap<(usize, u16), i64>,
}

impl Served {
    /// Gives some units to one, those of others moved where need be; answers how many.
    fn push(&mut self, one: usize, wanted: i64, seen: &mut BTreeSet<u16>) -> i64 {
        let nodes: Vec<u16> = self.wants[one].iter().copied().collect();
        for node in nodes {
            if !seen.insert(node) {
                continue;
            }
            let mut got = wanted.min(self.left.get(&node).copied().unwrap_or(0));
            if got > 0 {
                *self.left.entry(node).or_default() -= got;
            }
            for other in 0..self.wants.len() {
                let theirs = self.has.get(&(other, node)).copied().unwrap_or(0);
                if got == 0 && other != one && theirs > 0 {
                    got = self.push(other, wanted.min(theirs), seen);
                    *self.has.entry((other, node)).or_default() -= got;
                }
            }
            if got > 0 {
                *self.has.entry((one, node)).or_default() += got;
                return got;
            }
        }
        0
    }

    /// Serves one up to so many units.
    fn serve(&mut self, one: usize, wanted: i64) -> i64 {
        let mut served = 0;
        while served < wanted {
            match self.push(one, wanted - served, &mut BTreeSet::new()) {
                0 => break,
                some => served += some,
            }
        }
        served
    }
}

impl Model {
    pub(super) fn nodes_of(&self, place: u16) -> BTreeSet<u16> {
        match place {
            ALL => self.setup.nodes.keys().copied().collect(),
            place => self.setup.groups[&(place - GROUPS)].clone(),
        }
    }

    /// Whether it is a node, or the place of a group.
    pub(super) fn knows(&self, place: u16) -> bool {
        let group = is_group(place) && (place == ALL || self.setup.groups.contains_key(&(place - GROUPS)));
        group || self.setup.nodes.contains_key(&place)
    }

    /// The group that a line claims units of.
    pub(super) fn group_place(&self, channel: u16, line: &LineRec) -> u16 {
        let own = self.setup.channels[&channel].group.unwrap_or(ANY);
        place_of(if line.group == ANY { own } else { line.group })
    }

    /// Units claimed of groups, by place.
    pub(super) fn claimed_of_groups(&self, sku: u32, taken: &Taken) -> Vec<(u16, i64)> {
        let groups = self.setup.groups.keys().map(|group| place_of(*group)).chain([ALL]);
        let gone = |place| taken.get(&(sku, place, ANY)).copied().unwrap_or(0);
        let claimed = groups.map(|place| (place, gone(place) - self.at(sku, place)[FREE]));
        claimed.filter(|(_, units)| *units > 0).collect()
    }

    /// How many units of some nodes may be taken so that who claims units of groups is served as well as without that;
    /// `None` where nobody does. A channel may not take what is withheld from it.
    pub(super) fn room(&self, sku: u32, taken: &Taken, channel: Option<u16>, nodes: &[u16]) -> Option<i64> {
        self.room_with(sku, (taken, 0), channel, nodes)
    }

    /// The same with more units at each of the nodes asked for.
    fn room_with(
        &self,
        sku: u32,
        (taken, more): (&Taken, i64),
        channel: Option<u16>,
        nodes: &[u16],
    ) -> Option<i64> {
        let claimed = self.claimed_of_groups(sku, taken);
        if claimed.is_empty() {
            return None;
        }
        let units = |node| {
            let more = if nodes.contains(&node) { more } else { 0 };
            self.usable((sku, node), (taken, more), channel)
        };
        let mut wants: Vec<BTreeSet<u16>> = claimed.iter().map(|(place, _)| self.nodes_of(*place)).collect();
        wants.push(nodes.iter().copied().collect());
        let left = self.setup.nodes.keys().map(|node| (*node, units(*node))).collect();
        let mut served = Served { wants, left, has: BTreeMap::new() };
        for (at, (_, units)) in claimed.iter().enumerate() {
            served.serve(at, *units);
        }
        Some(served.serve(claimed.len(), i64::MAX))
    }

    /// Units claimed of groups that none of their nodes has.
    fn unserved(&self, sku: u32, taken: &Taken, channel: Option<u16>) -> i64 {
        let claimed: i64 = self.claimed_of_groups(sku, taken).iter().map(|(_, units)| units).sum();
        let nodes: Vec<u16> = self.setup.nodes.keys().copied().collect();
        let left = self.room(sku, taken, channel, &nodes).unwrap_or(0);
        let all: i64 = nodes.iter().map(|node| self.usable((sku, *node), (taken, 0), channel)).sum();
        claimed - (all - left)
    }

    /// What a move may take at a node behind what its line gives back: what is not served does not become more.
    pub(super) fn room_of_move(
        &self,
        (sku, node): (u32, u16),
        channel: Option<u16>,
        (before, behind): (&Taken, &Taken),
    ) -> Option<i64> {
        let was_claimed = !self.claimed_of_groups(sku, before).is_empty();
        let units = self.usable((sku, node), (behind, 0), channel);
        let room = match self.room(sku, behind, channel, &[node]) {
            None if !was_claimed => return None,
            room => room.unwrap_or(units),
        };
        let more = self.unserved(sku, before, channel) - self.unserved(sku, behind, channel);
        Some(units.min(room + more.max(0)))
    }

    /// Units of a node, and more, that a channel may use.
    fn usable(&self, (sku, node): (u32, u16), (taken, more): (&Taken, i64), channel: Option<u16>) -> i64 {
        let withheld = channel.map_or(0, |channel| self.withheld(sku, node, channel));
        let free = self.at(sku, node)[FREE] - taken.get(&(sku, node, ANY)).copied().unwrap_or(0);
        (free - self.owed_of(sku, node, free) + more - withheld).max(0)
    }

    /// Units free at a node that nobody claims, of it or of its groups.
    pub(super) fn spare(&self, sku: u32, node: u16, kept: i64) -> i64 {
        let units = self.unclaimed((sku, node, ANY)) + kept;
        self.room_with(sku, (&Taken::new(), kept), None, &[node]).map_or(units, |room| room.min(units))
    }

    /// Claims a line of a group, whole or partly; answers the most there would be where that is less than was asked for.
    pub(super) fn take_of_group(
        &self,
        (channel, place): (u16, u16),
        (line, partial): (&LineRec, bool),
        taken: &mut Taken,
    ) -> Result<Option<i64>, Code> {
        let claimed = self.claimed_of_groups(line.sku, taken);
        let known = claimed.iter().any(|(other, _)| *other == place);
        let own = self.reservations.values().filter(|one| one.channel == channel && one.state.is_active());
        let own = own.flat_map(|one| one.claims.keys()).chain(taken.keys());
        let own: BTreeSet<u16> =
            own.filter(|spot| spot.0 == line.sku && is_group(spot.1)).map(|spot| spot.1).collect();
        let crowded = own.len() >= limit::CLAIMED_GROUPS_PER_CHANNEL_MAX && !own.contains(&place);
        if crowded || (!known && claimed.len() >= limit::CLAIMED_GROUPS_PER_SKU_MAX) {
            return Err(Code::TooManyGroups);
        }
        let nodes: Vec<u16> = self.nodes_of(place).into_iter().collect();
        let (wanted, rule) = (i64::from(line.quantity), &self.setup.channels[&channel]);
        let of_group = self.joint(channel, line.sku, &nodes, taken);
        let mut most = of_group.min(self.shared(channel, line.sku, taken)).min(wanted);
        let there = claimed.iter().find(|(other, _)| *other == place).map_or(0, |(_, units)| *units);
        most = most.min(limit::BUCKET_UNITS_MAX - there);
        if rule.cap > 0 {
            let of_sku = taken.range((line.sku, 0, 0)..=(line.sku, ANY, ANY));
            most = most.min(rule.cap - of_sku.map(|(_, units)| units).sum::<i64>());
        }
        if most == wanted || (partial && most > 0) {
            *taken.entry((line.sku, place, ANY)).or_default() += most;
        }
        Ok((most < wanted).then_some(most))
    }

    /// Units of several nodes together that a channel can draw of what all share.
    pub(super) fn joint(&self, channel: u16, sku: u32, nodes: &[u16], taken: &Taken) -> i64 {
        let last = |node: &u16| *self.left(channel, sku, *node, taken).last().expect("one is shared");
        let sum = || nodes.iter().map(last).sum();
        self.room(sku, taken, Some(channel), nodes).unwrap_or_else(sum)
    }
}
