//! Stock events as people send them over HTTP: skewed clocks, supplies by name, malformed rows, dead letters that are
//! amended and driven again.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

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
