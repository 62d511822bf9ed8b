//! The whole engine in one thread, from a seed: sequencer, shards that run at different paces and vote,
//! group commit, journal and snapshot under the real redb on disks that lose power and fail, view, fold, trim,
//! recovery, expiry, idempotency window, a scripted clock, and clients whose connections are cut.
//!
//! Everything durable is checked afterwards by the reference model in the order of LSNs, everything answered by
//! what is durable. The same seed gives the same bytes.

mod clients;
mod engine;

use stockline_core::catalogue::{LateConfirm, Policy, Unannounced};
use stockline_core::id::{Lsn, Millis};
use stockline_core::journal;
use stockline_core::ledger::{StateHash, audit};
use stockline_core::recovery::recover;
use stockline_core::verify::verify;
use stockline_loadgen::chance::pick;
use stockline_loadgen::dice::Dice;
use stockline_loadgen::history::{NEVER, Seen, What, check};
use stockline_loadgen::model::{Act, ChannelSetup, Model};
use xxhash_rust::xxh3::Xxh3;

use crate::bench::{START, definitions, sku_rules};
use crate::chance::{due_of_entry, setup_with_sku_rules};
use crate::disk::{Disk, Fault, MANNERS};
use crate::rounds::rounds;
use clients::Clients;
use engine::{SimEngine, WALL_AHEAD_MS, WINDOW};

/// What happened, for the report.
#[derive(Default, Debug)]
struct Counts {
    commands: u64,
    power_cuts: u64,
    kills: u64,
    io_errors: u64,
    recoveries: u64,
    cut_recoveries: u64,
    folds: u64,
    lost_replies: u64,
}

struct Simulation {
    dice: Dice,
    now: Millis,
    /// Grows with every step: the time of the history.
    step: u64,
    journal_disk: Disk,
    snapshot_disk: Disk,
    clients: Clients,
    questions: Vec<Seen>,
    /// Every journal record known to be durable, by first LSN.
    records: Vec<(Lsn, Vec<u8>)>,
    counts: Counts,
    print: Xxh3,
}

/// Why an engine is gone.
enum End {
    /// A disk did not do what it should.
    Failed,
    /// As chance has it.
    Killed,
}

impl Simulation {
    fn new(seed: u64) -> Simulation {
        let mut dice = Dice::new(seed);
        let (journal_disk, snapshot_disk) = (Disk::default(), Disk::default());
        let mut simulation = Simulation {
            now: START.plus(pick(&mut dice, 1_000)),
            dice,
            step: 1,
            journal_disk,
            snapshot_disk,
            clients: Clients::new(),
            questions: Vec::new(),
            records: Vec::new(),
            counts: Counts::default(),
            print: Xxh3::new(),
        };
        // The catalogue is there before anything can fail.
        let (journal, snapshot) = (&simulation.journal_disk, &simulation.snapshot_disk);
        let mut engine = SimEngine::start(journal, snapshot, 1, true).expect("good disks");
        let definitions = definitions().into_iter().chain(sku_rules());
        definitions.for_each(|definition| engine.submit(clients::define(definition)));
        simulation.settle(&mut engine);
        simulation
    }

    /// Lets the engine finish what it has.
    fn settle(&mut self, engine: &mut SimEngine) {
        for _ in 0..40 {
            self.step += 1;
            engine.sequence(&mut self.dice, self.now);
            while (0..4).any(|shard| engine.run_shard(shard)) {}
            let written = engine.commit(&mut self.dice, |frame, reply| {
                self.clients.hear(frame, reply, (self.step, self.now), &mut self.print);
            });
            written.expect("good disks");
        }
        self.adopt(engine);
    }

    /// Recovers, perhaps after being cut in recovery a few times.
    fn start(&mut self) -> SimEngine {
        loop {
            let shards = [1, 1, 2, 4][pick(&mut self.dice, 4) as usize];
            let retain = pick(&mut self.dice, 2) == 0;
            let risky = pick(&mut self.dice, 3) == 0;
            if risky {
                let op = pick(&mut self.dice, 12);
                let disk =
                    if pick(&mut self.dice, 2) == 0 { &self.journal_disk } else { &self.snapshot_disk };
                disk.fail_at(op, Fault::Power);
            }
            self.counts.recoveries += 1;
            match SimEngine::start(&self.journal_disk, &self.snapshot_disk, shards, retain) {
                Ok(engine) => {
                    self.adopt(&engine);
                    return engine;
                }
                Err(error) => {
                    let failed = self.journal_disk.has_failed() || self.snapshot_disk.has_failed();
                    assert!(failed, "recovery fails on good disks: {error}");
                    self.counts.cut_recoveries += 1;
                    self.after(&End::Failed);
                }
            }
        }
    }

    /// Compares what recovery found with what is known, and takes over a record whose commit was cut.
    fn adopt(&mut self, engine: &SimEngine) {
        let known = self.last_known();
        let found = engine.last();
        assert!(
            found >= self.clients.last_answered(),
            "answered up to LSN {}, recovered {found}",
            self.clients.last_answered()
        );
        assert!(found >= known, "written up to LSN {known}, recovered {found}");
        if found > known {
            let scanned = engine.reader().scan(known.next(), &mut |first, bytes| {
                assert_eq!(first, self.last_known().next(), "a record is there whole or not at all");
                self.records.push((first, bytes.to_vec()));
                Ok(true)
            });
            scanned.expect("reads what was recovered");
            assert_eq!(self.last_known(), found);
        }
    }

    fn last_known(&self) -> Lsn {
        self.records.last().map_or(Lsn::NONE, |(first, bytes)| {
            journal::decode(*first, bytes).expect("a record just read").last().expect("not empty")
        })
    }

    /// Replaces both disks by what is found on them.
    fn after(&mut self, end: &End) {
        let failed = self.journal_disk.has_failed() || self.snapshot_disk.has_failed();
        // After a power cut, or an error, which may be followed by one. A killed process leaves the cache.
        let cut = failed || pick(&mut self.dice, 2) == 0;
        if cut {
            self.counts.power_cuts += 1;
            for disk in [&mut self.journal_disk, &mut self.snapshot_disk] {
                let manner = MANNERS[pick(&mut self.dice, 4) as usize];
                *disk = disk.cut(manner, &mut self.dice);
            }
        } else {
            if matches!(end, End::Killed) {
                self.counts.kills += 1;
            }
            self.journal_disk = self.journal_disk.restart();
            self.snapshot_disk = self.snapshot_disk.restart();
        }
        self.clients.cut_all(self.now);
    }

    /// Runs one engine until it ends, or until enough commands were sent.
    fn live(&mut self, engine: &mut SimEngine, enough: u64) -> Option<End> {
        let patience = pick(&mut self.dice, 4_000);
        for _ in 0..patience {
            if self.clients.sent() >= enough {
                return None;
            }
            self.step += 1;
            let acted = self.act(engine);
            if let Err(error) = acted {
                let failed = self.journal_disk.has_failed() || self.snapshot_disk.has_failed();
                assert!(failed, "the engine fails on good disks: {error}");
                self.counts.io_errors += 1;
                return Some(End::Failed);
            }
        }
        Some(End::Killed)
    }

    fn act(&mut self, engine: &mut SimEngine) -> Result<(), String> {
        match pick(&mut self.dice, 40) {
            0..10 => {
                let frame = self.clients.send(&mut self.dice, self.step, self.now);
                if let Some(frame) = frame {
                    engine.submit(frame);
                }
            }
            10..16 => engine.sequence(&mut self.dice, self.now),
            16..28 => {
                let shard = pick(&mut self.dice, 4) as usize;
                engine.run_shard(shard);
            }
            28..33 => {
                let before = engine.last();
                let written = engine.commit(&mut self.dice, |frame, reply| {
                    self.clients.hear(frame, reply, (self.step, self.now), &mut self.print);
                });
                if let Err(error) = written {
                    assert!(engine.commit_again().is_err(), "it goes on after an error on the journal");
                    return Err(error.to_string());
                }
                if engine.last() > before {
                    self.adopt(engine);
                }
            }
            33..36 => self.ask(engine),
            36 if engine.fold().map_err(|error| error.to_string())? => {
                self.counts.folds += 1;
            }
            37 => self.pass_time(),
            38 if pick(&mut self.dice, 6) == 0 => {
                self.counts.lost_replies += self.clients.cut_one(&mut self.dice)
            }
            39 if pick(&mut self.dice, 12) == 0 => self.plan_fault(),
            _ => {}
        }
        Ok(())
    }

    fn pass_time(&mut self) {
        let ms = match pick(&mut self.dice, 200) {
            0 => 3_600_000,
            1 => 20_000,
            2..20 => pick(&mut self.dice, 2_000),
            _ => pick(&mut self.dice, 60),
        };
        self.now = self.now.plus(ms);
    }

    fn plan_fault(&mut self) {
        let disk = if pick(&mut self.dice, 3) == 0 { &self.snapshot_disk } else { &self.journal_disk };
        let fault = [Fault::Power, Fault::Power, Fault::Io, Fault::Short][pick(&mut self.dice, 4) as usize];
        disk.fail_at(disk.ops() + pick(&mut self.dice, 40), fault);
    }

    /// Asks for all skus, as a storefront does.
    fn ask(&mut self, engine: &SimEngine) {
        let channel = pick(&mut self.dice, 3) as u16;
        let (lsn, told) = engine.ask(channel, 0..6);
        self.print.update(&lsn.0.to_le_bytes());
        self.questions.push(Seen {
            sent: self.step,
            replied: self.step,
            lsn: lsn.0,
            what: What::Question { channel, told },
        });
    }

    /// Everything durable, and everything asked, as one history.
    fn history(&mut self) -> Vec<Seen> {
        let mut history = std::mem::take(&mut self.questions);
        history.extend(self.clients.refused());
        for (first, bytes) in &self.records {
            let decoded = journal::decode(*first, bytes).expect("a record read before");
            for entry in &decoded.entries {
                history.extend(self.clients.seen(&decoded, entry));
            }
        }
        history
    }

    fn finish(&mut self, mut engine: SimEngine) {
        // No more faults; everybody gets their answers, and every hold comes to its end.
        for disk in [&self.journal_disk, &self.snapshot_disk] {
            disk.fail_at(u64::MAX, Fault::Power);
        }
        for hours in [0, 1, 1] {
            self.now = self.now.plus(hours * 3_600_000);
            self.settle(&mut engine);
        }
        assert!(engine.is_idle());
        self.ask(&engine);
        while engine.fold().expect("good disks") {}
        let mut history = self.history();
        let mut model = Model::new(setup_with_sku_rules());
        model.wall_ahead_ms = WALL_AHEAD_MS;
        let wrong = check(&mut model, &mut history);
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert_eq!(model.overdue(self.now.0), Vec::<u128>::new(), "holds that never end");
        engine.compare(&model);

        let hash = engine.hash();
        let last = engine.last();
        assert_eq!(engine.audit(), Vec::<String>::new());
        drop(engine);
        // What a start would find, with any number of shards, and what doing it all again gives.
        let (journal, snapshot) = engine::open(&self.journal_disk, &self.snapshot_disk, true).expect("opens");
        let reader = stockline_core::journal::Journal::reader(&journal);
        for shards in [1, 3] {
            let recovered = recover(&snapshot, &*reader, shards, WINDOW).expect("recovers");
            let mut found = StateHash::default();
            recovered.ledgers.iter().for_each(|ledger| found += ledger.state_hash());
            assert_eq!((found.to_string(), recovered.last), (hash.clone(), last));
            assert_eq!(audit(&recovered.ledgers), Vec::<String>::new());
        }
        let report = verify(&snapshot, &*reader, None).expect("verifies");
        assert_eq!(report.wrong, Vec::<String>::new());
        self.print.update(&self.journal_disk.image());
        self.print.update(&self.snapshot_disk.image());
    }
}

/// Plays a seed; answers what happened and a fingerprint of all bytes written and told.
fn play(seed: u64, commands: u64) -> (Counts, u64) {
    let mut simulation = Simulation::new(seed);
    loop {
        let mut engine = simulation.start();
        match simulation.live(&mut engine, commands) {
            Some(end) => {
                drop(engine);
                simulation.after(&end);
            }
            None => {
                simulation.finish(engine);
                break;
            }
        }
    }
    simulation.counts.commands = simulation.clients.sent();
    (simulation.counts, simulation.print.digest())
}

#[test]
fn what_was_acknowledged_stays_and_everything_has_one_explanation() {
    let mut all = Counts::default();
    rounds("simulation::what_was", "commands", 200, |seed| {
        let (counts, _) = play(seed, 20_000);
        all.commands += counts.commands;
        all.power_cuts += counts.power_cuts;
        all.kills += counts.kills;
        all.io_errors += counts.io_errors;
        all.recoveries += counts.recoveries;
        all.cut_recoveries += counts.cut_recoveries;
        all.folds += counts.folds;
        all.lost_replies += counts.lost_replies;
        counts.commands
    });
    println!("{all:?}");
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for seed in [1, 2] {
        assert_eq!(play(seed, 3_000).1, play(seed, 3_000).1, "seed {seed}");
    }
}

/// A rule as the history has it.
fn rule(channel: u16, parent: Option<&str>, buffer: u32, policy: &Policy) -> Act {
    let setup = ChannelSetup {
        parent: parent.map(|parent| u16::from(parent.as_bytes()[1] - b'0')),
        group: if channel == 1 { Some(0) } else { None },
        buffer: i64::from(buffer),
        reacquires: policy.late_confirm == LateConfirm::Reacquire,
        holds_max: policy.holds_max as usize,
        customer_holds_max: policy.customer_holds_max as usize,
        cap: i64::from(policy.cap),
        strategy: policy.strategy as u8,
        splits_max: usize::from(policy.splits_max),
        priority: policy.priority,
        passes: policy.unannounced == Unannounced::All,
        substitutes: policy.substitutes,
    };
    Act::Rule { channel, setup }
}

/// Somebody nobody waits for: the system's own commands.
fn system(lsn: Lsn, now_ms: u64, act: Act, decoded: &journal::Decoded, entry: &journal::Entry) -> Seen {
    let answer = match act {
        Act::Rule { .. } | Act::SkuRule { .. } | Act::Day { .. } => None,
        _ => Some(due_of_entry(decoded, entry)),
    };
    Seen { sent: 0, replied: NEVER, lsn: lsn.0, what: What::Command { act, now_ms: Some(now_ms), answer } }
}
