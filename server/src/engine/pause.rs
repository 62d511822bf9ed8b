//! Waiting a moment for another thread that is about to be done.

use std::time::Duration;

/// Waits a moment for another thread, longer the more often it was called: first a few spins, then the
/// processor is given away.
pub(super) fn pause(times: u32) {
    if times < 64 {
        std::hint::spin_loop();
    } else if times < 256 {
        std::thread::yield_now();
    } else {
        std::thread::park_timeout(Duration::from_micros(50));
    }
}
