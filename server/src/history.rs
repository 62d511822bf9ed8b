//! History: why a number is what it is. Read backwards out of the journal, as far as that is kept, a stretch at a time.

use stockline_core::bucket::Movement;
use stockline_core::command::{Action, Body};
use stockline_core::event::Redrive;
use stockline_core::id::{Lsn, Millis, NodeId, PrincipalId, ReservationId, SkuId};
use stockline_core::journal::{Entry, JournalError};
use stockline_core::limit;
use stockline_core::outcome::Code;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::access::{Present, Turned};
use crate::engine::Engine;
use crate::principal::SignedIn;

/// What one command did at a position.
#[derive(Clone, Debug)]
pub struct Moved {
    pub lsn: Lsn,
    pub at: Millis,
    pub principal: PrincipalId,
    /// The command's name: that of an event, of a step, of an action.
    pub what: &'static str,
    pub reservation: Option<ReservationId>,
    /// Adjustments: why, as their sender said it.
    pub reason: Box<str>,
    /// How an event came out of the dead letters.
    pub redrive: Redrive,
    pub movements: Vec<Movement>,
}

/// A stretch of history, newest first.
#[derive(Default, Debug)]
pub struct Stretch {
    pub moved: Vec<Moved>,
    /// Where the next one begins; none: there is no more, or no more is kept.
    pub next: Option<Lsn>,
    /// The first LSN that the journal still has.
    pub kept_from: Lsn,
}

fn what(body: &Body) -> (&'static str, Option<ReservationId>, &str) {
    match body {
        Body::Reserve(reserve) => ("reserve", Some(reserve.id), ""),
        Body::Transition(step) => (step.verb.name(), Some(step.reservation), ""),
        Body::Event(event) => (event.kind.name(), event.reservation, &event.reason),
        Body::Allocate(allocate) => {
            let name = match allocate.action {
                Action::Allocate => "allocate",
                Action::Deallocate => "deallocate",
                Action::Reallocate => "reallocate",
            };
            (name, None, "")
        }
        Body::Expire(id) => ("expire", Some(*id), ""),
        Body::Balance(_) => ("balance", None, ""),
        Body::Define(_) | Body::Read(_) => ("define", None, ""),
    }
}

fn moved(entry: &Entry, movements: Vec<Movement>) -> Moved {
    let (what, reservation, reason) = what(&entry.command.body);
    let reason = reason.into();
    let redrive = match &entry.command.body {
        Body::Event(event) => event.redrive,
        _ => Redrive::No,
    };
    let (lsn, at, principal) = (entry.lsn, entry.now, entry.principal);
    Moved { lsn, at, principal, what, reservation, reason, redrive, movements }
}

/// What moved at a position from an LSN downwards to another, at most so many commands that did; as much as one turn
/// at the journal gives.
pub async fn stretch(
    (engine, who): (&Engine, &SignedIn),
    (sku, node): (SkuId, NodeId),
    (from, down_to): (Lsn, Lsn),
    most: usize,
) -> Result<Stretch, Turned> {
    let place = turn(engine, who).await?;
    let engine = engine.clone();
    let read = tokio::task::spawn_blocking(move || {
        let _place = place;
        let mut stretch = Stretch::default();
        let (next, kept_from) =
            engine.backwards(from, down_to, limit::HISTORY_COMMANDS_PER_TURN, |decoded, entry| {
                let own = |movement: &&Movement| movement.sku == sku && movement.node == node;
                let movements: Vec<Movement> =
                    decoded.told(entry).movements.iter().filter(own).copied().collect();
                if !movements.is_empty() {
                    stretch.moved.push(moved(entry, movements));
                }
                stretch.moved.len() < most
            })?;
        Ok::<_, JournalError>(Stretch { next, kept_from, ..stretch })
    });
    let read = read
        .await
        .map_err(|error| error.to_string())
        .and_then(|read| read.map_err(|error| error.to_string()));
    read.map_err(|error| {
        tracing::error!("history: {error}");
        Turned::new(Code::Overloaded, "the journal could not be read; ask again")
    })
}

/// Long looks take turns: one at a time, and one of a principal waits among all others.
static LONG_LOOKS: Semaphore = Semaphore::const_new(1);

/// Held for as long as somebody looks.
pub struct Place(
    #[expect(dead_code, reason = "they are held")] (Present, OwnedSemaphorePermit, SemaphorePermit<'static>),
);

/// Waits for a principal's turn to look through much.
pub async fn turn(engine: &Engine, who: &SignedIn) -> Result<Place, Turned> {
    let stopping = |_| Turned::new(Code::ShuttingDown, "the server is stopping");
    let present = Present::enter(engine, who)?;
    let own = present.turn().acquire_owned().await.map_err(stopping)?;
    let place = LONG_LOOKS.acquire().await.map_err(stopping)?;
    Ok(Place((present, own, place)))
}
