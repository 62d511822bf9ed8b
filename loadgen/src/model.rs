//! The reference model: stock and claims kept in the simplest way, by the rules that docs/domain.md tells, with
//! no line of code shared with the ledger.
//!
//! It is told commands one after another in the order of their LSNs and says what each must be answered. Model
//! tests, simulation, kill loop and the auditor of `replay` and `torture` all compare with it.

mod event;
mod group;
mod plan;
mod promise;
mod reservation;
mod rule;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use stockline_client::event::EventKind;
use stockline_client::limit;
use stockline_client::outcome::{Code, State};
use stockline_client::record::{AllocateRec, EventRec, LineRec, StepLineRec};
use stockline_client::wire::PartRec;

pub use group::{LATER, place_of};
pub use plan::DaySetup;
pub use promise::Waits;

/// No node, no group; for a pool: the one that all share.
pub const ANY: u16 = u16::MAX;

pub const FREE: usize = 0;
pub const HELD: usize = 1;
pub const CONFIRMED: usize = 2;
pub const PICKED: usize = 3;
pub const DAMAGED: usize = 5;
pub const ALLOCATED: usize = 8;

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    Reserve {
        id: u128,
        channel: u16,
        ttl_ms: u32,
        /// Of each line what there is.
        partial: bool,
        customer: u64,
        /// Where it goes, or [`ANY`].
        zone: u16,
        lines: Vec<LineRec>,
    },
    /// Verb: 1 confirm, 2 release, 3 extend, 4 fulfil, 5 move. No lines: all of it.
    Step {
        id: u128,
        verb: u8,
        ttl_ms: u32,
        lines: Vec<StepLineRec>,
    },
    Event(Box<EventRec>),
    Allocate(AllocateRec),
    /// The system ends a hold.
    Expire {
        id: u128,
    },
    /// The system brings allocations of a sku to where rules say.
    Balance {
        sku: u32,
    },
    /// A channel gets other rules.
    Rule {
        channel: u16,
        setup: ChannelSetup,
    },
    /// A rule by sku is changed.
    SkuRule {
        at: usize,
        rule: SkuRule,
    },
    /// A node ships at other times, or other numbers of units.
    Day {
        node: u16,
        day: DaySetup,
    },
}

/// What a rule by sku does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Effect {
    None,
    /// Units withheld.
    Safety(i64),
    /// Units that may be waited for.
    Later(i64),
    /// Units, or percent, allocated from receipts, or in each minute whose number is a multiple of so many: 1 for always.
    Allocate {
        amount: i64,
        percent: bool,
        every: Option<u64>,
    },
}

/// A rule by sku, as it was defined.
#[derive(Clone, Debug, PartialEq)]
pub struct SkuRule {
    pub skus: String,
    pub category: String,
    pub node: Option<u16>,
    pub group: Option<u16>,
    pub channel: Option<u16>,
    pub effect: Effect,
}

/// What must be answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Due {
    pub code: Code,
    pub state: State,
    pub expires_at_ms: u64,
    /// A confirmation that came late.
    pub late: bool,
    /// Claims by sku and node, or shortages by line.
    pub parts: Vec<PartRec>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChannelSetup {
    pub parent: Option<u16>,
    pub group: Option<u16>,
    pub buffer: i64,
    /// A late confirmation claims again what expired.
    pub reacquires: bool,
    /// Open holds at once, and of one customer; 0 for no limit.
    pub holds_max: usize,
    pub customer_holds_max: usize,
    /// Units of a sku that the channel is shown; 0 for no limit.
    pub cap: i64,
    /// 0 priority, 1 nearest, 2 fewest splits, 3 highest stock, 4 lowest cost.
    pub strategy: u8,
    /// Nodes that one line is split over; 0 for no limit.
    pub splits_max: usize,
    /// Of those who wait, the lower is served first.
    pub priority: u16,
    /// Units that no supply announced serve all, not those who wait.
    pub passes: bool,
    /// Lines may be served with substitutes of their skus.
    pub substitutes: bool,
}

/// The part of the catalogue that decides.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    pub skus: u32,
    /// Priority by node.
    pub nodes: BTreeMap<u16, u16>,
    pub groups: BTreeMap<u16, BTreeSet<u16>>,
    pub channels: BTreeMap<u16, ChannelSetup>,
    /// Name and category of the skus that rules by sku may be about.
    /// Metres and cost of the way from a node to a zone.
    pub zones: BTreeMap<u16, BTreeMap<u16, (i64, i64)>>,
    pub names: BTreeMap<u32, (String, String)>,
    /// Nodes that serve a line in place of the one it names.
    pub substitutes: BTreeMap<u16, Vec<u16>>,
    pub sku_substitutes: BTreeMap<u32, Vec<u32>>,
    pub days: BTreeMap<u16, DaySetup>,
    pub rules: Vec<SkuRule>,
}

#[derive(Clone, Debug, Default)]
struct Claim {
    quantity: i64,
    held: i64,
    picked: i64,
    shipped: i64,
}

impl Claim {
    fn confirmed(&self) -> i64 {
        self.quantity - self.held - self.picked - self.shipped
    }

    fn of(&self, bucket: usize) -> i64 {
        [0, self.held, self.confirmed(), self.picked][bucket]
    }
}

#[derive(Clone, Debug)]
struct Reservation {
    channel: u16,
    /// Whose it is, if it counts against the open holds of its channel.
    counted: Option<u64>,
    state: State,
    /// Some of it was confirmed while the rest stayed held.
    partly: bool,
    ends_ms: u64,
    claims: BTreeMap<Spot, Claim>,
}

/// Sku, node and the channel whose allocation units are from, or [`ANY`].
type Spot = (u32, u16, u16);

/// A change of what is on hand.
#[derive(Clone, Copy, Debug)]
struct Change {
    node: u16,
    at_ms: u64,
    units: i64,
}

/// What is remembered of a sku for counts that come late.
#[derive(Clone, Debug, Default)]
struct Past {
    /// By node: the latest moment of any change, and the change told last.
    last: BTreeMap<u16, (u64, Change)>,
    earlier: Vec<Change>,
    forgotten_to_ms: u64,
    counted: BTreeMap<u16, u64>,
}

#[derive(Clone, Debug, Default)]
pub struct Model {
    pub setup: Setup,
    /// How far the wall clock, which says what lies in the future, may be ahead of the time of commands.
    pub wall_ahead_ms: u64,
    units: HashMap<(u32, u16), [i64; 9]>,
    /// Allocations of channels.
    shares: BTreeMap<Spot, i64>,
    /// Picked for reservations.
    picked_for: HashMap<(u32, u16), i64>,
    supplies: BTreeMap<(u32, u16, u128), i64>,
    dates: BTreeMap<(u32, u16, u128), promise::Date>,
    /// Units that came of no supply and that who waits was not promised yet.
    unannounced: BTreeMap<(u32, u16), i64>,
    /// Supplies in the order of their pools.
    numbers: Vec<u128>,
    /// Sku, node, reservation; the oldest first.
    waiting: Vec<(u32, u16, u128)>,
    reservations: HashMap<u128, Reservation>,
    pasts: HashMap<u32, Past>,
    /// Units that nodes were given to pick, by quarter of an hour since 1970.
    given: BTreeMap<(u16, u64), i64>,
    /// Nodes that do not ship today what is decided now, and by how many days.
    late: BTreeMap<u16, i64>,
    /// Skus whose lines are decided without preferences.
    plain: BTreeSet<u32>,
    now_ms: u64,
}

type Taken = BTreeMap<Spot, i64>;
/// Units at a position and open supplies of a sku, to go back to.
type Before = ([i64; 9], BTreeMap<(u32, u16, u128), i64>, BTreeMap<(u32, u16, u128), promise::Date>);

impl Model {
    pub fn new(setup: Setup) -> Model {
        Model { setup, ..Model::default() }
    }

    /// Units by bucket: eight on hand, then inbound, then allocated.
    pub fn units(&self, sku: u32, node: u16) -> [i64; 10] {
        let mut units = [0; 10];
        let here = self.at(sku, node);
        units[..8].copy_from_slice(&here[..8]);
        units[9] = here[ALLOCATED];
        let inbound = self.supplies.range((sku, node, 0)..=(sku, node, u128::MAX));
        units[8] = inbound.map(|(_, units)| units).sum();
        units
    }

    /// State of a reservation, `None` if there never was one.
    pub fn state(&self, id: u128) -> Option<State> {
        self.reservations.get(&id).map(|reservation| reservation.state)
    }

    /// Holds that should have ended before `now_ms`.
    pub fn overdue(&self, now_ms: u64) -> Vec<u128> {
        let over = |reservation: &&Reservation| {
            reservation.state == State::Held && reservation.ends_ms + limit::TICK_MS <= now_ms
        };
        self.reservations.iter().filter(|(_, reservation)| over(reservation)).map(|(id, _)| *id).collect()
    }

    /// What a channel can be promised of a sku.
    pub fn available(&self, channel: u16, sku: u32) -> i64 {
        let line = LineRec { sku, node: ANY, group: ANY, quantity: 0 };
        let most = self.most_over((channel, ANY), &line, &Taken::new(), usize::MAX);
        match self.setup.channels[&channel].cap {
            0 => most,
            cap => most.min(cap),
        }
    }

    /// Allocations of a sku: channel, node, units.
    pub fn allocations(&self, sku: u32) -> Vec<(u16, u16, i64)> {
        let of_sku = self.shares.range((sku, 0, 0)..=(sku, u16::MAX, u16::MAX));
        let some = of_sku.filter(|(_, units)| **units > 0);
        let mut found: Vec<_> = some.map(|((_, node, channel), units)| (*channel, *node, *units)).collect();
        found.sort_unstable();
        found
    }

    /// Units that nobody claims become more or fewer.
    fn give(&mut self, (sku, node, pool): Spot, units: i64) {
        if pool == ANY {
            self.add((sku, node), FREE, units);
        } else if !promise::is_supply(pool) {
            self.add((sku, node), ALLOCATED, units);
            *self.shares.entry((sku, node, pool)).or_default() += units;
        }
    }

    fn unclaimed(&self, (sku, node, pool): Spot) -> i64 {
        match pool {
            ANY => self.at(sku, node)[FREE] - self.owed(sku, node),
            _ => self.shares.get(&(sku, node, pool)).copied().unwrap_or(0),
        }
    }

    fn allocate(&mut self, act: &AllocateRec) -> Due {
        let units = i64::from(act.quantity);
        let spot = |channel| (act.sku, act.node, channel);
        let (from, to, lacking) = match act.action {
            1 => (ANY, act.channel, Code::InsufficientStock),
            2 => (act.channel, ANY, Code::InsufficientAllocation),
            _ => (act.channel, act.to_channel, Code::InsufficientAllocation),
        };
        let there = match from {
            ANY => self.spare(act.sku, act.node, 0),
            _ => self.unclaimed(spot(from)),
        };
        if there < units {
            return bare(lacking);
        }
        self.give(spot(from), -units);
        self.give(spot(to), units);
        bare(Code::Ok)
    }

    fn at(&self, sku: u32, node: u16) -> [i64; 9] {
        self.units.get(&(sku, node)).copied().unwrap_or_default()
    }

    fn add(&mut self, place: (u32, u16), bucket: usize, units: i64) {
        self.units.entry(place).or_default()[bucket] += units;
        if bucket == CONFIRMED && units > 0 && !group::is_group(place.1) {
            self.note_given(place.1, units);
        }
    }

    /// Nodes of a channel, best priority first.
    fn offered(&self, rule: &ChannelSetup) -> Vec<u16> {
        let all = || self.setup.nodes.keys().copied().collect();
        let set: BTreeSet<u16> = rule.group.map_or_else(all, |group| self.setup.groups[&group].clone());
        let mut nodes: Vec<u16> = set.into_iter().collect();
        nodes.sort_by_key(|node| (self.setup.nodes[node], *node));
        nodes
    }

    /// Does the next command in the order. `now_ms` is the time it took effect, where that is known: without it
    /// no hold is ever over.
    pub fn apply(&mut self, now_ms: Option<u64>, act: &Act) -> Due {
        self.now_ms = now_ms.unwrap_or(0);
        let refused = self.refusal(now_ms, act);
        if refused != Code::Ok {
            return bare(refused);
        }
        match act {
            Act::Reserve { id, channel, ttl_ms, partial, customer, zone, lines } => {
                let ends_ms = now_ms.map_or(u64::MAX, |now| now + u64::from(*ttl_ms));
                let due =
                    self.reserve((*id, *channel, *customer), (now_ms, ends_ms), (*partial, *zone), lines);
                self.note_waiting(*id);
                due
            }
            Act::Step { id, verb, ttl_ms, lines } if lines.is_empty() => {
                let due = self.step(now_ms, *id, *verb, *ttl_ms);
                self.note_waiting(*id);
                due
            }
            Act::Step { id, verb, lines, .. } => {
                let due = self.step_lines(now_ms, *id, *verb, lines);
                self.note_waiting(*id);
                due
            }
            Act::Event(event) => self.event(now_ms, event),
            Act::Allocate(allocate) => self.allocate(allocate),
            Act::Expire { id } => {
                let due = self.expire(now_ms, *id);
                self.note_waiting(*id);
                due
            }
            Act::Balance { sku } => {
                let told = self.promise_again(now_ms.unwrap_or(0), *sku);
                let due = if told { bare(Code::Ok) } else { self.balance(now_ms.unwrap_or(0), *sku) };
                if self.forget_unannounced(*sku) { bare(Code::Ok) } else { due }
            }
            Act::SkuRule { at, rule } => {
                self.setup.rules[*at] = rule.clone();
                bare(Code::Ok)
            }
            Act::Day { node, day } => {
                self.setup.days.insert(*node, *day);
                bare(Code::Ok)
            }
            Act::Rule { channel, setup } => {
                self.setup.channels.insert(*channel, setup.clone());
                bare(Code::Ok)
            }
        }
    }

    /// Whether a command may be refused so without a look at the stock, at a time that is not known.
    pub fn may_refuse(&self, act: &Act, code: Code) -> bool {
        match self.refusal(None, act) {
            Code::Ok => code == Code::EventInFuture,
            other => code == other || (code == Code::EventInFuture && code < other),
        }
    }

    /// The first refusal that needs no stock.
    fn refusal(&self, now_ms: Option<u64>, act: &Act) -> Code {
        let setup = &self.setup;
        let mut found: BTreeSet<Code> = BTreeSet::new();
        let mut refuse = |when: bool, code: Code| {
            if when {
                found.insert(code);
            }
        };
        let ttl_ok = |ttl: u32| ttl > 0 && u64::from(ttl) <= limit::TTL_MS_MAX;
        match act {
            Act::Reserve { channel, ttl_ms, zone, lines, .. } => {
                refuse(lines.is_empty(), Code::NoLines);
                refuse(lines.len() > limit::RESERVATION_LINES_MAX, Code::TooManyLines);
                refuse(!ttl_ok(*ttl_ms), Code::InvalidTtl);
                let rule = setup.channels.get(channel);
                refuse(rule.is_none(), Code::UnknownChannel);
                refuse(*zone != ANY && !setup.zones.contains_key(zone), Code::UnknownZone);
                let offered = rule.map(|rule| self.offered(rule));
                for line in lines {
                    refuse(line.quantity == 0 || line.quantity > limit::QUANTITY_MAX, Code::InvalidQuantity);
                    refuse(line.sku >= setup.skus, Code::UnknownSku);
                    let group = setup.groups.get(&line.group);
                    refuse(line.group != ANY && group.is_none(), Code::UnknownGroup);
                    if line.node == LATER {
                        let known = rule.is_some() && (line.group == ANY || group.is_some());
                        let outside = known && {
                            let nodes = self.nodes_of(self.group_place(*channel, line));
                            nodes.iter().any(|node| !offered.as_ref().is_some_and(|all| all.contains(node)))
                        };
                        refuse(outside, Code::NodeNotOffered);
                    } else if line.node != ANY {
                        refuse(!setup.nodes.contains_key(&line.node), Code::UnknownNode);
                        let outside = offered.as_ref().is_some_and(|nodes| !nodes.contains(&line.node))
                            || group.is_some_and(|nodes| !nodes.contains(&line.node));
                        refuse(outside, Code::NodeNotOffered);
                    }
                }
            }
            Act::Step { verb, ttl_ms, lines, .. } => {
                refuse(*verb == 3 && !ttl_ok(*ttl_ms), Code::InvalidTtl);
                refuse(lines.len() > limit::RESERVATION_LINES_MAX, Code::TooManyLines);
                for line in lines {
                    refuse(line.quantity == 0 || line.quantity > limit::QUANTITY_MAX, Code::InvalidQuantity);
                    refuse(line.sku >= setup.skus, Code::UnknownSku);
                    refuse(!self.knows(line.node), Code::UnknownNode);
                    let to_known = line.to_node == ANY || setup.nodes.contains_key(&line.to_node);
                    refuse(!to_known, Code::UnknownNode);
                }
            }
            Act::Event(event) => {
                let kind = EventKind::from_number(event.kind);
                let max = i64::from(limit::QUANTITY_MAX);
                let (low, high) = match kind {
                    Some(EventKind::Adjustment) => (-max, max),
                    Some(EventKind::Count | EventKind::Supply) => (0, max),
                    _ => (1, max),
                };
                let nothing = kind == Some(EventKind::Adjustment) && event.quantity == 0;
                refuse(event.quantity < low || event.quantity > high || nothing, Code::InvalidQuantity);
                let supply = event.given & 2 != 0;
                let sellable = |bucket: u8| matches!(bucket, 0 | 4 | 5 | 6 | 7);
                let arrives = matches!(event.to, 0 | 5 | 6) && i64::from(event.damaged) <= event.quantity;
                let sound = match kind {
                    Some(EventKind::TransferDispatched) => {
                        supply && event.to_node != ANY && event.to_node != event.node
                    }
                    Some(EventKind::TransferReceived) => supply && arrives,
                    Some(EventKind::Receipt) => arrives,
                    Some(EventKind::Supply) => supply,
                    Some(EventKind::Return) => matches!(event.to, 0 | 5 | 6),
                    Some(EventKind::StatusChange) => {
                        sellable(event.from) && sellable(event.to) && event.from != event.to
                    }
                    _ => true,
                };
                refuse(!sound || event::has_misfit(event) || event.eta_ms >= 1 << 47, Code::InvalidEvent);
                let ahead =
                    |now: u64| event.occurred_at_ms > now + self.wall_ahead_ms + limit::CLOCK_AHEAD_MS_MAX;
                refuse(now_ms.is_some_and(ahead), Code::EventInFuture);
                refuse(event.sku >= setup.skus, Code::UnknownSku);
                refuse(!setup.nodes.contains_key(&event.node), Code::UnknownNode);
                let dispatched = kind == Some(EventKind::TransferDispatched);
                refuse(dispatched && !setup.nodes.contains_key(&event.to_node), Code::UnknownNode);
            }
            Act::Allocate(act) => {
                refuse(act.quantity == 0 || act.quantity > limit::QUANTITY_MAX, Code::InvalidQuantity);
                refuse(act.sku >= setup.skus, Code::UnknownSku);
                refuse(!setup.nodes.contains_key(&act.node), Code::UnknownNode);
                refuse(!setup.channels.contains_key(&act.channel), Code::UnknownChannel);
                refuse(
                    act.action == 3 && !setup.channels.contains_key(&act.to_channel),
                    Code::UnknownChannel,
                );
                let to = [act.channel, ANY, act.to_channel][usize::from(act.action) - 1];
                let rule = setup.channels.get(&to);
                let outside = rule.is_some_and(|rule| !self.offered(rule).contains(&act.node));
                refuse(outside, Code::NodeNotOffered);
            }
            Act::Expire { .. }
            | Act::Balance { .. }
            | Act::Rule { .. }
            | Act::SkuRule { .. }
            | Act::Day { .. } => {}
        }
        found.first().copied().unwrap_or(Code::Ok)
    }
}

fn bare(code: Code) -> Due {
    Due { code, state: State::None, expires_at_ms: 0, late: false, parts: Vec::new() }
}

/// An answer about a reservation.
fn told(reservation: &Reservation, code: Code) -> Due {
    let expires_at_ms = if reservation.state == State::Held { reservation.ends_ms } else { 0 };
    Due { state: reservation.state, expires_at_ms, ..bare(code) }
}
