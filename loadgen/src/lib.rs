//! Load against a running server: scenarios, floors, and an auditor that believes no reply.
//!
//! Nothing here shares code with the ledger: what should happen is computed from the rules as documented, in
//! [`audit`] and [`model`]. From the core come the wire types only, through the client.

pub mod audit;
pub mod chance;
pub mod dice;
pub mod drive;
pub mod error;
pub mod floor;
pub mod history;
pub mod model;
pub mod replay;
pub mod report;
pub mod scenario;
pub mod stage;
pub mod torture;
