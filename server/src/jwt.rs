//! JWTs: tokens that somebody else signs, for principals that the catalogue knows. One algorithm (Ed25519), one key,
//! and an audience and an end that are checked. What they may do is the catalogue's business alone.

use std::path::Path;

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result as Checked};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::Deserialize;
use stockline_core::id::Millis;

/// Seconds that the signer's clock may be behind.
const LEEWAY_S: u64 = 5;

/// The signatures are checked by ring, as everything else is.
static PROVIDER: CryptoProvider = CryptoProvider {
    // Nothing is signed here.
    signer_factory: |_, _| Err(ErrorKind::InvalidAlgorithm.into()),
    verifier_factory: verifier,
    key_utils: KeyUtils::new_unimplemented(),
};

struct Ed25519(Vec<u8>);

impl signature::Verifier<Vec<u8>> for Ed25519 {
    fn verify(&self, message: &[u8], signed: &Vec<u8>) -> Result<(), signature::Error> {
        let key = UnparsedPublicKey::new(&ED25519, &self.0);
        key.verify(message, signed).map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Ed25519 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Checked<Box<dyn JwtVerifier>> {
    match algorithm {
        Algorithm::EdDSA => Ok(Box::new(Ed25519(key.try_get_as_bytes()?.to_vec()))),
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    }
}

#[derive(Deserialize)]
struct Claims {
    /// The principal's name.
    sub: String,
    /// Seconds since 1970.
    exp: u64,
}

/// What is accepted.
pub struct Jwts {
    key: DecodingKey,
    validation: Validation,
}

impl Jwts {
    /// With the public key in a file.
    pub fn load(path: &Path, audience: &str) -> Result<Jwts, String> {
        let said = |error: String| format!("{}: {error}", path.display());
        let pem = std::fs::read(path).map_err(|error| said(error.to_string()))?;
        Jwts::new(&pem, audience).map_err(said)
    }

    /// With a public key (PEM) and the audience that tokens must be for.
    pub fn new(pem: &[u8], audience: &str) -> Result<Jwts, String> {
        // A second time in one process keeps the first, which is the same.
        let _ = PROVIDER.install_default();
        let key = DecodingKey::from_ed_pem(pem).map_err(|error| format!("no Ed25519 public key: {error}"))?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["exp", "aud", "sub"]);
        validation.leeway = LEEWAY_S;
        validation.validate_nbf = true;
        Ok(Jwts { key, validation })
    }

    /// Whose it is and until when, if it is good.
    pub fn check(&self, token: &[u8]) -> Option<(String, Millis)> {
        let claims = jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation).ok()?.claims;
        let end = claims.exp.saturating_add(LEEWAY_S).saturating_mul(1_000);
        Some((claims.sub, Millis(end)))
    }
}
