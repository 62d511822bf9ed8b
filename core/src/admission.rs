//! Idempotency: the window of commands whose repeats are known.
//!
//! A command is known by its principal and key, a reservation also by its id. The window holds the last
//! commands by LSN, at most [`limit::IDEMPOTENCY_COMMANDS`] of them and none older than
//! [`limit::IDEMPOTENCY_MS`]. What drops out raises `floor`: a command issued at or before it may be a
//! repeat of something forgotten and is refused as too old, so no gap opens between "known" and "too old".
//! The window keeps no answers: a repeat is answered from the journal, where the first answer is.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

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

/// A name under which a command is known.
#[derive(Clone, Copy, Hash, PartialEq, Eq)]
enum Name {
    Key(PrincipalId, Key),
    Reservation(ReservationId),
}

/// What is kept of a command; all zeros for one without a key.
#[derive(Clone, Copy, Debug, Default)]
struct Record {
    key: Key,
    /// 0 unless it is a reservation.
    reservation: ReservationId,
    digest: u64,
    issued_at: Millis,
    principal: PrincipalId,
}

impl Record {
    fn is(&self, name: Name) -> bool {
        match name {
            Name::Key(principal, key) => self.principal == principal && self.key == key,
            Name::Reservation(id) => self.reservation == id,
        }
    }

    /// A client that uses its reservation's id as key, as ours does, costs one entry and not two.
    fn names(&self) -> [Option<Name>; 2] {
        let by_id = (self.reservation.0 != 0).then_some(Name::Reservation(self.reservation));
        let by_key = (self.reservation.0 != self.key.0).then_some(Name::Key(self.principal, self.key));
        [by_key, by_id]
    }

    fn of(principal: PrincipalId, command: &Command) -> Record {
        if command.key == Key(0) {
            return Record::default();
        }
        let reservation = match &command.body {
            Body::Reserve(reserve) => reserve.id,
            _ => ReservationId(0),
        };
        Record {
            key: command.key,
            reservation,
            digest: command.digest,
            issued_at: command.issued_at,
            principal,
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

#[derive(Debug)]
pub struct Window {
    size: WindowSize,
    /// LSNs by the hash of a name; the name itself stands in the record.
    by_name: HashTable<Lsn>,
    hasher: DefaultHashBuilder,
    /// One record an LSN; the front one has LSN `first`.
    records: VecDeque<Record>,
    first: Lsn,
    floor: Millis,
}

impl Window {
    /// A window whose first record will have LSN `next`. Its memory is taken and touched at once: it never
    /// grows while commands wait, and memory touched for the first time costs up to 5 us a page.
    pub fn new(size: WindowSize, next: Lsn) -> Window {
        let mut records = VecDeque::with_capacity(size.commands as usize + 1);
        records.resize(size.commands as usize, Record::default());
        records.clear();
        Window {
            size,
            by_name: HashTable::with_capacity(size.commands as usize),
            hasher: DefaultHashBuilder::default(),
            records,
            first: next,
            floor: Millis(0),
        }
    }

    /// The oldest LSN whose repeats are known; the journal keeps everything from here on.
    pub fn first(&self) -> Lsn {
        self.first
    }

    /// Commands received before `now` may have been forgotten, as after a restart with a cut journal.
    pub fn forget_before(&mut self, now: Millis) {
        self.floor = self.floor.max(now.plus(limit::ISSUED_AHEAD_MS_MAX));
    }

    fn find(&self, name: Name) -> Option<(Lsn, &Record)> {
        let record = |lsn: Lsn| &self.records[(lsn.0 - self.first.0) as usize];
        let lsn = *self.by_name.find(self.hasher.hash_one(name), |lsn| record(*lsn).is(name))?;
        Some((lsn, record(lsn)))
    }

    pub fn admit(&self, principal: PrincipalId, command: &Command, now: Millis) -> Admission {
        let asked = Record::of(principal, command);
        let [by_key, by_id] = asked.names();
        // A key may also be known as the id of a reservation that used it as key.
        let as_id = by_key.map(|_| Name::Reservation(ReservationId(asked.key.0)));
        for name in [by_key, by_id, as_id].into_iter().flatten() {
            let Some((lsn, first)) = self.find(name) else { continue };
            if name == Name::Reservation(ReservationId(asked.key.0))
                && asked.reservation.0 != asked.key.0
                && (first.principal, first.key) != (principal, asked.key)
            {
                // Somebody's reservation has this number as its id, not as its key.
                continue;
            }
            let same =
                first.principal == principal && (first.digest == asked.digest || planted(Bug::IgnoreDigest));
            return if same { Admission::Repeat(lsn) } else { Admission::Refused(Code::KeyConflict) };
        }
        if command.issued_at > now.plus(limit::ISSUED_AHEAD_MS_MAX) {
            Admission::Refused(Code::ClockAhead)
        } else if command.issued_at <= self.floor || now.since(command.issued_at) > self.size.ms {
            Admission::Refused(Code::KeyTooOld)
        } else {
            Admission::New
        }
    }

    /// Remembers the command that took `lsn`, which must be the next one; without a key only its place.
    pub fn record(&mut self, lsn: Lsn, principal: PrincipalId, command: &Command, now: Millis) {
        assert_eq!(lsn.0, self.first.0 + self.records.len() as u64, "LSNs are recorded in order");
        let record = Record::of(principal, command);
        self.records.push_back(record);
        if record.key != Key(0) {
            let (records, first, hasher) = (&self.records, self.first, &self.hasher);
            for name in record.names().into_iter().flatten() {
                // Only a table that must grow, which the room reserved above prevents, hashes again.
                self.by_name.insert_unique(hasher.hash_one(name), lsn, |lsn| {
                    let names = records[(lsn.0 - first.0) as usize].names();
                    hasher.hash_one(names[0].or(names[1]).expect("a record has a name"))
                });
            }
        }
        self.evict(now);
    }

    /// Drops what is too much or too old.
    fn evict(&mut self, now: Millis) {
        while let Some(record) = self.records.front().copied() {
            let keyless = record.key == Key(0);
            let old = keyless || now.since(record.issued_at) > self.size.ms;
            if !old && self.records.len() as u64 <= self.size.commands {
                break;
            }
            if !keyless {
                self.floor = self.floor.max(record.issued_at);
                for name in record.names().into_iter().flatten() {
                    let first = self.first;
                    if let Ok(entry) =
                        self.by_name.find_entry(self.hasher.hash_one(name), |lsn| *lsn == first)
                    {
                        entry.remove();
                    }
                }
            }
            self.records.pop_front();
            self.first = self.first.next();
        }
    }
}
