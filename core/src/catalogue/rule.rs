//! Rules by sku: safety stock, and channel allocations that keep themselves.
//!
//! A rule says which skus (a pattern, a category), where (a node, a group or everywhere) and for which channel. Rules
//! with the same pattern and category form a layer; a sku has the layers that match it, the most specific first: an
//! exact name before a prefix, a longer prefix before a shorter one, a category before none. So the number of rules
//! says nothing about the cost of a look at one sku: a sku no rule matches has no layers, and in a layer what holds
//! for a node and a channel is found by hash.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::catalogue::{Catalogue, Defined, NameKind, NodeSet, RULES, SKU_DATA};
use crate::id::{ChannelId, GroupId, Millis, NodeId, SkuId};
use crate::limit;
use crate::outcome::Code;

/// What a rule does. Numbers are stable: they are on the wire and in the journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Effect {
    /// Nothing: a rule that was given up.
    #[default]
    None,
    /// So many units free at a node are withheld from the channel, or from all.
    Safety(u32),
    /// The channel, or any, may wait for so many units of a sku, to come with supplies of a node; of something that
    /// was sold out, or that is not out yet.
    Backorder(u32),
    Preorder(u32),
    /// The channel has so much allocated at a node.
    Allocate {
        amount: Amount,
        when: When,
    },
}

/// How much. Percentages are of the units that came, or of all that nobody claims.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Amount {
    Units(u32),
    Percent(u8),
}

/// When an allocation is brought about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// From what a receipt brings.
    Receipt,
    /// Again and again: more is allocated or given back, what is claimed stays.
    Always,
    /// The same in one of so many minutes: those whose number, counted from 1970, is a multiple.
    Every(u16),
}

impl When {
    /// Whether allocations keep themselves at a time.
    pub fn is_due(self, now: Millis) -> bool {
        match self {
            When::Receipt => false,
            When::Always => true,
            When::Every(minutes) => (now.0 / limit::MINUTE_MS).is_multiple_of(u64::from(minutes)),
        }
    }
}

/// Where a rule holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Where {
    Everywhere,
    Node(NodeId),
    Group(GroupId),
}

/// A rule as the catalogue keeps it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    pub name: String,
    /// A sku's name, or the beginning of names and a `*`.
    pub skus: String,
    /// Empty for any.
    pub category: String,
    pub place: Where,
    pub channel: Option<ChannelId>,
    pub effect: Effect,
}

/// Which pattern and category.
type Key = (Box<str>, Box<str>);

/// What holds for a channel: at a node, in a group, everywhere.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Said<T> {
    nodes: HashMap<(ChannelId, NodeId), T>,
    groups: HashMap<ChannelId, Vec<(NodeSet, T)>>,
    everywhere: HashMap<ChannelId, T>,
}

impl<T> Said<T> {
    /// The first that is put for the same holds.
    fn put(&mut self, place: Where, nodes: NodeSet, channel: ChannelId, what: T) {
        match place {
            Where::Node(node) => _ = self.nodes.entry((channel, node)).or_insert(what),
            Where::Group(_) => self.groups.entry(channel).or_default().push((nodes, what)),
            Where::Everywhere => _ = self.everywhere.entry(channel).or_insert(what),
        }
    }

    fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.groups.is_empty() && self.everywhere.is_empty()
    }

    /// What is said for a node before a group before everywhere, and for the channel before all.
    fn of(&self, node: NodeId, channel: ChannelId) -> Option<&T> {
        let both = || [channel, ChannelId::SHARED].into_iter();
        let group = |channel| {
            let groups = self.groups.get(&channel)?;
            groups.iter().find(|(nodes, _)| nodes.contains(node)).map(|(_, what)| what)
        };
        both()
            .find_map(|channel| self.nodes.get(&(channel, node)))
            .or_else(|| both().find_map(group))
            .or_else(|| both().find_map(|channel| self.everywhere.get(&channel)))
    }
}

/// An allocation that keeps itself.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Keeps {
    nodes: NodeSet,
    channel: ChannelId,
    amount: Amount,
    when: When,
}

/// What the rules of one pattern and category say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Layer {
    safety: Said<u32>,
    /// How many units a channel may wait for, and whether they are not out yet.
    later: Said<(u32, bool)>,
    /// Of single nodes, and for groups and everywhere; the most specific first.
    keeps_at: HashMap<NodeId, Vec<Keeps>>,
    keeps: Vec<Keeps>,
}

impl Layer {
    /// What may hold for a node, the most specific first.
    fn keeps(&self, node: NodeId) -> impl Iterator<Item = &Keeps> {
        let wider = self.keeps.iter().filter(move |keep| keep.nodes.contains(node));
        self.keeps_at.get(&node).into_iter().flatten().chain(wider)
    }

    fn whens(&self) -> impl Iterator<Item = When> {
        self.keeps_at.values().flatten().chain(&self.keeps).map(|keep| keep.when)
    }
}

/// The layers of some skus, the most specific first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Profile {
    layers: Box<[u32]>,
    withholds: bool,
    waits: bool,
    on_receipt: bool,
    /// When allocations keep themselves, each time once.
    keeps: SmallVec<[When; 1]>,
}

const CHUNK: usize = 4_096;

/// Rules in the form that decisions and queries look at; immutable, and cheap to copy.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SkuRules {
    layers: Vec<Arc<Layer>>,
    profiles: Vec<Arc<Profile>>,
    /// Profile by sku; 0 for none.
    skus: Vec<Option<Arc<[u32; CHUNK]>>>,
    /// When some allocation keeps itself, each time once: asked for every batch.
    keeps: SmallVec<[When; 2]>,
    /// Whether somebody may wait for something.
    waits: bool,
}

impl SkuRules {
    /// The profile of a sku; `None` where no rule matches it.
    pub fn profile(&self, sku: SkuId) -> Option<&Profile> {
        let chunk = self.skus.get(sku.0 as usize / CHUNK)?.as_ref()?;
        let profile = chunk[sku.0 as usize % CHUNK];
        if profile == 0 { None } else { self.profiles.get(profile as usize - 1).map(|profile| &**profile) }
    }

    /// Whether some allocation keeps itself at a time.
    pub fn balances(&self, now: Millis) -> bool {
        self.keeps.iter().any(|when| when.is_due(now))
    }

    /// Whether some do so at times.
    pub fn has_schedule(&self) -> bool {
        self.keeps.iter().any(|when| *when != When::Always)
    }

    /// Whether a minute is one in which some do so.
    pub fn is_scheduled(&self, now: Millis) -> bool {
        self.keeps.iter().any(|when| *when != When::Always && when.is_due(now))
    }

    fn note_keeps(&mut self, profile: &Profile) {
        for when in &profile.keeps {
            if !self.keeps.contains(when) {
                self.keeps.push(*when);
            }
        }
    }

    /// Units of a sku withheld from a channel at a node: what the most specific layer says that says anything, of it
    /// the rule for the node before one for a group before one for everywhere, and one for the channel before one
    /// for all.
    pub fn withheld(&self, profile: &Profile, node: NodeId, channel: ChannelId) -> u32 {
        if !profile.withholds {
            return 0;
        }
        let say = |layer: &u32| self.layers[*layer as usize].safety.of(node, channel).copied();
        profile.layers.iter().find_map(say).unwrap_or(0)
    }

    /// How many units of a sku a channel may wait for, to come to a node, and whether they are not out yet; `None`
    /// where it may not wait.
    pub fn later(&self, profile: &Profile, node: NodeId, channel: ChannelId) -> Option<(u32, bool)> {
        let say = |layer: &u32| self.layers[*layer as usize].later.of(node, channel).copied();
        profile.layers.iter().find_map(say).filter(|(units, _)| *units > 0)
    }

    /// Whether somebody may wait for something.
    pub fn waits(&self) -> bool {
        self.waits
    }

    /// Which channels have how much allocated of a sku at a node by rule: fixed amounts first, then percentages, in
    /// each the older channel first. Of several rules for a channel the most specific speaks.
    pub fn keeps(
        &self,
        profile: &Profile,
        node: NodeId,
        wanted: impl Fn(When) -> bool,
    ) -> SmallVec<[(ChannelId, Amount); 4]> {
        let mut found: SmallVec<[(ChannelId, Amount, When); 4]> = SmallVec::new();
        if profile.on_receipt || !profile.keeps.is_empty() {
            for keep in profile.layers.iter().flat_map(|layer| self.layers[*layer as usize].keeps(node)) {
                if found.iter().all(|(channel, ..)| *channel != keep.channel) {
                    found.push((keep.channel, keep.amount, keep.when));
                }
            }
        }
        found.retain(|(_, _, when)| wanted(*when));
        found.sort_by_key(|(channel, amount, _)| (matches!(amount, Amount::Percent(_)), *channel));
        found.into_iter().map(|(channel, amount, _)| (channel, amount)).collect()
    }
}

impl Profile {
    /// Whether somebody may wait for it.
    pub fn waits(&self) -> bool {
        self.waits
    }

    /// Whether some of its allocations come out of receipts.
    pub fn allocates_receipts(&self) -> bool {
        self.on_receipt
    }

    /// Whether some keep themselves at a time.
    pub fn balances(&self, now: Millis) -> bool {
        self.keeps.iter().any(|when| when.is_due(now))
    }
}

impl Catalogue {
    /// Creates or replaces a rule.
    pub(super) fn define_rule(
        &mut self,
        name: &String,
        (skus, category): (&String, &String),
        (node, group): (&Option<String>, &Option<String>),
        channel: &Option<String>,
        effect: Effect,
    ) -> Result<Defined, Code> {
        let (prefix, is_prefix) = skus.strip_suffix('*').map_or((skus.as_str(), false), |skus| (skus, true));
        if prefix.contains('*') {
            return Err(Code::InvalidRule);
        }
        let is_pattern = (is_prefix && prefix.is_empty()) || Catalogue::is_name(prefix);
        if !is_pattern || !(category.is_empty() || Catalogue::is_name(category)) {
            return Err(Code::InvalidName);
        }
        let node = self.optional(NameKind::Node, node)?.map(NodeId);
        let group = self.optional(NameKind::Group, group)?.map(GroupId);
        let channel = self.optional(NameKind::Channel, channel)?.map(ChannelId);
        let place = match (node, group) {
            (Some(_), Some(_)) => return Err(Code::InvalidRule),
            (Some(node), None) => Where::Node(node),
            (None, Some(group)) => Where::Group(group),
            (None, None) => Where::Everywhere,
        };
        let sound = match effect {
            Effect::None => true,
            Effect::Safety(units) | Effect::Backorder(units) | Effect::Preorder(units) => {
                units <= limit::QUANTITY_MAX
            }
            Effect::Allocate { when: When::Every(0), .. } => false,
            Effect::Allocate { amount: Amount::Units(units), .. } => {
                channel.is_some() && units <= limit::QUANTITY_MAX
            }
            Effect::Allocate { amount: Amount::Percent(percent), .. } => channel.is_some() && percent <= 100,
        };
        if !sound {
            return Err(Code::InvalidRule);
        }
        let (skus, category) = (skus.clone(), category.clone());
        let rule = Rule { name: name.clone(), skus, category, place, channel, effect };
        let old = self.names[RULES].get(name.as_str()).map(|at| self.sku_rules[*at as usize].clone());
        let put = self.put(|catalogue| &mut catalogue.sku_rules, (RULES, name), rule, limit::RULES_MAX)?;
        if let Defined::Changed(at) = put {
            let look_up = |pattern: &str| self.patterns.push(pattern.to_owned());
            self.book.put(at, &self.sku_rules[at as usize], old.as_ref(), look_up);
        }
        Ok(put)
    }

    /// Looks up again the rules of the skus that new patterns match, and those given up: once for all together.
    pub(super) fn assign_matching(&mut self) {
        let patterns = std::mem::take(&mut self.patterns);
        let category_of = |name: &str| {
            let data = self.names[SKU_DATA].get(name).map(|at| &self.sku_data[*at as usize]);
            data.map_or("", |data| data.category.as_str())
        };
        let mut prefixes = Vec::new();
        for pattern in &patterns {
            match (pattern.strip_suffix('*'), self.skus.get(pattern.as_str())) {
                (Some(prefix), _) => prefixes.push(prefix),
                (None, Some(sku)) => _ = self.book.assign(*sku, pattern, category_of(pattern)),
                (None, None) => {}
            }
        }
        // A prefix of another says all that the other says.
        prefixes.sort_unstable();
        prefixes.dedup_by(|longer, shorter| longer.starts_with(*shorter));
        for (name, sku) in self.skus.iter().filter(|_| !prefixes.is_empty()) {
            let at = prefixes.partition_point(|prefix| *prefix <= &**name);
            if at > 0 && name.starts_with(prefixes[at - 1]) {
                self.book.assign(*sku, name, category_of(name));
            }
        }
        self.book.all_looked_up();
    }
}

/// The rules of the catalogue and which sku has which.
#[derive(Default, Debug)]
pub(super) struct RuleBook {
    compiled: SkuRules,
    layers: HashMap<Key, u32>,
    /// Rules of each layer, by their place in the catalogue.
    members: Vec<BTreeSet<u32>>,
    /// Layers whose rules have changed since they were made.
    stale: BTreeSet<u32>,
    /// Layers whose pattern was given up: some skus may still have them, or none any more.
    left: Vec<u32>,
    free: Vec<u32>,
    profiles: HashMap<Box<[u32]>, u32>,
    /// Lengths of the prefixes that rules have.
    prefixes: BTreeSet<usize>,
}

impl RuleBook {
    pub(super) fn compiled(&self) -> &SkuRules {
        &self.compiled
    }

    /// Whether every layer is as its rules are.
    pub(super) fn is_compiled(&self) -> bool {
        self.stale.is_empty()
    }

    /// Whether there is any pattern: a new sku may have rules then.
    pub(super) fn has_layers(&self) -> bool {
        !self.layers.is_empty()
    }

    /// Puts the rule at `at` where it belongs, and out of where it was; calls `look_up` with each pattern that is new
    /// or no longer one: the skus that it matches must be [looked up](RuleBook::assign) again.
    pub(super) fn put(&mut self, at: u32, rule: &Rule, old: Option<&Rule>, mut look_up: impl FnMut(&str)) {
        let key = |rule: &Rule| -> Key { (rule.skus.as_str().into(), rule.category.as_str().into()) };
        if let Some(old) = old
            && let Some(layer) = self.layers.get(&key(old)).copied()
        {
            self.members[layer as usize].remove(&at);
            self.stale.insert(layer);
            if self.members[layer as usize].is_empty() && key(old) != key(rule) {
                self.layers.remove(&key(old));
                self.left.push(layer);
                look_up(&old.skus);
            }
        }
        let layer = *self.layers.entry(key(rule)).or_insert_with(|| {
            look_up(&rule.skus);
            self.free.pop().unwrap_or_else(|| {
                self.members.push(BTreeSet::new());
                self.compiled.layers.push(Arc::default());
                self.members.len() as u32 - 1
            })
        });
        if let Some(prefix) = rule.skus.strip_suffix('*') {
            self.prefixes.insert(prefix.len());
        }
        self.members[layer as usize].insert(at);
        self.stale.insert(layer);
    }

    /// No sku has a layer any more whose pattern was given up: it may serve another.
    pub(super) fn all_looked_up(&mut self) {
        self.free.append(&mut self.left);
    }

    /// All layers are to be made again: groups have changed.
    pub(super) fn touch_all(&mut self) {
        self.stale.extend(0..self.members.len() as u32);
    }

    /// Makes the layers whose rules have changed, each once for all that came together.
    pub(super) fn compile_stale(&mut self, rules: &[Rule], groups: &[NodeSet]) {
        let stale = std::mem::take(&mut self.stale);
        stale.iter().for_each(|layer| self.compile(*layer, rules, groups));
        for profile in &mut self.compiled.profiles {
            if profile.layers.iter().any(|layer| stale.contains(layer)) {
                *profile = Arc::new(flags(&self.compiled.layers, profile.layers.clone()));
            }
        }
        self.compiled.keeps.clear();
        for profile in self.compiled.profiles.clone() {
            self.compiled.note_keeps(&profile);
        }
        self.compiled.waits = self.compiled.profiles.iter().any(|profile| profile.waits);
    }

    fn compile(&mut self, at: u32, rules: &[Rule], groups: &[NodeSet]) {
        let mut layer = Layer::default();
        // A younger rule goes before an older one for the same.
        let mut members: Vec<&Rule> =
            self.members[at as usize].iter().rev().map(|rule| &rules[*rule as usize]).collect();
        members.sort_by_key(|rule| match rule.place {
            Where::Node(_) => 0,
            Where::Group(_) => 1,
            Where::Everywhere => 2,
        });
        for rule in members {
            let nodes = match rule.place {
                Where::Everywhere => NodeSet::All,
                Where::Node(node) => NodeSet::of(&[node]),
                Where::Group(group) => groups[group.0 as usize].clone(),
            };
            let channel = rule.channel.unwrap_or(ChannelId::SHARED);
            match rule.effect {
                Effect::None => {}
                Effect::Safety(units) => layer.safety.put(rule.place, nodes, channel, units),
                Effect::Backorder(units) => layer.later.put(rule.place, nodes, channel, (units, false)),
                Effect::Preorder(units) => layer.later.put(rule.place, nodes, channel, (units, true)),
                Effect::Allocate { amount, when } => {
                    let keeps = match rule.place {
                        Where::Node(node) => layer.keeps_at.entry(node).or_default(),
                        _ => &mut layer.keeps,
                    };
                    keeps.push(Keeps { nodes, channel, amount, when });
                }
            }
        }
        self.compiled.layers[at as usize] = Arc::new(layer);
    }

    /// Looks up which layers a sku has; answers whether that changed anything.
    pub(super) fn assign(&mut self, sku: SkuId, name: &str, category: &str) -> bool {
        let mut layers: SmallVec<[u32; 8]> = SmallVec::new();
        let mut pattern = String::with_capacity(name.len() + 1);
        let mut look = |pattern: &str| {
            for category in [category, ""].into_iter().take(if category.is_empty() { 1 } else { 2 }) {
                layers.extend(self.layers.get(&(Box::from(pattern), Box::from(category))).copied());
            }
        };
        look(name);
        for len in self.prefixes.iter().rev().filter(|len| **len <= name.len()) {
            if let Some(prefix) = name.get(..*len) {
                pattern.clear();
                pattern.push_str(prefix);
                pattern.push('*');
                look(&pattern);
            }
        }
        let layers: Box<[u32]> = layers.as_slice().into();
        let profile = match self.profiles.get(&layers) {
            _ if layers.is_empty() => 0,
            Some(profile) => *profile,
            None => {
                let new = flags(&self.compiled.layers, layers.clone());
                self.compiled.note_keeps(&new);
                self.compiled.waits |= new.waits;
                self.compiled.profiles.push(Arc::new(new));
                let profile = self.compiled.profiles.len() as u32;
                self.profiles.insert(layers, profile);
                profile
            }
        };
        let (chunk, at) = (sku.0 as usize / CHUNK, sku.0 as usize % CHUNK);
        let chunks = &mut self.compiled.skus;
        if chunks.get(chunk).and_then(Option::as_ref).map_or(0, |chunk| chunk[at]) == profile {
            return false;
        }
        if chunks.len() <= chunk {
            chunks.resize(chunk + 1, None);
        }
        Arc::make_mut(chunks[chunk].get_or_insert_with(|| Arc::new([0; CHUNK])))[at] = profile;
        true
    }
}

/// A profile with these layers.
fn flags(all: &[Arc<Layer>], layers: Box<[u32]>) -> Profile {
    let some = |is: &dyn Fn(&Layer) -> bool| layers.iter().any(|layer| is(&all[*layer as usize]));
    let mut keeps: SmallVec<[When; 1]> = SmallVec::new();
    for when in layers.iter().flat_map(|layer| all[*layer as usize].whens()) {
        if when != When::Receipt && !keeps.contains(&when) {
            keeps.push(when);
        }
    }
    Profile {
        withholds: some(&|layer| !layer.safety.is_empty()),
        waits: some(&|layer| !layer.later.is_empty()),
        on_receipt: some(&|layer| layer.whens().any(|when| when == When::Receipt)),
        keeps,
        layers,
    }
}
