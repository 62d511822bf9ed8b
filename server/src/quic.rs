//! The QUIC face: accepts connections within limits and gives each a `session`.

mod session;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, EndpointConfig, IdleTimeout, ServerConfig, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;
use sha2::{Digest, Sha256};
use stockline_core::limit;
use stockline_core::wire;

use crate::data::Certificate;
use crate::engine::Engine;

/// A listening QUIC endpoint.
pub struct QuicFace {
    endpoint: Endpoint,
}

/// Counts one for as long as it lives.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(counter: &'a AtomicUsize) -> Counted<'a> {
        counter.fetch_add(1, Ordering::Relaxed);
        Counted(counter)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Handshakes cost signatures: so many a second are begun.
struct Pace {
    tokens: f64,
    at: Instant,
}

impl Pace {
    /// Whether the next one need not wait.
    fn has_token(&mut self) -> bool {
        let now = Instant::now();
        let since = now.duration_since(self.at).as_secs_f64();
        let tokens = self.tokens + since * limit::HANDSHAKES_PER_S_MAX;
        (self.tokens, self.at) = (tokens.min(limit::HANDSHAKES_BURST_MAX), now);
        self.tokens >= 1.0
    }

    async fn take(&mut self) {
        while !self.has_token() {
            let missing = Duration::from_secs_f64((1.0 - self.tokens) / limit::HANDSHAKES_PER_S_MAX);
            tokio::time::sleep(missing).await;
        }
        self.tokens -= 1.0;
    }
}

fn server_config(certificate: &Certificate) -> Result<ServerConfig, String> {
    let mut tls = certificate.tls(&[&rustls::version::TLS13], &[wire::ALPN])?;
    // 0-RTT data could be replayed by anybody who saw it.
    tls.max_early_data_size = 0;
    let quic = QuicServerConfig::try_from(tls).map_err(|error| error.to_string())?;
    let mut config = ServerConfig::with_crypto(Arc::new(quic));
    let idle = IdleTimeout::try_from(Duration::from_millis(limit::IDLE_MS_MAX));
    let window = VarInt::from_u32(limit::CONNECTION_WINDOW_BYTES as u32);
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(window)
        // Raised at sign-in: a stranger has no use for more.
        .receive_window(VarInt::from_u32(limit::STRANGER_WINDOW_BYTES as u32))
        .send_window(limit::CONNECTION_WINDOW_BYTES as u64)
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(idle.map_err(|error| error.to_string())?));
    config.transport_config(Arc::new(transport)).max_incoming(limit::HANDSHAKES_BEFORE_RETRY);
    Ok(config)
}

/// Keys derived from the server's own, the same after a restart: clients of the process before are told at
/// once that their connections are gone, and need not wait for silence to tell them.
fn endpoint_config(certificate: &Certificate) -> EndpointConfig {
    let derived = |purpose: &str| -> [u8; 32] {
        let mut digest = Sha256::new_with_prefix(purpose);
        digest.update(certificate.key.secret_der());
        digest.finalize().into()
    };
    let reset_key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &derived("stockline stateless reset"));
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    let id_key = derived("stockline connection ids");
    let id_key = u64::from_le_bytes([
        id_key[0], id_key[1], id_key[2], id_key[3], id_key[4], id_key[5], id_key[6], id_key[7],
    ]);
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(id_key)));
    config
}

impl QuicFace {
    /// Listens; must be called inside the tokio runtime.
    pub fn listen(address: SocketAddr, certificate: Certificate) -> Result<QuicFace, String> {
        let endpoint_config = endpoint_config(&certificate);
        let config = server_config(&certificate)?;
        let socket = std::net::UdpSocket::bind(address).map_err(|error| error.to_string())?;
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = Endpoint::new(endpoint_config, Some(config), socket, runtime)
            .map_err(|error| error.to_string())?;
        Ok(QuicFace { endpoint })
    }

    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Serves until [`QuicFace::close`].
    pub async fn serve(&self, engine: Engine) {
        let handshakes = Arc::new(AtomicUsize::new(0));
        let mut pace = Pace { tokens: limit::HANDSHAKES_BURST_MAX, at: Instant::now() };
        while let Some(incoming) = self.endpoint.accept().await {
            let open = handshakes.load(Ordering::Relaxed);
            if (open >= limit::HANDSHAKES_BEFORE_RETRY || !pace.has_token())
                && !incoming.remote_address_validated()
            {
                // Whoever cannot answer, or no longer does, costs this packet, and nobody waits behind it.
                let _ = incoming.retry();
                continue;
            }
            if engine.metrics().quic_connections.load(Ordering::Relaxed) >= limit::CONNECTIONS_MAX
                || engine.is_draining()
            {
                incoming.refuse();
                continue;
            }
            pace.take().await;
            let (engine, session, handshakes) = (engine.clone(), engine.clone(), Arc::clone(&handshakes));
            tokio::spawn(async move {
                let _connection = Counted::new(&engine.metrics().quic_connections);
                let signing_in = async {
                    let _handshake = Counted::new(&handshakes);
                    let connection = incoming.await.ok()?;
                    session::Session::begin(connection, session).await
                };
                let deadline = Duration::from_millis(limit::SIGN_IN_MS_MAX);
                if let Ok(Some(session)) = tokio::time::timeout(deadline, signing_in).await {
                    session.run().await;
                }
            });
        }
    }

    /// Takes no more connections and ends those that are.
    pub async fn close(&self) {
        self.endpoint.close(VarInt::from_u32(0), b"the server is stopping");
        // A peer that does not answer is not waited for.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.endpoint.wait_idle()).await;
    }
}
