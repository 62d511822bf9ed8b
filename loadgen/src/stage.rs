//! Setting the stage: channel, nodes, skus and stock that a scenario needs, and what is there before it.

use std::io::IsTerminal;
use std::time::Instant;

use stockline_client::bucket::Bucket;
use stockline_client::catalogue::{Definition, NameKind};
use stockline_client::event::EventKind;
use stockline_client::label::{LabelKind, Labels};
use stockline_client::outcome::Code;
use stockline_client::record::{EventRec, TextRec};
use stockline_client::wire::{PlaceRec, PositionRec};
use stockline_client::{Client, EventStream};

use crate::error::LoadError;

/// An event with nothing but what every event has; `key` must not be 0.
pub fn event(key: u128, kind: EventKind, sku: u32, node: u16, quantity: i64, at_ms: u64) -> EventRec {
    EventRec {
        key,
        issued_at_ms: 0,
        occurred_at_ms: at_ms,
        reservation: 0,
        quantity,
        expected: 0,
        source: 0,
        supply: 0,
        eta_ms: 0,
        sku,
        damaged: 0,
        supply_source: 0,
        node,
        to_node: u16::MAX,
        kind: kind as u8,
        given: 0,
        from: Bucket::Free as u8,
        to: Bucket::Free as u8,
        reason: TextRec::default(),
        redrive: 0,
        other: 0,
    }
}

/// Shows how far a long step is, on a terminal and otherwise only at its end.
pub struct Progress {
    what: String,
    started: Instant,
    shown: Instant,
    terminal: bool,
}

impl Progress {
    pub fn new(what: &str) -> Progress {
        let now = Instant::now();
        Progress { what: what.into(), started: now, shown: now, terminal: std::io::stderr().is_terminal() }
    }

    pub fn at(&mut self, done: usize, of: usize) {
        let often = if self.terminal { 250 } else { 5_000 };
        if self.shown.elapsed().as_millis() >= often {
            self.shown = Instant::now();
            let (start, end) = if self.terminal { ("\r", "") } else { ("", "\n") };
            eprint!("{start}{}: {done} of {of}{end}", self.what);
        }
    }

    pub fn end(self, done: usize) {
        let start = if self.terminal { "\r" } else { "" };
        eprintln!("{start}{}: {done} in {:.1} s", self.what, self.started.elapsed().as_secs_f64());
    }
}

/// What a scenario plays with.
#[derive(Clone, Debug)]
pub struct Stage {
    pub channel: u16,
    pub nodes: Vec<u16>,
    pub skus: Vec<u32>,
}

fn ids(found: Vec<Result<u32, Code>>, what: &str) -> Result<Vec<u32>, LoadError> {
    let found: Result<Vec<u32>, Code> = found.into_iter().collect();
    found.map_err(|code| LoadError::Server(format!("{what}: {}", code.name())))
}

/// Defines nodes and channels by name; node 0 has the best priority.
pub async fn define(client: &Client, nodes: &[String], channels: &[String]) -> Result<(), LoadError> {
    let nodes = nodes.iter().enumerate().map(|(index, name)| Definition::node(name, index as u16 + 1));
    let channels = channels.iter().map(|name| Definition::channel(name));
    let definitions: Vec<Definition> = nodes.chain(channels).collect();
    let refused = client.define(&definitions).await?.into_iter().find(|outcome| outcome.code != Code::Ok);
    match refused {
        Some(outcome) => Err(LoadError::Server(format!("definitions: {}", outcome.code.name()))),
        None => Ok(()),
    }
}

/// Ids behind names that must exist.
pub async fn resolve(client: &Client, kind: NameKind, names: &[String]) -> Result<Vec<u32>, LoadError> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    ids(client.resolve(kind, &names, kind == NameKind::Sku).await?, "names")
}

impl Stage {
    /// Makes `skus` skus at `nodes` nodes, with at least `units` free at each, one sku a position in turn.
    pub async fn set(client: &Client, skus: usize, nodes: usize, units: i64) -> Result<Stage, LoadError> {
        let node_names: Vec<String> = (0..nodes).map(|index| format!("load-node-{index}")).collect();
        define(client, &node_names, &["load".into()]).await?;
        let sku_names: Vec<String> = (0..skus).map(|index| format!("load-{index}")).collect();
        let mut progress = Progress::new("skus");
        let mut sku_ids = Vec::with_capacity(skus);
        for names in sku_names.chunks(8_192) {
            sku_ids.extend(resolve(client, NameKind::Sku, names).await?);
            progress.at(sku_ids.len(), skus);
        }
        progress.end(skus);
        let node_ids = resolve(client, NameKind::Node, &node_names).await?;
        let channel = resolve(client, NameKind::Channel, &["load".into()]).await?;
        let stage = Stage {
            channel: channel[0] as u16,
            nodes: node_ids.iter().map(|id| *id as u16).collect(),
            skus: sku_ids,
        };
        stage.stock(client, units).await?;
        Ok(stage)
    }

    /// The place a sku has its stock at.
    pub fn place(&self, index: usize) -> PlaceRec {
        PlaceRec { sku: self.skus[index], node: self.nodes[index % self.nodes.len()] }
    }

    /// Every place of every sku.
    fn places(&self) -> Vec<PlaceRec> {
        (0..self.skus.len()).map(|index| self.place(index)).collect()
    }

    /// Tops up what is free at each place to `units`.
    async fn stock(&self, client: &Client, units: i64) -> Result<(), LoadError> {
        let places = self.places();
        let before = client.positions(&places).await?;
        let mut progress = Progress::new("opening stock");
        let mut stream = EventStream::new(client.clone(), 2_000, 8);
        let now = client.now_ms();
        let mut told = 0;
        for (index, (place, position)) in places.iter().zip(&before).enumerate() {
            let missing = units - position.units[0];
            if missing > 0 {
                let key = (u128::from(now) << 64) | (index as u128 + 1);
                stream.push(event(key, EventKind::Receipt, place.sku, place.node, missing, now)).await?;
                told += 1;
            }
            progress.at(index, places.len());
        }
        let refused = stream.finish().await?.into_iter().find(|outcome| outcome.code != Code::Ok);
        progress.end(told);
        match refused {
            Some(outcome) => Err(LoadError::Server(format!("opening stock: {}", outcome.code.name()))),
            None => Ok(()),
        }
    }

    /// Units at each place, as the server tells them.
    pub async fn positions(&self, client: &Client) -> Result<Vec<PositionRec>, LoadError> {
        Ok(client.positions(&self.places()).await?)
    }
}

/// What some reservations are called, by their ids.
pub fn labels(id: u128) -> Labels {
    let order = format!("order {}", id / 2);
    let texts = [(LabelKind::Order, order.as_str()), (LabelKind::Customer, "Ada")];
    Labels::of(texts.into_iter().take((id % 3) as usize)).expect("plain texts")
}
