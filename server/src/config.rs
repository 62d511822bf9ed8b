//! Configuration: flags go before the environment, that before a file, and all before what is built in.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use stockline_core::admission::WindowSize;
use stockline_core::limit;

/// As typed: everything may be missing. Keys of the file are the flags' names, and variables of the environment
/// are these in capitals behind `STOCKLINE_`, with `_` for `-`.
#[derive(Clone, Debug, Default, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ServeOptions {
    /// Data directory [default: stockline-data]
    #[arg(long, value_name = "DIR", env = "STOCKLINE_DATA")]
    pub data: Option<PathBuf>,
    /// QUIC address to listen on, port 0 picks a free one [default: 127.0.0.1:7440]
    #[arg(long, value_name = "ADDR", env = "STOCKLINE_QUIC")]
    pub quic: Option<SocketAddr>,
    /// HTTP address to listen on, with TLS unless it is a loopback address [default: 127.0.0.1:7480]
    #[arg(long, value_name = "ADDR", env = "STOCKLINE_HTTP")]
    pub http: Option<SocketAddr>,
    /// Commands a second over HTTP that each token may send, 0 for no limit; a call counts as one, each of its events as one
    /// [default: 0]
    #[arg(long, value_name = "N", env = "STOCKLINE_HTTP_RATE")]
    pub http_rate: Option<u32>,
    /// Ed25519 public key (PEM) of who signs JWTs for principals that are known here; needs an audience
    #[arg(long, value_name = "FILE", env = "STOCKLINE_JWT_KEY")]
    pub jwt_key: Option<PathBuf>,
    /// Whom JWTs must be for (`aud`)
    #[arg(long, value_name = "TEXT", env = "STOCKLINE_JWT_AUDIENCE")]
    pub jwt_audience: Option<String>,
    /// Shards, each with a thread of its own if more than one [default: 1]
    #[arg(long, value_name = "N", env = "STOCKLINE_SHARDS")]
    pub shards: Option<u32>,
    /// Keep the whole journal, so that `verify` can replay everything from the first command [default: false]
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true",
        env = "STOCKLINE_RETAIN_JOURNAL"
    )]
    pub retain_journal: Option<bool>,
    /// Further names in the server's certificate, for clients that connect by another name than localhost
    #[arg(long, value_name = "NAME", value_delimiter = ',', env = "STOCKLINE_SERVER_NAME")]
    #[serde(default)]
    pub server_name: Vec<String>,
    /// Origins whose pages may call over HTTP from a browser, with commas, as `https://desk.example` [default: none]
    #[arg(long, value_name = "ORIGIN", value_delimiter = ',', env = "STOCKLINE_CORS_ORIGIN")]
    #[serde(default)]
    pub cors_origin: Vec<String>,
    /// Seconds by which the clock may be ahead of when the data directory was last in use [default: 3600]
    #[arg(long, value_name = "SECONDS", env = "STOCKLINE_CLOCK_AHEAD_MAX")]
    pub clock_ahead_max: Option<u64>,
    /// The clock is right, however far it is ahead [default: false]
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true",
        env = "STOCKLINE_ACCEPT_CLOCK"
    )]
    pub accept_clock: Option<bool>,
    /// Log lines as text or JSON [default: text]
    #[arg(long, value_name = "FORMAT", env = "STOCKLINE_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
    /// What is logged: error, warn, info, debug, or by target as in `info,http=debug` [default: info]
    #[arg(long, value_name = "FILTER", env = "STOCKLINE_LOG")]
    pub log: Option<String>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// As meant. It holds no secret: tokens and keys lie in the data directory.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ServeConfig {
    pub data: PathBuf,
    pub quic: SocketAddr,
    pub http: SocketAddr,
    pub http_rate: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt_key: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt_audience: Option<String>,
    pub shards: u32,
    pub retain_journal: bool,
    #[serde(rename = "server-name")]
    pub server_names: Vec<String>,
    #[serde(rename = "cors-origin")]
    pub cors_origins: Vec<String>,
    pub clock_ahead_max: u64,
    pub accept_clock: bool,
    pub log_format: LogFormat,
    pub log: String,
    #[serde(skip)]
    pub window: WindowSize,
}

/// What is wrong with the configuration, and where.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {path}: {error}")]
    Read { path: String, error: std::io::Error },
    #[error("{path}: {error}")]
    Syntax { path: String, error: Box<toml::de::Error> },
    #[error("shards {0}: must be 1 to {max}", max = limit::SHARDS_MAX)]
    Shards(u32),
    #[error("jwt-key and jwt-audience are given together: a key, and whom its tokens must be for")]
    Jwt,
    #[error("cors-origin {0:?}: an origin is a scheme and a host, as https://desk.example")]
    Origin(String),
    #[error("log {filter:?}: {reason}; say error, warn, info or debug, or by target as in info,http=debug")]
    Log { filter: String, reason: String },
}

/// The address clients of this machine find the server at when nothing else is said.
pub const DEFAULT_QUIC: ([u8; 4], u16) = ([127, 0, 0, 1], 7440);
pub const DEFAULT_HTTP: ([u8; 4], u16) = ([127, 0, 0, 1], 7480);
pub const DEFAULT_DATA: &str = "stockline-data";

impl ServeConfig {
    /// Puts flags and environment, which the command line has put together, over the file, and all over what is
    /// built in.
    pub fn resolve(typed: ServeOptions, file: Option<&Path>) -> Result<ServeConfig, ConfigError> {
        let file = match file {
            None => ServeOptions::default(),
            Some(path) => {
                let name = path.display().to_string();
                let text = std::fs::read_to_string(path)
                    .map_err(|error| ConfigError::Read { path: name.clone(), error })?;
                toml::from_str(&text)
                    .map_err(|error| ConfigError::Syntax { path: name, error: Box::new(error) })?
            }
        };
        let server_names = if typed.server_name.is_empty() { file.server_name } else { typed.server_name };
        let cors_origins = if typed.cors_origin.is_empty() { file.cors_origin } else { typed.cors_origin };
        let config = ServeConfig {
            data: typed.data.or(file.data).unwrap_or_else(|| DEFAULT_DATA.into()),
            quic: typed.quic.or(file.quic).unwrap_or_else(|| DEFAULT_QUIC.into()),
            http: typed.http.or(file.http).unwrap_or_else(|| DEFAULT_HTTP.into()),
            http_rate: typed.http_rate.or(file.http_rate).unwrap_or(0),
            jwt_key: typed.jwt_key.or(file.jwt_key),
            jwt_audience: typed.jwt_audience.or(file.jwt_audience),
            shards: typed.shards.or(file.shards).unwrap_or(1),
            retain_journal: typed.retain_journal.or(file.retain_journal).unwrap_or(false),
            server_names,
            cors_origins,
            clock_ahead_max: typed.clock_ahead_max.or(file.clock_ahead_max).unwrap_or(3_600),
            accept_clock: typed.accept_clock.or(file.accept_clock).unwrap_or(false),
            log_format: typed.log_format.or(file.log_format).unwrap_or_default(),
            log: typed.log.or(file.log).unwrap_or_else(|| "info".into()),
            window: WindowSize::default(),
        };
        if config.shards == 0 || config.shards as usize > limit::SHARDS_MAX {
            return Err(ConfigError::Shards(config.shards));
        }
        if config.jwt_key.is_some() != config.jwt_audience.is_some() {
            return Err(ConfigError::Jwt);
        }
        let is_origin = |origin: &String| {
            let rest = origin.strip_prefix("https://").or(origin.strip_prefix("http://"));
            rest.is_some_and(|host| !host.is_empty() && !host.contains(['/', ' ', '*']))
        };
        if let Some(wrong) = config.cors_origins.iter().find(|origin| !is_origin(origin)) {
            return Err(ConfigError::Origin(wrong.clone()));
        }
        crate::log::filter(&config.log)
            .map_err(|reason| ConfigError::Log { filter: config.log.clone(), reason })?;
        Ok(config)
    }

    /// As a configuration file would have it.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a configuration is plain text")
    }
}
