//! Principals by token: who is signing in. Tokens are known by their SHA-256 only.

use dashmap::DashMap;
use sha2::{Digest, Sha256};
use stockline_core::catalogue::Principal;
use stockline_core::id::PrincipalId;
use stockline_core::limit;

/// Live copy of the catalogue's principals, replaced when a change of them is durable.
#[derive(Default)]
pub struct Principals {
    by_token: DashMap<[u8; 32], Principal>,
    /// Connections of each that has some.
    connections: DashMap<PrincipalId, usize>,
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

    /// Counts one more connection of a principal, unless it has as many as it may.
    pub fn enter(&self, id: PrincipalId) -> bool {
        let count = *self.connections.entry(id).and_modify(|count| *count += 1).or_insert(1);
        if count > limit::CONNECTIONS_PER_PRINCIPAL_MAX {
            self.leave(id);
            return false;
        }
        true
    }

    /// Counts one less.
    pub fn leave(&self, id: PrincipalId) {
        self.connections.alter(&id, |_, count| count - 1);
        self.connections.remove_if(&id, |_, count| *count == 0);
    }

    pub fn is_empty(&self) -> bool {
        self.by_token.is_empty()
    }
}
