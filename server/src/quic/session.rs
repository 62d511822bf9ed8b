//! One connection: reads frames, answers queries from the view on the spot, submits commands, and sends
//! their replies when the engine has them, as many at once as are there.
//!
//! What a connection may have in flight is bounded: beyond that its stream is not read, and beyond that the
//! sender is held back by QUIC. Only the guilty connection suffers from what it sends.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, RecvStream, SendStream, VarInt};
use stockline_core::admission::WindowSize;
use stockline_core::catalogue::{Definition, EntryKind, NameKind, Principal, Role};
use stockline_core::command::{Allocate, Body, Command, Frame, Read};
use stockline_core::id::{ChannelId, GroupId, Millis, SkuId};
use stockline_core::limit;
use stockline_core::merge::FrameReply;
use stockline_core::outcome::Code;
use stockline_core::record::DefinitionList;
use stockline_core::view::{Reader, Stale};
use stockline_core::wire::{
    self, AllocationAnswers, ArchivedAvailability, ArchivedFollow, ArchivedSignIn, AvailabilityAnswer,
    Explanations, Follow, Found, FrameType, Inbox, ItemRec, LaterRec, NodeRec, Positions, RawFrame, Refusal,
    ReservationAnswers, Results, Welcome, WireError,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::access::{self, Present, Turned};
use crate::availability;
use crate::budget::Charge;
use crate::engine::{Answered, AuditEntry, Clock, Engine, Refused, Tag};
use crate::follow::{Asked, Followed, Told};
use crate::log;
use crate::metrics::Operation;
use crate::principal::SignedIn;
use crate::trace::{self, Span};
use crate::zone;

/// Chunks taken from the stream, and replies from the engine, at one go.
const CHUNKS: usize = 32;
const STALLED: Duration = Duration::from_millis(limit::STALLED_READER_MS_MAX);
const REPLIES: usize = 256;
/// Replies collected before they are written.
const OUT_BYTES: usize = 256 << 10;

pub(super) struct Session {
    connection: Connection,
    send: SendStream,
    recv: RecvStream,
    engine: Engine,
    principal: Arc<Principal>,
    present: Arc<Present>,
    inbox: Inbox,
    out: Vec<u8>,
    answers: UnboundedSender<Answered>,
    answered: UnboundedReceiver<Answered>,
    frames_in_flight: usize,
    commands_in_flight: usize,
    /// What the replies to frames in flight may take, by the frame's mark, and those that wait to be written.
    reply_charges: HashMap<u64, Vec<Charge>>,
    written_charges: Vec<Charge>,
    /// Bytes of all of them.
    reply_bytes: usize,
    /// Commands and skus taken in this turn.
    taken: usize,
    /// Nothing is read before this: a frame was turned away, or waits for room in its lane.
    paused: Option<Instant>,
    waiting: Option<Box<Frame<Tag>>>,
    /// Kept between queries for its memory.
    answer: AvailabilityAnswer,
    /// What a follower was told; its answer has that while it is waited for.
    told: Told,
    /// The answer that is waited for, and to which request.
    follows: JoinSet<Followed>,
    following: Option<u32>,
}

impl Session {
    /// Waits for the first frame and signs its sender in.
    pub(super) async fn begin(connection: Connection, engine: Engine) -> Option<Session> {
        let (mut send, mut recv) = connection.accept_bi().await.ok()?;
        let mut inbox = Inbox::for_strangers();
        let mut out = Vec::new();
        let signed_in = loop {
            match inbox.next_frame() {
                Ok(Some(raw)) => break sign_in(&engine, raw),
                Ok(None) => {}
                Err(error) => break Err(Turned::from(error)),
            }
            let chunk = recv.read_chunk(limit::FRAME_BYTES_MAX, true).await.ok()??;
            inbox.push(&chunk.bytes);
        };
        let signed_in = signed_in.and_then(|(request, principal)| {
            let present = Present::enter(&engine, &principal)?;
            Ok((request, principal.principal, Arc::new(present)))
        });
        match signed_in {
            Ok((request, principal, present)) => {
                inbox.welcome();
                connection.set_receive_window(VarInt::from_u32(limit::CONNECTION_WINDOW_BYTES as u32));
                let window = WindowSize::default();
                let welcome = Welcome {
                    now_ms: engine.clock().now().0,
                    durable_lsn: engine.view().durable().0,
                    principal: principal.id.0,
                    role: principal.role as u8,
                    channel: principal.channel.map_or(u16::MAX, |channel| channel.0),
                    frame_bytes_max: limit::FRAME_BYTES_MAX as u32,
                    frame_commands_max: limit::FRAME_COMMANDS_MAX as u32,
                    frame_lines_max: limit::FRAME_LINES_MAX as u32,
                    window_ms: window.ms,
                    window_commands: window.commands,
                };
                wire::encode(&mut out, FrameType::Welcome, request, &welcome);
                let (answers, answered) = unbounded_channel();
                Some(Session {
                    connection,
                    send,
                    recv,
                    engine,
                    principal,
                    present,
                    inbox,
                    out,
                    answers,
                    answered,
                    frames_in_flight: 0,
                    commands_in_flight: 0,
                    reply_charges: HashMap::new(),
                    written_charges: Vec::new(),
                    reply_bytes: 0,
                    taken: 0,
                    paused: None,
                    waiting: None,
                    answer: AvailabilityAnswer::default(),
                    told: Told::default(),
                    follows: JoinSet::new(),
                    following: None,
                })
            }
            Err(turned) => {
                engine.metrics().refused(turned.code);
                let (code, from) = (turned.code.name(), connection.remote_address());
                if log::may_tell_of_strangers() {
                    tracing::info!(target: "audit", face = "quic", %from, code, text = &*turned.text);
                }
                let entry = AuditEntry { code: code.to_owned(), ..entry(&connection, "SignIn") };
                engine.trail().tell_refusal(engine.clock().now(), entry);
                refuse(&mut out, 0, turned.code, &turned.text);
                hang_up(&connection, &mut send, &out).await;
                None
            }
        }
    }

    /// Serves the connection until it ends.
    pub(super) async fn run(mut self) {
        let mut chunks = vec![Bytes::new(); CHUNKS];
        let mut replies = Vec::with_capacity(REPLIES);
        let revoked = self.present.revoked();
        tokio::pin!(revoked);
        loop {
            self.taken = 0;
            // What it sent before is answered; what it sent behind is not looked at.
            if self.present.is_over() {
                return self.finish(Some(Turned::new(Code::Unauthenticated, access::REVOKED))).await;
            }
            if let Err(error) = self.read_frames() {
                return self.finish(Some(Turned::from(error))).await;
            }
            let more = self.taken >= limit::SESSION_TURN_COMMANDS;
            let held_back = !self.has_room();
            // What is ready now goes along; waiting for more would only delay it.
            if let Some(followed) = self.follows.try_join_next() {
                self.tell(followed);
            }
            while self.out.len() < OUT_BYTES
                && let Ok(answered) = self.answered.try_recv()
            {
                self.reply(answered);
            }
            if !self.out.is_empty() {
                if !self.write_out().await {
                    return;
                }
                self.out.clear();
                self.out.shrink_to(OUT_BYTES);
                self.reply_bytes -=
                    self.written_charges.drain(..).map(|charge| charge.units()).sum::<usize>();
            }
            if more {
                // Others have waited meanwhile.
                tokio::task::yield_now().await;
                while let Ok(answered) = self.answered.try_recv() {
                    self.reply(answered);
                }
                // What was answered meanwhile goes out before anything is waited for.
                if self.has_room() || !self.out.is_empty() {
                    continue;
                }
            }
            if held_back && self.has_room() {
                // Frames that waited for room may be here already.
                continue;
            }
            let has_room = self.has_room();
            tokio::select! {
                biased;
                () = &mut revoked => {
                    let turned = Turned::new(Code::Unauthenticated, access::REVOKED);
                    return self.finish(Some(turned)).await;
                }
                read = self.recv.read_chunks(&mut chunks), if has_room => match read {
                    Ok(Some(count)) => {
                        for chunk in &mut chunks[..count] {
                            self.inbox.push(chunk);
                            *chunk = Bytes::new();
                        }
                    }
                    // The sender is done: what it waits for still goes out.
                    Ok(None) => return self.finish(None).await,
                    Err(_) => return,
                },
                () = sleep_until(self.paused.unwrap_or_else(Instant::now)), if self.paused.is_some() => {
                    self.paused = None;
                    if let Some(frame) = self.waiting.take() {
                        self.offer(*frame);
                    }
                }
                Some(followed) = self.follows.join_next(), if self.following.is_some() => {
                    self.tell(followed);
                }
                _ = self.answered.recv_many(&mut replies, REPLIES), if self.frames_in_flight > 0 => {
                    for answered in replies.drain(..) {
                        self.reply(answered);
                    }
                }
            }
        }
    }

    /// Sends what is collected; `false` if the peer has gone, or takes nothing for too long.
    async fn write_out(&mut self) -> bool {
        let mut sent = 0;
        while sent < self.out.len() {
            let write = tokio::time::timeout(STALLED, self.send.write(&self.out[sent..]));
            // Who reads slowly does not put off the end of its token.
            let written = tokio::select! {
                biased;
                written = write => written,
                () = self.present.revoked() => return false,
            };
            match written {
                Ok(Ok(count)) => sent += count,
                _ => return false,
            }
        }
        true
    }

    /// Answers what is still open, says what was wrong if something was, and ends the connection.
    async fn finish(mut self, turned: Option<Turned>) {
        // What found no room is not offered any more.
        if let Some(frame) = self.waiting.take() {
            self.frames_in_flight -= 1;
            self.commands_in_flight -= frame.commands.len();
            let text = "nothing was executed; send it again with the same keys";
            self.audit_refusal(frame.tag.audited, frame.tag.mark, Code::Overloaded);
            refuse(&mut self.out, (frame.tag.mark >> 8) as u32, Code::Overloaded, text);
        }
        while self.frames_in_flight > 0
            && let Some(answered) = self.answered.recv().await
        {
            self.reply(answered);
        }
        if let Some(request) = self.following.take() {
            let text = "nothing happened before the connection was ended; ask again over another";
            refuse(&mut self.out, request, Code::ShuttingDown, text);
        }
        if let Some(turned) = turned {
            refuse(&mut self.out, 0, turned.code, &turned.text);
        }
        hang_up(&self.connection, &mut self.send, &self.out).await;
    }

    fn has_room(&self) -> bool {
        self.frames_in_flight < limit::CONNECTION_FRAMES_IN_FLIGHT_MAX
            && self.commands_in_flight < limit::CONNECTION_COMMANDS_IN_FLIGHT_MAX
            && self.out.len() < OUT_BYTES
            && self.reply_bytes < limit::CONNECTION_REPLY_BYTES_MAX
            && self.paused.is_none()
    }

    fn read_frames(&mut self) -> Result<(), WireError> {
        let mut inbox = std::mem::take(&mut self.inbox);
        let mut result = Ok(());
        while self.has_room() && self.taken < limit::SESSION_TURN_COMMANDS {
            match inbox.next_frame() {
                Ok(Some(raw)) => {
                    if let Err(turned) = self.take(raw) {
                        self.turned_away(&raw, &turned);
                        refuse(&mut self.out, raw.request, turned.code, &turned.text);
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        self.inbox = inbox;
        result
    }

    /// Counts and logs a frame that is turned away as a whole.
    fn turned_away(&self, raw: &RawFrame<'_>, turned: &Turned) {
        self.engine.metrics().refused(turned.code);
        let (principal, kind, code) = (&*self.principal.name, raw.kind, turned.code.name());
        let text = &*turned.text;
        if turned.code == Code::Forbidden || (self.principal.role != Role::Admin && access::hides(code)) {
            if log::may_tell_of(self.principal.id) {
                tracing::info!(target: "audit", face = "quic", principal, ?kind, code, text);
            }
            let entry = self.entry(&format!("{kind:?}"), raw.request, code);
            self.engine.trail().tell_refusal(self.engine.clock().now(), entry);
        } else {
            tracing::debug!(target: "quic", principal, ?kind, code, text);
        }
    }

    /// Answers or submits one frame.
    fn take(&mut self, raw: RawFrame<'_>) -> Result<(), Turned> {
        let begun = Instant::now();
        if raw.kind == FrameType::Availability {
            let answered = self.answer_availability(raw);
            self.engine.metrics().framed(Operation::Availability, begun.elapsed());
            if trace::is_on() {
                self.span(raw.kind, begun.elapsed()).set("stockline.items", self.answer.items.len() as i64);
            }
            return answered;
        }
        if raw.kind == FrameType::Follow {
            return self.follow(raw);
        }
        if raw.kind == FrameType::ReadDefinitions {
            access::allow(&self.principal, raw.kind, &[])?;
            let wanted = wire::read_entries(raw)?;
            self.taken += wanted.len();
            let found = wanted.iter().filter_map(|(kind, name)| self.engine.names().entry(*kind, name));
            let shown: Vec<Definition> = found.map(|entry| access::shown(&entry)).collect();
            wire::encode(&mut self.out, FrameType::Definitions, raw.request, &DefinitionList::of(&shown));
            return Ok(());
        }
        let whose = access::whose(&self.principal);
        let mut read = wire::read_commands(raw, self.principal.id, &whose, self.engine.clock().now())?;
        access::allow(&self.principal, raw.kind, &read.commands)?;
        for (index, command) in read.commands.iter_mut().enumerate() {
            match &mut command.body {
                Body::Event(event) => zone::resolve_eta(&self.engine, event),
                Body::Define(definition) => {
                    let resolved = zone::resolved(Definition::clone(definition), self.engine.clock().wall());
                    let wrong =
                        |reason| Turned::new(Code::InvalidRule, format!("definition {index}: {reason}"));
                    **definition = resolved.map_err(wrong)?;
                }
                Body::Read(Read::Name { kind, name }) => {
                    access::hide_name(&self.engine, &self.principal, *kind, name);
                }
                _ => {}
            }
        }
        let mark = u64::from(raw.request) << 8 | raw.kind as u64;
        let bytes = reply_bytes(raw.kind, &read.commands, read.lines.len());
        if bytes > SMALL_REPLY_BYTES {
            let Some(charge) = self.engine.budgets().replies.charge(self.principal.id, bytes) else {
                let text =
                    "too many replies of this token wait to be taken: take them, and send it again later";
                return Err(Turned::new(Code::Overloaded, text));
            };
            self.reply_bytes += bytes;
            // Nothing keeps a sender from giving several frames one number.
            self.reply_charges.entry(mark).or_default().push(charge);
        }
        let mut frame = Frame {
            tag: Tag { mark, begun: begun.into_std(), ..Tag::new(Some(self.answers.clone())) },
            principal: self.principal.id,
            commands: read.commands,
            lines: read.lines,
        };
        if Operation::of_frame(raw.kind).administers() {
            let (principal, kind) = (&*self.principal.name, raw.kind);
            tracing::info!(target: "audit", face = "quic", principal, ?kind, commands = frame.commands.len());
            let entry = self.entry(&self.asked(raw.kind, &frame.commands), raw.request, "");
            frame.tag.audited = self.engine.trail().tell(self.engine.clock().now(), entry);
        }
        let commands = frame.commands.len();
        self.taken += commands;
        self.frames_in_flight += 1;
        self.commands_in_flight += commands;
        self.offer(frame);
        Ok(())
    }

    /// What was set aside for a frame's reply is in use until that is written.
    fn reply_is_made(&mut self, mark: u64) {
        let Some(charges) = self.reply_charges.get_mut(&mark) else { return };
        self.written_charges.extend(charges.pop());
        if charges.is_empty() {
            self.reply_charges.remove(&mark);
        }
    }

    /// A frame that was answered, as a span that is over.
    fn span(&self, kind: FrameType, took: Duration) -> Span {
        let mut span = Span::request(|| format!("{kind:?}"), None, took);
        span.set("network.transport", "quic");
        span.set("stockline.principal", self.principal.name.clone());
        span
    }

    /// What the audit trail is told of a frame.
    fn entry(&self, asked: &str, request: u32, code: &str) -> AuditEntry {
        let (principal, code, request) =
            (self.principal.name.clone(), code.to_owned(), format!("frame {request}"));
        AuditEntry { principal, code, request, ..entry(&self.connection, asked) }
    }

    /// A frame in words: what it defines, tokens first, or changes.
    fn asked(&self, kind: FrameType, commands: &[Command]) -> String {
        let names = self.engine.names();
        let name = |kind, id: u32| names.name(kind, id).unwrap_or_else(|| id.to_string().into());
        let say = |command: &Command| match &command.body {
            Body::Define(definition) => {
                let kind = definition.kind().map_or("sku", EntryKind::name);
                format!(" {kind} {:?}", definition.name())
            }
            Body::Allocate(Allocate { action, channel, to_channel, sku, node, quantity }) => {
                let (sku, node) = (name(NameKind::Sku, sku.0), name(NameKind::Node, u32::from(node.0)));
                let channel = name(NameKind::Channel, u32::from(channel.0));
                let to = match to_channel {
                    &ChannelId::SHARED => String::new(),
                    to => format!(" to {:?}", name(NameKind::Channel, u32::from(to.0))),
                };
                format!(" {action:?} {quantity} of {sku:?} at {node:?} for {channel:?}{to}")
            }
            _ => String::new(),
        };
        let is_token = |command: &&Command| matches!(&command.body, Body::Define(definition) if definition.kind() == Some(EntryKind::Principal));
        let tokens = commands.iter().filter(is_token);
        let others = commands.iter().filter(|command| !is_token(command));
        let mut text = format!("{kind:?} {}:", commands.len());
        for command in tokens.chain(others) {
            if text.len() > limit::AUDIT_TEXT_BYTES_MAX {
                break;
            }
            text.push_str(&say(command));
        }
        text
    }

    /// Says of a frame that is in the audit trail that it came to nothing, or not to all.
    fn audit_refusal(&self, audited: u64, mark: u64, code: Code) {
        if audited > 0 {
            let kind = FrameType::from_number(mark as u8);
            let asked = kind.map_or(String::new(), |kind| format!("{kind:?} was refused, or a part of it"));
            let entry = self.entry(&asked, (mark >> 8) as u32, code.name());
            self.engine.trail().tell(self.engine.clock().now(), entry);
        }
    }

    /// Submits a frame that counts as in flight. One whose lane is full waits here, and what is behind it in the
    /// stream: nothing overtakes it, and the sender is held back by QUIC.
    fn offer(&mut self, frame: Frame<Tag>) {
        let (commands, mark, audited) = (frame.commands.len(), frame.tag.mark, frame.tag.audited);
        let Err(refused) = self.engine.submit(frame) else { return };
        self.paused = Some(Instant::now() + Duration::from_millis(limit::OVERLOADED_PAUSE_MS));
        match refused {
            Refused::LaneFull(frame) => self.waiting = Some(frame),
            Refused::Turned(code) => {
                self.engine.metrics().refused(code);
                self.audit_refusal(audited, mark, code);
                self.frames_in_flight -= 1;
                self.commands_in_flight -= commands;
                self.reply_is_made(mark);
                let text = "nothing was executed; send it again later with the same keys";
                refuse(&mut self.out, (mark >> 8) as u32, code, text);
            }
        }
    }

    fn answer_availability(&mut self, raw: RawFrame<'_>) -> Result<(), Turned> {
        let malformed = |text: &str| Turned { code: Code::Malformed, text: text.into() };
        let question = wire::access::<ArchivedAvailability>(raw.archive)?;
        if question.queries.len() > limit::FRAME_COMMANDS_MAX || question.skus.len() > limit::FRAME_SKUS_MAX {
            return Err(malformed("more queries or skus than a frame may have"));
        }
        let asked: u64 = question.queries.iter().map(|query| u64::from(query.sku_count.to_native())).sum();
        if asked != question.skus.len() as u64 {
            return Err(malformed("sku_count of all queries must add up to the skus given"));
        }
        self.taken += question.skus.len();
        if self.principal.role == Role::Warehouse {
            let text = "a warehouse may not ask for availability".into();
            return Err(Turned { code: Code::Forbidden, text });
        }
        let answer = &mut self.answer;
        let (principal, clock) = (&*self.principal, self.engine.clock());
        let read = self.engine.view().read(|reader| answer_all(reader, clock, principal, question, answer));
        let (as_of, answered) = read.map_err(|Stale| Turned {
            code: Code::Overloaded,
            text: "these skus change faster than they can be read at once; ask for fewer in one frame".into(),
        })?;
        answered?;
        answer.as_of_lsn = as_of.0;
        wire::encode(&mut self.out, FrameType::AvailabilityAnswer, raw.request, answer);
        Ok(())
    }

    /// Begins to answer a follower; each connection has one answer waiting at a time.
    fn follow(&mut self, raw: RawFrame<'_>) -> Result<(), Turned> {
        let asked = wire::access::<ArchivedFollow>(raw.archive)?;
        let asked = Follow {
            from_lsn: asked.from_lsn.to_native(),
            channel: asked.channel.to_native(),
            what: asked.what,
            wait_ms: asked.wait_ms.to_native(),
            gather_ms: asked.gather_ms.to_native(),
        };
        let asked = Asked::new(&self.principal, &self.engine, &asked)?;
        if self.following.is_some() {
            let text = "an answer is waited for already; one at a time on a connection".into();
            return Err(Turned { code: Code::Overloaded, text });
        }
        self.following = Some(raw.request);
        let (engine, turn) = (self.engine.clone(), self.present.turn());
        self.follows.spawn(asked.answer(engine, turn, std::mem::take(&mut self.told)));
        Ok(())
    }

    fn tell(&mut self, followed: Result<Followed, JoinError>) {
        let Some(request) = self.following.take() else { return };
        let turned = |text: &str| Turned { code: Code::Overloaded, text: text.into() };
        let answer = followed.map_err(|_| turned("the answer was lost; ask again")).and_then(|followed| {
            self.told = followed.told;
            followed.answer
        });
        match answer {
            Ok(changes) => wire::encode(&mut self.out, FrameType::Changes, request, &changes),
            Err(turned) => refuse(&mut self.out, request, turned.code, &turned.text),
        }
    }

    fn reply(&mut self, answered: Answered) {
        if answered.reply.repeats().next().is_some() {
            let (engine, answers) = (self.engine.clone(), self.answers.clone());
            let present = Arc::clone(&self.present);
            tokio::spawn(async move {
                if let Some(answered) = present.look_up(&engine, answered, || answers.is_closed()).await {
                    let _ = answers.send(answered);
                }
            });
            return;
        }
        let kind = FrameType::from_number(answered.mark as u8);
        let operation = kind.map_or(Operation::Other, Operation::of_frame);
        if !self.engine.trail().is_written(answered.audited) {
            let (engine, answers) = (self.engine.clone(), self.answers.clone());
            tokio::spawn(async move {
                engine.trail().written(answered.audited).await;
                // Who asked may have gone.
                let _ = answers.send(answered);
            });
            return;
        }
        // It is in flight until what is to be kept of it is kept: that bounds what waits for the disk.
        if !answered.reply.refused.is_empty() || !answered.events.is_empty() {
            let (engine, answers) = (self.engine.clone(), self.answers.clone());
            let principal = Arc::clone(&self.principal);
            let mut answered = answered;
            tokio::spawn(async move {
                let refused = std::mem::take(&mut answered.reply.refused);
                let told = std::mem::take(&mut answered.events).into_iter().zip(&answered.reply.replies);
                let applied = told.filter(|(_, told)| told.outcome.code == Code::Ok).map(|(key, _)| key);
                let applied = applied.collect();
                crate::http::keep_refused(&engine, &principal, refused, applied).await;
                let _ = answers.send(answered);
            });
            return;
        }
        self.frames_in_flight -= 1;
        self.commands_in_flight -= answered.commands;
        let refused =
            answered.reply.replies.iter().map(|told| told.outcome.code).find(|code| *code != Code::Ok);
        if let Some(code) = refused.filter(|_| answered.audited > 0) {
            self.audit_refusal(answered.audited, answered.mark, code);
        }
        let took = answered.begun.elapsed();
        self.engine.metrics().framed(operation, took);
        if let Some(kind) = kind.filter(|_| trace::is_on()) {
            self.span(kind, took).set("stockline.commands", answered.commands as i64);
        }
        let request = (answered.mark >> 8) as u32;
        self.reply_is_made(answered.mark);
        let mut reply: FrameReply = answered.reply;
        match kind {
            Some(FrameType::ReadPositions) => {
                wire::encode(&mut self.out, FrameType::Positions, request, &Positions::of(&reply));
            }
            Some(FrameType::ReadAllocations) => {
                wire::encode(&mut self.out, FrameType::Allocations, request, &AllocationAnswers::of(&reply));
            }
            Some(FrameType::Explain) => {
                access::hide(&self.engine, &self.principal, &mut reply.traces);
                let told = Explanations::of(&reply);
                wire::encode(&mut self.out, FrameType::Explanations, request, &told);
            }
            Some(FrameType::Find) => {
                wire::encode(&mut self.out, FrameType::Found, request, &Found::of(&reply));
            }
            Some(FrameType::ReadReservations) => {
                let answers = ReservationAnswers::of(&reply);
                if answers.claims.len() * 32 + answers.text.len() > limit::REPLY_BYTES_MAX / 2 {
                    let text = "too many claims for one reply; ask for fewer reservations at once";
                    refuse(&mut self.out, request, Code::Malformed, text);
                } else {
                    wire::encode(&mut self.out, FrameType::Reservations, request, &answers);
                }
            }
            _ => wire::encode(&mut self.out, FrameType::Results, request, &Results::of(&reply)),
        }
    }
}

/// Bytes of a reply up to which it is not counted: the commands in flight bound those.
const SMALL_REPLY_BYTES: usize = 64 << 10;
/// Bytes that a claim, a trace, or a part of a reply takes until it is written, and that are reserved for one frame at most.
const PART_BYTES: usize = 40;
const RESERVED_BYTES_MAX: usize = 2 << 20;

/// Bytes that are set aside for the reply to a frame before it is made, as large as replies of its kind usually get.
fn reply_bytes(kind: FrameType, commands: &[Command], lines: usize) -> usize {
    let parts = match kind {
        FrameType::ReadReservations => commands.len() * limit::RESERVATION_LINES_MAX,
        FrameType::Find => commands.len() * limit::FOUND_MAX / 4,
        FrameType::ReadAllocations => commands.len() * limit::ALLOCATIONS_PER_SKU_MAX / 4,
        FrameType::Explain => lines * limit::NODES_MAX,
        FrameType::Reserve => lines * 2 + commands.len(),
        _ => commands.len(),
    };
    (parts * PART_BYTES).min(RESERVED_BYTES_MAX)
}

/// What the audit trail is told of a connection.
fn entry(connection: &Connection, asked: &str) -> AuditEntry {
    let from = Some(connection.remote_address().ip().to_canonical());
    AuditEntry { face: "quic".into(), from, ..AuditEntry::of(asked) }
}

fn sign_in(engine: &Engine, raw: RawFrame<'_>) -> Result<(u32, SignedIn), Turned> {
    let unknown = |text: &str| Turned { code: Code::Unauthenticated, text: text.into() };
    if raw.kind != FrameType::SignIn {
        return Err(unknown("the first frame must be a sign-in"));
    }
    let frame = wire::access::<ArchivedSignIn>(raw.archive)?;
    let principal = engine.principals().sign_in(&frame.token).ok_or(unknown(
        "the token is not known here; see admin.token in the data directory, or `stockline token`",
    ))?;
    Ok((raw.request, principal))
}

/// Answers every query of a frame from one state.
fn answer_all(
    reader: &Reader<'_>,
    clock: &Clock,
    principal: &Principal,
    question: &ArchivedAvailability,
    answer: &mut AvailabilityAnswer,
) -> Result<Result<(), Turned>, Stale> {
    answer.items.clear();
    answer.nodes.clear();
    answer.later.clear();
    let mut next = 0;
    let now = availability::now(reader, clock);
    for (index, query) in question.queries.iter().enumerate() {
        if query.detail > 1 {
            let text = format!("query {index}: detail must be 0 or 1");
            return Ok(Err(Turned { code: Code::Malformed, text }));
        }
        let channel = ChannelId(query.channel.to_native());
        let own = principal.role == Role::Admin || principal.channel == Some(channel);
        let Some(rule) = reader.rules.channel(channel).filter(|_| own) else {
            let text = format!("query {index}: no such channel for this token");
            return Ok(Err(Turned { code: Code::UnknownChannel, text }));
        };
        let group = GroupId(query.group.to_native());
        let nodes = reader.rules.group(group);
        if group != GroupId::ANY && nodes.is_none() {
            let text = format!("query {index}: no such group");
            return Ok(Err(Turned { code: Code::UnknownGroup, text }));
        }
        let count = query.sku_count.to_native() as usize;
        for sku in question.skus[next..next + count].iter() {
            let first_node = answer.nodes.len();
            let listed = &mut answer.nodes;
            if listed.len() > limit::ANSWER_NODES_MAX {
                let text =
                    format!("query {index}: more than 65536 nodes to list; ask for fewer skus at once");
                return Ok(Err(Turned { code: Code::Malformed, text }));
            }
            let offer = availability::offer(
                reader,
                (now, Millis(0)),
                rule,
                nodes,
                SkuId(sku.to_native()),
                |node, free| {
                    if query.detail != 0 {
                        listed.push(NodeRec { available: free as u64, node: node.0 });
                    }
                },
            )?;
            // No node has more for the channel than all of them.
            for node in &mut answer.nodes[first_node..] {
                node.available = node.available.min(offer.units as u64);
            }
            if offer.later.units > 0 {
                let units = offer.later.units.min(i64::from(u32::MAX)) as u32;
                let item = answer.items.len() as u32;
                answer.later.push(LaterRec { from_ms: offer.later.from.0, units, item });
            }
            answer.items.push(ItemRec {
                available: offer.units as u64,
                node_count: (answer.nodes.len() - first_node) as u16,
                status: offer.status as u8,
            });
        }
        next += count;
    }
    Ok(Ok(()))
}

fn refuse(out: &mut Vec<u8>, request: u32, code: Code, text: &str) {
    let refusal = Refusal { code: code as u8, text: text.as_bytes().to_vec() };
    wire::encode(out, FrameType::Refusal, request, &refusal);
}

/// Sends what is left and ends the connection, giving the peer a moment to read it.
async fn hang_up(connection: &Connection, send: &mut SendStream, out: &[u8]) {
    let farewell = async {
        if send.write_all(out).await.is_ok() && send.finish().is_ok() {
            let _ = send.stopped().await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), farewell).await;
    connection.close(VarInt::from_u32(1), b"closed");
}
