//! Following: what a channel is told of its reservations and of availability, over QUIC, from a cursor on.

use std::time::Duration;

use stockline_client::{Client, ClientError, Fill, NewReservation, NewStep, Verb};
use stockline_core::admission::WindowSize;
use stockline_core::catalogue::{Definition, Effect, Policy};
use stockline_core::event::EventKind;
use stockline_core::feed::What;
use stockline_core::outcome::{Code, State};
use stockline_core::record::LineRec;
use stockline_core::wire::{ChangeRec, Changes, Follow, NoticeRec};
use stockline_loadgen::stage::event;
use stockline_server::engine::EngineConfig;

use crate::engine::{Server, Stage, stage};
use crate::rounds::is_long;

const ANY: u16 = u16::MAX;

fn reservation(stage: &Stage, id: u128, sku: u32, quantity: u32, ttl_ms: u32) -> NewReservation {
    let lines = vec![LineRec { sku, node: ANY, group: ANY, quantity }];
    NewReservation {
        id,
        channel: stage.web,
        ttl_ms,
        fill: Fill::All,
        customer: 0,
        zone: ANY,
        labels: stockline_client::label::Labels::NONE,
        lines,
    }
}

async fn ok(outcomes: impl Future<Output = Result<Vec<stockline_client::Outcome>, ClientError>>) {
    for outcome in outcomes.await.expect("answered") {
        assert_eq!(outcome.code, Code::Ok);
    }
}

fn ask(channel: u16, from_lsn: u64, what: u8) -> Follow {
    Follow { from_lsn, channel, what, wait_ms: 20_000, gather_ms: 0 }
}

/// Follows until enough was told, or everything there is.
async fn follow(client: &Client, mut asked: Follow, enough: impl Fn(&Changes) -> bool) -> Changes {
    let mut all = Changes { next_lsn: asked.from_lsn, ..Changes::default() };
    while !enough(&all) {
        asked.from_lsn = all.next_lsn;
        let told = client.follow(&asked).await.expect("answered");
        if told.next_lsn == all.next_lsn {
            break;
        }
        (all.next_lsn, all.as_of_lsn) = (told.next_lsn, told.as_of_lsn);
        all.redefined |= told.redefined;
        all.notices.extend(told.notices);
        all.changes.extend(told.changes);
    }
    all
}

async fn refused(client: &Client, asked: Follow) -> Code {
    match client.follow(&asked).await {
        Err(ClientError::Refused { code, .. }) => code,
        other => panic!("{asked:?}: {other:?}"),
    }
}

fn kinds(told: &Changes, id: u128) -> Vec<(u8, u8)> {
    let own = told.notices.iter().filter(|notice| notice.reservation == id);
    own.map(|notice| (notice.what, notice.state)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_is_told_what_happens_to_its_reservations() {
    for shards in [1, 4] {
        let dir = tempfile::tempdir().expect("a directory");
        let server = Server::start(dir.path(), shards, None).await;
        let admin = Client::connect(&server.profile).await.expect("connects");
        let stage = stage(&admin).await;
        let web = Client::connect(&server.with_token("web-shop")).await.expect("connects");
        let edi = Client::connect(&server.with_token("edi-desk")).await.expect("connects");
        let wms = Client::connect(&server.with_token("wms")).await.expect("connects");

        let begin = web.follow(&ask(stage.web, 0, 1)).await.expect("answered").next_lsn;
        // Asked first, it happens later.
        let waiting = {
            let (web, asked) = (web.clone(), ask(stage.web, begin, 1));
            tokio::spawn(async move { follow(&web, asked, |told| told.notices.len() >= 2).await })
        };
        tokio::time::sleep(Duration::from_millis(20)).await;
        ok(web.reserve(&[reservation(&stage, 7, stage.skus[0], 3, 30)])).await;
        let told = waiting.await.expect("ends");
        assert_eq!(
            kinds(&told, 7),
            [(What::Reserved as u8, State::Held as u8), (What::Expired as u8, State::Expired as u8)]
        );
        let [reserved, expired] = told.notices[..] else { panic!("{told:?}") };
        assert!(expired.at_ms >= reserved.due_ms && expired.lsn > reserved.lsn && reserved.due_ms > 0);
        assert_eq!((reserved.channel, expired.channel), (stage.web, stage.web));

        // Every step, and what warehouses do with it.
        ok(web.reserve(&[reservation(&stage, 8, stage.skus[1], 3, 60_000)])).await;
        for (key, verb) in [(1, Verb::Extend), (2, Verb::Confirm)] {
            ok(web.transition(&[NewStep { ttl_ms: 90_000, ..NewStep::whole(key, 8, verb) }])).await;
        }
        for (key, kind, units) in [(0x20, EventKind::Pick, 2), (0x21, EventKind::Ship, 1)] {
            let mut told = event(key, kind, stage.skus[1], stage.nodes[0], units, admin.now_ms());
            (told.reservation, told.given) = (8, 1);
            ok(wms.tell(vec![told])).await;
        }
        ok(web.transition(&[NewStep::whole(3, 8, Verb::Release)])).await;
        let told = follow(&web, Follow { wait_ms: 0, ..ask(stage.web, begin, 1) }, |_| false).await;
        let (held, confirmed) = (State::Held as u8, State::Confirmed as u8);
        assert_eq!(
            kinds(&told, 8),
            [
                (What::Reserved as u8, held),
                (What::Extended as u8, held),
                (What::Confirmed as u8, confirmed),
                (What::Picked as u8, confirmed),
                (What::Shipped as u8, confirmed),
                (What::Released as u8, State::Released as u8),
            ]
        );
        let picked = told.notices.iter().find(|notice| notice.what == What::Picked as u8).expect("picked");
        assert_eq!((picked.sku, picked.node, picked.quantity), (stage.skus[1], stage.nodes[0], 2));
        assert_eq!(kinds(&told, 7).len(), 2, "from the same cursor the same is told again");

        // Others hear nothing of it; an administrator everything.
        let edis = edi.welcome().channel;
        let told = follow(&edi, Follow { wait_ms: 0, ..ask(edis, begin, 1) }, |_| false).await;
        assert_eq!(told.notices, []);
        let told = follow(&admin, Follow { wait_ms: 0, ..ask(ANY, begin, 1) }, |_| false).await;
        assert_eq!((kinds(&told, 7).len(), kinds(&told, 8).len()), (2, 6));

        for (client, asked, code) in [
            (&web, ask(edis, begin, 1), Code::UnknownChannel),
            (&web, ask(ANY, begin, 1), Code::UnknownChannel),
            (&admin, ask(4_000, begin, 1), Code::UnknownChannel),
            (&wms, ask(stage.web, begin, 1), Code::Forbidden),
            (&web, ask(stage.web, begin, 0), Code::Malformed),
            (&web, ask(stage.web, begin, 8), Code::Malformed),
            (&admin, ask(ANY, begin, 2), Code::Malformed),
            (&web, ask(stage.web, told.next_lsn + 1_000, 1), Code::CursorUnknown),
        ] {
            assert_eq!(refused(client, asked).await, code, "{asked:?}");
        }
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_is_told_each_new_promise_and_why() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), 4, None).await;
    let admin = Client::connect(&server.profile).await.expect("connects");
    let stage = stage(&admin).await;
    let web = Client::connect(&server.with_token("web-shop")).await.expect("connects");
    let rule = Definition::Rule {
        name: "wait".into(),
        skus: "*".into(),
        category: String::new(),
        node: None,
        group: None,
        channel: None,
        effect: Effect::Backorder(500),
    };
    ok(admin.define(&[rule])).await;
    let sku = stage.skus[2];
    let day = |days: u64| admin.now_ms() / 1_000 * 1_000 + days * 86_400_000;
    let supply = |key, units, eta_ms| {
        let mut told = event(key, EventKind::Supply, sku, stage.nodes[0], units, admin.now_ms());
        (told.supply, told.given, told.eta_ms) = (9, 2, eta_ms);
        vec![told]
    };
    let (first, later) = (day(3), day(5));
    ok(admin.tell(supply(0x30, 50, first))).await;
    let begin = web.follow(&ask(stage.web, 0, 1)).await.expect("answered").next_lsn;
    ok(web.reserve(&[reservation(&stage, 5, sku, 110, 600_000)])).await;
    ok(admin.tell(supply(0x31, 50, later))).await;
    let count = |told: &Changes| told.notices.iter().filter(|notice| notice.what == 10).count();
    let told = follow(&web, ask(stage.web, begin, 1), |told| count(told) >= 2).await;
    let promised = |told: &Changes| -> Vec<(u32, u64, u8)> {
        let notices = told.notices.iter().filter(|notice| notice.what == What::Promised as u8);
        notices.map(|NoticeRec { quantity, due_ms, reason, .. }| (*quantity, *due_ms, *reason)).collect()
    };
    assert_eq!(promised(&told), [(10, first, 1), (10, later, 4)], "placed, later");
    ok(admin.tell(supply(0x32, 4, later))).await;
    let told = follow(&web, ask(stage.web, told.next_lsn, 1), |told| count(told) >= 1).await;
    assert_eq!(promised(&told), [(6, u64::MAX, 6)], "lost");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_is_told_when_a_sku_crosses_a_threshold() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), 1, None).await;
    let admin = Client::connect(&server.profile).await.expect("connects");
    let stage = stage(&admin).await;
    let web = Client::connect(&server.with_token("web-shop")).await.expect("connects");
    let policy = Policy { low: 5, ..Policy::default() };
    let channel = Definition::Channel { name: "web".into(), parent: None, group: None, buffer: 0, policy };
    let mut cursor = web.follow(&ask(stage.web, 0, 2)).await.expect("answered").next_lsn;
    ok(admin.define(&[channel])).await;
    let told = web.follow(&ask(stage.web, cursor, 2)).await.expect("answered");
    assert_eq!((told.redefined, told.changes), (1, vec![]));
    cursor = told.next_lsn;
    let sku = stage.skus[0];
    let (in_stock, low, out, none) = (1, 2, 3, u8::MAX);
    for (id, quantity, what, due) in [
        // The first that is told of a sku has nothing before it.
        (1, 10, 2, Some((90, in_stock, none))),
        (2, 10, 2, None),
        (3, 10, 4, Some((70, in_stock, in_stock))),
        (4, 65, 2, Some((5, low, in_stock))),
        (5, 5, 2, Some((0, out, low))),
    ] {
        ok(web.reserve(&[reservation(&stage, id, sku, quantity, 60_000)])).await;
        let wait_ms = if due.is_some() { 20_000 } else { 0 };
        let told = web.follow(&Follow { wait_ms, ..ask(stage.web, cursor, what) }).await.expect("answered");
        let found: Vec<_> =
            told.changes.iter().map(|change| (change.available, change.status, change.before)).collect();
        assert_eq!(found, due.into_iter().collect::<Vec<_>>(), "reservation {id}");
        cursor = told.next_lsn;
    }
    // Behind a definition nothing that was told counts: who follows asks anew, and is told what comes.
    let policy = Policy { low: 1, ..Policy::default() };
    let channel = Definition::Channel { name: "web".into(), parent: None, group: None, buffer: 0, policy };
    ok(admin.define(&[channel])).await;
    ok(web.transition(&[NewStep::whole(20, 1, Verb::Release)])).await;
    let told = follow(&web, ask(stage.web, cursor, 2), |told| !told.changes.is_empty()).await;
    assert_eq!(told.redefined, 1);
    assert_eq!(told.changes, [ChangeRec { available: 10, sku, status: in_stock, before: none }]);
    cursor = told.next_lsn;
    // Gathered: of all that happens meanwhile the last is told, once.
    let gathered = {
        let (web, asked) = (web.clone(), Follow { gather_ms: 300, ..ask(stage.web, cursor, 4) });
        tokio::spawn(async move { web.follow(&asked).await.expect("answered") })
    };
    for (key, id) in [(21, 5), (22, 4)] {
        ok(web.transition(&[NewStep::whole(key, id, Verb::Release)])).await;
    }
    let told = gathered.await.expect("ends");
    assert_eq!(told.changes, [ChangeRec { available: 80, sku, status: in_stock, before: in_stock }]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_outlives_a_restart_and_a_forgotten_one_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let window = WindowSize { commands: 8, ms: 60_000 };
    let config = EngineConfig {
        clock_ahead_ms_max: None,
        data: dir.path().to_owned(),
        shards: 1,
        retain_journal: false,
        window,
        http_rate: 0,
        jwt: None,
    };
    let server = Server::with(config.clone(), None).await;
    let admin = Client::connect(&server.profile).await.expect("connects");
    let stage = stage(&admin).await;
    let reserve = async |client: &Client, ids: std::ops::Range<u128>| {
        for id in ids {
            ok(client.reserve(&[reservation(&stage, id, stage.skus[0], 1, 60_000)])).await;
        }
    };
    reserve(&admin, 1..10).await;
    let cursor = admin.follow(&ask(ANY, 0, 1)).await.expect("answered").next_lsn;
    reserve(&admin, 10..13).await;
    server.stop().await;
    let server = Server::with(config, None).await;
    let admin = Client::connect(&server.profile).await.expect("connects");
    let told = follow(&admin, Follow { wait_ms: 0, ..ask(ANY, cursor, 1) }, |_| false).await;
    let ids: Vec<u128> = told.notices.iter().map(|notice| notice.reservation).collect();
    assert_eq!(ids, [10, 11, 12]);
    // Everything so far is folded; as new records come, old ones go.
    reserve(&admin, 20..40).await;
    assert_eq!(refused(&admin, ask(ANY, 1, 1)).await, Code::CursorUnknown);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gathers_reads_on_until_it_has_caught_up_and_knows_the_last_numbers() {
    // Each is a record of the journal by itself.
    let (events, followers): (u128, usize) = if is_long() { (50_000, 100) } else { (1_500, 8) };
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), 2, None).await;
    let admin = Client::connect(&server.profile).await.expect("connects");
    let stage = stage(&admin).await;
    let from_lsn = admin.follow(&ask(ANY, 0, 1)).await.expect("answered").next_lsn;
    let tell = async {
        for key in 0..events {
            let sku = stage.skus[key as usize % stage.skus.len()];
            ok(admin.tell(vec![event((1 << 40) + key, EventKind::Receipt, sku, stage.nodes[0], 1, 0)])).await;
        }
    };
    let others: Vec<Client> = {
        let mut others = Vec::new();
        for _ in 0..followers {
            others.push(Client::connect(&server.profile).await.expect("connects"));
        }
        others
    };
    let until = from_lsn + events as u64;
    let follows = others.into_iter().enumerate().map(|(at, client)| {
        let mut asked = ask(stage.web, from_lsn, 4);
        asked.gather_ms = [100, 1_000][at % 2];
        tokio::spawn(async move {
            let (mut answers, mut known) = (0, std::collections::BTreeMap::new());
            while asked.from_lsn < until {
                let told = client.follow(&asked).await.expect("answered");
                asked.from_lsn = told.next_lsn;
                answers += 1;
                known.extend(told.changes.iter().map(|change| (change.sku, change.available)));
            }
            (asked.gather_ms, answers, known)
        })
    });
    let follows: Vec<_> = follows.collect();
    tell.await;
    let mut all = Vec::new();
    for follow in follows {
        all.push(follow.await.expect("it ends"));
    }
    // What is gathered is told once: a sku's last number, not each. All know the same in the end.
    for (gather_ms, answers, known) in &all {
        assert_eq!(known, &all[0].2, "{gather_ms} ms in {answers} answers");
        assert!(!known.is_empty());
    }
    // From the beginning, everything is one answer or a few, though it lies in many records.
    let mut asked = ask(stage.web, from_lsn, 4);
    let mut answers = 0;
    while asked.from_lsn < until {
        asked.from_lsn = admin.follow(&asked).await.expect("answered").next_lsn;
        answers += 1;
    }
    let one_by_one = events / 64;
    assert!(
        answers <= one_by_one / 3,
        "{answers} answers for {events} records: 64 a time would be {one_by_one}"
    );
    server.stop().await;
}
