//! The HTTP face of the real binary: the page of its calls as it stands, roles, and changes as they come.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use ureq::http::{Request, Response};
use ureq::{Agent, Body};

use crate::binary::{Serving, check, serve};

fn agent() -> Agent {
    let config = Agent::config_builder().http_status_as_error(false);
    Agent::new_with_config(config.timeout_global(Some(Duration::from_secs(60))).build())
}

/// A server and who talks to it.
struct Shop {
    serving: Serving,
    agent: Agent,
    token: String,
}

impl Shop {
    fn open(data: &Path, more: &[&str]) -> Shop {
        let serving = serve(data, more);
        let token = std::fs::read_to_string(data.join("admin.token")).expect("a token");
        Shop { serving, agent: agent(), token: token.trim().to_owned() }
    }

    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Response<Body> {
        let mut request =
            Request::builder().method(method).uri(format!("http://{}{path}", self.serving.http));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let request = request.body(body.unwrap_or_default().to_owned()).expect("a request");
        self.agent.run(request).expect("answered")
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> (u16, Value) {
        let mut response = self.send(method, path, headers, body);
        let text = response.body_mut().read_to_string().expect("text");
        let body = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        (response.status().as_u16(), body)
    }

    /// As a principal with a token.
    fn call(&self, token: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
        let bearer = format!("Bearer {token}");
        let text = body.to_string();
        let body = (!body.is_null()).then_some(text.as_str());
        self.ask(method, path, &[("authorization", &bearer)], body)
    }

    /// The same, as the administrator, and all goes well.
    fn put(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(&self.token, method, path, body);
        assert!((200..300).contains(&status), "{method} {path}: {answer}");
        answer
    }
}

/// Words as a shell has them, with quotes but nothing else of it.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for letter in text.chars() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (None, '"' | '\'') => (quote, word) = (Some(letter), Some(word.unwrap_or_default())),
            (None, _) if letter.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

/// Moments are another each time.
fn without_moments(body: &mut Value) {
    match body {
        Value::String(text) if text.len() > 18 && text.ends_with('Z') && text.contains('T') => {
            *text = "a moment".into();
        }
        Value::Array(items) => items.iter_mut().for_each(without_moments),
        Value::Object(members) => members.values_mut().for_each(without_moments),
        _ => {}
    }
}

/// The text between fences of the kind, one after the other.
fn blocks<'a>(page: &'a str, kind: &str) -> Vec<(usize, &'a str)> {
    let fence = format!("```{kind}\n");
    let found = page.match_indices(&fence).map(|(at, _)| at + fence.len());
    found.map(|at| (at, page[at..].split("\n```").next().expect("it ends"))).collect()
}

#[test]
fn every_example_of_the_page_is_answered_as_it_says() {
    let page = include_str!("../../docs/http.md");
    for shards in ["1", "4"] {
        let dir = tempfile::tempdir().expect("a directory");
        let shop = Shop::open(&dir.path().join("data"), &["--shards", shards]);
        let answers = blocks(page, "json");
        for (at, due) in &answers {
            let (_, command) = blocks(&page[..*at], "sh").pop().expect("a command before its answer");
            let (mut method, mut path, mut headers, mut body) = (None, String::new(), Vec::new(), None);
            let mut rest = words(command).into_iter().skip(1);
            while let Some(word) = rest.next() {
                let mut next = || rest.next().expect("an option has a value");
                match word.as_str() {
                    "-X" => method = Some(next()),
                    "-H" => headers.push(next()),
                    "--json" => body = Some(next()),
                    _ => path = word.strip_prefix("$STOCKLINE").expect("an address").to_owned(),
                }
            }
            let auth = format!("Authorization: Bearer {}", shop.token);
            let headers: Vec<(&str, &str)> = headers
                .iter()
                .map(|header| if header == "$AUTH" { &auth } else { header })
                .map(|header| header.split_once(": ").expect("a header"))
                .collect();
            let method = method.unwrap_or_else(|| if body.is_some() { "POST" } else { "GET" }.into());
            let (status, mut answer) = shop.ask(&method, &path, &headers, body.as_deref());
            let (due_status, due) = due.split_once(' ').expect("a status and a body");
            let mut due: Value = serde_json::from_str(due).expect("JSON");
            without_moments(&mut answer);
            without_moments(&mut due);
            assert_eq!((status.to_string(), answer), (due_status.to_owned(), due), "{command}");
        }
        assert!(answers.len() > 20);
        shop.serving.terminate();
    }
}

#[test]
fn each_token_may_do_its_own_and_what_is_not_its_own_is_not_there() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let shop = Shop::open(&data, &[]);
    for (path, body) in [
        ("/v1/nodes/n0", json!({})),
        ("/v1/nodes/n1", json!({})),
        ("/v1/channels/web", json!({})),
        ("/v1/channels/edi", json!({})),
    ] {
        shop.put("PUT", path, body);
    }
    // What no journal could be read back with does not get in.
    for (path, body) in [
        (
            "/v1/reservations",
            json!({"id": "00000000-0000-0000-0000-000000000000", "channel": "web", "ttl_ms": 9,
            "lines": []}),
        ),
        (
            "/v1/reservations/01942f5e-7a3c-7e2d-9c1a-5d0f6f6b8a01/move",
            json!({"lines": [{"sku": "A", "quantity": 1, "node": "n0", "to_node": "n0"}]}),
        ),
        (
            "/v1/allocations",
            json!({"action": "reallocate", "channel": "web", "to_channel": "web", "sku": "A",
            "node": "n0", "quantity": 1}),
        ),
    ] {
        let (status, answer) = shop.call(&shop.token, "POST", path, body);
        assert_eq!((status, answer["code"].as_str()), (422, Some("INVALID")), "{path}: {answer}");
    }
    let profile = data.join("client.toml");
    let token = |name: &str, more: &[&str]| -> String {
        let profile = ["--profile", profile.to_str().expect("text")];
        let said = check("stockline", &[&["token", name], more, &profile[..]].concat(), 0, "token");
        let found = said.lines().find_map(|line| line.strip_prefix("token = "));
        found.expect("a token").trim_matches('"').to_owned()
    };
    let web = token("shop", &["--role", "channel", "--channel", "web"]);
    let wms = token("wms", &["--role", "warehouse", "--nodes", "n0"]);
    let event = |id: &str, node: &str| {
        json!({"events": [{"id": id, "source": "wms", "type": "receipt", "occurred_at": "2026-01-01T00:00:00Z",
            "sku": "A", "node": node, "quantity": 10}]})
    };
    let reserve = |channel: &str| {
        json!({"id": "01942f5e-7a3c-7e2d-9c1a-5d0f6f6b8a01", "channel": channel, "ttl_ms": 60_000,
            "lines": [{"sku": "A", "quantity": 2}]})
    };
    let any = json!(null);
    for (token, method, path, body, status, code) in [
        (&wms, "POST", "/v1/events", event("1", "n0"), 200, ""),
        (&wms, "POST", "/v1/events", event("2", "n1"), 404, "UNKNOWN_NODE"),
        (&wms, "GET", "/v1/positions/A/n0", any.clone(), 200, ""),
        (&wms, "GET", "/v1/positions/A/n1", any.clone(), 404, "UNKNOWN_NODE"),
        (&wms, "GET", "/v1/availability/A?channel=web", any.clone(), 403, "FORBIDDEN"),
        (&wms, "POST", "/v1/reservations", reserve("web"), 403, "FORBIDDEN"),
        (&wms, "GET", "/v1/changes?channel=web", any.clone(), 403, "FORBIDDEN"),
        (&web, "POST", "/v1/events", event("3", "n0"), 403, "FORBIDDEN"),
        (&web, "GET", "/v1/availability/A?channel=web", any.clone(), 200, ""),
        (&web, "GET", "/v1/availability/A?channel=edi", any.clone(), 404, "UNKNOWN_CHANNEL"),
        (&web, "POST", "/v1/reservations", reserve("edi"), 404, "UNKNOWN_CHANNEL"),
        (&web, "POST", "/v1/reservations", reserve("web"), 201, ""),
        (&web, "PUT", "/v1/nodes/n2", json!({}), 403, "FORBIDDEN"),
        (&web, "GET", "/v1/positions/A/n0", any.clone(), 403, "FORBIDDEN"),
        (&web, "GET", "/v1/changes?channel=edi", any.clone(), 404, "UNKNOWN_CHANNEL"),
        (&"nonsense".to_owned(), "GET", "/v1/positions/A/n0", any.clone(), 401, "UNAUTHENTICATED"),
    ] {
        let (found, answer) = shop.call(token, method, path, body);
        let told = answer["code"].as_str().unwrap_or_default();
        assert_eq!((found, told), (status, code), "{method} {path}: {answer}");
    }
    // The same text is another key for everybody.
    let lines = json!([{"sku": "A", "quantity": 1}]);
    for (token, channel) in [(&web, "web"), (&shop.token, "edi")] {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("idempotency-key", "order-1")];
        let body = json!({"channel": channel, "ttl_ms": 60_000, "lines": lines}).to_string();
        let (status, answer) = shop.ask("POST", "/v1/reservations", &headers, Some(&body));
        assert_eq!(status, 201, "{channel}: {answer}");
    }
    shop.serving.terminate();
}

#[test]
fn what_was_told_over_http_is_told_again_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let shop = Shop::open(&data, &[]);
    shop.put("PUT", "/v1/nodes/n0", json!({}));
    shop.put("PUT", "/v1/channels/web", json!({}));
    let events = json!({"events": [{"id": "1", "source": "wms", "type": "receipt",
        "occurred_at": "2026-01-01T00:00:00Z", "sku": "A", "node": "n0", "quantity": 10}]});
    shop.put("POST", "/v1/events", events.clone());
    let new = json!({"id": "01942f5e-7a3c-7e2d-9c1a-5d0f6f6b8a01", "channel": "web", "ttl_ms": 60_000,
        "lines": [{"sku": "A", "quantity": 4}]});
    let first = shop.put("POST", "/v1/reservations", new.clone());
    // The following begins before what it tells.
    let from = first["lsn"].as_u64().expect("an LSN");
    drop(shop);
    let shop = Shop::open(&data, &[]);
    assert_eq!(shop.put("POST", "/v1/reservations", new), first);
    assert_eq!(shop.put("POST", "/v1/events", events)["results"][0]["status"], "duplicate");
    let bearer = format!("Bearer {}", shop.token);
    let path = format!("/v1/changes?channel=web&from_lsn={from}");
    let stream = shop.send("GET", &path, &[("authorization", &bearer)], None);
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let lines = BufReader::new(stream.into_body().into_reader()).lines();
    let mut told = Vec::new();
    let mut cursor = 0;
    for line in lines {
        let line = line.expect("text");
        if let Some(data) = line.strip_prefix("data: ") {
            let event: Value = serde_json::from_str(data).expect("JSON");
            told.push((event["what"].as_str().map(str::to_owned), event["available"].as_u64()));
            if told.len() == 2 {
                // Asked for while the stream is open.
                let step = "/v1/reservations/01942f5e-7a3c-7e2d-9c1a-5d0f6f6b8a01/release";
                shop.put("POST", step, json!({}));
            }
        }
        if let Some(id) = line.strip_prefix("id: ") {
            cursor = id.parse().expect("a number");
        }
        if told.len() == 4 && cursor > from + 1 {
            break;
        }
    }
    let what = |name: &str| (Some(name.to_owned()), None);
    assert_eq!(told, [what("reserved"), (None, Some(6)), what("released"), (None, Some(10))]);
    // Whoever comes back with the cursor is told what it has not heard.
    let path = "/v1/changes?channel=web&what=reservations";
    let again = [("authorization", bearer.as_str()), ("last-event-id", "1")];
    let stream = shop.send("GET", path, &again, None);
    let mut lines = BufReader::new(stream.into_body().into_reader()).lines();
    let first = lines.find_map(|line| Some(line.ok()?.strip_prefix("data: ")?.to_owned()));
    assert!(first.expect("an event").contains("reserved"));
    let (status, problem) =
        shop.call(&shop.token, "GET", "/v1/changes?channel=web&from_lsn=999999", json!(null));
    assert_eq!((status, &problem["code"]), (410, &json!("CURSOR_UNKNOWN")));
    shop.serving.terminate();
}
