//! Budgets that principals share: one that sends bodies without end, takes none of its answers, or has too many
//! connections harms itself only; and bodies as clients really send them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use stockline_client::{Client, Fill, NewReservation, Profile};
use stockline_core::catalogue::{Definition, NameKind};
use stockline_core::event::EventKind;
use stockline_core::limit;
use stockline_core::outcome::Code;
use stockline_core::record::LineRec;
use stockline_core::wire::{self, FrameType, ReadReservations};
use stockline_loadgen::stage::event;
use stockline_tests::attacker::signed_in;

use crate::binary::{Serving, check, program, serve};
use crate::http::Shop;
use crate::rounds::is_long;

fn resident(serving: &Serving) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", serving.child.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

/// A token for a channel of its own.
fn channel(shop: &Shop, name: &str) -> String {
    shop.put("PUT", &format!("/v1/channels/{name}"), json!({}));
    let token = shop.put("PUT", &format!("/v1/tokens/{name}"), json!({ "role": "channel", "channel": name }));
    token["token"].as_str().expect("a token").to_owned()
}

fn connect(shop: &Shop) -> TcpStream {
    let stream = TcpStream::connect(&shop.serving.http).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    stream
}

#[test]
fn bodies_that_never_come_keep_nobody_waiting() {
    let dir = tempfile::tempdir().expect("a directory");
    let shop = Shop::open(&dir.path().join("data"), &[]);
    let token = channel(&shop, "flood");
    let mut idle = Vec::new();
    for number in 0..511 {
        let mut stream = connect(&shop);
        // Some declare much and send nothing, some have begun to send much.
        let head = format!(
            "POST /v1/reservations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nIdempotency-Key: k{number}\r\n\
             Content-Type: application/json\r\nContent-Length: 4194304\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).expect("sent");
        idle.push(stream);
    }
    for name in ["honest", "another"] {
        let token = channel(&shop, name);
        let body = json!({ "channel": name, "skus": ["A"] });
        assert_eq!(shop.call(&token, "POST", "/v1/availability", body).0, 200);
    }
    // Who may not send events at all hears that before it has sent a body.
    let mut stream = connect(&shop);
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: 4000000\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("sent");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).expect("answered");
    assert_eq!(&answer, b"HTTP/1.1 403");
    drop(idle);
    shop.serving.terminate();
}

/// Names are as long as they may be, and answers so large that no socket holds one.
const LONG: &str = "a-node-whose-name-is-as-long-as-names-may-be-so-that-the-answers-that-list-it-are-as-large-as-they-can-be-for-their-number";

#[test]
fn answers_that_nobody_takes_are_bounded() {
    let dir = tempfile::tempdir().expect("a directory");
    let shop = Shop::open(&dir.path().join("data"), &[]);
    for node in 0..64 {
        shop.put("PUT", &format!("/v1/nodes/{LONG}-{node}"), json!({}));
    }
    let token = channel(&shop, "flood");
    let skus: Vec<String> = (0..1_000).map(|sku| format!("S{sku}")).collect();
    let mut id = 0;
    for some in skus.chunks(125) {
        let mut event = |sku: &String, node: u32| {
            id += 1;
            json!({ "id": id.to_string(), "source": "s", "type": "receipt", "occurred_at": "2026-01-01T00:00:00Z", "sku": sku,
                    "node": format!("{LONG}-{node}"), "quantity": 5 })
        };
        let events: Vec<Value> =
            some.iter().flat_map(|sku| (0..64).map(|node| event(sku, node)).collect::<Vec<_>>()).collect();
        shop.put("POST", "/v1/events", json!({ "events": events }));
    }
    let body = json!({ "channel": "flood", "skus": skus, "detail": "nodes" }).to_string();
    let request = format!(
        "POST /v1/availability HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let before = resident(&shop.serving);
    let stalled: Vec<TcpStream> = (0..if is_long() { 640 } else { 200 })
        .map(|_| {
            let mut stream = connect(&shop);
            stream.write_all(request.as_bytes()).expect("sent");
            stream
        })
        .collect();
    // Somebody else is answered, and sees that all of them were looked at.
    let other = channel(&shop, "honest");
    let body = json!({ "channel": "honest", "skus": skus, "detail": "nodes" });
    assert_eq!(shop.call(&other, "POST", "/v1/availability", body).0, 200);
    // An answer has about 5 MB: a tenth of what all of them would take is not exceeded.
    let grown = resident(&shop.serving).saturating_sub(before);
    assert!(grown < 400 << 20, "{} MiB", grown >> 20);
    // Those for which there was no room say so.
    let refused = stalled.into_iter().rev().take(20).filter(|stream| {
        let mut head = [0; 12];
        (&mut &*stream).read_exact(&mut head).is_ok() && &head == b"HTTP/1.1 503"
    });
    assert!(refused.count() > 0, "some were refused");
    shop.serving.terminate();
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_that_nobody_reads_are_bounded() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let serving = serve(&data, &[]);
    let profile = Profile::load(&data.join("client.toml")).expect("a profile");
    let admin = Client::connect(&profile).await.expect("connects");
    admin.define(&[Definition::node("n", 1), Definition::channel("c")]).await.expect("defined");
    let sku = admin.resolve(NameKind::Sku, &["s"], true).await.expect("resolved")[0].expect("an id");
    let receipt = event(1, EventKind::Receipt, sku, 0, 1_000_000, admin.now_ms());
    admin.tell(vec![receipt]).await.expect("told");
    let names: Vec<String> = (0..limit::RESERVATION_LINES_MAX).map(|sku| format!("s{sku}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let skus = admin.resolve(NameKind::Sku, &names, true).await.expect("resolved");
    let skus: Vec<u32> = skus.into_iter().map(|sku| sku.expect("an id")).collect();
    let receipts =
        skus.iter().zip(2..).map(|(sku, key)| event(key, EventKind::Receipt, *sku, 0, 5, admin.now_ms()));
    admin.tell(receipts.collect()).await.expect("told");
    let line = |sku: &u32| LineRec { sku: *sku, node: u16::MAX, group: u16::MAX, quantity: 1 };
    let large = NewReservation {
        id: 7_000_000,
        channel: 0,
        ttl_ms: 3_600_000,
        fill: Fill::All,
        customer: 0,
        zone: u16::MAX,
        labels: stockline_client::label::Labels::NONE,
        lines: skus.iter().map(line).collect(),
    };
    assert_eq!(admin.reserve(&[large]).await.expect("ok")[0].code, Code::Ok);
    let before = resident(&serving);
    let mut frame = Vec::new();
    wire::encode(&mut frame, FrameType::ReadReservations, 1, &ReadReservations { ids: vec![7_000_000; 16] });
    let mut senders = Vec::new();
    let mut open = Vec::new();
    for _ in 0..3 {
        let (mut sink, source) = signed_in(&profile).await;
        open.push(source);
        let frame = frame.clone();
        senders.push(tokio::spawn(async move {
            for _ in 0..400 {
                if sink.send(&frame).await.is_err() {
                    break;
                }
            }
            sink
        }));
    }
    // Others are served meanwhile, and what the attacker takes is bounded.
    for id in 8_000_100..8_000_400 {
        let one = NewReservation {
            id,
            channel: 0,
            ttl_ms: 3_600_000,
            fill: Fill::All,
            customer: 0,
            zone: u16::MAX,
            labels: stockline_client::label::Labels::NONE,
            lines: vec![line(&sku)],
        };
        assert_eq!(admin.reserve(&[one]).await.expect("ok")[0].code, Code::Ok);
        let grown = resident(&serving).saturating_sub(before);
        assert!(grown < 300 << 20, "{} MiB", grown >> 20);
    }
    senders.iter().for_each(|sender| sender.abort());
    serving.terminate();
}

#[test]
fn a_body_is_taken_as_clients_send_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let shop = Shop::open(&dir.path().join("data"), &[]);
    shop.put("PUT", "/v1/nodes/n", json!({}));
    let events: Vec<Value> = (0..8_192)
        .map(|id| {
            json!({ "id": format!("a-document-number-{id}"), "source": "warehouse-management-system-1", "type": "receipt",
                    "occurred_at": "2026-01-01T00:00:00.000Z", "sku": format!("ARTICLE-NUMBER-{}", id % 500), "node": "n",
                    "quantity": 5, "reason": "goods receipt" })
        })
        .collect();
    let body = json!({ "events": events }).to_string();
    assert!(body.len() > 1 << 20, "{} bytes", body.len());
    let bearer = format!("Bearer {}", shop.token);
    let send = |headers: &str, body: &[u8]| -> String {
        let mut stream = connect(&shop);
        let head = format!(
            "POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer}\r\nContent-Type: application/json\r\nConnection: close\r\n\
             Content-Length: {}\r\n{headers}\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("sent");
        // As many clients do: all of the body first, then the answer.
        stream.write_all(body).expect("the body is read to its end");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    let applied = |answer: &str, word: &str| answer.matches(&format!("\"status\":\"{word}\"")).count();
    let answer = send("", body.as_bytes());
    assert_eq!(applied(&answer, "applied"), 8_192, "{:.200}", answer);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(body.as_bytes()).expect("written");
    let gzip = gzip.finish().expect("compressed");
    assert_eq!(applied(&send("Content-Encoding: gzip\r\n", &gzip), "duplicate"), 8_192);
    let zstd =
        ruzstd::encoding::compress_to_vec(body.as_bytes(), ruzstd::encoding::CompressionLevel::Fastest);
    assert_eq!(applied(&send("Content-Encoding: zstd\r\n", &zstd), "duplicate"), 8_192);
    let marked = format!("\u{feff}{}", json!({ "events": [events[0]] }));
    assert_eq!(applied(&send("", marked.as_bytes()), "duplicate"), 1);
    // What is too long is said so, to whoever sends all of it first.
    let long = vec![b' '; 8 << 20];
    assert!(send("", &long).starts_with("HTTP/1.1 413"));
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    bomb.write_all(&vec![b' '; 64 << 20]).expect("written");
    assert!(
        send("Content-Encoding: gzip\r\n", &bomb.finish().expect("compressed")).starts_with("HTTP/1.1 413")
    );
    assert!(send("Content-Encoding: br\r\n", b"x").starts_with("HTTP/1.1 415"));
    assert!(send("Content-Encoding: gzip\r\n", b"no gzip").starts_with("HTTP/1.1 400"));
    // Who asks whether to go on hears at once that it need not.
    let mut stream = connect(&shop);
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer}\r\nContent-Type: application/json\r\n\
         Expect: 100-continue\r\nContent-Length: 8388608\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("sent");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).expect("answered");
    assert_eq!(&answer, b"HTTP/1.1 413");
    shop.serving.terminate();
}

#[test]
fn few_descriptors_are_enough_for_a_backup_beside_half_requests() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let limited = format!(
        "ulimit -n 150; exec {} serve --quic 127.0.0.1:0 --http 127.0.0.1:0 --data {}",
        program("stockline").display(),
        data.display()
    );
    let mut child = Command::new("sh").args(["-c", &limited]).stdout(Stdio::piped()).spawn().expect("starts");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("a line");
    let (quic, http) =
        line.strip_prefix("ready quic=").and_then(|rest| rest.split_once(" http=")).expect("ready");
    let serving = Serving { child, quic: quic.into(), http: http.trim().into() };
    let half: Vec<TcpStream> = (0..262)
        .filter_map(|_| {
            let mut stream = TcpStream::connect(&serving.http).ok()?;
            stream.write_all(b"GET /livez HTTP/1.1\r\n").ok()?;
            Some(stream)
        })
        .collect();
    assert!(half.len() > 100);
    let (from, to) = (data.to_str().expect("a path"), dir.path().join("copy"));
    check("stockline", &["backup", "--data", from, to.to_str().expect("a path")], 0, "anchor=");
    drop(half);
    serving.terminate();
}
