//! Sources of stock events: what each told lately, how late, and whether something of it is missing.
//!
//! A source is a token, and the `source` that an event names over HTTP; over QUIC events name none.

use std::sync::Arc;

use dashmap::DashMap;
use stockline_core::event::{EventKind, StockEvent};
use stockline_core::id::{Millis, PrincipalId};
use stockline_core::limit;
use stockline_core::merge::Reply;
use stockline_core::outcome::Code;

/// What a source beyond the bound is called.
const OTHERS: &str = "others";

/// So many numbers behind the highest, a first one is not late but a beginning.
const LATE: u64 = 1_000;

/// What one source did lately.
#[derive(Clone, Copy, Default)]
pub struct Source {
    pub applied: u64,
    pub refused: u64,
    /// Adjustments, and counts that found another number than was known.
    pub exceptions: u64,
    /// When the latest of its events happened, and when it came.
    pub occurred_at: Millis,
    pub told_at: Millis,
    /// The first number of its own that was seen, the highest, and how many from the first on.
    first: u64,
    highest: u64,
    seen: u64,
}

impl Source {
    /// Takes in what became of an event.
    pub fn count(&mut self, event: &StockEvent, sequence: Option<u64>, reply: &Reply, now: Millis) {
        self.told_at = now;
        if reply.repeat {
            return;
        }
        if let Some(sequence) = sequence {
            self.number(sequence);
        }
        if reply.outcome.code == Code::Ok {
            self.occurred_at = event.occurred_at.min(now);
            self.applied += 1;
            self.exceptions += u64::from(matches!(event.kind, EventKind::Adjustment | EventKind::Count));
        } else {
            self.refused += 1;
        }
    }

    /// In whatever order numbers come, what is missing is what lies between and was not seen.
    fn number(&mut self, sequence: u64) {
        // Whoever counts from 0 or 1 again was made anew; one that is only late comes soon after.
        let again = sequence <= 1 && self.highest > 1;
        let anew = again && (self.first <= sequence || self.highest - sequence > LATE);
        let begins = self.seen == 0 || anew;
        if begins {
            (self.first, self.highest, self.seen) = (sequence, sequence, 1);
        } else if sequence >= self.first {
            self.highest = self.highest.max(sequence);
            self.seen += 1;
        }
    }

    /// Of its own numbers, those that lie between the first and the highest and did not come.
    pub fn missing(&self) -> u64 {
        (self.highest - self.first).saturating_sub(self.seen.saturating_sub(1))
    }
}

/// All that told something since the start.
#[derive(Default)]
pub struct Sources {
    all: DashMap<(PrincipalId, Arc<str>), Source>,
}

impl Sources {
    /// Takes in what became of events that one source told.
    pub fn count<'a>(
        &self,
        principal: PrincipalId,
        name: &Arc<str>,
        now: Millis,
        events: impl Iterator<Item = (&'a StockEvent, Option<u64>, &'a Reply)>,
    ) {
        let mut key = (principal, Arc::clone(name));
        if !self.all.contains_key(&key) {
            let known = self.all.iter().filter(|known| known.key().0 == principal).count();
            if known >= limit::SOURCES_PER_PRINCIPAL_MAX {
                key.1 = OTHERS.into();
            }
        }
        let mut source = self.all.entry(key).or_default();
        events.for_each(|(event, sequence, reply)| source.count(event, sequence, reply, now));
    }

    /// All as they are: whose, what they are called, and what they did.
    pub fn list(&self) -> Vec<(PrincipalId, Arc<str>, Source)> {
        let mut all: Vec<_> =
            self.all.iter().map(|one| (one.key().0, one.key().1.clone(), *one.value())).collect();
        all.sort_unstable_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(numbers: &[u64]) -> u64 {
        let mut source = Source::default();
        numbers.iter().for_each(|number| source.number(*number));
        source.missing()
    }

    #[test]
    fn what_is_missing_is_known_in_whatever_order_it_comes() {
        for (numbers, due) in [
            (&[][..], 0),
            (&[7], 0),
            (&[7, 8, 9], 0),
            (&[7, 10], 2),
            (&[7, 10, 8], 1),
            (&[7, 10, 9, 8], 0),
            // From before the first that was seen.
            (&[7, 5, 8], 0),
            (&[7, 5, 9], 1),
            (&[2, 3, 1, 4], 0),
            // Made anew.
            (&[1, 2, 3, 9, 1, 2], 0),
            (&[0, 1, 2, 5, 0, 2], 1),
            (&[7, 9_000, 1, 2, 4], 1),
            (&[0, u64::MAX], u64::MAX - 1),
        ] {
            assert_eq!(missing(numbers), due, "{numbers:?}");
        }
    }
}
