//! The clock, read here and nowhere else: wall time at the start, carried on by a clock that only goes
//! forward. A wall clock that is set later moves nothing.

use std::time::{Duration, Instant, SystemTime};

use stockline_core::id::Millis;

#[derive(Debug)]
pub struct Clock {
    base: Millis,
    started: Instant,
}

impl Clock {
    /// A clock that never shows less than `last`, the time of the last command before a restart.
    pub(super) fn not_before(last: Millis) -> Clock {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Clock { base: Millis(wall.as_millis() as u64).max(last), started: Instant::now() }
    }

    pub fn now(&self) -> Millis {
        self.base.plus(self.started.elapsed().as_millis() as u64)
    }

    /// How long until it shows `moment`.
    pub(super) fn until(&self, moment: Millis) -> Duration {
        Duration::from_millis(moment.since(self.base)).saturating_sub(self.started.elapsed())
    }
}
