//! Bugs that can be planted, so that the tests can be tested.
//!
//! Each breaks one guarantee on purpose. They exist only with the feature `drill`, which the tests package
//! asks for and no release has; without it [`planted`] is `false` at compile time. Which one is planted, the
//! environment variable `STOCKLINE_BUG` says, so that tests can plant it in any program that they start.
//! docs/testing.md lists them with the layers that catch each; tests/src/planted.rs holds it to that.

macro_rules! bugs {
    ($($(#[$doc:meta])* $bug:ident = $name:literal;)*) => {
        /// A bug, and the guarantee it breaks.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Bug { $($(#[$doc])* $bug,)* }

        /// Every bug with its name.
        pub const BUGS: &[(Bug, &str)] = &[$((Bug::$bug, $name),)*];
    };
}

bugs! {
    /// 1: the lines of one reservation do not see what the ones before them took.
    OversellLines = "oversell-lines";
    /// 1: a deficit at one node is taken from another's stock.
    SpreadDeficit = "spread-deficit";
    /// 1: a claim moves to a node whether or not units are free there.
    MoveUnchecked = "move-unchecked";
    /// 1: allocations are claimed though their units are not there.
    IgnoreDeficit = "ignore-deficit";
    /// 1: claims on groups are covered one group at a time.
    IgnoreOverlap = "ignore-overlap";
    /// 1: what has come for those who wait is given to whoever asks.
    StealOwed = "steal-owed";
    /// 1: units that come unannounced are for whoever asks first.
    PassWaiting = "pass-waiting";
    /// 2: a commit does not wait for the disk.
    AckBeforeSync = "ack-before-sync";
    /// 2 and 9: a failed append counts as done.
    IgnoreWriteError = "ignore-write-error";
    /// 3: a part whose reservation was refused elsewhere stays.
    SkipRollBack = "skip-roll-back";
    /// 3: a part does not wait for the votes of the others.
    EarlyVerdict = "early-verdict";
    /// 3: a part plans an order before the others have told what they have.
    PlanEarly = "plan-early";
    /// 3: now and then an LSN is given twice.
    ReuseLsn = "reuse-lsn";
    /// 4: readers see what is not on disk yet.
    PublishBeforeDurable = "publish-before-durable";
    /// 4: readers get the older version of a cell.
    StaleRead = "stale-read";
    /// 4: a version that changes while it is read is taken as it is.
    TornRead = "torn-read";
    /// 4: readers are told what rules withhold.
    ShowWithheld = "show-withheld";
    /// 5: recovery does not remember the keys.
    ForgetKeys = "forget-keys";
    /// 5: another body under a known key is answered as a repeat.
    IgnoreDigest = "ignore-digest";
    /// 6: holds end a second early.
    ExpireEarly = "expire-early";
    /// 6: some holds never end.
    ForgetEnds = "forget-ends";
    /// 7: the checkpoint folds the first entry of a chunk twice.
    FoldTwice = "fold-twice";
    /// 7: what leaves is not booked outside.
    LoseOutside = "lose-outside";
    /// 8: a frame's length is not bounded.
    UnboundedFrame = "unbounded-frame";
    /// Storage: one record more than allowed is removed.
    TrimTooFar = "trim-too-far";
    /// Storage: a broken chain of hashes is passed over.
    IgnoreChain = "ignore-chain";
}

/// Whether the bug is in this program.
#[cfg(not(feature = "drill"))]
#[inline(always)]
pub const fn planted(_: Bug) -> bool {
    false
}

/// Whether the bug is in this program.
#[cfg(feature = "drill")]
pub fn planted(bug: Bug) -> bool {
    use std::sync::OnceLock;
    static PLANTED: OnceLock<Option<Bug>> = OnceLock::new();
    *PLANTED.get_or_init(|| {
        let name = std::env::var("STOCKLINE_BUG").ok()?;
        let found = BUGS.iter().find(|(_, known)| *known == name);
        Some(found.unwrap_or_else(|| panic!("STOCKLINE_BUG={name} names no bug")).0)
    }) == Some(bug)
}
