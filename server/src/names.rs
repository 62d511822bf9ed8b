//! Names and their ids, as of what is durable: rarely written, looked up by every HTTP request.

use std::sync::Arc;

use dashmap::DashMap;
use stockline_core::catalogue::{Definition, NameKind};

/// One kind's names and ids, both ways.
#[derive(Default)]
struct Pairs {
    ids: DashMap<Arc<str>, u32>,
    names: DashMap<u32, Arc<str>>,
}

#[derive(Default)]
pub struct Names([Pairs; 5]);

/// The kind of name that a definition gives an id to.
fn kind_of(definition: &Definition) -> Option<NameKind> {
    match definition {
        Definition::Sku { .. } => Some(NameKind::Sku),
        Definition::Node { .. } => Some(NameKind::Node),
        Definition::Group { .. } => Some(NameKind::Group),
        Definition::Channel { .. } => Some(NameKind::Channel),
        Definition::Zone { .. } => Some(NameKind::Zone),
        Definition::SkuData { .. } | Definition::Principal { .. } | Definition::Rule { .. } => None,
    }
}

impl Names {
    fn of(&self, kind: NameKind) -> &Pairs {
        &self.0[kind as usize - 1]
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
        }
    }

    pub fn id(&self, kind: NameKind, name: &str) -> Option<u32> {
        self.of(kind).ids.get(name).map(|found| *found.value())
    }

    pub fn name(&self, kind: NameKind, id: u32) -> Option<Arc<str>> {
        self.of(kind).names.get(&id).map(|found| Arc::clone(found.value()))
    }
}
