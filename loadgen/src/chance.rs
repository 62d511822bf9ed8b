//! Random commands of every kind, sound and unsound, over a few skus that everybody wants.

use stockline_client::event::{EventKind, KINDS};
use stockline_client::record::{AllocateRec, EventRec, LineRec, StepLineRec, TextRec};

use crate::dice::Dice;
use crate::model::{ANY, Act, LATER, place_of};

/// What the commands are about.
#[derive(Clone, Debug)]
pub struct Chance {
    pub skus: Vec<u32>,
    pub nodes: Vec<u16>,
    /// A group and its nodes.
    pub group: (u16, Vec<u16>),
    /// Groups of which units are claimed, their nodes not chosen yet.
    pub claimed: Vec<u16>,
    pub channels: Vec<u16>,
    pub zones: Vec<u16>,
    /// Shortest and longest time to live.
    pub ttl_least_ms: u32,
    pub ttl_ms: u32,
    /// Whoever checks knows when each command takes effect: counts and moments far away are told too.
    pub clock_known: bool,
}

pub fn pick(dice: &mut Dice, below: u64) -> u64 {
    dice.roll() % below
}

fn one<T: Copy>(dice: &mut Dice, of: &[T]) -> T {
    of[pick(dice, of.len() as u64) as usize]
}

impl Chance {
    /// A command. Ids of reservations are `base` + 1 to `base` + `last`; a new one is the next.
    pub fn act(&self, dice: &mut Dice, base: u128, last: &mut u128, now_ms: u64) -> Act {
        match pick(dice, 20) {
            0..7 => {
                *last += 1;
                let mut lines: Vec<LineRec> = (0..=pick(dice, 4)).map(|_| self.line(dice)).collect();
                // So that steps of some lines know what to ask for.
                lines[0].sku =
                    if lines[0].sku == 60_000_000 { 60_000_000 } else { self.sku_of(base + *last) };
                let ttl = self.ttl_least_ms + pick(dice, u64::from(self.ttl_ms)) as u32 + 1;
                let ttl_ms = if pick(dice, 60) == 0 { 0 } else { ttl };
                let (channel, partial) = (one(dice, &self.channels), pick(dice, 3) == 0);
                let customer = pick(dice, 3);
                let zones: Vec<u16> = self.zones.iter().copied().chain([ANY]).collect();
                let zone = if pick(dice, 200) == 0 { 4_000 } else { one(dice, &zones) };
                Act::Reserve { id: base + *last, channel, ttl_ms, partial, customer, zone, lines }
            }
            7..13 => {
                // Mostly young ones: the others have ended.
                let id = if pick(dice, 4) == 0 {
                    1 + u128::from(pick(dice, *last as u64 + 1))
                } else {
                    last.saturating_sub(u128::from(pick(dice, 12))).max(1)
                };
                let ttl_ms = self.ttl_least_ms + pick(dice, u64::from(self.ttl_ms) + 1_000) as u32 + 1;
                let verb = pick(dice, 5) as u8 + 1;
                let ttl_ms = if verb == 4 { pick(dice, 2) as u32 } else { ttl_ms };
                let by_line = verb == 5 || (verb != 3 && pick(dice, 2) == 0);
                let count = if by_line { 1 + pick(dice, 2) } else { 0 };
                let lines = (0..count).map(|_| self.step_line(dice, base + id, verb)).collect();
                Act::Step { id: base + id, verb, ttl_ms, lines }
            }
            13 => Act::Allocate(self.allocate(dice)),
            _ => Act::Event(Box::new(self.event(dice, base, *last, now_ms))),
        }
    }

    fn allocate(&self, dice: &mut Dice) -> AllocateRec {
        let action = one(dice, &[1, 1, 1, 1, 2, 3]);
        let channel = if pick(dice, 100) == 0 { 4_000 } else { one(dice, &self.channels) };
        let others: Vec<u16> = self.channels.iter().copied().filter(|other| *other != channel).collect();
        AllocateRec {
            key: 0,
            issued_at_ms: 0,
            sku: if pick(dice, 200) == 0 { 60_000_000 } else { one(dice, &self.skus) },
            quantity: if pick(dice, 200) == 0 { 0 } else { pick(dice, 6) as u32 + 1 },
            node: if pick(dice, 100) == 0 { 4_000 } else { one(dice, &self.nodes) },
            channel,
            to_channel: if action == 3 { one(dice, &others) } else { ANY },
            action,
        }
    }

    fn line(&self, dice: &mut Dice) -> LineRec {
        let sku = if pick(dice, 200) == 0 { 60_000_000 } else { one(dice, &self.skus) };
        let quantity = if pick(dice, 200) == 0 { 0 } else { pick(dice, 6) as u32 + 1 };
        let (node, group) = match pick(dice, 8) {
            0 if pick(dice, 4) == 0 => (4_000, ANY),
            0 => (one(dice, &self.nodes), ANY),
            1 => (ANY, self.group.0),
            2 => (one(dice, &self.group.1), self.group.0),
            3 => (LATER, one(dice, &self.claimed)),
            _ => (ANY, ANY),
        };
        LineRec { sku, node, group, quantity }
    }

    /// The sku of a reservation's first line.
    fn sku_of(&self, id: u128) -> u32 {
        one(&mut Dice::new(id as u64), &self.skus)
    }

    fn step_line(&self, dice: &mut Dice, id: u128, verb: u8) -> StepLineRec {
        let sku = match pick(dice, 100) {
            0 => 60_000_000,
            1..20 => one(dice, &self.skus),
            _ => self.sku_of(id),
        };
        let quantity = if pick(dice, 100) == 0 { 0 } else { pick(dice, 4) as u32 + 1 };
        let node = match pick(dice, 100) {
            0 => 4_000,
            1..20 => place_of(one(dice, &self.claimed)),
            _ => one(dice, &self.nodes),
        };
        let to_node = match verb {
            5 => {
                // Now and then to the same: what waits there gets what is there.
                let stays = pick(dice, 6) == 0;
                let mut others = self.nodes.iter().cycle().skip(pick(dice, 8) as usize);
                *others.find(|to| stays || **to != node).expect("two")
            }
            _ => ANY,
        };
        StepLineRec { sku, node, to_node, quantity }
    }

    fn kind(&self, dice: &mut Dice) -> EventKind {
        match pick(dice, 20) {
            0..7 => EventKind::Receipt,
            7 if self.clock_known => EventKind::Count,
            other => match KINDS[other as usize % KINDS.len()] {
                EventKind::Count if !self.clock_known => EventKind::Return,
                kind => kind,
            },
        }
    }

    fn event(&self, dice: &mut Dice, base: u128, last: u128, now_ms: u64) -> EventRec {
        let kind = self.kind(dice);
        // Now and then hours late, days late, or from a clock that goes wrong.
        let occurred_at_ms = match pick(dice, 40) {
            0 if self.clock_known => now_ms - pick(dice, 3_600_000),
            1 if self.clock_known => now_ms - pick(dice, 100_000_000),
            2 if self.clock_known => now_ms + pick(dice, 600_000),
            _ => now_ms - pick(dice, 40),
        };
        let units = pick(dice, 12) as i64 + 1;
        let quantity = match kind {
            EventKind::Adjustment => units - 8,
            EventKind::Count => units * 3 - 3,
            EventKind::Supply => units * 2 - 2,
            _ if pick(dice, 300) == 0 => 1_000_000_000 + pick(dice, 2) as i64,
            _ => units,
        };
        let to_node = one(dice, &self.nodes);
        let wants_claim = matches!(kind, EventKind::Pick | EventKind::Ship) && pick(dice, 3) > 0;
        let transfers =
            matches!(kind, EventKind::TransferDispatched | EventKind::TransferReceived | EventKind::Supply);
        let wants_supply = transfers || (kind == EventKind::Receipt && pick(dice, 8) == 0);
        let expects = matches!(kind, EventKind::Adjustment | EventKind::Count) && pick(dice, 10) == 0;
        let receives = matches!(kind, EventKind::Receipt | EventKind::TransferReceived);
        let dated = matches!(kind, EventKind::Supply | EventKind::TransferDispatched);
        // Few dates, so that some are the same, and now and then one that has passed.
        let eta_ms = match pick(dice, 8) {
            0 if pick(dice, 2) == 0 => 0,
            0 => now_ms.saturating_sub(5),
            _ => (now_ms / 4_000 + pick(dice, 3)) * 4_000 + 1_000,
        };
        let to = match kind {
            EventKind::StatusChange => one(dice, &[0, 4, 5, 6, 7]),
            EventKind::Return => one(dice, &[0, 4, 5, 6, 7]),
            _ => one(dice, &[0, 0, 0, 5, 6, 7]),
        };
        let careless = pick(dice, 60) == 0;
        // Now and then a field that its kind does not take.
        let mut takes = |takes: bool| takes || (careless && pick(dice, 4) == 0);
        let (takes_eta, takes_damaged) = (takes(dated), takes(receives));
        let (takes_from, takes_to) = (
            takes(kind == EventKind::StatusChange),
            takes(receives || matches!(kind, EventKind::StatusChange | EventKind::Return)),
        );
        let takes_node = takes(kind == EventKind::TransferDispatched);
        let takes_source = takes(receives && wants_supply);
        EventRec {
            key: 0,
            issued_at_ms: 0,
            occurred_at_ms,
            reservation: base + last.saturating_sub(u128::from(pick(dice, 12))).max(1),
            quantity,
            expected: pick(dice, 30) as i64,
            // Two sources call their supplies by the same numbers; who receives them may be a third.
            source: pick(dice, 2) + u64::from(receives && pick(dice, 4) == 0),
            supply: pick(dice, 4) + 1,
            eta_ms: if takes_eta { eta_ms } else { 0 },
            sku: one(dice, &self.skus),
            damaged: if takes_damaged { pick(dice, 3) as u32 } else { 0 },
            supply_source: if takes_source && pick(dice, 4) == 0 { pick(dice, 3) as u32 } else { 0 },
            node: if pick(dice, 100) == 0 { 4_000 } else { one(dice, &self.nodes) },
            to_node: if takes_node { to_node } else { ANY },
            kind: kind as u8,
            given: u8::from(wants_claim) | u8::from(wants_supply) << 1 | u8::from(expects) << 2,
            from: if takes_from { one(dice, &[0, 0, 4, 5, 6, 7]) } else { 0 },
            to: if takes_to { to } else { 0 },
            reason: TextRec::default(),
            redrive: 0,
            other: 0,
        }
    }
}
