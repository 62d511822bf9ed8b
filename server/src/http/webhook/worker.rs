//! The worker of one webhook: a follower of its own that puts what happened into messages, and sends them one after the
//! other. A receiver that is slow, or away, costs nobody else anything: its messages wait in the outbox, up to a limit,
//! and behind that in the journal.
//!
//! What was delivered is written down a little later, so behind a crash some messages may come again, perhaps put
//! together otherwise; none is left out.

use std::collections::VecDeque;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use stockline_core::catalogue::{Definition, NameKind, Principal, Role, Secret, Webhook};
use stockline_core::feed;
use stockline_core::id::{ChannelId, Lsn, Millis, PrincipalId};
use stockline_core::letters::LettersError;
use stockline_core::limit;
use stockline_core::outbox::Outbox;
use stockline_core::outcome::Code;
use stockline_core::wire::Follow;
use tokio::sync::{Semaphore, watch};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until};

use super::super::answer::Moment;
use super::super::dead_letter;
use super::super::happened::{Gap, Happened, Offered, happened, offered};
use super::send::{self, Failed, Message};
use crate::access::Turned;
use crate::engine::Engine;
use crate::follow::{Asked, Followed, Told};
use crate::metrics::Delivery;

/// While so many messages wait, more is gathered into the next ones.
const BEHIND: usize = 8;
const BEHIND_GATHER_MS: u32 = 1_000;
/// What happened and is told to nobody here is written down this seldom.
const IDLE_FLUSH: Duration = Duration::from_secs(10);
/// It reads what everybody reads, so it stands back when there is too much.
const OVERLOADED: Duration = Duration::from_millis(250);
const FLUSH: Duration = Duration::from_millis(limit::WEBHOOK_FLUSH_MS);

/// Does something with the outbox, off this task: it reads and writes the disk. What cannot be done is said.
pub(super) async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, LettersError> + Send + 'static,
) -> Option<T> {
    let done = tokio::task::spawn_blocking(act).await.ok()?;
    done.inspect_err(|error| tracing::error!("webhooks: {error}")).ok()
}

/// What is kept of a webhook.
#[derive(Serialize, Deserialize, Clone, Default)]
#[serde(default)]
struct State {
    /// Whose changes, and which: while what is offered is told, another begins it anew.
    channel: Option<String>,
    what: u8,
    /// The first LSN that is in no message yet, and the number of the next message.
    next_lsn: u64,
    next_number: u64,
    /// The next sku of what is offered, while that is told; and how many were.
    snapshot: Option<(u32, u64)>,
    /// Times that the first message that waits was tried in vain, and since when.
    tries: u16,
    failing_since: u64,
    /// The secret that messages were signed with, the one before, and when that ends.
    secret: [u8; 32],
    former: Option<([u8; 32], u64)>,
}

impl State {
    /// Secrets that hold: the present one, and for a while the one before.
    fn secrets(&self, present: Secret, now: Millis) -> Vec<Secret> {
        let former = self.former.filter(|(_, until)| now.0 < *until).map(|(secret, _)| Secret(secret));
        [Some(present), former].into_iter().flatten().collect()
    }
}

/// What a webhook's messages are signed with now.
pub(super) async fn secrets_of(engine: &Engine, name: &str, hook: &Webhook) -> Vec<Secret> {
    let (outbox, name) = (engine.letters().outbox(), name.to_owned());
    let state = blocking(move || outbox.state(&name)).await.flatten();
    let state = state.and_then(|bytes| serde_json::from_slice::<State>(&bytes).ok()).unwrap_or_default();
    state.secrets(hook.secret, engine.clock().now())
}

/// Bytes that a message counts for, with what is known of it in memory.
fn weight(bytes: usize) -> u64 {
    bytes as u64 + 128
}

/// A message that waits: in memory, in the outbox, or in both.
struct Waiting {
    number: u64,
    bytes: u64,
    message: Option<Message>,
    kept: bool,
}

enum Heard {
    Offered(Result<Offered, Turned>, Told),
    Followed(Followed),
    /// A pause is over.
    Nothing,
}

type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Waits until it is told to stop, or nobody can tell it any more.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Waits for what may not be there.
async fn done<T>(later: &mut Option<Later<T>>) -> T {
    match later {
        Some(later) => later.await,
        None => pending().await,
    }
}

pub(super) struct Worker {
    engine: Engine,
    name: String,
    hook: Webhook,
    /// Who asks, for it.
    principal: Principal,
    turn: Arc<Semaphore>,
    outbox: Outbox,
    state: State,
    told: Told,
    queue: VecDeque<Waiting>,
    /// Bytes of all that waits, and of what is not written yet.
    bytes: u64,
    hot: u64,
    delivery: Delivery,
    /// When what is not written yet will be.
    flush_at: Option<Instant>,
    /// Nothing can be kept; it is tried again.
    broken: bool,
    /// What keeps it from hearing more, and since when.
    trouble: Option<(Millis, String)>,
}

impl Worker {
    pub(super) fn new(engine: Engine, definition: Arc<Definition>) -> Worker {
        let Definition::Webhook { name, hook } = Definition::clone(&definition) else {
            unreachable!("a worker is made for a webhook");
        };
        let principal = Principal {
            id: PrincipalId::SYSTEM,
            name: String::new(),
            role: Role::Admin,
            channel: None,
            nodes: Vec::new(),
            token_sha256: [0; 32],
            clock_ahead_s: 0,
        };
        let outbox = engine.letters().outbox();
        let delivery = engine.metrics().deliveries.get(&name).map(|known| known.clone()).unwrap_or_default();
        Worker {
            engine,
            name,
            hook,
            principal,
            turn: Arc::new(Semaphore::new(1)),
            outbox,
            state: State::default(),
            told: Told::default(),
            queue: VecDeque::new(),
            bytes: 0,
            hot: 0,
            delivery,
            flush_at: None,
            broken: false,
            trouble: None,
        }
    }

    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        while !self.begin().await {
            tokio::select! {
                () = stopped(&mut stop) => return,
                () = sleep(FLUSH) => {}
            }
        }
        let mut hearing: Option<Later<Heard>> = None;
        let mut sending: Option<Later<Result<(), Failed>>> = None;
        let mut retry_at: Option<Instant> = None;
        loop {
            if hearing.is_none() && self.has_room() {
                hearing = Some(self.hear());
            }
            if sending.is_none() && retry_at.is_none() && !self.queue.is_empty() {
                sending = self.send_first().await;
                if sending.is_none() {
                    // It could not be read.
                    retry_at = Some(Instant::now() + FLUSH);
                }
            }
            let (flush_at, again_at) = (self.flush_at, retry_at);
            tokio::select! {
                biased;
                () = stopped(&mut stop) => break,
                sent = done(&mut sending) => {
                    sending = None;
                    retry_at = self.sent(sent).await.map(|pause| Instant::now() + pause);
                }
                heard = done(&mut hearing) => {
                    hearing = None;
                    if let Some(pause) = self.heard(heard).await {
                        hearing = Some(Box::pin(async move {
                            sleep(pause).await;
                            Heard::Nothing
                        }));
                    }
                }
                () = async { sleep_until(again_at.unwrap_or_else(Instant::now)).await }, if again_at.is_some() => {
                    retry_at = None;
                }
                () = async { sleep_until(flush_at.unwrap_or_else(Instant::now)).await }, if flush_at.is_some() => {
                    self.flush().await;
                }
            }
            self.show();
        }
        self.flush().await;
    }

    /// Goes on where it was, or begins here and writes that down.
    async fn begin(&mut self) -> bool {
        let (outbox, name) = (self.outbox.clone(), self.name.clone());
        let Some(kept) = blocking(move || outbox.find(&name)).await else { return false };
        let state = kept.state.map(|bytes| serde_json::from_slice::<State>(&bytes));
        let waits = |(number, bytes)| Waiting { number, bytes: weight(bytes), message: None, kept: true };
        self.queue = kept.waiting.into_iter().map(waits).collect();
        (self.bytes, self.hot) = (self.queue.iter().map(|waiting| waiting.bytes).sum(), 0);
        let (now, secret) = (self.engine.clock().now(), self.hook.secret.0);
        let durable = self.engine.view().durable();
        match state {
            Some(Ok(state)) => {
                self.state = state;
                if self.state.secret != secret {
                    self.state.former = Some((self.state.secret, now.plus(limit::WEBHOOK_FORMER_MS).0));
                }
                let same = (&self.state.channel, self.state.what) == (&self.hook.channel, self.hook.what);
                if self.state.snapshot.is_some() && !same {
                    self.state.snapshot = feed::tells_offers(self.hook.what).then_some((0, 0));
                }
            }
            // One that is tried again begins where the first try did.
            None if self.state.next_lsn == 0 => {
                self.state.next_lsn = durable.next().0;
                self.state.snapshot = self.hook.snapshot.then_some((0, 0));
            }
            None => {}
            Some(Err(_)) => self.state.next_lsn = u64::MAX,
        }
        let last = self.queue.back().map_or(0, |last| last.number + 1);
        self.state.next_number = self.state.next_number.max(last);
        (self.state.channel, self.state.what) = (self.hook.channel.clone(), self.hook.what);
        self.state.secret = secret;
        if self.state.next_lsn > durable.next().0 {
            // The ledger went back behind it: what it knows never was.
            self.gap().await;
        }
        self.flush().await;
        if !self.broken {
            self.show();
        }
        !self.broken
    }

    /// Whether more may wait.
    fn has_room(&self) -> bool {
        !self.broken
            && self.hot < limit::WEBHOOK_HOT_BYTES_MAX as u64
            && self.bytes < limit::WEBHOOK_QUEUE_BYTES_MAX
    }

    fn channel(&self) -> ChannelId {
        let id = self.hook.channel.as_ref().and_then(|name| self.engine.names().id(NameKind::Channel, name));
        id.map_or(ChannelId::SHARED, |id| ChannelId(id as u16))
    }

    /// Asks what happened next.
    fn hear(&mut self) -> Later<Heard> {
        let (engine, channel) = (self.engine.clone(), self.channel());
        let mut told = std::mem::take(&mut self.told);
        if let (Some(snapshot), next_lsn) = (self.state.snapshot, self.state.next_lsn) {
            return Box::pin(async move {
                let offered = offered(&engine, channel, snapshot, next_lsn, &mut told).await;
                Heard::Offered(offered, told)
            });
        }
        let behind = self.queue.len() >= BEHIND;
        let asked = Follow {
            from_lsn: self.state.next_lsn,
            channel: channel.0,
            what: self.hook.what,
            wait_ms: limit::FOLLOW_WAIT_MS_MAX,
            gather_ms: self.hook.gather_ms.max(if behind { BEHIND_GATHER_MS } else { 0 }),
        };
        let asked = Asked::new(&self.principal, &self.engine, &asked);
        let turn = Arc::clone(&self.turn);
        Box::pin(async move {
            Heard::Followed(match asked {
                Ok(asked) => asked.answer(engine, turn, told).await,
                Err(turned) => Followed { answer: Err(turned), told },
            })
        })
    }

    /// Puts what it heard into messages; answers how long it may not ask again.
    async fn heard(&mut self, heard: Heard) -> Option<Duration> {
        let answer = match heard {
            Heard::Nothing => return None,
            Heard::Offered(offered, told) => {
                self.told = told;
                offered.map(|Offered { all, next }| {
                    self.state.snapshot = next;
                    all
                })
            }
            Heard::Followed(Followed { answer, told }) => {
                self.told = told;
                answer.map(|changes| {
                    self.state.next_lsn = changes.next_lsn;
                    happened(&self.engine, self.channel().0, &changes)
                })
            }
        };
        match answer {
            Ok(all) => {
                self.trouble = None;
                self.put(all).await;
                self.engine.is_draining().then_some(FLUSH)
            }
            Err(turned) if turned.code == Code::CursorUnknown => {
                self.gap().await;
                None
            }
            Err(turned) => {
                if self.trouble.is_none() {
                    tracing::warn!(webhook = self.name, code = turned.code.name(), "{}", turned.text);
                }
                let since = self.trouble.take().map_or_else(|| self.engine.clock().now(), |(since, _)| since);
                self.trouble = Some((since, turned.text));
                Some(if turned.code == Code::Overloaded { OVERLOADED } else { IDLE_FLUSH })
            }
        }
    }

    /// What came next is not kept any more: that is said, and what is offered now is told where numbers are followed.
    async fn gap(&mut self) {
        let from_lsn = self.state.next_lsn;
        self.state.next_lsn = self.engine.view().durable().next().0;
        tracing::warn!(
            webhook = self.name,
            from_lsn,
            lsn = self.state.next_lsn - 1,
            "a gap: it was away too long"
        );
        let detail = "what happened in between is not kept any more; read again what you must know";
        let gap = Gap { from_lsn, lsn: self.state.next_lsn - 1, detail };
        self.told = Told::default();
        self.state.snapshot = feed::tells_offers(self.hook.what).then_some((0, 0));
        self.put(vec![Happened::Gap(gap)]).await;
    }

    async fn put(&mut self, all: Vec<Happened>) {
        if all.is_empty() {
            return self.flush_in(IDLE_FLUSH);
        }
        let mut all = all.into_iter().peekable();
        while all.peek().is_some() {
            let some: Vec<Happened> = all.by_ref().take(limit::WEBHOOK_CHANGES_MAX).collect();
            let message = self.message(some);
            let number = self.state.next_number;
            self.state.next_number += 1;
            let bytes = weight(message.body.len());
            (self.bytes, self.hot) = (self.bytes + bytes, self.hot + bytes);
            self.queue.push_back(Waiting { number, bytes, message: Some(message), kept: false });
            // There may be many, and others want to go on.
            yield_now().await;
        }
        self.flush_in(if self.has_room() { FLUSH } else { Duration::ZERO });
    }

    fn message(&self, changes: Vec<Happened>) -> Message {
        if self.hook.cloud_events {
            let envelopes: Vec<_> = changes.into_iter().map(Happened::enveloped).collect();
            let body = serde_json::to_string(&envelopes).unwrap_or_default();
            return new_message("application/cloudevents-batch+json", body);
        }
        let change = |change: Happened| json!({ "type": change.kind(), "id": change.id(), "data": change });
        let changes: Vec<_> = changes.into_iter().map(change).collect();
        plain_message(&self.engine, "stockline.changes", json!({ "webhook": self.name, "changes": changes }))
    }

    async fn send_first(&mut self) -> Option<Later<Result<(), Failed>>> {
        let first = self.queue.front_mut()?;
        if first.message.is_none() {
            let (outbox, name, number) = (self.outbox.clone(), self.name.clone(), first.number);
            let bytes = blocking(move || outbox.message(&name, number)).await??;
            first.message = serde_json::from_slice(&bytes).ok();
        }
        let message = first.message.clone()?;
        let now = self.engine.clock().now();
        let (url, secrets) = (self.hook.url.clone(), self.state.secrets(self.hook.secret, now));
        Some(Box::pin(async move { send::send(&url, &secrets, &message, now).await }))
    }

    /// Notes how a try ended; answers how long the next one has to wait.
    async fn sent(&mut self, sent: Result<(), Failed>) -> Option<Duration> {
        let Failed { why, wait } = match sent {
            Ok(()) => {
                self.delivery.delivered += 1;
                self.settle();
                return None;
            }
            Err(failed) => failed,
        };
        self.delivery.failed += 1;
        let now = self.engine.clock().now();
        if self.state.tries == 0 {
            self.state.failing_since = now.0;
            tracing::warn!(webhook = self.name, "a message did not arrive and will be sent again: {why}");
        }
        self.state.tries = self.state.tries.saturating_add(1);
        self.delivery.error = Some(why.clone());
        self.flush_in(FLUSH);
        if self.state.tries >= self.hook.attempts {
            let message = self.queue.front().and_then(|first| first.message.clone());
            let kept = match message {
                Some(message) => dead_letter::keep_message(&self.engine, &self.name, &why, message).await,
                None => true,
            };
            // One that cannot be kept is tried once more.
            if kept {
                self.delivery.given_up += 1;
                self.settle();
                self.delivery.error = Some(why);
            }
        }
        Some(wait.unwrap_or_default().max(pause(self.hook.backoff_ms, self.state.tries.max(1))))
    }

    /// The first message needs nothing more.
    fn settle(&mut self) {
        if let Some(first) = self.queue.pop_front() {
            self.bytes -= first.bytes;
            self.hot -= if first.kept { 0 } else { first.bytes };
        }
        (self.state.tries, self.state.failing_since) = (0, 0);
        self.delivery.error = None;
        self.flush_in(FLUSH);
    }

    fn flush_in(&mut self, time: Duration) {
        let at = Instant::now() + time;
        self.flush_at = Some(self.flush_at.map_or(at, |before| before.min(at)));
    }

    /// Writes what waits, what does no more, and how far it is.
    async fn flush(&mut self) {
        self.flush_at = None;
        // They are the last.
        let new = self.queue.iter().rev().take_while(|waiting| !waiting.kept);
        let new: Vec<(u64, Vec<u8>)> = new
            .filter_map(|waiting| Some((waiting.number, serde_json::to_vec(waiting.message.as_ref()?).ok()?)))
            .collect();
        let settled_below = self.queue.front().map_or(self.state.next_number, |first| first.number);
        let state = serde_json::to_vec(&self.state).unwrap_or_default();
        let (outbox, name) = (self.outbox.clone(), self.name.clone());
        let written = blocking(move || {
            let new = new.iter().map(|(number, message)| (*number, message.as_slice()));
            outbox.keep(&name, &state, new, settled_below)
        });
        self.broken = written.await.is_none();
        if self.broken {
            // Nothing more is taken in before it can be written.
            let why = "its messages cannot be written to disk".to_owned();
            self.trouble.get_or_insert_with(|| (self.engine.clock().now(), why));
            self.flush_in(FLUSH);
            return;
        }
        // All but the next ones are read again when it is their turn.
        self.hot = 0;
        for (at, waiting) in self.queue.iter_mut().enumerate().rev().take_while(|(_, waiting)| !waiting.kept)
        {
            waiting.kept = true;
            if at > BEHIND {
                waiting.message = None;
            }
        }
    }

    /// Shows outside how it is doing.
    fn show(&mut self) {
        let some = |ms: u64| (ms > 0).then_some(Millis(ms));
        self.delivery.waiting = self.queue.len();
        self.delivery.waiting_bytes = self.bytes;
        self.delivery.next = Lsn(self.state.next_lsn);
        let trouble = self.trouble.clone();
        self.delivery.failing_since =
            some(self.state.failing_since).or(trouble.as_ref().map(|(since, _)| *since));
        if let Some((_, why)) = trouble {
            self.delivery.error = Some(why);
        }
        self.engine.metrics().deliveries.insert(self.name.clone(), self.delivery.clone());
    }
}

/// The pause behind so many tries in vain: each four times the one before, and a little more or less, so that many who wait
/// do not come together.
fn pause(first_ms: u32, tries: u16) -> Duration {
    let most = limit::WEBHOOK_BACKOFF_MS_MAX;
    let ms = u64::from(first_ms).saturating_mul(4u64.saturating_pow(u32::from(tries) - 1)).min(most);
    let mut chance = [0];
    // Without random numbers all pauses are the same.
    let _ = getrandom::fill(&mut chance);
    Duration::from_millis(ms - ms / 8 + ms * u64::from(chance[0]) / 1_024)
}

fn new_message(kind: &str, body: String) -> Message {
    let mut bytes = [0; 16];
    // Only receivers that see two with one id would be the worse for it.
    let _ = getrandom::fill(&mut bytes);
    let id = uuid::Builder::from_random_bytes(bytes).into_uuid();
    Message { id: format!("msg_{}", id.simple()), kind: kind.into(), body }
}

/// A message as Standard Webhooks have it.
pub(super) fn plain_message(engine: &Engine, kind: &str, data: serde_json::Value) -> Message {
    let body = json!({ "type": kind, "timestamp": Moment::of(engine.clock().now()), "data": data });
    new_message("application/json", body.to_string())
}
