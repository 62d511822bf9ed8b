//! Webhooks of the real binary, against a receiver that refuses, stalls and goes away.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use ring::hmac;
use serde_json::{Value, json};

use crate::binary::check;
use crate::document;
use crate::http::Shop;
use crate::receiver::{Came, receive};

impl Came {
    /// The message's own id.
    fn id(&self) -> &str {
        self.header("webhook-id")
    }

    /// Whether one of the signatures is of a secret, as it was told.
    fn is_signed(&self, secret: &str) -> bool {
        let key = base64(secret.strip_prefix("whsec_").expect("a secret"));
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let text = format!("{}.{}.{}", self.id(), self.header("webhook-timestamp"), self.text());
        let good = |one: &str| {
            let tag = base64(one.strip_prefix("v1,").expect("version 1"));
            hmac::verify(&key, text.as_bytes(), &tag).is_ok()
        };
        self.header("webhook-signature").split(' ').any(good)
    }

    fn json(&self) -> Value {
        serde_json::from_str(self.text()).expect("JSON")
    }

    fn changes(&self) -> Vec<Value> {
        self.json()["data"]["changes"].as_array().cloned().unwrap_or_default()
    }
}

fn base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        other => panic!("{other} is no digit"),
    };
    let digits: Vec<u8> = text.trim_end_matches('=').bytes().map(digit).collect();
    let bytes = digits.chunks(4).flat_map(|four| {
        let bits = four.iter().fold(0u32, |bits, digit| bits << 6 | u32::from(*digit));
        let bits = bits << (6 * (4 - four.len()));
        bits.to_be_bytes()[1..four.len()].to_vec()
    });
    bytes.collect()
}

/// The address of a receiver of messages.
fn receiver(answer: impl Fn(usize, &str) -> u16 + Send + Sync + 'static) -> (String, Receiver<Came>) {
    let (url, came) = receive(move |before, body| answer(before, std::str::from_utf8(body).expect("text")));
    (format!("{url}/hook"), came)
}

fn open(data: &Path) -> Shop {
    let shop = Shop::open(data, &[]);
    shop.read_documents();
    shop.put("PUT", "/v1/nodes/n", json!({}));
    shop.put("PUT", "/v1/channels/web", json!({}));
    shop
}

fn receipt(shop: &Shop, id: &str, sku: &str, quantity: u32) {
    let event = json!({ "id": id, "source": "wms", "type": "receipt", "occurred_at": "2026-01-01T00:00:00Z", "sku": sku,
                        "node": "n", "quantity": quantity });
    let told = shop.put("POST", "/v1/events", json!({ "events": [event] }));
    assert_eq!(told["results"][0]["status"], "applied", "{told}");
}

fn reserve(shop: &Shop) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    let id = format!("00000000-0000-4000-8000-{:012}", NEXT.fetch_add(1, Ordering::SeqCst));
    let body =
        json!({ "id": id, "channel": "web", "ttl_ms": 600_000, "lines": [{ "sku": "A", "quantity": 1 }] });
    shop.put("POST", "/v1/reservations", body)["id"].as_str().expect("an id").to_owned()
}

fn hook(shop: &Shop, name: &str, url: &str, more: Value) -> Value {
    let mut body = json!({ "url": url, "channel": "web", "gather_ms": 0, "backoff_ms": 20 });
    body.as_object_mut().expect("one").extend(more.as_object().expect("one").clone());
    shop.put("PUT", &format!("/v1/webhooks/{name}"), body)
}

/// What comes until something is there, or a minute is over.
fn until(came: &Receiver<Came>, is_it: impl Fn(&Came) -> bool) -> Vec<Came> {
    let mut all = Vec::new();
    loop {
        let next = came.recv_timeout(Duration::from_secs(60)).expect("it comes within a minute");
        let found = is_it(&next);
        match next.json() {
            Value::Array(envelopes) => {
                envelopes.iter().for_each(|one| document::check_known_message("envelope", one));
            }
            message => document::check_known_message("delivery", &message),
        }
        all.push(next);
        if found {
            return all;
        }
    }
}

fn tells(came: &Came, reservation: &str) -> bool {
    came.changes().iter().any(|change| change["data"]["reservation"] == reservation)
}

#[test]
fn messages_are_signed_and_sent_again_until_they_arrive_or_are_dead_letters() {
    let dir = tempfile::tempdir().expect("a directory");
    let shop = open(&dir.path().join("data"));
    receipt(&shop, "1", "A", 1_000);
    receipt(&shop, "2", "B", 7);
    // The third call and the one behind it are refused, and whatever has to do with sku C.
    let refuses =
        |count: usize, body: &str| if (2..4).contains(&count) || body.contains("\"C\"") { 503 } else { 200 };
    let (url, came) = receiver(refuses);
    let made = hook(&shop, "shop", &url, json!({ "snapshot": true, "attempts": 4 }));
    let secret = made["secret"].as_str().expect("told once").to_owned();
    let first = until(&came, |came| came.text().contains("\"snapshot\""));
    assert!(
        first
            .iter()
            .all(|came| came.is_signed(&secret) && !came.is_signed(&secret.replace("whsec_", "whsec_AAAA")))
    );
    let told: Vec<Value> = first.iter().flat_map(Came::changes).collect();
    let of = |sku: &str| {
        told.iter()
            .find(|change| change["data"]["sku"] == sku)
            .map(|change| change["data"]["available"].clone())
    };
    assert_eq!((of("A"), of("B")), (Some(json!(1_000)), Some(json!(7))), "{told:?}");
    assert_eq!(told.last().expect("the end")["type"], "snapshot");

    // Put again as it is it keeps its secret and tells none.
    let same = hook(&shop, "shop", &url, json!({ "snapshot": true, "attempts": 4 }));
    assert_eq!((&same["lsn"], same.get("secret")), (&json!(0), None), "{same}");
    let read = shop.put("GET", "/v1/webhooks/shop", Value::Null);
    assert!(!read.to_string().contains("whsec"), "{read}");

    let tried = shop.put("POST", "/v1/webhooks/shop/test", Value::Null);
    assert_eq!(tried["status"], "delivered", "{tried}");
    let id = tried["id"].as_str().expect("an id").to_owned();
    assert!(until(&came, |came| came.id() == id).pop().expect("one").json()["type"] == "stockline.test");

    // Two refusals, and the third try is the same message.
    let one = reserve(&shop);
    let mut tries = until(&came, |came| tells(came, &one) && came.answered == 200);
    tries.retain(|came| tells(came, &one));
    let last = tries.last().expect("one");
    assert!(last.is_signed(&secret));
    if tries.len() > 1 {
        assert!(
            tries.iter().all(|came| came.id() == last.id() && came.body == last.body),
            "a try is the same message"
        );
    }

    // For a while both secrets sign.
    let rotated = shop.put("POST", "/v1/webhooks/shop/rotate", Value::Null);
    let another = rotated["secret"].as_str().expect("another").to_owned();
    assert_ne!(another, secret);
    let two = reserve(&shop);
    let came_two = until(&came, |came| tells(came, &two) && came.answered == 200).pop().expect("one");
    assert!(came_two.is_signed(&secret) && came_two.is_signed(&another));

    // Four refusals, and it is a dead letter; what comes behind it arrives.
    receipt(&shop, "3", "C", 1);
    let refused = until(&came, |came| came.text().contains("\"C\""));
    let dead = refused.last().expect("one").id().to_owned();
    let letters = || shop.put("GET", "/v1/dead-letters", Value::Null);
    let mut tries = 1;
    let mut count = || tries += came.try_iter().filter(|came| came.id() == dead).count();
    while letters()["total"] != 1 {
        count();
    }
    count();
    assert_eq!(tries, 4);
    let letter = letters()["items"][0].clone();
    assert_eq!(
        (&letter["webhook"], &letter["message_id"], &letter["code"]),
        (&json!("shop"), &json!(dead), &json!("UNDELIVERED"))
    );
    assert!(letter["message"].to_string().contains("\"C\""), "the original: {letter}");
    let three = reserve(&shop);
    until(&came, |came| tells(came, &three) && came.answered == 200);
    let again = format!("/v1/dead-letters/{}/redrive", letter["id"].as_str().expect("an id"));
    let driven = shop.put("POST", &again, Value::Null);
    assert_eq!(driven["status"], "undelivered", "{driven}");
    assert!(driven["error"].as_str().expect("why").contains("503"));
    // A receiver that takes it now gets the same message.
    let (url, mended) = receiver(|_, _| 204);
    hook(&shop, "shop", &url, json!({ "snapshot": true, "attempts": 4 }));
    assert_eq!(shop.put("POST", &again, Value::Null)["status"], "delivered");
    let came = until(&mended, |came| came.id() == dead).pop().expect("one");
    assert!(came.is_signed(&another));
    assert_eq!(letters()["total"], 0);

    let delivery = shop.put("GET", "/v1/webhooks/shop/delivery", Value::Null);
    assert!(delivery["given_up"] == 1 && delivery["failed"].as_u64() >= Some(4), "{delivery}");
    let metrics = shop.send("GET", "/metrics", &[], None).body_mut().read_to_string().expect("text");
    assert!(metrics.contains("stockline_webhook_dead_letters_total{webhook=\"shop\"} 1"), "{metrics}");

    shop.put("DELETE", "/v1/webhooks/shop", Value::Null);
    assert_eq!(shop.call(&shop.token, "GET", "/v1/webhooks/shop/delivery", Value::Null).0, 404);
    assert_eq!(shop.put("GET", "/v1/webhooks", Value::Null)["items"], json!([]));
}

#[test]
fn each_change_has_an_id_of_its_own_in_envelopes_too_and_one_made_anew_begins_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    let shop = open(&dir.path().join("data"));
    shop.put("PUT", "/v1/rules/wait", json!({ "skus": "*", "backorder": 100 }));
    let (url, came) = receiver(|_, _| 200);
    let made = hook(&shop, "shop", &url, json!({ "what": ["reservations"], "envelope": "cloudevents" }));
    let supply = |id: &str, sku: &str| {
        json!({ "id": id, "source": "erp", "type": "supply", "occurred_at": "2026-01-01T00:00:00Z", "sku": sku, "node": "n",
                "quantity": 10, "supply": id, "eta": "2099-01-01T00:00:00Z" })
    };
    shop.put("POST", "/v1/events", json!({ "events": [supply("1", "A"), supply("2", "B")] }));
    let lines = json!([{ "sku": "A", "quantity": 1 }, { "sku": "B", "quantity": 2 }]);
    let id = "00000000-0000-4000-9000-000000000001";
    let body = json!({ "id": id, "channel": "web", "ttl_ms": 600_000, "lines": lines });
    shop.put("POST", "/v1/reservations", body);
    let envelopes = until(&came, |came| came.text().contains("promised")).pop().expect("one");
    assert!(envelopes.is_signed(made["secret"].as_str().expect("a secret")));
    let envelopes = envelopes.json().as_array().cloned().expect("a batch");
    let promises = envelopes.iter().filter(|envelope| envelope["data"]["what"] == "promised").count();
    assert_eq!(promises, 2, "one a line: {envelopes:?}");
    let mut ids: Vec<&str> =
        envelopes.iter().map(|envelope| envelope["id"].as_str().expect("an id")).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), envelopes.len(), "{envelopes:?}");

    // Given up and made again it has another secret alone, begins with now, and nothing of before comes.
    shop.put("DELETE", "/v1/webhooks/shop", Value::Null);
    shop.put("POST", &format!("/v1/reservations/{id}/release"), json!({}));
    let again = hook(&shop, "shop", &url, json!({ "what": ["reservations"], "envelope": "cloudevents" }));
    receipt(&shop, "3", "A", 5);
    let next = reserve(&shop);
    let first = until(&came, |_| true).pop().expect("one");
    assert!(first.text().contains(&next) && !first.text().contains("released"), "{}", first.text());
    let of = |made: &Value| first.is_signed(made["secret"].as_str().expect("a secret"));
    assert!(of(&again) && !of(&made));
}

#[test]
fn what_happens_while_a_receiver_is_away_and_the_server_is_killed_comes_all_the_same() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let shop = open(&data);
    receipt(&shop, "1", "A", 10_000);
    // One that is there and never answers costs the other nothing.
    let (stalled, _silence) = receiver(|_, _| 0);
    hook(&shop, "stalled", &stalled, json!({}));
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port");
    let away = format!("http://{}/hook", nobody.local_addr().expect("an address"));
    drop(nobody);
    hook(&shop, "shop", &away, json!({ "attempts": 32, "backoff_ms": 100 }));
    let mut reserved: BTreeSet<String> = (0..40).map(|_| reserve(&shop)).collect();
    let waits = |shop: &Shop| shop.put("GET", "/v1/webhooks/shop/delivery", Value::Null);
    while waits(&shop)["state"] != "failing" {
        std::thread::yield_now();
    }
    drop(shop);
    let shop = Shop::open(&data, &[]);
    reserved.extend((0..20).map(|_| reserve(&shop)));
    drop(shop);
    let shop = Shop::open(&data, &[]);
    let (url, came) = receiver(|_, _| 200);
    hook(&shop, "shop", &url, json!({ "attempts": 32, "backoff_ms": 100 }));
    reserved.extend((0..20).map(|_| reserve(&shop)));
    let mut last = 0;
    while !reserved.is_empty() {
        let message = until(&came, |_| true).pop().expect("one");
        for change in message.changes() {
            if let Some(id) = change["data"]["reservation"].as_str() {
                reserved.remove(id);
            }
            last = last.max(change["data"]["lsn"].as_u64().expect("an LSN"));
        }
    }
    assert!(last > 60);
    drop(shop);

    // Behind a restore that goes back it says that there is a gap, and tells what is.
    let (copy, restored) = (dir.path().join("copy"), dir.path().join("restored"));
    let text = |path: &Path| path.to_str().expect("plain").to_owned();
    check("stockline", &["backup", "--data", &text(&data), &text(&copy)], 0, "anchor=");
    let (copy, to) = (text(&copy), text(&restored));
    check("stockline", &["restore", "--from", &copy, "--data", &to, "--at", "20"], 0, "last_lsn=20");
    let shop = Shop::open(&restored, &[]);
    let (url, came) = receiver(|_, _| 200);
    hook(&shop, "shop", &url, json!({}));
    let all = until(&came, |came| came.text().contains("\"snapshot\""));
    let told: Vec<Value> = all.iter().flat_map(Came::changes).collect();
    assert!(told.iter().any(|change| change["type"] == "gap"), "{told:?}");
    assert!(told.iter().any(|change| change["type"] == "change" && change["data"]["sku"] == "A"), "{told:?}");
}

#[test]
fn a_stream_that_begins_with_a_snapshot_tells_every_sku_and_then_what_changes() {
    let dir = tempfile::tempdir().expect("a directory");
    let shop = open(&dir.path().join("data"));
    // More than one read of them.
    let events: Vec<Value> = (0..1_200)
        .map(|at| json!({ "id": at.to_string(), "source": "wms", "type": "receipt", "occurred_at": "2026-01-01T00:00:00Z",
                          "sku": format!("S{at}"), "node": "n", "quantity": 5 + at }))
        .collect();
    shop.put("POST", "/v1/events", json!({ "events": events }));
    let bearer = format!("Bearer {}", shop.token);
    let follow = "/v1/changes?channel=web&what=numbers&snapshot=true";
    let response = shop.send("GET", follow, &[("authorization", &bearer)], None);
    let mut lines = BufReader::new(response.into_body().into_reader()).lines().map_while(Result::ok);
    let mut told = std::collections::BTreeMap::new();
    let (mut kind, mut end) = (String::new(), Value::Null);
    for line in lines.by_ref() {
        assert!(!line.starts_with("id: "), "whoever comes back before the end begins again: {line}");
        if let Some(name) = line.strip_prefix("event: ") {
            kind = name.to_owned();
        }
        let Some(data) = line.strip_prefix("data: ") else { continue };
        let data: Value = serde_json::from_str(data).expect("JSON");
        if kind == "snapshot" {
            end = data;
            break;
        }
        told.insert(
            data["sku"].as_str().expect("a sku").to_owned(),
            data["available"].as_u64().expect("units"),
        );
    }
    assert_eq!((told.len(), &end["skus"]), (1_200, &json!(1_200)));
    assert!((0..1_200).all(|at| told[&format!("S{at}")] == 5 + at));
    let cursor =
        lines.by_ref().find_map(|line| line.strip_prefix("id: ").map(str::to_owned)).expect("a cursor");
    receipt(&shop, "more", "S7", 100);
    let next = lines.find_map(|line| line.strip_prefix("data: ").map(str::to_owned)).expect("a change");
    let next: Value = serde_json::from_str(&next).expect("JSON");
    assert_eq!((&next["sku"], &next["available"]), (&json!("S7"), &json!(112)));
    assert!(next["lsn"].as_u64() >= cursor.parse().ok());
    let wrong = shop.call(&shop.token, "GET", "/v1/changes?snapshot=true", Value::Null);
    assert_eq!(wrong.0, 422, "{}", wrong.1);
}
