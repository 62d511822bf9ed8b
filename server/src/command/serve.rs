//! `stockline serve`: starts everything, says `ready`, and drains on SIGTERM or Ctrl-C.

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use stockline_core::catalogue::{ADMIN, Definition, EntryKind, NO_TOKEN, Role};
use stockline_core::command::{Body, Command, Frame};
use stockline_core::id::{Key, Millis, PrincipalId};
use stockline_core::journal::JournalError;
use stockline_core::snapshot::SnapshotError;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::command::demo;
use crate::config::{ServeConfig, ServeOptions};
use crate::control;
use crate::data::DataDir;
use crate::engine::{Engine, EngineConfig, RunningEngine, StartError, Tag};
use crate::jwt::Jwts;
use crate::principal::token_sha256;
use crate::quic::QuicFace;
use crate::{err, out};
use crate::{exit, http, log, say, trace, zone};

#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    serve: ServeOptions,
    /// Configuration file (TOML); its keys are the flags' names, and flags and environment go before it
    #[arg(long, value_name = "FILE", env = "STOCKLINE_CONFIG")]
    config: Option<PathBuf>,
    /// Say whether the configuration is sound, and start nothing
    #[arg(long)]
    check_config: bool,
    /// Print the configuration as a file would have it, and start nothing
    #[arg(long)]
    print_config: bool,
    /// Fill an empty server with a small real catalogue and say what to type next
    #[arg(long)]
    demo: bool,
}

/// What went wrong and the exit code for it.
struct Stop(i32, String);

pub fn run(options: Options) -> i32 {
    let config = match ServeConfig::resolve(options.serve, options.config.as_deref()) {
        Ok(config) => config,
        Err(error) => {
            err!("stockline: {error}");
            return exit::USAGE;
        }
    };
    if let Err(reason) = check(&config) {
        err!("stockline: {reason}");
        return exit::USAGE;
    }
    if options.print_config {
        say::output(format_args!("{}", config.to_toml()));
        return exit::OK;
    }
    if options.check_config {
        out!("the configuration is sound");
        return exit::OK;
    }
    log::start(config.log_format, log::filter(&config.log).expect("checked with the rest"));
    let exit = match serve(&config, options.demo) {
        Ok(()) => exit::OK,
        Err(Stop(exit, reason)) => {
            tracing::error!("{reason}");
            exit
        }
    };
    log::flush();
    exit
}

/// Whether what the configuration and the environment point to can be used.
fn check(config: &ServeConfig) -> Result<(), String> {
    if let Some((path, audience)) = config.jwt_key.as_ref().zip(config.jwt_audience.as_ref()) {
        Jwts::load(path, audience)?;
    }
    trace::check()
}

fn serve(config: &ServeConfig, with_demo: bool) -> Result<(), Stop> {
    let data_error = |error: &dyn std::fmt::Display| Stop(exit::DATA, error.to_string());
    http::raise_descriptors();
    let data = DataDir::open(&config.data).map_err(|error| data_error(&error))?;
    let engine_config = EngineConfig {
        data: data.path().to_owned(),
        shards: config.shards,
        retain_journal: config.retain_journal,
        window: config.window,
        clock_ahead_ms_max: (!config.accept_clock).then_some(config.clock_ahead_max.saturating_mul(1_000)),
        http_rate: config.http_rate,
        jwt: config.jwt_key.clone().zip(config.jwt_audience.clone()),
    };
    let running = RunningEngine::start(&engine_config, |failure| {
        tracing::error!("{}", failure.reason);
        log::flush();
        std::process::exit(failure.exit);
    })
    .map_err(|error| Stop(exit::DATA, explain(&error)))?;
    // The journal is ours now, and with it the directory: nobody else makes these meanwhile.
    let certificate = data.certificate(&config.server_names).map_err(|error| data_error(&error))?;
    let token = data.admin_token().map_err(|error| data_error(&error))?;
    let recovery = running.recovery.clone();
    tracing::info!(
        "recovered last_lsn={} state_hash={} anchor={} from snapshot at {} in {} ms",
        recovery.last,
        recovery.positions_hash,
        recovery.anchor,
        recovery.covered,
        recovery.milliseconds
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Stop(exit::FAILED, format!("cannot start: {error}")))?;
    let traces = trace::start(runtime.handle()).map_err(|reason| Stop(exit::USAGE, reason))?;
    let served = runtime.block_on(async {
        let engine = running.handle();
        engine.metrics().sources.load(&data.sources().map_err(|error| data_error(&error))?);
        let to_revoke = data.to_revoke().map_err(|error| data_error(&error))?;
        revoke(&engine, &to_revoke).await?;
        data.revoked().map_err(|error| data_error(&error))?;
        ensure_admin(&engine, &token).await?;
        let listening = |what: &str, address, error: &dyn std::fmt::Display| {
            Stop(exit::ADDRESS, format!("cannot listen on {what} address {address}: {error}"))
        };
        let tls = http::tls(config.http.ip(), &certificate)
            .map_err(|reason| listening("HTTP", config.http, &reason))?;
        let quic = QuicFace::listen(config.quic, certificate)
            .map_err(|error| listening("QUIC", config.quic, &error))?;
        let quic_address = quic.address().map_err(|error| listening("QUIC", config.quic, &error))?;
        let listener =
            TcpListener::bind(config.http).await.map_err(|error| listening("HTTP", config.http, &error))?;
        let http_address = listener.local_addr().map_err(|error| listening("HTTP", config.http, &error))?;
        let profile =
            data.write_profile(quic_address, http_address, &token).map_err(|error| data_error(&error))?;
        match control::listen(data.path()) {
            Ok(listener) => drop(tokio::spawn(control::serve(listener, engine.clone()))),
            Err(error) => {
                let path = data.path().display();
                tracing::warn!("no control socket in {path}, so no backup while running: {error}");
            }
        }
        let (stop_http, stopping) = watch::channel(false);
        let (engine_of_http, origins) = (engine.clone(), config.cors_origins.clone());
        let http =
            tokio::spawn(async move { http::serve(listener, tls, engine_of_http, &origins, stopping).await });
        let mut stop = signal(SignalKind::terminate())
            .map_err(|error| Stop(exit::FAILED, format!("cannot wait for SIGTERM: {error}")))?;
        let quic = std::sync::Arc::new(quic);
        let serving = {
            let (quic, engine) = (std::sync::Arc::clone(&quic), engine.clone());
            tokio::spawn(async move { quic.serve(engine).await })
        };
        if with_demo {
            demo::fill(&profile, &config.data).await.map_err(|reason| Stop(exit::FAILED, reason))?;
        }
        // Whoever starts the server waits for this line; a closed pipe is no reason not to serve.
        let mut stdout = std::io::stdout();
        let _ =
            writeln!(stdout, "ready quic={quic_address} http={http_address}").and_then(|()| stdout.flush());
        tokio::spawn(zone::keep(engine.clone()));
        let directory = DataDir::open(&config.data).map_err(|error| data_error(&error))?;
        tokio::spawn(engine.clone().keep_clock(directory));
        tokio::select! {
            _ = stop.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        Ok((quic, serving, http, stop_http))
    })?;
    let (quic, serving, http, stop_http) = served;
    let stopping = Instant::now();
    let last = running.handle();
    // No more HTTP connections; calls under way are answered, and what comes behind them is refused.
    let _ = stop_http.send(true);
    // Commands taken are answered while connections are still there; then they are closed.
    let stopped = running.stop();
    runtime.block_on(async {
        // Answers wait for what is said of them; a disk that hangs is not waited for.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), last.trail().settled()).await;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let _ = http.await;
        quic.close().await;
        serving.abort();
    });
    traces.end();
    // Whoever waits for a name to be looked up need not be waited for.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    // Whatever was said of calls is written down.
    drop(stopped);
    // It is gone when nobody can be told.
    let _ = data.note_use(last.clock().now()).and(data.keep_sources(&last.metrics().sources.save()));
    tracing::info!("stopped last_lsn={} in {} ms", last.view().durable(), stopping.elapsed().as_millis());
    Ok(())
}

fn explain(error: &StartError) -> String {
    let in_use = matches!(
        error,
        StartError::Journal(JournalError::InUse(_)) | StartError::Snapshot(SnapshotError::InUse(_))
    );
    if in_use { format!("{error}; stop the other server or give another --data") } else { error.to_string() }
}

/// Makes sure that the token in `admin.token` is the administrator's, as at the first start or after the file
/// was replaced.
async fn ensure_admin(engine: &Engine, token: &str) -> Result<(), Stop> {
    let admin = Definition::Principal {
        name: ADMIN.into(),
        role: Role::Admin,
        channel: None,
        nodes: Vec::new(),
        token_sha256: token_sha256(token.as_bytes()),
        clock_ahead_s: 0,
    };
    define(engine, vec![admin]).await
}

/// Revokes tokens that a restored directory says are worth nothing.
async fn revoke(engine: &Engine, names: &[String]) -> Result<(), Stop> {
    let known = names.iter().filter_map(|name| engine.names().entry(EntryKind::Principal, name));
    let revoked = known.map(|entry| {
        let mut entry = Definition::clone(&entry);
        if let Definition::Principal { token_sha256, .. } = &mut entry {
            *token_sha256 = NO_TOKEN;
        }
        entry
    });
    define(engine, revoked.collect()).await
}

/// Puts definitions into the order for the system, and waits until they are durable.
async fn define(engine: &Engine, definitions: Vec<Definition>) -> Result<(), Stop> {
    if definitions.is_empty() {
        return Ok(());
    }
    let (reply_to, mut answered) = tokio::sync::mpsc::unbounded_channel();
    let plain = |definition| {
        let body = Body::Define(Box::new(definition));
        Command { key: Key(0), issued_at: Millis(0), digest: 0, body }
    };
    let frame = Frame {
        tag: Tag::new(Some(reply_to)),
        principal: PrincipalId::SYSTEM,
        commands: definitions.into_iter().map(plain).collect(),
        lines: Vec::new(),
    };
    let submitted = engine.submit(frame);
    let answer = match submitted {
        Ok(()) => answered.recv().await,
        Err(_) => None,
    };
    match answer {
        Some(_) => Ok(()),
        None => Err(Stop(exit::BROKEN, "the engine does not answer".into())),
    }
}
