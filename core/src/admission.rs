//! Idempotency: the window of commands whose repeats are known.
//!
//! A command is known by its principal and key, a reservation also by its id. The window holds at most
//! [`limit::IDEMPOTENCY_COMMANDS`] of them, none older than [`limit::IDEMPOTENCY_MS`], and none more than
//! [`limit::IDEMPOTENCY_LSNS`] behind. Where it is full, the principal that has most in it gives up its oldest: what one
//! sends makes nobody else's forgotten. What drops out raises its sender's floor: a command issued at or before it may be
//! a repeat of something forgotten and is refused as too old, so no gap opens between "known" and "too old".
//! The window keeps no answers: a repeat is answered from the journal, where the first answer is.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

use crate::command::{Body, Command};
use crate::drill::{Bug, planted};
use crate::id::{Key, Lsn, Millis, PrincipalId, ReservationId};
use crate::limit;
use crate::outcome::Code;

/// What the window says of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    New,
    /// The first one has this LSN; its answer is the answer.
    Repeat(Lsn),
    /// Turned away at the door.
    Refused(Code),
}

/// No record.
const NONE: u32 = u32::MAX;
/// Records given up after which it is looked again which is the oldest, and who has most.
const LOOK_EVERY: u64 = 4_096;
/// Records of one principal that are given up in one step.
const GIVEN_UP_AT_ONCE: u64 = 64;

/// What is kept of a command.
#[derive(Clone, Copy, Debug, Default)]
struct Record {
    key: Key,
    /// 0 unless it is a reservation.
    reservation: ReservationId,
    digest: u64,
    /// When its sender says it was sent.
    issued_at: Millis,
    /// When it got its place in the order.
    taken_at: Millis,
    lsn: Lsn,
    principal: PrincipalId,
    /// The next of the same principal, or of those that are free.
    next: u32,
}

impl Record {
    /// The numbers under which it is found, key and id; a client that uses its reservation's id as key, as ours
    /// does, costs one entry and not two.
    fn numbers(&self) -> [Option<u128>; 2] {
        let id = (self.reservation.0 != 0 && self.reservation.0 != self.key.0).then_some(self.reservation.0);
        [(self.key.0 != 0).then_some(self.key.0), id]
    }

    fn has_key_of(&self, asked: &Record) -> bool {
        self.principal == asked.principal && self.key == asked.key
    }

    fn has_id_of(&self, asked: &Record) -> bool {
        asked.reservation.0 != 0 && self.reservation == asked.reservation
    }

    fn of(principal: PrincipalId, command: &Command) -> Record {
        let reservation = match &command.body {
            Body::Reserve(reserve) => reserve.id,
            _ => ReservationId(0),
        };
        Record {
            key: command.key,
            reservation,
            digest: command.digest,
            issued_at: command.issued(),
            taken_at: Millis(0),
            lsn: Lsn::NONE,
            principal,
            next: NONE,
        }
    }
}

/// How much the window holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSize {
    pub commands: u64,
    pub ms: u64,
}

impl Default for WindowSize {
    fn default() -> WindowSize {
        WindowSize { commands: limit::IDEMPOTENCY_COMMANDS, ms: limit::IDEMPOTENCY_MS }
    }
}

/// Which record, and in the lowest bit which of its numbers this entry is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place(u32);

impl Place {
    fn new(record: u32, number: usize) -> Place {
        Place(record << 1 | number as u32)
    }

    fn record(self) -> u32 {
        self.0 >> 1
    }

    fn number(self) -> usize {
        (self.0 & 1) as usize
    }
}

/// A principal's records, in the order of their LSNs, and its floor.
#[derive(Clone, Copy, Debug)]
struct Share {
    oldest: u32,
    newest: u32,
    count: u32,
    /// What it issued at or before this may be a repeat of what was forgotten.
    floor: Millis,
}

impl Default for Share {
    fn default() -> Share {
        Share { oldest: NONE, newest: NONE, count: 0, floor: Millis(0) }
    }
}

#[derive(Debug)]
pub struct Window {
    size: WindowSize,
    /// Where records are found by the hash of a number, their key or their id.
    by_number: HashTable<Place>,
    hasher: DefaultHashBuilder,
    records: Vec<Record>,
    /// The first record that is free.
    free: u32,
    shares: HashMap<PrincipalId, Share>,
    /// Who has most, as of the last look and what came since.
    largest: PrincipalId,
    /// No record has an LSN before it.
    first: Lsn,
    next: Lsn,
    given_up: u64,
    /// The LSN at the last look.
    looked_at: Lsn,
    /// A command of anybody's issued at or before this may be a repeat of what was forgotten.
    floor: Millis,
}

impl Window {
    /// A window whose first record will have LSN `next` or a later one. Its memory is taken and touched at once: it never
    /// grows while commands wait, and memory touched for the first time costs up to 5 us a page.
    pub fn new(size: WindowSize, next: Lsn) -> Window {
        let count = u32::try_from(size.commands).expect("a window's places have 31 bits");
        let free = |at: u32| Record { next: if at + 1 < count { at + 1 } else { NONE }, ..Record::default() };
        Window {
            size,
            // Room for both numbers of each: it never grows, though it may hash again to be rid of what was removed.
            by_number: HashTable::with_capacity(2 * size.commands as usize),
            hasher: DefaultHashBuilder::default(),
            records: (0..count).map(free).collect(),
            free: if count > 0 { 0 } else { NONE },
            shares: HashMap::new(),
            largest: PrincipalId::SYSTEM,
            first: next,
            next,
            given_up: 0,
            looked_at: next,
            floor: Millis(0),
        }
    }

    /// No LSN before this one is asked for by a repeat; the journal keeps everything from here on.
    pub fn first(&self) -> Lsn {
        self.first
    }

    /// Commands issued up to then may have been forgotten, as after a restart with a cut journal.
    pub fn forget(&mut self, issued_at: Millis) {
        self.floor = self.floor.max(issued_at);
    }

    fn floor(&self, principal: PrincipalId) -> Millis {
        self.shares.get(&principal).map_or(Millis(0), |share| share.floor).max(self.floor)
    }

    fn at(&self, record: u32) -> &Record {
        &self.records[record as usize]
    }

    /// The record with this number that is the one meant.
    fn find(&self, number: u128, is: impl Fn(&Record) -> bool) -> Option<&Record> {
        let hash = self.hasher.hash_one(number);
        self.by_number.find(hash, |place| is(self.at(place.record()))).map(|place| self.at(place.record()))
    }

    /// Whether a command is new. Whether it was issued before its time is not looked at here.
    pub fn admit(&self, principal: PrincipalId, command: &Command, now: Millis) -> Admission {
        let asked = Record::of(principal, command);
        let same = |record: &Record| record.has_key_of(&asked) || record.has_id_of(&asked);
        let [key, id] = asked.numbers();
        let known = [key, id].into_iter().flatten().find_map(|number| {
            self.find(number, same)?;
            // What has its key speaks before what has its id.
            self.find(number, |record| record.has_key_of(&asked)).or_else(|| self.find(number, same))
        });
        if let Some(first) = known {
            let same =
                first.principal == principal && (first.digest == asked.digest || planted(Bug::IgnoreDigest));
            return if same { Admission::Repeat(first.lsn) } else { Admission::Refused(Code::KeyConflict) };
        }
        let issued_at = command.issued();
        let is_old = !command.is_bound() && now.since(issued_at) > self.size.ms;
        if issued_at <= self.floor(principal) || is_old {
            Admission::Refused(Code::KeyTooOld)
        } else {
            Admission::New
        }
    }

    /// Remembers the command that took `lsn`, which comes after all before it; one without a key leaves no trace.
    pub fn record(&mut self, lsn: Lsn, principal: PrincipalId, command: &Command, now: Millis) {
        assert!(lsn >= self.next, "LSNs are recorded in order");
        self.next = lsn.next();
        let look_every = (self.size.commands / 8).clamp(1, LOOK_EVERY);
        if self.given_up >= look_every || lsn.0 - self.looked_at.0 >= 2 * look_every {
            self.look(now);
        }
        if command.key == Key(0) {
            return;
        }
        if self.size.commands == 0 {
            let share = self.shares.entry(principal).or_default();
            share.floor = share.floor.max(command.issued());
            return;
        }
        self.give_up_old(principal, now);
        if self.free == NONE {
            // Who has more than anybody else; the sender itself, where it is one of them.
            let count = |of: PrincipalId| self.shares.get(&of).map_or(0, |share| share.count);
            let from = if count(principal) >= count(self.largest) { principal } else { self.largest };
            let from = if count(from) > 0 { from } else { self.look(now) };
            self.give_up_oldest(from);
        }
        let record = self.free;
        self.free = self.at(record).next;
        let new = Record { lsn, taken_at: now, ..Record::of(principal, command) };
        self.records[record as usize] = new;
        let share = self.shares.entry(principal).or_default();
        let before = std::mem::replace(&mut share.newest, record);
        share.count += 1;
        if before == NONE {
            share.oldest = record;
        } else {
            self.records[before as usize].next = record;
        }
        let count = self.shares[&principal].count;
        if self.shares.get(&self.largest).is_none_or(|largest| largest.count < count) {
            self.largest = principal;
        }
        let (records, hasher) = (&self.records, &self.hasher);
        for (index, number) in new.numbers().into_iter().enumerate() {
            let Some(number) = number else { continue };
            self.by_number.insert_unique(hasher.hash_one(number), Place::new(record, index), |place| {
                let numbers = records[place.record() as usize].numbers();
                hasher.hash_one(numbers[place.number()].expect("an entry is for a number"))
            });
        }
    }

    /// Whether a record is older than it may be.
    fn is_old(&self, record: &Record, now: Millis) -> bool {
        now.since(record.taken_at) > self.size.ms || record.lsn.0 + limit::IDEMPOTENCY_LSNS < self.next.0
    }

    /// Gives up what is too old of one principal.
    fn give_up_old(&mut self, principal: PrincipalId, now: Millis) {
        // A burst of an hour ago is not given up at once: nothing is ordered meanwhile.
        let until = self.given_up + GIVEN_UP_AT_ONCE;
        while self.given_up < until
            && let Some(share) = self.shares.get(&principal)
            && share.oldest != NONE
            && self.is_old(self.at(share.oldest), now)
        {
            self.give_up_oldest(principal);
        }
    }

    /// Gives up what is too old of all, and looks which is the oldest and who has most: it.
    fn look(&mut self, now: Millis) -> PrincipalId {
        (self.given_up, self.looked_at) = (0, self.next);
        let all: Vec<PrincipalId> = self.shares.keys().copied().collect();
        for principal in all {
            self.give_up_old(principal, now);
        }
        // Where more is old than was given up, the next command looks again.
        let is_left = |share: &&Share| share.oldest != NONE && self.is_old(self.at(share.oldest), now);
        self.given_up = self.shares.values().find(is_left).map_or(0, |_| LOOK_EVERY);
        let oldest =
            self.shares.values().filter(|share| share.oldest != NONE).map(|share| self.at(share.oldest).lsn);
        self.first = oldest.min().unwrap_or(self.next).max(self.first);
        let largest = self.shares.iter().max_by_key(|(principal, share)| (share.count, principal.0));
        self.largest = largest.map_or(PrincipalId::SYSTEM, |(principal, _)| *principal);
        self.largest
    }

    /// Forgets a principal's oldest record, and raises its floor.
    fn give_up_oldest(&mut self, principal: PrincipalId) {
        let share = self.shares.get_mut(&principal).expect("it has records");
        let record = share.oldest;
        let old = self.records[record as usize];
        share.floor = share.floor.max(old.issued_at);
        share.count -= 1;
        share.oldest = old.next;
        if old.next == NONE {
            share.newest = NONE;
        }
        for (index, number) in old.numbers().into_iter().enumerate() {
            let Some(number) = number else { continue };
            let place = Place::new(record, index);
            if let Ok(entry) =
                self.by_number.find_entry(self.hasher.hash_one(number), |found| *found == place)
            {
                entry.remove();
            }
        }
        self.records[record as usize] = Record { next: self.free, ..Record::default() };
        self.free = record;
        self.given_up += 1;
    }
}
