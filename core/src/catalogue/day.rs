//! A node's day: until when it ships orders the same day, and how many units a day.

use crate::id::Millis;
use crate::limit::QUARTERS_PER_DAY;

const QUARTERS: i64 = QUARTERS_PER_DAY as i64;

/// When a node ships, by its own clock, in quarters of an hour. A day without a cut-off ends at midnight.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Day {
    /// Quarters after midnight from which an order waits for the next day; 0 for no cut-off.
    pub cut_off: u8,
    /// Quarters that its clock is ahead of UTC.
    pub ahead: i8,
    /// Units that it ships a day; 0 for no limit.
    pub capacity: u32,
}

impl Day {
    pub fn is_valid(&self) -> bool {
        i64::from(self.cut_off) < QUARTERS && (-56..=56).contains(&self.ahead)
    }

    /// Quarters since 1970 by the node's clock.
    fn local(&self, now: Millis) -> i64 {
        i64::from(now.quarter()) + i64::from(self.ahead)
    }

    /// Whether what is ordered now waits for the next day.
    pub fn is_over(&self, now: Millis) -> bool {
        self.cut_off > 0 && self.local(now).rem_euclid(QUARTERS) >= i64::from(self.cut_off)
    }

    /// The quarter, since 1970 in UTC, from which on what was ordered ships together with what is ordered now.
    pub fn begins(&self, now: Millis) -> u32 {
        let end = if self.cut_off > 0 { i64::from(self.cut_off) } else { QUARTERS };
        let local = self.local(now);
        let since = (local - end).rem_euclid(QUARTERS);
        (local - since - i64::from(self.ahead)).max(0) as u32
    }

    /// Whether so many units are all that it ships a day.
    pub fn is_full(&self, units: u64) -> bool {
        self.capacity > 0 && units >= u64::from(self.capacity)
    }
}
