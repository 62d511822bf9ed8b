//! Configuration: nodes, groups, channels, zones, rules and what is known of skus, each put as a whole.

use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;
use stockline_core::catalogue::{
    Amount, Catalogue, Day, Definition, Effect, Lane, LateConfirm, NameKind, Point, Policy, Strategy,
    UNKNOWN, When,
};
use stockline_core::command::Body;
use stockline_core::id::Key;
use stockline_core::outcome::Code;
use stockline_core::wire::FrameType;

use super::call::{At, Caller, Sent, answer};
use super::problem::Problem;
use crate::command::define::{cut_off, utc_offset};

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct NodeBody {
    #[serde(rename = "type")]
    kind: Option<String>,
    priority: Option<u16>,
    timezone: Option<String>,
    latitude: Option<f64>,
    longitude: Option<f64>,
    substitutes: Vec<String>,
    cut_off: Option<String>,
    utc_offset: Option<String>,
    capacity: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupBody {
    nodes: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ChannelBody {
    parent: Option<String>,
    group: Option<String>,
    buffer: u32,
    low: u32,
    late_confirm: Option<LateText>,
    holds_max: u32,
    customer_holds_max: u32,
    cap: u32,
    strategy: Option<StrategyText>,
    splits_max: u8,
    priority: u16,
    substitutes: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum LateText {
    Refuse,
    Reacquire,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum StrategyText {
    Priority,
    Nearest,
    FewestSplits,
    HighestStock,
    LowestCost,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SkuBody {
    category: String,
    substitutes: Vec<String>,
}

/// Puts an entry: 201 where it is new, 200 where it was there.
async fn put(
    caller: &Caller,
    kind: impl Into<Option<NameKind>>,
    definitions: Vec<Definition>,
) -> Result<Response, Problem> {
    let name = definitions[0].name().to_owned();
    if !Catalogue::is_name(&name) {
        let text = "a name has 1 to 64 bytes, no control characters and no spaces at its ends";
        return Err(Problem::of(Code::InvalidName, text));
    }
    // Whether a rule was there, nobody keeps: it is answered as what was there.
    let known = kind.into().is_none_or(|kind| caller.engine.names().id(kind, &name).is_some());
    let commands = definitions
        .into_iter()
        .map(|definition| caller.command(Key(0), Body::Define(Box::new(definition)), &[]));
    let reply = caller.submit(FrameType::Define, commands.collect(), vec![]).await?;
    let last = reply.replies.iter().map(|told| told.lsn.0).max().unwrap_or(0);
    if let Some(refused) = reply.replies.iter().find(|told| told.outcome.code != Code::Ok) {
        return Err(Problem::refused(refused.outcome.code));
    }
    // LSN 0: it was there, exactly so.
    let body = json!({ "name": name, "lsn": last, "changed": last > 0 });
    Ok(answer(if known { StatusCode::OK } else { StatusCode::CREATED }, &body))
}

pub(super) async fn node(
    caller: Caller,
    At(name): At<String>,
    Sent(body): Sent<NodeBody>,
) -> Result<Response, Problem> {
    let at = point(body.latitude, body.longitude)?;
    let definition = Definition::Node {
        name,
        priority: body.priority.unwrap_or(100),
        kind: body.kind.unwrap_or_else(|| "warehouse".into()),
        timezone: body.timezone.unwrap_or_else(|| "UTC".into()),
        at,
        substitutes: body.substitutes,
        day: Day {
            cut_off: body.cut_off.map_or(Ok(0), |text| cut_off(&text)).map_err(Problem::invalid)?,
            ahead: body.utc_offset.map_or(Ok(0), |text| utc_offset(&text)).map_err(Problem::invalid)?,
            capacity: body.capacity,
        },
    };
    put(&caller, NameKind::Node, vec![definition]).await
}

pub(super) async fn group(
    caller: Caller,
    At(name): At<String>,
    Sent(GroupBody { nodes }): Sent<GroupBody>,
) -> Result<Response, Problem> {
    put(&caller, NameKind::Group, vec![Definition::Group { name, nodes }]).await
}

pub(super) async fn channel(
    caller: Caller,
    At(name): At<String>,
    Sent(body): Sent<ChannelBody>,
) -> Result<Response, Problem> {
    let policy = Policy {
        low: body.low,
        late_confirm: match body.late_confirm {
            None | Some(LateText::Refuse) => LateConfirm::Refuse,
            Some(LateText::Reacquire) => LateConfirm::Reacquire,
        },
        holds_max: body.holds_max,
        customer_holds_max: body.customer_holds_max,
        cap: body.cap,
        strategy: match body.strategy {
            None | Some(StrategyText::Priority) => Strategy::Priority,
            Some(StrategyText::Nearest) => Strategy::Nearest,
            Some(StrategyText::FewestSplits) => Strategy::FewestSplits,
            Some(StrategyText::HighestStock) => Strategy::HighestStock,
            Some(StrategyText::LowestCost) => Strategy::LowestCost,
        },
        priority: body.priority,
        splits_max: body.splits_max,
        substitutes: body.substitutes,
    };
    let ChannelBody { parent, group, buffer, .. } = body;
    let definition = Definition::Channel { name, parent, group, buffer, policy };
    put(&caller, NameKind::Channel, vec![definition]).await
}

pub(super) async fn sku(
    caller: Caller,
    At(name): At<String>,
    Sent(SkuBody { category, substitutes }): Sent<SkuBody>,
) -> Result<Response, Problem> {
    let made = Definition::Sku { name: name.clone() };
    put(&caller, NameKind::Sku, vec![made, Definition::SkuData { name, category, substitutes }]).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ZoneBody {
    latitude: Option<f64>,
    longitude: Option<f64>,
    #[serde(default)]
    lanes: Vec<LaneBody>,
}

/// The way from a node; what is left out is not known, or as coordinates say.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LaneBody {
    node: String,
    metres: Option<u32>,
    cost: Option<u32>,
}

pub(super) async fn zone(
    caller: Caller,
    At(name): At<String>,
    Sent(body): Sent<ZoneBody>,
) -> Result<Response, Problem> {
    let lane = |lane: LaneBody| Lane {
        node: lane.node,
        metres: lane.metres.unwrap_or(UNKNOWN),
        cost: lane.cost.unwrap_or(UNKNOWN),
    };
    let at = point(body.latitude, body.longitude)?;
    let lanes = body.lanes.into_iter().map(lane).collect();
    put(&caller, NameKind::Zone, vec![Definition::Zone { name, at, lanes }]).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleBody {
    /// A sku's name, or the beginning of names and a `*`.
    skus: String,
    #[serde(default)]
    category: String,
    node: Option<String>,
    group: Option<String>,
    channel: Option<String>,
    safety: Option<u32>,
    backorder: Option<u32>,
    preorder: Option<u32>,
    allocate: Option<AllocateBody>,
}

/// Units, or percent of what nobody claims: of each receipt, always, or every so many minutes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AllocateBody {
    units: Option<u32>,
    percent: Option<u8>,
    #[serde(default)]
    when: WhenText,
    every_minutes: Option<u16>,
}

#[derive(Deserialize, Default, PartialEq)]
#[serde(rename_all = "lowercase")]
enum WhenText {
    #[default]
    Receipt,
    Always,
    Every,
}

impl AllocateBody {
    fn effect(&self) -> Result<Effect, Problem> {
        let amount = match (self.units, self.percent) {
            (Some(units), None) => Amount::Units(units),
            (None, Some(percent)) => Amount::Percent(percent),
            _ => return Err(Problem::invalid("allocate: give units or percent")),
        };
        let when = match (&self.when, self.every_minutes) {
            (WhenText::Receipt, None) => When::Receipt,
            (WhenText::Always, None) => When::Always,
            (WhenText::Every, Some(minutes)) => When::Every(minutes),
            _ => {
                return Err(Problem::invalid(
                    "allocate: every_minutes is for \"when\": \"every\", which needs it",
                ));
            }
        };
        Ok(Effect::Allocate { amount, when })
    }
}

pub(super) async fn rule(
    caller: Caller,
    At(name): At<String>,
    Sent(body): Sent<RuleBody>,
) -> Result<Response, Problem> {
    let effects = [
        body.safety.map(Effect::Safety),
        body.backorder.map(Effect::Backorder),
        body.preorder.map(Effect::Preorder),
        body.allocate.as_ref().map(AllocateBody::effect).transpose()?,
    ];
    let mut effects = effects.into_iter().flatten();
    // One without an effect is given up.
    let effect = effects.next().unwrap_or(Effect::None);
    if effects.next().is_some() {
        return Err(Problem::invalid("a rule has one of safety, backorder, preorder and allocate"));
    }
    let RuleBody { skus, category, node, group, channel, .. } = body;
    let definition = Definition::Rule { name, skus, category, node, group, channel, effect };
    put(&caller, None, vec![definition]).await
}

/// Coordinates in degrees, given together or not at all.
fn point(latitude: Option<f64>, longitude: Option<f64>) -> Result<Option<Point>, Problem> {
    match (latitude, longitude) {
        (None, None) => Ok(None),
        (Some(latitude), Some(longitude)) => {
            let degrees = |degrees: f64| (degrees * 1e6).round() as i32;
            Ok(Some(Point { latitude: degrees(latitude), longitude: degrees(longitude) }))
        }
        _ => Err(Problem::invalid("latitude and longitude are given together")),
    }
}
