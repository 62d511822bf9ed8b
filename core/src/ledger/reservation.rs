//! Reservations of one shard: claims by id, the order in which holds end, and the memory of ended ones.
//!
//! A reservation over several shards has a part in each, with the same head; every step is applied by all
//! parts at the same LSN, so the heads stay equal without anybody talking.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::bucket::{Bucket, Place};
use crate::command::Body;
use crate::drill::{Bug, planted};
use crate::id::{ChannelId, Lsn, Millis, NodeId, ReservationId, ShardOf, SkuId};
use crate::label::{Label, LabelKind, Labels, Whose};
use crate::ledger::{Moment, Outcome};
use crate::limit;
use crate::outcome::State;

/// Units of one sku at one node and from one pool that belong to a reservation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    pub sku: SkuId,
    pub node: NodeId,
    /// Whose allocation they go back to, else [`ChannelId::SHARED`].
    pub pool: ChannelId,
    pub quantity: u32,
    /// Of these, held and not yet confirmed.
    pub held: u32,
    /// Picked and not yet shipped.
    pub picked: u32,
    pub shipped: u32,
}

impl Claim {
    /// Nothing, at a place.
    pub(super) fn none(Place { sku, node, pool }: Place) -> Claim {
        Claim { sku, node, pool, quantity: 0, held: 0, picked: 0, shipped: 0 }
    }

    pub fn place(&self) -> Place {
        Place { sku: self.sku, node: self.node, pool: self.pool }
    }

    /// Units confirmed, neither picked nor shipped.
    pub fn confirmed(&self) -> u32 {
        self.quantity - self.held - self.picked - self.shipped
    }

    /// Units in one of the buckets that claims can stand in.
    pub fn units(&self, bucket: Bucket) -> u32 {
        match bucket {
            Bucket::Held => self.held,
            Bucket::Confirmed => self.confirmed(),
            Bucket::Picked => self.picked,
            _ => 0,
        }
    }
}

/// The part of a reservation that lies in this shard.
#[derive(Clone, PartialEq, Debug)]
pub struct Reservation {
    pub channel: ChannelId,
    pub state: State,
    /// Held, but some of it is confirmed already.
    pub partly: bool,
    /// Sku of its first line; the shard that owns it has a part, an empty one if need be, and reports the expiry.
    pub anchor: SkuId,
    /// While held, when the hold ends, and while confirmed, since when it is, both in milliseconds; once ended, at
    /// which LSN. One field for all keeps the part of a single claim, with its id, at one cache line.
    until: u64,
    /// Sorted by place.
    pub claims: SmallVec<[Claim; 1]>,
}

const _: () = assert!(size_of::<(ReservationId, Reservation)>() == 64);

impl Reservation {
    /// A part in any state; `at` is when its hold ends, or since when it is confirmed, `ended` once it has ended.
    pub fn new(
        channel: ChannelId,
        state: State,
        anchor: SkuId,
        (at, ended): (Millis, Lsn),
        claims: SmallVec<[Claim; 1]>,
    ) -> Reservation {
        let until = match state {
            State::Held | State::Confirmed => at.0,
            _ => ended.0,
        };
        Reservation { channel, state, partly: false, anchor, until, claims }
    }

    /// The claims of a sku at a node, one a pool.
    pub fn claims_at(&self, sku: SkuId, node: NodeId) -> &[Claim] {
        let at = self.claims.partition_point(|claim| (claim.sku, claim.node) < (sku, node));
        let len = self.claims[at..].partition_point(|claim| (claim.sku, claim.node) == (sku, node));
        &self.claims[at..at + len]
    }

    /// Moves units of a claim from one pool to another: held and confirmed.
    pub(super) fn shift_pool(
        &mut self,
        (sku, node): (SkuId, NodeId),
        (from, to): (ChannelId, ChannelId),
        (held, confirmed): (u32, u32),
    ) {
        for (pool, sign) in [(from, -1), (to, 1i64)] {
            let place = Place { sku, node, pool };
            let at = self.claims.partition_point(|claim| claim.place() < place);
            if self.claims.get(at).map(Claim::place) != Some(place) {
                self.claims.insert(at, Claim::none(place));
            }
            let claim = &mut self.claims[at];
            let shifted = |units: u32, by: u64| (i64::from(units) + sign * by as i64) as u32;
            claim.quantity = shifted(claim.quantity, u64::from(held) + u64::from(confirmed));
            claim.held = shifted(claim.held, u64::from(held));
            if claim.quantity == 0 {
                self.claims.remove(at);
            }
        }
    }

    /// Whether some of it is to come yet.
    pub(super) fn is_backordered(&self) -> bool {
        self.claims.iter().any(|claim| claim.pool.is_supply())
    }

    /// Whether some of it is claimed of a group, and the node not chosen.
    pub(super) fn is_open(&self) -> bool {
        self.claims.iter().any(|claim| claim.node.is_group())
    }

    /// Whether confirmed units of it may be picked and shipped.
    pub fn is_confirmed(&self) -> bool {
        self.state == State::Confirmed || (self.state == State::Held && self.partly)
    }

    /// When the hold ends; 0 where it has no end.
    pub fn expires_at(&self) -> Millis {
        Millis(if self.state == State::Held { self.until } else { 0 })
    }

    /// Since when it is confirmed; 0 where it is not, or where that is not known. It is no part of the state hash.
    pub fn confirmed_at(&self) -> Millis {
        Millis(if self.state == State::Confirmed { self.until } else { 0 })
    }

    /// When it was fulfilled, released or expired; none while active.
    pub fn ended(&self) -> Lsn {
        Lsn(if self.state.is_active() { 0 } else { self.until })
    }

    pub fn outcome(&self) -> Outcome {
        let expires_at = self.expires_at();
        Outcome { state: self.state, expires_at, partly: self.partly, ..Outcome::ok(self.channel) }
    }

    fn is_remembered(&self, at: Lsn) -> bool {
        self.state.is_active() || self.until + limit::ENDED_RESERVATION_LSNS >= at.0
    }
}

/// Reservations by id: parts lie in chunks that are never moved, and many small tables find them. When a
/// table grows, the pause is a fraction of a millisecond and touches little new memory; one map of two
/// million parts took 1.6 s, most of it for memory touched for the first time.
#[derive(Debug)]
struct Parts {
    tables: Box<[HashTable<u32>]>,
    hasher: DefaultHashBuilder,
    chunks: Vec<Vec<Slot>>,
    /// Places in chunks that were used and are free again.
    free: Vec<u32>,
}

type Slot = Option<(ReservationId, Reservation)>;

const _: () = assert!(size_of::<Slot>() == 64);

const TABLE_BITS: u32 = 10;
const CHUNK_BITS: u32 = 12;
const CHUNK: usize = 1 << CHUNK_BITS;

impl Default for Parts {
    fn default() -> Parts {
        Parts {
            tables: (0..1 << TABLE_BITS).map(|_| HashTable::new()).collect(),
            hasher: DefaultHashBuilder::default(),
            chunks: Vec::new(),
            free: Vec::new(),
        }
    }
}

fn slot(chunks: &[Vec<Slot>], at: u32) -> &Slot {
    &chunks[(at >> CHUNK_BITS) as usize][at as usize % CHUNK]
}

fn is(chunks: &[Vec<Slot>], at: u32, id: ReservationId) -> bool {
    slot(chunks, at).as_ref().is_some_and(|(found, _)| *found == id)
}

impl Parts {
    /// Ids are the clients' choice, often counted up: the product's top bits spread them. The parabola then
    /// gives some tables up to three times what others get, so that they do not all grow at the same time.
    fn table(id: ReservationId) -> usize {
        let folded = (id.0 as u64) ^ ((id.0 >> 64) as u64).rotate_left(32);
        let even = folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
        ((even * ((3 << 31) - even)) >> (63 - TABLE_BITS)) as usize
    }

    fn find(&self, id: ReservationId) -> Option<u32> {
        let hash = self.hasher.hash_one(id);
        self.tables[Parts::table(id)].find(hash, |at| is(&self.chunks, *at, id)).copied()
    }

    fn get(&self, id: ReservationId) -> Option<&Reservation> {
        slot(&self.chunks, self.find(id)?).as_ref().map(|(_, part)| part)
    }

    fn get_mut(&mut self, id: ReservationId) -> Option<&mut Reservation> {
        let at = self.find(id)?;
        let slot = &mut self.chunks[(at >> CHUNK_BITS) as usize][at as usize % CHUNK];
        slot.as_mut().map(|(_, part)| part)
    }

    fn insert(&mut self, id: ReservationId, part: Reservation) -> Option<Reservation> {
        if let Some(old) = self.get_mut(id) {
            return Some(std::mem::replace(old, part));
        }
        let at = match self.free.pop() {
            Some(at) => {
                self.chunks[(at >> CHUNK_BITS) as usize][at as usize % CHUNK] = Some((id, part));
                at
            }
            None => {
                if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
                    self.chunks.push(Vec::with_capacity(CHUNK));
                }
                let chunk = self.chunks.len() - 1;
                self.chunks[chunk].push(Some((id, part)));
                (chunk * CHUNK + self.chunks[chunk].len() - 1) as u32
            }
        };
        let (chunks, hasher) = (&self.chunks, &self.hasher);
        self.tables[Parts::table(id)].insert_unique(hasher.hash_one(id), at, |at| {
            hasher.hash_one(slot(chunks, *at).as_ref().expect("a table points to parts only").0)
        });
        None
    }

    fn remove(&mut self, id: ReservationId) {
        let hash = self.hasher.hash_one(id);
        let chunks = &self.chunks;
        if let Ok(entry) = self.tables[Parts::table(id)].find_entry(hash, |at| is(chunks, *at, id)) {
            let (at, _) = entry.remove();
            self.chunks[(at >> CHUNK_BITS) as usize][at as usize % CHUNK] = None;
            self.free.push(at);
        }
    }

    fn iter(&self) -> impl Iterator<Item = (&ReservationId, &Reservation)> {
        self.chunks.iter().flatten().flatten().map(|(id, part)| (id, part))
    }
}

/// Holds by the tick in which they end. Entries whose hold was confirmed, extended or released meanwhile are
/// stale and dropped when they are met, or all together when they become many.
#[derive(Default, Debug)]
struct Ends {
    ticks: BTreeMap<u64, Vec<ReservationId>>,
    len: usize,
}

impl Ends {
    /// The tick at whose beginning a hold has ended: never before its time.
    fn tick(end: Millis) -> u64 {
        end.0.div_ceil(limit::TICK_MS)
    }

    #[inline]
    fn push(&mut self, end: Millis, id: ReservationId) {
        self.ticks.entry(Ends::tick(end)).or_default().push(id);
        self.len += 1;
    }
}

/// All reservations with a part in this shard.
#[derive(Default, Debug)]
pub struct Reservations {
    parts: Parts,
    ends: Ends,
    ended: VecDeque<(Lsn, ReservationId)>,
    held: usize,
    active: usize,
    /// Holds that count against the limits of their channel, with their customer; in the shard that
    /// [counts](ShardOf::counts) for the channel.
    counted: HashMap<ReservationId, u64>,
    /// How many of them are open, by channel and customer; under customer 0 all of the channel.
    open_holds: HashMap<(ChannelId, u64), u32>,
    /// What reservations are called, of those that are called anything.
    labels: HashMap<ReservationId, Labels>,
    /// Who has a text: its hash, the channel, whether it has ended, the reservation.
    by_text: BTreeSet<(u64, ChannelId, bool, ReservationId)>,
}

impl Reservations {
    /// The part, unless it ended so long ago that it counts as unknown.
    pub fn find(&self, id: ReservationId, at: Lsn) -> Option<&Reservation> {
        self.parts.get(id).filter(|reservation| reservation.is_remembered(at))
    }

    pub fn iter(&self) -> impl Iterator<Item = (ReservationId, &Reservation)> {
        self.parts.iter().map(|(id, reservation)| (*id, reservation))
    }

    /// Held and confirmed ones.
    pub fn active(&self) -> usize {
        self.active
    }

    /// The part, remembered or not.
    pub(super) fn part(&self, id: ReservationId) -> Option<&Reservation> {
        self.parts.get(id)
    }

    /// Whether a reservation claims something that is to come to a node.
    pub(super) fn waits(&self, sku: SkuId, node: NodeId, id: ReservationId) -> bool {
        let part = self.parts.get(id).filter(|part| part.state.is_active());
        part.is_some_and(|part| part.claims_at(sku, node).iter().any(|claim| claim.pool.is_supply()))
    }

    pub(super) fn part_mut(&mut self, id: ReservationId) -> Option<&mut Reservation> {
        self.parts.get_mut(id)
    }

    /// Open holds of a channel, or of one of its customers.
    pub(super) fn open_holds(&self, channel: ChannelId, customer: u64) -> u32 {
        self.open_holds.get(&(channel, customer)).copied().unwrap_or(0)
    }

    /// The customer of a hold that counts here.
    pub fn counted(&self, id: ReservationId) -> Option<u64> {
        self.counted.get(&id).copied()
    }

    pub fn all_counted(&self) -> impl Iterator<Item = (ReservationId, u64)> {
        self.counted.iter().map(|(id, customer)| (*id, *customer))
    }

    /// Counts a hold as open.
    pub(super) fn count(&mut self, id: ReservationId, channel: ChannelId, customer: u64) {
        self.counted.insert(id, customer);
        *self.open_holds.entry((channel, 0)).or_default() += 1;
        if customer != 0 {
            *self.open_holds.entry((channel, customer)).or_default() += 1;
        }
    }

    /// The hold is open no longer.
    fn uncount(&mut self, id: ReservationId, channel: ChannelId) {
        let Some(customer) = self.counted.remove(&id) else { return };
        for customer in [Some(0), (customer != 0).then_some(customer)].into_iter().flatten() {
            let key = (channel, customer);
            let open = self.open_holds.get_mut(&key).expect("what is counted is open");
            *open -= 1;
            if *open == 0 {
                self.open_holds.remove(&key);
            }
        }
    }

    /// What a reservation is called.
    pub fn labels(&self, id: ReservationId) -> &Labels {
        static NONE: Labels = Labels::NONE;
        self.labels.get(&id).unwrap_or(&NONE)
    }

    pub fn all_labels(&self) -> impl Iterator<Item = (ReservationId, &Labels)> {
        self.labels.iter().map(|(id, labels)| (*id, labels))
    }

    /// Reservations that have a text, as many as are told at once: those that have not ended first, then by their ids.
    pub(super) fn with_text(
        &self,
        at: Lsn,
        kind: Option<LabelKind>,
        text: &str,
        whose: &Whose,
    ) -> Vec<(bool, ReservationId)> {
        let naming = [LabelKind::Key, LabelKind::Order, LabelKind::Reference];
        let kinds = kind.as_ref().map_or(&naming[..], std::slice::from_ref);
        let mut found = Vec::new();
        for kind in kinds {
            let hash = hash_of(*kind, text);
            let only = if let Whose::Channel(channel) = whose { Some(*channel) } else { None };
            let of_channel = |channel| {
                let first = (hash, channel, false, ReservationId(0));
                let last = (hash, channel, true, ReservationId(u128::MAX));
                self.by_text.range(first..=last)
            };
            let meant = |id: ReservationId| {
                let part = self.find(id, at).filter(|part| is_of(part, whose))?;
                (self.labels(id).get(*kind) == Some(text)).then_some((!part.state.is_active(), id))
            };
            // Channel by channel, so that no one's reservations of that name hide another's.
            let mut next = only.or_else(|| self.channel_with(hash, ChannelId(0)));
            let mut looks = limit::FIND_LOOKS_MAX;
            while let Some(channel) = next {
                let most = match whose {
                    Whose::Nodes(_) => looks.min(limit::FIND_LOOKS_PER_CHANNEL_MAX),
                    Whose::All | Whose::Channel(_) => looks.min(limit::FOUND_MAX),
                };
                let ids = of_channel(channel).map(|(.., id)| *id).take(most);
                found.extend(ids.inspect(|_| looks -= 1).filter_map(meant));
                next = match (only, channel.0.checked_add(1)) {
                    (None, Some(after)) if looks > 0 => self.channel_with(hash, ChannelId(after)),
                    _ => None,
                };
            }
        }
        found.sort_unstable();
        found.dedup();
        found.truncate(limit::FOUND_MAX);
        found
    }

    /// The first channel from one on that has reservations with a text.
    fn channel_with(&self, hash: u64, from: ChannelId) -> Option<ChannelId> {
        let range = (hash, from, false, ReservationId(0))..;
        self.by_text.range(range).next().filter(|entry| entry.0 == hash).map(|entry| entry.1)
    }

    /// Notes what a channel's reservation is called.
    fn label(&mut self, id: ReservationId, channel: ChannelId, labels: &Labels) {
        if labels.is_empty() {
            return;
        }
        self.labels.insert(id, labels.clone());
        let ended = self.parts.get(id).is_some_and(|part| !part.state.is_active());
        let entry = |label: &Label| (hash_of(label.kind, &label.text), channel, ended, id);
        self.by_text.extend(labels.iter().map(entry));
    }

    /// The same of one that has ended, and is not remembered any more.
    fn unlabel(&mut self, id: ReservationId, channel: ChannelId) {
        for label in self.labels.remove(&id).iter().flat_map(|labels| labels.iter()) {
            self.by_text.remove(&(hash_of(label.kind, &label.text), channel, true, id));
        }
    }

    pub(super) fn insert(&mut self, id: ReservationId, reservation: Reservation, labels: &Labels) {
        if reservation.state == State::Held {
            self.held += 1;
            if !(planted(Bug::ForgetEnds) && id.0.is_multiple_of(3)) {
                self.ends.push(reservation.expires_at(), id);
            }
        }
        if reservation.state.is_active() {
            self.active += 1;
        } else {
            self.ended.push_back((reservation.ended(), id));
        }
        let channel = reservation.channel;
        let old = self.parts.insert(id, reservation);
        if let Some(old) = &old {
            self.unlabel(id, old.channel);
        }
        self.label(id, channel, labels);
        // Only a part that is no longer remembered may be replaced, and its place in `ended` goes by its LSN.
        assert!(old.is_none_or(|old| !old.state.is_active()), "reservation {id} replaces an active one");
    }

    /// Gives a part its new state and, for an extension, its new end.
    pub(super) fn step(
        &mut self,
        id: ReservationId,
        state: State,
        expires_at: Millis,
        moment: Moment,
        partly: bool,
    ) {
        let Some(part) = self.parts.get_mut(id) else { return };
        let channel = part.channel;
        let closed = part.state == State::Held && state != State::Held;
        if closed {
            self.held -= 1;
        }
        match (part.state.is_active(), state.is_active()) {
            (true, false) => {
                self.active -= 1;
                self.ended.push_back((moment.lsn, id));
            }
            // Its place in `ended` goes by the LSN at which it had ended.
            (false, true) => self.active += 1,
            _ => {}
        }
        // An end that moves within its tick keeps its entry: no hold is ever told twice.
        if state == State::Held && Ends::tick(expires_at) != Ends::tick(part.expires_at()) {
            self.ends.push(expires_at, id);
        }
        part.until = match state {
            State::Held => expires_at.0,
            State::Confirmed if part.state == State::Confirmed => part.until,
            State::Confirmed => moment.now.0,
            _ => moment.lsn.0,
        };
        let was_active = std::mem::replace(&mut part.state, state).is_active();
        part.partly = partly;
        if was_active != state.is_active()
            && let Some(labels) = self.labels.get(&id)
        {
            for label in labels.iter() {
                let hash = hash_of(label.kind, &label.text);
                self.by_text.remove(&(hash, channel, !was_active, id));
                self.by_text.insert((hash, channel, was_active, id));
            }
        }
        if closed {
            self.uncount(id, channel);
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
            if let Some(part) = self.parts.get(id).filter(|part| part.ended() == ended) {
                self.unlabel(id, part.channel);
                self.parts.remove(id);
            }
        }
    }

    pub(super) fn take_due(&mut self, now: Millis, max: usize, shard: ShardOf, due: &mut Vec<Body>) {
        let enough = due.len().saturating_add(max);
        while due.len() < enough {
            let Some(mut first) = self.ends.ticks.first_entry() else { return };
            let tick = *first.key();
            let early = if planted(Bug::ExpireEarly) { 1_000 } else { 0 };
            if tick * limit::TICK_MS > now.0 + early {
                return;
            }
            match first.get_mut().pop() {
                None => {
                    first.remove();
                }
                Some(id) => {
                    self.ends.len -= 1;
                    if self.parts.get(id).is_some_and(|part| ends_in(part, tick) && shard.owns(part.anchor)) {
                        due.push(Body::Expire(id));
                    }
                }
            }
        }
    }

    pub(super) fn next_expiry(&self) -> Option<Millis> {
        self.ends.ticks.first_key_value().map(|(tick, _)| Millis(tick * limit::TICK_MS))
    }

    /// Stale entries never outnumber live ones by much.
    fn compact(&mut self) {
        if self.ends.len > 2 * self.held + 4_096 {
            let parts = &self.parts;
            self.ends.ticks.retain(|tick, ids| {
                ids.retain(|id| parts.get(*id).is_some_and(|part| ends_in(part, *tick)));
                !ids.is_empty()
            });
            self.ends.len = self.ends.ticks.values().map(Vec::len).sum();
        }
    }
}

/// Whether a part is one of those that are looked at.
fn is_of(part: &Reservation, whose: &Whose) -> bool {
    match whose {
        Whose::All => true,
        Whose::Channel(channel) => part.channel == *channel,
        // They are sorted.
        Whose::Nodes(nodes) => part.claims.iter().any(|claim| nodes.binary_search(&claim.node).is_ok()),
    }
}

fn hash_of(kind: LabelKind, text: &str) -> u64 {
    xxh3_64_with_seed(text.as_bytes(), kind as u64)
}

fn ends_in(part: &Reservation, tick: u64) -> bool {
    part.state == State::Held && Ends::tick(part.expires_at()) == tick
}
