//! Attackers on the QUIC face, run by `bin/attacker.rs` in a process of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use stockline_client::{Connection, FrameSink, FrameSource, Profile, connect};
use stockline_core::limit;
use stockline_core::outcome::Code;
use stockline_core::record::{LineRec, ReserveRec};
use stockline_core::wire::{
    self, ArchivedRefusal, ArchivedResults, Availability, FrameType, QueryRec, Reservations,
};
use stockline_loadgen::dice::Dice;
use tokio::task::JoinHandle;

/// So long a wait means that the server hangs.
pub const HANG: Duration = Duration::from_secs(60);

/// What a flood of keys was told.
#[derive(Default)]
pub struct Told {
    pub granted: AtomicU64,
    pub turned_away: AtomicU64,
}

/// Begins the attack of that name with a token's profile; `None` if there is none.
pub fn begin(name: &str, profile: &Profile, sku: u32, told: &Arc<Told>) -> Option<Vec<JoinHandle<()>>> {
    let profile = || profile.clone();
    Some(match name {
        "garbage" => many(8, |number| garbage(profile(), number)),
        "oversized" => many(8, |number| oversized(profile(), number)),
        "truncated" => many(64, |_| truncated(profile())),
        "stalled" => many(32, |_| stalled(profile(), sku)),
        "silent" => many(300, |_| silent(profile())),
        "handshakes" => many(8, |number| handshakes(profile(), number)),
        "keys" => many(4, |number| keys(profile(), number, sku, 50, Arc::clone(told))),
        "large" => {
            many(4, |number| keys(profile(), number, sku, limit::FRAME_COMMANDS_MAX, Arc::clone(told)))
        }
        _ => return None,
    })
}

/// As many tasks of one kind.
fn many<F>(count: u64, attack: impl Fn(u64) -> F) -> Vec<JoinHandle<()>>
where
    F: Future<Output = ()> + Send + 'static,
{
    (0..count).map(|number| tokio::spawn(attack(number))).collect()
}

/// Waits for what the server says last; the refusal's code.
async fn turned_away(source: &mut FrameSource) -> Option<Code> {
    loop {
        match source.next_frame() {
            Ok(Some(frame)) if frame.kind == FrameType::Refusal => {
                let refusal = wire::access::<ArchivedRefusal>(frame.archive).expect("a refusal");
                return Code::from_number(refusal.code);
            }
            Ok(Some(_)) => {}
            Ok(None) => source.receive().await.ok()?,
            Err(_) => return None,
        }
    }
}

pub async fn signed_in(profile: &Profile) -> (FrameSink, FrameSource) {
    loop {
        if let Ok(connection) = Connection::open(profile).await {
            return (connection.sink, connection.source);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Random bytes, before and after the sign-in.
async fn garbage(profile: Profile, seed: u64) {
    let mut dice = Dice::new(seed);
    loop {
        let bytes: Vec<u8> = (0..dice.roll() % 3_000).map(|_| dice.roll() as u8).collect();
        let opened = if dice.roll().is_multiple_of(2) {
            connect(&profile).await.ok()
        } else {
            Some(signed_in(&profile).await)
        };
        let Some((mut sink, mut source)) = opened else { continue };
        // It may be closed while this is sent.
        let _ = sink.send(&bytes).await;
        sink.finish();
        let _ = tokio::time::timeout(Duration::from_secs(10), turned_away(&mut source)).await;
    }
}

/// Frames said to be longer than any may be.
async fn oversized(profile: Profile, number: u64) {
    loop {
        one_oversized(&profile, number).await;
    }
}

/// One of them; by a stranger if the number is even. It is told at once, and nobody waits for its bytes.
pub async fn one_oversized(profile: &Profile, number: u64) {
    let stranger = number.is_multiple_of(2);
    let (mut sink, mut source) = if stranger {
        let Ok(opened) = connect(profile).await else { return };
        opened
    } else {
        signed_in(profile).await
    };
    let length = if stranger { limit::SIGN_IN_BYTES_MAX as u32 + 1 } else { u32::MAX };
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend_from_slice(&[1, 1, 0, 0, 9, 0, 0, 0]);
    sink.send(&bytes).await.expect("sent");
    let told = tokio::time::timeout(HANG, turned_away(&mut source)).await;
    assert_eq!(told.expect("it is told at once"), Some(Code::Malformed));
}

/// Half a frame, and then nothing.
async fn truncated(profile: Profile) {
    let (mut sink, mut source) = signed_in(&profile).await;
    let mut frame = Vec::new();
    wire::encode(&mut frame, FrameType::Reserve, 1, &Reservations::default());
    frame.truncate(frame.len() / 2);
    sink.send(&frame).await.expect("sent");
    // The connection is kept alive, and nothing comes.
    while source.receive().await.is_ok() {}
}

/// Questions with large answers that are never read.
async fn stalled(profile: Profile, sku: u32) {
    let (mut sink, _source) = signed_in(&profile).await;
    let question = Availability {
        queries: vec![QueryRec { channel: 1, group: u16::MAX, sku_count: 8_000, detail: 1 }],
        skus: vec![sku; 8_000],
    };
    let mut frame = Vec::new();
    wire::encode(&mut frame, FrameType::Availability, 1, &question);
    while sink.send(&frame).await.is_ok() {}
    std::future::pending::<()>().await;
}

/// Connections that never sign in; the server ends them.
async fn silent(profile: Profile) {
    loop {
        let Ok((_sink, mut source)) = connect(&profile).await else { continue };
        let ended = tokio::time::timeout(HANG, source.receive()).await;
        assert!(ended.expect("the server lets go of who says nothing").is_err());
    }
}

/// Handshakes that are begun and dropped, and datagrams that mean nothing.
async fn handshakes(profile: Profile, seed: u64) {
    let mut dice = Dice::new(seed);
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    loop {
        let _ = tokio::time::timeout(Duration::from_micros(dice.roll() % 2_000), connect(&profile)).await;
        for _ in 0..20 {
            // Long headers of version 1, so that they are looked at.
            let mut bytes: Vec<u8> = (0..1_200).map(|_| dice.roll() as u8).collect();
            bytes[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]);
            let _ = socket.send_to(&bytes, &profile.quic).await;
        }
        tokio::task::yield_now().await;
    }
}

/// Reservations with ever new ids, as many of them ahead of the answers as can be.
async fn keys(profile: Profile, number: u64, sku: u32, batch: usize, told: Arc<Told>) {
    let connection = loop {
        if let Ok(connection) = Connection::open(&profile).await {
            break connection;
        }
    };
    let (mut sink, mut source) = (connection.sink, connection.source);
    let issued_at_ms = connection.welcome.now_ms;
    let reader = async move {
        loop {
            match source.next_frame() {
                Ok(Some(frame)) if frame.kind == FrameType::Results => {
                    let results = wire::access::<ArchivedResults>(frame.archive).expect("results");
                    let held = results.results.iter().filter(|result| result.code == Code::Ok as u8);
                    told.granted.fetch_add(held.count() as u64, Ordering::Relaxed);
                }
                Ok(Some(frame)) => {
                    let refusal = wire::access::<ArchivedRefusal>(frame.archive).expect("a refusal");
                    assert_eq!(refusal.code, Code::Overloaded as u8, "the only reason to turn it away");
                    told.turned_away.fetch_add(1, Ordering::Relaxed);
                }
                Ok(None) => {
                    if source.receive().await.is_err() {
                        return;
                    }
                }
                Err(error) => panic!("{error}"),
            }
        }
    };
    let writer = async move {
        let mut id = u128::from(number + 1) << 64;
        let mut frame = Vec::new();
        loop {
            let mut body = Reservations::default();
            for _ in 0..batch {
                id += 1;
                body.reservations.push(ReserveRec {
                    key: id,
                    issued_at_ms,
                    id,
                    channel: 1,
                    ttl_ms: 3_600_000,
                    fill: 0,
                    customer: 0,
                    zone: u16::MAX,
                    line_count: 1,
                    label_count: 0,
                });
                body.lines.push(LineRec { sku, node: u16::MAX, group: u16::MAX, quantity: 1 });
            }
            frame.clear();
            wire::encode(&mut frame, FrameType::Reserve, 1, &body);
            if sink.send(&frame).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(reader, writer);
}
