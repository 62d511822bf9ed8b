//! Reservations of one shard: claims by id, the order in which holds end, and the memory of ended ones.
//!
//! A reservation over several shards has a part in each, with the same head; every step is applied by all
//! parts at the same LSN, so the heads stay equal without anybody talking.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::id::{ChannelId, Lsn, Millis, NodeId, ReservationId, ShardOf, SkuId};
use crate::ledger::Outcome;
use crate::limit;
use crate::outcome::{Code, State};

/// Units of one sku at one node that belong to a reservation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    pub sku: SkuId,
    pub node: NodeId,
    pub quantity: u32,
    /// Of these, picked and not yet shipped.
    pub picked: u32,
    pub shipped: u32,
}

impl Claim {
    /// Units neither picked nor shipped.
    pub fn open(&self) -> u32 {
        self.quantity - self.picked - self.shipped
    }
}

/// The part of a reservation that lies in this shard.
#[derive(Clone, PartialEq, Debug)]
pub struct Reservation {
    pub channel: ChannelId,
    pub state: State,
    /// Sku of its first line; the shard that owns it reports the expiry.
    pub anchor: SkuId,
    pub expires_at: Millis,
    /// When it was fulfilled, released or expired; none while active.
    pub ended: Lsn,
    pub claims: SmallVec<[Claim; 1]>,
}

impl Reservation {
    pub fn outcome(&self) -> Outcome {
        Outcome {
            code: Code::Ok,
            state: self.state,
            expires_at: if self.state == State::Held { self.expires_at } else { Millis(0) },
        }
    }

    fn is_remembered(&self, at: Lsn) -> bool {
        self.ended == Lsn::NONE || self.ended.0 + limit::ENDED_RESERVATION_LSNS >= at.0
    }
}

/// All reservations with a part in this shard.
#[derive(Default, Debug)]
pub struct Reservations {
    parts: HashMap<ReservationId, Reservation>,
    /// Holds by end; entries whose hold was confirmed, extended or released meanwhile are stale.
    ends: BinaryHeap<Reverse<(Millis, ReservationId)>>,
    ended: VecDeque<(Lsn, ReservationId)>,
    held: usize,
    active: usize,
}

impl Reservations {
    /// The part, unless it ended so long ago that it counts as unknown.
    pub fn find(&self, id: ReservationId, at: Lsn) -> Option<&Reservation> {
        self.parts.get(&id).filter(|reservation| reservation.is_remembered(at))
    }

    pub fn iter(&self) -> impl Iterator<Item = (ReservationId, &Reservation)> {
        self.parts.iter().map(|(id, reservation)| (*id, reservation))
    }

    /// Held and confirmed ones.
    pub fn active(&self) -> usize {
        self.active
    }

    pub(super) fn part_mut(&mut self, id: ReservationId) -> Option<&mut Reservation> {
        self.parts.get_mut(&id)
    }

    pub(super) fn claim_mut(
        &mut self,
        id: ReservationId,
        sku: SkuId,
        node: NodeId,
    ) -> Option<&mut Claim> {
        let part = self.parts.get_mut(&id)?;
        part.claims.iter_mut().find(|claim| claim.sku == sku && claim.node == node)
    }

    pub(super) fn insert(&mut self, id: ReservationId, reservation: Reservation) {
        if reservation.state == State::Held {
            self.held += 1;
            self.ends.push(Reverse((reservation.expires_at, id)));
        }
        if reservation.state.is_active() {
            self.active += 1;
        } else {
            self.ended.push_back((reservation.ended, id));
        }
        let old = self.parts.insert(id, reservation);
        // Only a part that is no longer remembered may be replaced, and its place in `ended` goes by its LSN.
        assert!(old.is_none_or(|old| !old.state.is_active()), "reservation {id} replaces an active one");
    }

    /// Gives a part its new state and, for an extension, its new end.
    pub(super) fn step(&mut self, id: ReservationId, state: State, expires_at: Millis, at: Lsn) {
        let Some(part) = self.parts.get_mut(&id) else { return };
        if part.state == State::Held && state != State::Held {
            self.held -= 1;
        }
        if part.state.is_active() && !state.is_active() {
            self.active -= 1;
            part.ended = at;
            self.ended.push_back((at, id));
        }
        part.state = state;
        if state == State::Held && expires_at != part.expires_at {
            part.expires_at = expires_at;
            self.ends.push(Reverse((expires_at, id)));
        }
        self.compact();
    }

    /// Drops the memory of reservations that ended long ago.
    pub(super) fn forget(&mut self, at: Lsn) {
        while let Some((ended, id)) = self.ended.front().copied() {
            if ended.0 + limit::ENDED_RESERVATION_LSNS >= at.0 {
                break;
            }
            self.ended.pop_front();
            if self.parts.get(&id).is_some_and(|part| part.ended == ended) {
                self.parts.remove(&id);
            }
        }
    }

    pub(super) fn take_due(&mut self, now: Millis, max: usize, shard: ShardOf, due: &mut Vec<ReservationId>) {
        let enough = due.len() + max;
        while due.len() < enough {
            match self.ends.peek() {
                Some(Reverse((end, id))) if *end <= now => {
                    let live = self
                        .parts
                        .get(id)
                        .is_some_and(|part| part.state == State::Held && part.expires_at == *end);
                    if live && shard.owns(self.parts[id].anchor) {
                        due.push(*id);
                    }
                    self.ends.pop();
                }
                _ => break,
            }
        }
    }

    pub(super) fn next_expiry(&self) -> Option<Millis> {
        self.ends.peek().map(|Reverse((end, _))| *end)
    }

    /// Stale entries never outnumber live ones by much.
    fn compact(&mut self) {
        if self.ends.len() > 2 * self.held + 4_096 {
            let parts = &self.parts;
            self.ends.retain(|Reverse((end, id))| {
                parts.get(id).is_some_and(|part| part.state == State::Held && part.expires_at == *end)
            });
        }
    }
}
