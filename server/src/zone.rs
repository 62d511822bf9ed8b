//! Time zones of nodes, by their IANA names. The ledger knows offsets only, so that its decisions can be repeated: here they
//! are looked up in the database that is part of the program, and brought up to date where summer time begins or ends.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use stockline_core::catalogue::{Definition, EntryKind, NameKind};
use stockline_core::command::{Body, Command, Frame, Read};
use stockline_core::event::{EventKind, StockEvent};
use stockline_core::id::{Key, Millis, PrincipalId};
use tokio::sync::mpsc::unbounded_channel;

use crate::engine::{Engine, Tag};

/// How often offsets are looked up.
const EVERY: Duration = Duration::from_secs(30);
const QUARTER_S: i32 = 15 * 60;

/// Of a date that is a day: days since 1970-01-01 stand in the lower half. It is over at the end of that day, by the node's
/// clock.
pub const DAY: u64 = 1 << 63;

/// A day as a date of an event.
pub fn day(date: Date) -> Option<Millis> {
    let days = u32::try_from(date.since(Date::constant(1970, 1, 1)).ok()?.get_days()).ok()?;
    Some(Millis(DAY | u64::from(days)))
}

/// A zone that has a name of its own, if it is known.
fn zone(name: &str) -> Option<TimeZone> {
    TimeZone::get(name).ok()
}

/// Whether a zone is known.
pub fn check(name: &str) -> Result<(), String> {
    let reason =
        || format!("timezone: {name:?} is no time zone of the IANA database, as Europe/Berlin or UTC");
    if name.is_empty() { Ok(()) } else { zone(name).map(|_| ()).ok_or_else(reason) }
}

/// A definition with the offset that its zone has now. One without a zone of its own keeps the offset it names.
pub fn resolved(mut definition: Definition, now: Millis) -> Result<Definition, String> {
    if let Definition::Node { timezone, day, .. } = &mut definition {
        check(timezone)?;
        let named = zone(timezone).filter(|_| !matches!(timezone.as_str(), "" | "UTC"));
        if let Some((zone, now)) = named.zip(Timestamp::from_millisecond(now.0 as i64).ok()) {
            day.ahead = (zone.to_offset(now).seconds() / QUARTER_S) as i8;
        }
    }
    Ok(definition)
}

/// Puts a moment in place of a day: its last, by the clock of the node where the units are expected.
pub fn resolve_eta(engine: &Engine, event: &mut StockEvent) {
    if event.eta.0 & DAY == 0 {
        return;
    }
    let node = if event.kind == EventKind::TransferDispatched { event.to_node } else { event.node };
    let name = engine.names().name(NameKind::Node, u32::from(node.0));
    let entry = name.and_then(|name| engine.names().entry(EntryKind::Node, &name));
    let (named, ahead) = match entry.as_deref() {
        Some(Definition::Node { timezone, day, .. }) => {
            (zone(timezone).filter(|_| timezone != "UTC"), day.ahead)
        }
        _ => (None, 0),
    };
    let fixed = || jiff::tz::Offset::from_seconds(i32::from(ahead) * QUARTER_S).map(TimeZone::fixed);
    let days = (event.eta.0 & u64::from(u32::MAX)) as i64;
    let last = || {
        let zone = match named {
            Some(zone) => zone,
            None => fixed().ok()?,
        };
        let next = Date::constant(1970, 1, 1).checked_add(jiff::Span::new().try_days(days + 1).ok()?).ok()?;
        u64::try_from(next.to_zoned(zone).ok()?.timestamp().as_millisecond() - 1).ok()
    };
    // A day that no calendar has is refused like any other date that is too far away.
    event.eta = Millis(last().unwrap_or(u64::MAX));
}

/// Brings the offsets of all nodes up to date, for as long as the engine runs.
pub async fn keep(engine: Engine) {
    loop {
        tokio::time::sleep(EVERY).await;
        for entry in engine.names().entries(EntryKind::Node) {
            let Ok(now) = resolved(Definition::clone(&entry), engine.clock().wall()) else { continue };
            if now != *entry {
                put(&engine, &entry, now).await;
            }
        }
    }
}

/// Puts a node in place of what it was, unless somebody else has changed it.
async fn put(engine: &Engine, seen: &Definition, node: Definition) {
    let plain = |body| Command { key: Key(0), issued_at: Millis(0), digest: 0, body };
    let guard = Read::Unchanged { kind: EntryKind::Node, name: seen.name().into(), version: seen.version() };
    let (reply_to, mut answered) = unbounded_channel();
    let frame = Frame {
        tag: Tag::new(Some(reply_to)),
        principal: PrincipalId::SYSTEM,
        commands: vec![plain(Body::Read(guard)), plain(Body::Define(Box::new(node)))],
        lines: Vec::new(),
    };
    if engine.submit(frame).is_ok() {
        // Whatever came of it, the next look sees it.
        let _ = answered.recv().await;
    }
}
