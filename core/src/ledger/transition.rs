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
//! A step with lines takes a part, all of its lines or none. What becomes of the reservation as a whole depends on
//! what is left in every shard, so the parts say that in their ballots; a step without lines needs none.

use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::bucket::{Bucket, Movement};
use crate::catalogue::{ChannelRule, LateConfirm, Rules};
use crate::command::{Fill, Line, StepLine, Transition, Verb};
use crate::drill::{Bug, planted};
use crate::id::{GroupId, NodeId, ReservationId, SkuId};
use crate::ledger::{Ballot, Claim, Decision, Effects, Ledger, Moment, Outcome, Reservation};
use crate::outcome::{Code, State};

/// From which buckets of a claim a step takes units, in this order.
fn sources(verb: Verb) -> &'static [Bucket] {
    match verb {
        Verb::Extend => &[],
        Verb::Confirm => &[Bucket::Held],
        Verb::Release => &[Bucket::Held, Bucket::Confirmed, Bucket::Picked],
        Verb::Fulfil => &[Bucket::Picked, Bucket::Confirmed],
        Verb::Move => &[Bucket::Held, Bucket::Confirmed],
    }
}

/// Where they go, and what the reservation is when nothing else is left of it.
fn target(verb: Verb) -> (Bucket, State) {
    match verb {
        Verb::Confirm | Verb::Extend | Verb::Move => (Bucket::Confirmed, State::Confirmed),
        Verb::Release => (Bucket::Free, State::Released),
        Verb::Fulfil => (Bucket::Customer, State::Fulfilled),
    }
}

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
            return Some(self.decide_lines(channel, code, part, transition, effects));
        }
        let told = part.outcome();
        if code != Code::Ok {
            return Some(Decision::refused(Outcome { code, ..told }));
        }
        if late && part.state == State::Expired {
            let claims = part.claims.to_vec();
            return Some(self.decide_again(rules, channel, &claims, effects));
        }
        if transition.verb == Verb::Extend {
            let end = moment.now.plus(u64::from(transition.ttl_ms)).max(part.expires_at());
            return Some(Decision::alone(Outcome { expires_at: end, ..told }));
        }
        let (to, state) = target(transition.verb);
        for claim in &part.claims {
            push_claim(claim, sources(transition.verb), to, effects);
        }
        Some(Decision::alone(Outcome { state, reacquired: late, ..Outcome::of(Code::Ok) }))
    }

    /// Takes units line by line, each line seeing what those before it took.
    fn decide_lines(
        &self,
        channel: &ChannelRule,
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
        // Claims as earlier lines left them, and by how much they changed what is free somewhere.
        let mut changed: HashMap<(SkuId, NodeId), Claim> = HashMap::new();
        let mut freed: HashMap<(SkuId, NodeId), i64> = HashMap::new();
        // Units by place and bucket, into it or out of it: a unit that goes there and back does not move.
        let mut moved: HashMap<(SkuId, NodeId, Bucket), i64> = HashMap::new();
        let before = effects.movements.len();
        let possible = head == Code::Ok;
        for line in transition.lines.iter().filter(|line| possible && self.shard.owns(line.sku)) {
            let here = (line.sku, line.node);
            let claim = changed.get(&here).or_else(|| part.claim(line.sku, line.node));
            let mut open = line.quantity;
            let mut takes: SmallVec<[(Bucket, u32); 3]> = SmallVec::new();
            for from in sources(transition.verb) {
                let quantity = claim.map_or(0, |claim| claim.units(*from)).min(open);
                open -= quantity;
                takes.push((*from, quantity));
            }
            if open > 0 {
                refuse(Code::InsufficientClaim);
                continue;
            }
            if transition.verb == Verb::Move {
                let there = freed.entry((line.sku, line.to_node)).or_default();
                let free = self.position(line.sku, line.to_node).map_or(0, |position| position.free);
                if free + *there < i64::from(line.quantity) && !planted(Bug::MoveUnchecked) {
                    refuse(Code::InsufficientStock);
                    continue;
                }
                *there -= i64::from(line.quantity);
                *freed.entry(here).or_default() += i64::from(line.quantity);
            }
            for (from, quantity) in takes.into_iter().filter(|(_, quantity)| *quantity > 0) {
                for movement in line_movements(line, transition.verb, from, quantity) {
                    let at = (movement.sku, movement.node);
                    let claim = changed.entry(at).or_insert_with(|| {
                        part.claim(at.0, at.1).copied().unwrap_or_else(|| Claim::none(at.0, at.1))
                    });
                    shift_claim(claim, &movement);
                    if transition.verb == Verb::Move {
                        let into = movement.from == Bucket::Free;
                        let units = i64::from(movement.quantity);
                        *moved.entry((at.0, at.1, from)).or_default() += if into { units } else { -units };
                    } else {
                        effects.movements.push(movement);
                    }
                }
            }
        }
        if code != Code::Ok {
            effects.movements.truncate(before);
            return Decision::refused(Outcome { code, ..told });
        }
        for ((sku, node, bucket), units) in moved.into_iter().filter(|(_, units)| *units != 0) {
            let (from, to) = if units > 0 { (Bucket::Free, bucket) } else { (bucket, Bucket::Free) };
            let quantity = units.unsigned_abs() as u32;
            effects.movements.push(Movement { sku, node, from, to, quantity });
        }
        super::merge_movements(&mut effects.movements, before);
        let untouched = part.claims.iter().filter(|claim| !changed.contains_key(&place(claim)));
        let mut ballot = Ballot::NONE;
        for claim in untouched.chain(changed.values()) {
            let open = claim.confirmed() + claim.picked > 0;
            ballot = ballot.and(Ballot::HELD.when(claim.held > 0));
            ballot = ballot.and(Ballot::CONFIRMED.when(open)).and(Ballot::SHIPPED.when(claim.shipped > 0));
        }
        Decision { outcome: told, ballot, waits: true }
    }

    /// Claims again what an expired hold had claimed: at the same node, or else wherever the channel may.
    fn decide_again(
        &mut self,
        rules: &Rules,
        channel: &ChannelRule,
        claims: &[Claim],
        effects: &mut Effects,
    ) -> Decision {
        let (before, shorts) = (effects.movements.len(), effects.shorts.len());
        let mut missing = false;
        for claim in claims {
            let here = channel.nodes.contains(claim.node);
            let places = [here.then_some(claim.node), Some(NodeId::ANY)];
            let taken = places.into_iter().flatten().any(|node| {
                let line = Line { sku: claim.sku, node, group: GroupId::ANY, quantity: claim.quantity };
                let short = effects.shorts.len();
                self.take_line(rules, channel, Fill::All, (0, &line), effects);
                effects.shorts.len() == short
            });
            missing |= !taken;
        }
        self.give_back();
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
        let outcome = Outcome { state: State::Confirmed, reacquired: true, ..Outcome::of(Code::Ok) };
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
        for claim in &part.claims {
            push_claim(claim, &[Bucket::Held], Bucket::Free, effects);
        }
        let state = if part.partly { State::Confirmed } else { State::Expired };
        Some(Outcome { state, ..Outcome::of(Code::Ok) })
    }

    /// What becomes of a step with lines, or of a late confirmation, when all parts have said what they have.
    pub(super) fn conclude_transition(transition: &Transition, outcome: Outcome, said: Ballot) -> Outcome {
        if said.says(Ballot::NO) {
            // Who refused says why; this is the weakest of its reasons.
            let code = Code::InsufficientStock;
            return match (outcome.code, outcome.reacquired) {
                (Code::Ok, true) => Outcome { code, state: State::Expired, reacquired: false, ..outcome },
                (Code::Ok, false) => Outcome { code, ..outcome },
                _ => outcome,
            };
        }
        if outcome.code != Code::Ok || transition.lines.is_empty() {
            return outcome;
        }
        match (said.says(Ballot::HELD), said.says(Ballot::CONFIRMED)) {
            (true, confirmed) => Outcome { partly: confirmed || said.says(Ballot::SHIPPED), ..outcome },
            (false, true) => Outcome { state: State::Confirmed, ..Outcome::of(Code::Ok) },
            (false, false) => Outcome { state: target(transition.verb).1, ..Outcome::of(Code::Ok) },
        }
    }
}

/// All a claim has in some buckets goes elsewhere.
fn push_claim(claim: &Claim, from: &[Bucket], to: Bucket, effects: &mut Effects) {
    for from in from {
        let quantity = claim.units(*from);
        if quantity > 0 {
            let (sku, node, from) = (claim.sku, claim.node, *from);
            effects.movements.push(Movement { sku, node, from, to, quantity });
        }
    }
}

/// The movements of some of a line: one, or to move a claim two.
fn line_movements(
    line: &StepLine,
    verb: Verb,
    from: Bucket,
    quantity: u32,
) -> impl Iterator<Item = Movement> {
    let (sku, node) = (line.sku, line.node);
    let pair = if verb == Verb::Move {
        let there = Movement { sku, node: line.to_node, from: Bucket::Free, to: from, quantity };
        [Some(Movement { sku, node, from, to: Bucket::Free, quantity }), Some(there)]
    } else {
        [Some(Movement { sku, node, from, to: target(verb).0, quantity }), None]
    };
    pair.into_iter().flatten()
}

fn place(claim: &Claim) -> (SkuId, NodeId) {
    (claim.sku, claim.node)
}

/// Books a movement in the claim at its place.
fn shift_claim(claim: &mut Claim, movement: &Movement) {
    let units = movement.quantity;
    match movement.from {
        Bucket::Held => claim.held -= units,
        Bucket::Picked => claim.picked -= units,
        Bucket::Free => claim.quantity += units,
        _ => {}
    }
    match movement.to {
        Bucket::Held => claim.held += units,
        Bucket::Customer => claim.shipped += units,
        Bucket::Free => claim.quantity -= units,
        _ => {}
    }
}

/// Books a movement in the claims of a reservation, which are sorted by place.
fn shift_claims(claims: &mut SmallVec<[Claim; 1]>, movement: &Movement) {
    let at = claims.partition_point(|claim| place(claim) < (movement.sku, movement.node));
    if claims.get(at).map(place) != Some((movement.sku, movement.node)) {
        claims.insert(at, Claim::none(movement.sku, movement.node));
    }
    shift_claim(&mut claims[at], movement);
}

impl Reservation {
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
