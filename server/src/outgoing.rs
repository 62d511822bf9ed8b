//! HTTP calls that the server makes: to receivers of webhooks, and to collectors of traces.

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

pub type Outgoing = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// One that trusts whose certificates the system trusts, or whatever `SSL_CERT_FILE` names.
pub fn new() -> Outgoing {
    let provider = rustls::crypto::ring::default_provider();
    let connector = match HttpsConnectorBuilder::new().with_provider_and_native_roots(provider.clone()) {
        Ok(builder) => builder,
        Err(error) => {
            tracing::warn!("calls over https reach nobody: no trusted certificates are to be had ({error})");
            let config = rustls::ClientConfig::builder_with_provider(provider.into())
                .with_safe_default_protocol_versions()
                .expect("ring speaks TLS 1.2 and 1.3")
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
            HttpsConnectorBuilder::new().with_tls_config(config)
        }
    };
    Client::builder(TokioExecutor::new()).build(connector.https_or_http().enable_http1().build())
}
