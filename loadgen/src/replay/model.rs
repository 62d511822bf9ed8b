//! The independent computation: plain numbers, the rules as docs/domain.md tells them, and no line of code
//! shared with the ledger.

use std::collections::HashMap;

use stockline_client::Outcome;
use stockline_client::outcome::{Code, State};

use crate::replay::file::{Order, OrderFile, OrderKind};

/// What was sent.
#[derive(Clone, Debug)]
pub enum Step {
    Receipt { sku: usize, node: usize, units: i64 },
    Reserve { order: usize },
    Confirm { order: usize },
    Fulfil { order: usize },
    Return { sku: usize, units: i64 },
    WriteOff { sku: usize, units: i64 },
}

impl Step {
    /// Its place among the operations reported.
    pub fn op(&self) -> usize {
        match self {
            Step::Receipt { .. } => 0,
            Step::Reserve { .. } => 1,
            Step::Confirm { .. } => 2,
            Step::Fulfil { .. } => 3,
            Step::Return { .. } => 4,
            Step::WriteOff { .. } => 5,
        }
    }
}

/// What was sent and what was answered.
#[derive(Clone, Debug)]
pub struct Done {
    pub step: Step,
    pub outcome: Outcome,
}

/// Stock before the first order.
pub struct Opening {
    /// By sku and node.
    pub units: Vec<Vec<i64>>,
    /// Invoices that meet a shortage when played in the order of the file.
    pub short: usize,
}

/// Seven tenths of a sku's units at the first node, the rest spread over the others.
fn spread(units: i64, nodes: usize) -> Vec<i64> {
    if nodes == 1 {
        return vec![units];
    }
    let others = nodes as i64 - 1;
    let rest = units * 3 / 10 / others;
    let mut by_node = vec![rest; nodes];
    by_node[0] = units - rest * others;
    by_node
}

/// Chooses opening stock so that about one invoice in ten finds too little: what will be written off, and the
/// same share of each sku's demand, found by halving.
pub fn opening(file: &OrderFile, nodes: usize) -> Opening {
    let mut demand = vec![0i64; file.skus.len()];
    let mut lost = vec![0i64; file.skus.len()];
    for order in &file.orders {
        let sum = match order.kind {
            OrderKind::Sale => &mut demand,
            OrderKind::WriteOff => &mut lost,
            OrderKind::Return => continue,
        };
        for (sku, units) in &order.lines {
            sum[*sku] += units;
        }
    }
    let sales = file.count(OrderKind::Sale);
    let (mut low, mut high) = (0.0, 1.0);
    let mut found = Opening { units: Vec::new(), short: 0 };
    for _ in 0..24 {
        let share = (low + high) / 2.0;
        let units: Vec<Vec<i64>> = demand
            .iter()
            .zip(&lost)
            .map(|(sold, lost)| {
                let mut by_node = spread((*sold as f64 * share).ceil() as i64, nodes);
                by_node[0] += lost;
                by_node
            })
            .collect();
        let short = count_short(file, &units);
        if short * 10 > sales {
            low = share;
        } else {
            high = share;
        }
        found = Opening { units, short };
    }
    found
}

/// Plays the file in its own order, counting invoices that are refused.
fn count_short(file: &OrderFile, opening: &[Vec<i64>]) -> usize {
    let nodes = opening.first().map_or(1, Vec::len);
    let mut model = Model::new(opening.len(), nodes);
    for (sku, by_node) in opening.iter().enumerate() {
        for (node, units) in by_node.iter().enumerate() {
            model.at(sku, node)[FREE] += units;
        }
    }
    let mut short = 0;
    for (index, order) in file.orders.iter().enumerate() {
        match order.kind {
            OrderKind::Sale => match model.reserve(order) {
                Some(claims) => {
                    model.claims.insert(index, claims);
                    model.advance(index, HELD, CONFIRMED);
                    model.ship(index);
                }
                None => short += 1,
            },
            OrderKind::Return => order.lines.iter().for_each(|(sku, units)| model.at(*sku, 0)[FREE] += units),
            OrderKind::WriteOff => order.lines.iter().for_each(|(sku, units)| {
                model.write_off(*sku, *units);
            }),
        }
    }
    short
}

const FREE: usize = 0;
const HELD: usize = 1;
const CONFIRMED: usize = 2;

/// Units of a sku at a node that an order has.
type Claims = Vec<((usize, usize), i64)>;

/// What the server must have, kept in the simplest way.
pub struct Model {
    nodes: usize,
    units: HashMap<(usize, usize), [i64; 9]>,
    skus: usize,
    claims: HashMap<usize, Claims>,
    states: HashMap<usize, State>,
}

impl Model {
    pub fn new(skus: usize, nodes: usize) -> Model {
        Model { nodes, units: HashMap::new(), skus, claims: HashMap::new(), states: HashMap::new() }
    }

    fn at(&mut self, sku: usize, node: usize) -> &mut [i64; 9] {
        self.units.entry((sku, node)).or_default()
    }

    /// Units by bucket.
    pub fn units(&self, sku: usize, node: usize) -> [i64; 9] {
        assert!(sku < self.skus, "sku {sku} of {}", self.skus);
        self.units.get(&(sku, node)).copied().unwrap_or_default()
    }

    fn free(&self, sku: usize, node: usize) -> i64 {
        self.units(sku, node)[FREE].max(0)
    }

    /// Holds all lines or none. The first node that has a whole line serves it; where none has, the nodes
    /// serve it in order.
    fn reserve(&mut self, order: &Order) -> Option<Claims> {
        let mut taken: HashMap<(usize, usize), i64> = HashMap::new();
        for (sku, wanted) in &order.lines {
            let left =
                |node: usize| self.free(*sku, node) - taken.get(&(*sku, node)).copied().unwrap_or_default();
            let whole = (0..self.nodes).find(|node| left(*node) >= *wanted);
            let mut open = *wanted;
            let mut takes = Vec::new();
            for node in whole.map_or(0..self.nodes, |node| node..node + 1) {
                let units = open.min(left(node).max(0));
                open -= units;
                takes.push((node, units));
            }
            if open > 0 {
                return None;
            }
            for (node, units) in takes.into_iter().filter(|(_, units)| *units > 0) {
                *taken.entry((*sku, node)).or_default() += units;
            }
        }
        for ((sku, node), units) in &taken {
            let position = self.at(*sku, *node);
            position[FREE] -= units;
            position[HELD] += units;
        }
        Some(taken.into_iter().collect())
    }

    fn advance(&mut self, order: usize, from: usize, to: usize) {
        for ((sku, node), units) in self.claims.get(&order).cloned().unwrap_or_default() {
            let position = self.at(sku, node);
            position[from] -= units;
            position[to] += units;
        }
    }

    fn ship(&mut self, order: usize) {
        for ((sku, node), units) in self.claims.get(&order).cloned().unwrap_or_default() {
            self.at(sku, node)[CONFIRMED] -= units;
        }
    }

    /// A loss at the first node of more than is there is refused.
    fn write_off(&mut self, sku: usize, units: i64) -> bool {
        let position = self.at(sku, 0);
        let on_hand: i64 = position[..8].iter().sum();
        if on_hand < units {
            return false;
        }
        position[FREE] -= units;
        true
    }

    /// Does one step and compares with what the server answered.
    pub fn check(
        &mut self,
        orders: &[Order],
        done: &Done,
        skus: &[u32],
        nodes: &[u16],
    ) -> Result<(), String> {
        let outcome = &done.outcome;
        let (due, state) = match done.step {
            Step::Receipt { sku, node, units } => {
                self.at(sku, node)[FREE] += units;
                (Code::Ok, State::None)
            }
            Step::Return { sku, units } => {
                self.at(sku, 0)[FREE] += units;
                (Code::Ok, State::None)
            }
            Step::WriteOff { sku, units } => {
                let done = self.write_off(sku, units);
                (if done { Code::Ok } else { Code::InsufficientOnHand }, State::None)
            }
            Step::Reserve { order } => match self.reserve(&orders[order]) {
                Some(claims) => {
                    let mut told: Claims = Vec::new();
                    for part in &outcome.parts {
                        let sku = skus.iter().position(|id| *id == part.sku);
                        let node = nodes.iter().position(|id| *id == part.node);
                        let place = sku.zip(node).ok_or_else(|| format!("a claim on nothing: {part:?}"))?;
                        told.push((place, i64::from(part.quantity)));
                    }
                    let mut due = claims.clone();
                    due.sort_unstable();
                    told.sort_unstable();
                    self.claims.insert(order, claims);
                    self.states.insert(order, State::Held);
                    if outcome.code == Code::Ok && told != due {
                        return Err(format!("{:?}: claims {told:?}, should be {due:?}", done.step));
                    }
                    (Code::Ok, State::Held)
                }
                None => (Code::InsufficientStock, State::None),
            },
            Step::Confirm { order } if self.states.get(&order) == Some(&State::Held) => {
                self.advance(order, HELD, CONFIRMED);
                self.states.insert(order, State::Confirmed);
                (Code::Ok, State::Confirmed)
            }
            Step::Fulfil { order } if self.states.get(&order) == Some(&State::Confirmed) => {
                self.ship(order);
                self.states.insert(order, State::Fulfilled);
                (Code::Ok, State::Fulfilled)
            }
            Step::Confirm { .. } | Step::Fulfil { .. } => (Code::WrongState, State::None),
        };
        if outcome.code == due && (outcome.code != Code::Ok || outcome.state == state) {
            Ok(())
        } else {
            Err(format!(
                "{:?}: {} and {}, should be {} and {}",
                done.step,
                outcome.code.name(),
                outcome.state.name(),
                due.name(),
                state.name()
            ))
        }
    }
}
