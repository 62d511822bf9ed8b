//! One canonical event as text, JSON or CSV, on its way to the wire. Every error names field and reason.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stockline_core::bucket::Bucket;
use stockline_core::event::{EventKind, StockEvent};
use stockline_core::id::{Key, Millis, NodeId, ReservationId, SkuId, SupplyId};
use stockline_core::limit;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// The fields of docs/protocol.md's canonical event. All text may be missing where its type does not need it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventRow {
    pub id: String,
    pub source: String,
    #[serde(rename = "type")]
    #[schemars(extend("enum" = [
        "receipt", "pick", "ship", "adjustment", "count", "transfer_dispatched", "transfer_received", "return",
        "supply", "status_change"
    ]))]
    pub kind: String,
    #[schemars(extend("format" = "date-time"))]
    pub occurred_at: String,
    pub sku: String,
    pub node: String,
    pub quantity: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supply: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_node: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The source's own count, one more with each event: `/metrics` tells how many are missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
}

/// A row whose every field makes sense; only its names have no ids yet.
#[derive(Clone, Debug)]
pub struct ParsedRow {
    pub key: Key,
    pub kind: EventKind,
    pub occurred_at_ms: u64,
    pub sku: String,
    pub node: String,
    pub quantity: i64,
    pub reason: [u8; 16],
    pub reservation: Option<ReservationId>,
    pub supply: Option<SupplyId>,
    pub to_node: Option<String>,
    pub eta_ms: u64,
    pub damaged: u32,
    pub expected: Option<i64>,
    pub from: Bucket,
    pub to: Bucket,
}

/// The key of an event: its source and id as one number.
pub fn key_of(source: &str, id: &str) -> Key {
    Key(xxh3_128(format!("{source}\0{id}").as_bytes()).max(1))
}

/// A moment as text has it, in milliseconds since 1970.
pub fn moment(field: &str, text: &str) -> Result<u64, String> {
    let moment: jiff::Timestamp = text
        .parse()
        .map_err(|_| format!("{field}: {text:?} is no RFC 3339 time such as 2026-01-31T12:00:00Z"))?;
    u64::try_from(moment.as_millisecond()).map_err(|_| format!("{field}: {text} lies before 1970"))
}

fn bucket(field: &str, text: Option<&str>) -> Result<Bucket, String> {
    match text {
        None => Ok(Bucket::Free),
        Some(text) => Bucket::from_name(text).ok_or_else(|| {
            format!("{field}: {text:?} is no bucket; use free, safety, damaged, quality or blocked")
        }),
    }
}

fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

impl ParsedRow {
    /// With the ids behind its names; `node` answers the one that nobody has for a name without, so that the
    /// refusal is the ledger's, and recorded.
    pub fn event(&self, sku: SkuId, node: impl Fn(&str) -> NodeId) -> StockEvent {
        StockEvent {
            reservation: self.reservation,
            supply: self.supply,
            to_node: self.to_node.as_deref().map_or(NodeId::ANY, &node),
            eta: Millis(self.eta_ms),
            damaged: self.damaged,
            expected: self.expected,
            from: self.from,
            to: self.to,
            reason: self.reason,
            ..StockEvent::new(self.kind, sku, node(&self.node), self.quantity, Millis(self.occurred_at_ms))
        }
    }
}

impl EventRow {
    pub fn parse(&self) -> Result<ParsedRow, String> {
        for (field, text) in
            [("id", &self.id), ("source", &self.source), ("sku", &self.sku), ("node", &self.node)]
        {
            if text.is_empty() {
                return Err(format!("{field}: is empty"));
            }
        }
        for (field, text) in [
            ("id", Some(&self.id)),
            ("source", Some(&self.source)),
            ("node", Some(&self.node)),
            ("occurred_at", Some(&self.occurred_at)),
            ("supply", self.supply.as_ref()),
            ("to_node", self.to_node.as_ref()),
            ("eta", self.eta.as_ref()),
        ] {
            if text.is_some_and(|text| text.len() > limit::EVENT_TEXT_BYTES_MAX) {
                return Err(format!("{field}: is longer than {} bytes", limit::EVENT_TEXT_BYTES_MAX));
            }
        }
        if !stockline_core::catalogue::Catalogue::is_name(&self.sku) {
            return Err(format!("sku: {:?} is no name (1 to 64 bytes, no control characters)", self.sku));
        }
        let kind = EventKind::from_name(&self.kind).ok_or_else(|| {
            let names: Vec<_> = stockline_core::event::KINDS.iter().map(|kind| kind.name()).collect();
            format!("type: {:?} is none of {}", self.kind, names.join(", "))
        })?;
        let reservation = match given(&self.reservation) {
            None => None,
            Some(text) => {
                let id =
                    uuid::Uuid::parse_str(text).map_err(|_| format!("reservation: {text:?} is no UUID"))?;
                Some(ReservationId(id.as_u128()))
            }
        };
        let mut reason = [0; 16];
        if let Some(text) = given(&self.reason) {
            let bytes = text.as_bytes();
            if bytes.len() > reason.len() {
                return Err(format!("reason: {text:?} is longer than 16 bytes"));
            }
            reason[..bytes.len()].copy_from_slice(bytes);
        }
        Ok(ParsedRow {
            key: key_of(&self.source, &self.id),
            kind,
            occurred_at_ms: moment("occurred_at", &self.occurred_at)?,
            sku: self.sku.clone(),
            node: self.node.clone(),
            quantity: self.quantity,
            reason,
            reservation,
            supply: given(&self.supply)
                .map(|text| SupplyId(text.parse().unwrap_or_else(|_| xxh3_64(text.as_bytes())))),
            to_node: given(&self.to_node).map(str::to_owned),
            eta_ms: match given(&self.eta) {
                Some(text) => moment("eta", text)?,
                None => 0,
            },
            damaged: self.damaged.unwrap_or(0),
            expected: self.expected,
            from: bucket("from", given(&self.from))?,
            to: bucket("to", given(&self.to))?,
        })
    }
}
