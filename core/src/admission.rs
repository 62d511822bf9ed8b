//! Idempotency: the window of commands whose repeats are known.
//!
//! A command is known by its principal and key, a reservation also by its id. The window holds the last
//! commands by LSN, at most [`limit::IDEMPOTENCY_COMMANDS`] of them and none older than
//! [`limit::IDEMPOTENCY_MS`]. What drops out raises its sender's floor: a command issued at or before it may be a
//! repeat of something forgotten and is refused as too old, so no gap opens between "known" and "too old".
//! The window keeps no answers: a repeat is answered from the journal, where the first answer is.

use std::collections::VecDeque;
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

/// A record's LSN, and in the lowest bit which of its numbers this entry is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place(u64);

impl Place {
    fn new(lsn: Lsn, number: usize) -> Place {
        Place(lsn.0 << 1 | number as u64)
    }

    fn lsn(self) -> Lsn {
        Lsn(self.0 >> 1)
    }

    fn number(self) -> usize {
        (self.0 & 1) as usize
    }
}

#[derive(Debug)]
pub struct Window {
    size: WindowSize,
    /// Where records are found by the hash of a number, their key or their id.
    by_number: HashTable<Place>,
    hasher: DefaultHashBuilder,
    /// One record an LSN; the front one has LSN `first`.
    records: VecDeque<Record>,
    first: Lsn,
    /// A command issued at or before this may be a repeat of what was forgotten: of anybody's ...
    floor: Millis,
    /// ... and of one principal's.
    floors: HashMap<PrincipalId, Millis>,
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
            // Room for both numbers of each: it never grows, though it may hash again to be rid of what was removed.
            by_number: HashTable::with_capacity(2 * size.commands as usize),
            hasher: DefaultHashBuilder::default(),
            records,
            first: next,
            floor: Millis(0),
            floors: HashMap::new(),
        }
    }

    /// The oldest LSN whose repeats are known; the journal keeps everything from here on.
    pub fn first(&self) -> Lsn {
        self.first
    }

    /// Commands issued up to then may have been forgotten, as after a restart with a cut journal.
    pub fn forget(&mut self, issued_at: Millis) {
        self.floor = self.floor.max(issued_at);
    }

    fn floor(&self, principal: PrincipalId) -> Millis {
        self.floors.get(&principal).copied().unwrap_or_default().max(self.floor)
    }

    fn at(&self, lsn: Lsn) -> &Record {
        &self.records[(lsn.0 - self.first.0) as usize]
    }

    /// The record with this number that is the one meant.
    fn find(&self, number: u128, is: impl Fn(&Record) -> bool) -> Option<Lsn> {
        let hash = self.hasher.hash_one(number);
        self.by_number.find(hash, |place| is(self.at(place.lsn()))).map(|place| place.lsn())
    }

    pub fn admit(&self, principal: PrincipalId, command: &Command, now: Millis) -> Admission {
        let asked = Record::of(principal, command);
        let same = |record: &Record| record.has_key_of(&asked) || record.has_id_of(&asked);
        let [key, id] = asked.numbers();
        let known = [key, id].into_iter().flatten().find_map(|number| {
            self.find(number, same)?;
            // What has its key speaks before what has its id.
            self.find(number, |record| record.has_key_of(&asked)).or_else(|| self.find(number, same))
        });
        if let Some(lsn) = known {
            let first = self.at(lsn);
            let same =
                first.principal == principal && (first.digest == asked.digest || planted(Bug::IgnoreDigest));
            return if same { Admission::Repeat(lsn) } else { Admission::Refused(Code::KeyConflict) };
        }
        if command.issued_at > now.plus(limit::ISSUED_AHEAD_MS_MAX) {
            Admission::Refused(Code::ClockAhead)
        } else if command.issued_at <= self.floor(principal) || now.since(command.issued_at) > self.size.ms {
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
            for (index, number) in record.numbers().into_iter().enumerate() {
                let Some(number) = number else { continue };
                let place = Place::new(lsn, index);
                self.by_number.insert_unique(hasher.hash_one(number), place, |place| {
                    let numbers = records[(place.lsn().0 - first.0) as usize].numbers();
                    hasher.hash_one(numbers[place.number()].expect("an entry is for a number"))
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
                let floor = self.floors.entry(record.principal).or_default();
                *floor = record.issued_at.max(*floor);
                for (index, number) in record.numbers().into_iter().enumerate() {
                    let Some(number) = number else { continue };
                    let place = Place::new(self.first, index);
                    let hash = self.hasher.hash_one(number);
                    if let Ok(entry) = self.by_number.find_entry(hash, |found| *found == place) {
                        entry.remove();
                    }
                }
            }
            self.records.pop_front();
            self.first = self.first.next();
        }
    }
}
