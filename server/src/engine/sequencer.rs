//! The sequencer's thread, and the shards': inline for one, threads of their own for more.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use stockline_core::batch::Batch;
use stockline_core::command::{Body, Command, Frame};
use stockline_core::id::{Key, Millis};
use stockline_core::ledger::Ledger;
use stockline_core::limit;
use stockline_core::sequencer::Sequencer;
use stockline_core::shard;

use super::bell::Bell;
use super::lanes::Turns;
use super::pause::pause;
use super::{Shared, Tag, system_frame};

/// Longest sleep without anything to do.
const IDLE: Duration = Duration::from_millis(500);

pub(super) fn run(shared: &Arc<Shared>, mut sequencer: Sequencer, mut inline: Option<Ledger>) {
    shared.sequencer_bell.mine();
    let mut turns = Turns::new();
    let mut stash: Option<Frame<Tag>> = None;
    let mut due: Vec<Body> = Vec::new();
    loop {
        while let Some(learned) = shared.learned.pop() {
            sequencer.learn(learned);
        }
        collect_due(shared, inline.as_mut(), &mut due);
        // Read after the shards told what is over: at this time it is over.
        let now = shared.clock.now();
        let mut batch: Batch<Tag> = sequencer.open_by(now, shared.clock.wall());
        if !due.is_empty() {
            let commands = due.drain(..).map(|body| Command { key: Key(0), issued_at: now, digest: 0, body });
            let frame = system_frame(commands.collect());
            sequencer.push(&mut batch, frame);
        }
        let durable = shared.view.durable();
        turns.begin(durable, now);
        while !batch.is_full() {
            let Some(frame) = stash.take().or_else(|| turns.next(&shared.submissions, now)) else { break };
            let alone = sequencer.may_change_rules(&frame);
            if alone && !batch.frames.is_empty() {
                stash = Some(frame);
                break;
            }
            sequencer.push(&mut batch, frame);
            if alone {
                break;
            }
        }
        turns.end(batch.last);
        if !batch.frames.is_empty() {
            shared.ordered.store(batch.last.0, Ordering::Relaxed);
            shared.dispatched.fetch_add(1, Ordering::SeqCst);
            dispatch(shared, batch, inline.as_mut());
            continue;
        }
        let blocked = turns.blocked();
        if shared.draining.load(Ordering::SeqCst) && blocked == 0 && !shared.submissions.is_ready(0) {
            break;
        }
        let sleep = inline.as_ref().and_then(Ledger::next_due).map_or(IDLE, |end| until(shared, end));
        shared.sequencer_bell.wait(sleep, || {
            shared.submissions.is_ready(blocked)
                || (blocked != 0 && shared.view.durable() > durable)
                || !shared.due.is_empty()
                || (blocked == 0 && shared.draining.load(Ordering::SeqCst))
        });
    }
    shared.sequenced_all.store(true, Ordering::SeqCst);
    shared.shard_bells.iter().for_each(Bell::ring);
    shared.journal_bell.ring();
}

fn until(shared: &Shared, end: Millis) -> Duration {
    shared.clock.until(end).min(IDLE)
}

fn collect_due(shared: &Shared, inline: Option<&mut Ledger>, due: &mut Vec<Body>) {
    match inline {
        Some(ledger) => {
            ledger.take_due(shared.clock.now(), (limit::BATCH_EXPIRIES_MAX, limit::BATCH_BALANCES_MAX), due);
        }
        None => {
            while due.len() < limit::BATCH_EXPIRIES_MAX
                && let Some(body) = shared.due.pop()
            {
                due.push(body);
            }
        }
    }
}

fn dispatch(shared: &Arc<Shared>, batch: Batch<Tag>, inline: Option<&mut Ledger>) {
    let batch = Arc::new(batch);
    if let Some(ledger) = inline {
        let output = shard::run(ledger, &batch, pause);
        hand_over(shared, 0, batch, output);
        return;
    }
    for (queue, bell) in shared.batches.iter().zip(&shared.shard_bells) {
        let mut item = Arc::clone(&batch);
        let mut times = 0;
        while let Err(back) = queue.push(item) {
            item = back;
            pause(times);
            times += 1;
        }
        bell.ring();
    }
}

fn hand_over(shared: &Shared, index: usize, batch: Arc<Batch<Tag>>, output: shard::Output) {
    let mut item = (batch, output);
    let mut times = 0;
    while let Err(back) = shared.outputs[index].push(item) {
        item = back;
        pause(times);
        times += 1;
    }
    shared.journal_bell.ring();
}

/// A shard with a thread of its own.
pub(super) fn run_shard(shared: &Arc<Shared>, index: usize, mut ledger: Ledger) {
    let bell = &shared.shard_bells[index];
    let queue = &shared.batches[index];
    bell.mine();
    let mut due = Vec::new();
    loop {
        // Other shards may take the room meanwhile; what does not fit is offered again, and nothing before it.
        if due.is_empty() {
            let waiting = shared.due.len();
            let expiries = (shared.due.capacity() - waiting).min(limit::BATCH_EXPIRIES_MAX);
            // A storm of balances keeps no expiry waiting: few are told at a time.
            let balances = limit::BATCH_BALANCES_MAX.saturating_sub(waiting);
            ledger.take_due(shared.clock.now(), (expiries, balances), &mut due);
        }
        let told = due.iter().take_while(|body| shared.due.push(Body::clone(body)).is_ok()).count();
        due.drain(..told);
        if told > 0 {
            shared.sequencer_bell.ring();
        }
        if let Some(batch) = queue.pop() {
            let output = shard::run(&mut ledger, &batch, pause);
            hand_over(shared, index, batch, output);
            continue;
        }
        if shared.sequenced_all.load(Ordering::SeqCst) && queue.is_empty() {
            return;
        }
        let retry = if due.is_empty() { IDLE } else { Duration::from_millis(1) };
        let sleep = ledger.next_due().map_or(IDLE, |end| until(shared, end)).min(retry);
        bell.wait(sleep, || !queue.is_empty() || shared.sequenced_all.load(Ordering::SeqCst));
    }
}
