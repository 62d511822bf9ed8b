//! The audit trail: what administrators did and what was refused, over every face, kept through kills, and whatever is
//! edited, removed or cut off is noticed.

use std::collections::HashMap;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;

use redb::{Database, ReadableTable, TableDefinition};
use serde_json::{Value, json};
use stockline_core::audit_trail::{AuditAnchor, AuditKind, AuditTrail, Verified};
use stockline_core::chain::Chain;
use stockline_core::id::Millis;

use crate::binary::check;
use crate::http::Shop;

type Row = (u64, &'static [u8], &'static [u8; 32]);
type End = (u64, u64, &'static [u8; 32], u64, &'static [u8; 32]);
const RECORDS: TableDefinition<(u8, u64), Row> = TableDefinition::new("audit");
const ENDS: TableDefinition<u8, End> = TableDefinition::new("audit_ends");

fn items(shop: &Shop, more: &str) -> Vec<Value> {
    let most = if more.contains("limit") { "" } else { "&limit=1000" };
    let told = shop.put("GET", &format!("/v1/audit?before=9999{more}{most}"), Value::Null);
    told["items"].as_array().expect("items").clone()
}

/// What is listed once something is there.
pub(crate) fn eventually(shop: &Shop, more: &str, is_there: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    for _ in 0..300 {
        let items = items(shop, more);
        if is_there(&items) {
            return items;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(100));
    }
    panic!("{:?} never came", items(shop, more));
}

#[test]
fn what_binds_others_and_what_is_refused_is_written_down_before_a_kill() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let mut shop = Shop::open(&data, &["--http-rate", "40"]);
    let profile = data.join("client.toml");
    let profile = profile.to_str().expect("text");
    check("stockline", &["define", "node", "n0", "--profile", profile], 0, "");
    shop.put("PUT", "/v1/channels/web", json!({}));
    let made = shop.put("PUT", "/v1/tokens/shop", json!({"role": "channel", "channel": "web"}));
    let token = made["token"].as_str().expect("a token").to_owned();
    // One that is refused for how things are, and still was an administrator's.
    assert_eq!(shop.call(&shop.token, "PUT", "/v1/groups/g", json!({"nodes": ["nowhere"]})).0, 404);
    let binding = |items: &[Value]| -> Vec<String> {
        let told = items.iter().rev().filter(|item| item["kind"] == "administration");
        told.map(|item| {
            let from = item["from"].as_str().unwrap_or_default();
            format!("{} {} {from} {} {}", item["face"], item["principal"], item["asked"], item["status"])
        })
        .map(|text| text.replace('"', ""))
        .collect()
    };
    let due = [
        "quic admin 127.0.0.1 Define 1: node \\n0\\ null",
        "http admin 127.0.0.1 PUT /v1/channels/web 201",
        "http admin 127.0.0.1 PUT /v1/tokens/shop 201",
        "http admin 127.0.0.1 PUT /v1/groups/g 404",
    ];
    assert_eq!(binding(&items(&shop, "")), due);
    // Killed right behind an answer: what was answered is there.
    for round in 0..5 {
        shop.put("PUT", &format!("/v1/nodes/k{round}"), json!({}));
        shop.serving.signal("-KILL");
        drop(shop);
        shop = Shop::open(&data, &["--http-rate", "40"]);
        let last = binding(&items(&shop, "&kind=administration")).pop();
        assert_eq!(last.as_deref(), Some(&*format!("http admin 127.0.0.1 PUT /v1/nodes/k{round} 201")));
    }

    // Refusals: of somebody known, of nobody known, over both faces, and of one who asks too much.
    assert_eq!(shop.call(&token, "PUT", "/v1/nodes/n1", json!({})).0, 403);
    assert_eq!(shop.call(&token, "GET", "/v1/audit", Value::Null).0, 403);
    assert_eq!(shop.call("nobody", "GET", "/v1/me", Value::Null).0, 401);
    let wrong = std::fs::read_to_string(profile).expect("a profile").replace(&shop.token, &"0".repeat(64));
    let stranger = data.join("stranger.toml");
    std::fs::write(&stranger, wrong).expect("written");
    let stranger = stranger.to_str().expect("text");
    check("stockline", &["query", "A", "--channel", "web", "--profile", stranger], 6, "token is not known");
    let mut refused = 0;
    while refused < 150 {
        refused += u64::from(shop.call(&token, "GET", "/v1/me", Value::Null).0 == 429);
    }
    let count = |items: &[Value], code: &str| -> u64 {
        let like = items.iter().filter(|item| item["code"] == code);
        like.map(|item| item["count"].as_u64().expect("a count")).sum()
    };
    let told = eventually(&shop, "&kind=refusal", |items| {
        count(items, "RATE_LIMITED") == refused && count(items, "UNAUTHENTICATED") == 2
    });
    assert!(told.len() < 30, "{} refusals are {} records", refused + 4, told.len());
    let find = |face: &str, asked: &str| {
        let found = told.iter().find(|item| item["face"] == face && item["asked"] == asked);
        found.unwrap_or_else(|| panic!("no {face} {asked} in {told:?}"))
    };
    assert_eq!(find("http", "PUT /v1/nodes/n1")["principal"], "shop");
    assert_eq!(find("http", "PUT /v1/nodes/n1")["code"], "FORBIDDEN");
    assert_eq!(find("quic", "SignIn")["principal"], Value::Null);
    assert!(told.iter().all(|item| item["request"].as_str() != Some("")));

    // Page by page it is the same.
    let (all, mut paged, mut before) = (items(&shop, ""), Vec::new(), String::new());
    loop {
        let told = shop.put("GET", &format!("/v1/audit?limit=3{before}"), Value::Null);
        paged.extend(told["items"].as_array().expect("items").clone());
        let Some(next) = told["next"].as_u64() else { break };
        before = format!("&before={next}");
    }
    assert_eq!(paged, all);
    let anchors = shop.put("GET", "/v1/audit?limit=1", Value::Null)["anchors"].clone();
    let anchors: Vec<&str> = anchors.as_array().expect("two").iter().filter_map(Value::as_str).collect();

    // A backup has it, and is told of itself; what was restored goes through what was written down.
    let copy = dir.path().join("copy");
    let copy = copy.to_str().expect("text");
    check("stockline", &["backup", "--data", data.to_str().expect("text"), copy], 0, "anchor=");
    let last = items(&shop, "&kind=administration").remove(0);
    assert_eq!((&last["face"], &last["asked"]), (&json!("control"), &json!(format!("backup {copy}"))));
    shop.serving.terminate();
    let restored = dir.path().join("restored");
    let restored = restored.to_str().expect("text");
    check("stockline", &["restore", "--from", copy, "--data", restored], 0, "anchor=");
    for data in [data.to_str().expect("text"), restored] {
        let anchors = ["--audit-anchor", anchors[0], "--audit-anchor", anchors[1]];
        let verify = [&["verify", "--data", data], &anchors[..]].concat();
        check("stockline", &verify, 0, "audit_anchor=administration:");
    }
    let restored = Shop::open(Path::new(restored), &[]);
    assert_eq!(items(&restored, "")[0]["asked"], format!("restore from {copy}"));
}

/// A trail of `count` records of each kind, in turn.
fn trail(path: &Path, count: u64) -> [AuditAnchor; 2] {
    let trail = AuditTrail::open(path).expect("opens");
    for at in 0..count {
        let records =
            AuditKind::ALL.map(|kind| (kind, Millis(at), format!("{} {at}", kind.name()).into_bytes()));
        trail.append(&records).expect("appended");
    }
    assert_eq!(trail.verify(&[]).expect("read"), Verified::default());
    trail.ends().expect("read")
}

#[test]
fn what_is_edited_removed_or_cut_off_is_noticed() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("audit.redb");
    let ends = trail(&path, 9);
    let original = std::fs::read(&path).expect("read");
    let found = |anchors: &[AuditAnchor]| {
        AuditTrail::open(&path).expect("opens").verify(anchors).expect("read").wrong.join("; ")
    };
    // Something is done to the file, which is then as before.
    let after = |act: &dyn Fn(&Database), anchors: &[AuditAnchor]| {
        let db = Database::open(&path).expect("opens");
        act(&db);
        drop(db);
        let found = found(anchors);
        std::fs::write(&path, &original).expect("written");
        found
    };
    assert_eq!(found(&ends), "");
    let (_, refusals) = (ends[0], ends[1]);
    assert_eq!(refusals.number, 18);
    // Row by row: edited, given another moment, removed.
    for number in (2..=18).step_by(2) {
        let edited = |says: &'static [u8], later: u64| {
            move |db: &Database| {
                let write = db.begin_write().expect("begins");
                {
                    let mut table = write.open_table(RECORDS).expect("there");
                    let (at, chain) = {
                        let row = table.get((1, number)).expect("read").expect("there");
                        (row.value().0, *row.value().2)
                    };
                    table.insert((1, number), (at + later, says, &chain)).expect("written");
                }
                write.commit().expect("committed");
            }
        };
        let due = format!("audit trail: refusal {number} is not what was written, or one before it is gone");
        assert_eq!(after(&edited(b"nothing", 0), &[]), due);
        let removed = |db: &Database| {
            let write = db.begin_write().expect("begins");
            write.open_table(RECORDS).expect("there").remove((1, number)).expect("removed");
            write.commit().expect("committed");
        };
        let due = match number {
            18 => "audit trail: it ends with refusal 16, the 8th, and had 18 as the 9th".to_owned(),
            _ => due.replace(&format!("refusal {number}"), &format!("refusal {}", number + 2)),
        };
        assert_eq!(after(&removed, &[]), due);
    }
    // Cut off with the ends rewritten: it is sound in itself, and does not meet what was written down outside.
    let cut = |db: &Database| {
        let write = db.begin_write().expect("begins");
        {
            let mut table = write.open_table(RECORDS).expect("there");
            table.remove((1, 18)).expect("removed");
            let chain = *table.get((1, 16)).expect("read").expect("there").value().2;
            let mut ends = write.open_table(ENDS).expect("there");
            ends.insert(1, (8, 0, &Chain::START.0, 16, &chain)).expect("written");
        }
        write.commit().expect("committed");
    };
    assert_eq!(after(&cut, &[]), "");
    assert_eq!(after(&cut, &ends), format!("audit trail: it does not go through {refusals}"));
    // The beginning cut off, with the ends rewritten: nothing had to go yet.
    let cut = |db: &Database| {
        let write = db.begin_write().expect("begins");
        {
            let mut table = write.open_table(RECORDS).expect("there");
            let gone = *table.get((1, 4)).expect("read").expect("there").value().2;
            [2, 4].iter().for_each(|number| drop(table.remove((1, *number)).expect("removed")));
            let mut ends = write.open_table(ENDS).expect("there");
            ends.insert(1, (7, 4, &gone, 18, &refusals.chain.0)).expect("written");
        }
        write.commit().expect("committed");
    };
    assert_eq!(after(&cut, &ends), "audit trail: refusal up to 4 is gone, and had not to go");
    // An anchor of another time holds on.
    let later = AuditTrail::open(&path).expect("opens");
    later.append(&[(AuditKind::Refusal, Millis(99), b"more".to_vec())]).expect("appended");
    assert_eq!(later.verify(&ends).expect("read"), Verified::default());
    assert_ne!(later.ends().expect("read")[1], refusals);
    // As it is printed, it is read.
    let texts: HashMap<String, AuditAnchor> = ends.map(|end| (end.to_string(), end)).into();
    assert!(texts.iter().all(|(text, end)| text.parse() == Ok(*end)));
    for wrong in ["", "refusal", "refusal:1", "refusal:1:00", "granted:1:00", "refusal:x:00"] {
        assert!(wrong.parse::<AuditAnchor>().is_err(), "{wrong}");
    }
}

#[test]
fn what_had_to_go_is_gone_and_the_rest_holds() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("audit.redb");
    let trail = AuditTrail::bounded(&path, 5).expect("opens");
    let mut anchors = Vec::new();
    for at in 0..12u64 {
        let mut records = vec![(AuditKind::Refusal, Millis(at), at.to_string().into_bytes())];
        if at % 4 == 0 {
            records.push((AuditKind::Administration, Millis(at), b"rare".to_vec()));
        }
        trail.append(&records).expect("appended");
        anchors.push(trail.ends().expect("read")[1]);
    }
    // Twelve refusals came, five are kept, and what administrators did is all there.
    let numbers = |kind| -> Vec<u64> {
        trail.newest(&[kind], u64::MAX, 99).expect("read").iter().map(|record| record.number).collect()
    };
    assert_eq!(numbers(AuditKind::Refusal), [15, 14, 13, 11, 10]);
    assert_eq!(numbers(AuditKind::Administration), [12, 7, 2]);
    let found = trail.verify(&anchors).expect("read");
    // The last that went is still known.
    assert_eq!((found.wrong.len(), found.too_old), (0, anchors[..6].to_vec()));
    let never = AuditAnchor { number: 14, ..anchors[11] };
    assert_eq!(trail.verify(&[never]).expect("read").wrong.len(), 1);
    drop(trail);
    // Two at once, and one more than fit, go the same way; kept less, there is less.
    let less = AuditTrail::bounded(&path, 2).expect("opens");
    let more: Vec<_> = (0..3).map(|at| (AuditKind::Refusal, Millis(at), Vec::new())).collect();
    less.append(&more).expect("appended");
    assert_eq!(less.verify(&[]).expect("read"), Verified::default());
    assert_eq!(less.newest(&AuditKind::ALL, u64::MAX, 99).expect("read").len(), 4);
}

#[test]
fn who_leaves_leaves_a_record_and_what_is_refused_over_quic_a_second_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let shop = Shop::open(&data, &[]);
    for number in 0..20u64 {
        let mut stream = TcpStream::connect(&shop.serving.http).expect("connected");
        let head = format!(
            "PUT /v1/nodes/left{number} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n",
            shop.token
        );
        write!(stream, "{head}content-length: 2\r\n\r\n{{}}").expect("sent");
        // Some leave before they are read, some while they wait, some when they are answered.
        std::thread::park_timeout(std::time::Duration::from_micros(number * number * 100));
    }
    shop.put("PUT", "/v1/nodes/left99", json!({}));
    // One that ends before it is read was none; what was done is told of.
    let is_told = |items: &[Value], node: &Value| {
        let asked = json!(format!("PUT /v1/nodes/{}", node["name"].as_str().expect("a name")));
        items.iter().any(|item| item["asked"] == asked && (item["status"] == 201 || item["code"] == "LEFT"))
    };
    eventually(&shop, "", |items| {
        let nodes = shop.put("GET", "/v1/nodes", Value::Null)["items"].as_array().expect("nodes").clone();
        !nodes.is_empty() && nodes.iter().all(|node| is_told(items, node))
    });

    let profile = data.join("client.toml");
    let profile = profile.to_str().expect("text");
    check("stockline", &["define", "group", "g", "--nodes", "nowhere", "--profile", profile], 1, "");
    let told = eventually(&shop, "&kind=administration&limit=2", |items| items[0]["code"] == "UNKNOWN_NODE");
    assert_eq!((&told[1]["asked"], &told[1]["code"]), (&json!("Define 1: group \"g\""), &Value::Null));
    assert_eq!(
        (&told[0]["asked"], &told[0]["code"]),
        (&json!("Define was refused, or a part of it"), &json!("UNKNOWN_NODE"))
    );
    assert_eq!(told[0]["request"], told[1]["request"]);
    shop.serving.terminate();

    // A trail that is not there any more is noticed, and the new one says so.
    let text = data.to_str().expect("text");
    let said = check("stockline", &["verify", "--data", text], 0, "audit_anchor=administration:");
    let anchor = said.lines().find_map(|line| line.strip_prefix("audit_anchor=")).expect("one").to_owned();
    std::fs::remove_file(data.join("audit.redb")).expect("removed");
    check("stockline", &["verify", "--data", text], 0, "audit.redb is missing");
    let anchor = ["--audit-anchor", &anchor];
    check("stockline", &[&["verify", "--data", text], &anchor[..]].concat(), 1, "audit.redb is missing");
    let shop = Shop::open(&data, &[]);
    let told = items(&shop, "");
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["asked"], "a new audit trail: there was none beside the journal");
    shop.serving.terminate();
}
