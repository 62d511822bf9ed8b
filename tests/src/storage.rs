//! Journal, snapshot, checkpoint, recovery and verification, on real files.

use std::collections::BTreeMap;
use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use stockline_core::admission::Admission;
use stockline_core::chain::{Anchor, Chain};
use stockline_core::checkpoint::fold;
use stockline_core::command::{Body, Verb};
use stockline_core::event::EventKind;
use stockline_core::id::{Lsn, NodeId, SupplyId};
use stockline_core::journal::file::FileJournal;
use stockline_core::journal::{self, Journal, JournalError};
use stockline_core::ledger::{Ledger, audit};
use stockline_core::outcome::Code;
use stockline_core::recovery::recover;
use stockline_core::snapshot::Snapshot;
use stockline_core::verify::verify;

use crate::bench::{Bench, SMALL, WHO, any_line, copy_entry};

const RECORDS: TableDefinition<u64, &[u8]> = TableDefinition::new("records");

/// A bit of everything.
fn live(bench: &mut Bench, from: u128) {
    for sku in 0..8 {
        bench.receive(sku, (sku % 3) as u16, 30);
    }
    for id in from..from + 20 {
        let (a, b) = ((id % 8) as u32, ((id * 3 + 1) % 8) as u32);
        bench.reserve(id, 0, 60_000, &[any_line(a, 2), any_line(b, 1)]);
        match id % 4 {
            0 => drop(bench.step(id, Verb::Confirm, 0)),
            1 => drop(bench.step(id, Verb::Release, 0)),
            2 => {
                bench.step(id, Verb::Confirm, 0);
                bench.step(id, Verb::Fulfil, 0);
            }
            _ => {}
        }
    }
    let mut leave = bench.make(EventKind::TransferDispatched, 1, 1, 4);
    (leave.to_node, leave.supply) = (NodeId(0), Some(SupplyId(from)));
    bench.event(leave);
    let count = bench.make(EventKind::Count, 2, 2, 17);
    bench.event(count);
    bench.now = bench.now.plus(1_000);
}

/// Units that nodes were given, by node and quarter of an hour.
fn given(ledgers: &[Ledger]) -> BTreeMap<(NodeId, u32), u32> {
    let mut sums = BTreeMap::new();
    for given in ledgers.iter().flat_map(|ledger| ledger.pace.iter()) {
        *sums.entry((given.node, given.quarter)).or_default() += given.units;
    }
    assert!(!sums.is_empty());
    sums
}

fn write(journal: &mut FileJournal, bench: &mut Bench, keep_from: Lsn) {
    for (first, bytes) in bench.journal.drain(..) {
        let last = journal::decode(first, &bytes).expect("valid").entries.last().expect("not empty").lsn;
        journal.append(Lsn(first.0 - 1), last, &bytes, keep_from).expect("appended");
    }
}

fn files(dir: &Path, retain: bool) -> (FileJournal, Snapshot) {
    let journal = FileJournal::open(&dir.join("journal.redb"), retain).expect("journal opens");
    (journal, Snapshot::open(&dir.join("snapshot.redb")).expect("snapshot opens"))
}

#[test]
fn snapshot_and_tail_make_the_state_again_for_any_number_of_shards() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut bench = Bench::new(1);
    let (mut journal, snapshot) = files(dir.path(), false);
    for round in 0..4 {
        live(&mut bench, round * 100 + 1);
        write(&mut journal, &mut bench, Lsn(1));
        for shards in [1, 4] {
            let mut recovered = recover(&snapshot, &*journal.reader(), shards, SMALL).expect("recovers");
            let mut hash = stockline_core::ledger::StateHash::default();
            recovered.ledgers.iter().for_each(|ledger| hash += ledger.state_hash());
            assert_eq!(hash.to_string(), bench.hash(), "round {round}, {shards} shards");
            assert_eq!(audit(&recovered.ledgers), Vec::<String>::new());
            assert_eq!(given(&recovered.ledgers), given(&bench.ledgers), "round {round}, {shards} shards");
            assert_eq!(recovered.last, bench.sequencer.last());
            assert_eq!(recovered.catalogue.rules(), bench.sequencer.catalogue.rules());
            assert_eq!(recovered.window.first(), bench.sequencer.window.first());
        }
        if round % 2 == 0 {
            let (covered, more) = fold(&snapshot, &*journal.reader()).expect("folds");
            assert_eq!((covered.lsn, more), (bench.sequencer.last(), false));
            assert_eq!(fold(&snapshot, &*journal.reader()).expect("folds nothing").0, covered);
        }
    }
    let report = verify(&snapshot, &*journal.reader(), None).expect("verifies");
    assert_eq!(report.wrong, Vec::<String>::new());
    assert!(report.from_the_start && report.re_executed == report.entries);
    assert_eq!(report.state_hash.to_string(), bench.hash());
}

#[test]
fn old_records_go_once_they_are_folded_and_out_of_the_window() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut bench = Bench::new(1);
    let (mut journal, snapshot) = files(dir.path(), false);
    live(&mut bench, 1);
    write(&mut journal, &mut bench, Lsn(1));
    let covered = fold(&snapshot, &*journal.reader()).expect("folds").0.lsn;
    live(&mut bench, 1_001);
    write(&mut journal, &mut bench, covered.next());
    let (first, last) = journal.reader().bounds().expect("reads").expect("not empty");
    assert!(first > Lsn(1) && first <= covered.next(), "cut to {first}, covered {covered}");
    assert_eq!(last, bench.sequencer.last());
    let recovered = recover(&snapshot, &*journal.reader(), 4, SMALL).expect("recovers");
    let mut hash = stockline_core::ledger::StateHash::default();
    recovered.ledgers.iter().for_each(|ledger| hash += ledger.state_hash());
    assert_eq!(hash.to_string(), bench.hash());
    let report = verify(&snapshot, &*journal.reader(), None).expect("verifies");
    assert_eq!((report.wrong, report.from_the_start), (Vec::new(), false));
}

#[test]
fn a_record_that_the_window_still_needs_a_part_of_stays_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut journal, _) = files(dir.path(), false);
    // Three commands a record.
    let mut bench = Bench::new(1);
    bench.journal.clear();
    let base = bench.sequencer.last();
    let mut chain = Chain::START;
    let mut last = Lsn::NONE;
    for round in 0..6u32 {
        for sku in 0..3 {
            bench.receive(sku + round % 2, 0, 1);
        }
        let mut record = journal::JournalRecord::default();
        record.restart(last.next());
        for (first, bytes) in bench.journal.drain(..) {
            let decoded = journal::decode(first, &bytes).expect("valid");
            let entry = &decoded.entries[0];
            copy_entry(&mut record, &decoded, entry);
        }
        let mut bytes = Vec::new();
        record.encode(&mut chain, &mut bytes);
        let before = last;
        last = Lsn(last.0 + 3);
        // The window begins with the second command of the record before.
        journal.append(before, last, &bytes, Lsn(before.0.saturating_sub(1))).expect("appended");
        if let Some(needed) = before.0.checked_sub(1).filter(|needed| *needed > 0) {
            let found = journal::find(&*journal.reader(), Lsn(needed)).expect("reads");
            assert!(found.entry(Lsn(needed)).is_some(), "LSN {needed} is gone");
        }
    }
    let (first, _) = journal.reader().bounds().expect("reads").expect("not empty");
    assert!(first > Lsn(1), "old records do go");
    assert!(base > Lsn::NONE);
}

#[test]
fn a_restart_knows_what_came_before() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut bench = Bench::new(1);
    let (mut journal, snapshot) = files(dir.path(), false);
    bench.receive(1, 0, 10);
    let event = bench.make(EventKind::Receipt, 1, 0, 5);
    let first = bench.command(Body::Event(event), &[]);
    let told = bench.send(first.clone(), &[]);
    write(&mut journal, &mut bench, Lsn(1));
    fold(&snapshot, &*journal.reader()).expect("folds");
    let recovered = recover(&snapshot, &*journal.reader(), 1, SMALL).expect("recovers");
    let admission = recovered.window.admit(crate::bench::WHO, &first, bench.now);
    assert_eq!(admission, stockline_core::admission::Admission::Repeat(told.reply.lsn));
    let found = journal::find(&*journal.reader(), told.reply.lsn).expect("reads");
    assert_eq!(found.entry(told.reply.lsn).expect("is there").command, first);
}

#[test]
fn a_restart_after_nothing_with_a_key_was_forgotten_takes_new_commands_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut journal, snapshot) = files(dir.path(), false);
    // Only definitions, which carry no key, are folded and leave the journal.
    let mut bench = Bench::new(1);
    write(&mut journal, &mut bench, Lsn(1));
    fold(&snapshot, &*journal.reader()).expect("folds");
    let last = bench.sequencer.last();
    bench.receive(1, 0, 5);
    write(&mut journal, &mut bench, last);
    let (first, _) = journal.reader().bounds().expect("reads").expect("not empty");
    assert!(first > Lsn(1), "the beginning is gone");
    let recovered = recover(&snapshot, &*journal.reader(), 1, SMALL).expect("recovers");
    let event = bench.make(EventKind::Receipt, 1, 0, 5);
    let new = bench.command(Body::Event(event), &[]);
    assert_eq!(recovered.window.admit(WHO, &new, bench.now), Admission::New);
    // What had a key and is gone may be asked for again: that is told.
    for _ in 0..2 {
        fold(&snapshot, &*journal.reader()).expect("folds");
        bench.now = bench.now.plus(1);
        bench.receive(1, 0, 5);
        let last = bench.sequencer.last();
        write(&mut journal, &mut bench, last);
    }
    let recovered = recover(&snapshot, &*journal.reader(), 1, SMALL).expect("recovers");
    assert_eq!(recovered.window.admit(WHO, &new, bench.now), Admission::Refused(Code::KeyTooOld));
}

#[test]
fn a_journal_that_was_lost_is_not_taken_for_an_empty_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut bench = Bench::new(1);
    {
        let (mut journal, snapshot) = files(dir.path(), false);
        live(&mut bench, 1);
        write(&mut journal, &mut bench, Lsn(1));
        fold(&snapshot, &*journal.reader()).expect("folds");
    }
    std::fs::remove_file(dir.path().join("journal.redb")).expect("removed");
    let (journal, snapshot) = files(dir.path(), false);
    let recovered =
        recover(&snapshot, &*journal.reader(), 1, SMALL).map(|_| ()).map_err(|error| error.to_string());
    assert!(recovered.as_ref().is_err_and(|text| text.contains("journal ends before it")), "{recovered:?}");
}

#[test]
fn appending_elsewhere_than_at_the_end_is_fenced() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut bench = Bench::new(1);
    let (mut journal, _) = files(dir.path(), false);
    bench.receive(1, 0, 10);
    let (first, bytes) = bench.journal.remove(1);
    let append = journal.append(Lsn(first.0 - 1), first, &bytes, Lsn(1));
    assert!(matches!(append, Err(JournalError::Fenced { .. })), "{append:?}");
}

#[test]
fn a_second_process_is_told_that_the_file_is_in_use() {
    let dir = tempfile::tempdir().expect("a directory");
    let _first = files(dir.path(), false);
    let second = FileJournal::open(&dir.path().join("journal.redb"), false).map(|_| ());
    assert!(matches!(second, Err(JournalError::InUse(_))), "{second:?}");
}

/// Changes stored records by hand and answers what recovery says.
fn tampered(change: impl Fn(&mut Vec<(u64, Vec<u8>)>)) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let mut bench = Bench::new(1);
    {
        let (mut journal, _) = files(dir.path(), true);
        live(&mut bench, 1);
        write(&mut journal, &mut bench, Lsn(1));
    }
    {
        let db = Database::open(dir.path().join("journal.redb")).expect("opens");
        let mut records = Vec::new();
        let read = db.begin_read().expect("reads");
        for pair in read.open_table(RECORDS).expect("table").iter().expect("rows") {
            let (first, bytes) = pair.expect("row");
            records.push((first.value(), bytes.value().to_vec()));
        }
        let before = records.len();
        change(&mut records);
        let write = db.begin_write().expect("writes");
        {
            let mut table = write.open_table(RECORDS).expect("table");
            table.retain(|_, _| false).expect("empties");
            for (first, bytes) in &records {
                table.insert(first, bytes.as_slice()).expect("inserts");
            }
        }
        write.commit().expect("commits");
        assert!(before > 20);
    }
    let opened = FileJournal::open(&dir.path().join("journal.redb"), true);
    let snapshot = Snapshot::open(&dir.path().join("snapshot.redb")).expect("opens");
    match opened {
        Err(error) => error.to_string(),
        Ok(journal) => match recover(&snapshot, &*journal.reader(), 1, SMALL) {
            Ok(_) => "recovered".into(),
            Err(error) => error.to_string(),
        },
    }
}

#[test]
fn damage_is_found_and_its_lsn_named() {
    assert_eq!(tampered(|_| {}), "recovered");
    let flipped = tampered(|records| records[9].1[60] ^= 1);
    assert!(flipped.contains("LSN 10 is damaged") && flipped.contains("checksum"), "{flipped}");
    let cut = tampered(|records| records[9].1.truncate(5));
    assert!(cut.contains("LSN 10") && cut.contains("cut off"), "{cut}");
    let newer = tampered(|records| records[9].1[0] = 9);
    assert!(newer.contains("format 9") && newer.contains("reads formats 1 to 3"), "{newer}");
    let missing = tampered(|records| drop(records.remove(9)));
    assert!(missing.contains("LSN 11 where LSN 10 was due"), "{missing}");
    let beginning = tampered(|records| drop(records.drain(..3)));
    assert!(beginning.contains("LSN 4 where LSN 1 was due"), "{beginning}");
}

/// Gives an edited record the checksum that fits.
fn reseal(bytes: &mut [u8]) {
    let checksum = xxhash_rust::xxh3::xxh3_64(&bytes[44..]);
    bytes[4..12].copy_from_slice(&checksum.to_le_bytes());
}

#[test]
fn an_editor_who_knows_the_format_breaks_the_chain_and_the_first_bad_lsn_is_named() {
    let edited = tampered(|records| {
        // The time of one command, one millisecond later, with the checksum that fits.
        let (first, bytes) = &mut records[24];
        let now = journal::decode(Lsn(*first), bytes).expect("valid").entries[0].now.0.to_le_bytes();
        let at = bytes.windows(8).rposition(|window| window == now).expect("the time is in it");
        bytes[at] ^= 1;
        reseal(bytes);
    });
    assert!(edited.contains("LSN 25 is damaged") && edited.contains("chain"), "{edited}");
    let unchained = tampered(|records| {
        let bytes = &mut records[24].1;
        bytes[0] = 1;
        bytes.drain(12..44);
    });
    assert!(unchained.contains("LSN 25") && unchained.contains("no place in the chain"), "{unchained}");
}

#[test]
fn a_history_rewritten_from_some_lsn_on_meets_neither_the_snapshot_nor_an_anchor() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut bench = Bench::new(1);
    let (mut journal, snapshot) = files(dir.path(), true);
    live(&mut bench, 1);
    let records = bench.journal.clone();
    write(&mut journal, &mut bench, Lsn(1));
    let anchor = Anchor { lsn: bench.sequencer.last(), chain: bench.chain };
    let report = verify(&snapshot, &*journal.reader(), Some(anchor)).expect("verifies");
    assert_eq!((report.wrong, report.anchor), (Vec::new(), anchor));
    let read_back: Anchor = anchor.to_string().parse().expect("an anchor is read as it is written");
    assert_eq!(read_back, anchor);
    fold(&snapshot, &*journal.reader()).expect("folds");
    drop(journal);

    // The same records in a journal of its own, with one more unit received: a chain that is whole.
    std::fs::remove_file(dir.path().join("journal.redb")).expect("removed");
    let mut journal = FileJournal::open(&dir.path().join("journal.redb"), true).expect("opens");
    let mut chain = Chain::START;
    for (first, bytes) in records {
        let archive = &bytes[44..];
        let mut record =
            rkyv::from_bytes::<journal::JournalRecord, rkyv::rancor::Failure>(archive).expect("ours");
        if let [movement] = &mut record.movements[..] {
            movement.quantity += u32::from(first == Lsn(20));
        }
        let mut again = Vec::new();
        record.encode(&mut chain, &mut again);
        journal.append(Lsn(first.0 - 1), first, &again, Lsn(1)).expect("appended");
    }
    let found =
        recover(&snapshot, &*journal.reader(), 1, SMALL).map(|_| ()).map_err(|error| error.to_string());
    assert!(found.as_ref().is_err_and(|text| text.contains("not the one that the snapshot")), "{found:?}");
    std::fs::remove_file(dir.path().join("snapshot.redb")).expect("removed");
    let snapshot = Snapshot::open(&dir.path().join("snapshot.redb")).expect("opens");
    let report = verify(&snapshot, &*journal.reader(), Some(anchor)).expect("reads");
    assert!(report.wrong[0].contains("the chain is"), "{:?}", report.wrong);
}

#[test]
fn verification_finds_an_outcome_that_the_rules_do_not_give() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut bench = Bench::new(1);
    let (mut journal, snapshot) = files(dir.path(), true);
    bench.receive(1, 0, 10);
    // Five units come out of nowhere: the ledger is moved on without its journal.
    write(&mut journal, &mut bench, Lsn(1));
    let lsn = bench.sequencer.last();
    let mut chain = bench.chain;
    bench.receive(1, 0, 5);
    bench.journal.clear();
    bench.reserve(7, 0, 1_000, &[any_line(1, 12)]);
    let (_, bytes) = bench.journal.remove(0);
    let decoded = journal::decode(Lsn(lsn.0 + 2), &bytes).expect("valid");
    let entry = &decoded.entries[0];
    let mut record = journal::JournalRecord::default();
    record.restart(lsn.next());
    copy_entry(&mut record, &decoded, entry);
    let mut forged = Vec::new();
    record.encode(&mut chain, &mut forged);
    journal.append(lsn, lsn.next(), &forged, Lsn(1)).expect("appended");
    let report = verify(&snapshot, &*journal.reader(), None).expect("reads");
    assert_eq!(report.wrong.len(), 1, "{:?}", report.wrong);
    assert!(report.wrong[0].contains(&format!("LSN {}", lsn.next())), "{:?}", report.wrong);
}
