//! Dead letters: stock events that were refused for a reason that may pass, and messages that no receiver took, kept with
//! the original until somebody re-drives or discards them.

use std::sync::Arc;

use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stockline_core::catalogue::NameKind;
use stockline_core::command::Body;
use stockline_core::id::{Key, Lsn, NodeId, PrincipalId, SkuId};
use stockline_core::letters::{Letter, Letters, LettersError};
use stockline_core::limit;
use stockline_core::merge::Reply;
use stockline_core::outcome::Code;
use xxhash_rust::xxh3::xxh3_128;

use super::answer::{Moment, Told};
use super::call::{Asked, At, Caller, at_most};
use super::catalogue::administers;
use super::problem::Problem;
use super::webhook::{self, Message};
use crate::engine::Engine;
use crate::event_row::EventRow;

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
    Event { principal: String, event: Box<EventRow> },
    Message { webhook: String, message: Message },
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
    event: Option<EventRow>,
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

/// Whether an event refused so is worth keeping: it has its place in the order, and things may change.
fn may_pass(code: Code) -> bool {
    code as u8 >= Code::UnknownSku as u8
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

/// Ids are each sender's own.
fn letter_key(caller: &Caller, key: Key) -> Key {
    Key(xxh3_128(format!("{} {:032x}", caller.principal.id.0, key.0).as_bytes()).max(1))
}

/// Keeps what could not be applied. A repeat finds its letter there, so one that was lost in a crash comes back.
pub(super) async fn keep(
    caller: &Caller,
    rows: &[EventRow],
    keys: &[Key],
    replies: &[Reply],
) -> Result<(), Problem> {
    let at = caller.engine.clock().now();
    let refused = rows.iter().zip(keys).zip(replies).filter(|(_, told)| may_pass(told.outcome.code));
    // What was told again and applied needs nobody any more.
    if caller.engine.letters().count() > 0 {
        let applied =
            keys.iter().zip(replies).filter(|(_, told)| told.outcome.code == Code::Ok && !told.repeat);
        let applied: Vec<Key> = applied.map(|(key, _)| letter_key(caller, *key)).collect();
        with(&caller.engine, move |all| all.settle(&applied, at)).await?;
    }
    let letters: Vec<Letter> = refused
        .map(|((row, key), told)| {
            let original = Original::Event {
                principal: caller.principal.name.clone(),
                event: Box::new(EventRow::clone(row)),
            };
            let content = Content { code: told.outcome.code.name().into(), tries: 0, original };
            Letter {
                key: letter_key(caller, *key),
                at,
                says: serde_json::to_vec(&content).unwrap_or_default(),
            }
        })
        .collect();
    if letters.is_empty() {
        return Ok(());
    }
    let count = letters.len();
    let dropped = with(&caller.engine, move |all| all.keep(&letters)).await?;
    if dropped > 0 {
        tracing::error!("{dropped} of {count} dead letters found no room: there are {}", limit::LETTERS_MAX);
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
    let letter = Letter { key, at: engine.clock().now(), says };
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
            Original::Event { principal, event } => (Some(principal), Some(*event), None, None),
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
) -> Result<Told<Redriven>, Problem> {
    let (letter, content) = find(&caller, &id).await?;
    // Begun, it is brought to its end, whether or not somebody waits for it.
    let driven = tokio::spawn(async move { drive(caller, id, letter, content).await });
    let lost = |_| Problem::of(Code::Overloaded, "what became of it, the list of dead letters says");
    driven.await.map_err(lost)?
}

async fn drive(
    caller: Caller,
    id: String,
    letter: Letter,
    mut content: Content,
) -> Result<Told<Redriven>, Problem> {
    let event = match &content.original {
        Original::Event { event, .. } => event,
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
    let row = event.parse().map_err(|reason| Problem::of(Code::InvalidEvent, reason))?;
    let name = |kind, name: &str| caller.engine.names().id(kind, name);
    let sku = SkuId(name(NameKind::Sku, &row.sku).unwrap_or(u32::MAX));
    let node = |node: &str| NodeId(name(NameKind::Node, node).map_or(NodeId::ANY.0, |id| id as u16));
    // One try is one command, whoever asks for it: another request for it, or one behind a crash, is a repeat.
    let again = Key(xxh3_128(format!("{:032x} driven {}", letter.key.0, content.tries).as_bytes()).max(1));
    let command = caller.command(again, Body::Event(row.event(sku, node)), &[]);
    let reply = caller.submit_as(PrincipalId::SYSTEM, vec![command], vec![]).await?;
    let told = reply.replies[0];
    let code = told.outcome.code;
    let now = caller.engine.clock().now();
    if code == Code::Ok {
        with(&caller.engine, move |all| all.settle(&[letter.key], now)).await?;
        return Ok(Told(Redriven::new(id, "applied", told.lsn)));
    }
    // The same try was made before its names meant what they mean now: the next one is another.
    if !may_pass(code) && code != Code::KeyConflict {
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
