//! Stock events as people send them over HTTP: skewed clocks, supplies by name, malformed rows, dead letters that are
//! amended and driven again.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::binary::check as check_program;
use crate::http::Shop;

/// A moment so many milliseconds from now, as RFC 3339.
fn from_now(ms: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64;
    jiff::Timestamp::from_millisecond(now + ms).expect("a moment").to_string()
}

fn shop(dir: &std::path::Path) -> Shop {
    let shop = Shop::open(&dir.join("data"), &[]);
    for node in ["berlin", "paris"] {
        shop.put("PUT", &format!("/v1/nodes/{node}"), json!({}));
    }
    shop.put("PUT", "/v1/channels/web", json!({}));
    shop
}

fn with(mut event: Value, more: Value) -> Value {
    event.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    event
}

fn event(id: &str, kind: &str, quantity: i64, more: Value) -> Value {
    let event = json!({ "id": id, "source": "wms", "type": kind, "occurred_at": from_now(0), "sku": "A", "node": "berlin",
        "quantity": quantity });
    with(event, more)
}

/// Sends events with a token and answers what became of each.
fn send(shop: &Shop, token: &str, events: Value) -> Vec<Value> {
    let (status, answer) = shop.call(token, "POST", "/v1/events", json!({ "events": events }));
    assert_eq!(status, 200, "{answer}");
    answer["results"].as_array().expect("results").clone()
}

#[track_caller]
fn applied(shop: &Shop, event: Value) {
    let told = send(shop, &shop.token, json!([event]));
    assert_eq!(told[0]["status"], "applied", "{told:?}");
}

fn position(shop: &Shop, sku: &str, node: &str) -> Value {
    shop.put("GET", &format!("/v1/positions/{sku}/{node}"), Value::Null)
}

#[test]
fn counting_what_lies_there_changes_nothing_however_clocks_are_ahead() {
    let dir = tempfile::tempdir().expect("a directory");
    let shop = shop(dir.path());
    let at = |ms: i64| json!({ "occurred_at": from_now(ms) });
    for (turn, (receipt_ms, count_ms)) in
        [(2_000, 3_000), (3_000, 2_000), (290_000, 0), (0, 290_000), (0, 0), (0, 0), (0, 0), (0, 0)]
            .iter()
            .enumerate()
    {
        let sku = json!({ "sku": format!("S{turn}") });
        applied(&shop, with(event(&format!("r{turn}"), "receipt", 10, at(*receipt_ms)), sku.clone()));
        applied(&shop, with(event(&format!("c{turn}"), "count", 10, at(*count_ms)), sku));
        assert_eq!(position(&shop, &format!("S{turn}"), "berlin")["on_hand"], 10, "{receipt_ms} {count_ms}");
    }
    shop.serving.terminate();
}

#[test]
fn supplies_are_named_by_their_sources() {
    let dir = tempfile::tempdir().expect("a directory");
    let shop = shop(dir.path());
    let supply = |id: &str, source: &str, name: &str, quantity: i64, day: u32| {
        let more = json!({ "source": source, "supply": name, "eta": format!("2035-01-{day}T00:00:00Z") });
        event(id, "supply", quantity, more)
    };
    applied(&shop, supply("1", "acme", "1001", 10, 10));
    applied(&shop, supply("1", "globex", "1001", 25, 20));
    applied(&shop, supply("2", "acme", "0017", 3, 10));
    applied(&shop, supply("3", "acme", "17", 4, 10));
    assert_eq!(position(&shop, "A", "berlin")["inbound"], 42);
    // Another token's source is another, whatever it calls itself.
    let token = shop.put("PUT", "/v1/tokens/dock", json!({ "role": "warehouse", "nodes": ["berlin"] }));
    let dock = token["token"].as_str().expect("a token");
    let told = send(&shop, dock, json!([supply("1", "acme", "1001", 5, 12)]));
    assert_eq!(told[0]["status"], "applied", "{told:?}");
    assert_eq!(position(&shop, "A", "berlin")["inbound"], 47);
    // Who receives it is a third: it says which, unless there is one only.
    let receipt = |id: &str, more: Value| event(id, "receipt", 3, with(json!({ "source": "gate" }), more));
    let told = send(
        &shop,
        &shop.token,
        json!([
            receipt("1", json!({ "supply": "1001" })),
            receipt("2", json!({ "supply": "1001", "supply_source": "globex" })),
            receipt("3", json!({ "supply": "0017" })),
            receipt("4", json!({ "supply": "1001", "source": "acme" })),
            receipt("5", json!({ "supply": "9" })),
        ]),
    );
    let codes: Vec<_> = told.iter().map(|told| told["code"].as_str().unwrap_or("applied")).collect();
    assert_eq!(codes, ["AMBIGUOUS_SUPPLY", "applied", "applied", "applied", "UNKNOWN_SUPPLY"], "{told:?}");
    assert_eq!(position(&shop, "A", "berlin")["inbound"], 38);
    shop.serving.terminate();
}

#[test]
fn each_event_is_judged_by_itself_and_errors_name_field_and_value() {
    let dir = tempfile::tempdir().expect("a directory");
    let shop = shop(dir.path());
    let told = send(
        &shop,
        &shop.token,
        json!([
            event("1", "receipt", 5, json!({ "quantity": 5.0 })),
            event("2", "receipt", 5, json!({ "quantity": 5.5 })),
            event("3", "receipt", 5, json!({ "quantity": "5" })),
            event("4", "receipt", 5, json!({ "quantity": 4_294_967_296_i64 })),
            event("5", "receipt", -5, json!({})),
            event("6", "receipt", 5, json!({ "sku": " a" })),
            event("7", "receipt", 5, json!({ "colour": "red" })),
            event("8", "recipt", 5, json!({})),
            event("9", "pick", 1, json!({ "damaged": 1 })),
            event("10", "return", 5, json!({ "damaged": 5 })),
            event("11", "receipt", 5, json!({ "damaged": 2, "sku": "B" })),
            event("12", "receipt", 5, json!({ "to": "quality", "sku": "B" })),
            event("13", "receipt", 5, json!({ "node": "rome" })),
            event("14\u{0}x", "receipt", 5, json!({})),
            event("15", "receipt", 5, json!({ "sku": "A\u{202e}B" })),
            event("16", "receipt", 5, json!({ "occurred_at": "yesterday" })),
            json!(7),
            event("18", "receipt", 5, json!({})),
        ]),
    );
    let due = [
        ("applied", ""),
        ("INVALID_QUANTITY", "quantity: \"5.5\" is not a whole number"),
        ("INVALID_QUANTITY", "quantity: \"\\\"5\\\"\" is not a number"),
        ("INVALID_QUANTITY", "quantity: \"4294967296\" is more than"),
        (
            "INVALID_QUANTITY",
            "quantity: \"-5\" is negative: a receipt is what came in; to correct an earlier one",
        ),
        ("INVALID_EVENT", "sku: \" a\" begins or ends with white space"),
        ("INVALID_EVENT", "colour: \"\\\"red\\\"\" is given, but an event has no field"),
        ("INVALID_EVENT", "type: \"recipt\" is none of receipt"),
        ("INVALID_EVENT", "damaged: \"1\" does not apply to a pick"),
        ("INVALID_EVENT", "damaged: \"5\" does not apply to a return"),
        ("applied", ""),
        ("applied", ""),
        ("UNKNOWN_NODE", "node: \"rome\" is unknown"),
        ("INVALID_EVENT", "id: \"14\\0x\" has control characters"),
        ("INVALID_EVENT", "sku: \"A\\u{202e}B\" has invisible characters"),
        ("INVALID_EVENT", "occurred_at: \"yesterday\" is no RFC 3339 time"),
        ("INVALID_EVENT", "event: \"7\" is not an object"),
        ("applied", ""),
    ];
    for ((told, (code, detail)), at) in told.iter().zip(due).zip(1..) {
        let got = (told["code"].as_str().unwrap_or("applied"), told["detail"].as_str().unwrap_or(""));
        assert!(got.0 == code && got.1.starts_with(detail), "{at}: {told} instead of {code} {detail}");
    }
    let here = position(&shop, "B", "berlin");
    assert_eq!((&here["free"], &here["damaged"], &here["quality"]), (&json!(3), &json!(2), &json!(5)));
    assert_eq!(position(&shop, "A", "berlin")["free"], 10);
    // What was refused made no sku.
    let names = shop.put("GET", "/v1/sku-names?prefix=", Value::Null);
    assert_eq!(names["items"], json!(["A", "B"]));
    shop.serving.terminate();
}

#[test]
fn facts_that_were_refused_can_be_sent_again_or_amended() {
    let dir = tempfile::tempdir().expect("a directory");
    let shop = shop(dir.path());
    // A clock that is ahead: later the same event is taken, and so is a corrected one.
    let ahead = event("1", "receipt", 5, json!({ "occurred_at": from_now(301_500) }));
    let told = send(&shop, &shop.token, json!([ahead.clone()]));
    assert_eq!((&told[0]["code"], &told[0]["lsn"]), (&json!("EVENT_IN_FUTURE"), &json!(0)), "{told:?}");
    let letters = || shop.put("GET", "/v1/dead-letters", Value::Null);
    assert_eq!(letters()["items"][0]["code"], "EVENT_IN_FUTURE");
    while send(&shop, &shop.token, json!([ahead.clone()]))[0]["status"] != "applied" {
        std::thread::yield_now();
    }
    assert_eq!(letters()["total"], 0, "what was applied needs nobody any more");
    let wrong = event("2", "receipt", 0, json!({}));
    assert_eq!(send(&shop, &shop.token, json!([wrong]))[0]["code"], "INVALID_QUANTITY");
    let letter = letters()["items"][0].clone();
    assert_eq!((&letter["code"], &letter["event"]["quantity"]), (&json!("INVALID_QUANTITY"), &json!(0)));
    let path = format!("/v1/dead-letters/{}/redrive", letter["id"].as_str().expect("an id"));
    let (status, told) = shop.call(&shop.token, "POST", &path, json!({}));
    assert_eq!((status, &told["code"]), (422, &json!("INVALID_EVENT")), "as it is it cannot be read");
    let right = event("2", "receipt", 7, json!({}));
    let told = shop.put("POST", &path, json!({ "event": right.clone() }));
    assert_eq!(told["status"], "applied", "{told}");
    assert_eq!(position(&shop, "A", "berlin")["free"], 12);
    // Its sender repeats it corrected in the same way: it was applied under that id.
    assert_eq!(send(&shop, &shop.token, json!([right]))[0]["status"], "duplicate");
    shop.serving.terminate();
}

#[test]
fn a_dead_letter_is_driven_again_with_its_senders_rights() {
    let dir = tempfile::tempdir().expect("a directory");
    let shop = shop(dir.path());
    let token = shop.put("PUT", "/v1/tokens/dock", json!({ "role": "warehouse", "nodes": ["berlin"] }));
    let dock = token["token"].as_str().expect("a token").to_owned();
    let foreign = event("1", "count", 50, json!({ "node": "paris" }));
    let told = send(&shop, &dock, json!([foreign.clone(), event("2", "receipt", 1, json!({}))]));
    assert_eq!((&told[0]["code"], &told[1]["status"]), (&json!("UNKNOWN_NODE"), &json!("applied")));
    let letter = shop.put("GET", "/v1/dead-letters", Value::Null)["items"][0].clone();
    assert_eq!((&letter["principal"], &letter["event"]["node"]), (&json!("dock"), &json!("paris")));
    let path = format!("/v1/dead-letters/{}/redrive", letter["id"].as_str().expect("an id"));
    let told = shop.put("POST", &path, json!({}));
    assert_eq!((&told["status"], &told["code"]), (&json!("rejected"), &json!("UNKNOWN_NODE")));
    assert_eq!(position(&shop, "A", "paris")["on_hand"], 0);
    // Revoked, its sender has no rights at all.
    shop.put("DELETE", "/v1/tokens/dock", Value::Null);
    let (status, told) = shop.call(&shop.token, "POST", &path, json!({}));
    assert_eq!((status, &told["code"]), (403, &json!("FORBIDDEN")), "{told}");
    // The administrator may make it his own, and that is what history says.
    let told = shop.put("POST", &path, json!({ "adopt": true }));
    assert_eq!(told["status"], "applied", "{told}");
    let history = shop.put("GET", "/v1/positions/A/paris/history", Value::Null);
    let item = &history["items"][0];
    assert_eq!(
        (&item["what"], &item["principal"], &item["sent_by"]),
        (&json!("count"), &json!("admin"), &json!("dock"))
    );
    shop.serving.terminate();
}

#[test]
fn a_letter_and_its_sender_apply_an_event_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let shop = shop(dir.path());
    let token = shop.put("PUT", "/v1/tokens/dock", json!({ "role": "warehouse", "nodes": ["berlin"] }));
    let dock = token["token"].as_str().expect("a token").to_owned();
    let letters = || shop.put("GET", "/v1/dead-letters", Value::Null);
    let path = |what: &str| {
        format!("/v1/dead-letters/{}{what}", letters()["items"][0]["id"].as_str().expect("an id"))
    };
    let at = from_now(0);
    let unknown = |quantity: i64| {
        event("1", "receipt", quantity, json!({ "node": "nowhere", "occurred_at": at.clone() }))
    };
    // Corrected and still refused, the letter is the corrected one.
    for quantity in [5, 5, 50] {
        assert_eq!(send(&shop, &dock, json!([unknown(quantity)]))[0]["code"], "UNKNOWN_NODE");
        assert_eq!(
            (&letters()["total"], &letters()["items"][0]["event"]["quantity"]),
            (&json!(1), &json!(quantity))
        );
    }
    // Discarded it does not come back, unless it says something else.
    shop.put("DELETE", &path(""), Value::Null);
    send(&shop, &dock, json!([unknown(50)]));
    assert_eq!(letters()["total"], 0);
    send(&shop, &dock, json!([unknown(51)]));
    assert_eq!(letters()["total"], 1);
    // Adopted it has its sender's id: sent again, or driven again at the same time, it is a duplicate.
    shop.put("PUT", "/v1/nodes/nowhere", json!({}));
    let redrive = path("/redrive");
    let told = std::thread::scope(|scope| {
        let adopt = || shop.call(&shop.token, "POST", &redrive, json!({ "adopt": true }));
        let all: Vec<_> = (0..4).map(|_| scope.spawn(adopt)).collect();
        all.into_iter().map(|told| told.join().expect("it ran")).collect::<Vec<_>>()
    });
    assert!(told.iter().any(|(status, told)| *status == 200 && told["status"] == "applied"), "{told:?}");
    assert!(told.iter().all(|(status, _)| [200, 404].contains(status)), "{told:?}");
    assert_eq!(send(&shop, &dock, json!([unknown(51)]))[0]["status"], "duplicate");
    assert_eq!((&position(&shop, "A", "nowhere")["free"], &letters()["total"]), (&json!(51), &json!(0)));
    // Refused and corrected at once, it needs nobody; the same the other way round is told.
    let here = |id: &str, quantity: i64| event(id, "receipt", quantity, json!({ "occurred_at": at.clone() }));
    let told = send(&shop, &dock, json!([here("2", 0), here("2", 1), here("3", 1), here("3", 2)]));
    let codes: Vec<_> = told.iter().map(|told| told["code"].as_str().unwrap_or("applied")).collect();
    assert_eq!(codes, ["INVALID_QUANTITY", "applied", "applied", "KEY_CONFLICT"]);
    assert_eq!(letters()["total"], 0);
    // Of what is longer than a letter the beginning is kept.
    let told = send(&shop, &dock, json!([{ "id": "4", "source": "wms", "junk": "x".repeat(20_000) }]));
    assert_eq!(told[0]["code"], "INVALID_EVENT");
    assert_eq!(letters()["items"][0]["event"].as_str().expect("a text").len(), 16_384);
    let (status, told) = shop.call(&shop.token, "POST", &path("/redrive"), json!({}));
    assert_eq!((status, &told["code"]), (422, &json!("INVALID_EVENT")), "{told}");
    shop.serving.terminate();
}

#[test]
fn a_3pl_that_counts_what_it_shipped_is_counted_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let shop = shop(dir.path());
    let at = |ms: i64| json!({ "occurred_at": from_now(ms) });
    applied(&shop, event("1", "receipt", 120, at(-3_600_000)));
    let id = "00000000-0000-4000-8000-000000000007";
    let reserve =
        json!({ "id": id, "channel": "web", "ttl_ms": 60_000, "lines": [{ "sku": "A", "quantity": 5 }] });
    shop.put("POST", "/v1/reservations", reserve);
    shop.put("POST", &format!("/v1/reservations/{id}/confirm"), json!({}));
    applied(&shop, event("2", "count", 115, at(-1_000)));
    applied(&shop, with(event("3", "ship", 5, at(-2_000)), json!({ "reservation": id })));
    assert_eq!(position(&shop, "A", "berlin")["on_hand"], 115);
    let done = shop.put("POST", &format!("/v1/reservations/{id}/fulfil"), json!({}));
    assert_eq!(done["state"], "fulfilled");
    assert_eq!(position(&shop, "A", "berlin")["on_hand"], 115);
    // A sku at all its nodes.
    applied(&shop, event("4", "receipt", 3, json!({ "node": "paris" })));
    let all = shop.put("GET", "/v1/positions/A", Value::Null);
    let nodes: Vec<_> =
        all["items"].as_array().expect("items").iter().map(|item| (&item["node"], &item["free"])).collect();
    assert_eq!(nodes, [(&json!("berlin"), &json!(115)), (&json!("paris"), &json!(3))]);
    shop.serving.terminate();
}

#[test]
fn what_has_ended_claims_nothing_and_keys_are_each_ones_own() {
    let dir = tempfile::tempdir().expect("a directory");
    let shop = shop(dir.path());
    shop.put("PUT", "/v1/channels/edi", json!({}));
    let token = |name: &str| {
        let body = json!({ "role": "channel", "channel": name });
        shop.put("PUT", &format!("/v1/tokens/{name}"), body)["token"].as_str().expect("a token").to_owned()
    };
    let (web, edi) = (token("web"), token("edi"));
    applied(&shop, event("1", "receipt", 40, json!({})));
    let reserve = |bearer: &str, channel: &str, key: &str| {
        let bearer = format!("Bearer {bearer}");
        let body = json!({ "channel": channel, "ttl_ms": 60_000, "lines": [{ "sku": "A", "quantity": 4 }] })
            .to_string();
        let headers = [("authorization", &*bearer), ("idempotency-key", key)];
        let mut response = shop.send("POST", "/v1/reservations", &headers, Some(&body));
        let text = response.body_mut().read_to_string().expect("text");
        (response.status().as_u16(), serde_json::from_str::<Value>(&text).expect("JSON"))
    };
    // What a rival can compute of another's key is worth nothing; the same text is another key for each.
    let guess = xxhash_rust::xxh3::xxh3_128(b"2\0order-4712");
    for number in [guess, xxhash_rust::xxh3::xxh3_128(b"order-4712")] {
        let text = format!("{number:032x}");
        let uuid =
            format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]);
        let (status, guessed) = reserve(&edi, "edi", &uuid);
        assert_eq!(status, 201, "{guessed}");
    }
    let (status, made) = reserve(&web, "web", "order-4712");
    assert_eq!(status, 201, "{made}");
    for (token, channel) in [(&edi, "edi"), (&web, "web")] {
        let (status, made) = reserve(token, channel, "order-4711");
        assert_eq!(status, 201, "{made}");
    }
    // By its key it is found again, by its owner.
    let (_, found) = shop.call(&web, "GET", "/v1/reservations/order-4712", Value::Null);
    assert_eq!((&found["id"], &found["lines"][0]["held"]), (&made["id"], &json!(4)));
    // Its own units do not look like those of all.
    let allocate =
        json!({ "action": "allocate", "channel": "web", "sku": "A", "node": "berlin", "quantity": 2 });
    shop.put("POST", "/v1/allocations", allocate);
    let (status, mixed) = reserve(&web, "web", "mixed");
    assert_eq!(status, 201, "{mixed}");
    let (_, found) = shop.call(&web, "GET", "/v1/reservations/mixed", Value::Null);
    let pools: Vec<_> =
        found["lines"].as_array().expect("lines").iter().map(|line| (&line["pool"], &line["held"])).collect();
    assert_eq!(pools, [(&json!("own"), &json!(2)), (&json!("shared"), &json!(2))], "{found}");
    shop.call(&web, "POST", "/v1/reservations/mixed/release", json!({}));
    assert_eq!(shop.call(&edi, "GET", "/v1/reservations/order-4712", Value::Null).0, 404);
    let same = [&edi, &web].map(|token| shop.call(token, "GET", "/v1/reservations/order-4711", Value::Null));
    assert!(same.iter().all(|(status, _)| *status == 200) && same[0].1["id"] != same[1].1["id"], "{same:?}");
    // 32 hex digits are no UUID, but a text like any other.
    let hex = made["id"].as_str().expect("text").replace('-', "");
    assert_eq!(shop.call(&web, "GET", &format!("/v1/reservations/{hex}"), Value::Null).0, 404);
    let (_, released) = shop.call(&web, "POST", "/v1/reservations/order-4712/release", json!({}));
    let line = &released["lines"][0];
    assert_eq!(
        (&line["held"], &line["confirmed"], &line["released"]),
        (&json!(0), &json!(0), &json!(4)),
        "{released}"
    );
    // What is not its own looks as if it were not there, in the same words.
    let ask = |channel: &str| {
        let (status, problem) =
            shop.call(&web, "GET", &format!("/v1/changes?channel={channel}"), Value::Null);
        (status, problem["code"].clone(), problem["detail"].as_str().expect("text").replace(channel, "NAME"))
    };
    assert_eq!(ask("edi"), ask("nix"));
    let dry = |channel: &str| {
        let body = json!({ "channel": channel, "ttl_ms": 1, "lines": [{ "sku": "A", "quantity": 1 }] });
        let (status, problem) = shop.call(&web, "POST", "/v1/reservations?dry_run=true", body);
        (status, problem["code"].clone(), problem["detail"].as_str().expect("text").replace(channel, "NAME"))
    };
    assert_eq!(dry("edi"), dry("nix"));
    shop.serving.terminate();
}

#[test]
fn an_event_of_long_ago_needs_to_say_when_it_was_sent_once_something_was_forgotten() {
    let dir = tempfile::tempdir().expect("a directory");
    let shop = shop(dir.path());
    let dated = |text: &str, more: Value| {
        event(text, "receipt", 1, with(json!({ "occurred_at": "2026-01-01T00:00:00Z" }), more))
    };
    // Nothing was forgotten: what happened long ago is new, and a repeat of it is known.
    applied(&shop, dated("1", json!({})));
    assert_eq!(send(&shop, &shop.token, json!([dated("1", json!({}))]))[0]["status"], "duplicate");
    applied(&shop, dated("2", json!({ "sent_at": from_now(0) })));
    // A supply may be due on a day, and a date in a query may have lost its plus.
    shop.put("PUT", "/v1/rules/late", json!({ "skus": "*", "channel": "web", "backorder": 25 }));
    let supply = json!({ "supply": "7", "eta": "2035-06-01" });
    applied(&shop, event("3", "supply", 5, supply));
    let asked = shop.put("GET", "/v1/availability/A?channel=web&date=2035-06-01T12:00:00+02:00", Value::Null);
    assert_eq!(asked["items"][0]["available"], 2);
    let asked = shop.put("GET", "/v1/availability/A?channel=web&date=2035-06-02", Value::Null);
    assert_eq!(asked["items"][0]["available"], 7);
    shop.serving.terminate();
}

#[test]
fn a_reservation_is_found_by_what_it_is_called_wherever_an_id_does() {
    let dir = tempfile::tempdir().expect("a directory");
    let shop = shop(dir.path());
    shop.put("PUT", "/v1/channels/edi", json!({}));
    let token = |shop: &Shop, name: &str, body: Value| {
        shop.put("PUT", &format!("/v1/tokens/{name}"), body)["token"].as_str().expect("a token").to_owned()
    };
    let web = token(&shop, "web", json!({ "role": "channel", "channel": "web" }));
    let edi = token(&shop, "edi", json!({ "role": "channel", "channel": "edi" }));
    let [berlin, paris] =
        ["berlin", "paris"].map(|node| token(&shop, node, json!({ "role": "warehouse", "nodes": [node] })));
    applied(
        &shop,
        event("1", "receipt", 20, json!({ "reason": "long enough to say what happened: ".repeat(3) })),
    );
    let long = event("2", "receipt", 1, json!({ "reason": "x".repeat(129) }));
    let told = send(&shop, &shop.token, json!([long]));
    assert!(told[0]["detail"].as_str().expect("text").ends_with("is longer than 128 bytes"), "{told:?}");
    let history = shop.put("GET", "/v1/positions/A/berlin/history", Value::Null);
    assert_eq!(history["items"][0]["reason"].as_str().map(str::len), Some(102), "{history}");
    let reserve = |shop: &Shop, bearer: &str, key: &str, more: Value| {
        let bearer = format!("Bearer {bearer}");
        let body = json!({ "channel": "web", "ttl_ms": 600_000, "lines": [{ "sku": "A", "quantity": 4 }] });
        let headers = [("authorization", &*bearer), ("idempotency-key", key)];
        let mut response =
            shop.send("POST", "/v1/reservations", &headers, Some(&with(body, more).to_string()));
        let text = response.body_mut().read_to_string().expect("text");
        (response.status().as_u16(), serde_json::from_str::<Value>(&text).expect("JSON"))
    };
    let texts = json!({ "order": "0017", "customer": "Ada Lovelace", "reference": "project x" });
    let (status, made) = reserve(&shop, &web, "order-4712", texts.clone());
    assert_eq!(status, 201, "{made}");
    // A repeat has the same texts, or it is none.
    assert_eq!(reserve(&shop, &web, "order-4712", texts).1["lsn"], made["lsn"]);
    let other = reserve(&shop, &web, "order-4712", json!({ "order": "17" }));
    assert_eq!((other.0, &other.1["code"]), (409, &json!("KEY_CONFLICT")));
    let (status, second) = reserve(&shop, &web, "order-4713", json!({ "order": "17", "customer": 42 }));
    assert_eq!(status, 201, "{second}");
    let (status, wrong) = reserve(&shop, &web, "order-4714", json!({ "reference": "x".repeat(129) }));
    assert_eq!(status, 422, "{wrong}");
    assert!(wrong["detail"].as_str().expect("text").starts_with("reference: "), "{wrong}");
    let check = |shop: &Shop| {
        for text in ["order-4712", "0017", "project%20x"] {
            let (status, found) = shop.call(&web, "GET", &format!("/v1/reservations/{text}"), Value::Null);
            assert_eq!((status, &found["id"]), (200, &made["id"]), "{text}: {found}");
            assert_eq!(
                (&found["key"], &found["order"], &found["customer"], &found["reference"]),
                (&json!("order-4712"), &json!("0017"), &json!("Ada Lovelace"), &json!("project x"))
            );
            // Another channel sees nothing of it, an administrator does.
            let (status, _) = shop.call(&edi, "GET", &format!("/v1/reservations/{text}"), Value::Null);
            assert_eq!(status, 404, "{text}");
            let found = shop.put("GET", &format!("/v1/reservations/{text}"), Value::Null);
            assert_eq!(found["id"], made["id"]);
        }
        for (query, id) in [
            ("order=0017", Some(&made)),
            ("customer=Ada%20Lovelace", Some(&made)),
            ("customer=42", Some(&second)),
            ("reference=project%20x", Some(&made)),
            ("key=order-4713", Some(&second)),
            ("order=order-4712", None),
            ("reference=", None),
        ] {
            let found = shop.put("GET", &format!("/v1/reservations?{query}"), Value::Null);
            let ids: Vec<&Value> =
                found["items"].as_array().expect("items").iter().map(|item| &item["id"]).collect();
            assert_eq!(ids, id.iter().map(|made| &made["id"]).collect::<Vec<_>>(), "{query}: {found}");
        }
    };
    check(&shop);
    for query in ["", "order=1&customer=2", "colour=blue"] {
        let (status, _) = shop.call(&web, "GET", &format!("/v1/reservations?{query}"), Value::Null);
        assert!((400..=422).contains(&status), "{query}: {status}");
    }
    // Its warehouse ships by what the order is called; another warehouse sees no such order.
    let (_, confirmed) = shop.call(&web, "POST", "/v1/reservations/order-4712/confirm", json!({}));
    assert_eq!(confirmed["state"], "confirmed");
    let ship =
        |id: &str, node: &str, text: &str| event(id, "ship", 1, json!({ "node": node, "reservation": text }));
    for (id, text) in [("s1", "0017"), ("s2", "order-4712"), ("s3", "project x")] {
        let told = send(&shop, &berlin, json!([ship(id, "berlin", text)]));
        assert_eq!(told[0]["status"], "applied", "{told:?}");
    }
    let told = send(&shop, &paris, json!([ship("s4", "paris", "0017")]));
    assert_eq!(told[0]["code"], "UNKNOWN_RESERVATION", "{told:?}");
    // A step is by its key alone: an order may have another reservation by then.
    let (status, _) = shop.call(&web, "POST", "/v1/reservations/0017/release", json!({}));
    assert_eq!(status, 404);
    // What two are called names neither.
    let (status, _) = reserve(&shop, &web, "twin", json!({ "order": "17" }));
    assert_eq!(status, 201);
    let (status, problem) = shop.call(&web, "GET", "/v1/reservations/17", Value::Null);
    assert_eq!(status, 422, "{problem}");
    assert!(problem["detail"].as_str().expect("text").contains("several reservations"), "{problem}");
    let told = send(&shop, &berlin, json!([ship("s5", "berlin", "17")]));
    assert!(told[0]["detail"].as_str().expect("text").contains("several reservations"), "{told:?}");
    // What was taken is known again, whatever the text means by now.
    shop.call(&web, "POST", "/v1/reservations/order-4713/confirm", json!({}));
    let again = ship("s7", "berlin", "order-4713");
    assert_eq!(send(&shop, &berlin, json!([again.clone()]))[0]["status"], "applied");
    let (status, _) = reserve(&shop, &web, "third", json!({ "reference": "order-4713" }));
    assert_eq!(status, 201);
    assert_eq!(send(&shop, &berlin, json!([again]))[0]["status"], "duplicate");
    shop.put("POST", "/v1/reservations/third/release", json!({}));
    assert_eq!(shop.call(&berlin, "GET", "/v1/reservations?order=17", Value::Null).0, 403);
    // One that has ended is not meant where another has not.
    shop.put("POST", "/v1/reservations/twin/release", json!({}));
    let (_, found) = shop.call(&web, "GET", "/v1/reservations/17", Value::Null);
    assert_eq!(found["id"], second["id"]);
    let both = shop.put("GET", "/v1/reservations?order=17", Value::Null);
    let states: Vec<&Value> =
        both["items"].as_array().expect("items").iter().map(|item| &item["state"]).collect();
    assert_eq!(states, ["confirmed", "released"]);
    // What was refused for a text goes once it names something.
    let told = send(&shop, &berlin, json!([ship("s6", "berlin", "late order")]));
    assert_eq!(told[0]["code"], "UNKNOWN_RESERVATION", "{told:?}");
    let (status, _) = reserve(&shop, &web, "late", json!({ "order": "late order" }));
    assert_eq!(status, 201);
    shop.call(&web, "POST", "/v1/reservations/late/confirm", json!({}));
    let letters = shop.put("GET", "/v1/dead-letters", Value::Null);
    let letter =
        letters["items"].as_array().expect("items").iter().find(|letter| letter["event"]["id"] == "s6");
    let id = letter.expect("it is kept")["id"].as_str().expect("text").to_owned();
    let driven = shop.put("POST", &format!("/v1/dead-letters/{id}/redrive"), json!({}));
    assert_eq!(driven["status"], "applied", "{driven}");
    // A file names reservations so as well; a restart forgets nothing.
    let file = dir.path().join("ship.csv");
    let row = |id: &str, text: &str| format!("{id},wms,ship,{},A,berlin,1,{text}\n", from_now(0));
    let rows = row("f1", "order-4713") + &row("f2", "nobody") + &row("f3", "late order");
    std::fs::write(&file, format!("id,source,type,occurred_at,sku,node,quantity,reservation\n{rows}"))
        .expect("written");
    let (file, profile) = (file.to_str().expect("text"), dir.path().join("data/client.toml"));
    let words = ["import", file, "--profile", profile.to_str().expect("text")];
    let said = check_program("stockline", &words, 1, "applied=2 duplicates=0 refused=1");
    assert!(said.contains(":3: UNKNOWN_RESERVATION: no reservation is called \"nobody\""), "{said}");
    shop.serving.terminate();
    let shop = Shop::open(&dir.path().join("data"), &["--shards", "2"]);
    check(&shop);
    shop.serving.terminate();
}

#[test]
fn each_token_says_how_far_its_clock_may_be_ahead() {
    let dir = tempfile::tempdir().expect("a directory");
    let shop = shop(dir.path());
    let body = |more: Value| with(json!({ "role": "warehouse", "nodes": ["berlin"] }), more);
    let token = |shop: &Shop, name: &str, more: Value| {
        shop.put("PUT", &format!("/v1/tokens/{name}"), body(more))["token"]
            .as_str()
            .expect("a token")
            .to_owned()
    };
    let (fast, exact) = (
        token(&shop, "fast", json!({ "clock_ahead_s": 200 })),
        token(&shop, "exact", json!({ "clock_ahead_s": 2 })),
    );
    let usual = token(&shop, "usual", json!({}));
    let at = |id: &str, ms: i64| event(id, "receipt", 1, json!({ "occurred_at": from_now(ms) }));
    let code = |token: &str, event: Value| send(&shop, token, json!([event]))[0]["code"].clone();
    let refused = json!("EVENT_IN_FUTURE");
    for (token, id, ms, ok) in [
        (&fast, "1", 150_000, true),
        (&fast, "2", 290_000, false),
        (&usual, "3", 290_000, true),
        (&usual, "4", 400_000, false),
        (&exact, "5", -1_000, true),
        (&exact, "6", 60_000, false),
    ] {
        assert_eq!(code(token, at(id, ms)), if ok { Value::Null } else { refused.clone() }, "{id}");
    }
    let told = send(&shop, &exact, json!([at("7", 60_000)]));
    assert!(told[0]["detail"].as_str().expect("text").contains("more than 2 s ahead"), "{told:?}");
    // An event that says that it was sent an hour from now is kept too.
    let told =
        send(&shop, &usual, json!([event("9", "receipt", 1, json!({ "sent_at": from_now(3_600_000) }))]));
    assert_eq!(told[0]["code"], "CLOCK_AHEAD", "{told:?}");
    let letters = shop.put("GET", "/v1/dead-letters", Value::Null);
    let mut kept: Vec<&str> = letters["items"]
        .as_array()
        .expect("items")
        .iter()
        .filter_map(|item| item["event"]["id"].as_str())
        .collect();
    kept.sort_unstable();
    assert_eq!(kept, ["2", "4", "6", "7", "9"]);
    // It stays as it is when the token is replaced; it is told, and bounded.
    let rotated = shop.put("POST", "/v1/tokens/fast/rotate", Value::Null);
    assert_eq!(code(rotated["token"].as_str().expect("a token"), at("8", 150_000)), Value::Null);
    assert_eq!(shop.put("GET", "/v1/tokens/fast", Value::Null)["clock_ahead_s"], 200);
    assert_eq!(shop.put("GET", "/v1/tokens/usual", Value::Null)["clock_ahead_s"], 300);
    for wrong in [0, 301] {
        let body = body(json!({ "clock_ahead_s": wrong }));
        assert_eq!(shop.call(&shop.token, "PUT", "/v1/tokens/x", body).0, 422);
    }
    let profile = dir.path().join("data/client.toml");
    let profile = profile.to_str().expect("text");
    let token = |more: &[&str], exit, says| {
        let mut words =
            vec!["token", "fast", "--role", "warehouse", "--nodes", "berlin", "--profile", profile];
        words.extend(more);
        check_program("stockline", &words, exit, says);
    };
    token(&[], 0, "token = ");
    assert_eq!(shop.put("GET", "/v1/tokens/fast", Value::Null)["clock_ahead_s"], 200);
    token(&["--clock-ahead", "60"], 0, "token = ");
    assert_eq!(shop.put("GET", "/v1/tokens/fast", Value::Null)["clock_ahead_s"], 60);
    token(&["--clock-ahead", "301"], 2, "301");
    shop.serving.terminate();
}
