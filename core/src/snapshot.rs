//! The snapshot: the state as of one LSN, in a redb file of its own.
//!
//! | table | key | value |
//! |---|---|---|
//! | meta | name | `version`, `covered` (LSN), `now_ms`, `issued_ms`, `ahead_ms`, `chain_0` to `chain_3`, outside accounts, sums |
//! | skus | sku id | everything known of the sku ([`SkuState`]) |
//! | reservations | id | claims and state, ended ones as long as they are remembered |
//! | ended | LSN, id | order in which ended reservations are forgotten |
//! | names | sku id | its name |
//! | pace | node, quarter of the day | the quarter since 1970, and units that the node was given in it |
//! | definitions | kind, order of first mention | node, group, channel, principal, data of skus, rule, zone |
//!
//! Whoever reads it all compares the sum of the hashes of all rows with the one stored: a bit that flipped anywhere is
//! found, and so is a row that is gone.
//!
//! It is written by the [checkpoint](crate::checkpoint) alone, in transactions that move it from one LSN to
//! a later one; a crash in between leaves the earlier one.

mod row_sum;

use std::cell::Cell;
use std::path::Path;

use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageBackend,
    TableDefinition, WriteTransaction,
};
use rkyv::rancor::Failure;
use rkyv::{Archive, Deserialize, Serialize};

use crate::catalogue::{Catalogue, Definition};
use crate::chain::Chain;
use crate::format2;
use crate::id::{ChannelId, Lsn, Millis, NodeId, ReservationId, SkuId, SupplyId};
use crate::journal::file::open_or_create;
use crate::label::{LabelKind, Labels};
use crate::ledger::{Claim, Given, Ledger, PositionState, Reservation, Share, SkuState, SupplyState};
use crate::limit;
use crate::limit::QUARTERS_PER_DAY;
use crate::outcome::State;
use crate::record::{ArchivedDefinitionList, DefinitionList};
use row_sum::RowSum;

/// Version of the tables and rows. One of a version before it becomes one of this when it is opened.
pub const SNAPSHOT_VERSION: u64 = 3;
const CACHE_BYTES: usize = 128 << 20;

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const SKUS: TableDefinition<u32, &[u8]> = TableDefinition::new("skus");
const RESERVATIONS: TableDefinition<u128, &[u8]> = TableDefinition::new("reservations");
const ENDED: TableDefinition<(u64, u128), ()> = TableDefinition::new("ended");
const NAMES: TableDefinition<u32, &str> = TableDefinition::new("names");
const PACE: TableDefinition<(u16, u8), (u32, u32)> = TableDefinition::new("pace");
const DEFINITIONS: TableDefinition<(u8, &str), (u32, &[u8])> = TableDefinition::new("definitions");
const CHAIN: [&str; 4] = ["chain_0", "chain_1", "chain_2", "chain_3"];
const OUTSIDE: [&str; 4] = ["supplier", "customer", "loss", "transit"];

/// Why the snapshot could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("snapshot storage: {0}")]
    Storage(String),
    #[error("{0} is in use by another process")]
    InUse(String),
    #[error("the snapshot's {table} row {key} is damaged")]
    Damaged { table: &'static str, key: String },
    #[error("the snapshot is damaged: {0}")]
    Unsound(&'static str),
    #[error(
        "the snapshot has format {found}, this program reads formats 1 to {SNAPSHOT_VERSION}; \
             use the stockline that wrote it, or a newer one"
    )]
    Format { found: u64 },
}

fn storage(error: impl std::fmt::Display) -> SnapshotError {
    SnapshotError::Storage(error.to_string())
}

#[derive(Archive, Serialize, Deserialize)]
pub(crate) struct PositionRow {
    node: u16,
    units: [i64; 8],
    picked_claimed: u32,
    latest_ms: u64,
    last_at_ms: u64,
    last_units: i32,
}

#[derive(Archive, Serialize, Deserialize)]
pub(crate) struct SupplyRow {
    pub(crate) node: u16,
    pub(crate) supply: u128,
    pub(crate) pool: u16,
    pub(crate) quantity: u32,
    pub(crate) claimed: u32,
    pub(crate) arrived: u32,
    pub(crate) eta_ms: u64,
    pub(crate) told_ms: u64,
}

#[derive(Archive, Serialize, Deserialize)]
pub(crate) struct SkuRow {
    pub(crate) positions: Vec<PositionRow>,
    pub(crate) supplies: Vec<SupplyRow>,
    /// Channel, node, units allocated.
    pub(crate) shares: Vec<(u16, u16, u32)>,
    /// Node, reservation: who waits, the oldest first.
    pub(crate) waiting: Vec<(u16, u128)>,
    pub(crate) counted: Vec<(u16, u64)>,
    pub(crate) recent: Vec<(u16, u64, i64)>,
    pub(crate) horizon_ms: u64,
}

#[derive(Archive, Serialize, Deserialize)]
pub(crate) struct ClaimRow {
    pub(crate) sku: u32,
    pub(crate) node: u16,
    pub(crate) pool: u16,
    pub(crate) quantity: u32,
    pub(crate) held: u32,
    pub(crate) picked: u32,
    pub(crate) shipped: u32,
}

#[derive(Archive, Serialize, Deserialize)]
pub(crate) struct ReservationRow {
    pub(crate) channel: u16,
    pub(crate) state: u8,
    pub(crate) partly: u8,
    pub(crate) anchor: u32,
    /// When the hold ends, or since when it is confirmed.
    pub(crate) at_ms: u64,
    pub(crate) ended: u64,
    /// 1 for a hold that counts, and whose it is.
    pub(crate) counted: u8,
    pub(crate) customer: u64,
    pub(crate) claims: Vec<ClaimRow>,
    /// Kind and text.
    pub(crate) labels: Vec<(u8, String)>,
}

fn archive<T>(row: &T) -> Vec<u8>
where
    T: for<'a> Serialize<
        rkyv::api::high::HighSerializer<Vec<u8>, rkyv::ser::allocator::ArenaHandle<'a>, Failure>,
    >,
{
    rkyv::api::high::to_bytes_in::<_, Failure>(row, Vec::new()).expect("memory takes every archive")
}

fn encode_sku(state: &SkuState) -> Vec<u8> {
    archive(&SkuRow {
        positions: state
            .positions
            .iter()
            .map(|position| PositionRow {
                node: position.node.0,
                units: position.units,
                picked_claimed: position.picked_claimed,
                latest_ms: position.latest.0,
                last_at_ms: position.last_at.0,
                last_units: position.last_units,
            })
            .collect(),
        supplies: state
            .supplies
            .iter()
            .map(|open| SupplyRow {
                node: open.node.0,
                supply: open.supply.0,
                pool: open.pool.0,
                quantity: open.quantity,
                claimed: open.claimed,
                arrived: open.arrived,
                eta_ms: open.eta.0,
                told_ms: open.told.0,
            })
            .collect(),
        shares: state.shares.iter().map(|share| (share.channel.0, share.node.0, share.units)).collect(),
        waiting: state.waiting.iter().map(|(node, id)| (node.0, id.0)).collect(),
        counted: state.counted.iter().map(|(node, at)| (node.0, at.0)).collect(),
        recent: state.recent.iter().map(|(node, at, units)| (node.0, at.0, *units)).collect(),
        horizon_ms: state.horizon.0,
    })
}

fn decode_sku(bytes: &[u8]) -> Option<SkuState> {
    let row = rkyv::access::<ArchivedSkuRow, Failure>(bytes).ok()?;
    Some(SkuState {
        positions: row
            .positions
            .iter()
            .map(|position| PositionState {
                node: NodeId(position.node.to_native()),
                units: std::array::from_fn(|bucket| position.units[bucket].to_native()),
                picked_claimed: position.picked_claimed.to_native(),
                latest: Millis(position.latest_ms.to_native()),
                last_at: Millis(position.last_at_ms.to_native()),
                last_units: position.last_units.to_native(),
            })
            .collect(),
        supplies: row
            .supplies
            .iter()
            .map(|open| SupplyState {
                node: NodeId(open.node.to_native()),
                supply: SupplyId(open.supply.to_native()),
                pool: ChannelId(open.pool.to_native()),
                quantity: open.quantity.to_native(),
                claimed: open.claimed.to_native(),
                arrived: open.arrived.to_native(),
                eta: Millis(open.eta_ms.to_native()),
                told: Millis(open.told_ms.to_native()),
            })
            .collect(),
        shares: row
            .shares
            .iter()
            .map(|share| Share {
                channel: ChannelId(share.0.to_native()),
                node: NodeId(share.1.to_native()),
                units: share.2.to_native(),
            })
            .collect(),
        waiting: row
            .waiting
            .iter()
            .map(|pair| (NodeId(pair.0.to_native()), ReservationId(pair.1.to_native())))
            .collect(),
        counted: row
            .counted
            .iter()
            .map(|pair| (NodeId(pair.0.to_native()), Millis(pair.1.to_native())))
            .collect(),
        recent: row
            .recent
            .iter()
            .map(|change| (NodeId(change.0.to_native()), Millis(change.1.to_native()), change.2.to_native()))
            .collect(),
        horizon: Millis(row.horizon_ms.to_native()),
    })
}

fn encode_reservation(reservation: &Reservation, customer: Option<u64>, labels: &Labels) -> Vec<u8> {
    archive(&ReservationRow {
        channel: reservation.channel.0,
        state: reservation.state as u8,
        partly: u8::from(reservation.partly),
        anchor: reservation.anchor.0,
        // One of them is 0.
        at_ms: reservation.expires_at().0 | reservation.confirmed_at().0,
        ended: reservation.ended().0,
        counted: u8::from(customer.is_some()),
        customer: customer.unwrap_or(0),
        claims: reservation
            .claims
            .iter()
            .map(|claim| ClaimRow {
                sku: claim.sku.0,
                node: claim.node.0,
                pool: claim.pool.0,
                quantity: claim.quantity,
                held: claim.held,
                picked: claim.picked,
                shipped: claim.shipped,
            })
            .collect(),
        labels: labels.iter().map(|label| (label.kind as u8, label.text.to_string())).collect(),
    })
}

/// A reservation, the customer of a hold that counts, and its labels.
fn decode_reservation(bytes: &[u8]) -> Option<(Reservation, Option<u64>, Labels)> {
    let row = rkyv::access::<ArchivedReservationRow, Failure>(bytes).ok()?;
    let claims = row.claims.iter().map(|claim| Claim {
        sku: SkuId(claim.sku.to_native()),
        node: NodeId(claim.node.to_native()),
        pool: ChannelId(claim.pool.to_native()),
        quantity: claim.quantity.to_native(),
        held: claim.held.to_native(),
        picked: claim.picked.to_native(),
        shipped: claim.shipped.to_native(),
    });
    let mut reservation = Reservation::new(
        ChannelId(row.channel.to_native()),
        State::from_number(row.state)?,
        SkuId(row.anchor.to_native()),
        (Millis(row.at_ms.to_native()), Lsn(row.ended.to_native())),
        claims.collect(),
    );
    reservation.partly = row.partly != 0;
    let labels = row.labels.iter().map(|label| Some((LabelKind::from_number(label.0)?, label.1.as_str())));
    let labels = Labels::of(labels.collect::<Option<Vec<_>>>()?).ok()?;
    Some((reservation, (row.counted != 0).then_some(row.customer.to_native()), labels))
}

/// Whether bytes are a sound row of a table: `skus`, `reservations` or `definitions`.
pub fn is_row(table: &str, bytes: &[u8]) -> bool {
    match table {
        "skus" => decode_sku(bytes).is_some(),
        "reservations" => decode_reservation(bytes).is_some(),
        "definitions" => {
            rkyv::access::<ArchivedDefinitionList, Failure>(bytes).is_ok_and(|list| list.read().is_ok())
        }
        _ => false,
    }
}

/// Up to where the snapshot tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Covered {
    pub lsn: Lsn,
    /// Time of that command.
    pub now: Millis,
    /// The latest `issued_at` of any command with a key up to there.
    pub issued: Millis,
    /// By how much any of them was issued ahead of its own time, as where the clock was set right by a leap.
    pub ahead_ms: u64,
    /// The chain behind it; `None` before anything is covered.
    pub chain: Option<Chain>,
}

/// The snapshot file.
pub struct Snapshot {
    db: Database,
}

impl Snapshot {
    pub fn open(path: &Path) -> Result<Snapshot, SnapshotError> {
        let db = open_or_create(path, CACHE_BYTES).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => SnapshotError::InUse(path.display().to_string()),
            other => storage(other),
        })?;
        Snapshot::over(db)
    }

    /// A snapshot over any storage redb can use.
    pub fn with_backend(backend: impl StorageBackend) -> Result<Snapshot, SnapshotError> {
        Snapshot::over(Database::builder().create_with_backend(backend).map_err(storage)?)
    }

    fn over(db: Database) -> Result<Snapshot, SnapshotError> {
        let write = db.begin_write().map_err(storage)?;
        {
            let mut meta = write.open_table(META).map_err(storage)?;
            let version = meta.get("version").map_err(storage)?.map(|found| found.value());
            match version {
                None => {}
                Some(1 | 2) => {
                    upgrade(&write)?;
                    let now = meta.get("now_ms").map_err(storage)?.map_or(0, |found| found.value());
                    let latest = Millis(now).plus(limit::ISSUED_AHEAD_MS_MAX);
                    meta.insert("issued_ms", latest.0).map_err(storage)?;
                }
                Some(SNAPSHOT_VERSION) => drop(RowSum::stored(&meta)?),
                Some(found) => return Err(SnapshotError::Format { found }),
            }
            write.open_table(SKUS).map_err(storage)?;
            write.open_table(RESERVATIONS).map_err(storage)?;
            write.open_table(ENDED).map_err(storage)?;
            write.open_table(NAMES).map_err(storage)?;
            write.open_table(DEFINITIONS).map_err(storage)?;
            write.open_table(PACE).map_err(storage)?;
            if version != Some(SNAPSHOT_VERSION) {
                let sum = sum_of_all(&write)?;
                if version.is_none() && (sum != RowSum::default() || meta.len().map_err(storage)? > 0) {
                    return Err(SnapshotError::Unsound("its version is missing"));
                }
                meta.insert("version", SNAPSHOT_VERSION).map_err(storage)?;
                sum.store(&mut meta)?;
            }
        }
        write.commit().map_err(storage)?;
        Ok(Snapshot { db })
    }

    /// Copies everything, as of one moment, into a new file.
    pub fn copy(&self, path: &Path) -> Result<(), SnapshotError> {
        fn rows<K: redb::Key + 'static, V: redb::Value + 'static>(
            from: &redb::ReadTransaction,
            to: &WriteTransaction,
            table: TableDefinition<'_, K, V>,
        ) -> Result<(), SnapshotError> {
            let mut copy = to.open_table(table).map_err(storage)?;
            for pair in from.open_table(table).map_err(storage)?.iter().map_err(storage)? {
                let (key, value) = pair.map_err(storage)?;
                copy.insert(key.value(), value.value()).map_err(storage)?;
            }
            Ok(())
        }
        let from = self.db.begin_read().map_err(storage)?;
        let copy = open_or_create(path, CACHE_BYTES).map_err(storage)?;
        let to = copy.begin_write().map_err(storage)?;
        rows(&from, &to, META)?;
        rows(&from, &to, SKUS)?;
        rows(&from, &to, RESERVATIONS)?;
        rows(&from, &to, ENDED)?;
        rows(&from, &to, NAMES)?;
        rows(&from, &to, DEFINITIONS)?;
        rows(&from, &to, PACE)?;
        to.commit().map_err(storage)
    }

    pub fn covered(&self) -> Result<Covered, SnapshotError> {
        let read = self.db.begin_read().map_err(storage)?;
        covered(&read.open_table(META).map_err(storage)?)
    }

    /// Reads everything: each ledger takes what it owns.
    pub fn load(&self, ledgers: &mut [Ledger]) -> Result<(Catalogue, Covered), SnapshotError> {
        let read = self.db.begin_read().map_err(storage)?;
        let mut sum = RowSum::default();
        let (covered, _) = self.load_rows(&read, ledgers, &mut sum)?;
        let catalogue = self.load_catalogue(&read, &mut sum)?;
        sum.add_all(ENDED, &read.open_table(ENDED).map_err(storage)?)?;
        if sum != RowSum::stored(&read.open_table(META).map_err(storage)?)? {
            return Err(SnapshotError::Unsound("its rows are not those that were written"));
        }
        Ok((catalogue, covered))
    }

    /// Reads stock and claims: each ledger takes what it owns. Answers the sum of all units of all skus and of
    /// those outside too, which is zero.
    pub fn load_state(&self, ledgers: &mut [Ledger]) -> Result<(Covered, i64), SnapshotError> {
        let read = self.db.begin_read().map_err(storage)?;
        self.load_rows(&read, ledgers, &mut RowSum::default())
    }

    fn load_rows(
        &self,
        read: &redb::ReadTransaction,
        ledgers: &mut [Ledger],
        sum: &mut RowSum,
    ) -> Result<(Covered, i64), SnapshotError> {
        let covered = covered(&read.open_table(META).map_err(storage)?)?;
        let mut balance = 0;
        for pair in read.open_table(SKUS).map_err(storage)?.iter().map_err(storage)? {
            let (sku, bytes) = pair.map_err(storage)?;
            sum.add(SKUS, &sku.value(), &bytes.value());
            let sku = SkuId(sku.value());
            let state = decode_sku(bytes.value())
                .ok_or_else(|| SnapshotError::Damaged { table: "skus", key: sku.to_string() })?;
            balance += state.positions.iter().flat_map(|position| position.units).sum::<i64>();
            balance += state.shares.iter().map(|share| i64::from(share.units)).sum::<i64>();
            balance += state.supplies.iter().map(|open| i64::from(open.quantity)).sum::<i64>();
            for ledger in ledgers.iter_mut() {
                ledger.load_sku(sku, &state);
            }
        }
        // Ended ones go into each ledger's memory in the order in which they will be forgotten.
        let reservations = read.open_table(RESERVATIONS).map_err(storage)?;
        let mut ended = Vec::new();
        for pair in reservations.iter().map_err(storage)? {
            let (id, bytes) = pair.map_err(storage)?;
            sum.add(RESERVATIONS, &id.value(), &bytes.value());
            let id = ReservationId(id.value());
            let (reservation, customer, labels) = decode_reservation(bytes.value())
                .ok_or_else(|| SnapshotError::Damaged { table: "reservations", key: id.to_string() })?;
            if reservation.state.is_active() {
                for ledger in ledgers.iter_mut() {
                    ledger.load_reservation(id, &reservation, customer, &labels);
                }
            } else {
                ended.push((id, reservation, labels));
            }
        }
        ended.sort_by_key(|(id, reservation, _)| (reservation.ended(), *id));
        for (id, reservation, labels) in &ended {
            for ledger in ledgers.iter_mut() {
                ledger.load_reservation(*id, reservation, None, labels);
            }
        }
        let meta = read.open_table(META).map_err(storage)?;
        let mut outside = [0; 4];
        for (account, name) in outside.iter_mut().zip(OUTSIDE) {
            *account = meta.get(name).map_err(storage)?.map_or(0, |found| found.value() as i64);
        }
        if let Some(ledger) = ledgers.first_mut() {
            ledger.load_outside(outside);
            for pair in read.open_table(PACE).map_err(storage)?.iter().map_err(storage)? {
                let (key, value) = pair.map_err(storage)?;
                sum.add(PACE, &key.value(), &value.value());
                let ((node, _), (quarter, units)) = (key.value(), value.value());
                ledger.pace.add(Given { node: NodeId(node), quarter, units });
            }
        }
        for ledger in ledgers.iter_mut() {
            ledger.drain_changed(|_, _| {});
        }
        Ok((covered, balance + outside.iter().sum::<i64>()))
    }

    fn load_catalogue(
        &self,
        read: &redb::ReadTransaction,
        sum: &mut RowSum,
    ) -> Result<Catalogue, SnapshotError> {
        let mut catalogue = Catalogue::default();
        let damaged = |key: String| SnapshotError::Damaged { table: "definitions", key };
        for pair in read.open_table(NAMES).map_err(storage)?.iter().map_err(storage)? {
            let (key, name) = pair.map_err(storage)?;
            sum.add(NAMES, &key.value(), &name.value());
            let name = name.value().to_owned();
            let definition = Definition::Sku { name: name.clone() };
            catalogue.define(&definition).map_err(|_| damaged(name))?;
        }
        let mut rows = Vec::new();
        for pair in read.open_table(DEFINITIONS).map_err(storage)?.iter().map_err(storage)? {
            let (key, value) = pair.map_err(storage)?;
            sum.add(DEFINITIONS, &key.value(), &value.value());
            let (kind, name) = key.value();
            let (order, bytes) = value.value();
            let list = rkyv::access::<ArchivedDefinitionList, Failure>(bytes)
                .map_err(|_| damaged(name.to_owned()))?
                .read()
                .map_err(|_| damaged(name.to_owned()))?;
            rows.push((kind, order, list));
        }
        // Kinds refer only to kinds before them.
        rows.sort_by_key(|(kind, order, _)| (*kind, *order));
        let definitions: Vec<Definition> = rows.into_iter().flat_map(|(_, _, list)| list).collect();
        catalogue.load(&definitions).map_err(|(name, _)| damaged(name))?;
        Ok(catalogue)
    }

    /// Opens a transaction that moves the snapshot on.
    pub fn step(&self) -> Result<SnapshotStep, SnapshotError> {
        let write = self.db.begin_write().map_err(storage)?;
        let sum = RowSum::stored(&write.open_table(META).map_err(storage)?)?;
        Ok(SnapshotStep { write, sum: Cell::new(sum) })
    }
}

/// The sum of all rows of a file.
fn sum_of_all(write: &WriteTransaction) -> Result<RowSum, SnapshotError> {
    let mut sum = RowSum::default();
    sum.add_all(SKUS, &write.open_table(SKUS).map_err(storage)?)?;
    sum.add_all(RESERVATIONS, &write.open_table(RESERVATIONS).map_err(storage)?)?;
    sum.add_all(ENDED, &write.open_table(ENDED).map_err(storage)?)?;
    sum.add_all(NAMES, &write.open_table(NAMES).map_err(storage)?)?;
    sum.add_all(DEFINITIONS, &write.open_table(DEFINITIONS).map_err(storage)?)?;
    sum.add_all(PACE, &write.open_table(PACE).map_err(storage)?)?;
    Ok(sum)
}

/// Writes the rows that are others in this version again.
fn upgrade(write: &WriteTransaction) -> Result<(), SnapshotError> {
    let mut table = write.open_table(SKUS).map_err(storage)?;
    let mut rows: Vec<(u32, Vec<u8>)> = Vec::new();
    for pair in table.iter().map_err(storage)? {
        let (sku, bytes) = pair.map_err(storage)?;
        let key = sku.value();
        let row = format2::sku(bytes.value())
            .ok_or_else(|| SnapshotError::Damaged { table: "skus", key: key.to_string() })?;
        rows.push((key, archive(&row)));
    }
    for (sku, row) in rows {
        table.insert(sku, row.as_slice()).map_err(storage)?;
    }
    let mut table = write.open_table(RESERVATIONS).map_err(storage)?;
    let mut rows: Vec<(u128, Vec<u8>)> = Vec::new();
    for pair in table.iter().map_err(storage)? {
        let (id, bytes) = pair.map_err(storage)?;
        let row = format2::reservation(bytes.value()).ok_or_else(|| SnapshotError::Damaged {
            table: "reservations",
            key: ReservationId(id.value()).to_string(),
        })?;
        rows.push((id.value(), archive(&row)));
    }
    for (id, row) in rows {
        table.insert(id, row.as_slice()).map_err(storage)?;
    }
    let mut table = write.open_table(DEFINITIONS).map_err(storage)?;
    let mut rows: Vec<(u8, String, u32, Vec<u8>)> = Vec::new();
    for pair in table.iter().map_err(storage)? {
        let (key, value) = pair.map_err(storage)?;
        let ((kind, name), (order, bytes)) = (key.value(), value.value());
        let list = format2::definitions(bytes)
            .ok_or_else(|| SnapshotError::Damaged { table: "definitions", key: name.to_owned() })?;
        rows.push((kind, name.to_owned(), order, archive(&list)));
    }
    for (kind, name, order, row) in rows {
        table.insert((kind, name.as_str()), (order, row.as_slice())).map_err(storage)?;
    }
    Ok(())
}

fn covered(meta: &redb::ReadOnlyTable<&str, u64>) -> Result<Covered, SnapshotError> {
    let number = |name| -> Result<u64, SnapshotError> {
        Ok(meta.get(name).map_err(storage)?.map_or(0, |found| found.value()))
    };
    let mut chain = Chain::START;
    for (part, name) in chain.0.chunks_exact_mut(8).zip(CHAIN) {
        part.copy_from_slice(&number(name)?.to_le_bytes());
    }
    let chain = meta.get(CHAIN[0]).map_err(storage)?.map(|_| chain);
    Ok(Covered {
        lsn: Lsn(number("covered")?),
        now: Millis(number("now_ms")?),
        issued: Millis(number("issued_ms")?),
        ahead_ms: number("ahead_ms")?,
        chain,
    })
}

/// A move of the snapshot to a later LSN; nothing of it shows before [`SnapshotStep::commit`].
pub struct SnapshotStep {
    write: WriteTransaction,
    sum: Cell<RowSum>,
}

impl SnapshotStep {
    /// Reads the rows named into a ledger that owns all skus.
    pub fn load(
        &self,
        ledger: &mut Ledger,
        skus: &[SkuId],
        reservations: &[ReservationId],
    ) -> Result<(), SnapshotError> {
        let table = self.write.open_table(SKUS).map_err(storage)?;
        for sku in skus {
            if let Some(bytes) = table.get(sku.0).map_err(storage)? {
                let state = decode_sku(bytes.value())
                    .ok_or_else(|| SnapshotError::Damaged { table: "skus", key: sku.to_string() })?;
                ledger.load_sku(*sku, &state);
            }
        }
        let table = self.write.open_table(RESERVATIONS).map_err(storage)?;
        for id in reservations {
            if let Some(bytes) = table.get(id.0).map_err(storage)? {
                let (reservation, customer, labels) = decode_reservation(bytes.value())
                    .ok_or_else(|| SnapshotError::Damaged { table: "reservations", key: id.to_string() })?;
                ledger.load_reservation(*id, &reservation, customer, &labels);
            }
        }
        Ok(())
    }

    /// Writes the rows named back.
    pub fn store(
        &self,
        ledger: &Ledger,
        skus: &[SkuId],
        reservations: &[ReservationId],
        at: Lsn,
    ) -> Result<(), SnapshotError> {
        let mut sum = self.sum.get();
        let mut table = self.write.open_table(SKUS).map_err(storage)?;
        for sku in skus {
            let state = ledger.sku_state(*sku);
            if state != SkuState::default() {
                sum.put(SKUS, &mut table, sku.0, encode_sku(&state).as_slice())?;
            }
        }
        let mut table = self.write.open_table(RESERVATIONS).map_err(storage)?;
        let mut ended = self.write.open_table(ENDED).map_err(storage)?;
        for id in reservations {
            let Some(reservation) = ledger.reservations().find(*id, at) else { continue };
            let reservations = ledger.reservations();
            let row = encode_reservation(reservation, reservations.counted(*id), reservations.labels(*id));
            sum.put(RESERVATIONS, &mut table, id.0, row.as_slice())?;
            if !reservation.state.is_active() {
                sum.put(ENDED, &mut ended, (reservation.ended().0, id.0), ())?;
            }
        }
        let forgotten = at.0.saturating_sub(limit::ENDED_RESERVATION_LSNS);
        let old = ended.extract_from_if(..(forgotten, 0), |_, ()| true).map_err(storage)?;
        for pair in old {
            let (lsn, id) = pair.map_err(storage)?.0.value();
            sum.remove(ENDED, &(lsn, id), &());
            let same = match table.get(id).map_err(storage)? {
                Some(bytes) => {
                    decode_reservation(bytes.value()).is_some_and(|(found, ..)| found.ended() == Lsn(lsn))
                }
                None => false,
            };
            if same && let Some(row) = table.remove(id).map_err(storage)? {
                sum.remove(RESERVATIONS, &id, &row.value());
            }
        }
        let mut meta = self.write.open_table(META).map_err(storage)?;
        for (name, change) in OUTSIDE.into_iter().zip(ledger.outside()) {
            let sum = meta.get(name).map_err(storage)?.map_or(0, |found| found.value() as i64) + change;
            meta.insert(name, sum as u64).map_err(storage)?;
        }
        let mut pace = self.write.open_table(PACE).map_err(storage)?;
        for Given { node, quarter, units } in ledger.pace.iter() {
            let key = (node.0, (quarter % QUARTERS_PER_DAY) as u8);
            let before = pace.get(key).map_err(storage)?.map_or((0, 0), |found| found.value());
            // The ledger has only what came since the last step.
            let units = if before.0 == quarter { before.1.saturating_add(units) } else { units };
            sum.put(PACE, &mut pace, key, (quarter, units))?;
        }
        self.sum.set(sum);
        Ok(())
    }

    /// Writes an entry of the catalogue.
    pub fn define(&self, definition: &Definition) -> Result<(), SnapshotError> {
        let kind = match definition {
            Definition::Sku { name } => {
                let mut table = self.write.open_table(NAMES).map_err(storage)?;
                let next = table.len().map_err(storage)? as u32;
                let mut sum = self.sum.get();
                sum.put(NAMES, &mut table, next, name.as_str())?;
                self.sum.set(sum);
                return Ok(());
            }
            Definition::Node { .. } => 2,
            Definition::Group { .. } => 3,
            Definition::Channel { .. } => 4,
            Definition::Principal { .. } => 5,
            Definition::SkuData { .. } => 6,
            Definition::Rule { .. } => 7,
            Definition::Zone { .. } => 8,
            Definition::Webhook { .. } => 9,
        };
        let mut table = self.write.open_table(DEFINITIONS).map_err(storage)?;
        let order = table.get((kind, definition.name())).map_err(storage)?.map(|found| found.value().0);
        let order = match order {
            Some(order) => order,
            None => table.len().map_err(storage)? as u32,
        };
        let bytes = archive(&DefinitionList::of([definition]));
        let mut sum = self.sum.get();
        sum.put(DEFINITIONS, &mut table, (kind, definition.name()), (order, bytes.as_slice()))?;
        self.sum.set(sum);
        Ok(())
    }

    pub fn commit(self, covered: Covered) -> Result<(), SnapshotError> {
        {
            let mut meta = self.write.open_table(META).map_err(storage)?;
            meta.insert("covered", covered.lsn.0).map_err(storage)?;
            meta.insert("now_ms", covered.now.0).map_err(storage)?;
            meta.insert("issued_ms", covered.issued.0).map_err(storage)?;
            meta.insert("ahead_ms", covered.ahead_ms).map_err(storage)?;
            for (part, name) in covered.chain.iter().flat_map(|chain| chain.0.chunks_exact(8)).zip(CHAIN) {
                let part = u64::from_le_bytes(part.try_into().expect("chunks of eight"));
                meta.insert(name, part).map_err(storage)?;
            }
            self.sum.get().store(&mut meta)?;
        }
        self.write.commit().map_err(storage)
    }
}
