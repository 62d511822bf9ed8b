//! Sourcing: which node serves which line, by the channel's strategy, and over how many it is split.

use stockline_core::catalogue::{Definition, Lane, Point, Policy, Strategy, UNKNOWN};
use stockline_core::command::{Action, Allocate, Body, Command, Fill, Frame, Line, Read, Reserve};
use stockline_core::id::{ChannelId, GroupId, Key, Lsn, NodeId, ReservationId, SkuId, ZoneId};
use stockline_core::ledger::Why;
use stockline_core::outcome::Code;

use crate::bench::{Bench, WHO, any_line, channel_with, node_line, node_with};

/// Nodes 0, 1, 2 with 5, 8 and 9 units of sku 1; channel 0 with a strategy; zones 0 and 1.
fn bench(strategy: Strategy, splits_max: u8) -> Bench {
    let mut bench = Bench::new(1);
    for (node, units) in [(0, 5), (1, 8), (2, 9)] {
        bench.receive(1, node, units);
    }
    let lane = |node: &str, metres, cost| Lane { node: node.into(), metres, cost };
    for definition in [
        Definition::Zone {
            name: "z0".into(),
            at: None,
            lanes: vec![lane("n0", 300, 5), lane("n1", 100, 9), lane("n2", 200, 7)],
        },
        // Nothing is known of node 0, and what it costs from node 2.
        Definition::Zone {
            name: "z1".into(),
            at: None,
            lanes: vec![lane("n1", 900, 1), lane("n2", 800, UNKNOWN)],
        },
    ] {
        assert_eq!(bench.define(definition), Code::Ok);
    }
    let policy = Policy { strategy, splits_max, ..Policy::default() };
    assert_eq!(bench.define(channel_with("c0", policy)), Code::Ok);
    bench
}

fn ask(bench: &mut Bench, zone: ZoneId, quantity: u32) -> (Code, Vec<(u16, u32)>) {
    let reserve = Reserve {
        id: ReservationId(u128::from(bench.sequencer.last().0) + 1),
        channel: ChannelId(0),
        ttl_ms: 1_000,
        fill: Fill::All,
        customer: 0,
        zone,
        labels: stockline_core::label::Labels::NONE,
        first_line: 0,
        line_count: 1,
    };
    let told = bench.send_body(Body::Reserve(reserve), &[any_line(1, quantity)]);
    bench.assert_sound();
    bench.now = bench.now.plus(1_000);
    bench.expire_due();
    (told.reply.outcome.code, told.parts.into_iter().map(|(_, node, units)| (node, units)).collect())
}

#[test]
fn every_strategy_chooses_its_node_and_its_order_of_splits() {
    let (near, far, none) = (ZoneId(0), ZoneId(1), ZoneId::NONE);
    for (strategy, zone, chosen) in [
        // Units wanted: 5, 6, 9, 14 and 18.
        (Strategy::Priority, near, [vec![(0, 5)], vec![(1, 6)], vec![(2, 9)]]),
        (Strategy::Nearest, near, [vec![(1, 5)], vec![(1, 6)], vec![(2, 9)]]),
        (Strategy::Nearest, far, [vec![(2, 5)], vec![(2, 6)], vec![(2, 9)]]),
        (Strategy::Nearest, none, [vec![(0, 5)], vec![(1, 6)], vec![(2, 9)]]),
        (Strategy::FewestSplits, near, [vec![(0, 5)], vec![(1, 6)], vec![(2, 9)]]),
        (Strategy::HighestStock, near, [vec![(2, 5)], vec![(2, 6)], vec![(2, 9)]]),
        (Strategy::LowestCost, near, [vec![(0, 5)], vec![(2, 6)], vec![(2, 9)]]),
        (Strategy::LowestCost, far, [vec![(1, 5)], vec![(1, 6)], vec![(2, 9)]]),
    ] {
        let mut bench = bench(strategy, 0);
        for (quantity, node) in [5, 6, 9].into_iter().zip(chosen) {
            assert_eq!(ask(&mut bench, zone, quantity), (Code::Ok, node), "{strategy:?} {zone}: {quantity}");
        }
    }
    for (strategy, zone, split) in [
        (Strategy::Priority, near, vec![(0, 5), (1, 8), (2, 1)]),
        (Strategy::Nearest, near, vec![(1, 8), (2, 6)]),
        (Strategy::Nearest, far, vec![(1, 5), (2, 9)]),
        (Strategy::FewestSplits, near, vec![(1, 5), (2, 9)]),
        (Strategy::HighestStock, near, vec![(1, 5), (2, 9)]),
        (Strategy::LowestCost, near, vec![(0, 5), (2, 9)]),
        (Strategy::LowestCost, far, vec![(0, 5), (1, 8), (2, 1)]),
    ] {
        assert_eq!(ask(&mut bench(strategy, 0), zone, 14), (Code::Ok, split), "{strategy:?} {zone}");
    }
    let mut bench = bench(Strategy::Nearest, 0);
    assert_eq!(ask(&mut bench, ZoneId(2), 1), (Code::UnknownZone, vec![]));
}

#[test]
fn no_line_is_split_over_more_nodes_than_the_channel_wants() {
    let any = u16::MAX;
    for (strategy, splits, quantity, code, told) in [
        (Strategy::Priority, 1, 9, Code::Ok, vec![(2, 9)]),
        (Strategy::Priority, 1, 10, Code::InsufficientStock, vec![(any, 9)]),
        // The two best have 13; one that has it all may be any.
        (Strategy::Priority, 2, 13, Code::Ok, vec![(0, 5), (1, 8)]),
        (Strategy::Priority, 2, 14, Code::InsufficientStock, vec![(any, 13)]),
        (Strategy::FewestSplits, 2, 17, Code::Ok, vec![(1, 8), (2, 9)]),
        (Strategy::FewestSplits, 2, 18, Code::InsufficientStock, vec![(any, 17)]),
        (Strategy::HighestStock, 3, 22, Code::Ok, vec![(0, 5), (1, 8), (2, 9)]),
        (Strategy::Priority, 200, 22, Code::Ok, vec![(0, 5), (1, 8), (2, 9)]),
    ] {
        let found = ask(&mut bench(strategy, splits), ZoneId::NONE, quantity);
        assert_eq!(found, (code, told), "{strategy:?} {splits}: {quantity}");
    }
}

#[test]
fn an_explanation_tells_what_would_come_of_it_and_why_and_takes_nothing() {
    for shards in [1, 4] {
        let mut bench = Bench::with_sku_rules(shards);
        for (sku, node, units) in [(5, 0, 9), (5, 1, 4), (5, 2, 4), (1, 0, 3)] {
            bench.receive(sku, node, units);
        }
        let (action, to_channel) = (Action::Allocate, ChannelId::SHARED);
        let (channel, sku, node) = (ChannelId(0), SkuId(5), NodeId(2));
        let allocate = Allocate { action, channel, to_channel, sku, node, quantity: 2 };
        bench.send_body(Body::Allocate(allocate), &[]);
        let hash = bench.hash();
        let lines = [any_line(5, 5), node_line(1, 0, 4), any_line(5, 4)];
        let reserve = Reserve {
            id: ReservationId(77),
            channel: ChannelId(0),
            ttl_ms: 1_000,
            fill: Fill::Partial,
            customer: 0,
            zone: ZoneId::NONE,
            labels: stockline_core::label::Labels::NONE,
            first_line: 0,
            line_count: 3,
        };
        let ask = |bench: &mut Bench, reserve, lines: &[Line]| {
            let body = Body::Read(Read::Explain(reserve));
            let command = Command { key: Key(0), issued_at: bench.now, digest: 0, body };
            let frame = Frame { tag: (), principal: WHO, commands: vec![command], lines: lines.to_vec() };
            bench.send_frames(vec![frame]).remove(0)
        };
        let told = ask(&mut bench, reserve.clone(), &lines);
        assert_eq!(told.replies[0].outcome.code, Code::Ok);
        assert_eq!(told.replies[0].lsn, Lsn::NONE);
        let traces: Vec<_> = told
            .traces
            .iter()
            .map(|(_, trace)| {
                let counts = (trace.free, trace.withheld, trace.own, trace.taken);
                (trace.line, trace.node.0, trace.why, counts)
            })
            .collect();
        // 4 of sku 5 are withheld from channel 0 at node 0, 2 at each of the others, where channel 0 has 2 of its own.
        assert_eq!(
            traces,
            [
                (0, 0, Why::Taken, (9, 4, 0, 5)),
                (0, 1, Why::NotChosen, (4, 2, 0, 0)),
                (0, 2, Why::NotChosen, (2, 2, 2, 0)),
                (1, 0, Why::Taken, (3, 0, 0, 3)),
                (2, 0, Why::Nothing, (4, 4, 0, 0)),
                (2, 1, Why::Taken, (4, 2, 0, 2)),
                (2, 2, Why::Taken, (2, 2, 2, 2)),
            ]
        );
        assert_eq!(bench.hash(), hash, "nothing was taken");
        // The same, made: the same parts.
        let made = bench.send_body(Body::Reserve(reserve.clone()), &lines);
        let parts = told.parts.iter().map(|part| (part.sku.0, part.node.0, part.quantity));
        assert_eq!(parts.collect::<Vec<_>>(), made.parts);
        for (reserve, code) in [
            (reserve.clone(), Code::ReservationExists),
            (Reserve { id: ReservationId(78), ..reserve.clone() }, Code::InsufficientStock),
            (
                Reserve { id: ReservationId(78), channel: ChannelId(9), ..reserve.clone() },
                Code::UnknownChannel,
            ),
            (Reserve { id: ReservationId(78), line_count: 0, ..reserve }, Code::NoLines),
        ] {
            let told = ask(&mut bench, reserve.clone(), &[any_line(1, 1), any_line(1, 1), any_line(1, 1)]);
            assert_eq!(told.replies[0].outcome.code, code, "{reserve:?}");
        }
        bench.assert_sound();
    }
}

/// Distances from <https://www.movable-type.co.uk/scripts/latlong.html> (haversine), in km.
#[test]
fn metres_between_points_are_good_enough_to_compare() {
    let point = |latitude: f64, longitude: f64| Point {
        latitude: (latitude * 1e6) as i32,
        longitude: (longitude * 1e6) as i32,
    };
    let london = point(51.5074, -0.1278);
    for (name, other, kilometres) in [
        ("Paris", point(48.8566, 2.3522), 343.6),
        ("Berlin", point(52.52, 13.405), 930.6),
        ("Madrid", point(40.4168, -3.7038), 1_263.6),
        ("itself", london, 0.0),
    ] {
        let found = f64::from(london.metres_to(other)) / 1e3;
        assert!((found - kilometres).abs() <= kilometres * 0.01, "{name}: {found} km, {kilometres} km");
        assert_eq!(london.metres_to(other), other.metres_to(london), "{name}");
    }
    // Over the date line.
    let (tonga, fiji) = (point(-21.14, -175.2), point(-18.12, 178.45));
    assert!((740_000..760_000).contains(&tonga.metres_to(fiji)), "{}", tonga.metres_to(fiji));
    // Of a zone's two ways to know, the table goes before the coordinates.
    let mut bench = Bench::new(1);
    let at = |name: &str, at| node_with(name, 5, Some(at), &[]);
    assert_eq!(bench.define(at("n0", london)), Code::Ok);
    assert_eq!(bench.define(at("n1", point(48.8566, 2.3522))), Code::Ok);
    assert_eq!(bench.define(at("n2", point(91.0, 0.0))), Code::InvalidRule);
    let lanes = vec![Lane { node: "n1".into(), metres: 7, cost: 3 }];
    let zone = Definition::Zone { name: "berlin".into(), at: Some(point(52.52, 13.405)), lanes };
    assert_eq!(bench.define(zone), Code::Ok);
    let rules = bench.sequencer.catalogue.rules();
    let zone = rules.zone(ZoneId(0)).expect("it is there");
    let ways = [0, 1, 2].map(NodeId);
    assert_eq!(ways.map(|node| zone.cost(node)), [UNKNOWN, 3, UNKNOWN]);
    assert_eq!(zone.metres(ways[1]), 7);
    assert!((920_000..940_000).contains(&zone.metres(ways[0])));
    assert_eq!(zone.metres(ways[2]), UNKNOWN);
}

#[test]
fn a_line_that_names_a_node_is_served_by_the_first_substitute_that_has_all_of_it() {
    let mut bench = bench(Strategy::Priority, 0);
    let node = |name: &str, substitutes: &[&str]| node_with(name, 10, None, substitutes);
    for (definition, code) in [
        (node("n0", &["n0"]), Code::InvalidRule),
        (node("n0", &["n9"]), Code::UnknownNode),
        (node("n0", &["n1"; 9]), Code::InvalidRule),
        (node("n0", &["n2", "n1"]), Code::Ok),
        (node("n2", &["n0"]), Code::Ok),
    ] {
        assert_eq!(bench.define(definition), code);
    }
    // Nodes 0, 1 and 2 have 5, 8 and 9; channel 1 is offered 1 and 2 only.
    for (channel, named, group, quantity, fill, due) in [
        (0, 0, GroupId::ANY, 5, Fill::All, vec![(0, 5)]),
        (0, 0, GroupId::ANY, 6, Fill::All, vec![(2, 6)]),
        (0, 0, GroupId::ANY, 9, Fill::All, vec![(2, 9)]),
        // None has it whole, and it is not split; partly it is served where it was to be.
        (0, 0, GroupId::ANY, 10, Fill::All, vec![(u16::MAX, 5)]),
        (0, 0, GroupId::ANY, 10, Fill::Partial, vec![(0, 5), (u16::MAX, 5)]),
        // Substitutes are not followed further, and serve only where the line may go.
        (0, 1, GroupId::ANY, 9, Fill::All, vec![(u16::MAX, 8)]),
        (1, 2, GroupId::ANY, 10, Fill::All, vec![(u16::MAX, 9)]),
        (0, 2, GroupId(0), 10, Fill::All, vec![(u16::MAX, 9)]),
    ] {
        let line = Line { group, ..node_line(1, named, quantity) };
        let id = u128::from(bench.sequencer.last().0) + 1;
        let told = bench.reserve_filled(fill, id, (channel, 1_000), &[line]);
        let parts: Vec<_> = told.parts.iter().map(|(_, node, units)| (*node, *units)).collect();
        assert_eq!(parts, due, "{quantity} of node {named} for channel {channel}");
        bench.assert_sound();
        bench.now = bench.now.plus(1_000);
        bench.expire_due();
    }
    // Two lines of one sku: what the first took is gone for the second.
    let told = bench.reserve(1 << 80, 0, 1_000, &[node_line(1, 0, 4), node_line(1, 0, 4)]);
    assert_eq!(told.parts, [(1, 0, 4), (1, 2, 4)]);
    // The catalogue gives the same again.
    let mut again = stockline_core::catalogue::Catalogue::default();
    again.load(&bench.sequencer.catalogue.definitions()).expect("it was good before");
    assert_eq!(again.rules().substitutes, bench.sequencer.catalogue.rules().substitutes);
}
