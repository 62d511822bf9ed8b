//! What clients send.

use rkyv::{Archive, Deserialize, Serialize};

use crate::catalogue::{Definition, EntryKind, NameKind};
use crate::command::{Body, Command, Line, Read};
use crate::id::{ChannelId, Key, Millis, NodeId, PrincipalId, ReservationId, SkuId};
use crate::label::{self, LabelKind, LabelRec, Whose};
use crate::limit;
use crate::record::{
    AllocateRec, ArchivedDefinitionList, ArchivedEvents, LineRec, RecordError, ReserveRec, StepLineRec,
    TextReader, TextRec, TransitionRec, digest,
};
use crate::wire::{FrameType, RawFrame, WireError, access};

pub use crate::record::Events;

/// Must be the first frame.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct SignIn {
    pub token: Vec<u8>,
}

/// A name whose id is wanted.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct ResolveRec {
    /// 1 sku, 2 node, 3 group, 4 channel, 5 zone.
    pub kind: u8,
    /// 1: a sku that is not known comes into being.
    pub create: u8,
    pub name: TextRec,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Resolve {
    pub wanted: Vec<ResolveRec>,
    pub text: Vec<u8>,
}

/// Reservations to be made, or to be explained; the lines of all stand in one list, in their order, and so do their
/// labels. What is explained needs no key and no time of issue.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Reservations {
    pub reservations: Vec<ReserveRec>,
    pub lines: Vec<LineRec>,
    pub labels: Vec<LabelRec>,
    pub text: Vec<u8>,
}

/// Steps; the lines of all stand in one list, in their order.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Transitions {
    pub transitions: Vec<TransitionRec>,
    pub lines: Vec<StepLineRec>,
}

/// A question about some of the frame's skus.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct QueryRec {
    pub channel: u16,
    /// 65535: the channel's own.
    pub group: u16,
    /// 0: totals, 1: nodes too.
    pub detail: u8,
    pub sku_count: u32,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Availability {
    pub queries: Vec<QueryRec>,
    pub skus: Vec<u32>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct PlaceRec {
    pub sku: u32,
    pub node: u16,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct ReadPositions {
    pub places: Vec<PlaceRec>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct ReadReservations {
    pub ids: Vec<u128>,
}

/// Asks which reservations have texts: `kind` 0 as key, order or reference, else as a label's.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Find {
    pub wanted: Vec<LabelRec>,
    pub text: Vec<u8>,
}

/// Changes of channel allocations.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Allocations {
    pub allocations: Vec<AllocateRec>,
}

/// Skus whose allocations are wanted.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct ReadAllocations {
    /// 65535: those of all channels.
    pub channel: u16,
    pub skus: Vec<u32>,
}

/// An entry of the catalogue that is wanted.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct EntryRec {
    /// As in a definition: 2 node to 8 zone.
    pub kind: u8,
    pub name: TextRec,
}

/// Asks for entries of the catalogue as they stand, as of what is durable.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct ReadDefinitions {
    pub wanted: Vec<EntryRec>,
    pub text: Vec<u8>,
}

/// The entries that a frame asks for, by kind and name.
pub fn read_entries(raw: RawFrame<'_>) -> Result<Vec<(EntryKind, String)>, WireError> {
    let frame = access::<ArchivedReadDefinitions>(raw.archive)?;
    at_most("entries", frame.wanted.len(), limit::READ_DEFINITIONS_MAX)?;
    let texts = TextReader::new(&[], &[], &frame.text);
    let entry = |(index, rec): (usize, &ArchivedEntryRec)| {
        let wrong = at("wanted", index);
        let known = EntryKind::from_number(rec.kind).filter(|kind| *kind != EntryKind::Webhook);
        let kind = known.ok_or(wrong("kind must be 2 (node) to 8 (zone)"))?;
        Ok((kind, texts.get(&rec.name).map_err(wrong)?.to_owned()))
    };
    frame.wanted.iter().enumerate().map(entry).collect()
}

/// Asks what happened from an LSN on.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct Follow {
    /// The first LSN that was not told yet; 0: whatever comes.
    pub from_lsn: u64,
    /// Whose reservations and availability; 65535: reservations of all channels.
    pub channel: u16,
    /// Bit 0: what happened to reservations, 1: skus whose status is another, 2: and those whose number is another.
    pub what: u8,
    /// Answered when there is something to tell, or after so many milliseconds.
    pub wait_ms: u32,
    /// So long may what happens be gathered: of one sku only the last is told.
    pub gather_ms: u32,
}

/// Commands and lines of a frame, ready for the order.
#[derive(Default, Debug, PartialEq)]
pub struct Commands {
    pub commands: Vec<Command>,
    pub lines: Vec<Line>,
}

fn at_most(what: &'static str, count: usize, max: usize) -> Result<(), WireError> {
    if count > max { Err(WireError::TooMany { what, count, max }) } else { Ok(()) }
}

fn at(list: &'static str, index: usize) -> impl Fn(&'static str) -> WireError {
    move |reason| WireError::Record(RecordError { list, index, reason })
}

/// Reads a frame of commands or reads. `whose` reservations steps and reads can see.
/// Whatever source events name is one of the principal's. Idempotency keys of events, reservations and transitions must not be 0.
pub fn read_commands(
    raw: RawFrame<'_>,
    principal: PrincipalId,
    whose: &Whose,
    now: Millis,
) -> Result<Commands, WireError> {
    let mut read = Commands::default();
    let scope = if let Whose::Channel(channel) = whose { Some(*channel) } else { None };
    let plain = |body| Command { key: Key(0), issued_at: now, digest: 0, body };
    match raw.kind {
        FrameType::Resolve => {
            let frame = access::<ArchivedResolve>(raw.archive)?;
            at_most("names", frame.wanted.len(), limit::FRAME_COMMANDS_MAX)?;
            let texts = TextReader::new(&[], &[], &frame.text);
            for (index, rec) in frame.wanted.iter().enumerate() {
                let wrong = at("wanted", index);
                let kind =
                    NameKind::from_number(rec.kind).ok_or(wrong("kind must be 1 (sku) to 5 (zone)"))?;
                let name = texts.get(&rec.name).map_err(&wrong)?;
                if rec.create > 1 {
                    return Err(wrong("create must be 0 or 1"));
                }
                read.commands.push(plain(if rec.create != 0 && kind == NameKind::Sku {
                    Body::Define(Box::new(Definition::Sku { name: name.to_owned() }))
                } else {
                    Body::Read(Read::Name { kind, name: name.into() })
                }));
            }
        }
        FrameType::Define => {
            let frame = access::<ArchivedDefinitionList>(raw.archive)?;
            at_most("definitions", frame.definitions.len(), limit::FRAME_COMMANDS_MAX)?;
            let definitions = frame.read()?;
            read.commands =
                definitions.into_iter().map(|definition| plain(Body::Define(Box::new(definition)))).collect();
        }
        FrameType::Events => {
            let frame = access::<ArchivedEvents>(raw.archive)?;
            at_most("events", frame.events.len(), limit::FRAME_COMMANDS_MAX)?;
            read.commands.reserve_exact(frame.events.len());
            let texts = TextReader::new(&[], &[], &frame.text);
            for (index, rec) in frame.events.iter().enumerate() {
                let wrong = at("events", index);
                let mut command = rec.command(&texts, 0).map_err(&wrong)?;
                if let Body::Event(event) = command.body {
                    label::check(&event.reason).map_err(|_| {
                        wrong("reason is longer than 128 bytes, or has characters that nobody sees")
                    })?;
                    command.body = Body::Event(event.told_by(principal));
                }
                read.commands.push(command);
            }
        }
        FrameType::Reserve | FrameType::Explain => {
            let frame = access::<ArchivedReservations>(raw.archive)?;
            at_most("reservations", frame.reservations.len(), limit::FRAME_COMMANDS_MAX)?;
            let explain = raw.kind == FrameType::Explain;
            let lines_max = if explain { limit::EXPLAIN_LINES_MAX } else { limit::FRAME_LINES_MAX };
            at_most("lines", frame.lines.len(), lines_max)?;
            read.commands.reserve_exact(frame.reservations.len());
            read.lines = frame.lines.iter().map(|line| line.line()).collect();
            let mut line = 0u32;
            let (mut labels, texts) = (frame.labels.iter(), TextReader::new(&[], &[], &frame.text));
            for (index, rec) in frame.reservations.iter().enumerate() {
                let wrong = at("reservations", index);
                let mut command = rec.command(line, &mut labels, &texts, 0).map_err(&wrong)?;
                if explain && let Body::Reserve(reserve) = command.body {
                    command = plain(Body::Read(Read::Explain(reserve)));
                }
                read.commands.push(command);
                line += u32::from(rec.line_count.to_native());
                if line as usize > read.lines.len() {
                    return Err(wrong("line_count reaches beyond the lines"));
                }
            }
            if line as usize != read.lines.len() {
                return Err(at("lines", line as usize)("belongs to no reservation"));
            }
            if labels.next().is_some() {
                return Err(at("labels", frame.labels.len() - labels.len() - 1)("belongs to no reservation"));
            }
        }
        FrameType::Transitions => {
            let frame = access::<ArchivedTransitions>(raw.archive)?;
            at_most("transitions", frame.transitions.len(), limit::FRAME_COMMANDS_MAX)?;
            at_most("lines", frame.lines.len(), limit::FRAME_LINES_MAX)?;
            let mut lines = frame.lines.iter();
            read.commands.reserve_exact(frame.transitions.len());
            for (index, rec) in frame.transitions.iter().enumerate() {
                read.commands.push(rec.command(&mut lines, scope, 0).map_err(at("transitions", index))?);
            }
            if lines.next().is_some() {
                return Err(at("lines", frame.lines.len() - lines.len() - 1)("belongs to no step"));
            }
        }
        FrameType::ReadPositions => {
            let frame = access::<ArchivedReadPositions>(raw.archive)?;
            at_most("places", frame.places.len(), limit::FRAME_COMMANDS_MAX)?;
            let places = frame.places.iter().map(|place| Read::Position {
                sku: SkuId(place.sku.to_native()),
                node: NodeId(place.node.to_native()),
            });
            read.commands = places.map(|place| plain(Body::Read(place))).collect();
        }
        FrameType::ReadReservations => {
            let frame = access::<ArchivedReadReservations>(raw.archive)?;
            at_most("ids", frame.ids.len(), limit::READ_RESERVATIONS_MAX)?;
            let ids =
                frame.ids.iter().map(|id| Read::Reservation { id: ReservationId(id.to_native()), scope });
            read.commands = ids.map(|id| plain(Body::Read(id))).collect();
        }
        FrameType::Find => {
            let frame = access::<ArchivedFind>(raw.archive)?;
            at_most("texts", frame.wanted.len(), limit::FIND_MAX)?;
            let texts = TextReader::new(&[], &[], &frame.text);
            for (index, rec) in frame.wanted.iter().enumerate() {
                let wrong = at("wanted", index);
                let kind = match rec.kind {
                    0 => None,
                    kind => Some(LabelKind::from_number(kind).ok_or(wrong("kind must be 0 to 4"))?),
                };
                let text = texts.get(&rec.text).map_err(wrong)?.into();
                read.commands.push(plain(Body::Read(Read::Find { kind, text, whose: whose.clone() })));
            }
        }
        FrameType::Allocate => {
            let frame = access::<ArchivedAllocations>(raw.archive)?;
            at_most("allocations", frame.allocations.len(), limit::FRAME_COMMANDS_MAX)?;
            for (index, rec) in frame.allocations.iter().enumerate() {
                read.commands.push(rec.command(0).map_err(at("allocations", index))?);
            }
        }
        FrameType::ReadAllocations => {
            let frame = access::<ArchivedReadAllocations>(raw.archive)?;
            at_most("skus", frame.skus.len(), limit::READ_ALLOCATIONS_MAX)?;
            let channel = ChannelId(frame.channel.to_native());
            let channel = (channel != ChannelId::SHARED).then_some(channel);
            let skus = frame.skus.iter().map(|sku| SkuId(sku.to_native()));
            read.commands = skus.map(|sku| plain(Body::Read(Read::Allocations { sku, channel }))).collect();
        }
        other => return Err(WireError::Type(other as u8)),
    }
    let keyed = matches!(
        raw.kind,
        FrameType::Events | FrameType::Reserve | FrameType::Transitions | FrameType::Allocate
    );
    for (index, command) in read.commands.iter_mut().enumerate() {
        if keyed && command.key == Key(0) {
            return Err(at("commands", index)("key must not be 0"));
        }
        command.digest = digest(&command.body, &read.lines);
    }
    Ok(read)
}
