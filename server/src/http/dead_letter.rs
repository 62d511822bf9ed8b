//! Dead letters: stock events that were refused for a reason that may pass, and messages that no receiver took, kept with
//! the original until somebody re-drives or discards them.

use std::sync::Arc;

use axum::http::StatusCode;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use stockline_core::catalogue::{Principal, Role};
use stockline_core::command::{Body, Command};
use stockline_core::event::{Redrive, StockEvent};
use stockline_core::id::{Key, Lsn, PrincipalId};
use stockline_core::letters::{Letter, Letters, LettersError};
use stockline_core::limit;
use stockline_core::outcome::{CODES, Code};
use stockline_core::record::{event_bytes, event_of_bytes};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::answer::{Moment, Told};
use super::body::Sent;
use super::call::{Asked, At, Caller, at_most};
use super::catalogue::administers;
use super::problem::Problem;
use super::stock::{EventSent, Fate, digest_of, event_of, make_skus};
use super::webhook::{self, Message};
use crate::engine::Engine;
use crate::event_row::EventRow;
use crate::log;

/// What a letter says.
#[derive(Serialize, Deserialize)]
struct Content {
    code: String,
    /// Times that it was driven again in vain.
    tries: u32,
    #[serde(flatten)]
    original: Original,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Original {
    /// The event as JSON, whether or not it can be read; and as it came over QUIC.
    Event {
        principal: String,
        event: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        record: Option<String>,
    },
    Message {
        webhook: String,
        message: Message,
    },
}

impl Content {
    /// In place of what a letter said.
    fn letter(&self, letter: Letter) -> Letter {
        Letter { says: serde_json::to_vec(self).unwrap_or_default(), ..letter }
    }
}

/// Why a message is a letter.
const UNDELIVERED: &str = "UNDELIVERED";

/// An event that could not be applied, or a message that could not be delivered.
#[derive(Serialize, JsonSchema)]
struct DeadLetter {
    id: String,
    at: Option<Moment>,
    /// Why it could not, when it was last tried; of a message: `UNDELIVERED`.
    code: String,
    /// Times that it was driven again in vain.
    tries: u32,
    /// An event: whose token it came with.
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    event: Option<Box<RawValue>>,
    /// A message: whose it is, its id, and what it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<serde_json::Value>,
}

/// Dead letters, the newest first.
#[derive(Serialize, JsonSchema)]
pub(super) struct DeadLetters {
    as_of_lsn: u64,
    total: u64,
    items: Vec<DeadLetter>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "LetterOptions")]
pub(super) struct Options {
    /// 1 to 1000; 100 where nothing is said.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<usize>,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "OfLetter")]
pub(super) struct OfLetter {
    #[schemars(extend("format" = "uuid"))]
    id: String,
}

/// How an event is driven again.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Amendment {
    /// Instead of the event as it came, all of it.
    #[schemars(with = "Option<serde_json::Value>")]
    event: Option<Box<RawValue>>,
    /// It is applied with the administrator's rights and in the administrator's name, not with those of its sender.
    adopt: bool,
}

/// What became of a letter.
#[derive(Serialize, JsonSchema)]
pub(super) struct Redriven {
    id: String,
    #[schemars(extend("enum" = ["applied", "rejected", "delivered", "undelivered", "discarded"]))]
    status: &'static str,
    /// Of an event its place in the order; else how far the server was.
    lsn: u64,
    /// Why it was rejected again.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    /// Why it was not delivered again.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Redriven {
    fn new(id: String, status: &'static str, Lsn(lsn): Lsn) -> Redriven {
        Redriven { id, status, lsn, code: None, error: None }
    }
}

fn unreadable(error: LettersError) -> Problem {
    tracing::error!("{error}");
    Problem::of(Code::Overloaded, "dead letters cannot be read or written; ask again")
}

/// Does something with all letters, off this task: it reads and writes the disk.
async fn with<T: Send + 'static>(
    engine: &Engine,
    act: impl FnOnce(&Letters) -> Result<T, LettersError> + Send + 'static,
) -> Result<T, Problem> {
    let letters = Arc::clone(engine.letters());
    let done = tokio::task::spawn_blocking(move || act(&letters)).await;
    let lost = |_| Problem::of(Code::Overloaded, "dead letters cannot be read or written; ask again");
    done.map_err(lost)?.map_err(unreadable)
}

/// The letter of an event: by its key, which is its sender's own; one that has none, by its text.
fn letter_key(sender: PrincipalId, sent: &EventSent) -> Key {
    let key = match &sent.row {
        Ok((_, row)) => row.key,
        Err(_) => sent.key_given().unwrap_or(Key(xxh3_128(sent.text.get().as_bytes()))),
    };
    of_sender(sender, key)
}

/// The letter of an event with this key of its sender's.
fn of_sender(sender: PrincipalId, key: Key) -> Key {
    Key(xxh3_128(format!("{} {:032x}", sender.0, key.0).as_bytes()).max(1))
}

/// An event as far as a letter keeps it: what is cut off can be seen, and not be sent.
fn kept(text: &str) -> String {
    let end = text.floor_char_boundary(limit::LETTER_BYTES_MAX);
    text[..end].to_owned()
}

/// Keeps what could not be applied. A repeat finds its letter there, so one that was lost in a crash comes back.
pub(super) async fn keep(caller: &Caller, sent: &[EventSent], fates: &[Fate]) -> Result<(), Problem> {
    let at = caller.engine.clock().now();
    let owner = caller.principal.id;
    let refused = sent.iter().zip(fates).filter(|(_, fate)| fate.code.may_pass());
    let letters: Vec<Letter> = refused
        .map(|(sent, fate)| {
            let hash = xxh3_64(sent.text.get().as_bytes());
            let event = kept(sent.text.get());
            let original = Original::Event { principal: caller.principal.name.clone(), event, record: None };
            let content = Content { code: fate.code.name().into(), tries: 0, original };
            Letter {
                key: letter_key(owner, sent),
                at,
                owner,
                hash,
                says: serde_json::to_vec(&content).unwrap_or_default(),
            }
        })
        .collect();
    keep_all(&caller.engine, &caller.principal, letters).await?;
    let applied = sent.iter().zip(fates).filter(|(_, fate)| fate.code == Code::Ok);
    settle_applied(&caller.engine, || applied.map(|(sent, _)| letter_key(owner, sent)).collect()).await
}

/// What was applied, now or before, needs nobody any more.
async fn settle_applied(engine: &Engine, keys: impl FnOnce() -> Vec<Key>) -> Result<(), Problem> {
    if engine.letters().count() == 0 {
        return Ok(());
    }
    let (keys, now) = (keys(), engine.clock().now());
    with(engine, move |all| all.settle(&keys, now)).await
}

/// The same for events that came over QUIC, where they have ids instead of names. `applied` are the keys of those that
/// were applied.
pub(crate) async fn keep_refused(
    engine: &Engine,
    principal: &Principal,
    refused: Vec<(Code, Command)>,
    applied: Vec<Key>,
) {
    let (at, owner) = (engine.clock().now(), principal.id);
    let letter = |(code, command): (Code, Command)| {
        let Body::Event(event) = &command.body else { return None };
        let row = EventRow::of(&command, event, |kind, id| engine.names().name(kind, id));
        let original = Original::Event {
            principal: principal.name.clone(),
            event: kept(&serde_json::to_string(&row).unwrap_or_default()),
            record: event_bytes(&command).map(|bytes| BASE64.encode(bytes)),
        };
        let content = Content { code: code.name().into(), tries: 0, original };
        let key = of_sender(owner, command.key);
        Some(Letter {
            key,
            at,
            owner,
            hash: command.digest,
            says: serde_json::to_vec(&content).unwrap_or_default(),
        })
    };
    let letters = refused.into_iter().filter_map(letter).collect();
    // Its sender knows what was refused; a repeat is kept again.
    let _ = keep_all(engine, principal, letters).await;
    let keys = || applied.into_iter().map(|key| of_sender(owner, key)).collect();
    let _ = settle_applied(engine, keys).await;
}

async fn keep_all(engine: &Engine, principal: &Principal, letters: Vec<Letter>) -> Result<(), Problem> {
    if letters.is_empty() {
        return Ok(());
    }
    let count = letters.len();
    let dropped = with(engine, move |all| all.keep(&letters)).await?;
    if dropped > 0 {
        engine.metrics().problem("DEAD_LETTERS_FULL");
        if log::may_tell_of(principal.id) {
            let (principal, all, own) = (&*principal.name, limit::LETTERS_MAX, limit::LETTERS_PER_OWNER_MAX);
            tracing::error!(
                principal,
                "{dropped} of {count} dead letters found no room: {all}, {own} of one token"
            );
        }
    }
    Ok(())
}

/// Keeps a message that nobody took; answers whether it is kept.
pub(super) async fn keep_message(engine: &Engine, webhook: &str, why: &str, message: Message) -> bool {
    if engine.letters().count() >= limit::LETTERS_WITH_MESSAGES_MAX {
        tracing::error!(
            webhook,
            "there are too many dead letters: a message that is none is tried on: {why}"
        );
        return false;
    }
    let id = message.id.clone();
    let key = Key(xxh3_128(message.id.as_bytes()).max(1));
    let original = Original::Message { webhook: webhook.to_owned(), message };
    let content = Content { code: UNDELIVERED.into(), tries: 0, original };
    let says = serde_json::to_vec(&content).unwrap_or_default();
    let (at, hash) = (engine.clock().now(), 0);
    let letter = Letter { key, at, owner: PrincipalId::SYSTEM, hash, says };
    let kept = matches!(with(engine, move |all| all.keep(&[letter])).await, Ok(0));
    if kept {
        tracing::error!(webhook, id, "a message could not be delivered, and is a dead letter: {why}");
    }
    kept
}

fn text(key: Key) -> String {
    uuid::Uuid::from_u128(key.0).to_string()
}

pub(super) async fn list(
    caller: Caller,
    Asked(options): Asked<Options>,
) -> Result<Told<DeadLetters>, Problem> {
    administers(&caller)?;
    let most = at_most(options.limit.unwrap_or(100), limit::HISTORY_ITEMS_MAX)?;
    let item = |letter: &Letter| {
        let Content { code, tries, original } = serde_json::from_slice(&letter.says).ok()?;
        let (id, at) = (text(letter.key), Moment::of(letter.at));
        let (principal, event, webhook, message) = match original {
            Original::Event { principal, event, .. } => {
                // What was cut off is no JSON any more, and shown as a text.
                let shown = RawValue::from_string(event.clone()).or_else(|_| to_raw_value(&event));
                (Some(principal), shown.ok(), None, None)
            }
            Original::Message { webhook, message } => (None, None, Some(webhook), Some(message)),
        };
        let message_id = message.as_ref().map(|message| message.id.clone());
        let message = message.and_then(|message| serde_json::from_str(&message.body).ok());
        Some(DeadLetter { id, at, code, tries, principal, event, webhook, message_id, message })
    };
    // Read where the disk is: there may be much of it.
    let as_of_lsn = caller.engine.view().durable().0;
    let items = with(&caller.engine, move |all| Ok(all.newest(most)?.iter().filter_map(item).collect()));
    let items = items.await?;
    Ok(Told(DeadLetters { as_of_lsn, total: caller.engine.letters().count(), items }))
}

async fn find(caller: &Caller, id: &str) -> Result<(Letter, Content), Problem> {
    administers(caller)?;
    let unknown = || Problem::new(StatusCode::NOT_FOUND, "UNKNOWN_LETTER", format!("no dead letter {id:?}"));
    let key = Key(uuid::Uuid::parse_str(id).map_err(|_| unknown())?.as_u128());
    let letter = with(&caller.engine, move |all| all.find(key)).await?.ok_or_else(unknown)?;
    let content = serde_json::from_slice(&letter.says).map_err(|_| unknown())?;
    Ok((letter, content))
}

/// Tells the event again, as a new one: what was refused under its own id stays refused. Sends the message again, as the
/// same: its receiver may have it already.
pub(super) async fn redrive(
    caller: Caller,
    At(OfLetter { id }): At<OfLetter>,
    Sent(amendment): Sent<Amendment>,
) -> Result<Told<Redriven>, Problem> {
    let (letter, content) = find(&caller, &id).await?;
    // Begun, it is brought to its end, whether or not somebody waits for it.
    let driven = tokio::spawn(async move { drive(caller, id, letter, content, amendment).await });
    let lost = |_| Problem::of(Code::Overloaded, "what became of it, the list of dead letters says");
    driven.await.map_err(lost)?
}

async fn drive(
    caller: Caller,
    id: String,
    letter: Letter,
    mut content: Content,
    Amendment { event: amended, adopt }: Amendment,
) -> Result<Told<Redriven>, Problem> {
    let (event, record) = match &content.original {
        Original::Event { event, record, .. } => (event.clone(), record.clone()),
        Original::Message { webhook, message } => {
            let sent = webhook::again(&caller, webhook, message).await;
            let (lsn, now) = (caller.engine.view().durable(), caller.engine.clock().now());
            let Err(failed) = sent else {
                with(&caller.engine, move |all| all.settle(&[letter.key], now)).await?;
                return Ok(Told(Redriven::new(id, "delivered", lsn)));
            };
            content.tries += 1;
            with(&caller.engine, move |all| all.replace(&content.letter(letter))).await?;
            let error = Some(failed.why);
            return Ok(Told(Redriven { error, ..Redriven::new(id, "undelivered", lsn) }));
        }
    };
    let Original::Event { principal: sender, .. } = &content.original else { unreachable!("it is an event") };
    let gone = || {
        let text = format!(
            "the token {sender:?} that sent it is revoked: amend the event and adopt it, or discard it"
        );
        Problem::of(Code::Forbidden, text)
    };
    // Whose rights it is applied with: the sender's as they are now, or the administrator's own. It has its sender's key
    // either way, so that it is applied once, whoever sends it.
    let now_called = caller.engine.principals().called(sender);
    let may_tell =
        |sender: &Arc<Principal>| adopt || sender.id == letter.owner && sender.role != Role::Channel;
    let rights = if adopt { Some(Arc::clone(&caller.principal)) } else { now_called };
    let rights = rights.filter(may_tell).ok_or_else(gone)?;
    let sender = letter.owner;
    let first_code =
        CODES.iter().find(|code| code.name() == content.code).copied().unwrap_or(Code::KeyConflict);
    // What left no trace is sent under its own key: its sender's repeat is then a duplicate. Else one try is one command,
    // whoever asks for it: another request for it, or one after a crash, is a repeat.
    let recorded = record.and_then(|record| event_of_bytes(&BASE64.decode(record).ok()?));
    let record_key = recorded.as_ref().map(|command| command.key);
    let as_it_came = recorded.filter(|_| amended.is_none());
    let (own_key, event, digest) = match as_it_came {
        Some(Command { key, body: Body::Event(event), .. }) => (key, event.told_by(sender), None),
        _ => {
            // An amended event stands for the one that was sent, whatever id it has itself.
            let sent_key = record_key.or_else(|| {
                let original = EventSent::read(RawValue::from_string(event.clone()).ok()?);
                original.key_given()
            });
            let text = amended.map_or_else(|| RawValue::from_string(event), Ok);
            let unreadable = |error| format!("it cannot be read, amend it: {error}");
            let text = text.map_err(|error| Problem::of(Code::InvalidEvent, unreadable(error)))?;
            let mut read = [EventSent::read(text)];
            caller.name_reservations(&rights, &mut read).await?;
            let [EventSent { row, .. }] = read;
            let (_, row) = row.map_err(|reason| Problem::of(Code::InvalidEvent, reason))?;
            make_skus(&caller, &rights, &[&row]).await?;
            let event = event_of(&caller.engine, &row, sender);
            let digest = digest_of(&row, &event);
            (sent_key.unwrap_or(row.key), event, digest)
        }
    };
    let is_own_key = first_code.leaves_no_trace();
    let key = if is_own_key {
        own_key
    } else {
        Key(xxh3_128(format!("{:032x} driven {}", letter.key.0, content.tries).as_bytes()).max(1))
    };
    let redrive = if adopt { Redrive::Adopted } else { Redrive::By }(caller.principal.id);
    let mut command = caller.command(key, Body::Event(StockEvent { redrive, ..event }), &[]);
    command.digest = digest.unwrap_or(command.digest);
    let reply = caller.submit_as(sender, vec![command], vec![]).await?;
    let told = reply.replies[0];
    let code = told.outcome.code;
    let now = caller.engine.clock().now();
    if code == Code::Ok {
        with(&caller.engine, move |all| all.settle(&[letter.key], now)).await?;
        return Ok(Told(Redriven::new(id, "applied", told.lsn)));
    }
    if is_own_key && matches!(code, Code::KeyConflict | Code::KeyTooOld) {
        let text = "its sender, or somebody here, had something else applied under its id meanwhile, or may have: look at the \
                    history of its position, then discard it or send it under an id of its own";
        return Err(Problem::of(code, text));
    }
    // The same try was made before its names meant what they mean now: the next one is another.
    if !code.may_pass() && code != Code::KeyConflict && code != Code::KeyTooOld {
        return Err(Problem::refused(code));
    }
    content.code = code.name().into();
    content.tries += 1;
    with(&caller.engine, move |all| all.replace(&content.letter(letter))).await?;
    Ok(Told(Redriven { code: Some(code.name()), ..Redriven::new(id, "rejected", told.lsn) }))
}

/// Lets a letter go for good.
pub(super) async fn discard(
    caller: Caller,
    At(OfLetter { id }): At<OfLetter>,
) -> Result<Told<Redriven>, Problem> {
    let (letter, _) = find(&caller, &id).await?;
    let now = caller.engine.clock().now();
    with(&caller.engine, move |all| all.settle(&[letter.key], now)).await?;
    Ok(Told(Redriven::new(id, "discarded", caller.engine.view().durable())))
}
