//! Fuzz targets: every decoder of bytes from outside, and sequences of commands. Each may refuse, none may panic,
//! and what it accepts must be sound.
//!
//! `cargo test` plays the corpus in tests/corpus; libFuzzer (`tests/long`, `src/bin/fuzz.rs`) looks for more.

use stockline_client::Profile;
use stockline_core::command::{Body, Command, Frame};
use stockline_core::id::{Key, Lsn, Millis, PrincipalId};
use stockline_core::journal::{self, Decoded, JournalRecord};
use stockline_core::label::Whose;
use stockline_core::record::digest;
use stockline_core::snapshot;
use stockline_core::wire::{
    self, ArchivedAvailability, ArchivedAvailabilityAnswer, ArchivedPositions, ArchivedRefusal,
    ArchivedReservationAnswers, ArchivedResults, ArchivedSignIn, ArchivedWelcome, FrameType, Inbox,
};
use stockline_loadgen::dice::Dice;
use stockline_loadgen::model::{Act, Model};
use stockline_server::command::import;
use stockline_server::config::{ServeConfig, ServeOptions};

use crate::bench::{Bench, WHO, copy_entry};
use crate::chance::{body, chance, due, due_act, setup_with_sku_rules};

/// Takes any bytes.
pub type Target = fn(&[u8]);

/// Every target by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("requests", requests),
    ("replies", replies),
    ("journal", journal_record),
    ("snapshot", snapshot_row),
    ("events", events),
    ("config", config),
    ("commands", commands),
];

pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}

/// A stream of request frames, in pieces.
fn requests(data: &[u8]) {
    let mut inbox = Inbox::default();
    // The first byte says how long the pieces are.
    let Some((piece, stream)) = data.split_first() else { return };
    for piece in stream.chunks(usize::from(*piece).max(1)) {
        inbox.push(piece);
        loop {
            match inbox.next_frame() {
                Ok(Some(raw)) => request(raw),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

fn request(raw: wire::RawFrame<'_>) {
    match raw.kind {
        FrameType::Availability => {
            if let Ok(question) = wire::access::<ArchivedAvailability>(raw.archive) {
                let asked: u64 =
                    question.queries.iter().map(|query| u64::from(query.sku_count.to_native())).sum();
                assert!(asked <= u64::from(u32::MAX) * question.queries.len() as u64);
            }
        }
        FrameType::SignIn => drop(wire::access::<ArchivedSignIn>(raw.archive)),
        _ => {
            let Ok(read) = wire::read_commands(raw, PrincipalId(7), &Whose::All, Millis(1_700_000_000_000))
            else {
                return;
            };
            for command in &read.commands {
                if let Body::Reserve(reserve) = &command.body {
                    // Every reservation has its own lines, and they are there.
                    assert_eq!(reserve.lines(&read.lines).len(), reserve.line_count as usize);
                }
            }
        }
    }
}

/// What a client reads.
fn replies(data: &[u8]) {
    let mut inbox = Inbox::for_replies();
    inbox.push(data);
    while let Ok(Some(raw)) = inbox.next_frame() {
        let archive = raw.archive;
        drop(wire::access::<ArchivedResults>(archive));
        drop(wire::access::<ArchivedAvailabilityAnswer>(archive));
        drop(wire::access::<ArchivedPositions>(archive));
        drop(wire::access::<ArchivedReservationAnswers>(archive));
        drop(wire::access::<ArchivedWelcome>(archive));
        drop(wire::access::<ArchivedRefusal>(archive));
    }
}

/// A stored record: as it is, and with a head that fits, so that what lies behind the checksum is reached.
fn journal_record(data: &[u8]) {
    let _ = journal::decode(Lsn(1), data);
    let _ = journal::follow(None, Lsn(1), data);
    for version in [2, journal::JOURNAL_VERSION] {
        let mut sealed = vec![0; 44];
        sealed[0] = version;
        sealed[4..12].copy_from_slice(&xxhash_rust::xxh3::xxh3_64(data).to_le_bytes());
        sealed.extend_from_slice(data);
        if let Ok(decoded) = journal::decode(Lsn(1), &sealed) {
            read_and_written(&decoded);
        }
    }
}

/// What is read can be written and read again.
fn read_and_written(decoded: &Decoded) {
    let mut record = JournalRecord::default();
    record.restart(Lsn(1));
    for entry in &decoded.entries {
        copy_entry(&mut record, decoded, entry);
    }
    let mut bytes = Vec::new();
    record.encode(&mut Default::default(), &mut bytes);
    let again = journal::decode(Lsn(1), &bytes).expect("what was just written");
    assert_eq!(again.entries.len(), decoded.entries.len());
    assert_eq!(again.movements, decoded.movements);
}

fn snapshot_row(data: &[u8]) {
    for table in ["skus", "reservations", "definitions"] {
        snapshot::is_row(table, data);
    }
}

/// A file of events.
fn events(data: &[u8]) {
    let _ = import::check(data);
}

fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(options) = toml::from_str::<ServeOptions>(text)
        && let Ok(config) = ServeConfig::resolve(options, None)
    {
        assert!(config.shards > 0);
    }
    let _ = toml::from_str::<Profile>(text);
}

/// Commands against the model: three bytes choose each.
fn commands(data: &[u8]) {
    let shards = if data.first().is_some_and(|byte| byte % 2 == 1) { 4 } else { 1 };
    let (mut bench, mut model) = (Bench::with_sku_rules(shards), Model::new(setup_with_sku_rules()));
    let (chance, mut last_id) = (chance(), 0);
    for choice in data.chunks_exact(3) {
        let mut dice =
            Dice::new(u64::from(choice[0]) | u64::from(choice[1]) << 8 | u64::from(choice[2]) << 16);
        if choice[0] > 230 {
            bench.now = bench.now.plus(u64::from(choice[1]) * 10);
            for body in bench.due() {
                send(&mut bench, &mut model, &due_act(&body));
            }
        }
        let act = chance.act(&mut dice, 0, &mut last_id, bench.now.0);
        send(&mut bench, &mut model, &act);
        bench.journal.clear();
    }
    for sku in 0..6 {
        for node in 0..3 {
            assert_eq!(bench.all_units(sku, node), model.units(sku, node), "sku {sku} node {node}");
        }
    }
    bench.assert_sound();
}

/// Sends one command to both sides and compares the answers.
pub fn send(bench: &mut Bench, model: &mut Model, act: &Act) {
    let mut lines = Vec::new();
    let body = body(act, &mut lines);
    let key = match &body {
        Body::Reserve(reserve) => Key(reserve.id.0),
        Body::Expire(_) | Body::Balance(_) => Key(0),
        _ => bench.key(),
    };
    let command = Command { key, issued_at: bench.now, digest: digest(&body, &lines), body };
    let told = bench.send_frames(vec![Frame { tag: (), principal: WHO, commands: vec![command], lines }]);
    let due_now = model.apply(Some(bench.now.0), act);
    assert_eq!(due(&told[0].replies[0], &told[0].parts), due_now, "{act:?}");
}
