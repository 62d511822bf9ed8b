//! Rule tables of claims: steps that take some lines, moves between nodes, late confirmations, limits of open holds,
//! what counts as low. Each on one shard and on four.

use stockline_core::command::{Body, Fill, Line, Reserve, StepLine, Verb};
use stockline_core::event::EventKind;
use stockline_core::id::{ChannelId, NodeId, ReservationId, SkuId};
use stockline_core::limit;
use stockline_core::outcome::{Code, State};

use crate::bench::{Bench, CUSTOMER_HOLDS_MAX, HOLDS_MAX, Told, any_line, node_line};

const TTL: u32 = 1_000;

fn some(sku: u32, node: u16, quantity: u32) -> StepLine {
    StepLine { sku: SkuId(sku), node: NodeId(node), to_node: NodeId::ANY, quantity }
}

fn to(sku: u32, node: u16, to_node: u16, quantity: u32) -> StepLine {
    StepLine { to_node: NodeId(to_node), ..some(sku, node, quantity) }
}

/// Ten units of skus 1 and 2 at node 0, four of sku 1 at node 1; reservation 7 of channel 0 claims four and three at
/// node 0. Skus 1 and 2 are of different shards.
fn ground(shards: u32) -> Bench {
    let mut bench = Bench::new(shards);
    bench.receive(1, 0, 10);
    bench.receive(2, 0, 10);
    bench.receive(1, 1, 4);
    bench.reserve(7, 0, TTL, &[any_line(1, 4), any_line(2, 3)]);
    bench
}

type Step<'a> = (Verb, &'a [StepLine]);

/// Free, held, confirmed, picked.
type Units = [i64; 4];

#[track_caller]
fn check(before: &[Step<'_>], (verb, lines): Step<'_>, told: (Code, State), one: Units, two: Units) {
    for shards in [1, 4] {
        let mut bench = ground(shards);
        for (verb, lines) in before {
            let told = bench.step_lines(7, *verb, lines);
            assert_eq!(told.reply.outcome.code, Code::Ok, "{shards} shards: {verb:?} {lines:?}");
        }
        let outcome = bench.step_lines(7, verb, lines).reply.outcome;
        assert_eq!((outcome.code, outcome.state), told, "{shards} shards");
        assert_eq!(bench.units(1, 0)[..4], one, "{shards} shards");
        assert_eq!(bench.units(2, 0)[..4], two, "{shards} shards");
        bench.assert_sound();
    }
}

#[test]
fn a_part_is_confirmed_and_the_rest_stays_held() {
    let held = (Code::Ok, State::Held);
    check(&[], (Verb::Confirm, &[some(1, 0, 3)]), held, [6, 1, 3, 0], [7, 3, 0, 0]);
    check(&[], (Verb::Confirm, &[some(1, 0, 4)]), held, [6, 0, 4, 0], [7, 3, 0, 0]);
    // All of it, in one step or in several, and the rest at once.
    let confirmed = (Code::Ok, State::Confirmed);
    let all = [some(1, 0, 4), some(2, 0, 3)];
    check(&[], (Verb::Confirm, &all), confirmed, [6, 0, 4, 0], [7, 0, 3, 0]);
    let first: Step<'_> = (Verb::Confirm, &all[..1]);
    check(&[first], (Verb::Confirm, &all[1..]), confirmed, [6, 0, 4, 0], [7, 0, 3, 0]);
    check(&[first], (Verb::Confirm, &[]), confirmed, [6, 0, 4, 0], [7, 0, 3, 0]);
    // The same claim twice is summed; too much of one line refuses all lines.
    let twice = [some(1, 0, 2), some(1, 0, 2)];
    check(&[], (Verb::Confirm, &twice), held, [6, 0, 4, 0], [7, 3, 0, 0]);
    let much = (Code::InsufficientClaim, State::Held);
    let over = [some(2, 0, 3), some(1, 0, 2), some(1, 0, 3)];
    check(&[], (Verb::Confirm, &over), much, [6, 4, 0, 0], [7, 3, 0, 0]);
    check(&[], (Verb::Confirm, &[some(1, 1, 1)]), much, [6, 4, 0, 0], [7, 3, 0, 0]);
    check(&[], (Verb::Confirm, &[some(3, 0, 1)]), much, [6, 4, 0, 0], [7, 3, 0, 0]);
    check(&[first], (Verb::Confirm, &[some(1, 0, 1)]), much, [6, 0, 4, 0], [7, 3, 0, 0]);
}

#[test]
fn a_part_is_released_held_before_confirmed_before_picked() {
    let held = (Code::Ok, State::Held);
    check(&[], (Verb::Release, &[some(1, 0, 3)]), held, [9, 1, 0, 0], [7, 3, 0, 0]);
    let confirm: Step<'_> = (Verb::Confirm, &[some(1, 0, 3)]);
    check(&[confirm], (Verb::Release, &[some(1, 0, 2)]), held, [8, 0, 2, 0], [7, 3, 0, 0]);
    // The last that is held goes, something confirmed stays; the last of all goes.
    let rest = [some(1, 0, 1), some(2, 0, 3)];
    check(&[confirm], (Verb::Release, &rest), (Code::Ok, State::Confirmed), [7, 0, 3, 0], [10, 0, 0, 0]);
    let all = [some(1, 0, 4), some(2, 0, 3)];
    let released = (Code::Ok, State::Released);
    check(&[], (Verb::Release, &all), released, [10, 0, 0, 0], [10, 0, 0, 0]);
    check(&[(Verb::Release, &all[..1])], (Verb::Release, &all[1..]), released, [10, 0, 0, 0], [10, 0, 0, 0]);
    let ended = (Code::WrongState, State::Released);
    check(&[(Verb::Release, &all)], (Verb::Release, &[some(1, 0, 1)]), ended, [10, 0, 0, 0], [10, 0, 0, 0]);
}

#[test]
fn a_part_is_fulfilled_once_it_is_confirmed() {
    let refused = (Code::WrongState, State::Held);
    check(&[], (Verb::Fulfil, &[some(1, 0, 1)]), refused, [6, 4, 0, 0], [7, 3, 0, 0]);
    let confirm: Step<'_> = (Verb::Confirm, &[some(1, 0, 3)]);
    let held = (Code::Ok, State::Held);
    check(&[confirm], (Verb::Fulfil, &[some(1, 0, 2)]), held, [6, 1, 1, 0], [7, 3, 0, 0]);
    // All of it only when all of it is confirmed.
    check(&[confirm], (Verb::Fulfil, &[]), refused, [6, 1, 3, 0], [7, 3, 0, 0]);
    let much = (Code::InsufficientClaim, State::Held);
    check(&[confirm], (Verb::Fulfil, &[some(1, 0, 4)]), much, [6, 1, 3, 0], [7, 3, 0, 0]);
    let all: Step<'_> = (Verb::Confirm, &[]);
    let one: Step<'_> = (Verb::Fulfil, &[some(1, 0, 4)]);
    let confirmed = (Code::Ok, State::Confirmed);
    check(&[all], one, confirmed, [6, 0, 0, 0], [7, 0, 3, 0]);
    check(
        &[all, one],
        (Verb::Fulfil, &[some(2, 0, 3)]),
        (Code::Ok, State::Fulfilled),
        [6, 0, 0, 0],
        [7, 0, 0, 0],
    );
    let two = (Code::Ok, State::Released);
    check(&[all, one], (Verb::Release, &[some(2, 0, 3)]), two, [6, 0, 0, 0], [10, 0, 0, 0]);
}

#[test]
fn picks_and_shipments_of_what_is_confirmed_in_part() {
    for shards in [1, 4] {
        let mut bench = ground(shards);
        let issue = |bench: &mut Bench, kind, quantity| {
            let mut event = bench.make(kind, 1, 0, quantity);
            event.reservation = Some(ReservationId(7));
            bench.event(event).reply.outcome.code
        };
        assert_eq!(issue(&mut bench, EventKind::Pick, 1), Code::WrongState);
        bench.step_lines(7, Verb::Confirm, &[some(1, 0, 3)]);
        assert_eq!(issue(&mut bench, EventKind::Pick, 4), Code::InsufficientClaim);
        assert_eq!(issue(&mut bench, EventKind::Pick, 2), Code::Ok);
        assert_eq!(issue(&mut bench, EventKind::Ship, 3), Code::Ok);
        assert_eq!(bench.units(1, 0)[..4], [6, 1, 0, 0]);
        // What is still held ends; what was confirmed, shipped though it is, stays until somebody says it is done.
        bench.now = bench.now.plus(u64::from(TTL) + limit::TICK_MS);
        assert_eq!(bench.expire_due(), 1);
        assert_eq!(bench.units(1, 0)[..4], [7, 0, 0, 0]);
        assert_eq!(bench.units(2, 0)[..4], [10, 0, 0, 0]);
        let done = bench.step(7, Verb::Fulfil, 0).reply.outcome;
        assert_eq!((done.code, done.state), (Code::Ok, State::Fulfilled));
        bench.assert_sound();
    }
}

#[test]
fn the_held_part_expires_and_the_confirmed_part_stays() {
    for shards in [1, 4] {
        let mut bench = ground(shards);
        let end = bench.step_lines(7, Verb::Confirm, &[some(1, 0, 3)]).reply.outcome.expires_at;
        assert_eq!(end, bench.now.plus(u64::from(TTL)), "its end is not moved");
        bench.now = end;
        let late = bench.step_lines(7, Verb::Confirm, &[some(1, 0, 1)]).reply.outcome;
        assert_eq!((late.code, late.state), (Code::Expired, State::Held));
        bench.now = end.plus(limit::TICK_MS);
        assert_eq!(bench.expire_due(), 1, "{shards} shards");
        assert_eq!(bench.units(1, 0)[..4], [7, 0, 3, 0]);
        assert_eq!(bench.units(2, 0)[..4], [10, 0, 0, 0]);
        let again = bench.step(7, Verb::Confirm, 0).reply.outcome;
        assert_eq!((again.code, again.state), (Code::WrongState, State::Confirmed));
        bench.assert_sound();
    }
}

#[test]
fn a_claim_moves_to_where_units_are_free_or_stays_where_it_was() {
    let held = (Code::Ok, State::Held);
    check(&[], (Verb::Move, &[to(1, 0, 1, 4)]), held, [10, 0, 0, 0], [7, 3, 0, 0]);
    check(&[], (Verb::Move, &[to(1, 0, 1, 1)]), held, [7, 3, 0, 0], [7, 3, 0, 0]);
    // There and back again.
    let there: Step<'_> = (Verb::Move, &[to(1, 0, 1, 4)]);
    check(&[there], (Verb::Move, &[to(1, 1, 0, 4)]), held, [6, 4, 0, 0], [7, 3, 0, 0]);
    // Confirmed units stay confirmed.
    let confirm: Step<'_> = (Verb::Confirm, &[]);
    check(&[confirm], there, (Code::Ok, State::Confirmed), [10, 0, 0, 0], [7, 0, 3, 0]);
    // Nothing free there: nothing moves, the line that could included.
    let short = (Code::InsufficientStock, State::Held);
    check(&[], (Verb::Move, &[to(1, 0, 1, 1), to(2, 0, 1, 1)]), short, [6, 4, 0, 0], [7, 3, 0, 0]);
    check(&[], (Verb::Move, &[to(1, 0, 1, 3), to(1, 0, 2, 1)]), short, [6, 4, 0, 0], [7, 3, 0, 0]);
    let much = (Code::InsufficientClaim, State::Held);
    check(&[], (Verb::Move, &[to(1, 0, 1, 5)]), much, [6, 4, 0, 0], [7, 3, 0, 0]);
    check(&[], (Verb::Move, &[to(2, 1, 0, 1)]), much, [6, 4, 0, 0], [7, 3, 0, 0]);
}

#[test]
fn units_that_go_there_and_back_do_not_move() {
    for shards in [1, 4] {
        let mut bench = Bench::new(shards);
        bench.receive(1, 0, 1_000_000_000);
        bench.receive(1, 1, 1_000_000_000);
        bench.reserve(7, 0, TTL, &[any_line(1, 1_000_000_000)]);
        let trip = [to(1, 0, 1, 1_000_000_000), to(1, 1, 0, 1_000_000_000)];
        let told = bench.step_lines(7, Verb::Move, &trip.repeat(8));
        assert_eq!(told.reply.outcome.code, Code::Ok);
        assert_eq!(bench.units(1, 0)[..2], [0, 1_000_000_000]);
        let told = bench.step_lines(7, Verb::Move, &[&trip.repeat(8)[..], &trip[..1]].concat());
        assert_eq!(told.reply.outcome.code, Code::Ok);
        assert_eq!(bench.units(1, 0)[..2], [1_000_000_000, 0]);
        assert_eq!(bench.units(1, 1)[..2], [0, 1_000_000_000]);
        bench.assert_sound();
    }
}

#[test]
fn a_move_to_a_node_that_the_channel_is_not_offered_and_other_refusals_in_precedence() {
    for shards in [1, 4] {
        let mut bench = Bench::new(shards);
        bench.receive(1, 1, 5);
        bench.receive(1, 0, 5);
        bench.reserve(7, 1, TTL, &[any_line(1, 2), any_line(1, 1)]);
        let code =
            |bench: &mut Bench, verb, lines: &[StepLine]| bench.step_lines(7, verb, lines).reply.outcome.code;
        assert_eq!(code(&mut bench, Verb::Move, &[to(1, 1, 0, 1)]), Code::NodeNotOffered);
        // Also where it claims too little: the code of higher precedence.
        assert_eq!(code(&mut bench, Verb::Move, &[to(2, 1, 0, 9)]), Code::NodeNotOffered);
        assert_eq!(code(&mut bench, Verb::Move, &[to(1, 9, 2, 1)]), Code::UnknownNode);
        assert_eq!(code(&mut bench, Verb::Move, &[to(1, 1, 9, 1)]), Code::UnknownNode);
        assert_eq!(code(&mut bench, Verb::Confirm, &[some(99, 1, 1)]), Code::UnknownSku);
        assert_eq!(code(&mut bench, Verb::Confirm, &[some(1, 1, 0)]), Code::InvalidQuantity);
        assert_eq!(code(&mut bench, Verb::Confirm, &[some(1, 1, u32::MAX)]), Code::InvalidQuantity);
        let many = vec![some(1, 1, 1); limit::RESERVATION_LINES_MAX + 1];
        assert_eq!(code(&mut bench, Verb::Confirm, &many), Code::TooManyLines);
        assert_eq!(
            bench.step_lines(8, Verb::Confirm, &[some(1, 1, 1), some(2, 1, 1)]).reply.outcome.code,
            Code::UnknownReservation,
            "{shards} shards"
        );
        assert_eq!(bench.units(1, 1)[..2], [2, 3]);
        bench.assert_sound();
    }
}

/// A hold of channel 3 whose time is over; then what `between` does; then a confirmation.
fn late(shards: u32, expired: bool, between: impl Fn(&mut Bench)) -> (Bench, Told) {
    let mut bench = Bench::new(shards);
    bench.receive(1, 0, 4);
    bench.receive(1, 1, 9);
    bench.receive(2, 0, 3);
    bench.reserve(7, 3, TTL, &[any_line(1, 4), any_line(2, 3)]);
    bench.now = bench.now.plus(u64::from(TTL));
    if expired {
        bench.now = bench.now.plus(limit::TICK_MS);
        assert_eq!(bench.expire_due(), 1);
    }
    between(&mut bench);
    let told = bench.step(7, Verb::Confirm, 0);
    bench.assert_sound();
    (bench, told)
}

#[test]
fn a_late_confirmation_claims_again_what_there_is_and_says_so() {
    let take = |node, quantity| {
        move |bench: &mut Bench| drop(bench.reserve(8, 0, TTL, &[node_line(1, node, quantity)]))
    };
    let mut refusals = Vec::new();
    for shards in [1, 4] {
        // Not expired yet: it simply keeps its units.
        let (bench, told) = late(shards, false, |_| {});
        let outcome = told.reply.outcome;
        assert_eq!((outcome.code, outcome.state, outcome.reacquired), (Code::Ok, State::Confirmed, true));
        assert_eq!(told.parts, [(1, 0, 4), (2, 0, 3)]);
        assert_eq!(bench.units(1, 0)[..3], [0, 0, 4]);
        // Expired: the same node, if it still has them ...
        let (bench, told) = late(shards, true, |_| {});
        assert!(told.reply.outcome.reacquired, "{shards} shards");
        assert_eq!(told.parts, [(1, 0, 4), (2, 0, 3)]);
        assert_eq!(bench.units(2, 0)[..3], [0, 0, 3]);
        // ... or else wherever the channel may ...
        let (bench, told) = late(shards, true, take(0, 1));
        assert_eq!(told.parts, [(1, 1, 4), (2, 0, 3)]);
        assert_eq!(bench.units(1, 1)[..3], [5, 0, 4]);
        // ... and nothing, where one line is short.
        let (bench, told) = late(shards, true, |bench| {
            bench.reserve(8, 0, TTL, &[any_line(2, 1)]);
        });
        let outcome = told.reply.outcome;
        let due = (Code::InsufficientStock, State::Expired, false);
        assert_eq!((outcome.code, outcome.state, outcome.reacquired), due, "{shards} shards");
        assert_eq!(bench.units(1, 0)[..3], [4, 0, 0], "{shards} shards");
        assert!(told.parts.is_empty());
        // Whichever part refuses, the journal is told the same.
        refusals.push([1, 2].map(|sku| {
            let (_, told) = late(shards, true, |bench| {
                bench.reserve_filled(Fill::Partial, 8, (0, TTL), &[any_line(sku, 1_000)]);
            });
            assert_eq!(told.reply.outcome.code, Code::InsufficientStock);
            told.reply.outcome
        }));
    }
    assert_eq!(refusals[0], refusals[1]);
}

#[test]
fn what_was_confirmed_late_is_like_any_other() {
    for shards in [1, 4] {
        let (mut bench, _) = late(shards, true, |_| {});
        assert_eq!(bench.step(7, Verb::Confirm, 0).reply.outcome.code, Code::WrongState);
        let done = bench.step(7, Verb::Release, 0).reply.outcome;
        assert_eq!((done.code, done.state), (Code::Ok, State::Released));
        assert_eq!(bench.units(1, 0)[..3], [4, 0, 0]);
        // Another channel's policy is to refuse.
        bench.reserve(9, 0, TTL, &[any_line(1, 1)]);
        bench.now = bench.now.plus(u64::from(TTL) + limit::TICK_MS);
        assert_eq!(bench.expire_due(), 1);
        assert_eq!(bench.step(9, Verb::Confirm, 0).reply.outcome.code, Code::Expired);
        // So is that of a step with lines.
        bench.reserve(10, 3, TTL, &[any_line(1, 1)]);
        bench.now = bench.now.plus(u64::from(TTL) + limit::TICK_MS);
        assert_eq!(bench.expire_due(), 1);
        let lines = [some(1, 0, 1)];
        assert_eq!(bench.step_lines(10, Verb::Confirm, &lines).reply.outcome.code, Code::Expired);
        bench.assert_sound();
    }
}

fn hold(bench: &mut Bench, id: u128, customer: u64, lines: &[Line]) -> Code {
    let reserve = Reserve {
        id: ReservationId(id),
        channel: ChannelId(3),
        ttl_ms: TTL,
        fill: Fill::All,
        customer,
        zone: stockline_core::id::ZoneId::NONE,
        labels: stockline_core::label::Labels::NONE,
        first_line: 0,
        line_count: lines.len() as u32,
    };
    bench.send_body(Body::Reserve(reserve), lines).reply.outcome.code
}

#[test]
fn nobody_hoards_holds() {
    for shards in [1, 4] {
        let mut bench = Bench::new(shards);
        bench.receive(1, 0, 100);
        bench.receive(2, 0, 100);
        let lines = [any_line(1, 1), any_line(2, 1)];
        let (most, of_one) = (u128::from(HOLDS_MAX), u128::from(CUSTOMER_HOLDS_MAX));
        for id in 1..=of_one {
            assert_eq!(hold(&mut bench, id, 55, &lines), Code::Ok);
        }
        assert_eq!(hold(&mut bench, 20, 55, &lines), Code::HoldLimit, "{shards} shards");
        for id in of_one + 1..=most {
            assert_eq!(hold(&mut bench, id, 0, &lines[..1]), Code::Ok);
        }
        assert_eq!(hold(&mut bench, 21, 66, &lines[1..]), Code::HoldLimit);
        // A refusal for lack of stock stands behind it.
        assert_eq!(hold(&mut bench, 22, 66, &[any_line(5, 1)]), Code::HoldLimit);
        // What is confirmed, released or expired is open no longer; what is confirmed in part still is.
        bench.step_lines(1, Verb::Confirm, &[some(1, 0, 1)]);
        assert_eq!(hold(&mut bench, 23, 66, &lines), Code::HoldLimit);
        bench.step(1, Verb::Confirm, 0);
        assert_eq!(hold(&mut bench, 24, 55, &lines), Code::Ok, "{shards} shards");
        assert_eq!(hold(&mut bench, 25, 66, &lines), Code::HoldLimit);
        bench.step(24, Verb::Release, 0);
        assert_eq!(hold(&mut bench, 26, 66, &lines), Code::Ok);
        bench.now = bench.now.plus(u64::from(TTL) + limit::TICK_MS);
        assert_eq!(bench.expire_due(), HOLDS_MAX as usize);
        for id in 30..30 + most {
            assert_eq!(hold(&mut bench, id, id as u64, &lines), Code::Ok);
        }
        // Other channels have no limit.
        for id in 40..60 {
            assert_eq!(bench.reserve(id, 0, TTL, &lines).reply.outcome.code, Code::Ok);
        }
        bench.assert_sound();
    }
}
