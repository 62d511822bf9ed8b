//! Talking to Stockline: what a channel, a warehouse or a tool links.
//!
//! [`Client`] is what most want: typed calls that survive lost connections, because what was not answered is
//! sent again with the same keys. [`Connection`] is one signed-in stream of frames, without any of that, for
//! tools that measure. The rules of the ledger are not known here; the wire types come from the core.

mod client;
mod connection;
mod error;
mod profile;
mod stream;

pub use client::{Client, NewReservation, NewStep, Outcome, ReservationView};
pub use connection::{Connection, FrameSink, FrameSource, connect};
pub use error::ClientError;
pub use profile::Profile;
pub use stockline_core::command::{Action, Fill, Verb};
pub use stockline_core::{bucket, catalogue, event, id, label, limit, outcome, record, wire};
pub use stream::EventStream;
