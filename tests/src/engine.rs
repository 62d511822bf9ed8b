//! The running engine behind its QUIC face, in this process: what a client sees.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use stockline_client::{
    Client, ClientError, Connection, Fill, NewReservation, NewStep, Profile, Verb, connect,
};
use stockline_core::admission::WindowSize;
use stockline_core::catalogue::{Definition, Effect, NameKind, Role};
use stockline_core::command::Action;
use stockline_core::event::EventKind;
use stockline_core::outcome::{Code, State};
use stockline_core::record::{AllocateRec, EventRec, LineRec};
use stockline_core::wire::{self, Availability, FrameType, LaterRec, PlaceRec, QueryRec, ShareRec, SignIn};
use stockline_loadgen::stage::event;
use stockline_server::data::DataDir;
use stockline_server::engine::{EngineConfig, RunningEngine};
use stockline_server::principal::token_sha256;
use stockline_server::quic::QuicFace;

/// A server in this process.
pub(crate) struct Server {
    running: Option<RunningEngine>,
    face: Arc<QuicFace>,
    pub(crate) profile: Profile,
}

const LOOPBACK: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

impl Server {
    pub(crate) async fn start(dir: &Path, shards: u32, address: Option<SocketAddr>) -> Server {
        let window = WindowSize { commands: 10_000, ms: 60_000 };
        let config = EngineConfig {
            clock_ahead_ms_max: None,
            data: dir.to_owned(),
            shards,
            retain_journal: true,
            window,
            http_rate: 0,
            jwt: None,
        };
        Server::with(config, address).await
    }

    pub(crate) async fn with(config: EngineConfig, address: Option<SocketAddr>) -> Server {
        let dir = &config.data;
        let data = DataDir::open(dir).expect("a directory");
        let certificate = data.certificate(&[]).expect("a certificate");
        let token = data.admin_token().expect("a token");
        let running = RunningEngine::start(&config, |failure| panic!("{failure:?}")).expect("starts");
        let face = QuicFace::listen(address.unwrap_or(LOOPBACK.into()), certificate).expect("listens");
        let face = Arc::new(face);
        let address = face.address().expect("an address");
        let (serving, engine) = (Arc::clone(&face), running.handle());
        tokio::spawn(async move { serving.serve(engine).await });
        let profile = Profile {
            quic: address.to_string(),
            http: String::new(),
            server_name: "localhost".into(),
            ca: dir.join("ca.pem"),
            token: token.clone(),
        };
        let server = Server { running: Some(running), face, profile };
        server.seed_admin(&token);
        server
    }

    /// The administrator comes into being as at the first `serve`.
    fn seed_admin(&self, token: &str) {
        use stockline_core::command::{Body, Command, Frame};
        use stockline_core::id::{Key, Millis, PrincipalId};
        let (reply_to, mut answered) = tokio::sync::mpsc::unbounded_channel();
        let definition = Definition::Principal {
            name: "admin".into(),
            role: Role::Admin,
            channel: None,
            nodes: vec![],
            token_sha256: token_sha256(token.as_bytes()),
            clock_ahead_s: 0,
        };
        let body = Body::Define(Box::new(definition));
        let frame = Frame {
            tag: stockline_server::engine::Tag::new(Some(reply_to)),
            principal: PrincipalId::SYSTEM,
            commands: vec![Command { key: Key(0), issued_at: Millis(0), digest: 0, body }],
            lines: vec![],
        };
        let engine = self.running.as_ref().expect("runs").handle();
        engine.submit(frame).expect("room");
        while answered.try_recv().is_err() {
            std::thread::yield_now();
        }
    }

    pub(crate) async fn stop(mut self) {
        let running = self.running.take().expect("runs");
        tokio::task::spawn_blocking(move || running.stop()).await.expect("stops");
        self.face.close().await;
    }

    pub(crate) fn with_token(&self, token: &str) -> Profile {
        Profile { token: token.into(), ..self.profile.clone() }
    }
}

/// Ids on the stage below.
pub(crate) struct Stage {
    pub(crate) skus: Vec<u32>,
    pub(crate) nodes: Vec<u16>,
    pub(crate) web: u16,
}

/// Two nodes, channels web and edi, a principal for each role, four skus with 100 units at the first node.
pub(crate) async fn stage(admin: &Client) -> Stage {
    let channel = |name: &str| Definition::channel(name);
    let principal = |name: &str, role, channel: Option<&str>, nodes: &[&str]| Definition::Principal {
        name: name.into(),
        role,
        channel: channel.map(str::to_owned),
        nodes: nodes.iter().map(|node| (*node).to_owned()).collect(),
        token_sha256: token_sha256(name.as_bytes()),
        clock_ahead_s: 0,
    };
    let definitions = [
        Definition::node("n0", 1),
        Definition::node("n1", 2),
        channel("web"),
        channel("edi"),
        principal("web-shop", Role::Channel, Some("web"), &[]),
        principal("edi-desk", Role::Channel, Some("edi"), &[]),
        principal("wms", Role::Warehouse, None, &["n0"]),
    ];
    for outcome in admin.define(&definitions).await.expect("defines") {
        assert_eq!(outcome.code, Code::Ok);
    }
    let ids = async |kind, names: &[&str], create| -> Vec<u32> {
        let found = admin.resolve(kind, names, create).await.expect("resolves");
        found.into_iter().map(|id| id.expect("a name")).collect()
    };
    let skus = ids(NameKind::Sku, &["a", "b", "c", "d"], true).await;
    let nodes: Vec<u16> =
        ids(NameKind::Node, &["n0", "n1"], false).await.iter().map(|id| *id as u16).collect();
    let web = ids(NameKind::Channel, &["web"], false).await[0] as u16;
    let receipts = skus
        .iter()
        .map(|sku| event(0x1000 + u128::from(*sku), EventKind::Receipt, *sku, nodes[0], 100, admin.now_ms()));
    for outcome in admin.tell(receipts.collect()).await.expect("tells") {
        assert_eq!(outcome.code, Code::Ok);
    }
    Stage { skus, nodes, web }
}

fn new(id: u128, channel: u16, ttl_ms: u32, lines: &[(u32, u32)]) -> NewReservation {
    let lines = lines.iter().map(|(sku, quantity)| LineRec {
        sku: *sku,
        node: 65_535,
        group: 65_535,
        quantity: *quantity,
    });
    NewReservation {
        id,
        channel,
        ttl_ms,
        fill: Fill::All,
        customer: 0,
        zone: u16::MAX,
        labels: stockline_client::label::Labels::NONE,
        lines: lines.collect(),
    }
}

fn step(key: u128, reservation: u128, verb: Verb) -> NewStep {
    NewStep { ttl_ms: 1_000, ..NewStep::whole(key, reservation, verb) }
}

fn question(channel: u16, skus: &[u32]) -> Availability {
    let query = QueryRec { channel, group: 65_535, detail: 1, sku_count: skus.len() as u32 };
    Availability { queries: vec![query], skus: skus.to_vec() }
}

async fn available(client: &Client, channel: u16, sku: u32) -> u64 {
    client.availability(&question(channel, &[sku])).await.expect("answers").items[0].available
}

async fn life_of_a_reservation(shards: u32) {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), shards, None).await;
    let client = Client::connect(&server.profile).await.expect("connects");
    let Stage { skus, nodes, web } = stage(&client).await;
    let lines: Vec<(u32, u32)> = skus.iter().map(|sku| (*sku, 10)).collect();
    let told = client.reserve(&[new(0xa1, web, 60_000, &lines)]).await.expect("answers").remove(0);
    assert_eq!((told.code, told.state, told.parts.len()), (Code::Ok, State::Held, 4));
    // Read your own writes: what was acknowledged is in every later answer.
    let answer = client.availability(&question(web, &skus)).await.expect("answers");
    assert!(answer.as_of_lsn >= told.lsn);
    assert!(answer.items.iter().all(|item| item.available == 90 && item.status == 1));
    assert_eq!(answer.nodes.len(), 4);
    let short = client.reserve(&[new(0xa2, web, 60_000, &[(skus[0], 5), (skus[1], 91)])]).await;
    let short = short.expect("answers").remove(0);
    assert_eq!(short.code, Code::InsufficientStock);
    assert_eq!((short.parts[0].sku, short.parts[0].node, short.parts[0].quantity), (skus[1], 65_535, 90));
    let told = client.transition(&[step(0xb1, 0xa1, Verb::Confirm)]).await.expect("answers").remove(0);
    assert_eq!((told.code, told.state), (Code::Ok, State::Confirmed));
    let found = client.reservations(&[0xa1, 0xa2]).await.expect("answers");
    assert_eq!((found[0].state, found[0].claims.len()), (State::Confirmed, 4));
    assert_eq!(found[1].code, Code::UnknownReservation);
    let told = client.transition(&[step(0xb2, 0xa1, Verb::Fulfil)]).await.expect("answers").remove(0);
    assert_eq!((told.code, told.state), (Code::Ok, State::Fulfilled));
    let places = [PlaceRec { sku: skus[0], node: nodes[0] }, PlaceRec { sku: skus[0], node: nodes[1] }];
    let positions = client.positions(&places).await.expect("answers");
    assert_eq!(positions[0].units, [90, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(positions[1].units, [0; 10]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reservation_lives_on_one_shard() {
    life_of_a_reservation(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reservation_lives_on_four_shards() {
    life_of_a_reservation(4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn holds_expire_by_themselves_and_after_a_restart() {
    for shards in [1, 4] {
        let dir = tempfile::tempdir().expect("a directory");
        let server = Server::start(dir.path(), shards, None).await;
        let client = Client::connect(&server.profile).await.expect("connects");
        let Stage { skus, web, .. } = stage(&client).await;
        let lines: Vec<(u32, u32)> = skus.iter().map(|sku| (*sku, 10)).collect();
        client.reserve(&[new(1, web, 50, &lines), new(2, web, 300, &lines)]).await.expect("answers");
        while available(&client, web, skus[0]).await != 90 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(client);
        let address = server.face.address().expect("an address");
        server.stop().await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let server = Server::start(dir.path(), shards, Some(address)).await;
        let client = Client::connect(&server.profile).await.expect("connects");
        while available(&client, web, skus[0]).await != 100 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let found = client.reservations(&[1, 2]).await.expect("answers");
        assert_eq!((found[0].state, found[1].state), (State::Expired, State::Expired));
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn repeats_get_the_first_answer_also_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), 4, None).await;
    let client = Client::connect(&server.profile).await.expect("connects");
    let Stage { skus, nodes, web } = stage(&client).await;
    let good = new(0xa1, web, 60_000, &[(skus[0], 60), (skus[1], 1)]);
    let bad = new(0xa2, web, 60_000, &[(skus[0], 60), (skus[1], 1)]);
    let first = client.reserve(&[good.clone(), bad.clone()]).await.expect("answers");
    assert_eq!((first[0].code, first[1].code), (Code::Ok, Code::InsufficientStock));
    // In one frame: repeats among new ones keep their places and parts.
    let mixed = client.reserve(&[bad.clone(), new(0xa3, web, 60_000, &[(skus[2], 1)]), good.clone()]).await;
    let mixed = mixed.expect("answers");
    let as_repeat =
        |outcome: &stockline_client::Outcome| stockline_client::Outcome { repeat: true, ..outcome.clone() };
    assert_eq!(mixed[0], as_repeat(&first[1]));
    assert_eq!((mixed[1].code, mixed[1].repeat, mixed[1].parts.len()), (Code::Ok, false, 1));
    assert_eq!(mixed[2], as_repeat(&first[0]));
    drop(client);
    let address = server.face.address().expect("an address");
    server.stop().await;
    let server = Server::start(dir.path(), 1, Some(address)).await;
    let client = Client::connect(&server.profile).await.expect("connects");
    let more = event(0x9999, EventKind::Receipt, skus[0], nodes[0], 500, client.now_ms());
    client.tell(vec![more]).await.expect("tells");
    let again = client.reserve(&[good, bad]).await.expect("answers");
    assert_eq!(again[0], as_repeat(&first[0]));
    assert_eq!(again[1], as_repeat(&first[1]), "restocking does not change a refusal");
    let other = client.reserve(&[new(0xa1, web, 60_000, &[(skus[0], 61)])]).await.expect("answers");
    assert_eq!((other[0].code, other[0].lsn), (Code::KeyConflict, 0));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_goes_on_over_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), 1, None).await;
    let client = Client::connect(&server.profile).await.expect("connects");
    let Stage { skus, web, .. } = stage(&client).await;
    let address = server.face.address().expect("an address");
    server.stop().await;
    let asking = {
        let client = client.clone();
        let sku = skus[0];
        tokio::spawn(async move { client.reserve(&[new(0xc1, web, 60_000, &[(sku, 1)])]).await })
    };
    tokio::time::sleep(Duration::from_millis(200)).await;
    let server = Server::start(dir.path(), 4, Some(address)).await;
    let told = asking.await.expect("no panic").expect("answers").remove(0);
    assert_eq!((told.code, told.state), (Code::Ok, State::Held));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stampede_from_many_connections_takes_exactly_what_is_there() {
    for shards in [1, 4] {
        let dir = tempfile::tempdir().expect("a directory");
        let server = Server::start(dir.path(), shards, None).await;
        let admin = Client::connect(&server.profile).await.expect("connects");
        let Stage { skus, web, .. } = stage(&admin).await;
        let mut tasks = Vec::new();
        for connection in 0..8u128 {
            let client = Client::connect(&server.profile).await.expect("connects");
            // Half go a, b; half go b, a: nobody may wait for the other.
            let lines =
                if connection % 2 == 0 { [(skus[0], 1), (skus[1], 1)] } else { [(skus[1], 1), (skus[0], 1)] };
            tasks.push(tokio::spawn(async move {
                let mut granted = 0;
                for round in 0..50 {
                    let all: Vec<_> = (0..10)
                        .map(|index| new(connection << 64 | (round * 10 + index + 1), web, 60_000, &lines))
                        .collect();
                    let told = client.reserve(&all).await.expect("answers");
                    granted += told.iter().filter(|outcome| outcome.code == Code::Ok).count();
                }
                granted
            }));
        }
        let mut granted = 0;
        for task in tasks {
            granted += task.await.expect("no panic");
        }
        assert_eq!(granted, 100, "{shards} shards");
        assert_eq!(available(&admin, web, skus[0]).await, 0);
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allocation_is_seen_by_its_channel_and_those_below_it() {
    for shards in [1, 4] {
        let dir = tempfile::tempdir().expect("a directory");
        let server = Server::start(dir.path(), shards, None).await;
        let admin = Client::connect(&server.profile).await.expect("connects");
        let Stage { skus, nodes, web } = stage(&admin).await;
        let below = |name: &str, group: Option<&str>| {
            let Definition::Channel { name, buffer, policy, .. } = Definition::channel(name) else {
                unreachable!("it is a channel")
            };
            let (parent, group) = (Some("web".to_owned()), group.map(str::to_owned));
            Definition::Channel { name, parent, group, buffer, policy }
        };
        let group = Definition::Group { name: "g".into(), nodes: vec!["n1".into()] };
        let defined = [group, below("vip", None), below("far", Some("g"))];
        assert!(admin.define(&defined).await.expect("ok").iter().all(|told| told.code == Code::Ok));
        let channels = admin.resolve(NameKind::Channel, &["edi", "vip", "far"], false).await.expect("ok");
        let [edi, vip, far] = [0, 1, 2].map(|at| channels[at].expect("a name") as u16);
        let allocate = |key, action: Action, quantity| AllocateRec {
            key,
            issued_at_ms: 0,
            sku: skus[0],
            quantity,
            node: nodes[0],
            channel: web,
            to_channel: 65_535,
            action: action as u8,
        };
        for (key, action, quantity, code) in [
            (0xc1, Action::Allocate, 101, Code::InsufficientStock),
            (0xc2, Action::Allocate, 40, Code::Ok),
            (0xc2, Action::Allocate, 40, Code::Ok),
            (0xc2, Action::Allocate, 41, Code::KeyConflict),
            (0xc3, Action::Deallocate, 41, Code::InsufficientAllocation),
        ] {
            let told = admin.allocate(vec![allocate(key, action, quantity)]).await.expect("ok").remove(0);
            assert_eq!(told.code, code, "{key:x}");
        }
        for (channel, units) in [(web, 100), (vip, 100), (edi, 60), (far, 0)] {
            assert_eq!(available(&admin, channel, skus[0]).await, units, "channel {channel}");
        }
        // Of two nodes with something each, every one is told once.
        let answer = admin.availability(&question(vip, &skus[..1])).await.expect("ok");
        assert_eq!((answer.nodes.len(), answer.nodes[0].available), (1, 100));

        let shop = Client::connect(&server.with_token("web-shop")).await.expect("connects");
        let refused = |result: Result<(), ClientError>, due: Code| match result {
            Err(ClientError::Refused { code, .. }) => assert_eq!(code, due),
            other => panic!("{other:?} instead of {due:?}"),
        };
        refused(shop.allocate(vec![allocate(0xc4, Action::Deallocate, 1)]).await.map(drop), Code::Forbidden);
        refused(shop.allocations(None, &skus).await.map(drop), Code::UnknownChannel);
        refused(shop.allocations(Some(edi), &skus).await.map(drop), Code::UnknownChannel);
        let shares = shop.allocations(Some(web), &skus).await.expect("ok");
        assert_eq!(shares[0], [ShareRec { units: 40, node: nodes[0], channel: web }]);
        assert!(shares[1..].iter().all(Vec::is_empty));
        refused(
            shop.explain(&[new(0xa1, edi, 1_000, &[(skus[0], 1)])]).await.map(drop),
            Code::UnknownChannel,
        );
        let (told, traces) = shop.explain(&[new(0xa1, web, 1_000, &[(skus[0], 41)])]).await.expect("ok");
        assert_eq!((told[0].code, told[0].lsn, told[0].parts[0].quantity), (Code::Ok, 0, 41));
        assert_eq!((traces.len(), traces[0].own, traces[0].free, traces[0].taken), (1, 40, 60, 41));
        // Nobody but an administrator hears of a node that the channel is not offered.
        let principal = Definition::Principal {
            name: "far-desk".into(),
            role: Role::Channel,
            channel: Some("far".into()),
            nodes: vec![],
            token_sha256: token_sha256(b"far-desk"),
            clock_ahead_s: 0,
        };
        assert_eq!(admin.define(&[principal]).await.expect("ok")[0].code, Code::Ok);
        let desk = Client::connect(&server.with_token("far-desk")).await.expect("connects");
        let ask = [new(0xa1, far, 1_000, &[(skus[0], 1)])];
        assert_eq!(desk.explain(&ask).await.expect("ok").1, []);
        assert_eq!(admin.explain(&ask).await.expect("ok").1[0].why, 1);
        // All of it is there after a restart.
        assert_eq!(
            shop.reserve(&[new(0xa1, web, 60_000, &[(skus[0], 39)])]).await.expect("ok")[0].code,
            Code::Ok
        );
        server.stop().await;
        let server = Server::start(dir.path(), shards, None).await;
        let admin = Client::connect(&server.profile).await.expect("connects");
        let shares = admin.allocations(None, &skus[..1]).await.expect("ok").remove(0);
        assert_eq!(shares, [ShareRec { units: 1, node: nodes[0], channel: web }]);
        assert_eq!(available(&admin, vip, skus[0]).await, 61);
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_told_for_when_and_is_served_first_also_after_a_restart() {
    for shards in [1, 4] {
        let dir = tempfile::tempdir().expect("a directory");
        let server = Server::start(dir.path(), shards, None).await;
        let admin = Client::connect(&server.profile).await.expect("connects");
        let Stage { skus, nodes, web } = stage(&admin).await;
        let sku = skus[1];
        let rule = Definition::Rule {
            name: "wait".into(),
            skus: "b".into(),
            category: String::new(),
            node: None,
            group: None,
            channel: Some("web".into()),
            effect: Effect::Preorder(10),
        };
        assert_eq!(admin.define(&[rule]).await.expect("ok")[0].code, Code::Ok);
        let eta = admin.now_ms() + 3_600_000;
        let supply = |key, kind, quantity, eta_ms| EventRec {
            supply: 7,
            given: 2,
            eta_ms,
            ..event(key, kind, sku, nodes[0], quantity, admin.now_ms())
        };
        let shop = Client::connect(&server.with_token("web-shop")).await.expect("connects");
        let told = admin.tell(vec![supply(0xd1, EventKind::Supply, 20, eta)]).await.expect("ok");
        assert_eq!(told[0].code, Code::Ok);
        // 100 are there; then a preorder is what is left to ask for.
        let told = shop.reserve(&[new(0xa1, web, 600_000, &[(sku, 104), (skus[0], 1)])]).await.expect("ok");
        let parts: Vec<_> = told[0].parts.iter().map(|part| (part.sku, part.quantity, part.at_ms)).collect();
        assert_eq!(parts, [(skus[0], 1, 0), (sku, 100, 0), (sku, 4, eta)], "{shards} shards");
        let answer = shop.availability(&question(web, &skus[..2])).await.expect("ok");
        assert_eq!((answer.items[0].status, answer.items[1].status, answer.items[1].available), (1, 5, 0));
        assert_eq!(answer.later, [LaterRec { from_ms: eta, units: 6, item: 1 }]);
        let told = shop.reserve(&[new(0xa1, web, 600_000, &[(sku, 104), (skus[0], 1)])]).await.expect("ok");
        assert!(told[0].repeat);
        assert_eq!(told[0].parts[2].at_ms, eta, "a repeat hears the same");
        let told = shop.transition(&[step(0xb1, 0xa1, Verb::Confirm)]).await.expect("ok");
        assert_eq!(told[0].code, Code::Ok);
        let told = admin.transition(&[step(0xb2, 0xa1, Verb::Fulfil)]).await.expect("ok");
        assert_eq!(told[0].code, Code::Backordered);
        server.stop().await;

        let server = Server::start(dir.path(), shards, None).await;
        let admin = Client::connect(&server.profile).await.expect("connects");
        let claims = admin.reservations(&[0xa1]).await.expect("ok").remove(0).claims;
        assert_eq!((claims.len(), claims[1].at_ms, claims[1].quantity), (3, eta, 4));
        let answer = admin.availability(&question(web, &[sku])).await.expect("ok");
        assert_eq!(answer.later, [LaterRec { from_ms: eta, units: 6, item: 0 }]);
        // Of the 20 that arrive, 4 are his, from the moment on in which they are there.
        let told = admin.tell(vec![supply(0xd2, EventKind::Receipt, 20, 0)]).await.expect("ok");
        assert_eq!(told[0].code, Code::Ok);
        assert_eq!(available(&admin, web, sku).await, 16);
        while admin.reservations(&[0xa1]).await.expect("ok")[0].claims.iter().any(|claim| claim.at_ms > 0) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(available(&admin, web, sku).await, 16);
        let told = admin.transition(&[step(0xb3, 0xa1, Verb::Fulfil)]).await.expect("ok");
        assert_eq!((told[0].code, told[0].state), (Code::Ok, State::Fulfilled));
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_may_do_its_own_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), 1, None).await;
    let admin = Client::connect(&server.profile).await.expect("connects");
    let Stage { skus, nodes, web } = stage(&admin).await;
    let edi =
        admin.resolve(NameKind::Channel, &["edi"], false).await.expect("resolves")[0].expect("edi") as u16;
    let shop = Client::connect(&server.with_token("web-shop")).await.expect("connects");
    let desk = Client::connect(&server.with_token("edi-desk")).await.expect("connects");
    let wms = Client::connect(&server.with_token("wms")).await.expect("connects");
    let refused = |result: Result<(), ClientError>, due: Code| match result {
        Err(ClientError::Refused { code, .. }) => assert_eq!(code, due),
        other => panic!("{other:?} instead of {due:?}"),
    };
    let receipt = |key, node| event(key, EventKind::Receipt, skus[0], node, 1, 1);
    let channel = Definition::channel("new");

    // A channel: its own claims and questions.
    assert_eq!(shop.reserve(&[new(0xa1, web, 60_000, &[(skus[0], 1)])]).await.expect("ok")[0].code, Code::Ok);
    assert_eq!(available(&shop, web, skus[0]).await, 99);
    refused(shop.reserve(&[new(0xa2, edi, 1, &[(skus[0], 1)])]).await.map(drop), Code::UnknownChannel);
    refused(shop.availability(&question(edi, &skus)).await.map(drop), Code::UnknownChannel);
    refused(shop.tell(vec![receipt(0xe1, nodes[0])]).await.map(drop), Code::Forbidden);
    refused(shop.define(std::slice::from_ref(&channel)).await.map(drop), Code::Forbidden);
    let place = PlaceRec { sku: skus[0], node: nodes[0] };
    refused(shop.positions(&[place]).await.map(drop), Code::Forbidden);
    refused(shop.resolve(NameKind::Sku, &["fresh"], true).await.map(drop), Code::Forbidden);
    assert!(shop.resolve(NameKind::Sku, &["a"], false).await.expect("ok")[0].is_ok());

    // Another channel: what is not its own looks unknown.
    assert_eq!(desk.reservations(&[0xa1]).await.expect("ok")[0].code, Code::UnknownReservation);
    let told = desk.transition(&[step(0xd1, 0xa1, Verb::Release)]).await.expect("ok").remove(0);
    assert_eq!(told.code, Code::UnknownReservation);
    assert_eq!(shop.reservations(&[0xa1]).await.expect("ok")[0].state, State::Held);
    // The same id from another principal is a conflict, and tells nothing of the first.
    let told = desk.reserve(&[new(0xa1, edi, 60_000, &[(skus[0], 1)])]).await.expect("ok").remove(0);
    assert_eq!((told.code, told.lsn, told.parts.len()), (Code::KeyConflict, 0, 0));

    // A warehouse: its own node.
    assert_eq!(wms.tell(vec![receipt(0xe2, nodes[0])]).await.expect("ok")[0].code, Code::Ok);
    assert!(wms.positions(&[place]).await.is_ok());
    // Another's event is refused by itself, and the others of its frame are applied.
    let told = wms.tell(vec![receipt(0xe3, nodes[1]), receipt(0xe4, nodes[0])]).await.expect("ok");
    assert_eq!((told[0].code, told[0].lsn, told[1].code), (Code::UnknownNode, 0, Code::Ok));
    refused(wms.positions(&[PlaceRec { node: nodes[1], ..place }]).await.map(drop), Code::UnknownNode);
    refused(wms.reserve(&[new(0xa3, web, 1, &[(skus[0], 1)])]).await.map(drop), Code::Forbidden);
    refused(wms.availability(&question(web, &skus)).await.map(drop), Code::Forbidden);
    refused(wms.define(&[channel]).await.map(drop), Code::Forbidden);

    // A token that is replaced no longer opens the door.
    let replaced = Definition::Principal {
        name: "wms".into(),
        role: Role::Warehouse,
        channel: None,
        nodes: vec!["n0".into()],
        token_sha256: token_sha256(b"another"),
        clock_ahead_s: 0,
    };
    admin.define(&[replaced]).await.expect("defines");
    let old = Client::connect(&server.with_token("wms")).await.map(drop);
    assert!(matches!(old, Err(ClientError::SignIn(_))), "{old:?}");
    assert!(Client::connect(&server.with_token("another")).await.is_ok());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_frames_hurt_only_their_sender() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), 1, None).await;
    let honest = Client::connect(&server.profile).await.expect("connects");
    let Stage { skus, web, .. } = stage(&honest).await;
    for token in ["", "wrong", &"x".repeat(300)] {
        let told = Client::connect(&server.with_token(token)).await.map(drop);
        assert!(matches!(told, Err(ClientError::SignIn(_))), "{told:?}");
    }
    // No sign-in first.
    let (mut sink, mut source) = connect(&server.profile).await.expect("connects");
    let mut frame = Vec::new();
    wire::encode(&mut frame, FrameType::Availability, 5, &question(web, &skus));
    sink.send(&frame).await.expect("sends");
    source.receive().await.expect("a refusal");
    assert_eq!(source.next_frame().expect("a frame").expect("whole").kind, FrameType::Refusal);
    assert!(source.receive().await.is_err(), "then it is closed");
    // A header that makes no sense ends the connection, with a reason.
    for header in [[0xff; 12], [8, 0, 0, 0, 9, 5, 0, 0, 0, 0, 0, 0], [8, 0, 0, 0, 1, 0x70, 0, 0, 0, 0, 0, 0]]
    {
        let mut guilty = Connection::open(&server.profile).await.expect("connects");
        guilty.sink.send(&header).await.expect("sends");
        guilty.source.receive().await.expect("a refusal");
        let refusal = guilty.source.next_frame().expect("a frame").expect("whole");
        assert_eq!((refusal.kind, refusal.request), (FrameType::Refusal, 0));
        assert!(guilty.source.receive().await.is_err(), "then it is closed");
    }
    // A sound header around garbage is refused by its request id, and the connection goes on.
    let mut guilty = Connection::open(&server.profile).await.expect("connects");
    let mut frames = vec![12, 0, 0, 0, 1, 5, 0, 0, 77, 0, 0, 0, 1, 2, 3, 4];
    wire::encode(&mut frames, FrameType::SignIn, 78, &SignIn { token: vec![] });
    wire::encode(&mut frames, FrameType::Availability, 79, &question(web, &skus));
    guilty.sink.send(&frames).await.expect("sends");
    let mut kinds = Vec::new();
    while kinds.len() < 3 {
        guilty.source.receive().await.expect("answers");
        while let Some(frame) = guilty.source.next_frame().expect("a frame") {
            kinds.push((frame.request, frame.kind));
        }
    }
    let due = [(77, FrameType::Refusal), (78, FrameType::Refusal), (79, FrameType::AvailabilityAnswer)];
    assert_eq!(kinds, due);
    // Half a frame, and then silence or the end.
    let mut silent = Connection::open(&server.profile).await.expect("connects");
    silent.sink.send(&[200, 0, 0, 0, 1, 5]).await.expect("sends");
    assert_eq!(available(&honest, web, skus[0]).await, 100);
    drop(silent);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_then_b_against_b_then_a_never_deadlocks_on_four_shards() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), 4, None).await;
    let admin = Client::connect(&server.profile).await.expect("connects");
    let Stage { skus, web, .. } = stage(&admin).await;
    let tasks: Vec<_> = (0..8u128)
        .map(|task| {
            let (client, mut skus) = (admin.clone(), skus.clone());
            if task % 2 == 1 {
                skus.reverse();
            }
            tokio::spawn(async move {
                let lines: Vec<(u32, u32)> = skus.iter().map(|sku| (*sku, 1)).collect();
                let mut held = 0;
                for round in 0..100u128 {
                    let id = (task + 1) << 32 | round;
                    let told = client.reserve(&[new(id, web, 60_000, &lines)]).await.expect("answered");
                    held += i64::from(told[0].code == Code::Ok);
                }
                held
            })
        })
        .collect();
    let mut held = 0;
    for task in tasks {
        held += task.await.expect("ends");
    }
    assert_eq!(held, 100, "each of the four skus had 100 units");
    for sku in skus {
        assert_eq!(available(&admin, web, sku).await, 0);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_many_times_at_once_takes_effect_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), 1, None).await;
    let admin = Client::connect(&server.profile).await.expect("connects");
    let Stage { skus, web, .. } = stage(&admin).await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(Client::connect(&server.profile).await.expect("connects"));
    }
    let issued_at_ms = admin.now_ms();
    for round in 1..=20u128 {
        // Receipts with one key and one body, over all connections at once.
        let receipt = stockline_core::record::EventRec {
            issued_at_ms,
            ..event(0xee00 + round, EventKind::Receipt, skus[0], 0, 7, 1)
        };
        let asked: Vec<_> = clients
            .iter()
            .map(|client| {
                let client = client.clone();
                tokio::spawn(async move { client.tell(vec![receipt]).await.expect("answered").remove(0) })
            })
            .collect();
        let mut told = Vec::new();
        for asked in asked {
            told.push(asked.await.expect("ends"));
        }
        assert_eq!(told.iter().filter(|outcome| !outcome.repeat).count(), 1, "one is the first");
        assert!(told.iter().all(|outcome| (outcome.code, outcome.lsn) == (Code::Ok, told[0].lsn)));
        assert_eq!(available(&admin, web, skus[0]).await, 100 + 7 * round as u64);
    }
    server.stop().await;
}

/// Frames whose answers fill what is sent at one go, while nothing else is in flight: the session goes on.
#[tokio::test(flavor = "multi_thread")]
async fn large_answers_to_large_frames_never_end_the_server() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), 1, None).await;
    let admin = Client::connect(&server.profile).await.expect("connects");
    let Stage { skus, nodes, .. } = stage(&admin).await;
    let places = vec![PlaceRec { sku: skus[0], node: nodes[0] }; 8_192];
    let busy: Vec<_> = (0..6)
        .map(|_| {
            let (profile, places) = (server.profile.clone(), places.clone());
            tokio::spawn(async move {
                let client = Client::connect(&profile).await.expect("connects");
                for _ in 0..60 {
                    let found = client.positions(&places).await.expect("answered");
                    assert!(found.len() == 8_192 && found.iter().all(|found| found.units[0] == 100));
                }
            })
        })
        .collect();
    for busy in busy {
        busy.await.expect("ends");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_frames_of_several_principals_go_in_turns_and_each_is_answered_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), 1, None).await;
    let admin = Client::connect(&server.profile).await.expect("connects");
    let Stage { skus, web, .. } = stage(&admin).await;
    const LARGE: usize = 1_000;
    let (mut granted, mut rounds, mut in_turns) = (0, 0u128, false);
    while !in_turns || granted < 100 {
        assert!(rounds < 200, "two at work for that long, and never in turns");
        let mut tasks = Vec::new();
        for (number, token, channel) in [(1u128, "web-shop", web), (2, "edi-desk", web + 1)] {
            let client = Client::connect(&server.with_token(token)).await.expect("connects");
            let sku = skus[0];
            tasks.push(tokio::spawn(async move {
                // The sku's number of lines says which of the frame's reservations an answer is for.
                let lines = |index: usize| vec![(sku, 1); 1 + index % 2];
                let all: Vec<_> = (0..LARGE)
                    .map(|index| {
                        let id = number << 64 | (rounds * LARGE as u128 + index as u128 + 1);
                        new(id, channel, 60_000, &lines(index))
                    })
                    .collect();
                (client.reserve(&all).await.expect("answers"), client.reserve(&all).await.expect("answers"))
            }));
        }
        for task in tasks {
            let (told, again) = task.await.expect("no panic");
            assert_eq!((told.len(), again.len()), (LARGE, LARGE));
            assert!(told.is_sorted_by_key(|outcome| outcome.lsn), "in the order given");
            for (index, (outcome, repeat)) in told.iter().zip(&again).enumerate() {
                let units = outcome.parts.iter().map(|part| part.quantity).sum::<u32>();
                if outcome.code == Code::Ok {
                    assert_eq!(units as usize, 1 + index % 2);
                    granted += units;
                }
                assert_eq!(
                    (repeat.repeat, repeat.lsn, repeat.code, &repeat.parts),
                    (true, outcome.lsn, outcome.code, &outcome.parts)
                );
            }
            in_turns |= told[LARGE - 1].lsn - told[0].lsn >= LARGE as u64;
        }
        rounds += 1;
    }
    assert_eq!(granted, 100);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_takes_nothing_more() {
    use stockline_core::command::{Body, Command, Frame};
    use stockline_core::id::{Key, Millis, PrincipalId};
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), 1, None).await;
    let engine = server.running.as_ref().expect("runs").handle();
    server.stop().await;
    let body = Body::Define(Box::new(Definition::node("n", 1)));
    let frame = Frame {
        tag: stockline_server::engine::Tag::new(None),
        principal: PrincipalId(1),
        commands: vec![Command { key: Key(0), issued_at: Millis(0), digest: 0, body }],
        lines: vec![],
    };
    let refused = engine.submit(frame);
    assert!(
        matches!(refused, Err(stockline_server::engine::Refused::Turned(Code::ShuttingDown))),
        "{refused:?}"
    );
}
