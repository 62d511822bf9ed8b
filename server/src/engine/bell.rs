//! Waking a thread that waits on lock-free queues: a flag and a park, so that ringing for somebody awake
//! costs one atomic read.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::thread::Thread;
use std::time::Duration;

/// Belongs to one waiting thread; anybody may ring.
#[derive(Default, Debug)]
pub(super) struct Bell {
    asleep: AtomicBool,
    sleeper: OnceLock<Thread>,
}

impl Bell {
    /// Says who waits here. Called once, by that thread, before its first wait.
    pub(super) fn mine(&self) {
        // A second call would come from another thread, which would never wake: that is a broken invariant.
        assert!(self.sleeper.set(std::thread::current()).is_ok(), "a bell has one sleeper");
    }

    /// Wakes the sleeper if it sleeps. To be called after the work it should find was put where it looks.
    pub(super) fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed)
            && self.asleep.swap(false, Ordering::SeqCst)
            && let Some(thread) = self.sleeper.get()
        {
            thread.unpark();
        }
    }

    /// Sleeps until rung, for `at_most`, unless `ready` says that there is work.
    pub(super) fn wait(&self, at_most: Duration, ready: impl Fn() -> bool) {
        self.asleep.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if !ready() {
            std::thread::park_timeout(at_most);
        }
        self.asleep.store(false, Ordering::SeqCst);
    }
}

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
