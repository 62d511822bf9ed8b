//! Random commands against an independent model: plain maps and the rules of docs/domain.md, no line shared
//! with the ledger. Replies are compared one by one, conservation and counters after every few steps.

use std::collections::BTreeMap;

use stockline_core::command::{Line, Verb};
use stockline_core::event::EventKind;
use stockline_core::id::{Millis, NodeId, ReservationId};
use stockline_core::limit;
use stockline_core::outcome::{Code, State};
use stockline_loadgen::dice::Dice;

use crate::bench::{Bench, any_line, node_line};

const SKUS: u64 = 6;
const NODES: u64 = 3;

#[derive(Clone, Debug)]
struct Order {
    state: State,
    end: u64,
    claims: BTreeMap<(u32, u16), i64>,
}

/// The model: free and claims by place, orders by id.
#[derive(Default)]
struct Model {
    free: BTreeMap<(u32, u16), i64>,
    /// Held and confirmed units by place.
    claimed: BTreeMap<(u32, u16), i64>,
    orders: BTreeMap<u128, Order>,
}

impl Model {
    fn free(&self, sku: u32, node: u16) -> i64 {
        self.free.get(&(sku, node)).copied().unwrap_or(0)
    }

    /// Nodes are tried in order of their number: that is their priority on the bench.
    fn reserve(&mut self, id: u128, end: u64, channel: u16, lines: &[Line]) -> Code {
        let offered: &[u16] = if channel == 1 { &[1, 2] } else { &[0, 1, 2] };
        let buffer = if channel == 2 { 5 } else { 0 };
        let mut left = self.free.clone();
        let mut claims: BTreeMap<(u32, u16), i64> = BTreeMap::new();
        let mut short = false;
        let named_first = lines
            .iter()
            .filter(|line| line.node != NodeId::ANY)
            .chain(lines.iter().filter(|line| line.node == NodeId::ANY));
        for line in named_first {
            let sku = line.sku.0;
            let at = |left: &BTreeMap<_, i64>, node: u16| left.get(&(sku, node)).copied().unwrap_or(0).max(0);
            let nodes: Vec<u16> = offered
                .iter()
                .copied()
                .filter(|node| line.node == NodeId::ANY || line.node.0 == *node)
                .collect();
            let whole: i64 = offered.iter().map(|node| at(&left, *node)).sum::<i64>() - buffer;
            let here: i64 = nodes.iter().map(|node| at(&left, *node)).sum();
            let mut open = i64::from(line.quantity);
            if here.min(whole) < open {
                short = true;
                continue;
            }
            let one = nodes.iter().copied().find(|node| at(&left, *node) >= open);
            for node in one.map_or(nodes, |node| vec![node]) {
                let units = open.min(at(&left, node));
                if units > 0 {
                    *left.entry((sku, node)).or_default() -= units;
                    *claims.entry((sku, node)).or_default() += units;
                    open -= units;
                }
            }
        }
        if short {
            return Code::InsufficientStock;
        }
        for (place, units) in &claims {
            *self.free.entry(*place).or_default() -= units;
            *self.claimed.entry(*place).or_default() += units;
        }
        self.orders.insert(id, Order { state: State::Held, end, claims });
        Code::Ok
    }

    fn give_back(&mut self, id: u128, to_free: bool) {
        for (place, units) in self.orders[&id].claims.clone() {
            *self.claimed.entry(place).or_default() -= units;
            if to_free {
                *self.free.entry(place).or_default() += units;
            }
        }
    }

    fn step(&mut self, id: u128, verb: Verb, now: u64, ttl_ms: u64) -> Code {
        let Some(order) = self.orders.get(&id).cloned() else { return Code::UnknownReservation };
        let over = order.state == State::Held && order.end <= now;
        let (code, state) = match (order.state, verb) {
            (State::Held, Verb::Fulfil) => (Code::WrongState, order.state),
            (State::Held, _) if over => (Code::Expired, order.state),
            (State::Held, Verb::Confirm) => (Code::Ok, State::Confirmed),
            (State::Held, Verb::Extend) => (Code::Ok, State::Held),
            (State::Held | State::Confirmed, Verb::Release) => (Code::Ok, State::Released),
            (State::Confirmed, Verb::Fulfil) => (Code::Ok, State::Fulfilled),
            (State::Expired, Verb::Confirm | Verb::Release | Verb::Extend) => (Code::Expired, order.state),
            _ => (Code::WrongState, order.state),
        };
        if code == Code::Ok {
            match verb {
                Verb::Release => self.give_back(id, true),
                Verb::Fulfil => self.give_back(id, false),
                Verb::Confirm | Verb::Extend => {}
            }
        }
        if let Some(order) = self.orders.get_mut(&id) {
            order.state = state;
            if code == Code::Ok && verb == Verb::Extend {
                order.end = order.end.max(now + ttl_ms);
            }
        }
        code
    }

    fn expire(&mut self, now: u64) -> usize {
        // Holds are told at the first tick at or after their end.
        let tick = |end: u64| end.div_ceil(limit::TICK_MS) * limit::TICK_MS;
        let due: Vec<u128> = self
            .orders
            .iter()
            .filter(|(_, order)| order.state == State::Held && tick(order.end) <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in &due {
            self.give_back(*id, true);
            if let Some(order) = self.orders.get_mut(id) {
                order.state = State::Expired;
            }
        }
        due.len()
    }
}

fn pick(dice: &mut Dice, below: u64) -> u64 {
    dice.roll() % below
}

/// One step on both sides; every answer is compared.
fn step(bench: &mut Bench, model: &mut Model, dice: &mut Dice, next_id: &mut u128) {
    let sku = pick(dice, SKUS) as u32;
    let node = pick(dice, NODES) as u16;
    match pick(dice, 12) {
        0..4 => {
            let lines: Vec<Line> = (0..=pick(dice, 4))
                .map(|_| {
                    let (sku, units) = (pick(dice, SKUS) as u32, pick(dice, 6) as u32 + 1);
                    if pick(dice, 4) == 0 {
                        node_line(sku, 1 + pick(dice, 2) as u16, units)
                    } else {
                        any_line(sku, units)
                    }
                })
                .collect();
            *next_id += 1;
            let (channel, ttl) = (pick(dice, 3) as u16, pick(dice, 2_000) as u32 + 1);
            let told = bench.reserve(*next_id, channel, ttl, &lines);
            let due = model.reserve(*next_id, bench.now.0 + u64::from(ttl), channel, &lines);
            assert_eq!(told.reply.outcome.code, due, "{lines:?}");
            if due == Code::Ok {
                let claims: BTreeMap<(u32, u16), i64> =
                    told.parts.iter().map(|(sku, node, units)| ((*sku, *node), i64::from(*units))).collect();
                assert_eq!(claims, model.orders[next_id].claims, "{lines:?}");
            }
        }
        4..8 => {
            let id = 1 + u128::from(pick(dice, *next_id as u64 + 1));
            let verb = [Verb::Confirm, Verb::Release, Verb::Extend, Verb::Fulfil][pick(dice, 4) as usize];
            let ttl = pick(dice, 3_000) as u32 + 1;
            let told = bench.step(id, verb, ttl);
            let due = model.step(id, verb, bench.now.0, u64::from(ttl));
            assert_eq!(told.reply.outcome.code, due, "{verb:?} of {:?}", ReservationId(id));
            if let Some(order) = model.orders.get(&id) {
                assert_eq!(told.reply.outcome.state, order.state);
            }
        }
        8 => {
            let units = pick(dice, 20) as i64 + 1;
            bench.receive(sku, node, units);
            *model.free.entry((sku, node)).or_default() += units;
        }
        9 => {
            let units = -(pick(dice, 8) as i64) - 1;
            let event = bench.make(EventKind::Adjustment, sku, node, units);
            let told = bench.event(event);
            let claimed = model.claimed.get(&(sku, node)).copied().unwrap_or(0);
            let fits = model.free(sku, node) + claimed + units >= 0;
            assert_eq!(told.reply.outcome.code, if fits { Code::Ok } else { Code::InsufficientOnHand });
            if fits {
                *model.free.entry((sku, node)).or_default() += units;
            }
        }
        10 => {
            let units = pick(dice, 15) as i64;
            let event = bench.make(EventKind::Count, sku, node, units);
            assert_eq!(bench.event(event).reply.outcome.code, Code::Ok);
            let claimed = model.claimed.get(&(sku, node)).copied().unwrap_or(0);
            model.free.insert((sku, node), units - claimed);
        }
        _ => {
            bench.now = bench.now.plus(pick(dice, 300));
            assert_eq!(bench.expire_due(), model.expire(bench.now.0));
        }
    }
}

fn compare(bench: &Bench, model: &Model) {
    for sku in 0..SKUS as u32 {
        for node in 0..NODES as u16 {
            let units = bench.units(sku, node);
            let claimed = model.claimed.get(&(sku, node)).copied().unwrap_or(0);
            assert_eq!(units[0], model.free(sku, node), "sku {sku} node {node}");
            assert_eq!(units[1] + units[2], claimed, "sku {sku} node {node}");
        }
    }
    bench.assert_sound();
}

/// `seed` is printed by a failing run: it alone repeats it.
fn play(shards: u32, seed: u64, steps: usize) {
    let mut dice = Dice::new(seed);
    let mut bench = Bench::new(shards);
    bench.now = Millis(bench.now.0 + pick(&mut dice, 1_000));
    let mut model = Model::default();
    let mut next_id = 0;
    for index in 0..steps {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            step(&mut bench, &mut model, &mut dice, &mut next_id);
            if index % 16 == 0 {
                compare(&bench, &model);
            }
        }));
        if let Err(cause) = done {
            eprintln!("model: shards {shards}, seed {seed}, step {index}");
            std::panic::resume_unwind(cause);
        }
    }
    compare(&bench, &model);
}

#[test]
fn one_shard_agrees_with_the_model() {
    for seed in 0..100 {
        play(1, seed, 3_000);
    }
}

#[test]
fn four_shards_agree_with_the_model() {
    for seed in 0..6 {
        play(4, seed, 600);
    }
}
