//! `stockline verify`: reads a data directory that no server is using and checks everything that can be.

use std::path::{Path, PathBuf};
use std::time::Instant;

use stockline_core::audit_trail::{AuditAnchor, AuditTrail};
use stockline_core::chain::Anchor;
use stockline_core::checkpoint::CheckpointError;
use stockline_core::journal::Journal;
use stockline_core::journal::file::FileJournal;
use stockline_core::letters::{Letters, LettersError};
use stockline_core::snapshot::Snapshot;
use stockline_core::verify::{Report, verify};

use crate::damage::{self, way_back};
use crate::engine::{AUDIT_FILE, JOURNAL_FILE, LETTERS_FILE, SNAPSHOT_FILE};
use crate::exit;
use crate::{err, out};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Data directory
    #[arg(long, value_name = "DIR", default_value = crate::config::DEFAULT_DATA)]
    data: PathBuf,

    /// A chain written down earlier, which the journal must still go through
    #[arg(long, value_name = "LSN:HEX")]
    anchor: Option<Anchor>,

    /// Where the audit trail's chain of a kind was earlier, which it must still go through; may be given again
    #[arg(long, value_name = "KIND:NUMBER:HEX")]
    audit_anchor: Vec<AuditAnchor>,
}

/// Journal and snapshot of a directory, read and done again.
pub(super) fn ledger(data: &Path, anchor: Option<Anchor>) -> Result<Report, String> {
    let journal = damage::reading(JOURNAL_FILE, || FileJournal::open(&data.join(JOURNAL_FILE), true));
    let journal = journal.map_err(|error| error.to_string())?;
    damage::reading(SNAPSHOT_FILE, || {
        let snapshot = Snapshot::open(&data.join(SNAPSHOT_FILE))
            .map_err(|error| way_back(data, &*journal.reader(), &error))?;
        let verified = verify(&snapshot, &*journal.reader(), anchor);
        verified.map_err(|error| match error {
            CheckpointError::Snapshot(error) => way_back(data, &*journal.reader(), &error),
            other => other.to_string(),
        })
    })
}

/// Why the letters of a directory cannot be read, if there are some.
pub(super) fn damage(data: &Path) -> Result<Option<String>, String> {
    let letters = data.join(LETTERS_FILE);
    if !letters.is_file() {
        err!(
            "stockline: {LETTERS_FILE} is missing: it was removed, or no server has run here since there is one"
        );
        return Ok(None);
    }
    match damage::reading(LETTERS_FILE, || Letters::open(&letters)) {
        Ok(_) => Ok(None),
        Err(error @ LettersError::InUse(_)) => Err(error.to_string()),
        Err(error) => Ok(Some(error.to_string())),
    }
}

pub fn run(options: &Options) -> i32 {
    let started = Instant::now();
    let journal_file = options.data.join(JOURNAL_FILE);
    if !journal_file.is_file() {
        err!("stockline: {} has no {JOURNAL_FILE}: is it a data directory?", options.data.display());
        return exit::DATA;
    }
    let report = (|| {
        let mut report = ledger(&options.data, options.anchor)?;
        report.wrong.extend(damage(&options.data)?);
        let trail_file = options.data.join(AUDIT_FILE);
        if !trail_file.is_file() {
            // A directory of a version before has none; one that has an anchor had one.
            let missing = "is missing: it was removed, or no server has run here since there is one";
            match options.audit_anchor.is_empty() {
                true => err!("stockline: {AUDIT_FILE} {missing}"),
                false => report.wrong.push(format!("{AUDIT_FILE} {missing}")),
            }
            return Ok((report, None));
        }
        let trail = damage::reading(AUDIT_FILE, || AuditTrail::open(&trail_file))
            .map_err(|error| error.to_string())?;
        let verified = trail.verify(&options.audit_anchor).map_err(|error| error.to_string())?;
        report.wrong.extend(verified.wrong);
        for anchor in verified.too_old {
            err!("stockline: nothing can be said of {anchor}: the audit trail is not kept so long");
        }
        Ok::<_, String>((report, Some(trail.ends().map_err(|error| error.to_string())?)))
    })();
    match report {
        Err(reason) => {
            err!("stockline: {reason}");
            exit::DATA
        }
        Ok((report, audited)) => {
            out!("last_lsn={} state_hash={} entries={}", report.last, report.state_hash, report.entries);
            out!("anchor={}", report.anchor);
            audited.iter().flatten().for_each(|end| out!("audit_anchor={end}"));
            let scope = if report.from_the_start { "everything" } else { "what the snapshot does not cover" };
            err!(
                "did {} entries again ({scope}) in {} ms",
                report.re_executed,
                started.elapsed().as_millis()
            );
            for wrong in &report.wrong {
                err!("stockline: {wrong}");
            }
            if report.wrong.is_empty() { exit::OK } else { exit::FAILED }
        }
    }
}
