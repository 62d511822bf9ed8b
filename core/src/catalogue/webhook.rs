//! Webhooks: where changes are sent as they happen. Sending is the server's business; here it is configuration.

use xxhash_rust::xxh3::xxh3_64;

use crate::{feed, limit};

/// What a webhook is sent, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Webhook {
    /// Empty: it was given up, and counts as not there.
    pub url: String,
    /// Whose changes; all reservations without.
    pub channel: Option<String>,
    /// As followers say it: a sum of 1 (reservations), 2 (statuses) and 4 (numbers).
    pub what: u8,
    /// Messages are envelopes of CloudEvents 1.0.
    pub cloud_events: bool,
    /// It begins with what is offered now.
    pub snapshot: bool,
    /// How long changes are gathered into one message.
    pub gather_ms: u32,
    /// Times that a message is tried, and how long the first pause between two is.
    pub attempts: u16,
    pub backoff_ms: u32,
    pub secret: Secret,
}

impl Webhook {
    pub fn is_sound(&self) -> bool {
        let of_channel = self.channel.is_some() || (self.what == 1 && !self.snapshot);
        self.url.is_empty()
            || (self.url.len() <= limit::WEBHOOK_URL_BYTES_MAX
                && (1..8).contains(&self.what)
                && of_channel
                && (!self.snapshot || feed::tells_offers(self.what))
                && self.gather_ms <= limit::FOLLOW_WAIT_MS_MAX
                && (1..=limit::WEBHOOK_ATTEMPTS_MAX).contains(&self.attempts)
                && (1..=limit::WEBHOOK_BACKOFF_MS_MAX).contains(&u64::from(self.backoff_ms)))
    }
}

/// What messages are signed with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret(pub [u8; 32]);

impl std::fmt::Debug for Secret {
    /// Tells one from another and nothing else.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Secret({:016x})", xxh3_64(&self.0))
    }
}
