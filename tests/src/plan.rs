//! Orders planned as a whole: few nodes for all lines, substitutes of skus, nodes that do not ship today. Each on one
//! shard and on four, where the lines of an order lie in different ones.

use stockline_core::catalogue::{Day, Definition, Policy, Strategy};
use stockline_core::command::{Body, Command, Fill, Frame, Line, Read, Reserve, Verb};
use stockline_core::id::{ChannelId, GroupId, Key, Millis, NodeId, ReservationId, ZoneId};
use stockline_core::ledger::Why;
use stockline_core::outcome::Code;

use crate::bench::{Bench, START, WHO, any_line, channel_with, node_line};

const ANY: u16 = u16::MAX;

/// A bench with such a channel 0 and units of skus at nodes.
fn bench(shards: u32, policy: Policy, units: &[(u32, u16, i64)]) -> Bench {
    let mut bench = Bench::new(shards);
    units.iter().for_each(|(sku, node, units)| bench.receive(*sku, *node, *units));
    assert_eq!(bench.define(channel_with("c0", policy)), Code::Ok);
    bench
}

fn sku(name: &str, substitutes: &[&str]) -> Definition {
    let substitutes = substitutes.iter().map(|sku| (*sku).to_owned()).collect();
    Definition::SkuData { name: name.into(), category: String::new(), substitutes }
}

fn node_of(name: &str, priority: u16, day: Day) -> Definition {
    let mut definition = Definition::node(name, priority);
    if let Definition::Node { day: of, .. } = &mut definition {
        *of = day;
    }
    definition
}

fn ask(bench: &mut Bench, fill: Fill, lines: &[Line]) -> (Code, Vec<(u32, u16, u32)>) {
    let id = u128::from(bench.sequencer.last().0) + (1 << 70);
    let told = bench.reserve_filled(fill, id, (0, 1_000), lines);
    bench.assert_sound();
    (told.reply.outcome.code, told.parts)
}

/// The same, and all of it given back.
fn try_out(bench: &mut Bench, fill: Fill, lines: &[Line]) -> (Code, Vec<(u32, u16, u32)>) {
    let told = ask(bench, fill, lines);
    bench.now = bench.now.plus(1_000);
    bench.expire_due();
    told
}

#[test]
fn the_lines_of_an_order_come_from_as_few_nodes_as_can_be_found() {
    let few = Policy { strategy: Strategy::FewestSplits, ..Policy::default() };
    // By priority line 1 would come from node 0, line 2 from node 1, line 3 from node 0.
    let units =
        [(1, 0, 5), (1, 2, 5), (2, 1, 5), (2, 2, 5), (3, 0, 5), (3, 2, 5), (5, 1, 3), (5, 2, 3), (6, 0, 9)];
    let in_group = |sku, quantity| Line { group: GroupId(0), ..any_line(sku, quantity) };
    for shards in [1, 4] {
        let mut bench = bench(shards, few, &units);
        for (lines, due) in [
            // One node has all.
            (vec![any_line(1, 2), any_line(2, 2), any_line(3, 2)], vec![(1, 2, 2), (2, 2, 2), (3, 2, 2)]),
            // One line alone goes by priority.
            (vec![any_line(1, 2)], vec![(1, 0, 2)]),
            // Two nodes have as many of them: the better priority.
            (vec![any_line(1, 2), any_line(3, 2)], vec![(1, 0, 2), (3, 0, 2)]),
            // What a line names is opened anyway.
            (vec![any_line(1, 2), any_line(3, 2), node_line(2, 2, 1)], vec![(1, 2, 2), (2, 2, 1), (3, 2, 2)]),
            // Node 0 has most of them, as many as node 2; what it has not comes from elsewhere, split if need be.
            (
                vec![any_line(1, 2), any_line(2, 2), any_line(6, 2), any_line(5, 6)],
                vec![(1, 0, 2), (2, 1, 2), (5, 1, 3), (5, 2, 3), (6, 0, 2)],
            ),
            // Where a line may go, it goes.
            (vec![in_group(2, 2), in_group(1, 2), any_line(6, 1)], vec![(1, 2, 2), (2, 2, 2), (6, 0, 1)]),
            // The same sku twice: each line is there alone, both together are not, and the second goes on.
            (vec![any_line(1, 4), any_line(1, 4), any_line(3, 1)], vec![(1, 0, 4), (1, 2, 4), (3, 2, 1)]),
        ] {
            assert_eq!(try_out(&mut bench, Fill::All, &lines), (Code::Ok, due), "{lines:?} on {shards}");
        }
        let short = try_out(&mut bench, Fill::All, &[any_line(1, 11), any_line(3, 2)]);
        assert_eq!(short, (Code::InsufficientStock, vec![(1, ANY, 10)]));
        let part = try_out(&mut bench, Fill::Partial, &[any_line(1, 11), any_line(3, 2)]);
        assert_eq!(part, (Code::Ok, vec![(1, 0, 5), (1, 2, 5), (3, 0, 2), (1, ANY, 10)]));
    }
}

#[test]
fn a_line_is_served_with_the_first_substitute_that_is_there_whole() {
    let policy = Policy { substitutes: true, ..Policy::default() };
    let units = [(1, 0, 4), (2, 0, 3), (2, 1, 3), (3, 2, 9), (4, 0, 1)];
    for shards in [1, 4] {
        let mut bench = bench(shards, policy, &units);
        for (definition, code) in [
            (sku("s1", &["s1"]), Code::InvalidRule),
            (sku("s1", &["s99"]), Code::UnknownSku),
            (sku("s1", &["s2"; 9]), Code::InvalidRule),
            (sku("s1", &["s2", "s3"]), Code::Ok),
            (sku("s2", &["s3"]), Code::Ok),
        ] {
            assert_eq!(bench.define(definition), code);
        }
        let short = |parts| (Code::InsufficientStock, parts);
        for (fill, lines, due) in [
            (Fill::All, vec![any_line(1, 4)], (Code::Ok, vec![(1, 0, 4)])),
            (Fill::All, vec![any_line(1, 5)], (Code::Ok, vec![(2, 0, 3), (2, 1, 2)])),
            (Fill::All, vec![any_line(1, 7)], (Code::Ok, vec![(3, 2, 7)])),
            // None has it whole: the shortage is told of what was asked for.
            (Fill::All, vec![any_line(1, 10)], short(vec![(1, ANY, 4)])),
            (Fill::Partial, vec![any_line(1, 10)], (Code::Ok, vec![(1, 0, 4), (1, ANY, 4)])),
            (Fill::Partial, vec![any_line(1, 6)], (Code::Ok, vec![(2, 0, 3), (2, 1, 3)])),
            // Substitutes are not followed further: nothing for sku 4, and sku 3 has none of its own.
            (Fill::All, vec![any_line(4, 2)], short(vec![(4, ANY, 1)])),
            // At the node that is named, and of the group.
            (Fill::All, vec![node_line(1, 1, 2)], (Code::Ok, vec![(2, 1, 2)])),
            (Fill::All, vec![Line { group: GroupId(0), ..any_line(1, 4) }], (Code::Ok, vec![(3, 2, 4)])),
            // The first line takes what there is of sku 1, the second what it needs of another.
            (Fill::All, vec![any_line(1, 3), any_line(1, 3)], (Code::Ok, vec![(1, 0, 3), (2, 0, 3)])),
            // What a line asks for itself goes before what would be somebody's substitute.
            (
                Fill::All,
                vec![any_line(1, 5), any_line(2, 4)],
                (Code::Ok, vec![(2, 0, 3), (2, 1, 1), (3, 2, 5)]),
            ),
            // Each substitute serves one line.
            (
                Fill::All,
                vec![any_line(1, 5), any_line(1, 6)],
                (Code::Ok, vec![(2, 0, 3), (2, 1, 2), (3, 2, 6)]),
            ),
            (Fill::All, vec![any_line(1, 5), any_line(1, 6), any_line(3, 4)], short(vec![(1, ANY, 4)])),
            // What lines get of their own skus, in part too, is no substitute's: line 2 gets 9 of 10.
            (
                Fill::Partial,
                vec![any_line(1, 7), any_line(3, 10)],
                (Code::Ok, vec![(1, 0, 4), (3, 2, 9), (1, ANY, 4), (3, ANY, 9)]),
            ),
        ] {
            assert_eq!(try_out(&mut bench, fill, &lines), due, "{lines:?} on {shards}");
        }
        // Who does not want them gets none: channel 2, with its buffer of 5.
        let told = bench.reserve(1 << 90, 2, 1_000, &[any_line(1, 1)]);
        assert_eq!(told.reply.outcome.code, Code::InsufficientStock);
        // What was taken lives on as what it is.
        bench.reserve(1 << 91, 0, 60_000, &[any_line(1, 5)]);
        assert_eq!(bench.step(1 << 91, Verb::Confirm, 0).reply.outcome.code, Code::Ok);
        assert_eq!(bench.units(2, 0)[2], 3, "confirmed");
        let again = bench.reserve(1 << 91, 0, 60_000, &[any_line(1, 5)]);
        assert!(again.reply.repeat, "it is known by what was asked for");
        // Given up again.
        assert_eq!(bench.define(sku("s1", &[])), Code::Ok);
        assert_eq!(try_out(&mut bench, Fill::All, &[any_line(1, 5)]), short(vec![(1, ANY, 4)]));
        let mut again = stockline_core::catalogue::Catalogue::default();
        for sku in 0..10 {
            again.define(&Definition::Sku { name: format!("s{sku}") }).expect("a good name");
        }
        again.load(&bench.sequencer.catalogue.definitions()).expect("it was good before");
        assert_eq!(again.rules(), bench.sequencer.catalogue.rules());
    }
}

#[test]
fn nodes_that_do_not_ship_today_go_last() {
    // The bench starts at 22:13:20 UTC.
    let quarter = |number: u64| Millis(START.0 - START.0 % 900_000 + number * 900_000);
    let day = |cut_off, ahead, capacity| Day { cut_off, ahead, capacity };
    for shards in [1, 4] {
        for strategy in [Strategy::Priority, Strategy::FewestSplits, Strategy::HighestStock] {
            let policy = Policy { strategy, ..Policy::default() };
            let mut bench = bench(shards, policy, &[(1, 0, 50), (1, 1, 40), (2, 0, 5), (2, 1, 4)]);
            for (definition, code) in [
                (node_of("n0", 10, day(96, 0, 0)), Code::InvalidRule),
                (node_of("n0", 10, day(0, 57, 0)), Code::InvalidRule),
                // 17:15 in New York, 22:15 UTC.
                (node_of("n0", 10, day(69, -20, 0)), Code::Ok),
            ] {
                assert_eq!(bench.define(definition), code);
            }
            let one = [any_line(1, 1)];
            let serves = |bench: &mut Bench| try_out(bench, Fill::All, &one).1[0].1;
            assert_eq!(serves(&mut bench), 0, "before the cut-off");
            bench.now = quarter(1);
            assert_eq!(serves(&mut bench), 1, "at the cut-off");
            let all = try_out(&mut bench, Fill::All, &[any_line(1, 60)]);
            assert_eq!(all, (Code::Ok, vec![(1, 0, 20), (1, 1, 40)]), "nothing is refused for it");
            // Both lines from one node that ships tomorrow, or from two: the day goes before that.
            let both = try_out(&mut bench, Fill::All, &[any_line(1, 2), any_line(2, 5)]);
            let gathered = if strategy == Strategy::FewestSplits { 0 } else { 1 };
            assert_eq!(both, (Code::Ok, vec![(1, gathered, 2), (2, 0, 5)]));
            // Midnight in New York is 05:00 UTC.
            bench.now = quarter(4 * 6 + 3);
            assert_eq!(serves(&mut bench), 1, "04:45");
            bench.now = quarter(4 * 7);
            assert_eq!(serves(&mut bench), 0, "05:00");
        }
    }
}

#[test]
fn no_preference_refuses_what_would_be_granted_without() {
    for shards in [1, 4] {
        // With at most two nodes a line of 15 needs both that have 10.
        let policy = Policy { splits_max: 2, ..Policy::default() };
        let mut few = bench(shards, policy, &[(1, 0, 10), (1, 1, 10), (1, 2, 1), (2, 0, 1), (2, 1, 1)]);
        assert_eq!(few.define(node_of("n0", 10, Day { cut_off: 1, ahead: 0, capacity: 0 })), Code::Ok);
        let lines = [any_line(1, 15), any_line(2, 1)];
        let told = ask(&mut few, Fill::All, &lines);
        assert_eq!(told, (Code::Ok, vec![(1, 0, 10), (1, 1, 5), (2, 1, 1)]), "sku 2 still goes by the day");
        // Line 1 would go to node 2 with lines 3 and 4, and line 2 may go nowhere else.
        let policy = Policy { strategy: Strategy::FewestSplits, ..Policy::default() };
        let mut few = bench(shards, policy, &[(1, 1, 3), (1, 2, 3), (2, 2, 3), (3, 2, 3)]);
        let group = Definition::Group { name: "g9".into(), nodes: vec!["n2".into()] };
        assert_eq!(few.define(group), Code::Ok);
        let only = |sku, quantity| Line { group: GroupId(2), ..any_line(sku, quantity) };
        let lines =
            [Line { group: GroupId(0), ..any_line(1, 3) }, only(1, 3), any_line(2, 1), any_line(3, 1)];
        let told = ask(&mut few, Fill::All, &lines);
        assert_eq!(told, (Code::Ok, vec![(1, 1, 3), (1, 2, 3), (2, 2, 1), (3, 2, 1)]));
    }
}

#[test]
fn a_day_is_full_when_as_many_units_as_it_holds_are_confirmed() {
    for shards in [1, 4] {
        let mut bench = bench(shards, Policy::default(), &[(1, 0, 50), (2, 0, 50), (1, 1, 50), (2, 1, 50)]);
        let day = Day { cut_off: 0, ahead: 7, capacity: 5 };
        assert_eq!(bench.define(node_of("n0", 10, day)), Code::Ok);
        let from = |bench: &mut Bench, sku| try_out(bench, Fill::All, &[any_line(sku, 1)]).1[0].1;
        for (id, lines, confirmed) in [
            // Skus of two shards are counted together.
            (1, vec![any_line(1, 2)], true),
            (2, vec![any_line(2, 9)], false),
            (3, vec![any_line(2, 2), any_line(1, 1)], true),
        ] {
            assert_eq!((from(&mut bench, 1), from(&mut bench, 2)), (0, 0), "before {id}");
            let told = bench.reserve(id, 0, 1_000, &lines);
            assert_eq!(told.reply.outcome.code, Code::Ok);
            if confirmed {
                assert_eq!(bench.step(id, Verb::Confirm, 0).reply.outcome.code, Code::Ok);
            }
        }
        assert_eq!((from(&mut bench, 1), from(&mut bench, 2)), (1, 1), "full");
        // What is released stays counted; a line that names the node is served.
        bench.step(1, Verb::Release, 0);
        assert_eq!(from(&mut bench, 1), 1);
        assert_eq!(ask(&mut bench, Fill::All, &[node_line(1, 0, 1)]), (Code::Ok, vec![(1, 0, 1)]));
        // More room, or a new day, which begins at 22:15 UTC there.
        assert_eq!(bench.define(node_of("n0", 10, Day { capacity: 6, ..day })), Code::Ok);
        assert_eq!(from(&mut bench, 2), 0);
        assert_eq!(bench.define(node_of("n0", 10, day)), Code::Ok);
        assert_eq!(from(&mut bench, 2), 1);
        bench.now = bench.now.plus(100_000);
        assert_eq!(from(&mut bench, 2), 0, "the next day");
    }
}

#[test]
fn an_explanation_goes_by_the_same_plan() {
    let policy = Policy { strategy: Strategy::FewestSplits, substitutes: true, ..Policy::default() };
    for shards in [1, 4] {
        let mut bench = bench(shards, policy, &[(1, 0, 1), (2, 0, 5), (2, 1, 5), (3, 1, 5)]);
        assert_eq!(bench.define(sku("s1", &["s2"])), Code::Ok);
        assert_eq!(bench.define(node_of("n0", 10, Day { cut_off: 1, ahead: 0, capacity: 0 })), Code::Ok);
        let lines = [any_line(1, 2), any_line(3, 2)];
        let reserve = Reserve {
            id: ReservationId(77),
            channel: ChannelId(0),
            ttl_ms: 1_000,
            fill: Fill::All,
            customer: 0,
            zone: ZoneId::NONE,
            labels: stockline_core::label::Labels::NONE,
            first_line: 0,
            line_count: 2,
        };
        let body = Body::Read(Read::Explain(reserve.clone()));
        let command = Command { key: Key(0), issued_at: bench.now, digest: 0, body };
        let frame = Frame { tag: (), principal: WHO, commands: vec![command], lines: lines.to_vec() };
        let told = bench.send_frames(vec![frame]).remove(0);
        let parts: Vec<_> = told.parts.iter().map(|part| (part.sku.0, part.node.0, part.quantity)).collect();
        assert_eq!(parts, [(2, 1, 2), (3, 1, 2)]);
        let seen = told.traces.iter().map(|(_, trace)| (trace.line, trace.node, trace.why, trace.late));
        assert_eq!(
            seen.collect::<Vec<_>>(),
            [(0, NodeId(0), Why::NotChosen, 1), (0, NodeId(1), Why::Taken, 0), (1, NodeId(1), Why::Taken, 0),]
        );
        assert_eq!(bench.send_body(Body::Reserve(reserve), &lines).parts, parts, "made: the same");
    }
}
