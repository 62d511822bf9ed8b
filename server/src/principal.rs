//! Principals by token: who is signing in. Tokens are known by their SHA-256 only.

use std::sync::Arc;

use dashmap::DashMap;
use sha2::{Digest, Sha256};
use stockline_core::catalogue::Principal;
use stockline_core::id::PrincipalId;
use stockline_core::limit;
use tokio::sync::Semaphore;

/// Live copy of the catalogue's principals, replaced when a change of them is durable.
#[derive(Default)]
pub struct Principals {
    by_token: DashMap<[u8; 32], Principal>,
    /// What each that has connections shares among them.
    present: DashMap<PrincipalId, Present>,
}

struct Present {
    connections: usize,
    /// One at a time looks up repeats in the journal.
    lookup: Arc<Semaphore>,
}

/// What the catalogue keeps of a token.
pub fn token_sha256(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// A new token: 32 random bytes as hex.
pub fn new_token() -> Result<String, getrandom::Error> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Principals {
    pub fn replace(&self, principals: &[Principal]) {
        for principal in principals {
            self.by_token.insert(principal.token_sha256, principal.clone());
        }
        self.by_token.retain(|token, _| principals.iter().any(|principal| principal.token_sha256 == *token));
    }

    /// Who holds a token. The map is over digests, so comparing tells nothing of the token by its time.
    pub fn sign_in(&self, token: &[u8]) -> Option<Principal> {
        self.by_token.get(&token_sha256(token)).map(|found| found.value().clone())
    }

    /// Counts one more connection of a principal, unless it has as many as it may. Answers what its connections
    /// take before they look up repeats.
    pub fn enter(&self, id: PrincipalId) -> Option<Arc<Semaphore>> {
        let new = || Present { connections: 0, lookup: Arc::new(Semaphore::new(1)) };
        let (count, lookup) = {
            let mut present = self.present.entry(id).or_insert_with(new);
            present.connections += 1;
            (present.connections, Arc::clone(&present.lookup))
        };
        if count > limit::CONNECTIONS_PER_PRINCIPAL_MAX {
            self.leave(id);
            return None;
        }
        Some(lookup)
    }

    /// Counts one less.
    pub fn leave(&self, id: PrincipalId) {
        self.present.alter(&id, |_, present| Present { connections: present.connections - 1, ..present });
        self.present.remove_if(&id, |_, present| present.connections == 0);
    }

    pub fn is_empty(&self) -> bool {
        self.by_token.is_empty()
    }
}
