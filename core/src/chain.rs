//! The chain: a hash over every journal record and all before it, so that what was written cannot be edited,
//! removed or put elsewhere without notice.
//!
//! Each record carries `SHA-256(chain before it, its archive)`. The chain begins with zeros. A pair of LSN and
//! chain, written down outside, is an anchor: whoever rewrites the whole journal does not meet it.

use sha2::{Digest, Sha256};

use crate::id::Lsn;

/// The hash behind one record.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Chain(pub [u8; 32]);

impl Chain {
    /// Before the first record.
    pub const START: Chain = Chain([0; 32]);

    /// Behind a record.
    pub fn next(self, archive: &[u8]) -> Chain {
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update(archive);
        Chain(hash.finalize().into())
    }
}

impl std::fmt::Display for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::str::FromStr for Chain {
    type Err = &'static str;

    fn from_str(hex: &str) -> Result<Chain, &'static str> {
        let usage = "a chain is 64 hexadecimal digits";
        if hex.len() != 64 || !hex.is_ascii() {
            return Err(usage);
        }
        let mut chain = [0; 32];
        for (index, byte) in chain.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[index * 2..][..2], 16).map_err(|_| usage)?;
        }
        Ok(Chain(chain))
    }
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// The chain behind the record that ends with an LSN, as printed and written down: `LSN:HEX`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Anchor {
    pub lsn: Lsn,
    pub chain: Chain,
}

impl std::fmt::Display for Anchor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.lsn, self.chain)
    }
}

impl std::str::FromStr for Anchor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Anchor, &'static str> {
        let usage = "an anchor is LSN:HEX with 64 hexadecimal digits, as `stockline verify` prints it";
        let (lsn, hex) = text.split_once(':').ok_or(usage)?;
        let lsn = Lsn(lsn.parse().map_err(|_| usage)?);
        Ok(Anchor { lsn, chain: hex.parse().map_err(|_| usage)? })
    }
}
