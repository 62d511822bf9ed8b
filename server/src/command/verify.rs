//! `stockline verify`: reads a data directory that no server is using and checks everything that can be.

use std::path::PathBuf;
use std::time::Instant;

use stockline_core::audit_trail::{AuditAnchor, AuditTrail};
use stockline_core::chain::Anchor;
use stockline_core::journal::Journal;
use stockline_core::journal::file::FileJournal;
use stockline_core::snapshot::Snapshot;
use stockline_core::verify::verify;

use crate::engine::{AUDIT_FILE, JOURNAL_FILE, SNAPSHOT_FILE};
use crate::exit;

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

pub fn run(options: &Options) -> i32 {
    let started = Instant::now();
    let journal_file = options.data.join(JOURNAL_FILE);
    if !journal_file.is_file() {
        eprintln!("stockline: {} has no {JOURNAL_FILE}: is it a data directory?", options.data.display());
        return exit::DATA;
    }
    let report = (|| {
        let journal = FileJournal::open(&journal_file, true).map_err(|error| error.to_string())?;
        let snapshot =
            Snapshot::open(&options.data.join(SNAPSHOT_FILE)).map_err(|error| error.to_string())?;
        let mut report =
            verify(&snapshot, &*journal.reader(), options.anchor).map_err(|error| error.to_string())?;
        let trail_file = options.data.join(AUDIT_FILE);
        if !trail_file.is_file() {
            // A directory of a version before has none; one that has an anchor had one.
            let missing = "is missing: it was removed, or no server has run here since there is one";
            match options.audit_anchor.is_empty() {
                true => eprintln!("stockline: {AUDIT_FILE} {missing}"),
                false => report.wrong.push(format!("{AUDIT_FILE} {missing}")),
            }
            return Ok((report, None));
        }
        let trail = AuditTrail::open(&trail_file).map_err(|error| error.to_string())?;
        let verified = trail.verify(&options.audit_anchor).map_err(|error| error.to_string())?;
        report.wrong.extend(verified.wrong);
        for anchor in verified.too_old {
            eprintln!("stockline: nothing can be said of {anchor}: the audit trail is not kept so long");
        }
        Ok::<_, String>((report, Some(trail.ends().map_err(|error| error.to_string())?)))
    })();
    match report {
        Err(reason) => {
            eprintln!("stockline: {reason}");
            exit::DATA
        }
        Ok((report, audited)) => {
            println!("last_lsn={} state_hash={} entries={}", report.last, report.state_hash, report.entries);
            println!("anchor={}", report.anchor);
            audited.iter().flatten().for_each(|end| println!("audit_anchor={end}"));
            let scope = if report.from_the_start { "everything" } else { "what the snapshot does not cover" };
            eprintln!(
                "did {} entries again ({scope}) in {} ms",
                report.re_executed,
                started.elapsed().as_millis()
            );
            for wrong in &report.wrong {
                eprintln!("stockline: {wrong}");
            }
            if report.wrong.is_empty() { exit::OK } else { exit::FAILED }
        }
    }
}
