//! The real binary on a disk that is slow, fails or is full, and two of it on one directory: what it says, how it
//! ends, and what is there after.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use stockline_client::catalogue::{Definition, NameKind};
use stockline_client::event::EventKind;
use stockline_client::outcome::Code;
use stockline_client::wire::{Availability, QueryRec};
use stockline_client::{Client, Profile};
use stockline_loadgen::stage::event;

use crate::binary::{check, program, serve, serve_with, text};
use crate::http::Shop;

/// Compiles what stands between the program and libc.
fn shim() -> &'static str {
    static BUILT: OnceLock<(tempfile::TempDir, String)> = OnceLock::new();
    let (_, path) = BUILT.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let to = dir.path().join("faulty.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/faulty.c");
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
        let mut build = Command::new(compiler);
        build.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&to).arg(source).arg("-ldl");
        let built = build.status().expect("a C compiler");
        assert!(built.success());
        (dir, to.to_str().expect("a path").to_owned())
    });
    path
}

async fn client(data: &Path) -> Client {
    let profile = Profile::load(&data.join("client.toml")).expect("a profile");
    Client::connect(&profile).await.expect("connects")
}

/// One node, one channel, one sku.
async fn stage(client: &Client) -> u32 {
    let node = Definition::node("n", 1);
    let channel = Definition::channel("c");
    client.define(&[node, channel]).await.expect("defined");
    client.resolve(NameKind::Sku, &["s"], true).await.expect("resolved")[0].expect("an id")
}

fn question(sku: u32) -> Availability {
    Availability {
        queries: vec![QueryRec { channel: 0, group: u16::MAX, sku_count: 1, detail: 0 }],
        skus: vec![sku],
    }
}

#[test]
fn a_two_second_sync_delays_who_writes_and_nobody_who_asks() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let before = serve(&data, &[]);
    let sku = runtime.block_on(async { stage(&client(&data).await).await });
    before.terminate();
    let slow = [("LD_PRELOAD", shim().to_owned()), ("STOCKLINE_DISK", "slow:2000".to_owned())];
    let serving = serve_with(&data, &[], &slow);
    runtime.block_on(async {
        let client = client(&data).await;
        let writing = {
            let client = client.clone();
            tokio::spawn(async move {
                client.tell(vec![event(1, EventKind::Receipt, sku, 0, 5, client.now_ms())]).await
            })
        };
        // All of these are answered while the one command waits for the disk; none shows it before.
        for _ in 0..50 {
            let answer = client.availability(&question(sku)).await.expect("answered");
            assert_eq!(answer.items[0].available, 0);
            assert!(!writing.is_finished());
        }
        assert_eq!(writing.await.expect("ends").expect("answered")[0].code, Code::Ok);
        assert_eq!(client.availability(&question(sku)).await.expect("answered").items[0].available, 5);
    });
    serving.terminate();
}

/// Runs a server into a fault under load; answers what it said and how many units were acknowledged.
fn run_into(kind: &str) -> (i32, String, u64, PathBuf, tempfile::TempDir) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let dir = tempfile::tempdir().expect("a directory");
    let (data, trigger) = (dir.path().join("data"), dir.path().join("now"));
    let mut command = Command::new(program("stockline"));
    command.args(["serve", "--quic", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data"]).arg(&data);
    command.env("LD_PRELOAD", shim()).env("STOCKLINE_DISK", format!("{kind}:{}", trigger.display()));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    let acknowledged = runtime.block_on(async {
        while !data.join("client.toml").exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let client = loop {
            let profile = Profile::load(&data.join("client.toml")).expect("a profile");
            match Client::connect(&profile).await {
                Ok(client) => break client,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let sku = stage(&client).await;
        let mut acknowledged = 0;
        for key in 1u128.. {
            if key == 50 {
                std::fs::write(&trigger, "").expect("written");
            }
            let events = (0..200u128).map(|index| {
                event((key << 32) | (index + 1), EventKind::Receipt, sku, 0, 1, client.now_ms())
            });
            let told = tokio::time::timeout(Duration::from_secs(5), client.tell(events.collect())).await;
            let Ok(Ok(told)) = told else { break };
            assert!(told.iter().all(|outcome| outcome.code == Code::Ok));
            acknowledged += told.len() as u64;
        }
        acknowledged
    });
    let exit = child.wait().expect("it ends").code().expect("an exit code");
    let mut said = Vec::new();
    let mut stderr = child.stderr.take().expect("piped");
    std::io::Read::read_to_end(&mut stderr, &mut said).expect("read");
    (exit, text(&said), acknowledged, data, dir)
}

/// On a good disk again: everything acknowledged is there, and of the frame that was not, its first so many commands.
fn nothing_is_lost(data: &Path, acknowledged: u64) {
    let serving = serve(data, &[]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let there = runtime.block_on(async {
        let client = client(data).await;
        let sku = client.resolve(NameKind::Sku, &["s"], false).await.expect("resolved")[0].expect("known");
        client.availability(&question(sku)).await.expect("answered").items[0].available
    });
    assert!((acknowledged..=acknowledged + 200).contains(&there), "{there} of {acknowledged}");
    serving.terminate();
}

#[test]
fn a_failing_sync_ends_the_server_with_4_and_loses_nothing_acknowledged() {
    let (exit, said, acknowledged, data, _dir) = run_into("eio");
    assert_eq!(exit, 4, "{said}");
    assert!(said.contains("journal storage") && said.contains("is acknowledged"), "{said}");
    assert!(said.contains("os error 5"), "{said}");
    nothing_is_lost(&data, acknowledged);
}

#[test]
fn a_full_disk_ends_the_server_with_4_and_it_goes_on_when_there_is_room() {
    let (exit, said, acknowledged, data, _dir) = run_into("full");
    assert_eq!(exit, 4, "{said}");
    assert!(said.contains("No space left on device"), "{said}");
    nothing_is_lost(&data, acknowledged);
}

#[test]
fn refusals_that_cannot_be_written_end_nothing_and_changes_that_cannot_do() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, trigger) = (dir.path().join("data"), dir.path().join("now"));
    let faults =
        [("LD_PRELOAD", shim().to_owned()), ("STOCKLINE_DISK", format!("full:{}", trigger.display()))];
    let mut shop = Shop::around(serve_with(&data, &[], &faults), &data);
    // As many records as make the trail grow, and again when the disk is full.
    let refused = |shop: &Shop, from: u32| {
        for number in from..from + 40 {
            let path = format!("/v1/nodes/{number}{}", "x".repeat(200));
            // Without a body: one that comes behind its refusal ends the connection.
            assert_eq!(shop.call(&"0".repeat(64), "GET", &path, serde_json::Value::Null).0, 401);
        }
    };
    refused(&shop, 0);
    std::fs::write(&trigger, "").expect("written");
    for round in 1..4 {
        refused(&shop, round * 100);
        std::thread::park_timeout(Duration::from_millis(1_200));
    }
    assert!(shop.serving.child.try_wait().expect("known").is_none(), "it still serves");
    assert_eq!(shop.call(&shop.token, "GET", "/v1/me", serde_json::Value::Null).0, 200);
    std::fs::remove_file(&trigger).expect("removed");
    drop(shop);
    // On a good disk the trail holds.
    let shop = Shop::open(&data, &[]);
    shop.put("PUT", "/v1/nodes/n", serde_json::json!({}));
    shop.serving.terminate();
    check("stockline", &["verify", "--data", data.to_str().expect("text")], 0, "audit_anchor=refusal:");
}

/// The administrator's token, whatever goes wrong, is in no output.
#[test]
fn secrets_are_in_no_output() {
    let (_, said, _, data, _dir) = run_into("eio");
    let token = std::fs::read_to_string(data.join("admin.token")).expect("there");
    assert!(token.trim().len() > 30 && !said.contains(token.trim()), "{said}");
    let key = std::fs::read_to_string(data.join("server.key")).expect("there");
    let line = key.lines().nth(1).expect("a line of the key");
    assert!(!said.contains(line));
}

#[test]
fn of_two_first_starts_at_once_one_serves_and_the_other_is_told_why_not() {
    for _ in 0..5 {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("data");
        let start = || {
            let mut command = Command::new(program("stockline"));
            command.args(["serve", "--quic", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data"]).arg(&data);
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts")
        };
        let mut both = [start(), start()];
        // One ends by itself.
        let loser = loop {
            let ended = both.iter_mut().position(|child| child.try_wait().expect("known").is_some());
            match ended {
                Some(loser) => break loser,
                None => std::thread::park_timeout(Duration::from_millis(10)),
            }
        };
        let [one, other] = both;
        let (loser, mut winner) = if loser == 0 { (one, other) } else { (other, one) };
        let output = loser.wait_with_output().expect("it ended");
        assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("in use"), "{}", text(&output.stderr));
        // What the other one acknowledges is there for the next.
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            while !data.join("client.toml").exists() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let profile = Profile::load(&data.join("client.toml")).expect("a profile");
            let client = loop {
                match Client::connect(&profile).await {
                    Ok(client) => break client,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            };
            let sku = stage(&client).await;
            client.tell(vec![event(1, EventKind::Receipt, sku, 0, 7, client.now_ms())]).await.expect("told");
        });
        winner.kill().expect("it runs");
        winner.wait().expect("it ends");
        nothing_is_lost(&data, 7);
    }
}
