//! The number of shards changes nothing: same replies, same state hash; and doing it again neither.

use stockline_core::command::{Line, Verb};
use stockline_core::id::{Lsn, ShardOf};
use stockline_core::journal;
use stockline_core::ledger::Ledger;
use stockline_core::outcome::Code;
use stockline_loadgen::chance::pick;
use stockline_loadgen::dice::Dice;

use crate::bench::{Bench, Told, any_line};
use crate::chance::{body, chance, days};
use crate::rounds::rounds;

/// Plays the same random commands and answers all replies.
fn play(bench: &mut Bench, seed: u64, steps: u64) -> Vec<Told> {
    let mut dice = Dice::new(seed);
    let mut told = Vec::new();
    for sku in 0..8 {
        bench.receive(sku, (sku % 3) as u16, 40);
    }
    for step in 0..steps {
        match dice.roll() % 5 {
            0..3 => {
                let lines: Vec<Line> = (0..=dice.roll() % 5)
                    .map(|_| any_line((dice.roll() % 8) as u32, (dice.roll() % 3) as u32 + 1))
                    .collect();
                told.push(bench.reserve(u128::from(step) + 1, 0, 500, &lines));
            }
            3 => {
                let id = u128::from(dice.roll() % (step + 1)) + 1;
                let verb = [Verb::Confirm, Verb::Fulfil, Verb::Release][(dice.roll() % 3) as usize];
                told.push(bench.step(id, verb, 0));
            }
            _ => {
                bench.now = bench.now.plus(dice.roll() % 50);
                bench.receive((dice.roll() % 8) as u32, (dice.roll() % 3) as u16, 3);
            }
        }
    }
    bench.assert_sound();
    told
}

#[test]
fn one_and_four_shards_give_the_same_replies_and_state() {
    for seed in 0..5 {
        let (mut one, mut four) = (Bench::new(1), Bench::new(4));
        let (told_one, told_four) = (play(&mut one, seed, 400), play(&mut four, seed, 400));
        assert_eq!(told_one, told_four, "seed {seed}");
        assert_eq!(one.hash(), four.hash(), "seed {seed}");
        assert_eq!(one.journal, four.journal, "seed {seed}: byte by byte");
    }
}

/// Random commands of every kind, with everything configured; answers a fingerprint of each record.
fn play_all(shards: u32, seed: u64, steps: u64) -> (Vec<(Lsn, Vec<u8>)>, String) {
    let mut dice = Dice::new(seed);
    let mut bench = Bench::with_sku_rules(shards);
    if seed.is_multiple_of(2) {
        days().into_iter().for_each(|definition| assert_eq!(bench.define(definition), Code::Ok));
    }
    let (chance, mut last_id) = (chance(), 0);
    for _ in 0..steps {
        if pick(&mut dice, 12) == 0 {
            bench.now = bench.now.plus(pick(&mut dice, 300));
            let mut due = bench.due();
            due.sort_by_key(|body| format!("{body:?}"));
            due.into_iter().for_each(|body| drop(bench.send_body(body, &[])));
        }
        let act = chance.act(&mut dice, 0, &mut last_id, bench.now.0);
        let mut lines = Vec::new();
        let body = body(&act, &mut lines);
        bench.send_body(body, &lines);
    }
    bench.assert_sound();
    let hash = bench.hash();
    (bench.journal, hash)
}

#[test]
fn every_command_leaves_the_same_bytes_in_the_journal_of_one_and_of_four_shards() {
    rounds("shards::every_command", "commands", 30, |seed| {
        let (one, four) = (play_all(1, seed, 2_000), play_all(4, seed, 2_000));
        let other = one.0.iter().zip(&four.0).find(|(one, four)| one != four);
        if let Some((one, four)) = other {
            let decoded = [one, four].map(|(first, bytes)| journal::decode(*first, bytes).expect("valid"));
            panic!("{:?}\n{:?}", decoded[0], decoded[1]);
        }
        assert_eq!(one.1, four.1);
        2_000
    });
}

#[test]
fn what_the_journal_recorded_makes_the_state_again() {
    for shards in [1, 3, 4] {
        let mut bench = Bench::new(4);
        play(&mut bench, 11, 500);
        bench.now = bench.now.plus(10_000);
        bench.expire_due();
        let mut ledgers: Vec<Ledger> =
            (0..shards).map(|index| Ledger::new(ShardOf { index, count: shards })).collect();
        let mut due = Lsn(1);
        for (first, bytes) in &bench.journal {
            let decoded = journal::decode(*first, bytes).expect("a record just written");
            for entry in &decoded.entries {
                assert_eq!(entry.lsn, due, "no LSN is missing or twice");
                due = due.next();
                ledgers.iter_mut().for_each(|ledger| decoded.settle(entry, ledger));
            }
        }
        let mut hash = stockline_core::ledger::StateHash::default();
        ledgers.iter().for_each(|ledger| hash += ledger.state_hash());
        assert_eq!(hash.to_string(), bench.hash(), "{shards} shards");
        assert_eq!(stockline_core::ledger::audit(&ledgers), Vec::<String>::new());
    }
}
