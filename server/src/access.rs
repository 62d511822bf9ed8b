//! Who may do what: by role, channel and node, for both faces alike. And what a principal's connections share.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use stockline_core::catalogue::{Definition, NO_TOKEN, NameKind, Principal, Role};
use stockline_core::command::{Body, Command, Read};
use stockline_core::id::{ChannelId, GroupId, Millis, NodeId, PrincipalId};
use stockline_core::label::Whose;
use stockline_core::ledger::{Trace, Why};
use stockline_core::limit;
use stockline_core::outcome::Code;
use stockline_core::wire::{FrameType, WireError};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use crate::engine::{Answered, Engine};
use crate::principal::{Shared, SignedIn};

/// Looking up repeats reads and decodes whole journal records: a few at a time, in turns.
static LOOKUPS: Semaphore = Semaphore::const_new(limit::REPEAT_LOOKUPS_MAX);

/// Why a frame, or a request, is turned away as a whole.
#[derive(Debug)]
pub struct Turned {
    pub code: Code,
    pub text: String,
}

impl Turned {
    pub fn new(code: Code, text: impl Into<String>) -> Turned {
        Turned { code, text: text.into() }
    }
}

impl From<WireError> for Turned {
    fn from(error: WireError) -> Turned {
        Turned { code: Code::Malformed, text: error.to_string() }
    }
}

/// One connection of a principal, counted for as long as it lives.
pub struct Present {
    engine: Engine,
    id: PrincipalId,
    until: Option<Millis>,
    /// One look-up of repeats at a time, whatever its connections send; and whether the token is still good.
    shared: Shared,
}

impl Present {
    /// A connection of who is signed in; or why not.
    pub fn enter(engine: &Engine, who: &SignedIn) -> Result<Present, Turned> {
        let shared = engine.principals().enter(&who.principal).map_err(|code| match code {
            Code::Overloaded => Turned::new(
                code,
                format!("at most {} connections a token", limit::CONNECTIONS_PER_PRINCIPAL_MAX),
            ),
            code => Turned::new(code, REVOKED),
        })?;
        Ok(Present { engine: engine.clone(), id: who.principal.id, until: who.until, shared })
    }

    /// Who holds it reads the journal for the principal.
    pub fn turn(&self) -> Arc<Semaphore> {
        Arc::clone(&self.shared.lookup)
    }

    /// Whether the token is replaced or revoked, its rights are others, or its time is over.
    pub fn is_over(&self) -> bool {
        *self.shared.over.borrow() || self.until.is_some_and(|until| self.engine.clock().wall() >= until)
    }

    /// Is over when that is so.
    pub fn revoked(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut over = self.shared.over.clone();
        let left = self.until.map(|until| Duration::from_millis(until.since(self.engine.clock().wall())));
        async move {
            let end = async {
                match left {
                    Some(left) => sleep(left).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                // Without a sender nobody can say so any more, which says it.
                _ = over.wait_for(|over| *over) => {}
                () = end => {}
            }
        }
    }

    /// Puts the recorded answers in place of repeats; `None` if whoever asked has gone.
    pub async fn look_up(
        &self,
        engine: &Engine,
        mut answered: Answered,
        has_gone: impl Fn() -> bool,
    ) -> Option<Answered> {
        let mut repeats: Vec<_> = answered.reply.repeats().collect();
        repeats.sort_unstable_by_key(|(_, lsn)| std::cmp::Reverse(*lsn));
        // Neither is ever closed, so a place is always granted in time.
        let mut own = self.turn().acquire_owned().await.ok()?;
        while !repeats.is_empty() {
            let place = LOOKUPS.acquire().await.ok()?;
            if has_gone() {
                return None;
            }
            let engine = engine.clone();
            let some = tokio::task::spawn_blocking(move || {
                if engine.fill_repeats(&mut answered.reply, &mut repeats).is_err() {
                    // Nothing can be said about these for now; the sender may ask again.
                    for (at, _) in repeats.drain(..) {
                        answered.reply.replies[at].outcome.code = Code::Overloaded;
                    }
                }
                drop(place);
                (answered, repeats, own)
            });
            (answered, repeats, own) = some.await.ok()?;
        }
        drop(own);
        answered.reply.settle_repeats();
        Some(answered)
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.engine.principals().leave(self.id);
    }
}

/// What connections hear that end because of it.
pub const REVOKED: &str =
    "the token was replaced, revoked or has ended, or its rights are others: sign in again";

/// Leaves out of explanations what is none of the principal's business: nodes that its channel is not offered, and
/// more units than it is shown.
pub fn hide(engine: &Engine, principal: &Principal, traces: &mut Vec<(u32, Trace)>) {
    if principal.role == Role::Admin {
        return;
    }
    traces.retain(|(_, trace)| trace.why != Why::NotOffered);
    let channel = principal.channel.unwrap_or(ChannelId::SHARED);
    let cap =
        engine.view().read(|reader| Ok(reader.rules.channel(channel).map_or(0, |rule| rule.policy.cap)));
    if let Ok((_, cap @ 1..)) = cap {
        for (_, trace) in traces {
            trace.free = trace.free.min(i64::from(cap));
            trace.own = trace.own.min(i64::from(cap));
        }
    }
}

/// Whether a refusal may stand for something that is there, and is none of the asker's business.
pub fn hides(code: &str) -> bool {
    let codes = [Code::UnknownChannel, Code::UnknownNode, Code::UnknownReservation];
    codes.iter().any(|hiding| hiding.name() == code)
}

/// Puts a name that nobody has in place of one that is none of a channel's business: other channels, and groups and nodes
/// that it is not offered.
pub fn hide_name(engine: &Engine, principal: &Principal, kind: NameKind, name: &mut Box<str>) {
    let Some(own) = principal.channel.filter(|_| principal.role == Role::Channel) else { return };
    let Some(id) = engine.names().id(kind, name) else { return };
    let offered = engine.view().read(|reader| {
        let rule = reader.rules.channel(own);
        Ok(match kind {
            NameKind::Sku | NameKind::Zone => true,
            NameKind::Channel => id == u32::from(own.0),
            NameKind::Node => rule.is_some_and(|rule| rule.nodes.contains(NodeId(id as u16))),
            NameKind::Group => rule.is_some_and(|rule| {
                let group = GroupId(id as u16);
                rule.group == group || reader.rules.offers_place(rule, NodeId::of_group(group))
            }),
        })
    });
    // Where it cannot be read now, it is not told.
    if !offered.is_ok_and(|(_, offered)| offered) {
        *name = "".into();
    }
}

/// An entry as an administrator may read it: of a token only whether there is one.
pub fn shown(entry: &Definition) -> Definition {
    let mut entry = entry.clone();
    if let Definition::Principal { token_sha256, .. } = &mut entry
        && *token_sha256 != NO_TOKEN
    {
        *token_sha256 = [u8::MAX; 32];
    }
    entry
}

/// Whose reservations a principal may find.
pub fn whose(principal: &Principal) -> Whose {
    match (principal.role, principal.channel) {
        (Role::Admin, _) => Whose::All,
        (Role::Channel, Some(channel)) => Whose::Channel(channel),
        (Role::Channel, None) | (Role::Warehouse, _) => Whose::Nodes(principal.nodes.as_slice().into()),
    }
}

/// Whether the principal's role allows all of a frame. What it must not know of looks as if it were not.
pub fn allow(principal: &Principal, kind: FrameType, commands: &[Command]) -> Result<(), Turned> {
    let allowed = match principal.role {
        Role::Admin => true,
        Role::Channel => matches!(
            kind,
            FrameType::Resolve
                | FrameType::Reserve
                | FrameType::Transitions
                | FrameType::ReadReservations
                | FrameType::Find
                | FrameType::ReadAllocations
                | FrameType::Explain
        ),
        Role::Warehouse => {
            let may = [FrameType::Resolve, FrameType::Events, FrameType::ReadPositions, FrameType::Find];
            may.contains(&kind)
        }
    };
    if !allowed {
        let role = format!("{:?}", principal.role).to_lowercase();
        let text = format!("a {role} may not do this");
        return Err(Turned { code: Code::Forbidden, text });
    }
    let own = |node| principal.role != Role::Warehouse || principal.nodes.contains(&node);
    for (index, command) in commands.iter().enumerate() {
        let (known, code, what) = match &command.body {
            Body::Reserve(reserve) | Body::Read(Read::Explain(reserve)) => (
                principal.channel.is_none_or(|channel| channel == reserve.channel)
                    || principal.role == Role::Admin,
                Code::UnknownChannel,
                "channel",
            ),
            Body::Read(Read::Position { node, .. }) => (own(*node), Code::UnknownNode, "node"),
            // Whoever acts for one channel asks for that one's allocations.
            Body::Read(Read::Allocations { channel, .. }) => (
                principal.role == Role::Admin || *channel == principal.channel,
                Code::UnknownChannel,
                "channel",
            ),
            Body::Define(_) if kind == FrameType::Resolve && principal.role == Role::Channel => {
                (false, Code::Forbidden, "right to create skus")
            }
            _ => (true, Code::Ok, ""),
        };
        if !known {
            let text = format!("command {index}: no such {what} for this token");
            return Err(Turned { code, text });
        }
    }
    Ok(())
}
