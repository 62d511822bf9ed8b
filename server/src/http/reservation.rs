//! Reservations: made, asked for, and every step of their lives.

use aide::OperationOutput;
use aide::generate::GenContext;
use aide::openapi::{Operation, Response as Described};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stockline_core::catalogue::{NameKind, Role};
use stockline_core::command::{Body, Command, Fill, Line, Read, Reserve, StepLine, Transition, Verb};
use stockline_core::id::{ChannelId, GroupId, Key, Lsn, Millis, NodeId, ReservationId, SkuId, ZoneId};
use stockline_core::label::{LabelKind, Labels};
use stockline_core::ledger::{Claim, NEVER, Outcome, Trace};
use stockline_core::limit;
use stockline_core::merge::{FrameReply, Part, Seen};
use stockline_core::outcome::{Code, State};
use stockline_core::wire::FrameType;
use xxhash_rust::xxh3::xxh3_64;

use super::answer::{Made, Moment, Name, Told, described};
use super::body::Sent;
use super::call::{Asked, At, Caller};
use super::problem::Problem;
use crate::access;
use crate::event_row::wrong;

#[derive(Deserialize, JsonSchema)]
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

#[derive(Deserialize, JsonSchema, Default, PartialEq)]
#[serde(rename_all = "lowercase")]
enum ChooseNode {
    #[default]
    Now,
    Later,
}

#[derive(Deserialize, JsonSchema, Default)]
#[serde(rename_all = "lowercase")]
enum FillText {
    #[default]
    All,
    Partial,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewReservation {
    id: Option<uuid::Uuid>,
    channel: String,
    /// The order it is for, as the channel calls it: kept, and looked up by.
    order: Option<String>,
    ttl_ms: u32,
    #[serde(default)]
    fill: FillText,
    /// Whom it is for, as the channel calls its customers; a number counts as the same text.
    customer: Option<Customer>,
    /// Anything else that it is to be found by.
    reference: Option<String>,
    zone: Option<String>,
    lines: Vec<NewLine>,
}

/// A text, or a number that stands for one.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum Customer {
    Text(String),
    Number(u64),
}

impl Customer {
    /// Its text; nobody in particular has none.
    fn text(&self) -> String {
        match self {
            Customer::Text(text) => text.clone(),
            Customer::Number(0) => String::new(),
            Customer::Number(number) => number.to_string(),
        }
    }
}

/// The number by which a customer's open holds are counted: that which the text is, else that of its hash.
fn customer_number(text: &str) -> u64 {
    match text.parse::<u64>() {
        Ok(number) if number.to_string() == text => number,
        _ if text.is_empty() => 0,
        _ => xxh3_64(text.as_bytes()).max(1),
    }
}

#[derive(Deserialize, JsonSchema, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Options {
    /// Say what would come of it and why; take nothing.
    #[serde(default)]
    dry_run: bool,
}

/// Where units stand: a node, or a group of which the node is not chosen yet.
#[derive(Serialize, JsonSchema)]
struct Place {
    node: Option<Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<Name>,
}

/// Units that a reservation claims, with when they are there if they are not yet; null: nobody knows.
#[derive(Serialize, JsonSchema)]
struct Promised {
    sku: Name,
    quantity: u32,
    #[serde(flatten)]
    place: Place,
    #[serde(skip_serializing_if = "Option::is_none")]
    promised_for: Option<Option<Moment>>,
}

/// A line for which there was too little.
#[derive(Serialize, JsonSchema)]
pub(super) struct Short {
    line: u16,
    sku: Name,
    quantity: u32,
    available: u32,
}

/// A reservation that was made.
#[derive(Serialize, JsonSchema)]
pub(super) struct Reserved {
    id: String,
    #[schemars(extend("enum" = ["held", "confirmed", "fulfilled", "released", "expired"]))]
    state: &'static str,
    lsn: u64,
    expires_at: Option<Moment>,
    lines: Vec<Promised>,
    /// Filled partly: what is missing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    short: Vec<Short>,
}

/// What would come of a reservation, and why.
#[derive(Serialize, JsonSchema)]
pub(super) struct Explanation {
    as_of_lsn: u64,
    /// `OK`, or why it would be refused.
    code: &'static str,
    lines: Vec<Promised>,
    short: Vec<Short>,
    traces: Vec<TraceOf>,
}

/// What was seen of one node for one line, when it was the line's turn.
#[derive(Serialize, JsonSchema)]
struct TraceOf {
    line: u16,
    node: Name,
    #[schemars(extend("enum" = ["taken", "not_offered", "not_in_group", "other_node", "nothing", "not_chosen"]))]
    why: &'static str,
    taken: u32,
    free: i64,
    withheld: i64,
    own: i64,
    order: u64,
    rank: u16,
    days_late: u8,
}

/// What a request for a reservation is answered.
pub(super) enum Reservation {
    Made(Made<Reserved>),
    Explained(Told<Explanation>),
}

impl IntoResponse for Reservation {
    fn into_response(self) -> Response {
        match self {
            Reservation::Made(made) => made.into_response(),
            Reservation::Explained(told) => told.into_response(),
        }
    }
}

impl OperationOutput for Reservation {
    type Inner = Reserved;

    fn inferred_responses(ctx: &mut GenContext, _: &mut Operation) -> Vec<(Option<u16>, Described)> {
        let made = described::<Reserved>(ctx, "Made, or made before with this key", "application/json");
        let explained = described::<Explanation>(ctx, "With dry_run: nothing was taken", "application/json");
        vec![(Some(201), made), (Some(200), explained)]
    }
}

/// A reservation as it stands.
#[derive(Serialize, JsonSchema)]
pub(super) struct Standing {
    id: String,
    #[schemars(extend("enum" = ["held", "confirmed", "fulfilled", "released", "expired"]))]
    state: &'static str,
    /// Of the step, or of the state that is shown.
    lsn: u64,
    /// Behind a step: the state whose lines are shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    as_of_lsn: Option<u64>,
    expires_at: Option<Moment>,
    #[serde(flatten)]
    called: CalledSo,
    /// Left out where the step was done and its lines could not be read behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    lines: Option<Vec<ClaimOf>>,
    /// The confirmation came late, and took what there was.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(default)]
    reacquired: bool,
}

/// What its owner calls it, as far as that was said.
#[derive(Serialize, JsonSchema, Default)]
struct CalledSo {
    /// The text that was its idempotency key.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    customer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
}

impl CalledSo {
    fn of(labels: &Labels) -> CalledSo {
        let text = |kind| labels.get(kind).map(str::to_owned);
        CalledSo {
            key: text(LabelKind::Key),
            order: text(LabelKind::Order),
            customer: text(LabelKind::Customer),
            reference: text(LabelKind::Reference),
        }
    }
}

#[derive(Serialize, JsonSchema)]
struct ClaimOf {
    #[serde(flatten)]
    claim: Promised,
    /// Whose the units were: the channel's own allocation, one of a channel above it, what all share, or a supply to come.
    #[schemars(extend("enum" = ["own", "parent", "shared", "supply"]))]
    pool: &'static str,
    held: u32,
    confirmed: u32,
    picked: u32,
    shipped: u32,
    /// Units that were claimed when it was released, and are not any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    released: Option<u32>,
    /// The same when it expired.
    #[serde(skip_serializing_if = "Option::is_none")]
    expired: Option<u32>,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct OfReservation {
    /// A UUID, or its key, order or reference.
    id: String,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct StepOf {
    /// A UUID, or the key under which it was made.
    id: String,
    verb: VerbText,
}

#[derive(Deserialize, JsonSchema, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum VerbText {
    Confirm,
    Release,
    Extend,
    Fulfil,
    Move,
}

pub(super) async fn reserve(
    caller: Caller,
    Asked(options): Asked<Options>,
    Sent(new): Sent<NewReservation>,
) -> Result<Reservation, Problem> {
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
    let customer = new.customer.as_ref().map_or_else(String::new, Customer::text);
    let (order, reference) = (new.order.unwrap_or_default(), new.reference.unwrap_or_default());
    let texts = [
        (LabelKind::Key, caller.key_text().unwrap_or_default()),
        (LabelKind::Order, &order),
        (LabelKind::Customer, &customer),
        (LabelKind::Reference, &reference),
    ];
    let labels = Labels::of(texts).map_err(|(kind, reason)| {
        let given = texts.iter().find(|(other, _)| *other == kind).map_or("", |(_, text)| text);
        Problem::invalid(wrong(kind.name(), given, reason))
    })?;
    let zone = new.zone.as_ref().map(|name| caller.id(NameKind::Zone, name)).transpose()?;
    let reserve = Reserve {
        id: ReservationId(own),
        channel: caller.channel(&new.channel)?,
        ttl_ms: new.ttl_ms,
        fill: match new.fill {
            FillText::All => Fill::All,
            FillText::Partial => Fill::Partial,
        },
        customer: customer_number(&customer),
        labels,
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
        return Ok(Reservation::Explained(Told(explained(&caller, &reply, &lines))));
    }
    let key = key.unwrap_or(Key(own));
    let mut sent = caller.command(key, Body::Reserve(reserve), &lines);
    if let Some(moment) = caller.not_before() {
        sent.issued_at = Command::not_before(moment);
    }
    let reply = caller.submit(FrameType::Reserve, vec![sent], lines.clone()).await?;
    let told = reply.replies[0];
    let (parts, shorts) = split(&caller, &reply.parts, &lines);
    if told.outcome.code != Code::Ok {
        let problem = refused(told.outcome, told.lsn);
        return Err(if shorts.is_empty() { problem } else { problem.with("short", value(&shorts)) });
    }
    let id = text(ReservationId(own));
    let body = Reserved {
        id: id.clone(),
        state: told.outcome.state.name(),
        lsn: told.lsn.0,
        expires_at: Moment::of(told.outcome.expires_at),
        lines: parts,
        short: shorts,
    };
    Ok(Reservation::Made(Made { body, location: format!("/v1/reservations/{id}") }))
}

fn value(body: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(body).unwrap_or_default()
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

fn place(caller: &Caller, node: NodeId) -> Place {
    match node.group() {
        None => Place { node: Some(caller.name(NameKind::Node, u32::from(node.0))), group: None },
        Some(group) => Place { node: None, group: Some(caller.name(NameKind::Group, u32::from(group.0))) },
    }
}

/// When units are there that are not there yet.
fn promise(at: Millis) -> Option<Option<Moment>> {
    (at.0 > 0).then(|| if at == NEVER { None } else { Moment::of(at) })
}

fn promised(caller: &Caller, sku: SkuId, node: NodeId, quantity: u32, at: Millis) -> Promised {
    let sku = caller.name(NameKind::Sku, sku.0);
    Promised { sku, quantity, place: place(caller, node), promised_for: promise(at) }
}

/// Claims and shortages of a reply.
fn split(caller: &Caller, parts: &[Part], lines: &[Line]) -> (Vec<Promised>, Vec<Short>) {
    let (mut claims, mut shorts) = (Vec::new(), Vec::new());
    for part in parts {
        if part.node == NodeId::ANY {
            shorts.push(Short {
                line: part.line,
                sku: caller.name(NameKind::Sku, part.sku.0),
                quantity: lines.get(usize::from(part.line)).map_or(0, |line| line.quantity),
                available: part.quantity,
            });
        } else {
            claims.push(promised(caller, part.sku, part.node, part.quantity, part.at));
        }
    }
    (claims, shorts)
}

fn explained(caller: &Caller, reply: &FrameReply, lines: &[Line]) -> Explanation {
    let (parts, short) = split(caller, &reply.parts, lines);
    let trace = |(_, trace): &(u32, Trace)| TraceOf {
        line: trace.line,
        node: caller.name(NameKind::Node, u32::from(trace.node.0)),
        why: trace.why.name(),
        taken: trace.taken,
        free: trace.free,
        withheld: trace.withheld,
        own: trace.own,
        order: trace.order,
        rank: trace.rank,
        days_late: trace.late,
    };
    Explanation {
        // What is refused before the ledger is asked is refused in any state.
        as_of_lsn: if reply.as_of == Lsn::NONE { caller.engine.view().durable().0 } else { reply.as_of.0 },
        code: reply.replies[0].outcome.code.name(),
        lines: parts,
        short,
        traces: reply.traces.iter().map(trace).collect(),
    }
}

/// A reservation as it stands, its lines as far as they are known.
fn standing(
    caller: &Caller,
    id: ReservationId,
    lsn: Lsn,
    outcome: &Outcome,
    seen: Option<&Seen>,
) -> Standing {
    let is_active = outcome.state.is_active();
    let claim = |(claim, at): &(Claim, Millis)| ClaimOf {
        claim: promised(caller, claim.sku, claim.node, claim.quantity, *at),
        pool: match claim.pool {
            ChannelId::SHARED => "shared",
            pool if pool.is_supply() => "supply",
            pool if pool == outcome.channel => "own",
            _ => "parent",
        },
        // What has ended claims nothing any more.
        held: if is_active { claim.held } else { 0 },
        confirmed: if is_active { claim.confirmed() } else { 0 },
        picked: if is_active { claim.picked } else { 0 },
        shipped: claim.shipped,
        released: (outcome.state == State::Released).then_some(claim.quantity - claim.shipped),
        expired: (outcome.state == State::Expired).then_some(claim.quantity - claim.shipped),
    };
    Standing {
        id: text(id),
        state: outcome.state.name(),
        lsn: lsn.0,
        as_of_lsn: None,
        expires_at: (outcome.expires_at.0 > 0).then(|| Moment::of(outcome.expires_at)).flatten(),
        called: seen.map(|seen| CalledSo::of(&seen.labels)).unwrap_or_default(),
        lines: seen.map(|seen| seen.claims.iter().map(claim).collect()),
        reacquired: outcome.reacquired,
    }
}

pub(super) async fn read(
    caller: Caller,
    At(OfReservation { id }): At<OfReservation>,
) -> Result<Told<Standing>, Problem> {
    let id = caller.reservation(&id, None).await?;
    match look(&caller, id).await? {
        (as_of, Some(seen)) => Ok(Told(standing(&caller, id, as_of, &seen.outcome, Some(&seen)))),
        _ => Err(Problem::refused(Code::UnknownReservation)),
    }
}

/// A reservation, if it is one that the caller sees, and as of when.
async fn look(caller: &Caller, id: ReservationId) -> Result<(Lsn, Option<Seen>), Problem> {
    let asked = Read::Reservation { id, scope: caller.scope() };
    let mut reply = caller.read(FrameType::ReadReservations, asked).await?;
    Ok((reply.as_of, reply.reservations.pop().filter(|seen| seen.outcome.code == Code::Ok)))
}

/// By which text reservations are looked up: one of them.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Texts {
    key: Option<String>,
    order: Option<String>,
    customer: Option<String>,
    reference: Option<String>,
}

/// Reservations that have a text, by their ids: 100 at most, and fewer where they have very many lines.
#[derive(Serialize, JsonSchema)]
pub(super) struct Standings {
    as_of_lsn: u64,
    items: Vec<Standing>,
    /// There may be more of them.
    more: bool,
}

pub(super) async fn find(
    caller: Caller,
    Asked(Texts { key, order, customer, reference }): Asked<Texts>,
) -> Result<Told<Standings>, Problem> {
    let given = [
        (LabelKind::Key, key),
        (LabelKind::Order, order),
        (LabelKind::Customer, customer),
        (LabelKind::Reference, reference),
    ];
    if caller.principal.role == Role::Warehouse {
        return Err(Problem::of(Code::Forbidden, "a warehouse may not do this"));
    }
    let mut given = given.into_iter().filter_map(|(kind, text)| Some((kind, text?)));
    let (Some((kind, text)), None) = (given.next(), given.next()) else {
        return Err(Problem::invalid("say one of key, order, customer and reference"));
    };
    let whose = access::whose(&caller.principal);
    let find = Read::Find { kind: Some(kind), text: text.into(), whose };
    let reply = caller.read(FrameType::Find, find).await?;
    let ids = reply.found.into_iter().next().unwrap_or_default();
    let mut more = ids.len() == limit::FOUND_MAX;
    let mut as_of_lsn = reply.as_of;
    let mut items = Vec::with_capacity(ids.len());
    let mut lines = 0;
    // One by one: each may have very many lines.
    for id in ids {
        if lines >= limit::FOUND_LINES_MAX {
            more = true;
            break;
        }
        let (as_of, seen) = look(&caller, id).await?;
        as_of_lsn = as_of;
        if let Some(seen) = seen {
            lines += seen.claims.len();
            items.push(standing(&caller, id, as_of, &seen.outcome, Some(&seen)));
        }
    }
    Ok(Told(Standings { as_of_lsn: as_of_lsn.0, items, more }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PartOf {
    sku: String,
    quantity: u32,
    /// Where its units are claimed; for units whose node is not chosen yet their group, or neither.
    node: Option<String>,
    group: Option<String>,
    to_node: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    ttl_ms: Option<u32>,
    /// Fulfil: also what nobody picked, although other units were picked or shipped.
    #[serde(default)]
    all: bool,
    #[serde(default)]
    lines: Vec<PartOf>,
}

pub(super) async fn step(
    caller: Caller,
    At(StepOf { id: reservation, verb }): At<StepOf>,
    Sent(step): Sent<Step>,
) -> Result<Told<Standing>, Problem> {
    // By its key alone: an order may have another reservation by the time a call is made again.
    let reservation = caller.reservation(&reservation, Some(LabelKind::Key)).await?;
    let verb = match verb {
        VerbText::Confirm => Verb::Confirm,
        VerbText::Release => Verb::Release,
        VerbText::Extend => Verb::Extend,
        VerbText::Fulfil => Verb::Fulfil,
        VerbText::Move => Verb::Move,
    };
    if step.all && (verb != Verb::Fulfil || !step.lines.is_empty()) {
        return Err(Problem::invalid("all is for fulfil without lines"));
    }
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
        ttl_ms: step.ttl_ms.unwrap_or(u32::from(step.all)),
        scope: caller.scope(),
        lines: lines.into(),
    };
    let key = caller.key()?;
    let mut sent = caller.command(key, Body::Transition(transition), &[]);
    if let Some(moment) = caller.not_before() {
        sent.issued_at = Command::not_before(moment);
    }
    let reply = caller.submit(FrameType::Transitions, vec![sent], vec![]).await?;
    let told = reply.replies[0];
    if told.outcome.code != Code::Ok {
        return Err(refused(told.outcome, told.lsn));
    }
    // The step is done whatever comes of the look; state and end are what the step was told, lines are as of the look.
    let found = look(&caller, reservation).await.ok().and_then(|(as_of, seen)| Some((as_of, seen?)));
    let seen = found.as_ref().map(|(_, seen)| seen);
    let mut body = standing(&caller, reservation, told.lsn, &told.outcome, seen);
    body.as_of_lsn = found.as_ref().map(|(as_of, _)| as_of.0);
    Ok(Told(body))
}
