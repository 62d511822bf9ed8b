//! `stockline import`: canonical events from a file or standard input, JSON lines, a JSON array, or CSV with a header.
//!
//! The input is read twice. First every row's form is checked: a bad row is named and nothing is sent. Then all are
//! sent, and each is judged by itself. Keys come from `source` and `id`, so the same file may be imported again after an
//! interruption. Neither memory nor complaints grow with the input.

mod rows;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Instant;

use stockline_client::{Client, ClientError, EventStream, Outcome};
use stockline_core::catalogue::NameKind;
use stockline_core::command::Command;
use stockline_core::id::{NodeId, ReservationId, SkuId};
use stockline_core::outcome::Code;
use stockline_core::record::EventRec;

use crate::command::demo::event_record;
use crate::command::{ProfileOption, with_client};
use crate::event_row::{Called, ParsedRow};
use crate::exit;
use crate::{err, out, say};
pub use rows::Mapping;
use rows::Rows;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// File of events, `-` for standard input: JSON lines, a JSON array, or CSV (`,`, `;` or tab) with a header
    file: PathBuf,
    #[command(flatten)]
    profile: ProfileOption,
    /// Names of foreign columns and values, as TOML: `[columns]`, `[values.FIELD]`, `[defaults]`
    #[arg(long, value_name = "FILE")]
    map: Option<PathBuf>,
    /// Events in one frame
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(1..=8_192))]
    batch: u16,
}

/// Complaints shown before the rest is only counted.
const COMPLAINTS_MAX: usize = 20;
/// Rows whose names are resolved at once, and names that are remembered.
const ROWS_PER_LOOK_UP: usize = 8_192;
const NAMES_MAX: usize = 1 << 20;

/// What is wrong with rows: the first of them, and how many.
#[derive(Default)]
struct Complaints {
    shown: Vec<String>,
    count: usize,
}

impl Complaints {
    fn add(&mut self, line: u64, reason: &str) {
        self.count += 1;
        if self.shown.len() < COMPLAINTS_MAX {
            self.shown.push(format!("{line}: {reason}"));
        }
    }

    fn print(&self, name: &str) {
        for complaint in &self.shown {
            err!("{name}:{complaint}");
        }
        if self.count > self.shown.len() {
            err!("{name}: and {} more", self.count - self.shown.len());
        }
    }
}

/// A long pass over the rows, shown on a terminal.
struct Progress<'a> {
    name: &'a str,
    is_shown: bool,
    last: Instant,
}

impl<'a> Progress<'a> {
    fn new(name: &'a str) -> Progress<'a> {
        Progress { name, is_shown: io::stderr().is_terminal(), last: Instant::now() }
    }

    fn at(&mut self, text: impl FnOnce() -> String) {
        if self.is_shown && self.last.elapsed().as_millis() >= 500 {
            say::complaint(format_args!("\r{}: {}", self.name, text()));
            self.last = Instant::now();
        }
    }

    fn end(&self) {
        if self.is_shown {
            say::complaint(format_args!("\r"));
        }
    }
}

pub fn run(options: &Options) -> i32 {
    let name = options.file.display().to_string().escape_debug().to_string();
    let mapping = match options.map.as_deref().map(Mapping::read).transpose() {
        Ok(mapping) => mapping.unwrap_or_default(),
        Err(reason) => {
            err!("stockline: {reason}");
            return exit::USAGE;
        }
    };
    let mut input = match open(&options.file) {
        Ok(input) => input,
        Err(error) => {
            err!("{name}: {error}");
            return exit::USAGE;
        }
    };
    let mut complaints = Complaints::default();
    let mut progress = Progress::new(&name);
    let counted = check_all(&mut input, &mapping, &mut complaints, |rows| {
        progress.at(|| format!("{rows} rows checked"))
    });
    progress.end();
    if complaints.count > 0 {
        complaints.print(&name);
        err!("stockline: nothing was sent; correct these rows and import again");
        return exit::USAGE;
    }
    if let Err(error) = input.seek(SeekFrom::Start(0)) {
        err!("{name}: {error}");
        return exit::USAGE;
    }
    with_client(&options.profile, async |client, _| {
        let rows = Rows::new(BufReader::with_capacity(1 << 16, input), &mapping);
        send(client, &name, rows, counted, usize::from(options.batch)).await
    })
}

/// Reads events as an import would and answers how many there are, or what is wrong with the first that are not.
pub fn check(input: &[u8]) -> Result<usize, Vec<String>> {
    let mut complaints = Complaints::default();
    let count = check_all(&mut io::Cursor::new(input), &Mapping::default(), &mut complaints, |_| {});
    if complaints.count == 0 { Ok(count) } else { Err(complaints.shown) }
}

fn check_all(
    input: &mut dyn Read,
    mapping: &Mapping,
    complaints: &mut Complaints,
    mut progress: impl FnMut(usize),
) -> usize {
    let mut rows = Rows::new(BufReader::with_capacity(1 << 16, input), mapping);
    let mut count = 0;
    while let Some((line, row)) = rows.next_row() {
        match row {
            Ok(_) => count += 1,
            Err(reason) => complaints.add(line, &reason),
        }
        progress(count);
    }
    if count == 0 && complaints.count == 0 {
        complaints.add(1, "there are no events in it");
    }
    count
}

/// The file; what can be read once only is copied to a temporary one first.
fn open(path: &Path) -> io::Result<File> {
    if path.as_os_str() != "-" {
        let file = File::open(path)?;
        let kind = file.metadata()?;
        if kind.is_dir() {
            return Err(io::Error::other("is a directory"));
        }
        if kind.is_file() {
            return Ok(file);
        }
        return spill(file);
    }
    spill(io::stdin())
}

fn spill(mut input: impl Read) -> io::Result<File> {
    let mut copy = tempfile::tempfile()?;
    io::copy(&mut input, &mut copy)?;
    copy.seek(SeekFrom::Start(0))?;
    Ok(copy)
}

/// Ids by name, as far as they are remembered.
struct Ids {
    kind: NameKind,
    known: HashMap<String, u32>,
}

impl Ids {
    fn new(kind: NameKind) -> Ids {
        Ids { kind, known: HashMap::new() }
    }

    async fn look_up(
        &mut self,
        client: &Client,
        names: impl Iterator<Item = &str>,
    ) -> Result<(), ClientError> {
        if self.known.len() > NAMES_MAX {
            self.known.clear();
        }
        let new: BTreeSet<&str> = names.filter(|name| !self.known.contains_key(*name)).collect();
        let new: Vec<&str> = new.into_iter().collect();
        let found = client.resolve(self.kind, &new, self.kind == NameKind::Sku).await?;
        for (name, id) in new.iter().zip(found) {
            match id {
                Ok(id) => drop(self.known.insert((*name).to_owned(), id)),
                Err(code @ Code::TooManySkus) => {
                    let text = format!("no sku {name:?} is made: this token has made as many as it may");
                    return Err(ClientError::Refused { code, text });
                }
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn get(&self, name: &str) -> Option<u32> {
        self.known.get(name).copied()
    }
}

/// Puts ids in place of the texts by which rows name reservations. Answers the texts that are those of several.
async fn reservations(
    client: &Client,
    rows: &mut [(u64, ParsedRow)],
) -> Result<BTreeSet<String>, ClientError> {
    let texts: BTreeSet<String> =
        rows.iter().filter_map(|(_, row)| row.called().map(str::to_owned)).collect();
    let wanted: Vec<&str> = texts.iter().map(String::as_str).collect();
    let found: BTreeMap<&str, Vec<u128>> = if wanted.is_empty() {
        BTreeMap::new()
    } else {
        wanted.iter().copied().zip(client.find(&wanted).await?).collect()
    };
    for (_, row) in rows {
        if let Some([only]) = row.called().and_then(|text| found.get(text)).map(Vec::as_slice) {
            row.reservation = Some(Called::Id(ReservationId(*only)));
        }
    }
    let several = found.into_iter().filter(|(_, ids)| ids.len() > 1);
    Ok(several.map(|(text, _)| text.to_owned()).collect())
}

/// Rows later in a file count as sent a little later, so that a file of one moment that is longer than the window of known keys
/// is taken whole, and a repeat of it still refused. The allowance for clocks that are ahead has room for 300 million rows.
const ROWS_PER_MS: u64 = 1_024;

/// What is said of a row if it is refused.
struct Sent {
    line: u64,
    text: String,
}

#[derive(Default)]
struct Tally {
    applied: usize,
    repeats: usize,
    refused: usize,
}

impl Tally {
    /// One row was refused: says why of the first of them.
    fn refuse(&mut self, name: &str, line: u64, reason: std::fmt::Arguments<'_>) {
        self.refused += 1;
        if self.refused <= COMPLAINTS_MAX {
            err!("{name}:{line}: {reason}");
        }
    }

    fn take(&mut self, name: &str, waiting: &mut VecDeque<Sent>, outcomes: Vec<Outcome>) {
        for outcome in outcomes {
            let Some(sent) = waiting.pop_front() else { return };
            match outcome.code {
                Code::Ok if outcome.repeat => self.repeats += 1,
                Code::Ok => self.applied += 1,
                code => {
                    let reason = format_args!("{}: {}{}", code.name(), sent.text, advice(code));
                    self.refuse(name, sent.line, reason);
                }
            }
        }
    }
}

fn advice(code: Code) -> &'static str {
    match code {
        Code::UnknownNode => ": the node is unknown, or none of this token's; it is kept as a dead letter",
        Code::EventInFuture => ": occurred_at is more than 300 s ahead of the server's clock",
        Code::KeyTooOld => {
            ": the server no longer knows what it took of this token then, this row perhaps; where it is new, give it a sent_at"
        }
        Code::KeyConflict => ": another event came under this source and id",
        _ => "",
    }
}

async fn send<R: io::BufRead>(
    client: Client,
    name: &str,
    mut rows: Rows<'_, R>,
    total: usize,
    batch: usize,
) -> Result<i32, ClientError> {
    let (mut nodes, mut skus) = (Ids::new(NameKind::Node), Ids::new(NameKind::Sku));
    let started = Instant::now();
    let mut progress = Progress::new(name);
    let mut waiting: VecDeque<Sent> = VecDeque::new();
    let (mut tally, mut sent) = (Tally::default(), 0);
    let mut stream = EventStream::new(client.clone(), batch, 16);
    loop {
        let mut some: Vec<(u64, ParsedRow)> = Vec::with_capacity(ROWS_PER_LOOK_UP);
        while some.len() < ROWS_PER_LOOK_UP
            && let Some((line, row)) = rows.next_row()
        {
            match row {
                Ok(row) => some.push((line, row)),
                Err(reason) => {
                    err!("{name}:{line}: {reason}");
                    err!("stockline: the input changed while it was sent; import it again");
                    return Ok(exit::FAILED);
                }
            }
        }
        if some.is_empty() {
            break;
        }
        let named = some.iter().flat_map(|(_, row)| [Some(row.node.as_str()), row.to_node.as_deref()]);
        nodes.look_up(&client, named.flatten()).await?;
        skus.look_up(&client, some.iter().map(|(_, row)| row.sku.as_str())).await?;
        let called = reservations(&client, &mut some).await?;
        for (line, row) in &some {
            if let Some(text) = row.called() {
                let reason =
                    if called.contains(text) { "several reservations are" } else { "no reservation is" };
                let code = Code::UnknownReservation.name();
                tally.refuse(name, *line, format_args!("{code}: {reason} called {text:?}"));
                continue;
            }
            let sku = SkuId(skus.get(&row.sku).unwrap_or(u32::MAX));
            let event = row.event(sku, |name| NodeId(nodes.get(name).map_or(NodeId::ANY.0, |id| id as u16)));
            let text = format!("{} of {:?} at {:?}", row.kind.name(), row.sku, row.node);
            waiting.push_back(Sent { line: *line, text });
            // Bound to its file: a repeat is known, or refused where it is so long ago that it no longer could be.
            let not_before = row.not_before.plus(line / ROWS_PER_MS);
            let issued_at_ms = Command::not_before(not_before).0;
            let record = EventRec { issued_at_ms, ..event_record(row.key, &event) };
            stream.push_with(record, &row.reason).await?;
            tally.take(name, &mut waiting, stream.take_results());
            sent += 1;
            progress.at(|| format!("{sent} of {total} events sent, {} answered", sent - waiting.len()));
        }
    }
    tally.take(name, &mut waiting, stream.finish().await?);
    progress.end();
    let Tally { applied, repeats, refused } = tally;
    if refused > COMPLAINTS_MAX {
        err!("{name}: and {} more refused", refused - COMPLAINTS_MAX);
    }
    out!(
        "applied={applied} duplicates={repeats} refused={refused} seconds={:.2}",
        started.elapsed().as_secs_f64()
    );
    Ok(if refused == 0 { exit::OK } else { exit::FAILED })
}
