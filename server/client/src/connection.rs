//! One QUIC connection, signed in: frames out, frames in, nothing remembered.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Endpoint, RecvStream, SendStream, TransportConfig, VarInt};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use stockline_core::limit;
use stockline_core::outcome::Code;
use stockline_core::wire::{self, FrameType, Inbox, RawFrame, SignIn, Welcome};

use crate::{ClientError, Profile};

/// Silence after which the server is taken to be gone, and how often a sign of life is asked for.
const IDLE: Duration = Duration::from_secs(4);
const KEEP_ALIVE: Duration = Duration::from_secs(1);
const SIGN_IN: Duration = Duration::from_secs(5);
/// Bytes the server may send ahead.
const WINDOW: u32 = 8 << 20;

/// Both halves of a signed-in connection, and what the server said at sign-in.
pub struct Connection {
    pub sink: FrameSink,
    pub source: FrameSource,
    pub welcome: Welcome,
    /// When it said so.
    pub welcomed: Instant,
}

/// Sends frames.
pub struct FrameSink {
    stream: SendStream,
}

/// Receives frames.
pub struct FrameSource {
    stream: RecvStream,
    inbox: Inbox,
    chunks: Vec<Bytes>,
    // The endpoint drives the connection for as long as it is held.
    _endpoint: Endpoint,
    connection: quinn::Connection,
}

fn unreachable(error: impl std::fmt::Display) -> ClientError {
    ClientError::Unreachable(error.to_string())
}

fn client_config(profile: &Profile) -> Result<ClientConfig, ClientError> {
    let wrong = |reason: String| ClientError::Profile { path: profile.ca.display().to_string(), reason };
    let mut roots = rustls::RootCertStore::empty();
    let pem = std::fs::read(&profile.ca).map_err(|error| wrong(error.to_string()))?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| wrong(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![wire::ALPN.to_vec()];
    let quic = QuicClientConfig::try_from(tls).map_err(|error| wrong(error.to_string()))?;
    let mut config = ClientConfig::new(Arc::new(quic));
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(IDLE.try_into().expect("a few seconds fit")))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .stream_receive_window(VarInt::from_u32(WINDOW))
        .receive_window(VarInt::from_u32(WINDOW))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_concurrent_bidi_streams(VarInt::from_u32(0));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// Opens a QUIC connection and its one stream, without signing in.
pub async fn connect(profile: &Profile) -> Result<(FrameSink, FrameSource), ClientError> {
    let address = profile
        .quic
        .to_socket_addrs()
        .map_err(|error| ClientError::Unreachable(format!("{}: {error}", profile.quic)))?
        .next()
        .ok_or_else(|| ClientError::Unreachable(format!("{} has no address", profile.quic)))?;
    let local: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let mut endpoint = Endpoint::client(local).map_err(unreachable)?;
    endpoint.set_default_client_config(client_config(profile)?);
    let connecting = endpoint.connect(address, &profile.server_name).map_err(unreachable)?;
    let connection = connecting.await.map_err(unreachable)?;
    let (send, recv) = connection.open_bi().await.map_err(unreachable)?;
    let source = FrameSource {
        stream: recv,
        inbox: Inbox::for_replies(),
        chunks: vec![Bytes::new(); 32],
        _endpoint: endpoint,
        connection,
    };
    Ok((FrameSink { stream: send }, source))
}

impl Connection {
    /// Connects and signs in.
    pub async fn open(profile: &Profile) -> Result<Connection, ClientError> {
        let opening = async {
            let (mut sink, mut source) = connect(profile).await?;
            let mut frame = Vec::new();
            let token = profile.token.trim().as_bytes().to_vec();
            wire::encode(&mut frame, FrameType::SignIn, 0, &SignIn { token });
            sink.send(&frame).await?;
            loop {
                if let Some(frame) = source.next_frame()? {
                    let welcome = match frame.kind {
                        FrameType::Welcome => wire::access::<wire::ArchivedWelcome>(frame.archive)
                            .map_err(|error| ClientError::Protocol(error.to_string()))?,
                        FrameType::Refusal => return Err(refusal(frame.archive)),
                        other => return Err(ClientError::Protocol(format!("{other:?} instead of Welcome"))),
                    };
                    let welcome = Welcome {
                        now_ms: welcome.now_ms.to_native(),
                        durable_lsn: welcome.durable_lsn.to_native(),
                        principal: welcome.principal.to_native(),
                        role: welcome.role,
                        channel: welcome.channel.to_native(),
                        frame_bytes_max: welcome.frame_bytes_max.to_native(),
                        frame_commands_max: welcome.frame_commands_max.to_native(),
                        frame_lines_max: welcome.frame_lines_max.to_native(),
                        window_ms: welcome.window_ms.to_native(),
                        window_commands: welcome.window_commands.to_native(),
                    };
                    return Ok(Connection { sink, source, welcome, welcomed: Instant::now() });
                }
                source.receive().await?;
            }
        };
        tokio::time::timeout(SIGN_IN, opening)
            .await
            .map_err(|_| ClientError::Unreachable(format!("no answer from {} in 5 s", profile.quic)))?
    }
}

/// What a refusal frame says.
pub(crate) fn refusal(archive: &[u8]) -> ClientError {
    let Ok(refusal) = wire::access::<wire::ArchivedRefusal>(archive) else {
        return ClientError::Protocol("a refusal that cannot be read".into());
    };
    let text = String::from_utf8_lossy(&refusal.text).into_owned();
    match Code::from_number(refusal.code) {
        Some(Code::Unauthenticated) => ClientError::SignIn(text),
        Some(code) => ClientError::Refused { code, text },
        None => ClientError::Protocol(format!("refusal code {}", refusal.code)),
    }
}

impl FrameSink {
    /// Sends whole frames. Not to be dropped half way.
    pub async fn send(&mut self, frames: &[u8]) -> Result<(), ClientError> {
        self.stream.write_all(frames).await.map_err(unreachable)
    }

    /// Says that no more will be sent.
    pub fn finish(&mut self) {
        // It fails only where the stream is closed already.
        let _ = self.stream.finish();
    }
}

impl FrameSource {
    /// Waits for more bytes. May be dropped at any time.
    pub async fn receive(&mut self) -> Result<(), ClientError> {
        let count = self.stream.read_chunks(&mut self.chunks).await.map_err(unreachable)?;
        let count = count.ok_or_else(|| ClientError::Unreachable("the server closed the stream".into()))?;
        for chunk in &mut self.chunks[..count] {
            self.inbox.push(chunk);
            *chunk = Bytes::new();
        }
        Ok(())
    }

    /// The next whole frame among the bytes received.
    pub fn next_frame(&mut self) -> Result<Option<RawFrame<'_>>, ClientError> {
        self.inbox.next_frame().map_err(|error| ClientError::Protocol(error.to_string()))
    }

    /// Ends the connection at once.
    pub fn close(&self) {
        self.connection.close(VarInt::from_u32(0), b"done");
    }
}

const _: () = assert!(WINDOW as usize >= limit::FRAME_BYTES_MAX);
