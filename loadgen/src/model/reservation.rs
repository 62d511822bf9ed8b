//! The model's reservations: claiming, steps of all or of some lines, late confirmations, expiry.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use stockline_client::limit;
use stockline_client::outcome::{Code, State};
use stockline_client::record::{LineRec, StepLineRec};
use stockline_client::wire::PartRec;

use super::group::is_group;
use super::plan::{PlannedLine, order_of_planned};
use super::promise::is_supply;
use super::{
    ANY, CONFIRMED, Change, Claim, Due, FREE, HELD, LATER, Model, PICKED, Reservation, Spot, Taken, bare,
    told,
};

impl Model {
    pub(super) fn reserve(
        &mut self,
        (id, channel, customer): (u128, u16, u64),
        (now_ms, ends_ms): (Option<u64>, u64),
        (partial, zone): (bool, u16),
        lines: &[LineRec],
    ) -> Due {
        let rule = self.setup.channels[&channel].clone();
        let counts = rule.holds_max > 0 || rule.customer_holds_max > 0;
        let open = |customer: Option<u64>| {
            let counted = |held: &&Reservation| {
                held.state == State::Held
                    && held.channel == channel
                    && held.counted.is_some_and(|whose| customer.is_none_or(|customer| customer == whose))
            };
            self.reservations.values().filter(counted).count()
        };
        let too_many = rule.holds_max > 0 && open(None) >= rule.holds_max
            || customer != 0
                && rule.customer_holds_max > 0
                && open(Some(customer)) >= rule.customer_holds_max;
        if too_many {
            return bare(Code::HoldLimit);
        }
        if self.reservations.contains_key(&id) {
            return bare(Code::ReservationExists);
        }
        let asking = (channel, zone);
        let planned = self.plan(now_ms.unwrap_or(0), asking, (lines, partial));
        self.plain.clear();
        let mut served = self.serve(now_ms.unwrap_or(0), asking, partial, &planned);
        if let Ok((_, shorts)) = &served {
            // What is short as it was planned is decided without preferences.
            self.plain = shorts.iter().map(|short| short.sku).collect();
            served = self.serve(now_ms.unwrap_or(0), asking, partial, &planned);
        }
        self.late.clear();
        self.plain.clear();
        let (taken, shorts) = match served {
            Ok(served) => served,
            Err(code) => return bare(code),
        };
        if !shorts.is_empty() && (!partial || taken.is_empty()) {
            return Due { parts: shorts, ..bare(Code::InsufficientStock) };
        }
        let mut parts = self.parts(&taken);
        self.note_told(&taken);
        let mut claims = BTreeMap::new();
        for (spot, units) in taken {
            self.give(spot, -units);
            if !is_supply(spot.2) {
                self.add((spot.0, spot.1), HELD, units);
            }
            claims.insert(spot, Claim { quantity: units, held: units, ..Claim::default() });
        }
        parts.extend(shorts);
        let (counted, state) = (counts.then_some(customer), State::Held);
        self.reservations.insert(id, Reservation { channel, counted, state, partly: false, ends_ms, claims });
        Due { state, expires_at_ms: ends_ms, parts, ..bare(Code::Ok) }
    }

    /// Units for lines, and what they are short of.
    fn serve(
        &self,
        now_ms: u64,
        asking: (u16, u16),
        partial: bool,
        planned: &[PlannedLine],
    ) -> Result<(Taken, Vec<PartRec>), Code> {
        let (mut taken, mut shorts) = (Taken::new(), Vec::new());
        for index in order_of_planned(planned) {
            let PlannedLine { line, first, .. } = &planned[index];
            let first = if self.plain.contains(&line.sku) { ANY } else { *first };
            if self.take_at_first(asking, (line, first), &mut taken) {
                continue;
            }
            let most = if line.node == LATER {
                let place = self.group_place(asking.0, line);
                self.take_of_group((asking.0, place), (line, partial), &mut taken)?
            } else if self.take_named(asking, line, &mut taken) {
                None
            } else {
                self.take_line(now_ms, asking, (line, partial, true), &mut taken)
            };
            shorts.extend(most.map(|most| PartRec {
                line: index as u16,
                sku: line.sku,
                node: ANY,
                quantity: most as u32,
                at_ms: 0,
            }));
        }
        shorts.sort_by_key(|short| short.line);
        Ok((taken, shorts))
    }

    /// Takes a line whole at the node that its plan says.
    fn take_at_first(&self, asking: (u16, u16), (line, first): (&LineRec, u16), taken: &mut Taken) -> bool {
        let (there, wanted) = (LineRec { node: first, ..*line }, i64::from(line.quantity));
        let is_there = first != ANY && self.most_of(asking, &there, taken) >= wanted;
        if is_there {
            self.take(asking, &there, wanted, taken);
        }
        is_there
    }

    /// Takes a line whole at the node that it names, or at the first of its substitutes that has it.
    pub(super) fn take_named(&self, asking: (u16, u16), line: &LineRec, taken: &mut Taken) -> bool {
        let Some(others) = self.setup.substitutes.get(&line.node) else { return false };
        let offered = self.offered(&self.setup.channels[&asking.0]);
        let group = self.setup.groups.get(&line.group);
        let may = |node: &u16| offered.contains(node) && group.is_none_or(|group| group.contains(node));
        let whole = [line.node].iter().chain(others.iter().filter(|node| may(node))).find_map(|node| {
            let there = LineRec { node: *node, ..*line };
            (self.most_of(asking, &there, taken) >= i64::from(line.quantity)).then_some(there)
        });
        if let Some(there) = &whole {
            self.take(asking, there, i64::from(line.quantity), taken);
        }
        whole.is_some()
    }

    /// Nodes that have something for a line, and what they have by pool: the best one first, where it has all, and
    /// where it has not.
    fn candidates(
        &self,
        (channel, zone): (u16, u16),
        line: &LineRec,
        taken: &Taken,
    ) -> [Vec<(u16, Vec<i64>)>; 2] {
        let rule = &self.setup.channels[&channel];
        let group = self.setup.groups.get(&line.group);
        let mut nodes = self.offered(rule);
        nodes.retain(|node| line.node == ANY || line.node == *node);
        nodes.retain(|node| group.is_none_or(|group| group.contains(node)));
        let left = nodes.into_iter().map(|node| (node, self.left(channel, line.sku, node, taken)));
        let whole: Vec<(u16, Vec<i64>)> =
            left.filter(|(_, left)| left.iter().any(|units| *units > 0)).collect();
        let way = |node: &u16| {
            let way = self.setup.zones.get(&zone).and_then(|zone| zone.get(node));
            way.copied().unwrap_or((i64::MAX, i64::MAX))
        };
        let units = |left: &[i64]| -left.iter().sum::<i64>();
        let sorted = |strategy| {
            let mut nodes = whole.clone();
            nodes.sort_by_key(|(node, left)| {
                let by_strategy = match strategy {
                    1 => way(node).0,
                    3 => units(left),
                    4 => way(node).1,
                    _ => 0,
                };
                let heeds = !self.plain.contains(&line.sku);
                let late = self.late.get(node).copied().filter(|_| heeds);
                (late.unwrap_or(0), by_strategy)
            });
            nodes
        };
        match rule.strategy {
            2 => [sorted(0), sorted(3)],
            other => [sorted(other), sorted(other)],
        }
    }

    /// Pools that a channel draws from: its own allocation, those above it, and last what all share.
    fn pools(&self, channel: u16) -> Vec<u16> {
        let mut pools = vec![channel];
        while let Some(parent) = self.setup.channels[pools.last().expect("one")].parent {
            pools.push(parent);
        }
        pools.push(ANY);
        pools
    }

    /// What a channel can draw of each of its pools at a node, in turn.
    pub(super) fn left(&self, channel: u16, sku: u32, node: u16, taken: &Taken) -> Vec<i64> {
        let mut units = self.left_at(channel, sku, node, (taken, true, true));
        if let Some(room) = self.room(sku, taken, Some(channel), &[node]) {
            let last = units.last_mut().expect("one is shared");
            *last = room.min(*last);
        }
        units
    }

    /// The same, whatever is claimed of groups; what is withheld may be passed over. What is
    /// owed goes by what is taken, or by what was there before.
    fn left_at(
        &self,
        channel: u16,
        sku: u32,
        node: u16,
        (taken, heeds, owed_behind): (&Taken, bool, bool),
    ) -> Vec<i64> {
        let gone = |pool| taken.get(&(sku, node, pool)).copied().unwrap_or(0);
        let mut free = self.unclaimed((sku, node, ANY)) - gone(ANY);
        if owed_behind {
            let left = self.at(sku, node)[FREE] - gone(ANY);
            free = left - self.owed_of(sku, node, left);
        }
        let of_all = self.shares.range((sku, node, 0)..(sku, node, ANY));
        let allocated: i64 = of_all.map(|((_, _, pool), units)| units - gone(*pool)).sum();
        let mut there = (free + allocated).max(0);
        let mut units = Vec::new();
        for pool in self.pools(channel) {
            let here = match pool {
                ANY if heeds => (free - self.withheld(sku, node, channel)).max(0),
                ANY => free.max(0),
                _ => self.unclaimed((sku, node, pool)) - gone(pool),
            };
            units.push(here.min(there));
            there -= here.min(there);
        }
        units
    }

    /// The most units there are for a line.
    fn most(&self, asking: (u16, u16), line: &LineRec, taken: &Taken) -> i64 {
        self.most_over(asking, line, taken, self.splits(asking.0))
    }

    /// The same over at most so many nodes.
    pub(super) fn most_over(&self, asking: (u16, u16), line: &LineRec, taken: &Taken, splits: usize) -> i64 {
        let [_, nodes] = self.candidates(asking, line, taken);
        let of_all = self.shared(asking.0, line.sku, taken);
        let sum = |nodes: &[(u16, Vec<i64>)]| {
            let mut own = 0;
            for (_, left) in nodes {
                let (_, pools) = left.split_last().expect("one is shared");
                own += pools.iter().sum::<i64>();
            }
            let nodes: Vec<u16> = nodes.iter().map(|(node, _)| *node).collect();
            own + self.joint(asking.0, line.sku, &nodes, taken).min(of_all)
        };
        let best = &nodes[..splits.min(nodes.len())];
        let one = nodes.iter().map(|node| sum(std::slice::from_ref(node))).max().unwrap_or(0);
        sum(best).max(one)
    }

    pub(super) fn splits(&self, channel: u16) -> usize {
        match self.setup.channels[&channel].splits_max {
            0 => limit::LINE_SPLITS_MAX,
            max => max,
        }
    }

    /// The same, as far as the channel's cap lets it claim more of the sku.
    pub(super) fn most_of(&self, asking: (u16, u16), line: &LineRec, taken: &Taken) -> i64 {
        let most = self.most(asking, line, taken);
        let of_sku = taken.range((line.sku, 0, 0)..=(line.sku, ANY, ANY));
        match self.setup.channels[&asking.0].cap {
            0 => most,
            cap => most.min(cap - of_sku.map(|(_, units)| units).sum::<i64>()),
        }
    }

    /// What the channel may take at all of what all share.
    pub(super) fn shared(&self, channel: u16, sku: u32, taken: &Taken) -> i64 {
        let rule = &self.setup.channels[&channel];
        (self.joint(channel, sku, &self.offered(rule), taken) - rule.buffer).max(0)
    }

    /// Takes units for a line, which are there. One node gives them if one has them all with as few of the pools as
    /// possible; else each pool in turn is used up at one node after the other.
    pub(super) fn take(&self, asking: (u16, u16), line: &LineRec, mut open: i64, taken: &mut Taken) {
        let pools = self.pools(asking.0);
        let mut shared = self.shared(asking.0, line.sku, taken);
        let [mut nodes, split] = self.candidates(asking, line, taken);
        let mut order: Vec<(usize, usize)> = Vec::new();
        for count in 1..=pools.len() {
            let whole = |(_, left): &(u16, Vec<i64>)| {
                let mut left = left.clone();
                *left.last_mut().expect("one is shared") = left[pools.len() - 1].min(shared);
                left[..count].iter().sum::<i64>() >= open
            };
            if let Some(at) = nodes.iter().position(whole) {
                order = (0..count).map(|pool| (pool, at)).collect();
                break;
            }
        }
        if order.is_empty() {
            nodes = split;
            nodes.truncate(self.splits(asking.0));
            order = (0..pools.len()).flat_map(|pool| (0..nodes.len()).map(move |at| (pool, at))).collect();
        }
        for (pool, at) in order {
            let is_shared = pool == pools.len() - 1;
            let mut units = nodes[at].1[pool].min(open).min(if is_shared { shared } else { i64::MAX });
            if is_shared {
                let left = self.left(asking.0, line.sku, nodes[at].0, taken);
                units = units.min(*left.last().expect("one is shared"));
            }
            open -= units;
            shared -= if is_shared { units } else { 0 };
            if units > 0 {
                *taken.entry((line.sku, nodes[at].0, pools[pool])).or_default() += units;
            }
        }
    }

    /// Units claimed by sku, node and when they are there, whatever pool they came from.
    fn parts(&self, taken: &Taken) -> Vec<PartRec> {
        let mut sums: BTreeMap<(u32, u16, u64), i64> = BTreeMap::new();
        for (spot, units) in taken.iter().filter(|(_, units)| **units > 0) {
            *sums.entry((spot.0, spot.1, self.date(*spot))).or_default() += units;
        }
        let part =
            |((sku, node, at_ms), units)| PartRec { line: 0, sku, node, quantity: units as u32, at_ms };
        sums.into_iter().map(part).collect()
    }

    /// What a step is told that cannot be, and whether it is a late confirmation.
    fn head(&self, now_ms: Option<u64>, found: &Reservation, verb: u8, by_line: bool) -> (Code, bool) {
        let over = found.state == State::Held && now_ms.is_some_and(|now| found.ends_ms <= now);
        let reacquires = self.setup.channels[&found.channel].reacquires;
        if verb == 1 && !by_line && reacquires && (over || found.state == State::Expired) {
            return (Code::Ok, true);
        }
        let code = match (found.state, verb) {
            (State::Held, 4) if by_line && found.partly => Code::Ok,
            (State::Held | State::Expired, 4) => Code::WrongState,
            (State::Held, _) if over => Code::Expired,
            (State::Expired, _) => Code::Expired,
            (State::Held, _) | (State::Confirmed, 2 | 4 | 5) => Code::Ok,
            _ => Code::WrongState,
        };
        (code, false)
    }

    pub(super) fn step(&mut self, now_ms: Option<u64>, id: u128, verb: u8, ttl_ms: u32) -> Due {
        let Some(found) = self.reservations.get(&id) else { return bare(Code::UnknownReservation) };
        let (code, late) = self.head(now_ms, found, verb, false);
        if code != Code::Ok {
            return told(found, code);
        }
        if late && found.state == State::Expired {
            return self.claim_again(now_ms.unwrap_or(0), id);
        }
        let held: Taken = found.claims.iter().map(|(spot, claim)| (*spot, claim.held)).collect();
        let parts = if late { self.parts(&held) } else { vec![] };
        if let Some(code) = self.lacks(id).filter(|_| verb == 4) {
            return told(&self.reservations[&id], code);
        }
        let claims = || self.reservations[&id].claims.values();
        let in_part = claims().any(|claim| claim.confirmed() > 0)
            && claims().any(|claim| claim.picked + claim.shipped > 0);
        if verb == 4 && ttl_ms == 0 && in_part {
            return told(&self.reservations[&id], Code::PartlyPicked);
        }
        match verb {
            1 => self.end(now_ms, id, State::Confirmed, &[HELD], End::In(CONFIRMED)),
            2 => self.end(now_ms, id, State::Released, &[HELD, CONFIRMED, PICKED], End::Back),
            3 => {
                let found = self.reservations.get_mut(&id).expect("found before");
                let end = now_ms.map_or(u64::MAX, |now| now + u64::from(ttl_ms));
                found.ends_ms = found.ends_ms.max(end);
            }
            _ => self.end(now_ms, id, State::Fulfilled, &[CONFIRMED, PICKED], End::Out),
        }
        Due { late, parts, ..told(&self.reservations[&id], Code::Ok) }
    }

    /// Claims what an expired hold had claimed: at the same node, else anywhere.
    fn claim_again(&mut self, now_ms: u64, id: u128) -> Due {
        let found = self.reservations[&id].clone();
        let mut taken = Taken::new();
        let mut wanted: BTreeMap<(u32, u16), i64> = BTreeMap::new();
        for ((sku, node, _), claim) in &found.claims {
            *wanted.entry((*sku, *node)).or_default() += claim.quantity;
        }
        for ((sku, node), units) in wanted {
            let lines = [(node, false), (ANY, true)]
                .map(|(node, later)| (LineRec { sku, node, group: ANY, quantity: units as u32 }, later));
            let granted = |(line, later): &(LineRec, bool)| {
                if is_group(line.node) {
                    let offered = self.offered(&self.setup.channels[&found.channel]);
                    let whole = self.nodes_of(line.node).iter().all(|node| offered.contains(node));
                    let place = (found.channel, line.node);
                    return whole
                        && self
                            .take_of_group(place, (line, false), &mut taken)
                            .is_ok_and(|most| most.is_none());
                }
                self.take_line(now_ms, (found.channel, ANY), (line, false, *later), &mut taken).is_none()
            };
            if !lines.iter().any(granted) {
                return told(&found, Code::InsufficientStock);
            }
        }
        let parts = self.parts(&taken);
        self.note_told(&taken);
        let mut claims = BTreeMap::new();
        for (spot, units) in taken {
            self.give(spot, -units);
            if !is_supply(spot.2) {
                self.add((spot.0, spot.1), CONFIRMED, units);
            }
            claims.insert(spot, Claim { quantity: units, ..Claim::default() });
        }
        let again = Reservation { state: State::Confirmed, claims, ..found };
        let due = told(&again, Code::Ok);
        self.reservations.insert(id, again);
        Due { late: true, parts, ..due }
    }

    /// A step that takes some lines.
    pub(super) fn step_lines(
        &mut self,
        now_ms: Option<u64>,
        id: u128,
        verb: u8,
        lines: &[StepLineRec],
    ) -> Due {
        let Some(found) = self.reservations.get(&id) else { return bare(Code::UnknownReservation) };
        let (head, _) = self.head(now_ms, found, verb, true);
        let offered = self.offered(&self.setup.channels[&found.channel]);
        let mut codes = BTreeSet::from([head]);
        let mut claims = found.claims.clone();
        // Given back or drawn, by pool; in other buckets, by node; gone to customers, by both.
        let (mut drawn, mut moved) = (Taken::new(), BTreeMap::<((u32, u16), usize), i64>::new());
        let mut gone = BTreeMap::<(Spot, usize), i64>::new();
        for line in lines {
            let place = (line.sku, line.node);
            if verb == 5 && !offered.contains(&line.to_node) {
                codes.insert(Code::NodeNotOffered);
            }
            if verb == 4 && is_group(line.node) {
                codes.insert(Code::NodeNotChosen);
            }
            if head != Code::Ok {
                continue;
            }
            let from: &[usize] = match verb {
                1 => &[HELD],
                2 => &[HELD, CONFIRMED, PICKED],
                4 => &[PICKED, CONFIRMED],
                _ => &[HELD, CONFIRMED],
            };
            let mut open = i64::from(line.quantity);
            let here = || (line.sku, line.node, 0)..=(line.sku, line.node, ANY);
            let mut spots: Vec<Spot> = claims.range(here()).map(|(spot, _)| *spot).collect();
            spots.retain(|spot| verb != 4 || !is_supply(spot.2));
            spots.retain(|spot| line.to_node != line.node || is_supply(spot.2));
            // Allocations, what all share, what is to come, the earliest first; given back are those last to come, then
            // what all share, then allocations.
            let order = |spot: &Spot| if is_supply(spot.2) { self.order(*spot) } else { (0, 0) };
            let class = |spot: &Spot| u8::from(spot.2 >= 1 << 15) + u8::from(is_supply(spot.2));
            if matches!(verb, 2 | 5) {
                spots.sort_by_key(|spot| (Reverse(class(spot)), Reverse(order(spot)), spot.2));
            } else {
                spots.sort_by_key(|spot| (class(spot), order(spot), spot.2));
            }
            let has = |bucket: &usize| spots.iter().map(|spot| claims[spot].of(*bucket)).sum::<i64>();
            if from.iter().map(has).sum::<i64>() < open {
                codes.insert(Code::InsufficientClaim);
                continue;
            }
            // What this line gives back is there for those who claim units of groups.
            let (mut back, mut goes) = (drawn.clone(), open);
            for (bucket, spot) in from.iter().flat_map(|bucket| spots.iter().map(move |spot| (bucket, spot)))
            {
                let units = claims[spot].of(*bucket).min(goes);
                goes -= units;
                if spot.2 == ANY {
                    *back.entry(*spot).or_default() -= units;
                }
            }
            let heeds = !is_group(line.node) || !self.nodes_of(line.node).contains(&line.to_node);
            let mut there = self.left_at(found.channel, line.sku, line.to_node, (&drawn, heeds, false));
            let to = (line.sku, line.to_node);
            if let Some(room) = self.room_of_move(to, heeds.then_some(found.channel), (&drawn, &back)) {
                let last = there.last_mut().expect("one is shared");
                *last = room.min(*last);
            }
            if verb == 5 && there.iter().sum::<i64>() < open {
                codes.insert(Code::InsufficientStock);
                continue;
            }
            let pools = self.pools(found.channel);
            for (bucket, spot) in from.iter().flat_map(|bucket| spots.iter().map(move |spot| (bucket, spot)))
            {
                let mine = claims.get_mut(spot).expect("it is there");
                let units = mine.of(*bucket).min(open);
                open -= units;
                let on_hand = !is_supply(spot.2);
                if on_hand {
                    *moved.entry((place, *bucket)).or_default() -= units;
                }
                match *bucket {
                    HELD => mine.held -= units,
                    PICKED => mine.picked -= units,
                    _ => {}
                }
                match verb {
                    1 if on_hand => *moved.entry((place, CONFIRMED)).or_default() += units,
                    1 => {}
                    2 | 5 => {
                        mine.quantity -= units;
                        *drawn.entry(*spot).or_default() -= units;
                    }
                    _ => {
                        mine.shipped += units;
                        *gone.entry((*spot, *bucket)).or_default() += units;
                    }
                }
                let mut coming = if verb == 5 { units } else { 0 };
                for (pool, left) in pools.iter().zip(&mut there) {
                    let some = coming.min(*left);
                    coming -= some;
                    *left -= some;
                    if some == 0 {
                        continue;
                    }
                    let to = (line.sku, line.to_node, *pool);
                    *drawn.entry(to).or_default() += some;
                    *moved.entry(((to.0, to.1), *bucket)).or_default() += some;
                    let other = claims.entry(to).or_default();
                    other.quantity += some;
                    other.held += if *bucket == HELD { some } else { 0 };
                }
            }
        }
        codes.remove(&Code::Ok);
        if let Some(code) = codes.first() {
            return told(found, *code);
        }
        let mut found = found.clone();
        claims.retain(|_, claim| claim.quantity > 0);
        let any = |units: fn(&Claim) -> i64| claims.values().any(|claim| units(claim) > 0);
        let (held, open) = (any(|claim| claim.held), any(|claim| claim.confirmed() + claim.picked));
        found.partly = held && (open || any(|claim| claim.shipped));
        found.state = match (held, open, verb) {
            (true, _, _) => State::Held,
            (_, true, _) => State::Confirmed,
            (_, _, 2) => State::Released,
            _ => State::Fulfilled,
        };
        if found.state == State::Released {
            // What it claimed last is remembered.
            found.claims.values_mut().for_each(|claim| (claim.held, claim.picked) = (0, 0));
        } else {
            found.claims = claims;
        }
        for (spot, units) in drawn {
            self.give(spot, -units);
        }
        for ((place, bucket), units) in moved {
            self.add(place, bucket, units);
            if bucket == PICKED {
                *self.picked_for.entry(place).or_default() += units;
            }
        }
        for (((sku, node, _), _), units) in gone.into_iter().filter(|(_, units)| *units > 0) {
            let at_ms = now_ms.unwrap_or(0);
            self.remember(now_ms, sku, Change { node, at_ms, units: -units });
        }
        let due = told(&found, Code::Ok);
        self.reservations.insert(id, found);
        due
    }

    /// Moves what a reservation has in some buckets to another, or out.
    fn end(&mut self, now_ms: Option<u64>, id: u128, state: State, from: &[usize], to: End) {
        let mut found = self.reservations.remove(&id).expect("found before");
        for (spot, claim) in &mut found.claims {
            let place = (spot.0, spot.1);
            for bucket in from {
                let units = claim.of(*bucket);
                if is_supply(spot.2) {
                    continue;
                }
                self.add(place, *bucket, -units);
                match to {
                    End::In(to) => self.add(place, to, units),
                    End::Back => self.give(*spot, units),
                    End::Out if units > 0 => {
                        // Without a clock nothing is counted late.
                        let at_ms = now_ms.unwrap_or(0);
                        self.remember(now_ms, place.0, Change { node: place.1, at_ms, units: -units });
                    }
                    End::Out => {}
                }
            }
            if from.contains(&PICKED) {
                *self.picked_for.entry(place).or_default() -= claim.picked;
                claim.picked = 0;
            }
            // What stays active no longer claims what went; what has ended is remembered.
            if to == End::Back && state == State::Confirmed {
                claim.quantity -= claim.held;
            }
            if from.contains(&HELD) {
                claim.held = 0;
            }
        }
        if state.is_active() {
            found.claims.retain(|_, claim| claim.quantity > 0);
        }
        (found.state, found.partly) = (state, false);
        self.reservations.insert(id, found);
    }

    pub(super) fn expire(&mut self, now_ms: Option<u64>, id: u128) -> Due {
        let Some(found) = self.reservations.get(&id) else { return bare(Code::NotDue) };
        if found.state != State::Held || now_ms.is_none_or(|now| found.ends_ms > now) {
            return told(found, Code::NotDue);
        }
        let state = if found.partly { State::Confirmed } else { State::Expired };
        self.end(now_ms, id, state, &[HELD], End::Back);
        told(&self.reservations[&id], Code::Ok)
    }
}

/// Where units go that are claimed no longer, or otherwise.
#[derive(Clone, Copy, PartialEq)]
enum End {
    In(usize),
    /// To the pool they came from.
    Back,
    Out,
}
