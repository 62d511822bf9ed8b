//! Configuration: nodes, groups, channels and what is known of skus, each put as a whole.

use axum::body::Body as Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;
use stockline_core::catalogue::{Day, Definition, LateConfirm, NameKind, Point, Policy, Strategy};
use stockline_core::command::Body;
use stockline_core::id::Key;
use stockline_core::outcome::Code;
use stockline_core::wire::FrameType;

use super::call::{answer, command, json as read_json, principal, submit};
use super::problem::Problem;
use super::stock::check_name;
use crate::command::define::{cut_off, utc_offset};
use crate::engine::Engine;

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
    engine: &Engine,
    headers: &HeaderMap,
    kind: NameKind,
    definitions: Vec<Definition>,
) -> Result<Response, Problem> {
    let principal = principal(engine, headers)?;
    let name = definitions[0].name().to_owned();
    check_name(&name)?;
    let known = engine.names().id(kind, &name).is_some();
    let commands = definitions
        .into_iter()
        .map(|definition| command(engine, Key(0), Body::Define(Box::new(definition)), &[]));
    let reply = submit(engine, &principal, FrameType::Define, commands.collect(), vec![]).await?;
    let last = reply.replies.iter().map(|told| told.lsn.0).max().unwrap_or(0);
    if let Some(refused) = reply.replies.iter().find(|told| told.outcome.code != Code::Ok) {
        return Err(Problem::refused(refused.outcome.code));
    }
    // LSN 0: it was there, exactly so.
    let body = json!({ "name": name, "lsn": last, "changed": last > 0 });
    Ok(answer(if known { StatusCode::OK } else { StatusCode::CREATED }, &body))
}

pub(super) async fn node(
    State(engine): State<Engine>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    principal(&engine, &headers)?;
    let body: NodeBody = read_json(&headers, body).await?;
    let at = match (body.latitude, body.longitude) {
        (None, None) => None,
        (Some(latitude), Some(longitude)) => {
            let degrees = |degrees: f64| (degrees * 1e6).round() as i32;
            let (latitude, longitude) = (degrees(latitude), degrees(longitude));
            Some(Point { latitude, longitude })
        }
        _ => return Err(Problem::invalid("latitude and longitude are given together")),
    };
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
    put(&engine, &headers, NameKind::Node, vec![definition]).await
}

pub(super) async fn group(
    State(engine): State<Engine>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    principal(&engine, &headers)?;
    let GroupBody { nodes } = read_json(&headers, body).await?;
    put(&engine, &headers, NameKind::Group, vec![Definition::Group { name, nodes }]).await
}

pub(super) async fn channel(
    State(engine): State<Engine>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    principal(&engine, &headers)?;
    let body: ChannelBody = read_json(&headers, body).await?;
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
    put(&engine, &headers, NameKind::Channel, vec![definition]).await
}

pub(super) async fn sku(
    State(engine): State<Engine>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    principal(&engine, &headers)?;
    let SkuBody { category, substitutes } = read_json(&headers, body).await?;
    let made = Definition::Sku { name: name.clone() };
    put(&engine, &headers, NameKind::Sku, vec![made, Definition::SkuData { name, category, substitutes }])
        .await
}
