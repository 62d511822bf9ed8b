//! Availability: answered from the published view, without going through the order.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stockline_core::catalogue::{NameKind, NodeSet, Role};
use stockline_core::id::{ChannelId, GroupId, Millis, NodeId, SkuId};
use stockline_core::limit;
use stockline_core::outcome::Code;
use stockline_core::view::Stale;

use super::answer::{Moment, Name, Told};
use super::body::Sent;
use super::call::{Asked, At, Caller};
use super::problem::Problem;
use crate::availability::{self, Offer, Status};
use crate::event_row;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    channel: String,
    skus: Vec<String>,
    group: Option<String>,
    nodes: Option<Vec<String>>,
    /// What can be promised for then: what is there now, and what may be waited for and comes until then.
    #[schemars(extend("format" = "date-time"))]
    date: Option<String>,
    #[serde(default)]
    detail: Detail,
}

#[derive(Deserialize, JsonSchema, Default, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Detail {
    #[default]
    Total,
    Nodes,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct One {
    channel: String,
    group: Option<String>,
    /// What can be promised for then.
    #[schemars(extend("format" = "date-time"))]
    date: Option<String>,
    #[serde(default)]
    detail: Detail,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct OfSku {
    pub(super) sku: String,
}

/// What a channel can be promised, all from the one state of `as_of_lsn`.
#[derive(Serialize, JsonSchema)]
pub(super) struct Availability {
    as_of_lsn: u64,
    items: Vec<Item>,
}

#[derive(Serialize, JsonSchema)]
struct Item {
    sku: String,
    /// Units that can be promised now, or for the date asked for.
    available: i64,
    status: Status,
    /// With detail `nodes`: nodes that have some.
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<Vec<AtNode>>,
    /// What can be waited for besides.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_supply: Option<Supply>,
}

#[derive(Serialize, JsonSchema)]
struct AtNode {
    node: Name,
    available: i64,
}

#[derive(Serialize, JsonSchema)]
struct Supply {
    quantity: i64,
    from: Option<Moment>,
}

pub(super) async fn ask(
    caller: Caller,
    Sent(question): Sent<Question>,
) -> Result<Told<Availability>, Problem> {
    tell(&caller, &question)
}

pub(super) async fn ask_one(
    caller: Caller,
    At(OfSku { sku }): At<OfSku>,
    Asked(one): Asked<One>,
) -> Result<Told<Availability>, Problem> {
    let One { channel, group, date, detail } = one;
    caller.id(NameKind::Sku, &sku)?;
    tell(&caller, &Question { channel, skus: vec![sku], group, nodes: None, date, detail })
}

fn tell(caller: &Caller, question: &Question) -> Result<Told<Availability>, Problem> {
    if caller.principal.role == Role::Warehouse {
        return Err(Problem::of(Code::Forbidden, "a warehouse may not ask for availability"));
    }
    if question.skus.len() > limit::FRAME_SKUS_MAX {
        return Err(Problem::invalid(format!("at most {} skus at once", limit::FRAME_SKUS_MAX)));
    }
    let foreign = || Problem::of(Code::UnknownChannel, format!("no channel {:?}", question.channel));
    let channel = caller.id(NameKind::Channel, &question.channel).map_err(|_| foreign())?;
    let channel = ChannelId(channel as u16);
    if caller.principal.role == Role::Channel && caller.principal.channel != Some(channel) {
        return Err(foreign());
    }
    let date = match &question.date {
        None => Millis(0),
        Some(text) => Millis(event_row::moment_or_day("date", text).map_err(Problem::invalid)?),
    };
    let group = match &question.group {
        None => GroupId::ANY,
        Some(name) => caller.group(name)?,
    };
    let named = match &question.nodes {
        None => None,
        Some(names) => {
            let ids = names.iter().map(|name| caller.node(name));
            Some(NodeSet::of(&ids.collect::<Result<Vec<_>, Problem>>()?))
        }
    };
    if named.is_some() && group != GroupId::ANY {
        return Err(Problem::invalid("give a group or nodes, not both"));
    }
    let skus: Vec<SkuId> = question
        .skus
        .iter()
        // One that nobody knows is told as such, in its place.
        .map(|name| SkuId(caller.engine.names().id(NameKind::Sku, name).unwrap_or(u32::MAX)))
        .collect();
    let mut items: Vec<(Offer, Vec<(NodeId, i64)>)> = Vec::with_capacity(skus.len());
    let engine = &caller.engine;
    let read = engine.view().read(|reader| {
        items.clear();
        let Some(rule) = reader.rules.channel(channel) else { return Ok(()) };
        let (now, nodes) = (availability::now(reader, engine.clock()), reader.rules.group(group));
        let mut nodes_listed = 0;
        for sku in &skus {
            let mut listed = Vec::new();
            if nodes_listed > limit::ANSWER_NODES_MAX {
                break;
            }
            let offer = availability::offer(
                reader,
                (now, date),
                rule,
                named.as_ref().or(nodes),
                *sku,
                |node, free| {
                    if question.detail == Detail::Nodes {
                        listed.push((node, free));
                    }
                },
            )?;
            nodes_listed += listed.len();
            items.push((offer, listed));
        }
        Ok(())
    });
    let (as_of, ()) = read.map_err(|Stale| {
        Problem::of(Code::Overloaded, "these skus change faster than they can be read at once; ask for fewer")
    })?;
    if items.len() < skus.len() {
        let text = format!("more than {} nodes to list; ask for fewer skus at once", limit::ANSWER_NODES_MAX);
        return Err(Problem::invalid(text));
    }
    let node = |node: NodeId, free: i64, offer: &Offer| AtNode {
        node: caller.name(NameKind::Node, u32::from(node.0)),
        available: free.min(offer.units),
    };
    let items = question.skus.iter().zip(items).map(|(sku, (offer, listed))| Item {
        sku: sku.clone(),
        available: if question.date.is_some() { offer.by_date } else { offer.units },
        status: offer.status,
        nodes: (question.detail == Detail::Nodes)
            .then(|| listed.into_iter().map(|(at, free)| node(at, free, &offer)).collect()),
        next_supply: (offer.later.units > 0)
            .then(|| Supply { quantity: offer.later.units, from: Moment::of(offer.later.from) }),
    });
    Ok(Told(Availability { as_of_lsn: as_of.0, items: items.collect() }))
}
