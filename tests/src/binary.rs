//! `stockline` and `loadgen` as a user runs them.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// Builds the programs once and answers the path of one of them.
pub(crate) fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let directory = BUILT.get_or_init(|| {
        let test = std::env::current_exe().expect("this test is a program");
        let directory = test.parent().and_then(Path::parent).expect("target/PROFILE/deps").to_owned();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--bins", "-p", "stockline-server", "-p", "stockline-loadgen"]);
        cargo.args(["--features", "stockline-server/drill,stockline-server/otel"]);
        if directory.ends_with("release") {
            cargo.arg("--release");
        }
        // What cargo says of this test: crates that look at such names would be built anew, each time.
        let of_this = ["CARGO_PKG_", "CARGO_MANIFEST_"];
        let names = std::env::vars().map(|(name, _)| name);
        names.filter(|name| of_this.iter().any(|of| name.starts_with(of))).for_each(|name| {
            cargo.env_remove(name);
        });
        let built = cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).status();
        assert!(built.expect("cargo runs").success(), "the programs are built");
        directory
    });
    directory.join(name)
}

/// A server that is killed when it is dropped.
pub(crate) struct Serving {
    pub(crate) child: Child,
    pub(crate) quic: String,
    pub(crate) http: String,
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn serve(data: &Path, more: &[&str]) -> Serving {
    serve_with(data, more, &[])
}

/// With more in its environment.
pub(crate) fn serve_with(data: &Path, more: &[&str], environment: &[(&str, String)]) -> Serving {
    let mut command = Command::new(program("stockline"));
    command.arg("serve").arg("--data").arg(data);
    if !more.contains(&"--quic") {
        command.args(["--quic", "127.0.0.1:0"]);
    }
    command
        .args(["--http", "127.0.0.1:0"])
        .args(more)
        .envs(environment.iter().map(|(name, value)| (*name, value)));
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("stockline starts");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("piped");
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    let quic = line
        .strip_prefix("ready quic=")
        .and_then(|rest| rest.split_once(" http="))
        .unwrap_or_else(|| panic!("{line:?} is no ready line"));
    Serving { child, quic: quic.0.to_owned(), http: quic.1.trim().to_owned() }
}

impl Serving {
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill runs").success());
    }

    pub(crate) fn terminate(mut self) {
        self.signal("-TERM");
        assert_eq!(self.child.wait().expect("ends").code(), Some(0));
    }
}

pub(crate) fn run(name: &str, arguments: &[&str]) -> Output {
    Command::new(program(name)).args(arguments).stdin(Stdio::null()).output().expect("it runs")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs it and compares exit code and a piece of what it says.
#[track_caller]
pub(crate) fn check(name: &str, arguments: &[&str], exit: i32, says: &str) -> String {
    let output = run(name, arguments);
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {said}");
    assert!(said.contains(says), "{arguments:?} says {said:?}, not {says:?}");
    said
}

fn state_hash(data: &Path) -> String {
    let said = check("stockline", &["verify", "--data", path(data)], 0, "state_hash=");
    said.lines().find(|line| line.starts_with("last_lsn=")).expect("a line").to_owned()
}

fn path(path: &Path) -> &str {
    path.to_str().expect("plain")
}

#[test]
fn the_demo_answers_and_stops_cleanly() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let server = serve(&data, &["--demo", "--retain-journal"]);
    let profile = data.join("client.toml");
    let query = ["query", "85123A", "--channel", "United Kingdom", "--profile", path(&profile)];
    check("stockline", &query, 0, "85123A available=3552 status=in_stock as_of_lsn=");
    let query = ["query", "NOPE", "--channel", "Germany", "--profile", path(&profile)];
    check("stockline", &query, 1, "no sku \"NOPE\"");
    let query = ["query", "85123A", "--channel", "Mars", "--profile", path(&profile)];
    check("stockline", &query, 1, "no channel \"Mars\"");
    check("stockline", &["verify", "--data", path(&data)], 3, "in use by another process");
    for file in
        ["ca.pem", "server.pem", "server.key", "admin.token", "client.toml", "journal.redb", "snapshot.redb"]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(data.join(file)).expect(file).permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file} is for its owner only");
    }
    server.terminate();
    let clean = state_hash(&data);
    // A second start with the demo changes nothing but knows everything.
    let server = serve(&data, &["--demo", "--shards", "4", "--retain-journal"]);
    drop(server);
    assert_eq!(state_hash(&data), clean, "a kill changes nothing");
}

/// Lets the programs run for a while before something is done to them.
#[expect(clippy::disallowed_methods, reason = "a kill comes at a moment that nobody announces")]
fn let_run(time: Duration) {
    std::thread::sleep(time);
}

#[test]
fn real_orders_survive_kills_at_one_and_four_shards() {
    for shards in ["1", "4"] {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("data");
        let server = serve(&data, &["--shards", shards, "--retain-journal"]);
        let quic = server.quic.clone();
        let profile = data.join("client.toml");
        let orders = concat!(env!("CARGO_MANIFEST_DIR"), "/data/orders.csv");
        let json = dir.path().join("report.json");
        let mut loadgen = Command::new(program("loadgen"))
            .args(["run", "--scenario", "replay", "--file", orders, "--in-flight", "3", "--profile"])
            .arg(&profile)
            .arg("--json")
            .arg(&json)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("loadgen starts");
        // A program that has never reached its server gives up at once, as it should.
        let mut errors = BufReader::new(loadgen.stderr.take().expect("piped"));
        let mut told = String::new();
        while !told.contains("connected to") {
            assert!(errors.read_line(&mut told).expect("text") > 0, "loadgen ends: {told}");
        }
        let errors = std::thread::spawn(move || {
            errors.read_to_string(&mut told).expect("text");
            told
        });
        let mut serving = Some(server);
        for wait in [120, 60, 40] {
            let_run(Duration::from_millis(wait));
            drop(serving.take());
            serving = Some(serve(&data, &["--shards", shards, "--retain-journal", "--quic", &quic]));
        }
        let mut said = String::new();
        loadgen.stdout.take().expect("piped").read_to_string(&mut said).expect("text");
        let ended = loadgen.wait().expect("ends");
        let told = errors.join().expect("read to its end");
        assert!(ended.success(), "{said}{told}");
        assert!(said.contains("audit ok") && said.contains(" 0 wrong"), "{said}");
        assert!(said.contains("skipped 9 rows: POST: carriage"), "skipped rows are counted: {said}");
        let report: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(&json).expect("a report")).expect("json");
        assert_eq!((&report["audit"]["ok"], &report["audit"]["wrong"]), (&true.into(), &0.into()));
        let count = |op: &str| {
            let results = report["results"].as_array().expect("results");
            let found = results.iter().find(|result| result["op"] == op).expect(op);
            (found["count"].as_u64().expect("a number"), found["refused"].as_u64().expect("a number"))
        };
        assert!(count("reserve").1 > 0, "some invoices are short");
        assert_eq!(count("confirm").0, count("reserve").0 - count("reserve").1);
        assert!(count("return").0 > 0 && count("adjust").0 > 0);
        drop(serving.take());
        let killed = state_hash(&data);
        serve(&data, &["--shards", shards, "--retain-journal", "--quic", &quic]).terminate();
        assert_eq!(state_hash(&data), killed, "killed, stopped cleanly, replayed: the same state");
    }
}

#[test]
fn events_are_imported_once_and_bad_rows_change_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let server = serve(&data, &[]);
    let profile = data.join("client.toml");
    let profile = path(&profile);
    check("stockline", &["define", "node", "main", "--profile", profile], 0, "main changed id=0");
    check("stockline", &["define", "channel", "web", "--profile", profile], 0, "web changed id=0");
    check(
        "stockline",
        &["define", "channel", "web", "--group", "x", "--profile", profile],
        1,
        "UNKNOWN_GROUP",
    );
    let file = dir.path().join("events.csv");
    let import = |content: &str, exit: i32, says: &str| {
        std::fs::write(&file, content).expect("written");
        check("stockline", &["import", path(&file), "--profile", profile], exit, says)
    };
    let header = "id,source,type,occurred_at,sku,node,quantity,to\n";
    let good = format!(
        "{header}1,wms,receipt,2026-01-01T00:00:00Z,A,main,10,\n\
         2,wms,return,2026-01-01T00:00:00Z,A,main,2,damaged\n"
    );
    import(&good, 0, "applied=2 duplicates=0 refused=0");
    import(&good, 0, "applied=0 duplicates=2 refused=0");
    let bad = format!(
        "{header}3,wms,receipt,2026-01-01T00:00:00Z,A,main,5,\n\
         4,wms,recipt,2026-01-01T00:00:00Z,A,main,5,\n\
         5,wms,receipt,yesterday,A,main,5,\n\
         6,wms,receipt,2026-01-01T00:00:00Z,A,main,many,\n"
    );
    let said = import(&bad, 2, "nothing was sent");
    for piece in
        ["events.csv:3: type: \"recipt\"", "events.csv:4: occurred_at: \"yesterday\"", "events.csv:5:"]
    {
        assert!(said.contains(piece), "{said}");
    }
    let query = ["query", "A", "--channel", "web", "--profile", profile];
    check("stockline", &query, 0, "A available=10 ");
    let json = r#"{"id":"7","source":"wms","type":"adjustment","occurred_at":"2026-01-01T00:00:00Z","sku":"A",
"node":"main","quantity":-4,"reason":"theft"}"#;
    let json = &json.replace('\n', "");
    import(json, 0, "applied=1");
    check("stockline", &query, 0, "A available=6 ");
    let refused = format!(
        "{header}8,wms,receipt,2026-01-01T00:00:00Z,A,nowhere,5,\n\
         9,wms,ship,2026-01-01T00:00:00Z,A,main,50,\n"
    );
    let said = import(&refused, 1, "applied=0 duplicates=0 refused=2");
    assert!(said.contains("events.csv:2: UNKNOWN_NODE") && said.contains(":3: INSUFFICIENT_STOCK"), "{said}");
    import("", 2, "nothing was sent");
    let token =
        run("stockline", &["token", "shop", "--role", "channel", "--channel", "web", "--profile", profile]);
    let shop = dir.path().join("shop.toml");
    std::fs::write(&shop, &token.stdout).expect("written");
    check("stockline", &["query", "A", "--channel", "web", "--profile", path(&shop)], 0, "A available=6 ");
    check("stockline", &["define", "node", "x", "--profile", path(&shop)], 1, "FORBIDDEN");
    let policy = |late: &str, exit, says| {
        let limits = ["--low", "6", "--holds-max", "9", "--customer-holds-max", "2", "--late-confirm", late];
        let define = [&["define", "channel", "web", "--profile", profile][..], &limits].concat();
        check("stockline", &define, exit, says)
    };
    policy("perhaps", 2, "possible values: refuse, reacquire");
    policy("reacquire", 0, "web changed id=0");
    policy("reacquire", 0, "web unchanged id=0");
    let low = "A available=6 status=low";
    check("stockline", &["query", "A", "--channel", "web", "--profile", path(&shop)], 0, low);
    server.terminate();
}

#[test]
fn wrong_flags_and_files_are_told_what_and_where() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = path(dir.path());
    check("stockline", &["serve", "--data", data, "--shards", "0"], 2, "shards 0: must be 1 to 64");
    check("stockline", &["serve", "--data", data, "--quic", "here"], 2, "--quic");
    let config = dir.path().join("config.toml");
    std::fs::write(&config, "shards = 2\nshrads = 3\n").expect("written");
    check("stockline", &["serve", "--config", path(&config)], 2, "shrads");
    check("stockline", &["verify", "--data", data], 3, "is it a data directory?");
    check("stockline", &["query", "A", "--channel", "c", "--profile", "/none.toml"], 2, "/none.toml");
    let profile = dir.path().join("client.toml");
    std::fs::write(&profile, "quic = \"127.0.0.1:1\"\n").expect("written");
    check("stockline", &["query", "A", "--channel", "c", "--profile", path(&profile)], 2, "missing field");
    let orders = dir.path().join("orders.csv");
    let header = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n";
    let replay = |content: &str, says: &str| {
        std::fs::write(&orders, content).expect("written");
        let profile = dir.path().join("plain.toml");
        let text = "quic = \"127.0.0.1:1\"\nserver_name = \"localhost\"\nca = \"ca.pem\"\ntoken = \"\"\n";
        std::fs::write(&profile, text).expect("written");
        let flags = ["run", "--scenario", "replay", "--profile", path(&profile), "--file", path(&orders)];
        check("loadgen", &flags, 2, says);
    };
    let row = "536365,85123A,X,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom\n";
    replay("a,b\n", "orders.csv:1: no column InvoiceNo");
    replay(
        &format!("{header}{row}536366,85123A,X,six,2010-12-01 08:26:00,1,,UK\n"),
        "orders.csv:3: Quantity",
    );
    replay(&format!("{header}{row}536366,85123A,X,6,soon,1,,UK\n"), "orders.csv:3: InvoiceDate");
    replay(&format!("{header}{row}536366,85123A,X,6\n"), "orders.csv:3:");
    replay(header, "no orders");
    check("loadgen", &["run", "--scenario", "replay"], 2, "--file");
    check("loadgen", &["run", "--scenario", "browse", "--zipf", "1.5"], 2, "--zipf");
}

#[test]
fn load_scenarios_are_audited() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let server = serve(&data, &["--shards", "4"]);
    let profile = data.join("client.toml");
    for scenario in ["browse", "checkout", "flash-sale", "warehouse", "mixed"] {
        let flags = [
            "run",
            "--scenario",
            scenario,
            "--profile",
            path(&profile),
            "--seconds",
            "0.3",
            "--skus",
            "500",
            "--batch",
            "5",
            "--in-flight",
            "8",
            "--connections",
            "2",
        ];
        let said = check("loadgen", &flags, 0, "audit ok");
        assert!(!said.contains("audit ok: 0 checked"), "{said}");
    }
    server.terminate();
    check("stockline", &["verify", "--data", path(&data)], 0, "last_lsn=");
}
