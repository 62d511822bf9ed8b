//! Scenario torture: random commands of every kind on a few skus from many tasks, over connections that are cut
//! at random, with questions in between; afterwards everything that was answered must have one explanation.
//!
//! Kill, stop or restart the server meanwhile: what was not answered is sent again with the same keys, and the
//! [checker](crate::history) finds out whether anything was lost, doubled or out of order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use stockline_client::catalogue::{self, Definition, NameKind, Policy, Strategy};
use stockline_client::outcome::Code;
use stockline_client::wire::{Availability, PlaceRec, QueryRec};
use stockline_client::{Client, ClientError, Fill, NewReservation, NewStep, Outcome, Profile, Verb};

use crate::chance::{Chance, pick};
use crate::dice::Dice;
use crate::drive::Tally;
use crate::error::LoadError;
use crate::history::{Seen, What, check, is_ordered, leaves_no_trace};
use crate::model::{ANY, Act, ChannelSetup, Due, Effect, Model, Setup, SkuRule};
use crate::report::{AuditReport, OpReport, Report};
use crate::stage::{Progress, labels, resolve};

const SKUS: usize = 8;
const NODES: usize = 3;
const BUFFER: u32 = 5;
/// Units of one sku withheld at some nodes, and percent of what is received of another that a channel gets.
const SAFETY: u32 = 3;
const SHARE: u8 = 30;
/// Holds that a customer may have open.
const CUSTOMER_HOLDS: u32 = 40;
/// Nothing expires: who only sees answers does not know when.
const TTL_LEAST_MS: u32 = 3 * 24 * 3_600_000;
const TTL_MS: u32 = 20 * 24 * 3_600_000;
/// How long to wait for a server that is down at the beginning.
const REACH: Duration = Duration::from_secs(60);
/// Commands in a frame at most.
const FRAME: u64 = 8;
const OPS: [&str; 5] = ["reserve", "step", "event", "allocate", "question"];
const QUESTION: usize = 4;

pub struct TortureSettings {
    pub connections: usize,
    pub in_flight: usize,
    pub seconds: f64,
    pub seed: u64,
    /// Milliseconds between two cuts, on average; 0 for none.
    pub cut_ms: u64,
}

struct Ground {
    chance: Chance,
    setup: Setup,
    started: Instant,
    until: Duration,
    done: AtomicU64,
}

impl Ground {
    fn time(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }
}

async fn define(client: &Client, definitions: &[Definition]) -> Result<(), LoadError> {
    let refused = client.define(definitions).await?.into_iter().find(|outcome| outcome.code != Code::Ok);
    refused.map_or(Ok(()), |outcome| Err(LoadError::Server(format!("definitions: {}", outcome.code.name()))))
}

/// Which skus serve lines of the third.
fn substitutes(skus: &[String]) -> Definition {
    let substitutes = vec![skus[1].clone(), skus[0].clone()];
    Definition::SkuData { name: skus[2].clone(), category: String::new(), substitutes }
}

/// Defines names of this seed's own, so that nobody else has a hand in them.
async fn ground(client: &Client, settings: &TortureSettings) -> Result<Ground, LoadError> {
    let name = |what: &str| format!("torture-{}-{what}", settings.seed);
    let names = |what: &str, count: usize| -> Vec<String> {
        (0..count).map(|index| name(&format!("{what}-{index}"))).collect()
    };
    let (nodes, channels) = (names("node", NODES), names("channel", 3));
    let node = |(index, name): (usize, &String)| Definition::node(name, index as u16 + 1);
    let mut definitions: Vec<Definition> = nodes.iter().enumerate().map(node).collect();
    definitions.push(Definition::Group { name: name("all"), nodes: nodes.clone() });
    definitions.push(Definition::Group { name: name("some"), nodes: nodes[1..].to_vec() });
    for (index, channel) in channels.iter().enumerate() {
        definitions.push(Definition::Channel {
            name: channel.clone(),
            parent: (index > 0).then(|| channels[index - 1].clone()),
            group: Some(name(if index == 1 { "some" } else { "all" })),
            buffer: if index == 2 { BUFFER } else { 0 },
            policy: Policy {
                customer_holds_max: CUSTOMER_HOLDS,
                strategy: [Strategy::Priority, Strategy::HighestStock, Strategy::FewestSplits][index],
                splits_max: if index == 2 { 2 } else { 0 },
                substitutes: index > 0,
                ..Policy::default()
            },
        });
    }
    let sku_names = names("sku", SKUS);
    let rule = |what: &str, sku: &String, node, group, channel, effect| catalogue::Definition::Rule {
        name: name(what),
        skus: sku.clone(),
        category: String::new(),
        node,
        group,
        channel,
        effect,
    };
    let share = catalogue::Effect::Allocate {
        amount: catalogue::Amount::Percent(SHARE),
        when: catalogue::When::Receipt,
    };
    let safety = catalogue::Effect::Safety(SAFETY);
    definitions.push(rule("safety", &sku_names[0], None, Some(name("some")), None, safety));
    let (node, channel) = (Some(nodes[0].clone()), Some(channels[2].clone()));
    definitions.push(rule("share", &sku_names[1], node, None, channel, share));
    define(client, &definitions).await?;
    let short = |ids: Vec<u32>| -> Vec<u16> { ids.into_iter().map(|id| id as u16).collect() };
    let skus = resolve(client, NameKind::Sku, &sku_names).await?;
    define(client, &[substitutes(&sku_names)]).await?;
    let nodes = short(resolve(client, NameKind::Node, &nodes).await?);
    let groups = short(resolve(client, NameKind::Group, &[name("all"), name("some")]).await?);
    let channels = short(resolve(client, NameKind::Channel, &channels).await?);
    let of = |index: usize| ChannelSetup {
        parent: (index > 0).then(|| channels[index - 1]),
        group: Some(groups[usize::from(index == 1)]),
        buffer: if index == 2 { i64::from(BUFFER) } else { 0 },
        customer_holds_max: CUSTOMER_HOLDS as usize,
        strategy: [0, 3, 2][index],
        splits_max: if index == 2 { 2 } else { 0 },
        substitutes: index > 0,
        ..ChannelSetup::default()
    };
    let setup = Setup {
        skus: skus.iter().max().map_or(0, |most| most + 1),
        nodes: nodes.iter().enumerate().map(|(index, node)| (*node, index as u16 + 1)).collect(),
        groups: BTreeMap::from([
            (groups[0], nodes.iter().copied().collect::<BTreeSet<u16>>()),
            (groups[1], nodes[1..].iter().copied().collect()),
        ]),
        channels: channels.iter().enumerate().map(|(index, channel)| (*channel, of(index))).collect(),
        zones: BTreeMap::new(),
        substitutes: BTreeMap::new(),
        sku_substitutes: BTreeMap::from([(skus[2], vec![skus[1], skus[0]])]),
        days: BTreeMap::new(),
        names: skus.iter().copied().zip(sku_names.iter().map(|name| (name.clone(), String::new()))).collect(),
        rules: vec![
            SkuRule {
                skus: sku_names[0].clone(),
                category: String::new(),
                node: None,
                group: Some(groups[1]),
                channel: None,
                effect: Effect::Safety(i64::from(SAFETY)),
            },
            SkuRule {
                skus: sku_names[1].clone(),
                category: String::new(),
                node: Some(nodes[0]),
                group: None,
                channel: Some(channels[2]),
                effect: Effect::Allocate { amount: i64::from(SHARE), percent: true, every: None },
            },
        ],
    };
    let chance = Chance {
        skus,
        group: (groups[1], nodes[1..].to_vec()),
        claimed: vec![groups[0], groups[1], ANY],
        nodes,
        channels,
        zones: Vec::new(),
        ttl_least_ms: TTL_LEAST_MS,
        ttl_ms: TTL_MS,
        clock_known: false,
    };
    let until = Duration::from_secs_f64(settings.seconds);
    Ok(Ground { chance, setup, started: Instant::now(), until, done: AtomicU64::new(0) })
}

/// Connects to a server that may be down just now.
async fn reach(profile: &Profile) -> Result<Client, ClientError> {
    let started = Instant::now();
    loop {
        match Client::connect(profile).await {
            Err(ClientError::Unreachable(_)) if started.elapsed() < REACH => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            other => return other,
        }
    }
}

/// What one task saw.
#[derive(Default)]
struct Log {
    seen: Vec<Seen>,
    /// By operation, with how many lines it had.
    times: Vec<(usize, usize, Duration)>,
}

pub async fn run(profile: &Profile, settings: &TortureSettings) -> Result<Report, LoadError> {
    let mut clients = Vec::new();
    for _ in 0..settings.connections {
        clients.push(reach(profile).await?);
    }
    let ground = Arc::new(ground(&clients[0], settings).await?);
    let tasks: Vec<_> = (0..settings.in_flight)
        .map(|task| {
            let (client, ground) = (clients[task % clients.len()].clone(), Arc::clone(&ground));
            let seed = (settings.seed << 20) | (task as u64 + 1);
            tokio::spawn(async move { torment(&client, &ground, seed).await })
        })
        .collect();
    let cutter = (settings.cut_ms > 0).then(|| {
        let (clients, cut_ms, mut dice) = (clients.clone(), settings.cut_ms, Dice::new(settings.seed));
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(pick(&mut dice, 2 * cut_ms) + 1)).await;
                clients[pick(&mut dice, clients.len() as u64) as usize].cut();
            }
        })
    });
    let mut progress = Progress::new("torture, seconds");
    let mut logs = Vec::new();
    for task in tasks {
        while !task.is_finished() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            progress.at(ground.started.elapsed().as_secs() as usize, settings.seconds as usize);
        }
        logs.push(task.await.map_err(|error| LoadError::Server(error.to_string()))??);
    }
    if let Some(cutter) = cutter {
        cutter.abort();
    }
    progress.end(ground.done.load(Ordering::Relaxed) as usize);
    let time = ground.started.elapsed();
    let times: Vec<_> = logs.iter_mut().flat_map(|log| std::mem::take(&mut log.times)).collect();
    let history = logs.into_iter().flat_map(|log| log.seen).collect();
    let audit = audit(&clients[0], &ground, history).await?;
    Ok(report(settings, &times, time, audit))
}

/// One task: one command or frame after another, until time is over.
async fn torment(client: &Client, ground: &Ground, seed: u64) -> Result<Log, ClientError> {
    let mut dice = Dice::new(seed);
    let mut log = Log::default();
    let (base, mut last) = (u128::from(seed) << 64, 0);
    let mut next_key = u128::from(seed) << 64 | 1 << 63;
    while ground.started.elapsed() < ground.until {
        if pick(&mut dice, 4) == 0 {
            ask(client, ground, &mut dice, &mut log).await?;
            continue;
        }
        // Commands of one kind go into one frame.
        let mut acts: Vec<Act> = Vec::new();
        for _ in 0..=pick(&mut dice, FRAME) {
            let act = ground.chance.act(&mut dice, base, &mut last, client.now_ms());
            if acts.first().is_none_or(|first| op(first) == op(&act)) {
                acts.push(act);
            }
        }
        let sent = ground.time();
        let outcomes = send(client, &acts, &mut next_key).await?;
        let replied = ground.time();
        log.times.push((op(&acts[0]), acts.len(), Duration::from_nanos(replied - sent)));
        ground.done.fetch_add(acts.len() as u64, Ordering::Relaxed);
        for (act, outcome) in acts.into_iter().zip(outcomes) {
            if !is_ordered(outcome.code) {
                return Err(ClientError::Protocol(format!("{act:?} got {}", outcome.code.name())));
            }
            if leaves_no_trace(&act, outcome.code) {
                log.seen.push(Seen {
                    sent,
                    replied,
                    lsn: 0,
                    what: What::Refused { act, code: outcome.code },
                });
                continue;
            }
            let answer = Some(Due {
                code: outcome.code,
                state: outcome.state,
                late: outcome.late,
                expires_at_ms: outcome.expires_at_ms,
                parts: outcome.parts,
            });
            log.seen.push(Seen {
                sent,
                replied,
                lsn: outcome.lsn,
                what: What::Command { act, now_ms: None, answer },
            });
        }
    }
    Ok(log)
}

fn op(act: &Act) -> usize {
    match act {
        Act::Reserve { .. } => 0,
        Act::Step { .. } => 1,
        Act::Allocate(_) => 3,
        _ => 2,
    }
}

async fn send(client: &Client, acts: &[Act], next_key: &mut u128) -> Result<Vec<Outcome>, ClientError> {
    let mut key = || {
        *next_key += 1;
        *next_key
    };
    let (mut reservations, mut steps, mut events) = (Vec::new(), Vec::new(), Vec::new());
    let mut allocations = Vec::new();
    for act in acts {
        match act.clone() {
            Act::Reserve { id, channel, ttl_ms, partial, customer, zone, lines } => {
                let fill = if partial { Fill::Partial } else { Fill::All };
                reservations.push(NewReservation {
                    id,
                    channel,
                    ttl_ms,
                    fill,
                    customer,
                    zone,
                    labels: labels(id),
                    lines,
                });
            }
            Act::Step { id, verb, ttl_ms, lines } => {
                let verb = Verb::from_number(verb).expect("verbs are 1 to 5");
                steps.push(NewStep { key: key(), reservation: id, verb, ttl_ms, lines });
            }
            Act::Event(mut event) => {
                event.key = key();
                events.push(*event);
            }
            Act::Allocate(mut allocate) => {
                allocate.key = key();
                allocations.push(allocate);
            }
            Act::Expire { .. }
            | Act::Balance { .. }
            | Act::Rule { .. }
            | Act::SkuRule { .. }
            | Act::Day { .. } => {
                unreachable!("only the system does these")
            }
        }
    }
    match op(&acts[0]) {
        0 => client.reserve(&reservations).await,
        1 => client.transition(&steps).await,
        3 => client.allocate(allocations).await,
        _ => client.tell(events).await,
    }
}

async fn ask(client: &Client, ground: &Ground, dice: &mut Dice, log: &mut Log) -> Result<(), ClientError> {
    let channels = &ground.chance.channels;
    let channel = channels[pick(dice, channels.len() as u64) as usize];
    let question = Availability {
        queries: vec![QueryRec { channel, group: u16::MAX, sku_count: SKUS as u32, detail: 0 }],
        skus: ground.chance.skus.clone(),
    };
    let sent = ground.time();
    let answer = client.availability(&question).await?;
    let replied = ground.time();
    log.times.push((QUESTION, SKUS, Duration::from_nanos(replied - sent)));
    let told = ground.chance.skus.iter().zip(&answer.items);
    let told = told.map(|(sku, item)| (*sku, item.available as i64)).collect();
    let what = What::Question { channel, told };
    log.seen.push(Seen { sent, replied, lsn: answer.as_of_lsn, what });
    Ok(())
}

/// Explains the history, then compares every position.
async fn audit(client: &Client, ground: &Ground, mut history: Vec<Seen>) -> Result<AuditReport, LoadError> {
    let mut tally = Tally { checked: history.len() as u64, ..Tally::default() };
    let mut model = Model::new(ground.setup.clone());
    for wrong in check(&mut model, &mut history) {
        tally.wrong(|| wrong);
    }
    let nodes = &ground.chance.nodes;
    let places: Vec<PlaceRec> = ground
        .chance
        .skus
        .iter()
        .flat_map(|sku| nodes.iter().map(|node| PlaceRec { sku: *sku, node: *node }))
        .collect();
    for (place, found) in places.iter().zip(client.positions(&places).await?) {
        tally.checked += 1;
        let due = model.units(place.sku, place.node);
        if found.units != due {
            tally.wrong(|| format!("{place:?}: {:?}, should be {due:?}", found.units));
        }
    }
    for sku in &ground.chance.skus {
        let found = client.allocations(None, &[*sku]).await?;
        let found: Vec<_> =
            found[0].iter().map(|share| (share.channel, share.node, i64::from(share.units))).collect();
        tally.checked += 1;
        let due = model.allocations(*sku);
        if found != due {
            tally.wrong(|| format!("allocations of sku {sku}: {found:?}, should be {due:?}"));
        }
    }
    Ok(AuditReport {
        ok: tally.wrong == 0,
        checked: tally.checked,
        wrong: tally.wrong,
        findings: tally.wrongs,
    })
}

fn report(
    settings: &TortureSettings,
    times: &[(usize, usize, Duration)],
    time: Duration,
    audit: AuditReport,
) -> Report {
    let mut tallies = vec![Tally::default(); OPS.len()];
    for (op, lines, took) in times {
        tallies[*op].times_us.saturating_record(took.as_micros() as u64);
        tallies[*op].frames += 1;
        tallies[*op].lines += *lines as u64;
    }
    Report {
        scenario: "torture".into(),
        seconds: time.as_secs_f64(),
        connections: settings.connections,
        in_flight: settings.in_flight,
        batch: FRAME as usize,
        offered_per_s: None,
        results: OPS.iter().zip(&tallies).map(|(op, tally)| OpReport::of(op, tally, time)).collect(),
        floor: None,
        skipped: Vec::new(),
        audit,
    }
}
