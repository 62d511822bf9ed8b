//! One canonical event as text, JSON or CSV, on its way to the wire. Every error names the field, the value as it was
//! given, and the reason.

use std::borrow::Cow;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use stockline_core::bucket::Bucket;
use stockline_core::catalogue::{Catalogue, NameKind};
use stockline_core::command::Command;
use stockline_core::event::{EventKind, Field, KINDS, StockEvent};
use stockline_core::id::{Key, Millis, NodeId, PrincipalId, ReservationId, SkuId, SourceId, SupplyId};
use stockline_core::label;
use stockline_core::limit;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::zone;

/// The fields of a canonical event (docs/http.md). All text may be missing where its type does not need it.
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
    #[schemars(length(max = 128))]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supply: Option<String>,
    /// A receipt: the `source` that announced the supply, where several announced one of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supply_source: Option<String>,
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
    /// When it was first sent; the same in each repeat. Needed for an event that happened before what repeats are known of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub sent_at: Option<String>,
    /// The source's own count, one more with each event: `/metrics` shows how many are missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
}

/// The names of an event's fields.
pub const FIELDS: [&str; 19] = [
    "id",
    "source",
    "type",
    "occurred_at",
    "sku",
    "node",
    "quantity",
    "reason",
    "reservation",
    "supply",
    "supply_source",
    "to_node",
    "eta",
    "damaged",
    "expected",
    "from",
    "to",
    "sent_at",
    "sequence",
];

/// A field that cannot be read: its name, its value as given, and why.
pub fn wrong(field: &str, value: impl AsRef<str>, reason: impl std::fmt::Display) -> String {
    let value = value.as_ref();
    let short: String = value.chars().take(80).collect();
    let cut = if short.len() < value.len() { "..." } else { "" };
    format!("{field}: {short:?}{cut} {reason}")
}

/// A row of any format: fields by name.
pub trait Fields {
    /// A field's text; `None` where there is none, or an empty one.
    fn text(&self, field: &'static str) -> Result<Option<Cow<'_, str>>, String>;

    /// A field's whole number.
    fn integer(&self, field: &'static str) -> Result<Option<i128>, String>;
}

/// A whole number as text, `10.0` included.
pub fn integer_of(field: &str, text: &str) -> Result<i128, String> {
    let whole = text.split_once('.').map_or(text, |(whole, part)| {
        if !part.is_empty() && part.bytes().all(|digit| digit == b'0') { whole } else { text }
    });
    whole.parse().map_err(|_| wrong(field, text, "is not a whole number"))
}

impl Fields for Map<String, Value> {
    fn text(&self, field: &'static str) -> Result<Option<Cow<'_, str>>, String> {
        match self.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) => Ok(Some(Cow::Borrowed(text))),
            Some(other) => Err(wrong(field, other.to_string(), "is not text; put it in quotes")),
        }
    }

    fn integer(&self, field: &'static str) -> Result<Option<i128>, String> {
        match self.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Number(number)) => match (number.as_i128(), number.as_f64()) {
                (Some(whole), _) => Ok(Some(whole)),
                // What JSON Schema calls an integer: 5.0 is one. Larger ones have lost digits.
                (None, Some(float)) if float.fract() == 0.0 && float.abs() < 9e15 => Ok(Some(float as i128)),
                _ => Err(wrong(field, number.to_string(), "is not a whole number")),
            },
            Some(other) => Err(wrong(field, other.to_string(), "is not a number")),
        }
    }
}

impl EventRow {
    /// A row of any format. What is no field of an event the caller finds.
    pub fn read(fields: &impl Fields) -> Result<EventRow, String> {
        let text = |field| fields.text(field).map(|text| text.map(Cow::into_owned));
        let needed =
            |field: &'static str| text(field)?.ok_or_else(|| format!("{field}: is missing or empty"));
        fn bounded<T: TryFrom<i128>>(field: &str, number: Option<i128>) -> Result<Option<T>, String> {
            let bound = |number: i128| T::try_from(number);
            let found = number.map(bound).transpose();
            found.map_err(|_| wrong(field, number.unwrap_or(0).to_string(), "is out of range"))
        }
        let quantity = bounded("quantity", fields.integer("quantity")?)?;
        Ok(EventRow {
            id: needed("id")?,
            source: needed("source")?,
            kind: needed("type")?,
            occurred_at: needed("occurred_at")?,
            sku: needed("sku")?,
            node: needed("node")?,
            quantity: quantity.ok_or("quantity: is missing or empty")?,
            reason: text("reason")?,
            reservation: text("reservation")?,
            supply: text("supply")?,
            supply_source: text("supply_source")?,
            to_node: text("to_node")?,
            eta: text("eta")?,
            damaged: bounded("damaged", fields.integer("damaged")?)?,
            expected: bounded("expected", fields.integer("expected")?)?,
            from: text("from")?,
            to: text("to")?,
            sent_at: text("sent_at")?,
            sequence: bounded("sequence", fields.integer("sequence")?)?,
        })
    }

    /// A row of an event that came without names; `name` finds them.
    pub fn of(
        command: &Command,
        event: &StockEvent,
        name: impl Fn(NameKind, u32) -> Option<Arc<str>>,
    ) -> EventRow {
        let name = |kind, id: u32| name(kind, id).map_or_else(|| format!("#{id}"), |name| name.to_string());
        let moment = |at: Millis| {
            let moment = i64::try_from(at.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
            moment.map_or_else(String::new, |moment| moment.to_string())
        };
        let takes = |field| event.kind.takes(field);
        EventRow {
            id: uuid::Uuid::from_u128(command.key.0).to_string(),
            source: format!("#{}", event.source.name_number()),
            kind: event.kind.name().to_owned(),
            occurred_at: moment(event.occurred_at),
            sku: name(NameKind::Sku, event.sku.0),
            node: name(NameKind::Node, u32::from(event.node.0)),
            quantity: event.quantity,
            reason: Some(event.reason.to_string()).filter(|text| !text.is_empty()),
            reservation: event.reservation.map(|id| uuid::Uuid::from_u128(id.0).to_string()),
            supply: event.supply.map(|supply| format!("#{}", supply.name())),
            supply_source: (event.supply_source != 0).then(|| format!("#{}", event.supply_source)),
            to_node: (event.to_node != NodeId::ANY).then(|| name(NameKind::Node, u32::from(event.to_node.0))),
            eta: (event.eta != Millis(0)).then(|| moment(event.eta)),
            damaged: (event.damaged != 0).then_some(event.damaged),
            expected: event.expected,
            from: takes(Field::From).then(|| event.from.name().to_owned()),
            to: takes(Field::To).then(|| event.to.name().to_owned()),
            sent_at: None,
            sequence: None,
        }
    }

    /// A row as JSON text.
    pub fn from_json(text: &str) -> Result<EventRow, String> {
        // As it should be it is read at once; what is wrong with another is found field by field.
        if let Ok(row) = serde_json::from_str(text) {
            return Ok(row);
        }
        match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => EventRow::from_map(&fields),
            Ok(other) => Err(wrong("event", other.to_string(), "is not an object")),
            Err(error) => Err(format!("it is not JSON: {error}")),
        }
    }

    /// A row as a JSON object.
    pub fn from_map(fields: &Map<String, Value>) -> Result<EventRow, String> {
        if let Some((name, value)) = fields.iter().find(|(name, _)| !FIELDS.contains(&name.as_str())) {
            let reason =
                format!("is given, but an event has no field {name:?}; its fields are {}", FIELDS.join(", "));
            return Err(wrong(
                &name.chars().take(40).collect::<String>().escape_debug().to_string(),
                value.to_string(),
                reason,
            ));
        }
        EventRow::read(fields)
    }
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
    pub reason: Box<str>,
    pub reservation: Option<Called>,
    /// The text that its id was found by, and whether it is that of several.
    pub called_so: Option<Box<str>>,
    pub is_ambiguous: bool,
    pub source: SourceId,
    pub supply: Option<SupplyId>,
    pub supply_source: u32,
    pub to_node: Option<String>,
    pub eta_ms: u64,
    /// The moment before which it was not sent.
    pub not_before: Millis,
    pub damaged: u32,
    pub expected: Option<i64>,
    pub from: Bucket,
    pub to: Bucket,
}

/// How an event names its reservation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Called {
    Id(ReservationId),
    /// Its key, order or reference: which it is, the server knows.
    Text(Box<str>),
}

impl Called {
    /// Its id; of a text, one that nobody has.
    fn id(&self) -> Option<ReservationId> {
        match self {
            Called::Id(id) => Some(*id),
            Called::Text(_) => Some(ReservationId(u128::MAX)),
        }
    }
}

/// The number of a UUID as text: 36 characters with hyphens, and nothing else.
pub fn uuid_number(text: &str) -> Option<u128> {
    let number = uuid::Uuid::parse_str(text).ok().filter(|_| text.len() == 36).map(|uuid| uuid.as_u128());
    number.filter(|number| *number > 0)
}

/// The key of an event: its source and id as one number.
pub fn key_of(source: &str, id: &str) -> Key {
    Key(xxh3_128(format!("{source}\0{id}").as_bytes()).max(1))
}

/// A moment as text has it, in milliseconds since 1970.
pub fn moment(field: &str, text: &str) -> Result<u64, String> {
    // In a query `+` means a space: an offset that came as one is meant as written.
    let fixed = text.contains('T').then(|| text.replace(' ', "+"));
    let moment: Result<jiff::Timestamp, _> = fixed.as_deref().unwrap_or(text).parse();
    let moment =
        moment.map_err(|_| wrong(field, text, "is no RFC 3339 time such as 2026-01-31T12:00:00Z"))?;
    u64::try_from(moment.as_millisecond()).map_err(|_| wrong(field, text, "lies before 1970"))
}

/// The same, or a day: its last moment, UTC.
pub fn moment_or_day(field: &str, text: &str) -> Result<u64, String> {
    match text.parse::<jiff::civil::Date>() {
        Ok(_) if text.len() == 10 => moment(field, &format!("{text}T23:59:59.999Z")),
        _ => moment(field, text),
    }
}

fn bucket(field: &str, text: Option<&str>) -> Result<Bucket, String> {
    match text {
        None => Ok(Bucket::Free),
        Some(text) => Bucket::from_name(text)
            .ok_or_else(|| wrong(field, text, "is no bucket; use free, safety, damaged, quality or blocked")),
    }
}

fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

impl ParsedRow {
    /// The text by which it names its reservation, if it has no id for it.
    pub fn called(&self) -> Option<&str> {
        match &self.reservation {
            Some(Called::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// With the ids behind its names; `node` answers the one that nobody has for a name without, so that the
    /// refusal is the ledger's, and recorded.
    pub fn event(&self, sku: SkuId, node: impl Fn(&str) -> NodeId) -> StockEvent {
        // A name that nobody has is given all the same.
        let to_node = |name: &str| Some(node(name)).filter(|id| *id != NodeId::ANY).unwrap_or(NodeId::LATER);
        StockEvent {
            reservation: self.reservation.as_ref().and_then(Called::id),
            source: self.source,
            supply: self.supply,
            supply_source: self.supply_source,
            to_node: self.to_node.as_deref().map_or(NodeId::ANY, to_node),
            eta: Millis(self.eta_ms),
            damaged: self.damaged,
            expected: self.expected,
            from: self.from,
            to: self.to,
            reason: self.reason.clone(),
            ..StockEvent::new(self.kind, sku, node(&self.node), self.quantity, Millis(self.occurred_at_ms))
        }
    }
}

/// What to do where a quantity does not fit its type.
fn quantity_advice(kind: EventKind, quantity: i64) -> Option<&'static str> {
    let max = i64::from(limit::QUANTITY_MAX);
    match kind {
        _ if quantity.abs() > max => Some("is more than 1000000000"),
        EventKind::Adjustment if quantity == 0 => Some("changes nothing"),
        EventKind::Count if quantity < 0 => Some("is negative: a count is what lies there, 0 or more"),
        EventKind::Supply if quantity < 0 => Some("is negative: it is what is still to come, 0 to cancel it"),
        EventKind::Adjustment | EventKind::Count | EventKind::Supply => None,
        EventKind::Receipt if quantity < 0 => Some(
            "is negative: a receipt is what came in; to correct an earlier one, send an adjustment of that many units \
             with a reason, or a count of what lies there",
        ),
        EventKind::Return if quantity < 0 => {
            Some("is negative: a return is what came back; to take units off, send a ship or an adjustment")
        }
        _ if quantity < 1 => Some("must be 1 or more; for a correction send an adjustment, which has a sign"),
        _ => None,
    }
}

impl EventRow {
    pub fn parse(&self) -> Result<ParsedRow, String> {
        for (field, text) in [
            ("id", Some(&self.id)),
            ("source", Some(&self.source)),
            ("type", Some(&self.kind)),
            ("occurred_at", Some(&self.occurred_at)),
            ("sku", Some(&self.sku)),
            ("node", Some(&self.node)),
            ("reason", self.reason.as_ref()),
            ("reservation", self.reservation.as_ref()),
            ("supply", self.supply.as_ref()),
            ("supply_source", self.supply_source.as_ref()),
            ("to_node", self.to_node.as_ref()),
            ("eta", self.eta.as_ref()),
            ("from", self.from.as_ref()),
            ("to", self.to.as_ref()),
        ] {
            let Some(text) = text else { continue };
            if text.len() > limit::EVENT_TEXT_BYTES_MAX {
                return Err(wrong(
                    field,
                    text,
                    format!("is longer than {} bytes", limit::EVENT_TEXT_BYTES_MAX),
                ));
            }
            if let Err(reason) = Catalogue::check_text(text) {
                return Err(wrong(field, text, reason));
            }
        }
        for (field, text) in
            [("id", &self.id), ("source", &self.source), ("sku", &self.sku), ("node", &self.node)]
        {
            if text.is_empty() {
                return Err(format!("{field}: is empty"));
            }
        }
        if let Err(reason) = Catalogue::check_name(&self.sku) {
            return Err(wrong("sku", &self.sku, reason));
        }
        let kind = EventKind::from_name(&self.kind).ok_or_else(|| {
            let names: Vec<_> = KINDS.iter().map(|kind| kind.name()).collect();
            wrong("type", &self.kind, format!("is none of {}", names.join(", ")))
        })?;
        let quantity = self.quantity;
        if let Some(advice) = quantity_advice(kind, quantity) {
            return Err(wrong("quantity", quantity.to_string(), advice));
        }
        let numbers = [self.damaged.filter(|units| *units > 0).map(i64::from), self.expected];
        let [damaged, expected] = numbers.map(|number| number.map(|number| number.to_string()));
        for (field, value) in [
            (Field::Reservation, given(&self.reservation)),
            (Field::Supply, given(&self.supply)),
            (Field::SupplySource, given(&self.supply_source)),
            (Field::ToNode, given(&self.to_node)),
            (Field::Eta, given(&self.eta)),
            (Field::Damaged, damaged.as_deref()),
            (Field::Expected, expected.as_deref()),
            (Field::From, given(&self.from)),
            (Field::To, given(&self.to)),
        ] {
            match value {
                Some(value) if !kind.takes(field) => {
                    let reason = format!("does not apply to a {}: leave it out", kind.name());
                    return Err(wrong(field.name(), value, reason));
                }
                None if kind.needs(field) => {
                    return Err(format!("{}: is missing; a {} needs it", field.name(), kind.name()));
                }
                _ => {}
            }
        }
        let called = |text: &str| match uuid_number(text) {
            Some(id) => Called::Id(ReservationId(id)),
            None => Called::Text(text.into()),
        };
        let reservation = given(&self.reservation).map(called);
        let reason = given(&self.reason).unwrap_or_default();
        label::check(reason).map_err(|why| wrong("reason", reason, why))?;
        // Whose it is, who takes it in says.
        let source = SourceId::new(PrincipalId::SYSTEM, SourceId::name(&self.source));
        let row = ParsedRow {
            key: key_of(&self.source, &self.id),
            kind,
            occurred_at_ms: moment("occurred_at", &self.occurred_at)?,
            sku: self.sku.clone(),
            node: self.node.clone(),
            quantity,
            reason: reason.into(),
            reservation,
            called_so: None,
            is_ambiguous: false,
            source,
            supply: given(&self.supply).map(|text| SupplyId::new(source, xxh3_64(text.as_bytes()))),
            supply_source: given(&self.supply_source).map_or(0, SourceId::name),
            to_node: given(&self.to_node).map(str::to_owned),
            eta_ms: match given(&self.eta) {
                Some(text) => match text.parse::<jiff::civil::Date>() {
                    Ok(date) if text.len() == 10 => zone::day(date)
                        .map(|day| day.0)
                        .ok_or_else(|| wrong("eta", text, "lies before 1970"))?,
                    _ => moment("eta", text)?,
                },
                None => 0,
            },
            not_before: match given(&self.sent_at) {
                Some(text) => Millis(moment("sent_at", text)?.saturating_sub(limit::SENT_AHEAD_MS_MAX)),
                // What has not happened was not sent, but for a clock that is ahead.
                None => Millis(
                    moment("occurred_at", &self.occurred_at)?.saturating_sub(limit::CLOCK_AHEAD_MS_MAX),
                ),
            },
            damaged: self.damaged.unwrap_or(0),
            expected: self.expected,
            from: bucket("from", given(&self.from))?,
            to: bucket("to", given(&self.to))?,
        };
        if row.damaged > 0 && i64::from(row.damaged) > quantity {
            return Err(wrong(
                "damaged",
                row.damaged.to_string(),
                format!("is more than the quantity, {quantity}"),
            ));
        }
        Ok(row)
    }
}
