//! `stockline define`: nodes, groups, channels, zones, data of skus and rules by sku.

use stockline_client::ClientError;
use stockline_core::catalogue::{
    Amount, Day, Definition, Effect, Lane, LateConfirm, Point, Policy, Strategy, UNKNOWN, When,
};
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
        /// Lower is tried first
        #[arg(long, default_value_t = 100)]
        priority: u16,
        #[arg(long = "type", default_value = "warehouse")]
        kind: String,
        #[arg(long, default_value = "UTC")]
        timezone: String,
        /// Where it is, in degrees: LATITUDE,LONGITUDE
        #[arg(long, value_parser = point, allow_hyphen_values = true)]
        at: Option<Point>,
        /// Nodes that serve a line which names this one and finds it has not all of it, the first that has
        #[arg(long, value_delimiter = ',', value_name = "NODES")]
        substitutes: Vec<String>,
        /// When orders begin to wait for the next day, by its own clock: HH:MM, in quarters of an hour [default: midnight]
        #[arg(long, value_parser = cut_off)]
        cut_off: Option<u8>,
        /// By how much its clock is ahead of UTC: HH:MM or -HH:MM
        #[arg(long, value_parser = utc_offset, allow_hyphen_values = true, default_value = "00:00")]
        utc_offset: i8,
        /// Units that it ships a day: behind that it is tried after those that ship sooner [default: no limit]
        #[arg(long, default_value_t = 0)]
        capacity: u32,
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
        /// Units of a sku that it is shown, and may claim in one reservation [default: no limit]
        #[arg(long, default_value_t = 0)]
        cap: u32,
        /// Which node serves a line of those that have it whole, and in which order they are tried else
        #[arg(long, value_enum, default_value_t = Order::Priority)]
        strategy: Order,
        /// Nodes that one line is split over at most [default: 64]
        #[arg(long, default_value_t = 0)]
        splits_max: u8,
        /// Of customers that wait for supplies, whose are served first: those of the lower number
        #[arg(long, default_value_t = 0)]
        priority: u16,
        /// Lines may be served with substitutes of their skus
        #[arg(long)]
        substitutes: bool,
        #[command(flatten)]
        profile: ProfileOption,
    },
    /// What is known of a sku that is there
    Sku {
        name: String,
        /// A name that rules can be made for
        #[arg(long, default_value = "")]
        category: String,
        /// Skus that serve a line in place of it where it is not there whole, the first that is: for channels that want that
        #[arg(long, value_delimiter = ',', value_name = "SKUS")]
        substitutes: Vec<String>,
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
        /// A sku's name, or the beginning of names and a *
        #[arg(long, default_value = "*")]
        skus: String,
        /// Only skus of that category
        #[arg(long, default_value = "")]
        category: String,
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

pub fn run(options: &Options) -> i32 {
    let (definition, profile) = match &options.what {
        What::Node {
            name,
            priority,
            kind,
            timezone,
            at,
            substitutes,
            cut_off,
            utc_offset,
            capacity,
            profile,
        } => (
            Definition::Node {
                name: name.clone(),
                priority: *priority,
                kind: kind.clone(),
                timezone: timezone.clone(),
                at: *at,
                substitutes: substitutes.clone(),
                day: Day { cut_off: cut_off.unwrap_or(0), ahead: *utc_offset, capacity: *capacity },
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
            cap,
            strategy,
            splits_max,
            priority,
            substitutes,
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
                cap: *cap,
                strategy: match strategy {
                    Order::Priority => Strategy::Priority,
                    Order::Nearest => Strategy::Nearest,
                    Order::FewestSplits => Strategy::FewestSplits,
                    Order::HighestStock => Strategy::HighestStock,
                    Order::LowestCost => Strategy::LowestCost,
                },
                splits_max: *splits_max,
                priority: *priority,
                substitutes: *substitutes,
            };
            let (name, parent, group) = (name.clone(), parent.clone(), group.clone());
            (Definition::Channel { name, parent, group, buffer: *buffer, policy }, profile)
        }
        What::Zone { name, at, lanes, profile } => {
            (Definition::Zone { name: name.clone(), at: *at, lanes: lanes.clone() }, profile)
        }
        What::Sku { name, category, substitutes, profile } => {
            let (name, category, substitutes) = (name.clone(), category.clone(), substitutes.clone());
            (Definition::SkuData { name, category, substitutes }, profile)
        }
        What::Rule { name, skus, category, node, group, channel, effect, profile } => (
            Definition::Rule {
                name: name.clone(),
                skus: skus.clone(),
                category: category.clone(),
                node: node.clone(),
                group: group.clone(),
                channel: channel.clone(),
                effect: effect.effect(),
            },
            profile,
        ),
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
