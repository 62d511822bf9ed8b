//! Backorders and preorders: claims on supplies, each with the date for which it is promised.
//!
//! A claim that waits stands in the pool of a supply ([`ChannelId::is_supply`]) at the supply's node, and no longer
//! when its units have come. A supply's claims are no more than its units when they are made; when it shrinks they may
//! be. What comes of a supply that is claimed, and what is free where claims are more than their supply brings, is owed
//! to those who wait at the node ([`Ledger::owed`]), before anybody else.
//!
//! Who waits is promised anew by the system ([`Body::Balance`](crate::command::Body::Balance)) when a supply slips,
//! shrinks or arrives, or a better one has units: by the priority of the channel, then by age. Each gets what is
//! owed, then of the supplies the earliest that has units left, else [`ChannelId::NO_SUPPLY`]. A new claim takes no
//! one's promise away. Claims stay at their node.
//!
//! Units that come to a node without being for those who claim a supply there are *unannounced*. They are kept for who
//! waits there until the next promises, made at once behind them, and serve those whose channel wants that
//! ([`Unannounced`]). They are counted as what came of no supply.

use smallvec::SmallVec;

use crate::bucket::{Bucket, Movement};
use crate::catalogue::{ChannelRule, Rules, Unannounced};
use crate::command::Line;
use crate::cover::Cover;
use crate::drill::{Bug, planted};
use crate::id::{ChannelId, Millis, NodeId, ReservationId, SkuId, SupplyId};
use crate::later::{self, Asked, Item, Supply};
use crate::ledger::{Backordered, Claim, Effects, Ledger, Position, SupplyState, merge_movements};
use crate::limit;

/// Why a promise is what it is now. Numbers are stable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Reason {
    /// It was made.
    Placed = 1,
    /// The units are there.
    Arrived = 2,
    /// They come sooner.
    Sooner = 3,
    /// They come later.
    Later = 4,
    /// They come at the same time, but with another supply.
    Moved = 5,
    /// No supply brings them.
    Lost = 6,
}

impl Reason {
    pub fn from_number(number: u8) -> Option<Reason> {
        use Reason::{Arrived, Later, Lost, Moved, Placed, Sooner};
        [Placed, Arrived, Sooner, Later, Moved, Lost].get(number.wrapping_sub(1) as usize).copied()
    }

    fn of(before: Millis, at: Millis) -> Reason {
        match at {
            THERE => Reason::Arrived,
            NEVER => Reason::Lost,
            _ if at < before => Reason::Sooner,
            _ if at > before => Reason::Later,
            _ => Reason::Moved,
        }
    }
}

/// When units are there that are there.
pub const THERE: Millis = Millis(0);
/// When units are there that no supply brings.
pub const NEVER: Millis = Millis(u64::MAX);

/// When a supply brings what it brings: without a date, never.
fn dated(eta: Millis) -> Millis {
    if eta == THERE { NEVER } else { eta }
}

/// A promise made or changed: units of a reservation, from which pool to which, and for when.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Promise {
    pub reservation: ReservationId,
    /// Whose it is.
    pub channel: ChannelId,
    pub sku: SkuId,
    pub node: NodeId,
    /// The same as `to` where only the date is another.
    pub from: ChannelId,
    pub to: ChannelId,
    pub held: u32,
    pub confirmed: u32,
    pub at: Millis,
    pub reason: Reason,
}

/// Units that a supply has left for a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Coming {
    pool: ChannelId,
    at: u32,
    units: i64,
}

impl SupplyState {
    /// Claims at a node that no supply serves.
    fn none(node: NodeId, pool: ChannelId) -> SupplyState {
        let (supply, eta) = (SupplyId(0), Millis(0));
        SupplyState { node, supply, pool, quantity: 0, claimed: 0, arrived: 0, eta, told: eta }
    }

    /// Where a pool's claims at a node are, or would be, among the supplies of a sku.
    pub(super) fn find(all: &[SupplyState], node: NodeId, pool: ChannelId) -> Result<usize, usize> {
        all.binary_search_by_key(&(node, pool), |open| (open.node, open.pool))
    }

    /// Whether it is what its sender calls so.
    pub(super) fn is(&self, supply: SupplyId, node: NodeId) -> bool {
        self.node == node && self.supply == supply && self.pool != ChannelId::NO_SUPPLY
    }

    /// Whether nothing is to come of it and nobody waits for it.
    pub(super) fn is_over(&self) -> bool {
        self.quantity == 0 && self.claimed == 0 && self.unannounced() == 0
    }

    /// Units that came of no supply, and of which nobody was promised anything yet.
    pub(super) fn unannounced(&self) -> i64 {
        if self.pool == ChannelId::NO_SUPPLY { i64::from(self.arrived) } else { 0 }
    }

    /// Units that came for those who claim it.
    fn come(&self) -> i64 {
        if self.pool == ChannelId::NO_SUPPLY { 0 } else { i64::from(self.arrived.min(self.claimed)) }
    }

    /// Units that nobody claims; negative where it shrank.
    fn open(&self) -> i64 {
        i64::from(self.quantity) - i64::from(self.claimed)
    }

    /// By which supplies are used: those without a date last.
    pub(super) fn order(&self) -> (bool, Millis, SupplyId) {
        match self.pool {
            ChannelId::NO_SUPPLY => (true, NEVER, SupplyId(u128::MAX)),
            _ => (self.eta == THERE, self.eta, self.supply),
        }
    }

    /// Whether it has units left that may be promised to somebody else: it has a date, and that has not passed.
    fn has_units(&self, now: Millis) -> bool {
        self.open() > 0 && self.eta > now
    }

    /// Units claimed of it that it does not bring: it shrank, or has no date any more, or they have come.
    fn over(&self) -> i64 {
        let missing = if self.eta == THERE { i64::from(self.claimed) } else { -self.open() };
        self.come().max(missing).max(0)
    }

    /// Units of it have come. Those claimed are for who claims them, even if others are still to come: how many are.
    pub(super) fn arrive(&mut self, units: i64) -> i64 {
        let before = self.arrived;
        let come = i64::from(before) + units;
        self.arrived = come.clamp(0, i64::from(self.claimed)) as u32;
        i64::from(self.arrived) - i64::from(before)
    }

    /// What readers are told of it.
    pub(super) fn items(&self) -> impl Iterator<Item = Item> + use<> {
        let number = self.pool.0 - ChannelId::SUPPLIES.0;
        let supply = [Item::Node(number), Item::Open(number), Item::Date(number)];
        let unserved = [Item::Unserved(self.node)];
        let items = if self.pool == ChannelId::NO_SUPPLY { &unserved[..] } else { &supply };
        let items: SmallVec<[Item; 3]> = items.into();
        items.into_iter()
    }
}

impl From<&SupplyState> for Supply {
    fn from(state: &SupplyState) -> Supply {
        let (node, eta, pool) = (state.node, state.eta, state.pool);
        Supply { node, open: state.open(), eta, order: state.supply.0, pool }
    }
}

impl Ledger {
    /// A number that readers are told of what is to come.
    pub(super) fn later(&self, sku: SkuId, item: Item) -> i64 {
        let Some(extra) = self.extras.get(&sku) else { return 0 };
        let supply = |number| {
            let pool = ChannelId(ChannelId::SUPPLIES.0 + number);
            extra.supplies.iter().find(|open| open.pool == pool)
        };
        match item {
            Item::Node(number) => supply(number).map_or(0, |open| i64::from(open.node.0)),
            Item::Open(number) => supply(number).map_or(0, SupplyState::open),
            Item::Date(number) => supply(number).map_or(0, |open| open.eta.min(limit::ETA_MAX).0 as i64),
            Item::Unserved(node) => {
                let none = |open: &&SupplyState| (open.node, open.pool) == (node, ChannelId::NO_SUPPLY);
                extra.supplies.iter().find(none).map_or(0, |open| i64::from(open.claimed))
            }
            Item::Waiting(channel) => {
                let Backordered { units, waiters, .. } = extra.backordered(channel);
                later::waiting(units, waiters)
            }
            Item::Waiters => extra.waiting.len() as i64,
        }
    }

    /// Everything that readers are told of what is to come to a sku.
    pub(super) fn all_later(&self, sku: SkuId) -> impl Iterator<Item = Item> {
        let extra = self.extras.get(&sku).into_iter();
        extra.flat_map(|extra| {
            let supplies = extra.supplies.iter().flat_map(SupplyState::items);
            let channels = extra.backordered.iter().map(|of| Item::Waiting(of.channel));
            let waiters = (!extra.waiting.is_empty()).then_some(Item::Waiters);
            supplies.chain(channels).chain(waiters)
        })
    }

    fn supplies_at(&self, sku: SkuId, node: NodeId) -> impl Iterator<Item = &SupplyState> {
        let all = self.extras.get(&sku).map_or(&[][..], |extra| &extra.supplies);
        let first = all.partition_point(|open| open.node < node);
        all[first..].iter().take_while(move |open| open.node == node)
    }

    /// When what stands in a pool of a sku is promised for.
    pub(super) fn promised_at(&self, sku: SkuId, node: NodeId, pool: ChannelId) -> Millis {
        if !pool.is_supply() {
            return THERE;
        }
        let mut supplies = self.supplies_at(sku, node);
        supplies.find(|open| open.pool == pool).map_or(NEVER, |open| dated(open.eta))
    }

    /// By which supplies of claims at one node are used.
    pub(super) fn supply_order(&self, claim: &Claim) -> (bool, Millis, SupplyId) {
        let mut supplies = self.supplies_at(claim.sku, claim.node);
        let none = (false, THERE, SupplyId(0));
        supplies.find(|open| open.pool == claim.pool).map_or(none, SupplyState::order)
    }

    /// Units claimed at a node that are owed by what is free there, if as many are.
    fn due_there(&self, sku: SkuId, node: NodeId) -> i64 {
        let (over, unannounced, claimed) = self.due_units(sku, node);
        claimed.min(over + unannounced)
    }

    /// At a node: units claimed that no supply brings or that have come, units that came unannounced, and all claimed.
    fn due_units(&self, sku: SkuId, node: NodeId) -> (i64, i64, i64) {
        self.supplies_at(sku, node).fold((0, 0, 0), |(over, unannounced, claimed), open| {
            (over + open.over(), unannounced + open.unannounced(), claimed + i64::from(open.claimed))
        })
    }

    /// What would be due at a node if units of a supply, if any, came, so many of them to be free; and if so many became
    /// free in all, and as many were free then.
    pub(super) fn due_behind(
        &self,
        rules: &Rules,
        (sku, node): (SkuId, NodeId),
        came: Option<(SupplyId, i64, i64)>,
        (freed, free): (i64, i64),
    ) -> i64 {
        let (mut over, mut arrived) = (0, 0);
        for open in self.supplies_at(sku, node) {
            let mut then = *open;
            if let Some((_, units, free)) = came.filter(|(supply, ..)| open.is(*supply, node)) {
                then.quantity -= units.min(i64::from(then.quantity)) as u32;
                arrived += then.arrive(free);
            }
            over += then.over();
        }
        let (_, unannounced, claimed) = self.due_units(sku, node);
        let come = unannounced + (freed - arrived).clamp(0, free.max(0));
        over + come.min(self.wanted(rules, sku, node)).min(claimed - over).max(0)
    }

    /// Units that are waited for at a node by channels that take what comes unannounced.
    fn wanted(&self, rules: &Rules, sku: SkuId, node: NodeId) -> i64 {
        let waiting = self.extras.get(&sku).map_or(&[][..], |extra| &extra.waiting);
        let wants = waiting.iter().filter(|(at, _)| *at == node).filter_map(|(_, id)| {
            let part = self.reservations.part(*id)?;
            let serves = rules.channel(part.channel)?.policy.unannounced == Unannounced::Waiting;
            let claims = part.claims_at(sku, node).iter().filter(|claim| claim.pool.is_supply());
            serves.then(|| claims.map(|claim| i64::from(claim.quantity)).sum::<i64>())
        });
        wants.sum()
    }

    /// Units have become free at a node where somebody waits, and none of a supply that is claimed.
    #[cold]
    pub(super) fn note_unannounced(&mut self, sku: SkuId, node: NodeId, units: i64) {
        let free = self.position(sku, node).map_or(0, |position| position.free);
        let (_, known, claimed) = self.due_units(sku, node);
        let come = known + units.min(free.max(0));
        let supplies = &mut self.extras.entry(sku).or_default().supplies;
        let at = SupplyState::find(supplies, node, ChannelId::NO_SUPPLY).unwrap_or_else(|at| {
            supplies.insert(at, SupplyState::none(node, ChannelId::NO_SUPPLY));
            at
        });
        supplies[at].arrived = come.min(claimed) as u32;
        if supplies[at].is_over() {
            supplies.remove(at);
        }
    }

    /// Units were given to who waits for a supply: as many of what came for that supply are gone.
    pub(super) fn note_taken(&mut self, movements: &[Movement]) {
        for Movement { sku, node, pool, quantity, .. } in movements.iter().filter(|of| of.pool.is_supply()) {
            let Some(extra) = self.extras.get_mut(sku).filter(|_| *pool != ChannelId::NO_SUPPLY) else {
                continue;
            };
            if let Ok(at) = SupplyState::find(&extra.supplies, *node, *pool) {
                extra.supplies[at].arrived = extra.supplies[at].arrived.saturating_sub(*quantity);
            }
        }
    }

    /// Who waits for a sku was promised what came unannounced, as far as they want it. The rest is everybody's.
    pub(super) fn forget_unannounced(&mut self, sku: SkuId) {
        let Some(extra) = self.extras.get_mut(&sku) else { return };
        let mut nodes: SmallVec<[NodeId; 2]> = SmallVec::new();
        extra.supplies.retain_mut(|open| {
            if open.unannounced() > 0 {
                open.arrived = 0;
                nodes.push(open.node);
            }
            !open.is_over()
        });
        for node in nodes {
            self.touch(sku, node);
        }
    }

    /// Whether units came unannounced of which nobody was told yet.
    pub(super) fn has_unannounced(&self, sku: SkuId) -> bool {
        let extra = self.extras.get(&sku);
        extra.is_some_and(|extra| extra.supplies.iter().any(|open| open.unannounced() > 0))
    }

    /// Units free at a position that are owed to those who wait there.
    #[cold]
    pub(super) fn owed(&self, sku: SkuId, position: &Position) -> i64 {
        self.owed_of(sku, position, position.free)
    }

    /// Units that have come for those who wait at a node.
    fn come(&self, sku: SkuId, node: NodeId) -> i64 {
        self.supplies_at(sku, node).map(SupplyState::come).sum()
    }

    /// The same of so many units free. What has come for those who wait is theirs. So is what they lack because a supply
    /// does not bring it, but where units are claimed of groups: then they get of that, when they are promised anew, what
    /// no group needs.
    fn owed_of(&self, sku: SkuId, position: &Position, free: i64) -> i64 {
        let node = position.node();
        let owed =
            if self.claimed_of_groups(sku) > 0 { self.come(sku, node) } else { self.due_there(sku, node) };
        owed.min(free).max(0)
    }

    /// Units free at a node for those who wait there: what they are owed, and of what they lack what no group needs
    /// behind what nodes before it have `given`.
    fn there_for_waiting(&self, rules: &Rules, sku: SkuId, node: NodeId, given: &[(NodeId, i64)]) -> i64 {
        let position = self.position(sku, node).expect("who waits has a position");
        let owed = self.owed(sku, position);
        let lacking = self.due_there(sku, node) - self.come(sku, node);
        let demands = self.demands(sku, |_| 0);
        if lacking <= 0 || demands.is_empty() {
            return owed;
        }
        let usable = self.usable(sku, |_| 0, |_| 0).map(|(node, units)| {
            let given = given.iter().find(|(other, units)| *other == node && *units > 0);
            let position = self.position(sku, node).expect("it has units");
            (node, given.map_or(units, |(_, given)| (position.free - given).max(0)))
        });
        let here = (position.free - owed).max(0);
        owed + lacking.min(Cover::new(rules, &demands, usable).room(rules, node, here))
    }

    /// Units that would be free at a position and owed to nobody, were `change` more or fewer free.
    pub(super) fn free_with(&self, sku: SkuId, position: &Position, change: i64) -> i64 {
        let free = position.free + change;
        if position.waits() { free - self.owed_of(sku, position, free) } else { free }
    }

    /// Units free at a position and owed to nobody.
    #[inline]
    pub(super) fn free(&self, sku: SkuId, position: &Position) -> i64 {
        if position.waits() && !planted(Bug::StealOwed) {
            return position.free - self.owed(sku, position);
        }
        position.free
    }

    /// Notes what supplies have left for a line, of which so many units are there, the earliest first; answers the units.
    /// None where as many wait as may; then it is noted, if they would have done.
    #[cold]
    pub(super) fn note_coming(
        &mut self,
        now: Millis,
        rules: &Rules,
        channel: &ChannelRule,
        (line, there): (&Line, i64),
    ) -> i64 {
        let mut coming = std::mem::take(&mut self.coming);
        coming.clear();
        let (Some(extra), Some(profile)) = (self.extras.get(&line.sku), rules.skus.profile(line.sku)) else {
            return 0;
        };
        let own = extra.backordered(channel.id());
        let taken = self.takes.iter().filter(|take| take.sku == line.sku && take.pool.is_supply());
        let asked = Asked {
            now,
            rules,
            profile,
            channel,
            group: rules.group(line.group),
            node: line.node,
            waiting: own.units + taken.map(|take| take.quantity).sum::<i64>(),
        };
        // As far as claims at a node can be counted.
        let room = |node| {
            let claimed = self.supplies_at(line.sku, node).map(|open| i64::from(open.claimed));
            limit::BUCKET_UNITS_MAX - claimed.sum::<i64>()
        };
        let row = self.shard.row(line.sku);
        let mut sum = 0;
        asked.claimable(extra.supplies.iter().map(Supply::from).collect(), room, |supply, units, _| {
            let at = self.positions.find(row, supply.node).expect("a supply has its position");
            sum += units;
            coming.push(Coming { pool: supply.pool, at: at as u32, units });
        });
        if limit::waiting_is_full(extra.waiting.len() as i64, own.waiters) {
            coming.clear();
            let would_do = there + sum >= i64::from(line.quantity);
            self.full.waiting |= would_do;
            sum = 0;
        }
        self.coming = coming;
        sum
    }

    /// Takes units of the supplies noted for a line.
    pub(super) fn take_coming(&mut self, line: &Line, mut wanted: i64, effects: &mut Effects) {
        for next in 0..self.coming.len() {
            let Coming { pool, at, units } = self.coming[next];
            let units = units.min(wanted);
            wanted -= units;
            self.take(line, at, pool, units, effects);
        }
        assert!(wanted == 0, "{wanted} of {line:?} were said to come");
    }

    /// Says what was promised by movements from `first` on, which are in their order.
    #[cold]
    pub(super) fn note_promises(
        &self,
        (reservation, channel): (ReservationId, ChannelId),
        first: usize,
        effects: &mut Effects,
    ) {
        let Effects { movements, promises, .. } = effects;
        for movement in movements[first..].iter().filter(|movement| movement.pool.is_supply()) {
            let Movement { sku, node, pool, to, quantity, .. } = *movement;
            let (held, confirmed) = if to == Bucket::Held { (quantity, 0) } else { (0, quantity) };
            let (from, to, at) = (pool, pool, self.promised_at(sku, node, pool));
            let reason = Reason::Placed;
            promises.push(Promise { reservation, channel, sku, node, from, to, held, confirmed, at, reason });
        }
    }

    /// Whether those who wait at a node may have to be promised anew.
    fn is_unpromised(
        &self,
        now: Millis,
        (sku, node): (SkuId, NodeId),
        there: impl Fn() -> i64,
        wants: impl Fn() -> bool,
    ) -> bool {
        let claimed = || self.supplies_at(sku, node).filter(|open| open.claimed > 0);
        let last = claimed().map(SupplyState::order).max();
        let better = |open: &SupplyState| open.has_units(now) && last.is_some_and(|last| open.order() < last);
        claimed().any(|open| match open.pool {
            // Who waits for nothing goes on doing so until something is there for them.
            ChannelId::NO_SUPPLY => there() > 0,
            _ => open.over() > 0 || open.told != open.eta,
        }) || (self.supplies_at(sku, node).any(|open| open.unannounced() > 0) && wants() && there() > 0)
            || self.supplies_at(sku, node).any(better)
    }

    /// Promises anew what waits for a sku, where a supply is not what it was.
    pub(super) fn promise_again(&self, now: Millis, rules: &Rules, sku: SkuId, effects: &mut Effects) {
        let Some(extra) = self.extras.get(&sku).filter(|extra| !extra.waiting.is_empty()) else { return };
        let first = effects.movements.len();
        let mut nodes: SmallVec<[NodeId; 8]> = extra.waiting.iter().map(|(node, _)| *node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        let mut given: SmallVec<[(NodeId, i64); 8]> = SmallVec::new();
        for node in nodes {
            let there = || self.there_for_waiting(rules, sku, node, &given);
            let wants = || self.wanted(rules, sku, node) > 0;
            if !self.is_unpromised(now, (sku, node), there, wants) {
                continue;
            }
            // What there is: what is there for them, unannounced units first, then supplies, the earliest first, then
            // nothing without end.
            let there = there();
            let came = there.min(self.due_units(sku, node).0);
            let mut pools: Vec<(ChannelId, i64)> =
                vec![(ChannelId::SHARED, there - came), (ChannelId::SHARED, came)];
            let mut supplies: SmallVec<[&SupplyState; 8]> =
                self.supplies_at(sku, node).filter(|open| open.quantity > 0 && open.eta > THERE).collect();
            supplies.sort_by_key(|open| open.order());
            // What is late serves who claims it, and nobody else.
            pools.extend(supplies.iter().map(|open| {
                let most = if open.eta > now { open.quantity } else { open.quantity.min(open.claimed) };
                (open.pool, i64::from(most))
            }));
            pools.push((ChannelId::NO_SUPPLY, i64::MAX));
            let mut waiting: Vec<(u16, usize, ReservationId, usize)> = Vec::new();
            for (age, (_, id)) in extra.waiting.iter().enumerate().filter(|(_, waits)| waits.0 == node) {
                let part = self.reservations.part(*id).expect("who waits has a reservation");
                let channel = rules.channel(part.channel).expect("a reservation has its channel");
                let passes = channel.policy.unannounced == Unannounced::All;
                waiting.push((channel.policy.priority, age, *id, usize::from(passes)));
            }
            waiting.sort_unstable();
            let mut next = 0;
            for (_, _, id, first) in waiting {
                self.promise_one((sku, node, id), &mut pools, (first, &mut next), effects);
            }
            given.push((node, there - pools[0].1 - pools[1].1));
        }
        merge_movements(&mut effects.movements, first);
    }

    /// Gives a reservation the first of what is left at a node, from a pool on.
    fn promise_one(
        &self,
        (sku, node, id): (SkuId, NodeId, ReservationId),
        pools: &mut [(ChannelId, i64)],
        (first, next): (usize, &mut usize),
        effects: &mut Effects,
    ) {
        let part = self.reservations.part(id).expect("who waits has a reservation");
        let claims = part.claims_at(sku, node).iter().filter(|claim| claim.pool.is_supply());
        let mut has: SmallVec<[Claim; 2]> = claims.copied().collect();
        has.sort_by_key(|claim| self.supply_order(claim));
        let mut open: i64 = has.iter().map(|claim| i64::from(claim.quantity)).sum();
        let mut gets: SmallVec<[(ChannelId, i64); 2]> = SmallVec::new();
        for (pool, left) in &mut pools[first.max(*next)..] {
            let units = open.min(*left);
            open -= units;
            *left -= units;
            match gets.last_mut() {
                Some((last, sum)) if last == pool => *sum += units,
                _ if units > 0 => gets.push((*pool, units)),
                _ => {}
            }
            if open == 0 {
                break;
            }
        }
        *next += pools[*next..].iter().take_while(|(_, left)| *left == 0).count();
        // What stays where it is needs no movement; of the rest, confirmed units get the better part.
        let mut away: SmallVec<[i64; 2]> = SmallVec::new();
        for claim in &has {
            let total = i64::from(claim.quantity);
            let got = gets.iter_mut().find(|(pool, _)| *pool == claim.pool);
            let stays = got.map_or(0, |(_, units)| {
                let stays = total.min(*units);
                *units -= stays;
                stays
            });
            away.push(total - stays);
        }
        for (to, mut wanted) in gets {
            for (claim, away) in has.iter_mut().zip(&mut away) {
                let units = wanted.min(*away);
                wanted -= units;
                *away -= units;
                self.push_promise((id, part.channel), claim, to, units as u32, effects);
            }
        }
        for claim in &mut has {
            let (pool, units) = (claim.pool, claim.quantity);
            self.push_promise((id, part.channel), claim, pool, units, effects);
        }
    }

    /// Takes units out of a claim and promises them from a pool, if that is news.
    fn push_promise(
        &self,
        (reservation, channel): (ReservationId, ChannelId),
        claim: &mut Claim,
        to: ChannelId,
        units: u32,
        effects: &mut Effects,
    ) {
        let Claim { sku, node, pool: from, .. } = *claim;
        let confirmed = claim.confirmed().min(units);
        let held = units - confirmed;
        claim.quantity -= units;
        claim.held -= held;
        let told = self.supplies_at(sku, node).find(|open| open.pool == from);
        let before = told.map_or(NEVER, |open| dated(open.told));
        let at = self.promised_at(sku, node, to);
        if units == 0 || (from == to && before == at) {
            return;
        }
        let reason = Reason::of(before, at);
        effects.promises.push(Promise {
            reservation,
            channel,
            sku,
            node,
            from,
            to,
            held,
            confirmed,
            at,
            reason,
        });
        for (bucket, quantity) in [(Bucket::Held, held), (Bucket::Confirmed, confirmed)] {
            if quantity > 0 && from != to {
                let out = Movement { sku, node, pool: from, from: bucket, to: Bucket::Inbound, quantity };
                let there = Bucket::unclaimed(to);
                effects.movements.extend([out, Movement { pool: to, from: there, to: bucket, ..out }]);
            }
        }
    }

    /// Books promises that were made anew: claims follow, and who waits no longer is no longer among those who do.
    pub(super) fn settle_promises(&mut self, promises: &[Promise]) {
        let shard = self.shard;
        for promise in promises.iter().filter(|promise| shard.owns(promise.sku)) {
            let Promise { reservation, sku, node, from, to, held, confirmed, .. } = *promise;
            if let Some(part) = self.reservations.part_mut(reservation).filter(|_| from != to) {
                part.shift_pool((sku, node), (from, to), (held, confirmed));
                let channel = part.channel;
                if !to.is_supply() {
                    self.count_backorder(sku, channel, -i64::from(held) - i64::from(confirmed), 0);
                }
            }
        }
        // All who wait at a node of which something was said know its dates now, and some wait no longer.
        let mut last = None;
        for Promise { sku, node, .. } in promises.iter().filter(|promise| shard.owns(promise.sku)) {
            if last.replace((*sku, *node)) == Some((*sku, *node)) {
                continue;
            }
            let extra = self.extras.entry(*sku).or_default();
            for open in extra.supplies.iter_mut().filter(|open| open.node == *node) {
                (open.told, open.arrived) = (open.eta, 0);
            }
            let reservations = &self.reservations;
            let mut gone: SmallVec<[ChannelId; 8]> = SmallVec::new();
            extra.waiting.retain(|(at, id)| {
                // The checkpoint knows of reservations only that something is said of.
                let Some(part) = reservations.part(*id).filter(|_| at == node) else { return true };
                let stays = reservations.waits(*sku, *node, *id);
                gone.extend((!stays).then_some(part.channel));
                stays
            });
            for channel in gone {
                self.count_backorder(*sku, channel, 0, -1);
            }
        }
    }

    /// Units of a sku that a channel waits for become more or fewer, and its reservations that do.
    pub(super) fn count_backorder(&mut self, sku: SkuId, channel: ChannelId, units: i64, waiters: i64) {
        self.dirty_rows.push(Item::Waiting(channel).place(sku));
        if waiters != 0 {
            self.waiting = self.waiting.strict_add_signed(waiters as isize);
            self.dirty_rows.push(Item::Waiters.place(sku));
        }
        let counts = &mut self.extras.entry(sku).or_default().backordered;
        let at = counts.iter().position(|other| other.channel == channel).unwrap_or_else(|| {
            counts.push(Backordered { channel, units: 0, waiters: 0 });
            counts.len() - 1
        });
        let count = &mut counts[at];
        (count.units, count.waiters) = (count.units + units, count.waiters + waiters);
        if (count.units, count.waiters) == (0, 0) {
            counts.swap_remove(at);
        }
    }

    /// Books what a reservation's own movements do to those who wait.
    #[cold]
    pub(super) fn settle_waiting(&mut self, id: ReservationId, channel: ChannelId, movements: &[Movement]) {
        for movement in movements.iter().filter(|movement| movement.pool.is_supply()) {
            let Movement { sku, node, from, to, quantity, .. } = *movement;
            if !self.shard.owns(sku) {
                continue;
            }
            let units = i64::from(quantity);
            if from == Bucket::Inbound {
                let waiting = &mut self.extras.entry(sku).or_default().waiting;
                // It claims all at once, so it stands last if it does.
                let mut own = waiting.iter().rev().take_while(|(_, other)| *other == id);
                let is_new = !own.any(|(at, _)| *at == node);
                waiting.extend(is_new.then_some((node, id)));
                self.count_backorder(sku, channel, units, i64::from(is_new));
            } else if to == Bucket::Inbound {
                self.count_backorder(sku, channel, -units, 0);
                self.stop_waiting(sku, node, (id, channel));
            }
        }
    }

    /// Takes a reservation from those who wait at a node, if it claims nothing there any more of what is to come.
    fn stop_waiting(&mut self, sku: SkuId, node: NodeId, (id, channel): (ReservationId, ChannelId)) {
        if self.reservations.waits(sku, node, id) {
            return;
        }
        let waiting = &mut self.extras.entry(sku).or_default().waiting;
        if let Some(at) = waiting.iter().position(|waits| *waits == (node, id)) {
            waiting.remove(at);
            self.count_backorder(sku, channel, 0, -1);
        }
    }

    /// Moves claimed units into or out of a supply, or lets them be confirmed there.
    #[cold]
    pub(super) fn shift_supply(&mut self, movement: &Movement) -> &mut Position {
        let Movement { sku, node, pool, from, to, quantity } = *movement;
        let units = match (from, to) {
            (Bucket::Inbound, _) => i64::from(quantity),
            (_, Bucket::Inbound) => -i64::from(quantity),
            _ => 0,
        };
        let supplies = &mut self.extras.entry(sku).or_default().supplies;
        let at = SupplyState::find(supplies, node, pool).unwrap_or_else(|at| {
            supplies.insert(at, SupplyState::none(node, pool));
            at
        });
        let open = &mut supplies[at];
        if open.claimed == 0 {
            (open.told, open.arrived) = (open.eta, 0);
        }
        let claimed = i64::from(open.claimed) + units;
        open.claimed = u32::try_from(claimed).expect("a supply has the claims that are taken from it");
        self.dirty_rows.extend(open.items().map(|item| item.place(sku)));
        if open.is_over() {
            supplies.remove(at);
        }
        let waits = supplies.iter().any(|open| open.node == node && open.claimed > 0);
        if !waits {
            // Nobody is left for whom it was kept.
            supplies.retain(|open| open.node != node || open.unannounced() == 0);
        }
        let position = self.touch(sku, node);
        position.set_waits(waits);
        position
    }
}
