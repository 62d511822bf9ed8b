//! Random commands of every kind against the reference model: replies one by one, units and conservation after
//! every few steps.

use stockline_core::command::{Body, Command};
use stockline_core::id::{Key, Millis};
use stockline_core::record::digest;
use stockline_loadgen::chance::pick;
use stockline_loadgen::dice::Dice;
use stockline_loadgen::model::{Act, Model};

use crate::bench::{Bench, WHO};
use crate::chance::{body, chance, due, setup};
use crate::rounds::rounds;

fn send(bench: &mut Bench, model: &mut Model, act: &Act) {
    let mut lines = Vec::new();
    let body = body(act, &mut lines);
    let key = match &body {
        Body::Reserve(reserve) => Key(reserve.id.0),
        Body::Expire(_) => Key(0),
        _ => bench.key(),
    };
    let command = Command { key, issued_at: bench.now, digest: digest(&body, &lines), body };
    let frame = stockline_core::command::Frame { tag: (), principal: WHO, commands: vec![command], lines };
    let told = bench.send_frames(vec![frame]).remove(0);
    let due_now = model.apply(Some(bench.now.0), act);
    assert_eq!(due(&told.replies[0], &told.parts), due_now, "{act:?}");
}

fn compare(bench: &Bench, model: &Model) {
    for sku in 0..6 {
        for node in 0..3 {
            assert_eq!(bench.units(sku, node), model.units(sku, node), "sku {sku} node {node}");
        }
    }
    bench.assert_sound();
}

fn play(shards: u32, seed: u64, steps: u64) -> u64 {
    let mut dice = Dice::new(seed);
    let mut bench = Bench::new(shards);
    bench.now = Millis(bench.now.0 + pick(&mut dice, 1_000));
    let mut model = Model::new(setup());
    let (chance, mut last_id) = (chance(), 0);
    for index in 0..steps {
        if pick(&mut dice, 12) == 0 {
            bench.now = bench.now.plus(pick(&mut dice, 300));
            for id in bench.due() {
                send(&mut bench, &mut model, &Act::Expire { id: id.0 });
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
