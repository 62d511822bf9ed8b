//! Reservations: made, asked for, and every step of their lives.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use stockline_core::catalogue::NameKind;
use stockline_core::command::{Body, Fill, Line, Read, Reserve, StepLine, Transition, Verb};
use stockline_core::id::{GroupId, Key, Lsn, Millis, NodeId, ReservationId, SkuId, ZoneId};
use stockline_core::ledger::{Claim, NEVER, Outcome};
use stockline_core::limit;
use stockline_core::merge::{FrameReply, Part};
use stockline_core::outcome::Code;
use stockline_core::wire::FrameType;

use super::call::{Asked, At, Caller, Sent, answer, moment};
use super::problem::Problem;
use crate::access;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewLine {
    sku: String,
    quantity: u32,
    node: Option<String>,
    group: Option<String>,
    /// Claimed of the group: a move chooses the node later.
    #[serde(default)]
    choose_node: ChooseNode,
}

#[derive(Deserialize, Default, PartialEq)]
#[serde(rename_all = "lowercase")]
enum ChooseNode {
    #[default]
    Now,
    Later,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "lowercase")]
enum FillText {
    #[default]
    All,
    Partial,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewReservation {
    id: Option<uuid::Uuid>,
    channel: String,
    /// The caller's own; it is not kept here.
    #[serde(rename = "order")]
    _order: Option<String>,
    ttl_ms: u32,
    #[serde(default)]
    fill: FillText,
    /// Whom it is for, as the channel numbers its customers.
    #[serde(default)]
    customer: u64,
    zone: Option<String>,
    lines: Vec<NewLine>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Options {
    /// Say what would come of it and why; take nothing.
    #[serde(default)]
    dry_run: bool,
}

pub(super) async fn reserve(
    caller: Caller,
    Asked(options): Asked<Options>,
    Sent(new): Sent<NewReservation>,
) -> Result<Response, Problem> {
    let key = caller.given_key();
    if new.id.is_some_and(|id| id.is_nil()) {
        return Err(Problem::invalid("id must not be the nil UUID"));
    }
    let own = new.id.map(|id| id.as_u128()).or(caller.id_by_key());
    let own = match own {
        Some(id) => id,
        None if options.dry_run => 1,
        None => {
            let text =
                "give an Idempotency-Key header (or an id): with it a repeat is told what the first was told";
            return Err(Problem::new(StatusCode::BAD_REQUEST, "IDEMPOTENCY_KEY_MISSING", text));
        }
    };
    let mut lines = Vec::with_capacity(new.lines.len());
    for line in &new.lines {
        let group = line.group.as_ref().map(|name| caller.id(NameKind::Group, name)).transpose()?;
        let node = line.node.as_ref().map(|name| caller.id(NameKind::Node, name)).transpose()?;
        if node.is_some() && line.choose_node == ChooseNode::Later {
            return Err(Problem::invalid("a line names its node, or has it chosen later, not both"));
        }
        lines.push(Line {
            sku: caller.sku(&line.sku)?,
            node: match node {
                Some(node) => NodeId(node as u16),
                None if line.choose_node == ChooseNode::Later => NodeId::LATER,
                None => NodeId::ANY,
            },
            group: group.map_or(GroupId::ANY, |group| GroupId(group as u16)),
            quantity: line.quantity,
        });
    }
    let zone = new.zone.as_ref().map(|name| caller.id(NameKind::Zone, name)).transpose()?;
    let reserve = Reserve {
        id: ReservationId(own),
        channel: caller.channel(&new.channel)?,
        ttl_ms: new.ttl_ms,
        fill: match new.fill {
            FillText::All => Fill::All,
            FillText::Partial => Fill::Partial,
        },
        customer: new.customer,
        zone: zone.map_or(ZoneId::NONE, |zone| ZoneId(zone as u16)),
        first_line: 0,
        line_count: u32::try_from(lines.len()).unwrap_or(u32::MAX),
    };
    if options.dry_run {
        if lines.len() > limit::EXPLAIN_LINES_MAX {
            let text = format!("a dry run explains {} lines at most", limit::EXPLAIN_LINES_MAX);
            return Err(Problem::of(Code::TooManyLines, text));
        }
        let sent = caller.command(Key(0), Body::Read(Read::Explain(reserve)), &lines);
        let mut reply = caller.submit(FrameType::Explain, vec![sent], lines.clone()).await?;
        access::hide(&caller.engine, &caller.principal, &mut reply.traces);
        return Ok(explained(&caller, &reply, &lines));
    }
    let key = key.unwrap_or(Key(own));
    let sent = caller.command(key, Body::Reserve(reserve), &lines);
    let reply = caller.submit(FrameType::Reserve, vec![sent], lines.clone()).await?;
    let told = reply.replies[0];
    let (parts, shorts) = split(&caller, &reply.parts, &lines);
    if told.outcome.code != Code::Ok {
        let problem = refused(told.outcome, told.lsn);
        return Err(if shorts.is_empty() { problem } else { problem.with("short", shorts.into()) });
    }
    let id = text(ReservationId(own));
    let mut body = json!({
        "id": id,
        "state": told.outcome.state.name(),
        "lsn": told.lsn.0,
        "expires_at": moment(told.outcome.expires_at),
        "lines": parts,
    });
    if !shorts.is_empty() {
        body["short"] = shorts.into();
    }
    let place = [(header::LOCATION, format!("/v1/reservations/{id}"))];
    Ok((place, answer(StatusCode::CREATED, &body)).into_response())
}

/// A reservation's id as text.
fn text(id: ReservationId) -> String {
    uuid::Uuid::from_u128(id.0).to_string()
}

fn refused(outcome: Outcome, lsn: Lsn) -> Problem {
    let mut problem = Problem::refused(outcome.code);
    // What is turned away at the door has none.
    if lsn != Lsn::NONE {
        problem = problem.with("lsn", lsn.0.into());
    }
    if outcome.state == stockline_core::outcome::State::None {
        return problem;
    }
    problem.with("state", outcome.state.name().into())
}

/// Where units stand: a node, or a group of which the node is not chosen yet.
fn place(caller: &Caller, node: NodeId, body: &mut Value) {
    match node.group() {
        None => body["node"] = caller.name(NameKind::Node, u32::from(node.0)),
        Some(group) => {
            body["node"] = Value::Null;
            body["group"] = caller.name(NameKind::Group, u32::from(group.0));
        }
    }
}

/// When units are there that are not there yet.
fn promise(at: Millis, body: &mut Value) {
    if at.0 > 0 {
        body["promised_for"] = if at == NEVER { Value::Null } else { moment(at) };
    }
}

/// Claims and shortages of a reply.
fn split(caller: &Caller, parts: &[Part], lines: &[Line]) -> (Vec<Value>, Vec<Value>) {
    let sku = |sku: SkuId| caller.name(NameKind::Sku, sku.0);
    let (mut claims, mut shorts) = (Vec::new(), Vec::new());
    for part in parts {
        if part.node == NodeId::ANY {
            let wanted = lines.get(usize::from(part.line)).map_or(0, |line| line.quantity);
            shorts.push(json!({
                "line": part.line, "sku": sku(part.sku), "quantity": wanted, "available": part.quantity,
            }));
            continue;
        }
        let mut claim = json!({ "sku": sku(part.sku), "quantity": part.quantity });
        place(caller, part.node, &mut claim);
        promise(part.at, &mut claim);
        claims.push(claim);
    }
    (claims, shorts)
}

/// What would come of a reservation, and why.
fn explained(caller: &Caller, reply: &FrameReply, lines: &[Line]) -> Response {
    let (parts, shorts) = split(caller, &reply.parts, lines);
    let traces: Vec<Value> = reply
        .traces
        .iter()
        .map(|(_, trace)| trace)
        .map(|trace| {
            json!({
                "line": trace.line,
                "node": caller.name(NameKind::Node, u32::from(trace.node.0)),
                "why": trace.why.name(),
                "taken": trace.taken,
                "free": trace.free,
                "withheld": trace.withheld,
                "own": trace.own,
                "order": trace.order,
                "rank": trace.rank,
                "days_late": trace.late,
            })
        })
        .collect();
    let code = reply.replies[0].outcome.code;
    let body = json!({
        "as_of_lsn": reply.as_of.0, "code": code.name(), "lines": parts, "short": shorts, "traces": traces,
    });
    answer(StatusCode::OK, &body)
}

/// The id in the path: a UUID.
fn path_id(text: &str) -> Result<ReservationId, Problem> {
    let unknown = || Problem::of(Code::UnknownReservation, format!("{text:?} is no reservation's id"));
    uuid::Uuid::parse_str(text).map(|id| ReservationId(id.as_u128())).map_err(|_| unknown())
}

/// A reservation as it stands.
fn view(caller: &Caller, id: ReservationId, lsn: Lsn, found: &(Outcome, Vec<(Claim, Millis)>)) -> Value {
    let (outcome, claims) = found;
    let lines: Vec<Value> = claims
        .iter()
        .map(|(claim, at)| {
            let mut line = json!({
                "sku": caller.name(NameKind::Sku, claim.sku.0),
                "quantity": claim.quantity,
                "held": claim.held,
                "confirmed": claim.confirmed(),
                "picked": claim.picked,
                "shipped": claim.shipped,
            });
            place(caller, claim.node, &mut line);
            promise(*at, &mut line);
            line
        })
        .collect();
    json!({
        "id": text(id),
        "state": outcome.state.name(),
        "lsn": lsn.0,
        "expires_at": if outcome.expires_at.0 == 0 { Value::Null } else { moment(outcome.expires_at) },
        "lines": lines,
    })
}

pub(super) async fn read(caller: Caller, At(id): At<String>) -> Result<Response, Problem> {
    let id = path_id(&id)?;
    let asked = Read::Reservation { id, scope: caller.scope() };
    let reply = caller.read(FrameType::ReadReservations, asked).await?;
    match reply.reservations.first() {
        Some(found) if found.0.code == Code::Ok => {
            Ok(answer(StatusCode::OK, &view(&caller, id, reply.as_of, found)))
        }
        _ => Err(Problem::refused(Code::UnknownReservation)),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PartOf {
    sku: String,
    quantity: u32,
    /// Where its units are claimed; for units whose node is not chosen yet their group, or neither.
    node: Option<String>,
    group: Option<String>,
    to_node: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    ttl_ms: Option<u32>,
    #[serde(default)]
    lines: Vec<PartOf>,
}

pub(super) async fn step(
    caller: Caller,
    At((reservation, verb)): At<(String, String)>,
    Sent(step): Sent<Step>,
) -> Result<Response, Problem> {
    let reservation = path_id(&reservation)?;
    let verbs = [Verb::Confirm, Verb::Release, Verb::Extend, Verb::Fulfil, Verb::Move];
    let Some(verb) = verbs.into_iter().find(|known| known.name() == verb) else {
        let text = format!("{verb:?} is no step: confirm, release, extend, fulfil or move");
        return Err(Problem::new(StatusCode::NOT_FOUND, "NOT_FOUND", text));
    };
    match (verb, step.ttl_ms, step.lines.is_empty()) {
        (Verb::Extend, None, _) => return Err(Problem::invalid("extend needs ttl_ms")),
        (Verb::Extend, _, false) => {
            return Err(Problem::invalid("extend is of the whole reservation: no lines"));
        }
        (Verb::Move, _, true) => return Err(Problem::invalid("move needs lines, each with its to_node")),
        (Verb::Extend, Some(_), true) | (_, None, _) => {}
        _ => return Err(Problem::invalid("ttl_ms is for extend only")),
    }
    let mut lines = Vec::with_capacity(step.lines.len());
    for line in &step.lines {
        let node = match (&line.node, &line.group) {
            (Some(node), None) => caller.node(node)?,
            (None, Some(group)) => NodeId::of_group(caller.group(group)?),
            (None, None) => NodeId::of_group(GroupId::ANY),
            (Some(_), Some(_)) => return Err(Problem::invalid("a line names a node or a group, not both")),
        };
        if line.to_node.is_some() && line.to_node == line.node {
            return Err(Problem::invalid("to_node is another node than node"));
        }
        if (verb == Verb::Move) != line.to_node.is_some() {
            return Err(Problem::invalid("to_node is for move, and every line of a move has one"));
        }
        let to = line.to_node.as_ref().map(|name| caller.id(NameKind::Node, name)).transpose()?;
        lines.push(StepLine {
            sku: caller.sku(&line.sku)?,
            node,
            to_node: to.map_or(NodeId::ANY, |node| NodeId(node as u16)),
            quantity: line.quantity,
        });
    }
    let transition = Transition {
        reservation,
        verb,
        ttl_ms: step.ttl_ms.unwrap_or(0),
        scope: caller.scope(),
        lines: lines.into(),
    };
    let key = caller.key()?;
    let sent = caller.command(key, Body::Transition(transition), &[]);
    let reply = caller.submit(FrameType::Transitions, vec![sent], vec![]).await?;
    let told = reply.replies[0];
    if told.outcome.code != Code::Ok {
        return Err(refused(told.outcome, told.lsn));
    }
    // The step is done whatever comes of the look; state and end are what the step was told, lines are as of the look.
    let look = Read::Reservation { id: reservation, scope: caller.scope() };
    let seen = caller.read(FrameType::ReadReservations, look).await;
    let found = seen.as_ref().ok().and_then(|seen| Some((seen.reservations.first()?, seen.as_of)));
    let mut body = match found.filter(|(found, _)| found.0.code == Code::Ok) {
        Some((found, as_of)) => {
            let mut body = view(&caller, reservation, told.lsn, &(told.outcome, found.1.clone()));
            body["as_of_lsn"] = as_of.0.into();
            body
        }
        None => json!({ "id": text(reservation), "state": told.outcome.state.name(), "lsn": told.lsn.0 }),
    };
    if told.outcome.reacquired {
        body["reacquired"] = true.into();
    }
    Ok(answer(StatusCode::OK, &body))
}
