//! Power cuts and failing disks under journal and snapshot: at every operation of a run, and again inside the
//! recovery from it. What was acknowledged is there; what is there is what was written.

use std::sync::Arc;

use stockline_core::checkpoint::fold;
use stockline_core::commit::Commit;
use stockline_core::id::Lsn;
use stockline_core::journal::file::FileJournal;
use stockline_core::journal::{self, Journal, JournalError};
use stockline_core::ledger::StateHash;
use stockline_core::recovery::recover;
use stockline_core::snapshot::Snapshot;
use stockline_core::view::View;
use stockline_loadgen::dice::Dice;

use crate::bench::{Bench, SMALL, any_line};
use crate::disk::{Disk, Fault, MANNERS, Op, Unsynced, apply, survive};
use crate::rounds::rounds;

/// Stored records with their first and last LSN.
type Records = Vec<(Lsn, Lsn, Vec<u8>)>;

/// Real records of real commands; `weight` lines each, so that small and large files grow.
fn records(count: usize, weight: usize) -> Records {
    let mut bench = Bench::new(1);
    let mut id = 0;
    while bench.journal.len() < count {
        id += 1;
        let sku = (id % 8) as u32;
        if id % 3 == 1 {
            bench.receive(sku, (id % 3) as u16, 50);
        } else {
            let lines: Vec<_> = (0..weight as u32).map(|line| any_line((sku + line) % 8, 1)).collect();
            bench.reserve(id, 0, 60_000, &lines);
        }
        bench.now = bench.now.plus(7);
    }
    let with_end = |(first, bytes): (Lsn, Vec<u8>)| {
        let last = journal::decode(first, &bytes).expect("valid").last().expect("not empty");
        (first, last, bytes)
    };
    std::mem::take(&mut bench.journal).into_iter().map(with_end).collect()
}

/// Where old records may go at the `index`th append: enough are kept to see the rest of them whole.
fn keep_from(index: usize) -> Lsn {
    Lsn((index as u64).saturating_sub(40))
}

fn append(journal: &mut FileJournal, records: &Records, index: usize) -> Result<(), JournalError> {
    let (first, last, bytes) = &records[index];
    journal.append(Lsn(first.0 - 1), *last, bytes, keep_from(index))
}

/// Reads everything in a journal and compares it with what was written; answers how many records are there,
/// those removed at the beginning included.
fn check(journal: &FileJournal, records: &Records) -> usize {
    let reader = journal.reader();
    let Some((first, last)) = reader.bounds().expect("reads") else { return 0 };
    let from = records.iter().position(|record| record.0 == first).expect("begins with a record");
    let mut at = from;
    let scanned = reader.scan(first, &mut |lsn, bytes| {
        assert_eq!((lsn, bytes), (records[at].0, &records[at].2[..]), "record {at}");
        at += 1;
        Ok(true)
    });
    scanned.expect("reads");
    assert_eq!(records[at - 1].1, last);
    at
}

/// What a disk went through, and how many appends had returned at each operation.
struct Story {
    ops: Vec<Op>,
    /// The file was made before this operation.
    made: usize,
    /// Operation index behind each append.
    acknowledged: Vec<usize>,
}

fn tell(records: &Records) -> Story {
    let disk = Disk::default();
    disk.record();
    let mut journal = FileJournal::with_backend(disk.clone(), false).expect("opens");
    let made = disk.trace_len();
    let mut acknowledged = Vec::new();
    for index in 0..records.len() {
        append(&mut journal, records, index).expect("appends");
        acknowledged.push(disk.trace_len());
    }
    let ops = disk.take_trace();
    drop(journal);
    Story { ops, made, acknowledged }
}

/// Visits what a power cut leaves before each operation of a story from `made` on. A file whose making is cut
/// short has another name and is made anew: `an_unfinished_file_is_made_anew`.
fn cuts(ops: &[Op], made: usize, every: usize, seed: u64, mut visit: impl FnMut(usize, Unsynced, Vec<u8>)) {
    let mut dice = Dice::new(seed);
    let (mut durable, mut unsynced) = (Vec::new(), Vec::new());
    for (at, op) in ops.iter().enumerate() {
        if at >= made && at % every == seed as usize % every {
            for manner in MANNERS {
                visit(at, manner, survive(&durable, &unsynced, manner, &mut dice));
            }
        }
        if *op == Op::Sync {
            unsynced.drain(..).for_each(|op| apply(&mut durable, &op));
        } else {
            unsynced.push(op.clone());
        }
    }
}

/// Opens a journal after a cut, checks it, and goes on with it.
fn survives(image: Vec<u8>, records: &Records, acknowledged: usize, at: usize, manner: Unsynced) -> u64 {
    let context = || format!("cut at operation {at}, unsynced writes {manner:?}");
    let disk = Disk::holding(image);
    let mut journal =
        FileJournal::with_backend(disk, false).unwrap_or_else(|error| panic!("{}: {error}", context()));
    let there = check(&journal, records);
    assert!(there >= acknowledged, "{}: {there} records of {acknowledged} acknowledged", context());
    assert!(there <= acknowledged + 1, "{}: {there} records, {acknowledged} acknowledged", context());
    if there < records.len() {
        append(&mut journal, records, there).unwrap_or_else(|error| panic!("{}: {error}", context()));
        assert_eq!(check(&journal, records), there + 1, "{}", context());
    }
    1
}

#[test]
fn a_cut_at_every_operation_loses_nothing_acknowledged() {
    rounds("crash::a_cut_at_every", "recoveries", 1, |seed| {
        // In the first round every operation of 500 small commits; then other sizes, other tears.
        let (count, weight) = if seed == 0 { (500, 2) } else { (40 + seed as usize % 80, 1 << (seed % 11)) };
        let records = records(count, weight);
        let story = tell(&records);
        let mut recoveries = 0;
        cuts(&story.ops, story.made, 1, seed, |at, manner, image| {
            let acknowledged = story.acknowledged.iter().take_while(|end| **end <= at).count();
            recoveries += survives(image, &records, acknowledged, at, manner);
        });
        recoveries
    });
}

#[test]
fn a_cut_inside_the_recovery_from_a_cut_loses_nothing_either() {
    rounds("crash::a_cut_inside", "recoveries", 2, |seed| {
        let records = records(40, 1 << (seed % 11));
        let story = tell(&records);
        let mut recoveries = 0;
        let mut dice = Dice::new(seed);
        cuts(&story.ops, story.made, 5, seed, |at, manner, image| {
            let acknowledged = story.acknowledged.iter().take_while(|end| **end <= at).count();
            let mut op = 0;
            loop {
                let disk = Disk::holding(image.clone());
                disk.fail_at(op, Fault::Power);
                let opened = FileJournal::with_backend(disk.clone(), false).map(drop);
                if !disk.has_failed() {
                    opened.expect("nothing stood in its way");
                    break;
                }
                let manner_again = MANNERS[dice.roll() as usize % 4];
                let image = disk.cut(manner_again, &mut dice).image();
                recoveries += survives(image, &records, acknowledged, at, manner);
                op += 1;
            }
        });
        recoveries
    });
}

/// Appends until a fault stops it; answers how many were acknowledged. Nothing is, after the first error.
fn run_into(disk: &Disk, records: &Records) -> usize {
    let mut journal = match FileJournal::with_backend(disk.clone(), false) {
        Ok(journal) => journal,
        Err(_) => return 0,
    };
    let mut done = 0;
    while done < records.len() {
        if append(&mut journal, records, done).is_err() {
            let again = append(&mut journal, records, done);
            assert!(matches!(again, Err(JournalError::Storage(_))), "an append after an error: {again:?}");
            break;
        }
        done += 1;
    }
    done
}

#[test]
fn an_io_error_at_every_operation_ends_it_and_loses_nothing_acknowledged() {
    rounds("crash::an_io_error", "faults", 1, |seed| {
        let records = records(30, if seed == 0 { 2 } else { 1 << (seed % 11) });
        let mut dice = Dice::new(seed);
        let (made, mut faults) = (tell(&records).made as u64, 0);
        for fault in [Fault::Io, Fault::Short] {
            for op in made.. {
                let disk = Disk::default();
                disk.fail_at(op, fault);
                let done = run_into(&disk, &records);
                if !disk.has_failed() {
                    assert_eq!(done, records.len());
                    break;
                }
                faults += 1;
                let context = |what: &str| format!("{fault:?} at operation {op}, {what}");
                // The process starts again, or the machine does.
                let manner = MANNERS[dice.roll() as usize % 4];
                for (what, disk) in [("restart", disk.restart()), ("cut", disk.cut(manner, &mut dice))] {
                    let journal = FileJournal::with_backend(disk, false)
                        .unwrap_or_else(|error| panic!("{}: {error}", context(what)));
                    let there = check(&journal, &records);
                    assert!((done..=done + 1).contains(&there), "{}: {there}, {done}", context(what));
                }
            }
        }
        faults
    });
}

#[test]
fn a_full_disk_ends_it_and_it_goes_on_when_there_is_room() {
    rounds("crash::a_full_disk", "faults", 1, |seed| {
        let records = records(60, 1 << (5 + seed % 6));
        let whole = Disk::default();
        assert_eq!(run_into(&whole, &records), records.len());
        let (len, mut faults) = (whole.image().len(), 0);
        let made = {
            let disk = Disk::default();
            FileJournal::with_backend(disk.clone(), false).expect("opens");
            disk.image().len()
        };
        for capacity in (made..len).step_by((len - made) / 40) {
            let disk = Disk::default();
            disk.limit(Some(capacity));
            let done = run_into(&disk, &records);
            assert!(disk.has_failed() && done < records.len(), "{capacity} bytes are too few");
            faults += 1;
            let disk = disk.restart();
            let mut journal = FileJournal::with_backend(disk, false).expect("opens with room");
            let there = check(&journal, &records);
            assert!((done..=done + 1).contains(&there), "{capacity} bytes: {there} of {done}");
            for index in there..records.len() {
                append(&mut journal, &records, index).expect("there is room");
            }
            assert_eq!(check(&journal, &records), records.len());
        }
        faults
    });
}

#[test]
fn a_cut_while_folding_leaves_a_snapshot_that_recovers_to_the_same_state() {
    rounds("crash::a_cut_while_folding", "recoveries", 2, |seed| {
        let records = records(60, 3);
        let journal_disk = Disk::default();
        let mut journal = FileJournal::with_backend(journal_disk, true).expect("opens");
        let disk = Disk::default();
        disk.record();
        let snapshot = Snapshot::with_backend(disk.clone()).expect("opens");
        let made = disk.trace_len();
        let mut covered = Vec::new();
        for index in 0..records.len() {
            append(&mut journal, &records, index).expect("appends");
            if (index + seed as usize).is_multiple_of(4) {
                let reached = fold(&snapshot, &*journal.reader()).expect("folds").0;
                covered.push((disk.trace_len(), reached.lsn));
            }
        }
        let ops = disk.take_trace();
        let hash = |snapshot: &Snapshot| {
            let recovered = recover(snapshot, &*journal.reader(), 1, SMALL).expect("recovers");
            let mut hash = StateHash::default();
            recovered.ledgers.iter().for_each(|ledger| hash += ledger.state_hash());
            (recovered.covered, hash.to_string())
        };
        let due = hash(&Snapshot::with_backend(Disk::default()).expect("opens")).1;
        let mut recoveries = 0;
        cuts(&ops, made, 2, seed, |at, manner, image| {
            let context = format!("cut at operation {at}, unsynced writes {manner:?}");
            let snapshot = Snapshot::with_backend(Disk::holding(image))
                .unwrap_or_else(|error| panic!("{context}: {error}"));
            let (reached, found) = hash(&snapshot);
            let least = covered.iter().rev().find(|(end, _)| *end <= at).map_or(Lsn(0), |(_, lsn)| *lsn);
            assert!(reached >= least, "{context}: covers {reached}, had covered {least}");
            assert_eq!(found, due, "{context}");
            recoveries += 1;
        });
        recoveries
    });
}

#[test]
fn an_unfinished_file_is_made_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("journal.redb");
    let unfinished = path.with_extension(format!("new-{}", std::process::id()));
    std::fs::write(&unfinished, [0; 5_000]).expect("written");
    let records = records(3, 1);
    let mut journal = FileJournal::open(&path, false).expect("opens");
    append(&mut journal, &records, 0).expect("appends");
    drop(journal);
    assert_eq!(check(&FileJournal::open(&path, false).expect("opens again"), &records), 1);
    assert!(!unfinished.exists());
}

#[test]
fn nothing_is_published_or_answered_that_was_not_written() {
    for op in 0..60 {
        let mut bench = Bench::new(1);
        let disk = Disk::default();
        let mut journal = FileJournal::with_backend(disk.clone(), false).expect("opens");
        disk.fail_at(disk.ops() + op, Fault::Io);
        let (view, mut publisher) = View::new(bench.sequencer.catalogue.rules());
        let mut commit: Commit<()> = Commit::new(Default::default());
        let mut written = Lsn::NONE;
        for (batch, output) in bench.batches(20) {
            commit.add(Arc::new(batch), vec![output]);
            if commit.write(&mut journal, &mut publisher, Lsn::NONE).is_err() {
                assert_eq!(view.durable(), written, "fault at operation {op}");
                break;
            }
            assert!(!disk.has_failed(), "a fault at operation {op} passes for a success");
            commit.finish().for_each(drop);
            written = commit.durable();
            assert_eq!(view.durable(), written);
        }
    }
}
