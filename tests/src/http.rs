//! The HTTP face of the real binary: the page of its calls as it stands, roles, and changes as they come.

use std::io::{BufRead, BufReader};

use serde_json::{Value, json};
use stockline_core::catalogue::NameKind;

use crate::binary::check;
pub(crate) use crate::shop::Shop;

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

/// Moments and secrets are others each time.
fn without_moments(body: &mut Value) {
    match body {
        Value::String(text) if text.starts_with("whsec_") && text.len() == 50 => *text = "a secret".into(),
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
        let mut new_page = page.to_owned();
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
            let told = format!("{status} {answer}");
            let (due_status, due) = due.split_once(' ').expect("a status and a body");
            let mut due: Value = serde_json::from_str(due).expect("JSON");
            without_moments(&mut answer);
            without_moments(&mut due);
            if std::env::var_os("STOCKLINE_WRITE_DOCS").is_some() {
                if (status.to_string(), &answer) != (due_status.to_owned(), &due) {
                    let (before, _) = page.split_at(*at);
                    let old = page[*at..].split("\n```").next().expect("it ends");
                    assert!(!before.is_empty());
                    new_page = new_page.replacen(old, &told, 1);
                }
                continue;
            }
            assert_eq!((status.to_string(), answer), (due_status.to_owned(), due), "{command}");
        }
        if new_page != page {
            std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/http.md"), new_page)
                .expect("written");
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
            json!({"lines": [{"sku": "A", "quantity": 1, "node": "n0"}]}),
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
        (&wms, "POST", "/v1/events", event("2", "n1"), 200, ""),
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
    // An event for a node that is none of one's own holds up no other, and is kept for whoever may judge it.
    let mut mixed = event("4", "n1");
    mixed["events"].as_array_mut().expect("events").push(event("5", "n0")["events"][0].clone());
    let (status, answer) = shop.call(&wms, "POST", "/v1/events", mixed);
    let told = |at: usize| (answer["results"][at]["status"].clone(), answer["results"][at]["code"].clone());
    assert_eq!(
        (status, told(0), told(1)),
        (200, (json!("rejected"), json!("UNKNOWN_NODE")), (json!("applied"), Value::Null))
    );
    assert_eq!(shop.put("GET", "/v1/positions/A/n1", Value::Null)["free"], 0);
    assert_eq!(shop.put("GET", "/v1/dead-letters", Value::Null)["total"], 2);
    // That somebody asked for what is not one's own is written down.
    let probes = crate::audit::eventually(&shop, "&kind=refusal", |items| {
        let of = |code: &str| items.iter().any(|item| item["status"] == 404 && item["code"] == code);
        of("UNKNOWN_CHANNEL") && of("UNKNOWN_NODE")
    });
    assert!(probes.iter().all(|item| item["status"] != 404 || item["principal"] != "admin"), "{probes:?}");
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
    let (mut cursor, mut name) = (0, String::new());
    for line in lines {
        let line = line.expect("text");
        if let Some(of) = line.strip_prefix("event: ") {
            name = of.to_owned();
        }
        if let Some(data) = line.strip_prefix("data: ") {
            let event: Value = serde_json::from_str(data).expect("JSON");
            shop.check_message(&name, &event);
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

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_replaced_or_revoked_is_worth_nothing_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let shop = Shop::open(&data, &[]);
    shop.put("PUT", "/v1/nodes/n", json!({}));
    shop.put("PUT", "/v1/channels/web", json!({}));
    let rights = json!({ "role": "channel", "channel": "web" });
    let first =
        shop.put("PUT", "/v1/tokens/shop", rights.clone())["token"].as_str().expect("a token").to_owned();
    let known = |token: &str| shop.call(token, "GET", "/v1/availability/A?channel=web", Value::Null);
    assert_eq!(known(&first).1["code"], "UNKNOWN_SKU", "it may ask");
    // Who follows, and who is connected over QUIC.
    let follow = |token: &str| {
        let bearer = format!("Bearer {token}");
        let response = shop.send("GET", "/v1/changes", &[("authorization", &bearer)], None);
        assert_eq!(response.status(), 200);
        BufReader::new(response.into_body().into_reader())
    };
    let connect = |token: &str| {
        let mut profile = stockline_client::Profile::load(&data.join("client.toml")).expect("a profile");
        profile.token = token.to_owned();
        async move { stockline_client::Client::connect(&profile).await }
    };
    let ended = |stream: BufReader<ureq::BodyReader<'static>>| {
        let lines = stream.lines().map_while(Result::ok).collect::<Vec<_>>().join("\n");
        assert!(lines.contains("event: problem") && lines.contains("UNAUTHENTICATED"), "{lines}");
    };
    let (stream, client) = (follow(&first), connect(&first).await.expect("connected"));
    let names = ["n"];
    client.resolve(NameKind::Node, &names, false).await.expect("it may ask");
    let second =
        shop.put("POST", "/v1/tokens/shop/rotate", Value::Null)["token"].as_str().expect("one").to_owned();
    assert_ne!(first, second);
    assert_eq!(known(&first).0, 401);
    assert_eq!(known(&second).1["code"], "UNKNOWN_SKU");
    ended(stream);
    let refused = client.resolve(NameKind::Node, &names, false).await;
    assert!(matches!(refused, Err(stockline_client::ClientError::SignIn(_))), "{refused:?}");
    // Others stay: only what was signed in with the old token ends.
    let (stream, client) = (follow(&second), connect(&second).await.expect("connected"));
    shop.put("PUT", "/v1/tokens/wms", json!({ "role": "warehouse", "nodes": ["n"] }));
    client.resolve(NameKind::Node, &names, false).await.expect("it may ask");
    let listed = shop.put("GET", "/v1/tokens", Value::Null);
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(3), "{listed}");
    assert!(!listed.to_string().contains(&second), "tokens are not told again");
    shop.put("DELETE", "/v1/tokens/shop", Value::Null);
    ended(stream);
    assert_eq!(known(&second).0, 401);
    assert!(client.resolve(NameKind::Node, &names, false).await.is_err());
    let shown = shop.put("GET", "/v1/tokens/shop", Value::Null);
    assert_eq!(
        shown,
        json!({ "name": "shop", "role": "channel", "channel": "web", "nodes": [], "clock_ahead_s": 300, "revoked": true })
    );
    // A revoked one may be given another; two may be revoked.
    shop.put("DELETE", "/v1/tokens/wms", Value::Null);
    let third = shop.put("PUT", "/v1/tokens/shop", rights)["token"].as_str().expect("a token").to_owned();
    assert_eq!(known(&third).1["code"], "UNKNOWN_SKU");
    let (status, own) = shop.call(&shop.token, "DELETE", "/v1/tokens/admin", Value::Null);
    assert_eq!((status, &own["code"]), (403, &json!("FORBIDDEN")));
    let (status, wrong) = shop.call(&third, "GET", "/v1/tokens", Value::Null);
    assert_eq!((status, &wrong["code"]), (403, &json!("FORBIDDEN")));
    drop(shop);
    let again = Shop::open(&data, &[]);
    assert_eq!(again.call(&second, "GET", "/v1/availability/A?channel=web", Value::Null).0, 401);
    assert_eq!(again.call(&third, "GET", "/v1/availability/A?channel=web", Value::Null).0, 404);
}

#[test]
fn an_entry_is_put_only_if_it_is_what_its_reader_saw() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let shop = Shop::open(&data, &["--shards", "2"]);
    let bearer = format!("Bearer {}", shop.token);
    let put = |path: &str, condition: (&str, &str), body: Value| {
        let headers = [("authorization", bearer.as_str()), condition];
        let response = shop.send("PUT", path, &headers, Some(&body.to_string()));
        let tag = response.headers().get("etag").map(|tag| tag.to_str().expect("text").to_owned());
        (response.status().as_u16(), tag)
    };
    let tag_of = |path: &str| {
        let response = shop.send("GET", path, &[("authorization", &bearer)], None);
        assert_eq!(response.status(), 200, "{path}");
        response.headers()["etag"].to_str().expect("text").to_owned()
    };
    let kinds = [
        (
            "/v1/nodes/a",
            json!({ "priority": 1 }),
            json!({ "capacity": 5, "cut_off": "14:30", "utc_offset": "-05:15" }),
        ),
        ("/v1/nodes/b", json!({ "substitutes": ["a"] }), json!({ "latitude": 48.86, "longitude": 2.35 })),
        ("/v1/groups/g", json!({ "nodes": ["b", "a", "b"] }), json!({ "nodes": ["a"] })),
        (
            "/v1/channels/c",
            json!({ "group": "g" }),
            json!({ "strategy": "nearest", "late_confirm": "reacquire" }),
        ),
        ("/v1/skus/s", json!({ "category": "x" }), json!({})),
        (
            "/v1/zones/z",
            json!({ "lanes": [{ "node": "a", "cost": 3 }] }),
            json!({ "latitude": 1.5, "longitude": -2.0 }),
        ),
        (
            "/v1/rules/r",
            json!({ "skus": "A*", "channel": "c", "safety": 2 }),
            json!({ "skus": "A*", "channel": "c", "allocate": { "percent": 5, "when": "every", "every_minutes": 60 } }),
        ),
    ];
    for (path, one, other) in &kinds {
        let (status, first) = put(path, ("if-none-match", "*"), one.clone());
        let first = first.expect("a tag");
        assert_eq!(status, 201, "{path}");
        assert_eq!(put(path, ("if-none-match", "*"), other.clone()), (412, None), "{path} is there");
        assert_eq!(tag_of(path), first, "{path}: put and read, the tag is the same");
        let (status, second) = put(path, ("if-match", &first), other.clone());
        let second = second.expect("a tag");
        assert_eq!(status, 200, "{path}");
        assert_ne!(first, second, "{path}");
        assert_eq!(put(path, ("if-match", &first), one.clone()), (412, None), "{path} is another by now");
        // What is read can be put again, and changes nothing.
        let mut body = shop.put("GET", path, Value::Null);
        body.as_object_mut().expect("an object").remove("name");
        let again = shop.put("PUT", path, body);
        assert_eq!(again["changed"], false, "{path}");
        assert_eq!(tag_of(path), second);
    }
    for wrong in ["W/\"1\"", "0123", "\"xyz\"", "*"] {
        assert_eq!(put("/v1/nodes/a", ("if-match", wrong), json!({})).0, 422, "{wrong}");
    }
    let tags = kinds.iter().map(|(path, ..)| tag_of(path)).collect::<Vec<_>>();
    drop(shop);
    let shop = Shop::open(&data, &[]);
    for ((path, ..), tag) in kinds.iter().zip(&tags) {
        let response = shop.send("GET", path, &[("authorization", &format!("Bearer {}", shop.token))], None);
        assert_eq!(response.headers()["etag"].to_str().expect("text"), tag, "{path}, read back from disk");
    }
    // A rule that is given up is not there.
    shop.put("PUT", "/v1/rules/r", json!({ "skus": "A*" }));
    assert_eq!(shop.call(&shop.token, "GET", "/v1/rules/r", Value::Null).1["code"], "UNKNOWN_ENTRY");
    assert_eq!(shop.put("GET", "/v1/rules", Value::Null)["items"], json!([]));
}

#[test]
fn the_document_names_every_call_and_every_answer_of_the_page() {
    let dir = tempfile::tempdir().expect("a directory");
    let shop = Shop::open(&dir.path().join("data"), &[]);
    let document = shop.put("GET", "/v1/openapi.json", Value::Null);
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().expect("paths");
    for path in [
        "/v1/events",
        "/v1/availability",
        "/v1/availability/{sku}",
        "/v1/reservations",
        "/v1/reservations/{id}",
        "/v1/reservations/{id}/{verb}",
        "/v1/positions/{sku}/{node}",
        "/v1/allocations",
        "/v1/changes",
        "/v1/nodes/{name}",
        "/v1/tokens/{name}",
    ] {
        assert!(paths.contains_key(path), "{path}");
    }
    for (path, operations) in paths {
        for (method, operation) in operations.as_object().expect("operations") {
            let responses = operation["responses"].as_object().expect("responses");
            assert!(responses.contains_key("401"), "{method} {path} needs a token");
            for (status, response) in responses.iter().filter(|(status, _)| status.starts_with(['4', '5'])) {
                let schema = &response["content"]["application/problem+json"]["schema"]["$ref"];
                assert_eq!(schema, "#/components/schemas/Problem", "{method} {path} {status}");
            }
        }
    }
}

#[test]
fn what_could_not_be_applied_is_kept_until_somebody_redrives_or_discards_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let shop = Shop::open(&data, &["--shards", "2"]);
    shop.put("PUT", "/v1/nodes/n", json!({}));
    let event = |id: &str, kind: &str, node: &str| {
        json!({ "id": id, "source": "wms", "type": kind, "occurred_at": "2026-01-01T00:00:00Z", "sku": "A",
                "node": node, "quantity": 5 })
    };
    let tell = |shop: &Shop, events: Value| {
        shop.put("POST", "/v1/events", json!({ "events": events }))["results"].clone()
    };
    let letters = |shop: &Shop| shop.put("GET", "/v1/dead-letters", Value::Null);
    let mixed =
        json!([event("1", "receipt", "n"), event("2", "receipt", "later"), event("3", "ship", "later")]);
    let told = tell(&shop, mixed.clone());
    assert_eq!((&told[1]["code"], &told[2]["code"]), (&json!("UNKNOWN_NODE"), &json!("UNKNOWN_NODE")));
    let kept = letters(&shop);
    assert_eq!(kept["total"], 2, "{kept}");
    let of = |kept: &Value, id: &str| {
        let items = kept["items"].as_array().expect("items").clone();
        items.into_iter().find(|item| item["event"]["id"] == id)
    };
    let second = of(&kept, "2").expect("a letter");
    assert_eq!(second["event"], event("2", "receipt", "later"), "the original");
    assert_eq!((&second["principal"], &second["tries"]), (&json!("admin"), &json!(0)));
    // The same again brings no second letter; a conflict is the sender's own business.
    tell(&shop, mixed.clone());
    let conflict = tell(
        &shop,
        json!([{ "id": "1", "source": "wms", "type": "receipt", "occurred_at": "2026-01-01T00:00:00Z",
        "sku": "A", "node": "n", "quantity": 6 }]),
    );
    assert_eq!(conflict[0]["code"], "KEY_CONFLICT");
    assert_eq!(letters(&shop)["total"], 2);
    let drive = |shop: &Shop, letter: &Value| {
        let id = letter["id"].as_str().expect("an id");
        shop.call(&shop.token, "POST", &format!("/v1/dead-letters/{id}/redrive"), Value::Null)
    };
    let (status, again) = drive(&shop, &second);
    assert_eq!((status, &again["status"], &again["code"]), (200, &json!("rejected"), &json!("UNKNOWN_NODE")));
    assert_eq!(of(&letters(&shop), "2").expect("still there")["tries"], 1);
    // A kill and a start later all is as it was.
    drop(shop);
    let shop = Shop::open(&data, &[]);
    assert_eq!(letters(&shop)["total"], 2);
    shop.put("PUT", "/v1/nodes/later", json!({}));
    let third = of(&letters(&shop), "3").expect("a letter");
    assert_eq!(drive(&shop, &third).1["code"], "INSUFFICIENT_STOCK", "nothing is there to ship");
    assert_eq!(of(&letters(&shop), "3").expect("still there")["code"], "INSUFFICIENT_STOCK");
    let (status, applied) = drive(&shop, &second);
    assert_eq!((status, &applied["status"]), (200, &json!("applied")), "{applied}");
    let free = |shop: &Shop| shop.put("GET", "/v1/positions/A/later", Value::Null)["free"].clone();
    assert_eq!(free(&shop), 5);
    assert_eq!(drive(&shop, &second).0, 404, "it is settled");
    let gone = format!("/v1/dead-letters/{}", third["id"].as_str().expect("an id"));
    assert_eq!(shop.put("DELETE", &gone, Value::Null)["status"], "discarded");
    // Told once more, what is settled does not come back, and is not applied twice.
    tell(&shop, mixed);
    assert_eq!((&letters(&shop)["total"], &letters(&shop)["items"]), (&json!(0), &json!([])));
    assert_eq!(free(&shop), 5);
    // A backup has them too.
    tell(&shop, json!([event("4", "receipt", "nowhere")]));
    let copy = dir.path().join("copy");
    let (from, to) = (data.to_str().expect("plain"), copy.to_str().expect("plain"));
    check("stockline", &["backup", "--data", from, to], 0, "anchor=");
    let restored = dir.path().join("restored");
    check(
        "stockline",
        &["restore", "--from", to, "--data", restored.to_str().expect("plain")],
        0,
        "last_lsn=",
    );
    drop(shop);
    let shop = Shop::open(&restored, &[]);
    assert_eq!(of(&letters(&shop), "4").expect("a letter")["code"], "UNKNOWN_NODE");
    shop.put("PUT", "/v1/channels/web", json!({}));
    let channel = shop.put("PUT", "/v1/tokens/shop", json!({ "role": "channel", "channel": "web" }));
    let token = channel["token"].as_str().expect("a token");
    assert_eq!(shop.call(token, "GET", "/v1/dead-letters", Value::Null).0, 403);
}

#[test]
fn cloud_events_come_in_and_go_out() {
    let dir = tempfile::tempdir().expect("a directory");
    let shop = Shop::open(&dir.path().join("data"), &[]);
    shop.put("PUT", "/v1/nodes/n", json!({}));
    shop.put("PUT", "/v1/channels/web", json!({}));
    let bearer = format!("Bearer {}", shop.token);
    let tell = |kind: &str, body: Value| {
        let request = ureq::http::Request::builder()
            .method("POST")
            .uri(format!("http://{}/v1/events", shop.serving.http))
            .header("authorization", &bearer)
            .header("content-type", kind)
            .body(body.to_string())
            .expect("a request");
        let mut response = shop.agent.run(request).expect("answered");
        let text = response.body_mut().read_to_string().expect("text");
        (response.status().as_u16(), serde_json::from_str::<Value>(&text).expect("JSON"))
    };
    let envelope = |id: &str, kind: &str, data: Value| {
        json!({ "specversion": "1.0", "id": id, "source": "/wms/7", "type": kind, "time": "2026-01-01T00:00:00Z",
                "datacontenttype": "application/json", "data": data })
    };
    let data = json!({ "sku": "A", "node": "n", "quantity": 5 });
    let (status, told) =
        tell("application/cloudevents+json; charset=utf-8", envelope("1", "stockline.receipt", data.clone()));
    assert_eq!((status, &told["results"][0]["status"]), (200, &json!("applied")), "{told}");
    let batch = json!([envelope("1", "receipt", data.clone()), envelope("2", "receipt", data.clone())]);
    let (_, told) = tell("application/cloudevents-batch+json", batch);
    let status = |at: usize| told["results"][at]["status"].as_str().expect("text");
    assert_eq!((status(0), status(1)), ("duplicate", "applied"), "the same id, however it is put");
    let wrong = |body: Value, says: &str| {
        let (status, problem) = tell("application/cloudevents+json", body);
        assert!(status == 400 && problem["detail"].as_str().expect("text").contains(says), "{problem}");
    };
    let mut old = envelope("3", "receipt", data.clone());
    old["specversion"] = json!("0.3");
    wrong(old, "specversion \"0.3\" is not 1.0");
    let (_, told) =
        tell("application/cloudevents+json", envelope("3", "receipt", json!({ "sku": "A", "node": "n" })));
    let detail = &told["results"][0]["detail"];
    assert_eq!(detail, "quantity: is missing or empty", "{told}");
    wrong(
        envelope("3", "receipt", json!({ "id": "4", "sku": "A", "node": "n", "quantity": 1 })),
        "data has id",
    );
    let response = shop.send(
        "GET",
        "/v1/changes?channel=web&from_lsn=1&what=reservations,numbers&envelope=cloudevents",
        &[("authorization", &bearer)],
        None,
    );
    let reserve = json!({ "id": "00000000-0000-4000-8000-000000000001", "channel": "web", "ttl_ms": 60000,
                          "lines": [{ "sku": "A", "quantity": 3 }] });
    shop.put("POST", "/v1/reservations", reserve);
    let lines = BufReader::new(response.into_body().into_reader()).lines().map_while(Result::ok);
    let mut seen: Vec<Value> = Vec::new();
    for line in lines {
        let Some(data) = line.strip_prefix("data: ") else { continue };
        seen.push(serde_json::from_str(data).expect("JSON"));
        shop.check_message("envelope", seen.last().expect("one"));
        if seen.iter().any(|event| event["type"] == "stockline.change" && event["data"]["available"] == 7) {
            break;
        }
    }
    let reserved =
        seen.iter().find(|event| event["type"] == "stockline.reservation").expect("the reservation");
    assert_eq!((&reserved["specversion"], &reserved["data"]["what"]), (&json!("1.0"), &json!("reserved")));
    let mut ids: Vec<&str> = seen.iter().map(|event| event["id"].as_str().expect("an id")).collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all, "each id once: {seen:?}");
    // The document of all this can be followed from reference to reference.
    let document = shop.put("GET", "/v1/asyncapi.json", Value::Null);
    assert_eq!(document["asyncapi"], "3.0.0");
    let mut open = vec![&document];
    let mut followed = 0;
    while let Some(part) = open.pop() {
        match part {
            Value::Object(members) => {
                if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
                    let found = document.pointer(reference.strip_prefix('#').expect("in the document"));
                    assert!(found.is_some(), "{reference}");
                    followed += 1;
                }
                open.extend(members.values());
            }
            Value::Array(items) => open.extend(items),
            _ => {}
        }
    }
    assert!(followed > 10, "{followed} references");
}

#[test]
fn what_can_be_promised_for_a_date_is_what_comes_until_then() {
    let dir = tempfile::tempdir().expect("a directory");
    let shop = Shop::open(&dir.path().join("data"), &[]);
    shop.put("PUT", "/v1/nodes/n", json!({}));
    shop.put("PUT", "/v1/channels/web", json!({ "buffer": 1 }));
    shop.put("PUT", "/v1/channels/capped", json!({ "cap": 10 }));
    for channel in ["web", "capped"] {
        let rule = json!({ "skus": "*", "channel": channel, "backorder": 25 });
        shop.put("PUT", &format!("/v1/rules/{channel}"), rule);
    }
    shop.put("PUT", "/v1/channels/strict", json!({}));
    let event = |id: &str, kind: &str, quantity: u32, more: Value| {
        let mut event = json!({ "id": id, "source": "erp", "type": kind, "occurred_at": "2026-01-01T00:00:00Z", "sku": "A",
            "node": "n", "quantity": quantity });
        event.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let told = shop.put("POST", "/v1/events", json!({ "events": [event] }));
        assert_eq!(told["results"][0]["status"], "applied", "{told}");
    };
    event("1", "receipt", 6, json!({}));
    event("2", "supply", 10, json!({ "supply": "1", "eta": "2090-01-10T00:00:00Z" }));
    event("3", "supply", 20, json!({ "supply": "2", "eta": "2090-02-10T00:00:00Z" }));
    let by = |channel: &str, date: &str| {
        let path = format!("/v1/availability/A?channel={channel}{date}");
        shop.put("GET", &path, Value::Null)["items"][0]["available"].as_i64().expect("a number")
    };
    let dates = [
        "",
        "&date=2020-01-01T00:00:00Z",
        "&date=2090-01-09T23:59:59Z",
        "&date=2090-01-10T00:00:00Z",
        "&date=2090-03-01T00:00:00Z",
    ];
    // There are 6 and one is withheld; 25 may be waited for, 10 and then the rest of them.
    assert_eq!(dates.map(|date| by("web", date)), [5, 5, 5, 15, 30]);
    assert_eq!(dates.map(|date| by("capped", date)), [6, 6, 6, 10, 10], "it is shown no more than that");
    assert_eq!(
        dates.map(|date| by("strict", date)),
        [6; 5],
        "what it may not wait for is promised to nobody of it"
    );
    let reserve = json!({ "id": "00000000-0000-4000-8000-000000000001", "channel": "web", "ttl_ms": 60000,
                          "lines": [{ "sku": "A", "quantity": 8 }] });
    shop.put("POST", "/v1/reservations", reserve);
    assert_eq!(dates.map(|date| by("web", date)), [0, 0, 0, 7, 22], "what is claimed is not promised again");
    let (status, wrong) =
        shop.call(&shop.token, "GET", "/v1/availability/A?channel=web&date=soon", Value::Null);
    assert_eq!((status, &wrong["code"]), (422, &json!("INVALID")));
}

#[test]
fn sources_are_told_apart_and_what_they_did_not_tell_is_known() {
    let dir = tempfile::tempdir().expect("a directory");
    let shop = Shop::open(&dir.path().join("data"), &[]);
    shop.put("PUT", "/v1/nodes/n", json!({}));
    let tell = |source: &str, sequences: &[u64]| {
        let event = |sequence: &u64| {
            json!({"id": format!("e{sequence}"), "source": source, "type": "receipt", "quantity": 1, "sku": "A",
                   "node": if *sequence % 100 == 99 { "nowhere" } else { "n" }, "sequence": sequence,
                   "occurred_at": "2026-01-01T00:00:00Z"})
        };
        let events: Vec<Value> = sequences.iter().map(event).collect();
        shop.put("POST", "/v1/events", json!({ "events": events }));
    };
    let metric = |name: &str, source: &str| -> Option<f64> {
        let told = shop.send("GET", "/metrics", &[], None).body_mut().read_to_string().expect("text");
        let line = format!("stockline_source_{name}{{principal=\"admin\",source=\"{source}\"}} ");
        told.lines().find_map(|told| told.strip_prefix(&*line)).map(|value| value.parse().expect("a number"))
    };
    tell("berlin", &[5, 6, 9]);
    tell("paris", &[1, 2]);
    assert_eq!(
        (metric("missing_events", "berlin"), metric("missing_events", "paris")),
        (Some(2.0), Some(0.0))
    );
    assert_eq!(metric("events_total", "berlin"), Some(3.0));
    // Late, told again, refused: what came is not missing.
    tell("berlin", &[8, 8, 6, 99]);
    assert_eq!(metric("missing_events", "berlin"), Some(90.0));
    assert_eq!(
        (metric("events_total", "berlin"), metric("refused_events_total", "berlin")),
        (Some(4.0), Some(1.0))
    );
    assert_eq!(
        (metric("events_total", "paris"), metric("refused_events_total", "paris")),
        (Some(2.0), Some(0.0))
    );
    assert!(metric("lag_seconds", "paris").expect("told") > 1e6);
    assert!(metric("silence_seconds", "paris").expect("told") < 1e3);
    // Whoever makes up sources does not make up labels.
    for source in 0..100 {
        tell(&format!("s{source}"), &[1]);
    }
    assert_eq!(metric("events_total", "s61"), Some(1.0));
    assert_eq!((metric("events_total", "s62"), metric("events_total", "others")), (None, Some(38.0)));
}

#[test]
fn the_page_names_every_code_that_http_alone_has() {
    let page = include_str!("../../docs/http.md");
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../server/src/http");
    let mut sources = vec![folder.with_extension("rs")];
    sources.extend(std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()));
    let mut named = 0;
    for source in sources.iter().filter(|path| path.is_file()) {
        let text = std::fs::read_to_string(source).expect("text");
        for call in text.split("Problem::new(").skip(1) {
            let Some(code) = call.split(';').next().and_then(|call| call.split('"').nth(1)) else { continue };
            assert!(page.contains(&format!("`{code}`")), "{code} of {} is not on the page", source.display());
            named += 1;
        }
    }
    assert!(named > 10, "{named}");
}
