//! What followers are told: what happened from one LSN on, as far as an answer holds it.

use stockline_core::id::{Lsn, SkuId};
use stockline_core::limit;
use stockline_core::wire::NoticeRec;

/// What happened, as the journal says it.
#[derive(Default, Debug)]
pub struct Found {
    /// The first LSN that was not looked at.
    pub next: Lsn,
    pub notices: Vec<NoticeRec>,
    /// Skus of which there may be more or less.
    pub skus: Vec<SkuId>,
    /// Any sku may be another, because something was defined.
    pub redefined: bool,
}

impl Found {
    /// Whether more fits into an answer.
    pub fn has_room(&self) -> bool {
        self.notices.len() < limit::FOLLOW_NOTICES_MAX && self.skus.len() < limit::FOLLOW_SKUS_MAX
    }

    /// Adds what happened after it.
    pub fn append(&mut self, more: Found) {
        self.next = more.next;
        self.redefined |= more.redefined;
        self.notices.extend(more.notices);
        self.skus.extend(more.skus);
        self.skus.sort_unstable();
        self.skus.dedup();
    }
}
