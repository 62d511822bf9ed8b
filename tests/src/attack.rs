//! Attacks over QUIC on the real binary: whatever one sender does, an honest one gets every answer, and the
//! server's memory stays within what `core/src/limit.rs` allows.
//!
//! `-- --nocapture attack::` prints the honest client's latencies; docs/testing.md has figures of a quiet machine.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use stockline_client::{Client, Connection, Fill, NewReservation, Profile};
use stockline_core::catalogue::{Definition, NameKind, Role};
use stockline_core::event::EventKind;
use stockline_core::limit;
use stockline_core::outcome::{Code, State};
use stockline_core::record::LineRec;
use stockline_loadgen::stage::event;
use stockline_server::principal::token_sha256;
use stockline_tests::attacker::{HANG, one_oversized, signed_in};

use crate::binary::{Serving, serve};

const HONEST: usize = 2_000;
/// Bytes that a reservation may take.
const GRANT_BYTES: u64 = 150;
/// Bytes the server may grow by while it is attacked, besides.
const GROWTH_MAX: u64 = 600 << 20;

const PROFILE: &str = "client.toml";

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
    let serving = serve(dir, &[]);
    let profile = Profile::load(&dir.join(PROFILE)).expect("a profile");
    let admin = Client::connect(&profile).await.expect("connects");
    let principal = |name: &str| Definition::Principal {
        name: name.into(),
        role: Role::Channel,
        channel: Some(name.into()),
        nodes: vec![],
        token_sha256: token_sha256(name.as_bytes()),
        clock_ahead_s: 0,
    };
    let channel = |name: &str| Definition::channel(name);
    let node = Definition::node("n", 1);
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
                fill: Fill::All,
                customer: 0,
                zone: u16::MAX,
                labels: stockline_client::label::Labels::NONE,
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

    /// Honest work here while `attacked`, this server or another, is; and what the attacker says at its end.
    async fn during(&mut self, name: &str, attacked: &Path) -> (Vec<Duration>, String) {
        let mut command = Command::new("chrt");
        command.args(["--idle", "0", env!("CARGO_BIN_EXE_attacker"), name]).arg(attacked.join(PROFILE));
        command.args(["flood", &self.sku.to_string()]);
        let mut attacker = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("chrt runs");
        let mut told = BufReader::new(attacker.stdout.take().expect("piped")).lines();
        let first = told.next().expect("it starts").expect("read");
        assert_eq!(first, "at work", "{name}");
        let times = self.honest_work().await;
        drop(attacker.stdin.take());
        let last = told.next().expect("it ends").expect("read");
        assert!(attacker.wait().expect("it ends").success(), "{name}: see above");
        (times, last)
    }
}

/// Microseconds within which so many of a hundred sorted times are.
fn percentile(times: &[Duration], percent: usize) -> u128 {
    times[times.len() * percent / 100].as_micros()
}

#[test]
fn only_the_guilty_suffer() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let dir = tempfile::tempdir().expect("a directory");
    runtime.block_on(async {
        let (here, beside) = (dir.path().join("here"), dir.path().join("beside"));
        let mut ground = ground(&here).await;
        ground.honest_work().await;
        let quiet = ground.honest_work().await;
        let memory = ground.memory();
        let mut granted = 0;
        for name in ["garbage", "oversized", "truncated", "stalled", "silent", "handshakes", "keys", "large"] {
            // The same attack on another server costs what sharing the processor costs.
            let other = self::ground(&beside.join(name)).await;
            let (shared, _) = ground.during(name, &beside.join(name)).await;
            drop(other);
            let (times, told) = ground.during(name, &here).await;
            // What was granted is stock and claims as any other; the rest is the attack's.
            granted += told.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0);
            let grown = ground.memory().saturating_sub(memory + granted * GRANT_BYTES);
            println!(
                "attack::{name}: honest p50 {} us (quiet {}, beside it {}), p99 {} us (quiet {}, beside it {}), \
                 memory +{} MiB; {told}",
                percentile(&times, 50),
                percentile(&quiet, 50),
                percentile(&shared, 50),
                percentile(&times, 99),
                percentile(&quiet, 99),
                percentile(&shared, 99),
                grown >> 20,
            );
            assert!(grown < GROWTH_MAX, "{name}: the server grew by {} MiB", grown >> 20);
        }

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
