//! The journal: every command with its outcome, in the order of LSNs, before anybody hears of it.
//!
//! One [`JournalRecord`] holds the commands of one group commit. What stores it is a [`Journal`], a seam of
//! four calls; `journal::file` keeps it in redb. Nothing above the seam knows how.

pub mod file;

use std::borrow::Cow;

use rkyv::rancor::Failure;
use rkyv::{Archive, Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::bucket::Movement;
use crate::chain::{Anchor, Chain};
use crate::command::{Body, Command, Line};
use crate::drill::{Bug, planted};
use crate::format2;
use crate::id::{ChannelId, Key, Lsn, Millis, PrincipalId, ReservationId, SkuId};
use crate::label::{self, LabelRec};
use crate::ledger::{Ledger, Mark, Moment, Outcome, Promise, Short, Told};
use crate::outcome::{Code, State};
use crate::record::{
    AllocateRec, DefinitionRec, EventRec, LineRec, MovementRec, PromiseRec, ReserveRec, ShortRec,
    StepLineRec, TextReader, TextRec, Texts, TransitionRec,
};

/// Version of the stored form. Records of the versions before it are read too; others are refused by name.
pub const JOURNAL_VERSION: u8 = 3;
/// Records whose commands are those of [`format2`].
const VERSION_2: u8 = 2;
/// The same, without a chain.
const UNCHAINED_VERSION: u8 = 1;
/// Version byte, three zeros, checksum of the archive.
const UNCHAINED_PREFIX: usize = 12;
/// The same and the chain.
const PREFIX: usize = UNCHAINED_PREFIX + 32;

/// Why the journal did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk or the file system failed, or the file is damaged. Nothing more may be acknowledged.
    #[error("journal storage: {0}")]
    Storage(String),
    /// Another process has the file open.
    #[error("{0} is in use by another process")]
    InUse(String),
    /// A record cannot be read.
    #[error("journal record of LSN {lsn} is damaged: {reason}")]
    Damaged { lsn: Lsn, reason: &'static str },
    /// A record is of a format this program does not know.
    #[error(
        "journal record of LSN {lsn} has format {found}, this program reads formats {UNCHAINED_VERSION} to {JOURNAL_VERSION}; \
             use the stockline that wrote it, or a newer one"
    )]
    Format { lsn: Lsn, found: u8 },
    /// Somebody else has written meanwhile: the expected end is not the end.
    #[error("the journal ends at LSN {found}, expected {expected}")]
    Fenced { expected: Lsn, found: Lsn },
    /// The journal was lost or put back from an older copy: what the snapshot knows is not in it.
    #[error("the snapshot covers LSN {covered}, but the journal ends before it; put the newer journal back")]
    Behind { covered: Lsn },
    /// The journal before what the snapshot covers is not the one the snapshot was made from.
    #[error("the journal up to LSN {lsn} is not the one that the snapshot was made from")]
    Rewritten { lsn: Lsn },
    /// No copy can be made of that state.
    #[error("the state of LSN {at} cannot be restored from here: only those of LSN {first} to {last} can")]
    Unreachable { at: Lsn, first: Lsn, last: Lsn },
    /// LSNs are missing.
    #[error("the journal goes on with LSN {found} where LSN {expected} was due")]
    Gap { expected: Lsn, found: Lsn },
}

/// Where records are kept. Records are named by their first LSN.
pub trait Journal: Send {
    /// Makes a record durable behind the one that ended at `before`; it ends at `last`. Records wholly below
    /// `keep_from` may be dropped along with it.
    fn append(&mut self, before: Lsn, last: Lsn, record: &[u8], keep_from: Lsn) -> Result<(), JournalError>;

    /// Another way to the same records, for the checkpoint and for repeats.
    fn reader(&self) -> Box<dyn JournalReader>;
}

/// Takes a record by its first LSN and says whether it wants more.
pub type Take<'a> = dyn FnMut(Lsn, &[u8]) -> Result<bool, JournalError> + 'a;

/// Reads what is durable, while the journal goes on.
pub trait JournalReader: Send + Sync {
    /// First and last LSN; none of both when it is empty.
    fn bounds(&self) -> Result<Option<(Lsn, Lsn)>, JournalError>;

    /// Hands over records with an LSN at or above `from`, in order, until `take` says no.
    fn scan(&self, from: Lsn, take: &mut Take<'_>) -> Result<(), JournalError>;
}

/// Who said it and what came of it; its command stands in the list of its kind.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct EntryRec {
    pub now_ms: u64,
    pub digest: u64,
    pub expires_at_ms: u64,
    pub principal: u32,
    pub movements: u32,
    pub shorts: u32,
    pub promises: u32,
    /// 1 reserve, 2 transition, 3 event, 4 expiry, 5 definition, 6 allocation, 7 balance.
    pub kind: u8,
    pub code: u8,
    pub state: u8,
    /// Bit 0: counted, 1: reacquired, 2: partly.
    pub flags: u8,
    /// Whose reservation it is about; 65535 for none.
    pub channel: u16,
}

const FLAGS: [u8; 3] = [1, 2, 4];

impl EntryRec {
    fn flags(outcome: Outcome) -> u8 {
        let set = [outcome.counted, outcome.reacquired, outcome.partly];
        set.into_iter().zip(FLAGS).map(|(is, bit)| if is { bit } else { 0 }).sum()
    }
}

impl ArchivedEntryRec {
    fn outcome(&self) -> Result<Outcome, &'static str> {
        if self.flags & !FLAGS.into_iter().sum::<u8>() != 0 {
            return Err("an outcome has flags that mean nothing");
        }
        let [counted, reacquired, partly] = FLAGS.map(|bit| self.flags & bit != 0);
        Ok(Outcome {
            code: Code::from_number(self.code).ok_or("an outcome code is not known")?,
            state: State::from_number(self.state).ok_or("a state is not known")?,
            expires_at: Millis(self.expires_at_ms.to_native()),
            counted,
            reacquired,
            partly,
            channel: ChannelId(self.channel.to_native()),
        })
    }
}

/// The commands of one group commit, column by column.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct JournalRecord {
    pub first: u64,
    pub entries: Vec<EntryRec>,
    pub reserves: Vec<ReserveRec>,
    pub labels: Vec<LabelRec>,
    pub lines: Vec<LineRec>,
    pub transitions: Vec<TransitionRec>,
    pub step_lines: Vec<StepLineRec>,
    pub events: Vec<EventRec>,
    pub expiries: Vec<u128>,
    pub allocations: Vec<AllocateRec>,
    /// Skus.
    pub balances: Vec<u32>,
    pub definitions: Vec<DefinitionRec>,
    pub names: Vec<TextRec>,
    pub numbers: Vec<u32>,
    pub text: Vec<u8>,
    pub movements: Vec<MovementRec>,
    pub shorts: Vec<ShortRec>,
    pub promises: Vec<PromiseRec>,
}

impl JournalRecord {
    /// Empties it for the group commit that begins with `first`, keeping its memory.
    pub fn restart(&mut self, first: Lsn) {
        self.first = first.0;
        self.entries.clear();
        self.reserves.clear();
        self.labels.clear();
        self.lines.clear();
        self.transitions.clear();
        self.step_lines.clear();
        self.events.clear();
        self.expiries.clear();
        self.allocations.clear();
        self.balances.clear();
        self.definitions.clear();
        self.names.clear();
        self.numbers.clear();
        self.text.clear();
        self.movements.clear();
        self.shorts.clear();
        self.promises.clear();
    }

    /// A good guess of its size on disk.
    pub fn bytes(&self) -> usize {
        self.entries.len() * 46
            + self.reserves.len() * 58
            + self.labels.len() * 7
            + self.lines.len() * 12
            + self.transitions.len() * 47
            + self.step_lines.len() * 12
            + self.events.len() * 102
            + self.allocations.len() * 39
            + self.movements.len() * 14
            + self.shorts.len() * 14
            + self.promises.len() * 45
            + self.text.len()
    }

    /// Appends a command with the movements, shortages and promises pushed for it since the last call.
    pub fn push(
        &mut self,
        now: Millis,
        principal: PrincipalId,
        command: &Command,
        lines: &[Line],
        outcome: Outcome,
        counts: Mark,
    ) {
        let kind = match &command.body {
            Body::Reserve(reserve) => {
                self.reserves.push(ReserveRec::new(command, reserve));
                label::put(&reserve.labels, &mut self.labels, &mut self.text);
                self.lines.extend(reserve.lines(lines).iter().map(|line| LineRec::from(*line)));
                1
            }
            Body::Transition(transition) => {
                self.transitions.push(TransitionRec::new(command, transition));
                self.step_lines.extend(transition.lines.iter().map(|line| StepLineRec::from(*line)));
                2
            }
            Body::Event(event) => {
                self.events.push(EventRec::new(command, event, &mut self.text));
                3
            }
            Body::Expire(id) => {
                self.expiries.push(id.0);
                4
            }
            Body::Allocate(allocate) => {
                self.allocations.push(AllocateRec::new(command, allocate));
                6
            }
            Body::Balance(sku) => {
                self.balances.push(sku.0);
                7
            }
            Body::Define(definition) => {
                let names = std::mem::take(&mut self.names);
                let numbers = std::mem::take(&mut self.numbers);
                let mut texts = Texts { names, numbers, text: std::mem::take(&mut self.text) };
                self.definitions.push(texts.put_definition(definition));
                (self.names, self.numbers, self.text) = (texts.names, texts.numbers, texts.text);
                5
            }
            Body::Read(_) => unreachable!("reads have no LSN and no entry"),
        };
        self.entries.push(EntryRec {
            now_ms: now.0,
            digest: command.digest,
            expires_at_ms: outcome.expires_at.0,
            principal: principal.0,
            movements: counts.movements as u32,
            shorts: counts.shorts as u32,
            promises: counts.promises as u32,
            kind,
            code: outcome.code as u8,
            state: outcome.state as u8,
            flags: EntryRec::flags(outcome),
            channel: outcome.channel.0,
        });
    }

    /// Forgets all but the first entries.
    fn truncate(&mut self, entries: usize) {
        self.entries.truncate(entries);
        let of = |kind: u8| self.entries.iter().filter(|entry| entry.kind == kind).count();
        let (reserves, transitions, events) = (of(1), of(2), of(3));
        let (expiries, definitions, allocations, balances) = (of(4), of(5), of(6), of(7));
        self.reserves.truncate(reserves);
        self.transitions.truncate(transitions);
        let lines = self.transitions.iter().map(|step| usize::from(step.line_count)).sum();
        self.step_lines.truncate(lines);
        self.events.truncate(events);
        self.expiries.truncate(expiries);
        self.allocations.truncate(allocations);
        self.balances.truncate(balances);
        self.definitions.truncate(definitions);
        self.lines.truncate(self.reserves.iter().map(|reserve| usize::from(reserve.line_count)).sum());
        self.labels.truncate(self.reserves.iter().map(|reserve| usize::from(reserve.label_count)).sum());
        self.movements.truncate(self.entries.iter().map(|entry| entry.movements as usize).sum());
        self.shorts.truncate(self.entries.iter().map(|entry| entry.shorts as usize).sum());
        self.promises.truncate(self.entries.iter().map(|entry| entry.promises as usize).sum());
    }

    /// The stored form, written over `bytes`; `chain` moves on behind it.
    pub fn encode(&self, chain: &mut Chain, bytes: &mut Vec<u8>) {
        bytes.clear();
        bytes.extend_from_slice(&[0; PREFIX]);
        let written = rkyv::api::high::to_bytes_in::<_, Failure>(self, std::mem::take(bytes));
        // Serialization fails only where a writer or an allocator does, and memory does neither.
        *bytes = written.expect("memory takes every archive");
        bytes[0] = JOURNAL_VERSION;
        let checksum = xxh3_64(&bytes[PREFIX..]);
        bytes[4..UNCHAINED_PREFIX].copy_from_slice(&checksum.to_le_bytes());
        *chain = chain.next(&bytes[PREFIX..]);
        bytes[UNCHAINED_PREFIX..PREFIX].copy_from_slice(&chain.0);
    }
}

/// One command as the journal tells it. Ranges point into [`Decoded`].
#[derive(Clone, PartialEq, Debug)]
pub struct Entry {
    pub lsn: Lsn,
    pub now: Millis,
    pub principal: PrincipalId,
    pub command: Command,
    pub outcome: Outcome,
    pub movements: std::ops::Range<usize>,
    pub shorts: std::ops::Range<usize>,
    pub promises: std::ops::Range<usize>,
}

/// A record, read back.
#[derive(Default, PartialEq, Debug)]
pub struct Decoded {
    pub entries: Vec<Entry>,
    pub lines: Vec<Line>,
    pub movements: Vec<Movement>,
    pub shorts: Vec<Short>,
    pub promises: Vec<Promise>,
}

/// Takes a stored record apart: its chain, if it has one, and its archive.
fn open(first: Lsn, bytes: &[u8]) -> Result<(Option<Chain>, &[u8]), JournalError> {
    let damaged = |reason| JournalError::Damaged { lsn: first, reason };
    let prefix = match bytes.first() {
        Some(&(JOURNAL_VERSION | VERSION_2)) => PREFIX,
        Some(&UNCHAINED_VERSION) => UNCHAINED_PREFIX,
        Some(&found) => return Err(JournalError::Format { lsn: first, found }),
        None => return Err(damaged("it is empty")),
    };
    let (prefix, archive) = bytes.split_at_checked(prefix).ok_or(damaged("it is cut off"))?;
    let (head, chain) = prefix.split_at(UNCHAINED_PREFIX);
    if xxh3_64(archive).to_le_bytes() != head[4..] {
        return Err(damaged("its checksum does not fit"));
    }
    Ok((chain.try_into().ok().map(Chain), archive))
}

/// The archive of a record in the form of this version.
fn current(version: u8, archive: &[u8]) -> Option<Cow<'_, [u8]>> {
    if version == JOURNAL_VERSION {
        return Some(Cow::Borrowed(archive));
    }
    let record = format2::journal_record(archive)?;
    rkyv::api::high::to_bytes_in::<_, Failure>(&record, Vec::new()).ok().map(Cow::Owned)
}

/// Follows the chain over a record; `None` where what came before is not known.
pub fn follow(before: Option<Chain>, first: Lsn, bytes: &[u8]) -> Result<Chain, JournalError> {
    let damaged = |reason| JournalError::Damaged { lsn: first, reason };
    let before = if first == Lsn(1) { Some(Chain::START) } else { before };
    match open(first, bytes)? {
        // The chain begins behind the last record that has none.
        (None, _) if before.is_none_or(|before| before == Chain::START) => Ok(Chain::START),
        (None, _) => Err(damaged("it has no place in the chain of hashes")),
        (Some(stored), archive) => {
            if before.is_some_and(|before| before.next(archive) != stored) && !planted(Bug::IgnoreChain) {
                return Err(damaged("the chain of hashes breaks here"));
            }
            Ok(stored)
        }
    }
}

/// The beginning of a stored record, up to `last`, in the stored form.
fn cut(first: Lsn, bytes: &[u8], last: Lsn, before: Option<Chain>) -> Result<(Chain, Vec<u8>), JournalError> {
    let damaged = |reason| JournalError::Damaged { lsn: first, reason };
    decode(first, bytes)?;
    let (_, archive) = open(first, bytes)?;
    let archive = current(bytes[0], archive).ok_or(damaged("its archive is not valid"))?;
    let mut record = rkyv::from_bytes::<JournalRecord, Failure>(&archive)
        .map_err(|_| damaged("its archive is not valid"))?;
    record.truncate((last.0 + 1 - first.0) as usize);
    let (mut chain, mut cut) = (before.unwrap_or(Chain::START), Vec::new());
    record.encode(&mut chain, &mut cut);
    Ok((chain, cut))
}

/// Reads a stored record, checking its format, checksum and every number in it.
pub fn decode(first: Lsn, bytes: &[u8]) -> Result<Decoded, JournalError> {
    let damaged = |reason| JournalError::Damaged { lsn: first, reason };
    let (_, archive) = open(first, bytes)?;
    let archive = current(bytes[0], archive).ok_or(damaged("its archive is not valid"))?;
    let record = rkyv::access::<ArchivedJournalRecord, Failure>(&archive)
        .map_err(|_| damaged("its archive is not valid"))?;
    if record.first.to_native() != first.0 {
        return Err(damaged("it is stored under another LSN"));
    }
    decode_archive(first, record).map_err(damaged)
}

fn decode_archive(first: Lsn, record: &ArchivedJournalRecord) -> Result<Decoded, &'static str> {
    let mut decoded = Decoded {
        entries: Vec::with_capacity(record.entries.len()),
        lines: record.lines.iter().map(|line| line.line()).collect(),
        movements: Vec::with_capacity(record.movements.len()),
        shorts: record.shorts.iter().map(|short| short.short()).collect(),
        promises: Vec::with_capacity(record.promises.len()),
    };
    for promise in record.promises.iter() {
        decoded.promises.push(promise.promise().ok_or("a promise has no known reason")?);
    }
    for movement in record.movements.iter() {
        decoded.movements.push(movement.movement().ok_or("a movement names no bucket")?);
    }
    let mut texts = TextReader::new(&record.names, &record.numbers, &record.text);
    let (mut reserves, mut transitions) = (record.reserves.iter(), record.transitions.iter());
    let (mut step_lines, mut labels) = (record.step_lines.iter(), record.labels.iter());
    let (mut events, mut expiries) = (record.events.iter(), record.expiries.iter());
    let (mut definitions, mut allocations) = (record.definitions.iter(), record.allocations.iter());
    let mut balances = record.balances.iter();
    let (mut line, mut movement, mut short, mut promise) = (0usize, 0usize, 0usize, 0usize);
    let few = "it has fewer commands than entries";
    for (index, entry) in record.entries.iter().enumerate() {
        let digest = entry.digest.to_native();
        let now = Millis(entry.now_ms.to_native());
        let system = |body| Command { key: Key(0), issued_at: now, digest, body };
        let command = match entry.kind {
            1 => {
                let rec = reserves.next().ok_or(few)?;
                let command = rec.command(line as u32, &mut labels, &texts, digest)?;
                if let Body::Reserve(reserve) = &command.body {
                    line += reserve.line_count as usize;
                }
                command
            }
            2 => transitions.next().ok_or(few)?.command(&mut step_lines, None, digest)?,
            3 => events.next().ok_or(few)?.command(&texts, digest)?,
            4 => system(Body::Expire(ReservationId(expiries.next().ok_or(few)?.to_native()))),
            5 => {
                let definition = texts.definition(definitions.next().ok_or(few)?)?;
                system(Body::Define(Box::new(definition)))
            }
            6 => allocations.next().ok_or(few)?.command(digest)?,
            7 => system(Body::Balance(SkuId(balances.next().ok_or(few)?.to_native()))),
            _ => return Err("an entry is of no known kind"),
        };
        let movements = movement..movement + entry.movements.to_native() as usize;
        let shorts = short..short + entry.shorts.to_native() as usize;
        let promises = promise..promise + entry.promises.to_native() as usize;
        (movement, short, promise) = (movements.end, shorts.end, promises.end);
        decoded.entries.push(Entry {
            lsn: Lsn(first.0 + index as u64),
            now,
            principal: PrincipalId(entry.principal.to_native()),
            command,
            outcome: entry.outcome()?,
            movements,
            shorts,
            promises,
        });
    }
    let sums = step_lines.next().is_none()
        && labels.next().is_none()
        && line == decoded.lines.len()
        && movement == decoded.movements.len()
        && short == decoded.shorts.len()
        && promise == decoded.promises.len();
    if sums { Ok(decoded) } else { Err("its lists do not add up") }
}

/// Calls `take` with every entry at or above `from`, checking that no LSN is missing, and `end` with the anchor
/// behind each record, having followed the chain.
pub fn replay(
    reader: &dyn JournalReader,
    from: Lsn,
    mut take: impl FnMut(&Decoded, &Entry) -> Result<bool, JournalError>,
    mut end: impl FnMut(Anchor) -> Result<(), JournalError>,
) -> Result<(), JournalError> {
    let mut due = None;
    let mut chain = None;
    reader.scan(from, &mut |first, bytes| {
        if let Some(due) = due.filter(|due| *due != first) {
            return Err(JournalError::Gap { expected: due, found: first });
        }
        let behind = follow(chain, first, bytes)?;
        chain = Some(behind);
        let decoded = decode(first, bytes)?;
        for entry in decoded.entries.iter().filter(|entry| entry.lsn >= from) {
            if !take(&decoded, entry)? {
                return Ok(false);
            }
        }
        let lsn = decoded.last().unwrap_or(first);
        due = Some(lsn.next());
        end(Anchor { lsn, chain: behind })?;
        Ok(true)
    })
}

impl Decoded {
    /// What a command of it did.
    pub fn told(&self, entry: &Entry) -> Told<'_> {
        Told {
            movements: &self.movements[entry.movements.clone()],
            shorts: &self.shorts[entry.shorts.clone()],
            promises: &self.promises[entry.promises.clone()],
        }
    }

    /// Makes a command of it so: the only way in which a state follows from a journal.
    pub fn settle(&self, entry: &Entry, ledger: &mut Ledger) {
        let Told { movements, promises, .. } = self.told(entry);
        let moment = Moment { lsn: entry.lsn, now: entry.now };
        ledger.settle(moment, &entry.command.body, &self.lines, entry.outcome, movements, promises);
    }

    /// The last LSN in it.
    pub fn last(&self) -> Option<Lsn> {
        self.entries.last().map(|entry| entry.lsn)
    }

    /// The entry of an LSN, if it is in this record.
    pub fn entry(&self, lsn: Lsn) -> Option<&Entry> {
        let first = self.entries.first()?.lsn;
        self.entries.get(usize::try_from(lsn.0.checked_sub(first.0)?).ok()?)
    }
}

/// The record that should hold an LSN; whether it does, [`Decoded::entry`] tells.
pub fn find(reader: &dyn JournalReader, lsn: Lsn) -> Result<Decoded, JournalError> {
    let mut found = Decoded::default();
    reader.scan(lsn, &mut |first, bytes| {
        found = decode(first, bytes)?;
        Ok(false)
    })?;
    Ok(found)
}
