//! The atomics of the files that loom checks; see tests/src/loom.rs.

pub(crate) use std::hint::spin_loop;
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
