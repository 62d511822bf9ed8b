//! Attacks over QUIC on the real binary: whatever one sender does, an honest one gets every answer, and the
//! server's memory stays within what `core/src/limit.rs` allows.
//!
//! `-- --nocapture attack::` prints the honest client's latencies; docs/testing.md has figures of a quiet machine.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use stockline_client::{Client, Connection, FrameSink, FrameSource, NewReservation, Profile, connect};
use stockline_core::catalogue::{Definition, NameKind, Role};
use stockline_core::event::EventKind;
use stockline_core::limit;
use stockline_core::outcome::{Code, State};
use stockline_core::record::{LineRec, ReserveRec};
use stockline_core::wire::{
    self, ArchivedRefusal, ArchivedResults, Availability, FrameType, QueryRec, Reservations,
};
use stockline_loadgen::dice::Dice;
use stockline_loadgen::stage::event;
use stockline_server::principal::token_sha256;
use tokio::task::JoinHandle;

use crate::binary::{Serving, serve};

const HONEST: usize = 300;
/// Bytes the server may grow by while it is attacked.
const GROWTH_MAX: u64 = 600 << 20;
/// So long a wait means that it hangs.
const HANG: Duration = Duration::from_secs(60);

struct Ground {
    serving: Serving,
    profile: Profile,
    honest: Client,
    sku: u32,
    reserved: u128,
}

fn with_token(profile: &Profile, token: &str) -> Profile {
    Profile { token: token.into(), ..profile.clone() }
}

/// A server, an honest channel with stock, and a channel that is up to no good.
async fn ground(dir: &Path) -> Ground {
    let data = dir.join("data");
    let serving = serve(&data, &[]);
    let profile = Profile::load(&data.join("client.toml")).expect("a profile");
    let admin = Client::connect(&profile).await.expect("connects");
    let principal = |name: &str| Definition::Principal {
        name: name.into(),
        role: Role::Channel,
        channel: Some(name.into()),
        nodes: vec![],
        token_sha256: token_sha256(name.as_bytes()),
    };
    let channel = |name: &str| Definition::Channel { name: name.into(), group: None, buffer: 0 };
    let node =
        Definition::Node { name: "n".into(), priority: 1, kind: String::new(), timezone: String::new() };
    let definitions = [node, channel("honest"), channel("flood"), principal("honest"), principal("flood")];
    admin.define(&definitions).await.expect("defined");
    let sku = admin.resolve(NameKind::Sku, &["s"], true).await.expect("resolved")[0].expect("an id");
    let receipt = event(1, EventKind::Receipt, sku, 0, 1_000_000_000, admin.now_ms());
    admin.tell(vec![receipt]).await.expect("told");
    let honest = Client::connect(&with_token(&profile, "honest")).await.expect("connects");
    Ground { serving, profile, honest, sku, reserved: 0 }
}

impl Ground {
    fn flood(&self) -> Profile {
        with_token(&self.profile, "flood")
    }

    /// Resident bytes of the server.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.serving.child.id()));
        let status = status.expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }

    /// Reserves one by one; every answer must be a hold. Answers the latencies, sorted.
    async fn honest_work(&mut self) -> Vec<Duration> {
        let mut times = Vec::new();
        for _ in 0..HONEST {
            self.reserved += 1;
            let line = LineRec { sku: self.sku, node: u16::MAX, group: u16::MAX, quantity: 1 };
            let new = NewReservation {
                id: 1 << 100 | self.reserved,
                channel: 0,
                ttl_ms: 3_600_000,
                lines: vec![line],
            };
            let started = Instant::now();
            let told = tokio::time::timeout(HANG, self.honest.reserve(&[new])).await;
            let told = told.expect("an honest client is answered").expect("an honest client is served");
            assert_eq!((told[0].code, told[0].state), (Code::Ok, State::Held));
            times.push(started.elapsed());
        }
        times.sort();
        times
    }

    /// Honest work before and while `attackers` are at it.
    async fn under(&mut self, name: &str, attackers: Vec<JoinHandle<()>>, before: &[Duration], memory: u64) {
        // They begin.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let times = self.honest_work().await;
        for attacker in &attackers {
            attacker.abort();
        }
        let grown = self.memory().saturating_sub(memory);
        let at = |times: &[Duration], part: usize| times[times.len() * part / 100].as_micros();
        println!(
            "attack::{name}: honest p50 {} us (before {}), p99 {} us (before {}), memory +{} MiB",
            at(&times, 50),
            at(before, 50),
            at(&times, 99),
            at(before, 99),
            grown >> 20
        );
        assert!(grown < GROWTH_MAX, "{name}: the server grew by {} MiB", grown >> 20);
        for attacker in attackers {
            if let Err(error) = attacker.await {
                assert!(error.is_cancelled(), "{name}: {error}");
            }
        }
    }
}

/// Attackers have threads of their own, which get what the others leave: what the honest one suffers comes from
/// the server, and not from sharing two cores with them.
fn attackers() -> &'static tokio::runtime::Runtime {
    static RUNTIME: std::sync::OnceLock<tokio::runtime::Runtime> = std::sync::OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.enable_all().worker_threads(2).on_thread_start(|| {
            // Where the system does not allow it the figures are worse, and nothing else.
            let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), 19);
        });
        builder.build().expect("a runtime")
    })
}

/// As many tasks of one kind; a panic in one fails the test.
fn many<F>(count: u64, attack: impl Fn(u64) -> F) -> Vec<JoinHandle<()>>
where
    F: Future<Output = ()> + Send + 'static,
{
    (0..count).map(|number| attackers().spawn(attack(number))).collect()
}

/// Waits for what the server says last; the refusal's code.
async fn turned_away(source: &mut FrameSource) -> Option<Code> {
    loop {
        match source.next_frame() {
            Ok(Some(frame)) if frame.kind == FrameType::Refusal => {
                let refusal = wire::access::<ArchivedRefusal>(frame.archive).expect("a refusal");
                return Code::from_number(refusal.code);
            }
            Ok(Some(_)) => {}
            Ok(None) => source.receive().await.ok()?,
            Err(_) => return None,
        }
    }
}

async fn signed_in(profile: &Profile) -> (FrameSink, FrameSource) {
    loop {
        if let Ok(connection) = Connection::open(profile).await {
            return (connection.sink, connection.source);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Random bytes, before and after the sign-in.
async fn garbage(profile: Profile, seed: u64) {
    let mut dice = Dice::new(seed);
    loop {
        let bytes: Vec<u8> = (0..dice.roll() % 3_000).map(|_| dice.roll() as u8).collect();
        let opened = if dice.roll().is_multiple_of(2) {
            connect(&profile).await.ok()
        } else {
            Some(signed_in(&profile).await)
        };
        let Some((mut sink, mut source)) = opened else { continue };
        // It may be closed while this is sent.
        let _ = sink.send(&bytes).await;
        sink.finish();
        let _ = tokio::time::timeout(Duration::from_secs(10), turned_away(&mut source)).await;
    }
}

/// Frames said to be longer than any may be.
async fn oversized(profile: Profile, number: u64) {
    loop {
        one_oversized(&profile, number).await;
    }
}

/// One of them; by a stranger if the number is even. It is told at once, and nobody waits for its bytes.
async fn one_oversized(profile: &Profile, number: u64) {
    let stranger = number.is_multiple_of(2);
    let (mut sink, mut source) = if stranger {
        let Ok(opened) = connect(profile).await else { return };
        opened
    } else {
        signed_in(profile).await
    };
    let length = if stranger { limit::SIGN_IN_BYTES_MAX as u32 + 1 } else { u32::MAX };
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend_from_slice(&[1, 1, 0, 0, 9, 0, 0, 0]);
    sink.send(&bytes).await.expect("sent");
    let told = tokio::time::timeout(HANG, turned_away(&mut source)).await;
    assert_eq!(told.expect("it is told at once"), Some(Code::Malformed));
}

/// Half a frame, and then nothing.
async fn truncated(profile: Profile) {
    let (mut sink, mut source) = signed_in(&profile).await;
    let mut frame = Vec::new();
    wire::encode(&mut frame, FrameType::Reserve, 1, &Reservations::default());
    frame.truncate(frame.len() / 2);
    sink.send(&frame).await.expect("sent");
    // The connection is kept alive, and nothing comes.
    while source.receive().await.is_ok() {}
}

/// Questions with large answers that are never read.
async fn stalled(profile: Profile, sku: u32) {
    let (mut sink, _source) = signed_in(&profile).await;
    let question = Availability {
        queries: vec![QueryRec { channel: 1, group: u16::MAX, sku_count: 8_000, detail: 1 }],
        skus: vec![sku; 8_000],
    };
    let mut frame = Vec::new();
    wire::encode(&mut frame, FrameType::Availability, 1, &question);
    while sink.send(&frame).await.is_ok() {}
    std::future::pending::<()>().await;
}

/// Connections that never sign in; the server ends them.
async fn silent(profile: Profile) {
    loop {
        let Ok((_sink, mut source)) = connect(&profile).await else { continue };
        let ended = tokio::time::timeout(HANG, source.receive()).await;
        assert!(ended.expect("the server lets go of who says nothing").is_err());
    }
}

/// Handshakes that are begun and dropped, and datagrams that mean nothing.
async fn handshakes(profile: Profile, seed: u64) {
    let mut dice = Dice::new(seed);
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    loop {
        let _ = tokio::time::timeout(Duration::from_micros(dice.roll() % 2_000), connect(&profile)).await;
        for _ in 0..20 {
            // Long headers of version 1, so that they are looked at.
            let mut bytes: Vec<u8> = (0..1_200).map(|_| dice.roll() as u8).collect();
            bytes[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]);
            let _ = socket.send_to(&bytes, &profile.quic).await;
        }
        tokio::task::yield_now().await;
    }
}

/// Reservations with ever new ids, a thousand frames ahead of the answers.
async fn keys(profile: Profile, number: u64, sku: u32, granted: Arc<AtomicU64>, turned: Arc<AtomicU64>) {
    let connection = loop {
        if let Ok(connection) = Connection::open(&profile).await {
            break connection;
        }
    };
    let (mut sink, mut source) = (connection.sink, connection.source);
    let issued_at_ms = connection.welcome.now_ms;
    let reader = async move {
        loop {
            match source.next_frame() {
                Ok(Some(frame)) if frame.kind == FrameType::Results => {
                    let results = wire::access::<ArchivedResults>(frame.archive).expect("results");
                    let held = results.results.iter().filter(|result| result.code == Code::Ok as u8);
                    granted.fetch_add(held.count() as u64, Ordering::Relaxed);
                }
                Ok(Some(frame)) => {
                    let refusal = wire::access::<ArchivedRefusal>(frame.archive).expect("a refusal");
                    assert_eq!(refusal.code, Code::Overloaded as u8, "the only reason to turn it away");
                    turned.fetch_add(1, Ordering::Relaxed);
                }
                Ok(None) => {
                    if source.receive().await.is_err() {
                        return;
                    }
                }
                Err(error) => panic!("{error}"),
            }
        }
    };
    let writer = async move {
        let mut id = u128::from(number + 1) << 64;
        let mut frame = Vec::new();
        loop {
            let mut body = Reservations::default();
            for _ in 0..50 {
                id += 1;
                body.reservations.push(ReserveRec {
                    key: id,
                    issued_at_ms,
                    id,
                    channel: 1,
                    ttl_ms: 3_600_000,
                    fill: 0,
                    line_count: 1,
                });
                body.lines.push(LineRec { sku, node: u16::MAX, group: u16::MAX, quantity: 1 });
            }
            frame.clear();
            wire::encode(&mut frame, FrameType::Reserve, 1, &body);
            if sink.send(&frame).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(reader, writer);
}

#[test]
fn only_the_guilty_suffer() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let dir = tempfile::tempdir().expect("a directory");
    runtime.block_on(async {
        let mut ground = ground(dir.path()).await;
        ground.honest_work().await;
        let before = ground.honest_work().await;
        let memory = ground.memory();
        let (profile, flood, sku) = (ground.profile.clone(), ground.flood(), ground.sku);

        let attackers = many(8, |number| garbage(flood.clone(), number));
        ground.under("garbage", attackers, &before, memory).await;
        let attackers = many(8, |number| oversized(flood.clone(), number));
        ground.under("oversized", attackers, &before, memory).await;
        let attackers = many(64, |_| truncated(flood.clone()));
        ground.under("truncated", attackers, &before, memory).await;
        let attackers = many(32, |_| stalled(flood.clone(), sku));
        ground.under("stalled readers", attackers, &before, memory).await;
        let attackers = many(300, |_| silent(flood.clone()));
        ground.under("silent", attackers, &before, memory).await;
        let attackers = many(8, |number| handshakes(profile.clone(), number));
        ground.under("handshakes", attackers, &before, memory).await;

        let (granted, turned) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let attack = |number| keys(flood.clone(), number, sku, Arc::clone(&granted), Arc::clone(&turned));
        ground.under("unique keys", many(4, attack), &before, memory).await;
        println!(
            "attack::unique keys: {} granted, {} frames turned away",
            granted.load(Ordering::Relaxed),
            turned.load(Ordering::Relaxed)
        );
        assert!(granted.load(Ordering::Relaxed) > 0);

        // Everything the honest one was told is so.
        let ids: Vec<u128> = (1..=ground.reserved).map(|number| 1 << 100 | number).collect();
        for ids in ids.chunks(16) {
            let found = ground.honest.reservations(ids).await.expect("reads");
            assert!(found.iter().all(|found| found.state == State::Held));
        }
        ground.serving.terminate();
    });
}

#[test]
fn a_frame_longer_than_any_may_be_is_refused_before_it_is_there() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let dir = tempfile::tempdir().expect("a directory");
    runtime.block_on(async {
        let ground = ground(dir.path()).await;
        for number in 0..4 {
            one_oversized(&ground.flood(), number).await;
        }
        ground.serving.terminate();
    });
}

#[test]
fn a_thousand_connections_at_once_are_served_and_one_more_of_a_token_is_told_why_not() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let dir = tempfile::tempdir().expect("a directory");
    runtime.block_on(async {
        let mut ground = ground(dir.path()).await;
        let flood = ground.flood();
        let mut connections = Vec::new();
        for _ in 0..16 {
            let opened: Vec<_> = (0..64)
                .map(|_| {
                    let flood = flood.clone();
                    tokio::spawn(async move { signed_in(&flood).await })
                })
                .collect();
            for opened in opened {
                connections.push(opened.await.expect("signed in"));
            }
        }
        assert_eq!(connections.len(), limit::CONNECTIONS_PER_PRINCIPAL_MAX);
        let one_more = Connection::open(&flood).await.map(drop);
        let told = one_more.expect_err("one too many").to_string();
        assert!(told.contains("at most 1024 connections a token"), "{told}");
        ground.honest_work().await;
        // One goes, one may come.
        connections.pop().expect("there").1.close();
        signed_in(&flood).await;
        ground.serving.terminate();
    });
}
