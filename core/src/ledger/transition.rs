//! Steps of a reservation: confirm, release, extend, fulfil, move, and its expiry.
//!
//! | from | confirm | release | extend | fulfil | move | expiry |
//! |---|---|---|---|---|---|---|
//! | held | confirmed | released | held, longer | WRONG_STATE | held elsewhere | expired |
//! | held in part, confirmed in part | confirmed | released | held, longer | by line | elsewhere | confirmed |
//! | held, time over | EXPIRED or late | EXPIRED | EXPIRED | WRONG_STATE | EXPIRED | as above |
//! | confirmed | WRONG_STATE | released | WRONG_STATE | fulfilled | confirmed elsewhere | NOT_DUE |
//! | expired | EXPIRED or late | EXPIRED | EXPIRED | WRONG_STATE | EXPIRED | NOT_DUE |
//! | fulfilled, released | WRONG_STATE | WRONG_STATE | WRONG_STATE | WRONG_STATE | WRONG_STATE | NOT_DUE |
//!
//! Units that are claimed no longer go back to the allocation or the supply they came from, or are free. What has not
//! come yet cannot be fulfilled.
//!
//! A step with lines takes a part, all of its lines or none. What becomes of the reservation as a whole depends on
//! what is left in every shard, so the parts say that in their ballots; a step without lines needs none.

use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::bucket::{Bucket, Movement, Place};
use crate::catalogue::{ChannelRule, LateConfirm, Rules};
use crate::command::{Fill, Line, StepLine, Transition, Verb};
use crate::drill::{Bug, planted};
use crate::id::{ChannelId, GroupId, Millis, NodeId, ReservationId, SupplyId, ZoneId};
use crate::ledger::allocation::{Drawable, drawable};
use crate::ledger::reserve::Asking;
use crate::ledger::{Ballot, Claim, Decision, Effects, Full, Ledger, Moment, Outcome, Reservation};
use crate::outcome::{Code, State};

/// From which buckets of claims a step takes units, in this order.
fn sources(verb: Verb) -> &'static [Bucket] {
    match verb {
        Verb::Extend => &[],
        Verb::Confirm => &[Bucket::Held],
        Verb::Release => &[Bucket::Held, Bucket::Confirmed, Bucket::Picked],
        Verb::Fulfil => &[Bucket::Picked, Bucket::Confirmed],
        Verb::Move => &[Bucket::Held, Bucket::Confirmed],
    }
}

/// What the reservation is when nothing else is left of it.
fn last_state(verb: Verb) -> State {
    match verb {
        Verb::Confirm | Verb::Extend | Verb::Move => State::Confirmed,
        Verb::Release => State::Released,
        Verb::Fulfil => State::Fulfilled,
    }
}

/// Where units of a pool go.
fn target(verb: Verb, pool: ChannelId) -> Bucket {
    match verb {
        Verb::Confirm | Verb::Extend => Bucket::Confirmed,
        Verb::Release | Verb::Move => Bucket::unclaimed(pool),
        Verb::Fulfil => Bucket::Customer,
    }
}

/// Units at places and in buckets, as the lines of a step have changed them so far.
type Changes = HashMap<(Place, Bucket), i64>;

impl Ledger {
    pub(super) fn decide_transition(
        &mut self,
        moment: Moment,
        rules: &Rules,
        transition: &Transition,
        effects: &mut Effects,
    ) -> Option<Decision> {
        let found = self.reservations.find(transition.reservation, moment.lsn);
        let Some(part) = found.filter(|part| transition.scope.is_none_or(|scope| scope == part.channel))
        else {
            // Whether others know it is not known here.
            let asked = transition.lines.iter().any(|line| self.shard.owns(line.sku));
            return asked.then(|| Decision::refused(Outcome::of(Code::UnknownReservation)));
        };
        let channel = rules.channel(part.channel).expect("a reservation has its channel");
        let by_line = !transition.lines.is_empty();
        let over = part.state == State::Held && part.expires_at() <= moment.now;
        let late = transition.verb == Verb::Confirm
            && !by_line
            && (over || part.state == State::Expired)
            && channel.policy.late_confirm == LateConfirm::Reacquire;
        let code = match (part.state, transition.verb) {
            _ if late => Code::Ok,
            (State::Held, Verb::Fulfil) if by_line && part.partly => Code::Ok,
            (State::Held | State::Expired, Verb::Fulfil) => Code::WrongState,
            (State::Held, _) if over => Code::Expired,
            (State::Held, _) => Code::Ok,
            (State::Confirmed, Verb::Release | Verb::Fulfil | Verb::Move) => Code::Ok,
            (State::Expired, _) => Code::Expired,
            _ => Code::WrongState,
        };
        if by_line {
            return Some(self.decide_lines((rules, channel), code, part, transition, effects));
        }
        let told = part.outcome();
        if code != Code::Ok {
            return Some(Decision::refused(Outcome { code, ..told }));
        }
        if late && part.state == State::Expired {
            let claims = part.claims.to_vec();
            let id = transition.reservation;
            return Some(self.decide_again((moment.now, id), rules, channel, &claims, effects));
        }
        if transition.verb == Verb::Extend {
            let end = moment.now.plus(u64::from(transition.ttl_ms)).max(part.expires_at());
            return Some(Decision::alone(Outcome { expires_at: end, ..told }));
        }
        if transition.verb == Verb::Fulfil {
            let code = match (part.is_backordered(), part.is_open()) {
                (true, _) => Code::Backordered,
                (_, true) => Code::NodeNotChosen,
                _ => Code::Ok,
            };
            if code != Code::Ok {
                return Some(Decision::refused(Outcome { code, ..told }));
            }
        }
        let first = effects.movements.len();
        for claim in &part.claims {
            push_claim(claim, transition.verb, effects);
        }
        if late {
            self.note_promises((transition.reservation, part.channel), first, effects);
        }
        if transition.verb == Verb::Fulfil {
            // Whether all of it is there, and whether all of it was picked, not every part knows.
            let unpicked = part.claims.iter().any(|claim| claim.confirmed() > 0);
            let picked = part.claims.iter().any(|claim| claim.picked + claim.shipped > 0);
            let ballot = Ballot::CONFIRMED.when(unpicked).and(Ballot::SHIPPED.when(picked));
            return Some(Decision { outcome: told, ballot, waits: true });
        }
        let state = last_state(transition.verb);
        Some(Decision::alone(Outcome { state, reacquired: late, ..Outcome::ok(part.channel) }))
    }

    /// Takes units line by line, each line seeing what those before it took.
    fn decide_lines(
        &self,
        (rules, channel): (&Rules, &ChannelRule),
        head: Code,
        part: &Reservation,
        transition: &Transition,
        effects: &mut Effects,
    ) -> Decision {
        let told = part.outcome();
        let mut code = head;
        let mut refuse = |refusal: Code| {
            if code == Code::Ok || refusal < code {
                code = refusal;
            }
        };
        // Every part knows the channel, so every part looks at all lines here.
        let elsewhere = |line: &StepLine| !channel.nodes.contains(line.to_node);
        if transition.verb == Verb::Move && transition.lines.iter().any(elsewhere) {
            refuse(Code::NodeNotOffered);
        }
        let open = |line: &StepLine| line.node.is_group();
        if transition.verb == Verb::Fulfil && transition.lines.iter().any(open) {
            refuse(Code::NodeNotChosen);
        }
        let order = |claim: &Claim| self.supply_order(claim);
        // Claims as earlier lines left them, and what moves: a unit that goes there and back does not.
        let mut changed: HashMap<Place, Claim> = HashMap::new();
        let mut moved = Changes::new();
        let before = effects.movements.len();
        let possible = head == Code::Ok;
        for line in transition.lines.iter().filter(|line| possible && self.shard.owns(line.sku)) {
            let Some(takes) = line_takes(part, &changed, transition.verb, line, order) else {
                refuse(Code::InsufficientClaim);
                continue;
            };
            let mut there = Drawable::new();
            if transition.verb == Verb::Move {
                there = self.drawable_at(rules, channel, line, &moved, &takes);
                let units: i64 = there.iter().map(|(_, units)| units).sum();
                if units < i64::from(line.quantity) && !planted(Bug::MoveUnchecked) {
                    refuse(Code::InsufficientStock);
                    continue;
                }
            }
            for (from, pool, quantity) in takes {
                let here = Place { sku: line.sku, node: line.node, pool };
                let to = target(transition.verb, pool);
                shift(part, &mut changed, &mut moved, (here, from, to), quantity);
                let mut open = if transition.verb == Verb::Move { quantity } else { 0 };
                let last = there.len().saturating_sub(1);
                for (index, (pool, units)) in there.iter_mut().enumerate() {
                    let taken = if planted(Bug::MoveUnchecked) && index == last {
                        open
                    } else {
                        open.min((*units).max(0) as u32)
                    };
                    open -= taken;
                    *units -= i64::from(taken);
                    let there = Place { sku: line.sku, node: line.to_node, pool: *pool };
                    shift(part, &mut changed, &mut moved, (there, Bucket::unclaimed(*pool), from), taken);
                }
            }
        }
        if code != Code::Ok {
            effects.movements.truncate(before);
            return Decision::refused(Outcome { code, ..told });
        }
        push_changes(transition.verb, moved, effects);
        super::merge_movements(&mut effects.movements, before);
        let untouched = part.claims.iter().filter(|claim| !changed.contains_key(&claim.place()));
        let mut ballot = Ballot::NONE;
        for claim in untouched.chain(changed.values()) {
            let open = claim.confirmed() + claim.picked > 0;
            ballot = ballot.and(Ballot::HELD.when(claim.held > 0));
            ballot = ballot.and(Ballot::CONFIRMED.when(open)).and(Ballot::SHIPPED.when(claim.shipped > 0));
        }
        Decision { outcome: told, ballot, waits: true }
    }

    /// What a channel can draw at the node a line moves to, pool by pool, behind the lines before it.
    fn drawable_at(
        &self,
        rules: &Rules,
        channel: &ChannelRule,
        line: &StepLine,
        moved: &Changes,
        takes: &[(Bucket, ChannelId, u32)],
    ) -> Drawable {
        let (sku, node) = (line.sku, line.to_node);
        // What was withheld was so when units of the group were claimed.
        let in_group = |group| rules.group(group).is_none_or(|nodes| nodes.contains(node));
        let chooses = line.node.group().is_some_and(in_group);
        let withheld_at = |node| if chooses { 0 } else { rules.withheld(sku, node, channel.id()) };
        let withheld = withheld_at(node);
        let change = |pool| {
            let place = Place { sku, node, pool };
            moved.get(&(place, Bucket::unclaimed(pool))).copied().unwrap_or(0)
        };
        let position = self.position(sku, node);
        let free = position.map_or(0, |position| self.free(sku, position)) + change(ChannelId::SHARED);
        let there = moved.iter().filter(|((place, bucket), _)| {
            (place.sku, place.node) == (sku, node) && *bucket == Bucket::Allocated
        });
        let allocated =
            position.map_or(0, |position| position.allocated()) + there.map(|(_, units)| units).sum::<i64>();
        let mut drawable = drawable(&channel.pools, (free, withheld), allocated, |pool| {
            self.share(sku, pool, node) + change(pool)
        });
        if self.is_claimed_of_groups(sku) {
            // What this line gives back goes first: a unit that moves within a group stays with it.
            let back = takes.iter().filter(|(_, pool, _)| *pool == ChannelId::SHARED);
            let back: i64 = back.map(|(_, _, units)| i64::from(*units)).sum();
            let before = |node| {
                let place = Place { sku, node, pool: ChannelId::SHARED };
                moved.get(&(place, Bucket::Free)).copied().unwrap_or(0)
            };
            let behind = |node| before(node) + if node == line.node { back } else { 0 };
            let uncovered = self.uncovered_by_move(rules, (sku, node), withheld_at, (before, behind));
            let (_, shared) = drawable.last_mut().expect("one pool is shared");
            *shared = uncovered.min(*shared);
        }
        drawable
    }

    /// Claims again what an expired hold had claimed: at the same node, or else wherever the channel may.
    fn decide_again(
        &mut self,
        (now, id): (Millis, ReservationId),
        rules: &Rules,
        channel: &ChannelRule,
        claims: &[Claim],
        effects: &mut Effects,
    ) -> Decision {
        let (before, shorts) = (effects.movements.len(), effects.shorts.len());
        let mut missing = false;
        // Units of several pools at one node are wanted together.
        for claims in claims.chunk_by(|one, other| (one.sku, one.node) == (other.sku, other.node)) {
            let (sku, node) = (claims[0].sku, claims[0].node);
            let quantity: u64 = claims.iter().map(|claim| u64::from(claim.quantity)).sum();
            let here = rules.offers_place(channel, node);
            // What is there goes before what is to come.
            let places = [here.then_some((node, false)), Some((NodeId::ANY, true))];
            let taken = places.into_iter().flatten().any(|(node, later)| {
                let Ok(quantity) = u32::try_from(quantity) else { return false };
                let asking = Asking { now, fill: Fill::All, zone: ZoneId::NONE, later };
                let line = Line { sku, node, group: GroupId::ANY, quantity };
                let short = effects.shorts.len();
                if node.is_group() {
                    self.take_of_group(rules, channel, Fill::All, (0, &line), effects);
                } else {
                    self.take_line(rules, channel, asking, (0, &line), effects);
                }
                self.full = Full::default();
                effects.shorts.len() == short
            });
            missing |= !taken;
        }
        self.give_back_from(0, 0);
        effects.shorts.truncate(shorts);
        if missing {
            effects.movements.truncate(before);
            let outcome = Outcome { state: State::Expired, ..Outcome::of(Code::InsufficientStock) };
            return Decision::refused(outcome);
        }
        for movement in &mut effects.movements[before..] {
            movement.to = Bucket::Confirmed;
        }
        super::merge_movements(&mut effects.movements, before);
        self.note_promises((id, channel.id()), before, effects);
        let outcome = Outcome { state: State::Confirmed, reacquired: true, ..Outcome::ok(channel.id()) };
        Decision { outcome, ballot: Ballot::NONE, waits: true }
    }

    pub(super) fn decide_expiry(
        &self,
        moment: Moment,
        id: ReservationId,
        effects: &mut Effects,
    ) -> Option<Outcome> {
        let part = self.reservations.find(id, moment.lsn)?;
        let early = if planted(Bug::ExpireEarly) { 1_000 } else { 0 };
        if part.state != State::Held || part.expires_at() > moment.now.plus(early) {
            return Some(Outcome { code: Code::NotDue, ..part.outcome() });
        }
        for claim in part.claims.iter().filter(|claim| claim.held > 0) {
            effects.movements.push(Movement {
                sku: claim.sku,
                node: claim.node,
                pool: claim.pool,
                from: Bucket::Held,
                to: Bucket::unclaimed(claim.pool),
                quantity: claim.held,
            });
        }
        let state = if part.partly { State::Confirmed } else { State::Expired };
        Some(Outcome { state, ..Outcome::ok(part.channel) })
    }

    /// What becomes of a step with lines, or of a late confirmation, when all parts have said what they have.
    pub(super) fn conclude_transition(transition: &Transition, outcome: Outcome, said: Ballot) -> Outcome {
        if said.says(Ballot::NO) {
            // Who refused says why; this is the weakest of its reasons.
            let whole = transition.verb == Verb::Fulfil && transition.lines.is_empty();
            let code = if whole { Code::NodeNotChosen } else { Code::InsufficientStock };
            return match (outcome.code, outcome.reacquired) {
                (Code::Ok, true) => Outcome { code, state: State::Expired, reacquired: false, ..outcome },
                (Code::Ok, false) => Outcome { code, ..outcome },
                _ => outcome,
            };
        }
        if outcome.code == Code::Ok && transition.lines.is_empty() && transition.verb == Verb::Fulfil {
            if transition.ttl_ms == 0 && said.says(Ballot::CONFIRMED) && said.says(Ballot::SHIPPED) {
                return Outcome { code: Code::PartlyPicked, ..outcome };
            }
            return Outcome { state: State::Fulfilled, ..Outcome::ok(outcome.channel) };
        }
        if outcome.code != Code::Ok || transition.lines.is_empty() {
            return outcome;
        }
        match (said.says(Ballot::HELD), said.says(Ballot::CONFIRMED)) {
            (true, confirmed) => Outcome { partly: confirmed || said.says(Ballot::SHIPPED), ..outcome },
            (false, true) => Outcome { state: State::Confirmed, ..Outcome::ok(outcome.channel) },
            (false, false) => Outcome { state: last_state(transition.verb), ..Outcome::ok(outcome.channel) },
        }
    }
}

/// All a claim has that a step takes goes where it takes it.
fn push_claim(claim: &Claim, verb: Verb, effects: &mut Effects) {
    let Place { sku, node, pool } = claim.place();
    for from in sources(verb) {
        let quantity = claim.units(*from);
        if quantity > 0 {
            let to = target(verb, pool);
            effects.movements.push(Movement { sku, node, pool, from: *from, to, quantity });
        }
    }
}

/// From which buckets and pools a line takes its units; `None` where the reservation claims fewer. What is given back
/// comes from supplies first, then from the shared pool, then from the allocations of older channels; what goes on, from
/// allocations first, then from the shared pool, then from supplies.
fn line_takes(
    part: &Reservation,
    changed: &HashMap<Place, Claim>,
    verb: Verb,
    line: &StepLine,
    order: impl Fn(&Claim) -> (bool, Millis, SupplyId),
) -> Option<SmallVec<[(Bucket, ChannelId, u32); 3]>> {
    let (sku, node) = (line.sku, line.node);
    let stored = part.claims_at(sku, node).iter().filter(|claim| !changed.contains_key(&claim.place()));
    let changed = changed.values().filter(|claim| (claim.sku, claim.node) == (sku, node));
    let mut claims: SmallVec<[Claim; 2]> = stored.chain(changed).copied().collect();
    if verb == Verb::Fulfil {
        claims.retain(|claim| !claim.pool.is_supply());
    }
    if line.to_node == node {
        // At its own node a claim moves only from what is to come to what is there.
        claims.retain(|claim| claim.pool.is_supply());
    }
    let gives_back = matches!(verb, Verb::Release | Verb::Move);
    // Of supplies the earliest is used first, and given back last.
    let mut sorted: SmallVec<[_; 2]> = claims.iter().map(|claim| (order(claim), *claim)).collect();
    sorted.sort_unstable_by_key(|(order, claim)| {
        let (supply, shared) = (claim.pool.is_supply(), claim.pool == ChannelId::SHARED);
        (u8::from(supply) * 2 + u8::from(shared), *order, claim.pool)
    });
    if gives_back {
        // Allocations of older channels first.
        let allocations = sorted.iter().take_while(|(_, claim)| claim.pool < ChannelId::SUPPLIES).count();
        sorted[..allocations].reverse();
        sorted.reverse();
    }
    let claims: SmallVec<[Claim; 2]> = sorted.into_iter().map(|(_, claim)| claim).collect();
    let mut open = line.quantity;
    let mut takes = SmallVec::new();
    for from in sources(verb) {
        for claim in &claims {
            let quantity = claim.units(*from).min(open);
            open -= quantity;
            if quantity > 0 {
                takes.push((*from, claim.pool, quantity));
            }
        }
    }
    (open == 0).then_some(takes)
}

/// Moves units of a line in the claims as they will be, and notes that they moved.
fn shift(
    part: &Reservation,
    changed: &mut HashMap<Place, Claim>,
    moved: &mut Changes,
    (place, from, to): (Place, Bucket, Bucket),
    quantity: u32,
) {
    if quantity == 0 {
        return;
    }
    let Place { sku, node, pool } = place;
    let claim = changed.entry(place).or_insert_with(|| {
        let stored = part.claims.iter().find(|claim| claim.place() == place);
        stored.copied().unwrap_or_else(|| Claim::none(place))
    });
    shift_claim(claim, &Movement { sku, node, pool, from, to, quantity });
    *moved.entry((place, from)).or_default() -= i64::from(quantity);
    *moved.entry((place, to)).or_default() += i64::from(quantity);
}

/// The movements that make changes: at each place, from the buckets a step takes from into the one it puts into.
fn push_changes(verb: Verb, moved: Changes, effects: &mut Effects) {
    for ((place, bucket), units) in moved {
        let Place { sku, node, pool } = place;
        let other = target(verb, pool);
        if units == 0 || bucket == other {
            continue;
        }
        let (from, to) = if units > 0 { (other, bucket) } else { (bucket, other) };
        let quantity = units.unsigned_abs() as u32;
        effects.movements.push(Movement { sku, node, pool, from, to, quantity });
    }
}

/// Books a movement in the claim at its place.
fn shift_claim(claim: &mut Claim, movement: &Movement) {
    let units = movement.quantity;
    match movement.from {
        Bucket::Held => claim.held -= units,
        Bucket::Picked => claim.picked -= units,
        Bucket::Free | Bucket::Allocated | Bucket::Inbound => claim.quantity += units,
        _ => {}
    }
    match movement.to {
        Bucket::Held => claim.held += units,
        Bucket::Picked => claim.picked += units,
        Bucket::Customer => claim.shipped += units,
        Bucket::Free | Bucket::Allocated | Bucket::Inbound => claim.quantity -= units,
        _ => {}
    }
}

/// Books a movement in the claims of a reservation, which are sorted by place.
fn shift_claims(claims: &mut SmallVec<[Claim; 1]>, movement: &Movement) {
    let at = claims.partition_point(|claim| claim.place() < movement.place());
    if claims.get(at).map(Claim::place) != Some(movement.place()) {
        claims.insert(at, Claim::none(movement.place()));
    }
    shift_claim(&mut claims[at], movement);
}

impl Reservation {
    /// Books what a node picked or shipped.
    pub(super) fn book_issue(&mut self, movements: impl Iterator<Item = Movement>) {
        movements.for_each(|movement| shift_claims(&mut self.claims, &movement));
        self.claims.retain(|claim| claim.quantity > 0);
    }

    /// Books the movements of a step: what is no longer claimed goes, but for the memory of what ended as a whole.
    pub(super) fn book(&mut self, outcome: Outcome, movements: impl Iterator<Item = Movement>) {
        if outcome.reacquired && self.state == State::Expired {
            self.claims.clear();
        }
        let remember = (!outcome.state.is_active()).then(|| self.claims.clone());
        for movement in movements {
            shift_claims(&mut self.claims, &movement);
        }
        match remember {
            // What it claimed is still told, and claimed again by a late confirmation.
            Some(mut claims) if outcome.state != State::Fulfilled => {
                for claim in &mut claims {
                    (claim.held, claim.picked) = (0, 0);
                }
                self.claims = claims;
            }
            _ => self.claims.retain(|claim| claim.quantity > 0),
        }
    }
}
