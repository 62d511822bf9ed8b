//! `stockline backup`: a consistent copy of a data directory, while its server is running or not.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use stockline_core::journal::Journal;
use stockline_core::journal::file::FileJournal;
use stockline_core::letters::Letters;
use stockline_core::snapshot::Snapshot;

use crate::command::verify;
use crate::engine::{JOURNAL_FILE, LETTERS_FILE, SNAPSHOT_FILE, backup_files, note, open_trail};
use crate::{control, data, exit};
use crate::{err, out};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Data directory
    #[arg(long, value_name = "DIR", default_value = crate::config::DEFAULT_DATA)]
    data: PathBuf,
    /// New directory for the copy, on the server's machine
    to: PathBuf,
}

pub fn run(options: &Options) -> i32 {
    let started = Instant::now();
    if !options.data.join(JOURNAL_FILE).is_file() {
        err!("stockline: {} has no {JOURNAL_FILE}: is it a data directory?", options.data.display());
        return exit::DATA;
    }
    match copy(options) {
        Ok(anchor) => {
            err!("copied in {} ms; reading it again", started.elapsed().as_millis());
            if let Err(reason) = check(&options.to, &anchor) {
                err!("stockline: the copy in {} is not sound: {reason}", options.to.display());
                return exit::DATA;
            }
            out!("anchor={anchor}");
            err!("backup in {} ms: {}", started.elapsed().as_millis(), options.to.display());
            exit::OK
        }
        Err(reason) => {
            err!("stockline: {reason}");
            exit::DATA
        }
    }
}

/// Whether the copy, as it lies on the disk, is whole and goes as far as it should.
fn check(copy: &Path, anchor: &str) -> Result<(), String> {
    let report = verify::ledger(copy, Some(anchor.parse().map_err(|_| "the server's answer is no anchor")?))?;
    let wrong = report.wrong.into_iter().chain(verify::damage(copy)?);
    wrong.into_iter().next().map_or(Ok(()), Err)
}

fn copy(options: &Options) -> Result<String, String> {
    let to = std::path::absolute(&options.to).map_err(|error| error.to_string())?;
    let text = to.to_str().filter(|text| !text.contains('\n')).ok_or("the directory's name is no text")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start: {error}"))?;
    let asked = runtime.block_on(async {
        let question = format!("backup {text}");
        let asking = control::ask(&options.data, &question);
        tokio::pin!(asking);
        loop {
            tokio::select! {
                answer = &mut asking => break answer,
                () = tokio::time::sleep(Duration::from_secs(2)) => err!("{} bytes copied", data::part_bytes(&to)),
            }
        }
    });
    match asked {
        Some(answer) => {
            let answer = answer.map_err(|error| format!("the server went away: {error}"))?;
            let answer = answer.trim_end();
            match answer.split_once("ok anchor=") {
                Some((_, anchor)) => Ok(anchor.to_owned()),
                None => Err(answer.trim_start_matches("error ").to_owned()),
            }
        }
        // No server: the files are free.
        None => {
            let open = |name: &str| options.data.join(name);
            let journal = FileJournal::open(&open(JOURNAL_FILE), true).map_err(|error| error.to_string())?;
            let snapshot = Snapshot::open(&open(SNAPSHOT_FILE)).map_err(|error| error.to_string())?;
            let letters = Letters::open(&open(LETTERS_FILE)).map_err(|error| error.to_string())?;
            let trail = open_trail(&options.data, true).map_err(|error| error.to_string())?;
            note(&trail, &format!("backup {text}")).map_err(|error| error.to_string())?;
            let beside = (&letters, &trail);
            let anchor = backup_files(&snapshot, &*journal.reader(), beside, &options.data, &to)?;
            Ok(anchor.to_string())
        }
    }
}
