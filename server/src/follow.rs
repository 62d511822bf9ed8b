//! Following: what happened from an LSN on, read out of the journal by whoever asks, when they ask.
//!
//! A follower keeps its own cursor, so nobody is kept waiting by one that is slow, and one that comes back misses
//! nothing. An answer waits until there is something to tell.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use stockline_core::catalogue::{NameKind, Principal, Role};
use stockline_core::id::{ChannelId, Lsn, Millis, SkuId};
use stockline_core::limit;
use stockline_core::outcome::Code;
use stockline_core::view::Stale;
use stockline_core::wire::{ChangeRec, Changes, Follow};
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until};

use crate::access::Turned;
use crate::availability::{self, Status};
use crate::engine::{Engine, Found};

/// How long an answer reads on towards what is now, whatever its asker's patience: from one that takes longer its cursor is
/// where the next begins.
const AT_LEAST: Duration = Duration::from_secs(5);
/// Reading the journal decodes whole records: a few followers at a time, in turns.
static READERS: Semaphore = Semaphore::const_new(limit::FOLLOW_READERS_MAX);

/// What a follower wants.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    from: Lsn,
    /// None: all reservations.
    channel: Option<ChannelId>,
    notices: bool,
    statuses: bool,
    numbers: bool,
    until: Instant,
    gather: Duration,
}

/// What a follower has been told.
#[derive(Default)]
pub struct Told {
    /// Number and status of a sku, by channel.
    last: HashMap<(ChannelId, u32), (u64, u8)>,
    place: Option<Place>,
}

/// Where a follower is, for as long as it follows: how far behind it is can be seen from outside.
struct Place {
    engine: Engine,
    number: u64,
}

impl Place {
    fn enter(engine: &Engine) -> Place {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Place { engine: engine.clone(), number: NEXT.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.engine.metrics().cursors.remove(&self.number);
    }
}

impl Told {
    fn up_to(&mut self, engine: &Engine, next: Lsn) {
        let place = self.place.get_or_insert_with(|| Place::enter(engine));
        engine.metrics().cursors.insert(place.number, next.0);
    }
}

/// How a follower was answered, and what it knows now.
pub struct Followed {
    pub answer: Result<Changes, Turned>,
    pub told: Told,
}

impl Asked {
    /// What a principal may ask.
    pub fn new(principal: &Principal, engine: &Engine, asked: &Follow) -> Result<Asked, Turned> {
        let turned = |code, text: &str| Err(Turned::new(code, text));
        let channel = Some(ChannelId(asked.channel)).filter(|id| *id != ChannelId::SHARED);
        let known = |id| {
            let read = engine.view().read(|reader| Ok(reader.rules.channel(id).is_some()));
            read.is_ok_and(|(_, known)| known)
        };
        match (principal.role, channel) {
            (Role::Warehouse, _) => return turned(Code::Forbidden, "a warehouse may not follow channels"),
            (Role::Channel, channel) if channel != principal.channel => {
                return turned(Code::UnknownChannel, "no such channel for this token");
            }
            (_, Some(channel)) if !known(channel) => return turned(Code::UnknownChannel, "no such channel"),
            _ => {}
        }
        let bit = |bit: u8| asked.what >> bit & 1 == 1;
        let (notices, statuses, numbers) = (bit(0), bit(1), bit(2));
        if asked.what == 0 || asked.what >= 8 {
            return turned(
                Code::Malformed,
                "what must be a sum of 1 (reservations), 2 (statuses) and 4 (numbers)",
            );
        }
        if channel.is_none() && (statuses || numbers) {
            return turned(Code::Malformed, "availability is followed for one channel: name it");
        }
        let most = |ms: u32| Duration::from_millis(u64::from(ms.min(limit::FOLLOW_WAIT_MS_MAX)));
        let until = Instant::now() + most(asked.wait_ms);
        let gather = most(asked.gather_ms.min(asked.wait_ms));
        let from = Lsn(asked.from_lsn);
        Ok(Asked { from, channel, notices, statuses, numbers, until, gather })
    }

    /// Waits until there is something to tell, or no longer.
    pub async fn answer(self, engine: Engine, turn: Arc<Semaphore>, mut told: Told) -> Followed {
        let answer = self.wait(&engine, &turn, &mut told).await;
        Followed { answer, told }
    }

    async fn wait(self, engine: &Engine, turn: &Arc<Semaphore>, told: &mut Told) -> Result<Changes, Turned> {
        let from_now_on = self.from == Lsn::NONE;
        let mut next = if from_now_on { engine.view().durable().next() } else { self.from };
        if from_now_on {
            // Whoever begins learns where.
            return Ok(nothing(next));
        }
        let durable = engine.view().durable();
        if next > durable.next() {
            let text =
                format!("LSN {next} lies ahead of this server, which is at {durable}: was it restored?");
            return Err(Turned { code: Code::CursorUnknown, text });
        }
        told.up_to(engine, next);
        let mut gathered = self.gather.is_zero();
        loop {
            let moved = engine.moved();
            tokio::pin!(moved);
            moved.as_mut().enable();
            if next <= engine.view().durable() {
                // Who is far behind has enough to be told, and waits for no more.
                let behind = engine.view().durable().0 + 1 - next.0;
                if !gathered && behind < limit::FOLLOW_GATHER_COMMANDS {
                    sleep(self.gather).await;
                }
                gathered = true;
                let mut found = self.read(engine, turn, next).await?;
                // It reads until it has caught up, and of each sku the last number is told.
                let goal = engine.view().durable();
                let patience = self.until.max(Instant::now() + AT_LEAST);
                while found.next <= goal
                    && found.has_room()
                    && Instant::now() < patience
                    && !engine.is_draining()
                {
                    let more = self.read(engine, turn, found.next).await?;
                    found.append(more);
                }
                next = found.next;
                told.up_to(engine, next);
                let changes = self.changes(engine, found, told).await?;
                if !changes.notices.is_empty() || !changes.changes.is_empty() || changes.redefined != 0 {
                    return Ok(changes);
                }
                // Others may want to read too, and there may be more.
                if next <= engine.view().durable() && Instant::now() < self.until {
                    continue;
                }
            }
            if Instant::now() >= self.until || engine.is_draining() {
                return Ok(nothing(next));
            }
            tokio::select! {
                () = moved => {}
                () = sleep_until(self.until) => {}
            }
        }
    }

    /// Reads some of the journal, off this task and when it is its principal's turn.
    async fn read(self, engine: &Engine, turn: &Arc<Semaphore>, from: Lsn) -> Result<Found, Turned> {
        let failed = |text: String| Turned { code: Code::Overloaded, text };
        // Neither is ever closed, so a place is always granted in time.
        let own =
            Arc::clone(turn).acquire_owned().await.map_err(|_| failed("the server is stopping".into()))?;
        let place = READERS.acquire().await.map_err(|_| failed("the server is stopping".into()))?;
        let (reading, skus) = (engine.clone(), self.statuses || self.numbers);
        let found = tokio::task::spawn_blocking(move || {
            // Held as long as it reads, even if whoever asked has gone.
            let _held = (own, place);
            reading.happened(from, self.channel, skus)
        })
        .await;
        let found = found.map_err(|_| failed("the journal could not be read; ask again".into()))?;
        match found.map_err(|error| failed(format!("the journal could not be read: {error}")))? {
            Some(found) => Ok(found),
            None => Err(Turned {
                code: Code::CursorUnknown,
                text: format!("what happened from LSN {from} on is not kept any more; ask for what is now"),
            }),
        }
    }

    /// What of all that happened the follower wants to hear.
    async fn changes(self, engine: &Engine, found: Found, told: &mut Told) -> Result<Changes, Turned> {
        let mut changes = Changes {
            next_lsn: found.next.0,
            as_of_lsn: found.next.0 - 1,
            notices: if self.notices { found.notices } else { Vec::new() },
            changes: Vec::new(),
            redefined: u8::from(found.redefined && (self.statuses || self.numbers)),
        };
        let Some(channel) = self.channel.filter(|_| self.statuses || self.numbers) else {
            return Ok(changes);
        };
        // Behind a definition whoever follows asks anew, and what was told before is nothing to compare with.
        if found.redefined || told.last.len() + found.skus.len() > limit::FOLLOWED_SKUS_MAX {
            told.last = HashMap::new();
        }
        let (as_of, offers) = all_offers_of(engine, channel, &found.skus).await?;
        if !found.skus.is_empty() {
            changes.as_of_lsn = as_of.0;
        }
        for (sku, available, status) in offers {
            let before = told.last.insert((channel, sku), (available, status));
            let other_status = before.is_none_or(|before| before.1 != status);
            if other_status || (self.numbers && before.is_none_or(|before| before.0 != available)) {
                let before = before.map_or(u8::MAX, |before| before.1);
                changes.changes.push(ChangeRec { available, sku, status, before });
            }
        }
        Ok(changes)
    }
}

/// What a channel is offered of the next few skus, for whoever begins; and where it goes on, if these were not all.
pub async fn offered(
    engine: &Engine,
    channel: ChannelId,
    from: u32,
    told: &mut Told,
) -> Result<(Changes, Option<u32>), Turned> {
    let all = engine.names().count(NameKind::Sku) as u32;
    let to = all.min(from.saturating_add(limit::FOLLOW_SNAPSHOT_SKUS));
    let skus: Vec<SkuId> = (from..to).map(SkuId).collect();
    let (as_of, offers) = all_offers_of(engine, channel, &skus).await?;
    let mut changes = Changes { as_of_lsn: as_of.0, ..Changes::default() };
    for (sku, available, status) in offers.into_iter().filter(|offer| offer.2 != Status::Unknown as u8) {
        if told.last.len() < limit::FOLLOWED_SKUS_MAX {
            told.last.insert((channel, sku), (available, status));
        }
        changes.changes.push(ChangeRec { available, sku, status, before: u8::MAX });
    }
    Ok((changes, (to < all).then_some(to)))
}

/// What a channel is offered of skus, and the oldest state that any of it is of.
async fn all_offers_of(
    engine: &Engine,
    channel: ChannelId,
    skus: &[SkuId],
) -> Result<(Lsn, Vec<(u32, u64, u8)>), Turned> {
    let mut offers = Vec::with_capacity(skus.len());
    let mut as_of = Lsn(u64::MAX);
    for skus in skus.chunks(limit::FOLLOW_SKUS_PER_READ) {
        let read = offers_of(engine, channel, skus, &mut offers);
        // Those that change too fast to be read together are read one by one.
        let read = read.or_else(|Stale| {
            let mut each = skus.iter().map(|sku| offers_of(engine, channel, &[*sku], &mut offers));
            each.try_fold(Lsn(u64::MAX), |least, read| Ok(least.min(read?)))
        });
        as_of = as_of.min(read.map_err(|Stale| {
            Turned::new(Code::Overloaded, "these skus change faster than they can be read; ask again")
        })?);
        yield_now().await;
    }
    Ok((if skus.is_empty() { engine.view().durable() } else { as_of }, offers))
}

/// What a channel is offered of some skus, appended; answers the state that was.
fn offers_of(
    engine: &Engine,
    channel: ChannelId,
    skus: &[SkuId],
    offers: &mut Vec<(u32, u64, u8)>,
) -> Result<Lsn, Stale> {
    let before = offers.len();
    let read = engine.view().read(|reader| {
        offers.truncate(before);
        let Some(rule) = reader.rules.channel(channel) else { return Ok(()) };
        let now = availability::now(reader, engine.clock());
        for sku in skus {
            let offer = availability::offer(reader, (now, Millis(0)), rule, None, *sku, |_, _| {})?;
            offers.push((sku.0, offer.units as u64, offer.status as u8));
        }
        Ok(())
    });
    if read.is_err() {
        offers.truncate(before);
    }
    read.map(|(as_of, ())| as_of)
}

/// That nothing happened up to there.
fn nothing(next: Lsn) -> Changes {
    Changes { next_lsn: next.0, as_of_lsn: next.0 - 1, ..Changes::default() }
}

const WHAT: [&str; 10] = [
    "expired",
    "reserved",
    "confirmed",
    "released",
    "extended",
    "fulfilled",
    "moved",
    "picked",
    "shipped",
    "promised",
];
const REASON: [&str; 6] = ["placed", "arrived", "sooner", "later", "moved", "lost"];

/// The name of what happened to a reservation.
pub fn what_name(number: u8) -> &'static str {
    WHAT.get(usize::from(number).wrapping_sub(1)).copied().unwrap_or("changed")
}

/// The name of why a promise is another.
pub fn reason_name(number: u8) -> Option<&'static str> {
    REASON.get(usize::from(number).wrapping_sub(1)).copied()
}
