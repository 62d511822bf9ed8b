//! Connections: how many, with or without TLS, HTTP/1.1 or HTTP/2, and how long each may take.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use stockline_core::id::PrincipalId;
use stockline_core::limit;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;

use super::envelope::Known;
use super::stall::Calls;
use crate::budget::Charge;
use crate::data::Certificate;
use crate::engine::Engine;

/// Connections that are open.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// How many connections are open.
pub(crate) fn open() -> usize {
    OPEN.load(Ordering::Relaxed)
}

/// Whom a call comes from.
#[derive(Clone)]
pub(super) struct Peer {
    pub(super) from: IpAddr,
    /// The calls of its connection, where it can have several.
    pub(super) calls: Option<Arc<Calls>>,
    pub(super) known: Known,
    /// The place of its connection among those of its principal.
    pub(super) place: Arc<Place>,
}

/// Whose connection it is: that of who calls first.
#[derive(Default)]
pub(super) struct Place {
    charge: OnceLock<Charge>,
    refused: Notify,
}

impl Place {
    /// Counts the connection among those of a principal. Where that has as many as it may, `false`, and the connection
    /// is closed soon.
    pub(super) fn take(&self, engine: &Engine, principal: PrincipalId) -> bool {
        if self.charge.get().is_some() {
            return true;
        }
        let charge = engine.budgets().connections.charge(principal, 1);
        let is_granted = charge.is_some();
        match charge {
            // Of two calls at once the later gives its charge back.
            Some(charge) => drop(self.charge.set(charge)),
            None => self.refused.notify_one(),
        }
        is_granted
    }

    /// Ends when the refusal had its time to arrive.
    async fn ended(&self) {
        self.refused.notified().await;
        tokio::time::sleep(REFUSAL).await;
    }
}

/// How connections are encrypted: not at all where nobody else can listen.
pub fn tls(address: IpAddr, certificate: &Certificate) -> Result<Option<TlsAcceptor>, String> {
    if address.is_loopback() {
        return Ok(None);
    }
    let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
    let config = certificate.tls(&versions, &[b"h2", b"http/1.1"])?;
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

/// What a client has to take the answer that it has too many connections.
const REFUSAL: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_millis(limit::SIGN_IN_MS_MAX);
const SILENCE: Duration = Duration::from_millis(limit::HTTP_IDLE_MS_MAX);
const STALLED: Duration = Duration::from_millis(limit::STALLED_READER_MS_MAX);

/// Descriptors for files, QUIC, backups and calls to others.
const OTHER_DESCRIPTORS: usize = 64;

/// Connections at once: no more than there are descriptors for.
pub(crate) fn connections_max() -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |most| most as usize);
    descriptors.saturating_sub(OTHER_DESCRIPTORS).clamp(1, limit::HTTP_CONNECTIONS_MAX)
}

/// Raises the limit of descriptors to what the system allows.
pub fn raise_descriptors() {
    let now = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: now.maximum, maximum: now.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        tracing::warn!("the limit of open files stays at {:?}: {error}", now.current);
    }
}

/// Serves connections until it is told to stop, then lets each finish what it is at.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(connections_max()));
    let graceful = GracefulShutdown::new();
    loop {
        // Where all places are taken the next connection waits in the listener's own queue.
        let accepted = tokio::select! {
            accepted = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, listener.accept().await)
            } => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (Ok(place), Ok((stream, from))) = accepted else {
            // No file descriptors, most likely: others end meanwhile.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (tls, router, watcher) = (tls.clone(), router.clone(), graceful.watcher());
        tokio::spawn(async move {
            OPEN.fetch_add(1, Ordering::Relaxed);
            connection(stream, from.ip().to_canonical(), tls, router, watcher).await;
            OPEN.fetch_sub(1, Ordering::Relaxed);
            drop(place);
        });
    }
    drop(listener);
    // Who has not finished by then is cut off.
    let _ = timeout(Duration::from_millis(limit::HTTP_DRAIN_MS_MAX), graceful.shutdown()).await;
}

/// One connection. One that fails has nobody to be told.
async fn connection(
    stream: TcpStream,
    from: IpAddr,
    tls: Option<TlsAcceptor>,
    router: Router,
    watcher: Watcher,
) {
    // Answers are written whole: waiting for more to send along would only delay them.
    let _ = stream.set_nodelay(true);
    match tls {
        Some(tls) => {
            let Ok(Ok(stream)) = timeout(PATIENCE, tls.accept(stream)).await else { return };
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            talk(stream, from, is_http2, router, watcher).await;
        }
        None => {
            // Without TLS the first bytes say which it is; who says nothing is no client.
            let mut first = [0; 3];
            let Ok(Ok(1..)) = timeout(PATIENCE, stream.peek(&mut first)).await else { return };
            talk(stream, from, first == *b"PRI", router, watcher).await;
        }
    }
}

async fn talk(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    from: IpAddr,
    is_http2: bool,
    router: Router,
    watcher: Watcher,
) {
    let mut stream = TimeoutStream::new(stream);
    // Who takes nothing of its answers is let go.
    stream.set_write_timeout(Some(STALLED));
    let calls = is_http2.then(Calls::new);
    let (routes, of_calls) = (TowerToHyperService::new(router), calls.clone());
    let place = Arc::new(Place::default());
    let of_place = Arc::clone(&place);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let place = Arc::clone(&of_place);
        let peer = Peer { from, calls: of_calls.clone(), known: Known::default(), place };
        request.extensions_mut().insert(peer);
        routes.call(request)
    });
    if let Some(calls) = calls {
        // Its signs of life come when asked for, calls open or not.
        stream.set_read_timeout(Some(SILENCE));
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(SILENCE / 3)
            .keep_alive_timeout(SILENCE / 3)
            .max_concurrent_streams(limit::HTTP_STREAMS_MAX)
            .max_header_list_size(limit::HTTP_HEADER_BYTES_MAX as u32)
            .max_send_buf_size(64 << 10);
        let connection = builder.serve_connection(TokioIo::new(Box::pin(stream)), service);
        tokio::select! {
            _ = watcher.watch(connection) => {}
            () = calls.stalled() => {}
            () = place.ended() => {}
        }
    } else {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(SILENCE)
            .max_buf_size(limit::HTTP_HEADER_BYTES_MAX);
        let connection = builder.serve_connection(TokioIo::new(Box::pin(stream)), service);
        tokio::select! {
            _ = watcher.watch(connection) => {}
            () = place.ended() => {}
        }
    }
}
