//! The published view: what every place offers, for readers that never wait.
//!
//! A sku has a row of cells, one a node, for what all channels share, and one more for each channel that has an
//! allocation of it: whoever asks for one channel reads that one's rows and no other's.
//!
//! One writer publishes what is durable; any number of readers look at dense cells without a lock or a
//! queue. A cell keeps its last two versions with their LSNs. A reader takes `durable` once and picks in each
//! cell the newest version not beyond it, so an answer over many positions is the one state of that LSN; only
//! where both versions are newer it starts again. Cells and rows are never moved or freed while the view
//! lives: a row that grows is copied, and readers of the old one still find what they need there.

mod cell;

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;

use smallvec::SmallVec;

use crate::bucket::Place;
use crate::catalogue::{ChannelRule, NodeSet, Rules};
use crate::cover::{Cover, Demands};
use crate::drill::{self, Bug, planted};
use crate::id::{ChannelId, Lsn, Millis, NodeId, SkuId};
use crate::later::{self, Asked, Item, Supplies, Supply};
use crate::ledger::THERE;
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

/// The value of a version: the node in the top 16 bits, what it offers in the other 48.
fn pack(node: NodeId, offer: i64) -> u64 {
    u64::from(node.0) << 48 | (offer as u64 & ((1 << 48) - 1))
}

fn unpack(value: u64) -> (NodeId, i64) {
    (NodeId((value >> 48) as u16), (value << 16) as i64 >> 16)
}

/// Where the cells of a row are: start, room and count in 32, 14 and 14 bits, and three bits, for a sku of which some
/// channel has, or had, an allocation, for one that has, or had, supplies, and for one of which units are, or were,
/// claimed of groups.
#[derive(Clone, Copy)]
struct Row {
    start: usize,
    room: usize,
    len: usize,
    allocated: bool,
    later: bool,
    grouped: bool,
}

const GROUPED: u64 = 1 << 31;
const ALLOCATED: u64 = 1 << 15;
/// A bit for a sku that has, or had, supplies to come.
const LATER: u64 = 1 << 14;
/// Cells of a row.
const ROW_MAX: usize = LATER as usize - 1;
const _: () = assert!(later::ITEMS_MAX <= ROW_MAX && limit::NODES_MAX + limit::GROUPS_MAX < ROW_MAX);

impl Row {
    fn unpack(word: u64) -> Row {
        Row {
            start: (word >> 32) as usize,
            room: (word >> 16) as usize & ROW_MAX,
            len: (word & (LATER - 1)) as usize,
            allocated: word & ALLOCATED != 0,
            later: word & LATER != 0,
            grouped: word & GROUPED != 0,
        }
    }

    fn pack(self) -> u64 {
        let allocated = if self.allocated { ALLOCATED } else { 0 };
        let later = if self.later { LATER } else { 0 };
        let grouped = if self.grouped { GROUPED } else { 0 };
        (self.start as u64) << 32 | grouped | (self.room as u64) << 16 | allocated | later | self.len as u64
    }
}

/// Rules and the LSN from which they hold.
struct PublishedRules {
    since: Lsn,
    rules: Arc<Rules>,
}

/// What readers share.
pub struct View {
    /// By sku, for what all share.
    rows: Chunked<AtomicU64>,
    /// Rows of allocations, and which of them is whose. Entries are made once and never changed.
    allocation_rows: Chunked<AtomicU64>,
    allocations: papaya::HashMap<(SkuId, ChannelId), u32>,
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

/// What a channel can wait for of a sku.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Later {
    /// Units that it could claim now.
    pub units: i64,
    /// When the first of them is there.
    pub from: Millis,
    /// Of these, units that are there by the date that was asked for.
    pub by_date: i64,
    /// It is not out yet.
    pub preorder: bool,
}

/// A look at one state.
pub struct Reader<'a> {
    view: &'a View,
    pub as_of: Lsn,
    pub rules: &'a Rules,
}

impl Reader<'_> {
    /// Calls `each` with what every position of a sku offers to all; says whether there is one.
    pub fn positions(&self, sku: SkuId, each: impl FnMut(NodeId, i64)) -> Result<bool, Stale> {
        let Some(row) = self.view.rows.get(sku.0 as usize) else { return Ok(false) };
        self.view.each_cell(self.as_of, Row::unpack(row.load(Ordering::Acquire)), each)
    }

    /// Units a channel can be promised, within a group if one is given: what its own allocation and those of the
    /// channels above it have at its nodes, and what is free there, a deficit at one never counted against another,
    /// less the channel's buffer. `each` hears of every node that has some.
    pub fn available(
        &self,
        channel: &ChannelRule,
        group: Option<&NodeSet>,
        sku: SkuId,
        mut each: impl FnMut(NodeId, i64),
    ) -> Result<Available, Stale> {
        let Some(row) = self.view.rows.get(sku.0 as usize) else { return Ok(Available::default()) };
        let row = Row::unpack(row.load(Ordering::Acquire));
        if row.allocated || row.grouped {
            return self.available_with_own(channel, group, sku, row, each);
        }
        let withheld = self.withheld(channel, sku);
        let (mut offered, mut units) = (0, 0);
        let known = self.view.each_cell(self.as_of, row, |node, free| {
            let free = free - withheld(node);
            if (free > 0 || planted(Bug::SpreadDeficit)) && channel.nodes.contains(node) {
                offered += free;
                if group.is_none_or(|group| group.contains(node)) {
                    units += free;
                    each(node, free);
                }
            }
        })?;
        let units = units.min(offered - i64::from(channel.buffer)).max(0);
        Ok(Available { units: channel.policy.capped(units), known })
    }

    /// What a channel could claim at `now` of supplies to come, within a group if one is given.
    pub fn later(
        &self,
        (now, date): (Millis, Millis),
        channel: &ChannelRule,
        group: Option<&NodeSet>,
        sku: SkuId,
    ) -> Result<Later, Stale> {
        let (rules, mut found) = (&self.rules.skus, Later::default());
        if !rules.waits() {
            return Ok(found);
        }
        let Some(profile) = rules.profile(sku).filter(|profile| profile.waits()) else { return Ok(found) };
        let word = self.view.rows.get(sku.0 as usize).map_or(0, |row| row.load(Ordering::Acquire));
        if !Row::unpack(word).later {
            return Ok(found);
        }
        let place = Item::Open(0).place(sku);
        let Some(row) = self.view.row_word(place) else { return Ok(found) };
        // By number, and behind them what no supply serves.
        let none = Supply { node: NodeId::ANY, open: 0, eta: THERE, order: 0, pool: ChannelId::NO_SUPPLY };
        let (mut supplies, mut unserved) = (Supplies::new(), Supplies::new());
        let (mut waiting, mut all, mut own) = (0, 0, 0);
        self.view.each_cell(self.as_of, Row::unpack(row.load(Ordering::Acquire)), |index, number| {
            let item = Item::at(index.0);
            if let Item::Node(at) | Item::Open(at) | Item::Date(at) = item {
                let at = usize::from(at);
                if supplies.len() <= at {
                    supplies.resize(at + 1, none);
                }
                match item {
                    Item::Node(_) => supplies[at].node = NodeId(number as u16),
                    Item::Open(_) => supplies[at].open = number,
                    _ => supplies[at].eta = Millis(number as u64),
                }
            }
            match item {
                Item::Unserved(node) => unserved.push(Supply { node, open: -number, ..none }),
                Item::Waiting(who) if who == channel.id() => {
                    (waiting, own) = later::units_and_waiters(number);
                }
                Item::Waiters => all = number,
                _ => {}
            }
        })?;
        if limit::waiting_is_full(all, own) {
            return Ok(found);
        }
        supplies.append(&mut unserved);
        let (rules, node) = (self.rules, NodeId::ANY);
        let asked = Asked { now, rules, profile, channel, group, node, waiting };
        asked.claimable(
            supplies,
            |_| i64::MAX,
            |supply, units, preorder| {
                if found.units == 0 {
                    (found.from, found.preorder) = (supply.eta, preorder);
                }
                found.units += units;
                if supply.eta <= date {
                    found.by_date += units;
                }
            },
        );
        Ok(found)
    }

    /// Units that rules by sku withhold from a channel at a node.
    fn withheld(&self, channel: &ChannelRule, sku: SkuId) -> impl Fn(NodeId) -> i64 {
        let (rules, channel) = (&self.rules.skus, channel.id());
        let profile = rules.profile(sku).filter(|_| !planted(Bug::ShowWithheld));
        move |node| profile.map_or(0, |profile| i64::from(rules.withheld(profile, node, channel)))
    }

    /// The same where channels have allocations of the sku, or units of it are claimed of groups.
    fn available_with_own(
        &self,
        channel: &ChannelRule,
        group: Option<&NodeSet>,
        sku: SkuId,
        row: Row,
        mut each: impl FnMut(NodeId, i64),
    ) -> Result<Available, Stale> {
        /// Node, units free, units of the channel's pools, and how many of those can really be there.
        type Node = (NodeId, i64, i64, i64);
        let withheld = self.withheld(channel, sku);
        let mut nodes: SmallVec<[Node; 16]> = SmallVec::new();
        let mut demands = Demands::new();
        let known = self.view.each_cell(self.as_of, row, |node, offer| {
            if let Some(group) = node.group() {
                demands.extend((offer < 0).then_some((group, -offer)));
                return;
            }
            let there = if offer >= 0 { i64::MAX } else { -1 - offer };
            nodes.push((node, (offer - withheld(node)).max(0), 0, there));
        })?;
        let usable = nodes.iter().map(|(node, free, ..)| (*node, *free));
        let mut cover = (!demands.is_empty()).then(|| Cover::new(self.rules, &demands, usable));
        // Of the nodes looked at so far, what claims on groups leave.
        let (mut of_offered, mut of_group) = (cover.clone(), cover.clone());
        nodes.retain(|(node, ..)| channel.nodes.contains(*node));
        for pool in &channel.pools {
            let found = self.view.allocations.pin().get(&(sku, *pool)).copied();
            let Some(row) = found.and_then(|at| self.view.allocation_rows.get(at as usize)) else { continue };
            self.view.each_cell(self.as_of, Row::unpack(row.load(Ordering::Acquire)), |node, units| {
                if let Some(found) = nodes.iter_mut().find(|found| found.0 == node) {
                    found.2 += units;
                }
            })?;
        }
        let (mut offered, mut shared, mut own) = (0, 0, 0);
        for (node, free, allocated, there) in nodes {
            let allocated = allocated.min(there);
            let of = |cover: &mut Option<Cover>| match cover {
                None => free,
                Some(cover) => cover.take_all(self.rules, [(node, free)].into_iter()),
            };
            offered += of(&mut of_offered);
            if group.is_none_or(|group| group.contains(node)) {
                shared += of(&mut of_group);
                own += allocated;
                let free = cover.as_mut().map_or(free, |cover| cover.room(self.rules, node, free));
                if free + allocated > 0 {
                    each(node, free + allocated);
                }
            }
        }
        let shared = shared.min(offered - i64::from(channel.buffer)).max(0);
        Ok(Available { units: channel.policy.capped(own + shared), known })
    }
}

impl View {
    /// An empty view and its only writer.
    pub fn new(rules: Arc<Rules>) -> (Arc<View>, Publisher) {
        let view = Arc::new(View {
            rows: Chunked::new(ROW_CHUNKS),
            allocation_rows: Chunked::new(CELL_CHUNKS),
            allocations: papaya::HashMap::new(),
            cells: Chunked::new(CELL_CHUNKS),
            durable: AtomicU64::new(0),
            rules: ArcSwap::from_pointee(PublishedRules { since: Lsn::NONE, rules }),
        });
        let publisher = Publisher { view: Arc::clone(&view), next: 0, next_allocation: 0 };
        (view, publisher)
    }

    /// Everything up to here is on disk and published.
    pub fn durable(&self) -> Lsn {
        Lsn(self.durable.load(Ordering::Acquire))
    }

    /// Calls `each` with every cell of a row as of a durable LSN; says whether there is one.
    fn each_cell(&self, as_of: Lsn, row: Row, mut each: impl FnMut(NodeId, i64)) -> Result<bool, Stale> {
        let mut known = false;
        for at in row.start..row.start + row.len {
            let cell = self.cells.get(at).expect("a row's cells were made before the row");
            let (node, offer) = unpack(cell.read(as_of.0)?);
            // A cell newer than this state reads as its empty beginning.
            if node != NodeId::ANY {
                known = true;
                each(node, offer);
            }
        }
        Ok(known)
    }

    /// What a place offers as of a durable LSN; `None` where nothing is known of it.
    pub fn offer_as_of(&self, as_of: Lsn, place: Place) -> Result<Option<i64>, Stale> {
        let Some(row) = self.row_word(place) else { return Ok(None) };
        let mut told = None;
        self.each_cell(as_of, Row::unpack(row.load(Ordering::Acquire)), |node, offer| {
            if node == place.node {
                told = Some(offer);
            }
        })?;
        Ok(told)
    }

    fn row_word(&self, place: Place) -> Option<&AtomicU64> {
        if place.pool == ChannelId::SHARED {
            return self.rows.get(place.sku.0 as usize);
        }
        let at = self.allocations.pin().get(&(place.sku, place.pool)).copied()?;
        self.allocation_rows.get(at as usize)
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
    /// The next cell never used, and the next row of an allocation.
    next: usize,
    next_allocation: u32,
}

impl Publisher {
    /// The word of a place's row; made if it is not there.
    fn reach<'a>(&mut self, view: &'a View, Place { sku, pool, .. }: Place) -> &'a AtomicU64 {
        if pool == ChannelId::SHARED {
            return view.rows.reach(sku.0 as usize);
        }
        let known = view.allocations.pin().get(&(sku, pool)).copied();
        let at = known.unwrap_or_else(|| {
            let at = self.next_allocation;
            self.next_allocation += 1;
            view.allocation_rows.reach(at as usize);
            view.allocations.pin().insert((sku, pool), at);
            let flag = if pool == ChannelId::SUPPLIES { LATER } else { ALLOCATED };
            // Whoever sees the bit finds the row; what is in it, no reader may see before it is raised.
            view.rows.reach(sku.0 as usize).fetch_or(flag, Ordering::Release);
            at
        });
        view.allocation_rows.reach(at as usize)
    }

    /// Stores what a place offers as of `lsn`, which is not durable yet: no reader sees it before
    /// [`Publisher::raise`]. A position offers its units free; where there are none, -1 less the units of its
    /// allocations that are really there. An allocation offers its units.
    pub fn store(&mut self, place: Place, offer: i64, lsn: Lsn) {
        let view = Arc::clone(&self.view);
        let node = place.node;
        let durable = view.durable.load(Ordering::Relaxed);
        let word = self.reach(&view, place);
        let mut row = Row::unpack(word.load(Ordering::Relaxed));
        let newest = |cell: &Cell| {
            let lsns = [0, 1].map(|index| cell.versions[index].lsn.load(Ordering::Relaxed));
            let index = usize::from(lsns[1] > lsns[0]);
            unpack(cell.versions[index].value.load(Ordering::Relaxed))
        };
        for at in row.start..row.start + row.len {
            let cell = view.cells.reach(at);
            if newest(cell).0 == node {
                cell.write(durable, lsn.0, pack(node, offer));
                return;
            }
        }
        if row.len == row.room {
            let room = (row.room * 2).clamp(1, ROW_MAX);
            let start = self.next;
            self.next += room;
            for index in 0..row.len {
                let (old, new) = (view.cells.reach(row.start + index), view.cells.reach(start + index));
                for (from, to) in old.versions.iter().zip(&new.versions) {
                    to.value.store(from.value.load(Ordering::Relaxed), Ordering::Relaxed);
                    to.lsn.store(from.lsn.load(Ordering::Relaxed), Ordering::Relaxed);
                }
            }
            row = Row { start, room, ..row };
        }
        let cell = view.cells.reach(row.start + row.len);
        let [empty, first] = &cell.versions;
        empty.value.store(pack(NodeId::ANY, 0), Ordering::Relaxed);
        empty.lsn.store(0, Ordering::Relaxed);
        first.value.store(pack(node, offer), Ordering::Relaxed);
        first.lsn.store(lsn.0, Ordering::Relaxed);
        row.len += 1;
        row.grouped |= node.is_group();
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
