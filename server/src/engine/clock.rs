//! The clock, read here and nowhere else: wall time at the start, carried on by a clock that only goes
//! forward. A wall clock that is set later moves nothing.

use std::time::{Duration, Instant, SystemTime};

use stockline_core::id::Millis;

/// The wall clock; with the feature `drill`, which only tests have, set wrong by `STOCKLINE_CLOCK_MS`.
fn wall() -> Millis {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let wall = wall.as_millis() as u64;
    #[cfg(feature = "drill")]
    let wall = {
        let wrong = std::env::var("STOCKLINE_CLOCK_MS").map_or(0, |ms| ms.parse().expect("a number"));
        wall.saturating_add_signed(wrong)
    };
    Millis(wall)
}

#[derive(Debug)]
pub struct Clock {
    base: Millis,
    started: Instant,
}

impl Clock {
    /// A clock that never shows less than `last`, the time of the last command before a restart.
    pub(super) fn not_before(last: Millis) -> Clock {
        Clock { base: wall().max(last), started: Instant::now() }
    }

    /// What it showed at its start.
    pub fn started_at(&self) -> Millis {
        self.base
    }

    pub fn now(&self) -> Millis {
        self.base.plus(self.started.elapsed().as_millis() as u64)
    }

    /// How long until it shows `moment`.
    pub(super) fn until(&self, moment: Millis) -> Duration {
        Duration::from_millis(moment.since(self.base)).saturating_sub(self.started.elapsed())
    }
}
