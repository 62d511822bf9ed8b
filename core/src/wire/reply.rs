//! What the server sends.

use rkyv::{Archive, Deserialize, Serialize};

use crate::feed::Notice;
use crate::label::{self, LabelRec};
use crate::ledger::Share;
use crate::limit;
use crate::merge::{FrameReply, Seen};

/// Answer to a sign-in.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct Welcome {
    /// The server's time: `issued_at` of later commands is counted from here.
    pub now_ms: u64,
    pub durable_lsn: u64,
    pub principal: u32,
    /// 1 admin, 2 channel, 3 warehouse.
    pub role: u8,
    /// The channel the principal is confined to; 65535 for none.
    pub channel: u16,
    pub frame_bytes_max: u32,
    pub frame_commands_max: u32,
    pub frame_lines_max: u32,
    /// How long, and for how many commands, repeats are answered.
    pub window_ms: u64,
    pub window_commands: u64,
}

/// Answer to one command, definition or look-up.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct ResultRec {
    /// 0 where it took no place in the order.
    pub lsn: u64,
    pub expires_at_ms: u64,
    /// Definitions and look-ups: the id.
    pub id: u32,
    /// How many of the frame's parts belong to it; they stand in order.
    pub part_count: u32,
    pub code: u8,
    pub state: u8,
    /// 1: the command came before, and this is what it was told then.
    pub repeat: u8,
    /// 1: a confirmation that came late and took what there was; parts say where.
    pub late: u8,
}

/// A claim, or with node 65535 a shortage: `quantity` is what there would be.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct PartRec {
    pub sku: u32,
    pub quantity: u32,
    pub node: u16,
    /// Shortage: index of the line within its reservation.
    pub line: u16,
    /// When it is there: 0 where it is, else as promised.
    pub at_ms: u64,
}

/// Answers in the order of the request.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Results {
    pub results: Vec<ResultRec>,
    pub parts: Vec<PartRec>,
}

/// How much of a sku there is.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct ItemRec {
    pub available: u64,
    /// How many of the frame's nodes belong to it.
    pub node_count: u16,
    /// 0: no such sku, 1: in stock, 2: low, 3: out, 4: out but to be waited for (backorder), 5: not out yet (preorder).
    pub status: u8,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct NodeRec {
    pub available: u64,
    pub node: u16,
}

/// What a channel can wait for of a sku.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct LaterRec {
    /// When the first of the units is there.
    pub from_ms: u64,
    /// Units that it can claim, beyond what is available.
    pub units: u32,
    /// Index of the item.
    pub item: u32,
}

/// One item a sku asked for, in the order of the request. All are of the one state of `as_of_lsn`.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct AvailabilityAnswer {
    pub as_of_lsn: u64,
    pub items: Vec<ItemRec>,
    pub nodes: Vec<NodeRec>,
    /// Of items of which there is something to come.
    pub later: Vec<LaterRec>,
}

/// Units by bucket: free, held, confirmed, picked, safety, damaged, quality, blocked, inbound, allocated.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct PositionRec {
    pub units: [i64; 10],
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Positions {
    pub as_of_lsn: u64,
    pub positions: Vec<PositionRec>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct ReservationRec {
    pub expires_at_ms: u64,
    pub claim_count: u32,
    /// 0, or 41 where it is not known.
    pub code: u8,
    pub state: u8,
    /// How many of the frame's labels are its own.
    pub label_count: u8,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct ClaimRec {
    pub sku: u32,
    pub quantity: u32,
    /// Of these, held and not yet confirmed.
    pub held: u32,
    pub picked: u32,
    pub shipped: u32,
    pub node: u16,
    /// The channel whose allocation they came from; 32768 and above where they are to come; else 65535.
    pub pool: u16,
    /// When they are there: 0 where they are, 18446744073709551615 where no supply brings them.
    pub at_ms: u64,
}

/// A channel's allocation of a sku at a node.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct ShareRec {
    pub units: u32,
    pub node: u16,
    pub channel: u16,
}

/// Allocations of each sku asked for, in the order of the request.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct AllocationAnswers {
    pub as_of_lsn: u64,
    /// How many of `shares` belong to each sku.
    pub counts: Vec<u32>,
    pub shares: Vec<ShareRec>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct ReservationAnswers {
    pub as_of_lsn: u64,
    pub reservations: Vec<ReservationRec>,
    pub claims: Vec<ClaimRec>,
    pub labels: Vec<LabelRec>,
    pub text: Vec<u8>,
}

/// Which reservations have the texts asked for, in the order of the request.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Found {
    pub as_of_lsn: u64,
    /// How many of `ids` belong to each text: 100 at most.
    pub counts: Vec<u32>,
    pub ids: Vec<u128>,
}

impl Found {
    pub fn of(reply: &FrameReply) -> Found {
        Found {
            as_of_lsn: reply.as_of.0,
            counts: reply.found.iter().map(|ids| ids.len() as u32).collect(),
            ids: reply.found.iter().flatten().map(|id| id.0).collect(),
        }
    }
}

/// What was seen of one node for one line, when it was the line's turn.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct TraceRec {
    /// Units free; negative: a shortage.
    pub free: i64,
    /// Of these, withheld by a rule.
    pub withheld: i64,
    /// Units of the channel's own allocation and of those above it.
    pub own: i64,
    /// What the channel's strategy goes by, less is better: metres or cost; 0 by priority and stock.
    pub order: u64,
    pub taken: u32,
    /// Index of the reservation within the frame, and of the line within it.
    pub reservation: u16,
    pub line: u16,
    pub node: u16,
    /// The node's place by priority.
    pub rank: u16,
    /// 0 taken, 1 not offered, 2 not in the group, 3 another node is named, 4 nothing for the channel, 5 not chosen.
    pub why: u8,
    /// Days by which the node ships later than today.
    pub late: u8,
}

/// What reservations would be told, and why.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Explanations {
    pub as_of_lsn: u64,
    pub results: Vec<ResultRec>,
    pub parts: Vec<PartRec>,
    pub traces: Vec<TraceRec>,
}

impl Explanations {
    pub fn of(reply: &FrameReply) -> Explanations {
        let Results { results, parts } = Results::of(reply);
        let traces = reply.traces.iter().map(|(reservation, trace)| TraceRec {
            free: trace.free,
            withheld: trace.withheld,
            own: trace.own,
            order: trace.order,
            taken: trace.taken,
            reservation: *reservation as u16,
            line: trace.line,
            node: trace.node.0,
            rank: trace.rank,
            why: trace.why as u8,
            late: trace.late,
        });
        Explanations { as_of_lsn: reply.as_of.0, results, parts, traces: traces.collect() }
    }
}

/// What happened to a reservation.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct NoticeRec {
    pub reservation: u128,
    pub lsn: u64,
    pub at_ms: u64,
    /// Promised: for when; 0: at once, 18446744073709551615: no supply brings them. Else when the hold ends; 0: never.
    pub due_ms: u64,
    pub sku: u32,
    pub quantity: u32,
    pub node: u16,
    pub channel: u16,
    /// 1 expired, 2 reserved, 3 confirmed, 4 released, 5 extended, 6 fulfilled, 7 moved, 8 picked, 9 shipped, 10 promised.
    pub what: u8,
    /// 1 held, 2 confirmed, 3 fulfilled, 4 released, 5 expired.
    pub state: u8,
    /// Promised: 1 placed, 2 arrived, 3 sooner, 4 later, 5 moved, 6 lost; else 0.
    pub reason: u8,
}

impl From<Notice> for NoticeRec {
    fn from(notice: Notice) -> NoticeRec {
        NoticeRec {
            reservation: notice.reservation.0,
            lsn: notice.lsn.0,
            at_ms: notice.at.0,
            due_ms: notice.due.0,
            sku: notice.sku.0,
            quantity: notice.quantity,
            node: notice.node.0,
            channel: notice.channel.0,
            what: notice.what as u8,
            state: notice.state as u8,
            reason: notice.reason.map_or(0, |reason| reason as u8),
        }
    }
}

/// What a channel can be promised of a sku, where that is not what it was told before.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct ChangeRec {
    pub available: u64,
    pub sku: u32,
    /// As in answers to availability.
    pub status: u8,
    /// The status told before over this connection; 255 where it was told none.
    pub before: u8,
}

/// What happened from an LSN on.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// From where to ask next.
    pub next_lsn: u64,
    /// The state that the changes tell, which may be a later one than `next_lsn`.
    pub as_of_lsn: u64,
    pub notices: Vec<NoticeRec>,
    pub changes: Vec<ChangeRec>,
    /// 1: something was defined, so that any sku may be another.
    pub redefined: u8,
}

/// A frame turned away as a whole; nothing in it was looked at further.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Refusal {
    pub code: u8,
    /// What is wrong and where, for people.
    pub text: Vec<u8>,
}

impl Results {
    /// The answers to a frame's commands; where they would have more parts than a reply may, late confirmations go
    /// without theirs.
    pub fn of(reply: &FrameReply) -> Results {
        let mut results = Results::all(reply);
        if results.parts.len() > limit::REPLY_PARTS_MAX {
            let mut parts = std::mem::take(&mut results.parts).into_iter();
            for result in &mut results.results {
                let own = parts.by_ref().take(result.part_count as usize);
                if result.late == 0 {
                    results.parts.extend(own);
                } else {
                    own.for_each(drop);
                    result.part_count = 0;
                }
            }
        }
        results
    }

    fn all(reply: &FrameReply) -> Results {
        Results {
            results: reply
                .replies
                .iter()
                .map(|reply| ResultRec {
                    lsn: reply.lsn.0,
                    expires_at_ms: reply.outcome.expires_at.0,
                    id: reply.id,
                    part_count: reply.parts,
                    code: reply.outcome.code as u8,
                    state: reply.outcome.state as u8,
                    repeat: u8::from(reply.repeat),
                    late: u8::from(reply.outcome.reacquired),
                })
                .collect(),
            parts: reply
                .parts
                .iter()
                .map(|part| PartRec {
                    sku: part.sku.0,
                    quantity: part.quantity,
                    node: part.node.0,
                    line: part.line,
                    at_ms: part.at.0,
                })
                .collect(),
        }
    }
}

impl Positions {
    pub fn of(reply: &FrameReply) -> Positions {
        let positions = reply.positions.iter().map(|position| PositionRec { units: position.units });
        Positions { as_of_lsn: reply.as_of.0, positions: positions.collect() }
    }
}

impl ReservationAnswers {
    pub fn of(reply: &FrameReply) -> ReservationAnswers {
        let mut answers = ReservationAnswers { as_of_lsn: reply.as_of.0, ..ReservationAnswers::default() };
        for Seen { outcome, claims, labels } in &reply.reservations {
            let label_count = label::put(labels, &mut answers.labels, &mut answers.text);
            answers.reservations.push(ReservationRec {
                label_count,
                expires_at_ms: outcome.expires_at.0,
                claim_count: claims.len() as u32,
                code: outcome.code as u8,
                state: outcome.state as u8,
            });
            // What has ended claims nothing any more but what was shipped.
            let is_active = outcome.state.is_active();
            answers.claims.extend(claims.iter().map(|(claim, at)| ClaimRec {
                sku: claim.sku.0,
                quantity: if is_active { claim.quantity } else { claim.shipped },
                held: if is_active { claim.held } else { 0 },
                picked: if is_active { claim.picked } else { 0 },
                shipped: claim.shipped,
                node: claim.node.0,
                pool: claim.pool.0,
                at_ms: at.0,
            }));
        }
        answers
    }
}

impl AllocationAnswers {
    pub fn of(reply: &FrameReply) -> AllocationAnswers {
        let rec =
            |share: &Share| ShareRec { units: share.units, node: share.node.0, channel: share.channel.0 };
        AllocationAnswers {
            as_of_lsn: reply.as_of.0,
            counts: reply.allocations.iter().map(|shares| shares.len() as u32).collect(),
            shares: reply.allocations.iter().flatten().map(rec).collect(),
        }
    }
}
