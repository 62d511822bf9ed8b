//! Units claimed of a group, the node chosen later: groups that overlap, choosing, life, limits. Each on one shard and
//! on four.
//!
//! Group 0 has nodes 1 and 2, group 1 nodes 0 and 1. Channel 1 is offered group 0, the others all nodes; channel 3
//! confirms late.

use stockline_core::catalogue::Definition;
use stockline_core::command::{Action, Allocate, Body, Fill, Line, StepLine, Verb};
use stockline_core::cover::Cover;
use stockline_core::event::EventKind;
use stockline_core::id::{ChannelId, GroupId, NodeId, SkuId};
use stockline_core::limit;
use stockline_core::outcome::{Code, State};
use stockline_loadgen::chance::pick;
use stockline_loadgen::dice::Dice;

use crate::bench::{Bench, Told, any_line, node_line};

const TTL: u32 = 1_000;
/// Where units of the groups are claimed, and of all nodes.
const PLACES: [u16; 2] = [32_768, 32_769];
const ALL: u16 = 65_533;

fn of_group(sku: u32, group: u16, quantity: u32) -> Line {
    Line { node: NodeId::LATER, group: GroupId(group), ..any_line(sku, quantity) }
}

fn some(node: u16, to_node: u16, quantity: u32) -> StepLine {
    StepLine { sku: SkuId(1), node: NodeId(node), to_node: NodeId(to_node), quantity }
}

fn took(told: Told) -> (Code, Vec<(u32, u16, u32)>) {
    (told.reply.outcome.code, told.parts)
}

/// Sku 1 with so many units at nodes 0, 1 and 2.
fn ground(shards: u32, units: [i64; 3]) -> Bench {
    let mut bench = Bench::new(shards);
    for (node, units) in units.into_iter().enumerate().filter(|(_, units)| *units > 0) {
        bench.receive(1, node as u16, units);
    }
    bench
}

fn both(units: [i64; 3], check: impl Fn(&mut Bench)) {
    for shards in [1, 4] {
        let mut bench = ground(shards, units);
        check(&mut bench);
        bench.assert_sound();
    }
}

#[track_caller]
fn refused(told: Told, available: u32) {
    assert_eq!(took(told), (Code::InsufficientStock, vec![(1, 65_535, available)]));
}

#[test]
fn groups_that_overlap_do_not_oversell() {
    both([2, 2, 2], |bench| {
        let four = bench.reserve(1, 0, TTL, &[of_group(1, 0, 4)]);
        assert_eq!(took(four), (Code::Ok, vec![(1, PLACES[0], 4)]));
        // Nodes 1 and 2 have just the four: group 1 has what node 0 has, though node 1 has units free.
        refused(bench.reserve(1001, 0, TTL, &[of_group(1, 1, 3)]), 2);
        refused(bench.reserve(1002, 0, TTL, &[node_line(1, 1, 1)]), 0);
        refused(bench.reserve(1003, 0, TTL, &[any_line(1, 3)]), 2);
        let partly = bench.reserve_filled(Fill::Partial, 3, (0, TTL), &[of_group(1, 1, 3)]);
        assert_eq!(took(partly), (Code::Ok, vec![(1, PLACES[1], 2), (1, 65_535, 2)]));
        refused(bench.reserve(1004, 0, TTL, &[any_line(1, 1)]), 0);
        assert_eq!(bench.units(1, PLACES[0])[..2], [-4, 4]);
        assert_eq!([0, 1, 2].map(|node| bench.units(1, node)[0]), [2, 2, 2]);
    });
}

#[test]
fn lines_of_one_reservation_see_one_another() {
    both([2, 2, 0], |bench| {
        // Lines that take a node now go first, in whatever order they stand.
        let lines = [of_group(1, 1, 1), node_line(1, 1, 2), of_group(1, 1, 1), of_group(1, 1, 1)];
        let told = bench.reserve(1, 0, TTL, &lines);
        assert_eq!(took(told), (Code::InsufficientStock, vec![(1, 65_535, 0)]));
        let told = bench.reserve(2, 0, TTL, &lines[..3]);
        assert_eq!(took(told), (Code::Ok, vec![(1, 1, 2), (1, PLACES[1], 2)]));
    });
}

#[test]
fn a_move_chooses_the_node() {
    both([2, 2, 2], |bench| {
        bench.reserve(1, 0, TTL, &[of_group(1, 0, 3)]);
        bench.reserve(2, 0, TTL, &[of_group(1, 1, 3)]);
        // All six are claimed. Node 1 may give two to either, but to both no more than it has.
        let choose = |bench: &mut Bench, id, line| {
            let outcome = bench.step_lines(id, Verb::Move, &[line]).reply.outcome;
            (outcome.code, outcome.state)
        };
        let (yes, no) = ((Code::Ok, State::Held), (Code::InsufficientStock, State::Held));
        assert_eq!(choose(bench, 1, some(PLACES[0], 1, 2)), no, "one of node 1 is group 1's");
        assert_eq!(choose(bench, 1, some(PLACES[0], 1, 1)), yes);
        assert_eq!(choose(bench, 1, some(PLACES[0], 1, 1)), no);
        assert_eq!(choose(bench, 1, some(PLACES[0], 2, 2)), yes);
        assert_eq!(choose(bench, 2, some(PLACES[1], 0, 2)), yes);
        assert_eq!(choose(bench, 2, some(PLACES[1], 1, 1)), yes);
        assert_eq!([0, 1, 2].map(|node| bench.units(1, node)[..2].to_vec()), [[0, 2], [0, 2], [0, 2]]);
        assert_eq!(bench.units(1, PLACES[0]), [0; 9]);
    });
}

#[test]
fn what_a_short_group_has_left_can_still_be_chosen() {
    both([1, 1, 0], |bench| {
        for id in [1, 2] {
            bench.reserve(id, 0, TTL, &[of_group(1, 1, 1)]);
            bench.step(id, Verb::Confirm, 0);
        }
        let lost = bench.make(EventKind::Count, 1, 0, 0);
        bench.event(lost);
        refused(bench.reserve(90, 0, TTL, &[any_line(1, 1)]), 0);
        let code = |told: Told| told.reply.outcome.code;
        assert_eq!(code(bench.step_lines(1, Verb::Move, &[some(PLACES[1], 1, 1)])), Code::Ok);
        assert_eq!(code(bench.step_lines(2, Verb::Move, &[some(PLACES[1], 1, 1)])), Code::InsufficientStock);
        assert_eq!(bench.units(1, 1)[..3], [0, 0, 1]);
    });
}

#[test]
fn who_waits_for_a_supply_that_fails_does_not_get_what_a_group_needs() {
    use stockline_core::catalogue::Effect;
    use stockline_core::event::StockEvent;
    use stockline_core::id::SupplyId;
    let supply = |bench: &mut Bench, quantity| {
        let eta = bench.now.plus(60_000);
        let of = bench.make(EventKind::Supply, 1, 0, quantity);
        bench.event(StockEvent { supply: Some(SupplyId(7)), eta, ..of });
    };
    both([3, 0, 0], |bench| {
        let rule = crate::bench::sku_rule("a", ("s1", ""), (None, None), None, Effect::Backorder(9));
        assert_eq!(bench.define(rule), Code::Ok);
        bench.reserve(1, 0, TTL, &[of_group(1, 1, 3)]);
        supply(bench, 4);
        assert_eq!(bench.reserve(2, 0, TTL, &[node_line(1, 0, 4)]).reply.outcome.code, Code::Ok);
        supply(bench, 0);
        bench.expire_due();
        assert_eq!(bench.units(1, 0)[..2], [3, 0]);
        assert_eq!(bench.step_lines(1, Verb::Move, &[some(PLACES[1], 0, 3)]).reply.outcome.code, Code::Ok);
        // What comes is for who waits.
        bench.receive(1, 0, 1);
        bench.expire_due();
        assert_eq!(bench.units(1, 0)[..2], [0, 4]);
    });
    // What a group needs elsewhere is nothing to them: 3 of nodes 1 and 2 are claimed.
    both([0, 3, 0], |bench| {
        let rule = crate::bench::sku_rule("a", ("s1", ""), (None, None), None, Effect::Backorder(9));
        assert_eq!(bench.define(rule), Code::Ok);
        assert_eq!(bench.reserve(1, 0, TTL, &[of_group(1, 0, 3)]).reply.outcome.code, Code::Ok);
        supply(bench, 4);
        assert_eq!(bench.reserve(2, 0, TTL, &[node_line(1, 0, 4)]).reply.outcome.code, Code::Ok);
        bench.receive(1, 0, 10);
        supply(bench, 0);
        bench.expire_due();
        assert_eq!(bench.units(1, 0)[..2], [6, 4]);
    });
}

#[test]
fn claims_of_a_group_are_counted_as_far_as_they_can_be() {
    both([0, 0, 0], |bench| {
        for node in [0, 1] {
            for _ in 0..3 {
                bench.receive(1, node, 1_000_000_000);
            }
        }
        let lines = [of_group(1, 1, 1_000_000_000); 5];
        refused(bench.reserve(90, 0, TTL, &lines), 0);
        assert_eq!(bench.reserve(1, 0, TTL, &lines[..4]).reply.outcome.code, Code::Ok);
        refused(bench.reserve(91, 0, TTL, &lines[4..]), 0);
        bench.step(1, Verb::Confirm, 0);
        refused(bench.reserve(92, 0, TTL, &lines[4..]), 0);
    });
}

#[test]
fn safety_stock_outside_the_group_is_asked_for() {
    use stockline_core::catalogue::Effect;
    both([2, 3, 5], |bench| {
        let rule = crate::bench::sku_rule("a", ("s1", ""), (Some("n2"), None), None, Effect::Safety(5));
        assert_eq!(bench.define(rule), Code::Ok);
        bench.reserve(1, 0, TTL, &[of_group(1, 1, 5)]);
        let choose = |bench: &mut Bench, node| {
            bench.step_lines(1, Verb::Move, &[some(PLACES[1], node, 2)]).reply.outcome.code
        };
        assert_eq!(choose(bench, 2), Code::InsufficientStock);
        assert_eq!(choose(bench, 0), Code::Ok);
    });
}

#[test]
fn a_unit_that_moves_within_a_group_stays_with_it() {
    both([1, 1, 0], |bench| {
        bench.reserve(1, 0, TTL, &[node_line(1, 0, 1)]);
        bench.reserve(2, 0, TTL, &[of_group(1, 1, 1)]);
        // The only unit free is the group's; the one that this gives back is as good.
        assert_eq!(bench.step_lines(1, Verb::Move, &[some(0, 1, 1)]).reply.outcome.code, Code::Ok);
        refused(bench.reserve(1005, 0, TTL, &[any_line(1, 1)]), 0);
    });
}

#[test]
fn what_is_not_chosen_is_confirmed_released_and_expires_but_not_fulfilled() {
    both([4, 4, 0], |bench| {
        bench.reserve(1, 0, TTL, &[of_group(1, 1, 5)]);
        let code = |told: Told| (told.reply.outcome.code, told.reply.outcome.state);
        let part = |verb, units| (verb, [some(PLACES[1], 65_535, units)]);
        let (verb, lines) = part(Verb::Release, 1);
        assert_eq!(code(bench.step_lines(1, verb, &lines)), (Code::Ok, State::Held));
        assert_eq!(code(bench.step(1, Verb::Confirm, 0)), (Code::Ok, State::Confirmed));
        assert_eq!(bench.units(1, PLACES[1])[..3], [-4, 0, 4]);
        let not_chosen = (Code::NodeNotChosen, State::Confirmed);
        assert_eq!(code(bench.step(1, Verb::Fulfil, 0)), not_chosen);
        let (verb, lines) = part(Verb::Fulfil, 1);
        assert_eq!(code(bench.step_lines(1, verb, &lines)), not_chosen);
        assert_eq!(
            code(bench.step_lines(1, Verb::Move, &[some(PLACES[1], 0, 4)])),
            (Code::Ok, State::Confirmed)
        );
        assert_eq!(code(bench.step(1, Verb::Fulfil, 0)), (Code::Ok, State::Fulfilled));
        // One that expires gives all back.
        bench.reserve(2, 0, TTL, &[of_group(1, 1, 4)]);
        refused(bench.reserve(1006, 0, TTL, &[any_line(1, 1)]), 0);
        bench.now = bench.now.plus(u64::from(TTL));
        assert_eq!(bench.expire_due(), 1);
        assert_eq!(bench.reserve(3, 0, TTL, &[any_line(1, 4)]).reply.outcome.code, Code::Ok);
    });
}

#[test]
fn a_late_confirmation_claims_of_the_group_again_or_of_any_node() {
    both([0, 4, 3], |bench| {
        let again = |bench: &mut Bench, id| {
            bench.now = bench.now.plus(u64::from(TTL));
            bench.expire_due();
            let told = bench.step(id, Verb::Confirm, 0);
            assert!(told.reply.outcome.reacquired || told.reply.outcome.code != Code::Ok);
            took(told)
        };
        bench.reserve(1, 3, TTL, &[of_group(1, 1, 3)]);
        assert_eq!(again(bench, 1), (Code::Ok, vec![(1, PLACES[1], 3)]));
        bench.step(1, Verb::Release, 0);
        bench.reserve(2, 3, TTL, &[of_group(1, 1, 3)]);
        bench.now = bench.now.plus(u64::from(TTL));
        bench.expire_due();
        bench.reserve(3, 0, 5 * TTL, &[node_line(1, 1, 3)]);
        assert_eq!(again(bench, 2), (Code::Ok, vec![(1, 2, 3)]));
        bench.step(2, Verb::Release, 0);
    });
}

#[test]
fn which_group_it_is_and_who_may() {
    both([2, 2, 2], |bench| {
        let mut id = 0;
        let mut claim = |bench: &mut Bench, channel, group| {
            id += 1;
            took(bench.reserve(id, channel, TTL, &[of_group(1, group, 1)]))
        };
        // No group named: the channel's own, or all nodes.
        assert_eq!(claim(bench, 1, u16::MAX), (Code::Ok, vec![(1, PLACES[0], 1)]));
        assert_eq!(claim(bench, 0, u16::MAX), (Code::Ok, vec![(1, ALL, 1)]));
        // Channel 1 is not offered node 0.
        assert_eq!(claim(bench, 1, 1), (Code::NodeNotOffered, vec![]));
        assert_eq!(claim(bench, 0, 99), (Code::UnknownGroup, vec![]));
        let unknown = bench.step_lines(1, Verb::Release, &[some(PLACES[1] + 1, 65_535, 1)]);
        assert_eq!(unknown.reply.outcome.code, Code::UnknownNode);
    });
}

#[test]
fn a_channel_claims_of_so_many_groups_and_all_of_more() {
    let own = limit::CLAIMED_GROUPS_PER_CHANNEL_MAX as u16;
    let all = limit::CLAIMED_GROUPS_PER_SKU_MAX as u16;
    both([200, 0, 0], |bench| {
        for group in 2..=all {
            let name = format!("g{group}");
            bench.define(Definition::Group { name, nodes: vec!["n0".into()] });
        }
        // Channel 4 and on: as many as fill all places, each with its own.
        for channel in 4..=4 + all / own {
            assert_eq!(bench.define(Definition::channel(&format!("c{channel}"))), Code::Ok);
        }
        let claim = |bench: &mut Bench, id: u128, channel, group| {
            took(bench.reserve(id, channel, 10 * TTL, &[any_line(2, 1), of_group(1, group, 1)])).0
        };
        bench.receive(2, 0, 200);
        for group in 1..=own {
            let told = bench.reserve(u128::from(group), 4, 10 * TTL, &[of_group(1, group, 1)]);
            assert_eq!(told.reply.outcome.code, Code::Ok, "group {group}");
        }
        // One more is too many for this channel, and for nobody else; the groups that it has go on.
        assert_eq!(claim(bench, 200, 4, own + 1), Code::TooManyGroups);
        assert_eq!(claim(bench, 201, 4, own), Code::Ok);
        assert_eq!(claim(bench, 202, 5, own + 1), Code::Ok);
        bench.step(202, Verb::Release, 0);
        for group in own + 1..=all {
            let channel = 4 + (group - 1) / own;
            assert_eq!(claim(bench, u128::from(group), channel, group), Code::Ok, "group {group}");
        }
        let last = 4 + all / own;
        assert_eq!(bench.reserve(203, last, TTL, &[of_group(1, all, 1)]).reply.outcome.code, Code::Ok);
        let told = bench.reserve(204, last, TTL, &[Line { group: GroupId::ANY, ..of_group(1, 0, 1) }]);
        assert_eq!(told.reply.outcome.code, Code::TooManyGroups, "all nodes are one more group");
        bench.step(1, Verb::Release, 0);
        let told = bench.reserve(205, last, TTL, &[Line { group: GroupId::ANY, ..of_group(1, 0, 1) }]);
        assert_eq!(told.reply.outcome.code, Code::Ok, "there is room again");
        // What is free is counted as ever: 66 units are claimed, one of them given back.
        let left = 200 - (i64::from(all) + 3 - 1);
        refused(bench.reserve(206, 0, TTL, &[any_line(1, 201)]), left as u32);
        let sound = bench.reserve(207, 0, TTL, &[any_line(1, left as u32)]);
        assert_eq!(sound.reply.outcome.code, Code::Ok);
        refused(bench.reserve(208, 0, TTL, &[any_line(1, 1)]), 0);
    });
}

#[test]
fn allocations_leave_what_groups_need_and_facts_do_not_wait() {
    both([2, 2, 1], |bench| {
        bench.reserve(1, 0, TTL, &[of_group(1, 1, 3)]);
        let allocate = |bench: &mut Bench, quantity| {
            let (action, channel, to_channel) = (Action::Allocate, ChannelId(0), ChannelId::SHARED);
            let (sku, node) = (SkuId(1), NodeId(1));
            let allocate = Allocate { action, channel, to_channel, sku, node, quantity };
            bench.send_body(Body::Allocate(allocate), &[]).reply.outcome.code
        };
        assert_eq!(allocate(bench, 2), Code::InsufficientStock);
        assert_eq!(allocate(bench, 1), Code::Ok);
        // Two units of node 0 are lost: the group lacks them, and nobody new gets what is left of it; others do.
        let count = bench.make(EventKind::Count, 1, 0, 0);
        assert_eq!(bench.event(count).reply.outcome.code, Code::Ok);
        refused(bench.reserve(1008, 2, TTL, &[node_line(1, 1, 1)]), 0);
        assert_eq!(bench.reserve(2, 0, TTL, &[node_line(1, 2, 1)]).reply.outcome.code, Code::Ok);
        // What comes is the group's first.
        bench.receive(1, 0, 3);
        refused(bench.reserve(1009, 0, TTL, &[of_group(1, 0, 2)]), 1);
    });
}

/// What may be taken of nodes, as Hall's theorem says it: for every union of groups, what its nodes have less what is
/// claimed of them, and what is missing before.
struct Unions {
    /// By group: its nodes, a bit each, and units claimed.
    groups: Vec<(u32, i64)>,
    units: Vec<i64>,
    missing: i64,
}

impl Unions {
    fn spare(&self) -> impl Iterator<Item = (u32, i64)> {
        (1u32..1 << self.groups.len()).map(|union| {
            let of = |at: &usize| union >> at & 1 == 1;
            let groups = (0..self.groups.len()).filter(of).map(|at| self.groups[at]);
            let nodes = groups.clone().fold(0, |all, (nodes, _)| all | nodes);
            let has = (0..self.units.len()).filter(|node| nodes >> node & 1 == 1);
            let has: i64 = has.map(|node| self.units[node]).sum();
            (nodes, has - groups.map(|(_, claimed)| claimed).sum::<i64>())
        })
    }

    fn room(&self, node: usize) -> i64 {
        let spare = self.spare().filter(|(nodes, _)| nodes >> node & 1 == 1);
        let least = spare.map(|(_, spare)| spare + self.missing).min();
        self.units[node].min(least.unwrap_or(i64::MAX)).max(0)
    }
}

#[test]
fn a_flow_and_all_unions_say_the_same() {
    let mut dice = Dice::new(11);
    let mut some_missing = 0;
    for _ in 0..400 {
        let mut bench = Bench::new(1);
        for node in 3..8 {
            assert_eq!(bench.define(Definition::node(&format!("n{node}"), 1)), Code::Ok);
        }
        let groups = 1 + pick(&mut dice, 7) as usize;
        let mut unions = Unions { groups: Vec::new(), units: Vec::new(), missing: 0 };
        unions.units = (0..8).map(|_| pick(&mut dice, 7) as i64).collect();
        for group in 0..groups {
            let nodes = 1 + pick(&mut dice, 255) as u32;
            let names = (0..8).filter(|node| nodes >> node & 1 == 1).map(|node| format!("n{node}"));
            let name = format!("x{group}");
            assert_eq!(bench.define(Definition::Group { name, nodes: names.collect() }), Code::Ok);
            unions.groups.push((nodes, 1 + pick(&mut dice, 8) as i64));
        }
        let rules = bench.sequencer.catalogue.rules();
        // Groups 0 and 1 are the bench's own.
        let demands: Vec<_> =
            (2..).map(GroupId).zip(&unions.groups).map(|(id, (_, units))| (id, *units)).collect();
        let nodes = unions.units.iter().enumerate().map(|(node, units)| (NodeId(node as u16), *units));
        let mut cover = Cover::new(&rules, &demands, nodes);
        unions.missing = unions.spare().map(|(_, spare)| -spare).max().unwrap_or(0).max(0);
        assert_eq!(cover.missing(), unions.missing, "{demands:?} {:?}", unions.units);
        some_missing += i32::from(unions.missing > 0);
        if pick(&mut dice, 4) == 0 {
            unions.missing += 2;
            cover.allow(unions.missing);
        }
        for _ in 0..12 {
            let node = pick(&mut dice, 8) as usize;
            let (room, id) = (unions.room(node), NodeId(node as u16));
            assert_eq!(
                cover.room(&rules, id, unions.units[node]),
                room,
                "{:?} {:?}",
                unions.groups,
                unions.units
            );
            let taken = room.min(pick(&mut dice, 4) as i64);
            cover.take(&rules, id, taken);
            unions.units[node] -= taken;
        }
    }
    assert!((40..360).contains(&some_missing), "{some_missing}");
}
