//! Backorders and preorders: claims on supplies, their dates, limits, and promises made anew.

use stockline_core::bucket::Bucket;
use stockline_core::catalogue::{Effect, Policy, Unannounced};
use stockline_core::checkpoint::fold;
use stockline_core::command::{Fill, Line, StepLine, Verb};
use stockline_core::event::EventKind;
use stockline_core::id::{ChannelId, GroupId, Lsn, Millis, NodeId, ReservationId, ShardOf, SkuId, SupplyId};
use stockline_core::journal::file::FileJournal;
use stockline_core::journal::{self, Journal};
use stockline_core::ledger::{Ledger, NEVER, Reason, audit};
use stockline_core::limit::{LINE_SUPPLIES_MAX, QUANTITY_MAX, WAITING_PER_CHANNEL_MAX, WAITING_PER_SKU_MAX};
use stockline_core::outcome::{Code, State};
use stockline_core::snapshot::Snapshot;
use stockline_core::view::View;
use stockline_loadgen::chance::pick;
use stockline_loadgen::dice::Dice;

use crate::bench::{Bench, START, Told, any_line, channel_with, node_line, sku_rule};

const DAY: u64 = 86_400_000;

fn day(days: u64) -> Millis {
    START.plus(days * DAY)
}

/// Every channel may wait for 100 units of sku 1, channel 1 for none at node 0 and for 6 elsewhere.
fn bench(shards: u32) -> Bench {
    let mut bench = Bench::new(shards);
    for (name, node, channel, units) in
        [("all", None, None, 100), ("c1", None, Some("c1"), 6), ("c1n0", Some("n0"), Some("c1"), 0)]
    {
        let rule = sku_rule(name, ("s1", ""), (node, None), channel, Effect::Backorder(units));
        assert_eq!(bench.define(rule), Code::Ok);
    }
    bench
}

fn supply(bench: &mut Bench, node: u16, supply: u64, units: i64, eta: Millis) -> Code {
    let mut event = bench.make(EventKind::Supply, 1, node, units);
    (event.supply, event.eta) = (Some(SupplyId(u128::from(supply))), eta);
    let code = bench.event(event).reply.outcome.code;
    bench.assert_sound();
    code
}

fn receive(bench: &mut Bench, node: u16, supply: u64, units: i64) {
    let mut event = bench.make(EventKind::Receipt, 1, node, units);
    event.supply = Some(SupplyId(u128::from(supply)));
    assert_eq!(bench.event(event).reply.outcome.code, Code::Ok);
    bench.assert_sound();
}

/// A claim of so many units of sku 1 at any node.
fn claim(bench: &mut Bench, id: u128, channel: u16, units: u32) -> (Code, Vec<(u16, u32, u64)>) {
    let told = bench.reserve(id, channel, 60_000, &[any_line(1, units)]);
    bench.assert_sound();
    (told.reply.outcome.code, dated(&told))
}

/// Node, units and the day for which they are promised, counted from the start; 0: they are there.
fn dated(told: &Told) -> Vec<(u16, u32, u64)> {
    let day = |at: Millis| if at.0 == 0 { 0 } else { at.since(START) / DAY };
    told.parts.iter().zip(&told.dates).map(|((_, node, units), at)| (*node, *units, day(*at))).collect()
}

/// What a reservation waits for: node, day (1000: never), units, of these held.
fn waits(bench: &Bench, id: u128) -> Vec<(u16, u64, i64, i64)> {
    let day = |at: u64| if at == NEVER.0 { 1_000 } else { (at - START.0) / DAY };
    bench.waits(id).into_iter().map(|(_, node, at, units, held)| (node, day(at), units, held)).collect()
}

/// The system's turn: what it promised anew: reservation, reason, units, day.
fn promised(bench: &mut Bench) -> Vec<(u128, Reason, u32, u64)> {
    let mut told = Vec::new();
    for round in 0.. {
        let due = bench.due();
        if due.is_empty() {
            break;
        }
        assert!(round < 3, "it comes to an end");
        for body in due {
            bench.journal.clear();
            bench.send_body(body, &[]);
            bench.assert_sound();
            for (first, bytes) in &bench.journal {
                let decoded = journal::decode(*first, bytes).expect("valid");
                told.extend(decoded.promises.iter().map(|promise| {
                    let day = match promise.at {
                        NEVER => 1_000,
                        Millis(0) => 0,
                        at => at.since(START) / DAY,
                    };
                    (promise.reservation.0, promise.reason, promise.held + promise.confirmed, day)
                }));
            }
        }
    }
    told
}

#[test]
fn what_is_not_there_is_claimed_of_the_earliest_supplies() {
    let mut bench = bench(1);
    bench.receive(1, 0, 3);
    for (node, number, units, days) in [(1, 1, 5, 20), (0, 2, 4, 10), (2, 3, 9, 30)] {
        assert_eq!(supply(&mut bench, node, number, units, day(days)), Code::Ok);
    }
    // What is there first, then the earliest.
    assert_eq!(claim(&mut bench, 1, 0, 2), (Code::Ok, vec![(0, 2, 0)]));
    assert_eq!(claim(&mut bench, 2, 0, 6), (Code::Ok, vec![(0, 1, 0), (0, 4, 10), (1, 1, 20)]));
    assert_eq!(bench.units(1, 0)[..2], [0, 3], "what is to come is not on hand");
    // A node that is named has its own supplies only.
    let told = bench.reserve(13, 0, 60_000, &[node_line(1, 0, 1)]);
    assert_eq!((told.reply.outcome.code, told.parts), (Code::InsufficientStock, vec![(1, u16::MAX, 0)]));
    // Too much is refused whole, and filled partly.
    assert_eq!(claim(&mut bench, 14, 0, 14).1, [(u16::MAX, 13, 0)]);
    let told = bench.reserve_filled(Fill::Partial, 3, (0, 60_000), &[any_line(1, 14)]);
    assert_eq!(told.reply.outcome.code, Code::Ok);
    assert_eq!(dated(&told), [(1, 4, 20), (2, 9, 30), (u16::MAX, 13, 0)]);
    // A supply that is late, or has no date, is promised to nobody.
    assert_eq!(supply(&mut bench, 0, 4, 5, START), Code::Ok);
    assert_eq!(claim(&mut bench, 4, 0, 1).0, Code::InsufficientStock);
}

#[test]
fn two_lines_of_a_sku_are_summed_and_a_repeat_hears_the_same() {
    let mut bench = bench(1);
    assert_eq!(supply(&mut bench, 0, 1, 5, day(1)), Code::Ok);
    let told = bench.reserve(1, 0, 60_000, &[any_line(1, 3), any_line(1, 3)]);
    assert_eq!((told.reply.outcome.code, told.parts), (Code::InsufficientStock, vec![(1, u16::MAX, 2)]));
    let told = bench.reserve(2, 0, 60_000, &[any_line(1, 3), any_line(1, 2)]);
    assert_eq!((told.reply.outcome.code, dated(&told)), (Code::Ok, vec![(0, 5, 1)]));
    let (first, bytes) = bench.journal.last().expect("it was written").clone();
    let decoded = journal::decode(first, &bytes).expect("valid");
    let again = bench.reserve(2, 0, 60_000, &[any_line(1, 3), any_line(1, 2)]);
    assert!(again.reply.repeat);
    let mut reply = stockline_core::merge::FrameReply::default();
    reply.replies.push(again.reply);
    reply.fill_repeat(0, &decoded, &decoded.entries[0]);
    assert_eq!((reply.parts[0].quantity, reply.parts[0].at), (5, day(1)));
}

#[test]
fn a_channel_waits_for_as_much_as_its_rule_says() {
    let mut bench = bench(1);
    assert_eq!(supply(&mut bench, 0, 1, 50, day(1)), Code::Ok);
    assert_eq!(supply(&mut bench, 1, 2, 50, day(2)), Code::Ok);
    // Channel 1 is offered nodes 1 and 2; 6 units are its limit of the sku.
    assert_eq!(claim(&mut bench, 1, 1, 7).1, [(u16::MAX, 6, 0)]);
    assert_eq!(claim(&mut bench, 2, 1, 4), (Code::Ok, vec![(1, 4, 2)]));
    assert_eq!(claim(&mut bench, 3, 1, 3).1, [(u16::MAX, 2, 0)]);
    assert_eq!(claim(&mut bench, 4, 0, 60), (Code::Ok, vec![(0, 50, 1), (1, 10, 2)]));
    // What is given back may be waited for again.
    assert_eq!(bench.step(2, Verb::Release, 0).reply.outcome.state, State::Released);
    assert_eq!(claim(&mut bench, 5, 1, 6), (Code::Ok, vec![(1, 6, 2)]));
    // A rule that says none ends it for new ones; another sku never had one.
    let none = sku_rule("all", ("s1", ""), (None, None), None, Effect::Backorder(0));
    assert_eq!(bench.define(none), Code::Ok);
    assert_eq!(claim(&mut bench, 6, 0, 1).0, Code::InsufficientStock);
    assert_eq!(waits(&bench, 4), [(0, 1, 50, 50), (1, 2, 10, 10)]);
}

#[test]
fn what_waits_lives_as_other_claims_do_but_is_not_taken_before_it_is_there() {
    for shards in [1, 4] {
        let mut bench = bench(shards);
        bench.receive(1, 0, 2);
        bench.receive(2, 0, 1);
        assert_eq!(supply(&mut bench, 0, 1, 5, day(1)), Code::Ok);
        let told = bench.reserve(1, 0, 60_000, &[any_line(1, 4), any_line(2, 1)]);
        assert_eq!(told.reply.outcome.code, Code::Ok);
        let step = |bench: &mut Bench, verb, units, to_node: NodeId| {
            let line = StepLine { sku: SkuId(1), node: NodeId(0), to_node, quantity: units };
            let told = bench.step_lines(1, verb, &[line]);
            bench.assert_sound();
            (told.reply.outcome.code, told.reply.outcome.state)
        };
        let any = NodeId::ANY;
        // Confirmed are those first that are there.
        assert_eq!(step(&mut bench, Verb::Confirm, 3, any), (Code::Ok, State::Held));
        assert_eq!(waits(&bench, 1), [(0, 1, 2, 1)]);
        assert_eq!(bench.step(1, Verb::Confirm, 0).reply.outcome.state, State::Confirmed);
        assert_eq!(waits(&bench, 1), [(0, 1, 2, 0)]);
        // All of it cannot be fulfilled, what is there can.
        let told = bench.step(1, Verb::Fulfil, 0).reply.outcome;
        assert_eq!((told.code, told.state), (Code::Backordered, State::Confirmed), "{shards} shards");
        assert_eq!(step(&mut bench, Verb::Fulfil, 3, any), (Code::InsufficientClaim, State::Confirmed));
        let mut ship = bench.make(EventKind::Ship, 1, 0, 5);
        ship.reservation = Some(ReservationId(1));
        assert_eq!(bench.event(ship).reply.outcome.code, Code::InsufficientClaim);
        assert_eq!(step(&mut bench, Verb::Fulfil, 2, any), (Code::Ok, State::Confirmed));
        // What waits is given back first; moved, it takes what is there.
        assert_eq!(step(&mut bench, Verb::Release, 1, any), (Code::Ok, State::Confirmed));
        assert_eq!(waits(&bench, 1), [(0, 1, 1, 0)]);
        assert_eq!(step(&mut bench, Verb::Move, 1, NodeId(1)), (Code::InsufficientStock, State::Confirmed));
        bench.receive(1, 1, 1);
        assert_eq!(step(&mut bench, Verb::Move, 1, NodeId(1)), (Code::Ok, State::Confirmed));
        assert_eq!(waits(&bench, 1), []);
        assert_eq!(bench.units(1, 1)[..3], [0, 0, 1]);
        assert_eq!(bench.step(1, Verb::Fulfil, 1).reply.outcome.state, State::Fulfilled);
        // An expired hold gives its part of the supply back.
        assert_eq!(claim(&mut bench, 2, 0, 5), (Code::Ok, vec![(0, 5, 1)]));
        assert_eq!(claim(&mut bench, 13, 0, 1).0, Code::InsufficientStock);
        bench.now = bench.now.plus(60_000);
        bench.expire_due();
        assert_eq!(claim(&mut bench, 3, 0, 1), (Code::Ok, vec![(0, 1, 1)]));
        bench.assert_sound();
    }
}

#[test]
fn promises_are_made_anew_by_priority_then_age() {
    let mut bench = bench(1);
    // Channel 2 goes before channel 0.
    for (channel, priority) in [("c0", 5), ("c2", 1)] {
        let policy = Policy { priority, ..Policy::default() };
        assert_eq!(bench.define(channel_with(channel, policy)), Code::Ok);
    }
    assert_eq!(supply(&mut bench, 0, 1, 10, day(10)), Code::Ok);
    assert_eq!(supply(&mut bench, 0, 2, 10, day(20)), Code::Ok);
    for (id, channel, units, days) in [(1, 0, 4, 10), (2, 0, 6, 10), (3, 2, 5, 20), (4, 0, 5, 20)] {
        assert_eq!(claim(&mut bench, id, channel, units), (Code::Ok, vec![(0, units, days)]));
    }
    assert_eq!(promised(&mut bench), [], "a new claim takes nobody's promise away");
    // The later supply slips: those who wait for it are told, in the order of their priority.
    assert_eq!(supply(&mut bench, 0, 2, 10, day(25)), Code::Ok);
    let told = promised(&mut bench);
    // Everything is promised anew: channel 2 has the first supply's units now.
    assert_eq!(told, [(3, Reason::Sooner, 5, 10), (2, Reason::Later, 5, 25), (4, Reason::Later, 5, 25),]);
    // The first shrinks: the youngest of the lowest priority lose.
    assert_eq!(supply(&mut bench, 0, 1, 7, day(10)), Code::Ok);
    assert_eq!(
        promised(&mut bench),
        [(1, Reason::Later, 2, 25), (2, Reason::Later, 1, 25), (4, Reason::Lost, 3, 1_000)]
    );
    assert_eq!(waits(&bench, 4), [(0, 25, 2, 5 - 3), (0, 1_000, 3, 3)]);
    // Nothing more is promised of what is owed; then it comes, and goes to them by the same order.
    assert_eq!(claim(&mut bench, 15, 0, 1).0, Code::InsufficientStock);
    receive(&mut bench, 0, 1, 7);
    assert_eq!(claim(&mut bench, 16, 0, 1).0, Code::InsufficientStock, "it is for those who wait");
    let told = promised(&mut bench);
    assert_eq!(told[..2], [(3, Reason::Arrived, 5, 0), (1, Reason::Arrived, 2, 0)]);
    assert_eq!(bench.units(1, 0)[..2], [0, 7]);
    // What comes without a supply is for them too, and the supply has units left for others.
    bench.receive(1, 0, 5);
    assert_eq!(
        promised(&mut bench),
        [(1, Reason::Arrived, 2, 0), (2, Reason::Arrived, 3, 0), (4, Reason::Sooner, 3, 25)]
    );
    assert_eq!(bench.units(1, 0)[..2], [0, 12]);
    assert_eq!(claim(&mut bench, 18, 2, 3).1, [(u16::MAX, 2, 0)]);
    // A supply that is called off.
    assert_eq!(supply(&mut bench, 0, 2, 0, day(25)), Code::Ok);
    assert_eq!(promised(&mut bench), [(2, Reason::Lost, 3, 1_000), (4, Reason::Lost, 5, 1_000)]);
    // One that is new; and one that comes before it.
    assert_eq!(supply(&mut bench, 0, 3, 7, day(40)), Code::Ok);
    assert_eq!(promised(&mut bench), [(2, Reason::Sooner, 3, 40), (4, Reason::Sooner, 4, 40)]);
    assert_eq!(supply(&mut bench, 0, 4, 2, day(30)), Code::Ok);
    assert_eq!(promised(&mut bench), [(2, Reason::Sooner, 2, 30), (4, Reason::Sooner, 1, 40)]);
    assert_eq!(waits(&bench, 2), [(0, 30, 2, 2), (0, 40, 1, 1)]);
    assert_eq!(waits(&bench, 4), [(0, 40, 5, 5)]);
}

/// What readers are told that each channel could have of sku 1 is what a reservation of all there is would be told.
/// What readers of channels and groups are told that they can get of sku 1, now and later.
fn offers(bench: &mut Bench) -> Vec<((u16, GroupId), i64)> {
    let (view, mut publisher) = View::new(bench.sequencer.catalogue.rules());
    for ledger in &bench.ledgers {
        ledger.all_offers(|place, offer| publisher.store(place, offer, Lsn(1)));
    }
    publisher.raise(Lsn(1));
    let asked = (0..4).flat_map(|channel| [(channel, GroupId::ANY), (channel, GroupId(0))]);
    let told = asked.map(|(channel, group)| {
        let read = view.read(|reader| {
            let rule = reader.rules.channel(ChannelId(channel)).expect("it is there");
            let nodes = reader.rules.group(group);
            let there = reader.available(rule, nodes, SkuId(1), |_, _| {})?;
            Ok(there.units + reader.later((bench.now, Millis(0)), rule, nodes, SkuId(1))?.units)
        });
        ((channel, group), read.expect("nobody writes").1)
    });
    told.collect()
}

fn check_readers(bench: &mut Bench) {
    for ((channel, group), read) in offers(bench) {
        let line = Line { sku: SkuId(1), node: NodeId::ANY, group, quantity: QUANTITY_MAX };
        let id = 1 << 90 | u128::from(bench.sequencer.last().0);
        let told = bench.reserve(id, channel, 1_000, &[line]);
        assert_eq!(told.reply.outcome.code, Code::InsufficientStock);
        let most = i64::from(told.parts[0].2);
        assert_eq!(read, most, "channel {channel} group {group}");
    }
}

#[test]
fn readers_are_told_what_a_reservation_would_get() {
    let mut bench = Bench::new(4);
    for (name, node, channel, units) in
        [("all", None, None, 40), ("c1", None, Some("c1"), 6), ("c2n0", Some("n0"), Some("c2"), 9)]
    {
        let rule = sku_rule(name, ("s1", ""), (node, None), channel, Effect::Preorder(units));
        assert_eq!(bench.define(rule), Code::Ok);
    }
    let mut dice = Dice::new(7);
    let (mut claimed, mut later) = (0, 0);
    for id in 1..600 {
        match pick(&mut dice, 8) {
            0 => bench.receive(1, pick(&mut dice, 3) as u16, 1 + pick(&mut dice, 5) as i64),
            1..4 => {
                let number = pick(&mut dice, 4);
                let (node, units) = (number as u16 % 3, pick(&mut dice, 12) as i64);
                let eta = bench.now.plus(pick(&mut dice, 5) * 1_000);
                assert_eq!(supply(&mut bench, node, number, units, eta), Code::Ok);
            }
            4 => {
                bench.now = bench.now.plus(pick(&mut dice, 2_000));
                promised(&mut bench);
            }
            _ => {
                let told =
                    bench.reserve(id, pick(&mut dice, 3) as u16, 9_000, &[any_line(1, 1 + id as u32 % 7)]);
                let granted = told.reply.outcome.code == Code::Ok;
                claimed += u32::from(granted);
                later += u32::from(granted && told.dates.iter().any(|at| at.0 > 0));
            }
        }
        check_readers(&mut bench);
        bench.journal.clear();
    }
    assert!(claimed > 60 && later > 20, "{claimed} claims, {later} of something to come");
}

#[test]
fn as_many_wait_as_may_and_all_are_promised_anew_at_once() {
    let mut bench = Bench::new(1);
    let rule = sku_rule("all", ("s1", ""), (None, None), None, Effect::Backorder(QUANTITY_MAX));
    assert_eq!(bench.define(rule), Code::Ok);
    let units = WAITING_PER_SKU_MAX as i64 + 10;
    assert_eq!(supply(&mut bench, 0, 1, units, day(10)), Code::Ok);
    for id in 1..=WAITING_PER_SKU_MAX as u128 {
        // A channel may be half of those who wait: that hides nothing from others.
        let channel = u16::from(id > WAITING_PER_CHANNEL_MAX as u128) * 2;
        if id == WAITING_PER_CHANNEL_MAX as u128 + 1 {
            let one_more = bench.reserve(1 << 79, 0, 600_000, &[any_line(1, 1)]);
            assert_eq!(one_more.reply.outcome.code, Code::TooManyWaiting);
            let told = offers(&mut bench);
            let of = |channel| told.iter().find(|told| told.0 == (channel, GroupId::ANY)).map(|told| told.1);
            let left = units - WAITING_PER_CHANNEL_MAX as i64;
            assert_eq!((of(0), of(2)), (Some(0), Some(left)));
        }
        assert_eq!(bench.reserve(id, channel, 600_000, &[any_line(1, 1)]).reply.outcome.code, Code::Ok);
        bench.journal.clear();
        bench.now = bench.now.plus(1);
    }
    for channel in [0, 1, 2] {
        let one_more = bench.reserve((1 << 80) + u128::from(channel), channel, 60_000, &[any_line(1, 1)]);
        let code = if channel == 1 { Code::InsufficientStock } else { Code::TooManyWaiting };
        assert_eq!(one_more.reply.outcome.code, code, "channel {channel}: one is not offered the node");
    }
    assert_eq!(supply(&mut bench, 0, 1, units, day(12)), Code::Ok);
    let started = std::time::Instant::now();
    let told = promised(&mut bench);
    println!("{} promises in {:?}", told.len(), started.elapsed());
    assert!(told.iter().all(|told| (told.1, told.2, told.3) == (Reason::Later, 1, 12)));
    assert_eq!(told.len(), WAITING_PER_SKU_MAX);
    receive(&mut bench, 0, 1, units);
    let started = std::time::Instant::now();
    let told = promised(&mut bench);
    println!("{} arrivals in {:?}", told.len(), started.elapsed());
    assert!(told.iter().all(|told| told.1 == Reason::Arrived));
    assert_eq!(bench.units(1, 0)[..2], [10, WAITING_PER_SKU_MAX as i64]);
}

#[test]
fn what_came_for_those_who_wait_is_theirs_whatever_else_is_to_come() {
    let mut bench = bench(1);
    // Another supply has units to come; what arrives of the first is still for who claims it.
    assert_eq!(supply(&mut bench, 0, 1, 10, day(10)), Code::Ok);
    assert_eq!(supply(&mut bench, 0, 2, 10, day(20)), Code::Ok);
    assert_eq!(claim(&mut bench, 1, 0, 10), (Code::Ok, vec![(0, 10, 10)]));
    receive(&mut bench, 0, 1, 10);
    assert_eq!(claim(&mut bench, 2, 0, 1).1, [(u16::MAX, 0, 0)], "nothing that is there");
    assert_eq!(promised(&mut bench), [(1, Reason::Arrived, 10, 0)]);
    assert_eq!(claim(&mut bench, 4, 0, 1).1, [(0, 1, 20)]);
    // Fewer come than were sent: those who wait are served first, the missing one is missing to others.
    assert_eq!(supply(&mut bench, 1, 3, 20, day(5)), Code::Ok);
    let told = bench.reserve(3, 0, 60_000, &[node_line(1, 1, 4)]);
    assert_eq!(dated(&told), [(1, 4, 5)]);
    receive(&mut bench, 1, 3, 19);
    check_readers(&mut bench);
    assert_eq!(promised(&mut bench), [(3, Reason::Arrived, 4, 0)]);
    assert_eq!(bench.units(1, 1)[..2], [15, 4]);
}

#[test]
fn a_supply_without_a_date_is_promised_to_nobody_and_a_late_one_keeps_its_own() {
    let mut bench = bench(1);
    assert_eq!(supply(&mut bench, 0, 1, 10, day(1)), Code::Ok);
    assert_eq!(claim(&mut bench, 1, 0, 4), (Code::Ok, vec![(0, 4, 1)]));
    assert_eq!(supply(&mut bench, 0, 9, 1, Millis(u64::MAX)), Code::InvalidEvent);
    assert_eq!(supply(&mut bench, 0, 1, 10, Millis(0)), Code::Ok);
    assert_eq!(promised(&mut bench), [(1, Reason::Lost, 4, 1_000)]);
    assert_eq!(claim(&mut bench, 2, 0, 1).0, Code::InsufficientStock);
    assert_eq!(supply(&mut bench, 0, 1, 10, day(2)), Code::Ok);
    assert_eq!(promised(&mut bench), [(1, Reason::Sooner, 4, 2)]);
    assert_eq!(bench.step(1, Verb::Confirm, 0).reply.outcome.code, Code::Ok);
    // Its day passes: who claims it goes on waiting for it, others wait for the next.
    bench.now = day(3);
    assert_eq!(supply(&mut bench, 0, 2, 10, day(20)), Code::Ok);
    assert_eq!(promised(&mut bench), []);
    assert_eq!(claim(&mut bench, 3, 0, 1), (Code::Ok, vec![(0, 1, 20)]));
    receive(&mut bench, 0, 1, 10);
    assert_eq!(promised(&mut bench), [(1, Reason::Arrived, 4, 0), (3, Reason::Arrived, 1, 0)]);
    assert_eq!(bench.units(1, 0)[..3], [5, 1, 4]);
}

#[test]
fn a_late_confirmation_takes_what_is_there_before_it_waits() {
    let mut bench = bench(1);
    bench.receive(1, 1, 4);
    // Channel 3 claims again what expired.
    assert_eq!(claim(&mut bench, 1, 3, 4), (Code::Ok, vec![(1, 4, 0)]));
    bench.now = bench.now.plus(60_000);
    bench.expire_due();
    assert_eq!(claim(&mut bench, 2, 0, 4), (Code::Ok, vec![(1, 4, 0)]));
    bench.receive(1, 2, 9);
    assert_eq!(supply(&mut bench, 1, 1, 4, day(30)), Code::Ok);
    let told = bench.step(1, Verb::Confirm, 0);
    assert!(told.reply.outcome.reacquired);
    assert_eq!(dated(&told), [(2, 4, 0)]);
    bench.assert_sound();
}

#[test]
fn a_line_waits_for_as_many_supplies_as_it_may_be_split_over() {
    let mut bench = bench(1);
    for number in 0..20 {
        assert_eq!(supply(&mut bench, 0, number, 1, day(1 + number)), Code::Ok);
    }
    assert_eq!(claim(&mut bench, 1, 0, 17).1, [(u16::MAX, LINE_SUPPLIES_MAX as u32, 0)]);
    check_readers(&mut bench);
    let policy = Policy { splits_max: 2, ..Policy::default() };
    assert_eq!(bench.define(channel_with("c0", policy)), Code::Ok);
    assert_eq!(claim(&mut bench, 2, 0, 3).1, [(u16::MAX, 2, 0)]);
    assert_eq!(claim(&mut bench, 3, 0, 2), (Code::Ok, vec![(0, 1, 1), (0, 1, 2)]));
}

#[test]
fn the_checkpoint_keeps_who_waits_when_something_is_said_of_others_only() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut bench = bench(1);
    let mut journal = FileJournal::open(&dir.path().join("journal.redb"), true).expect("opens");
    let snapshot = Snapshot::open(&dir.path().join("snapshot.redb")).expect("opens");
    let mut check = |bench: &mut Bench| {
        for (first, bytes) in bench.journal.drain(..) {
            let last = journal::decode(first, &bytes).expect("valid").last().expect("not empty");
            journal.append(Lsn(first.0 - 1), last, &bytes, Lsn(1)).expect("appended");
        }
        while fold(&snapshot, &*journal.reader()).expect("folds").1 {}
        let mut ledgers = [Ledger::new(ShardOf::ALL)];
        snapshot.load(&mut ledgers).expect("loads");
        assert_eq!(ledgers[0].state_hash().to_string(), bench.hash());
        assert_eq!(audit(&ledgers), Vec::<String>::new());
    };
    assert_eq!(supply(&mut bench, 0, 1, 10, day(10)), Code::Ok);
    assert_eq!(claim(&mut bench, 1, 0, 4).0, Code::Ok);
    assert_eq!(claim(&mut bench, 2, 0, 6).0, Code::Ok);
    check(&mut bench);
    // Of the two only the second is told anything.
    assert_eq!(supply(&mut bench, 0, 1, 8, day(10)), Code::Ok);
    for body in bench.due() {
        bench.send_body(body, &[]);
    }
    assert_eq!(waits(&bench, 2), [(0, 10, 4, 4), (0, 1_000, 2, 2)]);
    check(&mut bench);
    receive(&mut bench, 0, 1, 8);
    for body in bench.due() {
        bench.send_body(body, &[]);
    }
    check(&mut bench);
    bench.step(2, Verb::Release, 0);
    check(&mut bench);
    assert_eq!(waits(&bench, 1), []);
}

/// An event that frees so many units of sku 1 at node 0, of no supply that is claimed.
fn come(bench: &mut Bench, kind: EventKind, units: i64) {
    let mut event = bench.make(kind, 1, 0, units);
    if kind == EventKind::StatusChange {
        (event.from, event.to) = (Bucket::Quality, Bucket::Free);
    }
    assert_eq!(bench.event(event).reply.outcome.code, Code::Ok, "{kind:?}");
    bench.assert_sound();
}

#[test]
fn unannounced_units_serve_who_waits_the_oldest_first() {
    use EventKind::{Adjustment, Count, Receipt, Return, StatusChange};
    for (shards, kind) in [(1, Receipt), (4, Adjustment), (1, Count), (4, Return), (1, StatusChange)] {
        let mut bench = bench(shards);
        let mut checked = bench.make(Receipt, 1, 0, if kind == StatusChange { 15 } else { 0 });
        checked.to = Bucket::Quality;
        if checked.quantity > 0 {
            assert_eq!(bench.event(checked).reply.outcome.code, Code::Ok);
        }
        assert_eq!(supply(&mut bench, 0, 1, 20, day(10)), Code::Ok);
        for (id, units) in [(1, 6), (2, 3), (3, 4)] {
            assert_eq!(claim(&mut bench, id, 0, units), (Code::Ok, vec![(0, units, 10)]));
        }
        come(&mut bench, kind, 10);
        // Nobody gets in between, and no reader is shown them.
        assert_eq!(claim(&mut bench, 14, 1, 1).0, Code::InsufficientStock, "{kind:?}");
        let told = promised(&mut bench);
        let arrived = Reason::Arrived;
        assert_eq!(told, [(1, arrived, 6, 0), (2, arrived, 3, 0), (3, arrived, 1, 0)], "{kind:?}");
        assert_eq!(waits(&bench, 3), [(0, 10, 3, 3)]);
        // What they no longer wait for, others may: 20 come, 3 are claimed.
        assert_eq!(claim(&mut bench, 4, 0, 18).1, [(u16::MAX, 17, 0)]);
        // More than is wanted is everybody's.
        come(&mut bench, kind, 5 + if kind == Count { 10 } else { 0 });
        assert_eq!(promised(&mut bench), [(3, arrived, 3, 0)], "{kind:?}");
        assert_eq!(claim(&mut bench, 5, 0, 2), (Code::Ok, vec![(0, 2, 0)]), "{kind:?}");
    }
}

#[test]
fn a_supply_that_brings_more_than_is_claimed_of_it_serves_the_rest_of_who_waits() {
    let mut bench = bench(1);
    assert_eq!(supply(&mut bench, 0, 1, 4, day(10)), Code::Ok);
    assert_eq!(supply(&mut bench, 0, 2, 9, day(20)), Code::Ok);
    assert_eq!(claim(&mut bench, 1, 0, 4), (Code::Ok, vec![(0, 4, 10)]));
    assert_eq!(claim(&mut bench, 2, 0, 5), (Code::Ok, vec![(0, 5, 20)]));
    receive(&mut bench, 0, 1, 7);
    assert_eq!(promised(&mut bench), [(1, Reason::Arrived, 4, 0), (2, Reason::Arrived, 3, 0)]);
    assert_eq!(waits(&bench, 2), [(0, 20, 2, 2)]);
}

#[test]
fn a_channel_may_leave_unannounced_units_to_all_and_a_desk_assigns_them() {
    for shards in [1, 4] {
        let mut bench = bench(shards);
        let policy = Policy { unannounced: Unannounced::All, ..Policy::default() };
        assert_eq!(bench.define(channel_with("c0", policy)), Code::Ok);
        assert_eq!(supply(&mut bench, 0, 1, 20, day(10)), Code::Ok);
        for (id, channel, units) in [(1, 0, 6), (2, 2, 3)] {
            assert_eq!(claim(&mut bench, id, channel, units), (Code::Ok, vec![(0, units, 10)]));
        }
        come(&mut bench, EventKind::Receipt, 10);
        // The younger wants them, the older does not: 7 are left for all.
        assert_eq!(promised(&mut bench), [(2, Reason::Arrived, 3, 0)]);
        assert_eq!(waits(&bench, 1), [(0, 10, 6, 6)]);
        assert_eq!(claim(&mut bench, 3, 0, 2), (Code::Ok, vec![(0, 2, 0)]));
        // A desk gives the order what there is: a move to where it is.
        let stay = |bench: &mut Bench, id, quantity| {
            let line = StepLine { sku: SkuId(1), node: NodeId(0), to_node: NodeId(0), quantity };
            let code = bench.step_lines(id, Verb::Move, &[line]).reply.outcome.code;
            bench.assert_sound();
            code
        };
        assert_eq!(stay(&mut bench, 1, 6), Code::InsufficientStock);
        assert_eq!(stay(&mut bench, 1, 4), Code::Ok);
        assert_eq!(waits(&bench, 1), [(0, 10, 2, 2)]);
        assert_eq!(stay(&mut bench, 1, 3), Code::InsufficientClaim, "two wait");
        assert_eq!(stay(&mut bench, 3, 1), Code::InsufficientClaim, "what is there stays where it is");
        assert_eq!(bench.units(1, 0)[..2], [1, 9]);
        // What its supply brings is its own all the same.
        receive(&mut bench, 0, 1, 20);
        assert_eq!(promised(&mut bench), [(1, Reason::Arrived, 2, 0)]);
    }
}

#[test]
fn what_a_node_ships_to_who_waits_is_a_fact() {
    for shards in [1, 4] {
        let mut bench = bench(shards);
        assert_eq!(supply(&mut bench, 0, 1, 20, day(10)), Code::Ok);
        assert_eq!(claim(&mut bench, 1, 0, 6), (Code::Ok, vec![(0, 6, 10)]));
        bench.step(1, Verb::Confirm, 0);
        let policy = Policy { unannounced: Unannounced::All, ..Policy::default() };
        assert_eq!(bench.define(channel_with("c0", policy)), Code::Ok);
        let give = |bench: &mut Bench, kind, units| {
            let mut event = bench.make(kind, 1, 0, units);
            event.reservation = Some(ReservationId(1));
            let code = bench.event(event).reply.outcome.code;
            bench.assert_sound();
            code
        };
        assert_eq!(give(&mut bench, EventKind::Ship, 1), Code::InsufficientOnHand, "nothing is there");
        come(&mut bench, EventKind::Receipt, 5);
        promised(&mut bench);
        // Somebody else claims 4 of the 5; the node gives the order 2 of them, then 3.
        let told = bench.reserve(3, 0, 60_000, &[node_line(1, 0, 4)]);
        assert_eq!(told.reply.outcome.code, Code::Ok);
        assert_eq!(give(&mut bench, EventKind::Pick, 2), Code::Ok);
        assert_eq!(give(&mut bench, EventKind::Ship, 7), Code::InsufficientClaim);
        assert_eq!(give(&mut bench, EventKind::Ship, 5), Code::Ok);
        assert_eq!(waits(&bench, 1), [(0, 10, 1, 0)]);
        // A shortage that everybody sees: nothing is there, 4 are held.
        assert_eq!(bench.units(1, 0)[..4], [-4, 4, 0, 0]);
        assert_eq!(give(&mut bench, EventKind::Ship, 1), Code::InsufficientOnHand);
        // The supply has 19 that nobody waits for.
        assert_eq!(claim(&mut bench, 4, 0, 19), (Code::Ok, vec![(0, 19, 10)]));
        assert_eq!(bench.step(1, Verb::Fulfil, 1).reply.outcome.code, Code::Backordered);
        receive(&mut bench, 0, 1, 20);
        promised(&mut bench);
        assert_eq!(give(&mut bench, EventKind::Ship, 1), Code::Ok);
        assert_eq!(bench.step(1, Verb::Fulfil, 0).reply.outcome.state, State::Fulfilled);
    }
}

#[test]
fn a_promise_stays_where_what_came_serves_nobody_and_what_was_given_out_is_not_owed() {
    let mut bench = bench(1);
    for (channel, priority) in [("c0", 5), ("c2", 1)] {
        let policy = Policy { priority, unannounced: Unannounced::All, ..Policy::default() };
        assert_eq!(bench.define(channel_with(channel, policy)), Code::Ok);
    }
    assert_eq!(supply(&mut bench, 0, 1, 4, day(10)), Code::Ok);
    assert_eq!(supply(&mut bench, 0, 2, 9, day(20)), Code::Ok);
    assert_eq!(claim(&mut bench, 1, 0, 4), (Code::Ok, vec![(0, 4, 10)]));
    assert_eq!(claim(&mut bench, 2, 2, 4), (Code::Ok, vec![(0, 4, 20)]));
    // The better priority takes nobody's promise away, whatever comes for neither.
    come(&mut bench, EventKind::Return, 1);
    assert_eq!(promised(&mut bench), []);
    assert_eq!(claim(&mut bench, 3, 0, 1), (Code::Ok, vec![(0, 1, 0)]));
    // 4 come of the first supply and go to who waits for it: nothing is owed behind that.
    bench.step(1, Verb::Confirm, 0);
    receive(&mut bench, 0, 1, 4);
    let mut ship = bench.make(EventKind::Ship, 1, 0, 4);
    ship.reservation = Some(ReservationId(1));
    assert_eq!(bench.event(ship).reply.outcome.code, Code::Ok);
    assert_eq!(promised(&mut bench), []);
    bench.step(3, Verb::Release, 0);
    assert_eq!(claim(&mut bench, 4, 2, 1), (Code::Ok, vec![(0, 1, 0)]));
}
