//! The audit trail's thread: writes down what was done that binds others, and what was refused to whom.
//!
//! Whoever does something that binds others is answered when it is written down. Refusals wait a second for their like,
//! and become one record with their number: a thousand a second do not fill the disk.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use serde::{Deserialize, Serialize};
use stockline_core::audit_trail::{AuditKind, AuditTrail};
use stockline_core::id::Millis;
use stockline_core::limit;
use tokio::sync::watch;

use super::Shared;
use super::bell::Bell;

const GATHERED: Duration = Duration::from_secs(1);

/// What a record says.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditEntry {
    /// How it came: `http`, `quic`, `control`.
    pub face: String,
    /// Whose token it came with; empty for nobody that is known.
    pub principal: String,
    /// The address it came from.
    pub from: Option<IpAddr>,
    /// What was asked.
    pub asked: String,
    /// The status that was answered over HTTP, and why something was refused.
    pub status: u16,
    pub code: String,
    /// The id of the request, and of the trace that it is part of.
    pub request: String,
    pub trace: String,
    /// How many like it there were; 0 counts as one.
    #[serde(skip_serializing_if = "is_zero")]
    pub more: u64,
}

fn is_zero(more: &u64) -> bool {
    *more == 0
}

impl AuditEntry {
    /// With what was asked, as far as it is kept.
    pub fn of(asked: &str) -> AuditEntry {
        let asked = &asked[..asked.floor_char_boundary(limit::AUDIT_TEXT_BYTES_MAX)];
        AuditEntry { asked: asked.to_owned(), ..AuditEntry::default() }
    }
}

type Told = (AuditKind, Millis, AuditEntry);

/// Where what is told waits for the thread.
pub struct Trail {
    records: AuditTrail,
    queue: ArrayQueue<Told>,
    bell: Bell,
    /// Of what somebody waits for: how much was told, and how much of it is written down.
    told: AtomicU64,
    written: watch::Sender<u64>,
    /// What found no room.
    missed: AtomicU64,
    closed: AtomicBool,
}

impl Trail {
    pub(super) fn new(records: AuditTrail) -> Trail {
        Trail {
            records,
            queue: ArrayQueue::new(limit::AUDIT_QUEUE),
            bell: Bell::default(),
            told: AtomicU64::new(0),
            written: watch::channel(0).0,
            missed: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        }
    }

    /// What is written down. Reading it reads the disk: not for async tasks.
    pub fn records(&self) -> &AuditTrail {
        &self.records
    }

    /// Has something written down; answers what to [wait](Trail::written) for. Half of the room is not for refusals.
    pub fn tell(&self, now: Millis, kind: AuditKind, entry: AuditEntry) -> u64 {
        let is_refusal = kind == AuditKind::Refusal;
        let full = is_refusal && self.queue.len() >= limit::AUDIT_QUEUE / 2;
        if full || self.queue.push((kind, now, entry)).is_err() {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
        if is_refusal {
            if self.queue.len() >= limit::AUDIT_QUEUE / 4 {
                self.bell.ring();
            }
            return 0;
        }
        let place = self.told.fetch_add(1, Ordering::SeqCst) + 1;
        self.bell.ring();
        place
    }

    pub fn is_written(&self, place: u64) -> bool {
        *self.written.borrow() >= place
    }

    /// Is over when it is on disk.
    pub async fn written(&self, place: u64) {
        // The sender lies beside the receiver's owner.
        let _ = self.written.subscribe().wait_for(|written| *written >= place).await;
    }

    /// Has the thread write what is there and end. Nobody waits from then on.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.bell.ring();
    }
}

/// Refusals that are like one another, with the moment of the first.
#[derive(Default)]
struct Gathered {
    like: HashMap<AuditEntry, (Millis, AuditEntry, u64)>,
    /// Those of too many kinds.
    others: u64,
}

impl Gathered {
    fn add(&mut self, at: Millis, entry: AuditEntry) {
        let mut like = AuditEntry { request: String::new(), trace: String::new(), ..entry.clone() };
        // Whoever is known is known by name, whatever was asked too often.
        if entry.status == 429 && !entry.principal.is_empty() {
            like.asked.clear();
        }
        let room = self.like.len() < limit::AUDIT_REFUSALS_PER_S;
        match self.like.get_mut(&like) {
            Some((_, _, count)) => *count += 1,
            None if room => drop(self.like.insert(like, (at, entry, 1))),
            None => self.others += 1,
        }
    }

    /// As records, in the order in which they began.
    fn take(&mut self, now: Millis, missed: u64) -> Vec<Told> {
        let told = self.like.drain().map(|(_, (at, entry, count))| {
            let more = if count > 1 { count } else { 0 };
            (AuditKind::Refusal, at, AuditEntry { more, ..entry })
        });
        let mut told: Vec<Told> = told.collect();
        told.sort_by_key(|(_, at, _)| *at);
        let others = std::mem::take(&mut self.others) + missed;
        if others > 0 {
            let entry =
                AuditEntry { more: others, ..AuditEntry::of("others, too many to be told one by one") };
            told.push((AuditKind::Refusal, now, entry));
        }
        told
    }
}

pub(super) fn run(shared: &Arc<Shared>) {
    let trail = &shared.trail;
    trail.bell.mine();
    let (mut gathered, mut gathered_at) = (Gathered::default(), Instant::now());
    loop {
        let closed = trail.closed.load(Ordering::SeqCst);
        let told = trail.told.load(Ordering::SeqCst);
        let mut records = Vec::new();
        // What was told is there before it is counted.
        while let Some((kind, at, entry)) = trail.queue.pop() {
            match kind {
                AuditKind::Administration => records.push((kind, at, entry)),
                AuditKind::Refusal => gathered.add(at, entry),
            }
        }
        if closed || gathered_at.elapsed() >= GATHERED {
            let missed = trail.missed.swap(0, Ordering::Relaxed);
            records.extend(gathered.take(shared.clock.now(), missed));
            gathered_at = Instant::now();
        }
        if !records.is_empty() {
            let bytes = |(kind, at, entry): Told| (kind, at, serde_json::to_vec(&entry).unwrap_or_default());
            let records: Vec<_> = records.into_iter().map(bytes).collect();
            if let Err(error) = trail.records.append(&records) {
                return shared.fail(crate::exit::JOURNAL, format!("{error}; nothing is done without it"));
            }
        }
        trail.written.send_replace(if closed { u64::MAX } else { told });
        if closed {
            return;
        }
        trail.bell.wait(GATHERED, || {
            trail.told.load(Ordering::SeqCst) > told || trail.closed.load(Ordering::SeqCst)
        });
    }
}
