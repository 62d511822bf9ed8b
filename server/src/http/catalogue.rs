//! Configuration: nodes, groups, channels, zones, rules and what is known of skus, each read and put as a whole.
//!
//! One mechanism for all: an [`Entry`] says what it is called and how it becomes a definition and comes back from one.
//! Each has an ETag; with `If-Match` it is put only if it is still what its reader saw, which the sequencer checks.

use std::sync::Arc;

use aide::generate::GenContext;
use aide::openapi::{Operation, Response as Described};
use aide::operation::ParamLocation;
use aide::{OperationInput, OperationOutput};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use stockline_core::catalogue::{
    Amount, Catalogue, Day, Definition, Effect, EntryKind, Lane, LateConfirm, NameKind, Point, Policy, Role,
    Strategy, UNKNOWN, Unannounced, When,
};
use stockline_core::command::{Body, Command, Read};
use stockline_core::id::Key;
use stockline_core::outcome::Code;
use stockline_core::wire::FrameType;

use super::answer::{Told, described, json};
use super::body::Sent;
use super::call::{At, Caller};
use super::openapi::parameters;
use super::problem::{Problem, ProblemBody};
use crate::command::define::{cut_off, quarters_text, utc_offset};
use crate::engine::Engine;
use crate::event_row::wrong;
use crate::zone;

/// A kind of entry.
pub(super) trait Entry: Serialize + DeserializeOwned + JsonSchema + Send + 'static {
    const KIND: EntryKind;

    /// What puts it.
    fn define(self, name: String) -> Result<Definition, Problem>;

    /// As it stands; `None` for what counts as not there.
    fn of(definition: &Definition) -> Option<Self>;
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Named {
    pub(super) name: String,
}

/// An entry as it stands, with its name.
#[derive(Serialize, JsonSchema)]
pub(super) struct Known<T> {
    name: String,
    #[serde(flatten)]
    entry: T,
}

/// Every entry of a kind, by name.
#[derive(Serialize, JsonSchema)]
pub(super) struct Entries<T> {
    as_of_lsn: u64,
    items: Vec<Known<T>>,
}

/// What putting an entry led to.
#[derive(Serialize, JsonSchema)]
pub(super) struct Done {
    pub(super) name: String,
    /// 0 where nothing changed.
    pub(super) lsn: u64,
    /// False where it was there, exactly so.
    changed: bool,
}

/// An answer with the version of an entry: 200, or 201 where it is new.
pub(super) struct Versioned<T> {
    status: StatusCode,
    /// 0: it is not there any more.
    version: u64,
    body: T,
}

fn etag(version: u64) -> String {
    format!("\"{version:016x}\"")
}

impl<T: Serialize> IntoResponse for Versioned<T> {
    fn into_response(self) -> Response {
        let mut response = json(self.status, &self.body);
        if self.version > 0 {
            let tag = HeaderValue::from_str(&etag(self.version)).expect("hex digits");
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }
}

impl<T: JsonSchema> OperationOutput for Versioned<T> {
    type Inner = T;

    fn inferred_responses(ctx: &mut GenContext, operation: &mut Operation) -> Vec<(Option<u16>, Described)> {
        let told = (Some(200), described::<T>(ctx, "As it stands", "application/json"));
        // What has a body puts an entry, which may be new.
        let new = operation.request_body.is_some();
        let made = new.then(|| (Some(201), described::<T>(ctx, "It is new", "application/json")));
        [Some(told), made].into_iter().flatten().collect()
    }
}

impl<T> Versioned<T> {
    pub(super) fn map<U>(self, body: impl FnOnce(T) -> U) -> Versioned<U> {
        Versioned { status: self.status, version: self.version, body: body(self.body) }
    }

    pub(super) fn into_body(self) -> T {
        self.body
    }
}

/// What the entry must be for it to be put: none for whatever it is, 0 for not there.
#[derive(Default)]
pub(super) struct Condition(pub(super) Option<u64>);

#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it stands for headers in the document")]
struct ConditionHeaders {
    /// The ETag that the entry was read with: it is put only if it is still the same.
    #[serde(rename = "If-Match")]
    if_match: Option<String>,
    /// `*`: it is put only if there is none.
    #[serde(rename = "If-None-Match")]
    if_none_match: Option<String>,
}

impl OperationInput for Condition {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        parameters::<ConditionHeaders>(ctx, operation, ParamLocation::Header);
    }

    fn inferred_early_responses(ctx: &mut GenContext, _: &mut Operation) -> Vec<(Option<u16>, Described)> {
        let text = "The entry is not what the caller saw: read it again";
        vec![(Some(412), described::<ProblemBody>(ctx, text, "application/problem+json"))]
    }
}

impl FromRequestParts<Engine> for Condition {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Engine) -> Result<Condition, Problem> {
        condition(&parts.headers).map(Condition)
    }
}

fn condition(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default().trim());
    match (text(header::IF_MATCH), text(header::IF_NONE_MATCH)) {
        (None, None) => Ok(None),
        (None, Some("*")) => Ok(Some(0)),
        (Some(tag), None) => {
            let digits = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
            let version =
                digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).filter(|tag| *tag != 0);
            let wrong = || Problem::invalid("If-Match is one ETag, as the entry was read with it");
            version.map(Some).ok_or_else(wrong)
        }
        _ => Err(Problem::invalid("give If-Match with an ETag, or If-None-Match: *, not both")),
    }
}

/// Puts an entry, if it is what the caller saw.
pub(super) async fn put_entry(
    caller: &Caller,
    Condition(condition): Condition,
    definitions: Vec<Definition>,
) -> Result<Versioned<Done>, Problem> {
    let now = caller.engine.clock().wall();
    let resolve = |definition| zone::resolved(definition, now).map_err(Problem::invalid);
    let definitions: Vec<Definition> = definitions.into_iter().map(resolve).collect::<Result<_, _>>()?;
    let last = definitions.last().expect("something is put");
    let references: Vec<(NameKind, String)> =
        last.references().into_iter().map(|(kind, name)| (kind, name.to_owned())).collect();
    let (kind, name) = (last.kind().expect("an entry is put"), last.name().to_owned());
    if let Err(reason) = Catalogue::check_name(&name) {
        return Err(Problem::of(Code::InvalidName, wrong("name", &name, reason)));
    }
    let names = caller.engine.names();
    // A rule that was given up is not there.
    let known = match kind {
        EntryKind::SkuData => names.id(NameKind::Sku, &name).is_some(),
        _ => names.entry(kind, &name).is_some(),
    };
    // Of what is put here, not of what somebody else may have put behind it.
    let normal = names.normal(last);
    let version = if normal.is_given_up() { 0 } else { normal.version() };
    let define = |definition| caller.command(Key(0), Body::Define(Box::new(definition)), &[]);
    let guard = condition.map(|version| {
        let read = Read::Unchanged { kind, name: name.as_str().into(), version };
        caller.command(Key(0), Body::Read(read), &[])
    });
    let commands: Vec<Command> = guard.into_iter().chain(definitions.into_iter().map(define)).collect();
    let reply = caller.submit(FrameType::Define, commands, vec![]).await?;
    let lsn = reply.replies.iter().map(|told| told.lsn.0).max().unwrap_or(0);
    if let Some(refused) = reply.replies.iter().find(|told| told.outcome.code != Code::Ok) {
        let code = refused.outcome.code;
        let unknown =
            |(kind, name): &&(NameKind, String)| kind.unknown() == code && names.id(*kind, name).is_none();
        return Err(match references.iter().find(unknown) {
            Some((kind, name)) => Problem::refused(code).saying(format!("no {} {name:?}", kind.name())),
            None => Problem::refused(code),
        });
    }
    // LSN 0: it was there, exactly so.
    Ok(Versioned {
        status: if known { StatusCode::OK } else { StatusCode::CREATED },
        version,
        body: Done { name, lsn, changed: lsn > 0 },
    })
}

pub(super) async fn put<T: Entry>(
    caller: Caller,
    At(Named { name }): At<Named>,
    condition: Condition,
    Sent(entry): Sent<T>,
) -> Result<Versioned<Done>, Problem> {
    let sku = (T::KIND == EntryKind::SkuData).then(|| Definition::Sku { name: name.clone() });
    let definitions = sku.into_iter().chain([entry.define(name)?]).collect();
    put_entry(&caller, condition, definitions).await
}

/// What is configured is the administrator's business.
pub(super) fn administers(caller: &Caller) -> Result<(), Problem> {
    let allowed = caller.principal.role == Role::Admin;
    allowed
        .then_some(())
        .ok_or_else(|| Problem::of(Code::Forbidden, "only an administrator may look at this"))
}

fn unknown(kind: EntryKind, name: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "UNKNOWN_ENTRY", format!("no {} {name:?}", kind.name()))
}

/// The entry of a name.
pub(super) fn entry(caller: &Caller, kind: EntryKind, name: &str) -> Result<Arc<Definition>, Problem> {
    caller.engine.names().entry(kind, name).ok_or_else(|| unknown(kind, name))
}

/// The entry of a name, and on what it may be changed: what somebody changes meanwhile is not put back.
pub(super) fn seen(
    caller: &Caller,
    kind: EntryKind,
    name: &str,
    Condition(given): Condition,
) -> Result<(Definition, Condition), Problem> {
    administers(caller)?;
    let found = entry(caller, kind, name)?;
    Ok((Definition::clone(&found), Condition(given.or(Some(found.version())))))
}

pub(super) async fn get<T: Entry>(
    caller: Caller,
    At(Named { name }): At<Named>,
) -> Result<Versioned<Known<T>>, Problem> {
    administers(&caller)?;
    let found = entry(&caller, T::KIND, &name)?;
    let entry = T::of(&found).ok_or_else(|| unknown(T::KIND, &name))?;
    Ok(Versioned { status: StatusCode::OK, version: found.version(), body: Known { name, entry } })
}

pub(super) async fn list<T: Entry>(caller: Caller) -> Result<Told<Entries<T>>, Problem> {
    administers(&caller)?;
    let all = caller.engine.names().entries(T::KIND);
    let known = |definition: &Arc<Definition>| {
        Some(Known { name: definition.name().to_owned(), entry: T::of(definition)? })
    };
    let as_of_lsn = caller.engine.view().durable().0;
    Ok(Told(Entries { as_of_lsn, items: all.iter().filter_map(known).collect() }))
}

/// A place that holds stock.
#[derive(Deserialize, Serialize, JsonSchema, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct NodeBody {
    /// As the caller calls it: `warehouse`, `store`, `3pl`.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Lower goes first; 100 where nothing is said.
    priority: Option<u16>,
    timezone: Option<String>,
    /// Degrees, together with `longitude`.
    latitude: Option<f64>,
    longitude: Option<f64>,
    /// Nodes that serve a line which names this one where it has not all of it.
    substitutes: Vec<String>,
    /// From when an order waits for the next day, by the node's clock: `14:30`.
    cut_off: Option<String>,
    /// How far the node's clock is ahead of UTC: `-05:00`.
    utc_offset: Option<String>,
    /// Units that it ships a day; 0 for no limit.
    capacity: u32,
}

impl Entry for NodeBody {
    const KIND: EntryKind = EntryKind::Node;

    fn define(self, name: String) -> Result<Definition, Problem> {
        Ok(Definition::Node {
            name,
            priority: self.priority.unwrap_or(100),
            kind: self.kind.unwrap_or_else(|| "warehouse".into()),
            timezone: self.timezone.unwrap_or_else(|| "UTC".into()),
            at: point(self.latitude, self.longitude)?,
            substitutes: self.substitutes,
            day: Day {
                cut_off: self.cut_off.map_or(Ok(0), |text| cut_off(&text)).map_err(Problem::invalid)?,
                ahead: self.utc_offset.map_or(Ok(0), |text| utc_offset(&text)).map_err(Problem::invalid)?,
                capacity: self.capacity,
            },
        })
    }

    fn of(definition: &Definition) -> Option<NodeBody> {
        let Definition::Node { priority, kind, timezone, at, substitutes, day, .. } = definition.clone()
        else {
            return None;
        };
        Some(NodeBody {
            kind: Some(kind),
            priority: Some(priority),
            timezone: Some(timezone),
            latitude: at.map(|at| degrees(at.latitude)),
            longitude: at.map(|at| degrees(at.longitude)),
            substitutes,
            cut_off: (day.cut_off > 0).then(|| quarters_text(day.cut_off as i8)),
            utc_offset: (day.ahead != 0).then(|| quarters_text(day.ahead)),
            capacity: day.capacity,
        })
    }
}

/// Nodes that are offered together.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupBody {
    nodes: Vec<String>,
}

impl Entry for GroupBody {
    const KIND: EntryKind = EntryKind::Group;

    fn define(self, name: String) -> Result<Definition, Problem> {
        Ok(Definition::Group { name, nodes: self.nodes })
    }

    fn of(definition: &Definition) -> Option<GroupBody> {
        let Definition::Group { nodes, .. } = definition else { return None };
        Some(GroupBody { nodes: nodes.clone() })
    }
}

/// Where demand comes from. A limit of 0 is none.
#[derive(Deserialize, Serialize, JsonSchema, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ChannelBody {
    /// The channel it is part of.
    parent: Option<String>,
    /// The nodes it is offered; all without.
    group: Option<String>,
    /// Units of each sku withheld from it.
    buffer: u32,
    /// Units left at which a sku is called low.
    low: u32,
    late_confirm: LateText,
    /// Holds it may have open at once, and each of its customers.
    holds_max: u32,
    customer_holds_max: u32,
    /// Units of a sku that it is shown.
    cap: u32,
    strategy: StrategyText,
    /// Nodes one line is split over.
    splits_max: u8,
    /// Whose customers are served first of those who wait: the lower number's.
    priority: u16,
    /// Whom units serve that come to a node without a supply: its orders that wait there, or all.
    unannounced: UnannouncedText,
    /// A line may be served with a substitute of its sku.
    substitutes: bool,
}

#[derive(Deserialize, Serialize, JsonSchema, Default)]
#[serde(rename_all = "snake_case")]
enum UnannouncedText {
    #[default]
    Waiting,
    All,
}

#[derive(Deserialize, Serialize, JsonSchema, Default)]
#[serde(rename_all = "snake_case")]
enum LateText {
    #[default]
    Refuse,
    Reacquire,
}

#[derive(Deserialize, Serialize, JsonSchema, Default)]
#[serde(rename_all = "snake_case")]
enum StrategyText {
    #[default]
    Priority,
    Nearest,
    FewestSplits,
    HighestStock,
    LowestCost,
}

impl Entry for ChannelBody {
    const KIND: EntryKind = EntryKind::Channel;

    fn define(self, name: String) -> Result<Definition, Problem> {
        let policy = Policy {
            low: self.low,
            late_confirm: match self.late_confirm {
                LateText::Refuse => LateConfirm::Refuse,
                LateText::Reacquire => LateConfirm::Reacquire,
            },
            holds_max: self.holds_max,
            customer_holds_max: self.customer_holds_max,
            cap: self.cap,
            strategy: match self.strategy {
                StrategyText::Priority => Strategy::Priority,
                StrategyText::Nearest => Strategy::Nearest,
                StrategyText::FewestSplits => Strategy::FewestSplits,
                StrategyText::HighestStock => Strategy::HighestStock,
                StrategyText::LowestCost => Strategy::LowestCost,
            },
            priority: self.priority,
            unannounced: match self.unannounced {
                UnannouncedText::Waiting => Unannounced::Waiting,
                UnannouncedText::All => Unannounced::All,
            },
            splits_max: self.splits_max,
            substitutes: self.substitutes,
        };
        Ok(Definition::Channel { name, parent: self.parent, group: self.group, buffer: self.buffer, policy })
    }

    fn of(definition: &Definition) -> Option<ChannelBody> {
        let Definition::Channel { parent, group, buffer, policy, .. } = definition.clone() else {
            return None;
        };
        Some(ChannelBody {
            parent,
            group,
            buffer,
            low: policy.low,
            late_confirm: match policy.late_confirm {
                LateConfirm::Refuse => LateText::Refuse,
                LateConfirm::Reacquire => LateText::Reacquire,
            },
            holds_max: policy.holds_max,
            customer_holds_max: policy.customer_holds_max,
            cap: policy.cap,
            strategy: match policy.strategy {
                Strategy::Priority => StrategyText::Priority,
                Strategy::Nearest => StrategyText::Nearest,
                Strategy::FewestSplits => StrategyText::FewestSplits,
                Strategy::HighestStock => StrategyText::HighestStock,
                Strategy::LowestCost => StrategyText::LowestCost,
            },
            splits_max: policy.splits_max,
            priority: policy.priority,
            unannounced: match policy.unannounced {
                Unannounced::Waiting => UnannouncedText::Waiting,
                Unannounced::All => UnannouncedText::All,
            },
            substitutes: policy.substitutes,
        })
    }
}

/// What is known of a sku.
#[derive(Deserialize, Serialize, JsonSchema, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SkuBody {
    category: String,
    /// Skus that serve a line in place of this one, for channels that want that.
    substitutes: Vec<String>,
}

impl Entry for SkuBody {
    const KIND: EntryKind = EntryKind::SkuData;

    fn define(self, name: String) -> Result<Definition, Problem> {
        Ok(Definition::SkuData { name, category: self.category, substitutes: self.substitutes })
    }

    fn of(definition: &Definition) -> Option<SkuBody> {
        let Definition::SkuData { category, substitutes, .. } = definition.clone() else { return None };
        Some(SkuBody { category, substitutes })
    }
}

/// A place that orders go to.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ZoneBody {
    /// Degrees, together with `longitude`.
    latitude: Option<f64>,
    longitude: Option<f64>,
    #[serde(default)]
    lanes: Vec<LaneBody>,
}

/// The way from a node; what is left out is not known, or as coordinates say.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LaneBody {
    node: String,
    metres: Option<u32>,
    cost: Option<u32>,
}

impl Entry for ZoneBody {
    const KIND: EntryKind = EntryKind::Zone;

    fn define(self, name: String) -> Result<Definition, Problem> {
        let lane = |lane: LaneBody| Lane {
            node: lane.node,
            metres: lane.metres.unwrap_or(UNKNOWN),
            cost: lane.cost.unwrap_or(UNKNOWN),
        };
        let at = point(self.latitude, self.longitude)?;
        Ok(Definition::Zone { name, at, lanes: self.lanes.into_iter().map(lane).collect() })
    }

    fn of(definition: &Definition) -> Option<ZoneBody> {
        let Definition::Zone { at, lanes, .. } = definition.clone() else { return None };
        let known = |number: u32| (number != UNKNOWN).then_some(number);
        let lane = |lane: Lane<String>| LaneBody {
            node: lane.node,
            metres: known(lane.metres),
            cost: known(lane.cost),
        };
        Some(ZoneBody {
            latitude: at.map(|at| degrees(at.latitude)),
            longitude: at.map(|at| degrees(at.longitude)),
            lanes: lanes.into_iter().map(lane).collect(),
        })
    }
}

/// A rule over skus; it has one of `safety`, `backorder`, `preorder` and `allocate`, or none and is given up.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleBody {
    /// A sku's name, or the beginning of names and a `*`.
    skus: String,
    /// Empty for any.
    #[serde(default)]
    category: String,
    /// Where it holds: a node, a group, or everywhere.
    node: Option<String>,
    group: Option<String>,
    channel: Option<String>,
    /// Units withheld at each node.
    safety: Option<u32>,
    /// Units that may be waited for of what was sold out, or of what is not out yet.
    backorder: Option<u32>,
    preorder: Option<u32>,
    allocate: Option<AllocateBody>,
}

/// Units, or percent of what nobody claims: of each receipt, always, or every so many minutes.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AllocateBody {
    units: Option<u32>,
    percent: Option<u8>,
    #[serde(default)]
    when: WhenText,
    every_minutes: Option<u16>,
}

#[derive(Deserialize, Serialize, JsonSchema, Default, PartialEq)]
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

    fn of(amount: Amount, when: When) -> AllocateBody {
        let (units, percent) = match amount {
            Amount::Units(units) => (Some(units), None),
            Amount::Percent(percent) => (None, Some(percent)),
        };
        let (when, every_minutes) = match when {
            When::Receipt => (WhenText::Receipt, None),
            When::Always => (WhenText::Always, None),
            When::Every(minutes) => (WhenText::Every, Some(minutes)),
        };
        AllocateBody { units, percent, when, every_minutes }
    }
}

impl Entry for RuleBody {
    const KIND: EntryKind = EntryKind::Rule;

    fn define(self, name: String) -> Result<Definition, Problem> {
        let effects = [
            self.safety.map(Effect::Safety),
            self.backorder.map(Effect::Backorder),
            self.preorder.map(Effect::Preorder),
            self.allocate.as_ref().map(AllocateBody::effect).transpose()?,
        ];
        let mut effects = effects.into_iter().flatten();
        // One without an effect is given up.
        let effect = effects.next().unwrap_or(Effect::None);
        if effects.next().is_some() {
            return Err(Problem::invalid("a rule has one of safety, backorder, preorder and allocate"));
        }
        let RuleBody { skus, category, node, group, channel, .. } = self;
        Ok(Definition::Rule { name, skus, category, node, group, channel, effect })
    }

    fn of(definition: &Definition) -> Option<RuleBody> {
        let Definition::Rule { skus, category, node, group, channel, effect, .. } = definition.clone() else {
            return None;
        };
        let (safety, backorder, preorder, allocate) = match effect {
            Effect::None => return None,
            Effect::Safety(units) => (Some(units), None, None, None),
            Effect::Backorder(units) => (None, Some(units), None, None),
            Effect::Preorder(units) => (None, None, Some(units), None),
            Effect::Allocate { amount, when } => (None, None, None, Some(AllocateBody::of(amount, when))),
        };
        Some(RuleBody { skus, category, node, group, channel, safety, backorder, preorder, allocate })
    }
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

fn degrees(millionths: i32) -> f64 {
    f64::from(millionths) / 1e6
}
