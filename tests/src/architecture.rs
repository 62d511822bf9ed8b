//! Rules of the house that can be read off the source: who may name what, how long files may be, and that
//! every file says what it is for.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).expect("inside").display().to_string();
                found.push((name, std::fs::read_to_string(&path).expect("text")));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} has sources");
    found
}

/// Lines of code that hold a piece, comments aside.
fn naming<'a>(sources: &'a [(String, String)], piece: &str) -> Vec<&'a str> {
    let holds =
        |text: &str| text.lines().any(|line| !line.trim_start().starts_with("//") && line.contains(piece));
    sources.iter().filter(|(_, text)| holds(text)).map(|(name, _)| name.as_str()).collect()
}

#[track_caller]
fn only(folder: &str, piece: &str, allowed: &[&str]) {
    let sources = sources(folder);
    let mut found = naming(&sources, piece);
    found.retain(|name| !allowed.contains(name));
    assert!(found.is_empty(), "{piece:?} may be named in {allowed:?} only, and is in {found:?}");
    for name in allowed {
        assert!(sources.iter().any(|(file, _)| file == name), "{name} is gone: take it off the list");
    }
}

#[test]
fn the_core_has_no_clock_chance_threads_async_or_network() {
    for piece in [
        "std::time",
        "SystemTime",
        "Instant::",
        "getrandom",
        "rand::",
        "std::thread",
        "thread::",
        "tokio",
        "async ",
        ".await",
        "std::net",
        "quinn",
        "Mutex",
        "RwLock",
        "println!",
        "eprintln!",
    ] {
        only("core/src", piece, &[]);
    }
}

#[test]
fn redb_stays_behind_its_files() {
    only(
        "core/src",
        "redb::",
        &[
            "core/src/audit_trail.rs",
            "core/src/journal/file.rs",
            "core/src/letters.rs",
            "core/src/outbox.rs",
            "core/src/snapshot/row_sum.rs",
            "core/src/snapshot.rs",
        ],
    );
    for folder in ["server/src", "server/client/src", "loadgen/src"] {
        only(folder, "redb::", &[]);
    }
}

#[test]
fn the_clock_is_read_in_the_engine_only() {
    let sources = sources("server/src");
    let found = naming(&sources, "SystemTime::now");
    assert_eq!(found, ["server/src/engine/clock.rs"]);
}

#[test]
fn server_and_loadgen_never_import_each_other() {
    only("server/src", "stockline_loadgen", &[]);
    only("server/client/src", "stockline_server", &[]);
    only("loadgen/src", "stockline_server", &[]);
    // The auditor and the model believe no rule of the ledger: they may not even name it.
    for piece in ["::ledger", "::shard", "::sequencer", "::merge", "::view::", "stockline_core"] {
        only("loadgen/src", piece, &[]);
    }
}

#[test]
fn every_file_says_what_it_is_for_and_stays_readable() {
    for folder in
        ["core/src", "server/src", "server/client/src", "loadgen/src", "tests/src", "benches/benches"]
    {
        for (name, text) in sources(folder) {
            assert!(text.starts_with("//!"), "{name} begins without a module doc");
            let lines = text.lines().count();
            assert!(lines <= 800, "{name} has {lines} lines: is there a seam?");
            for line in text.lines() {
                assert!(line.chars().count() <= 160, "{name}: a line of {} characters", line.chars().count());
            }
        }
    }
}

#[test]
fn names_stay_clear_of_what_means_nothing() {
    for folder in ["core/src", "server/src", "server/client/src", "loadgen/src"] {
        for (name, _) in sources(folder) {
            for word in ["common", "utils", "util.rs", "manager", "helpers", "misc"] {
                assert!(!name.contains(word), "{name}: say what it is");
            }
        }
    }
}

#[test]
fn documents_named_by_the_readme_exist() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("a README");
    for part in readme.split("](").skip(1) {
        let link = part.split(')').next().unwrap_or_default();
        if !link.starts_with("http") {
            assert!(root().join(link).exists(), "README.md points to {link}");
        }
    }
}
