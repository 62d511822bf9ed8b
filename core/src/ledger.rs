//! The ledger: positions and reservations of one shard, as a pure state machine.
//!
//! Every command goes through two steps. `decide` looks at the state and answers with an outcome and the
//! movements that would bring it about; `settle` makes them so. Live execution runs both, recovery and the
//! checkpoint run `settle` alone on what the journal recorded, so there is one way only to change the state.
//! The ledger knows nothing of other shards, LSN assignment, idempotency, the journal or the view.

mod allocation;
mod cover;
mod event;
mod explain;
mod hash;
mod pace;
mod plan;
mod position;
mod promise;
mod reservation;
mod reserve;
mod settle;
mod state;
mod transition;

use hashbrown::{HashMap, HashSet};

use crate::bucket::{Bucket, Movement, Place};
use crate::catalogue::Rules;
use crate::command::{Body, Line, Read};
use crate::cover::Cover;
use crate::drill::{Bug, planted};
use crate::id::{ChannelId, Lsn, Millis, NodeId, ReservationId, ShardOf, SkuId};
use crate::label::Labels;
use crate::later::Item;
use crate::limit;
use crate::outcome::{Code, State};

pub use crate::vote::Ballot;
pub use allocation::Share;
pub use explain::{Trace, Why};
pub use hash::{StateHash, audit, audit_claims};
pub use pace::{Given, Pace};
pub use position::{Position, Positions};
pub use promise::{NEVER, Promise, Reason, THERE};
pub use reservation::{Claim, Reservation, Reservations};
pub(crate) use reserve::merge_movements;
pub use state::{PositionState, SkuState, SupplyState};

/// When a command takes effect.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub lsn: Lsn,
    pub now: Millis,
}

/// The answer to a command, besides its movements and shortages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    pub code: Code,
    /// State of the reservation it was about.
    pub state: State,
    /// When that hold ends; 0 where it has no end.
    pub expires_at: Millis,
    /// A reservation that counts against the open holds of its channel and customer.
    pub counted: bool,
    /// A confirmation that came late: the hold's time was over, and it took what there was.
    pub reacquired: bool,
    /// Held, but some of it is confirmed already.
    pub partly: bool,
    /// Whose reservation it is about, where it took effect.
    pub channel: ChannelId,
}

impl Outcome {
    pub fn of(code: Code) -> Outcome {
        Outcome {
            code,
            state: State::None,
            expires_at: Millis(0),
            counted: false,
            reacquired: false,
            partly: false,
            channel: ChannelId::SHARED,
        }
    }

    /// What took effect on a channel's reservation.
    pub fn ok(channel: ChannelId) -> Outcome {
        Outcome { channel, ..Outcome::of(Code::Ok) }
    }
}

/// What one shard's part of a command says, before it knows what the others say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    pub outcome: Outcome,
    pub ballot: Ballot,
    /// What becomes of it depends on what the others say.
    pub waits: bool,
}

impl Decision {
    /// What every part decides alike.
    fn alone(outcome: Outcome) -> Decision {
        Decision { outcome, ballot: Ballot::NONE, waits: false }
    }

    /// What cannot be done here cannot be done at all.
    fn refused(outcome: Outcome) -> Decision {
        Decision { outcome, ballot: Ballot::NO, waits: true }
    }
}

/// Nothing of it stays. Whose it was to be, not every part that refuses knows.
#[cold]
fn refuse(outcome: Outcome, effects: &mut Effects, mark: Mark) -> Outcome {
    effects.undo(mark);
    Outcome { channel: ChannelId::SHARED, ..outcome }
}

/// A line that could not be served: at most `available` of `quantity` units.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Short {
    /// Index of the line within its reservation.
    pub line: u16,
    pub sku: SkuId,
    pub quantity: u32,
    pub available: u32,
}

/// Where decisions append what they would do. One set of arrays serves a whole batch.
#[derive(Default, Debug, Clone, PartialEq)]
pub struct Effects {
    pub movements: Vec<Movement>,
    pub shorts: Vec<Short>,
    pub promises: Vec<Promise>,
}

/// The effects of one command, within arrays that serve many.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Told<'a> {
    pub movements: &'a [Movement],
    pub shorts: &'a [Short],
    pub promises: &'a [Promise],
}

/// How long the arrays of [`Effects`] were.
#[derive(Default, Clone, Copy, Debug)]
pub struct Mark {
    pub movements: usize,
    pub shorts: usize,
    pub promises: usize,
}

impl Effects {
    /// All of them, where they are of one command.
    pub fn told(&self) -> Told<'_> {
        Told { movements: &self.movements, shorts: &self.shorts, promises: &self.promises }
    }

    pub fn mark(&self) -> Mark {
        Mark { movements: self.movements.len(), shorts: self.shorts.len(), promises: self.promises.len() }
    }

    pub fn clear(&mut self) {
        self.movements.clear();
        self.shorts.clear();
        self.promises.clear();
    }

    /// Takes back what would have been done since.
    pub fn undo(&mut self, mark: Mark) {
        self.movements.truncate(mark.movements);
        self.promises.truncate(mark.promises);
    }
}

/// A position as a reader sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PositionAnswer {
    /// By bucket number, the first eight on-hand buckets and inbound (all supplies together); last, allocated.
    pub units: [i64; 10],
}

/// What a read found.
#[derive(Clone, PartialEq, Debug)]
pub enum Answer {
    Position(PositionAnswer),
    /// Each claim with when it is there.
    Reservation {
        outcome: Outcome,
        claims: Vec<(Claim, Millis)>,
        labels: Labels,
    },
    /// Reservations with a part here that have a text, and whether they have ended.
    Found(Vec<(bool, ReservationId)>),
    Allocations(Vec<Share>),
    Explanation {
        decision: Decision,
        effects: Effects,
        traces: Vec<Trace>,
    },
}

/// What a sku has besides its positions; most skus have none of it.
#[derive(Default, Debug, Clone, PartialEq)]
struct Extra {
    supplies: Vec<SupplyState>,
    shares: allocation::Shares,
    /// Who claims what is to come, and where; the oldest first.
    waiting: Vec<(NodeId, ReservationId)>,
    /// Units that channels wait for.
    backordered: Vec<Backordered>,
    /// Units that channels claim of groups.
    of_groups: Vec<(ChannelId, NodeId, i64)>,
    /// Last count of a node: when it was taken.
    counted: Vec<(NodeId, Millis)>,
    /// Earlier physical changes, for counts that arrive late; the latest one lies in the position.
    recent: Vec<Change>,
    /// Changes up to here may have been forgotten.
    horizon: Millis,
}

/// What a channel's reservations wait for.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Backordered {
    channel: ChannelId,
    units: i64,
    /// Its entries of [`Extra::waiting`].
    waiters: i64,
}

impl Extra {
    /// What a channel waits for.
    fn backordered(&self, channel: ChannelId) -> Backordered {
        let found = self.backordered.iter().find(|other| other.channel == channel);
        found.copied().unwrap_or(Backordered { channel, units: 0, waiters: 0 })
    }
}

/// A change of what is on hand: when it happened and by how much.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Change {
    node: NodeId,
    occurred_at: Millis,
    units: i64,
}

/// Limits that were met.
#[derive(Default, Clone, Copy, PartialEq, Debug)]
struct Full {
    groups: bool,
    waiting: bool,
}

/// The state of the skus of one shard.
#[derive(Debug)]
pub struct Ledger {
    shard: ShardOf,
    positions: Positions,
    extras: HashMap<SkuId, Extra>,
    reservations: Reservations,
    /// Balance of the outside accounts (supplier, customer, loss, transit), by bucket number less 9.
    outside: [i64; 4],
    dirty: Vec<(SkuId, NodeId)>,
    /// Allocations, and numbers of what is to come, of which readers are told anew.
    dirty_rows: Vec<Place>,
    /// Skus to be balanced, and those of them that nobody was told of yet.
    unbalanced: HashSet<SkuId>,
    to_balance: Vec<SkuId>,
    sweep: allocation::Sweep,
    candidates: Vec<reserve::Candidate>,
    /// What candidates have in the pools of a channel, side by side.
    drawn: Vec<i64>,
    /// What supplies have for a line.
    coming: Vec<promise::Coming>,
    /// What may be taken for a line where units are claimed of groups.
    cover: Option<Cover>,
    /// Limits because of which units were not claimed: of groups, and of those who wait.
    full: Full,
    /// Entries of all [`Extra::waiting`].
    waiting: usize,
    takes: Vec<reserve::Take>,
    /// The same, of groups.
    taken_of_groups: Vec<(SkuId, NodeId, i64)>,
    /// Nodes that go last for this command, and by how many days.
    late: Vec<(NodeId, u8)>,
    /// What came of trying a line for a plan; kept for its memory.
    tried: Effects,
    pub pace: Pace,
}

impl Ledger {
    pub fn new(shard: ShardOf) -> Ledger {
        Ledger {
            shard,
            positions: Positions::default(),
            extras: HashMap::new(),
            reservations: Reservations::default(),
            outside: [0; 4],
            dirty: Vec::new(),
            dirty_rows: Vec::new(),
            unbalanced: HashSet::new(),
            to_balance: Vec::new(),
            sweep: allocation::Sweep::default(),
            candidates: Vec::new(),
            drawn: Vec::new(),
            coming: Vec::new(),
            cover: None,
            full: Full::default(),
            waiting: 0,
            takes: Vec::new(),
            taken_of_groups: Vec::new(),
            late: Vec::new(),
            tried: Effects::default(),
            pace: Pace::default(),
        }
    }

    pub fn shard(&self) -> ShardOf {
        self.shard
    }

    pub fn position(&self, sku: SkuId, node: NodeId) -> Option<&Position> {
        if self.shard.owns(sku) { self.positions.get(self.shard.row(sku), node) } else { None }
    }

    pub fn reservations(&self) -> &Reservations {
        &self.reservations
    }

    /// Decides a command without changing anything a reader could see. `None`: this shard has no part in it.
    /// What comes of it, [`Ledger::conclude`] says once all parts have said what they have.
    pub fn decide(
        &mut self,
        moment: Moment,
        rules: &Rules,
        body: &Body,
        lines: &[Line],
        effects: &mut Effects,
    ) -> Option<Decision> {
        match body {
            Body::Reserve(reserve) => {
                self.decide_reserve(moment, rules, (reserve, reserve.lines(lines)), effects, None, None)
            }
            Body::Transition(transition) => self.decide_transition(moment, rules, transition, effects),
            Body::Expire(id) => self.decide_expiry(moment, *id, effects).map(Decision::alone),
            Body::Event(event) => {
                let owned = self.shard.owns(event.sku);
                owned.then(|| Decision::alone(self.decide_event(moment, rules, event, effects)))
            }
            Body::Allocate(allocate) => {
                let owned = self.shard.owns(allocate.sku);
                owned.then(|| Decision::alone(self.decide_allocate(rules, allocate, effects)))
            }
            Body::Balance(sku) => {
                let owned = self.shard.owns(*sku);
                owned.then(|| Decision::alone(self.decide_balance(moment.now, rules, *sku, effects)))
            }
            Body::Define(_) | Body::Read(_) => None,
        }
    }

    /// The outcome of a decision, where `said` is what all parts said together; of what is refused, nothing that was
    /// to be done since `mark` stays.
    pub fn conclude(
        body: &Body,
        decision: Decision,
        said: Ballot,
        effects: &mut Effects,
        mark: Mark,
    ) -> Outcome {
        if planted(Bug::SkipRollBack) && !decision.ballot.says(Ballot::NO) && said.says(Ballot::NO) {
            return decision.outcome;
        }
        let outcome = match body {
            Body::Reserve(reserve) => Ledger::conclude_reserve(reserve, decision.outcome, said),
            Body::Transition(transition) if decision.waits => {
                Ledger::conclude_transition(transition, decision.outcome, said)
            }
            _ => decision.outcome,
        };
        if outcome.code == Code::Ok { outcome } else { refuse(outcome, effects, mark) }
    }

    /// Answers a read of this shard's state; `None`: this shard has no part in it.
    pub fn read(&self, lsn: Lsn, read: &Read) -> Option<Answer> {
        match *read {
            Read::Position { sku, node } => {
                self.shard.owns(sku).then(|| Answer::Position(self.position_answer(sku, node)))
            }
            Read::Reservation { id, scope } => {
                let reservation = self.reservations.find(id, lsn)?;
                if scope.is_some_and(|channel| channel != reservation.channel) {
                    return None;
                }
                Some(Answer::Reservation {
                    outcome: reservation.outcome(),
                    claims: reservation.claims.iter().map(|claim| (*claim, self.due(claim))).collect(),
                    labels: self.reservations.labels(id).clone(),
                })
            }
            Read::Find { kind, ref text, ref whose } => {
                Some(Answer::Found(self.reservations.with_text(lsn, kind, text, whose)))
            }
            Read::Allocations { sku, channel } => self.shard.owns(sku).then(|| {
                let shares = self.extras.get(&sku).into_iter().flat_map(|extra| extra.shares.iter());
                let asked = shares.filter(|share| channel.is_none_or(|channel| channel == share.channel));
                Answer::Allocations(asked.collect())
            }),
            Read::Explain(_) | Read::Name { .. } | Read::Unchanged { .. } => None,
        }
    }

    fn position_answer(&self, sku: SkuId, node: NodeId) -> PositionAnswer {
        let mut answer = PositionAnswer::default();
        if let Some(position) = self.position(sku, node) {
            for bucket in crate::bucket::ON_HAND {
                let at = if bucket == Bucket::Allocated { 9 } else { bucket as usize };
                answer.units[at] = position.units(bucket);
            }
        }
        if let Some(extra) = self.extras.get(&sku) {
            for supply in extra.supplies.iter().filter(|supply| supply.node == node) {
                answer.units[Bucket::Inbound as usize] += i64::from(supply.quantity);
            }
        }
        answer
    }

    /// What readers are told of a position: the units free, negative those claimed of a group; where there are none, how many of the allocated units are
    /// really there (a deficit takes from them all), as -1 less that many.
    pub fn offer(&self, sku: SkuId, position: &Position) -> i64 {
        let free = self.free(sku, position);
        if free >= 0 || position.node().is_group() { free } else { -1 - (free + position.allocated()).max(0) }
    }

    /// When a claim's units are there.
    fn due(&self, claim: &Claim) -> Millis {
        self.promised_at(claim.sku, claim.node, claim.pool)
    }

    /// Appends commands that are due: up to `expiries` holds whose time is over at `now`, up to `balances` skus to be
    /// balanced. Each is told once; the caller brings it into the order.
    pub fn take_due(&mut self, now: Millis, (expiries, balances): (usize, usize), due: &mut Vec<Body>) {
        self.reservations.take_due(now, expiries, self.shard, due);
        if let Some(rules) = self.sweep.rules.clone() {
            self.sweep(now, &rules);
        }
        let enough = due.len().saturating_add(balances);
        while due.len() < enough
            && let Some(sku) = self.to_balance.pop()
        {
            due.push(Body::Balance(sku));
        }
    }

    /// When something may be due again.
    pub fn next_due(&self) -> Option<Millis> {
        let minute = match (&self.sweep.rules, self.sweep.next) {
            (None, _) => None,
            (Some(_), Some(_)) => Some(Millis(0)),
            (Some(_), None) => Some(Millis((self.sweep.minute + 1) * limit::MINUTE_MS)),
        };
        let expiry = self.reservations.next_expiry();
        expiry.into_iter().chain(minute).min()
    }

    /// Calls `publish` with what each place offers now that changed since the last call: a position's
    /// [`Ledger::offer`], an allocation's units, a number of the [row](crate::later) of what is to come.
    pub fn drain_changed(&mut self, mut publish: impl FnMut(Place, i64)) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for (sku, node) in dirty.drain(..) {
            let row = self.shard.row(sku);
            if let Some(position) = self.positions.get_mut(row, node) {
                position.set_dirty(false);
                let position = self.positions.get(row, node).expect("it was there just now");
                publish(Place { sku, node, pool: ChannelId::SHARED }, self.offer(sku, position));
            }
        }
        self.dirty = dirty;
        let mut places = std::mem::take(&mut self.dirty_rows);
        places.sort_unstable();
        places.dedup();
        for place in places.drain(..) {
            let number = match place.pool {
                ChannelId::SUPPLIES => self.later(place.sku, Item::at(place.node.0)),
                channel => self.share(place.sku, channel, place.node),
            };
            publish(place, number);
        }
        self.dirty_rows = places;
    }

    /// Positions with less stock than claims.
    pub fn shortages(&self) -> usize {
        let positions = self.positions.rows().flat_map(|(_, positions)| positions);
        positions.filter(|position| position.units(Bucket::Free) < 0).count()
    }

    /// Calls `publish` with what every place offers: what a new view starts from.
    pub fn all_offers(&self, mut publish: impl FnMut(Place, i64)) {
        for (row, positions) in self.positions.rows() {
            let sku = self.shard.sku(row);
            for position in positions {
                let place = Place { sku, node: position.node(), pool: ChannelId::SHARED };
                publish(place, self.offer(sku, position));
            }
        }
        for (sku, extra) in &self.extras {
            for share in extra.shares.iter() {
                publish(Place { sku: *sku, node: share.node, pool: share.channel }, i64::from(share.units));
            }
            for item in self.all_later(*sku) {
                publish(item.place(*sku), self.later(*sku, item));
            }
        }
    }
}
