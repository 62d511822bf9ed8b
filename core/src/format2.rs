//! What journals and snapshots of formats 1 and 2 have where format 3 differs: read, never written.
//!
//! There were no channel allocations, steps had no lines, reservations no customer, channels no policy, and a
//! reservation was held or confirmed as a whole.

use rkyv::rancor::Failure;
use rkyv::{Archive, Deserialize, Serialize};

use crate::command::Verb;
use crate::event::{EventKind, Field};
use crate::id::{ChannelId, NodeId, ZoneId};
use crate::journal::{EntryRec, JournalRecord};
use crate::outcome::State;
use crate::record::{
    DefinitionList, DefinitionRec, EventRec, LineRec, MovementRec, ReserveRec, ShortRec, TextRec,
    TransitionRec,
};
use crate::snapshot::{ClaimRow, PositionRow, ReservationRow, SkuRow, SupplyRow};

#[derive(Archive, Serialize, Deserialize)]
struct Entry2 {
    now_ms: u64,
    digest: u64,
    expires_at_ms: u64,
    principal: u32,
    movements: u32,
    shorts: u32,
    kind: u8,
    code: u8,
    state: u8,
}

#[derive(Archive, Serialize, Deserialize)]
struct Reserve2 {
    key: u128,
    issued_at_ms: u64,
    id: u128,
    channel: u16,
    ttl_ms: u32,
    fill: u8,
    line_count: u16,
}

#[derive(Archive, Serialize, Deserialize)]
struct Transition2 {
    key: u128,
    issued_at_ms: u64,
    reservation: u128,
    verb: u8,
    ttl_ms: u32,
}

#[derive(Archive, Serialize, Deserialize)]
struct Event2 {
    key: u128,
    issued_at_ms: u64,
    occurred_at_ms: u64,
    reservation: u128,
    quantity: i64,
    expected: i64,
    supply: u64,
    eta_ms: u64,
    sku: u32,
    damaged: u32,
    node: u16,
    to_node: u16,
    kind: u8,
    given: u8,
    from: u8,
    to: u8,
    reason: [u8; 16],
}

#[derive(Archive, Serialize, Deserialize)]
struct Definition2 {
    kind: u8,
    role: u8,
    priority: u16,
    buffer: u32,
    name: TextRec,
    node_type: TextRec,
    timezone: TextRec,
    refers_to: TextRec,
    node_count: u16,
    token_sha256: [u8; 32],
}

#[derive(Archive, Serialize, Deserialize)]
struct JournalRecord2 {
    first: u64,
    entries: Vec<Entry2>,
    reserves: Vec<Reserve2>,
    lines: Vec<LineRec>,
    transitions: Vec<Transition2>,
    events: Vec<Event2>,
    expiries: Vec<u128>,
    definitions: Vec<Definition2>,
    names: Vec<TextRec>,
    text: Vec<u8>,
    movements: Vec<Movement2>,
    shorts: Vec<ShortRec>,
}

#[derive(Archive, Serialize, Deserialize)]
struct Movement2 {
    sku: u32,
    node: u16,
    from: u8,
    to: u8,
    quantity: u32,
}

#[derive(Archive, Serialize, Deserialize)]
struct SupplyRow2 {
    node: u16,
    supply: u64,
    quantity: u32,
    eta_ms: u64,
}

#[derive(Archive, Serialize, Deserialize)]
struct SkuRow2 {
    positions: Vec<PositionRow>,
    supplies: Vec<SupplyRow2>,
    counted: Vec<(u16, u64)>,
    recent: Vec<(u16, u64, i64)>,
    horizon_ms: u64,
}

#[derive(Archive, Serialize, Deserialize)]
struct DefinitionList2 {
    definitions: Vec<Definition2>,
    names: Vec<TextRec>,
    text: Vec<u8>,
}

#[derive(Archive, Serialize, Deserialize)]
struct ClaimRow2 {
    sku: u32,
    node: u16,
    quantity: u32,
    picked: u32,
    shipped: u32,
}

#[derive(Archive, Serialize, Deserialize)]
struct ReservationRow2 {
    channel: u16,
    state: u8,
    anchor: u32,
    expires_at_ms: u64,
    ended: u64,
    claims: Vec<ClaimRow2>,
}

fn definition(old: Definition2) -> DefinitionRec {
    DefinitionRec {
        kind: old.kind,
        role: old.role,
        priority: old.priority,
        buffer: old.buffer,
        name: old.name,
        node_type: old.node_type,
        timezone: old.timezone,
        refers_to: old.refers_to,
        node_count: old.node_count,
        token_sha256: old.token_sha256,
        ..DefinitionRec::default()
    }
}

/// A journal record; `None` where the archive is not valid.
pub(crate) fn journal_record(archive: &[u8]) -> Option<JournalRecord> {
    let old = rkyv::from_bytes::<JournalRecord2, Failure>(archive).ok()?;
    let entry = |old: Entry2| EntryRec {
        now_ms: old.now_ms,
        digest: old.digest,
        expires_at_ms: old.expires_at_ms,
        principal: old.principal,
        movements: old.movements,
        promises: 0,
        shorts: old.shorts,
        kind: old.kind,
        code: old.code,
        state: old.state,
        flags: 0,
        channel: ChannelId::SHARED.0,
    };
    let reserve = |old: Reserve2| ReserveRec {
        key: old.key,
        issued_at_ms: old.issued_at_ms,
        id: old.id,
        channel: old.channel,
        ttl_ms: old.ttl_ms,
        fill: old.fill,
        customer: 0,
        zone: ZoneId::NONE.0,
        line_count: old.line_count,
        label_count: 0,
    };
    let transition = |old: Transition2| TransitionRec {
        key: old.key,
        issued_at_ms: old.issued_at_ms,
        reservation: old.reservation,
        verb: old.verb,
        // A fulfilment took all of it.
        ttl_ms: if old.verb == Verb::Fulfil as u8 { 1 } else { old.ttl_ms },
        line_count: 0,
    };
    let movement = |old: Movement2| MovementRec {
        sku: old.sku,
        node: old.node,
        pool: ChannelId::SHARED.0,
        from: old.from,
        to: old.to,
        quantity: old.quantity,
    };
    let mut text = old.text;
    let events = old.events.into_iter().map(|old| event(old, &mut text)).collect();
    Some(JournalRecord {
        first: old.first,
        entries: old.entries.into_iter().map(entry).collect(),
        reserves: old.reserves.into_iter().map(reserve).collect(),
        labels: Vec::new(),
        lines: old.lines,
        transitions: old.transitions.into_iter().map(transition).collect(),
        step_lines: Vec::new(),
        events,
        expiries: old.expiries,
        allocations: Vec::new(),
        balances: Vec::new(),
        definitions: old.definitions.into_iter().map(definition).collect(),
        names: old.names,
        numbers: Vec::new(),
        text,
        movements: old.movements.into_iter().map(movement).collect(),
        shorts: old.shorts,
        promises: Vec::new(),
    })
}

/// An event with the fields that its kind takes: others were not looked at.
fn event(old: Event2, texts: &mut Vec<u8>) -> EventRec {
    let end = old.reason.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let text = String::from_utf8_lossy(&old.reason[..end]);
    let kind = EventKind::from_number(old.kind);
    let takes = |field| kind.is_some_and(|kind| kind.takes(field));
    let given = [(1, Field::Reservation), (2, Field::Supply), (4, Field::Expected)];
    let given = given.iter().filter(|(_, field)| takes(*field)).fold(0, |bits, (bit, _)| bits | bit);
    // Receipts knew neither.
    let arrives = kind == Some(EventKind::Receipt);
    EventRec {
        key: old.key,
        issued_at_ms: old.issued_at_ms,
        occurred_at_ms: old.occurred_at_ms,
        reservation: old.reservation,
        quantity: old.quantity,
        expected: old.expected,
        source: 0,
        supply: old.supply,
        eta_ms: if takes(Field::Eta) { old.eta_ms } else { 0 },
        sku: old.sku,
        damaged: if takes(Field::Damaged) && !arrives { old.damaged } else { 0 },
        supply_source: 0,
        node: old.node,
        to_node: if takes(Field::ToNode) { old.to_node } else { NodeId::ANY.0 },
        kind: old.kind,
        given: old.given & given,
        from: if takes(Field::From) { old.from } else { 0 },
        to: if takes(Field::To) && !arrives && kind != Some(EventKind::TransferReceived) {
            old.to
        } else {
            0
        },
        reason: TextRec::put(texts, &text),
        redrive: 0,
        other: 0,
    }
}

/// A row of the snapshot's table `skus`.
pub(crate) fn sku(bytes: &[u8]) -> Option<SkuRow> {
    let SkuRow2 { positions, supplies, counted, recent, horizon_ms } =
        rkyv::from_bytes::<SkuRow2, Failure>(bytes).ok()?;
    let supply = |(at, old): (usize, SupplyRow2)| SupplyRow {
        node: old.node,
        supply: u128::from(old.supply),
        pool: ChannelId::SUPPLIES.0 + at as u16,
        quantity: old.quantity,
        claimed: 0,
        arrived: 0,
        eta_ms: old.eta_ms,
        told_ms: old.eta_ms,
    };
    let supplies = supplies.into_iter().enumerate().map(supply).collect();
    let (shares, waiting) = (Vec::new(), Vec::new());
    Some(SkuRow { positions, supplies, shares, waiting, counted, recent, horizon_ms })
}

/// A row of the snapshot's table `definitions`.
pub(crate) fn definitions(bytes: &[u8]) -> Option<DefinitionList> {
    let old = rkyv::from_bytes::<DefinitionList2, Failure>(bytes).ok()?;
    Some(DefinitionList {
        definitions: old.definitions.into_iter().map(definition).collect(),
        names: old.names,
        numbers: Vec::new(),
        text: old.text,
    })
}

/// A row of the snapshot's table `reservations`.
pub(crate) fn reservation(bytes: &[u8]) -> Option<ReservationRow> {
    let old = rkyv::from_bytes::<ReservationRow2, Failure>(bytes).ok()?;
    let held = old.state == State::Held as u8;
    let claim = |old: ClaimRow2| ClaimRow {
        sku: old.sku,
        node: old.node,
        pool: ChannelId::SHARED.0,
        quantity: old.quantity,
        held: if held { old.quantity } else { 0 },
        picked: old.picked,
        shipped: old.shipped,
    };
    Some(ReservationRow {
        channel: old.channel,
        state: old.state,
        partly: 0,
        anchor: old.anchor,
        at_ms: old.expires_at_ms,
        ended: old.ended,
        counted: 0,
        customer: 0,
        labels: Vec::new(),
        claims: old.claims.into_iter().map(claim).collect(),
    })
}
