//! Commands: what may change the ledger, as the rules see it (the wire has its own types).

use crate::catalogue::{Definition, EntryKind, NameKind};
use crate::event::StockEvent;
use crate::id::{ChannelId, GroupId, Key, Millis, NodeId, PrincipalId, ReservationId, SkuId, ZoneId};
use crate::label::{LabelKind, Labels, Whose};

/// What is wanted of a reservation. Numbers are stable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Verb {
    Confirm = 1,
    Release = 2,
    Extend = 3,
    Fulfil = 4,
    /// Claims go to other nodes.
    Move = 5,
}

impl Verb {
    pub fn from_number(number: u8) -> Option<Verb> {
        [Verb::Confirm, Verb::Release, Verb::Extend, Verb::Fulfil, Verb::Move]
            .get(number.wrapping_sub(1) as usize)
            .copied()
    }

    pub fn name(self) -> &'static str {
        ["confirm", "release", "extend", "fulfil", "move"][self as usize - 1]
    }
}

/// Some of what a reservation claims, for a step that takes a part of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StepLine {
    pub sku: SkuId,
    pub node: NodeId,
    /// Move: where the units are claimed instead; else [`NodeId::ANY`].
    pub to_node: NodeId,
    pub quantity: u32,
}

/// One line of a reservation. The lines of all reservations of a frame lie in one array.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Line {
    pub sku: SkuId,
    /// The node wanted, or [`NodeId::ANY`].
    pub node: NodeId,
    /// The group wanted, or [`GroupId::ANY`].
    pub group: GroupId,
    pub quantity: u32,
}

/// How much of a reservation must be there. Numbers are stable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
#[repr(u8)]
pub enum Fill {
    /// All lines in full, or nothing.
    #[default]
    All = 0,
    /// Of each line what there is; refused only if that is nothing at all.
    Partial = 1,
}

impl Fill {
    pub fn from_number(number: u8) -> Option<Fill> {
        [Fill::All, Fill::Partial].get(number as usize).copied()
    }
}

/// Lines to be held until `ttl_ms` after it took effect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reserve {
    pub id: ReservationId,
    pub channel: ChannelId,
    pub ttl_ms: u32,
    pub fill: Fill,
    /// Who it is for, as the channel numbers its customers; 0 for nobody in particular.
    pub customer: u64,
    /// Where the order goes.
    pub zone: ZoneId,
    /// What its owner calls it.
    pub labels: Labels,
    /// Its lines within [`Frame::lines`].
    pub first_line: u32,
    pub line_count: u32,
}

impl Reserve {
    pub fn lines<'a>(&self, all: &'a [Line]) -> &'a [Line] {
        &all[self.first_line as usize..][..self.line_count as usize]
    }
}

/// A step in a reservation's life.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transition {
    pub reservation: ReservationId,
    pub verb: Verb,
    /// Extend: new time to live, counted from when the command takes effect; it never shortens a hold. Fulfil: not 0 where
    /// all of it goes, also what nobody picked while other units were.
    pub ttl_ms: u32,
    /// Whoever acts for one channel only sees that channel's reservations; others look unknown.
    pub scope: Option<ChannelId>,
    /// What the step takes; empty for all of it. Move has some, extend none.
    pub lines: Box<[StepLine]>,
}

/// What becomes of a channel's allocation. Numbers are stable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Action {
    /// Free units become the channel's.
    Allocate = 1,
    /// The channel's become free.
    Deallocate = 2,
    /// The channel's become another channel's.
    Reallocate = 3,
}

impl Action {
    pub fn from_number(number: u8) -> Option<Action> {
        [Action::Allocate, Action::Deallocate, Action::Reallocate]
            .get(number.wrapping_sub(1) as usize)
            .copied()
    }
}

/// A change of channel allocations at one position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Allocate {
    pub action: Action,
    pub channel: ChannelId,
    /// Reallocate: whose the units become; else [`ChannelId::SHARED`].
    pub to_channel: ChannelId,
    pub sku: SkuId,
    pub node: NodeId,
    pub quantity: u32,
}

/// A question that needs the ledger itself and not the published view. It takes its place in the order but
/// gets no LSN of its own and leaves no trace; its answer waits until all before it is durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Read {
    Position {
        sku: SkuId,
        node: NodeId,
    },
    Reservation {
        id: ReservationId,
        scope: Option<ChannelId>,
    },
    /// Reservations that have a text: as this, or as their key, order or reference.
    Find {
        kind: Option<LabelKind>,
        text: Box<str>,
        whose: Whose,
    },
    /// A sku's allocations, of all channels or of one.
    Allocations {
        sku: SkuId,
        channel: Option<ChannelId>,
    },
    /// What a reservation would be told, and why; it is not made.
    Explain(Reserve),
    /// Whether an entry of the catalogue is what its reader saw: if not, what comes behind in the frame is not done.
    /// The sequencer knows.
    Unchanged {
        kind: EntryKind,
        name: Box<str>,
        /// Of [`Definition::version`]; 0: there must be none.
        version: u64,
    },
    /// The id behind a name; the sequencer knows.
    Name {
        kind: NameKind,
        name: Box<str>,
    },
}

#[derive(Clone, PartialEq, Debug)]
pub enum Body {
    Reserve(Reserve),
    Transition(Transition),
    Event(StockEvent),
    Allocate(Allocate),
    /// Only the system sends these.
    Expire(ReservationId),
    /// Allocations of a sku that keep themselves are brought to where their rules say.
    Balance(SkuId),
    Define(Box<Definition>),
    Read(Read),
}

/// A command with what its sender says of it.
#[derive(Clone, PartialEq, Debug)]
pub struct Command {
    pub key: Key,
    /// When its sender first sent it, by the server's clock as learnt at sign-in, or [`Command::not_before`] of a moment.
    pub issued_at: Millis,
    /// Hash of the body: a repeat must have the same.
    pub digest: u64,
    pub body: Body,
}

/// In `issued_at`: the command was sent at this moment or later. Its sender made no claim of its own, so being long ago
/// makes it too old only where something of that time was forgotten.
const BOUND: u64 = 1 << 63;

impl Command {
    /// A moment before which a command was not sent, as `issued_at`.
    pub fn not_before(moment: Millis) -> Millis {
        Millis(moment.0 & !BOUND | BOUND)
    }

    /// When it was sent, or before which it was not.
    pub fn issued(&self) -> Millis {
        Millis(self.issued_at.0 & !BOUND)
    }

    pub fn is_bound(&self) -> bool {
        self.issued_at.0 & BOUND != 0
    }
}

impl Body {
    /// Whether the journal could be read back with it. A face that lets through what is not sound is wrong; the
    /// sequencer turns it away all the same, before it has a place in the order.
    pub fn is_sound(&self) -> bool {
        match self {
            Body::Reserve(reserve) => reserve.id.0 != 0,
            other => other.lines_fit(),
        }
    }

    /// The same of steps and allocations.
    #[inline(never)]
    fn lines_fit(&self) -> bool {
        match self {
            Body::Transition(step) => {
                let lines = match step.verb {
                    Verb::Move => !step.lines.is_empty(),
                    Verb::Extend => step.lines.is_empty(),
                    _ => true,
                };
                let fits = |line: &StepLine| match step.verb {
                    Verb::Move => line.to_node != NodeId::ANY,
                    _ => line.to_node == NodeId::ANY,
                };
                lines && step.lines.iter().all(fits)
            }
            Body::Allocate(allocate) => {
                let to = allocate.to_channel;
                match allocate.action {
                    Action::Reallocate => to != ChannelId::SHARED && to != allocate.channel,
                    _ => to == ChannelId::SHARED,
                }
            }
            _ => true,
        }
    }
}

/// Commands of one principal that arrived together and are answered together. Lines stand in the order of their
/// reservations. `tag` is the engine's: whom to answer.
#[derive(Debug)]
pub struct Frame<T> {
    pub tag: T,
    pub principal: PrincipalId,
    pub commands: Vec<Command>,
    pub lines: Vec<Line>,
}

impl<T> Frame<T> {
    /// Lines of its reservations and of its steps.
    pub fn line_count(&self) -> usize {
        let steps = self.commands.iter().map(|command| match &command.body {
            Body::Transition(transition) => transition.lines.len(),
            _ => 0,
        });
        self.lines.len() + steps.sum::<usize>()
    }
}
