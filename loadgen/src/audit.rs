//! The auditor of load scenarios: what each connection was promised, against what the server says it has.

use stockline_client::wire::PositionRec;

use crate::drive::Tally;

/// Units one run was granted, by index of the sku within the stage.
#[derive(Clone, Debug)]
pub struct Granted {
    /// Reserved and held.
    pub held: Vec<i64>,
    /// Changes of what is free by events.
    pub free: Vec<i64>,
}

impl Granted {
    pub fn none(skus: usize) -> Granted {
        Granted { held: vec![0; skus], free: vec![0; skus] }
    }

    pub fn add(&mut self, other: &Granted) {
        for (sum, part) in self.held.iter_mut().zip(&other.held) {
            *sum += part;
        }
        for (sum, part) in self.free.iter_mut().zip(&other.free) {
            *sum += part;
        }
    }
}

const FREE: usize = 0;
const HELD: usize = 1;

/// Compares every position after a run with what it must be: before, less what was granted.
pub fn compare(before: &[PositionRec], after: &[PositionRec], granted: &Granted, tally: &mut Tally) {
    for (index, (before, after)) in before.iter().zip(after).enumerate() {
        tally.checked += 1;
        let mut due = before.units;
        due[FREE] += granted.free[index] - granted.held[index];
        due[HELD] += granted.held[index];
        if after.units != due {
            tally.wrong(|| format!("sku {index}: units {:?}, should be {due:?}", after.units));
        }
        if after.units[FREE] < 0 {
            tally.wrong(|| format!("sku {index}: oversold, {} free", after.units[FREE]));
        }
    }
    if before.len() != after.len() {
        tally.wrong(|| format!("{} positions where there were {}", after.len(), before.len()));
    }
}
