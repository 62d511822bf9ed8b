//! Webhooks: changes are sent to an address, signed, and again until they arrive. `keeper` has a `worker` for each, `send`
//! sends one message.

mod keeper;
mod send;
mod worker;

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use stockline_core::catalogue::{Definition, EntryKind, Secret, Webhook};
use stockline_core::outcome::Code;

use super::answer::{Moment, Told};
use super::body::Sent;
use super::call::{At, Caller, random};
use super::catalogue::{Condition, Done, Entry, Named, Versioned, administers, entry, put_entry, seen};
use super::happened::{self, Envelope, TOPICS, Topic};
use super::problem::Problem;
pub(super) use keeper::run;
pub(super) use send::{Failed, Message};

/// Where changes are sent.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WebhookBody {
    /// `https://…`, or `http://…` on the server's own machine.
    url: String,
    /// Whose changes; without, all reservations and no numbers.
    channel: Option<String>,
    /// Without: `reservations`, and `numbers` where there is a channel.
    #[serde(default)]
    what: Vec<Topic>,
    /// It begins with what the channel is offered.
    #[serde(default)]
    snapshot: bool,
    /// Of one sku at most one number in so many milliseconds; 250 where nothing is said.
    #[serde(default = "gather_ms")]
    #[schemars(range(max = 25_000))]
    gather_ms: u32,
    #[serde(default)]
    envelope: Envelope,
    /// Times that a message is tried before it becomes a dead letter; 10 where nothing is said.
    #[serde(default = "attempts")]
    #[schemars(range(min = 1, max = 32))]
    attempts: u16,
    /// The first pause between two tries, in milliseconds; each is four times the one before, and an hour at most. 5000
    /// where nothing is said.
    #[serde(default = "backoff_ms")]
    #[schemars(range(min = 1, max = 3_600_000))]
    backoff_ms: u32,
}

fn gather_ms() -> u32 {
    250
}

fn attempts() -> u16 {
    10
}

fn backoff_ms() -> u32 {
    5_000
}

impl Entry for WebhookBody {
    const KIND: EntryKind = EntryKind::Webhook;

    /// With no secret yet.
    fn define(self, name: String) -> Result<Definition, Problem> {
        send::check(&self.url).map_err(Problem::invalid)?;
        let what = match self.what.iter().fold(0, |what, topic| what | topic.bit()) {
            0 => happened::usual(self.channel.is_some()),
            what => what,
        };
        let hook = Webhook {
            url: self.url,
            channel: self.channel,
            what,
            cloud_events: self.envelope == Envelope::CloudEvents,
            snapshot: self.snapshot,
            gather_ms: self.gather_ms,
            attempts: self.attempts,
            backoff_ms: self.backoff_ms,
            secret: Secret([0; 32]),
        };
        let rules = "numbers, statuses and a snapshot are a channel's, a snapshot is of numbers or statuses; gather_ms is at \
                     most 25000, attempts 1 to 32, backoff_ms 1 to 3600000, an address at most 2048 bytes";
        if !hook.is_sound() {
            return Err(Problem::invalid(rules));
        }
        Ok(Definition::Webhook { name, hook })
    }

    fn of(definition: &Definition) -> Option<WebhookBody> {
        let Definition::Webhook { hook, .. } = definition.clone() else { return None };
        Some(WebhookBody {
            url: hook.url,
            channel: hook.channel,
            what: TOPICS.into_iter().filter(|topic| hook.what & topic.bit() != 0).collect(),
            snapshot: hook.snapshot,
            gather_ms: hook.gather_ms,
            envelope: if hook.cloud_events { Envelope::CloudEvents } else { Envelope::None },
            attempts: hook.attempts,
            backoff_ms: hook.backoff_ms,
        })
    }
}

/// A webhook was put. Its secret is told when it is made, and when it is another.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "WebhookPut")]
pub(super) struct Put {
    name: String,
    /// 0 where nothing changed.
    lsn: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

fn hook_of(definition: &Definition) -> Option<&Webhook> {
    if let Definition::Webhook { hook, .. } = definition { Some(hook) } else { None }
}

fn with(mut definition: Definition, change: impl FnOnce(&mut Webhook)) -> Definition {
    if let Definition::Webhook { hook, .. } = &mut definition {
        change(hook);
    }
    definition
}

/// Makes a webhook, or changes one, which keeps its secret and goes on where it is.
pub(super) async fn put(
    caller: Caller,
    At(Named { name }): At<Named>,
    Condition(given): Condition,
    Sent(body): Sent<WebhookBody>,
) -> Result<Versioned<Put>, Problem> {
    administers(&caller)?;
    let definition = body.define(name.clone())?;
    let known = caller.engine.names().entry(EntryKind::Webhook, &name);
    let before = known.as_deref().and_then(hook_of).map(|hook| hook.secret);
    let secret = before.map_or_else(|| random().map(Secret), Ok)?;
    // Made twice at once it would have two secrets, and one of the callers the wrong one.
    let condition = Condition(given.or(Some(known.as_ref().map_or(0, |known| known.version()))));
    let done = put_entry(&caller, condition, vec![with(definition, |hook| hook.secret = secret)]).await?;
    // What happens once it is written where a new one begins, that is sent.
    if before.is_none() && !is_at_work(&caller, &name, true).await {
        let text = "it is there and has not begun yet; rotate it to learn a secret";
        return Err(Problem::of(Code::Overloaded, text));
    }
    let told = before.is_none().then(|| send::text_of(secret));
    Ok(done.map(|Done { name, lsn, .. }| Put { name, lsn, secret: told }))
}

/// Waits until a webhook has a worker, or has none any more; answers whether that is so in time.
async fn is_at_work(caller: &Caller, name: &str, due: bool) -> bool {
    for _ in 0..500 {
        if caller.engine.metrics().deliveries.contains_key(name) == due {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

/// Another secret. For a day messages are signed with the one before, too.
pub(super) async fn rotate(
    caller: Caller,
    At(Named { name }): At<Named>,
    condition: Condition,
) -> Result<Told<Put>, Problem> {
    let (definition, condition) = seen(&caller, EntryKind::Webhook, &name, condition)?;
    let secret = Secret(random()?);
    let definition = with(definition, |hook| hook.secret = secret);
    let Done { name, lsn, .. } = put_entry(&caller, condition, vec![definition]).await?.into_body();
    Ok(Told(Put { name, lsn, secret: Some(send::text_of(secret)) }))
}

/// Nothing more is sent, and what waited is forgotten.
pub(super) async fn give_up(
    caller: Caller,
    At(Named { name }): At<Named>,
    condition: Condition,
) -> Result<Told<Done>, Problem> {
    let (definition, condition) = seen(&caller, EntryKind::Webhook, &name, condition)?;
    let definition = with(definition, |hook| hook.url = String::new());
    let done = put_entry(&caller, condition, vec![definition]).await?.into_body();
    // Whoever makes one of the same name next begins anew.
    is_at_work(&caller, &name, false).await;
    Ok(Told(done))
}

/// How a webhook's receiver is doing.
#[derive(Serialize, JsonSchema)]
pub(super) struct DeliveryOf {
    name: String,
    #[schemars(extend("enum" = ["idle", "sending", "failing"]))]
    state: &'static str,
    /// The first LSN that it has no message of, and how many there are from there on.
    next_lsn: u64,
    lag: u64,
    /// Messages that wait, and their bytes.
    waiting: usize,
    waiting_bytes: u64,
    /// Messages that arrived, tries in vain, and messages that became dead letters, since the server's start.
    delivered: u64,
    failed: u64,
    given_up: u64,
    /// Since when the message at hand fails.
    failing_since: Option<Moment>,
    /// How the last try failed.
    error: Option<String>,
}

pub(super) async fn delivery(
    caller: Caller,
    At(Named { name }): At<Named>,
) -> Result<Told<DeliveryOf>, Problem> {
    administers(&caller)?;
    entry(&caller, EntryKind::Webhook, &name)?;
    let found = caller.engine.metrics().deliveries.get(&name).map(|found| found.clone()).unwrap_or_default();
    let durable = caller.engine.view().durable().0;
    let state = match (found.waiting, found.failing_since) {
        (_, Some(_)) => "failing",
        (0, None) => "idle",
        (_, None) => "sending",
    };
    Ok(Told(DeliveryOf {
        name,
        state,
        next_lsn: found.next.0,
        lag: (durable + 1).saturating_sub(found.next.0),
        waiting: found.waiting,
        waiting_bytes: found.waiting_bytes,
        delivered: found.delivered,
        failed: found.failed,
        given_up: found.given_up,
        failing_since: found.failing_since.and_then(Moment::of),
        error: found.error,
    }))
}

/// How a message that was sent once fared.
#[derive(Serialize, JsonSchema)]
pub(super) struct Tried {
    /// What the message's `webhook-id` was.
    id: String,
    #[schemars(extend("enum" = ["delivered", "failed"]))]
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Sends a message of type `stockline.test`, once and at once.
pub(super) async fn test(caller: Caller, At(Named { name }): At<Named>) -> Result<Told<Tried>, Problem> {
    administers(&caller)?;
    let found = entry(&caller, EntryKind::Webhook, &name)?;
    let hook = hook_of(&found).expect("it is of that kind");
    let message = worker::plain_message(&caller.engine, "stockline.test", json!({ "webhook": name }));
    let sent = send_once(&caller, &name, hook, &message).await;
    let error = sent.err().map(|failed| failed.why);
    let status = if error.is_none() { "delivered" } else { "failed" };
    Ok(Told(Tried { id: message.id, status, error }))
}

async fn send_once(caller: &Caller, name: &str, hook: &Webhook, message: &Message) -> Result<(), Failed> {
    let now = caller.engine.clock().now();
    let secrets = worker::secrets_of(&caller.engine, name, hook).await;
    send::send(&hook.url, &secrets, message, now).await
}

/// Sends what could not be delivered once more.
pub(super) async fn again(caller: &Caller, name: &str, message: &Message) -> Result<(), Failed> {
    let found = caller.engine.names().entry(EntryKind::Webhook, name);
    match found.as_deref().and_then(hook_of) {
        Some(hook) => send_once(caller, name, hook, message).await,
        None => Err(Failed { why: format!("no webhook {name:?}"), wait: None }),
    }
}
