//! The published view: what is free at every position, for readers that never wait.
//!
//! One writer publishes what is durable; any number of readers look at dense cells without a lock or a
//! queue. A cell keeps its last two versions with their LSNs. A reader takes `durable` once and picks in each
//! cell the newest version not beyond it, so an answer over many positions is the one state of that LSN; only
//! where both versions are newer it starts again. Cells and rows are never moved or freed while the view
//! lives: a row that grows is copied, and readers of the old one still find what they need there.

mod cell;

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;

use crate::catalogue::{ChannelRule, NodeSet, Rules};
use crate::drill::{self, Bug, planted};
use crate::id::{Lsn, NodeId, SkuId};
use crate::limit;
use crate::sync::{self, AtomicU64, Ordering};
use cell::Cell;
pub use cell::Stale;

const CHUNK_BITS: usize = 14;
const CHUNK: usize = 1 << CHUNK_BITS;
const ROW_CHUNKS: usize = limit::SKUS_MAX >> CHUNK_BITS;
/// Twice what the door lets in: what was let in before it noticed finds room too.
const CELL_CHUNKS: usize = (2 * limit::VIEW_CELLS_MAX) >> CHUNK_BITS;

/// An array that grows by chunks and never moves.
struct Chunked<T> {
    chunks: Box<[OnceLock<Box<[T]>>]>,
}

impl<T: Default> Chunked<T> {
    fn new(chunks: usize) -> Chunked<T> {
        Chunked { chunks: (0..chunks).map(|_| OnceLock::new()).collect() }
    }

    fn get(&self, at: usize) -> Option<&T> {
        Some(&self.chunks.get(at >> CHUNK_BITS)?.get()?[at & (CHUNK - 1)])
    }

    /// For the writer: makes the chunk if it is not there.
    fn reach(&self, at: usize) -> &T {
        let chunk = self.chunks[at >> CHUNK_BITS].get_or_init(|| (0..CHUNK).map(|_| T::default()).collect());
        &chunk[at & (CHUNK - 1)]
    }
}

const _: () = assert!(size_of::<Cell>() == 32);
const _: () = assert!(limit::BUCKET_UNITS_MAX * 2 < 1 << 47);

/// The value of a version: the node in the top 16 bits, the units free in the other 48.
fn pack(node: NodeId, free: i64) -> u64 {
    u64::from(node.0) << 48 | (free as u64 & ((1 << 48) - 1))
}

fn unpack(value: u64) -> (NodeId, i64) {
    (NodeId((value >> 48) as u16), (value << 16) as i64 >> 16)
}

/// Where a sku's cells are: start, room and count in 32, 16 and 16 bits.
#[derive(Clone, Copy)]
struct Row {
    start: usize,
    room: usize,
    len: usize,
}

impl Row {
    fn unpack(word: u64) -> Row {
        Row {
            start: (word >> 32) as usize,
            room: (word >> 16) as usize & 0xffff,
            len: word as usize & 0xffff,
        }
    }

    fn pack(self) -> u64 {
        (self.start as u64) << 32 | (self.room as u64) << 16 | self.len as u64
    }
}

/// Rules and the LSN from which they hold.
struct PublishedRules {
    since: Lsn,
    rules: Arc<Rules>,
}

/// What readers share.
pub struct View {
    rows: Chunked<AtomicU64>,
    cells: Chunked<Cell>,
    durable: AtomicU64,
    rules: ArcSwap<PublishedRules>,
}

/// How much a channel can be promised of a sku.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Available {
    pub units: i64,
    /// Whether the sku has a position anywhere.
    pub known: bool,
}

/// A look at one state.
pub struct Reader<'a> {
    view: &'a View,
    pub as_of: Lsn,
    pub rules: &'a Rules,
}

impl Reader<'_> {
    /// Calls `each` with every position of a sku; says whether there is one.
    pub fn positions(&self, sku: SkuId, each: impl FnMut(NodeId, i64)) -> Result<bool, Stale> {
        self.view.positions_as_of(self.as_of, sku, each)
    }

    /// Units a channel can be promised, within a group if one is given: what is free at each of its nodes,
    /// a deficit at one never counted against another, less the channel's buffer. `each` hears of every
    /// node that has some.
    pub fn available(
        &self,
        channel: &ChannelRule,
        group: Option<&NodeSet>,
        sku: SkuId,
        mut each: impl FnMut(NodeId, i64),
    ) -> Result<Available, Stale> {
        let (mut offered, mut units) = (0, 0);
        let known = self.positions(sku, |node, free| {
            if (free > 0 || planted(Bug::SpreadDeficit)) && channel.nodes.contains(node) {
                offered += free;
                if group.is_none_or(|group| group.contains(node)) {
                    units += free;
                    each(node, free);
                }
            }
        })?;
        let units = units.min(offered - i64::from(channel.buffer)).max(0);
        Ok(Available { units, known })
    }
}

impl View {
    /// An empty view and its only writer.
    pub fn new(rules: Arc<Rules>) -> (Arc<View>, Publisher) {
        let view = Arc::new(View {
            rows: Chunked::new(ROW_CHUNKS),
            cells: Chunked::new(CELL_CHUNKS),
            durable: AtomicU64::new(0),
            rules: ArcSwap::from_pointee(PublishedRules { since: Lsn::NONE, rules }),
        });
        let publisher = Publisher { view: Arc::clone(&view), next: 0 };
        (view, publisher)
    }

    /// Everything up to here is on disk and published.
    pub fn durable(&self) -> Lsn {
        Lsn(self.durable.load(Ordering::Acquire))
    }

    /// Calls `each` with every position of a sku as of a durable LSN; says whether there is one.
    pub fn positions_as_of(
        &self,
        as_of: Lsn,
        sku: SkuId,
        mut each: impl FnMut(NodeId, i64),
    ) -> Result<bool, Stale> {
        let Some(row) = self.rows.get(sku.0 as usize) else { return Ok(false) };
        let row = Row::unpack(row.load(Ordering::Acquire));
        let mut known = false;
        for at in row.start..row.start + row.len {
            let cell = self.cells.get(at).expect("a row's cells were made before the row");
            let (node, free) = unpack(cell.read(as_of.0)?);
            // A cell newer than this state reads as its empty beginning.
            if node != NodeId::ANY {
                known = true;
                each(node, free);
            }
        }
        Ok(known)
    }

    /// Answers a question from one state; `ask` may be called again where it met [`Stale`]. That is rare and
    /// bounded: a question about so much that it never gets through is given up.
    pub fn read<A>(&self, mut ask: impl FnMut(&Reader<'_>) -> Result<A, Stale>) -> Result<(Lsn, A), Stale> {
        let mut attempts = 0;
        while attempts < limit::QUERY_ATTEMPTS_MAX {
            let as_of = self.durable();
            let published = self.rules.load();
            if published.since > as_of {
                // New rules are stored and their LSN is about to be raised: a matter of one publication.
                std::hint::spin_loop();
                continue;
            }
            let reader = Reader { view: self, as_of, rules: &published.rules };
            if let Ok(answer) = ask(&reader) {
                return Ok((as_of, answer));
            }
            attempts += 1;
        }
        Err(Stale)
    }
}

/// The only writer of a [`View`].
pub struct Publisher {
    view: Arc<View>,
    /// The next cell never used.
    next: usize,
}

impl Publisher {
    /// Stores what is free at a position as of `lsn`, which is not durable yet: no reader sees it before
    /// [`Publisher::raise`].
    pub fn store(&mut self, sku: SkuId, node: NodeId, free: i64, lsn: Lsn) {
        let view = Arc::clone(&self.view);
        let durable = view.durable.load(Ordering::Relaxed);
        let word = view.rows.reach(sku.0 as usize);
        let mut row = Row::unpack(word.load(Ordering::Relaxed));
        let newest = |cell: &Cell| {
            let lsns = [0, 1].map(|index| cell.versions[index].lsn.load(Ordering::Relaxed));
            let index = usize::from(lsns[1] > lsns[0]);
            unpack(cell.versions[index].value.load(Ordering::Relaxed))
        };
        for at in row.start..row.start + row.len {
            let cell = view.cells.reach(at);
            if newest(cell).0 == node {
                cell.write(durable, lsn.0, pack(node, free));
                return;
            }
        }
        if row.len == row.room {
            let room = (row.room * 2).clamp(1, limit::NODES_MAX);
            let start = self.next;
            self.next += room;
            for index in 0..row.len {
                let (old, new) = (view.cells.reach(row.start + index), view.cells.reach(start + index));
                for (from, to) in old.versions.iter().zip(&new.versions) {
                    to.value.store(from.value.load(Ordering::Relaxed), Ordering::Relaxed);
                    to.lsn.store(from.lsn.load(Ordering::Relaxed), Ordering::Relaxed);
                }
            }
            row = Row { start, room, len: row.len };
        }
        let cell = view.cells.reach(row.start + row.len);
        let [empty, first] = &cell.versions;
        empty.value.store(pack(NodeId::ANY, 0), Ordering::Relaxed);
        empty.lsn.store(0, Ordering::Relaxed);
        first.value.store(pack(node, free), Ordering::Relaxed);
        first.lsn.store(lsn.0, Ordering::Relaxed);
        row.len += 1;
        word.store(row.pack(), Ordering::Release);
    }

    /// Cells in use.
    pub fn cells(&self) -> usize {
        self.next
    }

    /// Stores rules that hold from `lsn` on, which is not durable yet.
    pub fn store_rules(&mut self, rules: Arc<Rules>, lsn: Lsn) {
        self.view.rules.store(Arc::new(PublishedRules { since: lsn, rules }));
    }

    /// Everything up to `lsn` is on disk and stored: readers see it from now on.
    pub fn raise(&mut self, lsn: Lsn) {
        self.view.durable.store(lsn.0, Ordering::Release);
    }
}
