//! Floors: what this machine allows. A bare QUIC echo between two processes with the scenario's frame sizes,
//! connections and frames in flight, `fdatasync` where the data will be, and look-ups in memory.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, ServerConfig, TransportConfig, VarInt};
use rustls::pki_types::PrivateKeyDer;
use stockline_client::wire::{self, Availability, FrameType, QueryRec, RawFrame};
use stockline_client::{Profile, connect};

use crate::dice::Dice;
use crate::drive::{Load, Pace, Tally, drive};
use crate::error::LoadError;
use crate::report::FloorReport;

fn floor(error: impl std::fmt::Display) -> LoadError {
    LoadError::Floor(error.to_string())
}

/// What the echo resembles.
#[derive(Clone, Debug)]
pub struct FloorShape {
    pub connections: usize,
    pub in_flight: usize,
    /// Skus in a frame: its size is that of an availability question for as many.
    pub batch: usize,
    pub seconds: f64,
}

struct Echo {
    skus: Vec<u32>,
}

impl Load for Echo {
    fn next(&mut self, request: u32, out: &mut Vec<u8>) -> u64 {
        let count = self.skus.len() as u32;
        let query = QueryRec { channel: 0, group: u16::MAX, detail: 0, sku_count: count };
        let body = Availability { queries: vec![query], skus: self.skus.clone() };
        wire::encode(out, FrameType::Availability, request, &body);
        u64::from(count)
    }

    fn check(&mut self, frame: RawFrame<'_>, tally: &mut Tally) {
        tally.checked += 1;
        if frame.kind != FrameType::Availability {
            tally.wrong(|| format!("the echo answered {:?}", frame.kind));
        }
    }
}

/// Measures all floors; `data` is where `fdatasync` is timed.
pub async fn measure(shape: &FloorShape, data: &Path) -> Result<FloorReport, LoadError> {
    let program = std::env::current_exe().map_err(floor)?;
    let mut child = Command::new(program)
        .arg("echo-server")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(floor)?;
    let stdout = child.stdout.take().ok_or_else(|| floor("the echo has no output"))?;
    let mut lines = BufReader::new(stdout).lines();
    let mut line = || lines.next().unwrap_or_else(|| Ok(String::new())).map_err(floor);
    let (address, ca) = (line()?, line()?);
    let measured = echo(shape, &address, &ca).await;
    // The echo ends by itself when its input closes.
    drop(child.stdin.take());
    child.wait().map_err(floor)?;
    let (tally, time) = measured?;
    if tally.wrong > 0 {
        return Err(floor("the echo does not echo"));
    }
    let (dense_lookup_ns, map_lookup_ns) = lookups();
    Ok(FloorReport {
        echo_p50_us: tally.times_us.value_at_quantile(0.5),
        echo_per_s: (tally.frames as f64 / time.as_secs_f64().max(1e-9)).round(),
        fdatasync_p50_us: fdatasync(data).map_err(floor)?,
        dense_lookup_ns,
        map_lookup_ns,
    })
}

async fn echo(shape: &FloorShape, address: &str, ca: &str) -> Result<(Tally, Duration), LoadError> {
    let profile = Profile {
        quic: address.into(),
        http: String::new(),
        server_name: "localhost".into(),
        ca: ca.into(),
        token: String::new(),
    };
    let mut tasks = Vec::new();
    for _ in 0..shape.connections {
        let (sink, source) = connect(&profile).await?;
        let pace = Pace {
            in_flight: (shape.in_flight / shape.connections).max(1),
            rate: None,
            warm_up: Duration::from_millis(300),
            time: Duration::from_secs_f64(shape.seconds),
            frames_max: u64::MAX,
            progress: Arc::default(),
        };
        let mut load = Echo { skus: (0..shape.batch as u32).collect() };
        tasks.push(tokio::spawn(async move { drive(sink, source, &mut load, &pace).await }));
    }
    let mut tally = Tally::default();
    let mut time = Duration::ZERO;
    for task in tasks {
        let (one, took) = task.await.map_err(floor)??;
        tally.add(&one);
        time = time.max(took);
    }
    Ok((tally, time))
}

/// Median time of an `fdatasync` after writing 4 KiB at changing places of a file that exists already.
fn fdatasync(data: &Path) -> std::io::Result<u64> {
    let path = data.join("fdatasync.floor");
    let mut file = File::create(&path)?;
    file.write_all(&vec![0; 4 << 20])?;
    file.sync_all()?;
    let mut times = Vec::new();
    for round in 0..500u64 {
        file.seek(std::io::SeekFrom::Start((round % 1_000) * 4_096))?;
        file.write_all(&[round as u8; 4_096])?;
        let started = Instant::now();
        file.sync_data()?;
        times.push(started.elapsed().as_micros() as u64);
    }
    drop(file);
    std::fs::remove_file(&path)?;
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

/// Nanoseconds for one of a million random look-ups, each depending on the one before: in an array and in a
/// map.
fn lookups() -> (f64, f64) {
    const N: usize = 1_000_000;
    let mut dice = Dice::new(7);
    let dense: Vec<u32> = (0..N).map(|_| (dice.roll() % N as u64) as u32).collect();
    let map: HashMap<u32, u32> = (0..N as u32).map(|at| (at, dense[at as usize])).collect();
    let time = |next: &dyn Fn(u32, u32) -> u32| {
        let started = Instant::now();
        let mut at = 1;
        for round in 0..N as u32 {
            at = next(at, round) % N as u32;
        }
        // The result is looked at, so that the work cannot be left out.
        std::hint::black_box(at);
        started.elapsed().as_nanos() as f64 / N as f64
    };
    (time(&|at, round| dense[at as usize] ^ round), time(&|at, round| map[&at] ^ round))
}

/// The other process of the echo: prints its address and its authority's file, echoes until its input ends.
pub async fn echo_server() -> Result<(), LoadError> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).map_err(floor)?;
    let ca = std::env::temp_dir().join(format!("stockline-echo-{}.pem", std::process::id()));
    std::fs::write(&ca, made.cert.pem()).map_err(floor)?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(floor)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(floor)?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .map_err(floor)?;
    tls.alpn_protocols = vec![wire::ALPN.to_vec()];
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).map_err(floor)?));
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(VarInt::from_u32(4 << 20)).receive_window(VarInt::from_u32(4 << 20));
    config.transport_config(Arc::new(transport));
    let endpoint = Endpoint::server(config, SocketAddr::from(([127, 0, 0, 1], 0))).map_err(floor)?;
    println!("{}\n{}", endpoint.local_addr().map_err(floor)?, ca.display());
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        let mut line = String::new();
        // Input ends when the measuring process does, however it ends.
        while std::io::stdin().read_line(&mut line).is_ok_and(|count| count > 0) {}
        let _ = end.send(());
    });
    let serving = async {
        while let Some(incoming) = endpoint.accept().await {
            tokio::spawn(async move {
                let connection = incoming.await.ok()?;
                let (mut send, mut recv) = connection.accept_bi().await.ok()?;
                let mut chunks = vec![Bytes::new(); 32];
                while let Ok(Some(count)) = recv.read_chunks(&mut chunks).await {
                    send.write_all_chunks(&mut chunks[..count]).await.ok()?;
                }
                Some(())
            });
        }
    };
    tokio::select! {
        () = serving => {}
        _ = ended => {}
    }
    std::fs::remove_file(&ca).map_err(floor)
}
