//! Whether followers keep up: a hundred of them, which gather what happens for 250 ms and for 2 s, beside 50,000 events a
//! second. Told is how far behind the slowest is, and how long after the last event all of them know everything.
//!
//! `cargo run --release -p stockline-benches --example followers -- target/release/stockline`

use std::collections::HashMap;
use std::error::Error;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use stockline_client::catalogue::{Definition, NameKind};
use stockline_client::event::{EventKind, StockEvent};
use stockline_client::id::{Key, Millis, NodeId, SkuId};
use stockline_client::outcome::Code;
use stockline_client::record::EventRec;
use stockline_client::wire::{Availability, Follow, QueryRec};
use stockline_client::{Client, Profile};
use stockline_core::command::{Body, Command as Told};
use tokio::time::{interval, sleep};

type Failure = Box<dyn Error + Send + Sync>;

const FOLLOWERS: usize = 100;
const SKUS: usize = 1_000;
const PER_FRAME: usize = 1_000;
const SECONDS: u64 = 10;
const RATES: [usize; 3] = [150, 10_000, 50_000];
/// Half of them gather as webhooks do.
const GATHER_MS: [u32; 2] = [250, 2_000];
const NUMBERS: u8 = 4;

/// A process, killed when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn event(key: u128, sku: u32, now_ms: u64) -> EventRec {
    let event = StockEvent::new(EventKind::Receipt, SkuId(sku), NodeId(0), 1, Millis(now_ms));
    let told = Told { key: Key(key), issued_at: Millis(0), digest: 0, body: Body::Event(event.clone()) };
    EventRec::new(&told, &event, &mut Vec::new())
}

/// What a follower knows.
#[derive(Default)]
struct Follower {
    next: AtomicU64,
}

async fn follow(
    client: Client,
    gather_ms: u32,
    own: Arc<Follower>,
    until: Arc<AtomicU64>,
) -> Result<HashMap<u32, u64>, Failure> {
    let mut known = HashMap::new();
    let mut from_lsn = own.next.load(Ordering::Relaxed);
    loop {
        let end = until.load(Ordering::Relaxed);
        if from_lsn > end {
            return Ok(known);
        }
        let asked = Follow { from_lsn, channel: 0, what: NUMBERS, wait_ms: 3_000, gather_ms };
        let told = client.follow(&asked).await?;
        known.extend(told.changes.iter().map(|change| (change.sku, change.available)));
        from_lsn = told.next_lsn;
        own.next.store(from_lsn, Ordering::Relaxed);
    }
}

/// Receipts at a rate; answers the last LSN and how many a second they were.
async fn load(client: &Client, rate: usize, first: u128) -> Result<(u64, f64), Failure> {
    let per_frame = PER_FRAME.min((rate / 50).max(1));
    let frames = rate as u64 * SECONDS / per_frame as u64;
    let mut ticks = interval(Duration::from_secs_f64(per_frame as f64 / rate as f64));
    let started = Instant::now();
    let mut sent = Vec::new();
    let mut key = first;
    for _ in 0..frames {
        ticks.tick().await;
        let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as u64;
        let events: Vec<EventRec> = (0..per_frame)
            .map(|_| {
                key += 1;
                event(key, (key % SKUS as u128) as u32, now_ms)
            })
            .collect();
        let client = client.clone();
        sent.push(tokio::spawn(async move { client.tell(events).await }));
    }
    let mut last = 0;
    for sent in sent {
        let outcomes = sent.await??;
        if let Some(wrong) = outcomes.iter().find(|outcome| outcome.code != Code::Ok) {
            return Err(format!("an event was {:?}", wrong.code).into());
        }
        last = last.max(outcomes.iter().map(|outcome| outcome.lsn).max().unwrap_or_default());
    }
    Ok((last, (frames as usize * per_frame) as f64 / started.elapsed().as_secs_f64()))
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let program = std::env::args().nth(1).ok_or("name the program stockline")?;
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    let mut child = Command::new(program)
        .args(["serve", "--quic", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data"])
        .arg(&data)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut line = String::new();
    let stdout = child.stdout.take().ok_or("no output")?;
    let _server = Server(child);
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)?;
    let profile = Profile::load(&data.join("client.toml"))?;
    let client = Client::connect(&profile).await?;
    client.define(&[Definition::node("n", 1), Definition::channel("web")]).await?;
    let names: Vec<String> = (0..SKUS).map(|sku| format!("s{sku}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    client.resolve(NameKind::Sku, &names, true).await?;
    println!("{:>9} {:>10} {:>12} {:>14}", "asked/s", "done/s", "most behind", "caught up after");
    let (mut key, mut begin) = (0, 1);
    for rate in RATES {
        let until = Arc::new(AtomicU64::new(u64::MAX - 1));
        let followers: Vec<Arc<Follower>> = (0..FOLLOWERS).map(|_| Arc::default()).collect();
        let mut tasks = Vec::new();
        for (at, follower) in followers.iter().enumerate() {
            follower.next.store(begin, Ordering::Relaxed);
            let client = Client::connect(&profile).await?;
            let gather_ms = GATHER_MS[at % 2];
            tasks.push(tokio::spawn(follow(client, gather_ms, Arc::clone(follower), Arc::clone(&until))));
        }
        let slowest =
            || followers.iter().map(|one| one.next.load(Ordering::Relaxed)).min().unwrap_or_default();
        let most_behind = Arc::new(AtomicU64::new(0));
        let watch = async {
            loop {
                sleep(Duration::from_millis(100)).await;
                let first = followers.iter().map(|one| one.next.load(Ordering::Relaxed)).max();
                let behind = first.unwrap_or_default().saturating_sub(slowest());
                most_behind.fetch_max(behind, Ordering::Relaxed);
            }
        };
        let (last, done) = tokio::select! {
            done = load(&client, rate, key) => done?,
            () = watch => unreachable!("it goes on"),
        };
        let ended = Instant::now();
        until.store(last, Ordering::Relaxed);
        // Those that wait for more hear of the end with one more event.
        while slowest() <= last {
            sleep(Duration::from_millis(5)).await;
        }
        let caught_up = ended.elapsed();
        // All of them know what a query is told.
        let queries = vec![QueryRec { channel: 0, group: u16::MAX, detail: 0, sku_count: SKUS as u32 }];
        let asked = Availability { queries, skus: (0..SKUS as u32).collect() };
        let due: Vec<u64> =
            client.availability(&asked).await?.items.iter().map(|item| item.available).collect();
        for task in tasks {
            let known = task.await??;
            for (sku, units) in known {
                if due[sku as usize] != units {
                    return Err(
                        format!("a follower knows {units} of s{sku}, not {}", due[sku as usize]).into()
                    );
                }
            }
        }
        let behind = most_behind.load(Ordering::Relaxed);
        println!("{rate:>9} {done:>10.0} {behind:>12} {:>11.0} ms", caught_up.as_secs_f64() * 1_000.0);
        (key, begin) = (key + (rate as u64 * SECONDS) as u128 + 1, last + 1);
    }
    Ok(())
}
