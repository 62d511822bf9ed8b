//! A profile: where the server is, how to trust it, and who is asking. One TOML file.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::ClientError;

/// `client.toml`, as `stockline serve` and `stockline token` write it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Address of the QUIC endpoint, `host:port`.
    pub quic: String,
    /// Address of the HTTP endpoint, `host:port`.
    #[serde(default)]
    pub http: String,
    /// Name in the server's certificate.
    pub server_name: String,
    /// Certificate authority; a relative path is looked up beside the profile.
    pub ca: PathBuf,
    pub token: String,
}

impl Profile {
    pub fn load(path: &Path) -> Result<Profile, ClientError> {
        let wrong = |reason: String| ClientError::Profile { path: path.display().to_string(), reason };
        let text = std::fs::read_to_string(path).map_err(|error| {
            wrong(format!("{error}; `stockline serve --data DIR` writes DIR/client.toml at its start"))
        })?;
        let mut profile: Profile = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if profile.ca.is_relative() {
            profile.ca = path.parent().unwrap_or(Path::new(".")).join(&profile.ca);
        }
        Ok(profile)
    }
}
