//! What the benches stand on: a ledger with stock, and frames to work on.

use stockline_core::admission::{Window, WindowSize};
use stockline_core::batch::Batch;
use stockline_core::catalogue::{Catalogue, Definition, Rules};
use stockline_core::command::{Body, Command, Fill, Frame, Line, Reserve};
use stockline_core::event::{EventKind, StockEvent};
use stockline_core::id::{
    ChannelId, GroupId, Key, Lsn, Millis, NodeId, PrincipalId, ReservationId, ShardOf, SkuId, ZoneId,
};
use stockline_core::ledger::{Effects, Ledger, Moment, SkuState};
use stockline_core::record::digest;
use stockline_core::sequencer::Sequencer;
use stockline_core::shard::{self, Output};

pub const START: Millis = Millis(1_700_000_000_000);

/// A sequencer and one shard with `skus` positions, all with plenty of stock.
pub struct Ground {
    pub sequencer: Sequencer,
    pub ledger: Ledger,
    skus: u32,
    next: u128,
}

/// A pseudo-random walk over all numbers below `n`: neighbours in time are far apart in memory.
pub fn scatter(at: u128, n: u32) -> u32 {
    (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) as u32 % n
}

impl Ground {
    pub fn new(skus: u32) -> Ground {
        let size = WindowSize { commands: 1 << 20, ms: 3_600_000 };
        let window = Window::new(size, Lsn(1));
        let sequencer = Sequencer::new(Catalogue::default(), window, Lsn::NONE, START, 1);
        let mut ground = Ground { sequencer, ledger: Ledger::new(ShardOf::ALL), skus, next: 1 };
        let node = Definition::node("n", 1);
        let channel = Definition::channel("c");
        let plain = |body| Command { key: Key(0), issued_at: START, digest: 0, body };
        ground.execute(vec![plain(Body::Define(Box::new(node)))], vec![]);
        ground.execute(vec![plain(Body::Define(Box::new(channel)))], vec![]);
        for sku in 0..skus {
            ground.execute(
                vec![plain(Body::Define(Box::new(Definition::Sku { name: format!("s{sku}") })))],
                vec![],
            );
            let event = StockEvent::new(EventKind::Receipt, SkuId(sku), NodeId(0), 1_000_000_000, START);
            ground.execute(vec![plain(Body::Event(event))], vec![]);
        }
        ground
    }

    /// A sku with plenty of stock at the only node.
    pub fn full() -> SkuState {
        let mut ledger = Ledger::new(ShardOf::ALL);
        let event = StockEvent::new(EventKind::Receipt, SkuId(0), NodeId(0), 1_000_000_000, START);
        let body = Body::Event(event);
        let mut effects = Effects::default();
        let moment = Moment { lsn: Lsn(1), now: START };
        let outcome = ledger.decide(moment, &Rules::default(), &body, &[], &mut effects);
        ledger.settle(moment, &body, &[], outcome.expect("it owns the sku").outcome, &effects.movements, &[]);
        ledger.sku_state(SkuId(0))
    }

    /// `count` reservations of one unit of a random sku each.
    pub fn reservations(&mut self, count: usize) -> (Vec<Command>, Vec<Line>) {
        let mut commands = Vec::with_capacity(count);
        let mut lines = Vec::with_capacity(count);
        for first_line in 0..count as u32 {
            self.next += 1;
            let sku = SkuId(scatter(self.next, self.skus));
            lines.push(Line { sku, node: NodeId::ANY, group: GroupId::ANY, quantity: 1 });
            let reserve = Reserve {
                id: ReservationId(self.next),
                channel: ChannelId(0),
                ttl_ms: 600_000,
                fill: Fill::All,
                customer: 0,
                zone: ZoneId::NONE,
                labels: stockline_core::label::Labels::NONE,
                first_line,
                line_count: 1,
            };
            commands.push(Command {
                key: Key(self.next),
                issued_at: START,
                digest: 0,
                body: Body::Reserve(reserve),
            });
        }
        for command in &mut commands {
            command.digest = digest(&command.body, &lines);
        }
        (commands, lines)
    }

    /// Stamps and executes one frame.
    pub fn execute(&mut self, commands: Vec<Command>, lines: Vec<Line>) -> (Batch<()>, Output) {
        let mut batch = self.sequencer.open(START);
        self.sequencer.push(&mut batch, Frame { tag: (), principal: PrincipalId(1), commands, lines });
        let output = shard::run(&mut self.ledger, &batch, |_| {});
        (batch, output)
    }
}
