//! Executes reservation lines, to be counted by an instruction counter. What one line costs is the difference of two
//! runs divided by the difference of their lines:
//!
//! ```text
//! cargo build --release -p stockline-benches --example lines
//! valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/examples/lines plain 100000
//! ```
//!
//! `plain`: nothing is configured. `configured`: 1,000 channels and 10,000 rules, none of them for these skus.
//! `matched`: the same, and rules that withhold 5 units of each sku from all channels and 7 from this one.
//! `planned`: the node has a cut-off and a capacity, so that every reservation is planned.

use stockline_benches::{Ground, START};
use stockline_core::catalogue::{Day, Definition, Effect};
use stockline_core::command::{Body, Command};
use stockline_core::id::Key;
use stockline_core::outcome::Code;

const SKUS: u32 = 1_000;
const FRAME: usize = 100;

fn rule(name: String, skus: &str, channel: String, units: u32) -> Definition {
    Definition::Rule {
        name,
        skus: skus.into(),
        category: String::new(),
        node: None,
        group: None,
        channel: Some(channel).filter(|channel| !channel.is_empty()),
        effect: Effect::Safety(units),
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_else(|| "plain".into());
    let lines: usize = arguments.next().and_then(|lines| lines.parse().ok()).unwrap_or(100_000);
    let mut ground = Ground::new(SKUS);
    let mut definitions = Vec::new();
    match what.as_str() {
        "plain" => {}
        "configured" | "matched" => {
            let prefix = if what == "matched" { "s" } else { "other" };
            definitions.extend((1..1_000).map(|at| Definition::channel(&format!("c{at}"))));
            // Ten for each channel: for all skus that begin so, and for nine skus of its own.
            for at in 0..1_000 {
                let channel = if at == 0 { "c".into() } else { format!("c{at}") };
                definitions.push(rule(format!("a{at}"), &format!("{prefix}*"), channel.clone(), 7));
                let own = (0..9).map(|own| (format!("b{at}-{own}"), format!("x{at}-{own}")));
                definitions.extend(own.map(|(name, sku)| rule(name, &sku, channel.clone(), 3)));
            }
            definitions.push(rule("z".into(), &format!("{prefix}*"), String::new(), 5));
        }
        "planned" => {
            let mut node = Definition::node("n", 1);
            if let Definition::Node { day, .. } = &mut node {
                *day = Day { cut_off: 56, ahead: 0, capacity: 1_000_000 };
            }
            definitions.push(node);
        }
        other => panic!("{other:?} is none of plain, configured, matched, planned"),
    }
    let define = |definition| Command {
        key: Key(0),
        issued_at: START,
        digest: 0,
        body: Body::Define(Box::new(definition)),
    };
    ground.execute(definitions.into_iter().map(define).collect(), vec![]);
    let mut granted = 0;
    for _ in 0..lines / FRAME {
        let (commands, lines) = ground.reservations(FRAME);
        let (_, output) = ground.execute(commands, lines);
        granted += output.results.iter().filter(|result| result.outcome.code == Code::Ok).count();
    }
    assert_eq!(granted, lines / FRAME * FRAME, "every line is granted");
    println!("{granted} lines");
}
