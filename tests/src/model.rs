//! Random commands of every kind against the reference model: replies one by one, units and conservation after
//! every few steps.

use stockline_core::id::Millis;
use stockline_core::outcome::Code;
use stockline_loadgen::chance::pick;
use stockline_loadgen::dice::Dice;
use stockline_loadgen::model::{ANY, Model, place_of};

use stockline_tests::fuzz::{TARGETS, send};

use crate::bench::Bench;
use crate::chance::{chance, days, due_act, model_day, setup_with_sku_rules};
use crate::rounds::rounds;

fn compare(bench: &Bench, model: &Model) {
    for sku in 0..6 {
        for node in (0..3).chain([0, 1, ANY].map(place_of)) {
            assert_eq!(bench.all_units(sku, node), model.units(sku, node), "sku {sku} node {node}");
        }
        assert_eq!(bench.allocations(sku), model.allocations(sku), "sku {sku}");
    }
    for (id, waits) in model.waiting() {
        assert_eq!(bench.waits(id), waits, "reservation {id}");
    }
    bench.assert_sound();
}

fn play(shards: u32, seed: u64, steps: u64) -> u64 {
    let mut dice = Dice::new(seed);
    let mut bench = Bench::with_sku_rules(shards);
    bench.now = Millis(bench.now.0 + pick(&mut dice, 1_000));
    let mut model = Model::new(setup_with_sku_rules());
    if seed.is_multiple_of(2) {
        bench.now = Millis(bench.now.0 + pick(&mut dice, 100_000));
        for definition in days() {
            let (node, day) = model_day(&definition).expect("it is a node");
            model.setup.days.insert(node, day);
            assert_eq!(bench.define(definition), Code::Ok);
        }
    }
    let (chance, mut last_id) = (chance(), 0);
    for index in 0..steps {
        if pick(&mut dice, 12) == 0 {
            bench.now = bench.now.plus(pick(&mut dice, 300));
            for body in bench.due() {
                send(&mut bench, &mut model, &due_act(&body));
            }
            assert_eq!(model.overdue(bench.now.0), Vec::<u128>::new());
        }
        let act = chance.act(&mut dice, 0, &mut last_id, bench.now.0);
        send(&mut bench, &mut model, &act);
        if index % 64 == 0 {
            compare(&bench, &model);
        }
        bench.journal.clear();
    }
    compare(&bench, &model);
    steps
}

#[test]
fn one_shard_agrees_with_the_model() {
    rounds("model::one_shard", "commands", 160, |seed| play(1, seed, 5_000));
}

#[test]
fn four_shards_agree_with_the_model() {
    rounds("model::four_shards", "commands", 40, |seed| play(4, seed, 5_000));
}

/// What fuzzing found worth keeping, and samples of every format.
#[test]
fn the_corpus_of_every_fuzz_target_passes() {
    for (name, target) in TARGETS {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let mut files = 0;
        for file in std::fs::read_dir(&directory).expect("a corpus") {
            let path = file.expect("readable").path();
            let data = std::fs::read(&path).expect("readable");
            let played = std::panic::catch_unwind(|| target(&data));
            assert!(played.is_ok(), "{}", path.display());
            files += 1;
        }
        assert!(files > 2, "{name}: {files} files");
    }
}
