//! History: why a number is what it is. Read backwards out of the journal, as far as that is kept, a stretch at a time.

use stockline_core::bucket::Movement;
use stockline_core::command::{Action, Body, Verb};
use stockline_core::id::{Lsn, Millis, NodeId, PrincipalId, ReservationId, SkuId};
use stockline_core::journal::{Entry, JournalError};
use stockline_core::limit;

use crate::access::LOOKUPS;
use crate::engine::Engine;

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
    pub reason: [u8; 16],
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

fn what(body: &Body) -> (&'static str, Option<ReservationId>, [u8; 16]) {
    match body {
        Body::Reserve(reserve) => ("reserve", Some(reserve.id), [0; 16]),
        Body::Transition(step) => {
            let name = match step.verb {
                Verb::Confirm => "confirm",
                Verb::Release => "release",
                Verb::Extend => "extend",
                Verb::Fulfil => "fulfil",
                Verb::Move => "move",
            };
            (name, Some(step.reservation), [0; 16])
        }
        Body::Event(event) => (event.kind.name(), event.reservation, event.reason),
        Body::Allocate(allocate) => {
            let name = match allocate.action {
                Action::Allocate => "allocate",
                Action::Deallocate => "deallocate",
                Action::Reallocate => "reallocate",
            };
            (name, None, [0; 16])
        }
        Body::Expire(id) => ("expire", Some(*id), [0; 16]),
        Body::Balance(_) => ("balance", None, [0; 16]),
        Body::Define(_) | Body::Read(_) => ("define", None, [0; 16]),
    }
}

fn moved(entry: &Entry, movements: Vec<Movement>) -> Moved {
    let (what, reservation, reason) = what(&entry.command.body);
    Moved { lsn: entry.lsn, at: entry.now, principal: entry.principal, what, reservation, reason, movements }
}

/// What moved at a position from an LSN downwards to another, at most so many commands that did; as much as one turn
/// at the journal gives.
pub async fn stretch(
    engine: &Engine,
    (sku, node): (SkuId, NodeId),
    (from, down_to): (Lsn, Lsn),
    most: usize,
) -> Result<Stretch, JournalError> {
    let Ok(place) = LOOKUPS.acquire().await else { return Ok(Stretch::default()) };
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
        Ok(Stretch { next, kept_from, ..stretch })
    });
    read.await.unwrap_or_else(|_| Ok(Stretch::default()))
}
