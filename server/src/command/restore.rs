//! `stockline restore`: a data directory from a backup, or from another data directory that no server is using,
//! perhaps as it was at an earlier LSN.

use std::path::PathBuf;

use stockline_core::audit_trail::AuditTrail;
use stockline_core::backup;
use stockline_core::catalogue::NO_TOKEN;
use stockline_core::id::Lsn;
use stockline_core::journal::Journal;
use stockline_core::journal::file::FileJournal;
use stockline_core::letters::Letters;
use stockline_core::snapshot::Snapshot;
use stockline_core::verify::{recovered_catalogue, verify};

use crate::engine::{AUDIT_FILE, JOURNAL_FILE, LETTERS_FILE, SNAPSHOT_FILE, note, open_trail};
use crate::{data, exit};
use crate::{err, out};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Backup to restore
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// New data directory
    #[arg(long, value_name = "DIR", default_value = crate::config::DEFAULT_DATA)]
    data: PathBuf,
    /// The state as of this LSN: everything after it never was
    #[arg(long, value_name = "LSN")]
    at: Option<u64>,
    /// No token of the backup is good any more, the administrator's included: each is to be made again
    #[arg(long)]
    revoke_tokens: bool,
}

pub fn run(options: &Options) -> i32 {
    match restore(options) {
        Ok(report) => {
            out!("{report}");
            exit::OK
        }
        Err(reason) => {
            err!("stockline: {reason}");
            exit::DATA
        }
    }
}

fn restore(options: &Options) -> Result<String, String> {
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let from_journal = options.from.join(JOURNAL_FILE);
    if !from_journal.is_file() {
        return Err(format!("{} has no {JOURNAL_FILE}: is it a backup?", options.from.display()));
    }
    let journal = FileJournal::open(&from_journal, true).map_err(|error| said(&error))?;
    let snapshot = Snapshot::open(&options.from.join(SNAPSHOT_FILE)).map_err(|error| said(&error))?;
    let reader = journal.reader();
    data::make_whole(&options.data, |to| {
        let (journal_to, snapshot_to) = (to.join(JOURNAL_FILE), to.join(SNAPSHOT_FILE));
        let copied = match options.at {
            None => backup::copy(&snapshot, &*reader, &snapshot_to, &journal_to),
            Some(at) => backup::restore(&snapshot, &*reader, &snapshot_to, &journal_to, Lsn(at)),
        };
        copied.map_err(|error| said(&error))?;
        // A backup of a version before has none.
        let letters = Letters::open(&options.from.join(LETTERS_FILE)).map_err(|error| said(&error))?;
        letters.copy_to(&to.join(LETTERS_FILE)).map_err(|error| said(&error))?;
        let trail_from = options.from.join(AUDIT_FILE);
        if trail_from.is_file() {
            let trail = AuditTrail::open(&trail_from).map_err(|error| said(&error))?;
            if let Some(wrong) = trail.verify(&[]).map_err(|error| said(&error))?.wrong.into_iter().next() {
                return Err(wrong);
            }
            trail.copy_to(&to.join(AUDIT_FILE)).map_err(|error| said(&error))?;
        }
        // One that came without a trail begins a new one, which says so.
        let trail = open_trail(to, true).map_err(|error| said(&error))?;
        let at = options.at.map_or(String::new(), |at| format!(" at LSN {at}"));
        let what = format!("restore from {}{at}", options.from.display());
        note(&trail, &what).map_err(|error| said(&error))?;
        data::copy_identity(&options.from, to, !options.revoke_tokens).map_err(|error| said(&error))?;
        // Who restores it now knows what time it is.
        let now = crate::engine::wall_clock();
        data::DataDir::open(to).and_then(|to| to.note_use(now)).map_err(|error| said(&error))?;
        err!("copied; doing it again");
        let journal = FileJournal::open(&journal_to, true).map_err(|error| said(&error))?;
        let snapshot = Snapshot::open(&snapshot_to).map_err(|error| said(&error))?;
        let report = verify(&snapshot, &*journal.reader(), None).map_err(|error| said(&error))?;
        let origin = data::Origin::read(&options.from).map_err(|error| said(&error))?;
        if let Some(data::Origin { server, anchor }) = origin {
            err!("the backup is of server {server} as of {anchor}");
        }
        let (catalogue, _) =
            recovered_catalogue(&snapshot, &*journal.reader()).map_err(|error| said(&error))?;
        let good = catalogue.principals().iter().filter(|principal| principal.token_sha256 != NO_TOKEN);
        let good: Vec<&str> = good.map(|principal| &*principal.name).collect();
        if options.revoke_tokens {
            data::revoke_at_start(to, &good).map_err(|error| said(&error))?;
            err!("these tokens are revoked when the server starts: {}", good.join(", "));
        } else if !good.is_empty() {
            err!(
                "these tokens are good as they were then, also those that were replaced or revoked since: {}; restore with \
                 --revoke-tokens to have none of them good",
                good.join(", ")
            );
        }
        match report.wrong.first() {
            Some(wrong) => Err(wrong.clone()),
            None => Ok(format!(
                "last_lsn={} state_hash={} entries={}\nanchor={}",
                report.last, report.state_hash, report.entries, report.anchor
            )),
        }
    })
}
