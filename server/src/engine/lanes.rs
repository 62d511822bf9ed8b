//! Fair shares: frames wait for the sequencer in lanes, by principal, and lanes take turns.
//!
//! Whoever sends more than can be done waits behind itself: its lane is full and answers OVERLOADED, while a frame
//! in another lane waits for one turn. While several lanes are at work, each has only so many commands between its
//! place in the order and the disk, and a frame larger than a turn enters the order in pieces, so that a turn is short.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam::queue::ArrayQueue;
use stockline_core::command::{Body, Frame};
use stockline_core::id::{Lsn, Millis, PrincipalId};
use stockline_core::limit;

use super::Tag;

pub(super) const LANES: usize = 64;
/// For how long a lane counts as at work after its last frame.
const AT_WORK_MS: u64 = 1_000;

pub(super) fn lane_of(principal: PrincipalId) -> usize {
    principal.0 as usize % LANES
}

/// What a frame weighs: its commands, or its lines where they are more.
fn weight(frame: &Frame<Tag>) -> usize {
    frame.commands.len().max(frame.line_count()).max(1)
}

/// Cuts a frame into pieces no heavier than a turn, as far as its commands allow; all but the last say that more
/// follows. One whose answers show one state together (reads, definitions) stays whole.
fn pieces(frame: Frame<Tag>) -> VecDeque<Frame<Tag>> {
    let whole = weight(&frame) <= limit::TURN_COMMANDS
        || frame.commands.iter().any(|command| matches!(command.body, Body::Read(_) | Body::Define(_)));
    if whole {
        return VecDeque::from([frame]);
    }
    let Frame { tag, principal, commands, lines } = frame;
    let mut lines = lines.into_iter();
    let mut pieces: VecDeque<Frame<Tag>> = VecDeque::new();
    for mut command in commands {
        if pieces.back().is_none_or(|piece| weight(piece) >= limit::TURN_COMMANDS) {
            let tag = Tag { more: true, ..tag.clone() };
            pieces.push_back(Frame { tag, principal, commands: Vec::new(), lines: Vec::new() });
        }
        let piece = pieces.back_mut().expect("there is one");
        if let Body::Reserve(reserve) = &mut command.body {
            reserve.first_line = piece.lines.len() as u32;
            piece.lines.extend(lines.by_ref().take(reserve.line_count as usize));
        }
        piece.commands.push(command);
    }
    pieces.back_mut().expect("a heavy frame has commands").tag.more = tag.more;
    pieces
}

struct Lane {
    frames: ArrayQueue<Frame<Tag>>,
    weight: AtomicUsize,
}

/// What waits, shared with all who submit.
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    /// Bit `n` is set while lane `n` may have frames.
    ready: AtomicU64,
}

impl Lanes {
    pub(super) fn new() -> Lanes {
        let lane = |_| Lane { frames: ArrayQueue::new(limit::LANE_FRAMES_MAX), weight: AtomicUsize::new(0) };
        Lanes { lanes: (0..LANES).map(lane).collect(), ready: AtomicU64::new(0) }
    }

    /// Puts a frame into its principal's lane, or gives it back when that is full.
    pub(super) fn push(&self, frame: Frame<Tag>) -> Result<(), Frame<Tag>> {
        let number = lane_of(frame.principal);
        let lane = &self.lanes[number];
        let weight = weight(&frame);
        if lane.weight.fetch_add(weight, Ordering::Relaxed) >= limit::LANE_COMMANDS_MAX {
            lane.weight.fetch_sub(weight, Ordering::Relaxed);
            return Err(frame);
        }
        lane.frames.push(frame).inspect_err(|_| {
            lane.weight.fetch_sub(weight, Ordering::Relaxed);
        })?;
        self.ready.fetch_or(1 << number, Ordering::Release);
        Ok(())
    }

    /// What waits in all lanes: commands, or lines where they are more.
    pub(super) fn waiting(&self) -> usize {
        self.lanes.iter().map(|lane| lane.weight.load(Ordering::Relaxed)).sum()
    }

    /// Whether lanes other than those of `blocked` may have frames.
    pub(super) fn is_ready(&self, blocked: u64) -> bool {
        self.ready.load(Ordering::Acquire) & !blocked != 0
    }

    fn pop(&self, number: usize) -> Option<Frame<Tag>> {
        let lane = &self.lanes[number];
        let mut frame = lane.frames.pop();
        if frame.is_none() {
            // What comes between the two sets the bit again, or is found by the second look.
            self.ready.fetch_and(!(1 << number), Ordering::AcqRel);
            frame = lane.frames.pop();
            if frame.is_some() {
                self.ready.fetch_or(1 << number, Ordering::Release);
            }
        }
        lane.weight.fetch_sub(frame.as_ref().map_or(0, weight), Ordering::Relaxed);
        frame
    }
}

/// What the sequencer knows of a lane.
#[derive(Default)]
struct Share {
    /// Commands given their place and not known to be durable, by the last LSN of their batch.
    open: VecDeque<(Lsn, usize)>,
    weight: usize,
    seen: Option<Millis>,
    /// What is left of a frame that goes in pieces.
    pieces: VecDeque<Frame<Tag>>,
}

/// Whose turn it is; the sequencer's own.
pub(super) struct Turns {
    shares: Vec<Share>,
    turn: usize,
    /// Weight left of the turn.
    left: usize,
    contended: bool,
    /// Lanes passed over because they have their share.
    blocked: u64,
    /// Lanes with pieces left.
    cut: u64,
    /// Weight taken by each lane since the last batch was closed.
    taken: Vec<(usize, usize)>,
}

impl Turns {
    pub(super) fn new() -> Turns {
        Turns {
            shares: (0..LANES).map(|_| Share::default()).collect(),
            turn: 0,
            left: limit::TURN_COMMANDS,
            contended: false,
            blocked: 0,
            cut: 0,
            taken: Vec::new(),
        }
    }

    /// Begins a batch: what is durable no longer counts.
    pub(super) fn begin(&mut self, durable: Lsn, now: Millis) {
        let mut at_work = 0;
        for share in &mut self.shares {
            while let Some((lsn, weight)) = share.open.front().copied().filter(|(lsn, _)| *lsn <= durable) {
                share.open.pop_front();
                share.weight -= weight;
                debug_assert!(lsn <= durable);
            }
            at_work += usize::from(share.seen.is_some_and(|seen| now.since(seen) < AT_WORK_MS));
        }
        self.contended = at_work > 1;
        self.blocked = 0;
    }

    /// The next frame of a lane, or the next piece of it.
    fn take(&mut self, lanes: &Lanes) -> Option<Frame<Tag>> {
        let pieces = &mut self.shares[self.turn].pieces;
        let taken = match pieces.pop_front() {
            Some(piece) => Some(piece),
            None if self.contended => {
                *pieces = lanes.pop(self.turn).map(self::pieces).unwrap_or_default();
                pieces.pop_front()
            }
            None => lanes.pop(self.turn),
        };
        let bit = 1 << self.turn;
        self.cut = if pieces.is_empty() { self.cut & !bit } else { self.cut | bit };
        taken
    }

    /// The next frame, each lane in turn.
    pub(super) fn next(&mut self, lanes: &Lanes, now: Millis) -> Option<Frame<Tag>> {
        for _ in 0..=LANES {
            let ready = (lanes.ready.load(Ordering::Acquire) | self.cut) & !self.blocked;
            if ready == 0 {
                return None;
            }
            let bit = 1 << self.turn;
            if ready & bit != 0 && self.left > 0 {
                if self.contended && self.shares[self.turn].weight >= limit::LANE_SHARE_COMMANDS {
                    self.blocked |= bit;
                } else if let Some(frame) = self.take(lanes) {
                    let weight = weight(&frame);
                    self.left = self.left.saturating_sub(weight);
                    let share = &mut self.shares[self.turn];
                    share.weight += weight;
                    share.seen = Some(now);
                    self.taken.push((self.turn, weight));
                    return Some(frame);
                }
            }
            // The next lane that has something, round the circle.
            let ahead = ready.rotate_right(self.turn as u32 + 1).trailing_zeros() as usize;
            self.turn = (self.turn + 1 + ahead.min(LANES - 1)) % LANES;
            self.left = limit::TURN_COMMANDS;
        }
        None
    }

    /// Closes a batch that ends with `last`.
    pub(super) fn end(&mut self, last: Lsn) {
        for (lane, weight) in self.taken.drain(..) {
            match self.shares[lane].open.back_mut().filter(|(lsn, _)| *lsn == last) {
                Some(open) => open.1 += weight,
                None => self.shares[lane].open.push_back((last, weight)),
            }
        }
    }

    /// Lanes that wait until something is durable.
    pub(super) fn blocked(&self) -> u64 {
        self.blocked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(principal: u32, mark: u64, commands: usize) -> Frame<Tag> {
        let command = stockline_core::command::Command {
            key: stockline_core::id::Key(1),
            issued_at: Millis(0),
            digest: 0,
            body: stockline_core::command::Body::Expire(stockline_core::id::ReservationId(1)),
        };
        Frame {
            tag: Tag { mark, ..Tag::new(None) },
            principal: PrincipalId(principal),
            commands: vec![command; commands],
            lines: Vec::new(),
        }
    }

    /// Takes frames until there is none; principals and marks in their order.
    fn drain(turns: &mut Turns, lanes: &Lanes) -> Vec<(u32, u64)> {
        let mut taken = Vec::new();
        while let Some(frame) = turns.next(lanes, Millis(1)) {
            taken.push((frame.principal.0, frame.tag.mark));
        }
        taken
    }

    #[test]
    fn one_principal_waits_behind_itself_and_another_for_one_turn() {
        let (lanes, mut turns) = (Lanes::new(), Turns::new());
        for mark in 0..100 {
            assert!(lanes.push(frame(1, mark, 100)).is_ok());
        }
        assert!(lanes.push(frame(2, 0, 1)).is_ok());
        turns.begin(Lsn(0), Millis(1));
        let taken = drain(&mut turns, &lanes);
        assert_eq!(taken.len(), 101);
        let honest = taken.iter().position(|(principal, _)| *principal == 2).expect("taken");
        assert!(honest <= limit::TURN_COMMANDS / 100 + 1, "after {honest} frames of the other");
        let own: Vec<u64> = taken.iter().filter(|(one, _)| *one == 1).map(|(_, mark)| *mark).collect();
        assert!(own.is_sorted(), "a lane keeps its order");
    }

    #[test]
    fn while_others_are_at_work_a_lane_has_its_share_until_that_is_durable() {
        let (lanes, mut turns) = (Lanes::new(), Turns::new());
        turns.begin(Lsn(0), Millis(1));
        assert!(lanes.push(frame(1, 0, 1)).is_ok() && lanes.push(frame(2, 0, 1)).is_ok());
        assert_eq!(drain(&mut turns, &lanes).len(), 2);
        turns.end(Lsn(2));
        for mark in 1..100 {
            assert!(lanes.push(frame(1, mark, 100)).is_ok());
        }
        turns.begin(Lsn(2), Millis(2));
        // Two pieces, of 64 and 36, a frame.
        let share = drain(&mut turns, &lanes).len();
        assert_eq!(share, 3);
        assert_eq!(turns.shares[lane_of(PrincipalId(1))].weight, 164);
        turns.end(Lsn(700));
        assert!(!lanes.is_ready(turns.blocked()), "nothing to do until something is durable");
        assert!(lanes.push(frame(2, 1, 1)).is_ok());
        assert!(lanes.is_ready(turns.blocked()));
        turns.begin(Lsn(2), Millis(3));
        assert_eq!(drain(&mut turns, &lanes), [(2, 1)]);
        turns.end(Lsn(701));
        turns.begin(Lsn(700), Millis(4));
        assert_eq!(drain(&mut turns, &lanes).len(), share);
    }

    #[test]
    fn a_large_frame_goes_in_pieces_with_their_own_lines_while_others_are_at_work() {
        let mut large = frame(1, 7, 0);
        for number in 0..150u32 {
            let line_count = number % 3;
            let mut command = frame(1, 0, 1).commands.remove(0);
            command.body = Body::Reserve(stockline_core::command::Reserve {
                id: stockline_core::id::ReservationId(u128::from(number)),
                channel: stockline_core::id::ChannelId(0),
                ttl_ms: 1,
                fill: stockline_core::command::Fill::All,
                customer: 0,
                zone: stockline_core::id::ZoneId::NONE,
                labels: stockline_core::label::Labels::NONE,
                first_line: large.lines.len() as u32,
                line_count,
            });
            large.commands.push(command);
            large.lines.extend((0..line_count).map(|_| stockline_core::command::Line {
                sku: stockline_core::id::SkuId(number),
                node: stockline_core::id::NodeId::ANY,
                group: stockline_core::id::GroupId::ANY,
                quantity: 1,
            }));
        }
        let pieces = pieces(large);
        assert!(pieces.len() > 2);
        let mut next = 0;
        for (index, piece) in pieces.iter().enumerate() {
            assert_eq!(piece.tag.more, index + 1 < pieces.len());
            assert!(weight(piece) <= limit::TURN_COMMANDS + 2);
            for command in &piece.commands {
                let Body::Reserve(reserve) = &command.body else { panic!("reservations only") };
                assert_eq!(reserve.id.0, next);
                let lines = reserve.lines(&piece.lines);
                assert!(
                    lines.len() == next as usize % 3 && lines.iter().all(|line| line.sku.0 == next as u32)
                );
                next += 1;
            }
        }
        assert_eq!(next, 150);
    }

    #[test]
    fn a_full_lane_turns_frames_away_and_others_have_room() {
        let lanes = Lanes::new();
        let mut pushed = 0;
        while lanes.push(frame(1, pushed, 8_192)).is_ok() {
            pushed += 1;
        }
        assert!(pushed <= limit::LANE_COMMANDS_MAX as u64 / 8_192 + 1);
        assert!(lanes.push(frame(2, 0, 1)).is_ok());
        // Once something is taken there is room again.
        let mut turns = Turns::new();
        turns.begin(Lsn(0), Millis(1));
        drain(&mut turns, &lanes);
        assert!(lanes.push(frame(1, 0, 1)).is_ok());
    }
}
