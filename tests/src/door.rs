//! The door: idempotency window and catalogue.

use stockline_core::admission::{Admission, Window, WindowSize};
use stockline_core::catalogue::{Catalogue, Defined, Definition, EntryKind, Policy, Role, Secret, Webhook};
use stockline_core::command::{Body, Command, Fill, Frame, Read, Reserve};
use stockline_core::event::EventKind;
use stockline_core::id::{ChannelId, Key, Lsn, PrincipalId, ReservationId};
use stockline_core::limit;
use stockline_core::outcome::Code;

use crate::bench::{Bench, START, WHO, any_line};

#[test]
fn a_repeat_is_known_and_another_body_is_a_conflict() {
    let mut bench = Bench::new(4);
    bench.receive(1, 0, 10);
    let event = bench.make(EventKind::Receipt, 1, 0, 5);
    let first = bench.command(Body::Event(event.clone()), &[]);
    let told = bench.send(first.clone(), &[]);
    let again = bench.send(first.clone(), &[]);
    assert!(again.reply.repeat && again.reply.lsn == told.reply.lsn);
    assert_eq!(bench.units(1, 0)[0], 15, "once");
    let mut other = event;
    other.quantity = 6;
    let mut command = bench.command(Body::Event(other), &[]);
    command.key = first.key;
    let conflict = bench.send(command, &[]);
    assert_eq!((conflict.reply.outcome.code, conflict.reply.lsn), (Code::KeyConflict, Lsn::NONE));
    assert_eq!(bench.units(1, 0)[0], 15);
    // The time of issue is not part of the body: a retry may say it anew.
    let mut later = first;
    later.issued_at = later.issued_at.plus(1);
    assert!(bench.send(later, &[]).reply.repeat);
}

#[test]
fn a_refusal_is_remembered_too() {
    let mut bench = Bench::new(1);
    bench.receive(1, 0, 1);
    let refused = bench.reserve(7, 0, 1_000, &[any_line(1, 2)]);
    assert_eq!(refused.reply.outcome.code, Code::InsufficientStock);
    bench.receive(1, 0, 10);
    let again = bench.reserve(7, 0, 1_000, &[any_line(1, 2)]);
    assert!(again.reply.repeat && again.reply.lsn == refused.reply.lsn, "restocking does not change it");
    assert_eq!(bench.units(1, 0)[..2], [11, 0]);
}

fn window(commands: u64, ms: u64) -> Window {
    Window::new(WindowSize { commands, ms }, Lsn(1))
}

#[test]
fn what_one_principal_makes_forgotten_is_too_old_for_nobody_else() {
    let mut bench = Bench::new(1);
    let event = bench.make(EventKind::Receipt, 1, 0, 5);
    let mut window = window(8, 1_000_000);
    let (flood, honest) = (WHO, PrincipalId(9));
    let mut first = None;
    for lsn in 1..=100u64 {
        // As far ahead as it may.
        let mut command = bench.command(Body::Event(event.clone()), &[]);
        command.issued_at = START.plus(limit::ISSUED_AHEAD_MS_MAX);
        window.record(Lsn(lsn), flood, &command, START);
        first.get_or_insert(command);
    }
    let first = first.expect("the first of them");
    assert_eq!(window.admit(flood, &first, START), Admission::Refused(Code::KeyTooOld));
    let mut own = bench.command(Body::Event(event), &[]);
    own.issued_at = START;
    assert_eq!(window.admit(honest, &own, START), Admission::New);
    assert_eq!(window.admit(flood, &own, START), Admission::Refused(Code::KeyTooOld));
}

#[test]
fn what_one_principal_sends_makes_nobody_elses_forgotten() {
    let mut bench = Bench::new(1);
    let event = bench.make(EventKind::Receipt, 1, 0, 5);
    let mut window = window(64, 1_000_000);
    let (flood, honest, quiet) = (WHO, PrincipalId(9), PrincipalId(10));
    let mut command = |principal: PrincipalId, lsn: u64, window: &mut Window| {
        let mut command = bench.command(Body::Event(event.clone()), &[]);
        command.issued_at = START.plus(lsn);
        assert_eq!(window.admit(principal, &command, START.plus(lsn)), Admission::New);
        window.record(Lsn(lsn), principal, &command, START.plus(lsn));
        command
    };
    let first = command(quiet, 1, &mut window);
    let some: Vec<Command> = (2..12).map(|lsn| command(honest, lsn, &mut window)).collect();
    let floods: Vec<Command> = (12..5_000).map(|lsn| command(flood, lsn, &mut window)).collect();
    let now = START.plus(5_000);
    assert_eq!(window.admit(quiet, &first, now), Admission::Repeat(Lsn(1)));
    for (command, lsn) in some.iter().zip(2..) {
        assert_eq!(window.admit(honest, command, now), Admission::Repeat(Lsn(lsn)));
    }
    assert_eq!(window.first(), Lsn(1), "the journal keeps what answers them");
    let known =
        floods.iter().filter(|command| matches!(window.admit(flood, command, now), Admission::Repeat(_)));
    assert_eq!(known.count(), 64 - 11, "it has what the others leave");
    assert_eq!(window.admit(flood, &floods[0], now), Admission::Refused(Code::KeyTooOld));
    // Two who flood share what there is.
    for lsn in 5_000..10_000 {
        command(if lsn % 2 == 0 { flood } else { PrincipalId(11) }, lsn, &mut window);
    }
    assert_eq!(window.admit(quiet, &first, START.plus(10_000)), Admission::Repeat(Lsn(1)));
    // After its time it is too old, and the journal need not keep it.
    let late = START.plus(1_000_002);
    let mut other = bench.command(Body::Event(event), &[]);
    other.issued_at = late;
    window.record(Lsn(10_000), honest, &other, late);
    window.record(Lsn(10_017), honest, &Command { key: Key(7), ..other }, late);
    assert_eq!(window.admit(quiet, &first, late), Admission::Refused(Code::KeyTooOld));
    assert!(window.first() > Lsn(1));
}

#[test]
fn what_makes_no_claim_of_its_own_is_too_old_only_where_something_was_forgotten() {
    let mut bench = Bench::new(1);
    let event = bench.make(EventKind::Receipt, 1, 0, 5);
    let mut window = window(8, 1_000_000);
    let mut bound = |at: u64| {
        let issued_at = Command::not_before(START.plus(at));
        Command { issued_at, ..bench.command(Body::Event(event.clone()), &[]) }
    };
    let now = START.plus(50_000_000);
    let long_ago = bound(0);
    assert_eq!(window.admit(WHO, &long_ago, now), Admission::New, "nothing was forgotten yet");
    let all: Vec<Command> = (0..20).map(|number| bound(100 + number)).collect();
    for (command, lsn) in all.iter().zip(1..) {
        window.record(Lsn(lsn), WHO, command, now);
    }
    assert_eq!(window.admit(WHO, &all[0], now), Admission::Refused(Code::KeyTooOld));
    assert_eq!(window.admit(WHO, &all[19], now), Admission::Repeat(Lsn(20)));
    assert_eq!(window.admit(WHO, &long_ago, now), Admission::Refused(Code::KeyTooOld));
    assert_eq!(window.admit(WHO, &bound(112), now), Admission::New, "after all that was forgotten");
    assert_eq!(window.admit(PrincipalId(9), &long_ago, now), Admission::New, "of others nothing was");
}

#[test]
fn between_known_and_too_old_there_is_no_gap() {
    let mut bench = Bench::new(1);
    let event = bench.make(EventKind::Receipt, 1, 0, 5);
    let commands: Vec<_> = (0..20)
        .map(|index| {
            let mut command = bench.command(Body::Event(event.clone()), &[]);
            command.issued_at = START.plus(index * 10);
            command
        })
        .collect();
    // By count: eight are remembered.
    let mut by_count = window(8, 1_000_000);
    for (index, command) in commands.iter().enumerate() {
        assert_eq!(by_count.admit(WHO, command, command.issued_at), Admission::New);
        by_count.record(Lsn(index as u64 + 1), WHO, command, command.issued_at);
    }
    let now = START.plus(200);
    for (index, command) in commands.iter().enumerate() {
        let due = match index {
            0..12 => Admission::Refused(Code::KeyTooOld),
            _ => Admission::Repeat(Lsn(index as u64 + 1)),
        };
        assert_eq!(by_count.admit(WHO, command, now), due, "{index}");
    }
    // By time.
    let mut by_time = window(100, 50);
    for (index, command) in commands.iter().enumerate() {
        by_time.record(Lsn(index as u64 + 1), WHO, command, command.issued_at);
    }
    for (index, command) in commands.iter().enumerate() {
        let now = START.plus(191);
        let answer = by_time.admit(WHO, command, now);
        let old = now.since(command.issued_at) > 50;
        let known = answer == Admission::Repeat(Lsn(index as u64 + 1));
        assert!(known || (old && answer == Admission::Refused(Code::KeyTooOld)), "{index}: {answer:?}");
    }
    // Another principal's key is another key.
    assert_eq!(by_time.admit(PrincipalId(2), &commands[19], START.plus(191)), Admission::New);
}

#[test]
fn definitions_give_the_same_ids_again() {
    let mut bench = Bench::new(1);
    let mut again = Catalogue::default();
    for (name, _) in {
        let mut skus: Vec<_> = bench.sequencer.catalogue.skus().collect();
        skus.sort_by_key(|(_, id)| *id);
        skus
    } {
        again.define(&Definition::Sku { name: name.into() }).expect("a name that was one before");
    }
    for definition in bench.sequencer.catalogue.definitions() {
        again.define(&definition).expect("a definition that was one before");
    }
    assert_eq!(again.nodes(), bench.sequencer.catalogue.nodes());
    assert_eq!(again.channels(), bench.sequencer.catalogue.channels());
    assert_eq!(again.rules(), bench.sequencer.catalogue.rules());
}

#[test]
fn definitions_that_make_no_sense_are_refused() {
    let mut catalogue = Catalogue::default();
    let sku = |name: &str| Definition::Sku { name: name.into() };
    for name in ["", " a", "a ", "a\nb", &"x".repeat(limit::NAME_BYTES_MAX + 1)] {
        assert_eq!(catalogue.define(&sku(name)), Err(Code::InvalidName), "{name:?}");
    }
    assert_eq!(catalogue.define(&sku("a")), Ok(Defined::Changed(0)));
    assert_eq!(catalogue.define(&sku("a")), Ok(Defined::Same(0)));
    let group = Definition::Group { name: "g".into(), nodes: vec!["nowhere".into()] };
    assert_eq!(catalogue.define(&group), Err(Code::UnknownNode));
    let channel = Definition::Channel {
        name: "c".into(),
        parent: None,
        group: Some("g".into()),
        buffer: 0,
        policy: Policy::default(),
    };
    assert_eq!(catalogue.define(&channel), Err(Code::UnknownGroup));
    let principal = |role, channel: Option<&str>| Definition::Principal {
        name: "p".into(),
        role,
        channel: channel.map(str::to_owned),
        nodes: vec![],
        token_sha256: [1; 32],
        clock_ahead_s: 0,
    };
    assert_eq!(catalogue.define(&principal(Role::Channel, None)), Err(Code::UnknownChannel));
    assert_eq!(catalogue.define(&principal(Role::Warehouse, None)), Err(Code::UnknownNode));
    assert_eq!(catalogue.define(&principal(Role::Admin, None)), Ok(Defined::Changed(1)));
    let Definition::Principal { role, channel, nodes, token_sha256, .. } = principal(Role::Admin, None)
    else {
        unreachable!("it was made above")
    };
    let thief =
        Definition::Principal { name: "q".into(), role, channel, nodes, token_sha256, clock_ahead_s: 0 };
    assert_eq!(catalogue.define(&thief), Err(Code::TokenInUse));
}

#[test]
fn a_rule_change_counts_from_its_place_in_the_order() {
    let mut bench = Bench::new(4);
    bench.receive(1, 0, 10);
    assert_eq!(bench.reserve(7, 0, 1_000, &[any_line(1, 1)]).reply.outcome.code, Code::Ok);
    let narrowed = Definition::Channel {
        name: "c0".into(),
        parent: None,
        group: Some("g0".into()),
        buffer: 0,
        policy: Policy::default(),
    };
    bench.send_body(Body::Define(Box::new(narrowed)), &[]);
    assert_eq!(bench.reserve(8, 0, 1_000, &[any_line(1, 1)]).reply.outcome.code, Code::InsufficientStock);
}

#[test]
fn names_are_looked_up_in_the_order() {
    let mut bench = Bench::new(1);
    let find = |name: &str| {
        Body::Read(Read::Name { kind: stockline_core::catalogue::NameKind::Sku, name: name.into() })
    };
    assert_eq!(bench.send_body(find("s3"), &[]).reply.id, 3);
    assert_eq!(bench.send_body(find("none"), &[]).reply.outcome.code, Code::UnknownSku);
}

#[test]
fn keys_and_ids_of_reservations_guard_each_other() {
    let mut bench = Bench::new(1);
    bench.receive(1, 0, 100);
    let line = [any_line(1, 1)];
    let first = bench.reserve(7, 0, 1_000, &line);
    assert_eq!(first.reply.outcome.code, Code::Ok);
    let reserve = |id| stockline_core::command::Reserve {
        id: stockline_core::id::ReservationId(id),
        channel: stockline_core::id::ChannelId(0),
        ttl_ms: 1_000,
        fill: Fill::All,
        customer: 0,
        zone: stockline_core::id::ZoneId::NONE,
        labels: stockline_loadgen::stage::labels(id),
        first_line: 0,
        line_count: 1,
    };
    // Another reservation under the first one's key.
    let mut command = bench.command(Body::Reserve(reserve(8)), &line);
    command.key = Key(7);
    assert_eq!(bench.send(command, &line).reply.outcome.code, Code::KeyConflict);
    // An event under it.
    let event = bench.make(EventKind::Receipt, 1, 0, 5);
    let mut command = bench.command(Body::Event(event), &[]);
    command.key = Key(7);
    assert_eq!(bench.send(command, &[]).reply.outcome.code, Code::KeyConflict);
    // The same reservation under another key is the same.
    let mut command = bench.command(Body::Reserve(reserve(7)), &line);
    command.key = Key(900);
    let again = bench.send(command, &line);
    assert!(again.reply.repeat && again.reply.lsn == first.reply.lsn);
    // A reservation with a key of its own: both are taken.
    let mut command = bench.command(Body::Reserve(reserve(9)), &line);
    command.key = Key(901);
    assert_eq!(bench.send(command, &line).reply.outcome.code, Code::Ok);
    let mut command = bench.command(Body::Reserve(reserve(10)), &line);
    command.key = Key(901);
    assert_eq!(bench.send(command, &line).reply.outcome.code, Code::KeyConflict);
    // A number that is somebody's id, not key, is free as a key.
    let event = bench.make(EventKind::Receipt, 1, 0, 5);
    let mut command = bench.command(Body::Event(event), &[]);
    command.key = Key(9);
    assert_eq!(bench.send(command, &[]).reply.outcome.code, Code::Ok);
    assert_eq!(bench.units(1, 0)[..2], [103, 2]);
}

#[test]
fn an_id_that_left_the_window_is_taken_while_its_reservation_is_known() {
    use stockline_core::id::ReservationId;
    use stockline_core::sequencer::Learned;
    // With several shards the one that gets the line may not be the one that knows the id.
    let mut bench = Bench::new(4);
    bench.receive(1, 0, 10);
    bench.sequencer.learn(Learned::Reserved(ReservationId(7)));
    let told = bench.reserve(7, 0, 1_000, &[any_line(1, 1)]);
    assert_eq!((told.reply.outcome.code, told.reply.lsn), (Code::KeyConflict, Lsn::NONE));
    bench.sequencer.learn(Learned::Ended(ReservationId(7), bench.sequencer.last()));
    let told = bench.reserve(7, 0, 1_000, &[any_line(1, 1)]);
    assert_eq!(told.reply.outcome.code, Code::KeyConflict, "it is remembered for a while");
    assert_eq!(bench.reserve(8, 0, 1_000, &[any_line(1, 1)]).reply.outcome.code, Code::Ok);
}

/// Reservations with a key of their own have two numbers; a window that turns over many times knows both of each.
#[test]
fn keys_and_ids_are_known_however_often_the_window_turns_over() {
    const ROOM: u64 = 1_000;
    let mut window = window(ROOM, 3_600_000);
    let command = |number: u128| Command {
        key: Key(number * 2 + 1),
        issued_at: START,
        digest: number as u64,
        body: Body::Reserve(Reserve {
            id: ReservationId(number * 2 + 2),
            channel: ChannelId(0),
            ttl_ms: 1,
            fill: Fill::All,
            customer: 0,
            zone: stockline_core::id::ZoneId::NONE,
            labels: stockline_core::label::Labels::NONE,
            first_line: 0,
            line_count: 0,
        }),
    };
    for number in 0..100_000u128 {
        let lsn = Lsn(number as u64 + 1);
        window.record(lsn, WHO, &command(number), START);
        // By its id alone, under another key, and by its key alone, as an event: the oldest and some other.
        let oldest = number.saturating_sub(u128::from(ROOM) - 1);
        for known in [oldest, number - (number - oldest) / 3, number] {
            let by_id = Command { key: Key(u128::MAX), ..command(known) };
            assert_eq!(window.admit(WHO, &by_id, START), Admission::Repeat(Lsn(known as u64 + 1)));
            let transition = stockline_core::command::Transition {
                reservation: ReservationId(1),
                verb: stockline_core::command::Verb::Confirm,
                ttl_ms: 0,
                scope: None,
                lines: [].into(),
            };
            let by_key = Command { digest: u64::MAX, body: Body::Transition(transition), ..command(known) };
            assert_eq!(window.admit(WHO, &by_key, START), Admission::Refused(Code::KeyConflict));
        }
    }
}

#[test]
fn a_key_that_was_an_events_is_no_reservations_even_where_its_id_is_the_key() {
    let mut bench = Bench::new(1);
    bench.receive(1, 0, 10);
    let receipt = bench.make(stockline_core::event::EventKind::Receipt, 1, 0, 1);
    let event = Command { key: Key(500), ..bench.command(Body::Event(receipt), &[]) };
    assert_eq!(bench.send(event, &[]).reply.outcome.code, Code::Ok);
    assert_eq!(bench.reserve(500, 0, 1_000, &[any_line(1, 1)]).reply.outcome.code, Code::KeyConflict);
    // A reservation's key, used for another whose id it is.
    let reserve = |id: u128| {
        Body::Reserve(Reserve {
            id: ReservationId(id),
            channel: ChannelId(0),
            ttl_ms: 1_000,
            fill: Fill::All,
            customer: 0,
            zone: stockline_core::id::ZoneId::NONE,
            labels: stockline_core::label::Labels::NONE,
            first_line: 0,
            line_count: 1,
        })
    };
    let line = [any_line(1, 1)];
    let first = Command { key: Key(601), ..bench.command(reserve(600), &line) };
    assert_eq!(bench.send(first, &line).reply.outcome.code, Code::Ok);
    let second = Command { key: Key(601), ..bench.command(reserve(601), &line) };
    assert_eq!(bench.send(second, &line).reply.outcome.code, Code::KeyConflict);
    assert_eq!(bench.units(1, 0)[1], 1);
}

#[test]
fn what_the_journal_could_not_be_read_back_with_gets_no_place() {
    use stockline_core::command::{Action, Allocate, StepLine, Transition, Verb};
    use stockline_core::id::{ChannelId, NodeId, ReservationId, SkuId};
    let mut bench = Bench::new(1);
    let step = |verb, lines: &[StepLine]| {
        let (reservation, lines) = (ReservationId(7), lines.into());
        Body::Transition(Transition { reservation, verb, ttl_ms: 1, scope: None, lines })
    };
    let line = |to_node| StepLine { sku: SkuId(1), node: NodeId(0), to_node: NodeId(to_node), quantity: 1 };
    let allocate = |action, to_channel| {
        let (channel, to_channel) = (ChannelId(0), ChannelId(to_channel));
        Body::Allocate(Allocate { action, channel, to_channel, sku: SkuId(1), node: NodeId(0), quantity: 1 })
    };
    let any = u16::MAX;
    for body in [
        step(Verb::Move, &[]),
        step(Verb::Move, &[line(any)]),
        step(Verb::Confirm, &[line(1)]),
        step(Verb::Confirm, &[line(0)]),
        step(Verb::Extend, &[line(any)]),
        allocate(Action::Reallocate, 0),
        allocate(Action::Reallocate, any),
        allocate(Action::Allocate, 1),
        allocate(Action::Allocate, 0),
    ] {
        let before = bench.sequencer.last();
        let told = bench.send_body(body.clone(), &[]);
        assert_eq!(told.reply.outcome.code, Code::Malformed, "{body:?}");
        assert_eq!(bench.sequencer.last(), before);
    }
    let told = bench.reserve(0, 0, 1_000, &[any_line(1, 1)]);
    assert_eq!(told.reply.outcome.code, Code::Malformed);
    let nodes = vec!["n0".to_owned(); stockline_core::limit::NODES_MAX + 1];
    assert_eq!(bench.define(Definition::Group { name: "many".into(), nodes }), Code::InvalidRule);
}

#[test]
fn the_catalogue_has_a_bounded_number_of_groups() {
    let mut catalogue = Catalogue::default();
    let group = |number: usize| Definition::Group { name: format!("g{number}"), nodes: vec![] };
    assert!((0..limit::GROUPS_MAX).all(|number| catalogue.define(&group(number)).is_ok()));
    assert_eq!(catalogue.define(&group(limit::GROUPS_MAX)), Err(Code::CatalogueFull));
    // What is there may be put again.
    assert_eq!(catalogue.define(&group(7)), Ok(Defined::Same(7)));
    // Of webhooks those that were given up leave room.
    let hook = |at: usize, url: &str| Definition::Webhook {
        name: format!("h{at}"),
        hook: Webhook {
            url: url.into(),
            channel: None,
            what: 1,
            cloud_events: false,
            snapshot: false,
            gather_ms: 0,
            attempts: 1,
            backoff_ms: 1,
            secret: Secret([7; 32]),
        },
    };
    for at in 0..limit::WEBHOOKS_MAX {
        assert_eq!(catalogue.define(&hook(at, "https://a.example/")), Ok(Defined::Changed(at as u32)));
    }
    let next = hook(limit::WEBHOOKS_MAX, "https://a.example/");
    assert_eq!(catalogue.define(&next), Err(Code::CatalogueFull));
    assert_eq!(catalogue.define(&hook(3, "https://b.example/")), Ok(Defined::Changed(3)));
    assert_eq!(catalogue.define(&hook(3, "")), Ok(Defined::Changed(3)));
    assert_eq!(catalogue.entry(EntryKind::Webhook, "h3"), None);
    assert_eq!(catalogue.define(&next), Ok(Defined::Changed(limit::WEBHOOKS_MAX as u32)));
    // It is loaded as it stands, and its secret is in no text.
    let mut loaded = Catalogue::default();
    loaded.load(&catalogue.definitions()).expect("sound");
    assert_eq!(loaded.definitions(), catalogue.definitions());
    assert!(!format!("{next:?}").contains("7, 7"));
    // No numbers without a channel, and no tries at all.
    let mut wrong = hook(0, "https://a.example/");
    for change in [|hook: &mut Webhook| hook.what = 4, |hook: &mut Webhook| hook.attempts = 0] {
        let Definition::Webhook { hook, .. } = &mut wrong else { unreachable!("a webhook") };
        change(hook);
        assert_eq!(catalogue.define(&wrong), Err(Code::InvalidRule));
        let Definition::Webhook { hook, .. } = &mut wrong else { unreachable!("a webhook") };
        (hook.what, hook.attempts) = (1, 1);
    }
}

#[test]
fn what_stands_behind_a_guard_is_done_only_if_the_entry_is_what_was_seen() {
    for shards in [1, 4] {
        let mut bench = Bench::new(shards);
        let seen = bench.sequencer.catalogue.entry(EntryKind::Channel, "c0").expect("it is there");
        let channel = |buffer: u32| {
            let Definition::Channel { name, parent, group, policy, .. } = seen.clone() else {
                unreachable!("a channel")
            };
            Definition::Channel { name, parent, group, buffer, policy }
        };
        let (kind, name) = (EntryKind::Channel, "c0");
        let mut put = |version: u64, definition: Definition| {
            let guard = Body::Read(Read::Unchanged { kind, name: name.into(), version });
            let bodies = [guard, Body::Define(Box::new(definition))];
            let commands = bodies.map(|body| bench.command(body, &[])).to_vec();
            let frame = Frame { tag: (), principal: WHO, commands, lines: vec![] };
            let before = bench.sequencer.last();
            let told = bench.send_frames(vec![frame]).remove(0).replies;
            (told[0].outcome.code, told[1].outcome.code, bench.sequencer.last().0 - before.0)
        };
        let conflict = (Code::VersionConflict, Code::VersionConflict, 0);
        assert_eq!(put(0, channel(1)), conflict, "it is there");
        assert_eq!(
            put(seen.version(), channel(1)),
            (Code::Ok, Code::Ok, 1),
            "only the definition has a place"
        );
        assert_eq!(put(seen.version(), channel(2)), conflict, "it is another by now");
        assert_eq!(put(channel(1).version(), channel(2)), (Code::Ok, Code::Ok, 1));
        let now = bench.sequencer.catalogue.entry(kind, name).expect("it is there");
        assert_eq!(now, channel(2));
        bench.assert_sound();
    }
}
