//! `serve --demo`: a small real catalogue (server/demo/README.md names its source), and what to type next.

use std::path::Path;

use stockline_client::{Client, Profile};
use stockline_core::catalogue::{Day, Definition, NameKind};
use stockline_core::command::{Body, Command};
use stockline_core::event::{EventKind, StockEvent};
use stockline_core::id::{Key, Millis, NodeId, SkuId};
use stockline_core::outcome::Code;
use stockline_core::record::EventRec;

use crate::err;
use crate::event_row::key_of;

const CATALOGUE: &str = include_str!("../../demo/catalogue.csv");
const NODES: [(&str, u16); 2] = [("warehouse", 1), ("overflow", 2)];
const CHANNELS: [&str; 6] = ["United Kingdom", "Germany", "France", "EIRE", "Spain", "Netherlands"];

/// Fills the server once; a second time changes nothing, because the events' keys are the same.
pub(super) async fn fill(profile: &Path, data: &Path) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| format!("demo: {error}");
    let profile_file = profile.display();
    let profile = Profile::load(profile).map_err(|error| text(&error))?;
    let client = Client::connect(&profile).await.map_err(|error| text(&error))?;
    let nodes = NODES.map(|(name, priority)| Definition::Node {
        name: name.into(),
        priority,
        kind: "warehouse".into(),
        timezone: "Europe/London".into(),
        at: None,
        substitutes: Vec::new(),
        day: Day::default(),
    });
    let channels = CHANNELS.map(Definition::channel);
    let definitions: Vec<Definition> = nodes.into_iter().chain(channels).collect();
    client.define(&definitions).await.map_err(|error| text(&error))?;
    let node_names = NODES.map(|(name, _)| name);
    let nodes = client.resolve(NameKind::Node, &node_names, false).await.map_err(|error| text(&error))?;

    let mut rows = Vec::new();
    for row in csv::Reader::from_reader(CATALOGUE.as_bytes()).records() {
        let row = row.map_err(|error| text(&error))?;
        rows.push((row[0].to_owned(), row[2].parse::<i64>().map_err(|error| text(&error))?));
    }
    let names: Vec<&str> = rows.iter().map(|(sku, _)| sku.as_str()).collect();
    let skus = client.resolve(NameKind::Sku, &names, true).await.map_err(|error| text(&error))?;
    let mut events = Vec::new();
    for ((name, units), sku) in rows.iter().zip(skus) {
        let sku = SkuId(sku.map_err(|code| text(&code.name()))?);
        // Most in the first place, a fifth in the second.
        let parts = [units - units / 5, units / 5];
        for ((node_name, node), part) in node_names.iter().zip(&nodes).zip(parts) {
            let node = NodeId(node.map_err(|code| text(&code.name()))? as u16);
            if part > 0 {
                let event = StockEvent::new(EventKind::Receipt, sku, node, part, Millis(1_291_161_600_000));
                let key = key_of("demo", &format!("{name}@{node_name}"));
                events.push(event_record(key, &event));
            }
        }
    }
    let receipts = events.len();
    let outcomes = client.tell(events).await.map_err(|error| text(&error))?;
    // On a server that has been used, the first receipts may have left the window of known keys.
    if outcomes.iter().any(|outcome| outcome.code != Code::Ok && outcome.code != Code::KeyTooOld) {
        return Err("demo: a receipt was refused; use an empty --data directory".into());
    }
    let program = std::env::args().next().unwrap_or_else(|| "stockline".into());
    err!("demo: {} skus, {receipts} opening receipts at 2 nodes, {} channels", rows.len(), CHANNELS.len());
    err!("data: {}", data.display());
    err!("type next:\n  {program} query 85123A --channel \"United Kingdom\" --profile {profile_file}");
    Ok(())
}

/// An event as it goes over the wire.
pub(super) fn event_record(key: Key, event: &StockEvent) -> EventRec {
    let command = Command {
        key,
        // A repeat of the demo is known, or refused.
        issued_at: Command::not_before(event.occurred_at),
        digest: 0,
        body: Body::Event(event.clone()),
    };
    // Its reason goes with it where it is sent.
    EventRec::new(&command, event, &mut Vec::new())
}
