//! `stockline token`: a new token for a channel, a warehouse or an administrator. Only its hash goes to the
//! server; the token itself is printed once, inside a profile. Naming an existing principal replaces its token.

use stockline_client::{Client, ClientError};
use stockline_core::catalogue::{Definition, NO_TOKEN, NameKind, Role};

use crate::command::{ProfileOption, define, with_client};
use crate::exit;
use crate::principal::{new_token, token_sha256};

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum RoleName {
    Admin,
    Channel,
    Warehouse,
}

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Name of the principal
    name: String,
    #[arg(long)]
    role: RoleName,
    /// The channel it may act for (role channel)
    #[arg(long, required_if_eq("role", "channel"))]
    channel: Option<String>,
    /// The nodes it may tell about (role warehouse)
    #[arg(long, value_delimiter = ',', required_if_eq("role", "warehouse"))]
    nodes: Vec<String>,
    /// Make the channel, or the nodes, that are not there yet
    #[arg(long)]
    create: bool,
    /// The token is worth nothing from now on, and its connections end; nothing is printed
    #[arg(long)]
    revoke: bool,
    #[command(flatten)]
    profile: ProfileOption,
}

pub fn run(options: &Options) -> i32 {
    let token = match new_token() {
        Ok(token) => token,
        Err(error) => {
            eprintln!("stockline: the system gives no random numbers: {error}");
            return exit::FAILED;
        }
    };
    let definition = Definition::Principal {
        name: options.name.clone(),
        role: match options.role {
            RoleName::Admin => Role::Admin,
            RoleName::Channel => Role::Channel,
            RoleName::Warehouse => Role::Warehouse,
        },
        channel: options.channel.clone(),
        nodes: options.nodes.clone(),
        token_sha256: if options.revoke { NO_TOKEN } else { token_sha256(token.as_bytes()) },
    };
    with_client(&options.profile, async |client, mut profile| {
        if options.create {
            create(&client, options).await?;
        }
        let exit = define::define(&client, &definition).await?;
        if exit == exit::OK && !options.revoke {
            profile.token = token;
            profile.ca = std::path::absolute(&profile.ca).unwrap_or(profile.ca);
            print!("{}", toml::to_string(&profile).unwrap_or_default());
        }
        Ok(exit)
    })
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
