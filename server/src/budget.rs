//! Budgets that principals share: bytes of bodies that are read, of answers that wait to be taken, connections.
//!
//! Whoever has much must leave as much free for others: one principal gets at most half of a budget, a second one half of
//! the rest, and so on. Nobody can use all of it, and nobody needs a share that is fixed in advance.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use stockline_core::id::PrincipalId;
use stockline_core::limit;

#[derive(Debug)]
pub struct Budget {
    total: usize,
    used: AtomicUsize,
    by: DashMap<PrincipalId, usize>,
}

/// A part of a budget that is in use, given back when it is dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<Budget>,
    principal: PrincipalId,
    units: usize,
}

impl Budget {
    pub fn new(total: usize) -> Arc<Budget> {
        Arc::new(Budget { total, used: AtomicUsize::new(0), by: DashMap::new() })
    }

    /// Takes units for a principal, if it leaves others enough.
    pub fn charge(self: &Arc<Budget>, principal: PrincipalId, units: usize) -> Option<Charge> {
        let mut charge = Charge { budget: Arc::clone(self), principal, units: 0 };
        charge.grow(units).then_some(charge)
    }

    /// Units in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

impl Charge {
    pub fn units(&self) -> usize {
        self.units
    }

    /// Takes more; `false`, and nothing more is taken, where that leaves others too little.
    pub fn grow(&mut self, units: usize) -> bool {
        let budget = &self.budget;
        let mut own = budget.by.entry(self.principal).or_default();
        let free = budget.total.saturating_sub(budget.used.load(Ordering::Relaxed));
        // As much as it has then must be free for others.
        if *own + units > free.saturating_sub(units) {
            return false;
        }
        *own += units;
        budget.used.fetch_add(units, Ordering::Relaxed);
        self.units += units;
        true
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.units, Ordering::Relaxed);
        self.budget.by.alter(&self.principal, |_, own| own.saturating_sub(self.units));
        self.budget.by.remove_if(&self.principal, |_, own| *own == 0);
    }
}

/// What principals share, each with what the others need left to them.
#[derive(Debug)]
pub struct Budgets {
    /// Bytes of HTTP bodies that are read.
    pub bodies: Arc<Budget>,
    /// Bytes of HTTP answers that wait to be taken.
    pub answers: Arc<Budget>,
    /// Bytes of replies over QUIC that are made or wait.
    pub replies: Arc<Budget>,
    /// HTTP connections.
    pub connections: Arc<Budget>,
}

impl Default for Budgets {
    fn default() -> Budgets {
        Budgets::new()
    }
}

impl Budgets {
    pub fn new() -> Budgets {
        Budgets {
            bodies: Budget::new(limit::HTTP_BODIES_BYTES_MAX),
            answers: Budget::new(limit::HTTP_ANSWERS_BYTES_MAX),
            replies: Budget::new(limit::QUIC_REPLIES_BYTES_MAX),
            connections: Budget::new(crate::http::connections_max()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gets_all_and_what_is_given_back_is_there_again() {
        let budget = Budget::new(1_000);
        let take = |principal: u32| {
            let mut charges = Vec::new();
            while let Some(charge) = budget.charge(PrincipalId(principal), 10) {
                charges.push(charge);
            }
            charges
        };
        let first = take(1);
        assert_eq!(first.len(), 50, "half");
        let second = take(2);
        assert_eq!(second.len(), 25, "half of the rest");
        let third = take(3);
        assert!(third.len() >= 12, "{}", third.len());
        drop(first);
        assert!(!take(4).is_empty());
        drop((second, third));
        assert_eq!((budget.used(), budget.by.len()), (0, 0));
        assert!(budget.charge(PrincipalId(1), 501).is_none());
        assert!(budget.charge(PrincipalId(1), 500).is_some());
    }
}
