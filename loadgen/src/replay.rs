//! Scenario replay: real invoices against the server, and an independent computation of what must come out.
//!
//! Every invoice is a reservation of all its lines on its country's channel, then confirmed and fulfilled;
//! cancellations are returns, write-offs adjustments. Operations overlap as `--in-flight` allows; the LSNs in
//! the replies say in which order the server took them, and in that order [`crate::model`] predicts every reply and
//! every bucket of every position. Keys come from the file and the seed: after a crash of the server, or of
//! this program, the same run goes on where it was.

pub mod file;
pub mod opening;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stockline_client::catalogue::NameKind;
use stockline_client::event::EventKind;
use stockline_client::label::Labels;
use stockline_client::outcome::Code;
use stockline_client::record::{EventRec, LineRec};
use stockline_client::wire::PlaceRec;
use stockline_client::{Client, ClientError, Fill, NewReservation, NewStep, Outcome, Profile, Verb};
use tokio::sync::Semaphore;
use xxhash_rust::xxh3::xxh3_128;

use crate::drive::Tally;
use crate::error::LoadError;
use crate::history::{Seen, What, check};
use crate::model::{ANY, Act, ChannelSetup, Due, Model, Setup};
use crate::replay::file::{Order, OrderKind};
use crate::report::{AuditReport, OpReport, Report};
use crate::stage::{Progress, define, event, resolve};

const TTL_MS: u32 = 24 * 3_600_000;
const OPS: [&str; 6] = ["receipt", "reserve", "confirm", "fulfil", "return", "adjust"];

/// Ids of everything the file names.
struct Names {
    skus: Vec<u32>,
    nodes: Vec<u16>,
    channels: BTreeMap<String, u16>,
}

/// What was sent, when, and what was answered.
struct Done {
    /// Its place among the operations reported.
    op: usize,
    act: Act,
    outcome: Outcome,
    sent: Instant,
    replied: Instant,
}

/// What one task brings home.
#[derive(Default)]
struct Log {
    done: Vec<Done>,
}

impl Log {
    fn push(&mut self, op: usize, act: Act, outcome: Outcome, sent: Instant) {
        self.done.push(Done { op, act, outcome, sent, replied: Instant::now() });
    }
}

pub struct ReplaySettings<'a> {
    pub file: &'a Path,
    pub nodes: usize,
    pub connections: usize,
    pub in_flight: usize,
    pub seed: u64,
}

pub async fn run(profile: &Profile, settings: &ReplaySettings<'_>) -> Result<Report, LoadError> {
    let read = file::read(settings.file)?;
    let opening = opening::opening(&read, settings.nodes);
    eprintln!(
        "{}: {} rows, {} invoices, {} returns, {} write-offs, {} skus, {} channels; {} invoices short in file order",
        settings.file.display(),
        read.rows,
        read.count(OrderKind::Sale),
        read.count(OrderKind::Return),
        read.count(OrderKind::WriteOff),
        read.skus.len(),
        read.channels.len(),
        opening.short
    );
    let mut clients = Vec::new();
    for _ in 0..settings.connections {
        clients.push(Client::connect(profile).await?);
    }
    eprintln!("connected to {}", profile.quic);
    let client = &clients[0];
    let node_names: Vec<String> = (0..settings.nodes).map(|index| format!("node-{index}")).collect();
    define(client, &node_names, &read.channels).await?;
    let nodes = resolve(client, NameKind::Node, &node_names).await?;
    let channel_ids = resolve(client, NameKind::Channel, &read.channels).await?;
    let names = Arc::new(Names {
        skus: resolve(client, NameKind::Sku, &read.skus).await?,
        nodes: nodes.iter().map(|id| *id as u16).collect(),
        channels: read.channels.iter().cloned().zip(channel_ids.iter().map(|id| *id as u16)).collect(),
    });
    let mut log = receive(client, &names, &opening, settings.seed).await?;
    check_fresh(client, &names, &log).await?;

    let started = Instant::now();
    let room = Arc::new(Semaphore::new(settings.in_flight.max(1)));
    let mut tasks = Vec::new();
    let mut progress = Progress::new("orders");
    let orders = Arc::new(read.orders);
    let total = orders.len();
    for index in 0..total {
        let place = Arc::clone(&room).acquire_owned().await;
        let place = place.map_err(|error| LoadError::Server(error.to_string()))?;
        let (client, names, orders) =
            (clients[index % clients.len()].clone(), Arc::clone(&names), Arc::clone(&orders));
        let seed = settings.seed;
        tasks.push(tokio::spawn(async move {
            let played = play(&client, &names, &orders[index], index, seed).await;
            drop(place);
            played
        }));
        progress.at(index, total);
    }
    for task in tasks {
        let played = task.await.map_err(|error| LoadError::Server(error.to_string()))??;
        log.done.extend(played.done);
    }
    progress.end(orders.len());
    let time = started.elapsed();
    let audit = audit(client, &names, &log, settings.nodes).await?;
    Ok(report(settings, &log, time, read.skipped, audit))
}

fn key(seed: u64, what: &str) -> u128 {
    xxh3_128(format!("replay/{seed}/{what}").as_bytes()).max(1)
}

/// Opening receipts: what the file's orders are served from.
async fn receive(
    client: &Client,
    names: &Names,
    opening: &opening::Opening,
    seed: u64,
) -> Result<Log, LoadError> {
    let mut log = Log::default();
    let mut receipts: Vec<EventRec> = Vec::new();
    for (sku, by_node) in opening.units.iter().enumerate() {
        for (node, units) in by_node.iter().enumerate().filter(|(_, units)| **units > 0) {
            let key = key(seed, &format!("opening/{sku}/{node}"));
            let at = file::EPOCH_MS;
            let record = event(key, EventKind::Receipt, names.skus[sku], names.nodes[node], *units, at);
            receipts.push(record);
        }
    }
    for receipts in receipts.chunks(2_000) {
        let started = Instant::now();
        let outcomes = client.tell(receipts.to_vec()).await?;
        for (record, outcome) in receipts.iter().zip(outcomes) {
            log.push(0, Act::Event(Box::new(*record)), outcome, started);
        }
    }
    Ok(log)
}

/// The server must know nothing of these skus but an earlier part of this same run.
async fn check_fresh(client: &Client, names: &Names, log: &Log) -> Result<(), LoadError> {
    if log.done.iter().all(|done| done.outcome.repeat) {
        eprintln!("this run was begun before: going on with the same keys");
        return Ok(());
    }
    let places: Vec<PlaceRec> = places(names).collect();
    let units: i64 = client.positions(&places).await?.iter().map(|position| position.units[0]).sum();
    let received: i64 = log
        .done
        .iter()
        .map(|done| match &done.act {
            Act::Event(event) => event.quantity,
            _ => 0,
        })
        .sum();
    if units == received {
        Ok(())
    } else {
        let text =
            "the server already has other stock of these skus; use an empty data directory or its seed";
        Err(LoadError::Server(text.into()))
    }
}

fn places(names: &Names) -> impl Iterator<Item = PlaceRec> {
    names.skus.iter().flat_map(|sku| names.nodes.iter().map(|node| PlaceRec { sku: *sku, node: *node }))
}

/// Sends one order through its life.
async fn play(
    client: &Client,
    names: &Names,
    order: &Order,
    index: usize,
    seed: u64,
) -> Result<Log, ClientError> {
    let mut log = Log::default();
    if order.kind != OrderKind::Sale {
        // Both are told at the first node, line by line.
        let (op, kind) = match order.kind {
            OrderKind::Return => (4, EventKind::Return),
            _ => (5, EventKind::Adjustment),
        };
        let event_of = |(line, (sku, quantity)): (usize, &(usize, i64))| {
            let key = key(seed, &format!("{index}/{}/{line}", order.number));
            let signed = if order.kind == OrderKind::Return { *quantity } else { -*quantity };
            event(key, kind, names.skus[*sku], names.nodes[0], signed, order.at_ms)
        };
        let events: Vec<EventRec> = order.lines.iter().enumerate().map(event_of).collect();
        let started = Instant::now();
        let outcomes = client.tell(events.clone()).await?;
        for (record, outcome) in events.iter().zip(outcomes) {
            log.push(op, Act::Event(Box::new(*record)), outcome, started);
        }
        return Ok(log);
    }
    let id = key(seed, &format!("{index}/{}", order.number));
    let line = |(sku, quantity): &(usize, i64)| LineRec {
        sku: names.skus[*sku],
        node: ANY,
        group: ANY,
        quantity: *quantity as u32,
    };
    let lines: Vec<LineRec> = order.lines.iter().map(line).collect();
    let new = NewReservation {
        id,
        channel: names.channels[&order.channel],
        ttl_ms: TTL_MS,
        fill: Fill::All,
        customer: 0,
        zone: u16::MAX,
        labels: Labels::NONE,
        lines: lines.clone(),
    };
    let act = Act::Reserve {
        id,
        channel: new.channel,
        ttl_ms: TTL_MS,
        partial: false,
        customer: 0,
        zone: u16::MAX,
        lines,
    };
    let started = Instant::now();
    let outcome = one(client.reserve(&[new]).await?)?;
    let held = outcome.code == Code::Ok;
    log.push(1, act, outcome, started);
    if !held {
        return Ok(log);
    }
    for (op, verb) in [(2, Verb::Confirm), (3, Verb::Fulfil)] {
        let key = key(seed, &format!("{index}/{}/{}", order.number, verb as u8));
        let started = Instant::now();
        let outcome = one(client.transition(&[NewStep::whole(key, id, verb)]).await?)?;
        log.push(op, Act::Step { id, verb: verb as u8, ttl_ms: 0, lines: Vec::new() }, outcome, started);
    }
    Ok(log)
}

fn one(outcomes: Vec<Outcome>) -> Result<Outcome, ClientError> {
    outcomes.into_iter().next().ok_or_else(|| ClientError::Protocol("no result for a command".into()))
}

/// Predicts every reply in the order of LSNs, and every position at the end.
async fn audit(client: &Client, names: &Names, log: &Log, nodes: usize) -> Result<AuditReport, LoadError> {
    let mut tally = Tally { checked: log.done.len() as u64, ..Tally::default() };
    let setup = Setup {
        skus: names.skus.iter().max().map_or(0, |most| most + 1),
        nodes: names.nodes.iter().enumerate().map(|(index, node)| (*node, index as u16 + 1)).collect(),
        groups: BTreeMap::new(),
        channels: names.channels.values().map(|channel| (*channel, ChannelSetup::default())).collect(),
        ..Setup::default()
    };
    let begin = log.done.iter().map(|done| done.sent).min().unwrap_or_else(Instant::now);
    let seen = |done: &Done| Seen {
        // A run that goes on where an earlier one was gets answers to what that one sent.
        sent: if done.outcome.repeat { 0 } else { done.sent.duration_since(begin).as_nanos() as u64 },
        replied: done.replied.duration_since(begin).as_nanos() as u64,
        lsn: done.outcome.lsn,
        what: What::Command {
            act: done.act.clone(),
            now_ms: None,
            answer: Some(Due {
                code: done.outcome.code,
                state: done.outcome.state,
                late: done.outcome.late,
                expires_at_ms: done.outcome.expires_at_ms,
                parts: done.outcome.parts.clone(),
            }),
        },
    };
    let mut history: Vec<Seen> = log.done.iter().map(seen).collect();
    let mut model = Model::new(setup);
    for wrong in check(&mut model, &mut history) {
        tally.wrong(|| wrong);
    }
    let places: Vec<PlaceRec> = places(names).collect();
    let positions = client.positions(&places).await?;
    for (index, position) in positions.iter().enumerate() {
        tally.checked += 1;
        let due = model.units(names.skus[index / nodes], names.nodes[index % nodes]);
        if position.units != due {
            tally.wrong(|| {
                format!(
                    "sku {} node {}: {:?}, should be {due:?}",
                    index / nodes,
                    index % nodes,
                    position.units
                )
            });
        }
    }
    if positions.len() != places.len() {
        tally.wrong(|| format!("{} positions answered of {}", positions.len(), places.len()));
    }
    Ok(AuditReport {
        ok: tally.wrong == 0,
        checked: tally.checked,
        wrong: tally.wrong,
        findings: tally.wrongs,
    })
}

fn report(
    settings: &ReplaySettings<'_>,
    log: &Log,
    time: Duration,
    skipped: Vec<(String, u64)>,
    audit: AuditReport,
) -> Report {
    let mut tallies = vec![Tally::default(); OPS.len()];
    for done in &log.done {
        let tally = &mut tallies[done.op];
        tally.times_us.saturating_record(done.replied.duration_since(done.sent).as_micros() as u64);
        tally.frames += 1;
        tally.lines += done.outcome.parts.len().max(1) as u64;
        tally.refused += u64::from(done.outcome.code != Code::Ok);
    }
    Report {
        scenario: "replay".into(),
        seconds: time.as_secs_f64(),
        connections: settings.connections,
        in_flight: settings.in_flight,
        batch: 1,
        offered_per_s: None,
        results: OPS.iter().zip(&tallies).map(|(op, tally)| OpReport::of(op, tally, time)).collect(),
        floor: None,
        skipped,
        audit,
    }
}
