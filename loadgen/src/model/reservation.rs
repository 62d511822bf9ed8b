//! The model's reservations: claiming, steps of all or of some lines, late confirmations, expiry.

use std::collections::{BTreeMap, BTreeSet};

use stockline_client::outcome::{Code, State};
use stockline_client::record::{LineRec, StepLineRec};
use stockline_client::wire::PartRec;

use super::{
    ANY, CONFIRMED, Change, ChannelSetup, Claim, Due, FREE, HELD, Model, PICKED, Reservation, Taken, bare,
    told,
};

impl Model {
    pub(super) fn reserve(
        &mut self,
        (id, channel, customer): (u128, u16, u64),
        ends_ms: u64,
        partial: bool,
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
        let mut taken = Taken::new();
        let mut shorts = Vec::new();
        let class = |line: &LineRec| if line.node != ANY { 0 } else { 1 + u8::from(line.group == ANY) };
        let mut order: Vec<usize> = (0..lines.len()).collect();
        order.sort_by_key(|index| class(&lines[*index]));
        for index in order {
            let line = &lines[index];
            let most = self.most(&rule, line, &taken);
            let mut open = i64::from(line.quantity);
            if most < open {
                let line_number = index as u16;
                shorts.push(PartRec { line: line_number, sku: line.sku, node: ANY, quantity: most as u32 });
                if !partial {
                    continue;
                }
                open = most;
            }
            self.take(&rule, line, open, &mut taken);
        }
        shorts.sort_by_key(|short| short.line);
        if !shorts.is_empty() && (!partial || taken.is_empty()) {
            return Due { parts: shorts, ..bare(Code::InsufficientStock) };
        }
        let mut parts = Vec::new();
        let mut claims = BTreeMap::new();
        for (place, units) in taken {
            self.add(place, FREE, -units);
            self.add(place, HELD, units);
            parts.push(part(place, units));
            claims.insert(place, Claim { quantity: units, held: units, ..Claim::default() });
        }
        parts.extend(shorts);
        let (counted, state) = (counts.then_some(customer), State::Held);
        self.reservations.insert(id, Reservation { channel, counted, state, partly: false, ends_ms, claims });
        Due { state, expires_at_ms: ends_ms, parts, ..bare(Code::Ok) }
    }

    /// Nodes that may serve a line, best first.
    fn candidates(&self, rule: &ChannelSetup, line: &LineRec) -> Vec<u16> {
        let group = self.setup.groups.get(&line.group);
        let mut nodes = self.offered(rule);
        nodes.retain(|node| line.node == ANY || line.node == *node);
        nodes.retain(|node| group.is_none_or(|group| group.contains(node)));
        nodes
    }

    fn left(&self, sku: u32, node: u16, taken: &Taken) -> i64 {
        (self.at(sku, node)[FREE] - taken.get(&(sku, node)).copied().unwrap_or(0)).max(0)
    }

    /// The most units there are for a line.
    fn most(&self, rule: &ChannelSetup, line: &LineRec, taken: &Taken) -> i64 {
        let sum =
            |nodes: Vec<u16>| -> i64 { nodes.into_iter().map(|node| self.left(line.sku, node, taken)).sum() };
        sum(self.candidates(rule, line)).min(sum(self.offered(rule)) - rule.buffer).max(0)
    }

    /// Takes units for a line, which are there: from one node, or from all in turn.
    fn take(&self, rule: &ChannelSetup, line: &LineRec, mut open: i64, taken: &mut Taken) {
        let nodes = self.candidates(rule, line);
        let one = nodes.iter().copied().find(|node| self.left(line.sku, *node, taken) >= open);
        for node in one.map_or(nodes, |node| vec![node]) {
            let units = open.min(self.left(line.sku, node, taken));
            open -= units;
            if units > 0 {
                *taken.entry((line.sku, node)).or_default() += units;
            }
        }
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
            return self.claim_again(id);
        }
        let held = found.claims.iter().filter(|(_, claim)| claim.held > 0);
        let parts = if late { held.map(|(place, claim)| part(*place, claim.held)).collect() } else { vec![] };
        match verb {
            1 => self.end(now_ms, id, State::Confirmed, &[HELD], Some(CONFIRMED)),
            2 => self.end(now_ms, id, State::Released, &[HELD, CONFIRMED, PICKED], Some(FREE)),
            3 => {
                let found = self.reservations.get_mut(&id).expect("found before");
                let end = now_ms.map_or(u64::MAX, |now| now + u64::from(ttl_ms));
                found.ends_ms = found.ends_ms.max(end);
            }
            _ => self.end(now_ms, id, State::Fulfilled, &[CONFIRMED, PICKED], None),
        }
        Due { late, parts, ..told(&self.reservations[&id], Code::Ok) }
    }

    /// Claims what an expired hold had claimed: at the same node, else anywhere.
    fn claim_again(&mut self, id: u128) -> Due {
        let found = self.reservations[&id].clone();
        let rule = self.setup.channels[&found.channel].clone();
        let mut taken = Taken::new();
        for ((sku, node), claim) in &found.claims {
            let quantity = claim.quantity as u32;
            let lines = [*node, ANY].map(|node| LineRec { sku: *sku, node, group: ANY, quantity });
            match lines.iter().find(|line| self.most(&rule, line, &taken) >= claim.quantity) {
                Some(line) => self.take(&rule, line, claim.quantity, &mut taken),
                None => return told(&found, Code::InsufficientStock),
            }
        }
        let parts = taken.iter().map(|(place, units)| part(*place, *units)).collect();
        let mut claims = BTreeMap::new();
        for (place, units) in taken {
            self.add(place, FREE, -units);
            self.add(place, CONFIRMED, units);
            claims.insert(place, Claim { quantity: units, ..Claim::default() });
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
        type Units = BTreeMap<((u32, u16), usize), i64>;
        let (mut moved, mut gone) = (Units::new(), Units::new());
        for line in lines {
            let (place, there) = ((line.sku, line.node), (line.sku, line.to_node));
            if verb == 5 && !offered.contains(&line.to_node) {
                codes.insert(Code::NodeNotOffered);
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
            let claim = claims.get(&place).cloned().unwrap_or_default();
            if from.iter().map(|bucket| claim.of(*bucket)).sum::<i64>() < open {
                codes.insert(Code::InsufficientClaim);
                continue;
            }
            let free = self.at(there.0, there.1)[FREE] + moved.get(&(there, FREE)).copied().unwrap_or(0);
            if verb == 5 && free < open {
                codes.insert(Code::InsufficientStock);
                continue;
            }
            for bucket in from {
                let units = claim.of(*bucket).min(open);
                open -= units;
                let mine = claims.get_mut(&place).expect("it has units");
                *moved.entry((place, *bucket)).or_default() -= units;
                match *bucket {
                    HELD => mine.held -= units,
                    PICKED => mine.picked -= units,
                    _ => {}
                }
                match verb {
                    1 => *moved.entry((place, CONFIRMED)).or_default() += units,
                    2 | 5 => {
                        mine.quantity -= units;
                        *moved.entry((place, FREE)).or_default() += units;
                    }
                    _ => {
                        mine.shipped += units;
                        *gone.entry((place, *bucket)).or_default() += units;
                    }
                }
                if verb == 5 {
                    *moved.entry((there, FREE)).or_default() -= units;
                    *moved.entry((there, *bucket)).or_default() += units;
                    let other = claims.entry(there).or_default();
                    other.quantity += units;
                    other.held += if *bucket == HELD { units } else { 0 };
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
        for ((place, bucket), units) in moved {
            self.add(place, bucket, units);
            if bucket == PICKED {
                *self.picked_for.entry(place).or_default() += units;
            }
        }
        for (((sku, node), _), units) in gone.into_iter().filter(|(_, units)| *units > 0) {
            let at_ms = now_ms.unwrap_or(0);
            self.remember(now_ms, sku, Change { node, at_ms, units: -units });
        }
        let due = told(&found, Code::Ok);
        self.reservations.insert(id, found);
        due
    }

    /// Moves what a reservation has in some buckets to another, or out.
    fn end(&mut self, now_ms: Option<u64>, id: u128, state: State, from: &[usize], to: Option<usize>) {
        let mut found = self.reservations.remove(&id).expect("found before");
        for ((sku, node), claim) in &mut found.claims {
            let place = (*sku, *node);
            for bucket in from {
                let units = claim.of(*bucket);
                self.add(place, *bucket, -units);
                match to {
                    Some(to) => self.add(place, to, units),
                    None if units > 0 => {
                        // Without a clock nothing is counted late.
                        let at_ms = now_ms.unwrap_or(0);
                        self.remember(now_ms, place.0, Change { node: place.1, at_ms, units: -units });
                    }
                    None => {}
                }
            }
            if from.contains(&PICKED) {
                *self.picked_for.entry(place).or_default() -= claim.picked;
                claim.picked = 0;
            }
            // What stays active no longer claims what went; what has ended is remembered.
            if to == Some(FREE) && state == State::Confirmed {
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
        self.end(now_ms, id, state, &[HELD], Some(FREE));
        told(&self.reservations[&id], Code::Ok)
    }
}

/// Units claimed at a place.
fn part(place: (u32, u16), units: i64) -> PartRec {
    PartRec { line: 0, sku: place.0, node: place.1, quantity: units as u32 }
}
