//! The audit trail's thread: writes down what was done that binds others, and what was refused to whom.
//!
//! Whoever does something that binds others is answered when it is written down: one that cannot be written ends the
//! process. Refusals wait a second for their like, and become one record with their number: a thousand a second do not
//! fill the disk, and those that cannot be written are counted until they can.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam::queue::{ArrayQueue, SegQueue};
use serde::{Deserialize, Serialize};
use stockline_core::audit_trail::{AuditKind, AuditTrail, AuditTrailError};
use stockline_core::id::Millis;
use stockline_core::limit;
use tokio::sync::watch;

use super::bell::Bell;
use super::{AUDIT_FILE, Clock, Shared};

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
    /// How many like it there were.
    pub count: u64,
}

impl AuditEntry {
    /// With what was asked, as far as it is kept.
    pub fn of(asked: &str) -> AuditEntry {
        let asked = &asked[..asked.floor_char_boundary(limit::AUDIT_TEXT_BYTES_MAX)];
        AuditEntry { asked: asked.to_owned(), count: 1, ..AuditEntry::default() }
    }
}

/// Opens the trail of a data directory. One that has a journal and no trail has lost it, or is of a version before: that
/// is the first thing that the new one says.
pub fn open_trail(data: &Path, had_journal: bool) -> Result<AuditTrail, AuditTrailError> {
    let path = data.join(AUDIT_FILE);
    let is_lost = had_journal && !path.exists();
    let trail = AuditTrail::open(&path)?;
    if is_lost {
        note(&trail, "a new audit trail: there was none beside the journal")?;
    }
    Ok(trail)
}

/// Writes down what is done where no server runs.
pub fn note(trail: &AuditTrail, what: &str) -> Result<(), AuditTrailError> {
    let entry = AuditEntry { face: "command".into(), ..AuditEntry::of(what) };
    trail.append(&[record((AuditKind::Administration, Clock::not_before(Millis(0)).now(), entry))])
}

fn record((kind, at, entry): Told) -> (AuditKind, Millis, Vec<u8>) {
    (kind, at, serde_json::to_vec(&entry).expect("an entry is plain text"))
}

type Told = (AuditKind, Millis, AuditEntry);

/// Where what is told waits for the thread.
pub struct Trail {
    records: AuditTrail,
    /// What somebody waits for: no more than there are calls and frames under way.
    binding: SegQueue<(Millis, AuditEntry)>,
    refusals: ArrayQueue<(Millis, AuditEntry)>,
    bell: Bell,
    /// Of what somebody waits for: how much was told, and how much of it is written down.
    told: AtomicU64,
    written: watch::Sender<u64>,
    /// Refusals that found no room.
    missed: AtomicU64,
    closed: AtomicBool,
}

impl Trail {
    pub(super) fn new(records: AuditTrail) -> Trail {
        Trail {
            records,
            binding: SegQueue::new(),
            refusals: ArrayQueue::new(limit::AUDIT_QUEUE),
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

    /// Has something written down that binds others; answers the place to [wait](Trail::written) for.
    pub fn tell(&self, now: Millis, entry: AuditEntry) -> u64 {
        self.binding.push((now, entry));
        // What is counted is in the queue.
        let place = self.told.fetch_add(1, Ordering::SeqCst) + 1;
        self.bell.ring();
        place
    }

    /// Has a refusal written down, soon.
    pub fn tell_refusal(&self, now: Millis, entry: AuditEntry) {
        if self.refusals.push((now, entry)).is_err() {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
        if self.refusals.len() >= limit::AUDIT_QUEUE / 4 {
            self.bell.ring();
        }
    }

    pub fn is_written(&self, place: u64) -> bool {
        *self.written.borrow() >= place
    }

    /// Is over when all is on disk that was told so far and that somebody may wait for.
    pub async fn settled(&self) {
        self.written(self.told.load(Ordering::SeqCst)).await;
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
    like: HashMap<AuditEntry, (Millis, AuditEntry)>,
    /// Of these, those of nobody that is known.
    strangers: usize,
    /// Those of too many kinds, and those that could not be written.
    others: u64,
}

impl Gathered {
    fn add(&mut self, at: Millis, entry: AuditEntry) {
        let mut like = AuditEntry { request: String::new(), trace: String::new(), ..entry.clone() };
        let is_stranger = entry.principal.is_empty();
        // What strangers ask, what is asked too often, and what is not there, is not told apart.
        if is_stranger || matches!(entry.status, 404 | 429) {
            like.asked.clear();
        }
        let room = self.like.len() < limit::AUDIT_REFUSALS_PER_S
            && !(is_stranger && self.strangers >= limit::AUDIT_REFUSALS_PER_S / 2);
        match self.like.get_mut(&like) {
            Some((_, first)) => first.count += 1,
            None if room => {
                self.strangers += usize::from(is_stranger);
                self.like.insert(like, (at, entry));
            }
            None => self.others += 1,
        }
    }

    /// In the order in which they began.
    fn take(&mut self, now: Millis) -> Vec<Told> {
        let mut told: Vec<Told> =
            self.like.drain().map(|(_, (at, entry))| (AuditKind::Refusal, at, entry)).collect();
        told.sort_by_key(|(_, at, _)| *at);
        self.strangers = 0;
        let count = std::mem::take(&mut self.others);
        if count > 0 {
            let entry = AuditEntry { count, ..AuditEntry::of("others, too many to be told one by one") };
            told.push((AuditKind::Refusal, now, entry));
        }
        told
    }
}

pub(super) fn run(shared: &Arc<Shared>) {
    let trail = &shared.trail;
    trail.bell.mine();
    let (mut gathered, mut gathered_at) = (Gathered::default(), Instant::now());
    let mut is_failing = false;
    loop {
        let closed = trail.closed.load(Ordering::SeqCst);
        let told = trail.told.load(Ordering::SeqCst);
        // Whatever is counted lies within so many: what comes while these are taken is for the next turn.
        let binding: Vec<Told> = (0..trail.binding.len())
            .map_while(|_| trail.binding.pop())
            .map(|(at, entry)| (AuditKind::Administration, at, entry))
            .collect();
        for (at, entry) in (0..limit::AUDIT_QUEUE).map_while(|_| trail.refusals.pop()) {
            gathered.add(at, entry);
        }
        let mut records: Vec<_> = binding.into_iter().map(record).collect();
        let is_binding = !records.is_empty();
        let mut refused = 0;
        if closed || gathered_at.elapsed() >= GATHERED {
            gathered.others += trail.missed.swap(0, Ordering::Relaxed);
            let refusals = gathered.take(shared.clock.now());
            refused = refusals.iter().map(|(_, _, entry)| entry.count).sum();
            records.extend(refusals.into_iter().map(record));
            gathered_at = Instant::now();
        }
        match if records.is_empty() { Ok(()) } else { trail.records.append(&records) } {
            Ok(()) => is_failing &= records.is_empty(),
            Err(error) if is_binding => {
                let reason = format!("{error}; nothing that binds others is answered without it");
                return shared.fail(crate::exit::JOURNAL, reason);
            }
            Err(error) => {
                gathered.others += refused;
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::error!("{error}; refusals are counted until they can be written");
                }
            }
        }
        trail.written.send_replace(if closed { u64::MAX } else { told });
        if closed {
            return;
        }
        trail.bell.wait(GATHERED.saturating_sub(gathered_at.elapsed()), || {
            trail.told.load(Ordering::SeqCst) > told || trail.closed.load(Ordering::SeqCst)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(principal: &str, asked: &str, from: u8, status: u16) -> AuditEntry {
        let from = Some([127, 0, 0, from].into());
        AuditEntry {
            principal: principal.into(),
            from,
            status,
            request: asked.into(),
            ..AuditEntry::of(asked)
        }
    }

    #[test]
    fn refusals_are_gathered_and_strangers_leave_room() {
        let mut gathered = Gathered::default();
        for number in 0..1_000u64 {
            let asked = format!("GET /{number}");
            // A stranger who asks for everything, another from everywhere, one that is known and asks too much.
            gathered.add(Millis(number), refusal("", &asked, 1, 401));
            gathered.add(Millis(number), refusal("", &asked, (number % 200) as u8 + 2, 401));
            gathered.add(Millis(number), refusal("loud", &asked, 1, 429));
        }
        // Whoever is known is told by name, and what was asked.
        for number in 0..40 {
            gathered.add(Millis(2_000 + number), refusal("inside", &format!("PUT /{number}"), 1, 403));
        }
        let told = gathered.take(Millis(9_000));
        assert_eq!(told.len(), limit::AUDIT_REFUSALS_PER_S + 1);
        assert_eq!(told.iter().map(|(_, _, entry)| entry.count).sum::<u64>(), 3_040);
        assert!(told.is_sorted_by_key(|(_, at, _)| *at));
        let of = |principal: &str| -> Vec<&AuditEntry> {
            told.iter().map(|(_, _, entry)| entry).filter(|entry| entry.principal == principal).collect()
        };
        assert_eq!((of("loud").len(), of("loud")[0].count, &*of("loud")[0].asked), (1, 1_000, "GET /0"));
        assert_eq!(of("inside").len(), limit::AUDIT_REFUSALS_PER_S / 2 - 1);
        let one = of("").into_iter().find(|entry| entry.from == Some([127, 0, 0, 1].into()));
        assert_eq!(one.map(|entry| entry.count), Some(1_000));
        assert!(gathered.take(Millis(0)).is_empty());
    }
}
