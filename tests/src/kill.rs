//! The kill loop: the real binary under random commands over connections that are cut, killed and started again,
//! stopped and continued, its clock set wrong; the auditor explains every answer afterwards.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use stockline_loadgen::chance::pick;
use stockline_loadgen::dice::Dice;

use crate::binary::{Serving, check, program, serve_with, text};
use crate::rounds::{is_long, rounds};

const KILLS: u64 = 25;

/// Lets chance pass: what is meant here is time itself.
#[expect(clippy::disallowed_methods, reason = "the pause is the point")]
fn pause(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

fn torture(data: &Path, seed: u64, seconds: u64) -> Child {
    let mut loadgen = Command::new(program("loadgen"));
    loadgen.args(["run", "--scenario", "torture", "--in-flight", "12", "--cut-ms", "150"]);
    loadgen.args(["--seed", &seed.to_string(), "--seconds", &seconds.to_string()]);
    loadgen.arg("--profile").arg(data.join("client.toml"));
    loadgen.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("loadgen starts")
}

/// What the auditor found.
fn audited(loadgen: Child) {
    let output = loadgen.wait_with_output().expect("loadgen ends");
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && said.contains("audit ok"), "{said}");
}

fn restart(serving: &mut Serving, data: &Path, arguments: &[&str], clock_ms: i64) {
    serving.child.kill().expect("it runs");
    serving.child.wait().expect("it ends");
    // The port it had: clients come back to it.
    let quic = serving.quic.clone();
    let mut arguments = arguments.to_vec();
    arguments.extend(["--quic", &quic]);
    *serving = serve_with(data, &arguments, &[("STOCKLINE_CLOCK_MS", clock_ms.to_string())]);
}

#[test]
fn killed_again_and_again_it_loses_and_doubles_nothing() {
    rounds("kill::killed_again", "kills", 1, |seed| {
        let mut dice = Dice::new(seed);
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("data");
        let shards = if seed % 2 == 0 { "1" } else { "4" };
        let arguments = ["--shards", shards, "--retain-journal"];
        let mut serving = serve_with(&data, &arguments, &[]);
        let mut loadgen = torture(&data, seed + 1, 12);
        // The wall clock only goes back: a day ahead would make every open command too old to be repeated.
        let mut clock_ms = 0;
        let mut kills = 0;
        while kills < KILLS && loadgen.try_wait().expect("known").is_none() {
            pause(pick(&mut dice, 400));
            if pick(&mut dice, 8) == 0 {
                serving.signal("-STOP");
                pause(pick(&mut dice, 1_000));
                serving.signal("-CONT");
            }
            if pick(&mut dice, 8) == 0 {
                clock_ms -= 86_400_000;
            }
            restart(&mut serving, &data, &arguments, clock_ms);
            kills += 1;
        }
        audited(loadgen);
        restart(&mut serving, &data, &arguments, 0);
        serving.terminate();
        let data = data.to_str().expect("a path");
        check("stockline", &["verify", "--data", data], 0, "last_lsn=");
        kills
    });
}

#[test]
fn stopped_for_a_while_it_goes_on_where_it_was() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let seconds = if is_long() { 60 } else { 6 };
    let serving = serve_with(&data, &[], &[]);
    let loadgen = torture(&data, 1, seconds + 4);
    pause(1_500);
    serving.signal("-STOP");
    pause(seconds * 1_000);
    serving.signal("-CONT");
    audited(loadgen);
    serving.terminate();
}

/// Holds are over when the server's time says so, whatever happened to the wall clock while it was down.
#[test]
fn a_wall_clock_a_day_back_ends_no_hold_and_a_day_ahead_ends_it_at_once() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let mut serving = serve_with(&data, &[], &[]);
    let day = 86_400_000;
    let state = |wanted: stockline_client::outcome::State| {
        runtime.block_on(async {
            let profile = stockline_client::Profile::load(&data.join("client.toml")).expect("a profile");
            let client = stockline_client::Client::connect(&profile).await.expect("connects");
            // A hold that is over is gone within a tick.
            for _ in 0..100 {
                let found = client.reservations(&[7]).await.expect("reads").remove(0);
                if found.state == wanted {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("the hold is not {wanted:?}");
        });
    };
    runtime.block_on(async {
        let profile = stockline_client::Profile::load(&data.join("client.toml")).expect("a profile");
        let client = stockline_client::Client::connect(&profile).await.expect("connects");
        let node = stockline_client::catalogue::Definition::node("n", 1);
        let channel = stockline_client::catalogue::Definition::channel("c");
        client.define(&[node, channel]).await.expect("defined");
        let kind = stockline_client::catalogue::NameKind::Sku;
        let sku = client.resolve(kind, &["s"], true).await.expect("resolved").remove(0).expect("an id");
        let at = client.now_ms();
        let receipt = stockline_client::event::EventKind::Receipt;
        client.tell(vec![stockline_loadgen::stage::event(1, receipt, sku, 0, 5, at)]).await.expect("told");
        let line = stockline_client::record::LineRec { sku, node: u16::MAX, group: u16::MAX, quantity: 2 };
        let hold = |id, ttl_ms| stockline_client::NewReservation {
            id,
            channel: 0,
            ttl_ms,
            fill: stockline_client::Fill::All,
            customer: 0,
            zone: u16::MAX,
            labels: stockline_client::label::Labels::NONE,
            lines: vec![line],
        };
        let held = client.reserve(&[hold(7, 3_600_000)]).await.expect("answered");
        assert_eq!(held[0].state, stockline_client::outcome::State::Held);
    });
    let held = stockline_client::outcome::State::Held;
    restart(&mut serving, &data, &[], -day);
    pause(300);
    state(held);
    restart(&mut serving, &data, &[], 0);
    state(held);
    restart(&mut serving, &data, &["--accept-clock"], day);
    state(stockline_client::outcome::State::Expired);
    serving.terminate();
}
