//! Spans of the real binary (feature `otel`), as a collector gets them over OTLP/HTTP.

use std::process::{Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::binary::{check, program, serve_with, text};
use crate::http::Shop;
use crate::receiver::{Came, receive};

const SPAN: &str = "b7ad6b7169203331";

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..][..2], 16).expect("hex")).collect()
}

fn has(bytes: &[u8], piece: &[u8]) -> bool {
    bytes.windows(piece.len()).any(|window| window == piece)
}

/// What came to the collector until all pieces have.
#[track_caller]
fn until(came: &Receiver<Came>, pieces: &[&[u8]]) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(missing) = pieces.iter().find(|piece| !has(&all, piece)) {
        let next = came.recv_timeout(Duration::from_secs(30));
        let next = next.unwrap_or_else(|_| panic!("{:?} never came", String::from_utf8_lossy(missing)));
        assert_eq!((&*next.path, next.header("content-type")), ("/v1/traces", "application/x-protobuf"));
        all.extend(next.body);
    }
    all
}

fn environment(collector: &str) -> Vec<(&'static str, String)> {
    vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.to_owned()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=shop".to_owned()),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test".to_owned()),
        ("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned()),
    ]
}

#[test]
fn calls_frames_and_messages_are_spans_with_their_parents() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let (collector, came) = receive(|_, _| 200);
    let shop = Shop::around(serve_with(&data, &[], &environment(&collector)), &data);
    let auth = format!("Bearer {}", shop.token);
    let call = |path: &str, trace: &str, flags: &str| {
        let parent = format!("00-{trace}-{SPAN}-{flags}");
        let headers = [("authorization", &*auth), ("traceparent", &*parent), ("x-request-id", "mine")];
        shop.send("PUT", path, &headers, Some("{}")).status().as_u16()
    };
    let (told, untold) = ("0af7651916cd43dd8448eb211c80319c", "1af7651916cd43dd8448eb211c80319c");
    assert_eq!(call("/v1/nodes/hidden", untold, "00"), 201);
    assert_eq!(call("/v1/nodes/n", told, "01"), 201);
    assert_eq!(call("/v1/channels/g%20h", told, "01"), 201);
    let pieces: [&[u8]; 11] = [
        b"PUT /v1/nodes/{name}",
        b"PUT /v1/channels/{name}",
        b"/v1/nodes/n",
        &hex(told),
        &hex(SPAN),
        b"http.response.status_code",
        b"stockline.principal",
        b"mine",
        b"service.name",
        b"stockline",
        b"deployment.environment.name",
    ];
    let all = until(&came, &pieces);
    // What its caller does not want told is not.
    assert!(!has(&all, &hex(untold)) && !has(&all, b"hidden"));

    // Frames over QUIC, and messages, whose receivers are told their trace.
    let profile = data.join("client.toml");
    let profile = profile.to_str().expect("text");
    check("stockline", &["define", "channel", "web", "--profile", profile], 0, "");
    check("stockline", &["query", "A", "--channel", "web", "--profile", profile], 1, "no sku");
    let (hook, messages) = receive(|_, _| 204);
    shop.put("PUT", "/v1/webhooks/w", json!({"url": format!("{hook}/hook")}));
    shop.put("POST", "/v1/webhooks/w/test", Value::Null);
    let message = messages.recv_timeout(Duration::from_secs(30)).expect("a message");
    let parent: Vec<&str> = message.header("traceparent").split('-').collect();
    assert_eq!((parent[0], parent[3]), ("00", "01"));
    until(
        &came,
        &[b"Define", b"Resolve", b"quic", b"stockline.message_id", &hex(parent[1]), &hex(parent[2])],
    );

    // What is left is sent at the end, and as configured.
    assert_eq!(call("/v1/nodes/last", told, "01"), 201);
    shop.serving.terminate();
    let mut last = Vec::new();
    for came in came.try_iter() {
        assert_eq!(came.header("x-tenant"), "shop");
        last.extend(came.body);
    }
    assert!(has(&last, b"/v1/nodes/last"));
}

#[test]
fn a_collector_that_stalls_or_is_not_there_holds_nobody_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let (stalled, _silence) = receive(|_, _| 0);
    for (name, collector) in [("stalled", &*stalled), ("absent", "http://127.0.0.1:9")] {
        let data = dir.path().join(name);
        let shop = Shop::around(serve_with(&data, &[], &environment(collector)), &data);
        // More than the queue of spans holds; none waits for a collector's patience of 10 s.
        let begun = Instant::now();
        for _ in 0..5_000 {
            let asked = Instant::now();
            assert_eq!(shop.call(&shop.token, "GET", "/v1/me", Value::Null).0, 200);
            assert!(asked.elapsed() < Duration::from_secs(5), "{name}: {:?}", asked.elapsed());
        }
        println!("{name}: 5,000 calls in {:?}", begun.elapsed());
        let begun = Instant::now();
        shop.serving.terminate();
        assert!(begun.elapsed() < Duration::from_secs(20), "{name}: {:?}", begun.elapsed());
    }
}

#[test]
fn what_is_not_spoken_is_said_and_what_is_not_wanted_is_not_sent() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let mut command = Command::new(program("stockline"));
    command.args(["serve", "--quic", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data"]).arg(&data);
    command
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let output = command.stdin(Stdio::null()).output().expect("it runs");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("OTEL_EXPORTER_OTLP_PROTOCOL: \"grpc\" is not spoken here; use http/protobuf"),
        "{said}"
    );
    assert!(!data.exists(), "it is said before anything is done");

    // What is said of traces goes before what is said of all.
    let (collector, came) = receive(|_, _| 200);
    let spoken =
        [("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")];
    let spoken = spoken.map(|(name, value)| (name, value.to_owned())).to_vec();
    let shop = Shop::around(serve_with(&data, &[], &[environment(&collector), spoken].concat()), &data);
    shop.put("PUT", "/v1/nodes/n", json!({}));
    until(&came, &[b"PUT /v1/nodes/{name}"]);
    shop.serving.terminate();
    came.try_iter().for_each(drop);

    for (name, value) in [
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_TRACES_EXPORTER", "none"),
        ("OTEL_TRACES_SAMPLER", "always_off"),
    ] {
        let more = [environment(&collector), vec![(name, value.to_owned())]].concat();
        let shop = Shop::around(serve_with(&data, &[], &more), &data);
        shop.put("PUT", "/v1/nodes/n", json!({}));
        shop.serving.terminate();
        assert!(came.try_recv().is_err(), "{name}={value}");
    }
}
