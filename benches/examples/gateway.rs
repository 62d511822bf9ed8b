//! What HTTP costs: a query through the gateway beside a bare hyper echo in the same run, and a thousand followers of
//! whom one reads nothing.
//!
//! `cargo run --release -p stockline-benches --example gateway -- target/release/stockline`

use std::convert::Infallible;
use std::error::Error;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

type Failure = Box<dyn Error + Send + Sync>;

const SKUS: usize = 400;
const TURNS: usize = 7;
const ROUNDS: usize = 8_000;
const CONNECTIONS: usize = 32;
const LOAD: Duration = Duration::from_secs(2);
const FOLLOWERS: usize = 1_000;
const STEPS: usize = 400;

/// Answers every request with its own body.
async fn echo() -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("ready quic=none http={}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let answer = |request: Request<Incoming>| async move {
                let body =
                    request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                Ok::<_, Infallible>(Response::new(Full::new(body)))
            };
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(answer))
                .await;
        });
    }
}

/// A process that says where it listens; killed when dropped.
struct Server(Child, String);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(command: &mut Command) -> Result<Server, Failure> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut line = String::new();
    let stdout = child.stdout.take().ok_or("no output")?;
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)?;
    let address = line.trim().rsplit("http=").next().unwrap_or_default().to_owned();
    Ok(Server(child, address))
}

#[derive(Clone)]
struct Target {
    address: String,
    token: String,
    /// What the answer has in it.
    due: &'static str,
}

impl Target {
    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    /// One query, and whether its answer is right.
    async fn ask(&self, sender: &mut SendRequest<Full<Bytes>>, sku: usize) -> Result<(), Failure> {
        let body = format!("{{\"channel\":\"web\",\"skus\":[\"s{sku}\"]}}");
        let answer = self.send(sender, "/v1/availability", body).await?;
        let name = format!("\"s{sku}\"");
        if !answer.contains(&name) || !answer.contains(self.due) {
            return Err(format!("wrong answer: {answer}").into());
        }
        Ok(())
    }

    async fn send(
        &self,
        sender: &mut SendRequest<Full<Bytes>>,
        path: &str,
        body: String,
    ) -> Result<String, Failure> {
        let request = Request::post(path)
            .header("host", "localhost")
            .header("authorization", &self.token)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))?;
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let text = String::from_utf8(response.into_body().collect().await?.to_bytes().to_vec())?;
        if !status.is_success() {
            return Err(format!("{status}: {text}").into());
        }
        Ok(text)
    }
}

fn quantile(times: &mut [Duration], share: f64) -> Duration {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * share) as usize]
}

/// One after the other on one connection.
async fn alone(target: &Target) -> Result<(Duration, Duration), Failure> {
    let mut sender = target.connect().await?;
    let mut times = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
        let begun = Instant::now();
        target.ask(&mut sender, round % SKUS).await?;
        times.push(begun.elapsed());
    }
    Ok((quantile(&mut times, 0.5), quantile(&mut times, 0.99)))
}

/// As many as there can be on some connections.
async fn load(target: &Target) -> Result<f64, Failure> {
    let begun = Instant::now();
    let mut tasks = Vec::new();
    for connection in 0..CONNECTIONS {
        let target = target.clone();
        tasks.push(tokio::spawn(async move {
            let mut sender = target.connect().await?;
            let mut count = 0u64;
            while begun.elapsed() < LOAD {
                target.ask(&mut sender, (count as usize + connection) % SKUS).await?;
                count += 1;
            }
            Ok::<u64, Failure>(count)
        }));
    }
    let mut total = 0;
    for task in tasks {
        total += task.await??;
    }
    Ok(total as f64 / begun.elapsed().as_secs_f64())
}

/// Reads a stream of events; counts those about reservations.
async fn follow(target: Target, stalled: bool, told: Arc<AtomicU64>) -> Result<(), Failure> {
    let mut stream = TcpStream::connect(&target.address).await?;
    let request = format!(
        "GET /v1/changes?channel=web&what=reservations,numbers HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\n\r\n",
        target.token
    );
    stream.write_all(request.as_bytes()).await?;
    let mut lines = BufReader::new(stream).lines();
    while let Some(line) = lines.next_line().await? {
        if line == ": nothing new" {
            told.fetch_add(1 << 32, Ordering::Relaxed);
            if stalled {
                // It holds the connection and takes nothing.
                std::future::pending::<()>().await;
            }
        }
        if line.starts_with("event: reservation") {
            told.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

async fn steps(target: &Target, from: usize) -> Result<(Duration, Duration), Failure> {
    let mut sender = target.connect().await?;
    let mut times = Vec::new();
    for step in from..from + STEPS {
        let body = format!(
            "{{\"id\":\"00000000-0000-4000-8000-{step:012x}\",\"channel\":\"web\",\"ttl_ms\":3600000,\
             \"lines\":[{{\"sku\":\"s{}\",\"quantity\":1}}]}}",
            step % SKUS
        );
        let begun = Instant::now();
        let answer = target.send(&mut sender, "/v1/reservations", body).await?;
        times.push(begun.elapsed());
        if !answer.contains("\"held\"") {
            return Err(answer.into());
        }
    }
    Ok((quantile(&mut times, 0.5), quantile(&mut times, 0.99)))
}

async fn fill(target: &Target, token: &str) -> Result<(), Failure> {
    let mut sender = target.connect().await?;
    for (path, body) in [("/v1/nodes/main", "{}"), ("/v1/channels/web", "{}")] {
        let request = Request::put(path)
            .header("host", "localhost")
            .header("authorization", token)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))?;
        sender.ready().await?;
        sender.send_request(request).await?.into_body().collect().await?;
    }
    let event = |sku: usize| {
        format!(
            "{{\"id\":\"{sku}\",\"source\":\"bench\",\"type\":\"receipt\",\"occurred_at\":\"2026-01-01T00:00:00Z\",\
             \"sku\":\"s{sku}\",\"node\":\"main\",\"quantity\":4711}}"
        )
    };
    let events: Vec<String> = (0..SKUS).map(event).collect();
    let told =
        target.send(&mut sender, "/v1/events", format!("{{\"events\":[{}]}}", events.join(","))).await?;
    if told.matches("applied").count() == SKUS { Ok(()) } else { Err(told.into()) }
}

async fn measure(program: &str) -> Result<(), Failure> {
    let data = std::env::temp_dir().join(format!("stockline-gateway-{}", std::process::id()));
    let floor = start(Command::new(std::env::current_exe()?).arg("echo"))?;
    let flags = ["serve", "--quic", "127.0.0.1:0", "--http", "127.0.0.1:0", "--log", "warn", "--data"];
    let server = start(Command::new(program).args(flags).arg(&data))?;
    let token = format!("Bearer {}", std::fs::read_to_string(data.join("admin.token"))?.trim());
    let echo = Target { address: floor.1.clone(), token: token.clone(), due: "web" };
    let real = Target { address: server.1.clone(), token: token.clone(), due: "\"available\":4711" };
    fill(&real, &token).await?;
    // In turns, for what else the machine does comes and goes.
    let (mut added, mut shares) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let ((echo_p50, echo_p99), (p50, p99)) = (alone(&echo).await?, alone(&real).await?);
        let (echo_load, real_load) = (load(&echo).await?, load(&real).await?);
        added.push(p50.as_secs_f64() * 1e6 - echo_p50.as_secs_f64() * 1e6);
        shares.push(real_load / echo_load);
        println!(
            "one at a time: echo p50 {echo_p50:?} p99 {echo_p99:?}, query p50 {p50:?} p99 {p99:?}; \
             {CONNECTIONS} connections: echo {echo_load:.0}/s, query {real_load:.0}/s"
        );
    }
    added.sort_by(f64::total_cmp);
    shares.sort_by(f64::total_cmp);
    println!(
        "added at p50 {:.0} us ({:.0} to {:.0}), {:.2} x the echo's throughput ({:.2} to {:.2}): the middle of {TURNS} turns",
        added[TURNS / 2],
        added[0],
        added[TURNS - 1],
        shares[TURNS / 2],
        shares[0],
        shares[TURNS - 1],
    );
    let (p50, p99) = steps(&real, 0).await?;
    println!("reservations, nobody follows: p50 {p50:?} p99 {p99:?}");
    let counts: Vec<Arc<AtomicU64>> = (0..FOLLOWERS).map(|_| Arc::default()).collect();
    for (index, told) in counts.iter().enumerate() {
        tokio::spawn(follow(real.clone(), index == 0, Arc::clone(told)));
    }
    let begun = Instant::now();
    while counts.iter().any(|told| told.load(Ordering::Relaxed) == 0) {
        if begun.elapsed() > Duration::from_secs(60) {
            return Err("some follower never began".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("{FOLLOWERS} followers began in {:?}", begun.elapsed());
    let (p50, p99) = steps(&real, STEPS).await?;
    println!("reservations, {FOLLOWERS} follow and one of them reads nothing: p50 {p50:?} p99 {p99:?}");
    let begun = Instant::now();
    let told = |told: &Arc<AtomicU64>| told.load(Ordering::Relaxed) & u64::from(u32::MAX);
    while counts[1..].iter().any(|count| told(count) < STEPS as u64) {
        if begun.elapsed() > Duration::from_secs(60) {
            let least = counts[1..].iter().map(told).min();
            return Err(format!("after 60 s a follower knows {least:?} of {STEPS}").into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    if counts[1..].iter().any(|count| told(count) != STEPS as u64) {
        return Err("a follower was told something twice".into());
    }
    println!(
        "all {} others were told all {STEPS} of them, the last {:?} behind",
        FOLLOWERS - 1,
        begun.elapsed()
    );
    drop(server);
    std::fs::remove_dir_all(data)?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    match std::env::args().nth(1).as_deref() {
        Some("echo") => echo().await,
        Some(program) => measure(program).await,
        None => Err("say where the program stockline is".into()),
    }
}
