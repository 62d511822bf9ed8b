//! One message to one receiver, signed as Standard Webhooks say (<https://www.standardwebhooks.com>): the signature is over
//! id, time and body, with every secret that holds.

use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use axum::http::{Request, StatusCode, Uri, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use ring::hmac;
use serde::{Deserialize, Serialize};
use stockline_core::catalogue::Secret;
use stockline_core::id::Millis;
use stockline_core::limit;
use tokio::time::timeout;

use crate::outgoing::{self, Outgoing};
use crate::trace::{self, Span};

/// A message as it waits, and as it lies in a dead letter. Its id stays the same however often it is sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in super::super) struct Message {
    pub(in super::super) id: String,
    pub(in super::super) kind: String,
    pub(in super::super) body: String,
}

/// Why a message did not arrive.
#[derive(Debug)]
pub(in super::super) struct Failed {
    pub(in super::super) why: String,
    /// For how long the receiver does not want to hear anything.
    pub(in super::super) wait: Option<Duration>,
}

fn sender() -> &'static Outgoing {
    static SENDER: OnceLock<Outgoing> = OnceLock::new();
    SENDER.get_or_init(outgoing::new)
}

/// Whether messages may be sent there: over TLS, or to this machine. No redirect is followed to anywhere else.
pub(super) fn check(url: &str) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("url: {why}"));
    let Ok(uri) = url.parse::<Uri>() else { return wrong("is none") };
    let Some(authority) = uri.authority().filter(|authority| !authority.as_str().contains('@')) else {
        return wrong("names a host, and no user or password");
    };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if is_here => Ok(()),
        _ => wrong("is https, or http on this machine"),
    }
}

/// A secret as receivers have it.
pub(super) fn text_of(secret: Secret) -> String {
    format!("whsec_{}", STANDARD.encode(secret.0))
}

/// What goes into `webhook-signature`.
fn signatures(secrets: &[Secret], id: &str, at_s: u64, body: &str) -> String {
    let one = |secret: &Secret| {
        let mut signing = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &secret.0));
        signing.update(format!("{id}.{at_s}.").as_bytes());
        signing.update(body.as_bytes());
        format!("v1,{}", STANDARD.encode(signing.sign()))
    };
    secrets.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// Sends a message once.
pub(super) async fn send(
    url: &str,
    secrets: &[Secret],
    message: &Message,
    now: Millis,
) -> Result<(), Failed> {
    let failed = |why: String| Failed { why, wait: None };
    // One that was put over QUIC was not looked at.
    check(url).map_err(failed)?;
    let mut span = Span::message(|| "POST".into());
    if trace::is_on() {
        let host = url.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned));
        span.set("http.request.method", "POST");
        span.set("server.address", host.unwrap_or_default());
        span.set("stockline.message_id", message.id.clone());
    }
    let sent = exchange(url, secrets, message, now, &span).await;
    match &sent {
        Ok(status) => span.set("http.response.status_code", i64::from(status.as_u16())),
        Err(failed) => span.fail(&failed.why),
    }
    sent.map(|_| ())
}

/// Answers the receiver's status, a good one.
async fn exchange(
    url: &str,
    secrets: &[Secret],
    message: &Message,
    now: Millis,
    span: &Span,
) -> Result<StatusCode, Failed> {
    let failed = |why: String| Failed { why, wait: None };
    let at_s = now.0 / 1_000;
    let mut request = Request::post(url)
        .header(header::CONTENT_TYPE, message.kind.as_str())
        .header(header::USER_AGENT, concat!("stockline/", env!("CARGO_PKG_VERSION")))
        .header("webhook-id", &message.id)
        .header("webhook-timestamp", at_s)
        .header("webhook-signature", signatures(secrets, &message.id, at_s, &message.body));
    if let Some(traceparent) = span.traceparent() {
        request = request.header("traceparent", traceparent);
    }
    let request = request
        .body(Full::new(Bytes::from(message.body.clone())))
        .map_err(|error| failed(error.to_string()))?;
    let answer =
        timeout(Duration::from_millis(limit::WEBHOOK_ANSWER_MS_MAX), sender().request(request)).await;
    let (parts, body) = match answer {
        Ok(Ok(response)) => response.into_parts(),
        Ok(Err(error)) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            return Err(failed(format!("{error}{}", cause.unwrap_or_default())));
        }
        Err(_) => {
            let text = format!("it did not answer within {} s", limit::WEBHOOK_ANSWER_MS_MAX / 1_000);
            return Err(failed(text));
        }
    };
    // Read, so that the connection can be used again; one who says too much, or too slowly, is hung up on.
    let body = Limited::new(body, limit::WEBHOOK_ANSWER_BYTES_MAX).collect();
    let _ = timeout(Duration::from_millis(limit::WEBHOOK_BODY_MS_MAX), body).await;
    if parts.status.is_success() {
        return Ok(parts.status);
    }
    let told = parts.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let longest = Duration::from_millis(limit::WEBHOOK_BACKOFF_MS_MAX);
    // Gone: it is asked as seldom as can be.
    let wait = if parts.status == StatusCode::GONE { Some(longest) } else { told.map(Duration::from_secs) };
    Err(Failed { why: format!("it answered {}", parts.status), wait: wait.map(|wait| wait.min(longest)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_as_the_standard_has_it() {
        // The example of Standard Webhooks' own test suite.
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("base64");
        let mut signing = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &secret));
        signing.update(b"msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{\"test\": 2432232314}");
        assert_eq!(STANDARD.encode(signing.sign()), "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn addresses_are_https_or_here() {
        for good in [
            "https://shop.example/hook?a=b",
            "http://127.0.0.1:9/x",
            "http://localhost:9/",
            "http://[::1]:9/",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in
            ["http://shop.example/", "ftp://127.0.0.1/", "https://a:b@shop.example/", "/hook", "", "https://"]
        {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
