//! The model's plan of an order: substitutes of skus, few nodes for all lines, and nodes that do not ship today.

use std::collections::{BTreeMap, BTreeSet};

use stockline_client::limit;
use stockline_client::record::LineRec;

use super::{ANY, LATER, Model, Taken};

/// When a node ships, in quarters of an hour by its own clock, and how many units.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DaySetup {
    /// 0 for midnight, and for no cut-off.
    pub cut_off: u64,
    pub ahead: i64,
    /// 0 for no limit.
    pub capacity: i64,
}

impl DaySetup {
    /// Which quarter of its day one is.
    fn of_day(&self, quarter: u64) -> u64 {
        (quarter as i64 + self.ahead).rem_euclid(96) as u64
    }
}

/// A line as it is to be decided.
pub(super) struct PlannedLine {
    pub line: LineRec,
    pub is_substitute: bool,
    /// The node to be tried first.
    pub first: u16,
}

/// Lines in the order in which they choose: the more one says, the sooner.
fn order_of(lines: &[LineRec]) -> Vec<usize> {
    let class = |line: &LineRec| match line.node {
        LATER => 3,
        ANY => 1 + u8::from(line.group == ANY),
        _ => 0,
    };
    let mut order: Vec<usize> = (0..lines.len()).collect();
    order.sort_by_key(|index| class(&lines[*index]));
    order
}

/// The same, those with substitutes last.
pub(super) fn order_of_planned(planned: &[PlannedLine]) -> Vec<usize> {
    let lines: Vec<LineRec> = planned.iter().map(|planned| planned.line).collect();
    let mut order = order_of(&lines);
    order.sort_by_key(|index| planned[*index].is_substitute);
    order
}

impl Model {
    /// Each line as it is to be decided; notes who goes last.
    pub(super) fn plan(
        &mut self,
        now_ms: u64,
        asking: (u16, u16),
        (lines, partial): (&[LineRec], bool),
    ) -> Vec<PlannedLine> {
        let rule = &self.setup.channels[&asking.0];
        let offered = self.offered(rule);
        let few = rule.strategy == 2 && lines.len() > 1;
        let swaps = rule.substitutes;
        self.late.clear();
        let mut own = Taken::new();
        let mut has: Vec<Option<(LineRec, BTreeSet<u16>)>> = vec![None; lines.len()];
        for index in order_of(lines) {
            let nodes = if few { self.whole_at(asking, &lines[index], &own) } else { BTreeSet::new() };
            if self.is_there(now_ms, asking, (&lines[index], false), &mut own) {
                has[index] = Some((lines[index], nodes));
            }
        }
        // A substitute is what is left behind all that lines get of their own skus, and serves one of them.
        for (line, _) in lines.iter().zip(&has).filter(|(_, found)| partial && found.is_none()) {
            self.is_there(now_ms, asking, (line, true), &mut own);
        }
        let mut used = BTreeSet::new();
        for (line, found) in lines.iter().zip(&mut has).filter(|(_, found)| found.is_none()) {
            let others = self.setup.sku_substitutes.get(&line.sku).filter(|_| swaps);
            for sku in others.into_iter().flatten() {
                let other = LineRec { sku: *sku, ..*line };
                let is_free = found.is_none() && !used.contains(sku);
                if is_free && self.is_there(now_ms, asking, (&other, false), &mut own.clone()) {
                    let nodes = if few { self.whole_at(asking, &other, &own) } else { BTreeSet::new() };
                    *found = Some((other, nodes));
                    used.insert(*sku);
                }
            }
        }
        self.late = self.late_nodes(now_ms, &offered);
        let mut planned = Vec::new();
        for (asked, found) in lines.iter().zip(&has) {
            let line = found.as_ref().map_or(*asked, |(line, _)| *line);
            planned.push(PlannedLine { line, is_substitute: line.sku != asked.sku, first: ANY });
        }
        let mut open: Vec<BTreeSet<u16>> =
            has.into_iter().map(|found| found.map_or(BTreeSet::new(), |(_, nodes)| nodes)).collect();
        while open.iter().any(|nodes| !nodes.is_empty()) {
            let worth = |node: &u16| {
                let lines_there = open.iter().filter(|nodes| nodes.contains(node)).count();
                let is_named = lines.iter().any(|line| line.node == *node);
                (is_named && lines_there > 0, lines_there, -self.late.get(node).copied().unwrap_or(0))
            };
            // The first of the best.
            let best = offered.iter().rev().max_by_key(|node| worth(node)).expect("some have lines");
            for (nodes, planned) in open.iter_mut().zip(&mut planned) {
                if nodes.contains(best) {
                    nodes.clear();
                    planned.first = *best;
                }
            }
        }
        planned
    }

    /// Takes a line if all of it is in stock, or what there is of it.
    fn is_there(
        &self,
        now_ms: u64,
        asking: (u16, u16),
        (line, partial): (&LineRec, bool),
        taken: &mut Taken,
    ) -> bool {
        if line.node == LATER {
            let place = self.group_place(asking.0, line);
            return matches!(self.take_of_group((asking.0, place), (line, partial), taken), Ok(None));
        }
        self.take_named(asking, line, taken)
            || self.take_line(now_ms, asking, (line, partial, false), taken).is_none()
    }

    /// Nodes that have a line whole, of those that an order is gathered from.
    fn whole_at(&self, asking: (u16, u16), line: &LineRec, taken: &Taken) -> BTreeSet<u16> {
        let wanted = i64::from(line.quantity);
        if line.node != ANY || self.most_of(asking, line, taken) < wanted {
            return BTreeSet::new();
        }
        let mut nodes = self.offered(&self.setup.channels[&asking.0]);
        nodes.truncate(limit::PLANNED_NODES_MAX);
        let of_all = self.shared(asking.0, line.sku, taken);
        let group = self.setup.groups.get(&line.group);
        nodes.retain(|node| group.is_none_or(|group| group.contains(node)));
        let has = |node: &u16| {
            let left = self.left(asking.0, line.sku, *node, taken);
            let (shared, own) = left.split_last().expect("one is shared");
            own.iter().sum::<i64>() + (*shared).min(of_all) >= wanted
        };
        nodes.into_iter().filter(has).collect()
    }

    /// By how many days nodes ship later than today.
    fn late_nodes(&self, now_ms: u64, offered: &[u16]) -> BTreeMap<u16, i64> {
        let quarter = now_ms / 900_000;
        let mut late = BTreeMap::new();
        for (node, day) in self.setup.days.iter().filter(|(node, _)| offered.contains(node)) {
            let is_over = day.cut_off > 0 && day.of_day(quarter) >= day.cut_off;
            // Back to where its day began.
            let mut first = quarter;
            while day.of_day(first) != day.cut_off {
                first -= 1;
            }
            let given: i64 =
                self.given.range((*node, first)..=(*node, u64::MAX)).map(|(_, units)| units).sum();
            let is_full = day.capacity > 0 && given >= day.capacity;
            late.insert(*node, i64::from(is_over) + i64::from(is_full));
        }
        late
    }

    /// A node is given units to pick.
    pub(super) fn note_given(&mut self, node: u16, units: i64) {
        *self.given.entry((node, self.now_ms / 900_000)).or_default() += units;
    }
}
