//! Rules by sku: which one speaks, what it withholds and allocates, and that a sku without any costs nothing.

use stockline_core::bucket::Place;
use stockline_core::catalogue::{Amount, Definition, Effect, Policy, When};
use stockline_core::command::{Action, Allocate, Body, Command, Frame, Verb};
use stockline_core::event::EventKind;
use stockline_core::id::{ChannelId, Key, Lsn, Millis, NodeId, SkuId};
use stockline_core::limit;
use stockline_core::outcome::Code;
use stockline_core::view::View;

use crate::bench::{Bench, START, WHO, allocate, any_line, channel_with, node_line, sku_rule};

/// The most units of a sku that a channel is granted at a node.
fn most(bench: &mut Bench, channel: u16, sku: u32, node: u16) -> u32 {
    let line = node_line(sku, node, limit::QUANTITY_MAX);
    let told = bench.reserve(1 << 90 | bench.sequencer.last().0 as u128, channel, 1_000, &[line]);
    assert_eq!(told.reply.outcome.code, Code::InsufficientStock);
    told.parts[0].2
}

fn safety(name: &str, skus: (&str, &str), place: (Option<&str>, Option<&str>), units: u32) -> Definition {
    sku_rule(name, skus, place, None, Effect::Safety(units))
}

#[test]
fn the_most_specific_rule_speaks() {
    let mut bench = Bench::new(4);
    for sku in 0..10 {
        bench.receive(sku, 0, 100);
        bench.receive(sku, 1, 100);
    }
    let data = Definition::SkuData { name: "s4".into(), category: "garden".into(), substitutes: Vec::new() };
    assert_eq!(bench.define(data), Code::Ok);
    let everywhere = (None, None);
    // Each rule, and then what is left of s4 at nodes 0 and 1 for channel 0, for channel 2 less its buffer, and of s5.
    for (rule, left) in [
        (safety("a", ("*", ""), everywhere, 10), [90, 90, 90, 90]),
        (safety("b", ("s*", ""), everywhere, 9), [91, 91, 91, 91]),
        (safety("c", ("s*", "garden"), everywhere, 8), [92, 92, 92, 91]),
        (safety("d", ("s4", ""), everywhere, 7), [93, 93, 93, 91]),
        (safety("e", ("s4", "garden"), everywhere, 6), [94, 94, 94, 91]),
        (safety("f", ("s4", "garden"), (None, Some("g0")), 5), [94, 95, 94, 91]),
        (safety("g", ("s4", "garden"), (Some("n0"), None), 4), [96, 95, 96, 91]),
        (sku_rule("h", ("s4", "garden"), everywhere, Some("c2"), Effect::Safety(50)), [96, 95, 96, 91]),
        (
            sku_rule("i", ("s4", "garden"), (Some("n0"), None), Some("c2"), Effect::Safety(3)),
            [96, 95, 97, 91],
        ),
        // A younger rule for the same, then both given up.
        (safety("k", ("s4", "garden"), (Some("n0"), None), 20), [80, 95, 97, 91]),
        (sku_rule("k", ("s4", "garden"), (Some("n0"), None), None, Effect::None), [96, 95, 97, 91]),
        // A rule that is changed to hold for another sku no longer holds for this one.
        (safety("g", ("s9", ""), everywhere, 1), [94, 95, 97, 91]),
        (safety("f", ("s4", "garden"), (Some("n1"), None), 2), [94, 98, 97, 91]),
    ] {
        let name = rule.name().to_owned();
        assert_eq!(bench.define(rule), Code::Ok);
        let found = [(0, 4, 0), (0, 4, 1), (2, 4, 0), (0, 5, 0)]
            .map(|(channel, sku, node)| most(&mut bench, channel, sku, node));
        assert_eq!(found, left, "rule {name}");
    }
    // A group that gets other nodes, a sku that gets another category, a new sku.
    assert_eq!(bench.define(safety("f", ("s4", "garden"), (None, Some("g0")), 5)), Code::Ok);
    let group = Definition::Group { name: "g0".into(), nodes: vec!["n0".into()] };
    assert_eq!(bench.define(group), Code::Ok);
    assert_eq!([0, 1].map(|node| most(&mut bench, 0, 4, node)), [95, 94]);
    let data = Definition::SkuData { name: "s4".into(), category: String::new(), substitutes: Vec::new() };
    assert_eq!(bench.define(data), Code::Ok);
    assert_eq!([0, 1].map(|node| most(&mut bench, 0, 4, node)), [93, 93]);
    assert_eq!(bench.define(Definition::Sku { name: "sx".into() }), Code::Ok);
    bench.receive(10, 0, 100);
    assert_eq!(most(&mut bench, 0, 10, 0), 91);
    let mut again = stockline_core::catalogue::Catalogue::default();
    for sku in (0..10).map(|sku| format!("s{sku}")).chain(["sx".to_owned()]) {
        again.define(&Definition::Sku { name: sku }).expect("a new name");
    }
    again.load(&bench.sequencer.catalogue.definitions()).expect("they were good before");
    let (rules, other) = (bench.sequencer.catalogue.rules(), again.rules());
    for (sku, node, channel) in (0..11).flat_map(|sku| (0..6).map(move |at| (sku, at / 2, at % 2 * 2))) {
        let withheld = |rules: &stockline_core::catalogue::Rules| {
            let profile = rules.skus.profile(SkuId(sku)).expect("every sku has a rule");
            rules.skus.withheld(profile, NodeId(node), ChannelId(channel))
        };
        assert_eq!(withheld(&rules), withheld(&other), "sku {sku} node {node} channel {channel}");
    }
}

#[test]
fn every_refusal_of_a_definition() {
    let mut bench = Bench::new(1);
    let all = ("*", "");
    let rule = |skus, place, channel, effect| sku_rule("r", skus, place, channel, effect);
    let percent = |percent| allocate(Amount::Percent(percent), When::Always);
    for (definition, code) in [
        (rule(("", ""), (None, None), None, Effect::None), Code::InvalidName),
        (rule((" *", ""), (None, None), None, Effect::None), Code::InvalidName),
        (rule(("*", " "), (None, None), None, Effect::None), Code::InvalidName),
        (rule(all, (Some("n9"), None), None, Effect::None), Code::UnknownNode),
        (rule(all, (None, Some("g9")), None, Effect::None), Code::UnknownGroup),
        (rule(all, (None, None), Some("c9"), Effect::None), Code::UnknownChannel),
        (rule(all, (Some("n0"), Some("g0")), None, Effect::None), Code::InvalidRule),
        (rule(all, (None, None), None, percent(1)), Code::InvalidRule),
        (rule(all, (None, None), Some("c0"), percent(101)), Code::InvalidRule),
        (rule(all, (None, None), None, Effect::Safety(limit::QUANTITY_MAX + 1)), Code::InvalidRule),
        (rule(all, (None, None), Some("c0"), percent(100)), Code::Ok),
        (
            Definition::SkuData { name: "s99".into(), category: String::new(), substitutes: Vec::new() },
            Code::UnknownSku,
        ),
        (
            Definition::SkuData { name: "s1".into(), category: "\n".into(), substitutes: Vec::new() },
            Code::InvalidName,
        ),
    ] {
        assert_eq!(bench.define(definition.clone()), code, "{definition:?}");
    }
}

#[test]
fn a_rule_takes_effect_at_one_lsn_and_the_state_follows_it_again() {
    let mut bench = Bench::new(1);
    bench.receive(1, 0, 10);
    assert_eq!(bench.reserve(1, 0, 60_000, &[any_line(1, 4)]).reply.outcome.code, Code::Ok);
    assert_eq!(bench.define(safety("r", ("s1", ""), (None, None), 5)), Code::Ok);
    assert_eq!(bench.reserve(2, 0, 60_000, &[any_line(1, 2)]).reply.outcome.code, Code::InsufficientStock);
    assert_eq!(bench.reserve(3, 0, 60_000, &[any_line(1, 1)]).reply.outcome.code, Code::Ok);
    // What is claimed stays claimed; a warehouse takes what is there.
    bench.step(1, Verb::Confirm, 0);
    let ship = bench.make(EventKind::Ship, 1, 0, 5);
    assert_eq!(bench.event(ship).reply.outcome.code, Code::Ok);
    assert_eq!(bench.units(1, 0)[..3], [0, 1, 4]);
}

#[test]
fn what_a_receipt_brings_is_shared_out() {
    let mut bench = Bench::new(1);
    let receipt = |amount| allocate(amount, When::Receipt);
    let everywhere = (None, None);
    for rule in [
        sku_rule("a", ("s1", ""), everywhere, Some("c0"), receipt(Amount::Percent(30))),
        sku_rule("b", ("s1", ""), (Some("n0"), None), Some("c2"), receipt(Amount::Units(5))),
        sku_rule("c", ("*", ""), everywhere, Some("c2"), receipt(Amount::Percent(90))),
    ] {
        assert_eq!(bench.define(rule), Code::Ok);
    }
    // Fixed amounts first, up to what they say; then percentages of what came, rounded down.
    for (node, came, free, shares) in [
        (0, 4, 0, [(0, 0), (2, 4)]),
        (0, 10, 6, [(0, 3), (2, 5)]),
        (0, 9, 13, [(0, 5), (2, 5)]),
        (1, 10, 0, [(0, 3), (2, 7)]),
    ] {
        bench.receive(1, node, came);
        assert_eq!(bench.units(1, node)[0], free, "{came} at node {node}");
        for (channel, units) in shares {
            let found = bench.allocations(1).into_iter().find(|share| (share.0, share.1) == (channel, node));
            assert_eq!(found.map_or(0, |share| share.2), units, "channel {channel}: {came} at node {node}");
        }
        bench.assert_sound();
    }
    // What fills a shortage is not shared out.
    let loss = bench.make(EventKind::Adjustment, 2, 0, 0);
    bench.receive(2, 0, 10);
    bench.reserve(5, 2, 60_000, &[node_line(2, 0, 9)]);
    bench.event(stockline_core::event::StockEvent { quantity: -8, ..loss });
    assert_eq!(bench.all_units(2, 0), [-7, 9, 0, 0, 0, 0, 0, 0, 0, 0]);
    bench.receive(2, 0, 10);
    assert_eq!(bench.all_units(2, 0), [0, 9, 0, 0, 0, 0, 0, 0, 0, 3]);
    bench.assert_sound();
}

#[test]
fn allocations_keep_themselves_and_never_break_a_claim() {
    for shards in [1, 4] {
        let mut bench = Bench::new(shards);
        bench.receive(1, 0, 10);
        let always = |amount| allocate(amount, When::Always);
        let everywhere = (None, None);
        let rule = sku_rule("a", ("s1", ""), everywhere, Some("c0"), always(Amount::Units(4)));
        assert_eq!(bench.define(rule), Code::Ok);
        assert_eq!(bench.expire_due(), 1, "a new rule is brought about");
        let rule = sku_rule("b", ("s1", ""), everywhere, Some("c2"), always(Amount::Percent(50)));
        assert_eq!(bench.define(rule), Code::Ok);
        let settle = |bench: &mut Bench| {
            // A hold that ends is one command, what follows from it the next; then all is where it belongs.
            let rounds = (0..3).take_while(|_| bench.expire_due() > 0).count();
            assert!(rounds < 3, "it goes on and on");
            bench.assert_sound();
            let units = bench.all_units(1, 0);
            let shares = bench.allocations(1);
            let of = |channel| shares.iter().find(|share| share.0 == channel).map_or(0, |share| share.2);
            (units[0], units[1], of(0), of(2))
        };
        assert_eq!(settle(&mut bench), (1, 0, 4, 5));
        // Channel 0 takes its own 4 and what is free; what is left is shared out anew, the claim stays.
        bench.reserve(1, 0, 1_000, &[any_line(1, 5)]);
        assert_eq!(settle(&mut bench), (0, 5, 4, 1));
        bench.receive(1, 0, 5);
        assert_eq!(settle(&mut bench), (1, 5, 4, 5));
        // Units of a channel that is not in a rule are nobody else's.
        let sku = SkuId(1);
        let (channel, to_channel, node) = (ChannelId(3), ChannelId::SHARED, NodeId(0));
        let by_hand = Allocate { action: Action::Allocate, channel, to_channel, sku, node, quantity: 1 };
        bench.send_body(Body::Allocate(by_hand), &[]);
        assert_eq!(settle(&mut bench), (1, 5, 4, 4));
        // A count below the claims: all but those are given up.
        let count = bench.make(EventKind::Count, 1, 0, 7);
        bench.event(count);
        assert_eq!(settle(&mut bench), (0, 5, 1, 0));
        bench.now = bench.now.plus(1_000);
        // The hold ends: its units go to the pool they came from, and are shared out.
        assert_eq!(settle(&mut bench), (0, 0, 4, 2));
        assert_eq!(bench.define(sku_rule("a", ("s1", ""), everywhere, None, Effect::None)), Code::Ok);
        // What was allocated stays where no rule speaks any more; of the other 2 half is kept.
        assert_eq!(settle(&mut bench), (1, 0, 4, 1));
    }
}

#[test]
fn a_schedule_brings_allocations_about_in_its_minutes_and_leaves_them_alone_between() {
    const MINUTE: u64 = limit::MINUTE_MS;
    for shards in [1, 4] {
        let mut bench = Bench::new(shards);
        // The first second of a minute whose number is a multiple of 5, and 1 more.
        bench.now = Millis(bench.now.0 / (5 * MINUTE) * 5 * MINUTE + 6 * MINUTE);
        let nobody = Effect::Allocate { amount: Amount::Percent(50), when: When::Every(0) };
        let rule = |effect| sku_rule("a", ("s*", ""), (None, None), Some("c0"), effect);
        assert_eq!(bench.define(rule(nobody)), Code::InvalidRule);
        let half = allocate(Amount::Percent(50), When::Every(5));
        assert_eq!(bench.define(rule(half)), Code::Ok);
        for sku in 1..4 {
            bench.receive(sku, 0, 10);
        }
        bench.reserve(1, 0, 10 * 60_000, &[any_line(1, 4)]);
        let shares = |bench: &Bench| {
            [1, 2, 3].map(|sku| bench.allocations(sku).iter().map(|share| share.2).sum::<i64>())
        };
        assert_eq!(bench.due(), Vec::new(), "between its minutes");
        assert_eq!(shares(&bench), [0; 3]);
        // It begins though nobody sends anything, and looks at every sku.
        bench.now = bench.now.plus(4 * MINUTE);
        assert!(bench.ledgers.iter().any(|ledger| ledger.next_due() <= Some(bench.now)));
        assert_eq!(bench.expire_due(), 3);
        assert_eq!(shares(&bench), [3, 5, 5]);
        assert_eq!(bench.expire_due(), 0);
        // Within the minute it follows what happens; behind it no more, and what is allocated stays.
        bench.receive(2, 0, 10);
        assert_eq!(bench.expire_due(), 1);
        assert_eq!(shares(&bench), [3, 10, 5]);
        bench.now = bench.now.plus(MINUTE);
        bench.receive(2, 0, 10);
        assert_eq!(bench.expire_due(), 0);
        assert_eq!(shares(&bench), [3, 10, 5]);
        bench.now = bench.now.plus(4 * MINUTE);
        assert_eq!(bench.expire_due(), 1);
        assert_eq!(shares(&bench), [3, 15, 5]);
        bench.assert_sound();
    }
}

#[test]
fn readers_are_told_what_is_left_and_each_only_its_own() {
    let mut bench = Bench::new(1);
    let rules = [
        safety("a", ("s1", ""), (None, None), 3),
        sku_rule("b", ("s1", ""), (Some("n1"), None), Some("c2"), Effect::Safety(9)),
    ];
    rules.into_iter().for_each(|rule| assert_eq!(bench.define(rule), Code::Ok));
    let (view, mut publisher) = View::new(bench.sequencer.catalogue.rules());
    let place = |node, pool| Place { sku: SkuId(1), node: NodeId(node), pool };
    // 10 free at node 0, 4 of channel 0 there; a shortage at node 1, where 5 of channel 0's 7 are there.
    for (node, pool, offer) in [
        (0, ChannelId::SHARED, 10),
        (0, ChannelId(0), 4),
        (1, ChannelId::SHARED, -1 - 5),
        (1, ChannelId(0), 7),
        (2, ChannelId::SHARED, 2),
        (2, ChannelId(3), 1),
    ] {
        publisher.store(place(node, pool), offer, Lsn(1));
    }
    publisher.raise(Lsn(1));
    // Channel 1 is part of 0 and is offered nodes 1 and 2; channel 3 is part of 1; channel 2 has a buffer of 5.
    for (channel, units, nodes) in [
        (0, 7 + 4 + 5, vec![(0, 11), (1, 5)]),
        (1, 5, vec![(1, 5)]),
        (2, 2, vec![(0, 7)]),
        (3, 7 + 4 + 5 + 1, vec![(0, 11), (1, 5), (2, 1)]),
    ] {
        let mut listed = Vec::new();
        let read = view.read(|reader| {
            listed.clear();
            let rule = reader.rules.channel(ChannelId(channel)).expect("it is there");
            reader.available(rule, None, SkuId(1), |node, units| listed.push((node.0, units)))
        });
        listed.sort_unstable();
        assert_eq!((read.expect("nobody writes").1.units, listed), (units, nodes), "channel {channel}");
    }
}

#[test]
fn many_patterns_are_looked_up_together_and_skus_come_before_and_after() {
    let mut bench = Bench::new(1);
    let sku = |name: &str| Definition::Sku { name: name.into() };
    let define = |definition| {
        let body = Body::Define(Box::new(definition));
        Command { key: Key(0), issued_at: START, digest: 0, body }
    };
    let names = ["ab", "abc", "abd", "b", "a*", "zz"];
    let mut commands: Vec<Command> = names[..4].iter().map(|name| define(sku(name))).collect();
    for (rule, (skus, units)) in
        [("ab*", 1), ("abc*", 2), ("a*", 3), ("abd", 4), ("zz*", 5)].into_iter().enumerate()
    {
        commands.push(define(safety(&format!("p{rule}"), (skus, ""), (None, None), units)));
    }
    commands.extend(names[4..].iter().map(|name| define(sku(name))));
    let frame = Frame { tag: (), principal: WHO, commands, lines: vec![] };
    let told = bench.send_frames(vec![frame]).remove(0);
    assert!(told.replies.iter().all(|reply| reply.outcome.code == Code::Ok));
    let rules = bench.sequencer.catalogue.rules();
    let withheld = (10..16).map(|sku| {
        let profile = rules.skus.profile(SkuId(sku));
        profile.map_or(0, |profile| rules.skus.withheld(profile, NodeId(0), ChannelId(0)))
    });
    assert_eq!(withheld.collect::<Vec<_>>(), [1, 2, 4, 0, 3, 5], "{names:?}");
}

#[test]
fn a_cap_bounds_what_a_channel_claims_at_once() {
    let mut bench = Bench::new(1);
    bench.receive(1, 0, 10);
    bench.receive(2, 0, 10);
    let policy = Policy { cap: 3, ..Policy::default() };
    assert_eq!(bench.define(channel_with("c0", policy)), Code::Ok);
    for (lines, code, parts) in [
        (vec![any_line(1, 4)], Code::InsufficientStock, vec![(1, u16::MAX, 3)]),
        (vec![any_line(1, 2), any_line(1, 2)], Code::InsufficientStock, vec![(1, u16::MAX, 1)]),
        (vec![any_line(1, 3), any_line(2, 3)], Code::Ok, vec![(1, 0, 3), (2, 0, 3)]),
        (vec![any_line(1, 3)], Code::Ok, vec![(1, 0, 3)]),
    ] {
        let id = u128::from(bench.sequencer.last().0) + 100;
        let told = bench.reserve(id, 0, 60_000, &lines);
        assert_eq!((told.reply.outcome.code, told.parts), (code, parts), "{lines:?}");
    }
}

#[test]
fn a_rule_keeps_nothing_where_its_channel_is_not_offered_the_node() {
    let mut bench = Bench::new(1);
    // Channel 1 is offered nodes 1 and 2 only.
    for (name, sku, when) in [("always", "s1", When::Always), ("receipt", "s2", When::Receipt)] {
        let keep = allocate(Amount::Units(10), when);
        assert_eq!(bench.define(sku_rule(name, (sku, ""), (None, None), Some("c1"), keep)), Code::Ok);
    }
    for (sku, node) in [(1, 0), (1, 2), (2, 0), (2, 2)] {
        bench.receive(sku, node, 30);
    }
    bench.expire_due();
    assert_eq!(bench.allocations(1), [(1, 2, 10)]);
    assert_eq!(bench.allocations(2), [(1, 2, 10)]);
    // What it has where it is offered no longer is given back.
    assert_eq!(bench.define(Definition::Group { name: "g0".into(), nodes: vec!["n1".into()] }), Code::Ok);
    bench.expire_due();
    assert_eq!(bench.allocations(1), []);
    bench.assert_sound();
}

#[test]
fn a_balance_of_more_than_one_movement_may_carry_is_done_whole() {
    let mut bench = Bench::new(1);
    for _ in 0..3 {
        bench.receive(1, 0, i64::from(limit::QUANTITY_MAX));
    }
    let all = allocate(Amount::Percent(100), When::Always);
    assert_eq!(bench.define(sku_rule("all", ("s1", ""), (None, None), Some("c0"), all)), Code::Ok);
    bench.expire_due();
    assert_eq!(bench.allocations(1), [(0, 0, 3 * i64::from(limit::QUANTITY_MAX))]);
    bench.assert_sound();
}

#[test]
fn a_pattern_that_is_given_up_leaves_nothing_and_another_takes_its_place() {
    let mut bench = Bench::new(1);
    (0..10).for_each(|sku| bench.receive(sku, 0, 100));
    let mut dice = stockline_loadgen::dice::Dice::new(5);
    let patterns = ["*", "s*", "s1*", "s1", "s2", "s3*", "x*", "s9"];
    let mut rules: Vec<(usize, u32)> = Vec::new();
    for round in 0..400 {
        let (at, pattern, units) =
            (dice.roll() as usize % 4, dice.roll() as usize % patterns.len(), 1 + dice.roll() as u32 % 50);
        if at < rules.len() {
            rules[at] = (pattern, units);
        } else {
            rules.push((pattern, units));
        }
        let at = at.min(rules.len() - 1);
        let rule = safety(&format!("r{at}"), (patterns[pattern], ""), (None, None), units);
        assert_eq!(bench.define(rule), Code::Ok);
        let compiled = bench.sequencer.catalogue.rules();
        for sku in 0..10 {
            let name = format!("s{sku}");
            let matching = rules.iter().filter(|(pattern, _)| match patterns[*pattern].strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => name == patterns[*pattern],
            });
            // The most specific; of one pattern the younger rule.
            let due = matching.enumerate().max_by_key(|(age, (pattern, _))| {
                let pattern = patterns[*pattern];
                (!pattern.ends_with('*'), pattern.len(), *age)
            });
            let due = due.map_or(0, |(_, (_, units))| i64::from(*units));
            assert_eq!(compiled.withheld(SkuId(sku), NodeId(0), ChannelId(0)), due, "round {round}: {name}");
        }
    }
}
