//! Rule tables: what each command does in each situation.

use stockline_core::bucket::Bucket;
use stockline_core::command::{Body, Fill, Line, Reserve, Transition, Verb};
use stockline_core::event::{EventKind, StockEvent};
use stockline_core::id::{ChannelId, GroupId, Millis, NodeId, ReservationId, SkuId, SupplyId};
use stockline_core::limit;
use stockline_core::outcome::{CODES, Code, State};

use crate::bench::{Bench, any_line, node_line};

const TTL: u32 = 1_000;

/// Sets up stock (sku, node, units), reserves, and compares outcome, parts and what is free at the places.
#[track_caller]
fn check_reserve(
    stock: &[(u32, u16, i64)],
    channel: u16,
    lines: &[Line],
    code: Code,
    parts: &[(u32, u16, u32)],
) {
    check_fill(stock, (channel, Fill::All), lines, code, parts);
}

/// The same for either fill.
#[track_caller]
fn check_fill(
    stock: &[(u32, u16, i64)],
    (channel, fill): (u16, Fill),
    lines: &[Line],
    code: Code,
    parts: &[(u32, u16, u32)],
) {
    for shards in [1, 4] {
        let mut bench = Bench::new(shards);
        for (sku, node, units) in stock {
            bench.receive(*sku, *node, *units);
        }
        let before: Vec<_> = stock.iter().map(|(sku, node, _)| bench.units(*sku, *node)).collect();
        let told = bench.reserve_filled(fill, 7, (channel, TTL), lines);
        assert_eq!(told.reply.outcome.code, code, "{shards} shards");
        assert_eq!(told.parts, parts, "{shards} shards");
        if code != Code::Ok {
            let after: Vec<_> = stock.iter().map(|(sku, node, _)| bench.units(*sku, *node)).collect();
            assert_eq!(before, after, "a refusal changes nothing");
        }
        bench.assert_sound();
    }
}

#[test]
fn a_line_goes_to_the_best_node_that_has_it_all_and_is_split_where_none_has() {
    let stock = [(1, 0, 5), (1, 1, 8), (1, 2, 9)];
    check_reserve(&stock, 0, &[any_line(1, 5)], Code::Ok, &[(1, 0, 5)]);
    check_reserve(&stock, 0, &[any_line(1, 6)], Code::Ok, &[(1, 1, 6)]);
    check_reserve(&stock, 0, &[any_line(1, 9)], Code::Ok, &[(1, 2, 9)]);
    check_reserve(&stock, 0, &[any_line(1, 14)], Code::Ok, &[(1, 0, 5), (1, 1, 8), (1, 2, 1)]);
    check_reserve(&stock, 0, &[any_line(1, 23)], Code::InsufficientStock, &[(1, u16::MAX, 22)]);
}

#[test]
fn named_nodes_and_groups_narrow_a_line() {
    let stock = [(1, 0, 5), (1, 1, 8), (1, 2, 9)];
    check_reserve(&stock, 0, &[node_line(1, 2, 9)], Code::Ok, &[(1, 2, 9)]);
    check_reserve(&stock, 0, &[node_line(1, 2, 10)], Code::InsufficientStock, &[(1, u16::MAX, 9)]);
    let in_group = Line { group: GroupId(0), ..any_line(1, 10) };
    check_reserve(&stock, 0, &[in_group], Code::Ok, &[(1, 1, 8), (1, 2, 2)]);
    // Channel 1 is offered group 0 only: nodes 1 and 2.
    check_reserve(&stock, 1, &[any_line(1, 18)], Code::InsufficientStock, &[(1, u16::MAX, 17)]);
    check_reserve(&stock, 1, &[node_line(1, 0, 1)], Code::NodeNotOffered, &[]);
    // Channel 2 leaves 5 units of each sku alone.
    check_reserve(&stock, 2, &[any_line(1, 18)], Code::InsufficientStock, &[(1, u16::MAX, 17)]);
    check_reserve(&stock, 2, &[any_line(1, 17)], Code::Ok, &[(1, 0, 5), (1, 1, 8), (1, 2, 4)]);
}

#[test]
fn the_same_sku_on_two_lines_is_summed() {
    let stock = [(1, 0, 10)];
    check_reserve(&stock, 0, &[any_line(1, 6), any_line(1, 4)], Code::Ok, &[(1, 0, 10)]);
    let over = [any_line(1, 6), any_line(1, 5)];
    check_reserve(&stock, 0, &over, Code::InsufficientStock, &[(1, u16::MAX, 4)]);
    // A line that names the node chooses before one that does not, whatever their order.
    let stock = [(1, 0, 5), (1, 1, 5)];
    let lines = [any_line(1, 5), node_line(1, 0, 5)];
    check_reserve(&stock, 0, &lines, Code::Ok, &[(1, 0, 5), (1, 1, 5)]);
}

#[test]
fn all_lines_or_none_over_skus_of_different_shards() {
    let stock = [(0, 0, 5), (1, 0, 5), (2, 0, 5), (3, 0, 5)];
    let lines: Vec<Line> = (0..4).map(|sku| any_line(sku, 5)).collect();
    check_reserve(&stock, 0, &lines, Code::Ok, &[(0, 0, 5), (1, 0, 5), (2, 0, 5), (3, 0, 5)]);
    let lines: Vec<Line> = (0..4).map(|sku| any_line(sku, 5 + u32::from(sku == 2))).collect();
    check_reserve(&stock, 0, &lines, Code::InsufficientStock, &[(2, u16::MAX, 5)]);
    let lines: Vec<Line> = (0..4).map(|sku| any_line(sku, 5 + u32::from(sku != 1))).collect();
    let short = [(0, u16::MAX, 5), (2, u16::MAX, 5), (3, u16::MAX, 5)];
    check_reserve(&stock, 0, &lines, Code::InsufficientStock, &short);
}

#[test]
fn a_partial_fill_takes_what_there_is_and_says_what_was_short() {
    let partial = (0, Fill::Partial);
    let stock = [(1, 0, 5), (2, 0, 3), (3, 0, 9)];
    // All there: as without it.
    check_fill(&stock, partial, &[any_line(1, 5), any_line(2, 3)], Code::Ok, &[(1, 0, 5), (2, 0, 3)]);
    // Short lines get what there is; after the claims stand the lines that got less, and how much.
    let lines = [any_line(1, 6), any_line(2, 2), any_line(4, 1)];
    let short = [(1, 0, 5), (2, 0, 2), (1, u16::MAX, 5), (4, u16::MAX, 0)];
    check_fill(&stock, partial, &lines, Code::Ok, &short);
    // The same sku on two lines: the second finds what the first left.
    let lines = [any_line(3, 7), any_line(3, 4)];
    check_fill(&stock, partial, &lines, Code::Ok, &[(3, 0, 9), (3, u16::MAX, 2)]);
    // Nothing of anything is a refusal.
    let lines = [any_line(4, 1), any_line(5, 2)];
    let nothing = [(4, u16::MAX, 0), (5, u16::MAX, 0)];
    check_fill(&stock, partial, &lines, Code::InsufficientStock, &nothing);
    check_fill(&stock, partial, &[any_line(1, 0)], Code::InvalidQuantity, &[]);
    // Channel 2 leaves 5 units of each sku alone.
    check_fill(&stock, (2, Fill::Partial), &[any_line(3, 9)], Code::Ok, &[(3, 0, 4), (3, u16::MAX, 4)]);
    check_fill(&stock, (2, Fill::Partial), &[any_line(1, 1)], Code::InsufficientStock, &[(1, u16::MAX, 0)]);
    // A line over several nodes.
    let stock = [(1, 0, 5), (1, 1, 8)];
    check_fill(&stock, partial, &[any_line(1, 20)], Code::Ok, &[(1, 0, 5), (1, 1, 8), (1, u16::MAX, 13)]);
    // What it gets behind a buffer comes from the best node that has all of that.
    check_fill(&stock, (2, Fill::Partial), &[any_line(1, 9)], Code::Ok, &[(1, 1, 8), (1, u16::MAX, 8)]);
}

#[test]
fn a_partial_fill_whose_first_line_got_nothing_still_ends_in_time() {
    for shards in [1, 4] {
        let mut bench = Bench::new(shards);
        bench.receive(2, 0, 3);
        let told = bench.reserve_filled(Fill::Partial, 7, (0, TTL), &[any_line(1, 1), any_line(2, 5)]);
        assert_eq!(told.parts, [(2, 0, 3), (1, u16::MAX, 0), (2, u16::MAX, 3)], "{shards} shards");
        bench.now = bench.now.plus(u64::from(TTL) + limit::TICK_MS);
        assert_eq!(bench.expire_due(), 1, "{shards} shards");
        assert_eq!(bench.units(2, 0)[..2], [3, 0], "{shards} shards");
        bench.assert_sound();
    }
}

#[test]
fn refusals_of_a_reservation_by_the_catalogue_in_precedence() {
    let stock = [(1, 0, 10)];
    let cases: &[(Line, Code)] = &[
        (any_line(1, 0), Code::InvalidQuantity),
        (any_line(1, limit::QUANTITY_MAX + 1), Code::InvalidQuantity),
        (any_line(1, u32::MAX), Code::InvalidQuantity),
        (any_line(99, 1), Code::UnknownSku),
        // A wrong quantity goes before an unknown sku, an unknown sku before an unknown node.
        (any_line(99, 0), Code::InvalidQuantity),
        (node_line(99, 77, 1), Code::UnknownSku),
        (node_line(1, 77, 1), Code::UnknownNode),
        (Line { group: GroupId(9), ..any_line(1, 1) }, Code::UnknownGroup),
    ];
    for (line, code) in cases {
        check_reserve(&stock, 0, &[*line], *code, &[]);
    }
    check_reserve(&stock, 0, &[], Code::NoLines, &[]);
    check_reserve(&stock, 9, &[any_line(1, 1)], Code::UnknownChannel, &[]);
    let many = vec![any_line(1, 1); limit::RESERVATION_LINES_MAX + 1];
    check_reserve(&stock, 0, &many, Code::TooManyLines, &[]);
    let mut bench = Bench::new(1);
    for ttl_ms in [0, u32::MAX] {
        let told = bench.reserve(u128::from(ttl_ms) + 9, 0, ttl_ms, &[any_line(1, 1)]);
        assert_eq!(told.reply.outcome.code, Code::InvalidTtl);
    }
}

/// Brings a reservation of 4 units into a state, then does a step and compares.
#[track_caller]
fn check_step(from: &str, verb: Verb, code: Code, state: State, free_held_confirmed: [i64; 3]) {
    for shards in [1, 4] {
        let mut bench = Bench::new(shards);
        bench.receive(1, 0, 10);
        bench.receive(2, 1, 10);
        assert_eq!(bench.reserve(7, 0, TTL, &[any_line(1, 4), any_line(2, 4)]).reply.outcome.code, Code::Ok);
        match from {
            "held" => {}
            "over" => bench.now = bench.now.plus(u64::from(TTL)),
            "confirmed" => drop(bench.step(7, Verb::Confirm, 0)),
            "fulfilled" => {
                bench.step(7, Verb::Confirm, 0);
                bench.step(7, Verb::Fulfil, 0);
            }
            "released" => drop(bench.step(7, Verb::Release, 0)),
            "expired" => {
                bench.now = bench.now.plus(u64::from(TTL) + limit::TICK_MS);
                assert_eq!(bench.expire_due(), 1);
            }
            other => panic!("no state {other}"),
        }
        let told = bench.step(7, verb, 5_000);
        assert_eq!((told.reply.outcome.code, told.reply.outcome.state), (code, state), "{from} {verb:?}");
        for (sku, node) in [(1, 0), (2, 1)] {
            let units = bench.units(sku, node);
            assert_eq!(units[..3], free_held_confirmed, "{from} {verb:?} sku {sku}");
        }
        bench.assert_sound();
    }
}

#[test]
fn steps_of_a_reservation_by_state() {
    use Code::{Expired, Ok, WrongState};
    let (held, confirmed, gone, back) = ([6, 4, 0], [6, 0, 4], [6, 0, 0], [10, 0, 0]);
    check_step("held", Verb::Confirm, Ok, State::Confirmed, confirmed);
    check_step("held", Verb::Release, Ok, State::Released, back);
    check_step("held", Verb::Extend, Ok, State::Held, held);
    check_step("held", Verb::Fulfil, WrongState, State::Held, held);
    check_step("over", Verb::Confirm, Expired, State::Held, held);
    check_step("over", Verb::Extend, Expired, State::Held, held);
    check_step("over", Verb::Release, Expired, State::Held, held);
    check_step("confirmed", Verb::Confirm, WrongState, State::Confirmed, confirmed);
    check_step("confirmed", Verb::Release, Ok, State::Released, back);
    check_step("confirmed", Verb::Extend, WrongState, State::Confirmed, confirmed);
    check_step("confirmed", Verb::Fulfil, Ok, State::Fulfilled, gone);
    check_step("expired", Verb::Confirm, Expired, State::Expired, back);
    check_step("expired", Verb::Fulfil, WrongState, State::Expired, back);
    for verb in [Verb::Confirm, Verb::Release, Verb::Extend, Verb::Fulfil] {
        check_step("fulfilled", verb, WrongState, State::Fulfilled, gone);
        check_step("released", verb, WrongState, State::Released, back);
    }
}

#[test]
fn a_hold_ends_never_early_and_at_most_one_tick_late() {
    let mut bench = Bench::new(1);
    bench.receive(1, 0, 10);
    let told = bench.reserve(7, 0, TTL, &[any_line(1, 4)]);
    let end = told.reply.outcome.expires_at;
    assert_eq!(end, bench.now.plus(u64::from(TTL)));
    bench.now = Millis(end.0 - 1);
    assert_eq!(bench.expire_due(), 0);
    bench.now = Millis(end.0 + limit::TICK_MS);
    assert_eq!(bench.expire_due(), 1);
    assert_eq!(bench.units(1, 0)[..2], [10, 0]);
    // An extension moves the end and never shortens it.
    bench.reserve(8, 0, TTL, &[any_line(1, 4)]);
    let longer = bench.step(8, Verb::Extend, 60_000).reply.outcome.expires_at;
    assert_eq!(longer, bench.now.plus(60_000));
    assert_eq!(bench.step(8, Verb::Extend, 10).reply.outcome.expires_at, longer);
    bench.now = bench.now.plus(u64::from(TTL) + limit::TICK_MS);
    assert_eq!(bench.expire_due(), 0);
    bench.now = longer.plus(limit::TICK_MS);
    assert_eq!(bench.expire_due(), 1);
}

#[test]
fn expiries_and_steps_that_find_something_else() {
    let mut bench = Bench::new(4);
    bench.receive(1, 0, 10);
    bench.reserve(7, 0, TTL, &[any_line(1, 4)]);
    let early = bench.send_body(Body::Expire(ReservationId(7)), &[]);
    assert_eq!(early.reply.outcome.code, Code::NotDue);
    assert_eq!(bench.send_body(Body::Expire(ReservationId(8)), &[]).reply.outcome.code, Code::NotDue);
    assert_eq!(bench.step(8, Verb::Confirm, 0).reply.outcome.code, Code::UnknownReservation);
    assert_eq!(bench.step(7, Verb::Extend, 0).reply.outcome.code, Code::InvalidTtl);
    let foreign = Transition {
        reservation: ReservationId(7),
        verb: Verb::Release,
        ttl_ms: 0,
        scope: Some(ChannelId(1)),
        lines: [].into(),
    };
    let told = bench.send_body(Body::Transition(foreign), &[]);
    assert_eq!(told.reply.outcome.code, Code::UnknownReservation, "a foreign channel's looks unknown");
    // The id is taken, also under another key.
    let again = Reserve {
        id: ReservationId(7),
        channel: ChannelId(0),
        ttl_ms: 9,
        fill: Fill::All,
        customer: 0,
        zone: stockline_core::id::ZoneId::NONE,
        labels: stockline_core::label::Labels::NONE,
        first_line: 0,
        line_count: 1,
    };
    let mut command = bench.command(Body::Reserve(again), &[any_line(1, 1)]);
    command.key = bench.key();
    assert_eq!(bench.send(command, &[any_line(1, 1)]).reply.outcome.code, Code::KeyConflict);
    bench.assert_sound();
}

#[test]
fn a_late_count_knows_of_more_units_shipped_at_once_than_32_bits_hold() {
    let mut bench = Bench::new(1);
    let begin = bench.now;
    for _ in 0..3 {
        bench.receive(1, 0, 1_000_000_000);
    }
    bench.now = begin.plus(3_000);
    bench.reserve(7, 0, 60_000, &[any_line(1, 1_000_000_000); 3]);
    bench.step(7, Verb::Confirm, 0);
    bench.step(7, Verb::Fulfil, 0);
    // Taken before they left: two thousand million of the three that left are missing.
    let mut count = bench.make(EventKind::Count, 1, 0, 1_000_000_000);
    count.occurred_at = begin.plus(2_000);
    assert_eq!(bench.event(count.clone()).reply.outcome.code, Code::InsufficientOnHand);
    count.quantity = 1_000_000_000;
    count.occurred_at = begin.plus(4_000);
    bench.now = begin.plus(5_000);
    assert_eq!(bench.event(count).reply.outcome.code, Code::Ok);
    assert_eq!(bench.units(1, 0)[0], 1_000_000_000);
    bench.assert_sound();
}

/// One event on a position with 10 free, 3 held, 2 confirmed (reservation 8, confirmed) and 4 damaged units.
#[track_caller]
fn check_event(
    change: impl Fn(&mut StockEvent),
    kind: EventKind,
    quantity: i64,
    code: Code,
    units: [i64; 9],
) {
    let mut bench = Bench::new(1);
    bench.receive(1, 0, 15);
    bench.reserve(7, 0, 60_000, &[any_line(1, 3)]);
    bench.reserve(8, 0, 60_000, &[any_line(1, 2)]);
    bench.step(8, Verb::Confirm, 0);
    let mut back = bench.make(EventKind::Return, 1, 0, 4);
    back.to = Bucket::Damaged;
    bench.event(back);
    let mut supply = bench.make(EventKind::Supply, 1, 0, 6);
    supply.supply = Some(SupplyId(5));
    bench.event(supply);
    assert_eq!(bench.units(1, 0), [10, 3, 2, 0, 0, 4, 0, 0, 6]);
    let mut event = bench.make(kind, 1, 0, quantity);
    change(&mut event);
    let told = bench.event(event.clone());
    assert_eq!(told.reply.outcome.code, code, "{event:?}");
    assert_eq!(bench.units(1, 0), units, "{event:?}");
    bench.assert_sound();
}

#[test]
fn receipts_and_supplies() {
    let same = [10, 3, 2, 0, 0, 4, 0, 0, 6];
    let plain = |_: &mut StockEvent| {};
    check_event(plain, EventKind::Receipt, 5, Code::Ok, [15, 3, 2, 0, 0, 4, 0, 0, 6]);
    for quantity in [0, -1, i64::MIN, i64::MAX, i64::from(limit::QUANTITY_MAX) + 1] {
        check_event(plain, EventKind::Receipt, quantity, Code::InvalidQuantity, same);
    }
    let of_supply = |event: &mut StockEvent| event.supply = Some(SupplyId(5));
    check_event(of_supply, EventKind::Receipt, 5, Code::Ok, [15, 3, 2, 0, 0, 4, 0, 0, 1]);
    check_event(of_supply, EventKind::Receipt, 9, Code::Ok, [19, 3, 2, 0, 0, 4, 0, 0, 0]);
    let unknown = |event: &mut StockEvent| event.supply = Some(SupplyId(6));
    check_event(unknown, EventKind::Receipt, 5, Code::UnknownSupply, same);
    check_event(of_supply, EventKind::Supply, 2, Code::Ok, [10, 3, 2, 0, 0, 4, 0, 0, 2]);
    check_event(of_supply, EventKind::Supply, 0, Code::Ok, [10, 3, 2, 0, 0, 4, 0, 0, 0]);
    check_event(plain, EventKind::Supply, 2, Code::InvalidEvent, same);
    let nowhere = |event: &mut StockEvent| event.node = NodeId(9);
    check_event(nowhere, EventKind::Receipt, 5, Code::UnknownNode, same);
    let nothing = |event: &mut StockEvent| event.sku = SkuId(99);
    check_event(nothing, EventKind::Receipt, 5, Code::UnknownSku, same);
    let tomorrow = |event: &mut StockEvent| event.occurred_at = event.occurred_at.plus(86_400_000);
    check_event(tomorrow, EventKind::Receipt, 5, Code::EventInFuture, same);
}

#[test]
fn picks_and_shipments() {
    let same = [10, 3, 2, 0, 0, 4, 0, 0, 6];
    let plain = |_: &mut StockEvent| {};
    let order = |id: u128| move |event: &mut StockEvent| event.reservation = Some(ReservationId(id));
    check_event(plain, EventKind::Pick, 4, Code::Ok, [6, 3, 2, 4, 0, 4, 0, 0, 6]);
    check_event(plain, EventKind::Pick, 11, Code::InsufficientStock, same);
    check_event(plain, EventKind::Ship, 4, Code::Ok, [6, 3, 2, 0, 0, 4, 0, 0, 6]);
    check_event(plain, EventKind::Ship, 11, Code::InsufficientStock, same);
    check_event(order(8), EventKind::Pick, 2, Code::Ok, [10, 3, 0, 2, 0, 4, 0, 0, 6]);
    check_event(order(8), EventKind::Pick, 3, Code::InsufficientClaim, same);
    check_event(order(8), EventKind::Ship, 1, Code::Ok, [10, 3, 1, 0, 0, 4, 0, 0, 6]);
    check_event(order(7), EventKind::Ship, 1, Code::WrongState, same);
    check_event(order(9), EventKind::Ship, 1, Code::UnknownReservation, same);
}

#[test]
fn a_shipment_takes_what_was_picked_for_it_first() {
    let mut bench = Bench::new(1);
    bench.receive(1, 0, 20);
    bench.reserve(7, 0, 60_000, &[any_line(1, 6)]);
    bench.step(7, Verb::Confirm, 0);
    let mut pick = bench.make(EventKind::Pick, 1, 0, 4);
    pick.reservation = Some(ReservationId(7));
    bench.event(pick);
    let free_pick = bench.make(EventKind::Pick, 1, 0, 3);
    bench.event(free_pick);
    assert_eq!(bench.units(1, 0)[..4], [11, 0, 2, 7]);
    let mut ship = bench.make(EventKind::Ship, 1, 0, 5);
    ship.reservation = Some(ReservationId(7));
    bench.event(ship);
    assert_eq!(bench.units(1, 0)[..4], [11, 0, 1, 3], "four picked, one confirmed");
    let free_ship = bench.make(EventKind::Ship, 1, 0, 4);
    bench.event(free_ship);
    assert_eq!(bench.units(1, 0)[..4], [10, 0, 1, 0], "three picked for nobody, one free");
    bench.assert_sound();
    // What nobody picked stays, unless it is said that all of it goes.
    let told = bench.step(7, Verb::Fulfil, 0).reply.outcome;
    assert_eq!((told.code, told.state), (Code::PartlyPicked, State::Confirmed));
    bench.step(7, Verb::Fulfil, 1);
    assert_eq!(bench.units(1, 0)[..4], [10, 0, 0, 0]);
    bench.assert_sound();
    // Released with units picked: they go back to the shelf.
    bench.reserve(8, 0, 60_000, &[any_line(1, 6)]);
    bench.step(8, Verb::Confirm, 0);
    let mut pick = bench.make(EventKind::Pick, 1, 0, 4);
    pick.reservation = Some(ReservationId(8));
    bench.event(pick);
    bench.step(8, Verb::Release, 0);
    assert_eq!(bench.units(1, 0)[..4], [10, 0, 0, 0]);
    bench.assert_sound();
}

#[test]
fn adjustments_counts_returns_and_status_changes() {
    let same = [10, 3, 2, 0, 0, 4, 0, 0, 6];
    let plain = |_: &mut StockEvent| {};
    check_event(plain, EventKind::Adjustment, 5, Code::Ok, [15, 3, 2, 0, 0, 4, 0, 0, 6]);
    check_event(plain, EventKind::Adjustment, -5, Code::Ok, [5, 3, 2, 0, 0, 4, 0, 0, 6]);
    // A loss of more than is free is a fact: a shortage, seen by everybody.
    check_event(plain, EventKind::Adjustment, -12, Code::Ok, [-2, 3, 2, 0, 0, 4, 0, 0, 6]);
    check_event(plain, EventKind::Adjustment, -20, Code::InsufficientOnHand, same);
    check_event(plain, EventKind::Adjustment, 0, Code::InvalidQuantity, same);
    // On hand are 10 + 3 + 2 + 4 = 19.
    check_event(plain, EventKind::Count, 19, Code::Ok, same);
    check_event(plain, EventKind::Count, 4, Code::Ok, [-5, 3, 2, 0, 0, 4, 0, 0, 6]);
    check_event(plain, EventKind::Count, 0, Code::Ok, [-9, 3, 2, 0, 0, 4, 0, 0, 6]);
    check_event(plain, EventKind::Count, -1, Code::InvalidQuantity, same);
    let expecting = |units| move |event: &mut StockEvent| event.expected = Some(units);
    check_event(expecting(19), EventKind::Count, 20, Code::Ok, [11, 3, 2, 0, 0, 4, 0, 0, 6]);
    check_event(expecting(18), EventKind::Count, 20, Code::ExpectedMismatch, same);
    check_event(expecting(18), EventKind::Adjustment, 1, Code::ExpectedMismatch, same);
    let to = |bucket| move |event: &mut StockEvent| event.to = bucket;
    check_event(to(Bucket::Quality), EventKind::Return, 2, Code::Ok, [10, 3, 2, 0, 0, 4, 2, 0, 6]);
    check_event(to(Bucket::Held), EventKind::Return, 2, Code::InvalidEvent, same);
    let between = |from, to| {
        move |event: &mut StockEvent| {
            event.from = from;
            event.to = to;
        }
    };
    let change = EventKind::StatusChange;
    check_event(between(Bucket::Free, Bucket::Safety), change, 4, Code::Ok, [6, 3, 2, 0, 4, 4, 0, 0, 6]);
    check_event(between(Bucket::Damaged, Bucket::Free), change, 4, Code::Ok, [14, 3, 2, 0, 0, 0, 0, 0, 6]);
    check_event(between(Bucket::Damaged, Bucket::Free), change, 5, Code::InsufficientStock, same);
    check_event(between(Bucket::Free, Bucket::Free), change, 5, Code::InvalidEvent, same);
    check_event(between(Bucket::Held, Bucket::Free), change, 1, Code::InvalidEvent, same);
}

#[test]
fn a_shortage_is_seen_and_never_eats_another_nodes_stock() {
    let mut bench = Bench::new(1);
    bench.receive(1, 0, 10);
    bench.receive(1, 1, 3);
    bench.reserve(7, 0, 60_000, &[node_line(1, 0, 8)]);
    let count = bench.make(EventKind::Count, 1, 0, 5);
    assert_eq!(bench.event(count).reply.outcome.code, Code::Ok);
    assert_eq!(bench.units(1, 0)[..2], [-3, 8]);
    let told = bench.reserve(8, 0, 60_000, &[any_line(1, 3)]);
    assert_eq!(told.parts, [(1, 1, 3)]);
    assert_eq!(bench.reserve(9, 0, 60_000, &[any_line(1, 1)]).parts, [(1, u16::MAX, 0)]);
}

#[test]
fn transfers_show_what_is_short_over_and_damaged() {
    let mut bench = Bench::new(4);
    bench.receive(1, 0, 10);
    let mut leave = bench.make(EventKind::TransferDispatched, 1, 0, 6);
    leave.to_node = NodeId(2);
    leave.supply = Some(SupplyId(77));
    assert_eq!(bench.event(leave.clone()).reply.outcome.code, Code::Ok);
    assert_eq!((bench.units(1, 0)[0], bench.units(1, 2)[8]), (4, 6));
    bench.assert_sound();
    leave.quantity = 5;
    assert_eq!(bench.event(leave.clone()).reply.outcome.code, Code::InsufficientStock);
    leave.to_node = NodeId(0);
    assert_eq!(bench.event(leave).reply.outcome.code, Code::InvalidEvent);
    let mut arrive = bench.make(EventKind::TransferReceived, 1, 2, 4);
    arrive.supply = Some(SupplyId(77));
    arrive.damaged = 1;
    assert_eq!(bench.event(arrive.clone()).reply.outcome.code, Code::Ok);
    let units = bench.units(1, 2);
    assert_eq!((units[0], units[5], units[8]), (3, 1, 2), "two are still missing");
    arrive.damaged = 5;
    assert_eq!(bench.event(arrive.clone()).reply.outcome.code, Code::InvalidEvent);
    arrive.damaged = 0;
    assert_eq!(bench.event(arrive.clone()).reply.outcome.code, Code::Ok);
    let units = bench.units(1, 2);
    assert_eq!((units[0], units[5], units[8]), (7, 1, 0), "two more than were sent");
    assert_eq!(bench.event(arrive).reply.outcome.code, Code::UnknownSupply, "it is closed");
    bench.assert_sound();
}

#[test]
fn counts_and_changes_arrive_in_any_order() {
    // At 0 s 10 received, at 20 s 3 shipped; a count of 10 taken at 10 s arrives last: 7 are there.
    let mut bench = Bench::new(1);
    let start = bench.now;
    bench.receive(1, 0, 10);
    bench.now = start.plus(20_000);
    let ship = bench.make(EventKind::Ship, 1, 0, 3);
    bench.event(ship);
    let mut more = bench.make(EventKind::Receipt, 1, 0, 2);
    more.occurred_at = start.plus(5_000);
    bench.event(more);
    assert_eq!(bench.units(1, 0)[0], 9);
    let mut count = bench.make(EventKind::Count, 1, 0, 12);
    count.occurred_at = start.plus(10_000);
    assert_eq!(bench.event(count.clone()).reply.outcome.code, Code::Ok);
    assert_eq!(bench.units(1, 0)[0], 9, "12 at 10 s less 3 at 20 s");
    count.quantity = 11;
    assert_eq!(bench.event(count.clone()).reply.outcome.code, Code::Ok);
    assert_eq!(bench.units(1, 0)[0], 8);
    // What happened before the count and arrives after it was counted already.
    let mut late = bench.make(EventKind::Receipt, 1, 0, 50);
    late.occurred_at = start.plus(9_000);
    assert_eq!(bench.event(late).reply.outcome.code, Code::Ok);
    assert_eq!(bench.units(1, 0)[0], 8);
    let mut late = bench.make(EventKind::Ship, 1, 0, 2);
    late.occurred_at = start.plus(9_000);
    bench.event(late);
    assert_eq!(bench.units(1, 0)[0], 8);
    // An older count is superseded.
    count.occurred_at = start.plus(9_999);
    assert_eq!(bench.event(count).reply.outcome.code, Code::CountTooLate);
    bench.assert_sound();
    // Long after, with movements since, it can no longer be told what was there.
    bench.now = bench.now.plus(limit::COUNT_LATE_MS_MAX + 60_000);
    let receipt = bench.make(EventKind::Receipt, 1, 0, 1);
    bench.event(receipt);
    let mut old = bench.make(EventKind::Count, 1, 0, 5);
    old.occurred_at = start.plus(30_000);
    assert_eq!(bench.event(old).reply.outcome.code, Code::CountTooLate);
}

#[test]
fn what_was_fulfilled_counts_for_late_counts() {
    let mut bench = Bench::new(1);
    let start = bench.now;
    bench.receive(1, 0, 10);
    bench.reserve(7, 0, 60_000, &[any_line(1, 3)]);
    bench.step(7, Verb::Confirm, 0);
    bench.now = start.plus(20_000);
    bench.step(7, Verb::Fulfil, 0);
    let mut count = bench.make(EventKind::Count, 1, 0, 10);
    count.occurred_at = start.plus(10_000);
    assert_eq!(bench.event(count).reply.outcome.code, Code::Ok);
    assert_eq!(bench.units(1, 0)[0], 7, "ten on the shelf, then three left");
    bench.assert_sound();
}

#[test]
fn no_bucket_overflows_whatever_is_counted_away() {
    let mut bench = Bench::new(1);
    let most = i64::from(limit::QUANTITY_MAX);
    let broken = |bench: &mut Bench| {
        let mut event = bench.make(EventKind::Return, 1, 0, most);
        event.to = Bucket::Damaged;
        bench.event(event).reply.outcome.code
    };
    for _ in 0..4 {
        assert_eq!(broken(&mut bench), Code::Ok);
    }
    let nothing = bench.make(EventKind::Count, 1, 0, 0);
    assert_eq!(bench.event(nothing).reply.outcome.code, Code::Ok);
    assert_eq!(broken(&mut bench), Code::PositionLimit);
    bench.assert_sound();
}

#[test]
fn a_reservation_without_the_sku_is_unknown_to_its_picks_for_any_number_of_shards() {
    for shards in [1, 4] {
        let mut bench = Bench::new(shards);
        bench.receive(1, 0, 10);
        bench.receive(2, 0, 10);
        bench.reserve(7, 0, 60_000, &[any_line(1, 3)]);
        bench.step(7, Verb::Confirm, 0);
        let mut pick = bench.make(EventKind::Pick, 2, 0, 1);
        pick.reservation = Some(ReservationId(7));
        assert_eq!(bench.event(pick).reply.outcome.code, Code::UnknownReservation);
    }
}

#[test]
fn a_stampede_on_a_hundred_units_takes_exactly_a_hundred() {
    let mut bench = Bench::new(4);
    bench.receive(1, 0, 60);
    bench.receive(1, 2, 40);
    let granted = (0..1_000u128)
        .filter(|id| bench.reserve(id + 1, 0, 60_000, &[any_line(1, 1)]).reply.outcome.code == Code::Ok)
        .count();
    assert_eq!(granted, 100);
    assert_eq!((bench.units(1, 0)[0], bench.units(1, 2)[0]), (0, 0));
    bench.assert_sound();
}

#[test]
fn a_position_has_room_for_so_many_units_only() {
    let mut bench = Bench::new(1);
    for _ in 0..4 {
        bench.receive(1, 0, i64::from(limit::QUANTITY_MAX));
    }
    let one_more = bench.make(EventKind::Receipt, 1, 0, 1);
    assert_eq!(bench.event(one_more).reply.outcome.code, Code::PositionLimit);
    bench.assert_sound();
}

#[test]
fn codes_stand_in_the_order_of_their_numbers() {
    assert!(CODES.windows(2).all(|pair| (pair[0] as u8) < pair[1] as u8));
    assert!(CODES.iter().all(|code| Code::from_number(*code as u8) == Some(*code)));
}

#[test]
fn a_million_holds_that_end_together_end_in_turns_and_every_unit_comes_back() {
    const HOLDS: u128 = 1_000_000;
    let mut bench = Bench::new(1);
    bench.receive(1, 0, HOLDS as i64);
    let ends = bench.now.plus(5_000);
    let mut id = 0;
    while id < HOLDS {
        let mut frame = stockline_core::command::Frame {
            tag: (),
            principal: crate::bench::WHO,
            commands: vec![],
            lines: vec![],
        };
        for _ in 0..1_000 {
            id += 1;
            frame.lines.push(any_line(1, 1));
            let reserve = stockline_core::command::Reserve {
                id: stockline_core::id::ReservationId(id),
                channel: stockline_core::id::ChannelId(0),
                ttl_ms: ends.since(bench.now) as u32,
                fill: Fill::All,
                customer: 0,
                zone: stockline_core::id::ZoneId::NONE,
                labels: stockline_core::label::Labels::NONE,
                first_line: frame.lines.len() as u32 - 1,
                line_count: 1,
            };
            let body = stockline_core::command::Body::Reserve(reserve.clone());
            let line = &frame.lines[frame.lines.len() - 1..];
            let digest = stockline_core::record::digest(
                &stockline_core::command::Body::Reserve(stockline_core::command::Reserve {
                    first_line: 0,
                    ..reserve
                }),
                line,
            );
            let (key, issued_at) = (stockline_core::id::Key(id), bench.now);
            frame.commands.push(stockline_core::command::Command { key, issued_at, digest, body });
        }
        bench.send_frames(vec![frame]);
        bench.journal.clear();
        bench.now = bench.now.plus(1);
    }
    assert_eq!(bench.units(1, 0)[..2], [0, HOLDS as i64]);
    bench.now = ends;
    let mut ended = 0;
    loop {
        // As many as one batch takes; the shard goes on with others in between.
        let mut due = Vec::new();
        bench.ledgers[0].take_due(bench.now, (stockline_core::limit::BATCH_EXPIRIES_MAX, 0), &mut due);
        if due.is_empty() {
            break;
        }
        assert!(due.len() <= stockline_core::limit::BATCH_EXPIRIES_MAX);
        ended += due.len();
        for body in due {
            bench.send_body(body, &[]);
        }
        bench.journal.clear();
    }
    assert_eq!(ended, HOLDS as usize);
    assert_eq!(bench.units(1, 0)[..2], [HOLDS as i64, 0]);
    bench.assert_sound();
}

#[test]
fn a_sku_has_a_bounded_number_of_open_supplies() {
    for shards in [1, 4] {
        let mut bench = Bench::new(shards);
        let mut tell = |number: u64, quantity: i64| {
            let mut supply = bench.make(EventKind::Supply, 1, 0, quantity);
            supply.supply = Some(SupplyId(u128::from(number)));
            bench.event(supply).reply.outcome.code
        };
        let most = limit::SUPPLIES_PER_SKU_MAX as u64;
        assert!((1..=most).all(|number| tell(number, 5) == Code::Ok));
        assert_eq!(tell(most + 1, 5), Code::TooManySupplies);
        // One that is known may change, and one that is called off makes room.
        assert_eq!(tell(most, 6), Code::Ok);
        assert_eq!(tell(1, 0), Code::Ok);
        assert_eq!(tell(most + 1, 5), Code::Ok);
        assert_eq!(bench.units(1, 0)[8], 5 * (most as i64 - 1) + 6);
        bench.assert_sound();
    }
}
