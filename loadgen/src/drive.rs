//! Driving connections: keeps frames in flight, times them, and hands every reply to a check.
//!
//! Closed loop: a reply makes room for the next frame. Open loop: frames go by the clock, and a frame's time
//! counts from when it was meant to go, however late it went.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use stockline_client::wire::RawFrame;
use stockline_client::{ClientError, FrameSink, FrameSource};

/// What a connection sends and how it judges answers. One for each connection.
pub trait Load: Send + 'static {
    /// Appends the next frame, with this request id. Answers the lines in it.
    fn next(&mut self, request: u32, out: &mut Vec<u8>) -> u64;

    /// Judges a reply.
    fn check(&mut self, frame: RawFrame<'_>, tally: &mut Tally);
}

/// What a connection counted.
#[derive(Clone, Debug)]
pub struct Tally {
    pub times_us: Histogram<u64>,
    pub frames: u64,
    pub lines: u64,
    pub refused: u64,
    pub errors: u64,
    pub checked: u64,
    /// Wrong answers, the first of them in words.
    pub wrong: u64,
    pub wrongs: Vec<String>,
}

impl Default for Tally {
    fn default() -> Tally {
        Tally {
            times_us: Histogram::new_with_max(60_000_000, 3).expect("a minute at three digits"),
            frames: 0,
            lines: 0,
            refused: 0,
            errors: 0,
            checked: 0,
            wrong: 0,
            wrongs: Vec::new(),
        }
    }
}

impl Tally {
    pub fn time(&mut self, started: Instant) {
        self.times_us.saturating_record(started.elapsed().as_micros() as u64);
    }

    pub fn wrong(&mut self, what: impl FnOnce() -> String) {
        self.wrong += 1;
        if self.wrongs.len() < 10 {
            self.wrongs.push(what());
        }
    }

    pub fn add(&mut self, other: &Tally) {
        self.times_us.add(&other.times_us).expect("both have the same range");
        self.frames += other.frames;
        self.lines += other.lines;
        self.refused += other.refused;
        self.errors += other.errors;
        self.checked += other.checked;
        self.wrong += other.wrong;
        self.wrongs.extend(other.wrongs.iter().take(10).cloned());
    }
}

/// How one connection is driven.
#[derive(Clone, Debug)]
pub struct Pace {
    pub in_flight: usize,
    /// Frames a second, or as fast as answers come.
    pub rate: Option<f64>,
    pub warm_up: Duration,
    pub time: Duration,
    /// Frames to send at most.
    pub frames_max: u64,
    /// Lines answered so far by all connections, for the progress line.
    pub progress: Arc<AtomicU64>,
}

/// Runs one connection to its end; answers what it counted and how long that took after the warm-up.
pub async fn drive<L: Load>(
    mut sink: FrameSink,
    mut source: FrameSource,
    load: &mut L,
    pace: &Pace,
) -> Result<(Tally, Duration), ClientError> {
    let started = Instant::now();
    let measured_from = started + pace.warm_up;
    let end = measured_from + pace.time;
    let mut tally = Tally::default();
    let mut open: HashMap<u32, (Instant, u64)> = HashMap::with_capacity(pace.in_flight);
    let mut request = 0u32;
    let mut out = Vec::new();
    let mut last = measured_from;
    let mut sent = 0u64;
    let interval = pace.rate.map(|rate| Duration::from_secs_f64(1.0 / rate));
    let mut due = started;
    loop {
        let now = Instant::now();
        let more = now < end && sent < pace.frames_max;
        while more
            && sent < pace.frames_max
            && open.len() < pace.in_flight
            && (interval.is_none() || due <= now)
        {
            request = request.wrapping_add(1).max(1);
            let lines = load.next(request, &mut out);
            open.insert(request, (if interval.is_some() { due } else { now }, lines));
            sent += 1;
            if let Some(interval) = interval {
                due += interval;
            }
        }
        if !out.is_empty() {
            sink.send(&out).await?;
            out.clear();
        }
        if open.is_empty() && !more {
            break;
        }
        match interval {
            Some(_) if more && open.len() < pace.in_flight => {
                tokio::select! {
                    received = source.receive() => received?,
                    () = tokio::time::sleep_until(due.into()) => continue,
                }
            }
            _ => source.receive().await?,
        }
        let now = Instant::now();
        let counts = now >= measured_from;
        let mut lines_now = 0;
        while let Some(frame) = source.next_frame()? {
            let Some((begun, lines)) = open.remove(&frame.request) else {
                tally.wrong(|| format!("a reply to request {} that was not sent", frame.request));
                continue;
            };
            if counts {
                tally.times_us.saturating_record(now.duration_since(begun).as_micros() as u64);
                tally.frames += 1;
                tally.lines += lines;
                last = now;
            }
            lines_now += lines;
            load.check(frame, &mut tally);
        }
        pace.progress.fetch_add(lines_now, Ordering::Relaxed);
    }
    source.close();
    Ok((tally, last.duration_since(measured_from)))
}
