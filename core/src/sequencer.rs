//! The sequencer: the one place where commands get their order, their time and their LSN.
//!
//! It owns the catalogue and the idempotency window. It does not know stock: what it refuses, it refuses by
//! name, number and key only.

use std::collections::VecDeque;

use hashbrown::{HashMap, HashSet};

use crate::admission::{Admission, Window};
use crate::batch::{Batch, CatalogueChange, NO_VOTE, Slot, StampedFrame, Vote};
use crate::catalogue::{
    Catalogue, Defined, Definition, NO_TOKEN, NameKind, Principal, Role, check, check_event, check_reserve,
};
use crate::command::{Body, Command, Frame, Line, Read, Reserve, Verb};
use crate::drill::{Bug, planted};
use crate::event::{Redrive, StockEvent};
use crate::id::{Key, Lsn, Millis, NodeId, PrincipalId, ReservationId};
use crate::limit;
use crate::outcome::Code;
use crate::plan;

/// What became of a reservation, as the sequencer of several shards must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    Reserved(ReservationId),
    /// It was refused, so its id is free again.
    Refused(ReservationId),
    Ended(ReservationId, Lsn),
    /// Nothing more is to come of what has this LSN or an earlier one.
    UpTo(Lsn),
}

#[derive(Debug)]
pub struct Sequencer {
    pub catalogue: Catalogue,
    pub window: Window,
    /// Ids of reservations that some shard knows. With one shard that shard tells; with several, the ones
    /// that would get the new lines may not be the ones that know the id.
    /// Where it has ended, at which LSN; 0 while it has not.
    taken: HashMap<ReservationId, Lsn>,
    /// Ids of reservations on their way: what becomes of them is not known yet.
    pending: HashSet<ReservationId>,
    ended: VecDeque<(Lsn, ReservationId)>,
    /// Skus that tokens have made since the start.
    made_skus: HashMap<PrincipalId, u32>,
    learned: Lsn,
    last: Lsn,
    now: Millis,
    shards: u32,
}

impl<T> Batch<T> {
    /// Whether it should go on its way before more is added.
    pub fn is_full(&self) -> bool {
        self.commands >= limit::BATCH_COMMANDS || self.lines >= limit::BATCH_LINES
    }
}

impl Sequencer {
    /// Goes on after the command with LSN `last`, which took effect at `now`.
    pub fn new(catalogue: Catalogue, window: Window, last: Lsn, now: Millis, shards: u32) -> Sequencer {
        Sequencer {
            catalogue,
            window,
            taken: HashMap::new(),
            pending: HashSet::new(),
            ended: VecDeque::new(),
            made_skus: HashMap::new(),
            learned: Lsn::NONE,
            last,
            now,
            shards,
        }
    }

    /// Hears what became of a reservation, in the order of LSNs.
    pub fn learn(&mut self, learned: Learned) {
        if self.shards == 1 {
            return;
        }
        match learned {
            Learned::Reserved(id) => {
                self.pending.remove(&id);
                self.taken.insert(id, Lsn::NONE);
            }
            Learned::Refused(id) => {
                self.pending.remove(&id);
            }
            Learned::Ended(id, at) => {
                self.taken.insert(id, at);
                self.ended.push_back((at, id));
            }
            Learned::UpTo(lsn) => self.learned = self.learned.max(lsn),
        }
        while let Some((at, id)) = self.ended.front().copied() {
            // What is on its way may still bring one back.
            if at.0 + limit::ENDED_RESERVATION_LSNS >= self.learned.0 {
                break;
            }
            self.ended.pop_front();
            // A late confirmation may have brought it back since.
            if self.taken.get(&id) == Some(&at) {
                self.taken.remove(&id);
            }
        }
    }

    pub fn last(&self) -> Lsn {
        self.last
    }

    /// A batch at `now`, or at the time of the last one if the clock went back: time never does.
    pub fn open<T>(&mut self, now: Millis) -> Batch<T> {
        self.open_by(now, now)
    }

    /// The same, where a wall clock shows another time: it says which events lie in the future.
    pub fn open_by<T>(&mut self, now: Millis, wall: Millis) -> Batch<T> {
        self.now = self.now.max(now);
        Batch {
            now: self.now,
            wall: wall.max(self.now),
            rules: self.catalogue.rules(),
            before: self.last,
            last: self.last,
            frames: Vec::new(),
            change: None,
            votes: Vec::new(),
            keep_from: self.window.first(),
            commands: 0,
            lines: 0,
            defines: false,
        }
    }

    /// Whether commands behind this frame may be decided by other rules than those before it.
    pub fn may_change_rules<T>(&self, frame: &Frame<T>) -> bool {
        frame.commands.iter().any(|command| match &command.body {
            Body::Define(definition) => self.catalogue.may_change_rules(definition),
            _ => false,
        })
    }

    /// Gives every command of a frame its place. A frame that [may change rules](Sequencer::may_change_rules) must
    /// be the only one of its batch.
    pub fn push<T>(&mut self, batch: &mut Batch<T>, frame: Frame<T>) {
        let may_change_rules = self.may_change_rules(&frame);
        let mut slots = Vec::with_capacity(frame.commands.len());
        let guard = frame.commands.first().map(|command| &command.body);
        let barred = match guard {
            Some(Body::Read(Read::Unchanged { kind, name, version })) => {
                let now = self.catalogue.entry(*kind, name).map_or(0, |entry| entry.version());
                now != *version
            }
            _ => false,
        };
        for command in &frame.commands {
            slots.push(match barred {
                true => Slot::Door { code: Code::VersionConflict },
                false => self.place(batch, frame.principal, command, &frame.lines),
            });
        }
        batch.last = self.last;
        batch.defines |= slots.iter().any(|slot| matches!(slot, Slot::Defined { .. }));
        batch.commands += frame.commands.len();
        batch.lines += frame.line_count();
        if may_change_rules && slots.iter().any(|slot| matches!(slot, Slot::Defined { .. })) {
            let defined = frame.commands.iter().zip(&slots);
            let unbalances = defined.filter(|(_, slot)| matches!(slot, Slot::Defined { .. })).any(|(command, _)| {
                matches!(&command.body, Body::Define(definition) if definition.may_unbalance())
            });
            let (rules, principals) = (self.catalogue.rules(), self.catalogue.principals().to_vec());
            batch.change = Some(Box::new(CatalogueChange { rules, principals, unbalances }));
        }
        batch.frames.push(StampedFrame { frame, slots });
    }

    fn place<T>(
        &mut self,
        batch: &mut Batch<T>,
        principal: PrincipalId,
        command: &Command,
        lines: &[Line],
    ) -> Slot {
        match &command.body {
            Body::Read(Read::Name { kind, name }) => {
                return match self.catalogue.find(*kind, name) {
                    Some(id) => Slot::Known { id },
                    None => Slot::Door { code: kind.unknown() },
                };
            }
            Body::Read(Read::Explain(reserve)) => {
                let lines = reserve.lines(lines);
                return match check_reserve(&batch.rules, self.catalogue.sku_count(), reserve, lines) {
                    Code::Ok if batch.rules.plans(reserve) => {
                        Slot::Read { vote: self.vote_on(batch, reserve, lines) }
                    }
                    Code::Ok => Slot::Read { vote: NO_VOTE },
                    code => Slot::Door { code },
                };
            }
            // It stands first in its frame, which is not here where it does not hold.
            Body::Read(Read::Unchanged { .. }) => return Slot::Known { id: 0 },
            Body::Read(_) => return Slot::Read { vote: NO_VOTE },
            _ => {}
        }
        if !command.body.is_sound() {
            return Slot::Door { code: Code::Malformed };
        }
        if command.key != Key(0) {
            match self.window.admit(principal, command, batch.now) {
                Admission::New if self.is_ahead(command, batch.now, batch.wall) => {
                    let is_future = |event| self.check_event(batch, principal, event) == Code::EventInFuture;
                    let code = match &command.body {
                        Body::Event(event) if is_future(event) => Code::EventInFuture,
                        _ => Code::ClockAhead,
                    };
                    return Slot::Door { code };
                }
                Admission::New => {}
                Admission::Repeat(lsn) => return Slot::Repeat { lsn },
                Admission::Refused(code) => return Slot::Door { code },
            }
        }
        if let Body::Define(definition) = &command.body {
            if let Err(code) = self.catalogue.check_principal(principal, definition) {
                return Slot::Door { code };
            }
            let is_sku = matches!(**definition, Definition::Sku { .. }) && !self.is_administrator(principal);
            if is_sku && self.made_skus.get(&principal).is_some_and(|made| *made >= limit::SKUS_PER_TOKEN_MAX)
            {
                let known = self.catalogue.find(NameKind::Sku, definition.name());
                return known.map_or(Slot::Door { code: Code::TooManySkus }, |id| Slot::Known { id });
            }
            return match self.catalogue.define(definition) {
                Ok(Defined::Same(id)) => Slot::Known { id },
                // Definitions carry no key: refused ones leave no trace, and a repeat is simply the same.
                Err(code) => Slot::Door { code },
                Ok(Defined::Changed(id)) => {
                    if is_sku {
                        *self.made_skus.entry(principal).or_default() += 1;
                    }
                    Slot::Defined { lsn: self.stamp(principal, command), id }
                }
            };
        }
        if let Body::Reserve(reserve) = &command.body
            && (self.taken.contains_key(&reserve.id) || self.pending.contains(&reserve.id))
        {
            return Slot::Door { code: Code::KeyConflict };
        }
        if let Body::Event(event) = &command.body {
            // A fact that cannot be taken in as it is may be sent again, or corrected under its key.
            let by = if let Redrive::Adopted(by) = event.redrive { by } else { principal };
            if !self.may_tell_of(by, event.node) {
                return Slot::Door { code: Code::UnknownNode };
            }
            let code = self.check_event(batch, by, event);
            if code != Code::Ok {
                return Slot::Door { code };
            }
        }
        let lsn = self.stamp(principal, command);
        let code = match &command.body {
            // It was checked before it had a place.
            Body::Event(_) => Code::Ok,
            body => check(&batch.rules, self.catalogue.sku_count(), body, lines, batch.wall),
        };
        match code {
            Code::Ok => {
                if let Body::Reserve(reserve) = &command.body
                    && self.shards > 1
                {
                    self.pending.insert(reserve.id);
                }
                Slot::Execute { lsn, vote: self.vote(batch, &command.body, lines) }
            }
            code => Slot::Refused { lsn, code },
        }
    }

    /// Whether an event can be taken in as it is.
    fn check_event<T>(&self, batch: &Batch<T>, teller: PrincipalId, event: &StockEvent) -> Code {
        let teller = self.catalogue.principal(teller);
        let ahead_ms = teller.map_or(limit::CLOCK_AHEAD_MS_MAX, Principal::clock_ahead_ms);
        check_event(&batch.rules, self.catalogue.sku_count(), event, (batch.wall, ahead_ms))
    }

    fn is_administrator(&self, principal: PrincipalId) -> bool {
        self.catalogue.principal(principal).is_none_or(|principal| principal.role == Role::Admin)
    }

    /// Whether a command was issued before its time: by this clock, or where a moment outside binds it, by the wall clock
    /// where that is ahead.
    fn is_ahead(&self, command: &Command, now: Millis, wall: Millis) -> bool {
        let now = if command.is_bound() { now.max(wall) } else { now };
        command.issued() > now.plus(limit::ISSUED_AHEAD_MS_MAX)
    }

    /// Whether a principal may say what happened at a node, with its rights as they are now. The system may, and whoever
    /// the catalogue does not know.
    fn may_tell_of(&self, principal: PrincipalId, node: NodeId) -> bool {
        self.catalogue.principal(principal).is_none_or(|principal| match principal.role {
            _ if principal.token_sha256 == NO_TOKEN => false,
            Role::Admin => true,
            Role::Warehouse => principal.nodes.contains(&node),
            Role::Channel => false,
        })
    }

    fn stamp(&mut self, principal: PrincipalId, command: &Command) -> Lsn {
        if planted(Bug::ReuseLsn) && self.last.0 % 64 == 63 {
            return self.last;
        }
        self.last = self.last.next();
        self.window.record(self.last, principal, command, self.now);
        self.last
    }

    /// Only a reservation over several shards, a step of some of its lines, its fulfilment and a late confirmation need
    /// the consent of each part: the parts of every other command decide alike, because they know alike. Which shards have a
    /// part of a reservation is not known here, so a step asks all.
    fn vote<T>(&self, batch: &mut Batch<T>, body: &Body, lines: &[Line]) -> u32 {
        let parts = match body {
            _ if self.shards == 1 => 1,
            Body::Reserve(reserve) => return self.vote_on(batch, reserve, reserve.lines(lines)),
            Body::Transition(step) if !step.lines.is_empty() || step.verb == Verb::Fulfil => self.shards,
            Body::Transition(step) if step.verb == Verb::Confirm && batch.rules.reacquires => self.shards,
            _ => 1,
        };
        if parts < 2 {
            return NO_VOTE;
        }
        batch.votes.push(Vote::new(parts));
        batch.votes.len() as u32 - 1
    }

    /// The same of a reservation.
    fn vote_on<T>(&self, batch: &mut Batch<T>, reserve: &Reserve, lines: &[Line]) -> u32 {
        let rules = &batch.rules;
        let parts = plan::shards(rules, reserve, lines, self.shards).count_ones();
        if parts < 2 {
            return NO_VOTE;
        }
        let planned = rules.channel(reserve.channel).filter(|_| rules.plans(reserve));
        batch.votes.push(match planned {
            Some(channel) => Vote::with_table(parts, plan::cells(rules, channel, lines)),
            None => Vote::new(parts),
        });
        batch.votes.len() as u32 - 1
    }
}
