//! Benches of the core, named layer_operation. Each checks what it did: a wrong answer fails the run.

use std::cell::RefCell;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use stockline_benches::{Ground, START, scatter};
use stockline_core::bucket::Place;
use stockline_core::catalogue::{ChannelRule, NodeSet, Policy, Rules};
use stockline_core::chain::Chain;
use stockline_core::id::{ChannelId, GroupId, Lsn, NodeId, PrincipalId, ShardOf, SkuId};
use stockline_core::journal::file::FileJournal;
use stockline_core::journal::{self, Journal, JournalRecord};
use stockline_core::label::Whose;
use stockline_core::ledger::Ledger;
use stockline_core::merge::merge;
use stockline_core::outcome::Code;
use stockline_core::record::{LineRec, ReserveRec};
use stockline_core::view::View;
use stockline_core::wire::{self, FrameType, Inbox};

const BATCH: usize = 1_000;

/// One journal record of a batch of reservations.
fn record(ground: &mut Ground) -> (Lsn, Lsn, JournalRecord) {
    let (commands, lines) = ground.reservations(BATCH);
    let (batch, output) = ground.execute(commands, lines);
    let mut record = JournalRecord::default();
    record.restart(batch.before.next());
    let mut replies = Vec::new();
    merge(&batch, &[output], &mut record, &mut replies);
    assert!(replies[0].replies.iter().all(|reply| reply.outcome.code == Code::Ok));
    (batch.before, batch.last, record)
}

fn ledger(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ledger");
    group.throughput(Throughput::Elements(BATCH as u64));
    for skus in [1_000, 1_000_000] {
        let ground = RefCell::new(Ground::new(skus));
        group.bench_function(format!("ledger_apply_reserve_{skus}_skus"), |bencher| {
            bencher.iter_batched(
                || ground.borrow_mut().reservations(BATCH),
                // Stamping is measured with it: this is what the one sequencer thread does for a line.
                |(commands, lines)| {
                    let (batch, output) = ground.borrow_mut().execute(commands, lines);
                    assert!(output.results.iter().all(|result| result.outcome.code == Code::Ok));
                    assert_eq!(output.results.len(), BATCH);
                    (batch, output)
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

fn view(criterion: &mut Criterion) {
    const SKUS: u32 = 1_000_000;
    let (view, mut publisher) = View::new(Arc::new(Rules::default()));
    for sku in 0..SKUS {
        let place = Place { sku: SkuId(sku), node: NodeId(0), pool: ChannelId::SHARED };
        publisher.store(place, i64::from(sku), Lsn(1));
    }
    publisher.raise(Lsn(1));
    let rule = ChannelRule {
        pools: Box::new([ChannelId(0)]),
        nodes: NodeSet::All,
        group: GroupId::ANY,
        buffer: 0,
        policy: Policy::default(),
        planned_from: u32::MAX,
        prefers: false,
        first_nodes: Box::default(),
    };
    let mut group = criterion.benchmark_group("view");
    group.throughput(Throughput::Elements(BATCH as u64));
    let mut at = 0u128;
    group.bench_function("view_read_1000000_skus", |bencher| {
        bencher.iter(|| {
            let first = at;
            let read = view.read(|reader| {
                for next in first..first + BATCH as u128 {
                    let sku = scatter(next, SKUS);
                    let found = reader.available(&rule, None, SkuId(sku), |_, _| {})?;
                    assert_eq!(found.units, i64::from(sku));
                }
                Ok(())
            });
            at += BATCH as u128;
            read.expect("nobody writes")
        });
    });
    group.finish();
}

fn codec(criterion: &mut Criterion) {
    let mut body = wire::Reservations::default();
    for id in 1..=100u128 {
        let (key, issued_at_ms) = (id, START.0);
        body.reservations.push(ReserveRec {
            key,
            issued_at_ms,
            id,
            channel: 0,
            ttl_ms: 9,
            fill: 0,
            customer: 0,
            zone: u16::MAX,
            line_count: 1,
            label_count: 0,
        });
        body.lines.push(LineRec { sku: id as u32, node: u16::MAX, group: u16::MAX, quantity: 1 });
    }
    let mut bytes = Vec::new();
    wire::encode(&mut bytes, FrameType::Reserve, 1, &body);
    let mut group = criterion.benchmark_group("wire");
    group.throughput(Throughput::Elements(100));
    group.bench_function("wire_encode_100_reservations", |bencher| {
        let mut out = Vec::new();
        bencher.iter(|| {
            out.clear();
            wire::encode(&mut out, FrameType::Reserve, 1, &body);
            assert_eq!(out.len(), bytes.len());
        });
    });
    group.bench_function("wire_decode_100_reservations", |bencher| {
        let mut inbox = Inbox::default();
        bencher.iter(|| {
            inbox.push(&bytes);
            let raw = inbox.next_frame().expect("sound").expect("whole");
            let read = wire::read_commands(raw, PrincipalId(7), &Whose::All, START).expect("valid");
            assert_eq!((read.commands.len(), read.lines.len()), (100, 100));
            black_box(read)
        });
    });
    group.finish();
}

fn journal(criterion: &mut Criterion) {
    let mut ground = Ground::new(10_000);
    let (_, _, example) = record(&mut ground);
    let mut bytes = Vec::new();
    let mut chain = Chain::START;
    example.encode(&mut chain, &mut bytes);
    let mut group = criterion.benchmark_group("journal");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("journal_encode_1000_entries", |bencher| {
        bencher.iter(|| example.encode(&mut chain, &mut bytes));
    });
    let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a directory on the disk");
    let mut file = FileJournal::open(&directory.path().join("journal.redb"), false).expect("opens");
    let mut last = Lsn::NONE;
    let kept = 64 * BATCH as u64;
    group.bench_function("journal_append_1000_entries", |bencher| {
        bencher.iter(|| {
            let next = Lsn(last.0 + BATCH as u64);
            file.append(last, next, &bytes, Lsn(next.0.saturating_sub(kept))).expect("durable");
            last = next;
        });
    });
    group.finish();
}

fn recovery(criterion: &mut Criterion) {
    let mut ground = Ground::new(100_000);
    let mut records = Vec::new();
    let mut chain = Chain::START;
    for _ in 0..100 {
        let (before, _, record) = record(&mut ground);
        let mut bytes = Vec::new();
        record.encode(&mut chain, &mut bytes);
        records.push((before.next(), bytes));
    }
    let mut group = criterion.benchmark_group("recovery");
    group.throughput(Throughput::Elements(100 * BATCH as u64));
    group.sample_size(10);
    group.bench_function("recovery_replay_100000_entries", |bencher| {
        bencher.iter_batched(
            || {
                let mut ledger = Ledger::new(ShardOf::ALL);
                for sku in 0..100_000 {
                    ledger.load_sku(SkuId(sku), &Ground::full());
                }
                ledger
            },
            |mut ledger| {
                for (first, bytes) in &records {
                    let decoded = journal::decode(*first, bytes).expect("valid");
                    for entry in &decoded.entries {
                        decoded.settle(entry, &mut ledger);
                    }
                }
                assert_eq!(ledger.reservations().active(), 100 * BATCH);
                ledger
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group!(benches, ledger, view, codec, journal, recovery);
criterion_main!(benches);
