//! Exit codes of the `stockline` binary, documented in docs/operations.md.

/// All went well.
pub const OK: i32 = 0;
/// The command ran and the answer is no: rows refused, invariants broken, nothing found.
pub const FAILED: i32 = 1;
/// The command line, the configuration or an input file is wrong.
pub const USAGE: i32 = 2;
/// The data directory cannot be used: damaged, of another format, or in use.
pub const DATA: i32 = 3;
/// The journal failed while running; nothing after that was acknowledged.
pub const JOURNAL: i32 = 4;
/// An address cannot be listened on.
pub const ADDRESS: i32 = 5;
/// The server cannot be reached or does not accept the token.
pub const UNREACHABLE: i32 = 6;
/// An engine thread stopped on a broken invariant.
pub const BROKEN: i32 = 7;
