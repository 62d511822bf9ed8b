//! Definitions: requests to create or replace an entry, and the kinds of entries there are.

use xxhash_rust::xxh3::xxh3_64;

use super::{Day, Effect, Lane, NameKind, Point, Policy, Role, Webhook};

/// Kinds of entries that are put as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EntryKind {
    Node,
    Group,
    Channel,
    Principal,
    SkuData,
    Rule,
    Zone,
    Webhook,
}

impl EntryKind {
    /// As in a definition's record, where skus alone are 1.
    pub fn from_number(number: u8) -> Option<EntryKind> {
        let all = [
            EntryKind::Node,
            EntryKind::Group,
            EntryKind::Channel,
            EntryKind::Principal,
            EntryKind::SkuData,
            EntryKind::Rule,
            EntryKind::Zone,
            EntryKind::Webhook,
        ];
        all.get(usize::from(number).checked_sub(2)?).copied()
    }

    pub fn number(self) -> u8 {
        self as u8 + 2
    }

    pub fn name(self) -> &'static str {
        ["node", "group", "channel", "token", "sku", "rule", "zone", "webhook"][self as usize]
    }
}

/// A request to create or replace an entry of the catalogue. It says names; ids come from the catalogue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Definition {
    Sku {
        name: String,
    },
    Node {
        name: String,
        priority: u16,
        kind: String,
        timezone: String,
        at: Option<Point>,
        /// Nodes that serve a line which names this one and finds it has not all of it, the first that has.
        substitutes: Vec<String>,
        day: Day,
    },
    Group {
        name: String,
        nodes: Vec<String>,
    },
    Channel {
        name: String,
        /// The channel it is part of.
        parent: Option<String>,
        group: Option<String>,
        buffer: u32,
        policy: Policy,
    },
    Principal {
        name: String,
        role: Role,
        channel: Option<String>,
        nodes: Vec<String>,
        token_sha256: [u8; 32],
        /// Seconds that its events may lie ahead of the server's clock; 0 for those of everybody.
        clock_ahead_s: u32,
    },
    /// What is known of a sku that is there.
    SkuData {
        name: String,
        /// Empty for none.
        category: String,
        /// Skus that serve a line in place of this one where it is not there whole, the first that is: for
        /// channels that want that.
        substitutes: Vec<String>,
    },
    /// A place that orders go to.
    Zone {
        name: String,
        at: Option<Point>,
        lanes: Vec<Lane<String>>,
    },
    Rule {
        name: String,
        /// A sku's name, or the beginning of names and a `*`.
        skus: String,
        /// Empty for any.
        category: String,
        /// The node or the group where it holds; neither for everywhere.
        node: Option<String>,
        group: Option<String>,
        channel: Option<String>,
        effect: Effect,
    },
    /// Where changes are sent as they happen.
    Webhook {
        name: String,
        hook: Webhook,
    },
}

impl Definition {
    /// What kind of entry it makes; a sku alone is none, only its name.
    pub fn kind(&self) -> Option<EntryKind> {
        match self {
            Definition::Sku { .. } => None,
            Definition::Node { .. } => Some(EntryKind::Node),
            Definition::Group { .. } => Some(EntryKind::Group),
            Definition::Channel { .. } => Some(EntryKind::Channel),
            Definition::Principal { .. } => Some(EntryKind::Principal),
            Definition::SkuData { .. } => Some(EntryKind::SkuData),
            Definition::Rule { .. } => Some(EntryKind::Rule),
            Definition::Zone { .. } => Some(EntryKind::Zone),
            Definition::Webhook { .. } => Some(EntryKind::Webhook),
        }
    }

    /// A rule without effect, or a webhook without an address: it counts as not there.
    pub fn is_given_up(&self) -> bool {
        match self {
            Definition::Rule { effect, .. } => *effect == Effect::None,
            Definition::Webhook { hook, .. } => hook.url.is_empty(),
            _ => false,
        }
    }

    /// A number that is another for another content, never 0. It holds for one version of the program only.
    pub fn version(&self) -> u64 {
        xxh3_64(format!("{self:?}").as_bytes()).max(1)
    }

    /// The names that it refers to, with what each must be the name of.
    pub fn references(&self) -> Vec<(NameKind, &str)> {
        let mut found: Vec<(NameKind, &str)> = Vec::new();
        match self {
            Definition::Sku { .. } => {}
            Definition::Node { substitutes: nodes, .. } | Definition::Group { nodes, .. } => {
                found.extend(nodes.iter().map(|name| (NameKind::Node, name.as_str())));
            }
            Definition::Channel { parent, group, .. } => {
                found.extend(parent.iter().map(|name| (NameKind::Channel, name.as_str())));
                found.extend(group.iter().map(|name| (NameKind::Group, name.as_str())));
            }
            Definition::Principal { channel, nodes, .. } => {
                found.extend(channel.iter().map(|name| (NameKind::Channel, name.as_str())));
                found.extend(nodes.iter().map(|name| (NameKind::Node, name.as_str())));
            }
            Definition::SkuData { name, substitutes, .. } => {
                found.push((NameKind::Sku, name));
                found.extend(substitutes.iter().map(|name| (NameKind::Sku, name.as_str())));
            }
            Definition::Zone { lanes, .. } => {
                found.extend(lanes.iter().map(|lane| (NameKind::Node, lane.node.as_str())));
            }
            Definition::Rule { node, group, channel, .. } => {
                found.extend(node.iter().map(|name| (NameKind::Node, name.as_str())));
                found.extend(group.iter().map(|name| (NameKind::Group, name.as_str())));
                found.extend(channel.iter().map(|name| (NameKind::Channel, name.as_str())));
            }
            Definition::Webhook { hook, .. } => {
                found.extend(hook.channel.iter().map(|name| (NameKind::Channel, name.as_str())));
            }
        }
        found
    }

    /// A node of which no more is known.
    pub fn node(name: &str, priority: u16) -> Definition {
        let (kind, timezone) = (String::new(), String::new());
        let (at, substitutes, day) = (None, Vec::new(), Day::default());
        Definition::Node { name: name.into(), priority, kind, timezone, at, substitutes, day }
    }

    /// A channel that is offered every node, with nothing withheld.
    pub fn channel(name: &str) -> Definition {
        let name = name.into();
        Definition::Channel { name, parent: None, group: None, buffer: 0, policy: Policy::default() }
    }

    /// Whether it may change which allocations rules want of skus that are there.
    pub fn may_unbalance(&self) -> bool {
        match self {
            Definition::Group { .. }
            | Definition::Channel { .. }
            | Definition::SkuData { .. }
            | Definition::Rule { .. } => true,
            Definition::Sku { .. }
            | Definition::Node { .. }
            | Definition::Zone { .. }
            | Definition::Principal { .. }
            | Definition::Webhook { .. } => false,
        }
    }

    /// Whether readers may be told other numbers of skus that are there.
    pub fn may_change_availability(&self) -> bool {
        !matches!(
            self,
            Definition::Sku { .. }
                | Definition::Zone { .. }
                | Definition::Principal { .. }
                | Definition::Webhook { .. }
        )
    }

    pub fn name(&self) -> &str {
        match self {
            Definition::Sku { name }
            | Definition::Node { name, .. }
            | Definition::Group { name, .. }
            | Definition::Channel { name, .. }
            | Definition::SkuData { name, .. }
            | Definition::Rule { name, .. }
            | Definition::Zone { name, .. }
            | Definition::Webhook { name, .. }
            | Definition::Principal { name, .. } => name,
        }
    }
}
