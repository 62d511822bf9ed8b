//! Steps of a reservation: confirm, release, extend, fulfil, and its expiry.
//!
//! | from | confirm | release | extend | fulfil | expiry |
//! |---|---|---|---|---|---|
//! | held | confirmed | released | held, longer | WRONG_STATE | expired |
//! | held, time over | EXPIRED | EXPIRED | EXPIRED | WRONG_STATE | expired |
//! | confirmed | WRONG_STATE | released | WRONG_STATE | fulfilled | NOT_DUE |
//! | expired | EXPIRED | EXPIRED | EXPIRED | WRONG_STATE | NOT_DUE |
//! | fulfilled, released | WRONG_STATE | WRONG_STATE | WRONG_STATE | WRONG_STATE | NOT_DUE |

use crate::bucket::{Bucket, Movement};
use crate::command::{Transition, Verb};
use crate::drill::{Bug, planted};
use crate::id::{Millis, ReservationId};
use crate::ledger::{Effects, Ledger, Moment, Outcome, Reservation};
use crate::outcome::{Code, State};

impl Ledger {
    pub(super) fn decide_transition(
        &self,
        moment: Moment,
        transition: &Transition,
        effects: &mut Effects,
    ) -> Option<Outcome> {
        let part = self.reservations.find(transition.reservation, moment.lsn)?;
        if transition.scope.is_some_and(|channel| channel != part.channel) {
            return None;
        }
        let over = part.state == State::Held && part.expires_at() <= moment.now;
        let refusal = match (part.state, transition.verb) {
            (State::Held, Verb::Confirm | Verb::Release | Verb::Extend) if over => Some(Code::Expired),
            (State::Held, Verb::Confirm | Verb::Release | Verb::Extend) => None,
            (State::Confirmed, Verb::Release | Verb::Fulfil) => None,
            (State::Expired, Verb::Confirm | Verb::Release | Verb::Extend) => Some(Code::Expired),
            _ => Some(Code::WrongState),
        };
        if let Some(code) = refusal {
            return Some(Outcome { code, ..part.outcome() });
        }
        let (state, to, expires_at) = match transition.verb {
            Verb::Extend => {
                let end = moment.now.plus(u64::from(transition.ttl_ms)).max(part.expires_at());
                return Some(Outcome { code: Code::Ok, state: State::Held, expires_at: end });
            }
            Verb::Confirm => (State::Confirmed, Bucket::Confirmed, Millis(0)),
            Verb::Release => (State::Released, Bucket::Free, Millis(0)),
            Verb::Fulfil => (State::Fulfilled, Bucket::Customer, Millis(0)),
        };
        move_claims(part, to, effects);
        Some(Outcome { code: Code::Ok, state, expires_at })
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
        move_claims(part, Bucket::Free, effects);
        Some(Outcome { code: Code::Ok, state: State::Expired, expires_at: Millis(0) })
    }
}

/// Moves what is open of each claim, and what is picked unless it only becomes confirmed.
fn move_claims(part: &Reservation, to: Bucket, effects: &mut Effects) {
    let from = if part.state == State::Held { Bucket::Held } else { Bucket::Confirmed };
    for claim in &part.claims {
        for (from, quantity) in [(from, claim.open()), (Bucket::Picked, claim.picked)] {
            if quantity > 0 {
                effects.movements.push(Movement { sku: claim.sku, node: claim.node, from, to, quantity });
            }
        }
    }
}
