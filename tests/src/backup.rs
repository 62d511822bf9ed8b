//! Backup while running, restore, restore to an earlier LSN; golden files of released formats; a file that
//! somebody edited.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use stockline_core::checkpoint::fold;
use stockline_core::command::{StepLine, Verb};
use stockline_core::id::{Lsn, Millis, NodeId, SkuId};
use stockline_core::journal::file::FileJournal;
use stockline_core::journal::{self, Journal};
use stockline_core::limit;
use stockline_core::outcome::Code;
use stockline_core::self_audit;
use stockline_core::snapshot::Snapshot;
use stockline_core::verify::verify;
use stockline_core::view::View;

use crate::bench::{Bench, any_line, copy_entry, place};
use crate::binary::{check, program, serve};

const RECORDS: TableDefinition<u64, &[u8]> = TableDefinition::new("records");

fn path(path: &Path) -> &str {
    path.to_str().expect("a path")
}

/// What `verify` prints of a data directory.
fn verified(data: &Path) -> String {
    let output = Command::new(program("stockline"))
        .args(["verify", "--data", path(data)])
        .output()
        .expect("verify runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// What is said of the ledger: the audit trail has the restore in it.
fn ledger(said: &str) -> &str {
    said.split("audit_anchor=").next().unwrap_or_default()
}

fn field<'a>(said: &'a str, name: &str) -> &'a str {
    let rest = said.split_once(&format!("{name}=")).unwrap_or_else(|| panic!("no {name} in {said}")).1;
    rest.split_whitespace().next().expect("a value")
}

#[test]
fn a_backup_is_taken_while_running_and_restores_to_any_lsn() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, copy) = (dir.path().join("data"), dir.path().join("copy"));
    let serving = serve(&data, &["--retain-journal"]);
    let mut loadgen = Command::new(program("loadgen"));
    loadgen.args(["run", "--scenario", "torture", "--seconds", "8", "--in-flight", "8", "--profile"]);
    loadgen.arg(data.join("client.toml")).stdout(Stdio::null()).stderr(Stdio::null());
    let mut loadgen = loadgen.spawn().expect("loadgen starts");
    // What an attempt that was killed has left.
    let part = dir.path().join("copy.part");
    std::fs::create_dir(&part).expect("made");
    std::fs::write(part.join("journal.redb"), "half").expect("written");
    // In the middle of the load.
    while !loadgen_is_busy(&data) {}
    let said = check("stockline", &["backup", "--data", path(&data), path(&copy)], 0, "anchor=");
    let anchor = field(&said, "anchor").to_owned();
    check("stockline", &["backup", "--data", path(&data), path(&copy)], 3, "exists");
    // What lies there under another name is nobody's to delete.
    assert!(part.join("journal.redb").exists() && copy.exists());
    assert!(loadgen.wait().expect("ends").success(), "the load went on and its audit is sound");
    serving.terminate();

    // The copy is a prefix of what the server had: its anchor lies on the server's chain.
    let copied = verified(&copy);
    assert_eq!(field(&copied, "anchor"), anchor);
    check("stockline", &["verify", "--data", path(&data), "--anchor", &anchor], 0, "last_lsn=");
    let (copied_lsn, all) = (field(&copied, "last_lsn").to_owned(), verified(&data));
    assert!(
        field(&all, "last_lsn").parse::<u64>().expect("a number") > copied_lsn.parse().expect("a number")
    );

    // Restored, it is the same, and a server runs on it for clients with the same profile.
    let restored = dir.path().join("restored");
    check("stockline", &["restore", "--from", path(&copy), "--data", path(&restored)], 0, "last_lsn=");
    assert_eq!(ledger(&verified(&restored)), ledger(&copied));
    check("stockline", &["restore", "--from", path(&copy), "--data", path(&restored)], 3, "exists");
    serve(&restored, &[]).terminate();
    let identity = |data: &Path| std::fs::read_to_string(data.join("admin.token")).expect("there");
    assert_eq!(identity(&restored), identity(&data));

    // The original as it was when the copy was taken: the journal was kept from the first LSN.
    let earlier = dir.path().join("earlier");
    let restore = ["restore", "--from", path(&data), "--data", path(&earlier), "--at", &copied_lsn];
    let said = check("stockline", &restore, 0, "last_lsn=");
    assert_eq!(field(&said, "state_hash"), field(&copied, "state_hash"));
    let nowhere = dir.path().join("nowhere");
    let beyond = ["restore", "--from", path(&copy), "--data", path(&nowhere), "--at", "99999999"];
    check("stockline", &beyond, 3, "cannot be restored from here: only those of LSN 1 to");
    assert!(!nowhere.exists() && !dir.path().join("nowhere.part").exists());

    // A directory that has lost its journal is not taken for a new one.
    std::fs::remove_file(restored.join("journal.redb")).expect("removed");
    check(
        "stockline",
        &["serve", "--data", path(&restored)],
        3,
        "journal.redb is missing beside its snapshot",
    );
    assert!(!restored.join("journal.redb").exists());
}

/// Whether the journal grows beyond its beginning.
fn loadgen_is_busy(data: &Path) -> bool {
    std::fs::metadata(data.join("journal.redb")).is_ok_and(|metadata| metadata.len() > 500_000)
}

#[test]
fn a_restore_in_the_middle_of_a_record_is_the_state_of_that_lsn() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut bench = Bench::new(1);
    let (mut hashes, mut last) = (vec![(bench.sequencer.last(), bench.hash())], Lsn::NONE);
    for id in 1..60u128 {
        bench.receive((id % 8) as u32, 0, 3);
        bench.reserve(id, 0, 60_000, &[any_line((id % 8) as u32, 2), any_line(((id + 3) % 8) as u32, 1)]);
        hashes.push((bench.sequencer.last(), bench.hash()));
    }
    // The same commands, many to a record.
    let mut record = journal::JournalRecord::default();
    let mut big = FileJournal::open(&dir.path().join("journal.redb"), true).expect("opens");
    let mut chain = Default::default();
    let records = std::mem::take(&mut bench.journal);
    for records in records.chunks(17) {
        record.restart(records[0].0);
        let before = last;
        for (first, bytes) in records {
            let decoded = journal::decode(*first, bytes).expect("valid");
            for entry in &decoded.entries {
                copy_entry(&mut record, &decoded, entry);
                last = entry.lsn;
            }
        }
        let mut bytes = Vec::new();
        record.encode(&mut chain, &mut bytes);
        big.append(before, last, &bytes, Lsn(1)).expect("appended");
    }
    let snapshot = Snapshot::open(&dir.path().join("snapshot.redb")).expect("opens");
    fold(&snapshot, &*big.reader()).expect("folds");
    for (lsn, hash) in hashes {
        let to = dir.path().join(format!("at-{lsn}"));
        std::fs::create_dir(&to).expect("made");
        let files = (to.join("snapshot.redb"), to.join("journal.redb"));
        stockline_core::backup::restore(&snapshot, &*big.reader(), &files.0, &files.1, lsn)
            .expect("restores");
        let restored = FileJournal::open(&files.1, true).expect("opens");
        let snapshot = Snapshot::open(&files.0).expect("opens");
        let report = verify(&snapshot, &*restored.reader(), None).expect("verifies");
        assert_eq!((report.last, report.state_hash.to_string()), (lsn, hash));
        assert_eq!(report.wrong, Vec::<String>::new());
    }
}

#[test]
fn the_self_audit_finds_what_a_reader_is_told_wrong_and_what_a_row_has_wrong() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut bench = Bench::new(1);
    bench.receive(0, 0, 10);
    bench.receive(3, 1, 10);
    bench.reserve(1, 0, 60_000, &[any_line(3, 4)]);
    let mut journal = FileJournal::open(&dir.path().join("journal.redb"), true).expect("opens");
    for (first, bytes) in bench.journal.drain(..) {
        let last = journal::decode(first, &bytes).expect("valid").last().expect("not empty");
        journal.append(Lsn(first.0 - 1), last, &bytes, Lsn(1)).expect("appended");
    }
    let snapshot = Snapshot::open(&dir.path().join("snapshot.redb")).expect("opens");
    let covered = fold(&snapshot, &*journal.reader()).expect("folds").0.lsn;
    let mut publish = |free: i64| {
        let (view, mut publisher) = View::new(bench.sequencer.catalogue.rules());
        publisher.store(place(0, 0), 10, covered);
        publisher.store(place(3, 1), free, covered);
        publisher.raise(covered);
        let slices = 0..stockline_core::limit::AUDIT_SLICES;
        let found: Vec<_> =
            slices.map(|slice| self_audit::check(&snapshot, &view, slice).expect("reads")).collect();
        assert_eq!(found.iter().map(|finding| finding.positions).sum::<u64>(), 2);
        assert_eq!(found.iter().map(|finding| finding.compared).sum::<u64>(), 2);
        found.into_iter().flat_map(|finding| finding.wrong).collect::<Vec<_>>()
    };
    assert_eq!(publish(6), Vec::<String>::new());
    assert_eq!(publish(7), ["sku 3 node 1: 6 free, readers are told 7"]);
}

#[test]
fn the_age_of_a_confirmed_reservation_is_known_behind_a_restart_and_ends_with_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut bench = Bench::new(1);
    let begin = bench.now;
    bench.receive(0, 0, 10);
    bench.receive(0, 1, 1);
    for id in 1..4 {
        bench.reserve(id, 0, 60_000, &[any_line(0, 1)]);
    }
    bench.now = begin.plus(1_000);
    bench.step(1, Verb::Confirm, 0);
    bench.now = begin.plus(2_000);
    bench.step(2, Verb::Confirm, 0);
    // A step that leaves it confirmed makes it no younger.
    bench.now = begin.plus(9_000);
    let line = StepLine { sku: SkuId(0), node: NodeId(0), quantity: 1, to_node: NodeId(1) };
    assert_eq!(bench.step_lines(1, Verb::Move, &[line]).reply.outcome.code, Code::Ok);
    bench.now = begin.plus(limit::AGES_MS[0] + 1_500);
    bench.receive(0, 0, 1);
    let mut journal = FileJournal::open(&dir.path().join("journal.redb"), true).expect("opens");
    let snapshot = Snapshot::open(&dir.path().join("snapshot.redb")).expect("opens");
    let mut seen = |bench: &mut Bench| {
        for (first, bytes) in bench.journal.drain(..) {
            let last = journal::decode(first, &bytes).expect("valid").last().expect("not empty");
            journal.append(Lsn(first.0 - 1), last, &bytes, Lsn(1)).expect("appended");
        }
        fold(&snapshot, &*journal.reader()).expect("folds");
        let (view, _) = View::new(bench.sequencer.catalogue.rules());
        let finding = self_audit::check(&snapshot, &view, 0).expect("reads");
        (finding.confirmed, finding.older, finding.oldest)
    };
    assert_eq!(seen(&mut bench), (2, [1, 0, 0], begin.plus(1_000)));
    bench.step(1, Verb::Fulfil, 0);
    assert_eq!(seen(&mut bench), (1, [0, 0, 0], begin.plus(2_000)));
    bench.step(2, Verb::Release, 0);
    assert_eq!(seen(&mut bench), (0, [0, 0, 0], Millis(0)));
}

/// A released format's files, laid out as a data directory.
fn golden(name: &str) -> (tempfile::TempDir, PathBuf, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    std::fs::create_dir(&data).expect("made");
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/golden").join(name);
    for file in ["journal.redb", "snapshot.redb"] {
        let packed = std::fs::File::open(from.join(format!("{file}.xz"))).expect("there");
        let mut file = std::fs::File::create(data.join(file)).expect("made");
        std::io::copy(&mut liblzma::read::XzDecoder::new(packed), &mut file).expect("unpacked");
    }
    let expected = std::fs::read_to_string(from.join("expected")).expect("there");
    (dir, data, expected.trim().to_owned())
}

/// Names of all golden directories: format, then how its server ended.
fn golden_names() -> Vec<String> {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/golden");
    let mut names: Vec<String> = std::fs::read_dir(list)
        .expect("there")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("a name"))
        .collect();
    names.sort();
    names
}

#[test]
fn files_of_every_released_format_are_read_and_gone_on_with() {
    let names = golden_names();
    for format in [1, stockline_core::journal::JOURNAL_VERSION] {
        assert!(
            names.iter().any(|name| name.starts_with(&format!("{format}-"))),
            "format {format} in {names:?}"
        );
    }
    for name in names {
        let (_dir, data, expected) = golden(&name);
        let first = |said: &str| said.lines().next().expect("a line").to_owned();
        assert_eq!(first(&verified(&data)), expected, "{name}");
        // A server goes on with them, in its own format.
        serve(&data, &["--retain-journal", "--accept-clock"]).terminate();
        let after = verified(&data);
        let entries = |said: &str| field(said, "entries").parse::<u64>().expect("a number");
        assert!(entries(&after) > entries(&expected), "{name}: {after}");
    }
}

#[test]
fn files_of_a_newer_format_are_refused_by_name() {
    let (_dir, data, _) = golden("1-stopped");
    let table: TableDefinition<&str, u64> = TableDefinition::new("meta");
    let db = Database::open(data.join("snapshot.redb")).expect("opens");
    let write = db.begin_write().expect("writes");
    write.open_table(table).expect("table").insert("version", 9).expect("written");
    write.commit().expect("commits");
    drop(db);
    let says =
        "the snapshot has format 9, this program reads formats 1 to 3; use the stockline that wrote it";
    check("stockline", &["serve", "--data", path(&data), "--quic", "127.0.0.1:0"], 3, says);

    let (_dir, data, _) = golden("1-stopped");
    edit(&data, 5, |bytes| bytes[0] = 9);
    let says = "has format 9, this program reads formats 1 to 3; use the stockline that wrote it";
    check("stockline", &["serve", "--data", path(&data), "--quic", "127.0.0.1:0"], 3, says);
}

/// Changes the `index`th record of a journal; answers its first LSN.
fn edit(data: &Path, index: usize, change: impl FnOnce(&mut Vec<u8>)) -> u64 {
    let db = Database::open(data.join("journal.redb")).expect("opens");
    let read = db.begin_read().expect("reads");
    let table = read.open_table(RECORDS).expect("table");
    let pair = table.iter().expect("rows").nth(index).expect("a row");
    let (first, mut bytes) =
        pair.map(|(first, bytes)| (first.value(), bytes.value().to_vec())).expect("a row");
    drop((table, read));
    change(&mut bytes);
    let write = db.begin_write().expect("writes");
    write.open_table(RECORDS).expect("table").insert(first, bytes.as_slice()).expect("written");
    write.commit().expect("commits");
    first
}

#[test]
fn verify_names_the_first_lsn_of_a_journal_that_was_edited() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let serving = serve(&data, &["--retain-journal"]);
    let load = ["run", "--scenario", "torture", "--seconds", "1", "--in-flight", "4", "--profile"];
    let profile = data.join("client.toml");
    check("loadgen", &[&load[..], &[path(&profile)]].concat(), 0, "audit ok");
    serving.terminate();
    // A reason given with an event, changed by somebody who knows the format and its checksum.
    let first = edit(&data, 40, |bytes| {
        let at = bytes.len() - 60;
        bytes[at] ^= 1;
        let checksum = xxhash_rust::xxh3::xxh3_64(&bytes[44..]);
        bytes[4..12].copy_from_slice(&checksum.to_le_bytes());
    });
    let says = format!("journal record of LSN {first} is damaged: the chain of hashes breaks here");
    check("stockline", &["verify", "--data", path(&data)], 3, &says);
    check("stockline", &["serve", "--data", path(&data), "--quic", "127.0.0.1:0"], 3, &says);
}
