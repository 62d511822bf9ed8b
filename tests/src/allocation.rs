//! Channel allocations: every action with every outcome, who draws from what, and where units go back.
//!
//! Channel 0 stands above 1, and 1 above 3; channel 2 stands alone and has a buffer of 5. Channel 1 is offered nodes 1
//! and 2 only.

use stockline_core::catalogue::Definition;
use stockline_core::command::{Action, Allocate, Body, Fill, StepLine, Verb};
use stockline_core::event::EventKind;
use stockline_core::id::{ChannelId, NodeId, ReservationId, SkuId};
use stockline_core::limit;
use stockline_core::outcome::{Code, State};

use crate::bench::{Bench, Told, any_line, node_line};

fn act(bench: &mut Bench, action: Action, (from, to): (u16, u16), node: u16, quantity: u32) -> Code {
    let to_channel = if action == Action::Reallocate { ChannelId(to) } else { ChannelId::SHARED };
    let (channel, sku, node) = (ChannelId(from), SkuId(1), NodeId(node));
    let allocate = Allocate { action, channel, to_channel, sku, node, quantity };
    let told = bench.send_body(Body::Allocate(allocate), &[]);
    bench.assert_sound();
    told.reply.outcome.code
}

/// Sku 1 with 10 free units at each of nodes 0 and 1, of which channels get some at both.
fn shared_out(shards: u32, shares: &[(u16, u32)]) -> Bench {
    let mut bench = Bench::new(shards);
    for node in [0, 1] {
        bench.receive(1, node, 10);
        for (channel, units) in shares.iter().filter(|(channel, _)| node == 1 || *channel != 1) {
            assert_eq!(act(&mut bench, Action::Allocate, (*channel, 0), node, *units), Code::Ok);
        }
    }
    bench
}

/// Code and claims of a reservation.
fn took(told: Told) -> (Code, Vec<(u32, u16, u32)>) {
    (told.reply.outcome.code, told.parts)
}

#[test]
fn every_action_with_every_outcome() {
    let mut bench = shared_out(1, &[]);
    for (action, channels, node, quantity, code, free, allocated) in [
        (Action::Allocate, (0, 0), 0, 4, Code::Ok, 6, 4),
        (Action::Allocate, (0, 0), 0, 7, Code::InsufficientStock, 6, 4),
        (Action::Allocate, (1, 0), 0, 1, Code::NodeNotOffered, 6, 4),
        (Action::Allocate, (9, 0), 0, 1, Code::UnknownChannel, 6, 4),
        (Action::Allocate, (0, 0), 9, 1, Code::UnknownNode, 6, 4),
        (Action::Allocate, (0, 0), 0, 0, Code::InvalidQuantity, 6, 4),
        (Action::Allocate, (0, 0), 0, limit::QUANTITY_MAX + 1, Code::InvalidQuantity, 6, 4),
        (Action::Deallocate, (0, 0), 0, 5, Code::InsufficientAllocation, 6, 4),
        (Action::Deallocate, (2, 0), 0, 1, Code::InsufficientAllocation, 6, 4),
        (Action::Deallocate, (0, 0), 0, 1, Code::Ok, 7, 3),
        (Action::Reallocate, (0, 2), 0, 4, Code::InsufficientAllocation, 7, 3),
        (Action::Reallocate, (0, 1), 0, 1, Code::NodeNotOffered, 7, 3),
        (Action::Reallocate, (0, 9), 0, 1, Code::UnknownChannel, 7, 3),
        (Action::Reallocate, (0, 2), 0, 2, Code::Ok, 7, 3),
    ] {
        assert_eq!(act(&mut bench, action, channels, node, quantity), code, "{action:?} {channels:?}");
        let units = bench.all_units(1, 0);
        assert_eq!((units[0], units[9]), (free, allocated), "{action:?} {channels:?}");
    }
    assert_eq!(bench.allocations(1), [(0, 0, 1), (2, 0, 2)]);
    let unknown = Allocate {
        action: Action::Allocate,
        channel: ChannelId(0),
        to_channel: ChannelId::SHARED,
        sku: SkuId(99),
        node: NodeId(0),
        quantity: 1,
    };
    assert_eq!(bench.send_body(Body::Allocate(unknown), &[]).reply.outcome.code, Code::UnknownSku);
}

#[test]
fn a_sku_has_a_bounded_number_of_allocations() {
    let mut bench = Bench::new(1);
    // So many pairs of channel and node that one more is too many.
    let channels = limit::ALLOCATIONS_PER_SKU_MAX / 16;
    for node in 3..16 {
        let node = Definition::node(&format!("n{node}"), 50);
        bench.send_body(Body::Define(Box::new(node)), &[]);
    }
    for channel in 4..channels + 1 {
        bench.send_body(Body::Define(Box::new(Definition::channel(&format!("c{channel}")))), &[]);
    }
    let wide = (0..channels as u16 + 1).filter(|channel| *channel != 1);
    for node in 0..16 {
        bench.receive(1, node, 2_000);
    }
    let allocate = |bench: &mut Bench, action, channel, node| {
        let (channel, to_channel) = (ChannelId(channel), ChannelId::SHARED);
        let allocate =
            Allocate { action, channel, to_channel, sku: SkuId(1), node: NodeId(node), quantity: 1 };
        bench.send_body(Body::Allocate(allocate), &[]).reply.outcome.code
    };
    for channel in wide {
        for node in 0..16 {
            assert_eq!(allocate(&mut bench, Action::Allocate, channel, node), Code::Ok);
        }
        bench.journal.clear();
        bench.now = bench.now.plus(1);
    }
    assert_eq!(allocate(&mut bench, Action::Allocate, 1, 1), Code::TooManyAllocations);
    assert_eq!(act(&mut bench, Action::Reallocate, (0, 1), 1, 1), Code::TooManyAllocations);
    assert_eq!(allocate(&mut bench, Action::Allocate, 0, 1), Code::Ok, "one that is there may grow");
    assert_eq!(allocate(&mut bench, Action::Deallocate, 2, 0), Code::Ok);
    assert_eq!(allocate(&mut bench, Action::Allocate, 1, 1), Code::Ok, "there is room again");
    bench.assert_sound();
}

#[test]
fn own_share_first_then_the_parents_then_what_all_share() {
    for shards in [1, 4] {
        // Channel 3: its own 2 at each node, 3 of channel 1 at node 1, 1 of channel 0 at each; 7 and 4 free.
        let mut bench = shared_out(shards, &[(3, 2), (1, 3), (0, 1)]);
        let ids = 1..;
        let mut ids = ids.into_iter();
        let mut ask = |bench: &mut Bench, channel, quantity| {
            let id = ids.next().expect("endless");
            let told = took(bench.reserve(id, channel, 60_000, &[any_line(1, quantity)]));
            bench.step(id, Verb::Release, 0);
            bench.assert_sound();
            told
        };
        // Node 0 goes first, but 5 of its own and its parent's are at node 1 only.
        for (channel, quantity, taken) in [
            (3, 2, vec![(1, 0, 2)]),
            (3, 5, vec![(1, 1, 5)]),
            (3, 6, vec![(1, 1, 6)]),
            (3, 7, vec![(1, 0, 7)]),
            (3, 10, vec![(1, 0, 10)]),
            (3, 11, vec![(1, 0, 5), (1, 1, 6)]),
            (3, 20, vec![(1, 0, 10), (1, 1, 10)]),
            (0, 1, vec![(1, 0, 1)]),
            (0, 8, vec![(1, 0, 8)]),
            (0, 13, vec![(1, 0, 8), (1, 1, 5)]),
            (1, 8, vec![(1, 1, 8)]),
            // Of the 11 that all share, 5 stay.
            (2, 6, vec![(1, 0, 6)]),
        ] {
            assert_eq!(
                ask(&mut bench, channel, quantity),
                (Code::Ok, taken),
                "channel {channel}: {quantity}"
            );
        }
        for (channel, most) in [(3, 20), (0, 13), (1, 8), (2, 6)] {
            let told = ask(&mut bench, channel, most + 1);
            assert_eq!(told, (Code::InsufficientStock, vec![(1, u16::MAX, most)]), "channel {channel}");
        }
        assert_eq!(bench.allocations(1), [(0, 0, 1), (0, 1, 1), (1, 1, 3), (3, 0, 2), (3, 1, 2)]);
        assert_eq!((bench.units(1, 0)[0], bench.units(1, 1)[0]), (7, 4), "all is back where it was");
    }
}

#[test]
fn lines_see_what_lines_before_them_took() {
    let mut bench = shared_out(1, &[(0, 4)]);
    let lines = [any_line(1, 6), node_line(1, 0, 3), any_line(1, 11)];
    assert_eq!(took(bench.reserve(1, 0, 60_000, &lines)), (Code::Ok, vec![(1, 0, 10), (1, 1, 10)]));
    assert_eq!(bench.all_units(1, 0)[9] + bench.all_units(1, 1)[9], 0);
    let told = bench.reserve_filled(Fill::Partial, 2, (0, 60_000), &[any_line(1, 1)]);
    assert_eq!(told.reply.outcome.code, Code::InsufficientStock);
    bench.assert_sound();
}

#[test]
fn units_go_back_to_the_pool_they_came_from() {
    let mut bench = shared_out(1, &[(3, 2), (0, 1)]);
    let claims = |bench: &Bench| {
        let part = bench.ledgers[0].reservations().find(ReservationId(7), bench.sequencer.last());
        let claims = part.expect("known").claims.iter();
        claims.map(|claim| (claim.pool.0, claim.quantity)).collect::<Vec<_>>()
    };
    let line = |quantity| StepLine { sku: SkuId(1), node: NodeId(0), to_node: NodeId::ANY, quantity };
    bench.reserve(7, 3, 1_000, &[node_line(1, 0, 6)]);
    assert_eq!(claims(&bench), [(0, 1), (3, 2), (u16::MAX, 3)]);
    // What all share goes back first, then what is the older channel's.
    bench.step_lines(7, Verb::Release, &[line(1)]);
    assert_eq!(claims(&bench), [(0, 1), (3, 2), (u16::MAX, 2)]);
    bench.step_lines(7, Verb::Release, &[line(3)]);
    assert_eq!(claims(&bench), [(3, 2)]);
    assert_eq!(bench.allocations(1), [(0, 0, 1), (0, 1, 1), (3, 1, 2)]);
    bench.step_lines(7, Verb::Confirm, &[line(1)]);
    bench.now = bench.now.plus(1_000);
    assert_eq!(bench.expire_due(), 1);
    assert_eq!(claims(&bench), [(3, 1)]);
    assert_eq!(bench.allocations(1), [(0, 0, 1), (0, 1, 1), (3, 0, 1), (3, 1, 2)]);
    bench.assert_sound();
    // Picked and shipped units are gone from every pool.
    let mut ship = bench.make(EventKind::Ship, 1, 0, 1);
    ship.reservation = Some(ReservationId(7));
    assert_eq!(bench.event(ship).reply.outcome.state, State::Confirmed);
    bench.step(7, Verb::Fulfil, 0);
    assert_eq!(bench.all_units(1, 0)[9], 2);
    bench.assert_sound();
}

#[test]
fn a_claim_of_several_pools_is_picked_shipped_and_moved() {
    let mut bench = shared_out(1, &[(0, 3)]);
    bench.reserve(7, 0, 60_000, &[node_line(1, 0, 5)]);
    bench.step(7, Verb::Confirm, 0);
    for (kind, quantity, code) in [
        (EventKind::Pick, 4, Code::Ok),
        (EventKind::Pick, 2, Code::InsufficientClaim),
        (EventKind::Ship, 6, Code::InsufficientClaim),
        (EventKind::Ship, 2, Code::Ok),
    ] {
        let mut event = bench.make(kind, 1, 0, quantity);
        event.reservation = Some(ReservationId(7));
        assert_eq!(bench.event(event).reply.outcome.code, code, "{kind:?} {quantity}");
        bench.assert_sound();
    }
    let to_node = |quantity| StepLine { sku: SkuId(1), node: NodeId(0), to_node: NodeId(1), quantity };
    // One unit is neither picked nor shipped; at node 1 the channel's own go first.
    let told = bench.step_lines(7, Verb::Move, &[to_node(2)]);
    assert_eq!(told.reply.outcome.code, Code::InsufficientClaim);
    assert_eq!(bench.step_lines(7, Verb::Move, &[to_node(1)]).reply.outcome.code, Code::Ok);
    assert_eq!(bench.all_units(1, 1), [7, 0, 1, 0, 0, 0, 0, 0, 0, 2]);
    bench.assert_sound();
}

#[test]
fn what_is_not_there_cannot_be_claimed_from_any_allocation() {
    for shards in [1, 4] {
        let mut bench = shared_out(shards, &[(0, 4), (2, 4)]);
        // 10 on hand at node 0, 8 of them allocated; 3 are found.
        let count = bench.make(EventKind::Count, 1, 0, 3);
        assert_eq!(bench.event(count).reply.outcome.code, Code::Ok);
        assert_eq!(bench.all_units(1, 0), [-5, 0, 0, 0, 0, 0, 0, 0, 0, 8]);
        let ask = |bench: &mut Bench, id, channel, quantity| {
            took(bench.reserve(id, channel, 60_000, &[node_line(1, 0, quantity)]))
        };
        let short = |most| (Code::InsufficientStock, vec![(1, u16::MAX, most)]);
        assert_eq!(ask(&mut bench, 1, 0, 4), short(3));
        assert_eq!(ask(&mut bench, 2, 0, 2), (Code::Ok, vec![(1, 0, 2)]));
        assert_eq!(ask(&mut bench, 3, 2, 2), short(1));
        assert_eq!(ask(&mut bench, 4, 2, 1), (Code::Ok, vec![(1, 0, 1)]));
        assert_eq!(ask(&mut bench, 5, 0, 1), short(0));
        assert_eq!(ask(&mut bench, 6, 2, 1), short(0));
        bench.assert_sound();
        // Stock comes: the shortage is filled before anything is there for others.
        bench.receive(1, 0, 4);
        assert_eq!(ask(&mut bench, 7, 2, 4), short(3));
        assert_eq!(ask(&mut bench, 8, 2, 3), (Code::Ok, vec![(1, 0, 3)]));
        bench.assert_sound();
    }
}

#[test]
fn channels_stand_in_at_most_eight_levels_and_never_below_themselves() {
    let mut bench = Bench::new(1);
    let mut define = |name: &str, parent: Option<&str>| {
        let parent = parent.map(str::to_owned);
        let Definition::Channel { name, group, buffer, policy, .. } = Definition::channel(name) else {
            unreachable!("it is a channel")
        };
        let channel = Definition::Channel { name, parent, group, buffer, policy };
        bench.send_body(Body::Define(Box::new(channel)), &[]).reply.outcome.code
    };
    assert_eq!(define("a", Some("nobody")), Code::UnknownChannel);
    assert_eq!(define("a", Some("a")), Code::UnknownChannel, "it is not there yet");
    assert_eq!(define("a", None), Code::Ok);
    assert_eq!(define("a", Some("a")), Code::InvalidParent);
    for (index, name) in ["b", "c", "d", "e", "f", "g", "h"].into_iter().enumerate() {
        let above = ["a", "b", "c", "d", "e", "f", "g"][index];
        assert_eq!(define(name, Some(above)), Code::Ok, "{name}");
    }
    assert_eq!(define("i", Some("h")), Code::InvalidParent, "a ninth level");
    assert_eq!(define("a", Some("h")), Code::InvalidParent, "a circle");
    // An older channel below a younger one, and what stands below it with it.
    assert_eq!(define("top", None), Code::Ok);
    assert_eq!(define("a", Some("top")), Code::InvalidParent, "h would be the ninth");
    assert_eq!(define("h", None), Code::Ok);
    assert_eq!(define("a", Some("top")), Code::Ok);
    let mut pools = |name: u16| bench.sequencer.catalogue.rules().channels[name as usize].pools.clone();
    // Channels 0 to 3 are the bench's, 4 to 11 are a to h, 12 is top.
    assert_eq!(pools(5)[..], [ChannelId(5), ChannelId(4), ChannelId(12)]);
    let mut again = stockline_core::catalogue::Catalogue::default();
    again.load(&bench.sequencer.catalogue.definitions()).expect("they were good before");
    assert_eq!(again.rules(), bench.sequencer.catalogue.rules());
}
