//! What the server counts of itself, as `/metrics` tells it: names and base units as Prometheus has them, no label
//! with more values than the catalogue has principals and each of them sources. docs/operations.md says what each means.
//!
//! Counting is a few relaxed additions; whatever can be looked up when somebody asks is looked up then.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::Method;
use dashmap::DashMap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use stockline_core::catalogue::Role;
use stockline_core::id::{Lsn, Millis};
use stockline_core::limit;
use stockline_core::outcome::Code;
use stockline_core::wire::FrameType;

use crate::engine::Engine;
use crate::source::{Source, Sources};

/// What is asked of the server, whichever face it comes through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operation {
    Availability,
    Reserve,
    Step,
    Events,
    Allocate,
    Define,
    Read,
    Follow,
    Other,
}

const OPERATIONS: [(Operation, &str); 9] = [
    (Operation::Availability, "availability"),
    (Operation::Reserve, "reserve"),
    (Operation::Step, "step"),
    (Operation::Events, "events"),
    (Operation::Allocate, "allocate"),
    (Operation::Define, "define"),
    (Operation::Read, "read"),
    (Operation::Follow, "follow"),
    (Operation::Other, "other"),
];

impl Operation {
    pub fn of_call(method: &Method, path: Option<&str>) -> Operation {
        let Some(path) = path.and_then(|path| path.strip_prefix("/v1/")) else { return Operation::Other };
        let gets = matches!(*method, Method::GET | Method::HEAD);
        match path.split('/').next().unwrap_or_default() {
            "availability" => Operation::Availability,
            "reservations" if gets => Operation::Read,
            "reservations" if path == "reservations" => Operation::Reserve,
            "reservations" => Operation::Step,
            "events" => Operation::Events,
            "changes" => Operation::Follow,
            "openapi.json" => Operation::Other,
            _ if gets => Operation::Read,
            "allocations" => Operation::Allocate,
            _ => Operation::Define,
        }
    }

    pub fn of_frame(kind: FrameType) -> Operation {
        match kind {
            FrameType::Availability => Operation::Availability,
            FrameType::Reserve => Operation::Reserve,
            FrameType::Transitions => Operation::Step,
            FrameType::Events => Operation::Events,
            FrameType::Allocate => Operation::Allocate,
            FrameType::Define => Operation::Define,
            FrameType::Follow => Operation::Follow,
            FrameType::ReadReservations
            | FrameType::ReadPositions
            | FrameType::Find
            | FrameType::ReadAllocations
            | FrameType::Explain => Operation::Read,
            _ => Operation::Other,
        }
    }

    /// Why a role may not call it at all, if it may not. What is refused so needs no body.
    pub fn denies(self, role: Role) -> Option<&'static str> {
        match (self, role) {
            (_, Role::Admin) => None,
            (Operation::Events, Role::Channel) => Some("a channel may not send stock events"),
            (Operation::Availability, Role::Warehouse) => Some("a warehouse may not ask for availability"),
            (Operation::Reserve | Operation::Step, Role::Warehouse) => Some("a warehouse may not reserve"),
            (Operation::Define | Operation::Allocate, _) => Some("only an administrator may change this"),
            _ => None,
        }
    }

    /// Whether it changes what others are bound by.
    pub fn administers(self) -> bool {
        matches!(self, Operation::Define | Operation::Allocate)
    }
}

/// A histogram that many threads write and nobody waits for.
pub struct Histogram<const N: usize> {
    bounds: &'static [f64; N],
    /// The last is for what lies beyond every bound.
    counts: [AtomicU64; N],
    beyond: AtomicU64,
    /// In billionths.
    sum: AtomicU64,
}

impl<const N: usize> Histogram<N> {
    const fn new(bounds: &'static [f64; N]) -> Histogram<N> {
        Histogram {
            bounds,
            counts: [const { AtomicU64::new(0) }; N],
            beyond: AtomicU64::new(0),
            sum: AtomicU64::new(0),
        }
    }

    pub fn observe(&self, value: f64) {
        let place = self.bounds.iter().position(|bound| value <= *bound);
        place.map_or(&self.beyond, |at| &self.counts[at]).fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add((value * 1e9) as u64, Ordering::Relaxed);
    }

    /// Sum, count, and by bound how many lie between it and the one before.
    fn read(&self) -> (f64, u64, Vec<(f64, u64)>) {
        let counts = self.counts.iter().chain([&self.beyond]).map(|count| count.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> =
            self.bounds.iter().copied().chain([f64::INFINITY]).zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        (self.sum.load(Ordering::Relaxed) as f64 / 1e9, count, buckets)
    }
}

/// Seconds: most answers take 100 us to 1 ms.
const SECONDS: [f64; 16] = [
    25e-6, 50e-6, 100e-6, 200e-6, 400e-6, 800e-6, 1.5e-3, 3e-3, 6e-3, 12e-3, 25e-3, 50e-3, 0.1, 0.25, 1.0,
    5.0,
];
/// Commands of a batch.
const COMMANDS: [f64; 8] = [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0];

/// How a webhook's receiver is doing.
#[derive(Clone, Default)]
pub struct Delivery {
    /// Messages that arrived, tries in vain, and messages that became dead letters, since the start.
    pub delivered: u64,
    pub failed: u64,
    pub given_up: u64,
    /// Messages that wait, and their bytes.
    pub waiting: usize,
    pub waiting_bytes: u64,
    /// The first LSN that it has no message of.
    pub next: Lsn,
    /// Since when the message at hand fails.
    pub failing_since: Option<Millis>,
    /// How the last try failed.
    pub error: Option<String>,
}

/// The server's counters.
pub struct Metrics {
    http: [Histogram<16>; OPERATIONS.len()],
    quic: [Histogram<16>; OPERATIONS.len()],
    /// By status less 100.
    statuses: [AtomicU64; 500],
    /// By code's number.
    codes: [AtomicU64; 256],
    pub commands: AtomicU64,
    pub batch_commands: Histogram<8>,
    pub commit_seconds: Histogram<16>,
    pub fold_seconds: Histogram<16>,
    /// The first LSN each follower has not been told of.
    pub cursors: DashMap<u64, u64>,
    pub quic_connections: AtomicUsize,
    pub sources: Sources,
    /// Refusals that have no number, by the name of their code.
    problems: DashMap<String, u64>,
    /// By webhook.
    pub deliveries: DashMap<String, Delivery>,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            http: [const { Histogram::new(&SECONDS) }; OPERATIONS.len()],
            quic: [const { Histogram::new(&SECONDS) }; OPERATIONS.len()],
            statuses: [const { AtomicU64::new(0) }; 500],
            codes: [const { AtomicU64::new(0) }; 256],
            commands: AtomicU64::new(0),
            batch_commands: Histogram::new(&COMMANDS),
            commit_seconds: Histogram::new(&SECONDS),
            fold_seconds: Histogram::new(&SECONDS),
            cursors: DashMap::new(),
            quic_connections: AtomicUsize::new(0),
            sources: Sources::default(),
            problems: DashMap::new(),
            deliveries: DashMap::new(),
        }
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Metrics {
    /// A call over HTTP was answered.
    pub fn called(&self, operation: Operation, status: u16, took: Duration) {
        self.http[operation as usize].observe(took.as_secs_f64());
        if let Some(count) = self.statuses.get(usize::from(status).wrapping_sub(100)) {
            add(count);
        }
    }

    /// A frame over QUIC was answered.
    pub fn framed(&self, operation: Operation, took: Duration) {
        self.quic[operation as usize].observe(took.as_secs_f64());
    }

    /// A call was refused for a reason that HTTP alone has.
    pub fn problem(&self, code: &str) {
        *self.problems.entry(code.to_owned()).or_default() += 1;
    }

    /// A command, a call or a frame was refused.
    pub fn refused(&self, code: Code) {
        add(&self.codes[code as usize]);
    }
}

type Encoded = Result<(), fmt::Error>;

/// Writes metrics one after the other.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: f64) -> Encoded {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> Encoded {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<[(&str, &str); 0], _, f64>(&value, None)
    }

    /// One value for each set of labels; nothing where there is none.
    fn gauges<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; N],
        values: impl Iterator<Item = ([String; N], f64)>,
    ) -> Encoded {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (texts, value) in values {
            let set: [_; N] = std::array::from_fn(|at| (labels[at], texts[at].as_str()));
            metric.encode_family(&set)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; N],
        values: impl Iterator<Item = ([String; N], u64)>,
    ) -> Encoded {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (texts, value) in values {
            let set: [_; N] = std::array::from_fn(|at| (labels[at], texts[at].as_str()));
            metric.encode_family(&set)?.encode_counter::<[(&str, &str); 0], _, f64>(&value, None)?;
        }
        Ok(())
    }

    fn histogram<const N: usize>(&mut self, name: &str, help: &str, histogram: &Histogram<N>) -> Encoded {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        let (sum, count, buckets) = histogram.read();
        metric.encode_histogram::<[(&str, &str); 0]>(sum, count, &buckets, None)
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Engine")
    }
}

impl Collector for Engine {
    fn encode(&self, encoder: DescriptorEncoder) -> Encoded {
        let (metrics, state) = (self.metrics(), self.gauges());
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut out = Writer(encoder);
        let mut calls = out.0.encode_descriptor(
            "stockline_request_duration_seconds",
            "Time from a request's arrival to its answer, commands with their durability",
            None,
            MetricType::Histogram,
        )?;
        for (face, histograms) in [("http", &metrics.http), ("quic", &metrics.quic)] {
            for ((_, operation), histogram) in OPERATIONS.iter().zip(histograms) {
                let (sum, count, buckets) = histogram.read();
                if count > 0 {
                    let labels = [("face", face), ("operation", *operation)];
                    calls
                        .encode_family(&labels)?
                        .encode_histogram::<[(&str, &str); 0]>(sum, count, &buckets, None)?;
                }
            }
        }
        let statuses = metrics.statuses.iter().enumerate().map(|(at, count)| (at + 100, load(count)));
        out.counters(
            "stockline_http_responses",
            "Answers over HTTP by status",
            ["status"],
            statuses.filter(|(_, count)| *count > 0).map(|(status, count)| ([status.to_string()], count)),
        )?;
        let codes = metrics.codes.iter().enumerate().filter_map(|(number, count)| {
            let code = Code::from_number(number as u8).filter(|_| load(count) > 0)?;
            Some(([code.name().to_owned()], load(count)))
        });
        let problems = metrics.problems.iter().map(|one| ([one.key().clone()], *one.value()));
        let codes = codes.chain(problems.collect::<Vec<_>>());
        out.counters("stockline_refusals", "Commands and requests refused, by code", ["code"], codes)?;
        out.counter("stockline_clock_jumps", "Times that the wall clock was set", state.clock_jumps)?;
        out.gauge(
            "stockline_clock_offset_seconds",
            "By how much the wall clock is ahead of that of commands",
            state.clock_offset_s,
        )?;
        out.counter("stockline_log_lines_lost", "Log lines that could not be written", crate::log::lost())?;
        out.counter("stockline_commands", "Commands that got a place in the order", load(&metrics.commands))?;
        out.histogram("stockline_batch_commands", "Commands made durable together", &metrics.batch_commands)?;
        out.histogram(
            "stockline_journal_commit_duration_seconds",
            "Time to make a batch durable",
            &metrics.commit_seconds,
        )?;
        out.histogram(
            "stockline_fold_duration_seconds",
            "Time of one step of folding the journal into the snapshot",
            &metrics.fold_seconds,
        )?;
        out.gauge("stockline_durable_lsn", "LSN up to which all is durable", state.durable as f64)?;
        out.gauge(
            "stockline_fold_lag_commands",
            "Commands in the journal that the snapshot does not have yet",
            state.durable.saturating_sub(state.covered) as f64,
        )?;
        out.gauge(
            "stockline_journal_lag_commands",
            "Commands that have a place in the order and are not durable yet",
            state.ordered.saturating_sub(state.durable) as f64,
        )?;
        out.gauge(
            "stockline_queued_commands",
            "Commands and lines that wait for their place in the order",
            state.queued as f64,
        )?;
        out.gauge(
            "stockline_executing_batches",
            "Batches executed and not yet in the journal's hands",
            state.executing as f64,
        )?;
        out.gauge(
            "stockline_active_reservations",
            "Reservations held or confirmed; one over several shards counts in each",
            state.active_reservations as f64,
        )?;
        out.gauge("stockline_view_cells", "Cells of the published view in use", state.view_cells as f64)?;
        let connections = [
            ("http", crate::http::connections()),
            ("quic", metrics.quic_connections.load(Ordering::Relaxed)),
        ];
        out.gauges(
            "stockline_connections",
            "Connections that are open, by face",
            ["face"],
            connections.into_iter().map(|(face, count)| ([face.to_owned()], count as f64)),
        )?;
        out.gauge("stockline_followers", "Followers that wait or read", state.followers as f64)?;
        out.gauge(
            "stockline_follower_lag_commands",
            "Commands that the follower furthest behind has not been told of",
            state.follower_lag as f64,
        )?;
        out.gauge(
            "stockline_dead_letters",
            "Events that could not be applied and wait for somebody",
            state.dead_letters as f64,
        )?;
        out.counter("stockline_self_audit_slices", "Slices that the self-audit has checked", state.audited)?;
        out.counter("stockline_self_audit_wrong", "What the self-audit found wrong", state.audited_wrong)?;
        out.gauge(
            "stockline_shortage_positions",
            "Positions with less stock than claims, as the self-audit last saw each",
            state.shortages as f64,
        )?;
        out.gauge(
            "stockline_unsettled_reservations",
            "Reservations confirmed and not fulfilled, as the self-audit last saw each",
            state.confirmed as f64,
        )?;
        let older = limit::AGES_MS.iter().zip(state.older);
        out.gauges(
            "stockline_unsettled_reservations_older",
            "Of the unsettled reservations, those confirmed more than so many seconds ago",
            ["seconds"],
            older.map(|(age, count)| ([(age / 1_000).to_string()], count as f64)),
        )?;
        let now = self.clock().now();
        let oldest = if state.oldest == Millis(0) { 0 } else { now.since(state.oldest) };
        out.gauge(
            "stockline_oldest_unsettled_reservation_seconds",
            "Since the oldest of the unsettled reservations was confirmed; 0 where there is none",
            oldest as f64 / 1e3,
        )?;
        let deliveries: Vec<(String, Delivery)> =
            metrics.deliveries.iter().map(|of| (of.key().clone(), of.value().clone())).collect();
        let each = |value: fn(&Delivery) -> u64| {
            deliveries.iter().map(move |(name, delivery)| ([name.clone()], value(delivery)))
        };
        out.counters(
            "stockline_webhook_messages",
            "Messages that arrived, by webhook",
            ["webhook"],
            each(|delivery| delivery.delivered),
        )?;
        out.counters(
            "stockline_webhook_failures",
            "Tries to deliver a message that failed, by webhook",
            ["webhook"],
            each(|delivery| delivery.failed),
        )?;
        out.counters(
            "stockline_webhook_dead_letters",
            "Messages given up, which became dead letters, by webhook",
            ["webhook"],
            each(|delivery| delivery.given_up),
        )?;
        let waiting = each(|delivery| delivery.waiting as u64);
        out.gauges(
            "stockline_webhook_waiting_messages",
            "Messages that wait for their receiver, by webhook",
            ["webhook"],
            waiting.map(|(name, count)| (name, count as f64)),
        )?;
        let failing = deliveries.iter().map(|(name, delivery)| {
            ([name.clone()], delivery.failing_since.map_or(0.0, |since| now.since(since) as f64 / 1e3))
        });
        out.gauges(
            "stockline_webhook_failing_seconds",
            "For how long the message at hand has been failing; 0 where it does not, by webhook",
            ["webhook"],
            failing,
        )?;
        let names = self.principals().names();
        let sources = metrics.sources.list().into_iter().filter_map(|(principal, name, source)| {
            Some(([names.get(&principal)?.clone(), name.to_string()], source))
        });
        let sources: Vec<([String; 2], Source)> = sources.collect();
        const OF: [&str; 2] = ["principal", "source"];
        let each = |value: fn(&Source) -> u64| {
            sources.iter().map(move |(names, source)| (names.clone(), value(source)))
        };
        out.counters(
            "stockline_source_events",
            "Stock events applied, by who told them",
            OF,
            each(|source| source.applied),
        )?;
        out.counters(
            "stockline_source_refused_events",
            "Stock events refused, by who told them",
            OF,
            each(|source| source.refused),
        )?;
        out.counters(
            "stockline_source_exceptions",
            "Adjustments and counts applied, by who told them",
            OF,
            each(|source| source.exceptions),
        )?;
        out.gauges(
            "stockline_source_missing_events",
            "Of events with a sequence, those between the first and the highest that did not come",
            OF,
            each(Source::missing).map(|(names, count)| (names, count as f64)),
        )?;
        out.gauges(
            "stockline_source_lag_seconds",
            "From when the last new event had happened to when it came, by who told it",
            OF,
            sources.iter().map(|(names, source)| (names.clone(), source.late_ms as f64 / 1e3)),
        )?;
        out.gauges(
            "stockline_source_silence_seconds",
            "Since the last event came, by who told it",
            OF,
            sources.iter().map(|(names, source)| (names.clone(), now.since(source.told_at) as f64 / 1e3)),
        )?;
        out.gauge("stockline_start_time_seconds", "When the server started", state.started_at.0 as f64 / 1e3)
    }
}

/// The two forms: OpenMetrics for whoever asks for it, else the older text that everybody reads.
pub const OPEN: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
pub const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything, as a scraper is told it.
pub fn exposition(engine: &Engine, open: bool) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(engine.clone()));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(if open { text } else { plain(&text) })
}

/// In the older form a counter is described under the name that its samples have.
fn plain(open: &str) -> String {
    let counters: HashSet<&str> =
        open.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut text = String::with_capacity(open.len());
    for line in open.lines().filter(|line| *line != "# EOF" && !line.starts_with("# UNIT ")) {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(kind), Some(name), Some(rest)) if counters.contains(name) => {
                text.push_str(&format!("# {kind} {name}_total {rest}"));
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}
