//! The work bench of the other tests: the core's state machines in one thread, without files or threads.

use std::collections::BTreeSet;

use stockline_core::admission::{Window, WindowSize};
use stockline_core::batch::Batch;
use stockline_core::bucket::{Bucket, Place};
use stockline_core::catalogue::{
    Amount, Catalogue, Day, Definition, Effect, Lane, LateConfirm, Point, Policy, Strategy, UNKNOWN, When,
};
use stockline_core::chain::Chain;
use stockline_core::command::{Body, Command, Fill, Frame, Line, Read, Reserve, StepLine, Transition, Verb};
use stockline_core::event::{EventKind, StockEvent};
use stockline_core::id::{
    ChannelId, GroupId, Key, Lsn, Millis, NodeId, PrincipalId, ReservationId, ShardOf, SkuId,
};
use stockline_core::journal::{Decoded, Entry, JournalRecord};
use stockline_core::ledger::{Answer, Ledger, Mark, audit};
use stockline_core::merge::{FrameReply, Reply, merge};
use stockline_core::outcome::Code;
use stockline_core::record::{MovementRec, PromiseRec, ShortRec, digest};
use stockline_core::sequencer::Sequencer;
use stockline_core::shard::{self, Output, Progress};
use stockline_loadgen::model::Waits;
use stockline_loadgen::stage::labels;

pub const SMALL: WindowSize = WindowSize { commands: 10_000, ms: 3_600_000 };
pub const HOLDS_MAX: u32 = 4;
pub const CUSTOMER_HOLDS_MAX: u32 = 2;
pub const WHO: PrincipalId = PrincipalId(1);
pub const START: Millis = Millis(1_700_000_000_000);

/// Sequencer and shards, driven by hand.
pub struct Bench {
    pub sequencer: Sequencer,
    pub ledgers: Vec<Ledger>,
    pub now: Millis,
    /// Stored records with their first LSN, in order.
    pub journal: Vec<(Lsn, Vec<u8>)>,
    pub chain: Chain,
    next_key: u128,
}

/// A reply with its parts.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    pub reply: Reply,
    /// Sku, node (65535 for a shortage), units.
    pub parts: Vec<(u32, u16, u32)>,
    /// When each part is there.
    pub dates: Vec<Millis>,
}

pub fn any_line(sku: u32, quantity: u32) -> Line {
    Line { sku: SkuId(sku), node: NodeId::ANY, group: GroupId::ANY, quantity }
}

pub fn node_line(sku: u32, node: u16, quantity: u32) -> Line {
    Line { node: NodeId(node), ..any_line(sku, quantity) }
}

/// Where what all share of a sku at a node is.
pub fn place(sku: u32, node: u16) -> Place {
    Place { sku: SkuId(sku), node: NodeId(node), pool: ChannelId::SHARED }
}

/// Nodes 0, 1, 2 with priorities 10, 20, 30; group 0 = {1, 2}; channel 0 over all nodes, channel 1 over group 0,
/// channel 2 over all with a buffer of 5, channel 3 over all with late confirmations and few open holds; channel 1 is
/// part of 0, and 3 of 1; skus 0 to 9.
pub fn definitions() -> Vec<Definition> {
    let channel = |name: &str, parent: Option<&str>, group: Option<&str>, buffer| Definition::Channel {
        name: name.into(),
        parent: parent.map(str::to_owned),
        group: group.map(str::to_owned),
        buffer,
        policy: Policy::default(),
    };
    let mut definitions = vec![
        Definition::node("n0", 10),
        Definition::node("n1", 20),
        Definition::node("n2", 30),
        Definition::Group { name: "g0".into(), nodes: vec!["n1".into(), "n2".into()] },
        channel("c0", None, None, 0),
        channel("c1", Some("c0"), Some("g0"), 0),
        channel("c2", None, None, 5),
    ];
    definitions.push(Definition::Channel {
        name: "c3".into(),
        parent: Some("c1".into()),
        group: None,
        buffer: 0,
        policy: Policy {
            low: 3,
            late_confirm: LateConfirm::Reacquire,
            holds_max: HOLDS_MAX,
            customer_holds_max: CUSTOMER_HOLDS_MAX,
            ..Policy::default()
        },
    });
    definitions.extend((0..10).map(|sku| Definition::Sku { name: format!("s{sku}") }));
    definitions.push(Definition::Group { name: "g1".into(), nodes: vec!["n0".into(), "n1".into()] });
    definitions
}

/// What the layers that compare with the model have besides: zones, strategies, and rules by sku: safety stock for
/// skus 4 and 5, which have the category garden, allocations from receipts for sku 3, and such that keep themselves
/// for sku 2; substitutes for skus 0 and 1. The rules come last.
pub fn sku_rules() -> Vec<Definition> {
    let lane = |node: &str, metres, cost| Lane { node: node.into(), metres, cost };
    let zone = |name: &str, lanes| Definition::Zone { name: name.into(), at: None, lanes };
    let mut all = vec![
        zone("z0", vec![lane("n0", 300, 5), lane("n1", 100, 9), lane("n2", 200, UNKNOWN)]),
        zone("z1", vec![lane("n2", 50, 1)]),
    ];
    for (channel, strategy, splits) in
        [(5, Strategy::Nearest, 0), (6, Strategy::HighestStock, 2), (7, Strategy::FewestSplits, 2)]
    {
        let mut definition = definitions().swap_remove(channel);
        if let Definition::Channel { policy, .. } = &mut definition {
            (policy.strategy, policy.splits_max) = (strategy, splits);
            policy.substitutes = channel != 5;
            policy.priority = 10 - channel as u16;
        }
        all.push(definition);
    }
    all.push(node_with("n0", 10, None, &["n2", "n1"]));
    let data = |name: &str, substitutes: &[&str]| Definition::SkuData {
        name: name.into(),
        category: if substitutes.is_empty() { "garden".into() } else { String::new() },
        substitutes: substitutes.iter().map(|sku| (*sku).to_owned()).collect(),
    };
    let places = [
        ("s*", "garden", None, None, None, Effect::Safety(1)),
        ("s*", "garden", None, None, Some("c2"), Effect::Safety(3)),
        ("s5", "", None, Some("g0"), None, Effect::Safety(2)),
        ("s5", "", Some("n0"), None, Some("c0"), Effect::Safety(4)),
        ("s3", "", None, None, Some("c0"), allocate(Amount::Percent(30), When::Receipt)),
        ("s3", "", Some("n1"), None, Some("c2"), allocate(Amount::Units(5), When::Receipt)),
        ("s2", "", None, Some("g0"), Some("c1"), allocate(Amount::Units(4), When::Always)),
        ("s2", "", None, None, Some("c2"), allocate(Amount::Percent(20), When::Always)),
        ("s3", "", None, None, Some("c3"), allocate(Amount::Percent(30), When::Every(2))),
        ("s1", "", None, None, None, Effect::Backorder(30)),
        ("s1", "", Some("n1"), None, Some("c1"), Effect::Backorder(0)),
        ("s2", "", None, Some("g0"), None, Effect::Preorder(12)),
    ];
    let rule = |(at, (skus, category, node, group, channel, effect)): (usize, _)| {
        sku_rule(&format!("r{}", (b'0' + at as u8) as char), (skus, category), (node, group), channel, effect)
    };
    all.extend([data("s4", &[]), data("s5", &[]), data("s0", &["s1"]), data("s1", &["s3", "s0"])]);
    all.extend(places.into_iter().enumerate().map(rule));
    all
}

/// A channel over every node, with a policy.
pub fn channel_with(name: &str, policy: Policy) -> Definition {
    Definition::Channel { name: name.into(), parent: None, group: None, buffer: 0, policy }
}

/// A node, with where it is and its substitutes.
pub fn node_with(name: &str, priority: u16, at: Option<Point>, substitutes: &[&str]) -> Definition {
    let (name, kind, timezone) = (name.into(), String::new(), String::new());
    let substitutes = substitutes.iter().map(|node| (*node).to_owned()).collect();
    let day = Day::default();
    Definition::Node { name, priority, kind, timezone, at, substitutes, day }
}

pub fn allocate(amount: Amount, when: When) -> Effect {
    Effect::Allocate { amount, when }
}

pub fn sku_rule(
    name: &str,
    (skus, category): (&str, &str),
    (node, group): (Option<&str>, Option<&str>),
    channel: Option<&str>,
    effect: Effect,
) -> Definition {
    Definition::Rule {
        name: name.into(),
        skus: skus.into(),
        category: category.into(),
        node: node.map(str::to_owned),
        group: group.map(str::to_owned),
        channel: channel.map(str::to_owned),
        effect,
    }
}

/// Appends what a record says of a command to another.
pub fn copy_entry(record: &mut JournalRecord, decoded: &Decoded, entry: &Entry) {
    let stockline_core::ledger::Told { movements, shorts, promises } = decoded.told(entry);
    record.movements.extend(movements.iter().map(|one| MovementRec::from(*one)));
    record.shorts.extend(shorts.iter().map(|one| ShortRec::from(*one)));
    record.promises.extend(promises.iter().map(|one| PromiseRec::from(*one)));
    let counts = Mark { movements: movements.len(), shorts: shorts.len(), promises: promises.len() };
    record.push(entry.now, entry.principal, &entry.command, &decoded.lines, entry.outcome, counts);
}

impl Bench {
    /// With everything of [`definitions`] and [`sku_rules`].
    pub fn with_sku_rules(shards: u32) -> Bench {
        let mut bench = Bench::new(shards);
        sku_rules().into_iter().for_each(|definition| assert_eq!(bench.define(definition), Code::Ok));
        bench
    }

    pub fn define(&mut self, definition: Definition) -> Code {
        self.send_body(Body::Define(Box::new(definition)), &[]).reply.outcome.code
    }

    /// With everything of [`definitions`].
    pub fn new(shards: u32) -> Bench {
        let window = Window::new(SMALL, Lsn(1));
        let sequencer = Sequencer::new(Catalogue::default(), window, Lsn::NONE, START, shards);
        let ledgers = (0..shards).map(|index| Ledger::new(ShardOf { index, count: shards })).collect();
        let mut bench = Bench {
            sequencer,
            ledgers,
            now: START,
            journal: Vec::new(),
            chain: Chain::START,
            next_key: 1 << 64,
        };
        for definition in definitions() {
            bench.send_body(Body::Define(Box::new(definition)), &[]);
        }
        bench
    }

    pub fn key(&mut self) -> Key {
        self.next_key += 1;
        Key(self.next_key)
    }

    pub fn command(&mut self, body: Body, lines: &[Line]) -> Command {
        let key = match &body {
            Body::Define(_) | Body::Expire(_) | Body::Balance(_) | Body::Read(_) => Key(0),
            Body::Reserve(reserve) => Key(reserve.id.0),
            _ => self.key(),
        };
        Command { key, issued_at: self.now, digest: digest(&body, lines), body }
    }

    pub fn send_body(&mut self, body: Body, lines: &[Line]) -> Told {
        let command = self.command(body, lines);
        self.send(command, lines)
    }

    /// Sends one command through sequencer, shards, merge and journal.
    pub fn send(&mut self, command: Command, lines: &[Line]) -> Told {
        let frame = Frame { tag: (), principal: WHO, commands: vec![command], lines: lines.to_vec() };
        let replies = self.send_frames(vec![frame]);
        let told = &replies[0];
        let parts = told.parts.iter().map(|part| (part.sku.0, part.node.0, part.quantity)).collect();
        let dates = told.parts.iter().map(|part| part.at).collect();
        Told { reply: told.replies[0], parts, dates }
    }

    /// Batches from the first LSN on, each with the output of the one shard, for another journal.
    pub fn batches(&mut self, count: u32) -> Vec<(Batch<()>, Output)> {
        let window = Window::new(SMALL, Lsn(1));
        let catalogue = std::mem::take(&mut self.sequencer.catalogue);
        self.sequencer = Sequencer::new(catalogue, window, Lsn::NONE, START, 1);
        let mut ledger = Ledger::new(ShardOf::ALL);
        let mut batches = Vec::new();
        for index in 0..count {
            let event = self.make(EventKind::Receipt, index % 8, 0, 5);
            let command = self.command(Body::Event(event), &[]);
            let mut batch: Batch<()> = self.sequencer.open(self.now);
            let frame = Frame { tag: (), principal: WHO, commands: vec![command], lines: Vec::new() };
            self.sequencer.push(&mut batch, frame);
            let output = shard::run(&mut ledger, &batch, |_| unreachable!("one shard waits for nobody"));
            batches.push((batch, output));
        }
        batches
    }

    pub fn send_frames(&mut self, frames: Vec<Frame<()>>) -> Vec<FrameReply> {
        let mut replies = Vec::new();
        let mut record = JournalRecord::default();
        let before = self.sequencer.last();
        record.restart(before.next());
        for frame in frames {
            let mut batch: Batch<()> = self.sequencer.open(self.now);
            self.sequencer.push(&mut batch, frame);
            let outputs = self.execute(&batch);
            merge(&batch, &outputs, &mut record, &mut replies);
        }
        if !record.entries.is_empty() {
            let mut bytes = Vec::new();
            record.encode(&mut self.chain, &mut bytes);
            self.journal.push((before.next(), bytes));
        }
        replies
    }

    /// Runs all shards in turn; one that waits for votes goes on when the others have cast theirs.
    fn execute(&mut self, batch: &Batch<()>) -> Vec<Output> {
        let mut running: Vec<_> = self.ledgers.iter().map(|_| (Progress::default(), None)).collect();
        while running.iter().any(|(_, output)| output.is_none()) {
            for (ledger, (progress, output)) in self.ledgers.iter_mut().zip(&mut running) {
                if output.is_none() {
                    *output = progress.advance(ledger, batch);
                }
            }
        }
        running.into_iter().filter_map(|(_, output)| output).collect()
    }

    pub fn reserve(&mut self, id: u128, channel: u16, ttl_ms: u32, lines: &[Line]) -> Told {
        self.reserve_filled(Fill::All, id, (channel, ttl_ms), lines)
    }

    pub fn reserve_filled(
        &mut self,
        fill: Fill,
        id: u128,
        (channel, ttl_ms): (u16, u32),
        lines: &[Line],
    ) -> Told {
        let reserve = Reserve {
            id: ReservationId(id),
            channel: ChannelId(channel),
            ttl_ms,
            fill,
            customer: 0,
            zone: stockline_core::id::ZoneId::NONE,
            labels: labels(id),
            first_line: 0,
            line_count: lines.len() as u32,
        };
        self.send_body(Body::Reserve(reserve), lines)
    }

    pub fn step(&mut self, id: u128, verb: Verb, ttl_ms: u32) -> Told {
        self.send_step(id, verb, ttl_ms, &[])
    }

    /// A step that takes some lines.
    pub fn step_lines(&mut self, id: u128, verb: Verb, lines: &[StepLine]) -> Told {
        self.send_step(id, verb, 0, lines)
    }

    fn send_step(&mut self, id: u128, verb: Verb, ttl_ms: u32, lines: &[StepLine]) -> Told {
        let (reservation, lines) = (ReservationId(id), lines.into());
        self.send_body(Body::Transition(Transition { reservation, verb, ttl_ms, scope: None, lines }), &[])
    }

    pub fn event(&mut self, event: StockEvent) -> Told {
        self.send_body(Body::Event(event), &[])
    }

    pub fn make(&self, kind: EventKind, sku: u32, node: u16, quantity: i64) -> StockEvent {
        StockEvent::new(kind, SkuId(sku), NodeId(node), quantity, self.now)
    }

    pub fn receive(&mut self, sku: u32, node: u16, quantity: i64) {
        let event = self.make(EventKind::Receipt, sku, node, quantity);
        let told = self.event(event);
        assert_eq!(told.reply.outcome.code, stockline_core::outcome::Code::Ok);
    }

    /// Brings every hold that is over, and every sku to be balanced, into the order, as the engine does.
    pub fn expire_due(&mut self) -> usize {
        let due = self.due();
        let count = due.len();
        for body in due {
            self.send_body(body, &[]);
        }
        count
    }

    /// What is due: expiries and balances.
    pub fn due(&mut self) -> Vec<Body> {
        let mut due = Vec::new();
        for ledger in &mut self.ledgers {
            ledger.take_due(self.now, (usize::MAX, usize::MAX), &mut due);
        }
        let unique: BTreeSet<_> = due.iter().map(|body| format!("{body:?}")).collect();
        assert_eq!(unique.len(), due.len(), "each is reported once, by one shard");
        due
    }

    /// Units by bucket: free, held, confirmed, picked, safety, damaged, quality, blocked, inbound.
    pub fn units(&self, sku: u32, node: u16) -> [i64; 9] {
        let [units @ .., _] = self.all_units(sku, node);
        units
    }

    /// The same, and what is allocated.
    pub fn all_units(&self, sku: u32, node: u16) -> [i64; 10] {
        let mut units = [0; 10];
        for ledger in self.ledgers.iter().filter(|ledger| ledger.shard().owns(SkuId(sku))) {
            for (number, units) in units.iter_mut().enumerate() {
                let bucket = Bucket::from_number(if number == 9 { 13 } else { number as u8 });
                *units = ledger.units(SkuId(sku), NodeId(node), bucket.expect("ten buckets"));
            }
        }
        units
    }

    /// Allocations of a sku: channel, node, units.
    pub fn allocations(&self, sku: u32) -> Vec<(u16, u16, i64)> {
        let read = Read::Allocations { sku: SkuId(sku), channel: None };
        let answers = self.ledgers.iter().filter_map(|ledger| ledger.read(self.sequencer.last(), &read));
        let shares = answers.flat_map(|answer| match answer {
            Answer::Allocations(shares) => shares,
            other => panic!("{other:?}"),
        });
        shares.map(|share| (share.channel.0, share.node.0, i64::from(share.units))).collect()
    }

    /// What a reservation claims of supplies.
    pub fn waits(&self, id: u128) -> Vec<Waits> {
        let read = Read::Reservation { id: ReservationId(id), scope: None };
        let mut found = Vec::new();
        for ledger in &self.ledgers {
            let Some(Answer::Reservation { claims, .. }) = ledger.read(self.sequencer.last(), &read) else {
                continue;
            };
            let to_come = claims.into_iter().filter(|(claim, _)| claim.pool.is_supply());
            found.extend(to_come.map(|(claim, at)| {
                (claim.sku.0, claim.node.0, at.0, i64::from(claim.quantity), i64::from(claim.held))
            }));
        }
        found.sort_unstable();
        found
    }

    pub fn hash(&self) -> String {
        let mut sum = stockline_core::ledger::StateHash::default();
        for ledger in &self.ledgers {
            sum += ledger.state_hash();
        }
        sum.to_string()
    }

    pub fn assert_sound(&self) {
        assert_eq!(audit(&self.ledgers), Vec::<String>::new());
    }
}
