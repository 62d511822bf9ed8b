//! The engine: the core's state machines, each on a thread of its own, joined by bounded lock-free queues.
//!
//! ```text
//! faces -> submissions -> sequencer -> (shard threads) -> journal -> view, replies
//!                                                            |
//!                                                        checkpoint
//! ```
//!
//! With one shard the sequencer runs it on its own thread. Only this module and its children read the clock
//! and start threads. Whatever goes wrong in one of them ends the process: nobody waits for a dead thread.

mod backup;
mod bell;
mod checkpoint;
mod clock;
mod decoded;
mod found;
mod journal;
mod lanes;
mod pause;
mod sequencer;
mod sync;
mod trail;

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam::queue::{ArrayQueue, SegQueue};
use stockline_core::admission::WindowSize;
use stockline_core::audit_trail::AuditTrailError;
use stockline_core::batch::Batch;
use stockline_core::catalogue::NameKind;
use stockline_core::chain::Anchor;
use stockline_core::checkpoint::CheckpointError;
use stockline_core::command::{Body, Frame};
use stockline_core::commit::Commit;
use stockline_core::feed;
use stockline_core::id::{ChannelId, Key, Lsn, Millis, NodeId, PrincipalId};
use stockline_core::journal::file::FileJournal;
use stockline_core::journal::{Decoded, Entry, Journal, JournalError, JournalReader};
use stockline_core::ledger::audit;
use stockline_core::letters::{Letters, LettersError};
use stockline_core::limit;
use stockline_core::merge::FrameReply;
use stockline_core::outcome::Code;
use stockline_core::recovery::recover;
use stockline_core::sequencer::{Learned, Sequencer};
use stockline_core::shard::Output;
use stockline_core::snapshot::{Snapshot, SnapshotError};
use stockline_core::view::View;
use stockline_core::wire::NoticeRec;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::sync::mpsc::UnboundedSender;

use crate::budget::Budgets;
use crate::damage;
use crate::data::{self, DataDir, DataError};
use crate::jwt::Jwts;
use crate::metrics::Metrics;
use crate::names::Names;
use crate::principal::Principals;
pub use backup::backup_files;
use bell::Bell;
pub use clock::{Clock, at_start as wall_clock};
use decoded::DecodedRecords;
pub use found::Found;
use lanes::Lanes;
pub use trail::{AuditEntry, Trail, note, open_trail};

/// What the engine is told at its start.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    pub data: PathBuf,
    pub shards: u32,
    /// Keep every journal record, so that everything can be replayed.
    pub retain_journal: bool,
    pub window: WindowSize,
    /// Calls a second over HTTP that each token may make; 0: no limit.
    pub http_rate: u32,
    /// By how many milliseconds the wall clock may be ahead of when the directory was last in use; `None` for any.
    pub clock_ahead_ms_max: Option<u64>,
    /// The public key that JWTs are signed against, and whom they must be for.
    pub jwt: Option<(PathBuf, String)>,
}

/// Why the engine does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Letters(#[from] LettersError),
    #[error(transparent)]
    AuditTrail(#[from] AuditTrailError),
    #[error(transparent)]
    Recovery(#[from] CheckpointError),
    #[error(
        "the clock is {ahead_s} s ahead of when this directory was last in use: what is written with a clock that is wrong \
         stays wrong; set the clock, or start once with --accept-clock if it is right"
    )]
    ClockAhead { ahead_s: u64 },
    #[error(transparent)]
    Data(#[from] DataError),
    #[error("{0}")]
    Unsound(String),
    #[error("{0} is missing beside its snapshot; put it back, or restore a backup")]
    Lost(String),
    #[error("the recovered state breaks an invariant: {0}")]
    Broken(String),
    #[error("{0}")]
    Jwt(String),
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// Why the engine stops on its own: the exit code, and what to say.
#[derive(Clone, Debug)]
pub struct Failure {
    pub exit: i32,
    pub reason: String,
}

/// Whom to answer. Sent back with the reply.
#[derive(Clone, Debug)]
pub struct Tag {
    /// None for commands of the system itself.
    pub reply_to: Option<UnboundedSender<Answered>>,
    /// The sender's own mark, handed back as it is.
    pub mark: u64,
    /// What its answer waits for in the audit trail; 0: nothing.
    pub audited: u64,
    /// This is a piece of a frame, and not its last.
    pub more: bool,
    /// Its stock events come with names of sources, and who knows them counts them.
    pub names_sources: bool,
    /// When it came.
    pub begun: Instant,
}

impl Tag {
    /// Of a frame that comes now, whole.
    pub fn new(reply_to: Option<UnboundedSender<Answered>>) -> Tag {
        Tag { reply_to, mark: 0, audited: 0, more: false, names_sources: false, begun: Instant::now() }
    }
}

/// Why a frame did not get into the order.
#[derive(Debug)]
pub enum Refused {
    /// Its principal has as much waiting as it may: offer it again a little later, and nothing behind it before.
    LaneFull(Box<Frame<Tag>>),
    Turned(Code),
}

/// A frame's replies, with the mark it came with.
#[derive(Debug)]
pub struct Answered {
    pub mark: u64,
    pub audited: u64,
    pub begun: Instant,
    pub commands: usize,
    /// The keys of its stock events, as far as there are dead letters that one of them may settle.
    pub events: Vec<Key>,
    pub reply: FrameReply,
}

/// A batch and what one shard did for it.
type Executed = (Arc<Batch<Tag>>, Output);

/// Where to, and whom to tell.
#[derive(Debug)]
struct Backup {
    to: PathBuf,
    done: tokio::sync::oneshot::Sender<Result<Anchor, String>>,
}

/// What the threads and the faces share.
struct Shared {
    clock: Clock,
    view: Arc<View>,
    principals: Principals,
    names: Names,
    reader: Box<dyn JournalReader>,
    letters: Arc<Letters>,
    budgets: Budgets,
    id_key: ring::hmac::Key,
    trail: Trail,
    submissions: Lanes,
    sequencer_bell: Bell,
    /// Batches for each shard, where there is more than one.
    batches: Vec<ArrayQueue<Arc<Batch<Tag>>>>,
    shard_bells: Vec<Bell>,
    /// Outputs of each shard.
    outputs: Vec<ArrayQueue<Executed>>,
    journal_bell: Bell,
    /// What became of reservations, told to the sequencer where there is more than one shard. It holds what
    /// the batches under way can say, which is bounded by their queues.
    learned: SegQueue<Learned>,
    /// Holds whose time is over, as told by shards on threads of their own.
    due: ArrayQueue<Body>,
    checkpoint_bell: Bell,
    /// Copies asked for, made by the checkpoint's thread.
    backups: ArrayQueue<Backup>,
    data: PathBuf,
    /// Slices that the self-audit has checked, and what it found wrong.
    audited: AtomicU64,
    audited_wrong: AtomicU64,
    covered: AtomicU64,
    active_reservations: AtomicUsize,
    /// No new commands are taken.
    draining: AtomicBool,
    /// The sequencer has stopped, having stamped everything taken.
    sequenced_all: AtomicBool,
    /// Batches given to the shards, and the last LSN in them.
    dispatched: AtomicU64,
    ordered: AtomicU64,
    /// Who waits for more to be durable, and records that were read for them.
    followers: Notify,
    decoded: DecodedRecords,
    metrics: Metrics,
    /// Shortages and confirmed reservations, as the self-audit last found them in each slice.
    shortages: [AtomicU64; limit::AUDIT_SLICES as usize],
    confirmed: [AtomicU64; limit::AUDIT_SLICES as usize],
    /// Of the confirmed ones: how many are older than each of [`limit::AGES_MS`], and since when the oldest is.
    older: [[AtomicU64; limit::AUDIT_SLICES as usize]; limit::AGES_MS.len()],
    oldest: [AtomicU64; limit::AUDIT_SLICES as usize],
    /// Cells of the view in use.
    view_cells: AtomicUsize,
    /// The journal has stopped, having written and answered everything.
    written_all: AtomicBool,
    on_failure: Box<dyn Fn(Failure) + Send + Sync>,
}

impl Shared {
    fn fail(&self, exit: i32, reason: String) {
        (self.on_failure)(Failure { exit, reason });
    }
}

/// What recovery found and how long it took.
#[derive(Clone, Debug)]
pub struct Recovery {
    pub last: Lsn,
    /// Up to here it came from the snapshot.
    pub covered: Lsn,
    pub anchor: Anchor,
    pub positions_hash: String,
    pub milliseconds: u128,
}

/// How things stand at a moment, as `/metrics` tells it.
#[derive(Clone, Copy, Debug)]
pub struct Gauges {
    pub durable: u64,
    /// The last LSN that was given.
    pub ordered: u64,
    pub covered: u64,
    /// Commands, or lines, in the lanes.
    pub queued: usize,
    pub executing: usize,
    pub active_reservations: usize,
    pub view_cells: usize,
    pub followers: usize,
    /// Commands that the one furthest behind has not been told of.
    pub follower_lag: u64,
    pub audited: u64,
    pub audited_wrong: u64,
    pub shortages: u64,
    pub confirmed: u64,
    /// Confirmed reservations older than each of [`limit::AGES_MS`], and since when the oldest is; 0 for none.
    pub older: [u64; limit::AGES_MS.len()],
    pub oldest: Millis,
    pub started_at: Millis,
    pub dead_letters: u64,
    pub clock_jumps: u64,
    pub clock_offset_s: f64,
}

/// A cheap way to the engine for the faces.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

/// The running engine; stop it with [`RunningEngine::stop`].
pub struct RunningEngine {
    engine: Engine,
    threads: Vec<JoinHandle<()>>,
    trail: JoinHandle<()>,
    pub recovery: Recovery,
}

/// Names of the two files in the data directory.
pub const JOURNAL_FILE: &str = "journal.redb";
pub const SNAPSHOT_FILE: &str = "snapshot.redb";
/// And of the one with what could not be applied.
pub const LETTERS_FILE: &str = "letters.redb";
/// And of the audit trail.
pub const AUDIT_FILE: &str = "audit.redb";

impl RunningEngine {
    /// Recovers the state and starts the threads. `on_failure` is called when the engine cannot go on; it
    /// should end the process.
    pub fn start(
        config: &EngineConfig,
        on_failure: impl Fn(Failure) + Send + Sync + 'static,
    ) -> Result<RunningEngine, StartError> {
        let started = Instant::now();
        let (journal_file, snapshot_file) = (config.data.join(JOURNAL_FILE), config.data.join(SNAPSHOT_FILE));
        // The journal is made first: a snapshot without one has lost it.
        if snapshot_file.exists() && !journal_file.exists() {
            return Err(StartError::Lost(journal_file.display().to_string()));
        }
        // Before the journal is there: beside one that was, a trail is missing.
        let had_journal = journal_file.exists();
        let journal =
            damage::reading(JOURNAL_FILE, || FileJournal::open(&journal_file, config.retain_journal))?;
        // The directory is ours: what an earlier start left that was cut off is nobody's.
        data::remove_unfinished(&config.data);
        let trail = damage::reading(AUDIT_FILE, || open_trail(&config.data, had_journal))?;
        let letters_file = config.data.join(LETTERS_FILE);
        if had_journal && !letters_file.exists() {
            tracing::error!(
                "{LETTERS_FILE} is missing: dead letters and messages of webhooks that waited are lost"
            );
        }
        let letters = damage::reading(LETTERS_FILE, || Letters::open(&letters_file))?;
        let id_key = DataDir::open(&config.data)?.id_key()?;
        let reader = journal.reader();
        let damaged =
            |error: &SnapshotError| StartError::Unsound(damage::way_back(&config.data, &*reader, error));
        let (snapshot, mut recovered) = damage::reading(SNAPSHOT_FILE, || {
            let snapshot = Snapshot::open(&snapshot_file).map_err(|error| match error {
                error @ SnapshotError::InUse(_) => StartError::Snapshot(error),
                error => damaged(&error),
            })?;
            let recovered = recover(&snapshot, &*reader, config.shards, config.window);
            let recovered = recovered.map_err(|error| match error {
                CheckpointError::Snapshot(error) => damaged(&error),
                other => other.into(),
            })?;
            Ok::<_, StartError>((snapshot, recovered))
        })?;
        if recovered.last > Lsn::NONE
            && let Some(most) = config.clock_ahead_ms_max
        {
            let last = DataDir::open(&config.data)?.last_use()?.max(recovered.now);
            let ahead = clock::at_start().since(last);
            if ahead > most {
                return Err(StartError::ClockAhead { ahead_s: ahead / 1_000 });
            }
        }
        if let Some(broken) = audit(&recovered.ledgers).into_iter().next() {
            return Err(StartError::Broken(broken));
        }
        let (view, mut publisher) = View::new(recovered.catalogue.rules());
        let mut hash = stockline_core::ledger::StateHash::default();
        let mut active = 0;
        for ledger in &recovered.ledgers {
            ledger.all_offers(|place, offer| publisher.store(place, offer, recovered.last.max(Lsn(1))));
            hash += ledger.state_hash();
            active += ledger.reservations().active();
        }
        publisher.raise(recovered.last);
        let names = Names::default();
        names.learn_all(&recovered.catalogue.definitions());
        recovered.catalogue.skus().for_each(|(name, sku)| names.put(NameKind::Sku, name, sku.0));
        let jwts = config.jwt.as_ref().map(|(path, audience)| Jwts::load(path, audience)).transpose();
        let principals = Principals::new(config.http_rate, jwts.map_err(StartError::Jwt)?);
        principals.replace(recovered.catalogue.principals());
        let recovery = Recovery {
            last: recovered.last,
            covered: recovered.covered,
            anchor: recovered.anchor,
            positions_hash: hash.to_string(),
            milliseconds: started.elapsed().as_millis(),
        };

        let shards = config.shards as usize;
        let shard_threads = if shards == 1 { 0 } else { shards };
        let shared = Arc::new(Shared {
            clock: Clock::not_before(recovered.now),
            view,
            principals,
            names,
            reader,
            letters: Arc::new(letters),
            budgets: Budgets::new(),
            id_key,
            trail: Trail::new(trail),
            submissions: Lanes::new(),
            sequencer_bell: Bell::default(),
            batches: (0..shard_threads).map(|_| ArrayQueue::new(limit::BATCH_QUEUE)).collect(),
            shard_bells: (0..shard_threads).map(|_| Bell::default()).collect(),
            outputs: (0..shards).map(|_| ArrayQueue::new(limit::BATCH_QUEUE)).collect(),
            journal_bell: Bell::default(),
            learned: SegQueue::new(),
            due: ArrayQueue::new(limit::EXPIRY_QUEUE),
            checkpoint_bell: Bell::default(),
            backups: ArrayQueue::new(limit::BACKUP_QUEUE),
            data: config.data.clone(),
            audited: AtomicU64::new(0),
            audited_wrong: AtomicU64::new(0),
            covered: AtomicU64::new(recovered.covered.0),
            active_reservations: AtomicUsize::new(active),
            draining: AtomicBool::new(false),
            sequenced_all: AtomicBool::new(false),
            dispatched: AtomicU64::new(0),
            ordered: AtomicU64::new(0),
            followers: Notify::new(),
            decoded: DecodedRecords::default(),
            metrics: Metrics::default(),
            shortages: Default::default(),
            confirmed: Default::default(),
            older: Default::default(),
            oldest: Default::default(),
            view_cells: AtomicUsize::new(publisher.cells()),
            written_all: AtomicBool::new(false),
            on_failure: Box::new(on_failure),
        });
        let mut sequencer = Sequencer::new(
            recovered.catalogue,
            recovered.window,
            recovered.last,
            recovered.now,
            config.shards,
        );
        let mut ledgers = recovered.ledgers;
        // Parts of one reservation in several shards have ended at one LSN: it is told once, in order.
        let mut ended = BTreeSet::new();
        for (id, part) in ledgers.iter().flat_map(|ledger| ledger.reservations().iter()) {
            sequencer.learn(Learned::Reserved(id));
            if !part.state.is_active() {
                ended.insert((part.ended(), id));
            }
        }
        ended.into_iter().for_each(|(at, id)| sequencer.learn(Learned::Ended(id, at)));
        let inline = if shards == 1 { ledgers.pop() } else { None };
        let mut threads = Vec::new();
        for (index, ledger) in ledgers.into_iter().enumerate() {
            let shared = Arc::clone(&shared);
            threads.push(spawn(&shared.clone(), format!("shard-{index}"), move || {
                sequencer::run_shard(&shared, index, ledger);
            })?);
        }
        let for_sequencer = Arc::clone(&shared);
        threads.push(spawn(&shared, "sequencer".into(), move || {
            sequencer::run(&for_sequencer, sequencer, inline);
        })?);
        let for_journal = Arc::clone(&shared);
        let commit = Commit::new(recovered.anchor);
        threads.push(spawn(&shared, "journal".into(), move || {
            journal::run(&for_journal, Box::new(journal), commit, publisher);
        })?);
        let for_checkpoint = Arc::clone(&shared);
        threads.push(spawn(&shared, "checkpoint".into(), move || {
            checkpoint::run(&for_checkpoint, &snapshot);
        })?);
        let for_trail = Arc::clone(&shared);
        let trail = spawn(&shared, "audit".into(), move || trail::run(&for_trail))?;
        Ok(RunningEngine { engine: Engine { shared }, threads, trail, recovery })
    }

    pub fn handle(&self) -> Engine {
        self.engine.clone()
    }

    /// Takes no more commands, answers those taken, folds the journal into the snapshot and closes both. What faces
    /// still say of calls is written down until what is answered here is dropped.
    pub fn stop(self) -> Stopped {
        let shared = &self.engine.shared;
        shared.draining.store(true, Ordering::SeqCst);
        shared.sequencer_bell.ring();
        // Who follows hears nothing more, and need not wait for it.
        shared.followers.notify_waiters();
        for thread in self.threads {
            // A thread that panicked has already reported its failure.
            let _ = thread.join();
        }
        Stopped { engine: self.engine.clone(), trail: Some(self.trail) }
    }
}

/// The engine, of which only the audit trail still runs.
pub struct Stopped {
    engine: Engine,
    trail: Option<JoinHandle<()>>,
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.engine.trail().close();
        // A thread that panicked has already reported its failure.
        let _ = self.trail.take().map(JoinHandle::join);
    }
}

fn spawn(
    shared: &Arc<Shared>,
    name: String,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, StartError> {
    let shared = Arc::clone(shared);
    let thread = std::thread::Builder::new().name(name.clone()).spawn(move || {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        if done.is_err() {
            shared.fail(crate::exit::BROKEN, format!("thread {name} stopped on a broken invariant"));
        }
    });
    thread.map_err(StartError::Thread)
}

impl Engine {
    /// Puts a frame in the order; the reply comes over `tag`. Refused at the door when the engine is full or
    /// draining.
    pub fn submit(&self, frame: Frame<Tag>) -> Result<(), Refused> {
        let shared = &self.shared;
        if shared.draining.load(Ordering::SeqCst) {
            return Err(Refused::Turned(Code::ShuttingDown));
        }
        if frame.principal == PrincipalId::SYSTEM {
            return self.push(frame);
        }
        let reserves = frame.commands.iter().any(|command| matches!(command.body, Body::Reserve(_)));
        if reserves && shared.active_reservations.load(Ordering::Relaxed) >= limit::RESERVATIONS_MAX {
            return Err(Refused::Turned(Code::Overloaded));
        }
        // Only events make positions, claims on groups places of theirs, and allocations rows of their own.
        let makes_cells = |body: &Body| matches!(body, Body::Event(_) | Body::Allocate(_));
        let tells = frame.commands.iter().any(|command| makes_cells(&command.body));
        let claims_of_groups = frame.lines.iter().any(|line| line.node == NodeId::LATER);
        if (tells || claims_of_groups) && shared.view_cells.load(Ordering::Relaxed) >= limit::VIEW_CELLS_MAX {
            return Err(Refused::Turned(Code::Overloaded));
        }
        let lag = shared.view.durable().0.saturating_sub(shared.covered.load(Ordering::Relaxed));
        if lag > limit::FOLD_LAG_MAX {
            return Err(Refused::Turned(Code::Overloaded));
        }
        self.push(frame)
    }

    fn push(&self, frame: Frame<Tag>) -> Result<(), Refused> {
        self.shared.submissions.push(frame).map_err(|frame| Refused::LaneFull(Box::new(frame)))?;
        self.shared.sequencer_bell.ring();
        Ok(())
    }

    pub fn view(&self) -> &View {
        &self.shared.view
    }

    /// Follows the wall clock for as long as the engine runs, and notes when the directory was in use.
    pub async fn keep_clock(self, data: DataDir) {
        let mut noted = 0;
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(250)).await;
            if let Some(set_ms) = self.shared.clock.follow() {
                tracing::warn!(set_ms, "the wall clock was set; commands go on by elapsed time");
            }
            let now = self.clock().now();
            if now.since(Millis(noted)) >= limit::CLOCK_NOTED_MS {
                noted = now.0;
                let kept = data.keep_sources(&self.metrics().sources.save());
                if let Err(error) = data.note_use(now).and(kept) {
                    tracing::warn!("{error}");
                }
            }
        }
    }

    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    pub fn names(&self) -> &Names {
        &self.shared.names
    }

    /// What could not be applied.
    /// The key from which ids are made that only their owner can know.
    pub fn id_key(&self) -> &ring::hmac::Key {
        &self.shared.id_key
    }

    /// What principals share.
    pub fn budgets(&self) -> &Budgets {
        &self.shared.budgets
    }

    pub fn letters(&self) -> &Arc<Letters> {
        &self.shared.letters
    }

    /// What was done that binds others, and what was refused.
    pub fn trail(&self) -> &Trail {
        &self.shared.trail
    }

    pub fn principals(&self) -> &Principals {
        &self.shared.principals
    }

    /// Puts the recorded answers in place of repeats, as [`FrameReply::repeats`] lists them and sorted by LSN from
    /// the last: some of them, which are taken from `repeats`. Reads the disk: not for async tasks.
    pub fn fill_repeats(
        &self,
        reply: &mut FrameReply,
        repeats: &mut Vec<(usize, Lsn)>,
    ) -> Result<(), JournalError> {
        let mut decoded = Decoded::default();
        let mut reads = 0;
        while let Some((at, lsn)) = repeats.last().copied() {
            // Repeats mostly come as they came before, side by side in one record: it is read once.
            if decoded.entry(lsn).is_none() {
                if reads == limit::REPEAT_READS_PER_TURN {
                    break;
                }
                reads += 1;
                decoded = stockline_core::journal::find(&*self.shared.reader, lsn)?;
            }
            repeats.pop();
            match decoded.entry(lsn) {
                Some(entry) => reply.fill_repeat(at, &decoded, entry),
                // It left the window between the question and the answer.
                None => {
                    reply.replies[at].outcome = stockline_core::ledger::Outcome::of(Code::KeyTooOld);
                    reply.replies[at].repeat = false;
                }
            }
        }
        Ok(())
    }

    /// Is over when more is durable than there was when it was enabled.
    pub fn moved(&self) -> Notified<'_> {
        self.shared.followers.notified()
    }

    /// What the journal says of some commands from an LSN on, of one channel's reservations or all, with the skus that
    /// changed or without; `None` where it has forgotten that. Reads the disk: not for async tasks.
    pub fn happened(
        &self,
        from: Lsn,
        channel: Option<ChannelId>,
        with_skus: bool,
    ) -> Result<Option<Found>, JournalError> {
        let durable = self.view().durable();
        let mut found = Found { next: from, ..Found::default() };
        let (mut records, mut forgotten) = (0, false);
        let mut skus = HashSet::new();
        self.shared.reader.scan(from, &mut |first, bytes| {
            // What the reader finds beyond what is published is told when it is.
            if first > found.next || first > durable {
                forgotten = records == 0 && first > found.next;
                return Ok(false);
            }
            records += 1;
            let decoded = self.shared.decoded.get(first, bytes)?;
            for entry in decoded.entries.iter().filter(|entry| (from..=durable).contains(&entry.lsn)) {
                let notices = feed::notices(&decoded, entry);
                let own = notices.filter(|notice| channel.is_none_or(|channel| channel == notice.channel));
                found.notices.extend(own.map(NoticeRec::from));
                match feed::skus(&decoded, entry) {
                    Some(changed) if with_skus => skus.extend(changed),
                    Some(_) => {}
                    None => found.redefined = true,
                }
                found.next = entry.lsn.next();
                if found.notices.len() >= limit::FOLLOW_NOTICES_MAX || skus.len() >= limit::FOLLOW_SKUS_MAX {
                    return Ok(false);
                }
            }
            Ok(records < limit::FOLLOW_RECORDS_PER_TURN)
        })?;
        found.skus = skus.into_iter().collect();
        found.skus.sort_unstable();
        Ok((!forgotten).then_some(found))
    }

    /// Hands over what the journal says from an LSN downwards to another, newest first, until `take` says no or so many
    /// commands were looked at. Answers where to go on, and the first LSN that is kept. Reads the disk: not for async
    /// tasks.
    pub fn backwards(
        &self,
        from: Lsn,
        down_to: Lsn,
        commands: usize,
        mut take: impl FnMut(&Decoded, &Entry) -> bool,
    ) -> Result<(Option<Lsn>, Lsn), JournalError> {
        let reader = &*self.shared.reader;
        let kept_from = reader.bounds()?.map_or(self.view().durable().next(), |(first, _)| first);
        let least = down_to.max(kept_from);
        let (mut next, mut seen) = (from.min(self.view().durable()), 0);
        while next >= least && next > Lsn::NONE {
            if seen >= commands {
                return Ok((Some(next), kept_from));
            }
            let decoded = stockline_core::journal::find(reader, next)?;
            let until = next;
            for entry in decoded.entries.iter().rev().filter(|entry| entry.lsn <= until) {
                if entry.lsn < least {
                    return Ok((None, kept_from));
                }
                seen += 1;
                next = Lsn(entry.lsn.0 - 1);
                if !take(&decoded, entry) {
                    return Ok(((next >= least && next > Lsn::NONE).then_some(next), kept_from));
                }
            }
            if next == until {
                // The record has left the journal since.
                return Ok((None, until.next()));
            }
        }
        Ok((None, kept_from))
    }

    /// Copies journal and snapshot into a new directory; answers the anchor behind the last record copied.
    pub async fn backup(&self, to: PathBuf) -> Result<Anchor, String> {
        let (done, made) = tokio::sync::oneshot::channel();
        let queued = self.shared.backups.push(Backup { to, done });
        queued.map_err(|_| "too many backups wait; ask again later")?;
        self.shared.checkpoint_bell.ring();
        made.await.unwrap_or_else(|_| Err("the server is stopping".into()))
    }

    /// Slices checked by the self-audit since the start, and what it found wrong.
    pub fn self_audit(&self) -> (u64, u64) {
        (self.shared.audited.load(Ordering::Relaxed), self.shared.audited_wrong.load(Ordering::Relaxed))
    }

    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// How things stand at this moment.
    pub fn gauges(&self) -> Gauges {
        let shared = &self.shared;
        let sum = |slices: &[AtomicU64]| slices.iter().map(|slice| slice.load(Ordering::Relaxed)).sum();
        let (audited, audited_wrong) = self.self_audit();
        let since = shared.oldest.iter().map(|slice| slice.load(Ordering::Relaxed));
        let oldest = since.filter(|since| *since > 0).min();
        let durable = self.view().durable().0;
        Gauges {
            durable,
            ordered: shared.ordered.load(Ordering::Relaxed),
            covered: self.covered().0,
            queued: shared.submissions.waiting(),
            executing: shared.outputs.iter().map(ArrayQueue::len).max().unwrap_or(0),
            active_reservations: self.active_reservations(),
            view_cells: shared.view_cells.load(Ordering::Relaxed),
            followers: shared.metrics.cursors.len(),
            follower_lag: shared
                .metrics
                .cursors
                .iter()
                .map(|next| (durable + 1).saturating_sub(*next.value()))
                .max()
                .unwrap_or(0),
            audited,
            audited_wrong,
            shortages: sum(&shared.shortages),
            confirmed: sum(&shared.confirmed),
            older: shared.older.each_ref().map(|slices| sum(slices)),
            oldest: Millis(oldest.unwrap_or(0)),
            started_at: shared.clock.started_at(),
            dead_letters: shared.letters.count(),
            clock_jumps: shared.clock.jumps(),
            clock_offset_s: shared.clock.offset_ms() as f64 / 1e3,
        }
    }

    pub fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Relaxed)
    }

    pub fn active_reservations(&self) -> usize {
        self.shared.active_reservations.load(Ordering::Relaxed)
    }

    /// Up to here the snapshot knows.
    pub fn covered(&self) -> Lsn {
        Lsn(self.shared.covered.load(Ordering::Relaxed))
    }
}

/// A frame of the system's own.
fn system_frame(commands: Vec<stockline_core::command::Command>) -> Frame<Tag> {
    Frame { tag: Tag::new(None), principal: PrincipalId::SYSTEM, commands, lines: Vec::new() }
}
