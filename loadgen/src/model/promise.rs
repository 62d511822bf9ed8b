//! The model's backorders: what is to come, who waits for it, and promises made anew.

use std::collections::{BTreeMap, BTreeSet};

use stockline_client::limit;
use stockline_client::outcome::Code;
use stockline_client::record::LineRec;

use super::group::is_group;
use super::{ANY, CONFIRMED, Effect, FREE, HELD, Model, Spot, Taken};

/// In place of a pool: no supply. Pools of supplies lie between channels and this.
const NO_SUPPLY: u16 = ANY - 1;
const FIRST: u16 = 1 << 15;

/// When units are there: they are, or never.
const THERE: u64 = 0;
const NEVER: u64 = u64::MAX;

pub(super) fn is_supply(pool: u16) -> bool {
    (FIRST..=NO_SUPPLY).contains(&pool)
}

/// What a reservation claims of a supply: sku, node, when, units, of these held.
pub type Waits = (u32, u16, u64, i64, i64);

/// The date of a supply, and the one that those who wait were told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Date {
    pub at_ms: u64,
    told_ms: u64,
    /// Units that came for those who claim it, and that nobody was given yet.
    arrived: i64,
}

/// When a supply brings what it brings: without a date, never.
fn dated(at_ms: u64) -> u64 {
    if at_ms == 0 { NEVER } else { at_ms }
}

impl Model {
    /// The pool of a supply.
    fn pool_of(&mut self, supply: u128) -> u16 {
        if let Some(at) = self.numbers.iter().position(|known| *known == supply) {
            return FIRST + at as u16;
        }
        self.numbers.push(supply);
        FIRST + self.numbers.len() as u16 - 1
    }

    fn key(&self, (sku, node, pool): Spot) -> (u32, u16, u128) {
        (sku, node, self.numbers[usize::from(pool - FIRST)])
    }

    /// Notes that a supply was told of.
    pub(super) fn date_supply(&mut self, key: (u32, u16, u128), eta_ms: u64, again: bool) {
        let pool = self.pool_of(key.2);
        let known = self.supplies.contains_key(&key) || self.claimed((key.0, key.1, pool)) > 0;
        if !known {
            self.dates.insert(key, Date { at_ms: eta_ms, told_ms: eta_ms, arrived: 0 });
        } else if again {
            self.dates.get_mut(&key).expect("it is known").at_ms = eta_ms;
        }
    }

    /// When units of a pool are there.
    pub(super) fn date(&self, spot: Spot) -> u64 {
        match spot.2 {
            NO_SUPPLY => NEVER,
            pool if is_supply(pool) => dated(self.dates[&self.key(spot)].at_ms),
            _ => THERE,
        }
    }

    /// Units that reservations claim of a supply at a node.
    fn claimed(&self, spot: Spot) -> i64 {
        let here = self.waiting.iter().filter(|(sku, node, _)| (*sku, *node) == (spot.0, spot.1));
        here.filter_map(|(_, _, id)| self.reservations[id].claims.get(&spot))
            .map(|claim| claim.quantity)
            .sum()
    }

    /// Pools at a node that are claimed or have something to come, and how many units of each are claimed and come.
    fn pools_at(&self, sku: u32, node: u16) -> BTreeMap<u16, (i64, i64)> {
        let mut found: BTreeMap<u16, (i64, i64)> = BTreeMap::new();
        for ((_, _, supply), units) in self.supplies.range((sku, node, 0)..=(sku, node, u128::MAX)) {
            let at = self.numbers.iter().position(|known| known == supply).expect("it was told of");
            found.entry(FIRST + at as u16).or_default().1 = *units;
        }
        for (_, _, id) in self.waiting.iter().filter(|waits| (waits.0, waits.1) == (sku, node)) {
            let claims = self.reservations[id].claims.range((sku, node, FIRST)..(sku, node, ANY));
            for (spot, claim) in claims {
                found.entry(spot.2).or_default().0 += claim.quantity;
            }
        }
        found
    }

    fn backlog(&self, sku: u32, node: u16) -> i64 {
        self.pools_at(sku, node).values().map(|(claimed, come)| claimed - come).sum()
    }

    /// Units of a supply have come: those claimed are for who claims them.
    pub(super) fn arrive(&mut self, key: (u32, u16, u128), units: i64) -> i64 {
        let pool = self.pool_of(key.2);
        let claimed = self.claimed((key.0, key.1, pool));
        let date = self.dates.get_mut(&key).expect("it is known");
        let before = date.arrived;
        date.arrived = (date.arrived + units).min(claimed);
        date.arrived - before
    }

    /// Units were given to who waits for a supply: as many of what came for it are gone.
    pub(super) fn note_taken(&mut self, spot: Spot, units: i64) {
        if spot.2 != NO_SUPPLY {
            let key = self.key(spot);
            let date = self.dates.get_mut(&key).expect("it was told of");
            date.arrived = (date.arrived - units).max(0);
        }
    }

    /// Units that reservations wait for at a node; those of channels alone that take what comes unannounced.
    fn wanted(&self, sku: u32, node: u16, taking: bool) -> i64 {
        let here = self.waiting.iter().filter(|waits| (waits.0, waits.1) == (sku, node));
        here.map(|(_, _, id)| &self.reservations[id])
            .filter(|reservation| !taking || !self.setup.channels[&reservation.channel].passes)
            .flat_map(|reservation| reservation.claims.range((sku, node, FIRST)..(sku, node, ANY)))
            .map(|(_, claim)| claim.quantity)
            .sum()
    }

    /// Units that came of no supply that is claimed; kept for those who wait until they are promised anew.
    pub(super) fn come_unannounced(&mut self, sku: u32, node: u16, units: i64, taking: bool) {
        let most = self.wanted(sku, node, taking);
        let units = units.clamp(0, self.at(sku, node)[FREE].max(0));
        let known = self.unannounced.get(&(sku, node)).copied().unwrap_or(0);
        if units > 0 && most > 0 {
            self.unannounced.insert((sku, node), (known + units).min(most));
        }
    }

    /// Says whether there was something.
    pub(super) fn forget_unannounced(&mut self, sku: u32) -> bool {
        let before = self.unannounced.len();
        self.unannounced.retain(|(other, _), _| *other != sku);
        self.unannounced.len() < before
    }

    /// Units claimed of a supply that it does not bring.
    fn over(&self, spot: Spot, (claimed, come): (i64, i64)) -> i64 {
        let arrived = if spot.2 == NO_SUPPLY { 0 } else { self.dates[&self.key(spot)].arrived };
        let come = if self.date(spot) == NEVER { 0 } else { come };
        (claimed - come).max(arrived.min(claimed)).max(0)
    }

    /// Units free at a node that belong to those who wait there.
    pub(super) fn owed(&self, sku: u32, node: u16) -> i64 {
        self.owed_of(sku, node, self.at(sku, node)[FREE])
    }

    /// Units that supplies do not bring to those who wait at a node or that have come, and of these the latter.
    fn over_and_came(&self, sku: u32, node: u16) -> (i64, i64) {
        let (mut over, mut came) = (0, 0);
        for (pool, (claimed, come)) in self.pools_at(sku, node) {
            over += self.over((sku, node, pool), (claimed, come));
            let arrived =
                if pool == NO_SUPPLY { 0 } else { self.dates[&self.key((sku, node, pool))].arrived };
            came += arrived.min(claimed);
        }
        let unannounced = self.unannounced.get(&(sku, node)).copied().unwrap_or(0);
        (self.wanted(sku, node, false).min(over + unannounced), came)
    }

    /// The same of other units free.
    pub(super) fn owed_of(&self, sku: u32, node: u16, free: i64) -> i64 {
        let (over, came) = self.over_and_came(sku, node);
        let of_groups = !self.claimed_of_groups(sku, &Taken::new()).is_empty();
        if of_groups { came.min(free).max(0) } else { over.min(free).max(0) }
    }

    /// Units free at a node for those who wait there: of what no supply brings them, what no group needs.
    fn there_for_waiting(&self, sku: u32, node: u16) -> i64 {
        let ((over, came), owed) = (self.over_and_came(sku, node), self.owed(sku, node));
        if self.claimed_of_groups(sku, &Taken::new()).is_empty() {
            return owed;
        }
        owed + (over - came).min(self.spare(sku, node, 0)).max(0)
    }

    /// By which supplies are used.
    pub(super) fn order(&self, spot: Spot) -> (u64, u128) {
        (self.date(spot), if spot.2 == NO_SUPPLY { u128::MAX } else { self.key(spot).2 })
    }

    /// Whether a supply may be promised to somebody else.
    fn is_ahead(&self, now_ms: u64, spot: Spot) -> bool {
        (now_ms + 1..NEVER).contains(&self.date(spot))
    }

    /// Units that a channel may wait for.
    fn may_wait(&self, sku: u32, node: u16, channel: u16) -> i64 {
        let rules = self.rules(sku, node).into_iter().rev();
        let mut said = rules.filter_map(|rule| match rule.effect {
            Effect::Later(units) if rule.channel.is_none_or(|only| only == channel) => Some(units),
            _ => None,
        });
        said.next().unwrap_or(0)
    }

    /// What supplies have for a line, the earliest first.
    pub(super) fn coming(
        &self,
        now_ms: u64,
        channel: u16,
        line: &LineRec,
        taken: &Taken,
    ) -> Vec<(Spot, i64)> {
        let all = self.waiting.iter().filter(|(sku, ..)| *sku == line.sku);
        let own = all.clone().filter(|(.., id)| self.reservations[id].channel == channel);
        if own.count() >= limit::WAITING_PER_CHANNEL_MAX || all.count() >= limit::WAITING_PER_SKU_MAX {
            return Vec::new();
        }
        let gone = |spot: &Spot| taken.get(spot).copied().unwrap_or(0);
        let to_come = |spot: &&Spot| spot.0 == line.sku && is_supply(spot.2);
        let mut waits: i64 = taken.keys().filter(to_come).map(gone).sum();
        let mut seen = BTreeSet::new();
        for (sku, _, id) in &self.waiting {
            let reservation = &self.reservations[id];
            if *sku == line.sku && reservation.channel == channel && seen.insert(*id) {
                let claims = reservation.claims.iter().filter(|(spot, _)| to_come(spot));
                waits += claims.map(|(_, claim)| claim.quantity).sum::<i64>();
            }
        }
        let group = self.setup.groups.get(&line.group);
        let offered = self.offered(&self.setup.channels[&channel]);
        let mut supplies = Vec::new();
        for (rank, node) in offered.into_iter().enumerate() {
            let named = line.node == ANY || line.node == node;
            if named && group.is_none_or(|group| group.contains(&node)) {
                for (pool, (claimed, come)) in self.pools_at(line.sku, node) {
                    let spot = (line.sku, node, pool);
                    let open = come - claimed - gone(&spot);
                    if open > 0 && self.is_ahead(now_ms, spot) {
                        supplies.push((self.date(spot), rank, self.order(spot).1, spot, open));
                    }
                }
            }
        }
        supplies.sort_unstable();
        let mut found: Vec<(Spot, i64)> = Vec::new();
        for (_, _, _, spot, open) in supplies {
            let here = |(other, _): &&(Spot, i64)| other.1 == spot.1;
            let of_node: i64 = found.iter().filter(here).map(|(_, units)| units).sum();
            let all: i64 = found.iter().map(|(_, units)| units).sum();
            let before =
                taken.keys().filter(|other| to_come(other) && other.1 == spot.1).map(gone).sum::<i64>();
            let room = -self.backlog(spot.0, spot.1) - before - of_node;
            let most = self.may_wait(spot.0, spot.1, channel) - waits - all;
            let units = open.min(room).min(most);
            let splits = self.splits(channel).min(limit::LINE_SUPPLIES_MAX);
            if units > 0 && found.len() < splits {
                found.push((spot, units));
            }
        }
        found
    }

    /// Takes a line whole, or partly; answers the most there would be where that is less than was asked for.
    pub(super) fn take_line(
        &self,
        now_ms: u64,
        asking: (u16, u16),
        (line, partial, later): (&LineRec, bool, bool),
        taken: &mut Taken,
    ) -> Option<i64> {
        let wanted = i64::from(line.quantity);
        let there = self.most_of(asking, line, taken).min(wanted);
        let waits = later && there < wanted;
        let coming = if waits { self.coming(now_ms, asking.0, line, taken) } else { Vec::new() };
        let of_sku = taken.range((line.sku, 0, 0)..=(line.sku, ANY, ANY));
        let cap = match self.setup.channels[&asking.0].cap {
            0 => i64::MAX,
            cap => cap - of_sku.map(|(_, units)| units).sum::<i64>(),
        };
        let most = wanted.min(there + coming.iter().map(|(_, units)| units).sum::<i64>()).min(cap);
        if most < wanted && !partial {
            return Some(most);
        }
        let mut later = most - there;
        for (spot, units) in coming {
            let units = units.min(later);
            later -= units;
            if units > 0 {
                *taken.entry(spot).or_default() += units;
            }
        }
        self.take(asking, line, there, taken);
        (most < wanted).then_some(most)
    }

    /// The first to claim a supply is told its date.
    pub(super) fn note_told(&mut self, taken: &Taken) {
        let supplies = taken.keys().filter(|spot| is_supply(spot.2) && self.claimed(**spot) == 0);
        let keys: Vec<_> = supplies.map(|spot| self.key(*spot)).collect();
        for key in keys {
            let date = self.dates.get_mut(&key).expect("it was told of");
            (date.told_ms, date.arrived) = (date.at_ms, 0);
        }
    }

    /// A reservation claims something to come, or no longer does: who waits.
    pub(super) fn note_waiting(&mut self, id: u128) {
        let Some(reservation) = self.reservations.get(&id) else { return };
        let claims =
            reservation.claims.keys().filter(|spot| reservation.state.is_active() && is_supply(spot.2));
        let spots: Vec<Spot> = claims.copied().collect();
        self.waiting.retain(|(sku, node, other)| {
            *other != id || spots.iter().any(|spot| (spot.0, spot.1) == (*sku, *node))
        });
        for spot in spots {
            let waits = (spot.0, spot.1, id);
            if !self.waiting.contains(&waits) {
                self.waiting.push(waits);
            }
        }
        let waiting = &self.waiting;
        self.unannounced.retain(|place, _| waiting.iter().any(|waits| (waits.0, waits.1) == *place));
    }

    /// Who waits, with what they claim to come: sku, node, when, units, of these held.
    pub fn waiting(&self) -> BTreeMap<u128, Vec<Waits>> {
        let mut all: BTreeMap<u128, Vec<Waits>> = BTreeMap::new();
        for (sku, node, id) in &self.waiting {
            for (spot, claim) in self.reservations[id].claims.range((*sku, *node, FIRST)..(*sku, *node, ANY))
            {
                let told = (*sku, *node, self.date(*spot), claim.quantity, claim.held);
                all.entry(*id).or_default().push(told);
            }
        }
        all.values_mut().for_each(|claims| claims.sort_unstable());
        all
    }

    fn is_unpromised(&self, now_ms: u64, sku: u32, node: u16) -> bool {
        let pools = self.pools_at(sku, node);
        let order = |pool: &u16| self.order((sku, node, *pool));
        let last = pools.iter().filter(|(_, (claimed, _))| *claimed > 0).map(|(pool, _)| order(pool)).max();
        pools.iter().any(|(pool, (claimed, come))| {
            let slipped = || {
                let date = self.dates[&self.key((sku, node, *pool))];
                date.told_ms != date.at_ms
            };
            let ahead = self.is_ahead(now_ms, (sku, node, *pool));
            let better = ahead && last.is_some_and(|last| order(pool) < last);
            let bad = match *pool {
                NO_SUPPLY => self.there_for_waiting(sku, node) > 0,
                _ => self.over((sku, node, *pool), (*claimed, *come)) > 0 || slipped(),
            };
            *claimed > 0 && bad || come > claimed && better
        }) || (self.unannounced.contains_key(&(sku, node))
            && self.wanted(sku, node, true) > 0
            && self.there_for_waiting(sku, node) > 0)
    }

    /// Promises anew who waits for a sku; says whether anybody is told anything.
    pub(super) fn promise_again(&mut self, now_ms: u64, sku: u32) -> bool {
        let nodes: BTreeSet<u16> =
            self.waiting.iter().filter(|waits| waits.0 == sku).map(|(_, node, _)| *node).collect();
        let mut told = false;
        for node in nodes {
            if self.is_unpromised(now_ms, sku, node) {
                told |= self.promise_node(now_ms, sku, node);
            }
        }
        told
    }

    fn promise_node(&mut self, now_ms: u64, sku: u32, node: u16) -> bool {
        let mut told = false;
        let mut come: Vec<u16> =
            self.pools_at(sku, node).into_iter().filter(|pool| pool.1.1 > 0).map(|pool| pool.0).collect();
        come.retain(|pool| self.date((sku, node, *pool)) < NEVER);
        come.sort_by_key(|pool| self.order((sku, node, *pool)));
        let pools = self.pools_at(sku, node);
        let there = self.there_for_waiting(sku, node);
        let over = |(pool, units): (&u16, &(i64, i64))| self.over((sku, node, *pool), *units);
        let came = there.min(pools.iter().map(over).sum());
        let mut left = vec![(ANY, there - came), (ANY, came)];
        left.extend(come.into_iter().map(|pool| {
            let (claimed, come) = pools[&pool];
            (pool, if self.is_ahead(now_ms, (sku, node, pool)) { come } else { come.min(claimed) })
        }));
        left.push((NO_SUPPLY, i64::MAX));
        let mut ids: Vec<u128> = self
            .waiting
            .iter()
            .filter(|waits| (waits.0, waits.1) == (sku, node))
            .map(|waits| waits.2)
            .collect();
        ids.sort_by_key(|id| self.setup.channels[&self.reservations[id].channel].priority);
        for id in ids {
            let claims = self.reservations[&id].claims.clone();
            let mut has: Vec<Spot> =
                claims.range((sku, node, FIRST)..(sku, node, ANY)).map(|(spot, _)| *spot).collect();
            has.sort_by_key(|spot| self.order(*spot));
            let mut open: i64 = has.iter().map(|spot| claims[spot].quantity).sum();
            let mut gets: Vec<(u16, i64)> = Vec::new();
            let passes = self.setup.channels[&self.reservations[&id].channel].passes;
            for (pool, left) in left.iter_mut().skip(usize::from(passes)) {
                let units = open.min(*left);
                (open, *left) = (open - units, *left - units);
                gets.push((*pool, units));
            }
            // How much of each claim goes.
            let mut goes: Vec<i64> = Vec::new();
            for spot in &has {
                let mut stays = 0;
                if let Some((_, units)) = gets.iter_mut().find(|(pool, _)| *pool == spot.2) {
                    stays = claims[spot].quantity.min(*units);
                    *units -= stays;
                }
                goes.push(claims[spot].quantity - stays);
            }
            for (pool, mut units) in gets {
                for (spot, goes) in has.iter().zip(&mut goes) {
                    let some = units.min(*goes);
                    (units, *goes) = (units - some, *goes - some);
                    if some > 0 {
                        told = true;
                        self.shift_claim(id, *spot, pool, some);
                    }
                }
            }
            told |= has.iter().filter(|spot| spot.2 != NO_SUPPLY).any(|spot| {
                let date = self.dates[&self.key(*spot)];
                self.reservations[&id].claims.contains_key(spot) && date.told_ms != date.at_ms
            });
        }
        self.waiting.retain(|(other, at, id)| {
            (*other, *at) != (sku, node)
                || self.reservations[id]
                    .claims
                    .keys()
                    .any(|spot| (spot.0, spot.1) == (sku, node) && is_supply(spot.2))
        });
        if told {
            for (_, date) in self.dates.range_mut((sku, node, 0)..=(sku, node, u128::MAX)) {
                (date.told_ms, date.arrived) = (date.at_ms, 0);
            }
        }
        told
    }

    /// Units of a claim stand in another pool: confirmed ones first.
    fn shift_claim(&mut self, id: u128, from: Spot, pool: u16, units: i64) {
        let claims = &mut self.reservations.get_mut(&id).expect("who waits").claims;
        let claim = claims.get_mut(&from).expect("it has a claim");
        let confirmed = claim.confirmed().min(units);
        let held = units - confirmed;
        claim.quantity -= units;
        claim.held -= held;
        if claim.quantity == 0 {
            claims.remove(&from);
        }
        let to = claims.entry((from.0, from.1, pool)).or_default();
        to.quantity += units;
        to.held += held;
        if pool == ANY {
            let place = (from.0, from.1);
            self.add(place, FREE, -units);
            self.add(place, HELD, held);
            self.add(place, CONFIRMED, confirmed);
        }
    }

    /// What a reservation that is to be fulfilled as a whole lacks.
    pub(super) fn lacks(&self, id: u128) -> Option<Code> {
        let found = self.reservations.get(&id)?;
        let any = |is: fn(&Spot) -> bool| found.claims.keys().any(is);
        match (any(|spot| is_supply(spot.2)), any(|spot| is_group(spot.1))) {
            (true, _) => Some(Code::Backordered),
            (_, true) => Some(Code::NodeNotChosen),
            _ => None,
        }
    }
}
