//! The engine of the simulation: the core's state machines, joined by queues as in the server, each moved by
//! hand.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use stockline_core::admission::WindowSize;
use stockline_core::batch::Batch;
use stockline_core::checkpoint::{CheckpointError, fold};
use stockline_core::command::{Command, Frame};
use stockline_core::commit::Commit;
use stockline_core::id::{ChannelId, Key, Lsn, Millis, NodeId, PrincipalId, SkuId};
use stockline_core::journal::file::FileJournal;
use stockline_core::journal::{self, Journal, JournalError, JournalReader};
use stockline_core::ledger::{Ledger, StateHash, audit};
use stockline_core::limit;
use stockline_core::merge::FrameReply;
use stockline_core::recovery::recover;
use stockline_core::sequencer::{Learned, Sequencer};
use stockline_core::shard::{Output, Progress};
use stockline_core::snapshot::Snapshot;
use stockline_core::view::{Publisher, View};
use stockline_loadgen::chance::pick;
use stockline_loadgen::dice::Dice;
use stockline_loadgen::model::Model;

use crate::disk::Disk;

/// Small enough to be left behind often.
pub(super) const WINDOW: WindowSize = WindowSize { commands: 1_500, ms: 600_000 };

/// How far the wall clock is set ahead at most.
pub(super) const WALL_AHEAD_MS: u64 = 86_400_000;

/// Which client a frame is from, over which of its connections it came, and its mark; none for the system.
pub(super) type Tag = Option<(usize, u64, u64)>;

type Running = (Arc<Batch<Tag>>, Progress);

pub(super) struct SimEngine {
    pub(super) sequencer: Sequencer,
    ledgers: Vec<Ledger>,
    submissions: VecDeque<Frame<Tag>>,
    batches: Vec<VecDeque<Arc<Batch<Tag>>>>,
    running: Vec<Option<Running>>,
    outputs: Vec<VecDeque<(Arc<Batch<Tag>>, Output)>>,
    commit: Commit<Tag>,
    journal: FileJournal,
    reader: Box<dyn JournalReader>,
    snapshot: Snapshot,
    view: Arc<View>,
    publisher: Publisher,
    covered: Lsn,
}

pub(super) fn open(
    journal: &Disk,
    snapshot: &Disk,
    retain: bool,
) -> Result<(FileJournal, Snapshot), CheckpointError> {
    let journal = FileJournal::with_backend(journal.clone(), retain)?;
    Ok((journal, Snapshot::with_backend(snapshot.clone())?))
}

impl SimEngine {
    pub(super) fn start(
        journal: &Disk,
        snapshot: &Disk,
        shards: u32,
        retain: bool,
    ) -> Result<SimEngine, CheckpointError> {
        let (journal, snapshot) = open(journal, snapshot, retain)?;
        let reader = journal.reader();
        let mut recovered = recover(&snapshot, &*reader, shards, WINDOW)?;
        assert_eq!(audit(&recovered.ledgers), Vec::<String>::new(), "recovered");
        let (view, mut publisher) = View::new(recovered.catalogue.rules());
        for ledger in &recovered.ledgers {
            ledger.all_offers(|place, offer| publisher.store(place, offer, recovered.last.max(Lsn(1))));
        }
        publisher.raise(recovered.last);
        let mut sequencer =
            Sequencer::new(recovered.catalogue, recovered.window, recovered.last, recovered.now, shards);
        let mut ended = std::collections::BTreeSet::new();
        for (id, part) in recovered.ledgers.iter().flat_map(|ledger| ledger.reservations().iter()) {
            sequencer.learn(Learned::Reserved(id));
            if !part.state.is_active() {
                ended.insert((part.ended(), id));
            }
        }
        ended.into_iter().for_each(|(at, id)| sequencer.learn(Learned::Ended(id, at)));
        let queues = || (0..shards).map(|_| VecDeque::new()).collect();
        Ok(SimEngine {
            sequencer,
            ledgers: recovered.ledgers,
            submissions: VecDeque::new(),
            batches: queues(),
            running: (0..shards).map(|_| None).collect(),
            outputs: (0..shards).map(|_| VecDeque::new()).collect(),
            commit: Commit::new(recovered.anchor),
            journal,
            reader,
            snapshot,
            view,
            publisher,
            covered: recovered.covered,
        })
    }

    pub(super) fn last(&self) -> Lsn {
        self.commit.durable()
    }

    pub(super) fn reader(&self) -> &dyn JournalReader {
        &*self.reader
    }

    pub(super) fn submit(&mut self, frame: Frame<Tag>) {
        self.submissions.push_back(frame);
    }

    /// Takes what is over and some of what waits into a batch.
    pub(super) fn sequence(&mut self, dice: &mut Dice, now: Millis) {
        if self.batches.iter().any(|queue| queue.len() >= limit::BATCH_QUEUE) {
            return;
        }
        let mut due = Vec::new();
        for ledger in &mut self.ledgers {
            ledger.take_due(now, (limit::BATCH_EXPIRIES_MAX, limit::BATCH_BALANCES_MAX), &mut due);
        }
        // A clock that is behind: the order's time does not go back.
        let shown = if pick(dice, 50) == 0 { Millis(now.0 - 86_400_000) } else { now };
        // The wall clock is another, and may be set: it says what lies in the future, and nothing else.
        let wall = match pick(dice, 40) {
            0 => now.plus(WALL_AHEAD_MS),
            1 => now.plus(3_600_000),
            2 => Millis(now.0 - 3_600_000),
            _ => now,
        };
        let mut batch: Batch<Tag> = self.sequencer.open_by(if due.is_empty() { shown } else { now }, wall);
        if !due.is_empty() {
            let command = |body| Command { key: Key(0), issued_at: now, digest: 0, body };
            let commands = due.into_iter().map(command).collect();
            let frame = Frame { tag: None, principal: PrincipalId::SYSTEM, commands, lines: Vec::new() };
            self.sequencer.push(&mut batch, frame);
        }
        for _ in 0..=pick(dice, 12) {
            let next = self.submissions.front();
            let alone = next.is_some_and(|frame| self.sequencer.may_change_rules(frame));
            if batch.is_full() || (alone && !batch.frames.is_empty()) {
                break;
            }
            let Some(frame) = self.submissions.pop_front() else { break };
            self.sequencer.push(&mut batch, frame);
            if alone {
                break;
            }
        }
        if !batch.frames.is_empty() {
            let batch = Arc::new(batch);
            self.batches.iter_mut().for_each(|queue| queue.push_back(Arc::clone(&batch)));
        }
    }

    /// Lets a shard go on as far as it can; whether it did anything.
    pub(super) fn run_shard(&mut self, shard: usize) -> bool {
        if shard >= self.ledgers.len() {
            return false;
        }
        let (batch, mut progress) = match self.running[shard].take() {
            Some(running) => running,
            None => match self.batches[shard].pop_front() {
                Some(batch) => (batch, Progress::default()),
                None => return false,
            },
        };
        match progress.advance(&mut self.ledgers[shard], &batch) {
            Some(output) => {
                self.outputs[shard].push_back((batch, output));
                true
            }
            None => {
                self.running[shard] = Some((batch, progress));
                false
            }
        }
    }

    /// Commits some batches that all shards have done, and answers them.
    pub(super) fn commit(
        &mut self,
        dice: &mut Dice,
        mut hear: impl FnMut(&Frame<Tag>, FrameReply),
    ) -> Result<(), JournalError> {
        for _ in 0..=pick(dice, 6) {
            if self.outputs.iter().any(VecDeque::is_empty) {
                break;
            }
            let done: Vec<_> = self.outputs.iter_mut().filter_map(VecDeque::pop_front).collect();
            assert!(done.iter().all(|(batch, _)| Arc::ptr_eq(batch, &done[0].0)));
            let batch = Arc::clone(&done[0].0);
            self.commit.add(batch, done.into_iter().map(|(_, output)| output).collect());
        }
        self.commit.write(&mut self.journal, &mut self.publisher, self.covered)?;
        for done in self.commit.finish().collect::<Vec<_>>() {
            done.learned(|learned| self.sequencer.learn(learned));
            for (stamped, mut reply) in done.batch.frames.iter().zip(done.replies) {
                let repeats: Vec<_> = reply.repeats().collect();
                for (at, lsn) in repeats {
                    let decoded = journal::find(&*self.reader, lsn)?;
                    if let Some(entry) = decoded.entry(lsn) {
                        reply.fill_repeat(at, &decoded, entry);
                    } else {
                        panic!("the window knows LSN {lsn}, the journal does not");
                    }
                }
                hear(&stamped.frame, reply);
            }
        }
        Ok(())
    }

    /// What the journal says to another record; for a journal that has failed.
    pub(super) fn commit_again(&mut self) -> Result<(), JournalError> {
        let last = self.journal.last();
        self.journal.append(last, last.next(), &[0], Lsn::NONE)
    }

    /// Folds; whether there was something to fold.
    pub(super) fn fold(&mut self) -> Result<bool, CheckpointError> {
        let before = self.covered;
        self.covered = fold(&self.snapshot, &*self.reader)?.0.lsn;
        Ok(self.covered > before)
    }

    /// What a channel can be promised of some skus.
    pub(super) fn ask(&self, channel: u16, skus: Range<u32>) -> (Lsn, Vec<(u32, i64)>) {
        let asked = self.view.read(|reader| {
            let Some(rule) = reader.rules.channel(ChannelId(channel)) else { return Ok(Vec::new()) };
            let mut told = Vec::new();
            for sku in skus.clone() {
                let available = reader.available(rule, None, SkuId(sku), |_, _| {})?;
                told.push((sku, available.units));
            }
            Ok(told)
        });
        asked.expect("nobody writes meanwhile")
    }

    pub(super) fn is_idle(&self) -> bool {
        self.submissions.is_empty()
            && self.batches.iter().all(VecDeque::is_empty)
            && self.outputs.iter().all(VecDeque::is_empty)
            && self.running.iter().all(Option::is_none)
    }

    pub(super) fn hash(&self) -> String {
        let mut hash = StateHash::default();
        self.ledgers.iter().for_each(|ledger| hash += ledger.state_hash());
        hash.to_string()
    }

    pub(super) fn audit(&self) -> Vec<String> {
        audit(&self.ledgers)
    }

    /// Compares every position with the model.
    pub(super) fn compare(&self, model: &Model) {
        for sku in 0..10u32 {
            let owner = self.ledgers.iter().find(|ledger| ledger.shard().owns(SkuId(sku))).expect("one");
            for node in 0..3 {
                let found: Vec<i64> = [0, 1, 2, 3, 4, 5, 6, 7, 8, 13]
                    .into_iter()
                    .map(|bucket| {
                        let bucket = stockline_core::bucket::Bucket::from_number(bucket).expect("ten");
                        owner.units(SkuId(sku), NodeId(node), bucket)
                    })
                    .collect();
                assert_eq!(found, model.units(sku, node), "sku {sku} node {node}");
            }
        }
    }
}
