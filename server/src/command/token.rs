//! `stockline token`: a new token for a channel, a warehouse or an administrator. Only its hash goes to the
//! server; the token itself is printed once, inside a profile. Naming an existing principal replaces its token.

use stockline_client::{Client, ClientError};
use stockline_core::catalogue::{Definition, EntryKind, NO_TOKEN, NameKind, Role};

use crate::command::{ProfileOption, define, with_client};
use crate::exit;
use crate::principal::{new_token, token_sha256};
use crate::{err, say};

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum RoleName {
    Admin,
    Channel,
    Warehouse,
}

impl RoleName {
    fn role(self) -> Role {
        match self {
            RoleName::Admin => Role::Admin,
            RoleName::Channel => Role::Channel,
            RoleName::Warehouse => Role::Warehouse,
        }
    }
}

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Name of the principal
    name: String,
    #[arg(long, required_unless_present = "revoke")]
    role: Option<RoleName>,
    /// The channel it may act for (role channel)
    #[arg(long, required_if_eq("role", "channel"))]
    channel: Option<String>,
    /// The nodes it may tell about (role warehouse)
    #[arg(long, value_delimiter = ',', required_if_eq("role", "warehouse"))]
    nodes: Vec<String>,
    /// Seconds that its events may lie ahead of the server's clock, 300 at most [default: as before, or 300]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=300))]
    clock_ahead: Option<u32>,
    /// Make the channel, or the nodes, that are not there yet
    #[arg(long, conflicts_with = "revoke")]
    create: bool,
    /// The token is worth nothing from now on, and its connections end; nothing is printed
    #[arg(long)]
    revoke: bool,
    #[command(flatten)]
    profile: ProfileOption,
}

pub fn run(options: &Options) -> i32 {
    if options.revoke {
        return with_client(&options.profile, async |client, _| revoke(&client, options).await);
    }
    let role = options.role.map_or(Role::Admin, RoleName::role);
    let (channel, nodes) = (role == Role::Channel, role == Role::Warehouse);
    for (flag, given, fits) in
        [("--channel", options.channel.is_some(), channel), ("--nodes", !options.nodes.is_empty(), nodes)]
    {
        if given && !fits {
            err!(
                "stockline: {flag} does not go with this role: channel has --channel, warehouse --nodes, admin neither"
            );
            return exit::USAGE;
        }
    }
    let token = match new_token() {
        Ok(token) => token,
        Err(error) => {
            err!("stockline: the system gives no random numbers: {error}");
            return exit::FAILED;
        }
    };
    let definition = Definition::Principal {
        name: options.name.clone(),
        role,
        channel: options.channel.clone(),
        nodes: options.nodes.clone(),
        token_sha256: token_sha256(token.as_bytes()),
        clock_ahead_s: options.clock_ahead.unwrap_or_default(),
    };
    with_client(&options.profile, async |client, mut profile| {
        let mut definition = definition;
        if options.clock_ahead.is_none()
            && let Definition::Principal { clock_ahead_s, .. } = &mut definition
            && let Some(Definition::Principal { clock_ahead_s: before, .. }) =
                client.definitions(&[(EntryKind::Principal, &options.name)]).await?.pop()
        {
            *clock_ahead_s = before;
        }
        if options.create {
            create(&client, options).await?;
        }
        profile.token = token;
        profile.ca = std::path::absolute(&profile.ca).unwrap_or(profile.ca);
        let text = toml::to_string(&profile).unwrap_or_default();
        // Written before the old token is worth nothing: where it cannot be, that one stays.
        say::output(format_args!("{text}"));
        let exit = define::define(&client, &definition).await?;
        if exit != exit::OK {
            err!("stockline: the profile printed above is worth nothing; no token was changed");
        }
        Ok(exit)
    })
}

/// The token is worth nothing from now on; its rights stay as they are.
async fn revoke(client: &Client, options: &Options) -> Result<i32, ClientError> {
    let name = &*options.name;
    let Some(mut definition) = client.definitions(&[(EntryKind::Principal, name)]).await?.pop() else {
        err!("stockline: UNKNOWN_TOKEN: no token {name:?}");
        return Ok(exit::FAILED);
    };
    if let Definition::Principal { token_sha256, role, channel, nodes, .. } = &mut definition {
        let is_other = options.role.is_some_and(|meant| meant.role() != *role)
            || options.channel.is_some() && options.channel != *channel
            || !options.nodes.is_empty() && options.nodes != *nodes;
        if is_other {
            err!(
                "stockline: the token {name:?} is another: {role:?} {}{}",
                channel.clone().unwrap_or_default(),
                nodes.join(",")
            );
            return Ok(exit::FAILED);
        }
        *token_sha256 = NO_TOKEN;
    }
    define::define(client, &definition).await
}

/// Makes what the token is for, where nobody has it.
async fn create(client: &Client, options: &Options) -> Result<(), ClientError> {
    let channels: Vec<&str> = options.channel.iter().map(String::as_str).collect();
    let nodes: Vec<&str> = options.nodes.iter().map(String::as_str).collect();
    for (kind, names) in [(NameKind::Channel, channels), (NameKind::Node, nodes)] {
        let found = client.resolve(kind, &names, false).await?;
        for name in names.iter().zip(&found).filter(|(_, id)| id.is_err()).map(|(name, _)| *name) {
            let definition = match kind {
                NameKind::Channel => Definition::channel(name),
                _ => Definition::node(name, 100),
            };
            define::define(client, &definition).await?;
        }
    }
    Ok(())
}
