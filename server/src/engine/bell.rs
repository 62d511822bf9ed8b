//! Waking a thread that waits on lock-free queues: a flag and a park, so that ringing for somebody awake
//! costs one atomic read.
//!
//! This file names atomics and threads through `super`: tests/src/loom.rs compiles it with loom's.

use std::sync::OnceLock;
use std::time::Duration;

use super::sync::{AtomicBool, Ordering, Thread, current, fence, park_timeout};

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
        assert!(self.sleeper.set(current()).is_ok(), "a bell has one sleeper");
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
        // A swap stands in one order with the ringers' swaps, for the standard and for loom.
        self.asleep.swap(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if !ready() {
            park_timeout(at_most);
        }
        self.asleep.store(false, Ordering::SeqCst);
    }
}
