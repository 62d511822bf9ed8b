//! `stockline import`: canonical events from a file or standard input, JSON lines or CSV with a header.
//!
//! The whole input is read and checked before anything is sent: a bad row is named and nothing changes. Keys
//! come from `source` and `id`, so the same file may be imported again after an interruption.

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::PathBuf;
use std::time::Instant;

use stockline_client::{Client, ClientError, EventStream};
use stockline_core::catalogue::NameKind;
use stockline_core::id::{NodeId, SkuId};
use stockline_core::outcome::Code;

use crate::command::demo::event_record;
use crate::command::{ProfileOption, with_client};
use crate::event_row::{EventRow, ParsedRow};
use crate::exit;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// File of events, `-` for standard input; JSON lines if the first character is `{`, else CSV
    file: PathBuf,
    #[command(flatten)]
    profile: ProfileOption,
    /// Events in one frame
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    batch: usize,
}

/// Complaints shown before the rest is only counted.
const COMPLAINTS_MAX: usize = 20;

pub fn run(options: &Options) -> i32 {
    let name = options.file.display().to_string();
    let rows = match read(&options.file) {
        Ok(rows) => rows,
        Err(complaints) => {
            for complaint in complaints.iter().take(COMPLAINTS_MAX) {
                eprintln!("{name}:{complaint}");
            }
            if complaints.len() > COMPLAINTS_MAX {
                eprintln!("{name}: and {} more", complaints.len() - COMPLAINTS_MAX);
            }
            eprintln!("stockline: nothing was sent; correct these rows and import again");
            return exit::USAGE;
        }
    };
    with_client(&options.profile, async |client, _| send(client, &name, rows, options.batch).await)
}

/// Reads events as an import would and answers how many there are, or what is wrong with each line that is.
pub fn check(input: &[u8]) -> Result<usize, Vec<String>> {
    parse(Box::new(std::io::Cursor::new(input.to_vec()))).map(|rows| rows.len())
}

fn read(path: &PathBuf) -> Result<Vec<(u64, ParsedRow)>, Vec<String>> {
    parse(if path.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).map_err(|error| vec![format!("1: {error}")])?)
    })
}

/// Line numbers and rows, or all complaints, each beginning with its line number.
fn parse(input: Box<dyn Read>) -> Result<Vec<(u64, ParsedRow)>, Vec<String>> {
    let mut input = BufReader::with_capacity(1 << 20, input);
    let first = input.fill_buf().map_err(|error| vec![format!("1: {error}")])?;
    if first.is_empty() {
        return Err(vec!["1: the input is empty; expected JSON lines, or CSV with a header".into()]);
    }
    let json = first.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    let mut rows = Vec::new();
    let mut complaints = Vec::new();
    let mut take = |line: u64, row: Result<EventRow, String>| match row.and_then(|row| row.parse()) {
        Ok(row) => rows.push((line, row)),
        Err(reason) => complaints.push(format!("{line}: {reason}")),
    };
    if json {
        for (index, line) in input.lines().enumerate() {
            let number = index as u64 + 1;
            match line {
                Ok(line) if line.trim().is_empty() => {}
                Ok(line) => take(number, serde_json::from_str(&line).map_err(|error| error.to_string())),
                Err(error) => {
                    take(number, Err(error.to_string()));
                    break;
                }
            }
        }
    } else {
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(input);
        let headers = reader.headers().cloned().map_err(|error| vec![format!("1: {error}")])?;
        for record in reader.records() {
            match record {
                Ok(record) => {
                    let line = record.position().map_or(0, csv::Position::line);
                    take(line, record.deserialize(Some(&headers)).map_err(|error| error.to_string()));
                }
                Err(error) => {
                    let line = error.position().map_or(0, csv::Position::line);
                    take(line, Err(error.to_string()));
                }
            }
        }
    }
    if complaints.is_empty() { Ok(rows) } else { Err(complaints) }
}

async fn ids(
    client: &Client,
    kind: NameKind,
    names: BTreeSet<&str>,
    create: bool,
) -> Result<HashMap<String, u32>, ClientError> {
    let names: Vec<&str> = names.into_iter().collect();
    let found = client.resolve(kind, &names, create).await?;
    Ok(names.iter().zip(found).filter_map(|(name, id)| Some(((*name).to_owned(), id.ok()?))).collect())
}

async fn send(
    client: Client,
    name: &str,
    rows: Vec<(u64, ParsedRow)>,
    batch: usize,
) -> Result<i32, ClientError> {
    let node_names =
        rows.iter().flat_map(|(_, row)| [Some(row.node.as_str()), row.to_node.as_deref()]).flatten();
    let nodes = ids(&client, NameKind::Node, node_names.collect(), false).await?;
    let skus = rows.iter().map(|(_, row)| row.sku.as_str()).collect();
    let skus = ids(&client, NameKind::Sku, skus, true).await?;
    let node = |name: &str| NodeId(nodes.get(name).map_or(NodeId::ANY.0, |id| *id as u16));
    let started = Instant::now();
    let progress = std::io::stderr().is_terminal();
    let total = rows.len();
    let mut shown = Instant::now();
    let mut outcomes = Vec::with_capacity(total);
    let mut stream = EventStream::new(client, batch, 16);
    for (index, (_, row)) in rows.iter().enumerate() {
        let sku = SkuId(skus.get(&row.sku).copied().unwrap_or(u32::MAX));
        let event = row.event(sku, node);
        stream.push(event_record(row.key, &event)).await?;
        outcomes.extend(stream.take_results());
        if shown.elapsed().as_millis() >= 500 && progress {
            eprint!("\r{name}: {} of {total} events sent, {} answered", index + 1, outcomes.len());
            shown = Instant::now();
        }
    }
    outcomes.extend(stream.finish().await?);
    if progress {
        eprint!("\r");
    }
    let (mut applied, mut repeats, mut refused) = (0usize, 0usize, 0usize);
    for ((line, row), outcome) in rows.iter().zip(&outcomes) {
        match outcome.code {
            Code::Ok if outcome.repeat => repeats += 1,
            Code::Ok => applied += 1,
            code => {
                refused += 1;
                if refused <= COMPLAINTS_MAX {
                    let (sku, node) = (&row.sku, &row.node);
                    eprintln!("{name}:{line}: {}: {} of {sku} at {node}", code.name(), row.kind.name());
                }
            }
        }
    }
    if refused > COMPLAINTS_MAX {
        eprintln!("{name}: and {} more refused", refused - COMPLAINTS_MAX);
    }
    println!(
        "applied={applied} duplicates={repeats} refused={refused} seconds={:.2}",
        started.elapsed().as_secs_f64()
    );
    Ok(if refused == 0 { exit::OK } else { exit::FAILED })
}
