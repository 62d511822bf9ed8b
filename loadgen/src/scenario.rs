//! The scenarios browse, checkout, flash-sale, warehouse and mixed; replay has a folder of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use stockline_client::event::EventKind;
use stockline_client::outcome::{Code, State};
use stockline_client::record::{LineRec, ReserveRec};
use stockline_client::wire::{
    self, ArchivedAvailabilityAnswer, ArchivedRefusal, ArchivedResults, Availability, Events, FrameType,
    QueryRec, RawFrame, Reservations,
};
use stockline_client::{Client, ClientError, Connection, Profile};

use crate::audit::{Granted, compare};
use crate::dice::{Dice, Zipf};
use crate::drive::{Load, Pace, Tally, drive};
use crate::error::LoadError;
use crate::report::{AuditReport, OpReport, Report};
use crate::stage::{Stage, event};

/// What a run is asked to do.
#[derive(Clone, Debug)]
pub struct Settings {
    pub scenario: Scenario,
    pub connections: usize,
    /// Frames in flight over all connections.
    pub in_flight: usize,
    pub batch: usize,
    pub rate: Option<f64>,
    pub seconds: f64,
    pub skus: usize,
    pub nodes: usize,
    pub zipf: f64,
    pub seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Availability questions on stock that stands still: every answer is known before.
    Browse,
    /// One-line reservations over all skus, held.
    Checkout,
    /// The same on one sku with little stock: exactly what there is may be granted.
    FlashSale,
    /// Receipts and adjustments.
    Warehouse,
    /// Half the connections ask, half reserve.
    Mixed,
}

impl Scenario {
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Browse => "browse",
            Scenario::Checkout => "checkout",
            Scenario::FlashSale => "flash-sale",
            Scenario::Warehouse => "warehouse",
            Scenario::Mixed => "mixed",
        }
    }
}

const WARM_UP: Duration = Duration::from_millis(500);
/// Units on the shelf for each sku; flash-sale has fewer, to run out.
const UNITS: i64 = 1_000_000;
const FLASH_UNITS: i64 = 50_000;
/// Skus to touch, drawn once: a power of two.
const PICKS: usize = 1 << 16;
const TTL_MS: u32 = 3_600_000;

/// Skus in the order in which they are asked for. Which ones a request touched can be told from its id.
#[derive(Clone)]
struct Picks {
    picks: Arc<Vec<u32>>,
    offset: usize,
    batch: usize,
}

impl Picks {
    fn of(&self, request: u32, line: usize) -> usize {
        self.picks[(self.offset + request as usize * self.batch + line) & (PICKS - 1)] as usize
    }
}

struct Browser {
    stage: Arc<Stage>,
    picks: Picks,
    /// What is free by sku, or nothing where others reserve meanwhile.
    exact: Option<Arc<Vec<i64>>>,
    most: Arc<Vec<i64>>,
    as_of: u64,
    question: Availability,
}

/// A refusal frame, counted as an error, or `false` if the frame is none.
fn is_refusal(frame: RawFrame<'_>, tally: &mut Tally) -> bool {
    if frame.kind != FrameType::Refusal {
        return false;
    }
    tally.errors += 1;
    if let Ok(refusal) = wire::access::<ArchivedRefusal>(frame.archive)
        && tally.wrongs.len() < 3
    {
        tally.wrongs.push(format!("refused: {}", String::from_utf8_lossy(&refusal.text)));
    }
    true
}

impl Load for Browser {
    fn next(&mut self, request: u32, out: &mut Vec<u8>) -> u64 {
        let batch = self.picks.batch;
        self.question.skus.clear();
        for line in 0..batch {
            self.question.skus.push(self.stage.skus[self.picks.of(request, line)]);
        }
        wire::encode(out, FrameType::Availability, request, &self.question);
        batch as u64
    }

    fn check(&mut self, frame: RawFrame<'_>, tally: &mut Tally) {
        if is_refusal(frame, tally) {
            return;
        }
        let Ok(answer) = wire::access::<ArchivedAvailabilityAnswer>(frame.archive) else {
            return tally.wrong(|| "an availability answer that cannot be read".into());
        };
        let as_of = answer.as_of_lsn.to_native();
        if as_of < self.as_of {
            tally.wrong(|| format!("as of LSN {as_of} after LSN {} was seen", self.as_of));
        }
        self.as_of = as_of;
        if answer.items.len() != self.picks.batch {
            return tally.wrong(|| format!("{} items for {} skus", answer.items.len(), self.picks.batch));
        }
        for (line, item) in answer.items.iter().enumerate() {
            tally.checked += 1;
            let index = self.picks.of(frame.request, line);
            let available = item.available.to_native() as i64;
            let right = match &self.exact {
                Some(exact) => available == exact[index],
                None => available <= self.most[index],
            };
            if !right {
                tally.wrong(|| format!("sku {index}: {available} available, of {}", self.most[index]));
            }
        }
    }
}

struct Buyer {
    stage: Arc<Stage>,
    picks: Picks,
    /// Ids of this connection's reservations: this plus request and line.
    id_base: u128,
    clock: (u64, Instant),
    flash: bool,
    granted: Granted,
    body: Reservations,
}

impl Buyer {
    fn sku(&self, request: u32, line: usize) -> usize {
        if self.flash { 0 } else { self.picks.of(request, line) }
    }
}

impl Load for Buyer {
    fn next(&mut self, request: u32, out: &mut Vec<u8>) -> u64 {
        let batch = self.picks.batch;
        self.body.reservations.clear();
        self.body.lines.clear();
        let issued_at_ms = self.clock.0 + self.clock.1.elapsed().as_millis() as u64;
        for line in 0..batch {
            let id = self.id_base + (u128::from(request) << 16) + line as u128;
            self.body.reservations.push(ReserveRec {
                key: id,
                issued_at_ms,
                id,
                channel: self.stage.channel,
                ttl_ms: TTL_MS,
                fill: 0,
                customer: 0,
                zone: u16::MAX,
                line_count: 1,
                label_count: 0,
            });
            let sku = self.stage.skus[self.sku(request, line)];
            self.body.lines.push(LineRec { sku, node: u16::MAX, group: u16::MAX, quantity: 1 });
        }
        wire::encode(out, FrameType::Reserve, request, &self.body);
        batch as u64
    }

    fn check(&mut self, frame: RawFrame<'_>, tally: &mut Tally) {
        if is_refusal(frame, tally) {
            return;
        }
        let Ok(answer) = wire::access::<ArchivedResults>(frame.archive) else {
            return tally.wrong(|| "results that cannot be read".into());
        };
        if answer.results.len() != self.picks.batch {
            return tally.wrong(|| format!("{} results for {}", answer.results.len(), self.picks.batch));
        }
        let mut parts = answer.parts.iter();
        for (line, result) in answer.results.iter().enumerate() {
            tally.checked += 1;
            let index = self.sku(frame.request, line);
            let place = self.stage.place(index);
            let mut units = 0;
            let mut elsewhere = false;
            for part in parts.by_ref().take(result.part_count.to_native() as usize) {
                units += i64::from(part.quantity.to_native());
                elsewhere |= part.sku.to_native() != place.sku || part.node.to_native() != place.node;
            }
            match Code::from_number(result.code) {
                Some(Code::Ok) => {
                    self.granted.held[index] += units;
                    if units != 1 || elsewhere || result.state != State::Held as u8 || result.repeat != 0 {
                        tally.wrong(|| {
                            format!("sku {index}: granted {units} units, repeat {}", result.repeat)
                        });
                    }
                }
                Some(Code::InsufficientStock) => {
                    tally.refused += 1;
                    if units != 0 {
                        tally.wrong(|| format!("sku {index}: refused with {units} available"));
                    }
                }
                code => {
                    tally.errors += 1;
                    tally.wrong(|| format!("sku {index}: {code:?}"));
                }
            }
        }
    }
}

struct Teller {
    stage: Arc<Stage>,
    picks: Picks,
    key_base: u128,
    clock: (u64, Instant),
    granted: Granted,
    body: Events,
}

/// Two received, then one lost again.
fn change(request: u32, line: usize) -> i64 {
    if (request as usize + line).is_multiple_of(2) { 2 } else { -1 }
}

impl Load for Teller {
    fn next(&mut self, request: u32, out: &mut Vec<u8>) -> u64 {
        let batch = self.picks.batch;
        self.body.events.clear();
        let now = self.clock.0 + self.clock.1.elapsed().as_millis() as u64;
        for line in 0..batch {
            let place = self.stage.place(self.picks.of(request, line));
            let units = change(request, line);
            let kind = if units > 0 { EventKind::Receipt } else { EventKind::Adjustment };
            let key = self.key_base + (u128::from(request) << 16) + line as u128;
            let mut event = event(key, kind, place.sku, place.node, units, now);
            event.issued_at_ms = now;
            self.body.events.push(event);
        }
        wire::encode(out, FrameType::Events, request, &self.body);
        batch as u64
    }

    fn check(&mut self, frame: RawFrame<'_>, tally: &mut Tally) {
        if is_refusal(frame, tally) {
            return;
        }
        let Ok(answer) = wire::access::<ArchivedResults>(frame.archive) else {
            return tally.wrong(|| "results that cannot be read".into());
        };
        for (line, result) in answer.results.iter().enumerate() {
            tally.checked += 1;
            let index = self.picks.of(frame.request, line);
            if result.code == Code::Ok as u8 {
                self.granted.free[index] += change(frame.request, line);
            } else {
                tally.errors += 1;
                tally.wrong(|| format!("sku {index}: event refused with code {}", result.code));
            }
        }
    }
}

/// What one connection is; all of a kind are reported together.
enum Role {
    Browser(Browser),
    Buyer(Buyer),
    Teller(Teller),
}

impl Role {
    fn op(&self) -> &'static str {
        match self {
            Role::Browser(_) => "availability",
            Role::Buyer(_) => "reserve",
            Role::Teller(_) => "event",
        }
    }

    async fn drive(self, connection: Connection, pace: &Pace) -> Result<Played, ClientError> {
        let op = self.op();
        let Connection { sink, source, .. } = connection;
        let (tally, time, granted) = match self {
            Role::Browser(mut load) => {
                let (tally, time) = drive(sink, source, &mut load, pace).await?;
                (tally, time, None)
            }
            Role::Buyer(mut load) => {
                let (tally, time) = drive(sink, source, &mut load, pace).await?;
                (tally, time, Some(load.granted))
            }
            Role::Teller(mut load) => {
                let (tally, time) = drive(sink, source, &mut load, pace).await?;
                (tally, time, Some(load.granted))
            }
        };
        Ok(Played { op, tally, time, granted })
    }
}

struct Played {
    op: &'static str,
    tally: Tally,
    time: Duration,
    granted: Option<Granted>,
}

/// Sets the stage, plays the scenario and audits it.
pub async fn run(profile: &Profile, settings: &Settings) -> Result<Report, LoadError> {
    let client = Client::connect(profile).await?;
    let flash = settings.scenario == Scenario::FlashSale;
    let units = if flash { FLASH_UNITS } else { UNITS };
    let skus = if flash { 1 } else { settings.skus };
    let stage = Arc::new(Stage::set(&client, skus, settings.nodes, units).await?);
    let before = stage.positions(&client).await?;
    let free: Arc<Vec<i64>> = Arc::new(before.iter().map(|position| position.units[0].max(0)).collect());
    let zipf = Zipf::new(skus, settings.zipf);
    let mut dice = Dice::new(settings.seed);
    // Rank r is not sku r: neighbours in popularity do not lie side by side in memory.
    let spread = |rank: usize| (rank as u64).wrapping_mul(0x9e37_79b1) as usize % skus;
    let picks: Arc<Vec<u32>> = Arc::new((0..PICKS).map(|_| spread(zipf.pick(&mut dice)) as u32).collect());
    let progress = Arc::new(AtomicU64::new(0));
    let pace = Pace {
        in_flight: (settings.in_flight / settings.connections).max(1),
        rate: settings.rate.map(|rate| rate / settings.connections as f64),
        warm_up: WARM_UP,
        time: Duration::from_secs_f64(settings.seconds),
        frames_max: u64::MAX,
        progress: Arc::clone(&progress),
    };
    // Ids of this run differ from those of any other, also with the same seed.
    let run_id = (u128::from(client.now_ms()) << 80) | (u128::from(settings.seed & 0xffff) << 64);
    let mut tasks = Vec::new();
    for index in 0..settings.connections {
        let connection = Connection::open(profile).await?;
        let clock = (connection.welcome.now_ms, connection.welcomed);
        let picks = Picks {
            picks: Arc::clone(&picks),
            offset: index * PICKS / settings.connections,
            batch: settings.batch,
        };
        let id_base = run_id | (index as u128 + 1) << 52;
        let browse = match settings.scenario {
            Scenario::Browse => true,
            Scenario::Mixed => index % 2 == 0,
            _ => false,
        };
        let role = if browse {
            let query = QueryRec {
                channel: stage.channel,
                group: u16::MAX,
                detail: 0,
                sku_count: settings.batch as u32,
            };
            let exact = (settings.scenario == Scenario::Browse).then(|| Arc::clone(&free));
            Role::Browser(Browser {
                stage: Arc::clone(&stage),
                picks,
                exact,
                most: Arc::clone(&free),
                as_of: 0,
                question: Availability { queries: vec![query], skus: Vec::new() },
            })
        } else if settings.scenario == Scenario::Warehouse {
            let granted = Granted::none(skus);
            let body = Events::default();
            Role::Teller(Teller { stage: Arc::clone(&stage), picks, key_base: id_base, clock, granted, body })
        } else {
            let granted = Granted::none(skus);
            let body = Reservations::default();
            Role::Buyer(Buyer { stage: Arc::clone(&stage), picks, id_base, clock, flash, granted, body })
        };
        let pace = pace.clone();
        tasks.push(tokio::spawn(async move { role.drive(connection, &pace).await }));
    }
    let ticking = tokio::spawn(show_progress(progress, settings.scenario.name()));
    let mut played = Vec::new();
    for task in tasks {
        let one = task.await.map_err(|error| LoadError::Server(error.to_string()))?;
        played.push(one?);
    }
    ticking.abort();
    conclude(&client, settings, &stage, &before, played).await
}

async fn show_progress(lines: Arc<AtomicU64>, name: &'static str) {
    let mut last = 0;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = lines.load(Ordering::Relaxed);
        eprintln!("{name}: {now} lines, {} in the last second", now - last);
        last = now;
    }
}

async fn conclude(
    client: &Client,
    settings: &Settings,
    stage: &Stage,
    before: &[stockline_client::wire::PositionRec],
    played: Vec<Played>,
) -> Result<Report, LoadError> {
    let mut granted = Granted::none(stage.skus.len());
    let mut audit = Tally::default();
    let mut results = Vec::new();
    for op in ["availability", "reserve", "event"] {
        let mut tally = Tally::default();
        let mut time = Duration::ZERO;
        for one in played.iter().filter(|one| one.op == op) {
            tally.add(&one.tally);
            time = time.max(one.time);
            if let Some(part) = &one.granted {
                granted.add(part);
            }
        }
        if tally.frames > 0 {
            results.push(OpReport::of(op, &tally, time));
        }
        audit.checked += tally.checked;
        audit.wrong += tally.wrong;
        audit.errors += tally.errors;
        audit.wrongs.extend(tally.wrongs);
        audit.refused += tally.refused;
    }
    let after = stage.positions(client).await?;
    compare(before, &after, &granted, &mut audit);
    if settings.scenario == Scenario::FlashSale && audit.refused > 0 && after[0].units[0] != 0 {
        audit.wrong(|| format!("somebody was refused although {} are left", after[0].units[0]));
    }
    audit.wrongs.truncate(10);
    Ok(Report {
        scenario: settings.scenario.name().into(),
        seconds: settings.seconds,
        connections: settings.connections,
        in_flight: settings.in_flight,
        batch: settings.batch,
        offered_per_s: settings.rate,
        results,
        floor: None,
        skipped: Vec::new(),
        audit: AuditReport {
            ok: audit.wrong == 0,
            checked: audit.checked,
            wrong: audit.wrong,
            findings: audit.wrongs,
        },
    })
}
