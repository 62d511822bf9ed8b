//! The model's rules by sku: what is withheld, what receipts bring, what is balanced.

use stockline_client::outcome::Code;

use super::{ANY, Due, Effect, Model, SkuRule, bare};

impl Model {
    /// Rules that hold for a sku at a node, the most specific last.
    pub(super) fn rules(&self, sku: u32, node: u16) -> Vec<&SkuRule> {
        let Some((name, category)) = self.setup.names.get(&sku) else { return Vec::new() };
        let matches = |rule: &SkuRule| {
            let skus = match rule.skus.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => *name == rule.skus,
            };
            let nodes = rule.node.is_none_or(|only| only == node)
                && rule.group.is_none_or(|group| self.setup.groups[&group].contains(&node));
            skus && nodes && (rule.category.is_empty() || rule.category == *category)
        };
        let mut rules: Vec<(usize, &SkuRule)> =
            self.setup.rules.iter().enumerate().filter(|(_, rule)| matches(rule)).collect();
        rules.sort_by_key(|(age, rule)| {
            let place = if rule.node.is_some() { 2 } else { usize::from(rule.group.is_some()) };
            (
                !rule.skus.ends_with('*'),
                rule.skus.len(),
                !rule.category.is_empty(),
                place,
                rule.channel.is_some(),
                *age,
            )
        });
        rules.into_iter().map(|(_, rule)| rule).collect()
    }

    /// Units free at a node that a channel may not have.
    pub(super) fn withheld(&self, sku: u32, node: u16, channel: u16) -> i64 {
        let rules = self.rules(sku, node).into_iter().rev();
        let mut said = rules.filter_map(|rule| match rule.effect {
            Effect::Safety(units) if rule.channel.is_none_or(|only| only == channel) => Some(units),
            _ => None,
        });
        said.next().unwrap_or(0)
    }

    /// Channels with what they shall have: amount, whether it is a percentage.
    fn keeps(&self, sku: u32, node: u16, wanted: impl Fn(Option<u64>) -> bool) -> Vec<(u16, i64, bool)> {
        let mut found: Vec<(u16, i64, bool, Option<u64>)> = Vec::new();
        for rule in self.rules(sku, node).into_iter().rev() {
            if let (Effect::Allocate { amount, percent, every }, Some(channel)) = (rule.effect, rule.channel)
                && found.iter().all(|(other, ..)| *other != channel)
            {
                found.push((channel, amount, percent, every));
            }
        }
        found.retain(|(.., every)| wanted(*every));
        for (channel, amount, ..) in &mut found {
            // Of what it is not offered it shall have nothing.
            if !self.offered(&self.setup.channels[channel]).contains(&node) {
                *amount = 0;
            }
        }
        found.sort_by_key(|(channel, _, percent, _)| (*percent, *channel));
        found.into_iter().map(|(channel, amount, percent, _)| (channel, amount, percent)).collect()
    }

    /// Gives channels their part of what came.
    pub(super) fn share_out(&mut self, sku: u32, node: u16, came: i64) {
        let mut open = came.min(self.spare(sku, node, 0)).max(0);
        for (channel, amount, percent) in self.keeps(sku, node, |every| every.is_none()) {
            let spot = (sku, node, channel);
            let wanted =
                if percent { came.max(0) * amount / 100 } else { (amount - self.unclaimed(spot)).max(0) };
            let units = wanted.min(open);
            open -= units;
            self.give((sku, node, ANY), -units);
            self.give(spot, units);
        }
    }

    pub(super) fn balance(&mut self, now_ms: u64, sku: u32) -> Due {
        let minute = now_ms / 60_000;
        let mut moved = false;
        let nodes: Vec<u16> = self.setup.nodes.keys().copied().collect();
        for node in nodes {
            let keeps =
                self.keeps(sku, node, |every| every.is_some_and(|minutes| minute.is_multiple_of(minutes)));
            let spot = |channel| (sku, node, channel);
            let kept: i64 = keeps.iter().map(|(channel, ..)| self.unclaimed(spot(*channel))).sum();
            let all = (self.unclaimed((sku, node, ANY)) + kept).max(0);
            let mut open = all.min(self.spare(sku, node, kept)).max(0);
            for (channel, amount, percent) in keeps {
                let wanted = if percent { all * amount / 100 } else { amount }.min(open);
                open -= wanted;
                let change = wanted - self.unclaimed(spot(channel));
                moved |= change != 0;
                self.give(spot(ANY), -change);
                self.give(spot(channel), change);
            }
        }
        bare(if moved { Code::Ok } else { Code::NotDue })
    }
}
