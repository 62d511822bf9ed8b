//! The data directory: what lies in it besides journal and snapshot, all readable by its owner only.
//!
//! `ca.pem` (for clients), `server.pem` with `server.key`, `admin.token` (one line),
//! `id.key` (from which ids of reservations are made that have a text as key), `client.toml` (a profile for this machine's clients, written at every start).

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::{ServerConfig, SupportedProtocolVersion};
use sha2::{Digest, Sha256};
use stockline_client::Profile;
use stockline_core::id::Millis;

use crate::principal::new_token;

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("{path}: {error}")]
    File { path: String, error: io::Error },
    #[error(
        "{path}: {reason}; remove it and server.key to have a new one made (clients then need the new ca.pem)"
    )]
    Certificate { path: String, reason: String },
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
}

/// What lets clients recognise the server, and the administrator in.
const IDENTITY: [&str; 5] = ["ca.pem", "server.pem", "server.key", "id.key", "admin.token"];

/// What the working directory of a copy is called besides its name; a number of its own comes after it.
const PART: &str = ".part-";

/// Makes a directory that was not there, whole or not at all: `fill` fills one beside it, which then gets the name. The
/// working directory has a name that nobody else has; nothing is deleted that was not made here.
pub fn make_whole<T>(path: &Path, fill: impl FnOnce(&Path) -> Result<T, String>) -> Result<T, String> {
    let said = |error: io::Error| format!("{}: {error}", path.display());
    let exists = || format!("{} exists already; give the name of a new directory", path.display());
    if path.try_exists().map_err(said)? {
        return Err(exists());
    }
    let mut number = [0; 8];
    getrandom::fill(&mut number).map_err(|error| DataError::Random(error).to_string())?;
    let mut part = path.as_os_str().to_owned();
    part.push(format!("{PART}{:016x}", u64::from_le_bytes(number)));
    let part = PathBuf::from(part);
    std::fs::DirBuilder::new().mode(0o700).create(&part).map_err(said)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let sync = |directory: &Path| std::fs::File::open(directory).and_then(|file| file.sync_all());
    let made = fill(&part).and_then(|filled| {
        sync(&part).map_err(said)?;
        // Of two that make the same, one is there first, and the other does not take its place.
        match renameat_with(CWD, &part, CWD, path, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => return Err(exists()),
            renamed => renamed.map_err(|error| said(error.into()))?,
        }
        sync(parent).map_err(said)?;
        Ok(filled)
    });
    if made.is_err() {
        // The space goes back at once: the disk may be the server's own. It may be gone already.
        let _ = std::fs::remove_dir_all(&part);
    }
    made
}

/// Bytes that lie in the working directories of a copy so far.
pub fn part_bytes(path: &Path) -> u64 {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut prefix = path.file_name().unwrap_or_default().to_owned();
    prefix.push(PART);
    let is_part = |entry: &std::fs::DirEntry| {
        entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes())
    };
    let parts = std::fs::read_dir(parent).into_iter().flatten().flatten().filter(is_part);
    let files = parts.filter_map(|part| std::fs::read_dir(part.path()).ok()).flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// What a copy is of.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Origin {
    /// SHA-256 of the server's `ca.pem`.
    pub server: String,
    /// LSN and chain up to which it goes.
    pub anchor: String,
}

const ORIGIN: &str = "origin.toml";

impl Origin {
    /// Of the server of a directory.
    pub fn of(data: &Path, anchor: String) -> Result<Origin, DataError> {
        let ca = DataDir { path: data.to_owned() }.read("ca.pem")?.unwrap_or_default();
        let server = Sha256::digest(ca.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Origin { server, anchor })
    }

    pub fn write(&self, to: &Path) -> Result<(), DataError> {
        let text = toml::to_string(self).expect("an origin is plain text");
        DataDir { path: to.to_owned() }.write(ORIGIN, &text)
    }

    pub fn read(from: &Path) -> Result<Option<Origin>, DataError> {
        let text = DataDir { path: from.to_owned() }.read(ORIGIN)?;
        Ok(text.and_then(|text| toml::from_str(&text).ok()))
    }
}

/// Removes files that another start began to make, and that was cut off.
pub fn remove_unfinished(data: &Path) {
    let files = std::fs::read_dir(data).into_iter().flatten().flatten();
    // Another process may begin one at this moment, and be told that the directory is in use.
    let is_unfinished = |path: &Path| {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let pid = extension.strip_prefix("new-").and_then(|pid| pid.parse::<u32>().ok());
        pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
    };
    for path in files.map(|file| file.path()).filter(|path| is_unfinished(path)) {
        // It takes room, and harms nobody.
        let _ = std::fs::remove_file(path);
    }
}

/// Copies certificate, key and administrator's token, as far as they are there.
pub fn copy_identity(from: &Path, to: &Path, with_token: bool) -> Result<(), DataError> {
    let (from, to) = (DataDir { path: from.to_owned() }, DataDir { path: to.to_owned() });
    for name in IDENTITY.into_iter().filter(|name| with_token || *name != "admin.token") {
        if let Some(text) = from.read(name)? {
            to.write(name, &text)?;
        }
    }
    Ok(())
}

/// What sources of stock events did lately, for metrics and alerts.
const SOURCES: &str = "sources.json";
/// When a server last used the directory, in milliseconds since 1970.
const LAST_USE: &str = "last-use";
/// Names of tokens that are revoked at the next start, one a line: a restore writes it.
const REVOKE: &str = "revoke-at-start";

/// Has tokens revoked when a server starts on the directory.
pub fn revoke_at_start(data: &Path, names: &[&str]) -> Result<(), DataError> {
    DataDir { path: data.to_owned() }.write(REVOKE, &names.join("\n"))
}

/// A data directory that exists.
pub struct DataDir {
    path: PathBuf,
}

/// The server's certificate chain and key.
pub struct Certificate {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

impl Certificate {
    /// What a server with it says to clients, for some protocols above TLS.
    pub fn tls(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        protocols: &[&[u8]],
    ) -> Result<ServerConfig, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(|error| error.to_string())?
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|error| error.to_string())?;
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(config)
    }
}

/// Whether a certificate is for a name.
fn is_for(chain: &[CertificateDer<'_>], name: &str) -> bool {
    let parsed = chain.first().and_then(|first| ParsedCertificate::try_from(first).ok());
    let name = ServerName::try_from(name.to_owned());
    parsed.zip(name.ok()).is_some_and(|(parsed, name)| verify_server_name(&parsed, &name).is_ok())
}

impl DataDir {
    /// Makes the directory if it is not there.
    pub fn open(path: &Path) -> Result<DataDir, DataError> {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|error| DataError::File { path: path.display().to_string(), error })?;
        Ok(DataDir { path: path.to_owned() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn error(&self, name: &str) -> impl Fn(io::Error) -> DataError {
        let path = self.file(name).display().to_string();
        move |error| DataError::File { path: path.clone(), error }
    }

    fn read(&self, name: &str) -> Result<Option<String>, DataError> {
        match std::fs::read_to_string(self.file(name)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.error(name)(error)),
        }
    }

    /// Writes a file whole or not at all, for its owner only.
    fn write(&self, name: &str, text: &str) -> Result<(), DataError> {
        let part = self.file(&format!("{name}.part"));
        let written = (|| {
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&part)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&part, self.file(name))
        })();
        written.map_err(self.error(name))
    }

    /// The server's certificate, made with its own authority at the first start. It is for `localhost`, the
    /// loopback addresses and the names given.
    pub fn certificate(&self, names: &[String]) -> Result<Certificate, DataError> {
        if self.read("server.pem")?.is_none() || self.read("server.key")?.is_none() {
            self.make_certificate(names)?;
        }
        let wrong = |reason: String| DataError::Certificate {
            path: self.file("server.pem").display().to_string(),
            reason,
        };
        let pem = self.read("server.pem")?.unwrap_or_default();
        let chain = CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| wrong(error.to_string()))?;
        for name in names {
            // A directory that was restored, or started before under other names, has a certificate for those.
            if !is_for(&chain, name) {
                let reason = format!("it is not for {name:?}, which --server-name asks for");
                return Err(wrong(reason));
            }
        }
        let key = self.read("server.key")?.unwrap_or_default();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| wrong(error.to_string()))?;
        Ok(Certificate { chain, key })
    }

    fn make_certificate(&self, names: &[String]) -> Result<(), DataError> {
        let wrong = |error: rcgen::Error| DataError::Certificate {
            path: self.file("server.pem").display().to_string(),
            reason: error.to_string(),
        };
        // The authority's key is not kept: nobody can ever sign another certificate with it.
        let ca_key = KeyPair::generate().map_err(wrong)?;
        let mut ca = CertificateParams::default();
        ca.distinguished_name.push(DnType::CommonName, "Stockline certificate authority");
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca_pem = ca.self_signed(&ca_key).map_err(wrong)?.pem();
        let issuer = Issuer::new(ca, ca_key);
        let mut subjects = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        subjects.extend_from_slice(names);
        let mut params = CertificateParams::new(subjects).map_err(wrong)?;
        params.distinguished_name.push(DnType::CommonName, "Stockline server");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().map_err(wrong)?;
        let certificate = params.signed_by(&key, &issuer).map_err(wrong)?;
        self.write("ca.pem", &ca_pem)?;
        self.write("server.key", &key.serialize_pem())?;
        self.write("server.pem", &format!("{}{ca_pem}", certificate.pem()))
    }

    /// The key from which ids of reservations are made that have a text as key, made at the first start.
    pub fn id_key(&self) -> Result<ring::hmac::Key, DataError> {
        let text = match self.read("id.key")? {
            Some(text) => text,
            None => {
                let text = new_token().map_err(DataError::Random)?;
                self.write("id.key", &text)?;
                text
            }
        };
        Ok(ring::hmac::Key::new(ring::hmac::HMAC_SHA256, text.trim().as_bytes()))
    }

    /// The administrator's token, made at the first start.
    pub fn admin_token(&self) -> Result<String, DataError> {
        if let Some(token) = self.read("admin.token")?.filter(|token| !token.trim().is_empty()) {
            return Ok(token.trim().to_owned());
        }
        let token = new_token().map_err(DataError::Random)?;
        self.write("admin.token", &format!("{token}\n"))?;
        Ok(token)
    }

    /// Keeps what is known of sources of stock events.
    pub fn keep_sources(&self, text: &str) -> Result<(), DataError> {
        self.write(SOURCES, text)
    }

    pub fn sources(&self) -> Result<String, DataError> {
        Ok(self.read(SOURCES)?.unwrap_or_default())
    }

    /// Notes that a server uses the directory.
    pub fn note_use(&self, now: Millis) -> Result<(), DataError> {
        self.write(LAST_USE, &format!("{now}\n"))
    }

    /// When a server last used it, as far as it was noted.
    pub fn last_use(&self) -> Result<Millis, DataError> {
        let text = self.read(LAST_USE)?;
        Ok(text.and_then(|text| text.trim().parse().ok()).map_or(Millis(0), Millis))
    }

    /// The tokens to be revoked before anybody is served.
    pub fn to_revoke(&self) -> Result<Vec<String>, DataError> {
        let text = self.read(REVOKE)?.unwrap_or_default();
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// They are revoked, durably.
    pub fn revoked(&self) -> Result<(), DataError> {
        match std::fs::remove_file(self.file(REVOKE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.error(REVOKE)(error)),
            _ => Ok(()),
        }
    }

    /// Writes the profile for this machine's clients.
    pub fn write_profile(
        &self,
        quic: SocketAddr,
        http: SocketAddr,
        token: &str,
    ) -> Result<PathBuf, DataError> {
        let reachable = |address: SocketAddr| match address.ip().is_unspecified() {
            true if address.is_ipv4() => SocketAddr::from(([127, 0, 0, 1], address.port())),
            true => SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], address.port())),
            false => address,
        };
        let profile = Profile {
            quic: reachable(quic).to_string(),
            http: reachable(http).to_string(),
            server_name: "localhost".into(),
            ca: "ca.pem".into(),
            token: token.into(),
        };
        let text = toml::to_string(&profile).expect("a profile is plain text");
        self.write("client.toml", &text)?;
        Ok(self.file("client.toml"))
    }
}
