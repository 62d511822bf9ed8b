//! `stockline define`: nodes, groups, channels, zones, data of skus and rules by sku. Only what is given changes.

use stockline_client::ClientError;
use stockline_core::catalogue::{
    Amount, Day, Definition, Effect, EntryKind, Lane, LateConfirm, NameKind, Point, Strategy, UNKNOWN,
    Unannounced, When,
};
use stockline_core::outcome::Code;

use crate::command::{ProfileOption, with_client};
use crate::{err, exit};

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

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Serves {
    /// Its orders that wait for supplies there
    Waiting,
    /// Whoever comes first
    All,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Order {
    Priority,
    /// Nearest to the zone that the order goes to
    Nearest,
    /// All lines from as few nodes as may be, then by priority; a line split over those that have most
    FewestSplits,
    HighestStock,
    /// Dearest last, for the zone that the order goes to
    LowestCost,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// A place that holds stock
    Node {
        name: String,
        /// Lower is tried first [default: 100]
        #[arg(long)]
        priority: Option<u16>,
        /// [default: warehouse]
        #[arg(long = "type")]
        kind: Option<String>,
        /// Its time zone by IANA, as Europe/Berlin: cut-off and days follow it through summer time [default: UTC]
        #[arg(long, value_parser = zone)]
        timezone: Option<String>,
        /// Where it is, in degrees: LATITUDE,LONGITUDE
        #[arg(long, value_parser = point, allow_hyphen_values = true)]
        at: Option<Point>,
        /// Nodes that serve a line which names this one and finds it has not all of it, the first that has
        #[arg(long, value_delimiter = ',', value_name = "NODES", num_args = 0..)]
        substitutes: Option<Vec<String>>,
        /// When orders begin to wait for the next day, by its own clock: HH:MM, in quarters of an hour [default: midnight]
        #[arg(long, value_parser = cut_off)]
        cut_off: Option<u8>,
        /// By how much its clock is ahead of UTC, where no time zone says so: HH:MM or -HH:MM [default: 00:00]
        #[arg(long, value_parser = utc_offset, allow_hyphen_values = true, conflicts_with = "timezone")]
        utc_offset: Option<i8>,
        /// Units that it ships a day: behind that it is tried after those that ship sooner [default: no limit]
        #[arg(long)]
        capacity: Option<u32>,
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
        /// The channel it is part of: it may use that one's allocations too; an empty name for none
        #[arg(long)]
        parent: Option<String>,
        /// The group it is offered; an empty name for every node [default: every node]
        #[arg(long)]
        group: Option<String>,
        /// Units of each sku withheld from it [default: 0]
        #[arg(long)]
        buffer: Option<u32>,
        /// Units left at which it is told that a sku is low [default: never]
        #[arg(long)]
        low: Option<u32>,
        /// What a confirmation hears that comes when the hold's time is over
        #[arg(long, value_enum)]
        late_confirm: Option<Late>,
        /// Holds it may have open at once [default: no limit]
        #[arg(long)]
        holds_max: Option<u32>,
        /// Holds each of its customers may have open at once [default: no limit]
        #[arg(long)]
        customer_holds_max: Option<u32>,
        /// Units of a sku that it is shown, and may claim in one reservation [default: no limit]
        #[arg(long)]
        cap: Option<u32>,
        /// Which node serves a line of those that have it whole, and in which order they are tried else
        #[arg(long, value_enum)]
        strategy: Option<Order>,
        /// Nodes that one line is split over at most [default: 64]
        #[arg(long)]
        splits_max: Option<u8>,
        /// Of customers that wait for supplies, whose are served first: those of the lower number
        #[arg(long)]
        priority: Option<u16>,
        /// Whom units serve that come to a node without a supply
        #[arg(long, value_enum)]
        unannounced: Option<Serves>,
        /// Lines may be served with substitutes of their skus
        #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
        substitutes: Option<bool>,
        #[command(flatten)]
        profile: ProfileOption,
    },
    /// What is known of a sku that is there
    Sku {
        name: String,
        /// A name that rules can be made for
        #[arg(long)]
        category: Option<String>,
        /// Skus that serve a line in place of it where it is not there whole, the first that is: for channels that want that
        #[arg(long, value_delimiter = ',', value_name = "SKUS", num_args = 0..)]
        substitutes: Option<Vec<String>>,
        #[command(flatten)]
        profile: ProfileOption,
    },
    /// A place that orders go to
    Zone {
        name: String,
        /// Where it is, in degrees: LATITUDE,LONGITUDE
        #[arg(long, value_parser = point, allow_hyphen_values = true)]
        at: Option<Point>,
        /// The way from a node: NODE,METRES,COST; either may be left empty
        #[arg(long = "lane", value_parser = lane)]
        lanes: Vec<Lane<String>>,
        #[command(flatten)]
        profile: ProfileOption,
    },
    /// Safety stock, allocations that keep themselves or backorders, for many skus at once
    Rule {
        name: String,
        /// A sku's name, or the beginning of names and a * [default: *]
        #[arg(long)]
        skus: Option<String>,
        /// Only skus of that category
        #[arg(long)]
        category: Option<String>,
        /// Only at that node
        #[arg(long, conflicts_with = "group")]
        node: Option<String>,
        /// Only at the nodes of that group
        #[arg(long)]
        group: Option<String>,
        /// Only for that channel
        #[arg(long)]
        channel: Option<String>,
        #[command(flatten)]
        effect: EffectOption,
        #[command(flatten)]
        profile: ProfileOption,
    },
}

#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct EffectOption {
    /// Units free at each node that are withheld
    #[arg(long, value_name = "UNITS")]
    safety: Option<u32>,
    /// Units (10) or part (25%) of what receipts bring that the channel has allocated
    #[arg(long, value_name = "AMOUNT", value_parser = amount, requires = "channel")]
    allocate_from_receipts: Option<Amount>,
    /// Units (10) or part (25%) of what nobody claims that the channel has allocated, again and again
    #[arg(long, value_name = "AMOUNT", value_parser = amount, requires = "channel")]
    allocate_always: Option<Amount>,
    /// The same every so many minutes: AMOUNT,MINUTES, as 25%,360; at minutes counted from 1970-01-01T00:00Z
    #[arg(long, value_name = "AMOUNT,MINUTES", value_parser = timed, requires = "channel")]
    allocate_every: Option<(Amount, u16)>,
    /// Units of a sku that a channel may wait for, to come with supplies; 0 for none
    #[arg(long, value_name = "UNITS")]
    backorder: Option<u32>,
    /// The same for what is not out yet
    #[arg(long, value_name = "UNITS")]
    preorder: Option<u32>,
    /// The rule is given up
    #[arg(long)]
    off: bool,
}

fn timed(text: &str) -> Result<(Amount, u16), String> {
    let found = text.split_once(',').and_then(|(units, minutes)| {
        Some((amount(units).ok()?, minutes.parse().ok().filter(|minutes| *minutes > 0)?))
    });
    found.ok_or_else(|| format!("{text:?} is no AMOUNT,MINUTES, as 25%,360"))
}

fn point(text: &str) -> Result<Point, String> {
    let degrees = |text: &str, most: f64| {
        let degrees: f64 = text.trim().parse().ok()?;
        (degrees.abs() <= most).then_some((degrees * 1e6).round() as i32)
    };
    let found = text.split_once(',').and_then(|(latitude, longitude)| {
        Some(Point { latitude: degrees(latitude, 90.0)?, longitude: degrees(longitude, 180.0)? })
    });
    found.ok_or_else(|| format!("{text:?} is no LATITUDE,LONGITUDE in degrees, as 51.5,-0.12"))
}

/// A time of day, or a stretch of time, in quarters of an hour.
fn quarters(text: &str) -> Option<i8> {
    let (hours, minutes) = text.split_once(':')?;
    let (hours, minutes): (u8, u8) = (hours.parse().ok()?, minutes.parse().ok()?);
    let whole = hours < 24 && minutes < 60 && minutes.is_multiple_of(15);
    whole.then_some((hours * 4 + minutes / 15) as i8)
}

/// Quarters of an hour as HH:MM.
pub fn quarters_text(quarters: i8) -> String {
    let (sign, size) = (if quarters < 0 { "-" } else { "" }, i32::from(quarters).abs());
    format!("{sign}{:02}:{:02}", size / 4, size % 4 * 15)
}

pub fn cut_off(text: &str) -> Result<u8, String> {
    let found = quarters(text).filter(|quarters| *quarters > 0);
    let reason = || format!("{text:?} is no time after midnight as HH:MM in quarters of an hour, as 14:30");
    found.map(|quarters| quarters as u8).ok_or_else(reason)
}

pub fn utc_offset(text: &str) -> Result<i8, String> {
    let (sign, size) = match text.strip_prefix('-') {
        Some(size) => (-1, size),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let found = quarters(size).map(|quarters| sign * quarters).filter(|quarters| quarters.abs() <= 56);
    found.ok_or_else(|| format!("{text:?} is no offset of up to 14 hours as HH:MM or -HH:MM, as -05:00"))
}

fn lane(text: &str) -> Result<Lane<String>, String> {
    let number = |text: &str| if text.is_empty() { Ok(UNKNOWN) } else { text.parse() };
    match text.split(',').collect::<Vec<_>>()[..] {
        [node, metres, cost] => match (number(metres), number(cost)) {
            (Ok(metres), Ok(cost)) => Ok(Lane { node: node.into(), metres, cost }),
            _ => Err(format!("{text:?}: metres and cost are whole numbers")),
        },
        _ => Err(format!("{text:?} is no NODE,METRES,COST")),
    }
}

fn amount(text: &str) -> Result<Amount, String> {
    let wrong =
        || format!("{text:?} is neither a number of units, as 10, nor a percentage up to 100, as 25%");
    match text.strip_suffix('%') {
        Some(percent) => match percent.parse() {
            Ok(percent @ 0..=100) => Ok(Amount::Percent(percent)),
            _ => Err(wrong()),
        },
        None => text.parse().map(Amount::Units).map_err(|_| wrong()),
    }
}

impl EffectOption {
    fn effect(&self) -> Effect {
        let allocate = |when: When| move |amount: Amount| Effect::Allocate { amount, when };
        let from_receipts = self.allocate_from_receipts.map(allocate(When::Receipt));
        let always = self.allocate_always.map(allocate(When::Always));
        let later = self.backorder.map(Effect::Backorder).or(self.preorder.map(Effect::Preorder));
        let every = self.allocate_every.map(|(amount, minutes)| allocate(When::Every(minutes))(amount));
        self.safety
            .map(Effect::Safety)
            .or(from_receipts)
            .or(always)
            .or(every)
            .or(later)
            .unwrap_or(Effect::None)
    }
}

fn zone(text: &str) -> Result<String, String> {
    crate::zone::check(text).map(|()| text.to_owned())
}

impl What {
    fn profile(&self) -> &ProfileOption {
        match self {
            What::Node { profile, .. }
            | What::Group { profile, .. }
            | What::Channel { profile, .. }
            | What::Sku { profile, .. }
            | What::Zone { profile, .. }
            | What::Rule { profile, .. } => profile,
        }
    }

    fn entry(&self) -> (EntryKind, &str) {
        match self {
            What::Node { name, .. } => (EntryKind::Node, name),
            What::Group { name, .. } => (EntryKind::Group, name),
            What::Channel { name, .. } => (EntryKind::Channel, name),
            What::Sku { name, .. } => (EntryKind::SkuData, name),
            What::Zone { name, .. } => (EntryKind::Zone, name),
            What::Rule { name, .. } => (EntryKind::Rule, name),
        }
    }

    /// What it was, with what is given.
    fn applied_to(&self, before: Option<Definition>) -> Definition {
        let mut definition = before.unwrap_or_else(|| self.blank());
        match (self, &mut definition) {
            (
                What::Node {
                    priority, kind, timezone, at, substitutes, cut_off, utc_offset, capacity, ..
                },
                Definition::Node {
                    priority: to_priority,
                    kind: to_kind,
                    timezone: to_timezone,
                    at: to_at,
                    substitutes: to_substitutes,
                    day,
                    ..
                },
            ) => {
                set(to_priority, priority);
                set(to_kind, kind);
                set(to_timezone, timezone);
                *to_at = at.or(*to_at);
                set(to_substitutes, substitutes);
                set(&mut day.cut_off, cut_off);
                if utc_offset.is_some() {
                    *to_timezone = "UTC".into();
                }
                set(&mut day.ahead, utc_offset);
                set(&mut day.capacity, capacity);
            }
            (What::Group { nodes, .. }, Definition::Group { nodes: to_nodes, .. }) => {
                to_nodes.clone_from(nodes)
            }
            (
                What::Channel {
                    parent,
                    group,
                    buffer,
                    low,
                    late_confirm,
                    holds_max,
                    customer_holds_max,
                    cap,
                    strategy,
                    splits_max,
                    priority,
                    unannounced,
                    substitutes,
                    ..
                },
                Definition::Channel { parent: to_parent, group: to_group, buffer: to_buffer, policy, .. },
            ) => {
                set_name(to_parent, parent);
                set_name(to_group, group);
                set(to_buffer, buffer);
                set(&mut policy.low, low);
                set(&mut policy.late_confirm, &late_confirm.map(Late::policy));
                set(&mut policy.holds_max, holds_max);
                set(&mut policy.customer_holds_max, customer_holds_max);
                set(&mut policy.cap, cap);
                set(&mut policy.strategy, &strategy.map(Order::strategy));
                set(&mut policy.splits_max, splits_max);
                set(&mut policy.priority, priority);
                set(&mut policy.unannounced, &unannounced.map(Serves::policy));
                set(&mut policy.substitutes, substitutes);
            }
            (
                What::Sku { category, substitutes, .. },
                Definition::SkuData { category: to_category, substitutes: to_substitutes, .. },
            ) => {
                set(to_category, category);
                set(to_substitutes, substitutes);
            }
            (What::Zone { at, lanes, .. }, Definition::Zone { at: to_at, lanes: to_lanes, .. }) => {
                *to_at = at.or(*to_at);
                if !lanes.is_empty() {
                    to_lanes.clone_from(lanes);
                }
            }
            (
                What::Rule { skus, category, node, group, channel, effect, .. },
                Definition::Rule {
                    skus: to_skus,
                    category: to_category,
                    node: to_node,
                    group: to_group,
                    channel: to_channel,
                    effect: to_effect,
                    ..
                },
            ) => {
                set(to_skus, skus);
                set(to_category, category);
                set_name(to_node, node);
                set_name(to_group, group);
                // A rule is about a node or about a group.
                if node.is_some() {
                    *to_group = None;
                } else if group.is_some() {
                    *to_node = None;
                }
                set_name(to_channel, channel);
                *to_effect = effect.effect();
            }
            _ => unreachable!("an entry has its kind"),
        }
        definition
    }

    /// An entry with nothing but its name.
    fn blank(&self) -> Definition {
        let (kind, name) = self.entry();
        match kind {
            EntryKind::Group => Definition::Group { name: name.into(), nodes: Vec::new() },
            EntryKind::Channel => Definition::channel(name),
            EntryKind::SkuData => {
                Definition::SkuData { name: name.into(), category: String::new(), substitutes: Vec::new() }
            }
            EntryKind::Zone => Definition::Zone { name: name.into(), at: None, lanes: Vec::new() },
            EntryKind::Rule => Definition::Rule {
                name: name.into(),
                skus: "*".into(),
                category: String::new(),
                node: None,
                group: None,
                channel: None,
                effect: Effect::None,
            },
            _ => Definition::Node {
                name: name.into(),
                priority: 100,
                kind: "warehouse".into(),
                timezone: "UTC".into(),
                at: None,
                substitutes: Vec::new(),
                day: Day::default(),
            },
        }
    }
}

impl Serves {
    fn policy(self) -> Unannounced {
        match self {
            Serves::Waiting => Unannounced::Waiting,
            Serves::All => Unannounced::All,
        }
    }
}

impl Late {
    fn policy(self) -> LateConfirm {
        match self {
            Late::Refuse => LateConfirm::Refuse,
            Late::Reacquire => LateConfirm::Reacquire,
        }
    }
}

impl Order {
    fn strategy(self) -> Strategy {
        match self {
            Order::Priority => Strategy::Priority,
            Order::Nearest => Strategy::Nearest,
            Order::FewestSplits => Strategy::FewestSplits,
            Order::HighestStock => Strategy::HighestStock,
            Order::LowestCost => Strategy::LowestCost,
        }
    }
}

fn set<T: Clone>(to: &mut T, given: &Option<T>) {
    if let Some(given) = given {
        to.clone_from(given);
    }
}

/// An empty name is none.
fn set_name(to: &mut Option<String>, given: &Option<String>) {
    if let Some(given) = given {
        *to = Some(given.clone()).filter(|name| !name.is_empty());
    }
}

pub fn run(options: &Options) -> i32 {
    with_client(options.what.profile(), async |client, _| {
        let before = client.definitions(&[options.what.entry()]).await?.pop();
        let after = options.what.applied_to(before.clone());
        let exit = define(&client, &after).await?;
        if exit == exit::OK {
            // The server may have its own word on it, as on the offset of a time zone.
            let after = client.definitions(&[options.what.entry()]).await?.pop().unwrap_or(after);
            for (field, was, is) in differences(before.as_ref(), &after) {
                err!("  {field}: {was} -> {is}");
            }
        }
        Ok(exit)
    })
}

/// The fields of an entry as text.
fn fields(definition: &Definition) -> Vec<(&'static str, String)> {
    let list = |names: &[String]| names.join(",");
    let name = |name: &Option<String>| name.clone().unwrap_or_default();
    let point = |at: &Option<Point>| at.map_or_else(String::new, |at| format!("{at:?}"));
    match definition {
        Definition::Node { priority, kind, timezone, at, substitutes, day, .. } => vec![
            ("priority", priority.to_string()),
            ("type", kind.clone()),
            ("timezone", timezone.clone()),
            ("at", point(at)),
            ("substitutes", list(substitutes)),
            ("cut-off", quarters_text(day.cut_off as i8)),
            ("utc-offset", quarters_text(day.ahead)),
            ("capacity", day.capacity.to_string()),
        ],
        Definition::Group { nodes, .. } => vec![("nodes", list(nodes))],
        Definition::Channel { parent, group, buffer, policy, .. } => vec![
            ("parent", name(parent)),
            ("group", name(group)),
            ("buffer", buffer.to_string()),
            ("low", policy.low.to_string()),
            ("late-confirm", format!("{:?}", policy.late_confirm)),
            ("holds-max", policy.holds_max.to_string()),
            ("customer-holds-max", policy.customer_holds_max.to_string()),
            ("cap", policy.cap.to_string()),
            ("strategy", format!("{:?}", policy.strategy)),
            ("splits-max", policy.splits_max.to_string()),
            ("priority", policy.priority.to_string()),
            ("unannounced", format!("{:?}", policy.unannounced)),
            ("substitutes", policy.substitutes.to_string()),
        ],
        Definition::SkuData { category, substitutes, .. } => {
            vec![("category", category.clone()), ("substitutes", list(substitutes))]
        }
        Definition::Zone { at, lanes, .. } => vec![("at", point(at)), ("lanes", format!("{lanes:?}"))],
        Definition::Rule { skus, category, node, group, channel, effect, .. } => vec![
            ("skus", skus.clone()),
            ("category", category.clone()),
            ("node", name(node)),
            ("group", name(group)),
            ("channel", name(channel)),
            ("effect", format!("{effect:?}")),
        ],
        Definition::Sku { .. } | Definition::Principal { .. } | Definition::Webhook { .. } => Vec::new(),
    }
}

/// What is another than before: field, before, after. Of a new entry nothing.
fn differences(before: Option<&Definition>, after: &Definition) -> Vec<(&'static str, String, String)> {
    let Some(before) = before else { return Vec::new() };
    let both = fields(before).into_iter().zip(fields(after));
    let shown = |text: String| if text.is_empty() { "none".to_owned() } else { text };
    both.filter(|(was, is)| was.1 != is.1).map(|(was, is)| (was.0, shown(was.1), shown(is.1))).collect()
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
            err!("{} {changed} id={} lsn={}", definition.name(), outcome.id, outcome.lsn);
            Ok(exit::OK)
        }
        Some(outcome) => {
            let unknown = unknown_names(client, definition).await?;
            match unknown.is_empty() {
                true => err!(
                    "stockline: {}: {:?}: {}",
                    outcome.code.name(),
                    definition.name(),
                    advice(outcome.code)
                ),
                false => {
                    for (kind, name) in unknown {
                        err!("stockline: {}: no {} {name:?}", kind.unknown().name(), kind.name());
                    }
                }
            }
            Ok(exit::FAILED)
        }
        None => Err(ClientError::Protocol("no result for a definition".into())),
    }
}

/// The names that a definition refers to and that nobody knows.
async fn unknown_names<'a>(
    client: &stockline_client::Client,
    definition: &'a Definition,
) -> Result<Vec<(NameKind, &'a str)>, ClientError> {
    let mut unknown = Vec::new();
    for (kind, name) in definition.references() {
        if client.resolve(kind, &[name], false).await?.first().is_none_or(Result::is_err) {
            unknown.push((kind, name));
        }
    }
    Ok(unknown)
}

fn advice(code: Code) -> &'static str {
    match code {
        Code::InvalidName => {
            "a name has 1 to 128 bytes, no control or invisible characters, no space at its ends"
        }
        Code::InvalidRule => {
            "it contradicts itself, or is out of bounds (a * stands at the end of a pattern only)"
        }
        Code::InvalidParent => "the parent is part of this channel, or levels would be more than 8",
        Code::CatalogueFull => "there are as many of these as there can be",
        Code::UnknownToken => "no token has that name",
        Code::Forbidden => {
            "the token admin is the server's: replace admin.token in the data directory and restart"
        }
        Code::TokenInUse => "another name has that token",
        _ => "it was refused",
    }
}
