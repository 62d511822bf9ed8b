//! The command line where somebody mistypes, pipes into nothing, or hands it files that are hostile; and the server whose
//! standard error nobody reads.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::binary::{check, program, run, serve, text};
use crate::http::Shop;

fn path(path: &Path) -> &str {
    path.to_str().expect("a path")
}

/// A server with two nodes and a channel, and how to call the program against it.
struct Desk {
    _dir: tempfile::TempDir,
    shop: Shop,
    profile: String,
}

impl Desk {
    fn open() -> Desk {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("data");
        let shop = Shop::open(&data, &[]);
        let profile = path(&data.join("client.toml")).to_owned();
        let desk = Desk { _dir: dir, shop, profile };
        for words in ["define node hamburg", "define node bremen", "define channel web"] {
            desk.check(words, 0, "changed");
        }
        desk
    }

    #[track_caller]
    fn check(&self, words: &str, exit: i32, says: &str) -> String {
        let mut words: Vec<&str> = words.split(' ').collect();
        words.extend(["--profile", &self.profile]);
        check("stockline", &words, exit, says)
    }

    fn file(&self, name: &str, content: &[u8]) -> String {
        let file = self._dir.path().join(name);
        std::fs::write(&file, content).expect("written");
        path(&file).to_owned()
    }
}

#[test]
fn only_what_is_given_changes_and_the_difference_is_told() {
    let desk = Desk::open();
    desk.check("define group open --nodes hamburg", 0, "changed");
    desk.check(
        "define channel shop --low 5 --late-confirm reacquire --holds-max 9 --buffer 2",
        0,
        "shop changed",
    );
    let said = desk.check("define channel shop --group open", 0, "shop changed");
    assert!(said.contains("group: none -> open"), "{said}");
    assert!(!said.contains("low:") && !said.contains("buffer:"), "{said}");
    let entry = desk.shop.put("GET", "/v1/channels/shop", Value::Null);
    assert_eq!(
        (&entry["low"], &entry["buffer"], &entry["late_confirm"], &entry["group"], &entry["holds_max"]),
        (&json!(5), &json!(2), &json!("reacquire"), &json!("open"), &json!(9)),
        "{entry}"
    );
    desk.check("define channel shop --group=", 0, "group: open -> none");
    desk.check("define node hamburg --priority 7", 0, "priority: 100 -> 7");
    desk.check("define node hamburg --priority 7", 0, "hamburg unchanged");
}

#[test]
fn unknown_names_are_named_and_what_does_not_fit_is_refused() {
    let desk = Desk::open();
    desk.check("define group g2 --nodes hamburg,berlin", 1, "UNKNOWN_NODE: no node \"berlin\"");
    desk.check("token nobody --role channel --channel nix", 1, "UNKNOWN_CHANNEL: no channel \"nix\"");
    desk.check("define rule r --skus *BOSCH* --safety 2", 1, "INVALID_RULE");
    desk.check("define node mars --timezone Mars/Olympus", 2, "is no time zone of the IANA database");
    desk.check("define node berlin --timezone Europe/Berlin --cut-off 14:00", 0, "berlin changed");
    let offset = desk.shop.put("GET", "/v1/nodes/berlin", Value::Null)["utc_offset"].clone();
    assert!(offset == "01:00" || offset == "02:00", "{offset}");
    let (status, problem) = desk.shop.call(
        &desk.shop.token,
        "PUT",
        "/v1/nodes/mars",
        json!({ "timezone": "Mars/Olympus", "cut_off": "14:00" }),
    );
    assert_eq!(status, 422, "{problem}");
    let (status, problem) =
        desk.shop.call(&desk.shop.token, "PUT", "/v1/groups/g", json!({ "nodes": ["hamburg", "rome"] }));
    assert_eq!((status, &problem["detail"]), (404, &json!("no node \"rome\"")));
    // Guards of tokens hold over every transport.
    desk.check("token shpo --revoke", 1, "UNKNOWN_TOKEN: no token \"shpo\"");
    desk.check("token admin --role channel --channel web", 1, "FORBIDDEN");
    desk.check("token t --role admin --channel web", 2, "--channel does not go with this role");
    desk.check(
        "token t --role warehouse --nodes hamburg --channel web",
        2,
        "--channel does not go with this role",
    );
    assert_eq!(
        desk.shop.put("GET", "/v1/me", Value::Null)["name"],
        "admin",
        "the administrator's token is as good as before"
    );
    let tokens = desk.shop.put("GET", "/v1/tokens", Value::Null);
    assert_eq!(tokens["items"].as_array().map(Vec::len), Some(1), "{tokens}");
    // A channel is told of its own business only.
    let profile = desk.check("token shop --role channel --channel web", 0, "token = ");
    desk.check("define channel edi", 0, "changed");
    desk.check("define group north --nodes bremen", 0, "changed");
    desk.check("define channel web --group north", 0, "changed");
    let profile: String =
        profile.lines().filter(|line| line.contains(" = ")).map(|line| format!("{line}\n")).collect();
    let shop = desk.file("shop.toml", profile.as_bytes());
    desk.shop.put("POST", "/v1/events", json!({ "events": [
        { "id": "1", "source": "s", "type": "receipt", "occurred_at": "2026-01-01T00:00:00Z", "sku": "A", "node": "bremen",
          "quantity": 5 }] }));
    for (words, exit, says) in [
        ("explain A 3 --channel web", 0, "OK"),
        ("explain A 9 --channel web", 1, "INSUFFICIENT_STOCK"),
        ("explain A 0 --channel web", 1, "INVALID_QUANTITY"),
        ("explain A 3 --channel edi", 1, "no channel \"edi\""),
        ("explain A 3 --channel web --node hamburg", 1, "no node \"hamburg\""),
        ("explain A 3 --channel web --node bremen", 0, "OK"),
        ("explain A 3 --channel web --group north", 0, "OK"),
    ] {
        let mut words: Vec<&str> = words.split(' ').collect();
        words.extend(["--profile", &shop]);
        check("stockline", &words, exit, says);
    }
}

#[test]
fn who_does_not_read_ends_a_command_quietly_and_loses_no_token() {
    let desk = Desk::open();
    desk.check("token shop --role channel --channel web", 0, "token = ");
    let command = |words: &str, stdout: Stdio| {
        let mut command = Command::new(program("stockline"));
        command
            .args(words.split(' '))
            .args(["--profile", &desk.profile])
            .stdout(stdout)
            .stderr(Stdio::piped());
        let output = command.output().expect("it runs");
        (output.status.code(), text(&output.stderr))
    };
    let full = || Stdio::from(File::options().write(true).open("/dev/full").expect("there"));
    let closed = || {
        let (read, write) = std::io::pipe().expect("a pipe");
        drop(read);
        Stdio::from(write)
    };
    let before = desk.shop.put("GET", "/v1/tokens/shop", Value::Null);
    let (code, said) = command("token shop --role channel --channel web", full());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("standard output cannot be written"), "{said}");
    assert_eq!(desk.shop.put("GET", "/v1/tokens/shop", Value::Null), before);
    for words in ["follow --once", "query A --channel web"] {
        let (code, said) = command(words, closed());
        assert!(code.is_some_and(|code| code < 2) && !said.contains("panic"), "{words}: {code:?} {said}");
    }
    for (stdout, due) in [(full(), 1), (closed(), 0)] {
        let printed =
            Command::new(program("stockline")).args(["serve", "--print-config"]).stdout(stdout).output();
        let printed = printed.expect("it runs");
        assert_eq!(printed.status.code(), Some(due), "{}", text(&printed.stderr));
    }
}

#[test]
fn an_import_judges_rows_one_by_one_and_reads_what_partners_write() {
    let desk = Desk::open();
    let header = "id,source,type,occurred_at,sku,node,quantity";
    let row = |id: u32, node: &str| format!("{id},s,receipt,2026-01-01T00:00:00Z,A,{node},1");
    // A warehouse's file with one row of another node.
    let profile = desk.check("token dock --role warehouse --nodes hamburg", 0, "token = ");
    let profile: String =
        profile.lines().filter(|line| line.contains(" = ")).map(|line| format!("{line}\n")).collect();
    let dock = desk.file("dock.toml", profile.as_bytes());
    let rows = (1..=2_500).map(|id| row(id, if id == 1_250 { "bremen" } else { "hamburg" }));
    let rows = [header.to_owned()].into_iter().chain(rows).collect::<Vec<_>>().join("\r\n");
    let file = desk.file("rows.csv", rows.as_bytes());
    let import = |profile: &str, more: &[&str], file: &str, exit: i32, says: &str| {
        let mut words = vec!["import", file, "--profile", profile];
        words.extend(more);
        check("stockline", &words, exit, says)
    };
    let said = import(&dock, &[], &file, 1, "applied=2499 duplicates=0 refused=1");
    assert!(said.contains("rows.csv:1251: UNKNOWN_NODE: receipt of \"A\" at \"bremen\""), "{said}");
    let said = import(&dock, &[], &file, 1, "applied=0 duplicates=2499 refused=1");
    assert!(said.contains("rows.csv:1251:"), "{said}");
    // The refused row is a dead letter, although it came over QUIC.
    let mut letters = desk.shop.put("GET", "/v1/dead-letters", Value::Null);
    while letters["total"] == 0 {
        std::thread::yield_now();
        letters = desk.shop.put("GET", "/v1/dead-letters", Value::Null);
    }
    let event = &letters["items"][0]["event"];
    assert_eq!(
        (&letters["total"], &event["node"], &event["sku"]),
        (&json!(1), &json!("bremen"), &json!("A")),
        "{letters}"
    );
    let redrive = format!("/v1/dead-letters/{}/redrive", letters["items"][0]["id"].as_str().expect("an id"));
    assert_eq!(desk.shop.put("POST", &redrive, json!({ "adopt": true }))["status"], "applied");
    assert_eq!(desk.shop.put("GET", "/v1/positions/A/bremen", Value::Null)["free"], 1);

    // Imported again when its node is known, a row takes its letter with it.
    let late = desk.file("late.csv", format!("{header}\n{}\n", row(8_001, "late")).as_bytes());
    import(&desk.profile, &[], &late, 1, "applied=0 duplicates=0 refused=1");
    assert_eq!(desk.shop.put("GET", "/v1/dead-letters", Value::Null)["total"], 1);
    desk.shop.put("PUT", "/v1/nodes/late", json!({}));
    import(&desk.profile, &[], &late, 0, "applied=1 duplicates=0 refused=0");
    assert_eq!(desk.shop.put("GET", "/v1/dead-letters", Value::Null)["total"], 0);

    let json_row = |id: &str| {
        format!(
            r#"{{"id":"{id}","source":"j","type":"receipt","occurred_at":"2026-01-01T00:00:00Z","sku":"A","node":"bremen","quantity":1}}"#
        )
    };
    for (content, exit, says) in [
        (format!("\u{feff}{}", json_row("1")), 0, "applied=1"),
        (format!("[{},\n{}]", json_row("2"), json_row("3")), 0, "applied=2"),
        ("\u{feff}".to_owned(), 2, "the input is empty"),
        (String::new(), 2, "the input is empty"),
        ("[]".to_owned(), 2, "there are no events in it"),
        (
            format!(
                "{}\n{}",
                header.replace(',', ";").to_uppercase(),
                row(9_001, "bremen").replace(',', ";")
            ),
            0,
            "applied=1",
        ),
        (json_row("\\u0000x"), 2, "has control characters"),
        (
            json_row("7").replace("bremen", "\\u001b[31mred"),
            2,
            r#"node: "\u{1b}[31mred" has control characters"#,
        ),
        (json_row("8").replace(":1}", ":1.5}"), 2, "quantity: \"1.5\" is not a whole number"),
    ] {
        let file = desk.file("some", content.as_bytes());
        let said = import(&desk.profile, &[], &file, exit, says);
        assert!(!said.contains('\u{1b}'), "{said:?}");
    }
    let map = "[columns]\nArtikel = \"sku\"\nLager = \"node\"\nMenge = \"quantity\"\nBeleg = \"id\"\nArt = \"type\"\nNotiz = \"\"\n\
               [values.type]\nWE = \"receipt\"\n[values.node]\nHB = \"bremen\"\n\
               [defaults]\nsource = \"erp\"\noccurred_at = \"2026-01-01T00:00:00Z\"\n";
    let map = desk.file("map.toml", map.as_bytes());
    let file = desk.file("erp.csv", b"Beleg;Art;Artikel;Lager;Menge;Notiz\n4711;WE;B;HB;12,0;x\n");
    import(&desk.profile, &["--map", &map], &file, 2, "quantity: \"12,0\" is not a whole number");
    let file = desk.file("erp.csv", b"Beleg;Art;Artikel;Lager;Menge;Notiz\n4711;WE;B;HB;12;x\n");
    import(&desk.profile, &["--map", &map], &file, 0, "applied=1");
    assert_eq!(desk.shop.put("GET", "/v1/positions/B/bremen", Value::Null)["free"], 12);
}

#[test]
fn an_import_needs_as_little_memory_for_much_as_for_little() {
    let dir = tempfile::tempdir().expect("a directory");
    let header = "id,source,type,occurred_at,sku,node,quantity\n";
    let mut field = header.as_bytes().to_vec();
    field.extend_from_slice(b"1,s,receipt,2026-01-01T00:00:00Z,");
    field.resize(40 << 20, b'x');
    let line = [b"{\"id\":\"".to_vec(), vec![b'y'; 40 << 20]].concat();
    let bad = [header.as_bytes(), &b"1,s,receipt,2026-01-01T00:00:00Z,A,n,ten\n".repeat(1 << 20)].concat();
    for (name, content) in [("field.csv", field), ("line.json", line), ("bad.csv", bad)] {
        let file = dir.path().join(name);
        std::fs::write(&file, &content).expect("written");
        let limited =
            format!("ulimit -v 262144; exec {} import {}", program("stockline").display(), file.display());
        let output = Command::new("sh").args(["-c", &limited]).output().expect("it runs");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {said:.300}");
        assert!(said.len() < 8_192, "{name}: {} bytes are said", said.len());
    }
}

#[test]
fn callers_of_the_control_socket_do_not_wait_for_one_another() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let serving = serve(&data, &[]);
    let idle: Vec<UnixStream> =
        (0..50).map(|_| UnixStream::connect(data.join("control.sock")).expect("connects")).collect();
    check("stockline", &["backup", "--data", path(&data), path(&dir.path().join("copy"))], 0, "anchor=");
    drop(idle);
    let long = format!("backup /{}\n", "x".repeat(9_000));
    let mut stream = UnixStream::connect(data.join("control.sock")).expect("connects");
    // It may be told so before it has sent all of it.
    let _ = stream.write_all(long.as_bytes());
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.contains("longer than 8192 bytes"), "{answer:?}");
    serving.terminate();
}

#[test]
fn a_copy_deletes_nothing_that_is_not_its_own_and_says_what_it_is_of() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let shop = Shop::open(&data, &[]);
    shop.put("PUT", "/v1/channels/web", json!({}));
    shop.put("PUT", "/v1/tokens/shop", json!({ "role": "channel", "channel": "web" }));
    let to = dir.path().join("copy");
    let foreign = dir.path().join("copy.part");
    std::fs::create_dir(&foreign).expect("made");
    std::fs::write(foreign.join("diary"), "mine").expect("written");
    let backups: Vec<_> = (0..4)
        .map(|_| {
            let mut backup = Command::new(program("stockline"));
            backup
                .args(["backup", "--data", path(&data), path(&to)])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            backup.spawn().expect("it starts")
        })
        .collect();
    let codes: Vec<_> =
        backups.into_iter().map(|backup| backup.wait_with_output().expect("ends").status.code()).collect();
    assert_eq!(
        codes.iter().filter(|code| **code == Some(0)).count(),
        1,
        "one makes it, the others say that it is there: {codes:?}"
    );
    assert_eq!(std::fs::read_to_string(foreign.join("diary")).expect("there"), "mine");
    let restored: Vec<_> = (0..4)
        .map(|_| {
            let mut restore = Command::new(program("stockline"));
            restore.args(["restore", "--from", path(&to), "--data", path(&dir.path().join("restored"))]);
            restore.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
        })
        .map(|restore| restore.wait_with_output().expect("ends"))
        .collect();
    assert_eq!(restored.iter().filter(|output| output.status.code() == Some(0)).count(), 1);
    let said = text(&restored[0].stderr);
    assert!(
        said.contains("the backup is of server ") && said.contains("these tokens are good as they were then"),
        "{said}"
    );
    assert!(said.contains("admin, shop"), "{said}");
    check("stockline", &["verify", "--data", path(&dir.path().join("restored"))], 0, "last_lsn=");
    let left = std::fs::read_dir(dir.path()).expect("readable");
    let left = left.map(|entry| entry.expect("readable").file_name().into_string().expect("text"));
    assert_eq!(left.filter(|name| name.contains(".part-")).count(), 0);
    // Restored without tokens, the old ones are worth nothing; another name is not for the old certificate.
    let fresh = dir.path().join("fresh");
    check(
        "stockline",
        &["restore", "--from", path(&to), "--data", path(&fresh), "--revoke-tokens"],
        0,
        "anchor=",
    );
    check(
        "stockline",
        &["serve", "--data", path(&fresh), "--server-name", "stock.example"],
        3,
        "is not for \"stock.example\"",
    );
    let old = shop.token.clone();
    let fresh = Shop::open(&fresh, &[]);
    assert_eq!(fresh.call(&old, "GET", "/v1/me", Value::Null).0, 401);
    assert_eq!(fresh.put("GET", "/v1/tokens/shop", Value::Null)["revoked"], true);
}

#[test]
fn a_server_whose_standard_error_nobody_can_write_goes_on() {
    for broken in ["closed", "full"] {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("data");
        let stderr = if broken == "full" {
            Stdio::from(File::options().write(true).open("/dev/full").expect("there"))
        } else {
            let (read, write) = std::io::pipe().expect("a pipe");
            drop(read);
            Stdio::from(write)
        };
        let mut command = Command::new(program("stockline"));
        command
            .args(["serve", "--log", "debug", "--quic", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data"])
            .arg(&data);
        let mut child = command.stdout(Stdio::piped()).stderr(stderr).spawn().expect("starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("a line");
        let (quic, http) =
            line.strip_prefix("ready quic=").and_then(|rest| rest.split_once(" http=")).expect("ready");
        let serving = crate::binary::Serving { child, quic: quic.into(), http: http.trim().into() };
        let shop = Shop::around(serving, &data);
        for _ in 0..20 {
            assert_eq!(shop.call("nobody", "GET", "/v1/me", Value::Null).0, 401);
        }
        assert_eq!(shop.put("GET", "/v1/me", Value::Null)["name"], "admin");
        let mut metrics = shop.send("GET", "/metrics", &[], None);
        let metrics = metrics.body_mut().read_to_string().expect("text");
        let lost = metrics
            .lines()
            .find(|line| line.starts_with("stockline_log_lines_lost_total "))
            .expect("a metric");
        assert!(!lost.ends_with(" 0"), "{lost}");
        shop.serving.terminate();
    }
}

#[test]
fn a_flipped_bit_is_found_by_verify_and_by_the_server() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let shop = Shop::open(&data, &["--retain-journal"]);
    shop.put("PUT", "/v1/nodes/n", json!({}));
    let events: Vec<Value> = (0..200)
        .map(|id| {
            json!({ "id": id.to_string(), "source": "s", "type": "receipt", "occurred_at": "2026-01-01T00:00:00Z",
                    "sku": format!("S{id}"), "node": if id % 20 == 0 { "nowhere" } else { "n" }, "quantity": 5 })
        })
        .collect();
    shop.put("POST", "/v1/events", json!({ "events": events }));
    shop.serving.terminate();
    let sound = text(&run("stockline", &["verify", "--data", path(&data)]).stdout);
    let mut seed = 7u64;
    let mut damaged = 0;
    for file in ["snapshot.redb", "letters.redb"] {
        let whole = std::fs::read(data.join(file)).expect("readable");
        for _ in 0..40 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let mut bytes = whole.clone();
            let at = (seed >> 33) as usize % bytes.len();
            bytes[at] ^= 1 << (seed >> 29 & 7);
            std::fs::write(data.join(file), &bytes).expect("written");
            let output = run("stockline", &["verify", "--data", path(&data)]);
            let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
            match output.status.code() {
                // It hit what nobody reads.
                Some(0) => assert_eq!(text(&output.stdout), sound, "{file} at {at}"),
                Some(1 | 3) => {
                    damaged += 1;
                    assert!(!said.contains("broken invariant"), "{file} at {at}: {said}");
                }
                code => panic!("{file} at {at}: {code:?} {said}"),
            }
        }
        std::fs::write(data.join(file), &whole).expect("written");
    }
    assert!(damaged > 0, "some of them hit something");
    std::fs::write(data.join("letters.redb"), "garbage").expect("written");
    check("stockline", &["verify", "--data", path(&data)], 1, "dead letters");
    check("stockline", &["serve", "--data", path(&data)], 3, "dead letters");
}

#[test]
fn the_lines_of_the_readme_run_as_they_stand() {
    let readme = include_str!("../../README.md");
    let lines =
        readme.split("## Use it").nth(1).and_then(|rest| rest.split("```sh\n").nth(1)).expect("a block");
    let lines = lines.split("```").next().expect("it ends");
    assert!(lines.lines().count() >= 15);
    let dir = tempfile::tempdir().expect("a directory");
    let serving = serve(&dir.path().join("stockline-data"), &[]);
    let programs = program("stockline").parent().expect("a folder").to_owned();
    let search = format!("{}:{}", programs.display(), std::env::var("PATH").expect("a path"));
    for line in lines.lines() {
        let output =
            Command::new("sh").args(["-c", line]).current_dir(dir.path()).env("PATH", &search).output();
        let output = output.expect("it runs");
        assert!(output.status.success(), "{line}: {}{}", text(&output.stdout), text(&output.stderr));
    }
    serving.terminate();
}

/// Sends one receipt that happens now by the true clock; answers what became of it.
fn receipt_of_now(shop: &Shop, id: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let now = jiff::Timestamp::from_millisecond(now.as_millis() as i64).expect("a moment");
    let event = json!({ "id": id, "source": "s", "type": "receipt", "occurred_at": now.to_string(), "sku": "A", "node": "n",
                        "quantity": 5 });
    let told = shop.put("POST", "/v1/events", json!({ "events": [event] }));
    let told = &told["results"][0];
    told["code"].as_str().or(told["status"].as_str()).expect("text").to_owned()
}

#[test]
fn a_clock_that_is_wrong_poisons_nothing_and_one_that_is_set_right_is_followed() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let file = dir.path().join("clock");
    let year = 365 * 86_400_000i64;
    // Whole at once: the server reads it at any moment.
    let set_clock = |ms: &str| {
        let new = dir.path().join("clock.new");
        std::fs::write(&new, ms).and_then(|()| std::fs::rename(&new, &file)).expect("written");
    };
    set_clock("0");
    let environment = || [("STOCKLINE_CLOCK_FILE", path(&file).to_owned())];
    let shop = Shop::around(crate::binary::serve_with(&data, &[], &environment()), &data);
    shop.put("PUT", "/v1/nodes/n", json!({}));
    shop.put("PUT", "/v1/channels/web", json!({}));
    assert_eq!(receipt_of_now(&shop, "1"), "applied");
    shop.serving.terminate();
    // A year ahead it does not start, unless somebody says that this is right.
    let start = |clock: i64, more: &[&str]| {
        let mut command = Command::new(program("stockline"));
        command
            .args(["serve", "--quic", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data"])
            .arg(&data)
            .args(more);
        command.env("STOCKLINE_CLOCK_MS", clock.to_string()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = command.output().expect("it runs");
        (output.status.code(), text(&output.stderr))
    };
    let (code, said) = start(year, &[]);
    assert!(code == Some(3) && said.contains("--accept-clock"), "{code:?} {said}");
    let (code, said) = start(2 * 3_600_000, &[]);
    assert!(code == Some(3) && said.contains(" s ahead of when"), "{code:?} {said}");
    // An hour slow, then set right while it runs.
    set_clock("-3600000");
    let shop = Shop::around(crate::binary::serve_with(&data, &[], &environment()), &data);
    let hold = json!({ "id": "00000000-0000-4000-8000-000000000001", "channel": "web", "ttl_ms": 1_800_000,
                       "lines": [{ "sku": "A", "quantity": 1 }] });
    shop.put("POST", "/v1/reservations", hold);
    set_clock("3600000");
    let clock = || {
        let mut ready = shop.send("GET", "/readyz", &[], None);
        serde_json::from_str::<Value>(&ready.body_mut().read_to_string().expect("text")).expect("JSON")["clock"].clone()
    };
    while clock()["jumps"].as_u64().expect("a number") == 0 {
        std::thread::yield_now();
    }
    assert!(clock()["offset_ms"].as_i64().expect("a number") > 3_000_000, "{}", clock());
    // The wall clock says what is now, and no hold ends early.
    set_clock("0");
    assert_eq!(receipt_of_now(&shop, "2"), "applied");
    let held = shop.put("GET", "/v1/reservations/00000000-0000-4000-8000-000000000001", Value::Null);
    assert_eq!(held["state"], "held");
    shop.serving.terminate();
    check("stockline", &["verify", "--data", path(&data)], 0, "last_lsn=");
}
