//! The clients of the simulation: they send, are cut off, send again, and remember what they were told.

use std::collections::{HashMap, HashSet};

use stockline_core::catalogue::{
    Amount, Day, Definition, Effect, LateConfirm, Policy, Strategy, Unannounced,
};
use stockline_core::command::{Body, Command, Frame};
use stockline_core::id::{Key, Lsn, Millis, PrincipalId};
use stockline_core::journal::{Decoded, Entry};
use stockline_core::merge::FrameReply;
use stockline_core::outcome::Code;
use stockline_core::record::digest;
use stockline_loadgen::chance::{Chance, pick};
use stockline_loadgen::dice::Dice;
use stockline_loadgen::history::{NEVER, Seen, What, leaves_no_trace};
use stockline_loadgen::model::{Act, Due};
use xxhash_rust::xxh3::Xxh3;

use super::engine::{Tag, WINDOW};
use super::{rule, system};
use crate::bench::sku_rules;
use crate::chance::{body, chance, days, due, due_act, due_of_entry, model_day, model_rule};

const CLIENTS: usize = 4;
const IN_FLIGHT: usize = 6;
/// One more, which sends what makes no sense, to fill the window.
const FLOODER: usize = CLIENTS;
/// Commands in a burst of it.
const FLOOD: u64 = 120;
/// How far clients' clocks are ahead, or behind: within what is tolerated, and beyond.
const SKEWS_MS: [i64; 6] = [0, 0, -90_000, 40_000, 290_000, 400_000];
/// What a sender sent last is known as long as the window is: at least a share of it, less what is given up at once, and what
/// was sent in the same millisecond.
const KNOWN_AT_LEAST: u64 = WINDOW.commands / (CLIENTS as u64 + 1) - 150;

/// A command as its sender knows it.
struct Sent {
    act: Act,
    issued_at: Millis,
    /// Which of its sender's it is.
    nth: u64,
    first: u64,
    /// Step, LSN and answer.
    answered: Option<(u64, Lsn, Due)>,
}

/// What a frame asks, by key; a stranger's body under a known key is marked.
#[derive(Clone)]
struct Asked {
    keys: Vec<(Key, bool)>,
}

struct Client {
    /// Number of its connection: answers to an earlier one do not arrive.
    connection: u64,
    in_flight: HashMap<u64, Asked>,
    /// Keys whose answers were lost: sent again first.
    again: Vec<Key>,
    /// Commands that it made.
    made: u64,
    /// By how much its clock is ahead.
    skew_ms: i64,
}

pub(super) struct Clients {
    chance: Chance,
    clients: Vec<Client>,
    sent: HashMap<(usize, Key), Sent>,
    known: Vec<(usize, Key)>,
    last_id: u128,
    /// Ids asked for more than once, under other keys.
    reused: HashSet<u128>,
    next_key: u128,
    next_mark: u64,
    commands: u64,
    last_answered: Lsn,
    buffers: u32,
    /// Events that were refused and left no trace.
    refused: Vec<(Act, Code)>,
    /// When the engine was started last: of what was sent before, it may know no more whether it was executed.
    started: Millis,
}

fn principal(client: usize) -> PrincipalId {
    PrincipalId(client as u32 + 1)
}

impl Clients {
    pub(super) fn new() -> Clients {
        let client =
            || Client { connection: 0, in_flight: HashMap::new(), again: Vec::new(), made: 0, skew_ms: 0 };
        Clients {
            chance: chance(),
            clients: (0..=FLOODER).map(|_| client()).collect(),
            sent: HashMap::new(),
            known: Vec::new(),
            last_id: 0,
            reused: HashSet::new(),
            next_key: 1 << 64,
            next_mark: 0,
            commands: 0,
            last_answered: Lsn::NONE,
            buffers: 5,
            refused: Vec::new(),
            started: Millis(0),
        }
    }

    pub(super) fn sent(&self) -> u64 {
        self.commands
    }

    pub(super) fn last_answered(&self) -> Lsn {
        self.last_answered
    }

    /// Some new commands, some old ones again, some with a stolen key, from one client.
    pub(super) fn send(&mut self, dice: &mut Dice, step: u64, now: Millis) -> Option<Frame<Tag>> {
        if pick(dice, 150) == 0 {
            // Another amount for a rule by sku, or none.
            let mut rules = sku_rules();
            rules.retain(|definition| matches!(definition, Definition::Rule { .. }));
            let mut changed = rules.swap_remove(pick(dice, rules.len() as u64) as usize);
            if let Definition::Rule { effect, .. } = &mut changed {
                let units = pick(dice, 6) as u32;
                *effect = match *effect {
                    _ if units == 0 => Effect::None,
                    Effect::Allocate { amount: Amount::Percent(_), when } => {
                        Effect::Allocate { amount: Amount::Percent(units as u8 * 10), when }
                    }
                    Effect::Allocate { when, .. } => Effect::Allocate { amount: Amount::Units(units), when },
                    _ => Effect::Safety(units),
                };
            }
            return Some(define(changed));
        }
        if pick(dice, 200) == 0 {
            let mut changed = days()[pick(dice, 2) as usize].clone();
            if let Definition::Node { day, .. } = &mut changed
                && pick(dice, 3) == 0
            {
                *day = Day { capacity: pick(dice, 12) as u32, ..Day::default() };
            }
            return Some(define(changed));
        }
        if pick(dice, 150) == 0 {
            self.buffers = pick(dice, 12) as u32;
            let (name, parent, buffer, policy) = match pick(dice, 2) {
                0 => ("c2", None, self.buffers, Policy::default()),
                _ => ("c3", Some(if pick(dice, 2) == 0 { "c1" } else { "c2" }), 0, changed_policy(dice)),
            };
            let (name, parent) = (name.into(), parent.map(str::to_owned));
            let definition = Definition::Channel { name, parent, group: None, buffer, policy };
            return Some(define(definition));
        }
        if pick(dice, 80) == 0 {
            return Some(self.flood(step, now));
        }
        let index = pick(dice, CLIENTS as u64) as usize;
        if self.clients[index].in_flight.len() >= IN_FLIGHT {
            return None;
        }
        if pick(dice, 50) == 0 {
            self.clients[index].skew_ms = SKEWS_MS[pick(dice, SKEWS_MS.len() as u64) as usize];
        }
        self.next_mark += 1;
        let mut frame = Frame {
            tag: Some((index, self.clients[index].connection, self.next_mark)),
            principal: principal(index),
            commands: Vec::new(),
            lines: Vec::new(),
        };
        let mut asked = Asked { keys: Vec::new() };
        for _ in 0..=pick(dice, 8) {
            let again = self.clients[index].again.pop();
            let (key, stolen) = match again {
                Some(key) => (key, false),
                None => match pick(dice, 30) {
                    0 if !self.known.is_empty() => match self.old_key(dice, index) {
                        Some(old) => old,
                        None => continue,
                    },
                    _ => (self.new_command(dice, index, step, now), false),
                },
            };
            if asked.keys.iter().any(|(other, _)| *other == key) {
                continue;
            }
            let sent = &self.sent[&(index, key)];
            let mut act = sent.act.clone();
            if stolen {
                spoil(&mut act);
            }
            let body = body(&act, &mut frame.lines);
            let digest = digest(&body, &frame.lines);
            frame.commands.push(Command { key, issued_at: sent.issued_at, digest, body });
            asked.keys.push((key, stolen));
        }
        asked.keys.first()?;
        self.commands += frame.commands.len() as u64;
        let client = &mut self.clients[index];
        client.in_flight.insert(self.next_mark, asked);
        Some(frame)
    }

    /// Steps of reservations that nobody has: each takes its place in the order and in the window.
    fn flood(&mut self, step: u64, now: Millis) -> Frame<Tag> {
        self.next_mark += 1;
        let connection = self.clients[FLOODER].connection;
        let mut frame = Frame {
            tag: Some((FLOODER, connection, self.next_mark)),
            principal: principal(FLOODER),
            commands: Vec::new(),
            lines: Vec::new(),
        };
        let mut asked = Asked { keys: Vec::new() };
        for _ in 0..FLOOD {
            let act = Act::Step { id: u128::MAX, verb: 2, ttl_ms: 0, lines: Vec::new() };
            self.next_key += 1;
            let key = Key(self.next_key);
            let body = body(&act, &mut frame.lines);
            let digest = digest(&body, &frame.lines);
            frame.commands.push(Command { key, issued_at: now, digest, body });
            asked.keys.push((key, false));
            self.keep((FLOODER, key), act, step, now);
        }
        self.clients[FLOODER].in_flight.insert(self.next_mark, asked);
        frame
    }

    fn keep(&mut self, (index, key): (usize, Key), act: Act, first: u64, issued_at: Millis) {
        self.clients[index].made += 1;
        let nth = self.clients[index].made;
        self.sent.insert((index, key), Sent { act, issued_at, nth, first, answered: None });
    }

    /// A key of somebody else's: it is another one for each.
    fn stolen_key(&self, dice: &mut Dice, index: usize) -> Option<Key> {
        let from = self.known.len().saturating_sub(200);
        let (owner, key) = *self.known.get(from + pick(dice, 200) as usize)?;
        // What was a reservation's id is a key for everybody.
        let is_plain = !matches!(self.sent[&(owner, key)].act, Act::Reserve { .. });
        (is_plain && owner != index && !self.sent.contains_key(&(index, key))).then_some(key)
    }

    fn new_command(&mut self, dice: &mut Dice, index: usize, step: u64, now: Millis) -> Key {
        let its_clock = now.0.saturating_add_signed(self.clients[index].skew_ms);
        let act = self.chance.act(dice, 0, &mut self.last_id, its_clock);
        let (mut act, mut own_key) = (act, false);
        if let Act::Reserve { id, .. } = &mut act {
            // Some use keys of their own, some an id that was used before.
            own_key = pick(dice, 8) == 0;
            if own_key && pick(dice, 2) == 0 {
                *id = 1 + u128::from(pick(dice, self.last_id as u64));
                self.reused.insert(*id);
            }
        }
        let key = match &act {
            Act::Reserve { id, .. } if !own_key => Key(*id),
            Act::Event(_) | Act::Step { .. } if pick(dice, 20) == 0 => {
                self.next_key += 1;
                self.stolen_key(dice, index).unwrap_or(Key(self.next_key))
            }
            _ => {
                self.next_key += 1;
                Key(self.next_key)
            }
        };
        self.keep((index, key), act, step, now);
        self.known.push((index, key));
        key
    }

    /// A key that was answered before: the same again, or another body under it.
    fn old_key(&self, dice: &mut Dice, index: usize) -> Option<(Key, bool)> {
        let from = self.known.len().saturating_sub(600);
        let at = from + pick(dice, (self.known.len() - from) as u64) as usize;
        let (owner, key) = self.known[at];
        if owner != index || self.sent[&(index, key)].answered.is_none() {
            return None;
        }
        Some((key, pick(dice, 2) == 0))
    }

    /// An answer arrives, if its connection is still there.
    pub(super) fn hear(
        &mut self,
        frame: &Frame<Tag>,
        reply: FrameReply,
        (step, now): (u64, Millis),
        print: &mut Xxh3,
    ) {
        let Some((index, connection, mark)) = frame.tag else { return };
        if self.clients[index].connection != connection {
            return;
        }
        let asked = self.clients[index].in_flight.remove(&mark).expect("sent before");
        let mut parts = reply.parts.iter();
        for ((key, stolen), reply) in asked.keys.into_iter().zip(&reply.replies) {
            let own: Vec<_> = parts.by_ref().take(reply.parts as usize).copied().collect();
            let told = due(reply, &own);
            print.update(&reply.lsn.0.to_le_bytes());
            print.update(&[told.code as u8, told.state as u8]);
            let sent = self.sent.get_mut(&(index, key)).expect("sent before");
            if stolen {
                let turned_away = matches!(told.code, Code::KeyConflict | Code::KeyTooOld);
                assert!(turned_away, "another body under {key:?} got {told:?}");
                continue;
            }
            match told.code {
                Code::KeyTooOld => {
                    // What others sent made nothing of this one's forgotten.
                    let known = if index == FLOODER { 0 } else { KNOWN_AT_LEAST };
                    let since = self.clients[index].made - sent.nth;
                    let age = now.since(sent.issued_at);
                    assert!(
                        since >= known || age >= WINDOW.ms || sent.issued_at <= self.started,
                        "{:?} of {index} is too old after {since} of its own and {age} ms",
                        sent.act
                    );
                    continue;
                }
                // The server's clock is behind after a restart: the same again, later.
                Code::ClockAhead => {
                    self.clients[index].again.push(key);
                    continue;
                }
                // The id was somebody else's.
                Code::KeyConflict if matches!(sent.act, Act::Reserve { id, .. } if self.reused.contains(&id)) =>
                {
                    continue;
                }
                _ => {}
            }
            if leaves_no_trace(&sent.act, told.code) {
                assert_eq!(reply.lsn, Lsn::NONE);
                self.refused.push((sent.act.clone(), told.code));
                continue;
            }
            assert!(reply.lsn != Lsn::NONE, "{:?} got {told:?}", sent.act);
            match &sent.answered {
                Some((_, lsn, first)) => {
                    assert_eq!((reply.lsn, &told), (*lsn, first), "a repeat of {:?}", sent.act);
                    assert!(reply.repeat);
                }
                None => sent.answered = Some((step, reply.lsn, told)),
            }
            self.last_answered = self.last_answered.max(reply.lsn);
        }
    }

    /// One client loses its connection: what is open will be sent again. Answers how many answers were lost.
    pub(super) fn cut_one(&mut self, dice: &mut Dice) -> u64 {
        self.cut(pick(dice, CLIENTS as u64) as usize)
    }

    pub(super) fn cut_all(&mut self, now: Millis) {
        self.started = now;
        (0..CLIENTS).for_each(|index| {
            self.cut(index);
        });
    }

    fn cut(&mut self, index: usize) -> u64 {
        let client = &mut self.clients[index];
        client.connection += 1;
        let mut open: Vec<(u64, Asked)> = client.in_flight.drain().collect();
        open.sort_by_key(|(mark, _)| *mark);
        for (_, asked) in &open {
            client.again.extend(asked.keys.iter().filter(|(_, stolen)| !stolen).map(|(key, _)| *key));
        }
        open.len() as u64
    }

    /// Events that were refused and left no trace, since the last call.
    pub(super) fn refused(&mut self) -> impl Iterator<Item = Seen> {
        let seen = |(act, code)| Seen { sent: 0, replied: NEVER, lsn: 0, what: What::Refused { act, code } };
        std::mem::take(&mut self.refused).into_iter().map(seen)
    }

    /// What became of a command that is durable.
    pub(super) fn seen(&self, decoded: &Decoded, entry: &Entry) -> Option<Seen> {
        let (lsn, now_ms) = (entry.lsn, entry.now.0);
        let command = &entry.command;
        if entry.principal == PrincipalId::SYSTEM {
            return match &command.body {
                Body::Expire(_) | Body::Balance(_) => {
                    Some(system(lsn, now_ms, due_act(&command.body), decoded, entry))
                }
                Body::Define(definition) => match &**definition {
                    Definition::Channel { name, parent, buffer, policy, .. } => {
                        let channel = u16::from(name.as_bytes()[1] - b'0');
                        let rule = rule(channel, parent.as_deref(), *buffer, policy);
                        Some(system(lsn, now_ms, rule, decoded, entry))
                    }
                    node @ Definition::Node { .. } => model_day(node)
                        .map(|(node, day)| system(lsn, now_ms, Act::Day { node, day }, decoded, entry)),
                    other => model_rule(other)
                        .map(|(at, rule)| system(lsn, now_ms, Act::SkuRule { at, rule }, decoded, entry)),
                },
                other => panic!("the system does not send {other:?}"),
            };
        }
        let index = entry.principal.0 as usize - 1;
        let sent = self.sent.get(&(index, command.key)).expect("nobody else sends");
        let mut lines = Vec::new();
        let body = body(&sent.act, &mut lines);
        assert_eq!(command.digest, digest(&body, &lines), "LSN {lsn}: {:?} was sent", sent.act);
        let (replied, answer) = match &sent.answered {
            Some((step, told_lsn, told)) => {
                assert_eq!(*told_lsn, lsn, "{:?} is in the order twice", sent.act);
                (*step, told.clone())
            }
            None => (NEVER, due_of_entry(decoded, entry)),
        };
        let what = What::Command { act: sent.act.clone(), now_ms: Some(now_ms), answer: Some(answer) };
        Some(Seen { sent: sent.first, replied, lsn: lsn.0, what })
    }
}

/// A policy for the channel whose late confirmations claim again and whose open holds are few.
fn changed_policy(dice: &mut Dice) -> Policy {
    Policy {
        low: 0,
        late_confirm: if pick(dice, 4) == 0 { LateConfirm::Refuse } else { LateConfirm::Reacquire },
        holds_max: pick(dice, 6) as u32,
        customer_holds_max: pick(dice, 4) as u32,
        cap: if pick(dice, 3) == 0 { pick(dice, 8) as u32 } else { 0 },
        strategy: Strategy::from_number(pick(dice, 5) as u8).expect("five"),
        priority: pick(dice, 3) as u16,
        unannounced: Unannounced::from_number(pick(dice, 2) as u8).expect("two"),
        splits_max: pick(dice, 3) as u8,
        substitutes: pick(dice, 3) == 0,
    }
}

/// As an administrator sends it.
pub(super) fn define(definition: Definition) -> Frame<Tag> {
    let body = Body::Define(Box::new(definition));
    let command = Command { key: Key(0), issued_at: Millis(0), digest: 0, body };
    Frame { tag: None, principal: PrincipalId::SYSTEM, commands: vec![command], lines: Vec::new() }
}

/// Another body of the same kind.
fn spoil(act: &mut Act) {
    match act {
        Act::Reserve { ttl_ms, .. } | Act::Step { ttl_ms, .. } => *ttl_ms += 1,
        Act::Event(event) => event.quantity += 1,
        Act::Allocate(allocate) => allocate.quantity += 1,
        Act::Expire { .. }
        | Act::Balance { .. }
        | Act::Rule { .. }
        | Act::SkuRule { .. }
        | Act::Day { .. } => {
            unreachable!("clients do not send these")
        }
    }
}
