//! What happened, as those who follow are told it: over a stream, or by a webhook.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stockline_core::catalogue::NameKind;
use stockline_core::id::{ChannelId, Millis, NodeId};
use stockline_core::outcome::State as Stage;
use stockline_core::wire::{ChangeRec, Changes, NoticeRec};

use super::answer::{Moment, Name};
use super::call::name;
use super::cloud_event::Enveloped;
use crate::access::Turned;
use crate::availability::Status;
use crate::engine::Engine;
use crate::follow::{self, Told};

#[derive(Serialize, Deserialize, JsonSchema, Default, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Envelope {
    #[default]
    None,
    CloudEvents,
}

/// What is followed.
#[derive(Deserialize, Serialize, JsonSchema, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Topic {
    Reservations,
    Statuses,
    Numbers,
}

pub(super) const TOPICS: [Topic; 3] = [Topic::Reservations, Topic::Statuses, Topic::Numbers];

impl Topic {
    pub(super) fn name(self) -> &'static str {
        ["reservations", "statuses", "numbers"][self as usize]
    }

    /// What followers say it with.
    pub(super) fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// What is followed where nothing is said: reservations, and of one channel numbers.
pub(super) fn usual(of_channel: bool) -> u8 {
    Topic::Reservations.bit() | if of_channel { Topic::Numbers.bit() } else { 0 }
}

/// A channel is told another number, or another status, of a sku.
#[derive(Serialize, JsonSchema)]
pub(super) struct Change {
    lsn: u64,
    sku: Name,
    channel: Name,
    available: u64,
    #[schemars(extend("enum" = ["unknown", "in_stock", "low", "out", "backorder", "preorder"]))]
    status: Option<&'static str>,
    /// The status before, where it was another.
    #[serde(skip_serializing_if = "Option::is_none")]
    was: Option<&'static str>,
}

/// Something happened to a reservation.
#[derive(Serialize, JsonSchema)]
pub(super) struct Notice {
    lsn: u64,
    at: Option<Moment>,
    channel: Name,
    reservation: String,
    what: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    #[serde(flatten)]
    units: Option<Units>,
    /// Why a promise is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// Left out where the units are there; null where nobody knows any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    promised_for: Option<Option<Moment>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Moment>,
    /// Which it is of those that one command did to one reservation.
    #[serde(skip)]
    nth: usize,
}

#[derive(Serialize, JsonSchema)]
struct Units {
    sku: Name,
    node: Name,
    quantity: u32,
}

/// Something was defined: any sku may be told another number, ask anew.
#[derive(Serialize, JsonSchema)]
pub(super) struct Redefined {
    lsn: u64,
    detail: &'static str,
}

/// What is offered has been told, whole; what comes are changes of it.
#[derive(Serialize, JsonSchema)]
pub(super) struct Snapshot {
    lsn: u64,
    /// How many skus were told.
    skus: u64,
}

/// What happened between two LSNs was no longer kept when the receiver could take it. Where numbers or statuses are
/// followed, what is offered is told anew.
#[derive(Serialize, JsonSchema)]
pub(super) struct Gap {
    pub(super) from_lsn: u64,
    pub(super) lsn: u64,
    pub(super) detail: &'static str,
}

/// One thing that happened.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Happened {
    Reservation(Notice),
    Change(Change),
    Redefined(Redefined),
    Snapshot(Snapshot),
    Gap(Gap),
}

impl Happened {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Happened::Reservation(_) => "reservation",
            Happened::Change(_) => "change",
            Happened::Redefined(_) => "redefined",
            Happened::Snapshot(_) => "snapshot",
            Happened::Gap(_) => "gap",
        }
    }

    /// Another for everything else that happened.
    pub(super) fn id(&self) -> String {
        match self {
            Happened::Reservation(of) if of.nth > 0 => {
                format!("{}/{}/{}/{}", of.lsn, of.reservation, of.what, of.nth)
            }
            Happened::Reservation(of) => format!("{}/{}/{}", of.lsn, of.reservation, of.what),
            Happened::Change(of) => format!("{}/{}/{}", of.lsn, of.channel, of.sku),
            Happened::Redefined(Redefined { lsn, .. })
            | Happened::Snapshot(Snapshot { lsn, .. })
            | Happened::Gap(Gap { lsn, .. }) => format!("{lsn}/{}", self.kind()),
        }
    }

    pub(super) fn enveloped(self) -> Enveloped<Happened> {
        let time = if let Happened::Reservation(of) = &self { of.at.clone() } else { None };
        Enveloped::new(self.id(), self.kind(), time, self)
    }
}

/// What an answer to a follower of a channel, or of all, says.
pub(super) fn happened(engine: &Engine, channel: u16, changes: &Changes) -> Vec<Happened> {
    let mut all: Vec<Happened> = Vec::with_capacity(changes.notices.len() + changes.changes.len());
    let mut seen: HashMap<(u64, u128, u8), usize> = HashMap::new();
    all.extend(changes.notices.iter().map(|notice| {
        // One command promises a reservation's units line by line.
        let nth = seen.entry((notice.lsn, notice.reservation, notice.what)).or_default();
        *nth += 1;
        Happened::Reservation(Notice { nth: *nth - 1, ..told_of(engine, notice) })
    }));
    let channel = name(engine, NameKind::Channel, u32::from(channel));
    let changed = |change| Happened::Change(change_of(engine, &channel, changes.as_of_lsn, change));
    all.extend(changes.changes.iter().map(changed));
    if changes.redefined != 0 {
        let detail = "something was defined: any sku may be another, ask anew";
        all.push(Happened::Redefined(Redefined { lsn: changes.next_lsn - 1, detail }));
    }
    all
}

/// Some of what a channel is offered.
pub(super) struct Offered {
    pub(super) all: Vec<Happened>,
    /// The next sku, and how many were told; none behind the last.
    pub(super) next: Option<(u32, u64)>,
}

/// What a channel is offered of the next few skus, from one on and behind so many that were told; and where that goes on. Behind
/// the last of them it is said that they were all, as of the LSN that changes are followed from.
pub(super) async fn offered(
    engine: &Engine,
    channel: ChannelId,
    (from, before): (u32, u64),
    next_lsn: u64,
    told: &mut Told,
) -> Result<Offered, Turned> {
    let (changes, next) = follow::offered(engine, channel, from, told).await?;
    let skus = before + changes.changes.len() as u64;
    let mut all = happened(engine, channel.0, &changes);
    if next.is_none() {
        all.push(Happened::Snapshot(Snapshot { lsn: next_lsn - 1, skus }));
    }
    Ok(Offered { all, next: next.map(|next| (next, skus)) })
}

fn change_of(engine: &Engine, channel: &Name, lsn: u64, change: &ChangeRec) -> Change {
    Change {
        lsn,
        sku: name(engine, NameKind::Sku, change.sku),
        channel: Name::clone(channel),
        available: change.available,
        status: Status::name(change.status),
        was: Status::name(change.before).filter(|_| change.before != change.status),
    }
}

fn told_of(engine: &Engine, notice: &NoticeRec) -> Notice {
    let reason = follow::reason_name(notice.reason);
    let due = || Moment::of(Millis(notice.due_ms));
    Notice {
        lsn: notice.lsn,
        at: Moment::of(Millis(notice.at_ms)),
        channel: name(engine, NameKind::Channel, u32::from(notice.channel)),
        reservation: uuid::Uuid::from_u128(notice.reservation).to_string(),
        what: follow::what_name(notice.what),
        state: Stage::from_number(notice.state).filter(|state| *state != Stage::None).map(Stage::name),
        units: (notice.node != NodeId::ANY.0).then(|| Units {
            sku: name(engine, NameKind::Sku, notice.sku),
            node: name(engine, NameKind::Node, u32::from(notice.node)),
            quantity: notice.quantity,
        }),
        reason,
        // 0: the units are there.
        promised_for: reason
            .filter(|_| notice.due_ms > 0)
            .map(|_| if notice.due_ms == u64::MAX { None } else { due() }),
        expires_at: if reason.is_none() && notice.due_ms > 0 { due() } else { None },
        nth: 0,
    }
}
