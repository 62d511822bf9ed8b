//! Reserving: which node serves which line, and what is short.
//!
//! Lines that name a node choose first, then those that name a group, then those that take any node of the
//! channel; within that, in the order given. A line goes to the best node that has it all, and is split over nodes,
//! the best first, when none has. Which is best, the channel's [strategy](crate::catalogue::Strategy) says. Units taken by one line are gone for the next, so
//! the same sku on two lines is summed. With [`Fill::Partial`] a line takes what there is of it.
//!
//! Units come from the channel's own allocation, then from those of the channels above it, then from what all share:
//! a node that has the line whole with the earlier pools alone goes before one that needs the later ones. What is not
//! there is claimed of supplies, where rules let the channel wait for it: see [`promise`](super::promise).

use crate::bucket::{Bucket, Movement};
use crate::catalogue::{ChannelRule, Profile, Rules, Strategy, UNKNOWN, ZoneRule, place};
use crate::command::{Fill, Line, Reserve};
use crate::drill::{Bug, planted};
use crate::id::{ChannelId, GroupId, Millis, NodeId, SkuId, ZoneId};
use crate::ledger::allocation::drawable;
use crate::ledger::explain::{Trace, Why};
use crate::ledger::plan::CLASSES;
use crate::ledger::{Ballot, Decision, Effects, Full, Ledger, Moment, Outcome, Short, SupplyState};
use crate::outcome::{Code, State};
use crate::plan::{Plan, Planned, days_late};

/// A position that could serve a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    /// What the channel's strategy goes by, and in the lower 16 bits the node's rank.
    pub(super) key: u64,
    pub(super) at: u32,
    /// Units it has in the pool that all share.
    pub(super) shared: i64,
    /// Where its units of the channel's pools begin in [`Ledger::drawn`]; [`NO_SHARES`] where it has none.
    shares: u32,
}

const NO_SHARES: u32 = u32::MAX;

/// Units set aside while deciding, given back when the decision is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Take {
    at: u32,
    pub(super) sku: SkuId,
    pub(super) pool: ChannelId,
    pub(super) quantity: i64,
}

/// Above what strategies go by.
const LATE_BIT: u32 = 44;

/// What there is for a line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Looked {
    pub available: i64,
    /// Of it, at most so many of the units that all share.
    pub shared: i64,
    splits: usize,
    of_groups: bool,
}

/// Who asks for lines, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking {
    pub now: Millis,
    pub fill: Fill,
    pub zone: ZoneId,
    /// What is not there may be waited for.
    pub later: bool,
}

/// Lines choose in this order.
pub(super) fn specificity(line: &Line) -> u8 {
    match (line.node, line.group) {
        (NodeId::LATER, _) => 3,
        (NodeId::ANY, GroupId::ANY) => 2,
        (NodeId::ANY, _) => 1,
        _ => 0,
    }
}

impl Ledger {
    pub(super) fn decide_reserve(
        &mut self,
        moment: Moment,
        rules: &Rules,
        (reserve, lines): (&Reserve, &[Line]),
        effects: &mut Effects,
        plan: Option<&Plan>,
        traces: Option<&mut Vec<Trace>>,
    ) -> Option<Decision> {
        let channel = rules.channel(reserve.channel).expect("the channel was checked before");
        if reserve.line_count >= channel.planned_from && plan.is_none() {
            return self.decide_alone(moment, rules, (reserve, lines), effects, traces);
        }
        let counted = channel.policy.counts_holds();
        let counts_here = counted && self.shard.counts(reserve.channel);
        if plan.is_none() && !counts_here && !lines.iter().any(|line| self.shard.owns(line.sku)) {
            return None;
        }
        if counts_here && self.has_enough_holds(channel, reserve) {
            return Some(Decision::refused(Outcome::of(Code::HoldLimit)));
        }
        if self.reservations.find(reserve.id, moment.lsn).is_some() {
            return Some(Decision::refused(Outcome::of(Code::ReservationExists)));
        }
        let (movements_before, shorts_before) = (effects.movements.len(), effects.shorts.len());
        let asking = Asking { now: moment.now, fill: reserve.fill, zone: reserve.zone, later: true };
        // Most reservations have one line.
        if let ([only], None, None) = (lines, plan, &traces) {
            if self.shard.owns(only.sku) {
                self.serve_line(rules, channel, asking, (0, only), effects);
            }
        } else {
            self.serve_lines(rules, channel, (asking, lines), plan, effects, traces);
        }
        self.give_back_from(0, 0);
        let short = effects.shorts.len() > shorts_before;
        if short {
            // Who would have what there is goes without waiting. Of several parts' refusals the lower code speaks, and so
            // it does in one.
            let Full { groups, waiting } = std::mem::take(&mut self.full);
            let waiting = (waiting && reserve.fill == Fill::All).then_some(Code::TooManyWaiting);
            if let Some(code) = waiting.or(groups.then_some(Code::TooManyGroups)) {
                effects.shorts.truncate(shorts_before);
                return Some(Decision::refused(Outcome::of(code)));
            }
            effects.shorts[shorts_before..].sort_unstable();
        }
        let ballot = match reserve.fill {
            Fill::All => Ballot::NO.when(short),
            Fill::Partial => Ballot::SOME.when(effects.movements.len() > movements_before),
        };
        merge_movements(&mut effects.movements, movements_before);
        if rules.skus.waits() {
            self.note_promises((reserve.id, reserve.channel), movements_before, effects);
        }
        // What it is if all agree.
        let outcome = Outcome {
            state: State::Held,
            expires_at: moment.now.plus(u64::from(reserve.ttl_ms)),
            counted,
            ..Outcome::ok(reserve.channel)
        };
        Some(Decision { outcome, ballot, waits: true })
    }

    /// Serves all lines, class by class.
    #[inline(never)]
    fn serve_lines(
        &mut self,
        rules: &Rules,
        channel: &ChannelRule,
        (asking, lines): (Asking, &[Line]),
        plan: Option<&Plan>,
        effects: &mut Effects,
        mut traces: Option<&mut Vec<Trace>>,
    ) {
        // Substitutes of skus are decided behind what lines ask for themselves.
        let (mut classes, mut is_later) = (CLASSES, false);
        if plan.is_some() {
            classes.end *= 2;
        }
        for class in classes {
            if class == 3 && !is_later && plan.is_none() {
                break;
            }
            for (index, line) in lines.iter().enumerate() {
                let mut its_class = specificity(line);
                is_later |= its_class == 3;
                if plan.is_some_and(|plan| plan.lines[index].is_substitute) {
                    its_class += CLASSES.end;
                }
                if its_class != class || !self.shard.owns(line.sku) {
                    continue;
                }
                let planned = plan.map(|plan| plan.lines[index]);
                let Some(traces) = traces.as_deref_mut() else {
                    self.serve_planned(rules, channel, (asking, planned), (index, line), effects);
                    continue;
                };
                let (traced, moved) = (traces.len(), effects.movements.len());
                self.trace_line(rules, channel, asking.zone, (index, line), traces);
                self.serve_planned(rules, channel, (asking, planned), (index, line), effects);
                for trace in &mut traces[traced..] {
                    let taken = effects.movements[moved..].iter();
                    let here = taken.filter(|taken| taken.node == trace.node && !taken.pool.is_supply());
                    trace.taken = here.map(|taken| taken.quantity).sum();
                    trace.why = if trace.taken > 0 { Why::Taken } else { trace.why };
                }
            }
        }
    }

    /// Granted where no part says no and, filled partly, one has something.
    pub(crate) fn conclude_reserve(reserve: &Reserve, outcome: Outcome, said: Ballot) -> Outcome {
        let granted = !said.says(Ballot::NO) && (reserve.fill == Fill::All || said.says(Ballot::SOME));
        if granted || outcome.code != Code::Ok {
            return outcome;
        }
        Outcome::of(Code::InsufficientStock)
    }

    /// Gives back what was set aside while deciding, but for so many takes.
    pub(super) fn give_back_from(&mut self, takes: usize, of_groups: usize) {
        for index in takes..self.takes.len() {
            let Take { at, sku, pool, quantity } = self.takes[index];
            self.set_aside(at, sku, pool, -quantity);
        }
        self.takes.truncate(takes);
        self.taken_of_groups.truncate(of_groups);
    }

    /// Serves a line whole at the node that its plan says, or as ever.
    fn serve_planned(
        &mut self,
        rules: &Rules,
        channel: &ChannelRule,
        (asking, planned): (Asking, Option<Planned>),
        (index, line): (usize, &Line),
        effects: &mut Effects,
    ) {
        let Some(Planned { first, heeds_days, .. }) = planned else {
            return self.serve_line(rules, channel, asking, (index, line), effects);
        };
        if !heeds_days {
            let late = std::mem::take(&mut self.late);
            self.serve_line(rules, channel, asking, (index, line), effects);
            self.late = late;
            return;
        }
        if first != NodeId::ANY {
            let (now, shorts) = (Asking { fill: Fill::All, later: false, ..asking }, effects.shorts.len());
            self.take_line(rules, channel, now, (index, &Line { node: first, ..*line }), effects);
            if effects.shorts.len() == shorts {
                return;
            }
            effects.shorts.truncate(shorts);
        }
        self.serve_line(rules, channel, asking, (index, line), effects);
    }

    #[inline]
    fn set_aside(&mut self, at: u32, sku: SkuId, pool: ChannelId, quantity: i64) {
        let position = self.positions.at_mut(at as usize);
        if pool == ChannelId::SHARED {
            position.free -= quantity;
            return;
        }
        self.set_share_aside(at, sku, pool, quantity);
    }

    #[cold]
    fn set_share_aside(&mut self, at: u32, sku: SkuId, pool: ChannelId, quantity: i64) {
        let position = self.positions.at_mut(at as usize);
        if pool.is_supply() {
            let node = position.node();
            let extra = self.extras.get_mut(&sku).expect("it has a supply");
            let at = SupplyState::find(&extra.supplies, node, pool).expect("it was there");
            let open = &mut extra.supplies[at];
            open.claimed = u32::try_from(i64::from(open.claimed) + quantity).expect("no more than it has");
            return;
        }
        position.add(Bucket::Allocated, -quantity);
        let node = position.node();
        let extra = self.extras.get_mut(&sku).expect("it has an allocation");
        extra.shares.add(pool, node, -quantity);
    }

    /// Whether the channel or the customer has as many open holds as it may.
    fn has_enough_holds(&self, channel: &ChannelRule, reserve: &Reserve) -> bool {
        let reached = |max: u32, customer: u64| {
            max > 0 && self.reservations.open_holds(reserve.channel, customer) >= max
        };
        let policy = &channel.policy;
        reached(policy.holds_max, 0)
            || (reserve.customer != 0 && reached(policy.customer_holds_max, reserve.customer))
    }

    /// Sets units aside for one line at the node that it names or, where that has not all of it, at the first of the
    /// node's substitutes that has; waits for what is to come, or takes a part, at the node itself only.
    pub(super) fn serve_line(
        &mut self,
        rules: &Rules,
        channel: &ChannelRule,
        asking: Asking,
        (index, line): (usize, &Line),
        effects: &mut Effects,
    ) {
        if line.node != NodeId::ANY && self.serve_named(rules, channel, asking, (index, line), effects) {
            return;
        }
        self.take_line(rules, channel, asking, (index, line), effects);
    }

    /// Serves a line that says where it goes: at a group, or whole at the node or a substitute of it. `false`: it is
    /// left to [`Ledger::take_line`].
    #[inline(never)]
    fn serve_named(
        &mut self,
        rules: &Rules,
        channel: &ChannelRule,
        asking: Asking,
        (index, line): (usize, &Line),
        effects: &mut Effects,
    ) -> bool {
        if line.node == NodeId::LATER {
            let there = Line { node: place(channel, line), ..*line };
            self.take_of_group(rules, channel, asking.fill, (index, &there), effects);
            return true;
        }
        let Some(substitutes) = rules.substitutes.get(&line.node) else { return false };
        let (group, shorts) = (rules.group(line.group), effects.shorts.len());
        let offered =
            |node: &NodeId| channel.nodes.contains(*node) && group.is_none_or(|group| group.contains(*node));
        let now = Asking { fill: Fill::All, later: false, ..asking };
        for node in std::iter::once(&line.node).chain(substitutes.iter().filter(|node| offered(node))) {
            self.take_line(rules, channel, now, (index, &Line { node: *node, ..*line }), effects);
            if effects.shorts.len() == shorts {
                return true;
            }
            effects.shorts.truncate(shorts);
        }
        false
    }

    /// Looks what there is for one line, at which candidates.
    #[inline(always)]
    pub(super) fn look(&mut self, rules: &Rules, channel: &ChannelRule, zone: ZoneId, line: &Line) -> Looked {
        let group = rules.group(line.group);
        let profile = rules.skus.profile(line.sku);
        self.candidates.clear();
        self.drawn.clear();
        let mut of_groups = !self.taken_of_groups.is_empty();
        // What all share, at all nodes that the channel is offered; then at those for this line, and the channel's own.
        let (mut offered, mut total, mut own) = (0, 0, 0);
        for at in self.positions.range(self.shard.row(line.sku)) {
            let position = self.positions.at(at);
            let (node, mut free) = (position.node(), self.free(line.sku, position));
            let mut withheld = 0;
            if let Some(profile) = profile {
                withheld = i64::from(rules.skus.withheld(profile, node, channel.id()));
                free -= withheld;
            }
            let allocated = position.allocated() > 0;
            if (free <= 0 && !allocated && !planted(Bug::SpreadDeficit)) || !channel.nodes.contains(node) {
                of_groups |= node.is_group();
                continue;
            }
            let key = u64::from(rules.rank(node));
            let mut candidate = Candidate { key, at: at as u32, shared: free, shares: NO_SHARES };
            let mut of_own = 0;
            if allocated {
                of_own = self.draw(channel, line.sku, withheld, &mut candidate);
                if of_own + candidate.shared == 0 {
                    continue;
                }
            }
            offered += candidate.shared;
            let named = line.node == NodeId::ANY || line.node == node;
            if named && group.is_none_or(|nodes| nodes.contains(node)) {
                total += candidate.shared;
                own += of_own;
                if channel.prefers {
                    let units = of_own + candidate.shared;
                    candidate.key |= self.preference(rules, channel, zone, node, units) << 16;
                }
                self.candidates.push(candidate);
            }
        }
        if of_groups && let Some(covered) = self.keep_cover(rules, channel, zone, line.sku) {
            (offered, total) = covered;
        }
        // Of what all share the buffer is withheld, and as it is withheld from the channel as a whole it bounds each of
        // its lines too.
        let shared = (offered - i64::from(channel.buffer)).max(0);
        let splits = channel.policy.splits();
        let mut available = own + total.min(shared);
        if self.candidates.len() > splits {
            available = self.available(rules, channel, shared, splits, of_groups);
        }
        if channel.policy.cap > 0 {
            available = self.capped(channel, line.sku, available);
        }
        Looked { available, shared, splits, of_groups }
    }

    /// Sets units aside for one line, or says how many there would be.
    pub(super) fn take_line(
        &mut self,
        rules: &Rules,
        channel: &ChannelRule,
        Asking { now, fill, zone, later }: Asking,
        (index, line): (usize, &Line),
        effects: &mut Effects,
    ) {
        let Looked { available, shared, splits, of_groups } = self.look(rules, channel, zone, line);
        let mut wanted = i64::from(line.quantity);
        if available < wanted {
            let mut most = available;
            if later && rules.skus.profile(line.sku).is_some_and(Profile::waits) {
                most = wanted.min(available + self.note_coming(now, rules, channel, (line, available)));
                if channel.policy.cap > 0 {
                    most = self.capped(channel, line.sku, most);
                }
            }
            if most < wanted {
                effects.shorts.push(Short {
                    line: index as u16,
                    sku: line.sku,
                    quantity: line.quantity,
                    available: most as u32,
                });
                if fill == Fill::All || most == 0 {
                    return;
                }
            }
            if most > available {
                self.take_coming(line, most - available, effects);
            }
            wanted = available;
            if wanted == 0 {
                return;
            }
        }
        if !self.drawn.is_empty() {
            self.take_from_pools(rules, channel, line, wanted, (shared, splits, of_groups), effects);
            return;
        }
        match self.whole(channel, 0, 0, wanted, shared) {
            Some(whole) => {
                let at = self.candidates[whole].at;
                self.take(line, at, ChannelId::SHARED, wanted, effects);
            }
            None => self.split(rules, channel, line, wanted, (0, shared, splits, of_groups), effects),
        }
    }

    /// The best candidate that has all with the pools up to a level.
    fn whole(
        &self,
        channel: &ChannelRule,
        level: usize,
        shared_level: usize,
        wanted: i64,
        shared: i64,
    ) -> Option<usize> {
        // To have few splits says nothing about which of those that have it all is best.
        let by = match channel.policy.strategy {
            Strategy::FewestSplits => 0xffff | u64::MAX << (LATE_BIT + 16),
            _ => u64::MAX,
        };
        let (mut whole, mut best) = (None, u64::MAX);
        for (at, candidate) in self.candidates.iter().enumerate() {
            let key = candidate.key & by;
            if key < best && self.reach(candidate, level, shared_level, shared) >= wanted {
                (whole, best) = (Some(at), key);
            }
        }
        whole
    }

    /// Takes a line where the channel has allocations: of its own pools first, and last of the one that all share.
    fn take_from_pools(
        &mut self,
        rules: &Rules,
        channel: &ChannelRule,
        line: &Line,
        wanted: i64,
        (shared, splits, of_groups): (i64, usize, bool),
        effects: &mut Effects,
    ) {
        let shared_level = channel.pools.len();
        for level in 0..=shared_level {
            let Some(whole) = self.whole(channel, level, shared_level, wanted, shared) else { continue };
            let whole = self.candidates[whole];
            let mut open = wanted;
            for level in 0..=level {
                let units = self.pool_units(&whole, level, shared_level).min(open);
                open -= units;
                self.take(line, whole.at, pool_of(channel, level, shared_level), units, effects);
            }
            return;
        }
        self.split(rules, channel, line, wanted, (shared_level, shared, splits, of_groups), effects);
    }

    /// Takes a line from several nodes, the best first: of each pool in turn.
    #[cold]
    fn split(
        &mut self,
        rules: &Rules,
        channel: &ChannelRule,
        line: &Line,
        mut wanted: i64,
        (shared_level, mut shared, splits, of_groups): (usize, i64, usize, bool),
        effects: &mut Effects,
    ) {
        self.candidates.sort_unstable();
        self.candidates.truncate(splits);
        let mut cover = self.cover.take().filter(|_| of_groups);
        for level in 0..=shared_level {
            for next in 0..self.candidates.len() {
                let candidate = self.candidates[next];
                let node = self.positions.at(candidate.at as usize).node();
                let mut units = self.pool_units(&candidate, level, shared_level).min(wanted);
                if level == shared_level {
                    units = units.min(shared);
                    if let Some(cover) = &mut cover {
                        units = cover.room(rules, node, units);
                        cover.take(rules, node, units);
                    }
                    shared -= units;
                }
                wanted -= units;
                self.take(line, candidate.at, pool_of(channel, level, shared_level), units, effects);
            }
        }
        assert!(wanted == 0, "{wanted} of {line:?} were said to be there");
    }

    /// Units of a sku that the channel may claim, behind the lines before this one.
    #[cold]
    pub(super) fn capped(&self, channel: &ChannelRule, sku: SkuId, available: i64) -> i64 {
        let taken = self.takes.iter().filter(|take| take.sku == sku);
        let of_groups = self.taken_of_groups.iter().filter(|(other, ..)| *other == sku);
        let taken = taken.map(|take| take.quantity).chain(of_groups.map(|(.., units)| *units));
        let taken: i64 = taken.sum();
        (channel.policy.capped(available + taken) - taken).max(0)
    }

    /// What a channel goes by: less is better. Who ships today goes before who does not; then by its strategy.
    #[inline(never)]
    pub(super) fn preference(
        &self,
        rules: &Rules,
        channel: &ChannelRule,
        zone: ZoneId,
        node: NodeId,
        units: i64,
    ) -> u64 {
        let late = u64::from(self.late_by(node));
        late << LATE_BIT | self.by_strategy(rules, channel, zone, node, units)
    }

    /// Days by which a node ships later than today.
    pub(super) fn late_by(&self, node: NodeId) -> u8 {
        days_late(&self.late, node)
    }

    /// What the channel's strategy goes by: less is better.
    pub(super) fn by_strategy(
        &self,
        rules: &Rules,
        channel: &ChannelRule,
        zone: ZoneId,
        node: NodeId,
        units: i64,
    ) -> u64 {
        let zone = rules.zone(zone);
        let by_zone = |of: fn(&ZoneRule, NodeId) -> u32| zone.map_or(UNKNOWN, |zone| of(zone, node));
        match channel.policy.strategy {
            Strategy::Priority => 0,
            Strategy::Nearest => u64::from(by_zone(ZoneRule::metres)),
            Strategy::LowestCost => u64::from(by_zone(ZoneRule::cost)),
            Strategy::FewestSplits | Strategy::HighestStock => (1 << 40) - units.unsigned_abs(),
        }
    }

    /// Notes what a candidate has for the channel, pool by pool; answers the units of its own pools.
    fn draw(&mut self, channel: &ChannelRule, sku: SkuId, withheld: i64, candidate: &mut Candidate) -> i64 {
        let position = self.positions.at(candidate.at as usize);
        let shares = &self.extras.get(&sku).expect("it has an allocation").shares;
        let share = |pool| shares.units(pool, position.node());
        let free = self.free(sku, position);
        let drawable = drawable(&channel.pools, (free, withheld), position.allocated(), share);
        let (shared, own) = drawable.split_last().expect("one pool is shared");
        candidate.shared = shared.1;
        candidate.shares = self.drawn.len() as u32;
        self.drawn.extend(own.iter().map(|(_, units)| units));
        own.iter().map(|(_, units)| units).sum()
    }

    /// Units of a candidate in the pool of a level.
    fn pool_units(&self, candidate: &Candidate, level: usize, shared_level: usize) -> i64 {
        match candidate.shares {
            _ if level == shared_level => candidate.shared,
            NO_SHARES => 0,
            first => self.drawn[first as usize + level],
        }
    }

    /// Units of a candidate in the pools up to a level, at most so many of those that all share.
    pub(super) fn reach(&self, candidate: &Candidate, level: usize, shared_level: usize, shared: i64) -> i64 {
        let mut units = if level == shared_level { candidate.shared.min(shared) } else { 0 };
        if candidate.shares != NO_SHARES {
            let own = &self.drawn[candidate.shares as usize..][..shared_level.min(level + 1)];
            units += own.iter().sum::<i64>();
        }
        units
    }

    /// Units of a candidate in all pools.
    pub(super) fn units_of(&self, candidate: &Candidate, channel: &ChannelRule) -> i64 {
        let last = channel.pools.len();
        self.reach(candidate, last, last, i64::MAX)
    }

    /// The most units that more candidates than a line may be split over have for it: one node that has it all may be
    /// any of them; else the best so many count.
    #[cold]
    fn available(
        &mut self,
        rules: &Rules,
        channel: &ChannelRule,
        shared: i64,
        splits: usize,
        of_groups: bool,
    ) -> i64 {
        let shared_level = channel.pools.len();
        self.candidates.sort_unstable();
        let all = |candidates: &[Candidate]| {
            let own = candidates.iter().map(|one| self.reach(one, shared_level, shared_level, 0));
            let of_all = candidates
                .iter()
                .map(|candidate| (self.positions.at(candidate.at as usize).node(), candidate.shared));
            let of_all = match self.cover.as_ref().filter(|_| of_groups) {
                None => of_all.map(|(_, units)| units).sum::<i64>(),
                Some(cover) => cover.clone().take_all(rules, of_all),
            };
            own.sum::<i64>() + of_all.min(shared)
        };
        let most = self.candidates.iter().map(|one| all(std::slice::from_ref(one))).max().unwrap_or(0);
        all(&self.candidates[..splits]).max(most)
    }

    /// Takes units of a pool at a position.
    #[inline(always)]
    pub(super) fn take(
        &mut self,
        line: &Line,
        at: u32,
        pool: ChannelId,
        quantity: i64,
        effects: &mut Effects,
    ) {
        if quantity <= 0 {
            return;
        }
        // What a later line may no longer take.
        let set_aside = if planted(Bug::OversellLines) { 0 } else { quantity };
        self.set_aside(at, line.sku, pool, set_aside);
        self.takes.push(Take { at, sku: line.sku, pool, quantity: set_aside });
        effects.movements.push(Movement {
            sku: line.sku,
            node: self.positions.at(at as usize).node(),
            pool,
            from: Bucket::unclaimed(pool),
            to: Bucket::Held,
            quantity: quantity as u32,
        });
    }
}

/// The pool of a level: the channel's own, those of the channels above it, and last the one that all share.
fn pool_of(channel: &ChannelRule, level: usize, shared_level: usize) -> ChannelId {
    if level == shared_level { ChannelId::SHARED } else { channel.pools[level] }
}

/// Brings movements from `start` on into their one order and makes one of those alike but for the quantity.
pub(crate) fn merge_movements(movements: &mut Vec<Movement>, start: usize) {
    if movements.len() < start + 2 {
        return;
    }
    movements[start..].sort_unstable();
    let mut last = start;
    for at in start + 1..movements.len() {
        let next = movements[at];
        let place = |movement: Movement| Movement { quantity: 0, ..movement };
        if place(movements[last]) == place(next) {
            movements[last].quantity += next.quantity;
        } else {
            last += 1;
            movements[last] = next;
        }
    }
    movements.truncate(last + 1);
}
