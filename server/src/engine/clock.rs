//! The clock, read here and nowhere else.
//!
//! Commands get their time from a clock that runs by elapsed time, suspended time included, and never backward: holds end
//! by it. It follows the wall clock at most half a percent faster or slower, so that a wall clock that jumps ends no hold
//! early. Whether a stock event lies in the future, when a JWT ends and what a zone's offset is, the wall clock says.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};
use stockline_core::id::Millis;

/// The wall clock; with the feature `drill`, which only tests have, set wrong by `STOCKLINE_CLOCK_MS`, or by what the file
/// `STOCKLINE_CLOCK_FILE` says at the moment.
fn wall() -> Millis {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let wall = wall.as_millis() as u64;
    #[cfg(feature = "drill")]
    let wall = {
        let file =
            std::env::var("STOCKLINE_CLOCK_FILE").ok().and_then(|file| std::fs::read_to_string(file).ok());
        let wrong = file.or_else(|| std::env::var("STOCKLINE_CLOCK_MS").ok());
        let wrong = wrong.map_or(0, |ms| ms.trim().parse().expect("a number"));
        wall.saturating_add_signed(wrong)
    };
    Millis(wall)
}

/// Milliseconds that have passed since the machine started, asleep or not.
fn elapsed() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec as u64 * 1_000 + now.tv_nsec as u64 / 1_000_000
}

/// A difference that no clock drifts to between two looks: somebody has set the wall clock.
const JUMP_MS: i64 = 1_000;
/// So many milliseconds of elapsed time, and it may be brought nearer to the wall clock by one.
const MS_PER_SLEW: u64 = 200;

#[derive(Debug)]
pub struct Clock {
    /// What it showed at its start, and what had elapsed then.
    base: Millis,
    started: u64,
    /// By how much it is ahead of elapsed time, and when that was last changed.
    slewed: AtomicI64,
    looked: AtomicU64,
    /// By how much the wall clock was ahead of elapsed time at the last look.
    wall_ahead: AtomicI64,
    jumps: AtomicU64,
}

impl Clock {
    /// A clock that never shows less than `last`, the time of the last command before a restart.
    pub(super) fn not_before(last: Millis) -> Clock {
        let (wall, started) = (wall(), elapsed());
        Clock {
            base: wall.max(last),
            started,
            slewed: AtomicI64::new(0),
            looked: AtomicU64::new(started),
            wall_ahead: AtomicI64::new(wall.0 as i64 - started as i64),
            jumps: AtomicU64::new(0),
        }
    }

    /// What it showed at its start.
    pub fn started_at(&self) -> Millis {
        self.base
    }

    pub fn now(&self) -> Millis {
        let passed = (elapsed() - self.started) as i64 + self.slewed.load(Ordering::Relaxed);
        Millis(self.base.0.saturating_add_signed(passed))
    }

    /// The wall clock as it is.
    pub fn wall(&self) -> Millis {
        wall()
    }

    /// By how many milliseconds the wall clock is ahead of this one.
    pub fn offset_ms(&self) -> i64 {
        wall().0 as i64 - self.now().0 as i64
    }

    /// How often the wall clock was set since the start.
    pub fn jumps(&self) -> u64 {
        self.jumps.load(Ordering::Relaxed)
    }

    /// Follows the wall clock. One thread calls it, now and then; it answers by how many milliseconds the wall clock was
    /// set since the last call, if it was.
    pub(super) fn follow(&self) -> Option<i64> {
        let passed = elapsed();
        let since = passed - self.looked.load(Ordering::Relaxed);
        let ahead = wall().0 as i64 - passed as i64;
        let set = ahead - self.wall_ahead.swap(ahead, Ordering::Relaxed);
        if since >= MS_PER_SLEW {
            self.looked.store(passed, Ordering::Relaxed);
            let most = (since / MS_PER_SLEW) as i64;
            self.slewed.fetch_add(self.offset_ms().clamp(-most, most), Ordering::Relaxed);
        }
        if set.abs() < JUMP_MS {
            return None;
        }
        self.jumps.fetch_add(1, Ordering::Relaxed);
        Some(set)
    }

    /// How long until it shows `moment`.
    pub(super) fn until(&self, moment: Millis) -> Duration {
        Duration::from_millis(moment.since(self.now()))
    }
}

/// What the wall clock shows before a clock is made.
pub fn at_start() -> Millis {
    wall()
}
