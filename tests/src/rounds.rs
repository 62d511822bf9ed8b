//! How long the random layers run, and how a failure is repeated: one mechanism for all of them.
//!
//! | variable | meaning |
//! |---|---|
//! | `STOCKLINE_SECONDS` | go on for this long instead of the number of rounds that CI has |
//! | `STOCKLINE_SEED` | only this round |
//! | `STOCKLINE_FIRST_SEED` | begin here instead of at 0 |

use std::time::{Duration, Instant};

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Whether the long version runs.
pub(crate) fn is_long() -> bool {
    variable("STOCKLINE_SECONDS").is_some()
}

/// Plays rounds, each from its seed alone. `test` is the test's path, for the command that a failure prints.
/// `play` answers how many of `unit` it did.
pub(crate) fn rounds(test: &str, unit: &str, ci: u64, mut play: impl FnMut(u64) -> u64) {
    let started = Instant::now();
    let (first, until) = match (variable("STOCKLINE_SEED"), variable("STOCKLINE_SECONDS")) {
        (Some(seed), _) => (seed, Until::Seed(seed + 1)),
        (None, Some(seconds)) => (0, Until::Time(Duration::from_secs(seconds))),
        (None, None) => (0, Until::Seed(ci)),
    };
    let first = if matches!(until, Until::Time(_)) {
        variable("STOCKLINE_FIRST_SEED").unwrap_or(first)
    } else {
        first
    };
    let (mut seed, mut done) = (first, 0);
    while until.goes_on(seed, started) {
        let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| play(seed)));
        match played {
            Ok(count) => done += count,
            Err(cause) => {
                eprintln!(
                    "repeat with: STOCKLINE_SEED={seed} cargo test -p stockline-tests --test all {test}"
                );
                std::panic::resume_unwind(cause);
            }
        }
        seed += 1;
    }
    println!(
        "{test}: seeds {first} to {}, {done} {unit}, {:.0} s",
        seed - 1,
        started.elapsed().as_secs_f64()
    );
}

enum Until {
    Seed(u64),
    Time(Duration),
}

impl Until {
    fn goes_on(&self, seed: u64, started: Instant) -> bool {
        match self {
            Until::Seed(end) => seed < *end,
            Until::Time(time) => started.elapsed() < *time,
        }
    }
}
