//! Tokens: made, replaced and revoked, with effect on connections that are open. Only their hashes are kept.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stockline_core::catalogue::{Definition, EntryKind, NO_TOKEN, Role};
use stockline_core::limit;
use stockline_core::outcome::Code;

use super::answer::Told;
use super::body::Sent;
use super::call::{At, Caller};
use super::catalogue::{Condition, Done, Entry, Named, Versioned, administers, put_entry, seen};
use super::problem::Problem;
use crate::principal::{new_token, token_sha256};

/// Who may do what.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenBody {
    role: RoleText,
    /// Role `channel`: the channel it acts for.
    channel: Option<String>,
    /// Role `warehouse`: the nodes it tells of.
    #[serde(default)]
    nodes: Vec<String>,
    /// Seconds that `occurred_at` of its events may lie ahead of the server's clock, 300 at most and where nothing is said.
    #[serde(default = "clock_ahead_s")]
    #[schemars(range(min = 1, max = 300))]
    clock_ahead_s: u32,
    /// Told; put only as false: `DELETE` revokes.
    #[serde(default)]
    revoked: bool,
}

/// As for everybody.
fn clock_ahead_s() -> u32 {
    limit::CLOCK_AHEAD_S_MAX
}

#[derive(Deserialize, Serialize, JsonSchema, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub(super) enum RoleText {
    Admin,
    Channel,
    Warehouse,
}

impl RoleText {
    pub(super) fn of(role: Role) -> RoleText {
        match role {
            Role::Admin => RoleText::Admin,
            Role::Channel => RoleText::Channel,
            Role::Warehouse => RoleText::Warehouse,
        }
    }
}

/// A token, told this once.
#[derive(Serialize, JsonSchema)]
pub(super) struct Secret {
    name: String,
    lsn: u64,
    token: String,
}

impl Entry for TokenBody {
    const KIND: EntryKind = EntryKind::Principal;

    /// With no token yet.
    fn define(self, name: String) -> Result<Definition, Problem> {
        let role = match self.role {
            RoleText::Admin => Role::Admin,
            RoleText::Channel => Role::Channel,
            RoleText::Warehouse => Role::Warehouse,
        };
        let fits = match role {
            Role::Admin => self.channel.is_none() && self.nodes.is_empty(),
            Role::Channel => self.channel.is_some() && self.nodes.is_empty(),
            Role::Warehouse => self.channel.is_none() && !self.nodes.is_empty(),
        };
        if !fits {
            let text = "role channel has its channel, role warehouse its nodes, and admin neither";
            return Err(Problem::invalid(text));
        }
        if self.revoked {
            return Err(Problem::invalid("revoked: DELETE revokes a token; put makes one that is good"));
        }
        if !(1..=clock_ahead_s()).contains(&self.clock_ahead_s) {
            return Err(Problem::invalid(format!("clock_ahead_s: {} is not 1 to 300", self.clock_ahead_s)));
        }
        let TokenBody { channel, nodes, clock_ahead_s, .. } = self;
        Ok(Definition::Principal { name, role, channel, nodes, token_sha256: NO_TOKEN, clock_ahead_s })
    }

    fn of(definition: &Definition) -> Option<TokenBody> {
        let Definition::Principal { role, channel, nodes, token_sha256, clock_ahead_s: given, .. } =
            definition.clone()
        else {
            return None;
        };
        let clock_ahead_s = if given == 0 { clock_ahead_s() } else { given };
        let revoked = token_sha256 == NO_TOKEN;
        Some(TokenBody { role: RoleText::of(role), channel, nodes, clock_ahead_s, revoked })
    }
}

/// A token's entry with another token, or with none.
fn with_sha256(mut definition: Definition, sha256: [u8; 32]) -> Definition {
    if let Definition::Principal { token_sha256, .. } = &mut definition {
        *token_sha256 = sha256;
    }
    definition
}

/// A token's entry with a new token, and that.
fn with_token(definition: Definition) -> Result<(Definition, String), Problem> {
    let token = new_token()
        .map_err(|_| Problem::of(Code::Overloaded, "no random numbers are to be had; try again"))?;
    Ok((with_sha256(definition, token_sha256(token.as_bytes())), token))
}

fn admin_is_the_servers(name: &str) -> Result<(), Problem> {
    let text = "admin is the token in admin.token of the data directory: replace that file and start again";
    if name == "admin" { Err(Problem::of(Code::Forbidden, text)) } else { Ok(()) }
}

/// Makes a token, or another one for a name that has one: the old one is worth nothing from then on.
pub(super) async fn put(
    caller: Caller,
    At(Named { name }): At<Named>,
    condition: Condition,
    Sent(body): Sent<TokenBody>,
) -> Result<Versioned<Secret>, Problem> {
    administers(&caller)?;
    admin_is_the_servers(&name)?;
    let (definition, token) = with_token(body.define(name)?)?;
    let done = put_entry(&caller, condition, vec![definition]).await?;
    Ok(done.map(|Done { name, lsn, .. }| Secret { name, lsn, token }))
}

/// A token as it stands, and on what it may be changed.
fn known(caller: &Caller, name: &str, given: Condition) -> Result<(Definition, Condition), Problem> {
    administers(caller)?;
    admin_is_the_servers(name)?;
    seen(caller, EntryKind::Principal, name, given)
}

/// Another token for the same name and rights.
pub(super) async fn rotate(
    caller: Caller,
    At(Named { name }): At<Named>,
    condition: Condition,
) -> Result<Told<Secret>, Problem> {
    let (definition, condition) = known(&caller, &name, condition)?;
    let (definition, token) = with_token(definition)?;
    let done = put_entry(&caller, condition, vec![definition]).await?;
    let Done { name, lsn, .. } = done.into_body();
    Ok(Told(Secret { name, lsn, token }))
}

/// The token is worth nothing from then on, and its connections end.
pub(super) async fn revoke(
    caller: Caller,
    At(Named { name }): At<Named>,
    condition: Condition,
) -> Result<Told<Done>, Problem> {
    let (definition, condition) = known(&caller, &name, condition)?;
    Ok(Told(put_entry(&caller, condition, vec![with_sha256(definition, NO_TOKEN)]).await?.into_body()))
}
