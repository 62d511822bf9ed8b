//! A disk that loses power and fails, in memory, under the real redb.
//!
//! What was written and not yet synced may survive a power cut whole, in part, torn at sectors, in another order,
//! or not at all. A sync that fails forgets what it should have written, as Linux does: a later one does not
//! bring it back.

use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;
use stockline_loadgen::dice::Dice;

const SECTOR: usize = 512;

/// What a program does to a disk.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Op {
    Write { offset: usize, data: Vec<u8> },
    Len(usize),
    Sync,
}

/// What goes wrong, once, at one operation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// Nothing is done from here on.
    Power,
    /// This operation fails; a sync forgets what it should have written.
    Io,
    /// A write does half of its work and fails; others fail.
    Short,
}

/// What becomes of writes that no sync has covered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Unsynced {
    Kept,
    Dropped,
    /// Some, each whole, the later perhaps before the earlier.
    Reordered,
    /// Some sectors of some.
    Torn,
}

pub(crate) const MANNERS: [Unsynced; 4] =
    [Unsynced::Kept, Unsynced::Dropped, Unsynced::Reordered, Unsynced::Torn];

#[derive(Debug, Default)]
struct State {
    /// What the program reads.
    live: Vec<u8>,
    /// What is there after a power cut for sure.
    durable: Vec<u8>,
    unsynced: Vec<Op>,
    /// Operations so far.
    ops: u64,
    fault: Option<(u64, Fault)>,
    dead: bool,
    /// Bytes the file may have.
    capacity: Option<usize>,
    trace: Option<Vec<Op>>,
    faults: u64,
}

/// A handle; clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Mutex<State>>);

pub(crate) fn apply(image: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Write { offset, data } => {
            if image.len() < offset + data.len() {
                image.resize(offset + data.len(), 0);
            }
            image[*offset..][..data.len()].copy_from_slice(data);
        }
        Op::Len(len) => image.resize(*len, 0),
        Op::Sync => {}
    }
}

/// What is found after a power cut.
pub(crate) fn survive(durable: &[u8], unsynced: &[Op], manner: Unsynced, dice: &mut Dice) -> Vec<u8> {
    let mut image = durable.to_vec();
    match manner {
        Unsynced::Dropped => {}
        Unsynced::Kept => unsynced.iter().for_each(|op| apply(&mut image, op)),
        Unsynced::Reordered => {
            let mut order: Vec<&Op> = unsynced.iter().filter(|_| dice.roll().is_multiple_of(2)).collect();
            for at in (1..order.len()).rev() {
                // Writes to the same place are one page in the cache: the later one is what is written.
                if dice.roll().is_multiple_of(2) && !overlap(order[at - 1], order[at]) {
                    order.swap(at - 1, at);
                }
            }
            order.into_iter().for_each(|op| apply(&mut image, op));
        }
        Unsynced::Torn => {
            for op in unsynced {
                let Op::Write { offset, data } = op else {
                    if dice.roll().is_multiple_of(2) {
                        apply(&mut image, op);
                    }
                    continue;
                };
                let mut at = 0;
                while at < data.len() {
                    let end = data.len().min((offset + at) / SECTOR * SECTOR + SECTOR - offset);
                    if dice.roll().is_multiple_of(2) {
                        let part = Op::Write { offset: offset + at, data: data[at..end].to_vec() };
                        apply(&mut image, &part);
                    }
                    at = end;
                }
            }
        }
    }
    image
}

fn overlap(one: &Op, other: &Op) -> bool {
    match (one, other) {
        (Op::Write { offset: a, data: one }, Op::Write { offset: b, data: other }) => {
            *a < b + other.len() && *b < a + one.len()
        }
        _ => true,
    }
}

impl Disk {
    /// A disk that holds this and has it safe.
    pub(crate) fn holding(image: Vec<u8>) -> Disk {
        Disk(Arc::new(Mutex::new(State { live: image.clone(), durable: image, ..State::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while it is held")
    }

    /// Keeps all operations from now on, beginning with none.
    pub(crate) fn record(&self) {
        self.state().trace = Some(Vec::new());
    }

    pub(crate) fn trace_len(&self) -> usize {
        self.state().trace.as_ref().map_or(0, Vec::len)
    }

    pub(crate) fn take_trace(&self) -> Vec<Op> {
        self.state().trace.take().unwrap_or_default()
    }

    /// Operations so far: writes, changes of length, syncs.
    pub(crate) fn ops(&self) -> u64 {
        self.state().ops
    }

    /// Plans a fault at an operation, counted from the disk's beginning.
    pub(crate) fn fail_at(&self, op: u64, fault: Fault) {
        self.state().fault = Some((op, fault));
    }

    /// Whether a planned fault has happened.
    pub(crate) fn has_failed(&self) -> bool {
        self.state().faults > 0
    }

    pub(crate) fn limit(&self, capacity: Option<usize>) {
        self.state().capacity = capacity;
    }

    /// The disk as a program finds it that starts after another ended, with no power cut in between.
    pub(crate) fn restart(&self) -> Disk {
        let state = self.state();
        Disk(Arc::new(Mutex::new(State {
            live: state.live.clone(),
            durable: state.durable.clone(),
            unsynced: state.unsynced.clone(),
            ..State::default()
        })))
    }

    /// The disk after a power cut.
    pub(crate) fn cut(&self, manner: Unsynced, dice: &mut Dice) -> Disk {
        let state = self.state();
        Disk::holding(survive(&state.durable, &state.unsynced, manner, dice))
    }

    /// Everything on it, for comparing.
    pub(crate) fn image(&self) -> Vec<u8> {
        self.state().live.clone()
    }

    fn act(&self, op: Op) -> Result<(), std::io::Error> {
        let mut state = self.state();
        if state.dead {
            return Err(std::io::Error::other("no power"));
        }
        let number = state.ops;
        state.ops += 1;
        if let Some(trace) = &mut state.trace {
            trace.push(op.clone());
        }
        if let Some((_, fault)) = state.fault.filter(|(at, _)| *at == number) {
            state.faults += 1;
            match (fault, op) {
                (Fault::Power, _) => state.dead = true,
                (_, Op::Sync) => state.unsynced.clear(),
                (Fault::Short, Op::Write { offset, mut data }) => {
                    data.truncate(data.len() / 2);
                    let half = Op::Write { offset, data };
                    apply(&mut state.live, &half);
                    state.unsynced.push(half);
                }
                _ => {}
            }
            // EIO
            return Err(std::io::Error::from_raw_os_error(5));
        }
        if let (Op::Len(len), Some(capacity)) = (&op, state.capacity)
            && *len > capacity
            && *len > state.live.len()
        {
            state.faults += 1;
            // ENOSPC
            return Err(std::io::Error::from_raw_os_error(28));
        }
        if op == Op::Sync {
            let unsynced = std::mem::take(&mut state.unsynced);
            unsynced.iter().for_each(|op| apply(&mut state.durable, op));
        } else {
            apply(&mut state.live, &op);
            state.unsynced.push(op);
        }
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, std::io::Error> {
        Ok(self.state().live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        let state = self.state();
        let found = state.live.get(offset as usize..).and_then(|rest| rest.get(..out.len()));
        match found.filter(|_| !state.dead) {
            Some(found) => {
                out.copy_from_slice(found);
                Ok(())
            }
            None => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof)),
        }
    }

    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.act(Op::Len(len as usize))
    }

    fn sync_data(&self) -> Result<(), std::io::Error> {
        self.act(Op::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        self.act(Op::Write { offset: offset as usize, data: data.to_vec() })
    }
}
