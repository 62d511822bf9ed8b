//! `stockline explain`: what a reservation of one line would be told now, and why. Nothing is taken.

use stockline_client::{Client, ClientError, Fill, NewReservation};
use stockline_core::catalogue::NameKind;
use stockline_core::id::{GroupId, NodeId, ZoneId};
use stockline_core::label::Labels;
use stockline_core::outcome::Code;
use stockline_core::record::LineRec;

use crate::command::{ProfileOption, with_client};
use crate::exit;
use crate::out;

#[derive(Debug, clap::Args)]
pub struct Options {
    sku: String,
    quantity: u32,
    /// The channel that asks
    #[arg(long, value_name = "CHANNEL")]
    channel: String,
    /// Where the order goes
    #[arg(long)]
    zone: Option<String>,
    /// Only from that node
    #[arg(long)]
    node: Option<String>,
    /// Only from that group
    #[arg(long)]
    group: Option<String>,
    /// Of the quantity what there is
    #[arg(long)]
    partial: bool,
    #[command(flatten)]
    profile: ProfileOption,
}

const WHY: [&str; 6] = [
    "taken",
    "not offered to the channel",
    "not in the group",
    "another node is named",
    "nothing there",
    "not chosen",
];

pub fn run(options: &Options) -> i32 {
    with_client(&options.profile, async |client, _| {
        let Some(question) = question(&client, options).await? else { return Ok(exit::FAILED) };
        let (outcomes, traces) = client.explain(&[question]).await?;
        let Some(outcome) = outcomes.first() else {
            return Err(ClientError::Protocol("no result for an explanation".into()));
        };
        out!("{}", outcome.code.name());
        for part in outcome.parts.iter().filter(|part| part.node == NodeId::ANY.0) {
            out!("available={} of {}", part.quantity, options.quantity);
        }
        for part in outcome.parts.iter().filter(|part| part.at_ms > 0) {
            out!("node={} taken={} promised_for_ms={}", part.node, part.quantity, part.at_ms);
        }
        for trace in traces {
            let why =
                WHY.get(usize::from(trace.why)).copied().unwrap_or("for a reason this program does not know");
            out!(
                "node={} taken={} free={} withheld={} own={} rank={} order={} late={}: {why}",
                trace.node,
                trace.taken,
                trace.free,
                trace.withheld,
                trace.own,
                trace.rank,
                trace.order,
                trace.late
            );
        }
        Ok(if outcome.code == Code::Ok { exit::OK } else { exit::FAILED })
    })
}

/// The names as ids; `None` where one is not known, which was said.
async fn question(client: &Client, options: &Options) -> Result<Option<NewReservation>, ClientError> {
    let mut ids = Vec::new();
    for (kind, name, none) in [
        (NameKind::Sku, Some(&options.sku), 0),
        (NameKind::Channel, Some(&options.channel), 0),
        (NameKind::Zone, options.zone.as_ref(), u32::from(ZoneId::NONE.0)),
        (NameKind::Node, options.node.as_ref(), u32::from(NodeId::ANY.0)),
        (NameKind::Group, options.group.as_ref(), u32::from(GroupId::ANY.0)),
    ] {
        ids.push(match name {
            None => none,
            Some(name) => match super::id(client, kind, name).await? {
                Some(id) => id,
                None => return Ok(None),
            },
        });
    }
    let line = LineRec { sku: ids[0], node: ids[3] as u16, group: ids[4] as u16, quantity: options.quantity };
    Ok(Some(NewReservation {
        id: 1,
        channel: ids[1] as u16,
        ttl_ms: 1_000,
        fill: if options.partial { Fill::Partial } else { Fill::All },
        customer: 0,
        zone: ids[2] as u16,
        labels: Labels::NONE,
        lines: vec![line],
    }))
}
