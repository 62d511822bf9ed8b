//! The catalogue: names and their dense ids, nodes, groups, channels, principals.
//!
//! A pure state machine with one writer, the [sequencer](crate::sequencer). What shards and readers need of
//! it is the immutable [`Rules`], made anew at each change and shared by `Arc`; a batch of commands sees one.
//! Ids are given in order and never reused, so re-applying the same definitions gives the same ids.

mod check;
mod day;
mod definition;
mod node_set;
mod rule;
mod rules;
mod webhook;
mod zone;

use std::sync::Arc;

use hashbrown::HashMap;

use crate::id::{ChannelId, GroupId, NodeId, PrincipalId, SkuId};
use crate::limit;
use crate::outcome::Code;

pub use check::{check, check_event, check_reserve, place};
pub use day::Day;
pub use definition::{Definition, EntryKind};
pub use node_set::NodeSet;
use rule::RuleBook;
pub use rule::{Amount, Effect, Profile, Rule, SkuRules, When, Where};
pub use rules::{ChannelRule, Rules};
pub use webhook::{Secret, Webhook};
pub use zone::{Lane, Point, Strategy, UNKNOWN, ZoneRule};

/// What a principal may do. Numbers are stable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Role {
    /// Everything.
    Admin = 1,
    /// Ask, and claim on its own channel.
    Channel = 2,
    /// Tell what happened at its own nodes.
    Warehouse = 3,
}

impl Role {
    pub fn from_number(number: u8) -> Option<Role> {
        [Role::Admin, Role::Channel, Role::Warehouse].get(number.wrapping_sub(1) as usize).copied()
    }
}

/// What a confirmation hears that comes when the hold's time is over. Numbers are stable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum LateConfirm {
    /// `EXPIRED`.
    #[default]
    Refuse = 0,
    /// The units are claimed again if they are there, and the answer says so.
    Reacquire = 1,
}

impl LateConfirm {
    pub fn from_number(number: u8) -> Option<LateConfirm> {
        [LateConfirm::Refuse, LateConfirm::Reacquire].get(number as usize).copied()
    }
}

/// Whom units serve that come to a node without a supply that announced them. Numbers are stable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Unannounced {
    /// The channel's orders that wait for supplies there.
    #[default]
    Waiting = 0,
    /// Whoever comes first: its orders wait for what they are promised.
    All = 1,
}

impl Unannounced {
    pub fn from_number(number: u8) -> Option<Unannounced> {
        [Unannounced::Waiting, Unannounced::All].get(number as usize).copied()
    }
}

/// What a channel may do besides, and how it is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    /// Units of a sku left at which the channel is told that it is low; 0 for never.
    pub low: u32,
    pub late_confirm: LateConfirm,
    /// Holds the channel may have open at once, and each of its customers; 0 for no limit.
    pub holds_max: u32,
    pub customer_holds_max: u32,
    /// Units of a sku that the channel is shown, and may claim in one reservation; 0 for no limit.
    pub cap: u32,
    pub strategy: Strategy,
    /// Whose customers are served first of those who wait: the lower number's.
    pub priority: u16,
    pub unannounced: Unannounced,
    /// Nodes that one line is split over at most; 0 for [`limit::LINE_SPLITS_MAX`].
    pub splits_max: u8,
    /// A line may be served with a substitute of its sku.
    pub substitutes: bool,
}

impl Policy {
    /// Nodes that one line is split over at most.
    pub fn splits(&self) -> usize {
        match self.splits_max {
            0 => limit::LINE_SPLITS_MAX,
            max => limit::LINE_SPLITS_MAX.min(usize::from(max)),
        }
    }

    /// So many units of a sku, as far as the channel may see them.
    pub fn capped(&self, units: i64) -> i64 {
        if self.cap == 0 { units } else { units.min(i64::from(self.cap)) }
    }

    /// Whether open holds are counted.
    pub fn counts_holds(&self) -> bool {
        self.holds_max > 0 || self.customer_holds_max > 0
    }
}

/// Kinds of name that can be looked up. Numbers are stable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum NameKind {
    Sku = 1,
    Node = 2,
    Group = 3,
    Channel = 4,
    Zone = 5,
}

impl NameKind {
    pub fn name(self) -> &'static str {
        ["sku", "node", "group", "channel", "zone"][self as usize - 1]
    }

    /// The refusal of a name that is not known.
    pub fn unknown(self) -> Code {
        match self {
            NameKind::Sku => Code::UnknownSku,
            NameKind::Node => Code::UnknownNode,
            NameKind::Group => Code::UnknownGroup,
            NameKind::Channel => Code::UnknownChannel,
            NameKind::Zone => Code::UnknownZone,
        }
    }

    pub fn from_number(number: u8) -> Option<NameKind> {
        [NameKind::Sku, NameKind::Node, NameKind::Group, NameKind::Channel, NameKind::Zone]
            .get(number.wrapping_sub(1) as usize)
            .copied()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    /// Lower goes first; equal priorities go by id.
    pub priority: u16,
    pub kind: String,
    pub timezone: String,
    pub at: Option<Point>,
    pub substitutes: Vec<NodeId>,
    pub day: Day,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    pub nodes: Vec<NodeId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    pub name: String,
    /// The channel it is part of: it may use that one's allocations too.
    pub parent: Option<ChannelId>,
    /// The nodes it is offered; none means all.
    pub group: Option<GroupId>,
    /// Units of each sku withheld from this channel.
    pub buffer: u32,
    pub policy: Policy,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    pub name: String,
    pub at: Option<Point>,
    pub lanes: Vec<Lane<NodeId>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkuData {
    pub name: String,
    pub category: String,
    pub substitutes: Vec<String>,
}

/// What stands in place of a token's hash where the token was revoked.
/// The name of the token in `admin.token` of the data directory.
pub const ADMIN: &str = "admin";
pub const NO_TOKEN: [u8; 32] = [0; 32];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub id: PrincipalId,
    pub name: String,
    pub role: Role,
    pub channel: Option<ChannelId>,
    /// A warehouse's own nodes; a warehouse without any may post for none.
    pub nodes: Vec<NodeId>,
    pub token_sha256: [u8; 32],
    /// Seconds that `occurred_at` of its events may lie ahead of the server's clock; 0 for those of everybody.
    pub clock_ahead_s: u32,
}

impl Principal {
    /// As far as its events may lie ahead, in milliseconds.
    pub fn clock_ahead_ms(&self) -> u64 {
        if self.clock_ahead_s == 0 {
            limit::CLOCK_AHEAD_MS_MAX
        } else {
            u64::from(self.clock_ahead_s) * 1_000
        }
    }
}

/// What a definition led to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Defined {
    /// The entry is new or changed: this is to be journaled.
    Changed(u32),
    /// It was there, exactly so.
    Same(u32),
}

/// All names and configuration.
#[derive(Default, Debug)]
pub struct Catalogue {
    skus: HashMap<Box<str>, SkuId>,
    nodes: Vec<Node>,
    groups: Vec<Group>,
    channels: Vec<Channel>,
    principals: Vec<Principal>,
    sku_data: Vec<SkuData>,
    sku_rules: Vec<Rule>,
    zones: Vec<Zone>,
    webhooks: Vec<(String, Webhook)>,
    book: RuleBook,
    /// Places in these lists by name: nodes, groups, channels, principals, data of skus, rules, zones, webhooks.
    names: [HashMap<Box<str>, u32>; 8],
    rules: Arc<Rules>,
    /// Patterns of rules that are new: which skus they match is not looked up yet.
    patterns: Vec<String>,
    /// What the rules are made from has changed since they were made.
    stale: bool,
    /// Zones as rules, and whether they, or where nodes are, have changed since they were made.
    zone_rules: Vec<Arc<ZoneRule>>,
    zones_stale: bool,
    sku_substitutes: Arc<HashMap<SkuId, Box<[SkuId]>>>,
}

/// Which of [`Catalogue::names`].
const NODES: usize = EntryKind::Node as usize;
const GROUPS: usize = EntryKind::Group as usize;
const CHANNELS: usize = EntryKind::Channel as usize;
const PRINCIPALS: usize = EntryKind::Principal as usize;
const SKU_DATA: usize = EntryKind::SkuData as usize;
const RULES: usize = EntryKind::Rule as usize;
const ZONES: usize = EntryKind::Zone as usize;
const WEBHOOKS: usize = EntryKind::Webhook as usize;

/// Characters of no width, and those that change the direction of the text around them: two names that look alike are
/// the same.
fn is_invisible(char: char) -> bool {
    matches!(char,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

impl Catalogue {
    /// A name is 1 to 64 bytes of UTF-8 without control characters and without spaces at its ends.
    pub fn is_name(name: &str) -> bool {
        Catalogue::check_name(name).is_ok()
    }

    /// Why text is no name.
    pub fn check_name(name: &str) -> Result<(), &'static str> {
        if name.is_empty() {
            Err("is empty")
        } else if name.len() > limit::NAME_BYTES_MAX {
            Err("is longer than 128 bytes")
        } else if name.trim() != name {
            Err("begins or ends with white space")
        } else {
            Catalogue::check_text(name)
        }
    }

    /// Why text that others will read or compare cannot be taken: it has characters that nobody sees.
    pub fn check_text(text: &str) -> Result<(), &'static str> {
        if text.chars().any(char::is_control) {
            Err("has control characters")
        } else if text.chars().any(is_invisible) {
            Err("has invisible characters (of zero width, or that turn the direction of text)")
        } else {
            Ok(())
        }
    }

    pub fn sku_count(&self) -> usize {
        self.skus.len()
    }

    /// What decisions and queries read, as of the last definition.
    pub fn rules(&mut self) -> Arc<Rules> {
        if std::mem::take(&mut self.stale) {
            if !self.book.is_compiled() {
                let groups = self.group_sets();
                self.book.compile_stale(&self.sku_rules, &groups);
            }
            self.assign_matching();
            if std::mem::take(&mut self.zones_stale) {
                let points: Vec<Option<Point>> = self.nodes.iter().map(|node| node.at).collect();
                let zone = |zone: &Zone| Arc::new(ZoneRule::new(zone.at, &zone.lanes, &points));
                self.zone_rules = self.zones.iter().map(zone).collect();
            }
            self.rules = Arc::new(self.derive());
        }
        Arc::clone(&self.rules)
    }

    /// Whether a definition may change the rules: all but those of new skus do, and those too where rules by sku
    /// have patterns.
    pub fn may_change_rules(&self, definition: &Definition) -> bool {
        self.book.has_layers() || !matches!(definition, Definition::Sku { .. })
    }

    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    pub fn channels(&self) -> &[Channel] {
        &self.channels
    }

    pub fn principal(&self, id: PrincipalId) -> Option<&Principal> {
        self.principals.get((id.0 as usize).checked_sub(1)?)
    }

    pub fn principals(&self) -> &[Principal] {
        &self.principals
    }

    pub fn skus(&self) -> impl Iterator<Item = (&str, SkuId)> {
        self.skus.iter().map(|(name, sku)| (&**name, *sku))
    }

    /// The id behind a name.
    pub fn find(&self, kind: NameKind, name: &str) -> Option<u32> {
        match kind {
            NameKind::Sku => self.skus.get(name).map(|sku| sku.0),
            NameKind::Node => self.names[NODES].get(name).copied(),
            NameKind::Group => self.names[GROUPS].get(name).copied(),
            NameKind::Channel => self.names[CHANNELS].get(name).copied(),
            NameKind::Zone => self.names[ZONES].get(name).copied(),
        }
    }

    /// The id behind a name that need not be given.
    fn optional(&self, kind: NameKind, name: &Option<String>) -> Result<Option<u16>, Code> {
        let Some(name) = name else { return Ok(None) };
        self.find(kind, name).map(|id| Some(id as u16)).ok_or(kind.unknown())
    }

    fn known_node(&self, name: &str) -> Result<NodeId, Code> {
        self.find(NameKind::Node, name).map(|id| NodeId(id as u16)).ok_or(Code::UnknownNode)
    }

    /// In the order given.
    fn known_nodes(&self, names: &[String]) -> Result<Vec<NodeId>, Code> {
        names.iter().map(|name| self.known_node(name)).collect()
    }

    fn node_ids(&self, names: &[String]) -> Result<Vec<NodeId>, Code> {
        let mut ids = self.known_nodes(names)?;
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// What nobody may do to a token, whatever transport it comes over: replace the administrator's (the server itself
    /// does, from its file), revoke one that is not there, or give it what does not fit its role.
    pub fn check_principal(&self, by: PrincipalId, definition: &Definition) -> Result<(), Code> {
        let Definition::Principal { name, role, channel, nodes, token_sha256, .. } = definition else {
            return Ok(());
        };
        if name == ADMIN && by != PrincipalId::SYSTEM {
            return Err(Code::Forbidden);
        }
        if *token_sha256 == NO_TOKEN && !self.names[PRINCIPALS].contains_key(name.as_str()) {
            return Err(Code::UnknownToken);
        }
        let fits = match role {
            Role::Admin => channel.is_none() && nodes.is_empty(),
            Role::Channel => nodes.is_empty(),
            Role::Warehouse => channel.is_none(),
        };
        if fits { Ok(()) } else { Err(Code::InvalidRule) }
    }

    /// Creates or replaces an entry; the answer holds its id.
    pub fn define(&mut self, definition: &Definition) -> Result<Defined, Code> {
        if !Catalogue::is_name(definition.name()) {
            return Err(Code::InvalidName);
        }
        match definition {
            Definition::Sku { name } => {
                if let Some(sku) = self.skus.get(name.as_str()) {
                    return Ok(Defined::Same(sku.0));
                }
                if self.skus.len() >= limit::SKUS_MAX {
                    return Err(Code::CatalogueFull);
                }
                let sku = SkuId(self.skus.len() as u32);
                self.skus.insert(name.as_str().into(), sku);
                self.stale |= self.book.has_layers() && self.book.assign(sku, name, "");
                Ok(Defined::Changed(sku.0))
            }
            Definition::Node { name, priority, kind, timezone, at, substitutes, day } => {
                if substitutes.contains(name) || substitutes.len() > limit::SUBSTITUTES_MAX {
                    return Err(Code::InvalidRule);
                }
                if at.is_some_and(|at| !at.is_on_earth()) || !day.is_valid() {
                    return Err(Code::InvalidRule);
                }
                if kind.len() > limit::NAME_BYTES_MAX || timezone.len() > limit::NAME_BYTES_MAX {
                    return Err(Code::InvalidName);
                }
                let node = Node {
                    name: name.clone(),
                    priority: *priority,
                    kind: kind.clone(),
                    timezone: timezone.clone(),
                    at: *at,
                    substitutes: self.known_nodes(substitutes)?,
                    day: *day,
                };
                self.zones_stale = true;
                self.put(|catalogue| &mut catalogue.nodes, (NODES, name), node, limit::NODES_MAX)
            }
            Definition::Group { name, nodes } => {
                if nodes.len() > limit::NODES_MAX {
                    return Err(Code::InvalidRule);
                }
                let group = Group { name: name.clone(), nodes: self.node_ids(nodes)? };
                let put =
                    self.put(|catalogue| &mut catalogue.groups, (GROUPS, name), group, limit::GROUPS_MAX);
                if matches!(put, Ok(Defined::Changed(_))) {
                    self.book.touch_all();
                }
                put
            }
            Definition::SkuData { name, category, substitutes } => {
                let known = |name: &String| self.skus.get(name.as_str()).copied().ok_or(Code::UnknownSku);
                let sku = known(name)?;
                if substitutes.contains(name) || substitutes.len() > limit::SUBSTITUTES_MAX {
                    return Err(Code::InvalidRule);
                }
                let others: Box<[SkuId]> = substitutes.iter().map(known).collect::<Result<_, _>>()?;
                if !category.is_empty() && !Catalogue::is_name(category) {
                    return Err(Code::InvalidName);
                }
                self.book.assign(sku, name, category);
                if self.sku_substitutes.get(&sku).map_or(&[][..], |others| others) != &*others {
                    let all = Arc::make_mut(&mut self.sku_substitutes);
                    if others.is_empty() {
                        all.remove(&sku)
                    } else {
                        all.insert(sku, others)
                    };
                }
                let data = SkuData {
                    name: name.clone(),
                    category: category.clone(),
                    substitutes: substitutes.clone(),
                };
                let named = (SKU_DATA, name);
                let put = self.put(|catalogue| &mut catalogue.sku_data, named, data, limit::SKUS_MAX)?;
                Ok(match put {
                    Defined::Changed(_) => Defined::Changed(sku.0),
                    Defined::Same(_) => Defined::Same(sku.0),
                })
            }
            Definition::Zone { name, at, lanes } => {
                if at.is_some_and(|at| !at.is_on_earth()) || lanes.len() > limit::NODES_MAX {
                    return Err(Code::InvalidRule);
                }
                let mut known = Vec::with_capacity(lanes.len());
                for Lane { node, metres, cost } in lanes {
                    known.push(Lane { node: self.known_node(node)?, metres: *metres, cost: *cost });
                }
                let zone = Zone { name: name.clone(), at: *at, lanes: known };
                self.zones_stale = true;
                self.put(|catalogue| &mut catalogue.zones, (ZONES, name), zone, limit::ZONES_MAX)
            }
            Definition::Rule { name, skus, category, node, group, channel, effect } => {
                self.define_rule(name, (skus, category), (node, group), channel, *effect)
            }
            Definition::Webhook { name, hook } => {
                self.optional(NameKind::Channel, &hook.channel)?;
                if !hook.is_sound() {
                    return Err(Code::InvalidRule);
                }
                let others =
                    self.webhooks.iter().filter(|(other, hook)| other != name && !hook.url.is_empty());
                if !hook.url.is_empty() && others.count() >= limit::WEBHOOKS_MAX {
                    return Err(Code::CatalogueFull);
                }
                let (put, named) = ((name.clone(), hook.clone()), (WEBHOOKS, name));
                self.put(|catalogue| &mut catalogue.webhooks, named, put, limit::WEBHOOK_NAMES_MAX)
            }
            Definition::Channel { name, parent, group, buffer, policy } => {
                let parent = self.optional(NameKind::Channel, parent)?.map(ChannelId);
                if !self.may_stand_below(name, parent) {
                    return Err(Code::InvalidParent);
                }
                let group = self.optional(NameKind::Group, group)?.map(GroupId);
                let (name_of, buffer, policy) = (name.clone(), *buffer, *policy);
                let channel = Channel { name: name_of, parent, group, buffer, policy };
                self.put(|catalogue| &mut catalogue.channels, (CHANNELS, name), channel, limit::CHANNELS_MAX)
            }
            Definition::Principal { name, role, channel, nodes, token_sha256, clock_ahead_s } => {
                if *clock_ahead_s > limit::CLOCK_AHEAD_S_MAX {
                    return Err(Code::InvalidRule);
                }
                let channel = self.optional(NameKind::Channel, channel)?.map(ChannelId);
                if *role == Role::Channel && channel.is_none() {
                    return Err(Code::UnknownChannel);
                }
                if nodes.len() > limit::NODES_MAX {
                    return Err(Code::InvalidRule);
                }
                if *role == Role::Warehouse && nodes.is_empty() {
                    return Err(Code::UnknownNode);
                }
                let same_token =
                    |other: &&Principal| other.token_sha256 == *token_sha256 && *token_sha256 != NO_TOKEN;
                if self.principals.iter().find(same_token).is_some_and(|other| other.name != *name) {
                    return Err(Code::TokenInUse);
                }
                let at = self.names[PRINCIPALS].get(name.as_str()).map(|at| *at as usize);
                let principal = Principal {
                    // Principal 0 is the system, which has no token and no entry.
                    id: PrincipalId(at.unwrap_or(self.principals.len()) as u32 + 1),
                    name: name.clone(),
                    role: *role,
                    channel,
                    nodes: self.node_ids(nodes)?,
                    token_sha256: *token_sha256,
                    clock_ahead_s: *clock_ahead_s,
                };
                let named = (PRINCIPALS, name);
                let put =
                    self.put(|catalogue| &mut catalogue.principals, named, principal, limit::PRINCIPALS_MAX)?;
                Ok(match put {
                    Defined::Changed(at) => Defined::Changed(at + 1),
                    Defined::Same(at) => Defined::Same(at + 1),
                })
            }
        }
    }

    /// A channel and those above it, if `parent` were above the channel called `name`.
    fn line_of(&self, channel: usize, name: &str, parent: Option<ChannelId>) -> Vec<ChannelId> {
        let mut line = vec![ChannelId(channel as u16)];
        let above = |channel: ChannelId| match self.channels.get(channel.0 as usize) {
            Some(known) if known.name != name => known.parent,
            _ => parent,
        };
        while let Some(next) = line.last().and_then(|last| above(*last)) {
            line.push(next);
            if line.len() > limit::CHANNEL_LEVELS_MAX {
                break;
            }
        }
        line
    }

    /// Whether no channel would stand below itself, or in too many levels.
    fn may_stand_below(&self, name: &str, parent: Option<ChannelId>) -> bool {
        let new = !self.names[CHANNELS].contains_key(name);
        (0..self.channels.len() + usize::from(new))
            .all(|channel| self.line_of(channel, name, parent).len() <= limit::CHANNEL_LEVELS_MAX)
    }

    fn put<E: PartialEq>(
        &mut self,
        entries: impl Fn(&mut Catalogue) -> &mut Vec<E>,
        (names, name): (usize, &String),
        entry: E,
        max: usize,
    ) -> Result<Defined, Code> {
        let at = self.names[names].get(name.as_str()).map(|at| *at as usize);
        let list = entries(self);
        let at = match at {
            Some(at) if list[at] == entry => return Ok(Defined::Same(at as u32)),
            Some(at) => {
                list[at] = entry;
                at
            }
            None if list.len() >= max => return Err(Code::CatalogueFull),
            None => {
                list.push(entry);
                let at = list.len() - 1;
                self.names[names].insert(name.as_str().into(), at as u32);
                at
            }
        };
        self.stale = true;
        Ok(Defined::Changed(at as u32))
    }

    fn group_sets(&self) -> Vec<NodeSet> {
        self.groups.iter().map(|group| NodeSet::of(&group.nodes)).collect()
    }

    /// Takes over definitions, sorted by kind and first mention. A channel may have been put below a younger one, and a
    /// node may have younger substitutes, so all of them are made before they are put where they stand.
    pub fn load(&mut self, definitions: &[Definition]) -> Result<(), (String, Code)> {
        let alone = |definition: &Definition| match definition.clone() {
            Definition::Node { name, priority, kind, timezone, at, day, .. } => {
                Definition::Node { name, priority, kind, timezone, at, substitutes: Vec::new(), day }
            }
            Definition::Channel { name, group, buffer, policy, parent: Some(_) } => {
                Definition::Channel { name, group, buffer, policy, parent: None }
            }
            other => other,
        };
        for definition in definitions.iter().map(alone).chain(definitions.iter().cloned()) {
            self.define(&definition).map_err(|code| (definition.name().to_owned(), code))?;
        }
        Ok(())
    }

    /// Every entry as the definition that would make it again, in an order that gives the same ids to
    /// [`Catalogue::load`].
    pub fn definitions(&self) -> Vec<Definition> {
        let kinds = [
            (EntryKind::Node, self.nodes.len()),
            (EntryKind::Group, self.groups.len()),
            (EntryKind::Channel, self.channels.len()),
            (EntryKind::Principal, self.principals.len()),
            (EntryKind::Zone, self.zones.len()),
            (EntryKind::SkuData, self.sku_data.len()),
            (EntryKind::Rule, self.sku_rules.len()),
            (EntryKind::Webhook, self.webhooks.len()),
        ];
        kinds
            .into_iter()
            .flat_map(|(kind, count)| (0..count).map(move |at| self.definition(kind, at)))
            .collect()
    }

    /// The entry of a name.
    pub fn entry(&self, kind: EntryKind, name: &str) -> Option<Definition> {
        let entry = self.names[kind as usize].get(name).map(|at| self.definition(kind, *at as usize));
        entry.filter(|entry| !entry.is_given_up())
    }

    fn definition(&self, kind: EntryKind, at: usize) -> Definition {
        let node_name = |node: &NodeId| self.nodes[node.0 as usize].name.clone();
        let channel_name = |channel: ChannelId| self.channels[channel.0 as usize].name.clone();
        match kind {
            EntryKind::Node => {
                let Node { name, priority, kind, timezone, at, substitutes, day } = self.nodes[at].clone();
                let substitutes = substitutes.iter().map(node_name).collect();
                Definition::Node { name, priority, kind, timezone, at, substitutes, day }
            }
            EntryKind::Group => {
                let Group { name, nodes } = &self.groups[at];
                Definition::Group { name: name.clone(), nodes: nodes.iter().map(node_name).collect() }
            }
            EntryKind::Channel => {
                let Channel { name, parent, group, buffer, policy } = self.channels[at].clone();
                let group = group.map(|group| self.groups[group.0 as usize].name.clone());
                Definition::Channel { name, parent: parent.map(channel_name), group, buffer, policy }
            }
            EntryKind::Principal => {
                let Principal { name, role, channel, nodes, token_sha256, clock_ahead_s, .. } =
                    self.principals[at].clone();
                let (channel, nodes) = (channel.map(channel_name), nodes.iter().map(node_name).collect());
                Definition::Principal { name, role, channel, nodes, token_sha256, clock_ahead_s }
            }
            EntryKind::Zone => {
                let Zone { name, at, lanes } = self.zones[at].clone();
                let lane = |lane: Lane<NodeId>| Lane {
                    node: node_name(&lane.node),
                    metres: lane.metres,
                    cost: lane.cost,
                };
                Definition::Zone { name, at, lanes: lanes.into_iter().map(lane).collect() }
            }
            EntryKind::SkuData => {
                let SkuData { name, category, substitutes } = self.sku_data[at].clone();
                Definition::SkuData { name, category, substitutes }
            }
            EntryKind::Rule => {
                let Rule { name, skus, category, effect, place, channel, .. } = self.sku_rules[at].clone();
                let (node, group) = match place {
                    Where::Everywhere => (None, None),
                    Where::Node(at) => (Some(node_name(&at)), None),
                    Where::Group(at) => (None, Some(self.groups[at.0 as usize].name.clone())),
                };
                let channel = channel.map(channel_name);
                Definition::Rule { name, skus, category, node, group, channel, effect }
            }
            EntryKind::Webhook => {
                let (name, hook) = self.webhooks[at].clone();
                Definition::Webhook { name, hook }
            }
        }
    }
}
