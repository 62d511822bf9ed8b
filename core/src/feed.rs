//! The feed: what followers are told, read out of the journal. Whoever has a cursor, an LSN, misses nothing.

use crate::command::{Body, Verb};
use crate::event::EventKind;
use crate::id::{ChannelId, Lsn, Millis, NodeId, ReservationId, SkuId};
use crate::journal::{Decoded, Entry};
use crate::ledger::Reason;
use crate::outcome::{Code, State};

/// Whether a follower of so much is told statuses or numbers.
pub fn tells_offers(what: u8) -> bool {
    what & 6 != 0
}

/// What happened to a reservation. Numbers are stable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum What {
    /// Its hold ended.
    Expired = 1,
    Reserved = 2,
    Confirmed = 3,
    Released = 4,
    Extended = 5,
    Fulfilled = 6,
    /// Claims went to other nodes.
    Moved = 7,
    /// A node picked units of it.
    Picked = 8,
    /// A node shipped units of it.
    Shipped = 9,
    /// Units of it are promised for another time.
    Promised = 10,
}

/// One thing that happened to a reservation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Notice {
    pub lsn: Lsn,
    /// When.
    pub at: Millis,
    pub reservation: ReservationId,
    /// Whose it is.
    pub channel: ChannelId,
    pub what: What,
    /// Its state behind that; none for a promise, which changes none.
    pub state: State,
    /// Picked, shipped, promised: the units and where they are, or will be.
    pub sku: SkuId,
    pub node: NodeId,
    pub quantity: u32,
    /// Promised: for when, 0 for at once, and why. Else when the hold ends, 0 for never.
    pub due: Millis,
    pub reason: Option<Reason>,
}

/// What happened to reservations with one command.
pub fn notices<'a>(decoded: &'a Decoded, entry: &'a Entry) -> impl Iterator<Item = Notice> + 'a {
    let about = |reservation, what| Notice {
        lsn: entry.lsn,
        at: entry.now,
        reservation,
        channel: entry.outcome.channel,
        what,
        state: entry.outcome.state,
        sku: SkuId(0),
        node: NodeId::ANY,
        quantity: 0,
        due: entry.outcome.expires_at,
        reason: None,
    };
    let told = decoded.told(entry);
    let head = match &entry.command.body {
        _ if entry.outcome.code != Code::Ok => None,
        Body::Reserve(reserve) => Some(about(reserve.id, What::Reserved)),
        Body::Transition(step) => Some(about(
            step.reservation,
            match step.verb {
                Verb::Confirm => What::Confirmed,
                Verb::Release => What::Released,
                Verb::Extend => What::Extended,
                Verb::Fulfil => What::Fulfilled,
                Verb::Move => What::Moved,
            },
        )),
        Body::Expire(id) => Some(about(*id, What::Expired)),
        Body::Event(event) => {
            let what = match event.kind {
                EventKind::Pick => Some(What::Picked),
                EventKind::Ship => Some(What::Shipped),
                _ => None,
            };
            let quantity = event.quantity.unsigned_abs() as u32;
            let of = |(id, what)| Notice { sku: event.sku, node: event.node, quantity, ..about(id, what) };
            event.reservation.zip(what).map(of)
        }
        Body::Allocate(_) | Body::Balance(_) | Body::Define(_) | Body::Read(_) => None,
    };
    let promised =
        told.promises.iter().filter(|_| entry.outcome.code == Code::Ok).map(move |promise| Notice {
            channel: promise.channel,
            state: State::None,
            sku: promise.sku,
            node: promise.node,
            quantity: promise.held + promise.confirmed,
            due: promise.at,
            reason: Some(promise.reason),
            ..about(promise.reservation, What::Promised)
        });
    head.into_iter().chain(promised)
}

/// Skus of which there may be more or less behind a command. Behind a definition it may be any: `None`.
pub fn skus<'a>(decoded: &'a Decoded, entry: &'a Entry) -> Option<impl Iterator<Item = SkuId> + 'a> {
    if matches!(&entry.command.body, Body::Define(definition) if definition.may_change_availability()) {
        return None;
    }
    let told = decoded.told(entry);
    // A supply may come, go or slip without any unit that moves.
    let event = match &entry.command.body {
        Body::Event(event) if entry.outcome.code == Code::Ok => Some(event.sku),
        _ => None,
    };
    let moved = told.movements.iter().map(|moved| moved.sku);
    Some(moved.chain(told.promises.iter().map(|promise| promise.sku)).chain(event))
}
