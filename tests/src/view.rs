//! The published view: readers see whole durable states, whatever the writer does meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use stockline_core::catalogue::{ChannelRule, NodeSet, Policy, Rules};
use stockline_core::id::{ChannelId, GroupId, Lsn, SkuId};
use stockline_core::view::View;

use crate::bench::place;

fn all() -> ChannelRule {
    let pools = Box::new([ChannelId(0)]);
    ChannelRule {
        nodes: NodeSet::All,
        group: GroupId::ANY,
        pools,
        buffer: 0,
        policy: Policy::default(),
        planned_from: u32::MAX,
        prefers: false,
        first_nodes: Box::default(),
    }
}

#[test]
fn nothing_shows_before_it_is_raised() {
    let (view, mut publisher) = View::new(Arc::new(Rules::default()));
    let free = |view: &View, sku| {
        view.read(|reader| reader.available(&all(), None, SkuId(sku), |_, _| {})).expect("nobody writes")
    };
    assert!(!free(&view, 1).1.known);
    publisher.store(place(1, 0), 5, Lsn(1));
    assert!(!free(&view, 1).1.known, "not durable yet");
    publisher.raise(Lsn(1));
    assert_eq!((free(&view, 1).0, free(&view, 1).1.units), (Lsn(1), 5));
    publisher.store(place(1, 0), 3, Lsn(2));
    publisher.store(place(1, 0), 2, Lsn(2));
    assert_eq!(free(&view, 1).1.units, 5);
    publisher.raise(Lsn(2));
    assert_eq!(free(&view, 1).1.units, 2);
}

#[test]
fn a_deficit_is_never_counted_against_another_node() {
    let (view, mut publisher) = View::new(Arc::new(Rules::default()));
    publisher.store(place(1, 0), -7, Lsn(1));
    publisher.store(place(1, 1), 4, Lsn(1));
    publisher.store(place(1, 2), 3, Lsn(1));
    publisher.raise(Lsn(1));
    let rule = ChannelRule { buffer: 2, ..all() };
    let mut nodes = Vec::new();
    let read = view.read(|reader| {
        nodes.clear();
        reader.available(&rule, None, SkuId(1), |node, free| nodes.push((node.0, free)))
    });
    let (_, found) = read.expect("nobody writes");
    nodes.sort_unstable();
    assert_eq!((found.units, found.known), (5, true));
    assert_eq!(nodes, [(1, 4), (2, 3)]);
}

/// Two readers ask for all cells while units are moved between them: every answer must have the same total,
/// the total of its LSN, and rows grow meanwhile.
#[test]
fn every_answer_is_the_one_state_of_its_lsn() {
    const SKUS: u32 = 8;
    const TOTAL: i64 = 8_000;
    let (view, mut publisher) = View::new(Arc::new(Rules::default()));
    for sku in 0..SKUS {
        publisher.store(place(sku, 0), TOTAL / i64::from(SKUS), Lsn(1));
    }
    publisher.raise(Lsn(1));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let (mut answers, mut last) = (0u64, Lsn(0));
                    while answers == 0 || !stop.load(Ordering::Relaxed) {
                        let read = view.read(|reader| {
                            let mut total = 0;
                            for sku in 0..SKUS {
                                reader.positions(SkuId(sku), |_, free| total += free)?;
                            }
                            Ok(total)
                        });
                        let Ok((as_of, total)) = read else { continue };
                        assert_eq!(total, TOTAL, "as of {as_of}");
                        assert!(as_of >= last, "time goes forward");
                        last = as_of;
                        answers += 1;
                    }
                    answers
                })
            })
            .collect();
        let mut free = vec![vec![TOTAL / i64::from(SKUS)]; SKUS as usize];
        for round in 2..30_000u64 {
            let (from, to) = ((round % 8) as usize, ((round * 5 + 3) % 8) as usize);
            // Now and then a sku gets one more node, so that its row moves.
            if round % 2_500 == 0 {
                free[to].push(0);
            }
            let node_to = (round as usize / 7) % free[to].len();
            free[from][0] -= 1;
            free[to][node_to] += 1;
            publisher.store(place(from as u32, 0), free[from][0], Lsn(round));
            publisher.store(place(to as u32, node_to as u16), free[to][node_to], Lsn(round));
            publisher.raise(Lsn(round));
        }
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(reader.join().expect("no reader saw a broken state") > 0);
        }
    });
}

/// A reader and a writer of the same cells for as long as a tear needs to show.
#[test]
fn a_cell_that_changes_while_it_is_read_is_never_read_in_part() {
    let (view, mut publisher) = View::new(Default::default());
    let place = place(0, 0);
    publisher.store(place, 1, Lsn(1));
    publisher.raise(Lsn(1));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut lsn = 1;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                lsn += 1;
                publisher.store(place, lsn as i64, Lsn(lsn));
                publisher.raise(Lsn(lsn));
            }
        });
        let mut wrong = None;
        for _ in 0..3_000_000 {
            let as_of = view.durable();
            let read = view.offer_as_of(as_of, place);
            let units = read.ok().flatten();
            if read.is_ok() && units != Some(as_of.0 as i64) {
                wrong = Some((as_of, units));
                break;
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(wrong, None, "units are those of their LSN");
    });
}
