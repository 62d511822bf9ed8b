//! `loadgen`: load a running server and check every answer.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use mimalloc::MiMalloc;
use stockline_client::{Profile, limit};
use stockline_loadgen::error::LoadError;
use stockline_loadgen::floor::{self, FloorShape};
use stockline_loadgen::replay::{self, ReplaySettings};
use stockline_loadgen::report::print_floor;
use stockline_loadgen::scenario::{self, Scenario, Settings};
use stockline_loadgen::torture::{self, TortureSettings};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Load a Stockline server, and believe nothing it says.
#[derive(Parser)]
#[command(name = "loadgen", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Play a scenario against a server and audit it; fails if one answer is wrong
    Run(RunOptions),
    /// Measure what this machine allows
    Floor(FloorOptions),
    /// The other process of the echo floor
    #[command(hide = true)]
    EchoServer,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ScenarioName {
    Browse,
    FlashSale,
    Checkout,
    Warehouse,
    Mixed,
    Replay,
    /// Random commands over connections that are cut, for kill loops
    Torture,
}

/// What a scenario and its floor have in common.
#[derive(Args)]
struct Shape {
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    connections: u32,
    /// Frames in flight over all connections (replay: orders)
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    in_flight: u32,
    /// Lines in a frame
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=limit::FRAME_COMMANDS_MAX as i64))]
    batch: u32,
}

impl Shape {
    fn floor(&self, seconds: f64) -> FloorShape {
        FloorShape {
            connections: self.connections as usize,
            in_flight: self.in_flight as usize,
            batch: self.batch as usize,
            seconds,
        }
    }
}

#[derive(Args)]
struct RunOptions {
    #[arg(long)]
    scenario: ScenarioName,
    /// Profile of the server, as `stockline serve` writes it
    #[arg(long, value_name = "FILE", default_value = "stockline-data/client.toml")]
    profile: PathBuf,
    #[command(flatten)]
    shape: Shape,
    /// Open loop: frames a second over all connections, timed from when they were due
    #[arg(long, value_name = "R")]
    rate: Option<f64>,
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    seconds: f64,
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    skus: u32,
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    nodes: u32,
    /// Skew of the skus asked for, 0 (none) up to below 1
    #[arg(long, value_name = "Z", default_value_t = 0.99)]
    zipf: f64,
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Scenario replay: the orders, .csv or .csv.xz
    #[arg(long, value_name = "CSV", required_if_eq("scenario", "replay"))]
    file: Option<PathBuf>,
    /// Scenario torture: milliseconds between two cuts of a connection, on average; 0 for none
    #[arg(long, value_name = "MS", default_value_t = 500)]
    cut_ms: u64,
    /// Measure the floors first and report beside them
    #[arg(long)]
    floor: bool,
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(Args)]
struct FloorOptions {
    #[command(flatten)]
    shape: Shape,
    #[arg(long, value_name = "S", default_value_t = 3.0)]
    seconds: f64,
    /// Directory whose disk is timed
    #[arg(long, value_name = "DIR", default_value = ".")]
    data: PathBuf,
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("loadgen: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(async {
        match arguments.command {
            Command::Run(options) => run(options).await,
            Command::Floor(options) => measure(options).await,
            Command::EchoServer => floor::echo_server().await.map(|()| true),
        }
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("loadgen: {error}");
            ExitCode::from(2)
        }
    }
}

fn write(path: &PathBuf, text: &str) -> Result<(), LoadError> {
    std::fs::write(path, text).map_err(|error| LoadError::Input(format!("{}: {error}", path.display())))
}

async fn run(options: RunOptions) -> Result<bool, LoadError> {
    let input = |text: &str| Err(LoadError::Input(text.into()));
    if !(0.0..1.0).contains(&options.zipf) {
        return input("--zipf: must be 0 or more and below 1");
    }
    if !options.seconds.is_finite() || options.seconds <= 0.0 || options.seconds > 86_400.0 {
        return input("--seconds: must be more than 0 and at most 86400");
    }
    if options.rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
        return input("--rate: must be more than 0");
    }
    let profile = Profile::load(&options.profile)?;
    let FloorShape { connections, in_flight, batch, .. } = options.shape.floor(0.0);
    let floor = if options.floor {
        let data = options.profile.parent().filter(|parent| !parent.as_os_str().is_empty());
        Some(floor::measure(&options.shape.floor(3.0), data.unwrap_or(std::path::Path::new("."))).await?)
    } else {
        None
    };
    let scenario = match options.scenario {
        ScenarioName::Browse => Some(Scenario::Browse),
        ScenarioName::FlashSale => Some(Scenario::FlashSale),
        ScenarioName::Checkout => Some(Scenario::Checkout),
        ScenarioName::Warehouse => Some(Scenario::Warehouse),
        ScenarioName::Mixed => Some(Scenario::Mixed),
        ScenarioName::Replay | ScenarioName::Torture => None,
    };
    let mut report = match (scenario, &options.file) {
        (Some(scenario), _) => {
            let settings = Settings {
                scenario,
                connections,
                in_flight,
                batch,
                rate: options.rate,
                seconds: options.seconds,
                skus: options.skus as usize,
                nodes: options.nodes as usize,
                zipf: options.zipf,
                seed: options.seed,
            };
            scenario::run(&profile, &settings).await?
        }
        (None, _) if options.scenario == ScenarioName::Torture => {
            let RunOptions { seconds, seed, cut_ms, .. } = options;
            torture::run(&profile, &TortureSettings { connections, in_flight, seconds, seed, cut_ms }).await?
        }
        (None, Some(file)) => {
            let nodes = options.nodes as usize;
            let seed = options.seed;
            replay::run(&profile, &ReplaySettings { file, nodes, connections, in_flight, seed }).await?
        }
        (None, None) => return input("--file: scenario replay needs the orders, .csv or .csv.xz"),
    };
    report.floor = floor;
    report.print();
    if let Some(path) = &options.json {
        write(path, &report.json())?;
    }
    if let Some(path) = &options.html {
        write(path, &report.html())?;
    }
    Ok(report.audit.ok)
}

async fn measure(options: FloorOptions) -> Result<bool, LoadError> {
    let floor = floor::measure(&options.shape.floor(options.seconds), &options.data).await?;
    print_floor(&floor);
    if let Some(path) = &options.json {
        write(path, &serde_json::to_string_pretty(&floor).expect("a floor is plain data"))?;
    }
    Ok(true)
}
