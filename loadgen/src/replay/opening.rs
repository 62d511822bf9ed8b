//! Opening stock for the orders of a file: enough that most are served, little enough that some are not.

use std::collections::HashMap;

use crate::replay::file::{OrderFile, OrderKind};

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

/// Plays the file in its own order, counting invoices that are refused. Everything that is held is shipped at once,
/// so what is free tells all.
fn count_short(file: &OrderFile, opening: &[Vec<i64>]) -> usize {
    let mut free: Vec<Vec<i64>> = opening.to_vec();
    let mut short = 0;
    for order in &file.orders {
        match order.kind {
            OrderKind::Sale => {
                let mut wanted: HashMap<usize, i64> = HashMap::new();
                order.lines.iter().for_each(|(sku, units)| *wanted.entry(*sku).or_default() += units);
                let there = |sku: &usize| free[*sku].iter().map(|units| (*units).max(0)).sum::<i64>();
                if wanted.iter().any(|(sku, units)| there(sku) < *units) {
                    short += 1;
                    continue;
                }
                for (sku, units) in &order.lines {
                    take(&mut free[*sku], *units);
                }
            }
            OrderKind::Return => order.lines.iter().for_each(|(sku, units)| free[*sku][0] += units),
            OrderKind::WriteOff => {
                for (sku, units) in &order.lines {
                    if free[*sku][0] >= *units {
                        free[*sku][0] -= units;
                    }
                }
            }
        }
    }
    short
}

/// From the first node that has it all, or from each what it has.
fn take(free: &mut [i64], units: i64) {
    if let Some(node) = free.iter().position(|free| *free >= units) {
        free[node] -= units;
        return;
    }
    let mut open = units;
    for free in free {
        let taken = open.min((*free).max(0));
        *free -= taken;
        open -= taken;
    }
}
