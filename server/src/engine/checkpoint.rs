//! The checkpoint's thread: folds the journal into the snapshot now and then, and once more at the end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use stockline_core::checkpoint::fold;
use stockline_core::limit;
use stockline_core::self_audit;
use stockline_core::snapshot::Snapshot;

use super::Shared;

/// The nice value of a thread that takes what others leave.
const LEAST: i32 = 19;
/// Between two slices of the self-audit.
const AUDIT: Duration = Duration::from_millis(limit::AUDIT_MS);
/// How long a clean stop goes on folding.
const STOP_FOLDING: Duration = Duration::from_secs(5);

pub(super) fn run(shared: &Arc<Shared>, snapshot: &Snapshot) {
    shared.checkpoint_bell.mine();
    // Folding is never urgent: commands and queries go first. Where the system does not allow it, folding is
    // only less polite.
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), LEAST);
    let mut folded_at = Instant::now();
    let mut audited_at = Instant::now();
    let mut stopping: Option<Instant> = None;
    loop {
        while let Some(backup) = shared.backups.pop() {
            if shared.draining.load(Ordering::SeqCst) {
                let _ = backup.done.send(Err("the server is stopping".into()));
                continue;
            }
            let beside = (&*shared.letters, shared.trail.records());
            let made = super::backup_files(snapshot, &*shared.reader, beside, &shared.data, &backup.to);
            // Whoever asked may have gone.
            let _ = backup.done.send(made);
        }
        if audited_at.elapsed() >= AUDIT && !shared.draining.load(Ordering::SeqCst) {
            audit(shared, snapshot);
            audited_at = Instant::now();
        }
        let finished = shared.written_all.load(Ordering::SeqCst);
        let behind = || shared.view.durable().0.saturating_sub(shared.covered.load(Ordering::Relaxed));
        let waited = folded_at.elapsed() >= Duration::from_millis(limit::FOLD_MS);
        if behind() > 0 && (finished || waited || behind() >= limit::FOLD_COMMANDS) {
            loop {
                let started = Instant::now();
                match fold(snapshot, &*shared.reader) {
                    Ok((covered, more)) => {
                        shared.metrics.fold_seconds.observe(started.elapsed().as_secs_f64());
                        shared.covered.store(covered.lsn.0, Ordering::Relaxed);
                        let other_work = !shared.backups.is_empty() || audited_at.elapsed() >= AUDIT;
                        if !more || (other_work && !shared.draining.load(Ordering::SeqCst)) {
                            break;
                        }
                        if shared.written_all.load(Ordering::SeqCst) {
                            // What is not folded when the server should be gone, the next start reads.
                            if stopping.get_or_insert_with(Instant::now).elapsed() > STOP_FOLDING {
                                return;
                            }
                        }
                        // The disk has no priorities: resting leaves half of it to the journal.
                        if behind() < limit::FOLD_LAG_RELAXED && !shared.written_all.load(Ordering::SeqCst) {
                            rest(started.elapsed());
                        }
                    }
                    Err(error) => {
                        let reason = format!("the checkpoint cannot go on: {error}");
                        return shared.fail(crate::exit::JOURNAL, reason);
                    }
                }
            }
            folded_at = Instant::now();
        } else if finished {
            return;
        } else {
            shared.checkpoint_bell.wait(Duration::from_millis(limit::FOLD_MS), || {
                shared.written_all.load(Ordering::SeqCst)
                    || behind() >= limit::FOLD_COMMANDS
                    || !shared.backups.is_empty()
            });
        }
    }
}

/// Checks the next slice and says what does not hold.
fn audit(shared: &Shared, snapshot: &Snapshot) {
    let slice = shared.audited.fetch_add(1, Ordering::Relaxed);
    match self_audit::check(snapshot, &shared.view, slice as u32) {
        Ok(finding) => {
            for wrong in &finding.wrong {
                tracing::error!(as_of = %finding.as_of, "self-audit: {wrong}");
            }
            let at = slice as usize % limit::AUDIT_SLICES as usize;
            shared.shortages[at].store(finding.shortages, Ordering::Relaxed);
            shared.confirmed[at].store(finding.confirmed, Ordering::Relaxed);
            shared.oldest[at].store(finding.oldest.0, Ordering::Relaxed);
            for (slices, count) in shared.older.iter().zip(finding.older) {
                slices[at].store(count, Ordering::Relaxed);
            }
            shared.audited_wrong.fetch_add(finding.wrong.len() as u64, Ordering::Relaxed);
        }
        Err(error) => {
            tracing::error!("self-audit: {error}");
            shared.audited_wrong.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "resting is the point")]
fn rest(time: Duration) {
    std::thread::sleep(time);
}
