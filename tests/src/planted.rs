//! Testing the tests: every bug of `core/src/drill.rs` is planted in turn, and every layer that docs/testing.md
//! says catches it must fail.

use std::collections::BTreeSet;
use std::io::{Read, Seek};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use stockline_core::drill::BUGS;

/// A layer that has not failed by then does not catch the bug.
const PATIENCE: Duration = Duration::from_secs(150);

/// A bug with the tests that catch it, as the table in docs/testing.md has them.
struct Row {
    bug: String,
    tests: Vec<String>,
}

fn rows() -> Vec<Row> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/testing.md"));
    let page = page.expect("the page is there");
    let quoted =
        |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let table = page.lines().skip_while(|line| !line.starts_with("| planted bug")).skip(2);
    table
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
            Row { bug: quoted(cells[0]).remove(0), tests: quoted(cells[2]) }
        })
        .collect()
}

/// Runs one test of this very program with a bug planted; whether it failed.
fn catches(bug: &str, test: &str) -> bool {
    let this = std::env::current_exe().expect("this test is a program");
    // Not a pipe: what a failing test says may be longer than a pipe holds.
    let mut said = tempfile::tempfile().expect("a file");
    let mut child = Command::new(this)
        .args(["--quiet", "--test-threads", "1", test])
        .env("STOCKLINE_BUG", bug)
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(said.try_clone().expect("a file"))
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("known") {
            break status;
        }
        if started.elapsed() > PATIENCE {
            // It hangs: whoever waits would see that, but it is not what a layer is for.
            let _ = child.kill();
            let _ = child.wait();
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    };
    let mut text = String::new();
    said.rewind().and_then(|()| said.read_to_string(&mut text)).expect("text");
    assert!(!text.contains("running 0 tests"), "{test} names no test");
    !status.success()
}

#[test]
fn every_planted_bug_is_caught_by_every_layer_that_is_said_to() {
    let rows = rows();
    let listed: BTreeSet<&str> = rows.iter().map(|row| row.bug.as_str()).collect();
    let known: BTreeSet<&str> = BUGS.iter().map(|(_, name)| *name).collect();
    assert_eq!(listed, known, "docs/testing.md lists every bug");
    for row in &rows {
        let layers: BTreeSet<&str> = row.tests.iter().filter_map(|test| test.split("::").next()).collect();
        assert!(layers.len() >= 2, "{}: at least two layers catch it, not {layers:?}", row.bug);
    }
    let open: Vec<(&str, &str)> =
        rows.iter().flat_map(|row| row.tests.iter().map(|test| (row.bug.as_str(), test.as_str()))).collect();
    let (open, missed) = (Mutex::new(open), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let next = open.lock().expect("not poisoned").pop();
                    let Some((bug, test)) = next else { return };
                    if !catches(bug, test) {
                        missed.lock().expect("not poisoned").push(format!("{bug} is not caught by {test}"));
                    }
                }
            });
        }
    });
    assert_eq!(missed.into_inner().expect("not poisoned"), Vec::<String>::new());
}
