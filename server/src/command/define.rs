//! `stockline define`: nodes, groups and channels.

use stockline_client::ClientError;
use stockline_core::catalogue::{Definition, LateConfirm, Policy};
use stockline_core::outcome::Code;

use crate::command::{ProfileOption, with_client};
use crate::exit;

#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Late {
    /// EXPIRED
    Refuse,
    /// The units are claimed again if they are there, and the answer says so
    Reacquire,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// A place that holds stock
    Node {
        name: String,
        /// Lower is tried first
        #[arg(long, default_value_t = 100)]
        priority: u16,
        #[arg(long = "type", default_value = "warehouse")]
        kind: String,
        #[arg(long, default_value = "UTC")]
        timezone: String,
        #[command(flatten)]
        profile: ProfileOption,
    },
    /// A named set of nodes
    Group {
        name: String,
        #[arg(long, value_delimiter = ',', required = true)]
        nodes: Vec<String>,
        #[command(flatten)]
        profile: ProfileOption,
    },
    /// A source of demand
    Channel {
        name: String,
        /// The channel it is part of: it may use that one's allocations too
        #[arg(long)]
        parent: Option<String>,
        /// The group it is offered [default: every node]
        #[arg(long)]
        group: Option<String>,
        /// Units of each sku withheld from it
        #[arg(long, default_value_t = 0)]
        buffer: u32,
        /// Units left at which it is told that a sku is low [default: never]
        #[arg(long, default_value_t = 0)]
        low: u32,
        /// What a confirmation hears that comes when the hold's time is over
        #[arg(long, value_enum, default_value_t = Late::Refuse)]
        late_confirm: Late,
        /// Holds it may have open at once [default: no limit]
        #[arg(long, default_value_t = 0)]
        holds_max: u32,
        /// Holds each of its customers may have open at once [default: no limit]
        #[arg(long, default_value_t = 0)]
        customer_holds_max: u32,
        #[command(flatten)]
        profile: ProfileOption,
    },
}

pub fn run(options: &Options) -> i32 {
    let (definition, profile) = match &options.what {
        What::Node { name, priority, kind, timezone, profile } => (
            Definition::Node {
                name: name.clone(),
                priority: *priority,
                kind: kind.clone(),
                timezone: timezone.clone(),
            },
            profile,
        ),
        What::Group { name, nodes, profile } => {
            (Definition::Group { name: name.clone(), nodes: nodes.clone() }, profile)
        }
        What::Channel {
            name,
            parent,
            group,
            buffer,
            low,
            late_confirm,
            holds_max,
            customer_holds_max,
            profile,
        } => {
            let policy = Policy {
                low: *low,
                late_confirm: match late_confirm {
                    Late::Refuse => LateConfirm::Refuse,
                    Late::Reacquire => LateConfirm::Reacquire,
                },
                holds_max: *holds_max,
                customer_holds_max: *customer_holds_max,
            };
            let (name, parent, group) = (name.clone(), parent.clone(), group.clone());
            (Definition::Channel { name, parent, group, buffer: *buffer, policy }, profile)
        }
    };
    with_client(profile, async |client, _| define(&client, &definition).await)
}

/// Sends one definition and says what came of it.
pub(super) async fn define(
    client: &stockline_client::Client,
    definition: &Definition,
) -> Result<i32, ClientError> {
    let outcome = client.define(std::slice::from_ref(definition)).await?;
    match outcome.first() {
        Some(outcome) if outcome.code == Code::Ok => {
            let changed = if outcome.lsn > 0 { "changed" } else { "unchanged" };
            eprintln!("{} {changed} id={} lsn={}", definition.name(), outcome.id, outcome.lsn);
            Ok(exit::OK)
        }
        Some(outcome) => {
            eprintln!("stockline: {}: {}", outcome.code.name(), definition.name());
            Ok(exit::FAILED)
        }
        None => Err(ClientError::Protocol("no result for a definition".into())),
    }
}
