//! The sum of the hashes of all rows of a snapshot, kept beside them: whoever reads all of them knows that they are those
//! that were written. It knows tables, and nothing of what rows say.

use redb::{ReadableTable, TableDefinition, TableHandle};
use xxhash_rust::xxh3::Xxh3;

use super::{SnapshotError, storage};

const ROWS: [&str; 2] = ["rows_0", "rows_1"];
const CHECK: &str = "check";

/// Sum of the hashes of rows, whatever their order.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct RowSum(u128);

impl RowSum {
    fn hash<K: redb::Key, V: redb::Value>(
        table: TableDefinition<'_, K, V>,
        key: &K::SelfType<'_>,
        value: &V::SelfType<'_>,
    ) -> u128 {
        let (key, value) = (K::as_bytes(key), V::as_bytes(value));
        let mut hasher = Xxh3::new();
        hasher.update(table.name().as_bytes());
        hasher.update(&(key.as_ref().len() as u64).to_le_bytes());
        hasher.update(key.as_ref());
        hasher.update(value.as_ref());
        hasher.digest128()
    }

    pub(super) fn add<K: redb::Key, V: redb::Value>(
        &mut self,
        table: TableDefinition<'_, K, V>,
        key: &K::SelfType<'_>,
        value: &V::SelfType<'_>,
    ) {
        self.0 = self.0.wrapping_add(RowSum::hash(table, key, value));
    }

    pub(super) fn remove<K: redb::Key, V: redb::Value>(
        &mut self,
        table: TableDefinition<'_, K, V>,
        key: &K::SelfType<'_>,
        value: &V::SelfType<'_>,
    ) {
        self.0 = self.0.wrapping_sub(RowSum::hash(table, key, value));
    }

    /// Writes a row in place of what was there.
    pub(super) fn put<K: redb::Key, V: redb::Value>(
        &mut self,
        definition: TableDefinition<'_, K, V>,
        table: &mut redb::Table<'_, K, V>,
        key: K::SelfType<'_>,
        value: V::SelfType<'_>,
    ) -> Result<(), SnapshotError> {
        self.add(definition, &key, &value);
        let copy = K::as_bytes(&key).as_ref().to_vec();
        if let Some(before) = table.insert(key, value).map_err(storage)? {
            self.remove(definition, &K::from_bytes(&copy), &before.value());
        }
        Ok(())
    }

    /// Adds every row of a table.
    pub(super) fn add_all<K: redb::Key, V: redb::Value>(
        &mut self,
        definition: TableDefinition<'_, K, V>,
        table: &impl ReadableTable<K, V>,
    ) -> Result<(), SnapshotError> {
        for pair in table.iter().map_err(storage)? {
            let (key, value) = pair.map_err(storage)?;
            self.add(definition, &key.value(), &value.value());
        }
        Ok(())
    }

    /// Reads the sum that is stored, if what it stands among is sound.
    pub(super) fn stored(meta: &impl ReadableTable<&'static str, u64>) -> Result<RowSum, SnapshotError> {
        let number =
            |name| Ok::<_, SnapshotError>(meta.get(name).map_err(storage)?.map(|found| found.value()));
        if number(CHECK)? != Some(check_of(meta)?) {
            return Err(SnapshotError::Unsound("its meta table is not what was written"));
        }
        let part = |number: Option<u64>| {
            number.map(u128::from).ok_or(SnapshotError::Unsound("its sum of rows is missing"))
        };
        Ok(RowSum(part(number(ROWS[0])?)? | part(number(ROWS[1])?)? << 64))
    }

    /// Writes the sum, and the check of the table that it stands in: the last thing of a transaction.
    pub(super) fn store(self, meta: &mut redb::Table<'_, &'static str, u64>) -> Result<(), SnapshotError> {
        meta.insert(ROWS[0], self.0 as u64).map_err(storage)?;
        meta.insert(ROWS[1], (self.0 >> 64) as u64).map_err(storage)?;
        let check = check_of(meta)?;
        meta.insert(CHECK, check).map_err(storage)?;
        Ok(())
    }
}

/// The hash of a meta table but for itself.
fn check_of(meta: &impl ReadableTable<&'static str, u64>) -> Result<u64, SnapshotError> {
    let mut hasher = Xxh3::new();
    for pair in meta.iter().map_err(storage)? {
        let (name, number) = pair.map_err(storage)?;
        if name.value() != CHECK {
            hasher.update(&(name.value().len() as u64).to_le_bytes());
            hasher.update(name.value().as_bytes());
            hasher.update(&number.value().to_le_bytes());
        }
    }
    Ok(hasher.digest())
}
