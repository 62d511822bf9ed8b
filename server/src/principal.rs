//! Principals by token: who is signing in. Tokens are known by their SHA-256 only.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use dashmap::DashMap;
use sha2::{Digest, Sha256};
use stockline_core::catalogue::{NO_TOKEN, Principal};
use stockline_core::id::{Millis, PrincipalId};
use stockline_core::limit;
use stockline_core::outcome::Code;
use tokio::sync::{Semaphore, watch};

use crate::jwt::Jwts;

/// Live copy of the catalogue's principals, replaced when a change of them is durable.
#[derive(Default)]
pub struct Principals {
    by_token: DashMap<[u8; 32], Arc<Principal>>,
    /// The hash of each name's token, for whoever comes with a JWT.
    by_name: DashMap<String, [u8; 32]>,
    /// The names of all there ever were.
    names: DashMap<PrincipalId, String>,
    jwts: Option<Jwts>,
    /// What each that has connections shares among them.
    present: DashMap<PrincipalId, Present>,
    limiter: Option<Limiter>,
}

struct Present {
    connections: usize,
    shared: Shared,
}

/// What the connections of one principal share.
#[derive(Clone)]
pub struct Shared {
    /// One at a time looks up repeats in the journal.
    pub lookup: Arc<Semaphore>,
    /// Says true when the token they signed in with is worth nothing any more, or something else.
    pub over: watch::Receiver<bool>,
    end: Arc<watch::Sender<bool>>,
}

impl Shared {
    fn new() -> Shared {
        let (end, over) = watch::channel(false);
        Shared { lookup: Arc::new(Semaphore::new(1)), over, end: Arc::new(end) }
    }
}

/// Who is signed in.
#[derive(Clone, Debug)]
pub struct SignedIn {
    pub principal: Arc<Principal>,
    /// A JWT ends.
    pub until: Option<Millis>,
}

/// Commands a second that a token may send, and what is left of them.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    pub quota: u32,
    pub left: u32,
    /// 0: the call may go on.
    pub wait_s: u64,
}

/// Commands a second of each principal. What is counted after a call was let in may exceed what is left: the next call
/// waits until that is paid back.
struct Limiter {
    per_s: NonZeroU32,
    /// What is left of each, and when that was.
    left: DashMap<PrincipalId, (f64, Instant)>,
}

impl Limiter {
    fn spend(&self, id: PrincipalId, count: u32, may_owe: bool) -> Rate {
        let quota = self.per_s.get();
        let most = f64::from(quota);
        let now = Instant::now();
        let mut entry = self.left.entry(id).or_insert((most, now));
        let (left, at) = *entry;
        let left = (left + now.duration_since(at).as_secs_f64() * most).min(most);
        let count = f64::from(count);
        let after = if may_owe || left >= count { left - count } else { left };
        *entry = (after, now);
        let is_refused = !may_owe && left < count;
        let wait_s = if is_refused { ((count - left) / most).ceil().max(1.0) as u64 } else { 0 };
        Rate { quota, left: after.max(0.0) as u32, wait_s }
    }
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
    /// With at most so many commands a second from each, 0 for no limit, and JWTs if they are accepted.
    pub fn new(commands_per_s: u32, jwts: Option<Jwts>) -> Principals {
        let limiter = NonZeroU32::new(commands_per_s).map(|per_s| Limiter { per_s, left: DashMap::new() });
        Principals { limiter, jwts, ..Principals::default() }
    }

    /// Counts a call as one command, if there is room; `None` where there is no limit.
    pub fn spend(&self, id: PrincipalId) -> Option<Rate> {
        self.limiter.as_ref().map(|limiter| limiter.spend(id, 1, false))
    }

    /// Counts the other commands of a call that was let in.
    pub fn spend_more(&self, id: PrincipalId, count: usize) {
        if let Some(limiter) = &self.limiter {
            limiter.spend(id, u32::try_from(count).unwrap_or(u32::MAX), true);
        }
    }

    /// Who has that name and a token that is good.
    pub fn called(&self, name: &str) -> Option<Arc<Principal>> {
        let token = self.by_name.get(name).map(|token| *token)?;
        self.by_token.get(&token).map(|found| Arc::clone(found.value()))
    }

    /// The names of all, those whose token is revoked included.
    pub fn names(&self) -> HashMap<PrincipalId, String> {
        self.names.iter().map(|found| (*found.key(), found.value().clone())).collect()
    }

    /// Takes over what holds from now on, and ends the connections of those whose rights are others.
    pub fn replace(&self, principals: &[Principal]) {
        for principal in principals {
            self.names.insert(principal.id, principal.name.clone());
        }
        let valid = || principals.iter().filter(|principal| principal.token_sha256 != NO_TOKEN);
        for principal in valid() {
            let before = self.by_token.insert(principal.token_sha256, Arc::new(principal.clone()));
            if let Some(before) = before.filter(|before| **before != *principal) {
                self.end(before.id);
                self.end(principal.id);
            }
            self.by_name.insert(principal.name.clone(), principal.token_sha256);
        }
        let tokens: HashSet<&[u8; 32]> = valid().map(|principal| &principal.token_sha256).collect();
        self.by_name.retain(|_, token| tokens.contains(token));
        self.by_token.retain(|token, principal| {
            let stays = tokens.contains(token);
            if !stays {
                self.end(principal.id);
            }
            stays
        });
    }

    /// Ends the connections that a principal has: whoever signs in from now on is not meant.
    fn end(&self, id: PrincipalId) {
        self.present.alter(&id, |_, present| {
            // Nobody may be there to hear it.
            let _ = present.shared.end.send(true);
            Present { shared: Shared::new(), ..present }
        });
    }

    /// Who holds a token, or whom a JWT names. The map is over digests, so comparing tells nothing of the token by its
    /// time.
    pub fn sign_in(&self, token: &[u8]) -> Option<SignedIn> {
        if token.len() > limit::TOKEN_BYTES_MAX {
            return None;
        }
        // Tokens of our own are hex digits.
        let (token, until) = match self.jwts.as_ref().filter(|_| token.contains(&b'.')) {
            None => (token_sha256(token), None),
            Some(jwts) => {
                let (name, until) = jwts.check(token)?;
                (*self.by_name.get(&name)?, Some(until))
            }
        };
        self.by_token.get(&token).map(|found| SignedIn { principal: Arc::clone(found.value()), until })
    }

    /// Whether a principal is still who it was when it signed in.
    pub fn is_current(&self, principal: &Arc<Principal>) -> bool {
        let now = self.by_token.get(&principal.token_sha256);
        now.is_some_and(|now| Arc::ptr_eq(now.value(), principal) || *now.value() == *principal)
    }

    /// Counts one more connection of a principal, unless it has as many as it may or is not who it was. Answers what its
    /// connections share.
    pub fn enter(&self, principal: &Arc<Principal>) -> Result<Shared, Code> {
        let id = principal.id;
        let new = || Present { connections: 0, shared: Shared::new() };
        let (count, shared) = {
            let mut present = self.present.entry(id).or_insert_with(new);
            present.connections += 1;
            (present.connections, present.shared.clone())
        };
        let refused = if count > limit::CONNECTIONS_PER_PRINCIPAL_MAX {
            Some(Code::Overloaded)
        } else if !self.is_current(principal) {
            // It was replaced between its sign-in and here: whoever ended its connections did not see this one.
            Some(Code::Unauthenticated)
        } else {
            None
        };
        match refused {
            Some(code) => {
                self.leave(id);
                Err(code)
            }
            None => Ok(shared),
        }
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
