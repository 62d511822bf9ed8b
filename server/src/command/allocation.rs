//! `stockline allocation`: units kept for one channel.

use stockline_client::{Action, Client, ClientError};
use stockline_core::catalogue::NameKind;
use stockline_core::id::ChannelId;
use stockline_core::outcome::Code;
use stockline_core::record::AllocateRec;

use crate::command::{ProfileOption, id, with_client};
use crate::exit;
use crate::{err, out};

#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Args)]
struct Units {
    sku: String,
    node: String,
    quantity: u32,
    #[command(flatten)]
    profile: ProfileOption,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Keep free units for a channel
    Allocate {
        channel: String,
        #[command(flatten)]
        units: Units,
    },
    /// Give units of a channel's allocation back to all
    Deallocate {
        channel: String,
        #[command(flatten)]
        units: Units,
    },
    /// Give units of a channel's allocation to another channel
    Reallocate {
        channel: String,
        to_channel: String,
        #[command(flatten)]
        units: Units,
    },
    /// Say what is allocated and not claimed
    Query {
        #[arg(required = true, value_name = "SKU")]
        skus: Vec<String>,
        /// Only that channel's
        #[arg(long)]
        channel: Option<String>,
        #[command(flatten)]
        profile: ProfileOption,
    },
}

pub fn run(options: &Options) -> i32 {
    let (action, channel, to_channel, units) = match &options.what {
        What::Query { skus, channel, profile } => {
            return with_client(profile, async |client, _| query(&client, skus, channel.as_deref()).await);
        }
        What::Allocate { channel, units } => (Action::Allocate, channel, None, units),
        What::Deallocate { channel, units } => (Action::Deallocate, channel, None, units),
        What::Reallocate { channel, to_channel, units } => {
            (Action::Reallocate, channel, Some(to_channel), units)
        }
    };
    with_client(&units.profile, async |client, _| {
        let mut names = vec![
            (NameKind::Sku, units.sku.as_str()),
            (NameKind::Node, units.node.as_str()),
            (NameKind::Channel, channel.as_str()),
        ];
        names.extend(to_channel.map(|to| (NameKind::Channel, to.as_str())));
        let mut ids = Vec::new();
        for (kind, name) in names {
            match id(&client, kind, name).await? {
                Some(id) => ids.push(id),
                None => return Ok(exit::FAILED),
            }
        }
        let mut key = [0; 16];
        if let Err(error) = getrandom::fill(&mut key) {
            err!("stockline: no randomness: {error}");
            return Ok(exit::FAILED);
        }
        let allocation = AllocateRec {
            key: u128::from_le_bytes(key),
            issued_at_ms: 0,
            sku: ids[0],
            quantity: units.quantity,
            node: ids[1] as u16,
            channel: ids[2] as u16,
            to_channel: ids.get(3).map_or(ChannelId::SHARED.0, |id| *id as u16),
            action: action as u8,
        };
        let outcome = client.allocate(vec![allocation]).await?;
        match outcome.first() {
            Some(outcome) if outcome.code == Code::Ok => {
                err!("done lsn={}", outcome.lsn);
                Ok(exit::OK)
            }
            Some(outcome) => {
                err!("stockline: {}", outcome.code.name());
                Ok(exit::FAILED)
            }
            None => Err(ClientError::Protocol("no result for an allocation".into())),
        }
    })
}

async fn query(client: &Client, skus: &[String], channel: Option<&str>) -> Result<i32, ClientError> {
    let channel = match channel {
        Some(name) => match id(client, NameKind::Channel, name).await? {
            Some(id) => Some(id as u16),
            None => return Ok(exit::FAILED),
        },
        None => None,
    };
    for name in skus {
        let Some(sku) = id(client, NameKind::Sku, name).await? else { return Ok(exit::FAILED) };
        for share in client.allocations(channel, &[sku]).await?.iter().flatten() {
            let (channel, node) = (share.channel, share.node);
            out!("{name} channel={channel} node={node} allocated={}", share.units);
        }
    }
    Ok(exit::OK)
}
