//! Why is this number 3? Positions as of earlier LSNs and what moved there, over HTTP, read out of the journal.

use serde_json::{Value, json};

use crate::http::Shop;

const NODES: [&str; 2] = ["berlin", "paris"];

/// A day of one sku, with a bit of everything; answers each position behind each step.
fn play(shop: &Shop) -> Vec<(u64, [Value; 2])> {
    for node in NODES {
        shop.put("PUT", &format!("/v1/nodes/{node}"), json!({}));
    }
    shop.put("PUT", "/v1/channels/web", json!({}));
    shop.put("PUT", "/v1/channels/edi", json!({}));
    shop.put("PUT", "/v1/rules/wait", json!({ "skus": "A*", "channel": "web", "backorder": 50 }));
    let mut seen = Vec::new();
    let mut number = 0;
    let mut event = |kind: &str, node: &str, quantity: i64, more: Value| {
        number += 1;
        let mut event = json!({
            "id": number.to_string(), "source": "wms", "type": kind, "occurred_at": "2026-01-01T00:00:00Z",
            "sku": "A", "node": node, "quantity": quantity,
        });
        event.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let told = shop.put("POST", "/v1/events", json!({ "events": [event] }));
        assert_eq!(told["results"][0]["status"], "applied", "{kind}: {told}");
    };
    let id = |number: u32| format!("00000000-0000-4000-8000-0000000000{number:02}");
    let reserve = |number: u32, quantity: u32, node: Value| {
        let line = json!({ "sku": "A", "quantity": quantity, "node": node });
        let body = json!({ "id": id(number), "channel": "web", "ttl_ms": 600_000, "lines": [line] });
        shop.put("POST", "/v1/reservations", body);
    };
    let step = |number: u32, verb: &str, body: Value| {
        shop.put("POST", &format!("/v1/reservations/{}/{verb}", id(number)), body);
    };
    let allocate = |action: &str, quantity: u32, more: Value| {
        let mut body =
            json!({ "action": action, "channel": "web", "sku": "A", "node": "berlin", "quantity": quantity });
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        shop.put("POST", "/v1/allocations", body);
    };
    for turn in 0..25 {
        match turn {
            0 => event("receipt", "berlin", 40, json!({})),
            1 => event("receipt", "paris", 10, json!({})),
            2 => reserve(1, 12, json!("berlin")),
            3 => event("adjustment", "berlin", -3, json!({ "reason": "broken" })),
            4 => allocate("allocate", 8, json!({})),
            5 => reserve(2, 5, Value::Null),
            6 => step(1, "confirm", json!({})),
            7 => allocate("reallocate", 2, json!({ "to_channel": "edi" })),
            8 => event("pick", "berlin", 4, json!({ "reservation": id(1) })),
            9 => event("ship", "berlin", 4, json!({ "reservation": id(1) })),
            10 => event("status_change", "berlin", 2, json!({ "from": "free", "to": "damaged" })),
            11 => {
                let more = json!({ "to_node": "paris", "supply": "7", "eta": "2030-01-01T00:00:00Z" });
                event("transfer_dispatched", "berlin", 5, more);
            }
            12 => step(
                2,
                "move",
                json!({ "lines": [{ "sku": "A", "quantity": 3, "node": "berlin", "to_node": "paris" }] }),
            ),
            13 => event("supply", "paris", 20, json!({ "supply": "8", "eta": "2031-01-01T00:00:00Z" })),
            14 => step(1, "fulfil", json!({ "lines": [{ "sku": "A", "quantity": 1, "node": "berlin" }] })),
            // More than there is: some of it waits for supplies.
            15 => reserve(3, 30, Value::Null),
            16 => event("transfer_received", "paris", 4, json!({ "supply": "7", "damaged": 1 })),
            17 => step(2, "release", json!({})),
            18 => event("count", "paris", 3, json!({ "occurred_at": "2026-01-02T00:00:00Z" })),
            19 => event("return", "paris", 2, json!({ "to": "quality" })),
            20 => step(3, "release", json!({})),
            21 => allocate("deallocate", 1, json!({})),
            22 => event("receipt", "paris", 20, json!({ "supply": "8" })),
            23 => reserve(4, 1, json!("paris")),
            _ => step(4, "extend", json!({ "ttl_ms": 900_000 })),
        }
        let now = NODES.map(|node| shop.put("GET", &format!("/v1/positions/A/{node}"), Value::Null));
        seen.push((now[0]["as_of_lsn"].as_u64().expect("an LSN"), now));
    }
    seen
}

fn units(position: &Value) -> Value {
    let mut units = position.clone();
    units.as_object_mut().expect("an object").remove("as_of_lsn");
    units
}

#[test]
fn a_position_is_told_as_of_every_lsn_and_why() {
    for shards in ["1", "4"] {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("data");
        let shop = Shop::open(&data, &["--shards", shards]);
        let seen = play(&shop);
        let last = seen.last().expect("steps").0;
        for (lsn, positions) in &seen {
            for (node, then) in NODES.iter().zip(positions) {
                let told = shop.put("GET", &format!("/v1/positions/A/{node}?at_lsn={lsn}"), Value::Null);
                assert_eq!(told["as_of_lsn"], *lsn);
                assert_eq!(units(&told), units(then), "{node} as of {lsn}");
            }
        }
        let before = shop.put("GET", "/v1/positions/A/berlin?at_lsn=0", Value::Null);
        assert!(["free", "held", "on_hand"].iter().all(|bucket| before[bucket] == 0), "{before}");
        let ahead = format!("/v1/positions/A/berlin?at_lsn={}", last + 1_000);
        assert_eq!(shop.call(&shop.token, "GET", &ahead, Value::Null).1["code"], "CURSOR_UNKNOWN");
        // Page by page, newest first, nothing twice and nothing left out.
        for node in NODES {
            let (mut items, mut from) = (Vec::new(), String::new());
            loop {
                let path = format!("/v1/positions/A/{node}/history?limit=3{from}");
                let page = shop.put("GET", &path, Value::Null);
                assert_eq!(page["kept_from_lsn"], 1);
                items.extend(page["items"].as_array().expect("items").clone());
                let Some(next) = page["next_before_lsn"].as_u64() else { break };
                from = format!("&before_lsn={next}");
            }
            let lsns: Vec<u64> = items.iter().map(|item| item["lsn"].as_u64().expect("an LSN")).collect();
            assert!(lsns.is_sorted_by(|one, next| one > next), "{lsns:?}");
            // What moved adds up to what is there.
            let mut free = 0;
            for movement in items.iter().flat_map(|item| item["movements"].as_array().expect("movements")) {
                let quantity = movement["quantity"].as_i64().expect("units");
                if movement["to_come"] != true {
                    free += quantity * i64::from(movement["to"] == "free");
                    free -= quantity * i64::from(movement["from"] == "free");
                }
            }
            let position = shop.put("GET", &format!("/v1/positions/A/{node}"), Value::Null);
            assert_eq!(position["free"], free, "{node}");
            if node == "berlin" {
                let broken = items.iter().find(|item| item["reason"] == "broken").expect("the adjustment");
                assert_eq!((&broken["what"], &broken["principal"]), (&json!("adjustment"), &json!("admin")));
                assert_eq!(broken["movements"], json!([{ "from": "free", "to": "loss", "quantity": 3 }]));
            }
        }
        let (status, wrong) =
            shop.call(&shop.token, "GET", "/v1/positions/A/berlin/history?limit=0", Value::Null);
        assert_eq!((status, &wrong["code"]), (422, &json!("INVALID")));
    }
}
