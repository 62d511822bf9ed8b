//! The group commit: what all shards did for a few batches becomes one journal record; when that is durable,
//! readers see it; only then are the senders answered.
//!
//! No thread and no queue is known here: the caller brings batches with the outputs of all shards, in order.

use std::sync::Arc;

use crate::batch::Batch;
use crate::chain::{Anchor, Chain};
use crate::command::Body;
use crate::drill::{Bug, planted};
use crate::id::Lsn;
use crate::journal::{Journal, JournalError, JournalRecord};
use crate::limit;
use crate::merge::{FrameReply, merge};
use crate::outcome::Code;
use crate::sequencer::Learned;
use crate::shard::Output;
use crate::view::Publisher;

/// A batch whose shards are all done.
pub struct Done<T> {
    pub batch: Arc<Batch<T>>,
    pub outputs: Vec<Output>,
    /// One a frame.
    pub replies: Vec<FrameReply>,
}

/// What is collected for the next record, and where the journal ends.
pub struct Commit<T> {
    record: JournalRecord,
    bytes: Vec<u8>,
    group: Vec<Done<T>>,
    durable: Lsn,
    chain: Chain,
}

impl<T> Commit<T> {
    /// Goes on behind the record that ends at the anchor.
    pub fn new(end: Anchor) -> Commit<T> {
        let mut record = JournalRecord::default();
        record.restart(end.lsn.next());
        Commit { record, bytes: Vec::new(), group: Vec::new(), durable: end.lsn, chain: end.chain }
    }

    /// Takes the next batch in the order, with one output a shard.
    pub fn add(&mut self, batch: Arc<Batch<T>>, outputs: Vec<Output>) {
        let mut replies = Vec::with_capacity(batch.frames.len());
        merge(&batch, &outputs, &mut self.record, &mut replies);
        self.group.push(Done { batch, outputs, replies });
    }

    pub fn is_empty(&self) -> bool {
        self.group.is_empty()
    }

    /// Whether it should be written before more is added.
    pub fn is_full(&self) -> bool {
        self.record.bytes() >= limit::JOURNAL_RECORD_BYTES
    }

    /// Everything up to here is durable.
    pub fn durable(&self) -> Lsn {
        self.durable
    }

    /// Makes durable what was collected, then publishes it. `covered`: the journal may drop what lies before
    /// it and before the idempotency window. An error is final: nothing of the group may be answered.
    pub fn write(
        &mut self,
        journal: &mut dyn Journal,
        publisher: &mut Publisher,
        covered: Lsn,
    ) -> Result<(), JournalError> {
        if self.record.entries.is_empty() {
            return Ok(());
        }
        let last = Lsn(self.durable.0 + self.record.entries.len() as u64);
        self.record.encode(&mut self.chain, &mut self.bytes);
        // The group's first batch knew repeats of commands that its last one has forgotten: they stay for it.
        let keep_from = self.group.first().map_or(Lsn::NONE, |done| done.batch.keep_from).min(covered.next());
        if planted(Bug::PublishBeforeDurable) {
            self.publish(publisher, last);
        }
        match journal.append(self.durable, last, &self.bytes, keep_from) {
            Err(_) if planted(Bug::IgnoreWriteError) => {}
            other => other?,
        }
        self.publish(publisher, last);
        self.durable = last;
        self.record.restart(last.next());
        Ok(())
    }

    fn publish(&self, publisher: &mut Publisher, last: Lsn) {
        for done in &self.group {
            for changed in done.outputs.iter().flat_map(|output| &output.changed) {
                publisher.store(changed.place, changed.offer, last);
            }
            if let Some(change) = &done.batch.change {
                publisher.store_rules(Arc::clone(&change.rules), last);
            }
        }
        publisher.raise(last);
    }

    /// What was written and may be answered now.
    pub fn finish(&mut self) -> impl Iterator<Item = Done<T>> {
        self.group.drain(..)
    }
}

impl<T> Done<T> {
    /// Tells which reservations are there and which have ended, in the order of LSNs.
    pub fn learned(&self, mut tell: impl FnMut(Learned)) {
        for (stamped, reply) in self.batch.frames.iter().zip(&self.replies) {
            for (command, reply) in stamped.frame.commands.iter().zip(&reply.replies) {
                let new = reply.outcome.code == Code::Ok && !reply.repeat;
                let ended = !reply.outcome.state.is_active();
                match &command.body {
                    Body::Reserve(reserve) if new => tell(Learned::Reserved(reserve.id)),
                    Body::Reserve(reserve) if reply.lsn != Lsn::NONE && !reply.repeat => {
                        tell(Learned::Refused(reserve.id));
                    }
                    Body::Transition(transition) if new && reply.outcome.reacquired => {
                        tell(Learned::Reserved(transition.reservation));
                    }
                    Body::Transition(transition) if new && ended => {
                        tell(Learned::Ended(transition.reservation, reply.lsn));
                    }
                    Body::Expire(id) if new && ended => tell(Learned::Ended(*id, reply.lsn)),
                    _ => {}
                }
            }
        }
        tell(Learned::UpTo(self.batch.last));
    }
}
