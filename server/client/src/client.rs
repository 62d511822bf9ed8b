//! The client: typed calls over a connection that is made again when it is lost.
//!
//! A task owns the connection and everything not answered yet. When the connection is lost, it connects
//! again and sends all of that again, byte for byte: the server recognises the keys and tells the first
//! answers. Definitions, look-ups and queries have no keys; repeating them changes nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use rkyv::Serialize;
use rkyv::api::high::HighSerializer;
use rkyv::rancor::Failure;
use rkyv::ser::allocator::ArenaHandle;
use stockline_core::catalogue::{Definition, EntryKind, NameKind};
use stockline_core::command::{Fill, Verb};
use stockline_core::label::{self, LabelRec, Labels};
use stockline_core::limit;
use stockline_core::outcome::{Code, State};
use stockline_core::record::{
    AllocateRec, ArchivedDefinitionList, DefinitionList, EventRec, LineRec, ReserveRec, StepLineRec,
    TextReader, TextRec, Texts, TransitionRec,
};
use stockline_core::wire::{
    self, Allocations, ArchivedAllocationAnswers, ArchivedAvailabilityAnswer, ArchivedChanges,
    ArchivedExplanations, ArchivedFound, ArchivedPartRec, ArchivedPositions, ArchivedReservationAnswers,
    ArchivedResultRec, ArchivedResults, Availability, AvailabilityAnswer, ChangeRec, Changes, ClaimRec,
    EntryRec, Events, Find, Follow, FrameType, ItemRec, LaterRec, NodeRec, NoticeRec, PartRec, PlaceRec,
    PositionRec, ReadAllocations, ReadDefinitions, ReadPositions, ReadReservations, Reservations, Resolve,
    ResolveRec, ShareRec, TraceRec, Transitions, Welcome,
};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::connection::{Connection, FrameSink, FrameSource, refusal};
use crate::{ClientError, Profile};

/// Frames not answered yet; more wait in the call.
const IN_FLIGHT: usize = 512;
/// How long to go on trying to reach a server that is away.
const GIVE_UP: Duration = Duration::from_secs(60);
const BACK_OFF: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(2);

/// A reservation to be made. Its id is also its idempotency key.
#[derive(Clone, Debug, PartialEq)]
pub struct NewReservation {
    pub id: u128,
    pub channel: u16,
    pub ttl_ms: u32,
    pub fill: Fill,
    /// Whom it is for, as the channel numbers its customers; 0 for nobody in particular.
    pub customer: u64,
    /// Where the order goes; `u16::MAX` where that is not known.
    pub zone: u16,
    /// What its owner calls it.
    pub labels: Labels,
    pub lines: Vec<LineRec>,
}

/// A step of a reservation, to be taken.
#[derive(Clone, Debug, PartialEq)]
pub struct NewStep {
    pub key: u128,
    pub reservation: u128,
    pub verb: Verb,
    /// Extend only.
    pub ttl_ms: u32,
    /// What it takes; none for all of the reservation.
    pub lines: Vec<StepLineRec>,
}

impl NewStep {
    /// A step of all of a reservation.
    pub fn whole(key: u128, reservation: u128, verb: Verb) -> NewStep {
        NewStep { key, reservation, verb, ttl_ms: 0, lines: Vec::new() }
    }
}

/// What became of one command.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub lsn: u64,
    pub code: Code,
    pub state: State,
    pub repeat: bool,
    /// A confirmation that came late and took what there was.
    pub late: bool,
    pub id: u32,
    pub expires_at_ms: u64,
    /// Claims, or for a refused reservation its shortages.
    pub parts: Vec<PartRec>,
}

/// A reservation as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct ReservationView {
    pub code: Code,
    pub state: State,
    pub expires_at_ms: u64,
    pub labels: Labels,
    pub claims: Vec<ClaimRec>,
}

type Answer = Result<(FrameType, Vec<u8>), ClientError>;

struct Call {
    frame: Vec<u8>,
    since: Instant,
    answer: oneshot::Sender<Answer>,
}

/// The server's clock as last heard.
struct ServerTime {
    welcome: Welcome,
    heard: Instant,
}

/// A handle to the task; clones share it.
#[derive(Clone)]
pub struct Client {
    calls: mpsc::Sender<Call>,
    time: Arc<Mutex<ServerTime>>,
    cut: Arc<Notify>,
    /// Why the task has given up.
    ended: Arc<OnceLock<ClientError>>,
}

impl Client {
    /// Connects and signs in; fails at once if that does not work the first time.
    pub async fn connect(profile: &Profile) -> Result<Client, ClientError> {
        let connection = Connection::open(profile).await?;
        let time =
            Arc::new(Mutex::new(ServerTime { welcome: connection.welcome, heard: connection.welcomed }));
        let (calls, waiting) = mpsc::channel(IN_FLIGHT);
        let driver = Driver {
            profile: profile.clone(),
            waiting,
            open: BTreeMap::new(),
            next: 1,
            time: Arc::clone(&time),
            cut: Arc::new(Notify::new()),
            ended: Arc::new(OnceLock::new()),
        };
        let (cut, ended) = (Arc::clone(&driver.cut), Arc::clone(&driver.ended));
        tokio::spawn(driver.run(connection));
        Ok(Client { calls, time, cut, ended })
    }

    /// Drops the connection under whatever waits, for drills: what is open is sent again over a new one.
    pub fn cut(&self) {
        self.cut.notify_one();
    }

    /// What the server said at the last sign-in.
    pub fn welcome(&self) -> Welcome {
        self.time.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).welcome
    }

    /// The server's time now, milliseconds since 1970: what `issued_at` is counted in.
    pub fn now_ms(&self) -> u64 {
        let time = self.time.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        time.welcome.now_ms + time.heard.elapsed().as_millis() as u64
    }

    /// Sends one frame and waits for its answer; the call may be made from many tasks at once.
    pub(crate) async fn call<T>(&self, kind: FrameType, body: &T) -> Answer
    where
        T: for<'a> Serialize<HighSerializer<Vec<u8>, ArenaHandle<'a>, Failure>>,
    {
        self.begin(kind, body).await?.await.map_err(|_| self.gone())?
    }

    fn gone(&self) -> ClientError {
        let stopped = || ClientError::Unreachable("the client was stopped".into());
        self.ended.get().cloned().unwrap_or_else(stopped)
    }

    pub(crate) async fn begin<T>(
        &self,
        kind: FrameType,
        body: &T,
    ) -> Result<oneshot::Receiver<Answer>, ClientError>
    where
        T: for<'a> Serialize<HighSerializer<Vec<u8>, ArenaHandle<'a>, Failure>>,
    {
        let mut frame = Vec::new();
        wire::encode(&mut frame, kind, 0, body);
        let (answer, answered) = oneshot::channel();
        self.calls.send(Call { frame, since: Instant::now(), answer }).await.map_err(|_| self.gone())?;
        Ok(answered)
    }

    /// Ids behind names. With `create`, skus not known yet come into being.
    pub async fn resolve(
        &self,
        kind: NameKind,
        names: &[&str],
        create: bool,
    ) -> Result<Vec<Result<u32, Code>>, ClientError> {
        let mut found = Vec::with_capacity(names.len());
        for names in names.chunks(wire_commands_max()) {
            let mut texts = Texts::default();
            let wanted = names.iter().map(|name| ResolveRec {
                kind: kind as u8,
                create: u8::from(create),
                name: texts.put(name),
            });
            let body = Resolve { wanted: wanted.collect(), text: Vec::new() };
            let body = Resolve { text: texts.text, ..body };
            let outcomes = self.results(FrameType::Resolve, &body).await?;
            found.extend(outcomes.into_iter().map(|outcome| match outcome.code {
                Code::Ok => Ok(outcome.id),
                code => Err(code),
            }));
        }
        Ok(found)
    }

    /// Entries of the catalogue as they stand; those that are not there are left out.
    pub async fn definitions(&self, wanted: &[(EntryKind, &str)]) -> Result<Vec<Definition>, ClientError> {
        let mut asked = ReadDefinitions::default();
        for (kind, name) in wanted {
            let name_rec =
                TextRec { start: asked.text.len() as u32, len: name.len().min(usize::from(u16::MAX)) as u16 };
            asked.wanted.push(EntryRec { kind: kind.number(), name: name_rec });
            asked.text.extend_from_slice(name.as_bytes());
        }
        let (kind, archive) = self.call(FrameType::ReadDefinitions, &asked).await?;
        expect(kind, FrameType::Definitions)?;
        let list = access::<ArchivedDefinitionList>(&archive)?;
        list.read().map_err(|error| ClientError::Protocol(error.to_string()))
    }

    /// Creates or replaces entries of the catalogue, in order.
    pub async fn define(&self, definitions: &[Definition]) -> Result<Vec<Outcome>, ClientError> {
        self.results(FrameType::Define, &DefinitionList::of(definitions)).await
    }

    /// Reserves. What a line got less of stands among the parts, with no node and the units it got.
    pub async fn reserve(&self, new: &[NewReservation]) -> Result<Vec<Outcome>, ClientError> {
        self.results(FrameType::Reserve, &self.reservations_body(new)).await
    }

    /// What reservations would be told now, and what was seen of each node for each line. Nothing is taken.
    pub async fn explain(
        &self,
        new: &[NewReservation],
    ) -> Result<(Vec<Outcome>, Vec<TraceRec>), ClientError> {
        let (kind, archive) = self.call(FrameType::Explain, &self.reservations_body(new)).await?;
        expect(kind, FrameType::Explanations)?;
        let answer = access::<ArchivedExplanations>(&archive)?;
        let traces = answer.traces.iter().map(|trace| TraceRec {
            free: trace.free.to_native(),
            withheld: trace.withheld.to_native(),
            own: trace.own.to_native(),
            order: trace.order.to_native(),
            taken: trace.taken.to_native(),
            reservation: trace.reservation.to_native(),
            line: trace.line.to_native(),
            node: trace.node.to_native(),
            rank: trace.rank.to_native(),
            why: trace.why,
            late: trace.late,
        });
        Ok((read_outcomes(&answer.results, &answer.parts), traces.collect()))
    }

    fn reservations_body(&self, new: &[NewReservation]) -> Reservations {
        let issued_at_ms = self.now_ms();
        let mut body = Reservations::default();
        for reservation in new {
            body.reservations.push(ReserveRec {
                key: reservation.id,
                issued_at_ms,
                id: reservation.id,
                channel: reservation.channel,
                ttl_ms: reservation.ttl_ms,
                fill: reservation.fill as u8,
                customer: reservation.customer,
                zone: reservation.zone,
                line_count: reservation.lines.len().min(usize::from(u16::MAX)) as u16,
                label_count: label::put(&reservation.labels, &mut body.labels, &mut body.text),
            });
            body.lines.extend_from_slice(&reservation.lines);
        }
        body
    }

    /// Steps of reservations. Of a confirmation that came late, parts say where the units are claimed.
    pub async fn transition(&self, steps: &[NewStep]) -> Result<Vec<Outcome>, ClientError> {
        let issued_at_ms = self.now_ms();
        let mut body = Transitions::default();
        for step in steps {
            body.transitions.push(TransitionRec {
                key: step.key,
                issued_at_ms,
                reservation: step.reservation,
                verb: step.verb as u8,
                ttl_ms: step.ttl_ms,
                line_count: step.lines.len().min(usize::from(u16::MAX)) as u16,
            });
            body.lines.extend_from_slice(&step.lines);
        }
        self.results(FrameType::Transitions, &body).await
    }

    /// Tells events without reasons; each with a key of its own. `issued_at_ms` 0 is filled in.
    pub async fn tell(&self, mut events: Vec<EventRec>) -> Result<Vec<Outcome>, ClientError> {
        self.fill_issued(&mut events);
        self.results(FrameType::Events, &Events { events, text: Vec::new() }).await
    }

    /// Changes allocations; each with a key of its own. `issued_at_ms` 0 is filled in.
    pub async fn allocate(&self, mut allocations: Vec<AllocateRec>) -> Result<Vec<Outcome>, ClientError> {
        let now = self.now_ms();
        for allocation in allocations.iter_mut().filter(|allocation| allocation.issued_at_ms == 0) {
            allocation.issued_at_ms = now;
        }
        self.results(FrameType::Allocate, &Allocations { allocations }).await
    }

    pub(crate) fn fill_issued(&self, events: &mut [EventRec]) {
        let now = self.now_ms();
        for event in events.iter_mut().filter(|event| event.issued_at_ms == 0) {
            event.issued_at_ms = now;
        }
    }

    /// How much there is, for any number of questions in one state.
    pub async fn availability(&self, question: &Availability) -> Result<AvailabilityAnswer, ClientError> {
        let (kind, archive) = self.call(FrameType::Availability, question).await?;
        expect(kind, FrameType::AvailabilityAnswer)?;
        let answer = access::<ArchivedAvailabilityAnswer>(&archive)?;
        Ok(AvailabilityAnswer {
            as_of_lsn: answer.as_of_lsn.to_native(),
            items: answer
                .items
                .iter()
                .map(|item| ItemRec {
                    available: item.available.to_native(),
                    node_count: item.node_count.to_native(),
                    status: item.status,
                })
                .collect(),
            nodes: answer
                .nodes
                .iter()
                .map(|node| NodeRec { available: node.available.to_native(), node: node.node.to_native() })
                .collect(),
            later: answer
                .later
                .iter()
                .map(|later| LaterRec {
                    from_ms: later.from_ms.to_native(),
                    units: later.units.to_native(),
                    item: later.item.to_native(),
                })
                .collect(),
        })
    }

    /// Units by bucket at places.
    pub async fn positions(&self, places: &[PlaceRec]) -> Result<Vec<PositionRec>, ClientError> {
        let mut found = Vec::with_capacity(places.len());
        for places in places.chunks(wire_commands_max()) {
            let body = ReadPositions { places: places.to_vec() };
            let (kind, archive) = self.call(FrameType::ReadPositions, &body).await?;
            expect(kind, FrameType::Positions)?;
            let answer = access::<ArchivedPositions>(&archive)?;
            found.extend(answer.positions.iter().map(|position| PositionRec {
                units: std::array::from_fn(|bucket| position.units[bucket].to_native()),
            }));
        }
        Ok(found)
    }

    /// What happened from an LSN on; waits until there is something to tell, as long as the question says. One call at
    /// a time.
    pub async fn follow(&self, asked: &Follow) -> Result<Changes, ClientError> {
        let (kind, archive) = self.call(FrameType::Follow, asked).await?;
        expect(kind, FrameType::Changes)?;
        let answer = access::<ArchivedChanges>(&archive)?;
        let notices = answer.notices.iter().map(|notice| NoticeRec {
            reservation: notice.reservation.to_native(),
            lsn: notice.lsn.to_native(),
            at_ms: notice.at_ms.to_native(),
            due_ms: notice.due_ms.to_native(),
            sku: notice.sku.to_native(),
            quantity: notice.quantity.to_native(),
            node: notice.node.to_native(),
            channel: notice.channel.to_native(),
            what: notice.what,
            state: notice.state,
            reason: notice.reason,
        });
        let changes = answer.changes.iter().map(|change| ChangeRec {
            available: change.available.to_native(),
            sku: change.sku.to_native(),
            status: change.status,
            before: change.before,
        });
        Ok(Changes {
            next_lsn: answer.next_lsn.to_native(),
            as_of_lsn: answer.as_of_lsn.to_native(),
            notices: notices.collect(),
            changes: changes.collect(),
            redefined: answer.redefined,
        })
    }

    /// Reservations as they stand.
    pub async fn reservations(&self, ids: &[u128]) -> Result<Vec<ReservationView>, ClientError> {
        let body = ReadReservations { ids: ids.to_vec() };
        let (kind, archive) = self.call(FrameType::ReadReservations, &body).await?;
        expect(kind, FrameType::Reservations)?;
        let answer = access::<ArchivedReservationAnswers>(&archive)?;
        let mut claims = answer.claims.iter();
        let (mut labels, texts) = (answer.labels.iter(), TextReader::new(&[], &[], &answer.text));
        let found = answer.reservations.iter().map(|found| ReservationView {
            code: Code::from_number(found.code).unwrap_or(Code::Malformed),
            state: State::from_number(found.state).unwrap_or(State::None),
            expires_at_ms: found.expires_at_ms.to_native(),
            labels: label::take(&mut labels, found.label_count, &texts).unwrap_or_default(),
            claims: claims
                .by_ref()
                .take(found.claim_count.to_native() as usize)
                .map(|claim| ClaimRec {
                    sku: claim.sku.to_native(),
                    quantity: claim.quantity.to_native(),
                    held: claim.held.to_native(),
                    picked: claim.picked.to_native(),
                    shipped: claim.shipped.to_native(),
                    node: claim.node.to_native(),
                    pool: claim.pool.to_native(),
                    at_ms: claim.at_ms.to_native(),
                })
                .collect(),
        });
        Ok(found.collect())
    }

    /// Reservations that have each of the texts as their key, order or reference: their ids, 100 of a text at most.
    pub async fn find(&self, wanted: &[&str]) -> Result<Vec<Vec<u128>>, ClientError> {
        let mut all = Vec::with_capacity(wanted.len());
        for wanted in wanted.chunks(limit::FIND_MAX) {
            let mut body = Find::default();
            for text in wanted {
                let text = TextRec::put(&mut body.text, text);
                body.wanted.push(LabelRec { kind: 0, text });
            }
            let (kind, archive) = self.call(FrameType::Find, &body).await?;
            expect(kind, FrameType::Found)?;
            let found = access::<ArchivedFound>(&archive)?;
            let mut ids = found.ids.iter().map(|id| id.to_native());
            all.extend(
                found.counts.iter().map(|count| ids.by_ref().take(count.to_native() as usize).collect()),
            );
        }
        Ok(all)
    }

    /// The allocations of skus, of all channels or of one.
    pub async fn allocations(
        &self,
        channel: Option<u16>,
        skus: &[u32],
    ) -> Result<Vec<Vec<ShareRec>>, ClientError> {
        let mut found = Vec::with_capacity(skus.len());
        for skus in skus.chunks(limit::READ_ALLOCATIONS_MAX) {
            let body = ReadAllocations { channel: channel.unwrap_or(u16::MAX), skus: skus.to_vec() };
            let (kind, archive) = self.call(FrameType::ReadAllocations, &body).await?;
            expect(kind, FrameType::Allocations)?;
            let answer = access::<ArchivedAllocationAnswers>(&archive)?;
            let mut shares = answer.shares.iter().map(|share| ShareRec {
                units: share.units.to_native(),
                node: share.node.to_native(),
                channel: share.channel.to_native(),
            });
            let counts = answer.counts.iter().map(|count| count.to_native() as usize);
            found.extend(counts.map(|count| shares.by_ref().take(count).collect()));
        }
        Ok(found)
    }

    async fn results<T>(&self, kind: FrameType, body: &T) -> Result<Vec<Outcome>, ClientError>
    where
        T: for<'a> Serialize<HighSerializer<Vec<u8>, ArenaHandle<'a>, Failure>>,
    {
        let (kind, archive) = self.call(kind, body).await?;
        expect(kind, FrameType::Results)?;
        read_results(&archive)
    }
}

fn wire_commands_max() -> usize {
    stockline_core::limit::FRAME_COMMANDS_MAX
}

fn expect(found: FrameType, wanted: FrameType) -> Result<(), ClientError> {
    if found == wanted {
        Ok(())
    } else {
        Err(ClientError::Protocol(format!("{found:?} instead of {wanted:?}")))
    }
}

fn access<T>(archive: &[u8]) -> Result<&T, ClientError>
where
    T: rkyv::Portable + for<'a> rkyv::bytecheck::CheckBytes<rkyv::api::high::HighValidator<'a, Failure>>,
{
    wire::access::<T>(archive).map_err(|error| ClientError::Protocol(error.to_string()))
}

/// Reads a results frame.
pub(crate) fn read_results(archive: &[u8]) -> Result<Vec<Outcome>, ClientError> {
    let answer = access::<ArchivedResults>(archive)?;
    Ok(read_outcomes(&answer.results, &answer.parts))
}

fn read_outcomes(results: &[ArchivedResultRec], parts: &[ArchivedPartRec]) -> Vec<Outcome> {
    let mut parts = parts.iter();
    let outcomes = results.iter().map(|result| Outcome {
        lsn: result.lsn.to_native(),
        code: Code::from_number(result.code).unwrap_or(Code::Malformed),
        state: State::from_number(result.state).unwrap_or(State::None),
        repeat: result.repeat != 0,
        late: result.late != 0,
        id: result.id.to_native(),
        expires_at_ms: result.expires_at_ms.to_native(),
        parts: parts
            .by_ref()
            .take(result.part_count.to_native() as usize)
            .map(|part| PartRec {
                sku: part.sku.to_native(),
                quantity: part.quantity.to_native(),
                node: part.node.to_native(),
                line: part.line.to_native(),
                at_ms: part.at_ms.to_native(),
            })
            .collect(),
    });
    outcomes.collect()
}

/// The task behind the handles.
struct Driver {
    profile: Profile,
    waiting: mpsc::Receiver<Call>,
    /// Sent and not answered, by request id.
    open: BTreeMap<u32, Call>,
    next: u32,
    time: Arc<Mutex<ServerTime>>,
    cut: Arc<Notify>,
    ended: Arc<OnceLock<ClientError>>,
}

/// Why a connection is no longer used.
enum Over {
    /// All handles are gone.
    Done,
    Lost(ClientError),
}

impl Driver {
    async fn run(mut self, first: Connection) {
        let mut connection = Some(first);
        loop {
            let open = match connection.take() {
                Some(open) => open,
                None => match self.reconnect().await {
                    Ok(open) => open,
                    Err(error) => return self.give_up(&error),
                },
            };
            {
                let mut time = self.time.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                *time = ServerTime { welcome: open.welcome, heard: open.welcomed };
            }
            match self.drive(open.sink, open.source).await {
                Over::Done => return,
                Over::Lost(error) if error.is_passing() => tokio::time::sleep(BACK_OFF).await,
                Over::Lost(error) => return self.give_up(&error),
            }
        }
    }

    async fn reconnect(&self) -> Result<Connection, ClientError> {
        let started = Instant::now();
        let mut wait = BACK_OFF;
        loop {
            match Connection::open(&self.profile).await {
                Err(error) if error.is_passing() && started.elapsed() < GIVE_UP => {
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(BACK_OFF_MAX);
                }
                other => return other,
            }
        }
    }

    fn give_up(mut self, error: &ClientError) {
        // Nobody else sets it.
        let _ = self.ended.set(error.clone());
        self.waiting.close();
        while let Ok(call) = self.waiting.try_recv() {
            let _ = call.answer.send(Err(error.clone()));
        }
        for call in self.open.into_values() {
            // Whoever asked may have gone; nothing is owed to them then.
            let _ = call.answer.send(Err(error.clone()));
        }
    }

    async fn drive(&mut self, mut sink: FrameSink, mut source: FrameSource) -> Over {
        // Writing has a task of its own, so that reading never waits for it.
        let (frames, mut to_send) = mpsc::unbounded_channel::<Vec<u8>>();
        let writer = tokio::spawn(async move {
            while let Some(mut bytes) = to_send.recv().await {
                while bytes.len() < 1 << 16
                    && let Ok(more) = to_send.try_recv()
                {
                    bytes.extend_from_slice(&more);
                }
                sink.send(&bytes).await?;
            }
            sink.finish();
            Ok::<(), ClientError>(())
        });
        for call in self.open.values() {
            let _ = frames.send(call.frame.clone());
        }
        let over = loop {
            tokio::select! {
                call = self.waiting.recv(), if self.open.len() < IN_FLIGHT => match call {
                    Some(mut call) => {
                        let id = self.next;
                        self.next = self.next.wrapping_add(1).max(1);
                        call.frame[8..12].copy_from_slice(&id.to_le_bytes());
                        let _ = frames.send(call.frame.clone());
                        self.open.insert(id, call);
                    }
                    None if self.open.is_empty() => break Over::Done,
                    // No new calls will come; what is open still gets its answer.
                    None => match source.receive().await {
                        Ok(()) => if let Err(error) = self.answer(&mut source, &frames) { break Over::Lost(error) },
                        Err(error) => break Over::Lost(error),
                    },
                },
                () = self.cut.notified() => {
                    break Over::Lost(ClientError::Unreachable("cut for a drill".into()));
                }
                received = source.receive() => {
                    let answered = received.and_then(|()| self.answer(&mut source, &frames));
                    if let Err(error) = answered {
                        break Over::Lost(error);
                    }
                }
            }
        };
        drop(frames);
        if matches!(over, Over::Lost(_)) {
            writer.abort();
        }
        source.close();
        over
    }

    fn answer(
        &mut self,
        source: &mut FrameSource,
        frames: &mpsc::UnboundedSender<Vec<u8>>,
    ) -> Result<(), ClientError> {
        while let Some(frame) = source.next_frame()? {
            if frame.kind == FrameType::Refusal {
                let error = refusal(frame.archive);
                if error.is_passing()
                    && let Some(call) = self.open.get(&frame.request)
                    && call.since.elapsed() < GIVE_UP
                {
                    // The call stays open; it alone is sent again, in a while.
                    let (frames, again) = (frames.clone(), call.frame.clone());
                    tokio::spawn(async move {
                        tokio::time::sleep(BACK_OFF).await;
                        let _ = frames.send(again);
                    });
                    continue;
                }
                match self.open.remove(&frame.request) {
                    Some(call) => {
                        let _ = call.answer.send(Err(error));
                    }
                    None => return Err(error),
                }
            } else if let Some(call) = self.open.remove(&frame.request) {
                let _ = call.answer.send(Ok((frame.kind, frame.archive.to_vec())));
            }
        }
        Ok(())
    }
}
