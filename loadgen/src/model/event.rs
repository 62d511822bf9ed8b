//! The model's stock events: what each changes, and what a late count knows.

use stockline_client::event::EventKind;
use stockline_client::limit;
use stockline_client::outcome::{Code, State};
use stockline_client::record::EventRec;

use super::promise;
use super::{ANY, Before, CONFIRMED, Change, Claim, DAMAGED, Due, FREE, Model, PICKED, Spot, bare, told};

impl Model {
    pub(super) fn event(&mut self, now_ms: Option<u64>, event: &EventRec) -> Due {
        let before = self.clone_place(event);
        match self.change(now_ms, event) {
            Ok(due) => due,
            Err(code) => {
                self.restore_place(event, before);
                bare(code)
            }
        }
    }

    fn clone_place(&self, event: &EventRec) -> Before {
        let supplies = self.supplies.range((event.sku, 0, 0)..=(event.sku, u16::MAX, u128::MAX));
        let supplies = supplies.map(|(key, units)| (*key, *units)).collect();
        (self.at(event.sku, event.node), supplies, self.dates.clone())
    }

    fn restore_place(&mut self, event: &EventRec, before: Before) {
        if let std::collections::hash_map::Entry::Occupied(mut e) = self.units.entry((event.sku, event.node))
        {
            e.insert(before.0);
        }
        self.supplies.retain(|(sku, _, _), _| *sku != event.sku);
        self.supplies.extend(before.1);
        self.dates = before.2;
    }

    fn change(&mut self, now_ms: Option<u64>, event: &EventRec) -> Result<Due, Code> {
        let (sku, node, units) = (event.sku, event.node, event.quantity);
        let place = (sku, node);
        let kind = EventKind::from_number(event.kind).ok_or(Code::InvalidEvent)?;
        let position = self.at(sku, node);
        let on_hand: i64 = position.iter().sum();
        let expecting = matches!(kind, EventKind::Adjustment | EventKind::Count) && event.given & 4 != 0;
        if expecting && event.expected != on_hand {
            return Err(Code::ExpectedMismatch);
        }
        let called = self.called(event);
        let supply = |node: u16| (sku, node, called);
        let open = |model: &Model, node: u16| model.supplies.get(&supply(node)).copied();
        let supplies = self.supplies.range((sku, 0, 0)..=(sku, u16::MAX, u128::MAX)).count();
        let room = |open: Option<i64>| open.is_some() || supplies < limit::SUPPLIES_PER_SKU_MAX;
        // A clock that is ahead is not believed.
        let at_ms = now_ms.map_or(event.occurred_at_ms, |now| now.min(event.occurred_at_ms));
        let mut due = bare(Code::Ok);
        let mut arrived = 0;
        match kind {
            EventKind::Receipt | EventKind::TransferReceived => {
                let damaged = i64::from(event.damaged);
                if event.given & 2 != 0 {
                    let meant = self.received(event)?;
                    let supply = |node: u16| (sku, node, meant);
                    let expected = self.supplies[&supply(node)];
                    if event.to == 0 {
                        arrived = self.arrive(supply(node), expected.min(units - damaged));
                    }
                    self.set_supply(supply(node), (expected - units).max(0));
                }
                self.add(place, usize::from(event.to), units - damaged);
                self.add(place, DAMAGED, damaged);
            }
            EventKind::Pick | EventKind::Ship => due = self.issue(event, kind == EventKind::Ship)?,
            EventKind::Adjustment => {
                if on_hand + units < 0 {
                    return Err(Code::InsufficientOnHand);
                }
                self.add(place, FREE, units);
            }
            EventKind::Count => {
                let then = self.on_hand_at(place, on_hand, at_ms, now_ms)?;
                if on_hand + units - then < 0 {
                    return Err(Code::InsufficientOnHand);
                }
                self.add(place, FREE, units - then);
            }
            EventKind::TransferDispatched => {
                if position[FREE] < units {
                    return Err(Code::InsufficientStock);
                }
                let there = open(self, event.to_node);
                if !room(there) {
                    return Err(Code::TooManySupplies);
                }
                if there.unwrap_or(0) + units > limit::BUCKET_UNITS_MAX {
                    return Err(Code::PositionLimit);
                }
                self.add(place, FREE, -units);
                self.date_supply(supply(event.to_node), event.eta_ms, false);
                self.set_supply(supply(event.to_node), there.unwrap_or(0) + units);
            }
            EventKind::Return => self.add(place, usize::from(event.to), units),
            EventKind::Supply => {
                let there = open(self, node);
                if units > 0 && !room(there) {
                    return Err(Code::TooManySupplies);
                }
                if units > 0 {
                    self.date_supply(supply(node), event.eta_ms, true);
                }
                self.set_supply(supply(node), units);
            }
            EventKind::StatusChange => {
                if position[usize::from(event.from)] < units {
                    return Err(Code::InsufficientStock);
                }
                self.add(place, usize::from(event.from), -units);
                self.add(place, usize::from(event.to), units);
            }
        }
        let changed = self.at(sku, node).iter().sum::<i64>() - on_hand;
        let counted = self.pasts.get(&sku).and_then(|past| past.counted.get(&node)).copied();
        let seen = kind != EventKind::Count && counted.is_some_and(|at| at_ms < at);
        if seen {
            self.add(place, FREE, -changed);
        }
        self.check_limits(place)?;
        if kind == EventKind::Count {
            self.pasts.entry(sku).or_default().counted.insert(node, at_ms);
        } else if changed != 0 && !seen {
            self.remember(now_ms, sku, Change { node, at_ms, units: changed });
        }
        let freed = |model: &Model| model.at(sku, node)[FREE] - position[FREE];
        if matches!(kind, EventKind::Receipt | EventKind::TransferReceived) {
            let before = self.unannounced.clone();
            self.come_unannounced(sku, node, freed(self) - arrived, true);
            self.share_out(sku, node, freed(self));
            self.unannounced = before;
        }
        self.come_unannounced(sku, node, freed(self) - arrived, false);
        Ok(due)
    }

    /// A supply as its source calls it: source and number.
    fn called(&self, event: &EventRec) -> u128 {
        u128::from(event.source) << 64 | u128::from(event.supply)
    }

    /// The supply that a receipt means: the receiver's own, that of the source it names, or the only one of that number.
    fn received(&self, event: &EventRec) -> Result<u128, Code> {
        let here = self.supplies.range((event.sku, event.node, 0)..=(event.sku, event.node, u128::MAX));
        let mut ids: Vec<u128> =
            here.map(|((_, _, id), _)| *id).filter(|id| *id as u64 == event.supply).collect();
        if event.supply_source == 0 && ids.contains(&self.called(event)) {
            return Ok(self.called(event));
        }
        if event.supply_source != 0 {
            ids.retain(|id| (*id >> 64) as u32 == event.supply_source);
        }
        match ids[..] {
            [] => Err(Code::UnknownSupply),
            [only] => Ok(only),
            _ => Err(Code::AmbiguousSupply),
        }
    }

    fn check_limits(&self, place: (u32, u16)) -> Result<(), Code> {
        let [free, others @ ..] = self.at(place.0, place.1);
        let max = limit::BUCKET_UNITS_MAX;
        let sound = free.abs() <= max
            && others.iter().all(|units| (0..=max).contains(units))
            && free + others.iter().sum::<i64>() <= max;
        if sound { Ok(()) } else { Err(Code::PositionLimit) }
    }

    fn set_supply(&mut self, key: (u32, u16, u128), units: i64) {
        if units == 0 {
            self.supplies.remove(&key);
        } else {
            self.supplies.insert(key, units);
        }
    }

    /// Picks and shipments.
    fn issue(&mut self, event: &EventRec, ship: bool) -> Result<Due, Code> {
        let place = (event.sku, event.node);
        let position = self.at(event.sku, event.node);
        let units = event.quantity;
        if event.given & 1 == 0 {
            let for_somebody = self.picked_for.get(&place).copied().unwrap_or(0);
            let picked = if ship { units.min(position[PICKED] - for_somebody) } else { 0 };
            if position[FREE] < units - picked {
                return Err(Code::InsufficientStock);
            }
            self.add(place, PICKED, -picked);
            self.add(place, FREE, picked - units);
            if !ship {
                self.add(place, PICKED, units);
            }
            return Ok(bare(Code::Ok));
        }
        let found = self.reservations.get_mut(&event.reservation).ok_or(Code::UnknownReservation)?;
        if found.claims.keys().all(|(sku, _, _)| *sku != event.sku) {
            return Err(Code::UnknownReservation);
        }
        if found.state != State::Confirmed && !(found.state == State::Held && found.partly) {
            return Ok(told(found, Code::WrongState));
        }
        let claims = || (event.sku, event.node, 0)..=(event.sku, event.node, ANY);
        let there = |spot: &Spot| !promise::is_supply(spot.2);
        let sum = |waits: bool, of: fn(&Claim) -> i64| {
            let claims = found.claims.range(claims()).filter(|(spot, _)| there(spot) != waits);
            claims.map(|(_, claim)| of(claim)).sum::<i64>()
        };
        let picked = if ship { units.min(sum(false, |claim| claim.picked)) } else { 0 };
        let (claimed, waiting) = (sum(false, Claim::confirmed), sum(true, Claim::confirmed));
        let mut waited = (units - picked - claimed).max(0);
        if waiting < waited {
            return Err(Code::InsufficientClaim);
        }
        if waited > 0 && units - picked > position.iter().sum::<i64>() - position[PICKED] {
            return Err(Code::InsufficientOnHand);
        }
        let mut open = picked;
        for (_, claim) in found.claims.range_mut(claims()) {
            let some = claim.picked.min(open);
            open -= some;
            claim.picked -= some;
            claim.shipped += some;
        }
        open = units - picked;
        for (_, claim) in found.claims.range_mut(claims()).filter(|(spot, _)| there(spot)) {
            let some = claim.confirmed().min(open);
            open -= some;
            if ship {
                claim.shipped += some;
            } else {
                claim.picked += some;
            }
        }
        let due = told(found, Code::Ok);
        if waited > 0 {
            self.add(place, FREE, -waited);
            self.add(place, CONFIRMED, waited);
            let mut spots: Vec<Spot> = self.reservations[&event.reservation]
                .claims
                .range(claims())
                .map(|(spot, _)| *spot)
                .filter(|spot| !there(spot))
                .collect();
            spots.sort_by_key(|spot| self.order(*spot));
            let claims = &mut self.reservations.get_mut(&event.reservation).expect("it is there").claims;
            let own = claims.entry((event.sku, event.node, ANY)).or_default();
            own.quantity += waited;
            *if ship { &mut own.shipped } else { &mut own.picked } += waited;
            let mut given = Vec::new();
            for spot in spots {
                let claim = claims.get_mut(&spot).expect("it waits");
                let some = claim.confirmed().min(waited);
                (waited, claim.quantity) = (waited - some, claim.quantity - some);
                given.push((spot, some));
            }
            claims.retain(|_, claim| claim.quantity > 0);
            given.into_iter().for_each(|(spot, some)| self.note_taken(spot, some));
            self.note_waiting(event.reservation);
        }
        *self.picked_for.entry(place).or_default() += if ship { -picked } else { units };
        self.add(place, PICKED, -picked);
        self.add(place, CONFIRMED, picked - units);
        if !ship {
            self.add(place, PICKED, units);
        }
        Ok(due)
    }

    /// What was on hand at an earlier moment.
    fn on_hand_at(
        &self,
        (sku, node): (u32, u16),
        on_hand: i64,
        at_ms: u64,
        now_ms: Option<u64>,
    ) -> Result<i64, Code> {
        let Some(past) = self.pasts.get(&sku) else { return Ok(on_hand) };
        if past.counted.get(&node).is_some_and(|counted| *counted > at_ms) {
            return Err(Code::CountTooLate);
        }
        let Some((latest_ms, last)) = past.last.get(&node) else { return Ok(on_hand) };
        if *latest_ms <= at_ms {
            return Ok(on_hand);
        }
        let late = now_ms.is_some_and(|now| now.saturating_sub(at_ms) > limit::COUNT_LATE_MS_MAX);
        if late || at_ms < past.forgotten_to_ms {
            return Err(Code::CountTooLate);
        }
        let since = past.earlier.iter().chain([last]);
        let since = since.filter(|change| change.node == node && change.at_ms > at_ms);
        Ok(on_hand - since.map(|change| change.units).sum::<i64>())
    }

    pub(super) fn remember(&mut self, now_ms: Option<u64>, sku: u32, change: Change) {
        let past = self.pasts.entry(sku).or_default();
        let old = past.last.get(&change.node).copied();
        let latest_ms = old.map_or(0, |(latest, _)| latest).max(change.at_ms);
        past.last.insert(change.node, (latest_ms, change));
        let young =
            |at_ms: u64| now_ms.is_none_or(|now| now.saturating_sub(at_ms) <= limit::COUNT_LATE_MS_MAX);
        let Some((_, old)) = old.filter(|(_, old)| young(old.at_ms)) else { return };
        past.earlier.retain(|change| young(change.at_ms));
        if past.earlier.len() >= limit::RECENT_MOVEMENTS_PER_SKU {
            let forgotten = past.earlier.remove(0);
            past.forgotten_to_ms = past.forgotten_to_ms.max(forgotten.at_ms);
        }
        past.earlier.push(old);
    }
}

/// Whether an event has a field that its kind does not take.
pub(super) fn has_misfit(event: &EventRec) -> bool {
    let takes = match EventKind::from_number(event.kind) {
        Some(EventKind::Receipt | EventKind::TransferReceived) => "supply supply_source damaged to",
        Some(EventKind::Pick | EventKind::Ship) => "reservation",
        Some(EventKind::Adjustment | EventKind::Count) => "expected",
        Some(EventKind::TransferDispatched) => "supply to_node eta",
        Some(EventKind::Return) => "to",
        Some(EventKind::Supply) => "supply eta",
        Some(EventKind::StatusChange) => "from to",
        None => "",
    };
    let given = [
        ("reservation", event.given & 1 != 0),
        ("supply", event.given & 2 != 0),
        ("expected", event.given & 4 != 0),
        ("supply_source", event.supply_source != 0),
        ("to_node", event.to_node != ANY),
        ("eta", event.eta_ms != 0),
        ("damaged", event.damaged != 0),
        ("from", event.from != 0),
        ("to", event.to != 0),
    ];
    given.iter().any(|(field, given)| *given && !takes.split(' ').any(|taken| taken == *field))
}
