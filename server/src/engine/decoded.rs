//! The latest journal records that followers read, decoded once for all of them.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use stockline_core::id::Lsn;
use stockline_core::journal::{Decoded, JournalError, decode};
use stockline_core::limit::FOLLOW_RECORDS_KEPT;

/// A record with its first LSN.
type Kept = ArcSwapOption<(Lsn, Arc<Decoded>)>;

/// Each in a place that its first LSN says; another takes it over.
#[derive(Default)]
pub(super) struct DecodedRecords([Kept; FOLLOW_RECORDS_KEPT]);

impl DecodedRecords {
    /// The record that begins with an LSN.
    pub(super) fn get(&self, first: Lsn, bytes: &[u8]) -> Result<Arc<Decoded>, JournalError> {
        // Records of busy hours have hundreds of commands: neighbours are spread by all bits of their LSNs.
        let at = (first.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % FOLLOW_RECORDS_KEPT;
        if let Some(kept) = &*self.0[at].load()
            && kept.0 == first
        {
            return Ok(Arc::clone(&kept.1));
        }
        let decoded = Arc::new(decode(first, bytes)?);
        self.0[at].store(Some(Arc::new((first, Arc::clone(&decoded)))));
        Ok(decoded)
    }
}
