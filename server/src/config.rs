//! Configuration: what `serve` is told by its flags over what a file says over what is built in.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use stockline_core::admission::WindowSize;
use stockline_core::limit;

/// As typed: everything may be missing. Keys of the file are the flags' names.
#[derive(Clone, Debug, Default, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ServeOptions {
    /// Data directory [default: stockline-data]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// QUIC address to listen on, port 0 picks a free one [default: 127.0.0.1:7440]
    #[arg(long, value_name = "ADDR")]
    pub quic: Option<SocketAddr>,
    /// HTTP address to listen on, loopback only for now [default: 127.0.0.1:7480]
    #[arg(long, value_name = "ADDR")]
    pub http: Option<SocketAddr>,
    /// Shards, each with a thread of its own if more than one [default: 1]
    #[arg(long, value_name = "N")]
    pub shards: Option<u32>,
    /// Keep the whole journal, so that `verify` can replay everything from the first command
    #[arg(long)]
    #[serde(default)]
    pub retain_journal: bool,
    /// Further names in the server's certificate, for clients that connect by another name than localhost
    #[arg(long, value_name = "NAME")]
    #[serde(default)]
    pub server_name: Vec<String>,
}

/// As meant.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    pub data: PathBuf,
    pub quic: SocketAddr,
    pub http: SocketAddr,
    pub shards: u32,
    pub retain_journal: bool,
    pub server_names: Vec<String>,
    pub window: WindowSize,
}

/// What is wrong with the configuration, and where.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {path}: {error}")]
    Read { path: String, error: std::io::Error },
    #[error("{path}: {error}")]
    Syntax { path: String, error: Box<toml::de::Error> },
    #[error("--shards {0}: must be 1 to {max}", max = limit::SHARDS_MAX)]
    Shards(u32),
    #[error("--http {0}: only loopback addresses for now, because HTTP is not encrypted there")]
    Http(SocketAddr),
}

/// The address clients of this machine find the server at when nothing else is said.
pub const DEFAULT_QUIC: ([u8; 4], u16) = ([127, 0, 0, 1], 7440);
pub const DEFAULT_HTTP: ([u8; 4], u16) = ([127, 0, 0, 1], 7480);
pub const DEFAULT_DATA: &str = "stockline-data";

impl ServeConfig {
    /// Puts flags over the file, and both over what is built in.
    pub fn resolve(flags: ServeOptions, file: Option<&Path>) -> Result<ServeConfig, ConfigError> {
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
        let mut server_names = flags.server_name;
        server_names.extend(file.server_name);
        let config = ServeConfig {
            data: flags.data.or(file.data).unwrap_or_else(|| DEFAULT_DATA.into()),
            quic: flags.quic.or(file.quic).unwrap_or_else(|| DEFAULT_QUIC.into()),
            http: flags.http.or(file.http).unwrap_or_else(|| DEFAULT_HTTP.into()),
            shards: flags.shards.or(file.shards).unwrap_or(1),
            retain_journal: flags.retain_journal || file.retain_journal,
            server_names,
            window: WindowSize::default(),
        };
        if config.shards == 0 || config.shards as usize > limit::SHARDS_MAX {
            return Err(ConfigError::Shards(config.shards));
        }
        if !config.http.ip().is_loopback() {
            return Err(ConfigError::Http(config.http));
        }
        Ok(config)
    }
}
