//! Every interleaving, by loom, of what we wrote with atomics ourselves: the cells of the view with the durable
//! watermark, the votes between shards, and the bell that wakes who waits on a queue.
//!
//! The very files of core and server are compiled here with loom's atomics in place of std's.

#[path = "../../server/src/engine/bell.rs"]
mod bell;
#[path = "../../core/src/view/cell.rs"]
#[expect(unreachable_pub, reason = "a file of the core")]
mod cell;
#[path = "../../core/src/vote.rs"]
#[expect(unreachable_pub, dead_code, reason = "a file of the core")]
mod vote;

use std::time::Duration;

use loom::sync::Arc;
use loom::thread;
use stockline_core::drill;

use bell::Bell;
use cell::Cell;
use sync::{AtomicU32, AtomicU64, Ordering};
use vote::{Ballot, Vote};

mod sync {
    pub(super) use loom::hint::spin_loop;
    pub(super) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
    pub(super) use loom::thread::{Thread, current};

    /// Time does not pass: whoever is not woken sleeps for ever, and loom says so.
    pub(super) fn park_timeout(_: std::time::Duration) {
        loom::thread::park();
    }
}

/// Value of each cell as of an LSN.
fn value(lsn: u64, cell: u64) -> u64 {
    lsn * 10 + cell
}

fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(check);
}

#[test]
fn an_answer_is_the_one_state_of_its_lsn() {
    model(|| {
        let view = Arc::new((Cell::default(), Cell::default(), AtomicU64::new(0)));
        for cell in [0, 1] {
            let cells = [&view.0, &view.1];
            cells[cell as usize].write(0, 1, value(1, cell));
        }
        view.2.store(1, Ordering::Release);
        let writer = {
            let view = Arc::clone(&view);
            thread::spawn(move || {
                for lsn in [2, 3] {
                    view.0.write(lsn - 1, lsn, value(lsn, 0));
                    view.1.write(lsn - 1, lsn, value(lsn, 1));
                    view.2.store(lsn, Ordering::Release);
                }
            })
        };
        let as_of = view.2.load(Ordering::Acquire);
        let read = [view.0.read(as_of), view.1.read(as_of)];
        for (cell, read) in read.into_iter().enumerate() {
            // Where both versions are newer the reader starts again.
            if let Ok(read) = read {
                assert_eq!(read, value(as_of, cell as u64), "cell {cell} as of {as_of}");
            }
        }
        writer.join().expect("ends");
        assert_eq!(view.0.read(3), Ok(value(3, 0)));
    });
}

#[test]
fn a_version_overwritten_before_it_was_durable_is_never_read_in_part() {
    model(|| {
        let view = Arc::new((Cell::default(), AtomicU64::new(1)));
        view.0.write(0, 1, value(1, 0));
        let writer = {
            let view = Arc::clone(&view);
            thread::spawn(move || {
                // Two changes in one group commit, then it is durable.
                view.0.write(1, 2, value(2, 0));
                view.0.write(1, 3, value(3, 0));
                view.1.store(3, Ordering::Release);
            })
        };
        let as_of = view.1.load(Ordering::Acquire);
        assert_eq!(view.0.read(as_of), Ok(value(as_of, 0)));
        writer.join().expect("ends");
    });
}

#[test]
fn all_parts_come_to_the_same_verdict_and_only_when_all_have_voted() {
    for votes in [[true, true], [true, false], [false, false]] {
        model(move || {
            let vote = Arc::new(Vote::new(2));
            let shards: Vec<_> = votes
                .into_iter()
                .map(|yes| {
                    let vote = Arc::clone(&vote);
                    thread::spawn(move || {
                        vote.cast(Ballot::NO.when(!yes).and(Ballot::SOME.when(yes)));
                        loop {
                            match vote.verdict() {
                                Some(verdict) => return verdict,
                                None => thread::yield_now(),
                            }
                        }
                    })
                })
                .collect();
            for shard in shards {
                let said: Ballot = shard.join().expect("ends");
                assert_eq!(!said.says(Ballot::NO), votes == [true, true]);
                // Whoever learns that nobody said no has heard all.
                assert!(said.says(Ballot::NO) || said.says(Ballot::SOME));
            }
        });
    }
}

#[test]
fn what_one_part_lays_open_all_read_once_the_table_is_closed() {
    model(|| {
        let vote = Arc::new(Vote::with_table(2, 3));
        let shards: Vec<_> = [0usize, 1]
            .into_iter()
            .map(|shard| {
                let vote = Arc::clone(&vote);
                thread::spawn(move || {
                    let table = vote.table.as_ref().expect("it was made with one");
                    table.tell(shard, 7 + shard as u64);
                    table.tell(2, 10);
                    table.close();
                    while !table.is_closed() {
                        thread::yield_now();
                    }
                    [0, 1, 2].map(|cell| table.read(cell))
                })
            })
            .collect();
        for shard in shards {
            assert_eq!(shard.join().expect("ends"), [7, 8, 20]);
        }
    });
}

#[test]
fn whoever_waits_on_a_queue_is_woken() {
    model(|| {
        // What is in the queue. The one who waits does nothing else that blocks: loom forgets that a thread was
        // unparked while it waited for a mutex or for another thread's end.
        let shared = Arc::new((Bell::default(), AtomicU32::new(0)));
        let consumer = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                shared.0.mine();
                let mut taken = 0;
                while taken < 2 {
                    if shared.1.load(Ordering::Acquire) > 0 {
                        shared.1.fetch_sub(1, Ordering::AcqRel);
                        taken += 1;
                    } else {
                        shared.0.wait(Duration::ZERO, || shared.1.load(Ordering::Acquire) > 0);
                    }
                }
            })
        };
        let put = |shared: &(Bell, AtomicU32)| {
            shared.1.fetch_add(1, Ordering::AcqRel);
            shared.0.ring();
        };
        let other = Arc::clone(&shared);
        let producer = thread::spawn(move || put(&other));
        put(&shared);
        producer.join().expect("ends");
        consumer.join().expect("ends");
    });
}
