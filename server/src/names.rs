//! Names and their ids, as of what is durable: rarely written, looked up by every HTTP request.

use std::collections::BTreeSet;
use std::sync::Arc;

use dashmap::DashMap;
use stockline_core::catalogue::{Definition, EntryKind, NameKind};
use tokio::sync::watch;

/// One kind's names and ids, both ways.
#[derive(Default)]
struct Pairs {
    ids: DashMap<Arc<str>, u32>,
    names: DashMap<u32, Arc<str>>,
}

#[derive(Default)]
pub struct Names {
    pairs: [Pairs; 5],
    /// Entries as the catalogue has them.
    entries: DashMap<(EntryKind, String), Arc<Definition>>,
    /// Says so when a webhook is another.
    webhooks: watch::Sender<()>,
}

/// The kind of name that a definition gives an id to.
fn kind_of(definition: &Definition) -> Option<NameKind> {
    match definition {
        Definition::Sku { .. } => Some(NameKind::Sku),
        Definition::Node { .. } => Some(NameKind::Node),
        Definition::Group { .. } => Some(NameKind::Group),
        Definition::Channel { .. } => Some(NameKind::Channel),
        Definition::Zone { .. } => Some(NameKind::Zone),
        Definition::SkuData { .. }
        | Definition::Principal { .. }
        | Definition::Rule { .. }
        | Definition::Webhook { .. } => None,
    }
}

impl Names {
    fn of(&self, kind: NameKind) -> &Pairs {
        &self.pairs[kind as usize - 1]
    }

    pub fn put(&self, kind: NameKind, name: &str, id: u32) {
        let (pairs, name) = (self.of(kind), Arc::<str>::from(name));
        pairs.names.insert(id, Arc::clone(&name));
        pairs.ids.insert(name, id);
    }

    /// Takes over what was defined, with the id it got.
    pub fn learn(&self, definition: &Definition, id: u32) {
        if let Some(kind) = kind_of(definition) {
            self.put(kind, definition.name(), id);
        }
        self.keep(definition);
    }

    /// A definition as the catalogue keeps it: with lists of nodes in its order.
    pub fn normal(&self, definition: &Definition) -> Definition {
        let mut entry = definition.clone();
        if let Definition::Group { nodes, .. } | Definition::Principal { nodes, .. } = &mut entry {
            nodes.sort_by_key(|name| self.id(NameKind::Node, name));
            nodes.dedup();
        }
        entry
    }

    fn keep(&self, definition: &Definition) {
        let Some(kind) = definition.kind() else { return };
        let entry = self.normal(definition);
        let at = (kind, definition.name().to_owned());
        if entry.is_given_up() {
            self.entries.remove(&at);
        } else {
            self.entries.insert(at, Arc::new(entry));
        }
        if kind == EntryKind::Webhook {
            self.webhooks.send_replace(());
        }
    }

    /// An entry as it stands, as of what is durable.
    pub fn entry(&self, kind: EntryKind, name: &str) -> Option<Arc<Definition>> {
        self.entries.get(&(kind, name.to_owned())).map(|found| Arc::clone(found.value()))
    }

    /// All entries of a kind, by name.
    pub fn entries(&self, kind: EntryKind) -> Vec<Arc<Definition>> {
        let of_kind = self.entries.iter().filter(|found| found.key().0 == kind);
        let mut all: Vec<_> = of_kind.map(|found| Arc::clone(found.value())).collect();
        all.sort_by(|one, other| one.name().cmp(other.name()));
        all
    }

    /// Takes over definitions that stand in the order of their ids, kind by kind.
    pub fn learn_all<'a>(&self, definitions: impl IntoIterator<Item = &'a Definition>) {
        let mut next = [0; 5];
        for definition in definitions {
            if let Some(kind) = kind_of(definition) {
                let id = &mut next[kind as usize - 1];
                self.put(kind, definition.name(), *id);
                *id += 1;
            }
            self.keep(definition);
        }
    }

    pub fn id(&self, kind: NameKind, name: &str) -> Option<u32> {
        self.of(kind).ids.get(name).map(|found| *found.value())
    }

    /// Names of a kind that begin so, the first by order.
    pub fn beginning(&self, kind: NameKind, prefix: &str, most: usize) -> Vec<Arc<str>> {
        let mut found = BTreeSet::new();
        for pair in &self.of(kind).ids {
            let name = pair.key();
            if name.starts_with(prefix)
                && (found.len() < most || found.last().is_some_and(|last| name < last))
            {
                found.insert(Arc::clone(name));
                if found.len() > most {
                    found.pop_last();
                }
            }
        }
        found.into_iter().collect()
    }

    /// Says so when a webhook is another than it was.
    pub fn webhooks(&self) -> watch::Receiver<()> {
        self.webhooks.subscribe()
    }

    /// How many there are of a kind.
    pub fn count(&self, kind: NameKind) -> usize {
        self.of(kind).names.len()
    }

    pub fn name(&self, kind: NameKind, id: u32) -> Option<Arc<str>> {
        self.of(kind).names.get(&id).map(|found| Arc::clone(found.value()))
    }
}
