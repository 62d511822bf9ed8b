//! The journal's thread: merges what the shards did, makes it durable, publishes it, and only then answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use stockline_core::batch::Batch;
use stockline_core::command::Body;
use stockline_core::id::Lsn;
use stockline_core::journal::{Journal, JournalRecord};
use stockline_core::limit;
use stockline_core::merge::{FrameReply, merge};
use stockline_core::outcome::Code;
use stockline_core::sequencer::Learned;
use stockline_core::shard::Output;
use stockline_core::view::Publisher;

use super::bell::pause;
use super::{Answered, Executed, Shared, Tag};

const IDLE: Duration = Duration::from_millis(500);

/// A batch whose shards are all done.
struct Done {
    batch: Arc<Batch<Tag>>,
    outputs: Vec<Output>,
    replies: Vec<FrameReply>,
}

pub(super) fn run(shared: &Arc<Shared>, mut journal: Box<dyn Journal>, mut publisher: Publisher) {
    shared.journal_bell.mine();
    let mut record = JournalRecord::default();
    let mut bytes = Vec::new();
    let mut group: Vec<Done> = Vec::new();
    let mut durable = shared.view.durable();
    loop {
        record.restart(durable.next());
        while record.bytes() < limit::JOURNAL_RECORD_BYTES
            && let Some((batch, output)) = shared.outputs[0].pop()
        {
            group.push(collect(shared, batch, output, &mut record));
        }
        if group.is_empty() {
            if finished(shared) {
                break;
            }
            shared.journal_bell.wait(IDLE, || !shared.outputs[0].is_empty() || finished(shared));
            continue;
        }
        if !record.entries.is_empty() {
            let last = Lsn(durable.0 + record.entries.len() as u64);
            record.encode(&mut bytes);
            let covered = Lsn(shared.covered.load(Ordering::Relaxed)).next();
            let keep_from = group.last().map_or(covered, |done| done.batch.keep_from).min(covered);
            if let Err(error) = journal.append(durable, last, &bytes, keep_from) {
                let reason = format!("{error}; nothing after LSN {durable} is acknowledged");
                return shared.fail(crate::exit::JOURNAL, reason);
            }
            durable = last;
            publish(shared, &mut publisher, &group, last);
            if last.0 - shared.covered.load(Ordering::Relaxed) >= limit::FOLD_COMMANDS {
                shared.checkpoint_bell.ring();
            }
        }
        for done in group.drain(..) {
            answer(done);
        }
    }
    shared.written_all.store(true, Ordering::SeqCst);
    shared.checkpoint_bell.ring();
}

fn finished(shared: &Shared) -> bool {
    shared.sequenced_all.load(Ordering::SeqCst)
        && shared.view.durable().0 >= shared.last_stamped.load(Ordering::SeqCst)
        && shared.outputs[0].is_empty()
}

/// Waits for the other shards' outputs for the same batch and merges all.
fn collect(shared: &Shared, batch: Arc<Batch<Tag>>, first: Output, record: &mut JournalRecord) -> Done {
    let mut outputs = vec![first];
    for queue in &shared.outputs[1..] {
        let mut times = 0;
        let (other, output): Executed = loop {
            match queue.pop() {
                Some(executed) => break executed,
                None => pause(times),
            }
            times += 1;
        };
        assert!(Arc::ptr_eq(&batch, &other), "all shards execute the same batches in the same order");
        outputs.push(output);
    }
    let mut replies = Vec::with_capacity(batch.frames.len());
    merge(&batch, &outputs.iter().collect::<Vec<_>>(), record, &mut replies);
    Done { batch, outputs, replies }
}

fn publish(shared: &Shared, publisher: &mut Publisher, group: &[Done], last: Lsn) {
    for done in group {
        for changed in done.outputs.iter().flat_map(|output| &output.changed) {
            publisher.store(changed.sku, changed.node, changed.free, last);
        }
        if let Some(change) = &done.batch.change {
            publisher.store_rules(Arc::clone(&change.rules), last);
        }
    }
    publisher.raise(last);
    if shared.outputs.len() > 1 {
        group.iter().for_each(|done| teach(shared, done));
    }
    for change in group.iter().filter_map(|done| done.batch.change.as_ref()) {
        shared.principals.replace(&change.principals);
    }
    if let Some(done) = group.last() {
        // A reservation over several shards counts once in each: the gauge errs on the side of its limit.
        let active = done.outputs.iter().map(|output| output.active).sum();
        shared.active_reservations.store(active, Ordering::Relaxed);
    }
}

/// Tells the sequencer which reservations are there and which have ended.
fn teach(shared: &Shared, done: &Done) {
    for (stamped, reply) in done.batch.frames.iter().zip(&done.replies) {
        for (command, reply) in stamped.frame.commands.iter().zip(&reply.replies) {
            let new = reply.outcome.code == Code::Ok && !reply.repeat;
            let ended = !reply.outcome.state.is_active();
            let learned = match &command.body {
                Body::Reserve(reserve) if new => Learned::Reserved(reserve.id),
                Body::Transition(transition) if new && ended => {
                    Learned::Ended(transition.reservation, reply.lsn)
                }
                Body::Expire(id) if new && ended => Learned::Ended(*id, reply.lsn),
                _ => continue,
            };
            shared.learned.push(learned);
        }
    }
}

fn answer(done: Done) {
    for (stamped, reply) in done.batch.frames.iter().zip(done.replies) {
        let Tag { reply_to: Some(reply_to), mark } = &stamped.frame.tag else { continue };
        let commands = stamped.frame.commands.len();
        // Whoever went away meanwhile asks again with the same key.
        let _ = reply_to.send(Answered { mark: *mark, commands, reply });
    }
}
