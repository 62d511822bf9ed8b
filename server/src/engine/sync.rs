//! Atomics and threads of the files that loom checks; see tests/src/loom.rs.

pub(super) use std::sync::atomic::{AtomicBool, Ordering, fence};
pub(super) use std::thread::{Thread, current, park_timeout};
