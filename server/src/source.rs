//! Sources of stock events: what each told lately, how late, and whether something of it is missing.
//!
//! A source is a token, and the `source` that an event names over HTTP; over QUIC events name none.

use std::collections::HashMap;
use std::sync::Arc;

use dashmap::DashMap;
use serde::{Deserialize, Serialize};
use stockline_core::event::{EventKind, StockEvent};
use stockline_core::id::{Millis, PrincipalId};
use stockline_core::limit;
use stockline_core::merge::Reply;
use stockline_core::outcome::Code;

/// What sources beyond the bound are called.
const OTHERS: &str = "others";
/// So far behind the highest, a first number is not late but a beginning.
const LATE: u64 = 1_000;

/// What one source did lately.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Source {
    pub applied: u64,
    pub refused: u64,
    /// Adjustments, and counts that found another number than was known.
    pub exceptions: u64,
    /// When its last event came, and how many milliseconds before it had happened; of events that are new.
    #[serde(with = "millis")]
    pub told_at: Millis,
    pub late_ms: u64,
    numbers: Numbers,
}

impl Source {
    fn count(&mut self, event: &StockEvent, sequence: Option<u64>, reply: &Reply, now: Millis) {
        self.told_at = now;
        if let Some(sequence) = sequence {
            self.numbers.came(sequence, reply.repeat);
        }
        if reply.repeat {
            return;
        }
        self.late_ms = now.since(event.occurred_at);
        if reply.outcome.code == Code::Ok {
            self.applied += 1;
            self.exceptions += u64::from(matches!(event.kind, EventKind::Adjustment | EventKind::Count));
        } else {
            self.refused += 1;
        }
    }

    /// Of its own numbers, those between the first and the highest that did not come.
    pub fn missing(&self) -> u64 {
        let open = self.numbers.gaps.iter().fold(0u64, |sum, (from, to)| sum.saturating_add(to - from + 1));
        open.saturating_add(self.numbers.given_up)
    }
}

/// The numbers that a source gives its events, in whatever order they come, once or several times.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Numbers {
    highest: Option<u64>,
    /// First and last of those that did not come, from the lowest.
    gaps: Vec<(u64, u64)>,
    /// Of gaps that are not kept any more, because there are too many.
    given_up: u64,
}

impl Numbers {
    fn came(&mut self, number: u64, is_repeat: bool) {
        let Some(highest) = self.highest else {
            self.highest = Some(number);
            return;
        };
        if number > highest {
            if number - highest > 1 {
                self.gaps.push((highest + 1, number - 1));
            }
            self.highest = Some(number);
        } else if let Some(at) = self.gaps.iter().position(|(from, to)| (*from..=*to).contains(&number)) {
            let (from, to) = self.gaps.remove(at);
            if number < to {
                self.gaps.insert(at, (number + 1, to));
            }
            if from < number {
                self.gaps.insert(at, (from, number - 1));
            }
        } else if number <= 1 && highest - number > LATE && !is_repeat {
            // It was made anew.
            *self = Numbers { highest: Some(number), ..Numbers::default() };
        }
        if self.gaps.len() > limit::SOURCE_GAPS_MAX {
            let (from, to) = self.gaps.remove(0);
            self.given_up = self.given_up.saturating_add(to - from + 1);
        }
    }
}

/// All that told something since the start.
#[derive(Default)]
pub struct Sources {
    all: DashMap<PrincipalId, HashMap<Arc<str>, Source>>,
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
        let mut sources = self.all.entry(principal).or_default();
        let is_known = sources.contains_key(name) || name.is_empty();
        if !is_known && sources.len() >= limit::SOURCES_PER_PRINCIPAL_MAX {
            // One that has been silent for long makes room.
            let silent = sources.iter().min_by_key(|(_, source)| source.told_at);
            let silent = silent.filter(|(_, source)| now.since(source.told_at) > limit::SOURCE_SILENT_MS);
            if let Some(silent) = silent.map(|(name, _)| Arc::clone(name)) {
                sources.remove(&silent);
            }
        }
        let has_room = is_known || sources.len() < limit::SOURCES_PER_PRINCIPAL_MAX;
        let source = sources.entry(if has_room { Arc::clone(name) } else { OTHERS.into() }).or_default();
        for (event, sequence, reply) in events {
            // Numbers of several are no sequence.
            source.count(event, sequence.filter(|_| has_room), reply, now);
        }
    }

    /// All as text, for the next start.
    pub fn save(&self) -> String {
        let all = self.list();
        let all: Vec<_> = all.iter().map(|(id, name, source)| (id.0, &**name, source)).collect();
        serde_json::to_string(&all).unwrap_or_default()
    }

    /// Takes over what an earlier run knew: a source that was silent before a start is silent after it.
    pub fn load(&self, text: &str) {
        let all: Vec<(u32, String, Source)> = serde_json::from_str(text).unwrap_or_default();
        for (id, name, source) in all {
            self.all.entry(PrincipalId(id)).or_default().insert(name.into(), source);
        }
    }

    /// All as they are, in order: whose, what they are called, and what they did.
    pub fn list(&self) -> Vec<(PrincipalId, Arc<str>, Source)> {
        let of = |id: PrincipalId, sources: &HashMap<Arc<str>, Source>| -> Vec<_> {
            sources.iter().map(|(name, source)| (id, Arc::clone(name), source.clone())).collect()
        };
        let mut all: Vec<_> = self.all.iter().flat_map(|one| of(*one.key(), one.value())).collect();
        all.sort_unstable_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
        all
    }
}

/// A moment as its number.
mod millis {
    use serde::{Deserialize, Deserializer, Serializer};
    use stockline_core::id::Millis;

    pub(super) fn serialize<S: Serializer>(at: &Millis, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(at.0)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Millis, D::Error> {
        u64::deserialize(from).map(Millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(numbers: &[u64]) -> u64 {
        let mut source = Source::default();
        numbers.iter().for_each(|number| source.numbers.came(*number, false));
        source.missing()
    }

    #[test]
    fn what_is_missing_is_known_in_whatever_order_it_comes() {
        for (numbers, due) in [
            (&[][..], 0),
            (&[7], 0),
            (&[7, 8, 9], 0),
            (&[7, 10], 2),
            (&[7, 10, 10, 10], 2),
            (&[7, 10, 8], 1),
            (&[7, 12, 10], 3),
            (&[7, 10, 9, 8], 0),
            // From before the first that was seen.
            (&[7, 5, 8], 0),
            (&[7, 5, 9], 1),
            (&[2, 3, 1, 4], 0),
            (&[1, 2, 9, 1], 6),
            // Made anew.
            (&[7, 9_000, 1, 2, 4], 1),
            (&[0, u64::MAX], u64::MAX - 1),
        ] {
            assert_eq!(missing(numbers), due, "{numbers:?}");
        }
        // Told again it closes its gap, and begins nothing.
        let mut numbers = Numbers::default();
        for (number, is_repeat) in [(5_000, false), (5_003, false), (5_001, true), (1, true)] {
            numbers.came(number, is_repeat);
        }
        assert_eq!((numbers.highest, numbers.gaps), (Some(5_003), vec![(5_002, 5_002)]));
        // However many there are, their number is known.
        let far: Vec<u64> = (0..10_000).map(|number| number * 2).collect();
        assert_eq!(missing(&far), 9_999);
    }
}
