//! What several kinds of tests work with; the tests themselves are in `all.rs`, which is also their index.

pub mod attacker;
pub mod bench;
pub mod chance;
pub mod fuzz;
