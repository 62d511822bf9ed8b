//! The journal's thread: collects what the shards did, commits it, and only then answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use stockline_core::batch::{Batch, Slot};
use stockline_core::command::{Body, Command};
use stockline_core::commit::{Commit, Done};
use stockline_core::id::{Key, Lsn};
use stockline_core::journal::Journal;
use stockline_core::limit;
use stockline_core::outcome::Code;
use stockline_core::shard::Output;
use stockline_core::view::Publisher;

use super::lanes::{LANES, lane_of};
use super::pause::pause;
use super::{Answered, Executed, Shared, Tag};

const IDLE: Duration = Duration::from_millis(500);

pub(super) fn run(
    shared: &Arc<Shared>,
    mut journal: Box<dyn Journal>,
    mut commit: Commit<Tag>,
    mut publisher: Publisher,
) {
    shared.journal_bell.mine();
    let mut unfinished: Vec<Option<Answered>> = (0..LANES).map(|_| None).collect();
    let nameless: Arc<str> = "".into();
    let mut merged = 0;
    loop {
        while !commit.is_full()
            && let Some((batch, output)) = shared.outputs[0].pop()
        {
            let outputs = collect(shared, &batch, output);
            commit.add(batch, outputs);
            merged += 1;
        }
        if commit.is_empty() {
            if finished(shared, merged) {
                break;
            }
            shared.journal_bell.wait(IDLE, || !shared.outputs[0].is_empty() || finished(shared, merged));
            continue;
        }
        let covered = Lsn(shared.covered.load(Ordering::Relaxed));
        let (before, begun) = (commit.durable(), Instant::now());
        if let Err(error) = commit.write(&mut *journal, &mut publisher, covered) {
            let reason = format!("{error}; nothing after LSN {} is acknowledged", commit.durable());
            return shared.fail(crate::exit::JOURNAL, reason);
        }
        let written = commit.durable().0 - before.0;
        if written > 0 {
            let metrics = &shared.metrics;
            metrics.commands.fetch_add(written, Ordering::Relaxed);
            metrics.batch_commands.observe(written as f64);
            metrics.commit_seconds.observe(begun.elapsed().as_secs_f64());
        }
        if commit.durable().0.saturating_sub(covered.0) >= limit::FOLD_COMMANDS {
            shared.checkpoint_bell.ring();
        }
        shared.view_cells.store(publisher.cells(), Ordering::Relaxed);
        // Lanes that have their share go on now.
        shared.sequencer_bell.ring();
        for done in commit.finish() {
            spread(shared, &done);
            count(shared, &done, &nameless);
            answer(done, &mut unfinished, shared.letters.count() > 0);
        }
        shared.followers.notify_waiters();
    }
    shared.written_all.store(true, Ordering::SeqCst);
    shared.checkpoint_bell.ring();
}

/// Whether every batch there will be has been merged, those without a new LSN too.
fn finished(shared: &Shared, merged: u64) -> bool {
    shared.sequenced_all.load(Ordering::SeqCst) && shared.dispatched.load(Ordering::SeqCst) == merged
}

/// Waits for the other shards' outputs for the same batch.
fn collect(shared: &Shared, batch: &Arc<Batch<Tag>>, first: Output) -> Vec<Output> {
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
        assert!(Arc::ptr_eq(batch, &other), "all shards execute the same batches in the same order");
        outputs.push(output);
    }
    outputs
}

/// Tells the rest of the engine what is durable now.
fn spread(shared: &Shared, done: &Done<Tag>) {
    if shared.outputs.len() > 1 {
        done.learned(|learned| shared.learned.push(learned));
    }
    if done.batch.defines {
        for stamped in &done.batch.frames {
            for (command, slot) in stamped.frame.commands.iter().zip(&stamped.slots) {
                if let (Body::Define(definition), Slot::Defined { id, .. }) = (&command.body, slot) {
                    shared.names.learn(definition, *id);
                }
            }
        }
    }
    if let Some(change) = &done.batch.change {
        shared.principals.replace(&change.principals);
    }
    // A reservation over several shards counts once in each: the gauge errs on the side of its limit.
    let active = done.outputs.iter().map(|output| output.active).sum();
    shared.active_reservations.store(active, Ordering::Relaxed);
}

/// Counts what was refused, and what sources of stock events told that have no names.
fn count(shared: &Shared, done: &Done<Tag>, nameless: &Arc<str>) {
    for (stamped, reply) in done.batch.frames.iter().zip(&done.replies) {
        let refused = reply.replies.iter().filter(|told| told.outcome.code != Code::Ok && !told.repeat);
        refused.for_each(|told| shared.metrics.refused(told.outcome.code));
        let first = stamped.frame.commands.first().map(|command| &command.body);
        if stamped.frame.tag.names_sources || !matches!(first, Some(Body::Event(_))) {
            continue;
        }
        let events = stamped.frame.commands.iter().zip(&reply.replies);
        let events = events.filter_map(|(command, reply)| match &command.body {
            Body::Event(event) => Some((event, None, reply)),
            _ => None,
        });
        shared.metrics.sources.count(stamped.frame.principal, nameless, done.batch.now, events);
    }
}

/// Sends replies to whoever waits. A frame that went in pieces is answered whole: its pieces come one after the
/// other in its lane, and `unfinished` has, by lane, what is there of it.
fn answer(done: Done<Tag>, unfinished: &mut [Option<Answered>], has_letters: bool) {
    for (stamped, reply) in done.batch.frames.iter().zip(done.replies) {
        let frame = &stamped.frame;
        let Tag { reply_to: Some(reply_to), mark, audited, more, begun, .. } = &frame.tag else { continue };
        let commands = frame.commands.len();
        let is_event = |command: &&Command| has_letters && matches!(command.body, Body::Event(_));
        let mut events: Vec<Key> =
            frame.commands.iter().take_while(is_event).map(|command| command.key).collect();
        let before = &mut unfinished[lane_of(frame.principal)];
        let answered = match before.take() {
            Some(mut whole) => {
                // Of pieces before the first letter nothing is known.
                whole.events.resize(whole.commands, Key(0));
                whole.events.append(&mut events);
                whole.commands += commands;
                whole.reply.append(reply);
                whole
            }
            None => Answered { mark: *mark, audited: *audited, begun: *begun, commands, events, reply },
        };
        if *more {
            *before = Some(answered);
        } else {
            // Whoever went away meanwhile asks again with the same key.
            let _ = reply_to.send(answered);
        }
    }
}
