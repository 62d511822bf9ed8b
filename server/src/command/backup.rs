//! `stockline backup`: a consistent copy of a data directory, while its server is running or not.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use stockline_core::journal::Journal;
use stockline_core::journal::file::FileJournal;
use stockline_core::letters::Letters;
use stockline_core::snapshot::Snapshot;

use crate::engine::{JOURNAL_FILE, LETTERS_FILE, SNAPSHOT_FILE, backup_files, note, open_trail};
use crate::{control, exit};

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
        eprintln!("stockline: {} has no {JOURNAL_FILE}: is it a data directory?", options.data.display());
        return exit::DATA;
    }
    match copy(options) {
        Ok(anchor) => {
            println!("anchor={anchor}");
            eprintln!("backup in {} ms: {}", started.elapsed().as_millis(), options.to.display());
            exit::OK
        }
        Err(reason) => {
            eprintln!("stockline: {reason}");
            exit::DATA
        }
    }
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
                () = tokio::time::sleep(Duration::from_secs(2)) => eprintln!("{} bytes copied", size(&to.with_added_extension("part"))),
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

/// Bytes in a directory so far.
fn size(directory: &Path) -> u64 {
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
}
